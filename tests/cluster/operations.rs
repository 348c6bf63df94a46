//! Operations on a real Kubernetes, under the eyes of clients: the tutorial in its order, by
//! restart and by reload, and what goes wrong.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use pgrekey::api::annotations::OPS_REQUEST_FINALIZER;
use serde_json::{Value, json};

use crate::harness::{
    Cluster, Controllers, Operator, Seat, TestNamespace, Traffic, Writes, ca, ca_secret, ended,
    example, issuers, primary, psql, sample_or_all, secret, show, steps, tutorial, uids, versions,
};

pub(crate) fn request(name: &str, tls: &Value) -> Value {
    json!({
        "apiVersion": "ops.kubedb.com/v1alpha1", "kind": "PostgresOpsRequest", "metadata": {"name": name},
        "spec": {"type": "ReconfigureTLS", "databaseRef": {"name": "ha-postgres"}, "tls": tls, "apply": "Always"},
    })
}

pub(crate) fn by_reload(mut request: Value) -> Value {
    request["metadata"]["annotations"] = json!({"pgrekey.dev/strategy": "Reload"});
    request
}

/// What was written to the API server while an operation ran.
struct Written {
    by_it: usize,
    /// That much of it to its own status.
    of_status: usize,
    evictions: usize,
    by_others: usize,
    events: usize,
}

impl Written {
    fn of(writes: &BTreeMap<String, usize>) -> Self {
        let times = |kind: &str| writes.get(kind).copied().unwrap_or_default();
        let paused_and_resumed = times("postgreses/status").min(2);
        // The database's controllers write too: what became of the set, how the database is; and in
        // the end NAME-tls without what was served before, and what is needed no more.
        let of_the_set = times("petsets/status") + times("statefulsets");
        let of_the_database = times("postgreses/status") - paused_and_resumed;
        let served_before = usize::from(times("secrets") > 1);
        let gone: usize = ["certificates", "secrets", "configmaps"]
            .map(|kind| times(&format!("{kind} gone")))
            .iter()
            .sum();
        let (by_others, events) = (
            of_the_set + of_the_database + served_before + gone,
            times("events"),
        );
        Self {
            by_it: writes.values().sum::<usize>() - events - by_others,
            of_status: times("postgresopsrequests/status"),
            evictions: times("pods/eviction"),
            by_others,
            events,
        }
    }
}

/// Carries out one request while clients are at work, and prints what it took. No handshake may
/// fail.
pub(crate) async fn carry_out(
    namespace: &TestNamespace<'_>,
    writes: &Writes,
    request: &Value,
    restarts: bool,
) {
    let name = request["metadata"]["name"].as_str().expect("a name");
    let mut held = request.clone();
    // As the webhooks give it, without which these controllers run.
    held["metadata"]["finalizers"] = json!([OPS_REQUEST_FINALIZER]);
    let before = uids(namespace);
    let traffic = Traffic::start(&namespace.cluster.client, namespace.name, "ha-postgres").await;
    let _ = writes.take();
    let start = Instant::now();
    namespace.apply(&held);
    let phase = ended(namespace, name, 240).await;
    let took = start.elapsed();
    let is_held = || {
        !namespace
            .path(&format!("pgops/{name}"), ".metadata.finalizers")
            .is_empty()
    };
    namespace
        .until("the request is let go", 10, || !is_held())
        .await;
    let writes = writes.take();
    let Written {
        by_it,
        of_status,
        evictions,
        by_others,
        events,
    } = Written::of(&writes);
    let seen = traffic.stop().await;
    let after = uids(namespace);
    let restarted = after
        .iter()
        .filter(|(pod, uid)| before.get(*pod).is_some_and(|old| old != *uid))
        .count();
    // Three trials, and at most three certificates that are asked for anew, with two writes each.
    let bound = 24 + 3 * before.len();
    println!(
        "{name}: {phase} after {:.1} s, {restarted} pods restarted, longest write gap {:.2} s, {} rows, \
         {} TLS connections, {} refused, {} away, {by_it} writes of {bound} ({of_status} of its status), \
         {by_others} by other controllers, {events} events {writes:?}\n{}",
        took.as_secs_f32(),
        seen.gap.as_secs_f32(),
        seen.written.len(),
        seen.tries,
        seen.refused.len(),
        seen.away,
        steps(namespace, name),
    );
    assert_eq!(
        phase,
        "Successful",
        "{}",
        namespace.path(&format!("pgops/{name}"), ".status.conditions")
    );
    // What takes longer than a minute, which it does on no machine of ours, may say so more often.
    let longer = usize::try_from(took.as_secs().saturating_sub(60).div_ceil(30)).expect("a number");
    assert!(by_it <= bound + longer, "{name}: {writes:?}");
    assert_eq!(
        (restarted, evictions),
        if restarts {
            (before.len(), before.len())
        } else {
            (0, 0)
        },
        "{name}"
    );
    let may_be_refused = matches!(name, "add-tls" | "remove-tls");
    assert!(
        may_be_refused || seen.refused.is_empty(),
        "{name}: {:?}",
        seen.refused
    );
    assert!(
        seen.gap < Duration::from_secs(10),
        "{name}: nothing was written for {:?}",
        seen.gap
    );
    assert_eq!(
        namespace.condition("pg/ha-postgres", "Paused", "status"),
        "",
        "{name}"
    );
}

