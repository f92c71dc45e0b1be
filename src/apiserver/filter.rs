//! What a list or a watch selects: labels and fields of one kind (BEHAVIOURS 6.4, 6.5).

use std::borrow::Cow;
use std::cell::OnceCell;

use super::handle::decoded;
use super::request::Options;
use super::status::Error;
use crate::kind::Kind;
use crate::kind::selector::{FieldSelector, LabelSelector};
use crate::store::Record;

const NAME: &str = "metadata.name";
const NAMESPACE: &str = "metadata.namespace";

/// The selectors of one request.
#[derive(Clone)]
pub(super) struct Filter {
    kind: &'static Kind,
    labels: LabelSelector,
    fields: FieldSelector,
    /// The fields can be judged by the key alone.
    by_key: bool,
}

impl Filter {
    /// Reads the selectors; `name` restricts to one object. 400 if they are wrong.
    pub(super) fn parse(kind: &'static Kind, options: &Options, name: Option<&str>) -> Result<Self, Error> {
        let labels = LabelSelector::parse(options.label_selector.as_deref().unwrap_or_default())
            .map_err(Error::bad_request)?;
        let mut fields = FieldSelector::parse(options.field_selector.as_deref().unwrap_or_default())
            .map_err(Error::bad_request)?;
        let names = kind.strategy.field_names();
        for field in fields.fields() {
            let known = field == NAME || field == NAMESPACE || names.contains(&field);
            if !known {
                return Err(Error::bad_request(format!("field label not supported: {field}")));
            }
        }
        if let Some(name) = name {
            fields = fields.and_equal(NAME, name);
        }
        let by_key = fields.fields().all(|field| field == NAME || field == NAMESPACE);
        Ok(Self { kind, labels, fields, by_key })
    }

    /// Whether every object passes, so that a list can count what remains.
    pub(super) fn matches_everything(&self) -> bool {
        self.labels.matches_everything() && self.fields.matches_everything()
    }

    /// The only name that can pass, if there is one.
    pub(super) fn name(&self) -> Option<&str> {
        self.fields.required(NAME)
    }

    pub(super) fn keeps(&self, record: &Record) -> bool {
        if self.matches_everything() {
            return true;
        }
        let by_key = |field: &str| match field {
            NAME => Some(Cow::Borrowed(&*record.key.name)),
            NAMESPACE => Some(Cow::Borrowed(&*record.key.namespace)),
            _ => None,
        };
        if self.by_key && self.labels.matches_everything() {
            return self.fields.matches(by_key);
        }
        if self.name().is_some_and(|name| name != &*record.key.name) {
            return false;
        }
        let object = decoded(self.kind, record);
        if !self.labels.matches(object.metadata().labels.as_ref()) {
            return false;
        }
        let values = OnceCell::new();
        self.fields.matches(|field| {
            by_key(field).or_else(|| {
                let values = values.get_or_init(|| self.kind.strategy.fields(&*object));
                values.iter().find(|(name, _)| *name == field).map(|(_, value)| Cow::Owned(value.clone()))
            })
        })
    }
}
