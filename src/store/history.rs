//! Every version of one object that is kept: from the window if nothing reaches further back, else from
//! the files.

use std::sync::Arc;

use jiff::Timestamp;

use super::directory::Directory;
use super::feed::Forgotten;
use super::past::{self, Held, Past, Wanted};
use super::{Key, ReadError, Record, Revision, Shared};

/// How often reading begins anew because the files it was at were dropped, for which more than all that
/// is kept must be written meanwhile.
const ATTEMPTS: usize = 3;

/// The versions of one object.
#[derive(Clone, Debug)]
pub struct History {
    /// Nothing that happened after this revision is missing; 0 if nothing at all is.
    pub since: Revision,
    /// The newest revision that was looked at.
    pub until: Revision,
    /// Oldest first. The first may be older than `since`: it is what was there at that revision.
    pub versions: Vec<Version>,
}

/// What became of an object at one revision.
#[derive(Clone, Debug)]
pub struct Version {
    pub revision: Revision,
    /// As [`Record::time`].
    pub time: Option<Timestamp>,
    pub content: Content,
}

#[derive(Clone, Debug)]
pub enum Content {
    Put(Arc<Record>),
    /// It was put, but nobody can read it any more: the key of its content was destroyed with the object.
    Destroyed,
    Deleted,
}

impl Version {
    fn put(record: Arc<Record>) -> Self {
        Self { revision: record.revision, time: record.time(), content: Content::Put(record) }
    }

    fn forgotten(event: Forgotten) -> Self {
        let content = if event.deleted { Content::Deleted } else { Content::Destroyed };
        Self { revision: event.revision, time: event.time, content }
    }

    fn held(held: &Held) -> Self {
        match held {
            Held::Record(record) => Self::put(record.clone()),
            Held::Destroyed { revision, committed } => {
                Self { revision: *revision, time: committed.timestamp(), content: Content::Destroyed }
            }
        }
    }
}

/// [`super::Store::history`].
pub(super) async fn read(
    shared: &Arc<Shared>,
    directory: Option<&Arc<Directory>>,
    key: &Key,
) -> Result<History, ReadError> {
    let history = in_window(shared, key);
    let Some(directory) = directory else { return Ok(history) };
    let mut attempt = 1;
    loop {
        let since = directory.catalog().oldest().unwrap_or(Revision::MAX);
        if since >= history.since {
            return Ok(history);
        }
        let (shared, directory, key) = (shared.clone(), directory.clone(), key.clone());
        match past::blocking(move || in_files(shared, directory, &key, since)).await? {
            Err(ReadError::Expired { .. }) if attempt < ATTEMPTS => attempt += 1,
            result => return result,
        }
    }
}

fn in_window(shared: &Shared, key: &Key) -> History {
    let state = shared.read();
    let until = state.revision();
    let (since, forgotten, chunks) = match state.known_feed(key.collection) {
        Some(feed) => feed.held(key),
        None => (state.opened_at(), Vec::new(), Vec::new()),
    };
    let now = state.get(key).cloned();
    drop(state);
    let mut events = chunks.iter().flat_map(|chunk| chunk.iter()).filter(|event| event.record.key == *key);
    let is_kept = |event: &Forgotten| event.revision > since;
    let mut versions: Vec<_> = forgotten.into_iter().filter(is_kept).map(Version::forgotten).collect();
    match events.next() {
        None => versions.extend(now.map(Version::put)),
        Some(first) => {
            versions.extend(first.previous.clone().map(Version::put));
            for event in std::iter::once(first).chain(events) {
                versions.push(match event.deleted {
                    false => Version::put(event.record.clone()),
                    true => Version {
                        revision: event.revision,
                        time: event.record.time(),
                        content: Content::Deleted,
                    },
                });
            }
        }
    }
    History { since, until, versions }
}

/// Waits for the disk.
fn in_files(
    shared: Arc<Shared>,
    directory: Arc<Directory>,
    key: &Key,
    since: Revision,
) -> Result<History, ReadError> {
    let until = shared.revision();
    let mut past = Past::open(shared, directory, Wanted::one(key), since)?;
    let mut versions: Vec<_> = past.held().map(Version::held).collect();
    past.advance(until, |step, _| {
        versions.push(match step.held {
            Some(held) => Version::held(&held),
            None => Version {
                revision: step.revision,
                time: step.committed.timestamp(),
                content: Content::Deleted,
            },
        });
        true
    })?;
    Ok(History { since, until, versions })
}
