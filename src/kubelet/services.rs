//! The cluster's Services as containers hear of them: one watch for the process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use k8s_openapi::api::core::v1::Service;
use tokio::sync::watch;

use super::service_env;
use crate::client::{self, Client, Select};

/// The namespace and name of the API's own service.
const API_SERVICE: (&str, &str) = ("default", "kubernetes");

type Variables = Arc<Vec<(String, String)>>;

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Services(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    synced: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    services: BTreeMap<(String, String), Arc<Service>>,
    /// Made when asked for, forgotten with the next change.
    made: BTreeMap<Option<String>, Variables>,
}

impl Services {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Inner { state: Mutex::default(), synced: watch::Sender::new(false) }))
    }

    /// Follows the API until it shuts down.
    pub(crate) async fn follow(&self, client: &Client) {
        let mut watcher = client.watch::<Service>(Select::default());
        while let Some(events) = watcher.next_batch().await {
            let mut state = self.0.state.lock().expect("no holder panics");
            state.made.clear();
            for event in events {
                match event {
                    client::Event::Restarted(services) => {
                        state.services =
                            services.into_iter().map(|service| (key(&service), service)).collect();
                    }
                    client::Event::Applied(service) => {
                        state.services.insert(key(&service), service);
                    }
                    client::Event::Deleted(service) => {
                        state.services.remove(&key(&service));
                    }
                }
            }
            drop(state);
            self.0.synced.send_replace(true);
        }
    }

    /// Returns once the services that there are have been seen.
    pub(crate) async fn synced(&self) {
        // The sender lives as long as `self`.
        if self.0.synced.subscribe().wait_for(|synced| *synced).await.is_err() {
            tracing::debug!("services are no longer followed");
        }
    }

    /// The variables of the namespace's services, if `links`, and of the API's.
    pub(crate) fn variables(&self, namespace: &str, links: bool) -> Variables {
        let mut state = self.0.state.lock().expect("no holder panics");
        let asked = links.then(|| namespace.to_owned());
        if let Some(made) = state.made.get(&asked) {
            return made.clone();
        }
        let api = (API_SERVICE.0.to_owned(), API_SERVICE.1.to_owned());
        let mut variables = BTreeMap::new();
        if let Some(service) = state.services.get(&api) {
            variables.extend(service_env::variables(service));
        }
        if links {
            let from = (namespace.to_owned(), String::new());
            let here = state.services.range(from..).take_while(|((ns, _), _)| ns == namespace);
            for (_, service) in here {
                variables.extend(service_env::variables(service));
            }
        }
        let made: Variables = Arc::new(variables.into_iter().collect());
        state.made.insert(asked, made.clone());
        made
    }

    #[cfg(test)]
    pub(crate) fn set(&self, services: Vec<Service>) {
        let mut state = self.0.state.lock().unwrap();
        state.made.clear();
        state.services = services.into_iter().map(|s| (key(&s), Arc::new(s))).collect();
    }
}

fn key(service: &Service) -> (String, String) {
    let text = |part: &Option<String>| part.clone().unwrap_or_default();
    (text(&service.metadata.namespace), text(&service.metadata.name))
}
