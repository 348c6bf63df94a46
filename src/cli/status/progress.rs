//! How far a request is, as lines for people: pure.

use jiff::Timestamp;
use k8s_openapi::api::events::v1::Event;
use kube::ResourceExt;

use crate::api::condition;
use crate::api::operation::Operation;
use crate::api::ops_request::{OpsPhase, PostgresOpsRequestSpec, PostgresOpsRequestStatus, Step};
use crate::api::step::{StepAttempt, StepId};
use crate::api::{PostgresOpsRequest, StepKind, bounds};
use crate::cli::output::{Cell, Detail, Screen, Tone, elapsed, expiry, serial};
use crate::cli::program_name::as_called;
use crate::plan::operation::attempts::{AttemptStart, find_step, record_attempt};
use crate::plan::status::request::message_of_attempt;

const BAR: usize = 30;

const UNSEEN: &str = "not seen by the operator yet; if this lasts, `pgrekey doctor` says why";

/// A step that operations may have: how long it takes beside the others, and which operations have
/// it.
struct StepWeight {
    step: StepKind,
    weight: u32,
    expected: fn(Operation) -> bool,
}

const fn step(step: StepKind, weight: u32, expected: fn(Operation) -> bool) -> StepWeight {
    StepWeight {
        step,
        weight,
        expected,
    }
}

const STEPS: [StepWeight; 10] = [
    step(StepKind::Begin, 1, |_| true),
    step(StepKind::Preflight, 1, Operation::issues_certificates),
    step(StepKind::Pause, 1, |_| true),
    step(StepKind::Issue, 1, Operation::issues_certificates),
    step(StepKind::Expand, 2, Operation::changes_spec),
    step(StepKind::MountCertificates, 1, |_| false),
    step(StepKind::Migrate, 2, Operation::changes_spec),
    step(StepKind::Contract, 2, Operation::is_about_tls),
    step(StepKind::UpdateDatabase, 1, Operation::changes_spec),
    step(StepKind::Resume, 1, |_| true),
];
const RESTART: u32 = 6;
const SWITCH_OVER: u32 = 2;

/// The operation of a request, in a few words.
pub(crate) fn words(spec: &PostgresOpsRequestSpec) -> String {
    match spec.operation() {
        Some(Operation::Remove) => "remove TLS".to_owned(),
        Some(Operation::Rotate) => "rotate the certificates".to_owned(),
        Some(Operation::Change) => "add or change TLS".to_owned(),
        Some(Operation::Restart) => "restart the pods".to_owned(),
        None => format!("{:?}", spec.type_),
    }
}

/// One line about what happens now: what is waited for, or how it ended.
pub(crate) fn now_happens(request: &PostgresOpsRequest) -> String {
    let Some(status) = &request.status else {
        return as_called(UNSEEN);
    };
    let said = |type_: &str| {
        let found =
            condition::find(&status.conditions, type_).filter(|condition| condition.holds())?;
        found.message.clone()
    };
    let step = status
        .steps
        .iter()
        .rev()
        .find(|step| step.finished_at.is_none());
    let doing = || {
        step.map(|step| {
            format!(
                "{}: {}",
                step.name,
                step.message.as_deref().unwrap_or("begins")
            )
        })
    };
    match status.phase {
        Some(OpsPhase::Successful) => "done, and proved on the wire".to_owned(),
        Some(OpsPhase::Failed) => said("Failed").unwrap_or_else(|| "no reason given".to_owned()),
        Some(OpsPhase::Pending) | None => said("Pending").unwrap_or_else(|| as_called(UNSEEN)),
        Some(_) => doing().unwrap_or_else(|| "between two steps".to_owned()),
    }
}

/// How much of a request is done, in percent.
fn percent(request: &PostgresOpsRequest, replicas: i32) -> u32 {
    let Some(status) = &request.status else {
        return 0;
    };
    if status.phase == Some(OpsPhase::Successful) {
        return 100;
    }
    let operation = request.spec.operation();
    // A volume goes with its pod, whatever strategy the request has.
    let restarts = request.restarts() || operation == Some(Operation::Remove);
    let restarts = if restarts {
        bounds::clamp_replicas(replicas).unsigned_abs()
    } else {
        0
    };
    let find = |kind: StepKind| find_step(&status.steps, &kind.into());
    let is_seen = |kind: StepKind| find(kind).is_some();
    let is_done = |kind: StepKind| find(kind).is_some_and(|step| step.finished_at.is_some());
    let is_over = is_seen(StepKind::Resume);

    let (mut done, mut all) = (0, 0);
    let mut count = |weight: u32, is_done: bool| {
        all += weight;
        done += if is_done || is_over { weight } else { 0 };
    };
    for StepWeight {
        step,
        weight,
        expected,
    } in STEPS
    {
        if operation.is_some_and(expected) || is_seen(step) {
            count(weight, is_done(step));
        }
    }
    if restarts > 1 || is_seen(StepKind::SwitchOver) {
        count(SWITCH_OVER, is_done(StepKind::SwitchOver));
    }
    let is_restart = |step: &&Step| {
        let id = step.name.parse::<StepId>();
        id.is_ok_and(|id| id.category() == StepKind::Restart)
    };
    let restarted = status
        .steps
        .iter()
        .filter(is_restart)
        .filter(|step| step.finished_at.is_some());
    let restarted = u32::try_from(restarted.count()).unwrap_or_default();
    for pod in 0..restarts.max(restarted) {
        count(RESTART, pod < restarted);
    }
    // The end is for the request to say.
    (100 * done / all.max(1)).min(99)
}

