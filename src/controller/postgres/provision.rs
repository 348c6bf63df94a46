//! From a `Postgres` to its objects: dereference, validate, build, apply.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use kube::runtime::events::EventType;

use crate::api::annotations::PREVIOUS_OF;
use crate::api::condition::holds;
use crate::api::{PetSet, Postgres, PostgresSpec};
use crate::build::current_posture::{
    CurrentPosture, PostureObjects, PostureUnknown, current_posture,
};
use crate::build::patroni::dynamic::DynamicConfig;
use crate::build::patroni::{dynamic, local};
use crate::build::{Cluster, access, disruption, monitor, pet_set, secrets, services, trust};
use crate::cluster::{ApplyOutcome, Objects};
use crate::controller::Context;
use crate::controller::execute::certificates;
use crate::controller::observe::certificates::{explain_not_issued, fetch_issued};
use crate::controller::observe::posture as posture_objects;
use crate::controller::observe::spec::{Built, SpecProblem};
use crate::controller::observe::{spec, superuser};
use crate::controller::outcome::{Interrupt, ReconcileResult};
use crate::controller::postgres::{credentials, scale, user_conf};
use crate::pki::issued::{bundle, cas};
use crate::plan::operation::goal;
use crate::plan::status::database::types::PROVISIONED;
use crate::rules::postgres::rules;
use crate::rules::{ClusterFacts, refusals};
use crate::tls::{Posture, posture};

/// A database as it was built.
pub(crate) struct Provisioned {
    pub(crate) cluster: Cluster,
    /// Where it is.
    pub(crate) posture: Posture,
    /// What its spec asks for and cannot be had now, beside which everything else was done.
    pub(crate) unmet: Option<Interrupt>,
    /// It was built; what is there stays as it is otherwise.
    pub(crate) is_built: bool,
}

/// Makes a database what its spec says, as far as that takes no walk.
pub(crate) async fn provision(
    context: &Context,
    postgres: &Postgres,
) -> ReconcileResult<Provisioned> {
    check(context, postgres)?;
    let secret = superuser::auth(context, postgres).await?;
    let Built {
        cluster,
        kept,
        barred,
    } = spec::build(context, postgres, secret.as_ref()).await?;
    let objects = spec::objects(context, postgres, &cluster)?;
    if let Some(SpecProblem { why, .. }) = barred {
        // What runs stays as it is, and its certificates are renewed.
        let ((here, _), _) = posture_of(context, postgres, &objects, &cluster).await?;
        let unmet = Some(Interrupt::Blocked("Invalid", why));
        return Ok(Provisioned {
            cluster,
            posture: here.posture,
            unmet,
            is_built: false,
        });
    }

    apply_services(context, postgres, &objects, &cluster).await?;
    credentials::login(context, postgres, &objects, &cluster, secret).await?;
    credentials::agent(context, postgres, &objects, &cluster).await?;

    let (here, unasked) = posture_of(context, postgres, &objects, &cluster).await?;
    apply_rbac(&objects, &cluster, here.1.pet_set.as_ref()).await?;
    configuration(context, postgres, &objects, &cluster, &here).await?;
    workload(context, postgres, &objects, &cluster, &here).await?;
    metrics(context, postgres, &objects, &cluster, &here.0).await?;
    let unmet = kept
        .map(|(reason, why)| Interrupt::Blocked(reason, why))
        .or(unasked);
    Ok(Provisioned {
        cluster,
        posture: here.0.posture,
        unmet,
        is_built: true,
    })
}

