//! Looking at a real PostgreSQL from outside: on the wire and in SQL.

use std::net::SocketAddr;

use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use pgrekey::api::ports::POSTGRES_PORT;
use pgrekey::api::tls::SslMode;
use pgrekey::database::ProbeError;
use pgrekey::database::connect::ConnectOptions;
use pgrekey::database::probe::{Plaintext, handshake, probe};
use pgrekey::database::server_status::{
    mounted_files, reload, server_status, store_password, write_check,
};
use pgrekey::database::session::Session;
use pgrekey::pki::Fingerprint;
use pgrekey::pki::key_pair::CertificateAndKey;
use pgrekey::tls::PasswordEncryption;
use serde_json::json;

use crate::harness::{Ca, Cluster, Known, ca, eventually, leaf, leaf_until};

const PASSWORD: &str = "correct horse battery staple";

/// One PostgreSQL in a pod, with TLS, a role that logs in by password and one that logs in by
/// certificate.
struct Server<'a> {
    cluster: &'a Cluster,
    name: String,
    address: SocketAddr,
}

impl<'a> Server<'a> {
    async fn start(
        cluster: &'a Cluster,
        name: &str,
        major: u32,
        ca: &Ca,
        (certificate, key): &(String, String),
    ) -> Self {
        let name = name.to_owned();
        let manifests = json!({"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "demo"},
             "stringData": {"ca.crt": ca.pem(), "tls.crt": certificate, "tls.key": key}},
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "demo"}, "spec": {
                "terminationGracePeriodSeconds": 1,
                "securityContext": {"runAsUser": 999, "runAsGroup": 999, "fsGroup": 999},
                "containers": [{
                    "name": "postgres", "image": format!("pgrekey.local/postgres:{major}"), "imagePullPolicy": "IfNotPresent",
                    "command": ["bash", "-ec", SCRIPT], "env": [{"name": "PGPASSWORD", "value": PASSWORD}],
                    // Without, it would wait for everything else on a busy machine.
                    "resources": {"requests": {"cpu": "100m"}},
                    "readinessProbe": {"exec": {"command": ["pg_isready", "-h", "localhost"]}, "periodSeconds": 1},
                    "volumeMounts": [{"name": "tls", "mountPath": "/tls"}],
                }],
                "volumes": [{"name": "tls", "secret": {"secretName": name, "defaultMode": 0o640}}],
            }},
        ]});
        cluster
            .kubectl(
                &[
                    "delete",
                    "pod",
                    "-n",
                    "demo",
                    &name,
                    "--ignore-not-found",
                    "--force",
                ],
                "",
            )
            .must_succeed();
        cluster.apply(&manifests.to_string());
        let wait = [
            "wait",
            "-n",
            "demo",
            "--for=condition=Ready",
            "--timeout=120s",
            &format!("pod/{name}"),
        ];
        cluster.kubectl(&wait, "").must_succeed();
        let pod = Api::<Pod>::namespaced(cluster.client.clone(), "demo")
            .get(&name)
            .await
            .expect("the pod");
        let ip = pod
            .status
            .and_then(|s| s.pod_ip)
            .expect("an address")
            .parse()
            .expect("an address");
        Self {
            cluster,
            name,
            address: SocketAddr::new(ip, POSTGRES_PORT.number),
        }
    }

    fn dial(&self, mode: SslMode, roots: &[&Ca]) -> ConnectOptions {
        ConnectOptions {
            address: self.address,
            host: "db.example".to_owned(),
            user: "postgres".to_owned(),
            password: Some(PASSWORD.to_owned().into()),
            hash: PasswordEncryption::Scram,
            major: None,
            pair: None,
            mode,
            roots: roots.iter().map(|ca| ca.der().to_vec()).collect(),
        }
    }

    /// A session of somebody else's.
    async fn client(&self, roots: &[&Ca]) -> tokio_postgres::Client {
        let roots = roots.iter().map(|ca| ca.der().to_vec()).collect();
        let (host, password) = ("db.example".to_owned(), PASSWORD.to_owned());
        Known {
            address: self.address,
            host,
            password,
            pair: None,
            roots,
        }
        .log_in()
        .await
        .expect("a login")
    }

    /// What a command in the pod prints.
    fn exec(&self, command: &[&str]) -> String {
        let exec = [&["exec", "-n", "demo", &self.name, "--"], command].concat();
        self.cluster.kubectl(&exec, "").must_succeed()
    }

    fn stop(self) {
        let Self { cluster, name, .. } = self;
        cluster
            .kubectl(
                &["delete", "-n", "demo", "pod,secret", &name, "--wait=false"],
                "",
            )
            .must_succeed();
    }
}

