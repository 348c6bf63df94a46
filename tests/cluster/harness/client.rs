//! A client of users' own, which knows nothing of pgrekey: `verify-full`, or plaintext.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pgrekey::pki::key_pair::CertificateAndKey;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

/// A server that has not answered by then is away.
const PATIENCE: Duration = Duration::from_secs(3);

/// What a client knows of a database.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    /// Where it is.
    pub(crate) address: SocketAddr,
    /// What its certificate is to say.
    pub(crate) host: String,
    /// The password of `postgres`.
    pub(crate) password: String,
    /// The certificate that was issued to the client.
    pub(crate) pair: Option<CertificateAndKey>,
    /// Whom it trusts, DER.
    pub(crate) roots: Vec<Vec<u8>>,
}

/// Why there is no session.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Nobody answers, or one who starts or stops.
    Away,
    /// The handshake or the login failed.
    Refused(String),
}

impl Known {
    /// Logs in with `verify-full`.
    pub(crate) async fn log_in(&self) -> Result<Client, Failure> {
        let mut roots = RootCertStore::empty();
        for root in &self.roots {
            roots
                .add(CertificateDer::from(root.as_slice()))
                .map_err(|e| Failure::of(&e))?;
        }
        let config = ClientConfig::builder().with_root_certificates(roots);
        let config = match &self.pair {
            Some(pair) => config.with_client_cert_resolver(Arc::new(
                rustls::sign::SingleCertAndKey::from(pair.certified_key()),
            )),
            None => config.with_no_client_auth(),
        };
        let tls = MakeTlsConnect::<TcpStream>::make_tls_connect(
            &mut MakeRustlsConnect::new(config),
            &self.host,
        );
        self.session(SslMode::Require, tls.map_err(|e| Failure::of(&e))?)
            .await
    }

    /// Logs in without TLS.
    pub(crate) async fn log_in_plainly(&self) -> Result<Client, Failure> {
        self.session(SslMode::Disable, NoTls).await
    }

    async fn session<T>(&self, mode: SslMode, tls: T) -> Result<Client, Failure>
    where
        T: tokio_postgres::tls::TlsConnect<TcpStream>,
        T::Stream: Send + 'static,
    {
        let mut config = Config::new();
        config
            .user("postgres")
            .dbname("postgres")
            .password(&self.password)
            .ssl_mode(mode);
        let log_in = async {
            let stream = TcpStream::connect(self.address)
                .await
                .map_err(|_| Failure::Away)?;
            let (client, connection) = config
                .connect_raw(stream, tls)
                .await
                .map_err(|e| Failure::of(&e))?;
            tokio::spawn(connection);
            Ok(client)
        };
        tokio::time::timeout(PATIENCE, log_in)
            .await
            .unwrap_or(Err(Failure::Away))
    }
}

/// Words of servers that start, stop or are gone.
const AWAY: [&str; 8] = [
    "57p0",
    "starting up",
    "shutting down",
    "closed",
    "reset",
    "eof",
    "unexpected end",
    "broken pipe",
];

impl Failure {
    fn of(error: &(dyn Error + 'static)) -> Self {
        let causes = std::iter::successors(Some(error), |error| (*error).source());
        let words: Vec<String> = causes.map(ToString::to_string).collect();
        let code = error
            .downcast_ref::<tokio_postgres::Error>()
            .and_then(|e| Some(e.code()?.code().to_owned()));
        let words = words.into_iter().chain(code).collect::<Vec<_>>().join(": ");
        let lower = words.to_lowercase();
        if AWAY.iter().any(|word| lower.contains(word)) {
            Self::Away
        } else {
            Self::Refused(words)
        }
    }
}
