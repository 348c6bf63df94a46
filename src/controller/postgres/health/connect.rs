//! How a check connects to servers.

use std::net::SocketAddr;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use tokio::time::Instant;

use crate::api::Postgres;
use crate::api::ports::POSTGRES_PORT;
use crate::api::tls::{ClientAuthMode, SslMode};
use crate::controller::login::Login;
use crate::controller::observe::instance::host;
use crate::controller::postgres::health::secrets::{SecretVersions, is_paused};
use crate::controller::postgres::health::verdict::CheckAnswer;
use crate::controller::sessions::{PeerId, SessionPeer, Sessions};
use crate::database::ProbeError;
use crate::database::connect::ConnectOptions;
use crate::database::server_status::{idle_slots, server_status, write_check};
use crate::database::session::Session;
use crate::pki::issued::ServedMaterial;
use crate::pki::key_pair::CertificateAndKey;
use crate::plan::observed::instance::address;
use crate::tls::posture::HbaMethods;
use crate::tls::{Method, PasswordEncryption};

/// The sessions of checks.
pub(super) type CheckSessions = Sessions<LoginTerms, Session>;

/// One way to connect.
pub(super) struct ConnectMethod {
    mode: SslMode,
    /// How the server may ask for the password.
    hash: PasswordEncryption,
    pair: Option<CertificateAndKey>,
    roots: Vec<Vec<u8>>,
}

/// The ways in which a check connects. With certificates: by TLS, verifying the pod's own name
/// whatever the sslMode of clients. In plaintext if servers should accept that.
///
/// While an operation has paused the database, `applied` says whether servers should accept
/// plaintext; at other times the spec says it: a database that serves something else is not well.
/// Pods lag by one stage at most: see [`log_in`](crate::controller::observe::instance::log_in) for
/// why no pod accepts plaintext alone where `applied` refuses it.
pub(super) fn connect_methods(
    postgres: &Postgres,
    served: Option<&ServedMaterial>,
    applied: Option<HbaMethods>,
) -> Vec<ConnectMethod> {
    let auth_mode = postgres.spec.client_auth_mode;
    let by_spec = Method::from(auth_mode.unwrap_or(ClientAuthMode::Scram));
    let accept = applied.unwrap_or(HbaMethods {
        plain: Some(by_spec),
        tls: Some(by_spec),
    });
    let tls = served.map(|served| ConnectMethod {
        mode: SslMode::VerifyFull,
        hash: accept.hash(SslMode::VerifyFull),
        pair: served.client_pair().ok(),
        roots: served.roots(),
    });
    let accepts_plaintext = match applied {
        Some(applied) if is_paused(postgres) => applied.plain.is_some(),
        _ => postgres.spec.tls.is_none(),
    };
    let plaintext = accepts_plaintext.then(|| ConnectMethod {
        mode: SslMode::Disable,
        hash: accept.hash(SslMode::Disable),
        pair: None,
        roots: vec![],
    });
    tls.into_iter().chain(plaintext).collect()
}

/// The terms on which a session was let in. On other terms the server might refuse it.
#[derive(Clone, PartialEq)]
pub(super) struct LoginTerms {
    address: SocketAddr,
    secrets: SecretVersions,
    accept: Option<HbaMethods>,
    modes: Vec<SslMode>,
}

/// One check of one database.
pub(super) struct CheckRound<'a> {
    pub(super) sessions: &'a CheckSessions,
    pub(super) postgres: &'a Postgres,
    /// Its uid.
    pub(super) database: String,
    pub(super) login: Login,
    pub(super) secrets: SecretVersions,
    pub(super) accept: Option<HbaMethods>,
    pub(super) methods: Vec<ConnectMethod>,
    pub(super) major: Option<u32>,
    /// Whether writing is tried.
    pub(super) write: bool,
}

impl CheckRound<'_> {
    pub(super) fn peer(&self, pod: &Pod) -> PeerId {
        PeerId {
            database: self.database.clone(),
            pod: pod.uid().unwrap_or_default(),
        }
    }

    /// Asks a server, in the session that is kept with it, or else in a new one.
    pub(super) async fn ask(&self, pod: &Pod) -> Result<CheckAnswer, ProbeError> {
        let address = address(pod, POSTGRES_PORT.number)
            .map_err(|why| ProbeError::Unreachable(why.into()))?;
        let terms = LoginTerms {
            address,
            secrets: self.secrets.clone(),
            accept: self.accept,
            modes: self.methods.iter().map(|method| method.mode).collect(),
        };
        let server = CheckedServer {
            round: self,
            pod,
            address,
        };
        self.sessions.ask(&server, self.peer(pod), terms).await
    }
}

/// A server that is asked.
struct CheckedServer<'a> {
    round: &'a CheckRound<'a>,
    pod: &'a Pod,
    address: SocketAddr,
}

