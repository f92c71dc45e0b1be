//! The answer of the `history` subresource, which is ours: Kubernetes has none.
//!
//! ```text
//! {"kind":"ObjectHistory","apiVersion":"coracle.dev/v1",
//!  "metadata":{"resourceVersion":"57"},   the revision up to which it goes
//!  "since":12,                            nothing after this revision is missing; 0: nothing at all is
//!  "truncated":true,                      the first item has a predecessor that is no longer kept
//!  "items":[{                             oldest first
//!    "revision":31,
//!    "time":"2026-05-01T10:00:00.000001Z",  absent if it was not noted
//!    "type":"Added",                        or Modified, Deleted
//!    "destroyed":true,                      only if the content is gone for good, as deleted Secrets' is
//!    "hash":"sha256:…",                     of what matters to pods; `kind::content` says of what
//!    "object":{…}}]}                        as it was stored; absent if deleted or destroyed
//! ```

use bytes::Bytes;

use crate::kind::{Kind, strategy};
use crate::store::{Content, History, Record, Version};

/// What an item's `type` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Added,
    Modified,
    Deleted,
}

/// The answer, in pieces of one version each. An object's hash is computed when its piece is taken.
pub(super) fn pieces(kind: &'static Kind, history: History) -> impl Iterator<Item = Vec<Bytes>> {
    let types = types(&history.versions);
    let head = format!(
        r#"{{"kind":"ObjectHistory","apiVersion":"coracle.dev/v1","metadata":{{"resourceVersion":"{}"}},"since":{},"truncated":{},"items":["#,
        history.until,
        history.since,
        types.first() == Some(&Type::Modified),
    );
    let items = history.versions.into_iter().zip(types).enumerate().map(move |(at, (version, of_type))| {
        let comma = if at == 0 { "" } else { "," };
        item(kind, &version, of_type, comma)
    });
    std::iter::once(vec![head.into()]).chain(items).chain(std::iter::once(vec![Bytes::from_static(b"]}")]))
}

fn item(kind: &'static Kind, version: &Version, of_type: Type, comma: &str) -> Vec<Bytes> {
    let mut head = format!(r#"{comma}{{"revision":{}"#, version.revision);
    if let Some(time) = version.time {
        head += &format!(r#","time":"{time:.6}""#);
    }
    head += &format!(r#","type":"{of_type:?}""#);
    match &version.content {
        Content::Put(record) => {
            if let Some(hash) = hash(kind, record) {
                head += &format!(r#","hash":"{hash}""#);
            }
            head += r#","object":"#;
            vec![head.into(), super::render::whole(kind, record), Bytes::from_static(b"}")]
        }
        Content::Destroyed => {
            head += r#","destroyed":true}"#;
            vec![head.into()]
        }
        Content::Deleted => {
            head.push('}');
            vec![head.into()]
        }
    }
}

/// The first is `Modified` if it does not tell of a creation: what was before it is no longer kept.
fn types(versions: &[Version]) -> Vec<Type> {
    let mut exists = None;
    let mut of = |version: &Version| {
        let existed = match (exists, &version.content) {
            (Some(existed), _) => existed,
            (None, Content::Put(record)) => record.created != record.revision,
            (None, Content::Deleted | Content::Destroyed) => true,
        };
        exists = Some(!matches!(version.content, Content::Deleted));
        match &version.content {
            Content::Deleted => Type::Deleted,
            Content::Put(_) | Content::Destroyed if existed => Type::Modified,
            Content::Put(_) | Content::Destroyed => Type::Added,
        }
    };
    versions.iter().map(&mut of).collect()
}

/// Decoded here only to be hashed, so that a long history is not kept in memory twice.
fn hash(kind: &'static Kind, record: &Record) -> Option<crate::kind::ContentHash> {
    let stored = kind.stored_kind().strategy;
    let object =
        strategy::decode_stored(stored, &record.json).expect("a stored object was encoded by its kind");
    stored.content_hash(object.as_ref())
}
