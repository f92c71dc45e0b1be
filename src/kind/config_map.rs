//! ConfigMap: plain configuration, as text and bytes (BEHAVIOURS 10.10, 10.11).

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;

use super::table::{self, Cell};
use super::{Kind, Strategy};

pub static KIND: Kind = Kind {
    short_names: &["cm"],
    columns: &[table::NAME, table::column("Data", "string", 0), table::AGE],
    ..Kind::namespaced(&Rules, "configmap")
};

struct Rules;

impl Strategy for Rules {
    type Object = ConfigMap;

    fn cells(&self, map: &ConfigMap, now: Timestamp) -> Vec<Cell> {
        let entries = map.data.as_ref().map_or(0, |data| data.len())
            + map.binary_data.as_ref().map_or(0, |data| data.len());
        vec![table::name(map), Cell::Text(entries.to_string()), table::age(map, now)]
    }
}
