//! Login to a server by libpq's rules: `sslmode`, password, client certificate.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, RootCertStore};
use secrecy::{ExposeSecret, SecretString};
use tokio::net::TcpStream;
use tokio_postgres::NoTls;
use tokio_postgres::config::SslMode as Mode;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres_rustls::MakeRustlsConnect;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::api::tls::SslMode;
use crate::pki::key_pair::CertificateAndKey;
use crate::tls::PasswordEncryption;

use crate::database::limited::{BEFORE_LOGIN, Limited, ReadBudget, TooMuch};
use crate::database::login::{AuthenticationTerms, LoginRefusal};
use crate::database::options::options;
use crate::database::session::{Door, Session};
use crate::database::verifier::{CertificateVerifier, client_config_builder};
use crate::database::watched::{Watch, WatchedStream, WatchedTls};
use crate::database::{ProbeError, bounded, plain_words};

/// The parameters of a login.
#[derive(Clone)]
pub struct ConnectOptions {
    /// The address of the server.
    pub address: SocketAddr,
    /// The name that the server's certificate must have, with `verify-full`.
    pub host: String,
    /// The role to log in as.
    pub user: String,
    /// Its password.
    pub password: Option<SecretString>,
    /// The hash by which the server may ask for the password, as the posture says for this kind of
    /// connection ([`Method::hash`](crate::tls::Method::hash)). With [`PasswordEncryption::Scram`]
    /// a server that asks for MD5 gets no answer. The password is never sent in clear.
    pub hash: PasswordEncryption,
    /// PostgreSQL's major version, if it is known. Some settings exist in newer versions only, and
    /// an older server refuses a login that names them.
    pub major: Option<u32>,
    /// The client certificate, for a server that asks for one.
    pub pair: Option<CertificateAndKey>,
    /// libpq's `sslmode`. `allow` and `prefer` count as `require`: there is no fallback to
    /// plaintext.
    pub mode: SslMode,
    /// The trusted CAs for the server's certificate, DER. Without any, `require` checks nothing, as
    /// in libpq.
    pub roots: Vec<Vec<u8>>,
}

/// Leaves out password and key.
impl fmt::Debug for ConnectOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectOptions")
            .field("host", &self.host)
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

impl ConnectOptions {
    /// Logs in.
    pub async fn log_in(&self) -> Result<Session, ProbeError> {
        self.session(ExpiredCertificate::Refuse).await
    }

    /// Logs in even if the server's certificate has expired, in order to replace it. All other
    /// checks stay.
    pub async fn log_in_though_expired(&self) -> Result<Session, ProbeError> {
        self.session(ExpiredCertificate::Accept).await
    }

    async fn session(&self, expired: ExpiredCertificate) -> Result<Session, ProbeError> {
        bounded(async {
            let session = self.connect(expired).await?;
            // Not among the start-up options, which would hide the server's own default from
            // [`write_check`](crate::database::server_status::write_check).
            session
                .run("set default_transaction_read_only = on")
                .await?;
            Ok(session)
        })
        .await
    }

    async fn connect(&self, expired: ExpiredCertificate) -> Result<Session, ProbeError> {
        let mut config = tokio_postgres::Config::new();
        config
            .user(&self.user)
            .dbname("postgres")
            .application_name("pgrekey")
            .options(options(&self.user, self.major));
        if let Some(password) = &self.password {
            config.password(password.expose_secret());
        }
        let stream = TcpStream::connect(self.address)
            .await
            .map_err(|e| ProbeError::Unreachable(e.to_string().into()))?;
        let budget = ReadBudget::new(BEFORE_LOGIN);
        let (stream, watch) = (
            Limited::new(stream, budget.clone()),
            Watch::new(self.terms(), budget),
        );
        if self.mode == SslMode::Disable {
            config.ssl_mode(Mode::Disable);
            let (client, connection) = config
                .connect_raw(WatchedStream::new(stream, watch), NoTls)
                .await
                .map_err(|e| refused(&e))?;
            return Ok(Session::begin(
                client,
                connection,
                Door {
                    address: self.address,
                    tls: None,
                },
            ));
        }
        config.ssl_mode(Mode::Require);
        let broken = |error: &dyn fmt::Display| ProbeError::Handshake(error.to_string().into());
        let mut tls = MakeRustlsConnect::new(self.client_config(expired).map_err(|e| broken(&e))?);
        let connect = MakeTlsConnect::<Limited<TcpStream>>::make_tls_connect(&mut tls, &self.host)
            .map_err(|e| broken(&e))?;
        let (client, connection) = config
            .connect_raw(
                stream,
                WatchedTls {
                    tls: connect,
                    watch,
                },
            )
            .await
            .map_err(|e| refused(&e))?;
        Ok(Session::begin(
            client,
            connection,
            Door {
                address: self.address,
                tls: Some((self.host.clone(), tls)),
            },
        ))
    }