const VERIFY_FULL: &str = "host=ha-postgres.NS.svc user=postgres sslmode=verify-full sslrootcert=/tls/certs/client/ca.crt \
    sslcert=/tls/certs/client/client.crt sslkey=/tls/certs/client/client.key";

#[tokio::test(flavor = "multi_thread")]
async fn the_tutorial_runs_in_its_order_under_load() {
    const NAMESPACE: &str = "ops-tutorial";
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    let seat = Seat::take_early(&cluster).await;
    let versions = versions(&cluster);
    let (controllers, writes) = Controllers::counted(&seat, NAMESPACE).await;
    let namespace = &TestNamespace::make(&cluster, NAMESPACE);
    issuers(namespace);
    namespace.apply(&example(
        "ha-postgres.yaml",
        "ha-postgres",
        3,
        &versions[&17],
    ));
    namespace.until_phase("ha-postgres", "Ready", 180).await;
    assert_eq!(show(namespace, "ha-postgres-0", "ssl"), "off");
    a_synchronous_cluster_is_restarted(namespace).await;

    carry_out(namespace, &writes, &tutorial("add-tls.yaml"), true).await;
    tls_is_as_the_guide_says(namespace, "ha-postgres-0");

    let issued = |alias: &str| secret(namespace, &format!("ha-postgres-{alias}-cert"), "tls.crt");
    let before = (issued("client"), issued("server"));
    carry_out(namespace, &writes, &tutorial("rotate-tls.yaml"), true).await;
    assert!(issued("client") != before.0 && issued("server") != before.1);

    carry_out(namespace, &writes, &tutorial("change-issuer.yaml"), true).await;
    assert_eq!(
        secret(namespace, "ha-postgres-server-cert", "ca.crt"),
        secret(namespace, "postgres-new-ca", "tls.crt")
    );
    let trusted = namespace.kubectl(&[
        "exec",
        "ha-postgres-1",
        "-c",
        "postgres",
        "--",
        "cat",
        "/tls/certs/server/ca.crt",
    ]);
    assert_eq!(trusted, secret(namespace, "postgres-new-ca", "tls.crt"));

    carry_out(namespace, &writes, &tutorial("remove-tls.yaml"), true).await;
    nothing_is_left_of_tls(namespace).await;
    namespace.clear();
    controllers.stop().await;
}

