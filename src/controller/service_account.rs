//! Gives every namespace its `default` ServiceAccount, again if it is deleted (BEHAVIOURS 11.1).

use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{Action, Change, Controller, Decision, Key, KindRef, Moment, Snapshot, snapshot};

const DEFAULT: &str = "default";

pub struct ServiceAccounts;

impl Controller for ServiceAccounts {
    fn name(&self) -> &'static str {
        "service_account"
    }

    fn wakes(&self, _seen: &Snapshot, change: &Change<'_>, wake: &mut dyn FnMut(Key)) {
        wake_namespace::<ServiceAccount>(change, DEFAULT, wake);
    }

    fn reconcile(&self, seen: &Snapshot, key: &Key, _moment: Moment) -> Decision {
        if !is_active(seen, &key.name) || seen.get::<ServiceAccount>(&key.name, DEFAULT).is_some() {
            return Decision::default();
        }
        let account = ServiceAccount {
            metadata: ObjectMeta {
                namespace: Some(key.name.clone()),
                name: Some(DEFAULT.into()),
                ..ObjectMeta::default()
            },
            ..ServiceAccount::default()
        };
        Decision::act(vec![Action::Create(KindRef::of::<ServiceAccount>(), Box::new(account))])
    }
}

/// Wakes a namespace when it changes or when its object `name` of type `K` does.
pub(super) fn wake_namespace<K: crate::kind::Typed>(
    change: &Change<'_>,
    name: &str,
    wake: &mut dyn FnMut(Key),
) {
    let object = change.object();
    let namespaces = KindRef::of::<Namespace>();
    if change.kind == namespaces {
        wake(Key::to(namespaces, object));
    } else if change.kind == KindRef::of::<K>() && snapshot::name(object) == name {
        wake(Key::new(namespaces, "", snapshot::namespace(object)));
    }
}

/// Whether the namespace is there and not going away.
pub(super) fn is_active(seen: &Snapshot, namespace: &str) -> bool {
    seen.get::<Namespace>("", namespace).is_some_and(|n| n.metadata.deletion_timestamp.is_none())
}
