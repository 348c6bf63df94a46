//! What is remembered of databases, and whose turn it is at each of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use secrecy::SecretString;
use tokio::sync::Mutex as Turn;

use super::credentials::Login;
use super::health::Seen;

/// What is remembered of one database while this process leads. Losing it costs a check or a question, never a database.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    /// The login that worked last: a Secret that lost a key is repaired from it.
    pub(super) login: Option<Login>,
    /// What Patroni was told of us: a Secret that lost it is repaired from here.
    pub(super) agent: Option<SecretString>,
    /// What the last check saw.
    pub(super) seen: Option<Seen>,
    /// What was last seen on the wire to be served by every pod.
    pub(super) proven: Option<String>,
    /// Until when clients were last said to get time.
    pub(super) settles: Option<Timestamp>,
    /// The certificates that its pods serve.
    pub(super) served: Option<Served>,
    /// Its primary, as operations see it.
    pub(super) primary: Primary,
}

/// The primary of a database, as operations see it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Primary {
    /// No operation has seen one.
    #[default]
    Unknown,
    /// It answered then.
    There(Timestamp),
    /// It answered last then, and no longer does.
    Away(Timestamp),
}

/// The certificates that the pods of a database serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Served {
    /// When the first of them ends, as Unix time.
    pub(super) until: i64,
    /// Others have been issued since.
    pub(super) drifted: bool,
}

/// What is remembered of every database, by its uid.
#[derive(Default)]
pub(super) struct Memories {
    memory: Mutex<HashMap<String, Memory>>,
    turns: Mutex<HashMap<String, Arc<Turn<()>>>>,
}

impl Memories {
    pub(super) fn recall(&self, uid: &str) -> Memory {
        self.with_memory(|memory| memory.get(uid).cloned()).unwrap_or_default()
    }

    pub(super) fn remember(&self, uid: String, change: impl FnOnce(&mut Memory)) {
        self.with_memory(|memory| change(memory.entry(uid).or_default()));
    }

    /// What all of them serve.
    pub(super) fn served(&self) -> Vec<Served> {
        self.with_memory(|memory| memory.values().filter_map(|memory| memory.served).collect())
    }

    pub(super) fn forget(&self, uid: &str) {
        self.with_memory(|memory| memory.remove(uid));
        self.turns.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }

    /// Whoever holds it is alone at this database.
    pub(super) fn turn(&self, uid: String) -> Arc<Turn<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(turns.entry(uid).or_default())
    }

    fn with_memory<T>(&self, with: impl FnOnce(&mut HashMap<String, Memory>) -> T) -> T {
        // Nobody leaves half a memory behind, also not by panicking.
        with(&mut self.memory.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