/// The same, and what else happens to a database, without a restart.
#[tokio::test(flavor = "multi_thread")]
async fn an_operation_by_reload_restarts_no_pod_under_load() {
    const NAMESPACE: &str = "ops-reload";
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    let seat = Seat::take_early(&cluster).await;
    let versions = versions(&cluster);
    let (controllers, writes) = Controllers::counted(&seat, NAMESPACE).await;
    let namespace = &TestNamespace::make(&cluster, NAMESPACE);
    issuers(namespace);
    let mut database = example("ha-postgres.yaml", "ha-postgres", 3, &versions[&17]);
    database["spec"]["sslMode"] = json!("verify-full");
    database["spec"]["clientAuthMode"] = json!("cert");
    database["spec"]["tls"] = json!({"issuerRef": {"apiGroup": "cert-manager.io", "kind": "Issuer", "name": "pg-new-issuer"}});
    namespace.apply(&database);
    namespace.until_phase("ha-postgres", "Ready", 180).await;

    let rotate = by_reload(request(
        "rotate-by-reload",
        &json!({"rotateCertificates": true}),
    ));
    carry_out(namespace, &writes, &rotate, false).await;
    let back = json!({"issuerRef": {"apiGroup": "cert-manager.io", "kind": "Issuer", "name": "pg-issuer"}});
    carry_out(
        namespace,
        &writes,
        &by_reload(request("issuer-by-reload", &back)),
        false,
    )
    .await;
    only_the_named_certificate_changes(namespace, &writes).await;
    let modes = json!({"sslMode": "require", "clientAuthMode": "scram"});
    carry_out(
        namespace,
        &writes,
        &by_reload(request("modes-by-reload", &modes)),
        false,
    )
    .await;
    a_cluster_issuer_signs_as_well(namespace, &writes).await;
    a_renewed_certificate_is_served_without_a_restart(namespace).await;
    a_new_key_of_the_ca_is_told_to_clients_before_it_is_served(namespace).await;
    an_ended_request_is_not_touched_again(namespace, &writes).await;
    two_at_once_both_run(namespace).await;
    a_certificate_that_cannot_be_issued_touches_nothing(namespace).await;
    a_request_deleted_on_the_way_leaves_the_database_well(namespace).await;

    carry_out(namespace, &writes, &tutorial("remove-tls.yaml"), true).await;
    nothing_is_left_of_tls(namespace).await;
    namespace.clear();
    controllers.stop().await;
}

async fn nothing_is_left_of_tls(namespace: &TestNamespace<'_>) {
    let issued = ["server", "client", "metrics-exporter"]
        .map(|alias| format!("secret/ha-postgres-{alias}-cert"));
    namespace
        .until("what was issued is gone", 30, || {
            issued
                .iter()
                .all(|it| namespace.path(it, ".metadata.name").is_empty())
        })
        .await;
    let ssl = ["ssl", "ssl_cert_file", "ssl_key_file"]
        .map(|setting| show(namespace, "ha-postgres-0", setting));
    assert_eq!(ssl, ["off", "server.crt", "server.key"]);
    let password = secret(namespace, "ha-postgres-auth", "password");
    let plain = format!(
        "host=ha-postgres.{}.svc user=postgres password={password} sslmode=disable",
        namespace.name
    );
    assert_eq!(
        psql(namespace, "ha-postgres-1", &plain, "select 1").as_deref(),
        Ok("1")
    );
}

