//! `serviceaccounts/token`: makes a token of an account (BEHAVIOURS 8.6).

use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestStatus};
use k8s_openapi::api::core::v1::{Node, Pod, Secret, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Inner, Target, decoded, dry_run, warned};
use crate::apiserver::authn::User;
use crate::apiserver::authz;
use crate::apiserver::decode::{self, Decoded, FieldValidation};
use crate::apiserver::request::{Body, Options, Response};
use crate::apiserver::status::Error;
use crate::apiserver::token::{self, Account, Bound, Claims, Ref, Refusal};
use crate::kind::field::{Errors, Path};
use crate::kind::{self, Kind, Object, Typed, object, token_request};
use crate::store::Key;

const OPTIONS: &str = "CreateOptions";

impl Inner {
    /// Answers with the request, and the token in its status.
    pub(super) fn make_token(
        &self,
        target: &Target,
        options: &Options,
        body: Body,
    ) -> Result<Response, Error> {
        // A token is stored nowhere, so a dry run differs in nothing.
        dry_run(&options.dry_run, OPTIONS)?;
        let validation = FieldValidation::parse(options.field_validation.as_deref(), OPTIONS)?;
        let kind = &token_request::KIND;
        let Decoded { mut object, warnings } = decode::decode(kind, body, validation)?;
        kind.strategy.set_defaults(&mut *object);
        let name = target.name()?;
        let record = self.find(target)?;
        let account = decoded(target.kind, &record);
        let errors = match_names(&*object, target.namespace.as_deref().unwrap_or_default(), name);
        if !errors.is_empty() {
            return Err(Error::invalid(kind, name, &errors));
        }
        let errors = kind.strategy.validate(&*object);
        if !errors.is_empty() {
            return Err(Error::invalid(kind, "", &errors));
        }
        let (Ok(mut request), Some(account)) =
            (object.into_any().downcast::<TokenRequest>(), account.downcast_ref::<ServiceAccount>())
        else {
            return Err(Error::internal("a kind decodes its own objects"));
        };
        if request.spec.audiences.is_empty() {
            request.spec.audiences = vec![token::ISSUER.to_owned()];
        }
        let bound = self.bound(target, account, request.spec.bound_object_ref.as_ref())?;
        let now = self.now();
        let life = request.spec.expiration_seconds.unwrap_or_default();
        let claims =
            Claims::new(bound, request.spec.audiences.clone(), self.random.uid(), now.as_second(), life);
        let expires = jiff::Timestamp::from_second(claims.exp).map_err(Error::internal)?;
        request.metadata.name = Some(name.to_owned());
        request.metadata.namespace.clone_from(&target.namespace);
        request.metadata.creation_timestamp = Some(Time(now));
        request.status = Some(TokenRequestStatus {
            token: self.tokens.sign(&claims),
            expiration_timestamp: Time(expires),
        });
        Ok(warned(warnings, Response::Object { object: request, created: true }))
    }

