//! The wall: what the operator's token may write by RBAC, and may not by the chart's policies.
//!
//! All that is tried is tried as a dry run, so that it can be tried until the policies are in
//! force.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, EvictParams, GroupVersionKind, Patch,
    PatchParams, PostParams,
};
use serde_json::{Value, json};

use crate::harness::{Cluster, Rights, ca, eventually};
use crate::support::Helm;

/// Where the operator of this suite would live.
const OWN: &str = "wall";
/// Where its databases would be, and what is not theirs.
const NAMESPACE: &str = "walled";
/// Namespaces whose pods Kubernetes itself judges, by the level that they are named after.
const JUDGED: [&str; 2] = ["baseline", "restricted"];
/// The policy about what is no database's.
const OBJECTS: &str = "objects";

/// A kind, by the name of its resources.
#[derive(Clone, Copy, Debug)]
struct Kind {
    version: &'static str,
    name: &'static str,
    plural: &'static str,
}

const fn kind(version: &'static str, name: &'static str, plural: &'static str) -> Kind {
    Kind {
        version,
        name,
        plural,
    }
}

const KINDS: [Kind; 16] = [
    // The pods need it.
    kind("v1", "ServiceAccount", "serviceaccounts"),
    kind("v1", "ConfigMap", "configmaps"),
    kind("v1", "PersistentVolumeClaim", "persistentvolumeclaims"),
    kind("v1", "Pod", "pods"),
    kind("v1", "Secret", "secrets"),
    kind("v1", "Service", "services"),
    kind("apps/v1", "StatefulSet", "statefulsets"),
    kind("apps.k8s.appscode.com/v1", "PetSet", "petsets"),
    kind("cert-manager.io/v1", "Certificate", "certificates"),
    kind(
        "monitoring.coreos.com/v1",
        "ServiceMonitor",
        "servicemonitors",
    ),
    kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets"),
    kind("rbac.authorization.k8s.io/v1", "Role", "roles"),
    kind(
        "rbac.authorization.k8s.io/v1",
        "RoleBinding",
        "rolebindings",
    ),
    kind("kubedb.com/v1", "Postgres", "postgreses"),
    kind(
        "ops.kubedb.com/v1alpha1",
        "PostgresOpsRequest",
        "postgresopsrequests",
    ),
    kind(
        "admissionregistration.k8s.io/v1",
        "ValidatingWebhookConfiguration",
        "validatingwebhookconfigurations",
    ),
];

fn known(plural: &str) -> Kind {
    *KINDS
        .iter()
        .find(|kind| kind.plural == plural)
        .unwrap_or_else(|| panic!("add an example of {plural} here"))
}

/// What is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Create,
    Merge,
    Apply,
    MergeStatus,
    Delete,
    Evict,
}

/// Whoever asks the API server.
struct Asker(Client);

impl Asker {
    fn api(&self, kind: Kind, namespace: &str) -> Api<DynamicObject> {
        let (group, version) = kind.version.split_once('/').unwrap_or(("", kind.version));
        let resource = ApiResource::from_gvk_with_plural(
            &GroupVersionKind::gvk(group, version, kind.name),
            kind.plural,
        );
        if kind.version.starts_with("admissionregistration") {
            Api::all_with(self.0.clone(), &resource)
        } else {
            Api::namespaced_with(self.0.clone(), namespace, &resource)
        }
    }

