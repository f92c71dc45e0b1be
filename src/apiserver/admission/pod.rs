//! What a new pod gets from its cluster: ServiceAccount, Priority, RuntimeClass and
//! DefaultTolerationSeconds (BEHAVIOURS 17.3, 18.4).

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodSpec, ServiceAccount, Toleration};
use k8s_openapi::api::node::v1::RuntimeClass;
use k8s_openapi::api::scheduling::v1::PriorityClass;

use super::{Admission, api_access};
use crate::apiserver::status::Error;
use crate::store::Range;

/// Marks the object of a pod that a node runs by itself.
const MIRROR: &str = "kubernetes.io/config.mirror";
const DEFAULT_ACCOUNT: &str = "default";
const ACCOUNTS: &str = "serviceaccounts";

/// How long a pod waits for the `default` ServiceAccount of a namespace that is just being set up.
const ACCOUNT_WAIT: Duration = Duration::from_secs(1);

/// How long pods stay on a node that is not ready or cannot be reached.
const TOLERATION_SECONDS: i64 = 300;
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const NO_EXECUTE: &str = "NoExecute";

/// Classes that every cluster has.
const SYSTEM_CLASSES: [(&str, i32); 2] =
    [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];
const PREEMPT: &str = "PreemptLowerPriority";

pub(super) async fn create(admission: &Admission<'_>, pod: &mut Pod) -> Result<(), Error> {
    let name = pod.metadata.name.clone().unwrap_or_default();
    let forbidden = |why: String| Error::forbidden(admission.kind, &name, &why);
    let is_mirror =
        pod.metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(MIRROR));
    let spec = pod.spec.get_or_insert_default();
    if !is_mirror {
        service_account(admission, spec).await.map_err(forbidden)?;
    }
    priority(admission, spec).map_err(forbidden)?;
    runtime_class(admission, spec).map_err(forbidden)?;
    tolerations(spec);
    Ok(())
}

async fn service_account(admission: &Admission<'_>, spec: &mut PodSpec) -> Result<(), String> {
    let given = [&spec.service_account_name, &spec.service_account];
    let name = given.into_iter().flatten().find(|name| !name.is_empty());
    let name = name.map_or_else(|| DEFAULT_ACCOUNT.to_owned(), Clone::clone);
    let namespace = admission.namespace.unwrap_or_default();
    let Some(account) = find_account(admission, namespace, &name).await else {
        return Err(format!(
            "error looking up service account {namespace}/{name}: serviceaccount {name:?} not found"
        ));
    };
    spec.service_account_name = Some(name.clone());
    spec.service_account = Some(name);
    if api_access::is_wanted(spec, &account) {
        api_access::mount(spec, || admission.random.name_suffix(api_access::SUFFIX_CHARS));
    }
    if spec.image_pull_secrets.as_ref().is_none_or(Vec::is_empty) {
        spec.image_pull_secrets.clone_from(&account.image_pull_secrets);
    }
    Ok(())
}

/// The account; the `default` one is waited for, since a controller makes it for each new namespace.
async fn find_account(admission: &Admission<'_>, namespace: &str, name: &str) -> Option<Arc<ServiceAccount>> {
    let find = || admission.stored::<ServiceAccount>(namespace, name);
    let found = find();
    if found.is_some() || name != DEFAULT_ACCOUNT {
        return found;
    }
    let range = Range { collection: ACCOUNTS, namespace: Some(namespace.into()) };
    let mut watch = admission.store.watch(range, admission.store.revision()).await.ok()?;
    let arrival = async {
        loop {
            if let Some(account) = find() {
                return Some(account);
            }
            watch.next().await?;
        }
    };
    admission.clock.timeout(ACCOUNT_WAIT, arrival).await.ok().flatten()
}

fn priority(admission: &Admission<'_>, spec: &mut PodSpec) -> Result<(), String> {
    let class = spec.priority_class_name.as_deref().filter(|name| !name.is_empty());
    let (value, policy) = match class {
        Some(name) => match admission.stored::<PriorityClass>("", name) {
            Some(class) => (class.value, class.preemption_policy.clone()),
            None => match SYSTEM_CLASSES.iter().find(|(known, _)| *known == name) {
                Some((_, value)) => (*value, None),
                None => return Err(format!("no PriorityClass with name {name} was found")),
            },
        },
        None => {
            let classes = admission.all::<PriorityClass>();
            // Of several defaults the lowest counts, as upstream has it.
            let default =
                classes.iter().filter(|one| one.global_default == Some(true)).min_by_key(|one| one.value);
            if let Some(class) = default {
                spec.priority_class_name.clone_from(&class.metadata.name);
            }
            default.map_or((0, None), |class| (class.value, class.preemption_policy.clone()))
        }
    };
    if let Some(given) = spec.priority.filter(|given| *given != value) {
        return Err(format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {value} from the given PriorityClass name"
        ));
    }
    let policy = policy.unwrap_or_else(|| PREEMPT.to_owned());
    if let Some(given) = spec.preemption_policy.as_ref().filter(|given| **given != policy) {
        return Err(format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission controller computed {policy} from the given PriorityClass name"
        ));
    }
    spec.priority = Some(value);
    spec.preemption_policy = Some(policy);
    Ok(())
}

fn runtime_class(admission: &Admission<'_>, spec: &mut PodSpec) -> Result<(), String> {
    let Some(name) = spec.runtime_class_name.as_deref() else { return Ok(()) };
    let Some(class) = admission.stored::<RuntimeClass>("", name) else {
        return Err(format!("pod rejected: RuntimeClass {name:?} not found"));
    };
    let overhead = class.overhead.as_ref().and_then(|overhead| overhead.pod_fixed.clone());
    if spec.overhead.as_ref().is_some_and(|given| Some(given) != overhead.as_ref()) {
        return Err("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead".into());
    }
    spec.overhead = overhead;
    let Some(scheduling) = &class.scheduling else { return Ok(()) };
    for (key, value) in scheduling.node_selector.iter().flatten() {
        let selector = spec.node_selector.get_or_insert_default();
        if selector.get(key).is_some_and(|given| given != value) {
            return Err(format!("conflict: cannot overwrite label: {key} = {value}"));
        }
        selector.insert(key.clone(), value.clone());
    }
    for toleration in scheduling.tolerations.iter().flatten() {
        let tolerations = spec.tolerations.get_or_insert_default();
        if !tolerations.contains(toleration) {
            tolerations.push(toleration.clone());
        }
    }
    Ok(())
}

fn tolerations(spec: &mut PodSpec) {
    for key in [NOT_READY, UNREACHABLE] {
        let tolerations = spec.tolerations.get_or_insert_default();
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let tolerated = tolerations.iter().any(|one| {
            let (of, effect) = (text(&one.key), text(&one.effect));
            (of == key || of.is_empty()) && (effect == NO_EXECUTE || effect.is_empty())
        });
        if !tolerated {
            tolerations.push(Toleration {
                key: Some(key.to_owned()),
                operator: Some("Exists".to_owned()),
                effect: Some(NO_EXECUTE.to_owned()),
                toleration_seconds: Some(TOLERATION_SECONDS),
                value: None,
            });
        }
    }
}
