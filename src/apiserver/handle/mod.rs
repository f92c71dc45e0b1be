//! The one door: every verb, once, for every kind.
//!
//! `handle` authorizes a request and hands it to its verb. Each verb reads a record, decides on
//! plain values, and commits with the expectation that the record is still the one it read. No verb
//! knows a kind; what is special about some lies in [`super::admission`] and in the kinds' strategies.
//!
//! `metadata.managedFields` is not kept yet: what clients write of it is dropped. Who owns which field
//! comes with server-side apply, which until then is answered with 415.

mod create;
mod delete;
mod evict;
mod get;
mod history;
mod list;
mod log;
mod patch;
mod pod_binding;
mod proxy;
mod queue;
mod review;
mod scale;
mod stream;
mod token;
mod trigger;
mod update;
mod usage;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use tokio::net::TcpStream;

use super::authn::User;
use super::authz;
use super::request::{LogOptions, LogStream, Request, Response, StreamOptions, Verb};
use super::status::Error;
use super::stream::{Dial, Opening};
use super::token::SigningKey;
use crate::clock::Clock;
use crate::kind::address_plan::AddressPlan;
use crate::kind::field::{Errors, Path};
use crate::kind::{self, Kind, Object, Subresource};
use crate::random::Random;
use crate::store::{Change, CommitError, Expect, Key, Range, Record, Store, Write};
use update::Part;

pub use usage::{ContainerUsage, PodUsage};

/// How long a read waits for a revision that has not happened yet (BEHAVIOURS 1.2).
const REVISION_WAIT: Duration = Duration::from_secs(3);

/// How often a write that names no version is tried again when others write the same object.
const WRITE_TRIES_MAX: usize = 64;

/// What the API needs from nodes; `cluster.rs` plugs it in.
#[async_trait]
pub trait NodeAccess: Send + Sync {
    /// The log of `container` (already checked to exist in the pod's spec) as its node has it.
    async fn logs(&self, pod: &Pod, container: &str, options: &LogOptions) -> Result<LogStream, Error>;

    /// A further run beside `container`, which is checked to run; it starts when the future is awaited.
    fn exec(&self, _pod: &Pod, _container: &str, _options: &StreamOptions) -> Result<Opening, Error> {
        Err(Error::bad_request("exec is not supported by this node"))
    }

    /// The streams of `container`'s own run.
    fn attach(&self, _pod: &Pod, _container: &str, _options: &StreamOptions) -> Result<Opening, Error> {
        Err(Error::bad_request("attach is not supported by this node"))
    }

    /// Connects to ports of the pod, which is checked to run.
    fn dial(&self, _pod: &Pod) -> Result<Dial, Error> {
        Err(Error::bad_request("portforward is not supported by this node"))
    }

    /// Connects to an address of the cluster, for requests that are carried on.
    fn connect(&self, _to: SocketAddr) -> BoxFuture<'static, io::Result<TcpStream>> {
        Box::pin(async { Err(io::Error::other("this node makes no connections")) })
    }

    /// What these pods use, by their uids; nothing of those that do not run.
    async fn usage(&self, _pods: &[Arc<Pod>]) -> HashMap<String, PodUsage> {
        HashMap::new()
    }
}

/// The API of one cluster; cheap to clone.
#[derive(Clone)]
pub struct Api(Arc<Inner>);

struct Inner {
    store: Store,
    clock: Clock,
    random: Random,
    nodes: Arc<dyn NodeAccess>,
    tokens: Arc<SigningKey>,
    plan: AddressPlan,
    /// Held from choosing an address or port until it is committed, so that none is given twice.
    allocation: tokio::sync::Mutex<()>,
    /// Where the items of Jobs' queues are handed out.
    desk: queue::Desk,
}

/// What an [`Api`] is made of.
pub struct Parts {
    pub store: Store,
    pub clock: Clock,
    pub random: Random,
    pub nodes: Arc<dyn NodeAccess>,
    /// Signs the tokens of service accounts.
    pub tokens: Arc<SigningKey>,
    /// Where the services' addresses are from.
    pub plan: AddressPlan,
}

/// What a request is about.
struct Target {
    user: User,
    kind: &'static Kind,
    namespace: Option<String>,
    name: Option<String>,
}

impl Target {
    /// The URL's name; the router gives one to each verb on one object.
    fn name(&self) -> Result<&str, Error> {
        self.name
            .as_deref()
            .filter(|name| !name.is_empty())
            .ok_or_else(|| Error::method_not_allowed(self.kind))
    }

