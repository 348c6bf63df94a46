//! The webhooks, as a real API server calls them and as `kubectl` prints what they say.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use pgrekey::rules;
use pgrekey::rules::{AdmissionOperation, Allowed};
use pgrekey::serve::registration::configuration_names;
use pgrekey::serve::table::WebhookType;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::cases::{self, Case};
use crate::harness::{
    Answer, Cluster, Operator, Registration, Seat, UNSEEN, ca, ca_secret, eventually, one_of_each,
};

/// Where the objects of this suite live, so that its webhooks see no other suite's.
const PREFIX: &str = "admission-";
/// The kinds that the webhooks judge.
const JUDGED: &str = "postgresopsrequests.ops.kubedb.com,postgreses.kubedb.com";

#[tokio::test]
async fn the_api_server_and_the_webhooks_understand_each_other() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    let seat = &Seat::take(&cluster).await;
    let own = seat.namespace;
    world(&cluster, own);
    let operators = [(); 2].map(|()| Operator::start(seat, &["--controllers=none"]));
    let _leftovers = Leftovers(&cluster);
    // Dropped first: nothing that is taken away then is judged.
    let _registration = Registration::make(&cluster, &operators[0], own, &namespaces());
    let answers = || async { TcpStream::connect(operators[0].webhooks).await.is_ok() };
    eventually("the operator answers", answers).await;
    the_ca_bundle_is_published_and_repaired(&cluster, own).await;
    both_replicas_serve_from_one_ca(&cluster, own, &operators).await;
    each_rule_is_heard_through_kubectl(&cluster).await;
    defaults_are_filled_in(&cluster);
    a_request_without_its_database_can_still_be_deleted(&cluster);
    a_v1beta1_registration_is_answered(&cluster).await;
}

/// The namespaces of the cases.
fn namespaces() -> [String; 3] {
    ["demo", "defaulted", "elsewhere"].map(|name| format!("{PREFIX}{name}"))
}

/// The manifests of the cases, moved to namespaces and names that are this suite's alone: other
/// suites and installations on the same cluster have versions and issuers of the plain names.
fn moved(mut manifest: Value) -> Value {
    let kind = manifest["kind"].as_str().expect("a kind").to_owned();
    if let "Namespace" | "PostgresVersion" | "ClusterIssuer" = kind.as_str() {
        prefix(&mut manifest["metadata"]["name"]);
    } else if manifest["metadata"]["namespace"].is_string() {
        prefix(&mut manifest["metadata"]["namespace"]);
    }
    match kind.as_str() {
        "ClusterIssuer" => {
            // Indexing would give a CA to an issuer that has none.
            if let Some(secret) = manifest.pointer_mut("/spec/ca/secretName") {
                prefix(secret);
            }
        }
        "Postgres" => prefix(&mut manifest["spec"]["version"]),
        "Namespace" => {
            let default = manifest.pointer_mut("/metadata/annotations/pgrekey.dev~1default-issuer");
            if let Some(Value::String(issuer)) = default {
                *issuer = issuer.replacen("ClusterIssuer/", &format!("ClusterIssuer/{PREFIX}"), 1);
            }
        }
        _ => {}
    }
    if let Some(spec) = manifest.get_mut("spec") {
        cluster_issuers(spec);
    }
    manifest
}

/// Puts the prefix before a name, if there is one.
fn prefix(name: &mut Value) {
    if let Value::String(name) = name
        && !name.is_empty()
    {
        name.insert_str(0, PREFIX);
    }
}

/// Puts the prefix before every ClusterIssuer that is named, at any depth.
fn cluster_issuers(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            if fields
                .get("kind")
                .is_some_and(|kind| kind == "ClusterIssuer")
                && let Some(name) = fields.get_mut("name")
            {
                prefix(name);
            }
            fields.values_mut().for_each(cluster_issuers);
        }
        Value::Array(items) => items.iter_mut().for_each(cluster_issuers),
        _ => {}
    }
}

fn unseen(mut manifest: Value) -> Value {
    manifest["metadata"]["labels"][UNSEEN] = json!("yes");
    manifest
}

