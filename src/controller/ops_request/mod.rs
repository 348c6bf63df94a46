//! The loop of the requests: observe, decide, record, perform.
//!
//! # Expected flow
//! A request is read anew, its database is looked at, [`decide`] says what is next, that is
//! recorded in the request's status, and then it is done. Then the request is looked at again. The
//! status is written at once where a later pgrekey must know, and else a little later: see
//! [`Stored::save`].
//!
//! # Guarantees
//! A request whose status cannot be written does not begin, tries nothing again and does not turn
//! back, until it can. An API server that does not answer ends no request.
//!
//! # Assumptions
//! One process runs this loop: whoever holds the lease.
pub(crate) mod cache;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use kube::runtime::controller::Action as Requeue;
use kube::runtime::events::EventType;
use kube::{Resource, ResourceExt};
use serde_json::json;
use tracing::debug;

use crate::api::condition::find;
use crate::api::duration::after;
use crate::api::ops_request::{FINALIZER, OpsPhase, PostgresOpsRequestStatus, TlsOperation};
use crate::api::postgres::PostgresSpec;
use crate::api::{PetSet, Postgres, PostgresOpsRequest, StepKind};
use crate::build::workload::PodOwnership;
use crate::build::{Cluster, meta};
use crate::cluster::finalizer;
use crate::cluster::finalizer::Finalizer;
use crate::cluster::{Error, ObjectName, Objects};
use crate::controller::Context;
use crate::controller::execute::Executor;
use crate::controller::observe::budgets;
use crate::controller::observe::cluster::ClusterObjects;
use crate::controller::observe::issuance;
use crate::controller::observe::issuance::ObservedIssuance;
use crate::controller::outcome::{Interrupt, Pending};
use crate::controller::postgres::status;
use crate::controller::state::PrimarySeen;
use crate::metrics::{OperationKind, OperationOutcome};
use crate::pki::issued::Cas;
use crate::plan::observed::{Issuance, LastFailure, Paused};
use crate::plan::operation::{NO_SLOT, PODS_UNSEEN, is_running};
use crate::plan::operation::{attempts, goal};
use crate::plan::rollout::grace;
use crate::plan::slots::Candidate;
use crate::plan::status::database::types::PAUSED;
use crate::plan::status::database::{DatabaseStatusWriter, is_paused_in, pause_of};
use crate::plan::status::request::{RequestEvent, record};
use crate::plan::status::write_policy::{PendingStatus, StatusWrite, StoredStatus, WritePolicy};
use crate::plan::{Action, Decision, Known, Observed, decide};
use crate::rules::ops_request::rules;
use crate::rules::{ClusterFacts, refusals};

/// How long until the next look, after something was done that it will show.
const AT_ONCE: Duration = Duration::from_millis(50);

/// How long until the next look while servers are waited for: they are asked, nobody tells.
const SOON: Duration = Duration::from_millis(500);

/// How long until the next look where somebody has to do something first.
const RARELY: Duration = Duration::from_mins(1);

/// Why nothing is begun where the API server drops what is to be remembered.
const OUTDATED: &str = "the definition of PostgresOpsRequests in this cluster is of an older pgrekey, and drops status.begunOn: \
    nothing is begun until `pgrekey crds | kubectl apply --server-side --force-conflicts -f -`, or an upgrade of the chart pgrekey-crds";

/// How long a preflight takes that waits for nothing but the trial of the issuers.
const TRIAL: Duration = Duration::from_secs(15);

/// How long until the next look of a request that waits for its turn. What it waits for is watched
/// too.
const PATIENTLY: Duration = Duration::from_secs(3);

