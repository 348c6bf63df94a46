//! The time that clients get to take over what has changed, before the way goes on without what
//! they know.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kube::{Resource, ResourceExt};

use crate::api::annotations::CLIENT_GRACE_PERIOD;
use crate::api::bounds::MAX_CLIENT_GRACE_PERIOD;
use crate::api::duration;
use crate::api::duration::after;
use crate::api::{Postgres, PostgresOpsRequest};
use crate::plan::action::Action;
use crate::plan::observed::cluster::ObservedCluster;
use crate::plan::rollout::Progress;
use crate::tls::Files;

/// What clients get of a renewal, for which nobody waits, where the database does not say: the
/// kubelet brings a changed ConfigMap or Secret to a pod within about a minute.
pub const RENEWAL_DEFAULT: Duration = Duration::from_mins(2);

/// What clients get of an operation: what its request says, else what its database does; nothing if
/// neither does.
#[must_use]
pub fn for_request(request: &PostgresOpsRequest, database: Option<&Postgres>) -> Option<Duration> {
    annotated(request).or_else(|| annotated(database?))
}

/// What clients get of a renewal.
#[must_use]
pub fn for_renewal(database: &Postgres) -> Duration {
    annotated(database).unwrap_or(RENEWAL_DEFAULT)
}

/// What cannot be read counts as not set, and nobody gets more than may be asked for.
fn annotated<K: Resource>(object: &K) -> Option<Duration> {
    object
        .annotations()
        .get(CLIENT_GRACE_PERIOD)
        .and_then(|text| duration::parse(text).ok())
        .map(|settle| settle.min(MAX_CLIENT_GRACE_PERIOD))
}

/// Until when a renewal waits for clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientGracePeriod {
    /// Then it goes on.
    pub until: Timestamp,
    /// What clients do meanwhile, and what happens then, in words.
    pub what: &'static str,
}

/// Nobody is spared by waiting where a certificate has expired, or is about to: how long before its
/// end that is.
const MARGIN: SignedDuration = SignedDuration::from_mins(1);

/// Whether a renewal that would go on like this waits for clients first, counted from when they
/// were last told something else.
#[must_use]
pub fn grace(
    scene: &ObservedCluster,
    heading: &Progress,
    settle: Duration,
) -> Option<ClientGracePeriod> {
    let Progress::Act { actions, .. } = heading else {
        return None;
    };
    let what = what_clients_need(scene, actions)?;
    let until = until(Some(scene), scene.trust_changed_at?, settle);
    (until > scene.observed_at).then_some(ClientGracePeriod { until, what })
}

/// Until when clients get time that were told something then: for so long, but not past the end of
/// what is served.
pub(crate) fn until(
    scene: Option<&ObservedCluster>,
    since: Timestamp,
    settle: Duration,
) -> Timestamp {
    let until = after(since, settle);
    match scene {
        Some(scene) if scene.has_expired() => since,
        Some(scene) => scene
            .leaf_expires_at
            .and_then(|end| end.checked_sub(MARGIN).ok())
            .map_or(until, |end| end.min(until)),
        None => until,
    }
}

/// What clients have to know before this is done, in words; nothing if nobody is left behind by it.
pub(crate) fn what_clients_need(
    scene: &ObservedCluster,
    actions: &[Action],
) -> Option<&'static str> {
    let old = scene
        .applied
        .files
        .as_ref()
        .filter(|_| scene.applied.served().is_some())?;
    let new = actions.iter().find_map(|action| match action {
        Action::WriteFiles(files) => Some(files),
        _ => None,
    })?;
    let shown = |files: &Files| [files.material.server.ca, files.material.exporter.ca];
    if shown(old) != shown(new) {
        return Some("to trust the new CA too, before it is the one that is served");
    }
    let narrows = !old.trust.is_subset(&new.trust);
    narrows.then_some(
        "to show certificates of the CAs that stay, before the others are not trusted any more",
    )
}
