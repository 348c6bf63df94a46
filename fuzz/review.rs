//! Bytes to verdict: whatever the body, every webhook answers, and what it answers is JSON with the
//! uid that was asked.
#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use pgrekey::rules::Snapshot;
use pgrekey::rules::defaults::InstallationDefaults;
use pgrekey::serve::admission::AdmissionRequest;
use pgrekey::serve::response::respond;
use pgrekey::serve::table::WEBHOOKS;
use pgrekey::serve::webhooks::review;
use serde_json::{Value, json};

static FACTS: LazyLock<Snapshot> = LazyLock::new(|| {
    let database = json!({
        "apiVersion": "kubedb.com/v1", "kind": "Postgres", "metadata": {"name": "ha-postgres", "namespace": "demo"},
        "spec": {"version": "17.12", "replicas": 3, "tls": {"issuerRef": {"name": "pg-issuer"}}, "clientAuthMode": "cert"},
    });
    let issuer = json!({
        "apiVersion": "cert-manager.io/v1", "kind": "Issuer", "metadata": {"name": "pg-issuer", "namespace": "demo"},
        "spec": {"ca": {"secretName": "postgres-ca"}},
    });
    Snapshot {
        databases: vec![Arc::new(
            serde_json::from_value(database).expect("a Postgres"),
        )],
        issuers: vec![Arc::new(serde_json::from_value(issuer).expect("an Issuer"))],
        ..Snapshot::default()
    }
});

fuzz_target!(|body: &[u8]| {
    let Ok(request) = AdmissionRequest::parse(body) else {
        return;
    };
    for webhook in &WEBHOOKS {
        let verdict = review(
            webhook,
            &request,
            &*FACTS,
            &InstallationDefaults {
                ops_manager: true,
                ..InstallationDefaults::default()
            },
        );
        let allowed = verdict.allowed();
        let json = request
            .encode(respond(webhook, &request, verdict).expect("a response"))
            .expect("JSON");
        let json: Value = serde_json::from_slice(&json).expect("JSON");
        assert_eq!(json["response"]["uid"], request.uid.as_ref());
        assert_eq!(json["response"]["allowed"], allowed);
    }
});
