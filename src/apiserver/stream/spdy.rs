//! SPDY/3.1, as far as `kubectl port-forward` speaks it inside a WebSocket: frames, and headers in
//! their compression. Windows are not kept, as upstream's library keeps none.
//!
//! A control frame is `1`, 15 bits of version (3), 16 of type; a data frame `0` and 31 bits of stream;
//! both go on with 8 bits of flags and 24 of length. Headers are a count and pairs of texts, each text
//! with its length before it, deflated as one stream in each direction with a dictionary known to both.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use flate2::{Decompress, FlushDecompress, Status};

#[cfg(test)]
mod tests;

/// The sub-protocol that `kubectl port-forward` asks for.
pub const PROTOCOL: &str = "SPDY/3.1+portforward.k8s.io";

/// The largest frame that is read; clients send pieces of 32 KiB.
const FRAME_MAX: usize = 1 << 20;
/// The most that the headers of a stream may take; there are three short ones.
const HEADERS_MAX: usize = 16 << 10;
/// The most bytes of one data frame that is written.
pub const DATA_MAX: usize = 16 << 10;

const CONTROL: u32 = 0x8000_0000;
const VERSION: u32 = 3;
const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GO_AWAY: u16 = 7;
const HEADERS: u16 = 8;
/// The flag of a stream's last frame.
const FIN: u8 = 1;

/// Why a stream is reset.
pub const PROTOCOL_ERROR: u32 = 1;
pub const REFUSED_STREAM: u32 = 3;
pub const CANCEL: u32 = 5;

/// What the other side sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A new stream, with its headers in lower case.
    Open {
        stream: u32,
        fin: bool,
        headers: BTreeMap<String, String>,
    },
    Data {
        stream: u32,
        fin: bool,
        bytes: Bytes,
    },
    Reset {
        stream: u32,
    },
    Ping {
        id: u32,
    },
    GoAway,
    /// Nothing to do about it.
    Other,
}

