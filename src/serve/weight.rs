//! The number of values in a JSON text. Decoding costs memory by values, not by bytes.
//!
//! `{},` has three bytes, and becomes a struct of hundreds in a list of structs. `{"a":1},` has
//! eight, and becomes a tree node with room for eleven entries.

use std::borrow::Cow;
use std::fmt;

use crate::serve::budget::SMALL;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// Whether a body may cost much memory: it is long, or has more values than real objects, of which
/// the largest have some hundreds.
pub(super) fn is_heavy(body: &[u8]) -> bool {
    body.len() > SMALL || at_most(body) > FEW
}

/// See [`is_heavy`].
const FEW: usize = 1_000;

/// Each member and each entry follows one of these bytes, and each empty list or object has one.
const fn opens(byte: u8) -> bool {
    matches!(byte, b'{' | b'[' | b',')
}

/// An upper bound of the number of values, at the speed of memory: it also counts bytes within
/// strings.
fn at_most(json: &[u8]) -> usize {
    // The compiler vectorizes sums of `u8`; such a sum holds at most 255.
    json.chunks(255)
        .map(|part| usize::from(part.iter().map(|byte| u8::from(opens(*byte))).sum::<u8>()))
        .sum()
}

/// Whether a valid JSON text has more values (members and entries) than `most`. Empty lists and
/// objects count twice.
pub(super) fn exceeds(json: &str, most: usize) -> bool {
    at_most(json.as_bytes()) > most && values(json) > most
}

fn values(json: &str) -> usize {
    let (mut count, mut in_text, mut escaped) = (0, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            _ if !in_text && opens(byte) => count += 1,
            _ => {}
        }
    }
    count
}

/// The deepest path to a list or object with more than half of all values, such as
/// `spec.tls.certificates[0].dnsNames`. For messages.
pub(super) fn heaviest(json: &str) -> String {
    let whole = Census.deserialize(&mut serde_json::Deserializer::from_str(json));
    whole.map_or_else(
        |_| String::new(),
        |part| part.path.trim_start_matches('.').to_owned(),
    )
}

/// The longest key in a path: keys come from users.
const LONGEST_KEY: usize = 80;

/// Counts values without building them.
struct Census;

#[derive(Default)]
struct Container {
    values: usize,
    /// The path from here to the part with the most values.
    path: String,
}

impl Container {
    /// Adds a part; `step` is its key or index.
    fn add(&mut self, heaviest: &mut usize, part: &Self, step: impl FnOnce() -> String) {
        self.values += 1 + part.values;
        if part.values > *heaviest {
            *heaviest = part.values;
            self.path = step() + &part.path;
        }
    }

    fn close(self, heaviest: usize) -> Self {
        if 2 * heaviest > self.values {
            self
        } else {
            Self {
                path: String::new(),
                ..self
            }
        }
    }
}

impl<'de> DeserializeSeed<'de> for Census {
    type Value = Container;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Container, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Census {
    type Value = Container;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Container, A::Error> {
        let (mut sum, mut heaviest) = (Container::default(), 0);
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            let is_plain =
                key.len() <= LONGEST_KEY && key.bytes().all(|byte| byte.is_ascii_graphic());
            let part = map.next_value_seed(Self)?;
            sum.add(&mut heaviest, &part, || {
                if is_plain {
                    format!(".{key}")
                } else {
                    "[..]".to_owned()
                }
            });
        }
        Ok(sum.close(heaviest))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Container, A::Error> {
        let (mut sum, mut heaviest) = (Container::default(), 0);
        for i in 0.. {
            let Some(part) = list.next_element_seed(Self)? else {
                break;
            };
            sum.add(&mut heaviest, &part, || format!("[{i}]"));
        }
        Ok(sum.close(heaviest))
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Container, E> {
        Ok(Container::default())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Container, E> {
        Ok(Container::default())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Container, E> {
        Ok(Container::default())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Container, E> {
        Ok(Container::default())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Container, E> {
        Ok(Container::default())
    }

    fn visit_unit<E: Error>(self) -> Result<Container, E> {
        Ok(Container::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_bracket_inside_a_text_counts_as_no_value() {
        for (json, expected) in [
            ("{}", 1),
            ("7", 0),
            ("[1,2,3]", 3),
            (r#"{"a":1,"b":{"c":[{},{}]}}"#, 7),
            (r#"{"a":"[1,2,{","b\"{,":"\\","c":1}"#, 3),
        ] {
            assert_eq!(values(json), expected, "{json}");
            assert!(at_most(json.as_bytes()) >= expected, "{json}");
        }
        assert_eq!(at_most(",".repeat(100_000).as_bytes()), 100_000);
    }

    #[test]
    fn the_path_ends_where_most_values_are() {
        let many = |n: usize| vec![json!({}); n];
        for (object, path) in [
            (
                json!({"spec": {"tls": {"certificates": [{"a": 1}, {"dnsNames": many(100)}]}, "b": many(10)}}),
                "spec.tls.certificates[1].dnsNames",
            ),
            (json!({"spec": {"a": many(100), "b": many(100)}}), "spec"),
            (json!({"spec": {"x\n": many(100)}}), "spec[..]"),
            (json!([many(100)]), "[0]"),
            (json!(7), ""),
        ] {
            assert_eq!(heaviest(&object.to_string()), path, "{object}");
        }
    }
}
