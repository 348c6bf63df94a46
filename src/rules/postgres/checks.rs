//! The checks of the rules for `Postgres`.

use std::collections::BTreeSet;

use kube::ResourceExt;

use crate::api::Postgres;
use crate::api::annotations::{CLIENT_GRACE_PERIOD, EXTRA_CA, MAX_LAG, SERVER_NAMES};
use crate::api::bounds::{MAX_CHECK_FAILURES, MAX_CHECK_PERIOD, MAX_CHECK_TIMEOUT, MAX_REPLICAS};
use crate::api::defaults::SYNC_REPLICAS;
use crate::api::extra_ca::ExtraCaSource;
use crate::api::names::MAX_DATABASE;
use crate::api::postgres::{
    DeletionPolicy, PostgresSpec, ServerNames, StandbyMode, StorageType, StreamingMode,
    SynchronousReplicationConfig,
};
use crate::api::quantity;
use crate::api::tls::{ClientAuthMode, SslMode};

use crate::rules::shared::{
    OLDEST_MAJOR, aliases_without_issuer, check_annotation, check_client_grace_period,
    declared_major,
};
use crate::rules::{ClusterFacts, Findings, Review, quoted, text};

pub(super) fn name_valid(
    review: &Review<Postgres>,
    _: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) {
    /// The number of characters that the API server adds to `generateName`.
    const GENERATED: usize = 5;
    let metadata = &review.object.metadata;
    let (field, name, added) = match (metadata.name.as_deref(), metadata.generate_name.as_deref()) {
        (Some(name), _) if !name.is_empty() => ("metadata.name", name, 0),
        (_, Some(prefix)) if !prefix.is_empty() => ("metadata.generateName", prefix, GENERATED),
        // The API server refuses an object without either.
        _ => return,
    };
    let (length, most) = (name.chars().count(), MAX_DATABASE - added);
    if length > most {
        findings.add(
            field,
            format!("{} has {length} characters", quoted(name)),
            format!("use at most {most}"),
        );
    } else if !text::is_service_name(&format!("{name}{:x<added$}", "")) {
        let problem = format!("{} cannot be the name of a Service", quoted(name));
        findings.add(
            field,
            problem,
            "use lower-case letters, digits and inner hyphens, beginning with a letter",
        );
    }
}

pub(super) fn version_exists(
    review: &Review<Postgres>,
    facts: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) {
    let Some(facts) = facts else { return };
    let version = &review.object.spec.version;
    let Some(known) = facts.version(version) else {
        let problem = format!("there is no PostgresVersion {}", quoted(version));
        return findings.add(
            "spec.version",
            problem,
            "use one that `kubectl get pgversion` lists",
        );
    };
    if known.spec.major().is_none() {
        let says = quoted(&known.spec.version);
        let problem = format!(
            "PostgresVersion {} says {says}, which begins with no major version",
            quoted(version)
        );
        findings.add(
            "spec.version",
            problem,
            "correct the PostgresVersion, for example to 17.12",
        );
    }
}

pub(super) fn version_supported(
    review: &Review<Postgres>,
    facts: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) {
    if let Some(major) =
        declared_major(&review.object.spec.version, facts).filter(|major| *major < OLDEST_MAJOR)
    {
        let problem = format!("PostgreSQL {major} is not supported");
        findings.add(
            "spec.version",
            problem,
            format!("use {OLDEST_MAJOR} or newer"),
        );
    }
}

pub(super) fn version_deprecated(
    review: &Review<Postgres>,
    facts: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) {
    let Some(facts) = facts else { return };
    let version = &review.object.spec.version;
    if facts
        .version(version)
        .is_some_and(|v| v.spec.deprecated == Some(true))
    {
        findings.add(
            "spec.version",
            format!("PostgresVersion {} is deprecated", quoted(version)),
            "move to a newer one",
        );
    }
}

pub(super) fn replicas_valid(
    review: &Review<Postgres>,
    _: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) {
    const FIELD: &str = "spec.replicas";
    match review.object.spec.replicas {
        Some(few @ ..1) => {
            findings.add(
                FIELD,
                format!("{few} is less than 1"),
                "use 1 or more; halted: true stops the database",
            );
        }
        Some(many) if many > MAX_REPLICAS => {
            findings.add(
                FIELD,
                format!("{many} is more than {MAX_REPLICAS}"),
                format!("use at most {MAX_REPLICAS}"),
            );
        }
        _ => {}
    }
}

pub(super) fn standby_wish_ignored(
    review: &Review<Postgres>,
    _: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) {
    let spec = &review.object.spec;
    if spec.standby_mode == Some(StandbyMode::Warm) {
        findings.add("spec.standbyMode", "standbys are always hot", "use Hot");
    }
    if spec
        .synchronous_replication_config
        .as_ref()
        .is_some_and(|config| !config.standby_names.is_empty())
    {
        let field = "spec.synchronousReplicationConfig.standbyNames";
        findings.add(field, "Patroni chooses among all", "leave it out");
    }
}

