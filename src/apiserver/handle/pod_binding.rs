//! Binding: what the scheduler writes, once for each pod (BEHAVIOURS 8.3).

use k8s_openapi::Resource;
use k8s_openapi::api::core::v1::{Binding, Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Status, Time};

use super::{Inner, Target, WRITE_TRIES_MAX, decoded, dry_run, store_failed};
use crate::apiserver::admission;
use crate::apiserver::decode::{self, FieldValidation};
use crate::apiserver::request::{Body, Options, Response};
use crate::apiserver::status::Error;
use crate::kind::{self, Object};
use crate::store::{CommitError, Expect};

const OPTIONS: &str = "CreateOptions";

impl Inner {
    /// `pods/<name>/binding`, or `bindings` with the pod's name in the body.
    pub(super) async fn bind(
        &self,
        target: &Target,
        options: &Options,
        body: Body,
    ) -> Result<Response, Error> {
        let dry_run = dry_run(&options.dry_run, OPTIONS)?;
        let validation = FieldValidation::parse(options.field_validation.as_deref(), OPTIONS)?;
        let bindings = kind::of::<Binding>();
        let decoded_body = decode::decode(bindings, body, validation)?;
        let errors = bindings.strategy.validate(&*decoded_body.object);
        let Ok(binding) = decoded_body.object.into_any().downcast::<Binding>() else {
            return Err(Error::internal("the binding's kind decodes bindings"));
        };
        let pods = kind::of::<Pod>();
        let given = binding.metadata.name.as_deref().unwrap_or_default();
        let name = match target.name.as_deref() {
            None => given,
            Some(name) if given.is_empty() || given == name => name,
            Some(name) => {
                return Err(Error::bad_request(format!(
                    "the name of the object ({given}) does not match the name on the URL ({name})"
                )));
            }
        };
        let target = Target {
            user: target.user.clone(),
            kind: pods,
            namespace: target.namespace.clone(),
            name: Some(name.to_owned()),
        };
        if !errors.is_empty() {
            return Err(Error::invalid(bindings, name, &errors));
        }
        let node = binding.target.name.as_deref().unwrap_or_default();
        for _ in 0..WRITE_TRIES_MAX {
            let record = self.find(&target)?;
            let old = decoded(pods, &record);
            let Some(pod) = old.downcast_ref::<Pod>() else {
                return Err(Error::internal("pods are pods"));
            };
            check(pod, &binding, name)?;
            if dry_run {
                return Ok(bound());
            }
            let mut new = Box::new(pod.clone());
            self.assign(&mut new, &binding, node);
            new.metadata.resource_version = None;
            let encoded = new.encode();
            match self.put(&record.key, Expect::Revision(record.revision), new, encoded, None).await {
                Ok(_) => return Ok(bound()),
                Err(CommitError::Conflict { .. }) => {}
                Err(error @ CommitError::Unwritable(_)) => return Err(store_failed(&error)),
            }
        }
        Err(Error::modified(pods, name))
    }

    fn assign(&self, pod: &mut Pod, binding: &Binding, node: &str) {
        pod.spec.get_or_insert_default().node_name = Some(node.to_owned());
        for (key, value) in binding.metadata.annotations.iter().flatten() {
            pod.metadata.annotations.get_or_insert_default().insert(key.clone(), value.clone());
        }
        let conditions = pod.status.get_or_insert_default().conditions.get_or_insert_default();
        let scheduled = PodCondition {
            type_: "PodScheduled".into(),
            status: "True".into(),
            last_transition_time: Some(Time(self.now())),
            ..PodCondition::default()
        };
        match conditions.iter_mut().find(|one| one.type_ == scheduled.type_) {
            Some(one) => *one = scheduled,
            None => conditions.push(scheduled),
        }
    }
}

/// A pod is bound once, as long as it is wanted, and only if it is the one that was looked at.
fn check(pod: &Pod, binding: &Binding, name: &str) -> Result<(), Error> {
    let conflict = |why: &str| Err(Error::subresource_conflict(kind::of::<Pod>(), "binding", name, why));
    let (asked, have) = (binding.metadata.uid.as_deref(), pod.metadata.uid.as_deref());
    if let Some(asked) = asked.filter(|asked| !asked.is_empty() && Some(*asked) != have) {
        let have = have.unwrap_or_default();
        return conflict(&format!(
            "Precondition failed: UID in precondition: {asked}, UID in object meta: {have}"
        ));
    }
    if pod.metadata.deletion_timestamp.is_some() {
        return conflict(&format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default();
    if !node.is_empty() {
        return conflict(&format!("pod {name} is already assigned to node {node:?}"));
    }
    if admission::is_gated(pod) {
        return conflict(&format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    Ok(())
}

/// 201, without details, as upstream answers.
fn bound() -> Response {
    Response::Status(Status { status: Some("Success".into()), code: Some(201), ..Status::default() })
}

/// `bindings` is a collection to create in, with nothing stored.
pub(super) fn is_binding(kind: &kind::Kind) -> bool {
    kind.kind == Binding::KIND && kind.group == Binding::GROUP
}
