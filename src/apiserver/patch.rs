//! Patches: how one document changes another (BEHAVIOURS 3.1, 3.2). No store, no verbs.

use json_patch::PatchOperation;
use serde_json::Value;

use super::status::Error;
use super::strategic;
use super::types::Shape;
use crate::kind::Kind;

pub(super) const JSON: &str = "application/json-patch+json";
pub(super) const MERGE: &str = "application/merge-patch+json";
pub(super) const STRATEGIC: &str = "application/strategic-merge-patch+json";

/// What a client is told that patches may be.
const ACCEPTED: &str =
    "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json";

/// Upstream's bound, so that one request cannot hold the server for long.
const OPERATIONS_MAX: usize = 10_000;

/// Bytes that the `copy` operations of one patch may copy in all: upstream's bound, the size of a
/// request. Without it a few operations that copy a document into itself would fill the memory.
const COPIED_BYTES_MAX: usize = 3 << 20;

/// How deep a JSON patch may nest. No API type is half as deep; a document of ten thousand levels
/// would overflow the stack of whoever drops it.
const DEPTH_MAX: usize = 128;

/// A change that is yet to be applied, as often as conflicts make it necessary.
#[derive(Clone, Debug)]
pub(super) enum Patch {
    Json(json_patch::Patch),
    Merge(Value),
    Strategic(Value),
}

impl Patch {
    /// The patch that `value` is, by its media type.
    pub(super) fn from_value(media_type: Option<&str>, value: Value) -> Result<Self, Error> {
        match essence(media_type) {
            JSON => {
                let operations: json_patch::Patch = serde_json::from_value(value)
                    .map_err(|why| Error::bad_request(format!("error decoding patch: {why}")))?;
                let count = operations.0.len();
                if count > OPERATIONS_MAX {
                    return Err(Error::too_large(format!(
                        "The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {count}"
                    )));
                }
                Ok(Self::Json(operations))
            }
            MERGE => Ok(Self::Merge(value)),
            STRATEGIC => Ok(Self::Strategic(value)),
            // `application/apply-patch+yaml`, server-side apply, is to be served here.
            _ => Err(Error::unsupported_media_type(ACCEPTED)),
        }
    }

    /// `current`, an object of `kind`, changed by the patch.
    pub(super) fn apply(&self, kind: &Kind, mut current: Value) -> Result<Value, Error> {
        match self {
            Self::Json(patch) => {
                apply_operations(&mut current, &patch.0)?;
                Ok(current)
            }
            Self::Merge(patch) => {
                if !patch.is_object() {
                    return Err(Error::bad_request(
                        "error decoding patch: a merge patch of an object is an object",
                    ));
                }
                json_patch::merge(&mut current, patch);
                Ok(current)
            }
            Self::Strategic(patch) => {
                let Value::Object(current) = current else {
                    return Err(Error::internal("the stored object is not a JSON object"));
                };
                strategic::merge(current, patch.clone(), Shape::of_kind(kind)).map_err(Error::bad_request)
            }
        }
    }
}

/// 415 unless the media type names a patch that is served.
pub(super) fn check_media_type(media_type: Option<&str>) -> Result<(), Error> {
    match essence(media_type) {
        JSON | MERGE | STRATEGIC => Ok(()),
        _ => Err(Error::unsupported_media_type(ACCEPTED)),
    }
}

fn essence(media_type: Option<&str>) -> &str {
    media_type.and_then(|text| text.split(';').next()).unwrap_or_default().trim()
}

/// One operation at a time, so that what they copy and how deep they nest can be counted.
fn apply_operations(document: &mut Value, operations: &[PatchOperation]) -> Result<(), Error> {
    let mut copied = 0;
    for operation in operations {
        let from = match operation {
            PatchOperation::Copy(copy) => Some(&copy.from),
            PatchOperation::Move(moved) => Some(&moved.from),
            PatchOperation::Add(_)
            | PatchOperation::Remove(_)
            | PatchOperation::Replace(_)
            | PatchOperation::Test(_) => None,
        };
        let mut depth = operation.path().count();
        if let Some(value) = from.and_then(|from| document.pointer(from.as_str())) {
            let extent = extent(value, COPIED_BYTES_MAX - copied);
            copied += extent.bytes;
            depth += extent.depth;
        }
        if copied >= COPIED_BYTES_MAX {
            return Err(Error::too_large(format!(
                "the operations of the JSON patch copy more than {COPIED_BYTES_MAX} bytes"
            )));
        }
        if depth > DEPTH_MAX {
            return Err(Error::patch_failed(&format!(
                "the path {} leads deeper than {DEPTH_MAX} levels",
                operation.path()
            )));
        }
        json_patch::patch_unsafe(document, std::slice::from_ref(operation))
            .map_err(|why| Error::patch_failed(&describe(operation, &why)))?;
    }
    Ok(())
}

/// In the words of the library that Kubernetes uses, where scripts look for them.
fn describe(operation: &PatchOperation, why: &json_patch::PatchError) -> String {
    let path = operation.path();
    match operation {
        PatchOperation::Test(_) => format!("testing path {path} failed: {}", why.kind),
        PatchOperation::Remove(_) => {
            format!("remove operation does not apply: doc is missing path: {path}: {}", why.kind)
        }
        PatchOperation::Replace(_) => {
            format!("replace operation does not apply: doc is missing path: {path}: {}", why.kind)
        }
        PatchOperation::Add(_) => {
            format!("add operation does not apply: doc is missing path: {path}: {}", why.kind)
        }
        PatchOperation::Move(_) => format!("move operation does not apply: {path}: {}", why.kind),
        PatchOperation::Copy(_) => format!("copy operation does not apply: {path}: {}", why.kind),
    }
}

struct Extent {
    /// About the bytes of the value's JSON; not counted past the bound.
    bytes: usize,
    depth: usize,
}

fn extent(value: &Value, bytes_max: usize) -> Extent {
    let mut extent = Extent { bytes: 0, depth: 0 };
    let mut open = vec![(value, 1)];
    while let Some((value, depth)) = open.pop() {
        extent.depth = extent.depth.max(depth);
        extent.bytes += match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => 8,
            Value::String(text) => text.len() + 2,
            Value::Array(elements) => {
                open.extend(elements.iter().map(|one| (one, depth + 1)));
                2
            }
            Value::Object(fields) => {
                open.extend(fields.values().map(|one| (one, depth + 1)));
                2 + fields.keys().map(|key| key.len() + 3).sum::<usize>()
            }
        };
        if extent.bytes >= bytes_max {
            break;
        }
    }
    extent
}

#[cfg(test)]
mod tests;
