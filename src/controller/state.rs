//! What is remembered of databases, and whose turn it is at each of them.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use secrecy::SecretString;
use tokio::sync::Mutex as Turn;

use crate::controller::login::Login;
use crate::tls::posture::HbaMethods;

/// What is remembered of one database while this process leads. Losing it costs a check or a
/// question, never a database.
#[derive(Clone, Debug, Default)]
pub(crate) struct DatabaseState {
    /// The login that worked last: a Secret that lost a key is repaired from it.
    pub(crate) login: Option<Login>,
    /// What Patroni was told of us: a Secret that lost it is repaired from here.
    pub(crate) patroni_password: Option<SecretString>,
    /// What its servers take, by what is written; not known while somebody has paused it, who may
    /// write something else.
    pub(crate) hba_methods: Option<HbaMethods>,
    /// What the last check saw.
    pub(crate) last_check: Option<LastCheck>,
    /// What was last seen on the wire to be served by every pod.
    pub(crate) proven: Option<String>,
    /// Until when clients were last said to get time.
    pub(crate) grace_until: Option<Timestamp>,
    /// The certificates that its pods serve.
    pub(crate) served: Option<ServedCertificates>,
    /// The settings that its servers were last seen to have.
    pub(crate) taken: Option<LoadedConf>,
    /// The settings of its Secret that its servers do not take.
    pub(crate) refused: Option<RefusedSettings>,
    /// Its primary, as operations see it.
    pub(crate) primary: PrimarySeen,
}

/// The primary of a database, as operations see it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum PrimarySeen {
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
pub(crate) struct ServedCertificates {
    /// When the first of them ends, as Unix time.
    pub(crate) until: i64,
    /// Others have been issued since.
    pub(crate) drifted: bool,
}

/// What is remembered of every database, by its uid.
#[derive(Default)]
pub(crate) struct DatabaseStates {
    memory: Mutex<HashMap<String, DatabaseState>>,
    turns: Mutex<HashMap<String, Arc<Turn<()>>>>,
}

impl DatabaseStates {
    pub(crate) fn get(&self, uid: &str) -> DatabaseState {
        self.with_memory(|memory| memory.get(uid).cloned())
            .unwrap_or_default()
    }

    pub(crate) fn update(&self, uid: String, change: impl FnOnce(&mut DatabaseState)) {
        self.with_memory(|memory| change(memory.entry(uid).or_default()));
    }

    /// What all of them serve.
    pub(crate) fn served(&self) -> Vec<ServedCertificates> {
        self.with_memory(|memory| memory.values().filter_map(|memory| memory.served).collect())
    }

    pub(crate) fn forget(&self, uid: &str) {
        self.with_memory(|memory| memory.remove(uid));
    }

    /// Forgets every database that is not among these. Whoever is at one of them stays alone there.
    pub(crate) fn retain(&self, known: &BTreeSet<String>) {
        self.with_memory(|memory| memory.retain(|uid, _| known.contains(uid)));
        self.with_turns(|turns| {
            turns.retain(|uid, turn| known.contains(uid) || Arc::strong_count(turn) > 1)
        });
    }

    /// Whoever holds it is alone at this database.
    pub(crate) fn lock(&self, uid: String) -> Arc<Turn<()>> {
        self.with_turns(|turns| Arc::clone(turns.entry(uid).or_default()))
    }

    fn with_memory<T>(&self, with: impl FnOnce(&mut HashMap<String, DatabaseState>) -> T) -> T {
        // Nobody leaves half a memory behind, also not by panicking.
        with(&mut self.memory.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn with_turns<T>(&self, with: impl FnOnce(&mut HashMap<String, Arc<Turn<()>>>) -> T) -> T {
        with(&mut self.turns.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What one check saw that others want to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LastCheck {
    /// Slots on the primary of members that have gone for good.
    pub(crate) left_slots: Vec<String>,
}

/// What servers were last seen to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LoadedConf {
    /// Names the settings, and the pods that have them.
    pub(crate) what: String,
    /// When they were first seen to.
    pub(crate) first: Timestamp,
    /// When they are asked again.
    pub(crate) again: Timestamp,
}

/// Settings that servers do not take, which only they could know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RefusedSettings {
    /// Names the file with all settings, so that another is tried anew.
    pub(crate) of: String,
    pub(crate) names: BTreeSet<String>,
}

impl RefusedSettings {
    pub(crate) fn written(&self) -> String {
        let names = self.names.iter().map(String::as_str);
        [self.of.as_str()]
            .into_iter()
            .chain(names)
            .collect::<Vec<_>>()
            .join(" ")
    }

    pub(crate) fn read(written: &str) -> Option<Self> {
        let mut words = written.split(' ').map(str::to_owned);
        Some(Self {
            of: words.next()?,
            names: words.collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVED: ServedCertificates = ServedCertificates {
        until: 1,
        drifted: false,
    };

    fn known(uids: &[&str]) -> BTreeSet<String> {
        uids.iter().map(|uid| (*uid).to_owned()).collect()
    }

    #[test]
    fn a_database_that_is_not_there_any_more_is_forgotten_with_what_it_served_and_its_login() {
        let memories = DatabaseStates::default();
        for (uid, until) in [("gone", 1), ("there", 2)] {
            memories.update(uid.to_owned(), |memory| {
                memory.served = Some(ServedCertificates { until, ..SERVED });
                memory.login = Some(Login {
                    username: "postgres".to_owned(),
                    password: "secret".into(),
                });
            });
        }
        assert_eq!(
            memories.served().iter().map(|served| served.until).min(),
            Some(1)
        );
        memories.retain(&known(&["there"]));
        assert_eq!(
            memories.served(),
            [ServedCertificates { until: 2, ..SERVED }]
        );
        assert!(memories.get("gone").login.is_none() && memories.get("there").login.is_some());
    }

    #[test]
    fn who_is_at_a_database_stays_alone_there_also_when_it_goes() {
        let memories = DatabaseStates::default();
        let at_it = memories
            .lock("gone".to_owned())
            .try_lock_owned()
            .expect("nobody is at it");
        memories.retain(&known(&[]));
        assert!(memories.lock("gone".to_owned()).try_lock().is_err());
        drop(at_it);
        memories.retain(&known(&[]));
        assert_eq!(memories.with_turns(|turns| turns.len()), 0);
    }

    #[test]
    fn what_is_left_out_is_remembered_by_the_secret() {
        let refused = RefusedSettings {
            of: "1f".to_owned(),
            names: ["timezone".to_owned(), "work_mem".to_owned()].into(),
        };
        assert_eq!(refused.written(), "1f timezone work_mem");
        assert_eq!(RefusedSettings::read(&refused.written()), Some(refused));
    }
}
