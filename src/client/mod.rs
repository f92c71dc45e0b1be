//! The same verbs, typed: how the control plane's own parts speak to the API.
//!
//! [`Client`] is in process: it hands [`Request`] values to the one door, so nothing it does bypasses
//! defaults, validation or authorization, and objects cross without being encoded. [`remote`] speaks
//! HTTPS, for commands about a cluster that runs elsewhere.

pub mod remote;

mod recorder;
mod watcher;

use std::sync::Arc;

use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Binding, Namespace, ObjectReference, Pod, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use crate::apiserver::authn::User;
use crate::apiserver::request::{LogOptions, LogStream};
use crate::apiserver::{Api, Body, Error, Options, Request, Response, Verb};
use crate::kind::{self, Kind, Object, Subresource, Typed, object};
use crate::store::Record;

pub use recorder::Recorder;
pub use watcher::{AnyWatcher, Event, Watcher};

pub type Result<T> = std::result::Result<T, Error>;

/// A user's typed door to the API; cheap to clone.
#[derive(Clone)]
pub struct Client {
    api: Api,
    user: Arc<User>,
}

/// A list at one revision.
pub struct Listing<K> {
    pub revision: u64,
    pub items: Vec<Arc<K>>,
}

/// How to delete.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    pub grace_period_seconds: Option<i64>,
    /// Delete only the object with this uid.
    pub uid: Option<String>,
    pub propagation_policy: Option<&'static str>,
}

/// Which objects a list or watch is about.
#[derive(Clone, Debug, Default)]
pub struct Select {
    pub namespace: Option<String>,
    pub label_selector: Option<String>,
    pub field_selector: Option<String>,
}

impl Select {
    fn options(&self) -> Options {
        Options {
            label_selector: self.label_selector.clone(),
            field_selector: self.field_selector.clone(),
            ..Options::default()
        }
    }
}

impl Client {
    /// A door for `user`.
    #[must_use]
    pub fn new(api: Api, user: User) -> Self {
        Self { api, user: Arc::new(user) }
    }

    pub async fn get<K: Typed>(&self, namespace: &str, name: &str) -> Result<Arc<K>> {
        let request = self.request(Verb::Get, kind::of::<K>(), namespace, Some(name));
        self.one(request).await
    }

    pub async fn list<K: Typed>(&self, select: &Select) -> Result<Listing<K>> {
        let kind = kind::of::<K>();
        let list = self.list_records(kind, select).await?;
        let items = list.1.iter().map(|record| typed(record, kind)).collect();
        Ok(Listing { revision: list.0, items })
    }

    pub async fn create<K: Typed>(&self, object: K) -> Result<Arc<K>> {
        let namespace = object.metadata().namespace.clone().unwrap_or_default();
        let mut request = self.request(Verb::Create, kind::of::<K>(), &namespace, None);
        request.body = Body::Object(Box::new(object));
        self.one(request).await
    }

    /// PUT; the object's `resourceVersion`, if set, is a precondition.
    pub async fn update<K: Typed>(&self, object: K) -> Result<Arc<K>> {
        self.put(object, None).await
    }

    /// PUT of the `status` subresource.
    pub async fn update_status<K: Typed>(&self, object: K) -> Result<Arc<K>> {
        self.put(object, Some(Subresource::Status)).await
    }

    /// PUT of `namespaces/finalize`.
    pub async fn finalize_namespace(&self, namespace: Namespace) -> Result<Arc<Namespace>> {
        self.put(namespace, Some(Subresource::Finalize)).await
    }

    /// JSON merge patch of the main resource, or of `subresource`.
    pub async fn merge_patch<K: Typed>(
        &self,
        namespace: &str,
        name: &str,
        subresource: Option<Subresource>,
        patch: Value,
    ) -> Result<Arc<K>> {
        let mut request = self.request(Verb::Patch, kind::of::<K>(), namespace, Some(name));
        request.subresource = subresource;
        request.body = Body::Value { media_type: "application/merge-patch+json", value: patch };
        self.one(request).await
    }

    pub async fn delete<K: Typed>(&self, namespace: &str, name: &str, options: DeleteOptions) -> Result<()> {
        self.delete_any(kind::of::<K>(), namespace, name, options).await.map(drop)
    }

    /// An object of any kind.
    pub async fn get_any(&self, kind: &'static Kind, namespace: &str, name: &str) -> Result<Arc<dyn Object>> {
        let request = self.request(Verb::Get, kind, namespace, Some(name));
        match self.answer(request).await? {
            Response::Record { record, .. } => Ok(decoded(&record, kind)),
            Response::Object { object, .. } => Ok(Arc::from(object)),
            _ => unreachable!("a get is answered with an object"),
        }
    }

