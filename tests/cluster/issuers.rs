//! Certificates as other people's issuers make them: cert-manager's usual bootstrap, intermediate
//! CAs, CAs that end soon or are renewed, and a policy that says no.

use std::time::Duration;

use kube::api::{Api, ListParams, Patch, PatchParams};
use pgrekey::api::cert_manager::{CertificateRequest, holds};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::harness::{
    Ca, Cluster, Controllers, Seat, TestNamespace, Traffic, Writes, ca, ca_below, ca_secret,
    ca_until, example, psql, sample_or_all, secret, versions,
};
use crate::operations::{by_reload, carry_out, request};
use crate::refusals::{has_touched_nothing, is_refused, once, touchable};

const DATABASE: &str = "pg/ha-postgres";
pub(crate) const ALIASES: [&str; 3] = ["server", "client", "metrics-exporter"];

pub(crate) fn issuer(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "cert-manager.io/v1", "kind": "Issuer", "metadata": {"name": name}, "spec": spec})
}

pub(crate) fn issuer_of_secret(name: &str) -> Value {
    issuer(name, &json!({"ca": {"secretName": name}}))
}

pub(crate) fn issuer_ref(name: &str) -> Value {
    json!({"apiGroup": "cert-manager.io", "kind": "Issuer", "name": name})
}

/// The bootstrap of cert-manager's documentation. It gives no duration, so that the CA lives 90
/// days, as everything that it signs later.
fn bootstrap(namespace: &TestNamespace<'_>, name: &str) {
    namespace.apply(&issuer("self-signed", &json!({"selfSigned": {}})));
    ca_of_cert_manager(namespace, name, &json!({}));
}

/// A CA that cert-manager makes and renews, with its issuer.
fn ca_of_cert_manager(namespace: &TestNamespace<'_>, name: &str, more: &Value) {
    let mut spec = json!({"isCA": true, "commonName": name, "secretName": name,
        "issuerRef": {"name": "self-signed"}});
    let fields = spec.as_object_mut().expect("an object");
    fields.extend(more.as_object().cloned().unwrap_or_default());
    namespace.apply(&json!({
        "apiVersion": "cert-manager.io/v1", "kind": "Certificate", "metadata": {"name": name}, "spec": spec,
    }));
    let certificate = format!("certificate/{name}");
    namespace.kubectl(&[
        "wait",
        "--for=condition=Ready",
        "--timeout=60s",
        &certificate,
    ]);
    namespace.apply(&issuer_of_secret(name));
}

/// A CA below another, as an issuer's Secret holds it that does not know the root.
fn intermediate(root: &Ca, name: &str) -> Value {
    ca_secret(name, &ca_below(root, name))
}

