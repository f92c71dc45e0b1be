//! What the bytes of the files mean.
//!
//! A file is a header and frames. All numbers are little-endian.
//!
//! ```text
//! header  "coracle\n", format u32, contents u32, revision u64, sealed u32, crc32 of these 28 bytes
//! frame   length u32, crc32 u32 (of length and payload), payload
//! ```
//!
//! The header keeps its form in all formats, so that an older version can tell that a file is newer.
//! `sealed` tells of which collections contents are sealed in the file: what [`sealed_mark`] gives, 0 for
//! none, as in formats 1 and 2. A frame's length is never 0: zeros, of which preallocated space consists, end the frames.
//!
//! Payloads of a log: a transaction, or the mark that the store was closed. Both begin with the offset
//! up to which the file was flushed before they were written. It tells a torn write from damage: a bad
//! frame is a torn one unless something was written in the knowledge that it was flushed.
//!
//! Payloads of a snapshot: a block of records, or the end with their number.
//!
//! The first byte of a payload says what it is, and keeps its meaning in all formats. Format 2 added the
//! time of each transaction and record, format 3 sealed contents ([`super::seal`]); files of older formats
//! are read, but nothing is appended to them.

use std::sync::Arc;

use bytes::Bytes;

use super::record::Moment;
use super::seal::{DataKeyId, SEAL_BYTES, Vault, Version};
use super::{Event, Key, Record, Revision};

/// The format that this version writes, and the newest that it reads.
pub(super) const FORMAT: u32 = 3;

/// The oldest format that this version reads.
pub(super) const FORMAT_OLDEST: u32 = 1;

pub(super) const HEADER_BYTES: usize = 32;
pub(super) const FRAME_HEADER_BYTES: usize = 8;

/// No frame is longer: damaged lengths are not taken for huge allocations.
pub(super) const PAYLOAD_BYTES_MAX: usize = 1 << 30;

const MAGIC: &[u8; 8] = b"coracle\n";

/// As format 1 had it: without a time.
const TRANSACTION_1: u8 = 1;
const CLOSED: u8 = 2;
/// As format 1 had it: without times.
const RECORDS_1: u8 = 3;
const END: u8 = 4;
const TRANSACTION: u8 = 5;
/// As format 2 had it: contents do not say whether they are sealed.
const RECORDS_2: u8 = 6;
const RECORDS: u8 = 7;

const PUT: u8 = 1;
const DELETE: u8 = 2;
const PUT_SEALED: u8 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Contents {
    Log = 1,
    Snapshot = 2,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum HeaderError {
    Newer(u32),
    Damaged(&'static str),
}

/// What headers of files say in which just these collections are sealed; never 0.
pub(super) fn sealed_mark(collections: &[&str]) -> u32 {
    let mut collections = collections.to_vec();
    collections.sort_unstable();
    crc32fast::hash(collections.join("/").as_bytes()).max(1)
}

pub(super) fn header(contents: Contents, revision: Revision, sealed: u32) -> [u8; HEADER_BYTES] {
    header_of(FORMAT, contents, revision, sealed)
}

pub(super) fn header_of(
    format: u32,
    contents: Contents,
    revision: Revision,
    sealed: u32,
) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(MAGIC);
    header[8..12].copy_from_slice(&format.to_le_bytes());
    header[12..16].copy_from_slice(&(contents as u32).to_le_bytes());
    header[16..24].copy_from_slice(&revision.to_le_bytes());
    header[24..28].copy_from_slice(&sealed.to_le_bytes());
    let crc = crc32fast::hash(&header[..28]);
    header[28..].copy_from_slice(&crc.to_le_bytes());
    header
}

/// The format of the file and what is sealed in it, if it can be read and is what its name says.
pub(super) fn check_header(
    header: &[u8; HEADER_BYTES],
    contents: Contents,
    revision: Revision,
) -> Result<(u32, u32), HeaderError> {
    let mut parser = Parser(header);
    let mut read = || {
        let magic = parser.take(8)?;
        let (format, kind, first) = (parser.u32()?, parser.u32()?, parser.u64()?);
        Some((magic, format, kind, first, parser.u32()?, parser.u32()?))
    };
    let Some((magic, format, kind, first, sealed, crc)) = read() else {
        return Err(HeaderError::Damaged("the header is cut short"));
    };
    if magic != MAGIC || crc != crc32fast::hash(&header[..28]) {
        return Err(HeaderError::Damaged("the header is not one of Coracle's"));
    }
    if format > FORMAT {
        return Err(HeaderError::Newer(format));
    }
    if format < FORMAT_OLDEST || kind != contents as u32 || first != revision {
        return Err(HeaderError::Damaged("the header does not belong to a file of this name"));
    }
    Ok((format, sealed))
}

/// Appends a frame whose payload `fill` writes.
fn frame(buffer: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; FRAME_HEADER_BYTES]);
    fill(buffer);
    let payload_at = start + FRAME_HEADER_BYTES;
    let length = length_of(&buffer[payload_at..]);
    buffer[start..start + 4].copy_from_slice(&length);
    let crc = frame_crc(length, &buffer[payload_at..]);
    buffer[start + 4..payload_at].copy_from_slice(&crc.to_le_bytes());
}

