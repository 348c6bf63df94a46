//! The client grace period: the time that clients get to take over a change before the way goes on
//! without what they know.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kube::{Resource, ResourceExt};

use crate::api::annotations::CLIENT_GRACE_PERIOD;
use crate::api::bounds::MAX_CLIENT_GRACE_PERIOD;
use crate::api::duration::{self, after};
use crate::api::{Postgres, PostgresOpsRequest};
use crate::plan::action::ClusterAction;
use crate::plan::observed::cluster::ObservedCluster;
use crate::plan::rollout::progress::Progress;
use crate::tls::Files;

/// The grace period of a renewal if the database does not set one. The kubelet brings a changed
/// ConfigMap or Secret to a pod within about a minute.
pub const RENEWAL_DEFAULT: Duration = Duration::from_mins(2);

/// The grace period of an operation: of its request, else of its database; `None` if neither sets
/// one.
#[must_use]
pub fn for_request(request: &PostgresOpsRequest, database: Option<&Postgres>) -> Option<Duration> {
    annotated(request).or_else(|| annotated(database?))
}

/// The grace period of a renewal.
#[must_use]
pub fn for_renewal(database: &Postgres) -> Duration {
    annotated(database).unwrap_or(RENEWAL_DEFAULT)
}

/// A text that is no duration counts as not set; a longer one than the bound counts as the bound.
fn annotated<K: Resource>(object: &K) -> Option<Duration> {
    let text = object.annotations().get(CLIENT_GRACE_PERIOD)?;
    let period = duration::parse(text).ok()?;
    Some(period.min(MAX_CLIENT_GRACE_PERIOD))
}

/// What clients have to take over before the way goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientNeed {
    /// Trust in the new CA, before a leaf of it is served.
    NewTrust,
    /// Certificates of the CAs that stay, before the others are not trusted any more.
    NewCertificates,
}

impl std::fmt::Display for ClientNeed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NewTrust => "to trust the new CA too, before a leaf of it is served",
            Self::NewCertificates => {
                "to present certificates of the CAs that stay, before the others are dropped"
            }
        })
    }
}

/// A renewal waits for clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientGracePeriod {
    /// The end of the period.
    pub until: Timestamp,
    /// What clients have to do in it.
    pub need: ClientNeed,
}

/// A leaf is replaced at least this long before it expires: a longer period would spare no client.
const MARGIN: SignedDuration = SignedDuration::from_mins(1);

/// The grace period that a renewal has to keep before it goes on like this, counted from when the
/// bundle last changed; `None` if it is over, or not needed.
#[must_use]
pub fn grace(
    cluster: &ObservedCluster,
    progress: &Progress,
    period: Duration,
) -> Option<ClientGracePeriod> {
    let Progress::Act { actions, .. } = progress else {
        return None;
    };
    let need = client_need(cluster, actions)?;
    let until = until(Some(cluster), cluster.trust_changed_at?, period);
    (until > cluster.observed_at).then_some(ClientGracePeriod { until, need })
}

/// The end of a grace period that began then, but not past the end of the served leaves.
pub(crate) fn until(
    cluster: Option<&ObservedCluster>,
    since: Timestamp,
    period: Duration,
) -> Timestamp {
    let until = after(since, period);
    let Some(cluster) = cluster else {
        return until;
    };
    if cluster.has_expired() {
        return since;
    }
    let latest = cluster
        .leaf_expires_at
        .and_then(|end| end.checked_sub(MARGIN).ok());
    latest.map_or(until, |latest| latest.min(until))
}

/// What clients have to take over before these actions; `None` if the actions leave no client
/// behind.
pub(crate) fn client_need<'a>(
    cluster: &ObservedCluster,
    actions: impl IntoIterator<Item = &'a ClusterAction>,
) -> Option<ClientNeed> {
    let old = cluster.applied.files.as_ref()?;
    cluster.applied.served()?;
    let new = actions.into_iter().find_map(|action| match action {
        ClusterAction::WriteFiles(files) => Some(files),
        _ => None,
    })?;
    let signers = |files: &Files| [files.material.server.ca, files.material.exporter.ca];
    if signers(old) != signers(new) {
        return Some(ClientNeed::NewTrust);
    }
    let narrows = !old.trust.is_subset(&new.trust);
    narrows.then_some(ClientNeed::NewCertificates)
}
