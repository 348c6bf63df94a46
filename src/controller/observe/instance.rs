//! One server, asked on the wire and in SQL, in the words of the plan.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::Pod;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::api::names::with_suffix;
use crate::api::tls::SslMode;
use crate::build::patroni::local::PATRONI_YML;
use crate::build::pod::CONFIG;
use crate::controller::postgres::credentials::Login;
use crate::database::connect::ConnectOptions;
use crate::database::probe::{Handshake, Plaintext, ProbeResult, probe};
use crate::database::server_status::{
    MountedFiles, ServerStatus, mounted_files, passwords, server_status,
};
use crate::database::session::Session;
use crate::database::{PORT, ProbeError, ServerText};
use crate::pki::Fingerprint;
use crate::pki::certificate::{common_name, summarize_der};
use crate::pki::issued::ders;
use crate::pki::key_pair::CertificateAndKey;
use crate::plan::Known;
use crate::plan::observed::cluster::{LeafSummary, ObservedServer, StandbyReplication};
use crate::tls;
use crate::tls::layout;
use crate::tls::posture::HbaMethods;

/// What it takes to log in to the servers of a database besides the superuser's name and password,
/// wherever the database is.
pub(crate) struct LoginKeys {
    /// The CAs that may have signed what servers serve, DER.
    pub(crate) roots: Vec<Vec<u8>>,
    /// The client certificates that we may log in with.
    pub(crate) pairs: Vec<CertificateAndKey>,
    /// What servers take, by what is written.
    pub(crate) accept: HbaMethods,
    /// PostgreSQL's major version.
    pub(crate) major: u32,
}

/// What a server is held against.
pub(crate) struct ExpectedServer {
    /// SHA-256 (hex) of the files in its volume, by path.
    pub(crate) files: BTreeMap<String, String>,
    /// The same of `patroni.yml`.
    pub(crate) agent_file: String,
    /// Names (DER) of the CAs from which it should take client certificates.
    pub(crate) takes: BTreeSet<Vec<u8>>,
}

/// SHA-256 of a text, in hex.
pub(crate) fn hash_of(text: &str) -> String {
    Fingerprint::sha256(text.as_bytes()).to_string()
}

/// The names (DER) of the certificates in a bundle.
pub(crate) fn names(bundle: &str) -> BTreeSet<Vec<u8>> {
    let ders = ders(bundle);
    let name = |der: &Vec<u8>| {
        Some(
            X509Certificate::from_der(der)
                .ok()?
                .1
                .subject()
                .as_raw()
                .to_vec(),
        )
    };
    ders.iter().filter_map(name).collect()
}

/// Where a pod is to be asked, while it can be.
///
/// The status of a pod that has ended keeps its address, which another pod may have by now, of
/// whatever namespace: whoever listens there would be told a password.
pub(crate) fn address(pod: &Pod, port: u16) -> Known<SocketAddr> {
    if pod.metadata.deletion_timestamp.is_some() {
        return Err("its pod is being deleted".to_owned());
    }
    let status = pod
        .status
        .as_ref()
        .filter(|status| status.phase.as_deref() == Some("Running"));
    let status = status.ok_or("its pod is not running")?;
    let address = status
        .pod_ip
        .as_ref()
        .and_then(|address| address.parse::<IpAddr>().ok());
    address
        .map(|address| SocketAddr::new(address, port))
        .ok_or_else(|| "its pod has no address".to_owned())
}

/// The name by which a pod is dialled, which the servers' certificate has.
pub(crate) fn host(pod: &str, database: &str, namespace: &str) -> String {
    format!("{pod}.{}.{namespace}.svc", with_suffix(database, "pods"))
}

/// Asks a server everything.
pub(crate) async fn observe_server(
    pod: &Pod,
    host: &str,
    login: &Login,
    keys: &LoginKeys,
    expected: &ExpectedServer,
    has_files: bool,
) -> Known<ObservedServer> {
    let address = address(pod, PORT)?;
    let wire = probe(address, &login.username).await;
    let plaintext = wire
        .plaintext
        .clone()
        .map_err(|silence| silence.to_string())?
        == Plaintext::Taken;
    let session = log_in(address, host, login, keys, &wire)
        .await
        .map_err(|silence| silence.to_string())?;
    query_server(&session, wire, plaintext, expected, has_files)
        .await
        .map_err(|silence| silence.to_string())
}

