//! What controllers see: all objects, as the watches have told them so far.
//!
//! Objects are shared with the store, so an entry costs a pointer. Kinds are watched independently:
//! one may be a little ahead of another. Decisions that would do harm if an object had only not been
//! seen yet are therefore guarded by [`super::Action::RequireAbsent`] or
//! [`super::Action::RequireEmpty`].

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::kind::{self, Kind, Object, Typed};

/// A kind, ordered by group and plural.
#[derive(Clone, Copy, Debug)]
pub struct KindRef(pub &'static Kind);

impl KindRef {
    /// The kind of objects of type `K`.
    #[must_use]
    pub fn of<K: Typed>() -> Self {
        Self(kind::of::<K>())
    }

    fn order(&self) -> (&str, &str) {
        (self.0.group, self.0.plural)
    }
}

impl PartialEq for KindRef {
    fn eq(&self, other: &Self) -> bool {
        self.order() == other.order()
    }
}

impl Eq for KindRef {}

impl PartialOrd for KindRef {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for KindRef {
    fn cmp(&self, other: &Self) -> Ordering {
        self.order().cmp(&other.order())
    }
}

/// The name of an object, or of something a controller looks after.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub kind: KindRef,
    /// Empty for cluster-scoped objects.
    pub namespace: String,
    pub name: String,
}

impl Key {
    #[must_use]
    pub fn new(kind: KindRef, namespace: &str, name: &str) -> Self {
        Self { kind, namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// The object's own.
    #[must_use]
    pub fn to(kind: KindRef, object: &dyn Object) -> Self {
        Self::new(kind, namespace(object), name(object))
    }
}

#[must_use]
pub fn namespace(object: &dyn Object) -> &str {
    object.metadata().namespace.as_deref().unwrap_or_default()
}

#[must_use]
pub fn name(object: &dyn Object) -> &str {
    object.metadata().name.as_deref().unwrap_or_default()
}

#[must_use]
pub fn uid(object: &dyn Object) -> &str {
    object.metadata().uid.as_deref().unwrap_or_default()
}

/// Seconds since 1970 of the object's creation.
#[must_use]
pub fn created(object: &dyn Object) -> i64 {
    object.metadata().creation_timestamp.as_ref().map_or(0, |time| time.0.as_second())
}

/// An object in a set ordered by namespace and name, which stand in the object itself.
#[derive(Clone)]
struct Entry(Arc<dyn Object>);

/// What entries are looked up by.
trait Named {
    fn names(&self) -> (&str, &str);
}

impl Named for Entry {
    fn names(&self) -> (&str, &str) {
        (namespace(&*self.0), name(&*self.0))
    }
}

impl Named for (&str, &str) {
    fn names(&self) -> (&str, &str) {
        *self
    }
}

impl<'a> Borrow<dyn Named + 'a> for Entry {
    fn borrow(&self) -> &(dyn Named + 'a) {
        self
    }
}

impl PartialEq for dyn Named + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.names() == other.names()
    }
}

impl Eq for dyn Named + '_ {}

impl PartialOrd for dyn Named + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for dyn Named + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        self.names().cmp(&other.names())
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.names() == other.names()
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        self.names().cmp(&other.names())
    }
}

/// A way to find objects by something in them.
#[derive(Clone, Copy)]
pub struct Index {
    pub name: &'static str,
    /// Gives the values an object is found by, each with its place among the objects of that value.
    pub of: fn(&dyn Object, Give<'_>),
}

/// Takes a value and a place.
pub type Give<'a> = &'a mut dyn FnMut(&str, i64);

type Indexed = BTreeSet<(i64, KindRef, Entry)>;

/// One view of all objects.
#[derive(Default)]
pub struct Snapshot {
    kinds: BTreeMap<KindRef, BTreeSet<Entry>>,
    indexes: Vec<(&'static Index, HashMap<String, Indexed>)>,
}

impl Snapshot {
    #[must_use]
    pub fn new(indexes: impl IntoIterator<Item = &'static Index>) -> Self {
        let mut known: Vec<(&'static Index, HashMap<String, Indexed>)> = Vec::new();
        for index in indexes {
            // Controllers may share one.
            if known.iter().all(|(one, _)| one.name != index.name) {
                known.push((index, HashMap::new()));
            }
        }
        Self { kinds: BTreeMap::new(), indexes: known }
    }

    #[must_use]
    pub fn get_any(&self, kind: KindRef, namespace: &str, name: &str) -> Option<&Arc<dyn Object>> {
        let wanted: &dyn Named = &(namespace, name);
        self.kinds.get(&kind)?.get(wanted).map(|entry| &entry.0)
    }

    #[must_use]
    pub fn get<K: Typed>(&self, namespace: &str, name: &str) -> Option<&K> {
        self.get_any(KindRef::of::<K>(), namespace, name)?.downcast_ref()
    }

    /// All of a kind, by namespace and name.
    pub fn all(&self, kind: KindRef) -> impl Iterator<Item = &Arc<dyn Object>> {
        self.kinds.get(&kind).into_iter().flatten().map(|entry| &entry.0)
    }

    /// All of a kind in a namespace, by name.
    pub fn in_namespace<'a>(
        &'a self,
        kind: KindRef,
        inside: &'a str,
    ) -> impl Iterator<Item = &'a Arc<dyn Object>> {
        let from: &dyn Named = &(inside, "");
        let range = (std::ops::Bound::Included(from), std::ops::Bound::Unbounded);
        let set = self.kinds.get(&kind).map(|set| set.range::<dyn Named, _>(range));
        set.into_iter()
            .flatten()
            .map(|entry| &entry.0)
            .take_while(move |object| namespace(&***object) == inside)
    }

