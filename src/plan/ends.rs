//! The two ends of an operation: the spec that the database has, and the one that the request asks for.

use crate::api::ops_request::{OpsType, PostgresOpsRequestSpec, TlsChange, TlsOperation};
use crate::api::postgres::{PostgresSpec, TlsConfig};
use crate::api::tls::{CertificateSpec, ClientAuthMode, IssuerRef, SslMode, X509Subject};

/// The spec that a database has once the request has been carried out. What the request leaves out stays as it is; what TLS needs
/// and nobody says has KubeDB's defaults.
///
/// `major` is PostgreSQL's major version.
#[must_use]
pub fn wished(spec: &PostgresSpec, request: &PostgresOpsRequestSpec, major: u32) -> PostgresSpec {
    let mut wished = spec.clone();
    let Some(change) = request.tls.as_ref().filter(|_| request.type_ == OpsType::ReconfigureTLS) else { return wished };
    match change.operations().first() {
        Some(TlsOperation::Remove) => {
            wished.tls = None;
            wished.ssl_mode = Some(SslMode::Disable);
            wished.client_auth_mode = change.client_auth_mode.or(spec.client_auth_mode);
        }
        Some(TlsOperation::Change) => {
            let tls = wished.tls.get_or_insert_default();
            merge(tls, change);
            let kept = spec.ssl_mode.filter(|mode| *mode != SslMode::Disable);
            wished.ssl_mode = change.ssl_mode.or(kept).or(Some(SslMode::VerifyFull));
            let password = if major < 18 { ClientAuthMode::Md5 } else { ClientAuthMode::Scram };
            wished.client_auth_mode = change.client_auth_mode.or(spec.client_auth_mode).or(Some(password));
        }
        Some(TlsOperation::Rotate) | None => {}
    }
    wished
}

/// Whether certificates are issued on the way.
#[must_use]
pub fn issues(request: &PostgresOpsRequestSpec) -> bool {
    request.type_ == OpsType::ReconfigureTLS
        && request.tls.as_ref().is_some_and(|change| change.operations().first() != Some(&TlsOperation::Remove))
}

/// Whether every certificate is to be issued anew, though nothing about it changes.
#[must_use]
pub fn rotates(request: &PostgresOpsRequestSpec) -> bool {
    request.type_ == OpsType::ReconfigureTLS
        && request.tls.as_ref().is_some_and(|change| change.operations().first() == Some(&TlsOperation::Rotate))
}

/// Another issuer is the issuer of all, but for the certificates that the change names itself.
fn merge(tls: &mut TlsConfig, change: &TlsChange) {
    if let Some(issuer) = &change.issuer_ref {
        tls.issuer_ref = Some(issuer.completed());
        tls.certificates.iter_mut().for_each(|certificate| certificate.issuer_ref = None);
    }
    for wish in &change.certificates {
        let issuer_ref = wish.issuer_ref.as_ref().map(IssuerRef::completed);
        let wish = &CertificateSpec { issuer_ref, ..wish.clone() };
        match tls.certificates.iter_mut().find(|certificate| certificate.alias == wish.alias) {
            Some(certificate) => *certificate = merged(certificate, wish),
            None => tls.certificates.push(wish.clone()),
        }
    }
}

/// What the change says wins; lists become the sorted union of both, as KubeDB merges them.
fn merged(old: &CertificateSpec, new: &CertificateSpec) -> CertificateSpec {
    CertificateSpec {
        alias: old.alias.clone(),
        issuer_ref: new.issuer_ref.clone().or_else(|| old.issuer_ref.clone()),
        secret_name: new.secret_name.clone().or_else(|| old.secret_name.clone()),
        subject: match (&old.subject, &new.subject) {
            (Some(old), Some(new)) => Some(merged_subject(old, new)),
            (old, new) => new.clone().or_else(|| old.clone()),
        },
        duration: new.duration.clone().or_else(|| old.duration.clone()),
        renew_before: new.renew_before.clone().or_else(|| old.renew_before.clone()),
        dns_names: union(&old.dns_names, &new.dns_names),
        ip_addresses: union(&old.ip_addresses, &new.ip_addresses),
        uris: union(&old.uris, &new.uris),
        email_addresses: union(&old.email_addresses, &new.email_addresses),
        private_key: new.private_key.clone().or_else(|| old.private_key.clone()),
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
        serial_number: new.serial_number.clone().or_else(|| old.serial_number.clone()),
    }
}

