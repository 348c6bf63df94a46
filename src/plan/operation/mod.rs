//! What to do next about a request: a pure function of one look and the time.
//!
//! # Expected flow
//! [`decide`], then [`record`](crate::plan::status::request::record) what it says, [plan its
//! writing](crate::plan::status::write_policy::StoredStatus::plan_write), then perform it, then
//! look again.
//!
//! ```text
//! wait for the turn -> hold -> preflight -> pause -> issue -> next_step to the target -> write the spec -> resume -> end
//!                                  |           any step that is exhausted: steer back to what the spec says -> resume -> end
//!                                  + nothing has been touched yet: end
//! ```
//!
//! # Guarantees
//! 1. Same look and time, same decision; what is not known leads to waiting.
//! 2. A step is done when the world shows it; the ledger only remembers times and tries.
//! 3. One disruption at a time: see [`next_step`].
//! 4. Every wait says on what.
//! 5. After a crash at any point the next decision is the same or a later one.
//! 6. Whatever the end, the database is resumed, and serves what its spec says as far as the world
//!    allows.
//!
//! # Assumptions
//! What is decided is recorded before it is performed; what is recorded and not written yet is what
//! this process sees next.
pub mod attempts;
pub mod goal;

use std::collections::BTreeSet;

use jiff::Timestamp;
use kube::ResourceExt;

use crate::api::annotations::{OPS_REQUEST_FINALIZER, TTL};
use crate::api::duration;
use crate::api::duration::after;
use crate::api::ops_request::{Apply, BegunOn, OpsPhase};
use crate::api::postgres::{DatabasePhase, PostgresSpec};
use crate::api::{Postgres, PostgresOpsRequest, StepKind};
use crate::pki::{CaId, Material};
use crate::tls::{Alias, Files, Method, PasswordEncryption, Posture, method, posture};

use crate::plan::action::Action;
use crate::plan::budgets::Budgets;
use crate::plan::observed::cluster::{Known, ObservedCluster};
use crate::plan::observed::{Issuance, LastFailure, Observed, ObservedCertificate, Paused, Trial};
use crate::plan::operation::attempts::{AttemptState, ROLLBACK, RetryPolicy};
use crate::plan::operation::goal::{issues_certificates, rotates_certificates, target_spec};
use crate::plan::rollout::grace;
use crate::plan::rollout::{Progress, next_step};

/// What is waited for where as many operations work as may.
pub const NO_SLOT: &str =
    "another operation to end: as many work in this cluster or namespace as may";

/// What is waited for where a request is to begin and nobody has asked for the pods yet.
pub const PODS_UNSEEN: &str = "a look at the pods";

/// The step that ends a way back which led nowhere.
const ROLLBACK_FAILED: &str = "RollbackFailed";

/// What to do next about a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Do this, then look again.
    Act {
        /// The step that it belongs to.
        step: String,
        /// What it is for, in words.
        what: String,
        /// In this order.
        actions: Vec<Action>,
        /// Whether a try of the step begins.
        begins: bool,
    },
    /// Wait for something to happen.
    Wait {
        /// The step that it belongs to; none before the request has begun.
        step: Option<String>,
        /// What is waited for, in words.
        on: String,
        /// Whether a try of the step begins.
        begins: bool,
    },
    /// Give up, and go back to what the spec says.
    RollBack {
        /// Why.
        cause: String,
    },
    /// Do this after the end; nothing is recorded any more.
    Finish(Vec<Action>),
    /// It is over.
    Complete(Outcome),
    /// Nothing is left to do, until then.
    Rest(Option<Timestamp>),
}

/// How a request has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done and proved.
    Successful,
    /// Not done; the text says why.
    Failed(String),
}

/// What is to be done, before anybody has looked at the clock.
enum Intent {
    Act {
        step: String,
        what: String,
        actions: Vec<Action>,
    },
    Wait {
        step: String,
        on: String,
    },
    /// It cannot be done as things are; another try begins with these actions.
    Fail {
        step: String,
        why: String,
        again: Vec<Action>,
    },
    End(Outcome),
}

impl Intent {
    fn act(step: impl Into<String>, what: &str, actions: Vec<Action>) -> Self {
        Self::Act {
            step: step.into(),
            what: what.to_owned(),
            actions,
        }
    }

