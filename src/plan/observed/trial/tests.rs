use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::*;
use crate::pki::issued::tests::{Authority, issue, now, wanted};
use crate::pki::issued::{Issued, Pem};
use crate::plan::observed::issuance::LiveCertificate;

const OPERATION: &str = "op-1";

fn from<T: serde::de::DeserializeOwned>(object: Value) -> T {
    serde_json::from_value(object).expect("an object")
}

fn name(alias: Alias) -> String {
    format!("pg-trial-{}", alias.as_str())
}

fn certificate(alias: Alias, operation: &str, status: &Value) -> Certificate {
    let created = now().to_string();
    from(json!({
        "metadata": {"name": name(alias), "uid": name(alias), "generation": 1, "creationTimestamp": created,
            "annotations": {TRIAL_OF: operation}},
        "spec": {"secretName": name(alias), "issuerRef": {"name": "corp", "kind": "Issuer"}},
        "status": status,
    }))
}

fn ready() -> Value {
    json!({"revision": 1,
        "conditions": [{"type": "Ready", "status": "True", "observedGeneration": 1}]})
}

/// The Secret into which the issuer of this name has issued.
fn secret(alias: Alias, issued: &Issued, issuer: &str) -> Secret {
    let served = &issued.served;
    let (Pem { certificate, key }, ca) = match alias {
        Alias::Server => (&served.server, &served.trust),
        Alias::Client => (&served.client, &served.trust),
        Alias::MetricsExporter => (&served.exporter, &served.exporter_ca),
    };
    let mut secret: Secret = from(json!({"metadata": {"name": name(alias), "annotations": {
        "cert-manager.io/certificate-name": name(alias),
        "cert-manager.io/issuer-name": issuer, "cert-manager.io/issuer-kind": "Issuer"}}}));
    let data = [
        ("tls.crt", certificate.as_str()),
        ("tls.key", key.expose_secret()),
        ("ca.crt", ca.as_str()),
    ];
    let data = data.map(|(key, text)| (key.to_owned(), ByteString(text.as_bytes().to_vec())));
    secret.data = Some(data.into());
    secret
}

fn request(alias: Alias, conditions: &Value) -> CertificateRequest {
    let owner = json!({"apiVersion": "cert-manager.io/v1", "kind": "Certificate",
        "name": name(alias), "uid": name(alias), "controller": true});
    from(json!({
        "metadata": {"name": format!("{}-1", name(alias)), "ownerReferences": [owner],
            "creationTimestamp": now().to_string()},
        "spec": {"issuerRef": {"name": "corp"}},
        "status": {"conditions": conditions},
    }))
}

/// A trial whose certificates have been asked for, and not issued.
fn asked() -> TrialObjects {
    let certificates = Alias::ALL.map(|alias| {
        let live = LiveCertificate {
            object: certificate(alias, OPERATION, &json!({})),
            is_owned: true,
            matches: true,
        };
        let objects = CertificateObjects {
            wanted: certificate(alias, OPERATION, &json!({})),
            live: Some(live),
            secret: None,
        };
        let trial = TrialCertificate {
            objects,
            secret_is_owned: true,
        };
        (alias, trial)
    });
    TrialObjects {
        certificates: certificates.into(),
        requests: vec![],
    }
}

/// A trial whose certificates have been issued.
fn issued(issued: &Issued) -> TrialObjects {
    let mut trial = asked();
    for (alias, certificate) in &mut trial.certificates {
        certificate.objects.secret = Some(secret(*alias, issued, "corp"));
        live(certificate).status = Some(from(ready()));
    }
    trial
}

fn live(trial: &mut TrialCertificate) -> &mut Certificate {
    &mut trial.objects.live.as_mut().expect("a Certificate").object
}

fn client(trial: &mut TrialObjects) -> &mut TrialCertificate {
    trial
        .certificates
        .get_mut(&Alias::Client)
        .expect("a client")
}

fn judge(trial: &TrialObjects, seconds: u64) -> Trial {
    let now = after(now(), Duration::from_secs(seconds));
    trial.judge(OPERATION, &wanted(), now).state
}

#[test]
fn a_trial_passes_when_all_that_was_issued_could_be_served() {
    let (one, other) = (Authority::new("one"), Authority::new("other"));
    let issued_of_both = issue(&one, &other);
    let trial = issued(&issued_of_both);
    let judged = trial.judge(OPERATION, &wanted(), now());
    let cas: BTreeSet<CaId> = issued_of_both.cas.keys().copied().collect();
    assert_eq!(judged.state, Trial::Passed(cas));
    assert_eq!(judged.cas, issued_of_both.cas);
    assert!(judged.conflicts.is_empty());
}

