//! Answers as bytes: objects, lists and watch events in the form that was asked for.
//!
//! Stored objects keep the bytes of their commit: what is written here goes around them, and
//! nothing is encoded again unless the client wants another form.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ListMeta, Status};
use serde::Serialize;
use serde_json::json;

use super::handle::decoded;
use super::negotiate::Form;
use super::request::List;
use super::status::Error;
use super::table::{self, Include};
use super::watch::WatchEvent;
use crate::clock::Clock;
use crate::kind::{Kind, Object};
use crate::store::Record;

/// How the objects of one answer are shown.
#[derive(Clone, Copy, Debug)]
pub struct View {
    pub form: Form,
    /// For tables.
    pub include: Include,
    /// For ages.
    pub clock: Clock,
}

impl View {
    /// A stored object.
    ///
    /// # Errors
    /// 406 if a list's form was asked for.
    pub fn record(&self, kind: &'static Kind, record: &Record) -> Result<Bytes, Error> {
        match self.form {
            Form::AsIs => Ok(whole(kind, record)),
            Form::Table(_) | Form::Metadata(_) | Form::MetadataList(_) => {
                self.convert(kind, decoded(kind, record).as_ref(), &whole(kind, record))
            }
        }
    }

    /// An object that is not stored, in the form in which it would be.
    ///
    /// # Errors
    /// 406 if a list's form was asked for.
    pub fn object(&self, kind: &'static Kind, object: &dyn Object) -> Result<Bytes, Error> {
        let whole = kind.served(object).map_or_else(|| encode(object), |served| encode(served.as_ref()));
        match self.form {
            Form::AsIs => Ok(whole),
            Form::Table(_) | Form::Metadata(_) | Form::MetadataList(_) => self.convert(kind, object, &whole),
        }
    }

    fn convert(&self, kind: &'static Kind, object: &dyn Object, whole: &[u8]) -> Result<Bytes, Error> {
        match self.form {
            Form::AsIs => Ok(Bytes::copy_from_slice(whole)),
            Form::Metadata(version) => Ok(table::partial_metadata(version, object).into()),
            Form::Table(version) => Ok(self.one_row(kind, version, object, whole, true)),
            Form::MetadataList(_) => Err(Error::new(
                406,
                "NotAcceptable",
                format!(
                    "you requested PartialObjectMetadataList, but the requested object is not a list ({})",
                    kind.kind
                ),
            )),
        }
    }

    fn one_row(
        &self,
        kind: &Kind,
        version: &str,
        object: &dyn Object,
        whole: &[u8],
        with_columns: bool,
    ) -> Bytes {
        let revision = object.metadata().resource_version.clone().unwrap_or_default();
        let metadata = if revision.is_empty() { json!({}) } else { json!({ "resourceVersion": revision }) };
        let mut whole_table = table::head(kind, version, &metadata.to_string(), with_columns);
        whole_table.extend(table::row(kind, version, self.include, object, whole, self.clock.now()));
        whole_table.extend_from_slice(table::TAIL);
        whole_table.into()
    }

    /// A page of a list, to be written piece by piece.
    ///
    /// # Errors
    /// 406 if a single object's form was asked for.
    pub fn list(&self, list: List) -> Result<ListWriter, Error> {
        let head = match self.form {
            Form::AsIs => format!(
                r#"{{"kind":"{}","apiVersion":"{}","metadata":{},"items":["#,
                list.kind.list_kind,
                list.kind.api_version(),
                list_metadata(&list)
            )
            .into_bytes(),
            Form::Table(version) => table::head(list.kind, version, &list_metadata(&list), true),
            Form::MetadataList(version) => format!(
                r#"{{"kind":"PartialObjectMetadataList","apiVersion":"{version}","metadata":{},"items":["#,
                list_metadata(&list)
            )
            .into_bytes(),
            Form::Metadata(_) => {
                return Err(Error::new(
                    406,
                    "NotAcceptable",
                    format!(
                        "you requested PartialObjectMetadata, but the requested object is a list ({})",
                        list.kind.list_kind
                    ),
                ));
            }
        };
        Ok(ListWriter {
            view: *self,
            kind: list.kind,
            now: self.clock.now(),
            head: Some(head.into()),
            records: list.records.into_iter(),
            first: true,
            ended: false,
        })
    }

    fn item(&self, kind: &'static Kind, record: &Record, now: Timestamp) -> Bytes {
        match self.form {
            Form::AsIs => whole(kind, record),
            Form::Metadata(version) | Form::MetadataList(version) => {
                table::partial_metadata(version, decoded(kind, record).as_ref()).into()
            }
            Form::Table(version) => {
                let object = decoded(kind, record);
                let whole = if self.include == Include::Object { whole(kind, record) } else { Bytes::new() };
                table::row(kind, version, self.include, object.as_ref(), &whole, now).into()
            }
        }
    }

