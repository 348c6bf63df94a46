//! The parts of cert-manager's API (`cert-manager.io/v1`) that pgrekey reads or writes.
//!
//! cert-manager installs these CRDs; the types here carry no schema.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;
use std::collections::BTreeMap;

use crate::api::tls::{CERT_MANAGER_GROUP, X509Subject};

/// cert-manager's kinds that pgrekey uses.
pub const KINDS: [&str; 4] = [
    "Certificate",
    "CertificateRequest",
    "Issuer",
    "ClusterIssuer",
];

/// The remedy if one of their CRDs is missing.
pub const INSTALL: &str = "install cert-manager; pgrekey sees it by itself, within half a minute";

/// The sentence for users who ask for TLS while one of cert-manager's CRDs is missing.
#[must_use]
pub fn not_installed(kind: &str) -> String {
    format!(
        "cert-manager is not installed: kind {kind} of {CERT_MANAGER_GROUP} is unknown to this cluster"
    )
}

/// A certificate, which cert-manager issues into a Secret and renews.
#[skip_serializing_none]
#[derive(CustomResource, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "cert-manager.io",
    version = "v1",
    kind = "Certificate",
    namespaced,
    status = "CertificateStatus",
    schema = "disabled",
    derive = "PartialEq"
)]
pub struct CertManagerCertificateSpec {
    /// Secret that receives `tls.crt`, `tls.key` and `ca.crt`.
    pub secret_name: String,
    /// Labels and annotations of that Secret.
    pub secret_template: Option<SecretTemplate>,
    /// Common name of the subject.
    pub common_name: Option<String>,
    /// The rest of the subject.
    pub subject: Option<X509Subject>,
    /// Lifetime, as a Go duration.
    pub duration: Option<String>,
    /// How long before its end it is renewed, as a Go duration.
    pub renew_before: Option<String>,
    /// DNS names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns_names: Vec<String>,
    /// IP addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ip_addresses: Vec<String>,
    /// URIs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uris: Vec<String>,
    /// E-mail addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub email_addresses: Vec<String>,
    /// The issuer.
    pub issuer_ref: CertificateIssuerRef,
    /// Key usages and extended key usages, in cert-manager's words, such as `server auth`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub usages: Vec<String>,
    /// The private key.
    pub private_key: Option<CertificatePrivateKey>,
    /// Number of CertificateRequests to keep.
    pub revision_history_limit: Option<i32>,
}

/// Labels and annotations of the Secret of a certificate.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub struct SecretTemplate {
    /// Annotations to add.
    pub annotations: Option<BTreeMap<String, String>>,
    /// Labels to add.
    pub labels: Option<BTreeMap<String, String>>,
}

/// cert-manager's reference to an issuer. Its group field is `group`; KubeDB's is `apiGroup`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub struct CertificateIssuerRef {
    /// Name of the issuer.
    pub name: String,
    /// `Issuer` or `ClusterIssuer`, or a kind of another group; `Issuer` if left out.
    pub kind: Option<String>,
    /// API group; `cert-manager.io` if left out.
    pub group: Option<String>,
}

impl CertificateIssuerRef {
    /// The kind, with its default.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.kind.as_deref().unwrap_or("Issuer")
    }

    /// The group, with its default.
    #[must_use]
    pub fn group(&self) -> &str {
        self.group.as_deref().unwrap_or(CERT_MANAGER_GROUP)
    }

    /// Whether the issuer is one of cert-manager's own, which pgrekey can look at.
    #[must_use]
    pub fn is_cert_managers(&self) -> bool {
        self.group() == CERT_MANAGER_GROUP
    }
}

/// The private key of a certificate.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct CertificatePrivateKey {
    /// `RSA`, `ECDSA` or `Ed25519`.
    pub algorithm: Option<String>,
    /// `PKCS1` or `PKCS8`.
    pub encoding: Option<String>,
    /// Size in bits.
    pub size: Option<i32>,
    /// `Always` (a new key each time, the default since cert-manager 1.18) or `Never`.
    pub rotation_policy: Option<String>,
}

/// Status of a Certificate.
///
/// `Ready` alone proves little: right after a change of the spec it still describes the old
/// certificate. Compare `observedGeneration`, `revision` and the issued chain too.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CertificateStatus {
    /// `Ready`, and `Issuing` while an issuance runs.
    #[serde(default)]
    pub conditions: Vec<IssuanceCondition>,
    /// When the last issuance failed. Empty after a success.
    pub last_failure_time: Option<Time>,
    /// Failures in a row. They decide how long cert-manager waits before it tries again.
    pub failed_issuance_attempts: Option<i64>,
    /// Start of the issued certificate's life.
    pub not_before: Option<Time>,
    /// End of the issued certificate's life.
    pub not_after: Option<Time>,
    /// When cert-manager will renew it.
    pub renewal_time: Option<Time>,
    /// Counts issuances.
    pub revision: Option<i64>,
}