pub(super) fn frame_crc(length: [u8; 4], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length);
    hasher.update(payload);
    hasher.finalize()
}

fn length_of(bytes: &[u8]) -> [u8; 4] {
    u32::try_from(bytes.len()).expect("transactions are refused long before 4 GiB").to_le_bytes()
}

fn put_bytes(buffer: &mut Vec<u8>, bytes: &[u8]) {
    buffer.extend_from_slice(&length_of(bytes));
    buffer.extend_from_slice(bytes);
}

fn put_key(buffer: &mut Vec<u8>, key: &Key) {
    put_bytes(buffer, key.collection.as_bytes());
    put_bytes(buffer, key.namespace.as_bytes());
    put_bytes(buffer, key.name.as_bytes());
}

fn put_op(record: &Record) -> u8 {
    if record.data_key().is_some() { PUT_SEALED } else { PUT }
}

/// Appends the content: `created`, then where its revision is and the JSON, or a data key's id and a box
/// with the same in it.
fn put_content(buffer: &mut Vec<u8>, record: &Record) {
    buffer.extend_from_slice(&record.created.to_le_bytes());
    let revision_at = to_u64(record.revision_at()).to_le_bytes();
    let Some(data_key) = record.data_key() else {
        buffer.extend_from_slice(&revision_at);
        put_bytes(buffer, &record.json);
        return;
    };
    let length = revision_at.len() + record.json.len();
    buffer.extend_from_slice(&data_key.id.0);
    let sealed_length =
        u32::try_from(length + SEAL_BYTES).expect("transactions are refused long before 4 GiB");
    buffer.extend_from_slice(&sealed_length.to_le_bytes());
    let Key { collection, namespace, name } = &record.key;
    let version = Version {
        key: KeyText { collection, namespace, name },
        created: record.created,
        revision: record.revision,
    };
    data_key.seal(&version, buffer, length, |buffer| {
        buffer.extend_from_slice(&revision_at);
        buffer.extend_from_slice(&record.json);
    });
}

pub(super) fn to_u64(length: usize) -> u64 {
    u64::try_from(length).expect("a length fits 64 bits")
}

/// Appends one transaction of the time `now`, which is what `events` are; not empty.
pub(super) fn put_transaction(buffer: &mut Vec<u8>, flushed: u64, now: Moment, events: &[Event]) {
    frame(buffer, |buffer| {
        buffer.push(TRANSACTION);
        buffer.extend_from_slice(&flushed.to_le_bytes());
        buffer.extend_from_slice(&now.0.to_le_bytes());
        buffer.extend_from_slice(&events.first().map_or(0, |event| event.revision).to_le_bytes());
        buffer.extend_from_slice(&to_u64(events.len()).to_le_bytes());
        for event in events {
            buffer.push(if event.deleted { DELETE } else { put_op(&event.record) });
            put_key(buffer, &event.record.key);
            if !event.deleted {
                put_content(buffer, &event.record);
            }
        }
    });
}

/// Appends the mark that the store was closed with everything flushed.
pub(super) fn put_closed(buffer: &mut Vec<u8>, flushed: u64) {
    frame(buffer, |buffer| {
        buffer.push(CLOSED);
        buffer.extend_from_slice(&flushed.to_le_bytes());
    });
}

