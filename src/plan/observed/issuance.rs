//! How far issuing is, as cert-manager's objects say it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use crate::api::annotations::REISSUE;
use crate::api::cert_manager;
use crate::api::cert_manager::{
    Certificate, CertificateIssuerRef, CertificateStatus, IssuanceCondition, holds,
};
use crate::api::duration::after;
use crate::api::tls::CERT_MANAGER_GROUP;
use crate::build::Cluster;
use crate::build::certificates::certificate;
use crate::pki::issued::{Defect, Issued, MaterialProblem};
use crate::tls::Alias;

use crate::plan::observed::{Issuance, ObservedCertificate, Trial};

/// Annotations that cert-manager writes on the Secrets into which it issues.
const CERTIFICATE_NAME: &str = "cert-manager.io/certificate-name";
const ISSUER_NAME: &str = "cert-manager.io/issuer-name";
const ISSUER_KIND: &str = "cert-manager.io/issuer-kind";
const ISSUER_GROUP: &str = "cert-manager.io/issuer-group";

/// How long cert-manager may take before the status says that it is waited for. It usually takes a
/// second.
pub const NORMAL_ISSUANCE_TIME: Duration = Duration::from_secs(15);

/// The longest text of an issuer's that is passed on, in characters. Whoever runs an issuer decides
/// what it says.
const LONGEST_TEXT: usize = 600;

/// cert-manager waits this long after the first failed try, and twice as long after each further
/// one: at most [`MAX_DOUBLINGS`] times (32 hours).
const FIRST_BACKOFF: Duration = Duration::from_hours(1);
const MAX_DOUBLINGS: i64 = 5;

/// The objects of cert-manager that belong to one spec of a database.
#[derive(Debug)]
pub struct IssuanceObjects {
    /// The issuers that the spec names.
    pub issuers: Vec<ObservedIssuer>,
    /// The Certificates that the spec asks for.
    pub certificates: BTreeMap<Alias, CertificateObjects>,
    /// All that was issued, or why it cannot be served.
    pub issued: Result<Issued, Vec<MaterialProblem>>,
}

/// An issuer, as far as it is known.
#[derive(Debug)]
pub struct ObservedIssuer {
    /// The reference in the spec.
    pub reference: CertificateIssuerRef,
    /// What the API server says about it.
    pub state: IssuerState,
}

/// What the API server says about an issuer.
#[derive(Debug)]
pub enum IssuerState {
    /// The cluster does not have this kind: cert-manager is not installed.
    KindUnknown,
    /// The issuer is of another API group than cert-manager's, which pgrekey may not read: the trial
    /// judges it.
    External,
    /// There is no issuer of this name.
    Absent,
    /// It is there, with these conditions.
    Present(Vec<IssuanceCondition>),
}

/// One Certificate that the spec asks for, and what the API server has of it.
#[derive(Debug)]
pub struct CertificateObjects {
    /// The Certificate as it would be applied.
    pub wanted: Certificate,
    /// The Certificate of this name.
    pub live: Option<LiveCertificate>,
    /// The Secret that it names.
    pub secret: Option<Secret>,
}

/// A Certificate in the cluster.
#[derive(Debug)]
pub struct LiveCertificate {
    /// The object.
    pub object: Certificate,
    /// It belongs to this database.
    pub is_owned: bool,
    /// Its spec is the one that would be applied.
    pub matches: bool,
}

impl IssuanceObjects {
    /// How far issuing is, for this operation, as if it had made no trial.
    #[must_use]
    pub fn issuance(&self, operation: &str) -> Issuance {
        let certificates = self.certificates.iter().filter_map(|(alias, objects)| {
            Some((*alias, observe_certificate(objects, operation)?))
        });
        Issuance {
            not_ready: not_ready(&self.issuers),
            refused: None,
            trial: Trial::Absent,
            conflicts: self.certificates.values().flat_map(conflicts).collect(),
            certificates: certificates.collect(),
            issued: match &self.issued {
                Ok(issued) => Some(Ok(issued.material)),
                Err(problems) if problems.iter().all(is_not_issued) => None,
                Err(problems) => Some(Err(joined(problems))),
            },
        }
    }
}

fn is_not_issued(problem: &MaterialProblem) -> bool {
    problem.defect == Defect::NotIssued
}