pub(crate) async fn reconcile(
    request: Arc<PostgresOpsRequest>,
    context: Arc<Context>,
) -> Result<Requeue, Error> {
    // The watch may be behind what this loop wrote itself.
    let Some(mut request) = context.refetch(request.as_ref()).await? else {
        context.requests.forget(&request);
        return Ok(Requeue::await_change());
    };
    if knows_too_little(&context, &request) {
        return Ok(Requeue::requeue(SOON));
    }
    let now = context.now();
    let draft = context.requests.pending_status(&request);
    let stored = StoredStatus {
        status: request.status.clone(),
        since: draft.as_ref().map(|draft| draft.since),
    };
    if let Some(PendingStatus { status, .. }) = draft {
        request.status = Some(status);
    }
    let mut view = RequestView::observe(&context, Arc::new(request)).await?;
    let mut decision = decide(&view.seen, now);
    if matches!(&decision, Decision::Wait { on, .. } if on == PODS_UNSEEN)
        && let Some(database) = view.seen.database.clone()
    {
        view.seen.pods = pods(&context, &database).await?;
        decision = match &view.seen.pods {
            Ok(_) => decide(&view.seen, now),
            Err(why) => Decision::Wait {
                step: None,
                on: format!("its pods to be known: {why}"),
                begins: false,
            },
        };
    }
    // Others may want the last place at the same moment, for other databases.
    let pauses = matches!(&decision, Decision::Act { actions, .. } if actions.contains(&Action::SetPaused(true)));
    let places = context.settings.max_concurrent_operations;
    if pauses
        && !context
            .requests
            .take_slot(&view.seen.request, &slot_candidates(&context), places)
    {
        view.seen.free_slots = 0;
        decision = decide(&view.seen, now);
    }
    let request = view.seen.request.as_ref();
    note_gap(
        &context,
        &view.seen,
        matches!(decision, Decision::Complete(_)),
    );
    let (status, events) = record(&view.seen, &decision, now);
    if !matches!(decision, Decision::Finish(_) | Decision::Rest(_)) {
        let settles = grace::for_request(request, view.seen.database.as_deref()).is_some();
        let later = match stored.plan_write(
            &status,
            WritePolicy {
                delay: context.settings.status_delay,
                has_grace_period: settles,
            },
            now,
        ) {
            StatusWrite::Unchanged => None,
            StatusWrite::Deferred(draft) => Some(*draft),
            StatusWrite::Immediate => {
                let written = write_status(&context, request, &status).await?;
                if written.begun_on() != status.begun_on.as_ref() {
                    // Nobody would know any more which pods were replaced.
                    context
                        .publish_event(
                            request,
                            EventType::Warning,
                            "DefinitionsOutdated",
                            OUTDATED.to_owned(),
                        )
                        .await;
                    return Ok(Requeue::requeue(RARELY));
                }
                None
            }
        };
        context.requests.set_pending_status(request, later);
        count(&context, request, &status);
    }
    publish_events(&context, &view.seen, &events).await;
    // What is done again and again shows no effect: it is given time.
    let is_news = request.status.as_ref().map(|old| (old.phase, &old.steps))
        != Some((status.phase, &status.steps));
    let hindrance = view.carry_out(&context, &decision).await?;
    let is_done = hindrance.is_none();
    match decision {
        Decision::Complete(_) | Decision::Finish(_) | Decision::Rest(_) => {
            context.requests.forget(request)
        }
        _ => context.requests.set_last_failure(request, hindrance),
    }
    Ok(requeue(request, &decision, is_done && is_news, now))
}

/// Whether too little is known yet to let a request begin: who came first, how many run, what the
/// rules refuse.
fn knows_too_little(context: &Context, request: &PostgresOpsRequest) -> bool {
    let has_begun = request.begun_on().is_some() || request.is_finished();
    let needed = [PostgresOpsRequest::kind(&()), Postgres::kind(&())];
    !has_begun
        && context
            .facts
            .unknown()
            .iter()
            .any(|kind| needed.iter().any(|needed| needed == kind))
}

fn requeue(
    request: &PostgresOpsRequest,
    decision: &Decision,
    is_newly_done: bool,
    now: Timestamp,
) -> Requeue {
    match decision {
        Decision::Act { actions, .. }
            if is_newly_done && actions.iter().all(Action::shows_at_once) =>
        {
            Requeue::requeue(AT_ONCE)
        }
        Decision::Wait { step: None, .. } => Requeue::requeue(PATIENTLY),
        // Nothing is touched yet, and it may take long: an issuer that is not ready, a budget, a
        // place.
        Decision::Wait {
            step: Some(step),
            on,
            ..
        } if on == NO_SLOT || waits_long(request, step, now) => Requeue::requeue(PATIENTLY),
        Decision::Rest(None) => Requeue::await_change(),
        Decision::Rest(Some(until)) => Requeue::requeue(
            Duration::try_from(until.duration_since(now))
                .unwrap_or(SOON)
                .max(SOON),
        ),
        _ => Requeue::requeue(SOON),
    }
}

