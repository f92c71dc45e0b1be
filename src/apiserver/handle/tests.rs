//! The verbs against a real store in memory.

mod delete;
mod evictions;
mod history;
mod list;
mod pods;
mod queue;
mod scale;
mod tokens;
mod watch;
mod write;

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use super::*;
use crate::apiserver::request::{Body, Options};
use crate::apiserver::watch::{WatchEvent, WatchStream};

/// Only tests whether it is asked.
struct NoNodes;

#[async_trait]
impl NodeAccess for NoNodes {
    async fn logs(&self, _: &Pod, container: &str, _: &LogOptions) -> Result<LogStream, Error> {
        let text = Bytes::from(format!("log of {container}"));
        Ok(Box::pin(futures_util::stream::iter([text])))
    }
}

/// An API with the namespace `n`, its `default` account, and short ways to speak to it.
struct World {
    api: Api,
    clock: Clock,
}

impl World {
    async fn new() -> Self {
        let clock = Clock::starting_at("2025-01-01T00:00:00.7Z".parse().unwrap());
        let parts = Parts {
            store: Store::ephemeral(clock),
            clock,
            random: Random::from_seed(1),
            nodes: Arc::new(NoNodes),
            tokens: Arc::new(SigningKey::generate().unwrap()),
            plan: AddressPlan::default(),
        };
        let world = Self { api: Api::new(parts), clock };
        world.create("namespaces", json!({"metadata": {"name": "n"}})).await.unwrap();
        world.create("serviceaccounts", json!({"metadata": {"name": "default"}})).await.unwrap();
        world
    }

    fn request(&self, verb: Verb, plural: &str, name: Option<&str>, body: Value) -> Request {
        let (plural, subresource) = plural.split_once('/').unwrap_or((plural, ""));
        let kind = kind::ALL.iter().copied().find(|kind| kind.plural == plural).unwrap();
        // Those that the kind lacks too, to see them refused.
        let subresources = [
            Subresource::Status,
            Subresource::Binding,
            Subresource::Eviction,
            Subresource::Log,
            Subresource::Finalize,
            Subresource::History,
            Subresource::Token,
            Subresource::Trigger,
            Subresource::Scale,
            Subresource::Queue,
            Subresource::EphemeralContainers,
        ];
        Request {
            user: User::admin(),
            verb,
            kind,
            subresource: subresources.into_iter().find(|one| one.name() == subresource),
            namespace: kind.is_namespaced().then(|| "n".to_owned()),
            name: name.map(str::to_owned),
            options: Options::default(),
            body: if body.is_null() {
                Body::Empty
            } else {
                Body::Bytes { media_type: None, bytes: body.to_string().into() }
            },
        }
    }

    async fn send(&self, request: Request) -> Result<Value, Error> {
        self.api.handle(request).await.map(value)
    }

    async fn create(&self, plural: &str, body: Value) -> Result<Value, Error> {
        self.send(self.request(Verb::Create, plural, None, body)).await
    }

    async fn get(&self, plural: &str, name: &str) -> Result<Value, Error> {
        self.send(self.request(Verb::Get, plural, Some(name), Value::Null)).await
    }

    async fn update(&self, plural: &str, body: Value) -> Result<Value, Error> {
        let name = body["metadata"]["name"].as_str().map(str::to_owned);
        self.send(self.request(Verb::Update, plural, name.as_deref(), body)).await
    }

    async fn patch(&self, plural: &str, name: &str, media_type: &str, body: Value) -> Result<Value, Error> {
        let mut request = self.request(Verb::Patch, plural, Some(name), Value::Null);
        request.body =
            Body::Bytes { media_type: Some(media_type.to_owned()), bytes: body.to_string().into() };
        self.send(request).await
    }

    async fn delete(&self, plural: &str, name: &str, options: Value) -> Result<Value, Error> {
        self.send(self.request(Verb::Delete, plural, Some(name), options)).await
    }

    async fn watch(&self, plural: &str, options: Options) -> Result<WatchStream, Error> {
        let mut request = self.request(Verb::Watch, plural, None, Value::Null);
        request.options = options;
        match self.api.handle(request).await? {
            Response::Watch(stream) => Ok(stream),
            _ => panic!("a watch answers with a watch"),
        }
    }

    fn revision(&self) -> u64 {
        self.api.0.store.revision()
    }
}

/// What a client would read.
fn value(response: Response) -> Value {
    match response {
        Response::Record { record, .. } => serde_json::from_slice(&record.json).unwrap(),
        Response::Object { object, .. } => object.to_value(),
        Response::Status(status) | Response::Deleted { status, .. } => serde_json::to_value(status).unwrap(),
        Response::Accepted(response) => json!({"accepted": value(*response)}),
        Response::Warned { warnings, response } => {
            let mut value = value(*response);
            value["warnings"] = warnings.into();
            value
        }
        Response::List(list) => {
            let items: Vec<Value> =
                list.records.iter().map(|one| serde_json::from_slice(&one.json).unwrap()).collect();
            json!({
                "revision": list.revision,
                "continue": list.continue_token,
                "remaining": list.remaining,
                "items": items,
            })
        }
        Response::Text(_) => json!("text"),
        Response::Stream(_) => json!("stream"),
        Response::Document(document) => document,
        Response::History(history) => {
            let put = history.versions.iter().find_map(|version| match &version.content {
                crate::store::Content::Put(record) => Some(record.key.collection),
                crate::store::Content::Destroyed | crate::store::Content::Deleted => None,
            });
            let kind = kind::by_path("", "v1", put.unwrap_or("configmaps")).unwrap();
            let whole: Vec<u8> =
                crate::apiserver::history::pieces(kind, history).flatten().flatten().collect();
            serde_json::from_slice(&whole).unwrap()
        }
        Response::Watch(_) => panic!("watches are read by their own tests"),
        Response::Proxy(_) => panic!("what is carried on is read by tests of its own"),
    }
}

#[track_caller]
fn refused(result: Result<Value, Error>, code: u16, message: &str) {
    let error = result.unwrap_err();
    assert_eq!((error.code(), error.to_string().as_str()), (code, message));
}

fn map(name: &str) -> Value {
    json!({"metadata": {"name": name}})
}

/// Servers answer requests on tasks of a runtime with many threads.
#[tokio::test(start_paused = true)]
async fn an_answer_may_be_awaited_on_any_thread() {
    fn sent<T: Send>(future: T) -> T {
        future
    }
    let world = World::new().await;
    let request = world.request(Verb::DeleteCollection, "configmaps", None, Value::Null);
    assert!(sent(world.api.handle(request)).await.is_ok());
    let mut stream = world.watch("configmaps", Options::default()).await.unwrap();
    world.create("configmaps", map("a")).await.unwrap();
    assert_eq!(sent(stream.next()).await.unwrap().len(), 1);
}
