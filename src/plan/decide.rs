//! What to do next about a request: a pure function of one look and the time.
//!
//! # Expected flow
//! [`decide`], then [`record`](super::status::record) what it says, [`save`](super::draft::save) that, then perform it, then look
//! again.
//!
//! ```text
//! wait for the turn -> hold -> preflight -> pause -> issue -> steer to what is wished -> write the spec -> resume -> end
//!                                  |           any step that is exhausted: steer back to what the spec says -> resume -> end
//!                                  + nothing has been touched yet: end
//! ```
//!
//! # Guarantees
//! 1. Same look and time, same decision; what is not known leads to waiting.
//! 2. A step is done when the world shows it; the ledger only remembers times and tries.
//! 3. One disruption at a time: see [`steer`](super::steer::steer).
//! 4. Every wait says on what, and until when.
//! 5. After a crash at any point the next decision is the same or a later one.
//! 6. Whatever the end, the database is resumed, and serves what its spec says as far as the world allows.
//!
//! # Assumptions
//! What is decided is recorded before it is performed; what is recorded and not written yet is what this process sees next.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt;

use crate::api::ops_request::{Apply, OpsPhase};
use crate::api::postgres::{DatabasePhase, PostgresSpec};
use crate::api::{Postgres, PostgresOpsRequest};
use crate::tls::{Alias, CaId, Files, Hash, Material, Method, Posture, method, posture};

use super::action::Action;
use super::ends::{issues, rotates, wished};
use super::ledger::{self, Patience, Standing, TURN_BACK};
use super::queue::ahead;
use super::scene::{Known, Scene};
use super::steer::{Heading, steer};

/// Annotation of a request: how pods take over what changes, `Restart` (the default) or `Reload`.
pub const STRATEGY: &str = "pgrekey.dev/strategy";
/// Annotation of a request: how long clients get to see whom to trust before a leaf of another CA is served, and to take over their
/// own new certificate before the old CA is trusted no more; as a Go duration. Pods see a changed volume within about a minute.
/// No time at all if it is not there.
pub const SETTLE: &str = "pgrekey.dev/settle";
/// Annotation of a request: how long it is kept after its end, as a Go duration. For ever if it is not there.
pub const TTL: &str = "pgrekey.dev/ttl-after-finished";
/// Annotation of a request: the uid of the database that it has begun on.
pub const HELD: &str = "pgrekey.dev/database-uid";
/// The finalizer of a request that has begun.
pub const FINALIZER: &str = "pgrekey.dev/ops-request";

/// The last step, after which there is no way back.
const RESUME: &str = "Resume";

/// Everything that a decision may depend on, but for the time.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The request.
    pub request: Arc<PostgresOpsRequest>,
    /// Its database; nothing if there is none, or another one than the request has begun on.
    pub database: Option<Arc<Postgres>>,
    /// Every request of the database.
    pub siblings: Vec<Arc<PostgresOpsRequest>>,
    /// How many more operations may run in this cluster now.
    pub places: usize,
    /// What the rules refuse about the request.
    pub refused: Vec<String>,
    /// PostgreSQL's major version.
    pub major: u32,
    /// Who has paused the database.
    pub paused: Paused,
    /// What is known about issuing.
    pub issuance: Known<Issuance>,
    /// What is known about the pods.
    pub scene: Known<Scene>,
    /// How many pods the disruption budget lets go now; nothing if there is no budget.
    pub disruptions: Known<Option<i32>>,
}

/// Who has paused a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Paused {
    /// Nobody.
    No,
    /// This request.
    ByUs,
    /// Somebody else, in their words.
    ByOther(String),
}

/// What is known about issuing, for the spec that the request asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Issuance {
    /// Issuers that are not ready, and why.
    pub not_ready: Vec<String>,
    /// The trial.
    pub trial: Trial,
    /// Objects of other people that have the names of what would be issued.
    pub in_the_way: Vec<String>,
    /// The Certificates.
    pub certificates: BTreeMap<Alias, Certificate>,
    /// What has been issued, verified; or what is wrong with it.
    pub issued: Option<Known<Material>>,
}

