//! `coracle config` against real clusters: the past of ConfigMaps and Secrets, and the way back.

use std::process::Output;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::client_library::client;
use crate::harness::{Up, coracle, has, text};

/// `coracle config …` with this cluster's kubeconfig.
fn config(up: &Up, line: &str) -> Output {
    let mut command = coracle();
    command.arg("config").args(line.split_whitespace()).env("KUBECONFIG", &up.kubeconfig);
    command.output().unwrap()
}

#[track_caller]
fn exits(up: &Up, line: &str, code: i32) -> (String, String) {
    let output = config(up, line);
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "config {line}: {stderr}{stdout}");
    (stdout, stderr)
}

#[track_caller]
fn runs(up: &Up, line: &str) -> String {
    let (stdout, stderr) = exits(up, line, 0);
    assert_eq!(stderr, "", "config {line}");
    stdout
}

/// The error, which must be one line.
#[track_caller]
fn fails(up: &Up, line: &str, code: i32) -> String {
    let (stdout, stderr) = exits(up, line, code);
    assert_eq!((stdout.as_str(), stderr.lines().count()), ("", 1), "config {line}: {stderr}");
    stderr.strip_prefix("coracle: ").unwrap_or_else(|| panic!("{stderr}")).trim_end().to_owned()
}

/// `CHANGE KEYS` of each version, the current one with a star before it, after checking the other columns.
#[track_caller]
fn changes(table: &str) -> Vec<String> {
    let mut lines = table.lines();
    let names = lines.next().unwrap();
    assert_eq!(
        names.split_whitespace().collect::<Vec<_>>(),
        ["CURRENT", "REVISION", "AGE", "CHANGE", "HASH", "KEYS"]
    );
    let mut revisions: Vec<u64> = Vec::new();
    let shown = lines.map(|line| {
        let (star, rest) = line.strip_prefix('*').map_or(("", line), |rest| ("*", rest));
        let cells: Vec<&str> = rest.split_whitespace().collect();
        revisions.push(cells[0].parse().unwrap());
        let age = cells[1].strip_suffix('s').unwrap_or_else(|| panic!("{line}: made by this test"));
        assert!(age.parse::<u64>().is_ok(), "{line}");
        format!("{star}{} {}", cells[2], cells[4..].join(" "))
    });
    let shown: Vec<_> = shown.collect();
    assert!(revisions.is_sorted(), "{table}");
    shown
}

fn value_of(up: &Up, key: &str) -> String {
    up.kubectl(&["get", "configmap", "app", "-o", &format!("jsonpath={{.data.{key}}}")])
}

#[test]
fn a_config_map_is_followed_and_taken_back_across_a_restart() {
    if !has("kubectl") {
        return;
    }
    let mut up = Up::durable(&["--nodes", "0"]);
    up.kubectl(&["create", "configmap", "app", "--from-literal=mode=fast", "--from-literal=old=1"]);
    let first = up.kubectl(&["get", "configmap", "app", "-o", "jsonpath={.metadata.resourceVersion}"]);
    let patch = r#"{"data":{"mode":"slow","old":null,"new":"2"}}"#;
    up.kubectl(&["patch", "configmap", "app", "--type=merge", "-p", patch]);
    up.kubectl(&["label", "configmap", "app", "team=a"]);
    up.kill_and_restart();

    let expected = ["Created +mode +old", "Changed ~mode +new -old", "*Metadata <none>"];
    assert_eq!(changes(&runs(&up, "history configmap/app")), expected);
    let (diff, _) = exits(&up, "diff cm/app", 1);
    assert!(
        diff.contains("\n-fast\n") && diff.contains("\n+slow\n") && diff.contains("+++ /dev/null"),
        "{diff}"
    );
    assert_eq!(runs(&up, &format!("diff cm/app --from {first} --to {first}")), "");

    let dry = runs(&up, "undo cm/app --dry-run");
    assert!(dry.contains("\n+fast\n"), "{dry}");
    assert!(
        dry.ends_with(&format!("configmap/app would be restored to revision {first} (dry run)\n")),
        "{dry}"
    );
    assert_eq!(value_of(&up, "mode"), "slow");
    let said = runs(&up, "undo configmap/app");
    let now = up.kubectl(&["get", "configmap", "app", "-o", "jsonpath={.metadata.resourceVersion}"]);
    assert_eq!(said, format!("configmap/app restored to revision {first} (new revision {now})\n"));
    assert_eq!(
        (value_of(&up, "mode"), value_of(&up, "old"), value_of(&up, "new")),
        ("fast".into(), "1".into(), String::new())
    );
    // What is no content stays as it is.
    assert_eq!(up.kubectl(&["get", "configmap", "app", "-o", "jsonpath={.metadata.labels.team}"]), "a");
    // Twice takes it back.
    runs(&up, "undo configmap/app");
    assert_eq!(value_of(&up, "mode"), "slow");
    assert_eq!(
        runs(&up, &format!("undo configmap/app --to-revision {first}")).split(" (new").next(),
        Some(format!("configmap/app restored to revision {first}").as_str())
    );
    let unchanged = runs(&up, &format!("undo configmap/app --to-revision {first}"));
    assert_eq!(unchanged, format!("configmap/app unchanged: its content is that of revision {first}\n"));

    // What is deleted can be read and made again.
    up.kubectl(&["delete", "configmap", "app"]);
    assert_eq!(changes(&runs(&up, "history cm/app")).last().unwrap(), "Deleted <none>");
    exits(&up, "diff cm/app", 1);
    runs(&up, "undo cm/app");
    assert_eq!(value_of(&up, "mode"), "fast");
    assert_eq!(changes(&runs(&up, "history cm/app")).last().unwrap(), "*Created +mode +old");
}