    fn wait(step: impl Into<String>, on: impl Into<String>) -> Self {
        Self::Wait {
            step: step.into(),
            on: on.into(),
        }
    }

    fn fail(step: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Fail {
            step: step.into(),
            why: why.into(),
            again: vec![],
        }
    }

    fn from_progress(heading: Progress, prefix: &str, there: impl FnOnce() -> Self) -> Self {
        match heading {
            Progress::Reached => there(),
            Progress::Act {
                stage,
                what,
                actions,
            } => Self::Act {
                step: format!("{prefix}{stage}"),
                what,
                actions,
            },
            Progress::Wait { stage, on } => Self::Wait {
                step: format!("{prefix}{stage}"),
                on,
            },
        }
    }
}

/// What to do next.
#[must_use]
pub fn decide(seen: &Observed, now: Timestamp) -> Decision {
    let request = &seen.request;
    if request.is_finished() {
        return after_the_end(request, now);
    }
    let Some(database) = &seen.database else {
        return Decision::Complete(Outcome::Failed(format!(
            "there is no database {}, or no longer the one that this began on",
            request.spec.database_ref.name
        )));
    };
    if database.metadata.deletion_timestamp.is_some() {
        return Decision::Complete(Outcome::Failed("the database is being deleted".to_owned()));
    }
    if has_lost_its_claim(seen) {
        return begin(seen);
    }
    if !is_claimed(request) {
        return before_the_beginning(seen, database);
    }
    // Nothing comes before this any more.
    if let Some(step) = attempts::find_step(request.steps(), ROLLBACK_FAILED)
        .filter(|_| seen.paused == Paused::ByUs)
    {
        return resume(
            ROLLBACK_FAILED,
            step.message.clone().unwrap_or_default(),
            false,
        );
    }
    let intent = match rollback_cause(request) {
        Some(cause) => roll_back(seen, database, &cause),
        None if request.metadata.deletion_timestamp.is_some() => {
            return Decision::RollBack {
                cause: "the request was deleted".to_owned(),
            };
        }
        None => wait_for_clients(seen, advance(seen, database), now),
    };
    count_attempts(seen, intent, now)
}

fn after_the_end(request: &PostgresOpsRequest, now: Timestamp) -> Decision {
    if has_finalizer(request) {
        return Decision::Finish(vec![Action::RemoveFinalizer]);
    }
    let ttl = request
        .annotations()
        .get(TTL)
        .and_then(|text| duration::parse(text).ok());
    let conditions = request.status.iter().flat_map(|status| &status.conditions);
    let ended = conditions
        .map(|condition| &condition.last_transition_time)
        .max();
    let ended = ended.or(request.metadata.creation_timestamp.as_ref());
    match ttl.zip(ended).map(|(ttl, ended)| after(ended.0, ttl)) {
        Some(over) if over <= now => Decision::Finish(vec![Action::Delete]),
        over => Decision::Rest(over),
    }
}

fn before_the_beginning(seen: &Observed, database: &Postgres) -> Decision {
    let request = &seen.request;
    let wait = |on: String| Decision::Wait {
        step: None,
        on,
        begins: false,
    };
    if request.metadata.deletion_timestamp.is_some() {
        return if has_finalizer(request) {
            Decision::Finish(vec![Action::RemoveFinalizer])
        } else {
            Decision::Rest(None)
        };
    }
    if request.begun_on().is_some() {
        return begin(seen);
    }
    if let Some(other) = request.ahead(&seen.siblings).first() {
        return wait(format!(
            "{} to end, which is about the same database and came first",
            other.name_any()
        ));
    }
    // Only now: those ahead may have changed what is refused.
    if !seen.refused.is_empty() {
        return Decision::Complete(Outcome::Failed(seen.refused.join("; ")));
    }
    if seen.free_slots == 0 {
        return wait(NO_SLOT.to_owned());
    }
    if let Paused::ByOther(who) = &seen.paused {
        return wait(format!("the database to be resumed: {who}"));
    }
    let phase = database.status.as_ref().and_then(|status| status.phase);
    if request.spec.apply == Apply::IfReady && phase != Some(DatabasePhase::Ready) {
        let phase = phase.map_or("not known".to_owned(), |phase| format!("{phase:?}"));
        return wait(format!(
            "the database to be Ready; it is {phase} (apply: Always would not wait)"
        ));
    }
    begin(seen)
}

