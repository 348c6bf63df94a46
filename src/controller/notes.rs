//! What this process knows about requests and has not written: losing it loses the times of the
//! last steps.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kube::ResourceExt;

use crate::api::PostgresOpsRequest;
use crate::plan::draft::Draft;
use crate::plan::observed::Hindrance;
use crate::plan::places::{self, Contender};

/// The notes, by the uids of their requests.
#[derive(Debug, Default)]
pub(super) struct Notes(Mutex<HashMap<String, Kept>>);

/// What is kept of one request.
#[derive(Debug, Default)]
struct Kept {
    /// What is to be written into its status.
    draft: Option<Draft>,
    /// Why what was last decided could not be done.
    hindrance: Option<Hindrance>,
    /// Its namespace, and when it was given a place: it works, though the watch may not have shown
    /// it yet.
    entered: Option<(String, Instant)>,
}

/// How long the watch may be behind.
const BEHIND: Duration = Duration::from_secs(30);

impl Notes {
    /// What is to be written over the status that was read; nothing if somebody else has written
    /// one since.
    pub(super) fn draft(&self, request: &PostgresOpsRequest) -> Option<Draft> {
        let draft = self.all().get(&key(request))?.draft.clone();
        draft.filter(|draft| draft.is_over(request.status.as_ref()))
    }

    /// Keeps a draft for later; nothing when it is written.
    pub(super) fn keep(&self, request: &PostgresOpsRequest, draft: Option<Draft>) {
        self.all().entry(key(request)).or_default().draft = draft;
    }

    /// Why what was last decided could not be done.
    pub(super) fn hindrance(&self, request: &PostgresOpsRequest) -> Option<Hindrance> {
        self.all().get(&key(request))?.hindrance.clone()
    }

    /// Keeps in mind why something could not be done; nothing when it was.
    pub(super) fn hinder(&self, request: &PostgresOpsRequest, why: Option<Hindrance>) {
        self.all().entry(key(request)).or_default().hindrance = why;
    }

    /// How many places are free for a request, of so many in all, beside those that have not ended
    /// by what was seen.
    pub(super) fn free(
        &self,
        request: &PostgresOpsRequest,
        seen: &[Contender],
        places: usize,
    ) -> usize {
        free(&self.all(), request, seen, places)
    }

    /// Gives a request a place, if one is free.
    pub(super) fn enter(
        &self,
        request: &PostgresOpsRequest,
        seen: &[Contender],
        places: usize,
    ) -> bool {
        let mut all = self.all();
        let may = free(&all, request, seen, places) > 0;
        if may {
            let namespace = request.namespace().unwrap_or_default();
            all.entry(key(request)).or_default().entered = Some((namespace, Instant::now()));
        }
        may
    }

    /// Forgets a request that has ended, or is gone.
    pub(super) fn forget(&self, request: &PostgresOpsRequest) {
        self.all().remove(&key(request));
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, Kept>> {
        // Nobody leaves half a draft behind, also not by panicking.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts those too that were given a place a moment ago.
fn free(
    all: &HashMap<String, Kept>,
    request: &PostgresOpsRequest,
    seen: &[Contender],
    places: usize,
) -> usize {
    let own = key(request);
    let mut others: Vec<Contender> = seen
        .iter()
        .filter(|other| other.uid != own)
        .cloned()
        .collect();
    for (uid, kept) in all.iter().filter(|(uid, _)| **uid != own) {
        let Some((namespace, _)) = kept
            .entered
            .as_ref()
            .filter(|(_, at)| at.elapsed() < BEHIND)
        else {
            continue;
        };
        match others.iter_mut().find(|other| other.uid == *uid) {
            Some(other) => other.works = true,
            None => others.push(Contender {
                uid: uid.clone(),
                namespace: namespace.clone(),
                works: true,
            }),
        }
    }
    places::free(places, &request.namespace().unwrap_or_default(), &others)
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
        let notes = Notes::default();
        let sees = |works: bool| {
            [Contender {
                uid: "a".to_owned(),
                namespace: "demo".to_owned(),
                works,
            }]
        };
        assert!(notes.enter(&request("a"), &[], 2) && notes.enter(&request("b"), &sees(false), 2));
        assert!(!notes.enter(&request("c"), &sees(false), 2));
        assert!(
            notes.enter(&request("a"), &sees(true), 2),
            "who has a place keeps it"
        );
        notes.forget(&request("b"));
        assert_eq!(notes.free(&request("c"), &sees(true), 2), 1);
        assert!(notes.enter(&request("c"), &sees(true), 2));
    }
}
