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
fn a_large_body_takes_the_share_of_the_slowest() {
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
fn a_dropped_share_is_given_back() {
    let budget = BodyBudget::new(4 * SMALL);
    let take = || budget.take(peer(1), SMALL, CancellationToken::new());
    let hold = take().expect("room");
    hold.finish().expect("it is there");
    assert_eq!(take().map(|_| ()), Err(Full::Peer));
    drop(hold);
    assert!(take().is_ok());
}

#[test]
fn shares_that_never_make_way_are_bounded_too() {
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
    fn no_sequence_gives_a_body_more_than_its_share(
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
