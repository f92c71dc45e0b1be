//! Bodies to objects: JSON or YAML, and what is wrong with them (BEHAVIOURS 2.6).

mod strict;

use serde::Deserialize;
use serde_json::Value;

use super::request::Body;
use super::status::Error;
use super::types::{self, Shape};
use crate::kind::field::{Errors, Path};
use crate::kind::{Kind, Object};

/// Bytes a request's body may have (BEHAVIOURS 2.7).
pub const BODY_BYTES_MAX: usize = 3 << 20;

const ACCEPTED: &str = "application/json, application/yaml";

/// What to do about fields that are unknown or given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

impl FieldValidation {
    /// The query parameter; `options` is the kind of the request's options, for the error.
    pub(super) fn parse(text: Option<&str>, options: &str) -> Result<Self, Error> {
        match text {
            None | Some("" | "Warn") => Ok(Self::Warn),
            Some("Ignore") => Ok(Self::Ignore),
            Some("Strict") => Ok(Self::Strict),
            Some(other) => {
                let mut errors = Errors::default();
                let supported = ["", "Ignore", "Strict", "Warn"];
                errors.unsupported(&Path::new("fieldValidation"), other, &supported);
                Err(Error::invalid_options(options, &errors))
            }
        }
    }
}

/// An object, and texts for `Warning:` headers.
#[derive(Debug)]
pub(super) struct Decoded {
    pub(super) object: Box<dyn Object>,
    pub(super) warnings: Vec<String>,
}

/// The object of `kind` in a request's body.
pub(super) fn decode(kind: &'static Kind, body: Body, validation: FieldValidation) -> Result<Decoded, Error> {
    match body {
        Body::Object(object) => {
            let stored = kind.stored_kind();
            let (group, version) =
                object.api_version().rsplit_once('/').unwrap_or(("", object.api_version()));
            if (object.kind_name(), group, version) != (stored.kind, stored.group, stored.version) {
                return Err(cannot_convert(kind, object.kind_name(), version));
            }
            Ok(Decoded { object, warnings: Vec::new() })
        }
        Body::Value { value, .. } => {
            let object = from_value(kind, value)?;
            Ok(Decoded { object, warnings: Vec::new() })
        }
        Body::Empty => Err(unrecognised(kind, b"", "unexpected end of JSON input")),
        Body::Bytes { media_type, bytes } => {
            if bytes.len() > BODY_BYTES_MAX {
                return Err(too_large());
            }
            if is_yaml(media_type.as_deref())? {
                let value = yaml(&bytes).map_err(|why| unrecognised(kind, &bytes, &why))?;
                let json = serde_json::to_vec(&value).map_err(Error::internal)?;
                from_json(kind, &json, validation)
            } else {
                from_json(kind, &bytes, validation)
            }
        }
    }
}

/// 413
pub(super) fn too_large() -> Error {
    Error::too_large(format!("Request entity too large: limit is {BODY_BYTES_MAX}"))
}

/// Whether a media type says YAML rather than JSON; 415 if it says neither.
pub(super) fn is_yaml(media_type: Option<&str>) -> Result<bool, Error> {
    let media_type = media_type.and_then(|text| text.split(';').next()).unwrap_or_default();
    match media_type.trim() {
        "" | "*/*" | "application/json" => Ok(false),
        "application/yaml" | "application/x-yaml" | "text/yaml" => Ok(true),
        _ => Err(Error::unsupported_media_type(ACCEPTED)),
    }
}

/// YAML text as a JSON tree.
pub(super) fn yaml(bytes: &[u8]) -> Result<Value, String> {
    serde_saphyr::from_slice(bytes).map_err(|why| format!("error converting YAML to JSON: {why}"))
}

/// What a decoder said, and the fields it did not know.
type Attempt = (Result<Box<dyn Object>, serde_json::Error>, Vec<String>);

