//! The CAs that annotation `pgrekey.dev/extra-ca` names, as a plan shows them.

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::Api;

use crate::api::extra_ca::{ExtraCaKind, ExtraCaSource};
use crate::cli::kubeconfig::{ApiConnection, explain_api_error};
use crate::pki::certificate::{CertificateSummary, summarize_der};
use crate::pki::extra_ca::ExtraCas;

/// The CAs of which an operation takes those that complete a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NamedExtraCas {
    /// Where they lie, in words.
    pub(crate) source: String,
    /// The self-signed CAs there; or why there is none, in words.
    pub(crate) roots: Result<Vec<CertificateSummary>, String>,
}

impl NamedExtraCas {
    /// Reads them from the cluster.
    pub(crate) async fn fetch(
        cluster: Option<&ApiConnection>,
        namespace: &str,
        source: &ExtraCaSource,
    ) -> anyhow::Result<Self> {
        let Some(ApiConnection { client, .. }) = cluster else {
            return Ok(Self {
                source: source.to_string(),
                roots: Err("is read when the operation begins".to_owned()),
            });
        };
        let unreadable = |error| explain_api_error(&format!("read {source}"), error);
        let found = match source.kind {
            ExtraCaKind::ConfigMap => {
                let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
                let object = api.get_opt(&source.name).await.map_err(unreadable)?;
                ExtraCas::of_config_map(source, object.as_ref())
            }
            ExtraCaKind::Secret => {
                let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
                let object = api.get_opt(&source.name).await.map_err(unreadable)?;
                ExtraCas::of_secret(source, object.as_ref())
            }
        };
        Ok(Self::new(source, &found))
    }

    fn new(source: &ExtraCaSource, found: &ExtraCas) -> Self {
        let roots = match found {
            ExtraCas::Unusable { fault, .. } => Err(fault.to_string()),
            ExtraCas::NotNamed | ExtraCas::Found { .. } => {
                Ok(found.roots().filter_map(|der| summarize_der(der)).collect())
            }
        };
        Self {
            source: source.to_string(),
            roots,
        }
    }
}
