//! Documents as plain JSON: where two of them differ.

use serde::Serialize;
use serde_json::Value;

/// The most differences that are listed.
const MOST: usize = 20;

/// The longest key that becomes part of a path: keys come from users, paths stand in messages.
const LONGEST_KEY: usize = 80;

/// The paths at which two values differ, as deep as both have the path, each beginning with `root`; sorted, at most 20.
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
        (Some(Value::Object(old)), Some(Value::Object(new))) if old.keys().chain(new.keys()).all(|k| is_plain(k)) => {
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_deepest_common_path_is_named() {
        let old = json!({"a": {"b": 1, "c": [1, 2]}, "d": 1, "same": {"x": null}});
        let new = json!({"a": {"b": 2, "c": [1, 3]}, "e": 1, "same": {"x": null}});
        assert_eq!(differences(&old, &new, "spec"), ["spec.a.b", "spec.a.c[1]", "spec.d", "spec.e"]);
        assert_eq!(differences(&json!([1]), &json!([1, 2]), "spec"), ["spec"]);
        assert!(differences(&old, &old, "spec").is_empty());
        let (endless, forged) = ("k".repeat(1000), "a\nspec.b");
        assert_eq!(differences(&json!({"m": {endless: 1}}), &json!({"m": {}}), "spec"), ["spec.m"]);
        assert_eq!(differences(&json!({"m": {forged: 1}}), &json!({"m": {}}), "spec"), ["spec.m"]);
    }
}
