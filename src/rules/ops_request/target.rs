//! The operation of a request, and the TLS of its database afterwards.

use std::sync::Arc;

use crate::api::ops_request::{TlsChange, TlsOperation};
use crate::api::{Postgres, PostgresOpsRequest};

use crate::rules::certificates::{CertificateRequestView, HasTls, TargetTls};
use crate::rules::queue::{TlsAtTurn, requests_of_database};
use crate::rules::{ClusterFacts, Review};

pub(super) fn namespace(request: &PostgresOpsRequest) -> &str {
    request.metadata.namespace.as_deref().unwrap_or_default()
}

/// The database that the request names, if it is known.
pub(super) fn database(
    request: &PostgresOpsRequest,
    facts: Option<&dyn ClusterFacts>,
) -> Option<Arc<Postgres>> {
    facts?.database(namespace(request), &request.spec.database_ref.name)
}

/// The `spec.tls` of a request that asks for this operation, possibly among others.
pub(super) fn asks_for(
    review: &Review<PostgresOpsRequest>,
    operation: TlsOperation,
) -> Option<&TlsChange> {
    review
        .object
        .spec
        .tls
        .as_ref()
        .filter(|tls| tls.operations().contains(&operation))
}

impl Review<PostgresOpsRequest> {
    /// The TLS of the database after this change and all requests ahead of it.
    fn after(&self, change: &TlsChange, facts: Option<&dyn ClusterFacts>) -> Option<TargetTls> {
        let now = match (database(&self.object, facts), facts) {
            (Some(database), Some(facts)) => TlsAtTurn::predict(&self.object, &database, facts),
            _ => TlsAtTurn::default(),
        };
        let TlsAtTurn {
            tls,
            client_auth_mode,
        } = now.after(change, self.object.name_change());
        Some(TargetTls {
            tls: tls?,
            client_auth_mode,
        })
    }
}

impl HasTls for Review<PostgresOpsRequest> {
    fn tls(&self) -> Option<CertificateRequestView<'_>> {
        let tls = self.object.spec.tls.as_ref()?;
        Some(CertificateRequestView {
            namespace: namespace(&self.object),
            database: &self.object.spec.database_ref.name,
            named_at: "spec.databaseRef.name",
            issuer_ref: tls.issuer_ref.as_ref(),
            certificates: &tls.certificates,
        })
    }

    fn is_merged(&self, facts: Option<&dyn ClusterFacts>) -> bool {
        let has_tls =
            database(&self.object, facts).is_some_and(|database| database.spec.tls.is_some());
        has_tls || facts.is_some_and(|facts| !requests_of_database(&self.object, facts).is_empty())
    }

    fn target(&self, facts: Option<&dyn ClusterFacts>) -> Option<TargetTls> {
        self.after(asks_for(self, TlsOperation::Change)?, facts)
    }

    fn target_issuers(&self, facts: Option<&dyn ClusterFacts>) -> Option<TargetTls> {
        self.after(
            &asks_for(self, TlsOperation::Change)?.with_issuers_alone(),
            facts,
        )
    }

    fn unchanged(&self, facts: Option<&dyn ClusterFacts>) -> Option<Arc<Postgres>> {
        database(&self.object, facts)
    }
}
