//! Health: asks the servers of every database whether they are well, each on its own period, beside
//! the reconciles.
//!
//! # Expected flow
//! Once a second the databases whose period is over are checked, many at once. A check asks every
//! pod at its address, in the session of the check before or, once a minute and after every change,
//! in a new one ([`Sessions`](crate::controller::sessions::Sessions)); the spec says how long it may
//! take. Its findings become conditions, which the check writes itself.
//!
//! # Guarantees
//! A check that hangs, or that waits for the API server, delays no other one while there are fewer
//! than [`MAX_CONCURRENT_CHECKS`]; one that panics is followed by the next. No two checks of one
//! database run at once. The status is written when it changes. A database that is halted or being
//! deleted is not checked.

mod checks;
mod connect;
mod secrets;
mod verdict;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt;
use kube::runtime::reflector::Store;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior};

use crate::api::Postgres;
use crate::api::bounds::MAX_CHECK_PERIOD;
use crate::api::postgres::DatabasePhase;
use crate::controller::Context;
use crate::controller::postgres::health::checks::{HealthCheckResult, check, seconds, settings};
use crate::controller::postgres::health::connect::CheckSessions;
use crate::controller::postgres::health::secrets::SecretVersions;
use crate::controller::sessions::MAX_SESSIONS;
use crate::plan::status::database::Replicas;

/// How many databases are checked at once.
const MAX_CONCURRENT_CHECKS: usize = 32;

/// How often databases are looked through for those whose period is over.
const TICK: Duration = Duration::from_secs(1);

/// The longest period of a database that is not ready: its owner waits for it.
const MAX_PERIOD_UNTIL_READY: Duration = Duration::from_secs(2);

/// Checks databases until it is dropped.
pub(crate) async fn run(context: Arc<Context>, databases: Store<Postgres>) {
    if context.watched.until_listed().await.is_err() {
        // The stores are filled no longer, so the controllers have ended.
        return;
    }
    let mut checker = CheckScheduler::new(context);
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => checker.start_due_checks(databases.state()),
            Some(ended) = checker.checks.join_next_with_id(), if !checker.checks.is_empty() => {
                checker.end_check(ended);
            }
        }
    }
}

/// The checks of all databases.
struct CheckScheduler {
    context: Arc<Context>,
    sessions: Arc<CheckSessions>,
    /// By the uids of the databases.
    schedules: HashMap<String, CheckSchedule>,
    checks: JoinSet<HealthCheckResult>,
    /// The uids of the databases that are being checked.
    running: HashMap<Id, String>,
}

impl CheckScheduler {
    fn new(context: Arc<Context>) -> Self {
        Self {
            context,
            sessions: Arc::new(CheckSessions::new(MAX_SESSIONS)),
            schedules: HashMap::new(),
            checks: JoinSet::new(),
            running: HashMap::new(),
        }
    }

    fn start_due_checks(&mut self, all: Vec<Arc<Postgres>>) {
        let known = uids(&all);
        self.schedules.retain(|uid, _| known.contains(uid));
        let checked: Vec<_> = all
            .into_iter()
            .filter(|postgres| is_checked(postgres))
            .collect();
        let known = uids(&checked);
        self.sessions
            .end_all_but(|peer| known.contains(&peer.database));
        for postgres in checked {
            self.start_if_due(postgres);
        }
    }

    fn start_if_due(&mut self, postgres: Arc<Postgres>) {
        let uid = postgres.uid().unwrap_or_default();
        let schedule = self.schedules.entry(uid.clone()).or_default();
        let replicas = replicas(&self.context, &postgres);
        if self.checks.len() >= MAX_CONCURRENT_CHECKS
            || !schedule.is_due(replicas, period(&postgres))
        {
            return;
        }
        schedule.begin(replicas);
        let task = self.checks.spawn(check(
            Arc::clone(&self.context),
            Arc::clone(&self.sessions),
            postgres,
            replicas,
            schedule.failures,
        ));
        self.running.insert(task.id(), uid);
    }

    fn end_check(&mut self, ended: Result<(Id, HealthCheckResult), JoinError>) {
        let (id, result) = match ended {
            Ok((id, result)) => (id, Some(result)),
            // The check panicked, which has been logged.
            Err(error) => (error.id(), None),
        };
        let uid = self.running.remove(&id);
        let schedule = uid.and_then(|uid| self.schedules.get_mut(&uid));
        // Secrets are not watched: a change of one is noticed here.
        if schedule.is_some_and(|schedule| schedule.end(result) == SecretsSince::Changed) {
            self.context.requeue_all_databases();
        }
    }
}

fn uids(databases: &[Arc<Postgres>]) -> BTreeSet<String> {
    databases
        .iter()
        .filter_map(|postgres| postgres.uid())
        .collect()
}

