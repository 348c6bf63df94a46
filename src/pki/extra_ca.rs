//! CAs that the user offers because the issuer does not: annotation `pgrekey.dev/extra-ca`.
//!
//! # Guarantees
//! Of all that lies there, a self-signed CA is taken only if its key has signed a certificate that
//! the issuer gave, and nothing else is. An intermediate CA is never taken: whoever may edit the
//! object could put the issuer's public key below a root of his own, and that path would verify.
//! The CA's own signature must verify, which nobody else asks of a root: else he could write a
//! certificate around the issuer's public key, without the constraints and the end of the real one.
//!
//! # Assumptions
//! A leaf that is served already gets its root from what is trusted already, so that an edit of the
//! object changes nothing: it counts for leaves that an operation or a renewal has brought.

use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use rustls::pki_types::CertificateDer;

use crate::api::cert_manager::IssuerType;
use crate::api::extra_ca::ExtraCaSource;
use crate::api::postgres::ExtraCaStatus;
use crate::pki::CaId;
use crate::pki::certificate::common_name;
use crate::pki::chain::{is_proven_root, is_signed_by};
use crate::pki::parse::{certificates_of, parse_certificate};

/// Certificates in one object that are looked at. A bundle of all public CAs holds about 150.
const MAX_OFFERED: usize = 512;

/// The CAs that the user offers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum OfferedCas {
    /// The database names none.
    #[default]
    NotNamed,
    /// They lie there, and cannot be used.
    Unusable {
        /// Where they lie.
        source: ExtraCaSource,
        /// Why they cannot be used.
        fault: ExtraCaFault,
    },
    /// They lie there.
    Found {
        /// Where they lie.
        source: ExtraCaSource,
        /// All certificates there. Every problem that names the place carries them along.
        certificates: Arc<[CertificateDer<'static>]>,
    },
}

/// Why the CAs that the user offers cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExtraCaFault {
    /// There is no such object.
    #[error("does not exist")]
    NoObject,
    /// The object lacks the key, or it is empty.
    #[error("is missing or empty")]
    NoKey,
    /// The content is no PEM text of certificates. What it is stays unsaid: a Secret may hold it.
    #[error("holds no certificates as PEM")]
    NotPem,
    /// More certificates than any bundle has.
    #[error("holds more than {MAX_OFFERED} certificates")]
    TooMany,
}

/// A CA at the top of a chain that the issuer did not give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtraCa {
    /// Its certificate.
    pub id: CaId,
    /// Its common name.
    pub name: String,
}

impl OfferedCas {
    /// The CAs in a ConfigMap; `None` if there is none of this name.
    #[must_use]
    pub fn of_config_map(source: &ExtraCaSource, object: Option<&ConfigMap>) -> Self {
        let key = |object: &ConfigMap| Some(object.data.as_ref()?.get(&source.key)?.clone());
        let content = object.ok_or(ExtraCaFault::NoObject);
        let content = content.map(|object| key(object).unwrap_or_default());
        Self::parse(source, content.map(String::into_bytes))
    }

    /// The CAs in a Secret; `None` if there is none of this name.
    #[must_use]
    pub fn of_secret(source: &ExtraCaSource, object: Option<&Secret>) -> Self {
        let key = |object: &Secret| Some(object.data.as_ref()?.get(&source.key)?.0.clone());
        let content = object.ok_or(ExtraCaFault::NoObject);
        Self::parse(
            source,
            content.map(|object| key(object).unwrap_or_default()),
        )
    }

    /// `content` is empty without the key.
    fn parse(source: &ExtraCaSource, content: Result<Vec<u8>, ExtraCaFault>) -> Self {
        let certificates = content.and_then(|content| {
            if content.is_empty() {
                return Err(ExtraCaFault::NoKey);
            }
            match certificates_of(&content) {
                Ok(found) if found.len() > MAX_OFFERED => Err(ExtraCaFault::TooMany),
                Ok(found) if !found.is_empty() => Ok(found.into()),
                Ok(_) | Err(_) => Err(ExtraCaFault::NotPem),
            }
        });
        let source = source.clone();
        match certificates {
            Ok(certificates) => Self::Found {
                source,
                certificates,
            },
            Err(fault) => Self::Unusable { source, fault },
        }
    }

    /// All certificates that are there.
    #[must_use]
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        match self {
            Self::Found { certificates, .. } => certificates,
            Self::NotNamed | Self::Unusable { .. } => &[],
        }
    }

    /// The self-signed CAs, of which any may be taken.
    pub fn roots(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        let certificates = self.certificates().iter();
        certificates.filter(|der| is_proven_root(der))
    }
}

/// The self-signed CAs among these whose key has signed one of the certificates that the issuer
/// gave.
pub(super) fn roots_above<'a>(
    given: &[CertificateDer<'static>],
    candidates: impl IntoIterator<Item = &'a CertificateDer<'static>>,
) -> Vec<CertificateDer<'static>> {
    let has_signed = |root: &CertificateDer<'static>| {
        given
            .iter()
            .any(|below| below != root && is_signed_by(below, root))
    };
    candidates
        .into_iter()
        .filter(|root| has_signed(root) && is_proven_root(root))
        .cloned()
        .collect()
}

impl ExtraCa {
    pub(super) fn from_der(der: &CertificateDer<'_>) -> Self {
        Self {
            id: CaId::from_der(der),
            name: parse_certificate(der, 1)
                .map(|ca| common_name(ca.subject().as_raw()))
                .unwrap_or_default(),
        }
    }
}

impl From<&ExtraCa> for ExtraCaStatus {
    fn from(ExtraCa { id, name }: &ExtraCa) -> Self {
        Self {
            name: name.clone(),
            fingerprint: id.to_string(),
        }
    }
}

/// Why a chain has no root, as far as the remedy depends on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MissingRoot {
    /// The type of the issuer.
    pub issuer: IssuerType,
    /// What the user offers.
    pub offered_cas: OfferedCas,
}

impl fmt::Display for MissingRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.offered_cas {
            OfferedCas::NotNamed => match &self.issuer {
                IssuerType::Ca { secret_name } => {
                    write!(
                        f,
                        "give Secret {secret_name} of the issuer the root as ca.crt"
                    )
                }
                IssuerType::Vault => f.write_str(
                    "give the Vault mount the chain up to the root (set-signed with all of it), or \
                     name the root with annotation pgrekey.dev/extra-ca",
                ),
                IssuerType::SelfSigned
                | IssuerType::Acme
                | IssuerType::Venafi
                | IssuerType::Other => f.write_str(
                    "let the issuer give its root, or name it with annotation pgrekey.dev/extra-ca",
                ),
            },
            OfferedCas::Unusable { source, fault } => write!(
                f,
                "{source} (annotation pgrekey.dev/extra-ca) {fault}: put the root there, as PEM"
            ),
            OfferedCas::Found { source, .. } => write!(
                f,
                "no self-signed CA in {source} (annotation pgrekey.dev/extra-ca) has signed it: put \
                 the root there, as PEM; an intermediate CA has to come from the issuer"
            ),
        }
    }
}
