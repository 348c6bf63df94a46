//! Two tiers: `make test` takes a sample of what is long, and `make test-all` takes all of it.

use std::collections::BTreeSet;

/// Whether all of it is wanted.
fn all_is_wanted() -> bool {
    std::env::var("PGREKEY_TEST_ALL").as_deref() == Ok("1")
}

/// How much of a repetition or of a time: this for the sample, or that for all.
pub(crate) fn sample_or_all<T>(sample: T, all: T) -> T {
    if all_is_wanted() { all } else { sample }
}

/// The first case of each kind, or all of them.
pub(crate) fn one_of_each<T, K: Ord>(cases: Vec<T>, kind: impl Fn(&T) -> K) -> Vec<T> {
    if all_is_wanted() {
        return cases;
    }
    let mut seen = BTreeSet::new();
    let is_new = |case: &T| seen.insert(kind(case));
    cases.into_iter().filter(is_new).collect()
}