fn early_ca(namespace: &TestNamespace<'_>) -> String {
    namespace.condition(DATABASE, "CAEndsEarly", "message")
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_of_the_issuers_that_people_have_are_served_under_load() {
    const NAMESPACE: &str = "other-issuers";
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    let seat = Seat::take(&cluster).await;
    let versions = versions(&cluster);
    let (controllers, writes) = Controllers::counted(&seat, NAMESPACE).await;
    let namespace = &TestNamespace::make(&cluster, NAMESPACE);

    bootstrap(namespace, "shop-ca");
    let mut database = example("ha-postgres.yaml", "ha-postgres", 2, &versions[&17]);
    database["spec"]["sslMode"] = json!("verify-full");
    database["spec"]["clientAuthMode"] = json!("cert");
    database["spec"]["tls"] = json!({"issuerRef": issuer_ref("shop-ca")});
    namespace.apply(&database);
    namespace.until_phase("ha-postgres", "Ready", 180).await;
    namespace
        .until("the CA that ends first is named", 30, || {
            early_ca(namespace).contains("CA \"shop-ca\"")
        })
        .await;

    for (policy, name) in [
        ("Never", "after-the-old-key"),
        ("Always", "after-a-new-key"),
    ]
    .into_iter()
    .skip(sample_or_all(1, 0))
    {
        renew_ca(namespace, "shop-ca", policy).await;
        let rotate = by_reload(request(name, &json!({"rotateCertificates": true})));
        carry_out(namespace, &writes, &rotate, false).await;
        assert_eq!(
            secret(namespace, "ha-postgres-tls", "ca.crt"),
            secret(namespace, "shop-ca", "tls.crt"),
            "{name}"
        );
    }

    an_issuer_need_not_know_its_root(namespace, &writes).await;
    namespace
        .until("no CA ends first", 30, || early_ca(namespace).is_empty())
        .await;
    keys_change_under_load(namespace, &writes).await;
    // What is in service stays so.
    namespace.kubectl(&["annotate", DATABASE, "pgrekey.dev/extra-ca-"]);
    namespace.kubectl(&["delete", "configmap", "corp-roots"]);

    ca_of_cert_manager(namespace, "day-ca", &json!({"duration": "25h0m0s"}));
    let for_a_day = ALIASES.map(|alias| json!({"alias": alias, "duration": "24h0m0s"}));
    let tls = json!({"issuerRef": issuer_ref("day-ca"), "certificates": for_a_day});
    carry_out(
        namespace,
        &writes,
        &by_reload(request("to-a-ca-of-25-h", &tls)),
        false,
    )
    .await;
    let expiry = namespace.path("pgops/to-a-ca-of-25-h", ".status.pods[0].notAfter");
    let end: jiff::Timestamp = expiry.parse().expect("a time");
    let left = end.duration_since(jiff::Timestamp::now()).as_hours();
    assert!((22..=24).contains(&left), "{expiry}");
    assert_eq!(early_ca(namespace), "", "the CA outlives them");
    if sample_or_all(false, true) {
        a_ca_is_renewed_shortly_before_its_end(namespace, &writes).await;
    }

    namespace.clear();
    controllers.stop().await;
}

/// An intermediate CA whose root the user names: among others, in a ConfigMap.
async fn an_issuer_need_not_know_its_root(namespace: &TestNamespace<'_>, writes: &Writes) {
    let root = ca("company-root");
    namespace.apply(&intermediate(&root, "team-ca"));
    namespace.apply(&issuer_of_secret("team-ca"));
    let to_team_ca = json!({"issuerRef": issuer_ref("team-ca")});

    let rootless = by_reload(request("without-the-root", &to_team_ca));
    let why = is_refused(namespace, rootless).await;
    let remedy = "give Secret team-ca of the issuer the root as ca.crt";
    assert!(why.contains(remedy), "{why}");

    let bundle = format!("{}{}", ca("bystander").pem(), root.pem());
    namespace.apply(
        &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "corp-roots"},
        "data": {"root-certs.pem": bundle}}),
    );
    let place = "pgrekey.dev/extra-ca=ConfigMap/corp-roots/root-certs.pem";
    namespace.kubectl(&["annotate", DATABASE, place]);
    let to_intermediate = by_reload(request("to-an-intermediate-ca", &to_team_ca));
    carry_out(namespace, writes, &to_intermediate, false).await;
    assert_eq!(secret(namespace, "ha-postgres-tls", "ca.crt"), root.pem());
    let named = || namespace.path(DATABASE, ".status.extraCAs[*].name");
    namespace
        .until("the root is named", 30, || named() == "company-root")
        .await;
}

