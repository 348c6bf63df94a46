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
mod tests;
