//! The memory budget for request bodies, and which body is dropped when the budget is used up.
//!
//! # Expected flow
//! A body takes its bytes before it is read ([`BodyBudget::take`]), arrives in pieces
//! ([`Hold::append`]), and is taken out for its handler ([`Hold::finish`]). Dropping the [`Hold`]
//! returns the bytes.
//!
//! # Guarantees
//! All holds together are at most the budget; those of one address are at most a quarter of it.
//! Large bodies get three quarters of either, so that a small body always fits beside them: it is
//! taken as long as any body is still arriving. Slow bodies are dropped first, the oldest before
//! the others, and never one that a handler works on. The bytes of a dropped body are free before
//! the next body gets them.
//!
//! # Assumptions
//! Handlers of small bodies are so fast that their bodies never reach a quarter of the budget.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The largest small body. An object has a few kB, and an update carries two.
pub(super) const SMALL: usize = 128 * 1024;

/// A body that takes longer to arrive is slow. 3 MiB in this time are 12 MiB a second; cluster
/// networks do more.
const GRACE: Duration = Duration::from_millis(250);

/// Why there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// The caller's address holds its quarter.
    Peer,
    /// The whole budget is taken.
    All,
    /// The body was dropped for another one.
    MadeWay,
}

/// The budget for the bodies of one server.
#[derive(Debug)]
pub(super) struct BodyBudget {
    ledger: Mutex<Ledger>,
}

#[derive(Debug)]
struct Ledger {
    all: usize,
    next: u64,
    /// By age, the oldest first.
    holds: BTreeMap<u64, HeldBody>,
}

#[derive(Debug)]
struct HeldBody {
    peer: IpAddr,
    amount: usize,
    since: Instant,
    state: BodyState,
}

/// Whether a hold can be dropped for another one.
#[derive(Debug)]
enum BodyState {
    /// The body is arriving. The token tells its reader that it was dropped.
    Coming(Vec<u8>, CancellationToken),
    /// A handler works on the body: it is never dropped.
    Working,
    /// The response is being sent. The token ends the connection.
    Going(CancellationToken),
}

/// A part of the budget, given back when dropped.
#[derive(Debug)]
pub(super) struct Hold {
    budget: Arc<BodyBudget>,
    id: u64,
}

impl BodyBudget {
    /// A budget of so many bytes.
    pub(super) fn new(all: usize) -> Arc<Self> {
        Arc::new(Self {
            ledger: Mutex::new(Ledger {
                all,
                next: 0,
                holds: BTreeMap::new(),
            }),
        })
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // A panic cannot leave the `Ledger` half updated.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes `amount` bytes for a body of this address. The token is cancelled when the body is
    /// dropped for another one.
    pub(super) fn take(
        self: &Arc<Self>,
        peer: IpAddr,
        amount: usize,
        made_way: CancellationToken,
    ) -> Result<Hold, Full> {
        let id = self.ledger().take(
            peer,
            amount,
            BodyState::coming(amount, made_way),
            Instant::now(),
        )?;
        Ok(Hold {
            budget: Arc::clone(self),
            id,
        })
    }

    /// Takes `amount` for a request that is never dropped.
    pub(super) fn keep(self: &Arc<Self>, peer: IpAddr, amount: usize) -> Result<Hold, Full> {
        let id = self
            .ledger()
            .take(peer, amount, BodyState::Working, Instant::now())?;
        Ok(Hold {
            budget: Arc::clone(self),
            id,
        })
    }
}

impl Hold {
    /// Appends a piece to the body, and takes more bytes if the body is longer than announced.
    pub(super) fn append(&self, piece: &[u8]) -> Result<(), Full> {
        self.budget.ledger().append(self.id, piece, Instant::now())
    }

    /// Returns the body for its handler. Its bytes stay held, and it is no longer dropped for
    /// others.
    pub(super) fn finish(&self) -> Result<Vec<u8>, Full> {
        self.budget.ledger().finish(self.id)
    }

    /// Holds `amount` bytes for the response from now on. The token ends a connection that does not
    /// read it.
    pub(super) fn answer(&self, amount: usize, connection: CancellationToken) {
        if let Some(held) = self.budget.ledger().holds.get_mut(&self.id) {
            (held.amount, held.state) = (amount, BodyState::Going(connection));
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.budget.ledger().holds.remove(&self.id);
    }
}

impl BodyState {
    /// The kernel gives the memory only as the bytes arrive.
    fn coming(amount: usize, made_way: CancellationToken) -> Self {
        Self::Coming(Vec::with_capacity(amount), made_way)
    }
}

impl Ledger {
    fn take(
        &mut self,
        peer: IpAddr,
        amount: usize,
        state: BodyState,
        now: Instant,
    ) -> Result<u64, Full> {
        self.make_room(peer, amount, amount, None, now)?;
        let id = self.next;
        self.next += 1;
        self.holds.insert(
            id,
            HeldBody {
                peer,
                amount,
                since: now,
                state,
            },
        );
        Ok(id)
    }

