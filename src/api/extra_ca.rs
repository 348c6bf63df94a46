//! Annotation [`EXTRA_CA`]: where the CA lies that an issuer does not give.

use std::fmt;

use kube::ResourceExt;

use crate::api::Postgres;
use crate::api::annotations::EXTRA_CA;

/// Where a CA lies: a key of an object in the namespace of the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtraCaSource {
    /// The kind of the object.
    pub kind: ExtraCaKind,
    /// The name of the object.
    pub name: String,
    /// Its key.
    pub key: String,
}

/// The kind of the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtraCaKind {
    /// `ConfigMap`.
    ConfigMap,
    /// `Secret`.
    Secret,
}

impl ExtraCaSource {
    /// The place that the annotation writes so; `None` if it is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '/');
        let kind = match parts.next()? {
            "ConfigMap" => ExtraCaKind::ConfigMap,
            "Secret" => ExtraCaKind::Secret,
            _ => return None,
        };
        let name = parts.next().filter(|name| is_object_name(name))?.to_owned();
        let key = parts.next().unwrap_or("ca.crt").to_owned();
        is_key(&key).then_some(Self { kind, name, key })
    }
}

/// Whether this can be the name of a ConfigMap or a Secret.
fn is_object_name(name: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
    (1..=253).contains(&name.len()) && name.chars().all(is_allowed)
}

/// Whether this can be a key of a ConfigMap or a Secret.
fn is_key(key: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    (1..=253).contains(&key.len()) && key.chars().all(is_allowed)
}

impl fmt::Display for ExtraCaSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            ExtraCaKind::ConfigMap => "ConfigMap",
            ExtraCaKind::Secret => "Secret",
        };
        write!(f, "{kind} {}, key {}", self.name, self.key)
    }
}

impl Postgres {
    /// Where the CA lies that its issuer does not give. An invalid annotation counts as not set.
    #[must_use]
    pub fn extra_ca(&self) -> Option<ExtraCaSource> {
        let text = self.annotations().get(EXTRA_CA)?;
        ExtraCaSource::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_kind_a_name_and_perhaps_a_key() {
        for (text, place) in [
            ("ConfigMap/corp-root", "ConfigMap corp-root, key ca.crt"),
            ("Secret/corp.root", "Secret corp.root, key ca.crt"),
            (
                "ConfigMap/trust/root-certs.pem",
                "ConfigMap trust, key root-certs.pem",
            ),
        ] {
            let parsed = ExtraCaSource::parse(text).map(|source| source.to_string());
            assert_eq!(parsed.as_deref(), Some(place), "{text}");
        }
        for text in [
            "",
            "corp-root",
            "configmap/corp-root",
            "ConfigMap/",
            "ConfigMap/Corp",
            "ConfigMap/corp-root/",
            "ConfigMap/corp-root/a/b",
            "Pod/corp-root",
            "Secret/a?b",
        ] {
            assert_eq!(ExtraCaSource::parse(text), None, "{text}");
        }
    }
}
