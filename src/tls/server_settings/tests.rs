//! Tests of the settings that leave clients nothing to speak.

use super::*;

fn settings(conf: &[(&str, &str)]) -> BTreeMap<String, String> {
    conf.iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn named(conf: &[(&str, &str)], server: &ServerFacts) -> Vec<&'static str> {
    let found = obstacles(&settings(conf), server);
    found.iter().map(|obstacle| obstacle.setting).collect()
}

fn postgresql(major: u32) -> ServerFacts {
    ServerFacts {
        major: Some(major),
        ..ServerFacts::default()
    }
}

#[test]
fn no_settings_and_postgresqls_defaults_are_fine() {
    let defaults = [
        (MIN_VERSION, "TLSv1.2"),
        (MAX_VERSION, ""),
        (CIPHERS, "HIGH:MEDIUM:+3DES:!aNULL"),
        (TLS13_CIPHERS, ""),
    ];
    for (major, curve) in [
        (13, (CURVE, "prime256v1")),
        (17, (CURVE, "prime256v1")),
        (18, (GROUPS, "X25519:prime256v1")),
    ] {
        let server = postgresql(major);
        assert_eq!(named(&[], &server), [""; 0]);
        assert_eq!(named(&[&defaults[..], &[curve]].concat(), &server), [""; 0]);
    }
}

#[test]
fn a_version_before_tls_1_2_and_a_range_without_versions_are_obstacles() {
    for (oldest, newest, expected) in [
        (None, Some("TLSv1.1"), Some(MAX_VERSION)),
        (Some("TLSv1"), Some("tlsv1"), Some(MAX_VERSION)),
        (Some("TLSv1.3"), Some("TLSv1.2"), Some(MIN_VERSION)),
        (Some("TLSv1"), Some("TLSv1.2"), None),
        (Some("TLSv1.2"), Some("TLSv1.2"), None),
        (Some("TLSv1.3"), None, None),
        (Some("TLSv1.3"), Some(""), None),
        (Some("nonsense"), Some("nonsense"), None),
    ] {
        let conf: Vec<_> = [(MIN_VERSION, oldest), (MAX_VERSION, newest)]
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
            .collect();
        let found = named(&conf, &postgresql(17));
        assert_eq!(found, Vec::from_iter(expected), "{oldest:?} {newest:?}");
    }
}

#[test]
fn before_postgresql_18_there_is_one_curve_and_it_has_to_be_a_common_one() {
    for (curve, is_fine) in [
        ("prime256v1", true),
        ("secp384r1", true),
        ("secp521r1", false),
        ("X25519", false),
        ("P-256", false),
        ("PRIME256V1", false),
        ("prime256v1:secp384r1", false),
        ("brainpoolP256r1", false),
        ("", false),
    ] {
        assert_eq!(
            named(&[(CURVE, curve)], &postgresql(17)).is_empty(),
            is_fine,
            "{curve}"
        );
    }
    assert!(
        named(&[(GROUPS, "nonsense")], &postgresql(17)).is_empty(),
        "it is no setting there"
    );
}

#[test]
fn from_postgresql_18_on_groups_have_to_be_known_and_one_of_them_common() {
    let hybrid = ServerFacts {
        groups: BTreeSet::from(["X25519MLKEM768".to_owned()]),
        ..postgresql(18)
    };
    for (groups, of_any_image, of_a_new_one) in [
        ("X25519:prime256v1", 0, 0),
        ("x25519", 0, 0),
        ("P-384:ffdhe3072", 0, 0),
        ("secp521r1:X448", 1, 1),
        ("X25519MLKEM768:X25519", 1, 0),
        ("X25519MLKEM768", 2, 1),
        ("?X25519MLKEM768:X25519", 1, 0),
        ("?SecP256r1MLKEM768:X25519MLKEM768/*X25519", 2, 0),
        ("DEFAULT:-secp521r1", 2, 0),
        ("brainpoolP256r1:prime256v1", 0, 0),
        ("X25519:brainpoolP256r1tls13", 1, 1),
        ("X25519:", 1, 1),
        ("", 2, 2),
    ] {
        for name in [GROUPS, CURVE] {
            let count =
                |server: &ServerFacts| obstacles(&settings(&[(name, groups)]), server).len();
            assert_eq!(count(&postgresql(18)), of_any_image, "{name} = {groups}");
            assert_eq!(count(&hybrid), of_a_new_one, "{name} = {groups}");
        }
    }
    let unknown = obstacles(&settings(&[(GROUPS, "X25519:NoSuchGroup")]), &hybrid);
    assert_eq!(unknown[0].value, "NoSuchGroup");
}

#[test]
fn the_default_groups_are_none_that_users_would_be_refused() {
    let hybrid = BTreeSet::from(["x25519mlkem768".to_owned()]);
    for (major, groups, has_default) in [
        (17, &hybrid, false),
        (18, &hybrid, true),
        (19, &hybrid, true),
        (18, &BTreeSet::new(), false),
    ] {
        let default = default_groups(major, groups);
        assert_eq!(default.is_some(), has_default, "{major} {groups:?}");
        let server = ServerFacts {
            groups: groups.clone(),
            ..postgresql(major)
        };
        if let Some(default) = default {
            assert_eq!(named(&[(GROUPS, default)], &server), [""; 0]);
            let of_others = named(&[(GROUPS, default)], &postgresql(major));
            assert_eq!(of_others, [GROUPS], "not every OpenSSL has it");
        }
    }
}

