//! Whether an apply would change a live object. If not, nothing is written.
//!
//! # Guarantees
//! Fields that the wish does not mention do not count: they are defaults of the API server, or
//! belong to others. Fields that we applied earlier and no longer wish for do count:
//! `managedFields` lists them.
//!
//! A false difference, such as a spelling that only the API server normalises, costs one request
//! that changes nothing.

use serde_json::{Map, Value};

use crate::api::quantity;
use crate::cluster::FIELD_MANAGER;

/// Whether applying the wish would change the live object.
#[must_use]
pub fn needs_apply(live: &Value, wish: &Value) -> bool {
    !covers("", live, wish) || owns_more(live, wish)
}

/// Whether the live value has everything that is wished for. `key` is the field that holds both.
fn covers(key: &str, live: &Value, wish: &Value) -> bool {
    match (live, wish) {
        (live, wish) if is_empty(wish) && is_empty(live) => true,
        (Value::Object(live), Value::Object(wish)) => wish.iter().all(|(name, wish)| {
            let below = if is_amount(key) { key } else { name };
            live.get(name)
                .map_or(is_empty(wish), |live| covers(below, live, wish))
        }),
        (Value::Array(live), Value::Array(wish)) if key == "ownerReferences" => wish
            .iter()
            .all(|wish| live.iter().any(|live| covers("", live, wish))),
        (Value::Array(live), Value::Array(wish)) => {
            live.len() == wish.len()
                && live
                    .iter()
                    .zip(wish)
                    .all(|(live, wish)| covers("", live, wish))
        }
        (Value::String(live), Value::String(wish)) if is_amount(key) => {
            live == wish
                || quantity::thousandths(live)
                    .is_some_and(|live| quantity::thousandths(wish) == Some(live))
        }
        (live, wish) => live == wish,
    }
}

/// Whether a field holds quantities, which the API server spells in its own way.
fn is_amount(key: &str) -> bool {
    matches!(key, "limits" | "requests" | "sizeLimit")
}

/// Whether the API server leaves out a value because it is empty.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.values().all(is_empty),
        _ => false,
    }
}

/// Whether we own a field of the live object that we no longer wish for.
fn owns_more(live: &Value, wish: &Value) -> bool {
    let entries = live["metadata"]["managedFields"]
        .as_array()
        .into_iter()
        .flatten();
    let ours = entries.filter(|entry| {
        entry["manager"] == FIELD_MANAGER
            && entry["operation"] == "Apply"
            && entry.get("subresource").is_none()
    });
    ours.filter_map(|entry| entry["fieldsV1"].as_object())
        .any(|fields| names_more(fields, wish))
}

/// Reads one level of `fieldsV1`: `f:NAME` is a field, `k:{..}` the element of a list with these
/// keys, `v:..` an element that is such a value, and `.` the level itself.
fn names_more(fields: &Map<String, Value>, wish: &Value) -> bool {
    fields.iter().any(|(path, below)| {
        let found = match path.split_at_checked(2) {
            Some(("f:", name)) => wish.get(name),
            Some(("k:", keys)) => find_element(wish, keys),
            Some(("v:", value)) => {
                let value: Value = serde_json::from_str(value).unwrap_or_default();
                wish.as_array()
                    .and_then(|list| list.iter().find(|element| **element == value))
            }
            _ => return false,
        };
        match (found, below.as_object()) {
            (None, _) => true,
            (Some(found), Some(below)) => names_more(below, found),
            (Some(_), None) => false,
        }
    })
}