fn bar(percent: u32, screen: Screen, tone: Tone) -> String {
    let full = BAR * usize::try_from(percent).unwrap_or_default() / 100;
    let (done, left) = if screen.size.is_some() {
        ('\u{2588}', '\u{2591}')
    } else {
        ('#', '-')
    };
    let bar: String = (0..BAR)
        .map(|at| if at < full { done } else { left })
        .collect();
    screen.paint(tone, &bar)
}

fn tone(phase: Option<OpsPhase>) -> Tone {
    match phase {
        Some(OpsPhase::Successful) => Tone::Good,
        Some(OpsPhase::Failed | OpsPhase::Denied | OpsPhase::Skipped) => Tone::Bad,
        _ => Tone::Busy,
    }
}

/// When a request began, and when it ended.
fn span(status: &PostgresOpsRequestStatus, now: Timestamp) -> Option<(Timestamp, Timestamp)> {
    let first = status
        .steps
        .iter()
        .filter_map(|step| step.started_at.as_ref())
        .map(|time| time.0)
        .min()?;
    let last = status
        .steps
        .iter()
        .filter_map(|step| step.finished_at.as_ref())
        .map(|time| time.0)
        .max();
    let is_over = status.steps.iter().all(|step| step.finished_at.is_some());
    Some((
        first,
        last.filter(|_| is_over && status.phase.is_some_and(OpsPhase::is_final))
            .unwrap_or(now),
    ))
}

/// A try of a step that has begun, as an event says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StepEvent {
    at: Timestamp,
    attempt: StepAttempt,
    message: String,
}

impl StepEvent {
    /// Reads an event of a request; `None` if it is not about a try of a step.
    pub(crate) fn parse(event: &Event) -> Option<Self> {
        let attempt: StepAttempt = event.action.as_ref()?.parse().ok()?;
        let message = message_of_attempt(&attempt, event.note.as_ref()?).to_owned();
        let at = event.event_time.as_ref()?.0;
        Some(Self {
            at,
            attempt,
            message,
        })
    }
}

/// The request with the steps of its events: its status is written a little later.
pub(crate) fn with_events(
    request: &PostgresOpsRequest,
    events: &[StepEvent],
) -> PostgresOpsRequest {
    let mut request = request.clone();
    if request.is_finished() {
        return request;
    }
    let Some(status) = request.status.as_mut() else {
        return request;
    };
    // A step that is older than the newest step of the status and not in it was lost with a pgrekey
    // that was killed.
    let started = status
        .steps
        .iter()
        .filter_map(|step| step.started_at.as_ref());
    let newest = started.map(|time| time.0).max();
    let mut events: Vec<&StepEvent> = events
        .iter()
        .filter(|event| newest.is_none_or(|newest| event.at >= newest))
        .collect();
    events.sort_by_key(|event| event.at);
    for StepEvent {
        at,
        attempt: StepAttempt { step, attempt },
        message,
    } in events
    {
        if find_step(&status.steps, step).is_none_or(|known| known.attempts < *attempt) {
            record_attempt(&mut status.steps, step, AttemptStart::Begins, message, *at);
        }
    }
    request
}

/// All there is to say about a request.
pub(crate) fn lines(
    request: &PostgresOpsRequest,
    replicas: i32,
    now: Timestamp,
    detail: Detail,
    screen: Screen,
) -> Vec<String> {
    let nothing = PostgresOpsRequestStatus::default();
    let status = request.status.as_ref().unwrap_or(&nothing);
    let tone = tone(status.phase);
    let phase = status
        .phase
        .map_or("Pending".to_owned(), |phase| format!("{phase:?}"));
    let percent = percent(request, replicas);
    let took = span(status, now)
        .map(|(from, to)| elapsed(from, to))
        .unwrap_or_default();
    let head = format!(
        "{}/{}: {} of {}",
        request.namespace().unwrap_or_default(),
        request.name_any(),
        words(&request.spec),
        request.spec.database_ref.name
    );
    let bar = bar(percent, screen, tone);
    let phase = screen.paint(tone, &format!("{phase:<11}"));
    let mut lines = vec![
        screen.line(Tone::Strong, &head),
        format!("{phase}  {bar} {percent:>3}%  {took}")
            .trim_end()
            .to_owned(),
    ];
    lines.extend(screen.wrap(
        if tone == Tone::Bad { tone } else { Tone::Plain },
        &now_happens(request),
    ));
    if let Some(rollback) = find_step(&status.steps, &StepKind::Rollback.into()) {
        let cause = rollback.message.as_deref().unwrap_or("no reason given");
        lines.extend(screen.wrap(Tone::Bad, &format!("given up; rolled back: {cause}")));
    }
    if !status.steps.is_empty() {
        lines.push(String::new());
        let rows: Vec<Vec<Cell>> = status
            .steps
            .iter()
            .map(|step| row(step, now, status.phase.is_some_and(OpsPhase::is_final)))
            .collect();
        lines.extend(screen.table(&["", "STEP", "TIME", "TRIES", "LAST"], &rows));
    }
    if !status.pods.is_empty() {
        lines.push(String::new());
        lines.extend(pods(status, now, detail, screen));
    }
    lines
}