/// Logs in by whatever way is open: somebody may be taking the cluster from one way to another.
///
/// # Guarantees
/// Nothing is tried in plaintext unless what is written takes plaintext. Else somebody on the path
/// to a pod could break TLS, answer the start-up packet, and ask for the superuser's password in
/// clear.
///
/// Nor does that keep us from any pod, though pods may be one step behind what is written. Settings
/// are written first of a step, and only once every pod was seen to have those before. Plaintext is
/// refused by the last step of a walk to TLS, when all servers speak it and take both, and
/// plaintext is written to be taken by the first step of a walk from TLS, long before TLS goes. So
/// a pod lets us in by TLS wherever plaintext is written to be refused, whether it is where the
/// step begins or where it ends, also on the way back (a test of [`walk`](fn@crate::tls::walk) says
/// so for every walk). A pod that starts is no further behind: Patroni starts PostgreSQL when it
/// has read what is written.
///
/// # Assumptions
/// Servers have the settings that pgrekey writes. One that was given others by hand lets us in when
/// Patroni, which needs no login of ours, has brought them back.
pub(crate) async fn log_in(
    address: SocketAddr,
    host: &str,
    login: &Login,
    keys: &LoginKeys,
    wire: &ProbeResult,
) -> Result<Session, ProbeError> {
    let mut last =
        ProbeError::Refused("it takes neither TLS nor the plaintext that is written".into());
    for (mode, pair) in login_attempts(keys, wire) {
        let way = ConnectOptions {
            address,
            host: host.to_owned(),
            user: login.username.clone(),
            password: Some(login.password.clone()),
            hash: keys.accept.hash(mode),
            major: Some(keys.major),
            pair,
            mode,
            roots: keys.roots.clone(),
        };
        match way.log_in_though_expired().await {
            Err(silence) => last = silence,
            session => return session,
        }
    }
    Err(last)
}

/// The ways in that a server offers and that we take: with TLS by each certificate, and without
/// one, before plaintext.
fn login_attempts(
    keys: &LoginKeys,
    wire: &ProbeResult,
) -> Vec<(SslMode, Option<CertificateAndKey>)> {
    let pairs = || keys.pairs.iter().cloned().map(Some).chain([None]);
    let tls = wire
        .tls
        .is_ok()
        .then(|| pairs().map(|pair| (SslMode::VerifyFull, pair)));
    let takes_plaintext = keys.accept.plain.is_some() && wire.plaintext == Ok(Plaintext::Taken);
    tls.into_iter()
        .flatten()
        .chain(takes_plaintext.then_some((SslMode::Disable, None)))
        .collect()
}

async fn query_server(
    session: &Session,
    wire: ProbeResult,
    plaintext: bool,
    expected: &ExpectedServer,
    has_files: bool,
) -> Result<ObservedServer, ProbeError> {
    let agent_file = format!("{CONFIG}/{PATRONI_YML}");
    let loads = [layout::SERVER_CERTIFICATE, layout::SERVER_TRUST];
    let paths = [
        layout::SERVER_CERTIFICATE,
        layout::SERVER_TRUST,
        layout::CLIENT_CERTIFICATE,
        layout::EXPORTER_CERTIFICATE,
        agent_file.as_str(),
    ];
    let (status, mounted, passwords) = tokio::try_join!(
        server_status(session),
        mounted_files(session, &paths, &loads),
        passwords(session)
    )?;
    let handshake = match wire.tls {
        Ok(handshake) => Some(handshake),
        Err(ProbeError::NoTls) => None,
        Err(silence) => return Err(silence),
    };
    let ServerStatus {
        in_recovery,
        position,
        ssl,
        hba,
        standbys,
        ..
    } = status;
    let MountedFiles {
        files,
        loaded,
        primary_conninfo,
    } = mounted;
    let loaded = !ssl
        || (loaded
            && handshake
                .as_ref()
                .is_none_or(|shown| shown.takes == expected.takes));
    Ok(ObservedServer {
        in_recovery,
        wal_position: position.0,
        ssl,
        hba: hba.iter().map(ToString::to_string).collect(),
        accepts_plaintext: plaintext,
        served_leaf: handshake
            .as_ref()
            .and_then(|shown| shown.chain.first())
            .map(|leaf| Fingerprint::sha256(leaf)),
        files_current: !has_files
            || expected
                .files
                .iter()
                .all(|(path, hash)| files.get(path) == Some(hash)),
        files_loaded: !has_files || loaded,
        patroni_yml_current: files.get(&agent_file) == Some(&expected.agent_file),
        conninfo: in_recovery.then(|| parse_conninfo(&primary_conninfo)),
        replication: standbys
            .into_iter()
            .map(|(name, stream)| (name, streams(&stream)))
            .collect(),
        superuser_password_is_md5: passwords.own_is_md5,
        md5_roles: passwords
            .md5_roles
            .iter()
            .map(ToString::to_string)
            .collect(),
        leaf: handshake.as_ref().and_then(leaf),
        trusts: handshake
            .iter()
            .flat_map(|shown| &shown.takes)
            .take(20)
            .map(|name| shown_name(name))
            .collect(),
    })
}

