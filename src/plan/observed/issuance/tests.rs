use serde_json::{Value, json};

use super::*;
use crate::pki::extra_ca::MissingRoot;
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
fn an_issuer_of_another_group_is_another_issuer() {
    let mut of_group = wanted().spec.issuer_ref;
    of_group.group = Some("awspca.cert-manager.io".to_owned());
    for (written, is_corps, is_of_group) in [
        (None, true, false),
        (Some(""), true, false),
        (Some("cert-manager.io"), true, false),
        (Some("awspca.cert-manager.io"), false, true),
    ] {
        let mut annotations = issued_by_corp();
        if let Some(group) = written {
            annotations[ISSUER_GROUP] = json!(group);
        }
        let secret: Secret = from(json!({"metadata": {"annotations": annotations}}));
        assert_eq!(
            is_issued_by(&secret, &wanted().spec.issuer_ref),
            is_corps,
            "{written:?}"
        );
        assert_eq!(is_issued_by(&secret, &of_group), is_of_group, "{written:?}");
    }
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
    let mut of_vault = status("False", json!(1));
    of_vault.conditions[0].message = Some("Code: 503. Errors:\n\n* Vault is sealed\n".to_owned());
    assert_eq!(
        failure(&of_vault).as_deref(),
        Some(
            "Code: 503. Errors: * Vault is sealed; cert-manager tries again at 2026-01-01T01:00:00Z"
        )
    );
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
    let external = issuer_problem(&issuer("d", IssuerState::External));
    assert_eq!(external, None, "the trial judges it");
}

fn problem(defect: Defect) -> MaterialProblem {
    MaterialProblem {
        alias: Alias::Server,
        defect,
    }
}

#[test]
fn a_missing_certificate_is_no_fault_and_a_damaged_one_is() {
    let issued = |problems| {
        let objects = IssuanceObjects {
            issuers: vec![],
            certificates: BTreeMap::new(),
            issued: problems,
        };
        objects.issuance(OPERATION).issued
    };
    let ca = Authority::new("ca");
    let good = issue(&ca, &ca);
    let material = good.material;
    assert_eq!(issued(Ok(good)), Some(Ok(material)));
    assert_eq!(issued(Err(vec![problem(Defect::NotIssued)])), None);
    let both = vec![
        problem(Defect::NotIssued),
        problem(Defect::NoCa(MissingRoot::default())),
    ];
    assert!(issued(Err(both)).is_some_and(|issued| issued.is_err()));
}

#[test]
fn what_certificates_have_in_common_is_said_once() {
    let rootless = || Defect::NoRoot(MissingRoot::default());
    let of = |alias, defect| MaterialProblem { alias, defect };
    let problems = [
        of(Alias::Server, rootless()),
        of(Alias::Client, Defect::NotIssued),
        of(Alias::MetricsExporter, rootless()),
    ];
    let expected = format!(
        "server, metrics-exporter: {}; client: {}",
        rootless(),
        Defect::NotIssued
    );
    assert_eq!(joined(&problems), expected);
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
    let waits = || certificate(json!({"type": "Ready", "status": "False", "message": "no issuer"}));
    let is_ready = || certificate(json!({"type": "Ready", "status": "True", "message": "fine"}));
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
    let damaged = [problem(Defect::NoCa(MissingRoot::default()))];
    assert_eq!(
        not_served(&damaged, &[waits()], in_time),
        NotServed::Problem(damaged[0].to_string())
    );
}
