//! Publishes the cluster's certificate authority in every namespace, for pods that speak to the API
//! (BEHAVIOURS 11.1): created, put right when edited, created again when deleted.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::service_account::{is_active, wake_namespace};
use super::{Action, Change, Config, Controller, Decision, Key, KindRef, Moment, Snapshot};

const NAME: &str = "kube-root-ca.crt";
const DESCRIPTION_KEY: &str = "kubernetes.io/description";
/// As kube-controller-manager writes it.
const DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.";

pub struct RootCa {
    data: BTreeMap<String, String>,
}

impl RootCa {
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self { data: BTreeMap::from([("ca.crt".to_owned(), config.ca_pem.clone())]) }
    }
}

impl Controller for RootCa {
    fn name(&self) -> &'static str {
        "root_ca"
    }

    fn wakes(&self, _seen: &Snapshot, change: &Change<'_>, wake: &mut dyn FnMut(Key)) {
        wake_namespace::<ConfigMap>(change, NAME, wake);
    }

    fn reconcile(&self, seen: &Snapshot, key: &Key, _moment: Moment) -> Decision {
        if !is_active(seen, &key.name) {
            return Decision::default();
        }
        let kind = KindRef::of::<ConfigMap>();
        match seen.get::<ConfigMap>(&key.name, NAME) {
            None => {
                let metadata = ObjectMeta {
                    namespace: Some(key.name.clone()),
                    name: Some(NAME.into()),
                    ..ObjectMeta::default()
                };
                let map = self.filled(ConfigMap { metadata, ..ConfigMap::default() });
                Decision::act(vec![Action::Create(kind, Box::new(map))])
            }
            Some(map) if self.is_right(map) => Decision::default(),
            Some(map) => Decision::act(vec![Action::Update(kind, Box::new(self.filled(map.clone())), None)]),
        }
    }
}

impl RootCa {
    fn is_right(&self, map: &ConfigMap) -> bool {
        let described =
            map.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(DESCRIPTION_KEY));
        described && map.data.as_ref() == Some(&self.data)
    }

    fn filled(&self, mut map: ConfigMap) -> ConfigMap {
        map.data = Some(self.data.clone());
        let annotations = map.metadata.annotations.get_or_insert_default();
        annotations.entry(DESCRIPTION_KEY.into()).or_insert_with(|| DESCRIPTION.into());
        map
    }
}
