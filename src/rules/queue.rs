//! The queue of a database's requests: one runs at a time, a request that has begun before all
//! others, then the oldest. No type of request is skipped: `add-tls` and `rotate-tls`, sent
//! together, both run.

use std::sync::Arc;

use crate::api::ops_request::{NameChange, OpsPhase, TlsChange, TlsOperation};
use crate::api::postgres::TlsConfig;
use crate::api::tls::ClientAuthMode;
use crate::api::{Postgres, PostgresOpsRequest};

use crate::rules::ClusterFacts;

impl PostgresOpsRequest {
    /// The requests of `all`, all of one database, that come before this one, in their order.
    ///
    /// A request that has begun goes on, whatever its age. Of the others the oldest is next, and
    /// within one second the order is by name. A request that does not exist yet comes last.
    #[must_use]
    pub fn ahead<'a>(&self, all: &'a [Arc<Self>]) -> Vec<&'a Arc<Self>> {
        let is_new = self.metadata.creation_timestamp.is_none();
        let mut ahead: Vec<&Arc<Self>> = all
            .iter()
            .filter(|other| other.metadata.name != self.metadata.name && other.is_to_run())
            .filter(|other| is_new || other.place() < self.place())
            .collect();
        ahead.sort_by(|a, b| a.place().cmp(&b.place()));
        ahead
    }

    /// Its position in the queue of its database.
    fn place(&self) -> (bool, Option<jiff::Timestamp>, Option<&str>) {
        let has_begun = self.phase() == Some(OpsPhase::Progressing);
        let created = self.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (!has_begun, created, self.metadata.name.as_deref())
    }
}

/// All requests of the database that this request names.
pub(super) fn requests_of_database(
    request: &PostgresOpsRequest,
    facts: &dyn ClusterFacts,
) -> Vec<Arc<PostgresOpsRequest>> {
    let namespace = request.metadata.namespace.as_deref().unwrap_or_default();
    facts.requests(namespace, &request.spec.database_ref.name)
}

/// The TLS of a database when the turn of a request comes: the spec, changed by every request
/// ahead.
///
/// So `add-tls` and `rotate-tls` may be sent together, although there is no TLS yet.
#[derive(Default)]
pub(super) struct TlsAtTurn {
    pub(super) tls: Option<TlsConfig>,
    pub(super) client_auth_mode: Option<ClientAuthMode>,
}

impl TlsAtTurn {
    pub(super) fn predict(
        request: &PostgresOpsRequest,
        database: &Postgres,
        facts: &dyn ClusterFacts,
    ) -> Self {
        let now = Self {
            tls: database.spec.tls.clone(),
            client_auth_mode: database.spec.client_auth_mode,
        };
        let requests = requests_of_database(request, facts);
        request
            .ahead(&requests)
            .into_iter()
            .filter_map(|other| Some((other.spec.tls.as_ref()?, other.name_change())))
            .fold(now, |tls, (change, names)| tls.after(change, names))
    }

    /// The TLS after one more change.
    pub(super) fn after(self, change: &TlsChange, names: NameChange) -> Self {
        let client_auth_mode = change.client_auth_mode.or(self.client_auth_mode);
        match change.operations().first() {
            Some(TlsOperation::Remove) => Self {
                tls: None,
                client_auth_mode,
            },
            Some(TlsOperation::Change) => {
                let mut tls = self.tls.unwrap_or_default();
                change.merge_into(&mut tls, names);
                Self {
                    tls: Some(tls),
                    client_auth_mode,
                }
            }
            Some(TlsOperation::Rotate) | None => self,
        }
    }
}

/// Whether the database will have TLS when the turn of this request comes.
pub(super) fn will_have_tls(
    request: &PostgresOpsRequest,
    database: &Postgres,
    facts: &dyn ClusterFacts,
) -> bool {
    TlsAtTurn::predict(request, database, facts).tls.is_some()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use kube::ResourceExt;
    use serde_json::json;

    use super::*;

    fn request(name: &str, created: i64, phase: Option<OpsPhase>) -> Arc<PostgresOpsRequest> {
        let object = json!({
            "apiVersion": "ops.kubedb.com/v1alpha1", "kind": "PostgresOpsRequest",
            "metadata": {"name": name, "uid": name}, "spec": {"type": "Restart", "databaseRef": {"name": "pg"}},
        });
        let mut request: PostgresOpsRequest = serde_json::from_value(object).expect("a request");
        request.metadata.creation_timestamp = jiff::Timestamp::from_second(created).ok().map(Time);
        request.status.get_or_insert_default().phase = phase;
        Arc::new(request)
    }

    #[test]
    fn the_oldest_request_runs_and_the_others_name_it() {
        let all = [
            request("b", 1, None),
            request("a", 2, None),
            request("c", 1, None),
            request("d", 0, Some(OpsPhase::Failed)),
        ];
        let ahead_of = |at: usize| all[at].ahead(&all).first().map(|other| other.name_any());
        assert_eq!(
            [ahead_of(0), ahead_of(1), ahead_of(2)],
            [None, Some("b".to_owned()), Some("b".to_owned())]
        );
    }

    #[test]
    fn a_request_that_has_begun_goes_on() {
        let all = [
            request("old", 1, None),
            request("young", 2, Some(OpsPhase::Progressing)),
        ];
        assert_eq!(
            all[0]
                .ahead(&all)
                .first()
                .map(|other| other.name_any())
                .as_deref(),
            Some("young")
        );
        assert!(all[1].ahead(&all).is_empty());
    }
}