/// The rules of admission once more, for a database that is new: the webhooks may be off.
///
/// A database that runs is not given up because its StorageClass has gone.
fn check(context: &Context, postgres: &Postgres) -> ReconcileResult<()> {
    if holds(postgres.conditions(), PROVISIONED) {
        return Ok(());
    }
    if !context.facts.unknown().is_empty() {
        return Err(Interrupt::Wait("the facts that rules look at"));
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

async fn apply_services(
    context: &Context,
    postgres: &Postgres,
    objects: &Objects,
    cluster: &Cluster,
) -> ReconcileResult<()> {
    let done = objects.apply(services::pods(cluster)).await?;
    tell(context, postgres, done, "governing service").await;
    let done = objects.apply(services::primary(cluster)).await?;
    tell(context, postgres, done, "Service").await;
    let done = objects
        .apply_or_delete(
            services::standby(cluster),
            &cluster.names().standby_service(),
        )
        .await?;
    tell(context, postgres, done, "Service").await;
    Ok(())
}

async fn apply_rbac(
    objects: &Objects,
    cluster: &Cluster,
    set: Option<&PetSet>,
) -> ReconcileResult<()> {
    objects
        .apply_or_delete(access::service_account(cluster), cluster.name())
        .await?;
    let live = set.map_or(0, |set| {
        let there = set.status.as_ref().map_or(0, |status| status.replicas);
        there.max(set.spec.replicas.unwrap_or_default())
    });
    objects
        .apply(access::role_of(cluster, live.max(cluster.replicas())))
        .await?;
    objects.apply(access::role_binding(cluster)).await?;
    Ok(())
}

/// Where the cluster is, or where it begins. What is asked of cert-manager is asked here, because
/// the answer may be needed.
///
/// A cluster that runs is looked after also where cert-manager cannot be asked; why it could not be
/// is said beside.
async fn posture_of(
    context: &Context,
    postgres: &Postgres,
    objects: &Objects,
    cluster: &Cluster,
) -> ReconcileResult<((CurrentPosture, PostureObjects), Option<Interrupt>)> {
    let has_tls = postgres.spec.tls.is_some();
    let pieces = posture_objects::fetch(objects, cluster).await?;
    // What cert-manager was asked for before, it goes on to renew.
    let asked = match goal::too_many_names(&PostgresSpec::default(), &postgres.spec) {
        Some(why) => Err(Interrupt::Blocked(
            "Invalid",
            format!("spec.tls.certificates: {why}"),
        )),
        None => certificates::ask(objects, cluster).await,
    };
    let unasked = match asked {
        Err(stop @ Interrupt::Blocked(..)) if !pieces.is_empty() => Some(stop),
        asked => asked.map(|()| None)?,
    };
    let issued = if has_tls {
        Some(fetch_issued(context, objects, cluster).await?)
    } else {
        None
    };
    let good = issued.as_ref().and_then(|issued| issued.as_ref().ok());
    let wished = posture(
        &postgres.spec,
        cluster.major(),
        good.map(|issued| &issued.material),
    );
    match current_posture(cluster, &pieces, wished.as_ref(), good) {
        Err(PostureUnknown::NotIssued) if let Some(Err(problems)) = &issued => {
            Err(explain_not_issued(context, objects, cluster, problems).await?)
        }
        here => Ok(((here?, pieces), unasked)),
    }
}

/// What pods mount, and what Patroni reads.
async fn configuration(
    context: &Context,
    postgres: &Postgres,
    objects: &Objects,
    cluster: &Cluster,
    (here, pieces): &(CurrentPosture, PostureObjects),
) -> ReconcileResult<()> {
    match &here.served {
        Some(served) => {
            let operation = operation_under_way(context, postgres, pieces);
            let before = operation.and_then(|_| pieces.previous_material());
            let mut secret = secrets::tls(cluster, served, before.as_ref());
            secret
                .annotations_mut()
                .extend(operation.map(|uid| (PREVIOUS_OF.to_owned(), uid.clone())));
            objects.apply_over(pieces.tls.as_ref(), secret).await?;
            publish(objects, cluster, served).await?;
        }
        None if postgres.spec.tls.is_none() => {
            certificates::forget(context, objects, cluster).await?
        }
        None => {}
    }
    user_conf::write(context, postgres, objects, cluster).await?;
    objects
        .apply_over(
            pieces.patroni.as_ref(),
            local::config_map(cluster, &here.posture),
        )
        .await?;
    let mut config = dynamic::config(cluster, &here.posture);
    if !scale::left_slots(context, postgres).is_empty() {
        config.drop_left_slots();
    }
    let wish = dynamic::config_map(cluster, &here.posture);
    objects
        .apply_over(
            pieces.shared.as_ref(),
            as_it_is_spelled(pieces.shared.as_ref(), wish, &config),
        )
        .await?;
    Ok(())
}

/// The operation that may want to go back to what was served before, by its uid: somebody has
/// resumed the database under it.
fn operation_under_way<'a>(
    context: &Context,
    postgres: &Postgres,
    pieces: &'a PostureObjects,
) -> Option<&'a String> {
    let uid = pieces.tls.as_ref()?.annotations().get(PREVIOUS_OF)?;
    let requests = context.facts.requests(
        &postgres.namespace().unwrap_or_default(),
        &postgres.name_any(),
    );
    requests
        .iter()
        .any(|request| request.uid().as_ref() == Some(uid) && !request.is_finished())
        .then_some(uid)
}

