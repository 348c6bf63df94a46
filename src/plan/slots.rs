//! Who may work at once: the places for operations, in the cluster and in each namespace.
//!
//! An operation has a place for as long as its database is paused for it. Who waits for anything
//! before that, be it an issuer, a budget or a place, has none.
//!
//! # Guarantees
//! No more work in a cluster than there are places. While somebody waits, other namespaces get no
//! more than half of them each, rounded up; else they may have them all. Only who has a place is
//! waited for, and its patience ends.

/// A request that has not ended, and is not the one that asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its uid.
    pub uid: String,
    /// Its namespace, and so its database's.
    pub namespace: String,
    /// Whether it has a place.
    pub holds_slot: bool,
}

/// How many places are free for one more request of this namespace, of so many in all.
#[must_use]
pub fn free(places: usize, namespace: &str, others: &[Candidate]) -> usize {
    let free = places.saturating_sub(others.iter().filter(|other| other.holds_slot).count());
    let is_alone = others
        .iter()
        .all(|other| other.holds_slot || other.namespace == namespace);
    if is_alone {
        return free;
    }
    let own = others
        .iter()
        .filter(|other| other.holds_slot && other.namespace == namespace)
        .count();
    free.min(places.div_ceil(2).saturating_sub(own))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `a` waits, `A` works, each in the namespace of that letter.
    fn free_for(places: usize, namespace: &str, others: &str) -> usize {
        let contender = |letter: char| Candidate {
            uid: String::new(),
            namespace: letter.to_ascii_lowercase().to_string(),
            holds_slot: letter.is_ascii_uppercase(),
        };
        free(
            places,
            namespace,
            &others.chars().map(contender).collect::<Vec<_>>(),
        )
    }

    #[test]
    fn a_namespace_has_all_places_until_another_waits_and_then_half_of_them() {
        for (places, namespace, others, free) in [
            (10, "a", "", 10),
            (10, "a", "aaaaaaaaaaaa", 10),
            (10, "b", "aaaaaaaaaaaa", 5),
            (10, "a", "AAAAAAAAA", 1),
            (10, "a", "AAAAAAAAAA", 0),
            (10, "b", "AAAAAAAAAA", 0),
            (10, "a", "AAAAb", 1),
            (10, "a", "AAAAAb", 0),
            (10, "a", "AAAAAAAAAb", 0),
            (10, "b", "AAAAAAAAAa", 1),
            (10, "b", "AAAAABBBBBa", 0),
            (3, "a", "Ab", 1),
            (1, "a", "b", 1),
            (1, "a", "Bb", 0),
            (0, "a", "", 0),
        ] {
            assert_eq!(
                free_for(places, namespace, others),
                free,
                "{places} for {namespace} beside {others:?}"
            );
        }
    }
}
