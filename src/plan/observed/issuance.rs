//! How far issuing is, as cert-manager's objects say it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use crate::api::cert_manager;
use crate::api::cert_manager::{
    Certificate, CertificateIssuerRef, CertificateRequest, CertificateStatus, IssuanceCondition,
    holds,
};
use crate::api::duration::after;
use crate::build::Cluster;
use crate::build::certificates::certificate;
use crate::pki::Leaf;
use crate::pki::issued::{Cas, Defect, Issued, MaterialProblem, cas, leaf};
use crate::tls::Alias;

use crate::plan::observed::{Issuance, ObservedCertificate, Trial};

/// Annotation of a Certificate, `OPERATION/REVISION`: the operation that asked cert-manager to
/// issue it anew, and the revision that it had then.
pub const REISSUE: &str = "pgrekey.dev/reissue";

/// Annotation of a CertificateRequest that is a trial: the operation that made it.
pub const TRIAL_OF: &str = "pgrekey.dev/trial-of";

/// Annotations that cert-manager writes on the Secrets into which it issues.
const CERTIFICATE_NAME: &str = "cert-manager.io/certificate-name";
const ISSUER_NAME: &str = "cert-manager.io/issuer-name";
const ISSUER_KIND: &str = "cert-manager.io/issuer-kind";

/// How long cert-manager may take before the status says that it is waited for. It usually takes a
/// second.
const NORMAL_ISSUANCE_TIME: Duration = Duration::from_secs(15);

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
    /// For each issuer the trial that the operation made of it; `None` where there is none yet.
    pub trials: Vec<Option<CertificateRequest>>,
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
    /// How far issuing is, for this operation.
    #[must_use]
    pub fn issuance(&self, operation: &str) -> Issuance {
        let certificates = self.certificates.iter().filter_map(|(alias, objects)| {
            Some((*alias, observe_certificate(objects, operation)?))
        });
        Issuance {
            not_ready: not_ready(&self.issuers),
            trial: trial(&self.trials),
            conflicts: self.certificates.values().flat_map(conflicts).collect(),
            certificates: certificates.collect(),
            issued: match &self.issued {
                Ok(issued) => Some(Ok(issued.material)),
                Err(problems) if problems.iter().all(is_not_issued) => None,
                Err(problems) => Some(Err(joined(problems))),
            },
        }
    }

    /// The CAs that have signed the trials.
    #[must_use]
    pub fn trial_cas(&self) -> Cas {
        let signed = self.trials.iter().flatten();
        signed
            .filter_map(|request| request.status.as_ref()?.ca.as_ref())
            .flat_map(|pem| cas(&pem.0))
            .collect()
    }
}

fn is_not_issued(problem: &MaterialProblem) -> bool {
    problem.defect == Defect::NotIssued
}

fn joined(problems: &[MaterialProblem]) -> String {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    lines.join("; ")
}

/// Objects that have the names of this Certificate and its Secret and belong to something else.
fn conflicts(objects: &CertificateObjects) -> Vec<String> {
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

fn is_issued_by(secret: &Secret, issuer: &CertificateIssuerRef) -> bool {
    has_annotation(secret, ISSUER_NAME, &issuer.name)
        && has_annotation(secret, ISSUER_KIND, issuer.kind())
}

fn has_annotation(object: &impl ResourceExt, key: &str, value: &str) -> bool {
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
    let generation = live.object.metadata.generation;
    let is_ready = status.conditions.iter().any(|condition| {
        condition.type_ == "Ready"
            && condition.status == "True"
            && condition.observed_generation == generation
    });
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
        ready: is_ready && is_from_issuer,
        issuing: holds(&status.conditions, "Issuing"),
        revision: status.revision.unwrap_or_default(),
        requested_at_revision: reissue.and_then(|(_, revision)| revision.parse().ok()),
        failure: failure(&status),
    })
}

