//! Other people's objects in the cluster: budgets, requests that wait for ever, definitions that
//! come and go.

use std::time::Duration;

use serde_json::{Value, json};

use super::bystander::Bystander;
use super::{NAMESPACE, VICTIM};
use crate::harness::{TestNamespace, ended, example, issuers};

fn restart(name: &str) -> Value {
    json!({
        "apiVersion": "ops.kubedb.com/v1alpha1", "kind": "PostgresOpsRequest", "metadata": {"name": name},
        "spec": {"type": "Restart", "databaseRef": {"name": VICTIM}},
    })
}

pub(super) async fn a_second_budget_is_named(namespace: &TestNamespace<'_>) {
    let select = format!("app.kubernetes.io/instance={VICTIM}");
    namespace.kubectl(&[
        "create",
        "pdb",
        "extra",
        "--selector",
        &select,
        "--min-available=1",
    ]);
    namespace.apply(&restart("with-two-budgets"));
    let said = || namespace.path("pgops/with-two-budgets", ".status");
    namespace
        .until("the second budget is named", 60, || {
            said().contains("extra")
        })
        .await;
    assert_eq!(
        namespace.condition(&format!("pg/{VICTIM}"), "Paused", "status"),
        "",
        "nothing is paused for it"
    );
    namespace.kubectl(&["delete", "pdb", "extra"]);
    assert_eq!(
        ended(namespace, "with-two-budgets", 120).await,
        "Successful"
    );
    namespace.until_phase(VICTIM, "Ready", 60).await;
}

/// A PetSet with a database's labels that no database controls: whoever may make one may not
/// therefore make pods.
pub(super) fn a_pet_set_without_an_owner_gets_no_pods(namespace: &TestNamespace<'_>) {
    let mut set: Value =
        serde_json::from_str(&namespace.kubectl(&["get", "petset", VICTIM, "-o", "json"]))
            .expect("JSON");
    set["metadata"] = json!({"name": "stray", "labels": set["metadata"]["labels"]});
    set["spec"]["template"]["metadata"]["labels"]["stray"] = json!("true");
    set["status"] = Value::Null;
    namespace.apply(&set);
}

/// By now it would have some.
pub(super) fn it_has_got_none(namespace: &TestNamespace<'_>) {
    assert_eq!(namespace.path("sts/stray", ".metadata.name"), "");
    namespace.kubectl(&["delete", "petset", "stray"]);
}

pub(super) async fn ten_waiting_requests_stop_no_other(
    namespace: &TestNamespace<'_>,
    version: &str,
) {
    let other = &TestNamespace::make(namespace.cluster, "hostile-waiting");
    issuers(other);
    let names: Vec<String> = (0..10).map(|n| format!("waits-{n}")).collect();
    for name in &names {
        // No node has room for it.
        let mut database = example("ha-postgres.yaml", name, 1, version);
        let container = database
            .pointer_mut("/spec/podTemplate/spec/containers/0")
            .expect("a container");
        container["resources"]["requests"]["cpu"] = json!("64");
        other.apply(&database);
        other.apply(&json!({
            "apiVersion": "ops.kubedb.com/v1alpha1", "kind": "PostgresOpsRequest", "metadata": {"name": name},
            "spec": {
                "type": "ReconfigureTLS", "databaseRef": {"name": name}, "apply": "Always", "timeout": "24h",
                "tls": {"issuerRef": {"apiGroup": "cert-manager.io", "kind": "Issuer", "name": "empty-issuer"}},
            },
        }));
    }
    let begun = || other.kubectl(&["get", "pgops", "-o", "jsonpath={.items[*].status.phase}"]);
    other
        .until("they wait", 60, || {
            begun().split_whitespace().count() == names.len()
        })
        .await;
    namespace.apply(&restart("beside-ten"));
    assert_eq!(
        ended(namespace, "beside-ten", 120).await,
        "Successful",
        "{}",
        begun()
    );
    other.clear();
}

