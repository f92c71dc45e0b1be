//! One connection of a client, HTTP/1.1 or HTTP/2, request after request.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::server::Server;
use super::stream::{Paced, begin};

/// For the head of a request, the wait for it on a kept connection included.
const HEAD_MAX: Duration = Duration::from_secs(60);
/// The longest head of a request, in bytes and in lines; a longer one is answered with 431.
const HEAD_BYTES_MAX: usize = 32 << 10;
const HEADERS_MAX: usize = 128;
/// What is read ahead of one connection, and written ahead.
const BUFFER: usize = 64 << 10;
/// Requests at a time on one HTTP/2 connection.
const STREAMS_MAX: u32 = 128;
/// What a client may send ahead on one stream and on one connection.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
/// Of an answer, what waits to be sent on one stream.
const SEND_BUFFER: usize = 64 << 10;
/// Silence after which an HTTP/2 client is asked whether it is still there, and the time it has to say so.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_MAX: Duration = Duration::from_secs(20);
/// How long a connection on which nothing happens stays open after the request to stop: a client that was about
/// to ask once more is answered, and told to connect anew for what comes next.
const LINGER: Duration = Duration::from_millis(300);

/// Serves one connection to its end.
pub(super) async fn serve(server: Arc<Server>, mut stream: TcpStream, peer: SocketAddr) {
    let clock = server.parts.shared.clock();
    let closing = server.closing.clone();
    // Only a matter of speed.
    stream.set_nodelay(true).ok();
    let began = tokio::select! {
        began = clock.timeout(HEAD_MAX, begin(&mut stream)) => began,
        () = lingered(&server, &closing) => return,
    };
    // Whoever says nothing, or goes at once, needs no answer.
    let Ok(Ok(Some((is_http2, head)))) = began else { return };
    let stream = TokioIo::new(Paced::new(stream, head, clock));
    let answering = Arc::clone(&server);
    let service = service_fn(move |request| {
        let server = Arc::clone(&answering);
        async move { Ok::<_, Infallible>(server.answer(peer, request).await) }
    });
    // What ends a connection early, its client has caused or will see.
    if is_http2 {
        let mut connection = std::pin::pin!(http2().serve_connection(stream, service));
        tokio::select! {
            ended = connection.as_mut() => return log(peer, ended),
            () = closing.cancelled() => connection.as_mut().graceful_shutdown(),
        }
        log(peer, connection.await);
    } else {
        let mut connection = std::pin::pin!(http1().serve_connection(stream, service));
        tokio::select! {
            ended = connection.as_mut() => return log(peer, ended),
            // Its answers say from now on that they are the last.
            () = lingered(&server, &closing) => connection.as_mut().graceful_shutdown(),
        }
        log(peer, connection.await);
    }
}

fn log(peer: SocketAddr, ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "connection of a handler ended");
    }
}

async fn lingered(server: &Server, closing: &CancellationToken) {
    closing.cancelled().await;
    server.parts.shared.clock().sleep(LINGER).await;
}

fn http1() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_MAX)
        .half_close(true)
        .max_headers(HEADERS_MAX)
        .max_header_size(HEAD_BYTES_MAX)
        .max_buf_size(BUFFER);
    builder
}

fn http2() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_MAX)
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(u32::try_from(HEAD_BYTES_MAX).unwrap_or(u32::MAX));
    builder
}