    fn key(&self, name: &str) -> Key {
        Key {
            collection: self.kind.collection(),
            namespace: self.namespace.as_deref().unwrap_or_default().into(),
            name: name.into(),
        }
    }

    fn range(&self) -> Range {
        Range { collection: self.kind.collection(), namespace: self.namespace.as_deref().map(Into::into) }
    }
}

/// The record's object in its stored form, decoded at most once in the record's life.
///
/// # Panics
/// If the record is not of `kind`, or the store returns other bytes than were committed.
#[must_use]
pub fn decoded(kind: &'static Kind, record: &Record) -> Arc<dyn Object> {
    record.object(|json| {
        kind::strategy::decode_stored(kind.stored_kind().strategy, json)
            .expect("a stored object was encoded by its own kind")
    })
}

impl Api {
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts { store, clock, random, nodes, tokens, plan } = parts;
        let (allocation, desk) = (tokio::sync::Mutex::default(), queue::Desk::default());
        Self(Arc::new(Inner { store, clock, random, nodes, tokens, plan, allocation, desk }))
    }

    /// The newest revision that readers can see.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.0.store.revision()
    }

    /// The user who bears `token`; `None` if it is not valid (BEHAVIOURS 18.1).
    #[must_use]
    pub fn bearer(&self, token: &str) -> Option<User> {
        self.0.bearer(token)
    }

    /// The keys by which others know the cluster's tokens, as a JSON Web Key Set.
    #[must_use]
    pub fn token_keys(&self) -> String {
        self.0.tokens.public_set()
    }

    /// Answers one request.
    pub async fn handle(&self, request: Request) -> Result<Response, Error> {
        let Request { user, verb, kind, subresource, namespace, name, options, body } = request;
        authz::authorize(&user, verb, kind, subresource, namespace.as_deref(), name.as_deref())?;
        let target = Target { user, kind, namespace, name };
        let api = &*self.0;
        match (subresource, verb) {
            (None, verb) if !kind.verbs.contains(&verb.name()) => Err(Error::method_not_allowed(kind)),
            (Some(subresource), _) if !kind.has(subresource) => Err(Error::unknown_resource()),
            (None, Verb::Get | Verb::List) if usage::is_usage(kind) => {
                api.usage(&target, verb, &options).await
            }
            (None | Some(Subresource::Status | Subresource::EphemeralContainers), Verb::Get) => {
                api.get(&target, &options).await
            }
            (None, Verb::List) => api.list(&target, &options).await,
            (None, Verb::Watch) => api.watch(&target, &options).await,
            (None, Verb::Create) if pod_binding::is_binding(kind) => api.bind(&target, &options, body).await,
            (None, Verb::Create) if review::is_review(kind) => api.review(&target, &options, body),
            (None, Verb::Create) => api.create(&target, &options, body).await,
            (None, Verb::Update) => api.update(&target, &options, body, Part::Main).await,
            (None, Verb::Patch) => api.patch(&target, &options, body, Part::Main).await,
            (None, Verb::Delete) => api.delete(&target, &options, body).await,
            (None, Verb::DeleteCollection) => api.delete_collection(&target, &options, body).await,
            (Some(Subresource::Status), Verb::Update) => {
                api.update(&target, &options, body, Part::Status).await
            }
            (Some(Subresource::Status), Verb::Patch) => {
                api.patch(&target, &options, body, Part::Status).await
            }
            (Some(Subresource::EphemeralContainers), Verb::Update) => {
                api.update(&target, &options, body, Part::EphemeralContainers).await
            }
            (Some(Subresource::EphemeralContainers), Verb::Patch) => {
                api.patch(&target, &options, body, Part::EphemeralContainers).await
            }
            (Some(Subresource::Finalize), Verb::Update) => {
                api.update(&target, &options, body, Part::Finalize).await
            }
            (Some(Subresource::Eviction), Verb::Create) => api.evict(&target, &options, body).await,
            (Some(Subresource::Binding), Verb::Create) => api.bind(&target, &options, body).await,
            (Some(Subresource::Queue), Verb::Get) => api.show_queue(&target),
            (Some(Subresource::Queue), Verb::Create) => api.use_queue(&target, body).await,
            (Some(Subresource::Trigger), Verb::Create) => api.trigger(&target, &options, body).await,
            (Some(Subresource::Token), Verb::Create) => api.make_token(&target, &options, body),
            (Some(Subresource::Scale), Verb::Get) => api.scale(&target, &options).await,
            (Some(Subresource::Scale), Verb::Update) => api.update_scale(&target, &options, body).await,
            (Some(Subresource::Scale), Verb::Patch) => api.patch_scale(&target, &options, body).await,
            (Some(Subresource::Log), Verb::Get) => api.log(&target, &options).await,
            (Some(Subresource::Exec), Verb::Get | Verb::Create) => api.exec(&target, &options),
            (Some(Subresource::Attach), Verb::Get | Verb::Create) => api.attach(&target, &options),
            (Some(Subresource::PortForward), Verb::Get | Verb::Create) => api.port_forward(&target, &options),
            (Some(Subresource::Proxy), _) => api.proxy(&target, verb, &options),
            (Some(Subresource::History), Verb::Get) => api.history(&target, &options).await,
            (Some(_), _) => Err(Error::method_not_allowed(kind)),
        }
    }
}