/// What cert-manager's kinds are called, and what the suite needs of them again.
const KINDS: [&str; 2] = ["clusterissuers.cert-manager.io", "issuers.cert-manager.io"];

pub(super) async fn without_cert_manager_plain_databases_are_made(
    namespace: &TestNamespace<'_>,
    version: &str,
) {
    let definitions = namespace
        .cluster
        .kubectl(&[&["get", "crd", "-o", "json"], &KINDS[..]].concat(), "")
        .must_succeed();
    let kinds = KINDS.join(",");
    let objects = namespace
        .cluster
        .kubectl(&["get", &kinds, "-A", "-o", "json"], "")
        .must_succeed();
    namespace
        .cluster
        .kubectl(&[&["delete", "crd", "--wait"], &KINDS[..]].concat(), "")
        .must_succeed();
    let back = Restored {
        namespace,
        definitions: bare(&definitions),
        objects: bare(&objects),
    };

    namespace
        .cluster
        .kubectl(
            &[
                "rollout",
                "restart",
                "deployment",
                "pgrekey",
                "-n",
                "pgrekey",
            ],
            "",
        )
        .must_succeed();
    let rolled = [
        "rollout",
        "status",
        "deployment",
        "pgrekey",
        "-n",
        "pgrekey",
        "--timeout=90s",
    ];
    namespace.cluster.kubectl(&rolled, "").must_succeed();
    let bystander = Bystander::start(namespace.cluster, version);
    namespace.apply(&example("ha-postgres.yaml", "plain", 1, version));
    let mut with_tls = example("tls-postgres.yaml", "with-tls", 1, version);
    with_tls["spec"]["tls"] = json!({"issuerRef": {"apiGroup": "cert-manager.io", "kind": "Issuer", "name": "pg-issuer"}});
    let create = ["-n", NAMESPACE, "create", "--dry-run=server", "-f", "-"];
    let said = namespace
        .cluster
        .kubectl(&create, &with_tls.to_string())
        .must_fail();
    assert!(
        said.contains("cert-manager"),
        "what is missing is said: {said}"
    );
    namespace.until_phase("plain", "Ready", 120).await;
    namespace.kubectl(&["delete", "pg", "plain", "--timeout=90s"]);

    drop(back);
    let admitted = || {
        namespace
            .cluster
            .kubectl(&create, &with_tls.to_string())
            .succeeded()
    };
    namespace
        .until(
            "issuers are known again, and nobody restarted pgrekey",
            90,
            admitted,
        )
        .await;
    bystander.stop().await;
}

/// Objects without what the API server has added to them.
fn bare(list: &str) -> Value {
    let mut list: Value = serde_json::from_str(list).expect("JSON");
    for object in list["items"].as_array_mut().expect("a list") {
        if let Some(object) = object.as_object_mut() {
            object.remove("status");
        }
        if let Some(metadata) = object["metadata"].as_object_mut() {
            metadata.retain(|key, _| {
                matches!(
                    key.as_str(),
                    "name" | "namespace" | "labels" | "annotations"
                )
            });
        }
    }
    list
}

/// Brings back what was taken away, also when the test fails.
struct Restored<'a, 'b> {
    namespace: &'a TestNamespace<'b>,
    definitions: Value,
    objects: Value,
}

impl Drop for Restored<'_, '_> {
    fn drop(&mut self) {
        let cluster = self.namespace.cluster;
        let apply = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
        cluster.kubectl(&apply, &self.definitions.to_string());
        let established = [
            &[
                "wait",
                "--for=condition=Established",
                "--timeout=30s",
                "crd",
            ],
            &KINDS[..],
        ]
        .concat();
        cluster.kubectl(&established, "");
        for _ in 0..20 {
            // The API server serves a kind a moment after its definition is established.
            if cluster
                .kubectl(&apply, &self.objects.to_string())
                .succeeded()
            {
                return;
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    }
}
