//! The reviewed kinds: each with its rules and its defaults.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::api::{Postgres, PostgresOpsRequest};

use crate::rules::defaults::InstallationDefaults;
use crate::rules::document::FieldSelection;
use crate::rules::{ClusterFacts, Review, Rule, defaults, ops_request, postgres};

/// A reviewed kind.
pub trait ReviewedKind:
    kube::Resource + Clone + DeserializeOwned + Serialize + Sized + 'static
{
    /// The rules of the kind.
    fn rules() -> Box<dyn Iterator<Item = &'static Rule<Self>>>;

    /// Fills in the defaults of a document.
    fn defaulted(
        document: Value,
        review: &Review<Self>,
        facts: &dyn ClusterFacts,
        installation: &InstallationDefaults,
    ) -> Value;

    /// The fields of a document that `defaulted` reads or changes.
    fn defaulted_fields(review: &Review<Self>) -> &'static FieldSelection;
}

impl ReviewedKind for PostgresOpsRequest {
    fn rules() -> Box<dyn Iterator<Item = &'static Rule<Self>>> {
        Box::new(ops_request::rules())
    }

    fn defaulted(
        document: Value,
        review: &Review<Self>,
        facts: &dyn ClusterFacts,
        installation: &InstallationDefaults,
    ) -> Value {
        defaults::ops_request(document, review, facts, installation)
    }

    fn defaulted_fields(review: &Review<Self>) -> &'static FieldSelection {
        if review.old.is_some() {
            &defaults::REQUEST_UPDATE
        } else {
            &defaults::REQUEST
        }
    }
}

impl ReviewedKind for Postgres {
    fn rules() -> Box<dyn Iterator<Item = &'static Rule<Self>>> {
        Box::new(postgres::rules())
    }

    fn defaulted(
        document: Value,
        review: &Review<Self>,
        facts: &dyn ClusterFacts,
        installation: &InstallationDefaults,
    ) -> Value {
        defaults::postgres(document, review, facts, installation)
    }

    fn defaulted_fields(_: &Review<Self>) -> &'static FieldSelection {
        &defaults::POSTGRES
    }
}
