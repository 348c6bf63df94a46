//! The checks of `doctor`: pure judgments about an [`Installation`].

mod cluster;
mod databases;
mod webhooks;

use jiff::Timestamp;

use crate::cli::doctor::installation::{Installation, UnreadableObject};
use crate::cli::doctor::report::{CheckReport, CheckResult, CheckVerdict};

/// One check: its name, its judgment, and the remedy for its problems.
struct DoctorCheck {
    name: &'static str,
    judge: fn(&Installation, Timestamp) -> Result<CheckResult, UnreadableObject>,
    remedy: &'static str,
}

/// All checks, in the order of the report.
const CHECKS: &[DoctorCheck] = &[
    DoctorCheck {
        name: "API server",
        judge: cluster::api_server,
        remedy: "see whether `kubectl version` gets an answer: without one no other check can be made",
    },
    DoctorCheck {
        name: "CRDs",
        judge: cluster::crds,
        remedy: "install them: `pgrekey crds | kubectl apply --server-side -f -`",
    },
    DoctorCheck {
        name: "CRD versions",
        judge: cluster::crd_versions,
        remedy: "the CRDs are of another pgrekey: `pgrekey crds | kubectl apply --server-side --force-conflicts -f -`",
    },
    DoctorCheck {
        name: "cert-manager CRDs",
        judge: cluster::cert_manager,
        remedy: "install cert-manager: https://cert-manager.io/docs/installation/; pgrekey notices it without a restart",
    },
    DoctorCheck {
        name: "issuers",
        judge: cluster::issuers_exist,
        remedy: "create an Issuer or ClusterIssuer that publishes its CA; examples/issuer.yaml is one",
    },
    DoctorCheck {
        name: "issuers ready",
        judge: cluster::issuers_ready,
        remedy: "`kubectl describe` it: cert-manager says there what is wrong, often a missing Secret",
    },
    DoctorCheck {
        name: "PostgresVersions",
        judge: cluster::postgres_versions,
        remedy: "install the chart with its PostgresVersions, or create one that names your images",
    },
    DoctorCheck {
        name: "webhooks registered",
        judge: webhooks::registration,
        remedy: "install the chart with webhooks, or: `pgrekey webhook-config | kubectl apply --server-side -f -`",
    },
    DoctorCheck {
        name: "webhook CAs",
        judge: webhooks::cas,
        remedy: "a running pgrekey writes the CA: look at its log, and at its right to patch the registrations",
    },
    DoctorCheck {
        name: "webhook endpoints",
        judge: webhooks::endpoints,
        remedy: "look at the pods of that Service: without an answer the API server refuses every change of a database",
    },
    DoctorCheck {
        name: "webhooks answer",
        judge: webhooks::answer,
        remedy: "x509: look at the caBundle of the registration; no answer: look at the pods, and at the network between them and the \
                 API server (port 9443)",
    },
    DoctorCheck {
        name: "leader",
        judge: cluster::leader,
        remedy: "start pgrekey, or look at its log: no controller runs, so no database is looked after",
    },
    DoctorCheck {
        name: "operator's rights",
        judge: cluster::operator_rights,
        remedy: "give it the rights in the chart's templates/rbac.yaml: an operation stops where it needs them",
    },
    DoctorCheck {
        name: "your rights",
        judge: cluster::user_rights,
        remedy: "ask for these rights: some commands do not work without them",
    },
    DoctorCheck {
        name: "PetSet controller",
        judge: cluster::pet_sets,
        remedy: "run pgrekey with --pet-sets=own, or start the PetSet controller: without one no pods are created",
    },
    DoctorCheck {
        name: "storage class",
        judge: cluster::storage_class,
        remedy: "mark one as default, or name one in spec.storage of every database",
    },
    DoctorCheck {
        name: "databases ready",
        judge: databases::ready,
        remedy: "`kubectl describe pg NAME`: its conditions say what is missing",
    },
    DoctorCheck {
        name: "databases blocked",
        judge: databases::blocked,
        remedy: "do what the message says: until then pgrekey leaves the database as it is",
    },
    DoctorCheck {
        name: "certificate logins",
        judge: databases::certificate_logins,
        remedy: "give each database with clientAuthMode cert an Issuer of its own: docs/security.md says why",
    },
    DoctorCheck {
        name: "databases paused",
        judge: databases::paused,
        remedy: "no request runs that could resume it: see \"Resuming by hand\" in docs/operations.md",
    },
    DoctorCheck {
        name: "requests stuck",
        judge: databases::requests_stuck,
        remedy: "`pgrekey status NAME` says what it waits for; `kubectl delete pgops NAME` rolls it back",
    },
    DoctorCheck {
        name: "requests failed",
        judge: databases::requests_failed,
        remedy: "`pgrekey status NAME` says why; remove the cause, delete the request, create it again",
    },
    DoctorCheck {
        name: "certificates issued",
        judge: databases::certificates_issued,
        remedy: "`kubectl describe certificate`: cert-manager says there what is wrong; it retries after an hour",
    },
    DoctorCheck {
        name: "certificates served",
        judge: databases::certificates_served,
        remedy: "pgrekey serves a renewed certificate within minutes; if it does not, the events in `kubectl describe pg` say why",
    },
    DoctorCheck {
        name: "certificates expiring",
        judge: databases::certificates_expiring,
        remedy: "renew: `pgrekey rotate NAME`; and see the Certificate's renewalTime for why cert-manager did not",
    },
];

/// Makes all checks.
pub(crate) fn examine(installation: &Installation, now: Timestamp) -> Vec<CheckReport> {
    CHECKS
        .iter()
        .map(|check| make_check(check, installation, now))
        .collect()
}

fn make_check(check: &DoctorCheck, installation: &Installation, now: Timestamp) -> CheckReport {
    let (verdict, found, remedy) = match (check.judge)(installation, now) {
        Ok(CheckResult::Well(found)) => (CheckVerdict::Ok, found, ""),
        Ok(CheckResult::Problems(verdict, problems)) => {
            (verdict, problems.join("\n"), check.remedy)
        }
        Ok(CheckResult::NotAsked { why, remedy }) => (CheckVerdict::Warn, why, remedy),
        // The reason comes with its own remedy.
        Err(UnreadableObject(why)) => (CheckVerdict::Unknown, why, ""),
    };
    CheckReport {
        check: check.name,
        verdict,
        found,
        remedy: remedy.to_owned(),
    }
}

#[cfg(test)]
mod tests;
