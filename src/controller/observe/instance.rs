//! One server, asked on the wire and in SQL, in the words of the plan.

use std::net::SocketAddr;

use k8s_openapi::api::core::v1::Pod;
use rustls::pki_types::CertificateDer;

use crate::api::names::Names;
use crate::api::ports::POSTGRES_PORT;
use crate::api::tls::SslMode;
use crate::build::paths::{CERTS_VOLUME, CONFIG, PATRONI_YML};
use crate::controller::login::Login;
use crate::database::connect::ConnectOptions;
use crate::database::probe::{Handshake, Plaintext, ProbeResult, probe};
use crate::database::server_status::{
    MountedFiles, ServerStatus, mounted_files, passwords, server_status,
};
use crate::database::session::Session;
use crate::database::{ProbeError, ServerText};
use crate::pki::Fingerprint;
use crate::pki::certificate::{common_name, summarize_der};
use crate::pki::key_pair::CertificateAndKey;
use crate::pki::served::effective_end_der;
use crate::plan::observed::cluster::{LeafSummary, ObservedServer, StandbyReplication};
use crate::plan::observed::instance::{ExpectedServer, MountedState, address, parse_conninfo};
use crate::plan::waiting::Unknown;
use crate::tls::layout;
use crate::tls::posture::HbaMethods;

/// The means to log in to the servers of a database.
pub(crate) struct LoginKeys {
    /// The superuser.
    pub(crate) login: Login,
    /// The CAs that may have signed the servers' certificates, DER.
    pub(crate) roots: Vec<Vec<u8>>,
    /// The client certificates that pgrekey may present.
    pub(crate) pairs: Vec<CertificateAndKey>,
    /// The authentication that servers are told to accept.
    pub(crate) accept: HbaMethods,
    /// PostgreSQL's major version.
    pub(crate) major: u32,
}

/// The host name of a pod, which is a name of the servers' certificate.
pub(crate) fn host(pod: &str, database: &str, namespace: &str) -> String {
    Names::new(database).pod_host(pod, namespace)
}

/// Asks the server of a pod everything that the plan needs to know.
pub(crate) async fn observe_server(
    pod: &Pod,
    host: &str,
    keys: &LoginKeys,
    expected: &ExpectedServer,
) -> Result<ObservedServer, Unknown> {
    let no_answer = |error: ProbeError| Unknown::NoAnswer(error.to_string());
    let address = address(pod, POSTGRES_PORT.number).map_err(Unknown::NoAnswer)?;
    let shown = probe(address, &keys.login.username).await;
    let plaintext = shown.plaintext.clone();
    let plaintext = plaintext.map_err(no_answer)?;
    let session = log_in(address, host, keys, &shown)
        .await
        .map_err(no_answer)?;
    let server = ShownServer {
        shown,
        accepts_plaintext: plaintext == Plaintext::Taken,
        has_files: has_files(pod),
    };
    query_server(&session, server, expected, &keys.roots)
        .await
        .map_err(no_answer)
}

/// Whether a pod has the volume with certificates.
pub(crate) fn has_files(pod: &Pod) -> bool {
    let volumes = pod
        .spec
        .iter()
        .flat_map(|spec| spec.volumes.iter().flatten());
    volumes
        .into_iter()
        .any(|volume| volume.name == CERTS_VOLUME)
}

/// Logs in by any method that the server offers and that is safe, because an operation may be
/// taking the cluster from one method to another.
///
/// # Guarantees
/// Plaintext is tried only if servers are told to accept it. Else an attacker on the path to a pod
/// could break TLS, answer the start-up packet, and ask for the superuser's password in clear.
///
/// TLS-only login never locks pgrekey out: when plaintext is refused, every pod speaks TLS. Adding
/// TLS refuses plaintext in the last stage, after all pods speak TLS; removing TLS accepts plaintext
/// in the first stage. Pods lag by one stage at most, because the settings of a stage are written
/// only once every pod was seen to have those of the stage before, and Patroni reads them before it
/// starts PostgreSQL. A test of [`walk`](fn@crate::tls::walk) proves it for every walk.
///
/// # Assumptions
/// Servers have the settings that pgrekey writes. After a change by hand, Patroni restores them,
/// for which it needs no login of pgrekey's.
pub(crate) async fn log_in(
    address: SocketAddr,
    host: &str,
    keys: &LoginKeys,
    shown: &ProbeResult,
) -> Result<Session, ProbeError> {
    let mut last =
        ProbeError::Refused("it takes neither TLS nor the plaintext that is written".into());
    for (mode, pair) in login_attempts(keys, shown) {
        let options = ConnectOptions {
            address,
            host: host.to_owned(),
            user: keys.login.username.clone(),
            password: Some(keys.login.password.clone()),
            hash: keys.accept.hash(mode),
            major: Some(keys.major),
            pair,
            mode,
            roots: keys.roots.clone(),
        };
        match options.log_in_though_expired().await {
            Err(error) => last = error,
            session => return session,
        }
    }
    Err(last)
}

