//! Logging in to a server as libpq would: by sslmode, with a password or a client certificate.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{CertificateError, ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use secrecy::{ExposeSecret, SecretString};
use tokio::net::TcpStream;
use tokio_postgres::NoTls;
use tokio_postgres::config::SslMode as Mode;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres_rustls::MakeRustlsConnect;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::api::tls::SslMode;
use crate::tls::Hash;
use crate::tls::pair::Pair;

use super::checked::{Judge, judged_by};
use super::session::Session;
use super::{Silence, bounded, plain_words};

/// How to log in to a server.
#[derive(Clone)]
pub struct Dial {
    /// Where the server is.
    pub address: SocketAddr,
    /// The name that its certificate must carry, with `verify-full`.
    pub host: String,
    /// The role to log in as.
    pub user: String,
    /// Its password.
    pub password: Option<SecretString>,
    /// As what the password may be asked for, by what is written for this way of connecting
    /// ([`Method::hash`](crate::tls::Method::hash)): with [`Hash::Scram`] a server that asks for MD5 gets no answer. Nobody gets
    /// it in clear.
    pub hash: Hash,
    /// PostgreSQL's major version, where it is known: there are settings that only newer servers know, and an older one refuses a
    /// login that names them.
    pub major: Option<u32>,
    /// The client certificate to show, when the server asks for one.
    pub pair: Option<Pair>,
    /// How TLS is asked for. `allow` and `prefer` are taken for `require`: we never fall back to plaintext by ourselves.
    pub mode: SslMode,
    /// The CAs that may have signed the server's certificate, DER. Without any, `require` checks nothing, as in libpq.
    pub roots: Vec<Vec<u8>>,
}

/// Without password and key.
impl fmt::Debug for Dial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dial").field("host", &self.host).field("mode", &self.mode).finish_non_exhaustive()
    }
}

impl Dial {
    /// Logs in.
    pub async fn log_in(&self) -> Result<Session, Silence> {
        self.session(false).await
    }

    /// Logs in also where the server's certificate has expired, which nobody but whoever replaces it should do. Everything else
    /// about it must hold.
    pub async fn log_in_though_expired(&self) -> Result<Session, Silence> {
        self.session(true).await
    }

    async fn session(&self, though_expired: bool) -> Result<Session, Silence> {
        let mut config = tokio_postgres::Config::new();
        config.user(&self.user).dbname("postgres").application_name("pgrekey");
        if let Some(password) = &self.password {
            config.password(password.expose_secret());
        }
        bounded(async {
            let stream =
                TcpStream::connect(self.address).await.map_err(|e| Silence::Unreachable(e.to_string().into()))?;
            let refused = |error: &tokio_postgres::Error| Silence::Refused(plain_words(error));
            if self.mode == SslMode::Disable {
                config.ssl_mode(Mode::Disable);
                let (client, session) = config.connect_raw(stream, NoTls).await.map_err(|e| refused(&e))?;
                return Ok(Session::begin(client, session));
            }
            config.ssl_mode(Mode::Require);
            let tls = self.client_config(though_expired).map_err(|e| Silence::Handshake(e.to_string().into()))?;
            let connect = <MakeRustlsConnect as MakeTlsConnect<TcpStream>>::make_tls_connect(
                &mut MakeRustlsConnect::new(tls),
                &self.host,
            )
            .map_err(|e| Silence::Handshake(e.to_string().into()))?;
            let (client, session) = config.connect_raw(stream, connect).await.map_err(|e| refused(&e))?;
            Ok(Session::begin(client, session))
        })
        .await
    }

    fn client_config(&self, though_expired: bool) -> Result<ClientConfig, rustls::Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let judge = Libpq { though_expired, ..Libpq::new(self.mode, &self.roots, &provider)? };
        let builder = judged_by(Arc::new(judge), provider)?;
        Ok(match &self.pair {
            Some(pair) => {
                let certificate = rustls::sign::SingleCertAndKey::from(pair.certified_key());
                builder.with_client_cert_resolver(Arc::new(certificate))
            }
            None => builder.with_no_client_auth(),
        })
    }
}

/// Checks a server's certificate as libpq does (documentation, "SSL Support", "Client Verification of Server Certificates"):
/// `require` without roots checks nothing; with roots, and in `verify-ca`, the chain; in `verify-full` the name too.
#[derive(Debug)]
struct Libpq {
    chain: Option<Arc<WebPkiServerVerifier>>,
    name: bool,
    /// A certificate that has expired is judged as of its last second.
    though_expired: bool,
}

impl Libpq {
    fn new(mode: SslMode, roots: &[Vec<u8>], provider: &Arc<CryptoProvider>) -> Result<Self, rustls::Error> {
        let name = mode == SslMode::VerifyFull;
        if roots.is_empty() && mode < SslMode::VerifyCa {
            return Ok(Self { chain: None, name, though_expired: false });
        }
        let mut store = RootCertStore::empty();
        for root in roots {
            store.add(CertificateDer::from(root.as_slice()))?;
        }
        let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(provider))
            .build()
            .map_err(|e| rustls::Error::General(e.to_string()))?;
        Ok(Self { chain: Some(chain), name, though_expired: false })
    }
}

/// The last second of a certificate's life.
fn last_second(leaf: &CertificateDer<'_>) -> Option<UnixTime> {
    let (_, leaf) = X509Certificate::from_der(leaf).ok()?;
    let last = u64::try_from(leaf.validity().not_after.timestamp()).ok()?;
    Some(UnixTime::since_unix_epoch(Duration::from_secs(last)))
}

impl Judge for Libpq {
    fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let Some(chain) = &self.chain else { return Ok(()) };
        let now = last_second(leaf).filter(|last| self.though_expired && *last < now).unwrap_or(now);
        match chain.verify_server_cert(leaf, intermediates, name, &[], now) {
            // The name is checked last: whoever fails here has a chain that holds.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.name => Ok(()),
            verdict => verdict.map(drop),
        }
    }
}