/// A certificate from each issuer that is asked for nothing but to see that it would issue one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Trial {
    /// There is none.
    #[default]
    Absent,
    /// It is waited for.
    Pending,
    /// It was issued and is good; these CAs have signed.
    Passed(BTreeSet<CaId>),
    /// It was refused, or is not good.
    Failed(String),
}

/// One Certificate of cert-manager's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Certificate {
    /// Its spec is the one that is asked for.
    pub matches: bool,
    /// It is Ready, for this generation, and from the issuer that is asked for.
    pub ready: bool,
    /// It is being issued.
    pub issuing: bool,
    /// How often it was issued.
    pub revision: i64,
    /// The revision that this request has asked to be followed by another one.
    pub asked: Option<i64>,
    /// Why the last try failed, and when cert-manager tries again.
    pub failure: Option<String>,
}

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
        /// When the step is given up, or tried again.
        until: Option<Timestamp>,
        /// Whether a try of the step begins.
        begins: bool,
    },
    /// Give up, and go back to what the spec says.
    Turn {
        /// Why.
        cause: String,
    },
    /// Do this after the end; nothing is recorded any more.
    Finish(Vec<Action>),
    /// It is over.
    End(Outcome),
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
    Act { step: String, what: String, actions: Vec<Action> },
    Wait { step: String, on: String },
    Fail { step: String, why: String },
    End(Outcome),
}

impl Intent {
    fn act(step: &str, what: &str, actions: Vec<Action>) -> Self {
        Self::Act { step: step.to_owned(), what: what.to_owned(), actions }
    }

    fn wait(step: &str, on: impl Into<String>) -> Self {
        Self::Wait { step: step.to_owned(), on: on.into() }
    }

    fn fail(step: &str, why: impl Into<String>) -> Self {
        Self::Fail { step: step.to_owned(), why: why.into() }
    }

