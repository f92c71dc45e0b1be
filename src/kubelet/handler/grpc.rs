//! `grpc` probes: one call of `grpc.health.v1.Health/Check` over HTTP/2 without TLS (upstream
//! `pkg/probe/grpc`). The two messages have one field each, so they are written and read by hand.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, TE, USER_AGENT};
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::super::backoff::go_duration;
use super::super::probe::Answer;
use super::{Target, authority, connect};

/// The longest answer read: it has two bytes, or none.
const ANSWER_BYTES_MAX: usize = 4 << 10;
/// gRPC's codes.
const OK: &str = "0";
const DEADLINE_EXCEEDED: &str = "4";
const UNIMPLEMENTED: &str = "12";
const UNKNOWN: &str = "2";

/// Why a call failed.
struct Failure {
    code: String,
    message: String,
}

pub(super) async fn check(target: Target<'_>, port: u16, service: &str, timeout: Duration) -> Answer {
    let (host, address) = (target.ip.to_string(), authority(&target.ip.to_string(), port));
    let limit = go_duration(timeout);
    let begun = target.clock.monotonic();
    let stream = match target.clock.timeout(timeout, connect(&host, port)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(why)) => {
            return Answer::Failed(format!("error: failed to connect service at {address:?}: {why}"));
        }
        Err(_) => {
            let why = "context deadline exceeded";
            return Answer::Failed(format!(
                "timeout: failed to connect service {address:?} within {limit}: {why}"
            ));
        }
    };
    let left = timeout.saturating_sub(target.clock.monotonic().saturating_sub(begun));
    let late = || format!("timeout: health rpc did not complete within {limit}");
    match target.clock.timeout(left, call(TokioIo::new(stream), &address, service)).await {
        Err(_) => Answer::Failed(late()),
        Ok(Ok(1)) => Answer::Passed,
        Ok(Ok(status)) => {
            Answer::Failed(format!("service unhealthy (responded with {:?})", status_name(status)))
        }
        Ok(Err(Failure { code, .. })) if code == DEADLINE_EXCEEDED => Answer::Failed(late()),
        Ok(Err(Failure { code, message })) if code == UNIMPLEMENTED => Answer::Failed(format!(
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {message}"
        )),
        Ok(Err(Failure { code, message })) => Answer::Failed(format!(
            "error: health rpc probe failed: rpc error: code = {} desc = {message}",
            code_name(&code)
        )),
    }
}

fn status_name(status: u64) -> String {
    match status {
        0 => "UNKNOWN".to_owned(),
        1 => "SERVING".to_owned(),
        2 => "NOT_SERVING".to_owned(),
        3 => "SERVICE_UNKNOWN".to_owned(),
        other => other.to_string(),
    }
}

fn code_name(code: &str) -> &str {
    match code {
        "1" => "Canceled",
        UNKNOWN => "Unknown",
        "3" => "InvalidArgument",
        "5" => "NotFound",
        "6" => "AlreadyExists",
        "7" => "PermissionDenied",
        "8" => "ResourceExhausted",
        "9" => "FailedPrecondition",
        "10" => "Aborted",
        "11" => "OutOfRange",
        "13" => "Internal",
        "14" => "Unavailable",
        "15" => "DataLoss",
        "16" => "Unauthenticated",
        other => other,
    }
}

fn unavailable(why: impl ToString) -> Failure {
    Failure { code: "14".to_owned(), message: why.to_string() }
}

