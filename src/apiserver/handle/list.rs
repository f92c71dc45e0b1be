//! Lists and watches: how they begin (BEHAVIOURS 1.2 to 1.12).

use std::sync::Arc;
use std::time::Duration;

use super::{Inner, Target, parse_revision};
use crate::apiserver::continue_token::ContinueToken;
use crate::apiserver::filter::Filter;
use crate::apiserver::request::{List, Options, Response};
use crate::apiserver::status::Error;
use crate::apiserver::watch::{Plan, WatchEvent, WatchStream};
use crate::kind::field::{Errors, Path};
use crate::store::{Listing, ReadError, Record};

const OPTIONS: &str = "ListOptions";

/// How long a watch lasts when the client does not say: a random time from this to twice as long.
const WATCH_SECONDS_DEFAULT: u64 = 30 * 60;

/// The longest watch, a day; longer wishes are cut, since clients resume anyway.
const WATCH_SECONDS_MAX: u64 = 24 * 60 * 60;

/// From which state a list reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Newest,
    Exactly(u64),
}

impl Inner {
    pub(super) async fn list(&self, target: &Target, options: &Options) -> Result<Response, Error> {
        check_list_options(options)?;
        let filter = Filter::parse(target.kind, options, target.name.as_deref())?;
        let token = options.continue_token.as_deref().filter(|text| !text.is_empty());
        let token = token.map(ContinueToken::parse).transpose()?;
        let limit = options.limit.filter(|limit| *limit > 0).and_then(|limit| usize::try_from(limit).ok());
        let at = self.list_at(options, token.as_ref(), limit.is_some()).await?;
        let after = token.as_ref().map(|token| token.after(target.kind.is_namespaced()));
        let page = self.page(target, &filter, at, after, limit).await?;
        let continue_token = match (page.left, page.records.last()) {
            (0, _) | (_, None) => None,
            (_, Some(last)) => Some(token_after(page.revision, last, target)),
        };
        let remaining = u64::try_from(page.left).unwrap_or(u64::MAX);
        Ok(Response::List(List {
            kind: target.kind,
            revision: page.revision,
            remaining: (continue_token.is_some() && filter.matches_everything()).then_some(remaining),
            records: page.records,
            continue_token,
        }))
    }

    /// The state that the options ask for, once it has happened.
    async fn list_at(
        &self,
        options: &Options,
        token: Option<&ContinueToken>,
        limited: bool,
    ) -> Result<At, Error> {
        let version = options.resource_version.as_deref();
        if let Some(token) = token {
            if version.is_some_and(|version| !version.is_empty() && version != "0") {
                return Err(Error::bad_request(
                    "specifying resource version is not allowed when using continue",
                ));
            }
            return Ok(token.revision.map_or(At::Newest, At::Exactly));
        }
        let Some(revision) = parse_revision(version)?.filter(|revision| *revision > 0) else {
            return Ok(At::Newest);
        };
        self.wait_for(revision).await?;
        let exact = match options.resource_version_match.as_deref() {
            Some("Exact") => true,
            None | Some("") => limited,
            Some(_) => false,
        };
        Ok(if exact { At::Exactly(revision) } else { At::Newest })
    }

    async fn page(
        &self,
        target: &Target,
        filter: &Filter,
        at: At,
        after: Option<(&str, &str)>,
        limit: Option<usize>,
    ) -> Result<Page, Error> {
        let range = target.range();
        let keep = |one: &Record| filter.keeps(one);
        // The number of those left is only told of lists without selectors. With one, it is enough to
        // know whether there is one more.
        let max = limit.filter(|_| !filter.matches_everything()).map(|limit| limit.saturating_add(1));
        let revision = match at {
            At::Newest => return Ok(Page::cut(self.store.list(&range, after, max, &keep), limit)),
            At::Exactly(revision) => revision,
        };
        if revision == self.store.revision() {
            let listing = self.store.list(&range, after, max, &keep);
            if listing.revision == revision {
                return Ok(Page::cut(listing, limit));
            }
        }
        match self.store.page_at(revision, &range, after, max, &keep).await {
            Ok(listing) => Ok(Page::cut(listing, limit)),
            Err(ReadError::Expired { .. }) => Err(expired(after, target)),
            Err(ReadError::Future { asked, current }) => {
                Err(Error::too_large_resource_version(asked, current))
            }
            Err(error @ ReadError::Unreadable(_)) => Err(Error::internal(error)),
        }
    }

