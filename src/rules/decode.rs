//! From a document to an object, or to the finding that names the field that does not fit.

use serde::Deserializer;
use serde::de::DeserializeOwned;

use crate::rules::{Effect, Finding};

/// Id of the finding for an object that does not decode.
pub const UNDECODABLE: &str = "decodes";

/// An object, or the finding that says where it does not decode.
pub fn decode_object<'de, K: DeserializeOwned, D>(deserializer: D) -> Result<K, Finding>
where
    D: Deserializer<'de, Error = serde_json::Error>,
{
    serde_path_to_error::deserialize(deserializer).map_err(|error| {
        let path = error.path().to_string();
        let path = if path == "." { "object" } else { path.as_str() };
        // serde_json counts lines in a text that its author never wrote.
        let problem = error.inner().to_string();
        let problem = problem
            .rsplit_once(" at line ")
            .map_or(problem.as_str(), |(problem, _)| problem);
        undecodable(
            path,
            &problem.chars().take(200).collect::<String>(),
            "correct it; `kubectl explain` says what it takes",
        )
    })
}

/// A refusal because of a document, not of an object.
pub(crate) fn undecodable(field: &str, problem: &str, remedy: &str) -> Finding {
    Finding {
        rule: UNDECODABLE,
        effect: Effect::Refuse,
        field: field.to_owned(),
        problem: problem.to_owned(),
        remedy: remedy.to_owned(),
    }
}
