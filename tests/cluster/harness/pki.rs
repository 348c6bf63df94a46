//! CAs of tests.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, DnType,
    DnValue, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};
use serde_json::{Value, json};

/// A CA with its key.
pub(crate) type Ca = CertifiedIssuer<'static, KeyPair>;

pub(crate) fn ca(common_name: &str) -> Ca {
    let key = KeyPair::generate().expect("a key");
    CertifiedIssuer::self_signed(ca_params(common_name), key).expect("a CA")
}

/// A CA below another.
pub(crate) fn ca_below(root: &Ca, common_name: &str) -> Ca {
    let mut params = ca_params(common_name);
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate().expect("a key");
    CertifiedIssuer::signed_by(params, key, root).expect("a CA")
}

/// The same CA, with its key, until this time.
pub(crate) fn ca_until(ca: &Ca, common_name: &str, end: jiff::Timestamp) -> Ca {
    let mut params = ca_params(common_name);
    let seconds = u64::try_from(end.as_second()).expect("after 1970");
    params.not_after = date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds);
    let key = KeyPair::from_pem(&ca.key().serialize_pem()).expect("a key");
    CertifiedIssuer::self_signed(params, key).expect("a CA")
}

fn ca_params(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(vec![]).expect("parameters");
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// A leaf with the subject, the names and the key of a request, for servers and clients, and for
/// this time from now on. PEM.
pub(super) fn answer(ca: &Ca, asked: &CertificateSigningRequestParams, life: Duration) -> String {
    let mut params = asked.params.clone();
    let since = SystemTime::UNIX_EPOCH.elapsed().expect("after 1970");
    let now = date_time_ymd(1970, 1, 1) + since;
    params.not_before = now - Duration::from_secs(30);
    params.not_after = now + life;
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyAgreement,
        KeyUsagePurpose::KeyEncipherment,
    ];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let leaf = params.signed_by(&asked.public_key, ca);
    leaf.expect("a leaf").pem()
}

/// The common name of a request; empty without one.
pub(super) fn common_name(asked: &CertificateSigningRequestParams) -> String {
    match asked.params.distinguished_name.get(&DnType::CommonName) {
        Some(DnValue::Utf8String(name)) => name.clone(),
        Some(DnValue::PrintableString(name)) => name.as_str().to_owned(),
        _ => String::new(),
    }
}

/// The DNS names of a request.
pub(super) fn dns_names(asked: &CertificateSigningRequestParams) -> Vec<&str> {
    let names = asked.params.subject_alt_names.iter();
    names
        .filter_map(|name| match name {
            SanType::DnsName(name) => Some(name.as_str()),
            _ => None,
        })
        .collect()
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
