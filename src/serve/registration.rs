//! The registration of the webhooks with the API server.

use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{
    MatchCondition, MutatingWebhook, MutatingWebhookConfiguration, RuleWithOperations,
    ServiceReference, ValidatingWebhook, ValidatingWebhookConfiguration, WebhookClientConfig,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use kube::api::ObjectMeta;

use crate::serve::table::{WEBHOOKS, Webhook, WebhookType};

/// How long the API server waits for a response. A review takes microseconds. Only a lost
/// connection takes longer, and users wait for it.
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

/// The configuration objects to register.
#[derive(Clone, Debug)]
pub struct Registration {
    /// The address of the webhooks.
    pub address: Address,
    /// The CAs that the API server trusts for the webhooks, PEM. `None` if cert-manager's injector
    /// fills them in.
    pub ca_bundle: Option<Vec<u8>>,
    /// Namespaces whose objects are not reviewed: `kube-system` and pgrekey's own, where pods must
    /// start while the webhooks are down.
    pub excluded_namespaces: Vec<String>,
    /// Labels of the configuration objects.
    pub labels: std::collections::BTreeMap<String, String>,
    /// Annotations of the configuration objects, such as the one for cert-manager's CA injector.
    pub annotations: std::collections::BTreeMap<String, String>,
}

/// The configuration objects of both kinds.
#[derive(Clone, Debug)]
pub struct Configurations {
    /// For the mutating webhooks.
    pub mutating: Vec<MutatingWebhookConfiguration>,
    /// For the validating webhooks.
    pub validating: Vec<ValidatingWebhookConfiguration>,
}

/// The names of the configuration objects for webhooks of this purpose.
pub fn configuration_names(purpose: WebhookType) -> impl Iterator<Item = &'static str> {
    WEBHOOKS
        .iter()
        .filter(move |webhook| webhook.webhook_type == purpose)
        .map(|webhook| webhook.configuration)
}

impl Registration {
    /// The objects to apply.
    #[must_use]
    pub fn configurations(&self) -> Configurations {
        let of = |purpose| {
            WEBHOOKS
                .iter()
                .filter(move |webhook| webhook.webhook_type == purpose)
        };
        Configurations {
            mutating: of(WebhookType::Mutate)
                .map(|webhook| MutatingWebhookConfiguration {
                    metadata: self.metadata(webhook),
                    webhooks: Some(vec![self.mutating(webhook)]),
                })
                .collect(),
            validating: of(WebhookType::Validate)
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
            // A default may depend on a field that another webhook fills in.
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

/// Excludes objects that are being deleted, so that finalizers can be removed, and updates that
/// leave the spec as it is.
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
