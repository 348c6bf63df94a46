//! The trial of an operation: would the issuers issue what it will ask them for, and could that be
//! served?
//!
//! # Expected flow
//! Before anything changes, each alias gets a Certificate that differs from its real one in name
//! and Secret only ([`trial_certificate`](crate::build::certificates::trial_certificate)).
//! cert-manager makes key and request, so approval policies and issuers judge what they will judge
//! later. The content of the Secrets passes, or fails, the check of what is served.
//!
//! # Guarantees
//! A refusal counts at once. What takes longer than usual is named, with the object that is waited
//! for and since when. A trial that another operation has left behind says nothing: it is made
//! anew.
//!
//! # Assumptions
//! cert-manager marks what it makes: a Secret with the name of its Certificate and of the issuer, a
//! CertificateRequest with the labels of its Certificate, which is its controller.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{Resource, ResourceExt};

use crate::api::annotations::TRIAL_OF;
use crate::api::cert_manager::{Certificate, CertificateRequest, IssuanceCondition, holds};
use crate::api::duration::after;
use crate::pki::CaId;
use crate::pki::check::check;
use crate::pki::issued::{CaFault, Defect, IssuedSecret, PerAlias, Requirements, check_issued};
use crate::pki::key_pair::KeyPairProblem;
use crate::plan::observed::issuance::{
    CertificateObjects, NORMAL_ISSUANCE_TIME, conflicts, has_annotation, is_issued_by,
    is_issued_for, is_ready, joined, one_line,
};
use crate::plan::observed::{Issuance, Trial};
use crate::tls::Alias;

/// How far the clock of an issuer may be ahead of pgrekey's.
const CLOCK_SKEW: Duration = Duration::from_mins(5);

/// The objects of a trial.
#[derive(Debug)]
pub struct TrialObjects {
    /// The Certificates that the operation asks for.
    pub certificates: BTreeMap<Alias, TrialCertificate>,
    /// CertificateRequests that may be for them. Read only while one of them is not ready.
    pub requests: Vec<CertificateRequest>,
}

/// One Certificate of a trial.
#[derive(Debug)]
pub struct TrialCertificate {
    /// The Certificate as the operation asks for it, and what the API server has of it.
    pub objects: CertificateObjects,
    /// The Secret belongs to this database.
    pub secret_is_owned: bool,
}

impl TrialCertificate {
    /// Objects of other owners with its names. A Secret that a Certificate of this name has left
    /// behind counts too: the trial would write over it and then delete it.
    fn conflicts(&self) -> Vec<String> {
        let found = conflicts(&self.objects);
        let secret = self.objects.secret.as_ref();
        let is_filled =
            |secret: &&Secret| secret.data.as_ref().is_some_and(|data| !data.is_empty());
        match secret.filter(is_filled) {
            Some(secret) if found.is_empty() && self.is_left_by_another() => {
                vec![format!("Secret {}", secret.name_any())]
            }
            _ => found,
        }
    }

    fn is_left_by_another(&self) -> bool {
        self.objects.live.is_none() && !self.secret_is_owned
    }
}

/// Whether a Certificate is of the trial of this operation.
#[must_use]
pub fn is_trial_of(certificate: &Certificate, operation: &str) -> bool {
    has_annotation(certificate, TRIAL_OF, operation)
}

/// A trial, judged.
#[derive(Debug)]
pub struct JudgedTrial {
    /// How far it is: as far as the certificate that is furthest behind.
    pub state: Trial,
    /// The CAs that have signed, PEM.
    pub cas: BTreeMap<CaId, String>,
    /// Objects of other owners with the names of its Certificates or Secrets.
    pub conflicts: Vec<String>,
}

impl JudgedTrial {
    /// How far issuing is, with this trial.
    #[must_use]
    pub fn with(&self, issuance: Issuance) -> Issuance {
        let mut conflicts = issuance.conflicts;
        conflicts.extend(self.conflicts.iter().cloned());
        Issuance {
            trial: self.state.clone(),
            conflicts,
            ..issuance
        }
    }
}

impl TrialObjects {
    /// The trial of this operation at this time.
    #[must_use]
    pub fn judge(&self, operation: &str, required: &Requirements, now: Timestamp) -> JudgedTrial {
        let states: Vec<CertificateTrial> = self
            .certificates
            .iter()
            .map(|(alias, trial)| {
                let state = self.judge_one(*alias, trial, operation, required, now);
                state.of(*alias, &trial.objects.wanted)
            })
            .collect();
        let mut cas = BTreeMap::new();
        let state =
            combine(&states).unwrap_or_else(|| match check_issued(&self.issued(), required, now) {
                Ok(issued) => {
                    cas = issued.cas;
                    Trial::Passed(cas.keys().copied().collect())
                }
                Err(problems) => Trial::Failed(joined(&problems)),
            });
        let trials = self.certificates.values();
        JudgedTrial {
            state,
            cas,
            conflicts: trials.flat_map(TrialCertificate::conflicts).collect(),
        }
    }