/// Whether a request has begun, and cannot vanish on the way.
fn is_claimed(request: &PostgresOpsRequest) -> bool {
    has_finalizer(request) && request.begun_on().is_some()
}

fn has_finalizer(request: &PostgresOpsRequest) -> bool {
    request
        .finalizers()
        .iter()
        .any(|finalizer| finalizer == OPS_REQUEST_FINALIZER)
}

/// Whether somebody has taken the finalizer away on the way, as who replaces a request by its
/// manifest does, or what it has begun on. The database that it has paused knows better. One that
/// is being deleted can be given no finalizer any more.
fn has_lost_its_claim(seen: &Observed) -> bool {
    let request = &seen.request;
    let can_be_held = request.metadata.deletion_timestamp.is_none() || has_finalizer(request);
    seen.paused == Paused::ByUs && !is_claimed(request) && can_be_held
}

/// Begins: on which database and pods is recorded, and then the request cannot vanish any more.
fn begin(seen: &Observed) -> Decision {
    let request = &seen.request;
    if request.begun_on().is_none() && seen.pods.is_err() {
        return Decision::Wait {
            step: None,
            on: PODS_UNSEEN.to_owned(),
            begins: false,
        };
    }
    let step = StepKind::Begin.to_string();
    let begins = attempts::find_step(request.steps(), &step).is_none();
    let what = with_last_failure(seen, &step, "take up the request");
    let actions = if has_finalizer(request) {
        vec![]
    } else {
        vec![Action::AddFinalizer]
    };
    Decision::Act {
        step,
        what,
        actions,
        begins,
    }
}

/// Why the operation was given up, if it was.
fn rollback_cause(request: &PostgresOpsRequest) -> Option<String> {
    attempts::find_step(request.steps(), ROLLBACK)
        .map(|step| step.message.clone().unwrap_or_default())
}

/// Lets clients catch up before the walk goes on without their old knowledge.
///
/// They get their time from the step before on. Where that was not this request's, because a
/// renewal has come so far already, from when they were last told something else.
fn wait_for_clients(seen: &Observed, intent: Intent, now: Timestamp) -> Intent {
    let before = |step: &str| match StepKind::from_name(step)? {
        StepKind::Migrate => Some(StepKind::Expand),
        StepKind::Contract => Some(StepKind::Migrate),
        _ => None,
    };
    let steps = seen.request.steps();
    match (
        &intent,
        grace::for_request(&seen.request, seen.database.as_deref()),
    ) {
        (Intent::Act { step, actions, .. }, Some(settle))
            if attempts::find_step(steps, step).is_none() =>
        {
            let before =
                before(step).and_then(|before| attempts::find_step(steps, before.as_str()));
            let of_the_step = before
                .and_then(|before| before.finished_at.as_ref().or(before.started_at.as_ref()))
                .map(|time| time.0);
            let scene = seen.cluster.as_ref().ok();
            let told = || {
                scene
                    .filter(|scene| grace::what_clients_need(scene, actions).is_some())?
                    .trust_changed_at
            };
            let until = of_the_step
                .or_else(told)
                .map(|since| grace::until(scene, since, settle));
            let is_too_soon = until.is_some_and(|until| now < until);
            if is_too_soon {
                Intent::wait(
                    StepKind::ClientGracePeriod,
                    "clients to take over what has changed",
                )
            } else {
                intent
            }
        }
        _ => intent,
    }
}

