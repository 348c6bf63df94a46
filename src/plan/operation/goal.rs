//! The goal of an operation: the spec that the request asks for, and the posture of it.

use crate::api::defaults;
use crate::api::operation::Operation;
use crate::api::ops_request::BegunOn;
use crate::api::postgres::{PostgresSpec, TlsConfig};
use crate::api::tls::SslMode;
use crate::api::{Postgres, PostgresOpsRequest};
use crate::pki::Material;
use crate::plan::observed::cluster::ObservedCluster;
use crate::tls::{Alias, Files, Posture, posture};

/// What a request asks for, computed once for a decision.
#[derive(Clone, Debug)]
pub struct Goal<'a> {
    /// The operation.
    pub operation: Option<Operation>,
    /// The database's spec at the end.
    pub desired: PostgresSpec,
    /// The pods that are replaced, if they are. A change that brings or removes the volume with
    /// certificates replaces them, whatever strategy the request has.
    pub replaces: Option<&'a BegunOn>,
    /// The certificates that have to be issued anew although cert-manager would not by itself: the
    /// encoding of the key changes. cert-manager compares a key's algorithm and size with the
    /// Certificate, and not its encoding.
    pub encoded_anew: Vec<Alias>,
    major: u32,
}

impl<'a> Goal<'a> {
    /// The goal of a request about this database. `major` is PostgreSQL's major version.
    #[must_use]
    pub fn new(request: &'a PostgresOpsRequest, database: &Postgres, major: u32) -> Self {
        let desired = target_spec(&database.spec, request, major);
        let needs_new_pods = database.spec.tls.is_some() != desired.tls.is_some();
        let replaces = request.restarts() || needs_new_pods;
        Self {
            operation: request.spec.operation(),
            encoded_anew: encoded_anew(&database.spec, &desired),
            desired,
            replaces: request.begun_on().filter(|_| replaces),
            major,
        }
    }

    /// Whether certificates are issued.
    #[must_use]
    pub fn issues_certificates(&self) -> bool {
        self.operation.is_some_and(Operation::issues_certificates)
    }

    /// The posture at the end. Without issued certificates the served ones stay, and no CA is
    /// dropped: a renewal may be under way. `None` if the spec needs certificates and there are
    /// none.
    #[must_use]
    pub fn target(&self, cluster: &ObservedCluster, issued: Option<Material>) -> Option<Posture> {
        match issued {
            Some(issued) => posture(&self.desired, self.major, Some(&issued)),
            None => posture(&self.desired, self.major, cluster.in_secret.as_ref())
                .map(|target| keeping_trust(target, &cluster.applied)),
        }
    }
}

/// The certificates whose keys have another encoding in the desired spec. Without TLS before or
/// after there are none.
fn encoded_anew(spec: &PostgresSpec, desired: &PostgresSpec) -> Vec<Alias> {
    let Some((before, after)) = spec.tls.as_ref().zip(desired.tls.as_ref()) else {
        return vec![];
    };
    let encoding = |tls: &TlsConfig, alias: Alias| {
        let certificate = tls.certificate(alias.as_str());
        let key = certificate.and_then(|certificate| certificate.private_key.as_ref());
        key.cloned().unwrap_or_default().encoding()
    };
    let mut aliases = Alias::ALL.to_vec();
    aliases.retain(|alias| encoding(before, *alias) != encoding(after, *alias));
    aliases
}

/// `target` with every CA that is trusted now. Users' pods may already present certificates that
/// were issued meanwhile. The next renewal drops the CAs that are no longer needed.
pub(super) fn keeping_trust(target: Posture, applied: &Posture) -> Posture {
    let files = target.files.map(|files| Files {
        trust: files.trust.union(&applied.trust()).copied().collect(),
        ..files
    });
    Posture { files, ..target }
}

