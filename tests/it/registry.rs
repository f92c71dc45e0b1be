//! Images from registries: Debian's `docker-registry` on this machine, real kubectl, `coracle image`.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use coracle::guests;
use tempfile::TempDir;

use crate::harness::{DEADLINE, Up, coracle, has, text};

/// What the private registry lets in, with the password `tide`.
const HTPASSWD: &str = "sailor:$2b$05$abcdefghijklmnopqrstuuWajY63IPhp4aM1A33qG7bHBcI3BncPu\n";

/// A registry on a free port; killed when dropped.
struct Registry {
    child: Child,
    host: String,
    /// Files of ours: certificate, credentials, images.
    directory: TempDir,
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Registry {
    fn open() -> Self {
        Self::start(TempDir::new().unwrap(), "")
    }

    /// Over TLS, with a password.
    fn private() -> Self {
        let directory = TempDir::new().unwrap();
        let at = |name: &str| directory.path().join(name);
        let issued = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        std::fs::write(at("certificate.pem"), issued.cert.pem()).unwrap();
        std::fs::write(at("key.pem"), issued.signing_key.serialize_pem()).unwrap();
        std::fs::write(at("htpasswd"), HTPASSWD).unwrap();
        let more = format!(
            "  tls: {{certificate: {}, key: {}}}\nauth: {{htpasswd: {{realm: port, path: {}}}}}\n",
            at("certificate.pem").display(),
            at("key.pem").display(),
            at("htpasswd").display(),
        );
        let registry = Self::start(directory, &more);
        let host = &registry.host;
        let certificate = registry.file("certificate.pem");
        let hosts = format!("configs:\n  '{host}':\n    tls: {{ca_file: '{}'}}\n", certificate.display());
        std::fs::write(registry.file("registries.yaml"), hosts).unwrap();
        for (file, password) in [("right.json", "tide"), ("wrong.json", "ebb")] {
            let config = serde_json::json!({"auths": {host: {"username": "sailor", "password": password}}});
            std::fs::write(registry.file(file), config.to_string()).unwrap();
        }
        registry
    }

    fn start(directory: TempDir, more: &str) -> Self {
        let config = directory.path().join("config.yml");
        let data = directory.path().join("registry");
        let text = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http:\n  addr: 127.0.0.1:0\n  secret: none\n{more}",
            data.display()
        );
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (send, receive) = mpsc::channel();
        std::thread::spawn(move || {
            // Read to its end, so that the registry can go on writing.
            for line in lines.map_while(Result::ok) {
                if let Some((_, rest)) = line.split_once("listening on ") {
                    let address: String = rest.chars().take_while(|c| !matches!(c, '"' | ',')).collect();
                    send.send(address).ok();
                }
            }
        });
        let host = receive.recv_timeout(DEADLINE).expect("docker-registry says where it listens");
        Self { child, host, directory }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// `coracle image …` with a data directory beside the registry.
    #[track_caller]
    fn image(&self, arguments: &[&str]) -> String {
        let output = self.image_command(arguments).output().unwrap();
        assert!(output.status.success(), "coracle image {}: {}", arguments.join(" "), text(&output.stderr));
        text(&output.stdout)
    }

    #[track_caller]
    fn image_fails(&self, arguments: &[&str]) -> String {
        let output = self.image_command(arguments).output().unwrap();
        assert!(!output.status.success(), "coracle image {}: {}", arguments.join(" "), text(&output.stdout));
        text(&output.stderr)
    }

    fn image_command(&self, arguments: &[&str]) -> Command {
        let mut command = coracle();
        command.arg("image").args(arguments).arg("--data-dir").arg(self.file("data"));
        command.env("HOME", self.directory.path()).env_remove("DOCKER_CONFIG");
        command
    }

    /// Imports the guest `hello` under the registry's name for it, and sends it there.
    fn publish(&self, repository: &str, options: &[&str]) -> String {
        let wasm = self.file("hello.wasm");
        std::fs::write(&wasm, guests::fixture("hello").unwrap()).unwrap();
        let name = format!("{}/{repository}", self.host);
        self.image(&["import", path(&wasm), "--name", &name]);
        let pushed = self.image(&[&["push", &name], options].concat());
        assert!(pushed.starts_with(&format!("{name} sha256:")), "{pushed}");
        name
    }
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn has_tools() -> bool {
    has("docker-registry") && has("kubectl")
}

#[track_caller]
fn wait(up: &Up, pod: &str, jsonpath: &str, value: &str) {
    up.kubectl(&[
        "wait",
        &format!("pod/{pod}"),
        &format!("--for=jsonpath={{{jsonpath}}}={value}"),
        "--timeout=50s",
    ]);
}

const PHASE: &str = ".status.phase";
const REASON: &str = ".status.containerStatuses[0].state.waiting.reason";

/// Waits until the pod has succeeded; its events, the oldest first, as `Reason Message`.
#[track_caller]
fn succeeded(up: &Up, pod: &str) -> Vec<String> {
    wait(up, pod, PHASE, "Succeeded");
    assert!(up.kubectl(&["logs", pod]).contains("Hello, "), "the guest greets");
    events(up, pod)
}

fn events(up: &Up, pod: &str) -> Vec<String> {
    let of_pod = format!("involvedObject.name={pod}");
    let each = "jsonpath={range .items[*]}{.reason} {.message}{\"\\n\"}{end}";
    let told = up.kubectl(&["get", "events", "--field-selector", &of_pod, "-o", each]);
    told.lines().map(str::to_owned).collect()
}

#[test]
fn images_are_pulled_from_an_open_registry() {
    if !has_tools() {
        return;
    }
    let mut registry = Registry::open();
    let name = registry.publish("team/hello:v1", &[]);
    let up = Up::ephemeral(&["--nodes", "2"]);
    let image = format!("--image={name}");
    up.kubectl(&["run", "first", &image, "--restart=Never"]);
    let told = succeeded(&up, "first");
    let pulling = format!("Pulling Pulling image \"{name}\"");
    let pulled = format!("Pulled Successfully pulled image \"{name}\" in ");
    assert!(told.contains(&pulling), "{told:#?}");
    let text = told.iter().find(|text| text.starts_with(&pulled)).unwrap();
    assert!(text.contains(" including waiting). Image size: ") && text.ends_with(" bytes."), "{text}");
    let id = "jsonpath={.status.containerStatuses[0].imageID}";
    let id = up.kubectl(&["get", "pod", "first", "-o", id]);
    assert!(id.starts_with(&format!("{}/team/hello@sha256:", registry.host)), "{id}");

    up.kubectl(&["run", "second", &image, "--restart=Never"]);
    let present = format!("Pulled Container image \"{name}\" already present on machine");
    assert!(succeeded(&up, "second").contains(&present));
    up.kubectl(&["run", "digest", &format!("--image={id}"), "--restart=Never"]);
    assert!(succeeded(&up, "digest").iter().any(|text| text.ends_with("already present on machine")));

    // No registry is needed for what is here, unless somebody wants to be sure; nor for what is built in.
    registry.child.kill().unwrap();
    registry.child.wait().unwrap();
    up.kubectl(&["run", "third", &image, "--restart=Never"]);
    succeeded(&up, "third");
    up.kubectl(&["run", "always", &image, "--restart=Never", "--image-pull-policy=Always"]);
    wait(&up, "always", REASON, "ImagePullBackOff");
    let told = events(&up, "always");
    let failed = format!("Failed Failed to pull image \"{name}\": http://{}/v2/team/hello/", registry.host);
    assert!(told.iter().any(|text| text.starts_with(&failed)), "{told:#?}");
    let back_off = format!("BackOff Back-off pulling image \"{name}\": ");
    assert!(told.iter().any(|text| text.starts_with(&back_off)), "{told:#?}");
    up.kubectl(&[
        "run",
        "own",
        "--image=coracle.dev/hello:v1",
        "--restart=Never",
        "--image-pull-policy=Always",
    ]);
    succeeded(&up, "own");
    up.kubectl(&["run", "never", &format!("--image={}/x:v1", registry.host), "--image-pull-policy=Never"]);
    wait(&up, "never", REASON, "ErrImageNeverPull");
}

/// A Secret of a docker config, made or replaced as users do it.
fn secret(up: &Up, registry: &Registry, name: &str, file: &str) {
    let from = format!("--from-file=.dockerconfigjson={}", registry.file(file).display());
    let arguments = [
        "create",
        "secret",
        "generic",
        name,
        "--type=kubernetes.io/dockerconfigjson",
        &from,
        "--dry-run=client",
        "-o",
        "yaml",
    ];
    let manifest = up.kubectl(&arguments);
    up.kubectl_stdin(&["apply", "-f", "-"], &manifest);
}

fn pod(name: &str, image: &str, more: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{restartPolicy: Never, \
         containers: [{{name: main, image: '{image}'}}]{more}}}}}"
    )
}

