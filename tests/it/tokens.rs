//! Tokens of service accounts: asked for with kubectl, lying in Secrets, read by guests; and who believes
//! them (BEHAVIOURS 8.6, 10.13, 10.15, 18.1, 18.2).

use std::path::PathBuf;
use std::process::Output;
use std::time::Duration;

use coracle::apiserver::request::LogOptions;
use coracle::client::{Client, DeleteOptions, Event, Select};
use coracle::clock;
use coracle::cluster::{Cluster, Config};
use futures_util::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewStatus};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::harness::{Up, has, text};

#[test]
fn tokens_prove_accounts_while_these_live() {
    if !has("kubectl") {
        return;
    }
    let mut up = Up::durable(&[]);
    let authority = up.scratch().join("ca.crt");
    up.kubectl(&["wait", "--for=create", "cm/kube-root-ca.crt", "--timeout=10s"]);
    let pem = up.kubectl(&["get", "cm", "kube-root-ca.crt", "-o", r"jsonpath={.data.ca\.crt}"]);
    std::fs::write(&authority, pem).unwrap();
    let bearer = |token: &str| Bearer { authority: authority.clone(), token: token.to_owned() };
    std::thread::scope(|scope| {
        for part in [asked_for, bound_to_pods, in_secrets, in_volumes] {
            let up = &up;
            scope.spawn(move || part(up, &bearer));
        }
    });
    let token = up.kubectl(&["create", "token", "default", "--duration=1h"]);
    up.kill_and_restart();
    assert!(reviewed(&up, &token)["authenticated"] == true, "the key outlives the process");
}

/// Speaks with a token and nothing else.
struct Bearer {
    authority: PathBuf,
    token: String,
}

impl Bearer {
    fn kubectl(&self, up: &Up, arguments: &[&str]) -> Output {
        let mut all = vec!["--kubeconfig=/dev/null", "--server", &up.url, "--token", &self.token];
        all.extend(["--certificate-authority", self.authority.to_str().unwrap()]);
        all.extend(arguments);
        up.kubectl_output(&all)
    }

    fn whoami(&self, up: &Up) -> Value {
        let output = self.kubectl(up, &["auth", "whoami", "-o", "json"]);
        let answer: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output.stderr)));
        answer["status"]["userInfo"].clone()
    }
}

type Speak<'a> = &'a (dyn Fn(&str) -> Bearer + Sync);

/// What a TokenReview says.
fn reviewed(up: &Up, token: &str) -> Value {
    let review = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token.trim()},
    });
    let answer = up.kubectl_stdin(&["create", "-f", "-", "-o", "json"], &review.to_string());
    serde_json::from_str::<Value>(&answer).unwrap()["status"].clone()
}

