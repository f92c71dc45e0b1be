//! Bodies in Kubernetes' protobuf, read into JSON.
//!
//! Answers are never protobuf: clients that prefer it take JSON. But a client of 1.32 or later, kubectl's
//! `create` commands among them, sends its objects in protobuf and has no other way when that is refused.
//!
//! `fields.txt` lists the fields of the API types by number: the name in JSON (`-` if the message's fields
//! are the parent's in JSON, `?` behind it if it is a pointer in Go) and the type (`[]` repeated, `{}` a map
//! by string). Field numbers never change, so the list only grows, with the kinds that are served. Fields
//! that are not in it are passed over, as protobuf wants it.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::status::Error;

/// The media type of such bodies.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// What such a body begins with.
const MAGIC: &[u8] = b"k8s\0";

/// One field of a message.
struct Field {
    number: u64,
    /// Empty if the message's fields are the parent's.
    name: &'static str,
    /// Whether a zero means something other than absence.
    pointer: bool,
    kind: Type,
}

enum Type {
    Text,
    Bytes,
    Bool,
    Int,
    Time,
    MicroTime,
    Quantity,
    IntOrString,
    /// JSON as bytes.
    Raw,
    Message(&'static str),
    List(Box<Type>),
    Map(Box<Type>),
}

impl Type {
    fn parse(text: &'static str) -> Self {
        if let Some(element) = text.strip_prefix("[]") {
            return Self::List(Box::new(Self::parse(element)));
        }
        if let Some(value) = text.strip_prefix("{}") {
            return Self::Map(Box::new(Self::parse(value)));
        }
        match text {
            "string" => Self::Text,
            "bytes" => Self::Bytes,
            "bool" => Self::Bool,
            "int" => Self::Int,
            "Time" => Self::Time,
            "MicroTime" => Self::MicroTime,
            "Quantity" => Self::Quantity,
            "IntOrString" => Self::IntOrString,
            "Raw" => Self::Raw,
            name => Self::Message(name),
        }
    }
}

/// Messages by name; those outside the core group have their group's first word before it.
static MESSAGES: LazyLock<BTreeMap<&'static str, Vec<Field>>> = LazyLock::new(|| {
    let mut messages: BTreeMap<&str, Vec<Field>> = BTreeMap::new();
    let mut current = "";
    for line in include_str!("protobuf/fields.txt").lines() {
        let Some(field) = line.strip_prefix("  ") else {
            current = line;
            messages.insert(current, Vec::new());
            continue;
        };
        let mut words = field.split(' ');
        let (Some(number), Some(name), Some(kind)) = (words.next(), words.next(), words.next()) else {
            unreachable!("a field is a number, a name and a type: {line}")
        };
        let bare = name.trim_end_matches('?');
        messages.entry(current).or_default().push(Field {
            number: number.parse().expect("a field begins with its number"),
            name: if bare == "-" { "" } else { bare },
            pointer: bare.len() < name.len(),
            kind: Type::parse(kind),
        });
    }
    messages
});

