//! `pgrekey certs`: issued and served certificates, side by side.

mod collect;
mod show;

use std::process::ExitCode;

use anyhow::anyhow;
use jiff::Timestamp;
use kube::api::{Api, ListParams};

use crate::api::Postgres;
pub(crate) use crate::cli::certs::collect::{AliasCertificates, DatabaseCertificates, collect};
#[cfg(test)]
pub(crate) use crate::cli::certs::show::tests;
use crate::cli::certs::show::{databases_json, lines};
use crate::cli::kubeconfig::{ApiConnection, Scope, block_on, explain_api_error};
use crate::cli::output::{Output, json, print_lines, yaml};

/// Show issued and served certificates
///
/// Issued certificates are in the Secrets that cert-manager writes. Served certificates are in the
/// Secret that the pods of the database mount, and only pgrekey writes it. The last line is from
/// the status of the latest request: the certificates that the pods showed on the wire.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  pgrekey certs                                # every database of the namespace
  pgrekey certs demo/ha-postgres
  pgrekey certs -A                             # every database of the cluster
  pgrekey certs ha-postgres -o json | jq '.[].certificates[] | select(.drift)'")]
pub(crate) struct Args {
    /// A database: NAME or NAMESPACE/NAME; every database of the namespace if left out
    name: Option<String>,
    /// Every database of the cluster
    #[arg(long, short = 'A', conflicts_with_all = ["name", "namespace"])]
    all_namespaces: bool,
    /// Format of the output
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    scope: Scope,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Args {
        name,
        all_namespaces,
        output,
        scope,
    } = args;
    block_on(async {
        let cluster = scope.connect().await?;
        let databases = find_databases(&cluster, name.as_deref(), all_namespaces).await?;
        let mut all = vec![];
        for database in &databases {
            all.push(collect(&cluster, database).await?);
        }
        let now = Timestamp::now();
        let lines = match output {
            Output::Json => json(&databases_json(&all, now))?,
            Output::Yaml => yaml(&databases_json(&all, now))?,
            Output::Table | Output::Wide => lines(&all, now, output.detail(), output.screen()),
        };
        print_lines(&lines)?;
        Ok(ExitCode::SUCCESS)
    })
}

async fn find_databases(
    cluster: &ApiConnection,
    name: Option<&str>,
    all_namespaces: bool,
) -> anyhow::Result<Vec<Postgres>> {
    let Some(name) = name else {
        let api: Api<Postgres> = if all_namespaces {
            Api::all(cluster.client.clone())
        } else {
            Api::namespaced(cluster.client.clone(), &cluster.namespace)
        };
        let found = api
            .list(&ListParams::default())
            .await
            .map_err(|error| explain_api_error("list databases", error))?
            .items;
        if found.is_empty() {
            let place = if all_namespaces {
                "the cluster".to_owned()
            } else {
                format!("namespace {}", cluster.namespace)
            };
            return Err(anyhow!(
                "there is no database in {place}: -n names another namespace, -A means all"
            ));
        }
        return Ok(found);
    };
    let (namespace, name) = cluster.locate(name);
    let api: Api<Postgres> = Api::namespaced(cluster.client.clone(), &namespace);
    let found = api
        .get_opt(&name)
        .await
        .map_err(|error| explain_api_error("read databases", error))?;
    found.map(|database| vec![database]).ok_or_else(|| {
        anyhow!(
            "there is no database {namespace}/{name}; `kubectl get pg -A` lists them, and -n names another namespace"
        )
    })
}
