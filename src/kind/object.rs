//! One stored instance of a kind, without its type, and its one encoding.

use std::any::Any;
use std::fmt::Debug;
use std::sync::Arc;

use bytes::Bytes;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A Kubernetes API type that can be a kind: what [`crate::kind::Strategy::Object`] must be.
pub trait Typed:
    k8s_openapi::Resource
    + k8s_openapi::Metadata<Ty = ObjectMeta>
    + Serialize
    + DeserializeOwned
    + schemars::JsonSchema
    + Clone
    + Default
    + Debug
    + PartialEq
    + Send
    + Sync
    + 'static
{
}

impl<T> Typed for T where
    T: k8s_openapi::Resource
        + k8s_openapi::Metadata<Ty = ObjectMeta>
        + Serialize
        + DeserializeOwned
        + schemars::JsonSchema
        + Clone
        + Default
        + Debug
        + PartialEq
        + Send
        + Sync
        + 'static
{
}

/// One object of any kind, decoded. Every [`Typed`] is one.
pub trait Object: Any + Debug + Send + Sync {
    fn metadata(&self) -> &ObjectMeta;
    fn metadata_mut(&mut self) -> &mut ObjectMeta;
    /// `v1`, `batch/v1`
    fn api_version(&self) -> &'static str;
    /// `Pod`
    fn kind_name(&self) -> &'static str;
    fn clone_object(&self) -> Box<dyn Object>;
    /// Equal in every field.
    fn equals(&self, other: &dyn Object) -> bool;
    /// JSON without `metadata.resourceVersion`, to be completed by [`Encoded::with_revision`].
    fn encode(&self) -> Encoded;
    /// The object as a JSON tree, `resourceVersion` included, for patches.
    fn to_value(&self) -> serde_json::Value;
    fn as_any(&self) -> &dyn Any;
    fn as_any_mut(&mut self) -> &mut dyn Any;
    fn into_any(self: Box<Self>) -> Box<dyn Any>;
    fn into_any_arc(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

impl dyn Object {
    /// The object as its type, if it is one.
    #[must_use]
    pub fn downcast_ref<T: 'static>(&self) -> Option<&T> {
        self.as_any().downcast_ref()
    }
}

/// The shared object as its type, if it is one.
#[must_use]
pub fn downcast_arc<T: Send + Sync + 'static>(object: Arc<dyn Object>) -> Option<Arc<T>> {
    object.into_any_arc().downcast().ok()
}

/// An encoded object that lacks only its revision, which is known when it is committed.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// Begins with `{"kind":…,"apiVersion":…,"metadata":{` (BEHAVIOURS 2.8); has no `resourceVersion`.
    pub json: Vec<u8>,
    /// Where in `json` the `resourceVersion` member goes: the first place inside `metadata`.
    pub revision_at: usize,
}

impl Encoded {
    /// The complete bytes of the object at `revision`.
    #[must_use]
    pub fn with_revision(&self, revision: u64) -> Bytes {
        let (before, after) = self.json.split_at(self.revision_at);
        let mut whole = Vec::with_capacity(self.json.len() + 44);
        whole.extend_from_slice(before);
        whole.extend_from_slice(b"\"resourceVersion\":\"");
        whole.extend_from_slice(revision.to_string().as_bytes());
        whole.push(b'"');
        if after.first() != Some(&b'}') {
            whole.push(b',');
        }
        whole.extend_from_slice(after);
        whole.into()
    }
}

impl<T: Typed> Object for T {
    fn metadata(&self) -> &ObjectMeta {
        k8s_openapi::Metadata::metadata(self)
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        k8s_openapi::Metadata::metadata_mut(self)
    }