/// Makes the cluster that the cases are about.
fn world(cluster: &Cluster, own: &str) {
    // The first operator makes it.
    cluster
        .kubectl(
            &[
                "delete",
                "secret",
                "-n",
                own,
                "pgrekey-webhook",
                "--ignore-not-found",
            ],
            "",
        )
        .must_succeed();
    let manifests: Vec<Value> = cases::world().into_iter().map(moved).collect();
    let (namespaces, others): (Vec<_>, Vec<_>) = manifests
        .into_iter()
        .partition(|m| m["kind"] == "Namespace");
    for namespace in &namespaces {
        cluster.apply(&namespace.to_string());
        let name = namespace["metadata"]["name"].as_str().expect("a name");
        for secret in ["postgres-ca", "postgres-new-ca"] {
            cluster.apply_in(name, &ca_secret(secret, &ca(secret)).to_string());
        }
        left_behind(cluster, name);
    }
    let name = format!("{PREFIX}postgres-ca");
    cluster.apply_in("cert-manager", &ca_secret(&name, &ca(&name)).to_string());
    // The default class of the dev cluster is of that name.
    for manifest in others.into_iter().filter(|m| m["kind"] != "StorageClass") {
        put(cluster, unseen(manifest));
    }
    let cluster_issuer = format!("clusterissuer/{PREFIX}cluster-issuer");
    for issuer in ["issuer/pg-issuer", "issuer/pg-new-issuer", &cluster_issuer] {
        let namespace = format!("{PREFIX}demo");
        let wait = [
            "wait",
            "-n",
            &namespace,
            "--for=condition=Ready",
            "--timeout=60s",
            issuer,
        ];
        cluster.kubectl(&wait, "").must_succeed();
    }
}

/// Takes away what a run left behind that did not come to its end.
fn left_behind(cluster: &Cluster, namespace: &str) {
    let list = cluster
        .kubectl(&["get", JUDGED, "-n", namespace, "-o", "json"], "")
        .must_succeed();
    let list: Value = serde_json::from_str(&list).expect("JSON");
    for object in list["items"].as_array().expect("a list") {
        remove(cluster, object);
    }
}

/// Makes an object as the manifest has it: with its status, and being deleted if it is.
fn put(cluster: &Cluster, mut manifest: Value) {
    let leaving = manifest["metadata"]
        .as_object_mut()
        .expect("metadata")
        .remove("deletionTimestamp")
        .is_some();
    let status = manifest
        .as_object_mut()
        .expect("an object")
        .remove("status");
    let ours = manifest["apiVersion"]
        .as_str()
        .is_some_and(|v| v.contains("kubedb.com"));
    if leaving {
        // Without one it would be gone at once.
        manifest["metadata"]["finalizers"] = json!(["kubedb.com"]);
    }
    // Only creation sets a creation time, which some cases depend on being as it is.
    remove(cluster, &manifest);
    cluster
        .kubectl(&["create", "-f", "-"], &manifest.to_string())
        .must_succeed();
    if let Some(status) = status.filter(|_| ours) {
        let patch = json!({"status": status}).to_string();
        let patch = [
            "patch",
            "--subresource=status",
            "--type=merge",
            "-p",
            &patch,
            "-f",
            "-",
        ];
        cluster
            .kubectl(&patch, &manifest.to_string())
            .must_succeed();
    }
    if leaving {
        cluster
            .kubectl(
                &["delete", "--wait=false", "-f", "-"],
                &manifest.to_string(),
            )
            .must_succeed();
    }
}

/// Takes an object away, finalizers or not.
fn remove(cluster: &Cluster, manifest: &Value) {
    let text = manifest.to_string();
    if !cluster
        .kubectl(
            &["get", "-o", "name", "--ignore-not-found", "-f", "-"],
            &text,
        )
        .must_succeed()
        .is_empty()
    {
        let free = json!({"metadata": {"finalizers": null, "labels": {UNSEEN: "yes"}}}).to_string();
        // It may go by itself in between.
        cluster.kubectl(&["patch", "--type=merge", "-p", &free, "-f", "-"], &text);
        cluster
            .kubectl(&["delete", "--ignore-not-found", "-f", "-"], &text)
            .must_succeed();
    }
}

/// What the cases have made; taken away when dropped.
struct Leftovers<'a>(&'a Cluster);

impl Drop for Leftovers<'_> {
    fn drop(&mut self) {
        // Controllers of an installation that looks after every namespace would make real clusters
        // of them.
        for namespace in namespaces() {
            self.0.kubectl(
                &["delete", JUDGED, "--all", "-n", &namespace, "--wait=false"],
                "",
            );
        }
    }
}