    /// What the token is to be bound to, as it is now.
    fn bound(
        &self,
        target: &Target,
        account: &ServiceAccount,
        reference: Option<&BoundObjectReference>,
    ) -> Result<Bound, Error> {
        let namespace = target.namespace.as_deref().unwrap_or_default();
        let mut bound = Bound {
            namespace: namespace.to_owned(),
            serviceaccount: reference_to(account),
            ..Bound::default()
        };
        if let Some(node) = authz::node_of(&target.user) {
            self.check_node_token(target, node, reference)?;
        }
        let Some(reference) = reference else { return Ok(bound) };
        let kind = reference.kind.as_deref().unwrap_or_default();
        let api_version = reference.api_version.as_deref().unwrap_or_default();
        let name = reference.name.as_deref().unwrap_or_default();
        let found = match (api_version, kind) {
            ("v1", "Pod") => {
                let pod = self.existing::<Pod>(namespace, name)?;
                let spec = pod.spec.as_ref();
                let runs_as = spec.and_then(|spec| spec.service_account_name.as_deref());
                if runs_as != account.metadata.name.as_deref() {
                    return Err(Error::bad_request(format!(
                        "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
                        bound.serviceaccount.name
                    )));
                }
                let node = spec.and_then(|spec| spec.node_name.as_deref()).filter(|node| !node.is_empty());
                bound.node = node.map(|node| {
                    let gone = || Ref { name: node.to_owned(), uid: String::new() };
                    self.existing::<Node>("", node).map_or_else(|_| gone(), |node| reference_to(&*node))
                });
                bound.pod.insert(reference_to(&*pod))
            }
            ("v1", "Secret") => {
                bound.secret.insert(reference_to(&*self.existing::<Secret>(namespace, name)?))
            }
            ("v1", "Node") => bound.node.insert(reference_to(&*self.existing::<Node>("", name)?)),
            _ => {
                return Err(Error::bad_request(format!(
                    "cannot bind token to object of type {api_version}, Kind={kind}; Pod, Secret and Node of v1 can be bound to"
                )));
            }
        };
        let asked = reference.uid.as_deref().unwrap_or_default();
        if asked.is_empty() || asked == found.uid {
            return Ok(bound);
        }
        let message = format!(
            "Operation cannot be fulfilled on {kind} {name:?}: the UID in the bound object reference ({asked}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        Err(Error::new(409, "Conflict", message))
    }

    /// A node makes tokens for the accounts of its pods, bound to those (BEHAVIOURS 18.3).
    fn check_node_token(
        &self,
        target: &Target,
        node: &str,
        reference: Option<&BoundObjectReference>,
    ) -> Result<(), Error> {
        let forbidden =
            |why: &str| Err(Error::forbidden(target.kind, target.name.as_deref().unwrap_or_default(), why));
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let is_pod = |one: &&BoundObjectReference| {
            one.api_version.as_deref() == Some("v1") && one.kind.as_deref() == Some("Pod")
        };
        let Some(reference) = reference.filter(is_pod).filter(|one| !text(&one.name).is_empty()) else {
            return forbidden("node requested token not bound to a pod");
        };
        if text(&reference.uid).is_empty() {
            return forbidden("node requested token with a pod binding without a uid");
        }
        let namespace = target.namespace.as_deref().unwrap_or_default();
        let pod = self.existing::<Pod>(namespace, &text(&reference.name))?;
        if pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node) {
            return Ok(());
        }
        forbidden("node requested token bound to a pod scheduled on a different node")
    }

    fn existing<K: Typed>(&self, namespace: &str, name: &str) -> Result<std::sync::Arc<K>, Error> {
        let kind = kind::of::<K>();
        let key = key(kind, namespace, name);
        let record = self.store.get(&key).ok_or_else(|| Error::not_found(kind, name))?;
        object::downcast_arc(decoded(kind, &record))
            .ok_or_else(|| Error::internal("a kind's type is its own"))
    }

    /// Whom `token` proves, to one of `audiences`.
    pub(super) fn check_token(&self, token: &str, audiences: &[String]) -> Result<Account, Refusal> {
        let claims = self.tokens.open(token)?;
        let find = |collection: &str, namespace: &str, name: &str| {
            let kind = kind::by_path("", "v1", collection)?;
            Some(decoded(kind, &*self.store.get(&key(kind, namespace, name))?))
        };
        token::check(token, &claims, audiences, &find, self.clock.now())
    }

    /// The user whose token it is, for a request to the API.
    pub(super) fn bearer(&self, token: &str) -> Option<User> {
        match self.check_token(token, &[token::ISSUER.to_owned()]) {
            Ok(account) => Some(account.user),
            Err(why) => {
                tracing::debug!(%why, "a bearer token is not valid");
                None
            }
        }
    }
}

fn key(kind: &Kind, namespace: &str, name: &str) -> Key {
    Key { collection: kind.collection(), namespace: namespace.into(), name: name.into() }
}

fn reference_to<K: Typed>(object: &K) -> Ref {
    let meta = object.metadata();
    Ref { name: meta.name.clone().unwrap_or_default(), uid: meta.uid.clone().unwrap_or_default() }
}

/// Names in the body are the account's, if there are any.
fn match_names(request: &dyn Object, namespace: &str, name: &str) -> Errors {
    let mut errors = Errors::default();
    let meta = request.metadata();
    let path = Path::new("metadata");
    for (field, given, wanted) in [("name", &meta.name, name), ("namespace", &meta.namespace, namespace)] {
        if let Some(given) = given.as_deref().filter(|given| !given.is_empty() && *given != wanted) {
            let why = format!("must match the service account {field} if specified");
            errors.invalid(&path.child(field), given, &why);
        }
    }
    errors
}