    fn of(heading: Heading, prefix: &str, there: impl FnOnce() -> Self) -> Self {
        match heading {
            Heading::There => there(),
            Heading::Do { stage, what, actions } => Self::Act { step: format!("{prefix}{stage}"), what, actions },
            Heading::Wait { stage, on } => Self::Wait { step: format!("{prefix}{stage}"), on },
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
    let is_held = request.finalizers().iter().any(|finalizer| finalizer == FINALIZER);
    let Some(database) = &seen.database else {
        return Decision::End(Outcome::Failed("the database is gone".to_owned()));
    };
    if database.metadata.deletion_timestamp.is_some() {
        return Decision::End(Outcome::Failed("the database is being deleted".to_owned()));
    }
    if !is_held {
        return before_the_beginning(seen, database);
    }
    let intent = match cause_to_turn(request) {
        Some(cause) => back(seen, database, &cause),
        None if request.metadata.deletion_timestamp.is_some() => {
            return Decision::Turn { cause: "the request was deleted".to_owned() };
        }
        None => settled(request, forth(seen, database), now),
    };
    by_the_clock(seen, intent, now)
}

fn after_the_end(request: &PostgresOpsRequest, now: Timestamp) -> Decision {
    if request.finalizers().iter().any(|finalizer| finalizer == FINALIZER) {
        return Decision::Finish(vec![Action::Release]);
    }
    let ttl = request.annotations().get(TTL).and_then(|text| crate::api::duration::parse(text).ok());
    let ended =
        request.status.as_ref().and_then(|status| status.steps.iter().filter_map(|s| s.finished_at.as_ref()).max());
    let ended = ended.or(request.metadata.creation_timestamp.as_ref());
    match (ttl, ended) {
        (Some(ttl), Some(ended)) if ended.0 + ttl <= now => Decision::Finish(vec![Action::Delete]),
        (Some(ttl), Some(ended)) => Decision::Rest(Some(ended.0 + ttl)),
        _ => Decision::Rest(None),
    }
}

fn before_the_beginning(seen: &Observed, database: &Postgres) -> Decision {
    let request = &seen.request;
    let wait = |on: String| Decision::Wait { step: None, on, until: None, begins: false };
    if request.metadata.deletion_timestamp.is_some() {
        return Decision::Rest(None);
    }
    if let Some(other) = ahead(request, &seen.siblings) {
        return wait(format!("{} to end, which is about the same database and came first", other.name_any()));
    }
    // Only now: those ahead may have changed what is refused.
    if !seen.refused.is_empty() {
        return Decision::End(Outcome::Failed(seen.refused.join("; ")));
    }
    if seen.places == 0 {
        return wait("another operation to end: as many run in this cluster as may".to_owned());
    }
    if let Paused::ByOther(who) = &seen.paused {
        return wait(format!("the database to be resumed: {who}"));
    }
    let phase = database.status.as_ref().and_then(|status| status.phase);
    if request.spec.apply == Apply::IfReady && phase != Some(DatabasePhase::Ready) {
        let phase = phase.map_or("not known".to_owned(), |phase| format!("{phase:?}"));
        return wait(format!("the database to be Ready; it is {phase} (apply: Always would not wait)"));
    }
    Decision::Act {
        step: "Begin".to_owned(),
        what: "hold the request".to_owned(),
        actions: vec![Action::Hold],
        begins: true,
    }
}

/// Why the operation was given up, if it was.
fn cause_to_turn(request: &PostgresOpsRequest) -> Option<String> {
    let steps = request.status.as_ref().map(|status| status.steps.as_slice()).unwrap_or_default();
    ledger::find(steps, TURN_BACK).map(|step| step.message.clone().unwrap_or_default())
}

/// Lets clients catch up before the walk goes on without their old knowledge.
fn settled(request: &PostgresOpsRequest, intent: Intent, now: Timestamp) -> Intent {
    let after = |step: &str| match step {
        "Migrate" => Some("Expand"),
        "Contract" => Some("Migrate"),
        _ => None,
    };
    let settle = request.annotations().get(SETTLE).and_then(|text| crate::api::duration::parse(text).ok());
    let steps = request.status.as_ref().map(|status| status.steps.as_slice()).unwrap_or_default();
    match (&intent, settle) {
        (Intent::Act { step, .. }, Some(settle)) if ledger::find(steps, step).is_none() => {
            let before = after(step).and_then(|before| ledger::find(steps, before));
            let since = before.and_then(|before| before.finished_at.as_ref().or(before.started_at.as_ref()));
            let is_too_soon = since.is_some_and(|since| now < since.0 + settle);
            if is_too_soon { Intent::wait("Settle", "clients to take over what has changed") } else { intent }
        }
        _ => intent,
    }
}

/// The way to what the request asks for.
fn forth(seen: &Observed, database: &Postgres) -> Intent {
    let request = &seen.request.spec;
    let wished = wished(&database.spec, request, seen.major);
    match &seen.paused {
        Paused::ByUs => {}
        Paused::ByOther(who) => return Intent::wait("Pause", format!("the database to be resumed: {who}")),
        Paused::No if database.spec == wished && is_done(seen, &wished) => return Intent::End(Outcome::Successful),
        Paused::No => {
            let pause = || Intent::act("Pause", "pause the database", vec![Action::SetPaused(true)]);
            return preflight(seen, &wished).unwrap_or_else(pause);
        }
    }
    let scene = match &seen.scene {
        Ok(scene) => scene,
        Err(why) => return Intent::wait("Look", format!("a look at the pods ({why})")),
    };
    let issued = match issue(seen, &wished, scene) {
        Ok(issued) => issued,
        Err(intent) => return intent,
    };
    let Some(target) = target(scene, &wished, seen.major, issued) else {
        return Intent::wait("Issue", "the certificates");
    };
    Intent::of(steer(scene, &target, restart(&seen.request).as_deref()), "", || {
        if database.spec == wished {
            return Intent::act(RESUME, "resume the database", vec![Action::SetPaused(false)]);
        }
        Intent::act("UpdateDatabase", "write the new spec", vec![Action::WriteSpec(Box::new(wished.clone()))])
    })
}

/// Whether everything is as the request asks for: it only has to be said.
fn is_done(seen: &Observed, wished: &PostgresSpec) -> bool {
    let Ok(scene) = &seen.scene else { return false };
    let Ok(issued) = issue(seen, wished, scene) else { return false };
    let Some(target) = target(scene, wished, seen.major, issued) else { return false };
    steer(scene, &target, restart(&seen.request).as_deref()) == Heading::There
}

/// The posture at the end. Where nothing is issued, what is served is served on.
fn target(scene: &Scene, wished: &PostgresSpec, major: u32, issued: Option<Material>) -> Option<Posture> {
    posture(wished, major, issued.or(scene.stored).as_ref())
}

/// In whose name the pods are replaced; nothing where they are only reloaded.
#[must_use]
pub fn restart(request: &PostgresOpsRequest) -> Option<String> {
    let reloads = request.annotations().get(STRATEGY).is_some_and(|strategy| strategy == "Reload");
    let is_restart = request.spec.type_ == crate::api::ops_request::OpsType::Restart;
    (is_restart || !reloads).then(|| request.uid().unwrap_or_default())
}

/// What has to hold before anything is touched; nothing when it does.
fn preflight(seen: &Observed, wished: &PostgresSpec) -> Option<Intent> {
    const STEP: &str = "Preflight";
    let scene = match &seen.scene {
        Ok(scene) => scene,
        Err(why) => return Some(Intent::wait(STEP, format!("a look at the pods ({why})"))),
    };
    if scene.pods.len() != scene.replicas {
        return Some(Intent::wait(STEP, format!("{} pods; there are {}", scene.replicas, scene.pods.len())));
    }
    if seen.request.spec.apply == Apply::IfReady
        && let Err(on) = scene.pods.iter().try_for_each(|pod| scene.serves_its_role(pod))
    {
        return Some(Intent::wait(STEP, on));
    }
    if let Some(why) = locked_out(scene, wished, seen.major) {
        return Some(Intent::fail(STEP, why));
    }
    match &seen.disruptions {
        Err(why) => return Some(Intent::wait(STEP, why.clone())),
        Ok(Some(..1)) if scene.replicas > 1 && restart(&seen.request).is_some() => {
            return Some(Intent::wait(STEP, "the PodDisruptionBudget to let a pod go"));
        }
        Ok(_) => {}
    }
    if !issues(&seen.request.spec) {
        return None;
    }
    let issuance = match &seen.issuance {
        Ok(issuance) => issuance,
        Err(why) => return Some(Intent::wait(STEP, why.clone())),
    };
    if !issuance.in_the_way.is_empty() {
        return Some(Intent::fail(
            STEP,
            format!("{} is in the way: it belongs to somebody else", issuance.in_the_way.join(", ")),
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

/// What a trial that has not passed needs.
fn try_issuers(step: &str, trial: &Trial) -> Intent {
    match trial {
        Trial::Absent => Intent::act(step, "ask for a trial certificate", vec![Action::Try]),
        Trial::Failed(why) => Intent::fail(step, format!("the trial certificate: {why}")),
        Trial::Pending | Trial::Passed(_) => Intent::wait(step, "the trial certificate"),
    }
}

/// Roles whose passwords would not be taken any more.
fn locked_out(scene: &Scene, wished: &PostgresSpec, major: u32) -> Option<String> {
    let is_to_be_scram = method(wished, major) == Method::Scram;
    let is_scram = scene.written.accept.plain.or(scene.written.accept.tls) == Some(Method::Scram);
    if !is_to_be_scram || is_scram {
        return None;
    }
    let (_, primary) = scene.primary().ok()?;
    (!primary.md5_roles.is_empty()).then(|| {
        format!(
            "the passwords of {} are stored as MD5 and would not be taken by scram: set them anew with password_encryption = '{}' first",
            primary.md5_roles.join(", "),
            Hash::Scram.as_str(),
        )
    })
}

/// What is issued for the request: nothing if nothing is to be; or what has to be done or waited for.
///
/// cert-manager issues into Secrets that users' pods may mount: whoever signs must be trusted by every server before it is asked.
fn issue(seen: &Observed, wished: &PostgresSpec, scene: &Scene) -> Result<Option<Material>, Intent> {
    const STEP: &str = "Issue";
    if !issues(&seen.request.spec) {
        return Ok(None);
    }
    let issuance = match &seen.issuance {
        Ok(issuance) => issuance,
        Err(why) => return Err(Intent::wait(STEP, why.clone())),
    };
    let to_ask = to_ask(seen, wished, issuance);
    if !to_ask.is_empty() {
        let Trial::Passed(cas) = &issuance.trial else { return Err(try_issuers(STEP, &issuance.trial)) };
        return Err(widen(scene, cas).unwrap_or_else(|| Intent::act(STEP, "ask for the certificates", to_ask)));
    }
    for (alias, certificate) in &issuance.certificates {
        let is_new = certificate.asked.is_none_or(|asked| certificate.revision > asked);
        if certificate.issuing || !certificate.ready || !is_new {
            let why = certificate.failure.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
            return Err(Intent::wait(STEP, format!("the {} certificate{why}", alias.as_str())));
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

/// What cert-manager has yet to be asked for: Certificates as the spec wants them; where they are rotated, new ones.
fn to_ask(seen: &Observed, wished: &PostgresSpec, issuance: &Issuance) -> Vec<Action> {
    if !Alias::ALL.iter().all(|alias| issuance.certificates.get(alias).is_some_and(|c| c.matches)) {
        return vec![Action::Certify(Box::new(wished.clone()))];
    }
    let is_unasked = |certificate: &Certificate| match certificate.asked {
        None => true,
        Some(asked) => certificate.revision <= asked && !certificate.issuing && certificate.failure.is_none(),
    };
    let anew = issuance.certificates.iter().filter(|(_, certificate)| is_unasked(certificate));
    let reissue = |(alias, certificate): (&Alias, &Certificate)| Action::Reissue {
        alias: *alias,
        revision: certificate.asked.unwrap_or(certificate.revision),
    };
    if rotates(&seen.request.spec) { anew.map(reissue).collect() } else { vec![] }
}

/// Brings trust in these CAs to every server; nothing when it is there. A cluster without files trusts nobody.
fn widen(scene: &Scene, cas: &BTreeSet<CaId>) -> Option<Intent> {
    const STEP: &str = "Expand";
    let files = scene.written.files.as_ref()?;
    let trust = files.trust.union(cas).copied().collect();
    let wider = Posture { files: Some(Files { trust, ..files.clone() }), ..scene.written.clone() };
    match steer(scene, &wider, None) {
        Heading::There => None,
        Heading::Do { what, actions, .. } => Some(Intent::act(STEP, &what, actions)),
        Heading::Wait { on, .. } => Some(Intent::wait(STEP, on)),
    }
}

/// The way back to what the spec says.
fn back(seen: &Observed, database: &Postgres, cause: &str) -> Intent {
    let end = || Intent::End(Outcome::Failed(cause.to_owned()));
    let ends_trial = seen.issuance.as_ref().is_ok_and(|issuance| issuance.trial != Trial::Absent);
    if ends_trial {
        return Intent::act("TurnBack Trial", "end the trial", vec![Action::EndTrial]);
    }
    if seen.paused != Paused::ByUs {
        // It was never paused, so nothing was touched; or it is resumed already.
        return end();
    }
    let scene = match &seen.scene {
        Ok(scene) => scene,
        Err(why) => return Intent::wait("TurnBack Look", format!("a look at the pods ({why})")),
    };
    // Where the spec is the new one already, what is served belongs to it.
    let is_new = database.spec == wished(&database.spec, &seen.request.spec, seen.major);
    let material = if is_new && !rotates(&seen.request.spec) { scene.stored } else { scene.previous.or(scene.stored) };
    let origin = posture(&database.spec, seen.major, material.as_ref());
    let origin = origin.map_or_else(|| scene.written.clone(), |origin| trusting(origin, &scene.written));
    Intent::of(steer(scene, &origin, None), "TurnBack ", || {
        Intent::act("TurnBack Resume", "resume the database", vec![Action::SetPaused(false)])
    })
}

/// The way back gives up nobody's trust: what has been issued by now, users' pods may show. The renewal that follows, once what
/// is issued is again what the spec asks for, gives up what is not needed.
fn trusting(origin: Posture, here: &Posture) -> Posture {
    let files = origin.files.map(|files| Files { trust: files.trust.union(&here.trust()).copied().collect(), ..files });
    Posture { files, ..origin }
}

/// Turns what is to be done into a decision: tries are counted, patience ends.
fn by_the_clock(seen: &Observed, intent: Intent, now: Timestamp) -> Decision {
    let request = &seen.request;
    let steps = request.status.as_ref().map(|status| status.steps.as_slice()).unwrap_or_default();
    let patience = Patience::of(request.spec.timeout.as_deref(), request.spec.max_retries);
    let (step, failing) = match &intent {
        Intent::End(outcome) => return Decision::End(outcome.clone()),
        Intent::Act { step, .. } | Intent::Wait { step, .. } => (step.clone(), false),
        Intent::Fail { step, .. } => (step.clone(), true),
    };
    let standing = ledger::standing(steps, &step, failing, patience, now);
    let begins = standing == Standing::Begins;
    if standing == Standing::Exhausted {
        return exhausted(seen, &step, &intent);
    }
    let until = match standing {
        Standing::Trying(until) | Standing::Pausing(until) => Some(until),
        Standing::Begins | Standing::Exhausted => {
            Some(now + if failing { Duration::from_secs(5) } else { patience.timeout })
        }
    };
    match intent {
        Intent::Act { step, what, actions } => Decision::Act { step, what, actions, begins },
        Intent::Wait { step, on } => Decision::Wait { step: Some(step), on, until, begins },
        Intent::Fail { step, why } => {
            Decision::Wait { step: Some(step), on: format!("another try: {why}"), until, begins }
        }
        Intent::End(outcome) => Decision::End(outcome),
    }
}

/// Forth turns back; back ends with what could be had: the database is never left paused.
fn exhausted(seen: &Observed, step: &str, intent: &Intent) -> Decision {
    let what = match intent {
        Intent::Act { what, .. } => format!("{step}: could not {what} in time"),
        Intent::Wait { on, .. } => format!("{step}: waited in vain for {on}"),
        Intent::Fail { why, .. } => format!("{step}: {why}"),
        Intent::End(_) => step.to_owned(),
    };
    match cause_to_turn(&seen.request) {
        None if step == RESUME => Decision::Act {
            step: step.to_owned(),
            what: "resume the database".to_owned(),
            actions: vec![Action::SetPaused(false)],
            begins: true,
        },
        None => Decision::Turn { cause: what },
        Some(cause) if seen.paused == Paused::ByUs => Decision::Act {
            step: "TurnBack Resume".to_owned(),
            what: format!("resume the database, which could not be brought back ({what}) after {cause}"),
            actions: vec![Action::SetPaused(false)],
            begins: false,
        },
        Some(cause) => Decision::End(Outcome::Failed(format!("{cause}; on the way back, {what}"))),
    }
}

/// Whether the request has begun and not ended: one of the operations that run in this cluster.
#[must_use]
pub fn is_running(request: &PostgresOpsRequest) -> bool {
    request.status.as_ref().and_then(|status| status.phase) == Some(OpsPhase::Progressing)
}
