//! What both benchmarks review: a request with many names in it, 5 kB in its envelope, that nothing
//! is wrong with.

use std::sync::Arc;

use pgrekey::rules::Snapshot;
use serde_json::{Value, json};

/// Names of the server certificate; as many as bring the body to 5 kB.
const NAMES: usize = 120;

pub(crate) fn body() -> Vec<u8> {
    let names: Vec<String> = (0..NAMES)
        .map(|i| format!("db-{i:03}.postgres.example.com"))
        .collect();
    let body = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002", "operation": "CREATE", "namespace": "demo", "name": "add-tls",
            "kind": {"group": "ops.kubedb.com", "version": "v1alpha1", "kind": "PostgresOpsRequest"},
            "userInfo": {"username": "kubernetes-admin", "groups": ["system:masters", "system:authenticated"]},
            "oldObject": null, "dryRun": false,
            "object": {
                "apiVersion": "ops.kubedb.com/v1alpha1", "kind": "PostgresOpsRequest",
                "metadata": {"name": "add-tls", "namespace": "demo", "creationTimestamp": "2026-01-01T00:00:00Z",
                    "managedFields": [{"manager": "kubectl", "operation": "Update", "fieldsV1": {"f:spec": {"f:tls": {}}}}]},
                "spec": {
                    "type": "ReconfigureTLS", "databaseRef": {"name": "ha-postgres"}, "apply": "Always", "timeout": "5m",
                    "tls": {
                        "sslMode": "verify-full", "clientAuthMode": "cert",
                        "issuerRef": {"apiGroup": "cert-manager.io", "kind": "Issuer", "name": "pg-issuer"},
                        "certificates": [
                            {"alias": "server", "dnsNames": names, "duration": "2160h"},
                            {"alias": "client", "subject": {"organizations": ["postgres"], "organizationalUnits": ["client"]}},
                        ],
                    },
                },
            },
        },
    });
    serde_json::to_vec(&body).expect("JSON")
}

pub(crate) fn facts() -> Snapshot {
    fn object<T: serde::de::DeserializeOwned>(value: Value) -> Arc<T> {
        Arc::new(serde_json::from_value(value).expect("an object"))
    }
    Snapshot {
        databases: vec![object(json!({
            "apiVersion": "kubedb.com/v1", "kind": "Postgres", "metadata": {"name": "ha-postgres", "namespace": "demo"},
            "spec": {"version": "17.12", "replicas": 3, "sslMode": "disable", "clientAuthMode": "md5"},
        }))],
        issuers: vec![object(json!({
            "apiVersion": "cert-manager.io/v1", "kind": "Issuer", "metadata": {"name": "pg-issuer", "namespace": "demo"},
            "spec": {"ca": {"secretName": "postgres-ca"}},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        }))],
        ..Snapshot::default()
    }
}
