//! The state of databases that this process keeps in memory, and the lock on each of them.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use secrecy::SecretString;
use tokio::sync::Mutex as AsyncMutex;

use crate::controller::login::Login;
use crate::pki::issued::{Issued, ServedMaterial};
use crate::tls::posture::HbaMethods;

/// The state of one database while this process leads. Losing it costs a check or a question, never
/// a database.
#[derive(Clone, Debug, Default)]
pub(crate) struct DatabaseState {
    /// The login that worked last: a Secret that lost a key is repaired from it.
    pub(crate) login: Option<Login>,
    /// The password of Patroni's REST API: a Secret that lost it is repaired from it.
    pub(crate) patroni_password: Option<SecretString>,
    /// The authentication that servers are told to accept. `None` while an operation has paused the
    /// database, because it may write another.
    pub(crate) hba_methods: Option<HbaMethods>,
    /// The findings of the last check.
    pub(crate) last_check: Option<LastCheck>,
    /// Names the certificates that every pod was last seen to serve.
    pub(crate) proven: Option<String>,
    /// Since when what has been issued is not what its spec asks for; `None` if it is.
    pub(crate) issuing_since: Option<Timestamp>,
    /// When certificates were last asked for anew because their CA ends before them.
    pub(crate) reissued_at: Option<Timestamp>,
    /// The end of the client grace period that was last announced.
    pub(crate) grace_until: Option<Timestamp>,
    /// The certificates that its pods serve.
    pub(crate) served: Option<ServedCertificates>,
    /// The settings that its servers were last seen to have.
    pub(crate) loaded_conf: Option<LoadedConf>,
    /// The settings of its Secret that its servers do not accept.
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

impl ServedCertificates {
    /// The certificates in Secret `NAME-tls`, compared with those that were issued last; `None` if
    /// their end is not known.
    pub(crate) fn new(in_secret: &ServedMaterial, issued: Option<&Issued>) -> Option<Self> {
        Some(Self {
            until: in_secret.ends()?.as_second(),
            drifted: issued.is_some_and(|issued| in_secret.material() != Some(issued.material)),
        })
    }
}

/// The findings of one check that other controllers use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LastCheck {
    /// Slots on the primary of members that have gone for good.
    pub(crate) left_slots: Vec<String>,
}

/// The settings that servers were last seen to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LoadedConf {
    /// Names the settings, and the pods that should have them.
    pub(crate) target: String,
    /// When the servers were first asked about this target.
    pub(crate) first_check: Timestamp,
    /// When they are asked again.
    pub(crate) next_check: Timestamp,
}

/// Settings that servers do not accept. Only a server can tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RefusedSettings {
    /// Names the file with all settings: the settings of another file are tried again.
    pub(crate) file: String,
    pub(crate) names: BTreeSet<String>,
}

impl RefusedSettings {
    /// As the annotation of Secret `NAME-user-conf` holds it: words with spaces between them.
    pub(crate) fn to_annotation(&self) -> String {
        let names = self.names.iter().map(String::as_str);
        let words: Vec<&str> = [self.file.as_str()].into_iter().chain(names).collect();
        words.join(" ")
    }

    /// The inverse of [`to_annotation`](Self::to_annotation).
    pub(crate) fn parse(annotation: &str) -> Option<Self> {
        let mut words = annotation.split(' ').map(str::to_owned);
        Some(Self {
            file: words.next()?,
            names: words.collect(),
        })
    }
}

/// The state of every database and the lock on it, by uid.
#[derive(Default)]
pub(crate) struct DatabaseStates {
    states: Mutex<HashMap<String, DatabaseState>>,
    locks: Mutex<HashMap<String, Arc<AsyncMutex<()>>>>,
}

impl DatabaseStates {
    pub(crate) fn get(&self, uid: &str) -> DatabaseState {
        self.with_states(|states| states.get(uid).cloned())
            .unwrap_or_default()
    }

    pub(crate) fn update(&self, uid: String, change: impl FnOnce(&mut DatabaseState)) {
        self.with_states(|states| change(states.entry(uid).or_default()));
    }

    /// The certificates that all databases serve.
    pub(crate) fn served(&self) -> Vec<ServedCertificates> {
        self.with_states(|states| states.values().filter_map(|state| state.served).collect())
    }

    pub(crate) fn forget(&self, uid: &str) {
        self.with_states(|states| states.remove(uid));
    }

    /// Forgets every database that is not among these. A lock that is held stays.
    pub(crate) fn retain(&self, known: &BTreeSet<String>) {
        self.with_states(|states| states.retain(|uid, _| known.contains(uid)));
        self.with_locks(|locks| {
            locks.retain(|uid, lock| known.contains(uid) || Arc::strong_count(lock) > 1);
        });
    }

    /// The lock on this database.
    pub(crate) fn lock(&self, uid: String) -> Arc<AsyncMutex<()>> {
        self.with_locks(|locks| Arc::clone(locks.entry(uid).or_default()))
    }

    fn with_states<T>(&self, with: impl FnOnce(&mut HashMap<String, DatabaseState>) -> T) -> T {
        // A panic leaves no half-written state behind: every change is one assignment.
        with(&mut self.states.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn with_locks<T>(
        &self,
        with: impl FnOnce(&mut HashMap<String, Arc<AsyncMutex<()>>>) -> T,
    ) -> T {
        with(&mut self.locks.lock().unwrap_or_else(PoisonError::into_inner))
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
    fn a_deleted_database_is_forgotten_with_its_certificates_and_login() {
        let states = DatabaseStates::default();
        for (uid, until) in [("gone", 1), ("there", 2)] {
            states.update(uid.to_owned(), |state| {
                state.served = Some(ServedCertificates { until, ..SERVED });
                state.login = Some(Login {
                    username: "postgres".to_owned(),
                    password: "secret".into(),
                });
            });
        }
        assert_eq!(
            states.served().iter().map(|served| served.until).min(),
            Some(1)
        );
        states.retain(&known(&["there"]));
        assert_eq!(states.served(), [ServedCertificates { until: 2, ..SERVED }]);
        assert!(states.get("gone").login.is_none() && states.get("there").login.is_some());
    }

    #[test]
    fn the_lock_of_a_database_holds_also_while_it_is_deleted() {
        let states = DatabaseStates::default();
        let at_it = states
            .lock("gone".to_owned())
            .try_lock_owned()
            .expect("no reconcile holds it");
        states.retain(&known(&[]));
        assert!(states.lock("gone".to_owned()).try_lock().is_err());
        drop(at_it);
        states.retain(&known(&[]));
        assert_eq!(states.with_locks(|locks| locks.len()), 0);
    }

    #[test]
    fn left_out_settings_are_remembered_by_their_secret() {
        let refused = RefusedSettings {
            file: "1f".to_owned(),
            names: ["timezone".to_owned(), "work_mem".to_owned()].into(),
        };
        assert_eq!(refused.to_annotation(), "1f timezone work_mem");
        assert_eq!(
            RefusedSettings::parse(&refused.to_annotation()),
            Some(refused)
        );
    }

    #[test]
    fn certificates_drift_when_others_have_been_issued() {
        use crate::pki::issued::tests::{Authority, issue};
        let ca = Authority::new("ca");
        let (one, other) = (issue(&ca, &ca), issue(&ca, &ca));
        for (issued, expected) in [(None, false), (Some(&one), false), (Some(&other), true)] {
            let served = ServedCertificates::new(&one.served, issued).expect("an end");
            assert_eq!(served.drifted, expected);
        }
    }
}