    /// Creates an object of any kind; its name, which may have been generated, and its revision.
    pub async fn create_any(&self, kind: &'static Kind, object: Box<dyn Object>) -> Result<(String, u64)> {
        let namespace = object.metadata().namespace.clone().unwrap_or_default();
        let mut request = self.request(Verb::Create, kind, &namespace, None);
        request.body = Body::Object(object);
        let response = self.answer(request).await?;
        let name = match &response {
            Response::Record { record, .. } => record.key.name.to_string(),
            Response::Object { object, .. } => object.metadata().name.clone().unwrap_or_default(),
            _ => String::new(),
        };
        Ok((name, revision(&response)))
    }

    /// PUT of an object of any kind, or of a subresource of it; its revision.
    pub async fn update_any(
        &self,
        kind: &'static Kind,
        object: Box<dyn Object>,
        subresource: Option<Subresource>,
    ) -> Result<u64> {
        let (namespace, name) = (object.metadata().namespace.clone(), object.metadata().name.clone());
        let mut request = self.request(Verb::Update, kind, &namespace.unwrap_or_default(), name.as_deref());
        request.subresource = subresource;
        request.body = Body::Object(object);
        self.answer(request).await.map(|response| revision(&response))
    }

    /// Deletes an object of any kind; the revision at which it was marked or went.
    pub async fn delete_any(
        &self,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
        options: DeleteOptions,
    ) -> Result<u64> {
        let mut request = self.request(Verb::Delete, kind, namespace, Some(name));
        request.body = options.body();
        self.answer(request).await.map(|response| revision(&response))
    }

    /// Deletes everything of a kind in a namespace.
    pub async fn delete_collection(
        &self,
        kind: &'static Kind,
        namespace: &str,
        options: DeleteOptions,
    ) -> Result<()> {
        let mut request = self.request(Verb::DeleteCollection, kind, namespace, None);
        request.body = options.body();
        self.api.handle(request).await.map(drop)
    }

    /// JSON merge patch of an object of any kind; its revision.
    pub async fn merge_patch_any(
        &self,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
        patch: Value,
    ) -> Result<u64> {
        let mut request = self.request(Verb::Patch, kind, namespace, Some(name));
        request.body = Body::Value { media_type: "application/merge-patch+json", value: patch };
        self.answer(request).await.map(|response| revision(&response))
    }

    /// Names and objects of any kind in a namespace; `""` is all of them.
    pub async fn list_keys(
        &self,
        kind: &'static Kind,
        namespace: &str,
    ) -> Result<Vec<(String, Arc<dyn Object>)>> {
        let select =
            Select { namespace: (!namespace.is_empty()).then(|| namespace.to_owned()), ..Select::default() };
        let (_, records) = self.list_records(kind, &select).await?;
        Ok(records.iter().map(|record| (record.key.name.to_string(), decoded(record, kind))).collect())
    }