    /// The objects that `index` finds by `value`, in its order, and their kinds.
    pub fn indexed<'a>(
        &'a self,
        index: &str,
        value: &str,
    ) -> impl ExactSizeIterator<Item = (KindRef, &'a Arc<dyn Object>)> + use<'a> {
        static NONE: Indexed = Indexed::new();
        let found =
            self.indexes.iter().find(|(known, _)| known.name == index).and_then(|(_, by)| by.get(value));
        found.unwrap_or(&NONE).iter().map(|(_, kind, entry)| (*kind, &entry.0))
    }

    /// Takes an object's new content; returns the old.
    pub fn insert(&mut self, kind: KindRef, object: Arc<dyn Object>) -> Option<Arc<dyn Object>> {
        let old = self.remove(kind, namespace(&*object), name(&*object));
        for (index, by) in &mut self.indexes {
            (index.of)(&*object, &mut |value, place| {
                by.entry(value.to_owned()).or_default().insert((place, kind, Entry(object.clone())));
            });
        }
        self.kinds.entry(kind).or_default().insert(Entry(object));
        old
    }

    pub fn remove(&mut self, kind: KindRef, namespace: &str, name: &str) -> Option<Arc<dyn Object>> {
        let wanted: &dyn Named = &(namespace, name);
        let Entry(old) = self.kinds.get_mut(&kind)?.take(wanted)?;
        for (index, by) in &mut self.indexes {
            (index.of)(&*old, &mut |value, place| {
                if let Some(found) = by.get_mut(value) {
                    found.remove(&(place, kind, Entry(old.clone())));
                    if found.is_empty() {
                        by.remove(value);
                    }
                }
            });
        }
        Some(old)
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{ConfigMap, Secret};
    use serde_json::json;

    use super::*;

    static BY_DATA: Index = Index {
        name: "by data",
        of: |object, give| {
            for (key, value) in
                object.downcast_ref::<ConfigMap>().and_then(|m| m.data.as_ref()).into_iter().flatten()
            {
                give(key, value.parse().expect("a number"));
            }
        },
    };

    fn map(namespace: &str, name: &str, data: serde_json::Value) -> Arc<dyn Object> {
        let map = json!({ "metadata": { "namespace": namespace, "name": name }, "data": data });
        Arc::new(serde_json::from_value::<ConfigMap>(map).unwrap())
    }

    fn names<'a>(objects: impl Iterator<Item = &'a Arc<dyn Object>>) -> Vec<&'a str> {
        objects.map(|object| name(&**object)).collect()
    }

    #[test]
    fn objects_are_found_by_name_namespace_and_index() {
        let kind = KindRef::of::<ConfigMap>();
        let mut seen = Snapshot::new([&BY_DATA]);
        for (namespace, name, data) in [
            ("b", "x", json!({ "k": "2" })),
            ("a", "y", json!({ "k": "1" })),
            ("ab", "z", json!({ "k": "3", "l": "1" })),
            ("a", "x", json!({})),
        ] {
            assert!(seen.insert(kind, map(namespace, name, data)).is_none());
        }
        assert_eq!(names(seen.all(kind)), ["x", "y", "z", "x"]);
        assert_eq!(names(seen.in_namespace(kind, "a")), ["x", "y"]);
        assert_eq!(names(seen.in_namespace(kind, "c")), [""; 0]);
        assert_eq!(names(seen.in_namespace(KindRef::of::<Secret>(), "a")), [""; 0]);
        assert!(seen.get::<ConfigMap>("a", "y").is_some() && seen.get::<ConfigMap>("a", "z").is_none());
        let by = |seen: &Snapshot, value: &str| {
            seen.indexed("by data", value).map(|(_, object)| name(&**object).to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(by(&seen, "k"), ["y", "x", "z"], "in the index's order");
        // New content moves it, a removed object leaves no trace.
        assert!(seen.insert(kind, map("a", "y", json!({ "l": "0" }))).is_some());
        assert_eq!(
            (by(&seen, "k"), by(&seen, "l")),
            (vec!["x".into(), "z".into()], vec!["y".into(), "z".into()])
        );
        assert!(seen.remove(kind, "ab", "z").is_some());
        assert!(seen.remove(kind, "ab", "z").is_none());
        assert_eq!((by(&seen, "k"), by(&seen, "l")), (vec!["x".to_owned()], vec!["y".to_owned()]));
    }
}