    fn api_version(&self) -> &'static str {
        T::API_VERSION
    }

    fn kind_name(&self) -> &'static str {
        T::KIND
    }

    fn clone_object(&self) -> Box<dyn Object> {
        Box::new(self.clone())
    }

    fn equals(&self, other: &dyn Object) -> bool {
        other.downcast_ref::<T>() == Some(self)
    }

    fn encode(&self) -> Encoded {
        // k8s-openapi writes `apiVersion` first, Kubernetes `kind`: the two swap places. The other
        // members follow by the alphabet, `metadata` among them.
        let theirs = format!(r#"{{"apiVersion":"{}","kind":"{}","#, T::API_VERSION, T::KIND);
        let ours = format!(r#"{{"kind":"{}","apiVersion":"{}","#, T::KIND, T::API_VERSION);
        let mut json = Vec::with_capacity(1024);
        let encoded = if self.metadata().resource_version.is_some() {
            let mut bare = self.clone();
            k8s_openapi::Metadata::metadata_mut(&mut bare).resource_version = None;
            serde_json::to_writer(&mut json, &bare)
        } else {
            serde_json::to_writer(&mut json, self)
        };
        encoded.expect("an API type has string keys only and a Vec takes every byte");
        assert!(json.starts_with(theirs.as_bytes()), "{} encodes apiVersion and kind first", T::KIND);
        json[..ours.len()].copy_from_slice(ours.as_bytes());
        metadata_first(&mut json[ours.len()..]);
        Encoded { json, revision_at: ours.len() + METADATA.len() }
    }

    fn to_value(&self) -> serde_json::Value {
        serde_json::to_value(self).expect("an API type has string keys only")
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }

    fn into_any_arc(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

/// How the member `metadata` begins; every API type writes one, if an empty one.
const METADATA: &[u8] = br#""metadata":{"#;

/// Moves the member `metadata` before the others (BEHAVIOURS 2.8), as in `"data":{…},"metadata":{…}`,
/// in place. `members` is the rest of a JSON object, from its first member on.
fn metadata_first(members: &mut [u8]) {
    let mut start = 0;
    while !members[start..].starts_with(METADATA) {
        start += member_len(&members[start..]) + 1;
    }
    if start > 0 {
        let len = member_len(&members[start..]);
        // `a,metadata` turns into `metadata` and `a,`, and then the comma goes to the front of `a`.
        members[..start + len].rotate_left(start);
        members[len..start + len].rotate_right(1);
    }
}

/// Bytes of the first of these members of a JSON object, up to the comma or brace behind it.
fn member_len(members: &[u8]) -> usize {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    members
        .iter()
        .position(|&byte| {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if in_string => escaped = true,
                b'"' => in_string = !in_string,
                _ if in_string => {}
                b'{' | b'[' => depth += 1,
                b',' | b'}' if depth == 0 => return true,
                b'}' | b']' => depth -= 1,
                _ => {}
            }
            false
        })
        .expect("a member of a complete object ends")
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;

    #[test]
    fn encoding_puts_kind_first_and_the_revision_into_metadata() {
        let mut map = ConfigMap::default();
        map.metadata.name = Some("a".into());
        map.metadata.resource_version = Some("3".into());
        let bytes = map.encode().with_revision(12);
        assert_eq!(
            std::str::from_utf8(&bytes).unwrap(),
            r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"resourceVersion":"12","name":"a"}}"#
        );
        let empty = ConfigMap::default().encode().with_revision(1);
        assert_eq!(
            std::str::from_utf8(&empty).unwrap(),
            r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"resourceVersion":"1"}}"#
        );
    }

    #[test]
    fn metadata_comes_before_members_that_sort_before_it() {
        let map: ConfigMap = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "a", "labels": {"x": "}\",{"}},
            "binaryData": {"b": "AA=="},
            "data": {"k": "\"metadata\":{\\", "l": "[{,"},
            "immutable": true,
        }))
        .unwrap();
        let encoded = map.encode();
        assert_eq!(
            std::str::from_utf8(&encoded.with_revision(7)).unwrap(),
            r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"resourceVersion":"7","labels":{"x":"}\",{"},"name":"a"},"binaryData":{"b":"AA=="},"data":{"k":"\"metadata\":{\\","l":"[{,"},"immutable":true}"#
        );
        assert_eq!(serde_json::from_slice::<ConfigMap>(&encoded.json).unwrap(), map);
    }
}
