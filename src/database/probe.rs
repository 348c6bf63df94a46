//! The TLS of a server, observed on the wire without a login: its certificate, the CAs of the
//! client certificates that it accepts, and whether it accepts plaintext.
//!
//! # Expected flow
//! PostgreSQL speaks TLS only after an `SSLRequest`, which it answers with `S` or `N`. In the
//! handshake it sends its chain. If it has CAs for client certificates, it requests one and names
//! those CAs: this list is its trust bundle *as loaded*. A plaintext start-up packet tells whether
//! it accepts plaintext: the answer is an authentication request if a line of `pg_hba` matches, and
//! an error if none does. (PostgreSQL documentation, "Message Flow", "SSL Session Encryption".)
//!
//! # Guarantees
//! A probe does not log in and changes nothing. It reports the certificate of any issuer: the
//! caller checks it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;
use postgres_protocol::message::{backend, frontend};
use rustls::client::ResolvesClientCert;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConnection, SignatureScheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::api::ops_request::NegotiatedTls;
use crate::database::limited::{BEFORE_LOGIN, Limited, ReadBudget};
use crate::database::verifier::{CertificateVerifier, client_config_builder};
use crate::database::{ProbeError, bounded};

/// The result of a TLS handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// The chain that the server sent, DER, leaf first.
    pub chain: Vec<Vec<u8>>,
    /// Names (DER) of the CAs of the client certificates that the server accepts. Empty if it
    /// requests none.
    pub takes: BTreeSet<Vec<u8>>,
    /// What was negotiated.
    pub tls: NegotiatedTls,
}

/// The answer to a plaintext start-up packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plaintext {
    /// A line of `pg_hba` matches: the login may go on in plaintext.
    Taken,
    /// No line of `pg_hba` matches.
    Refused,
}

/// The result of a probe.
#[derive(Clone, Debug)]
pub struct ProbeResult {
    /// The handshake. [`ProbeError::NoTls`] if the server offers no TLS.
    pub tls: Result<Handshake, ProbeError>,
    /// The answer to plaintext.
    pub plaintext: Result<Plaintext, ProbeError>,
}

/// Probes TLS and plaintext at the same time.
pub async fn probe(address: SocketAddr, user: &str) -> ProbeResult {
    let (tls, plaintext) = tokio::join!(handshake(address), plaintext(address, user));
    ProbeResult { tls, plaintext }
}

/// Connects, with the read budget for the time before login.
async fn connect(address: SocketAddr) -> Result<Limited<TcpStream>, ProbeError> {
    let stream = TcpStream::connect(address)
        .await
        .map_err(|e| ProbeError::Unreachable(e.to_string().into()))?;
    Ok(Limited::new(stream, ReadBudget::new(BEFORE_LOGIN)))
}

fn broken(error: &std::io::Error) -> ProbeError {
    ProbeError::Protocol(error.to_string().into())
}

/// Sends the `SSLRequest`. The returned stream is ready for the handshake.
async fn ask_for_tls(address: SocketAddr) -> Result<Limited<TcpStream>, ProbeError> {
    let mut stream = connect(address).await?;
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    stream.write_all(&request).await.map_err(|e| broken(&e))?;
    check_tls_answer(stream.read_u8().await.map_err(|e| broken(&e))?).map(|()| stream)
}

/// Checks a server's answer to `SSLRequest`.
pub fn check_tls_answer(answer: u8) -> Result<(), ProbeError> {
    match answer {
        b'S' => Ok(()),
        b'N' => Err(ProbeError::NoTls),
        other => Err(ProbeError::Protocol(
            format!("answered SSLRequest with byte {other}").into(),
        )),
    }
}

/// Makes a handshake and lets go.
pub async fn handshake(address: SocketAddr) -> Result<Handshake, ProbeError> {
    let failed = |e: &dyn std::fmt::Display| ProbeError::Handshake(e.to_string().into());
    bounded(async {
        let stream = ask_for_tls(address).await?;
        let seen = Arc::new(Seen::default());
        let config =
            client_config_builder(Arc::clone(&seen), Arc::new(aws_lc_rs::default_provider()))
                .map_err(|e| failed(&e))?;
        let config =
            config.with_client_cert_resolver(Arc::clone(&seen) as Arc<dyn ResolvesClientCert>);
        // No name is asked for: PostgreSQL serves one certificate, and the judges compare its names
        // themselves.
        let name = ServerName::IpAddress(address.ip().into());
        let stream = TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
            .map_err(|e| failed(&e))?;
        let (_, connection) = stream.get_ref();
        Ok(seen.handshake(negotiated(connection)))
    })
    .await
}

