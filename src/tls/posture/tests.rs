use super::*;
use crate::api::postgres::TlsConfig;
use crate::pki::Fingerprint;

/// A CA identified by one byte.
pub(crate) fn ca(name: u8) -> CaId {
    CaId(Fingerprint([name; 32]))
}

/// The `serial`th leaves of two CAs.
pub(crate) fn material(serial: u8, server: u8, client: u8) -> Material {
    let leaf = |kind: u8, issuer: u8| Leaf {
        fingerprint: Fingerprint([serial ^ kind; 32]),
        ca: ca(issuer),
    };
    Material {
        server: leaf(0x10, server),
        client: leaf(0x20, client),
        exporter: leaf(0x30, server),
    }
}

fn with_tls(mode: Option<SslMode>) -> PostgresSpec {
    PostgresSpec {
        tls: Some(TlsConfig::default()),
        ssl_mode: mode,
        ..Default::default()
    }
}

#[test]
fn a_spec_without_tls_is_plain_with_the_password_of_its_version() {
    let spec = PostgresSpec::default();
    assert_eq!(posture(&spec, 17, None), Some(Posture::plain(Method::Md5)));
    assert_eq!(
        posture(&spec, 18, None),
        Some(Posture::plain(Method::Scram))
    );
}

#[test]
fn a_password_is_given_as_md5_only_where_that_is_written() {
    let (md5, scram, cert) = (Some(Method::Md5), Some(Method::Scram), Some(Method::Cert));
    for (plain, tls, in_plaintext, over_tls) in [
        (md5, None, PasswordEncryption::Md5, PasswordEncryption::Md5),
        (md5, md5, PasswordEncryption::Md5, PasswordEncryption::Md5),
        (
            md5,
            scram,
            PasswordEncryption::Md5,
            PasswordEncryption::Scram,
        ),
        (
            md5,
            cert,
            PasswordEncryption::Md5,
            PasswordEncryption::Scram,
        ),
        (
            scram,
            md5,
            PasswordEncryption::Scram,
            PasswordEncryption::Md5,
        ),
        (
            None,
            md5,
            PasswordEncryption::Scram,
            PasswordEncryption::Md5,
        ),
        (
            scram,
            None,
            PasswordEncryption::Scram,
            PasswordEncryption::Scram,
        ),
        (
            None,
            None,
            PasswordEncryption::Scram,
            PasswordEncryption::Scram,
        ),
    ] {
        let accept = HbaMethods { plain, tls };
        assert_eq!(
            (accept.hash(SslMode::Disable), accept.hash(SslMode::Require)),
            (in_plaintext, over_tls),
            "{accept:?}"
        );
    }
}

#[test]
fn tls_refuses_plaintext_whatever_the_mode() {
    let issued = material(1, 1, 1);
    for mode in [
        SslMode::Allow,
        SslMode::Prefer,
        SslMode::Require,
        SslMode::VerifyCa,
        SslMode::VerifyFull,
    ] {
        let asked = posture(&with_tls(Some(mode)), 18, Some(&issued)).expect("issued");
        assert_eq!(
            asked.accept,
            HbaMethods {
                plain: None,
                tls: Some(Method::Scram)
            }
        );
        assert_eq!(asked.conninfo.mode, mode);
    }
    assert_eq!(
        posture(&with_tls(None), 18, Some(&issued)).map(|p| p.conninfo.mode),
        Some(SslMode::VerifyFull)
    );
}

#[test]
fn tls_waits_until_something_is_issued() {
    assert_eq!(posture(&with_tls(None), 17, None), None);
}

#[test]
fn only_certificate_login_presents_a_certificate() {
    for (asked, presents) in [
        (ClientAuthMode::Md5, false),
        (ClientAuthMode::Scram, false),
        (ClientAuthMode::Cert, true),
    ] {
        let spec = PostgresSpec {
            client_auth_mode: Some(asked),
            ..with_tls(None)
        };
        let issued = material(1, 1, 2);
        let posture = posture(&spec, 17, Some(&issued)).expect("issued");
        assert_eq!(posture.presented(), presents.then_some(issued.client));
        assert_eq!(posture.trust(), BTreeSet::from([ca(1), ca(2)]));
    }
}
