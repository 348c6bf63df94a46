//! `pgrekey doctor`: is this installation healthy?

use std::process::ExitCode;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration, WebhookClientConfig,
};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ListParams, PostParams};
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use super::certs;
use super::health::{self, CERT_MANAGER, Found, Installation, Registered, Verdict, Webhook};
use super::scope::{Cluster, Scope, block_on, print, told};
use super::screen::{Output, Screen, Tone, json, yaml};
use crate::api::{self, Postgres};
use crate::plan::Known;
use crate::serve::webhooks::{Purpose, WEBHOOKS};

/// Check whether this installation is healthy
///
/// Nothing is changed. With -n only the databases of that namespace are looked at. The exit code is 1 when a check fails.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  pgrekey doctor
  pgrekey doctor -n demo                       # only the databases of this namespace
  pgrekey doctor -o json | jq '.[] | select(.verdict != \"ok\")'")]
pub(super) struct Args {
    /// How it is printed
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    scope: Scope,
}

pub(super) fn run(Args { output, scope }: Args) -> anyhow::Result<ExitCode> {
    block_on(async {
        let cluster = scope.connect().await?;
        let seen = look(&cluster, scope.namespace.as_deref()).await;
        let found = health::examine(&seen, Timestamp::now());
        let lines = match output {
            Output::Json => json(&found)?,
            Output::Yaml => yaml(&found)?,
            Output::Table | Output::Wide => lines(&found, Screen::new()),
        };
        print(&lines)?;
        // What could not be looked at is no sign of health.
        let is_bad = |found: &Found| matches!(found.verdict, Verdict::Fail | Verdict::Unknown);
        Ok(if found.iter().any(is_bad) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    })
}

fn lines(all: &[Found], screen: Screen) -> Vec<String> {
    let width = all.iter().map(|found| found.check.chars().count()).max().unwrap_or_default();
    let mut lines = vec![];
    for Found { check, verdict, said, remedy } in all {
        let (word, tone) = match verdict {
            Verdict::Ok => ("ok  ", Tone::Good),
            Verdict::Warn => ("warn", Tone::Busy),
            Verdict::Fail => ("FAIL", Tone::Bad),
            Verdict::Unknown => ("?   ", Tone::Busy),
        };
        let mut texts = said.lines();
        let first = texts.next().unwrap_or_default();
        lines.push(format!("{}  {check:width$}  {first}", screen.paint(tone, word)));
        let indent = " ".repeat(width + 8);
        lines.extend(texts.map(|text| format!("{indent}{text}")));
        if !remedy.is_empty() {
            lines.push(format!("{indent}-> {remedy}"));
        }
    }
    let count = |verdict| all.iter().filter(|found| found.verdict == verdict).count();
    let [ok, warn, fail, unknown] = [Verdict::Ok, Verdict::Warn, Verdict::Fail, Verdict::Unknown].map(count);
    lines.push(String::new());
    lines.push(format!("{} checks: {ok} ok, {warn} to look at, {fail} failed, {unknown} not known", all.len()));
    lines
}

/// What went wrong, as a fact.
fn known<T>(what: &str, answer: kube::Result<T>) -> Known<T> {
    answer.map_err(|error| told(what, error).to_string())
}

/// Reads what the checks look at.
async fn look(cluster: &Cluster, namespace: Option<&str>) -> Installation {
    let client = &cluster.client;
    let databases = list_in::<Postgres>(client, namespace, "list databases").await;
    let certificates = match &databases {
        Ok(databases) => certificates(cluster, databases).await,
        Err(why) => Err(why.clone()),
    };
    let leases = list::<Lease>(client, &ListParams::default().fields("metadata.name=pgrekey"), "list leases").await;
    // A node may be called so, too.
    let is_ours = |lease: &Lease| lease.namespace().as_deref() != Some("kube-node-lease");
    Installation {
        server: known("ask the API server", client.apiserver_version().await).map(|version| version.git_version),
        crds: crds(client).await,
        versions: list(client, &ListParams::default(), "list PostgresVersions").await,
        webhooks: webhooks(client).await,
        issuers: list(client, &ListParams::default(), "list Issuers").await,
        cluster_issuers: list(client, &ListParams::default(), "list ClusterIssuers").await,
        forbidden: forbidden(client, namespace).await,
        leases: leases.map(|leases| leases.into_iter().filter(is_ours).collect()),
        requests: list_in(client, namespace, "list requests").await,
        pet_sets: list_in(client, namespace, "list PetSets").await,
        default_storage: default_storage(client).await,
        certificates,
        databases,
    }
}

async fn list<K>(client: &Client, parameters: &ListParams, what: &str) -> Known<Vec<K>>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned,
{
    known(what, Api::<K>::all(client.clone()).list(parameters).await).map(|listed| listed.items)
}

async fn list_in<K>(client: &Client, namespace: Option<&str>, what: &str) -> Known<Vec<K>>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned,
{
    let api = match namespace {
        Some(namespace) => Api::<K>::namespaced(client.clone(), namespace),
        None => Api::<K>::all(client.clone()),
    };
    known(what, api.list(&ListParams::default()).await).map(|listed| listed.items)
}

async fn crds(client: &Client) -> Known<Vec<CustomResourceDefinition>> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let ours = api::crds().into_iter().map(|crd| crd.name_any());
    let mut found = vec![];
    for name in ours.chain(CERT_MANAGER.map(str::to_owned)) {
        found.extend(known("read CRDs", api.get_opt(&name).await)?);
    }
    Ok(found)
}

