//! `pgrekey run`: the operator.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::ValueEnum;
use jiff::Timestamp;
use kube::Client;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::info;
use tracing_subscriber::EnvFilter;

use crate::api::duration;
use crate::cli::cluster_domain::{ClusterDomain, ClusterDomainFlag};
use crate::cli::crypto::install_crypto_provider;
use crate::cli::flags::TenancyFlags;
use crate::cli::tasks::{Signals, Tasks};
use crate::cluster::cache;
use crate::cluster::cache::Stores;
use crate::cluster::webhook_ca::OwnCa;
use crate::controller;
use crate::controller::{Lease, PetSets};
use crate::metrics::{Metrics, ReviewMetrics, ReviewOutcome, ServerMetrics};
use crate::rules::defaults::{DefaultIssuer, InstallationDefaults};
use crate::rules::{Allowed, ClusterFacts};
use crate::serve::certificate::ServedCertificate;
use crate::serve::files;
use crate::serve::files::CertificateFiles;
use crate::serve::limits::Limits;
use crate::serve::probes;
use crate::serve::probes::Readiness;
use crate::serve::registration::configuration_names;
use crate::serve::review::AdmissionVerdict;
use crate::serve::server::{HttpsServer, Transport, listen, tls};
use crate::serve::table::{Webhook, WebhookType};
use crate::serve::webhooks;
use crate::serve::webhooks::Admission;
use crate::telemetry;

/// Run the operator: the admission webhooks and the controllers
///
/// It ends on SIGTERM or SIGINT, after it has answered all reviews. A second signal ends it at
/// once.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  pgrekey run --namespace pgrekey --service pgrekey
  pgrekey run --certificate-source=files --certificate-file=/tls/tls.crt --key-file=/tls/tls.key")]
