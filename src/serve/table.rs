//! The table of the webhooks, from which the router and the registration follow.

use crate::api::{Postgres, PostgresOpsRequest};
use crate::rules::defaults::InstallationDefaults;
use crate::rules::{ClusterFacts, Operation};

use crate::serve::admission::AdmissionRequest;
use crate::serve::review::{AdmissionVerdict, mutate, validate};

/// How a webhook reviews: `validate` or `mutate` of a kind.
pub type ReviewFn = fn(
    &AdmissionRequest<'_>,
    Operation,
    &dyn ClusterFacts,
    &InstallationDefaults,
) -> AdmissionVerdict;

/// Whether a webhook judges or fills in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Judges; without an answer the API server refuses the object.
    Validate,
    /// Fills in; without an answer the API server goes on, and the rules are still to come.
    Mutate,
}

/// One webhook.
pub struct Webhook {
    /// Whether it judges or fills in.
    pub purpose: Purpose,
    /// Name of the configuration object that it is registered in.
    pub configuration: &'static str,
    /// Its own name.
    pub name: &'static str,
    /// Where it is served.
    pub path: &'static str,
    /// API group of what it reviews.
    pub group: &'static str,
    /// Version of what it reviews.
    pub version: &'static str,
    /// Kind of what it reviews.
    pub kind: &'static str,
    /// Plural of what it reviews.
    pub resource: &'static str,
    /// What is reviewed, in the API server's words.
    pub operations: &'static [&'static str],
    /// How it reviews.
    pub review: ReviewFn,
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhook")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Every webhook. Names and paths are KubeDB's; it has none that fills in requests, so those are
/// formed alike.
pub static WEBHOOKS: [Webhook; 4] = [
    Webhook {
        purpose: Purpose::Mutate,
        configuration: "mutators.ops.kubedb.com",
        name: "postgresopsrequestwebhook.mutators.ops.kubedb.com",
        path: "/mutate-ops-kubedb-com-v1alpha1-postgresopsrequest",
        operations: &["CREATE", "UPDATE"],
        review: mutate::<PostgresOpsRequest>,
        ..REQUESTS
    },
    Webhook {
        purpose: Purpose::Validate,
        configuration: "validators.ops.kubedb.com",
        name: "postgresopsrequestwebhook.validators.ops.kubedb.com",
        path: "/validate-ops-kubedb-com-v1alpha1-postgresopsrequest",
        ..REQUESTS
    },
    Webhook {
        purpose: Purpose::Mutate,
        configuration: "mutators.kubedb.com",
        name: "postgreswebhook.mutators.kubedb.com",
        path: "/mutate-kubedb-com-v1-postgres",
        operations: &["CREATE", "UPDATE"],
        review: mutate::<Postgres>,
        ..DATABASES
    },
    Webhook {
        purpose: Purpose::Validate,
        configuration: "validators.kubedb.com",
        name: "postgreswebhook.validators.kubedb.com",
        path: "/validate-kubedb-com-v1-postgres",
        ..DATABASES
    },
];

const REQUESTS: Webhook = Webhook {
    purpose: Purpose::Validate,
    configuration: "",
    name: "",
    path: "",
    group: "ops.kubedb.com",
    version: "v1alpha1",
    kind: "PostgresOpsRequest",
    resource: "postgresopsrequests",
    operations: &["CREATE", "UPDATE"],
    review: validate::<PostgresOpsRequest>,
};

const DATABASES: Webhook = Webhook {
    purpose: Purpose::Validate,
    configuration: "",
    name: "",
    path: "",
    group: "kubedb.com",
    version: "v1",
    kind: "Postgres",
    resource: "postgreses",
    operations: &["CREATE", "UPDATE", "DELETE"],
    review: validate::<Postgres>,
};
