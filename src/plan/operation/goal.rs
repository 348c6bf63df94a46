//! The two ends of an operation: the spec that the database has, and the one that the request asks
//! for.

use crate::api::defaults;
use crate::api::ops_request::{OpsType, PostgresOpsRequestSpec, TlsOperation};
use crate::api::postgres::PostgresSpec;
use crate::api::tls::SslMode;

/// The spec that a database has once the request has been carried out. What the request leaves out
/// stays as it is; what TLS needs and nobody says has KubeDB's defaults.
///
/// `major` is PostgreSQL's major version.
#[must_use]
pub fn target_spec(
    spec: &PostgresSpec,
    request: &PostgresOpsRequestSpec,
    major: u32,
) -> PostgresSpec {
    let mut desired = spec.clone();
    let Some(change) = request
        .tls
        .as_ref()
        .filter(|_| request.type_ == OpsType::ReconfigureTLS)
    else {
        return desired;
    };
    match change.operations().first() {
        Some(TlsOperation::Remove) => {
            desired.tls = None;
            desired.ssl_mode = Some(SslMode::Disable);
            desired.client_auth_mode = change.client_auth_mode.or(spec.client_auth_mode);
        }
        Some(TlsOperation::Change) => {
            let tls = desired.tls.get_or_insert_default();
            change.merge_into(tls);
            let kept = spec.ssl_mode.filter(|mode| *mode != SslMode::Disable);
            desired.ssl_mode = change
                .ssl_mode
                .or(kept)
                .or(Some(defaults::SSL_MODE_WITH_TLS));
            desired.client_auth_mode = change
                .client_auth_mode
                .or(spec.client_auth_mode)
                .or(Some(defaults::client_auth_mode(Some(major))));
        }
        Some(TlsOperation::Rotate) | None => {}
    }
    desired
}

/// Why what is desired for cannot be served, if a certificate would have more names than fit: those
/// of the request come to those that the database has. What stays as it is, is served already.
#[must_use]
pub fn too_many_names(spec: &PostgresSpec, desired: &PostgresSpec) -> Option<String> {
    let had = |alias: &str| spec.tls.as_ref().and_then(|tls| tls.certificate(alias));
    let changed = desired
        .tls
        .iter()
        .flat_map(|tls| &tls.certificates)
        .filter(|certificate| {
            had(&certificate.alias).is_none_or(|had| had.names().ne(certificate.names()))
        });
    changed.into_iter().find_map(|certificate| {
        Some(format!(
            "certificate {}: {}",
            certificate.alias,
            certificate.too_many_names()?
        ))
    })
}

/// Whether certificates are issued on the way.
#[must_use]
pub fn issues_certificates(request: &PostgresOpsRequestSpec) -> bool {
    request.type_ == OpsType::ReconfigureTLS
        && request
            .tls
            .as_ref()
            .is_some_and(|change| change.operations().first() != Some(&TlsOperation::Remove))
}

