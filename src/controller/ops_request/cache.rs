//! What this process knows about requests and has not written: losing it loses the times of the
//! last steps.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kube::ResourceExt;

use crate::api::PostgresOpsRequest;
use crate::plan::observed::LastFailure;
use crate::plan::slots;
use crate::plan::slots::Candidate;
use crate::plan::status::write_policy::PendingStatus;

/// The notes, by the uids of their requests.
#[derive(Debug, Default)]
pub(crate) struct RequestCache(Mutex<HashMap<String, CachedRequest>>);

/// What is kept of one request.
#[derive(Debug, Default)]
struct CachedRequest {
    /// What is to be written into its status.
    draft: Option<PendingStatus>,
    /// Why what was last decided could not be done.
    last_failure: Option<LastFailure>,
    /// Its namespace, and when it was given a place: it works, though the watch may not have shown
    /// it yet.
    took_slot: Option<(String, Instant)>,
}

/// How long the watch may be behind.
const BEHIND: Duration = Duration::from_secs(30);

impl RequestCache {
    /// What is to be written over the status that was read; nothing if somebody else has written
    /// one since.
    pub(crate) fn pending_status(&self, request: &PostgresOpsRequest) -> Option<PendingStatus> {
        let draft = self.all().get(&key(request))?.draft.clone();
        draft.filter(|draft| draft.still_applies_to(request.status.as_ref()))
    }

    /// Keeps a draft for later; nothing when it is written.
    pub(crate) fn set_pending_status(
        &self,
        request: &PostgresOpsRequest,
        draft: Option<PendingStatus>,
    ) {
        self.all().entry(key(request)).or_default().draft = draft;
    }

    /// Why what was last decided could not be done.
    pub(crate) fn last_failure(&self, request: &PostgresOpsRequest) -> Option<LastFailure> {
        self.all().get(&key(request))?.last_failure.clone()
    }

    /// Keeps in mind why something could not be done; nothing when it was.
    pub(crate) fn set_last_failure(&self, request: &PostgresOpsRequest, why: Option<LastFailure>) {
        self.all().entry(key(request)).or_default().last_failure = why;
    }

    /// How many places are free for a request, of so many in all, beside those that have not ended
    /// by what was seen.
    pub(crate) fn free_slots(
        &self,
        request: &PostgresOpsRequest,
        seen: &[Candidate],
        places: usize,
    ) -> usize {
        free(&self.all(), request, seen, places)
    }

    /// Gives a request a place, if one is free.
    pub(crate) fn take_slot(
        &self,
        request: &PostgresOpsRequest,
        seen: &[Candidate],
        places: usize,
    ) -> bool {
        let mut all = self.all();
        let may = free(&all, request, seen, places) > 0;
        if may {
            let namespace = request.namespace().unwrap_or_default();
            all.entry(key(request)).or_default().took_slot = Some((namespace, Instant::now()));
        }
        may
    }

    /// Forgets a request that has ended, or is gone.
    pub(crate) fn forget(&self, request: &PostgresOpsRequest) {
        self.all().remove(&key(request));
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, CachedRequest>> {
        // Nobody leaves half a draft behind, also not by panicking.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts those too that were given a place a moment ago.
fn free(
    all: &HashMap<String, CachedRequest>,
    request: &PostgresOpsRequest,
    seen: &[Candidate],
    places: usize,
) -> usize {
    let own = key(request);
    let mut others: Vec<Candidate> = seen
        .iter()
        .filter(|other| other.uid != own)
        .cloned()
        .collect();
    for (uid, kept) in all.iter().filter(|(uid, _)| **uid != own) {
        let Some((namespace, _)) = kept
            .took_slot
            .as_ref()
            .filter(|(_, at)| at.elapsed() < BEHIND)
        else {
            continue;
        };
        match others.iter_mut().find(|other| other.uid == *uid) {
            Some(other) => other.holds_slot = true,
            None => others.push(Candidate {
                uid: uid.clone(),
                namespace: namespace.clone(),
                holds_slot: true,
            }),
        }
    }
    slots::free(places, &request.namespace().unwrap_or_default(), &others)
}

fn key(request: &PostgresOpsRequest) -> String {
    request.uid().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(uid: &str) -> PostgresOpsRequest {
        let spec =
            serde_saphyr::from_str("{type: Restart, databaseRef: {name: pg}}").expect("a spec");
        let mut request = PostgresOpsRequest::new("restart", spec);
        request.metadata.uid = Some(uid.to_owned());
        request.metadata.namespace = Some("demo".to_owned());
        request
    }

    #[test]
    fn no_more_have_a_place_than_there_are_also_while_the_watch_is_behind() {
        let notes = RequestCache::default();
        let sees = |works: bool| {
            [Candidate {
                uid: "a".to_owned(),
                namespace: "demo".to_owned(),
                holds_slot: works,
            }]
        };
        assert!(
            notes.take_slot(&request("a"), &[], 2)
                && notes.take_slot(&request("b"), &sees(false), 2)
        );
        assert!(!notes.take_slot(&request("c"), &sees(false), 2));
        assert!(
            notes.take_slot(&request("a"), &sees(true), 2),
            "who has a place keeps it"
        );
        notes.forget(&request("b"));
        assert_eq!(notes.free_slots(&request("c"), &sees(true), 2), 1);
        assert!(notes.take_slot(&request("c"), &sees(true), 2));
    }
}