/// What a connection has negotiated, in IANA's names.
fn negotiated(connection: &ClientConnection) -> NegotiatedTls {
    let group = connection.negotiated_key_exchange_group();
    // rustls writes TLSv1_3 and TLS13_AES_256_GCM_SHA384.
    let protocol = connection.protocol_version();
    let protocol = protocol.and_then(|version| version.as_str().map(|v| v.replace('_', ".")));
    let cipher = connection.negotiated_cipher_suite();
    let cipher = cipher.and_then(|cipher| cipher.suite().as_str());
    NegotiatedTls {
        protocol: protocol.unwrap_or_default(),
        cipher: cipher.unwrap_or_default().replace("TLS13_", "TLS_"),
        group: group.and_then(|group| group.name().as_str().map(str::to_owned)),
    }
}

/// Sends a plaintext start-up packet and reads the first answer.
pub async fn plaintext(address: SocketAddr, user: &str) -> Result<Plaintext, ProbeError> {
    bounded(async {
        let mut stream = connect(address).await?;
        let mut request = BytesMut::new();
        frontend::startup_message([("user", user), ("database", "postgres")], &mut request)
            .map_err(|e| broken(&e))?;
        stream.write_all(&request).await.map_err(|e| broken(&e))?;
        let mut answer = BytesMut::new();
        loop {
            if stream.read_buf(&mut answer).await.map_err(|e| broken(&e))? == 0 {
                return Err(ProbeError::Protocol(
                    "closed the connection without an answer".into(),
                ));
            }
            if let Some(judged) = check_plaintext_answer(&mut answer)? {
                return Ok(judged);
            }
        }
    })
    .await
}

/// `invalid_authorization_specification`: what a server says when no line of `pg_hba` matches.
const NO_LINE_MATCHES: &str = "28000";

/// What the first answer to a plaintext start-up packet means, when all of it has come.
pub fn check_plaintext_answer(answer: &mut BytesMut) -> Result<Option<Plaintext>, ProbeError> {
    use tokio_postgres::fallible_iterator::FallibleIterator;
    let error = match backend::Message::parse(answer).map_err(|e| broken(&e))? {
        None => return Ok(None),
        Some(backend::Message::ErrorResponse(error)) => error,
        Some(_) => return Ok(Some(Plaintext::Taken)),
    };
    let mut code = None;
    let mut text = None;
    let mut fields = error.fields();
    while let Some(field) = fields.next().map_err(|e| broken(&e))? {
        let value = String::from_utf8_lossy(field.value_bytes()).into_owned();
        match field.type_() {
            b'C' => code = Some(value),
            b'M' => text = Some(value),
            _ => {}
        }
    }
    match code.as_deref() {
        Some(NO_LINE_MATCHES) => Ok(Some(Plaintext::Refused)),
        // The server is starting up, shutting down, or has too many connections: no answer about
        // plaintext.
        _ => Err(ProbeError::Refused(text.unwrap_or_default().into())),
    }
}

/// Records the server's chain and CAs, accepts every certificate, and has none of its own.
#[derive(Debug, Default)]
struct Seen {
    chain: Mutex<Vec<Vec<u8>>>,
    takes: Mutex<BTreeSet<Vec<u8>>>,
}

/// The value is only replaced as a whole, so a panic of another holder leaves it intact.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Seen {
    fn handshake(&self, tls: NegotiatedTls) -> Handshake {
        Handshake {
            tls,
            chain: locked(&self.chain).clone(),
            takes: locked(&self.takes).clone(),
        }
    }
}

impl CertificateVerifier for Seen {
    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: UnixTime,
    ) -> Result<(), rustls::Error> {
        *locked(&self.chain) = std::iter::once(leaf)
            .chain(intermediates)
            .map(|c| c.to_vec())
            .collect();
        Ok(())
    }
}

impl ResolvesClientCert for Seen {
    fn resolve(
        &self,
        takes: &[&[u8]],
        _: &[SignatureScheme],
    ) -> Option<Arc<rustls::sign::CertifiedKey>> {
        let takes = takes.iter().map(|name| name.to_vec()).collect();
        *locked(&self.takes) = takes;
        None
    }

    fn has_certs(&self) -> bool {
        true
    }
}