const SCRIPT: &str = r#"
    cd /tmp && initdb -D data -A scram-sha-256 --pwfile=<(echo "$PGPASSWORD") >/dev/null
    cat >>data/postgresql.conf <<C
listen_addresses = '*'
unix_socket_directories = '/tmp'
ssl = on
ssl_cert_file = '/tls/tls.crt'
ssl_key_file = '/tls/tls.key'
ssl_ca_file = '/tls/ca.crt'
log_statement = 'all'
log_min_duration_statement = 0
C
    cat >data/pg_hba.conf <<C
hostssl all by_certificate all cert
hostssl all all            all scram-sha-256
C
    exec postgres -D data
"#;

#[tokio::test]
async fn a_server_of_17_is_observed_as_it_is() {
    a_server_is_observed_as_it_is(17).await;
}

#[tokio::test]
async fn a_server_of_18_is_observed_as_it_is() {
    a_server_is_observed_as_it_is(18).await;
}

async fn a_server_is_observed_as_it_is(major: u32) {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    let (trusted, stranger) = (ca("trusted"), ca("stranger"));
    let issued = leaf(&trusted, "server", &["db.example"]);
    let name = format!("database-{major}");
    let server = Server::start(&cluster, &name, major, &trusted, &issued).await;
    the_image_holds_the_version_of_its_name(&server, major);
    the_wire_shows_the_truth(&server, &trusted, &issued).await;
    sslmode_means_the_same_as_in_libpq(&server, &trusted, &stranger).await;
    client_certificates_log_in(&server, &trusted, &stranger).await;
    a_password_is_stored_and_not_logged(&server, &trusted).await;
    a_new_certificate_is_served_after_a_reload(&server, &trusted).await;
    an_expired_certificate_keeps_out_all_but_its_replacer(&server, &trusted, &stranger).await;
    server.stop();
}

/// What other tests of this process need would be counted too.
#[tokio::test]
async fn a_session_that_is_kept_costs_little() {
    let Some(cluster) = Cluster::connect_alone().await else {
        return;
    };
    let trusted = ca("trusted");
    for major in [17, 18] {
        let issued = leaf(&trusted, "server", &["db.example"]);
        let name = format!("sessions-{major}");
        let server = Server::start(&cluster, &name, major, &trusted, &issued).await;
        sessions_that_are_kept_cost_little(&server, &trusted).await;
        server.stop();
    }
}

fn the_image_holds_the_version_of_its_name(server: &Server<'_>, major: u32) {
    let postgres = server.exec(&["postgres", "--version"]);
    assert!(
        postgres.starts_with(&format!("postgres (PostgreSQL) {major}.")),
        "{postgres}"
    );
    let patroni = server.exec(&["patroni", "--version"]);
    assert!(patroni.starts_with("patroni "), "{patroni}");
}

async fn the_wire_shows_the_truth(server: &Server<'_>, trusted: &Ca, issued: &(String, String)) {
    let wire = probe(server.address, "postgres").await;
    let shown = wire.tls.expect("a handshake");
    let pair = CertificateAndKey::parse(issued.0.as_bytes(), issued.1.as_bytes()).expect("a pair");
    assert_eq!(shown.chain[0], pair.chain()[0].to_vec());
    let (_, parsed) = x509_parser::parse_x509_certificate(trusted.der()).expect("a certificate");
    assert_eq!(
        shown.takes.into_iter().collect::<Vec<_>>(),
        [parsed.subject().as_raw().to_vec()]
    );
    assert_eq!(wire.plaintext, Ok(Plaintext::Refused));
    let nobody = SocketAddr::new(server.address.ip(), 1);
    assert!(matches!(
        handshake(nobody).await,
        Err(ProbeError::Unreachable(_))
    ));
}

