//! One server, asked on the wire and in SQL, in the words of the plan.

use std::net::SocketAddr;

use k8s_openapi::api::core::v1::Pod;

use crate::api::names::Names;
use crate::api::ports::POSTGRES_PORT;
use crate::api::tls::SslMode;
use crate::build::paths::{CONFIG, PATRONI_YML};
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
use crate::plan::observed::cluster::{LeafSummary, ObservedServer, StandbyReplication};
use crate::plan::observed::instance::{ExpectedServer, MountedState, address, parse_conninfo};
use crate::plan::waiting::Unknown;
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

/// The name by which a pod is dialled, which the servers' certificate has.
pub(crate) fn host(pod: &str, database: &str, namespace: &str) -> String {
    Names::new(database).pod_host(pod, namespace)
}

/// Asks a server everything.
pub(crate) async fn observe_server(
    pod: &Pod,
    host: &str,
    login: &Login,
    keys: &LoginKeys,
    expected: &ExpectedServer,
    has_files: bool,
) -> Result<ObservedServer, Unknown> {
    let no_answer = |error: ProbeError| Unknown::NoAnswer(error.to_string());
    let address = address(pod, POSTGRES_PORT.number).map_err(Unknown::NoAnswer)?;
    let wire = probe(address, &login.username).await;
    let plaintext = wire.plaintext.clone().map_err(no_answer)? == Plaintext::Taken;
    let session = log_in(address, host, login, keys, &wire)
        .await
        .map_err(no_answer)?;
    query_server(&session, wire, plaintext, expected, has_files)
        .await
        .map_err(no_answer)
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
        accepts_plaintext: plaintext,
        served_leaf: handshake
            .as_ref()
            .and_then(|shown| shown.chain.first())
            .map(|leaf| Fingerprint::sha256(leaf)),
        files_current: expected.files_are_current(state),
        files_loaded: expected.files_are_loaded(state),
        patroni_yml_current: expected.patroni_yml_is_current(state, &agent_file),
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

fn leaf(shown: &Handshake) -> Option<LeafSummary> {
    let leaf = summarize_der(shown.chain.first()?)?;
    Some(LeafSummary {
        serial: leaf.serial,
        not_after: leaf.not_after,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::pki::issued::tests::{Authority, issue};
    use crate::tls::Method;

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
}