/// An empty list just takes the other one, in its order; a list that has everything stays, so that merging twice is merging once.
fn union(old: &[String], new: &[String]) -> Vec<String> {
    if old.is_empty() {
        return new.to_vec();
    }
    if new.iter().all(|name| old.contains(name)) {
        return old.to_vec();
    }
    let mut all: Vec<String> = old.iter().chain(new).cloned().collect();
    all.sort();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(yaml: &str) -> PostgresSpec {
        serde_saphyr::from_str(yaml).expect("a spec")
    }

    fn after(spec_yaml: &str, tls: &str, major: u32) -> PostgresSpec {
        let request = format!("{{type: ReconfigureTLS, databaseRef: {{name: pg}}, tls: {tls}}}");
        let request: PostgresOpsRequestSpec = serde_saphyr::from_str(&request).expect("a request");
        wished(&spec(spec_yaml), &request, major)
    }

    const SECURE: &str = "{version: '17', sslMode: require, clientAuthMode: scram, tls: {issuerRef: {name: a}, certificates: \
        [{alias: server, dnsNames: [z, b]}, {alias: client, issuerRef: {name: c}}]}}";

    #[test]
    fn adding_tls_has_the_defaults_of_the_version() {
        for (major, password) in [(17, ClientAuthMode::Md5), (18, ClientAuthMode::Scram)] {
            let spec = after("{version: '17', sslMode: disable}", "{issuerRef: {name: a}}", major);
            assert_eq!((spec.ssl_mode, spec.client_auth_mode), (Some(SslMode::VerifyFull), Some(password)));
            assert!(spec.tls.is_some());
        }
        let kept = after("{version: '17', clientAuthMode: scram}", "{issuerRef: {name: a}, sslMode: prefer}", 17);
        assert_eq!((kept.ssl_mode, kept.client_auth_mode), (Some(SslMode::Prefer), Some(ClientAuthMode::Scram)));
    }

    #[test]
    fn what_is_left_out_stays() {
        let changed = after(SECURE, "{clientAuthMode: cert}", 17);
        assert_eq!((changed.ssl_mode, changed.client_auth_mode), (Some(SslMode::Require), Some(ClientAuthMode::Cert)));
        assert_eq!(changed.tls, spec(SECURE).tls);
    }

    #[test]
    fn removing_tls_leaves_passwords() {
        let spec = after(SECURE, "{remove: true, clientAuthMode: md5}", 17);
        assert_eq!(
            (spec.tls, spec.ssl_mode, spec.client_auth_mode),
            (None, Some(SslMode::Disable), Some(ClientAuthMode::Md5))
        );
    }

    #[test]
    fn only_the_named_certificates_change_and_lists_are_joined() {
        let tls =
            after(SECURE, "{certificates: [{alias: server, dnsNames: [c, b]}, {alias: metrics-exporter}]}", 17).tls;
        let tls = tls.expect("TLS");
        assert_eq!(tls.certificate("server").expect("a server").dns_names, ["b", "c", "z"]);
        assert_eq!(tls.certificate("client"), spec(SECURE).tls.expect("TLS").certificate("client"));
        assert_eq!(tls.certificates.len(), 3);
    }

    #[test]
    fn another_issuer_is_the_issuer_of_all_but_of_those_that_say_otherwise() {
        let tls =
            after(SECURE, "{issuerRef: {name: n}, certificates: [{alias: server, issuerRef: {name: s}}]}", 17).tls;
        let tls = tls.expect("TLS");
        assert_eq!(tls.issuer_ref.as_ref().map(|issuer| issuer.name.as_str()), Some("n"));
        assert_eq!(tls.certificate("client").expect("a client").issuer_ref, None);
        assert_eq!(tls.certificate("server").and_then(|c| c.issuer_ref.as_ref()).map(|i| i.name.as_str()), Some("s"));
    }

    #[test]
    fn carrying_out_what_was_carried_out_changes_nothing() {
        for tls in [
            "{certificates: [{alias: server, dnsNames: [y, b]}, {alias: metrics-exporter, dnsNames: [z, a]}]}",
            "{remove: true}",
        ] {
            let request = format!("{{type: ReconfigureTLS, databaseRef: {{name: pg}}, tls: {tls}}}");
            let request: PostgresOpsRequestSpec = serde_saphyr::from_str(&request).expect("a request");
            let once = wished(&spec(SECURE), &request, 17);
            assert_eq!(wished(&once, &request, 17), once);
        }
    }

    #[test]
    fn rotating_and_restarting_change_no_spec() {
        assert_eq!(after(SECURE, "{rotateCertificates: true}", 17), spec(SECURE));
    }
}
