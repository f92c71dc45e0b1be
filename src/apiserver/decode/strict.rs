//! Fields that a body gives twice or that no type knows, in the order of the text.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Upstream's bound on what it tells of one body.
const PROBLEMS_MAX: usize = 100;

/// `unknown field "spec.foo"`, `duplicate field "spec.replicas"`; `unknown` are the paths that the
/// types did not know.
pub(super) fn problems(json: &[u8], unknown: &[String]) -> Vec<String> {
    let unknown_set = unknown.iter().map(String::as_str).collect();
    let mut walk = Walk { unknown: unknown_set, path: String::new(), found: Vec::new() };
    let mut decoder = serde_json::Deserializer::from_slice(json);
    // The body was decoded before, so it is well formed.
    if walk.deserialize(&mut decoder).is_err() {
        return unknown_fields(unknown);
    }
    walk.found
}

/// As [`problems`], where there can be no duplicates.
pub(super) fn unknown_fields(unknown: &[String]) -> Vec<String> {
    unknown.iter().take(PROBLEMS_MAX).map(|path| format!("unknown field {path:?}")).collect()
}

struct Walk<'u> {
    unknown: HashSet<&'u str>,
    path: String,
    found: Vec<String>,
}

impl Walk<'_> {
    fn add(&mut self, what: &str) {
        let text = format!("{what} field {:?}", self.path);
        if self.found.len() < PROBLEMS_MAX && !self.found.contains(&text) {
            self.found.push(text);
        }
    }
}

impl<'de> DeserializeSeed<'de> for &mut Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &mut Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen: HashSet<Cow<'de, str>> = HashSet::new();
        let length = self.path.len();
        while let Some(Key(key)) = map.next_key()? {
            if length > 0 {
                self.path.push('.');
            }
            self.path.push_str(&key);
            if self.unknown.contains(self.path.as_str()) {
                self.add("unknown");
                map.next_value::<IgnoredAny>()?;
            } else {
                if !seen.insert(key) {
                    self.add("duplicate");
                }
                map.next_value_seed(&mut *self)?;
            }
            self.path.truncate(length);
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let length = self.path.len();
        for index in 0_usize.. {
            self.path.push_str(&format!("[{index}]"));
            let more = list.next_element_seed(&mut *self)?;
            self.path.truncate(length);
            if more.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// A key, borrowed from the text where it has no escapes.
struct Key<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Key<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Text)
    }
}
