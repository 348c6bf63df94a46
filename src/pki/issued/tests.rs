use std::collections::BTreeSet;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};

use secrecy::{ExposeSecret, SecretString};

use super::*;
use crate::pki::Fingerprint;
use crate::pki::extra_ca::MissingRoot;
use crate::pki::key_pair::KeyPairProblem;
use crate::pki::parse::certificates_of;

/// A CA that is valid from 2026 to 2036.
pub(crate) struct Authority {
    ca: CertifiedIssuer<'static, KeyPair>,
    /// The CAs above it, and its own certificate.
    ca_crt: String,
    /// The intermediate CAs in the chain of its leaves.
    chain: String,
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = rcgen::date_time_ymd(2026, 1, 1);
    params.not_after = rcgen::date_time_ymd(2036, 1, 1);
    params
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let ca =
            CertifiedIssuer::self_signed(ca_params(name), KeyPair::generate().unwrap()).unwrap();
        let ca_crt = ca.pem();
        Self {
            ca,
            ca_crt,
            chain: String::new(),
        }
    }

    /// The same CA with the same key, and another end.
    fn renewed_until(&self, year: i32) -> Self {
        let key = KeyPair::from_pem(&self.ca.key().serialize_pem()).unwrap();
        let mut params = ca_params("ca");
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let ca = CertifiedIssuer::self_signed(params, key).unwrap();
        Self {
            ca_crt: ca.pem(),
            ca,
            chain: String::new(),
        }
    }

    /// An intermediate CA, whose certificate is in the chain of its leaves, or in `ca.crt`.
    fn below(&self, name: &str, in_chain: bool) -> Self {
        let ca =
            CertifiedIssuer::signed_by(ca_params(name), KeyPair::generate().unwrap(), &self.ca)
                .unwrap();
        let (chain, beside) = if in_chain {
            (ca.pem(), String::new())
        } else {
            (String::new(), ca.pem())
        };
        Self {
            ca_crt: format!("{beside}{}", self.ca.pem()),
            ca,
            chain,
        }
    }

    fn sign(&self, alias: Alias, change: impl FnOnce(&mut CertificateParams)) -> IssuedSecret {
        let names = if alias == Alias::Client {
            vec![]
        } else {
            vec![NAME.to_owned(), "10.0.0.1".to_owned()]
        };
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(
            DnType::CommonName,
            if alias == Alias::Client { USER } else { NAME },
        );
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if alias != Alias::Client {
            params
                .extended_key_usages
                .push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(2027, 1, 1);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.ca).unwrap().pem();
        IssuedSecret {
            certificate: format!("{leaf}{}", self.chain).into_bytes(),
            key: key.serialize_pem().into(),
            ca: self.ca_crt.clone().into_bytes(),
        }
    }
}

pub(crate) const NAME: &str = "pg.demo.svc";
const USER: &str = "postgres";

pub(crate) fn wanted() -> Requirements {
    let names = vec![NAME.to_owned(), "10.0.0.1".to_owned()];
    Requirements {
        server: names.clone(),
        exporter: names,
        superuser: USER.to_owned(),
        password: true,
        ..Requirements::default()
    }
}

pub(crate) fn now() -> Timestamp {
    "2026-06-01T00:00:00Z".parse().unwrap()
}

fn sources(server: &Authority, client: &Authority) -> PerAlias<Option<IssuedSecret>> {
    PerAlias {
        server: Some(server.sign(Alias::Server, |_| ())),
        client: Some(client.sign(Alias::Client, |_| ())),
        exporter: Some(server.sign(Alias::MetricsExporter, |_| ())),
    }
}

/// Leaves of these CAs: server and exporter of the first, client of the second.
pub(crate) fn issue(server: &Authority, client: &Authority) -> Issued {
    check_issued(&sources(server, client), &wanted(), now()).unwrap()
}

fn defects(sources: &PerAlias<Option<IssuedSecret>>) -> Vec<(Alias, Defect)> {
    let problems = check_issued(sources, &wanted(), now())
        .map(|_| ())
        .unwrap_err();
    problems
        .into_iter()
        .map(|problem| (problem.alias, problem.defect))
        .collect()
}

fn defect_of(alias: Alias, source: IssuedSecret) -> Defect {
    let ca = Authority::new("ca");
    let mut all = sources(&ca, &ca);
    match alias {
        Alias::Server => all.server = Some(source),
        Alias::Client => all.client = Some(source),
        Alias::MetricsExporter => all.exporter = Some(source),
    }
    let [(of, defect)] = <[_; 1]>::try_from(defects(&all)).unwrap();
    assert_eq!(of, alias);
    defect
}