/// Whether a request has been at its preflight for longer than a trial of the issuers takes.
fn waits_long(request: &PostgresOpsRequest, step: &str, now: Timestamp) -> bool {
    let began =
        attempts::find_step(request.steps(), step).and_then(|step| step.started_at.as_ref());
    step == StepKind::Preflight.as_str()
        && began.is_some_and(|Time(began)| after(*began, TRIAL) <= now)
}

/// What one look showed, and what it takes to act on it.
struct RequestView {
    seen: Observed,
    /// Why there is no site, or the site.
    site: Known<ClusterObjects>,
    /// The database as the request wants it.
    wished: Option<Cluster>,
    look: Option<ObservedIssuance>,
}

impl RequestView {
    async fn observe(context: &Context, request: Arc<PostgresOpsRequest>) -> Result<Self, Error> {
        let namespace = request.namespace().unwrap_or_default();
        let name = request.spec.database_ref.name.clone();
        let database = context.get::<Postgres>(&namespace, &name).await?;
        let begun_on = request.begun_on();
        let is_it = |database: &Postgres| {
            begun_on.is_none_or(|it| database.uid().as_ref() == Some(&it.database_uid))
        };
        let database = database.filter(is_it).map(Arc::new);
        let siblings = context.facts.requests(&namespace, &name);
        let paused = database
            .as_deref()
            .map_or(Paused::No, |database| paused(database, &request));
        let has_begun = begun_on.is_some();
        let mut view = Self {
            site: Err("nobody has looked".to_owned()),
            wished: None,
            look: None,
            seen: Observed {
                free_slots: context.requests.free_slots(
                    &request,
                    &slot_candidates(context),
                    context.settings.max_concurrent_operations,
                ),
                refused: if has_begun {
                    vec![]
                } else {
                    refused(context, &request)
                },
                major: 0,
                paused,
                issuance: Err("nobody has looked".to_owned()),
                pods: Err("nobody has looked".to_owned()),
                cluster: Err("nobody has looked".to_owned()),
                budgets: Err("nobody has looked".to_owned()),
                last_failure: context.requests.last_failure(&request),
                siblings,
                database,
                request,
            },
        };
        if has_begun
            && !view.seen.request.is_finished()
            && let Some(database) = view.seen.database.clone()
        {
            view.look_closely(context, &database).await?;
        }
        Ok(view)
    }

    /// Looks at the objects, at what is issued, and at the servers: in this order, so that the
    /// servers are asked last.
    async fn look_closely(&mut self, context: &Context, database: &Postgres) -> Result<(), Error> {
        let operation = self.operation();
        let site = match ClusterObjects::observe(context, database, Some(&operation)).await {
            Ok(site) => site,
            Err(Interrupt::Error(error)) => return Err(error),
            Err(Interrupt::Wait(on)) => {
                self.seen.cluster = Err(on.to_string());
                return Ok(());
            }
            Err(Interrupt::Blocked(_, why)) => {
                self.seen.cluster = Err(why);
                return Ok(());
            }
        };
        self.seen.major = site.cluster.major();
        let wished = goal::target_spec(&database.spec, &self.seen.request.spec, self.seen.major);
        let wished = match goal::too_many_names(&database.spec, &wished) {
            Some(why) => Err(why),
            None => issuance::with_spec(context, database, wished, &site.cluster),
        };
        match wished {
            Err(why) => self.seen.issuance = Err(why),
            Ok(wished) => {
                let look = if goal::issues_certificates(&self.seen.request.spec) {
                    issuance::observe(context, &site.objects, &wished, &operation).await?
                } else {
                    ObservedIssuance {
                        issuance: Issuance::default(),
                        issued: None,
                        trial_cas: Cas::new(),
                    }
                };
                self.seen.issuance = Ok(look.issuance.clone());
                (self.wished, self.look) = (Some(wished), Some(look));
            }
        }
        if self.seen.paused != Paused::ByUs {
            self.seen.budgets = Ok(budgets::observe(&site).await?);
        }
        self.seen.cluster = site.observe_cluster().await;
        self.site = Ok(site);
        Ok(())
    }

    fn operation(&self) -> String {
        self.seen.request.uid().unwrap_or_default()
    }

