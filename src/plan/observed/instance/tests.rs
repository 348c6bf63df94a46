use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::*;
use crate::pki::issued::tests::{Authority, issue};
use crate::plan::observed::cluster::ObservedServer;

const PATRONI_YML: &str = "/config/patroni.yml";

type Change = fn(&mut ServerInTest);

struct ServerInTest {
    has_files: bool,
    files: BTreeMap<String, String>,
    loaded: bool,
    ssl: bool,
    accepted_cas: Option<BTreeSet<Vec<u8>>>,
}

impl ServerInTest {
    fn mounted(&self) -> MountedState<'_> {
        MountedState {
            has_files: self.has_files,
            files: &self.files,
            loaded: self.loaded,
            ssl: self.ssl,
            accepted_cas: self.accepted_cas.as_ref(),
        }
    }

    fn replace(&mut self, path: &str) {
        self.files.insert(path.to_owned(), sha256_hex("other"));
    }
}

#[test]
fn a_server_is_current_when_it_mounts_has_loaded_and_shows_the_stored_files() {
    let ca = Authority::new("ca");
    let expected = ExpectedServer::new(Some(&issue(&ca, &ca).served), Some("ttl: 30"));
    assert_eq!((expected.files.len(), expected.accepted_cas.len()), (4, 1));
    // Whether files are current, whether they are loaded, whether `patroni.yml` is current.
    let cases: [(&str, Change, [bool; 3]); 10] = [
        ("all is as written", |_| {}, [true, true, true]),
        (
            "another leaf",
            |server| server.replace(layout::SERVER_CERTIFICATE),
            [false, true, true],
        ),
        (
            "another client certificate",
            |server| server.replace(layout::CLIENT_CERTIFICATE),
            [false, true, true],
        ),
        (
            "a file is missing",
            |server| drop(server.files.remove(layout::SERVER_TRUST)),
            [false, true, true],
        ),
        (
            "another patroni.yml",
            |server| server.replace(PATRONI_YML),
            [true, true, false],
        ),
        (
            "not reloaded",
            |server| server.loaded = false,
            [true, false, true],
        ),
        (
            "shows other CAs",
            |server| server.accepted_cas = Some(BTreeSet::new()),
            [true, false, true],
        ),
        (
            "no handshake",
            |server| server.accepted_cas = None,
            [true, true, true],
        ),
        (
            "ssl is off",
            |server| {
                (server.ssl, server.loaded, server.accepted_cas) = (false, false, None);
            },
            [true, true, true],
        ),
        (
            "no volume",
            |server| {
                server.has_files = false;
                server.loaded = false;
                server.files.remove(layout::SERVER_CERTIFICATE);
            },
            [true, true, true],
        ),
    ];
    for (name, change, result) in cases {
        let mut server = ServerInTest {
            has_files: true,
            files: expected.files.clone(),
            loaded: true,
            ssl: true,
            accepted_cas: Some(expected.accepted_cas.clone()),
        };
        server
            .files
            .insert(PATRONI_YML.to_owned(), sha256_hex("ttl: 30"));
        change(&mut server);
        let mounted = server.mounted();
        let seen = [
            expected.files_are_current(mounted),
            expected.files_are_loaded(mounted),
            expected.patroni_yml_is_current(mounted, PATRONI_YML),
        ];
        assert_eq!(seen, result, "{name}");
    }
}

#[test]
fn without_a_secret_no_file_and_no_ca_is_expected() {
    let expected = ExpectedServer::new(None, None);
    assert_eq!(expected, ExpectedServer::default());
    let ca = Authority::new("ca");
    let shown = ExpectedServer::new(Some(&issue(&ca, &ca).served), None).accepted_cas;
    let files = BTreeMap::new();
    let mounted = MountedState {
        has_files: true,
        files: &files,
        loaded: true,
        ssl: true,
        accepted_cas: Some(&shown),
    };
    assert!(expected.files_are_current(mounted) && !expected.files_are_loaded(mounted));
    assert!(!expected.patroni_yml_is_current(mounted, PATRONI_YML));
}

