//! Sessions that checks keep, so that each of them need not log in: a login costs a server a process and a line of its log.
//!
//! # Guarantees
//! There are at most [`MOST`] sessions, those that are being asked among them; who needs one more ends the one that was asked
//! longest ago. A session is asked by one check at a time. One that is older than [`RENEWED`] is not asked any more, nor is one that
//! was let in on other terms than hold now: a session that is in says nothing about who can still come in. Sessions end when they are
//! dropped, and so with whoever holds them here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many sessions checks have at once, in all.
pub(super) const MOST: usize = 500;

/// How long a session is kept.
pub(super) const RENEWED: Duration = Duration::from_mins(1);

/// With whom a session is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Peer {
    /// The uid of the database.
    pub(super) database: String,
    /// The uid of the pod.
    pub(super) pod: String,
}

/// A session, and since when it is in.
#[derive(Debug)]
pub(super) struct Kept<S> {
    pub(super) session: S,
    since: Instant,
    /// Its place among the [`MOST`]; free again when it ends.
    _place: Place,
}

/// Room for one session.
#[derive(Debug)]
pub(super) struct Place(#[expect(dead_code, reason = "held until it is dropped")] OwnedSemaphorePermit);

impl<S> Kept<S> {
    pub(super) fn new(session: S, place: Place, now: Instant) -> Self {
        Self { session, since: now, _place: place }
    }
}

/// The sessions that are kept, each with the terms `T` on which it was let in.
#[derive(Debug)]
pub(super) struct Sessions<T, S> {
    held: Mutex<HashMap<Peer, Held<T, S>>>,
    places: Arc<Semaphore>,
}

#[derive(Debug)]
struct Held<T, S> {
    kept: Kept<S>,
    terms: T,
    /// When it was last asked.
    asked: Instant,
}

impl<T: PartialEq, S> Sessions<T, S> {
    pub(super) fn new(most: usize) -> Self {
        Self { held: Mutex::default(), places: Arc::new(Semaphore::new(most)) }
    }

    /// Takes out the session with this peer, to ask it, if it is still good on these terms; else it ends.
    pub(super) fn take(&self, peer: &Peer, terms: &T, now: Instant) -> Option<Kept<S>> {
        let held = self.with(|held| held.remove(peer))?;
        let is_good = held.terms == *terms && now.saturating_duration_since(held.kept.since) < RENEWED;
        is_good.then_some(held.kept)
    }

    /// Keeps a session that has answered.
    pub(super) fn keep(&self, peer: Peer, kept: Kept<S>, terms: T, now: Instant) {
        drop(self.with(|held| held.insert(peer, Held { kept, terms, asked: now })));
    }

    /// Room for one more session. If there is none, the session ends that was asked longest ago; if all are being asked, one of them
    /// is waited for.
    pub(super) async fn place(&self) -> Place {
        loop {
            let place = match Arc::clone(&self.places).try_acquire_owned() {
                Err(_) if self.end_one() => continue,
                Err(_) => Arc::clone(&self.places).acquire_owned().await.ok(),
                Ok(place) => Some(place),
            };
            // It has no end before its owner has.
            if let Some(place) = place {
                return Place(place);
            }
        }
    }

    /// Ends the session that was asked longest ago; false if none is kept.
    fn end_one(&self) -> bool {
        let ended = self.with(|held| {
            let peer = held.iter().min_by_key(|(_, held)| held.asked).map(|(peer, _)| peer.clone())?;
            held.remove(&peer)
        });
        ended.is_some()
    }

    /// Ends the sessions with all other peers.
    pub(super) fn end_all_but(&self, is_known: impl Fn(&Peer) -> bool) {
        let ended: Vec<_> = self.with(|held| held.extract_if(|peer, _| !is_known(peer)).collect());
        drop(ended);
    }

    fn with<R>(&self, with: impl FnOnce(&mut HashMap<Peer, Held<T, S>>) -> R) -> R {
        // Nobody leaves it half changed.
        with(&mut self.held.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    /// A session with a server that counts those who are in.
    type Fake = Arc<()>;

    struct Bench {
        sessions: Sessions<&'static str, Fake>,
        server: Fake,
        start: Instant,
    }

    impl Bench {
        fn new(most: usize) -> Self {
            Self { sessions: Sessions::new(most), server: Arc::new(()), start: Instant::now() }
        }

        fn at(&self, second: u64) -> Instant {
            self.start + Duration::from_secs(second)
        }

        fn are_in(&self) -> usize {
            Arc::strong_count(&self.server) - 1
        }

        fn log_in(&self, second: u64) -> Option<Kept<Fake>> {
            let place = self.sessions.place().now_or_never()?;
            Some(Kept::new(Arc::clone(&self.server), place, self.at(second)))
        }

        /// One check of a peer; whether it had to log in.
        fn check(&self, peer: &Peer, terms: &'static str, second: u64) -> bool {
            let kept = self.sessions.take(peer, &terms, self.at(second));
            let logs_in = kept.is_none();
            let kept = kept.or_else(|| self.log_in(second)).expect("a place");
            self.sessions.keep(peer.clone(), kept, terms, self.at(second));
            logs_in
        }
    }

    fn peer(pod: &str) -> Peer {
        Peer { database: "database".to_owned(), pod: pod.to_owned() }
    }

    #[test]
    fn a_check_logs_in_once_a_minute_and_when_the_terms_have_changed() {
        let bench = Bench::new(2);
        let logged_in: Vec<u64> = (0..130).step_by(10).filter(|at| bench.check(&peer("a"), "old", *at)).collect();
        assert_eq!(logged_in, [0, 60, 120]);
        assert!(bench.check(&peer("a"), "new", 130));
        assert!(!bench.check(&peer("a"), "new", 140));
        assert!(bench.check(&peer("b"), "new", 140), "another pod");
        assert_eq!(bench.are_in(), 2);
    }

    #[test]
    fn a_session_that_is_being_asked_is_asked_by_nobody_else_and_ends_where_it_is_not_kept() {
        let bench = Bench::new(2);
        bench.check(&peer("a"), "", 0);
        let asked = bench.sessions.take(&peer("a"), &"", bench.at(10));
        assert!(asked.is_some() && bench.sessions.take(&peer("a"), &"", bench.at(10)).is_none());
        drop(asked);
        assert_eq!(bench.are_in(), 0);
        assert!(bench.check(&peer("a"), "", 20));
    }

    #[test]
    fn the_session_that_was_asked_longest_ago_makes_room() {
        let bench = Bench::new(2);
        for (pod, at) in [("a", 0), ("b", 1), ("a", 2), ("c", 3)] {
            bench.check(&peer(pod), "", at);
            assert!(bench.are_in() <= 2);
        }
        assert!(!bench.check(&peer("a"), "", 4));
        assert!(bench.check(&peer("b"), "", 5), "it had to go for c");
    }

    #[test]
    fn sessions_that_are_being_asked_count_and_are_waited_for() {
        let bench = Bench::new(1);
        let asked = bench.log_in(0);
        assert!(asked.is_some() && bench.log_in(0).is_none());
        drop(asked);
        assert!(bench.log_in(0).is_some());
    }

    #[test]
    fn sessions_with_who_is_not_there_any_more_end() {
        let bench = Bench::new(3);
        for pod in ["a", "b", "c"] {
            bench.check(&peer(pod), "", 0);
        }
        bench.sessions.end_all_but(|peer| peer.pod == "b");
        assert_eq!(bench.are_in(), 1);
        assert!(!bench.check(&peer("b"), "", 1));
    }
}
