//! Where the next page of a list begins: opaque to clients (BEHAVIOURS 1.6).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::status::Error;

const VERSION: &str = "meta.k8s.io/v1";

/// A token that continues from the newest state.
const INCONSISTENT: i64 = -1;

/// The key behind which a list goes on, and the state it shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ContinueToken {
    /// `None`: the newest.
    pub(super) revision: Option<u64>,
    /// `ns/name`, or `name` of cluster-scoped objects.
    start: String,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    v: String,
    rv: i64,
    start: String,
}

impl ContinueToken {
    pub(super) fn new(revision: Option<u64>, namespace: &str, name: &str, namespaced: bool) -> Self {
        let start = if namespaced { format!("{namespace}/{name}") } else { name.to_owned() };
        Self { revision, start }
    }

    /// Reads a token; 400 if it is not one.
    pub(super) fn parse(text: &str) -> Result<Self, Error> {
        let wrong = |why: &str| Error::bad_request(format!("continue key is not valid: {why}"));
        let json =
            URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(|why| wrong(&why.to_string()))?;
        let wire: Wire = serde_json::from_slice(&json).map_err(|why| wrong(&why.to_string()))?;
        if wire.v != VERSION {
            return Err(wrong(&format!("server does not recognize this encoded version {:?}", wire.v)));
        }
        let revision = match wire.rv {
            INCONSISTENT => None,
            rv => match u64::try_from(rv) {
                Ok(rv) if rv > 0 => Some(rv),
                _ => return Err(wrong("incorrect encoded start resourceVersion")),
            },
        };
        match wire.start.strip_suffix('\0') {
            Some(start) if !start.is_empty() => Ok(Self { revision, start: start.to_owned() }),
            _ => Err(wrong("encoded start key empty or invalid")),
        }
    }

    pub(super) fn encode(&self) -> String {
        let rv = self.revision.map_or(INCONSISTENT, |revision| i64::try_from(revision).unwrap_or(i64::MAX));
        let wire = Wire { v: VERSION.to_owned(), rv, start: format!("{}\0", self.start) };
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&wire).expect("two texts and a number are JSON"))
    }

    /// The key (namespace, name) that was the last of the page before.
    pub(super) fn after(&self, namespaced: bool) -> (&str, &str) {
        match self.start.split_once('/') {
            Some(key) if namespaced => key,
            _ => ("", &self.start),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_where_to_go_on() {
        let token = ContinueToken::new(Some(7), "ns", "a", true);
        let json = URL_SAFE_NO_PAD.decode(token.encode()).unwrap();
        assert_eq!(String::from_utf8(json).unwrap(), r#"{"v":"meta.k8s.io/v1","rv":7,"start":"ns/a\u0000"}"#);
        assert_eq!(ContinueToken::parse(&token.encode()).unwrap(), token);
        assert_eq!(token.after(true), ("ns", "a"));
        let newest = ContinueToken::new(None, "", "a", false);
        assert_eq!(ContinueToken::parse(&newest.encode()).unwrap().after(false), ("", "a"));
    }

    #[test]
    fn other_texts_are_refused() {
        let encoded = |json: &str| URL_SAFE_NO_PAD.encode(json);
        for text in [
            "x".to_owned(),
            "*".to_owned(),
            encoded("{}"),
            encoded(r#"{"v":"v2","rv":1,"start":"a\u0000"}"#),
            encoded(r#"{"v":"meta.k8s.io/v1","rv":0,"start":"a\u0000"}"#),
            encoded(r#"{"v":"meta.k8s.io/v1","rv":1,"start":"a"}"#),
            encoded(r#"{"v":"meta.k8s.io/v1","rv":1,"start":"\u0000"}"#),
        ] {
            assert_eq!(ContinueToken::parse(&text).unwrap_err().code(), 400, "{text}");
        }
    }
}