/// What is wrong with what the other side sent; the connection cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the client does not speak SPDY/3.1: {0}")]
pub struct Garbled(&'static str);

/// Makes frames of bytes as they come.
pub struct Reader {
    bytes: BytesMut,
    headers: Inflate,
}

impl Default for Reader {
    fn default() -> Self {
        Self { bytes: BytesMut::new(), headers: Inflate::new() }
    }
}

impl Reader {
    /// More bytes of the connection.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next frame, if it is complete.
    pub fn frame(&mut self) -> Result<Option<Frame>, Garbled> {
        let Some(mut head) = self.bytes.get(..8) else { return Ok(None) };
        let first = head.get_u32();
        let rest = head.get_u32();
        let (flags, length) = (u8::try_from(rest >> 24).unwrap_or_default(), rest & 0x00ff_ffff);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > FRAME_MAX {
            return Err(Garbled("a frame is longer than a mebibyte"));
        }
        if self.bytes.len() < 8 + length {
            return Ok(None);
        }
        let mut frame = self.bytes.split_to(8 + length).freeze();
        frame.advance(8);
        let fin = flags & FIN != 0;
        if first & CONTROL == 0 {
            return Ok(Some(Frame::Data { stream: first, fin, bytes: frame }));
        }
        if (first & !CONTROL) >> 16 != VERSION {
            return Err(Garbled("the version of a frame is not 3"));
        }
        let kind = u16::try_from(first & 0xffff).unwrap_or_default();
        let short = Garbled("a frame is too short");
        Ok(Some(match kind {
            SYN_STREAM if frame.len() >= 10 => {
                let stream = frame.get_u32() & !CONTROL;
                // The stream it belongs to, priority and slot mean nothing here.
                frame.advance(6);
                Frame::Open { stream, fin, headers: self.headers.read(&frame)? }
            }
            // What is compressed must be read, or what comes later cannot be.
            SYN_REPLY | HEADERS if frame.len() >= 4 => {
                frame.advance(4);
                self.headers.read(&frame)?;
                Frame::Other
            }
            RST_STREAM if frame.len() >= 4 => Frame::Reset { stream: frame.get_u32() & !CONTROL },
            PING if frame.len() >= 4 => Frame::Ping { id: frame.get_u32() },
            GO_AWAY => Frame::GoAway,
            SYN_STREAM | SYN_REPLY | HEADERS | RST_STREAM | PING => return Err(short),
            _ => Frame::Other,
        }))
    }
}

/// Reads headers, all of a connection as one deflated stream.
struct Inflate {
    zlib: Decompress,
    begun: bool,
}

impl Inflate {
    fn new() -> Self {
        // Without zlib's own head, which is read by hand: only so does every implementation of deflate
        // take a dictionary, as a first block that is not compressed.
        let mut zlib = Decompress::new(false);
        let length = u16::try_from(DICTIONARY.len()).expect("the dictionary is short");
        let mut block = vec![0];
        block.put_u16_le(length);
        block.put_u16_le(!length);
        block.extend_from_slice(&DICTIONARY);
        let mut known = vec![0; DICTIONARY.len()];
        let primed = zlib.decompress(&block, &mut known, FlushDecompress::None);
        debug_assert!(matches!(primed, Ok(Status::Ok)) && known == *DICTIONARY);
        Self { zlib, begun: false }
    }

    fn read(&mut self, mut bytes: &[u8]) -> Result<BTreeMap<String, String>, Garbled> {
        if !std::mem::replace(&mut self.begun, true) {
            // Two bytes of zlib's head, and the dictionary's checksum if its flag is set.
            let head = if bytes.get(1).is_some_and(|flags| flags & 0x20 != 0) { 6 } else { 2 };
            bytes = bytes.get(head..).ok_or(Garbled("headers are too short"))?;
        }
        let mut text = vec![0; HEADERS_MAX];
        let (consumed, produced) = (self.zlib.total_in(), self.zlib.total_out());
        self.zlib
            .decompress(bytes, &mut text, FlushDecompress::Sync)
            .map_err(|_| Garbled("headers cannot be decompressed"))?;
        let taken = self.zlib.total_in() - consumed;
        if usize::try_from(taken) != Ok(bytes.len()) {
            return Err(Garbled("headers are too long"));
        }
        text.truncate(usize::try_from(self.zlib.total_out() - produced).unwrap_or(usize::MAX));
        parse_headers(&text)
    }
}

fn parse_headers(mut text: &[u8]) -> Result<BTreeMap<String, String>, Garbled> {
    let short = || Garbled("headers end in the middle");
    let count = number(&mut text).ok_or_else(short)?;
    let mut headers = BTreeMap::new();
    for _ in 0..count {
        let name = part(&mut text).ok_or_else(short)?;
        headers.insert(name.to_ascii_lowercase(), part(&mut text).ok_or_else(short)?);
    }
    Ok(headers)
}

fn number(text: &mut &[u8]) -> Option<usize> {
    let (number, rest) = text.split_first_chunk()?;
    *text = rest;
    usize::try_from(u32::from_be_bytes(*number)).ok()
}

fn part(text: &mut &[u8]) -> Option<String> {
    let length = number(text)?;
    let (part, rest) = text.split_at_checked(length)?;
    *text = rest;
    Some(String::from_utf8_lossy(part).into_owned())
}

/// Makes the bytes of frames.
#[derive(Default)]
pub struct Writer {
    begun: bool,
}

impl Writer {
    /// Accepts a stream, without headers.
    pub fn reply(&mut self, stream: u32) -> Bytes {
        // Not compressed, but in the form of what is: zlib's head once, a block with a count of
        // none, and an empty block, at which readers stop to wait.
        let mut headers = Vec::new();
        if !std::mem::replace(&mut self.begun, true) {
            headers.extend_from_slice(&[0x78, 0x01]);
        }
        headers.extend_from_slice(&[0, 4, 0, 0xfb, 0xff, 0, 0, 0, 0]);
        headers.extend_from_slice(&[0, 0, 0, 0xff, 0xff]);
        let mut content = Vec::new();
        content.put_u32(stream);
        content.extend_from_slice(&headers);
        control(SYN_REPLY, &content)
    }
}

/// Ends a stream at once.
#[must_use]
pub fn reset(stream: u32, why: u32) -> Bytes {
    let mut content = Vec::new();
    content.put_u32(stream);
    content.put_u32(why);
    control(RST_STREAM, &content)
}

#[must_use]
pub fn ping(id: u32) -> Bytes {
    control(PING, &id.to_be_bytes())
}

/// At most [`DATA_MAX`] bytes of a stream; the last ones if `fin`.
#[must_use]
pub fn data(stream: u32, bytes: &[u8], fin: bool) -> Bytes {
    let mut frame = Vec::with_capacity(8 + bytes.len());
    frame.put_u32(stream & !CONTROL);
    put_length(&mut frame, if fin { FIN } else { 0 }, bytes.len());
    frame.extend_from_slice(bytes);
    frame.into()
}

fn control(kind: u16, content: &[u8]) -> Bytes {
    let mut frame = Vec::with_capacity(8 + content.len());
    frame.put_u32(CONTROL | VERSION << 16 | u32::from(kind));
    put_length(&mut frame, 0, content.len());
    frame.extend_from_slice(content);
    frame.into()
}

fn put_length(frame: &mut Vec<u8>, flags: u8, length: usize) {
    let length = u32::try_from(length).expect("frames of ours are short");
    frame.put_u32(u32::from(flags) << 24 | length);
}

/// The words of the dictionary, each of which has its length before it.
const WORDS: &str = "options head post put delete trace accept accept-charset accept-encoding \
    accept-language accept-ranges age allow authorization cache-control connection content-base \
    content-encoding content-language content-length content-location content-md5 content-range \
    content-type date etag expect expires from host if-match if-modified-since if-none-match if-range \
    if-unmodified-since last-modified location max-forwards pragma proxy-authenticate proxy-authorization \
    range referer retry-after server te trailer transfer-encoding upgrade user-agent vary via warning \
    www-authenticate method get status 200_OK version HTTP/1.1 url public set-cookie keep-alive origin";
/// What follows them.
const TAIL: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504\
    505203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized\
    403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb \
    Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,\
    image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,public\
    privatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

/// The dictionary of SPDY/3 (section 2.6.10.1 of its draft).
static DICTIONARY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut dictionary = Vec::new();
    for word in WORDS.split_ascii_whitespace() {
        let word = word.replace('_', " ");
        dictionary.put_u32(u32::try_from(word.len()).expect("a word is short"));
        dictionary.extend_from_slice(word.as_bytes());
    }
    dictionary.extend_from_slice(TAIL.as_bytes());
    dictionary
});
