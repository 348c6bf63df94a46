//! Checks of databases, their requests and their certificates.

use std::sync::Arc;

use jiff::Timestamp;
use kube::ResourceExt;

use crate::api::ops_request::OpsPhase;
use crate::api::postgres::DatabasePhase;
use crate::api::{Postgres, PostgresOpsRequest, condition};
use crate::cli::certs::AliasCertificates;
use crate::cli::doctor::checks::cluster::path;
use crate::cli::doctor::installation::{Installation, UnreadableObject};
use crate::cli::doctor::report::{CheckResult, CheckVerdict, known};
use crate::cli::output::{EXPIRES_SOON_DAYS, days, elapsed};
use crate::pki::certificate::CertificateSummary;
use crate::plan::status::database::types::{BLOCKED, PAUSED};
use crate::rules;
use crate::rules::{Review, Snapshot};

/// Seconds after which a step counts as stuck. Steps are retried and given up without help.
const STUCK_AFTER: i64 = 20 * 60;

pub(super) fn ready(
    installation: &Installation,
    _: Timestamp,
) -> Result<CheckResult, UnreadableObject> {
    let databases = known(&installation.databases)?;
    let phase = |database: &Postgres| database.status.as_ref().and_then(|status| status.phase);
    let bad = databases.iter().filter(|database| {
        !matches!(
            phase(database),
            Some(DatabasePhase::Ready | DatabasePhase::Halted)
        )
    });
    Ok(CheckResult::from_problems(
        CheckVerdict::Warn,
        bad.map(|database| {
            let phase =
                phase(database).map_or("not seen yet".to_owned(), |phase| format!("{phase:?}"));
            format!("{} is {phase}", path(database))
        }),
        format!("all {}", databases.len()),
    ))
}

pub(super) fn blocked(
    installation: &Installation,
    _: Timestamp,
) -> Result<CheckResult, UnreadableObject> {
    let databases = known(&installation.databases)?;
    let blocked = databases.iter().filter_map(|database| {
        let condition = condition::find(&database.status.as_ref()?.conditions, BLOCKED)?;
        let why = condition.message.clone().unwrap_or_default();
        condition
            .holds()
            .then(|| format!("{}: {why}", path(database)))
    });
    Ok(CheckResult::from_problems(
        CheckVerdict::Fail,
        blocked,
        "none",
    ))
}

/// Applies rule `cert-shared-issuer` to the databases that exist.
pub(super) fn certificate_logins(
    installation: &Installation,
    _: Timestamp,
) -> Result<CheckResult, UnreadableObject> {
    let databases = known(&installation.databases)?;
    let facts = Snapshot {
        databases: databases.iter().cloned().map(Arc::new).collect(),
        ..Snapshot::default()
    };
    let findings = |database: &Postgres| {
        let rules = rules::postgres::rules().filter(|rule| rule.id == "cert-shared-issuer");
        let review = Review::create(database.clone(), Arc::default());
        let path = path(database);
        rules::judge(rules, &review, Some(&facts))
            .into_iter()
            .map(move |found| format!("{path}: {}: {}", found.problem, found.remedy))
    };
    Ok(CheckResult::from_problems(
        CheckVerdict::Warn,
        databases.iter().flat_map(findings),
        "none by an issuer that others use",
    ))
}

/// Databases that are paused although no request about them runs.
pub(super) fn paused(
    installation: &Installation,
    _: Timestamp,
) -> Result<CheckResult, UnreadableObject> {
    let requests = known(&installation.requests)?;
    let is_paused = |database: &&Postgres| {
        database
            .status
            .as_ref()
            .is_some_and(|status| condition::holds(&status.conditions, PAUSED))
    };
    let has_running_request = |database: &Postgres| {
        requests.iter().any(|request| {
            request.namespace() == database.namespace()
                && request.spec.database_ref.name == database.name_any()
                && request.phase() == Some(OpsPhase::Progressing)
        })
    };
    let forgotten = known(&installation.databases)?
        .iter()
        .filter(is_paused)
        .filter(|database| !has_running_request(database));
    Ok(CheckResult::from_problems(
        CheckVerdict::Fail,
        forgotten.map(|database| format!("{} is paused", path(database))),
        "none without a request that runs",
    ))
}