/// The problems in words. What several certificates have in common is said once.
pub(super) fn joined(problems: &[MaterialProblem]) -> String {
    let mut lines: Vec<(Vec<&str>, &Defect)> = vec![];
    for MaterialProblem { alias, defect } in problems {
        match lines.iter_mut().find(|(_, other)| *other == defect) {
            Some((aliases, _)) => aliases.push(alias.as_str()),
            None => lines.push((vec![alias.as_str()], defect)),
        }
    }
    let lines = lines
        .iter()
        .map(|(aliases, defect)| format!("{}: {defect}", aliases.join(", ")));
    lines.collect::<Vec<_>>().join("; ")
}

/// What an issuer or cert-manager says, on one line. Of a long text the middle is left out: an
/// issuer that lists all names says at the end what is wrong with them, and so does an error around
/// the error of a server (cert-manager around Vault's).
pub(super) fn one_line(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control());
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    let line: Vec<char> = words.join(" ").chars().collect();
    if line.len() <= LONGEST_TEXT {
        return line.into_iter().collect();
    }
    let begin = line.iter().take(LONGEST_TEXT / 3);
    let end = line.iter().skip(line.len() - LONGEST_TEXT / 3 * 2);
    begin.chain(&[' ', '…', ' ']).chain(end).collect()
}

/// Objects that have the names of this Certificate and its Secret and belong to something else.
pub(super) fn conflicts(objects: &CertificateObjects) -> Vec<String> {
    let secret = objects
        .secret
        .as_ref()
        .filter(|secret| is_foreign(secret, &objects.wanted.name_any()));
    let certificate = objects.live.as_ref().filter(|live| !live.is_owned);
    let secret = secret.map(|secret| format!("Secret {}", secret.name_any()));
    let certificate = certificate.map(|live| format!("Certificate {}", live.object.name_any()));
    secret.into_iter().chain(certificate).collect()
}

/// Whether a Secret holds something that cert-manager did not issue for this Certificate.
#[must_use]
pub fn is_foreign(secret: &Secret, certificate: &str) -> bool {
    !is_issued_for(secret, certificate) && secret.data.as_ref().is_some_and(|data| !data.is_empty())
}

/// Whether cert-manager says that it issued the content of a Secret for this Certificate.
#[must_use]
pub fn is_issued_for(secret: &Secret, certificate: &str) -> bool {
    has_annotation(secret, CERTIFICATE_NAME, certificate)
}

/// Whether cert-manager says that this issuer issued the content of a Secret.
pub(super) fn is_issued_by(secret: &Secret, issuer: &CertificateIssuerRef) -> bool {
    // cert-manager's own group may be missing, or empty.
    let group = secret.annotations().get(ISSUER_GROUP);
    let group = group.map(String::as_str).filter(|group| !group.is_empty());
    has_annotation(secret, ISSUER_NAME, &issuer.name)
        && has_annotation(secret, ISSUER_KIND, issuer.kind())
        && group.unwrap_or(CERT_MANAGER_GROUP) == issuer.group()
}

pub(super) fn has_annotation(object: &impl ResourceExt, key: &str, value: &str) -> bool {
    object
        .annotations()
        .get(key)
        .is_some_and(|own| own == value)
}

/// A Certificate as the plan needs to know it; `None` while there is none.
fn observe_certificate(
    CertificateObjects {
        wanted,
        live,
        secret,
    }: &CertificateObjects,
    operation: &str,
) -> Option<ObservedCertificate> {
    let live = live.as_ref()?;
    let status = live.object.status.clone().unwrap_or_default();
    let is_from_issuer = secret
        .as_ref()
        .is_some_and(|secret| is_issued_by(secret, &wanted.spec.issuer_ref));
    let reissue = live
        .object
        .annotations()
        .get(REISSUE)
        .and_then(|text| text.split_once('/'))
        .filter(|(asked_by, _)| *asked_by == operation);
    Some(ObservedCertificate {
        matches: live.matches,
        ready: is_ready(&live.object) && is_from_issuer,
        issuing: holds(&status.conditions, "Issuing"),
        revision: status.revision.unwrap_or_default(),
        requested_at_revision: reissue.and_then(|(_, revision)| revision.parse().ok()),
        retry_at: retry_at(&status),
        begins: status.not_before.as_ref().map(|Time(begins)| *begins),
        failure: failure(&status),
    })
}

/// Whether a Certificate is Ready, for its generation.
#[must_use]
pub fn is_ready(certificate: &Certificate) -> bool {
    let conditions = certificate.status.iter().flat_map(|s| &s.conditions);
    conditions.into_iter().any(|condition| {
        condition.type_ == "Ready"
            && condition.status == "True"
            && condition.observed_generation == certificate.metadata.generation
    })
}

