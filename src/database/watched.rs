//! The stream between a server and the client library: what comes is weighed before the library
//! acts on it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};

use crate::database::answers::Answers;
use crate::database::limited::{ANSWER, ReadBudget};
use crate::database::login::{AuthenticationTerms, Greeting};

/// A stream that is weighed by a [`Greeting`] until the server lets us in, and whose budget is
/// renewed by each of its [`Answers`] from then on.
#[derive(Debug)]
pub(super) struct WatchedStream<S> {
    stream: S,
    watch: Watch,
}

/// How far the session has come.
#[derive(Debug)]
pub(super) struct Watch {
    /// Until the server lets us in.
    greeting: Option<Greeting>,
    answers: Answers,
    budget: ReadBudget,
}

impl Watch {
    /// Watches a session from its beginning. `budget` is that of the stream below.
    pub(super) fn new(terms: AuthenticationTerms, budget: ReadBudget) -> Self {
        Self {
            greeting: Some(Greeting::new(terms)),
            answers: Answers::default(),
            budget,
        }
    }

    fn hear(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(greeting) = &mut self.greeting else {
            return self.count(bytes);
        };
        let Some(rest) = greeting.hear(bytes).map_err(io::Error::other)? else {
            return Ok(());
        };
        self.greeting = None;
        self.budget.renew(ANSWER);
        self.count(&rest)
    }

    fn count(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.answers.hear(bytes).map_err(io::Error::other)? {
            self.budget.renew(ANSWER);
        }
        Ok(())
    }

    fn say(&self, bytes: &[u8]) -> io::Result<()> {
        self.greeting
            .as_ref()
            .map_or(Ok(()), |greeting| greeting.say(bytes))
            .map_err(io::Error::other)
    }
}

impl<S> WatchedStream<S> {
    pub(super) fn new(stream: S, watch: Watch) -> Self {
        Self { stream, watch }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WatchedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let this = &mut *self;
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        let heard = this.watch.hear(&buf.filled()[before..]);
        if heard.is_err() {
            buf.set_filled(before);
        }
        Poll::Ready(heard)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WatchedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.watch.say(bytes)?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl<S: TlsStream + Unpin> TlsStream for WatchedStream<S> {
    fn channel_binding(&self) -> ChannelBinding {
        self.stream.channel_binding()
    }
}

/// A TLS client whose stream is watched above TLS.
pub(super) struct WatchedTls<C> {
    pub(super) tls: C,
    pub(super) watch: Watch,
}

impl<S, C> TlsConnect<S> for WatchedTls<C>
where
    S: Send + 'static,
    C: TlsConnect<S, Future: Send + 'static> + Send + 'static,
{
    type Stream = WatchedStream<C::Stream>;
    type Error = C::Error;
    type Future = BoxFuture<'static, Result<Self::Stream, Self::Error>>;

    fn connect(self, stream: S) -> Self::Future {
        let Self { tls, watch } = self;
        let shake = tls.connect(stream);
        Box::pin(async move { Ok(WatchedStream::new(shake.await?, watch)) })
    }
}
