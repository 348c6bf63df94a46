//! Issuing for an operation: what is asked of cert-manager, and how far it is.

use std::collections::BTreeSet;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use rcgen::{CertificateParams, DnType, KeyPair};
use serde_json::json;

use crate::api::Postgres;
use crate::api::annotations::{REISSUE, TRIAL_OF};
use crate::api::cert_manager;
use crate::api::cert_manager::{
    Certificate, CertificateIssuerRef, CertificateRequest, CertificateRequestSpec,
    CertificateStatus, IssuanceCondition, holds,
};
use crate::api::duration::after;
use crate::api::names::Names;
use crate::api::postgres::PostgresSpec;
use crate::build::certificates::certificate;
use crate::build::{BuildInputs, Cluster};
use crate::cluster::drift::needs_apply;
use crate::cluster::{Error, ObjectName, Objects};
use crate::controller::Context;
use crate::controller::execute::certificates;
use crate::pki::Leaf;
use crate::pki::issued::{Cas, Defect, Issued, cas, leaf};
use crate::plan::observed::{Issuance, ObservedCertificate as Seen, Trial};
use crate::rules::ClusterFacts as _;
use crate::tls::Alias;

/// What cert-manager keeps on a Secret about where its content comes from.
const ISSUER_NAME: &str = "cert-manager.io/issuer-name";
const ISSUER_KIND: &str = "cert-manager.io/issuer-kind";

/// How far issuing is, and what has been issued.
pub(crate) struct ObservedIssuance {
    pub(crate) issuance: Issuance,
    pub(crate) issued: Option<Issued>,
    /// The CAs that have signed the trial.
    pub(crate) trial_cas: Cas,
}

/// Looks at what is issued for a spec, on behalf of an operation.
pub(crate) async fn observe(
    context: &Context,
    objects: &Objects,
    wished: &Cluster,
    operation: &str,
) -> Result<ObservedIssuance, Error> {
    let mut issuance = Issuance {
        not_ready: not_ready(context, wished),
        ..Issuance::default()
    };
    for alias in Alias::ALL {
        let Some(wish) = certificate(wished, alias) else {
            continue;
        };
        let secret: Option<Secret> = objects.get(&wish.spec.secret_name).await?;
        let live: Option<Certificate> = objects.get(&wish.name_any()).await?;
        if let Some(secret) = secret
            .as_ref()
            .filter(|secret| certificates::is_foreign(secret, &wish.name_any()))
        {
            issuance
                .conflicts
                .push(format!("Secret {}", secret.name_any()));
        }
        let Some(live) = live else { continue };
        if !objects.is_owned(&live) {
            issuance
                .conflicts
                .push(format!("Certificate {}", live.name_any()));
        }
        issuance
            .certificates
            .insert(alias, seen(&live, &wish, secret.as_ref(), operation));
    }
    let trials = trials(objects, wished, operation).await?;
    issuance.trial = trial(&trials);
    let issued = match certificates::read(context, objects, wished).await? {
        Ok(issued) => {
            issuance.issued = Some(Ok(issued.material));
            Some(issued)
        }
        Err(problems) => {
            let is_fault = problems
                .iter()
                .any(|problem| problem.defect != Defect::NotIssued);
            let said: Vec<String> = problems.iter().map(ToString::to_string).collect();
            issuance.issued = is_fault.then(|| Err(said.join("; ")));
            None
        }
    };
    Ok(ObservedIssuance {
        issuance,
        issued,
        trial_cas: trial_cas(&trials),
    })
}

/// The database as another spec would have it.
pub(crate) fn with_spec(
    context: &Context,
    postgres: &Postgres,
    mut spec: PostgresSpec,
    cluster: &Cluster,
) -> Result<Cluster, String> {
    spec.version.clone_from(&cluster.spec().version);
    let version = context
        .facts
        .version(&spec.version)
        .ok_or("the PostgresVersion is not known")?;
    let user_conf = spec
        .configuration
        .as_ref()
        .and_then(|configuration| configuration.secret_name.as_ref());
    let facts = BuildInputs {
        version: &version.spec,
        superuser: cluster.superuser(),
        // Settings are no matter of certificates.
        user_conf: user_conf.map(|_| ""),
    };
    Cluster::build(
        &Postgres {
            spec,
            ..postgres.clone()
        },
        &facts,
    )
    .map_err(|why| why.to_string())
}

