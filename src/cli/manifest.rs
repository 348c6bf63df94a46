//! YAML and JSON whose values know their position in the text.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::Spanned;

/// A position in a text. Lines and columns count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub(crate) line: u64,
    pub(crate) column: u64,
}

/// The beginning of a text: the position of an error that has none.
pub(crate) const START: Position = Position { line: 1, column: 1 };

impl From<serde_saphyr::Location> for Position {
    fn from(location: serde_saphyr::Location) -> Self {
        Self {
            line: location.line().max(1),
            column: location.column().max(1),
        }
    }
}

/// A document, or a part of one.
#[derive(Clone, Debug)]
pub(crate) struct Document(Spanned<Node>);

#[derive(Clone, Debug)]
enum Node {
    Scalar(Value),
    List(Vec<Spanned<Node>>),
    Object(Vec<(String, Spanned<Node>)>),
}

/// Why a text is neither YAML nor JSON.
#[derive(Debug)]
pub(crate) struct ParseProblem {
    pub(crate) position: Position,
    pub(crate) problem: String,
}

impl fmt::Display for ParseProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { position, problem } = self;
        write!(f, "{}:{}: {problem}", position.line, position.column)
    }
}

/// The documents of a YAML or JSON text, without the empty ones.
pub(crate) fn parse(text: &str) -> Result<Vec<Document>, ParseProblem> {
    let documents = serde_saphyr::from_multiple::<Spanned<Node>>(text).map_err(|error| {
        let message = error.without_snippet().to_string();
        ParseProblem {
            position: error.location().map_or(START, Position::from),
            // The lines after the first one show the place in the text.
            problem: message.lines().next().unwrap_or_default().to_owned(),
        }
    })?;
    let documents = documents
        .into_iter()
        .filter(|document| !matches!(document.value, Node::Scalar(Value::Null)));
    Ok(documents.map(Document).collect())
}

impl Document {
    /// The document as plain JSON.
    pub(crate) fn value(&self) -> Value {
        value(&self.0.value)
    }

    /// The items of a `List`, as `kubectl get -o yaml` prints it; for any other kind the document
    /// itself.
    pub(crate) fn objects(self) -> Vec<Self> {
        let Node::Object(fields) = &self.0.value else {
            return vec![self];
        };
        let is_list = fields.iter().any(|(key, kind)| {
            key == "kind" && matches!(&kind.value, Node::Scalar(Value::String(kind)) if kind.ends_with("List"))
        });
        let items = fields
            .iter()
            .find(|(key, _)| key == "items")
            .map(|(_, items)| &items.value);
        match items {
            Some(Node::List(items)) if is_list => items.iter().cloned().map(Self).collect(),
            _ => vec![self],
        }
    }

    /// The position of a field, such as `spec.tls.certificates[0].alias`. For a missing field it is
    /// the position of the innermost object or list that should hold it.
    pub(crate) fn position(&self, field: &str) -> Position {
        let (mut at, mut rest) = (&self.0, field);
        while let Some((next, after)) = descend(&at.value, rest) {
            (at, rest) = (next, after);
        }
        at.referenced.into()
    }
}

/// The value under the first key or index of a path, and the rest of the path. A key may contain
/// dots.
fn descend<'n, 'p>(node: &'n Node, path: &'p str) -> Option<(&'n Spanned<Node>, &'p str)> {
    match node {
        Node::Scalar(_) => None,
        Node::List(items) => {
            let (index, rest) = path.strip_prefix('[')?.split_once(']')?;
            Some((
                items.get(index.parse::<usize>().ok()?)?,
                rest.strip_prefix('.').unwrap_or(rest),
            ))
        }
        Node::Object(fields) => {
            let ends = |rest: &str| rest.is_empty() || rest.starts_with(['.', '[']);
            let begins = |key: &str| {
                path.strip_prefix(key)
                    .filter(|rest| !key.is_empty() && ends(rest))
            };
            let fields = fields
                .iter()
                .filter_map(|(key, value)| Some((key.len(), value, begins(key)?)));
            let (_, value, rest) = fields.max_by_key(|(length, ..)| *length)?;
            Some((value, rest.strip_prefix('.').unwrap_or(rest)))
        }
    }
}

