//! Every kind of certificate that an issuer may give: key of the CA and of the leaf, life of the
//! CA, form of the chain, alias.

use std::sync::OnceLock;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, KeyPair, KeyUsagePurpose, NameConstraints, RsaKeySize,
};

use super::*;
use crate::pki::defect::CaFault;
use crate::pki::key_pair::KeyPairProblem;

mod extra_ca;

type Authority = CertifiedIssuer<'static, KeyPair>;

const NAME: &str = "pg.demo.svc";
const USER: &str = "postgres";
const YEAR_OF_LEAF: (i32, i32) = (2026, 2027);

/// The keys that cert-manager, Vault and openssl make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeyKind {
    Rsa2048,
    Rsa3072,
    Rsa4096,
    P256,
    P384,
    P521,
    Ed25519,
}

impl KeyKind {
    const ALL: [Self; 7] = [
        Self::Rsa2048,
        Self::Rsa3072,
        Self::Rsa4096,
        Self::P256,
        Self::P384,
        Self::P521,
        Self::Ed25519,
    ];

    /// The key of every CA of this kind. RSA keys take long, so each is made once.
    fn key(self) -> KeyPair {
        static KEYS: OnceLock<[String; 7]> = OnceLock::new();
        let keys = KEYS.get_or_init(|| Self::ALL.map(Self::generate));
        KeyPair::from_pem(&keys[self as usize]).expect("a key")
    }

    /// The key of every leaf of this kind.
    fn leaf_key(self) -> KeyPair {
        static KEYS: OnceLock<[String; 7]> = OnceLock::new();
        let keys = KEYS.get_or_init(|| Self::ALL.map(Self::generate));
        KeyPair::from_pem(&keys[self as usize]).expect("a key")
    }

    fn generate(self) -> String {
        let rsa = |size| KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, size);
        let key = match self {
            Self::Rsa2048 => rsa(RsaKeySize::_2048),
            Self::Rsa3072 => rsa(RsaKeySize::_3072),
            Self::Rsa4096 => rsa(RsaKeySize::_4096),
            Self::P256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
            Self::P384 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
            Self::P521 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512),
            Self::Ed25519 => KeyPair::generate_for(&rcgen::PKCS_ED25519),
        };
        key.expect("a key").serialize_pem()
    }
}

/// How long a CA lives, compared with the leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    /// It ends after the leaf.
    Longer,
    /// It ends before the leaf, and after the time of the check.
    Shorter,
    Ended,
    NotBegun,
}

impl Life {
    const ALL: [Self; 4] = [Self::Longer, Self::Shorter, Self::Ended, Self::NotBegun];

    /// The first and the last month.
    const fn months(self) -> [(i32, u8); 2] {
        match self {
            Self::Longer => [(2026, 1), (2036, 1)],
            Self::Shorter => [(2026, 1), (2026, 10)],
            Self::Ended => [(2025, 1), (2026, 5)],
            Self::NotBegun => [(2026, 8), (2036, 1)],
        }
    }
}

/// The form in which issuers give the CAs. Where there is an intermediate CA, `Life` is that of the
/// root above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChainForm {
    /// cert-manager's CA issuer with a self-signed CA.
    RootInCaCrt,
    /// cert-manager's CA issuer with an intermediate CA: it goes along with the leaf.
    Intermediate,
    /// Vault without `ca_chain` in the right place: the intermediate CA is beside the root.
    IntermediateInCaCrt,
    /// The whole chain, root included, goes along with the leaf.
    WholeChain,
    /// The same, in another order.
    WholeChainRootFirst,
    /// Even the leaf is not the first.
    LeafLast,
    /// No `ca.crt`: the root comes with the chain.
    NoCaCrt,
    /// No `ca.crt`, and no root.
    NoRootAtAll,
    /// `ca.crt` is the intermediate CA, as with a Secret of an intermediate CA that lacks the root.
    IntermediateAsCaCrt,
}

impl ChainForm {
    const ALL: [Self; 9] = [
        Self::RootInCaCrt,
        Self::Intermediate,
        Self::IntermediateInCaCrt,
        Self::WholeChain,
        Self::WholeChainRootFirst,
        Self::LeafLast,
        Self::NoCaCrt,
        Self::NoRootAtAll,
        Self::IntermediateAsCaCrt,
    ];

