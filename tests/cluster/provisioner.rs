//! A `Postgres` on a real Kubernetes: it comes up, is repaired, scales, halts and goes.
//!
//! The controllers run in this process, in a namespace of their own that enforces Pod Security
//! level `restricted`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use pgrekey::api::annotations::TLS_GROUPS;
use serde_json::{Value, json};

use crate::harness::{
    Cluster, Controllers, Seat, TestNamespace, example, names, primary, psql, sample_or_all,
    secret, show, version_of_the_chart, versions,
};

/// What the controllers may write: the names and versions of all objects of these kinds, but for
/// what Patroni itself keeps writing.
fn written(namespace: &TestNamespace<'_>) -> BTreeMap<String, String> {
    let kinds = "pg,petset,sts,svc,secret,cm,sa,role,rolebinding,pdb,pvc,certificate";
    let lines = "jsonpath={range .items[*]}{.kind}/{.metadata.name} {.metadata.resourceVersion}{\"\\n\"}{end}";
    let text = namespace.kubectl(&["get", kinds, "-o", lines]);
    let pairs = text
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter(|(name, _)| !name.ends_with("-leader"));
    pairs
        .map(|(name, version)| (name.to_owned(), version.to_owned()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_lives_and_ends_as_its_spec_says() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    let seat = Seat::take(&cluster).await;
    let versions = versions(&cluster);
    // What an earlier run has left behind goes only while somebody deals with it.
    let controllers = Controllers::start(&seat, "prov-life").await;
    let namespace = TestNamespace::make(&cluster, "prov-life");
    let namespace = &namespace;

    namespace.apply(&example(
        "ha-postgres.yaml",
        "ha-postgres",
        3,
        &versions[&17],
    ));
    let took = namespace.until_phase("ha-postgres", "Ready", 180).await;
    println!(
        "three pods of {} without TLS: Ready after {:.1} s",
        versions[&17],
        took.as_secs_f32()
    );
    it_looks_as_users_know_it(namespace);
    passwords_log_in(namespace);
    let controllers =
        nothing_is_written_when_nothing_has_changed(&seat, namespace, controllers).await;
    data_survive_the_primary(namespace).await;
    a_deleted_object_comes_back(namespace).await;
    an_object_in_the_way_is_named(namespace, &versions[&17]).await;
    it_scales(namespace).await;
    it_halts_and_comes_back(namespace).await;
    namespace.kubectl(&["delete", "pg", "ha-postgres", "--timeout=90s"]);
    nothing_is_left_behind(namespace, "ha-postgres").await;
    controllers.stop().await;
}

fn it_looks_as_users_know_it(namespace: &TestNamespace<'_>) {
    let table = namespace.kubectl(&["get", "pg"]);
    assert!(
        table.starts_with("NAME          VERSION   STATUS   AGE\nha-postgres   17."),
        "{table}"
    );
    let labels = namespace.path("petset/ha-postgres", ".metadata.labels");
    for label in [
        r#""app.kubernetes.io/component":"database""#,
        r#""app.kubernetes.io/instance":"ha-postgres""#,
        r#""app.kubernetes.io/managed-by":"kubedb.com""#,
        r#""app.kubernetes.io/name":"postgreses.kubedb.com""#,
    ] {
        assert!(labels.contains(label), "{labels}");
    }
    assert_eq!(
        namespace.path("sts/ha-postgres", ".status.readyReplicas"),
        "3"
    );
    assert_eq!(
        namespace.path("petset/ha-postgres", ".status.readyReplicas"),
        "3"
    );
    assert_eq!(
        namespace.path("secret/ha-postgres-auth", ".type"),
        "kubernetes.io/basic-auth"
    );
    assert_eq!(secret(namespace, "ha-postgres-auth", "password").len(), 16);
    let services = names(namespace, "svc");
    assert_eq!(
        services,
        [
            "service/ha-postgres",
            "service/ha-postgres-pods",
            "service/ha-postgres-standby"
        ]
    );
    assert_eq!(
        namespace.path("pg/ha-postgres", ".status.observedGeneration"),
        "1"
    );
    let conditions = namespace.path("pg/ha-postgres", ".status.conditions[*].type");
    assert_eq!(
        conditions,
        "ProvisioningStarted ReplicaReady AcceptingConnection Ready Provisioned"
    );
    let events = namespace.kubectl(&[
        "get",
        "event",
        "-o",
        "jsonpath={range .items[*]}{.reason}: {.message}{\"\\n\"}{end}",
    ]);
    for event in [
        "Successful: Successfully created Service",
        "Successful: Successfully created Postgres",
        "Phase Changed",
    ] {
        assert!(events.contains(event), "{event} is not in {events}");
    }
}

fn passwords_log_in(namespace: &TestNamespace<'_>) {
    let password = secret(namespace, "ha-postgres-auth", "password");
    for (host, standby) in [("ha-postgres", "f"), ("ha-postgres-standby", "t")] {
        let to =
            format!("host={host}.prov-life.svc user=postgres password={password} sslmode=disable");
        assert_eq!(
            psql(
                namespace,
                "ha-postgres-0",
                &to,
                "select pg_is_in_recovery()"
            )
            .as_deref(),
            Ok(standby)
        );
    }
    let wrong = "host=ha-postgres user=postgres password=wrong sslmode=disable";
    assert!(
        psql(namespace, "ha-postgres-0", wrong, "select 1")
            .is_err_and(|why| why.contains("password authentication failed"))
    );
}

async fn nothing_is_written_when_nothing_has_changed(
    seat: &Seat,
    namespace: &TestNamespace<'_>,
    controllers: Controllers,
) -> Controllers {
    let before = written(namespace);
    assert!(before.len() > 12, "{before:?}");
    controllers.stop().await;
    let controllers = Controllers::start(seat, namespace.name).await;
    // There is nothing to wait for: what must not happen has this time to happen, in which every
    // check comes round more than once.
    let time = sample_or_all(Duration::from_secs(45), Duration::from_mins(2));
    tokio::time::sleep(time).await;
    assert_eq!(written(namespace), before);
    controllers
}

async fn data_survive_the_primary(namespace: &TestNamespace<'_>) {
    let old = primary(namespace, "ha-postgres");
    let socket = "user=postgres";
    psql(
        namespace,
        &old,
        socket,
        "create table kept as select 42 as answer",
    )
    .expect("a table");
    let start = Instant::now();
    let uid = || namespace.path(&format!("pod/{old}"), ".metadata.uid");
    let before = uid();
    namespace.kubectl(&["delete", "pod", &old, "--wait=false"]);
    namespace
        .until("another primary", 60, || {
            let new = primary(namespace, "ha-postgres");
            !new.is_empty() && new != old
        })
        .await;
    println!(
        "the primary was deleted: another after {:.1} s",
        start.elapsed().as_secs_f32()
    );
    namespace
        .until("a new pod", 150, || {
            !["", before.as_str()].contains(&uid().as_str())
        })
        .await;
    namespace
        .until("three pods again", 90, || {
            namespace.path("petset/ha-postgres", ".status.readyReplicas") == "3"
        })
        .await;
    namespace.until_phase("ha-postgres", "Ready", 60).await;
    println!(
        "the primary was deleted: Ready again after {:.1} s",
        start.elapsed().as_secs_f32()
    );
    let new = primary(namespace, "ha-postgres");
    assert_eq!(
        psql(namespace, &new, socket, "select answer from kept").as_deref(),
        Ok("42")
    );
}

async fn a_deleted_object_comes_back(namespace: &TestNamespace<'_>) {
    let password = secret(namespace, "ha-postgres-auth", "password");
    let config = || namespace.path("cm/ha-postgres-config", ".metadata.annotations.config");
    let (agent, settings) = (
        secret(namespace, "ha-postgres-patroni", "password"),
        config(),
    );
    let patroni = namespace.path("cm/ha-postgres-patroni", ".data.patroni\\.yml");
    let start = Instant::now();
    namespace.kubectl(&[
        "delete",
        "svc/ha-postgres-standby",
        "cm/ha-postgres-patroni",
        "pdb/ha-postgres",
        "role/ha-postgres",
    ]);
    for name in ["ha-postgres-auth", "ha-postgres-patroni"] {
        namespace.kubectl(&[
            "patch",
            "secret",
            name,
            "--type=json",
            "-p",
            r#"[{"op": "remove", "path": "/data/password"}]"#,
        ]);
    }
    namespace.kubectl(&[
        "patch",
        "svc",
        "ha-postgres",
        "--type=merge",
        "-p",
        r#"{"spec": {"ports": [{"name": "primary", "port": 1}]}}"#,
    ]);
    let damaged = settings.replace("\"loop_wait\":5", "\"loop_wait\":9");
    assert_ne!(damaged, settings);
    let patch = json!({"metadata": {"annotations": {"config": damaged}}}).to_string();
    namespace.kubectl(&[
        "patch",
        "cm",
        "ha-postgres-config",
        "--type=merge",
        "-p",
        &patch,
    ]);
    namespace
        .until("everything is back", 30, || {
            names(namespace, "svc,pdb,role").len() == 5
                && namespace.path("cm/ha-postgres-patroni", ".data.patroni\\.yml") == patroni
                && namespace.path("svc/ha-postgres", ".spec.ports[*].port") == "5432"
                && config() == settings
                && !namespace
                    .path("secret/ha-postgres-auth", ".data.password")
                    .is_empty()
                && !namespace
                    .path("secret/ha-postgres-patroni", ".data.password")
                    .is_empty()
        })
        .await;
    println!(
        "what was deleted was back after {:.1} s",
        start.elapsed().as_secs_f32()
    );
    assert_eq!(secret(namespace, "ha-postgres-auth", "password"), password);
    assert_eq!(secret(namespace, "ha-postgres-patroni", "password"), agent);
}

async fn an_object_in_the_way_is_named(namespace: &TestNamespace<'_>, version: &str) {
    let theirs = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "taken"}, "spec": {"ports": [{"port": 80}]}});
    namespace.apply(&theirs);
    let before = namespace.path("svc/taken", ".metadata.resourceVersion");
    namespace.apply(&example("ha-postgres.yaml", "taken", 1, version));
    let said = || namespace.condition("pg/taken", "Blocked", "message");
    let expected = "Service taken exists and is not pgrekey's: rename or delete it, or give the database another name";
    namespace
        .until("the condition", 30, || said() == expected)
        .await;
    namespace
        .until("the event", 10, || {
            namespace
                .kubectl(&["get", "event"])
                .contains("Service taken exists and is not pgrekey's")
        })
        .await;
    assert_eq!(
        namespace.path("svc/taken", ".metadata.resourceVersion"),
        before
    );
    assert_eq!(namespace.path("petset/taken", ".metadata.name"), "");
    namespace.kubectl(&["delete", "svc", "taken"]);
    namespace
        .until("it goes on", 40, || said().is_empty())
        .await;
    namespace.until_phase("taken", "Ready", 60).await;
    namespace.kubectl(&["delete", "pg", "taken", "--timeout=60s"]);
}

