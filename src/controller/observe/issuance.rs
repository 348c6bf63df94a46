//! Issuing for an operation: what was asked of cert-manager, and how far it is.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;

use crate::api::Postgres;
use crate::api::cert_manager::{Certificate, CertificateIssuerRef, CertificateRequest};
use crate::api::postgres::{PostgresSpec, TlsConfig};
use crate::build::certificates::{certificate, trial_certificate};
use crate::build::{BuildInputs, Cluster};
use crate::cluster::drift::needs_apply;
use crate::cluster::{Error, Objects};
use crate::controller::Context;
use crate::controller::observe::certificates::{fetch_issued, fetch_requirements};
use crate::controller::observe::cluster::ClusterObjects;
use crate::pki::CaId;
use crate::pki::issued::{Issued, MaterialProblem, Requirements};
use crate::plan::observed::Issuance;
use crate::plan::observed::issuance::{
    CertificateObjects, IssuanceObjects, IssuerState, LiveCertificate, ObservedIssuer, is_ready,
    issuers,
};
use crate::plan::observed::trial::{TrialCertificate, TrialObjects};
use crate::rules::ClusterFacts as _;
use crate::tls::{Alias, asks_for_password, method};

/// How far issuing is, and what has been issued.
pub(crate) struct ObservedIssuance {
    pub(crate) issuance: Issuance,
    pub(crate) issued: Option<Issued>,
    /// Why it cannot be served.
    pub(crate) problems: Vec<MaterialProblem>,
    /// The CAs that have signed the trial.
    pub(crate) trial_cas: BTreeMap<CaId, String>,
}

/// Observes what is issued for the spec of `wanted`, on behalf of an operation.
pub(crate) async fn observe(
    context: &Context,
    site: &ClusterObjects,
    wanted: &Cluster,
    operation: Option<&str>,
) -> Result<ObservedIssuance, Error> {
    let objects = &site.objects;
    let required = fetch_requirements_on_the_way(context, site, wanted).await?;
    let mut certificates = BTreeMap::new();
    for alias in Alias::ALL {
        if let Some(wanted) = certificate(wanted, alias) {
            certificates.insert(alias, fetch_certificate(objects, wanted).await?);
        }
    }
    let found = IssuanceObjects {
        issuers: issuers(wanted)
            .into_iter()
            .map(|reference| ObservedIssuer {
                state: issuer_state(context, wanted.namespace(), &reference),
                reference,
            })
            .collect(),
        certificates,
        issued: fetch_issued(context, objects, wanted, &required).await?,
    };
    let issuance = found.issuance(operation.unwrap_or_default());
    let (issued, problems) = match found.issued {
        Ok(issued) => (Some(issued), vec![]),
        Err(problems) => (None, problems),
    };
    let Some(operation) = operation else {
        return Ok(ObservedIssuance {
            issuance,
            trial_cas: BTreeMap::new(),
            issued,
            problems,
        });
    };
    let trial = fetch_trial(objects, wanted, operation).await?;
    let trial = trial.judge(operation, &required, context.now());
    Ok(ObservedIssuance {
        issuance: trial.with(issuance),
        trial_cas: trial.cas,
        issued,
        problems,
    })
}

/// What certificates must have to be served for `wanted`, and at every stage on the way there.
async fn fetch_requirements_on_the_way(
    context: &Context,
    site: &ClusterObjects,
    wanted: &Cluster,
) -> Result<Requirements, Error> {
    let stored = &site.certificates;
    let (cas, leaves) = (stored.cas_of_servers(), stored.leaves());
    let at_the_end = fetch_requirements(context, &site.objects, wanted, cas, leaves).await?;
    let method = method(wanted.spec(), wanted.major());
    let applied = site.applied_posture();
    Ok(Requirements {
        password: applied.map_or(at_the_end.password, |applied| {
            asks_for_password(&applied, method)
        }),
        ..at_the_end
    })
}

impl ObservedIssuance {
    /// For a request that issues nothing, or that is refused.
    pub(crate) fn nothing(refused: Option<String>) -> Self {
        Self {
            issuance: Issuance {
                refused,
                ..Issuance::default()
            },
            issued: None,
            problems: vec![],
            trial_cas: BTreeMap::new(),
        }
    }
}