    /// The contents of `tls.crt` and `ca.crt`, and the length of the chain to serve.
    fn files(self, leaf: &str, intermediate: &str, root: &str) -> (String, String, usize) {
        let (tls, ca, length): (&[&str], &[&str], usize) = match self {
            Self::RootInCaCrt => (&[leaf], &[root], 1),
            Self::Intermediate => (&[leaf, intermediate], &[root], 2),
            Self::IntermediateInCaCrt => (&[leaf], &[intermediate, root], 2),
            Self::WholeChain => (&[leaf, intermediate, root], &[root], 2),
            Self::WholeChainRootFirst => (&[leaf, root, intermediate], &[root], 2),
            Self::LeafLast => (&[root, intermediate, leaf], &[root], 2),
            Self::NoCaCrt => (&[leaf, intermediate, root], &[], 2),
            Self::NoRootAtAll => (&[leaf, intermediate], &[], 0),
            Self::IntermediateAsCaCrt => (&[leaf, intermediate], &[intermediate], 0),
        };
        (tls.concat(), ca.concat(), length)
    }
}

fn ca_params(name: &str, life: Life) -> CertificateParams {
    let [(from_year, from), (until_year, until)] = life.months();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = rcgen::date_time_ymd(from_year, from, 1);
    params.not_after = rcgen::date_time_ymd(until_year, until, 1);
    params
}

fn root(name: &str, life: Life, key: KeyKind) -> Authority {
    CertifiedIssuer::self_signed(ca_params(name, life), key.key()).expect("a root")
}

fn leaf_params(alias: Alias) -> CertificateParams {
    let is_client = alias == Alias::Client;
    let names = if is_client {
        vec![]
    } else {
        vec![NAME.to_owned()]
    };
    let mut params = CertificateParams::new(names).expect("names");
    let common_name = if is_client { USER } else { NAME };
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ClientAuth,
        ExtendedKeyUsagePurpose::ServerAuth,
    ];
    params.not_before = rcgen::date_time_ymd(YEAR_OF_LEAF.0, 1, 1);
    params.not_after = rcgen::date_time_ymd(YEAR_OF_LEAF.1, 1, 1);
    params.use_authority_key_identifier_extension = true;
    params
}

fn requirements() -> Requirements {
    Requirements {
        server: vec![NAME.to_owned()],
        exporter: vec![NAME.to_owned()],
        superuser: USER.to_owned(),
        password: true,
        ..Requirements::default()
    }
}

fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

fn now() -> Timestamp {
    at("2026-06-01T00:00:00Z")
}

/// A leaf of `ca` with this key, and the files of its Secret.
fn issue(
    alias: Alias,
    ca: &Authority,
    key: KeyKind,
    files: impl Fn(&str) -> [String; 2],
) -> IssuedSecret {
    let key = key.leaf_key();
    let leaf = leaf_params(alias)
        .signed_by(&key, ca)
        .expect("a leaf")
        .pem();
    let [tls, ca] = files(&leaf);
    IssuedSecret {
        certificate: tls.into_bytes(),
        key: key.serialize_pem().into(),
        ca: ca.into_bytes(),
    }
}

fn judge(alias: Alias, secret: &IssuedSecret) -> Result<CheckedCertificate, Defect> {
    check(alias, Some(secret), &[], &requirements(), now())
}

/// What a server or a client could not use, in a word; `None` if it can be served.
fn expected(alias: Alias, ca_key: KeyKind, life: Life, form: ChainForm) -> Option<&'static str> {
    match (form, life) {
        (ChainForm::NoRootAtAll, _) => Some("NoCa"),
        (ChainForm::IntermediateAsCaCrt, _) => Some("NoRoot"),
        (_, Life::Ended | Life::NotBegun) => Some("BadCa"),
        _ if alias == Alias::Server && ca_key == KeyKind::Ed25519 => Some("NoChannelBinding"),
        _ => None,
    }
}