    /// Tries it on the object, and says what the API server says against it, with all causes.
    async fn dry(&self, verb: Verb, object: &Value) -> Result<(), String> {
        let text = |path: &str| {
            object
                .pointer(path)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        let kind = *KINDS
            .iter()
            .find(|kind| kind.name == text("/kind"))
            .expect("a kind of the table");
        let (name, namespace) = (text("/metadata/name"), text("/metadata/namespace"));
        let api = self.api(kind, namespace);
        let post = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        let patch = PatchParams {
            dry_run: true,
            ..PatchParams::default()
        };
        let answer = match verb {
            Verb::Create => {
                let object = serde_json::from_value(object.clone()).expect("an object");
                api.create(&post, &object).await.map(drop)
            }
            Verb::Merge => api
                .patch(name, &patch, &Patch::Merge(object))
                .await
                .map(drop),
            Verb::MergeStatus => api
                .patch_status(name, &patch, &Patch::Merge(object))
                .await
                .map(drop),
            Verb::Apply => {
                let patch = PatchParams {
                    dry_run: true,
                    force: true,
                    ..PatchParams::apply("wall")
                };
                api.patch(name, &patch, &Patch::Apply(object))
                    .await
                    .map(drop)
            }
            Verb::Delete => api
                .delete(
                    name,
                    &DeleteParams {
                        dry_run: true,
                        ..DeleteParams::default()
                    },
                )
                .await
                .map(drop),
            Verb::Evict => {
                let pods = Api::<Pod>::namespaced(self.0.clone(), namespace);
                let eviction = EvictParams {
                    post_options: post,
                    ..EvictParams::default()
                };
                pods.evict(name, &eviction).await.map(drop)
            }
        };
        match answer {
            Err(kube::Error::Api(status)) => Err(format!("{status:?}")),
            answer => {
                answer.unwrap_or_else(|error| panic!("{verb:?} {object}: {error}"));
                Ok(())
            }
        }
    }

    /// It is refused by one of these policies of the wall, within half a minute: they are in force
    /// a little after they are made. The API server names one of those that refuse.
    async fn is_refused<const N: usize>(&self, policies: [&str; N], verb: Verb, object: &Value) {
        let policies = policies
            .map(|policy| format!("ValidatingAdmissionPolicy '{OWN}-pgrekey-wall-{policy}'"));
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let answer = self.dry(verb, object).await;
            if answer
                .as_ref()
                .is_err_and(|why| policies.iter().any(|policy| why.contains(policy)))
            {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{verb:?} {object} is not refused by {policies:?}: {answer:?}"
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    async fn is_done(&self, verb: Verb, object: &Value) {
        self.dry(verb, object)
            .await
            .unwrap_or_else(|why| panic!("{verb:?} {object}: {why}"));
    }
}

/// The same object with something else in these places.
fn with(mut object: Value, changes: &[(&str, Value)]) -> Value {
    for (path, value) in changes {
        let mut at = &mut object;
        for step in path.split('/').skip(1) {
            at = match step.parse::<usize>() {
                Ok(index) => &mut at[index],
                Err(_) => &mut at[step.replace("~1", "/")],
            };
        }
        at.clone_from(value);
    }
    object
}

fn labels() -> Value {
    json!({"app.kubernetes.io/name": "postgreses.kubedb.com", "app.kubernetes.io/instance": "pg"})
}

/// A pod that Pod Security `restricted` lets through, and that no node is ever given.
fn pod_spec(account: &str) -> Value {
    let container = |name: &str| {
        let security =
            json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
        json!({"name": name, "image": "none.invalid/none", "securityContext": security})
    };
    let security = json!({"runAsNonRoot": true, "runAsUser": 999, "seccompProfile": {"type": "RuntimeDefault"}});
    json!({
        "schedulingGates": [{"name": "pgrekey.dev/never"}], "securityContext": security, "serviceAccountName": account,
        "containers": [container("postgres")], "initContainers": [container("init")],
    })
}

/// An object of the database of this name, as the operator would write it.
fn object(kind: Kind, name: &str) -> Value {
    let set = || {
        let template = json!({"metadata": {"labels": labels()}, "spec": pod_spec(name)});
        json!({"replicas": 0, "serviceName": "pg-pods", "selector": {"matchLabels": labels()}, "template": template})
    };
    let body = match kind.plural {
        "persistentvolumeclaims" => json!({"spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": "none", "resources": {"requests": {"storage": "1Mi"}},
        }}),
        "pods" => json!({"spec": pod_spec(name)}),
        "secrets" => json!({"type": "Opaque", "data": {"key": "dmFsdWU="}}),
        "services" => json!({"spec": {"selector": labels(), "ports": [{"port": 5432}]}}),
        "statefulsets" | "petsets" => json!({"spec": set()}),
        "certificates" => {
            json!({"spec": {"secretName": format!("{name}-cert"), "dnsNames": ["pg"], "issuerRef": {"name": "none"}}})
        }
        "servicemonitors" => json!({"spec": {
            "selector": {"matchLabels": labels()}, "namespaceSelector": {"matchNames": [NAMESPACE]},
            "endpoints": [{"port": "metrics", "path": "/metrics", "scheme": "https", "tlsConfig": {"serverName": "pg-stats"}}],
        }}),
        "poddisruptionbudgets" => {
            json!({"spec": {"maxUnavailable": 1, "selector": {"matchLabels": labels()}}})
        }
        "roles" => json!({"rules": [
            {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create", "list", "watch"]},
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "patch"], "resourceNames": [format!("{name}-0")]},
        ]}),
        "rolebindings" => json!({
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": NAMESPACE}],
        }),
        "postgreses" => json!({"spec": {"version": "none"}}),
        "postgresopsrequests" => {
            json!({"spec": {"type": "Restart", "databaseRef": {"name": "none"}}})
        }
        _ => json!({}),
    };
    let head = json!({"apiVersion": kind.version, "kind": kind.name, "metadata": {
        "name": name, "namespace": NAMESPACE, "labels": labels(),
    }});
    let (Value::Object(mut all), Value::Object(body)) = (head, body) else {
        unreachable!("both are objects")
    };
    all.extend(body);
    Value::Object(all)
}

/// The same, of a database that is not there yet.
fn new(plural: &str) -> Value {
    object(known(plural), "new")
}

/// The same, of a database that is there.
fn there(plural: &str) -> Value {
    object(known(plural), "pg")
}

/// The same object, as somebody made it who has nothing to do with databases.
fn foreign(kind: Kind) -> Value {
    with(
        object(kind, "foreign"),
        &[("/metadata/labels", json!({"app": "web"}))],
    )
}

/// A change of the metadata of this object, and of nothing else.
fn change(object: &Value, metadata: &Value) -> Value {
    let head =
        json!({"apiVersion": object["apiVersion"], "kind": object["kind"], "metadata": metadata});
    let (name, namespace) = (
        object["metadata"]["name"].clone(),
        object["metadata"]["namespace"].clone(),
    );
    with(
        head,
        &[("/metadata/name", name), ("/metadata/namespace", namespace)],
    )
}

/// What has no label of a database, because it is one, asks for one, or tells of one.
const NO_DATABASES: [&str; 5] = [
    "postgreses",
    "postgreses/status",
    "postgresopsrequests",
    "postgresopsrequests/status",
    "events",
];

/// What the chart's RBAC lets the operator write of databases' objects: resource and verb.
fn writes() -> BTreeSet<(String, String)> {
    let template = [
        "template",
        OWN,
        "charts/pgrekey",
        "--show-only",
        "templates/rbac.yaml",
    ];
    let text = Helm::find()
        .expect("a dev cluster has a helm")
        .run(&template)
        .expect("a rendering");
    let roles = serde_saphyr::from_multiple::<Value>(&text).expect("YAML");
    let databases = |role: &&Value| {
        role["metadata"]["name"]
            .as_str()
            .is_some_and(|name| name.ends_with("-databases"))
    };
    let rules = roles
        .iter()
        .filter(databases)
        .flat_map(|role| role["rules"].as_array().into_iter().flatten());
    let texts = |value: &Value| -> Vec<String> {
        serde_json::from_value(value.clone()).expect("a list of texts")
    };
    let all = rules.flat_map(|rule| {
        let verbs = texts(&rule["verbs"]);
        texts(&rule["resources"]).into_iter().flat_map(move |of| {
            verbs
                .clone()
                .into_iter()
                .map(move |verb| (of.clone(), verb))
        })
    });
    all.filter(|(of, verb)| {
        !["get", "list", "watch"].contains(&verb.as_str()) && !NO_DATABASES.contains(&of.as_str())
    })
    .collect()
}

/// What the test leaves behind otherwise.
struct Built<'a>(&'a Cluster);

