//! The posture that a database keeps while no operation works on it, and the certificates that are
//! renewed for it.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::duration::after;
use crate::api::postgres::{EarlyCaStatus, PostgresSpec};
use crate::pki::Material;
use crate::pki::issued::{CaFault, Defect, EarlyCa, Issued, MaterialProblem};
use crate::tls::{Alias, Files, Posture, ServerTls, posture};

use crate::plan::ClusterAction;
use crate::plan::observed::cluster::ObservedPod;
use crate::plan::observed::issuance::NORMAL_ISSUANCE_TIME;
use crate::plan::observed::{Issuance, ObservedCertificate};

/// The posture to keep or to come to, with the certificates that have been issued; `None` if there
/// is nothing to keep.
///
/// Normally only leaves and trusted CAs change here: sslMode and authentication change by requests.
/// Exception: if servers accept plaintext and TLS, or pods mount certificates but `ssl` is off, a
/// rollback failed half-way; then the target is all that the spec asks for. Other half-way states
/// look like an edited spec and are left alone.
///
/// `major` is PostgreSQL's major version.
#[must_use]
pub fn steady_state_target(
    applied: &Posture,
    spec: &PostgresSpec,
    major: u32,
    issued: Option<&Material>,
) -> Option<Posture> {
    let accepts_both = applied.serve == ServerTls::Tls && applied.accept.plain.is_some();
    let has_only_files = applied.serve == ServerTls::Plain && applied.files.is_some();
    if accepts_both || has_only_files {
        return posture(spec, major, issued);
    }
    let (method, material) = (applied.accept.tls?, *issued?);
    let target = Posture::tls(applied.conninfo.mode, method, material);
    Some(Posture {
        files: Some(Files::trusting_its_signers(material)),
        conninfo: applied.conninfo,
        ..target
    })
}

/// What a renewal may take into service.
#[derive(Debug)]
pub enum RenewalMaterial {
    /// All certificates that the spec asks for.
    Issued(Box<Issued>),
    /// None: the certificates that are served stay.
    Nothing,
    /// None yet: cert-manager is issuing, and its Certificates are watched.
    InProgress,
    /// None, and the certificates that are served stay, because those that were issued cannot be
    /// used: in words.
    Unusable(String),
}

/// What a renewal may take into service, where the spec has TLS or has it no longer. `waited` is the
/// time since all that was issued was as the spec asks last.
///
/// What is good is not held back for long by a certificate that is being issued anew: that may wait for
/// somebody's approval until the others have ended.
///
/// A Certificate that asks for other names than before has the old certificate in its Secret until
/// cert-manager has issued: that is no problem unless it takes longer than usual.
#[must_use]
pub fn renewal_material(
    spec: &PostgresSpec,
    issuance: Issuance,
    issued: Option<Issued>,
    waited: Duration,
) -> RenewalMaterial {
    let certificates = issuance.certificates.values();
    let is_as_asked = certificates.clone().all(ObservedCertificate::is_settled);
    let is_good_meanwhile = certificates.clone().all(|seen| seen.matches && seen.ready)
        && waited >= NORMAL_ISSUANCE_TIME;
    let failures: Vec<&str> = certificates.filter_map(|c| c.failure.as_deref()).collect();
    match (issued, issuance.issued) {
        (Some(issued), _) if is_as_asked || is_good_meanwhile => {
            RenewalMaterial::Issued(Box::new(issued))
        }
        (Some(_), _) => RenewalMaterial::InProgress,
        (None, Some(Err(why))) if spec.tls.is_some() => {
            if !is_as_asked && failures.is_empty() && waited < NORMAL_ISSUANCE_TIME {
                return RenewalMaterial::InProgress;
            }
            let why: Vec<&str> = std::iter::once(why.as_str()).chain(failures).collect();
            RenewalMaterial::Unusable(why.join("; "))
        }
        (None, _) => RenewalMaterial::Nothing,
    }
}

/// A certificate is not issued anew before this age: while the CA stays as it is, the tries before
/// its end, or after it, would follow each other without a pause.
const YOUNGEST_REISSUED: Duration = Duration::from_mins(5);

