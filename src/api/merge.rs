//! Applies a request's change to the TLS of a database.

use std::collections::BTreeSet;

use crate::api::bounds::{MAX_CERTIFICATES, MAX_NAME_BYTES, MAX_NAMES};
use crate::api::ops_request::{NameChange, TlsChange};
use crate::api::postgres::TlsConfig;
use crate::api::tls::{CertificateSpec, IssuerRef, X509Subject};

impl TlsChange {
    /// Applies the change to `tls`. A new issuer issues all certificates, except those for which
    /// the change names an issuer. `names` says what becomes of the names that a certificate has.
    pub fn merge_into(&self, tls: &mut TlsConfig, names: NameChange) {
        if let Some(issuer) = &self.issuer_ref {
            tls.issuer_ref = Some(issuer.completed());
            tls.certificates
                .iter_mut()
                .for_each(|certificate| certificate.issuer_ref = None);
        }
        for wish in self.certificates.iter().take(MAX_CERTIFICATES) {
            let issuer_ref = wish.issuer_ref.as_ref().map(IssuerRef::completed);
            let wish = CertificateSpec {
                issuer_ref,
                ..wish.clone()
            };
            match tls
                .certificates
                .iter_mut()
                .find(|certificate| certificate.alias == wish.alias)
            {
                Some(certificate) => *certificate = merged(certificate, &wish, names),
                None => tls.certificates.push(wish),
            }
        }
    }
}

impl TlsChange {
    /// The change, with only alias and issuer of each certificate.
    #[must_use]
    pub fn with_issuers_alone(&self) -> Self {
        let certificates = self.certificates.iter().map(|certificate| CertificateSpec {
            alias: certificate.alias.clone(),
            issuer_ref: certificate.issuer_ref.clone(),
            ..CertificateSpec::default()
        });
        let Self {
            issuer_ref,
            ssl_mode,
            client_auth_mode,
            ..
        } = self;
        Self {
            issuer_ref: issuer_ref.clone(),
            certificates: certificates.collect(),
            ssl_mode: *ssl_mode,
            client_auth_mode: *client_auth_mode,
            rotate_certificates: self.rotate_certificates,
            remove: self.remove,
            rotate_grpc_certificates: self.rotate_grpc_certificates,
        }
    }
}

impl CertificateSpec {
    /// The names that users add, of all kinds.
    pub fn names(&self) -> impl Iterator<Item = &String> {
        [
            &self.dns_names,
            &self.ip_addresses,
            &self.uris,
            &self.email_addresses,
        ]
        .into_iter()
        .flatten()
    }

    /// Why a certificate with all these names would not fit into a handshake: too many names, or
    /// too long ones. `None` if it fits.
    #[must_use]
    pub fn too_many_names(&self) -> Option<String> {
        let (names, bytes) = (
            self.names().count(),
            self.names().map(String::len).sum::<usize>(),
        );
        if names > MAX_NAMES {
            Some(format!(
                "{names} names are too many for one certificate, which takes {MAX_NAMES}"
            ))
        } else if bytes > MAX_NAME_BYTES {
            Some(format!(
                "names of {bytes} bytes are too long for one certificate, which takes {MAX_NAME_BYTES}"
            ))
        } else {
            None
        }
    }
}

/// Merges a certificate as KubeDB does: values of the change win, and lists become the union of
/// both: see [`union`]. Names may also be replaced.
fn merged(old: &CertificateSpec, new: &CertificateSpec, names: NameChange) -> CertificateSpec {
    let names = |old: &[String], new: &[String]| match names {
        NameChange::Add => union(old, new),
        NameChange::Replace => new.to_vec(),
    };
    CertificateSpec {
        alias: old.alias.clone(),
        issuer_ref: new.issuer_ref.clone().or_else(|| old.issuer_ref.clone()),
        secret_name: new.secret_name.clone().or_else(|| old.secret_name.clone()),
        subject: match (&old.subject, &new.subject) {
            (Some(old), Some(new)) => Some(merged_subject(old, new)),
            (old, new) => new.clone().or_else(|| old.clone()),
        },
        duration: new.duration.clone().or_else(|| old.duration.clone()),
        renew_before: new
            .renew_before
            .clone()
            .or_else(|| old.renew_before.clone()),
        dns_names: names(&old.dns_names, &new.dns_names),
        ip_addresses: names(&old.ip_addresses, &new.ip_addresses),
        uris: names(&old.uris, &new.uris),
        email_addresses: names(&old.email_addresses, &new.email_addresses),
        private_key: match (&old.private_key, &new.private_key) {
            (Some(old), Some(new)) => Some(old.changed_to(new)),
            (old, new) => new.clone().or_else(|| old.clone()),
        },
    }
}

fn merged_subject(old: &X509Subject, new: &X509Subject) -> X509Subject {
    X509Subject {
        organizations: union(&old.organizations, &new.organizations),
        countries: union(&old.countries, &new.countries),
        organizational_units: union(&old.organizational_units, &new.organizational_units),
        localities: union(&old.localities, &new.localities),
        provinces: union(&old.provinces, &new.provinces),
        street_addresses: union(&old.street_addresses, &new.street_addresses),
        postal_codes: union(&old.postal_codes, &new.postal_codes),
        serial_number: new
            .serial_number
            .clone()
            .or_else(|| old.serial_number.clone()),
    }
}

/// The sorted union of two lists. If one is empty, the other keeps its order. If the first has all
/// entries already it stays, so that merging twice is merging once.
fn union(old: &[String], new: &[String]) -> Vec<String> {
    if old.is_empty() {
        return new.to_vec();
    }
    let known: BTreeSet<&String> = old.iter().collect();
    if new.iter().all(|name| known.contains(name)) {
        return old.to_vec();
    }
    known
        .into_iter()
        .chain(new)
        .collect::<BTreeSet<_>>()
        .into_iter()
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(dns_names: Vec<String>) -> CertificateSpec {
        CertificateSpec {
            dns_names,
            ip_addresses: vec!["192.0.2.1".to_owned()],
            ..CertificateSpec::default()
        }
    }

    #[test]
    fn names_are_counted_over_all_kinds_and_in_bytes() {
        let short = |names: usize| with((0..names).map(|i| i.to_string()).collect());
        assert_eq!(short(MAX_NAMES - 1).too_many_names(), None);
        let said = short(MAX_NAMES).too_many_names().expect("one too many");
        assert!(said.starts_with("251 names are too many"), "{said}");
        let long = |bytes: usize| with(vec!["n".repeat(bytes - "192.0.2.1".len())]);
        assert_eq!(long(MAX_NAME_BYTES).too_many_names(), None);
        assert!(long(MAX_NAME_BYTES + 1).too_many_names().is_some());
    }

    #[test]
    fn a_union_keeps_a_list_that_has_all_and_else_is_sorted() {
        let list = |names: &[&str]| {
            names
                .iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(union(&[], &list(&["b", "a"])), ["b", "a"]);
        assert_eq!(union(&list(&["b", "a"]), &list(&["a"])), ["b", "a"]);
        assert_eq!(
            union(&list(&["b", "a"]), &list(&["c", "c"])),
            ["a", "b", "c"]
        );
    }
}
