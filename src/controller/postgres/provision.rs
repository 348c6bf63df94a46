//! From a `Postgres` to its objects: dereference, validate, build, apply.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;

use crate::api::annotations::PREVIOUS_OF;
use crate::api::condition::holds;
use crate::api::{PetSet, Postgres, PostgresSpec};
use crate::build::current_posture::{
    CurrentPosture, PostureObjects, PostureUnknown, current_posture,
};
use crate::build::patroni::dynamic::DynamicConfig;
use crate::build::patroni::{dynamic, local};
use crate::build::tls_groups::Images;
use crate::build::{access, disruption, monitor, pet_set, secrets, services, trust};
use crate::cluster::ApplyOutcome;
use crate::controller::Context;
use crate::controller::execute::certificates;
use crate::controller::observe::certificates::{
    explain_not_issued, fetch_issued, fetch_requirements,
};
use crate::controller::observe::spec::Parsed;
use crate::controller::observe::stored_certificates::published_cas;
use crate::controller::observe::{posture as posture_objects, spec, superuser};
use crate::controller::outcome::{Interrupt, Pending, ReconcileResult};
use crate::controller::postgres::database::ReconciledDatabase;
use crate::pki::issued::{ServedMaterial, bundle};
use crate::plan::operation::goal;
use crate::plan::status::database::types::PROVISIONED;
use crate::rules::postgres::rules;
use crate::rules::{ClusterFacts, refusals};
use crate::tls::{Posture, posture};

/// A database whose objects are applied.
pub(crate) struct Provisioned<'a> {
    pub(crate) database: ReconciledDatabase<'a>,
    /// The posture of the cluster.
    pub(crate) posture: Posture,
    /// Why part of the spec is not carried out, although all the rest was; `None` if all of it is.
    pub(crate) unmet: Option<Interrupt>,
    /// What was done with the spec.
    pub(crate) extent: Extent,
}

/// What was done with the spec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// All objects were applied.
    Applied,
    /// The spec must not, or cannot, be built: the objects stay as they are.
    LeftAlone,
}

/// A posture, the objects that say it, and why cert-manager could not be asked, if so.
struct PostureInUse {
    current: CurrentPosture,
    objects: PostureObjects,
    not_requested: Option<Interrupt>,
}

/// Applies the objects of a database, as far as that takes no walk.
pub(crate) async fn provision<'a>(
    context: &'a Context,
    postgres: &'a Postgres,
) -> ReconcileResult<Provisioned<'a>> {
    validate(context, postgres)?;
    let secret = superuser::fetch_auth_secret(context, postgres).await?;
    let Parsed {
        cluster,
        tls_groups,
        not_followed,
        spec_problem,
    } = spec::parse(context, postgres, secret.as_ref()).await?;
    let mut database = ReconciledDatabase::new(context, postgres, cluster)?;
    if let Some(problem) = spec_problem {
        // The cluster stays as it is, and its certificates are renewed.
        let in_use = database.current_posture().await?;
        return Ok(Provisioned {
            database,
            posture: in_use.current.posture,
            unmet: Some(Interrupt::Blocked("Invalid", problem.why)),
            extent: Extent::LeftAlone,
        });
    }

    database.apply_services().await?;
    database.ensure_login(secret).await?;
    database.ensure_patroni_password().await?;

    let PostureInUse {
        current,
        objects,
        not_requested,
    } = database.current_posture().await?;
    let pods = context.watched.labelled_pods(postgres);
    let pods = pods.iter().map(AsRef::as_ref);
    let images = Images::new(database.cluster.name(), objects.pet_set.as_ref(), pods);
    database.cluster = database.cluster.with_default_groups(&tls_groups, &images);
    database.apply_rbac(objects.pet_set.as_ref()).await?;
    database.apply_configuration(&current, &objects).await?;
    let replicas = database.apply_workload(&current, &objects).await?;
    database.apply_monitoring(&current).await?;
    let not_followed = not_followed.map(|(reason, why)| Interrupt::Blocked(reason, why));
    let too_few = replicas < database.cluster.replicas();
    // Not an error: the renewal that follows takes the names of the new pods into service.
    let nameless = too_few.then_some(Interrupt::Wait(Pending::NamesOfPods));
    Ok(Provisioned {
        database,
        posture: current.posture,
        unmet: not_followed.or(not_requested).or(nameless),
        extent: Extent::Applied,
    })
}

