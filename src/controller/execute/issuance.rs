//! Asks cert-manager in the name of an operation: trials and re-issues.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::api::annotations::REISSUE;
use crate::api::cert_manager::{Certificate, IssuanceCondition, holds};
use crate::build::Cluster;
use crate::build::certificates::trial_certificate;
use crate::cluster::drift::needs_apply;
use crate::cluster::{Error, ObjectName, Objects};
use crate::controller::Context;
use crate::controller::execute::certificates::{IssuedSecrets, delete_certificate};
use crate::plan::observed::trial::is_trial_of;
use crate::tls::Alias;

/// Asks for the trial of this operation: all of its Certificates at once.
pub(crate) async fn start_trial(
    context: &Context,
    objects: &Objects,
    target: &Cluster,
    operation: &str,
) -> Result<(), Error> {
    for alias in Alias::ALL {
        let Some(trial) = trial_certificate(target, alias, operation) else {
            continue;
        };
        let name = trial.name_any();
        let live = objects.owned::<Certificate>(&name).await?;
        let is_asked = live.is_some_and(|live| {
            is_trial_of(&live, operation) && !needs_apply(&json!(live.spec), &json!(trial.spec))
        });
        if !is_asked {
            // The answer to another question says nothing about this one, and cert-manager would take
            // an old Secret for the answer.
            delete_certificate(context, objects, &name, &name, IssuedSecrets::Delete).await?;
        }
        objects.apply(trial).await?;
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
        message: Some("Certificate re-issuance was asked for by pgrekey".to_owned()),
        observed_generation: certificate.metadata.generation,
    });
    let patch = json!({"metadata": {"resourceVersion": marked.resource_version()}, "status": {"conditions": status.conditions}});
    api.patch_status(name, &PatchParams::default(), &Patch::Merge(patch))
        .await
        .map_err(classify)?;
    Ok(())
}