    /// What the Secrets hold.
    fn issued(&self) -> PerAlias<Option<IssuedSecret>> {
        let issued = |alias| {
            let secret = self.certificates.get(&alias)?.objects.secret.as_ref()?;
            secret.data.as_ref().map(IssuedSecret::from_data)
        };
        PerAlias {
            server: issued(Alias::Server),
            client: issued(Alias::Client),
            exporter: issued(Alias::MetricsExporter),
        }
    }

    fn judge_one(
        &self,
        alias: Alias,
        TrialCertificate {
            objects,
            secret_is_owned,
        }: &TrialCertificate,
        operation: &str,
        required: &Requirements,
        now: Timestamp,
    ) -> CertificateTrial {
        let CertificateObjects {
            wanted,
            live,
            secret,
        } = objects;
        let secret = secret.as_ref();
        let secret = secret.filter(|secret| is_issued_for(secret, &wanted.name_any()));
        let Some(live) = live.as_ref().filter(|live| live.is_owned) else {
            // cert-manager would take the old Secret for the answer.
            return match secret.filter(|_| *secret_is_owned) {
                Some(_) => CertificateTrial::ToAsk,
                None => CertificateTrial::Absent,
            };
        };
        let is_ours = is_trial_of(&live.object, operation);
        if !is_ours || !live.matches {
            return CertificateTrial::ToAsk;
        }
        let live = &live.object;
        let request = newest_of(live, &self.requests);
        if let Some(why) = refusal(live, request) {
            return CertificateTrial::Failed(why);
        }
        // Without a revision cert-manager has issued nothing for this Certificate.
        let revision = live.status.as_ref().and_then(|status| status.revision);
        let is_issued = is_ready(live) && revision.is_some();
        let secret = secret.filter(|secret| is_issued_by(secret, &wanted.spec.issuer_ref));
        let data = secret.and_then(|secret| secret.data.as_ref());
        let checked = data.filter(|_| is_issued).map(|data| {
            let source = IssuedSecret::from_data(data);
            check(alias, Some(&source), &[], required, now)
        });
        match checked {
            Some(Ok(_)) => CertificateTrial::Passed,
            Some(Err(defect)) if !may_pass(&defect, now) => {
                CertificateTrial::Failed(defect.to_string())
            }
            Some(Err(_)) | None => CertificateTrial::Pending(delay(live, request, now)),
        }
    }
}

/// How far the trial of one certificate is.
enum CertificateTrial {
    /// There is none.
    Absent,
    /// It is to be asked for, because what is there is not of this operation.
    ToAsk,
    /// It is not issued yet: what it waits for, if that takes longer than usual.
    Pending(Option<String>),
    /// It was issued and is good.
    Passed,
    /// It was refused, or is not good: why.
    Failed(String),
}

impl CertificateTrial {
    /// The same, with alias and issuer in front of each text.
    fn of(self, alias: Alias, wanted: &Certificate) -> Self {
        let issuer = &wanted.spec.issuer_ref;
        let named = |why: String| {
            let (alias, kind) = (alias.as_str(), issuer.kind());
            format!("{alias}, of {kind} {}: {why}", issuer.name)
        };
        match self {
            Self::Pending(why) => Self::Pending(why.map(named)),
            Self::Failed(why) => Self::Failed(named(why)),
            state => state,
        }
    }
}

/// Whether a defect goes by itself: nothing is issued yet, or the clock of the issuer is ahead of
/// this one.
fn may_pass(defect: &Defect, now: Timestamp) -> bool {
    let begins = match defect {
        Defect::NotIssued => return true,
        Defect::Pair(KeyPairProblem::NotYetValid { from })
        | Defect::BadCa {
            fault: CaFault::NotYetValid(from),
            ..
        } => from,
        _ => return false,
    };
    *begins <= after(now, CLOCK_SKEW)
}

