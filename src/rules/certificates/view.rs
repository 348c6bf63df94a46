//! What the rules about certificates read of an object of either kind.

use std::sync::Arc;

use crate::api::Postgres;
use crate::api::bounds::MAX_CERTIFICATES;
use crate::api::postgres::TlsConfig;
use crate::api::tls::{CertificateSpec, ClientAuthMode, IssuerRef};

use crate::rules::ClusterFacts;
/// The TLS part of an object under review.
#[derive(Debug)]
pub struct CertificateRequestView<'a> {
    /// Namespace of object and database.
    pub namespace: &'a str,
    /// Name of the database.
    pub database: &'a str,
    /// Field that says so.
    pub named_at: &'static str,
    /// Issuer of all certificates that name none of their own.
    pub issuer_ref: Option<&'a IssuerRef>,
    /// Entries of the object.
    pub certificates: &'a [CertificateSpec],
}

/// What an object leads to.
#[derive(Debug)]
pub struct TargetTls {
    /// TLS of the database.
    pub tls: TlsConfig,
    /// How its clients log in.
    pub client_auth_mode: Option<ClientAuthMode>,
}

/// An object that speaks about TLS.
pub trait HasTls {
    /// Its TLS part, which is at `spec.tls`; nothing when it has none.
    fn tls(&self) -> Option<CertificateRequestView<'_>>;

    /// Whether that is more than the object itself says: names that are there, or asked for before,
    /// are added to.
    fn is_merged(&self, _: Option<&dyn ClusterFacts>) -> bool {
        false
    }

    /// What the database has once the object is carried out, and all that comes before it; nothing
    /// when it adds or changes no TLS.
    fn wished(&self, facts: Option<&dyn ClusterFacts>) -> Option<TargetTls>;

    /// The same, whose certificates need have nothing but their issuers: names may be hundreds.
    fn wished_issuers(&self, facts: Option<&dyn ClusterFacts>) -> Option<TargetTls> {
        self.wished(facts)
    }

    /// The database whose settings apply to what the object leaves out.
    fn unchanged(&self, facts: Option<&dyn ClusterFacts>) -> Option<Arc<Postgres>>;
}

/// Every certificate of the object, with its field; of an endless list only the beginning.
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