fn pod(files_current: bool) -> ObservedPod {
    ObservedPod {
        name: "pg-1".to_owned(),
        ordinal: 1,
        uid: "1".to_owned(),
        ready: true,
        terminating: false,
        has_files: true,
        refreshed_for: None,
        server: Ok(ObservedServer {
            in_recovery: true,
            wal_position: 1,
            ssl: true,
            hba: vec![],
            accepts_plaintext: false,
            served_leaf: None,
            files_current,
            files_loaded: true,
            patroni_yml_current: true,
            conninfo: None,
            replication: BTreeMap::new(),
            superuser_password_is_md5: false,
            md5_roles: vec![],
            leaf: None,
            tls: None,
            trusts: vec![],
        }),
    }
}

#[test]
fn the_previous_client_certificate_counts_while_a_pod_mounts_it() {
    let at = |second| Timestamp::from_second(second).expect("a time");
    let now = at(100);
    let (good, ended) = (Some(at(101)), Some(at(100)));
    let silent = ObservedPod {
        server: Err(crate::plan::waiting::Unknown::NoAnswer(
            "no answer".to_owned(),
        )),
        ..pod(false)
    };
    for (current, previous, pods, expected) in [
        (good, None, vec![pod(false)], false),
        (None, None, vec![pod(false)], false),
        (ended, None, vec![pod(true)], true),
        (ended, good, vec![], true),
        (good, ended, vec![pod(true)], false),
        (good, ended, vec![pod(true), pod(false)], true),
        (good, good, vec![pod(false)], false),
        (good, ended, vec![silent], false),
    ] {
        let case = format!("{current:?} {previous:?} {pods:?}");
        assert_eq!(
            client_expired(current, previous, &pods, now),
            expected,
            "{case}"
        );
    }
}

#[test]
fn only_a_pod_that_runs_and_stays_is_asked() {
    let running = "{phase: Running, podIP: 10.0.0.1}";
    for (status, leaving, expected) in [
        (running, false, Ok("10.0.0.1:5432")),
        (
            "{phase: Running, podIP: 'fd00::1'}",
            false,
            Ok("[fd00::1]:5432"),
        ),
        ("{phase: Running}", false, Err("its pod has no address")),
        (
            "{phase: Failed, podIP: 10.0.0.1}",
            false,
            Err("its pod is not running"),
        ),
        (
            "{phase: Succeeded, podIP: 10.0.0.1}",
            false,
            Err("its pod is not running"),
        ),
        (
            "{phase: Pending, podIP: 10.0.0.1}",
            false,
            Err("its pod is not running"),
        ),
        ("{podIP: 10.0.0.1}", false, Err("its pod is not running")),
        (running, true, Err("its pod is being deleted")),
    ] {
        let status = serde_saphyr::from_str(status).expect("a status");
        let mut pod = Pod {
            status: Some(status),
            ..Pod::default()
        };
        pod.metadata.deletion_timestamp = leaving.then_some(Time(Timestamp::UNIX_EPOCH));
        let address = address(&pod, 5432).map(|address| address.to_string());
        assert_eq!(address.as_deref().map_err(String::as_str), expected);
    }
}

#[test]
fn a_connection_string_says_how_it_dials() {
    let patronis = "dbname=postgres user=postgres passfile=/tmp/pgpass host=pg-0.pg-pods.demo.svc port=5432 \
        sslmode=verify-full sslcert=/tls/certs/client/client.crt application_name=pg-1";
    assert_eq!(
        parse_conninfo(patronis),
        ReplicationConninfo {
            mode: SslMode::VerifyFull,
            sends_client_cert: true
        }
    );
    assert_eq!(
        parse_conninfo("host=a sslmode='disable'"),
        ReplicationConninfo {
            mode: SslMode::Disable,
            sends_client_cert: false
        }
    );
    assert_eq!(parse_conninfo("").mode, SslMode::Prefer);
}
