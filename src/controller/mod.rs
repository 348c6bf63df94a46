//! The loops: observe, decide, record, perform.
//!
//! # Expected flow
//! [`run`] waits for the lease, then runs every loop until the lease is lost or it is told to stop;
//! then it waits for the lease again, or gives it up.
//!
//! # Guarantees
//! Whoever holds no lease writes nothing. A loop handles [`CONCURRENCY`] objects at once and no
//! object twice at once. An object that fails is tried again after a pause. A lost loop ends with
//! everything it began: a task beside it, be it for an object, a check or a connection, is stopped
//! when whoever began it drops it. Who wants a database for itself asks [`Context::lock_database`],
//! pauses it, and is alone from then on.
//!
//! # Assumptions
//! Facts are kept up to date by somebody else. What is watched carries the label that KubeDB's
//! objects carry, so that no other object of the cluster is held in memory. Secrets are read by
//! name and never watched.

mod context;
mod execute;
mod finalizer;
mod login;
pub(crate) mod observe;
mod ops_request;
mod outcome;
mod pet_set;
mod postgres;
mod sessions;
pub mod settings;
mod state;
mod workload_stores;

use std::sync::Arc;
use std::time::Duration;

use futures::channel::mpsc;
use futures::future::{self, BoxFuture};
use futures::{FutureExt, StreamExt};
use k8s_controller::LeaderElection;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::PartialObjectMeta;
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Resource, ResourceExt};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::api::cert_manager::Certificate;
use crate::api::{PetSet, Postgres, PostgresOpsRequest};
use crate::cluster::Error;
use crate::cluster::apply::ObjectKind;
use crate::cluster::cache::Stores;
use crate::cluster::optional;
use crate::cluster::optional::AbsentKind;
use crate::controller::settings::OURS;
use crate::controller::workload_stores::WorkloadStores;
use crate::metrics::ControllerMetrics;
use crate::rules::ClusterFacts;

pub use crate::controller::context::Context;
pub use crate::controller::settings::{
    Lease, MAX_CONCURRENT_OPERATIONS, PetSets, STATUS_DELAY, Settings,
};

/// How many objects one loop handles at once.
pub const CONCURRENCY: u16 = 8;

/// How long until an object is looked at again that somebody else has changed meanwhile.
const CHANGED: Duration = Duration::from_millis(500);

/// How long until an object is looked at again whose loop has failed.
const FAILED: Duration = Duration::from_secs(3);

/// How often databases that are not there any more are forgotten.
const FORGET: Duration = Duration::from_secs(10);

/// Runs the loops, while holding the lease, until told to stop.
pub async fn run(
    client: Client,
    facts: Arc<Stores>,
    settings: Settings,
    metrics: ControllerMetrics,
    shutdown: CancellationToken,
) {
    let lease = settings.lease.clone();
    let Some(Lease {
        namespace,
        name,
        identity,
    }) = lease
    else {
        metrics.leads(true);
        let (until, loops) = (
            shutdown.cancelled_owned(),
            loops(client, facts, settings, metrics),
        );
        future::select(until.boxed(), loops).await;
        return;
    };
    let election = LeaderElection::new(client.clone(), &namespace, &name, &identity);
    let lead = async {
        loop {
            let loops = loops(
                client.clone(),
                Arc::clone(&facts),
                settings.clone(),
                metrics.clone(),
            );
            let leading = async {
                metrics.leads(true);
                loops.await;
            };
            election.with_lease(leading).await;
            metrics.leads(false);
            warn!("the lease is lost: the loops have ended, and wait for it");
        }
    };
    tokio::select! {
        () = lead => {}
        () = shutdown.cancelled_owned() => {}
    }
    election.release().await;
}

fn loops(
    client: Client,
    facts: Arc<Stores>,
    settings: Settings,
    metrics: ControllerMetrics,
) -> BoxFuture<'static, ()> {
    let (pods, fill_pods) = reflect::<Pod>(&client, &settings);
    let (pet_sets, fill_pet_sets) = reflect::<PetSet>(&client, &settings);
    let Settings {
        provisioner,
        ops_manager,
        pet_sets: realised,
        ..
    } = settings;
    let stateful_sets = (realised == PetSets::Own)
        .then(|| reflect::<PartialObjectMeta<StatefulSet>>(&client, &settings));
    let (stateful_sets, fill_stateful_sets) = stateful_sets.unzip();
    let watched = WorkloadStores {
        pods,
        pet_sets,
        stateful_sets,
    };
    let (drift, drifted) = mpsc::unbounded();
    let context = Arc::new(Context::new(
        client, facts, settings, metrics, watched, drift,
    ));
    let provisioner = provisioner.then(|| {
        let (databases, run) = databases(&context, drifted);
        [
            run,
            postgres::health::run(Arc::clone(&context), databases).boxed(),
        ]
    });
    let ops_manager = ops_manager.then(|| requests(&context));
    let pet_sets = (realised == PetSets::Own && context.settings.provisioner)
        .then(|| self::pet_sets(&context));
    let loops = provisioner
        .into_iter()
        .flatten()
        .chain(ops_manager)
        .chain(pet_sets);
    let fill = [fill_pods, fill_pet_sets]
        .into_iter()
        .chain(fill_stateful_sets);
    let forget = forget(Arc::clone(&context)).boxed();
    future::join_all(loops.chain(fill).chain([forget]))
        .map(|_| ())
        .boxed()
}