/// While nobody writes, all standbys are equally far, and Patroni hands the leadership over only to
/// the one that is synchronous.
async fn a_synchronous_cluster_is_restarted(namespace: &TestNamespace<'_>) {
    let first =
        json!({"streamingMode": "Synchronous", "synchronousReplicationConfig": {"mode": "First"}});
    namespace.patch("ha-postgres", &first);
    let synchronous =
        || namespace.path("cm/ha-postgres-sync", ".metadata.annotations.sync_standby");
    namespace
        .until("a standby is synchronous", 60, || !synchronous().is_empty())
        .await;
    let (before, start) = (uids(namespace), Instant::now());
    namespace.apply(&json!({
        "apiVersion": "ops.kubedb.com/v1alpha1", "kind": "PostgresOpsRequest", "metadata": {"name": "restart"},
        "spec": {"type": "Restart", "databaseRef": {"name": "ha-postgres"}},
    }));
    let phase = ended(namespace, "restart", 180).await;
    let (took, steps) = (start.elapsed().as_secs_f32(), steps(namespace, "restart"));
    println!("one of two standbys is synchronous: restart: {phase} after {took:.1} s\n{steps}");
    assert_eq!(
        phase,
        "Successful",
        "{}",
        namespace.path("pgops/restart", ".status.conditions")
    );
    assert!(
        uids(namespace)
            .iter()
            .all(|(pod, uid)| before.get(pod) != Some(uid))
    );
    assert_eq!(
        namespace.path(
            "pgops/restart",
            r#".status.steps[?(@.name=="SwitchOver")].attempts"#
        ),
        "1"
    );
    namespace.patch(
        "ha-postgres",
        &json!({"streamingMode": null, "synchronousReplicationConfig": null}),
    );
    namespace
        .until("no standby is synchronous", 60, || synchronous().is_empty())
        .await;
    namespace.until_phase("ha-postgres", "Ready", 60).await;
}

fn tls_is_as_the_guide_says(namespace: &TestNamespace<'_>, pod: &str) {
    let files = namespace.kubectl(&[
        "exec",
        pod,
        "-c",
        "postgres",
        "--",
        "sh",
        "-c",
        "cd /tls/certs && ls */*",
    ]);
    let expected = "client/ca.crt client/client.crt client/client.key exporter/ca.crt exporter/tls.crt exporter/tls.key \
        server/ca.crt server/server.crt server/server.key";
    assert_eq!(
        files.split_whitespace().collect::<Vec<_>>().join(" "),
        expected
    );
    let to = VERIFY_FULL.replace("NS", namespace.name);
    let session = "select ssl, version from pg_stat_ssl where pid = pg_backend_pid()";
    assert_eq!(
        psql(namespace, pod, &to, session).as_deref(),
        Ok("t|TLSv1.3")
    );
    let settings =
        ["ssl", "ssl_cert_file", "ssl_key_file"].map(|setting| show(namespace, pod, setting));
    assert_eq!(
        settings,
        [
            "on",
            "/tls/certs/server/server.crt",
            "/tls/certs/server/server.key"
        ]
    );
    let plain = format!(
        "host=ha-postgres.{}.svc user=postgres sslmode=disable",
        namespace.name
    );
    let refused = psql(namespace, pod, &plain, "select 1").expect_err("plaintext is refused");
    assert!(refused.contains("no pg_hba.conf entry"), "{refused}");
    let standbys = "select count(*) from pg_stat_replication join pg_stat_ssl using (pid) where ssl and client_dn like '%CN=postgres%'";
    assert_eq!(
        psql(
            namespace,
            &primary(namespace, "ha-postgres"),
            "user=postgres",
            standbys
        )
        .as_deref(),
        Ok("2")
    );
    assert_eq!(
        namespace.path("pgops/add-tls", ".status.pods[*].restarted"),
        "true true true"
    );
    // PostgreSQL before 18 has one curve.
    assert_eq!(
        namespace.path("pgops/add-tls", ".status.pods[*].tls.group"),
        "secp256r1 secp256r1 secp256r1"
    );
    let mode = namespace.path("pg/ha-postgres", ".spec.sslMode")
        + &namespace.path("pg/ha-postgres", ".spec.clientAuthMode");
    assert_eq!(mode, "verify-fullcert");
}

async fn only_the_named_certificate_changes(namespace: &TestNamespace<'_>, writes: &Writes) {
    let revision = |alias: &str| {
        namespace.path(
            &format!("certificate/ha-postgres-{alias}-cert"),
            ".status.revision",
        )
    };
    let client = revision("client");
    let tls = json!({"certificates": [{"alias": "server", "dnsNames": ["db.example"]}]});
    carry_out(
        namespace,
        writes,
        &by_reload(request("update-by-reload", &tls)),
        false,
    )
    .await;
    assert_eq!(revision("client"), client);
    let names = namespace.path("certificate/ha-postgres-server-cert", ".spec.dnsNames");
    assert!(names.contains("db.example"), "{names}");
}

