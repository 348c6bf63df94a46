//! Helpers of the rules and defaults of both kinds.

use std::fmt;
use std::time::Duration;

use kube::ResourceExt;

use crate::api::annotations::CLIENT_GRACE_PERIOD;
use crate::api::bounds::MAX_CLIENT_GRACE_PERIOD;
use crate::api::duration;
use crate::api::names::Alias;
use crate::api::postgres_version;
use crate::api::tls::{CertificateSpec, IssuerRef};

use crate::rules::{AdmissionOperation, ClusterFacts, Findings, quoted};

/// The operations that write a spec.
pub(super) const CHANGES: &[AdmissionOperation] =
    &[AdmissionOperation::Create, AdmissionOperation::Update];

/// The oldest major version of PostgreSQL that is supported.
pub(super) const OLDEST_MAJOR: u32 = 13;

/// The major version that a PostgresVersion declares. `None` without facts, and if there is no
/// such PostgresVersion.
pub(super) fn declared_major(version: &str, facts: Option<&dyn ClusterFacts>) -> Option<u32> {
    facts?.version(version)?.spec.major()
}

/// The major version that a PostgresVersion declares; if there is no such PostgresVersion, the one
/// that its name begins with.
pub(super) fn probable_major(version: &str, facts: Option<&dyn ClusterFacts>) -> Option<u32> {
    match facts.and_then(|facts| facts.version(version)) {
        Some(known) => known.spec.major(),
        None => postgres_version::major(version),
    }
}

/// The certificates that have no issuer: neither one of their own nor one for all.
pub(super) fn aliases_without_issuer(
    issuer: Option<&IssuerRef>,
    certificates: &[CertificateSpec],
) -> Vec<&'static str> {
    if issuer.is_some() {
        return vec![];
    }
    let has_issuer = |alias: &str| {
        certificates
            .iter()
            .any(|c| c.alias == alias && c.issuer_ref.is_some())
    };
    Alias::ALL
        .map(Alias::as_str)
        .into_iter()
        .filter(|alias| !has_issuer(alias))
        .collect()
}

/// Parses a duration; a text that is none becomes a finding.
pub(super) fn parse_duration(
    field: &str,
    text: &str,
    example: &str,
    findings: &mut Findings,
) -> Option<Duration> {
    match duration::parse(text) {
        Ok(duration) => Some(duration),
        Err(problem) => {
            let problem = format!("{} {problem}", quoted(text));
            findings.add(field, problem, format!("use a duration such as {example}"));
            None
        }
    }
}

/// Checks an annotation, if the object has it: `what` it is not, and what to write.
pub(super) fn check_annotation(
    object: &impl ResourceExt,
    annotation: &str,
    is_valid: impl Fn(&str) -> bool,
    what: impl fmt::Display,
    remedy: &str,
    findings: &mut Findings,
) {
    let text = object.annotations().get(annotation);
    if let Some(text) = text.filter(|text| !is_valid(text)) {
        findings.add(
            format!("metadata.annotations.{annotation}"),
            format!("{} {what}", quoted(text)),
            remedy,
        );
    }
}

/// Checks the annotation [`CLIENT_GRACE_PERIOD`], which both kinds may carry.
pub(super) fn check_client_grace_period(text: &str, findings: &mut Findings) {
    let field = format!("metadata.annotations.{CLIENT_GRACE_PERIOD}");
    if parse_duration(&field, text, "90s", findings)
        .is_some_and(|period| period > MAX_CLIENT_GRACE_PERIOD)
    {
        let problem = format!("{} is too long", quoted(text));
        let remedy = format!("use at most {}", duration::write(MAX_CLIENT_GRACE_PERIOD));
        findings.add(field, problem, remedy);
    }
}
