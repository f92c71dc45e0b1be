//! `coracle config diff`: two versions, key by key.

use std::collections::BTreeSet;

use similar::TextDiff;

use super::content::{Configuration, Entries, Value};
use super::pick::Kept;
use crate::client::remote::Version;

/// What stands in the place of a Secret's value.
const MASK: &str = "***";

/// A version that is compared.
pub(super) struct Side<'a> {
    revision: u64,
    entries: Entries<'a>,
    fixed_type: Option<&'a str>,
}

impl<'a> Side<'a> {
    /// A deleted object has no content.
    pub(super) fn of<K: Configuration>(kept: &Kept<K>, version: &'a Version<K>) -> Result<Self, String> {
        let object = kept.object(version)?;
        Ok(Self {
            revision: version.revision,
            entries: object.map(Configuration::entries).unwrap_or_default(),
            fixed_type: object.and_then(Configuration::fixed_type),
        })
    }
}

/// What turns `old` into `new`: a unified diff for each text, a line for anything else; empty if they are
/// equal. Values of Secrets are told apart but not shown, unless `show_secrets` is set.
pub(super) fn render(target: &str, old: &Side<'_>, new: &Side<'_>, show_secrets: bool) -> String {
    let mut text = String::new();
    if let (Some(before), Some(after)) = (old.fixed_type, new.fixed_type)
        && before != after
    {
        text += &format!(
            "--- {target} type (revision {})\n+++ {target} type (revision {})\n-{before}\n+{after}\n",
            old.revision, new.revision
        );
    }
    let keys: BTreeSet<&str> = old.entries.keys().chain(new.entries.keys()).copied().collect();
    for key in keys {
        let (before, after) = (old.entries.get(key), new.entries.get(key));
        if before == after {
            continue;
        }
        let name = |side: &Side<'_>, value: Option<&Value<'_>>| match value {
            Some(value) => format!("{target} {}/{key} (revision {})", field(value), side.revision),
            None => "/dev/null".to_owned(),
        };
        let names = (name(old, before), name(new, after));
        text += &entry((before, after), &names, show_secrets);
    }
    text
}

fn field(value: &Value<'_>) -> &'static str {
    match value {
        Value::Text(_) | Value::Hidden(_) => "data",
        Value::Bytes(_) => "binaryData",
    }
}

fn entry(
    values: (Option<&Value<'_>>, Option<&Value<'_>>),
    names: &(String, String),
    show_secrets: bool,
) -> String {
    let hidden = |value: Option<&Value<'_>>| matches!(value, Some(Value::Hidden(_)));
    if !show_secrets && (hidden(values.0) || hidden(values.1)) {
        return masked(values.0.is_some(), values.1.is_some(), names);
    }
    match (shown(values.0), shown(values.1)) {
        (Some(before), Some(after)) => {
            let diff = TextDiff::from_lines(before, after);
            diff.unified_diff().header(&names.0, &names.1).to_string()
        }
        _ => format!(
            "--- {}\n+++ {}\nBinary values differ: {}, {}\n",
            names.0,
            names.1,
            sized(values.0),
            sized(values.1)
        ),
    }
}

/// As `kubectl diff` hides Secrets: that a value changed, and nothing of it.
fn masked(before: bool, after: bool, names: &(String, String)) -> String {
    let mut text = format!("--- {}\n+++ {}\n", names.0, names.1);
    let both = before && after;
    for (there, sign, when) in [(before, '-', " (before)"), (after, '+', " (after)")] {
        if there {
            text += &format!("{sign}{MASK}{}\n", if both { when } else { "" });
        }
    }
    text
}

/// The text of a value, which is empty if there is none; `None` for bytes that are no text.
fn shown<'a>(value: Option<&Value<'a>>) -> Option<&'a str> {
    match value {
        None => Some(""),
        Some(Value::Text(text)) => Some(text),
        Some(Value::Bytes(_)) => None,
        Some(Value::Hidden(bytes)) => std::str::from_utf8(bytes).ok(),
    }
}

fn sized(value: Option<&Value<'_>>) -> String {
    let bytes: &[u8] = match value {
        None => return "absent".to_owned(),
        Some(Value::Text(text)) => text.as_bytes(),
        Some(Value::Bytes(bytes) | Value::Hidden(bytes)) => bytes,
    };
    let digest: String = sha256(bytes).chars().take(12).collect();
    format!("{} bytes sha256:{digest}", bytes.len())
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
