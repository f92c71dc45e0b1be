//! The operations of a group-version. kubectl looks here for the kind behind a resource and for the query
//! parameters `fieldValidation` and `dryRun` of its PATCH (BEHAVIOURS 7.4).

use serde_json::{Map, Value, json};

use super::schemas::{DELETE_OPTIONS, EVICTION, PATCH, SCALE, STATUS, TOKEN_REQUEST, reference};
use crate::apiserver::path::subresource_verbs;
use crate::kind::{Kind, Subresource};

/// One operation to be written down.
struct Operation<'a> {
    method: &'static str,
    /// `get`, `list`, …, as `x-kubernetes-action` names it.
    action: &'static str,
    verb: &'static str,
    kind: &'a Kind,
    subresource: Option<Subresource>,
    /// Schema names; an empty one is no body, or text.
    takes: &'a str,
    gives: &'a str,
    across_namespaces: bool,
}

pub(super) fn build(kinds: &[&'static Kind], names: &[String], group: &str, version: &str) -> Value {
    let mut paths = Map::new();
    let root = super::path(group, version);
    for (kind, name) in kinds.iter().zip(names) {
        let inside = if kind.is_namespaced() { "/namespaces/{namespace}" } else { "" };
        let collection = format!("/{root}{inside}/{}", kind.plural);
        let list_name = format!("{name}List");
        let operation = |method, action, verb, takes, gives| Operation {
            method,
            action,
            verb,
            kind,
            subresource: None,
            takes,
            gives,
            across_namespaces: false,
        };
        let on_collection = [
            operation("get", "list", "list", "", list_name.as_str()),
            operation("post", "post", "create", name.as_str(), name.as_str()),
            operation("delete", "deletecollection", "deletecollection", DELETE_OPTIONS, STATUS),
        ];
        let on_item = [
            operation("get", "get", "get", "", name.as_str()),
            operation("put", "put", "update", name.as_str(), name.as_str()),
            operation("patch", "patch", "patch", PATCH, name.as_str()),
            operation("delete", "delete", "delete", DELETE_OPTIONS, STATUS),
        ];
        insert(&mut paths, &collection, kind.is_namespaced(), false, kind.verbs, &on_collection);
        insert(
            &mut paths,
            &format!("{collection}/{{name}}"),
            kind.is_namespaced(),
            true,
            kind.verbs,
            &on_item,
        );
        if kind.is_namespaced() && kind.verbs.contains(&"list") {
            let mut across = operation("get", "list", "list", "", list_name.as_str());
            across.across_namespaces = true;
            insert(&mut paths, &format!("/{root}/{}", kind.plural), false, false, kind.verbs, &[across]);
        }
        for &subresource in kind.subresources {
            let body = match subresource {
                Subresource::Binding => names_binding(names, name),
                Subresource::Token => TOKEN_REQUEST,
                Subresource::Scale => SCALE,
                Subresource::Eviction => EVICTION,
                Subresource::Status
                | Subresource::Log
                | Subresource::Finalize
                | Subresource::EphemeralContainers
                | Subresource::History
                | Subresource::Trigger
                | Subresource::Queue
                | Subresource::Exec
                | Subresource::Attach
                | Subresource::PortForward
                | Subresource::Proxy => name,
            };
            let is_carried = subresource.is_stream() || subresource == Subresource::Proxy;
            let is_text = subresource == Subresource::Log || is_carried;
            let gives = if is_text { "" } else { body };
            let body = if is_carried { "" } else { body };
            let of = |method, verb, takes| Operation {
                subresource: Some(subresource),
                ..operation(method, if verb == "create" { "post" } else { method }, verb, takes, gives)
            };
            let operations = [
                of("get", "get", ""),
                of("post", "create", body),
                of("put", "update", body),
                of("patch", "patch", PATCH),
            ];
            let path = format!("{collection}/{{name}}/{}", subresource.name());
            let verbs = subresource_verbs(subresource);
            insert(&mut paths, &path, kind.is_namespaced(), true, verbs, &operations);
        }
    }
    Value::Object(paths)
}

/// The schema of a Binding if the group-version has one, else the kind's own.
fn names_binding<'a>(names: &'a [String], otherwise: &'a str) -> &'a str {
    names.iter().find(|name| name.ends_with(".Binding")).map_or(otherwise, String::as_str)
}

fn insert(
    paths: &mut Map<String, Value>,
    path: &str,
    namespaced: bool,
    named: bool,
    verbs: &[&str],
    operations: &[Operation<'_>],
) {
    let mut item = Map::new();
    for operation in operations.iter().filter(|operation| verbs.contains(&operation.verb)) {
        item.insert(operation.method.to_owned(), describe(operation));
    }
    if item.is_empty() {
        return;
    }
    let mut shared = Vec::new();
    if named {
        shared.push(in_path("name", "name of the object"));
    }
    if namespaced {
        shared.push(in_path("namespace", "object name and auth scope, such as for teams and projects"));
    }
    if !shared.is_empty() {
        item.insert("parameters".to_owned(), Value::Array(shared));
    }
    paths.insert(path.to_owned(), Value::Object(item));
}

fn in_path(name: &str, description: &str) -> Value {
    json!({
        "name": name,
        "in": "path",
        "description": description,
        "required": true,
        "schema": { "type": "string", "uniqueItems": true },
    })
}

fn describe(operation: &Operation<'_>) -> Value {
    let kind = operation.kind;
    let group = kind.group.split('.').next().filter(|group| !group.is_empty()).unwrap_or("core");
    let mut described = json!({
        "tags": [format!("{group}_{}", kind.version)],
        "description": description(operation),
        "operationId": operation_id(operation, group),
        "parameters": parameters(operation),
        "responses": { "200": answer(operation), "401": { "description": "Unauthorized" } },
        "x-kubernetes-action": operation.action,
        "x-kubernetes-group-version-kind": { "group": kind.group, "kind": kind.kind, "version": kind.version },
    });
    if let Some(body) = request_body(operation) {
        described["requestBody"] = body;
    }
    described
}

fn description(operation: &Operation<'_>) -> String {
    let of = operation.subresource.map_or(String::new(), |subresource| format!("{} of ", subresource.name()));
    let kind = operation.kind.kind;
    match operation.verb {
        "list" => format!("list or watch objects of kind {kind}"),
        "create" => format!("create {of}a {kind}"),
        "update" => format!("replace {of}the specified {kind}"),
        "patch" => format!("partially update {of}the specified {kind}"),
        "deletecollection" => format!("delete collection of {kind}"),
        "delete" => format!("delete a {kind}"),
        _ => format!("read {of}the specified {kind}"),
    }
}

fn operation_id(operation: &Operation<'_>, group: &str) -> String {
    let verb = match operation.verb {
        "update" => "replace",
        "deletecollection" => "deleteCollection",
        "get" => "read",
        verb => verb,
    };
    let kind = operation.kind;
    let namespaced = if kind.is_namespaced() && !operation.across_namespaces { "Namespaced" } else { "" };
    let subresource = operation.subresource.map_or("", Subresource::name);
    let across = if operation.across_namespaces { "ForAllNamespaces" } else { "" };
    let [group, version, subresource] = [group, kind.version, subresource].map(capitalized);
    format!("{verb}{group}{version}{namespaced}{}{subresource}{across}", kind.kind)
}

fn capitalized(word: &str) -> String {
    let mut rest = word.chars();
    rest.next().map_or(String::new(), |first| first.to_ascii_uppercase().to_string() + rest.as_str())
}

fn answer(operation: &Operation<'_>) -> Value {
    if matches!(operation.subresource, Some(Subresource::History | Subresource::Trigger | Subresource::Queue))
    {
        // No schema: they are ours, and `apiserver/history.rs`, `handle/trigger.rs` and
        // `handle/queue.rs` say what is in them.
        let schema = json!({ "schema": { "type": "object" } });
        let content = json!({ "application/json": schema, "application/yaml": schema });
        return json!({ "description": "OK", "content": content });
    }
    if operation.gives.is_empty() {
        return json!({
            "description": "OK",
            "content": { "text/plain": { "schema": { "type": "string" } } },
        });
    }
    let schema = json!({ "schema": reference(operation.gives) });
    let mut content = json!({ "application/json": schema, "application/yaml": schema });
    if operation.verb == "list" {
        content["application/json;stream=watch"] = schema;
    }
    json!({ "description": "OK", "content": content })
}

fn request_body(operation: &Operation<'_>) -> Option<Value> {
    if operation.takes.is_empty() {
        return None;
    }
    if !operation.takes.is_empty()
        && matches!(operation.subresource, Some(Subresource::Trigger | Subresource::Queue))
    {
        return Some(json!({ "content": { "*/*": { "schema": { "type": "object" } } } }));
    }
    let schema = json!({ "schema": reference(operation.takes) });
    let media_types: &[&str] = match operation.verb {
        "patch" => &[
            "application/json-patch+json",
            "application/merge-patch+json",
            "application/strategic-merge-patch+json",
        ],
        _ => &["*/*"],
    };
    let content: Map<String, Value> =
        media_types.iter().map(|media_type| ((*media_type).to_owned(), schema.clone())).collect();
    let required = !matches!(operation.verb, "delete" | "deletecollection");
    Some(if required {
        json!({ "content": content, "required": true })
    } else {
        json!({ "content": content })
    })
}

fn parameters(operation: &Operation<'_>) -> Vec<Value> {
    const DRY_RUN: (&str, &str, &str) =
        ("dryRun", "string", "All: process everything but store nothing. Another value is an error.");
    const FIELD_MANAGER: (&str, &str, &str) =
        ("fieldManager", "string", "the name of the actor or entity that makes these changes");
    const FIELD_VALIDATION: (&str, &str, &str) = (
        "fieldValidation",
        "string",
        "what to do with unknown or duplicate fields: Ignore, Warn (the default) or Strict",
    );
    const SELECTORS: [(&str, &str, &str); 2] = [
        ("fieldSelector", "string", "restricts the objects by their fields; defaults to everything"),
        ("labelSelector", "string", "restricts the objects by their labels; defaults to everything"),
    ];
    const PAGING: [(&str, &str, &str); 4] = [
        ("continue", "string", "the token of the page before, to get the next"),
        ("limit", "integer", "the largest number of objects to return; more can be had with continue"),
        ("resourceVersion", "string", "how old the answer may be"),
        ("resourceVersionMatch", "string", "how resourceVersion is meant: NotOlderThan or Exact"),
    ];
    const WATCHING: [(&str, &str, &str); 4] = [
        ("allowWatchBookmarks", "boolean", "whether to send events of type BOOKMARK"),
        ("sendInitialEvents", "boolean", "whether a watch begins with the objects there are, and a bookmark"),
        ("timeoutSeconds", "integer", "after how long a watch ends"),
        ("watch", "boolean", "follow changes instead of listing"),
    ];
    const DELETING: [(&str, &str, &str); 3] = [
        ("gracePeriodSeconds", "integer", "how long to wait before the object goes; 0 is at once"),
        ("orphanDependents", "boolean", "deprecated: use propagationPolicy"),
        ("propagationPolicy", "string", "what becomes of dependents: Orphan, Background or Foreground"),
    ];
    const LOG: [(&str, &str, &str); 8] = [
        ("container", "string", "the container whose log is wanted; the only one by default"),
        ("follow", "boolean", "go on with what is logged from now on"),
        ("limitBytes", "integer", "the largest number of bytes to return"),
        ("previous", "boolean", "the log of the run before"),
        ("sinceSeconds", "integer", "only what is newer than this many seconds"),
        ("sinceTime", "string", "only what is newer than this time"),
        ("tailLines", "integer", "only this many lines from the end"),
        ("timestamps", "boolean", "begin every line with its time"),
    ];
    let mut all = vec![("pretty", "string", "whether to indent the answer")];
    match operation.verb {
        "list" => {
            all.extend(SELECTORS);
            all.extend(PAGING);
            all.extend(WATCHING);
        }
        "create" | "update" => all.extend([DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION]),
        "patch" => {
            let force = ("force", "boolean", "take over fields of others; only for apply patches");
            all.extend([DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION, force]);
        }
        "delete" => {
            all.push(DRY_RUN);
            all.extend(DELETING);
        }
        "deletecollection" => {
            all.push(DRY_RUN);
            all.extend(SELECTORS);
            all.extend(PAGING);
            all.extend(DELETING);
        }
        _ if operation.subresource == Some(Subresource::Log) => all.extend(LOG),
        _ => {}
    }
    all.sort_unstable();
    all.into_iter()
        .map(|(name, kind, description)| {
            json!({
                "name": name,
                "in": "query",
                "description": description,
                "schema": { "type": kind, "uniqueItems": true },
            })
        })
        .collect()
}
