//! The CA that pgrekey makes for its own webhooks: what of it is good, and what must be made anew.
//!
//! # Expected flow
//! [`CaState::evaluate`] looks at what is stored and says what callers should trust, which pair is
//! served, and what is [`Rotation`]. Whoever has fresh keys makes that ([`CaState::renewed`]),
//! stores it if nobody was faster, publishes what is to be trusted, and looks again.
//!
//! A CA changes in four steps, each of them stored before the next one begins:
//! 1. there is a new CA, and both are to be trusted; the leaf is still the former one's;
//! 2. both are published, and [`SPREAD`] has passed;
//! 3. the new CA issues the leaf;
//! 4. after another [`SPREAD`] the former CA is forgotten.
//!
//! # Guarantees
//! A leaf that can be served is replaced only by one whose CA is published. What cannot be read is
//! replaced, and the reason says what was wrong. No private key is in an error, a reason or a
//! `Debug` print.
//!
//! # Assumptions
//! The clocks of those who look differ by less than [`BACKDATE`].

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::pki::key_pair;
use crate::pki::key_pair::{CertificateAndKey, KeyPairProblem};

/// Life of the CA. Nobody has to trust it by hand, so it may change; it changes seldom, because a
/// change takes two writes of everything.
const CA_LIFE: Duration = Duration::from_hours(3 * 365 * 24);

/// Life of the leaf: short enough that a renewal is nothing special, long enough that a month
/// without pgrekey is survived.
const LEAF_LIFE: Duration = Duration::from_hours(90 * 24);

/// Certificates are valid from so long before they are made: the clock of whoever checks them may
/// be late.
pub const BACKDATE: Duration = Duration::from_mins(5);

/// How long what is published takes, at most, to reach every API server, and what is stored to
/// reach every replica. Both watch, so it takes about a second.
pub const SPREAD: Duration = Duration::from_mins(5);

/// The most CAs that are trusted at a time, however often they changed.
const MOST_CAS: usize = 4;

/// What is stored: certificates and keys as PEM. Empty where there is nothing.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct StoredCa {
    /// The CAs to trust; the one that issues comes first.
    pub ca_crt: Vec<u8>,
    /// The private key of the CA that issues.
    pub ca_key: Vec<u8>,
    /// The leaf.
    pub tls_crt: Vec<u8>,
    /// The private key of the leaf.
    pub tls_key: Vec<u8>,
}

impl fmt::Debug for StoredCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stored").finish_non_exhaustive()
    }
}

/// Fresh keys, for whatever needs one. Making them takes randomness, so it is done elsewhere.
#[derive(Debug)]
pub struct FreshKeys {
    /// For a new CA.
    pub ca: KeyPair,
    /// For a new leaf.
    pub leaf: KeyPair,
}

/// What must be made, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// A new CA; and a leaf of it, if there is none that can be served.
    Ca(RotationCause),
    /// A new leaf.
    Leaf(RotationCause),
    /// A list of CAs without those that have had their day.
    Trust,
}

/// Why something must be made anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RotationCause {
    /// There is none.
    Missing,
    /// What there is cannot be used.
    Unusable(String),
    /// Two thirds of its life are over.
    Renewal,
    /// It lacks these names.
    NamesMissing(Vec<String>),
    /// Another CA issues now.
    FormerCa,
}

impl fmt::Display for Rotation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ca(why) => write!(f, "a new CA: {why}"),
            Self::Leaf(why) => write!(f, "a new certificate: {why}"),
            Self::Trust => write!(f, "CAs that are not needed any more are forgotten"),
        }
    }
}

impl fmt::Display for RotationCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => write!(f, "there is none"),
            Self::Unusable(problem) => write!(f, "the stored one cannot be used: {problem}"),
            Self::Renewal => write!(f, "two thirds of the life of the stored one are over"),
            Self::NamesMissing(names) => {
                write!(f, "the stored one lacks the names {}", names.join(", "))
            }
            Self::FormerCa => write!(f, "the stored one is of the former CA"),
        }
    }
}

/// A CA that can be trusted now.
#[derive(Clone)]
struct IssuingCa {
    pem: String,
    der: CertificateDer<'static>,
    made: Timestamp,
    renew: Timestamp,
    not_after: Timestamp,
    public_key: Vec<u8>,
}

