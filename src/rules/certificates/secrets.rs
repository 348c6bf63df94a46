//! The checks of the names of Secrets and Certificates.

use std::collections::{BTreeMap, BTreeSet};

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
    let trials = Alias::ALL.map(|alias| {
        let name = Names::new(name).trial_certificate(alias);
        (name, "the certificate of a trial")
    });
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
        .chain(trials)
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
    let uses = SecretUses::collect(&view, unchanged.as_deref(), facts);
    check_named_secrets(&view, &uses, findings);
    check_default_secrets(&view, unchanged.as_deref(), &uses, findings);
}

/// The uses of Secrets in a namespace, from the point of view of one database.
struct SecretUses<'a> {
    database: &'a str,
    /// The future Secret of each alias: that of the object, else that of the database, else the
    /// default.
    certificates: [(Alias, String); 3],
    /// Its other Secrets, each with a description of its content.
    own: Vec<(String, &'static str)>,
    /// The Secrets of other databases and of issuers, each with a description of its use.
    foreign: BTreeMap<String, String>,
    /// The foreign Secrets whose names do not derive from the name of another database.
    foreign_named: BTreeSet<String>,
}

impl<'a> SecretUses<'a> {
    fn collect(
        view: &CertificateRequestView<'a>,
        unchanged: Option<&Postgres>,
        facts: Option<&dyn ClusterFacts>,
    ) -> Self {
        let kept = unchanged
            .and_then(|database| database.spec.tls.as_ref())
            .map_or(&[][..], |tls| &tls.certificates);
        let entry = |alias: Alias| view.certificates.iter().find(|c| c.alias == alias.as_str());
        let certificates = Alias::ALL.map(|alias| {
            let named = entry(alias).and_then(|entry| entry.secret_name.clone());
            (
                alias,
                named.unwrap_or_else(|| secret_of(view.database, alias, kept)),
            )
        });
        let (mut foreign, mut foreign_named) = (BTreeMap::new(), BTreeSet::new());
        for other in other_databases(view, facts) {
            let name = other.metadata.name.as_deref().unwrap_or_default();
            let by_default = Alias::ALL.map(|alias| Names::new(name).certificate(alias));
            for (secret, what) in secrets_of(&other) {
                if !by_default.contains(&secret) {
                    foreign_named.insert(secret.clone());
                }
                foreign.insert(secret, format!("belongs to Postgres {name}: {what}"));
            }
        }
        for (secret, issuer) in
            facts.map_or(vec![], |facts| secrets_of_issuers(view.namespace, facts))
        {
            foreign_named.insert(secret.clone());
            foreign.insert(secret, format!("holds the CA of {issuer}"));
        }
        Self {
            database: view.database,
            certificates,
            own: own_secrets(view.database, unchanged),
            foreign,
            foreign_named,
        }
    }

    /// Whether this is the default Secret of the alias.
    fn is_default(&self, alias: &str, secret: &str) -> bool {
        Alias::parse(alias)
            .is_some_and(|alias| Names::new(self.database).certificate(alias) == secret)
    }

    /// The other alias with the same Secret.
    fn twin_of(&self, alias: &str, secret: &str) -> Option<Alias> {
        let mut others = self
            .certificates
            .iter()
            .filter(|(other, _)| other.as_str() != alias);
        others
            .find(|(_, name)| name == secret)
            .map(|(other, _)| *other)
    }

    fn own_use(&self, secret: &str) -> Option<String> {
        let (_, what) = self.own.iter().find(|(name, _)| name == secret)?;
        Some(format!("holds {what}"))
    }
}

fn describe_twin(twin: Alias) -> String {
    format!("is that of the {} certificate too", twin.as_str())
}

/// Checks the Secrets that the entries of the object name.
fn check_named_secrets(
    view: &CertificateRequestView<'_>,
    uses: &SecretUses<'_>,
    findings: &mut Findings,
) {
    for (field, certificate) in entries(view) {
        let alias = &certificate.alias;
        let Some(secret) = certificate
            .secret_name
            .as_ref()
            .filter(|name| !name.is_empty())
        else {
            continue;
        };
        // A default name that is spelled out, as the webhook does, is still the default.
        if uses.is_default(alias, secret) {
            continue;
        }
        let twin = uses.twin_of(alias, secret).map(describe_twin);
        let problems = [
            twin,
            uses.own_use(secret),
            uses.foreign.get(secret).cloned(),
        ];
        for problem in problems.into_iter().flatten() {
            findings.add(
                format!("{field}.secretName"),
                format!("Secret {} {problem}", quoted(secret)),
                "choose another name, or leave it out",
            );
        }
    }
}

/// Checks the default Secrets that the object gives to certificates.
fn check_default_secrets(
    view: &CertificateRequestView<'_>,
    unchanged: Option<&Postgres>,
    uses: &SecretUses<'_>,
    findings: &mut Findings,
) {
    for (alias, secret) in &uses.certificates {
        if !uses.is_default(alias.as_str(), secret) || !brings(view, unchanged, *alias, secret) {
            continue;
        }
        // If the object names this Secret for the other alias, the finding is there.
        let is_named_for = |other: &Alias| {
            let mut entries = view.certificates.iter();
            entries.any(|c| c.alias == other.as_str() && c.secret_name.as_ref() == Some(secret))
        };
        let twin = uses
            .twin_of(alias.as_str(), secret)
            .filter(|other| !is_named_for(other))
            .map(describe_twin);
        // If two databases have the same default, their Certificates have the same name too, which
        // is another rule.
        let foreign = uses
            .foreign
            .get(secret)
            .filter(|_| uses.foreign_named.contains(secret))
            .cloned();
        for problem in [twin, uses.own_use(secret), foreign].into_iter().flatten() {
            let (secret, alias) = (quoted(secret), alias.as_str());
            findings.add(
                "spec.tls",
                format!("Secret {secret} of the {alias} certificate {problem}"),
                "name another secretName for it",
            );
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
        .map(|issuer| (&issuer.metadata, &issuer.spec.issuer.ca, "ClusterIssuer"));
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
