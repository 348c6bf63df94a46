//! Which connections there are, what each is doing, and which one makes way when there are too
//! many.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::serve::limits::Limits;

/// What one connection is doing: shared by its task, its request, and the acceptor that may need
/// its place.
#[derive(Debug)]
pub(super) struct Activity {
    /// And since when.
    doing: Mutex<(Doing, Instant)>,
    /// Told when the connection is out of use, for a newcomer that waits for its place.
    freed: Arc<Notify>,
    /// Set when the connection must make way for another one.
    pub(super) evicted: CancellationToken,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    /// There was no request yet.
    Fresh,
    /// The body of a request is on its way.
    Body,
    /// A request is worked on.
    Work,
    /// The last request is done.
    Idle,
    /// The last request is done and a byte of the next one has come.
    Head,
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
        Self {
            doing: Mutex::new((Doing::Fresh, Instant::now())),
            freed,
            evicted: CancellationToken::new(),
        }
    }

    fn doing(&self) -> MutexGuard<'_, (Doing, Instant)> {
        // A panic cannot leave it half-written.
        self.doing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begins(&self, doing: Doing) {
        *self.doing() = (doing, Instant::now());
    }

    /// The time for the first request starts now: the handshake had its own.
    pub(super) fn handshaken(&self) {
        self.begins(Doing::Fresh);
    }

    /// A byte came that belongs to a request.
    fn read(&self) {
        let mut doing = self.doing();
        if doing.0 == Doing::Idle {
            *doing = (Doing::Head, Instant::now());
        }
    }

    /// The head of a request has come. The request is over when the guard is dropped.
    pub(super) fn request(self: &Arc<Self>) -> ActiveRequest {
        self.begins(Doing::Body);
        ActiveRequest(Arc::clone(self))
    }

    /// Whether the connection is between two requests and nothing of the next one has come.
    pub(super) fn is_idle(&self) -> bool {
        self.doing().0 == Doing::Idle
    }

    /// When the connection is to be closed, and why, if nothing happens. A request has times of its
    /// own.
    pub(super) fn expiry(&self, limits: &Limits) -> Option<(Instant, Expiry)> {
        let (doing, since) = *self.doing();
        match doing {
            Doing::Body | Doing::Work => None,
            Doing::Fresh | Doing::Head => Some((since + limits.header, Expiry::Header)),
            Doing::Idle => Some((since + limits.idle, Expiry::Idle)),
        }
    }

    /// Since when nothing is worked on.
    fn unused_since(&self) -> Option<Instant> {
        let (doing, since) = *self.doing();
        (doing != Doing::Work).then_some(since)
    }
}

/// A request in progress.
#[derive(Debug)]
pub(super) struct ActiveRequest(Arc<Activity>);

impl ActiveRequest {
    /// Its body is there, and it is worked on from now on.
    pub(super) fn work(&self) {
        self.0.begins(Doing::Work);
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        self.0.begins(Doing::Idle);
        self.0.freed.notify_one();
    }
}

/// The places that connections take, at most so many.
///
/// *Guarantee*: callers that hold connections without using them cannot keep others out. When all
/// places are taken, one makes way of the address that has most of those on which nothing is worked
/// on: the one of which that has been so for the longest, be it in its handshake, in a head or a
/// body that does not end, or idle. A request that is worked on is never cut off for another.
///
/// The price: a caller's idle connection may be closed while all places are taken, just as its next
/// request is on its way.
#[derive(Debug)]
pub(super) struct ConnectionSlots {
    taken: Mutex<TakenSlots>,
    at_most: usize,
    freed: Arc<Notify>,
}

#[derive(Debug, Default)]
struct TakenSlots {
    next: u64,
    by: HashMap<u64, (IpAddr, Arc<Activity>)>,
}

/// A connection's place, free again when dropped.
#[derive(Debug)]
pub(super) struct ConnectionSlot {
    places: Arc<ConnectionSlots>,
    id: u64,
    pub(super) activity: Arc<Activity>,
}

impl ConnectionSlots {
    pub(super) fn new(at_most: usize) -> Arc<Self> {
        Arc::new(Self {
            taken: Mutex::default(),
            at_most: at_most.max(1),
            freed: Arc::default(),
        })
    }

    fn taken(&self) -> MutexGuard<'_, TakenSlots> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place for a connection from this address; waits only while requests are worked on on
    /// all the others.
    pub(super) async fn take(self: &Arc<Self>, peer: IpAddr) -> ConnectionSlot {
        loop {
            if let Some(place) = self.try_take(peer) {
                return place;
            }
            // A place that is freed right now is not missed: `Notify` keeps one permit.
            self.freed.notified().await;
        }
    }

