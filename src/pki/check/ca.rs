//! The CAs above a leaf, as OpenSSL and webpki see them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use x509_parser::extensions::ExtendedKeyUsage;
use x509_parser::x509::X509Version;

use crate::api::names::Alias;
use crate::pki::CaId;
use crate::pki::certificate::common_name;
use crate::pki::chain::{CertificationPath, is_confusable};
use crate::pki::defect::{CaFault, Defect};
use crate::pki::key_pair::CertificateAndKey;
use crate::pki::parse::{certificates_of, parse_certificate, timestamp};

/// A CA that ends before a leaf below it: from then on the leaf is worth nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EarlyCa {
    /// Its common name, as its issuer wrote it.
    pub name: String,
    /// Its certificate.
    pub id: CaId,
    /// When it ends.
    pub ends: Timestamp,
    /// When the leaf begins.
    pub leaf_begins: Timestamp,
}

impl EarlyCa {
    /// When the leaf should be issued anew: after three quarters of the time in which it can be
    /// used. cert-manager does not look at the CA, and issues a leaf anew after two thirds of its
    /// own life: it goes first if the CA ends little earlier than the leaf.
    #[must_use]
    pub fn renew_at(&self) -> Timestamp {
        let usable = self.ends.as_second() - self.leaf_begins.as_second();
        let at = self.leaf_begins.as_second() + usable / 4 * 3;
        Timestamp::from_second(at).unwrap_or(self.ends)
    }
}

/// Checks a CA with this number of CAs below it. OpenSSL insists on all of this, at the root too, and
/// webpki asks nothing of a root. Roots of X.509 version 1 have no extensions, and both take them.
pub(super) fn check_ca(
    alias: Alias,
    der: &CertificateDer<'static>,
    below: usize,
    now: Timestamp,
) -> Result<(), Defect> {
    let ca = parse_certificate(der, 1).map_err(Defect::Ca)?;
    let time = |time| timestamp(time).map_err(Defect::Ca);
    let (from, until) = (
        time(ca.validity().not_before)?,
        time(ca.validity().not_after)?,
    );
    let constraints = ca.basic_constraints().ok().flatten();
    let constraints = constraints.map(|constraints| constraints.value);
    let longest = constraints.and_then(|constraints| constraints.path_len_constraint);
    let has_no_extensions = ca.version() == X509Version::V1;
    let usage = ca.key_usage().ok().flatten();
    let purposes = ca.extended_key_usage().ok().flatten();
    let serves = |purposes: &ExtendedKeyUsage<'_>| match alias {
        Alias::Client => purposes.client_auth,
        Alias::Server | Alias::MetricsExporter => purposes.server_auth,
    };
    let fault = if !has_no_extensions && !constraints.is_some_and(|constraints| constraints.ca) {
        CaFault::NotCa
    } else if usage.is_some_and(|usage| !usage.value.key_cert_sign()) {
        CaFault::MayNotSign
    } else if longest.is_some_and(|longest| usize::try_from(longest).is_ok_and(|l| below > l)) {
        CaFault::PathTooLong
    } else if purposes.is_some_and(|purposes| !purposes.value.any && !serves(purposes.value)) {
        CaFault::OtherPurposes
    } else if now < from {
        CaFault::NotYetValid(from)
    } else if now >= until {
        CaFault::Expired(until)
    } else {
        return Ok(());
    };
    Err(Defect::BadCa {
        name: common_name(ca.subject().as_raw()),
        fault,
    })
}

/// Compares the root with those that are trusted already and those of the database's other
/// certificates: servers and clients will trust all of them together.
pub(super) fn check_confusable(
    pair: &CertificateAndKey,
    path: &CertificationPath,
    roots: &[CertificateDer<'static>],
    trusted: &BTreeMap<CaId, String>,
) -> Result<(), Defect> {
    let Some(top) = pair.chain().last() else {
        return Ok(());
    };
    let mut others = roots.iter().cloned().chain(certificates_in(trusted));
    match others.find(|other| is_confusable(top, &path.root, other)) {
        None => Ok(()),
        Some(other) => Err(Defect::ConfusableCa {
            name: parse_certificate(&other, 1)
                .map(|other| common_name(other.subject().as_raw()))
                .unwrap_or_default(),
        }),
    }
}

/// All certificates in these PEM texts.
pub(super) fn certificates_in(
    trusted: &BTreeMap<CaId, String>,
) -> impl Iterator<Item = CertificateDer<'static>> + '_ {
    trusted
        .values()
        .flat_map(|pem| certificates_of(pem.as_bytes()).unwrap_or_default())
}

/// This CA, if it ends before its leaf.
pub(super) fn early_ca(der: &CertificateDer<'static>, leaf: &CertificateAndKey) -> Option<EarlyCa> {
    let ca = parse_certificate(der, 1).ok()?;
    let ends = timestamp(ca.validity().not_after).ok()?;
    (ends < leaf.not_after()).then(|| EarlyCa {
        name: common_name(ca.subject().as_raw()),
        id: CaId::from_der(der),
        ends,
        leaf_begins: leaf.not_before(),
    })
}
