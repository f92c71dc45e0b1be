//! Strategic merge patch: a merge patch that knows which lists are maps (BEHAVIOURS 3.4, 3.5).
//!
//! The rules are those of apimachinery's `pkg/util/strategicpatch`, including where merged elements
//! end up: elements named by the patch keep its order, the others stay between their neighbours.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::merge_keys::{self, MergeKey};
use super::types::Shape;

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const ORDER: &str = "$setElementOrder/";

/// Merges `patch` into `original`, an object of `shape`. The error is for a 400.
pub(super) fn merge(original: Map<String, Value>, patch: Value, shape: &Shape) -> Result<Value, String> {
    match patch {
        Value::Object(patch) => merge_map(original, patch, shape).map(Value::Object),
        other => Err(format!("cannot unmarshal {other} into a strategic merge patch, which is an object")),
    }
}

fn merge_map(
    mut original: Map<String, Value>,
    mut patch: Map<String, Value>,
    shape: &Shape,
) -> Result<Map<String, Value>, String> {
    if let Some(directive) = patch.remove(DIRECTIVE) {
        match directive.as_str() {
            Some("replace") => return Ok(without_directives(patch)),
            Some("delete") => return Ok(Map::new()),
            Some("merge") => {}
            _ => return Err(format!("unknown patch type: {directive} in map: {}", Value::Object(patch))),
        }
    }
    retain_keys(&mut original, &mut patch)?;
    let orders: Vec<String> = patch.keys().filter(|key| key.starts_with(ORDER)).cloned().collect();
    for marker in orders {
        let order = list(patch.remove(&marker).unwrap_or_default(), &marker)?;
        let field = &marker[ORDER.len()..];
        merge_ordered(&mut original, &mut patch, field, order, shape)?;
    }
    for (key, value) in patch {
        if let Some(field) = key.strip_prefix(DELETE_FROM) {
            let gone = list(value, &key)?;
            if let Some(Value::Array(have)) = original.get_mut(field) {
                have.retain(|one| !gone.contains(one));
            }
            continue;
        }
        if value.is_null() {
            original.remove(&key);
            continue;
        }
        let of = shape.field(&key);
        let key_facts = merge_keys::lookup(shape.short_name(), &key);
        let merged = match (original.remove(&key), value) {
            (Some(Value::Object(have)), Value::Object(patch)) if !is_replaced(key_facts) => {
                Value::Object(merge_map(have, patch, of.unwrap_or(&Shape::Any))?)
            }
            (Some(Value::Array(have)), Value::Array(patch)) if is_merged(key_facts) => {
                let element = of.map_or(&Shape::Any, Shape::element);
                Value::Array(merge_list(have, patch, merge_key(key_facts), element)?)
            }
            (_, Value::Array(patch)) if is_merged(key_facts) => {
                let element = of.map_or(&Shape::Any, Shape::element);
                Value::Array(merge_list(Vec::new(), patch, merge_key(key_facts), element)?)
            }
            (_, value) => plain(value),
        };
        original.insert(key, merged);
    }
    Ok(original)
}

fn is_merged(facts: Option<&MergeKey>) -> bool {
    strategies(facts).any(|one| one == "merge")
}

fn is_replaced(facts: Option<&MergeKey>) -> bool {
    strategies(facts).any(|one| one == "replace")
}

fn strategies(facts: Option<&MergeKey>) -> impl Iterator<Item = &'static str> {
    facts.and_then(|facts| facts.patch_strategy).unwrap_or_default().split(',')
}

fn merge_key(facts: Option<&MergeKey>) -> Option<&'static str> {
    facts.and_then(|facts| facts.patch_merge_key)
}

/// `$retainKeys`: fields of the original that it does not name are cleared.
fn retain_keys(original: &mut Map<String, Value>, patch: &mut Map<String, Value>) -> Result<(), String> {
    let Some(keys) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let keys = list(keys, RETAIN_KEYS)?;
    let named = |key: &str| keys.iter().any(|one| one.as_str() == Some(key));
    if let Some(stray) = patch.keys().find(|key| !key.starts_with('$') && !named(key)) {
        return Err(format!("bad patch format: {RETAIN_KEYS} does not name the patched field {stray:?}"));
    }
    original.retain(|key, _| named(key));
    Ok(())
}

/// A list whose patch says in which order the elements must come.
fn merge_ordered(
    original: &mut Map<String, Value>,
    patch: &mut Map<String, Value>,
    field: &str,
    order: Vec<Value>,
    shape: &Shape,
) -> Result<(), String> {
    let facts = merge_keys::lookup(shape.short_name(), field);
    if !is_merged(facts) {
        return Ok(());
    }
    let key = merge_key(facts);
    let element = shape.field(field).map_or(&Shape::Any, Shape::element);
    let patched = match patch.remove(field) {
        None => Vec::new(),
        Some(Value::Null) => {
            original.remove(field);
            return Ok(());
        }
        Some(value) => list(value, field)?,
    };
    let deleted = patch.remove(&format!("{DELETE_FROM}{field}"));
    for one in &patched {
        let is_deletion = one.get(DIRECTIVE).is_some();
        if !is_deletion && !order.iter().any(|other| same(one, other, key)) {
            return Err(format!(
                "The order in patch list:\n{patched:?}\n doesn't match {ORDER}{field} list:\n{order:?}\n"
            ));
        }
    }
    let had = match original.remove(field) {
        Some(Value::Array(had)) => had,
        _ if patched.is_empty() => return Ok(()),
        _ => Vec::new(),
    };
    let mut merged = merge_list(had.clone(), patched, key, element)?;
    if let Some(deleted) = deleted {
        let gone = list(deleted, field)?;
        merged.retain(|one| !gone.contains(one));
    }
    original.insert(field.to_owned(), Value::Array(in_order(merged, &order, &had, key)));
    Ok(())
}

