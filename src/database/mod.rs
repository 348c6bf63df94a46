//! Postgres, as seen from outside: what a server proves on the wire, and what it says about itself
//! in SQL.
//!
//! Every call is bounded in time ([`PATIENCE`]), and a server that does not answer is a value, not
//! an error: the loops decide on what is known.

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

/// How long one call may take. A server on the same network answers in milliseconds; one that does
/// not within this time is reported as silent.
pub const PATIENCE: Duration = Duration::from_secs(3);

/// Why nothing is known about a server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// It did not answer in time.
    #[error("did not answer within {} s", PATIENCE.as_secs())]
    TooSlow,
    /// No connection to its port.
    #[error("cannot be reached: {0}")]
    Unreachable(ServerText),
    /// It answers, and not in the way of a PostgreSQL server.
    #[error("does not speak PostgreSQL's protocol: {0}")]
    Protocol(ServerText),
    /// It offers no TLS.
    #[error("offers no TLS")]
    NoTls,
    /// The TLS handshake failed.
    #[error("TLS handshake failed: {0}")]
    Handshake(ServerText),
    /// It does not let us in.
    #[error("refuses the login: {0}")]
    Refused(ServerText),
    /// It asks for what it is not given.
    #[error("is not logged in to: {0}")]
    Distrusted(ServerText),
    /// Patroni does not do what it is asked.
    #[error("Patroni {0}")]
    Agent(ServerText),
    /// It lets us in, and does not answer a query.
    #[error("query failed: {0}")]
    Query(ServerText),
}

/// Bounds a call in time.
pub(crate) async fn bounded<T>(
    call: impl Future<Output = Result<T, ProbeError>>,
) -> Result<T, ProbeError> {
    tokio::time::timeout(PATIENCE, call)
        .await
        .unwrap_or(Err(ProbeError::TooSlow))
}

/// What the server said, else what the library says. Neither holds a password.
fn plain_words(error: &tokio_postgres::Error) -> ServerText {
    use std::error::Error;
    match (error.as_db_error(), error.source()) {
        (Some(said), _) => format!("{} ({})", said.message(), said.code().code()).into(),
        (None, Some(cause)) => cause.to_string().into(),
        (None, None) => error.to_string().into(),
    }
}