async fn fetch_certificate(
    objects: &Objects,
    wanted: Certificate,
) -> Result<CertificateObjects, Error> {
    let secret: Option<Secret> = objects.get(&wanted.spec.secret_name).await?;
    let live: Option<Certificate> = objects.get(&wanted.name_any()).await?;
    let spec =
        |certificate: &Certificate| serde_json::to_value(&certificate.spec).unwrap_or_default();
    let live = live.map(|object| LiveCertificate {
        is_owned: objects.is_owned(&object),
        matches: !needs_apply(&spec(&object), &spec(&wanted)),
        object,
    });
    Ok(CertificateObjects {
        wanted,
        live,
        secret,
    })
}

fn issuer_state(context: &Context, namespace: &str, issuer: &CertificateIssuerRef) -> IssuerState {
    if !issuer.is_cert_managers() {
        return IssuerState::External;
    }
    let (facts, kind) = (&context.facts, issuer.kind());
    match facts.issuer_conditions(namespace, kind, &issuer.name) {
        Some(conditions) => IssuerState::Present(conditions),
        None if facts.lacks(kind) => IssuerState::KindUnknown,
        None => IssuerState::Absent,
    }
}

/// The trial of this operation, as far as there is one.
async fn fetch_trial(
    objects: &Objects,
    wanted: &Cluster,
    operation: &str,
) -> Result<TrialObjects, Error> {
    let mut certificates = BTreeMap::new();
    for alias in Alias::ALL {
        if let Some(wanted) = trial_certificate(wanted, alias, operation) {
            let found = fetch_certificate(objects, wanted).await?;
            let secret_is_owned = found.secret.as_ref().is_some_and(|s| objects.is_owned(s));
            certificates.insert(
                alias,
                TrialCertificate {
                    objects: found,
                    secret_is_owned,
                },
            );
        }
    }
    let is_under_way = certificates.values().any(|trial: &TrialCertificate| {
        let live = trial.objects.live.as_ref();
        live.is_some_and(|live| !is_ready(&live.object))
    });
    let requests = if is_under_way {
        objects.labelled::<CertificateRequest>().await?
    } else {
        vec![]
    };
    Ok(TrialObjects {
        certificates,
        requests,
    })
}

/// Why a database as another spec would have it is not there.
pub(crate) enum DesiredProblem {
    /// It is not known.
    Unknown(&'static str),
    /// It cannot be.
    Refused(String),
}

impl DesiredProblem {
    fn refused(why: impl std::fmt::Display) -> Self {
        Self::Refused(why.to_string())
    }
}

/// The database as another spec would have it. `cluster` is the database as it is.
pub(crate) fn with_spec(
    context: &Context,
    postgres: &Postgres,
    mut spec: PostgresSpec,
    cluster: &Cluster,
) -> Result<Cluster, DesiredProblem> {
    spec.version.clone_from(&cluster.spec().version);
    let version = context
        .facts
        .version(&spec.version)
        .ok_or(DesiredProblem::Unknown("the PostgresVersion is not known"))?;
    let key = |spec: &PostgresSpec| spec.tls.as_ref().map(TlsConfig::server_key);
    // A list of ciphers may suit one kind of key only. Settings that TLS runs with already stay.
    if key(&spec).is_some() && key(&spec) != key(cluster.spec()) {
        cluster
            .check_tls_settings(spec.tls.as_ref(), version.tls_groups())
            .map_err(DesiredProblem::refused)?;
    }
    let user_conf = spec
        .configuration
        .as_ref()
        .and_then(|configuration| configuration.secret_name.as_ref());
    let inputs = BuildInputs {
        version: &version.spec,
        superuser: cluster.superuser(),
        // Certificates do not depend on settings.
        user_conf: user_conf.map(|_| ""),
        live_pods: cluster.named_pods(),
        cluster_domain: cluster.cluster_domain(),
    };
    Cluster::build(
        &Postgres {
            spec,
            ..postgres.clone()
        },
        &inputs,
    )
    .map_err(DesiredProblem::refused)
}
