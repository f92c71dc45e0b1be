//! Event: something happened to an object. This is the core form, in which both groups' events are
//! stored; `event_v1.rs` is the other form.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;

use super::field::{Errors, Path, dns_subdomain};
use super::table::{self, Cell};
use super::validation::{each, qualified_name};
use super::{Kind, Strategy};

pub static KIND: Kind = Kind {
    short_names: &["ev"],
    create_on_update: true,
    columns: COLUMNS,
    ..Kind::namespaced(&Rules, "event")
};

/// The table of both forms.
pub(super) const COLUMNS: &[table::Column] = &[
    table::described(
        "Last Seen",
        "string",
        0,
        "The time at which the most recent occurrence of this event was recorded.",
    ),
    table::described(
        "Type",
        "string",
        0,
        "Type of this event (Normal, Warning), new types could be added in the future",
    ),
    table::described(
        "Reason",
        "string",
        0,
        "This should be a short, machine understandable string that gives the reason for the transition into the object's current status.",
    ),
    table::described("Object", "string", 0, "The object that this event is about."),
    table::described(
        "Subobject",
        "string",
        1,
        "If referring to a piece of an object instead of an entire object, this string should contain a valid JSON/Go field access statement, such as desiredState.manifest.containers[2]. For example, if the object reference is to a container within a pod, this would take on a value like: \"spec.containers{name}\" (where \"name\" refers to the name of the container that triggered the event) or if no container name is specified \"spec.containers[2]\" (container with index 2 in this pod). This syntax is chosen only to have some well-defined way of referencing a part of an object.",
    ),
    table::described(
        "Source",
        "string",
        1,
        "The component reporting this event. Should be a short machine understandable string.",
    ),
    table::described("Message", "string", 0, "A human-readable description of the status of this operation."),
    table::described(
        "First Seen",
        "string",
        1,
        "The time at which the event was first recorded. (Time of server receipt is in TypeMeta.)",
    ),
    table::described("Count", "string", 1, "The number of times this event has occurred."),
    table::Column { priority: 1, ..table::NAME },
];

/// Characters of `action`, `reason` and `reportingInstance` of events that have an `eventTime`.
const WORD_CHARS_MAX: usize = 128;
/// Characters of their `message`.
const MESSAGE_CHARS_MAX: usize = 1024;

pub(super) struct Rules;

impl Strategy for Rules {
    type Object = Event;

    /// Any segment of a path: writers make names of other objects' names.
    fn validate_name(&self, name: &str) -> Vec<String> {
        if name == "." || name == ".." {
            return vec![format!("may not be '{name}'")];
        }
        let without = |c: char| name.contains(c).then(|| format!("may not contain '{c}'"));
        ['/', '%'].into_iter().filter_map(without).collect()
    }

    fn validate(&self, event: &Event, errors: &mut Errors) {
        if event.event_time.is_some() {
            validate_new_style(event, errors);
        } else {
            validate_old_style(event, errors);
        }
        let namespace = event.metadata.namespace.as_deref().unwrap_or_default();
        each(errors, &Path::new("namespace"), namespace, dns_subdomain(namespace));
    }

    fn fields(&self, event: &Event) -> Vec<(&'static str, String)> {
        let about = &event.involved_object;
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let reporter = text(&event.reporting_component);
        let source = event.source.as_ref().and_then(|source| source.component.clone());
        vec![
            ("involvedObject.kind", text(&about.kind)),
            ("involvedObject.namespace", text(&about.namespace)),
            ("involvedObject.name", text(&about.name)),
            ("involvedObject.uid", text(&about.uid)),
            ("involvedObject.apiVersion", text(&about.api_version)),
            ("involvedObject.resourceVersion", text(&about.resource_version)),
            ("involvedObject.fieldPath", text(&about.field_path)),
            ("reason", text(&event.reason)),
            ("reportingComponent", reporter.clone()),
            ("source", source.filter(|name| !name.is_empty()).unwrap_or(reporter)),
            ("type", text(&event.type_)),
        ]
    }

    fn cells(&self, event: &Event, now: Timestamp) -> Vec<Cell> {
        let event_time = event.event_time.as_ref().map(|time| time.0);
        let first = event.first_timestamp.as_ref().map(|time| time.0).or(event_time);
        let mut last = event.last_timestamp.as_ref().map(|time| time.0).or(first);
        let mut count = event.count.filter(|&count| count != 0).unwrap_or(1);
        if let Some(series) = &event.series {
            last = series.last_observed_time.as_ref().map(|time| time.0);
            count = series.count.unwrap_or_default();
        }
        let text = |text: &Option<String>| Cell::Text(text.clone().unwrap_or_default());
        vec![
            Cell::Text(table::since(last, now)),
            text(&event.type_),
            text(&event.reason),
            Cell::Text(about(event)),
            text(&event.involved_object.field_path),
            Cell::Text(source(event)),
            Cell::Text(event.message.as_deref().unwrap_or_default().trim().to_owned()),
            Cell::Text(table::since(first, now)),
            Cell::Number(i64::from(count)),
            table::name(event),
        ]
    }
}

/// `pod/web-1`
fn about(event: &Event) -> String {
    let kind = event.involved_object.kind.as_deref().unwrap_or_default().to_lowercase();
    match event.involved_object.name.as_deref() {
        None | Some("") => kind,
        Some(name) => format!("{kind}/{name}"),
    }
}

/// `kubelet, node-1`
fn source(event: &Event) -> String {
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let old = event.source.as_ref();
    let component = old.and_then(|source| given(&source.component));
    let host = old.and_then(|source| given(&source.host));
    let component = component.or_else(|| given(&event.reporting_component)).unwrap_or_default();
    match host.or_else(|| given(&event.reporting_instance)) {
        Some(instance) => format!("{component}, {instance}"),
        None => component,
    }
}

