//! What people are told about a request: phase, conditions, steps, pods and events, all derived
//! from decisions.
//!
//! No decision about the way reads conditions and events back. Words and order are KubeDB's where
//! it has them.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use crate::api::condition;
use crate::api::condition::Condition;
use crate::api::duration::after;
use crate::api::ops_request::{BegunOn, OpsPhase, OpsType, PodStatus, PostgresOpsRequestStatus};
use crate::api::{PostgresOpsRequest, StepKind};

use crate::plan::observed::Observed;
use crate::plan::observed::cluster::ObservedPod;
use crate::plan::operation::attempts;
use crate::plan::operation::attempts::ROLLBACK;
use crate::plan::operation::goal::{issues_certificates, rotates_certificates};
use crate::plan::operation::{Decision, Outcome};

/// What a step waits for is told once it has waited this long: most waits are over before.
const WORTH_TELLING: Duration = Duration::from_secs(5);

/// One line for the history of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestEvent {
    /// One word for programs.
    pub reason: String,
    /// One sentence for people.
    pub message: String,
    /// Whether something went wrong.
    pub warning: bool,
    /// Whether the database's history has it too.
    pub on_database: bool,
}

impl RequestEvent {
    fn normal(reason: &str, message: String) -> Self {
        Self {
            reason: reason.to_owned(),
            message,
            warning: false,
            on_database: false,
        }
    }
}

/// How far a request is on its way; a condition comes true when the way has come to its milestone.
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
    /// The milestone that is behind whoever is at this step of a request. Trust is widened before
    /// anything is issued.
    fn behind(step: &str, request: &PostgresOpsRequest) -> Option<Self> {
        let has_issued =
            || attempts::find_step(request.steps(), StepKind::Issue.as_str()).is_some();
        StepKind::from_name(step).and_then(Self::at).map(|at| {
            if at == Self::Issued && issues_certificates(&request.spec) && !has_issued() {
                Self::Paused
            } else {
                at
            }
        })
    }

    fn at(step: StepKind) -> Option<Self> {
        match step {
            StepKind::Begin | StepKind::Preflight | StepKind::Pause => Some(Self::Begun),
            StepKind::Issue => Some(Self::Paused),
            StepKind::MountCertificates
            | StepKind::Expand
            | StepKind::ClientGracePeriod
            | StepKind::Migrate
            | StepKind::Contract
            | StepKind::Restart
            | StepKind::SwitchOver => Some(Self::Issued),
            StepKind::UpdateDatabase => Some(Self::Walked),
            StepKind::Resume => Some(Self::Written),
            StepKind::Rollback | StepKind::Observe => None,
        }
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

fn is_about_tls(seen: &Observed) -> bool {
    seen.request.spec.type_ == OpsType::ReconfigureTLS
}

fn is_issued(seen: &Observed) -> bool {
    issues_certificates(&seen.request.spec)
}

/// Pods are also replaced where the request would rather reload them, for the volume with
/// certificates.
fn is_restarted(seen: &Observed) -> bool {
    let begun_on = seen.request.begun_on();
    let is_new = |pod: &ObservedPod| begun_on.is_some_and(|begun_on| !begun_on.has_pod(&pod.uid));
    seen.request.restarts()
        || seen
            .cluster
            .as_ref()
            .is_ok_and(|scene| scene.pods.iter().all(is_new))
}

fn moves_leadership(seen: &Observed) -> bool {
    is_restarted(seen) && seen.cluster.as_ref().is_ok_and(|scene| scene.replicas > 1)
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
        |seen| seen.request.spec.type_ == OpsType::Restart,
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
        |seen| rotates_certificates(&seen.request.spec),
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

/// The status that says what was decided, and what is news in it. The status is the old one where
/// there is nothing to tell.
#[must_use]
pub fn record(
    seen: &Observed,
    decision: &Decision,
    now: Timestamp,
) -> (PostgresOpsRequestStatus, Vec<RequestEvent>) {
    let old = seen.request.status.clone().unwrap_or_default();
    let mut record = Record {
        seen,
        status: old.clone(),
        events: vec![],
        now,
    };
    match decision {
        Decision::Finish(_) | Decision::Rest(_) => return (old, vec![]),
        Decision::Wait { step: None, on, .. } => {
            record.status.phase = Some(OpsPhase::Pending);
            record.set(
                Condition::new("Pending", Time(now)).because("Waiting", format!("waits for {on}")),
            );
        }
        Decision::Act {
            step, what, begins, ..
        } => {
            record.status.phase = Some(OpsPhase::Progressing);
            record.begin();
            record.progress(step, *begins, what);
        }
        Decision::Wait {
            step: Some(step),
            on,
            begins,
        } => {
            let known = attempts::find_step(&old.steps, step);
            let is_worth_telling = known
                .and_then(|step| step.started_at.as_ref())
                .is_some_and(|started| after(started.0, WORTH_TELLING) <= now);
            let message = known
                .and_then(|step| step.message.clone())
                .filter(|_| !is_worth_telling && !begins);
            record.progress(
                step,
                *begins,
                &message.unwrap_or_else(|| format!("waits for {on}")),
            );
        }
        Decision::RollBack { cause } => {
            attempts::record_attempt(&mut record.status.steps, ROLLBACK, true, cause, now);
            record.events.push(RequestEvent {
                warning: true,
                on_database: true,
                ..RequestEvent::normal(ROLLBACK, format!("going back: {cause}"))
            });
        }
        Decision::Complete(outcome) => record.end(outcome),
    }
    record.status.observed_generation = seen.request.metadata.generation;
    let Record {
        mut status, events, ..
    } = record;
    let pods = pods(seen).unwrap_or_else(|| old.pods.clone());
    if status == old && lags(&pods) == lags(&old.pods) {
        return (old, events);
    }
    status.pods = pods;
    (status, events)
}

/// A status that is being written.
struct Record<'a> {
    seen: &'a Observed,
    status: PostgresOpsRequestStatus,
    events: Vec<RequestEvent>,
    now: Timestamp,
}

impl Record<'_> {
    fn set(&mut self, condition: Condition) {
        condition::set(
            &mut self.status.conditions,
            condition.of_generation(self.seen.request.metadata.generation),
        );
    }

    /// What is begun on is remembered from then on: never is another database touched, or a pod
    /// restarted twice.
    fn begin(&mut self) {
        if let (None, Some(database), Ok(pods)) =
            (&self.status.begun_on, &self.seen.database, &self.seen.pods)
        {
            let database_uid = database.uid().unwrap_or_default();
            self.status.begun_on = Some(BegunOn {
                database_uid,
                pods: pods.clone(),
            });
        }
    }

    fn progress(&mut self, step: &str, begins: bool, message: &str) {
        let now = self.now;
        if condition::holds(&self.status.conditions, "Pending") {
            let turn = Condition::new("Pending", Time(now)).with_status(false);
            self.set(turn.because("Began", "it is this request's turn"));
        }
        attempts::record_attempt(&mut self.status.steps, step, begins, message, now);
        if let Some(milestone) = Milestone::behind(step, &self.seen.request) {
            self.announce(milestone);
        }
        if begins {
            let tries =
                attempts::find_step(&self.status.steps, step).map_or(1, |step| step.attempts);
            let again = if tries > 1 {
                format!(" (try {tries})")
            } else {
                String::new()
            };
            let reason = StepKind::from_name(step).map_or(step, |kind| kind.as_str());
            self.events.push(RequestEvent {
                warning: tries > 1,
                ..RequestEvent::normal(reason, format!("{step}{again}: {message}"))
            });
        }
    }

    /// The conditions of everything up to this milestone.
    fn announce(&mut self, milestone: Milestone) {
        for announced in ANNOUNCED
            .iter()
            .filter(|a| a.after <= milestone && (a.applies)(self.seen))
        {
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
            self.events.push(RequestEvent {
                on_database: announced.type_.starts_with("Database"),
                ..event
            });
        }
    }

    fn end(&mut self, outcome: &Outcome) {
        attempts::finish_steps(&mut self.status.steps, None, self.now);
        let name = self.seen.request.name_any();
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
        let event = RequestEvent::normal(type_, format!("PostgresOpsRequest {name}: {message}"));
        self.events.push(RequestEvent {
            warning: phase == OpsPhase::Failed,
            on_database: true,
            ..event
        });
    }
}