#[test]
fn every_ca_key_and_life_and_chain_and_alias_is_served_or_refused_with_its_reason() {
    for ca_key in KeyKind::ALL {
        for life in Life::ALL {
            let root = root("root", life, ca_key);
            let intermediate = CertifiedIssuer::signed_by(
                ca_params("intermediate", Life::Longer),
                ca_key.key(),
                &root,
            )
            .expect("a CA");
            for form in ChainForm::ALL {
                let signer = if form == ChainForm::RootInCaCrt {
                    &root
                } else {
                    &intermediate
                };
                for alias in Alias::ALL {
                    let secret = issue(alias, signer, KeyKind::P256, |leaf| {
                        let (tls, ca, _) = form.files(leaf, &intermediate.pem(), &root.pem());
                        [tls, ca]
                    });
                    let case = format!("{alias:?} {ca_key:?} {life:?} {form:?}");
                    let (.., length) = form.files("", "", "");
                    assert_case(
                        &case,
                        judge(alias, &secret),
                        expected(alias, ca_key, life, form),
                        life,
                        length,
                        &root,
                    );
                }
            }
        }
    }
}

fn assert_case(
    case: &str,
    found: Result<CheckedCertificate, Defect>,
    expected: Option<&str>,
    life: Life,
    length: usize,
    root: &Authority,
) {
    match (found, expected) {
        (Err(defect), Some(reason)) => {
            assert!(
                format!("{defect:?}").starts_with(reason),
                "{case}: {defect:?}"
            );
        }
        (Ok(good), None) => {
            let chain = certificates_of(good.pem.certificate.as_bytes()).expect("a chain");
            assert_eq!(chain.len(), length, "{case}");
            assert_eq!(good.root, *root.der(), "{case}");
            let (ends, early) = match life {
                Life::Shorter => (at("2026-10-01T00:00:00Z"), true),
                _ => (at("2027-01-01T00:00:00Z"), false),
            };
            assert_eq!(
                (good.ends, good.early_ca.is_some()),
                (ends, early),
                "{case}"
            );
        }
        (found, expected) => panic!("{case}: {found:?}, not {expected:?}"),
    }
}

#[test]
fn a_leaf_may_have_any_key_under_any_ca() {
    for ca_key in KeyKind::ALL {
        let root = root("root", Life::Longer, ca_key);
        for key in KeyKind::ALL {
            for alias in Alias::ALL {
                let secret = issue(alias, &root, key, |leaf| [leaf.to_owned(), root.pem()]);
                let expected = expected(alias, ca_key, Life::Longer, ChainForm::RootInCaCrt);
                let found = judge(alias, &secret)
                    .err()
                    .map(|defect| format!("{defect:?}"));
                assert_eq!(found.as_deref(), expected, "{ca_key:?} {key:?} {alias:?}");
            }
        }
    }
}

/// A new root that an old one has signed too: both ways up are there, or one of them.
#[test]
fn a_cross_signed_ca_is_served_by_each_way_up() {
    let old = root("old root", Life::Longer, KeyKind::P256);
    let new = root("new root", Life::Longer, KeyKind::P384);
    let params = ca_params("new root", Life::Longer);
    let crossed = CertifiedIssuer::signed_by(params, KeyKind::P384.key(), &old).expect("a CA");
    for (beside, chain, ca, roots, length) in [
        (
            "both",
            crossed.pem(),
            [old.pem(), new.pem()].concat(),
            vec![&old, &new],
            0,
        ),
        ("the old root", crossed.pem(), old.pem(), vec![&old], 2),
        ("the new root", crossed.pem(), new.pem(), vec![&new], 1),
        (
            "the new root alone",
            String::new(),
            new.pem(),
            vec![&new],
            1,
        ),
    ] {
        let secret = issue(Alias::Server, &new, KeyKind::P256, |leaf| {
            [format!("{leaf}{chain}"), ca.clone()]
        });
        let good = judge(Alias::Server, &secret).expect(beside);
        assert!(
            roots.iter().any(|root| *root.der() == good.root),
            "{beside}"
        );
        let served = certificates_of(good.pem.certificate.as_bytes()).expect("a chain");
        assert!(length == 0 || served.len() == length, "{beside}");
    }
    // A root in ca.crt that has signed nothing here does not help.
    let stranger = root("old root", Life::Longer, KeyKind::P521);
    let secret = issue(Alias::Server, &new, KeyKind::P256, |leaf| {
        [format!("{leaf}{}", crossed.pem()), stranger.pem()]
    });
    let found = judge(Alias::Server, &secret);
    assert!(matches!(found, Err(Defect::NoRoot(_))), "{found:?}");
}