#[test]
fn a_trial_begins_with_nothing_and_is_pending_once_all_is_asked_for() {
    let mut trial = asked();
    assert_eq!(judge(&trial, 0), Trial::Pending(None));
    client(&mut trial).objects.live = None;
    assert_eq!(judge(&trial, 0), Trial::Begun);
    for certificate in trial.certificates.values_mut() {
        certificate.objects.live = None;
    }
    assert_eq!(judge(&trial, 0), Trial::Absent);
}

#[test]
fn a_trial_that_another_operation_left_is_made_anew() {
    let ca = Authority::new("ca");
    let good = issue(&ca, &ca);
    let mut of_another = issued(&good);
    let annotations = live(client(&mut of_another)).annotations_mut();
    annotations.insert(TRIAL_OF.to_owned(), "op-0".to_owned());
    assert_eq!(judge(&of_another, 0), Trial::Begun);
    let mut only_a_secret = issued(&good);
    for certificate in only_a_secret.certificates.values_mut() {
        certificate.objects.live = None;
    }
    assert_eq!(judge(&only_a_secret, 0), Trial::Begun);
}

#[test]
fn the_answer_to_another_question_does_not_count() {
    let ca = Authority::new("ca");
    let good = issue(&ca, &ca);
    let mut of_another_issuer = issued(&good);
    client(&mut of_another_issuer).objects.secret = Some(secret(Alias::Client, &good, "old"));
    assert_eq!(judge(&of_another_issuer, 0), Trial::Pending(None));
    let mut of_an_old_generation = issued(&good);
    live(client(&mut of_an_old_generation)).metadata.generation = Some(2);
    assert_eq!(judge(&of_an_old_generation, 0), Trial::Pending(None));
    let mut of_an_old_spec = issued(&good);
    let live = client(&mut of_an_old_spec).objects.live.as_mut();
    live.expect("a Certificate").matches = false;
    assert_eq!(judge(&of_an_old_spec, 0), Trial::Begun);
}

#[test]
fn a_refusal_names_alias_issuer_and_object_in_the_words_of_the_one_who_refused() {
    let condition = |type_: &str, status: &str, reason: &str, message: &str| json!([{"type": type_, "status": status, "reason": reason, "message": message}]);
    for (conditions, words) in [
        (
            condition("Denied", "True", "policy", "no client certificates here"),
            "was denied: no client certificates here",
        ),
        (
            condition("InvalidRequest", "True", "x", "usages do not match"),
            "is not valid: usages do not match",
        ),
        (
            condition("Ready", "False", "Failed", "role allows only RSA\nkeys"),
            "has failed: role allows only RSA keys",
        ),
        (condition("Ready", "False", "Denied", ""), "was denied"),
    ] {
        let mut trial = asked();
        trial.requests = vec![request(Alias::Client, &conditions)];
        let expected =
            format!("client, of Issuer corp: CertificateRequest pg-trial-client-1 {words}");
        assert_eq!(judge(&trial, 0), Trial::Failed(expected), "{conditions}");
    }
    let mut trial = asked();
    let failed = condition("Issuing", "False", "Failed", "no such secret");
    live(client(&mut trial)).status = Some(from(json!({"conditions": failed})));
    let expected = "client, of Issuer corp: Certificate pg-trial-client has failed: no such secret";
    assert_eq!(judge(&trial, 0), Trial::Failed(expected.to_owned()));
}

#[test]
fn the_text_of_an_issuer_is_bounded() {
    let mut trial = asked();
    let message = "x".repeat(100_000);
    let conditions = json!([{"type": "Denied", "status": "True", "message": message}]);
    trial.requests = vec![request(Alias::Client, &conditions)];
    let Trial::Failed(why) = judge(&trial, 0) else {
        panic!("it was denied");
    };
    assert!(why.len() < 700, "{}", why.len());
}

