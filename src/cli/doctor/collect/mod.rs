//! Reads the parts of an installation that the checks judge.

mod rights;
mod webhooks;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ListParams};
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use crate::api;
use crate::api::Postgres;
use crate::cli::certs;
use crate::cli::certs::DatabaseCertificates;
use crate::cli::doctor::installation::{CERT_MANAGER_CRDS, Installation, UnreadableObject};
use crate::cli::kubeconfig::{ApiConnection, is_missing};

/// Reads an installation; with a namespace only the databases in it.
pub(crate) async fn collect(cluster: &ApiConnection, namespace: Option<&str>) -> Installation {
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
        (Ok(leases), Ok(pods)) => rights::ask_for_operator(client, leases, pods).await,
        (Err(why), _) | (_, Err(why)) => Err(why.clone()),
    };
    Installation {
        server: UnreadableObject::explain("ask the API server", client.apiserver_version().await)
            .map(|version| version.git_version),
        crds: crds(client).await,
        versions: list(client, &ListParams::default(), "list PostgresVersions").await,
        webhooks: webhooks::collect(client).await,
        trial: webhooks::try_admission(cluster).await,
        issuers: list_if_known(client, "list Issuers").await,
        cluster_issuers: list_if_known(client, "list ClusterIssuers").await,
        forbidden: rights::ask_for_user(client, namespace).await,
        leases,
        operator,
        requests: list_in(client, namespace, "list requests").await,
        pet_sets: list_in(client, namespace, "list PetSets").await,
        default_storage: default_storage(client).await,
        certificates,
        databases,
    }
}

async fn list<K>(
    client: &Client,
    parameters: &ListParams,
    action: &str,
) -> Result<Vec<K>, UnreadableObject>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned,
{
    UnreadableObject::explain(action, Api::<K>::all(client.clone()).list(parameters).await)
        .map(|listed| listed.items)
}

/// Like [`list`]. A kind that the cluster does not have has no objects.
async fn list_if_known<K>(client: &Client, action: &str) -> Result<Vec<K>, UnreadableObject>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned,
{
    match Api::<K>::all(client.clone())
        .list(&ListParams::default())
        .await
    {
        Err(error) if is_missing(&error) => Ok(vec![]),
        answer => UnreadableObject::explain(action, answer).map(|listed| listed.items),
    }
}

async fn list_in<K>(
    client: &Client,
    namespace: Option<&str>,
    action: &str,
) -> Result<Vec<K>, UnreadableObject>
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
    UnreadableObject::explain(action, api.list(&ListParams::default()).await)
        .map(|listed| listed.items)
}

async fn crds(client: &Client) -> Result<Vec<CustomResourceDefinition>, UnreadableObject> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let ours = api::crds().into_iter().map(|crd| crd.name_any());
    let mut found = vec![];
    for name in ours.chain(CERT_MANAGER_CRDS.map(str::to_owned)) {
        found.extend(UnreadableObject::explain(
            "read CRDs",
            api.get_opt(&name).await,
        )?);
    }
    Ok(found)
}

/// The leases called `pgrekey`. If pgrekey runs in pods, only those in the namespaces of its pods:
/// other programs may use the name.
async fn leases(client: &Client, pods: &[Pod]) -> Result<Vec<Lease>, UnreadableObject> {
    let mut leases: Vec<Lease> = list(
        client,
        &ListParams::default().fields("metadata.name=pgrekey"),
        "list leases",
    )
    .await?;
    // A node called pgrekey has a lease too.
    leases.retain(|lease| lease.namespace().as_deref() != Some("kube-node-lease"));
    leases.retain(|lease| {
        pods.is_empty() || pods.iter().any(|pod| pod.namespace() == lease.namespace())
    });
    Ok(leases)
}

async fn default_storage(client: &Client) -> Result<Vec<String>, UnreadableObject> {
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
) -> Result<Vec<DatabaseCertificates>, UnreadableObject> {
    let mut all = vec![];
    for database in databases {
        all.push(
            certs::collect(cluster, database)
                .await
                .map_err(|error| UnreadableObject(error.to_string()))?,
        );
    }
    Ok(all)
}
