//! `Postgres` (`kubedb.com/v1`): a highly available PostgreSQL cluster.

use k8s_openapi::api::core::v1::PersistentVolumeClaimSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;
use std::collections::BTreeMap;

use crate::api::annotations::SERVER_NAMES;
use crate::api::bounds::{MAX_CHECK_FAILURES, MAX_CHECK_PERIOD, MAX_CHECK_TIMEOUT, MAX_REPLICAS};
use crate::api::condition::Condition;
use crate::api::monitor::Monitor;
use crate::api::names::{Alias, Names};
use crate::api::template::{PodTemplate, ServiceTemplate};
use crate::api::tls::{
    CertificateSpec, ClientAuthMode, IssuerRef, KeyAlgorithm, PrivateKey, SslMode,
};

/// Desired state of a PostgreSQL cluster.
#[skip_serializing_none]
#[derive(CustomResource, Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "kubedb.com",
    version = "v1",
    kind = "Postgres",
    plural = "postgreses",
    singular = "postgres",
    shortname = "pg",
    category = "datastore",
    category = "kubedb",
    category = "appscode",
    category = "all",
    namespaced,
    status = "PostgresStatus",
    derive = "PartialEq",
    doc = "Postgres is a highly available PostgreSQL cluster.",
    annotation("helm.sh/resource-policy", "keep"),
    printcolumn(
        name = "Version",
        type_ = "string",
        json_path = ".spec.version",
        description = "PostgresVersion in use"
    ),
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = ".status.phase",
        description = "Phase of the database"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp",
        description = "Time since creation"
    )
)]
pub struct PostgresSpec {
    /// Name of the PostgresVersion to run. Its major version cannot be changed.
    pub version: String,
    /// Number of pods, primary included, 1 to 32. 1 if left out.
    #[schemars(range(min = 1, max = MAX_REPLICAS))]
    pub replicas: Option<i32>,
    /// Without effect: standbys always answer reads, as with `Hot`. `Warm` is accepted with a
    /// warning. `Hot` if left out.
    pub standby_mode: Option<StandbyMode>,
    /// Whether a commit waits for standbys (`Synchronous`) or not (`Asynchronous`). `Asynchronous`
    /// if left out.
    pub streaming_mode: Option<StreamingMode>,
    /// How a commit waits for standbys. Only with `streamingMode: Synchronous`.
    pub synchronous_replication_config: Option<SynchronousReplicationConfig>,
    /// Whether data survive their pod (`Durable`, needs `storage`) or not (`Ephemeral`). `Durable`
    /// if left out. Cannot be changed.
    pub storage_type: Option<StorageType>,
    /// Claim for the data volume of each pod. Required for `Durable`.
    pub storage: Option<PersistentVolumeClaimSpec>,
    /// What happens to data and Secrets when the Postgres is deleted. `Delete` if left out; `Halt`
    /// while `halted` is true.
    pub deletion_policy: Option<DeletionPolicy>,
    /// Stops the database and keeps its data and Secrets; false brings it back. False if left out.
    pub halted: Option<bool>,
    /// TLS of the database. Without it the database speaks plaintext only.
    pub tls: Option<TlsConfig>,
    /// How the database's own clients connect. `verify-full` with `tls`, else `disable`, if left
    /// out.
    pub ssl_mode: Option<SslMode>,
    /// How clients authenticate. `md5` before PostgreSQL 18, else `scram`, if left out.
    pub client_auth_mode: Option<ClientAuthMode>,
    /// Secret with the superuser's name and password. Made as `<database>-auth` if left out.
    pub auth_secret: Option<AuthSecret>,
    /// Changes to the pods that pgrekey builds.
    pub pod_template: Option<PodTemplate>,
    /// Changes to the Services that pgrekey builds, one entry per alias.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub service_templates: Vec<ServiceTemplate>,
    /// PostgreSQL settings of the user's own. The settings that TLS and replication need are
    /// pgrekey's and cannot be overridden.
    pub configuration: Option<Configuration>,
    /// How the database's health is checked.
    pub health_checker: Option<HealthChecker>,
    /// Metrics of the database.
    pub monitor: Option<Monitor>,
    /// Scripts that run once, when the database is new.
    pub init: Option<Init>,
    /// Limits of a failover.
    pub leader_election: Option<LeaderElection>,
}

impl Postgres {
    /// The conditions of its status; none while it has no status.
    #[must_use]
    pub fn conditions(&self) -> &[Condition] {
        self.status
            .as_ref()
            .map(|status| status.conditions.as_slice())
            .unwrap_or_default()
    }
}

impl PostgresSpec {
    /// The Secret of the superuser, for the database with this name: the one that the spec names,
    /// else the default.
    #[must_use]
    pub fn auth_secret_of(&self, database: &str) -> String {
        let named = self
            .auth_secret
            .as_ref()
            .map(|secret| secret.name.clone())
            .filter(|name| !name.is_empty());
        named.unwrap_or_else(|| Names::new(database).auth_secret())
    }
}