/// A condition of a cert-manager object.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct IssuanceCondition {
    /// Type of the condition.
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// When `status` last changed.
    pub last_transition_time: Option<Time>,
    /// Reason, as one word.
    pub reason: Option<String>,
    /// Reason, as a sentence.
    pub message: Option<String>,
    /// The `metadata.generation` that the condition is about.
    pub observed_generation: Option<i64>,
}

/// Spec of an Issuer: the kinds of issuer that pgrekey tells apart. Other kinds and settings are
/// tolerated.
#[skip_serializing_none]
#[derive(CustomResource, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "cert-manager.io",
    version = "v1",
    kind = "Issuer",
    namespaced,
    status = "IssuerStatus",
    schema = "disabled",
    derive = "PartialEq"
)]
pub struct IssuerSpec {
    /// Signs with a CA in a Secret.
    pub ca: Option<CaIssuer>,
    /// Each certificate is signed with its own key.
    pub self_signed: Option<IssuerSettings>,
    /// Asks an ACME server, such as Let's Encrypt's.
    pub acme: Option<IssuerSettings>,
    /// Asks a Vault.
    pub vault: Option<IssuerSettings>,
    /// Asks Venafi.
    pub venafi: Option<IssuerSettings>,
}

/// Spec of a ClusterIssuer: the same, for the whole Kubernetes cluster.
#[derive(CustomResource, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[kube(
    group = "cert-manager.io",
    version = "v1",
    kind = "ClusterIssuer",
    status = "IssuerStatus",
    schema = "disabled",
    derive = "PartialEq"
)]
pub struct ClusterIssuerSpec {
    /// The same fields.
    #[serde(flatten)]
    pub issuer: IssuerSpec,
}

/// The type of an issuer of cert-manager's, as far as pgrekey tells them apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum IssuerType {
    /// Signs with a CA in this Secret.
    Ca {
        /// The name of the Secret.
        secret_name: String,
    },
    /// Each certificate is signed with its own key.
    SelfSigned,
    /// Asks an ACME server.
    Acme,
    /// Asks a Vault.
    Vault,
    /// Asks Venafi.
    Venafi,
    /// Of another API group, of a type that pgrekey does not know, or not known at all.
    #[default]
    Other,
}

impl IssuerSpec {
    /// The type of the issuer.
    #[must_use]
    pub fn issuer_type(&self) -> IssuerType {
        let Self {
            ca,
            self_signed,
            acme,
            vault,
            venafi,
        } = self;
        let type_of = |settings: &Option<IssuerSettings>, type_| settings.map(|_| type_);
        let signs = ca.as_ref().map(|ca| IssuerType::Ca {
            secret_name: ca.secret_name.clone(),
        });
        signs
            .or(type_of(self_signed, IssuerType::SelfSigned))
            .or(type_of(acme, IssuerType::Acme))
            .or(type_of(vault, IssuerType::Vault))
            .or(type_of(venafi, IssuerType::Venafi))
            .unwrap_or_default()
    }
}

/// That an issuer is of a kind. The settings themselves are not read: they may name Secrets and
/// addresses, and pgrekey keeps every issuer in memory.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub struct IssuerSettings {}

/// An issuer that signs with a CA in a Secret.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct CaIssuer {
    /// Secret with `tls.crt` and `tls.key` of the CA.
    pub secret_name: String,
}

/// Status of an issuer.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
pub struct IssuerStatus {
    /// `Ready`.
    #[serde(default)]
    pub conditions: Vec<IssuanceCondition>,
}

/// A request to sign one certificate: cert-manager makes it for a Certificate.
#[skip_serializing_none]
#[derive(CustomResource, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "cert-manager.io",
    version = "v1",
    kind = "CertificateRequest",
    namespaced,
    status = "CertificateRequestStatus",
    schema = "disabled",
    derive = "PartialEq"
)]
pub struct CertificateRequestSpec {
    /// The issuer.
    pub issuer_ref: CertificateIssuerRef,
}

/// Status of a CertificateRequest.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CertificateRequestStatus {
    /// `Ready`, `Approved`, `Denied`, `InvalidRequest`.
    #[serde(default)]
    pub conditions: Vec<IssuanceCondition>,
}

/// Whether the condition of this type is `True`. A missing condition is not.
#[must_use]
pub fn holds(conditions: &[IssuanceCondition], type_: &str) -> bool {
    conditions
        .iter()
        .any(|c| c.type_ == type_ && c.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_of_an_issuer_is_known_and_its_settings_are_not_kept() {
        let spec = |yaml: &str| serde_saphyr::from_str::<IssuerSpec>(yaml).expect("a spec");
        let some = Some(IssuerSettings {});
        let acme = spec("{acme: {server: https://acme.example, solvers: [{http01: {}}]}}");
        assert_eq!((acme.acme, acme.self_signed), (some, None));
        assert_eq!(
            spec("{selfSigned: {crlDistributionPoints: [a]}}").self_signed,
            some
        );
        assert_eq!(spec("{vault: {path: pki/sign/db}}").vault, some);
        assert_eq!(spec("{venafi: {zone: z}}").venafi, some);
        assert_eq!(spec("{oracle: {of: Delphi}}"), IssuerSpec::default());
    }
}