async fn a_cluster_issuer_signs_as_well(namespace: &TestNamespace<'_>, writes: &Writes) {
    let ca = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": {"name": "ops-tutorial-ca", "namespace": "cert-manager"},
        "stringData": {
            "tls.crt": secret(namespace, "postgres-new-ca", "tls.crt"), "tls.key": secret(namespace, "postgres-new-ca", "tls.key"),
        },
    });
    let issuer = json!({
        "apiVersion": "cert-manager.io/v1", "kind": "ClusterIssuer", "metadata": {"name": "ops-tutorial"},
        "spec": {"ca": {"secretName": "ops-tutorial-ca"}},
    });
    namespace
        .cluster
        .apply(&json!({"apiVersion": "v1", "kind": "List", "items": [ca, issuer]}).to_string());
    namespace.kubectl(&[
        "wait",
        "--for=condition=Ready",
        "--timeout=60s",
        "clusterissuer/ops-tutorial",
    ]);
    let issuer = |kind: &str, name: &str| json!({"issuerRef": {"apiGroup": "cert-manager.io", "kind": kind, "name": name}});
    let there = by_reload(request(
        "cluster-issuer",
        &issuer("ClusterIssuer", "ops-tutorial"),
    ));
    carry_out(namespace, writes, &there, false).await;
    carry_out(
        namespace,
        writes,
        &by_reload(request("issuer-again", &issuer("Issuer", "pg-issuer"))),
        false,
    )
    .await;
}

/// cert-manager renews the server's certificate every few seconds, and clients notice nothing.
async fn a_renewed_certificate_is_served_without_a_restart(namespace: &TestNamespace<'_>) {
    let certificates = namespace.path("pg/ha-postgres", ".spec.tls.certificates");
    let before = uids(namespace);
    let traffic = Traffic::start(&namespace.cluster.client, namespace.name, "ha-postgres").await;
    let short = json!([{"alias": "server", "duration": "1h", "renewBefore": "59m45s"}]);
    namespace.patch("ha-postgres", &json!({"tls": {"certificates": short}}));
    let served = || secret(namespace, "ha-postgres-tls", "server.crt");
    let mut seen = vec![served()];
    for n in 0..sample_or_all(2, 3) {
        let last = seen[n].clone();
        namespace
            .until("a renewed certificate is taken into service", 90, || {
                served() != last
            })
            .await;
        seen.push(served());
    }
    let certificates_seen = seen.len();
    let certificates: Value = serde_json::from_str(&certificates).unwrap_or(json!([]));
    namespace.patch(
        "ha-postgres",
        &json!({"tls": {"certificates": certificates}}),
    );
    let issued = || secret(namespace, "ha-postgres-server-cert", "tls.crt");
    // A short one is for one hour.
    let in_two_hours = jiff::Timestamp::now() + Duration::from_hours(2);
    let ends = || {
        namespace
            .path("certificate/ha-postgres-server-cert", ".status.notAfter")
            .parse::<jiff::Timestamp>()
    };
    let is_long = || ends().is_ok_and(|ends| ends > in_two_hours);
    namespace
        .until("the last one is in service", 90, || {
            is_long() && served() == issued()
        })
        .await;
    let is_done = || {
        namespace.path("pg/ha-postgres", ".status.observedGeneration")
            == namespace.path("pg/ha-postgres", ".metadata.generation")
    };
    namespace
        .until("there is nothing left to do", 30, is_done)
        .await;
    namespace.until_phase("ha-postgres", "Ready", 30).await;
    let seen = traffic.stop().await;
    println!(
        "renewed {} times: {} TLS connections, {} refused",
        certificates_seen,
        seen.tries,
        seen.refused.len()
    );
    assert!(
        seen.tries > 20 && seen.refused.is_empty(),
        "{:?}",
        seen.refused
    );
    assert_eq!(uids(namespace), before);
}