/// The CAs that each webhook is registered with.
async fn bundles(client: &Client) -> Vec<Option<ByteString>> {
    let mutating = Api::<MutatingWebhookConfiguration>::all(client.clone());
    let validating = Api::<ValidatingWebhookConfiguration>::all(client.clone());
    let mut bundles = vec![];
    for name in configuration_names(WebhookType::Mutate) {
        let webhooks = mutating
            .get(name)
            .await
            .expect("a configuration")
            .webhooks
            .unwrap_or_default();
        bundles.extend(webhooks.into_iter().map(|w| w.client_config.ca_bundle));
    }
    for name in configuration_names(WebhookType::Validate) {
        let webhooks = validating
            .get(name)
            .await
            .expect("a configuration")
            .webhooks
            .unwrap_or_default();
        bundles.extend(webhooks.into_iter().map(|w| w.client_config.ca_bundle));
    }
    bundles
}

async fn published(cluster: &Cluster, own: &str) -> Vec<u8> {
    stored(cluster, own, "ca.crt").await
}

/// What the Secret of the operators in this namespace holds.
async fn stored(cluster: &Cluster, own: &str, key: &str) -> Vec<u8> {
    let secret = Api::<Secret>::namespaced(cluster.client.clone(), own)
        .get_opt("pgrekey-webhook")
        .await;
    let secret = secret
        .expect("an answer")
        .and_then(|s| s.data)
        .unwrap_or_default();
    secret
        .get(key)
        .map(|bytes| bytes.0.clone())
        .unwrap_or_default()
}

async fn the_ca_bundle_is_published_and_repaired(cluster: &Cluster, own: &str) {
    let is_published = || async {
        let ca = published(cluster, own).await;
        !ca.is_empty()
            && bundles(&cluster.client)
                .await
                .iter()
                .all(|b| b.as_ref().is_some_and(|b| b.0 == ca))
    };
    eventually("the CA is published", is_published).await;
    let name = configuration_names(WebhookType::Validate)
        .next()
        .expect("a configuration");
    let broken = json!([{"op": "remove", "path": "/webhooks/0/clientConfig/caBundle"}]).to_string();
    let patch = [
        "patch",
        "validatingwebhookconfiguration",
        name,
        "--type=json",
        "-p",
        &broken,
    ];
    cluster.kubectl(&patch, "").must_succeed();
    eventually("the CA is published again", is_published).await;

    let damaged = json!({"stringData": {"tls.crt": "nothing"}}).to_string();
    cluster
        .kubectl(
            &[
                "patch",
                "secret",
                "-n",
                own,
                "pgrekey-webhook",
                "-p",
                &damaged,
            ],
            "",
        )
        .must_succeed();
    let is_mended = || async {
        !stored(cluster, own, "tls.crt")
            .await
            .starts_with(b"nothing")
            && is_published().await
    };
    eventually(
        "a damaged pair is made anew, and its CA published",
        is_mended,
    )
    .await;
}

async fn both_replicas_serve_from_one_ca(cluster: &Cluster, own: &str, operators: &[Operator]) {
    use rustls::pki_types::pem::PemObject;
    let ca = published(cluster, own).await;
    let mut roots = rustls::RootCertStore::empty();
    for root in rustls::pki_types::CertificateDer::pem_slice_iter(&ca) {
        roots.add(root.expect("PEM")).expect("a CA");
    }
    let config = rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    for address in operators.iter().map(|operator| operator.webhooks) {
        let shakes_hands = || async {
            let Ok(stream) = TcpStream::connect(address).await else {
                return false;
            };
            connector.connect(address.ip().into(), stream).await.is_ok()
        };
        eventually("each replica serves a leaf of the one CA", shakes_hands).await;
    }
}

/// The ids in what kubectl printed: of refusals and of warnings.
fn ids(answer: &Answer) -> BTreeSet<String> {
    let known: BTreeSet<&str> = rules::ops_request::rules()
        .map(|r| r.id)
        .chain(rules::postgres::rules().map(|r| r.id))
        .collect();
    let stderr = answer.stderr();
    stderr
        .split('[')
        .filter_map(|part| part.split(']').next())
        .filter(|id| known.contains(id))
        .map(Into::into)
        .collect()
}