/// The way to what the request asks for.
fn advance(seen: &Observed, database: &Postgres) -> Intent {
    let request = &seen.request.spec;
    let desired = target_spec(&database.spec, request, seen.major);
    match &seen.paused {
        Paused::ByUs => {}
        Paused::ByOther(who) => {
            return Intent::wait(
                StepKind::Pause,
                format!("the database to be resumed: {who}"),
            );
        }
        Paused::No if database.spec == desired && is_done(seen, &desired) => {
            return Intent::End(Outcome::Successful);
        }
        Paused::No => {
            return preflight(seen, &desired).unwrap_or_else(|| match seen.free_slots {
                // Not in Preflight, whose patience would be used up by it.
                0 => Intent::wait(StepKind::Pause, NO_SLOT),
                _ => Intent::act(
                    StepKind::Pause,
                    "pause the database",
                    vec![Action::SetPaused(true)],
                ),
            });
        }
    }
    let scene = match &seen.cluster {
        Ok(scene) => scene,
        Err(why) => return Intent::wait(StepKind::Observe, format!("a look at the pods ({why})")),
    };
    let issued = match issue(seen, &desired, scene) {
        Ok(issued) => issued,
        Err(intent) => return intent,
    };
    let Some(target) = target(scene, &desired, seen.major, issued) else {
        return Intent::wait(StepKind::Issue, "the certificates");
    };
    Intent::from_progress(
        next_step(scene, &target, replaces(seen, &desired)),
        "",
        || {
            if database.spec == desired {
                return Intent::act(
                    StepKind::Resume,
                    "resume the database",
                    vec![Action::SetPaused(false)],
                );
            }
            Intent::act(
                StepKind::UpdateDatabase,
                "write the new spec",
                vec![Action::WriteSpec(Box::new(desired.clone()))],
            )
        },
    )
}

/// Whether everything is as the request asks for: it only has to be said.
fn is_done(seen: &Observed, desired: &PostgresSpec) -> bool {
    let Ok(scene) = &seen.cluster else {
        return false;
    };
    let Ok(issued) = issue(seen, desired, scene) else {
        return false;
    };
    let Some(target) = target(scene, desired, seen.major, issued) else {
        return false;
    };
    next_step(scene, &target, replaces(seen, desired)) == Progress::Reached
}

/// The posture at the end. Where nothing is issued, what is served is served on, and nobody's trust
/// is given up: a renewal may be on its way.
fn target(
    scene: &ObservedCluster,
    desired: &PostgresSpec,
    major: u32,
    issued: Option<Material>,
) -> Option<Posture> {
    match issued {
        Some(issued) => posture(desired, major, Some(&issued)),
        None => posture(desired, major, scene.in_secret.as_ref())
            .map(|target| keeping_trust(target, &scene.applied)),
    }
}

/// The pods that are replaced, if they are: a volume comes and goes with its pod, whatever the
/// request would rather have.
fn replaces<'a>(seen: &'a Observed, desired: &PostgresSpec) -> Option<&'a BegunOn> {
    let needs_new_pods = seen
        .database
        .as_ref()
        .is_some_and(|now| now.spec.tls.is_some() != desired.tls.is_some());
    seen.request
        .begun_on()
        .filter(|_| seen.request.restarts() || needs_new_pods)
}

/// What has to hold before anything is touched; nothing when it does.
fn preflight(seen: &Observed, desired: &PostgresSpec) -> Option<Intent> {
    const STEP: StepKind = StepKind::Preflight;
    let scene = match &seen.cluster {
        Ok(scene) => scene,
        Err(why) => return Some(Intent::wait(STEP, format!("a look at the pods ({why})"))),
    };
    if seen.request.spec.apply == Apply::IfReady
        && let Err(on) = is_sound(seen, scene, replaces(seen, desired).is_some())
    {
        return Some(Intent::wait(STEP, on));
    }
    if replaces(seen, desired).is_some()
        && let Err(on) = scene.keeps_data()
    {
        return Some(Intent::wait(STEP, on));
    }
    if replaces(seen, desired).is_some()
        && let Some(on) = seen
            .budgets
            .as_ref()
            .map_or_else(|why| Some(why.clone()), Budgets::in_the_way)
    {
        return Some(Intent::wait(STEP, on));
    }
    match locked_out(scene, desired, seen.major) {
        Err(on) => return Some(Intent::wait(STEP, on)),
        Ok(Some(why)) => return Some(Intent::fail(STEP, why)),
        Ok(None) => {}
    }
    if !issues_certificates(&seen.request.spec) {
        return None;
    }
    let issuance = match &seen.issuance {
        Ok(issuance) => issuance,
        Err(why) => return Some(Intent::wait(STEP, why.clone())),
    };
    if !issuance.conflicts.is_empty() {
        return Some(Intent::fail(
            STEP,
            format!(
                "{} is in the way: it belongs to somebody else",
                issuance.conflicts.join(", ")
            ),
        ));
    }
    if !issuance.not_ready.is_empty() {
        return Some(Intent::wait(STEP, issuance.not_ready.join("; ")));
    }
    match &issuance.trial {
        Trial::Passed(_) => None,
        trial => Some(try_issuers(STEP, trial)),
    }
}

