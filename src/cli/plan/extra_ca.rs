//! The CAs that annotation `pgrekey.dev/extra-ca` names, as a plan shows them.

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::Api;
use serde_json::{Value, json};

use crate::api::extra_ca::{ExtraCaKind, ExtraCaSource};
use crate::cli::kubeconfig::{ApiConnection, explain_api_error};
use crate::pki::certificate::{CertificateSummary, summarize_der};
use crate::pki::extra_ca::OfferedCas;

/// The CAs of which an operation takes those that complete a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CandidateCas {
    /// Where they lie, in words.
    pub(crate) source: String,
    /// The self-signed CAs there; or why there is none, in words.
    pub(crate) roots: Result<Vec<CertificateSummary>, String>,
}

impl CandidateCas {
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
                OfferedCas::of_config_map(source, object.as_ref())
            }
            ExtraCaKind::Secret => {
                let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
                let object = api.get_opt(&source.name).await.map_err(unreadable)?;
                OfferedCas::of_secret(source, object.as_ref())
            }
        };
        Ok(Self::new(source, &found))
    }

    fn new(source: &ExtraCaSource, found: &OfferedCas) -> Self {
        let roots = match found {
            OfferedCas::Unusable { fault, .. } => Err(fault.to_string()),
            OfferedCas::NotNamed | OfferedCas::Found { .. } => {
                Ok(found.roots().filter_map(|der| summarize_der(der)).collect())
            }
        };
        Self {
            source: source.to_string(),
            roots,
        }
    }

    /// For programs.
    pub(crate) fn to_json(&self) -> Value {
        let Self { source, roots } = self;
        let ca = |ca: &CertificateSummary| {
            json!({"name": ca.signer, "fingerprint": ca.fingerprint.to_string(),
                "notAfter": ca.not_after})
        };
        match roots {
            Ok(roots) => json!({"source": source, "cas": roots.iter().map(ca).collect::<Vec<_>>()}),
            Err(problem) => json!({"source": source, "problem": problem}),
        }
    }

    /// For people: where they lie, then a line for each.
    pub(crate) fn lines(&self) -> Vec<String> {
        let Self { source, roots } = self;
        match roots {
            Err(problem) => vec![format!("{source} {problem}")],
            Ok(roots) if roots.is_empty() => vec![format!("{source} holds no self-signed CA")],
            Ok(roots) => {
                let intro = format!(
                    "candidates in {source}: taken if they have signed what the issuer gives"
                );
                std::iter::once(intro)
                    .chain(roots.iter().map(line))
                    .collect()
            }
        }
    }
}

/// A name comes from whoever made the CA: quoted, it cannot end the line.
fn line(ca: &CertificateSummary) -> String {
    let CertificateSummary {
        fingerprint,
        signer,
        not_after,
        ..
    } = ca;
    format!("  {signer:?}, until {not_after}, SHA-256 {fingerprint}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::pki::issued::tests::{Authority, issue};

    #[test]
    fn the_cas_are_named_by_fingerprint_or_the_reason_is() {
        let source = ExtraCaSource::parse("ConfigMap/corp-root").expect("a source");
        let ca = Authority::new("ca\nwith two lines");
        let served = issue(&ca, &ca).served;
        let object = |pem: &str| ConfigMap {
            data: Some(BTreeMap::from([("ca.crt".to_owned(), pem.to_owned())])),
            ..ConfigMap::default()
        };
        let plan = |object: Option<&ConfigMap>| {
            CandidateCas::new(&source, &OfferedCas::of_config_map(&source, object))
        };
        let root = object(&served.exporter_ca);
        let fingerprint = served.cas().keys().next().expect("a CA").to_string();
        let named = plan(Some(&root));
        assert_eq!(named.lines().len(), 2);
        assert!(
            named.lines()[1].ends_with(&fingerprint),
            "{:?}",
            named.lines()
        );
        assert!(!named.lines()[1].contains('\n'));
        assert_eq!(named.to_json()["cas"][0]["fingerprint"], json!(fingerprint));
        let leaf = object(&served.server.certificate);
        for (object, words) in [
            (None, "does not exist"),
            (Some(&leaf), "holds no self-signed CA"),
        ] {
            let lines = plan(object).lines();
            assert_eq!(lines, [format!("ConfigMap corp-root, key ca.crt {words}")]);
        }
    }
}