/// The state of all certificates together; `None` if each has passed. A refusal counts before
/// anything else, because the others change nothing about it.
fn combine(states: &[CertificateTrial]) -> Option<Trial> {
    let is_absent = |state| matches!(state, &CertificateTrial::Absent);
    let is_to_ask = |state| is_absent(state) || matches!(state, CertificateTrial::ToAsk);
    let failures: Vec<&str> = states
        .iter()
        .filter_map(|state| match state {
            CertificateTrial::Failed(why) => Some(why.as_str()),
            _ => None,
        })
        .collect();
    let pending: Vec<Option<&str>> = states
        .iter()
        .filter_map(|state| match state {
            CertificateTrial::Pending(why) => Some(why.as_deref()),
            _ => None,
        })
        .collect();
    if states.iter().all(is_absent) {
        Some(Trial::Absent)
    } else if !failures.is_empty() {
        Some(Trial::Failed(failures.join("; ")))
    } else if states.iter().any(is_to_ask) {
        Some(Trial::Begun)
    } else if pending.is_empty() {
        None
    } else {
        let delays: Vec<&str> = pending.into_iter().flatten().collect();
        let delays = (!delays.is_empty()).then(|| delays.join("; "));
        Some(Trial::Pending(delays))
    }
}

/// The newest request that cert-manager has made for this Certificate.
fn newest_of<'a>(
    certificate: &Certificate,
    requests: &'a [CertificateRequest],
) -> Option<&'a CertificateRequest> {
    let uid = certificate.metadata.uid.as_ref()?;
    let is_of = |request: &&CertificateRequest| {
        let owners = request.owner_references();
        owners
            .iter()
            .any(|owner| owner.controller == Some(true) && owner.uid == *uid)
    };
    let requests = requests.iter().filter(is_of);
    requests.max_by_key(|request| created(*request))
}

fn created(object: &impl Resource) -> Option<Timestamp> {
    let created = object.meta().creation_timestamp.as_ref();
    created.map(|Time(created)| *created)
}

fn conditions_of(request: &CertificateRequest) -> &[IssuanceCondition] {
    let status = request.status.as_ref();
    status.map_or(&[], |status| &status.conditions)
}

/// Why nothing will be issued, in the words of the approver or the issuer, or else of cert-manager.
/// `None` while something may be.
fn refusal(certificate: &Certificate, request: Option<&CertificateRequest>) -> Option<String> {
    let of_request = request.and_then(|request| {
        let conditions = conditions_of(request);
        // `Ready` says of every denial the same.
        let refusals = [
            ("Denied", "True"),
            ("InvalidRequest", "True"),
            ("Ready", "False"),
        ];
        let (type_, refusal) = refusals.into_iter().find_map(|(type_, status)| {
            let refuses = |condition: &&IssuanceCondition| {
                condition.type_ == type_ && condition.status == status && is_final(condition)
            };
            Some((type_, conditions.iter().find(refuses)?))
        })?;
        let event = match (type_, refusal.reason.as_deref()) {
            ("Denied", _) | (_, Some("Denied")) => "was denied",
            ("InvalidRequest", _) => "is not valid",
            _ => "has failed",
        };
        Some(said(
            &format!("CertificateRequest {} {event}", request.name_any()),
            refusal,
        ))
    });
    of_request.or_else(|| {
        let conditions = &certificate.status.as_ref()?.conditions;
        let has_failed = |condition: &&IssuanceCondition| {
            condition.type_ == "Issuing" && condition.status == "False"
        };
        let name = certificate.name_any();
        let failed = conditions.iter().find(has_failed)?;
        Some(said(&format!("Certificate {name} has failed"), failed))
    })
}

/// Whether a condition that is not as it should be stays so.
fn is_final(condition: &IssuanceCondition) -> bool {
    condition.type_ != "Ready" || matches!(condition.reason.as_deref(), Some("Failed" | "Denied"))
}

/// What a Certificate waits for that is not issued, if that takes longer than usual.
fn delay(
    certificate: &Certificate,
    request: Option<&CertificateRequest>,
    now: Timestamp,
) -> Option<String> {
    let since = request.map_or_else(|| created(certificate), created)?;
    if now <= after(since, NORMAL_ISSUANCE_TIME) {
        return None;
    }
    let Some(request) = request else {
        return Some(format!(
            "cert-manager has made no CertificateRequest for Certificate {} since {since}",
            certificate.name_any()
        ));
    };
    let (name, conditions) = (request.name_any(), conditions_of(request));
    if !holds(conditions, "Approved") && !holds(conditions, "Ready") {
        return Some(format!(
            "CertificateRequest {name} has not been approved since {since}: a policy of \
             cert-manager's approver has to approve it"
        ));
    }
    let waits = format!("CertificateRequest {name} is approved, and not issued since {since}");
    let ready = conditions
        .iter()
        .find(|condition| condition.type_ == "Ready");
    Some(ready.map_or(waits.clone(), |ready| said(&waits, ready)))
}

/// An event with the message of a condition, on one line.
fn said(event: &str, condition: &IssuanceCondition) -> String {
    match one_line(condition.message.as_deref().unwrap_or_default()).as_str() {
        "" => event.to_owned(),
        line => format!("{event}: {line}"),
    }
}

#[cfg(test)]
mod tests;