/// Somebody renews the CA's Secret, and cert-manager signs with it what it renews from then on.
async fn a_new_key_of_the_ca_is_told_to_clients_before_it_is_served(namespace: &TestNamespace<'_>) {
    // Longer than a busy machine needs until the controllers have seen that every pod is ready for it.
    const SETTLE: Duration = Duration::from_secs(20);
    // The API server's times are whole seconds, and what is waited for here is seen a little late.
    const SHORTEST: Duration = Duration::from_secs(18);
    clients_get(namespace, Some(SETTLE));
    let before = uids(namespace);
    let old = secret(namespace, "postgres-ca", "tls.crt");
    namespace.apply(&ca_secret("postgres-ca", &ca("ca")));
    let new = secret(namespace, "postgres-ca", "tls.crt");
    let bundle = || namespace.path("configmap/ha-postgres-ca", r".data.ca\.crt");
    let trusted = || secret(namespace, "ha-postgres-tls", "ca.crt");
    let holds = |bundle: &str, ca: &str| bundle.contains(ca.trim());
    let served = |file: &str| secret(namespace, "ha-postgres-tls", file);
    let traffic = Traffic::start(&namespace.cluster.client, namespace.name, "ha-postgres").await;

    let first = served("server.crt");
    for alias in ["server", "metrics-exporter"] {
        renew(namespace, alias);
    }
    namespace
        .until(
            "clients are told of the new CA beside the old one",
            60,
            || {
                let bundle = bundle();
                holds(&bundle, &old) && holds(&bundle, &new)
            },
        )
        .await;
    let told = Instant::now();
    namespace
        .until("the new CA's leaf is served", 60, || {
            served("server.crt") != first
        })
        .await;
    let until_served = told.elapsed();
    assert!(until_served >= SHORTEST, "clients got {until_served:?}");
    assert!(
        holds(&trusted(), &old),
        "the old CA still signs for clients"
    );

    let first = served("client.crt");
    renew(namespace, "client");
    namespace
        .until(
            "the next client certificate is the cluster's own",
            60,
            || served("client.crt") != first,
        )
        .await;
    let told = Instant::now();
    assert!(
        holds(&trusted(), &old),
        "clients show what the old CA has signed"
    );
    namespace
        .until("only the new CA is trusted", 60, || {
            bundle().trim() == new.trim() && trusted().trim() == new.trim()
        })
        .await;
    let until_gone = told.elapsed();
    assert!(until_gone >= SHORTEST, "clients got {until_gone:?}");

    let seen = traffic.stop().await;
    println!(
        "a new key of the CA: served {until_served:.1?} after clients were told, the old one gone {until_gone:.1?} after that, \
         {} TLS connections, {} refused",
        seen.tries,
        seen.refused.len()
    );
    assert!(seen.refused.is_empty(), "{:?}", seen.refused);
    assert_eq!(uids(namespace), before);
    namespace.until_phase("ha-postgres", "Ready", 30).await;
    let notes = r#"jsonpath={range .items[?(@.reason=="ClientGracePeriod")]}{.message}{"\n"}{end}"#;
    for what in [
        "Z to trust the new CA",
        "Z to present certificates of the CAs that stay",
    ] {
        let is_told = || {
            namespace
                .kubectl(&["get", "events", "-o", notes])
                .contains(what)
        };
        namespace.until(what, 30, is_told).await;
    }
    clients_get(namespace, None);
}

/// How long clients get, of renewals and of requests that do not say.
fn clients_get(namespace: &TestNamespace<'_>, time: Option<Duration>) {
    let annotation = time.map_or("pgrekey.dev/client-grace-period-".to_owned(), |time| {
        format!("pgrekey.dev/client-grace-period={}s", time.as_secs())
    });
    namespace.kubectl(&["annotate", "pg", "ha-postgres", &annotation]);
}

