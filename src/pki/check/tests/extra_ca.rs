//! CAs that the user offers: what is taken of them, and what an editor of the object could not
//! bring about.

use super::*;
use crate::api::extra_ca::ExtraCaSource;
use k8s_openapi::api::core::v1::ConfigMap;

fn source() -> ExtraCaSource {
    ExtraCaSource::parse("ConfigMap/corp-root").expect("a source")
}

/// A ConfigMap with these certificates.
fn extra(pem: &str) -> OfferedCas {
    let data = BTreeMap::from([("ca.crt".to_owned(), pem.to_owned())]);
    let object = ConfigMap {
        data: Some(data),
        ..ConfigMap::default()
    };
    OfferedCas::of_config_map(&source(), Some(&object))
}

fn given(offered_cas: OfferedCas) -> Requirements {
    Requirements {
        offered_cas,
        ..requirements()
    }
}

fn judge_with(secret: &IssuedSecret, wanted: &Requirements) -> Result<CheckedCertificate, Defect> {
    check(Alias::Server, Some(secret), &[], wanted, now())
}

/// An issuer that gives a leaf and its intermediate CA, and no root.
struct Rootless {
    root: Authority,
    intermediate: Authority,
    secret: IssuedSecret,
}

fn rootless() -> Rootless {
    let root = root("root", Life::Longer, KeyKind::P256);
    let params = ca_params("intermediate", Life::Longer);
    let intermediate =
        CertifiedIssuer::signed_by(params, KeyKind::P384.key(), &root).expect("a CA");
    let secret = issue(Alias::Server, &intermediate, KeyKind::P256, |leaf| {
        [format!("{leaf}{}", intermediate.pem()), String::new()]
    });
    Rootless {
        root,
        intermediate,
        secret,
    }
}

#[test]
fn a_root_that_has_signed_what_the_issuer_gave_is_taken_from_among_others() {
    let Rootless { root, secret, .. } = rootless();
    let bystander = self::root("bystander", Life::Longer, KeyKind::Ed25519);
    let bundle = format!("{}{}", bystander.pem(), root.pem());
    let good = judge_with(&secret, &given(extra(&bundle))).expect("served");
    assert_eq!(good.root, *root.der());
    assert!(!good.root_is_given);
}

/// What else is wrong is said, and not that there is no root.
#[test]
fn a_defect_below_the_users_root_is_named() {
    let Rootless { root, secret, .. } = rootless();
    let wanted = Requirements {
        server: vec!["another.demo.svc".to_owned()],
        ..given(extra(&root.pem()))
    };
    let found = judge_with(&secret, &wanted);
    assert!(matches!(found, Err(Defect::Pair(_))), "{found:?}");
}

/// The editor knows the issuer's public key, and so can put it below a root of his own: that path
/// verifies, and his root would sign a superuser's certificate.
#[test]
fn a_root_of_the_editors_above_the_issuers_key_is_not_taken() {
    let Rootless {
        intermediate,
        secret,
        ..
    } = rootless();
    let own = root("root", Life::Longer, KeyKind::P521);
    let params = ca_params("intermediate", Life::Longer);
    let crossed = CertifiedIssuer::signed_by(params, KeyKind::P384.key(), &own).expect("a CA");
    assert_eq!(
        crossed.key().public_key_raw(),
        intermediate.key().public_key_raw()
    );
    let both = format!("{}{}", crossed.pem(), own.pem());
    let leaf_alone = IssuedSecret {
        certificate: secret
            .certificate
            .split_inclusive(|byte| *byte == b'\n')
            .take_while(|line| !line.starts_with(b"-----END"))
            .flatten()
            .copied()
            .chain(b"-----END CERTIFICATE-----\n".iter().copied())
            .collect(),
        ..secret.clone()
    };
    for secret in [&secret, &leaf_alone] {
        let found = judge_with(secret, &given(extra(&both)));
        assert!(matches!(found, Err(Defect::NoCa(_))), "{found:?}");
    }
    // Had the issuer given that path, it would be served.
    let by_issuer = IssuedSecret {
        ca: both.into_bytes(),
        ..secret
    };
    assert!(judge_with(&by_issuer, &requirements()).is_ok());
}

