//! What people are told about a request: phase, conditions, steps, pods and events, all derived from decisions.
//!
//! Conditions and events are never read back. Words and order are KubeDB's where it has them.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use crate::api::condition::{self, Condition};
use crate::api::ops_request::{OpsPhase, OpsType, PodStatus, PostgresOpsRequestStatus};

use super::decide::{Decision, Observed, Outcome};
use super::ends::{issues, rotates};
use super::ledger::{self, TURN_BACK};

/// What a step waits for is told once it has waited this long: most waits are over before.
const WORTH_TELLING: Duration = Duration::from_secs(5);

/// One line for the history of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// One word for programs.
    pub reason: String,
    /// One sentence for people.
    pub message: String,
    /// Whether something went wrong.
    pub warning: bool,
    /// Whether the database's history has it too.
    pub on_database: bool,
}

impl Event {
    fn normal(reason: &str, message: String) -> Self {
        Self { reason: reason.to_owned(), message, warning: false, on_database: false }
    }
}

/// How far a request is on its way; a condition comes true when the way has come to its milestone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Milestone {
    Begun,
    Paused,
    Issued,
    Walked,
    Resumed,
}

impl Milestone {
    /// The milestone that is behind whoever is at this step.
    fn behind(step: &str) -> Option<Self> {
        Some(match step {
            "Begin" | "Preflight" | "Pause" => Self::Begun,
            "Issue" => Self::Paused,
            "Equip" | "Expand" | "Settle" | "Migrate" | "Contract" | "SwitchOver" => Self::Issued,
            "UpdateDatabase" | "Resume" => Self::Walked,
            restart if restart.starts_with("Restart ") => Self::Issued,
            _ => return None,
        })
    }
}

/// A condition of KubeDB's: type and reason, message, and when it comes true.
struct Announced {
    type_: &'static str,
    message: &'static str,
    after: Milestone,
    applies: fn(&Observed) -> bool,
}

const ANNOUNCED: &[Announced] = &[
    Announced {
        type_: "ReconfigureTLS",
        message: "Postgres ops request is reconfiguring TLS",
        after: Milestone::Begun,
        applies: |seen| seen.request.spec.type_ == OpsType::ReconfigureTLS,
    },
    Announced {
        type_: "Restart",
        message: "Postgres ops request is restarting nodes",
        after: Milestone::Begun,
        applies: |seen| seen.request.spec.type_ == OpsType::Restart,
    },
    Announced {
        type_: "DatabasePauseSucceeded",
        message: "Successfully paused database",
        after: Milestone::Paused,
        applies: |_| true,
    },
    Announced {
        type_: "IssueCertificatesSucceeded",
        message: "Successfully added the issuing condition to all the certificates",
        after: Milestone::Issued,
        applies: |seen| rotates(&seen.request.spec),
    },
    Announced {
        type_: "CertificateSynced",
        message: "Successfully synced all certificates",
        after: Milestone::Issued,
        applies: |seen| issues(&seen.request.spec),
    },
    Announced {
        type_: "UpdatePetSets",
        message: "Successfully reconciled the Postgres with TLS",
        after: Milestone::Walked,
        applies: |seen| seen.request.spec.type_ == OpsType::ReconfigureTLS,
    },
    Announced {
        type_: "RestartNodes",
        message: "Successfully restarted all nodes",
        after: Milestone::Walked,
        applies: |seen| super::decide::restart(&seen.request).is_some(),
    },
    Announced {
        type_: "ReloadTLS",
        message: "Successfully reloaded all nodes, without a restart",
        after: Milestone::Walked,
        applies: |seen| super::decide::restart(&seen.request).is_none(),
    },
    Announced {
        type_: "DatabaseResumeSucceeded",
        message: "Successfully resumed database",
        after: Milestone::Resumed,
        applies: |_| true,
    },
];

