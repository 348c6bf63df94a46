//! As much of kubectl's JSONPath as the tests use: fields, `[*]`, `[0]` and `[?(@.field=="text")]`.

use serde_json::Value;

/// The values at this path; none where something on the way is not there.
pub(super) fn select<'a>(value: &'a Value, path: &str) -> Vec<&'a Value> {
    let mut found = vec![value];
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(bracket) = rest.strip_prefix('[') {
            let (inside, after) = bracket.split_once(']').expect("a bracket is closed");
            found = found
                .into_iter()
                .flat_map(|value| items(value, inside))
                .collect();
            rest = after;
        } else {
            let (name, after) = field(rest.strip_prefix('.').expect("a field"));
            found = found
                .into_iter()
                .filter_map(|value| value.get(&name))
                .collect();
            rest = after;
        }
    }
    found
}

/// The name at the beginning, in which a backslash goes before a dot, and what comes after it.
fn field(path: &str) -> (String, &str) {
    let mut name = String::new();
    let mut characters = path.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => name.extend(characters.next().map(|(_, escaped)| escaped)),
            '.' | '[' => return (name, &path[at..]),
            other => name.push(other),
        }
    }
    (name, "")
}

fn items<'a>(value: &'a Value, inside: &str) -> Vec<&'a Value> {
    let all = value.as_array().map(Vec::as_slice).unwrap_or_default();
    if inside == "*" {
        return all.iter().collect();
    }
    if let Ok(at) = inside.parse::<usize>() {
        return all.get(at).into_iter().collect();
    }
    let condition = inside
        .strip_prefix("?(@.")
        .and_then(|rest| rest.strip_suffix("\")"));
    let (name, text) = condition
        .and_then(|rest| rest.split_once("==\""))
        .unwrap_or_else(|| panic!("[{inside}] is not known here"));
    all.iter().filter(|item| item[name] == text).collect()
}

/// As kubectl prints a value.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}