/// With an algorithm that no connection verifies, a self-issued certificate around the issuer's public
/// key passes for a root elsewhere: nothing verifies the signature of a trust anchor.
#[test]
fn a_root_that_nobody_has_signed_is_not_taken() {
    let Rootless { root, secret, .. } = rootless();
    let mut forged = root.der().to_vec();
    // ecdsa-with-SHA256 becomes ecdsa-with-SHA1, at both places.
    let [sha256, sha1] = [
        [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02],
        [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x01],
    ];
    let mut places = 0;
    for at in 0..forged.len() - sha256.len() {
        if forged[at..].starts_with(&sha256) {
            forged[at..at + sha1.len()].copy_from_slice(&sha1);
            places += 1;
        }
    }
    assert_eq!(places, 2);
    let forged = CertificateDer::from(forged);
    assert!(
        crate::pki::chain::is_root(&forged),
        "as one of the issuer's"
    );
    let bundle = pem(&forged);
    let found = judge_with(&secret, &given(extra(&bundle)));
    assert!(matches!(found, Err(Defect::NoCa(_))), "{found:?}");
}

#[test]
fn what_lies_there_counts_for_nothing_where_the_issuer_gives_its_root() {
    let root = root("root", Life::Longer, KeyKind::P256);
    let mut params = ca_params("root", Life::Longer);
    params.not_after = rcgen::date_time_ymd(2050, 1, 1);
    let renewed = CertifiedIssuer::self_signed(params, KeyKind::P256.key()).expect("a root");
    let secret = issue(Alias::Server, &root, KeyKind::P256, |leaf| {
        [leaf.to_owned(), root.pem()]
    });
    let good = judge_with(&secret, &given(extra(&renewed.pem()))).expect("served");
    assert_eq!((good.root, good.root_is_given), (root.der().clone(), true));
}

/// An edit changes nothing: a leaf in service keeps the root that is trusted, and the next leaf gets
/// the one that lasts longest.
#[test]
fn an_edit_alone_changes_no_trust() {
    let Rootless { root, secret, .. } = rootless();
    let mut params = ca_params("root", Life::Longer);
    params.not_after = rcgen::date_time_ymd(2050, 1, 1);
    let renewed = CertifiedIssuer::self_signed(params, KeyKind::P256.key()).expect("a root");
    let trusted = BTreeMap::from([(CaId::from_der(root.der()), root.pem())]);
    let leaf = certificates_of(&secret.certificate).expect("certificates")[0].clone();
    for (is_in_service, expected) in [(true, root.der()), (false, renewed.der())] {
        let wanted = Requirements {
            trusted: trusted.clone(),
            in_service: is_in_service
                .then(|| Fingerprint::sha256(&leaf))
                .into_iter()
                .collect(),
            ..given(extra(&renewed.pem()))
        };
        let good = judge_with(&secret, &wanted).expect("served");
        assert_eq!(&good.root, expected, "in service: {is_in_service}");
    }
    // Without the annotation the certificate in service stays, and the next one is refused.
    for is_in_service in [true, false] {
        let in_service = is_in_service.then(|| Fingerprint::sha256(&leaf));
        let wanted = Requirements {
            trusted: trusted.clone(),
            in_service: in_service.into_iter().collect(),
            ..requirements()
        };
        assert_eq!(judge_with(&secret, &wanted).is_ok(), is_in_service);
    }
}

#[test]
fn the_remedy_fits_the_issuer_and_what_the_user_gives() {
    let Rootless { secret, .. } = rootless();
    let stranger = root("stranger", Life::Longer, KeyKind::P256);
    let empty = ConfigMap::default();
    let secret_name = "corp-ca".to_owned();
    let vault = IssuerType::Vault;
    for (issuer, offered_cas, words) in [
        (
            IssuerType::Ca { secret_name },
            OfferedCas::NotNamed,
            "give Secret corp-ca of the issuer the root as ca.crt",
        ),
        (vault.clone(), OfferedCas::NotNamed, "give the Vault mount"),
        (
            IssuerType::Other,
            OfferedCas::NotNamed,
            "let the issuer give",
        ),
        (
            vault.clone(),
            OfferedCas::of_config_map(&source(), None),
            "ConfigMap corp-root, key ca.crt (annotation pgrekey.dev/extra-ca) does not exist",
        ),
        (
            vault.clone(),
            OfferedCas::of_config_map(&source(), Some(&empty)),
            "is missing or empty",
        ),
        (
            vault.clone(),
            extra("secret words"),
            "holds no certificates",
        ),
        (
            vault,
            extra(&stranger.pem()),
            "no self-signed CA in ConfigMap",
        ),
    ] {
        let issuers = PerAlias {
            server: issuer,
            ..PerAlias::default()
        };
        let wanted = Requirements {
            issuers,
            ..given(offered_cas)
        };
        let why = judge_with(&secret, &wanted).expect_err(words).to_string();
        assert!(why.contains(words), "{words}: {why}");
        assert!(!why.contains("secret words"), "{why}");
    }
}
