//! RuntimeClass: which handler runs a pod's containers (upstream `node/validation`).

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::api::node::v1::RuntimeClass;

use super::field::{self, Errors, Path};
use super::table::{self, Cell};
use super::validation::{IMMUTABLE, each, labels};
use super::{Kind, Strategy, pod, resources};

pub static KIND: Kind = Kind {
    columns: &[
        table::NAME,
        table::described(
            "Handler",
            "string",
            0,
            "handler specifies the underlying runtime and configuration that the CRI implementation will use to handle pods of this class. The possible values are specific to the node & CRI configuration.  It is assumed that all handlers are available on every node, and handlers of the same name are equivalent on every node. For example, a handler called \"runc\" might specify that the runc OCI runtime (using native Linux containers) will be used to run the containers in a pod. The Handler must be lowercase, conform to the DNS Label (RFC 1123) requirements, and is immutable.",
        ),
        table::AGE,
    ],
    ..Kind::cluster(&Rules, "runtimeclass")
};

struct Rules;

impl Strategy for Rules {
    type Object = RuntimeClass;

    fn set_defaults(&self, class: &mut RuntimeClass) {
        if let Some(overhead) = &mut class.overhead {
            resources::canonicalize(&mut overhead.pod_fixed);
        }
    }

    fn validate(&self, class: &RuntimeClass, errors: &mut Errors) {
        each(errors, &Path::new("handler"), &class.handler, field::dns_label(&class.handler));
        if let Some(overhead) = &class.overhead {
            let limits = overhead.pod_fixed.clone();
            let requirements = ResourceRequirements { limits, ..ResourceRequirements::default() };
            let path = Path::new("overhead");
            resources::validate_requirements(errors, &path, &requirements, &BTreeSet::new());
        }
        if let Some(scheduling) = &class.scheduling {
            let path = Path::new("scheduling");
            labels(errors, &path.child("nodeSelector"), scheduling.node_selector.as_ref());
            let tolerations = scheduling.tolerations.as_deref().unwrap_or_default();
            pod::validate_tolerations(tolerations, &path.child("tolerations"), errors);
        }
    }

    fn validate_update(&self, new: &RuntimeClass, old: &RuntimeClass, errors: &mut Errors) {
        if new.handler != old.handler {
            errors.invalid(&Path::new("handler"), &new.handler, IMMUTABLE);
        }
    }

    fn cells(&self, class: &RuntimeClass, now: Timestamp) -> Vec<Cell> {
        vec![table::name(class), Cell::Text(class.handler.clone()), table::age(class, now)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::testing::{check_update, check_validation};

    const BASE: &str = "{metadata: {name: wasm}, handler: wasm}";

    #[test]
    fn handlers_are_labels_and_stay() {
        let check = |patch: &str, expected: &[&str]| check_validation(&KIND, BASE, patch, expected);
        check("{overhead: {podFixed: {cpu: 10m}}, scheduling: {nodeSelector: {a: b}}}", &[]);
        check("{handler: a.b}", &["handler: Invalid value: \"a.b\": must not contain dots"]);
        check(
            "{overhead: {podFixed: {cpu: x}}}",
            &[
                "overhead.limits[cpu]: Invalid value: \"x\": quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
            ],
        );
        check(
            "{scheduling: {tolerations: [{key: a, operator: Is}]}}",
            &[
                "scheduling.tolerations[0].operator: Unsupported value: \"Is\": supported values: \"Equal\", \"Exists\"",
            ],
        );
        check_update(&KIND, BASE, "{handler: b}", &["handler: Invalid value: \"b\": field is immutable"]);
    }
}