fn attempt(kind: &Kind, json: &[u8], validation: FieldValidation) -> Attempt {
    if validation == FieldValidation::Ignore {
        return (kind.strategy.decode_json(json), Vec::new());
    }
    let mut unknown = Vec::new();
    let object = kind.strategy.decode_json_strict(json, &mut |path| unknown.push(path));
    (object, unknown)
}

fn from_json(kind: &Kind, json: &[u8], validation: FieldValidation) -> Result<Decoded, Error> {
    let (object, unknown) = match attempt(kind, json, validation) {
        (Ok(object), unknown) => (object, unknown),
        (Err(_), _) => again(kind, json, validation)?,
    };
    if validation == FieldValidation::Ignore {
        return Ok(Decoded { object, warnings: Vec::new() });
    }
    let problems = strict::problems(json, &unknown);
    if validation == FieldValidation::Strict && !problems.is_empty() {
        let why = format!("strict decoding error: {}", problems.join(", "));
        return Err(cannot_handle(kind, kind.kind, kind.version, &why));
    }
    Ok(Decoded { object, warnings: problems })
}

/// The slow way, for what the types do not take as it is: forgiving where Go's decoder is, and
/// saying what is wrong as it does.
fn again(
    kind: &Kind,
    json: &[u8],
    validation: FieldValidation,
) -> Result<(Box<dyn Object>, Vec<String>), Error> {
    let mut value: Value = serde_json::from_slice(json)
        .map_err(|why| unrecognised(kind, json, &format!("json parse error: {why}")))?;
    check_kind(kind, &value, json)?;
    types::normalise(&mut value, Shape::of_kind(kind));
    let json = serde_json::to_vec(&value).map_err(Error::internal)?;
    match attempt(kind, &json, validation) {
        (Ok(object), unknown) => Ok((object, unknown)),
        (Err(why), _) => Err(cannot_decode(kind, &value, &why)),
    }
}

fn cannot_decode(kind: &Kind, value: &Value, why: &serde_json::Error) -> Error {
    let why = types::mismatch(value, Shape::of_kind(kind)).unwrap_or_else(|| why.to_string());
    cannot_handle(kind, kind.kind, kind.version, &why)
}

/// The object in a JSON tree, without strict checks.
pub(super) fn from_value(kind: &Kind, mut value: Value) -> Result<Box<dyn Object>, Error> {
    check_kind(kind, &value, b"")?;
    if let Ok(object) = kind.strategy.decode_value(value.clone()) {
        return Ok(object);
    }
    types::normalise(&mut value, Shape::of_kind(kind));
    match kind.strategy.decode_value(value.clone()) {
        Ok(object) => Ok(object),
        Err(why) => Err(cannot_decode(kind, &value, &why)),
    }
}

/// The object that a patch made of another; 422 about the patch if there is none.
pub(super) fn patched(kind: &Kind, value: &Value, validation: FieldValidation) -> Result<Decoded, Error> {
    let json = serde_json::to_vec(value).map_err(Error::internal)?;
    let invalid = |why: &str| Error::invalid_patch(&String::from_utf8_lossy(&json), why);
    let (object, unknown) = match attempt(kind, &json, validation) {
        (Ok(object), unknown) => (object, unknown),
        (Err(_), _) => again(kind, &json, validation).map_err(|error| {
            let text = error.to_string();
            let why = text.split_once("cannot be handled as a ").and_then(|(_, rest)| rest.split_once(": "));
            invalid(why.map_or(text.as_str(), |(_, why)| why))
        })?,
    };
    let problems = strict::unknown_fields(&unknown);
    if validation == FieldValidation::Strict && !problems.is_empty() {
        return Err(invalid(&format!("strict decoding error: {}", problems.join(", "))));
    }
    Ok(Decoded { object, warnings: problems })
}

