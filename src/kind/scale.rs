//! Scale: what the `scale` subresource takes and answers. Never stored.

use k8s_openapi::api::autoscaling::v1::{Scale, ScaleSpec, ScaleStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::field::{Errors, Path};
use super::validation::not_negative;
use super::workload::Scaled;
use super::{Kind, Object, Strategy};

/// Not in [`super::ALL`], since it has no collection.
pub static KIND: Kind = Kind::create_only(&Rules, "scale");

struct Rules;

impl Strategy for Rules {
    type Object = Scale;

    fn set_defaults(&self, scale: &mut Scale) {
        scale.spec.get_or_insert_default();
    }

    fn validate(&self, scale: &Scale, errors: &mut Errors) {
        not_negative(errors, &Path::new("spec").child("replicas"), replicas(scale).into());
    }
}

/// The replicas that are asked for; none is 0.
#[must_use]
pub fn replicas(scale: &Scale) -> i32 {
    scale.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or_default()
}

/// The scale of an object.
#[must_use]
pub fn of(object: &dyn Object, scaled: Scaled) -> Scale {
    let meta = object.metadata();
    Scale {
        metadata: ObjectMeta {
            name: meta.name.clone(),
            namespace: meta.namespace.clone(),
            uid: meta.uid.clone(),
            resource_version: meta.resource_version.clone(),
            creation_timestamp: meta.creation_timestamp.clone(),
            ..ObjectMeta::default()
        },
        spec: Some(ScaleSpec { replicas: Some(scaled.wanted) }),
        status: Some(ScaleStatus { replicas: scaled.there, selector: Some(scaled.selector) }),
    }
}
