//! The checks of the rules for `PostgresOpsRequest`.

use std::time::Duration;

use kube::ResourceExt;

use crate::api::annotations::{CLIENT_GRACE_PERIOD, NAMES, STRATEGY, TTL};
use crate::api::bounds::{MAX_RETRIES, MAX_TIMEOUT};
use crate::api::duration::write;
use crate::api::names::MAX_REQUEST;
use crate::api::ops_request::{NameChange, OpsType, TlsOperation};
use crate::api::postgres::StorageType;
use crate::api::{Postgres, PostgresOpsRequest};

use crate::rules::document::differences;
use crate::rules::ops_request::target::{asks_for, database, namespace};
use crate::rules::queue::{requests_of_database, will_have_tls};
use crate::rules::shared::{check_annotation, check_client_grace_period, parse_duration};
use crate::rules::{ClusterFacts, Findings, Review, quoted};

pub(super) fn type_supported(
    review: &Review<PostgresOpsRequest>,
    _: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) {
    let type_ = review.object.spec.type_;
    if !matches!(type_, OpsType::ReconfigureTLS | OpsType::Restart) {
        findings.add(
            "spec.type",
            format!("pgrekey does not carry out {type_:?}, which is KubeDB's"),
            "use ReconfigureTLS or Restart",
        );
    }
}

pub(super) fn name_length(
    review: &Review<PostgresOpsRequest>,
    _: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) {
    let name = review.object.metadata.name.as_deref().unwrap_or_default();
    // The API server generates no longer names.
    if name.len() > MAX_REQUEST {
        findings.add(
            "metadata.name",
            format!("{} has {} characters", quoted(name), name.len()),
            format!("use at most {MAX_REQUEST}"),
        );
    }
}

pub(super) fn database_exists(
    review: &Review<PostgresOpsRequest>,
    facts: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) {
    const FIELD: &str = "spec.databaseRef.name";
    let name = &review.object.spec.database_ref.name;
    if name.is_empty() {
        return findings.add(FIELD, "is empty", "name the Postgres to operate on");
    }
    let Some(facts) = facts else { return };
    let namespace = namespace(&review.object);
    let Some(database) = facts.database(namespace, name) else {
        let problem = format!(
            "there is no Postgres {} in namespace {namespace}",
            quoted(name)
        );
        return findings.add(
            FIELD,
            problem,
            "correct the name, or create the request in the database's namespace",
        );
    };
    if database.metadata.deletion_timestamp.is_some() {
        findings.add(
            FIELD,
            format!("Postgres {name} is being deleted"),
            "no operation on it is possible any more",
        );
    } else if database.spec.halted == Some(true) {
        findings.add(
            FIELD,
            format!("Postgres {name} is halted"),
            "set its spec.halted to false first",
        );
    }
}

pub(super) fn foreign_field(
    review: &Review<PostgresOpsRequest>,
    _: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) {
    let spec = &review.object.spec;
    let fields = [
        ("tls", spec.tls.is_some(), OpsType::ReconfigureTLS),
        ("restart", spec.restart.is_some(), OpsType::Restart),
        (
            "updateVersion",
            spec.update_version.is_some(),
            OpsType::UpdateVersion,
        ),
        (
            "horizontalScaling",
            spec.horizontal_scaling.is_some(),
            OpsType::HorizontalScaling,
        ),
        (
            "verticalScaling",
            spec.vertical_scaling.is_some(),
            OpsType::VerticalScaling,
        ),
        (
            "volumeExpansion",
            spec.volume_expansion.is_some(),
            OpsType::VolumeExpansion,
        ),
        (
            "configuration",
            spec.configuration.is_some(),
            OpsType::Reconfigure,
        ),
        (
            "authentication",
            spec.authentication.is_some(),
            OpsType::RotateAuth,
        ),
        (
            "reconnectStandby",
            spec.reconnect_standby.is_some(),
            OpsType::ReconnectStandby,
        ),
        (
            "forceFailOver",
            spec.force_fail_over.is_some(),
            OpsType::ForceFailOver,
        ),
        (
            "setRaftKeyPair",
            spec.set_raft_key_pair.is_some(),
            OpsType::SetRaftKeyPair,
        ),
        (
            "migration",
            spec.migration.is_some(),
            OpsType::StorageMigration,
        ),
    ];
    for (field, given, type_) in fields {
        if given && type_ != spec.type_ {
            let problem = format!("belongs to type {type_:?}, and this is a {:?}", spec.type_);
            findings.add(
                format!("spec.{field}"),
                problem,
                "remove it, or change the type",
            );
        }
    }
}

