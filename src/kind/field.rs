//! Paths to fields, and the errors found there, in Kubernetes' words (BEHAVIOURS 5.3).

use std::fmt::{self, Display};

/// A path such as `spec.containers[0].ports`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path(String);

impl Path {
    #[must_use]
    pub fn new(root: &str) -> Self {
        Self(root.to_owned())
    }

    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        Self(if self.0.is_empty() { name.to_owned() } else { format!("{}.{name}", self.0) })
    }

    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    /// For map keys: `data[key]`.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        Self(format!("{}[{key}]", self.0))
    }

    pub(crate) fn of_ignored(path: &serde_ignored::Path<'_>) -> String {
        use serde_ignored::Path as Ignored;
        match path {
            Ignored::Root => String::new(),
            Ignored::Seq { parent, index } => format!("{}[{index}]", Self::of_ignored(parent)),
            Ignored::Map { parent, key } => {
                let parent = Self::of_ignored(parent);
                if parent.is_empty() { key.clone() } else { format!("{parent}.{key}") }
            }
            Ignored::Some { parent }
            | Ignored::NewtypeStruct { parent }
            | Ignored::NewtypeVariant { parent } => Self::of_ignored(parent),
        }
    }
}

impl Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One error: a cause of a 422.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    pub field: String,
    /// `FieldValueRequired`, `FieldValueInvalid`, `FieldValueNotSupported`, `FieldValueForbidden`,
    /// `FieldValueDuplicate`, `FieldValueTooLong`, `FieldValueTooMany`, `FieldValueNotFound`
    pub reason: &'static str,
    /// Without the field: `Invalid value: "x": why`.
    pub message: String,
}

/// The errors of one object, in the order found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Errors(pub Vec<FieldError>);

impl Errors {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn extend(&mut self, more: Self) {
        self.0.extend(more.0);
    }

    fn add(&mut self, field: &Path, reason: &'static str, message: String) {
        self.0.push(FieldError { field: field.to_string(), reason, message });
    }

    /// `Required value` or `Required value: why`
    pub fn required(&mut self, field: &Path, why: &str) {
        let message =
            if why.is_empty() { "Required value".to_owned() } else { format!("Required value: {why}") };
        self.add(field, "FieldValueRequired", message);
    }

    /// `Invalid value: "x": why`; strings are quoted, other values are shown as JSON.
    pub fn invalid(&mut self, field: &Path, value: impl serde::Serialize, why: &str) {
        let value = serde_json::to_string(&value).unwrap_or_default();
        let message = if why.is_empty() {
            format!("Invalid value: {value}")
        } else {
            format!("Invalid value: {value}: {why}")
        };
        self.add(field, "FieldValueInvalid", message);
    }

    /// `Unsupported value: "x": supported values: "A", "B"`
    pub fn unsupported(&mut self, field: &Path, value: impl serde::Serialize, supported: &[&str]) {
        let value = serde_json::to_string(&value).unwrap_or_default();
        let list: Vec<String> = supported.iter().map(|one| format!("{one:?}")).collect();
        self.add(
            field,
            "FieldValueNotSupported",
            format!("Unsupported value: {value}: supported values: {}", list.join(", ")),
        );
    }

    /// `Forbidden: why`
    pub fn forbidden(&mut self, field: &Path, why: &str) {
        self.add(field, "FieldValueForbidden", format!("Forbidden: {why}"));
    }

    /// `Duplicate value: "x"`
    pub fn duplicate(&mut self, field: &Path, value: impl serde::Serialize) {
        let value = serde_json::to_string(&value).unwrap_or_default();
        self.add(field, "FieldValueDuplicate", format!("Duplicate value: {value}"));
    }

    /// `Too long: may not be more than N bytes`
    pub fn too_long(&mut self, field: &Path, bytes_max: usize) {
        self.add(field, "FieldValueTooLong", format!("Too long: may not be more than {bytes_max} bytes"));
    }

    /// `Not found: "x"`
    pub fn not_found(&mut self, field: &Path, value: impl serde::Serialize) {
        let value = serde_json::to_string(&value).unwrap_or_default();
        self.add(field, "FieldValueNotFound", format!("Not found: {value}"));
    }
}

/// What is wrong with `name` as a DNS-1123 subdomain, up to 253 characters; empty if nothing.
#[must_use]
pub fn dns_subdomain(name: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if name.len() > 253 {
        wrong.push("must be no more than 253 characters".to_owned());
    }
    if name.is_empty() || !name.split('.').all(is_dns_label_text) {
        wrong.push("a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')".to_owned());
    }
    wrong
}

/// What is wrong with `name` as a DNS-1123 label, up to 63 characters; empty if nothing.
#[must_use]
pub fn dns_label(name: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if name.len() > 63 {
        wrong.push("must be no more than 63 characters".to_owned());
    }
    if name.contains('.') && name.split('.').all(is_dns_label_text) {
        wrong.push("must not contain dots".to_owned());
    } else if !is_dns_label_text(name) {
        wrong.push("a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')".to_owned());
    }
    wrong
}

fn is_dns_label_text(text: &str) -> bool {
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    ends(text.chars().next())
        && ends(text.chars().next_back())
        && text.chars().all(|c| c == '-' || c.is_ascii_lowercase() || c.is_ascii_digit())
}