#[test]
fn good_certificates_are_named_by_their_fingerprints() {
    let (one, other) = (Authority::new("one"), Authority::new("other"));
    let issued = issue(&one, &other);
    let (one, other) = (CaId::from_der(one.ca.der()), CaId::from_der(other.ca.der()));
    assert_eq!(
        [
            issued.material.server.ca,
            issued.material.client.ca,
            issued.material.exporter.ca
        ],
        [one, other, one]
    );
    assert_eq!(
        issued.cas.keys().copied().collect::<BTreeSet<_>>(),
        BTreeSet::from([one, other])
    );
    assert_eq!(issued.served.material(), Some(issued.material));
    assert_eq!(issued.served.cas(), issued.cas);
    assert_eq!(issued.ends.client, "2027-01-01T00:00:00Z".parse().unwrap());
}

#[test]
fn a_fingerprint_is_the_sha_256_of_the_der() {
    let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(Fingerprint::sha256(b"abc").to_string(), abc);
}

#[test]
fn every_certificate_that_is_missing_is_named() {
    let nothing = PerAlias::default();
    assert_eq!(
        defects(&nothing),
        Alias::ALL.map(|alias| (alias, Defect::NotIssued))
    );
    let empty = PerAlias {
        server: Some(IssuedSecret::default()),
        client: None,
        exporter: None,
    };
    assert_eq!(
        defects(&empty),
        Alias::ALL.map(|alias| (alias, Defect::NotIssued))
    );
}

#[test]
fn a_bad_certificate_is_refused_with_its_reason() {
    let ca = Authority::new("ca");
    let sign = |change: fn(&mut CertificateParams)| ca.sign(Alias::Server, change);
    let good = sign(|_| ());
    let names = sign(|params| params.subject_alt_names.clear());
    assert!(matches!(
        defect_of(Alias::Server, names),
        Defect::Pair(KeyPairProblem::NamesMissing { .. })
    ));
    let expired = sign(|params| params.not_after = rcgen::date_time_ymd(2026, 5, 1));
    assert!(matches!(
        defect_of(Alias::Server, expired),
        Defect::Pair(KeyPairProblem::Expired { .. })
    ));
    let usage =
        sign(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]);
    assert!(matches!(
        defect_of(Alias::Server, usage),
        Defect::Pair(KeyPairProblem::NotTrusted { .. })
    ));
    let key = IssuedSecret {
        key: sign(|_| ()).key,
        ..good.clone()
    };
    assert_eq!(
        defect_of(Alias::Server, key),
        Defect::Pair(KeyPairProblem::KeyOfAnother)
    );
    assert_eq!(
        defect_of(
            Alias::Server,
            IssuedSecret {
                ca: vec![],
                ..good.clone()
            }
        ),
        Defect::NoCa(MissingRoot::default())
    );
    let half = IssuedSecret {
        ca: good.ca[..good.ca.len() / 2].to_vec(),
        ..good.clone()
    };
    assert!(matches!(defect_of(Alias::Server, half), Defect::Ca(_)));
    let stranger = IssuedSecret {
        ca: Authority::new("ca").ca_crt.into_bytes(),
        ..good
    };
    assert_eq!(
        defect_of(Alias::Server, stranger),
        Defect::NoRoot(MissingRoot::default())
    );
}

/// A CA was renewed with its old key, and only one certificate was issued after that.
#[test]
fn all_certificates_have_the_same_form_of_a_renewed_ca() {
    let old = Authority::new("ca");
    let renewed = old.renewed_until(2040);
    let root = CaId::from_der(renewed.ca.der());
    for (server, client) in [(&old, &renewed), (&renewed, &old)] {
        let issued = issue(server, client);
        let Material {
            server,
            client,
            exporter,
        } = issued.material;
        assert_eq!([server.ca, client.ca, exporter.ca], [root; 3]);
        assert_eq!(issued.served.material(), Some(issued.material));
    }
}

#[test]
fn cas_that_openssl_would_mix_up_are_not_trusted_together() {
    let (one, other) = (Authority::new("ca"), Authority::new("ca"));
    let name = "ca".to_owned();
    let defect = Defect::ConfusableCa { name };
    let expected = Alias::ALL.map(|alias| (alias, defect.clone()));
    assert_eq!(defects(&sources(&one, &other)), expected);
}