impl Drop for Built<'_> {
    fn drop(&mut self) {
        let ours = format!("app.kubernetes.io/instance={OWN}");
        let kinds = "validatingadmissionpolicybindings,validatingadmissionpolicies,clusterrolebindings,clusterroles";
        self.0.kubectl(&["delete", kinds, "-l", &ours], "");
        self.0.kubectl(
            &["delete", "validatingwebhookconfiguration", "-l", &ours],
            "",
        );
        self.0.kubectl(
            &[
                "delete",
                "crd",
                "servicemonitors.monitoring.coreos.com",
                "-l",
                &ours,
            ],
            "",
        );
        self.0.kubectl(
            &[
                "-n",
                NAMESPACE,
                "patch",
                "pg",
                "foreign",
                "--type=merge",
                "-p",
                NOTHING_HOLDS,
            ],
            "",
        );
        self.0
            .kubectl(&["delete", "namespace", OWN, NAMESPACE, "--wait=false"], "");
        let judged = JUDGED.map(namespace_of);
        self.0.kubectl(
            &[
                "delete",
                "namespace",
                &judged[0],
                &judged[1],
                "--wait=false",
            ],
            "",
        );
    }
}

const NOTHING_HOLDS: &str = r#"{"metadata": {"finalizers": null}}"#;