fn merge_list(
    original: Vec<Value>,
    patch: Vec<Value>,
    key: Option<&str>,
    element: &Shape,
) -> Result<Vec<Value>, String> {
    let Some(key) = key else {
        let mut merged: Vec<Value> = Vec::new();
        for one in original.iter().chain(&patch) {
            if !merged.contains(one) {
                merged.push(one.clone());
            }
        }
        return Ok(in_order(merged, &patch, &original, None));
    };
    let mut merged = original.clone();
    let mut rest: Vec<Value> = Vec::new();
    let mut replaces = false;
    for mut one in patch {
        let Some(fields) = one.as_object_mut() else {
            return Err(format!("cannot merge {one} into a list of objects by {key}"));
        };
        match fields.remove(DIRECTIVE) {
            None => rest.push(one),
            Some(Value::String(directive)) if directive == "merge" => rest.push(one),
            Some(Value::String(directive)) if directive == "replace" => {
                replaces = true;
                if !fields.is_empty() {
                    rest.push(one);
                }
            }
            Some(Value::String(directive)) if directive == "delete" => {
                let wanted = fields.get(key).ok_or_else(|| lacks_key(fields, key))?;
                merged.retain(|have| have.get(key) != Some(wanted));
            }
            Some(directive) => return Err(format!("unknown patch type: {directive} in map: {one}")),
        }
    }
    if replaces {
        return Ok(rest.into_iter().map(plain).collect());
    }
    for one in &rest {
        let Some(fields) = one.as_object() else { continue };
        let wanted = fields.get(key).ok_or_else(|| lacks_key(fields, key))?;
        let found = merged.iter_mut().find(|have| have.get(key) == Some(wanted));
        match found {
            Some(Value::Object(have)) => {
                *have = merge_map(std::mem::take(have), fields.clone(), element)?;
            }
            _ => merged.push(Value::Object(merge_map(Map::new(), fields.clone(), element)?)),
        }
    }
    Ok(in_order(merged, &rest, &original, Some(key)))
}

fn lacks_key(fields: &Map<String, Value>, key: &str) -> String {
    format!("map: {} does not contain declared merge key: {key}", Value::Object(fields.clone()))
}

/// `merged` so that elements of `order` come in its order, and the others before the first element
/// that followed them in `had`.
fn in_order(merged: Vec<Value>, order: &[Value], had: &[Value], key: Option<&str>) -> Vec<Value> {
    let place = |list: &[Value], one: &Value| list.iter().position(|other| same(one, other, key));
    let (mut named, mut others): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|one| place(order, one).is_some());
    named.sort_by_cached_key(|one| place(order, one));
    others.sort_by_cached_key(|one| place(had, one));
    let mut result = Vec::with_capacity(named.len() + others.len());
    let (mut named, mut others) = (named.into_iter().peekable(), others.into_iter().peekable());
    loop {
        let other_first = match (others.peek(), named.peek()) {
            (None, None) => return result,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some(other), Some(next)) => match (place(had, other), place(had, next)) {
                (Some(other), Some(next)) => other < next,
                _ => false,
            },
        };
        result.extend(if other_first { others.next() } else { named.next() });
    }
}

fn same(one: &Value, other: &Value, key: Option<&str>) -> bool {
    match key {
        Some(key) => one.get(key).is_some() && one.get(key) == other.get(key),
        None => one == other,
    }
}

/// A patch's value where there is nothing to merge with: without directives and nulls.
fn plain(value: Value) -> Value {
    match value {
        Value::Object(fields) => Value::Object(without_directives(fields)),
        Value::Array(elements) => Value::Array(
            elements
                .into_iter()
                .filter(|one| one.get(DIRECTIVE).and_then(Value::as_str) != Some("delete"))
                .map(plain)
                .collect(),
        ),
        other => other,
    }
}

fn without_directives(fields: Map<String, Value>) -> Map<String, Value> {
    fields
        .into_iter()
        .filter(|(key, value)| {
            let directive = key == DIRECTIVE
                || key == RETAIN_KEYS
                || key.starts_with(DELETE_FROM)
                || key.starts_with(ORDER);
            !directive && !value.is_null()
        })
        .map(|(key, value)| (key, plain(value)))
        .collect()
}

fn list(value: Value, name: &str) -> Result<Vec<Value>, String> {
    match value {
        Value::Array(elements) => Ok(elements),
        other => {
            let other: Cow<'_, str> = other.to_string().into();
            Err(format!("{name} must be a list, not {other}"))
        }
    }
}

#[cfg(test)]
mod tests;