async fn sslmode_means_the_same_as_in_libpq(server: &Server<'_>, trusted: &Ca, stranger: &Ca) {
    use SslMode::{Require, VerifyCa, VerifyFull};
    let try_with = async |mode, roots: &[&Ca], host: &str| {
        let dial = ConnectOptions {
            host: host.to_owned(),
            ..server.dial(mode, roots)
        };
        dial.log_in().await.map(|_| ())
    };
    assert_eq!(try_with(VerifyFull, &[trusted], "db.example").await, Ok(()));
    assert_eq!(
        try_with(VerifyCa, &[trusted], "other.example").await,
        Ok(())
    );
    assert_eq!(try_with(Require, &[], "other.example").await, Ok(()));
    for (mode, roots, host) in [
        (VerifyFull, [trusted], "other.example"),
        (VerifyFull, [stranger], "db.example"),
        (VerifyCa, [stranger], "db.example"),
        (Require, [stranger], "db.example"),
    ] {
        assert!(
            try_with(mode, &roots, host).await.is_err(),
            "{mode:?} {host}"
        );
    }
    let plaintext = server
        .dial(SslMode::Disable, &[])
        .log_in()
        .await
        .map(|_| ());
    assert!(
        matches!(&plaintext, Err(ProbeError::Refused(why)) if why.to_string().contains("28000")),
        "{plaintext:?}"
    );
    let wrong = ConnectOptions {
        password: Some("wrong password".to_owned().into()),
        ..server.dial(Require, &[])
    };
    let refused = wrong
        .log_in()
        .await
        .map(|_| ())
        .expect_err("the wrong password")
        .to_string();
    assert!(
        refused.contains("28P01") && !refused.contains("wrong password"),
        "{refused}"
    );
}

async fn client_certificates_log_in(server: &Server<'_>, trusted: &Ca, stranger: &Ca) {
    let superuser = server.client(&[trusted]).await;
    superuser
        .batch_execute("create role by_certificate login superuser")
        .await
        .expect("a role");
    let by = |ca: &Ca| {
        let (chain, key) = leaf(ca, "by_certificate", &[]);
        ConnectOptions {
            user: "by_certificate".to_owned(),
            password: None,
            pair: Some(CertificateAndKey::parse(chain.as_bytes(), key.as_bytes()).expect("a pair")),
            ..server.dial(SslMode::VerifyFull, &[trusted])
        }
    };
    by(trusted).log_in().await.expect("a login by certificate");
    assert!(by(stranger).log_in().await.is_err());
}

/// Checks keep hundreds of them.
async fn sessions_that_are_kept_cost_little(server: &Server<'_>, trusted: &Ca) {
    let resident = || {
        let status = std::fs::read_to_string("/proc/self/status").expect("a status");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .expect("a line");
        line.trim()
            .trim_end_matches(" kB")
            .parse::<usize>()
            .expect("a number")
    };
    let mut kept = vec![
        server
            .dial(SslMode::VerifyFull, &[trusted])
            .log_in()
            .await
            .expect("a login"),
    ];
    let before = resident();
    while kept.len() <= 50 {
        kept.push(
            server
                .dial(SslMode::VerifyFull, &[trusted])
                .log_in()
                .await
                .expect("a login"),
        );
    }
    let each = resident().saturating_sub(before) / 50;
    println!("a session that is kept: {each} kB");
    assert!(each < 1024, "{each} kB");
    assert!(kept.iter().all(|session| !session.is_closed()));
}

