//! What a pod's actor is told: the latest of each kind of news, so that it is bounded.

use std::sync::{Arc, Mutex, MutexGuard};

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::Notify;

#[derive(Default)]
pub(crate) struct Inbox {
    mail: Mutex<Mail>,
    notify: Notify,
}

/// News since the last look.
#[derive(Default)]
pub(crate) struct Mail {
    /// The newest content of the pod.
    pub(crate) pod: Option<Arc<Pod>>,
    /// The pod is gone from the API.
    pub(crate) gone: bool,
    /// A ConfigMap or Secret that the pod subscribed to has changed.
    pub(crate) sources: Option<SourceNews>,
    /// The process ends: stop what runs and report nothing.
    pub(crate) shutdown: bool,
}

/// What is known of a change of sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SourceNews {
    /// [`Sources::latest`](super::sources::Sources::latest) has it.
    Told,
    /// Anything may have changed: they are to be read.
    Unknown,
}

impl Inbox {
    pub(crate) fn pod_changed(&self, pod: Arc<Pod>) {
        self.put(|mail| mail.pod = Some(pod));
    }

    pub(crate) fn pod_gone(&self) {
        self.put(|mail| mail.gone = true);
    }

    pub(crate) fn sources_changed(&self, news: SourceNews) {
        self.put(|mail| mail.sources = mail.sources.max(Some(news)));
    }

    pub(crate) fn shutdown(&self) {
        self.put(|mail| mail.shutdown = true);
    }

    /// Takes what has come.
    pub(crate) fn take(&self) -> Mail {
        std::mem::take(&mut self.mail())
    }

    /// Returns when something has come since the last [`Inbox::take`].
    pub(crate) async fn arrived(&self) {
        self.notify.notified().await;
    }

    fn put(&self, put: impl FnOnce(&mut Mail)) {
        put(&mut self.mail());
        self.notify.notify_one();
    }

    fn mail(&self) -> MutexGuard<'_, Mail> {
        self.mail.lock().expect("no holder panics")
    }
}
