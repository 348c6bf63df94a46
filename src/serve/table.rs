//! The table of the webhooks, from which the router and the registration follow.

use crate::api::{Postgres, PostgresOpsRequest};
use crate::rules::defaults::InstallationDefaults;
use crate::rules::{AdmissionOperation, ClusterFacts};

use crate::serve::admission::AdmissionRequest;
use crate::serve::review::{AdmissionVerdict, mutate, validate};

/// The function of a webhook: `validate` or `mutate` of a kind.
pub type ReviewFn = fn(
    &AdmissionRequest<'_>,
    AdmissionOperation,
    &dyn ClusterFacts,
    &InstallationDefaults,
) -> AdmissionVerdict;

/// Whether a webhook validates or mutates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebhookType {
    /// Validates. Without a response the API server refuses the object.
    Validate,
    /// Fills in defaults. Without a response the API server goes on: the rules come later.
    Mutate,
}

/// One webhook.
pub struct Webhook {
    /// Whether it validates or mutates.
    pub webhook_type: WebhookType,
    /// Name of its configuration object.
    pub configuration: &'static str,
    /// Its own name.
    pub name: &'static str,
    /// The path of its URL.
    pub path: &'static str,
    /// API group of the reviewed kind.
    pub group: &'static str,
    /// Version of the reviewed kind.
    pub version: &'static str,
    /// The reviewed kind.
    pub kind: &'static str,
    /// Plural of the reviewed kind.
    pub resource: &'static str,
    /// The reviewed operations, in the API server's words.
    pub operations: &'static [&'static str],
    /// The function that reviews.
    pub review: ReviewFn,
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhook")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Every webhook. Names and paths are KubeDB's, except for the mutating webhook of requests, which
/// KubeDB does not have.
pub static WEBHOOKS: [Webhook; 4] = [
    Webhook {
        webhook_type: WebhookType::Mutate,
        configuration: "mutators.ops.kubedb.com",
        name: "postgresopsrequestwebhook.mutators.ops.kubedb.com",
        path: "/mutate-ops-kubedb-com-v1alpha1-postgresopsrequest",
        operations: &["CREATE", "UPDATE"],
        review: mutate::<PostgresOpsRequest>,
        ..REQUESTS
    },
    Webhook {
        webhook_type: WebhookType::Validate,
        configuration: "validators.ops.kubedb.com",
        name: "postgresopsrequestwebhook.validators.ops.kubedb.com",
        path: "/validate-ops-kubedb-com-v1alpha1-postgresopsrequest",
        ..REQUESTS
    },
    Webhook {
        webhook_type: WebhookType::Mutate,
        configuration: "mutators.kubedb.com",
        name: "postgreswebhook.mutators.kubedb.com",
        path: "/mutate-kubedb-com-v1-postgres",
        operations: &["CREATE", "UPDATE"],
        review: mutate::<Postgres>,
        ..DATABASES
    },
    Webhook {
        webhook_type: WebhookType::Validate,
        configuration: "validators.kubedb.com",
        name: "postgreswebhook.validators.kubedb.com",
        path: "/validate-kubedb-com-v1-postgres",
        ..DATABASES
    },
];

const REQUESTS: Webhook = Webhook {
    webhook_type: WebhookType::Validate,
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
    webhook_type: WebhookType::Validate,
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