/// KubeDB's standby mode, `Hot` or `Warm`. Standbys answer reads in both.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub enum StandbyMode {
    /// Standbys answer read-only queries.
    Hot,
    /// The same as `Hot`: pgrekey connects to every standby to see its replay position.
    Warm,
}

/// Whether a commit waits for standbys: `Synchronous` or `Asynchronous`.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub enum StreamingMode {
    /// A commit waits for standbys.
    Synchronous,
    /// A commit waits for no standby.
    Asynchronous,
}

/// Whether data survive their pod: `Durable` or `Ephemeral`.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub enum StorageType {
    /// A PersistentVolumeClaim per pod.
    Durable,
    /// An emptyDir per pod: data end with the pod.
    Ephemeral,
}

/// What happens on deletion. `Halt` keeps volumes and Secrets, `Delete` keeps Secrets, `WipeOut`
/// keeps nothing, and `DoNotTerminate` refuses the deletion.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub enum DeletionPolicy {
    /// The workload goes; volumes and Secrets stay.
    Halt,
    /// Volumes go too; Secrets stay.
    Delete,
    /// Everything goes.
    WipeOut,
    /// The deletion is refused.
    DoNotTerminate,
}

/// How a commit waits for standbys.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SynchronousReplicationConfig {
    /// Whether any of the standbys count (`Any`, a quorum) or the first of the list (`First`, a
    /// priority). `Any` if left out.
    pub mode: Option<SyncMode>,
    /// How many standbys a commit waits for: at least 1, fewer than `replicas`. 1 if left out.
    #[schemars(range(min = 1, max = MAX_REPLICAS))]
    pub num_sync_replicas: Option<i32>,
    /// What a standby must have done: `On` flushed, `RemoteApply` replayed, `RemoteWrite` written;
    /// `Local` and `Off` do not wait. `RemoteWrite` if left out.
    pub commit_level: Option<CommitLevel>,
    /// Without effect; admission warns. Patroni chooses the synchronous standbys among all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub standby_names: Vec<String>,
    /// Every standby may be synchronous. Not together with `standbyNames`.
    pub use_wildcard: Option<bool>,
}

/// Which standbys count: `Any` or `First`.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub enum SyncMode {
    /// A quorum of any standbys.
    Any,
    /// The first of the list that are connected.
    First,
}

/// What a standby must have done before a commit returns; the values are those of PostgreSQL's
/// `synchronous_commit`.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub enum CommitLevel {
    /// Flushed to its disk (`on`).
    On,
    /// Replayed (`remote_apply`).
    RemoteApply,
    /// Written, not yet flushed (`remote_write`).
    RemoteWrite,
    /// Nothing: the primary's own flush is enough (`local`).
    Local,
    /// Nothing, not even the primary's flush (`off`).
    Off,
}

/// TLS of a database.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct TlsConfig {
    /// Issuer of all certificates that name none of their own.
    pub issuer_ref: Option<IssuerRef>,
    /// Certificates with settings of their own, at most one entry per alias.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<CertificateSpec>,
}

impl TlsConfig {
    /// The entry for this alias. `None` if there is none; the first if there are more.
    #[must_use]
    pub fn certificate(&self, alias: &str) -> Option<&CertificateSpec> {
        self.certificates.iter().find(|c| c.alias == alias)
    }

    /// Algorithm of the server's key.
    #[must_use]
    pub fn server_key(&self) -> KeyAlgorithm {
        let server = self.certificate(Alias::Server.as_str());
        let key = server.and_then(|server| server.private_key.as_ref());
        key.map(PrivateKey::algorithm).unwrap_or_default()
    }
}

/// The Secret of the superuser: keys `username` and `password`.
#[skip_serializing_none]
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct AuthSecret {
    /// API group of the Secret: empty.
    pub api_group: Option<String>,
    /// Kind of the object: `Secret`.
    pub kind: String,
    /// Name of the Secret, in the database's namespace.
    pub name: String,
    /// The Secret is managed elsewhere: pgrekey only reads it. False if left out.
    pub externally_managed: Option<bool>,
}

/// The key of the settings, in the spec and in the Secret.
pub const USER_CONF: &str = "user.conf";

/// PostgreSQL settings of the user's own.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Configuration {
    /// Settings in the syntax of `postgresql.conf`, under the one key `user.conf`: at most 64 KiB.
    pub inline: Option<BTreeMap<String, String>>,
    /// Secret whose key `user.conf` holds settings in the syntax of `postgresql.conf`. `inline`
    /// wins over it.
    pub secret_name: Option<String>,
}

/// How the database's health is checked.
#[skip_serializing_none]
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct HealthChecker {
    /// Seconds between two checks, 1 to 3600. 10 if left out.
    #[schemars(range(min = 1, max = MAX_CHECK_PERIOD))]
    pub period_seconds: Option<i32>,
    /// Seconds that one check may take, 1 to 300. 10 if left out.
    #[schemars(range(min = 1, max = MAX_CHECK_TIMEOUT))]
    pub timeout_seconds: Option<i32>,
    /// Failed checks in a row before the database counts as not ready, 1 to 100. 1 if left out.
    #[schemars(range(min = 1, max = MAX_CHECK_FAILURES))]
    pub failure_threshold: Option<i32>,
    /// Checks do not write to the primary. False if left out.
    pub disable_write_check: Option<bool>,
}