/// Whether every pod is there and serves, and one of them may go where they are to be replaced;
/// else what is waited for.
fn is_sound(seen: &Observed, scene: &ObservedCluster, replaces: bool) -> Known<()> {
    if scene.pods.len() != scene.replicas {
        return Err(format!(
            "{} pods; there are {}",
            scene.replicas,
            scene.pods.len()
        ));
    }
    scene
        .pods
        .iter()
        .try_for_each(|pod| scene.serves_its_role(pod))?;
    match seen.budgets.as_ref().map(|budgets| budgets.own) {
        Err(why) => Err(why.clone()),
        Ok(Some(..1)) if scene.replicas > 1 && replaces => {
            Err("the PodDisruptionBudget to let a pod go".to_owned())
        }
        Ok(_) => Ok(()),
    }
}

/// What a trial that has not passed needs.
fn try_issuers(step: StepKind, trial: &Trial) -> Intent {
    match trial {
        Trial::Absent | Trial::Begun => Intent::act(
            step,
            "ask for a trial certificate",
            vec![Action::StartTrial],
        ),
        // What was refused stays refused: the issuer is asked anew.
        Trial::Failed(why) => Intent::Fail {
            step: step.into(),
            why: format!("the trial certificate: {why}"),
            again: vec![Action::EndTrial],
        },
        Trial::Pending | Trial::Passed(_) => Intent::wait(step, "the trial certificate"),
    }
}

/// Roles whose passwords would not be taken any more, in words; nothing if there are none.
fn locked_out(
    scene: &ObservedCluster,
    desired: &PostgresSpec,
    major: u32,
) -> Known<Option<String>> {
    let is_to_be_scram = method(desired, major) == Method::Scram;
    let is_scram = scene.applied.accept.plain.or(scene.applied.accept.tls) == Some(Method::Scram);
    if !is_to_be_scram || is_scram {
        return Ok(None);
    }
    let (_, primary) = scene.primary()?;
    Ok((!primary.md5_roles.is_empty()).then(|| {
        format!(
            "the passwords of {} are stored as MD5 and would not be taken by scram: set them anew with password_encryption = '{}' first",
            primary.md5_roles.join(", "),
            PasswordEncryption::Scram.as_str(),
        )
    }))
}

/// What is issued for the request: nothing if nothing is to be; or what has to be done or waited
/// for.
///
/// cert-manager issues into Secrets that users' pods may mount: whoever signs must be trusted by
/// every server before it is asked.
fn issue(
    seen: &Observed,
    desired: &PostgresSpec,
    scene: &ObservedCluster,
) -> Result<Option<Material>, Intent> {
    const STEP: StepKind = StepKind::Issue;
    if !issues_certificates(&seen.request.spec) {
        return Ok(None);
    }
    let issuance = match &seen.issuance {
        Ok(issuance) => issuance,
        Err(why) => return Err(Intent::wait(STEP, why.clone())),
    };
    let to_ask = to_ask(seen, desired, issuance);
    if !to_ask.is_empty() {
        let Trial::Passed(cas) = &issuance.trial else {
            return Err(try_issuers(STEP, &issuance.trial));
        };
        return Err(widen_trust(scene, cas)
            .unwrap_or_else(|| Intent::act(STEP, "ask for the certificates", to_ask)));
    }
    for (alias, certificate) in &issuance.certificates {
        let is_new = certificate
            .requested_at_revision
            .is_none_or(|asked| certificate.revision > asked);
        if certificate.issuing || !certificate.ready || !is_new {
            let why = certificate
                .failure
                .as_ref()
                .map(|why| format!(" ({why})"))
                .unwrap_or_default();
            return Err(Intent::wait(
                STEP,
                format!("the {} certificate{why}", alias.as_str()),
            ));
        }
    }
    let material = match &issuance.issued {
        None => return Err(Intent::wait(STEP, "the Secrets of the certificates")),
        Some(Err(why)) => return Err(Intent::fail(STEP, why.clone())),
        Some(Ok(material)) => *material,
    };
    if issuance.trial != Trial::Absent {
        return Err(Intent::act(STEP, "end the trial", vec![Action::EndTrial]));
    }
    Ok(Some(material))
}

