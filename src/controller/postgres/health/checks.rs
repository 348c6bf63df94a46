//! One check of one database.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future;
use kube::ResourceExt;
use tracing::debug;

use crate::api::Postgres;
use crate::api::annotations::BUILT_OF;
use crate::api::bounds::MAX_CHECK_TIMEOUT;
use crate::api::postgres::HealthChecker;
use crate::build::version::BuiltOf;
use crate::build::workload::PodOwnership;
use crate::controller::Context;
use crate::controller::observe::superuser::auth_secret_name;
use crate::controller::postgres::health::connect::{CheckRound, CheckSessions, connect_methods};
use crate::controller::postgres::health::secrets::{CheckSecrets, SecretVersions};
use crate::controller::postgres::health::verdict::{CheckAnswers, left_slots};
use crate::controller::postgres::status;
use crate::controller::sessions::PeerId;
use crate::controller::state::LastCheck;
use crate::plan::status::database::{HealthVerdict, Replicas};

/// The result of a check.
pub(super) struct HealthCheckResult {
    /// Failed checks in a row, with this one.
    pub(super) failures: i32,
    /// The Secrets; `None` if the API server did not answer.
    pub(super) secrets: Option<SecretVersions>,
    /// The status says the verdict.
    pub(super) is_written: bool,
}

pub(super) fn settings(postgres: &Postgres) -> HealthChecker {
    postgres.spec.health_checker.unwrap_or_default()
}

pub(super) fn seconds(value: Option<i32>, max: i32) -> Duration {
    Duration::from_secs(value.unwrap_or(10).clamp(1, max).unsigned_abs().into())
}

/// Checks a database, and writes the verdict into its status once it was the same often enough.
pub(super) async fn check(
    context: Arc<Context>,
    sessions: Arc<CheckSessions>,
    postgres: Arc<Postgres>,
    replicas: Option<Replicas>,
    failures_before: i32,
) -> HealthCheckResult {
    let secrets = CheckSecrets::fetch(&context, &postgres).await.ok();
    let versions = secrets.as_ref().map(|secrets| secrets.versions.clone());
    let verdict = match (replicas, secrets) {
        (Some(_), Some(secrets)) => {
            Some(check_in_time(&context, &sessions, &postgres, secrets).await)
        }
        // Without pods there is no server to ask, and an API server that does not answer says
        // nothing about the database.
        _ => None,
    };
    let failures = match &verdict {
        None => failures_before,
        Some(verdict) if verdict.accepting.is_ok() && verdict.ready.is_ok() => 0,
        Some(_) => failures_before.saturating_add(1),
    };
    let threshold = settings(&postgres).failure_threshold.unwrap_or(1);
    let verdict = verdict.filter(|_| failures == 0 || failures >= threshold);
    let written = status::write(&context, &postgres, |writer| {
        if let Some(replicas) = replicas {
            writer.replicas(replicas);
        }
        if let Some(verdict) = &verdict {
            writer.checked(verdict);
        }
    })
    .await;
    if let Err(error) = &written {
        // The next check comes to the same verdict.
        debug!(database = postgres.name_any(), %error, "the status could not be written");
    }
    HealthCheckResult {
        failures,
        secrets: versions,
        is_written: written.is_ok(),
    }
}

/// Checks a database within the time that its spec gives.
async fn check_in_time(
    context: &Context,
    sessions: &CheckSessions,
    postgres: &Postgres,
    secrets: CheckSecrets,
) -> HealthVerdict {
    let timeout = seconds(settings(postgres).timeout_seconds, MAX_CHECK_TIMEOUT);
    tokio::time::timeout(timeout, ask_servers(context, sessions, postgres, secrets))
        .await
        .unwrap_or_else(|_| {
            let late = format!("the check took longer than {} s", timeout.as_secs());
            not_well(late)
        })
}

/// Neither accepting connections nor ready, for this reason.
fn not_well(why: String) -> HealthVerdict {
    HealthVerdict {
        accepting: Err(why.clone()),
        ready: Err(why),
    }
}

async fn ask_servers(
    context: &Context,
    sessions: &CheckSessions,
    postgres: &Postgres,
    secrets: CheckSecrets,
) -> HealthVerdict {
    let Some(login) = secrets.login else {
        let name = auth_secret_name(postgres);
        return not_well(format!("Secret {name} has no username and password"));
    };
    let workload = match context.watched.workload(postgres) {
        Ok(workload) => workload,
        Err(why) => return not_well(why),
    };
    let pods = context.watched.pods(postgres, &workload);
    let members: Vec<_> = pods
        .iter()
        .filter(|pod| workload.ownership(pod) == PodOwnership::Member)
        .collect();
    let round = CheckRound {
        database: postgres.uid().unwrap_or_default(),
        methods: connect_methods(postgres, secrets.served.as_ref(), secrets.accept),
        major: major(context, postgres),
        write: settings(postgres).disable_write_check != Some(true),
        secrets: secrets.versions,
        accept: secrets.accept,
        login,
        postgres,
        sessions,
    };
    let known: HashSet<PeerId> = members.iter().map(|pod| round.peer(pod)).collect();
    sessions.end_all_but(|peer| peer.database != round.database || known.contains(peer));
    let asked = members
        .iter()
        .map(async |pod| (pod.name_any(), round.ask(pod).await));
    let answers: BTreeMap<_, _> = future::join_all(asked).await.into_iter().collect();
    let answers = CheckAnswers(answers);
    if answers.any() {
        context.update_state(postgres, |state| state.login = Some(round.login));
    }
    if let Some((_, primary)) = answers.primary() {
        let left_slots = left_slots(postgres, &pods, &primary.idle_slots);
        remember(context, postgres, LastCheck { left_slots });
    }
    answers.verdict(postgres.spec.desired_replicas())
}

/// Keeps the findings in memory. If they are new, databases are reconciled.
fn remember(context: &Context, postgres: &Postgres, check: LastCheck) {
    let mut is_news = false;
    context.update_state(postgres, |state| {
        is_news = state.last_check.as_ref().unwrap_or(&LastCheck::default()) != &check;
        state.last_check = Some(check);
    });
    if is_news {
        context.requeue_all_databases();
    }
}

/// PostgreSQL's major version, if the PetSet says it.
fn major(context: &Context, postgres: &Postgres) -> Option<u32> {
    let set = context.pet_set(
        &postgres.namespace().unwrap_or_default(),
        &postgres.name_any(),
    )?;
    let built: BuiltOf = set.annotations().get(BUILT_OF)?.parse().ok()?;
    Some(built.major)
}
