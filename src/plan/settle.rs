//! The time that clients get to take over what has changed, before the way goes on without what they know.

use std::time::Duration;

use jiff::Timestamp;
use kube::{Resource, ResourceExt};

use super::action::Action;
use super::scene::Scene;
use super::steer::Heading;
use crate::api::annotations::SETTLE;
use crate::api::duration::{self, after};
use crate::api::{Postgres, PostgresOpsRequest};
use crate::tls::{Files, Material};

/// What clients get of a renewal, for which nobody waits, where the database does not say: the kubelet brings a changed ConfigMap
/// or Secret to a pod within about a minute.
pub const OF_A_RENEWAL: Duration = Duration::from_mins(2);

/// What clients get of an operation: what its request says, else what its database does; nothing if neither does.
#[must_use]
pub fn of_operation(request: &PostgresOpsRequest, database: Option<&Postgres>) -> Option<Duration> {
    asked(request).or_else(|| asked(database?))
}

/// What clients get of a renewal.
#[must_use]
pub fn of_renewal(database: &Postgres) -> Duration {
    asked(database).unwrap_or(OF_A_RENEWAL)
}

/// What cannot be read counts as not set.
fn asked<K: Resource>(object: &K) -> Option<Duration> {
    object.annotations().get(SETTLE).and_then(|text| duration::parse(text).ok())
}

/// Until when a renewal waits for clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grace {
    /// Then it goes on.
    pub until: Timestamp,
    /// What clients do meanwhile, and what happens then, in words.
    pub what: &'static str,
}

/// Whether a renewal that would go on like this waits for clients first; `since` then they have been told what they are told now.
///
/// Nobody is spared by waiting where certificates have expired.
#[must_use]
pub fn grace(scene: &Scene, heading: &Heading, since: Timestamp, settle: Duration) -> Option<Grace> {
    let Heading::Do { actions, .. } = heading else { return None };
    let served = scene.written.files.as_ref().filter(|_| scene.written.served().is_some())?;
    let what = actions.iter().find_map(|action| match action {
        Action::WriteFiles(files) => given_up(served, files),
        _ => None,
    })?;
    let until = after(since, settle);
    (until > scene.at && !scene.has_expired()).then_some(Grace { until, what })
}

/// What clients have to know before these files follow those.
fn given_up(old: &Files, new: &Files) -> Option<&'static str> {
    let signers = |of: &Material| [of.server.ca, of.client.ca, of.exporter.ca];
    if signers(&old.material) != signers(&new.material) {
        return Some("to trust the new CA too, before it is the one that is served");
    }
    (!old.trust.is_subset(&new.trust)).then_some("to show certificates of the new CA, before the old one is not trusted any more")
}
