//! The checks of `spec.tls`.

use crate::api::PostgresOpsRequest;
use crate::api::names::Alias;
use crate::api::ops_request::{OpsType, TlsChange, TlsOperation};
use crate::api::tls::{ClientAuthMode, SslMode};

use crate::rules::certificates::{HasTls, TargetTls};
use crate::rules::content::tls_obstacles;
use crate::rules::ops_request::target::{asks_for, database};
use crate::rules::queue::{TlsAtTurn, will_have_tls};
use crate::rules::shared::{OLDEST_MAJOR, aliases_without_issuer, declared_major};
use crate::rules::{ClusterFacts, Findings, Review, quoted};

pub(super) fn tls_required(
    review: &Review<PostgresOpsRequest>,
    _: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) {
    let spec = &review.object.spec;
    if spec.type_ == OpsType::ReconfigureTLS && spec.tls.is_none() {
        findings.add("spec.tls", "is missing", "say what to change about TLS");
    }
}

pub(super) fn one_operation(
    review: &Review<PostgresOpsRequest>,
    _: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) {
    const CHOICE: &str = "remove, rotateCertificates, or a change (issuerRef, certificates, sslMode, clientAuthMode)";
    let Some(tls) = &review.object.spec.tls else {
        return;
    };
    match tls.operations().as_slice() {
        // Rule `grpc-unsupported` refuses it.
        [] if tls.rotate_grpc_certificates == Some(true) => {}
        [] => findings.add(
            "spec.tls",
            "asks for nothing",
            format!("give one of: {CHOICE}"),
        ),
        [_] => {}
        _ => findings.add(
            "spec.tls",
            "asks for more than one operation",
            format!("make one request for each of: {CHOICE}"),
        ),
    }
}

/// Adds a finding if the request asks for this operation and the database will have no TLS at its
/// turn.
fn needs_tls(
    review: &Review<PostgresOpsRequest>,
    facts: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
    (operation, field, what): (TlsOperation, &str, &str),
) {
    let Some(facts) = facts else { return };
    let Some(database) = database(&review.object, Some(facts)) else {
        return;
    };
    if asks_for(review, operation).is_some() && !will_have_tls(&review.object, &database, facts) {
        let name = &review.object.spec.database_ref.name;
        findings.add(
            field,
            format!("Postgres {name} has no TLS{what}"),
            "add TLS first, with an issuerRef",
        );
    }
}

pub(super) fn rotate_needs_tls(
    review: &Review<PostgresOpsRequest>,
    facts: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) {
    needs_tls(
        review,
        facts,
        findings,
        (
            TlsOperation::Rotate,
            "spec.tls.rotateCertificates",
            ", so no certificates",
        ),
    );
}

/// The longest name of a CA in a warning, in characters. X.520 allows 64.
const LONGEST_NAME: usize = 64;

/// A request that keeps an issuer gets certificates of the CA that ends.
pub(super) fn ca_ends_early(
    review: &Review<PostgresOpsRequest>,
    facts: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) {
    let issues = [TlsOperation::Rotate, TlsOperation::Change];
    let Some(tls) = issues.into_iter().find_map(|o| asks_for(review, o)) else {
        return;
    };
    let has_new_issuer = |alias: Alias| {
        let mut entries = tls.certificates.iter();
        entries.any(|entry| entry.alias == alias.as_str() && entry.issuer_ref.is_some())
    };
    if tls.issuer_ref.is_some() || Alias::ALL.into_iter().all(has_new_issuer) {
        return;
    }
    let Some(database) = database(&review.object, facts) else {
        return;
    };
    let early = database.status.iter().flat_map(|status| &status.early_cas);
    if let Some(ca) = early.min_by_key(|ca| &ca.ends) {
        // A warning has no room for a long name.
        let name: String = ca.name.chars().take(LONGEST_NAME).collect();
        findings.add(
            "spec.databaseRef",
            format!("CA {} ends first, at {}", quoted(&name), ca.ends.0),
            "renew the CA, or change the issuer",
        );
    }
}

pub(super) fn remove_needs_tls(
    review: &Review<PostgresOpsRequest>,
    facts: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) {
    needs_tls(
        review,
        facts,
        findings,
        (TlsOperation::Remove, "spec.tls.remove", " to remove"),
    );
}

pub(super) fn add_needs_issuer(
    review: &Review<PostgresOpsRequest>,
    facts: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) {
    let Some(facts) = facts else { return };
    let Some(database) = database(&review.object, Some(facts)) else {
        return;
    };
    let Some(tls) = asks_for(review, TlsOperation::Change) else {
        return;
    };
    if will_have_tls(&review.object, &database, facts) || tls.remove == Some(true) {
        return;
    }
    let unsigned = aliases_without_issuer(tls.issuer_ref.as_ref(), &tls.certificates);
    if !unsigned.is_empty() {
        findings.add(
            "spec.tls.issuerRef",
            format!(
                "TLS is to be added, and these certificates have no issuer: {}",
                unsigned.join(", ")
            ),
            "name an issuer, here or for each certificate",
        );
    }
}

