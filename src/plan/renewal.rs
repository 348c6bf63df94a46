//! The posture that a database keeps while no operation works on it, and the certificates that are
//! renewed for it.

use crate::api::postgres::PostgresSpec;
use crate::pki::Material;
use crate::pki::issued::Issued;
use crate::tls::{Files, Posture, ServerTls, posture};

use crate::plan::ClusterAction;
use crate::plan::observed::cluster::ObservedPod;
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

/// What a renewal may take into service, where the spec has TLS or has it no longer.
#[must_use]
pub fn renewal_material(
    spec: &PostgresSpec,
    issuance: Issuance,
    issued: Option<Issued>,
) -> RenewalMaterial {
    let is_as_asked = |seen: &ObservedCertificate| seen.matches && seen.ready && !seen.issuing;
    match (issued, issuance.issued) {
        (Some(issued), _) if issuance.certificates.values().all(is_as_asked) => {
            RenewalMaterial::Issued(Box::new(issued))
        }
        (Some(_), _) => RenewalMaterial::InProgress,
        (None, Some(Err(why))) if spec.tls.is_some() => RenewalMaterial::Unusable(why),
        (None, _) => RenewalMaterial::Nothing,
    }
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
    use std::collections::BTreeMap;

    use super::*;
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
            let found = renewal_material(spec, issuance, is_issued.then(|| issue(&ca, &ca)));
            assert!(format!("{found:?}").starts_with(expected), "{case}");
        }
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
