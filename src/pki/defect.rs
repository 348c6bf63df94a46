//! Why an issued certificate must not be served, and what to do about it.

use jiff::Timestamp;

use crate::pki::extra_ca::MissingRoot;
use crate::pki::parse::KeyPairProblem;

/// A defect of an issued certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Defect {
    /// There is no Secret, or it is empty. cert-manager is still issuing, or gives the reason in
    /// the Certificate.
    #[error("has not been issued yet: the Certificate's conditions say why if this lasts")]
    NotIssued,
    /// Chain and key do not belong together, or the leaf is not good.
    #[error(transparent)]
    Pair(KeyPairProblem),
    /// The issuer gives no CA certificate.
    #[error(
        "the Secret has no ca.crt, and tls.crt holds no self-signed CA, so no client could verify the certificate: {0}"
    )]
    NoCa(MissingRoot),
    /// More certificates than any chain needs.
    #[error(
        "tls.crt and ca.crt hold {found} certificates, and pgrekey looks at {most} at most: leave only those of its chain"
    )]
    TooManyCertificates {
        /// Certificates in both.
        found: usize,
        /// The bound.
        most: usize,
    },
    /// `ca.crt` cannot be parsed.
    #[error("ca.crt cannot be used: {0}")]
    Ca(KeyPairProblem),
    /// The chain does not end at a self-signed CA.
    #[error(
        "its chain does not lead to a self-signed CA in ca.crt or tls.crt, which libpq insists on: {0}"
    )]
    NoRoot(MissingRoot),
    /// A CA above the leaf cannot be one, or is not valid now.
    #[error("CA {name:?} above it {fault}: {}", .fault.remedy())]
    BadCa {
        /// Common name of the CA.
        name: String,
        /// What is wrong.
        fault: CaFault,
    },
    /// OpenSSL could take another trusted CA for the one that signed.
    #[error(
        "its CA {name:?} has the name of another trusted CA, and no key identifiers tell them apart, so that OpenSSL may take the wrong one: give the CA another name, or issue it with subjectKeyIdentifier"
    )]
    ConfusableCa {
        /// Common name of both CAs.
        name: String,
    },
    /// libpq and the server cannot compute channel binding for SCRAM.
    #[error(
        "its CA signs with Ed25519, for which libpq knows no channel binding, so that no login with a password would work: use a CA with an RSA or ECDSA key, or change clientAuthMode to cert first"
    )]
    NoChannelBinding,
    /// `cert` login compares the common name with the user.
    #[error(
        "its common name is \"{found}\" and must be the superuser, \"{wanted}\": the issuer must keep the common name"
    )]
    CommonName {
        /// The common name of the leaf.
        found: String,
        /// The required common name.
        wanted: String,
    },
    /// A server would refuse the leaf as a client certificate.
    #[error(
        "a server would not take it from a client ({why}): issue it with the usage `client auth`"
    )]
    NotForClients {
        /// The reason that the verifier gave.
        why: String,
    },
}

/// What is wrong with a CA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CaFault {
    /// It lacks `CA:TRUE`, so that no client takes what it signs.
    #[error("is no CA (basicConstraints lack CA:TRUE)")]
    NotCa,
    /// Its key usages lack `keyCertSign`.
    #[error("may not sign certificates (keyUsage lacks keyCertSign)")]
    MayNotSign,
    /// Its path length constraint allows fewer CAs below it.
    #[error("allows fewer CAs below it than there are (pathLenConstraint)")]
    PathTooLong,
    /// Its extended key usages exclude the certificate's.
    #[error("may not sign certificates of this purpose (extendedKeyUsage)")]
    OtherPurposes,
    /// Its validity has not begun.
    #[error("is not valid before {0}")]
    NotYetValid(Timestamp),
    /// It has ended.
    #[error("ended at {0}")]
    Expired(Timestamp),
}

impl CaFault {
    const fn remedy(self) -> &'static str {
        match self {
            Self::NotCa => "issue it anew as a CA (cert-manager: isCA: true)",
            Self::MayNotSign => "issue it anew with the usage `cert sign`",
            Self::PathTooLong => {
                "issue it anew without the constraint, or let the issuer sign with a CA nearer to it"
            }
            Self::OtherPurposes => "issue it anew without extended key usages",
            Self::NotYetValid(_) => "issue it anew, or set the clock",
            Self::Expired(_) => "renew the CA, then the certificates below it",
        }
    }
}