async fn webhooks(client: &Client) -> Known<Vec<Webhook>> {
    let mutating: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
    let validating: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
    let mut found = vec![];
    for webhook in &WEBHOOKS {
        let what = "read the registrations of webhooks";
        let config = match webhook.purpose {
            Purpose::Mutate => {
                let all = known(what, mutating.get_opt(webhook.configuration).await)?;
                let mut all = all.into_iter().flat_map(|all| all.webhooks.unwrap_or_default());
                all.find(|one| one.name == webhook.name).map(|one| one.client_config)
            }
            Purpose::Validate => {
                let all = known(what, validating.get_opt(webhook.configuration).await)?;
                let mut all = all.into_iter().flat_map(|all| all.webhooks.unwrap_or_default());
                all.find(|one| one.name == webhook.name).map(|one| one.client_config)
            }
        };
        let registered = match config {
            Some(config) => Some(registered(client, config).await?),
            None => None,
        };
        found.push(Webhook { name: webhook.name.to_owned(), registered });
    }
    Ok(found)
}

async fn registered(client: &Client, config: WebhookClientConfig) -> Known<Registered> {
    let ca_bundle = config.ca_bundle.map(|ByteString(pem)| pem).unwrap_or_default();
    let Some(service) = config.service else { return Ok(Registered { ca_bundle, service: None }) };
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), &service.namespace);
    let of_service = ListParams::default().labels(&format!("kubernetes.io/service-name={}", service.name));
    let slices = known("list the endpoints of the webhooks", slices.list(&of_service).await)?;
    let endpoints = slices.items.into_iter().flat_map(|slice| slice.endpoints);
    let ready = endpoints
        .filter(|endpoint| endpoint.conditions.as_ref().is_none_or(|conditions| conditions.ready != Some(false)));
    let ready = ready.map(|endpoint| endpoint.addresses.len()).sum();
    Ok(Registered { ca_bundle, service: Some((format!("{}/{}", service.namespace, service.name), ready)) })
}

/// What the commands do: verb, group and resource.
const RIGHTS: &[(&str, &str, &str)] = &[
    ("list", "kubedb.com", "postgreses"),
    ("get", "ops.kubedb.com", "postgresopsrequests"),
    ("list", "ops.kubedb.com", "postgresopsrequests"),
    ("watch", "ops.kubedb.com", "postgresopsrequests"),
    ("create", "ops.kubedb.com", "postgresopsrequests"),
    ("list", "catalog.kubedb.com", "postgresversions"),
    ("get", "cert-manager.io", "certificates"),
    ("list", "cert-manager.io", "issuers"),
    ("list", "cert-manager.io", "clusterissuers"),
    ("get", "", "secrets"),
    ("list", "", "pods"),
];

async fn forbidden(client: &Client, namespace: Option<&str>) -> Known<Vec<String>> {
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let mut forbidden = vec![];
    for (verb, group, resource) in RIGHTS {
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes: Some(ResourceAttributes {
                    verb: Some((*verb).to_owned()),
                    group: Some((*group).to_owned()),
                    resource: Some((*resource).to_owned()),
                    namespace: namespace.map(str::to_owned),
                    ..ResourceAttributes::default()
                }),
                non_resource_attributes: None,
            },
            ..SelfSubjectAccessReview::default()
        };
        let answer = known("ask for your rights", reviews.create(&PostParams::default(), &review).await)?;
        if !answer.status.is_some_and(|status| status.allowed) {
            forbidden.push(format!("{verb} {resource}"));
        }
    }
    Ok(forbidden)
}

async fn default_storage(client: &Client) -> Known<Vec<String>> {
    let classes: Vec<StorageClass> = list(client, &ListParams::default(), "list StorageClasses").await?;
    let is_default = |class: &StorageClass| {
        class.annotations().get("storageclass.kubernetes.io/is-default-class").is_some_and(|value| value == "true")
    };
    Ok(classes.iter().filter(|class| is_default(class)).map(ResourceExt::name_any).collect())
}

async fn certificates(cluster: &Cluster, databases: &[Postgres]) -> Known<Vec<certs::Certificates>> {
    let mut all = vec![];
    for database in databases {
        all.push(certs::look(cluster, database).await.map_err(|error| error.to_string())?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_says_what_is_wrong_and_what_to_do() {
        let found = |check, verdict, found: &str, remedy: &str| Found {
            check,
            verdict,
            said: found.to_owned(),
            remedy: remedy.to_owned(),
        };
        let all = [
            found("API server", Verdict::Ok, "v1.34.4", ""),
            found(
                "issuers ready",
                Verdict::Warn,
                "Issuer demo/a is not Ready\nIssuer demo/b is not Ready",
                "describe it",
            ),
            found("leader", Verdict::Fail, "nobody holds a lease named pgrekey", "start pgrekey"),
        ];
        insta::assert_snapshot!(lines(&all, Screen::default()).join("\n"));
    }
}
