//! `coracle config history`: the versions as a table.

use jiff::Timestamp;

use super::content::{Configuration, Entries, changed_keys};
use crate::client::remote::{Change, ObjectHistory, Version};
use crate::kind::table;

/// Digits of a hash that a table shows, enough to tell contents apart.
const HASH_DIGITS: usize = 12;

/// What kubectl shows where there is nothing to show.
const NONE: &str = "<none>";

/// One line for each version, oldest first, below the names of the columns.
pub(super) fn render<K: Configuration>(history: &ObjectHistory<K>, now: Timestamp) -> String {
    let header = ["CURRENT", "REVISION", "AGE", "CHANGE", "HASH", "KEYS"].map(str::to_owned);
    let mut rows = vec![header];
    let mut before: Option<&Version<K>> = None;
    for (at, version) in history.items.iter().enumerate() {
        let is_current = at + 1 == history.items.len() && version.change != Change::Deleted;
        let (change, keys) = describe(before, version);
        rows.push([
            if is_current { "*" } else { "" }.to_owned(),
            version.revision.to_string(),
            table::since(version.time.as_ref().map(|time| time.0), now),
            change.to_owned(),
            version.hash.as_deref().map_or_else(|| NONE.to_owned(), short),
            keys,
        ]);
        before = Some(version);
    }
    columns(&rows)
}

/// The word for a change, and the keys that it touched.
fn describe<K: Configuration>(before: Option<&Version<K>>, version: &Version<K>) -> (&'static str, String) {
    let Some(object) = &version.object else {
        let word = if version.change == Change::Deleted { "Deleted" } else { "Destroyed" };
        return (word, NONE.to_owned());
    };
    let old = match (version.change, before.map(|before| &before.object)) {
        (Change::Added, _) => Entries::new(),
        (Change::Modified | Change::Deleted, Some(Some(old))) => old.entries(),
        // What was there is no longer known.
        (Change::Modified | Change::Deleted, Some(None) | None) => {
            return ("Changed", "<unknown>".to_owned());
        }
    };
    let keys = changed_keys(&old, &object.entries());
    let word = match (version.change, keys.is_empty()) {
        (Change::Added, _) => "Created",
        (Change::Modified | Change::Deleted, true) => "Metadata",
        (Change::Modified | Change::Deleted, false) => "Changed",
    };
    (word, if keys.is_empty() { NONE.to_owned() } else { keys })
}

fn short(hash: &str) -> String {
    hash.rsplit(':').next().unwrap_or(hash).chars().take(HASH_DIGITS).collect()
}

/// Columns as wide as their widest cell and three spaces apart, as kubectl has them.
fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for row in rows {
        let line: String = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}   ")).collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use serde_json::{Value, json};

    use super::*;

    #[track_caller]
    fn check(items: Value, expected: &[&str]) {
        let history = json!({"since": 0, "truncated": false, "items": items});
        let history: ObjectHistory<ConfigMap> = serde_json::from_value(history).unwrap();
        let now = "2026-01-01T01:00:00Z".parse().unwrap();
        let shown = render(&history, now);
        let mut lines = shown.lines();
        assert!(lines.next().unwrap().starts_with("CURRENT   REVISION   AGE"), "{shown}");
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(lines.map(words).collect::<Vec<_>>(), expected);
    }

    fn item(revision: u64, change: &str, data: Value) -> Value {
        json!({
            "revision": revision, "type": change, "time": "2026-01-01T00:55:00.123456Z",
            "hash": "sha256:0123456789abcdef", "object": {"data": data},
        })
    }

    #[test]
    fn each_change_is_told_by_its_keys() {
        check(
            json!([
                item(3, "Added", json!({"a": "1", "b": "1", "c": "1"})),
                item(5, "Modified", json!({"a": "1", "b": "2", "d": "1"})),
                item(6, "Modified", json!({"a": "1", "b": "2", "d": "1"})),
            ]),
            &[
                "3 4m59s Created 0123456789ab +a +b +c",
                "5 4m59s Changed 0123456789ab ~b -c +d",
                "* 6 4m59s Metadata 0123456789ab <none>",
            ],
        );
    }

    #[test]
    fn what_is_not_known_is_not_made_up() {
        check(
            json!([{"revision": 9, "type": "Modified", "object": {"data": {"a": "1"}}}]),
            &["* 9 <unknown> Changed <none> <unknown>"],
        );
        check(
            json!([
                {"revision": 2, "type": "Added", "destroyed": true},
                {"revision": 4, "type": "Deleted", "time": "2026-01-01T00:59:59Z"},
                item(7, "Added", json!({})),
                {"revision": 8, "type": "Deleted"},
            ]),
            &[
                "2 <unknown> Destroyed <none> <none>",
                "4 1s Deleted <none> <none>",
                "7 4m59s Created 0123456789ab <none>",
                "8 <unknown> Deleted <none> <none>",
            ],
        );
    }

    #[test]
    fn columns_are_aligned() {
        let rows = [["A", "BB"], ["long", "x"]].map(|row| row.map(str::to_owned));
        assert_eq!(columns(&rows), "A      BB\nlong   x\n");
    }
}
