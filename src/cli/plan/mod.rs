//! `pgrekey plan`: what an operation would do.

mod show;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use serde_json::Value;

use crate::api::postgres_version::PostgresVersionSpec;
use crate::api::{Postgres, PostgresOpsRequest};
use crate::build::{BuildInputs as BuildFacts, Cluster};
use crate::cli::check::{Defaults, facts_of, text_of};
use crate::cli::kubeconfig::{
    ApiConnection as Connected, Scope, block_on, explain_api_error, print,
};
use crate::cli::manifest;
use crate::cli::manifest::Document;
use crate::cli::output::{Output, Screen, json, yaml};
use crate::cluster::cache;
use crate::plan::operation::goal::target_spec;
use crate::plan::preview::{Preview, preview};
use crate::rules;
use crate::rules::defaults::InstallationDefaults;
use crate::rules::{ClusterFacts as _, Effect, Finding, Review, Snapshot};
use crate::serve::review::ReviewedKind;

/// Show what a request would do, before it is made
///
/// A file may hold the database and its issuers too. Several requests are planned one after the
/// other, each from where the one before it leads. The exit code is 1 when a request would be
/// refused.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  pgrekey plan add-tls.yaml                    # against the cluster of the kubeconfig
  pgrekey plan rotate-tls -n demo              # a request that is in the cluster
  pgrekey plan examples/add-tls.yaml --facts examples          # offline
  pgrekey rotate ha-postgres --reload --dry-run | pgrekey plan -
  pgrekey plan rotate-tls -o json | jq '.[].restarts'")]
pub(crate) struct Args {
    /// Files with manifests, `-` for standard input; or the name of a request in the cluster
    #[arg(required = true, value_name = "FILE|NAME")]
    what: Vec<String>,
    /// Directory with manifests of what is in the cluster; no cluster is asked then
    #[arg(long, value_name = "DIR")]
    facts: Option<PathBuf>,
    #[command(flatten)]
    defaults: Defaults,
    /// How it is printed
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    scope: Scope,
}

/// What plans are made against.
struct World {
    facts: Snapshot,
    /// The cluster to ask who leads, if there is one.
    cluster: Option<Connected>,
    installation: InstallationDefaults,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Args {
        what,
        facts,
        defaults,
        output,
        scope,
    } = args;
    block_on(async {
        let cluster = if facts.is_some() {
            None
        } else {
            Some(scope.connect().await?)
        };
        let namespace = cluster
            .as_ref()
            .map_or_else(|| scope.namespace(), |cluster| cluster.namespace.clone());
        let mut known = match (&facts, &cluster) {
            (Some(directory), _) => facts_of(directory)?,
            (None, Some(cluster)) => cache::snapshot(&cluster.client)
                .await
                .map_err(|error| anyhow!("{error}; `--facts DIR` plans without a cluster"))?,
            (None, None) => Snapshot::default(),
        };
        let requests = requests(&what, &namespace, &mut known)?;
        // A request that was never stored is no part of the cluster.
        known
            .requests
            .retain(|request| request.metadata.uid.is_some());
        let mut world = World {
            facts: known,
            cluster,
            installation: defaults.installation(),
        };
        let mut plans = vec![];
        let mut failed = None;
        for request in &requests {
            match world.plan(request).await {
                Ok(plan) => plans.push(plan),
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        let lines = match output {
            Output::Json => json(&plans.iter().map(Plan::shown).collect::<Vec<_>>())?,
            Output::Yaml => yaml(&plans.iter().map(Plan::shown).collect::<Vec<_>>())?,
            Output::Table => show::lines(&plans, false, Screen::new()),
            Output::Wide => show::lines(
                &plans,
                true,
                Screen {
                    size: None,
                    ..Screen::new()
                },
            ),
        };
        print(&lines)?;
        if let Some(error) = failed {
            return Err(error);
        }
        let is_refused = plans
            .iter()
            .flat_map(|plan| &plan.findings)
            .any(|f| f.effect == Effect::Refuse);
        Ok(if is_refused {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        })
    })
}

/// The requests that a user names; what else is in the files becomes part of the facts.
fn requests(
    what: &[String],
    namespace: &str,
    facts: &mut Snapshot,
) -> anyhow::Result<Vec<PostgresOpsRequest>> {
    let mut found = vec![];
    for name in what {
        if name != "-" && !Path::new(name).exists() {
            let (namespace, name) = crate::cli::kubeconfig::locate(namespace, name);
            let is_it = |request: &&Arc<PostgresOpsRequest>| {
                request.name_any() == name
                    && request.namespace().as_deref() == Some(namespace.as_str())
            };
            let request = facts.requests.iter().find(is_it).ok_or_else(|| {
                anyhow!(
                    "there is no file and no request {name} (namespace {namespace}): name either"
                )
            })?;
            found.push(PostgresOpsRequest::clone(request));
            continue;
        }
        let text = text_of(Path::new(name))?;
        let documents = manifest::parse(&text).map_err(|(place, problem)| {
            anyhow!("{name}:{}:{}: {problem}", place.line, place.column)
        })?;
        let before = found.len();
        for document in documents.into_iter().flat_map(Document::objects) {
            let mut value = document.value();
            let is_request = value["kind"] == "PostgresOpsRequest";
            if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata
                    .entry("namespace")
                    .or_insert_with(|| namespace.into());
            }
            if is_request {
                let request: PostgresOpsRequest = serde_path_to_error::deserialize(&value)
                    .with_context(|| {
                        format!("{name} does not decode; `pgrekey check {name}` says where")
                    })?;
                found.push(request);
            } else {
                facts
                    .learn(&value)
                    .with_context(|| format!("{name} does not decode"))?;
            }
        }
        if found.len() == before && what.len() == 1 {
            return Err(anyhow!("there is no PostgresOpsRequest in {name}"));
        }
    }
    Ok(found)
}

impl World {
    /// The plan of one request; the world is where it leads then.
    async fn plan(&mut self, request: &PostgresOpsRequest) -> anyhow::Result<Plan> {
        let (namespace, name) = (
            request.namespace().unwrap_or_default(),
            &request.spec.database_ref.name,
        );
        let database = self.facts.database(&namespace, name).ok_or_else(|| {
            let place = if self.cluster.is_some() { "cluster" } else { "facts" };
            anyhow!("there is no database {namespace}/{name} in the {place}: the plan begins at its spec")
        })?;
        let (request, findings) = self.admitted(request)?;
        let (from, is_guessed) = self.build(&database)?;
        let mut after = Postgres::clone(&database);
        after.spec = target_spec(&database.spec, &request.spec, from.major());
        let (to, _) = self
            .build(&after)
            .map_err(|why| in_place_of(why, &request, &findings))?;
        let (primary, is_known) = match self.primary(&from).await? {
            Some(primary) => (primary, true),
            None => (from.names().pod(0), false),
        };
        let rolls = request.restarts();
        let preview = preview(&from, &to, &request.spec, rolls, &primary);
        self.facts.databases.retain(|other| {
            (other.namespace(), other.name_any()) != (after.namespace(), after.name_any())
        });
        self.facts.databases.push(Arc::new(after));
        Ok(Plan {
            request,
            findings,
            is_guessed,
            primary_is_known: is_known,
            preview,
            to,
        })
    }