/// From RSA to ECDSA and back, each by a walk of its own.
async fn keys_change_under_load(namespace: &TestNamespace<'_>, writes: &Writes) {
    let kind = || {
        let key = secret(namespace, "ha-postgres-tls", "server.key");
        key.lines().next().unwrap_or_default().to_owned()
    };
    let rsa = "-----BEGIN RSA PRIVATE KEY-----";
    assert_eq!(kind(), rsa);
    for (name, key, begins) in [
        (
            "to-ecdsa",
            json!({"algorithm": "ECDSA", "size": 256}),
            "-----BEGIN EC PRIVATE KEY-----",
        ),
        (
            "back-to-rsa",
            json!({"algorithm": "RSA", "size": 2048}),
            rsa,
        ),
        (
            "to-another-encoding",
            json!({"encoding": "PKCS8"}),
            "-----BEGIN PRIVATE KEY-----",
        ),
    ]
    .into_iter()
    .take(sample_or_all(1, 3))
    {
        let keys = ALIASES.map(|alias| json!({"alias": alias, "privateKey": key}));
        let change = by_reload(request(name, &json!({"certificates": keys})));
        carry_out(namespace, writes, &change, false).await;
        assert_eq!(kind(), begins, "{name}");
    }
}

/// cert-manager would renew the certificates weeks after their CA has ended: pgrekey has them issued
/// anew while there is a quarter of its time left.
async fn a_ca_is_renewed_shortly_before_its_end(namespace: &TestNamespace<'_>, writes: &Writes) {
    let ending = ca("ending-ca");
    let ends = jiff::Timestamp::now() + Duration::from_mins(9);
    namespace.apply(&ca_secret(
        "ending-ca",
        &ca_until(&ending, "ending-ca", ends),
    ));
    namespace.apply(&issuer_of_secret("ending-ca"));
    let to_it = json!({"issuerRef": issuer_ref("ending-ca")});
    let change = by_reload(request("to-an-ending-ca", &to_it));
    carry_out(namespace, writes, &change, false).await;

    namespace.kubectl(&["annotate", DATABASE, "pgrekey.dev/client-grace-period=30s"]);
    let in_a_year = ends + Duration::from_hours(24 * 365);
    let renewed = ca_until(&ending, "ending-ca", in_a_year);
    namespace.apply(&ca_secret("ending-ca", &renewed));
    let traffic = Traffic::start(&namespace.cluster.client, namespace.name, "ha-postgres").await;
    namespace
        .until(
            "certificates below the renewed CA are in service",
            540,
            || secret(namespace, "ha-postgres-tls", "ca.crt") == renewed.pem(),
        )
        .await;
    assert!(jiff::Timestamp::now() < ends, "before the old CA has ended");
    // Past that end.
    let left = ends.duration_since(jiff::Timestamp::now());
    tokio::time::sleep(Duration::try_from(left).unwrap_or_default()).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let seen = traffic.stop().await;
    println!(
        "past the end of a CA: {} TLS connections, {} refused",
        seen.tries,
        seen.refused.len()
    );
    assert!(
        seen.tries > 20 && seen.refused.is_empty(),
        "{:?}",
        seen.refused
    );
}

/// As cert-manager does it when the CA is due: with its old key, or with a new one.
async fn renew_ca(namespace: &TestNamespace<'_>, name: &str, rotation_policy: &str) {
    let keeps = json!({"spec": {"privateKey": {"rotationPolicy": rotation_policy}}}).to_string();
    let certificate = format!("certificate/{name}");
    namespace.kubectl(&["patch", &certificate, "--type=merge", "-p", &keeps]);
    let before = secret(namespace, name, "tls.crt");
    let issuing = json!({
        "type": "Issuing", "status": "True", "reason": "ManuallyTriggered", "message": "by a test",
        "lastTransitionTime": jiff::Timestamp::now(),
    });
    let patch =
        json!([{"op": "add", "path": "/status/conditions/-", "value": issuing}]).to_string();
    namespace.kubectl(&[
        "patch",
        &certificate,
        "--subresource=status",
        "--type=json",
        "-p",
        &patch,
    ]);
    namespace
        .until("the CA is renewed", 60, || {
            secret(namespace, name, "tls.crt") != before
        })
        .await;
}

