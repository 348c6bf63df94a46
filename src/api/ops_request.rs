//! `PostgresOpsRequest` (`ops.kubedb.com/v1alpha1`): one operation on one database.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use crate::api::annotations::{NAMES, STRATEGY};
use crate::api::bounds::MAX_RETRIES;
use crate::api::condition::Condition;
use crate::api::schema::Opaque;
use crate::api::tls::{CertificateSpec, ClientAuthMode, IssuerRef, SslMode};

/// What is to be done to which database. It cannot be changed once the request exists: make a new
/// request instead.
#[skip_serializing_none]
#[derive(CustomResource, Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "ops.kubedb.com",
    version = "v1alpha1",
    kind = "PostgresOpsRequest",
    plural = "postgresopsrequests",
    singular = "postgresopsrequest",
    shortname = "pgops",
    category = "ops",
    category = "kubedb",
    category = "appscode",
    namespaced,
    status = "PostgresOpsRequestStatus",
    derive = "PartialEq",
    doc = "PostgresOpsRequest is one operation on one Postgres database, such as adding, rotating or removing TLS.",
    annotation("helm.sh/resource-policy", "keep"),
    printcolumn(
        name = "Type",
        type_ = "string",
        json_path = ".spec.type",
        description = "Kind of operation"
    ),
    printcolumn(
        name = "Database",
        type_ = "string",
        json_path = ".spec.databaseRef.name",
        description = "Postgres that is operated on"
    ),
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = ".status.phase",
        description = "Phase of the request"
    ),
    printcolumn(
        name = "Step",
        type_ = "string",
        json_path = ".status.steps[-1:].name",
        description = "Latest step"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp",
        description = "Time since creation"
    )
)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "self == oldSelf",
    "message": "spec is immutable: delete this request and create a new one"
}]))]
pub struct PostgresOpsRequestSpec {
    /// The Postgres to operate on, in the request's own namespace.
    pub database_ref: DatabaseRef,
    /// Kind of operation. pgrekey carries out `ReconfigureTLS` and `Restart`.
    #[serde(rename = "type")]
    pub type_: OpsType,
    /// What to change about TLS. Required for, and only for, `ReconfigureTLS`.
    pub tls: Option<TlsChange>,
    /// How long each step (not the whole request) may take, as a Go duration such as `5m`, at most
    /// 24 h. 10 minutes if left out.
    pub timeout: Option<String>,
    /// Whether to wait for the database to be Ready first (`IfReady`) or to begin whatever its
    /// state (`Always`).
    #[serde(default)]
    pub apply: Apply,
    /// How often a failed step is tried again before the request fails, at most 10. 0 means never.
    #[serde(default = "default_max_retries")]
    #[schemars(range(min = 0, max = MAX_RETRIES))]
    pub max_retries: i32,
    /// Settings of type `Restart`: an empty object.
    pub restart: Option<Opaque>,
    /// Belongs to type `UpdateVersion`, which pgrekey does not carry out.
    pub update_version: Option<Opaque>,
    /// Belongs to type `HorizontalScaling`, which pgrekey does not carry out.
    pub horizontal_scaling: Option<Opaque>,
    /// Belongs to type `VerticalScaling`, which pgrekey does not carry out.
    pub vertical_scaling: Option<Opaque>,
    /// Belongs to type `VolumeExpansion`, which pgrekey does not carry out.
    pub volume_expansion: Option<Opaque>,
    /// Belongs to type `Reconfigure`, which pgrekey does not carry out.
    pub configuration: Option<Opaque>,
    /// Belongs to type `RotateAuth`, which pgrekey does not carry out.
    pub authentication: Option<Opaque>,
    /// Belongs to type `ReconnectStandby`, which pgrekey does not carry out.
    pub reconnect_standby: Option<Opaque>,
    /// Belongs to type `ForceFailOver`, which pgrekey does not carry out.
    pub force_fail_over: Option<Opaque>,
    /// Belongs to type `SetRaftKeyPair`, which pgrekey does not carry out.
    pub set_raft_key_pair: Option<Opaque>,
    /// Belongs to type `StorageMigration`, which pgrekey does not carry out.
    pub migration: Option<Opaque>,
}

const fn default_max_retries() -> i32 {
    1
}

/// The database of a request.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct DatabaseRef {
    /// Name of the Postgres, in the request's own namespace.
    #[serde(default)]
    pub name: String,
}

