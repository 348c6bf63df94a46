//! Annotations, labels and finalizers of pgrekey's own: each key, and its meaning.

/// Every annotation and label of pgrekey's own begins so.
pub const PREFIX: &str = "pgrekey.dev/";

// Annotations that users write.

/// On a request: how pods take over a change, `Restart` (the default) or `Reload`.
pub const STRATEGY: &str = "pgrekey.dev/strategy";
/// On a request: how long to wait for clients, as a Go duration of at most 7 days. pgrekey waits
/// after a new CA is published and before a certificate from it is served, and again before the old
/// CA is dropped. On a Postgres: the same, for renewals and for requests without this annotation.
/// Default: 0 for requests, 2m for renewals. Pods see a changed volume within about a minute.
pub const CLIENT_GRACE_PERIOD: &str = "pgrekey.dev/client-grace-period";
/// On a request: whether the names that it lists for a certificate come to those that the database
/// has (`Add`, the default) or take their place (`Replace`).
pub const NAMES: &str = "pgrekey.dev/names";
/// On a request: how long to keep it after its end, as a Go duration. Default: for ever.
pub const TTL: &str = "pgrekey.dev/ttl-after-finished";
/// On a Postgres: how many bytes of WAL a standby may be behind and still count as up to date, as a
/// whole number.
pub const MAX_LAG: &str = "pgrekey.dev/max-lag";
/// On a Postgres: which names the certificates of its servers have. `Services`: those of Services
/// and pods from the namespace up, and no others. Default: KubeDB's.
pub const SERVER_NAMES: &str = "pgrekey.dev/server-names";
/// On a Postgres: where the CA lies that its issuer does not give with what it issues,
/// `ConfigMap/NAME` or `Secret/NAME`, with `/KEY` behind it if the key is not `ca.crt`.
pub const EXTRA_CA: &str = "pgrekey.dev/extra-ca";
/// On a Namespace: the issuer for databases that name none, `Issuer/NAME` or `ClusterIssuer/NAME`.
pub const DEFAULT_ISSUER: &str = "pgrekey.dev/default-issuer";
/// On a PostgresVersion: groups that the OpenSSL of the image has for `ssl_groups` beyond those that
/// every OpenSSL 3 has, such as `X25519MLKEM768`, separated by commas. Servers offer that one first.
pub const TLS_GROUPS: &str = "pgrekey.dev/tls-groups";
/// Label of a ServiceAccount: with value `true`, pods of databases may run as it.
pub const USABLE_BY_DATABASES: &str = "pgrekey.dev/usable-by-databases";

// Annotations that pgrekey writes.

/// On ConfigMap `NAME-patroni` and PetSet `NAME`: the PostgresVersion that the data belong to, as
/// `MAJOR/NAME`. The ConfigMap stays while the database is halted; the PetSet stays if someone
/// deletes the ConfigMap.
pub const BUILT_OF: &str = "pgrekey.dev/version";
/// On Secret `NAME-tls`: the uid of the operation that replaced the material under `previous.`.
pub const PREVIOUS_OF: &str = "pgrekey.dev/previous-of";
/// On Secret `NAME-user-conf`: the settings that are left out of the file, and a hash of the file
/// with them.
pub const LEFT_OUT: &str = "pgrekey.dev/left-out";
/// On a pod: the version of its volumes' content for which the kubelet was last asked to refresh
/// them.
pub const REFRESHED_FOR: &str = "pgrekey.dev/refresh";
/// On a PersistentVolumeClaim: when its pod was scaled away. Its data are too old for the pod's
/// return.
pub const LEFT_AT: &str = "pgrekey.dev/left-at";
/// On a Certificate: the operation that asked for a new issue, and the Certificate's revision
/// before it.
pub const REISSUE: &str = "pgrekey.dev/reissue";
/// On the Certificate of a trial: the operation that it was made for.
pub const TRIAL_OF: &str = "pgrekey.dev/trial-of";

// Finalizers.

/// On a Postgres, as in KubeDB: the object goes once its data are dealt with.
pub const POSTGRES_FINALIZER: &str = "kubedb.com";
/// On a PostgresOpsRequest that has not ended. The webhooks give it to a new request, else the
/// request gets it when it begins.
pub const OPS_REQUEST_FINALIZER: &str = "pgrekey.dev/ops-request";
