//! The containers that run on this process's nodes, for whoever wants to join one: `exec`, `attach`
//! and `portforward` (BEHAVIOURS 8.7).

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard};

use k8s_openapi::api::core::v1::Pod;

use super::beside::{self, Beside, Wanted};
use super::setup::Setup;
use crate::runtime::pipe::{Receiver, Sender};

/// Every container that runs, by its pod's uid and its name; cheap to clone. It can be made before the
/// kubelets are.
#[derive(Clone, Default)]
pub struct Running(Arc<Mutex<ByUid>>);

/// By a pod's uid, each of its containers that runs.
type ByUid = HashMap<String, Vec<(String, Arc<Setup>)>>;

/// Why nobody can join a container, in words for the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

/// A container's place among those that run, until it is dropped; then every run beside it ends.
pub(crate) struct Place {
    running: Running,
    uid: String,
    pub(crate) setup: Arc<Setup>,
}

/// The streams of a container's own run.
pub struct Attached {
    /// None unless it was asked for and the container has one.
    pub stdin: Option<Sender>,
    pub stdout: Option<Receiver>,
    pub stderr: Option<Receiver>,
}

impl Running {
    /// The container, if it runs and its node runs code.
    pub fn find(&self, pod: &Pod, container: &str) -> Result<Joined, Refused> {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let all = self.all();
        let found = all.get(uid).and_then(|containers| {
            // The latest, while an older one is about to leave.
            containers.iter().rev().find(|(name, _)| name == container)
        });
        let Some((_, setup)) = found else {
            return Err(Refused(format!("container not found ({container:?})")));
        };
        if setup.node.config.images.run_code() {
            Ok(Joined(setup.clone()))
        } else {
            Err(Refused(format!(
                "node {:?} is simulated and runs no code: choose a pod on a node with the label \
                 coracle.dev/runtime=wasm",
                setup.node.config.name
            )))
        }
    }

    /// Where the pod's ports are, while any of its containers runs.
    #[must_use]
    pub fn address(&self, pod: &Pod) -> Option<Ipv4Addr> {
        let all = self.all();
        let containers = all.get(pod.metadata.uid.as_deref()?)?;
        containers.first().map(|(_, setup)| setup.pod_ip)
    }

    /// The container's run begins.
    pub(crate) fn enter(&self, uid: &str, container: &str, setup: &Arc<Setup>) -> Place {
        self.all().entry(uid.to_owned()).or_default().push((container.to_owned(), setup.clone()));
        Place { running: self.clone(), uid: uid.to_owned(), setup: setup.clone() }
    }

    fn all(&self) -> MutexGuard<'_, ByUid> {
        self.0.lock().expect("no holder panics")
    }
}

/// A container that runs.
pub struct Joined(Arc<Setup>);

impl Joined {
    #[cfg(test)]
    pub(crate) fn setup(&self) -> &Arc<Setup> {
        &self.0
    }

    /// Starts a further run beside it; see [`beside`].
    pub async fn exec(&self, command: &[String], wanted: Wanted) -> Result<Beside, Refused> {
        beside::start(&self.0, command, wanted).await
    }

    /// Joins its own run: what it writes from now on (who comes early has missed nothing), and its input.
    pub fn attach(&self, stdin: bool, stdout: bool, stderr: bool) -> Result<Attached, Refused> {
        let Setup { streams, label, .. } = &*self.0;
        let full = || {
            Refused(format!(
                "{label} takes nobody more: too many are attached, or its memory limit leaves no room for the \
                 output they may be behind"
            ))
        };
        let stdout = if stdout { Some(streams.stdout.attach().ok_or_else(full)?) } else { None };
        // A terminal has one stream of output.
        let stderr =
            if stderr && !streams.tty { Some(streams.stderr.attach().ok_or_else(full)?) } else { None };
        let stdin = streams.stdin.as_ref().filter(|_| stdin);
        Ok(Attached { stdin: stdin.map(|pipe| Sender::of(pipe, streams.stdin_once)), stdout, stderr })
    }

    /// Returns when its own run has ended.
    pub async fn over(&self) {
        self.0.over.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.setup.over.cancel();
        let mut all = self.running.all();
        if let Some(containers) = all.get_mut(&self.uid) {
            containers.retain(|(_, setup)| !Arc::ptr_eq(setup, &self.setup));
            if containers.is_empty() {
                all.remove(&self.uid);
            }
        }
    }
}