fn value(node: &Node) -> Value {
    match node {
        Node::Scalar(scalar) => scalar.clone(),
        Node::List(items) => items.iter().map(|item| value(&item.value)).collect(),
        Node::Object(fields) => {
            let fields = fields
                .iter()
                .map(|(key, field)| (key.clone(), value(&field.value)));
            Value::Object(fields.collect::<Map<_, _>>())
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Node;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_bool<E>(self, scalar: bool) -> Result<Node, E> {
                Ok(Node::Scalar(scalar.into()))
            }

            fn visit_i64<E>(self, scalar: i64) -> Result<Node, E> {
                Ok(Node::Scalar(scalar.into()))
            }

            fn visit_u64<E>(self, scalar: u64) -> Result<Node, E> {
                Ok(Node::Scalar(scalar.into()))
            }

            fn visit_f64<E>(self, scalar: f64) -> Result<Node, E> {
                Ok(Node::Scalar(
                    Number::from_f64(scalar).map_or(Value::Null, Value::Number),
                ))
            }

            fn visit_str<E>(self, scalar: &str) -> Result<Node, E> {
                Ok(Node::Scalar(scalar.into()))
            }

            fn visit_unit<E>(self) -> Result<Node, E> {
                Ok(Node::Scalar(Value::Null))
            }

            fn visit_none<E>(self) -> Result<Node, E> {
                Ok(Node::Scalar(Value::Null))
            }

            fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
                Node::deserialize(deserializer)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
                let mut list = vec![];
                while let Some(item) = items.next_element()? {
                    list.push(item);
                }
                Ok(Node::List(list))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Node, A::Error> {
                let mut object = vec![];
                while let Some(field) = fields.next_entry()? {
                    object.push(field);
                }
                Ok(Node::Object(object))
            }
        }

        deserializer.deserialize_any(Any)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const TEXT: &str = "# two documents
---
kind: Postgres
metadata:
  annotations: {pgrekey.dev/a: x, pgrekey.dev/a.b: y}
spec:
  version: \"17.12\"
  replicas: 3
  tls:
    certificates:
      - alias: server
        dnsNames: [a.example,
          b.example]
---
---
kind: List
items:
  - kind: Issuer
  - kind: Namespace
";

    #[test]
    fn values_are_read_as_kubernetes_reads_them() {
        let documents = parse(TEXT).unwrap();
        assert_eq!(documents.len(), 2);
        let spec = json!({"version": "17.12", "replicas": 3, "tls": {"certificates": [
            {"alias": "server", "dnsNames": ["a.example", "b.example"]}]}});
        assert_eq!(documents[0].value()["spec"], spec);
        let kinds: Vec<Value> = documents[1]
            .clone()
            .objects()
            .iter()
            .map(|o| o.value()["kind"].clone())
            .collect();
        assert_eq!(kinds, ["Issuer", "Namespace"]);
        assert_eq!(
            parse("{\"kind\": \"Postgres\", \"spec\": null}").unwrap()[0].value(),
            json!({"kind": "Postgres", "spec": null})
        );
    }

    #[test]
    fn a_field_has_a_position_and_a_missing_one_has_that_of_its_parent() {
        let document = parse(TEXT).unwrap().remove(0);
        for (field, line, column) in [
            ("spec.version", 7, 12),
            ("spec.tls.certificates[0].dnsNames[1]", 13, 11),
            ("spec.tls.certificates[0].secretName", 11, 9),
            ("spec.tls.issuerRef.name", 10, 5),
            ("metadata.annotations.pgrekey.dev/a.b", 5, 52),
            ("object", 3, 1),
        ] {
            assert_eq!(
                document.position(field),
                Position { line, column },
                "{field}"
            );
        }
    }

    #[test]
    fn a_parse_problem_has_a_position() {
        let ParseProblem { position, problem } =
            parse("kind: Postgres\nspec: {a: 1\nb: [").unwrap_err();
        assert!(
            position > START && !problem.is_empty() && !problem.contains('\n'),
            "{position:?} {problem}"
        );
        let ParseProblem { position, problem } = parse("a: 1\na: 2\n").unwrap_err();
        assert_eq!(
            (position, problem.contains("duplicate")),
            (Position { line: 2, column: 1 }, true),
            "{problem}"
        );
    }
}
