//! Whether a token's claims still hold, from what is: a pure function.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;

use super::{Bound, Claims, ISSUER, Legacy, Ref, Refusal, groups, username};
use crate::apiserver::authn::User;
use crate::kind::Object;

/// How long the token of an object that is being deleted still counts after the time its deletion was
/// set to (upstream's leeway).
const DELETED_LEEWAY: SignedDuration = SignedDuration::from_secs(60);

/// Looks a stored object up by collection, namespace and name.
pub type Find<'a> = &'a dyn Fn(&str, &str, &str) -> Option<Arc<dyn Object>>;

/// Whom a token proves, and the audiences asked for that it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    pub user: User,
    pub audiences: Vec<String>,
}

/// The account of the claims (JSON, signature checked) in `token`, for one of `audiences`.
///
/// A token dies with its account, the pod, Secret or Node it is bound to, and at `exp`. There is one
/// clock, so unlike upstream, which forgives a minute, `exp` is exact.
///
/// # Errors
/// Why it does not hold.
pub fn check(
    token: &str,
    claims: &[u8],
    audiences: &[String],
    find: Find<'_>,
    now: Timestamp,
) -> Result<Account, Refusal> {
    if let Some(claims) = Claims::read(claims) {
        bound(&claims, audiences, find, now)
    } else if let Some(claims) = Legacy::read(claims) {
        legacy(token, &claims, audiences, find, now)
    } else {
        Err(Refusal::Foreign)
    }
}

fn void<T>(why: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::Void(why.into()))
}

fn bound(claims: &Claims, audiences: &[String], find: Find<'_>, now: Timestamp) -> Result<Account, Refusal> {
    let audiences = common(&claims.aud, audiences)?;
    if now.as_second() >= claims.exp {
        return void("service account token has expired");
    }
    if now.as_second() < claims.nbf {
        return void("service account token is not valid yet");
    }
    let Bound { namespace, node, pod, secret, serviceaccount } = &claims.bound;
    if claims.sub != username(namespace, &serviceaccount.name) {
        return void("service account token claims are not of one account");
    }
    account(find, namespace, serviceaccount, now)?;
    let mut extra = BTreeMap::new();
    let mut add = |name: &str, value: String| {
        extra.insert(format!("authentication.kubernetes.io/{name}"), vec![value]);
    };
    add("credential-id", format!("JTI={}", claims.jti));
    if let Some(secret) = secret {
        alive(find, "secrets", namespace, secret, "secret", now)?;
    }
    if let Some(pod) = pod {
        alive(find, "pods", namespace, pod, "pod", now)?;
        add("pod-name", pod.name.clone());
        add("pod-uid", pod.uid.clone());
    }
    if let Some(node) = node {
        // Beside a pod it only tells where that runs.
        if pod.is_none() {
            alive(find, "nodes", "", node, "node", now)?;
        }
        add("node-name", node.name.clone());
        if !node.uid.is_empty() {
            add("node-uid", node.uid.clone());
        }
    }
    Ok(Account { user: user(namespace, serviceaccount, extra), audiences })
}

fn legacy(
    token: &str,
    claims: &Legacy,
    audiences: &[String],
    find: Find<'_>,
    now: Timestamp,
) -> Result<Account, Refusal> {
    let Legacy { namespace, secret, account: name, uid, sub, .. } = claims;
    // It says no audience, and so is for the API only.
    let audiences = common(&[ISSUER.to_owned()], audiences)?;
    if *sub != username(namespace, name) {
        return void("service account token claims are not of one account");
    }
    let Some(found) = find("secrets", namespace, secret).filter(|found| !is_deleted(&**found, now)) else {
        return void("service account token has been invalidated");
    };
    let copy = found.downcast_ref::<Secret>().and_then(|secret| secret.data.as_ref()?.get("token"));
    if copy.is_none_or(|copy| copy.0 != token.as_bytes()) {
        return void("token does not match server's copy");
    }
    let reference = Ref { name: name.clone(), uid: uid.clone() };
    account(find, namespace, &reference, now)?;
    Ok(Account { user: user(namespace, &reference, BTreeMap::new()), audiences })
}

/// The audiences of a token among those that are asked for.
fn common(own: &[String], asked: &[String]) -> Result<Vec<String>, Refusal> {
    let common: Vec<String> = own.iter().filter(|one| asked.contains(one)).cloned().collect();
    if common.is_empty() {
        return void(format!("token audiences {own:?} is invalid for the target audiences {asked:?}"));
    }
    Ok(common)
}

fn account(find: Find<'_>, namespace: &str, reference: &Ref, now: Timestamp) -> Result<(), Refusal> {
    let Ref { name, uid } = reference;
    let Some(found) = find("serviceaccounts", namespace, name) else {
        return void(format!("serviceaccounts {name:?} not found"));
    };
    if is_deleted(&*found, now) {
        return void(format!("service account {namespace}/{name} has been deleted"));
    }
    let own = found.metadata().uid.as_deref().unwrap_or_default();
    if own == uid {
        Ok(())
    } else {
        void(format!("service account UID ({own}) does not match claim ({uid})"))
    }
}

fn alive(
    find: Find<'_>,
    collection: &str,
    namespace: &str,
    reference: &Ref,
    what: &str,
    now: Timestamp,
) -> Result<(), Refusal> {
    let Some(found) = find(collection, namespace, &reference.name).filter(|found| !is_deleted(&**found, now))
    else {
        return void("service account token has been invalidated");
    };
    let (own, uid) = (found.metadata().uid.as_deref().unwrap_or_default(), &reference.uid);
    if own == uid {
        Ok(())
    } else {
        void(format!("{what} UID ({own}) does not match service account {what} ref claim ({uid})"))
    }
}

fn is_deleted(object: &dyn Object, now: Timestamp) -> bool {
    let at = object.metadata().deletion_timestamp.as_ref();
    at.is_some_and(|at| now.duration_since(at.0) > DELETED_LEEWAY)
}

fn user(namespace: &str, account: &Ref, extra: BTreeMap<String, Vec<String>>) -> User {
    let mut groups = groups(namespace);
    groups.push("system:authenticated".to_owned());
    User { name: username(namespace, &account.name), uid: account.uid.clone(), groups, extra }
}

#[cfg(test)]
mod tests;
