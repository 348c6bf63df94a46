//! What a server proves on the wire, without a login: its certificate, the CAs it takes, and
//! whether it takes plaintext.
//!
//! # Expected flow
//! PostgreSQL speaks TLS only after an `SSLRequest`, which it answers with `S` or `N`. In the
//! handshake it sends its chain and, when it knows CAs for client certificates, asks for one and
//! names those CAs: that list is its trust bundle *as loaded*. Whether it takes plaintext shows in
//! its answer to a plaintext start-up packet: a request to authenticate (some line of `pg_hba`
//! matches), or an error (none does). (PostgreSQL documentation, "Message Flow", "SSL Session
//! Encryption".)
//!
//! # Guarantees
//! Nothing is logged in to and nothing is changed. The certificate is reported whoever signed it:
//! judging it is for others.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;
use postgres_protocol::message::{backend, frontend};
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::database::limited::{BEFORE_LOGIN, Limited, ReadBudget};
use crate::database::verifier::{CertificateVerifier, judged_by};
use crate::database::{ProbeError, bounded};

/// What a TLS handshake showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// The chain that the server sent, DER, leaf first.
    pub chain: Vec<Vec<u8>>,
    /// Names (DER) of the CAs from which the server takes client certificates. Empty when it does
    /// not ask for one.
    pub takes: BTreeSet<Vec<u8>>,
}

/// What a plaintext start-up packet was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plaintext {
    /// Some line of `pg_hba` matches: the login may go on, in plaintext.
    Taken,
    /// No line of `pg_hba` matches.
    Refused,
}

/// Everything that one look at the wire shows.
#[derive(Clone, Debug)]
pub struct ProbeResult {
    /// The handshake, or why there was none; [`ProbeError::NoTls`] when the server offers none.
    pub tls: Result<Handshake, ProbeError>,
    /// The answer to plaintext, or why there was none.
    pub plaintext: Result<Plaintext, ProbeError>,
}

/// Looks at the wire: TLS and plaintext at the same time.
pub async fn probe(address: SocketAddr, user: &str) -> ProbeResult {
    let (tls, plaintext) = tokio::join!(handshake(address), plaintext(address, user));
    ProbeResult { tls, plaintext }
}

/// A connection on which no more is read than a server has to say before a login.
async fn connect(address: SocketAddr) -> Result<Limited<TcpStream>, ProbeError> {
    let stream = TcpStream::connect(address)
        .await
        .map_err(|e| ProbeError::Unreachable(e.to_string().into()))?;
    Ok(Limited::new(stream, ReadBudget::new(BEFORE_LOGIN)))
}

fn broken(error: &std::io::Error) -> ProbeError {
    ProbeError::Protocol(error.to_string().into())
}

/// Asks for TLS; the stream is ready for the handshake then.
async fn ask_for_tls(address: SocketAddr) -> Result<Limited<TcpStream>, ProbeError> {
    let mut stream = connect(address).await?;
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    stream.write_all(&request).await.map_err(|e| broken(&e))?;
    judged_tls(stream.read_u8().await.map_err(|e| broken(&e))?).map(|()| stream)
}

/// What a server's answer to `SSLRequest` means.
pub fn judged_tls(answer: u8) -> Result<(), ProbeError> {
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
        let config = judged_by(Arc::clone(&seen), Arc::new(aws_lc_rs::default_provider()))
            .map_err(|e| failed(&e))?;
        let config =
            config.with_client_cert_resolver(Arc::clone(&seen) as Arc<dyn ResolvesClientCert>);
        // No name is asked for: PostgreSQL serves one certificate, and the judges compare its names
        // themselves.
        let name = ServerName::IpAddress(address.ip().into());
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
            .map_err(|e| failed(&e))?;
        Ok(seen.handshake())
    })
    .await
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
            if let Some(judged) = judged_plaintext(&mut answer)? {
                return Ok(judged);
            }
        }
    })
    .await
}

/// `invalid_authorization_specification`: what a server says when no line of `pg_hba` matches.
const NO_LINE_MATCHES: &str = "28000";

/// What the first answer to a plaintext start-up packet means, when all of it has come.
pub fn judged_plaintext(answer: &mut BytesMut) -> Result<Option<Plaintext>, ProbeError> {
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
        // Starting up, shutting down, too many connections: it says nothing about plaintext.
        _ => Err(ProbeError::Refused(text.unwrap_or_default().into())),
    }
}

/// Remembers what it is shown, takes every certificate, and has none of its own.
#[derive(Debug, Default)]
struct Seen {
    chain: Mutex<Vec<Vec<u8>>>,
    takes: Mutex<BTreeSet<Vec<u8>>>,
}

/// What somebody who panicked while holding the lock left behind is as good as any: it is only
/// replaced as a whole.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Seen {
    fn handshake(&self) -> Handshake {
        Handshake {
            chain: locked(&self.chain).clone(),
            takes: locked(&self.takes).clone(),
        }
    }
}

impl CertificateVerifier for Seen {
    fn judge(
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
