//! Tests of the rules about issuers.

use std::sync::Arc;

use super::*;
use crate::api::Postgres;
use crate::rules::{Snapshot, judge, postgres};

#[test]
fn tls_without_cert_manager_is_refused() {
    let said = |spec: &str, lacks: &[&'static str]| {
        let mut object = Postgres::new("pg", serde_saphyr::from_str(spec).expect("a spec"));
        object.metadata.namespace = Some("demo".to_owned());
        let facts = Snapshot {
            lacks: lacks.to_vec(),
            ..Snapshot::default()
        };
        let review = Review::create(object, Arc::default());
        let mut found = judge(postgres::rules(), &review, Some(&facts));
        found.retain(|finding| finding.rule == "issuer-exists");
        found.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let secure = "{version: '17', tls: {issuerRef: {name: i}}}";
    let missing = "[issuer-exists] spec.tls.issuerRef: cert-manager is not installed: kind Issuer of cert-manager.io is \
        unknown to this cluster; install cert-manager; pgrekey sees it by itself, within half a minute";
    assert_eq!(said(secure, &["Issuer"]), [missing]);
    assert!(said(secure, &["ClusterIssuer"])[0].contains("there is no Issuer \"i\""));
    assert!(said("{version: '17'}", &["Issuer", "ClusterIssuer"]).is_empty());
}

#[test]
fn issuers_with_a_ca_behind_them_pass_and_others_are_refused_whether_they_are_ready_or_not() {
    for (kind_of_issuer, when_ready, when_not) in [
        ("ca: {secretName: s}", None, Some("issuer-not-ready")),
        ("vault: {path: pki/sign/db}", None, Some("issuer-not-ready")),
        ("venafi: {zone: z}", None, Some("issuer-not-ready")),
        (
            "selfSigned: {}",
            Some("issuer-self-signed"),
            Some("issuer-self-signed"),
        ),
        (
            "acme: {server: s}",
            Some("issuer-acme"),
            Some("issuer-acme"),
        ),
    ] {
        for (status, expected) in [("True", when_ready), ("False", when_not)] {
            let mut facts = Snapshot::default();
            let manifest = format!(
                "{{apiVersion: cert-manager.io/v1, kind: Issuer, metadata: {{name: i, namespace: demo}}, \
                 spec: {{{kind_of_issuer}}}, status: {{conditions: [{{type: Ready, status: '{status}'}}]}}}}"
            );
            let document = serde_saphyr::from_str(&manifest).expect("a manifest");
            facts.learn(&document).expect("an Issuer");
            let spec = "{version: '17', tls: {issuerRef: {name: i}}}";
            let mut object = Postgres::new("pg", serde_saphyr::from_str(spec).expect("a spec"));
            object.metadata.namespace = Some("demo".to_owned());
            let review = Review::create(object, Arc::default());
            let found = judge(postgres::rules(), &review, Some(&facts));
            let ids = found.iter().map(|finding| finding.rule);
            let ids: Vec<_> = ids.filter(|id| id.starts_with("issuer-")).collect();
            assert_eq!(ids, Vec::from_iter(expected), "{kind_of_issuer} {status}");
        }
    }
}
