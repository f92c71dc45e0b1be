//! ControllerRevision: a template as it once was (BEHAVIOURS 12.8).

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ControllerRevision;

use super::field::{Errors, Path};
use super::table::{self, Cell};
use super::validation::{immutable, not_negative};
use super::{Kind, Strategy};

pub static KIND: Kind = Kind {
    columns: &[
        table::NAME,
        table::described("Controller", "string", 0, "Controller of the object"),
        table::described(
            "Revision",
            "integer",
            0,
            "Revision indicates the revision of the state represented by Data.",
        ),
        table::AGE,
    ],
    ..Kind::namespaced(&Rules, "controllerrevision")
};

struct Rules;

impl Strategy for Rules {
    type Object = ControllerRevision;

    fn validate(&self, revision: &ControllerRevision, errors: &mut Errors) {
        if revision.data.is_none() {
            errors.required(&Path::new("data"), "data is mandatory");
        }
        not_negative(errors, &Path::new("revision"), revision.revision);
    }

    fn validate_update(&self, new: &ControllerRevision, old: &ControllerRevision, errors: &mut Errors) {
        immutable(errors, &Path::new("data"), &new.data, &old.data);
    }

    fn cells(&self, revision: &ControllerRevision, now: Timestamp) -> Vec<Cell> {
        let owners = revision.metadata.owner_references.iter().flatten();
        let controller = owners.into_iter().find(|owner| owner.controller == Some(true)).map(|owner| {
            let group =
                owner.api_version.split_once('/').map_or(String::new(), |(group, _)| format!(".{group}"));
            format!("{}{group}/{}", owner.kind.to_lowercase(), owner.name)
        });
        vec![
            table::name(revision),
            Cell::or_none(&controller.unwrap_or_default()),
            Cell::Number(revision.revision),
            table::age(revision, now),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::fixture::Fixture;
    use serde_json::json;

    const REVISION: Fixture = Fixture {
        kind: &KIND,
        base: || json!({ "metadata": { "name": "a", "namespace": "n" }, "data": { "spec": 1 }, "revision": 3 }),
    };

    #[test]
    fn data_is_there_and_stays() {
        REVISION.valid(json!({}), &[]);
        REVISION.valid(
            json!({ "data": null, "revision": -1 }),
            &[
                "data: Required value: data is mandatory",
                "revision: Invalid value: -1: must be greater than or equal to 0",
            ],
        );
        REVISION.update(json!({}), json!({ "revision": 4 }), &[]);
        REVISION.update(
            json!({}),
            json!({ "data": { "spec": 2 } }),
            &["data: Invalid value: {\"spec\":2}: field is immutable"],
        );
    }

    /// 6.2
    #[test]
    fn tables_name_the_controller() {
        let owner = json!([{ "apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d", "uid": "u", "controller": true }]);
        REVISION.cells(
            json!({ "metadata": { "ownerReferences": owner } }),
            &["a", "daemonset.apps/d", "3", "<unknown>"],
        );
        REVISION.cells(json!({}), &["a", "<none>", "3", "<unknown>"]);
    }
}