    /// A server that asks for no password has accepted the client certificate, or is foreign. Only
    /// its own certificate can tell which.
    fn terms(&self) -> AuthenticationTerms {
        let is_known = self.mode != SslMode::Disable && !self.roots.is_empty();
        AuthenticationTerms {
            md5: self.hash == PasswordEncryption::Md5,
            nothing: is_known && self.pair.is_some(),
        }
    }

    fn client_config(&self, expired: ExpiredCertificate) -> Result<ClientConfig, rustls::Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let judge = LibpqVerifier {
            expired,
            ..LibpqVerifier::new(self.mode, &self.roots, &provider)?
        };
        let builder = client_config_builder(Arc::new(judge), provider)?;
        let mut config = match &self.pair {
            Some(pair) => {
                let certificate = rustls::sign::SingleCertAndKey::from(pair.certified_key());
                builder.with_client_cert_resolver(Arc::new(certificate))
            }
            None => builder.with_no_client_auth(),
        };
        // There is no second handshake with this configuration, so session tickets are not stored.
        config.resumption = Resumption::disabled();
        Ok(config)
    }
}

/// Why a login failed: the server refused it, or we refused to answer the server.
fn refused(error: &tokio_postgres::Error) -> ProbeError {
    let cause = error
        .source()
        .and_then(|cause| cause.downcast_ref::<io::Error>())
        .and_then(io::Error::get_ref);
    match cause {
        Some(cause) if cause.is::<LoginRefusal>() => {
            ProbeError::Distrusted(cause.to_string().into())
        }
        Some(cause) if cause.is::<TooMuch>() => ProbeError::Protocol(cause.to_string().into()),
        _ => ProbeError::Refused(plain_words(error)),
    }
}

/// What to do about a server's certificate that has expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ExpiredCertificate {
    /// Refuse it, as libpq does.
    Refuse,
    /// Check it as of its last second.
    Accept,
}

/// Checks a server's certificate as libpq does (documentation, "SSL Support", "Client Verification
/// of Server Certificates"): `require` without roots checks nothing; with roots, and in
/// `verify-ca`, the chain; in `verify-full` the name too.
#[derive(Debug)]
struct LibpqVerifier {
    chain: Option<Arc<WebPkiServerVerifier>>,
    name: bool,
    expired: ExpiredCertificate,
}

impl LibpqVerifier {
    fn new(
        mode: SslMode,
        roots: &[Vec<u8>],
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, rustls::Error> {
        let name = mode == SslMode::VerifyFull;
        if roots.is_empty() && mode < SslMode::VerifyCa {
            return Ok(Self {
                chain: None,
                name,
                expired: ExpiredCertificate::Refuse,
            });
        }
        let mut store = RootCertStore::empty();
        for root in roots {
            store.add(CertificateDer::from(root.as_slice()))?;
        }
        let chain =
            WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(provider))
                .build()
                .map_err(|e| rustls::Error::General(e.to_string()))?;
        Ok(Self {
            chain: Some(chain),
            name,
            expired: ExpiredCertificate::Refuse,
        })
    }
}

/// The last second of a certificate's validity.
fn last_second(leaf: &CertificateDer<'_>) -> Option<UnixTime> {
    let (_, leaf) = X509Certificate::from_der(leaf).ok()?;
    let last = u64::try_from(leaf.validity().not_after.timestamp()).ok()?;
    Some(UnixTime::since_unix_epoch(Duration::from_secs(last)))
}

impl CertificateVerifier for LibpqVerifier {
    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let Some(chain) = &self.chain else {
            return Ok(());
        };
        let now = last_second(leaf)
            .filter(|last| self.expired == ExpiredCertificate::Accept && *last < now)
            .unwrap_or(now);
        match chain.verify_server_cert(leaf, intermediates, name, &[], now) {
            // The name is checked last, so the chain is valid here.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.name => Ok(()),
            verdict => verdict.map(drop),
        }
    }
}

#[cfg(test)]
mod tests;
