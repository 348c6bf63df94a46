//! Clients of every kind: what docs/clients.md says is what a pod with these drivers does, while
//! the issuer of its database changes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::harness::{Cluster, Controllers, Seat, TestNamespace, example, issuers, versions};
use crate::issuers::issuer_ref;
use crate::operations::{by_reload, carry_out, request};

const NAMESPACE: &str = "clients";
const DRIVERS: [&str; 6] = ["psql", "psycopg", "pgjdbc", "pgx", "node-postgres", "sqlx"];

fn document() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/clients.md");
    std::fs::read_to_string(path).expect("the document")
}

/// The block that follows these words.
fn block(after: &str) -> String {
    let document = document();
    let rest = document.split_once(after).expect(after).1;
    let block = rest.split("```").nth(1).expect("a block");
    let (_language, lines) = block.split_once('\n').expect("lines");
    lines.replace("demo.svc", &format!("{NAMESPACE}.svc"))
}

/// What a program takes of it, which is the address.
fn quoted(block: &str) -> String {
    block.split('"').nth(1).expect("a text").to_owned()
}

/// The line of each driver, by the name of the variable that has it.
fn lines() -> BTreeMap<&'static str, String> {
    [
        ("PSQL", block("\npsql, and all that uses libpq")),
        ("PSYCOPG", block("\npsycopg (2 and 3)")),
        ("PGJDBC", block("\npgjdbc, 42.7.11 or newer")),
        ("PGX", quoted(&block("\nGo, pgx"))),
        ("NODE_POSTGRES", block("\nnode-postgres:")),
        ("SQLX", quoted(&block("\nsqlx, with feature `tls-rustls`"))),
    ]
    .map(|(name, line)| (name, line.trim().to_owned()))
    .into()
}

/// A pod as the document has it, with the drivers for an application.
fn pod() -> Value {
    // kubectl reads YAML 1.1, where a number that begins with 0 is octal.
    let yaml = block("## What to mount").replace("0440", &0o440.to_string());
    let mut pod: Value = serde_saphyr::from_str(&yaml).expect("YAML");
    let fields = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "clients"}});
    let object = pod.as_object_mut().expect("an object");
    object.extend(fields.as_object().cloned().unwrap_or_default());
    let lines = lines().into_iter();
    let env: Vec<Value> = lines
        .map(|(name, value)| json!({"name": name, "value": value}))
        .collect();
    let container = &mut pod["spec"]["containers"][0];
    container["image"] = json!("pgrekey.local/clients:1");
    container["env"] = json!(env);
    container["resources"] = json!({"requests": {"cpu": "50m", "memory": "200Mi"}});
    // As restricted as the namespaces of the tests want every pod.
    container["securityContext"] = json!({
        "runAsNonRoot": true, "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
        "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"},
    });
    pod["spec"]["terminationGracePeriodSeconds"] = json!(1);
    pod
}

fn database(version: &str) -> Value {
    let mut database = example("ha-postgres.yaml", "ha-postgres", 2, version);
    database["spec"]["sslMode"] = json!("verify-full");
    database["spec"]["clientAuthMode"] = json!("cert");
    let pkcs8 = json!({"alias": "client", "privateKey": {"encoding": "PKCS8"}});
    database["spec"]["tls"] =
        json!({"issuerRef": issuer_ref("pg-issuer"), "certificates": [pkcs8]});
    database
}

/// What one driver has printed so far.
#[derive(Debug, Default)]
struct Seen {
    connected: usize,
    /// The issuer of the certificate that it presented last.
    issuer: String,
    failed: usize,
    failures: BTreeSet<String>,
}

impl Seen {
    fn of(said: &str) -> BTreeMap<String, Self> {
        let mut seen = BTreeMap::<String, Self>::new();
        for line in said.lines() {
            let mut words = line.splitn(3, ' ');
            let (driver, outcome) = (words.next().unwrap_or_default(), words.next());
            let seen = seen.entry(driver.to_owned()).or_default();
            let rest = words.next().unwrap_or_default().to_owned();
            if outcome == Some("ok") {
                seen.connected += 1;
                seen.issuer = rest;
            } else {
                seen.failed += 1;
                seen.failures.insert(line.to_owned());
            }
        }
        seen
    }
}

fn seen(namespace: &TestNamespace<'_>) -> BTreeMap<String, Seen> {
    Seen::of(&namespace.kubectl(&["logs", "clients"]))
}

/// How often each driver has connected.
fn connected(namespace: &TestNamespace<'_>) -> [usize; DRIVERS.len()] {
    let seen = seen(namespace);
    DRIVERS.map(|driver| seen.get(driver).map_or(0, |seen| seen.connected))
}

