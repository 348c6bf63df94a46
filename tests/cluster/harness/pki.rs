//! CAs of tests.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
};
use serde_json::{Value, json};

/// A CA with its key.
pub(crate) type Ca = CertifiedIssuer<'static, KeyPair>;

pub(crate) fn ca(common_name: &str) -> Ca {
    let mut params = CertificateParams::new(vec![]).expect("parameters");
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a CA")
}

/// The Secret that cert-manager's issuers of type CA read.
pub(crate) fn ca_secret(name: &str, ca: &Ca) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": {"name": name},
        "stringData": {"tls.crt": ca.pem(), "tls.key": ca.key().serialize_pem()},
    })
}