/// What is stored, as it looks at one moment.
pub struct CaState {
    stored: StoredCa,
    issuing: Option<IssuingCa>,
    /// Every CA to trust; the issuing one comes first.
    trust: Vec<IssuingCa>,
    pair: Option<Arc<CertificateAndKey>>,
    due: Option<Rotation>,
}

impl fmt::Debug for CaState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            stored: _,
            issuing: _,
            trust,
            pair,
            due,
        } = self;
        f.debug_struct("Outlook")
            .field("cas", &trust.len())
            .field("pair", pair)
            .field("due", due)
            .finish()
    }
}

impl CaState {
    /// Looks at what is stored. The leaf must have these `names`; `published` says that what is
    /// stored in `ca_crt` is what callers are told to trust.
    #[must_use]
    pub fn evaluate(stored: &StoredCa, names: &[String], published: bool, now: Timestamp) -> Self {
        let (trust, mut problems) = cas(&stored.ca_crt, now);
        let issuing = issuing(&trust, &stored.ca_key)
            .map_err(|problem| problems.push(problem))
            .ok();
        let trusted: Vec<_> = trust.iter().map(|ca| ca.der.clone()).collect();
        let pair = usable(stored, &trusted, now);
        let due_ca = match &issuing {
            None if stored.ca_crt.is_empty() && stored.ca_key.is_empty() => {
                Some(RotationCause::Missing)
            }
            None => Some(RotationCause::Unusable(problems.join(", "))),
            Some(ca) => (ca.renew <= now).then_some(RotationCause::Renewal),
        };
        let due = due_ca.map(Rotation::Ca).or_else(|| {
            let ca = issuing.as_ref()?;
            let why = due_leaf(pair.as_ref(), ca, names, now)?;
            let ca_is_known = published && ca.made + SPREAD <= now;
            let ca_is_used = pair.as_ref().is_ok_and(|pair| is_of(pair, ca, now));
            (pair.is_err() || ca_is_used || ca_is_known).then_some(Rotation::Leaf(why))
        });
        let mut outlook = Self {
            stored: stored.clone(),
            issuing,
            trust,
            pair: pair.ok().map(Arc::new),
            due,
        };
        outlook.forget(now);
        outlook
    }

    /// Drops the CAs that nobody needs any more from what is to be trusted.
    fn forget(&mut self, now: Timestamp) {
        let Some(ca) = self.issuing.clone() else {
            return;
        };
        let settled = self.pair.as_ref().is_some_and(|pair| {
            is_of(pair, &ca, now) && pair.not_before() + BACKDATE + SPREAD <= now
        });
        self.trust.retain(|other| other.der == ca.der || !settled);
        self.trust.sort_by_key(|other| other.der != ca.der);
        self.trust.truncate(MOST_CAS);
        if self.due.is_none() && self.trust_pem() != self.stored.ca_crt {
            self.due = Some(Rotation::Trust);
        }
    }

    /// What callers should trust, as PEM.
    #[must_use]
    pub fn trust_pem(&self) -> Vec<u8> {
        self.trust.iter().flat_map(|ca| ca.pem.bytes()).collect()
    }

    /// What can be served.
    #[must_use]
    pub fn pair(&self) -> Option<&Arc<CertificateAndKey>> {
        self.pair.as_ref()
    }

    /// What must be made now.
    #[must_use]
    pub fn due(&self) -> Option<&Rotation> {
        self.due.as_ref()
    }

