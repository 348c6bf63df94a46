//! Whoever reaches the webhooks: the API server with somebody's huge manifest, and pods that speak
//! to them directly.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::bystander::asking;
use crate::harness::{Cluster, Installed, OPERATOR, TestNamespace, eventually, example};

/// Callers that send half a body again and again, at each replica: more than it has places for
/// work.
const HALF_SENT: usize = 300;

/// A manifest of 2.8 MB that costs the most memory for its bytes: a quarter of a million entries of
/// a list.
fn large(version: &str) -> Value {
    let mut object = example("ha-postgres.yaml", "large", 1, version);
    let container = object
        .pointer_mut("/spec/podTemplate/spec/containers/0")
        .expect("a container");
    container["env"] = json!(vec![json!({"name": "a"}); 215_000]);
    object
}

pub(super) fn large_manifests_are_refused(namespace: &TestNamespace<'_>, version: &str) {
    let manifest = large(version).to_string();
    assert!(manifest.len() > 2_700_000, "{} bytes", manifest.len());
    let dry_run = || {
        let create = [
            "-n",
            namespace.name,
            "create",
            "--dry-run=server",
            "--validate=false",
            "-f",
            "-",
        ];
        namespace.cluster.kubectl(&create, &manifest).must_fail()
    };
    for said in [dry_run(), dry_run(), dry_run()] {
        let why: String = said.chars().take(400).collect();
        assert!(said.contains("env"), "the field is named: {why}");
    }
}

pub(super) async fn half_sent_bodies_delay_no_caller(
    installed: &Installed<'_>,
    cluster: &Cluster,
    version: &str,
) {
    let replicas = installed.addresses();
    assert_eq!(replicas.len(), 2, "{replicas:?}");
    let (connector, sent) = (connector(cluster), Arc::new(AtomicUsize::new(0)));
    let mut callers = JoinSet::new();
    for replica in replicas
        .into_iter()
        .flat_map(|replica| std::iter::repeat_n(replica, HALF_SENT))
    {
        let (connector, sent) = (connector.clone(), Arc::clone(&sent));
        callers.spawn(async move {
            loop {
                if let Some(mut held) = half_sent(&connector, replica).await {
                    sent.fetch_add(1, Ordering::Relaxed);
                    // Until the server has had enough of it.
                    let _ = held.read_to_end(&mut vec![]).await;
                }
            }
        });
    }
    let enough = async || sent.load(Ordering::Relaxed) > HALF_SENT;
    eventually("the bodies are on their way", enough).await;
    let asks = asking(cluster, version);
    let answers: Vec<_> = (0..10).map(|_| asks()).collect();
    callers.shutdown().await;
    println!(
        "{} half-sent bodies, and {} creates beside them",
        sent.load(Ordering::Relaxed),
        answers.len()
    );
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
}

/// A client that trusts the CA of the webhooks, which everybody may read.
fn connector(cluster: &Cluster) -> TlsConnector {
    let path = "jsonpath={.webhooks[0].clientConfig.caBundle}";
    let configuration = [
        "get",
        "validatingwebhookconfiguration",
        "validators.kubedb.com",
        "-o",
        path,
    ];
    let bundle = cluster.kubectl(&configuration, "").must_succeed();
    let bundle: k8s_openapi::ByteString = serde_json::from_value(json!(bundle)).expect("base64");
    let mut roots = RootCertStore::empty();
    for ca in CertificateDer::pem_slice_iter(&bundle.0) {
        roots.add(ca.expect("PEM")).expect("a CA");
    }
    let config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

/// A request of which the body stops after its first bytes. Nothing, where the connection is not
/// taken.
async fn half_sent(connector: &TlsConnector, replica: SocketAddr) -> Option<TlsStream<TcpStream>> {
    let name = ServerName::try_from(format!("{OPERATOR}.{OPERATOR}.svc")).expect("a name");
    let head = "POST /validate-kubedb-com-v1-postgres?timeout=30s HTTP/1.1\r\nHost: pgrekey\r\n\
        Content-Type: application/json\r\nContent-Length: 2000000\r\n\r\n{\"apiVersion\":";
    let held = async {
        let stream = TcpStream::connect(replica).await.ok()?;
        let mut stream = connector.connect(name, stream).await.ok()?;
        stream.write_all(head.as_bytes()).await.ok()?;
        stream.flush().await.ok()?;
        Some(stream)
    };
    tokio::time::timeout(Duration::from_secs(10), held)
        .await
        .ok()
        .flatten()
}