impl Inner {
    /// Wall time in whole seconds, as objects carry it.
    fn now(&self) -> Timestamp {
        let now = self.clock.now();
        Timestamp::from_second(now.as_second()).unwrap_or(now)
    }

    fn find(&self, target: &Target) -> Result<Arc<Record>, Error> {
        let name = target.name()?;
        self.store.get(&target.key(name)).ok_or_else(|| Error::not_found(target.kind, name))
    }

    /// Returns once `revision` has happened; 504 if it does not.
    async fn wait_for(&self, revision: u64) -> Result<(), Error> {
        if self.store.revision() >= revision {
            return Ok(());
        }
        let reached = self.clock.timeout(REVISION_WAIT, self.store.reached(revision)).await;
        reached.map_err(|_| Error::too_large_resource_version(revision, self.store.revision()))
    }

    /// Stores `object` at `key`, if that is as expected and `also` holds.
    async fn put(
        &self,
        key: &Key,
        expect: Expect,
        object: Box<dyn Object>,
        encoded: kind::Encoded,
        also: Option<Write>,
    ) -> Result<Arc<Record>, CommitError> {
        let change = Change::Put { object, encoded };
        let mut writes = vec![Write { key: key.clone(), expect, change }];
        writes.extend(also);
        let records = self.store.commit(writes).await?;
        Ok(records.into_iter().next().flatten().expect("a commit returns a record for a put"))
    }

    /// Deletes what is at `key` if it still is `record`.
    async fn remove(&self, record: &Record) -> Result<Arc<Record>, CommitError> {
        let expect = Expect::Revision(record.revision);
        let write = Write { key: record.key.clone(), expect, change: Change::Delete };
        let records = self.store.commit(vec![write]).await?;
        Ok(records.into_iter().next().flatten().expect("a commit returns a record for a deletion"))
    }
}

/// Whether nothing is to be stored (BEHAVIOURS 2.5); `options` is the kind of the request's options.
fn dry_run(values: &[String], options: &str) -> Result<bool, Error> {
    let mut errors = Errors::default();
    for value in values.iter().filter(|value| *value != "All") {
        errors.unsupported(&Path::new("dryRun"), value, &["All"]);
    }
    if errors.is_empty() { Ok(!values.is_empty()) } else { Err(Error::invalid_options(options, &errors)) }
}

/// A `resourceVersion` parameter; `None` if absent or empty.
fn parse_revision(text: Option<&str>) -> Result<Option<u64>, Error> {
    text.filter(|text| !text.is_empty())
        .map(|text| {
            text.parse().map_err(|_| {
                let why = format!("strconv.ParseUint: parsing {text:?}: invalid syntax");
                Error::bad_request(format!("invalid resource version: {text:?}: {why}"))
            })
        })
        .transpose()
}

/// The collection's rule that an object lies in the namespace of its URL (BEHAVIOURS 2.2).
fn match_namespace(target: &Target, object: &mut dyn Object) -> Result<(), Error> {
    let meta = object.metadata_mut();
    let given = meta.namespace.as_deref().unwrap_or_default();
    match target.namespace.as_deref().unwrap_or_default() {
        "" => meta.namespace = None,
        wanted if given == wanted => {}
        wanted if given.is_empty() => meta.namespace = Some(wanted.to_owned()),
        _ => {
            return Err(Error::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
    }
    Ok(())
}

/// A commit that failed for another reason than its expectations.
fn store_failed(error: &CommitError) -> Error {
    Error::internal(error)
}

fn warned(warnings: Vec<String>, response: Response) -> Response {
    if warnings.is_empty() { response } else { Response::Warned { warnings, response: Box::new(response) } }
}