    /// What to store so that nothing is due any more, at least for now.
    pub fn renewed(
        &self,
        keys: &FreshKeys,
        names: &[String],
        now: Timestamp,
    ) -> Result<StoredCa, rcgen::Error> {
        let mut stored = self.stored.clone();
        match (&self.due, &self.issuing) {
            (Some(Rotation::Ca(_)), _) => {
                let certificate = ca_params(now).self_signed(&keys.ca)?;
                let former = self
                    .trust
                    .iter()
                    .take(MOST_CAS - 1)
                    .map(|ca| ca.pem.as_str());
                stored.ca_crt = std::iter::once(certificate.pem().as_str())
                    .chain(former)
                    .collect::<String>()
                    .into();
                stored.ca_key = keys.ca.serialize_pem().into();
                if self.pair.is_none() {
                    let issuer = Issuer::from_ca_cert_der(certificate.der(), &keys.ca)?;
                    issue(
                        &mut stored,
                        &leaf_params(names, now, now + CA_LIFE)?,
                        &keys.leaf,
                        &issuer,
                    )?;
                }
            }
            (Some(Rotation::Leaf(why)), Some(ca)) => {
                let mut names = names.to_vec();
                // Two releases that run side by side may want different names: neither takes away
                // the other's.
                if let (RotationCause::NamesMissing(_), Some(pair)) = (why, &self.pair) {
                    names.extend(
                        pair.names()
                            .filter(|name| !names.contains(name))
                            .collect::<Vec<_>>(),
                    );
                }
                let key = KeyPair::from_pem(&String::from_utf8_lossy(&stored.ca_key))?;
                let issuer = Issuer::from_ca_cert_der(&ca.der, key)?;
                issue(
                    &mut stored,
                    &leaf_params(&names, now, ca.not_after)?,
                    &keys.leaf,
                    &issuer,
                )?;
                stored.ca_crt = self.trust_pem();
            }
            (Some(Rotation::Trust), _) => stored.ca_crt = self.trust_pem(),
            (Some(Rotation::Leaf(_)) | None, _) => {}
        }
        Ok(stored)
    }
}

/// Every CA that can be trusted now, and what is wrong with the rest.
fn cas(pem: &[u8], now: Timestamp) -> (Vec<IssuingCa>, Vec<String>) {
    let (mut cas, mut problems) = (Vec::<IssuingCa>::new(), vec![]);
    for text in sections(&String::from_utf8_lossy(pem)) {
        match ca(text, now) {
            Ok(ca) if cas.iter().all(|other| other.der != ca.der) => cas.push(ca),
            Ok(_) => {}
            Err(problem) => problems.push(problem.to_string()),
        }
    }
    if cas.is_empty() && problems.is_empty() {
        problems.push("there is no certificate in `ca.crt`".to_owned());
    }
    (cas, problems)
}

/// The certificates of a PEM text, each with its frame, so that a broken one spoils no other.
fn sections(text: &str) -> impl Iterator<Item = &str> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    text.match_indices(BEGIN).map(move |(start, _)| {
        let section = &text[start..];
        let next = section[BEGIN.len()..]
            .find(BEGIN)
            .map_or(section.len(), |next| BEGIN.len() + next);
        let section = &section[..next];
        section
            .find(END)
            .map_or(section, |end| &section[..end + END.len()])
    })
}

fn ca(text: &str, now: Timestamp) -> Result<IssuingCa, KeyPairProblem> {
    let der = CertificateDer::from_pem_slice(text.as_bytes()).map_err(|e| {
        KeyPairProblem::CertificatePem {
            position: 1,
            why: e.to_string(),
        }
    })?;
    let certificate = key_pair::parse_certificate(&der, 1)?;
    let validity = certificate.validity();
    let (not_before, not_after) = (
        key_pair::timestamp(validity.not_before)?,
        key_pair::timestamp(validity.not_after)?,
    );
    if now < not_before {
        return Err(KeyPairProblem::NotYetValid { from: not_before });
    }
    if not_after <= now {
        return Err(KeyPairProblem::Expired { at: not_after });
    }
    if !certificate.is_ca() {
        return Err(KeyPairProblem::CertificateContent {
            position: 1,
            why: "it is no CA".to_owned(),
        });
    }
    let public_key = certificate.public_key().raw.to_vec();
    let pem = format!("{text}\n");
    Ok(IssuingCa {
        pem,
        made: not_before + BACKDATE,
        renew: two_thirds(not_before, not_after),
        not_after,
        public_key,
        der,
    })
}

/// The CA that the key belongs to.
fn issuing(cas: &[IssuingCa], key: &[u8]) -> Result<IssuingCa, String> {
    let key = std::str::from_utf8(key)
        .ok()
        .and_then(|pem| KeyPair::from_pem(pem).ok());
    // What the reader says about a key is left out, because it may quote it.
    let key = key
        .ok_or("the private key in `ca.key` cannot be read")?
        .subject_public_key_info();
    let ca = cas.iter().find(|ca| ca.public_key == key);
    ca.cloned().ok_or_else(|| {
        "the private key in `ca.key` is of none of the CAs in `ca.crt` that are valid".to_owned()
    })
}

