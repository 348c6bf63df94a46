//! Reads about one request: the request, its database, and, once it has begun, the objects, the
//! certificates and the servers.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::{Resource, ResourceExt};

use crate::api::condition::find;
use crate::api::{PetSet, Postgres, PostgresOpsRequest};
use crate::build::workload::PodOwnership;
use crate::build::{Cluster, meta};
use crate::cluster::{Error, Objects};
use crate::controller::Context;
use crate::controller::observe::cluster::ClusterObjects;
use crate::controller::observe::issuance::{self, DesiredProblem, ObservedIssuance};
use crate::controller::observe::{budgets, workload};
use crate::controller::outcome::Interrupt;
use crate::plan::Observed;
use crate::plan::observed::{Live, Paused};
use crate::plan::operation::goal::Goal;
use crate::plan::operation::{goal, may_begin, wait_for_turn};
use crate::plan::slots::Candidate;
use crate::plan::status::database::pause_of;
use crate::plan::status::database::types::PAUSED;
use crate::plan::status::write_policy::StoredStatus;
use crate::plan::waiting::Unknown;
use crate::rules::ops_request::rules;
use crate::rules::{ClusterFacts, refusals};

/// One observation of a request, and what it takes to act on it.
pub(super) struct RequestView {
    /// The facts for the decision.
    pub(super) observed: Observed,
    /// The objects that the actions work on; `None` if they could not be observed.
    pub(super) access: Option<LiveAccess>,
}

/// The objects that the actions of an operation work on.
pub(super) struct LiveAccess {
    /// The objects of the database.
    pub(super) objects: ClusterObjects,
    /// The database as the request asks for it; `None` if it cannot be built.
    pub(super) desired: Option<Cluster>,
    /// The certificates that were issued.
    pub(super) issuance: Option<ObservedIssuance>,
}

/// Observes a request; `None` while the stores are not filled.
pub(super) async fn observe(
    context: &Context,
    mut request: PostgresOpsRequest,
) -> Result<Option<RequestView>, Error> {
    if knows_too_little(context, &request) {
        return Ok(None);
    }
    let pending = context.requests.pending_status(&request);
    let stored = StoredStatus {
        status: request.status.clone(),
        since: pending.as_ref().map(|pending| pending.since),
    };
    if let Some(pending) = pending {
        request.status = Some(pending.status);
    }
    let request = Arc::new(request);
    let namespace = request.namespace().unwrap_or_default();
    let name = &request.spec.database_ref.name;
    let begun_on = request.begun_on();
    let found = context.get::<Postgres>(&namespace, name).await?;
    let database = found.filter(|database| {
        begun_on.is_none_or(|begun_on| database.uid().as_ref() == Some(&begun_on.database_uid))
    });
    let database = database.map(Arc::new);
    let has_begun = begun_on.is_some();
    let mut observed = Observed {
        stored,
        siblings: context.facts.requests(&namespace, name),
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
        paused: database
            .as_deref()
            .map_or(Paused::No, |database| paused(database, &request)),
        pod_uids: Err(Unknown::NotObserved),
        live: Err(Unknown::NotObserved),
        last_failure: context.requests.last_failure(&request),
        database: database.clone(),
        request,
    };
    let Some(database) = database else {
        let access = None;
        return Ok(Some(RequestView { observed, access }));
    };
    if observed.request.is_finished() {
        let access = None;
        return Ok(Some(RequestView { observed, access }));
    }
    if needs_pod_uids(&observed, &database) {
        observed.pod_uids = pod_uids(context, &database).await?;
    }
    let mut access = None;
    if has_begun {
        (observed.live, access) = observe_live(context, &observed, &database).await?;
    }
    Ok(Some(RequestView { observed, access }))
}

/// Whether the pods are about to be recorded: the request begins, or has lost its record.
fn needs_pod_uids(observed: &Observed, database: &Postgres) -> bool {
    let Observed {
        request,
        siblings,
        paused,
        free_slots,
        refused,
        ..
    } = observed;
    let begins = wait_for_turn(request, siblings).is_none()
        && refused.is_empty()
        && may_begin(request, database, paused, *free_slots).is_ok();
    request.begun_on().is_none() && (begins || *paused == Paused::ByUs)
}

