//! The defaults of both kinds.
//!
//! # Guarantees
//! Only missing fields are filled in, and missing entries of `tls.certificates` and of a request's
//! finalizers; what exists, known or unknown, does not change. Defaulting is idempotent. On an update,
//! most missing fields take their value from the old object, so that a PUT of the same file is no
//! edit; not so the modes when TLS is added or removed, because the old ones would not fit.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::api::annotations::OPS_REQUEST_FINALIZER;
use crate::api::defaults;
use crate::api::names::{Alias, Names};
use crate::api::ops_request::{OpsType, TlsOperation};
use crate::api::tls::CERT_MANAGER_GROUP;
use crate::api::{Postgres, PostgresOpsRequest, PostgresSpec};

use crate::rules::document::FieldSelection;
use crate::rules::queue::will_have_tls;
use crate::rules::shared::{aliases_without_issuer, probable_major};
use crate::rules::{Allowed, ClusterFacts, Review};

/// A default issuer, in an annotation or a flag: `Issuer/name` or `ClusterIssuer/name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefaultIssuer {
    kind: &'static str,
    name: String,
}

impl std::str::FromStr for DefaultIssuer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (kind, name) = text.split_once('/').unwrap_or_default();
        let kind = ["Issuer", "ClusterIssuer"]
            .into_iter()
            .find(|known| *known == kind);
        match kind {
            Some(kind) if crate::rules::text::is_object_name(name) => Ok(Self {
                kind,
                name: name.to_owned(),
            }),
            _ => Err(format!(
                "{} is no issuer: use Issuer/NAME or ClusterIssuer/NAME",
                crate::rules::quoted(text)
            )),
        }
    }
}

impl DefaultIssuer {
    fn reference(&self) -> Value {
        json!({"apiGroup": CERT_MANAGER_GROUP, "kind": self.kind, "name": self.name})
    }
}

/// The settings of the installation.
#[derive(Clone, Debug, Default)]
pub struct InstallationDefaults {
    /// Issuer for objects without one, in namespaces without a default issuer.
    pub issuer: Option<DefaultIssuer>,
    /// Whether this installation executes requests, and so puts its finalizer on them.
    pub ops_manager: bool,
    /// The only namespace that it manages. `None`: all.
    pub namespace: Option<String>,
    /// The permissions of databases.
    pub allowed: Arc<Allowed>,
}

/// The default issuer of a namespace: its annotation, else the installation's default.
///
/// An invalid annotation counts as none. If there is no other default either, a rule reports the
/// missing issuer and names the sources of a default.
fn default_issuer(
    namespace: &str,
    facts: &dyn ClusterFacts,
    installation: &InstallationDefaults,
) -> Option<Value> {
    let annotation = facts
        .default_issuer(namespace)
        .and_then(|text| text.parse::<DefaultIssuer>().ok());
    annotation
        .as_ref()
        .or(installation.issuer.as_ref())
        .map(DefaultIssuer::reference)
}

/// The fields of the document that [`postgres`] reads or changes.
pub static POSTGRES: FieldSelection = FieldSelection::Fields(&[(
    "spec",
    FieldSelection::Fields(&[
        ("replicas", FieldSelection::All),
        ("standbyMode", FieldSelection::All),
        ("storageType", FieldSelection::All),
        ("deletionPolicy", FieldSelection::All),
        ("sslMode", FieldSelection::All),
        ("clientAuthMode", FieldSelection::All),
        ("healthChecker", FieldSelection::All),
        ("streamingMode", FieldSelection::All),
        ("synchronousReplicationConfig", FieldSelection::All),
        TLS,
    ]),
)]);

/// The fields that [`ops_request`] reads or changes in a new request.
pub static REQUEST: FieldSelection =
    FieldSelection::Fields(&[FINALIZERS, ("spec", FieldSelection::Fields(&[TLS]))]);

/// The fields that [`ops_request`] reads or changes in an update: any missing field is taken from
/// the old object.
pub static REQUEST_UPDATE: FieldSelection =
    FieldSelection::Fields(&[("spec", FieldSelection::All)]);

const FINALIZERS: (&str, FieldSelection) = (
    "metadata",
    FieldSelection::Fields(&[("finalizers", FieldSelection::All)]),
);

const TLS: (&str, FieldSelection) = (
    "tls",
    FieldSelection::Fields(&[
        ("issuerRef", FieldSelection::All),
        ("certificates", FieldSelection::Each(&CERTIFICATE)),
    ]),
);

static CERTIFICATE: FieldSelection = FieldSelection::Fields(&[
    ("alias", FieldSelection::All),
    ("secretName", FieldSelection::All),
    ("issuerRef", FieldSelection::All),
]);

/// The JSON object at this path, if there is one. The schema reports another type.
fn object<'a>(value: &'a mut Value, path: &[&str]) -> Option<&'a mut Map<String, Value>> {
    path.iter()
        .try_fold(value, |value, key| value.get_mut(*key))?
        .as_object_mut()
}

fn is_missing(map: &Map<String, Value>, key: &str) -> bool {
    map.get(key).is_none_or(Value::is_null)
}