#[test]
fn a_private_registry_takes_the_pods_and_the_accounts_secrets() {
    if !has_tools() {
        return;
    }
    let registry = Registry::private();
    let (hosts, right) = (registry.file("registries.yaml"), registry.file("right.json"));
    let options = ["--registries", path(&hosts), "--registry-config", path(&right)];
    let name = registry.publish("team/hello:v1", &options);
    let up = Up::ephemeral(&["--registries", path(&hosts)]);

    // Nobody's, and then the wrong one's.
    up.kubectl_stdin(&["apply", "-f", "-"], &pod("missing", &name, ", imagePullSecrets: [{name: none}]"));
    wait(&up, "missing", REASON, "ImagePullBackOff");
    let told = events(&up, "missing");
    let missing = "FailedToRetrieveImagePullSecret Unable to retrieve some image pull secrets (none); \
                   attempting to pull the image may not succeed.";
    assert!(told.contains(&missing.to_owned()), "{told:#?}");
    assert!(told.iter().any(|text| text.contains("401 Unauthorized")), "{told:#?}");

    secret(&up, &registry, "pull", "wrong.json");
    up.kubectl_stdin(&["apply", "-f", "-"], &pod("private", &name, ", imagePullSecrets: [{name: pull}]"));
    wait(&up, "private", REASON, "ImagePullBackOff");
    // The back-off is ten seconds and more; a Secret that is mended ends it.
    secret(&up, &registry, "pull", "right.json");
    let told = succeeded(&up, "private");
    assert!(told.iter().any(|text| text.starts_with("Failed Failed to pull image")), "{told:#?}");
    assert!(told.iter().any(|text| text.starts_with("Pulled Successfully pulled image")), "{told:#?}");

    // The image is here now, but not for everybody.
    up.kubectl_stdin(&["apply", "-f", "-"], &pod("stranger", &name, ""));
    wait(&up, "stranger", REASON, "ImagePullBackOff");

    let account = r#"{"imagePullSecrets": [{"name": "pull"}]}"#;
    up.kubectl(&["patch", "serviceaccount", "default", "-p", account]);
    up.kubectl_stdin(&["apply", "-f", "-"], &pod("account", &name, ""));
    let told = succeeded(&up, "account");
    assert!(told.iter().any(|text| text.ends_with("already present on machine")), "{told:#?}");
}

