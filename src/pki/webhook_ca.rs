//! The CA that pgrekey makes for its own webhooks, and its rotation.
//!
//! # Expected flow
//! [`CaState::evaluate`] reads the stored CA and returns the CAs that callers should trust, the
//! pair to serve, and the next [`Rotation`]. A replica with fresh keys performs it
//! ([`CaState::renewed`]), stores the result if no other replica was faster, publishes the trusted
//! CAs, and evaluates again.
//!
//! A CA is replaced in four steps, each stored before the next one begins:
//! 1. the new CA exists, and both CAs are trusted; the former CA's leaf is still served;
//! 2. both CAs are published, and [`SPREAD`] passes;
//! 3. the new CA issues a leaf;
//! 4. after another [`SPREAD`] the former CA is dropped.
//!
//! # Guarantees
//! A usable leaf is replaced only by one whose CA is published. An unreadable part is replaced, and
//! the cause names the defect. Private keys appear in no error, no cause and no `Debug` print.
//!
//! # Assumptions
//! The clocks of all replicas and API servers differ by less than [`BACKDATE`].

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

use crate::pki::key_pair::{CertificateAndKey, KeyPairProblem};
use crate::pki::parse;

/// Life of the CA. No person has to trust it, so it may change. It changes seldom, because a change
/// writes everything twice.
const CA_LIFE: Duration = Duration::from_hours(3 * 365 * 24);

/// Life of the leaf: short, so that renewals are routine; long enough to survive a month without
/// pgrekey.
const LEAF_LIFE: Duration = Duration::from_hours(90 * 24);

/// How long before their creation certificates are valid: the clock of a verifier may be late.
pub const BACKDATE: Duration = Duration::from_mins(5);

/// How long a published CA takes at most to reach every API server, and a stored one to reach every
/// replica. Both watch, so it takes about a second.
pub const SPREAD: Duration = Duration::from_mins(5);

/// The most CAs that are trusted at a time, however often the CA changed.
const MOST_CAS: usize = 4;

/// The stored certificates and keys, PEM. Missing parts are empty.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct StoredCa {
    /// The trusted CAs, the issuing one first.
    pub ca_crt: Vec<u8>,
    /// The private key of the issuing CA.
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

/// Fresh keys for a rotation. Generating them needs randomness, so the caller does it.
#[derive(Debug)]
pub struct FreshKeys {
    /// For a new CA.
    pub ca: KeyPair,
    /// For a new leaf.
    pub leaf: KeyPair,
}

/// The next part to renew, and the cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// A new CA, and a leaf of it if there is no usable leaf.
    Ca(RotationCause),
    /// A new leaf.
    Leaf(RotationCause),
    /// A trust bundle without the CAs that are no longer needed.
    Trust,
}

/// Why a part is renewed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RotationCause {
    /// It is missing.
    Missing,
    /// It cannot be used.
    Unusable(String),
    /// Two thirds of its life have passed.
    Renewal,
    /// It lacks these names.
    NamesMissing(Vec<String>),
    /// Its CA is no longer the issuing one.
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

/// A valid CA.
#[derive(Clone)]
struct IssuingCa {
    pem: String,
    der: CertificateDer<'static>,
    made: Timestamp,
    renew: Timestamp,
    not_after: Timestamp,
    public_key: Vec<u8>,
}

/// Whether the trusted CAs of the stored CA are in every webhook configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Publication {
    /// Some configuration lacks them.
    Pending,
    /// Every configuration has them.
    Complete,
}

/// The state of the stored CA at one time.
pub struct CaState {
    stored: StoredCa,
    issuing: Option<IssuingCa>,
    /// The trusted CAs, the issuing one first.
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
    /// Evaluates the stored CA. The leaf must have these `names`.
    #[must_use]
    pub fn evaluate(
        stored: &StoredCa,
        names: &[String],
        publication: Publication,
        now: Timestamp,
    ) -> Self {
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
            let ca_is_known = publication == Publication::Complete && ca.made + SPREAD <= now;
            let ca_is_used = pair.as_ref().is_ok_and(|pair| is_of(pair, ca, now));
            (pair.is_err() || ca_is_used || ca_is_known).then_some(Rotation::Leaf(why))
        });
        let mut state = Self {
            stored: stored.clone(),
            issuing,
            trust,
            pair: pair.ok().map(Arc::new),
            due,
        };
        state.forget(now);
        state
    }

    /// Drops the CAs that are no longer needed from the trusted ones.
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

    /// The CAs that callers should trust, PEM.
    #[must_use]
    pub fn trust_pem(&self) -> Vec<u8> {
        self.trust.iter().flat_map(|ca| ca.pem.bytes()).collect()
    }

    /// The pair to serve, if it is usable.
    #[must_use]
    pub fn pair(&self) -> Option<&Arc<CertificateAndKey>> {
        self.pair.as_ref()
    }

    /// The rotation that is due.
    #[must_use]
    pub fn due(&self) -> Option<&Rotation> {
        self.due.as_ref()
    }

    /// Performs the rotation that is due. Returns the content to store.
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
                // Two releases that run side by side may require different names: each keeps those
                // of the other.
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

/// The valid CAs, and the defects of the others.
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

/// The PEM sections of a text, one by one, so that a broken one does not affect the others.
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
    let certificate = parse::parse_certificate(&der, 1)?;
    let validity = certificate.validity();
    let (not_before, not_after) = (
        parse::timestamp(validity.not_before)?,
        parse::timestamp(validity.not_after)?,
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

/// The CA of this key.
fn issuing(cas: &[IssuingCa], key: &[u8]) -> Result<IssuingCa, String> {
    let key = std::str::from_utf8(key)
        .ok()
        .and_then(|pem| KeyPair::from_pem(pem).ok());
    // The parser's reason is left out, because it may quote the key.
    let key = key
        .ok_or("the private key in `ca.key` cannot be read")?
        .subject_public_key_info();
    let ca = cas.iter().find(|ca| ca.public_key == key);
    ca.cloned().ok_or_else(|| {
        "the private key in `ca.key` is of none of the CAs in `ca.crt` that are valid".to_owned()
    })
}

/// The stored leaf, if callers that trust these CAs accept it.
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
    // The time in the name tells a CA from the former one.
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

/// Sets the validity of a certificate. rcgen's times are of the crate `time`, which we do not
/// depend on, so they are counted from 1970.
fn lives(params: &mut CertificateParams, now: Timestamp, until: Timestamp) {
    let time = |at: Timestamp| {
        rcgen::date_time_ymd(1970, 1, 1)
            + Duration::from_secs(u64::try_from(at.as_second()).unwrap_or_default())
    };
    (params.not_before, params.not_after) = (time(now - BACKDATE), time(until));
}

#[cfg(test)]
mod tests;
