//! PodTemplate: a template for pods, kept on its own (BEHAVIOURS 2.3).

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PodSpec, PodTemplate};

use super::field::{Errors, Path};
use super::table::{self, Cell, Column, column};
use super::{Kind, Strategy, pod};

pub static KIND: Kind = Kind {
    has_generation: true,
    columns: &[
        table::NAME,
        Column {
            description: "Names of each container in the template.",
            ..column("Containers", "string", 0)
        },
        Column {
            description: "Images referenced by each container in the template.",
            ..column("Images", "string", 0)
        },
        Column { description: "The labels for the pod template.", ..column("Pod Labels", "string", 0) },
    ],
    ..Kind::namespaced(&Rules, "podtemplate")
};

struct Rules;

impl Strategy for Rules {
    type Object = PodTemplate;

    fn set_defaults(&self, object: &mut PodTemplate) {
        pod::template::set_defaults(object.template.get_or_insert_default());
    }

    fn spec_changed(&self, new: &PodTemplate, old: &PodTemplate) -> bool {
        new.template != old.template
    }

    fn validate(&self, object: &PodTemplate, errors: &mut Errors) {
        let template = object.template.clone().unwrap_or_default();
        pod::template::validate(&template, &Path::new("template"), errors);
    }

    fn cells(&self, object: &PodTemplate, _now: Timestamp) -> Vec<Cell> {
        let no_spec = PodSpec::default();
        let template = object.template.as_ref();
        let containers = &template.and_then(|template| template.spec.as_ref()).unwrap_or(&no_spec).containers;
        let names: Vec<&str> = containers.iter().map(|container| container.name.as_str()).collect();
        let images: Vec<&str> =
            containers.iter().map(|container| container.image.as_deref().unwrap_or_default()).collect();
        let metadata = template.and_then(|template| template.metadata.as_ref());
        let labels = metadata.and_then(|metadata| metadata.labels.as_ref()).into_iter().flatten();
        let labels: Vec<String> = labels.map(|(key, value)| format!("{key}={value}")).collect();
        vec![
            table::name(object),
            Cell::Text(names.join(",")),
            Cell::Text(images.join(",")),
            Cell::or_none(&labels.join(",")),
        ]
    }
}