async fn it_scales(namespace: &TestNamespace<'_>) {
    // The last pod becomes the primary, so that the one to go is it.
    let old = primary(namespace, "ha-postgres");
    if old != "ha-postgres-2" {
        let wish = json!({"leader": old, "member": "ha-postgres-2"});
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "ha-postgres-failover", "annotations": wish, "labels": {"app.kubernetes.io/instance": "ha-postgres",
                "app.kubernetes.io/managed-by": "kubedb.com", "app.kubernetes.io/name": "postgreses.kubedb.com",
                "postgreses.kubedb.com/database.cluster": "ha-postgres"}},
        });
        namespace.apply(&map);
        namespace
            .until("the last pod is the primary", 60, || {
                primary(namespace, "ha-postgres") == "ha-postgres-2"
            })
            .await;
        namespace.until_phase("ha-postgres", "Ready", 60).await;
    }
    namespace.patch("ha-postgres", &json!({"replicas": 5}));
    namespace
        .until("five pods", 120, || {
            namespace.path("petset/ha-postgres", ".status.readyReplicas") == "5"
        })
        .await;
    namespace.until_phase("ha-postgres", "Ready", 60).await;
    assert_eq!(primary(namespace, "ha-postgres"), "ha-postgres-2");
    let start = Instant::now();
    namespace.patch("ha-postgres", &json!({"replicas": 2}));
    namespace
        .until("two pods", 120, || names(namespace, "pod").len() == 2)
        .await;
    namespace
        .until("the set has two pods", 30, || {
            namespace.path("petset/ha-postgres", ".status.replicas") == "2"
        })
        .await;
    let stays = primary(namespace, "ha-postgres");
    assert!(
        ["ha-postgres-0", "ha-postgres-1"].contains(&stays.as_str()),
        "{stays}"
    );
    let slots = "select count(*) from pg_replication_slots where slot_name in ('ha_postgres_2', 'ha_postgres_3', 'ha_postgres_4')";
    namespace
        .until("no slot is left", 60, || {
            psql(namespace, &stays, "user=postgres", slots).as_deref() == Ok("0")
        })
        .await;
    let ttl = || {
        namespace
            .path("cm/ha-postgres-config", ".metadata.annotations.config")
            .contains("member_slots_ttl")
    };
    namespace.until("slots are kept again", 30, || !ttl()).await;
    namespace.until_phase("ha-postgres", "Ready", 60).await;
    println!(
        "from five pods to two, the primary among those that go: {:.1} s",
        start.elapsed().as_secs_f32()
    );
    let claim = namespace.path("pvc/data-ha-postgres-2", ".metadata.uid");
    assert!(!claim.is_empty(), "the data of a pod that went are kept");

    namespace.patch("ha-postgres", &json!({"replicas": 3}));
    namespace
        .until("three pods", 90, || {
            namespace.path("petset/ha-postgres", ".status.readyReplicas") == "3"
        })
        .await;
    namespace.until_phase("ha-postgres", "Ready", 60).await;
    assert_ne!(
        namespace.path("pvc/data-ha-postgres-2", ".metadata.uid"),
        claim,
        "a pod that comes back begins anew"
    );
    assert_eq!(
        psql(
            namespace,
            "ha-postgres-2",
            "user=postgres",
            "select answer from kept"
        )
        .as_deref(),
        Ok("42")
    );
}