/// The health of `service`, as a number of `ServingStatus`.
async fn call(stream: TokioIo<tokio::net::TcpStream>, address: &str, service: &str) -> Result<u64, Failure> {
    let handshake = http2::handshake(TokioExecutor::new(), stream).await;
    let (mut sender, connection) = handshake.map_err(unavailable)?;
    let request = Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header(CONTENT_TYPE, "application/grpc")
        .header(TE, "trailers")
        .header(USER_AGENT, "kube-probe/1.32")
        .body(Full::new(request(service)))
        .map_err(unavailable)?;
    let talk = async {
        let response = sender.send_request(request).await.map_err(unavailable)?;
        let (parts, mut body) = response.into_parts();
        if !parts.status.is_success() {
            let status = parts.status;
            let message = format!("unexpected HTTP status code received from server: {status}");
            // 404 is what an HTTP/2 server says that knows no gRPC.
            let code = if status.as_u16() == 404 { UNIMPLEMENTED } else { UNKNOWN };
            return Err(Failure { code: code.to_owned(), message });
        }
        let mut bytes = Vec::new();
        let mut trailers = None;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(unavailable)?;
            if let Some(data) = frame.data_ref() {
                bytes.extend_from_slice(data);
            }
            if bytes.len() > ANSWER_BYTES_MAX {
                return Err(unavailable("the answer is too long"));
            }
            trailers = frame.into_trailers().ok().or(trailers);
        }
        let trailers = trailers.unwrap_or(parts.headers);
        outcome(&trailers)?;
        serving_status(&bytes).ok_or_else(|| unavailable("the answer makes no sense"))
    };
    let connection = async {
        // Its errors reach the request as well.
        drop(connection.await);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        answer = talk => answer,
        () = connection => unreachable!("it is pending for ever"),
    }
}

fn outcome(trailers: &HeaderMap) -> Result<(), Failure> {
    let text = |name: &str| trailers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match text("grpc-status") {
        OK => Ok(()),
        "" => Err(Failure { code: UNKNOWN.to_owned(), message: "the answer has no status".to_owned() }),
        code => Err(Failure { code: code.to_owned(), message: text("grpc-message").to_owned() }),
    }
}

/// `HealthCheckRequest`: field 1, the service, in gRPC's frame.
fn request(service: &str) -> Bytes {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.push(u8::try_from(length & 0x7f).expect("seven bits") | 0x80);
            length >>= 7;
        }
        message.push(u8::try_from(length).expect("below 128"));
        message.extend_from_slice(service.as_bytes());
    }
    let length = u32::try_from(message.len()).expect("a name in a pod spec");
    let mut frame = vec![0];
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&message);
    frame.into()
}

/// Field 1 of `HealthCheckResponse`, in gRPC's frame; absent is 0.
fn serving_status(frame: &[u8]) -> Option<u64> {
    let (head, message) = frame.split_at_checked(5)?;
    let length = u32::from_be_bytes(head[1..].try_into().ok()?);
    if head[0] != 0 || usize::try_from(length).ok()? != message.len() {
        return None;
    }
    let mut rest = message.iter().copied();
    let mut status = 0;
    while let Some(tag) = varint(&mut rest) {
        let value = varint(&mut rest)?;
        match tag {
            0x08 => status = value,
            // Another number; anything else is not of this message.
            tag if tag & 7 == 0 => {}
            _ => return None,
        }
    }
    Some(status)
}

fn varint(bytes: &mut impl Iterator<Item = u8>) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = bytes.next()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_written_and_read() {
        assert_eq!(&request("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&request("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        assert_eq!(&request(&"x".repeat(200))[..8], [0, 0, 0, 0, 203, 0x0a, 0xc8, 1]);
        for (frame, expected) in [
            (&[0, 0, 0, 0, 2, 8, 1][..], Some(1)),
            (&[0, 0, 0, 0, 2, 8, 2], Some(2)),
            (&[0, 0, 0, 0, 0], Some(0)),
            (&[0, 0, 0, 0, 4, 0x10, 9, 8, 1], Some(1)),
            (&[1, 0, 0, 0, 2, 8, 1], None),
            (&[0, 0, 0, 0, 3, 8, 1], None),
            (&[0, 0], None),
            (&[0, 0, 0, 0, 1, 8], None),
        ] {
            assert_eq!(serving_status(frame), expected, "{frame:?}");
        }
    }
}
