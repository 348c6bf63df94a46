//! From a `Postgres` to a parsed cluster: dereference, validate, build.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::ResourceExt;

use crate::api::annotations::BUILT_OF;
use crate::api::condition::{CONFIGURATION_NOT_TAKEN, VERSION_NOT_TAKEN};
use crate::api::names::Names;
use crate::api::postgres::{ServerNames, USER_CONF};
use crate::api::{PetSet, Postgres, PostgresSpec, PostgresVersion, bounds};
use crate::build::pet_set::live_pods;
use crate::build::user_conf::SECRET_NAME;
use crate::build::version::{BuiltOf, Choice, Named};
use crate::build::{BuildInputs, Cluster, Unbuildable, version};
use crate::cluster::{Error, Objects};
use crate::controller::Context;
use crate::controller::observe::superuser;
use crate::controller::outcome::{Interrupt, Pending, ReconcileResult};
use crate::rules::postgres::lasting;
use crate::rules::{ClusterFacts, Review, judge};

/// The means to read and write the objects of a database.
pub(crate) fn objects(
    context: &Context,
    postgres: &Postgres,
    cluster: &Cluster,
) -> ReconcileResult<Objects> {
    Objects::owned_by(&context.client, postgres, cluster.selector())
        .ok_or(Interrupt::Wait(Pending::DatabaseUid))
}

