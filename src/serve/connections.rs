//! The open connections: the state of each, and which one is closed when there are too many.

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

/// The state of one connection, shared by its task, its request, and the acceptor that may need its
/// slot.
#[derive(Debug)]
pub(super) struct Activity {
    /// The state, and its start.
    doing: Mutex<(Doing, Instant)>,
    /// Notified when the connection is no longer in use: a new connection may wait for its slot.
    freed: Arc<Notify>,
    /// Cancelled when the connection must close for another one.
    pub(super) evicted: CancellationToken,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    /// No request yet.
    Fresh,
    /// The body of a request is arriving.
    Body,
    /// A handler works on a request.
    Work,
    /// Between two requests.
    Idle,
    /// The head of the next request is arriving.
    Head,
}

/// Why a connection without a request is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expiry {
    /// The head of a request did not arrive in time.
    Header,
    /// It was idle for too long.
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
        // A panic cannot leave the pair half updated.
        self.doing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begins(&self, doing: Doing) {
        *self.doing() = (doing, Instant::now());
    }

    /// Restarts the clock for the first request: the handshake has a limit of its own.
    pub(super) fn handshaken(&self) {
        self.begins(Doing::Fresh);
    }

    /// Marks the beginning of a request's head.
    fn byte_arrived(&self) {
        let mut doing = self.doing();
        if doing.0 == Doing::Idle {
            *doing = (Doing::Head, Instant::now());
        }
    }

    /// Marks a request whose head was read. The request ends when the guard is dropped.
    pub(super) fn request(self: &Arc<Self>) -> ActiveRequest {
        self.begins(Doing::Body);
        ActiveRequest(Arc::clone(self))
    }

    /// Whether the connection is between two requests, without a byte of the next one.
    pub(super) fn is_idle(&self) -> bool {
        self.doing().0 == Doing::Idle
    }

    /// When and why the connection closes if no byte arrives. `None` during a request, which has
    /// limits of its own.
    pub(super) fn expiry(&self, limits: &Limits) -> Option<(Instant, Expiry)> {
        let (doing, since) = *self.doing();
        match doing {
            Doing::Body | Doing::Work => None,
            Doing::Fresh | Doing::Head => Some((since + limits.header, Expiry::Header)),
            Doing::Idle => Some((since + limits.idle, Expiry::Idle)),
        }
    }

    /// When the connection was last in use. `None` while a handler works on a request.
    fn unused_since(&self) -> Option<Instant> {
        let (doing, since) = *self.doing();
        (doing != Doing::Work).then_some(since)
    }
}

/// A request in progress.
#[derive(Debug)]
pub(super) struct ActiveRequest(Arc<Activity>);

impl ActiveRequest {
    /// Marks that the body was read and the handler starts.
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

/// The slots for connections, a fixed number.
///
/// *Guarantee*: unused connections cannot keep other callers out. A connection is unused while no
/// handler works for it: in the handshake, during a head or a body, or idle. When all slots are
/// taken, the address with the most unused connections loses the one that was unused for the
/// longest time. A connection whose request a handler works on is never closed for another.
///
/// The price: while all slots are taken, an idle connection may close just as its next request
/// arrives.
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

/// The slot of a connection, free again when dropped.
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

    /// Takes a slot for a connection from this address. Waits only while handlers work for all the
    /// others.
    pub(super) async fn take(self: &Arc<Self>, peer: IpAddr) -> ConnectionSlot {
        loop {
            if let Some(place) = self.try_take(peer) {
                return place;
            }
            // A slot that is freed right now is not missed: `Notify` keeps one permit.
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

/// A stream that records in its [`Activity`] when bytes arrive.
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
            self.activity.byte_arrived();
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
    async fn the_peer_with_most_idle_connections_makes_way() {
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
    async fn the_time_left_depends_on_the_state_of_the_connection() {
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
        activity.byte_arrived();
        assert_eq!(
            left(),
            Some((4 * second, Expiry::Header)),
            "a byte buys no time"
        );
        let request = activity.request();
        assert_eq!(left(), None, "in use");
        activity.byte_arrived();
        drop(request);
        assert_eq!(left(), Some((limits.idle, Expiry::Idle)), "idle");
        assert!(activity.is_idle());
        tokio::time::advance(Duration::from_secs(100)).await;
        activity.byte_arrived();
        assert_eq!(
            left(),
            Some((limits.header, Expiry::Header)),
            "the next request"
        );
        tokio::time::advance(Duration::from_secs(2)).await;
        activity.byte_arrived();
        assert_eq!(
            left(),
            Some((3 * second, Expiry::Header)),
            "a byte buys no time"
        );
    }
}
