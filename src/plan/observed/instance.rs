//! One server, held against what is written for it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::api::tls::SslMode;
use crate::pki::Fingerprint;
use crate::pki::issued::{ServedMaterial, ders};
use crate::tls::{ReplicationConninfo, layout};

use crate::plan::observed::cluster::ObservedPod;

/// What a server should mount and show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExpectedServer {
    /// SHA-256 (hex) of the certificate files, by path.
    pub files: BTreeMap<String, String>,
    /// SHA-256 (hex) of `patroni.yml`; empty if there is none.
    pub patroni_yml: String,
    /// Subjects (DER) of the CAs from which it should take client certificates.
    pub accepted_cas: BTreeSet<Vec<u8>>,
}

/// What a server was seen to mount, to have loaded and to show.
#[derive(Clone, Copy, Debug)]
pub struct MountedState<'a> {
    /// Its pod has the volume with certificates.
    pub has_files: bool,
    /// SHA-256 (hex) of the files that it mounts, by path.
    pub files: &'a BTreeMap<String, String>,
    /// It has read its settings since those files were last written.
    pub loaded: bool,
    /// `ssl`, as loaded.
    pub ssl: bool,
    /// Subjects (DER) of the CAs in its handshake; `None` if it speaks no TLS.
    pub accepted_cas: Option<&'a BTreeSet<Vec<u8>>>,
}

impl ExpectedServer {
    /// What servers should have, with this content of Secret `NAME-tls` and this `patroni.yml`.
    #[must_use]
    pub fn new(served: Option<&ServedMaterial>, patroni_yml: Option<&str>) -> Self {
        let files = served.map(|served| {
            [
                (layout::SERVER_CERTIFICATE, &served.server.certificate),
                (layout::SERVER_TRUST, &served.trust),
                (layout::CLIENT_CERTIFICATE, &served.client.certificate),
                (layout::EXPORTER_CERTIFICATE, &served.exporter.certificate),
            ]
        });
        let files = files.into_iter().flatten();
        Self {
            files: files
                .map(|(path, text)| (path.to_owned(), sha256_hex(text)))
                .collect(),
            patroni_yml: patroni_yml.map(sha256_hex).unwrap_or_default(),
            accepted_cas: served
                .map(|served| subjects(&served.trust))
                .unwrap_or_default(),
        }
    }

    /// Whether the certificate files that a server mounts are those of Secret `NAME-tls`. A pod
    /// without the volume has none that could be old.
    #[must_use]
    pub fn files_are_current(&self, mounted: MountedState<'_>) -> bool {
        !mounted.has_files
            || self
                .files
                .iter()
                .all(|(path, hash)| mounted.files.get(path) == Some(hash))
    }

    /// Whether a server uses the certificate files that it mounts: it has read its settings since,
    /// and shows the CAs that are expected. A server with `ssl = off` uses none.
    #[must_use]
    pub fn files_are_loaded(&self, mounted: MountedState<'_>) -> bool {
        let shows_cas = mounted
            .accepted_cas
            .is_none_or(|shown| *shown == self.accepted_cas);
        !mounted.has_files || !mounted.ssl || mounted.loaded && shows_cas
    }

    /// Whether the `patroni.yml` at this path is the one that is expected.
    #[must_use]
    pub fn patroni_yml_is_current(&self, mounted: MountedState<'_>, path: &str) -> bool {
        mounted.files.get(path) == Some(&self.patroni_yml)
    }
}

/// SHA-256 of a text, in hex.
#[must_use]
pub fn sha256_hex(text: &str) -> String {
    Fingerprint::sha256(text.as_bytes()).to_string()
}

/// The subjects (DER) of the certificates in a bundle.
fn subjects(bundle: &str) -> BTreeSet<Vec<u8>> {
    let subject = |der: &Vec<u8>| {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        Some(certificate.subject().as_raw().to_vec())
    };
    ders(bundle).iter().filter_map(subject).collect()
}

/// Whether some standby presents an expired client certificate: the current one has expired, or the
/// previous one has and a pod still mounts it.
///
/// `current` and `previous` are the ends of the two certificates; `None` where there is none.
#[must_use]
pub fn client_expired(
    current: Option<Timestamp>,
    previous: Option<Timestamp>,
    pods: &[ObservedPod],
    now: Timestamp,
) -> bool {
    let has_ended = |end: Option<Timestamp>| end.is_some_and(|end| end <= now);
    let is_behind = |pod: &ObservedPod| {
        pod.server
            .as_ref()
            .is_ok_and(|server| !server.files_current)
    };
    has_ended(current) || has_ended(previous) && pods.iter().any(is_behind)
}

/// The address of a pod that may be connected to, or why it may not.
///
/// A pod that has ended keeps its address in its status, and another pod of any namespace may have
/// that address by now: a login would send the superuser's password there.
pub fn address(pod: &Pod, port: u16) -> Result<SocketAddr, String> {
    if pod.metadata.deletion_timestamp.is_some() {
        return Err("its pod is being deleted".to_owned());
    }
    let status = pod
        .status
        .as_ref()
        .filter(|status| status.phase.as_deref() == Some("Running"))
        .ok_or("its pod is not running")?;
    let address = status
        .pod_ip
        .as_ref()
        .and_then(|address| address.parse::<IpAddr>().ok())
        .ok_or("its pod has no address")?;
    Ok(SocketAddr::new(address, port))
}

/// Whether a pod's readiness probe succeeds.
#[must_use]
pub fn is_ready(pod: &Pod) -> bool {
    let status = pod.status.iter();
    status
        .flat_map(|status| status.conditions.iter().flatten())
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// How a standby with this `primary_conninfo` connects. libpq's own default is `prefer`.
#[must_use]
pub fn parse_conninfo(conninfo: &str) -> ReplicationConninfo {
    let value = |key: &str| {
        conninfo
            .split_whitespace()
            .find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    };
    let mode = value("sslmode").map(|mode| mode.trim_matches('\''));
    let mode = mode.and_then(|mode| {
        SslMode::ALL
            .into_iter()
            .find(|known| known.as_str() == mode)
    });
    ReplicationConninfo {
        mode: mode.unwrap_or(SslMode::Prefer),
        sends_client_cert: value("sslcert").is_some(),
    }
}

#[cfg(test)]
mod tests {
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
    fn a_server_is_where_it_should_be_when_it_mounts_has_loaded_and_shows_what_is_written() {
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
}