/// The texts are those of cert-manager 1.21 around Vault's answer, and of Venafi's library.
#[test]
fn what_is_wrong_is_said_also_where_it_stands_behind_all_else() {
    let role = "https://vault.security.corp.example.com:8200/v1/pki_intermediate_eu/sign/postgres";
    let name = "*.ha-postgres-pods.production-databases.svc.k8s.eu-central-1.corp.example.com";
    let reason = format!("subject alternate name {name} not allowed by this role");
    let vault = format!(
        "Vault failed to sign certificate: failed to sign certificate by vault: Error making API \
         request.\n\nURL: POST {role}\nCode: 400. Errors:\n\n* {reason}"
    );
    let names: Vec<String> = (0..20).map(|n| format!("db-{n}.{name}")).collect();
    let policy = r"do not match regular expressions: [^([\p{L}\p{N}-*]+\.)*corp\.example\.com$]";
    let venafi = format!(
        "Failed to request certificate from Certificate Manager: DNS SANs [{}] {policy}",
        names.join(" ")
    );
    for (message, begin, end) in [
        (vault.as_str(), "Vault failed to sign", reason.as_str()),
        (&venafi, "Failed to request certificate", policy),
    ] {
        let mut trial = asked();
        let failed =
            json!([{"type": "Ready", "status": "False", "reason": "Failed", "message": message}]);
        trial.requests = vec![request(Alias::Server, &failed)];
        let Trial::Failed(why) = judge(&trial, 0) else {
            panic!("it has failed");
        };
        let begin = format!(
            "server, of Issuer corp: CertificateRequest pg-trial-server-1 has failed: {begin}"
        );
        assert!(why.starts_with(&begin) && why.ends_with(end), "{why}");
        assert!(!why.contains(['\n']) && !why.contains("  "), "{why}");
    }
}

#[test]
fn what_could_not_be_served_fails_though_it_was_issued() {
    let (ca, stranger) = (Authority::new("ca"), Authority::new("ca"));
    let mut trial = issued(&issue(&ca, &ca));
    let data = client(&mut trial)
        .objects
        .secret
        .as_mut()
        .expect("a Secret");
    let other = secret(Alias::Client, &issue(&stranger, &stranger), "corp");
    let other = other.data.expect("data")["ca.crt"].clone();
    data.data
        .as_mut()
        .expect("data")
        .insert("ca.crt".to_owned(), other);
    let Trial::Failed(why) = judge(&trial, 0) else {
        panic!("its chain leads to no root");
    };
    assert!(
        why.starts_with("client, of Issuer corp: its chain"),
        "{why}"
    );
}

#[test]
fn a_long_wait_is_explained() {
    let approved = json!([{"type": "Approved", "status": "True"},
        {"type": "Ready", "status": "False", "reason": "Pending", "message": "waiting for the CA"}]);
    for (conditions, seconds, words) in [
        (None, 15, None),
        (
            None,
            16,
            Some("cert-manager has made no CertificateRequest"),
        ),
        (Some(json!([])), 15, None),
        (
            Some(json!([])),
            16,
            Some("pg-trial-client-1 has not been approved since"),
        ),
        (Some(approved.clone()), 15, None),
        (
            Some(approved),
            16,
            Some("is approved, and not issued since 2026-06-01T00:00:00Z: waiting for the CA"),
        ),
    ] {
        let mut trial = asked();
        trial
            .certificates
            .retain(|alias, _| *alias == Alias::Client);
        trial.requests = conditions
            .iter()
            .map(|c| request(Alias::Client, c))
            .collect();
        let case = format!("{conditions:?} {seconds}");
        match (judge(&trial, seconds), words) {
            (Trial::Pending(None), None) => {}
            (Trial::Pending(Some(why)), Some(words)) => {
                assert!(why.contains(words), "{case}: {why}");
            }
            (found, _) => panic!("{case}: {found:?}"),
        }
    }
}

#[test]
fn objects_of_others_are_conflicts() {
    let mut trial = asked();
    let certificate = client(&mut trial);
    certificate
        .objects
        .live
        .as_mut()
        .expect("a Certificate")
        .is_owned = false;
    certificate.objects.secret = Some(from(
        json!({"metadata": {"name": name(Alias::Client)}, "data": {"tls.key": "a2V5"}}),
    ));
    certificate.secret_is_owned = false;
    let conflicts = trial.judge(OPERATION, &wanted(), now()).conflicts;
    assert_eq!(
        conflicts,
        ["Secret pg-trial-client", "Certificate pg-trial-client"]
    );
}

#[test]
fn a_secret_that_a_certificate_of_another_has_left_behind_is_a_conflict() {
    for (is_owned, expected) in [(false, vec!["Secret pg-trial-client"]), (true, vec![])] {
        let mut trial = asked();
        let certificate = client(&mut trial);
        certificate.objects.live = None;
        certificate.objects.secret = Some(from(json!({
            "metadata": {"name": name(Alias::Client),
                "annotations": {"cert-manager.io/certificate-name": name(Alias::Client)}},
            "data": {"tls.key": "a2V5"},
        })));
        certificate.secret_is_owned = is_owned;
        let conflicts = trial.judge(OPERATION, &wanted(), now()).conflicts;
        assert_eq!(conflicts, expected, "{is_owned}");
    }
}