/// Asks for the certificates that must be issued anew because a CA above them ends before they do,
/// or has ended. cert-manager looks at the end of the leaf alone. If the CA has been renewed by then,
/// the new certificate lasts longer.
///
/// `last` is when pgrekey asked last: the beginning of a leaf says less, because issuers date it back
/// (AWS Private CA by an hour).
#[must_use]
pub fn reissue_under_early_ca(
    issued: Result<&Issued, &[MaterialProblem]>,
    certificates: &BTreeMap<Alias, ObservedCertificate>,
    last: Option<Timestamp>,
    now: Timestamp,
) -> Vec<ClusterAction> {
    let is_long_ago = |then| after(then, YOUNGEST_REISSUED) <= now;
    if !last.is_none_or(is_long_ago) {
        return vec![];
    }
    let is_due = |alias: Alias| match issued {
        Ok(issued) => {
            let early = issued.early_ca.get(alias).as_ref();
            early.is_some_and(|ca| now >= ca.renew_at())
        }
        Err(problems) => problems
            .iter()
            .any(|problem| problem.alias == alias && has_ended(&problem.defect)),
    };
    let may_ask = |certificate: &ObservedCertificate| {
        let is_old_enough = certificate.begins.is_some_and(is_long_ago);
        // After a failure cert-manager tries again only what is due for itself, but a new question
        // need not come sooner.
        let has_waited = certificate.retry_at.is_none_or(|at| at <= now);
        is_old_enough && has_waited && !certificate.issuing
    };
    let due = certificates
        .iter()
        .filter(|(alias, certificate)| is_due(**alias) && may_ask(certificate));
    due.map(|(alias, certificate)| ClusterAction::Reissue {
        alias: *alias,
        revision: certificate.revision,
    })
    .collect()
}

fn has_ended(defect: &Defect) -> bool {
    matches!(
        defect,
        Defect::BadCa {
            fault: CaFault::Expired(_),
            ..
        }
    )
}

/// The CAs that end before a certificate below them, each once, with the aliases below them.
fn early_cas(issued: &Issued) -> Vec<(&EarlyCa, Vec<&str>)> {
    let mut cas: BTreeMap<_, (&EarlyCa, Vec<&str>)> = BTreeMap::new();
    for alias in Alias::ALL {
        if let Some(ca) = issued.early_ca.get(alias) {
            let (_, below) = cas.entry(ca.id).or_insert((ca, vec![]));
            below.push(alias.as_str());
        }
    }
    cas.into_values().collect()
}

/// The CAs that end before a certificate below them, for the status.
#[must_use]
pub fn status_of_early_cas(issued: &Issued) -> Vec<EarlyCaStatus> {
    let status = |(ca, _): (&EarlyCa, _)| EarlyCaStatus {
        name: ca.name.clone(),
        fingerprint: ca.id.to_string(),
        ends: Time(ca.ends),
    };
    early_cas(issued).into_iter().map(status).collect()
}

/// The CAs that end before a certificate below them, in words; `None` if there is none.
#[must_use]
pub fn describe_early_cas(issued: &Issued) -> Option<String> {
    let lines: Vec<String> = early_cas(issued)
        .iter()
        .map(|(ca, below)| describe(ca, below))
        .collect();
    (!lines.is_empty()).then(|| lines.join("; "))
}

fn describe(ca: &EarlyCa, below: &[&str]) -> String {
    let fingerprint = ca.id.to_string();
    format!(
        "CA {:?} (SHA-256 {}) ends at {}, and the certificates below it, which would end later, with \
         it: {}. They are issued anew from {} on: renew the CA before that, and give it a longer life \
         than theirs (cert-manager: spec.duration of its Certificate)",
        ca.name,
        &fingerprint[..16],
        ca.ends,
        below.join(", "),
        ca.renew_at(),
    )
}

/// Whether these actions do nothing but touch pods that do not answer: such a pod may just be
/// starting, with the files that it should have.
#[must_use]
pub fn only_touches_silent_pods(actions: &[ClusterAction], pods: &[ObservedPod]) -> bool {
    let is_silent = |name: &str| {
        pods.iter()
            .any(|pod| pod.name == name && pod.server.is_err())
    };
    actions
        .iter()
        .all(|action| matches!(action, ClusterAction::Touch { pod, .. } if is_silent(&pod.name)))
}

#[cfg(test)]
mod tests;
