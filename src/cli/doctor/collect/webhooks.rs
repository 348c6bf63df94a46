//! Reads how the webhooks are registered, and tries whether the API server calls them.

use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration, WebhookClientConfig,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Client;
use kube::api::{Api, ListParams, PostParams};

use crate::api::PostgresOpsRequest;
use crate::cli::doctor::installation::{
    AdmissionTrial, ExpectedWebhook, Inquiry, UnreadableObject, WebhookClient, WebhookService,
};
use crate::cli::kubeconfig::{ApiConnection, explain_api_error};
use crate::serve::table::{WEBHOOKS, Webhook, WebhookType};

/// Every webhook that should be registered, as it is registered.
pub(super) async fn collect(client: &Client) -> Result<Vec<ExpectedWebhook>, UnreadableObject> {
    let mut found = vec![];
    for webhook in &WEBHOOKS {
        let config = match webhook.webhook_type {
            WebhookType::Mutate => mutating_config(client, webhook).await?,
            WebhookType::Validate => validating_config(client, webhook).await?,
        };
        let registered = match config {
            Some(config) => Some(webhook_client(client, config).await?),
            None => None,
        };
        found.push(ExpectedWebhook {
            name: webhook.name.to_owned(),
            registered,
        });
    }
    Ok(found)
}

const READ_REGISTRATIONS: &str = "read the registrations of webhooks";

async fn mutating_config(
    client: &Client,
    webhook: &Webhook,
) -> Result<Option<WebhookClientConfig>, UnreadableObject> {
    let api: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
    let found = api.get_opt(webhook.configuration).await;
    let registered = UnreadableObject::explain(READ_REGISTRATIONS, found)?
        .into_iter()
        .flat_map(|configuration| configuration.webhooks.unwrap_or_default())
        .find(|registered| registered.name == webhook.name);
    Ok(registered.map(|registered| registered.client_config))
}

async fn validating_config(
    client: &Client,
    webhook: &Webhook,
) -> Result<Option<WebhookClientConfig>, UnreadableObject> {
    let api: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
    let found = api.get_opt(webhook.configuration).await;
    let registered = UnreadableObject::explain(READ_REGISTRATIONS, found)?
        .into_iter()
        .flat_map(|configuration| configuration.webhooks.unwrap_or_default())
        .find(|registered| registered.name == webhook.name);
    Ok(registered.map(|registered| registered.client_config))
}

async fn webhook_client(
    client: &Client,
    config: WebhookClientConfig,
) -> Result<WebhookClient, UnreadableObject> {
    let ca_bundle = config
        .ca_bundle
        .map(|ByteString(pem)| pem)
        .unwrap_or_default();
    let Some(service) = config.service else {
        return Ok(WebhookClient {
            ca_bundle,
            service: None,
        });
    };
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), &service.namespace);
    let of_service =
        ListParams::default().labels(&format!("kubernetes.io/service-name={}", service.name));
    let slices = UnreadableObject::explain(
        "list the endpoints of the webhooks",
        slices.list(&of_service).await,
    )?;
    let endpoints = slices.items.into_iter().flat_map(|slice| slice.endpoints);
    let ready = endpoints.filter(|endpoint| {
        endpoint
            .conditions
            .as_ref()
            .is_none_or(|conditions| conditions.ready != Some(false))
    });
    Ok(WebhookClient {
        ca_bundle,
        service: Some(WebhookService {
            path: format!("{}/{}", service.namespace, service.name),
            ready_endpoints: ready.map(|endpoint| endpoint.addresses.len()).sum(),
        }),
    })
}

/// Creates a request that the rules refuse, as a dry run. It is admitted only if the API server
/// does not call the webhook.
pub(super) async fn try_admission(
    cluster: &ApiConnection,
) -> Result<Inquiry<AdmissionTrial>, UnreadableObject> {
    let request = invalid_request().map_err(|error| UnreadableObject(error.to_string()))?;
    let requests: Api<PostgresOpsRequest> =
        Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    classify(&cluster.namespace, requests.create(&dry, &request).await)
}

/// A request for a database that does not exist.
fn invalid_request() -> serde_json::Result<PostgresOpsRequest> {
    serde_json::from_value(serde_json::json!({
        "apiVersion": "ops.kubedb.com/v1alpha1", "kind": "PostgresOpsRequest", "metadata": {"name": "pgrekey-doctor"},
        "spec": {"type": "Restart", "databaseRef": {"name": "pgrekey-doctor-asks-for-none"}},
    }))
}

/// The rule that refuses [`invalid_request`].
const REFUSED_BY: &str = "database-exists";

/// Sorts the answer to [`invalid_request`].
fn classify(
    namespace: &str,
    answer: kube::Result<PostgresOpsRequest>,
) -> Result<Inquiry<AdmissionTrial>, UnreadableObject> {
    let says = |status: &kube::core::Status, text: &str| status.message.contains(text);
    match answer {
        Ok(_) => Ok(Inquiry::Answered(AdmissionTrial::Admitted {
            namespace: namespace.to_owned(),
        })),
        Err(kube::Error::Api(status)) if says(&status, &format!("[{REFUSED_BY}]")) => {
            Ok(Inquiry::Answered(AdmissionTrial::Refused))
        }
        Err(kube::Error::Api(status)) if says(&status, "failed calling webhook") => {
            Ok(Inquiry::Answered(AdmissionTrial::NotCalled {
                message: status.message.clone(),
            }))
        }
        Err(kube::Error::Api(status))
            if status.code == 403 && says(&status, "cannot create resource") =>
        {
            Ok(Inquiry::NotAllowed(format!(
                "not asked: you may not create postgresopsrequests in namespace {namespace}"
            )))
        }
        Err(error) => Err(UnreadableObject(
            explain_api_error("make a request as a dry run", error).to_string(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_an_invalid_request_says_whether_the_webhooks_are_called() {
        let answer = |code: u16, message: &str| {
            let status = kube::core::Status {
                code,
                message: message.to_owned(),
                ..Default::default()
            };
            format!(
                "{:?}",
                classify("demo", Err(kube::Error::Api(status.boxed())))
            )
        };
        let denial = "admission webhook \"postgresopsrequestwebhook.validators.ops.kubedb.com\" denied the request: \
                      [database-exists] spec.databaseRef.name: there is no Postgres";
        let away = "Internal error occurred: failed calling webhook \"postgresopsrequestwebhook.validators.ops.kubedb.com\": \
                    failed to call webhook: Post \"https://pgrekey.pgrekey.svc:443\": x509: unknown authority";
        let rights =
            "postgresopsrequests.ops.kubedb.com is forbidden: User \"dev\" cannot create resource";
        for (code, message, says) in [
            (422, denial, "Ok(Answered(Refused))"),
            (500, away, "Ok(Answered(NotCalled"),
            (403, rights, "Ok(NotAllowed("),
            (403, "exceeded quota", "Err("),
            (404, "namespaces \"demo\" not found", "Err("),
        ] {
            assert!(
                answer(code, message).starts_with(says),
                "{}",
                answer(code, message)
            );
        }
    }

    #[test]
    fn the_invalid_request_is_refused_by_the_expected_rule() {
        use std::sync::Arc;

        use crate::rules;
        use crate::rules::{Review, Snapshot};
        let review = Review::create(invalid_request().expect("a request"), Arc::default());
        let found = rules::judge(
            rules::ops_request::rules(),
            &review,
            Some(&Snapshot::default()),
        );
        assert_eq!(
            found.iter().map(|finding| finding.rule).collect::<Vec<_>>(),
            [REFUSED_BY]
        );
    }
}
