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
        // k8s-openapi writes `apiVersion` first, Kubernetes `kind`: the two swap places, and since
        // both are fixed per type, so is the place of `metadata`.
        let theirs = format!(r#"{{"apiVersion":"{}","kind":"{}","metadata":{{"#, T::API_VERSION, T::KIND);
        let ours = format!(r#"{{"kind":"{}","apiVersion":"{}","metadata":{{"#, T::KIND, T::API_VERSION);
        let mut json = Vec::with_capacity(1024);
        let encoded = if self.metadata().resource_version.is_some() {
            let mut bare = self.clone();
            k8s_openapi::Metadata::metadata_mut(&mut bare).resource_version = None;
            serde_json::to_writer(&mut json, &bare)
        } else {
            serde_json::to_writer(&mut json, self)
        };
        encoded.expect("an API type has string keys only and a Vec takes every byte");
        assert!(json.starts_with(theirs.as_bytes()), "{} encodes apiVersion, kind, metadata first", T::KIND);
        json[..ours.len()].copy_from_slice(ours.as_bytes());
        Encoded { json, revision_at: ours.len() }
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
}