/// Why the last try failed, and when cert-manager tries again; `None` while it has not failed.
fn failure(status: &CertificateStatus) -> Option<String> {
    let issuing = status
        .conditions
        .iter()
        .find(|condition| condition.type_ == "Issuing" && condition.status == "False")?;
    let message = one_line(issuing.message.as_deref().unwrap_or("no reason given"));
    let next = retry_at(status)?;
    Some(format!("{message}; cert-manager tries again at {next}"))
}

/// When cert-manager tries again; `None` while it has not failed.
fn retry_at(status: &CertificateStatus) -> Option<Timestamp> {
    let Time(failed) = status.last_failure_time.as_ref()?;
    Some(next_try(
        *failed,
        status.failed_issuance_attempts.unwrap_or(1),
    ))
}

/// When cert-manager tries again, `attempts` tries of which the last failed then.
fn next_try(failed: Timestamp, attempts: i64) -> Timestamp {
    let doublings = (attempts - 1).clamp(0, MAX_DOUBLINGS);
    after(failed, FIRST_BACKOFF * (1 << doublings))
}

/// The issuers that cannot issue, and why.
fn not_ready(issuers: &[ObservedIssuer]) -> Vec<String> {
    let problems: BTreeSet<String> = issuers.iter().filter_map(issuer_problem).collect();
    problems.into_iter().collect()
}

fn issuer_problem(ObservedIssuer { reference, state }: &ObservedIssuer) -> Option<String> {
    let (kind, name) = (reference.kind(), &reference.name);
    match state {
        IssuerState::External => None,
        IssuerState::Present(conditions) if holds(conditions, "Ready") => None,
        IssuerState::Present(conditions) => {
            let message = conditions.iter().find_map(|c| c.message.as_deref());
            Some(format!(
                "{kind} {name} to be ready: {}",
                one_line(message.unwrap_or_default())
            ))
        }
        IssuerState::Absent => Some(format!("{kind} {name} to exist")),
        IssuerState::KindUnknown => Some(format!(
            "{}: {}",
            cert_manager::not_installed(kind),
            cert_manager::INSTALL
        )),
    }
}

/// The issuers that a spec names, each once.
#[must_use]
pub fn issuers(wanted: &Cluster) -> Vec<CertificateIssuerRef> {
    let mut issuers = vec![];
    for alias in Alias::ALL {
        let issuer = certificate(wanted, alias).map(|certificate| certificate.spec.issuer_ref);
        issuers.extend(issuer.filter(|issuer| !issuers.contains(issuer)));
    }
    issuers
}

/// Why nothing that was issued can be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotServed {
    /// cert-manager is still issuing.
    InProgress,
    /// It has not issued for longer than usual, or what it issued cannot be used: in words.
    Problem(String),
}

/// Why nothing that was issued can be served. `certificates` are the Certificates that have the
/// problems, as far as they exist.
#[must_use]
pub fn not_served(
    problems: &[MaterialProblem],
    certificates: &[Certificate],
    now: Timestamp,
) -> NotServed {
    if !problems.iter().all(is_not_issued) {
        return NotServed::Problem(joined(problems));
    }
    if !certificates.iter().any(|live| is_late(live, now)) {
        return NotServed::InProgress;
    }
    let lines: Vec<String> = std::iter::once(joined(problems))
        .chain(certificates.iter().filter_map(ready_message))
        .collect();
    NotServed::Problem(lines.join("; "))
}

fn is_late(certificate: &Certificate, now: Timestamp) -> bool {
    let created = certificate.metadata.creation_timestamp.as_ref();
    created.is_some_and(|Time(created)| now > after(*created, NORMAL_ISSUANCE_TIME))
}

/// What cert-manager says about a Certificate that is not ready.
fn ready_message(certificate: &Certificate) -> Option<String> {
    let conditions = &certificate.status.as_ref()?.conditions;
    if holds(conditions, "Ready") {
        return None;
    }
    let ready = conditions
        .iter()
        .find(|condition| condition.type_ == "Ready")?;
    let (name, message) = (certificate.name_any(), ready.message.as_deref()?);
    Some(format!(
        "cert-manager says about {name}: {}",
        one_line(message)
    ))
}

#[cfg(test)]
mod tests;
