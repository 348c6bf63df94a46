//! From a `Postgres` to its objects: dereference, validate, build, apply.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::ResourceExt;
use kube::runtime::events::EventType;

use crate::api::annotations::{BUILT_OF, PREVIOUS_OF};
use crate::api::condition::{CONFIGURATION_NOT_TAKEN, VERSION_NOT_TAKEN, holds};
use crate::api::names::Names;
use crate::api::postgres::USER_CONF;
use crate::api::{PetSet, Postgres, PostgresSpec, PostgresVersion, bounds};
use crate::build::patroni::{DynamicConfig, dynamic, local};
use crate::build::user_conf::SECRET_NAME;
use crate::build::version::{BuiltOf, Choice, Named};
use crate::build::{
    BuildInputs as BuildFacts, Cluster, Unbuildable, access, disruption, monitor, pet_set, secrets,
    services, trust, version,
};
use crate::cluster::{ApplyOutcome, Error, Objects};
use crate::controller::Context;
use crate::controller::execute::certificates;
use crate::controller::observe::posture::{
    CurrentPosture, PostureObjects, current_posture, previous_material,
};
use crate::controller::postgres::{Interrupt, ReconcileResult, conditions};
use crate::controller::postgres::{credentials, scale, user_conf};
use crate::pki::issued::{bundle, cas};
use crate::plan::operation::goal;
use crate::plan::status::database::types::PROVISIONED;
use crate::rules::postgres::{lasting, rules};
use crate::rules::{ClusterFacts, Review, judge, refusals};
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
    let secret = credentials::auth(context, postgres).await?;
    let Built {
        cluster,
        kept,
        barred,
    } = build(context, postgres, secret.as_ref()).await?;
    let objects = objects(context, postgres, &cluster)?;
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

/// The objects of this database.
pub(crate) fn objects(
    context: &Context,
    postgres: &Postgres,
    cluster: &Cluster,
) -> ReconcileResult<Objects> {
    Objects::owned_by(&context.client, postgres, cluster.selector())
        .ok_or(Interrupt::Wait("an owner with a uid"))
}

