//! A session with a server: one login, and what is asked in it.

use tokio::task::AbortHandle;
use tokio_postgres::{Client, Connection};

/// A session with a server. It ends when it is dropped.
#[derive(Debug)]
pub struct Session {
    pub(super) client: Client,
    task: AbortHandle,
}

impl Session {
    /// A login that succeeded, and the connection that carries it.
    pub(super) fn begin<S, T>(client: Client, connection: Connection<S, T>) -> Self
    where
        Connection<S, T>: Future + Send + 'static,
        <Connection<S, T> as Future>::Output: Send,
    {
        let task = tokio::spawn(connection).abort_handle();
        Self { client, task }
    }

    /// Whether nothing can be asked in it any more: the server has ended it, or a call was not answered in time.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// What an idle session holds here, bytes: an estimate for whoever keeps many.
    #[must_use]
    pub const fn size() -> usize {
        64 * 1024
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.task.abort();
    }
}
