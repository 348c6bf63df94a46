use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
};

use super::*;

type Ca = CertifiedIssuer<'static, KeyPair>;

fn ca(name: &str) -> Ca {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A leaf of `ca` that is valid in the year 2026, and its key.
fn leaf(ca: &Ca, names: &[&str]) -> (String, KeyPair) {
    let mut params =
        CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
    params.not_before = rcgen::date_time_ymd(2026, 1, 1);
    params.not_after = rcgen::date_time_ymd(2027, 1, 1);
    let key = KeyPair::generate().unwrap();
    (params.signed_by(&key, ca).unwrap().pem(), key)
}

fn parse(certificates: &str, key: &str) -> Result<CertificateAndKey, KeyPairProblem> {
    CertificateAndKey::parse(certificates.as_bytes(), key.as_bytes())
}

#[test]
fn each_defect_has_its_own_problem() {
    let ca = ca("ca");
    let (certificate, key) = leaf(&ca, &["a.example"]);
    let key = key.serialize_pem();
    let (other, other_key) = leaf(&ca, &["b.example"]);
    let body = certificate.lines().nth(1).unwrap();
    let no_key = "-----BEGIN PRIVATE KEY-----\naGVsbG8=\n-----END PRIVATE KEY-----\n";
    let cases: &[(&str, String, String, KeyPairProblem)] = &[
        (
            "no certificate",
            String::new(),
            key.clone(),
            KeyPairProblem::NoCertificate,
        ),
        (
            "a key for a certificate",
            key.clone(),
            key.clone(),
            KeyPairProblem::NoCertificate,
        ),
        (
            "no key",
            certificate.clone(),
            String::new(),
            KeyPairProblem::NoKey,
        ),
        (
            "half a key",
            certificate.clone(),
            key[..key.len() / 2].to_owned(),
            KeyPairProblem::KeyPem,
        ),
        (
            "another key",
            certificate.clone(),
            other_key.serialize_pem(),
            KeyPairProblem::KeyOfAnother,
        ),
        (
            "a chain in the wrong order",
            format!("{certificate}{other}"),
            key.clone(),
            KeyPairProblem::ChainBroken { position: 1 },
        ),
        (
            "an encrypted key",
            certificate.clone(),
            key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY"),
            KeyPairProblem::KeyEncrypted,
        ),
        (
            "a key of no kind",
            certificate.clone(),
            no_key.to_owned(),
            KeyPairProblem::KeyUnusable,
        ),
    ];
    for (what, certificates, key, problem) in cases {
        assert_eq!(parse(certificates, key).unwrap_err(), *problem, "{what}");
    }
    let half = parse(&certificate[..certificate.len() / 2], &key).unwrap_err();
    assert!(
        matches!(half, KeyPairProblem::CertificatePem { position: 1, .. }),
        "{half}"
    );
    let damaged = parse(&certificate.replace(body, &body.replace('A', "B")), &key).unwrap_err();
    assert!(
        matches!(
            damaged,
            KeyPairProblem::CertificateContent { position: 1, .. }
        ),
        "{damaged}"
    );
    let second = format!(
        "{certificate}{}",
        certificate.replace(body, &body.replace('A', "B"))
    );
    let second = parse(&second, &key).unwrap_err();
    assert!(
        matches!(
            second,
            KeyPairProblem::CertificateContent { position: 2, .. }
        ),
        "{second}"
    );
}

#[test]
fn a_pair_is_valid_between_its_two_times() {
    let (certificate, key) = leaf(&ca("ca"), &["a.example"]);
    let pair = parse(&certificate, &key.serialize_pem()).unwrap();
    let at = |text: &str| pair.valid_at(text.parse().unwrap());
    assert_eq!(
        at("2025-12-31T23:59:59Z"),
        Err(KeyPairProblem::NotYetValid {
            from: pair.not_before()
        })
    );
    assert_eq!(at("2026-01-01T00:00:00Z"), Ok(()));
    assert_eq!(at("2026-12-31T23:59:59Z"), Ok(()));
    assert_eq!(
        at("2027-01-01T00:00:00Z"),
        Err(KeyPairProblem::Expired {
            at: pair.not_after()
        })
    );
}

#[test]
fn a_pair_is_trusted_by_the_ca_that_signed_it_and_by_no_other() {
    let (root, stranger) = (ca("root"), ca("root"));
    let (certificate, key) = leaf(&root, &["*.db.example"]);
    let pair = parse(&certificate, &key.serialize_pem()).unwrap();
    let now = "2026-06-01T00:00:00Z".parse().unwrap();
    let root_der = root.der().clone();
    assert_eq!(
        pair.trusted_by(&[stranger.der().clone(), root_der.clone()], now),
        Ok(())
    );
    assert!(matches!(
        pair.trusted_by(&[stranger.der().clone()], now),
        Err(KeyPairProblem::NotTrusted { .. })
    ));
    assert!(matches!(
        pair.trusted_by(&[], now),
        Err(KeyPairProblem::NotTrusted { .. })
    ));
    let too_late = "2027-06-01T00:00:00Z".parse().unwrap();
    assert!(matches!(
        pair.trusted_by(&[root_der], too_late),
        Err(KeyPairProblem::NotTrusted { .. })
    ));
}

#[test]
fn names_are_compared_as_a_tls_client_does() {
    let (certificate, key) = leaf(
        &ca("ca"),
        &["Db.example", "*.pods.example", "10.0.0.1", "::1"],
    );
    let pair = parse(&certificate, &key.serialize_pem()).unwrap();
    let fine = ["db.EXAMPLE", "x.pods.example", "10.0.0.1", "0:0::1"];
    assert_eq!(pair.covers(fine), Ok(()));
    for name in [
        "example",
        "pods.example",
        "x.y.pods.example",
        "10.0.0.2",
        "a.db.example",
    ] {
        assert_eq!(
            pair.covers([name]),
            Err(KeyPairProblem::NamesMissing {
                names: vec![name.to_owned()]
            })
        );
    }
}

#[test]
fn no_print_shows_the_key() {
    let (certificate, key) = leaf(&ca("ca"), &["a.example"]);
    let pair = parse(&certificate, &key.serialize_pem()).unwrap();
    let debug = format!("{pair:?}");
    assert!(
        debug.starts_with(
            "CertificateAndKey { names: [\"a.example\"], not_before: 2026-01-01T00:00:00Z"
        ),
        "{debug}"
    );
    assert!(!debug.contains("key"), "{debug}");
    let one_line = key.serialize_pem().replace("KEY-----\n", "KEY-----");
    let body = one_line.trim_start_matches("-----BEGIN PRIVATE KEY-----")[..20].to_owned();
    let problem = parse(&certificate, &one_line).unwrap_err();
    assert!(
        !format!("{problem} {problem:?}").contains(&body),
        "{problem:?}"
    );
}