/// A policy in place of cert-manager's approver: it allows servers and denies clients.
fn deny_clients(cluster: &Cluster, namespace: &str) -> JoinHandle<()> {
    let api: Api<CertificateRequest> = Api::namespaced(cluster.client.clone(), namespace);
    tokio::spawn(async move {
        loop {
            let requests = api.list(&ListParams::default()).await.expect("requests");
            for request in requests {
                judge(&api, &request).await;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    })
}

async fn judge(api: &Api<CertificateRequest>, request: &CertificateRequest) {
    let name = request.metadata.name.clone().unwrap_or_default();
    let status = request.status.clone().unwrap_or_default();
    if holds(&status.conditions, "Approved") || holds(&status.conditions, "Denied") {
        return;
    }
    let (type_, message) = if name.contains("client") {
        ("Denied", "no certificates for people in this namespace")
    } else {
        ("Approved", "servers may have theirs")
    };
    let condition = json!({"type": type_, "status": "True", "reason": "policy", "message": message,
        "lastTransitionTime": jiff::Timestamp::now()});
    let mut conditions = json!(status.conditions);
    conditions.as_array_mut().expect("a list").push(condition);
    let patch = json!({"metadata": {"resourceVersion": request.metadata.resource_version},
        "status": {"conditions": conditions}});
    // cert-manager may have written meanwhile: the next round sees that.
    let _ = api
        .patch_status(&name, &PatchParams::default(), &Patch::Merge(patch))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_denies_one_certificate_is_heard_before_anything_is_touched() {
    const NAMESPACE: &str = "denied";
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    let seat = Seat::take(&cluster).await;
    let versions = versions(&cluster);
    let controllers = Controllers::start(&seat, NAMESPACE).await;
    let namespace = &TestNamespace::make(&cluster, NAMESPACE);
    let label = "pgrekey.dev/test-approves=true";
    cluster
        .kubectl(&["label", "namespace", NAMESPACE, label], "")
        .must_succeed();
    namespace.apply(&ca_secret("corp-ca", &ca("corp")));
    namespace.apply(&issuer_of_secret("corp-ca"));
    let settings =
        "ssl_max_protocol_version = 'TLSv1.2'\nssl_ciphers = 'ECDHE-RSA-AES256-GCM-SHA384'\n";
    namespace.apply(
        &json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "ciphers"},
        "stringData": {"user.conf": settings}}),
    );
    let mut database = example("ha-postgres.yaml", "ha-postgres", 1, &versions[&18]);
    database["spec"]["configuration"] = json!({"secretName": "ciphers"});
    namespace.apply(&database);
    namespace.until_phase("ha-postgres", "Ready", 180).await;
    let ecdsa = ALIASES.map(|alias| json!({"alias": alias, "privateKey": {"algorithm": "ECDSA"}}));
    let tls = json!({"issuerRef": issuer_ref("corp-ca"), "certificates": ecdsa});
    let why = is_refused(namespace, request("other-ciphers", &tls)).await;
    assert!(why.contains("ssl_ciphers"), "{why}");

    let before = touchable(namespace);
    let tls = json!({"issuerRef": issuer_ref("corp-ca")});
    namespace.apply(&once(request("add-tls", &tls)));

    let message = || namespace.path("pgops/add-tls", ".status.steps[*].message");
    namespace
        .until("the missing approval is named", 60, || {
            message().contains("has not been approved")
        })
        .await;
    let policy = deny_clients(&cluster, NAMESPACE);
    let why = has_touched_nothing(namespace, "add-tls", &before).await;
    policy.abort();
    for words in [
        "client, of Issuer corp-ca",
        "CertificateRequest ha-postgres-trial-client-1 was denied",
        "no certificates for people in this namespace",
    ] {
        assert!(why.contains(words), "{words}: {why}");
    }
    assert_eq!(
        psql(namespace, "ha-postgres-0", "user=postgres", "show ssl").as_deref(),
        Ok("off")
    );
    namespace.clear();
    controllers.stop().await;
}