/// Kind of operation. pgrekey carries out `ReconfigureTLS` and `Restart`; the others are KubeDB's,
/// and refused.
#[derive(
    Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq, PartialOrd, Ord, Hash,
)]
pub enum OpsType {
    /// Another PostgreSQL version.
    UpdateVersion,
    /// Another number of pods.
    HorizontalScaling,
    /// Other resources.
    VerticalScaling,
    /// Bigger volumes.
    VolumeExpansion,
    /// All pods are restarted, standbys first.
    Restart,
    /// Other settings.
    Reconfigure,
    /// TLS is added, changed, rotated or removed.
    ReconfigureTLS,
    /// Another password for the superuser.
    RotateAuth,
    /// A standby is connected again.
    ReconnectStandby,
    /// A failover is forced.
    ForceFailOver,
    /// Other keys for KubeDB's coordinator.
    SetRaftKeyPair,
    /// Another storage class.
    StorageMigration,
}

/// When a request begins: `IfReady` waits for the database to be Ready, `Always` does not.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub enum Apply {
    /// When the database is Ready.
    #[default]
    IfReady,
    /// At once, whatever the database's state.
    Always,
}

/// What to change about TLS. One of: `remove`; `rotateCertificates`; or any of `issuerRef`,
/// `certificates`, `sslMode` and `clientAuthMode`, which add TLS to a database without and change
/// it on a database with TLS. What is left out stays.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct TlsChange {
    /// Issuer of all certificates that name none of their own.
    pub issuer_ref: Option<IssuerRef>,
    /// Certificates to change, one entry per alias. Those that are not named stay as they are.
    /// Names come to those that the certificate has; with annotation `pgrekey.dev/names: Replace`
    /// they take the place of the certificate's `dnsNames`, `ipAddresses`, `uris` and
    /// `emailAddresses`, and a list that is left out is empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<CertificateSpec>,
    /// How the database's own clients connect afterwards.
    pub ssl_mode: Option<SslMode>,
    /// How clients prove who they are afterwards.
    pub client_auth_mode: Option<ClientAuthMode>,
    /// Issue all certificates of the database anew. False if left out.
    pub rotate_certificates: Option<bool>,
    /// Take TLS away. `clientAuthMode` may say how clients log in afterwards, never `cert`. False
    /// if left out.
    pub remove: Option<bool>,
    /// Issue the certificates of KubeDB's coordinator anew. pgrekey runs no coordinator and refuses
    /// it.
    pub rotate_grpc_certificates: Option<bool>,
}

/// What becomes of the names (`dnsNames`, `ipAddresses`, `uris`, `emailAddresses`) that a certificate
/// has in the spec of the database, where a request lists names for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NameChange {
    /// They stay beside those of the request, as in KubeDB.
    #[default]
    Add,
    /// They go: the certificate has the names of the request, and none of a kind that the request
    /// leaves out.
    Replace,
}

impl NameChange {
    /// The change that annotation [`NAMES`] writes so, if there is one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "Add" => Some(Self::Add),
            "Replace" => Some(Self::Replace),
            _ => None,
        }
    }
}

/// What a `ReconfigureTLS` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsOperation {
    /// Take TLS away.
    Remove,
    /// Issue all certificates anew.
    Rotate,
    /// Add TLS, or change something about it.
    Change,
}

impl TlsChange {
    /// What is asked for; all of it, when it is more than one thing.
    #[must_use]
    pub fn operations(&self) -> Vec<TlsOperation> {
        let remove = self.remove == Some(true);
        let certificates = self.issuer_ref.is_some() || !self.certificates.is_empty();
        // `remove` may say how clients connect afterwards; whether it says it right is for other
        // rules.
        let modes = self.ssl_mode.is_some() || self.client_auth_mode.is_some();
        [
            (remove, TlsOperation::Remove),
            (self.rotate_certificates == Some(true), TlsOperation::Rotate),
            (certificates || (modes && !remove), TlsOperation::Change),
        ]
        .into_iter()
        .filter_map(|(asked, operation)| asked.then_some(operation))
        .collect()
    }
}

/// How far a request is.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PostgresOpsRequestStatus {
    /// Where the request is in its life. Empty until it is first seen.
    pub phase: Option<OpsPhase>,
    /// The `metadata.generation` that was last acted on.
    pub observed_generation: Option<i64>,
    /// What the request has begun on. Empty while it waits for its turn.
    pub begun_on: Option<BegunOn>,
    /// What has happened, in the order in which it first did. `Successful` is True, or `Failed` is,
    /// at the end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Backups of other tools that this request paused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paused_backups: Vec<PausedBackup>,
    /// What was done, is being done and is waited for, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub steps: Vec<Step>,
    /// The pods of the database as this request last saw them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub pods: Vec<PodStatus>,
}

/// What a request has begun on: the database and the pods that there were.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct BegunOn {
    /// The uid of the database. Another one of the same name is not touched.
    #[serde(rename = "databaseUID")]
    pub database_uid: String,
    /// The uids of its pods, by name. A restart replaces each of these once, and no other.
    #[serde(default)]
    pub pods: BTreeMap<String, String>,
}

impl BegunOn {
    /// Whether the pod of this uid was there.
    #[must_use]
    pub fn has_pod(&self, uid: &str) -> bool {
        self.pods.values().any(|known| known == uid)
    }
}

