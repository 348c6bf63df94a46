//! The checks of issuers.

use std::collections::BTreeSet;

use crate::api::bounds::MAX_CERTIFICATES;
use crate::api::cert_manager;
use crate::api::postgres::TlsConfig;
use crate::api::tls::{CERT_MANAGER_GROUP, ClientAuthMode, IssuerRef};

use crate::rules::certificates::view::{
    CertificateRequestView, HasTls, TargetTls, entries, other_databases,
};
use crate::rules::{ClusterFacts, Findings, Review, quoted};

/// The issuers in the object, each with its field.
fn issuers<'a>(view: &CertificateRequestView<'a>) -> Vec<(String, &'a IssuerRef)> {
    let own = view
        .issuer_ref
        .map(|issuer| ("spec.tls.issuerRef".to_owned(), issuer));
    let of_certificates = entries(view).filter_map(|(field, certificate)| {
        Some((
            format!("{field}.issuerRef"),
            certificate.issuer_ref.as_ref()?,
        ))
    });
    own.into_iter().chain(of_certificates).collect()
}

fn kind_is_known(issuer: &IssuerRef) -> bool {
    matches!(issuer.kind(), "Issuer" | "ClusterIssuer")
}

pub(super) fn issuer_kind<K>(
    review: &Review<K>,
    _: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) where
    Review<K>: HasTls,
{
    let Some(view) = review.tls() else { return };
    for (field, issuer) in issuers(&view)
        .into_iter()
        .filter(|(_, issuer)| !kind_is_known(issuer))
    {
        findings.add(
            format!("{field}.kind"),
            format!("{} is no kind of issuer", quoted(issuer.kind())),
            "use Issuer or ClusterIssuer",
        );
    }
}

pub(super) fn issuer_group<K>(
    review: &Review<K>,
    _: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) where
    Review<K>: HasTls,
{
    let Some(view) = review.tls() else { return };
    for (field, issuer) in issuers(&view)
        .into_iter()
        .filter(|(_, issuer)| issuer.group() != CERT_MANAGER_GROUP)
    {
        findings.add(
            format!("{field}.apiGroup"),
            format!(
                "{} is not the group of cert-manager's issuers",
                quoted(issuer.group())
            ),
            format!("use {CERT_MANAGER_GROUP}, or leave it out"),
        );
    }
}

/// The conditions of an issuer, if it exists.
fn conditions(
    view: &CertificateRequestView<'_>,
    issuer: &IssuerRef,
    facts: &dyn ClusterFacts,
) -> Option<Vec<cert_manager::IssuanceCondition>> {
    let status = if issuer.kind() == "Issuer" {
        facts.issuer(view.namespace, &issuer.name)?.status.clone()
    } else {
        facts.cluster_issuer(&issuer.name)?.status.clone()
    };
    Some(status.map(|s| s.conditions).unwrap_or_default())
}