    /// Starts a watch.
    ///
    /// # Errors
    /// 406 if a list's form was asked for.
    pub fn watch(&self, kind: &'static Kind) -> Result<EventWriter, Error> {
        if let Form::MetadataList(_) = self.form {
            return Err(Error::not_acceptable("application/json;stream=watch"));
        }
        Ok(EventWriter { view: *self, kind, columns_sent: false })
    }
}

/// A list's own metadata, in the order in which apimachinery writes it.
fn list_metadata(list: &List) -> String {
    let mut json = format!(r#"{{"resourceVersion":"{}""#, list.revision);
    if let Some(token) = &list.continue_token {
        json += &format!(r#","continue":{}"#, json!(token));
    }
    if let Some(remaining) = list.remaining {
        json += &format!(r#","remainingItemCount":{remaining}"#);
    }
    json.push('}');
    json
}

/// Writes a list record by record.
pub struct ListWriter {
    view: View,
    kind: &'static Kind,
    now: Timestamp,
    head: Option<Bytes>,
    records: std::vec::IntoIter<Arc<Record>>,
    first: bool,
    ended: bool,
}

/// Records that one piece of a list takes: enough to be worth a write, few enough to let others run.
const RECORDS_PER_PIECE: usize = 128;

impl ListWriter {
    /// Records still to be written.
    #[must_use]
    pub fn records_left(&self) -> usize {
        self.records.len()
    }

    /// Bytes that are still to come, if that is known without writing them.
    #[must_use]
    pub fn bytes_left(&self) -> Option<u64> {
        if self.view.form != Form::AsIs || self.kind.stored_as.is_some() {
            return None;
        }
        let records = self.records.as_slice();
        let commas = records.len().saturating_sub(usize::from(self.first));
        let head = self.head.as_ref().map_or(0, Bytes::len);
        let bytes: usize = records.iter().map(|record| record.json.len()).sum();
        let tail = if self.ended { 0 } else { table::TAIL.len() };
        u64::try_from(head + bytes + commas + tail).ok()
    }

    /// The next bytes, `None` at the end.
    pub fn next_piece(&mut self) -> Option<Vec<Bytes>> {
        if self.ended {
            return None;
        }
        let mut pieces = Vec::with_capacity(2 * RECORDS_PER_PIECE + 2);
        pieces.extend(self.head.take());
        for record in self.records.by_ref().take(RECORDS_PER_PIECE) {
            if !std::mem::replace(&mut self.first, false) {
                pieces.push(Bytes::from_static(b","));
            }
            pieces.push(self.view.item(self.kind, &record, self.now));
        }
        if self.records.len() == 0 {
            pieces.push(Bytes::from_static(table::TAIL));
            self.ended = true;
        }
        Some(pieces)
    }
}

/// Writes the events of one watch, a line each.
#[derive(Debug)]
pub struct EventWriter {
    view: View,
    kind: &'static Kind,
    /// Only a watch's first table names its columns.
    columns_sent: bool,
}

impl EventWriter {
    /// Appends the pieces of `event` to `pieces`.
    pub fn write(&mut self, event: &WatchEvent, pieces: &mut Vec<Bytes>) {
        let (head, object): (&'static [u8], Bytes) = match event {
            WatchEvent::Added(record) => (br#"{"type":"ADDED","object":"#, self.record(record)),
            WatchEvent::Modified(record) => (br#"{"type":"MODIFIED","object":"#, self.record(record)),
            WatchEvent::Deleted(record) => (br#"{"type":"DELETED","object":"#, self.record(record)),
            WatchEvent::Bookmark { revision, initial_end } => {
                (br#"{"type":"BOOKMARK","object":"#, self.bookmark(*revision, *initial_end))
            }
            WatchEvent::Error(status) => (br#"{"type":"ERROR","object":"#, self::status(status)),
        };
        pieces.extend([Bytes::from_static(head), object, Bytes::from_static(b"}\n")]);
    }

    fn record(&mut self, record: &Record) -> Bytes {
        match self.view.form {
            Form::AsIs => whole(self.kind, record),
            Form::Metadata(version) | Form::MetadataList(version) => {
                table::partial_metadata(version, decoded(self.kind, record).as_ref()).into()
            }
            Form::Table(version) => {
                let with_columns = !std::mem::replace(&mut self.columns_sent, true);
                let object = decoded(self.kind, record);
                self.view.one_row(
                    self.kind,
                    version,
                    object.as_ref(),
                    &whole(self.kind, record),
                    with_columns,
                )
            }
        }
    }

    fn bookmark(&mut self, revision: u64, initial_end: bool) -> Bytes {
        let annotations =
            if initial_end { r#","annotations":{"k8s.io/initial-events-end":"true"}"# } else { "" };
        let metadata = format!(r#"{{"resourceVersion":"{revision}"{annotations}}}"#);
        let (kind, version) = match self.view.form {
            Form::AsIs => (self.kind.kind, self.kind.api_version()),
            Form::Metadata(version) | Form::MetadataList(version) => {
                ("PartialObjectMetadata", version.to_owned())
            }
            Form::Table(version) => {
                // A table's own metadata has no annotations, so a row carries them.
                let with_columns = !std::mem::replace(&mut self.columns_sent, true);
                let own = format!(r#"{{"resourceVersion":"{revision}"}}"#);
                let mut whole = table::head(self.kind, version, &own, with_columns);
                whole.extend_from_slice(
                    format!(
                        r#"{{"cells":[],"object":{{"kind":"PartialObjectMetadata","apiVersion":"{version}","metadata":{metadata}}}}}"#
                    )
                    .as_bytes(),
                );
                whole.extend_from_slice(table::TAIL);
                return whole.into();
            }
        };
        format!(r#"{{"kind":"{kind}","apiVersion":"{version}","metadata":{metadata}}}"#).into_bytes().into()
    }
}

/// The complete JSON of a stored object, as `kind` shows it: its own bytes, but for a kind that is stored as
/// another.
pub(super) fn whole(kind: &'static Kind, record: &Record) -> Bytes {
    match kind.stored_as {
        None => record.json.clone(),
        Some(_) => {
            let stored = decoded(kind, record);
            let served = kind.served(stored.as_ref());
            served
                .map_or_else(|| record.json.clone(), |served| served.encode().with_revision(record.revision))
        }
    }
}

fn encode(object: &dyn Object) -> Bytes {
    let encoded = object.encode();
    match object.metadata().resource_version.as_deref().and_then(|version| version.parse().ok()) {
        Some(revision) => encoded.with_revision(revision),
        None => encoded.json.into(),
    }
}

/// A `Status` as JSON, its fields in the order of the API type.
#[must_use]
pub fn status(status: &Status) -> Bytes {
    let details = status.details.as_ref().map(|details| {
        let causes = details.causes.iter().flatten().map(|cause| Ordered {
            cause: cause.reason.as_deref(),
            message: cause.message.as_deref(),
            field: cause.field.as_deref(),
            ..Ordered::default()
        });
        Ordered {
            name: details.name.as_deref(),
            group: details.group.as_deref(),
            kind: details.kind.as_deref(),
            uid: details.uid.as_deref(),
            causes: causes.collect(),
            retry_after_seconds: details.retry_after_seconds,
            ..Ordered::default()
        }
    });
    let whole = Ordered {
        kind: Some("Status"),
        api_version: Some("v1"),
        metadata: Some(&status.metadata),
        status: status.status.as_deref(),
        message: status.message.as_deref(),
        reason: status.reason.as_deref(),
        details: details.map(Box::new),
        code: status.code,
        ..Ordered::default()
    };
    serde_json::to_vec(&whole).expect("a Status has string keys only").into()
}

/// The fields of a `Status`, of its details and of their causes; the order suits all three.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Ordered<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    causes: Vec<Ordered<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_seconds: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a ListMeta>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'a str>,
    #[serde(rename = "reason", skip_serializing_if = "Option::is_none")]
    cause: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Box<Ordered<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<i32>,
}

/// The same content as YAML.
///
/// # Errors
/// If `json` is not JSON.
pub fn yaml(json: &[u8]) -> Result<Bytes, Error> {
    let value: serde_json::Value = serde_json::from_slice(json).map_err(Error::internal)?;
    let text = serde_saphyr::to_string(&value).map_err(Error::internal)?;
    Ok(text.into_bytes().into())
}

/// The same content with line breaks and indents of two spaces.
///
/// # Errors
/// If `json` is not JSON.
pub fn pretty(json: &[u8]) -> Result<Bytes, Error> {
    let value: &serde_json::value::RawValue = serde_json::from_slice(json).map_err(Error::internal)?;
    let mut text = Vec::with_capacity(json.len() * 2);
    indent(value.get(), &mut text);
    text.push(b'\n');
    Ok(text.into())
}

/// Lays out valid JSON without reordering it.
fn indent(json: &str, out: &mut Vec<u8>) {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    let line = |out: &mut Vec<u8>, depth: usize| {
        out.push(b'\n');
        out.resize(out.len() + 2 * depth, b' ');
    };
    let bytes = json.as_bytes();
    for (at, &byte) in bytes.iter().enumerate() {
        if in_string {
            out.push(byte);
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
            continue;
        }
        match byte {
            b'{' | b'[' => {
                out.push(byte);
                depth += 1;
                if !matches!(bytes.get(at + 1), Some(b'}' | b']')) {
                    line(out, depth);
                }
            }
            b'}' | b']' => {
                depth -= 1;
                if !matches!(bytes[at - 1], b'{' | b'[') {
                    line(out, depth);
                }
                out.push(byte);
            }
            b',' => {
                out.push(byte);
                line(out, depth);
            }
            b':' => out.extend_from_slice(b": "),
            b' ' | b'\n' | b'\r' | b'\t' => {}
            other => {
                in_string = other == b'"';
                out.push(other);
            }
        }
    }
}

#[cfg(test)]
mod tests;