/// The element with these keys. A key that the element leaves out, such as a port's `protocol`, has
/// its default and matches.
fn find_element<'a>(list: &'a Value, keys: &str) -> Option<&'a Value> {
    let keys: Map<String, Value> = serde_json::from_str(keys).ok()?;
    let fits = |element: &&Value| {
        keys.iter()
            .all(|(key, value)| element.get(key).is_none_or(|own| own == value))
    };
    list.as_array()?.iter().find(fits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn defaults_and_the_fields_of_others_do_not_count() {
        let wish = json!({"metadata": {"labels": {"a": "1"}}, "spec": {"ports": [{"port": 5432}], "x": null, "list": []}});
        let live = json!({
            "metadata": {"labels": {"a": "1", "theirs": "x"}, "uid": "u"},
            "spec": {"ports": [{"port": 5432, "protocol": "TCP"}], "clusterIP": "10.0.0.1"},
            "status": {},
        });
        assert!(!needs_apply(&live, &wish));
    }

    #[test]
    fn each_kind_of_drift_is_seen() {
        let wish =
            json!({"a": "x", "list": [{"n": 1}, {"n": 2}], "map": {"k": "v"}, "flag": false});
        assert!(!needs_apply(&wish, &wish));
        for (what, path, value) in [
            ("another value", "/a", json!("y")),
            ("a missing value", "/map", json!({})),
            ("another element", "/list/1/n", json!(3)),
            ("one element less", "/list", json!([{"n": 1}])),
            (
                "one element more",
                "/list",
                json!([{"n": 1}, {"n": 2}, {"n": 3}]),
            ),
            ("another order", "/list", json!([{"n": 2}, {"n": 1}])),
            ("no value", "/flag", json!(null)),
        ] {
            let mut live = wish.clone();
            *live.pointer_mut(path).expect("a path") = value;
            assert!(needs_apply(&live, &wish), "{what}");
        }
    }

    #[test]
    fn another_owner_is_no_drift_and_a_missing_one_is() {
        let wish = json!({"metadata": {"ownerReferences": [{"uid": "us"}]}});
        let live = |owners: Value| json!({"metadata": {"ownerReferences": owners}});
        assert!(!needs_apply(
            &live(json!([{"uid": "them"}, {"uid": "us", "name": "pg"}])),
            &wish
        ));
        assert!(needs_apply(&live(json!([{"uid": "them"}])), &wish));
    }

    #[test]
    fn amounts_are_compared_and_not_their_spelling() {
        let requests = |cpu: &str, memory: &str| json!({"resources": {"requests": {"cpu": cpu, "memory": memory}}});
        assert!(!needs_apply(
            &requests("500m", "1Gi"),
            &requests("0.5", "1024Mi")
        ));
        assert!(needs_apply(
            &requests("500m", "1Gi"),
            &requests("0.5", "1Gi1")
        ));
        assert!(needs_apply(
            &requests("500m", "1Gi"),
            &requests("500m", "2Gi")
        ));
        assert!(needs_apply(
            &json!({"version": "1.0"}),
            &json!({"version": "1"})
        ));
    }

    #[test]
    fn a_field_that_we_own_and_no_longer_wish_for_is_a_difference() {
        let live = |fields: Value, manager: &str| {
            json!({
                "metadata": {"annotations": {"old": "x"}, "managedFields": [
                    {"manager": manager, "operation": "Apply", "fieldsV1": fields},
                ]},
                "spec": {"ports": [{"name": "db", "port": 1, "protocol": "TCP"}], "tags": ["a"]},
            })
        };
        let wish = json!({"spec": {"ports": [{"name": "db", "port": 1}], "tags": ["a"]}});
        let fine = json!({
            "f:spec": {"f:ports": {"k:{\"port\":1,\"protocol\":\"TCP\"}": {".": {}, "f:name": {}, "f:port": {}}}, "f:tags": {"v:\"a\"": {}}},
        });
        assert!(!needs_apply(&live(fine, "pgrekey"), &wish));
        for fields in [
            json!({"f:metadata": {"f:annotations": {"f:old": {}}}}),
            json!({"f:spec": {"f:ports": {"k:{\"port\":2,\"protocol\":\"TCP\"}": {"f:name": {}}}}}),
            json!({"f:spec": {"f:ports": {"k:{\"port\":1,\"protocol\":\"TCP\"}": {"f:nodePort": {}}}}}),
            json!({"f:spec": {"f:tags": {"v:\"b\"": {}}}}),
        ] {
            assert!(
                needs_apply(&live(fields.clone(), "pgrekey"), &wish),
                "{fields}"
            );
            assert!(!needs_apply(&live(fields, "somebody"), &wish));
        }
    }
}
