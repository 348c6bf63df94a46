use super::*;

const DAY: Duration = Duration::from_hours(24);

fn day(day: u32) -> Timestamp {
    "2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap() + DAY * day
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

fn own() -> Vec<String> {
    names(&["pgrekey.pgrekey.svc", "192.0.2.1"])
}

fn keys() -> FreshKeys {
    FreshKeys {
        ca: KeyPair::generate().unwrap(),
        leaf: KeyPair::generate().unwrap(),
    }
}

/// Performs one rotation.
fn step(stored: &StoredCa, names: &[String], now: Timestamp) -> StoredCa {
    CaState::evaluate(stored, names, Publication::Complete, now)
        .renewed(&keys(), names, now)
        .unwrap()
}

fn due(stored: &StoredCa, now: Timestamp) -> Option<Rotation> {
    CaState::evaluate(stored, &own(), Publication::Complete, now)
        .due()
        .cloned()
}

/// The stored CA after a start without one, on day 0.
fn fresh() -> StoredCa {
    step(&StoredCa::default(), &own(), day(0))
}

/// The number of trusted CAs.
fn trusted(stored: &StoredCa) -> usize {
    parse::certificates_of(&stored.ca_crt).unwrap().len()
}

#[test]
fn nothing_stored_becomes_a_ca_and_a_leaf_that_can_be_served_at_once() {
    assert_eq!(
        due(&StoredCa::default(), day(0)),
        Some(Rotation::Ca(RotationCause::Missing))
    );
    let stored = fresh();
    for publication in [Publication::Pending, Publication::Complete] {
        let state = CaState::evaluate(&stored, &own(), publication, day(0));
        assert_eq!(
            (state.due(), state.trust_pem()),
            (None, stored.ca_crt.clone())
        );
        let pair = state.pair().unwrap();
        assert_eq!(pair.covers(own().iter().map(String::as_str)), Ok(()));
        assert_eq!(
            (pair.not_before(), pair.not_after()),
            (day(0) - BACKDATE, day(90))
        );
    }
}

#[test]
fn the_leaf_is_renewed_when_two_thirds_of_its_life_are_over() {
    let stored = fresh();
    assert_eq!(due(&stored, day(59)), None);
    assert_eq!(
        due(&stored, day(60)),
        Some(Rotation::Leaf(RotationCause::Renewal))
    );
    let renewed = step(&stored, &own(), day(60));
    assert_eq!(renewed.ca_crt, stored.ca_crt, "the CA stays");
    assert_eq!(due(&renewed, day(60)), None);
    assert_eq!(
        CaState::evaluate(&renewed, &own(), Publication::Complete, day(60))
            .pair()
            .unwrap()
            .not_after(),
        day(150)
    );
    let late = CaState::evaluate(&stored, &own(), Publication::Complete, day(91));
    assert!(late.pair().is_none());
    assert!(
        late.due()
            .unwrap()
            .to_string()
            .contains("the certificate expired at"),
        "{late:?}"
    );
}

#[test]
fn a_ca_changes_without_a_moment_at_which_the_served_leaf_is_not_trusted() {
    let renewal = 2 * 365;
    let stored = step(&fresh(), &own(), day(renewal - 1));
    assert_eq!(due(&stored, day(renewal - 1)), None);
    assert_eq!(
        due(&stored, day(renewal)),
        Some(Rotation::Ca(RotationCause::Renewal))
    );
    let both = step(&stored, &own(), day(renewal));
    assert_eq!((trusted(&both), &both.tls_crt), (2, &stored.tls_crt));
    // While an API server may not know the new CA, the leaf of the former one stays.
    let spread = day(renewal) + SPREAD;
    for (publication, now) in [
        (Publication::Complete, day(renewal)),
        (Publication::Pending, spread),
        (Publication::Pending, day(renewal + 30)),
    ] {
        let state = CaState::evaluate(&both, &own(), publication, now);
        assert_eq!(
            (state.due(), state.trust_pem()),
            (None, both.ca_crt.clone()),
            "{publication:?}, {now}"
        );
        assert!(state.pair().is_some());
    }
    assert_eq!(
        due(&both, spread),
        Some(Rotation::Leaf(RotationCause::FormerCa))
    );
    let migrated = step(&both, &own(), spread);
    assert_eq!(
        (trusted(&migrated), due(&migrated, spread)),
        (2, None),
        "the former leaf may still be served"
    );
    assert_eq!(due(&migrated, spread + SPREAD), Some(Rotation::Trust));
    let settled = step(&migrated, &own(), spread + SPREAD);
    assert_eq!(
        (trusted(&settled), due(&settled, spread + SPREAD)),
        (1, None)
    );
    assert!(both.ca_crt.starts_with(&settled.ca_crt));
    let state = CaState::evaluate(&settled, &own(), Publication::Complete, spread + SPREAD);
    assert_eq!(state.pair().unwrap().not_before() + BACKDATE, spread);
}

#[test]
fn an_expired_leaf_does_not_wait_for_the_publication_of_its_new_ca() {
    let stored = step(&fresh(), &own(), day(700));
    let both = step(&stored, &own(), day(770));
    let state = CaState::evaluate(&both, &own(), Publication::Pending, day(795));
    assert!(
        matches!(
            state.due(),
            Some(Rotation::Leaf(RotationCause::Unusable(_)))
        ),
        "{state:?}"
    );
}

#[test]
fn an_expired_ca_is_replaced_with_its_leaf_and_not_trusted_any_more() {
    let stored = fresh();
    let state = CaState::evaluate(&stored, &own(), Publication::Complete, day(3 * 365));
    assert_eq!((state.trust_pem(), state.pair().is_none()), (vec![], true));
    assert!(
        state
            .due()
            .unwrap()
            .to_string()
            .contains("the certificate expired at 2028-12-31"),
        "{state:?}"
    );
    let replaced = step(&stored, &own(), day(3 * 365));
    assert_eq!(
        (trusted(&replaced), due(&replaced, day(3 * 365))),
        (1, None)
    );
}

#[test]
fn no_leaf_outlives_its_ca() {
    let mut stored = fresh();
    // The CA expired while no replica ran.
    stored.tls_crt.clear();
    stored.tls_key.clear();
    let late = day(3 * 365) - DAY;
    let state = CaState {
        due: Some(Rotation::Leaf(RotationCause::Missing)),
        ..CaState::evaluate(&stored, &own(), Publication::Complete, late)
    };
    let issued = state.renewed(&keys(), &own(), late).unwrap();
    let pair = CertificateAndKey::parse(&issued.tls_crt, &issued.tls_key).unwrap();
    assert_eq!(pair.not_after(), day(3 * 365));
}

#[test]
fn an_unreadable_secret_is_replaced_and_reported() {
    let (good, other) = (fresh(), fresh());
    let cases: [(&str, StoredCa, &str); 8] = [
        (
            "no CA",
            StoredCa {
                ca_crt: vec![],
                ..good.clone()
            },
            "there is no certificate in `ca.crt`",
        ),
        (
            "no PEM",
            StoredCa {
                ca_crt: b"hello".to_vec(),
                ..good.clone()
            },
            "there is no certificate in `ca.crt`",
        ),
        (
            "half a CA",
            StoredCa {
                ca_crt: good.ca_crt[..200].to_vec(),
                ..good.clone()
            },
            "is the file complete?",
        ),
        (
            "a leaf for a CA",
            StoredCa {
                ca_crt: good.tls_crt.clone(),
                ..good.clone()
            },
            "it is no CA",
        ),
        (
            "no CA key",
            StoredCa {
                ca_key: vec![],
                ..good.clone()
            },
            "`ca.key` cannot be read",
        ),
        (
            "another CA key",
            StoredCa {
                ca_key: other.ca_key.clone(),
                ..good.clone()
            },
            "of none of the CAs",
        ),
        (
            "half a leaf",
            StoredCa {
                tls_crt: good.tls_crt[..200].to_vec(),
                ..good.clone()
            },
            "is the file complete?",
        ),
        (
            "another leaf",
            StoredCa {
                tls_crt: other.tls_crt,
                tls_key: other.tls_key,
                ..good.clone()
            },
            "not trusted",
        ),
    ];
    for (what, stored, says) in cases {
        let state = CaState::evaluate(&stored, &own(), Publication::Complete, day(1));
        let reason = state.due().unwrap().to_string();
        assert!(reason.contains(says), "{what}: {reason}");
        assert!(!reason.contains("PRIVATE"), "{what}: {reason}");
        let mended = step(&stored, &own(), day(1));
        let state = CaState::evaluate(&mended, &own(), Publication::Pending, day(1));
        assert_eq!(
            (state.due(), state.pair().is_some()),
            (None, true),
            "{what}"
        );
    }
}

#[test]
fn a_lost_key_of_the_ca_changes_the_ca_as_its_age_does() {
    let stored = StoredCa {
        ca_key: vec![],
        ..fresh()
    };
    let both = step(&stored, &own(), day(1));
    assert_eq!((trusted(&both), &both.tls_crt), (2, &stored.tls_crt));
    assert_eq!(
        due(&both, day(1) + SPREAD),
        Some(Rotation::Leaf(RotationCause::FormerCa))
    );
}

#[test]
fn a_leaf_gets_new_names_and_keeps_the_old_ones_until_it_is_renewed() {
    let stored = fresh();
    let more = names(&["pgrekey.pgrekey.svc", "webhook.example"]);
    let state = CaState::evaluate(&stored, &more, Publication::Complete, day(1));
    assert_eq!(
        state.due(),
        Some(&Rotation::Leaf(RotationCause::NamesMissing(names(&[
            "webhook.example"
        ]))))
    );
    let renamed = step(&stored, &more, day(1));
    assert_eq!(
        due(&renamed, day(1)),
        None,
        "a replica that wants other names is content too"
    );
    let pair = |stored: &StoredCa, now| {
        let mut names: Vec<String> = CaState::evaluate(stored, &more, Publication::Complete, now)
            .pair()
            .unwrap()
            .names()
            .collect();
        names.sort();
        names
    };
    assert_eq!(
        pair(&renamed, day(1)),
        names(&["192.0.2.1", "pgrekey.pgrekey.svc", "webhook.example"])
    );
    assert_eq!(
        pair(&step(&renamed, &more, day(70)), day(70)),
        names(&["pgrekey.pgrekey.svc", "webhook.example"])
    );
}

#[test]
fn a_foreign_ca_leaves_the_trusted_cas_once_nothing_changes() {
    let (good, other) = (fresh(), fresh());
    let stored = StoredCa {
        ca_crt: [other.ca_crt.as_slice(), &good.ca_crt, b"junk"].concat(),
        ..good.clone()
    };
    assert_eq!(due(&stored, day(1)), Some(Rotation::Trust));
    assert_eq!(step(&stored, &own(), day(1)), good);
}

#[test]
fn no_print_shows_a_key() {
    let stored = fresh();
    let state = CaState::evaluate(&stored, &own(), Publication::Complete, day(0));
    let printed = format!("{stored:?} {state:?} {:?}", keys());
    assert!(!printed.contains("PRIVATE"), "{printed}");
    let body = String::from_utf8(stored.ca_key)
        .unwrap()
        .lines()
        .nth(1)
        .unwrap()[..20]
        .to_owned();
    assert!(!printed.contains(&body), "{printed}");
}