fn seen(live: &Certificate, wish: &Certificate, secret: Option<&Secret>, operation: &str) -> Seen {
    let as_json =
        |certificate: &Certificate| serde_json::to_value(&certificate.spec).unwrap_or_default();
    let status = live.status.clone().unwrap_or_default();
    let generation = live.metadata.generation;
    let is_ready = status.conditions.iter().any(|condition| {
        condition.type_ == "Ready"
            && condition.status == "True"
            && condition.observed_generation == generation
    });
    let asked = live
        .annotations()
        .get(REISSUE)
        .and_then(|text| text.split_once('/'));
    Seen {
        matches: !needs_apply(&as_json(live), &as_json(wish)),
        ready: is_ready && secret.is_some_and(|secret| is_from(secret, &wish.spec.issuer_ref)),
        issuing: holds(&status.conditions, "Issuing"),
        revision: status.revision.unwrap_or_default(),
        requested_at_revision: asked
            .filter(|(who, _)| *who == operation)
            .and_then(|(_, revision)| revision.parse().ok()),
        failure: failure(&status),
    }
}

/// Whether cert-manager says that the content comes from this issuer.
fn is_from(secret: &Secret, issuer: &CertificateIssuerRef) -> bool {
    let is = |key: &str, wish: &str| {
        secret
            .annotations()
            .get(key)
            .is_some_and(|value| value == wish)
    };
    is(ISSUER_NAME, &issuer.name) && is(ISSUER_KIND, issuer.kind())
}

/// Why the last try failed. cert-manager waits an hour after the first failure, twice as long after
/// each further one, at most 32 hours.
fn failure(status: &CertificateStatus) -> Option<String> {
    let Time(failed) = status.last_failure_time.clone()?;
    let doublings = status.failed_issuance_attempts.unwrap_or(1).clamp(1, 6) - 1;
    let next = after(failed, std::time::Duration::from_secs(3600 << doublings));
    let said = status
        .conditions
        .iter()
        .find(|condition| condition.type_ == "Issuing")?;
    let message = said.message.as_deref().unwrap_or("no reason given");
    (said.status == "False").then(|| format!("{message}; cert-manager tries again at {next}"))
}

/// Issuers of a database that are not there or not ready.
fn not_ready(context: &Context, wished: &Cluster) -> Vec<String> {
    let mut problems: Vec<String> = issuers(wished)
        .into_iter()
        .filter_map(|issuer| {
            let kind = issuer.kind();
            let status = if kind == "ClusterIssuer" {
                context
                    .facts
                    .cluster_issuer(&issuer.name)
                    .map(|known| known.status.clone())
            } else {
                context
                    .facts
                    .issuer(wished.namespace(), &issuer.name)
                    .map(|known| known.status.clone())
            };
            let conditions = status.map(|status| status.unwrap_or_default().conditions);
            match conditions {
                Some(conditions) if holds(&conditions, "Ready") => None,
                Some(conditions) => {
                    let said = conditions
                        .iter()
                        .find_map(|c| c.message.clone())
                        .unwrap_or_default();
                    Some(format!("{kind} {} to be ready: {said}", issuer.name))
                }
                None if context.facts.lacks(kind) => Some(format!(
                    "{}: {}",
                    cert_manager::not_installed(kind),
                    cert_manager::INSTALL
                )),
                None => Some(format!("{kind} {} to exist", issuer.name)),
            }
        })
        .collect();
    problems.sort();
    problems.dedup();
    problems
}

/// Every issuer that a spec names, once.
fn issuers(wished: &Cluster) -> Vec<CertificateIssuerRef> {
    let mut issuers = vec![];
    for alias in Alias::ALL {
        let issuer = certificate(wished, alias).map(|certificate| certificate.spec.issuer_ref);
        issuers.extend(issuer.filter(|issuer| !issuers.contains(issuer)));
    }
    issuers
}

