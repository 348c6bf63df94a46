//! The rules for `Postgres`.

mod change;
mod checks;
mod table;
mod template;

use std::sync::Arc;

use crate::api::Postgres;
use crate::api::postgres::PostgresSpec;

use crate::rules::certificates;
use crate::rules::certificates::{CertificateRequestView, HasTls, TargetTls};
use crate::rules::{ClusterFacts, Needs, Review, Rule};

/// Every rule for `Postgres`, in the order in which findings are listed.
pub fn rules() -> impl Iterator<Item = &'static Rule<Postgres>> {
    static CERTIFICATES: [Rule<Postgres>; 19] = certificates::rules(Needs::Nothing);
    table::RULES.iter().chain(&CERTIFICATES)
}

/// The rules that the controllers check for as long as a database exists: a permission that the
/// installation withdraws also ends for existing databases.
pub fn lasting() -> impl Iterator<Item = &'static Rule<Postgres>> {
    table::RULES.iter().filter(|rule| {
        ["pod-security", "service-account-allowed", "external-ips"].contains(&rule.id)
    })
}

impl HasTls for Review<Postgres> {
    fn tls(&self) -> Option<CertificateRequestView<'_>> {
        let tls = self.object.spec.tls.as_ref()?;
        Some(CertificateRequestView {
            namespace: self
                .object
                .metadata
                .namespace
                .as_deref()
                .unwrap_or_default(),
            database: self.object.metadata.name.as_deref().unwrap_or_default(),
            named_at: "metadata.name",
            issuer_ref: tls.issuer_ref.as_ref(),
            certificates: &tls.certificates,
        })
    }

    fn target(&self, _: Option<&dyn ClusterFacts>) -> Option<TargetTls> {
        let PostgresSpec {
            tls,
            client_auth_mode,
            ..
        } = &self.object.spec;
        Some(TargetTls {
            tls: tls.clone()?,
            client_auth_mode: *client_auth_mode,
        })
    }

    fn unchanged(&self, _: Option<&dyn ClusterFacts>) -> Option<Arc<Postgres>> {
        // Fields that the object leaves out have their defaults, whatever they were before, so the
        // old object has no part in this.
        let tls = None;
        Some(Arc::new(Postgres {
            spec: PostgresSpec {
                tls,
                ..self.object.spec.clone()
            },
            ..self.object.clone()
        }))
    }
}
