//! Which connections there are, what each is doing, and which one makes way when there are too many.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::limits::Limits;

/// What one connection is doing: shared by its task, its requests, and the acceptor that may need its place.
#[derive(Debug)]
pub(super) struct Activity {
    doing: Mutex<Doing>,
    /// Told when the connection is out of use, for a newcomer that waits for its place.
    freed: Arc<Notify>,
    /// Set when the connection must make way for another one.
    pub(super) evicted: CancellationToken,
}

#[derive(Clone, Copy, Debug)]
struct Doing {
    requests: u32,
    /// What it does while `requests` is 0, and since when.
    between: Between,
    since: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Between {
    /// There was no request yet.
    Fresh,
    /// The last request is done.
    Idle,
    /// The last request is done and a byte of the next one has come.
    Reading,
}

/// Why a connection that is between two requests is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expiry {
    /// The head of a request did not come in time.
    Header,
    /// Nothing came for long.
    Idle,
}

impl Activity {
    fn new(freed: Arc<Notify>) -> Self {
        let doing = Doing { requests: 0, between: Between::Fresh, since: Instant::now() };
        Self { doing: Mutex::new(doing), freed, evicted: CancellationToken::new() }
    }

    fn doing(&self) -> MutexGuard<'_, Doing> {
        // A panic cannot leave a `Doing` half-written.
        self.doing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time for the first request starts now: the handshake had its own.
    pub(super) fn handshaken(&self) {
        self.doing().since = Instant::now();
    }

    /// A byte came that belongs to a request.
    fn read(&self) {
        let mut doing = self.doing();
        if doing.requests == 0 && doing.between == Between::Idle {
            doing.between = Between::Reading;
            doing.since = Instant::now();
        }
    }

    /// A request is being served until the guard is dropped.
    pub(super) fn request(self: &Arc<Self>) -> Request {
        self.doing().requests += 1;
        Request(Arc::clone(self))
    }

    /// Whether the connection is between two requests and nothing of the next one has come.
    pub(super) fn is_idle(&self) -> bool {
        let doing = self.doing();
        doing.requests == 0 && doing.between == Between::Idle
    }

    /// When the connection is to be closed, and why, if nothing happens. Never while a request is served.
    pub(super) fn expiry(&self, limits: &Limits) -> Option<(Instant, Expiry)> {
        let Doing { requests, between, since } = *self.doing();
        match between {
            _ if requests > 0 => None,
            Between::Fresh | Between::Reading => Some((since + limits.header, Expiry::Header)),
            Between::Idle => Some((since + limits.idle, Expiry::Idle)),
        }
    }

    /// Since when no request is served.
    fn unused_since(&self) -> Option<Instant> {
        let doing = self.doing();
        (doing.requests == 0).then_some(doing.since)
    }
}

/// A request in progress.
#[derive(Debug)]
pub(super) struct Request(Arc<Activity>);

impl Drop for Request {
    fn drop(&mut self) {
        let mut doing = self.0.doing();
        doing.requests -= 1;
        if doing.requests == 0 {
            doing.between = Between::Idle;
            doing.since = Instant::now();
            self.0.freed.notify_one();
        }
    }
}

/// The places that connections take, at most so many.
///
/// *Guarantee*: callers that hold connections without using them cannot keep others out. When all places are taken, the
/// connection that has been without a request for the longest makes way, be it in its handshake, in a head that does not
/// end, or idle. A connection in use is never closed for another.
///
/// The price: a caller's idle connection may be closed while all places are taken, just as its next request is on its way.
#[derive(Debug)]
pub(super) struct Places {
    taken: Mutex<Taken>,
    at_most: usize,
    freed: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    by: HashMap<u64, Arc<Activity>>,
}

/// A connection's place, free again when dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    id: u64,
    pub(super) activity: Arc<Activity>,
}

impl Places {
    pub(super) fn new(at_most: usize) -> Arc<Self> {
        Arc::new(Self { taken: Mutex::default(), at_most: at_most.max(1), freed: Arc::default() })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place; waits only while every other connection has a request in progress.
    pub(super) async fn take(self: &Arc<Self>) -> Place {
        loop {
            if let Some(place) = self.try_take() {
                return place;
            }
            // A place that is freed right now is not missed: `Notify` keeps one permit.
            self.freed.notified().await;
        }
    }

    fn try_take(self: &Arc<Self>) -> Option<Place> {
        let mut taken = self.taken();
        if taken.by.len() >= self.at_most {
            let unused = taken.by.iter().filter_map(|(id, activity)| Some((activity.unused_since()?, *id)));
            let (_, longest) = unused.min()?;
            if let Some(activity) = taken.by.remove(&longest) {
                activity.evicted.cancel();
            }
        }
        let (id, activity) = (taken.next, Arc::new(Activity::new(Arc::clone(&self.freed))));
        taken.next += 1;
        taken.by.insert(id, Arc::clone(&activity));
        Some(Place { places: Arc::clone(self), id, activity })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.taken().by.remove(&self.id);
        self.places.freed.notify_one();
    }
}

/// A connection that notes in its [`Activity`] when bytes come in.
#[derive(Debug)]
pub(super) struct Noted<S> {
    pub(super) stream: S,
    /// Nothing for HTTP/2, where bytes between two requests need not belong to a request.
    pub(super) activity: Option<Arc<Activity>>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Noted<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before
            && let Some(activity) = &self.activity
        {
            activity.read();
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Noted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_connection_without_a_request_for_the_longest_makes_way() {
        let places = Places::new(3);
        let busy = places.take().await;
        let _request = busy.activity.request();
        let fresh = places.take().await;
        tokio::time::advance(Duration::from_secs(1)).await;
        let idle = places.take().await;
        tokio::time::advance(Duration::from_secs(1)).await;
        drop(fresh.activity.request());
        let _newcomer = places.take().await;
        let evicted = |place: &Place| place.activity.evicted.is_cancelled();
        assert_eq!((evicted(&busy), evicted(&fresh), evicted(&idle)), (false, false, true));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_in_use_is_never_evicted() {
        let places = Places::new(1);
        let busy = places.take().await;
        let request = busy.activity.request();
        assert!(tokio::time::timeout(Duration::from_mins(1), places.take()).await.is_err());
        drop(request);
        let _place = tokio::time::timeout(Duration::from_secs(1), places.take()).await.expect("it made way");
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_that_is_left_depends_on_what_the_connection_does() {
        let second = Duration::from_secs(1);
        let limits = Limits { header: 5 * second, ..Limits::default() };
        let activity = Arc::new(Activity::new(Arc::default()));
        let left = || activity.expiry(&limits).map(|(at, why)| (at - Instant::now(), why));
        assert_eq!(left(), Some((limits.header, Expiry::Header)), "fresh");
        tokio::time::advance(Duration::from_secs(1)).await;
        activity.read();
        assert_eq!(left(), Some((4 * second, Expiry::Header)), "a byte buys no time");
        let request = activity.request();
        assert_eq!(left(), None, "in use");
        activity.read();
        drop(request);
        assert_eq!(left(), Some((limits.idle, Expiry::Idle)), "idle");
        assert!(activity.is_idle());
        tokio::time::advance(Duration::from_secs(100)).await;
        activity.read();
        assert_eq!(left(), Some((limits.header, Expiry::Header)), "the next request");
        tokio::time::advance(Duration::from_secs(2)).await;
        activity.read();
        assert_eq!(left(), Some((3 * second, Expiry::Header)), "a byte buys no time");
    }
}
