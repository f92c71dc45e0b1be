//! Fills Secrets of type `kubernetes.io/service-account-token` with a token of their account, and deletes
//! those whose account is not there (BEHAVIOURS 10.13).

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};

use super::{Action, Change, Config, Controller, Decision, Index, Key, KindRef, Moment, Snapshot, snapshot};
use crate::apiserver::token::{Legacy, SigningKey};
use crate::kind::Object;
use crate::kind::secret::{SERVICE_ACCOUNT_NAME, SERVICE_ACCOUNT_TOKEN};

const SERVICE_ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";

/// Finds the Secrets of an account by `namespace/name`.
static BY_ACCOUNT: Index = Index {
    name: "token secrets by account",
    of: |object, give| {
        if let Some(account) = object.downcast_ref::<Secret>().and_then(account_of) {
            give(&format!("{}/{account}", snapshot::namespace(object)), 0);
        }
    },
};

/// The account that a Secret is to hold a token of.
fn account_of(secret: &Secret) -> Option<&str> {
    let is_token = secret.type_.as_deref() == Some(SERVICE_ACCOUNT_TOKEN);
    annotation(secret, SERVICE_ACCOUNT_NAME).filter(|_| is_token)
}

fn annotation<'a>(secret: &'a Secret, name: &str) -> Option<&'a str> {
    let value = secret.metadata.annotations.as_ref()?.get(name)?;
    Some(value.as_str()).filter(|value| !value.is_empty())
}

pub struct TokenSecrets {
    ca: ByteString,
    tokens: std::sync::Arc<SigningKey>,
}

impl TokenSecrets {
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self { ca: ByteString(config.ca_pem.clone().into_bytes()), tokens: config.tokens.clone() }
    }

    /// The Secret with all it is to have; `None` if it has.
    fn filled(&self, secret: &Secret, account: &ServiceAccount) -> Option<Secret> {
        let (namespace, name) = (snapshot::namespace(secret), snapshot::name(secret));
        let (account, uid) = (snapshot::name(account), snapshot::uid(account));
        let held = |key: &str| secret.data.as_ref().and_then(|data| data.get(key));
        let lacks = |key: &str| held(key).is_none_or(|value| value.0.is_empty());
        let (needs_ca, needs_token) = (held("ca.crt") != Some(&self.ca), lacks("token"));
        let knows = annotation(secret, SERVICE_ACCOUNT_UID) == Some(uid);
        if !needs_ca && !needs_token && !lacks("namespace") && knows {
            return None;
        }
        let mut new = secret.clone();
        let data = new.data.get_or_insert_default();
        data.insert("ca.crt".to_owned(), self.ca.clone());
        data.entry("namespace".to_owned())
            .and_modify(|value| {
                if value.0.is_empty() {
                    *value = ByteString(namespace.into());
                }
            })
            .or_insert_with(|| ByteString(namespace.into()));
        if needs_token {
            let token = self.tokens.sign(&Legacy::new(namespace, name, account, uid));
            data.insert("token".to_owned(), ByteString(token.into_bytes()));
        }
        let annotations = new.metadata.annotations.get_or_insert_default();
        annotations.insert(SERVICE_ACCOUNT_UID.to_owned(), uid.to_owned());
        Some(new)
    }
}