/// Judges a new database by the rules of admission once more, because the webhooks may be off.
///
/// A database that runs is not judged: it is not given up because its StorageClass has gone.
fn validate(context: &Context, postgres: &Postgres) -> ReconcileResult<()> {
    if holds(postgres.conditions(), PROVISIONED) {
        return Ok(());
    }
    if !context.facts.unknown().is_empty() {
        return Err(Interrupt::Wait(Pending::Facts));
    }
    let refusals = refusals(
        rules(),
        postgres.clone(),
        context.facts.as_ref(),
        &context.settings.allowed,
    );
    if refusals.is_empty() {
        Ok(())
    } else {
        Err(Interrupt::Blocked("Invalid", refusals.join("\n")))
    }
}

impl ReconciledDatabase<'_> {
    async fn apply_services(&self) -> ReconcileResult<()> {
        let (objects, cluster) = (&self.objects, &self.cluster);
        let outcome = objects.apply(services::pods(cluster)).await?;
        self.publish_outcome(outcome, "governing service").await;
        let outcome = objects.apply(services::primary(cluster)).await?;
        self.publish_outcome(outcome, "Service").await;
        let outcome = objects
            .apply_or_delete(
                services::standby(cluster),
                &cluster.names().standby_service(),
            )
            .await?;
        self.publish_outcome(outcome, "Service").await;
        Ok(())
    }

    async fn apply_rbac(&self, set: Option<&PetSet>) -> ReconcileResult<()> {
        let (objects, cluster) = (&self.objects, &self.cluster);
        objects
            .apply_or_delete(access::service_account(cluster), cluster.name())
            .await?;
        // Pods that are still to go need their rights too.
        let replicas = set.map_or(0, pet_set::live_pods).max(cluster.replicas());
        objects.apply(access::role_of(cluster, replicas)).await?;
        objects.apply(access::role_binding(cluster)).await?;
        Ok(())
    }

    /// Finds the posture of the cluster, or the first one of a new cluster. cert-manager is asked
    /// for certificates here, because a new cluster needs them.
    ///
    /// If cert-manager cannot be asked, a cluster that runs goes on, and the result says why.
    async fn current_posture(&self) -> ReconcileResult<PostureInUse> {
        let (context, cluster) = (self.context, &self.cluster);
        let objects = posture_objects::fetch(&self.objects, cluster).await?;
        let not_requested = match self.request_certificates().await {
            Ok(()) => None,
            Err(interrupt @ Interrupt::Blocked(..)) if !objects.is_empty() => Some(interrupt),
            Err(interrupt) => return Err(interrupt),
        };
        let issued = if self.postgres.spec.tls.is_some() {
            let served = objects.served_material();
            let trusted = served.as_ref().map(ServedMaterial::cas).unwrap_or_default();
            let leaves = served
                .as_ref()
                .map(ServedMaterial::leaves)
                .unwrap_or_default();
            let required =
                fetch_requirements(context, &self.objects, cluster, trusted, leaves).await?;
            Some(fetch_issued(context, &self.objects, cluster, &required).await?)
        } else {
            None
        };
        let good = issued.as_ref().and_then(|issued| issued.as_ref().ok());
        let desired = posture(
            &self.postgres.spec,
            cluster.major(),
            good.map(|issued| &issued.material),
        );
        match current_posture(cluster, &objects, desired.as_ref(), good) {
            Ok(current) => Ok(PostureInUse {
                current,
                objects,
                not_requested,
            }),
            Err(PostureUnknown::NotIssued) if let Some(Err(problems)) = &issued => {
                Err(explain_not_issued(context, &self.objects, cluster, problems).await?)
            }
            Err(unknown) => Err(unknown.into()),
        }
    }

    /// Certificates that were asked for before stay as they are if too many names are asked for
    /// now: cert-manager goes on to renew them.
    async fn request_certificates(&self) -> ReconcileResult<()> {
        match goal::too_many_names(&PostgresSpec::default(), &self.postgres.spec) {
            Some(why) => Err(Interrupt::Blocked(
                "Invalid",
                format!("spec.tls.certificates: {why}"),
            )),
            None => certificates::request_certificates(&self.objects, &self.cluster).await,
        }
    }

    /// Applies the files that pods mount, and the configuration that Patroni reads.
    async fn apply_configuration(
        &self,
        current: &CurrentPosture,
        live: &PostureObjects,
    ) -> ReconcileResult<()> {
        let (objects, cluster) = (&self.objects, &self.cluster);
        match &current.served {
            Some(served) => self.apply_certificates(served, live).await?,
            None if self.postgres.spec.tls.is_none() => {
                certificates::delete_all(self.context, objects, cluster).await?;
            }
            None => {}
        }
        self.write_user_conf().await?;
        let patroni = local::config_map(cluster, &current.posture);
        objects.apply_over(live.patroni.as_ref(), patroni).await?;
        let mut config = dynamic::config(cluster, &current.posture);
        self.drop_left_slots(&mut config);
        let shared = with_live_spelling(
            live.shared.as_ref(),
            dynamic::config_map(cluster, &current.posture),
            &config,
        );
        objects.apply_over(live.shared.as_ref(), shared).await?;
        Ok(())
    }

    /// Applies Secret `NAME-tls`, with the previous certificates beside the current ones if an
    /// operation may roll back to them, and ConfigMap `NAME-ca`.
    async fn apply_certificates(
        &self,
        served: &ServedMaterial,
        live: &PostureObjects,
    ) -> ReconcileResult<()> {
        let operation = self.unfinished_operation(live);
        let previous = operation.and_then(|_| live.previous_material());
        let mut secret = secrets::tls(&self.cluster, served, previous.as_ref());
        secret
            .annotations_mut()
            .extend(operation.map(|uid| (PREVIOUS_OF.to_owned(), uid.clone())));
        self.objects.apply_over(live.tls.as_ref(), secret).await?;
        self.publish_bundle(served).await
    }

    /// The uid of the operation that may roll back to the previous certificates: a user resumed the
    /// database while it ran.
    fn unfinished_operation<'a>(&self, live: &'a PostureObjects) -> Option<&'a String> {
        let uid = live.tls.as_ref()?.annotations().get(PREVIOUS_OF)?;
        let requests = self
            .context
            .facts
            .requests(self.cluster.namespace(), self.cluster.name());
        requests
            .iter()
            .any(|request| request.uid().as_ref() == Some(uid) && !request.is_finished())
            .then_some(uid)
    }

    /// Applies ConfigMap `NAME-ca`. A bundle that covers the current certificates stays as it is:
    /// a walk may have published more CAs.
    async fn publish_bundle(&self, served: &ServedMaterial) -> ReconcileResult<()> {
        let name = self.cluster.names().ca_config_map();
        let live: Option<ConfigMap> = self.objects.get(&name).await?;
        let published = live.as_ref().map(published_cas).unwrap_or_default();
        let needed = served.cas();
        let is_covered = needed.keys().all(|ca| published.contains_key(ca));
        let cas = if is_covered { published } else { needed };
        let text = bundle(cas.keys().copied(), &cas).unwrap_or_default();
        let bundle = trust::ca_config_map(&self.cluster, &text);
        self.objects.apply_over(live.as_ref(), bundle).await?;
        Ok(())
    }

    /// Applies the PetSet and the disruption budget; returns how many pods the set has now. They
    /// may be fewer than the spec says: see [`Self::next_replicas`].
    async fn apply_workload(
        &self,
        current: &CurrentPosture,
        live: &PostureObjects,
    ) -> ReconcileResult<i32> {
        let cluster = &self.cluster;
        let mut set = pet_set::pet_set(cluster, &current.posture);
        if let Some(live) = &live.pet_set {
            // Claim templates cannot be changed once there is a StatefulSet.
            set.spec.volume_claim_templates = live.spec.volume_claim_templates.clone();
        }
        let replicas = self.next_replicas(current, live).await?;
        set.spec.replicas = Some(replicas);
        let outcome = self.objects.apply_over(live.pet_set.as_ref(), set).await?;
        self.publish_outcome(outcome, "Postgres").await;
        self.objects
            .apply_or_delete(disruption::disruption_budget(cluster), cluster.name())
            .await?;
        if replicas > cluster.replicas() {
            Err(Interrupt::Wait(Pending::PrimaryThatStays))
        } else {
            Ok(replicas)
        }
    }

    async fn apply_monitoring(&self, current: &CurrentPosture) -> ReconcileResult<()> {
        let (objects, cluster) = (&self.objects, &self.cluster);
        let kind = monitor::service_monitor_resource();
        let stats = monitor::stats(cluster, &current.posture);
        let outcome = objects
            .apply_or_delete(stats, &cluster.names().stats_service())
            .await?;
        self.publish_outcome(outcome, "stats service").await;
        if let Some(object) = monitor::service_monitor(cluster, &current.posture) {
            objects.apply_if_known(&kind, object).await?;
        } else {
            let name = cluster.names().stats_service();
            objects.delete_if_known(&kind, &name).await?;
        }
        Ok(())
    }

    async fn publish_outcome(&self, outcome: impl Into<Option<ApplyOutcome>>, object: &str) {
        let verb = match outcome.into() {
            None | Some(ApplyOutcome::Nothing) => return,
            Some(ApplyOutcome::Created) => "created",
            Some(ApplyOutcome::Changed) => "patched",
        };
        self.publish_event("Successful", format!("Successfully {verb} {object}"))
            .await;
    }
}