/// Appends a block of a snapshot.
pub(super) fn put_records<'a>(buffer: &mut Vec<u8>, records: impl ExactSizeIterator<Item = &'a Record>) {
    frame(buffer, |buffer| {
        buffer.push(RECORDS);
        buffer.extend_from_slice(&to_u64(records.len()).to_le_bytes());
        for record in records {
            put_key(buffer, &record.key);
            buffer.extend_from_slice(&record.revision.to_le_bytes());
            buffer.extend_from_slice(&record.committed().0.to_le_bytes());
            buffer.push(put_op(record));
            put_content(buffer, record);
        }
    });
}

/// Appends the end of a snapshot of `count` records.
pub(super) fn put_end(buffer: &mut Vec<u8>, count: u64) {
    frame(buffer, |buffer| {
        buffer.push(END);
        buffer.extend_from_slice(&count.to_le_bytes());
    });
}

/// One write as a log has it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Logged<'a> {
    pub(super) revision: Revision,
    pub(super) key: KeyText<'a>,
    /// `None` for a deletion.
    pub(super) put: Option<Content<'a>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeyText<'a> {
    pub(super) collection: &'a str,
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Content<'a> {
    pub(super) created: Revision,
    pub(super) body: Body<'a>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Body<'a> {
    Plain { revision_at: usize, json: &'a [u8] },
    Sealed { data_key: DataKeyId, sealed: &'a [u8] },
}

/// What a content turns out to be.
pub(super) enum Stored {
    Record(Arc<Record>),
    /// Its data key is destroyed, because the object was deleted later.
    Destroyed,
}

impl std::fmt::Debug for Content<'_> {
    /// Without the content, which may be a Secret's.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (what, length) = match self.body {
            Body::Plain { json, .. } => ("bytes", json.len()),
            Body::Sealed { sealed, .. } => ("sealed bytes", sealed.len()),
        };
        write!(f, "Content(created at {}, {length} {what})", self.created)
    }
}

impl Content<'_> {
    /// The record, with bytes of its own, or what is wrong with it.
    pub(super) fn record(
        &self,
        key: Key,
        revision: Revision,
        committed: Moment,
        vault: Option<&Vault>,
    ) -> Result<Stored, &'static str> {
        let (json, revision_at, data_key) = match self.body {
            Body::Plain { revision_at, json } => (Bytes::copy_from_slice(json), revision_at, None),
            Body::Sealed { data_key, sealed } => {
                let Some(data_key) = vault.and_then(|vault| vault.get(data_key)) else {
                    return Ok(Stored::Destroyed);
                };
                let Key { collection, namespace, name } = &key;
                let version =
                    Version { key: KeyText { collection, namespace, name }, created: self.created, revision };
                let opened = data_key.open(&version, sealed).ok_or("a sealed object does not open")?;
                let mut parser = Parser(&opened);
                let revision_at = parser.u64().and_then(|at| usize::try_from(at).ok());
                let revision_at = revision_at.ok_or("a sealed object makes no sense")?;
                (Bytes::copy_from_slice(parser.0), revision_at, Some(data_key))
            }
        };
        Record::stored(key, revision, self.created, committed, json, revision_at, data_key)
            .map(Stored::Record)
            .ok_or("an object's bytes do not carry its revision")
    }
}

/// One object as a snapshot has it.
#[derive(Debug)]
pub(super) struct Kept<'a> {
    pub(super) key: KeyText<'a>,
    pub(super) revision: Revision,
    pub(super) committed: Moment,
    pub(super) content: Content<'a>,
}

impl Kept<'_> {
    /// The record, with bytes of its own, or what is wrong with it.
    pub(super) fn record(&self, key: Key, vault: Option<&Vault>) -> Result<Stored, &'static str> {
        self.content.record(key, self.revision, self.committed, vault)
    }
}

/// What a frame of a log says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum LogFrame<'a> {
    Transaction { first: Revision, committed: Moment, writes: Vec<Logged<'a>> },
    Closed,
}