impl SessionPeer for CheckedServer<'_> {
    type Session = Session;
    type Answer = CheckAnswer;
    type Error = ProbeError;

    async fn log_in(&self) -> Result<Session, ProbeError> {
        let CheckRound {
            postgres,
            login,
            methods,
            major,
            ..
        } = self.round;
        let host = host(
            &self.pod.name_any(),
            &postgres.name_any(),
            &postgres.namespace().unwrap_or_default(),
        );
        let mut last = ProbeError::Unreachable("there is no certificate to log in with".into());
        for method in methods {
            let options = ConnectOptions {
                address: self.address,
                host: host.clone(),
                user: login.username.clone(),
                password: Some(login.password.clone()),
                hash: method.hash,
                major: *major,
                pair: method.pair.clone(),
                mode: method.mode,
                roots: method.roots.clone(),
            };
            match options.log_in().await {
                Ok(session) => return Ok(session),
                // A server that is silent is so by every method.
                Err(error @ (ProbeError::TooSlow | ProbeError::Unreachable(_))) => {
                    return Err(error);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn answer(&self, session: &Session) -> Result<CheckAnswer, ProbeError> {
        let status = server_status(session).await?;
        let is_primary = !status.in_recovery;
        let writes = if is_primary && self.round.write {
            write_check(session).await
        } else {
            Ok(())
        };
        let idle_slots = if is_primary {
            idle_slots(session).await?
        } else {
            vec![]
        };
        Ok(CheckAnswer {
            status,
            writes,
            idle_slots,
        })
    }

    fn is_well(answer: &CheckAnswer) -> bool {
        answer.writes.is_ok()
    }

    fn now(&self) -> std::time::Instant {
        Instant::now().into_std()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Condition;
    use crate::pki::issued::tests::{Authority, issue};
    use crate::plan::status::database::types::PAUSED;
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    #[test]
    fn a_check_logs_in_by_plaintext_only_where_servers_should_accept_it() {
        let ca = Authority::new("ca");
        let served = issue(&ca, &ca).served;
        let postgres =
            |spec: &str| Postgres::new("pg", serde_saphyr::from_str(spec).expect("a spec"));
        let (without, with) = (
            postgres("version: '17'"),
            postgres("{version: '17', tls: {issuerRef: {name: i}}}"),
        );
        let method = Some(Method::Scram);
        let tls_alone = Some(HbaMethods {
            plain: None,
            tls: method,
        });
        let both = Some(HbaMethods {
            plain: method,
            tls: method,
        });
        let plain_alone = Some(HbaMethods {
            plain: method,
            tls: None,
        });
        let (tls, plain) = (SslMode::VerifyFull, SslMode::Disable);
        let paused = |postgres: &Postgres| {
            let mut paused = postgres.clone();
            let now = Time(Timestamp::UNIX_EPOCH);
            paused
                .status
                .get_or_insert_default()
                .conditions
                .push(Condition::new(PAUSED, now));
            paused
        };
        let (without_paused, with_paused) = (paused(&without), paused(&with));
        for (postgres, served, accept, expected) in [
            (&without, None, None, vec![plain]),
            (&without, None, plain_alone, vec![plain]),
            (&without_paused, Some(&served), both, vec![tls, plain]),
            (&without_paused, Some(&served), tls_alone, vec![tls]),
            (&without_paused, Some(&served), None, vec![tls, plain]),
            (&with, Some(&served), None, vec![tls]),
            (&with, Some(&served), plain_alone, vec![tls]),
            (&with_paused, Some(&served), tls_alone, vec![tls]),
            (&with_paused, Some(&served), both, vec![tls, plain]),
            (&with_paused, Some(&served), plain_alone, vec![tls, plain]),
            (&with, None, None, vec![]),
        ] {
            let modes: Vec<SslMode> = connect_methods(postgres, served, accept)
                .iter()
                .map(|method| method.mode)
                .collect();
            assert_eq!(modes, expected, "{accept:?}");
        }
    }

    #[test]
    fn a_check_verifies_the_name_of_the_pod_and_gives_md5_only_where_servers_should_ask_for_it() {
        let ca = Authority::new("ca");
        let served = issue(&ca, &ca).served;
        let postgres =
            |spec: &str| Postgres::new("pg", serde_saphyr::from_str(spec).expect("a spec"));
        let asked = postgres(
            "{version: '17', sslMode: require, clientAuthMode: md5, tls: {issuerRef: {name: i}}}",
        );
        let unsaid = postgres("{version: '17', tls: {issuerRef: {name: i}}}");
        let written = |method| {
            Some(HbaMethods {
                plain: None,
                tls: Some(method),
            })
        };
        for (postgres, accept, hash) in [
            (&asked, written(Method::Scram), PasswordEncryption::Scram),
            (&asked, None, PasswordEncryption::Md5),
            (&unsaid, written(Method::Md5), PasswordEncryption::Md5),
            (&unsaid, None, PasswordEncryption::Scram),
        ] {
            let methods: Vec<_> = connect_methods(postgres, Some(&served), accept)
                .iter()
                .map(|method| (method.mode, method.hash))
                .collect();
            assert_eq!(methods, [(SslMode::VerifyFull, hash)]);
        }
    }
}