/// The name of a CA as a server says it.
fn shown_name(name: &[u8]) -> String {
    ServerText::from(common_name(name)).to_string()
}

fn streams(stream: &crate::database::server_status::StatReplication) -> StandbyReplication {
    StandbyReplication {
        streaming: stream.state == "streaming",
        replayed: stream.replayed.0,
        tls: stream.ssl,
        client_cert: stream.client_dn.is_some(),
    }
}

/// How a connection string dials. libpq's own default is `prefer`.
fn parse_conninfo(conninfo: &str) -> tls::ReplicationConninfo {
    let value = |key: &str| {
        conninfo
            .split_whitespace()
            .find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    };
    let mode = value("sslmode").map(|mode| mode.trim_matches('\'').to_owned());
    let mode = mode.and_then(|mode| {
        SslMode::ALL
            .into_iter()
            .find(|known| known.as_str() == mode)
    });
    tls::ReplicationConninfo {
        mode: mode.unwrap_or(SslMode::Prefer),
        sends_client_cert: value("sslcert").is_some(),
    }
}

fn leaf(shown: &Handshake) -> Option<LeafSummary> {
    let leaf = summarize_der(shown.chain.first()?)?;
    Some(LeafSummary {
        serial: leaf.serial,
        not_after: leaf.not_after,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::issued::tests::{Authority, issue};
    use crate::tls::Method;
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    /// What is tried at a server that shows this, where this is written to be taken.
    fn tried(
        tls: Result<(), ProbeError>,
        plaintext: Plaintext,
        accept: HbaMethods,
    ) -> Vec<(SslMode, bool)> {
        let ca = Authority::new("ca");
        let pair = issue(&ca, &ca).served.client_pair().expect("a pair");
        let shown = Handshake {
            chain: vec![],
            takes: BTreeSet::new(),
        };
        let wire = ProbeResult {
            tls: tls.map(|()| shown),
            plaintext: Ok(plaintext),
        };
        let ways = login_attempts(
            &LoginKeys {
                roots: vec![],
                pairs: vec![pair],
                accept,
                major: 17,
            },
            &wire,
        );
        ways.into_iter()
            .map(|(mode, pair)| (mode, pair.is_some()))
            .collect()
    }

    #[test]
    fn no_password_goes_out_in_plaintext_where_plaintext_is_not_written_to_be_taken() {
        let (tls_alone, both) = (
            HbaMethods {
                plain: None,
                tls: Some(Method::Scram),
            },
            HbaMethods {
                plain: Some(Method::Scram),
                tls: Some(Method::Scram),
            },
        );
        let by_tls = [(SslMode::VerifyFull, true), (SslMode::VerifyFull, false)];
        let in_plaintext = [(SslMode::Disable, false)];
        let broken = || Err(ProbeError::Handshake("somebody is in between".into()));
        for tls in [broken, || Err(ProbeError::NoTls)] {
            assert_eq!(tried(tls(), Plaintext::Taken, tls_alone), []);
            assert_eq!(tried(tls(), Plaintext::Taken, both), in_plaintext);
            assert_eq!(tried(tls(), Plaintext::Refused, both), []);
        }
        assert_eq!(tried(Ok(()), Plaintext::Taken, tls_alone), by_tls);
        assert_eq!(
            tried(Ok(()), Plaintext::Taken, both),
            [by_tls.as_slice(), &in_plaintext].concat()
        );
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
            let address = address(&pod, PORT).map(|address| address.to_string());
            assert_eq!(address.as_deref().map_err(String::as_str), expected);
        }
    }

    #[test]
    fn a_connection_string_says_how_it_dials() {
        let patronis = "dbname=postgres user=postgres passfile=/tmp/pgpass host=pg-0.pg-pods.demo.svc port=5432 \
            sslmode=verify-full sslcert=/tls/certs/client/client.crt application_name=pg-1";
        assert_eq!(
            parse_conninfo(patronis),
            tls::ReplicationConninfo {
                mode: SslMode::VerifyFull,
                sends_client_cert: true
            }
        );
        assert_eq!(
            parse_conninfo("host=a sslmode='disable'"),
            tls::ReplicationConninfo {
                mode: SslMode::Disable,
                sends_client_cert: false
            }
        );
        assert_eq!(parse_conninfo("").mode, SslMode::Prefer);
    }
}
