//! The status and the events of a request: phase, conditions, steps and pods, all derived from
//! decisions.
//!
//! No decision reads conditions or events back. Words and order are KubeDB's where it has them.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use crate::api::condition::{self, Condition};
use crate::api::duration::after;
use crate::api::operation::Operation;
use crate::api::ops_request::{BegunOn, OpsPhase, PodStatus, PostgresOpsRequestStatus};
use crate::api::step::{Course, StepAttempt, StepId};
use crate::api::{PostgresOpsRequest, StepKind};
use crate::plan::observed::Observed;
use crate::plan::observed::cluster::ObservedPod;
use crate::plan::operation::attempts::{AttemptStart, find_step, finish_steps, record_attempt};
use crate::plan::operation::{Decision, Outcome};

/// A step shows what it waits for once it has waited this long: most waits are over before.
const WORTH_TELLING: Duration = Duration::from_secs(5);

/// One event of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestEvent {
    /// One word for programs.
    pub reason: String,
    /// One sentence for people.
    pub message: String,
    /// The try of a step that begins, if the event is about one.
    pub attempt: Option<StepAttempt>,
    /// Whether something went wrong.
    pub severity: Severity,
    /// The objects that get the event.
    pub audience: Audience,
}

/// Whether an event needs attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// It does not.
    Normal,
    /// Something went wrong.
    Warning,
}

/// The objects that get an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// The request.
    Request,
    /// The request and its database.
    Both,
}

impl RequestEvent {
    fn normal(reason: &str, message: String) -> Self {
        Self {
            reason: reason.to_owned(),
            message,
            attempt: None,
            severity: Severity::Normal,
            audience: Audience::Request,
        }
    }

    /// A try of a step begins. Every try but the first is a warning.
    fn attempt(attempt: &StepAttempt, message: &str) -> Self {
        Self {
            severity: if attempt.attempt > 1 {
                Severity::Warning
            } else {
                Severity::Normal
            },
            attempt: Some(attempt.clone()),
            ..Self::normal(
                attempt.step.category().as_str(),
                format!("{}{message}", attempt_prefix(attempt)),
            )
        }
    }
}

/// The beginning of an event's message about a try: `Restart pg-0 (try 2): `.
fn attempt_prefix(StepAttempt { step, attempt }: &StepAttempt) -> String {
    if *attempt > 1 {
        format!("{step} (try {attempt}): ")
    } else {
        format!("{step}: ")
    }
}

/// The message of a step, out of the event that says that this try of it begins.
#[must_use]
pub fn message_of_attempt<'a>(attempt: &StepAttempt, event: &'a str) -> &'a str {
    event
        .strip_prefix(&attempt_prefix(attempt))
        .unwrap_or(event)
}

/// How far a request is; a condition comes true at its milestone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Milestone {
    Begun,
    Paused,
    Issued,
    Walked,
    Written,
    Resumed,
}

impl Milestone {
    /// The last milestone that is complete when this step runs. `Expand` also runs *before* `Issue`,
    /// to widen trust; then it proves `Paused` only.
    fn behind(step: &StepId, request: &PostgresOpsRequest) -> Option<Self> {
        if step.course == Course::Rollback {
            return None;
        }
        let milestone = match step.kind {
            StepKind::Begin | StepKind::Preflight | StepKind::Pause => Self::Begun,
            StepKind::Issue => Self::Paused,
            StepKind::MountCertificates
            | StepKind::Expand
            | StepKind::ClientGracePeriod
            | StepKind::Migrate
            | StepKind::Contract
            | StepKind::Restart
            | StepKind::SwitchOver => Self::Issued,
            StepKind::UpdateDatabase => Self::Walked,
            StepKind::Resume => Self::Written,
            StepKind::Rollback | StepKind::RollbackFailed | StepKind::Observe => return None,
        };
        let has_issued = || find_step(request.steps(), &StepKind::Issue.into()).is_some();
        let issues = request
            .spec
            .operation()
            .is_some_and(Operation::issues_certificates);
        if milestone == Self::Issued && issues && !has_issued() {
            return Some(Self::Paused);
        }
        Some(milestone)
    }
}

