//! Namespace: a scope for names, emptied before it goes (BEHAVIOURS 11).

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, NamespaceStatus};

use super::field::{Errors, Path, dns_label};
use super::metadata;
use super::table::{self, Cell};
use super::{Kind, Strategy, Subresource};

pub static KIND: Kind = Kind {
    short_names: &["ns"],
    subresources: &[Subresource::Finalize, Subresource::Status],
    // Emptying every namespace at once is not offered.
    verbs: &["create", "delete", "get", "list", "patch", "update", "watch"],
    columns: &[
        table::NAME,
        table::described("Status", "string", 0, "The status of the namespace"),
        table::AGE,
    ],
    ..Kind::cluster(&Rules, "namespace")
};

/// The label that always holds the namespace's name, for selectors.
pub const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// Stands in `spec.finalizers` until the namespace is empty.
pub const FINALIZER: &str = "kubernetes";

pub const ACTIVE: &str = "Active";
pub const TERMINATING: &str = "Terminating";

struct Rules;

impl Strategy for Rules {
    type Object = Namespace;

    fn set_defaults(&self, namespace: &mut Namespace) {
        label(namespace);
    }

    fn prepare_create(&self, namespace: &mut Namespace) {
        // Once more, for a name that was generated meanwhile.
        label(namespace);
        namespace.status = Some(NamespaceStatus { phase: Some(ACTIVE.to_owned()), conditions: None });
        let finalizers = namespace.spec.get_or_insert_default().finalizers.get_or_insert_default();
        if !finalizers.iter().any(|one| one == FINALIZER) {
            finalizers.push(FINALIZER.to_owned());
        }
    }

    fn prepare_update(&self, new: &mut Namespace, old: &Namespace) {
        label(new);
        new.spec.clone_from(&old.spec);
        new.status.clone_from(&old.status);
    }

    fn prepare_status_update(&self, new: &mut Namespace, old: &Namespace) {
        label(new);
        new.spec.clone_from(&old.spec);
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        dns_label(name)
    }

    fn validate(&self, namespace: &Namespace, errors: &mut Errors) {
        let path = Path::new("spec.finalizers");
        let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.as_ref());
        for name in finalizers.into_iter().flatten() {
            metadata::finalizer(name, &path, &path, errors);
        }
    }

    fn validate_status_update(&self, new: &Namespace, _old: &Namespace, errors: &mut Errors) {
        let (expected, why) = if new.metadata.deletion_timestamp.is_none() {
            (ACTIVE, "may only be 'Active' if `deletionTimestamp` is empty")
        } else {
            (TERMINATING, "may only be 'Terminating' if `deletionTimestamp` is not empty")
        };
        if phase(new) != expected {
            errors.invalid(&Path::new("status.Phase"), phase(new), why);
        }
    }

    fn fields(&self, namespace: &Namespace) -> Vec<(&'static str, String)> {
        vec![("status.phase", phase(namespace).to_owned())]
    }

    fn cells(&self, namespace: &Namespace, now: Timestamp) -> Vec<Cell> {
        vec![table::name(namespace), Cell::Text(phase(namespace).to_owned()), table::age(namespace, now)]
    }
}

fn phase(namespace: &Namespace) -> &str {
    namespace.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

fn label(namespace: &mut Namespace) {
    let meta = &mut namespace.metadata;
    if let Some(name) = meta.name.clone().filter(|name| !name.is_empty()) {
        meta.labels.get_or_insert_default().insert(NAME_LABEL.to_owned(), name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::fixture::Fixture;
    use crate::kind::testing::lines;
    use serde_json::json;

    const NAMESPACE: Fixture = Fixture { kind: &KIND, base: || json!({"metadata": {"name": "a"}}) };

    #[test]
    fn a_new_namespace_is_active_labelled_and_held() {
        let namespace = NAMESPACE.created(json!({
            "metadata": {"labels": {"x": "y", NAME_LABEL: "lie"}},
            "status": {"phase": "Terminating"},
        }));
        let value = namespace.to_value();
        assert_eq!(value["metadata"]["labels"], json!({"x": "y", NAME_LABEL: "a"}));
        assert_eq!(value["spec"], json!({"finalizers": ["kubernetes"]}));
        assert_eq!(value["status"], json!({"phase": "Active"}));
    }

    #[test]
    fn updates_change_metadata_only() {
        let (new, _) = NAMESPACE.updated(
            json!({}),
            json!({
                "metadata": {"labels": {NAME_LABEL: null, "x": "y"}},
                "spec": {"finalizers": []},
                "status": {"phase": "Terminating"},
            }),
        );
        let value = new.to_value();
        assert_eq!(value["metadata"]["labels"], json!({NAME_LABEL: "a", "x": "y"}));
        assert_eq!(value["spec"], json!({"finalizers": ["kubernetes"]}));
        assert_eq!(value["status"], json!({"phase": "Active"}));
        let new = NAMESPACE.status_updated(
            json!({"spec": {"finalizers": ["kubernetes"]}}),
            json!({"spec": {"finalizers": []}, "status": {"phase": "Terminating"}}),
        );
        assert_eq!(new.to_value()["spec"], json!({"finalizers": ["kubernetes"]}));
        assert_eq!(
            lines(&KIND.strategy.validate_status_update(&*new, &*NAMESPACE.created(json!({})))),
            [
                "status.Phase: Invalid value: \"Terminating\": may only be 'Active' if `deletionTimestamp` is empty"
            ]
        );
    }

    #[test]
    fn finalizers_have_a_domain() {
        NAMESPACE.valid(json!({"spec": {"finalizers": ["example.com/hold"]}}), &[]);
        NAMESPACE.valid(json!({"spec": {"finalizers": ["hold"]}}), &[
            "spec.finalizers: Invalid value: \"hold\": name is neither a standard finalizer name nor is it fully qualified",
        ]);
        assert!(!KIND.strategy.validate_name("a.b").is_empty());
    }

    #[test]
    fn tables_and_selectors_know_the_phase() {
        NAMESPACE.cells(json!({"status": {"phase": "Active"}}), &["a", "Active", "<unknown>"]);
        assert_eq!(KIND.strategy.field_names(), ["status.phase"]);
        assert_eq!(KIND.strategy.fields(&*NAMESPACE.created(json!({})))[0].1, "Active");
    }
}