pub(super) fn requests_stuck(
    installation: &Installation,
    now: Timestamp,
) -> Result<CheckResult, UnreadableObject> {
    let requests = known(&installation.requests)?;
    Ok(CheckResult::from_problems(
        CheckVerdict::Fail,
        requests
            .iter()
            .filter_map(|request| describe_stuck(request, now)),
        "none",
    ))
}

/// The step at which a request is stuck, in words. `None` if it is not stuck.
fn describe_stuck(request: &PostgresOpsRequest, now: Timestamp) -> Option<String> {
    let status = request.status.as_ref()?;
    if status.phase != Some(OpsPhase::Progressing) {
        return None;
    }
    let mut steps = status.steps.iter().rev();
    let step = steps.find(|step| step.finished_at.is_none())?;
    let since = step.started_at.as_ref()?.0;
    if now.as_second() - since.as_second() <= STUCK_AFTER {
        return None;
    }
    let message = step.message.as_deref().unwrap_or_default();
    Some(format!(
        "{}: {} since {}: {message}",
        path(request),
        step.name,
        elapsed(since, now)
    ))
}

pub(super) fn requests_failed(
    installation: &Installation,
    _: Timestamp,
) -> Result<CheckResult, UnreadableObject> {
    let requests = known(&installation.requests)?.iter();
    let failed = requests.filter(|request| request.phase() == Some(OpsPhase::Failed));
    Ok(CheckResult::from_problems(
        CheckVerdict::Warn,
        failed.map(path),
        "none",
    ))
}

pub(super) fn certificates_issued(
    installation: &Installation,
    _: Timestamp,
) -> Result<CheckResult, UnreadableObject> {
    let problems = certificate_problems(installation, |alias| match (&alias.issued, alias.ready) {
        (None, None) => Some("is not asked for".to_owned()),
        (None, Some(_)) => Some("is not issued".to_owned()),
        (Some(_), Some(false)) => Some("is not Ready".to_owned()),
        (Some(_), _) => None,
    });
    Ok(CheckResult::from_problems(
        CheckVerdict::Fail,
        problems?,
        "all",
    ))
}

pub(super) fn certificates_served(
    installation: &Installation,
    _: Timestamp,
) -> Result<CheckResult, UnreadableObject> {
    let problems = certificate_problems(installation, |alias| {
        alias
            .drifts()
            .then(|| "is issued and another one is served".to_owned())
    });
    Ok(CheckResult::from_problems(
        CheckVerdict::Warn,
        problems?,
        "what is issued",
    ))
}

pub(super) fn certificates_expiring(
    installation: &Installation,
    now: Timestamp,
) -> Result<CheckResult, UnreadableObject> {
    let problems = certificate_problems(installation, |alias| {
        let served = alias.served.as_ref()?;
        expires_soon(served, now)
            .then(|| format!("is served and ends in {} days", days(now, served.ends)))
    });
    Ok(CheckResult::from_problems(
        CheckVerdict::Fail,
        problems?,
        "none soon",
    ))
}

/// One line for every certificate of every database that has a problem.
fn certificate_problems(
    installation: &Installation,
    problem: impl Fn(&AliasCertificates) -> Option<String>,
) -> Result<Vec<String>, UnreadableObject> {
    let mut lines = vec![];
    for database in known(&installation.certificates)? {
        let name = &database.database;
        lines.extend(database.aliases.iter().filter_map(|certificates| {
            let alias = certificates.alias.as_str();
            Some(format!(
                "{name}: the {alias} certificate {}",
                problem(certificates)?
            ))
        }));
    }
    Ok(lines)
}

/// Whether less is left than [`EXPIRES_SOON_DAYS`], or than a third of a shorter life.
pub(super) fn expires_soon(leaf: &CertificateSummary, now: Timestamp) -> bool {
    let life = leaf.ends.as_second() - leaf.not_before.as_second();
    let left = leaf.ends.as_second() - now.as_second();
    left < (EXPIRES_SOON_DAYS * 24 * 3600).min(life / 3)
}