/// Made by OpenSSL, because rcgen does not sign with RSASSA-PSS. PostgreSQL computes the channel
/// binding of such a certificate since the minor versions of May 2023.
#[test]
fn a_ca_may_sign_with_rsassa_pss() {
    let secret = IssuedSecret {
        certificate: include_bytes!("tests/rsassa-pss-leaf.crt").to_vec(),
        key: include_str!("tests/rsassa-pss-leaf.key").to_owned().into(),
        ca: include_bytes!("tests/rsassa-pss-root.crt").to_vec(),
    };
    for alias in [Alias::Server, Alias::MetricsExporter] {
        let found = check(
            alias,
            Some(&secret),
            &[],
            &requirements(),
            at("2027-01-01T00:00:00Z"),
        );
        assert!(found.is_ok(), "{alias:?}: {found:?}");
    }
}

/// Made by OpenSSL, because rcgen does not sign with SHA-1. Roots of old companies are signed so, and
/// no client verifies that signature.
#[test]
fn a_root_may_be_signed_with_sha_1() {
    let secret = IssuedSecret {
        certificate: include_bytes!("tests/sha1-leaf.crt").to_vec(),
        key: include_str!("tests/sha1-leaf.key").to_owned().into(),
        ca: include_bytes!("tests/sha1-root.crt").to_vec(),
    };
    let at_new_year = at("2027-01-01T00:00:00Z");
    let found = check(
        Alias::Server,
        Some(&secret),
        &[],
        &requirements(),
        at_new_year,
    );
    assert!(found.is_ok(), "{found:?}");
}

#[test]
fn without_scram_a_ca_may_sign_with_ed25519() {
    let root = root("root", Life::Longer, KeyKind::Ed25519);
    let secret = issue(Alias::Server, &root, KeyKind::P256, |leaf| {
        [leaf.to_owned(), root.pem()]
    });
    let requirements = Requirements {
        password: false,
        ..requirements()
    };
    assert!(check(Alias::Server, Some(&secret), &[], &requirements, now()).is_ok());
}

#[test]
fn an_early_ca_says_when_the_leaf_is_to_be_issued_anew() {
    let root = root("root", Life::Shorter, KeyKind::P256);
    let secret = issue(Alias::Server, &root, KeyKind::P256, |leaf| {
        [leaf.to_owned(), root.pem()]
    });
    let early = judge(Alias::Server, &secret)
        .expect("a good one")
        .early_ca
        .expect("a CA");
    assert_eq!(
        (early.name.as_str(), early.id),
        ("root", CaId::from_der(root.der()))
    );
    assert_eq!(early.ends, at("2026-10-01T00:00:00Z"));
    // Three quarters of 273 days.
    assert_eq!(early.renew_at(), at("2026-07-24T18:00:00Z"));
}

#[test]
fn a_ca_that_may_not_sign_is_refused() {
    let is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    for (is_ca, usage, fault) in [
        (
            IsCa::ExplicitNoCa,
            KeyUsagePurpose::KeyCertSign,
            CaFault::NotCa,
        ),
        (
            is_ca,
            KeyUsagePurpose::DigitalSignature,
            CaFault::MayNotSign,
        ),
    ] {
        let mut params = ca_params("root", Life::Longer);
        params.is_ca = is_ca;
        params.key_usages = vec![usage];
        let root = CertifiedIssuer::self_signed(params, KeyKind::P256.key()).expect("a root");
        for alias in Alias::ALL {
            let secret = issue(alias, &root, KeyKind::P256, |leaf| {
                [leaf.to_owned(), root.pem()]
            });
            let name = "root".to_owned();
            let expected = Err(Defect::BadCa { name, fault });
            assert_eq!(judge(alias, &secret).map(|_| ()), expected, "{alias:?}");
        }
    }
}