#[test]
fn the_whole_history_can_be_had_as_kubernetes_lists_are() {
    if !has("kubectl") {
        return;
    }
    let up = Up::ephemeral(&["--nodes", "0"]);
    up.kubectl(&["create", "configmap", "app", "--from-literal=a=1"]);
    up.kubectl(&["patch", "configmap", "app", "--type=merge", "-p", r#"{"data":{"a":"2"}}"#]);
    let raw = up.kubectl(&["get", "--raw", "/api/v1/namespaces/default/configmaps/app/history"]);
    let raw: Value = serde_json::from_str(&raw).unwrap();
    assert_eq!((&raw["kind"], &raw["apiVersion"]), (&json!("ObjectHistory"), &json!("coracle.dev/v1")));
    assert_eq!((&raw["since"], &raw["truncated"]), (&json!(0), &json!(false)));
    assert_eq!(raw["items"][1]["object"]["data"], json!({"a": "2"}));
    let parsed: Value = serde_json::from_str(&runs(&up, "history cm/app -o json")).unwrap();
    assert_eq!(parsed["items"], raw["items"]);
    let yaml = runs(&up, "history cm/app -o yaml");
    assert!(yaml.contains("kind: ObjectHistory") && yaml.contains("type: Modified"), "{yaml}");
    // kubectl is none the wiser.
    assert!(
        up.kubectl(&["api-resources", "--no-headers", "-o", "name"]).lines().all(|name| !name.contains('/'))
    );
    up.kubectl(&["get", "configmap", "app", "-o", "wide"]);
}

#[test]
fn secrets_keep_their_values_to_themselves() {
    if !has("kubectl") {
        return;
    }
    for up in [Up::ephemeral(&["--nodes", "0"]), Up::durable(&["--nodes", "0"])] {
        secrets(&up);
    }
}

fn secrets(up: &Up) {
    up.kubectl(&[
        "create",
        "secret",
        "generic",
        "db",
        "--from-literal=password=hunter2",
        "-n",
        "kube-system",
    ]);
    let patch = r#"{"stringData":{"password":"hunter3"}}"#;
    up.kubectl(&["patch", "secret", "db", "-n", "kube-system", "--type=merge", "-p", patch]);
    let table = runs(up, "history secret/db -n kube-system");
    assert_eq!(changes(&table), ["Created +password", "*Changed ~password"]);
    let (masked, _) = exits(up, "diff secret/db -n kube-system", 1);
    assert!(masked.contains("-*** (before)\n+*** (after)\n"), "{masked}");
    let dry = runs(up, "undo secret/db -n kube-system --dry-run");
    for text in [&table, &masked, &dry] {
        assert!(!text.contains("hunter") && !text.contains("aHVudGVy"), "{text}");
    }
    let (shown, _) = exits(up, "diff secret/db -n kube-system --show-secrets", 1);
    assert!(shown.contains("-hunter2\n") && shown.contains("+hunter3\n"), "{shown}");
    runs(up, "undo secret/db -n kube-system");
    let password =
        up.kubectl(&["get", "secret", "db", "-n", "kube-system", "-o", "jsonpath={.data.password}"]);
    assert_eq!(password, "aHVudGVyMg==");
    // Deletion destroys the content in the history too.
    up.kubectl(&["delete", "secret", "db", "-n", "kube-system"]);
    let all = runs(up, "history secret/db -n kube-system -o json");
    assert!(all.contains("\"destroyed\": true") && !all.contains("aHVudGVy"), "{all}");
    let gone = fails(up, "undo secret/db -n kube-system", 1);
    assert!(gone.contains("was destroyed when it was deleted; nobody can read it any more"), "{gone}");
}

#[test]
fn what_cannot_be_done_is_said() {
    if !has("kubectl") {
        return;
    }
    let up = Up::ephemeral(&["--nodes", "0"]);
    assert_eq!(
        fails(&up, "history configmap/absent", 1),
        "configmap/absent has no history in the namespace default: it was never there, \
         or so long ago that nothing of it is kept"
    );
    assert!(fails(&up, "diff configmap/absent", 2).starts_with("configmap/absent has no history"));
    up.kubectl(&["create", "configmap", "app", "--from-literal=a=1"]);
    let only = fails(&up, "undo cm/app", 1);
    assert!(only.starts_with("configmap/app has no content before revision "), "{only}");
    assert!(
        fails(&up, "undo cm/app --to-revision 1", 1).starts_with("configmap/app has no revision 1; it has ")
    );
    up.kubectl(&[
        "patch",
        "configmap",
        "app",
        "--type=merge",
        "-p",
        r#"{"data":{"a":"2"},"immutable":true}"#,
    ]);
    let sealed = fails(&up, "undo cm/app", 1);
    assert!(
        sealed.starts_with("configmap/app is immutable, so its content cannot be restored in place"),
        "{sealed}"
    );
    exits(&up, "history pod/x", 2);
    let unknown = fails(&up, "history cm/app --context other", 1);
    assert!(unknown.contains("failed to load current context: other"), "{unknown}");
    let missing = fails(&up, "history cm/app --kubeconfig /nowhere/kubeconfig", 1);
    assert!(missing.starts_with("cannot use the kubeconfig /nowhere/kubeconfig: "), "{missing}");
    let (url, elsewhere) = (up.url.clone(), tempfile::tempdir().unwrap());
    let kubeconfig = elsewhere.path().join("kubeconfig");
    std::fs::copy(&up.kubeconfig, &kubeconfig).unwrap();
    drop(up);
    let output =
        coracle().args(["config", "history", "cm/app", "--kubeconfig"]).arg(&kubeconfig).output().unwrap();
    let error = text(&output.stderr);
    assert!(error.contains(&format!("cannot reach the cluster at {url}; is it running?")), "{error}");
}

/// With hardly any history kept, what is left is told, and that it is not all.
#[test]
fn dropped_history_is_said_to_be_missing() {
    let up = Up::durable(&["--nodes", "0", "--history-bytes", "0"]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let first = runtime.block_on(async {
        let maps: Api<ConfigMap> = Api::default_namespaced(client(&up).await);
        let map = |name: &str, a: &str| -> ConfigMap {
            serde_json::from_value(json!({"metadata": {"name": name}, "data": {"a": a}})).unwrap()
        };
        maps.create(&PostParams::default(), &map("app", "1")).await.unwrap();
        let first = maps.create(&PostParams::default(), &map("big", "1")).await.unwrap();
        // A segment of the log ends at 32 MiB, and a snapshot then lets older ones go.
        let big = "x".repeat(1_000_000);
        for n in 0..80 {
            let patch = Patch::Merge(json!({"data": {"a": format!("{n}{big}")}}));
            maps.patch("big", &PatchParams::default(), &patch).await.unwrap();
        }
        let patch = Patch::Merge(json!({"data": {"a": "2"}}));
        maps.patch("app", &PatchParams::default(), &patch).await.unwrap();
        first.metadata.resource_version.unwrap()
    });
    let (table, note) = exits(&up, "history cm/big", 0);
    assert!(note.starts_with("older history was dropped: it begins after revision "), "{note}{table}");
    assert_eq!(changes(&table)[0], "Changed <unknown>");
    let lost = fails(&up, &format!("undo cm/big --to-revision {first}"), 1);
    assert!(lost.contains(" any more: older history was dropped; it has "), "{lost}");
    // Of what was not changed meanwhile, nothing is lost.
    assert_eq!(changes(&runs(&up, "history cm/app")), ["Created +a", "*Changed ~a"]);
}
