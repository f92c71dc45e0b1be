//! Who may say it: the one door through which every reader and writer goes.

pub mod authn;
pub mod handle;
pub mod request;
pub mod status;
pub mod watch;

pub use handle::{Api, NodeAccess, Parts};
pub use request::{Body, Options, Request, Response, Verb};
pub use status::Error;
pub use watch::{WatchEvent, WatchStream};