/// The spec that a database has once the request has been carried out. A field that the request
/// leaves out stays; TLS has KubeDB's defaults where neither sets a field.
///
/// `major` is PostgreSQL's major version.
#[must_use]
pub fn target_spec(spec: &PostgresSpec, request: &PostgresOpsRequest, major: u32) -> PostgresSpec {
    let mut desired = spec.clone();
    let asked = &request.spec;
    let Some((change, operation)) = asked.tls.as_ref().zip(asked.operation()) else {
        return desired;
    };
    match operation {
        Operation::Restart | Operation::Rotate => {}
        Operation::Remove => {
            desired.tls = None;
            desired.ssl_mode = Some(SslMode::Disable);
            desired.client_auth_mode = change.client_auth_mode.or(spec.client_auth_mode);
        }
        Operation::Change => {
            let tls = desired.tls.get_or_insert_default();
            change.merge_into(tls, request.name_change());
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
    }
    desired
}

/// Why the desired spec cannot be issued for, if a certificate would have more names than fit: the
/// names of the request come to those that the database has. A certificate that does not change is
/// served already.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::annotations::NAMES;
    use crate::api::tls::{CertificateSpec, ClientAuthMode};
    use kube::ResourceExt;

    fn spec(yaml: &str) -> PostgresSpec {
        serde_saphyr::from_str(yaml).expect("a spec")
    }

    fn after(spec_yaml: &str, tls: &str, major: u32) -> PostgresSpec {
        target_spec(&spec(spec_yaml), &request(tls), major)
    }

    fn request(tls: &str) -> PostgresOpsRequest {
        let spec = format!("{{type: ReconfigureTLS, databaseRef: {{name: pg}}, tls: {tls}}}");
        PostgresOpsRequest::new("r", serde_saphyr::from_str(&spec).expect("a request"))
    }

    fn replacing_names(tls: &str) -> PostgresOpsRequest {
        let mut request = request(tls);
        let replace = (NAMES.to_owned(), "Replace".to_owned());
        request.annotations_mut().extend([replace]);
        request
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
    fn a_field_that_is_left_out_stays() {
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
    fn an_operation_that_is_repeated_changes_nothing() {
        for tls in [
            "{certificates: [{alias: server, dnsNames: [y, b]}, {alias: metrics-exporter, dnsNames: [z, a]}]}",
            "{remove: true}",
        ] {
            for request in [request(tls), replacing_names(tls)] {
                let once = target_spec(&spec(SECURE), &request, 17);
                assert_eq!(target_spec(&once, &request, 17), once);
            }
        }
    }

    #[test]
    fn names_that_are_replaced_are_those_of_the_request_alone() {
        const NAMED: &str = "{version: '17', tls: {issuerRef: {name: a}, certificates: [{alias: server, duration: 24h, \
            dnsNames: [old, kept], ipAddresses: [192.0.2.1], uris: ['spiffe://a'], emailAddresses: [a@example.com]}, \
            {alias: client, uris: ['spiffe://client']}]}}";
        let names = |change: &str| {
            let tls = target_spec(&spec(NAMED), &replacing_names(change), 17).tls;
            let tls = tls.expect("TLS");
            ["server", "client", "metrics-exporter"].map(|alias| {
                let names = tls.certificate(alias).map(CertificateSpec::names);
                names.into_iter().flatten().cloned().collect::<Vec<_>>()
            })
        };
        let all = ["old", "kept", "192.0.2.1", "spiffe://a", "a@example.com"];
        for (change, server, client, exporter) in [
            (
                "[{alias: server, dnsNames: [new, kept]}]",
                &["new", "kept"][..],
                &["spiffe://client"][..],
                &[][..],
            ),
            (
                "[{alias: server}, {alias: metrics-exporter, dnsNames: [e]}]",
                &[],
                &["spiffe://client"],
                &["e"],
            ),
            ("[{alias: client, duration: 1h}]", &all, &[], &[]),
            (
                "[{alias: server, ipAddresses: ['2001:db8::1']}]",
                &["2001:db8::1"],
                &["spiffe://client"],
                &[],
            ),
        ] {
            let found = names(&format!("{{certificates: {change}}}"));
            assert_eq!(found, [server, client, exporter].map(Vec::from), "{change}");
        }
        let change = replacing_names("{certificates: [{alias: server, dnsNames: [new]}]}");
        let tls = target_spec(&spec(NAMED), &change, 17).tls.expect("TLS");
        let server = tls.certificate("server").expect("a server");
        assert_eq!(
            server.duration.as_deref(),
            Some("24h"),
            "only names are replaced"
        );
    }

    #[test]
    fn a_request_may_change_the_key_of_a_certificate_and_leaves_that_of_the_others() {
        const KEYS: &str = "{version: '17', tls: {issuerRef: {name: a}, certificates: \
            [{alias: server, privateKey: {size: 4096, encoding: PKCS8}}, {alias: client, privateKey: {algorithm: Ed25519}}]}}";
        let key = |tls: &str, alias: &str| {
            let tls = after(KEYS, tls, 17).tls.expect("TLS");
            let certificate = tls.certificate(alias).expect("a certificate");
            serde_json::json!(certificate.private_key)
        };
        let ecdsa = "{certificates: [{alias: server, privateKey: {algorithm: ECDSA}}]}";
        assert_eq!(
            key(ecdsa, "server"),
            serde_json::json!({"algorithm": "ECDSA", "encoding": "PKCS8"})
        );
        assert_eq!(
            key(ecdsa, "client"),
            serde_json::json!({"algorithm": "Ed25519"})
        );
        let size = "{certificates: [{alias: server, privateKey: {size: 2048}}]}";
        assert_eq!(
            key(size, "server"),
            serde_json::json!({"size": 2048, "encoding": "PKCS8"})
        );
    }

    #[test]
    fn a_certificate_whose_key_changes_its_encoding_alone_is_issued_anew() {
        let anew = |before: &str, after: &str| {
            let with = |key: &str| {
                spec(&format!(
                    "{{version: '17', tls: {{certificates: [{{alias: client, privateKey: {key}}}]}}}}"
                ))
            };
            encoded_anew(&with(before), &with(after))
        };
        assert_eq!(anew("{}", "{encoding: PKCS8}"), [Alias::Client]);
        assert_eq!(
            anew("{encoding: PKCS8}", "{encoding: PKCS1}"),
            [Alias::Client]
        );
        assert_eq!(anew("{}", "{encoding: PKCS1}"), []);
        assert_eq!(anew("{}", "{algorithm: ECDSA}"), []);
        let plain = spec("version: '17'");
        let secure = spec(SECURE);
        assert_eq!(encoded_anew(&plain, &secure), []);
        assert_eq!(encoded_anew(&secure, &plain), []);
    }

    #[test]
    fn only_added_names_can_be_too_many() {
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
