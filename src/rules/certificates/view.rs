//! The parts of an object that the rules about certificates read, for both kinds.

use std::sync::Arc;

use crate::api::Postgres;
use crate::api::bounds::MAX_CERTIFICATES;
use crate::api::postgres::TlsConfig;
use crate::api::tls::{CertificateSpec, ClientAuthMode, IssuerRef};

use crate::rules::ClusterFacts;
/// The `spec.tls` of an object under review.
#[derive(Debug)]
pub struct CertificateRequestView<'a> {
    /// Namespace of the object and the database.
    pub namespace: &'a str,
    /// Name of the database.
    pub database: &'a str,
    /// Field with the database's name.
    pub named_at: &'static str,
    /// Issuer of all certificates without their own.
    pub issuer_ref: Option<&'a IssuerRef>,
    /// Entries of the object.
    pub certificates: &'a [CertificateSpec],
}

/// The TLS of a database after an object is carried out.
#[derive(Debug)]
pub struct TargetTls {
    /// TLS of the database.
    pub tls: TlsConfig,
    /// How clients authenticate.
    pub client_auth_mode: Option<ClientAuthMode>,
}

/// An object with a `spec.tls`.
pub trait HasTls {
    /// Its `spec.tls`.
    fn tls(&self) -> Option<CertificateRequestView<'_>>;

    /// Whether [`target`](Self::target) has more names than the object: those of the database and
    /// of earlier requests.
    fn is_merged(&self, _: Option<&dyn ClusterFacts>) -> bool {
        false
    }

    /// The TLS of the database after this object and all requests ahead of it. `None` if the object
    /// does not add or change TLS.
    fn target(&self, facts: Option<&dyn ClusterFacts>) -> Option<TargetTls>;

    /// The same, with no more than the issuers of certificates: a certificate may have hundreds of
    /// names.
    fn target_issuers(&self, facts: Option<&dyn ClusterFacts>) -> Option<TargetTls> {
        self.target(facts)
    }

    /// The database whose values apply to fields that the object leaves out.
    fn unchanged(&self, facts: Option<&dyn ClusterFacts>) -> Option<Arc<Postgres>>;
}

/// The certificates of the object, each with its field; at most [`MAX_CERTIFICATES`].
pub(super) fn entries<'a>(
    view: &CertificateRequestView<'a>,
) -> impl Iterator<Item = (String, &'a CertificateSpec)> + use<'a> {
    view.certificates
        .iter()
        .take(MAX_CERTIFICATES)
        .enumerate()
        .map(|(i, certificate)| (format!("spec.tls.certificates[{i}]"), certificate))
}

/// The other databases of the namespace.
pub(super) fn other_databases(
    view: &CertificateRequestView<'_>,
    facts: Option<&dyn ClusterFacts>,
) -> Vec<Arc<Postgres>> {
    let mut others = facts.map_or(vec![], |facts| facts.databases(view.namespace));
    others.retain(|other| other.metadata.name.as_deref() != Some(view.database));
    others
}
