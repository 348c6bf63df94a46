//! Whose turn it is: one request of a database at a time, one that has begun before the oldest.
//! Nothing is skipped for its type: `add-tls` and `rotate-tls`, sent together, both run.

use std::sync::Arc;

use crate::api::PostgresOpsRequest;
use crate::api::ops_request::OpsPhase;

impl PostgresOpsRequest {
    /// Those of these requests, all of one database, that come before this one, in their order.
    ///
    /// One that has begun goes on, whatever its age. Of the others the oldest is next; requests of
    /// the same second go by name. One that does not exist yet comes last.
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

    /// Where it stands in the queue of its database.
    fn place(&self) -> (bool, Option<jiff::Timestamp>, Option<&str>) {
        let has_begun = self.phase() == Some(OpsPhase::Progressing);
        let created = self.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (!has_begun, created, self.metadata.name.as_deref())
    }
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
    fn the_oldest_runs_and_the_others_know_who_is_ahead() {
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
    fn who_has_begun_goes_on() {
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