pub(crate) struct Args {
    /// Namespace that pgrekey runs in
    #[arg(long, env = "PGREKEY_NAMESPACE", default_value = "pgrekey")]
    namespace: String,
    /// Service of the webhooks, in that namespace
    #[arg(long, env = "PGREKEY_SERVICE", default_value = "pgrekey")]
    service: String,
    /// Source of the webhooks' certificate
    #[arg(long, env = "PGREKEY_CERTIFICATE_SOURCE", value_enum, default_value_t = CertificateSource::Own)]
    certificate_source: CertificateSource,
    /// Another name in the certificate from pgrekey's own CA: DNS name or IP address; may be given
    /// again
    #[arg(
        long = "certificate-name",
        env = "PGREKEY_CERTIFICATE_NAME",
        value_name = "NAME",
        value_delimiter = ','
    )]
    certificate_names: Vec<String>,
    /// File with the certificate, leaf first, PEM
    #[arg(
        long,
        env = "PGREKEY_CERTIFICATE_FILE",
        value_name = "FILE",
        required_if_eq("certificate_source", "files")
    )]
    certificate_file: Option<PathBuf>,
    /// File with the certificate's private key, PEM
    #[arg(
        long,
        env = "PGREKEY_KEY_FILE",
        value_name = "FILE",
        required_if_eq("certificate_source", "files")
    )]
    key_file: Option<PathBuf>,
    /// Address of the webhooks, with TLS
    #[arg(
        long,
        env = "PGREKEY_WEBHOOK_ADDRESS",
        value_name = "ADDRESS",
        default_value = "[::]:9443"
    )]
    webhook_address: SocketAddr,
    /// Address of /livez, /readyz and /metrics, without TLS
    #[arg(
        long,
        env = "PGREKEY_HEALTH_ADDRESS",
        value_name = "ADDRESS",
        default_value = "[::]:8080"
    )]
    health_address: SocketAddr,
    /// Issuer for objects that name none, in namespaces without a default issuer: Issuer/NAME or
    /// ClusterIssuer/NAME
    #[arg(long, env = "PGREKEY_DEFAULT_ISSUER", value_name = "ISSUER")]
    default_issuer: Option<DefaultIssuer>,
    #[command(flatten)]
    tenancy: TenancyFlags,
    #[command(flatten)]
    cluster_domain: ClusterDomainFlag,
    /// Controllers to run beside the webhooks, on the replica that holds the lease
    #[arg(
        long,
        env = "PGREKEY_CONTROLLERS",
        value_enum,
        value_delimiter = ',',
        default_value = "provisioner,ops-manager"
    )]
    controllers: Vec<ControllerName>,
    /// The controller that realises PetSets
    #[arg(long, env = "PGREKEY_PET_SETS", value_enum, default_value_t = PetSetController::Own)]
    pet_sets: PetSetController,
    /// The only namespace whose databases are managed. Default: all namespaces
    #[arg(long, env = "PGREKEY_WATCH_NAMESPACE", value_name = "NAMESPACE")]
    watch_namespace: Option<String>,
    /// Operations that may run at once in the cluster
    #[arg(long, env = "PGREKEY_MAX_CONCURRENT_OPERATIONS", value_name = "N", default_value_t = controller::MAX_CONCURRENT_OPERATIONS)]
    max_concurrent_operations: usize,
    /// Longest delay of a successful step in the status of a request; a shorter one means more
    /// writes to the API server
    #[arg(long, env = "PGREKEY_STATUS_DELAY", value_name = "DURATION", default_value = "30s", value_parser = duration::parse)]
    status_delay: Duration,
    /// Name of this process in the lease and in events. Default: the host's name, which is the
    /// pod's
    #[arg(long, env = "PGREKEY_IDENTITY", value_name = "NAME")]
    identity: Option<String>,
    /// Filter of log lines, such as `info` or `info,pgrekey=debug`
    #[arg(long, env = "PGREKEY_LOG", value_name = "FILTER", default_value = "info", value_parser = log_filter)]
    log: LogFilter,
    /// Format of log lines
    #[arg(long, env = "PGREKEY_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum CertificateSource {
    /// A CA of pgrekey's own, kept in the Secret `pgrekey-webhook` and published in the webhooks'
    /// registration
    #[value(name = "self")]
    Own,
    /// Two files that another program renews, such as a mounted Secret of cert-manager's
    Files,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ControllerName {
    /// Turns a Postgres into a running cluster
    Provisioner,
    /// Carries out PostgresOpsRequests
    OpsManager,
    /// No controller: only the webhooks run
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum PetSetController {
    /// pgrekey, by means of StatefulSets
    Own,
    /// A controller that is installed beside pgrekey, such as KubeOps'
    External,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

/// The text of a valid filter.
#[derive(Clone, Debug)]
struct LogFilter(String);

fn log_filter(text: &str) -> Result<LogFilter, String> {
    telemetry::filter(text)
        .map(|_| LogFilter(text.to_owned()))
        .map_err(|e| e.to_string())
}

/// The configuration of the running program.
struct Config {
    namespace: String,
    certificate: ServingCertificate,
    webhook_address: SocketAddr,
    health_address: SocketAddr,
    default_issuer: Option<DefaultIssuer>,
    allowed: Arc<Allowed>,
    cluster_domain: ClusterDomain,
    controllers: Option<controller::Settings>,
}

enum ServingCertificate {
    Own { names: Vec<String> },
    Files { certificate: PathBuf, key: PathBuf },
}

impl Args {
    fn parse(self) -> anyhow::Result<(Config, EnvFilter, telemetry::Format)> {
        let Self {
            namespace,
            service,
            certificate_source,
            certificate_names,
            certificate_file,
            key_file,
            webhook_address,
            health_address,
            default_issuer,
            tenancy,
            cluster_domain,
            controllers,
            pet_sets,
            watch_namespace,
            max_concurrent_operations,
            status_delay,
            identity,
            log,
            log_format,
        } = self;
        let certificate = match (certificate_source, certificate_file, key_file) {
            (CertificateSource::Own, ..) => {
                // The name by which the API server calls a Service.
                let own = format!("{service}.{namespace}.svc");
                ServingCertificate::Own {
                    names: std::iter::once(own).chain(certificate_names).collect(),
                }
            }
            (CertificateSource::Files, Some(certificate), Some(key)) => {
                ServingCertificate::Files { certificate, key }
            }
            (CertificateSource::Files, ..) => {
                return Err(anyhow!("name --certificate-file and --key-file"));
            }
        };
        let format = match log_format {
            LogFormat::Text => telemetry::Format::Text,
            LogFormat::Json => telemetry::Format::Json,
        };
        let identity = identity.map_or_else(host_name, Ok)?;
        let (provisioner, ops_manager) = (
            controllers.contains(&ControllerName::Provisioner),
            controllers.contains(&ControllerName::OpsManager),
        );
        let pet_sets = match pet_sets {
            PetSetController::Own => PetSets::Own,
            PetSetController::External => PetSets::External,
        };
        let allowed = Arc::new(tenancy.allowed());
        let cluster_domain = cluster_domain.resolve();
        let lease = Lease {
            namespace: namespace.clone(),
            name: "pgrekey".to_owned(),
            identity: identity.clone(),
        };
        let controllers = (provisioner || ops_manager).then_some(controller::Settings {
            namespace: watch_namespace,
            provisioner,
            ops_manager,
            pet_sets,
            lease: Some(lease),
            max_concurrent_operations,
            status_delay,
            instance: Some(identity),
            allowed: Arc::clone(&allowed),
            cluster_domain: cluster_domain.name.clone(),
        });
        let config = Config {
            namespace,
            certificate,
            webhook_address,
            health_address,
            default_issuer,
            allowed,
            cluster_domain,
            controllers,
        };
        Ok((config, telemetry::filter(&log.0)?, format))
    }
}

/// The name of this host. In a pod it is the pod's name.
fn host_name() -> anyhow::Result<String> {
    hostname::get()
        .context("cannot read this host's name")?
        .into_string()
        .map_err(|name| anyhow!("this host's name {} is not UTF-8", name.display()))
        .context("give --identity")
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let (config, filter, format) = args.parse()?;
    telemetry::start(filter, format);
    install_crypto_provider();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start threads")?;
    runtime.block_on(operate(config))
}

async fn operate(config: Config) -> anyhow::Result<()> {
    let Config {
        namespace,
        certificate,
        webhook_address,
        health_address,
        default_issuer,
        allowed,
        cluster_domain,
        controllers,
    } = config;
    let end = CancellationToken::new();
    let mut signals = Signals::new().context("cannot listen for signals")?;
    let mut tasks = Tasks::new(end.clone());
    let (metrics, served) = (Arc::new(Metrics::new()), ServedCertificate::new());

    let health = listen_on(health_address).await?;
    let webhooks = listen_on(webhook_address).await?;
    info!(version = env!("CARGO_PKG_VERSION"), namespace, %webhook_address, %health_address, "starting");
    cluster_domain.log();

    let client = connect().await?;
    let (stores, watching) = cache::watch(&client);
    let stores = Arc::new(stores);
    tasks.add("facts", end.clone().run_until_cancelled_owned(watching));
    tasks.add(
        "certificate",
        keep_certificate(certificate, &client, namespace, &served, &metrics, &end),
    );

    let readiness = readiness(&stores, &served, &end);
    let installation = InstallationDefaults {
        issuer: default_issuer,
        ops_manager: controllers
            .as_ref()
            .is_some_and(|settings| settings.ops_manager),
        namespace: controllers
            .as_ref()
            .and_then(|settings| settings.namespace.clone()),
        allowed,
    };
    // The controllers end soon after `end` is cancelled, and release the lease.
    if let Some(settings) = controllers {
        tasks.add(
            "controllers",
            controller::run(
                client.clone(),
                Arc::clone(&stores),
                settings,
                metrics.controllers.clone(),
                end.clone(),
            ),
        );
    }
    let admission = Arc::new(Admission {
        facts: stores,
        installation,
        observe: count_reviews(metrics.reviews.clone()),
    });
    let server = HttpsServer {
        listener: webhooks,
        transport: Transport::Tls(tls(Arc::new(served)).context("cannot set up TLS")?),
        router: webhooks::router(&admission),
        limits: Limits::default(),
        metrics: metrics.webhook_server.clone(),
    };
    tasks.add("webhooks", server.run(end.clone()));

    // The health port answers until everything else has ended.
    let probes_end = CancellationToken::new();
    let probes = tokio::spawn(serve_probes(health, readiness, metrics, probes_end.clone()));
    let outcome = tasks.run(&mut signals).await;
    probes_end.cancel();
    probes.await.context("the health port failed")?;
    outcome
}

async fn listen_on(address: SocketAddr) -> anyhow::Result<TcpListener> {
    listen(address)
        .await
        .with_context(|| format!("cannot listen on {address}"))
}

/// Serves /livez, /readyz and /metrics.
async fn serve_probes(
    listener: TcpListener,
    readiness: Readiness,
    metrics: Arc<Metrics>,
    end: CancellationToken,
) {
    let server = HttpsServer {
        listener,
        transport: Transport::Plain,
        router: probes::router(readiness, metrics),
        limits: Limits::of_health_port(),
        metrics: ServerMetrics::default(),
    };
    server.run(end).await;
}

/// The conditions under which /readyz answers with success.
fn readiness(
    stores: &Arc<Stores>,
    served: &ServedCertificate,
    end: &CancellationToken,
) -> Readiness {
    let readiness = Readiness::new();
    let end = end.clone();
    readiness.add("process", move || {
        if end.is_cancelled() {
            Err("stopping".to_owned())
        } else {
            Ok(())
        }
    });
    let served = served.clone();
    readiness.add("certificate", move || served.readiness(Timestamp::now()));
    let stores = Arc::clone(stores);
    readiness.add("facts", move || match stores.unknown() {
        unknown if unknown.is_empty() => Ok(()),
        unknown => Err(format!("not known yet: {}", unknown.join(", "))),
    });
    readiness
}

/// A client of the API server that the kubeconfig, or the pod's service account, names.
async fn connect() -> anyhow::Result<Client> {
    let mut config = kube::Config::infer()
        .await
        .context("cannot find out where the API server is")?;
    // Watches and controllers retry by themselves. kube's own retries would delay them by up to a
    // quarter of an hour.
    config.default_retry = false;
    Client::try_from(config).context("cannot set up the client of the API server")
}

/// Renews the served certificate for as long as the program runs.
fn keep_certificate(
    source: ServingCertificate,
    client: &Client,
    namespace: String,
    served: &ServedCertificate,
    metrics: &Arc<Metrics>,
    end: &CancellationToken,
) -> futures::future::BoxFuture<'static, ()> {
    let (cell, metrics, end) = (served.clone(), Arc::clone(metrics), end.clone());
    match source {
        ServingCertificate::Files { certificate, key } => Box::pin(
            CertificateFiles::new(certificate, key).follow(files::POLL, cell, metrics, end),
        ),
        ServingCertificate::Own { names } => {
            let own = OwnCa {
                client: client.clone(),
                namespace,
                names,
                mutating: configuration_names(WebhookType::Mutate).collect(),
                validating: configuration_names(WebhookType::Validate).collect(),
            };
            let serve = move |outcome| match outcome {
                Ok(pair) => {
                    cell.serve(pair, &metrics);
                    cell.refused(None);
                }
                Err(problem) => cell.refused(Some(problem)),
            };
            Box::pin(own.run(serve, end))
        }
    }
}

/// Counts reviews, and the rules that had a finding.
fn count_reviews(metrics: ReviewMetrics) -> Box<webhooks::Observe> {
    Box::new(move |webhook: &Webhook, verdict: &AdmissionVerdict| {
        let outcome = if verdict.allowed() {
            ReviewOutcome::Allowed
        } else {
            ReviewOutcome::Denied
        };
        // The findings of one rule follow each other.
        let mut rules: Vec<&str> = verdict
            .findings
            .iter()
            .map(|finding| finding.rule)
            .collect();
        rules.dedup();
        metrics.count(webhook.name, outcome, rules);
    })
}

#[cfg(test)]
mod tests;