/// A power of two of MiB, or nothing: less comes and goes with every write.
fn rounded(bytes: u64) -> String {
    let mib = bytes >> 20;
    format!("{}Mi", if mib == 0 { 0 } else { mib.next_power_of_two() })
}

/// Who is behind, and how far: while a standby catches up, that is what people look at.
fn lags(pods: &[PodStatus]) -> Vec<Option<&str>> {
    pods.iter()
        .map(|pod| pod.lag.as_deref().filter(|lag| *lag != "0Mi"))
        .collect()
}

/// The pods as people are shown them.
fn pods(seen: &Observed) -> Option<Vec<PodStatus>> {
    let scene = seen.cluster.as_ref().ok()?;
    let begun_on = seen.request.begun_on();
    let shown = scene.pods.iter().map(|pod| {
        let server = pod.server.as_ref().ok();
        let role = server.map(|server| {
            if server.in_recovery {
                "standby"
            } else {
                "primary"
            }
            .to_owned()
        });
        let leaf = server.and_then(|server| server.leaf.as_ref());
        PodStatus {
            name: pod.name.clone(),
            role,
            serving_serial: leaf.map(|leaf| leaf.serial.clone()),
            not_after: leaf.map(|leaf| Time(leaf.not_after)),
            trusts: server
                .map(|server| server.trusts.clone())
                .unwrap_or_default(),
            lag: scene.lag(&pod.name).map(rounded),
            restarted: begun_on.is_some_and(|begun_on| !begun_on.has_pod(&pod.uid)),
        }
    });
    Some(shown.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guide_explains_each_condition() {
        let guide = include_str!("../../../docs/operations.md");
        for announced in ANNOUNCED {
            assert!(
                guide.contains(&format!("`{}`", announced.type_)),
                "{}",
                announced.type_
            );
        }
    }
}
