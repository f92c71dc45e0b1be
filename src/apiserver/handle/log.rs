//! `pods/log`: whose log, and whether there is one yet (BEHAVIOURS 8.4).

use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod};

use super::{Inner, Target, decoded};
use crate::apiserver::request::{LogOptions, Options, Response};
use crate::apiserver::status::Error;
use crate::kind::field::{Errors, Path};

impl Inner {
    pub(super) async fn log(&self, target: &Target, options: &Options) -> Result<Response, Error> {
        check_options(target, &options.log)?;
        let object = decoded(target.kind, &*self.find(target)?);
        let Some(pod) = object.downcast_ref::<Pod>() else {
            return Err(Error::method_not_allowed(target.kind));
        };
        let container = container(pod, options.log.container.as_deref()).map_err(Error::bad_request)?;
        let is_bound =
            pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).is_some_and(|node| !node.is_empty());
        if !is_bound {
            // No node, so no text, and no error: as upstream answers.
            return Ok(Response::Text(Box::pin(futures_util::stream::empty())));
        }
        check_started(pod, container, options.log.previous).map_err(Error::bad_request)?;
        Ok(Response::Text(self.nodes.logs(pod, container, &options.log).await?))
    }
}

fn check_options(target: &Target, options: &LogOptions) -> Result<(), Error> {
    let mut errors = Errors::default();
    let path = Path::new("sinceSeconds");
    if options.since_seconds.is_some_and(|seconds| seconds < 1) {
        errors.invalid(&path, options.since_seconds, "must be greater than 0");
    }
    if options.since_seconds.is_some() && options.since_time.is_some() {
        errors.forbidden(&Path::new(""), "at most one of `sinceTime` or `sinceSeconds` may be specified");
    }
    if options.limit_bytes == Some(0) {
        errors.invalid(&Path::new("limitBytes"), 0, "must be greater than 0");
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(Error::invalid(target.kind, target.name.as_deref().unwrap_or_default(), &errors))
    }
}

/// The container that is asked for, or the only one.
pub(super) fn container<'a>(pod: &'a Pod, asked: Option<&'a str>) -> Result<&'a str, String> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let spec = pod.spec.as_ref().ok_or_else(|| format!("the pod {name} has no spec"))?;
    let apps: Vec<&str> = spec.containers.iter().map(|one| one.name.as_str()).collect();
    let inits: Vec<&str> = spec.init_containers.iter().flatten().map(|one| one.name.as_str()).collect();
    let ephemeral = spec.ephemeral_containers.iter().flatten().map(|one| one.name.as_str());
    let ephemeral: Vec<&str> = ephemeral.collect();
    match asked.filter(|asked| !asked.is_empty()) {
        Some(asked) => {
            let exists = apps.iter().chain(&inits).chain(&ephemeral).any(|one| *one == asked);
            if exists { Ok(asked) } else { Err(format!("container {asked} is not valid for pod {name}")) }
        }
        None => match apps.as_slice() {
            [one] => Ok(*one),
            [] => Err(format!("a container name must be specified for pod {name}")),
            many => {
                let mut text = format!(
                    "a container name must be specified for pod {name}, choose one of: [{}]",
                    many.join(" ")
                );
                if !inits.is_empty() {
                    text += &format!(" or one of the init containers: [{}]", inits.join(" "));
                }
                if !ephemeral.is_empty() {
                    text += &format!(" or one of the ephemeral containers: [{}]", ephemeral.join(" "));
                }
                Err(text)
            }
        },
    }
}

/// Whether the container has, or had, a run with a log.
fn check_started(pod: &Pod, container: &str, previous: bool) -> Result<(), String> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let waiting =
        |why: &str| Err(format!("container {container:?} in pod {name:?} is waiting to start: {why}"));
    let nothing = ContainerStatus::default();
    let status = find_status(pod, container);
    let found = status.is_some();
    let status = status.unwrap_or(&nothing);
    let has_last = status.last_state.as_ref().is_some_and(|state| state.terminated.is_some());
    if previous {
        let why = format!("previous terminated container {container:?} in pod {name:?} not found");
        return if has_last { Ok(()) } else { Err(why) };
    }
    if !found {
        return waiting("ContainerCreating");
    }
    match status.state.as_ref() {
        Some(ContainerState { running: Some(_), .. } | ContainerState { terminated: Some(_), .. }) => Ok(()),
        _ if has_last => Ok(()),
        Some(ContainerState { waiting: Some(state), .. }) => match state.reason.as_deref() {
            Some("ErrImagePull") => waiting("image can't be pulled"),
            Some("ImagePullBackOff") => waiting("trying and failing to pull image"),
            reason => waiting(reason.unwrap_or_default()),
        },
        Some(_) | None => {
            Err(format!("container {container:?} in pod {name:?} is waiting to start - no logs yet"))
        }
    }
}

fn find_status<'a>(pod: &'a Pod, container: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let lists =
        [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses];
    lists.into_iter().flatten().flatten().find(|one| one.name == container)
}

#[cfg(test)]
mod tests;