/// webpki looks at none of these at a root, and OpenSSL refuses the chain.
#[test]
fn the_constraints_of_a_root_count() {
    let for_purpose = |purpose: ExtendedKeyUsagePurpose| {
        let mut params = ca_params("root", Life::Longer);
        params.extended_key_usages = vec![purpose];
        params
    };
    let mut short = ca_params("root", Life::Longer);
    short.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let (clients, servers) = (
        ExtendedKeyUsagePurpose::ClientAuth,
        ExtendedKeyUsagePurpose::ServerAuth,
    );
    for (params, alias, fault) in [
        (short, Alias::Client, Some(CaFault::PathTooLong)),
        (for_purpose(clients.clone()), Alias::Client, None),
        (
            for_purpose(clients),
            Alias::Server,
            Some(CaFault::OtherPurposes),
        ),
        (
            for_purpose(servers),
            Alias::Client,
            Some(CaFault::OtherPurposes),
        ),
    ] {
        let root = CertifiedIssuer::self_signed(params, KeyKind::P256.key()).expect("a root");
        let below = ca_params("below", Life::Longer);
        let below = CertifiedIssuer::signed_by(below, KeyKind::P384.key(), &root).expect("a CA");
        let secret = issue(alias, &below, KeyKind::P256, |leaf| {
            [format!("{leaf}{}", below.pem()), root.pem()]
        });
        let name = "root".to_owned();
        let expected = fault.map_or(Ok(()), |fault| Err(Defect::BadCa { name, fault }));
        assert_eq!(
            judge(alias, &secret).map(|_| ()),
            expected,
            "{alias:?} {fault:?}"
        );
    }
}

#[test]
fn a_client_certificate_must_be_for_signatures() {
    let root = root("root", Life::Longer, KeyKind::P256);
    for (usage, is_good) in [
        (KeyUsagePurpose::DigitalSignature, true),
        (KeyUsagePurpose::KeyEncipherment, false),
    ] {
        let mut params = leaf_params(Alias::Client);
        params.key_usages = vec![usage];
        let key = KeyKind::P256.leaf_key();
        let secret = IssuedSecret {
            certificate: params
                .signed_by(&key, &root)
                .expect("a leaf")
                .pem()
                .into_bytes(),
            key: key.serialize_pem().into(),
            ca: root.pem().into_bytes(),
        };
        assert_eq!(judge(Alias::Client, &secret).is_ok(), is_good);
    }
}

/// The key identifier says which CA it was, as OpenSSL reads it.
#[test]
fn a_ca_with_another_key_identifier_is_not_the_issuer() {
    let with_id = |id: u8| {
        let mut params = ca_params("root", Life::Longer);
        params.key_identifier_method = rcgen::KeyIdMethod::PreSpecified(vec![id; 20]);
        CertifiedIssuer::self_signed(params, KeyKind::P256.key()).expect("a root")
    };
    let (own, other) = (with_id(1), with_id(2));
    let secret = issue(Alias::Server, &own, KeyKind::P256, |leaf| {
        [leaf.to_owned(), other.pem()]
    });
    let found = judge(Alias::Server, &secret);
    assert!(matches!(found, Err(Defect::NoRoot(_))), "{found:?}");
}

/// A Secret may hold what cert-manager and people have left there.
#[test]
fn the_good_one_of_many_roots_with_one_key_is_found() {
    let good = root("root", Life::Longer, KeyKind::P256);
    let ended: String = (1..12)
        .map(|month| {
            let mut params = ca_params("root", Life::Ended);
            params.not_after = rcgen::date_time_ymd(2026, 1, month);
            let key = KeyKind::P256.key();
            CertifiedIssuer::self_signed(params, key)
                .expect("a root")
                .pem()
        })
        .collect();
    let secret = issue(Alias::Server, &good, KeyKind::P256, |leaf| {
        [leaf.to_owned(), format!("{ended}{}", good.pem())]
    });
    assert_eq!(
        judge(Alias::Server, &secret).expect("a good one").root,
        *good.der()
    );
}

