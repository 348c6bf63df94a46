//! The checks of the names of Secrets and Certificates.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::api::Postgres;
use crate::api::cert_manager::CaIssuer;
use crate::api::names::{Alias, Names};
use crate::api::tls::CertificateSpec;

use crate::rules::certificates::view::{CertificateRequestView, HasTls, entries, other_databases};
use crate::rules::{ClusterFacts, Findings, Review, quoted, text};

pub(super) fn secret_name_valid<K>(
    review: &Review<K>,
    _: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) where
    Review<K>: HasTls,
{
    let Some(view) = review.tls() else { return };
    for (field, certificate) in entries(&view) {
        if let Some(name) = certificate
            .secret_name
            .as_deref()
            .filter(|name| !text::is_object_name(name))
        {
            findings.add(
                format!("{field}.secretName"),
                format!("{} cannot be the name of a Secret", quoted(name)),
                "use lower-case letters, digits, hyphens and dots, or leave it out",
            );
        }
    }
}

/// The Secret of a certificate: that of the entry, else the default.
fn secret_of(database: &str, alias: Alias, certificates: &[CertificateSpec]) -> String {
    let entry = certificates.iter().find(|c| c.alias == alias.as_str());
    entry
        .and_then(|c| c.secret_name.clone())
        .unwrap_or_else(|| Names::new(database).certificate(alias))
}

/// The Secrets of a database besides those of its certificates, each with a description of its
/// content.
fn own_secrets(name: &str, database: Option<&Postgres>) -> Vec<(String, &'static str)> {
    const PASSWORD: &str = "the superuser's password";
    let auth = database.map(|database| database.spec.auth_secret_of(name));
    let made = [
        (Names::new(name).auth_secret(), PASSWORD),
        (
            Names::new(name).tls_secret(),
            "the certificates of its pods",
        ),
        (
            Names::new(name).patroni(),
            "the password of Patroni's REST API",
        ),
    ];
    let spec = database.map(|database| &database.spec);
    let settings = spec.and_then(|spec| spec.configuration.as_ref()?.secret_name.clone());
    let scripts = spec.and_then(|spec| {
        spec.init
            .as_ref()?
            .script
            .as_ref()?
            .secret
            .as_ref()?
            .secret_name
            .clone()
    });
    let named = [
        (auth, PASSWORD),
        (settings, "settings"),
        (scripts, "init scripts"),
    ];
    named
        .into_iter()
        .filter_map(|(name, what)| Some((name?, what)))
        .chain(made)
        .collect()
}

/// All Secrets of a database, each with a description of its content. Those of certificates only if
/// it has TLS.
fn secrets_of(database: &Postgres) -> Vec<(String, &'static str)> {
    let name = database.metadata.name.as_deref().unwrap_or_default();
    let certificates = database.spec.tls.as_ref().map(|tls| {
        Alias::ALL.map(|alias| (secret_of(name, alias, &tls.certificates), alias.as_str()))
    });
    own_secrets(name, Some(database))
        .into_iter()
        .chain(certificates.into_iter().flatten())
        .collect()
}