fn asked_for(up: &Up, bearer: Speak<'_>) {
    let token = up.kubectl(&["create", "token", "default", "--duration=20m"]);
    let user = bearer(token.trim()).whoami(up);
    let uid = up.kubectl(&["get", "sa", "default", "-o", "jsonpath={.metadata.uid}"]);
    assert_eq!(
        (&user["username"], &user["uid"]),
        (&json!("system:serviceaccount:default:default"), &json!(uid))
    );
    let groups = ["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"];
    assert_eq!(user["groups"], json!(groups));
    let id = user["extra"]["authentication.kubernetes.io/credential-id"][0].as_str().unwrap();
    assert!(id.starts_with("JTI="), "{user}");

    let status = reviewed(up, &token);
    assert_eq!((&status["authenticated"], &status["user"]), (&json!(true), &user));
    assert_eq!(status["audiences"], json!(["https://kubernetes.default.svc.cluster.local"]));
    let vault = up.kubectl(&["create", "token", "default", "--audience=vault"]);
    let status = reviewed(up, &vault);
    assert!(
        status["error"].as_str().unwrap().contains(r#"token audiences ["vault"] is invalid"#),
        "{status}"
    );

    // Rights come later: an account may find out what there is and who it is.
    let denied = bearer(token.trim()).kubectl(up, &["get", "pods", "-n", "default"]);
    let expected = r#"pods is forbidden: User "system:serviceaccount:default:default" cannot list resource "pods" in API group "" in the namespace "default""#;
    assert!(text(&denied.stderr).contains(expected), "{}", text(&denied.stderr));
    let keys = bearer(token.trim()).kubectl(up, &["get", "--raw", "/openid/v1/jwks"]);
    let keys: Value = serde_json::from_slice(&keys.stdout).unwrap();
    assert_eq!((&keys["keys"][0]["alg"], &keys["keys"][0]["crv"]), (&json!("ES256"), &json!("P-256")));
    let issuer = bearer(token.trim()).kubectl(up, &["get", "--raw", "/.well-known/openid-configuration"]);
    assert!(text(&issuer.stdout).contains("/openid/v1/jwks"));

    let unauthorized = bearer("nonsense").kubectl(up, &["get", "pods"]);
    assert!(text(&unauthorized.stderr).contains("Unauthorized"), "{}", text(&unauthorized.stderr));
    let short = up.kubectl_fails(&["create", "token", "default", "--duration=1m"]);
    assert!(short.contains("may not specify a duration less than 10 minutes"), "{short}");
    let missing = up.kubectl_fails(&["create", "token", "nobody"]);
    assert!(missing.contains(r#"serviceaccounts "nobody" not found"#), "{missing}");
    assert!(up.kubectl(&["auth", "whoami"]).contains("kubernetes-admin"));
    let resources = up.kubectl(&["get", "--raw", "/api/v1"]);
    let entry = r#"{"name":"serviceaccounts/token","singularName":"","namespaced":true,"group":"authentication.k8s.io","version":"v1","kind":"TokenRequest","verbs":["create"]}"#;
    assert!(resources.contains(entry), "{resources}");
}

fn bound_to_pods(up: &Up, bearer: Speak<'_>) {
    let pod = "{apiVersion: v1, kind: Pod, metadata: {name: bound}, spec: {containers: [{name: main, image: coracle.dev/worker:v1, args: ['3600']}]}}";
    up.kubectl_stdin(&["create", "-f", "-"], pod);
    up.kubectl(&["wait", "pod/bound", "--for=condition=Ready", "--timeout=30s"]);
    let ask = ["create", "token", "default", "--bound-object-kind=Pod", "--bound-object-name=bound"];
    let token = up.kubectl(&ask);
    let extra = bearer(token.trim()).whoami(up)["extra"].clone();
    assert_eq!(extra["authentication.kubernetes.io/pod-name"], json!(["bound"]));
    assert_eq!(extra["authentication.kubernetes.io/node-name"], json!(["node-0"]));
    let other = up.kubectl_fails(&[&ask[..], &["--bound-object-uid=another"]].concat());
    assert!(other.contains("does not match the UID in record"), "{other}");
    up.kubectl(&["delete", "pod", "bound", "--timeout=30s"]);
    let status = reviewed(up, &token);
    assert_eq!(
        status["error"], "[invalid bearer token, service account token has been invalidated]",
        "the token died with its pod"
    );
    assert!(text(&bearer(token.trim()).kubectl(up, &["get", "pods"]).stderr).contains("Unauthorized"));
}

fn in_secrets(up: &Up, bearer: Speak<'_>) {
    let n = "-nrobots";
    up.kubectl(&["create", "namespace", "robots"]);
    up.kubectl(&["create", "serviceaccount", "robot", n]);
    let secret = "{apiVersion: v1, kind: Secret, type: kubernetes.io/service-account-token, metadata: {name: robot, annotations: {kubernetes.io/service-account.name: robot}}}";
    up.kubectl_stdin(&["create", "-f", "-", n], secret);
    up.kubectl(&["wait", "secret/robot", "--for=jsonpath={.data.token}", "--timeout=20s", n]);
    let described = up.kubectl(&["describe", "secret", "robot", n]);
    assert!(described.contains("namespace:  6 bytes") && described.contains("ca.crt:"), "{described}");
    let token = described.lines().find_map(|line| line.strip_prefix("token:")).unwrap().trim().to_owned();
    assert_eq!(bearer(&token).whoami(up)["username"], "system:serviceaccount:robots:robot");
    // What is taken out is put in again; the old token is then nobody's.
    up.kubectl(&["patch", "secret", "robot", n, "-p", r#"{"data":{"token":null}}"#]);
    up.kubectl(&["wait", "secret/robot", "--for=jsonpath={.data.token}", "--timeout=20s", n]);
    let status = reviewed(up, &token);
    assert_eq!(status["error"], "[invalid bearer token, token does not match server's copy]");
    up.kubectl(&["delete", "serviceaccount", "robot", n]);
    up.kubectl(&["wait", "secret/robot", "--for=delete", "--timeout=20s", n]);
    up.kubectl_stdin(&["create", "-f", "-", n], secret);
    up.kubectl(&["wait", "secret/robot", "--for=delete", "--timeout=20s", n]);
}

fn in_volumes(up: &Up, bearer: Speak<'_>) {
    let n = "-nguests";
    up.kubectl(&["create", "namespace", "guests"]);
    let at = "/var/run/secrets/kubernetes.io/serviceaccount";
    let pod = |name: &str, more: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{{more} containers: [{{name: main, image: coracle.dev/logger:v1, args: [{at}/token]}}]}}}}"
        )
    };
    up.kubectl_stdin(&["create", "-f", "-", n], &pod("reader", ""));
    up.kubectl(&["wait", "pod/reader", "--for=condition=Ready", "--timeout=30s", n]);
    let log = first_line(up, &["logs", "-f", "reader", n]);
    let token = log.strip_prefix(&format!("{at}/token: ")).unwrap_or_else(|| panic!("{log}"));
    let user = bearer(token).whoami(up);
    assert_eq!(user["username"], "system:serviceaccount:guests:default");
    assert_eq!(user["extra"]["authentication.kubernetes.io/pod-name"], json!(["reader"]));
    assert_eq!(reviewed(up, token)["authenticated"], true);
    let volume: Value =
        serde_json::from_str(&up.kubectl(&["get", "pod", "reader", n, "-o", "jsonpath={.spec.volumes[0]}"]))
            .unwrap();
    assert!(volume["name"].as_str().unwrap().starts_with("kube-api-access-"), "{volume}");
    // Whoever declines has none; whoever's account is gone waits for it.
    up.kubectl_stdin(&["create", "-f", "-", n], &pod("plain", "automountServiceAccountToken: false,"));
    assert_eq!(up.kubectl(&["get", "pod", "plain", n, "-o", "jsonpath={.spec.volumes}"]), "");
    let refused = first_line(up, &["logs", "-f", "plain", n, "--pod-running-timeout=20s"]);
    assert!(
        refused.contains("No such file") || refused.contains("Bad file") || refused.contains("error"),
        "{refused}"
    );
    up.kubectl(&["delete", "pod", "reader", n, "--timeout=30s"]);
    assert_eq!(reviewed(up, token)["authenticated"], Value::Null);
}