#[test]
fn a_leaf_that_outlives_its_ca_is_served_until_the_ca_ends() {
    let ca = Authority::new("ca");
    let mut all = sources(&ca, &ca);
    let outlives = |params: &mut CertificateParams| {
        params.not_after = rcgen::date_time_ymd(2040, 1, 1);
    };
    all.client = Some(ca.sign(Alias::Client, outlives));
    let issued = check_issued(&all, &wanted(), now()).unwrap();
    let end_of_ca: Timestamp = "2036-01-01T00:00:00Z".parse().unwrap();
    assert_eq!(issued.ends.client, end_of_ca);
    assert_eq!(issued.early_ca.client.unwrap().ends, end_of_ca);
    assert_eq!(issued.early_ca.server, None);
    assert_eq!(issued.served.client_ends(), Some(end_of_ca));
}

#[test]
fn a_client_must_be_the_superuser_and_a_client() {
    let ca = Authority::new("ca");
    let other = ca.sign(Alias::Client, |params| {
        params.distinguished_name.push(DnType::CommonName, "app");
    });
    let found = Defect::CommonName {
        found: "app".to_owned(),
        wanted: USER.to_owned(),
    };
    assert_eq!(defect_of(Alias::Client, other), found);
    let server = |params: &mut CertificateParams| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    };
    let usage = ca.sign(Alias::Client, server);
    assert!(matches!(
        defect_of(Alias::Client, usage),
        Defect::NotForClients { .. }
    ));
}

#[test]
fn a_ca_below_another_is_served_and_the_one_above_is_trusted() {
    let root = Authority::new("root");
    for in_chain in [true, false] {
        let below = root.below("below", in_chain);
        let issued = issue(&below, &below);
        assert_eq!(issued.material.server.ca, CaId::from_der(root.ca.der()));
        let chain = certificates_of(issued.served.server.certificate.as_bytes()).unwrap();
        assert_eq!((chain.len(), &chain[1]), (2, below.ca.der()), "{in_chain}");
        assert_eq!(issued.served.trust, pem(root.ca.der()));
    }
    let mut orphan = root.below("orphan", true);
    orphan.ca_crt = orphan.ca.pem();
    assert_eq!(
        defects(&sources(&orphan, &orphan)),
        Alias::ALL.map(|alias| (alias, Defect::NoRoot(MissingRoot::default())))
    );
}

#[test]
fn a_root_that_comes_with_the_chain_is_not_served() {
    let mut root = Authority::new("root");
    root.chain = root.ca.pem();
    let issued = issue(&root, &root);
    assert_eq!(
        certificates_of(issued.served.server.certificate.as_bytes())
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn more_can_be_trusted_and_ones_own_ca_comes_first() {
    let (one, other) = (Authority::new("one"), Authority::new("other"));
    let (own, old) = (issue(&one, &one), issue(&other, &other));
    let all: BTreeMap<CaId, String> = own.cas.clone().into_iter().chain(old.cas).collect();
    let wider = own
        .served
        .clone()
        .trusting(&own.material, &all.keys().copied().collect(), &all)
        .unwrap();
    assert_eq!(
        wider.trust,
        format!("{}{}", pem(one.ca.der()), pem(other.ca.der()))
    );
    assert_eq!(wider.material(), Some(own.material));
    let stranger = CaId(Fingerprint([0; 32]));
    assert_eq!(
        own.served
            .trusting(&own.material, &[stranger].into(), &all)
            .map(|_| ()),
        Err(stranger)
    );
}

type KeyOf = fn(&mut ServedMaterial) -> &mut SecretString;

#[test]
fn leaves_with_the_key_of_another_are_no_material() {
    let ca = Authority::new("ca");
    let Issued {
        material, served, ..
    } = issue(&ca, &ca);
    assert_eq!(served.material(), Some(material));
    let (server, client) = (served.server.key.clone(), served.client.key.clone());
    let broken: [(&str, KeyOf, &SecretString); 3] = [
        ("server", |served| &mut served.server.key, &client),
        ("client", |served| &mut served.client.key, &server),
        ("exporter", |served| &mut served.exporter.key, &server),
    ];
    for (what, key, other) in broken {
        for other in [other.clone(), "no key".into()] {
            let mut served = served.clone();
            *key(&mut served) = other;
            assert_eq!(served.material(), None, "{what}");
        }
    }
}

#[test]
fn nothing_that_is_printed_shows_a_key() {
    let ca = Authority::new("ca");
    let source = ca.sign(Alias::Server, |_| ());
    let body = source
        .key
        .expose_secret()
        .lines()
        .nth(1)
        .unwrap()
        .to_owned();
    let printed = format!(
        "{source:?} {:?} {:?}",
        issue(&ca, &ca),
        defects(&PerAlias {
            server: Some(source.clone()),
            ..PerAlias::default()
        })
    );
    assert!(
        !printed.contains(&body) && !printed.contains("PRIVATE KEY"),
        "{printed}"
    );
}