/// What must be taken away after a case.
fn ask(cluster: &Cluster, case: &Case) -> (Answer, Option<Value>) {
    let object = moved(case.manifest());
    let text = object.to_string();
    match case.operation() {
        AdmissionOperation::Create => (
            cluster.kubectl(&["create", "--dry-run=server", "-f", "-"], &text),
            None,
        ),
        AdmissionOperation::Update => {
            let old = unseen(moved(case.old().expect("an old object")));
            put(cluster, old.clone());
            (
                cluster.kubectl(&["replace", "--dry-run=server", "-f", "-"], &text),
                Some(old),
            )
        }
        AdmissionOperation::Delete => {
            put(cluster, unseen(object.clone()));
            let seen = json!({"metadata": {"labels": {UNSEEN: null}}}).to_string();
            cluster
                .kubectl(&["patch", "--type=merge", "-p", &seen, "-f", "-"], &text)
                .must_succeed();
            (
                cluster.kubectl(&["delete", "--dry-run=server", "-f", "-"], &text),
                Some(object),
            )
        }
    }
}

/// Of a refusal, its rule, and of a near miss, the fields that the object has.
fn kind_of(case: &Case) -> (&'static str, String, Option<String>, bool, Vec<String>) {
    let operation = format!("{:?}", case.operation());
    let manifest = case.manifest();
    let fields = manifest["spec"].as_object().filter(|_| case.rule.is_none());
    let fields = fields.into_iter().flat_map(|spec| spec.keys().cloned());
    let is_queued = case.queued().next().is_some();
    (
        case.kind,
        operation,
        case.rule.clone(),
        is_queued,
        fields.collect(),
    )
}