/// Each list, and the common suites that it leaves: seen with `openssl ciphers -s -tls1_2` of OpenSSL
/// 3.0.
#[test]
fn a_cipher_list_leaves_the_suites_that_openssl_says() {
    const ECDSA: [&str; 3] = [
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
    ];
    const RSA: [&str; 3] = [
        "ECDHE-RSA-AES256-GCM-SHA384",
        "ECDHE-RSA-AES128-GCM-SHA256",
        "ECDHE-RSA-CHACHA20-POLY1305",
    ];
    let all = [ECDSA, RSA].concat();
    let gcm = [ECDSA[0], ECDSA[1], RSA[0], RSA[1]];
    let (chacha20, aes256) = ([ECDSA[2], RSA[2]], [ECDSA[0], RSA[0]]);
    for (list, left) in [
        ("HIGH:MEDIUM:+3DES:!aNULL", &all[..]),
        ("DEFAULT", &all),
        ("ALL:!DEFAULT", &all),
        ("HIGH:!aNULL:!RSA", &all),
        ("DEFAULT:!ECDHE", &[]),
        ("TLSv1.2", &all),
        ("ECDSA", &ECDSA),
        ("aRSA", &RSA),
        ("HIGH, !aECDSA; -CHACHA20", &RSA[..2]),
        ("ECDHE+AESGCM", &gcm),
        ("EECDH+ECDSA+AES256", &ECDSA[..1]),
        ("AESGCM+RSA", &[]),
        ("AESGCM+aRSA", &RSA[..2]),
        ("CHACHA20", &chacha20),
        ("HIGH:-ECDHE:ECDHE-RSA-AES128-GCM-SHA256", &RSA[1..2]),
        ("HIGH:!ECDHE:ECDHE-RSA-AES128-GCM-SHA256", &[]),
        ("AES256-SHA256:DHE-RSA-AES256-SHA256", &[]),
        ("kRSA:SHA256:DH:PSK", &[]),
        ("SSLv3:TLSv1:TLSv1.0", &[]),
        ("AESCCM", &[]),
        ("HIGH:@STRENGTH:@SECLEVEL=2", &all),
        ("AES256:+SHA", &aes256),
        ("no_such_word:AES256-SHA256:!AES", &chacha20),
    ] {
        let found: Vec<_> = suites(list).map(|suite| suite.name).collect();
        assert_eq!(found, left, "{list}");
    }
}

#[test]
fn ciphers_are_an_obstacle_where_tls_1_3_is_excluded_and_none_suits_the_key() {
    let server = |key| ServerFacts {
        key,
        ..postgresql(17)
    };
    let (rsa, ecdsa) = (Some(KeyAlgorithm::Rsa), Some(KeyAlgorithm::Ecdsa));
    for (ciphers, newest, key, is_fine) in [
        (
            "AES256-SHA256:DHE-RSA-AES256-SHA256",
            "TLSv1.2",
            None,
            false,
        ),
        ("AES256-SHA256:DHE-RSA-AES256-SHA256", "TLSv1.3", None, true),
        ("AES256-SHA256:DHE-RSA-AES256-SHA256", "", None, true),
        ("ECDHE-RSA-AES128-GCM-SHA256", "TLSv1.2", None, true),
        ("ECDHE-RSA-AES128-GCM-SHA256", "TLSv1.2", rsa, true),
        ("ECDHE-RSA-AES128-GCM-SHA256", "TLSv1.2", ecdsa, false),
        ("ECDHE-ECDSA-AES128-GCM-SHA256", "TLSv1.2", rsa, false),
        ("ECDHE-ECDSA-AES128-GCM-SHA256", "TLSv1.2", ecdsa, true),
        (
            "ECDHE-ECDSA-AES128-GCM-SHA256",
            "TLSv1.2",
            Some(KeyAlgorithm::Ed25519),
            true,
        ),
        ("a_word_of_a_newer_openssl", "TLSv1.2", rsa, true),
        ("SUITEB128", "TLSv1.2", rsa, true),
        ("TLS_AES_256_GCM_SHA384:!aNULL", "", None, false),
        ("TLS_AES_256_GCM_SHA384:HIGH", "TLSv1.2", None, true),
    ] {
        let found = named(&[(CIPHERS, ciphers), (MAX_VERSION, newest)], &server(key));
        assert_eq!(found.is_empty(), is_fine, "{ciphers} {newest} {key:?}");
    }
}

#[test]
fn suites_of_tls_1_3_have_to_have_a_common_one() {
    for (ciphers, newest, is_fine) in [
        ("TLS_AES_128_CCM_SHA256", "", false),
        ("TLS_AES_128_CCM_SHA256", "TLSv1.2", true),
        ("TLS_AES_128_CCM_SHA256:TLS_AES_128_GCM_SHA256", "", true),
    ] {
        let conf = [(TLS13_CIPHERS, ciphers), (MAX_VERSION, newest)];
        assert_eq!(
            named(&conf, &postgresql(18)).is_empty(),
            is_fine,
            "{ciphers} {newest}"
        );
    }
}

/// The suites and groups of this module are those of the library that pgrekey connects with.
#[test]
fn the_common_suites_and_groups_are_those_of_pgrekeys_own_connections() {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let names: BTreeSet<String> = provider
        .cipher_suites
        .iter()
        .map(|suite| format!("{:?}", suite.suite()).replace("TLS13_", "TLS_"))
        .collect();
    let registered = Suite::ALL.map(|suite| suite.registered);
    let expected: BTreeSet<String> = [&registered[..], &COMMON_TLS13]
        .concat()
        .into_iter()
        .map(str::to_owned)
        .collect();
    assert_eq!(names, expected);
    let groups: BTreeSet<String> = provider
        .kx_groups
        .iter()
        .map(|group| format!("{:?}", group.name()))
        .collect();
    let expected = ["X25519", "X25519MLKEM768", "secp256r1", "secp384r1"];
    assert_eq!(groups, expected.map(str::to_owned).into());
}
