//! Names in certificates: full ones only, also while pods come and go, and names that a request takes
//! away.

use pgrekey::pki::key_pair::CertificateAndKey;
use serde_json::json;

use crate::harness::{
    Cluster, Controllers, Seat, TestNamespace, ca, ca_secret, example, versions, whole_secret,
};
use crate::issuers::{issuer_of_secret, issuer_ref};
use crate::operations::{by_reload, carry_out, request};

const NAMESPACE: &str = "names";

/// Whether the certificate that servers serve has this name.
fn is_served(namespace: &TestNamespace<'_>, name: &str) -> bool {
    let files = whole_secret(namespace, "ha-postgres-tls");
    let file = |name: &str| files[name].as_bytes();
    CertificateAndKey::parse(file("server.crt"), file("server.key"))
        .expect("a certificate")
        .covers([name])
        .is_ok()
}

fn pod(ordinal: u32) -> String {
    format!("ha-postgres-{ordinal}.ha-postgres-pods.{NAMESPACE}.svc")
}

/// Waits for so many ready pods. No pod that comes is there without its name.
async fn until_pods(namespace: &TestNamespace<'_>, count: u32) {
    namespace
        .until(&format!("{count} pods"), 120, || {
            let replicas = namespace.path("petset/ha-postgres", ".spec.replicas");
            if let Some(last) = replicas.parse::<u32>().ok().and_then(|n| n.checked_sub(1)) {
                assert!(is_served(namespace, &pod(last)), "pod {last} has no name");
            }
            namespace.path("petset/ha-postgres", ".status.readyReplicas") == count.to_string()
        })
        .await;
    namespace.until_phase("ha-postgres", "Ready", 60).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_come_with_their_names_and_names_of_users_go_by_request() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    let seat = Seat::take(&cluster).await;
    let versions = versions(&cluster);
    let (controllers, writes) = Controllers::counted(&seat, NAMESPACE).await;
    let namespace = &TestNamespace::make(&cluster, NAMESPACE);
    namespace.apply(&ca_secret("corp-ca", &ca("corp")));
    namespace.apply(&issuer_of_secret("corp-ca"));
    let mut database = example("ha-postgres.yaml", "ha-postgres", 2, &versions[&17]);
    database["metadata"]["annotations"] = json!({"pgrekey.dev/server-names": "Services"});
    database["spec"]["sslMode"] = json!("verify-full");
    database["spec"]["clientAuthMode"] = json!("cert");
    database["spec"]["tls"] = json!({"issuerRef": issuer_ref("corp-ca"),
        "certificates": [{"alias": "server", "dnsNames": ["old.example.com"]}]});
    namespace.apply(&database);
    namespace.until_phase("ha-postgres", "Ready", 180).await;
    let full = format!("ha-postgres.{NAMESPACE}.svc.cluster.local");
    for name in [full.as_str(), &pod(0), &pod(1), "old.example.com"] {
        assert!(is_served(namespace, name), "{name}");
    }
    for name in ["localhost", "127.0.0.1", "ha-postgres", &pod(2)] {
        assert!(!is_served(namespace, name), "{name}");
    }

    namespace.patch("ha-postgres", &json!({"replicas": 3}));
    until_pods(namespace, 3).await;

    let change = json!({"certificates": [{"alias": "server", "dnsNames": ["new.example.com"]}]});
    let mut fewer = by_reload(request("fewer-names", &change));
    fewer["metadata"]["annotations"]["pgrekey.dev/names"] = json!("Replace");
    carry_out(namespace, &writes, &fewer, false).await;
    assert!(is_served(namespace, "new.example.com"));
    assert!(!is_served(namespace, "old.example.com"));

    namespace.patch("ha-postgres", &json!({"replicas": 2}));
    until_pods(namespace, 2).await;
    namespace
        .until("the name of the pod that went is gone", 60, || {
            !is_served(namespace, &pod(2))
        })
        .await;
    namespace.clear();
    controllers.stop().await;
}