/// The objects, the certificates and the servers: in this order, so that the servers are asked last.
async fn observe_live(
    context: &Context,
    observed: &Observed,
    database: &Postgres,
) -> Result<(Result<Live, Unknown>, Option<LiveAccess>), Error> {
    let request = observed.request.as_ref();
    let operation = request.uid().unwrap_or_default();
    let objects = match ClusterObjects::observe(context, database, Some(&operation)).await {
        Ok(objects) => objects,
        Err(Interrupt::Error(error)) => return Err(error),
        Err(Interrupt::Wait(on)) => return Ok((Err(Unknown::Unreadable(on.to_string())), None)),
        Err(Interrupt::Blocked(_, why)) => return Ok((Err(Unknown::Unreadable(why)), None)),
    };
    let major = objects.cluster.major();
    let goal = Goal::new(request, database, major);
    let desired = match goal::too_many_names(&database.spec, &goal.desired) {
        Some(why) => Err(DesiredProblem::Refused(why)),
        None => issuance::with_spec(context, database, goal.desired.clone(), &objects.cluster),
    };
    let (issuance, desired) = match desired {
        Err(DesiredProblem::Unknown(why)) => (Err(Unknown::Unreadable(why.to_owned())), None),
        Err(DesiredProblem::Refused(why)) => (Ok(ObservedIssuance::nothing(Some(why))), None),
        Ok(desired) if goal.issues_certificates() => {
            let issuance = issuance::observe(context, &objects, &desired, Some(&operation)).await?;
            (Ok(issuance), Some(desired))
        }
        Ok(desired) => (Ok(ObservedIssuance::nothing(None)), Some(desired)),
    };
    let budgets = if observed.paused == Paused::ByUs {
        Err(Unknown::NotObserved)
    } else {
        Ok(budgets::observe(&objects).await?)
    };
    let live = Live {
        major,
        budgets,
        issuance: issuance
            .as_ref()
            .map(|issuance| issuance.issuance.clone())
            .map_err(Clone::clone),
        cluster: objects.observe_cluster().await,
    };
    let access = LiveAccess {
        objects,
        desired,
        issuance: issuance.ok(),
    };
    Ok((Ok(live), Some(access)))
}

/// Whether the stores are too empty to let a request begin: the earlier requests, the running
/// operations and the facts of the rules are not known.
fn knows_too_little(context: &Context, request: &PostgresOpsRequest) -> bool {
    let has_begun = request.begun_on().is_some() || request.is_finished();
    let needed = [PostgresOpsRequest::kind(&()), Postgres::kind(&())];
    let unknown = context.facts.unknown();
    !has_begun
        && unknown
            .iter()
            .any(|kind| needed.iter().any(|needed| needed == kind))
}

/// The uids of a database's pods, by name. A pod without a controller is waited for: later it would
/// be taken for one that was made since.
async fn pod_uids(
    context: &Context,
    database: &Postgres,
) -> Result<Result<BTreeMap<String, String>, Unknown>, Error> {
    let name = database.name_any();
    let selector = meta::selector(&name);
    let Some(objects) = Objects::owned_by(&context.client, database, selector) else {
        return Ok(Err(Unknown::Unreadable(
            "the database has no uid".to_owned(),
        )));
    };
    let set: Option<PetSet> = objects.get(&name).await?;
    let workload = workload::workload(context, &objects, database, set.as_ref()).await?;
    let workload = match workload {
        Ok(workload) => workload,
        Err(why) => return Ok(Err(Unknown::Unreadable(why))),
    };
    let pods = objects.labelled::<Pod>().await?;
    let orphan = pods
        .iter()
        .find(|pod| workload.ownership(pod) == PodOwnership::Orphan);
    if let Some(orphan) = orphan {
        let why = format!("pod {} has no controller yet", orphan.name_any());
        return Ok(Err(Unknown::Unreadable(why)));
    }
    let own = pods.iter().filter(|pod| workload.ownership(pod).is_own());
    Ok(Ok(own
        .map(|pod| (pod.name_any(), pod.uid().unwrap_or_default()))
        .collect()))
}

/// The findings of the rules about a request that has not begun: the webhooks may be off, and the
/// cluster has changed since.
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

/// Every request in the stores that has not ended.
pub(super) fn slot_candidates(context: &Context) -> Vec<Candidate> {
    let all = context.facts.all_requests();
    let unfinished = all.iter().filter(|request| !request.is_finished());
    unfinished
        .map(|request| {
            let namespace = request.namespace().unwrap_or_default();
            let name = &request.spec.database_ref.name;
            let database = context.facts.database(&namespace, name);
            Candidate {
                uid: request.uid().unwrap_or_default(),
                namespace,
                holds_slot: database
                    .is_some_and(|database| paused(&database, request) == Paused::ByUs),
            }
        })
        .collect()
}

fn paused(database: &Postgres, request: &PostgresOpsRequest) -> Paused {
    let condition = find(database.conditions(), PAUSED).filter(|condition| condition.holds());
    match condition.map(|condition| condition.message.clone().unwrap_or_default()) {
        None => Paused::No,
        Some(message) if message == pause_of(request) => Paused::ByUs,
        Some(message) => Paused::ByOther(message),
    }
}