#[test]
fn the_cluster_may_have_credentials_for_every_pod() {
    if !has_tools() {
        return;
    }
    let registry = Registry::private();
    let (hosts, right) = (registry.file("registries.yaml"), registry.file("right.json"));
    let options = ["--registries", path(&hosts), "--registry-config", path(&right)];
    let name = registry.publish("team/hello:v1", &options);
    let up = Up::ephemeral(&options);
    up.kubectl(&["run", "any", &format!("--image={name}"), "--restart=Never"]);
    succeeded(&up, "any");

    // The command line has its own store and tells what is wrong.
    registry.image(&["remove", &name]);
    let refused = registry.image_fails(&["pull", &name, "--registries", path(&hosts)]);
    assert!(refused.contains("401 Unauthorized") && refused.contains("no credentials for it"), "{refused}");
    let pulled = registry.image(&[&["pull", &name], &options[..]].concat());
    assert!(pulled.starts_with(&format!("{name} sha256:")), "{pulled}");
    let inspected: serde_json::Value =
        serde_json::from_str(&registry.image(&["inspect", &name, "--json"])).unwrap();
    assert_eq!((&inspected["origin"], &inspected["kind"]), (&"pulled".into(), &"component".into()));
    assert!(
        inspected["exports"]
            .as_array()
            .unwrap()
            .iter()
            .any(|name| name.as_str().unwrap().starts_with("wasi:cli/run@"))
    );
    assert_eq!(inspected["blobs"].as_array().unwrap().len(), 2);
    let text = registry.image(&["inspect", &name]);
    assert!(text.contains("imports     wasi:cli/"), "{text}");
    assert!(
        registry.image(&["list"]).lines().any(|line| line.starts_with(&name) && line.ends_with("pulled"))
    );

    registry.image(&["compile", &name]);
    let compiled = || std::fs::read_dir(registry.file("data/compiled")).unwrap().count();
    assert_eq!(compiled(), 1);
    registry.image(&["compile", &name, path(&registry.file("hello.wasm"))]);
    assert_eq!(compiled(), 1, "it is the same program");
}

#[test]
fn a_registry_that_stalls_is_given_up() {
    if !has("kubectl") {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap();
    // Takes every connection, promises an answer, and says no more.
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut request = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            assert!(request.any(|line| line.is_empty()));
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n").ok();
            held.push(stream);
        }
    });
    let up = Up::ephemeral(&["--image-pull-progress-deadline", "2"]);
    up.kubectl(&["run", "stalled", &format!("--image={host}/a:v1"), "--restart=Never"]);
    wait(&up, "stalled", REASON, "ImagePullBackOff");
    let told = events(&up, "stalled");
    assert!(told.iter().any(|text| text.ends_with("/v2/a/manifests/v1: no answer for 2 s")), "{told:#?}");
    // A pod that waits is deleted as quickly as any other.
    up.kubectl(&["delete", "pod", "stalled", "--timeout=50s"]);
}

#[test]
fn files_of_the_node_are_images_where_they_may_be() {
    if !has("kubectl") {
        return;
    }
    let directory = TempDir::new().unwrap();
    let root = directory.path().canonicalize().unwrap();
    let (allowed, other) = (root.join("images"), root.join("other.wasm"));
    std::fs::create_dir(&allowed).unwrap();
    let file = allowed.join("hello.wasm");
    for path in [&file, &other] {
        std::fs::write(path, guests::fixture("hello").unwrap()).unwrap();
    }
    let up = Up::ephemeral(&["--allow-file-images", path(&allowed)]);
    // `kubectl run` takes names of registries' images only.
    up.kubectl_stdin(&["apply", "-f", "-"], &pod("file", &format!("file://{}", file.display()), ""));
    succeeded(&up, "file");
    up.kubectl_stdin(&["apply", "-f", "-"], &pod("outside", &format!("file://{}", other.display()), ""));
    wait(&up, "outside", REASON, "ImagePullBackOff");
    let told = events(&up, "outside");
    assert!(told.iter().any(|text| text.contains("the only directory whose files are images")), "{told:#?}");
}