    /// Binds a pod to a node by the binding subresource; `uid` guards against a namesake.
    pub async fn bind(&self, namespace: &str, pod: &str, uid: &str, node: &str) -> Result<()> {
        let binding = Binding {
            metadata: ObjectMeta {
                namespace: Some(namespace.to_owned()),
                name: Some(pod.to_owned()),
                uid: Some(uid.to_owned()),
                ..ObjectMeta::default()
            },
            target: ObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Node".into()),
                name: Some(node.to_owned()),
                ..ObjectReference::default()
            },
        };
        let mut request = self.request(Verb::Create, kind::of::<Pod>(), namespace, Some(pod));
        request.subresource = Some(Subresource::Binding);
        request.body = Body::Object(Box::new(binding));
        self.api.handle(request).await.map(drop)
    }

    /// A token of a service account, in the status of the answer.
    pub async fn create_token(
        &self,
        namespace: &str,
        account: &str,
        request: TokenRequest,
    ) -> Result<TokenRequest> {
        let mut door = self.request(Verb::Create, kind::of::<ServiceAccount>(), namespace, Some(account));
        door.subresource = Some(Subresource::Token);
        door.body = Body::Object(Box::new(request));
        match self.answer(door).await? {
            Response::Object { object, .. } => {
                Ok(*object.into_any().downcast().expect("a TokenRequest is answered with one"))
            }
            _ => unreachable!("a TokenRequest is answered with one"),
        }
    }

    /// Asks the queue of a Job, or what is in it (`apiserver/handle/queue.rs` says what there is to ask).
    pub async fn queue(&self, namespace: &str, job: &str, ask: Option<Value>) -> Result<Value> {
        let verb = if ask.is_some() { Verb::Create } else { Verb::Get };
        let mut request = self.request(verb, kind::of::<Job>(), namespace, Some(job));
        request.subresource = Some(Subresource::Queue);
        if let Some(value) = ask {
            request.body = Body::Value { media_type: "application/json", value };
        }
        match self.answer(request).await? {
            Response::Document(document) => Ok(document),
            _ => unreachable!("a queue answers with a document"),
        }
    }

    /// The log of a pod's container, as `pods/log` gives it.
    pub async fn logs(&self, namespace: &str, pod: &str, options: LogOptions) -> Result<LogStream> {
        let mut request = self.request(Verb::Get, kind::of::<Pod>(), namespace, Some(pod));
        request.subresource = Some(Subresource::Log);
        request.options.log = options;
        match self.answer(request).await? {
            Response::Text(log) => Ok(log),
            _ => unreachable!("a log is answered with text"),
        }
    }

    /// Everything selected, now and from now on.
    #[must_use]
    pub fn watch<K: Typed>(&self, select: Select) -> Watcher<K> {
        Watcher::new(self.watch_any(kind::of::<K>(), select))
    }

    /// As [`Client::watch`], for a kind known only at run time.
    #[must_use]
    pub fn watch_any(&self, kind: &'static Kind, select: Select) -> AnyWatcher {
        AnyWatcher::new(self.clone(), kind, select)
    }

    async fn put<K: Typed>(&self, object: K, subresource: Option<Subresource>) -> Result<Arc<K>> {
        let meta = object.metadata();
        let (namespace, name) = (meta.namespace.clone().unwrap_or_default(), meta.name.clone());
        let mut request = self.request(Verb::Update, kind::of::<K>(), &namespace, name.as_deref());
        request.subresource = subresource;
        request.body = Body::Object(Box::new(object));
        self.one(request).await
    }

    async fn list_records(&self, kind: &'static Kind, select: &Select) -> Result<(u64, Vec<Arc<Record>>)> {
        let namespace = select.namespace.clone().unwrap_or_default();
        let mut request = self.request(Verb::List, kind, &namespace, None);
        request.options = select.options();
        match self.answer(request).await? {
            Response::List(list) => Ok((list.revision, list.records)),
            _ => unreachable!("a list is answered with a list"),
        }
    }

    /// The object that a request answers with.
    async fn one<K: Typed>(&self, request: Request) -> Result<Arc<K>> {
        let kind = request.kind;
        match self.answer(request).await? {
            Response::Record { record, .. } => Ok(typed(&record, kind)),
            Response::Object { object, .. } => {
                Ok(Arc::new(*object.into_any().downcast().expect("the answer is of the kind asked for")))
            }
            _ => unreachable!("the verb is answered with an object"),
        }
    }

    /// The answer without its warnings, which are for people.
    async fn answer(&self, request: Request) -> Result<Response> {
        match self.api.handle(request).await? {
            Response::Warned { response, .. } | Response::Accepted(response) => Ok(*response),
            response => Ok(response),
        }
    }

    fn request(&self, verb: Verb, kind: &'static Kind, namespace: &str, name: Option<&str>) -> Request {
        Request {
            user: User::clone(&self.user),
            verb,
            kind,
            subresource: None,
            namespace: (kind.is_namespaced() && !namespace.is_empty()).then(|| namespace.to_owned()),
            name: name.map(str::to_owned),
            options: Options::default(),
            body: Body::Empty,
        }
    }
}

impl DeleteOptions {
    fn body(&self) -> Body {
        let mut value = json!({ "kind": "DeleteOptions", "apiVersion": "v1" });
        if let Some(seconds) = self.grace_period_seconds {
            value["gracePeriodSeconds"] = json!(seconds);
        }
        if let Some(uid) = &self.uid {
            value["preconditions"] = json!({ "uid": uid });
        }
        if let Some(policy) = self.propagation_policy {
            value["propagationPolicy"] = json!(policy);
        }
        Body::Value { media_type: "application/json", value }
    }
}

/// The revision of what a write answers with: of the write, or an older one if it changed nothing.
fn revision(answer: &Response) -> u64 {
    match answer {
        Response::Record { record, .. } => record.revision,
        Response::Deleted { revision, .. } => *revision,
        Response::Object { object, .. } => {
            let text = object.metadata().resource_version.as_deref().unwrap_or_default();
            text.parse().unwrap_or_default()
        }
        Response::Warned { response, .. } | Response::Accepted(response) => revision(response),
        Response::List(_)
        | Response::Watch(_)
        | Response::Status(_)
        | Response::Text(_)
        | Response::Stream(_)
        | Response::Document(_)
        | Response::Proxy(_)
        | Response::History(_) => 0,
    }
}

/// The decoded object of a stored record.
fn decoded(record: &Record, kind: &Kind) -> Arc<dyn Object> {
    record.object(|json| {
        kind::strategy::decode_stored(kind.strategy, json).expect("the store holds what this program encoded")
    })
}

fn typed<K: Typed>(record: &Record, kind: &Kind) -> Arc<K> {
    object::downcast_arc(decoded(record, kind)).expect("a kind's records hold objects of its type")
}

/// How Events name an object; `field_path` such as `spec.containers{web}` names a part.
#[must_use]
pub fn reference<K: Typed>(object: &K, field_path: Option<String>) -> ObjectReference {
    let meta = object.metadata();
    ObjectReference {
        api_version: Some(K::API_VERSION.to_owned()),
        kind: Some(K::KIND.to_owned()),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path,
    }
}
