//! Tables, as `kubectl get` shows them (BEHAVIOURS 6.1 to 6.3).
//!
//! Columns come with the kind, cells from its strategy. Here they are only written down.

use jiff::Timestamp;
use serde_json::json;

use super::status::Error;
use crate::kind::table::{Cell, Column};
use crate::kind::{Kind, Object};

/// What of the object a row carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Include {
    None,
    Metadata,
    Object,
}

/// Reads the query parameter `includeObject`.
///
/// # Errors
/// 400 for a word that Kubernetes does not know.
pub fn include(parameter: Option<&str>) -> Result<Include, Error> {
    match parameter {
        None | Some("" | "Metadata") => Ok(Include::Metadata),
        Some("None") => Ok(Include::None),
        Some("Object") => Ok(Include::Object),
        Some(other) => Err(Error::bad_request(format!(
            "Unable to convert to Table as requested: includeObject: Invalid value: {other:?}: must be 'Metadata', 'Object', 'None', or empty"
        ))),
    }
}

/// Everything up to the first row: `metadata` is the JSON of the table's own.
#[must_use]
pub fn head(kind: &Kind, api_version: &str, metadata: &str, with_columns: bool) -> Vec<u8> {
    let columns =
        if with_columns { json!(kind.columns.iter().map(column).collect::<Vec<_>>()) } else { json!(null) };
    format!(
        r#"{{"kind":"Table","apiVersion":"{api_version}","metadata":{metadata},"columnDefinitions":{columns},"rows":["#
    )
    .into_bytes()
}

/// What follows the last row.
pub const TAIL: &[u8] = b"]}";

fn column(column: &Column) -> serde_json::Value {
    json!({
        "name": column.name,
        "type": column.r#type,
        "format": column.format,
        "description": column.description,
        "priority": column.priority,
    })
}

/// One row; `whole` is the JSON of the object.
#[must_use]
pub fn row(
    kind: &Kind,
    api_version: &str,
    include: Include,
    object: &dyn Object,
    whole: &[u8],
    now: Timestamp,
) -> Vec<u8> {
    let mut row = Vec::with_capacity(512);
    row.extend_from_slice(br#"{"cells":["#);
    for (at, cell) in kind.strategy.cells(object, now).iter().enumerate() {
        if at > 0 {
            row.push(b',');
        }
        match cell {
            Cell::Text(text) => serde_json::to_writer(&mut row, text).expect("a Vec takes every byte"),
            Cell::Number(number) => row.extend_from_slice(number.to_string().as_bytes()),
        }
    }
    row.push(b']');
    match include {
        Include::None => row.extend_from_slice(br#","object":null"#),
        Include::Metadata => {
            row.extend_from_slice(br#","object":"#);
            row.extend_from_slice(&partial_metadata(api_version, object));
        }
        Include::Object => {
            row.extend_from_slice(br#","object":"#);
            row.extend_from_slice(whole);
        }
    }
    row.push(b'}');
    row
}

/// The object's `PartialObjectMetadata`.
#[must_use]
pub fn partial_metadata(api_version: &str, object: &dyn Object) -> Vec<u8> {
    let mut json =
        format!(r#"{{"kind":"PartialObjectMetadata","apiVersion":"{api_version}","metadata":"#).into_bytes();
    serde_json::to_writer(&mut json, object.metadata()).expect("metadata has string keys only");
    json.push(b'}');
    json
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::config_map::KIND;
    use k8s_openapi::api::core::v1::ConfigMap;
    use serde_json::Value;

    #[test]
    fn a_row_carries_cells_and_as_much_of_the_object_as_asked() {
        let mut map = ConfigMap::default();
        map.metadata.name = Some("a".into());
        let whole = br#"{"kind":"ConfigMap"}"#;
        for (include, object) in [
            (Include::None, json!(null)),
            (
                Include::Metadata,
                json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": {"name": "a"}}),
            ),
            (Include::Object, json!({"kind": "ConfigMap"})),
        ] {
            let row = row(&KIND, "meta.k8s.io/v1", include, &map, whole, Timestamp::UNIX_EPOCH);
            let row: Value = serde_json::from_slice(&row).unwrap();
            assert_eq!(row["cells"], json!(["a", 0, "<unknown>"]));
            assert_eq!(row["object"], object);
        }
    }

    #[test]
    fn columns_are_in_the_first_table_only() {
        for (with_columns, count) in [(true, Some(3)), (false, None)] {
            let mut table = head(&KIND, "meta.k8s.io/v1", r#"{"resourceVersion":"1"}"#, with_columns);
            table.extend_from_slice(TAIL);
            let table: Value = serde_json::from_slice(&table).unwrap();
            assert_eq!(table["columnDefinitions"].as_array().map(Vec::len), count);
            assert_eq!(table["metadata"]["resourceVersion"], "1");
        }
    }

    #[test]
    fn every_kind_has_as_many_cells_as_columns() {
        for kind in crate::kind::ALL {
            let Ok(object) = kind.strategy.decode_json(b"{}") else { continue };
            let cells = kind.strategy.cells(object.as_ref(), Timestamp::UNIX_EPOCH);
            assert_eq!(cells.len(), kind.columns.len(), "{kind:?}");
        }
    }

    #[test]
    fn an_unknown_include_is_refused() {
        assert_eq!(include(Some("Everything")).unwrap_err().code(), 400);
        assert_eq!(include(None), Ok(Include::Metadata));
    }
}