    /// Does what was decided, as far as it can be done now; returns why not all of it could be.
    ///
    /// The step's time runs out if it stays so, and then the way leads back.
    async fn carry_out(
        &self,
        context: &Context,
        decision: &Decision,
    ) -> Result<Option<LastFailure>, Error> {
        let (actions, step) = match decision {
            Decision::Act { actions, step, .. } => (actions, step.as_str()),
            Decision::Finish(actions) => (actions, ""),
            _ => return Ok(None),
        };
        let hindered = |why: String| LastFailure {
            step: step.to_owned(),
            why,
        };
        let request = self.seen.request.name_any();
        for action in actions {
            debug!(request, ?action, "performing");
            match self.perform(context, action).await {
                Ok(()) => {}
                Err(Interrupt::Wait(on)) => {
                    debug!(request, %on, "not yet");
                    return Ok(Some(hindered(format!("waits for {on}"))));
                }
                Err(Interrupt::Blocked(_, why)) => {
                    debug!(request, why, "not done");
                    return Ok(Some(hindered(why)));
                }
                Err(Interrupt::Error(error)) => {
                    // It is tried again, and people are told what there is to be told until then.
                    context
                        .requests
                        .set_last_failure(&self.seen.request, Some(hindered(error.to_string())));
                    return Err(error);
                }
            }
        }
        Ok(None)
    }

    async fn perform(&self, context: &Context, action: &Action) -> Result<(), Interrupt> {
        let request = &self.seen.request;
        match action {
            Action::AddFinalizer => {
                finalizer::put(
                    &context.client,
                    request.as_ref(),
                    FINALIZER,
                    Finalizer::Hold,
                )
                .await?
            }
            Action::RemoveFinalizer => {
                finalizer::put(
                    &context.client,
                    request.as_ref(),
                    FINALIZER,
                    Finalizer::Release,
                )
                .await?
            }
            Action::Delete => delete(context, request).await?,
            Action::SetPaused(paused) => {
                let Some(database) = &self.seen.database else {
                    return Ok(());
                };
                set_paused(context, database, request, *paused).await?;
            }
            Action::WriteSpec(spec) => {
                let Some(database) = &self.seen.database else {
                    return Ok(());
                };
                write_spec(context, database, spec).await?;
            }
            action => {
                let site = self
                    .site
                    .as_ref()
                    .map_err(|_| Interrupt::Wait(Pending::Observation))?;
                let operation = self.operation();
                let hands = Executor {
                    context,
                    site,
                    wished: self.wished.as_ref().unwrap_or(&site.cluster),
                    issued: self.look.as_ref().and_then(|look| look.issued.as_ref()),
                    more_cas: self
                        .look
                        .as_ref()
                        .map(|look| look.trial_cas.clone())
                        .unwrap_or_default(),
                    operation: Some(&operation),
                };
                hands.execute(action).await?;
            }
        }
        Ok(())
    }
}

/// The uids of a database's pods, by name, for a request to remember. A pod that is yet to be taken
/// over is waited for, because later it would be taken for one that was made since.
async fn pods(
    context: &Context,
    database: &Postgres,
) -> Result<Known<BTreeMap<String, String>>, Error> {
    let selector = meta::selector(&database.name_any());
    let Some(objects) = Objects::owned_by(&context.client, database, selector) else {
        return Ok(Err("the database has no uid".to_owned()));
    };
    let set: Option<PetSet> = objects.get(&database.name_any()).await?;
    let workload = match crate::controller::observe::workload::workload(
        context,
        &objects,
        database,
        set.as_ref(),
    )
    .await?
    {
        Ok(workload) => workload,
        Err(why) => return Ok(Err(why)),
    };
    let labelled = objects.labelled::<Pod>().await?;
    if let Some(orphan) = labelled
        .iter()
        .find(|pod| workload.ownership(pod) == PodOwnership::Orphan)
    {
        return Ok(Err(format!(
            "nobody controls pod {} yet",
            orphan.name_any()
        )));
    }
    let own = labelled
        .iter()
        .filter(|pod| workload.ownership(pod).is_own());
    Ok(Ok(own
        .map(|pod| (pod.name_any(), pod.uid().unwrap_or_default()))
        .collect()))
}

/// What the rules say now about a request that has not begun: the webhooks may be off, and the
/// cluster has moved on since.
fn refused(context: &Context, request: &PostgresOpsRequest) -> Vec<String> {
    if !context.facts.unknown().is_empty() {
        return vec![];
    }
    refusals(
        rules(),
        request.clone(),
        context.facts.as_ref(),
        &context.settings.allowed,
    )
}