async fn a_password_is_stored_and_not_logged(server: &Server<'_>, trusted: &Ca) {
    let client = server
        .dial(SslMode::VerifyFull, &[trusted])
        .log_in()
        .await
        .expect("a login");
    let after = server.client(&[trusted]).await;
    store_password(
        &client,
        "by_certificate",
        &PASSWORD.into(),
        PasswordEncryption::Md5,
    )
    .await
    .expect("a password");
    store_password(&client, "nobody", &PASSWORD.into(), PasswordEncryption::Md5)
        .await
        .expect_err("nobody's password");
    after
        .batch_execute("select 'logged last'")
        .await
        .expect("an answer");
    let log = || {
        server
            .cluster
            .kubectl(&["logs", "-n", "demo", &server.name], "")
            .must_succeed()
    };
    eventually("the server logs statements", async || {
        log().contains("select 'logged last'")
    })
    .await;
    assert!(!log().contains("alter role"), "{}", log());
    let stored = "select rolpassword like 'md5%' from pg_authid where rolname = 'by_certificate'";
    assert!(
        after
            .query_one(stored, &[])
            .await
            .expect("an answer")
            .get::<_, bool>(0)
    );
}

async fn a_new_certificate_is_served_after_a_reload(server: &Server<'_>, trusted: &Ca) {
    let client = server
        .dial(SslMode::VerifyFull, &[trusted])
        .log_in()
        .await
        .expect("a login");
    let before = server_status(&client).await.expect("a report");
    assert!(!before.in_recovery && before.ssl && before.position.0 > 0);
    assert_eq!(
        before
            .hba
            .iter()
            .map(|l| l.method.as_str())
            .collect::<Vec<_>>(),
        ["cert", "scram-sha-256"]
    );
    write_check(&client).await.expect("a primary takes writes");
    let expected = bring(server, &client, &leaf(trusted, "server", &["db.example"])).await;
    assert_ne!(
        handshake(server.address).await.expect("a handshake").chain[0],
        expected,
        "not loaded yet"
    );
    load(server, &client, &expected).await;
}

async fn an_expired_certificate_keeps_out_all_but_its_replacer(
    server: &Server<'_>,
    trusted: &Ca,
    stranger: &Ca,
) {
    let client = server
        .dial(SslMode::VerifyFull, &[trusted])
        .log_in()
        .await
        .expect("a login");
    let expired = leaf_until(trusted, "server", &["db.example"], 2021);
    let expected = bring(server, &client, &expired).await;
    load(server, &client, &expected).await;
    assert!(
        server
            .dial(SslMode::VerifyCa, &[trusted])
            .log_in()
            .await
            .is_err()
    );
    server
        .dial(SslMode::VerifyFull, &[trusted])
        .log_in_though_expired()
        .await
        .expect("a login");
    assert!(
        server
            .dial(SslMode::VerifyCa, &[stranger])
            .log_in_though_expired()
            .await
            .is_err()
    );
}

/// Brings a certificate to the server's volume. It is loaded later.
async fn bring(
    server: &Server<'_>,
    session: &Session,
    (certificate, key): &(String, String),
) -> Vec<u8> {
    let files = async || {
        let paths = ["/tls/tls.crt", "/tls/ca.crt", "/tls/none"];
        mounted_files(session, &paths, &[])
            .await
            .expect("an answer")
            .files
    };
    let old_files = files().await;
    assert_eq!(old_files.len(), 2, "{old_files:?}");
    let expected = CertificateAndKey::parse(certificate.as_bytes(), key.as_bytes())
        .expect("a pair")
        .chain()[0]
        .to_vec();
    let data = json!({"stringData": {"tls.crt": certificate, "tls.key": key}}).to_string();
    let name = &server.name;
    server
        .cluster
        .kubectl(
            &[
                "patch",
                "-n",
                "demo",
                "secret",
                name,
                "--type=merge",
                "-p",
                &data,
            ],
            "",
        )
        .must_succeed();
    // The kubelet brings volumes up to date when anything about the pod changes.
    let touched = format!("touched={}", Fingerprint::sha256(&expected));
    server
        .cluster
        .kubectl(
            &[
                "annotate",
                "-n",
                "demo",
                "pod",
                name,
                &touched[..40],
                "--overwrite",
            ],
            "",
        )
        .must_succeed();
    eventually("the kubelet brings the new files", async || {
        files().await != old_files
    })
    .await;
    expected
}

/// Has the server load its files, until it serves this certificate.
async fn load(server: &Server<'_>, session: &Session, expected: &[u8]) {
    reload(session).await.expect("a reload");
    let serves =
        async || handshake(server.address).await.expect("a handshake").chain[0] == expected;
    eventually("the server serves the new certificate", serves).await;
}
