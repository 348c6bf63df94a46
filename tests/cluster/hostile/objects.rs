//! Manifests that ask for more than their author may have.

use serde_json::{Value, json};

use super::NAMESPACE;
use super::databases::UNREADABLE;
use crate::harness::{TestNamespace, example};

/// What is changed in a manifest, and what the refusal must name.
type Wish = (&'static str, fn(&mut Value), &'static str);

fn container(object: &mut Value) -> &mut Value {
    object
        .pointer_mut("/spec/podTemplate/spec/containers/0")
        .expect("a container")
}

const WISHES: [Wish; 12] = [
    (
        "two billion pods",
        |o| o["spec"]["replicas"] = json!(2_000_000_000),
        "spec.replicas",
    ),
    (
        "thirty-three pods",
        |o| o["spec"]["replicas"] = json!(33),
        "spec.replicas",
    ),
    (
        "two billion synchronous standbys",
        |o| {
            o["spec"]["streamingMode"] = json!("Synchronous");
            o["spec"]["synchronousReplicationConfig"] = json!({"numSyncReplicas": 2_000_000_000});
        },
        "numSyncReplicas",
    ),
    (
        "the node",
        |o| container(o)["securityContext"] = json!({"privileged": true}),
        "[pod-security]",
    ),
    (
        "the node, by the exporter",
        |o| {
            let exporter = json!({"name": "exporter", "securityContext": {"runAsUser": 0}});
            o["spec"]["podTemplate"]["spec"]["containers"]
                .as_array_mut()
                .expect("a list")
                .push(exporter);
        },
        "[pod-security]",
    ),
    (
        "a capability",
        |o| container(o)["securityContext"] = json!({"capabilities": {"add": ["SYS_ADMIN"]}}),
        "[pod-security]",
    ),
    (
        "an unconfined pod",
        |o| {
            o["spec"]["podTemplate"]["spec"]["securityContext"] =
                json!({"seccompProfile": {"type": "Unconfined"}});
        },
        "[pod-security]",
    ),
    (
        "the rights of somebody else",
        |o| o["spec"]["podTemplate"]["spec"]["serviceAccountName"] = json!("default"),
        "serviceAccountName",
    ),
    (
        "an address of somebody else",
        |o| {
            o["spec"]["serviceTemplates"] =
                json!([{"alias": "primary", "spec": {"externalIPs": ["192.0.2.1"]}}]);
        },
        "externalIPs",
    ),
    (
        "the CA of the namespace",
        |o| {
            o["spec"]["tls"] = json!({
                "issuerRef": {"apiGroup": "cert-manager.io", "kind": "Issuer", "name": "pg-issuer"},
                "certificates": [{"alias": "server", "secretName": "postgres-ca"}],
            });
        },
        "postgres-ca",
    ),
    (
        "a thousand and one names",
        |o| {
            let names: Vec<String> = (0..1001).map(|n| format!("n{n}.example.com")).collect();
            o["spec"]["tls"] = json!({
                "issuerRef": {"apiGroup": "cert-manager.io", "kind": "Issuer", "name": "pg-issuer"},
                "certificates": [{"alias": "server", "dnsNames": names}],
            });
        },
        "dnsNames",
    ),
    (
        "no pause between checks",
        |o| o["spec"]["healthChecker"] = json!({"periodSeconds": 2_000_000_000}),
        "periodSeconds",
    ),
];

pub(super) fn objects_of_strangers_are_refused_with_their_reason(
    namespace: &TestNamespace<'_>,
    version: &str,
) {
    let create = ["-n", NAMESPACE, "create", "--dry-run=server", "-f", "-"];
    let refusal = |object: &Value| {
        namespace
            .cluster
            .kubectl(&create, &object.to_string())
            .must_fail()
    };
    for (wish, ask, named) in WISHES {
        let mut object = example("ha-postgres.yaml", "stranger", 1, version);
        ask(&mut object);
        let said = refusal(&object);
        assert!(said.contains(named), "{wish}: {said}");
    }
    for line in UNREADABLE {
        let mut object = example("ha-postgres.yaml", "stranger", 1, version);
        object["spec"]["configuration"] = json!({"inline": {"user.conf": line}});
        let said = refusal(&object);
        assert!(said.contains("[configuration-valid]"), "{line}: {said}");
    }
}