fn trial_name(wished: &Cluster, at: usize) -> String {
    Names::new(wished.name()).trial_certificate(at)
}

/// What was asked of each issuer on trial, in the name of this operation; nothing where it has not
/// been asked.
type Trials = Vec<Option<CertificateRequest>>;

async fn trials(objects: &Objects, wished: &Cluster, operation: &str) -> Result<Trials, Error> {
    let mut trials = vec![];
    for (at, issuer) in issuers(wished).into_iter().enumerate() {
        let found = objects
            .owned::<CertificateRequest>(&trial_name(wished, at))
            .await?;
        trials.push(found.filter(|request| is_trial_of(request, &issuer, operation)));
    }
    Ok(trials)
}

/// Whether a request is this operation's, and not left behind by another one.
fn is_trial_of(
    request: &CertificateRequest,
    issuer: &CertificateIssuerRef,
    operation: &str,
) -> bool {
    let asked = &request.spec.issuer_ref;
    (&asked.name, asked.kind()) == (&issuer.name, issuer.kind())
        && request
            .annotations()
            .get(TRIAL_OF)
            .is_some_and(|uid| uid == operation)
}

/// How far the trial is: as far as the one that is the least so.
fn trial(trials: &Trials) -> Trial {
    if trials.iter().all(Option::is_none) {
        return Trial::Absent;
    }
    trials
        .iter()
        .map(|request| request.as_ref().map_or(Trial::Begun, outcome))
        .fold(Trial::Passed(BTreeSet::new()), |all, one| {
            match (all, one) {
                (failed @ Trial::Failed(_), _) | (_, failed @ Trial::Failed(_)) => failed,
                (Trial::Begun, _) | (_, Trial::Begun) => Trial::Begun,
                (Trial::Passed(some), Trial::Passed(more)) => {
                    Trial::Passed(some.into_iter().chain(more).collect())
                }
                _ => Trial::Pending,
            }
        })
}

/// What has become of one request.
fn outcome(request: &CertificateRequest) -> Trial {
    let conditions = request
        .status
        .as_ref()
        .map(|status| status.conditions.as_slice())
        .unwrap_or_default();
    match conditions.iter().find(|condition| is_refusal(condition)) {
        Some(refusal) => Trial::Failed(
            refusal
                .message
                .clone()
                .unwrap_or_else(|| refusal.type_.clone()),
        ),
        None if holds(conditions, "Ready") => passed(request),
        None => Trial::Pending,
    }
}

/// Who has signed.
fn passed(request: &CertificateRequest) -> Trial {
    match signed(request) {
        Some(leaf) => Trial::Passed(BTreeSet::from([leaf.ca])),
        None => {
            Trial::Failed("its chain does not lead to a CA that the issuer gives along".to_owned())
        }
    }
}

fn signed(request: &CertificateRequest) -> Option<Leaf> {
    let status = request.status.as_ref()?;
    let text =
        |bytes: &Option<ByteString>| Some(String::from_utf8_lossy(&bytes.as_ref()?.0).into_owned());
    leaf(&text(&status.certificate)?, &text(&status.ca)?)
}

/// The CAs that have signed.
fn trial_cas(trials: &Trials) -> Cas {
    let signers = trials
        .iter()
        .flatten()
        .filter_map(|request| request.status.as_ref()?.ca.as_ref());
    signers.flat_map(|pem| cas(&pem.0)).collect()
}

fn is_refusal(condition: &IssuanceCondition) -> bool {
    match condition.type_.as_str() {
        "Ready" => {
            condition.status == "False"
                && matches!(condition.reason.as_deref(), Some("Failed" | "Denied"))
        }
        "Denied" | "InvalidRequest" => condition.status == "True",
        _ => false,
    }
}