/// The status that says what was decided, and what is news in it. The status is the old one where there is nothing to tell.
#[must_use]
pub fn record(seen: &Observed, decision: &Decision, now: Timestamp) -> (PostgresOpsRequestStatus, Vec<Event>) {
    let old = seen.request.status.clone().unwrap_or_default();
    let mut status = old.clone();
    let mut events = vec![];
    match decision {
        Decision::Finish(_) | Decision::Rest(_) => return (old, events),
        Decision::Wait { step: None, on, .. } => {
            status.phase = Some(OpsPhase::Pending);
            let waiting = Condition::new("Pending", Time(now)).because("Waiting", format!("waits for {on}"));
            condition::set(&mut status.conditions, waiting.of_generation(seen.request.metadata.generation));
        }
        Decision::Act { step, what, begins, .. } => {
            status.phase = Some(OpsPhase::Progressing);
            progress(seen, &mut status, &mut events, step, *begins, what, now);
        }
        Decision::Wait { step: Some(step), on, begins, .. } => {
            let is_worth_telling = ledger::find(&old.steps, step)
                .and_then(|step| step.started_at.as_ref())
                .is_some_and(|started| started.0 + WORTH_TELLING <= now);
            let known = ledger::find(&old.steps, step).and_then(|step| step.message.clone());
            let message = known.filter(|_| !is_worth_telling && !begins).unwrap_or_else(|| format!("waits for {on}"));
            progress(seen, &mut status, &mut events, step, *begins, &message, now);
        }
        Decision::Turn { cause } => {
            ledger::note(&mut status.steps, TURN_BACK, true, cause, now);
            events.push(Event {
                warning: true,
                on_database: true,
                ..Event::normal(TURN_BACK, format!("going back: {cause}"))
            });
        }
        Decision::End(outcome) => end(seen, &mut status, &mut events, outcome, now),
    }
    status.observed_generation = seen.request.metadata.generation;
    if status == old {
        return (old, events);
    }
    status.pods = pods(seen).unwrap_or(status.pods);
    (status, events)
}

fn progress(
    seen: &Observed,
    status: &mut PostgresOpsRequestStatus,
    events: &mut Vec<Event>,
    step: &str,
    begins: bool,
    message: &str,
    now: Timestamp,
) {
    if condition::holds(&status.conditions, "Pending") {
        let turn =
            Condition::new("Pending", Time(now)).with_status(false).because("Began", "it is this request's turn");
        condition::set(&mut status.conditions, turn.of_generation(seen.request.metadata.generation));
    }
    ledger::note(&mut status.steps, step, begins, message, now);
    if let Some(milestone) = Milestone::behind(step) {
        announce(seen, status, events, milestone, now);
    }
    if begins {
        let tries = ledger::find(&status.steps, step).map_or(1, |step| step.attempts);
        let again = if tries > 1 { format!(" (try {tries})") } else { String::new() };
        let word: String = step.split_whitespace().next().unwrap_or(step).to_owned();
        events.push(Event { warning: tries > 1, ..Event::normal(&word, format!("{step}{again}: {message}")) });
    }
}

/// The conditions of everything up to this milestone.
fn announce(
    seen: &Observed,
    status: &mut PostgresOpsRequestStatus,
    events: &mut Vec<Event>,
    milestone: Milestone,
    now: Timestamp,
) {
    let generation = seen.request.metadata.generation;
    for announced in ANNOUNCED.iter().filter(|announced| announced.after <= milestone && (announced.applies)(seen)) {
        if condition::holds(&status.conditions, announced.type_) {
            continue;
        }
        let new = Condition::new(announced.type_, Time(now)).because(announced.type_, announced.message);
        condition::set(&mut status.conditions, new.of_generation(generation));
        let event = Event::normal(announced.type_, announced.message.to_owned());
        events.push(Event { on_database: announced.type_.starts_with("Database"), ..event });
    }
}

fn end(
    seen: &Observed,
    status: &mut PostgresOpsRequestStatus,
    events: &mut Vec<Event>,
    outcome: &Outcome,
    now: Timestamp,
) {
    ledger::finish(&mut status.steps, None, now);
    let name = seen.request.name_any();
    let (phase, type_, message) = match outcome {
        Outcome::Successful => {
            announce(seen, status, events, Milestone::Resumed, now);
            (OpsPhase::Successful, "Successful", "Successfully completed the modification process.".to_owned())
        }
        Outcome::Failed(why) => (OpsPhase::Failed, "Failed", why.clone()),
    };
    status.phase = Some(phase);
    let over = Condition::new(type_, Time(now)).because(type_, message.clone());
    condition::set(&mut status.conditions, over.of_generation(seen.request.metadata.generation));
    let is_failure = phase == OpsPhase::Failed;
    let event = Event::normal(type_, format!("PostgresOpsRequest {name}: {message}"));
    events.push(Event { warning: is_failure, on_database: true, ..event });
}

/// The pods as people are shown them.
fn pods(seen: &Observed) -> Option<Vec<PodStatus>> {
    let scene = seen.scene.as_ref().ok()?;
    let uid = seen.request.uid();
    let shown = scene.pods.iter().map(|pod| {
        let server = pod.server.as_ref().ok();
        let role = server.map(|server| if server.standby { "standby" } else { "primary" }.to_owned());
        let leaf = server.and_then(|server| server.leaf.as_ref());
        PodStatus {
            name: pod.name.clone(),
            role,
            serving_serial: leaf.map(|leaf| leaf.serial.clone()),
            not_after: leaf.map(|leaf| Time(leaf.not_after)),
            trusts: server.map(|server| server.trusts.clone()).unwrap_or_default(),
            restarted: uid.is_some() && pod.made_of.restart == uid,
        }
    });
    Some(shown.collect())
}
