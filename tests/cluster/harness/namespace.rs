//! A namespace of one test, and what is in it.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::runtime::Handle;

use super::cluster::Cluster;
use super::json_path;

/// A namespace of the tests.
pub(crate) struct TestNamespace<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) name: &'static str,
}

impl<'a> TestNamespace<'a> {
    pub(crate) fn make(cluster: &'a Cluster, name: &'static str) -> Self {
        cluster
            .kubectl(
                &["delete", "namespace", name, "--ignore-not-found", "--wait"],
                "",
            )
            .must_succeed();
        let labels = json!({"pod-security.kubernetes.io/enforce": "restricted"});
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}});
        cluster.apply(&object.to_string());
        Self { cluster, name }
    }

    /// Takes its requests and databases away, which takes somebody who deals with them.
    pub(crate) fn clear(&self) {
        self.kubectl(&["delete", "pgops", "--all", "--timeout=60s"]);
        self.kubectl(&["delete", "pg", "--all", "--timeout=90s"]);
    }

    pub(crate) fn kubectl(&self, arguments: &[&str]) -> String {
        let all: Vec<&str> = ["-n", self.name].iter().chain(arguments).copied().collect();
        self.cluster.kubectl(&all, "").must_succeed()
    }

    pub(crate) fn apply(&self, object: &Value) {
        self.cluster.apply_in(self.name, &object.to_string());
    }

    pub(crate) fn patch(&self, name: &str, spec: &Value) {
        self.kubectl(&[
            "patch",
            "pg",
            name,
            "--type=merge",
            "-p",
            &json!({"spec": spec}).to_string(),
        ]);
    }

    /// What kubectl prints for this path of this object; empty when there is none.
    pub(crate) fn path(&self, object: &str, path: &str) -> String {
        let (kind, name) = object.split_once('/').expect("KIND/NAME");
        let object = self.get(&format!("{}/{name}", api_path(kind, self.name)));
        let found = object
            .iter()
            .flat_map(|object| json_path::select(object, path));
        found.map(json_path::text).collect::<Vec<_>>().join(" ")
    }

    /// The objects of this kind that this selects.
    pub(crate) fn list(&self, kind: &str, selector: &str) -> Vec<Value> {
        let selector = selector.replace('=', "%3D").replace(',', "%2C");
        let list = self.get(&format!(
            "{}?labelSelector={selector}",
            api_path(kind, self.name)
        ));
        let items = list.and_then(|mut list| list.get_mut("items").map(Value::take));
        serde_json::from_value(items.unwrap_or_else(|| json!([]))).expect("a list")
    }

    /// What the API server has at this path, without a process of kubectl for each question: tests
    /// ask five times a second.
    fn get(&self, path: &str) -> Option<Value> {
        let request = http::Request::get(path).body(vec![]).expect("a request");
        let asked = self.cluster.client.request::<Value>(request);
        let answer = tokio::task::block_in_place(|| Handle::current().block_on(asked));
        match answer {
            Ok(object) => Some(object),
            Err(kube::Error::Api(status)) if status.is_not_found() => None,
            Err(error) => panic!("{path}: {error}"),
        }
    }

    /// A field of this condition of this object; empty when it has none of this type.
    pub(crate) fn condition(&self, object: &str, type_: &str, field: &str) -> String {
        self.path(
            object,
            &format!(".status.conditions[?(@.type==\"{type_}\")].{field}"),
        )
    }

    /// Waits until something holds, and says how long that took.
    pub(crate) async fn until(
        &self,
        what: &str,
        seconds: u64,
        holds: impl Fn() -> bool,
    ) -> Duration {
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

    pub(crate) async fn until_phase(&self, name: &str, phase: &str, seconds: u64) -> Duration {
        self.until(&format!("{name} is {phase}"), seconds, || {
            self.path(&format!("pg/{name}"), ".status.phase") == phase
        })
        .await
    }
}

/// Names of what there is of these kinds.
pub(crate) fn names(namespace: &TestNamespace<'_>, kinds: &str) -> Vec<String> {
    namespace
        .kubectl(&["get", kinds, "-o", "name"])
        .lines()
        .map(ToOwned::to_owned)
        .collect()
}

/// Where the API server has the objects of this kind, by a name that kubectl knows too.
fn api_path(kind: &str, namespace: &str) -> String {
    let (group, plural) = match kind {
        "pg" => ("apis/kubedb.com/v1", "postgreses"),
        "pgops" => ("apis/ops.kubedb.com/v1alpha1", "postgresopsrequests"),
        "petset" => ("apis/apps.k8s.appscode.com/v1", "petsets"),
        "sts" => ("apis/apps/v1", "statefulsets"),
        "certificate" => ("apis/cert-manager.io/v1", "certificates"),
        "svc" | "service" => ("api/v1", "services"),
        "cm" | "configmap" => ("api/v1", "configmaps"),
        "secret" => ("api/v1", "secrets"),
        "pod" => ("api/v1", "pods"),
        "pvc" => ("api/v1", "persistentvolumeclaims"),
        other => panic!("add the path of {other} here"),
    };
    format!("/{group}/namespaces/{namespace}/{plural}")
}
