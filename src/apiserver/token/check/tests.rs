use serde_json::{Value, json};

use super::*;
use crate::kind;

/// What is, as `collection/namespace/name`, and the moment.
struct World {
    objects: BTreeMap<String, Value>,
    now: i64,
    audiences: Vec<String>,
}

const NOW: i64 = 1_000;

/// An account with a pod, a Secret with its token, and a node.
fn world() -> World {
    let meta = |uid: &str| json!({"metadata": {"uid": uid}});
    World {
        objects: BTreeMap::from([
            ("serviceaccounts/n/a".to_owned(), meta("a-uid")),
            ("pods/n/p".to_owned(), meta("p-uid")),
            ("secrets/n/s".to_owned(), json!({"metadata": {"uid": "s-uid"}, "data": {"token": "dG9rZW4="}})),
            ("nodes//node-0".to_owned(), meta("node-uid")),
        ]),
        now: NOW,
        audiences: vec![ISSUER.to_owned()],
    }
}

impl World {
    fn without(mut self, key: &str) -> Self {
        self.objects.remove(key).unwrap();
        self
    }

    fn with(mut self, key: &str, change: Value) -> Self {
        json_patch::merge(self.objects.get_mut(key).unwrap(), &change);
        self
    }

    fn at(self, now: i64) -> Self {
        Self { now, ..self }
    }

    fn for_audiences(self, audiences: &[&str]) -> Self {
        Self { audiences: audiences.iter().map(|one| (*one).to_owned()).collect(), ..self }
    }

    /// What the claims prove in this world, as `name [extra]`, or why nothing.
    fn judge(&self, claims: &[u8]) -> String {
        let find = |collection: &str, namespace: &str, name: &str| -> Option<Arc<dyn Object>> {
            let value = self.objects.get(&format!("{collection}/{namespace}/{name}"))?;
            let kind = kind::ALL.iter().find(|kind| kind.plural == collection)?;
            Some(Arc::from(kind.strategy.decode_value(value.clone()).unwrap()))
        };
        match check("token", claims, &self.audiences, &find, Timestamp::from_second(self.now).unwrap()) {
            Err(refusal) => refusal.to_string(),
            Ok(account) => {
                assert!(
                    account.user.groups
                        == ["system:serviceaccounts", "system:serviceaccounts:n", "system:authenticated"]
                );
                let extra = account.user.extra.iter().map(|(name, values)| {
                    format!(
                        " {}={}",
                        name.strip_prefix("authentication.kubernetes.io/").unwrap(),
                        values.join(",")
                    )
                });
                let extra: String = extra.collect();
                format!(
                    "{} {} for {}{extra}",
                    account.user.name,
                    account.user.uid,
                    account.audiences.join(",")
                )
            }
        }
    }
}

fn reference(name: &str) -> Option<Ref> {
    let uid = if name == "node-0" { "node-uid".to_owned() } else { format!("{name}-uid") };
    Some(Ref { name: name.to_owned(), uid })
}

fn claims(change: impl FnOnce(&mut Claims)) -> Vec<u8> {
    let bound = Bound { namespace: "n".into(), serviceaccount: reference("a").unwrap(), ..Bound::default() };
    let mut claims = Claims::new(bound, vec![ISSUER.to_owned(), "vault".to_owned()], "id".into(), NOW, 600);
    change(&mut claims);
    serde_json::to_vec(&claims).unwrap()
}

const OK: &str =
    "system:serviceaccount:n:a a-uid for https://kubernetes.default.svc.cluster.local credential-id=JTI=id";