fn row(step: &Step, now: Timestamp, is_over: bool) -> Vec<Cell> {
    let is_done = step.finished_at.is_some();
    let mark = if step.name == StepKind::Rollback.as_str() {
        Cell::new(Tone::Bad, "!")
    } else if is_done {
        Cell::new(Tone::Good, "+")
    } else {
        Cell::new(if is_over { Tone::Bad } else { Tone::Busy }, ">")
    };
    let end = step.finished_at.as_ref().map_or(now, |time| time.0);
    let time = step
        .started_at
        .as_ref()
        .map(|time| elapsed(time.0, end))
        .unwrap_or_default();
    let tries = Cell::new(
        if step.attempts > 1 {
            Tone::Busy
        } else {
            Tone::Plain
        },
        step.attempts.to_string(),
    );
    let said = Cell::new(
        if is_done { Tone::Dim } else { Tone::Plain },
        step.message.clone().unwrap_or_default(),
    );
    vec![mark, step.name.as_str().into(), time.into(), tries, said]
}

fn pods(
    status: &PostgresOpsRequestStatus,
    now: Timestamp,
    detail: Detail,
    screen: Screen,
) -> Vec<String> {
    let rows: Vec<Vec<Cell>> = status
        .pods
        .iter()
        .map(|pod| {
            let role = match pod.role.as_deref() {
                Some("primary") => Cell::new(Tone::Strong, "primary"),
                Some(role) => role.into(),
                None => Cell::new(Tone::Busy, "away"),
            };
            let serves = pod
                .serving_serial
                .as_ref()
                .map_or("plaintext".to_owned(), |number| serial(number, detail));
            let serves = if pod.role.is_none() {
                Cell::default()
            } else {
                serves.into()
            };
            let lag = pod
                .lag
                .as_deref()
                .map(|lag| if lag == "0Mi" { "0" } else { lag })
                .unwrap_or_default();
            let end = pod
                .not_after
                .as_ref()
                .map(|time| expiry(now, time.0))
                .unwrap_or_default();
            let new = if pod.restarted { "yes" } else { "no" };
            vec![
                pod.name.as_str().into(),
                role,
                lag.into(),
                serves,
                end,
                new.into(),
                pod.trusts.join(", ").into(),
            ]
        })
        .collect();
    screen.table(
        &[
            "POD",
            "ROLE",
            "LAG",
            "SERVES",
            "UNTIL",
            "RESTARTED",
            "TRUSTS",
        ],
        &rows,
    )
}

/// What is new since a request was last looked at, one line each: for output that is no terminal.
pub(crate) fn news(
    before: Option<&PostgresOpsRequest>,
    after: &PostgresOpsRequest,
    now: Timestamp,
) -> Vec<String> {
    let status =
        |request: Option<&PostgresOpsRequest>| request.and_then(|request| request.status.clone());
    let (old, new) = (
        status(before).unwrap_or_default(),
        status(Some(after)).unwrap_or_default(),
    );
    let time = now.to_string();
    let time = time
        .split(['T', '.', 'Z'])
        .nth(1)
        .unwrap_or_default()
        .to_owned();
    let mut lines: Vec<String> = vec![];
    for step in &new.steps {
        let known = old.steps.iter().find(|known| known.name == step.name);
        let said = step.message.as_deref().unwrap_or("begins");
        match step.finished_at {
            Some(_) if known.is_none_or(|known| known.finished_at.is_none()) => {
                lines.push(format!("{time} {}: done", step.name));
            }
            None if known.is_none_or(|known| {
                known.message != step.message || known.finished_at.is_some()
            }) =>
            {
                lines.push(format!("{time} {}: {said}", step.name));
            }
            _ => {}
        }
    }
    if new.phase != old.phase
        || before.is_none()
        || (lines.is_empty() && new.phase == Some(OpsPhase::Pending))
    {
        let phase = new
            .phase
            .map_or("Pending".to_owned(), |phase| format!("{phase:?}"));
        lines.push(format!("{time} {phase}: {}", now_happens(after)));
    }
    lines
}

#[cfg(test)]
mod tests;