/// As cert-manager's own command line does it.
fn renew(namespace: &TestNamespace<'_>, alias: &str) {
    let issuing = json!({
        "type": "Issuing", "status": "True", "reason": "ManuallyTriggered", "message": "by a test",
        "lastTransitionTime": jiff::Timestamp::now(),
    });
    let patch =
        json!([{"op": "add", "path": "/status/conditions/-", "value": issuing}]).to_string();
    let certificate = format!("certificate/ha-postgres-{alias}-cert");
    namespace.kubectl(&[
        "patch",
        &certificate,
        "--subresource=status",
        "--type=json",
        "-p",
        &patch,
    ]);
}

async fn an_ended_request_is_not_touched_again(namespace: &TestNamespace<'_>, writes: &Writes) {
    let versions = || namespace.path("pgops/rotate-by-reload", ".metadata.resourceVersion");
    let before = versions();
    let is_quiet = || async {
        let _ = writes.take();
        tokio::time::sleep(Duration::from_secs(3)).await;
        writes.take().is_empty()
    };
    crate::harness::eventually("nothing is written any more", is_quiet).await;
    // Each change of the database makes its requests be looked at.
    let databases = kube::Api::<pgrekey::api::Postgres>::namespaced(
        namespace.cluster.client.clone(),
        namespace.name,
    );
    for n in 0..100 {
        let patch =
            kube::api::Patch::Merge(json!({"metadata": {"annotations": {"seen": n.to_string()}}}));
        databases
            .patch("ha-postgres", &kube::api::PatchParams::default(), &patch)
            .await
            .expect("a patch");
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(versions(), before);
    let mut written = writes.take();
    // The check of the database's health goes on meanwhile, and may have something to say of its
    // own.
    written.remove("postgreses/status");
    assert_eq!(written, BTreeMap::new());
}

async fn two_at_once_both_run(namespace: &TestNamespace<'_>) {
    let rotate = |name: &str| by_reload(request(name, &json!({"rotateCertificates": true})));
    namespace.apply(
        &json!({"apiVersion": "v1", "kind": "List", "items": [rotate("first"), rotate("second")]}),
    );
    let waits = || namespace.condition("pgops/second", "Pending", "message");
    namespace
        .until("the second waits for the first", 30, || {
            waits().contains("first")
        })
        .await;
    assert_eq!(ended(namespace, "first", 120).await, "Successful");
    assert_eq!(ended(namespace, "second", 120).await, "Successful");
    let revision = namespace.path("certificate/ha-postgres-client-cert", ".status.revision");
    println!("two at once: the client certificate is at revision {revision}");
    namespace.kubectl(&[
        "annotate",
        "pgops",
        "second",
        "pgrekey.dev/ttl-after-finished=1s",
    ]);
    let is_gone = || namespace.path("pgops/second", ".metadata.name").is_empty();
    namespace
        .until(
            "a request is deleted when its time after the end is over",
            30,
            is_gone,
        )
        .await;
}

async fn a_certificate_that_cannot_be_issued_touches_nothing(namespace: &TestNamespace<'_>) {
    // What was served before the last operation may still go.
    let served = || {
        ["server.crt", "client.crt", "ca.crt"]
            .map(|file| secret(namespace, "ha-postgres-tls", file))
    };
    let (uids_before, served_before) = (uids(namespace), served());
    let mut request = request("no-ca", &json!({"issuerRef": {"name": "empty-issuer"}}));
    request["spec"]["timeout"] = json!("5s");
    request["spec"]["maxRetries"] = json!(0);
    namespace.apply(&request);
    assert_eq!(ended(namespace, "no-ca", 60).await, "Failed");
    let why = namespace.condition("pgops/no-ca", "Failed", "message");
    assert!(why.contains("empty-issuer"), "{why}");
    println!("no CA: {why}");
    assert_eq!((uids(namespace), served()), (uids_before, served_before));
    assert_eq!(
        namespace.condition("pg/ha-postgres", "Paused", "status"),
        ""
    );
    namespace.until_phase("ha-postgres", "Ready", 30).await;
}

async fn a_request_deleted_on_the_way_leaves_the_database_well(namespace: &TestNamespace<'_>) {
    let issuer = json!({"issuerRef": {"apiGroup": "cert-manager.io", "kind": "Issuer", "name": "pg-new-issuer"}});
    clients_get(namespace, Some(Duration::from_secs(1)));
    namespace.apply(&request("given-up", &issuer));
    let step = || namespace.path("pgops/given-up", ".status.steps[*].name");
    namespace
        .until("the first pod is restarted", 120, || {
            step().contains("Restart")
        })
        .await;
    namespace.kubectl(&["delete", "pgops", "given-up", "--wait=false"]);
    namespace
        .until("the request is gone", 180, || {
            namespace
                .path("pgops/given-up", ".metadata.name")
                .is_empty()
        })
        .await;
    assert_eq!(
        namespace.condition("pg/ha-postgres", "Paused", "status"),
        ""
    );
    let ca = secret(namespace, "postgres-ca", "tls.crt");
    let served = || secret(namespace, "ha-postgres-tls", "ca.crt");
    namespace
        .until("only the CA of the spec is trusted", 120, || served() == ca)
        .await;
    namespace.until_phase("ha-postgres", "Ready", 60).await;
    clients_get(namespace, None);
}

/// PostgreSQL 18, one pod and two, and pgrekey killed again and again.
#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_is_killed_loses_nothing() {
    const NAMESPACE: &str = "ops-killed";
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    let seat = Seat::take(&cluster).await;
    let versions = versions(&cluster);
    let arguments = ["--watch-namespace", NAMESPACE, "--identity", "killed"];
    let start = || Operator::start_unregistered(&seat, &arguments);
    let mut operator = start();
    let namespace = &TestNamespace::make(&cluster, NAMESPACE);
    drop(operator);
    operator = start();
    issuers(namespace);
    namespace.apply(&example(
        "ha-postgres.yaml",
        "ha-postgres",
        1,
        &versions[&18],
    ));
    namespace.until_phase("ha-postgres", "Ready", 180).await;
    namespace.apply(&tutorial("add-tls.yaml"));
    assert_eq!(ended(namespace, "add-tls", 180).await, "Successful");
    println!(
        "one pod of {}: add-tls\n{}",
        versions[&18],
        steps(namespace, "add-tls")
    );
    namespace.kubectl(&[
        "patch",
        "pg",
        "ha-postgres",
        "--type=merge",
        "-p",
        r#"{"spec": {"replicas": 2}}"#,
    ]);
    namespace
        .until("two pods", 120, || {
            namespace.path("petset/ha-postgres", ".status.readyReplicas") == "2"
        })
        .await;
    namespace.until_phase("ha-postgres", "Ready", 60).await;

    let traffic = Traffic::start(&cluster.client, NAMESPACE, "ha-postgres").await;
    let before = uids(namespace);
    let began = Instant::now();
    namespace.apply(&tutorial("change-issuer.yaml"));
    let times = sample_or_all(6, 10);
    for n in 0..times {
        tokio::time::sleep(Duration::from_millis(1700 + 130 * n)).await;
        drop(operator);
        operator = start();
    }
    assert_eq!(ended(namespace, "change-issuer", 240).await, "Successful");
    let took = began.elapsed();
    let seen = traffic.stop().await;
    println!(
        "killed {times} times: change-issuer after {:.1} s, longest write gap {:.2} s, {} TLS connections, refused: {:?}\n{}",
        took.as_secs_f32(),
        seen.gap.as_secs_f32(),
        seen.tries,
        seen.refused,
        steps(namespace, "change-issuer"),
    );
    assert_eq!(seen.refused, Vec::<String>::new());
    assert!(
        uids(namespace)
            .iter()
            .all(|(pod, uid)| before.get(pod) != Some(uid))
    );
    assert_eq!(
        namespace.condition("pg/ha-postgres", "Paused", "status"),
        ""
    );
    namespace.clear();
}