async fn it_halts_and_comes_back(namespace: &TestNamespace<'_>) {
    let password = secret(namespace, "ha-postgres-auth", "password");
    namespace.patch(
        "ha-postgres",
        &json!({"halted": true, "deletionPolicy": "Halt"}),
    );
    namespace.until_phase("ha-postgres", "Halted", 90).await;
    assert_eq!(
        names(namespace, "petset,sts,pod,svc,role,rolebinding,pdb"),
        Vec::<String>::new()
    );
    // Those of the two that went for good are kept too.
    assert_eq!(names(namespace, "pvc").len(), 5);
    assert_eq!(secret(namespace, "ha-postgres-auth", "password"), password);
    namespace.patch(
        "ha-postgres",
        &json!({"halted": false, "replicas": 2, "deletionPolicy": "WipeOut"}),
    );
    namespace.until_phase("ha-postgres", "Ready", 120).await;
    let primary = primary(namespace, "ha-postgres");
    assert_eq!(
        psql(
            namespace,
            &primary,
            "user=postgres",
            "select answer from kept"
        )
        .as_deref(),
        Ok("42")
    );
}

async fn nothing_is_left_behind(namespace: &TestNamespace<'_>, name: &str) {
    let kinds =
        "petset,sts,pod,svc,secret,cm,role,rolebinding,pdb,pvc,certificate,sa,controllerrevision";
    let others = ["configmap/kube-root-ca.crt", "serviceaccount/default"];
    let left = || -> Vec<String> {
        names(namespace, kinds)
            .into_iter()
            .filter(|n| !others.contains(&n.as_str()) && n.contains(name))
            .collect()
    };
    namespace
        .until(&format!("nothing is left of {name}"), 60, || {
            left().is_empty()
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_has_tls_from_the_start() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    let seat = Seat::take(&cluster).await;
    let versions = versions(&cluster);
    let controllers = Controllers::start(&seat, "prov-tls").await;
    let namespace = TestNamespace::make(&cluster, "prov-tls");
    let namespace = &namespace;
    namespace.apply(&example("tls-postgres.yaml", "pg", 2, &versions[&18]));
    a_wait_names_its_cause(namespace).await;
    authority(namespace);
    let took = namespace.until_phase("pg", "Ready", 180).await;
    println!(
        "two pods of {} with TLS: Ready after {:.1} s",
        versions[&18],
        took.as_secs_f32()
    );
    the_canonical_line_connects_and_plaintext_does_not(namespace);
    the_image_has_the_groups_that_the_chart_says(namespace);
    a_damaged_key_is_mended(namespace).await;
    a_pause_is_lifted_when_its_request_has_gone(namespace).await;
    it_comes_back_with_its_data_and_then_without(namespace, &versions[&18]).await;
    controllers.stop().await;
}

/// Without an issuer nothing is issued, and nothing of TLS is made up instead.
async fn a_wait_names_its_cause(namespace: &TestNamespace<'_>) {
    let said = || namespace.condition("pg/pg", "Blocked", "message");
    namespace
        .until("the condition", 60, || {
            said().contains("there is no Issuer \"pg-issuer\" in namespace prov-tls")
        })
        .await;
    assert_eq!(names(namespace, "petset,pod"), Vec::<String>::new());
}

/// A server does not start with a group in `ssl_groups` that its OpenSSL lacks.
fn the_image_has_the_groups_that_the_chart_says(namespace: &TestNamespace<'_>) {
    let version = version_of_the_chart(18);
    let declared = version["annotations"][TLS_GROUPS].as_str().expect("groups");
    let list = ["openssl", "list", "-tls-groups"];
    let exec = ["exec", "pg-0", "-c", "postgres", "--"];
    let groups = namespace.kubectl(&[&exec[..], &list].concat());
    for group in declared.split(',') {
        assert!(
            groups.trim().split(':').any(|known| known == group),
            "{group} is not among {groups}"
        );
    }
    assert_eq!(
        show(namespace, "pg-0", "ssl_groups"),
        "X25519MLKEM768:X25519:prime256v1"
    );
}

/// An Issuer `pg-issuer` with a CA of its own.
fn authority(namespace: &TestNamespace<'_>) {
    let issuer = |name: &str, spec: Value| json!({"apiVersion": "cert-manager.io/v1", "kind": "Issuer", "metadata": {"name": name}, "spec": spec});
    namespace.apply(&issuer("self-signed", json!({"selfSigned": {}})));
    namespace.apply(&json!({
        "apiVersion": "cert-manager.io/v1", "kind": "Certificate", "metadata": {"name": "postgres-ca"},
        "spec": {"isCA": true, "commonName": "ca", "secretName": "postgres-ca", "issuerRef": {"name": "self-signed"},
            "duration": "87600h", "privateKey": {"rotationPolicy": "Never"}},
    }));
    namespace.apply(&issuer(
        "pg-issuer",
        json!({"ca": {"secretName": "postgres-ca"}}),
    ));
}

fn the_canonical_line_connects_and_plaintext_does_not(namespace: &TestNamespace<'_>) {
    let password = secret(namespace, "pg-auth", "password");
    let to = |mode: &str| format!("host=pg.prov-tls.svc user=postgres password={password} {mode}");
    let trust = "sslmode=verify-full sslrootcert=/tls/certs/client/ca.crt";
    let canonical = to(&format!(
        "{trust} sslcert=/tls/certs/client/client.crt sslkey=/tls/certs/client/client.key"
    ));
    let version = "select version from pg_stat_ssl where pid = pg_backend_pid()";
    for connection in [canonical, to(trust)] {
        assert_eq!(
            psql(namespace, "pg-0", &connection, version).as_deref(),
            Ok("TLSv1.3")
        );
    }
    let refused =
        psql(namespace, "pg-0", &to("sslmode=disable"), "select 1").expect_err("plaintext");
    assert!(
        refused.contains("no pg_hba.conf entry") && refused.contains("no encryption"),
        "{refused}"
    );
    let standbys =
        "select count(*) from pg_stat_replication join pg_stat_ssl using (pid) where ssl";
    let primary = primary(namespace, "pg");
    assert_eq!(
        psql(namespace, &primary, "user=postgres", standbys).as_deref(),
        Ok("1")
    );
    let published = namespace.path("cm/pg-ca", ".data.ca\\.crt");
    assert_eq!(
        published.trim(),
        secret(namespace, "postgres-ca", "ca.crt").trim()
    );
    let secrets = names(namespace, "secret");
    for name in [
        "pg-auth",
        "pg-client-cert",
        "pg-metrics-exporter-cert",
        "pg-server-cert",
        "pg-tls",
    ] {
        assert!(secrets.contains(&format!("secret/{name}")), "{secrets:?}");
    }
}

async fn a_damaged_key_is_mended(namespace: &TestNamespace<'_>) {
    let key = |of: &str| namespace.path("secret/pg-tls", &format!(".data.{of}\\.key"));
    let (before, of_another) = (key("server"), key("client"));
    assert_ne!(before, of_another);
    let remove = json!([{"op": "remove", "path": "/data/server.key"}]);
    let replace = json!([{"op": "replace", "path": "/data/server.key", "value": of_another}]);
    for patch in [remove, replace] {
        namespace.kubectl(&[
            "patch",
            "secret",
            "pg-tls",
            "--type=json",
            "-p",
            &patch.to_string(),
        ]);
        namespace
            .until("the key is back", 30, || key("server") == before)
            .await;
    }
}

async fn a_pause_is_lifted_when_its_request_has_gone(namespace: &TestNamespace<'_>) {
    let paused = || namespace.condition("pg/pg", "Paused", "message");
    let patch = |operations: Value| {
        namespace.kubectl(&[
            "patch",
            "pg",
            "pg",
            "--subresource=status",
            "--type=json",
            "-p",
            &operations.to_string(),
        ]);
    };
    let pause = |message: &str| {
        let now = jiff::Timestamp::now();
        let condition = json!({"type": "Paused", "status": "True", "message": message, "lastTransitionTime": now});
        patch(json!([{"op": "add", "path": "/status/conditions/-", "value": condition}]));
    };
    pause("Paused by PostgresOpsRequest gone (00000000-0000-0000-0000-000000000000)");
    namespace
        .until(
            "the pause that a request has left behind is lifted",
            30,
            || paused().is_empty(),
        )
        .await;

    pause("Paused by hand");
    namespace.kubectl(&["delete", "service", "pg-standby"]);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let service = || namespace.path("service/pg-standby", ".metadata.name");
    assert_eq!(
        (paused().as_str(), service().as_str()),
        ("Paused by hand", ""),
        "what somebody else paused stays so"
    );
    let types = namespace.path("pg/pg", ".status.conditions[*].type");
    let at = types
        .split(' ')
        .position(|type_| type_ == "Paused")
        .expect("the pause");
    let path = format!("/status/conditions/{at}");
    patch(
        json!([{"op": "test", "path": format!("{path}/type"), "value": "Paused"}, {"op": "remove", "path": path}]),
    );
    namespace
        .until("what was deleted meanwhile is made again", 30, || {
            !service().is_empty()
        })
        .await;
}

/// By TLS, with the exporter's own certificate, which names the Service.
async fn metrics_are_served(namespace: &TestNamespace<'_>) {
    assert_eq!(
        namespace.path(
            "svc/pg-stats",
            r".metadata.annotations.prometheus\.io/scheme"
        ),
        "https"
    );
    let url = "https://pg-stats.prov-tls.svc:56790/metrics";
    let arguments = [
        "-n",
        namespace.name,
        "exec",
        "pg-0",
        "-c",
        "postgres",
        "--",
        "curl",
        "-sS",
        "--cacert",
    ];
    let arguments: Vec<&str> = arguments
        .into_iter()
        .chain(["/tls/certs/exporter/ca.crt", url])
        .collect();
    // A Service may refuse for a second after its first pod is ready.
    let scrape = || namespace.cluster.kubectl(&arguments, "").stdout();
    namespace
        .until("metrics", 20, || scrape().contains("\npg_up 1\n"))
        .await;
}

async fn it_comes_back_with_its_data_and_then_without(
    namespace: &TestNamespace<'_>,
    version: &str,
) {
    let again = |policy: &str| {
        let mut again = example("tls-postgres.yaml", "pg", 1, version);
        again["spec"]["deletionPolicy"] = json!(policy);
        again
    };
    psql(
        namespace,
        &primary(namespace, "pg"),
        "user=postgres",
        "create table kept as select 42 as answer",
    )
    .expect("a table");
    let password = secret(namespace, "pg-auth", "password");
    namespace.patch("pg", &json!({"deletionPolicy": "Halt"}));
    namespace.kubectl(&["delete", "pg", "pg", "--timeout=90s"]);
    assert_eq!(names(namespace, "pvc").len(), 2);

    let mut observed = again("Delete");
    observed["spec"]["monitor"] = json!({"agent": "prometheus.io/builtin"});
    namespace.apply(&observed);
    namespace.until_phase("pg", "Ready", 120).await;
    metrics_are_served(namespace).await;
    assert_eq!(
        psql(
            namespace,
            "pg-0",
            "user=postgres",
            "select answer from kept"
        )
        .as_deref(),
        Ok("42")
    );
    assert_eq!(secret(namespace, "pg-auth", "password"), password);
    namespace.kubectl(&["delete", "pg", "pg", "--timeout=90s"]);
    namespace
        .until("the data are gone", 30, || {
            names(namespace, "pvc").is_empty()
        })
        .await;
    assert_eq!(secret(namespace, "pg-auth", "password"), password);

    namespace.apply(&again("DoNotTerminate"));
    namespace.until_phase("pg", "Ready", 120).await;
    assert!(
        psql(
            namespace,
            "pg-0",
            "user=postgres",
            "select answer from kept"
        )
        .is_err()
    );
    namespace.kubectl(&["delete", "pg", "pg", "--wait=false"]);
    let reason = || namespace.condition("pg/pg", "Blocked", "reason");
    namespace
        .until("it stays", 30, || reason() == "DoNotTerminate")
        .await;
    assert_eq!(names(namespace, "pod").len(), 1);
    namespace.patch("pg", &json!({"deletionPolicy": "WipeOut"}));
    nothing_is_left_behind(namespace, "pg-").await;
}