/// What cert-manager has yet to be asked for: Certificates as the spec wants them; where they are
/// rotated, new ones.
fn to_ask(seen: &Observed, desired: &PostgresSpec, issuance: &Issuance) -> Vec<Action> {
    if !Alias::ALL
        .iter()
        .all(|alias| issuance.certificates.get(alias).is_some_and(|c| c.matches))
    {
        return vec![Action::RequestCertificates(Box::new(desired.clone()))];
    }
    let is_unasked = |certificate: &ObservedCertificate| match certificate.requested_at_revision {
        None => true,
        Some(asked) => {
            certificate.revision <= asked && !certificate.issuing && certificate.failure.is_none()
        }
    };
    let anew = issuance
        .certificates
        .iter()
        .filter(|(_, certificate)| is_unasked(certificate));
    let reissue = |(alias, certificate): (&Alias, &ObservedCertificate)| Action::Reissue {
        alias: *alias,
        revision: certificate
            .requested_at_revision
            .unwrap_or(certificate.revision),
    };
    if rotates_certificates(&seen.request.spec) {
        anew.map(reissue).collect()
    } else {
        vec![]
    }
}

/// Brings trust in these CAs to every server; nothing when it is there. A cluster without files
/// trusts nobody.
fn widen_trust(scene: &ObservedCluster, cas: &BTreeSet<CaId>) -> Option<Intent> {
    const STEP: StepKind = StepKind::Expand;
    let files = scene.applied.files.as_ref()?;
    let trust = files.trust.union(cas).copied().collect();
    let wider = Posture {
        files: Some(Files {
            trust,
            ..files.clone()
        }),
        ..scene.applied.clone()
    };
    match next_step(scene, &wider, None) {
        Progress::Reached => None,
        Progress::Act { what, actions, .. } => Some(Intent::act(STEP, &what, actions)),
        Progress::Wait { on, .. } => Some(Intent::wait(STEP, on)),
    }
}

/// The way back to what the spec says.
fn roll_back(seen: &Observed, database: &Postgres, cause: &str) -> Intent {
    let end = || {
        let given_up = attempts::find_step(seen.request.steps(), ROLLBACK_FAILED)
            .and_then(|step| step.message.as_deref());
        Intent::End(Outcome::Failed(
            given_up.map_or(cause.to_owned(), |how| format!("{cause}; {how}")),
        ))
    };
    let has_trial = seen
        .issuance
        .as_ref()
        .is_ok_and(|issuance| issuance.trial != Trial::Absent);
    let end_trial = || Intent::act("Rollback Trial", "end the trial", vec![Action::EndTrial]);
    if seen.paused != Paused::ByUs {
        // It was never paused, so nothing was touched; or it is resumed already, and goes on to its
        // spec by itself.
        return if has_trial { end_trial() } else { end() };
    }
    let scene = match &seen.cluster {
        Ok(scene) => scene,
        Err(why) => return Intent::wait("Rollback Observe", format!("a look at the pods ({why})")),
    };
    // Where the spec is the new one already, what is served belongs to it.
    let is_new = database.spec == target_spec(&database.spec, &seen.request.spec, seen.major);
    let material = if is_new && !rotates_certificates(&seen.request.spec) {
        scene.in_secret
    } else {
        scene.previous.or(scene.in_secret)
    };
    let origin = posture(&database.spec, seen.major, material.as_ref());
    let origin = origin.map_or_else(
        || scene.applied.clone(),
        |origin| keeping_trust(origin, &scene.applied),
    );
    Intent::from_progress(next_step(scene, &origin, None), "Rollback ", || {
        if has_trial {
            return end_trial();
        }
        Intent::act(
            "Rollback Resume",
            "resume the database",
            vec![Action::SetPaused(false)],
        )
    })
}

/// The same, without giving up anybody's trust: what has been issued by now, users' pods may show.
/// The renewal that follows, once what is issued is what the spec asks for, gives up what is not
/// needed.
fn keeping_trust(target: Posture, here: &Posture) -> Posture {
    let files = target.files.map(|files| Files {
        trust: files.trust.union(&here.trust()).copied().collect(),
        ..files
    });
    Posture { files, ..target }
}