pub(super) fn synchronous_valid(
    review: &Review<Postgres>,
    _: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) {
    const FIELD: &str = "spec.synchronousReplicationConfig";
    let spec = &review.object.spec;
    let Some(config) = &spec.synchronous_replication_config else {
        return;
    };
    let SynchronousReplicationConfig {
        mode: _,
        num_sync_replicas,
        commit_level: _,
        standby_names,
        use_wildcard,
    } = config;
    if spec.streaming_mode != Some(StreamingMode::Synchronous) {
        findings.add(
            FIELD,
            "has no effect on asynchronous streaming",
            "set streamingMode: Synchronous, or remove it",
        );
    }
    if *use_wildcard == Some(true) && !standby_names.is_empty() {
        findings.add(
            format!("{FIELD}.useWildcard"),
            "contradicts standbyNames",
            "use one of the two",
        );
    }
    let mut seen = BTreeSet::new();
    for (i, name) in standby_names.iter().enumerate() {
        if name.is_empty() || !seen.insert(name) {
            let problem = if name.is_empty() {
                "is empty".to_owned()
            } else {
                format!("{} is there twice", quoted(name))
            };
            findings.add(format!("{FIELD}.standbyNames[{i}]"), problem, "remove it");
        }
    }
    let wanted = num_sync_replicas.unwrap_or(SYNC_REPLICAS);
    let standbys = spec.desired_replicas().saturating_sub(1);
    let (most, of) = match i32::try_from(standby_names.len()) {
        Ok(0) | Err(_) => (standbys, "standbys"),
        Ok(names) => (names, "standbyNames"),
    };
    if spec.streaming_mode == Some(StreamingMode::Synchronous) && !(1..=most).contains(&wanted) {
        let problem = format!("{wanted} synchronous standbys are impossible with {most} {of}");
        findings.add(
            format!("{FIELD}.numSyncReplicas"),
            problem,
            "use at least 1 and at most as many as there are",
        );
    }
}

/// The storage type, `Durable` if left out.
pub(super) fn storage_type(spec: &PostgresSpec) -> StorageType {
    spec.storage_type.unwrap_or(StorageType::Durable)
}

pub(super) fn storage_required(
    review: &Review<Postgres>,
    _: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) {
    const FIELD: &str = "spec.storage.resources.requests.storage";
    let spec = &review.object.spec;
    if storage_type(spec) == StorageType::Ephemeral {
        return;
    }
    let Some(storage) = &spec.storage else {
        return findings.add(
            "spec.storage",
            "is missing for durable storage",
            "give a claim, or use storageType: Ephemeral",
        );
    };
    let requests = storage.resources.as_ref().and_then(|r| r.requests.as_ref());
    let Some(size) = requests.and_then(|r| r.get("storage")) else {
        return findings.add(FIELD, "is missing", "give a size such as 10Gi");
    };
    if quantity::bytes(size).is_none_or(|bytes| bytes == 0) {
        findings.add(
            FIELD,
            format!("{} is no size above zero", quoted(&size.0)),
            "give a size such as 10Gi",
        );
    }
}

pub(super) fn storage_class_exists(
    review: &Review<Postgres>,
    facts: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) {
    let Some(facts) = facts else { return };
    let class = review
        .object
        .spec
        .storage
        .as_ref()
        .and_then(|s| s.storage_class_name.as_deref());
    // The empty name selects a volume without a class.
    if let Some(class) =
        class.filter(|class| !class.is_empty() && !facts.storage_class_exists(class))
    {
        let problem = format!("there is no StorageClass {}", quoted(class));
        findings.add(
            "spec.storage.storageClassName",
            problem,
            "use one that `kubectl get storageclass` lists",
        );
    }
}

pub(super) fn halt_needs_durable(
    review: &Review<Postgres>,
    _: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) {
    const REMEDY: &str = "use storageType: Durable, or do not halt";
    let spec = &review.object.spec;
    if storage_type(spec) == StorageType::Durable {
        return;
    }
    if spec.halted == Some(true) {
        findings.add(
            "spec.halted",
            "would lose the data of ephemeral storage",
            REMEDY,
        );
    } else if spec.deletion_policy == Some(DeletionPolicy::Halt) {
        findings.add(
            "spec.deletionPolicy",
            "Halt cannot keep the data of ephemeral storage",
            REMEDY,
        );
    }
}

pub(super) fn do_not_terminate_halted(
    review: &Review<Postgres>,
    _: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) {
    let spec = &review.object.spec;
    if spec.halted == Some(true) && spec.deletion_policy == Some(DeletionPolicy::DoNotTerminate) {
        findings.add(
            "spec.halted",
            "contradicts deletionPolicy DoNotTerminate",
            "change the policy first, for example to Halt",
        );
    }
}

