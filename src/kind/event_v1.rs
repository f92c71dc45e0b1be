//! Event of `events.k8s.io`: the newer words for the same stored objects as core Events.
//!
//! The fields correspond as in upstream's `pkg/apis/events/v1/conversion.go`; errors name the core
//! fields, as upstream's do. What is written here must satisfy stricter rules.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event as CoreEvent, EventSeries as CoreSeries};
use k8s_openapi::api::events::v1::{Event, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use serde::{Deserialize, Deserializer};

use super::field::{Errors, Path, dns_subdomain};
use super::table::Cell;
use super::validation::immutable;
use super::{Kind, Object, Strategy, event};

pub static KIND: Kind = Kind {
    group: <Event as k8s_openapi::Resource>::GROUP,
    version: <Event as k8s_openapi::Resource>::VERSION,
    short_names: &["ev"],
    create_on_update: true,
    stored_as: Some(&event::KIND),
    from_stored: Some(from_stored),
    columns: event::COLUMNS,
    schema: |generator| generator.subschema_for::<Event>(),
    ..Kind::namespaced(&Rules, "event")
};

struct Rules;

impl Strategy for Rules {
    type Object = CoreEvent;

    fn decode<'de, D: Deserializer<'de>>(&self, decoder: D) -> Result<CoreEvent, D::Error> {
        Event::deserialize(decoder).map(to_core)
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        dns_subdomain(name)
    }

    fn validate(&self, event: &CoreEvent, errors: &mut Errors) {
        Strategy::validate(&event::Rules, event, errors);
    }

    fn validate_create(&self, event: &CoreEvent, errors: &mut Errors) {
        validate_series(event, errors);
        if event.event_time.is_none() {
            errors.required(&Path::new("eventTime"), "");
        }
        let event_type = event.type_.as_deref().unwrap_or_default();
        if !matches!(event_type, "Normal" | "Warning") {
            errors.invalid(&Path::new("type"), "", &format!("has invalid value: {event_type}"));
        }
        let source = event.source.as_ref();
        let named = |text: Option<&String>| text.is_some_and(|text| !text.is_empty());
        for (name, is_set) in [
            ("firstTimestamp", event.first_timestamp.is_some()),
            ("lastTimestamp", event.last_timestamp.is_some()),
            ("count", event.count.unwrap_or_default() != 0),
            ("source", source.is_some_and(|one| named(one.component.as_ref()) || named(one.host.as_ref()))),
        ] {
            if is_set {
                errors.invalid(&Path::new(name), "", "needs to be unset");
            }
        }
    }

    /// Only the series goes on.
    fn validate_update(&self, new: &CoreEvent, old: &CoreEvent, errors: &mut Errors) {
        if new.series != old.series {
            validate_series(new, errors);
        }
        let at = Path::new;
        immutable(errors, &at("involvedObject"), &new.involved_object, &old.involved_object);
        immutable(errors, &at("reason"), &new.reason, &old.reason);
        immutable(errors, &at("message"), &new.message, &old.message);
        let source = |event: &CoreEvent| event.source.clone().unwrap_or_default();
        immutable(errors, &at("source"), &source(new), &source(old));
        immutable(errors, &at("firstTimestamp"), &new.first_timestamp, &old.first_timestamp);
        immutable(errors, &at("lastTimestamp"), &new.last_timestamp, &old.last_timestamp);
        immutable(errors, &at("count"), &new.count.unwrap_or_default(), &old.count.unwrap_or_default());
        immutable(errors, &at("type"), &new.type_, &old.type_);
        immutable(errors, &at("eventTime"), &new.event_time, &old.event_time);
        immutable(errors, &at("action"), &new.action, &old.action);
        immutable(errors, &at("related"), &new.related, &old.related);
        immutable(errors, &at("reportingController"), &new.reporting_component, &old.reporting_component);
        immutable(errors, &at("reportingInstance"), &new.reporting_instance, &old.reporting_instance);
    }

    fn fields(&self, event: &CoreEvent) -> Vec<(&'static str, String)> {
        let renamed = |(name, value)| {
            let name = match name {
                "involvedObject.kind" => "regarding.kind",
                "involvedObject.namespace" => "regarding.namespace",
                "involvedObject.name" => "regarding.name",
                "involvedObject.uid" => "regarding.uid",
                "involvedObject.apiVersion" => "regarding.apiVersion",
                "involvedObject.resourceVersion" => "regarding.resourceVersion",
                "involvedObject.fieldPath" => "regarding.fieldPath",
                "reportingComponent" => "reportingController",
                "source" => return None,
                same => same,
            };
            Some((name, value))
        };
        event::Rules.fields(event).into_iter().filter_map(renamed).collect()
    }

    fn cells(&self, event: &CoreEvent, now: Timestamp) -> Vec<Cell> {
        event::Rules.cells(event, now)
    }
}

fn validate_series(event: &CoreEvent, errors: &mut Errors) {
    let Some(series) = &event.series else { return };
    if series.count.unwrap_or_default() < 2 {
        errors.invalid(&Path::new("series.count"), "", "should be at least 2");
    }
    if series.last_observed_time.is_none() {
        errors.required(&Path::new("series.lastObservedTime"), "");
    }
}

fn to_core(event: Event) -> CoreEvent {
    CoreEvent {
        metadata: event.metadata,
        involved_object: event.regarding.unwrap_or_default(),
        message: event.note,
        source: event.deprecated_source,
        first_timestamp: event.deprecated_first_timestamp,
        last_timestamp: event.deprecated_last_timestamp,
        count: event.deprecated_count,
        reporting_component: event.reporting_controller,
        reporting_instance: event.reporting_instance,
        series: event.series.map(|series| CoreSeries {
            count: Some(series.count),
            last_observed_time: Some(series.last_observed_time)
                .filter(|time| time.0 != Timestamp::UNIX_EPOCH),
        }),
        action: event.action,
        event_time: event.event_time,
        reason: event.reason,
        related: event.related,
        type_: event.type_,
    }
}

fn from_stored(stored: &dyn Object) -> Box<dyn Object> {
    let event: &CoreEvent = stored.downcast_ref().expect("events are stored in the core form");
    Box::new(from_core(event.clone()))
}

fn from_core(event: CoreEvent) -> Event {
    Event {
        metadata: event.metadata,
        regarding: Some(event.involved_object),
        note: event.message,
        deprecated_source: event.source,
        deprecated_first_timestamp: event.first_timestamp,
        deprecated_last_timestamp: event.last_timestamp,
        deprecated_count: event.count,
        reporting_controller: event.reporting_component,
        reporting_instance: event.reporting_instance,
        series: event.series.map(|series| EventSeries {
            count: series.count.unwrap_or_default(),
            // This form has no way to leave it out; the start of time stands for none.
            last_observed_time: series.last_observed_time.unwrap_or(MicroTime(Timestamp::UNIX_EPOCH)),
        }),
        action: event.action,
        event_time: event.event_time,
        reason: event.reason,
        related: event.related,
        type_: event.type_,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::fixture::Fixture;
    use serde_json::{Value, json};

    const EVENT: Fixture = Fixture { kind: &KIND, base: event };

    fn event() -> Value {
        json!({
            "metadata": {"name": "a", "namespace": "n"},
            "eventTime": "1970-01-01T00:00:00.000000Z",
            "regarding": {"kind": "Pod", "namespace": "n", "name": "web"},
            "reportingController": "example.com/c",
            "reportingInstance": "c-1",
            "action": "Start",
            "reason": "Started",
            "type": "Normal",
            "note": "it runs",
        })
    }

    #[test]
    fn one_stored_object_has_two_forms() {
        let wire = json!({
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": "a", "namespace": "n", "uid": "1"},
            "eventTime": "2024-01-01T00:00:00.000001Z",
            "series": {"count": 2, "lastObservedTime": "2024-01-01T00:00:01.000000Z"},
            "reportingController": "c",
            "reportingInstance": "c-1",
            "action": "Act",
            "reason": "Reason",
            "regarding": {"kind": "Pod", "name": "p"},
            "related": {"kind": "Node", "name": "n"},
            "note": "text",
            "type": "Normal",
            "deprecatedSource": {"component": "old", "host": "h"},
            "deprecatedFirstTimestamp": "2024-01-01T00:00:02Z",
            "deprecatedLastTimestamp": "2024-01-01T00:00:03Z",
            "deprecatedCount": 4,
        });
        let stored = KIND.strategy.decode_value(wire.clone()).unwrap();
        assert_eq!(
            stored.to_value(),
            json!({
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"name": "a", "namespace": "n", "uid": "1"},
                "eventTime": "2024-01-01T00:00:00.000001Z",
                "series": {"count": 2, "lastObservedTime": "2024-01-01T00:00:01.000000Z"},
                "reportingComponent": "c",
                "reportingInstance": "c-1",
                "action": "Act",
                "reason": "Reason",
                "involvedObject": {"kind": "Pod", "name": "p"},
                "related": {"kind": "Node", "name": "n"},
                "message": "text",
                "type": "Normal",
                "source": {"component": "old", "host": "h"},
                "firstTimestamp": "2024-01-01T00:00:02Z",
                "lastTimestamp": "2024-01-01T00:00:03Z",
                "count": 4,
            })
        );
        assert_eq!(KIND.served(&*stored).unwrap().to_value(), wire);
        assert!(event::KIND.served(&*stored).is_none());
        assert_eq!((KIND.collection(), KIND.stored_kind()), ("events", &event::KIND));
    }

    #[test]
    fn unknown_fields_are_those_of_the_newer_form() {
        let mut unknown = Vec::new();
        let json = br#"{"metadata":{"name":"a"},"note":"x","message":"y","regarding":{"foo":1}}"#;
        KIND.strategy.decode_json_strict(json, &mut |path| unknown.push(path)).unwrap();
        assert_eq!(unknown, ["message", "regarding.foo"]);
    }

    #[test]
    fn new_events_leave_the_old_fields_alone() {
        EVENT.valid(json!({}), &[]);
        EVENT.valid(
            json!({"deprecatedCount": 1, "deprecatedSource": {"host": "h"}, "type": "Odd", "series": {"count": 1, "lastObservedTime": "1970-01-01T00:00:00.000000Z"}}),
            &[
                "series.count: Invalid value: \"\": should be at least 2",
                "series.lastObservedTime: Required value",
                "type: Invalid value: \"\": has invalid value: Odd",
                "count: Invalid value: \"\": needs to be unset",
                "source: Invalid value: \"\": needs to be unset",
            ],
        );
        EVENT.valid(json!({"eventTime": null}), &["eventTime: Required value"]);
    }

    #[test]
    fn only_the_series_changes() {
        let series = json!({"count": 2, "lastObservedTime": "2024-01-01T00:00:01.000000Z"});
        EVENT.update(json!({}), json!({"series": series}), &[]);
        EVENT.update(
            json!({}),
            json!({"note": "other"}),
            &["message: Invalid value: \"other\": field is immutable"],
        );
    }

    #[test]
    fn selectors_use_the_newer_words() {
        let names = KIND.strategy.field_names();
        assert!(names.contains(&"regarding.name") && names.contains(&"reportingController"), "{names:?}");
        assert!(!names.iter().any(|name| name.starts_with("involvedObject") || *name == "source"));
        EVENT.cells(
            json!({}),
            &["60m", "Normal", "Started", "pod/web", "", "example.com/c, c-1", "it runs", "60m", "1", "a"],
        );
    }
}
