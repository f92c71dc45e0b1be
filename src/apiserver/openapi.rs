//! OpenAPI: what objects look like, for kubectl's `explain`, `create` and `apply` (BEHAVIOURS 7.4, 7.5).
//!
//! Schemas and descriptions are those of the API types; how lists merge comes from `merge_keys`; paths
//! and operations follow from the kinds. A document is built when it is first asked for and kept
//! compressed, because most clients take it so and ask once.

mod paths;
mod schemas;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::discovery::{Discovery, hex};
use super::version::GIT_VERSION;
use crate::kind::Kind;

/// The documents of one server.
pub struct OpenApi {
    discovery: Discovery,
    built: Mutex<BTreeMap<String, Arc<Built>>>,
}

/// One group-version's document.
#[derive(Clone, Debug)]
pub struct Built {
    /// Of the content.
    pub hash: String,
    pub gzip: Bytes,
}

impl Built {
    fn new(content: &Value) -> Self {
        let json = content.to_string();
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(json.as_bytes()).expect("a Vec takes every byte");
        let gzip = encoder.finish().expect("a Vec takes every byte").into();
        Self { hash: hex(&Sha256::digest(json.as_bytes())), gzip }
    }

    /// The document, uncompressed.
    #[must_use]
    pub fn json(&self) -> Bytes {
        let mut json = Vec::new();
        GzDecoder::new(&self.gzip[..]).read_to_end(&mut json).expect("it was compressed right here");
        json.into()
    }
}

impl OpenApi {
    #[must_use]
    pub fn new(kinds: &'static [&'static Kind]) -> Self {
        Self { discovery: Discovery::new(kinds), built: Mutex::default() }
    }

    /// The documents' paths below `/openapi/v3/`: `api/v1`, `apis/batch/v1`.
    #[must_use]
    pub fn paths(&self) -> Vec<String> {
        self.discovery.group_versions().into_iter().map(|(group, version)| path(group, version)).collect()
    }

    /// `/openapi/v3`: where the documents are, each under a URL that changes with its content.
    #[must_use]
    pub fn index(&self) -> String {
        let paths: serde_json::Map<String, Value> = self
            .paths()
            .into_iter()
            .filter_map(|path| {
                let hash = self.document(&path)?.hash;
                let url = format!("/openapi/v3/{path}?hash={hash}");
                Some((path, json!({ "serverRelativeURL": url })))
            })
            .collect();
        json!({ "paths": paths }).to_string()
    }

    /// The document at `/openapi/v3/<path>`.
    #[must_use]
    pub fn document(&self, path: &str) -> Option<Built> {
        let mut built = self.built.lock().expect("building a document does not panic half-way");
        if let Some(built) = built.get(path) {
            return Some(Built::clone(built));
        }
        let (group, version) = self.named(path)?;
        let document = Arc::new(Built::new(&build(&self.discovery.kinds_of(group, version), group, version)));
        built.insert(path.to_owned(), Arc::clone(&document));
        Some(Built::clone(&document))
    }

    fn named(&self, wanted: &str) -> Option<(&'static str, &'static str)> {
        self.discovery.group_versions().into_iter().find(|(group, version)| path(group, version) == wanted)
    }

    /// `/openapi/v2` as JSON: all definitions, without paths.
    #[must_use]
    pub fn v2(&self) -> String {
        let mut definitions = serde_json::Map::new();
        for (group, version) in self.discovery.group_versions() {
            let built = schemas::build(&self.discovery.kinds_of(group, version));
            definitions.extend(built.components);
        }
        let document = json!({
            "swagger": "2.0",
            "info": { "title": "Kubernetes", "version": GIT_VERSION },
            "paths": {},
            "definitions": definitions,
        });
        document.to_string().replace("\"#/components/schemas/", "\"#/definitions/")
    }

    /// `/openapi/v2` as protobuf, without definitions. kubectl fetches it to check a `List` on its own
    /// side; what it finds no definition for it leaves to the server, which checks everything.
    #[must_use]
    pub fn v2_protobuf() -> Bytes {
        // message Document { string swagger = 1; Info info = 2; Paths paths = 8; Definitions definitions = 9; }
        // message Info { string title = 1; string version = 2; }
        let mut info = Vec::new();
        text_field(&mut info, 1, "Kubernetes".as_bytes());
        text_field(&mut info, 2, GIT_VERSION.as_bytes());
        let mut document = Vec::new();
        text_field(&mut document, 1, b"2.0");
        text_field(&mut document, 2, &info);
        text_field(&mut document, 8, b"");
        text_field(&mut document, 9, b"");
        document.into()
    }
}

/// A length-delimited protobuf field shorter than 128 bytes.
fn text_field(message: &mut Vec<u8>, number: u8, content: &[u8]) {
    let length = u8::try_from(content.len()).expect("a short text");
    debug_assert!(length < 0x80, "one byte holds the length");
    message.extend([number << 3 | 2, length]);
    message.extend_from_slice(content);
}

fn path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

fn build(kinds: &[&'static Kind], group: &str, version: &str) -> Value {
    let schemas::Built { components, names } = schemas::build(kinds);
    json!({
        "openapi": "3.0.0",
        "info": { "title": "Kubernetes", "version": GIT_VERSION },
        "paths": paths::build(kinds, &names, group, version),
        "components": { "schemas": components },
    })
}

#[cfg(test)]
mod tests;
