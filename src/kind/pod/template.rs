//! Pod templates, as PodTemplate and workloads carry them.

use k8s_openapi::api::core::v1::{PodSpec, PodTemplateSpec};

use super::{list, spec};
use crate::kind::field::{Errors, Path};
use crate::kind::validation;

/// The defaults of a pod spec in a template. Idempotent.
pub fn set_defaults(template: &mut PodTemplateSpec) {
    spec::set_defaults(template.spec.get_or_insert_default());
}

/// The template at `path`, its labels and annotations included.
pub fn validate(template: &PodTemplateSpec, path: &Path, errors: &mut Errors) {
    let nothing = PodSpec::default();
    let spec = template.spec.as_ref().unwrap_or(&nothing);
    if let Some(metadata) = &template.metadata {
        validation::labels(errors, &path.child("labels"), metadata.labels.as_ref());
        let annotations = path.child("annotations");
        for key in metadata.annotations.iter().flat_map(|annotations| annotations.keys()) {
            validation::each(errors, &annotations, key, validation::qualified_name(&key.to_lowercase()));
        }
        spec::validate_annotations(metadata, spec, &annotations, errors);
    }
    spec::validate(spec, &path.child("spec"), errors);
    if !list(&spec.ephemeral_containers).is_empty() {
        let path = path.child("spec").child("ephemeralContainers");
        errors.forbidden(&path, "ephemeral containers not allowed in pod template");
    }
}
