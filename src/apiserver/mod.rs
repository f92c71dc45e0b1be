//! Who may say it: the one door through which every reader and writer goes.

pub mod authn;
pub mod authz;
pub mod decode;
pub mod discovery;
pub mod handle;
pub mod health;
pub mod http;
pub mod kubeconfig;
pub mod merge_keys;
pub mod metrics;
pub mod negotiate;
pub mod openapi;
pub mod path;
pub mod pki;
pub mod protobuf;
pub mod render;
pub mod request;
pub mod status;
pub mod stream;
pub mod table;
pub mod token;
pub mod version;
pub mod watch;

mod admission;
mod continue_token;
mod filter;
mod history;
mod patch;
mod strategic;
mod types;

pub use handle::{Api, ContainerUsage, NodeAccess, Parts, PodUsage, decoded};
pub use request::{Body, Options, Request, Response, Verb};
pub use status::Error;
pub use watch::{WatchEvent, WatchStream};