/// What a frame of a snapshot says.
#[derive(Debug)]
pub(super) enum SnapshotFrame<'a> {
    Records(Vec<Kept<'a>>),
    End { count: u64 },
}

/// The meaning of a log's payload; `None` if it has none.
pub(super) fn parse_log(payload: &[u8]) -> Option<LogFrame<'_>> {
    let mut parser = Parser(payload);
    let tag = parser.u8()?;
    parser.u64()?;
    let frame = match tag {
        CLOSED => LogFrame::Closed,
        TRANSACTION | TRANSACTION_1 => {
            let committed = if tag == TRANSACTION { parser.moment()? } else { Moment::UNKNOWN };
            let first = parser.u64()?;
            let count = parser.count()?;
            let mut writes = Vec::with_capacity(count);
            for revision in (first..).take(count) {
                let op = parser.u8()?;
                let key = parser.key()?;
                let put = match op {
                    DELETE => None,
                    op => Some(parser.content(op)?),
                };
                writes.push(Logged { revision, key, put });
            }
            LogFrame::Transaction { first, committed, writes }
        }
        _ => return None,
    };
    parser.0.is_empty().then_some(frame)
}

/// The meaning of a snapshot's payload; `None` if it has none.
pub(super) fn parse_snapshot(payload: &[u8]) -> Option<SnapshotFrame<'_>> {
    let mut parser = Parser(payload);
    let tag = parser.u8()?;
    let frame = match tag {
        RECORDS | RECORDS_2 | RECORDS_1 => {
            let count = parser.count()?;
            let mut records = Vec::with_capacity(count);
            for _ in 0..count {
                let (key, revision) = (parser.key()?, parser.u64()?);
                let committed = if tag == RECORDS_1 { Moment::UNKNOWN } else { parser.moment()? };
                let op = if tag == RECORDS { parser.u8()? } else { PUT };
                records.push(Kept { key, revision, committed, content: parser.content(op)? });
            }
            SnapshotFrame::Records(records)
        }
        END => SnapshotFrame::End { count: parser.u64()? },
        _ => return None,
    };
    parser.0.is_empty().then_some(frame)
}

/// Whether in `tail`, which begins at `offset` of a log with a bad frame, something was written in the
/// knowledge that the bad frame had been flushed.
pub(super) fn was_flushed(tail: &[u8], offset: u64) -> bool {
    (1..tail.len()).any(|at| {
        let mut parser = Parser(&tail[at..]);
        let mut read = || {
            let (length, crc) = (parser.u32()?, parser.u32()?);
            let payload = parser.take(usize::try_from(length).ok()?)?;
            let mut inside = Parser(payload);
            let known = matches!(inside.u8()?, TRANSACTION | TRANSACTION_1 | CLOSED);
            let flushed = inside.u64()?;
            let later = known && flushed > offset && flushed <= offset + to_u64(at);
            (later && frame_crc(length.to_le_bytes(), payload) == crc).then_some(())
        };
        read().is_some()
    })
}

/// Takes values off the front of bytes; `None` once they do not suffice.
struct Parser<'a>(&'a [u8]);

impl<'a> Parser<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn moment(&mut self) -> Option<Moment> {
        Some(Moment(i64::from_le_bytes(self.take(8)?.try_into().ok()?)))
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()?;
        self.take(usize::try_from(length).ok()?)
    }

    fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    /// A number of things that follow, each of more than a byte.
    fn count(&mut self) -> Option<usize> {
        usize::try_from(self.u64()?).ok().filter(|count| *count <= self.0.len())
    }

    fn key(&mut self) -> Option<KeyText<'a>> {
        Some(KeyText { collection: self.text()?, namespace: self.text()?, name: self.text()? })
    }

    fn content(&mut self, op: u8) -> Option<Content<'a>> {
        let created = self.u64()?;
        let body = match op {
            PUT => Body::Plain { revision_at: usize::try_from(self.u64()?).ok()?, json: self.bytes()? },
            PUT_SEALED => {
                let id = self.take(DataKeyId::BYTES)?.try_into().ok()?;
                Body::Sealed { data_key: DataKeyId(id), sealed: self.bytes()? }
            }
            _ => return None,
        };
        Some(Content { created, body })
    }
}

#[cfg(test)]
mod tests;
