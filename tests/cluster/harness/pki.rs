//! CAs of tests.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
    date_time_ymd,
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

/// A leaf and its key, PEM.
pub(crate) fn leaf(ca: &Ca, common_name: &str, names: &[&str]) -> (String, String) {
    leaf_until(ca, common_name, names, 4096)
}

/// The same, good until this year.
pub(crate) fn leaf_until(
    ca: &Ca,
    common_name: &str,
    names: &[&str],
    year: i32,
) -> (String, String) {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(names).expect("parameters");
    params.not_after = date_time_ymd(year, 1, 1);
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    let key = KeyPair::generate().expect("a key");
    (
        params.signed_by(&key, ca).expect("a leaf").pem(),
        key.serialize_pem(),
    )
}

/// A certificate for a server of this name, in files, and the CA that signed it.
pub(super) struct CertificateFiles {
    pub(super) ca: PathBuf,
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

impl CertificateFiles {
    /// Makes them; files of other tests are called otherwise.
    pub(super) fn make(name: &str, of: &str) -> Self {
        let ca = ca(of);
        let (certificate, key) = leaf(&ca, "server", &[name]);
        let write = |kind: &str, text: &str| {
            let file = format!("{of}-{}.{kind}", std::process::id());
            let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(file);
            std::fs::write(&path, text).expect("a file of the tests");
            path
        };
        Self {
            ca: write("ca.crt", &ca.pem()),
            certificate: write("tls.crt", &certificate),
            key: write("tls.key", &key),
        }
    }
}