impl PostgresOpsRequest {
    /// What it has begun on.
    #[must_use]
    pub fn begun_on(&self) -> Option<&BegunOn> {
        self.status.as_ref()?.begun_on.as_ref()
    }

    /// What is recorded of its steps.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        self.status
            .as_ref()
            .map(|status| status.steps.as_slice())
            .unwrap_or_default()
    }
}

/// Where a request is in its life. `Pending`: waits for its turn. `Progressing`: is carried out.
/// `Successful`: done and proved. `Failed`: not done; the database is resumed, and serves what its
/// spec says as far as it could be brought back. `Skipped`: another request took its place.
/// `WaitingForApproval`, `Approved` and `Denied` belong to KubeDB's approval layer.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub enum OpsPhase {
    /// Waits for its turn.
    Pending,
    /// Is carried out.
    Progressing,
    /// Done and proved.
    Successful,
    /// Waits for somebody to approve it.
    WaitingForApproval,
    /// Not done; the database is resumed, and serves what its spec says as far as it could be
    /// brought back.
    Failed,
    /// Approved.
    Approved,
    /// Not approved.
    Denied,
    /// Another request took its place.
    Skipped,
}

impl OpsPhase {
    /// Whether it is the end, good or bad.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(
            self,
            Self::Successful | Self::Failed | Self::Skipped | Self::Denied
        )
    }
}

impl PostgresOpsRequest {
    /// Where it is in its life, as far as anybody has said.
    #[must_use]
    pub fn phase(&self) -> Option<OpsPhase> {
        self.status.as_ref()?.phase
    }

    /// Whether the request has come to its end, good or bad.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.phase().is_some_and(OpsPhase::is_final)
    }

    /// Whether it replaces the pods where reloading them would do: unless it says that it would
    /// rather not.
    #[must_use]
    pub fn restarts(&self) -> bool {
        let reloads = self
            .annotations()
            .get(STRATEGY)
            .is_some_and(|strategy| strategy == "Reload");
        self.spec.type_ == OpsType::Restart || !reloads
    }

    /// What becomes of the names that the certificates in the request have already. An invalid
    /// annotation counts as not set.
    #[must_use]
    pub fn name_change(&self) -> NameChange {
        let text = self.annotations().get(NAMES);
        text.and_then(|text| NameChange::parse(text))
            .unwrap_or_default()
    }

    /// Whether the request will still do something: it is not finished, and not deleted before it
    /// began.
    #[must_use]
    pub fn is_to_run(&self) -> bool {
        let began = self.phase() == Some(OpsPhase::Progressing);
        !self.is_finished() && (began || self.metadata.deletion_timestamp.is_none())
    }
}

/// A backup of another tool that was paused.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PausedBackup {
    /// API group of the backup's configuration.
    pub api_group: Option<String>,
    /// Kind of the backup's configuration.
    pub kind: Option<String>,
    /// Name of the backup's configuration.
    pub name: String,
    /// Namespace of the backup's configuration. The request's own if left out.
    pub namespace: Option<String>,
}

/// One step of an operation.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// Name of the step, such as `Expand` or `Restart ha-postgres-1`.
    pub name: String,
    /// When the step began.
    pub started_at: Option<Time>,
    /// When the world showed the step done. Empty while it is not.
    pub finished_at: Option<Time>,
    /// How often the step was begun.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub attempts: i32,
    /// What the step waits for, did, or failed at.
    pub message: Option<String>,
}

/// What a TLS handshake negotiated.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct NegotiatedTls {
    /// The version of the protocol, such as `TLSv1.3`.
    pub protocol: String,
    /// The cipher suite, by its IANA name, such as `TLS_AES_256_GCM_SHA384`.
    pub cipher: String,
    /// The group of the key exchange, by its IANA name, such as `X25519MLKEM768`.
    pub group: Option<String>,
}

/// One pod of the database, as seen on the wire.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PodStatus {
    /// Name of the pod.
    pub name: String,
    /// `primary` or `standby`.
    pub role: Option<String>,
    /// Serial number, in hex, of the certificate that the pod serves. Empty when it serves none.
    pub serving_serial: Option<String>,
    /// When the certificate that the pod serves ends, or a CA above it if that is earlier.
    pub not_after: Option<Time>,
    /// What the pod negotiates with pgrekey. Empty when it does not speak TLS.
    pub tls: Option<NegotiatedTls>,
    /// Common names of the CAs that the pod trusts for client certificates.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trusts: Vec<String>,
    /// How much of the primary's log a standby has yet to replay, rounded up to a power of two of
    /// MiB, such as `16Mi`; `0Mi` is less than 1 MiB. Empty when it does not replicate.
    pub lag: Option<String>,
    /// Whether the pod is another one than when this request began.
    #[serde(default)]
    pub restarted: bool,
}