/// What clients should trust: what is published, if it covers what is served, because somebody on a
/// walk may publish more.
async fn publish(
    objects: &Objects,
    cluster: &Cluster,
    served: &secrets::ServedMaterial,
) -> ReconcileResult<()> {
    let live: Option<ConfigMap> = objects.get(&cluster.names().ca_config_map()).await?;
    let published = live
        .as_ref()
        .and_then(|map| map.data.as_ref()?.get("ca.crt"))
        .map(|pem| cas(pem.as_bytes()));
    let needed = served.cas();
    let enough = published.filter(|published| needed.keys().all(|ca| published.contains_key(ca)));
    let all = enough.unwrap_or(needed);
    let text = bundle(all.keys().copied(), &all).unwrap_or_default();
    objects
        .apply_over(live.as_ref(), trust::ca_config_map(cluster, &text))
        .await?;
    Ok(())
}

/// Patroni may write its configuration again in a spelling of its own, which is no reason to write
/// it back.
fn as_it_is_spelled(
    live: Option<&ConfigMap>,
    mut wish: ConfigMap,
    config: &DynamicConfig,
) -> ConfigMap {
    let spelled = live.and_then(|live| live.annotations().get(dynamic::ANNOTATION));
    let same = spelled.filter(|text| DynamicConfig::parse(text).is_ok_and(|live| live == *config));
    let text = same.cloned().unwrap_or_else(|| config.to_string());
    wish.annotations_mut()
        .insert(dynamic::ANNOTATION.to_owned(), text);
    wish
}

async fn workload(
    context: &Context,
    postgres: &Postgres,
    objects: &Objects,
    cluster: &Cluster,
    (here, pieces): &(CurrentPosture, PostureObjects),
) -> ReconcileResult<()> {
    let mut wish = pet_set::pet_set(cluster, &here.posture);
    if let Some(live) = &pieces.pet_set {
        // A claim template cannot be changed once there is a StatefulSet.
        wish.spec.volume_claim_templates = live.spec.volume_claim_templates.clone();
    }
    wish.spec.replicas = Some(scale::replicas(context, postgres, objects, cluster, pieces).await?);
    let scaled = wish.spec.replicas == Some(cluster.replicas());
    let done = objects.apply_over(pieces.pet_set.as_ref(), wish).await?;
    tell(context, postgres, done, "Postgres").await;
    objects
        .apply_or_delete(disruption::disruption_budget(cluster), cluster.name())
        .await?;
    if scaled {
        Ok(())
    } else {
        Err(Interrupt::Wait("a primary that stays"))
    }
}

async fn metrics(
    context: &Context,
    postgres: &Postgres,
    objects: &Objects,
    cluster: &Cluster,
    here: &CurrentPosture,
) -> ReconcileResult<()> {
    let kind = monitor::service_monitor_resource();
    let done = objects
        .apply_or_delete(
            monitor::stats(cluster, &here.posture),
            &cluster.names().stats_service(),
        )
        .await?;
    tell(context, postgres, done, "stats service").await;
    match monitor::service_monitor(cluster, &here.posture) {
        Some(object) => drop(objects.apply_if_known(&kind, object).await?),
        None => {
            objects
                .delete_if_known(&kind, &cluster.names().stats_service())
                .await?
        }
    }
    Ok(())
}

async fn tell(
    context: &Context,
    postgres: &Postgres,
    done: impl Into<Option<ApplyOutcome>>,
    what: &str,
) {
    let verb = match done.into() {
        None | Some(ApplyOutcome::Nothing) => return,
        Some(ApplyOutcome::Created) => "created",
        Some(ApplyOutcome::Changed) => "patched",
    };
    context
        .publish_event(
            postgres,
            EventType::Normal,
            "Successful",
            format!("Successfully {verb} {what}"),
        )
        .await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

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
            as_it_is_spelled(live, ConfigMap::default(), &config)
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