    fn try_take(self: &Arc<Self>, peer: IpAddr) -> Option<ConnectionSlot> {
        let mut taken = self.taken();
        if taken.by.len() >= self.at_most {
            let longest = taken.longest_unused()?;
            if let Some((_, activity)) = taken.by.remove(&longest) {
                activity.evicted.cancel();
            }
        }
        let (id, activity) = (taken.next, Arc::new(Activity::new(Arc::clone(&self.freed))));
        taken.next += 1;
        taken.by.insert(id, (peer, Arc::clone(&activity)));
        Some(ConnectionSlot {
            places: Arc::clone(self),
            id,
            activity,
        })
    }
}

impl TakenSlots {
    fn longest_unused(&self) -> Option<u64> {
        let unused = || {
            self.by
                .iter()
                .filter_map(|(id, (peer, activity))| Some((peer, activity.unused_since()?, *id)))
        };
        let mut of_peer = HashMap::<&IpAddr, usize>::new();
        unused().for_each(|(peer, ..)| *of_peer.entry(peer).or_default() += 1);
        unused()
            .map(|(peer, since, id)| (Reverse(of_peer.get(peer)), since, id))
            .min()
            .map(|(.., id)| id)
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.places.taken().by.remove(&self.id);
        self.places.freed.notify_one();
    }
}

/// A connection that notes in its [`Activity`] when bytes come in.
#[derive(Debug)]
pub(super) struct Noted<S> {
    pub(super) stream: S,
    pub(super) activity: Arc<Activity>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Noted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.activity.read();
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Noted<S> {
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

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const THERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 2));

    fn evicted(place: &ConnectionSlot) -> bool {
        place.activity.evicted.is_cancelled()
    }

    #[tokio::test(start_paused = true)]
    async fn the_connection_on_which_nothing_is_worked_on_for_the_longest_makes_way() {
        let places = ConnectionSlots::new(4);
        let busy = places.take(HERE).await;
        let request = busy.activity.request();
        request.work();
        let fresh = places.take(HERE).await;
        tokio::time::advance(Duration::from_secs(1)).await;
        let slow = places.take(HERE).await;
        let _half_sent = slow.activity.request();
        tokio::time::advance(Duration::from_secs(1)).await;
        let idle = places.take(HERE).await;
        drop((fresh.activity.request(), idle.activity.request()));
        let _newcomer = places.take(HERE).await;
        assert_eq!(
            [&busy, &fresh, &slow, &idle].map(evicted),
            [false, false, true, false]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_most_of_the_unused_connections_makes_way() {
        let places = ConnectionSlots::new(3);
        let only = places.take(HERE).await;
        tokio::time::advance(Duration::from_secs(1)).await;
        let (first, second) = (places.take(THERE).await, places.take(THERE).await);
        let _newcomer = places.take(THERE).await;
        assert_eq!([&only, &first, &second].map(evicted), [false, true, false]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_is_worked_on_is_never_cut_off() {
        let places = ConnectionSlots::new(1);
        let busy = places.take(HERE).await;
        let request = busy.activity.request();
        request.work();
        assert!(
            tokio::time::timeout(Duration::from_mins(1), places.take(HERE))
                .await
                .is_err()
        );
        drop(request);
        let _place = tokio::time::timeout(Duration::from_secs(1), places.take(HERE))
            .await
            .expect("it made way");
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_that_is_left_depends_on_what_the_connection_does() {
        let second = Duration::from_secs(1);
        let limits = Limits {
            header: 5 * second,
            ..Limits::default()
        };
        let activity = Arc::new(Activity::new(Arc::default()));
        let left = || {
            activity
                .expiry(&limits)
                .map(|(at, why)| (at - Instant::now(), why))
        };
        assert_eq!(left(), Some((limits.header, Expiry::Header)), "fresh");
        tokio::time::advance(Duration::from_secs(1)).await;
        activity.read();
        assert_eq!(
            left(),
            Some((4 * second, Expiry::Header)),
            "a byte buys no time"
        );
        let request = activity.request();
        assert_eq!(left(), None, "in use");
        activity.read();
        drop(request);
        assert_eq!(left(), Some((limits.idle, Expiry::Idle)), "idle");
        assert!(activity.is_idle());
        tokio::time::advance(Duration::from_secs(100)).await;
        activity.read();
        assert_eq!(
            left(),
            Some((limits.header, Expiry::Header)),
            "the next request"
        );
        tokio::time::advance(Duration::from_secs(2)).await;
        activity.read();
        assert_eq!(
            left(),
            Some((3 * second, Expiry::Header)),
            "a byte buys no time"
        );
    }
}
