//! What `doctor` has read of a cluster.

use std::fmt;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

use crate::api::cert_manager::{ClusterIssuer, Issuer};
use crate::api::{PetSet, Postgres, PostgresOpsRequest, PostgresVersion};
use crate::cli::certs::DatabaseCertificates;
use crate::cli::kubeconfig::explain_api_error;

/// Why something could not be read, as a sentence for the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UnreadableObject(pub(crate) String);

impl fmt::Display for UnreadableObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl UnreadableObject {
    /// The answer of the API server, or why `action`, such as `list databases`, failed.
    pub(crate) fn explain<T>(action: &str, answer: kube::Result<T>) -> Result<T, Self> {
        answer.map_err(|error| Self(explain_api_error(action, error).to_string()))
    }
}

/// The parts of an installation, each as far as it could be read.
#[derive(Debug)]
pub(crate) struct Installation {
    /// The version of the API server.
    pub(crate) server: Result<String, UnreadableObject>,
    /// The CRDs of pgrekey and of cert-manager that the cluster has.
    pub(crate) crds: Result<Vec<CustomResourceDefinition>, UnreadableObject>,
    pub(crate) versions: Result<Vec<PostgresVersion>, UnreadableObject>,
    /// Every webhook that should be registered.
    pub(crate) webhooks: Result<Vec<ExpectedWebhook>, UnreadableObject>,
    /// The answer to a request that the rules refuse.
    pub(crate) trial: Result<Inquiry<AdmissionTrial>, UnreadableObject>,
    pub(crate) issuers: Result<Vec<Issuer>, UnreadableObject>,
    pub(crate) cluster_issuers: Result<Vec<ClusterIssuer>, UnreadableObject>,
    /// The rights that the user lacks, such as `create postgresopsrequests`.
    pub(crate) forbidden: Result<Vec<String>, UnreadableObject>,
    /// The leases called `pgrekey` in the namespaces of pgrekey's pods.
    pub(crate) leases: Result<Vec<Lease>, UnreadableObject>,
    /// The rights of the leader's ServiceAccount. `None` if the leader is not a pod.
    pub(crate) operator: Result<Inquiry<Option<AccountRights>>, UnreadableObject>,
    pub(crate) databases: Result<Vec<Postgres>, UnreadableObject>,
    pub(crate) requests: Result<Vec<PostgresOpsRequest>, UnreadableObject>,
    pub(crate) pet_sets: Result<Vec<PetSet>, UnreadableObject>,
    /// Names of the default StorageClasses.
    pub(crate) default_storage: Result<Vec<String>, UnreadableObject>,
    pub(crate) certificates: Result<Vec<DatabaseCertificates>, UnreadableObject>,
}

/// A webhook that should be registered.
#[derive(Clone, Debug, Default)]
pub(crate) struct ExpectedWebhook {
    pub(crate) name: String,
    /// `None` if it is not registered.
    pub(crate) registered: Option<WebhookClient>,
}

/// How the API server calls a webhook.
#[derive(Clone, Debug, Default)]
pub(crate) struct WebhookClient {
    pub(crate) ca_bundle: Vec<u8>,
    /// `None` if the webhook is called by URL.
    pub(crate) service: Option<WebhookService>,
}

/// The Service in front of a webhook.
#[derive(Clone, Debug)]
pub(crate) struct WebhookService {
    /// As `NAMESPACE/NAME`.
    pub(crate) path: String,
    pub(crate) ready_endpoints: usize,
}

/// The result of an inquiry that the user may lack the right to make.
#[derive(Clone, Debug)]
pub(crate) enum Inquiry<T> {
    Answered(T),
    /// The missing right, as a sentence.
    NotAllowed(String),
}

/// The answer to a request that the rules refuse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AdmissionTrial {
    /// The webhook refused it: the API server reaches the webhook and trusts its CA.
    Refused,
    /// No webhook refused it in this namespace.
    Admitted { namespace: String },
    /// The API server could not call the webhook. The message is the API server's.
    NotCalled { message: String },
}

/// The rights of a ServiceAccount that runs the operator.
#[derive(Clone, Debug)]
pub(crate) struct AccountRights {
    /// As `NAMESPACE/NAME`.
    pub(crate) account: String,
    /// The rights that operations need and the account lacks, such as `create pods/eviction`.
    pub(crate) forbidden: Vec<String>,
}

/// The CRDs of cert-manager that pgrekey uses.
pub(crate) const CERT_MANAGER_CRDS: [&str; 4] = [
    "certificates.cert-manager.io",
    "certificaterequests.cert-manager.io",
    "issuers.cert-manager.io",
    "clusterissuers.cert-manager.io",
];
