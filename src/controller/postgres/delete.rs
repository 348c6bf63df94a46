//! The end of a database, and its halt: which objects go, which stay, and in which order.
//!
//! | | Halt, `halted: true` | Delete | WipeOut |
//! |---|---|---|---|
//! | workload, RBAC objects, Services | go | go | go |
//! | Patroni's state | goes; stays while only halted | goes | goes |
//! | data | stay | go | go |
//! | the superuser's Secret, issued Secrets | stay | stay | go |
//!
//! Pods go first and are waited for: a Patroni that still runs would write its state again, and
//! needs its rights to hand over.

use k8s_openapi::api::core::v1::{
    ConfigMap, PersistentVolumeClaim, Pod, Secret, Service, ServiceAccount,
};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::ResourceExt;
use kube::runtime::controller::Action;

use crate::api::names::DEFAULT_CLUSTER_DOMAIN;
use crate::api::postgres::{DeletionPolicy, PostgresSpec, StorageType, TlsConfig};
use crate::api::postgres_version::PostgresVersionSpec;
use crate::api::tls::IssuerRef;
use crate::api::{PetSet, Postgres};
use crate::build::monitor::service_monitor_resource;
use crate::build::workload::is_made_by;
use crate::build::{BuildInputs, Cluster};
use crate::controller::Context;
use crate::controller::execute::certificates;
use crate::controller::execute::certificates::IssuedSecrets;
use crate::controller::finalizer;
use crate::controller::observe::superuser::auth_secret_name;
use crate::controller::outcome::{Interrupt, Pending, ReconcileResult};
use crate::controller::postgres::database::ReconciledDatabase;
use crate::controller::postgres::status;
use crate::plan::status::database::DatabaseStatusWriter;
use crate::rules::ClusterFacts as _;
use crate::tls::Alias;

/// Annotation of a Service that stays while its database is halted.
const KEEP: (&str, &str) = ("kubedb.com/resource-policy-keep-on", "halt");

/// Deletes the objects of a database as its deletion policy says, then lets it go.
pub(crate) async fn clean_up(context: &Context, postgres: &Postgres) -> ReconcileResult<Action> {
    if !finalizer::is_held(postgres) {
        return Ok(Action::await_change());
    }
    let policy = policy(&postgres.spec);
    if policy == DeletionPolicy::DoNotTerminate {
        let why = format!(
            "postgres \"{}\" can't be terminated. To delete, change spec.deletionPolicy",
            status::database(postgres)
        );
        return Err(Interrupt::Blocked("DoNotTerminate", why));
    }
    // Without a valid name nothing was ever made.
    if let Some(cluster) = names_only(postgres) {
        ReconciledDatabase::new(context, postgres, cluster)?
            .delete_objects(policy)
            .await?;
    }
    finalizer::release(context, postgres).await?;
    context.forget(postgres);
    Ok(Action::await_change())
}

/// Stops a database and keeps all that it needs to come back.
pub(crate) async fn halt(context: &Context, postgres: &Postgres) -> ReconcileResult<Action> {
    let Some(cluster) = names_only(postgres) else {
        return Ok(Action::await_change());
    };
    ReconciledDatabase::new(context, postgres, cluster)?
        .delete_workload()
        .await?;
    status::write(context, postgres, DatabaseStatusWriter::halted).await?;
    status::done(context, postgres).await?;
    Ok(Action::await_change())
}

fn policy(spec: &PostgresSpec) -> DeletionPolicy {
    let asked = spec.deletion_policy.unwrap_or(DeletionPolicy::Delete);
    if spec.halted == Some(true) && asked != DeletionPolicy::WipeOut {
        DeletionPolicy::Halt
    } else {
        asked
    }
}

/// A cluster with the names of this one and nothing else of its spec, which may have become
/// impossible; `None` if no object can have these names.
fn names_only(postgres: &Postgres) -> Option<Cluster> {
    let mut bare = Postgres::new(&postgres.name_any(), PostgresSpec::default());
    bare.metadata = postgres.metadata.clone();
    bare.spec.storage_type = Some(StorageType::Ephemeral);
    bare.spec.auth_secret.clone_from(&postgres.spec.auth_secret);
    bare.spec.tls = postgres.spec.tls.as_ref().map(|tls| {
        let mut certificates = tls.certificates.clone();
        certificates.retain(|wish| Alias::parse(&wish.alias).is_some());
        certificates.sort_by(|a, b| a.alias.cmp(&b.alias));
        certificates.dedup_by(|a, b| a.alias == b.alias);
        let issuer_ref = Some(IssuerRef {
            name: "any".to_owned(),
            ..IssuerRef::default()
        });
        TlsConfig {
            issuer_ref,
            certificates,
        }
    });
    let version = PostgresVersionSpec {
        version: "17".to_owned(),
        ..PostgresVersionSpec::default()
    };
    Cluster::build(
        &bare,
        &BuildInputs {
            version: &version,
            superuser: "postgres",
            user_conf: None,
            live_pods: 0,
            cluster_domain: DEFAULT_CLUSTER_DOMAIN,
        },
    )
    .ok()
}