    fn append(&mut self, id: u64, piece: &[u8], now: Instant) -> Result<(), Full> {
        let held = self.holds.get(&id).ok_or(Full::MadeWay)?;
        let BodyState::Coming(body, _) = &held.state else {
            return Err(Full::MadeWay);
        };
        let (peer, amount) = (held.peer, held.amount);
        // Doubles, as a `Vec` does: the capacity counts, not the length.
        let wanted = body.len() + piece.len();
        let wanted = if wanted > amount {
            wanted.max(2 * amount)
        } else {
            amount
        };
        self.make_room(peer, wanted - amount, wanted, Some(id), now)?;
        let Some(HeldBody {
            amount,
            state: BodyState::Coming(body, _),
            ..
        }) = self.holds.get_mut(&id)
        else {
            return Err(Full::MadeWay);
        };
        *amount = wanted;
        body.reserve_exact(wanted - body.len());
        body.extend_from_slice(piece);
        Ok(())
    }

    fn finish(&mut self, id: u64) -> Result<Vec<u8>, Full> {
        let held = self.holds.get_mut(&id).ok_or(Full::MadeWay)?;
        match std::mem::replace(&mut held.state, BodyState::Working) {
            BodyState::Coming(body, _) => Ok(body),
            BodyState::Working | BodyState::Going(_) => Err(Full::MadeWay),
        }
    }

    /// Drops other bodies until `more` bytes fit, for a body that then has `total`. Drops none if
    /// that would not be enough.
    fn make_room(
        &mut self,
        peer: IpAddr,
        more: usize,
        total: usize,
        except: Option<u64>,
        now: Instant,
    ) -> Result<(), Full> {
        let is_small = total <= SMALL;
        let mut leaving: Vec<u64> = vec![];
        for (full, limit, only) in [
            (Full::Peer, self.all / 4, Some(peer)),
            (Full::All, self.all, None),
        ] {
            let limit = if is_small { limit } else { limit / 4 * 3 };
            let staying = |id: &u64| !leaving.contains(id);
            let here = || {
                self.holds
                    .iter()
                    .filter(|(id, held)| staying(id) && only.is_none_or(|only| held.peer == only))
            };
            let mut excess =
                (here().map(|(_, held)| held.amount).sum::<usize>() + more).saturating_sub(limit);
            let mut found = vec![];
            for (id, held) in
                here().filter(|(id, held)| Some(**id) != except && held.makes_way(is_small, now))
            {
                if excess == 0 {
                    break;
                }
                excess = excess.saturating_sub(held.amount);
                found.push(*id);
            }
            if excess > 0 {
                return Err(full);
            }
            leaving.extend(found);
        }
        for id in leaving {
            if let Some(BodyState::Coming(_, token) | BodyState::Going(token)) =
                self.holds.remove(&id).map(|held| held.state)
            {
                token.cancel();
            }
        }
        Ok(())
    }
}

impl HeldBody {
    /// Whether this body can be dropped for another one: for a small body any that still arrives,
    /// for a large body only a slow one.
    fn makes_way(&self, for_small: bool, now: Instant) -> bool {
        !matches!(self.state, BodyState::Working) && (for_small || self.since + GRACE <= now)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    const MIB: usize = 1024 * 1024;

    fn peer(last: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, last).into()
    }

    struct Scene {
        ledger: Ledger,
        now: Instant,
    }

    impl Scene {
        /// A budget of 16 MiB: 4 for each address, of which large ones get 3.
        fn new() -> Self {
            Self {
                ledger: Ledger {
                    all: 16 * MIB,
                    next: 0,
                    holds: BTreeMap::new(),
                },
                now: Instant::now(),
            }
        }

        fn take(&mut self, from: u8, amount: usize) -> Result<u64, Full> {
            self.ledger.take(
                peer(from),
                amount,
                BodyState::coming(0, CancellationToken::new()),
                self.now,
            )
        }

        fn later(&mut self) {
            self.now += GRACE;
        }

        fn there(&self) -> Vec<u64> {
            self.ledger.holds.keys().copied().collect()
        }
    }

    #[test]
    fn one_address_gets_a_quarter_and_all_together_no_more_than_there_is() {
        let mut scene = Scene::new();
        assert!(scene.take(1, 3 * MIB).is_ok());
        assert_eq!(scene.take(1, MIB), Err(Full::Peer));
        assert_eq!(scene.take(1, usize::MAX / 2), Err(Full::Peer));
        for from in 2..5 {
            assert!(scene.take(from, 3 * MIB).is_ok());
        }
        assert_eq!(scene.take(5, MIB), Err(Full::All));
        assert_eq!(scene.there().len(), 4, "nobody was disturbed");
        assert!(
            scene.take(5, SMALL).is_ok(),
            "a small one has room beside the large"
        );
    }

