//! Tables of cases around one object: an ordinary one as JSON, and changes to it.

use jiff::Timestamp;
use serde_json::Value;

use super::table::Cell;
use super::testing::lines;
use super::{Kind, Object};

/// A kind and an ordinary object of it, which cases change by merge patches.
pub(super) struct Fixture {
    pub(super) kind: &'static Kind,
    pub(super) base: fn() -> Value,
}

impl Fixture {
    pub(super) fn object(&self, change: Value) -> Box<dyn Object> {
        let mut value = (self.base)();
        json_patch::merge(&mut value, &change);
        self.decode(value)
    }

    fn decode(&self, value: Value) -> Box<dyn Object> {
        let mut object = self.kind.strategy.decode_value(value).unwrap();
        self.kind.strategy.set_defaults(&mut *object);
        object
    }

    /// Creates the base with a change: what is wrong with it, as `field: message`.
    #[track_caller]
    pub(super) fn valid(&self, change: Value, expected: &[&str]) {
        let mut object = self.object(change);
        self.kind.strategy.prepare_create(&mut *object);
        let mut errors = self.kind.strategy.validate(&*object);
        errors.extend(self.kind.strategy.validate_create(&*object));
        assert_eq!(lines(&errors), expected);
    }

    /// Creates the base with a change, then updates it: what is wrong with the update.
    #[track_caller]
    pub(super) fn update(&self, create: Value, change: Value, expected: &[&str]) {
        let (new, old) = self.updated(create, change);
        let mut errors = self.kind.strategy.validate(&*new);
        errors.extend(self.kind.strategy.validate_update(&*new, &*old));
        assert_eq!(lines(&errors), expected);
    }

    /// What an update stores, and what was there before.
    pub(super) fn updated(&self, create: Value, change: Value) -> (Box<dyn Object>, Box<dyn Object>) {
        let old = self.created(create);
        let mut value = self.kind.served(&*old).map_or_else(|| old.to_value(), |served| served.to_value());
        json_patch::merge(&mut value, &change);
        let mut new = self.decode(value);
        self.kind.strategy.prepare_update(&mut *new, &*old);
        (new, old)
    }

    /// What a status update stores; the change is to the whole object.
    pub(super) fn status_updated(&self, create: Value, change: Value) -> Box<dyn Object> {
        let old = self.object(create);
        let mut value = old.to_value();
        json_patch::merge(&mut value, &change);
        let mut new = self.decode(value);
        self.kind.strategy.prepare_status_update(&mut *new, &*old);
        new
    }

    /// What a create stores.
    pub(super) fn created(&self, change: Value) -> Box<dyn Object> {
        let mut object = self.object(change);
        self.kind.strategy.prepare_create(&mut *object);
        object
    }

    /// The row of an object (not sent through create, so with its status) an hour into 1970.
    #[track_caller]
    pub(super) fn cells(&self, change: Value, expected: &[&str]) {
        let cells = self.kind.strategy.cells(&*self.object(change), Timestamp::from_second(3600).unwrap());
        assert_eq!(cells.len(), self.kind.columns.len(), "one cell for each column");
        let texts: Vec<String> = cells
            .into_iter()
            .map(|cell| match cell {
                Cell::Text(text) => text,
                Cell::Number(number) => number.to_string(),
            })
            .collect();
        assert_eq!(texts, expected);
    }
}
