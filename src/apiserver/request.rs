//! The whole API as values: what the door takes and gives. No HTTP here.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use tokio::net::TcpStream;

use super::authn::User;
use super::stream::Streaming;
use crate::kind::{Kind, Object, Subresource};
use crate::store::{History, Record};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
}

impl Verb {
    /// As rules and messages name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
        }
    }
}

/// One request, authenticated but not yet authorized.
#[derive(Debug)]
pub struct Request {
    pub user: User,
    pub verb: Verb,
    pub kind: &'static Kind,
    pub subresource: Option<Subresource>,
    /// `None` for cluster-scoped kinds, and for lists over all namespaces.
    pub namespace: Option<String>,
    pub name: Option<String>,
    pub options: Options,
    pub body: Body,
}

/// Query parameters, as given; the verbs judge them. An absent one is `None`, an empty one is kept.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub resource_version: Option<String>,
    pub resource_version_match: Option<String>,
    pub label_selector: Option<String>,
    pub field_selector: Option<String>,
    pub limit: Option<u64>,
    pub continue_token: Option<String>,
    pub timeout_seconds: Option<u64>,
    pub allow_watch_bookmarks: bool,
    pub send_initial_events: Option<bool>,
    pub dry_run: Vec<String>,
    pub field_validation: Option<String>,
    pub field_manager: Option<String>,
    pub force: Option<bool>,
    // For delete; a DeleteOptions body wins over these.
    pub grace_period_seconds: Option<i64>,
    pub propagation_policy: Option<String>,
    pub orphan_dependents: Option<bool>,
    pub log: LogOptions,
    pub streams: StreamOptions,
    /// What is asked of whoever is proxied to: empty, or with its first slash.
    pub proxy_path: String,
}

/// Parameters of `pods/exec`, `pods/attach` and `pods/portforward` (BEHAVIOURS 8.7).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamOptions {
    pub container: Option<String>,
    pub command: Vec<String>,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
    pub ports: Vec<u16>,
}

/// Parameters of `pods/log` (BEHAVIOURS 8.4).
#[derive(Clone, Debug, Default)]
pub struct LogOptions {
    pub container: Option<String>,
    pub follow: bool,
    pub previous: bool,
    pub since_seconds: Option<i64>,
    pub since_time: Option<jiff::Timestamp>,
    pub timestamps: bool,
    pub tail_lines: Option<u64>,
    pub limit_bytes: Option<u64>,
}

#[derive(Debug)]
pub enum Body {
    Empty,
    /// From the wire, JSON or YAML as the media type says (`application/json` if absent). Patches
    /// too: the media type names the patch.
    Bytes {
        media_type: Option<String>,
        bytes: Bytes,
    },
    /// From a component in this process: no encoding, no strict field checks.
    Object(Box<dyn Object>),
    /// A patch or DeleteOptions from a component in this process.
    Value {
        media_type: &'static str,
        value: serde_json::Value,
    },
}

/// What the door answers. Errors are [`super::Error`].
pub enum Response {
    /// A stored object; `created` makes it 201.
    Record {
        record: Arc<Record>,
        created: bool,
    },
    /// An object that was not stored: dry run, or virtual.
    Object {
        object: Box<dyn Object>,
        created: bool,
    },
    List(List),
    Watch(super::watch::WatchStream),
    /// `Success`, of a verb that has no object to show.
    Status(Status),
    /// `Success` of a deletion at once, and its revision.
    Deleted {
        status: Status,
        revision: u64,
    },
    /// Log text.
    Text(LogStream),
    /// Streams, to be opened once the connection is theirs.
    Stream(Streaming),
    /// The request is for somebody else, who is to be asked in its place.
    Proxy(Backend),
    /// JSON that is no object of a kind.
    Document(serde_json::Value),
    /// The versions of one object, at least one.
    History(History),
    /// An answer of 202: what was asked for is under way.
    Accepted(Box<Response>),
    /// With texts for `Warning:` headers.
    Warned {
        warnings: Vec<String>,
        response: Box<Response>,
    },
}

/// Whom a request is carried on to.
pub struct Backend {
    pub is_https: bool,
    pub address: SocketAddr,
    /// Nothing has begun before it is awaited.
    pub connection: BoxFuture<'static, io::Result<TcpStream>>,
}

/// A page of a list.
pub struct List {
    pub kind: &'static Kind,
    pub revision: u64,
    pub records: Vec<Arc<Record>>,
    pub continue_token: Option<String>,
    pub remaining: Option<u64>,
}

/// Pieces of log text, until the container ends or the reader goes.
pub type LogStream = std::pin::Pin<Box<dyn futures_util::Stream<Item = Bytes> + Send>>;
