//! Whose turn it is: one request of a database at a time, one that has begun before the oldest.

use std::sync::Arc;

use crate::api::PostgresOpsRequest;

/// The request of the same database that has to end before this one begins, if there is one: the first in
/// [the rules' order](PostgresOpsRequest::ahead). Nothing is skipped for its type: `add-tls` and `rotate-tls`, sent together, both
/// run.
#[must_use]
pub fn ahead<'a>(
    request: &PostgresOpsRequest,
    all: &'a [Arc<PostgresOpsRequest>],
) -> Option<&'a Arc<PostgresOpsRequest>> {
    request.ahead(all).into_iter().next()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use kube::ResourceExt;
    use serde_json::json;

    use super::*;
    use crate::api::ops_request::OpsPhase;

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
        let ahead_of = |at: usize| ahead(&all[at], &all).map(|other| other.name_any());
        assert_eq!([ahead_of(0), ahead_of(1), ahead_of(2)], [None, Some("b".to_owned()), Some("b".to_owned())]);
    }

    #[test]
    fn who_has_begun_goes_on() {
        let all = [request("old", 1, None), request("young", 2, Some(OpsPhase::Progressing))];
        assert_eq!(ahead(&all[0], &all).map(|other| other.name_any()).as_deref(), Some("young"));
        assert_eq!(ahead(&all[1], &all), None);
    }
}
