//! Requests that become streams: the handshake of a WebSocket, and who then speaks on it.
//!
//! SPDY as a protocol of its own is not offered: clients of the last years speak WebSocket first.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, StatusCode};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role, WebSocketConfig};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug};

use super::answer::Answer;
use super::body::Body;
use super::serve::Context;
use crate::apiserver::Error;
use crate::apiserver::metrics::Guard;
use crate::apiserver::stream::channel::{self, Protocol};
use crate::apiserver::stream::{Streaming, spdy};
use crate::clock::Clock;

mod ports;
mod program;

#[cfg(test)]
mod tests;

/// Streams at a time; more are told to come back. Each holds some 200 KiB when busy.
pub(super) const SESSIONS_MAX: usize = 1_000;
/// The largest message of a client: the Python client sends what it is given in one.
const MESSAGE_MAX: usize = 4 << 20;
/// What is gathered before it is written.
const WRITE_BUFFER: usize = 16 << 10;
/// Silence of ours after which the client is asked whether it is still there.
const PING_INTERVAL: Duration = Duration::from_secs(15);
/// Silence of the client after which it is not.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// The wait for the client's side of a closing handshake.
const CLOSE_MAX: Duration = Duration::from_secs(5);

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// What is spoken on the socket.
enum Spoken {
    Program(Protocol),
    Channels(Protocol),
    Tunnel,
}

/// Answers a request whose streams are ready to be opened; they are served when the client has the answer.
pub(super) fn answer(
    context: &Arc<Context>,
    parts: &Parts,
    streaming: Streaming,
    guard: Guard,
) -> Result<Answer, Error> {
    let headers = &parts.headers;
    let key = key(parts)?;
    let asked: Vec<&str> = words(headers, header::SEC_WEBSOCKET_PROTOCOL).collect();
    let (spoken, name) = choose(&asked, &streaming)?;
    let upgrade = parts.extensions.get::<OnUpgrade>().cloned();
    let upgrade = upgrade.ok_or_else(|| Error::bad_request("this connection cannot become a WebSocket"))?;
    let place = Arc::clone(&context.sessions).try_acquire_owned().map_err(|_| {
        let why = format!("{SESSIONS_MAX} streams are open already; try again later");
        Error::new(429, "TooManyRequests", why).with_retry_after(1)
    })?;

    let (clock, stop) = (context.clock, context.stop.clone());
    let serve = async move {
        let _held = (place, guard);
        match upgrade.await {
            Ok(upgraded) => {
                let config = WebSocketConfig::default()
                    .read_buffer_size(WRITE_BUFFER)
                    .write_buffer_size(WRITE_BUFFER)
                    .max_message_size(Some(MESSAGE_MAX))
                    .max_frame_size(Some(MESSAGE_MAX));
                let upgraded = TokioIo::new(upgraded);
                let socket = Socket::from_raw_socket(upgraded, Role::Server, Some(config)).await;
                serve(socket, spoken, streaming, clock, stop).await;
            }
            Err(error) => debug!(%error, "the client went before its streams were open"),
        }
    };
    tokio::spawn(serve.in_current_span());

    let mut answer = Answer::new(Body::empty());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let mut set = |header: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            answer.headers_mut().insert(header, value);
        }
    };
    set(header::UPGRADE, "websocket");
    set(header::CONNECTION, "Upgrade");
    set(header::SEC_WEBSOCKET_ACCEPT, &derive_accept_key(key.as_bytes()));
    if !name.is_empty() {
        set(header::SEC_WEBSOCKET_PROTOCOL, name);
    }
    Ok(answer)
}

async fn serve(socket: Socket, spoken: Spoken, streaming: Streaming, clock: Clock, stop: CancellationToken) {
    let (writer, reader) = socket.split();
    let (writer, reader) = (Writer { socket: writer, clock }, Reader { socket: reader, clock });
    match (streaming, spoken) {
        (Streaming::Program(opening), Spoken::Program(protocol) | Spoken::Channels(protocol)) => {
            program::serve(writer, reader, protocol, opening, stop).await;
        }
        (Streaming::Ports(ports), Spoken::Tunnel) => ports::tunnel(writer, reader, ports, stop).await,
        (Streaming::Ports(ports), Spoken::Channels(protocol) | Spoken::Program(protocol)) => {
            ports::channels(writer, reader, protocol, ports, stop).await;
        }
        (Streaming::Program(_), Spoken::Tunnel) => {}
    }
}

