//! Output of the pods of this process's nodes, for `pods/log` (BEHAVIOURS 8.4).

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::Stream;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod};

use crate::runtime::log::{Log, LogQuery};

/// Every log that can still be read; cheap to clone. It can be made before the kubelets are.
#[derive(Clone, Default)]
pub struct Logs(Arc<Mutex<HashMap<String, Arc<PodLogs>>>>);

/// Why there is no log, in the words of a 400.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoLog(pub String);

/// The logs of one pod, until it goes.
#[derive(Default)]
pub(crate) struct PodLogs(Mutex<Vec<ContainerLogs>>);

struct ContainerLogs {
    container: String,
    latest: Arc<Log>,
    previous: Option<Arc<Log>>,
    running: bool,
}

impl Logs {
    /// The log of a container that is in the pod's spec: of its run now or, if there is none, of
    /// its last; with `previous`, of the run before.
    pub fn read(
        &self,
        pod: &Pod,
        container: &str,
        previous: bool,
        query: &LogQuery,
    ) -> Result<Pin<Box<dyn Stream<Item = Bytes> + Send>>, NoLog> {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let logs = pod.metadata.uid.as_ref().and_then(|uid| self.map().get(uid).cloned());
        let status = pod.status.iter().flat_map(|status| {
            let init = status.init_container_statuses.iter().flatten();
            let ephemeral = status.ephemeral_container_statuses.iter().flatten();
            init.chain(status.container_statuses.iter().flatten()).chain(ephemeral)
        });
        let status = status.into_iter().find(|status| status.name == container);
        let is_waiting = status.and_then(|status| status.state.as_ref()).is_some_and(|s| s.waiting.is_some());
        let found = logs.and_then(|logs| logs.find(container, previous, is_waiting));
        match found {
            Some(log) => Ok(log.read(query)),
            None if previous => {
                Err(NoLog(format!("previous terminated container {container:?} in pod {name:?} not found")))
            }
            None => absent(status, container, name),
        }
    }

    /// Where the pod's containers will write.
    pub(crate) fn open(&self, uid: &str) -> Arc<PodLogs> {
        self.map().entry(uid.to_owned()).or_default().clone()
    }

    /// The pod is gone.
    pub(crate) fn remove(&self, uid: &str) {
        self.map().remove(uid);
    }

    fn map(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<PodLogs>>> {
        self.0.lock().expect("no holder panics")
    }
}

/// No run's output is kept: it has not begun, or the process that kept it has ended.
fn absent(
    status: Option<&ContainerStatus>,
    container: &str,
    pod: &str,
) -> Result<Pin<Box<dyn Stream<Item = Bytes> + Send>>, NoLog> {
    let state = status.and_then(|status| status.state.as_ref());
    let waiting = |state: &ContainerState| state.waiting.as_ref().and_then(|waiting| waiting.reason.clone());
    let why = match state {
        Some(state) if state.running.is_some() || state.terminated.is_some() => {
            return Ok(Box::pin(futures_util::stream::empty()));
        }
        Some(state) => waiting(state),
        None => None,
    };
    let why = why.unwrap_or_else(|| "ContainerCreating".into());
    let why = match why.as_str() {
        "ErrImagePull" | "ImagePullBackOff" => "trying and failing to pull image".into(),
        "ErrImageNeverPull" | "InvalidImageName" => "image can't be pulled".into(),
        _ => why,
    };
    Err(NoLog(format!("container {container:?} in pod {pod:?} is waiting to start: {why}")))
}

impl PodLogs {
    /// A new run of the container begins to write to `log`.
    pub(crate) fn begin(&self, container: &str, log: Arc<Log>) {
        let mut logs = self.0.lock().expect("no holder panics");
        match logs.iter_mut().find(|logs| logs.container == container) {
            Some(logs) => {
                logs.previous = Some(std::mem::replace(&mut logs.latest, log));
                logs.running = true;
            }
            None => logs.push(ContainerLogs {
                container: container.to_owned(),
                latest: log,
                previous: None,
                running: true,
            }),
        }
    }

    /// The container's run has ended.
    pub(crate) fn end(&self, container: &str) {
        let mut logs = self.0.lock().expect("no holder panics");
        if let Some(logs) = logs.iter_mut().find(|logs| logs.container == container) {
            logs.running = false;
        }
    }

    /// While a container waits for its restart, the run that ended is also the previous one.
    fn find(&self, container: &str, previous: bool, is_waiting: bool) -> Option<Arc<Log>> {
        let logs = self.0.lock().expect("no holder panics");
        let logs = logs.iter().find(|logs| logs.container == container)?;
        if previous && (logs.running || !is_waiting) {
            logs.previous.clone()
        } else {
            Some(logs.latest.clone())
        }
    }
}