impl Controller for TokenSecrets {
    fn name(&self) -> &'static str {
        "token_secret"
    }

    fn indexes(&self) -> &'static [Index] {
        std::slice::from_ref(&BY_ACCOUNT)
    }

    fn wakes(&self, seen: &Snapshot, change: &Change<'_>, wake: &mut dyn FnMut(Key)) {
        let object = change.object();
        if object.downcast_ref::<Secret>().and_then(account_of).is_some() {
            wake(Key::to(change.kind, object));
        } else if object.downcast_ref::<ServiceAccount>().is_some() {
            let account = format!("{}/{}", snapshot::namespace(object), snapshot::name(object));
            for (kind, secret) in seen.indexed(BY_ACCOUNT.name, &account) {
                wake(Key::to(kind, &**secret));
            }
        }
    }

    fn reconcile(&self, seen: &Snapshot, key: &Key, _moment: Moment) -> Decision {
        let Some(secret) = seen.get::<Secret>(&key.namespace, &key.name) else { return Decision::default() };
        let Some(name) = account_of(secret).filter(|_| secret.metadata.deletion_timestamp.is_none()) else {
            return Decision::default();
        };
        // Another account of the same name is not the one that was named.
        let uid = annotation(secret, SERVICE_ACCOUNT_UID);
        let account = seen
            .get::<ServiceAccount>(&key.namespace, name)
            .filter(|account| uid.is_none_or(|uid| uid == snapshot::uid(*account)));
        let Some(account) = account else {
            let account = Key::new(KindRef::of::<ServiceAccount>(), &key.namespace, name);
            return Decision::act(vec![
                Action::RequireAbsent(account, uid.map(str::to_owned)),
                Action::Delete {
                    key: key.clone(),
                    uid: snapshot::uid(secret).to_owned(),
                    grace_period_seconds: None,
                    propagation_policy: None,
                },
            ]);
        };
        if secret.immutable == Some(true) {
            return Decision::default();
        }
        let update = |secret| Action::Update(key.kind, Box::new(secret) as Box<dyn Object>, None);
        Decision::act(self.filled(secret, account).map(update).into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;

    fn controller() -> TokenSecrets {
        TokenSecrets { ca: ByteString(b"ca".to_vec()), tokens: Arc::new(SigningKey::generate().unwrap()) }
    }

    fn secret(change: Value) -> Value {
        let mut secret = json!({
            "metadata": {
                "name": "s", "namespace": "n", "uid": "s-uid",
                "annotations": {"kubernetes.io/service-account.name": "a"},
            },
            "type": "kubernetes.io/service-account-token",
        });
        json_patch::merge(&mut secret, &change);
        secret
    }

    fn snapshot_of(secret: Value, account_uid: Option<&str>) -> Snapshot {
        let mut seen = Snapshot::new([&BY_ACCOUNT]);
        let secret: Secret = serde_json::from_value(secret).unwrap();
        seen.insert(KindRef::of::<Secret>(), Arc::new(secret));
        if let Some(uid) = account_uid {
            let account = json!({"metadata": {"name": "a", "namespace": "n", "uid": uid}});
            let account: ServiceAccount = serde_json::from_value(account).unwrap();
            seen.insert(KindRef::of::<ServiceAccount>(), Arc::new(account));
        }
        seen
    }

    fn decide(controller: &TokenSecrets, seen: &Snapshot) -> Vec<Action> {
        let key = Key::new(KindRef::of::<Secret>(), "n", "s");
        let moment = Moment { now: jiff::Timestamp::UNIX_EPOCH, waited: std::time::Duration::ZERO };
        controller.reconcile(seen, &key, moment).actions
    }

    #[test]
    fn a_token_secret_is_filled_and_kept_full() {
        // BEHAVIOURS 10.13.
        let controller = controller();
        let filled = |given: Value| -> Option<Secret> {
            let mut actions = decide(&controller, &snapshot_of(given, Some("a-uid")));
            assert!(actions.len() < 2 && !format!("{actions:?}").contains("token\""));
            actions.pop().map(|action| match action {
                Action::Update(_, object, None) => *object.into_any().downcast().unwrap(),
                other => panic!("{other:?}"),
            })
        };
        let full = filled(secret(json!({"data": {"more": "eA=="}}))).unwrap();
        let data = full.data.clone().unwrap();
        assert_eq!(
            data.keys().map(String::as_str).collect::<Vec<_>>(),
            ["ca.crt", "more", "namespace", "token"]
        );
        assert!(data["ca.crt"].0 == b"ca" && data["namespace"].0 == b"n");
        assert_eq!(annotation(&full, SERVICE_ACCOUNT_UID), Some("a-uid"));
        let token = String::from_utf8(data["token"].0.clone()).unwrap();
        let claims = controller.tokens.open(&token).unwrap();
        assert_eq!(Legacy::read(&claims), Some(Legacy::new("n", "s", "a", "a-uid")));
        let full = serde_json::to_value(full).unwrap();
        assert!(filled(full.clone()).is_none(), "nothing to do");
        for (what, change) in [
            ("no token", json!({"data": {"token": null}})),
            ("an empty token", json!({"data": {"token": ""}})),
            ("another authority", json!({"data": {"ca.crt": "eA=="}})),
            ("no namespace", json!({"data": {"namespace": null}})),
            ("no uid", json!({"metadata": {"annotations": {"kubernetes.io/service-account.uid": null}}})),
        ] {
            let mut broken = full.clone();
            json_patch::merge(&mut broken, &change);
            let mended = filled(broken).unwrap_or_else(|| panic!("{what} is mended")).data.unwrap();
            let same_token = mended["token"].0 == token.as_bytes();
            assert_eq!(same_token, !what.ends_with("token"), "{what}");
            assert!(controller.tokens.open(std::str::from_utf8(&mended["token"].0).unwrap()).is_ok());
        }
        for other in [
            json!({"type": "Opaque"}),
            json!({"immutable": true}),
            json!({"metadata": {"deletionTimestamp": "2025-01-01T00:00:00Z"}}),
        ] {
            assert!(filled(secret(other)).is_none());
        }
    }

    #[test]
    fn a_token_secret_goes_with_its_account() {
        let named = json!({"metadata": {"annotations": {"kubernetes.io/service-account.uid": "a-uid"}}});
        for (secret, account, expected) in [
            (secret(json!({})), None, "require no a None, delete s s-uid"),
            (secret(named.clone()), None, "require no a Some(\"a-uid\"), delete s s-uid"),
            (secret(named.clone()), Some("new"), "require no a Some(\"a-uid\"), delete s s-uid"),
            (secret(named), Some("a-uid"), "update"),
        ] {
            let actions = decide(&controller(), &snapshot_of(secret, account));
            let lines = actions.iter().map(|action| match action {
                Action::RequireAbsent(key, uid) => format!("require no {} {uid:?}", key.name),
                Action::Delete { key, uid, .. } => format!("delete {} {uid}", key.name),
                Action::Update(..) => "update".to_owned(),
                other => panic!("{other:?}"),
            });
            assert_eq!(lines.collect::<Vec<_>>().join(", "), expected);
        }
    }

    #[test]
    fn accounts_wake_their_secrets() {
        let seen = snapshot_of(secret(json!({})), Some("a-uid"));
        let wakes = |kind: KindRef, name: &str| {
            let object = seen.get_any(kind, "n", name).unwrap();
            let mut woken = Vec::new();
            let change = Change { kind, old: None, new: Some(object) };
            controller().wakes(&seen, &change, &mut |key| woken.push(key.name));
            woken
        };
        assert_eq!(wakes(KindRef::of::<Secret>(), "s"), ["s"]);
        assert_eq!(wakes(KindRef::of::<ServiceAccount>(), "a"), ["s"]);
    }
}