/// The JSON of the object in a protobuf body.
///
/// # Errors
/// 400 if the body is not such a message, or of a kind that is not known.
pub fn to_json(body: &[u8]) -> Result<Bytes, Error> {
    let wrong = |why: &str| Error::bad_request(format!("the protobuf body cannot be decoded: {why}"));
    let envelope = body
        .strip_prefix(MAGIC)
        .ok_or_else(|| wrong("it does not begin with the bytes 6b 38 73 00 of a Kubernetes message"))?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    let mut reader = Reader(envelope);
    while let Some((number, value)) = reader.field().map_err(wrong)? {
        match (number, value) {
            (1, Wire::Bytes(type_meta)) => {
                let mut reader = Reader(type_meta);
                while let Some((number, value)) = reader.field().map_err(wrong)? {
                    match (number, value) {
                        (1, Wire::Bytes(text)) => api_version = utf8(text).map_err(wrong)?.to_owned(),
                        (2, Wire::Bytes(text)) => kind = utf8(text).map_err(wrong)?.to_owned(),
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let name = message_of(&api_version, &kind).ok_or_else(|| {
        Error::bad_request(format!("no kind {kind:?} is registered for version {api_version:?}"))
    })?;
    let mut object = Map::new();
    read_message(name, raw, &mut object).map_err(wrong)?;
    object.insert("apiVersion".to_owned(), json!(api_version));
    object.insert("kind".to_owned(), json!(kind));
    Ok(Value::Object(object).to_string().into())
}

fn message_of(api_version: &str, kind: &str) -> Option<&'static str> {
    let name = match (api_version, kind) {
        (_, "DeleteOptions") => "meta.DeleteOptions".to_owned(),
        ("v1", kind) => kind.to_owned(),
        (api_version, kind) => {
            let group = api_version.strip_suffix("/v1")?.split('.').next()?;
            format!("{group}.{kind}")
        }
    };
    MESSAGES.get_key_value(name.as_str()).map(|(name, _)| *name)
}

type Failure = &'static str;

fn read_message(name: &str, bytes: &[u8], object: &mut Map<String, Value>) -> Result<(), Failure> {
    let fields = MESSAGES.get(name).map_or(&[][..], Vec::as_slice);
    let mut reader = Reader(bytes);
    while let Some((number, wire)) = reader.field()? {
        let Some(field) = fields.iter().find(|field| field.number == number) else { continue };
        match (&field.kind, wire) {
            (Type::Message(inner), Wire::Bytes(bytes)) if field.name.is_empty() => {
                read_message(inner, bytes, object)?;
            }
            (Type::Map(kind), Wire::Bytes(entry)) => {
                let map = object.entry(field.name).or_insert_with(|| json!({}));
                let (key, value) = read_entry(kind, entry)?;
                if let Value::Object(map) = map {
                    map.insert(key, value);
                }
            }
            (Type::List(kind), wire) => {
                let list = object.entry(field.name).or_insert_with(|| json!([]));
                if let Value::Array(list) = list {
                    read_element(kind, wire, list)?;
                }
            }
            (kind, wire) => {
                let value = read_value(kind, wire)?;
                if field.pointer || !is_zero(&value) {
                    object.insert(field.name.to_owned(), value);
                }
            }
        }
    }
    Ok(())
}

/// What Go leaves out unless the field is a pointer.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(_) | Value::Object(_) => false,
    }
}

fn read_entry(kind: &Type, entry: &[u8]) -> Result<(String, Value), Failure> {
    let (mut key, mut value) = (String::new(), Value::Null);
    let mut reader = Reader(entry);
    while let Some((number, wire)) = reader.field()? {
        match (number, wire) {
            (1, Wire::Bytes(text)) => key = utf8(text)?.to_owned(),
            (2, wire) => value = read_value(kind, wire)?,
            _ => {}
        }
    }
    if value.is_null() {
        // An absent value is an empty one.
        value = read_value(kind, Wire::Bytes(&[]))?;
    }
    Ok((key, value))
}

fn read_element(kind: &Type, wire: Wire<'_>, list: &mut Vec<Value>) -> Result<(), Failure> {
    match (kind, wire) {
        (Type::Int | Type::Bool, Wire::Bytes(packed)) => {
            let mut reader = Reader(packed);
            while !reader.0.is_empty() {
                let number = reader.varint()?;
                list.push(read_value(kind, Wire::Varint(number))?);
            }
        }
        (kind, wire) => list.push(read_value(kind, wire)?),
    }
    Ok(())
}

fn read_value(kind: &Type, wire: Wire<'_>) -> Result<Value, Failure> {
    Ok(match (kind, wire) {
        (Type::Text, Wire::Bytes(bytes)) => json!(utf8(bytes)?),
        (Type::Bytes, Wire::Bytes(bytes)) => json!(STANDARD.encode(bytes)),
        (Type::Bool, Wire::Varint(number)) => json!(number != 0),
        (Type::Int, Wire::Varint(number)) => json!(number.cast_signed()),
        (Type::Time | Type::MicroTime, Wire::Bytes(bytes)) => read_time(kind, bytes)?,
        (Type::Quantity, Wire::Bytes(bytes)) => match first_text(bytes, 1)? {
            "" => json!("0"),
            text => json!(text),
        },
        (Type::IntOrString, Wire::Bytes(bytes)) => read_int_or_string(bytes)?,
        (Type::Raw, Wire::Bytes(bytes)) => match first_text(bytes, 1)? {
            "" => Value::Null,
            text => serde_json::from_str(text).map_err(|_| "an embedded object is not JSON")?,
        },
        (Type::Message(name), Wire::Bytes(bytes)) => {
            let mut object = Map::new();
            read_message(name, bytes, &mut object)?;
            Value::Object(object)
        }
        _ => return Err("a field has another type than its kind says"),
    })
}

fn read_time(kind: &Type, bytes: &[u8]) -> Result<Value, Failure> {
    let (mut seconds, mut nanos) = (0, 0);
    let mut reader = Reader(bytes);
    while let Some((number, wire)) = reader.field()? {
        match (number, wire) {
            (1, Wire::Varint(number)) => seconds = number.cast_signed(),
            (2, Wire::Varint(number)) => nanos = number.cast_signed(),
            _ => {}
        }
    }
    if (seconds, nanos) == (0, 0) {
        return Ok(Value::Null);
    }
    let nanos = i32::try_from(nanos).map_err(|_| "a time is out of range")?;
    let time = Timestamp::new(seconds, nanos).map_err(|_| "a time is out of range")?;
    let format =
        if matches!(kind, Type::MicroTime) { "%Y-%m-%dT%H:%M:%S.%6fZ" } else { "%Y-%m-%dT%H:%M:%SZ" };
    Ok(json!(time.strftime(format).to_string()))
}

fn read_int_or_string(bytes: &[u8]) -> Result<Value, Failure> {
    let (mut is_text, mut number, mut text) = (false, 0, "");
    let mut reader = Reader(bytes);
    while let Some((field, wire)) = reader.field()? {
        match (field, wire) {
            (1, Wire::Varint(kind)) => is_text = kind != 0,
            (2, Wire::Varint(value)) => number = value.cast_signed(),
            (3, Wire::Bytes(value)) => text = utf8(value)?,
            _ => {}
        }
    }
    Ok(if is_text { json!(text) } else { json!(number) })
}

/// The text of field `wanted`, empty if there is none.
fn first_text(bytes: &[u8], wanted: u64) -> Result<&str, Failure> {
    let mut reader = Reader(bytes);
    while let Some((number, wire)) = reader.field()? {
        if let (true, Wire::Bytes(text)) = (number == wanted, wire) {
            return utf8(text);
        }
    }
    Ok("")
}

fn utf8(bytes: &[u8]) -> Result<&str, Failure> {
    std::str::from_utf8(bytes).map_err(|_| "a text is not UTF-8")
}

/// A value as it is on the wire.
enum Wire<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    /// A number of fixed size, which no field that is read has.
    Fixed,
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// The next field's number and value; `None` at the end.
    fn field(&mut self) -> Result<Option<(u64, Wire<'a>)>, Failure> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => {
                self.take(8)?;
                Wire::Fixed
            }
            2 => {
                let length = self.varint()?;
                Wire::Bytes(self.take(length)?)
            }
            5 => {
                self.take(4)?;
                Wire::Fixed
            }
            _ => return Err("a field has a wire type that is not in use"),
        };
        Ok(Some((tag >> 3, value)))
    }

    fn varint(&mut self) -> Result<u64, Failure> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let Some((&byte, rest)) = self.0.split_first() else { return Err("a number is cut off") };
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("a number is too long")
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], Failure> {
        let taken = usize::try_from(length).ok().and_then(|length| self.0.split_at_checked(length));
        let (taken, rest) = taken.ok_or("a field is cut off")?;
        self.0 = rest;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests;