impl ReconciledDatabase<'_> {
    async fn delete_objects(&self, policy: DeletionPolicy) -> ReconcileResult<()> {
        let (objects, cluster) = (&self.objects, &self.cluster);
        self.stop_pods().await?;
        let issued = if policy == DeletionPolicy::WipeOut {
            IssuedSecrets::Delete
        } else {
            IssuedSecrets::Keep
        };
        certificates::delete_trial(self.context, objects, cluster.name(), None).await?;
        certificates::delete_certificates(self.context, objects, cluster, issued).await?;
        for map in cluster.names().patroni_config_maps().all() {
            objects.delete::<ConfigMap>(&map).await?;
        }
        if policy != DeletionPolicy::Halt {
            self.delete_data().await?;
        }
        if policy == DeletionPolicy::WipeOut {
            self.delete_auth_secret().await
        } else {
            objects.orphan::<Secret>(&cluster.auth_secret()).await?;
            Ok(())
        }
    }

    async fn delete_workload(&self) -> ReconcileResult<()> {
        let (objects, cluster) = (&self.objects, &self.cluster);
        self.stop_pods().await?;
        let name = cluster.name();
        objects.delete::<RoleBinding>(name).await?;
        objects.delete::<Role>(name).await?;
        objects.delete::<ServiceAccount>(name).await?;
        objects.delete::<PodDisruptionBudget>(name).await?;
        for service in [
            name.to_owned(),
            cluster.names().standby_service(),
            cluster.names().pods_service(),
            cluster.names().stats_service(),
        ] {
            let live = objects.owned::<Service>(&service).await?;
            if let Some(live) = live.filter(|live| !is_kept(live)) {
                objects.delete_seen(&live).await?;
            }
        }
        let kind = service_monitor_resource();
        objects
            .delete_if_known(&kind, &cluster.names().stats_service())
            .await?;
        Ok(())
    }

    /// Ends the pods, and waits until they have gone.
    async fn stop_pods(&self) -> ReconcileResult<()> {
        let name = self.cluster.name();
        self.objects.delete::<PetSet>(name).await?;
        let labelled = self.objects.labelled::<Pod>().await?;
        if labelled.iter().any(|pod| is_made_by(name, pod)) {
            Err(Interrupt::Wait(Pending::PodsGone))
        } else {
            Ok(())
        }
    }

    async fn delete_data(&self) -> ReconcileResult<()> {
        for claim in self.objects.labelled::<PersistentVolumeClaim>().await? {
            self.objects.delete_seen(&claim).await?;
        }
        Ok(())
    }

    /// Deletes the superuser's Secret, unless another database uses it too.
    async fn delete_auth_secret(&self) -> ReconcileResult<()> {
        let name = self.cluster.auth_secret();
        let databases = self.context.facts.databases(self.cluster.namespace());
        let is_shared = databases.iter().any(|other| {
            other.name_any() != self.cluster.name() && auth_secret_name(other) == name
        });
        if !is_shared {
            self.objects.delete::<Secret>(&name).await?;
        }
        Ok(())
    }
}

fn is_kept(service: &Service) -> bool {
    let (key, value) = KEEP;
    service
        .annotations()
        .get(key)
        .is_some_and(|own| own == value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn postgres(spec: &str) -> Postgres {
        let mut postgres = Postgres::new("pg", serde_saphyr::from_str(spec).expect("a spec"));
        postgres.metadata.namespace = Some("demo".to_owned());
        postgres
    }

    #[test]
    fn a_database_that_cannot_be_built_can_be_deleted() {
        let impossible = postgres(
            "{version: gone, replicas: 0, tls: {certificates: [{alias: client, secretName: mine}, {alias: x}, {alias: client}]}}",
        );
        let cluster = names_only(&impossible).expect("names");
        assert_eq!(cluster.certificate_secret(Alias::Client), "mine");
        assert_eq!(cluster.auth_secret(), "pg-auth");
        let mut nameless = impossible;
        nameless.metadata.name = Some("Not.A.Name".to_owned());
        assert!(names_only(&nameless).is_none());
    }

    #[test]
    fn a_halted_database_keeps_its_data_unless_it_is_to_be_wiped_out() {
        let of = |spec: &str| policy(&postgres(spec).spec);
        assert_eq!(of("version: '17'"), DeletionPolicy::Delete);
        assert_eq!(of("{version: '17', halted: true}"), DeletionPolicy::Halt);
        assert_eq!(
            of("{version: '17', halted: true, deletionPolicy: WipeOut}"),
            DeletionPolicy::WipeOut
        );
        assert_eq!(
            of("{version: '17', deletionPolicy: DoNotTerminate}"),
            DeletionPolicy::DoNotTerminate
        );
    }
}
