//! The cases: objects and the expected findings, as data.
//!
//! Read `postgres_ops_request.yaml` and `postgres.yaml` as the specification of the rules;
//! `world.yaml` is the cluster that they are about. Here they only become values, so that any suite
//! can put them to whoever should know: the rules themselves, the webhooks, an API server.

use std::sync::{Arc, LazyLock};

use pgrekey::rules::{AdmissionOperation, Allowed, Snapshot};
use serde::Deserialize;
use serde_json::{Value, json};

/// One object, and the expected findings.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    /// The rule that finds something. `None` for a near miss, in which no rule may.
    pub(crate) rule: Option<String>,
    /// What a near miss shows.
    passes: Option<String>,
    /// The difference to other cases of the rule.
    about: Option<String>,
    /// The operation.
    #[serde(default)]
    on: On,
    /// The JSON merge patch onto the base.
    object: Value,
    /// The old object of an update.
    old: Option<Value>,
    /// The installation's permissions; none if left out.
    #[serde(default)]
    allowed: Tenancy,
    /// Earlier requests, each a merge patch onto the base.
    #[serde(default)]
    queued: Vec<Value>,
    /// Other rules that find something too, unavoidably.
    #[serde(default)]
    pub(crate) also: Vec<String>,
    /// The fields of the rule's findings.
    #[serde(default)]
    field: OneOrMore,
    /// The whole text of its first finding.
    pub(crate) text: Option<String>,
    /// `Postgres` or `PostgresOpsRequest`.
    #[serde(skip)]
    pub(crate) kind: &'static str,
}

/// The installation's permissions.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct Tenancy {
    pod_security: Option<String>,
    service_accounts: Vec<String>,
    #[serde(rename = "externalIPs")]
    external_ips: bool,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
enum On {
    #[default]
    Create,
    Update,
    Delete,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl Default for OneOrMore {
    fn default() -> Self {
        Self::More(vec![])
    }
}

impl Case {
    /// The title of the case in a failure.
    pub(crate) fn title(&self) -> String {
        let parts = [
            self.rule.as_ref(),
            self.passes.as_ref(),
            self.about.as_ref(),
        ];
        format!(
            "{}: {}",
            self.kind,
            parts
                .into_iter()
                .flatten()
                .map(String::as_str)
                .collect::<Vec<_>>()
                .join(": ")
        )
    }

    pub(crate) fn operation(&self) -> AdmissionOperation {
        match self.on {
            On::Create => AdmissionOperation::Create,
            On::Update => AdmissionOperation::Update,
            On::Delete => AdmissionOperation::Delete,
        }
    }

    /// The installation's permissions.
    pub(crate) fn allowed(&self) -> Arc<Allowed> {
        let Tenancy {
            pod_security,
            service_accounts,
            external_ips,
        } = self.allowed.clone();
        let pod_security = pod_security
            .map(|level| level.parse().expect("a level"))
            .unwrap_or_default();
        Arc::new(Allowed {
            pod_security,
            service_accounts,
            external_ips,
        })
    }

    /// The object under review.
    pub(crate) fn manifest(&self) -> Value {
        merged(base(self.kind), &self.object)
    }

    /// The old object of an update.
    pub(crate) fn old(&self) -> Option<Value> {
        self.old.as_ref().map(|old| merged(base(self.kind), old))
    }

    /// The earlier requests.
    pub(crate) fn queued(&self) -> impl Iterator<Item = Value> {
        self.queued
            .iter()
            .map(|change| merged(base("PostgresOpsRequest"), change))
    }

    pub(crate) fn fields(&self) -> Vec<&str> {
        match &self.field {
            OneOrMore::One(field) => vec![field],
            OneOrMore::More(fields) => fields.iter().map(String::as_str).collect(),
        }
    }
}

fn base(kind: &str) -> Value {
    match kind {
        "Postgres" => json!({
            "apiVersion": "kubedb.com/v1",
            "kind": "Postgres",
            "metadata": {"name": "database", "namespace": "demo"},
            "spec": {"version": "17.12", "replicas": 3, "storage": {"resources": {"requests": {"storage": "1Gi"}}}},
        }),
        _ => json!({
            "apiVersion": "ops.kubedb.com/v1alpha1",
            "kind": "PostgresOpsRequest",
            "metadata": {"name": "request", "namespace": "demo"},
            "spec": {"type": "ReconfigureTLS", "databaseRef": {"name": "secure"}},
        }),
    }
}

fn merged(mut base: Value, change: &Value) -> Value {
    json_patch::merge(&mut base, change);
    base
}

/// Every case of both kinds.
pub(crate) fn all() -> Vec<Case> {
    [
        (
            "PostgresOpsRequest",
            include_str!("postgres_ops_request.yaml"),
        ),
        ("Postgres", include_str!("postgres.yaml")),
    ]
    .into_iter()
    .flat_map(|(kind, text)| {
        let cases: Vec<Case> = serde_saphyr::from_str(text).expect("the cases can be read");
        cases.into_iter().map(move |case| Case { kind, ..case })
    })
    .collect()
}

/// The manifests of the cluster.
pub(crate) fn world() -> Vec<Value> {
    serde_saphyr::from_multiple(include_str!("world.yaml")).expect("the world can be read")
}

/// The cluster as facts.
pub(crate) fn facts(more: impl IntoIterator<Item = Value>) -> Snapshot {
    static WORLD: LazyLock<Snapshot> = LazyLock::new(|| learn(Snapshot::default(), world()));
    learn(WORLD.clone(), more)
}

fn learn(mut snapshot: Snapshot, documents: impl IntoIterator<Item = Value>) -> Snapshot {
    for document in documents {
        assert!(
            snapshot.learn(&document).expect("a fact can be read"),
            "no fact: {document}"
        );
    }
    snapshot
}