/// The key of a WebSocket's handshake.
fn key(parts: &Parts) -> Result<&str, Error> {
    let headers = &parts.headers;
    let names = |header, name: &str| words(headers, header).any(|word| word.eq_ignore_ascii_case(name));
    if !names(header::CONNECTION, "upgrade") || words(headers, header::UPGRADE).next().is_none() {
        return Err(Error::bad_request("Upgrade request required"));
    }
    if !names(header::UPGRADE, "websocket") {
        let asked: Vec<&str> = words(headers, header::UPGRADE).collect();
        return Err(Error::bad_request(format!(
            "unable to upgrade: {} is not served, WebSocket is: use kubectl 1.31 or later without \
             KUBECTL_REMOTE_COMMAND_WEBSOCKETS=false or KUBECTL_PORT_FORWARD_WEBSOCKETS=false",
            asked.join(", ")
        )));
    }
    if parts.method != Method::GET {
        return Err(Error::bad_request("unable to upgrade: a WebSocket begins with GET"));
    }
    if !names(header::SEC_WEBSOCKET_VERSION, "13") {
        return Err(Error::bad_request("unable to upgrade: Sec-WebSocket-Version must be 13"));
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY).and_then(|key| key.to_str().ok());
    key.ok_or_else(|| Error::bad_request("unable to upgrade: Sec-WebSocket-Key is missing"))
}

/// What is spoken, and its name for the answer.
fn choose(asked: &[&str], streaming: &Streaming) -> Result<(Spoken, &'static str), Error> {
    let refused = |there_are: Vec<&str>| {
        Error::bad_request(format!(
            "unable to upgrade: unable to negotiate protocol: client supports {asked:?}, server supports {there_are:?}"
        ))
    };
    let names = |protocols: &[Protocol]| -> Vec<&'static str> {
        protocols.iter().map(|one| one.name).filter(|name| !name.is_empty()).collect()
    };
    match streaming {
        Streaming::Program(_) => {
            let protocol = channel::choose(asked, channel::COMMAND);
            let protocol = protocol.ok_or_else(|| refused(names(channel::COMMAND)))?;
            Ok((Spoken::Program(protocol), protocol.name))
        }
        Streaming::Ports(_) if asked.contains(&spdy::PROTOCOL) => Ok((Spoken::Tunnel, spdy::PROTOCOL)),
        Streaming::Ports(ports) => {
            let there_are = || [&[spdy::PROTOCOL][..], &names(channel::PORTS)].concat();
            let protocol = channel::choose(asked, channel::PORTS).ok_or_else(|| refused(there_are()))?;
            if ports.ports.is_empty() {
                return Err(Error::bad_request("query parameter \"ports\" is required"));
            }
            if ports.ports.len() > ports::PORTS_MAX {
                let why = format!("at most {} ports may be forwarded at a time", ports::PORTS_MAX);
                return Err(Error::bad_request(why));
            }
            Ok((Spoken::Channels(protocol), protocol.name))
        }
    }
}

/// The words of a header that is a list.
fn words(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|word| !word.is_empty())
}

/// The client has gone.
struct Gone;

/// The half of a socket that writes.
struct Writer {
    socket: SplitSink<Socket, Message>,
    clock: Clock,
}

impl Writer {
    async fn send(&mut self, message: Message) -> Result<(), Gone> {
        self.socket.send(message).await.map_err(|_| Gone)
    }

    /// What `next` comes to, with pings while it takes long.
    async fn pinging<T>(&mut self, next: impl Future<Output = T>) -> Result<T, Gone> {
        let mut next = std::pin::pin!(next);
        loop {
            match self.clock.timeout(PING_INTERVAL, next.as_mut()).await {
                Ok(found) => return Ok(found),
                Err(_) => self.send(Message::Ping(Bytes::new())).await?,
            }
        }
    }

    /// Says goodbye, and waits until the client has done so too.
    async fn close(mut self, reader: &mut Reader, code: CloseCode) {
        let frame = CloseFrame { code, reason: "".into() };
        if self.send(Message::Close(Some(frame))).await.is_ok() {
            let said = async { while reader.next().await.is_ok() {} };
            self.clock.timeout(CLOSE_MAX, said).await.ok();
        }
    }
}

/// The half of a socket that reads.
struct Reader {
    socket: SplitStream<Socket>,
    clock: Clock,
}

impl Reader {
    /// The bytes of the next message.
    async fn next(&mut self) -> Result<Bytes, Gone> {
        loop {
            let next = self.clock.timeout(SILENCE_MAX, self.socket.next()).await.map_err(|_| Gone)?;
            match next {
                Some(Ok(Message::Binary(bytes))) => return Ok(bytes),
                Some(Ok(Message::Text(text))) => return Ok(text.into()),
                // The library answers pings by itself.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Close(_)) | Err(_)) | None => return Err(Gone),
            }
        }
    }
}
