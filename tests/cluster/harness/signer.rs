//! A controller that signs for issuers of another API group, as Venafi's, AWS PCA's or step-ca's
//! does: it answers CertificateRequests, and cert-manager does the rest.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::ByteString;
use kube::api::{Api, ApiResource, DynamicObject, ListParams, Patch, PatchParams};
use kube::{Client, Resource, ResourceExt};
use pgrekey::api::cert_manager::CertificateRequest;
use rcgen::{CertificateSigningRequestParams, PKCS_RSA_SHA256};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::pki::{Ca, answer, common_name, dns_names};

/// The group and the kind of Venafi's own issuers beside cert-manager.
const GROUP: &str = "jetstack.io";
const KIND: &str = "VenafiClusterIssuer";

/// The certificates of an answer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Form {
    /// The leaf and the intermediate CA, and the root as the CA.
    Whole,
    /// The leaf, the intermediate CA and the root in one chain, and no CA.
    RootInChain,
    /// The leaf and the intermediate CA, and no CA.
    NoRoot,
}

/// What an issuer allows, as a Venafi policy says it, and how it answers.
pub(crate) struct Policy {
    /// RSA keys are allowed, and not only ECDSA.
    pub(crate) rsa: bool,
    /// The domains that common names and DNS names may be of; all where it is empty.
    pub(crate) domains: Vec<&'static str>,
    /// The root, and the CA below it that signs.
    pub(crate) cas: (Arc<Ca>, Arc<Ca>),
    pub(crate) form: Form,
}

impl Policy {
    /// Why it refuses this, in the words of Venafi's library.
    fn judge(&self, asked: &CertificateSigningRequestParams) -> Result<(), String> {
        let patterns = self.domains.iter().map(|domain| {
            let domain = domain.replace('.', r"\.");
            format!(r"^([\p{{L}}\p{{N}}-*]+\.)*{domain}$")
        });
        let patterns = format!("[{}]", patterns.collect::<Vec<_>>().join(" "));
        let is_allowed = |name: &str| {
            let mut domains = self.domains.iter();
            self.domains.is_empty()
                || domains.any(|domain| name == *domain || name.ends_with(&format!(".{domain}")))
        };
        let (name, names) = (common_name(asked), dns_names(asked));
        if !is_allowed(&name) {
            return Err(format!(
                "common name {name} is not allowed in this policy: {patterns}"
            ));
        }
        if !names.iter().all(|name| is_allowed(name)) {
            let names = names.join(" ");
            return Err(format!(
                "DNS SANs [{names}] do not match regular expressions: {patterns}"
            ));
        }
        if !self.rsa && *asked.public_key.algorithm() == PKCS_RSA_SHA256 {
            let all = "the requested Key Type and Size do not match any of the allowed Key Types \
                and Sizes";
            return Err(all.to_owned());
        }
        Ok(())
    }

    /// The chain and the CA of an answer, PEM.
    fn certificates(&self, asked: &CertificateSigningRequestParams) -> (String, Option<String>) {
        let (root, signs) = &self.cas;
        let chain = answer(signs, asked, Duration::from_hours(2160)) + &signs.pem();
        match self.form {
            Form::Whole => (chain, Some(root.pem())),
            Form::RootInChain => (chain + &root.pem(), None),
            Form::NoRoot => (chain, None),
        }
    }
}

/// The controller, until it is dropped.
pub(crate) struct Signer {
    run: JoinHandle<()>,
}

/// Its issuers, by name.
struct Issuers(BTreeMap<&'static str, Policy>);

impl Signer {
    /// Answers the requests of a namespace to these issuers.
    pub(crate) fn start(
        client: &Client,
        namespace: &str,
        issuers: impl IntoIterator<Item = (&'static str, Policy)>,
    ) -> Self {
        let kind = ApiResource::erase::<CertificateRequest>(&());
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &kind);
        let issuers = Issuers(issuers.into_iter().collect());
        let run = async move {
            loop {
                let requests = api.list(&ListParams::default()).await.expect("requests");
                for request in &requests {
                    if let Some(status) = issuers.answer(request) {
                        let name = request.name_any();
                        let (how, patch) = (PatchParams::default(), Patch::Merge(status));
                        // cert-manager may have written meanwhile: the next round sees that.
                        let _ = api.patch_status(&name, &how, &patch).await;
                    }
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        Self {
            run: tokio::spawn(run),
        }
    }

    /// The reference to one of its issuers.
    pub(crate) fn issuer_ref(name: &str) -> Value {
        json!({"apiGroup": GROUP, "kind": KIND, "name": name})
    }
}

impl Drop for Signer {
    fn drop(&mut self) {
        self.run.abort();
    }
}

impl Issuers {
    /// The patch with the answer, where it owes one.
    fn answer(&self, request: &DynamicObject) -> Option<Value> {
        let issuer = &request.data["spec"]["issuerRef"];
        let policy = self.0.get(issuer["name"].as_str()?)?;
        let conditions = request.data["status"]["conditions"].as_array()?;
        let has = |type_: &str| conditions.iter().any(|one| one["type"] == type_);
        if issuer["group"] != GROUP || !has("Approved") || has("Ready") {
            return None;
        }
        let csr: ByteString = serde_json::from_value(request.data["spec"]["request"].clone())
            .expect("a request in base64");
        let csr = String::from_utf8(csr.0).expect("PEM");
        let asked = CertificateSigningRequestParams::from_pem(&csr).expect("a request");
        let now = jiff::Timestamp::now().strftime("%FT%TZ").to_string();
        let mut status = json!({});
        let (ready, reason, message) = match policy.judge(&asked) {
            Ok(()) => {
                let (chain, ca) = policy.certificates(&asked);
                status["certificate"] = json!(ByteString(chain.into_bytes()));
                if let Some(ca) = ca {
                    status["ca"] = json!(ByteString(ca.into_bytes()));
                }
                ("True", "Issued", "issued".to_owned())
            }
            Err(why) => {
                status["failureTime"] = json!(now);
                let what = "Failed to request certificate from Certificate Manager";
                ("False", "Failed", format!("{what}: {why}"))
            }
        };
        let mut conditions = conditions.clone();
        conditions.push(json!({"type": "Ready", "status": ready, "reason": reason,
            "message": message, "lastTransitionTime": now}));
        status["conditions"] = json!(conditions);
        let version = &request.meta().resource_version;
        Some(json!({"metadata": {"resourceVersion": version}, "status": status}))
    }
}