/// An event lives where its object does; events about cluster objects live in `default`.
fn validate_old_style(event: &Event, errors: &mut Errors) {
    let namespace = event.metadata.namespace.as_deref().unwrap_or_default();
    let about = event.involved_object.namespace.as_deref().unwrap_or_default();
    let agrees = if about.is_empty() { matches!(namespace, "" | "default") } else { about == namespace };
    if !agrees {
        let path = Path::new("involvedObject.namespace");
        errors.invalid(&path, about, "does not match event.namespace");
    }
}

fn validate_new_style(event: &Event, errors: &mut Errors) {
    let namespace = event.metadata.namespace.as_deref().unwrap_or_default();
    let about = event.involved_object.namespace.as_deref().unwrap_or_default();
    if about.is_empty() && !matches!(namespace, "default" | "kube-system") {
        let path = Path::new("involvedObject.namespace");
        errors.invalid(&path, about, "does not match event.namespace");
    }
    let reporter = event.reporting_component.as_deref().unwrap_or_default();
    let path = Path::new("reportingController");
    if reporter.is_empty() {
        errors.required(&path, "");
    }
    each(errors, &path, reporter, qualified_name(reporter));
    for (name, value) in [
        ("reportingInstance", &event.reporting_instance),
        ("action", &event.action),
        ("reason", &event.reason),
    ] {
        let value = value.as_deref().unwrap_or_default();
        if value.is_empty() {
            errors.required(&Path::new(name), "");
        }
        validate_length(name, value, WORD_CHARS_MAX, errors);
    }
    validate_length("message", event.message.as_deref().unwrap_or_default(), MESSAGE_CHARS_MAX, errors);
}

fn validate_length(name: &str, value: &str, max: usize, errors: &mut Errors) {
    if value.len() > max {
        errors.invalid(&Path::new(name), "", &format!("can have at most {max} characters"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::fixture::Fixture;
    use serde_json::json;

    const EVENT: Fixture = Fixture {
        kind: &KIND,
        base: || {
            json!({
                "metadata": {"name": "a", "namespace": "n"},
                "involvedObject": {"kind": "Pod", "namespace": "n", "name": "web"},
                "reason": "Started",
                "type": "Normal",
            })
        },
    };

    #[test]
    fn an_event_lives_with_its_object() {
        EVENT.valid(json!({}), &[]);
        EVENT.valid(
            json!({"involvedObject": {"namespace": "m"}}),
            &["involvedObject.namespace: Invalid value: \"m\": does not match event.namespace"],
        );
        EVENT.valid(
            json!({"involvedObject": {"namespace": null}}),
            &["involvedObject.namespace: Invalid value: \"\": does not match event.namespace"],
        );
        EVENT
            .valid(json!({"metadata": {"namespace": "default"}, "involvedObject": {"namespace": null}}), &[]);
    }

    #[test]
    fn events_with_an_event_time_say_who_and_what() {
        let new = json!({
            "eventTime": "1970-01-01T00:00:00.000000Z", "reportingComponent": "example.com/c",
            "reportingInstance": "c-1", "action": "Start",
        });
        EVENT.valid(new, &[]);
        EVENT.valid(
            json!({
                "eventTime": "1970-01-01T00:00:00.000000Z", "reportingComponent": "c", "reason": null,
                "reportingInstance": "x".repeat(129), "message": "x".repeat(1025),
            }),
            &[
                "reportingInstance: Invalid value: \"\": can have at most 128 characters",
                "action: Required value",
                "reason: Required value",
                "message: Invalid value: \"\": can have at most 1024 characters",
            ],
        );
    }

    #[test]
    fn names_are_path_segments() {
        assert!(Strategy::validate_name(&Rules, "Node_1.17a").is_empty());
        assert_eq!(Strategy::validate_name(&Rules, "a/b%"), ["may not contain '/'", "may not contain '%'"]);
        assert_eq!(Strategy::validate_name(&Rules, ".."), ["may not be '..'"]);
    }

    #[test]
    fn tables_know_old_and_new_times() {
        EVENT.cells(
            json!({
                "firstTimestamp": "1970-01-01T00:00:00Z", "lastTimestamp": "1970-01-01T00:50:00Z", "count": 3,
                "source": {"component": "kubelet", "host": "n1"}, "message": " Started \n",
                "involvedObject": {"fieldPath": "spec.containers{c}"},
            }),
            &[
                "10m",
                "Normal",
                "Started",
                "pod/web",
                "spec.containers{c}",
                "kubelet, n1",
                "Started",
                "60m",
                "3",
                "a",
            ],
        );
        EVENT.cells(
            json!({
                "eventTime": "1970-01-01T00:59:00.000000Z", "reportingComponent": "c", "reportingInstance": "c-1",
                "series": {"count": 5, "lastObservedTime": "1970-01-01T00:59:50.000000Z"},
            }),
            &["10s", "Normal", "Started", "pod/web", "", "c, c-1", "", "60s", "5", "a"],
        );
        EVENT.cells(
            json!({"involvedObject": {"name": null}}),
            &["<unknown>", "Normal", "Started", "pod", "", "", "", "<unknown>", "1", "a"],
        );
    }

    #[test]
    fn selectors_take_the_reporter_for_the_source() {
        let event = EVENT.object(json!({"reportingComponent": "c"}));
        let fields = KIND.strategy.fields(&*event);
        let value = |name| fields.iter().find(|field| field.0 == name).map(|field| field.1.as_str());
        assert_eq!(value("source"), Some("c"));
        assert_eq!(value("involvedObject.name"), Some("web"));
    }
}