/// Whether every certificate is to be issued anew, though nothing about it changes.
#[must_use]
pub fn rotates_certificates(request: &PostgresOpsRequestSpec) -> bool {
    request.type_ == OpsType::ReconfigureTLS
        && request
            .tls
            .as_ref()
            .is_some_and(|change| change.operations().first() == Some(&TlsOperation::Rotate))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::tls::ClientAuthMode;

    fn spec(yaml: &str) -> PostgresSpec {
        serde_saphyr::from_str(yaml).expect("a spec")
    }

    fn after(spec_yaml: &str, tls: &str, major: u32) -> PostgresSpec {
        let request = format!("{{type: ReconfigureTLS, databaseRef: {{name: pg}}, tls: {tls}}}");
        let request: PostgresOpsRequestSpec = serde_saphyr::from_str(&request).expect("a request");
        target_spec(&spec(spec_yaml), &request, major)
    }

    const SECURE: &str = "{version: '17', sslMode: require, clientAuthMode: scram, tls: {issuerRef: {name: a}, certificates: \
        [{alias: server, dnsNames: [z, b]}, {alias: client, issuerRef: {name: c}}]}}";

    #[test]
    fn adding_tls_has_the_defaults_of_the_version() {
        for (major, password) in [(17, ClientAuthMode::Md5), (18, ClientAuthMode::Scram)] {
            let spec = after(
                "{version: '17', sslMode: disable}",
                "{issuerRef: {name: a}}",
                major,
            );
            assert_eq!(
                (spec.ssl_mode, spec.client_auth_mode),
                (Some(SslMode::VerifyFull), Some(password))
            );
            assert!(spec.tls.is_some());
        }
        let kept = after(
            "{version: '17', clientAuthMode: scram}",
            "{issuerRef: {name: a}, sslMode: prefer}",
            17,
        );
        assert_eq!(
            (kept.ssl_mode, kept.client_auth_mode),
            (Some(SslMode::Prefer), Some(ClientAuthMode::Scram))
        );
    }

    #[test]
    fn what_is_left_out_stays() {
        let changed = after(SECURE, "{clientAuthMode: cert}", 17);
        assert_eq!(
            (changed.ssl_mode, changed.client_auth_mode),
            (Some(SslMode::Require), Some(ClientAuthMode::Cert))
        );
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
        let tls = after(
            SECURE,
            "{certificates: [{alias: server, dnsNames: [c, b]}, {alias: metrics-exporter}]}",
            17,
        )
        .tls;
        let tls = tls.expect("TLS");
        assert_eq!(
            tls.certificate("server").expect("a server").dns_names,
            ["b", "c", "z"]
        );
        assert_eq!(
            tls.certificate("client"),
            spec(SECURE).tls.expect("TLS").certificate("client")
        );
        assert_eq!(tls.certificates.len(), 3);
    }

    #[test]
    fn another_issuer_is_the_issuer_of_all_but_of_those_that_say_otherwise() {
        let tls = after(
            SECURE,
            "{issuerRef: {name: n}, certificates: [{alias: server, issuerRef: {name: s}}]}",
            17,
        )
        .tls;
        let tls = tls.expect("TLS");
        assert_eq!(
            tls.issuer_ref.as_ref().map(|issuer| issuer.name.as_str()),
            Some("n")
        );
        assert_eq!(
            tls.certificate("client").expect("a client").issuer_ref,
            None
        );
        assert_eq!(
            tls.certificate("server")
                .and_then(|c| c.issuer_ref.as_ref())
                .map(|i| i.name.as_str()),
            Some("s")
        );
    }

    #[test]
    fn carrying_out_what_was_carried_out_changes_nothing() {
        for tls in [
            "{certificates: [{alias: server, dnsNames: [y, b]}, {alias: metrics-exporter, dnsNames: [z, a]}]}",
            "{remove: true}",
        ] {
            let request =
                format!("{{type: ReconfigureTLS, databaseRef: {{name: pg}}, tls: {tls}}}");
            let request: PostgresOpsRequestSpec =
                serde_saphyr::from_str(&request).expect("a request");
            let once = target_spec(&spec(SECURE), &request, 17);
            assert_eq!(target_spec(&once, &request, 17), once);
        }
    }

    #[test]
    fn names_are_too_many_by_what_comes_to_them_and_not_by_what_is_there() {
        let names = |from: usize, to: usize| {
            (from..to)
                .map(|i| format!("n{i}"))
                .collect::<Vec<_>>()
                .join(", ")
        };
        let has = |count| {
            let names = names(0, count);
            format!(
                "{{version: '17', tls: {{issuerRef: {{name: a}}, certificates: [{{alias: server, dnsNames: [{names}]}}]}}}}"
            )
        };
        let adds = |from, to| {
            format!(
                "{{certificates: [{{alias: server, dnsNames: [{}]}}]}}",
                names(from, to)
            )
        };
        let judged = |had: &str, change: &str| too_many_names(&spec(had), &after(had, change, 17));
        assert_eq!(judged(&has(240), &adds(235, 250)), None);
        let said = judged(&has(240), &adds(235, 251)).expect("one too many");
        assert!(
            said.starts_with("certificate server: 251 names are too many"),
            "{said}"
        );
        assert_eq!(judged(&has(300), "{rotateCertificates: true}"), None);
        assert_eq!(judged(&has(300), "{issuerRef: {name: b}}"), None);
    }

    #[test]
    fn rotating_and_restarting_change_no_spec() {
        assert_eq!(
            after(SECURE, "{rotateCertificates: true}", 17),
            spec(SECURE)
        );
    }
}
