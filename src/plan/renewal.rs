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
mod tests {
    use super::*;
    use crate::pki::extra_ca::MissingRoot;
    use crate::pki::issued::tests::{Authority, issue};
    use crate::tls::Alias;

    fn spec(text: &str) -> PostgresSpec {
        serde_saphyr::from_str(text).expect("a spec")
    }

    const GOOD: ObservedCertificate = ObservedCertificate {
        matches: true,
        ready: true,
        issuing: false,
        revision: 1,
        requested_at_revision: None,
        failure: None,
        retry_at: None,
        begins: None,
    };

    #[test]
    fn certificates_are_taken_into_service_when_all_of_them_are_as_the_spec_asks() {
        let ca = Authority::new("ca");
        let (with, without) = (
            spec("{version: '17', tls: {issuerRef: {name: i}}}"),
            spec("version: '17'"),
        );
        let fault = || Some(Err("expired".to_owned()));
        for (spec, client, is_issued, fault, expected) in [
            (&with, GOOD, true, None, "Issued"),
            (
                &with,
                ObservedCertificate {
                    matches: false,
                    ..GOOD
                },
                true,
                None,
                "InProgress",
            ),
            (
                &with,
                ObservedCertificate {
                    ready: false,
                    ..GOOD
                },
                true,
                None,
                "InProgress",
            ),
            (
                &with,
                ObservedCertificate {
                    issuing: true,
                    ..GOOD
                },
                true,
                None,
                "InProgress",
            ),
            (&with, GOOD, false, fault(), "Unusable"),
            (&with, GOOD, false, None, "Nothing"),
            (&without, GOOD, false, fault(), "Nothing"),
        ] {
            let issuance = Issuance {
                certificates: BTreeMap::from([(Alias::Server, GOOD), (Alias::Client, client)]),
                issued: fault,
                ..Issuance::default()
            };
            let case = format!("{issuance:?}");
            let issued = is_issued.then(|| issue(&ca, &ca));
            let found = renewal_material(spec, issuance, issued, Duration::ZERO);
            assert!(format!("{found:?}").starts_with(expected), "{case}");
        }
    }

    /// The next one may wait for an approval until the others have ended.
    #[test]
    fn what_is_good_is_not_held_back_for_long_by_what_is_being_issued() {
        let spec = spec("{version: '17', tls: {issuerRef: {name: i}}}");
        let ca = Authority::new("ca");
        let issuing = ObservedCertificate {
            issuing: true,
            ..GOOD
        };
        let other = ObservedCertificate {
            matches: false,
            ..issuing.clone()
        };
        for (client, seconds, expected) in [
            (&issuing, 14, "InProgress"),
            (&issuing, 15, "Issued"),
            (&other, 3600, "InProgress"),
        ] {
            let issuance = Issuance {
                certificates: [(Alias::Server, GOOD), (Alias::Client, client.clone())].into(),
                ..Issuance::default()
            };
            let waited = Duration::from_secs(seconds);
            let found = renewal_material(&spec, issuance, Some(issue(&ca, &ca)), waited);
            let found = format!("{found:?}");
            assert!(found.starts_with(expected), "{client:?} {seconds}");
        }
    }

    #[test]
    fn a_certificate_without_a_name_is_a_problem_when_issuing_has_failed_or_takes_long() {
        let spec = spec("{version: '17', tls: {issuerRef: {name: i}}}");
        let asked = || ObservedCertificate {
            ready: false,
            ..GOOD
        };
        let refused = || ObservedCertificate {
            failure: Some("the role does not allow it".to_owned()),
            ..asked()
        };
        for (server, waited, expected) in [
            (asked(), 0, None),
            (asked(), 14, None),
            (asked(), 15, Some("lacks a name")),
            (GOOD, 0, Some("lacks a name")),
            (
                refused(),
                0,
                Some("lacks a name; the role does not allow it"),
            ),
        ] {
            let issuance = Issuance {
                certificates: BTreeMap::from([(Alias::Server, server), (Alias::Client, GOOD)]),
                issued: Some(Err("lacks a name".to_owned())),
                ..Issuance::default()
            };
            let case = format!("{issuance:?} {waited}");
            match renewal_material(&spec, issuance, None, Duration::from_secs(waited)) {
                RenewalMaterial::Unusable(why) => {
                    assert_eq!(Some(why.as_str()), expected, "{case}");
                }
                RenewalMaterial::InProgress => assert_eq!(expected, None, "{case}"),
                other => panic!("{other:?} {case}"),
            }
        }
    }

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    /// Certificates below a CA that ends 40 hours after their beginning.
    fn below_an_early_ca(begins: Timestamp) -> Issued {
        let ca = Authority::new("ca");
        let mut issued = issue(&ca, &ca);
        let early = EarlyCa {
            name: "ca".to_owned(),
            id: issued.material.server.ca,
            ends: after(begins, Duration::from_hours(40)),
            leaf_begins: begins,
        };
        issued.early_ca.server = Some(early.clone());
        issued.early_ca.client = Some(early);
        issued
    }

