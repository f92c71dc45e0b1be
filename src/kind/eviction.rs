//! Eviction: what `pods/eviction` takes (BEHAVIOURS 8.5). Only created, never stored.

use k8s_openapi::api::policy::v1::Eviction;

use super::{Kind, Strategy};

/// Not in [`super::ALL`], since it has no collection.
pub static KIND: Kind = Kind::create_only(&Rules, "eviction");

struct Rules;

impl Strategy for Rules {
    type Object = Eviction;
}
