//! PostgreSQL servers: TLS and `pg_hba` as observed on the wire, and their state as they report it
//! in SQL; and the reload of Patroni.
//!
//! Every call has a time limit ([`CALL_TIMEOUT`]). A server that does not answer is a value
//! ([`ProbeError`]), because the plan decides on partial knowledge.

mod answers;
pub mod connect;
mod limited;
pub mod login;
mod options;
pub mod patroni;
pub mod probe;
pub mod server_status;
pub mod session;
pub mod settings;
#[cfg(test)]
mod stranger;
mod text;
mod verifier;
mod watched;

use std::time::Duration;

pub use crate::database::text::ServerText;

/// The time limit of one call. A server on the same network answers in milliseconds.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(3);

/// Why a call to a server failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// No answer in time.
    #[error("did not answer within {} s", CALL_TIMEOUT.as_secs())]
    TooSlow,
    /// No connection to its port.
    #[error("cannot be reached: {0}")]
    Unreachable(ServerText),
    /// The answer is not of PostgreSQL's protocol.
    #[error("does not speak PostgreSQL's protocol: {0}")]
    Protocol(ServerText),
    /// It offers no TLS.
    #[error("offers no TLS")]
    NoTls,
    /// The TLS handshake failed.
    #[error("TLS handshake failed: {0}")]
    Handshake(ServerText),
    /// The server refuses the login.
    #[error("refuses the login: {0}")]
    Refused(ServerText),
    /// We refuse the login: see [`login`].
    #[error("is not logged in to: {0}")]
    Distrusted(ServerText),
    /// Patroni refuses a request, or does not answer it.
    #[error("Patroni {0}")]
    Patroni(ServerText),
    /// A query failed.
    #[error("query failed: {0}")]
    Query(ServerText),
}

/// Limits the time of a call.
pub(crate) async fn bounded<T>(
    call: impl Future<Output = Result<T, ProbeError>>,
) -> Result<T, ProbeError> {
    tokio::time::timeout(CALL_TIMEOUT, call)
        .await
        .unwrap_or(Err(ProbeError::TooSlow))
}

/// The server's error, else the library's. Neither holds a password.
fn plain_words(error: &tokio_postgres::Error) -> ServerText {
    use std::error::Error;
    match (error.as_db_error(), error.source()) {
        (Some(said), _) => format!("{} ({})", said.message(), said.code().code()).into(),
        (None, Some(cause)) => cause.to_string().into(),
        (None, None) => error.to_string().into(),
    }
}