/// A patch's document, and its fields that are given twice.
pub(super) fn patch_document(
    bytes: &[u8],
    validation: FieldValidation,
) -> Result<(Value, Vec<String>), Error> {
    if bytes.len() > BODY_BYTES_MAX {
        return Err(too_large());
    }
    let value = serde_json::from_slice(bytes)
        .map_err(|why| Error::bad_request(format!("error decoding patch: {why}")))?;
    if validation == FieldValidation::Ignore {
        return Ok((value, Vec::new()));
    }
    let problems = strict::problems(bytes, &[]);
    if validation == FieldValidation::Strict && !problems.is_empty() {
        let why = format!("strict decoding error: {}", problems.join(", "));
        return Err(Error::invalid_patch(&String::from_utf8_lossy(bytes), &why));
    }
    Ok((value, problems))
}

/// `DeleteOptions`, `Binding`: documents that are no objects of a kind.
pub(super) fn document<T: for<'de> Deserialize<'de> + Default>(body: Body, what: &str) -> Result<T, Error> {
    let wrong = |why: &dyn std::fmt::Display| Error::bad_request(format!("cannot read the {what}: {why}"));
    match body {
        Body::Empty | Body::Object(_) => Ok(T::default()),
        Body::Value { value, .. } => serde_json::from_value(value).map_err(|why| wrong(&why)),
        Body::Bytes { bytes, .. } if bytes.is_empty() => Ok(T::default()),
        Body::Bytes { media_type, bytes } => {
            if bytes.len() > BODY_BYTES_MAX {
                return Err(too_large());
            }
            if is_yaml(media_type.as_deref())? {
                let value = yaml(&bytes).map_err(|why| wrong(&why))?;
                serde_json::from_value(value).map_err(|why| wrong(&why))
            } else {
                serde_json::from_slice(&bytes).map_err(|why| wrong(&why))
            }
        }
    }
}

fn check_kind(kind: &Kind, value: &Value, body: &[u8]) -> Result<(), Error> {
    let Some(fields) = value.as_object() else {
        return Err(unrecognised(kind, body, "couldn't get version/kind; the body is no JSON object"));
    };
    let text = |name: &str| match fields.get(name) {
        None | Some(Value::Null) => Ok(""),
        Some(Value::String(text)) => Ok(text.as_str()),
        Some(_) => Err(unrecognised(kind, body, &format!("couldn't get version/kind; {name} is no string"))),
    };
    let (found, api_version) = (text("kind")?, text("apiVersion")?);
    let version = api_version.rsplit('/').next().unwrap_or_default();
    let version = if version.is_empty() { kind.version } else { version };
    if !found.is_empty() && found != kind.kind {
        return Err(cannot_convert(kind, found, version));
    }
    if !api_version.is_empty() && api_version != kind.api_version() {
        let why = format!("no kind {:?} is registered for version {api_version:?}", kind.kind);
        return Err(cannot_handle(kind, kind.kind, version, &why));
    }
    Ok(())
}

fn cannot_convert(kind: &Kind, found: &str, version: &str) -> Error {
    let group = if kind.group.is_empty() { "core" } else { kind.group };
    let why = format!("converting ({version}.{found}) to ({group}.{}): unknown conversion", kind.kind);
    cannot_handle(kind, found, version, &why)
}

fn cannot_handle(kind: &Kind, found: &str, version: &str, why: &str) -> Error {
    let into = kind.kind;
    Error::bad_request(format!("{found} in version {version:?} cannot be handled as a {into}: {why}"))
}

fn unrecognised(kind: &Kind, body: &[u8], why: &str) -> Error {
    // Upstream shows the beginning of a body that might be text.
    let beginning = match body {
        [] => "<empty>".to_owned(),
        [b'{', ..] if body.len() > 30 => format!("{} ...", String::from_utf8_lossy(&body[..30])),
        [b'{', ..] => String::from_utf8_lossy(body).into_owned(),
        _ => body.iter().take(30).map(|byte| format!("{byte:02x}")).collect(),
    };
    let into = kind.kind;
    Error::bad_request(format!(
        "the object provided is unrecognized (must be of type {into}): {why} ({beginning})"
    ))
}

#[cfg(test)]
mod tests;