pub(super) fn timeout_valid(
    review: &Review<PostgresOpsRequest>,
    _: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) {
    const FIELD: &str = "spec.timeout";
    let Some(text) = &review.object.spec.timeout else {
        return;
    };
    match parse_duration(FIELD, text, "10m", findings) {
        Some(Duration::ZERO) => {
            findings.add(
                FIELD,
                format!("{} leaves no time for any step", quoted(text)),
                "use a duration such as 10m",
            );
        }
        Some(long) if long > MAX_TIMEOUT => {
            let remedy = format!(
                "use at most {}, which each step has for itself",
                write(MAX_TIMEOUT)
            );
            findings.add(FIELD, format!("{} is too long", quoted(text)), remedy);
        }
        _ => {}
    }
}

pub(super) fn max_retries_valid(
    review: &Review<PostgresOpsRequest>,
    _: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) {
    let retries = review.object.spec.max_retries;
    if retries < 0 {
        findings.add(
            "spec.maxRetries",
            format!("{retries} is negative"),
            "use 0 for no retry",
        );
    } else if retries > MAX_RETRIES {
        let remedy = format!("use at most {MAX_RETRIES}");
        findings.add(
            "spec.maxRetries",
            format!("{retries} is more than {MAX_RETRIES}"),
            remedy,
        );
    }
}

pub(super) fn annotation_valid(
    review: &Review<PostgresOpsRequest>,
    _: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) {
    check_annotation(
        &review.object,
        STRATEGY,
        |text| matches!(text, "Restart" | "Reload"),
        "is no strategy",
        "use Restart or Reload",
        findings,
    );
    check_annotation(
        &review.object,
        NAMES,
        |text| NameChange::parse(text).is_some(),
        "is no way to change names",
        "use Add or Replace",
        findings,
    );
    let annotations = review.object.annotations();
    if let Some(text) = annotations.get(CLIENT_GRACE_PERIOD) {
        check_client_grace_period(text, findings);
    }
    if let Some(text) = annotations.get(TTL) {
        parse_duration(
            &format!("metadata.annotations.{TTL}"),
            text,
            "24h",
            findings,
        );
    }
}

/// Whether the request needs new pods: for a restart, and to add or remove the volume with
/// certificates.
fn needs_new_pods(
    review: &Review<PostgresOpsRequest>,
    database: &Postgres,
    facts: &dyn ClusterFacts,
) -> bool {
    let is_added = asks_for(review, TlsOperation::Change).is_some()
        && !will_have_tls(&review.object, database, facts);
    review.object.spec.type_ == OpsType::Restart
        || asks_for(review, TlsOperation::Remove).is_some()
        || is_added
}

pub(super) fn data_survives(
    review: &Review<PostgresOpsRequest>,
    facts: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) {
    let (Some(database), Some(facts)) = (database(&review.object, facts), facts) else {
        return;
    };
    let is_its_only_copy = database.spec.storage_type == Some(StorageType::Ephemeral);
    if !is_its_only_copy || database.spec.desired_replicas() > 1 {
        return;
    }
    let needs_new_pods = needs_new_pods(review, &database, facts);
    if needs_new_pods || review.object.restarts() {
        let or = if needs_new_pods {
            ""
        } else {
            ", or annotate the request with pgrekey.dev/strategy: Reload"
        };
        let remedy = format!("add a standby first, by spec.replicas of the Postgres{or}");
        findings.add(
            "spec.databaseRef",
            "has one pod, and its data would go with the pod",
            remedy,
        );
    }
}

pub(super) fn single_replica(
    review: &Review<PostgresOpsRequest>,
    facts: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) {
    let (Some(database), Some(facts)) = (database(&review.object, facts), facts) else {
        return;
    };
    let is_restarted = review.object.restarts() || needs_new_pods(review, &database, facts);
    if is_restarted && database.spec.desired_replicas() == 1 {
        findings.add(
            "spec.databaseRef",
            "has one pod",
            "its restart interrupts the service",
        );
    }
}

pub(super) fn request_queued(
    review: &Review<PostgresOpsRequest>,
    facts: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) {
    let Some(facts) = facts else { return };
    if let Some(first) = review
        .object
        .ahead(&requests_of_database(&review.object, facts))
        .first()
    {
        let name = first.metadata.name.as_deref().unwrap_or_default();
        findings.add(
            "spec.databaseRef",
            format!("request {} comes first", quoted(name)),
            "this one waits for it",
        );
    }
}

pub(super) fn spec_immutable(
    review: &Review<PostgresOpsRequest>,
    _: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) {
    let Some(old) = &review.old else { return };
    for field in differences(&old.spec, &review.object.spec, "spec") {
        findings.add(
            field,
            "cannot be changed once the request exists",
            "delete this request and create a new one",
        );
    }
}
