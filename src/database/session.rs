//! A session with a server: one login, and what is asked in it.

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

/// How long a session that is left may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(1);

/// A session with a server.
///
/// # Guarantees
/// It ends when it is dropped, also when the server does not read any more. A call that is not
/// answered in time, or not waited for to the end, ends it at once: the server is asked to give up
/// what it is at, and nothing that it sends is read any longer.
pub struct Session {
    client: Client,
    connection: AbortHandle,
    /// What it takes to have a query given up.
    token: CancelToken,
    door: Door,
    ended: AtomicBool,
    /// Why the connection is no more.
    lost: Arc<OnceLock<ServerText>>,
    /// Whoever drops it may be no task.
    runtime: Handle,
}

/// How to reach the server once more.
#[derive(Clone)]
pub(super) struct Door {
    pub(super) address: SocketAddr,
    /// The name by which it is dialled, and how; `None` without TLS.
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
    /// A login that succeeded, and the connection that carries it.
    pub(super) fn begin<S, T>(client: Client, connection: Connection<S, T>, door: Door) -> Self
    where
        Connection<S, T>: Future<Output = Result<(), tokio_postgres::Error>> + Send + 'static,
    {
        let lost = Arc::new(OnceLock::new());
        let why = Arc::clone(&lost);
        let task = tokio::spawn(async move {
            let mut connection = pin!(connection);
            // Written before the connection goes: whoever is told that it has looks here.
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

    /// Whether nothing can be asked in it any more: the server has ended it, or a call has.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.ended.load(Ordering::Relaxed) || self.client.is_closed()
    }

    /// Runs a query whose answer is one row with one value, JSON, and reads that.
    ///
    /// Nothing else is asked about: no statement is prepared and no type looked up, whose answers
    /// would have to be bounded too.
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

    /// Runs statements whose answers say nothing.
    pub(super) async fn run(&self, sql: &str) -> Result<(), ProbeError> {
        self.call(self.client.batch_execute(sql)).await
    }

    /// Makes a call, and ends the session unless it is answered. That the server cannot do what it
    /// is asked is an answer too.
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

    /// Ends the session while something is asked in it.
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
            // Who does not take this either ends the query by its own timeout.
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
        // The connection says goodbye when its client has gone, and waits for ever for a server
        // that does not read.
        let connection = self.connection.clone();
        self.runtime.spawn(async move {
            tokio::time::sleep(GOODBYE).await;
            connection.abort();
        });
    }
}

/// A call that has not been answered. Dropping it ends its session.
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
    use crate::database::PATIENCE;
    use crate::database::limited::TooMuch;
    use crate::database::stranger::{
        KEY, caller, dial, endless, heard, let_in, message, rest, stranger,
    };
    use crate::tls::PasswordEncryption;

    #[tokio::test]
    async fn a_call_that_nobody_waits_for_is_given_up_and_its_session_ends() {
        let (address, seen) = stranger(async |listener| {
            let mut stream = let_in(&listener).await;
            heard(&mut stream).await;
            let (_, packet) = caller(&listener).await;
            (packet, rest(&mut stream).await)
        })
        .await;
        let session = dial(address, PasswordEncryption::Md5)
            .log_in()
            .await
            .expect("a session");
        assert!(!session.is_closed());
        let asked = timeout(
            Duration::from_millis(100),
            session.run("select pg_catalog.pg_sleep(60)"),
        );
        assert!(asked.await.is_err() && session.is_closed());
        let (packet, said) = timeout(PATIENCE, seen)
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
            stranger(async |listener| rest(&mut let_in(&listener).await).await).await;
        drop(
            dial(address, PasswordEncryption::Md5)
                .log_in()
                .await
                .expect("a session"),
        );
        assert_eq!(said.await.expect("a stranger"), message(b'X', b""));
    }

    #[tokio::test]
    async fn an_answer_without_end_is_not_read_to_its_end() {
        let (address, sent) = stranger(async |listener| {
            let mut stream = let_in(&listener).await;
            heard(&mut stream).await;
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
        let session = dial(address, PasswordEncryption::Md5)
            .log_in()
            .await
            .expect("a session");
        let silence = session.ask::<bool>("select").await.expect_err("too much");
        assert_eq!(silence, ProbeError::Query(TooMuch.to_string().into()));
        assert!(sent.await.expect("a stranger") < 16 * 1024 * 1024);
    }

    #[tokio::test]
    async fn what_an_idle_session_is_told_without_end_ends_it() {
        let (address, told) = stranger(async |listener| {
            let mut stream = let_in(&listener).await;
            endless(&mut stream, &message(b'S', b"a\0b\0")).await
        })
        .await;
        let session = dial(address, PasswordEncryption::Md5)
            .log_in()
            .await
            .expect("a session");
        let ended = async {
            while !session.is_closed() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        assert!(timeout(PATIENCE, ended).await.is_ok());
        assert!(told.await.expect("a stranger") < 16 * 1024 * 1024);
    }
}