/// Turns what is to be done into a decision: tries are counted, patience ends.
fn count_attempts(seen: &Observed, intent: Intent, now: Timestamp) -> Decision {
    let spec = &seen.request.spec;
    let patience = RetryPolicy::from_request(spec.timeout.as_deref(), spec.max_retries);
    let (step, failing) = match &intent {
        Intent::End(outcome) => return Decision::Complete(outcome.clone()),
        Intent::Act { step, .. } | Intent::Wait { step, .. } => (step.clone(), false),
        Intent::Fail { step, .. } => (step.clone(), true),
    };
    let standing = attempts::attempt_state(seen.request.steps(), &step, failing, patience, now);
    let known = attempts::find_step(seen.request.steps(), &step);
    // How long clients are given is for the request to say, and how long others work is not its
    // fault.
    let is_patient = step == StepKind::ClientGracePeriod.as_str()
        || matches!(&intent, Intent::Wait { on, .. } if on == NO_SLOT);
    // Nor did it try anything meanwhile: what comes after it is the first try.
    let has_got_a_place = matches!(&intent, Intent::Act { .. })
        && known
            .and_then(|step| step.message.as_deref())
            .is_some_and(|message| message.ends_with(NO_SLOT));
    if standing == AttemptState::Exhausted && !is_patient && !has_got_a_place {
        return give_up(seen, &step, &intent);
    }
    let begins =
        has_got_a_place || standing == AttemptState::Begins && !(known.is_some() && is_patient);
    match intent {
        Intent::Act {
            step,
            what,
            actions,
        } => {
            let what = with_last_failure(seen, &step, &what);
            Decision::Act {
                step,
                what,
                actions,
                begins,
            }
        }
        Intent::Wait { step, on } => Decision::Wait {
            step: Some(step),
            on,
            begins,
        },
        Intent::Fail { step, why, again } if begins && !again.is_empty() => Decision::Act {
            step,
            what: format!("begin another try: {why}"),
            actions: again,
            begins,
        },
        Intent::Fail { step, why, .. } => Decision::Wait {
            step: Some(step),
            on: format!("another try: {why}"),
            begins,
        },
        Intent::End(outcome) => Decision::Complete(outcome),
    }
}

/// What is done at a step, and why it could not be done so far.
fn with_last_failure(seen: &Observed, step: &str, what: &str) -> String {
    match seen
        .last_failure
        .as_ref()
        .filter(|hindrance| hindrance.step == step)
    {
        Some(LastFailure { why, .. }) => format!("{what} ({why})"),
        None => what.to_owned(),
    }
}

/// Forth turns back; back ends with what could be had: the database is never left paused.
fn give_up(seen: &Observed, step: &str, intent: &Intent) -> Decision {
    let what = match intent {
        Intent::Act { what, .. } => {
            format!(
                "{step}: could not {} in time",
                with_last_failure(seen, step, what)
            )
        }
        Intent::Wait { on, .. } => format!("{step}: waited in vain for {on}"),
        Intent::Fail { why, .. } => format!("{step}: {why}"),
        Intent::End(_) => step.to_owned(),
    };
    match rollback_cause(&seen.request) {
        None if step == StepKind::Resume.as_str() => {
            resume(step, "resume the database".to_owned(), true)
        }
        None => Decision::RollBack { cause: what },
        Some(_) if seen.paused == Paused::ByUs => {
            let what =
                format!("the database could not be brought back, and is resumed as it is ({what})");
            resume(ROLLBACK_FAILED, what, true)
        }
        Some(cause) => {
            Decision::Complete(Outcome::Failed(format!("{cause}; on the way back, {what}")))
        }
    }
}

fn resume(step: &str, what: String, begins: bool) -> Decision {
    Decision::Act {
        step: step.to_owned(),
        what,
        actions: vec![Action::SetPaused(false)],
        begins,
    }
}

/// Whether the request has begun and not ended: one of the operations that run in this cluster. Who
/// has lost its hold still does.
#[must_use]
pub fn is_running(request: &PostgresOpsRequest) -> bool {
    let has_begun = request.begun_on().is_some() || request.phase() == Some(OpsPhase::Progressing);
    has_begun && !request.is_finished()
}
