//! Reads the issued and the served certificates of a database.

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::{Api, ListParams};

use crate::api::cert_manager::{Certificate, holds};
use crate::api::names::Names;
use crate::api::ops_request::PodStatus;
use crate::api::{Postgres, PostgresOpsRequest};
use crate::cli::kubeconfig::{ApiConnection, explain_api_error, is_missing};
use crate::pki::certificate::{CertificateSummary, summarize_chain};
use crate::plan::preview;
use crate::tls::Alias;

/// The certificates of one database.
#[derive(Clone, Debug, Default)]
pub(crate) struct DatabaseCertificates {
    /// As `NAMESPACE/NAME`.
    pub(crate) database: String,
    /// Empty without TLS.
    pub(crate) aliases: Vec<AliasCertificates>,
    /// `None` until a request has observed the pods.
    pub(crate) wire: Option<WireObservation>,
}

/// The pods of a database as a request observed them on the wire.
#[derive(Clone, Debug)]
pub(crate) struct WireObservation {
    /// Name of the request.
    pub(crate) request: String,
    pub(crate) pods: Vec<PodStatus>,
}

/// The certificate of one alias: issued and served.
#[derive(Clone, Debug)]
pub(crate) struct AliasCertificates {
    pub(crate) alias: Alias,
    pub(crate) issuer: String,
    /// Whether cert-manager reports it as Ready. `None` if there is no Certificate.
    pub(crate) ready: Option<bool>,
    pub(crate) issued: Option<CertificateSummary>,
    pub(crate) served: Option<CertificateSummary>,
}

impl AliasCertificates {
    /// Whether the issued certificate differs from the served one.
    pub(crate) fn drifts(&self) -> bool {
        let fingerprint =
            |known: &Option<CertificateSummary>| known.as_ref().map(|known| known.fingerprint);
        fingerprint(&self.issued) != fingerprint(&self.served)
    }
}

/// Reads the certificates of one database. Every object is read by name.
pub(crate) async fn collect(
    cluster: &ApiConnection,
    database: &Postgres,
) -> anyhow::Result<DatabaseCertificates> {
    let (namespace, name) = (
        database.namespace().unwrap_or_default(),
        database.name_any(),
    );
    let mut found = DatabaseCertificates {
        database: format!("{namespace}/{name}"),
        ..DatabaseCertificates::default()
    };
    if database.spec.tls.is_none() {
        return Ok(found);
    }
    let secrets: Api<Secret> = Api::namespaced(cluster.client.clone(), &namespace);
    let certificates: Api<Certificate> = Api::namespaced(cluster.client.clone(), &namespace);
    let served = secrets
        .get_opt(&Names::new(&name).tls_secret())
        .await
        .map_err(|error| {
            explain_api_error("read the Secret with the served certificates", error)
        })?;
    for alias in Alias::ALL {
        let certificate =
            find_certificate(&certificates, &Names::new(&name).certificate(alias)).await?;
        let issued = match &certificate {
            Some(certificate) => find_issued(&secrets, &certificate.spec.secret_name).await?,
            None => None,
        };
        found.aliases.push(AliasCertificates {
            alias,
            issuer: certificate
                .as_ref()
                .map(|certificate| preview::words(&certificate.spec.issuer_ref))
                .unwrap_or_default(),
            ready: certificate.as_ref().map(is_ready),
            issued,
            served: served
                .as_ref()
                .and_then(|secret| leaf_in(secret, served_keys(alias))),
        });
    }
    found.wire = latest_observation(cluster, &namespace, &name).await?;
    Ok(found)
}

/// The Certificate of this name. `None` also without cert-manager.
async fn find_certificate(
    certificates: &Api<Certificate>,
    name: &str,
) -> anyhow::Result<Option<Certificate>> {
    match certificates.get_opt(name).await {
        Err(error) if is_missing(&error) => Ok(None),
        answer => answer.map_err(|error| explain_api_error("read Certificates", error)),
    }
}

/// The certificate in a Secret that cert-manager writes.
async fn find_issued(
    secrets: &Api<Secret>,
    name: &str,
) -> anyhow::Result<Option<CertificateSummary>> {
    let secret = secrets
        .get_opt(name)
        .await
        .map_err(|error| explain_api_error("read the Secrets of certificates", error))?;
    Ok(secret.and_then(|secret| leaf_in(&secret, ("tls.crt", "ca.crt"))))
}

fn is_ready(certificate: &Certificate) -> bool {
    certificate
        .status
        .as_ref()
        .is_some_and(|status| holds(&status.conditions, "Ready"))
}

/// The keys of an alias's chain and its CAs in the Secret with the served certificates.
fn served_keys(alias: Alias) -> (&'static str, &'static str) {
    match alias {
        Alias::Server => ("server.crt", "ca.crt"),
        Alias::Client => ("client.crt", "ca.crt"),
        Alias::MetricsExporter => ("exporter.crt", "exporter-ca.crt"),
    }
}

fn leaf_in(secret: &Secret, (chain, cas): (&str, &str)) -> Option<CertificateSummary> {
    let data = secret.data.as_ref()?;
    let ByteString(chain) = data.get(chain)?;
    let cas = data.get(cas).map_or(&[][..], |cas| &cas.0);
    summarize_chain(chain, cas)
}

/// The pods as the latest request about a database observed them.
async fn latest_observation(
    cluster: &ApiConnection,
    namespace: &str,
    database: &str,
) -> anyhow::Result<Option<WireObservation>> {
    let api: Api<PostgresOpsRequest> = Api::namespaced(cluster.client.clone(), namespace);
    let requests = api
        .list(&ListParams::default())
        .await
        .map_err(|error| explain_api_error("list requests", error))?
        .items;
    let of_database = requests
        .into_iter()
        .filter(|request| request.spec.database_ref.name == database);
    let observed = of_database.filter_map(|request| {
        let status = request.status.clone()?;
        let last = status
            .steps
            .iter()
            .filter_map(|step| step.started_at.as_ref())
            .map(|time| time.0)
            .max();
        let observation = WireObservation {
            request: request.name_any(),
            pods: status.pods,
        };
        (!observation.pods.is_empty()).then_some((last, observation))
    });
    Ok(observed
        .max_by_key(|(last, _)| *last)
        .map(|(_, observation)| observation))
}