/// When a database is checked.
#[derive(Default)]
struct CheckSchedule {
    /// When it was last checked; `None` if it is to be checked at once.
    last: Option<Instant>,
    running: bool,
    /// Failed checks in a row.
    failures: i32,
    /// How many pods were ready when the last check began.
    replicas: Option<Replicas>,
    /// The Secrets at the last check that could read them.
    secrets: Option<SecretVersions>,
}

/// Whether the Secrets of a database have changed since the check before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SecretsSince {
    Changed,
    /// Or not known.
    Unchanged,
}

impl CheckSchedule {
    fn is_due(&self, replicas: Option<Replicas>, period: Duration) -> bool {
        let is_news = replicas != self.replicas;
        !self.running && (is_news || self.last.is_none_or(|last| last.elapsed() >= period))
    }

    fn begin(&mut self, replicas: Option<Replicas>) {
        self.running = true;
        self.replicas = replicas;
    }

    /// Notes the result of a check; `None` if it panicked.
    fn end(&mut self, result: Option<HealthCheckResult>) -> SecretsSince {
        self.running = false;
        let is_done = result.as_ref().is_none_or(|result| result.is_written);
        self.last = is_done.then(Instant::now);
        let Some(result) = result else {
            return SecretsSince::Unchanged;
        };
        self.failures = result.failures;
        let Some(secrets) = result.secrets else {
            return SecretsSince::Unchanged;
        };
        match self.secrets.replace(secrets) {
            Some(before) if Some(&before) != self.secrets.as_ref() => SecretsSince::Changed,
            _ => SecretsSince::Unchanged,
        }
    }
}

fn is_checked(postgres: &Postgres) -> bool {
    postgres.metadata.deletion_timestamp.is_none() && postgres.spec.halted != Some(true)
}

fn period(postgres: &Postgres) -> Duration {
    let period = seconds(settings(postgres).period_seconds, MAX_CHECK_PERIOD);
    let phase = postgres.status.as_ref().and_then(|status| status.phase);
    if phase == Some(DatabasePhase::Ready) {
        period
    } else {
        period.min(MAX_PERIOD_UNTIL_READY)
    }
}

/// How many pods are ready, by the status of the PetSet; `None` without a PetSet.
fn replicas(context: &Context, postgres: &Postgres) -> Option<Replicas> {
    let set = context.pet_set(
        &postgres.namespace().unwrap_or_default(),
        &postgres.name_any(),
    )?;
    let status = set.status.as_ref();
    Some(Replicas {
        desired: postgres.spec.desired_replicas(),
        ready: status
            .and_then(|status| status.ready_replicas)
            .unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::SecretsSince::{Changed, Unchanged};
    use super::*;

    #[test]
    fn secrets_that_could_not_be_read_are_not_taken_for_changed_ones() {
        let found = |version: Option<&str>| {
            let secrets = version.map(|version| {
                let secret = ("pg-auth".to_owned(), Some(version.to_owned()));
                SecretVersions([secret].into())
            });
            Some(HealthCheckResult {
                failures: 0,
                secrets,
                is_written: true,
            })
        };
        let mut schedule = CheckSchedule::default();
        let looks = [
            (found(Some("1")), Unchanged),
            (found(None), Unchanged),
            (None, Unchanged),
            (found(Some("1")), Unchanged),
        ];
        for (found, changed) in looks
            .into_iter()
            .chain([(found(Some("2")), Changed), (found(Some("2")), Unchanged)])
        {
            assert_eq!(schedule.end(found), changed);
        }
    }

    #[test]
    fn a_check_that_panicked_is_followed_by_the_next() {
        let mut schedule = CheckSchedule::default();
        let period = Duration::ZERO;
        assert!(schedule.is_due(None, period));
        schedule.begin(None);
        assert!(!schedule.is_due(None, period));
        schedule.end(None);
        assert!(schedule.is_due(None, period) && !schedule.is_due(None, Duration::from_mins(1)));
    }

    #[test]
    fn a_database_is_checked_at_once_when_its_pods_change_or_its_status_was_not_written() {
        let mut schedule = CheckSchedule::default();
        let (replicas, period) = (
            Some(Replicas {
                desired: 1,
                ready: 1,
            }),
            Duration::from_mins(1),
        );
        schedule.begin(replicas);
        schedule.end(Some(HealthCheckResult {
            failures: 0,
            secrets: None,
            is_written: true,
        }));
        assert!(!schedule.is_due(replicas, period));
        assert!(schedule.is_due(
            Some(Replicas {
                desired: 1,
                ready: 0
            }),
            period
        ));
        schedule.end(Some(HealthCheckResult {
            failures: 0,
            secrets: None,
            is_written: false,
        }));
        assert!(schedule.is_due(replicas, period));
    }
}