/// The shared configuration with the text that is there, if it means the same: Patroni may write it
/// in a spelling of its own, which is no reason to write it back.
fn with_live_spelling(
    live: Option<&ConfigMap>,
    mut shared: ConfigMap,
    config: &DynamicConfig,
) -> ConfigMap {
    let is_same = |text: &&String| DynamicConfig::parse(text).is_ok_and(|live| live == *config);
    let live = live.and_then(|live| live.annotations().get(dynamic::ANNOTATION));
    let text = live
        .filter(is_same)
        .cloned()
        .unwrap_or_else(|| config.to_string());
    shared
        .annotations_mut()
        .insert(dynamic::ANNOTATION.to_owned(), text);
    shared
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_configuration_that_means_the_same_keeps_its_spelling() {
        let map = |text: &str| {
            let mut map = ConfigMap::default();
            map.annotations_mut()
                .insert("config".to_owned(), text.to_owned());
            map
        };
        let config = json!({"ttl": 30, "loop_wait": 5}).to_string();
        let config = DynamicConfig::parse(&config).expect("JSON");
        let spelled = |live: Option<&ConfigMap>| {
            with_live_spelling(live, ConfigMap::default(), &config)
                .annotations()
                .get("config")
                .cloned()
        };
        let theirs = r#"{ "loop_wait": 5, "ttl": 30 }"#;
        assert_eq!(spelled(Some(&map(theirs))).as_deref(), Some(theirs));
        for other in [r#"{"ttl": 31, "loop_wait": 5}"#, "damaged"] {
            assert_eq!(spelled(Some(&map(other))), Some(config.to_string()));
        }
        assert_eq!(spelled(None), Some(config.to_string()));
    }
}
