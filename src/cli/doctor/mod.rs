//! `pgrekey doctor`: is this installation healthy?
pub(crate) mod checks;

use std::process::ExitCode;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration, WebhookClientConfig,
};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec, SubjectAccessReview,
    SubjectAccessReviewSpec,
};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ListParams, PostParams};
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use crate::api;
use crate::api::{Postgres, PostgresOpsRequest};
use crate::cli::certs;
use crate::cli::doctor::checks::{
    AdmissionTrial, CERT_MANAGER, CheckReport, CheckVerdict, CheckedAccount, Installation,
    Registered, RegisteredWebhook, WebhookAnswer,
};
use crate::cli::kubeconfig::{ApiConnection, Scope, block_on, explain_api_error, is_missing};
use crate::cli::output::{Output, Screen, Tone, json, print_lines, yaml};
use crate::cli::program_name::as_called;
use crate::plan::Known;
use crate::serve::webhooks::{Purpose, WEBHOOKS};

/// Check whether this installation is healthy
///
/// Nothing is changed: a request that is wrong is made as a dry run, to see whether it is refused.
/// With -n only the databases of that namespace are looked at. The exit code is 1 when a check
/// fails.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  pgrekey doctor
  pgrekey doctor -n demo                       # only the databases of this namespace
  pgrekey doctor -o json | jq '.[] | select(.verdict != \"ok\")'")]
pub(crate) struct Args {
    /// How it is printed
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    scope: Scope,
}

pub(crate) fn run(Args { output, scope }: Args) -> anyhow::Result<ExitCode> {
    block_on(async {
        let cluster = scope.connect().await?;
        let seen = collect(&cluster, scope.namespace.as_deref()).await;
        let mut found = checks::examine(&seen, Timestamp::now());
        for found in &mut found {
            (found.said, found.remedy) = (as_called(&found.said), as_called(&found.remedy));
        }
        let lines = match output {
            Output::Json => json(&found)?,
            Output::Yaml => yaml(&found)?,
            Output::Table | Output::Wide => lines(&found, Screen::new()),
        };
        print_lines(&lines)?;
        // What could not be looked at is no sign of health.
        let is_bad = |found: &CheckReport| {
            matches!(found.verdict, CheckVerdict::Fail | CheckVerdict::Unknown)
        };
        Ok(if found.iter().any(is_bad) {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        })
    })
}

fn lines(all: &[CheckReport], screen: Screen) -> Vec<String> {
    let width = all
        .iter()
        .map(|found| found.check.chars().count())
        .max()
        .unwrap_or_default();
    let mut lines = vec![];
    for CheckReport {
        check,
        verdict,
        said,
        remedy,
    } in all
    {
        let (word, tone) = match verdict {
            CheckVerdict::Ok => ("ok  ", Tone::Good),
            CheckVerdict::Warn => ("warn", Tone::Busy),
            CheckVerdict::Fail => ("FAIL", Tone::Bad),
            CheckVerdict::Unknown => ("?   ", Tone::Busy),
        };
        let mut texts = said.lines();
        let first = texts.next().unwrap_or_default();
        lines.push(format!(
            "{}  {check:width$}  {first}",
            screen.paint(tone, word)
        ));
        let indent = " ".repeat(width + 8);
        lines.extend(texts.map(|text| format!("{indent}{text}")));
        if !remedy.is_empty() {
            lines.push(format!("{indent}-> {remedy}"));
        }
    }
    let count = |verdict| all.iter().filter(|found| found.verdict == verdict).count();
    let [ok, warn, fail, unknown] = [
        CheckVerdict::Ok,
        CheckVerdict::Warn,
        CheckVerdict::Fail,
        CheckVerdict::Unknown,
    ]
    .map(count);
    lines.push(String::new());
    lines.push(format!(
        "{} checks: {ok} ok, {warn} to look at, {fail} failed, {unknown} not known",
        all.len()
    ));
    lines
}

/// What went wrong, as a fact.
fn known<T>(what: &str, answer: kube::Result<T>) -> Known<T> {
    answer.map_err(|error| explain_api_error(what, error).to_string())
}