async fn each_rule_is_heard_through_kubectl(cluster: &Cluster) {
    let (mut heard, mut passed, mut schema) = (BTreeSet::new(), 0, vec![]);
    // A request that is there already is judged again by the controllers; nobody can send one.
    let is_there = |case: &Case| case.manifest()["metadata"]["creationTimestamp"].is_string();
    // The operator of this suite was told nothing about what it allows.
    let is_heard = |case: &Case| !is_there(case) && *case.allowed() == Allowed::default();
    let judged = cases::all().into_iter().filter(is_heard).collect();
    for case in one_of_each(judged, kind_of) {
        let queued: Vec<Value> = case.queued().map(moved).map(unseen).collect();
        for request in &queued {
            put(cluster, request.clone());
        }
        let expected: BTreeSet<String> = case.rule.iter().chain(&case.also).cloned().collect();
        // The operator may not have seen yet what was made a moment ago.
        let deadline = Instant::now() + Duration::from_secs(15);
        loop {
            let (answer, after) = ask(cluster, &case);
            if let Some(after) = after {
                remove(cluster, &after);
            }
            let (heard_now, stderr) = (ids(&answer), answer.stderr());
            if heard_now == expected {
                passed += usize::from(case.rule.is_none());
                heard.extend(expected);
                break;
            }
            if !answer.succeeded() && heard_now.is_empty() {
                // The API server's own validation speaks first; what it lets nobody send needs no
                // rule.
                schema.push(format!("{}: {}", case.title(), stderr.trim()));
                break;
            }
            assert!(
                Instant::now() < deadline,
                "{}: expected {expected:?}, kubectl said: {stderr}",
                case.title()
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        for request in &queued {
            remove(cluster, request);
        }
    }
    println!(
        "{} rules heard, {passed} near misses passed; the API server spoke first in:\n{}",
        heard.len(),
        schema.join("\n")
    );
    let all: BTreeSet<String> = rules::ops_request::rules()
        .map(|r| r.id.to_owned())
        .chain(rules::postgres::rules().map(|r| r.id.to_owned()))
        .collect();
    // The definitions say these too, so that they hold whatever becomes of the webhooks; they speak
    // first.
    let first = [
        "health-checker-valid",
        "max-retries-valid",
        "replicas-valid",
        "spec-immutable",
    ];
    assert_eq!(
        all.difference(&heard).collect::<Vec<_>>(),
        first,
        "rules that no case reached"
    );
    assert!(
        schema.iter().any(|line| line.contains("spec is immutable")),
        "{schema:?}"
    );
    assert!(passed > 0);
}

fn defaults_are_filled_in(cluster: &Cluster) {
    let namespace = format!("{PREFIX}defaulted");
    let request = json!({
        "apiVersion": "ops.kubedb.com/v1alpha1", "kind": "PostgresOpsRequest",
        "metadata": {"name": "add-tls", "namespace": namespace},
        "spec": {"type": "ReconfigureTLS", "databaseRef": {"name": "plain"}, "tls": {"sslMode": "require"}},
    });
    let create = ["create", "--dry-run=server", "-o", "json", "-f", "-"];
    let made: Value = serde_json::from_str(
        &cluster
            .kubectl(&create, &request.to_string())
            .must_succeed(),
    )
    .expect("JSON");
    let issuer = json!({"apiGroup": "cert-manager.io", "kind": "ClusterIssuer", "name": format!("{PREFIX}cluster-issuer")});
    assert_eq!(made["spec"]["tls"]["issuerRef"], issuer);
    let database = json!({
        "apiVersion": "kubedb.com/v1", "kind": "Postgres", "metadata": {"name": "new", "namespace": namespace},
        "spec": {"version": format!("{PREFIX}17.12"), "storageType": "Ephemeral", "tls": {}},
    });
    let made: Value = serde_json::from_str(
        &cluster
            .kubectl(&create, &database.to_string())
            .must_succeed(),
    )
    .expect("JSON");
    assert_eq!(made["spec"]["tls"]["issuerRef"], issuer);
    assert_eq!(
        (&made["spec"]["sslMode"], &made["spec"]["clientAuthMode"]),
        (&json!("verify-full"), &json!("md5"))
    );
}

/// Status, finalizers and labels of a request may change when there is nothing left that it is
/// about.
fn a_request_without_its_database_can_still_be_deleted(cluster: &Cluster) {
    let request = json!({
        "apiVersion": "ops.kubedb.com/v1alpha1", "kind": "PostgresOpsRequest",
        "metadata": {"name": "orphan", "namespace": format!("{PREFIX}demo"), "finalizers": ["kubedb.com"]},
        "spec": {"type": "Restart", "databaseRef": {"name": "gone"}},
    });
    let text = request.to_string();
    put(cluster, unseen(request));
    for patch in [
        json!({"metadata": {"labels": {UNSEEN: null}}}),
        json!({"metadata": {"labels": {"team": "a"}}}),
    ] {
        cluster
            .kubectl(
                &["patch", "--type=merge", "-p", &patch.to_string(), "-f", "-"],
                &text,
            )
            .must_succeed();
    }
    let status = json!({"status": {"phase": "Failed"}}).to_string();
    cluster
        .kubectl(
            &[
                "patch",
                "--subresource=status",
                "--type=merge",
                "-p",
                &status,
                "-f",
                "-",
            ],
            &text,
        )
        .must_succeed();
    cluster
        .kubectl(&["delete", "--wait=false", "-f", "-"], &text)
        .must_succeed();
    let free = json!({"metadata": {"finalizers": null}}).to_string();
    cluster
        .kubectl(&["patch", "--type=merge", "-p", &free, "-f", "-"], &text)
        .must_succeed();
    cluster
        .kubectl(&["wait", "--for=delete", "--timeout=10s", "-f", "-"], &text)
        .must_succeed();
}

async fn a_v1beta1_registration_is_answered(cluster: &Cluster) {
    let validating = Api::<ValidatingWebhookConfiguration>::all(cluster.client.clone());
    for name in configuration_names(WebhookType::Validate) {
        let patch = json!([{"op": "replace", "path": "/webhooks/0/admissionReviewVersions", "value": ["v1beta1"]}]);
        let patch = Patch::Json::<()>(serde_json::from_value(patch).expect("a patch"));
        validating
            .patch(name, &PatchParams::default(), &patch)
            .await
            .expect("a registration");
    }
    let request = moved(json!({
        "apiVersion": "ops.kubedb.com/v1alpha1", "kind": "PostgresOpsRequest",
        "metadata": {"name": "old-review", "namespace": "demo"},
        "spec": {"type": "ReconfigureTLS", "databaseRef": {"name": "secure"}, "tls": {}},
    }));
    let answered = || async {
        let answer = cluster.kubectl(
            &["create", "--dry-run=server", "-f", "-"],
            &request.to_string(),
        );
        ids(&answer) == BTreeSet::from(["one-operation".to_owned()])
    };
    eventually("a v1beta1 review is answered", answered).await;
}