/// A database with its parsed spec.
pub(crate) struct Parsed {
    pub(crate) cluster: Cluster,
    /// The groups of the TLS key exchange that its image has beyond those of every OpenSSL 3.
    pub(crate) tls_groups: BTreeSet<String>,
    /// Why part of the spec is not followed: reason and message of the condition. `None` if all is.
    pub(crate) not_followed: Option<(&'static str, String)>,
    /// Why nothing of the spec may be built any more; `None` if it may.
    pub(crate) spec_problem: Option<SpecProblem>,
}

/// Why the spec of a database that was built before must not, or cannot, be built any more: it was
/// edited while the webhooks were off, or the installation allows less now.
pub(crate) struct SpecProblem {
    pub(crate) why: String,
    /// The spec cannot be built at all: the parsed cluster is good for its certificates only.
    pub(crate) is_unreadable: bool,
}

/// The PostgresVersion of a database.
struct ChosenVersion {
    version: Arc<PostgresVersion>,
    /// Why it is not the one in the spec: reason and message.
    not_followed: Option<(&'static str, String)>,
    was_built: bool,
}

/// Parses the spec of a database. A database that was built keeps the major version of its data,
/// whatever the spec says.
pub(crate) async fn parse(
    context: &Context,
    postgres: &Postgres,
    secret: Option<&Secret>,
) -> ReconcileResult<Parsed> {
    let ChosenVersion {
        version,
        mut not_followed,
        was_built,
    } = choose_version(context, postgres).await?;
    let user_conf = user_conf(context, postgres).await?;
    let superuser = superuser::superuser_name(context, postgres, secret);
    let inputs = BuildInputs {
        version: &version.spec,
        superuser: &superuser,
        user_conf: user_conf.as_deref(),
        live_pods: fetch_live_pods(context, postgres).await?,
        cluster_domain: &context.settings.cluster_domain,
    };
    let mut postgres = postgres.clone();
    postgres.spec.version = version.name_any();
    let tls_groups = version.tls_groups();
    let mut parsed = Cluster::build(&postgres, &inputs).and_then(|cluster| {
        cluster.check_tls_settings(cluster.spec().tls.as_ref(), tls_groups.clone())?;
        Ok(cluster)
    });
    // A running database keeps the settings that it has: the user's Secret may be missing for a
    // moment, or about to be corrected.
    if let Err(why) = &parsed
        && why.field == SECRET_NAME
        && let Some(applied) = applied_user_conf(context, &postgres).await?
    {
        not_followed = not_followed.or_else(|| Some((CONFIGURATION_NOT_TAKEN, why.to_string())));
        let inputs = BuildInputs {
            user_conf: Some(&applied),
            ..inputs
        };
        parsed = Cluster::build(&postgres, &inputs);
    }
    let (cluster, spec_problem) = match parsed {
        Ok(cluster) => {
            let problem = not_allowed(context, &postgres).map(|why| SpecProblem {
                why,
                is_unreadable: false,
            });
            (cluster, problem)
        }
        Err(why) if was_built => {
            let bare = Cluster::build(&bare(postgres), &inputs).map_err(|_| invalid(&why))?;
            let problem = SpecProblem {
                why: why.to_string(),
                is_unreadable: true,
            };
            (bare, Some(problem))
        }
        Err(why) => return Err(invalid(&why)),
    };
    match spec_problem {
        Some(problem) if !was_built => Err(Interrupt::Blocked("Invalid", problem.why)),
        spec_problem => Ok(Parsed {
            cluster,
            tls_groups,
            not_followed,
            spec_problem,
        }),
    }
}

async fn choose_version(context: &Context, postgres: &Postgres) -> ReconcileResult<ChosenVersion> {
    let desired = postgres.spec.version.as_str();
    let built = built_of(context, postgres).await?;
    let was_built = built.is_some();
    let mut chosen = (desired.to_owned(), None);
    if let Some(built) = built {
        let current = find_version(context, &built.name)?;
        let next = find_version(context, desired)?;
        let next = Named {
            name: desired,
            spec: next.as_ref().map(|version| &version.spec),
        };
        let current = current.as_ref().map(|version| &version.spec);
        match version::choose(&built, current, next) {
            Choice::Follow => {}
            Choice::Stay(why) => chosen = (built.name, Some((VERSION_NOT_TAKEN, why))),
            Choice::Neither(why) => return Err(Interrupt::Blocked(VERSION_NOT_TAKEN, why)),
        }
    }
    let (name, not_followed) = chosen;
    let version = find_version(context, &name)?.ok_or_else(|| {
        let why = format!(
            "there is no PostgresVersion {name}: install it, or name another in spec.version"
        );
        Interrupt::Blocked("Invalid", why)
    })?;
    Ok(ChosenVersion {
        version,
        not_followed,
        was_built,
    })
}

fn invalid(why: &Unbuildable) -> Interrupt {
    Interrupt::Blocked("Invalid", why.to_string())
}

/// The database without the fields from which only pods and their settings are built: its
/// certificates stay the same.
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

/// Why the installation does not allow a spec, also of a database that exists: the webhooks may be
/// off, and an installation may come to allow less. `None` if it does.
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

/// The PostgresVersion of which a database was built; `None` before it is built. Two objects say it,
/// because a user may delete one: the PetSet, which is watched, and the ConfigMap, which stays while
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

/// The version of which a database was built, by one of its objects.
fn declared_version(postgres: &Postgres, object: &impl ResourceExt) -> Option<BuiltOf> {
    object
        .annotations()
        .get(BUILT_OF)
        .filter(|_| is_owned(postgres, object))?
        .parse()
        .ok()
}

/// Whether an object belongs to this database, and not to an earlier one of its name, whose objects
/// are about to be deleted.
fn is_owned(postgres: &Postgres, object: &impl ResourceExt) -> bool {
    object
        .owner_references()
        .iter()
        .any(|owner| Some(&owner.uid) == postgres.uid().as_ref())
}

/// The PostgresVersion of this name, if it exists.
fn find_version(context: &Context, name: &str) -> ReconcileResult<Option<Arc<PostgresVersion>>> {
    match context.facts.version(name) {
        None if !context.facts.unknown().is_empty() => {
            Err(Interrupt::Wait(Pending::PostgresVersions))
        }
        found => Ok(found),
    }
}

/// How many pods the database has, if its certificates have names of single pods. Asked of the API
/// server: what is watched may be behind, and a pod that is to go keeps its name until it has gone.
async fn fetch_live_pods(context: &Context, postgres: &Postgres) -> Result<i32, Error> {
    if postgres.server_names() == ServerNames::KubeDb {
        return Ok(0);
    }
    let namespace = postgres.namespace().unwrap_or_default();
    let set = context
        .get::<PetSet>(&namespace, &postgres.name_any())
        .await?;
    Ok(set
        .filter(|set| is_owned(postgres, set))
        .map_or(0, |set| live_pods(&set)))
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

/// The `user.conf` that was applied last.
async fn applied_user_conf(
    context: &Context,
    postgres: &Postgres,
) -> ReconcileResult<Option<String>> {
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
    use crate::build::certificates::certificate;
    use crate::build::cluster::tests::build;
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
        assert!(build(&postgres).is_err());
        let cluster = build(&bare(postgres)).expect("a cluster");
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
    fn the_images_of_a_database_are_read_from_its_own_objects_only() {
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
