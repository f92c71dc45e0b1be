//! NamespaceLifecycle, and what else is special about namespaces (BEHAVIOURS 11).

use k8s_openapi::api::core::v1::{Namespace, NamespaceStatus};

use super::Admission;
use crate::apiserver::status::Error;
use crate::kind::Object;
use crate::kind::namespace::TERMINATING;
use crate::store::{Change, Expect, Key, Write};

const COLLECTION: &str = "namespaces";

/// The namespaces that cannot be deleted.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

/// Refuses new objects in a namespace that is unknown or going. The expectation returned makes sure
/// that it is neither when the object is committed: what is created is seen by whoever empties the
/// namespace.
pub(super) fn guard(admission: &Admission<'_>, name: &str) -> Result<Option<Write>, Error> {
    let Some(namespace) = admission.namespace.filter(|_| admission.kind.is_namespaced()) else {
        return Ok(None);
    };
    let key = Key { collection: COLLECTION, namespace: "".into(), name: namespace.into() };
    let record = admission.store.get(&key).ok_or_else(|| Error::namespace_not_found(namespace))?;
    let stored = super::typed::<Namespace>(&record);
    if stored.is_some_and(|stored| stored.metadata.deletion_timestamp.is_some()) {
        let why =
            format!("unable to create new content in namespace {namespace} because it is being terminated");
        return Err(Error::forbidden(admission.kind, name, &why).with_cause(
            "NamespaceTerminating",
            &format!("namespace {namespace} is being terminated"),
            "metadata.namespace",
        ));
    }
    let expect = Expect::Revision(record.revision);
    Ok(Some(Write { key, expect, change: Change::Nothing }))
}

pub(super) fn check_deletion(admission: &Admission<'_>, name: &str) -> Result<(), Error> {
    if IMMORTAL.contains(&name) {
        return Err(Error::forbidden(admission.kind, name, "this namespace may not be deleted"));
    }
    Ok(())
}

/// Whether `spec.finalizers` hold an object, besides those of its metadata.
pub(in crate::apiserver) fn has_spec_finalizers(object: &dyn Object) -> bool {
    let Some(namespace) = object.downcast_ref::<Namespace>() else { return false };
    let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.as_ref());
    finalizers.is_some_and(|finalizers| !finalizers.is_empty())
}

/// A namespace whose deletion begins says so in its phase.
pub(in crate::apiserver) fn mark_terminating(object: &mut dyn Object) {
    if let Some(namespace) = object.as_any_mut().downcast_mut::<Namespace>() {
        let status: &mut NamespaceStatus = namespace.status.get_or_insert_default();
        status.phase = Some(TERMINATING.to_owned());
    }
}

/// `old` with the `spec.finalizers` of `new`, which is all that `finalize` changes.
pub(in crate::apiserver) fn finalized(new: &dyn Object, old: &dyn Object) -> Box<dyn Object> {
    let (Some(new), Some(old)) = (new.downcast_ref::<Namespace>(), old.downcast_ref::<Namespace>()) else {
        return old.clone_object();
    };
    let mut result = old.clone();
    let finalizers = new.spec.as_ref().and_then(|spec| spec.finalizers.clone());
    result.spec.get_or_insert_default().finalizers = finalizers;
    Box::new(result)
}