fn namespace_of(level: &str) -> String {
    format!("{NAMESPACE}-{level}")
}

/// A definition as Prometheus Operator's is, as far as it matters here. The dev cluster has none.
fn service_monitors() -> Value {
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "servicemonitors.monitoring.coreos.com", "labels": {"app.kubernetes.io/instance": OWN}},
        "spec": {
            "group": "monitoring.coreos.com", "scope": "Namespaced",
            "names": {"kind": "ServiceMonitor", "plural": "servicemonitors", "singular": "servicemonitor"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", "properties": {"spec": schema},
            }}}],
        },
    })
}

/// A registration that calls nobody.
fn registration() -> Value {
    let service = json!({"name": "wall-pgrekey", "namespace": OWN, "path": "/", "port": 443});
    let rule = json!({"apiGroups": ["none.invalid"], "apiVersions": ["v1"], "resources": ["none"], "operations": ["CREATE"]});
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "validators.kubedb.com", "labels": {"app.kubernetes.io/instance": OWN}},
        "webhooks": [{
            "name": "postgreswebhook.validators.kubedb.com", "admissionReviewVersions": ["v1"], "sideEffects": "None",
            "clientConfig": {"service": service}, "rules": [rule], "failurePolicy": "Ignore",
        }],
    })
}

#[tokio::test]
async fn the_operators_token_writes_nothing_but_databases() {
    // Nobody else is to meet a ServiceMonitor, or this registration.
    let Some(cluster) = Cluster::connect_alone().await else {
        return;
    };
    let _built = Built(&cluster);
    build(&cluster);
    let operator =
        Asker(Client::try_from(Rights::give(&cluster, OWN).config().await).expect("a client"));
    objects_of_others_are_not_written(&operator).await;
    objects_of_a_database_are_written(&operator).await;
    objects_that_reach_further_are_refused(&operator).await;
    pods_are_as_secure_as_kubernetes_wants_them(&cluster, &operator).await;
    every_expression_fits_its_kinds(&cluster).await;
}

/// Of each kind a foreign object and a database's.
fn build(cluster: &Cluster) {
    let namespace = |name: &str, labels: Value| {
        cluster
            .kubectl(
                &["delete", "namespace", name, "--ignore-not-found", "--wait"],
                "",
            )
            .must_succeed();
        cluster.apply(
            &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}).to_string(),
        );
    };
    namespace(NAMESPACE, json!({}));
    for level in JUDGED {
        namespace(
            &namespace_of(level),
            json!({"pod-security.kubernetes.io/enforce": level}),
        );
        cluster.apply(
            &with(
                new("serviceaccounts"),
                &[("/metadata/namespace", json!(namespace_of(level)))],
            )
            .to_string(),
        );
    }
    cluster.apply(&service_monitors().to_string());
    cluster
        .kubectl(
            &[
                "wait",
                "--for=condition=Established",
                "--timeout=30s",
                "crd",
                "--all",
            ],
            "",
        )
        .must_succeed();
    cluster.apply(&registration().to_string());
    // RBAC wants to see what is bound.
    cluster.apply(&new("roles").to_string());
    let (registrations, databases) = KINDS.split_last().expect("kinds");
    assert_eq!(registrations.name, "ValidatingWebhookConfiguration");
    let held = [("/metadata/finalizers", json!(["example.com/held"]))];
    for kind in databases {
        let held = if kind.plural == "postgreses" {
            &held[..]
        } else {
            &[]
        };
        cluster.apply(&with(foreign(*kind), held).to_string());
        cluster.apply(&object(*kind, "pg").to_string());
    }
}

