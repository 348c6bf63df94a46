//! `pgrekey plan`: shows the effects of an operation before it is made.

mod extra_ca;
mod planner;
mod show;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use kube::ResourceExt;
use serde_json::Value;

use crate::api::PostgresOpsRequest;
use crate::cli::cluster_domain::ClusterDomainFlag;
use crate::cli::facts::{facts_in, read_text};
use crate::cli::flags::AdmissionFlags;
use crate::cli::kubeconfig::{Scope, block_on, locate};
use crate::cli::manifest;
use crate::cli::manifest::Document;
use crate::cli::output::{Output, json, print_lines, yaml};
use crate::cli::plan::planner::{Planner, RequestPlan};
use crate::cluster::cache;
use crate::rules::{Effect, Snapshot};

/// Show the effects of a request before it is created
///
/// A file may hold the database and its issuers too. Several requests are planned one after the
/// other, each from the state that the one before it leads to. The exit code is 1 if a request
/// would be refused.
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
    /// Directory with manifests of the objects in the cluster, to plan offline
    #[arg(long, value_name = "DIR")]
    facts: Option<PathBuf>,
    #[command(flatten)]
    defaults: AdmissionFlags,
    #[command(flatten)]
    cluster_domain: ClusterDomainFlag,
    /// Format of the output
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    scope: Scope,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Args {
        what,
        facts,
        defaults,
        cluster_domain,
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
            (Some(directory), _) => facts_in(directory)?,
            (None, Some(cluster)) => cache::snapshot(&cluster.client)
                .await
                .map_err(|error| anyhow!("{error}; `--facts DIR` plans without a cluster"))?,
            (None, None) => Snapshot::default(),
        };
        let requests = named_requests(&what, &namespace, &mut known)?;
        // A request without uid is from a file: it is not in the cluster.
        known
            .requests
            .retain(|request| request.metadata.uid.is_some());
        let mut planner = Planner {
            facts: known,
            cluster,
            installation: defaults.installation(),
            cluster_domain: cluster_domain.resolve().name,
        };
        let mut plans = vec![];
        let mut failed = None;
        for request in &requests {
            match planner.plan(request).await {
                Ok(plan) => plans.push(plan),
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        let lines = match output {
            Output::Json => json(&plans.iter().map(RequestPlan::to_json).collect::<Vec<_>>())?,
            Output::Yaml => yaml(&plans.iter().map(RequestPlan::to_json).collect::<Vec<_>>())?,
            Output::Table | Output::Wide => show::lines(&plans, output.detail(), output.screen()),
        };
        print_lines(&lines)?;
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

/// The requests that the user names. Other objects in the files are added to the facts.
fn named_requests(
    what: &[String],
    namespace: &str,
    facts: &mut Snapshot,
) -> anyhow::Result<Vec<PostgresOpsRequest>> {
    let mut found = vec![];
    for name in what {
        if name != "-" && !Path::new(name).exists() {
            let (namespace, name) = locate(namespace, name);
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
        let text = read_text(Path::new(name))?;
        let documents = manifest::parse(&text).map_err(|problem| anyhow!("{name}:{problem}"))?;
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