/// A condition of KubeDB's: type, message, and when it comes true.
struct Announced {
    type_: &'static str,
    message: &'static str,
    after: Milestone,
    applies: fn(&Observed) -> bool,
}

impl Announced {
    /// What KubeDB says of a part of a step has no reason, and there is no event about it.
    fn is_of_a_part(&self) -> bool {
        self.message.ends_with("; ConditionStatus:True")
    }
}

const fn announced(
    type_: &'static str,
    message: &'static str,
    after: Milestone,
    applies: fn(&Observed) -> bool,
) -> Announced {
    Announced {
        type_,
        message,
        after,
        applies,
    }
}

fn operation(seen: &Observed) -> Option<Operation> {
    seen.request.spec.operation()
}

fn is_about_tls(seen: &Observed) -> bool {
    operation(seen).is_some_and(Operation::is_about_tls)
}

fn is_issued(seen: &Observed) -> bool {
    operation(seen).is_some_and(Operation::issues_certificates)
}

/// Pods are also replaced where the request would rather reload them, for the volume with
/// certificates.
fn is_restarted(seen: &Observed) -> bool {
    let begun_on = seen.request.begun_on();
    let is_new = |pod: &ObservedPod| begun_on.is_some_and(|begun_on| !begun_on.has_pod(&pod.uid));
    seen.request.restarts()
        || seen
            .cluster()
            .is_ok_and(|scene| scene.pods.iter().all(is_new))
}

fn moves_leadership(seen: &Observed) -> bool {
    is_restarted(seen) && seen.cluster().is_ok_and(|scene| scene.replicas > 1)
}

const ANNOUNCED: &[Announced] = &[
    announced(
        "ReconfigureTLS",
        "Postgres ops request is reconfiguring TLS",
        Milestone::Begun,
        is_about_tls,
    ),
    announced(
        "Restart",
        "Postgres ops request is restarting nodes",
        Milestone::Begun,
        |seen| operation(seen) == Some(Operation::Restart),
    ),
    announced(
        "DatabasePauseSucceeded",
        "Successfully paused database",
        Milestone::Paused,
        |_| true,
    ),
    announced(
        "IssueCertificatesSucceeded",
        "Successfully added the issuing condition to all the certificates",
        Milestone::Issued,
        |seen| operation(seen) == Some(Operation::Rotate),
    ),
    announced(
        "CertificateSynced",
        "Successfully synced all certificates",
        Milestone::Issued,
        is_issued,
    ),
    announced(
        "GetCertificate",
        "get certificate; ConditionStatus:True",
        Milestone::Issued,
        is_issued,
    ),
    announced(
        "CheckReadyCondition",
        "check ready condition; ConditionStatus:True",
        Milestone::Issued,
        is_issued,
    ),
    announced(
        "CheckIssuingCondition",
        "check issuing condition; ConditionStatus:True",
        Milestone::Issued,
        is_issued,
    ),
    announced(
        "UpdatePetSets",
        "Successfully reconciled the Postgres with TLS",
        Milestone::Walked,
        is_about_tls,
    ),
    announced(
        "RestartNodes",
        "Successfully restarted all nodes",
        Milestone::Walked,
        is_restarted,
    ),
    announced(
        "EvictPod",
        "evict pod; ConditionStatus:True",
        Milestone::Walked,
        is_restarted,
    ),
    announced(
        "CheckPodReady",
        "check pod ready; ConditionStatus:True",
        Milestone::Walked,
        is_restarted,
    ),
    announced(
        "CheckReplicaFunc",
        "check replica func; ConditionStatus:True",
        Milestone::Walked,
        moves_leadership,
    ),
    announced(
        "GetPrimary",
        "get primary; ConditionStatus:True",
        Milestone::Walked,
        moves_leadership,
    ),
    announced(
        "TransferLeader",
        "transfer leader; ConditionStatus:True",
        Milestone::Walked,
        moves_leadership,
    ),
    announced(
        "CheckIsMaster",
        "check is master; ConditionStatus:True",
        Milestone::Walked,
        moves_leadership,
    ),
    announced(
        "FailoverDone",
        "failover is done successfully",
        Milestone::Walked,
        moves_leadership,
    ),
    announced(
        "ReloadTLS",
        "Successfully reloaded all nodes, without a restart",
        Milestone::Walked,
        |seen| !is_restarted(seen),
    ),
    announced(
        "UpdateDatabase",
        "Successfully updated Postgres",
        Milestone::Written,
        is_about_tls,
    ),
    announced(
        "DatabaseResumeSucceeded",
        "Successfully resumed database",
        Milestone::Resumed,
        |_| true,
    ),
];