/// Reads what the checks look at.
async fn collect(cluster: &ApiConnection, namespace: Option<&str>) -> Installation {
    let client = &cluster.client;
    let databases = list_in::<Postgres>(client, namespace, "list databases").await;
    let certificates = match &databases {
        Ok(databases) => certificates(cluster, databases).await,
        Err(why) => Err(why.clone()),
    };
    let labels = ListParams::default().labels("app.kubernetes.io/name=pgrekey");
    let pods = list::<Pod>(client, &labels, "list the pods of pgrekey").await;
    let leases = leases(client, pods.as_deref().unwrap_or_default()).await;
    let operator = match (&leases, &pods) {
        (Ok(leases), Ok(pods)) => operator(client, leases, pods).await,
        (Err(why), _) | (_, Err(why)) => Err(why.clone()),
    };
    Installation {
        server: known("ask the API server", client.apiserver_version().await)
            .map(|version| version.git_version),
        crds: crds(client).await,
        versions: list(client, &ListParams::default(), "list PostgresVersions").await,
        webhooks: webhooks(client).await,
        trial: trial(cluster).await,
        issuers: list_optional(client, "list Issuers").await,
        cluster_issuers: list_optional(client, "list ClusterIssuers").await,
        forbidden: forbidden(client, namespace).await,
        leases,
        operator,
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

/// The same for a kind that the cluster may not have.
async fn list_optional<K>(client: &Client, what: &str) -> Known<Vec<K>>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned,
{
    match Api::<K>::all(client.clone())
        .list(&ListParams::default())
        .await
    {
        Err(error) if is_missing(&error) => Ok(vec![]),
        answer => known(what, answer).map(|listed| listed.items),
    }
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

async fn webhooks(client: &Client) -> Known<Vec<RegisteredWebhook>> {
    let mutating: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
    let validating: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
    let mut found = vec![];
    for webhook in &WEBHOOKS {
        let what = "read the registrations of webhooks";
        let config = match webhook.purpose {
            Purpose::Mutate => {
                let all = known(what, mutating.get_opt(webhook.configuration).await)?;
                let mut all = all
                    .into_iter()
                    .flat_map(|all| all.webhooks.unwrap_or_default());
                all.find(|one| one.name == webhook.name)
                    .map(|one| one.client_config)
            }
            Purpose::Validate => {
                let all = known(what, validating.get_opt(webhook.configuration).await)?;
                let mut all = all
                    .into_iter()
                    .flat_map(|all| all.webhooks.unwrap_or_default());
                all.find(|one| one.name == webhook.name)
                    .map(|one| one.client_config)
            }
        };
        let registered = match config {
            Some(config) => Some(registered(client, config).await?),
            None => None,
        };
        found.push(RegisteredWebhook {
            name: webhook.name.to_owned(),
            registered,
        });
    }
    Ok(found)
}

async fn registered(client: &Client, config: WebhookClientConfig) -> Known<Registered> {
    let ca_bundle = config
        .ca_bundle
        .map(|ByteString(pem)| pem)
        .unwrap_or_default();
    let Some(service) = config.service else {
        return Ok(Registered {
            ca_bundle,
            service: None,
        });
    };
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), &service.namespace);
    let of_service =
        ListParams::default().labels(&format!("kubernetes.io/service-name={}", service.name));
    let slices = known(
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
    let ready = ready.map(|endpoint| endpoint.addresses.len()).sum();
    Ok(Registered {
        ca_bundle,
        service: Some((format!("{}/{}", service.namespace, service.name), ready)),
    })
}

/// Asks for a request that the rules refuse, as a dry run: no webhook that is reached and trusted
/// lets it in.
async fn trial(cluster: &ApiConnection) -> Known<WebhookAnswer<AdmissionTrial>> {
    let request = wrong().map_err(|error| error.to_string())?;
    let requests: Api<PostgresOpsRequest> =
        Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    tried(&cluster.namespace, requests.create(&dry, &request).await)
}

/// A request about a database that nobody has.
fn wrong() -> serde_json::Result<PostgresOpsRequest> {
    serde_json::from_value(serde_json::json!({
        "apiVersion": "ops.kubedb.com/v1alpha1", "kind": "PostgresOpsRequest", "metadata": {"name": "pgrekey-doctor"},
        "spec": {"type": "Restart", "databaseRef": {"name": "pgrekey-doctor-asks-for-none"}},
    }))
}

/// The rule that refuses it.
const REFUSED_BY: &str = "database-exists";

/// What the answer to a request that is wrong says about the webhooks.
fn tried(
    namespace: &str,
    answer: kube::Result<PostgresOpsRequest>,
) -> Known<WebhookAnswer<AdmissionTrial>> {
    let said = |status: &kube::core::Status, what: &str| status.message.contains(what);
    match answer {
        Ok(_) => Ok(WebhookAnswer::Answered(AdmissionTrial::LetIn(
            namespace.to_owned(),
        ))),
        Err(kube::Error::Api(status)) if said(&status, &format!("[{REFUSED_BY}]")) => {
            Ok(WebhookAnswer::Answered(AdmissionTrial::Refused))
        }
        Err(kube::Error::Api(status)) if said(&status, "failed calling webhook") => Ok(
            WebhookAnswer::Answered(AdmissionTrial::NotCalled(status.message.clone())),
        ),
        Err(kube::Error::Api(status))
            if status.code == 403 && said(&status, "cannot create resource") =>
        {
            Ok(WebhookAnswer::NotAllowed(format!(
                "not asked: you may not create postgresopsrequests in namespace {namespace}"
            )))
        }
        Err(error) => Err(explain_api_error("make a request as a dry run", error).to_string()),
    }
}

/// The leases called `pgrekey`: of the namespaces with its pods, if it runs in pods, for others may
/// use the name.
async fn leases(client: &Client, pods: &[Pod]) -> Known<Vec<Lease>> {
    let mut leases: Vec<Lease> = list(
        client,
        &ListParams::default().fields("metadata.name=pgrekey"),
        "list leases",
    )
    .await?;
    // A node may be called so, too.
    leases.retain(|lease| lease.namespace().as_deref() != Some("kube-node-lease"));
    leases.retain(|lease| {
        pods.is_empty() || pods.iter().any(|pod| pod.namespace() == lease.namespace())
    });
    Ok(leases)
}

/// What an operation cannot do without: verb, group, resource and part of it.
const OPERATION: &[(&str, &str, &str, Option<&str>)] = &[
    (
        "patch",
        "ops.kubedb.com",
        "postgresopsrequests",
        Some("status"),
    ),
    ("create", "cert-manager.io", "certificates", None),
    ("create", "", "pods", Some("eviction")),
];

/// What the leader's ServiceAccount may not do, if the leader is a pod.
async fn operator(
    client: &Client,
    leases: &[Lease],
    pods: &[Pod],
) -> Known<WebhookAnswer<Option<CheckedAccount>>> {
    let leads = |pod: &&Pod| {
        leases.iter().any(|lease| {
            let holder = lease
                .spec
                .as_ref()
                .and_then(|spec| spec.holder_identity.as_deref());
            lease.namespace() == pod.namespace() && holder == pod.metadata.name.as_deref()
        })
    };
    let spec = pods
        .iter()
        .find(leads)
        .and_then(|pod| Some((pod.namespace()?, pod.spec.as_ref()?)));
    let Some((namespace, spec)) = spec else {
        return Ok(WebhookAnswer::Answered(None));
    };
    let flags = || {
        spec.containers
            .iter()
            .flat_map(|container| container.args.iter().flatten())
    };
    let flag = |name: &str| {
        flags()
            .find_map(|flag| flag.strip_prefix(name)?.strip_prefix('='))
            .map(str::to_owned)
    };
    if flag("--controllers").is_some_and(|controllers| !controllers.contains("ops-manager")) {
        return Ok(WebhookAnswer::Answered(None));
    }
    let account = spec.service_account_name.as_deref().unwrap_or("default");
    let watched = flag("--watch-namespace");
    let reviews: Api<SubjectAccessReview> = Api::all(client.clone());
    let mut forbidden = vec![];
    for (verb, group, resource, part) in OPERATION {
        let resource_attributes = ResourceAttributes {
            subresource: part.map(str::to_owned),
            ..attributes(verb, group, resource, watched.as_deref())
        };
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(format!("system:serviceaccount:{namespace}:{account}")),
                groups: Some(vec![
                    "system:serviceaccounts".to_owned(),
                    format!("system:serviceaccounts:{namespace}"),
                    "system:authenticated".to_owned(),
                ]),
                resource_attributes: Some(resource_attributes),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let answer = match reviews.create(&PostParams::default(), &review).await {
            Err(kube::Error::Api(status)) if status.code == 403 => {
                return Ok(WebhookAnswer::NotAllowed(
                    "not asked: you may not create subjectaccessreviews".to_owned(),
                ));
            }
            answer => known("ask for the operator's rights", answer)?,
        };
        if !answer.status.is_some_and(|status| status.allowed) {
            let part = part.map(|part| format!("/{part}")).unwrap_or_default();
            forbidden.push(format!("{verb} {resource}{part}"));
        }
    }
    Ok(WebhookAnswer::Answered(Some(CheckedAccount {
        name: format!("{namespace}/{account}"),
        forbidden,
    })))
}

/// What the commands do in the namespaces of databases: verb, group and resource.
const RIGHTS: &[(&str, &str, &str)] = &[
    ("get", "kubedb.com", "postgreses"),
    ("list", "kubedb.com", "postgreses"),
    ("get", "ops.kubedb.com", "postgresopsrequests"),
    ("list", "ops.kubedb.com", "postgresopsrequests"),
    ("watch", "ops.kubedb.com", "postgresopsrequests"),
    ("create", "ops.kubedb.com", "postgresopsrequests"),
    ("get", "cert-manager.io", "certificates"),
    ("list", "cert-manager.io", "issuers"),
    ("get", "", "secrets"),
    ("list", "", "pods"),
];

/// And what with objects of no namespace.
const RIGHTS_EVERYWHERE: &[(&str, &str, &str)] = &[
    ("list", "catalog.kubedb.com", "postgresversions"),
    ("list", "cert-manager.io", "clusterissuers"),
    ("list", "", "namespaces"),
    ("list", "storage.k8s.io", "storageclasses"),
];

async fn forbidden(client: &Client, namespace: Option<&str>) -> Known<Vec<String>> {
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let rights = RIGHTS.iter().map(|right| (right, namespace));
    let mut forbidden = vec![];
    for ((verb, group, resource), namespace) in
        rights.chain(RIGHTS_EVERYWHERE.iter().map(|right| (right, None)))
    {
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes: Some(attributes(verb, group, resource, namespace)),
                non_resource_attributes: None,
            },
            ..SelfSubjectAccessReview::default()
        };
        let answer = known(
            "ask for your rights",
            reviews.create(&PostParams::default(), &review).await,
        )?;
        if !answer.status.is_some_and(|status| status.allowed) {
            forbidden.push(format!("{verb} {resource}"));
        }
    }
    Ok(forbidden)
}