fn fill(map: &mut Map<String, Value>, key: &str, value: impl FnOnce() -> Value) {
    if is_missing(map, key) {
        map.insert(key.to_owned(), value());
    }
}

/// Fills in kind and group of every issuer reference below `spec.tls`.
fn complete_issuers(document: &mut Value) {
    fn complete(issuer: Option<&mut Value>) {
        if let Some(issuer) = issuer.and_then(Value::as_object_mut) {
            fill(issuer, "apiGroup", || CERT_MANAGER_GROUP.into());
            fill(issuer, "kind", || "Issuer".into());
        }
    }
    let Some(tls) = object(document, &["spec", "tls"]) else {
        return;
    };
    complete(tls.get_mut("issuerRef"));
    for certificate in tls
        .get_mut("certificates")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        complete(certificate.get_mut("issuerRef"));
    }
}

/// Fills in the defaults of a request, and the finalizer if this installation executes it, which
/// saves a write at its start. The finalizer is removed when the request ends, or is deleted before
/// its turn.
///
/// An issuer is filled in only if the request adds TLS. On a database with TLS a missing issuer
/// means the current one when the request's turn comes, which may then differ from today's.
#[must_use]
pub fn ops_request(
    mut document: Value,
    review: &Review<PostgresOpsRequest>,
    facts: &dyn ClusterFacts,
    installation: &InstallationDefaults,
) -> Value {
    if let Some(old) = &review.old {
        if let (Some(spec), Ok(Value::Object(old))) = (
            object(&mut document, &["spec"]),
            serde_json::to_value(&old.spec),
        ) {
            take_missing(spec, &old);
        }
        return document;
    }
    let request = &review.object;
    if request.spec.type_ == OpsType::ReconfigureTLS && needs_issuer(request, facts) {
        let namespace = request.metadata.namespace.as_deref().unwrap_or_default();
        let issuer = default_issuer(namespace, facts, installation);
        if let (Some(tls), Some(issuer)) = (object(&mut document, &["spec", "tls"]), issuer) {
            fill(tls, "issuerRef", || issuer);
        }
    }
    complete_issuers(&mut document);
    if let Some(metadata) =
        object(&mut document, &["metadata"]).filter(|_| carries_out(installation, request))
    {
        fill(metadata, "finalizers", || json!([]));
        let finalizers = metadata.get_mut("finalizers").and_then(Value::as_array_mut);
        if let Some(finalizers) =
            finalizers.filter(|all| !all.iter().any(|one| one == OPS_REQUEST_FINALIZER))
        {
            finalizers.push(OPS_REQUEST_FINALIZER.into());
        }
    }
    document
}

/// Whether this installation will execute the request: only then will the finalizer be removed.
fn carries_out(installation: &InstallationDefaults, request: &PostgresOpsRequest) -> bool {
    let namespace = request.metadata.namespace.as_ref();
    installation.ops_manager
        && installation
            .namespace
            .as_ref()
            .is_none_or(|only| Some(only) == namespace)
}

/// Whether the request adds TLS and leaves a certificate without an issuer.
fn needs_issuer(request: &PostgresOpsRequest, facts: &dyn ClusterFacts) -> bool {
    let namespace = request.metadata.namespace.as_deref().unwrap_or_default();
    let Some(tls) = request
        .spec
        .tls
        .as_ref()
        .filter(|tls| tls.operations() == [TlsOperation::Change])
    else {
        return false;
    };
    let Some(database) = facts.database(namespace, &request.spec.database_ref.name) else {
        return false;
    };
    !will_have_tls(request, &database, facts)
        && !aliases_without_issuer(tls.issuer_ref.as_ref(), &tls.certificates).is_empty()
}

/// Copies fields that the new object lacks from the old one, at any depth. Entries of lists are
/// matched by index.
fn take_missing(new: &mut Map<String, Value>, old: &Map<String, Value>) {
    for (key, old) in old {
        match (new.get_mut(key), old) {
            (None | Some(Value::Null), _) => {
                new.insert(key.clone(), old.clone());
            }
            (Some(Value::Object(new)), Value::Object(old)) => take_missing(new, old),
            (Some(Value::Array(new)), Value::Array(old)) if new.len() == old.len() => {
                for pair in new.iter_mut().zip(old) {
                    if let (Value::Object(new), Value::Object(old)) = pair {
                        take_missing(new, old);
                    }
                }
            }
            _ => {}
        }
    }
}