/// Waits until every driver has connected again, with a certificate of this CA.
async fn all_connect(namespace: &TestNamespace<'_>, ca: &str) {
    let (before, start) = (connected(namespace), Instant::now());
    let issuer = format!("/CN={ca}");
    loop {
        let seen = seen(namespace);
        let has = |(driver, before): (&&str, usize)| {
            seen.get(*driver)
                .is_some_and(|seen| seen.connected > before && seen.issuer == issuer)
        };
        if DRIVERS.iter().zip(before).all(has) {
            return;
        }
        assert!(
            start.elapsed() < Duration::from_mins(1),
            "not all connect with a certificate of {ca}: {seen:#?}"
        );
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// The same servers by a name that their certificates do not have.
fn impostor() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "impostor"},
        "spec": {"ports": [{"port": 5432}], "selector": {
            "app.kubernetes.io/instance": "ha-postgres", "kubedb.com/role": "primary",
        }},
    })
}

/// No line of the document lets a server pass that has another name.
fn each_refuses_another_name(namespace: &TestNamespace<'_>) {
    let lines: Vec<String> = lines()
        .into_iter()
        .map(|(name, line)| format!("{name}={}", line.replace("ha-postgres.", "impostor.")))
        .collect();
    let mut command = vec!["exec", "clients", "--", "env"];
    command.extend(lines.iter().map(String::as_str));
    command.extend(["/clients/run", "1"]);
    let seen = Seen::of(&namespace.kubectl(&command));
    for driver in DRIVERS {
        let it = seen.get(driver).expect(driver);
        let why = format!("{:?}", it.failures).to_lowercase();
        assert!(it.connected == 0, "{driver} connects to any server");
        assert!(
            why.contains("certificate") || why.contains("hostname"),
            "{driver}: {why}"
        );
    }
}

/// The kubelet looks at a pod that has changed, and at the others once a minute.
fn files_are_brought_up_to_date(cluster: &Cluster) -> JoinHandle<()> {
    let pods: kube::Api<k8s_openapi::api::core::v1::Pod> =
        kube::Api::namespaced(cluster.client.clone(), NAMESPACE);
    tokio::spawn(async move {
        for n in 0_u32.. {
            let patch = json!({"metadata": {"annotations": {"looked-at": n.to_string()}}});
            let patch = kube::api::Patch::Merge(patch);
            // The next one does as well.
            let _ = pods
                .patch("clients", &kube::api::PatchParams::default(), &patch)
                .await;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    })
}

/// Each has connected before and during the change, and has never failed.
fn none_has_failed(
    namespace: &TestNamespace<'_>,
    before: [usize; DRIVERS.len()],
    during: [usize; DRIVERS.len()],
) {
    let after = seen(namespace);
    for ((driver, before), during) in DRIVERS.iter().zip(before).zip(during) {
        let Seen {
            connected,
            failed,
            failures,
            ..
        } = &after[*driver];
        println!(
            "{driver}: {before} connections before, {} during, {} after, {} failed",
            during - before,
            connected - during,
            failed
        );
        assert!(during > before, "{driver}");
        assert_eq!(*failures, BTreeSet::new(), "{driver}");
    }
    assert_eq!(after.len(), DRIVERS.len(), "{after:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_driver_of_the_document_connects_all_the_time_while_the_issuer_changes() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    let seat = Seat::take(&cluster).await;
    let versions = versions(&cluster);
    let (controllers, writes) = Controllers::counted(&seat, NAMESPACE).await;
    let namespace = &TestNamespace::make(&cluster, NAMESPACE);
    issuers(namespace);
    let database = database(&versions[&17]);
    namespace.apply(&database);
    namespace.until_phase("ha-postgres", "Ready", 180).await;
    namespace.apply(&impostor());
    namespace.apply(&pod());
    namespace.kubectl(&[
        "wait",
        "--for=condition=Ready",
        "--timeout=60s",
        "pod/clients",
    ]);
    all_connect(namespace, "ca").await;
    each_refuses_another_name(namespace);

    let before = connected(namespace);
    let kubelet = files_are_brought_up_to_date(&cluster);
    let to = json!({"issuerRef": issuer_ref("pg-new-issuer")});
    let mut change = by_reload(request("change-issuer", &to));
    change["metadata"]["annotations"]["pgrekey.dev/client-grace-period"] = json!("12s");
    carry_out(namespace, &writes, &change, false).await;
    let during = connected(namespace);
    all_connect(namespace, "ca-updated").await;
    kubelet.abort();

    none_has_failed(namespace, before, during);
    namespace.kubectl(&["delete", "pod", "clients", "--wait=false"]);
    namespace.clear();
    controllers.stop().await;
}