/// A database, parsed.
pub(crate) struct Built {
    pub(crate) cluster: Cluster,
    /// Why it is not built as its spec says, if it is not: reason and message.
    pub(crate) kept: Option<(&'static str, String)>,
    /// Why nothing of it is built any more, if that is so.
    pub(crate) barred: Option<SpecProblem>,
}

/// A database that was built once, and whose spec asks by now for what must not, or cannot, be
/// built: somebody has edited it while the webhooks were off, or the installation allows less than
/// it did.
pub(crate) struct SpecProblem {
    pub(crate) why: String,
    /// The spec cannot be built at all, so what was parsed is what certificates need of it, and no
    /// more.
    pub(crate) is_bare: bool,
}

/// The database, parsed. What is built goes on with the major version of its data, whatever the
/// spec says.
pub(crate) async fn build(
    context: &Context,
    postgres: &Postgres,
    secret: Option<&Secret>,
) -> ReconcileResult<Built> {
    let wished = postgres.spec.version.as_str();
    let built = built_of(context, postgres).await?;
    let was_built = built.is_some();
    let choice = match built {
        None => None,
        Some(built) => {
            let (there, wish) = (find(context, &built.name)?, find(context, wished)?);
            let wish = Named {
                name: wished,
                spec: wish.as_ref().map(|version| &version.spec),
            };
            let choice = version::choose(&built, there.as_ref().map(|version| &version.spec), wish);
            Some((built, choice))
        }
    };
    let (name, kept) = match choice {
        None | Some((_, Choice::Follow)) => (wished.to_owned(), None),
        Some((built, Choice::Stay(why))) => (built.name, Some((VERSION_NOT_TAKEN, why))),
        Some((_, Choice::Neither(why))) => return Err(Interrupt::Blocked(VERSION_NOT_TAKEN, why)),
    };
    let version = find(context, &name)?.ok_or_else(|| {
        let why = format!(
            "there is no PostgresVersion {name}: install it, or name another in spec.version"
        );
        Interrupt::Blocked("Invalid", why)
    })?;
    let user_conf = user_conf(context, postgres).await?;
    let superuser = credentials::superuser(context, postgres, secret);
    let facts = BuildFacts {
        version: &version.spec,
        superuser: &superuser,
        user_conf: user_conf.as_deref(),
    };
    let mut named = postgres.clone();
    named.spec.version = name;
    let mut kept = kept;
    let mut parsed = Cluster::build(&named, &facts);
    // A database that runs goes on with what it has: its Secret may be gone, or be about to be
    // corrected.
    if let Err(why) = &parsed
        && why.field == SECRET_NAME
        && let Some(taken) = taken_conf(context, postgres).await?
    {
        kept = kept.or_else(|| Some((CONFIGURATION_NOT_TAKEN, why.to_string())));
        parsed = Cluster::build(
            &named,
            &BuildFacts {
                user_conf: Some(&taken),
                ..facts
            },
        );
    }
    match parsed {
        Ok(cluster) => match not_allowed(context, &named) {
            Some(why) if !was_built => Err(Interrupt::Blocked("Invalid", why)),
            why => Ok(Built {
                cluster,
                kept,
                barred: why.map(|why| SpecProblem {
                    why,
                    is_bare: false,
                }),
            }),
        },
        Err(why) if was_built => {
            let cluster = Cluster::build(&bare(named), &facts).map_err(|_| invalid(&why))?;
            Ok(Built {
                cluster,
                kept,
                barred: Some(SpecProblem {
                    why: why.to_string(),
                    is_bare: true,
                }),
            })
        }
        Err(why) => Err(invalid(&why)),
    }
}

fn invalid(why: &Unbuildable) -> Interrupt {
    Interrupt::Blocked("Invalid", why.to_string())
}

/// The database without what only pods and their settings are made of: its certificates are what
/// they were.
fn bare(mut postgres: Postgres) -> Postgres {
    let PostgresSpec {
        replicas,
        configuration,
        pod_template,
        init,
        ..
    } = &mut postgres.spec;
    *replicas = replicas.map(|replicas| bounds::clamp_replicas(replicas).max(1));
    (*configuration, *pod_template, *init) = (None, None, None);
    postgres
}

/// What a database may not have, whatever it had when it was made: the webhooks may be off, and
/// what an installation allows changes.
fn not_allowed(context: &Context, postgres: &Postgres) -> Option<String> {
    let review = Review::create(postgres.clone(), Arc::clone(&context.settings.allowed));
    let facts = context
        .facts
        .unknown()
        .is_empty()
        .then_some(context.facts.as_ref() as &dyn ClusterFacts);
    let found = judge(lasting(), &review, facts);
    let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

/// What the database is built of; none before it is built. Either of two objects says so, because
/// somebody may delete one: the PetSet, which is watched, or else the ConfigMap, which stays while
/// the database is halted.
async fn built_of(context: &Context, postgres: &Postgres) -> Result<Option<BuiltOf>, Error> {
    let (namespace, name) = (
        postgres.namespace().unwrap_or_default(),
        postgres.name_any(),
    );
    if let Some(built) = context
        .pet_set(&namespace, &name)
        .and_then(|set| declared_version(postgres, set.as_ref()))
    {
        return Ok(Some(built));
    }
    let map = context
        .get::<ConfigMap>(&namespace, &Names::new(&name).patroni())
        .await?;
    Ok(map.and_then(|map| declared_version(postgres, &map)))
}

/// What an object of the database says that it is built of.
fn declared_version(postgres: &Postgres, object: &impl ResourceExt) -> Option<BuiltOf> {
    object
        .annotations()
        .get(BUILT_OF)
        .filter(|_| is_owned(postgres, object))?
        .parse()
        .ok()
}

/// Whether an object is this database's. What an earlier database of its name left behind is
/// collected a moment later.
fn is_owned(postgres: &Postgres, object: &impl ResourceExt) -> bool {
    object
        .owner_references()
        .iter()
        .any(|owner| Some(&owner.uid) == postgres.uid().as_ref())
}

/// The PostgresVersion of this name, if there is one.
fn find(context: &Context, name: &str) -> ReconcileResult<Option<Arc<PostgresVersion>>> {
    match context.facts.version(name) {
        None if !context.facts.unknown().is_empty() => Err(Interrupt::Wait("the versions")),
        found => Ok(found),
    }
}

/// The rules of admission once more, for a database that is new: the webhooks may be off.
///
/// A database that runs is not given up because its StorageClass has gone.
fn check(context: &Context, postgres: &Postgres) -> ReconcileResult<()> {
    if holds(conditions(postgres), PROVISIONED) {
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

/// Key `user.conf` of the Secret that the spec names.
async fn user_conf(context: &Context, postgres: &Postgres) -> ReconcileResult<Option<String>> {
    let named = postgres
        .spec
        .configuration
        .as_ref()
        .and_then(|configuration| configuration.secret_name.clone());
    let Some(name) = named else { return Ok(None) };
    let secret = context
        .get::<Secret>(&postgres.namespace().unwrap_or_default(), &name)
        .await?;
    Ok(secret.and_then(conf_in))
}

/// What was taken of it last.
async fn taken_conf(context: &Context, postgres: &Postgres) -> ReconcileResult<Option<String>> {
    let name = Names::new(&postgres.name_any()).user_conf_secret();
    let secret = context
        .get::<Secret>(&postgres.namespace().unwrap_or_default(), &name)
        .await?;
    Ok(secret
        .filter(|secret| is_owned(postgres, secret))
        .and_then(conf_in))
}

fn conf_in(secret: Secret) -> Option<String> {
    String::from_utf8(secret.data?.remove(USER_CONF)?.0).ok()
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
    let pieces = PostureObjects::fetch(objects, cluster).await?;
    // What cert-manager was asked for before, it goes on to renew.
    let asked = match goal::too_many_names(&PostgresSpec::default(), &postgres.spec) {
        Some(why) => Err(Interrupt::Blocked(
            "Invalid",
            format!("spec.tls.certificates: {why}"),
        )),
        None => certificates::ask(objects, cluster).await,
    };
    let unasked = match asked {
        Err(stop @ Interrupt::Blocked(..)) if !pieces.none() => Some(stop),
        asked => asked.map(|()| None)?,
    };
    let issued = if has_tls {
        Some(certificates::read(context, objects, cluster).await?)
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
        Err(Interrupt::Wait(_)) if let Some(Err(problems)) = &issued => {
            Err(certificates::why(context, objects, cluster, problems).await?)
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
            let before = operation.and_then(|_| previous_material(pieces));
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
    use crate::api::postgres_version::PostgresVersionSpec;
    use crate::build::certificates::certificate;
    use crate::tls::Alias;
    use serde_json::json;

    #[test]
    fn a_spec_that_cannot_be_built_leaves_its_certificates_alone() {
        let spec = json!({
            "version": "17", "storageType": "Ephemeral", "replicas": 2_000_000_000,
            "configuration": {"inline": {"user.conf": "a..b = 1"}},
            "podTemplate": {"spec": {"containers": [{"name": "sidecar"}]}},
            "tls": {"issuerRef": {"name": "i"}, "certificates": [{"alias": "server", "dnsNames": ["db.example.com"]}]},
        });
        let mut postgres = Postgres::new("pg", serde_json::from_value(spec).expect("a spec"));
        postgres.metadata.namespace = Some("demo".to_owned());
        let version = PostgresVersionSpec {
            version: "17.12".to_owned(),
            ..PostgresVersionSpec::default()
        };
        let facts = BuildFacts {
            version: &version,
            superuser: "postgres",
            user_conf: None,
        };
        assert!(Cluster::build(&postgres, &facts).is_err());
        let cluster = Cluster::build(&bare(postgres), &facts).expect("a cluster");
        assert_eq!(cluster.replicas(), bounds::MAX_REPLICAS);
        let certificate = certificate(&cluster, Alias::Server).expect("a certificate");
        assert!(
            certificate
                .spec
                .dns_names
                .contains(&"db.example.com".to_owned())
        );
    }

    #[test]
    fn what_a_database_is_built_of_is_said_by_its_own_objects_only() {
        let mut postgres = Postgres::new(
            "pg",
            serde_json::from_value(json!({"version": "17.12"})).expect("a spec"),
        );
        postgres.metadata.uid = Some("1".to_owned());
        let read = |owner: &str, text: &str| {
            let owner = json!({"apiVersion": "kubedb.com/v1", "kind": "Postgres", "name": "pg", "uid": owner});
            let map =
                json!({"metadata": {"annotations": {BUILT_OF: text}, "ownerReferences": [owner]}});
            declared_version(
                &postgres,
                &serde_json::from_value::<ConfigMap>(map).expect("a map"),
            )
        };
        assert_eq!(
            read("1", "17/corp"),
            Some(BuiltOf {
                major: 17,
                name: "corp".to_owned()
            })
        );
        assert_eq!(read("2", "17/corp"), None);
        assert_eq!(read("1", "damaged"), None);
    }

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
