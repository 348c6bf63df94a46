//! Snapshots of whole manifests, for people to read: an unintended change shows here.

use std::collections::BTreeSet;

use serde_json::json;

use crate::api::Postgres;
use crate::api::tls::SslMode;
use crate::build::cluster::tests::{cluster, postgres};
use crate::build::patroni::{dynamic, local};
use crate::build::{
    Cluster, access, certificates, disruption, monitor, owned_by, pet_set, secrets, services, trust,
};
use crate::tls::posture::tests::material;
use crate::tls::{Alias, Method, Posture, posture};

/// Every manifest of a database as a YAML document, in the order in which a person would explain
/// them.
fn manifests(owner: &Postgres, cluster: &Cluster, posture: &Posture) -> String {
    // The annotation is JSON in a string. People read YAML more easily.
    let mut shared = json!(dynamic::config_map(cluster, posture));
    shared["metadata"]["annotations"]["config"] = json!(dynamic::config(cluster, posture));
    let documents = [
        json!(owned_by(pet_set::pet_set(cluster, posture), owner)),
        json!(services::primary(cluster)),
        json!(services::standby(cluster)),
        json!(services::pods(cluster)),
        json!(monitor::stats(cluster, posture)),
        json!(monitor::service_monitor(cluster, posture)),
        json!(local::config_map(cluster, posture)),
        shared,
        json!(certificates::certificate(cluster, Alias::Server)),
        json!(certificates::certificate(cluster, Alias::Client)),
        json!(certificates::certificate(cluster, Alias::MetricsExporter)),
        json!(access::service_account(cluster)),
        json!(access::role(cluster)),
        json!(access::role_binding(cluster)),
        json!(disruption::disruption_budget(cluster)),
        json!(secrets::auth(
            cluster,
            &"password".into(),
            "2026-01-01T00:00:00Z"
        )),
        json!(secrets::patroni(cluster, &"password".into())),
        json!(secrets::user_conf(cluster, &BTreeSet::new())),
        json!(trust::ca_config_map(cluster, "PEM")),
    ];
    let texts: Vec<String> = documents
        .iter()
        .filter(|document| !document.is_null())
        .map(|document| serde_saphyr::to_string(document).expect("YAML"))
        .collect();
    texts.join("---\n")
}

fn manifests_of(spec: &str) -> String {
    let mut owner = postgres(spec);
    owner.metadata.uid = Some("00000000-0000-0000-0000-000000000001".to_owned());
    owner.metadata.labels = Some([("team".to_owned(), "payments".to_owned())].into());
    let cluster = cluster(&owner);
    let posture = posture(&owner.spec, cluster.major(), Some(&material(1, 1, 1))).expect("issued");
    manifests(&owner, &cluster, &posture)
}

const STORAGE: &str =
    "storage: {storageClassName: standard, resources: {requests: {storage: 1Gi}}}";

#[test]
fn three_pods_without_tls() {
    insta::assert_snapshot!(manifests_of(&format!(
        "{{version: '17.12', replicas: 3, {STORAGE}}}"
    )));
}

#[test]
fn three_pods_with_tls_and_passwords() {
    insta::assert_snapshot!(manifests_of(&format!(
        "{{version: '17.12', replicas: 3, {STORAGE}, sslMode: verify-full, clientAuthMode: scram, tls: {{issuerRef: {{name: \
         pg-issuer}}, certificates: [{{alias: server, subject: {{organizations: ['kubedb:server']}}, dnsNames: [localhost], \
         ipAddresses: [127.0.0.1]}}]}}}}"
    )));
}

#[test]
fn three_pods_with_tls_and_client_certificates() {
    insta::assert_snapshot!(manifests_of(&format!(
        "{{version: '18.6', replicas: 3, {STORAGE}, clientAuthMode: cert, tls: {{issuerRef: {{apiGroup: cert-manager.io, kind: \
         ClusterIssuer, name: everywhere}}, certificates: [{{alias: client, subject: {{organizations: [postgres], \
         organizationalUnits: [client]}}}}]}}}}"
    )));
}

#[test]
fn one_pod_with_metrics() {
    insta::assert_snapshot!(manifests_of(
        "{version: '17.12', storageType: Ephemeral, monitor: {agent: prometheus.io/builtin}}"
    ));
}

#[test]
fn everything_that_can_be_said() {
    insta::assert_snapshot!(manifests_of(EVERYTHING));
}

/// A spec with every field that `build` reads.
const EVERYTHING: &str = r#"
version: "18.6"
replicas: 5
streamingMode: Synchronous
synchronousReplicationConfig: {mode: First, numSyncReplicas: 2, commitLevel: RemoteApply}
storage: {storageClassName: fast, accessModes: [ReadWriteOncePod], resources: {requests: {storage: 10Gi}}}
sslMode: require
clientAuthMode: cert
tls:
  issuerRef: {name: pg-issuer}
  certificates:
  - alias: server
    issuerRef: {kind: ClusterIssuer, name: public}
    secretName: pg-public
    duration: 2160h
    renewBefore: 720h
    dnsNames: [db.example.com]
    uris: ["spiffe://example.com/pg"]
    emailAddresses: [dba@example.com]
    privateKey: {encoding: PKCS8}
authSecret: {kind: Secret, name: pg-login}
podTemplate:
  metadata: {labels: {tier: db}, annotations: {example.com/note: hello}}
  spec:
    nodeSelector: {disk: fast}
    tolerations: [{key: dedicated, operator: Exists}]
    priorityClassName: important
    imagePullSecrets: [{name: registry}]
    serviceAccountName: databases
    topologySpreadConstraints: [{maxSkew: 1, topologyKey: topology.kubernetes.io/zone, whenUnsatisfiable: DoNotSchedule}]
    containers:
    - name: postgres
      resources: {requests: {cpu: "2", memory: 8Gi}, limits: {memory: 8Gi}}
      env: [{name: TZ, value: UTC}]
    - name: exporter
      env: [{name: PG_EXPORTER_DISABLE_SETTINGS_METRICS, value: "true"}]
serviceTemplates:
- alias: primary
  metadata: {annotations: {example.com/dns: db.example.com}}
  spec:
    type: LoadBalancer
    loadBalancerIP: 192.0.2.1
    loadBalancerSourceRanges: [198.51.100.0/24]
    externalTrafficPolicy: Local
    ports: [{name: primary, port: 6432, nodePort: 30432}]
- alias: standby
  spec: {externalIPs: [192.0.2.2]}
configuration:
  secretName: pg-conf
  inline: {user.conf: "max_connections = 200\nwal_level = logical\n"}
monitor:
  agent: prometheus.io/operator
  prometheus:
    exporter: {port: 9187, args: [--log.level=warn], resources: {requests: {cpu: 10m}}}
    serviceMonitor: {labels: {release: prometheus}, interval: 10s}
init: {script: {scriptPath: first, configMap: {name: pg-init}}}
leaderElection: {maximumLagBeforeFailover: 1048576}
"#;

#[test]
fn the_same_database_gives_the_same_manifests() {
    let owner = postgres(EVERYTHING);
    let posture = Posture::tls(SslMode::Require, Method::Cert, material(1, 1, 1));
    assert_eq!(
        manifests(&owner, &cluster(&owner), &posture),
        manifests(&owner, &cluster(&owner), &posture)
    );
}