fn attributes(
    verb: &str,
    group: &str,
    resource: &str,
    namespace: Option<&str>,
) -> ResourceAttributes {
    ResourceAttributes {
        verb: Some(verb.to_owned()),
        group: Some(group.to_owned()),
        resource: Some(resource.to_owned()),
        namespace: namespace.map(str::to_owned),
        ..ResourceAttributes::default()
    }
}

async fn default_storage(client: &Client) -> Known<Vec<String>> {
    let classes: Vec<StorageClass> =
        list(client, &ListParams::default(), "list StorageClasses").await?;
    let is_default = |class: &StorageClass| {
        class
            .annotations()
            .get("storageclass.kubernetes.io/is-default-class")
            .is_some_and(|value| value == "true")
    };
    Ok(classes
        .iter()
        .filter(|class| is_default(class))
        .map(ResourceExt::name_any)
        .collect())
}

async fn certificates(
    cluster: &ApiConnection,
    databases: &[Postgres],
) -> Known<Vec<certs::Certificates>> {
    let mut all = vec![];
    for database in databases {
        all.push(
            certs::collect(cluster, database)
                .await
                .map_err(|error| error.to_string())?,
        );
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_says_what_is_wrong_and_what_to_do() {
        let found = |check, verdict, found: &str, remedy: &str| CheckReport {
            check,
            verdict,
            said: found.to_owned(),
            remedy: remedy.to_owned(),
        };
        let all = [
            found("API server", CheckVerdict::Ok, "v1.34.4", ""),
            found(
                "issuers ready",
                CheckVerdict::Warn,
                "Issuer demo/a is not Ready\nIssuer demo/b is not Ready",
                "describe it",
            ),
            found(
                "leader",
                CheckVerdict::Fail,
                "nobody holds a lease named pgrekey",
                "start pgrekey",
            ),
        ];
        insta::assert_snapshot!(lines(&all, Screen::default()).join("\n"));
    }

    #[test]
    fn the_answer_to_a_wrong_request_says_whether_our_webhooks_are_called() {
        let answer = |code: u16, message: &str| {
            let status = kube::core::Status {
                code,
                message: message.to_owned(),
                ..Default::default()
            };
            format!("{:?}", tried("demo", Err(kube::Error::Api(status.boxed()))))
        };
        let denial = "admission webhook \"postgresopsrequestwebhook.validators.ops.kubedb.com\" denied the request: \
                      [database-exists] spec.databaseRef.name: there is no Postgres";
        let away = "Internal error occurred: failed calling webhook \"postgresopsrequestwebhook.validators.ops.kubedb.com\": \
                    failed to call webhook: Post \"https://pgrekey.pgrekey.svc:443\": x509: unknown authority";
        let rights =
            "postgresopsrequests.ops.kubedb.com is forbidden: User \"dev\" cannot create resource";
        for (code, message, says) in [
            (422, denial, "Ok(Answered(Refused))"),
            (500, away, "Ok(Answered(NotCalled("),
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
    fn the_request_that_is_tried_is_refused_by_the_rule_that_is_looked_for() {
        use std::sync::Arc;

        use crate::rules;
        use crate::rules::{Review, Snapshot};
        let review = Review::create(wrong().expect("a request"), Arc::default());
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
