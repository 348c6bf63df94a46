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