    #[test]
    fn a_large_one_gets_what_the_slow_have_and_the_first_of_them_makes_way() {
        let mut scene = Scene::new();
        let ids = [1, 2, 3, 4].map(|from| scene.take(from, 3 * MIB).expect("room"));
        scene.later();
        scene.ledger.finish(ids[0]).expect("it is there");
        let newcomer = scene.take(5, 3 * MIB).expect("room");
        assert_eq!(
            scene.there(),
            [ids[0], ids[2], ids[3], newcomer],
            "one that is worked on stays"
        );
        assert_eq!(
            scene.take(3, MIB).map(|_| scene.there().contains(&ids[2])),
            Ok(false),
            "its own, when its quarter is full"
        );
        assert_eq!(
            scene.ledger.append(ids[1], b"x", scene.now),
            Err(Full::MadeWay)
        );
        assert_eq!(scene.ledger.finish(ids[1]), Err(Full::MadeWay));
    }

    #[test]
    fn a_small_one_gets_in_as_long_as_anything_is_on_its_way() {
        let mut scene = Scene::new();
        let first = scene.take(1, SMALL).expect("room");
        for _ in 1..100 {
            assert!(scene.take(1, SMALL).is_ok());
        }
        assert_eq!(scene.there().len(), 4 * MIB / SMALL);
        assert!(
            !scene.there().contains(&first),
            "the one that began first made way"
        );
        // Their connections' answers are on their way and nobody reads them.
        let gone = CancellationToken::new();
        for held in scene.ledger.holds.values_mut() {
            held.state = BodyState::Going(gone.clone());
        }
        assert!(scene.take(1, SMALL).is_ok() && gone.is_cancelled());
    }

    #[test]
    fn a_body_that_grows_takes_more_or_is_refused() {
        let mut scene = Scene::new();
        let id = scene.take(1, 10).expect("room");
        scene.ledger.append(id, &[1; 6], scene.now).expect("room");
        scene.ledger.append(id, &[2; 6], scene.now).expect("room");
        assert_eq!(scene.ledger.holds[&id].amount, 20);
        scene
            .ledger
            .append(id, &vec![3; MIB], scene.now)
            .expect("room");
        assert_eq!(
            scene.ledger.append(id, &vec![4; 3 * MIB], scene.now),
            Err(Full::Peer)
        );
        let body = scene.ledger.finish(id).expect("it is there");
        assert_eq!((body.len(), body.capacity()), (MIB + 12, MIB + 12));
        assert_eq!(scene.ledger.holds[&id].amount, MIB + 12, "it stays held");
    }

    #[test]
    fn what_is_dropped_is_given_back() {
        let budget = BodyBudget::new(4 * SMALL);
        let take = || budget.take(peer(1), SMALL, CancellationToken::new());
        let hold = take().expect("room");
        hold.finish().expect("it is there");
        assert_eq!(take().map(|_| ()), Err(Full::Peer));
        drop(hold);
        assert!(take().is_ok());
    }

    #[test]
    fn what_never_makes_way_is_bounded_too() {
        let line = BodyBudget::new(16);
        let mut places: Vec<Hold> = (0..4)
            .map(|_| line.keep(peer(1), 1).expect("room"))
            .collect();
        assert_eq!(line.keep(peer(1), 1).map(|_| ()), Err(Full::Peer));
        places.extend((0..12).map(|i| line.keep(peer(2 + i % 3), 1).expect("room")));
        assert_eq!(line.keep(peer(9), 1).map(|_| ()), Err(Full::All));
    }

    proptest! {
        #[test]
        fn whatever_comes_nobody_holds_more_than_is_his(
            steps in prop::collection::vec((0u8..6, 1usize..4 * MIB, 0u8..4, any::<bool>()), 1..200),
        ) {
            let mut scene = Scene::new();
            for (from, amount, then, is_later) in steps {
                let amount = if then == 3 { amount % SMALL } else { amount };
                match (scene.take(from, amount), then) {
                    (Ok(id), 0) => drop(scene.ledger.append(id, &vec![0; amount + 1], scene.now)),
                    (Ok(id), 1) => drop(scene.ledger.finish(id)),
                    _ => {}
                }
                if is_later {
                    scene.later();
                }
                let of = |from: Option<u8>| -> usize {
                    let theirs = scene.ledger.holds.values().filter(|held| from.is_none_or(|f| held.peer == peer(f)));
                    theirs.map(|held| held.amount).sum()
                };
                prop_assert!(of(None) <= 16 * MIB);
                prop_assert!((0..6).all(|from| of(Some(from)) <= 4 * MIB));
            }
        }
    }
}
