//! What this process knows about requests and has not written: losing it loses the times of the last steps.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kube::ResourceExt;

use crate::api::PostgresOpsRequest;
use crate::plan::draft::Draft;
use crate::plan::observed::Hindrance;

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
    /// When it was let begin: one of the operations that run, though the watch may not have shown it yet.
    began: Option<Instant>,
}

/// How long the watch may be behind.
const BEHIND: Duration = Duration::from_secs(30);

impl Notes {
    /// What is to be written over the status that was read; nothing if somebody else has written one since.
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

    /// Lets a request begin if fewer than `most` run: those that do by what was seen, and those that were let begin a moment ago.
    pub(super) fn begin(&self, request: &PostgresOpsRequest, running: &[String], most: usize) -> bool {
        let mut all = self.all();
        let is_recent = |kept: &Kept| kept.began.is_some_and(|began| began.elapsed() < BEHIND);
        let own = key(request);
        let others = all.iter().filter(|(uid, kept)| is_recent(kept) && !running.contains(uid) && **uid != own);
        let may = running.iter().filter(|uid| **uid != own).count() + others.count() < most;
        if may {
            all.entry(own).or_default().began.get_or_insert_with(Instant::now);
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

fn key(request: &PostgresOpsRequest) -> String {
    request.uid().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(uid: &str) -> PostgresOpsRequest {
        let spec = serde_saphyr::from_str("{type: Restart, databaseRef: {name: pg}}").expect("a spec");
        let mut request = PostgresOpsRequest::new("restart", spec);
        request.metadata.uid = Some(uid.to_owned());
        request
    }

    #[test]
    fn no_more_begin_than_may_run_also_while_the_watch_is_behind() {
        let notes = Notes::default();
        let none: [String; 0] = [];
        assert!(notes.begin(&request("a"), &none, 2) && notes.begin(&request("b"), &none, 2));
        assert!(!notes.begin(&request("c"), &none, 2));
        assert!(notes.begin(&request("a"), &["a".to_owned()], 2), "who has begun goes on");
        notes.forget(&request("b"));
        assert!(notes.begin(&request("c"), &["a".to_owned()], 2));
    }
}