    pub(super) async fn watch(&self, target: &Target, options: &Options) -> Result<Response, Error> {
        check_watch_options(options)?;
        let kind = target.kind;
        let filter = Filter::parse(kind, options, target.name.as_deref())?;
        let from = parse_revision(options.resource_version.as_deref())?.filter(|revision| *revision > 0);
        if let Some(revision) = from {
            self.wait_for(revision).await?;
        }
        let initial_events = match options.send_initial_events {
            Some(wanted) => wanted,
            None => from.is_none(),
        };
        let range = target.range();
        let (mut initial, from) = if initial_events {
            let listing = self.store.list(&range, None, None, &|one| filter.keeps(one));
            let events: Vec<WatchEvent> = listing.records.into_iter().map(WatchEvent::Added).collect();
            (events, listing.revision)
        } else {
            (Vec::new(), from.unwrap_or_else(|| self.store.revision()))
        };
        if options.send_initial_events == Some(true) {
            initial.push(WatchEvent::Bookmark { revision: from, initial_end: true });
        }
        let source = match self.store.watch(range, from).await {
            Ok(source) => source,
            Err(ReadError::Expired { asked, oldest }) => {
                let error = Error::too_old(asked, oldest);
                return Ok(Response::Watch(WatchStream::failed(kind, filter, self.clock, error)));
            }
            Err(ReadError::Future { asked, current }) => {
                return Err(Error::too_large_resource_version(asked, current));
            }
            Err(error @ ReadError::Unreadable(_)) => return Err(Error::internal(error)),
        };
        let seconds = options.timeout_seconds.filter(|seconds| *seconds > 0);
        let seconds =
            seconds.unwrap_or_else(|| WATCH_SECONDS_DEFAULT + self.random.below(WATCH_SECONDS_DEFAULT));
        let plan = Plan {
            initial,
            lasts: Duration::from_secs(seconds.min(WATCH_SECONDS_MAX)),
            bookmarks: options.allow_watch_bookmarks,
        };
        Ok(Response::Watch(WatchStream::new(kind, filter, self.clock, source, plan)))
    }
}

struct Page {
    revision: u64,
    records: Vec<Arc<Record>>,
    /// How many there are behind these; with selectors, 1 for any number.
    left: usize,
}

impl Page {
    fn cut(listing: Listing, limit: Option<usize>) -> Self {
        let Listing { revision, mut records } = listing;
        let left = limit.map_or(0, |limit| records.len().saturating_sub(limit));
        records.truncate(records.len() - left);
        Self { revision, records, left }
    }
}

fn token_after(revision: u64, last: &Record, target: &Target) -> String {
    let namespaced = target.kind.is_namespaced();
    ContinueToken::new(Some(revision), &last.key.namespace, &last.key.name, namespaced).encode()
}

/// 410 for a state that is compacted; in the middle of a list, with a token that goes on from the
/// newest state (BEHAVIOURS 1.3, 1.6).
fn expired(after: Option<(&str, &str)>, target: &Target) -> Error {
    let Some((namespace, name)) = after else {
        return Error::expired("The resourceVersion for the provided list is too old.");
    };
    let token = ContinueToken::new(None, namespace, name, target.kind.is_namespaced()).encode();
    let mut error = Error::expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.",
    );
    error.0.metadata.continue_ = Some(token);
    error
}

fn refuse_if_any(errors: &Errors) -> Result<(), Error> {
    if errors.is_empty() { Ok(()) } else { Err(Error::invalid_options(OPTIONS, errors)) }
}

fn given(text: Option<&String>) -> Option<&str> {
    text.map(String::as_str).filter(|text| !text.is_empty())
}

/// 422 for combinations that make no sense (BEHAVIOURS 1.4).
fn check_list_options(options: &Options) -> Result<(), Error> {
    let mut errors = Errors::default();
    let path = Path::new("resourceVersionMatch");
    if let Some(how) = given(options.resource_version_match.as_ref()) {
        let version = given(options.resource_version.as_ref());
        if version.is_none() {
            errors.forbidden(&path, "resourceVersionMatch is forbidden unless resourceVersion is provided");
        }
        if given(options.continue_token.as_ref()).is_some() {
            errors.forbidden(&path, "resourceVersionMatch is forbidden when continue is provided");
        }
        if how != "Exact" && how != "NotOlderThan" {
            errors.unsupported(&path, how, &["Exact", "NotOlderThan", ""]);
        }
        if how == "Exact" && version == Some("0") {
            errors.forbidden(&path, "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"");
        }
    }
    if options.send_initial_events.is_some() {
        errors.forbidden(&Path::new("sendInitialEvents"), "sendInitialEvents is forbidden for list");
    }
    refuse_if_any(&errors)
}

/// 422 for combinations that make no sense on a watch (BEHAVIOURS 1.12).
fn check_watch_options(options: &Options) -> Result<(), Error> {
    const ONLY: &str = "NotOlderThan";
    let mut errors = Errors::default();
    let path = Path::new("resourceVersionMatch");
    let how = given(options.resource_version_match.as_ref());
    if options.send_initial_events.is_some() && how != Some(ONLY) {
        errors.forbidden(&path, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan");
    }
    if let Some(how) = how {
        if options.send_initial_events.is_none() {
            errors.forbidden(
                &path,
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            );
        }
        if how != ONLY {
            errors.unsupported(&path, how, &[ONLY]);
        }
        if given(options.continue_token.as_ref()).is_some() {
            errors.forbidden(&path, "resourceVersionMatch is forbidden when continue is provided");
        }
    }
    refuse_if_any(&errors)
}
