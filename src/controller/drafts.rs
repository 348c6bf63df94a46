//! What is to be written into the status of requests, and is not yet.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use kube::ResourceExt;

use crate::api::PostgresOpsRequest;
use crate::plan::draft::Draft;

/// The drafts, by the uids of their requests. Losing them loses the times of a few seconds.
#[derive(Debug, Default)]
pub(super) struct Drafts(Mutex<HashMap<String, Draft>>);

impl Drafts {
    /// What is to be written over the status that was read; nothing if somebody else has written one since.
    pub(super) fn of(&self, request: &PostgresOpsRequest) -> Option<Draft> {
        let draft = self.all().get(&key(request)).cloned();
        draft.filter(|draft| draft.is_over(request.status.as_ref()))
    }

    /// Keeps a draft for later.
    pub(super) fn keep(&self, request: &PostgresOpsRequest, draft: Draft) {
        self.all().insert(key(request), draft);
    }

    /// Forgets the draft of a request that is written, or gone.
    pub(super) fn forget(&self, request: &PostgresOpsRequest) {
        self.all().remove(&key(request));
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, Draft>> {
        // Nobody leaves half a draft behind, also not by panicking.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(request: &PostgresOpsRequest) -> String {
    request.uid().unwrap_or_default()
}