/// The stored leaf, if callers who trust these CAs would take it.
fn usable(
    stored: &StoredCa,
    trusted: &[CertificateDer<'_>],
    now: Timestamp,
) -> Result<CertificateAndKey, RotationCause> {
    if stored.tls_crt.is_empty() && stored.tls_key.is_empty() {
        return Err(RotationCause::Missing);
    }
    let pair = CertificateAndKey::parse(&stored.tls_crt, &stored.tls_key).and_then(|pair| {
        pair.valid_at(now)
            .and_then(|()| pair.trusted_by(trusted, now))
            .map(|()| pair)
    });
    pair.map_err(|problem| RotationCause::Unusable(problem.to_string()))
}

fn is_of(pair: &CertificateAndKey, ca: &IssuingCa, now: Timestamp) -> bool {
    pair.trusted_by(std::slice::from_ref(&ca.der), now).is_ok()
}

fn due_leaf(
    pair: Result<&CertificateAndKey, &RotationCause>,
    ca: &IssuingCa,
    names: &[String],
    now: Timestamp,
) -> Option<RotationCause> {
    let pair = match pair {
        Ok(pair) => pair,
        Err(why) => return Some(why.clone()),
    };
    if let Err(KeyPairProblem::NamesMissing { names }) =
        pair.covers(names.iter().map(String::as_str))
    {
        return Some(RotationCause::NamesMissing(names));
    }
    if two_thirds(pair.not_before(), pair.not_after()) <= now {
        return Some(RotationCause::Renewal);
    }
    (!is_of(pair, ca, now)).then_some(RotationCause::FormerCa)
}

fn two_thirds(from: Timestamp, until: Timestamp) -> Timestamp {
    from + until.duration_since(from) * 2 / 3
}

fn ca_params(now: Timestamp) -> CertificateParams {
    let mut params = CertificateParams::default();
    // The time tells a CA from the former one wherever names are listed.
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(
        DnType::CommonName,
        format!("pgrekey webhook CA of {}", now.strftime("%F")),
    );
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    lives(&mut params, now, now + CA_LIFE);
    params
}

fn leaf_params(
    names: &[String],
    now: Timestamp,
    ca_ends: Timestamp,
) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, "pgrekey webhook");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    lives(&mut params, now, ca_ends.min(now + LEAF_LIFE));
    Ok(params)
}

fn issue(
    stored: &mut StoredCa,
    params: &CertificateParams,
    key: &KeyPair,
    issuer: &Issuer<'_, impl rcgen::SigningKey>,
) -> Result<(), rcgen::Error> {
    stored.tls_crt = params.signed_by(key, issuer)?.pem().into();
    stored.tls_key = key.serialize_pem().into();
    Ok(())
}

/// Sets a certificate's life. rcgen's times are of a crate that we do not use otherwise, so they
/// are counted up from 1970.
fn lives(params: &mut CertificateParams, now: Timestamp, until: Timestamp) {
    let time = |at: Timestamp| {
        rcgen::date_time_ymd(1970, 1, 1)
            + Duration::from_secs(u64::try_from(at.as_second()).unwrap_or_default())
    };
    (params.not_before, params.not_after) = (time(now - BACKDATE), time(until));
}

#[cfg(test)]
mod tests {
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

    /// Makes what is due, once.
    fn step(stored: &StoredCa, names: &[String], now: Timestamp) -> StoredCa {
        CaState::evaluate(stored, names, true, now)
            .renewed(&keys(), names, now)
            .unwrap()
    }

    fn due(stored: &StoredCa, now: Timestamp) -> Option<Rotation> {
        CaState::evaluate(stored, &own(), true, now).due().cloned()
    }

    /// What is stored after a start with nothing, on day 0.
    fn fresh() -> StoredCa {
        step(&StoredCa::default(), &own(), day(0))
    }

    /// How many CAs are to be trusted.
    fn trusted(stored: &StoredCa) -> usize {
        key_pair::certificates_of(&stored.ca_crt).unwrap().len()
    }

