//! The checks of the entries of `spec.tls.certificates`.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::api::duration;
use crate::api::names::Alias;
use crate::api::tls::{KeyAlgorithm, KeyEncoding, X509Subject};

use crate::rules::certificates::view::{HasTls, entries};
use crate::rules::shared::parse_duration;
use crate::rules::{ClusterFacts, Findings, Review, quoted, text};

/// The shortest duration that cert-manager accepts.
const MIN_DURATION: Duration = Duration::from_hours(1);
/// The shortest `renewBefore` that cert-manager accepts.
const MIN_RENEW_BEFORE: Duration = Duration::from_mins(5);
/// cert-manager's default duration.
const DEFAULT_DURATION: Duration = Duration::from_hours(90 * 24);
pub(super) fn alias_known<K>(
    review: &Review<K>,
    _: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) where
    Review<K>: HasTls,
{
    let Some(view) = review.tls() else { return };
    for (field, certificate) in entries(&view).filter(|(_, c)| Alias::parse(&c.alias).is_none()) {
        findings.add(
            format!("{field}.alias"),
            format!(
                "{} is no certificate of a Postgres",
                quoted(&certificate.alias)
            ),
            "use server, client or metrics-exporter",
        );
    }
}

pub(super) fn alias_unique<K>(
    review: &Review<K>,
    _: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) where
    Review<K>: HasTls,
{
    let Some(view) = review.tls() else { return };
    let mut first = BTreeMap::new();
    for (field, certificate) in entries(&view) {
        if let Some(earlier) = first.get(&certificate.alias) {
            let problem = format!(
                "{} is the alias of {earlier} too",
                quoted(&certificate.alias)
            );
            findings.add(format!("{field}.alias"), problem, "merge the two entries");
        } else {
            first.insert(&certificate.alias, field);
        }
    }
}
pub(super) fn san_valid<K>(
    review: &Review<K>,
    facts: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) where
    Review<K>: HasTls,
{
    type IsValid = fn(&str) -> bool;
    let Some(view) = review.tls() else { return };
    let target = if review.is_merged(facts) {
        review.target(facts)
    } else {
        None
    };
    for (field, certificate) in entries(&view) {
        let lists: [(&str, &[String], IsValid, &str); 4] = [
            (
                "dnsNames",
                &certificate.dns_names,
                text::is_dns_name,
                "is no DNS name; use one such as db.example.com or *.example.com",
            ),
            (
                "ipAddresses",
                &certificate.ip_addresses,
                text::is_ip_address,
                "is no IP address; use one such as 192.0.2.1 or 2001:db8::1",
            ),
            (
                "uris",
                &certificate.uris,
                text::is_uri,
                "is no URI with scheme and host; use one such as spiffe://example.com/db",
            ),
            (
                "emailAddresses",
                &certificate.email_addresses,
                text::is_email,
                "is no e-mail address; use one such as dba@example.com",
            ),
        ];
        let whole = target
            .as_ref()
            .and_then(|target| target.tls.certificate(&certificate.alias));
        if let Some(problem) = certificate
            .too_many_names()
            .or_else(|| whole?.too_many_names())
        {
            findings.add(&field, problem, "name fewer; a wildcard covers many");
            continue;
        }
        for (key, list, is_valid, words) in lists {
            let (problem, remedy) = words.split_once("; ").unwrap_or((words, ""));
            for (i, name) in list.iter().enumerate().filter(|(_, name)| !is_valid(name)) {
                findings.add(
                    format!("{field}.{key}[{i}]"),
                    format!("{} {problem}", quoted(name)),
                    remedy,
                );
            }
        }
    }
}

