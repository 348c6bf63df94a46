//! The response to the API server, made of a verdict.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;

use crate::rules::{Effect, Finding};

use crate::serve::admission::{AdmissionRequest, AdmissionResponse, Cause, Details, Status};
use crate::serve::review::AdmissionVerdict;
use crate::serve::table::Webhook;

/// Makes the response to the API server.
pub fn respond(
    webhook: &Webhook,
    request: &AdmissionRequest<'_>,
    verdict: AdmissionVerdict,
) -> Result<AdmissionResponse, serde_json::Error> {
    let allowed = verdict.allowed();
    let AdmissionVerdict {
        findings,
        patch,
        wrong_webhook,
    } = verdict;
    let (refusals, warnings): (Vec<Finding>, Vec<Finding>) = findings
        .into_iter()
        .partition(|f| f.effect == Effect::Refuse);
    let mut audit_annotations = BTreeMap::new();
    for (key, findings) in [("refused-by", &refusals), ("warned-by", &warnings)] {
        if !findings.is_empty() {
            let mut ids: Vec<&str> = findings.iter().map(|f| f.rule).collect();
            ids.dedup();
            audit_annotations.insert(key, ids.join(","));
        }
    }
    let status = match wrong_webhook {
        Some(message) => Some(Status {
            code: 400,
            reason: "BadRequest",
            message,
            details: None,
        }),
        None if !allowed => Some(invalid(webhook, request, &refusals)),
        None => None,
    };
    let patch = patch
        .map(|patch| serde_json::to_vec(&patch))
        .transpose()?
        .map(ByteString);
    Ok(AdmissionResponse {
        allowed,
        status,
        warnings: warnings.iter().map(Finding::warning).collect(),
        audit_annotations,
        patch_type: patch.is_some().then_some("JSONPatch"),
        patch,
    })
}

/// The longest name of an object in Kubernetes.
const LONGEST_NAME: usize = 253;

fn invalid(webhook: &Webhook, request: &AdmissionRequest<'_>, refusals: &[Finding]) -> Status {
    let lines: Vec<String> = refusals.iter().map(ToString::to_string).collect();
    let cause = |f: &Finding| Cause {
        reason: "FieldValueInvalid",
        // kubectl prints the causes, not the message above them.
        message: format!("[{}] {}; {}", f.rule, f.problem, f.remedy),
        field: f.field.clone(),
    };
    Status {
        code: 422,
        reason: "Invalid",
        message: lines.join("\n"),
        details: Some(Details {
            name: request
                .name
                .iter()
                .flat_map(|name| name.chars())
                .take(LONGEST_NAME)
                .collect(),
            kind: webhook.kind,
            group: webhook.group,
            causes: refusals.iter().map(cause).collect(),
        }),
    }
}