/// Each kind and verb that RBAC gives, on an object that is no database's: as it is, and with all
/// added that would make it one's.
async fn objects_of_others_are_not_written(operator: &Asker) {
    let owner = json!([{"apiVersion": "kubedb.com/v1", "kind": "Postgres", "name": "pg", "uid": "1", "controller": true}]);
    for (resource, verb) in writes() {
        let (plural, part) = resource.split_once('/').unwrap_or((&resource, ""));
        let foreign = foreign(known(plural));
        let adorned = json!({"labels": labels(), "ownerReferences": owner});
        let [plain, adorned] = [json!({"annotations": {"pgrekey.dev/x": "y"}}), adorned]
            .map(|new| change(&foreign, &new));
        match (verb.as_str(), part) {
            ("create", "eviction") => {
                operator
                    .is_refused(["evictions"], Verb::Evict, &foreign)
                    .await;
            }
            ("create", "") => {
                let unlabelled = with(new(plural), &[("/metadata/labels", json!({"app": "web"}))]);
                operator
                    .is_refused([OBJECTS], Verb::Create, &unlabelled)
                    .await;
            }
            ("delete", "") => operator.is_refused([OBJECTS], Verb::Delete, &foreign).await,
            ("patch", "status") => {
                let status = |object: Value| {
                    with(
                        object,
                        &[("/status", json!({"conditions": [], "replicas": 0}))],
                    )
                };
                operator
                    .is_refused([OBJECTS], Verb::MergeStatus, &status(plain))
                    .await;
                operator
                    .is_refused([OBJECTS], Verb::MergeStatus, &status(adorned))
                    .await;
            }
            // Whoever may patch may try to update, and gets here by the same way.
            ("patch" | "update", "") => {
                operator.is_refused([OBJECTS], Verb::Merge, &plain).await;
                // Of pods, no label is changed at all.
                operator
                    .is_refused([OBJECTS, "pods"], Verb::Merge, &adorned)
                    .await;
                operator
                    .is_refused([OBJECTS, "pods"], Verb::Apply, &adorned)
                    .await;
            }
            other => panic!("{resource}: {other:?} is not tried here"),
        }
    }
}

/// The same kinds and verbs, on what is a database's.
async fn objects_of_a_database_are_written(operator: &Asker) {
    let own = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "pgrekey-webhook", "namespace": OWN}});
    operator.is_done(Verb::Create, &own).await;
    for (resource, verb) in writes() {
        let (plural, part) = resource.split_once('/').unwrap_or((&resource, ""));
        let ours = there(plural);
        let noted = change(&ours, &json!({"annotations": {"pgrekey.dev/x": "y"}}));
        match (verb.as_str(), part) {
            ("create", "eviction") => operator.is_done(Verb::Evict, &ours).await,
            // There is a Role `new` already.
            ("create", _) if plural == "roles" => {
                operator
                    .is_done(Verb::Create, &object(known(plural), "newest"))
                    .await;
            }
            ("create", _) => operator.is_done(Verb::Create, &new(plural)).await,
            ("delete", _) => operator.is_done(Verb::Delete, &ours).await,
            ("patch", "status") => {
                operator
                    .is_done(
                        Verb::MergeStatus,
                        &with(
                            noted,
                            &[("/status", json!({"conditions": [], "replicas": 0}))],
                        ),
                    )
                    .await;
            }
            _ => operator.is_done(Verb::Merge, &noted).await,
        }
    }
}

/// A change of a database's pod.
fn pod(metadata: &Value) -> Value {
    change(&there("pods"), metadata)
}

/// Other finalizers on an object that has one of somebody else's.
fn finalizers(plural: &str, all: &Value) -> Value {
    change(&foreign(known(plural)), &json!({"finalizers": all}))
}