/// Why the last try failed, and when cert-manager tries again; `None` while it has not failed.
fn failure(status: &CertificateStatus) -> Option<String> {
    let Time(failed) = status.last_failure_time.clone()?;
    let next = next_try(failed, status.failed_issuance_attempts.unwrap_or(1));
    let issuing = status
        .conditions
        .iter()
        .find(|condition| condition.type_ == "Issuing")?;
    let message = issuing.message.as_deref().unwrap_or("no reason given");
    (issuing.status == "False").then(|| format!("{message}; cert-manager tries again at {next}"))
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
        IssuerState::Present(conditions) if holds(conditions, "Ready") => None,
        IssuerState::Present(conditions) => {
            let message = conditions.iter().find_map(|c| c.message.as_deref());
            Some(format!(
                "{kind} {name} to be ready: {}",
                message.unwrap_or_default()
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

/// The name of the trial of the issuer at this place of [`issuers`].
#[must_use]
pub fn trial_name(cluster: &Cluster, index: usize) -> String {
    cluster.names().trial_certificate(index)
}

/// Whether a request is this operation's trial of this issuer, and not one that another operation
/// left behind.
#[must_use]
pub fn is_trial_of(
    request: &CertificateRequest,
    issuer: &CertificateIssuerRef,
    operation: &str,
) -> bool {
    let asked = &request.spec.issuer_ref;
    (&asked.name, asked.kind()) == (&issuer.name, issuer.kind())
        && has_annotation(request, TRIAL_OF, operation)
}

/// The state of all trials together: that of the one that is furthest behind.
fn trial(trials: &[Option<CertificateRequest>]) -> Trial {
    if trials.iter().all(Option::is_none) {
        return Trial::Absent;
    }
    trials
        .iter()
        .map(|request| request.as_ref().map_or(Trial::Begun, trial_state))
        .fold(Trial::Passed(BTreeSet::new()), |all, one| {
            match (all, one) {
                (failed @ Trial::Failed(_), _) | (_, failed @ Trial::Failed(_)) => failed,
                (Trial::Begun, _) | (_, Trial::Begun) => Trial::Begun,
                (Trial::Passed(some), Trial::Passed(more)) => {
                    Trial::Passed(some.into_iter().chain(more).collect())
                }
                _ => Trial::Pending,
            }
        })
}

/// The state of one trial.
fn trial_state(request: &CertificateRequest) -> Trial {
    let conditions = request
        .status
        .as_ref()
        .map(|status| status.conditions.as_slice())
        .unwrap_or_default();
    if let Some(refusal) = conditions.iter().find(|condition| is_refusal(condition)) {
        let message = refusal.message.as_ref().unwrap_or(&refusal.type_);
        return Trial::Failed(message.clone());
    }
    if !holds(conditions, "Ready") {
        return Trial::Pending;
    }
    match signed_leaf(request) {
        Some(leaf) => Trial::Passed(BTreeSet::from([leaf.ca])),
        None => {
            Trial::Failed("its chain does not lead to a CA that the issuer gives along".to_owned())
        }
    }
}

fn signed_leaf(request: &CertificateRequest) -> Option<Leaf> {
    let status = request.status.as_ref()?;
    let text =
        |bytes: &Option<ByteString>| Some(String::from_utf8_lossy(&bytes.as_ref()?.0).into_owned());
    leaf(&text(&status.certificate)?, &text(&status.ca)?)
}

/// Whether a condition of a CertificateRequest says that nothing will be issued.
fn is_refusal(condition: &IssuanceCondition) -> bool {
    match condition.type_.as_str() {
        "Ready" => {
            condition.status == "False"
                && matches!(condition.reason.as_deref(), Some("Failed" | "Denied"))
        }
        "Denied" | "InvalidRequest" => condition.status == "True",
        _ => false,
    }
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
    let lines = problems.iter().map(ToString::to_string);
    let lines: Vec<String> = lines
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
    Some(format!("cert-manager says about {name}: {message}"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::pki::issued::tests::{Authority, issue};

    const OPERATION: &str = "op-1";

    fn wanted() -> Certificate {
        from(json!({"metadata": {"name": "pg-server-cert"},
            "spec": {"secretName": "pg-server-cert", "issuerRef": {"name": "corp", "kind": "Issuer"}}}))
    }

    fn from<T: serde::de::DeserializeOwned>(object: Value) -> T {
        serde_json::from_value(object).expect("an object")
    }

    /// A Certificate with this annotation of [`REISSUE`] and this status, and its Secret's
    /// annotations.
    fn objects(reissue: &str, status: &Value, secret: &Value) -> CertificateObjects {
        let mut live = wanted();
        live.metadata.generation = Some(2);
        live.annotations_mut()
            .insert(REISSUE.to_owned(), reissue.to_owned());
        live.status = Some(from(status.clone()));
        CertificateObjects {
            wanted: wanted(),
            live: Some(LiveCertificate {
                object: live,
                is_owned: true,
                matches: true,
            }),
            secret: Some(from(
                json!({"metadata": {"name": "pg-server-cert", "annotations": secret}, "data": {"tls.crt": "eA=="}}),
            )),
        }
    }

    fn issued_by_corp() -> Value {
        json!({CERTIFICATE_NAME: "pg-server-cert", ISSUER_NAME: "corp", ISSUER_KIND: "Issuer"})
    }

    fn ready(status: &str, generation: i64) -> Value {
        json!({"conditions": [{"type": "Ready", "status": status, "observedGeneration": generation}]})
    }

    #[test]
    fn a_certificate_is_ready_for_its_generation_and_from_the_issuer_that_is_asked_for() {
        let by = |name: &str, kind: &str| json!({ISSUER_NAME: name, ISSUER_KIND: kind});
        for (status, secret, expected) in [
            (ready("True", 2), issued_by_corp(), true),
            (ready("True", 1), issued_by_corp(), false),
            (ready("False", 2), issued_by_corp(), false),
            (json!({}), issued_by_corp(), false),
            (ready("True", 2), by("other", "Issuer"), false),
            (ready("True", 2), by("corp", "ClusterIssuer"), false),
            (ready("True", 2), json!({}), false),
        ] {
            let case = format!("{status} {secret}");
            let seen = observe_certificate(&objects("", &status, &secret), OPERATION);
            assert_eq!(seen.map(|seen| seen.ready), Some(expected), "{case}");
        }
        let mut no_secret = objects("", &ready("True", 2), &issued_by_corp());
        no_secret.secret = None;
        assert!(observe_certificate(&no_secret, OPERATION).is_some_and(|seen| !seen.ready));
        no_secret.live = None;
        assert_eq!(observe_certificate(&no_secret, OPERATION), None);
    }

    #[test]
    fn a_reissue_counts_for_the_operation_that_asked() {
        for (annotation, expected) in [
            ("op-1/3", Some(3)),
            ("op-2/3", None),
            ("op-1/x", None),
            ("op-1", None),
            ("", None),
        ] {
            let seen = observe_certificate(&objects(annotation, &json!({}), &json!({})), OPERATION);
            let seen = seen.expect("a Certificate");
            assert_eq!(seen.requested_at_revision, expected, "{annotation}");
        }
    }

    #[test]
    fn objects_of_others_are_conflicts() {
        let (mut objects, key) = (
            objects("", &json!({}), &json!({CERTIFICATE_NAME: "another"})),
            "Secret pg-server-cert",
        );
        assert_eq!(conflicts(&objects), [key]);
        objects.live.as_mut().expect("a Certificate").is_owned = false;
        assert_eq!(conflicts(&objects), [key, "Certificate pg-server-cert"]);
        objects.secret = None;
        assert_eq!(conflicts(&objects), ["Certificate pg-server-cert"]);
        objects.live = None;
        assert!(conflicts(&objects).is_empty());
    }

    #[test]
    fn a_secret_that_holds_something_else_is_foreign() {
        let is_foreign = |annotations: Value, data: Value| {
            let secret = json!({"metadata": {"annotations": annotations}, "data": data});
            is_foreign(&from(secret), "pg-server-cert")
        };
        let key = || json!({"tls.key": "a2V5"});
        assert!(is_foreign(json!({}), key()), "of an Ingress");
        assert!(
            is_foreign(json!({CERTIFICATE_NAME: "postgres-ca"}), key()),
            "of another Certificate"
        );
        assert!(
            !is_foreign(json!({CERTIFICATE_NAME: "pg-server-cert"}), key()),
            "its own"
        );
        assert!(!is_foreign(json!({}), json!({})), "nothing is lost");
    }

    #[test]
    fn the_text_of_a_failure_says_when_cert_manager_tries_again() {
        let status = |issuing: &str, attempts: Value| {
            from::<CertificateStatus>(json!({
                "lastFailureTime": "2026-01-01T00:00:00Z", "failedIssuanceAttempts": attempts,
                "conditions": [{"type": "Issuing", "status": issuing, "message": "denied by policy"}],
            }))
        };
        for (attempts, next) in [
            (json!(null), "2026-01-01T01:00:00Z"),
            (json!(0), "2026-01-01T01:00:00Z"),
            (json!(1), "2026-01-01T01:00:00Z"),
            (json!(2), "2026-01-01T02:00:00Z"),
            (json!(6), "2026-01-02T08:00:00Z"),
            (json!(7), "2026-01-02T08:00:00Z"),
        ] {
            assert_eq!(
                failure(&status("False", attempts)),
                Some(format!(
                    "denied by policy; cert-manager tries again at {next}"
                ))
            );
        }
        assert_eq!(failure(&status("True", json!(1))), None, "it is trying");
        let mut never = status("False", json!(1));
        never.last_failure_time = None;
        assert_eq!(failure(&never), None);
    }

    #[test]
    fn an_issuer_that_cannot_issue_is_named_once_with_the_reason() {
        let issuer = |name: &str, state| ObservedIssuer {
            reference: from(json!({"name": name, "kind": "Issuer"})),
            state,
        };
        let present = |status: &str| {
            IssuerState::Present(from(
                json!([{"type": "Ready", "status": status, "message": "no key"}]),
            ))
        };
        let problems = not_ready(&[
            issuer("good", present("True")),
            issuer("b", present("False")),
            issuer("a", IssuerState::Absent),
            issuer("a", IssuerState::Absent),
        ]);
        assert_eq!(
            problems,
            ["Issuer a to exist", "Issuer b to be ready: no key"]
        );
        let unknown = issuer_problem(&issuer("c", IssuerState::KindUnknown));
        assert!(unknown.is_some_and(|why| why.contains(cert_manager::INSTALL)));
    }

    fn request(issuer: &str, operation: &str, conditions: &Value) -> CertificateRequest {
        from(json!({
            "metadata": {"name": "pg-trial-0", "annotations": {TRIAL_OF: operation}},
            "spec": {"request": "eA==", "issuerRef": {"name": issuer, "kind": "Issuer"}},
            "status": {"conditions": conditions},
        }))
    }

    #[test]
    fn a_trial_that_another_operation_left_behind_is_not_counted() {
        let issuer = |name: &str, kind: &str| from(json!({"name": name, "kind": kind}));
        let of = |operation| request("corp", operation, &json!([]));
        assert!(is_trial_of(
            &of("op-1"),
            &issuer("corp", "Issuer"),
            OPERATION
        ));
        assert!(!is_trial_of(
            &of("op-2"),
            &issuer("corp", "Issuer"),
            OPERATION
        ));
        assert!(!is_trial_of(
            &of("op-1"),
            &issuer("other", "Issuer"),
            OPERATION
        ));
        assert!(!is_trial_of(
            &of("op-1"),
            &issuer("corp", "ClusterIssuer"),
            OPERATION
        ));
    }

    #[test]
    fn a_trial_is_as_far_as_the_issuer_that_is_furthest_behind() {
        let condition = |type_: &str, status: &str, reason: &str| {
            let condition =
                json!([{"type": type_, "status": status, "reason": reason, "message": "no"}]);
            Some(request("corp", OPERATION, &condition))
        };
        let failed = || Trial::Failed("no".to_owned());
        let pending = || condition("Ready", "False", "Pending");
        for (trials, expected) in [
            (vec![], Trial::Absent),
            (vec![None, None], Trial::Absent),
            (vec![None, pending()], Trial::Begun),
            (vec![pending()], Trial::Pending),
            (vec![condition("Ready", "False", "Failed")], failed()),
            (vec![condition("Ready", "False", "Denied")], failed()),
            (vec![condition("Denied", "True", "")], failed()),
            (vec![condition("Denied", "False", "")], Trial::Pending),
            (vec![condition("InvalidRequest", "True", "")], failed()),
            (vec![condition("Approved", "True", "")], Trial::Pending),
            (vec![None, condition("Denied", "True", "")], failed()),
            (
                vec![condition("Ready", "True", "")],
                Trial::Failed(
                    "its chain does not lead to a CA that the issuer gives along".to_owned(),
                ),
            ),
        ] {
            assert_eq!(trial(&trials), expected, "{trials:?}");
        }
    }

    #[test]
    fn a_trial_that_passed_names_the_cas_that_signed() {
        let signed_by = |ca: &Authority| {
            let issued = issue(ca, ca);
            let mut request = request(
                "corp",
                OPERATION,
                &json!([{"type": "Ready", "status": "True"}]),
            );
            let status = request.status.as_mut().expect("a status");
            let pem = |text: &str| Some(ByteString(text.as_bytes().to_vec()));
            status.certificate = pem(&issued.served.server.certificate);
            status.ca = pem(&issued.served.trust);
            (Some(request), issued.material.server.ca)
        };
        let ((one, first), (other, second)) = (
            signed_by(&Authority::new("one")),
            signed_by(&Authority::new("other")),
        );
        let objects = IssuanceObjects {
            issuers: vec![],
            certificates: BTreeMap::new(),
            trials: vec![one.clone(), other],
            issued: Err(vec![]),
        };
        let issuance = objects.issuance(OPERATION);
        assert_eq!(
            issuance.trial,
            Trial::Passed(BTreeSet::from([first, second]))
        );
        let signers: Vec<_> = objects.trial_cas().into_keys().collect();
        assert!(signers.contains(&first) && signers.contains(&second));
        let pending = Some(request("corp", OPERATION, &json!([])));
        assert_eq!(trial(&[one, pending]), Trial::Pending);
    }

    fn problem(defect: Defect) -> MaterialProblem {
        MaterialProblem {
            alias: Alias::Server,
            defect,
        }
    }

    #[test]
    fn what_is_not_issued_yet_is_no_fault_and_what_is_damaged_is() {
        let issued = |problems| {
            let objects = IssuanceObjects {
                issuers: vec![],
                certificates: BTreeMap::new(),
                trials: vec![],
                issued: problems,
            };
            objects.issuance(OPERATION).issued
        };
        let ca = Authority::new("ca");
        let good = issue(&ca, &ca);
        let material = good.material;
        assert_eq!(issued(Ok(good)), Some(Ok(material)));
        assert_eq!(issued(Err(vec![problem(Defect::NotIssued)])), None);
        let both = vec![problem(Defect::NotIssued), problem(Defect::NoCa)];
        assert!(issued(Err(both)).is_some_and(|issued| issued.is_err()));
    }

    #[test]
    fn cert_manager_is_waited_for_in_silence_only_as_long_as_it_usually_takes() {
        let created: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        let certificate = |status: Value| {
            let mut certificate = wanted();
            certificate.metadata.creation_timestamp = Some(Time(created));
            certificate.status = Some(from(json!({"conditions": [status]})));
            certificate
        };
        let waits =
            || certificate(json!({"type": "Ready", "status": "False", "message": "no issuer"}));
        let is_ready =
            || certificate(json!({"type": "Ready", "status": "True", "message": "fine"}));
        let (in_time, late) = (
            after(created, NORMAL_ISSUANCE_TIME),
            after(created, NORMAL_ISSUANCE_TIME + Duration::from_secs(1)),
        );
        let missing = [problem(Defect::NotIssued)];
        let (text, said) = (
            missing[0].to_string(),
            "cert-manager says about pg-server-cert: no issuer",
        );
        for (certificates, now, expected) in [
            (vec![], late, NotServed::InProgress),
            (vec![waits()], in_time, NotServed::InProgress),
            (
                vec![waits()],
                late,
                NotServed::Problem(format!("{text}; {said}")),
            ),
            (vec![is_ready()], late, NotServed::Problem(text.clone())),
        ] {
            assert_eq!(not_served(&missing, &certificates, now), expected);
        }
        let damaged = [problem(Defect::NoCa)];
        assert_eq!(
            not_served(&damaged, &[waits()], in_time),
            NotServed::Problem(damaged[0].to_string())
        );
    }
}
