//! kubectl's tables: columns of a kind, cells of an object (BEHAVIOURS 6.1 to 6.3).

use jiff::Timestamp;

use super::object::Object;

/// One column of a kind's table.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    pub name: &'static str,
    /// `string`, `integer`, `date`, `boolean`
    pub r#type: &'static str,
    /// `name` for the first column, else empty
    pub format: &'static str,
    pub description: &'static str,
    /// 0 is always shown, 1 with `-o wide`.
    pub priority: i32,
}

/// One value in a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    Text(String),
    Number(i64),
}

impl Cell {
    /// `text`, or `<none>` if it is empty.
    #[must_use]
    pub fn or_none(text: &str) -> Self {
        Self::Text(if text.is_empty() { "<none>".to_owned() } else { text.to_owned() })
    }
}

/// The `Name` column, which every table begins with.
pub const NAME: Column = Column {
    name: "Name",
    r#type: "string",
    format: "name",
    description: "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names",
    priority: 0,
};

/// A column without a description of its own.
#[must_use]
pub const fn column(name: &'static str, r#type: &'static str, priority: i32) -> Column {
    Column { name, r#type, format: "", description: "", priority }
}

/// A column whose description is that of the field it shows, as upstream has it.
#[must_use]
pub const fn described(
    name: &'static str,
    r#type: &'static str,
    priority: i32,
    description: &'static str,
) -> Column {
    Column { name, r#type, format: "", description, priority }
}

/// The `Age` column.
pub const AGE: Column = described(
    "Age",
    "string",
    0,
    "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata",
);

/// The table of a kind that says nothing else.
pub const NAME_AND_AGE: &[Column] = &[NAME, AGE];

/// A count of things.
#[must_use]
pub fn count(things: usize) -> Cell {
    Cell::Number(i64::try_from(things).unwrap_or(i64::MAX))
}

#[must_use]
pub fn name_and_age(object: &dyn Object, now: Timestamp) -> Vec<Cell> {
    vec![name(object), age(object, now)]
}

#[must_use]
pub fn name(object: &dyn Object) -> Cell {
    Cell::Text(object.metadata().name.clone().unwrap_or_default())
}

/// Time since creation, `<unknown>` without one.
#[must_use]
pub fn age(object: &dyn Object, now: Timestamp) -> Cell {
    Cell::Text(since(object.metadata().creation_timestamp.as_ref().map(|time| time.0), now))
}

/// Time since `then`, `<unknown>` without one.
#[must_use]
pub fn since(then: Option<Timestamp>, now: Timestamp) -> String {
    then.map_or_else(|| "<unknown>".to_owned(), |then| human_duration(now.duration_since(then).as_secs()))
}

/// Kubernetes' short form of a length of time, as apimachinery `duration.HumanDuration` gives it:
/// two units while the first is small, then one.
#[must_use]
pub fn human_duration(seconds: i64) -> String {
    let (minute, hour, day) = (60, 3600, 86_400);
    let two = |big: i64, big_unit: &str, small: i64, small_unit: &str| {
        if small == 0 { format!("{big}{big_unit}") } else { format!("{big}{big_unit}{small}{small_unit}") }
    };
    match seconds {
        i64::MIN..=-2 => "<invalid>".to_owned(),
        -1..=0 => "0s".to_owned(),
        s if s < 2 * minute => format!("{s}s"),
        s if s < 10 * minute => two(s / minute, "m", s % minute, "s"),
        s if s < 3 * hour => format!("{}m", s / minute),
        s if s < 8 * hour => two(s / hour, "h", s % hour / minute, "m"),
        s if s < 2 * day => format!("{}h", s / hour),
        s if s < 8 * day => two(s / day, "d", s % day / hour, "h"),
        s if s < 2 * 365 * day => format!("{}d", s / day),
        s if s < 8 * 365 * day => two(s / (365 * day), "y", s % (365 * day) / day, "d"),
        s => format!("{}y", s / (365 * day)),
    }
}

#[cfg(test)]
mod tests {
    use super::human_duration;

    #[test]
    fn ages_read_as_kubernetes_writes_them() {
        for (seconds, text) in [
            (-5, "<invalid>"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (312, "5m12s"),
            (3600, "60m"),
            (3 * 3600 + 60, "3h1m"),
            (9 * 3600, "9h"),
            (3 * 86_400 + 4 * 3600, "3d4h"),
            (800 * 86_400, "2y70d"),
        ] {
            assert_eq!(human_duration(seconds), text, "{seconds}");
        }
    }
}
