//! A `Postgres` on a real Kubernetes: it comes up, is repaired, scales, halts and goes.
//!
//! The loops run in this process, in a namespace of their own that enforces Pod Security level `restricted`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::api::{Api, DynamicObject, ListParams};
use kube::core::{ApiResource, GroupVersionKind};
use pgrekey::api::Postgres;
use pgrekey::cluster::facts;
use pgrekey::controller::{self, Lease, Settings};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::harness::Cluster;

/// Loops that run in this process.
struct Loops {
    stop: CancellationToken,
    run: JoinHandle<()>,
    facts: JoinHandle<()>,
}

impl Loops {
    fn start(cluster: &Cluster, namespace: &str) -> Self {
        let (stores, fill) = facts::watch(&cluster.client);
        let stop = CancellationToken::new();
        let settings = Settings {
            namespace: Some(namespace.to_owned()),
            lease: Some(Lease {
                namespace: namespace.to_owned(),
                name: "pgrekey".to_owned(),
                identity: "test".to_owned(),
            }),
            ..Settings::default()
        };
        let run = controller::run(cluster.client.clone(), Arc::new(stores), settings, stop.clone());
        Self { stop, run: tokio::spawn(run), facts: tokio::spawn(fill) }
    }

    async fn stop(self) {
        self.stop.cancel();
        self.run.await.expect("the loops end");
        self.facts.abort();
    }
}

/// A namespace of the tests.
struct Place<'a> {
    cluster: &'a Cluster,
    namespace: &'static str,
}

impl<'a> Place<'a> {
    fn make(cluster: &'a Cluster, namespace: &'static str) -> Self {
        cluster.kubectl(&["delete", "namespace", namespace, "--ignore-not-found", "--wait"], "").must_succeed();
        let labels = json!({"pod-security.kubernetes.io/enforce": "restricted"});
        let object =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}});
        let place = Self { cluster, namespace };
        place.apply(&object);
        place
    }

    fn kubectl(&self, arguments: &[&str]) -> String {
        let all: Vec<&str> = ["-n", self.namespace].iter().chain(arguments).copied().collect();
        self.cluster.kubectl(&all, "").must_succeed()
    }

    fn apply(&self, object: &Value) {
        let arguments = ["-n", self.namespace, "apply", "--server-side", "--force-conflicts", "-f", "-"];
        self.cluster.kubectl(&arguments, &object.to_string()).must_succeed();
    }

    fn patch(&self, name: &str, spec: &Value) {
        self.kubectl(&["patch", "pg", name, "--type=merge", "-p", &json!({"spec": spec}).to_string()]);
    }

    /// What kubectl prints for this path of this object; empty when there is none.
    fn path(&self, object: &str, path: &str) -> String {
        let path = format!("jsonpath={{{path}}}");
        let arguments = ["-n", self.namespace, "get", object, "--ignore-not-found", "-o", &path];
        self.cluster.kubectl(&arguments, "").must_succeed()
    }

    async fn until(&self, what: &str, seconds: u64, holds: impl Fn() -> bool) -> Duration {
        let start = Instant::now();
        while !holds() {
            if start.elapsed() > Duration::from_secs(seconds) {
                let state = self.kubectl(&["get", "pg,petset,sts,pod", "-o", "wide"]);
                let status = self.kubectl(&["get", "pg", "-o", "jsonpath={.items[*].status}"]);
                panic!("not within {seconds} s: {what}\n{state}\n{status}");
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        start.elapsed()
    }

    async fn until_phase(&self, name: &str, phase: &str, seconds: u64) -> Duration {
        self.until(&format!("{name} is {phase}"), seconds, || {
            self.path(&format!("pg/{name}"), ".status.phase") == phase
        })
        .await
    }
}

/// An example with this name, on a machine with little to spare.
fn example(file: &str, name: &str, replicas: i32, version: &str) -> Value {
    let path = format!("{}/examples/{file}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).expect("the example");
    let mut object: Value = serde_saphyr::from_str(&text).expect("the example is YAML");
    object["metadata"] = json!({"name": name});
    object["spec"]["replicas"] = json!(replicas);
    object["spec"]["version"] = json!(version);
    let resources = json!({"requests": {"cpu": "50m", "memory": "256Mi"}, "limits": {"memory": "512Mi"}});
    object["spec"]["podTemplate"] = json!({"spec": {"containers": [{"name": "postgres", "resources": resources}]}});
    object
}

/// The versions of the images that were built here, by major version; installed.
fn versions(cluster: &Cluster) -> BTreeMap<u32, String> {
    let cache = std::env::var("XDG_CACHE_HOME")
        .unwrap_or_else(|_| format!("{}/.cache", std::env::var("HOME").expect("a home")));
    let install = |major: u32| {
        let file = format!("{cache}/pgrekey/images/postgres-{major}.version");
        let version = std::fs::read_to_string(&file).expect("`make images` was run").trim().to_owned();
        let object = json!({
            "apiVersion": "catalog.kubedb.com/v1alpha1", "kind": "PostgresVersion", "metadata": {"name": version},
            "spec": {
                "version": version,
                "db": {"image": format!("pgrekey.local/postgres:{major}"), "baseOS": "debian"},
                "exporter": {"image": "pgrekey.local/postgres-exporter:1"},
                "securityContext": {"runAsUser": 999},
            },
        });
        let arguments = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
        cluster.kubectl(&arguments, &object.to_string()).must_succeed();
        (major, version)
    };
    [17, 18].map(install).into()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_lives_and_ends_as_its_spec_says() {
    let Some(cluster) = Cluster::connect().await else { return };
    let versions = versions(&cluster);
    let place = Place::make(&cluster, "prov-life");
    let loops = Loops::start(&cluster, place.namespace);
    place.apply(&example("ha-postgres.yaml", "ha-postgres", 3, &versions[&17]));
    let took = place.until_phase("ha-postgres", "Ready", 180).await;
    println!("three pods without TLS: Ready after {:.1} s", took.as_secs_f32());
    loops.stop().await;
}
