//! SelfSubjectReview: the question who is asking (BEHAVIOURS 18.2). Only created, never stored.

use k8s_openapi::api::authentication::v1::SelfSubjectReview;

use super::{Kind, Scope, Strategy};

pub static KIND: Kind = Kind { scope: Scope::Cluster, ..Kind::create_only(&Rules, "selfsubjectreview") };

struct Rules;

impl Strategy for Rules {
    type Object = SelfSubjectReview;
}
