//! From a `Postgres` to a parsed cluster: dereference, validate, build.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::ResourceExt;

use crate::api::annotations::BUILT_OF;
use crate::api::condition::{CONFIGURATION_NOT_TAKEN, VERSION_NOT_TAKEN};
use crate::api::names::Names;
use crate::api::postgres::USER_CONF;
use crate::api::{Postgres, PostgresSpec, PostgresVersion, bounds};
use crate::build::user_conf::SECRET_NAME;
use crate::build::version::{BuiltOf, Choice, Named};
use crate::build::{BuildInputs, Cluster, Unbuildable, version};
use crate::cluster::{Error, Objects};
use crate::controller::Context;
use crate::controller::observe::superuser;
use crate::controller::outcome::{Interrupt, ReconcileResult};
use crate::rules::postgres::lasting;
use crate::rules::{ClusterFacts, Review, judge};

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
    let superuser = superuser::superuser(context, postgres, secret);
    let facts = BuildInputs {
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
            &BuildInputs {
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
        let facts = BuildInputs {
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
}
