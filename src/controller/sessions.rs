//! Sessions that checks keep, so that each of them need not log in: a login costs a server a
//! process and a line of its log.
//!
//! # Guarantees
//! There are at most [`MAX_SESSIONS`] sessions, those that are in use among them; to open one more,
//! the one that was used longest ago is closed. A session is used by one check at a time. It is
//! closed when it is older than [`MAX_AGE`], when the terms of login have changed, because an open
//! session does not prove that a new login would succeed, and when anything went wrong in it. All
//! sessions close with their owner.
//!
//! # Assumptions
//! Sessions end when they are dropped. There is one check of a peer at a time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// How many sessions checks have at once, in all. One with TLS holds 35 kB of memory, one without
/// 21 kB (resident memory over 300 of them, PostgreSQL 15): all of them 17 MB.
pub(crate) const MAX_SESSIONS: usize = 500;

/// How long a session is kept.
const MAX_AGE: Duration = Duration::from_mins(1);

/// The server with which a session is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PeerId {
    /// The uid of the database.
    pub(crate) database: String,
    /// The uid of the pod.
    pub(crate) pod: String,
}

/// The sessions that are kept, each with the terms `T` on which it was let in.
#[derive(Debug)]
pub(crate) struct Sessions<T, S> {
    held: Mutex<HashMap<PeerId, SessionSlots<T, S>>>,
    places: Arc<Semaphore>,
    /// Notified of every session that is kept: a check that waits for a place may close it.
    kept: Notify,
}

/// A server that is asked, and a clock.
pub(crate) trait SessionPeer {
    type Session;
    type Answer;
    type Error;

    fn log_in(&self) -> impl Future<Output = Result<Self::Session, Self::Error>> + Send;

    fn answer(
        &self,
        session: &Self::Session,
    ) -> impl Future<Output = Result<Self::Answer, Self::Error>> + Send;

    /// Whether nothing was wrong, by this answer.
    fn is_well(answer: &Self::Answer) -> bool;

    fn now(&self) -> Instant;
}

/// A session, and when it was opened.
#[derive(Debug)]
struct IdleSession<S> {
    session: S,
    since: Instant,
    /// Its place among the [`MAX_SESSIONS`]; free again when it ends.
    _place: OwnedSemaphorePermit,
}

#[derive(Debug)]
struct SessionSlots<T, S> {
    kept: IdleSession<S>,
    terms: T,
    /// When it was last asked.
    asked: Instant,
}

impl<T: PartialEq, S> Sessions<T, S> {
    pub(crate) fn new(most: usize) -> Self {
        Self {
            held: Mutex::default(),
            places: Arc::new(Semaphore::new(most)),
            kept: Notify::new(),
        }
    }

    /// Asks a server, in the session that is kept with it or else in a new one. A failure in a kept
    /// session does not count: the server is asked again in a new one.
    pub(crate) async fn ask<A: SessionPeer<Session = S>>(
        &self,
        server: &A,
        peer: PeerId,
        terms: T,
    ) -> Result<A::Answer, A::Error> {
        if let Some(kept) = self.take(&peer, &terms, server.now())
            && let Ok(answer) = server.answer(&kept.session).await
            && A::is_well(&answer)
        {
            self.keep(peer, kept, terms, server.now());
            return Ok(answer);
        }
        let place = self.place().await;
        let kept = IdleSession {
            session: server.log_in().await?,
            since: server.now(),
            _place: place,
        };
        let answer = server.answer(&kept.session).await?;
        if A::is_well(&answer) {
            self.keep(peer, kept, terms, server.now());
        }
        Ok(answer)
    }

    /// Ends the sessions with all other peers.
    pub(crate) fn end_all_but(&self, is_known: impl Fn(&PeerId) -> bool) {
        let ended: Vec<_> = self.with(|held| held.extract_if(|peer, _| !is_known(peer)).collect());
        drop(ended);
    }

    /// Takes out the session with this peer if it may still be used on these terms; else closes it.
    fn take(&self, peer: &PeerId, terms: &T, now: Instant) -> Option<IdleSession<S>> {
        let held = self.with(|held| held.remove(peer))?;
        let is_good =
            held.terms == *terms && now.saturating_duration_since(held.kept.since) < MAX_AGE;
        is_good.then_some(held.kept)
    }

    fn keep(&self, peer: PeerId, kept: IdleSession<S>, terms: T, now: Instant) {
        drop(self.with(|held| {
            held.insert(
                peer,
                SessionSlots {
                    kept,
                    terms,
                    asked: now,
                },
            )
        }));
        self.kept.notify_one();
    }