/// Asks each issuer for a certificate that nobody will use. The key is thrown away at once.
pub(crate) async fn try_issuers(
    objects: &Objects,
    wished: &Cluster,
    operation: &str,
) -> Result<(), Error> {
    let Some(server) = certificate(wished, Alias::Server) else {
        return Ok(());
    };
    for (at, issuer_ref) in issuers(wished).into_iter().enumerate() {
        let name = trial_name(wished, at);
        match objects.get::<CertificateRequest>(&name).await? {
            Some(request) if is_trial_of(&request, &issuer_ref, operation) => continue,
            // What another operation left behind says nothing about the issuer as it is now.
            Some(_) => drop(objects.delete::<CertificateRequest>(&name).await?),
            None => {}
        }
        let bug = |why: rcgen::Error| Error::Bug {
            what: ObjectName::new::<CertificateRequest>(&name),
            why: why.to_string(),
        };
        let request = signing_request(&server).map_err(bug)?;
        let spec = CertificateRequestSpec {
            issuer_ref,
            request: ByteString(request.into_bytes()),
            usages: server.spec.usages.clone(),
            duration: server.spec.duration.clone(),
        };
        let mut trial = CertificateRequest::new(&name, spec);
        trial.metadata.namespace = Some(wished.namespace().to_owned());
        trial.metadata.labels = Some(wished.labels());
        trial
            .annotations_mut()
            .insert(TRIAL_OF.to_owned(), operation.to_owned());
        objects.apply(trial).await?;
    }
    Ok(())
}

fn signing_request(certificate: &Certificate) -> Result<String, rcgen::Error> {
    let names: Vec<String> = certificate
        .spec
        .dns_names
        .iter()
        .chain(&certificate.spec.ip_addresses)
        .cloned()
        .collect();
    let mut params = CertificateParams::new(names)?;
    if let Some(name) = &certificate.spec.common_name {
        params.distinguished_name.push(DnType::CommonName, name);
    }
    params.serialize_request(&KeyPair::generate()?)?.pem()
}

/// Deletes the trial.
pub(crate) async fn end_trial(objects: &Objects, cluster: &Cluster) -> Result<(), Error> {
    for at in 0..Alias::ALL.len() {
        objects
            .delete::<CertificateRequest>(&trial_name(cluster, at))
            .await?;
    }
    Ok(())
}

/// Asks cert-manager to issue a certificate anew, if it is still at this revision: first it is
/// written down that it was asked, so that it is asked once; then the condition is set that
/// cert-manager's own command line sets.
pub(crate) async fn reissue(
    context: &Context,
    objects: &Objects,
    name: &str,
    operation: &str,
    revision: i64,
) -> Result<(), Error> {
    let of = |error| Error::classify(ObjectName::new::<Certificate>(name), error);
    let api = objects.api::<Certificate>();
    let Some(certificate) = objects.owned::<Certificate>(name).await? else {
        return Ok(());
    };
    let mut status = certificate.status.clone().unwrap_or_default();
    if status.revision.unwrap_or_default() != revision || holds(&status.conditions, "Issuing") {
        return Ok(());
    }
    // Conditions are written as a list, so they are to be those that were read.
    let version = certificate.resource_version();
    let mark = json!({"metadata": {"resourceVersion": version, "annotations": {REISSUE: format!("{operation}/{revision}")}}});
    let marked = api
        .patch(name, &PatchParams::default(), &Patch::Merge(mark))
        .await
        .map_err(of)?;
    status
        .conditions
        .retain(|condition| condition.type_ != "Issuing");
    status.conditions.push(IssuanceCondition {
        type_: "Issuing".to_owned(),
        status: "True".to_owned(),
        last_transition_time: Some(Time(context.now())),
        reason: Some("ManuallyTriggered".to_owned()),
        message: Some("Certificate re-issuance was asked for by a PostgresOpsRequest".to_owned()),
        observed_generation: certificate.metadata.generation,
    });
    let patch = json!({"metadata": {"resourceVersion": marked.resource_version()}, "status": {"conditions": status.conditions}});
    api.patch_status(name, &PatchParams::default(), &Patch::Merge(patch))
        .await
        .map_err(of)?;
    Ok(())
}