/// The first line that kubectl prints of a log it follows.
fn first_line(up: &Up, arguments: &[&str]) -> String {
    use std::io::{BufRead, BufReader};
    let mut child = up.kubectl_command(arguments).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    line.trim_end().to_owned()
}

async fn review(client: &Client, token: &str) -> TokenReviewStatus {
    let mut review = TokenReview::default();
    review.spec.token = Some(token.to_owned());
    let answer = client.create(review).await.unwrap();
    answer.status.clone().unwrap()
}

/// A guest that looks all the time sees a new token once four fifths of the old one's life are over.
#[test]
fn a_guest_sees_a_new_token_before_the_old_one_ends() {
    clock::virtual_runtime().unwrap().block_on(async {
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let config = Config { virtual_time: Some((start, 1)), ..Config::default() };
        let cluster = Cluster::start(config).await.unwrap();
        cluster.ready().await.unwrap();
        let client = cluster.client();
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "reader", "namespace": "default"},
            "spec": {
                "containers": [{
                    "name": "main", "image": "coracle.dev/logger:v1", "args": ["/t/token"],
                    "volumeMounts": [{"name": "token", "mountPath": "/t"}],
                }],
                "volumes": [{"name": "token", "projected": {"sources": [
                    {"serviceAccountToken": {"path": "token", "expirationSeconds": 600}},
                ]}}],
            },
        }))
        .unwrap();
        let mut watcher = client.watch::<Pod>(Select::default());
        client.create(pod).await.unwrap();
        let runs = |event: &Event<Pod>| match event {
            Event::Applied(pod) => {
                pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
            }
            Event::Restarted(_) | Event::Deleted(_) => false,
        };
        let hour = Duration::from_secs(3600);
        let running = async { while !runs(&watcher.next().await.expect("a watch goes on")) {} };
        cluster.clock().timeout(hour, running).await.expect("the guest runs");
        let options = LogOptions { follow: true, timestamps: true, ..LogOptions::default() };
        let mut log = client.logs("default", "reader", options).await.unwrap();
        let mut text = String::new();
        while text.lines().count() < 2 {
            let piece = cluster.clock().timeout(hour, log.next()).await.expect("a second token");
            let piece = piece.expect("the guest goes on");
            text.push_str(std::str::from_utf8(&piece).unwrap());
        }
        let told: Vec<(Timestamp, &str)> = text
            .lines()
            .map(|line| {
                let (time, rest) = line.split_once(' ').unwrap();
                (time.parse().unwrap(), rest.strip_prefix("/t/token: ").unwrap_or_else(|| panic!("{rest}")))
            })
            .collect();
        let [(first_at, first), (second_at, second)] = told[..] else { panic!("two lines: {text}") };
        assert_ne!(first, second);
        let seconds = second_at.duration_since(first_at).as_secs();
        assert!((479..=481).contains(&seconds), "a new token after {seconds} s of 600");
        // Both are good, until their time is over.
        for token in [first, second] {
            assert_eq!(review(&client, token).await.authenticated, Some(true));
        }
        cluster.clock().sleep(Duration::from_secs(121)).await;
        let old = review(&client, first).await;
        assert_eq!(old.error.as_deref(), Some("[invalid bearer token, service account token has expired]"));
        assert_eq!(review(&client, second).await.authenticated, Some(true));
        let at_once = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
        client.delete::<Pod>("default", "reader", at_once).await.unwrap();
        let dead = review(&client, second).await;
        assert_eq!(
            dead.error.as_deref(),
            Some("[invalid bearer token, service account token has been invalidated]")
        );
        cluster.shutdown().await;
    });
}