    /// A place for one more session. If none is free, closes the session that was used longest ago;
    /// if all are in use, waits for one of them.
    async fn place(&self) -> OwnedSemaphorePermit {
        loop {
            if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
                return place;
            }
            if self.end_one() {
                continue;
            }
            tokio::select! {
                Ok(place) = Arc::clone(&self.places).acquire_owned() => return place,
                () = self.kept.notified() => {}
            }
        }
    }

    /// Closes the session that was used longest ago; false if none is kept.
    fn end_one(&self) -> bool {
        let ended = self.with(|held| {
            let peer = held
                .iter()
                .min_by_key(|(_, held)| held.asked)
                .map(|(peer, _)| peer.clone())?;
            held.remove(&peer)
        });
        ended.is_some()
    }

    fn with<R>(&self, with: impl FnOnce(&mut HashMap<PeerId, SessionSlots<T, S>>) -> R) -> R {
        // A panic leaves no half-changed map behind: every change is one call.
        with(&mut self.held.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::future::ready;

    use super::*;
    use futures::FutureExt;

    /// A server, at some time.
    struct Server {
        sessions: Sessions<&'static str, Arc<()>>,
        /// As many as are in hold it, besides the server.
        is_in: Arc<()>,
        logins: Cell<u32>,
        /// What the next questions are answered; afterwards all is well.
        answers: RefCell<Vec<Result<bool, &'static str>>>,
        now: Cell<Instant>,
        start: Instant,
    }

    impl SessionPeer for Server {
        type Session = Arc<()>;
        type Answer = bool;
        type Error = &'static str;

        fn log_in(&self) -> impl Future<Output = Result<Arc<()>, &'static str>> + Send {
            self.logins.set(self.logins.get() + 1);
            ready(Ok(Arc::clone(&self.is_in)))
        }

        fn answer(&self, _: &Arc<()>) -> impl Future<Output = Result<bool, &'static str>> + Send {
            ready(self.answers.borrow_mut().pop().unwrap_or(Ok(true)))
        }

        fn is_well(answer: &bool) -> bool {
            *answer
        }

        fn now(&self) -> Instant {
            self.now.get()
        }
    }

    impl Server {
        fn new(most: usize) -> Self {
            let (sessions, start) = (Sessions::new(most), Instant::now());
            let (is_in, logins, answers) = (Arc::default(), Cell::default(), RefCell::default());
            Self {
                sessions,
                is_in,
                logins,
                answers,
                now: Cell::new(start),
                start,
            }
        }

        fn are_in(&self) -> usize {
            Arc::strong_count(&self.is_in) - 1
        }

        /// One check; nothing if it does not come to an end.
        fn check(
            &self,
            pod: &str,
            terms: &'static str,
            second: u64,
        ) -> Option<Result<bool, &'static str>> {
            self.now.set(self.start + Duration::from_secs(second));
            self.sessions.ask(self, peer(pod), terms).now_or_never()
        }

        /// Whether a check had to log in.
        fn logs_in(&self, pod: &str, terms: &'static str, second: u64) -> bool {
            let before = self.logins.get();
            assert_eq!(self.check(pod, terms, second), Some(Ok(true)));
            self.logins.get() > before
        }
    }

    fn peer(pod: &str) -> PeerId {
        PeerId {
            database: "database".to_owned(),
            pod: pod.to_owned(),
        }
    }

    #[test]
    fn a_check_logs_in_once_a_minute_and_when_the_terms_have_changed() {
        let server = Server::new(2);
        let logins: Vec<u64> = (0..130)
            .step_by(10)
            .filter(|at| server.logs_in("a", "old", *at))
            .collect();
        assert_eq!(logins, [0, 60, 120]);
        assert!(server.logs_in("a", "new", 130));
        assert!(!server.logs_in("a", "new", 140));
        assert!(server.logs_in("b", "new", 140), "another pod");
        assert_eq!(server.are_in(), 2);
    }

    #[test]
    fn a_fault_of_an_old_session_is_asked_again_in_a_new_one() {
        for wrong in [Err("the session is closed"), Ok(false)] {
            let server = Server::new(1);
            assert!(server.logs_in("a", "", 0));
            server.answers.replace(vec![wrong]);
            assert!(server.logs_in("a", "", 10));
            server.answers.replace(vec![wrong, wrong]);
            assert_eq!(server.check("a", "", 20), Some(wrong));
            assert_eq!(
                server.are_in(),
                0,
                "a session in which something went wrong is not kept"
            );
            assert!(server.logs_in("a", "", 30));
        }
    }

    #[test]
    fn the_session_that_was_asked_longest_ago_makes_room() {
        let server = Server::new(2);
        for (pod, at) in [("a", 0), ("b", 1), ("a", 2), ("c", 3)] {
            server.logs_in(pod, "", at);
            assert!(server.are_in() <= 2);
        }
        assert!(!server.logs_in("a", "", 4));
        assert!(server.logs_in("b", "", 5), "it had to go for c");
    }

    #[test]
    fn sessions_that_are_being_asked_count_and_are_waited_for() {
        let server = Server::new(1);
        assert!(server.logs_in("a", "", 0));
        let take = || {
            server
                .sessions
                .take(&peer("a"), &"", server.start)
                .expect("a session")
        };
        let asked = take();
        assert_eq!(server.check("b", "", 1), None);
        let mut waits = Box::pin(server.sessions.place());
        assert!((&mut waits).now_or_never().is_none());
        server.sessions.keep(peer("a"), asked, "", server.start);
        assert!(waits.now_or_never().is_some(), "what is kept can make room");
        assert!(server.logs_in("a", "", 2));
        let asked = take();
        let waits = Box::pin(server.sessions.place());
        drop(asked);
        assert!(waits.now_or_never().is_some(), "so can what ends");
    }

    #[test]
    fn sessions_with_deleted_pods_end() {
        let server = Server::new(3);
        for pod in ["a", "b", "c"] {
            server.logs_in(pod, "", 0);
        }
        server.sessions.end_all_but(|peer| peer.pod == "b");
        assert_eq!(server.are_in(), 1);
        assert!(!server.logs_in("b", "", 1));
    }
}