pub(super) fn secret_name_unique<K>(
    review: &Review<K>,
    facts: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) where
    Review<K>: HasTls,
{
    let Some(view) = review.tls() else { return };
    let unchanged = review.unchanged(facts);
    let kept = unchanged
        .as_ref()
        .and_then(|d| d.spec.tls.as_ref())
        .map_or(&[][..], |tls| &tls.certificates);
    // The future Secret of each alias: that of the object, else that of the database, else the
    // default.
    let will_be = Alias::ALL.map(|alias| {
        match view.certificates.iter().find(|c| c.alias == alias.as_str()) {
            Some(CertificateSpec {
                secret_name: Some(name),
                ..
            }) => (alias, name.clone()),
            _ => (alias, secret_of(view.database, alias, kept)),
        }
    });
    let own = own_secrets(view.database, unchanged.as_deref());
    let others = other_databases(&view, facts);
    let of_issuers = facts.map_or(vec![], |facts| secrets_of_issuers(view.namespace, facts));
    let taken: BTreeMap<String, String> = others
        .iter()
        .flat_map(|other| {
            let name = other.metadata.name.as_deref().unwrap_or_default();
            let belongs =
                move |(secret, what)| (secret, format!("belongs to Postgres {name}: {what}"));
            secrets_of(other).into_iter().map(belongs)
        })
        .chain(
            of_issuers
                .iter()
                .map(|(secret, issuer)| (secret.clone(), format!("holds the CA of {issuer}"))),
        )
        .collect();
    let belongs = |secret: &str| taken.get(secret).cloned();
    let is_default = |alias: &str, secret: &str| {
        Alias::parse(alias)
            .is_some_and(|alias| Names::new(view.database).certificate(alias) == *secret)
    };
    let twin_of = |alias: &str, secret: &str| {
        will_be
            .iter()
            .find(|(other, name)| other.as_str() != alias && name == secret)
    };
    let is_shared =
        |(alias, _): &(Alias, String)| format!("is that of the {} certificate too", alias.as_str());
    let is_own = |secret: &str| {
        own.iter()
            .find(|(name, _)| name == secret)
            .map(|(_, what)| format!("holds {what}"))
    };
    for (field, certificate) in entries(&view) {
        let Some(secret) = certificate
            .secret_name
            .as_ref()
            .filter(|name| !name.is_empty())
        else {
            continue;
        };
        // A default name that is spelled out, as the webhook does, is still the default.
        if is_default(&certificate.alias, secret) {
            continue;
        }
        let twin = twin_of(&certificate.alias, secret).map(is_shared);
        for problem in [twin, is_own(secret), belongs(secret)]
            .into_iter()
            .flatten()
        {
            let problem = format!("Secret {} {problem}", quoted(secret));
            findings.add(
                format!("{field}.secretName"),
                problem,
                "choose another name, or leave it out",
            );
        }
    }
    let defaults = will_be
        .iter()
        .filter(|(alias, secret)| is_default(alias.as_str(), secret));
    for (alias, secret) in
        defaults.filter(|(alias, secret)| brings(&view, unchanged.as_deref(), *alias, secret))
    {
        // If the object names this Secret for the other alias, the finding is there.
        let is_said = |(other, name): &&(Alias, String)| {
            view.certificates
                .iter()
                .any(|c| c.alias == other.as_str() && c.secret_name.as_ref() == Some(name))
        };
        let twin = twin_of(alias.as_str(), secret)
            .filter(|twin| !is_said(twin))
            .map(is_shared);
        // If two databases have the same default, their Certificates have the same name too, which
        // is another rule.
        let is_named = others.iter().any(|other| names_secret(other, secret))
            || of_issuers.iter().any(|(ca, _)| ca == secret);
        for problem in [twin, is_own(secret), belongs(secret).filter(|_| is_named)]
            .into_iter()
            .flatten()
        {
            let problem = format!(
                "Secret {} of the {} certificate {problem}",
                quoted(secret),
                alias.as_str()
            );
            findings.add("spec.tls", problem, "name another secretName for it");
        }
    }
}

/// The Secrets with the CAs of issuers, each with its issuer.
fn secrets_of_issuers(namespace: &str, facts: &dyn ClusterFacts) -> Vec<(String, String)> {
    let issuers = facts.issuers(namespace);
    let of_namespace = issuers
        .iter()
        .map(|issuer| (&issuer.metadata, &issuer.spec.ca, "Issuer"));
    let cluster_issuers = facts.cluster_issuers();
    let of_cluster = cluster_issuers
        .iter()
        .map(|issuer| (&issuer.metadata, &issuer.spec.ca, "ClusterIssuer"));
    let named = |(metadata, ca, kind): (&ObjectMeta, &Option<CaIssuer>, &str)| {
        let name = metadata.name.as_deref().unwrap_or_default();
        Some((ca.as_ref()?.secret_name.clone(), format!("{kind} {name}")))
    };
    of_namespace.chain(of_cluster).filter_map(named).collect()
}

/// Whether the object adds TLS to a database without it. `false` without a name (generateName),
/// from which all names derive.
fn brings_tls(view: &CertificateRequestView<'_>, unchanged: Option<&Postgres>) -> bool {
    !view.database.is_empty() && unchanged.is_some_and(|database| database.spec.tls.is_none())
}

/// Whether the object gives a certificate this Secret, in place of none or another one.
fn brings(
    view: &CertificateRequestView<'_>,
    unchanged: Option<&Postgres>,
    alias: Alias,
    secret: &str,
) -> bool {
    let had = unchanged.and_then(|database| database.spec.tls.as_ref());
    brings_tls(view, unchanged)
        || had.is_some_and(|tls| secret_of(view.database, alias, &tls.certificates) != secret)
}

/// Whether the spec of a database names this Secret.
fn names_secret(database: &Postgres, secret: &str) -> bool {
    let name = database.metadata.name.as_deref().unwrap_or_default();
    let by_default = Alias::ALL.map(|alias| Names::new(name).certificate(alias));
    secrets_of(database)
        .iter()
        .any(|(used, _)| used == secret && !by_default.contains(used))
}

pub(super) fn certificate_name_unique<K>(
    review: &Review<K>,
    facts: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) where
    Review<K>: HasTls,
{
    let Some(view) = review.tls() else { return };
    if !brings_tls(&view, review.unchanged(facts).as_deref()) {
        return;
    }
    for other in other_databases(&view, facts)
        .iter()
        .filter(|other| other.spec.tls.is_some())
    {
        let name = other.metadata.name.as_deref().unwrap_or_default();
        let theirs = Alias::ALL.map(|alias| Names::new(name).certificate(alias));
        for own in Alias::ALL.map(|alias| Names::new(view.database).certificate(alias)) {
            if theirs.contains(&own) {
                let problem = format!(
                    "Certificate {} is that of Postgres {name} too",
                    quoted(&own)
                );
                let remedy =
                    "use a database whose name differs earlier: the end of a long one is cut off";
                findings.add(view.named_at, problem, remedy);
            }
        }
    }
}
