//! Binding: the word that sends a pod to a node (BEHAVIOURS 8.3). Only created, never stored.

use k8s_openapi::api::core::v1::Binding;

use super::field::{Errors, Path};
use super::{Kind, Strategy};

pub static KIND: Kind = Kind::create_only(&Rules, "binding");

struct Rules;

impl Strategy for Rules {
    type Object = Binding;

    fn validate(&self, binding: &Binding, errors: &mut Errors) {
        let path = Path::new("target");
        let kind = binding.target.kind.as_deref().unwrap_or_default();
        if !matches!(kind, "" | "Node") {
            errors.unsupported(&path.child("kind"), kind, &["Node", "<empty>"]);
        }
        if binding.target.name.as_deref().unwrap_or_default().is_empty() {
            errors.required(&path.child("name"), "");
        }
    }
}
