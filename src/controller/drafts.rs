//! What this process knows about requests and has not written: losing it loses the times of a few seconds.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use kube::ResourceExt;

use crate::api::PostgresOpsRequest;
use crate::plan::draft::Draft;

/// The drafts, by the uids of their requests.
#[derive(Debug, Default)]
pub(super) struct Drafts(Mutex<HashMap<String, Kept>>);

/// What is kept of one request.
#[derive(Debug, Default)]
struct Kept {
    /// What is to be written into its status.
    draft: Option<Draft>,
    /// Why what was last decided could not be done.
    hindrance: Option<String>,
    /// It was let begin: one of the operations that run, though the watch may not have shown it yet.
    has_begun: bool,
}

impl Drafts {
    /// What is to be written over the status that was read; nothing if somebody else has written one since.
    pub(super) fn of(&self, request: &PostgresOpsRequest) -> Option<Draft> {
        let draft = self.all().get(&key(request))?.draft.clone();
        draft.filter(|draft| draft.is_over(request.status.as_ref()))
    }

    /// Keeps a draft for later; nothing when it is written.
    pub(super) fn keep(&self, request: &PostgresOpsRequest, draft: Option<Draft>) {
        self.all().entry(key(request)).or_default().draft = draft;
    }

    /// Why what was last decided could not be done.
    pub(super) fn hindrance(&self, request: &PostgresOpsRequest) -> Option<String> {
        self.all().get(&key(request))?.hindrance.clone()
    }

    /// Keeps in mind why something could not be done; nothing when it was.
    pub(super) fn hinder(&self, request: &PostgresOpsRequest, why: Option<String>) {
        self.all().entry(key(request)).or_default().hindrance = why;
    }

    /// Lets a request begin if fewer than `most` run: those that do by what was seen, and those that were let begin here.
    pub(super) fn begin(&self, request: &PostgresOpsRequest, running: &[String], most: usize) -> bool {
        let mut all = self.all();
        let others = all.iter().filter(|(uid, kept)| kept.has_begun && !running.contains(uid) && **uid != key(request));
        let may = running.iter().filter(|uid| **uid != key(request)).count() + others.count() < most;
        all.entry(key(request)).or_default().has_begun |= may;
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
        let drafts = Drafts::default();
        let none: [String; 0] = [];
        assert!(drafts.begin(&request("a"), &none, 2) && drafts.begin(&request("b"), &none, 2));
        assert!(!drafts.begin(&request("c"), &none, 2));
        assert!(drafts.begin(&request("a"), &["a".to_owned()], 2), "who has begun goes on");
        drafts.forget(&request("b"));
        assert!(drafts.begin(&request("c"), &["a".to_owned()], 2));
    }
}