/// Scripts that run once, when the database is new.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Init {
    /// Scripts to run on the new primary.
    pub script: Option<InitScript>,
}

/// Scripts (`*.sql`, `*.sh`, in the order of their names) from a ConfigMap or a Secret.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct InitScript {
    /// Folder of the volume in which the scripts are, without `..`. The volume's root if left out.
    pub script_path: Option<String>,
    /// ConfigMap with the scripts, one key a file.
    pub config_map: Option<k8s_openapi::api::core::v1::ConfigMapVolumeSource>,
    /// Secret with the scripts, one key a file.
    pub secret: Option<k8s_openapi::api::core::v1::SecretVolumeSource>,
}

impl InitScript {
    /// Whether it names exactly one of ConfigMap and Secret.
    #[must_use]
    pub fn has_one_source(&self) -> bool {
        self.config_map.is_some() != self.secret.is_some()
    }

    /// Whether its folder is inside the volume.
    #[must_use]
    pub fn stays_inside(&self) -> bool {
        let path = self.script_path.as_deref().unwrap_or_default();
        !path.starts_with('/') && path.split('/').all(|part| part != "..")
    }
}

/// Which names the certificates of the server and of the exporter have without being asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServerNames {
    /// KubeDB's: Services by their short and full names, a wildcard for the pods, `localhost` and
    /// `127.0.0.1`.
    #[default]
    KubeDb,
    /// The Services and each pod, by names that end in `.svc` or in the cluster's domain.
    Services,
}

impl ServerNames {
    /// The names that annotation [`SERVER_NAMES`] writes so, if there are any.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        (text == "Services").then_some(Self::Services)
    }
}

impl Postgres {
    /// Which names the certificates of its servers have. An invalid annotation counts as not set.
    #[must_use]
    pub fn server_names(&self) -> ServerNames {
        let text = self.annotations().get(SERVER_NAMES);
        text.and_then(|text| ServerNames::parse(text))
            .unwrap_or_default()
    }
}

/// Limits of a failover.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct LeaderElection {
    /// A standby that is further behind than this, in bytes of WAL, is not promoted. 33554432 (32
    /// MiB) if left out.
    #[serde(default = "default_maximum_lag")]
    #[schemars(range(min = 0))]
    pub maximum_lag_before_failover: i64,
}

/// Default of `maximumLagBeforeFailover`, in bytes of WAL. It stands here because the schema needs
/// it; elsewhere it is one of `api::defaults`.
pub const MAXIMUM_LAG_BEFORE_FAILOVER: i64 = 32 * 1024 * 1024;

const fn default_maximum_lag() -> i64 {
    MAXIMUM_LAG_BEFORE_FAILOVER
}

/// Observed state of the cluster.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PostgresStatus {
    /// Phase of the database.
    pub phase: Option<DatabasePhase>,
    /// The `metadata.generation` that was last acted on.
    pub observed_generation: Option<i64>,
    /// Conditions of the database, in the order in which they first appeared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The Secret of the superuser.
    pub auth_secret: Option<AuthSecretStatus>,
    /// The CAs that end before a certificate below them.
    #[serde(default, rename = "earlyCAs", skip_serializing_if = "Vec::is_empty")]
    pub early_cas: Vec<EarlyCaStatus>,
    /// The CAs at the top of the database's chains that its issuers did not give: annotation
    /// `pgrekey.dev/extra-ca` named the object that holds them.
    #[serde(default, rename = "extraCAs", skip_serializing_if = "Vec::is_empty")]
    pub extra_cas: Vec<ExtraCaStatus>,
}

/// A CA that ends before a certificate below it.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct EarlyCaStatus {
    /// Its common name.
    pub name: String,
    /// SHA-256 of its certificate, in hex.
    pub fingerprint: String,
    /// When it ends.
    pub ends: Time,
}

/// A CA that the issuer did not give.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ExtraCaStatus {
    /// Its common name.
    pub name: String,
    /// SHA-256 of its certificate, in hex.
    pub fingerprint: String,
}

/// Observed state of the Secret of the superuser.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct AuthSecretStatus {
    /// When the Secret last changed.
    pub last_update_timestamp: Option<Time>,
}

/// Phase of a database. `Provisioning`: not yet ready for the first time. `DataRestoring`: data are
/// being restored. `Ready`: serves. `Critical`: serves, but a part is not well. `NotReady`: does
/// not serve. `Halted`: stopped by its owner. `Unknown`: not being checked.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub enum DatabasePhase {
    /// Not yet ready for the first time.
    Provisioning,
    /// Data are being restored.
    DataRestoring,
    /// Serves.
    Ready,
    /// Serves, but a part is not well.
    Critical,
    /// Does not serve.
    NotReady,
    /// Stopped by its owner.
    Halted,
    /// Not being checked.
    Unknown,
}
