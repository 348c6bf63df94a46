//! The Kubernetes types that pgrekey reads or writes and that `k8s-openapi` does not have; and the
//! names, defaults and limits of their fields.
//!
//! Names, enums, defaults, short names, columns and required fields are KubeDB's, so that manifests
//! and habits carry over. `kubectl explain` prints the doc comment of each field.

pub mod annotations;
pub mod bounds;
pub mod cert_manager;
pub mod condition;
pub mod defaults;
pub mod duration;
pub mod environment;
pub mod extra_ca;
mod merge;
pub mod monitor;
pub mod names;
pub mod operation;
pub mod ops_request;
pub mod pet_set;
pub mod ports;
pub mod postgres;
pub mod postgres_version;
pub mod postgresql_conf;
pub mod postgresql_settings;
pub mod quantity;
pub mod reserved_settings;
pub mod schema;
pub mod security;
pub mod step;
pub mod template;
pub mod tls;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

pub use crate::api::condition::Condition;
pub use crate::api::ops_request::{PostgresOpsRequest, PostgresOpsRequestSpec};
pub use crate::api::pet_set::PetSet;
pub use crate::api::postgres::{Postgres, PostgresSpec};
pub use crate::api::postgres_version::PostgresVersion;
pub use crate::api::step::StepKind;

/// The CRDs that pgrekey installs, in the order in which they should be applied.
///
/// cert-manager's CRDs are not among them: cert-manager installs its own.
#[must_use]
pub fn crds() -> Vec<CustomResourceDefinition> {
    [
        PostgresVersion::crd(),
        Postgres::crd(),
        PostgresOpsRequest::crd(),
        PetSet::crd(),
    ]
    .into_iter()
    .map(schema::without_nullable)
    .map(schema::bounded)
    .collect()
}
