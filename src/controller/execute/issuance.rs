//! Asks cert-manager in the name of an operation: trials and re-issues.

use k8s_openapi::ByteString;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use rcgen::{CertificateParams, DnType, KeyPair};
use serde_json::json;

use crate::api::annotations::{REISSUE, TRIAL_OF};
use crate::api::cert_manager::{
    Certificate, CertificateRequest, CertificateRequestSpec, IssuanceCondition, holds,
};
use crate::build::Cluster;
use crate::build::certificates::certificate;
use crate::cluster::{Error, ObjectName, Objects};
use crate::controller::Context;
use crate::plan::observed::issuance::{is_trial_of, issuers, trial_name};
use crate::tls::Alias;

/// Asks each issuer for a certificate that is never used. Its key is thrown away at once.
pub(crate) async fn start_trials(
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
            // A trial of another operation says nothing about the issuer as it is now.
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

/// Deletes the trials.
pub(crate) async fn delete_trials(objects: &Objects, cluster: &Cluster) -> Result<(), Error> {
    for at in 0..Alias::ALL.len() {
        objects
            .delete::<CertificateRequest>(&trial_name(cluster, at))
            .await?;
    }
    Ok(())
}

/// Asks cert-manager to re-issue a certificate, if it still has this revision. First an annotation
/// records the request, so that it is made once; then the condition is set that cert-manager's own
/// command line sets.
pub(crate) async fn reissue(
    context: &Context,
    objects: &Objects,
    name: &str,
    operation: &str,
    revision: i64,
) -> Result<(), Error> {
    let classify = |error| Error::classify(ObjectName::new::<Certificate>(name), error);
    let api = objects.api::<Certificate>();
    let Some(certificate) = objects.owned::<Certificate>(name).await? else {
        return Ok(());
    };
    let mut status = certificate.status.clone().unwrap_or_default();
    if status.revision.unwrap_or_default() != revision || holds(&status.conditions, "Issuing") {
        return Ok(());
    }
    // The list of conditions is written as a whole, so it must still be the one that was read.
    let version = certificate.resource_version();
    let mark = json!({"metadata": {"resourceVersion": version, "annotations": {REISSUE: format!("{operation}/{revision}")}}});
    let marked = api
        .patch(name, &PatchParams::default(), &Patch::Merge(mark))
        .await
        .map_err(classify)?;
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
        .map_err(classify)?;
    Ok(())
}