/// The issuers of a kind and group of cert-manager.
fn plausible<'a>(
    view: &CertificateRequestView<'a>,
) -> impl Iterator<Item = (String, &'a IssuerRef)> + use<'a> {
    issuers(view)
        .into_iter()
        .filter(|(_, issuer)| kind_is_known(issuer) && issuer.group() == CERT_MANAGER_GROUP)
}

pub(super) fn issuer_exists<K>(
    review: &Review<K>,
    facts: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) where
    Review<K>: HasTls,
{
    let Some(view) = review.tls() else { return };
    for (field, issuer) in plausible(&view) {
        let name = &issuer.name;
        if name.is_empty() {
            findings.add(format!("{field}.name"), "is empty", "name the issuer");
            continue;
        }
        let Some(facts) = facts.filter(|facts| conditions(&view, issuer, *facts).is_none()) else {
            continue;
        };
        if facts.lacks(issuer.kind()) {
            findings.add(
                field,
                cert_manager::not_installed(issuer.kind()),
                cert_manager::INSTALL,
            );
            continue;
        }
        let missing = if issuer.kind() == "Issuer" {
            format!(
                "there is no Issuer {} in namespace {}",
                quoted(name),
                view.namespace
            )
        } else {
            format!("there is no ClusterIssuer {}", quoted(name))
        };
        findings.add(
            format!("{field}.name"),
            missing,
            near_miss(&view, issuer, facts),
        );
    }
}

/// The remedy for a missing issuer: names a similar one, if there is one.
fn near_miss(
    view: &CertificateRequestView<'_>,
    issuer: &IssuerRef,
    facts: &dyn ClusterFacts,
) -> String {
    let name = &issuer.name;
    if issuer.kind() == "ClusterIssuer" && facts.issuer(view.namespace, name).is_some() {
        return format!(
            "there is an Issuer of that name in {}: use kind: Issuer",
            view.namespace
        );
    }
    if issuer.kind() == "Issuer" && facts.cluster_issuer(name).is_some() {
        return "there is a ClusterIssuer of that name: use kind: ClusterIssuer".to_owned();
    }
    match facts.issuer_namespaces(name).first() {
        Some(elsewhere) if issuer.kind() == "Issuer" => {
            format!(
                "there is one in namespace {elsewhere}, which does not count: create it in {}, or use a ClusterIssuer",
                view.namespace
            )
        }
        _ => "create it first, or correct the name".to_owned(),
    }
}

pub(super) fn issuer_not_ready<K>(
    review: &Review<K>,
    facts: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) where
    Review<K>: HasTls,
{
    let (Some(view), Some(facts)) = (review.tls(), facts) else {
        return;
    };
    for (field, issuer) in plausible(&view) {
        if conditions(&view, issuer, facts).is_some_and(|c| !cert_manager::holds(&c, "Ready")) {
            let problem = format!("{} {} is not Ready", issuer.kind(), quoted(&issuer.name));
            findings.add(field, problem, "the operation will wait for it");
        }
    }
}

pub(super) fn cert_shared_issuer<K>(
    review: &Review<K>,
    facts: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) where
    Review<K>: HasTls,
{
    let (
        Some(view),
        Some(TargetTls {
            tls,
            client_auth_mode,
        }),
    ) = (review.tls(), review.target_issuers(facts))
    else {
        return;
    };
    if client_auth_mode != Some(ClientAuthMode::Cert) {
        return;
    }
    let others = other_databases(&view, facts);
    let used = issuers_of(&tls);
    for issuer in &used {
        let is_shared = issuer.kind() == "ClusterIssuer"
            || others
                .iter()
                .filter_map(|other| other.spec.tls.as_ref())
                .any(|tls| issuers_of(tls).contains(issuer));
        if is_shared {
            let problem = format!(
                "{} {} serves others too",
                quoted(issuer.kind()).trim_matches('"'),
                quoted(&issuer.name)
            );
            findings.add("spec.tls", problem, "it can sign a superuser's certificate");
        }
    }
}

/// The issuers of this TLS, with kind and group filled in.
fn issuers_of(tls: &TlsConfig) -> BTreeSet<IssuerRef> {
    let own = tls
        .certificates
        .iter()
        .take(MAX_CERTIFICATES)
        .filter_map(|certificate| certificate.issuer_ref.as_ref());
    tls.issuer_ref
        .iter()
        .chain(own)
        .map(IssuerRef::completed)
        .collect()
}
#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::api::Postgres;
    use crate::rules::{Snapshot, judge, postgres};

    #[test]
    fn tls_without_cert_manager_is_refused() {
        let said = |spec: &str, lacks: &[&'static str]| {
            let mut object = Postgres::new("pg", serde_saphyr::from_str(spec).expect("a spec"));
            object.metadata.namespace = Some("demo".to_owned());
            let facts = Snapshot {
                lacks: lacks.to_vec(),
                ..Snapshot::default()
            };
            let review = Review::create(object, Arc::default());
            let mut found = judge(postgres::rules(), &review, Some(&facts));
            found.retain(|finding| finding.rule == "issuer-exists");
            found.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let secure = "{version: '17', tls: {issuerRef: {name: i}}}";
        let missing = "[issuer-exists] spec.tls.issuerRef: cert-manager is not installed: kind Issuer of cert-manager.io is \
            unknown to this cluster; install cert-manager; pgrekey sees it by itself, within half a minute";
        assert_eq!(said(secure, &["Issuer"]), [missing]);
        assert!(said(secure, &["ClusterIssuer"])[0].contains("there is no Issuer \"i\""));
        assert!(said("{version: '17'}", &["Issuer", "ClusterIssuer"]).is_empty());
    }
}
