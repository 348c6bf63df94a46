//! `pgrekey webhook-config`: prints the objects that register the webhooks with the API server.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use serde::Serialize;

use crate::serve::registration::{Address, Configurations, Registration};

/// Print the registration of the admission webhooks as YAML
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  pgrekey webhook-config --namespace pgrekey --service pgrekey | kubectl apply --server-side -f -
  pgrekey webhook-config --url https://192.0.2.1:9443 --ca-bundle ca.crt")]
pub(crate) struct Args {
    /// Namespace of pgrekey; objects in it are not reviewed
    #[arg(long, default_value = "pgrekey")]
    namespace: String,
    /// Service of the webhooks, in that namespace
    #[arg(long, default_value = "pgrekey")]
    service: String,
    /// Port of the Service
    #[arg(long, default_value_t = 443)]
    port: i32,
    /// URL of webhooks that run outside the cluster; replaces the Service
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// File with the CAs that the API server trusts for the webhooks, PEM. Without it `pgrekey run`
    /// fills them in
    #[arg(long, value_name = "FILE")]
    ca_bundle: Option<PathBuf>,
    /// Label of the objects, KEY=VALUE; may be given again
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = pair)]
    labels: Vec<(String, String)>,
    /// Annotation of the objects, KEY=VALUE; may be given again
    #[arg(long = "annotation", value_name = "KEY=VALUE", value_parser = pair)]
    annotations: Vec<(String, String)>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("use KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let Args {
        namespace,
        service,
        port,
        url,
        ca_bundle,
        labels,
        annotations,
    } = args;
    let read = |path: PathBuf| {
        std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let registration = Registration {
        ca_bundle: ca_bundle.map(read).transpose()?,
        excluded_namespaces: vec!["kube-system".to_owned(), namespace.clone()],
        address: match url {
            Some(url) => Address::Url(url),
            None => Address::Service {
                namespace,
                name: service,
                port,
            },
        },
        labels: BTreeMap::from_iter(labels),
        annotations: BTreeMap::from_iter(annotations),
    };
    let Configurations {
        mutating,
        validating,
    } = registration.configurations();
    let mut out = std::io::stdout().lock();
    for configuration in &mutating {
        write_document(&mut out, configuration)?;
    }
    for configuration in &validating {
        write_document(&mut out, configuration)?;
    }
    Ok(out.flush()?)
}

fn write_document(out: &mut impl Write, object: &impl Serialize) -> anyhow::Result<()> {
    write!(
        out,
        "---\n{}",
        serde_saphyr::to_string(object).context("cannot write the registration as YAML")?
    )?;
    Ok(())
}
