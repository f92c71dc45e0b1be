//! Query parameters: decoding, and Kubernetes' reading of them.

use std::str::FromStr;

use crate::apiserver::request::{LogOptions, Options, StreamOptions};
use crate::apiserver::status::Error;

/// The parameters of a URL, decoded, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads what stands behind the `?`.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode_query(name), decode_query(value))
        });
        Self(pairs.collect())
    }

    /// The first value of `name`; an empty one counts.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// All values of `name`.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A boolean as apimachinery converts it: present means true, unless it says `0` or `false`.
    #[must_use]
    pub fn flag(&self, name: &str) -> Option<bool> {
        self.get(name).map(|value| !matches!(value.to_ascii_lowercase().as_str(), "0" | "false"))
    }

    fn text(&self, name: &str) -> Option<String> {
        self.get(name).map(str::to_owned)
    }

    /// As `text`, but empty counts as absent.
    fn word(&self, name: &str) -> Option<String> {
        self.text(name).filter(|value| !value.is_empty())
    }

    /// A number; empty counts as absent.
    fn number<T: FromStr>(&self, name: &str) -> Result<Option<T>, Error> {
        match self.get(name) {
            None | Some("") => Ok(None),
            Some(value) => value.parse().map(Some).map_err(|_| bad(name, value, "it must be a whole number")),
        }
    }

    /// A number of which Kubernetes takes anything below zero for "not given".
    fn count(&self, name: &str) -> Result<Option<u64>, Error> {
        Ok(self.number::<i64>(name)?.and_then(|value| u64::try_from(value).ok()))
    }
}

fn bad(name: &str, value: &str, why: &str) -> Error {
    Error::bad_request(format!("invalid value {value:?} of the query parameter {name}: {why}"))
}

/// The options of a request. What the verbs can judge themselves is left to them.
pub fn options(query: &Query) -> Result<Options, Error> {
    Ok(Options {
        proxy_path: String::new(),
        resource_version: query.text("resourceVersion"),
        resource_version_match: query.text("resourceVersionMatch"),
        label_selector: query.text("labelSelector"),
        field_selector: query.text("fieldSelector"),
        limit: query.count("limit")?,
        continue_token: query.word("continue"),
        timeout_seconds: query.count("timeoutSeconds")?,
        allow_watch_bookmarks: query.flag("allowWatchBookmarks").unwrap_or(false),
        send_initial_events: query.flag("sendInitialEvents"),
        dry_run: query.all("dryRun").map(str::to_owned).collect(),
        field_validation: query.text("fieldValidation"),
        field_manager: query.text("fieldManager"),
        force: query.flag("force"),
        grace_period_seconds: query.number("gracePeriodSeconds")?,
        propagation_policy: query.word("propagationPolicy"),
        orphan_dependents: query.flag("orphanDependents"),
        log: log_options(query)?,
        streams: stream_options(query)?,
    })
}

fn stream_options(query: &Query) -> Result<StreamOptions, Error> {
    let flag = |name: &str| query.flag(name).unwrap_or(false);
    // Ports come one by one, or several with commas between them.
    let ports = query.all("ports").flat_map(|value| value.split(',')).filter(|port| !port.is_empty());
    let port = |text: &str| match text.parse::<u16>() {
        Ok(port) if port > 0 => Ok(port),
        Ok(_) | Err(_) => Err(bad("ports", text, "it must be a port from 1 to 65535")),
    };
    Ok(StreamOptions {
        container: query.word("container"),
        command: query.all("command").map(str::to_owned).collect(),
        stdin: flag("stdin"),
        stdout: flag("stdout"),
        stderr: flag("stderr"),
        tty: flag("tty"),
        ports: ports.map(port).collect::<Result<_, _>>()?,
    })
}

fn log_options(query: &Query) -> Result<LogOptions, Error> {
    let not_negative = |name: &str| match query.number::<i64>(name)? {
        None => Ok(None),
        Some(value) => u64::try_from(value)
            .map(Some)
            .map_err(|_| bad(name, &value.to_string(), "it must be greater than or equal to 0")),
    };
    let since_time = match query.get("sinceTime") {
        None | Some("") => None,
        Some(value) => Some(value.parse().map_err(|_| {
            bad("sinceTime", value, "it must be a time as RFC 3339 writes it, like 2006-01-02T15:04:05Z")
        })?),
    };
    Ok(LogOptions {
        container: query.word("container"),
        follow: query.flag("follow").unwrap_or(false),
        previous: query.flag("previous").unwrap_or(false),
        since_seconds: query.number("sinceSeconds")?,
        since_time,
        timestamps: query.flag("timestamps").unwrap_or(false),
        tail_lines: not_negative("tailLines")?,
        limit_bytes: not_negative("limitBytes")?,
    })
}

/// Decodes `%41` in a path segment; what is no valid escape or UTF-8 stays as it is.
pub fn decode_path(text: &str) -> String {
    decode(text, false)
}

fn decode_query(text: &str) -> String {
    decode(text, true)
}

fn decode(text: &str, plus_is_space: bool) -> String {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        let escaped = match (byte, tail) {
            (b'%', [high, low, ..]) => hex(*high).zip(hex(*low)).map(|(high, low)| high << 4 | low),
            _ => None,
        };
        if let Some(escaped) = escaped {
            decoded.push(escaped);
            rest = &tail[2..];
        } else if byte == b'+' && plus_is_space {
            decoded.push(b' ');
        } else {
            decoded.push(byte);
        }
    }
    String::from_utf8(decoded).unwrap_or_else(|_| text.to_owned())
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}