    #[test]
    fn nothing_stored_becomes_a_ca_and_a_leaf_that_can_be_served_at_once() {
        assert_eq!(
            due(&StoredCa::default(), day(0)),
            Some(Rotation::Ca(RotationCause::Missing))
        );
        let stored = fresh();
        for published in [false, true] {
            let outlook = CaState::evaluate(&stored, &own(), published, day(0));
            assert_eq!(
                (outlook.due(), outlook.trust_pem()),
                (None, stored.ca_crt.clone())
            );
            let pair = outlook.pair().unwrap();
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
            CaState::evaluate(&renewed, &own(), true, day(60))
                .pair()
                .unwrap()
                .not_after(),
            day(150)
        );
        let late = CaState::evaluate(&stored, &own(), true, day(91));
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
        // As long as somebody may not know the new CA, the leaf of the former one stays.
        let spread = day(renewal) + SPREAD;
        for (published, now) in [
            (true, day(renewal)),
            (false, spread),
            (false, day(renewal + 30)),
        ] {
            let outlook = CaState::evaluate(&both, &own(), published, now);
            assert_eq!(
                (outlook.due(), outlook.trust_pem()),
                (None, both.ca_crt.clone()),
                "{published}, {now}"
            );
            assert!(outlook.pair().is_some());
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
        let outlook = CaState::evaluate(&settled, &own(), true, spread + SPREAD);
        assert_eq!(outlook.pair().unwrap().not_before() + BACKDATE, spread);
    }

    #[test]
    fn an_expired_leaf_does_not_wait_for_the_publication_of_its_new_ca() {
        let stored = step(&fresh(), &own(), day(700));
        let both = step(&stored, &own(), day(770));
        let outlook = CaState::evaluate(&both, &own(), false, day(795));
        assert!(
            matches!(
                outlook.due(),
                Some(Rotation::Leaf(RotationCause::Unusable(_)))
            ),
            "{outlook:?}"
        );
    }

    #[test]
    fn an_expired_ca_is_replaced_with_its_leaf_and_not_trusted_any_more() {
        let stored = fresh();
        let outlook = CaState::evaluate(&stored, &own(), true, day(3 * 365));
        assert_eq!(
            (outlook.trust_pem(), outlook.pair().is_none()),
            (vec![], true)
        );
        assert!(
            outlook
                .due()
                .unwrap()
                .to_string()
                .contains("the certificate expired at 2028-12-31"),
            "{outlook:?}"
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
        // Nobody was there to renew the CA in time.
        stored.tls_crt.clear();
        stored.tls_key.clear();
        let late = day(3 * 365) - DAY;
        let outlook = CaState {
            due: Some(Rotation::Leaf(RotationCause::Missing)),
            ..CaState::evaluate(&stored, &own(), true, late)
        };
        let issued = outlook.renewed(&keys(), &own(), late).unwrap();
        let pair = CertificateAndKey::parse(&issued.tls_crt, &issued.tls_key).unwrap();
        assert_eq!(pair.not_after(), day(3 * 365));
    }

    #[test]
    fn what_cannot_be_read_is_replaced_and_said() {
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
            let outlook = CaState::evaluate(&stored, &own(), true, day(1));
            let reason = outlook.due().unwrap().to_string();
            assert!(reason.contains(says), "{what}: {reason}");
            assert!(!reason.contains("PRIVATE"), "{what}: {reason}");
            let mended = step(&stored, &own(), day(1));
            let outlook = CaState::evaluate(&mended, &own(), false, day(1));
            assert_eq!(
                (outlook.due(), outlook.pair().is_some()),
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
        let outlook = CaState::evaluate(&stored, &more, true, day(1));
        assert_eq!(
            outlook.due(),
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
            let mut names: Vec<String> = CaState::evaluate(stored, &more, true, now)
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
    fn what_somebody_adds_to_the_trusted_cas_is_forgotten_once_nothing_changes() {
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
        let outlook = CaState::evaluate(&stored, &own(), true, day(0));
        let printed = format!("{stored:?} {outlook:?} {:?}", keys());
        assert!(!printed.contains("PRIVATE"), "{printed}");
        let body = String::from_utf8(stored.ca_key)
            .unwrap()
            .lines()
            .nth(1)
            .unwrap()[..20]
            .to_owned();
        assert!(!printed.contains(&body), "{printed}");
    }
}
