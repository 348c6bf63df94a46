//! The checks of issuers.

use std::collections::BTreeSet;

use crate::api::bounds::MAX_CERTIFICATES;
use crate::api::cert_manager;
use crate::api::cert_manager::IssuerType;
use crate::api::postgres::TlsConfig;
use crate::api::tls::{CERT_MANAGER_GROUP, ClientAuthMode, IssuerRef};

use crate::rules::certificates::view::{
    CertificateRequestView, HasTls, TargetTls, entries, other_databases,
};
use crate::rules::{ClusterFacts, Findings, Review, quoted, text};

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

/// Whether cert-manager itself has this kind of issuer.
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
    for (field, issuer) in issuers(&view) {
        let remedy = if issuer.is_cert_managers() && !kind_is_known(issuer) {
            "use Issuer or ClusterIssuer, or name the apiGroup that has this kind"
        } else if !text::is_kind(issuer.kind()) {
            "use the name of a kind, such as Issuer"
        } else {
            continue;
        };
        let problem = format!("{} is no kind of issuer", quoted(issuer.kind()));
        findings.add(format!("{field}.kind"), problem, remedy);
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
        .filter(|(_, issuer)| !text::is_api_group(issuer.group()))
    {
        findings.add(
            format!("{field}.apiGroup"),
            format!("{} is no API group", quoted(issuer.group())),
            format!("use {CERT_MANAGER_GROUP}, the group of an external issuer, or leave it out"),
        );
    }
}

pub(super) fn issuer_external<K>(
    review: &Review<K>,
    _: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) where
    Review<K>: HasTls,
{
    let Some(view) = review.tls() else { return };
    for (field, issuer) in issuers(&view) {
        if issuer.name.is_empty() {
            continue; // Rule `issuer-exists` refuses it.
        }
        if !issuer.is_cert_managers() && text::is_api_group(issuer.group()) {
            findings.add(
                field,
                "pgrekey cannot look at this issuer",
                "its certificates are verified",
            );
        }
    }
}

/// The issuers of a kind and group of cert-manager.
fn plausible<'a>(
    view: &CertificateRequestView<'a>,
) -> impl Iterator<Item = (String, &'a IssuerRef)> + use<'a> {
    issuers(view)
        .into_iter()
        .filter(|(_, issuer)| kind_is_known(issuer) && issuer.is_cert_managers())
}

/// The issuers of cert-manager that are of this type, each with its field.
fn of_type<'a>(
    view: &CertificateRequestView<'a>,
    facts: &dyn ClusterFacts,
    wanted: &IssuerType,
) -> Vec<(String, &'a IssuerRef)> {
    let is_wanted = |issuer: &IssuerRef| {
        facts
            .issuer_type(view.namespace, issuer.kind(), &issuer.name)
            .as_ref()
            == Some(wanted)
    };
    plausible(view)
        .filter(|(_, issuer)| is_wanted(issuer))
        .collect()
}

pub(super) fn issuer_self_signed<K>(
    review: &Review<K>,
    facts: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) where
    Review<K>: HasTls,
{
    let (Some(view), Some(facts)) = (review.tls(), facts) else {
        return;
    };
    for (field, issuer) in of_type(&view, facts, &IssuerType::SelfSigned) {
        let kind = issuer.kind();
        let problem = format!(
            "{kind} {} is self-signed: each certificate is a CA of its own, and there is none that \
             clients and servers could trust together",
            quoted(&issuer.name)
        );
        let place = if kind == "Issuer" {
            "in this namespace"
        } else {
            "in cert-manager's namespace"
        };
        let remedy = format!(
            "make a CA of it: create a Certificate with isCA: true and a secretName {place}, whose \
             issuerRef is this {kind}; create another {kind} with that Secret as ca.secretName; name \
             that {kind} here"
        );
        findings.add(field, problem, remedy);
    }
}

pub(super) fn issuer_acme<K>(
    review: &Review<K>,
    facts: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) where
    Review<K>: HasTls,
{
    let (Some(view), Some(facts)) = (review.tls(), facts) else {
        return;
    };
    for (field, issuer) in of_type(&view, facts, &IssuerType::Acme) {
        let problem = format!(
            "{} {} asks an ACME server, which gives no names inside the cluster, no client \
             certificates and no CA",
            issuer.kind(),
            quoted(&issuer.name)
        );
        findings.add(field, problem, "use an issuer with a CA of your own");
    }
}

pub(super) fn issuer_exists<K>(
    review: &Review<K>,
    facts: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) where
    Review<K>: HasTls,
{
    let Some(view) = review.tls() else { return };
    for (field, _) in issuers(&view).iter().filter(|(_, i)| i.name.is_empty()) {
        findings.add(format!("{field}.name"), "is empty", "name the issuer");
    }
    for (field, issuer) in plausible(&view) {
        let name = &issuer.name;
        if name.is_empty() {
            continue;
        }
        let is_missing = |facts: &&dyn ClusterFacts| {
            let known = facts.issuer_type(view.namespace, issuer.kind(), name);
            known.is_none()
        };
        let Some(facts) = facts.filter(is_missing) else {
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
        // Being Ready would not help one that no database can work with, which is refused.
        let type_ = facts.issuer_type(view.namespace, issuer.kind(), &issuer.name);
        let is_unfit = matches!(type_, Some(IssuerType::SelfSigned | IssuerType::Acme));
        let known = facts.issuer_conditions(view.namespace, issuer.kind(), &issuer.name);
        let known = known.filter(|_| !is_unfit);
        if known.is_some_and(|conditions| !cert_manager::holds(&conditions, "Ready")) {
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
        let is_external = !issuer.is_cert_managers();
        let is_shared = issuer.kind() == "ClusterIssuer"
            || is_external
            || others
                .iter()
                .filter_map(|other| other.spec.tls.as_ref())
                .any(|tls| issuers_of(tls).contains(issuer));
        if is_shared {
            let problem = format!(
                "{} {} {} others too",
                quoted(issuer.kind()).trim_matches('"'),
                quoted(&issuer.name),
                // pgrekey cannot see for whom an issuer of another group signs.
                if is_external { "may serve" } else { "serves" }
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
mod tests;
