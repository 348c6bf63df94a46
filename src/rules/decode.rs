//! Decoding of objects, with the bad field as a finding.

use serde::Deserializer;
use serde::de::DeserializeOwned;

use crate::rules::{Effect, Finding};

/// Id of the finding for an object that does not decode.
pub const UNDECODABLE: &str = "decodes";

/// Decodes an object. The error is a finding with the path of the first bad field.
pub fn decode_object<'de, K: DeserializeOwned, D>(deserializer: D) -> Result<K, Finding>
where
    D: Deserializer<'de, Error = serde_json::Error>,
{
    serde_path_to_error::deserialize(deserializer).map_err(|error| {
        let path = error.path().to_string();
        let path = if path == "." { "object" } else { path.as_str() };
        // serde_json's line numbers are those of a text that the author never saw.
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

/// The finding for an object that does not decode.
pub(crate) fn undecodable(field: &str, problem: &str, remedy: &str) -> Finding {
    Finding {
        rule: UNDECODABLE,
        effect: Effect::Refuse,
        field: field.to_owned(),
        problem: problem.to_owned(),
        remedy: remedy.to_owned(),
    }
}
