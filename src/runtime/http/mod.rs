//! Containers that are handlers: the node serves HTTP on the pod's address, and calls the image for each
//! request (`wasi:http/incoming-handler`). [`outgoing`] is what guests of all kinds ask others for.
//!
//! An image that exports the handler needs no `main`: its container is Running once its port is listened on,
//! and runs until it is stopped. A [`connection`] speaks HTTP/1.1 or HTTP/2 without TLS, whichever the client
//! begins with; each of its requests is an [`exchange`] with one instance, which is made for that request or
//! was kept from another ([`Instances`]). A guest that traps ends its own request, with 500 if it has not
//! answered yet, and nobody else's.
//!
//! A stop lets nobody new in, lets the requests under way end, says GOAWAY, and then exits with 0.

mod body;
mod complaints;
mod connection;
mod exchange;
mod gate;
pub(super) mod outgoing;
mod server;
mod stream;

use std::time::Duration;

pub(super) use server::{Parts, Server, bind};

#[cfg(test)]
mod tests;

/// How a container is served, if its image is a handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Http {
    /// Where, on the pod's address.
    pub port: u16,
    pub instances: Instances,
    /// The longest body of a request in bytes; `None` is no bound.
    pub body_bytes_max: Option<u64>,
    /// How long a request may take, from the instance's start to the end of its answer; `None` is no bound.
    pub time_max: Option<Duration>,
    /// A line for each request in the container's log.
    pub access_log: bool,
}

/// The port of a container that names none.
pub const PORT_DEFAULT: u16 = 8080;

impl Default for Http {
    fn default() -> Self {
        Self {
            port: PORT_DEFAULT,
            instances: Instances::Fresh,
            body_bytes_max: None,
            time_max: None,
            access_log: false,
        }
    }
}

/// Which instance answers a request. None ever has two requests at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Instances {
    /// One made for it, which knows nothing of any other request.
    #[default]
    Fresh,
    /// One that has answered others before, if one is free; at most so many live at a time. One that traps is
    /// replaced.
    Kept(u16),
}

/// Requests of one container that are being answered at a time by fresh instances.
const FRESH_MAX: u16 = 256;
/// The most instances of one container that are kept.
pub const KEPT_MAX: u16 = 256;
/// Requests that wait for an instance; the next is answered with 503.
const WAITING_MAX: usize = 1_024;