/// Forgets databases that are not there any more: one may go without its finalizer, and so without
/// a word.
async fn forget(context: Arc<Context>) {
    let mut tick = tokio::time::interval(FORGET);
    loop {
        tick.tick().await;
        // What has not been listed yet is not gone.
        if !context
            .facts
            .unknown()
            .iter()
            .any(|kind| *kind == Postgres::kind(&()))
        {
            let all = context.facts.all_databases();
            context.forget_all_but(&all.iter().filter_map(|postgres| postgres.uid()).collect());
        }
    }
}

fn databases(
    context: &Arc<Context>,
    drifted: mpsc::UnboundedReceiver<()>,
) -> (Store<Postgres>, BoxFuture<'static, ()>) {
    let ours = || watcher::Config::default().labels(OURS);
    // A request that has ended, or goes, may leave its database paused.
    let left_alone = |request: PostgresOpsRequest| {
        let is_over = request.is_finished() || request.metadata.deletion_timestamp.is_some();
        let database = ObjectRef::<Postgres>::new(&request.spec.database_ref.name);
        is_over.then(|| database.within(&request.namespace().unwrap_or_default()))
    };
    // Only what they are called, as with the others; and there may be none of their kind.
    let certificates = context.api::<PartialObjectMeta<Certificate>>();
    let certificates = optional::watch(certificates, ours(), AbsentKind::default());
    let controller = Controller::new(context.api::<Postgres>(), watcher::Config::default())
        .with_config(Config::default().concurrency(CONCURRENCY))
        .owns(context.api::<PetSet>(), ours())
        .owns(context.api::<Service>(), ours())
        .owns(context.api::<ConfigMap>(), ours())
        .owns(context.api::<ServiceAccount>(), ours())
        .owns(context.api::<Role>(), ours())
        .owns(context.api::<RoleBinding>(), ours())
        .owns(context.api::<PodDisruptionBudget>(), ours())
        .owns_stream(certificates.touched_objects())
        .reconcile_all_on(drifted);
    let store = controller.store();
    let run = controller
        .watches(
            context.api::<PostgresOpsRequest>(),
            watcher::Config::default(),
            left_alone,
        )
        .run(postgres::reconcile, on_error, Arc::clone(context))
        .for_each(|_| future::ready(()));
    (store, run.boxed())
}

fn requests(context: &Arc<Context>) -> BoxFuture<'static, ()> {
    let facts = Arc::clone(&context.facts);
    // A database that becomes ready, or goes, is news for the requests about it.
    let about = move |database: Postgres| {
        let (namespace, name) = (
            database.namespace().unwrap_or_default(),
            database.name_any(),
        );
        let unfinished = facts
            .requests(&namespace, &name)
            .into_iter()
            .filter(|request| !request.is_finished());
        unfinished
            .map(|request| ObjectRef::from_obj(request.as_ref()))
            .collect::<Vec<_>>()
    };
    Controller::new(
        context.api::<PostgresOpsRequest>(),
        watcher::Config::default(),
    )
    .with_config(Config::default().concurrency(CONCURRENCY))
    .watches(context.api::<Postgres>(), watcher::Config::default(), about)
    .run(ops_request::reconcile, on_error, Arc::clone(context))
    .for_each(|_| future::ready(()))
    .boxed()
}

fn pet_sets(context: &Arc<Context>) -> BoxFuture<'static, ()> {
    let ours = || watcher::Config::default().labels(OURS);
    Controller::new(context.api::<PetSet>(), ours())
        .with_config(Config::default().concurrency(CONCURRENCY))
        .owns(context.api::<StatefulSet>(), ours())
        .run(pet_set::reconcile, on_error, Arc::clone(context))
        .for_each(|_| future::ready(()))
        .boxed()
}

/// When an object is looked at again whose loop has failed.
#[expect(
    clippy::needless_pass_by_value,
    reason = "what `Controller::run` calls"
)]
fn on_error<K: ObjectKind>(object: Arc<K>, error: &Error, _: Arc<Context>) -> Action {
    let kind = K::kind(&()).into_owned();
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    if let Error::Conflict(what) = error {
        debug!(kind, namespace, name, %what, "changed meanwhile; looking again");
        return Action::requeue(CHANGED);
    }
    warn!(kind, namespace, name, %error, "failed; trying again");
    Action::requeue(FAILED)
}

/// A kind of object of ours in memory, and what keeps it up to date.
fn reflect<K>(client: &Client, settings: &Settings) -> (Store<K>, BoxFuture<'static, ()>)
where
    K: ObjectKind + 'static,
{
    let (store, writer) = reflector::store();
    let stream = watcher(
        context::api_of::<K>(client, settings),
        watcher::Config::default().labels(OURS),
    );
    let drop_record = |object: &mut K| object.meta_mut().managed_fields = None;
    let kind = K::kind(&()).into_owned();
    let fill = stream
        .modify(drop_record)
        .default_backoff()
        .reflect(writer)
        .for_each(move |event| {
            if let Err(error) = event {
                warn!(kind, %error, "cannot watch; trying again");
            }
            future::ready(())
        });
    (store, fill.boxed())
}