/// The attributes of a subject, each with its longest value in characters (upper bounds, ITU-T
/// X.520 annex C; postal code and street: X.411).
fn subject_lists(subject: &X509Subject) -> [(&'static str, &[String], usize); 6] {
    [
        ("organizations", &subject.organizations, 64),
        ("organizationalUnits", &subject.organizational_units, 64),
        ("localities", &subject.localities, 128),
        ("provinces", &subject.provinces, 128),
        ("streetAddresses", &subject.street_addresses, 128),
        ("postalCodes", &subject.postal_codes, 40),
    ]
}

pub(super) fn subject_valid<K>(
    review: &Review<K>,
    _: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) where
    Review<K>: HasTls,
{
    let Some(view) = review.tls() else { return };
    for (field, certificate) in entries(&view) {
        let Some(subject) = &certificate.subject else {
            continue;
        };
        for (key, values, longest) in subject_lists(subject) {
            for (i, value) in values.iter().enumerate() {
                subject_value(
                    &format!("{field}.subject.{key}[{i}]"),
                    value,
                    longest,
                    findings,
                );
            }
        }
        for (i, country) in subject.countries.iter().enumerate() {
            if !(country.len() == 2 && country.bytes().all(|b| b.is_ascii_alphabetic())) {
                let problem = format!("{} is no country", quoted(country));
                findings.add(
                    format!("{field}.subject.countries[{i}]"),
                    problem,
                    "use its two letters, such as DE",
                );
            }
        }
        if let Some(value) = &subject.serial_number {
            subject_value(
                &format!("{field}.subject.serialNumber"),
                value,
                64,
                findings,
            );
        }
    }
}

fn subject_value(field: &str, value: &str, longest: usize, findings: &mut Findings) {
    let length = value.chars().count();
    if value.is_empty() {
        findings.add(field, "is empty", "give a value, or leave it out");
    } else if value.chars().any(char::is_control) {
        findings.add(
            field,
            format!("{} has control characters", quoted(value)),
            "remove them",
        );
    } else if length > longest {
        findings.add(
            field,
            format!("{} has {length} characters", quoted(value)),
            format!("use at most {longest}"),
        );
    }
}

pub(super) fn key_valid<K>(
    review: &Review<K>,
    facts: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) where
    Review<K>: HasTls,
{
    let Some(view) = review.tls() else { return };
    let unchanged = review.unchanged(facts);
    for (field, certificate) in entries(&view) {
        let Some(asked) = &certificate.private_key else {
            continue;
        };
        let kept = unchanged
            .as_ref()
            .and_then(|d| d.spec.tls.as_ref())
            .and_then(|t| t.certificate(&certificate.alias))
            .and_then(|c| c.private_key.clone())
            .unwrap_or_default();
        let key = kept.changed_to(asked);
        let algorithm = key.algorithm();
        let field = format!("{field}.privateKey");
        // Without facts the algorithm of a request may be the database's.
        let may_be_another = asked.algorithm.is_none() && unchanged.is_none();
        let takes = |size: &i32| {
            let mut algorithms = KeyAlgorithm::ALL.iter();
            algorithms
                .any(|any| (may_be_another || *any == algorithm) && any.sizes().contains(size))
        };
        if let Some(size) = key.size.filter(|size| !takes(size)) {
            let problem = format!("{size} is no size of an {} key", algorithm.as_str());
            let sizes: Vec<String> = algorithm.sizes().iter().map(i32::to_string).collect();
            let remedy = if sizes.is_empty() {
                "leave it out: there is one size".to_owned()
            } else {
                format!("use one of {}", sizes.join(", "))
            };
            findings.add(format!("{field}.size"), problem, remedy);
        }
        // A PKCS1 that the database has from before is not followed (`PrivateKey::encoding`).
        if algorithm == KeyAlgorithm::Ed25519 && asked.encoding == Some(KeyEncoding::Pkcs1) {
            findings.add(
                format!("{field}.encoding"),
                "there is no PKCS1 form of an Ed25519 key",
                "use PKCS8, or leave it out",
            );
        }
    }
}

pub(super) fn duration_valid<K>(
    review: &Review<K>,
    _: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) where
    Review<K>: HasTls,
{
    let Some(view) = review.tls() else { return };
    for (field, certificate) in entries(&view) {
        let Some(text) = &certificate.duration else {
            continue;
        };
        let field = format!("{field}.duration");
        if parse_duration(&field, text, "2160h", findings).is_some_and(|d| d < MIN_DURATION) {
            findings.add(
                field,
                format!("{} is too short", quoted(text)),
                "use at least 1h",
            );
        }
    }
}

pub(super) fn renew_before_valid<K>(
    review: &Review<K>,
    facts: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) where
    Review<K>: HasTls,
{
    let Some(view) = review.tls() else { return };
    let unchanged = review.unchanged(facts);
    for (field, certificate) in entries(&view) {
        let field = format!("{field}.renewBefore");
        let kept = unchanged
            .as_ref()
            .and_then(|d| d.spec.tls.as_ref())
            .and_then(|t| t.certificate(&certificate.alias));
        // Fields that the entry leaves out keep the database's values, so either of the two may
        // come from there.
        let life = match certificate
            .duration
            .as_ref()
            .or(kept.and_then(|c| c.duration.as_ref()))
        {
            None => Some(DEFAULT_DURATION),
            Some(text) => duration::parse(text).ok(),
        };
        let (renew_before, text) = match (
            &certificate.renew_before,
            kept.and_then(|c| c.renew_before.as_ref()),
        ) {
            (Some(text), _) => (parse_duration(&field, text, "720h", findings), quoted(text)),
            (None, Some(text)) if certificate.duration.is_some() => (
                duration::parse(text).ok(),
                format!("is left out, and the database's {}", quoted(text)),
            ),
            _ => continue,
        };
        let Some(renew_before) = renew_before else {
            continue;
        };
        if certificate.renew_before.is_some() && renew_before < MIN_RENEW_BEFORE {
            findings.add(&field, format!("{text} is too short"), "use at least 5m");
        }
        if let Some(life) = life.filter(|life| renew_before >= *life) {
            let problem = format!(
                "{text} is not shorter than the certificate's life of {}",
                duration::write(life)
            );
            findings.add(&field, problem, "use less, or a longer duration");
        }
    }
}

pub(super) fn renew_before_deprecated<K>(
    review: &Review<K>,
    _: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) where
    Review<K>: HasTls,
{
    let Some(view) = review.tls() else { return };
    for (field, _) in entries(&view).filter(|(_, c)| c.renew_before.is_some()) {
        findings.add(
            format!("{field}.renewBefore"),
            "is deprecated in KubeDB",
            "rotate by request instead",
        );
    }
}