/// What is labelled as a database's, and does something else: the policy that finds out, and how it
/// is tried.
#[expect(clippy::too_many_lines, reason = "it is a table")]
fn more_than_a_databases_objects_do() -> Vec<(&'static str, Verb, Value)> {
    let token = json!({"kubernetes.io/service-account.name": "foreign"});
    let token = [
        ("/type", json!("kubernetes.io/service-account-token")),
        ("/metadata/annotations", token),
    ];
    let elsewhere = |plural: &str, namespace: &str| {
        with(new(plural), &[("/metadata/namespace", json!(namespace))])
    };
    let image = json!({"containers": [{"name": "postgres", "image": "evil"}]});
    let web = json!({"matchLabels": {"app": "web"}});
    let name = [
        ("/spec/type", json!("ExternalName")),
        ("/spec/externalName", json!("a.invalid")),
    ];
    let scraped = json!({"port": "metrics", "bearerTokenFile": "/var/run/secrets/kubernetes.io/serviceaccount/token"});
    let into = |certificate: Value| with(certificate, &[("/spec/secretName", json!("foreign"))]);
    let registered = |path: &str, value: &str| with(registration(), &[(path, json!(value))]);
    vec![
        (
            OBJECTS,
            Verb::Create,
            elsewhere("configmaps", "kube-system"),
        ),
        (OBJECTS, Verb::Create, elsewhere("secrets", OWN)),
        (
            OBJECTS,
            Verb::Create,
            elsewhere("statefulsets", "kube-system"),
        ),
        (OBJECTS, Verb::Create, elsewhere("petsets", OWN)),
        ("secrets", Verb::Create, with(new("secrets"), &token)),
        (
            "pods",
            Verb::Apply,
            with(pod(&json!({})), &[("/spec", image)]),
        ),
        (
            "pods",
            Verb::Merge,
            pod(&json!({"labels": {"app.kubernetes.io/instance": "other"}})),
        ),
        (
            "pods",
            Verb::Merge,
            pod(&json!({"finalizers": ["example.com/held"]})),
        ),
        (
            "pods",
            Verb::Merge,
            pod(&json!({"annotations": {"status": "{}"}})),
        ),
        (
            "services",
            Verb::Create,
            with(
                new("services"),
                &[("/spec/selector", json!({"app": "web"}))],
            ),
        ),
        (
            "services",
            Verb::Merge,
            with(
                there("services"),
                &[("/spec/externalIPs", json!(["192.0.2.1"]))],
            ),
        ),
        ("services", Verb::Merge, with(there("services"), &name)),
        (
            "selectors",
            Verb::Create,
            with(
                new("poddisruptionbudgets"),
                &[("/spec/selector", web.clone())],
            ),
        ),
        (
            "selectors",
            Verb::Create,
            with(new("servicemonitors"), &[("/spec/selector", web)]),
        ),
        (
            "monitors",
            Verb::Create,
            with(new("servicemonitors"), &[("/spec/endpoints/0", scraped)]),
        ),
        (
            "monitors",
            Verb::Merge,
            with(
                there("servicemonitors"),
                &[("/spec/namespaceSelector", json!({"any": true}))],
            ),
        ),
        ("certificates", Verb::Create, into(new("certificates"))),
        ("certificates", Verb::Merge, into(there("certificates"))),
        (
            "registrations",
            Verb::Merge,
            registered("/webhooks/0/clientConfig/service/name", "evil"),
        ),
        (
            "registrations",
            Verb::Merge,
            registered("/webhooks/0/rules/0/resources/0", "secrets"),
        ),
        (
            "registrations",
            Verb::Merge,
            registered(
                "/metadata/annotations/cert-manager.io~1inject-ca-from",
                "a/b",
            ),
        ),
        (
            "finalizers",
            Verb::Merge,
            finalizers("postgreses", &json!([])),
        ),
        (
            "finalizers",
            Verb::Merge,
            finalizers("postgresopsrequests", &json!(["example.com/held"])),
        ),
    ]
}

fn role(plural: &str, verb: &str, names: &[&str]) -> Value {
    let rule =
        json!({"apiGroups": [""], "resources": [plural], "verbs": [verb], "resourceNames": names});
    with(new("roles"), &[("/rules/0", rule)])
}

fn bound(path: &str, value: Value) -> Value {
    with(new("rolebindings"), &[(path, value)])
}

fn cluster_role(name: &str) -> Value {
    json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name})
}

/// The same, about rights and who has them.
fn more_than_a_databases_rights() -> Vec<(&'static str, Verb, Value)> {
    let account = |set: Value, name: &str| {
        with(
            set,
            &[("/spec/template/spec/serviceAccountName", json!(name))],
        )
    };
    let named_like_the_set =
        |plural: &str| with(foreign(known(plural)), &[("/metadata/labels", labels())]);
    let name = || json!("foreign");
    let paths = ["/metadata/name", "/roleRef/name", "/subjects/0/name"].map(|path| (path, name()));
    let named_like_the_role = with(new("rolebindings"), &paths);
    vec![
        ("roles", Verb::Create, role("secrets", "get", &["new-auth"])),
        ("roles", Verb::Create, role("pods", "patch", &[])),
        (
            "roles",
            Verb::Create,
            role("configmaps", "get", &["other-config"]),
        ),
        // All that the operator may do, it may give away as far as RBAC goes.
        (
            "rolebindings",
            Verb::Create,
            bound("/roleRef", cluster_role("wall-pgrekey-databases")),
        ),
        (
            "rolebindings",
            Verb::Create,
            bound("/roleRef/name", json!("pg")),
        ),
        (
            "rolebindings",
            Verb::Create,
            bound("/subjects/0/name", json!("foreign")),
        ),
        (
            "rolebindings",
            Verb::Create,
            bound("/subjects/0/namespace", json!("kube-system")),
        ),
        // A Role that was there before, and its namesakes.
        ("givenroles", Verb::Create, named_like_the_role),
        (
            "workloads",
            Verb::Create,
            account(new("statefulsets"), "nobody"),
        ),
        (
            "workloads",
            Verb::Merge,
            account(there("petsets"), "nobody"),
        ),
        // An account that was there before.
        ("accounts", Verb::Create, named_like_the_set("statefulsets")),
        ("accounts", Verb::Create, named_like_the_set("petsets")),
    ]
}

