//! Streams that a request becomes: of programs in pods, and to their ports (BEHAVIOURS 8.7). No HTTP here;
//! [`channel`] and [`spdy`] say how streams share one connection.

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::net::TcpStream;

use super::request::LogStream;
use super::status::Error;

pub mod channel;
pub mod spdy;

/// What is to be done with a connection once it is the client's and ours alone.
pub enum Streaming {
    /// A program's standard streams.
    Program(Opening),
    /// Ports of a pod.
    Ports(Ports),
}

/// Opens the streams; nothing has begun before it is awaited.
pub type Opening = BoxFuture<'static, Result<Session, Error>>;

/// A program's standard streams. Dropping this ends what was begun for it.
pub struct Session {
    /// None if nobody reads it. Dropping it is the end of the input.
    pub stdin: Option<Box<dyn Input>>,
    pub stdout: Option<LogStream>,
    pub stderr: Option<LogStream>,
    /// How it ended, once both outputs have.
    pub ended: BoxFuture<'static, Ended>,
}

/// Takes what a client sends to a program.
#[async_trait]
pub trait Input: Send {
    /// Waits until the program has room for `bytes`; false once it reads no more.
    async fn write(&self, bytes: Bytes) -> bool;
}

/// How a program ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    pub code: i32,
    /// What there is to say about it, such as a trap; printed among its errors.
    pub text: Option<String>,
}

/// Connections to ports of a pod.
pub struct Ports {
    /// The pod's name and uid, for messages.
    pub pod: String,
    pub uid: String,
    /// Those named by the request; other protocols name them later.
    pub ports: Vec<u16>,
    pub dial: Dial,
}

/// Connects to a port.
pub type Dial = Arc<dyn Fn(u16) -> BoxFuture<'static, io::Result<TcpStream>> + Send + Sync>;

impl Ports {
    /// What the client is told of a connection that failed, in upstream's words.
    #[must_use]
    pub fn failure(&self, port: u16, why: &str) -> String {
        format!("error forwarding port {port} to pod {}, uid {}: {why}", self.pod, self.uid)
    }
}
