//! The stream between a server and the client library: messages are checked before the library sees
//! them.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};

use crate::database::answers::Answers;
use crate::database::limited::{ANSWER, ReadBudget};
use crate::database::login::{AuthenticationTerms, Greeting};

/// A stream whose messages a [`Greeting`] checks until the login is complete. From then on the read
/// budget is renewed after each answer ([`Answers`]).
#[derive(Debug)]
pub(super) struct WatchedStream<S> {
    stream: S,
    watch: Watch,
}

/// The phase of the session.
#[derive(Debug)]
pub(super) struct Watch {
    /// `Some` until the login is complete.
    greeting: Option<Greeting>,
    answers: Answers,
    budget: ReadBudget,
}

impl Watch {
    /// Watches a session from its start. `budget` is that of the stream below.
    pub(super) fn new(terms: AuthenticationTerms, budget: ReadBudget) -> Self {
        Self {
            greeting: Some(Greeting::new(terms)),
            answers: Answers::default(),
            budget,
        }
    }

    fn receive(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(greeting) = &mut self.greeting else {
            return self.count(bytes);
        };
        let Some(rest) = greeting.receive(bytes).map_err(io::Error::other)? else {
            return Ok(());
        };
        self.greeting = None;
        self.budget.renew(ANSWER);
        self.count(&rest)
    }

    fn count(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.answers.receive(bytes).map_err(io::Error::other)? {
            self.budget.renew(ANSWER);
        }
        Ok(())
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        self.greeting
            .as_ref()
            .map_or(Ok(()), |greeting| greeting.send(bytes))
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
        let heard = this.watch.receive(&buf.filled()[before..]);
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
        self.watch.send(bytes)?;
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