async fn objects_that_reach_further_are_refused(operator: &Asker) {
    for (policy, verb, object) in more_than_a_databases_objects_do()
        .into_iter()
        .chain(more_than_a_databases_rights())
    {
        operator.is_refused([policy], verb, &object).await;
    }
    // Here RBAC itself says no, before any policy is asked.
    let why = operator
        .dry(
            Verb::Create,
            &bound("/roleRef", cluster_role("cluster-admin")),
        )
        .await;
    assert!(
        why.as_ref().is_err_and(|why| why.contains("code: 403")),
        "{why:?}"
    );
    let trust = ByteString(ca("wall").pem().into_bytes());
    for object in [
        with(
            registration(),
            &[("/webhooks/0/clientConfig/caBundle", json!(trust))],
        ),
        finalizers("postgreses", &json!(["example.com/held", "kubedb.com"])),
        finalizers("postgresopsrequests", &json!(["pgrekey.dev/ops-request"])),
        pod(&json!({"annotations": {"pgrekey.dev/refresh": "1"}})),
    ] {
        operator.is_done(Verb::Merge, &object).await;
    }
}

/// What each level refuses in pods: where it stands in their specification, and what. Kubernetes'
/// own admission is asked too.
#[expect(clippy::too_many_lines, reason = "it is a table")]
fn insecure() -> Vec<(&'static str, Vec<(&'static str, Value)>)> {
    vec![
        ("baseline", vec![("/hostNetwork", json!(true))]),
        ("baseline", vec![("/hostPID", json!(true))]),
        ("baseline", vec![("/hostIPC", json!(true))]),
        (
            "baseline",
            vec![(
                "/volumes",
                json!([{"name": "root", "hostPath": {"path": "/"}}]),
            )],
        ),
        (
            "baseline",
            vec![(
                "/containers/0/ports",
                json!([{"containerPort": 5432, "hostPort": 5432}]),
            )],
        ),
        (
            "baseline",
            vec![("/containers/0/securityContext", json!({"privileged": true}))],
        ),
        (
            "baseline",
            vec![(
                "/initContainers/0/securityContext",
                json!({"privileged": true}),
            )],
        ),
        (
            "baseline",
            vec![(
                "/containers/0/securityContext/capabilities/add",
                json!(["SYS_ADMIN"]),
            )],
        ),
        (
            "baseline",
            vec![
                ("/containers/0/securityContext/procMount", json!("Unmasked")),
                ("/hostUsers", json!(false)),
            ],
        ),
        (
            "baseline",
            vec![("/securityContext/seccompProfile/type", json!("Unconfined"))],
        ),
        (
            "baseline",
            vec![(
                "/initContainers/0/securityContext/seccompProfile",
                json!({"type": "Unconfined"}),
            )],
        ),
        (
            "baseline",
            vec![(
                "/securityContext/appArmorProfile",
                json!({"type": "Unconfined"}),
            )],
        ),
        (
            "baseline",
            vec![(
                "/containers/0/securityContext/seLinuxOptions",
                json!({"type": "spc_t"}),
            )],
        ),
        (
            "baseline",
            vec![(
                "/securityContext/seLinuxOptions",
                json!({"user": "system_u"}),
            )],
        ),
        (
            "baseline",
            vec![(
                "/securityContext/sysctls",
                json!([{"name": "kernel.msgmax", "value": "1"}]),
            )],
        ),
        (
            "baseline",
            vec![(
                "/containers/0/livenessProbe",
                json!({"httpGet": {"host": "192.0.2.1", "port": 80}}),
            )],
        ),
        (
            "restricted",
            vec![(
                "/volumes",
                json!([{"name": "far", "nfs": {"server": "a.invalid", "path": "/"}}]),
            )],
        ),
        (
            "restricted",
            vec![(
                "/containers/0/securityContext/allowPrivilegeEscalation",
                json!(true),
            )],
        ),
        (
            "restricted",
            vec![(
                "/initContainers/0/securityContext/allowPrivilegeEscalation",
                Value::Null,
            )],
        ),
        (
            "restricted",
            vec![("/securityContext/runAsNonRoot", Value::Null)],
        ),
        (
            "restricted",
            vec![("/containers/0/securityContext/runAsNonRoot", json!(false))],
        ),
        ("restricted", vec![("/securityContext/runAsUser", json!(0))]),
        (
            "restricted",
            vec![("/initContainers/0/securityContext/runAsUser", json!(0))],
        ),
        (
            "restricted",
            vec![("/securityContext/seccompProfile", Value::Null)],
        ),
        (
            "restricted",
            vec![(
                "/containers/0/securityContext/capabilities/drop",
                json!(["CHOWN"]),
            )],
        ),
        (
            "restricted",
            vec![(
                "/containers/0/securityContext/capabilities/add",
                json!(["CHOWN"]),
            )],
        ),
    ]
}

