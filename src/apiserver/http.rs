//! HTTPS: connections, and requests in and answers out of them. The only part that names an HTTP library.
//!
//! HTTP/1.1 and HTTP/2 over TLS. A request is read whole (up to a bound), turned into a
//! [`Request`](super::Request), handed to the one door, and its answer is written as it comes. What a
//! panic ends is one request.

mod answer;
mod body;
mod documents;
mod proxy;
mod serve;
mod tls;
mod trusting;
mod upgrade;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::debug;

pub use trusting::trusting;

use super::Api;
use super::pki::Pki;
use crate::clock::Clock;
use serve::Context;

/// Connections at a time; more wait in the system's queue. Each costs some 50 KiB.
const CONNECTIONS_MAX: u32 = 10_000;
/// A client that does not finish its handshake within this holds a place for nothing.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// For the head of a request, the wait for it on a kept connection included.
const HEAD_MAX: Duration = Duration::from_secs(90);
/// Silence after which an HTTP/2 client is asked whether it is still there, and the time it has to say so.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_MAX: Duration = Duration::from_secs(20);
/// Requests at a time on one HTTP/2 connection; an informer factory holds a watch for each kind.
const STREAMS_MAX: u32 = 250;
/// What a client may send ahead on one stream and one connection.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// The wait for requests under way when the server shuts down.
const SHUTDOWN_MAX: Duration = Duration::from_secs(2);
/// The pause after an error of the listening socket, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listening API server.
pub struct Server {
    address: SocketAddr,
    clock: Clock,
    places: Arc<Semaphore>,
    /// Ends watches and idle connections.
    stop: CancellationToken,
    /// Ends everything.
    kill: CancellationToken,
}

impl Server {
    /// Listens on `listen`; port 0 picks one.
    ///
    /// # Errors
    /// If the address cannot be had or the certificates cannot be used.
    pub async fn start(api: Api, pki: &Pki, listen: SocketAddr, clock: Clock) -> io::Result<Self> {
        let tls = Arc::new(tls::Tls::new(pki, clock).map_err(io::Error::other)?);
        let listener = TcpListener::bind(listen)
            .await
            .map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {listen}: {error}")))?;
        let address = listener.local_addr()?;
        let server = Self {
            address,
            clock,
            places: Arc::new(Semaphore::new(usize::try_from(CONNECTIONS_MAX).unwrap_or(usize::MAX))),
            stop: CancellationToken::new(),
            kill: CancellationToken::new(),
        };
        let acceptor = Acceptor {
            listener,
            tls,
            places: Arc::clone(&server.places),
            kill: server.kill.clone(),
            context: Arc::new(Context::new(api, clock, address, server.stop.clone())),
        };
        tokio::spawn(acceptor.run());
        Ok(server)
    }

    /// Where the server listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more connections, ends watches, waits for the other requests under way for up to two
    /// seconds, then closes what is left.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        let all = || self.places.acquire_many(CONNECTIONS_MAX);
        if self.clock.timeout(SHUTDOWN_MAX, all()).await.is_err() {
            self.kill.cancel();
            if self.clock.timeout(SHUTDOWN_MAX, all()).await.is_err() {
                debug!("connections outlived the server");
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
        self.kill.cancel();
    }
}

struct Acceptor {
    listener: TcpListener,
    tls: Arc<tls::Tls>,
    places: Arc<Semaphore>,
    kill: CancellationToken,
    context: Arc<Context>,
}

impl Acceptor {
    async fn run(self) {
        let stop = self.context.stop.clone();
        loop {
            let place = tokio::select! {
                () = stop.cancelled() => return,
                place = Arc::clone(&self.places).acquire_owned() => place,
            };
            let Ok(place) = place else { return };
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let connection = Connection {
                        tls: Arc::clone(&self.tls),
                        context: Arc::clone(&self.context),
                        kill: self.kill.clone(),
                        _place: place,
                    };
                    tokio::spawn(async move {
                        if let Err(error) = connection.serve(stream).await {
                            debug!(%peer, %error, "connection ended");
                        }
                    });
                }
                Err(error) => {
                    debug!(%error, "accept failed");
                    self.context.clock.sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

struct Connection {
    tls: Arc<tls::Tls>,
    context: Arc<Context>,
    kill: CancellationToken,
    _place: OwnedSemaphorePermit,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

impl Connection {
    async fn serve(self, stream: TcpStream) -> Result<(), Failure> {
        let Self { tls, context, kill, _place } = self;
        // Events are small and must not wait for more to come.
        stream.set_nodelay(true)?;
        let handshake = TlsAcceptor::from(Arc::clone(&tls.config)).accept(stream);
        let stop = context.stop.clone();
        let stream = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            stream = context.clock.timeout(HANDSHAKE_MAX, handshake) => stream??,
        };
        let (_, state) = stream.get_ref();
        let identity = Arc::new(tls.identity(state));
        let http2 = state.alpn_protocol() == Some(b"h2".as_slice());
        let _counted = context.metrics.connection();
        let service = service_fn(move |request| {
            let (context, identity) = (Arc::clone(&context), Arc::clone(&identity));
            async move { Ok::<_, std::convert::Infallible>(serve::serve(context, &identity, request).await) }
        });
        let builder = builder(http2);
        let mut connection =
            std::pin::pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
        tokio::select! {
            ended = connection.as_mut() => return ended,
            () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
        }
        tokio::select! {
            ended = connection => ended,
            () = kill.cancelled() => Ok(()),
        }
    }
}

fn builder(http2: bool) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_MAX).half_close(false);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_MAX)
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    // The handshake has settled which it is; guessing from the first bytes would wait without an end.
    if http2 { builder.http2_only() } else { builder.http1_only() }
}

#[cfg(test)]
mod tests;