/// The status after this decision, and its events. The status is the old one if nothing changes.
#[must_use]
pub fn record(
    observed: &Observed,
    decision: &Decision,
    now: Timestamp,
) -> (PostgresOpsRequestStatus, Vec<RequestEvent>) {
    let old = observed.request.status.clone().unwrap_or_default();
    let mut record = Record {
        observed,
        status: old.clone(),
        events: vec![],
        now,
    };
    match decision {
        Decision::Finish(_) | Decision::Rest(_) => return (old, vec![]),
        Decision::Wait { step: None, on, .. } => {
            record.status.phase = Some(OpsPhase::Pending);
            let pending = Condition::new("Pending", Time(now));
            record.set(pending.because("Waiting", format!("waits for {on}")));
        }
        Decision::Act {
            step,
            purpose,
            last_failure,
            attempt,
            ..
        } => {
            record.status.phase = Some(OpsPhase::Progressing);
            record.begin();
            let message = match last_failure {
                Some(why) => format!("{purpose} ({why})"),
                None => purpose.to_string(),
            };
            record.progress(step, *attempt, &message);
        }
        Decision::Wait {
            step: Some(step),
            on,
            attempt,
        } => {
            let known = find_step(&old.steps, step);
            let started = known.and_then(|step| step.started_at.as_ref());
            let is_worth_telling = *attempt == AttemptStart::Begins
                || started.is_some_and(|started| after(started.0, WORTH_TELLING) <= now);
            let message = match known.and_then(|step| step.message.clone()) {
                Some(message) if !is_worth_telling => message,
                _ => format!("waits for {on}"),
            };
            record.progress(step, *attempt, &message);
        }
        Decision::RollBack { cause } => {
            let (steps, rollback) = (&mut record.status.steps, StepId::from(StepKind::Rollback));
            record_attempt(
                steps,
                &rollback,
                AttemptStart::Begins,
                &cause.to_string(),
                now,
            );
            record.events.push(RequestEvent {
                severity: Severity::Warning,
                audience: Audience::Both,
                ..RequestEvent::normal(
                    StepKind::Rollback.as_str(),
                    format!("rolling back: {cause}"),
                )
            });
        }
        Decision::Complete(outcome) => record.end(outcome),
    }
    record.status.observed_generation = observed.request.metadata.generation;
    let Record {
        mut status, events, ..
    } = record;
    let pods = pods(observed).unwrap_or_else(|| old.pods.clone());
    if status == old && lags(&pods) == lags(&old.pods) {
        return (old, events);
    }
    status.pods = pods;
    (status, events)
}

/// A status that is being derived.
struct Record<'a> {
    observed: &'a Observed,
    status: PostgresOpsRequestStatus,
    events: Vec<RequestEvent>,
    now: Timestamp,
}

