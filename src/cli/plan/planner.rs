//! The plan of a request, computed against the facts about a cluster.

use std::sync::Arc;

use anyhow::anyhow;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, ListParams};

use crate::api::postgres_version::PostgresVersionSpec;
use crate::api::{Postgres, PostgresOpsRequest};
use crate::build::tls_groups::Images;
use crate::build::{BuildInputs, Cluster};
use crate::cli::kubeconfig::{ApiConnection, explain_api_error};
use crate::cli::plan::extra_ca::CandidateCas;
use crate::plan::operation::goal::target_spec;
use crate::plan::preview::{PodStrategy, Preview, preview};
use crate::rules;
use crate::rules::defaults::InstallationDefaults;
use crate::rules::kind::ReviewedKind;
use crate::rules::{ClusterFacts as _, Effect, Finding, Review, Snapshot};

/// Plans requests one after the other, each from the state that the one before it leads to.
pub(crate) struct Planner {
    pub(crate) facts: Snapshot,
    /// The cluster to ask for the primary. `None` when planning offline.
    pub(crate) cluster: Option<ApiConnection>,
    pub(crate) installation: InstallationDefaults,
    /// The DNS domain of the Kubernetes cluster.
    pub(crate) cluster_domain: String,
}

/// The effects that one request would have.
pub(crate) struct RequestPlan {
    pub(crate) request: PostgresOpsRequest,
    pub(crate) findings: Vec<Finding>,
    pub(crate) major_version: Certainty,
    pub(crate) primary: Certainty,
    pub(crate) preview: Preview,
    /// The database after the operation.
    pub(crate) to: Cluster,
    /// The CAs that the database names beside those of its issuers; `None` if it names none.
    pub(crate) candidate_cas: Option<CandidateCas>,
}

/// Whether a plan rests on a fact or on a guess.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Certainty {
    Known,
    Guessed,
}

impl Planner {
    /// Plans one request, and puts the changed database into the facts for the next one.
    pub(crate) async fn plan(
        &mut self,
        request: &PostgresOpsRequest,
    ) -> anyhow::Result<RequestPlan> {
        let (namespace, name) = (
            request.namespace().unwrap_or_default(),
            &request.spec.database_ref.name,
        );
        let database = self.facts.database(&namespace, name).ok_or_else(|| {
            let place = if self.cluster.is_some() { "cluster" } else { "facts" };
            anyhow!("there is no database {namespace}/{name} in the {place}: the plan begins at its spec")
        })?;
        let (request, findings) = self.admit(request)?;
        let pods = self.fetch_pods(&namespace, name).await?;
        let images = Images::new(name, None, &pods);
        let (from, major_version) = self.build(&database, &images)?;
        let mut after = Postgres::clone(&database);
        after.spec = target_spec(&database.spec, &request, from.major());
        let (to, _) = self
            .build(&after, &images)
            .map_err(|why| refusals_or(why, &request, &findings))?;
        let (primary, certainty) = match primary(&pods) {
            Some(primary) => (primary, Certainty::Known),
            None => (from.names().pod(0), Certainty::Guessed),
        };
        let strategy = if request.restarts() {
            PodStrategy::Restart
        } else {
            PodStrategy::Reload
        };
        let preview = preview(&from, &to, &request.spec, strategy, &primary);
        self.facts.databases.retain(|other| {
            (other.namespace(), other.name_any()) != (after.namespace(), after.name_any())
        });
        self.facts.databases.push(Arc::new(after));
        let candidate_cas = match to.extra_ca().filter(|_| to.spec().tls.is_some()) {
            Some(source) => {
                let cluster = self.cluster.as_ref();
                Some(CandidateCas::fetch(cluster, to.namespace(), source).await?)
            }
            None => None,
        };
        Ok(RequestPlan {
            candidate_cas,
            request,
            findings,
            major_version,
            primary: certainty,
            preview,
            to,
        })
    }

    /// The request with the defaults that admission fills in, and the findings of the rules. A
    /// request that is in the cluster has passed admission: it is returned unchanged.
    fn admit(
        &self,
        request: &PostgresOpsRequest,
    ) -> anyhow::Result<(PostgresOpsRequest, Vec<Finding>)> {
        if request.metadata.uid.is_some() {
            return Ok((request.clone(), vec![]));
        }
        let create = |object| Review::create(object, Arc::clone(&self.installation.allowed));
        let (document, given) = (serde_json::to_value(request)?, create(request.clone()));
        let defaulted =
            PostgresOpsRequest::defaulted(document, &given, &self.facts, &self.installation);
        let review = create(serde_json::from_value(defaulted)?);
        let findings = rules::judge(PostgresOpsRequest::rules(), &review, Some(&self.facts));
        Ok((review.object, findings))
    }

    /// Builds the database. Without its PostgresVersion the major version is guessed from the name.
    fn build(&self, database: &Postgres, images: &Images) -> anyhow::Result<(Cluster, Certainty)> {
        let known = self.facts.version(&database.spec.version);
        // The Secret's settings are not read. They may be other groups.
        let configuration = database.spec.configuration.as_ref();
        let has_secret = configuration.is_some_and(|from| from.secret_name.is_some());
        let groups = known.as_ref().filter(|_| !has_secret);
        let groups = groups.map(|version| version.tls_groups());
        let known = known.map(|version| version.spec.clone());
        let certainty = if known.is_some() {
            Certainty::Known
        } else {
            Certainty::Guessed
        };
        let version = known.unwrap_or_else(|| PostgresVersionSpec {
            version: database.spec.version.clone(),
            ..PostgresVersionSpec::default()
        });
        let inputs = BuildInputs {
            version: &version,
            superuser: "postgres",
            user_conf: Some(""),
            live_pods: 0,
            cluster_domain: &self.cluster_domain,
        };
        let built = Cluster::build(database, &inputs)
            .map_err(|why| anyhow!("the database cannot be planned: {why}"))?;
        Ok((
            built.with_default_groups(&groups.unwrap_or_default(), images),
            certainty,
        ))
    }

    /// The pods of a database. None offline.
    async fn fetch_pods(&self, namespace: &str, database: &str) -> anyhow::Result<Vec<Pod>> {
        let Some(cluster) = &self.cluster else {
            return Ok(vec![]);
        };
        let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
        let selector = format!("postgreses.kubedb.com/database.cluster={database}");
        let found = pods.list(&ListParams::default().labels(&selector)).await;
        let found = found.map_err(|error| explain_api_error("list the pods", error))?;
        Ok(found.items)
    }
}

/// The name of the primary's pod. `None` offline, and while there is no primary.
fn primary(pods: &[Pod]) -> Option<String> {
    let is_primary = |pod: &&Pod| {
        let role = pod.labels().get("kubedb.com/role");
        role.is_some_and(|role| role == "primary")
    };
    pods.iter().find(is_primary).map(ResourceExt::name_any)
}

/// The refusals of the rules, if there are any; else the reason why the target cannot be built.
fn refusals_or(
    why: anyhow::Error,
    request: &PostgresOpsRequest,
    findings: &[Finding],
) -> anyhow::Error {
    let refusals: Vec<String> = findings
        .iter()
        .filter(|f| f.effect == Effect::Refuse)
        .map(|finding| format!("\n  {finding}"))
        .collect();
    if refusals.is_empty() {
        return why;
    }
    anyhow!(
        "{} would be refused:{}",
        request.name_any(),
        refusals.concat()
    )
}
