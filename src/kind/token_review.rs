//! TokenReview: the question whose a token is (BEHAVIOURS 18.2). Only created, never stored.

use k8s_openapi::api::authentication::v1::TokenReview;

use super::{Kind, Scope, Strategy};

pub static KIND: Kind = Kind { scope: Scope::Cluster, ..Kind::create_only(&Rules, "tokenreview") };

struct Rules;

impl Strategy for Rules {
    type Object = TokenReview;
}
