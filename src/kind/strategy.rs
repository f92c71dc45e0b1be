//! How one kind is defaulted, prepared, validated and shown: typed to write, erased to call.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer};

use super::content::ContentHash;
use super::field::{Errors, Path};
use super::object::{Object, Typed};
use super::table::Cell;
use super::workload::Scaled;

/// The rules of one kind, on its own type. Every method has the answer of a kind without rules.
///
/// Order on create: `set_defaults`, admission, `prepare_create`, `validate`, `validate_create`. On update:
/// `set_defaults`, admission, `prepare_update`, `validate`, `validate_update`. A status update
/// calls `prepare_status_update` and `validate_status_update` instead. The generic verbs deal with
/// `metadata` before and after, so strategies touch and check only what lies beside it.
pub trait Strategy: Send + Sync + 'static {
    type Object: Typed;

    /// Reads an object as clients write it. Differs only for a kind that is stored as another
    /// ([`super::Kind::stored_as`]), which converts.
    fn decode<'de, D: Deserializer<'de>>(&self, decoder: D) -> Result<Self::Object, D::Error> {
        Self::Object::deserialize(decoder)
    }

    /// Fills what the client left out. Idempotent.
    fn set_defaults(&self, _object: &mut Self::Object) {}

    /// Clears what a client may not set on create, such as status; computes fixed fields.
    fn prepare_create(&self, _object: &mut Self::Object) {}

    /// Undoes what the main resource may not change: kinds with a status keep `old`'s.
    fn prepare_update(&self, _new: &mut Self::Object, _old: &Self::Object) {}

    /// Undoes what `status` may not change: everything but the status. (`metadata` is dealt with
    /// by the verbs.)
    fn prepare_status_update(&self, _new: &mut Self::Object, _old: &Self::Object) {}

    /// Undoes what `ephemeralcontainers` may not change, for kinds that have that subresource:
    /// everything but that list.
    fn prepare_ephemeral_update(&self, _new: &mut Self::Object, _old: &Self::Object) {}

    /// Whether spec-like content differs, for `metadata.generation`; only asked of kinds with one.
    fn spec_changed(&self, _new: &Self::Object, _old: &Self::Object) -> bool {
        false
    }

    /// The rule for names of this kind; the errors are put at `metadata.name`.
    fn validate_name(&self, name: &str) -> Vec<String> {
        super::field::dns_subdomain(name)
    }

    fn validate(&self, _object: &Self::Object, _errors: &mut Errors) {}

    /// What is asked of new objects only, besides `validate`.
    fn validate_create(&self, _object: &Self::Object, _errors: &mut Errors) {}

    fn validate_update(&self, _new: &Self::Object, _old: &Self::Object, _errors: &mut Errors) {}

    fn validate_status_update(&self, _new: &Self::Object, _old: &Self::Object, _errors: &mut Errors) {}

    fn validate_ephemeral_update(&self, _new: &Self::Object, _old: &Self::Object, _errors: &mut Errors) {}

    /// Texts for `Warning:` headers about an accepted object.
    fn warnings(&self, _object: &Self::Object) -> Vec<String> {
        Vec::new()
    }

    /// Selectable fields besides `metadata.name` and `metadata.namespace` (BEHAVIOURS 6.5), each
    /// with its value. The names must not depend on the object.
    fn fields(&self, _object: &Self::Object) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// The hash of what matters to those who use the object, for kinds whose history is served.
    fn content_hash(&self, _object: &Self::Object) -> Option<ContentHash> {
        None
    }

    /// What `scale` shows, for kinds that have that subresource.
    fn scaled(&self, _object: &Self::Object) -> Option<Scaled> {
        None
    }

    /// Asks for so many replicas.
    fn scale(&self, _object: &mut Self::Object, _replicas: i32) {}

    /// Seconds that a deletion must wait, given what the request asked for (`None`: nothing); 0
    /// deletes at once. Only pods wait.
    fn deletion_grace_seconds(&self, _object: &Self::Object, _requested: Option<i64>) -> i64 {
        0
    }

    /// One cell for each of the kind's columns.
    fn cells(&self, object: &Self::Object, now: Timestamp) -> Vec<Cell> {
        super::table::name_and_age(object, now)
    }
}

/// [`Strategy`] without the type: what the generic verbs call. Implemented for every `Strategy`.
///
/// Methods that take an object panic if it is of another type, which the verbs rule out by
/// decoding with the same strategy.
pub trait AnyStrategy: Send + Sync {
    fn decode_json(&self, json: &[u8]) -> Result<Box<dyn Object>, serde_json::Error>;
    /// Decodes and reports unknown fields as `spec.containers[0].foo`.
    fn decode_json_strict(
        &self,
        json: &[u8],
        unknown: &mut dyn FnMut(String),
    ) -> Result<Box<dyn Object>, serde_json::Error>;
    fn decode_value(&self, value: serde_json::Value) -> Result<Box<dyn Object>, serde_json::Error>;
    fn set_defaults(&self, object: &mut dyn Object);
    fn prepare_create(&self, object: &mut dyn Object);
    fn prepare_update(&self, new: &mut dyn Object, old: &dyn Object);
    fn prepare_status_update(&self, new: &mut dyn Object, old: &dyn Object);
    fn prepare_ephemeral_update(&self, new: &mut dyn Object, old: &dyn Object);
    fn spec_changed(&self, new: &dyn Object, old: &dyn Object) -> bool;
    fn validate_name(&self, name: &str) -> Vec<String>;
    fn validate(&self, object: &dyn Object) -> Errors;
    fn validate_create(&self, object: &dyn Object) -> Errors;
    fn validate_update(&self, new: &dyn Object, old: &dyn Object) -> Errors;
    fn validate_status_update(&self, new: &dyn Object, old: &dyn Object) -> Errors;
    fn validate_ephemeral_update(&self, new: &dyn Object, old: &dyn Object) -> Errors;
    fn warnings(&self, object: &dyn Object) -> Vec<String>;
    fn fields(&self, object: &dyn Object) -> Vec<(&'static str, String)>;
    /// The names `fields` gives, for refusing others.
    fn field_names(&self) -> Vec<&'static str>;
    fn content_hash(&self, object: &dyn Object) -> Option<ContentHash>;
    fn scaled(&self, object: &dyn Object) -> Option<Scaled>;
    fn scale(&self, object: &mut dyn Object, replicas: i32);
    fn deletion_grace_seconds(&self, object: &dyn Object, requested: Option<i64>) -> i64;
    fn cells(&self, object: &dyn Object, now: Timestamp) -> Vec<Cell>;
}

fn of<T: 'static>(object: &dyn Object) -> &T {
    object.downcast_ref().expect("an object is validated by its own kind")
}

