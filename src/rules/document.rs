//! JSON documents: the differences of two, and selected fields of one.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The most listed differences.
const MOST: usize = 20;

/// The longest key in a path: keys come from users, and paths are in messages.
const LONGEST_KEY: usize = 80;

/// The paths at which two values differ, as deep as both have the path, sorted, at most 20. Each
/// begins with `root`.
#[must_use]
pub fn differences<T: Serialize>(old: &T, new: &T, root: &str) -> Vec<String> {
    let mut found = vec![];
    if let (Ok(old), Ok(new)) = (serde_json::to_value(old), serde_json::to_value(new)) {
        compare(Some(&old), Some(&new), root.to_owned(), &mut found);
    }
    found.truncate(MOST);
    found
}

fn compare(old: Option<&Value>, new: Option<&Value>, path: String, found: &mut Vec<String>) {
    match (old, new) {
        (old, new) if old == new || found.len() >= MOST => {}
        (Some(Value::Object(old)), Some(Value::Object(new)))
            if old.keys().chain(new.keys()).all(|k| is_plain(k)) =>
        {
            let mut keys: Vec<&String> = old.keys().chain(new.keys()).collect();
            keys.sort();
            keys.dedup();
            for key in keys {
                compare(old.get(key), new.get(key), format!("{path}.{key}"), found);
            }
        }
        (Some(Value::Array(old)), Some(Value::Array(new))) if old.len() == new.len() => {
            for (i, (old, new)) in old.iter().zip(new).enumerate() {
                compare(Some(old), Some(new), format!("{path}[{i}]"), found);
            }
        }
        _ => found.push(path),
    }
}

fn is_plain(key: &str) -> bool {
    key.len() <= LONGEST_KEY && key.bytes().all(|b| b.is_ascii_graphic())
}

/// A selection of fields. The rest of a document, which may be large, is not built.
#[derive(Debug)]
pub enum FieldSelection {
    /// The whole value.
    All,
    /// These fields of an object, each with its own selection.
    Fields(&'static [(&'static str, FieldSelection)]),
    /// This selection of each entry of a list.
    Each(&'static FieldSelection),
}

impl FieldSelection {
    /// Parses the selected fields of a document. A value of an unexpected type is kept, but empty.
    pub fn select(&'static self, document: &str) -> serde_json::Result<Value> {
        self.deserialize(&mut serde_json::Deserializer::from_str(document))
    }
}

impl<'de> DeserializeSeed<'de> for &'static FieldSelection {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        match self {
            FieldSelection::All => Value::deserialize(deserializer),
            FieldSelection::Fields(_) | FieldSelection::Each(_) => {
                deserializer.deserialize_any(self)
            }
        }
    }
}

impl<'de> Visitor<'de> for &'static FieldSelection {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let fields = if let FieldSelection::Fields(fields) = self {
            *fields
        } else {
            &[]
        };
        let mut kept = Map::new();
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            match fields.iter().find(|(field, _)| *field == key) {
                Some((field, part)) => {
                    kept.insert((*field).to_owned(), map.next_value_seed(part)?);
                }
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(Value::Object(kept))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut kept = vec![];
        if let FieldSelection::Each(part) = self {
            while let Some(entry) = list.next_element_seed(*part)? {
                kept.push(entry);
            }
        }
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Array(kept))
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_deepest_common_path_is_named() {
        let old = json!({"a": {"b": 1, "c": [1, 2]}, "d": 1, "same": {"x": null}});
        let new = json!({"a": {"b": 2, "c": [1, 3]}, "e": 1, "same": {"x": null}});
        assert_eq!(
            differences(&old, &new, "spec"),
            ["spec.a.b", "spec.a.c[1]", "spec.d", "spec.e"]
        );
        assert_eq!(differences(&json!([1]), &json!([1, 2]), "spec"), ["spec"]);
        assert!(differences(&old, &old, "spec").is_empty());
        let (endless, forged) = ("k".repeat(1000), "a\nspec.b");
        assert_eq!(
            differences(&json!({"m": {endless: 1}}), &json!({"m": {}}), "spec"),
            ["spec.m"]
        );
        assert_eq!(
            differences(&json!({"m": {forged: 1}}), &json!({"m": {}}), "spec"),
            ["spec.m"]
        );
    }

    #[test]
    fn a_part_holds_its_own_field_and_nothing_else() {
        static PART: FieldSelection = FieldSelection::Fields(&[
            ("a", FieldSelection::All),
            (
                "list",
                FieldSelection::Each(&FieldSelection::Fields(&[("name", FieldSelection::All)])),
            ),
        ]);
        for (document, part) in [
            (json!({"a": {"b": [1]}, "c": 2}), json!({"a": {"b": [1]}})),
            (
                json!({"list": [{"name": "x", "more": [1, 2]}, null, 7, "y", [1]]}),
                json!({"list": [{"name": "x"}, null, 7, "y", []]}),
            ),
            (
                json!({"a": null, "list": {"name": 1}}),
                json!({"a": null, "list": {}}),
            ),
            (json!(1.5), json!(1.5)),
        ] {
            assert_eq!(
                PART.select(&document.to_string()).expect("JSON"),
                part,
                "{document}"
            );
        }
        assert!(PART.select("{\"a\":").is_err());
    }
}
