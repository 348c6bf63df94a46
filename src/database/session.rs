//! A session with a server: one login and its queries.

use std::fmt;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::TryStreamExt;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{CancelToken, Client, Connection, NoTls, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::database::limited::{BEFORE_LOGIN, Limited, ReadBudget};
use crate::database::{ProbeError, ServerText, bounded, plain_words};

/// How long a dropped session may take to close its connection.
const GOODBYE: Duration = Duration::from_secs(1);

/// A session with a server.
///
/// # Guarantees
/// Dropping the session closes it, even if the server does not read any more. A call that times
/// out, or whose future is dropped, closes the session at once: the server gets a cancel request,
/// and nothing more is read from it.
pub struct Session {
    client: Client,
    connection: AbortHandle,
    /// The token for a cancel request.
    token: CancelToken,
    door: Door,
    ended: AtomicBool,
    /// Why the connection was closed.
    lost: Arc<OnceLock<ServerText>>,
    /// The session may be dropped outside the runtime.
    runtime: Handle,
}

/// How to connect to the server for a cancel request.
#[derive(Clone)]
pub(super) struct Door {
    pub(super) address: SocketAddr,
    /// The server name and the TLS configuration. `None` without TLS.
    pub(super) tls: Option<(String, MakeRustlsConnect)>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("address", &self.door.address)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// Starts a session after a successful login.
    pub(super) fn begin<S, T>(client: Client, connection: Connection<S, T>, door: Door) -> Self
    where
        Connection<S, T>: Future<Output = Result<(), tokio_postgres::Error>> + Send + 'static,
    {
        let lost = Arc::new(OnceLock::new());
        let why = Arc::clone(&lost);
        let task = tokio::spawn(async move {
            let mut connection = pin!(connection);
            // Stored before the connection is dropped: calls that then fail read it.
            if let Err(error) = connection.as_mut().await {
                let _ = why.set(plain_words(&error));
            }
        });
        let token = client.cancel_token();
        let (ended, runtime) = (AtomicBool::new(false), Handle::current());
        Self {
            client,
            connection: task.abort_handle(),
            token,
            door,
            ended,
            lost,
            runtime,
        }
    }

    /// Whether the session is closed, by the server or by a failed call.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.ended.load(Ordering::Relaxed) || self.client.is_closed()
    }

    /// Runs a query that returns one JSON value, and decodes it.
    ///
    /// It uses the simple query protocol: no statement is prepared and no type looked up, whose
    /// answers would need limits too.
    pub(super) async fn ask<T: DeserializeOwned>(&self, sql: &str) -> Result<T, ProbeError> {
        self.call(async {
            let mut answer = pin!(self.client.simple_query_raw(sql).await?);
            let mut value = None;
            while let Some(message) = answer.try_next().await? {
                if let (SimpleQueryMessage::Row(row), None) = (message, &value) {
                    value = Some(row.try_get(0)?.unwrap_or_default().to_owned());
                }
            }
            Ok(value.unwrap_or_default())
        })
        .await
        .and_then(|value: String| {
            let odd = |error: serde_json::Error| {
                ProbeError::Query(format!("an answer that was not asked for: {error}").into())
            };
            serde_json::from_str(&value).map_err(odd)
        })
    }

    /// Runs statements without a result.
    pub(super) async fn run(&self, sql: &str) -> Result<(), ProbeError> {
        self.call(self.client.batch_execute(sql)).await
    }

    /// Makes a call, and closes the session if there is no answer. An error of the server is an
    /// answer.
    async fn call<T>(
        &self,
        call: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, ProbeError> {
        let mut unanswered = Unanswered(Some(self));
        let answer = bounded(async { Ok(call.await) }).await?;
        if answer
            .as_ref()
            .err()
            .is_none_or(|error| error.as_db_error().is_some())
        {
            unanswered.0 = None;
        }
        answer.map_err(|error| {
            let lost = self.lost.get().filter(|_| error.is_closed());
            ProbeError::Query(lost.cloned().unwrap_or_else(|| plain_words(&error)))
        })
    }

    /// Closes the session during a call.
    fn end(&self) {
        if self.ended.swap(true, Ordering::Relaxed) {
            return;
        }
        let (token, door, connection) = (
            self.token.clone(),
            self.door.clone(),
            self.connection.clone(),
        );
        self.runtime.spawn(async move {
            // If the cancel request fails too, `statement_timeout` ends the query.
            let _ = bounded(async { Ok(door.cancel(&token).await) }).await;
            connection.abort();
        });
    }
}

impl Door {
    async fn cancel(self, token: &CancelToken) -> Option<()> {
        let stream = Limited::new(
            TcpStream::connect(self.address).await.ok()?,
            ReadBudget::new(BEFORE_LOGIN),
        );
        match self.tls {
            None => token.cancel_query_raw(stream, NoTls).await.ok(),
            Some((host, mut tls)) => {
                let tls =
                    MakeTlsConnect::<Limited<TcpStream>>::make_tls_connect(&mut tls, &host).ok()?;
                token.cancel_query_raw(stream, tls).await.ok()
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.ended.load(Ordering::Relaxed) {
            return;
        }
        // After the client is dropped, the connection sends `Terminate`, and waits for ever if the
        // server does not read.
        let connection = self.connection.clone();
        self.runtime.spawn(async move {
            tokio::time::sleep(GOODBYE).await;
            connection.abort();
        });
    }
}

/// A call without an answer so far. Dropping it closes the session.
struct Unanswered<'a>(Option<&'a Session>);

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if let Some(session) = self.0 {
            session.end();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::time::{sleep, timeout};

    use super::*;
    use crate::database::CALL_TIMEOUT;
    use crate::database::limited::TooMuch;
    use crate::database::stranger::{
        KEY, accept_login, caller, endless, login_options, message, next_message, rest, stranger,
    };
    use crate::tls::PasswordEncryption;

    #[tokio::test]
    async fn an_abandoned_call_is_cancelled_and_its_session_ends() {
        let (address, seen) = stranger(async |listener| {
            let mut stream = accept_login(&listener).await;
            next_message(&mut stream).await;
            let (_, packet) = caller(&listener).await;
            (packet, rest(&mut stream).await)
        })
        .await;
        let session = login_options(address, PasswordEncryption::Md5)
            .log_in()
            .await
            .expect("a session");
        assert!(!session.is_closed());
        let asked = timeout(
            Duration::from_millis(100),
            session.run("select pg_catalog.pg_sleep(60)"),
        );
        assert!(asked.await.is_err() && session.is_closed());
        let (packet, said) = timeout(CALL_TIMEOUT, seen)
            .await
            .expect("it is given up")
            .expect("a stranger");
        let request = [1234_u16.to_be_bytes(), 5678_u16.to_be_bytes()].concat();
        assert_eq!(
            (packet, said),
            ([request.as_slice(), &KEY].concat(), vec![])
        );
    }

    #[tokio::test]
    async fn a_session_that_is_dropped_says_goodbye() {
        let (address, said) =
            stranger(async |listener| rest(&mut accept_login(&listener).await).await).await;
        drop(
            login_options(address, PasswordEncryption::Md5)
                .log_in()
                .await
                .expect("a session"),
        );
        assert_eq!(said.await.expect("a stranger"), message(b'X', b""));
    }

    #[tokio::test]
    async fn an_answer_without_end_is_not_read_to_its_end() {
        let (address, sent) = stranger(async |listener| {
            let mut stream = accept_login(&listener).await;
            next_message(&mut stream).await;
            // One column without a name.
            stream
                .write_all(&message(b'T', &[[0, 1].as_slice(), &[0; 19]].concat()))
                .await
                .expect("sent");
            endless(
                &mut stream,
                &message(
                    b'D',
                    &[[0, 1, 0, 0, 0x20, 0].as_slice(), &[b' '; 0x2000]].concat(),
                ),
            )
            .await
        })
        .await;
        let session = login_options(address, PasswordEncryption::Md5)
            .log_in()
            .await
            .expect("a session");
        let silence = session.ask::<bool>("select").await.expect_err("too much");
        assert_eq!(silence, ProbeError::Query(TooMuch.to_string().into()));
        assert!(sent.await.expect("a stranger") < 16 * 1024 * 1024);
    }

    #[tokio::test]
    async fn endless_messages_end_an_idle_session() {
        let (address, told) = stranger(async |listener| {
            let mut stream = accept_login(&listener).await;
            endless(&mut stream, &message(b'S', b"a\0b\0")).await
        })
        .await;
        let session = login_options(address, PasswordEncryption::Md5)
            .log_in()
            .await
            .expect("a session");
        let ended = async {
            while !session.is_closed() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        assert!(timeout(CALL_TIMEOUT, ended).await.is_ok());
        assert!(told.await.expect("a stranger") < 16 * 1024 * 1024);
    }
}
