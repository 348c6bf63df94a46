//! The controllers: observe, decide, record, execute.
//!
//! # Expected flow
//! [`run`] waits for the lease, then runs every controller until the lease is lost or it is told to
//! stop; then it waits for the lease again, or gives it up.
//!
//! # Guarantees
//! Where a lease is configured, a process without it writes nothing. A controller reconciles [`CONCURRENCY`] objects at
//! once, and no object twice at once. A reconcile that fails is repeated after a pause. When the
//! lease is lost, everything that runs under it ends: tasks for objects, checks and connections are
//! owned by their controller and stop when it is dropped. An operation that needs a database for
//! itself takes [`Context::lock_database`] and pauses the database.
//!
//! # Assumptions
//! The caches of facts are filled elsewhere. Watches of Kubernetes' own kinds select KubeDB's label, so
//! that no other object of the cluster is held in memory. Secrets are read by name and never watched.
//!
//! | file | what |
//! |---|---|
//! | `observe/` | reads objects and asks servers |
//! | `execute/` | does one action at a time |
//! | `postgres/` | reconciles databases, and checks their health |
//! | `ops_request/` | reconciles requests |
//! | `pet_set` | realises PetSets by StatefulSets |
//! | `outcome`, `finalizer`, `login`, `settings`, `state`, `context`, `workload_stores` | what all of them share |

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

/// How many objects one controller reconciles at once.
pub const CONCURRENCY: u16 = 8;

/// How long until the next reconcile after a write that conflicted with another one.
const REQUEUE_AFTER_CONFLICT: Duration = Duration::from_millis(500);

/// How long until the next reconcile after one that failed.
const REQUEUE_AFTER_FAILURE: Duration = Duration::from_secs(3);

/// How often the state of deleted databases is forgotten.
const FORGET_PERIOD: Duration = Duration::from_secs(10);

/// Runs the controllers, while holding the lease, until told to stop.
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
        let (until, controllers) = (
            shutdown.cancelled_owned(),
            controllers(client, facts, settings, metrics),
        );
        future::select(until.boxed(), controllers).await;
        return;
    };
    let election = LeaderElection::new(client.clone(), &namespace, &name, &identity);
    let lead = async {
        loop {
            let controllers = controllers(
                client.clone(),
                Arc::clone(&facts),
                settings.clone(),
                metrics.clone(),
            );
            let leading = async {
                metrics.leads(true);
                controllers.await;
            };
            election.with_lease(leading).await;
            metrics.leads(false);
            warn!("the lease is lost: the controllers have ended, and wait for it");
        }
    };
    tokio::select! {
        () = lead => {}
        () = shutdown.cancelled_owned() => {}
    }
    election.release().await;
}

fn controllers(
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
    let (requeue_all, requeue_signals) = mpsc::unbounded();
    let context = Arc::new(Context::new(
        client,
        facts,
        settings,
        metrics,
        watched,
        requeue_all,
    ));
    let provisioner = provisioner.then(|| {
        let (databases, run) = databases(&context, requeue_signals);
        [
            run,
            postgres::health::run(Arc::clone(&context), databases).boxed(),
        ]
    });
    let ops_manager = ops_manager.then(|| requests(&context));
    let pet_sets = (realised == PetSets::Own && context.settings.provisioner)
        .then(|| self::pet_sets(&context));
    let controllers = provisioner
        .into_iter()
        .flatten()
        .chain(ops_manager)
        .chain(pet_sets);
    let fill = [fill_pods, fill_pet_sets]
        .into_iter()
        .chain(fill_stateful_sets);
    let forget = forget(Arc::clone(&context)).boxed();
    future::join_all(controllers.chain(fill).chain([forget]))
        .map(|_| ())
        .boxed()
}

/// Forgets the state of deleted databases. A database whose finalizer was removed by hand goes
/// without a last reconcile.
async fn forget(context: Arc<Context>) {
    let mut tick = tokio::time::interval(FORGET_PERIOD);
    loop {
        tick.tick().await;
        // A database that has not been listed yet is not deleted.
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
    requeue_signals: mpsc::UnboundedReceiver<()>,
) -> (Store<Postgres>, BoxFuture<'static, ()>) {
    let ours = || watcher::Config::default().labels(OURS);
    // A request that has ended, or is being deleted, may leave its database paused.
    let paused_by_ended = |request: PostgresOpsRequest| {
        let is_over = request.is_finished() || request.metadata.deletion_timestamp.is_some();
        let database = ObjectRef::<Postgres>::new(&request.spec.database_ref.name);
        is_over.then(|| database.within(&request.namespace().unwrap_or_default()))
    };
    // Metadata only, as of the others; and the cluster may not have this kind.
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
        .reconcile_all_on(requeue_signals);
    let store = controller.store();
    let run = controller
        .watches(
            context.api::<PostgresOpsRequest>(),
            watcher::Config::default(),
            paused_by_ended,
        )
        .run(postgres::reconcile, on_error, Arc::clone(context))
        .for_each(|_| future::ready(()));
    (store, run.boxed())
}

fn requests(context: &Arc<Context>) -> BoxFuture<'static, ()> {
    let facts = Arc::clone(&context.facts);
    // Requests wait for their database to become ready, or to be deleted.
    let unfinished_requests = move |database: Postgres| {
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
    .watches(
        context.api::<Postgres>(),
        watcher::Config::default(),
        unfinished_requests,
    )
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

/// When an object is reconciled again whose reconcile has failed.
#[expect(
    clippy::needless_pass_by_value,
    reason = "the signature that `Controller::run` calls"
)]
fn on_error<K: ObjectKind>(object: Arc<K>, error: &Error, _: Arc<Context>) -> Action {
    let kind = K::kind(&()).into_owned();
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    if let Error::Conflict(what) = error {
        debug!(kind, namespace, name, %what, "changed meanwhile; trying again");
        return Action::requeue(REQUEUE_AFTER_CONFLICT);
    }
    warn!(kind, namespace, name, %error, "failed; trying again");
    Action::requeue(REQUEUE_AFTER_FAILURE)
}

/// A store of the objects of one kind that belong to databases, and the future that fills it.
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