/// Fills in the defaults of a Postgres.
#[must_use]
pub fn postgres(
    mut document: Value,
    review: &Review<Postgres>,
    facts: &dyn ClusterFacts,
    installation: &InstallationDefaults,
) -> Value {
    let Postgres {
        metadata,
        spec: new,
        ..
    } = &review.object;
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    // Without a name (generateName) the names of the Secrets are unknown.
    let name = metadata.name.as_deref().filter(|name| !name.is_empty());
    let old = review.old.as_ref().map(|old| &old.spec);
    let has_tls = new.tls.is_some();
    // The old modes fit only if both objects have TLS, or neither has.
    let same_tls = old.filter(|old| old.tls.is_some() == has_tls);

    if let Some(tls) = object(&mut document, &["spec", "tls"]) {
        default_tls(tls, name, || {
            let without_issuer = new
                .tls
                .as_ref()
                .map(|t| aliases_without_issuer(t.issuer_ref.as_ref(), &t.certificates));
            let kept = old.and_then(|old| old.tls.as_ref()?.issuer_ref.clone());
            let kept = kept.and_then(|issuer| serde_json::to_value(issuer).ok());
            let default = || default_issuer(namespace, facts, installation);
            without_issuer
                .filter(|aliases| !aliases.is_empty())
                .and_then(|_| kept.or_else(default))
        });
    }
    complete_issuers(&mut document);

    let Some(spec) = object(&mut document, &["spec"]) else {
        return document;
    };
    let halted = new.halted == Some(true);
    let ssl_mode = defaults::ssl_mode(new.tls.as_ref());
    let auth_mode = defaults::client_auth_mode(probable_major(&new.version, Some(facts)));
    // A field takes the old object's value, else its default.
    let mut keep = |field: &str, kept: Option<Value>, default: Value| {
        fill(spec, field, || kept.unwrap_or(default));
    };
    let kept_policy = old.filter(|_| !halted).and_then(|old| old.deletion_policy);
    let policy = defaults::deletion_policy(new.halted);
    keep(
        "standbyMode",
        old.and_then(|old| old.standby_mode).map(|mode| json!(mode)),
        json!(defaults::STANDBY_MODE),
    );
    keep(
        "storageType",
        old.and_then(|old| old.storage_type).map(|kind| json!(kind)),
        json!(defaults::STORAGE_TYPE),
    );
    keep(
        "deletionPolicy",
        kept_policy.map(|policy| json!(policy)),
        json!(policy),
    );
    keep(
        "sslMode",
        same_tls
            .and_then(|old| old.ssl_mode)
            .map(|mode| json!(mode)),
        json!(ssl_mode),
    );
    let kept_auth_mode = same_tls.and_then(|old| old.client_auth_mode);
    keep(
        "clientAuthMode",
        kept_auth_mode.map(|mode| json!(mode)),
        json!(auth_mode),
    );
    fill(spec, "replicas", || {
        old.and_then(|old| old.replicas)
            .unwrap_or(defaults::REPLICAS)
            .into()
    });
    default_health_checker(spec, old);
    default_synchronous_replication(spec);
    document
}

fn default_health_checker(spec: &mut Map<String, Value>, old: Option<&PostgresSpec>) {
    fill(spec, "healthChecker", || json!({}));
    let Some(checker) = spec.get_mut("healthChecker").and_then(Value::as_object_mut) else {
        return;
    };
    let before = old.and_then(|old| old.health_checker).unwrap_or_default();
    fill(checker, "periodSeconds", || {
        before
            .period_seconds
            .unwrap_or(defaults::CHECK_PERIOD_SECONDS)
            .into()
    });
    fill(checker, "timeoutSeconds", || {
        before
            .timeout_seconds
            .unwrap_or(defaults::CHECK_TIMEOUT_SECONDS)
            .into()
    });
    fill(checker, "failureThreshold", || {
        before
            .failure_threshold
            .unwrap_or(defaults::CHECK_FAILURE_THRESHOLD)
            .into()
    });
}

fn default_synchronous_replication(spec: &mut Map<String, Value>) {
    const FIELD: &str = "synchronousReplicationConfig";
    if spec.get("streamingMode").and_then(Value::as_str) != Some("Synchronous") {
        return;
    }
    fill(spec, FIELD, || json!({}));
    if let Some(config) = spec.get_mut(FIELD).and_then(Value::as_object_mut) {
        fill(config, "mode", || json!(defaults::SYNC_MODE));
        fill(config, "numSyncReplicas", || defaults::SYNC_REPLICAS.into());
        fill(config, "commitLevel", || json!(defaults::COMMIT_LEVEL));
    }
}

/// Fills in the issuer and, if there is one for all, an entry with a Secret for each certificate.
fn default_tls(
    tls: &mut Map<String, Value>,
    name: Option<&str>,
    issuer: impl FnOnce() -> Option<Value>,
) {
    if is_missing(tls, "issuerRef")
        && let Some(issuer) = issuer()
    {
        tls.insert("issuerRef".to_owned(), issuer);
    }
    let Some(name) = name.filter(|_| !is_missing(tls, "issuerRef")) else {
        return;
    };
    fill(tls, "certificates", || json!([]));
    let Some(certificates) = tls.get_mut("certificates").and_then(Value::as_array_mut) else {
        return;
    };
    for alias in Alias::ALL {
        let secret = Names::new(name).certificate(alias);
        let is_it = |c: &&mut Value| c.get("alias").and_then(Value::as_str) == Some(alias.as_str());
        match certificates
            .iter_mut()
            .find(is_it)
            .map(Value::as_object_mut)
        {
            Some(Some(entry)) => fill(entry, "secretName", || secret.into()),
            Some(None) => {}
            None => certificates.push(json!({"alias": alias.as_str(), "secretName": secret})),
        }
    }
}