pub(super) fn ssl_mode_matches_tls(
    review: &Review<Postgres>,
    _: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) {
    const FIELD: &str = "spec.sslMode";
    let spec = &review.object.spec;
    match (spec.ssl_mode, &spec.tls) {
        (Some(SslMode::Disable), Some(_)) => {
            findings.add(
                FIELD,
                "disable contradicts spec.tls",
                "use another mode, or remove spec.tls",
            );
        }
        (Some(mode), None) if mode != SslMode::Disable => {
            let problem = format!("{} needs spec.tls", mode.as_str());
            findings.add(FIELD, problem, "add spec.tls, or use disable");
        }
        _ => {}
    }
}

pub(super) fn cert_needs_tls(
    review: &Review<Postgres>,
    _: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) {
    let spec = &review.object.spec;
    let without_tls = spec.tls.is_none() || spec.ssl_mode == Some(SslMode::Disable);
    if spec.client_auth_mode == Some(ClientAuthMode::Cert) && without_tls {
        findings.add(
            "spec.clientAuthMode",
            "cert needs TLS",
            "add spec.tls, or use scram or md5",
        );
    }
}

pub(super) fn tls_needs_issuer(
    review: &Review<Postgres>,
    _: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) {
    let Some(tls) = &review.object.spec.tls else {
        return;
    };
    let unsigned = aliases_without_issuer(tls.issuer_ref.as_ref(), &tls.certificates);
    if !unsigned.is_empty() {
        let problem = format!(
            "is missing, and these certificates have no issuer: {}",
            unsigned.join(", ")
        );
        findings.add(
            "spec.tls.issuerRef",
            problem,
            "name an issuer, here or for each certificate",
        );
    }
}

pub(super) fn auth_secret_valid(
    review: &Review<Postgres>,
    _: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) {
    let Some(secret) = &review.object.spec.auth_secret else {
        return;
    };
    if secret.kind != "Secret" {
        findings.add(
            "spec.authSecret.kind",
            format!("{} is no Secret", quoted(&secret.kind)),
            "use Secret",
        );
    }
    if let Some(group) = secret
        .api_group
        .as_deref()
        .filter(|group| !group.is_empty())
    {
        let problem = format!("{} is not the group of Secrets", quoted(group));
        findings.add("spec.authSecret.apiGroup", problem, "leave it out");
    }
    if secret.externally_managed == Some(true) && secret.name.is_empty() {
        findings.add(
            "spec.authSecret.name",
            "is missing for a Secret that is managed externally",
            "name the Secret",
        );
    } else if !secret.name.is_empty() && !text::is_object_name(&secret.name) {
        findings.add(
            "spec.authSecret.name",
            format!("{} cannot be the name of a Secret", quoted(&secret.name)),
            "correct it",
        );
    }
}

pub(super) fn health_checker_valid(
    review: &Review<Postgres>,
    _: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) {
    let Some(checker) = &review.object.spec.health_checker else {
        return;
    };
    let fields = [
        ("periodSeconds", checker.period_seconds, MAX_CHECK_PERIOD),
        ("timeoutSeconds", checker.timeout_seconds, MAX_CHECK_TIMEOUT),
        (
            "failureThreshold",
            checker.failure_threshold,
            MAX_CHECK_FAILURES,
        ),
    ];
    for (field, value, most) in fields {
        if let Some(value) = value.filter(|value| !(1..=most).contains(value)) {
            let problem = format!("{value} is not between 1 and {most}");
            findings.add(
                format!("spec.healthChecker.{field}"),
                problem,
                "use a number between these",
            );
        }
    }
}

pub(super) fn annotation_valid(
    review: &Review<Postgres>,
    _: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) {
    check_annotation(
        &review.object,
        MAX_LAG,
        |text| text.parse::<u64>().is_ok(),
        format_args!("is no whole number of bytes up to {}", u64::MAX),
        "use one such as 1048576, without a unit",
        findings,
    );
    check_annotation(
        &review.object,
        SERVER_NAMES,
        |text| ServerNames::parse(text).is_some(),
        "is no choice of names",
        "use Services, or leave it out for KubeDB's names",
        findings,
    );
    check_annotation(
        &review.object,
        EXTRA_CA,
        |text| ExtraCaSource::parse(text).is_some(),
        "names no ConfigMap and no Secret",
        "use ConfigMap/NAME or Secret/NAME, with /KEY behind it if the key is not ca.crt",
        findings,
    );
    if let Some(text) = review.object.annotations().get(CLIENT_GRACE_PERIOD) {
        check_client_grace_period(text, findings);
    }
}