fn of_mut<T: 'static>(object: &mut dyn Object) -> &mut T {
    object.as_any_mut().downcast_mut().expect("an object is changed by its own kind")
}

impl<S: Strategy> AnyStrategy for S {
    fn decode_json(&self, json: &[u8]) -> Result<Box<dyn Object>, serde_json::Error> {
        let mut decoder = serde_json::Deserializer::from_slice(json);
        let object = self.decode(&mut decoder)?;
        decoder.end()?;
        Ok(Box::new(object))
    }

    fn decode_json_strict(
        &self,
        json: &[u8],
        unknown: &mut dyn FnMut(String),
    ) -> Result<Box<dyn Object>, serde_json::Error> {
        let mut decoder = serde_json::Deserializer::from_slice(json);
        let mut ignored = |path: serde_ignored::Path<'_>| unknown(Path::of_ignored(&path));
        let object = self.decode(serde_ignored::Deserializer::new(&mut decoder, &mut ignored))?;
        decoder.end()?;
        Ok(Box::new(object))
    }

    fn decode_value(&self, value: serde_json::Value) -> Result<Box<dyn Object>, serde_json::Error> {
        Ok(Box::new(self.decode(value)?))
    }

    fn set_defaults(&self, object: &mut dyn Object) {
        Strategy::set_defaults(self, of_mut(object));
    }

    fn prepare_create(&self, object: &mut dyn Object) {
        Strategy::prepare_create(self, of_mut(object));
    }

    fn prepare_update(&self, new: &mut dyn Object, old: &dyn Object) {
        Strategy::prepare_update(self, of_mut(new), of(old));
    }

    fn prepare_status_update(&self, new: &mut dyn Object, old: &dyn Object) {
        Strategy::prepare_status_update(self, of_mut(new), of(old));
    }

    fn prepare_ephemeral_update(&self, new: &mut dyn Object, old: &dyn Object) {
        Strategy::prepare_ephemeral_update(self, of_mut(new), of(old));
    }

    fn spec_changed(&self, new: &dyn Object, old: &dyn Object) -> bool {
        Strategy::spec_changed(self, of(new), of(old))
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        Strategy::validate_name(self, name)
    }

    fn validate(&self, object: &dyn Object) -> Errors {
        let mut errors = Errors::default();
        Strategy::validate(self, of(object), &mut errors);
        errors
    }

    fn validate_create(&self, object: &dyn Object) -> Errors {
        let mut errors = Errors::default();
        Strategy::validate_create(self, of(object), &mut errors);
        errors
    }

    fn validate_update(&self, new: &dyn Object, old: &dyn Object) -> Errors {
        let mut errors = Errors::default();
        Strategy::validate_update(self, of(new), of(old), &mut errors);
        errors
    }

    fn validate_status_update(&self, new: &dyn Object, old: &dyn Object) -> Errors {
        let mut errors = Errors::default();
        Strategy::validate_status_update(self, of(new), of(old), &mut errors);
        errors
    }

    fn validate_ephemeral_update(&self, new: &dyn Object, old: &dyn Object) -> Errors {
        let mut errors = Errors::default();
        Strategy::validate_ephemeral_update(self, of(new), of(old), &mut errors);
        errors
    }

    fn warnings(&self, object: &dyn Object) -> Vec<String> {
        Strategy::warnings(self, of(object))
    }

    fn fields(&self, object: &dyn Object) -> Vec<(&'static str, String)> {
        Strategy::fields(self, of(object))
    }

    fn field_names(&self) -> Vec<&'static str> {
        Strategy::fields(self, &S::Object::default()).into_iter().map(|(name, _)| name).collect()
    }

    fn content_hash(&self, object: &dyn Object) -> Option<ContentHash> {
        Strategy::content_hash(self, of(object))
    }

    fn scaled(&self, object: &dyn Object) -> Option<Scaled> {
        Strategy::scaled(self, of(object))
    }

    fn scale(&self, object: &mut dyn Object, replicas: i32) {
        Strategy::scale(self, of_mut(object), replicas);
    }

    fn deletion_grace_seconds(&self, object: &dyn Object, requested: Option<i64>) -> i64 {
        Strategy::deletion_grace_seconds(self, of(object), requested)
    }

    fn cells(&self, object: &dyn Object, now: Timestamp) -> Vec<Cell> {
        Strategy::cells(self, of(object), now)
    }
}

/// Decodes stored bytes, which this program wrote, by the strategy of the stored kind.
pub fn decode_stored(strategy: &dyn AnyStrategy, json: &[u8]) -> Result<Arc<dyn Object>, serde_json::Error> {
    strategy.decode_json(json).map(Arc::from)
}