#[test]
fn names_that_a_ca_may_not_give_are_refused() {
    for (allowed, is_good) in [("demo.svc", true), ("prod.svc", false)] {
        let mut params = ca_params("root", Life::Longer);
        let allowed = vec![GeneralSubtree::DnsName(allowed.to_owned())];
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: allowed,
            excluded_subtrees: vec![],
        });
        let top = root("top", Life::Longer, KeyKind::P256);
        let below = CertifiedIssuer::signed_by(params, KeyKind::P256.key(), &top).expect("a CA");
        let secret = issue(Alias::Server, &below, KeyKind::P256, |leaf| {
            [format!("{leaf}{}", below.pem()), top.pem()]
        });
        let found = judge(Alias::Server, &secret);
        let refused = matches!(found, Err(Defect::Pair(KeyPairProblem::NotTrusted { .. })));
        assert_eq!((found.is_ok(), refused), (is_good, !is_good), "{found:?}");
    }
}

/// The intermediate CA was signed by an old root and, when that came to its end, by a new one.
#[test]
fn of_two_roots_that_have_signed_the_one_that_lasts_longer_counts() {
    let old = root("old", Life::Shorter, KeyKind::P256);
    let new = root("new", Life::Longer, KeyKind::P384);
    let below = |root| {
        let key = KeyKind::P521.key();
        CertifiedIssuer::signed_by(ca_params("below", Life::Longer), key, root).expect("a CA")
    };
    let (by_old, by_new) = (below(&old), below(&new));
    for all in [
        [&by_old, &by_new, &old, &new],
        [&new, &old, &by_new, &by_old],
    ] {
        let cas: String = all.iter().map(|ca| ca.pem()).collect();
        let secret = issue(Alias::Server, &by_old, KeyKind::P256, |leaf| {
            [leaf.to_owned(), cas.clone()]
        });
        let found = judge(Alias::Server, &secret).expect("a good one");
        assert_eq!((&found.root, found.early_ca), (new.der(), None));
    }
}

#[test]
fn a_root_that_was_renewed_with_its_key_goes_on() {
    let old = root("root", Life::Ended, KeyKind::P256);
    let new = root("root", Life::Longer, KeyKind::P256);
    let secret = issue(Alias::Client, &old, KeyKind::P256, |leaf| {
        [leaf.to_owned(), format!("{}{}", old.pem(), new.pem())]
    });
    assert_eq!(
        judge(Alias::Client, &secret).expect("a good one").root,
        *new.der()
    );
}

/// OpenSSL takes the first CA whose name fits, if there is no key identifier to tell it otherwise.
#[test]
fn two_trusted_cas_of_one_name_need_key_identifiers() {
    let (own, other) = (
        root("root", Life::Longer, KeyKind::P256),
        root("root", Life::Longer, KeyKind::P384),
    );
    for (has_identifier, is_good) in [(true, true), (false, false)] {
        let mut params = leaf_params(Alias::Server);
        params.use_authority_key_identifier_extension = has_identifier;
        let key = KeyKind::P256.leaf_key();
        let secret = IssuedSecret {
            certificate: params
                .signed_by(&key, &own)
                .expect("a leaf")
                .pem()
                .into_bytes(),
            key: key.serialize_pem().into(),
            ca: own.pem().into_bytes(),
        };
        let requirements = Requirements {
            trusted: BTreeMap::from([(CaId::from_der(other.der()), other.pem())]),
            ..requirements()
        };
        let found = check(Alias::Server, Some(&secret), &[], &requirements, now());
        let is_confusable = matches!(found, Err(Defect::ConfusableCa { .. }));
        assert_eq!(
            (found.is_ok(), is_confusable),
            (is_good, !is_good),
            "{found:?}"
        );
    }
}

/// A Secret may hold a megabyte: thousands of certificates, of which each could have signed each.
#[test]
fn a_secret_full_of_cas_is_refused() {
    let root = root("root", Life::Longer, KeyKind::P256);
    let crowd: String = (0..200)
        .map(|_| self::root("root", Life::Longer, KeyKind::P384).pem())
        .collect();
    let secret = issue(Alias::Server, &root, KeyKind::P256, |leaf| {
        [leaf.to_owned(), format!("{crowd}{}", root.pem())]
    });
    let expected = Defect::TooManyCertificates {
        found: 202,
        most: 32,
    };
    assert_eq!(judge(Alias::Server, &secret).map(|_| ()), Err(expected));
}