/// Every request that has not ended, as far as is known.
fn slot_candidates(context: &Context) -> Vec<Candidate> {
    let unfinished = |request: &Arc<PostgresOpsRequest>| {
        let namespace = request.namespace().unwrap_or_default();
        let database = context
            .facts
            .database(&namespace, &request.spec.database_ref.name);
        let works = database.is_some_and(|database| paused(&database, request) == Paused::ByUs);
        Candidate {
            uid: request.uid().unwrap_or_default(),
            namespace,
            holds_slot: works,
        }
    };
    let all = context.facts.all_requests();
    all.iter()
        .filter(|request| !request.is_finished())
        .map(unfinished)
        .collect()
}

/// How many operations but this one run, as far as is known.
fn others(context: &Context, request: &PostgresOpsRequest) -> usize {
    let requests = context.facts.all_requests();
    requests
        .iter()
        .filter(|other| is_running(other) && other.uid() != request.uid())
        .count()
}

fn paused(database: &Postgres, request: &PostgresOpsRequest) -> Paused {
    let condition = find(database.conditions(), PAUSED).filter(|condition| condition.holds());
    match condition.map(|condition| condition.message.clone().unwrap_or_default()) {
        None => Paused::No,
        Some(message) if message == pause_of(request) => Paused::ByUs,
        Some(message) => Paused::ByOther(message),
    }
}

async fn set_paused(
    context: &Context,
    database: &Postgres,
    request: &PostgresOpsRequest,
    paused: bool,
) -> Result<(), Error> {
    // A loop that saw the database before may still be at it.
    let _alone = context.lock_database(database).await;
    let words = pause_of(request);
    let (name, request_name) = (status::database(database), request.name_any());
    let write = |writer: &mut DatabaseStatusWriter| {
        if paused {
            writer.paused(&words)
        } else {
            writer.resumed(&words)
        }
    };
    let left = status::write(context, database, write).await?;
    if paused && !left.is_some_and(|left| is_paused_in(&left.conditions, &words)) {
        // Somebody else was faster, whom the next look shows.
        return Ok(());
    }
    let note = if paused {
        format!("Successfully paused Postgres {name} for PostgresOpsRequest {request_name}")
    } else {
        format!("Successfully resumed PostgreSQL {name} for PostgresOpsRequest {request_name}")
    };
    let reason = if paused {
        "PauseDatabase"
    } else {
        "ResumeDatabase"
    };
    context
        .publish_event(database, EventType::Normal, reason, note.clone())
        .await;
    context
        .publish_event(request, EventType::Normal, reason, note)
        .await;
    Ok(())
}

/// TLS, sslMode and clientAuthMode of the new spec, each as a whole.
async fn write_spec(
    context: &Context,
    database: &Postgres,
    spec: &PostgresSpec,
) -> Result<(), Error> {
    let name = database.name_any();
    let what = || ObjectName::new::<Postgres>(&name);
    let tls = match (&database.spec.tls, &spec.tls) {
        (None, None) => None,
        (Some(_), None) => Some(json!({"op": "remove", "path": "/spec/tls"})),
        (_, Some(tls)) => Some(json!({"op": "add", "path": "/spec/tls", "value": tls})),
    };
    let mode = spec
        .ssl_mode
        .map(|mode| json!({"op": "add", "path": "/spec/sslMode", "value": mode}));
    let auth = spec
        .client_auth_mode
        .map(|auth| json!({"op": "add", "path": "/spec/clientAuthMode", "value": auth}));
    // A version that is written is one that has to be there still: the API server answers with a
    // conflict if it is not.
    let version = json!({"op": "add", "path": "/metadata/resourceVersion", "value": database.resource_version()});
    let patch: Vec<_> = [Some(version), tls, mode, auth]
        .into_iter()
        .flatten()
        .collect();
    let patch = serde_json::from_value(json!(patch)).map_err(|e| Error::Bug {
        what: what(),
        why: e.to_string(),
    })?;
    let api: Api<Postgres> = Api::namespaced(
        context.client.clone(),
        &database.namespace().unwrap_or_default(),
    );
    let written = api
        .patch(&name, &PatchParams::default(), &Patch::Json::<()>(patch))
        .await;
    written
        .map(drop)
        .map_err(|error| Error::classify(what(), error))
}

async fn delete(context: &Context, request: &PostgresOpsRequest) -> Result<(), Error> {
    let name = request.name_any();
    let api: Api<PostgresOpsRequest> = Api::namespaced(
        context.client.clone(),
        &request.namespace().unwrap_or_default(),
    );
    let preconditions = Some(Preconditions {
        uid: request.uid(),
        resource_version: None,
    });
    match api
        .delete(
            &name,
            &DeleteParams {
                preconditions,
                ..DeleteParams::default()
            },
        )
        .await
    {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(error) => Err(Error::classify(
            ObjectName::new::<PostgresOpsRequest>(&name),
            error,
        )),
    }
}