pub(super) fn remove_forbids_cert(
    review: &Review<PostgresOpsRequest>,
    facts: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) {
    const FIELD: &str = "spec.tls.clientAuthMode";
    const REMEDY: &str = "give md5 or scram for afterwards";
    let Some(tls) = asks_for(review, TlsOperation::Remove) else {
        return;
    };
    let kept = || {
        let database = database(&review.object, facts)?;
        TlsAtTurn::predict(&review.object, &database, facts?).client_auth_mode
    };
    match tls.client_auth_mode {
        Some(ClientAuthMode::Cert) => {
            findings.add(FIELD, "cert needs TLS, which is to be removed", REMEDY);
        }
        None if kept() == Some(ClientAuthMode::Cert) => {
            findings.add(
                FIELD,
                "is left out, and the database's cert needs TLS, which is to be removed",
                REMEDY,
            );
        }
        _ => {}
    }
}

pub(super) fn remove_forbids_ssl_mode(
    review: &Review<PostgresOpsRequest>,
    _: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) {
    let mode = asks_for(review, TlsOperation::Remove).and_then(|tls| tls.ssl_mode);
    if let Some(mode) = mode.filter(|mode| *mode != SslMode::Disable) {
        let problem = format!("{} needs TLS, which is to be removed", mode.as_str());
        findings.add("spec.tls.sslMode", problem, "leave it out, or use disable");
    }
}

pub(super) fn ssl_mode_disable(
    review: &Review<PostgresOpsRequest>,
    _: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) {
    let Some(tls) = &review.object.spec.tls else {
        return;
    };
    if tls.ssl_mode == Some(SslMode::Disable) && tls.remove != Some(true) {
        let with_cert = if tls.client_auth_mode == Some(ClientAuthMode::Cert) {
            ", and cert needs TLS"
        } else {
            ""
        };
        findings.add(
            "spec.tls.sslMode",
            format!("disable is for a database without TLS{with_cert}"),
            "use another mode, or remove: true to take TLS away",
        );
    }
}

pub(super) fn version_supported(
    review: &Review<PostgresOpsRequest>,
    facts: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) {
    let Some(database) = database(&review.object, facts) else {
        return;
    };
    let major = declared_major(&database.spec.version, facts).filter(|major| *major < OLDEST_MAJOR);
    if let (Some(major), Some(_)) = (major, asks_for(review, TlsOperation::Change)) {
        let problem = format!("is PostgreSQL {major}, whose TLS cannot be added or changed");
        findings.add(
            "spec.databaseRef",
            problem,
            format!("move the data to {OLDEST_MAJOR} or newer"),
        );
    }
}

pub(super) fn tls_settings_usable(
    review: &Review<PostgresOpsRequest>,
    facts: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) {
    let Some(database) = database(&review.object, facts) else {
        return;
    };
    let Some(TargetTls { tls, .. }) = review.target(facts) else {
        return;
    };
    for (problem, remedy) in tls_obstacles(&database, Some(tls.server_key()), facts) {
        findings.add(
            "spec.databaseRef",
            format!("in its user.conf {problem}"),
            remedy,
        );
    }
}

pub(super) fn grpc_unsupported(
    review: &Review<PostgresOpsRequest>,
    _: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) {
    if review
        .object
        .spec
        .tls
        .as_ref()
        .is_some_and(|tls| tls.rotate_grpc_certificates == Some(true))
    {
        let remedy = "remove it; rotateCertificates covers every certificate there is";
        findings.add(
            "spec.tls.rotateGrpcCertificates",
            "pgrekey runs no pg-coordinator",
            remedy,
        );
    }
}

pub(super) fn remove_lowers_security(
    review: &Review<PostgresOpsRequest>,
    _: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) {
    if asks_for(review, TlsOperation::Remove).is_some() {
        findings.add(
            "spec.tls.remove",
            "lowers security",
            "passwords and data will cross the network in plaintext",
        );
    }
}

pub(super) fn same_issuer(
    review: &Review<PostgresOpsRequest>,
    facts: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) {
    let (Some(database), Some(facts)) = (database(&review.object, facts), facts) else {
        return;
    };
    let Some(tls) = &review.object.spec.tls else {
        return;
    };
    let then = TlsAtTurn::predict(&review.object, &database, facts)
        .tls
        .and_then(|tls| tls.issuer_ref);
    let (Some(asked), Some(then)) = (&tls.issuer_ref, then) else {
        return;
    };
    let same =
        (asked.kind(), asked.group(), &asked.name) == (then.kind(), then.group(), &then.name);
    if same
        && *tls
            == (TlsChange {
                issuer_ref: tls.issuer_ref.clone(),
                ..TlsChange::default()
            })
    {
        findings.add(
            "spec.tls.issuerRef",
            "is the issuer already",
            "use rotateCertificates to issue anew",
        );
    }
}
