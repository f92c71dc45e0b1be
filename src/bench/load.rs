//! A generator of HTTP requests: connections that are kept, each asking again once it was answered.
//!
//! It writes the same bytes each time and reads no more of an answer than its length, so that it costs the
//! machine little beside the server that is measured.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Failure, Report};
use crate::clock::Clock;

/// The longest answer that is understood.
const ANSWER_MAX: usize = 64 << 10;

/// What was measured.
pub(super) struct Load {
    took: Duration,
    latencies: Vec<Duration>,
}

impl Load {
    /// Requests a second, and how long each took.
    pub(super) fn tell(mut self, report: &mut Report, name: &str) {
        let count = u32::try_from(self.latencies.len()).unwrap_or(u32::MAX);
        report.figure(
            format!("{name}, throughput"),
            f64::from(count) / self.took.as_secs_f64(),
            "requests/s",
        );
        report.percentiles(&format!("{name}, latency"), &mut self.latencies);
    }
}

/// `GET path` at `server`, `count` times over so many connections.
///
/// # Errors
/// If any answer is not 200, or there is none.
pub(super) async fn load(
    clock: Clock,
    server: SocketAddr,
    path: &str,
    connections: u32,
    count: u32,
) -> Result<Load, Failure> {
    let request: Arc<[u8]> = format!("GET {path} HTTP/1.1\r\nHost: {server}\r\n\r\n").into_bytes().into();
    let left = Arc::new(AtomicU32::new(count));
    let before = clock.monotonic();
    let clients = (0..connections).map(|_| {
        let (request, left) = (Arc::clone(&request), Arc::clone(&left));
        tokio::spawn(client(clock, server, request, left))
    });
    let mut latencies = Vec::new();
    for told in try_join_all(clients).await? {
        latencies.extend(told?);
    }
    Ok(Load { took: clock.monotonic().saturating_sub(before), latencies })
}

async fn client(
    clock: Clock,
    server: SocketAddr,
    request: Arc<[u8]>,
    left: Arc<AtomicU32>,
) -> Result<Vec<Duration>, Failure> {
    let mut stream = TcpStream::connect(server).await?;
    stream.set_nodelay(true)?;
    let mut latencies = Vec::new();
    let mut buffer = Vec::with_capacity(ANSWER_MAX);
    let take = |left: u32| left.checked_sub(1);
    while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
        let before = clock.monotonic();
        stream.write_all(&request).await?;
        loop {
            match answer(&buffer)? {
                Some(length) => {
                    buffer.drain(..length);
                    break;
                }
                None if buffer.len() >= ANSWER_MAX => return Err("an answer is too long".into()),
                None => {}
            }
            if stream.read_buf(&mut buffer).await? == 0 {
                return Err("the server closed a connection".into());
            }
        }
        latencies.push(clock.monotonic().saturating_sub(before));
    }
    Ok(latencies)
}

/// How long the answer at the beginning of `bytes` is; `None` if it is not all there.
fn answer(bytes: &[u8]) -> Result<Option<usize>, Failure> {
    let Some(head) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let text = std::str::from_utf8(&bytes[..head])?;
    let mut lines = text.split("\r\n");
    let status = lines.next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        return Err(format!("the server answered {status:?}").into());
    }
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>())
    });
    let whole = head + 4 + length.ok_or("an answer has no length")??;
    Ok((bytes.len() >= whole).then_some(whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_as_long_as_they_say() {
        let whole = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";
        for (bytes, expected) in [
            ("", Some(None)),
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n", Some(None)),
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", Some(None)),
            (whole, Some(Some(whole.len()))),
            ("HTTP/1.1 200 OK\r\ncontent-length:0\r\n\r\nrest", Some(Some(37))),
            ("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", None),
            ("HTTP/1.1 200 OK\r\n\r\n", None),
            ("HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n", None),
        ] {
            assert_eq!(answer(bytes.as_bytes()).ok(), expected, "{bytes:?}");
        }
    }
}
