//! Answers as HTTP: heads, and streams of watch events and log lines.

use std::any::Any;
use std::panic::AssertUnwindSafe;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::stream::{self, Stream, StreamExt};
use http::StatusCode;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::body::{Body, Pieces};
use crate::apiserver::metrics::Guard;
use crate::apiserver::render::EventWriter;
use crate::apiserver::request::LogStream;
use crate::apiserver::watch::WatchStream;

pub(super) type Answer = http::Response<Body>;

/// The events of a watch as they come, until it ends or the server shuts down.
pub(super) fn events(
    stream: WatchStream,
    writer: EventWriter,
    stop: CancellationToken,
    guard: Guard,
) -> impl Stream<Item = Pieces> + Send {
    stream::unfold((stream, writer, stop, guard), async |(mut stream, mut writer, stop, guard)| {
        let batch = async {
            let batch = stream.next().await?;
            let mut pieces = Vec::with_capacity(3 * batch.len());
            for event in &batch {
                writer.write(event, &mut pieces);
            }
            Some(Pieces::from_iter(pieces))
        };
        let pieces = tokio::select! {
            biased;
            () = stop.cancelled() => return None,
            pieces = AssertUnwindSafe(batch).catch_unwind() => pieces,
        };
        match pieces {
            Ok(pieces) => Some((pieces?, (stream, writer, stop, guard))),
            Err(panic) => {
                error!(panic = told(panic.as_ref()), "a watch panicked");
                None
            }
        }
    })
}

pub(super) fn log_pieces(
    log: LogStream,
    stop: CancellationToken,
    guard: Guard,
) -> impl Stream<Item = Pieces> + Send {
    stream::unfold((log, stop, guard), async |(mut log, stop, guard)| {
        let piece = tokio::select! {
            biased;
            () = stop.cancelled() => return None,
            piece = log.next() => piece?,
        };
        Some((Pieces::from_iter([piece]), (log, stop, guard)))
    })
}

/// `299 - "text"`, as apimachinery's `NewWarningHeader` writes it.
pub(super) fn warning_header(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push(' '),
            c => quoted.push(c),
        }
    }
    format!("299 - \"{quoted}\"")
}

pub(super) fn text_of(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

pub(super) fn headed(code: u16, media_type: &str, body: Body) -> Answer {
    let mut answer = Answer::new(body);
    *answer.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    set(&mut answer, header::CONTENT_TYPE, media_type);
    set(&mut answer, header::CACHE_CONTROL, "no-cache, private");
    answer
}

pub(super) fn text(code: u16, text: impl Into<Bytes>) -> Answer {
    let mut answer = headed(code, "text/plain; charset=utf-8", Body::whole(text));
    set(&mut answer, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    answer
}

pub(super) fn set(answer: &mut Answer, name: HeaderName, value: &str) {
    // Our own values are all visible ASCII.
    if let Ok(value) = HeaderValue::from_str(value) {
        answer.headers_mut().insert(name, value);
    }
}

pub(super) fn gzipped(answer: Answer) -> Answer {
    let mut answer = answer.map(Body::gzip);
    set(&mut answer, header::CONTENT_ENCODING, "gzip");
    answer.headers_mut().append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    answer
}

/// The text of a panic.
pub(super) fn told(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a text")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_stay_on_one_line() {
        for (text, expected) in [
            ("plain", r#"299 - "plain""#),
            (r#"unknown field "a\b""#, r#"299 - "unknown field \"a\\b\"""#),
            ("two\nlines", r#"299 - "two lines""#),
        ] {
            assert_eq!(warning_header(text), expected);
        }
    }
}