#[test]
fn a_token_lives_as_long_as_what_it_names() {
    // BEHAVIOURS 10.15, 18.1.
    let bare = || claims(|_| {});
    let pod =
        || claims(|claims| (claims.bound.pod, claims.bound.node) = (reference("p"), reference("node-0")));
    let secret = || claims(|claims| claims.bound.secret = reference("s"));
    let node = || claims(|claims| claims.bound.node = reference("node-0"));
    let gone = "[invalid bearer token, service account token has been invalidated]";
    let deleted = |at: &str| json!({"metadata": {"deletionTimestamp": at}});
    for (world, claims, expected) in [
        (world(), bare(), OK.to_owned()),
        (world(), pod(), format!("{OK} node-name=node-0 node-uid=node-uid pod-name=p pod-uid=p-uid")),
        (world(), secret(), OK.to_owned()),
        (world(), node(), format!("{OK} node-name=node-0 node-uid=node-uid")),
        // The account.
        (
            world().without("serviceaccounts/n/a"),
            bare(),
            "[invalid bearer token, serviceaccounts \"a\" not found]".into(),
        ),
        (
            world().with("serviceaccounts/n/a", json!({"metadata": {"uid": "new"}})),
            bare(),
            "[invalid bearer token, service account UID (new) does not match claim (a-uid)]".into(),
        ),
        // What it is bound to.
        (world().without("pods/n/p"), pod(), gone.into()),
        (
            world().with("pods/n/p", json!({"metadata": {"uid": "new"}})),
            pod(),
            "[invalid bearer token, pod UID (new) does not match service account pod ref claim (p-uid)]"
                .into(),
        ),
        (
            world().without("nodes//node-0"),
            pod(),
            format!("{OK} node-name=node-0 node-uid=node-uid pod-name=p pod-uid=p-uid"),
        ),
        (world().without("nodes//node-0"), node(), gone.into()),
        (world().without("secrets/n/s"), secret(), gone.into()),
        // Deletion counts a minute after the time it was set to.
        (world().with("pods/n/p", deleted("1970-01-01T00:15:39Z")), pod(), gone.into()),
        (
            world().with("pods/n/p", deleted("1970-01-01T00:15:40Z")),
            pod(),
            format!("{OK} node-name=node-0 node-uid=node-uid pod-name=p pod-uid=p-uid"),
        ),
        // Time.
        (world().at(NOW + 599), bare(), OK.to_owned()),
        (world().at(NOW + 600), bare(), "[invalid bearer token, service account token has expired]".into()),
        (
            world().at(NOW - 1),
            bare(),
            "[invalid bearer token, service account token is not valid yet]".into(),
        ),
        // Audiences.
        (world().for_audiences(&["vault", "x"]), bare(), OK.replace(ISSUER, "vault")),
        (
            world().for_audiences(&["x"]),
            bare(),
            format!(
                "[invalid bearer token, token audiences [\"{ISSUER}\", \"vault\"] is invalid for the target audiences [\"x\"]]"
            ),
        ),
        // Claims that do not fit together, and of others.
        (
            world(),
            claims(|claims| claims.sub = username("n", "b")),
            "[invalid bearer token, service account token claims are not of one account]".into(),
        ),
        (world(), claims(|claims| claims.iss = "https://elsewhere".into()), "invalid bearer token".into()),
        (world(), b"{}".to_vec(), "invalid bearer token".into()),
    ] {
        assert_eq!(world.judge(&claims), expected, "{}", String::from_utf8_lossy(&claims));
    }
}

#[test]
fn a_token_in_a_secret_is_the_secrets() {
    // BEHAVIOURS 10.13.
    let claims = serde_json::to_vec(&Legacy::new("n", "s", "a", "a-uid")).unwrap();
    for (world, expected) in [
        (world(), OK.strip_suffix(" credential-id=JTI=id").unwrap()),
        (world().at(i64::from(u32::MAX)), OK.strip_suffix(" credential-id=JTI=id").unwrap()),
        (
            world().without("secrets/n/s"),
            "[invalid bearer token, service account token has been invalidated]",
        ),
        (
            world().with("secrets/n/s", json!({"data": {"token": "bmV3"}})),
            "[invalid bearer token, token does not match server's copy]",
        ),
        (
            world().with("serviceaccounts/n/a", json!({"metadata": {"uid": "new"}})),
            "[invalid bearer token, service account UID (new) does not match claim (a-uid)]",
        ),
        (
            world().for_audiences(&["vault"]),
            "[invalid bearer token, token audiences [\"https://kubernetes.default.svc.cluster.local\"] is invalid for the target audiences [\"vault\"]]",
        ),
    ] {
        assert_eq!(world.judge(&claims), expected);
    }
}