    #[test]
    fn a_certificate_is_issued_anew_before_its_ca_ends_and_after_it() {
        let begins = at("2026-01-01T00:00:00Z");
        let issued = below_an_early_ca(begins);
        let ended = [MaterialProblem {
            alias: Alias::Server,
            defect: Defect::BadCa {
                name: "ca".to_owned(),
                fault: CaFault::Expired(after(begins, Duration::from_hours(40))),
            },
        }];
        let another_defect = [MaterialProblem {
            alias: Alias::Server,
            defect: Defect::NoRoot(MissingRoot::default()),
        }];
        let old = ObservedCertificate {
            begins: Some(begins),
            ..GOOD
        };
        let issuing = ObservedCertificate {
            issuing: true,
            ..old.clone()
        };
        let failed = ObservedCertificate {
            retry_at: Some(at("2026-01-02T07:00:00Z")),
            ..old.clone()
        };
        let young = ObservedCertificate {
            begins: Some(at("2026-01-02T05:55:01Z")),
            ..GOOD
        };
        for (issued, server, now, is_due) in [
            (Ok(&issued), &old, "2026-01-02T05:59:59Z", false),
            (Ok(&issued), &old, "2026-01-02T06:00:00Z", true),
            (Ok(&issued), &issuing, "2026-01-02T06:00:00Z", false),
            (Ok(&issued), &failed, "2026-01-02T06:59:59Z", false),
            (Ok(&issued), &failed, "2026-01-02T07:00:00Z", true),
            (Ok(&issued), &young, "2026-01-02T06:00:00Z", false),
            (Ok(&issued), &young, "2026-01-02T06:00:01Z", true),
            (Ok(&issued), &GOOD, "2026-01-02T06:00:00Z", false),
            (Err(&ended[..]), &old, "2026-01-03T00:00:00Z", true),
            (Err(&ended[..]), &young, "2026-01-02T06:00:00Z", false),
            (
                Err(&another_defect[..]),
                &old,
                "2026-01-03T00:00:00Z",
                false,
            ),
        ] {
            let certificates = BTreeMap::from([
                (Alias::Server, server.clone()),
                (Alias::MetricsExporter, old.clone()),
            ]);
            let found = reissue_under_early_ca(issued, &certificates, None, at(now));
            let expected = is_due.then_some(ClusterAction::Reissue {
                alias: Alias::Server,
                revision: 1,
            });
            assert_eq!(found, Vec::from_iter(expected), "{now} {server:?}");
        }
    }

    /// An issuer that dates back makes every leaf old, and one that signs beyond its CA makes it due.
    #[test]
    fn no_certificate_is_issued_anew_twice_within_five_minutes() {
        let begins = at("2026-01-01T00:00:00Z");
        let issued = below_an_early_ca(begins);
        let old = ObservedCertificate {
            begins: Some(begins),
            ..GOOD
        };
        let certificates = BTreeMap::from([(Alias::Server, old)]);
        let now = after(begins, Duration::from_hours(39));
        for (minutes, is_asked) in [(4, false), (5, true)] {
            let last = now - Duration::from_mins(minutes);
            let found = reissue_under_early_ca(Ok(&issued), &certificates, Some(last), now);
            assert_eq!(!found.is_empty(), is_asked, "{minutes} min");
        }
    }

    #[test]
    fn an_early_ca_is_named_with_its_end_and_the_certificates_below_it() {
        let issued = below_an_early_ca("2026-01-01T00:00:00Z".parse().expect("a time"));
        let words = describe_early_cas(&issued).expect("words");
        for part in [
            "CA \"ca\"",
            "ends at 2026-01-02T16:00:00Z",
            "server, client",
            "from 2026-01-02T06:00:00Z on",
        ] {
            assert!(words.contains(part), "{part}: {words}");
        }
        let status = status_of_early_cas(&issued);
        let early: Vec<_> = status
            .iter()
            .map(|ca| (ca.name.as_str(), ca.ends.0))
            .collect();
        assert_eq!(early, [("ca", at("2026-01-02T16:00:00Z"))]);
        let ca = Authority::new("ca");
        assert_eq!(describe_early_cas(&issue(&ca, &ca)), None);
    }

    #[test]
    fn a_pod_that_does_not_answer_may_be_starting() {
        let pod = |name: &str| ObservedPod {
            name: name.to_owned(),
            ordinal: 0,
            uid: "1".to_owned(),
            ready: false,
            terminating: false,
            has_files: true,
            refreshed_for: None,
            server: Err(crate::plan::waiting::Unknown::NoAnswer(
                "no answer".to_owned(),
            )),
        };
        let touch = |pod: &str| ClusterAction::Touch {
            pod: crate::plan::action::PodRef {
                name: pod.to_owned(),
                uid: "1".to_owned(),
            },
            version: "v1".to_owned(),
        };
        let pods = [pod("pg-0")];
        for (actions, expected) in [
            (vec![touch("pg-0")], true),
            (vec![touch("pg-0"), touch("pg-1")], false),
            (vec![touch("pg-0"), ClusterAction::EndTrial], false),
        ] {
            assert_eq!(only_touches_silent_pods(&actions, &pods), expected);
        }
    }
}