/// Where Pod Security would refuse the pod, the wall refuses its set, at the same level.
async fn pods_are_as_secure_as_kubernetes_wants_them(cluster: &Cluster, operator: &Asker) {
    let administrator = Asker(cluster.client.clone());
    let changed = |plural: &str, path: &str, changes: &[(&str, Value)]| {
        with(new(plural), &[(path, with(pod_spec("new"), changes))])
    };
    let judged = async |level: &str, changes: &[(&str, Value)]| {
        let pod = with(
            changed("pods", "/spec", changes),
            &[("/metadata/namespace", json!(namespace_of(level)))],
        );
        administrator.dry(Verb::Create, &pod).await
    };
    let walled =
        |plural: &str, changes: &[(&str, Value)]| changed(plural, "/spec/template/spec", changes);
    // What the stricter level has of its own is tried first, because both refuse what the other one
    // refuses.
    for judge in ["restricted", "baseline"] {
        let levels = insecure();
        for (level, changes) in &levels {
            let why = judged(judge, changes).await;
            let refused = why
                .as_ref()
                .is_err_and(|why| why.contains("violates PodSecurity"));
            assert_eq!(
                refused,
                judge >= *level,
                "Pod Security {judge} about {changes:?}: {why:?}"
            );
            for set in ["statefulsets", "petsets"].map(|plural| walled(plural, changes)) {
                if level == &judge {
                    operator.is_refused([judge], Verb::Create, &set).await;
                } else if judge == "baseline" {
                    operator.is_done(Verb::Create, &set).await;
                }
            }
        }
        let harmless = [
            (
                "/containers/0/securityContext/capabilities/add",
                json!(["NET_BIND_SERVICE"]),
            ),
            ("/volumes", json!([{"name": "tmp", "emptyDir": {}}])),
        ];
        judged(judge, &harmless)
            .await
            .expect("Pod Security lets it through");
        for plural in ["statefulsets", "petsets"] {
            operator
                .is_done(Verb::Create, &walled(plural, &harmless))
                .await;
        }
        if judge == "restricted" {
            // As with podSecurity.level: baseline.
            let strict = format!("{OWN}-pgrekey-wall-restricted");
            cluster
                .kubectl(&["delete", "validatingadmissionpolicybinding", &strict], "")
                .must_succeed();
            let (_, last) = levels.last().expect("a case");
            let last = walled("petsets", last);
            eventually("the stricter level is out of force", || async {
                operator.dry(Verb::Create, &last).await.is_ok()
            })
            .await;
        }
    }
}

/// An expression that does not fit a kind refuses everything of that kind: the API server finds
/// out, and only notes it.
async fn every_expression_fits_its_kinds(cluster: &Cluster) {
    let select = [
        "get",
        "validatingadmissionpolicies",
        "-l",
        "app.kubernetes.io/instance=wall",
        "-o",
        "json",
    ];
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let all: Value =
            serde_json::from_str(&cluster.kubectl(&select, "").must_succeed()).expect("JSON");
        let policies = all["items"].as_array().expect("policies");
        let warnings: Vec<_> = policies
            .iter()
            .filter_map(|policy| policy.pointer("/status/typeChecking/expressionWarnings"))
            .collect();
        assert!(warnings.is_empty(), "{warnings:#?}");
        let checked = |policy: &Value| {
            policy["status"]["observedGeneration"] == policy["metadata"]["generation"]
        };
        if policies.len() > 10 && policies.iter().all(checked) {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "the API server has not checked them"
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
