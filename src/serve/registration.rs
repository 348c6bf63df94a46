//! How the API server is told of the webhooks.

use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{
    MatchCondition, MutatingWebhook, MutatingWebhookConfiguration, RuleWithOperations,
    ServiceReference, ValidatingWebhook, ValidatingWebhookConfiguration, WebhookClientConfig,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use kube::api::ObjectMeta;

use crate::serve::table::{Purpose, WEBHOOKS, Webhook};

/// How long the API server waits for an answer. A review takes microseconds: what takes longer is a
/// lost connection, and users wait for it.
const TIMEOUT_SECONDS: i32 = 3;

/// Where the API server finds the webhooks.
#[derive(Clone, Debug)]
pub enum Address {
    /// A Service of the cluster.
    Service {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Its port.
        port: i32,
    },
    /// A URL such as `https://host:port`, for a process outside the cluster.
    Url(String),
}

/// What is registered, and where.
#[derive(Clone, Debug)]
pub struct Registration {
    /// Where the webhooks are.
    pub address: Address,
    /// The CAs that the API server trusts for them, PEM. Left out when something else fills them
    /// in.
    pub ca_bundle: Option<Vec<u8>>,
    /// Namespaces whose objects are not reviewed: `kube-system`, and the one that pgrekey itself
    /// runs in, which must be able to start when nothing answers.
    pub excluded_namespaces: Vec<String>,
    /// Labels of the configuration objects.
    pub labels: std::collections::BTreeMap<String, String>,
    /// Annotations of the configuration objects, such as cert-manager's request to fill in the CAs.
    pub annotations: std::collections::BTreeMap<String, String>,
}

/// The configuration objects of one kind and the other.
#[derive(Clone, Debug)]
pub struct Configurations {
    /// Those of the webhooks that fill in.
    pub mutating: Vec<MutatingWebhookConfiguration>,
    /// Those of the webhooks that judge.
    pub validating: Vec<ValidatingWebhookConfiguration>,
}

/// The names of the configuration objects with webhooks of this purpose.
pub fn configuration_names(purpose: Purpose) -> impl Iterator<Item = &'static str> {
    WEBHOOKS
        .iter()
        .filter(move |webhook| webhook.purpose == purpose)
        .map(|webhook| webhook.configuration)
}

impl Registration {
    /// The objects to apply.
    #[must_use]
    pub fn configurations(&self) -> Configurations {
        let of = |purpose| {
            WEBHOOKS
                .iter()
                .filter(move |webhook| webhook.purpose == purpose)
        };
        Configurations {
            mutating: of(Purpose::Mutate)
                .map(|webhook| MutatingWebhookConfiguration {
                    metadata: self.metadata(webhook),
                    webhooks: Some(vec![self.mutating(webhook)]),
                })
                .collect(),
            validating: of(Purpose::Validate)
                .map(|webhook| ValidatingWebhookConfiguration {
                    metadata: self.metadata(webhook),
                    webhooks: Some(vec![self.validating(webhook)]),
                })
                .collect(),
        }
    }

    fn metadata(&self, webhook: &Webhook) -> ObjectMeta {
        ObjectMeta {
            name: Some(webhook.configuration.to_owned()),
            labels: (!self.labels.is_empty()).then(|| self.labels.clone()),
            annotations: (!self.annotations.is_empty()).then(|| self.annotations.clone()),
            ..ObjectMeta::default()
        }
    }

    fn validating(&self, webhook: &Webhook) -> ValidatingWebhook {
        ValidatingWebhook {
            name: webhook.name.to_owned(),
            client_config: self.client_config(webhook),
            rules: Some(vec![rule(webhook)]),
            failure_policy: Some("Fail".to_owned()),
            match_policy: Some("Equivalent".to_owned()),
            match_conditions: Some(match_conditions()),
            namespace_selector: Some(self.namespaces()),
            side_effects: "None".to_owned(),
            timeout_seconds: Some(TIMEOUT_SECONDS),
            admission_review_versions: review_versions(),
            ..ValidatingWebhook::default()
        }
    }

    fn mutating(&self, webhook: &Webhook) -> MutatingWebhook {
        MutatingWebhook {
            name: webhook.name.to_owned(),
            client_config: self.client_config(webhook),
            rules: Some(vec![rule(webhook)]),
            failure_policy: Some("Ignore".to_owned()),
            match_policy: Some("Equivalent".to_owned()),
            match_conditions: Some(match_conditions()),
            namespace_selector: Some(self.namespaces()),
            // Another webhook may add what a default depends on.
            reinvocation_policy: Some("IfNeeded".to_owned()),
            side_effects: "None".to_owned(),
            timeout_seconds: Some(TIMEOUT_SECONDS),
            admission_review_versions: review_versions(),
            ..MutatingWebhook::default()
        }
    }

    fn client_config(&self, webhook: &Webhook) -> WebhookClientConfig {
        let (service, url) = match &self.address {
            Address::Service {
                namespace,
                name,
                port,
            } => {
                let path = Some(webhook.path.to_owned());
                (
                    Some(ServiceReference {
                        namespace: namespace.clone(),
                        name: name.clone(),
                        port: Some(*port),
                        path,
                    }),
                    None,
                )
            }
            Address::Url(base) => (
                None,
                Some(format!("{}{}", base.trim_end_matches('/'), webhook.path)),
            ),
        };
        WebhookClientConfig {
            ca_bundle: self.ca_bundle.clone().map(ByteString),
            service,
            url,
        }
    }

    fn namespaces(&self) -> LabelSelector {
        LabelSelector {
            match_expressions: Some(vec![LabelSelectorRequirement {
                key: "kubernetes.io/metadata.name".to_owned(),
                operator: "NotIn".to_owned(),
                values: Some(self.excluded_namespaces.clone()),
            }]),
            match_labels: None,
        }
    }
}

fn review_versions() -> Vec<String> {
    vec!["v1".to_owned(), "v1beta1".to_owned()]
}

fn rule(webhook: &Webhook) -> RuleWithOperations {
    let list = |text: &str| Some(vec![text.to_owned()]);
    RuleWithOperations {
        api_groups: list(webhook.group),
        api_versions: list(webhook.version),
        resources: list(webhook.resource),
        operations: Some(
            webhook
                .operations
                .iter()
                .map(|&operation| operation.to_owned())
                .collect(),
        ),
        scope: Some("Namespaced".to_owned()),
    }
}

/// What need not be reviewed: what is being deleted, so that finalizers can go, and updates that
/// leave the spec alone.
fn match_conditions() -> Vec<MatchCondition> {
    [
        ("not-being-deleted", "request.operation == 'DELETE' || !has(object.metadata.deletionTimestamp)"),
        (
            "spec-changes",
            "request.operation != 'UPDATE' || !has(object.spec) || !has(oldObject.spec) || object.spec != oldObject.spec",
        ),
    ]
    .map(|(name, expression)| MatchCondition { name: name.to_owned(), expression: expression.to_owned() })
    .to_vec()
}