/// Writes the status over the one that was read, and no other. What came of it is what the API
/// server has kept.
async fn write_status(
    context: &Context,
    request: &PostgresOpsRequest,
    status: &PostgresOpsRequestStatus,
) -> Result<PostgresOpsRequest, Error> {
    let name = request.name_any();
    let api: Api<PostgresOpsRequest> = Api::namespaced(
        context.client.clone(),
        &request.namespace().unwrap_or_default(),
    );
    let patch =
        json!({"metadata": {"resourceVersion": request.resource_version()}, "status": status});
    let written = api
        .patch_status(&name, &PatchParams::default(), &Patch::Merge(patch))
        .await;
    written.map_err(|error| Error::classify(ObjectName::new::<PostgresOpsRequest>(&name), error))
}

/// Counts the steps and the operations that have ended with this status, if it is another than the
/// request's.
fn count(context: &Context, request: &PostgresOpsRequest, new: &PostgresOpsRequestStatus) {
    let old = request.steps();
    for step in &new.steps {
        let known = old
            .iter()
            .find(|known| known.name == step.name)
            .and_then(|known| known.finished_at.as_ref());
        if let (Some(kind), Some(Time(end)), Some(Time(start))) = (
            StepKind::from_name(&step.name),
            &step.finished_at,
            &step.started_at,
        ) && known.is_none_or(|known| known.0 != *end)
        {
            context.metrics.step(
                kind,
                Duration::try_from(end.duration_since(*start)).unwrap_or_default(),
            );
        }
    }
    let outcome = match new.phase {
        Some(OpsPhase::Successful) => Some(OperationOutcome::Successful),
        Some(OpsPhase::Failed) => Some(OperationOutcome::Failed),
        _ => None,
    };
    if let Some(outcome) = outcome {
        context.metrics.ended(kind_of(request), outcome);
    }
    context
        .metrics
        .running(others(context, request) + usize::from(new.phase == Some(OpsPhase::Progressing)));
    let working = slot_candidates(context)
        .iter()
        .filter(|one| one.holds_slot)
        .count();
    context
        .metrics
        .places(working, context.settings.max_concurrent_operations);
}

/// Measures how long there is no primary, from one look to the next.
fn note_gap(context: &Context, seen: &Observed, is_over: bool) {
    let Some(database) = &seen.database else {
        return;
    };
    let now = context.now();
    if is_over {
        return context.update_state(database, |memory| memory.primary = PrimarySeen::Unknown);
    }
    let Ok(scene) = &seen.cluster else { return };
    context.update_state(database, |memory| {
        memory.primary = match (memory.primary, scene.primary()) {
            (PrimarySeen::There(last) | PrimarySeen::Away(last), Err(_)) => PrimarySeen::Away(last),
            (PrimarySeen::Unknown, Err(_)) => PrimarySeen::Unknown,
            (PrimarySeen::Away(last), Ok(_)) => {
                context
                    .metrics
                    .write_gap(Duration::try_from(now.duration_since(last)).unwrap_or_default());
                PrimarySeen::There(now)
            }
            (_, Ok(_)) => PrimarySeen::There(now),
        };
    });
}

/// What a request does, as far as the request itself says: TLS that is changed may be TLS that is
/// added.
fn kind_of(request: &PostgresOpsRequest) -> OperationKind {
    let change = request
        .spec
        .tls
        .as_ref()
        .and_then(|change| change.operations().first().copied());
    match change {
        None => OperationKind::Restart,
        Some(TlsOperation::Remove) => OperationKind::RemoveTls,
        Some(TlsOperation::Rotate) => OperationKind::RotateTls,
        Some(TlsOperation::Change) => OperationKind::ChangeTls,
    }
}

async fn publish_events(context: &Context, seen: &Observed, events: &[RequestEvent]) {
    for event in events {
        let type_ = if event.warning {
            EventType::Warning
        } else {
            EventType::Normal
        };
        context
            .publish_event(seen.request.as_ref(), type_, &event.reason, &event.message)
            .await;
        if let Some(database) = seen.database.as_deref().filter(|_| event.on_database) {
            context
                .publish_event(database, type_, &event.reason, &event.message)
                .await;
        }
    }
}