/// The methods that a server offers and that are safe: by TLS with each certificate and without
/// one, then in plaintext.
fn login_attempts(
    keys: &LoginKeys,
    shown: &ProbeResult,
) -> Vec<(SslMode, Option<CertificateAndKey>)> {
    let mut attempts = vec![];
    if shown.tls.is_ok() {
        let pairs = keys.pairs.iter().cloned().map(Some).chain([None]);
        attempts.extend(pairs.map(|pair| (SslMode::VerifyFull, pair)));
    }
    if keys.accept.plain.is_some() && shown.plaintext == Ok(Plaintext::Taken) {
        attempts.push((SslMode::Disable, None));
    }
    attempts
}

/// What a server shows without a login, and what is known of its pod.
struct ShownServer {
    shown: ProbeResult,
    accepts_plaintext: bool,
    has_files: bool,
}

async fn query_server(
    session: &Session,
    ShownServer {
        shown,
        accepts_plaintext,
        has_files,
    }: ShownServer,
    expected: &ExpectedServer,
    roots: &[Vec<u8>],
) -> Result<ObservedServer, ProbeError> {
    let patroni_yml = format!("{CONFIG}/{PATRONI_YML}");
    let loads = [layout::SERVER_CERTIFICATE, layout::SERVER_TRUST];
    let paths = [
        layout::SERVER_CERTIFICATE,
        layout::SERVER_TRUST,
        layout::CLIENT_CERTIFICATE,
        layout::EXPORTER_CERTIFICATE,
        patroni_yml.as_str(),
    ];
    let (status, mounted, passwords) = tokio::try_join!(
        server_status(session),
        mounted_files(session, &paths, &loads),
        passwords(session)
    )?;
    let handshake = match shown.tls {
        Ok(handshake) => Some(handshake),
        Err(ProbeError::NoTls) => None,
        Err(error) => return Err(error),
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
    let state = MountedState {
        has_files,
        files: &files,
        loaded,
        ssl,
        accepted_cas: handshake.as_ref().map(|shown| &shown.takes),
    };
    Ok(ObservedServer {
        in_recovery,
        wal_position: position.0,
        ssl,
        hba: hba.iter().map(ToString::to_string).collect(),
        accepts_plaintext,
        served_leaf: handshake
            .as_ref()
            .and_then(|shown| shown.chain.first())
            .map(|leaf| Fingerprint::sha256(leaf)),
        files_current: expected.files_are_current(state),
        files_loaded: expected.files_are_loaded(state),
        patroni_yml_current: expected.patroni_yml_is_current(state, &patroni_yml),
        conninfo: in_recovery.then(|| parse_conninfo(&primary_conninfo)),
        replication: standbys
            .into_iter()
            .map(|(name, stream)| (name, replication(&stream)))
            .collect(),
        superuser_password_is_md5: passwords.own_is_md5,
        md5_roles: passwords
            .md5_roles
            .iter()
            .map(ToString::to_string)
            .collect(),
        tls: handshake.as_ref().map(|shown| shown.tls.clone()),
        leaf: handshake
            .as_ref()
            .and_then(|shown| summarize_leaf(shown, roots)),
        trusts: handshake
            .iter()
            .flat_map(|shown| &shown.takes)
            .take(20)
            .map(|name| display_name(name))
            .collect(),
    })
}

/// The name of a CA for people, sanitized because a server sent it.
fn display_name(name: &[u8]) -> String {
    ServerText::from(common_name(name)).to_string()
}

fn replication(stream: &crate::database::server_status::StatReplication) -> StandbyReplication {
    StandbyReplication {
        streaming: stream.state == "streaming",
        replayed: stream.replayed.0,
        tls: stream.ssl,
        client_cert: stream.client_dn.is_some(),
    }
}

fn summarize_leaf(shown: &Handshake, roots: &[Vec<u8>]) -> Option<LeafSummary> {
    let leaf = summarize_der(shown.chain.first()?)?;
    let owned = |ders: &[Vec<u8>]| ders.iter().cloned().map(CertificateDer::from).collect();
    let (chain, roots): (Vec<_>, Vec<_>) = (owned(&shown.chain), owned(roots));
    Some(LeafSummary {
        serial: leaf.serial,
        ends: effective_end_der(&chain, &roots).unwrap_or(leaf.not_after),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::api::ops_request::NegotiatedTls;
    use crate::pki::issued::tests::{Authority, issue};
    use crate::tls::Method;

    /// The methods that are tried at a server that shows this, with this authentication.
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
            tls: NegotiatedTls::default(),
        };
        let wire = ProbeResult {
            tls: tls.map(|()| shown),
            plaintext: Ok(plaintext),
        };
        let attempts = login_attempts(
            &LoginKeys {
                login: Login {
                    username: "postgres".to_owned(),
                    password: "secret".into(),
                },
                roots: vec![],
                pairs: vec![pair],
                accept,
                major: 17,
            },
            &wire,
        );
        attempts
            .into_iter()
            .map(|(mode, pair)| (mode, pair.is_some()))
            .collect()
    }

    #[test]
    fn no_password_is_sent_in_plaintext_unless_servers_are_told_to_accept_plaintext() {
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
        let broken = || Err(ProbeError::Handshake("an attacker is in between".into()));
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
}