impl Record<'_> {
    fn set(&mut self, condition: Condition) {
        condition::set(
            &mut self.status.conditions,
            condition.of_generation(self.observed.request.metadata.generation),
        );
    }

    /// Records the database and its pods when the request begins: from then on no other database is
    /// changed, and no pod is restarted twice.
    fn begin(&mut self) {
        if let (None, Some(database), Ok(pods)) = (
            &self.status.begun_on,
            &self.observed.database,
            &self.observed.pod_uids,
        ) {
            let database_uid = database.uid().unwrap_or_default();
            self.status.begun_on = Some(BegunOn {
                database_uid,
                pods: pods.clone(),
            });
        }
    }

    fn progress(&mut self, step: &StepId, attempt: AttemptStart, message: &str) {
        let now = self.now;
        if condition::holds(&self.status.conditions, "Pending") {
            let turn = Condition::new("Pending", Time(now)).with_status(false);
            self.set(turn.because("Began", "it is this request's turn"));
        }
        let steps = &mut self.status.steps;
        let is_new = find_step(steps, step).is_none();
        record_attempt(steps, step, attempt, message, now);
        let tries = find_step(steps, step).map_or(1, |step| step.attempts);
        if let Some(milestone) = Milestone::behind(step, &self.observed.request) {
            self.announce(milestone);
        }
        if is_new || attempt == AttemptStart::Begins {
            let attempt = StepAttempt {
                step: step.clone(),
                attempt: tries,
            };
            self.events.push(RequestEvent::attempt(&attempt, message));
        }
    }

    /// The conditions of everything up to this milestone.
    fn announce(&mut self, milestone: Milestone) {
        let applies = |announced: &&Announced| {
            announced.after <= milestone && (announced.applies)(self.observed)
        };
        for announced in ANNOUNCED.iter().filter(applies) {
            if condition::holds(&self.status.conditions, announced.type_) {
                continue;
            }
            let new = Condition::new(announced.type_, Time(self.now));
            if announced.is_of_a_part() {
                self.set(new.saying(announced.message));
                continue;
            }
            self.set(new.because(announced.type_, announced.message));
            let event = RequestEvent::normal(announced.type_, announced.message.to_owned());
            let audience = if announced.type_.starts_with("Database") {
                Audience::Both
            } else {
                Audience::Request
            };
            self.events.push(RequestEvent { audience, ..event });
        }
    }

    fn end(&mut self, outcome: &Outcome) {
        finish_steps(&mut self.status.steps, None, self.now);
        let name = self.observed.request.name_any();
        let (phase, type_, message) = match outcome {
            Outcome::Successful => {
                self.announce(Milestone::Resumed);
                (
                    OpsPhase::Successful,
                    "Successful",
                    "Successfully completed the modification process.".to_owned(),
                )
            }
            Outcome::Failed(why) => (OpsPhase::Failed, "Failed", why.clone()),
        };
        self.status.phase = Some(phase);
        self.set(Condition::new(type_, Time(self.now)).because(type_, message.clone()));
        let severity = match outcome {
            Outcome::Successful => Severity::Normal,
            Outcome::Failed(_) => Severity::Warning,
        };
        self.events.push(RequestEvent {
            severity,
            audience: Audience::Both,
            ..RequestEvent::normal(type_, format!("PostgresOpsRequest {name}: {message}"))
        });
    }
}

/// A power of two of MiB, or zero: a smaller lag comes and goes with every write.
fn rounded(bytes: u64) -> String {
    let mib = bytes >> 20;
    format!("{}Mi", if mib == 0 { 0 } else { mib.next_power_of_two() })
}

/// The lag of each pod that has one: people watch it while a standby catches up.
fn lags(pods: &[PodStatus]) -> Vec<Option<&str>> {
    pods.iter()
        .map(|pod| pod.lag.as_deref().filter(|lag| *lag != "0Mi"))
        .collect()
}

/// The pods as `status.pods` shows them.
fn pods(observed: &Observed) -> Option<Vec<PodStatus>> {
    let cluster = observed.cluster().ok()?;
    let begun_on = observed.request.begun_on();
    let shown = cluster.pods.iter().map(|pod| {
        let server = pod.server.as_ref().ok();
        let role = server.map(|server| {
            let role = if server.in_recovery {
                "standby"
            } else {
                "primary"
            };
            role.to_owned()
        });
        let leaf = server.and_then(|server| server.leaf.as_ref());
        PodStatus {
            name: pod.name.clone(),
            role,
            serving_serial: leaf.map(|leaf| leaf.serial.clone()),
            not_after: leaf.map(|leaf| Time(leaf.ends)),
            tls: server.and_then(|server| server.tls.clone()),
            trusts: server
                .map(|server| server.trusts.clone())
                .unwrap_or_default(),
            lag: cluster.lag(&pod.name).map(rounded),
            restarted: begun_on.is_some_and(|begun_on| !begun_on.has_pod(&pod.uid)),
        }
    });
    Some(shown.collect())
}

#[cfg(test)]
mod tests;
