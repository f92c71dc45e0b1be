//! Bodies of answers: shared bytes in pieces, at once or as they come, gzipped if it is worth it.

use std::collections::VecDeque;
use std::io::{IoSlice, Write};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::stream::{self, Stream, StreamExt};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::OwnedSemaphorePermit;

use crate::apiserver::metrics::Guard;

/// Bytes from several places, written one after the other without being copied together.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    parts: VecDeque<Bytes>,
    left: usize,
}

impl FromIterator<Bytes> for Pieces {
    fn from_iter<I: IntoIterator<Item = Bytes>>(parts: I) -> Self {
        let parts: VecDeque<Bytes> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        let left = parts.iter().map(Bytes::len).sum();
        Self { parts, left }
    }
}

impl Buf for Pieces {
    fn remaining(&self) -> usize {
        self.left
    }

    fn chunk(&self) -> &[u8] {
        self.parts.front().map_or(&[], |part| part)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for (slice, part) in slices.iter_mut().zip(&self.parts) {
            *slice = IoSlice::new(part);
            filled += 1;
        }
        filled
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.left, "the reader takes no more than there is");
        self.left -= count;
        while let Some(part) = self.parts.front_mut() {
            if count < part.len() {
                part.advance(count);
                return;
            }
            count -= part.len();
            self.parts.pop_front();
        }
    }
}

type PieceStream = Pin<Box<dyn Stream<Item = Pieces> + Send>>;

/// The body of an answer.
pub(super) enum Body {
    Whole(Option<Bytes>),
    /// With the exact number of bytes that are left, if it is known.
    Stream(PieceStream, Option<u64>),
    /// As it comes from somebody else, and what counts it meanwhile.
    Carried {
        body: Incoming,
        _held: (OwnedSemaphorePermit, Guard),
    },
}

/// A body that is carried on may break off.
pub(super) type Failure = Box<dyn std::error::Error + Send + Sync>;

impl Body {
    pub(super) fn empty() -> Self {
        Self::Whole(None)
    }

    pub(super) fn whole(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self::Whole((!bytes.is_empty()).then_some(bytes))
    }

    pub(super) fn stream(stream: impl Stream<Item = Pieces> + Send + 'static, bytes: Option<u64>) -> Self {
        Self::Stream(Box::pin(stream), bytes)
    }

    /// The same content, compressed as it is read.
    pub(super) fn gzip(self) -> Self {
        let content = match self {
            Self::Whole(bytes) => stream::iter(slices(bytes.unwrap_or_default())).boxed(),
            Self::Stream(stream, _) => stream,
            // Whoever made it has compressed it if they wanted.
            Self::Carried { .. } => return self,
        };
        // The fastest level: bodies cross a local network at most.
        let encoder = Some(GzEncoder::new(Vec::new(), Compression::fast()));
        let compressed = stream::unfold((content, encoder), async |(mut content, encoder)| {
            let mut encoder = encoder?;
            loop {
                let Some(pieces) = content.next().await else {
                    let rest = encoder.finish().expect("a Vec takes every byte");
                    return Some((Pieces::from_iter([Bytes::from(rest)]), (content, None)));
                };
                for part in &pieces.parts {
                    encoder.write_all(part).expect("a Vec takes every byte");
                }
                if !encoder.get_ref().is_empty() {
                    let ready = std::mem::take(encoder.get_mut());
                    return Some((Pieces::from_iter([Bytes::from(ready)]), (content, Some(encoder))));
                }
            }
        });
        Self::Stream(compressed.boxed(), None)
    }
}

/// What is compressed in one go; others run between two of these.
const GZIP_SLICE: usize = 64 << 10;

fn slices(mut bytes: Bytes) -> impl Iterator<Item = Pieces> {
    std::iter::from_fn(move || {
        let length = bytes.len().min(GZIP_SLICE);
        (length > 0).then(|| Pieces::from_iter([bytes.split_to(length)]))
    })
}

impl http_body::Body for Body {
    type Data = Pieces;
    type Error = Failure;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Pieces>, Failure>>> {
        match &mut *self {
            Self::Whole(bytes) => {
                Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(Pieces::from_iter([bytes])))))
            }
            Self::Stream(stream, left) => stream.as_mut().poll_next(context).map(|pieces| {
                let pieces = pieces?;
                if let Some(left) = left {
                    *left = left.saturating_sub(u64::try_from(pieces.left).unwrap_or(u64::MAX));
                }
                Some(Ok(Frame::data(pieces)))
            }),
            Self::Carried { body, .. } => Pin::new(body).poll_frame(context).map(|frame| {
                let frame = frame?.map(|frame| frame.map_data(|data| Pieces::from_iter([data])));
                Some(frame.map_err(Failure::from))
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Stream(..) => false,
            Self::Carried { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => {
                let length = bytes.as_ref().map_or(0, Bytes::len);
                u64::try_from(length).map_or_else(|_| SizeHint::default(), SizeHint::with_exact)
            }
            Self::Stream(_, Some(left)) => SizeHint::with_exact(*left),
            Self::Stream(_, None) => SizeHint::default(),
            Self::Carried { body, .. } => body.size_hint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;
    use std::io::Read;

    fn parts() -> Vec<Bytes> {
        ["ab", "", "cde", "f"].map(Bytes::from_static_str).to_vec()
    }

    trait FromStaticStr {
        fn from_static_str(text: &'static str) -> Bytes;
    }

    impl FromStaticStr for Bytes {
        fn from_static_str(text: &'static str) -> Bytes {
            Bytes::from_static(text.as_bytes())
        }
    }

    #[test]
    fn pieces_are_read_across_their_borders() {
        let mut pieces = Pieces::from_iter(parts());
        assert_eq!(pieces.remaining(), 6);
        pieces.advance(1);
        assert_eq!(pieces.chunk(), b"b");
        pieces.advance(3);
        assert_eq!((pieces.chunk(), pieces.remaining()), (&b"e"[..], 2));
        let mut slices = [IoSlice::new(&[]); 4];
        assert_eq!(pieces.chunks_vectored(&mut slices), 2);
        assert_eq!(pieces.copy_to_bytes(2), "ef");
        assert!(!pieces.has_remaining());
    }

    #[tokio::test]
    async fn gzip_keeps_the_content() {
        let large: Vec<u8> = (0..300_000u32).flat_map(u32::to_le_bytes).collect();
        let streamed = Body::stream(stream::iter([Pieces::from_iter(parts())]), Some(6));
        for (body, expected) in
            [(Body::whole(large.clone()), large), (streamed, b"abcdef".to_vec()), (Body::empty(), Vec::new())]
        {
            let compressed = body.gzip().collect().await.unwrap().to_bytes();
            let mut found = Vec::new();
            flate2::read::GzDecoder::new(&compressed[..]).read_to_end(&mut found).unwrap();
            assert!(found == expected);
        }
    }
}
