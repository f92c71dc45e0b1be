//! What the `Accept` header asks for, and what of it can be had (BEHAVIOURS 6.1, 6.6).
//!
//! JSON and YAML are served, objects as they are or as tables or bare metadata. Protobuf is only read
//! (see [`super::protobuf`]): clients that accept JSON behind it get JSON, the others 406.

use super::status::Error;

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Json,
    Yaml,
}

/// What becomes of the objects in a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    AsIs,
    /// kubectl's table; the version is that of `meta.k8s.io`.
    Table(&'static str),
    /// `PartialObjectMetadata`
    Metadata(&'static str),
    /// `PartialObjectMetadataList`
    MetadataList(&'static str),
}

/// The answer to an `Accept` header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    pub encoding: Encoding,
    pub form: Form,
    /// Indented JSON.
    pub pretty: bool,
}

impl Accepted {
    /// What a client gets that asks for nothing.
    pub const DEFAULT: Self = Self { encoding: Encoding::Json, form: Form::AsIs, pretty: false };
}

/// One clause of an `Accept` header.
struct Clause<'a> {
    media_type: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
    /// In thousandths.
    quality: u32,
}

impl Clause<'_> {
    /// Empty if it is not given.
    fn parameter(&self, name: &str) -> &str {
        self.parameters.iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value)
    }
}

/// The clauses of `header`, best first; equals stay in order.
fn clauses(header: &str) -> Vec<Clause<'_>> {
    let mut clauses: Vec<Clause<'_>> = header
        .split(',')
        .filter_map(|clause| {
            let mut parts = clause.split(';').map(str::trim);
            let media_type = parts.next().filter(|text| !text.is_empty())?;
            let mut quality = 1000;
            let mut parameters = Vec::new();
            for (name, value) in parts.filter_map(|part| part.split_once('=')) {
                let (name, value) = (name.trim(), value.trim().trim_matches('"'));
                if name == "q" {
                    quality = thousandths(value);
                } else {
                    parameters.push((name, value));
                }
            }
            Some(Clause { media_type, parameters, quality })
        })
        .collect();
    clauses.sort_by_key(|clause| std::cmp::Reverse(clause.quality));
    clauses
}

/// `0.25` as 250; anything unreadable as 1000.
fn thousandths(quality: &str) -> u32 {
    let (whole, fraction) = quality.split_once('.').unwrap_or((quality, ""));
    let fraction: String = fraction.chars().chain("000".chars()).take(3).collect();
    match (whole.parse::<u32>(), fraction.parse::<u32>()) {
        (Ok(0), Ok(fraction)) => fraction,
        _ => 1000,
    }
}

/// What a resource request gets. `watch` leaves out YAML, which has no way to end an event.
///
/// # Errors
/// 406 if nothing of the header can be served.
pub fn resource(header: Option<&str>, watch: bool) -> Result<Accepted, Error> {
    let Some(header) = header.filter(|header| !header.trim().is_empty()) else {
        return Ok(Accepted::DEFAULT);
    };
    for clause in clauses(header) {
        let encoding = match clause.media_type {
            "application/json" | "application/*" | "*/*" => Encoding::Json,
            "application/yaml" if !watch => Encoding::Yaml,
            _ => continue,
        };
        let value = |name: &str| clause.parameter(name);
        let Some(form) = form(value("as"), value("g"), value("v")) else { continue };
        if !matches!(value("stream"), "" | "watch") {
            continue;
        }
        return Ok(Accepted { encoding, form, pretty: value("pretty") == "1" });
    }
    Err(Error::not_acceptable(if watch {
        "application/json;stream=watch"
    } else {
        "application/json, application/yaml"
    }))
}

fn form(kind: &str, group: &str, version: &str) -> Option<Form> {
    if kind.is_empty() && group.is_empty() && version.is_empty() {
        return Some(Form::AsIs);
    }
    let version = match (group, version) {
        ("meta.k8s.io", "v1") => "meta.k8s.io/v1",
        ("meta.k8s.io", "v1beta1") => "meta.k8s.io/v1beta1",
        _ => return None,
    };
    match kind {
        "Table" => Some(Form::Table(version)),
        "PartialObjectMetadata" => Some(Form::Metadata(version)),
        "PartialObjectMetadataList" => Some(Form::MetadataList(version)),
        _ => None,
    }
}

/// The forms of `/api` and `/apis` (BEHAVIOURS 7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discovery {
    /// Lists of versions and groups.
    Legacy(Encoding),
    /// Everything at once; the version is that of `apidiscovery.k8s.io`.
    Aggregated(&'static str),
}

/// What a request for `/api` or `/apis` gets.
///
/// # Errors
/// 406 if nothing of the header can be served.
pub fn discovery(header: Option<&str>) -> Result<Discovery, Error> {
    let Some(header) = header.filter(|header| !header.trim().is_empty()) else {
        return Ok(Discovery::Legacy(Encoding::Json));
    };
    for clause in clauses(header) {
        let value = |name: &str| clause.parameter(name);
        let encoding = match clause.media_type {
            "application/json" | "application/*" | "*/*" => Encoding::Json,
            "application/yaml" => Encoding::Yaml,
            _ => continue,
        };
        match (value("g"), value("v"), value("as")) {
            ("", "", "") => return Ok(Discovery::Legacy(encoding)),
            ("apidiscovery.k8s.io", version, "APIGroupDiscoveryList") if encoding == Encoding::Json => {
                match version {
                    "v2" => return Ok(Discovery::Aggregated("v2")),
                    "v2beta1" => return Ok(Discovery::Aggregated("v2beta1")),
                    _ => {}
                }
            }
            _ => {}
        }
    }
    Err(Error::not_acceptable("application/json, application/yaml"))
}

/// The encoding of a plain document, such as a group-version's list of resources.
///
/// # Errors
/// 406 if nothing of the header can be served.
pub fn document(header: Option<&str>) -> Result<Encoding, Error> {
    match resource(header, false)? {
        Accepted { encoding, form: Form::AsIs, .. } => Ok(encoding),
        Accepted { .. } => Err(Error::not_acceptable("application/json, application/yaml")),
    }
}

/// What a request for an OpenAPI document gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenApi {
    Json,
    /// `application/com.github.proto-openapi.spec.v2@v1.0+protobuf`
    ProtobufV2,
}

/// The media type of [`OpenApi::ProtobufV2`], which older paths of client-go name alone.
pub const OPENAPI_V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

/// The same as it is written in an answer, where clients take no `@`.
pub const OPENAPI_V2_PROTOBUF_ANSWERED: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// The form of `/openapi/v2` (`v2`) and `/openapi/v3/…`.
///
/// # Errors
/// 406 if nothing of the header can be served.
pub fn openapi(header: Option<&str>, v2: bool) -> Result<OpenApi, Error> {
    let Some(header) = header.filter(|header| !header.trim().is_empty()) else {
        return Ok(OpenApi::Json);
    };
    for clause in clauses(header) {
        match clause.media_type {
            "application/json" | "application/*" | "*/*" => return Ok(OpenApi::Json),
            OPENAPI_V2_PROTOBUF if v2 => return Ok(OpenApi::ProtobufV2),
            _ => {}
        }
    }
    Err(Error::not_acceptable("application/json"))
}

/// Whether `Accept-Encoding` names gzip and does not refuse it.
#[must_use]
pub fn accepts_gzip(header: Option<&str>) -> bool {
    header.is_some_and(|header| {
        clauses(header).iter().any(|clause| clause.media_type == "gzip" && clause.quality > 0)
    })
}

#[cfg(test)]
mod tests;
