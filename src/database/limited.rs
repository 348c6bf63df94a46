//! A stream with a read budget: a server that sends without end costs no memory.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Semaphore, SemaphorePermit};

/// The most bytes that a server may send before login, its TLS handshake included. PostgreSQL sends
/// a few certificates and less than 1 kB.
pub(super) const BEFORE_LOGIN: usize = 64 * 1024;

/// The most bytes of the answer to one query. The longest real answer is a long `pg_hba.conf`.
pub(super) const ANSWER: usize = 2 * 1024 * 1024;

/// Answers of more bytes are long.
const LONG: usize = 64 * 1024;

/// The most long answers at a time, from all servers. There may be a thousand sessions, and their
/// answers must fit into the memory of a pod. Real servers send hardly any long answer.
static LONG_ANSWERS: Semaphore = Semaphore::const_new(8);

/// The bytes that may still arrive.
#[derive(Clone, Debug)]
pub(super) struct ReadBudget(Arc<Mutex<ReadAccount>>);

#[derive(Debug)]
struct ReadAccount {
    left: usize,
    come: usize,
    /// The permit for a long answer.
    place: Option<SemaphorePermit<'static>>,
}

impl ReadBudget {
    pub(super) fn new(bytes: usize) -> Self {
        Self(Arc::new(Mutex::new(ReadAccount {
            left: bytes,
            come: 0,
            place: None,
        })))
    }

    /// Sets the budget to `bytes`.
    pub(super) fn renew(&self, bytes: usize) {
        *self.account() = ReadAccount {
            left: bytes,
            come: 0,
            place: None,
        };
    }

    fn spend(&self, bytes: usize) -> io::Result<()> {
        let mut account = self.account();
        account.left = account
            .left
            .checked_sub(bytes)
            .ok_or_else(|| io::Error::other(TooMuch))?;
        account.come += bytes;
        if account.come > LONG && account.place.is_none() {
            account.place = Some(
                LONG_ANSWERS
                    .try_acquire()
                    .map_err(|_| io::Error::other(TooMuch))?,
            );
        }
        Ok(())
    }

    fn account(&self) -> MutexGuard<'_, ReadAccount> {
        // No holder of the lock panics.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The budget is used up, or there are too many long answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("sends more than a server has to say")]
pub(super) struct TooMuch;

/// A stream whose reads fail when the budget is used up. It sits below TLS, so that the bytes of
/// TLS itself count too.
#[derive(Debug)]
pub(super) struct Limited<S> {
    stream: S,
    budget: ReadBudget,
}

impl<S> Limited<S> {
    pub(super) fn new(stream: S, budget: ReadBudget) -> Self {
        Self { stream, budget }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Limited<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        Poll::Ready(self.budget.spend(buf.filled().len() - before))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Limited<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn an_answer_over_the_budget_is_read_no_further() {
        let budget = ReadBudget::new(10);
        let mut stream = Limited::new(tokio::io::repeat(0), budget.clone());
        assert!(stream.read_exact(&mut [0; 10]).await.is_ok());
        assert!(
            stream
                .read_u8()
                .await
                .is_err_and(|error| error.to_string() == TooMuch.to_string())
        );
        budget.renew(1);
        assert_eq!(
            (stream.read_u8().await.ok(), stream.read_u8().await.is_err()),
            (Some(0), true)
        );
    }
    #[tokio::test]
    async fn few_answers_at_once_are_long_and_short_ones_never_wait() {
        let read = async |stream: &mut Limited<_>, bytes| {
            stream.read_exact(&mut vec![0; bytes]).await.is_ok()
        };
        let stream = || Limited::new(tokio::io::repeat(0), ReadBudget::new(ANSWER));
        let mut long = vec![];
        loop {
            let mut one = stream();
            if !read(&mut one, LONG + 1).await {
                break;
            }
            long.push(one);
        }
        assert!((1..=8).contains(&long.len()), "other tests may have some");
        assert!(read(&mut stream(), LONG).await);
        long[0].budget.renew(ANSWER);
        assert!(
            read(&mut stream(), LONG + 1).await,
            "the place of an answer that has ended is free"
        );
    }
}