    /// The request as admission would let it in, with its defaults, and what the rules say; one
    /// that is in the cluster is in already.
    fn admitted(
        &self,
        request: &PostgresOpsRequest,
    ) -> anyhow::Result<(PostgresOpsRequest, Vec<Finding>)> {
        if request.metadata.uid.is_some() {
            return Ok((request.clone(), vec![]));
        }
        let create = |object| Review::create(object, Arc::clone(&self.installation.allowed));
        let (document, given) = (serde_json::to_value(request)?, create(request.clone()));
        let defaulted =
            PostgresOpsRequest::defaulted(document, &given, &self.facts, &self.installation);
        let review = create(serde_json::from_value(defaulted)?);
        let findings = rules::judge(PostgresOpsRequest::rules(), &review, Some(&self.facts));
        Ok((review.object, findings))
    }

    /// The database as it can be built, and whether its version had to be guessed from its name.
    fn build(&self, database: &Postgres) -> anyhow::Result<(Cluster, bool)> {
        let known = self
            .facts
            .version(&database.spec.version)
            .map(|version| version.spec.clone());
        let is_guessed = known.is_none();
        let version = known.unwrap_or_else(|| PostgresVersionSpec {
            version: database.spec.version.clone(),
            ..PostgresVersionSpec::default()
        });
        let facts = BuildFacts {
            version: &version,
            superuser: "postgres",
            user_conf: Some(""),
        };
        let built = Cluster::build(database, &facts)
            .map_err(|why| anyhow!("the database cannot be planned: {why}"))?;
        Ok((built, is_guessed))
    }

    /// The pod that leads now.
    async fn primary(&self, database: &Cluster) -> anyhow::Result<Option<String>> {
        let Some(cluster) = &self.cluster else {
            return Ok(None);
        };
        let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), database.namespace());
        let selector = format!(
            "postgreses.kubedb.com/database.cluster={},kubedb.com/role=primary",
            database.name()
        );
        let found = pods.list(&ListParams::default().labels(&selector)).await;
        Ok(found
            .map_err(|error| explain_api_error("list the pods", error))?
            .items
            .first()
            .map(ResourceExt::name_any))
    }
}

/// Why there is no plan: what the rules refuse comes before what it would lead to.
fn in_place_of(
    why: anyhow::Error,
    request: &PostgresOpsRequest,
    findings: &[Finding],
) -> anyhow::Error {
    let refusals: Vec<String> = findings
        .iter()
        .filter(|f| f.effect == Effect::Refuse)
        .map(|finding| format!("\n  {finding}"))
        .collect();
    if refusals.is_empty() {
        return why;
    }
    anyhow!(
        "{} would be refused:{}",
        request.name_any(),
        refusals.concat()
    )
}

/// What would become of one request.
struct Plan {
    request: PostgresOpsRequest,
    findings: Vec<Finding>,
    /// The major version had to be guessed.
    is_guessed: bool,
    primary_is_known: bool,
    preview: Preview,
    /// The database afterwards.
    to: Cluster,
}
