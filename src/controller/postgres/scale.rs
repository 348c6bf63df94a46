//! More pods, or fewer: the primary is never among those that go, and a member that went leaves
//! nothing behind that would hold up the others.

use std::ops::Range;

use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod};
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use kube::runtime::events::EventType;
use serde_json::{Value, json};

use crate::api::annotations::LEFT_AT;
use crate::api::{Postgres, bounds};
use crate::build::meta::{ROLE_LABEL, STANDBY};
use crate::build::patroni::DynamicConfig;
use crate::build::{Cluster, workload};
use crate::cluster::{Error, ObjectName, Objects};
use crate::controller::Context;
use crate::controller::observe::posture::PostureObjects;
use crate::controller::postgres::ReconcileResult;
use crate::plan::SwitchoverCandidates;

/// How many pods the set is to have now. Fewer than there are only when the primary is among those
/// that stay.
pub(crate) async fn replicas(
    context: &Context,
    postgres: &Postgres,
    objects: &Objects,
    cluster: &Cluster,
    pieces: &PostureObjects,
) -> ReconcileResult<i32> {
    let wish = cluster.replicas();
    // Anybody who may scale the set may have written any number.
    let now = pieces
        .pet_set
        .as_ref()
        .and_then(|set| set.spec.replicas)
        .map(bounds::clamp_replicas);
    let Some(now) = now else { return Ok(wish) };
    if wish >= now {
        for ordinal in now..wish {
            forget_data(objects, &cluster.names().data_claim(ordinal)).await?;
        }
        return Ok(wish);
    }
    let record: Option<ConfigMap> = objects
        .get(&cluster.names().patroni_config_maps().leader)
        .await?;
    // Nobody leads right now: whoever comes to may be one of those that would go.
    let Some(leader) = record.as_ref().and_then(leader_of) else {
        return Ok(now);
    };
    let keep = match ordinal(cluster, leader).filter(|ordinal| *ordinal < now) {
        Some(leads) if leads < wish => wish,
        leads => {
            let successors =
                switchover_candidates(objects, cluster, pieces.shared_config().as_ref()).await?;
            let pods = context
                .watched
                .workload(postgres)
                .map(|workload| context.watched.pods(postgres, &workload));
            let standbys: Vec<ScaleDownStandby> = pods
                .iter()
                .flatten()
                .filter_map(|pod| standby(cluster, pod, &successors))
                .collect();
            match next_primary_before_scale_down(leads.unwrap_or(now), wish, &standbys) {
                Some(ScaleDown::Lead(next)) => {
                    switch_over(
                        context,
                        postgres,
                        objects,
                        cluster,
                        leader,
                        &cluster.names().pod(next),
                    )
                    .await?;
                    now
                }
                Some(ScaleDown::Keep(pods)) => pods,
                None => now,
            }
        }
    };
    for ordinal in keep..now {
        note_left(context, objects, &cluster.names().data_claim(ordinal)).await?;
    }
    Ok(keep)
}

/// What comes first where the primary is among those that are to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ScaleDown {
    /// This one is to lead.
    Lead(i32),
    /// No more than so many pods are needed.
    Keep(i32),
}

/// A standby that streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ScaleDownStandby {
    ordinal: i32,
    position: u64,
    /// Patroni would hand the leadership over to it.
    may_lead: bool,
}

/// One of those that stay is to lead, the one that is furthest. If Patroni takes none of them,
/// because those that are synchronous are to go as well: one of these with a lower ordinal than the
/// primary leads in between, and those with higher ones go first. Each time the primary has fewer
/// to choose from, so in the end it makes one synchronous that stays.
///
/// Nothing comes of it while none of those that stay streams, or Patroni takes nobody: both pass.
fn next_primary_before_scale_down(
    leads: i32,
    wish: i32,
    standbys: &[ScaleDownStandby],
) -> Option<ScaleDown> {
    let first = |ordinals: Range<i32>| {
        let able = standbys
            .iter()
            .filter(|standby| standby.may_lead && ordinals.contains(&standby.ordinal));
        able.max_by_key(|standby| (standby.position, standby.ordinal))
            .map(|standby| standby.ordinal)
    };
    if !standbys.iter().any(|standby| standby.ordinal < wish) {
        return None;
    }
    let next = first(0..wish)
        .or_else(|| first(wish..leads))
        .map(ScaleDown::Lead);
    next.or_else(|| first(leads + 1..i32::MAX).map(|_| ScaleDown::Keep(leads + 1)))
}

/// The number of a pod of this cluster.
pub(crate) fn ordinal(cluster: &Cluster, pod: &str) -> Option<i32> {
    workload::ordinal(cluster.name(), pod)
}

/// Who leads, by Patroni's own record: ConfigMap `NAME-leader`. A leader that lets go leaves an
/// empty name there.
pub(crate) fn leader_of(record: &ConfigMap) -> Option<&str> {
    record
        .annotations()
        .get("leader")
        .map(String::as_str)
        .filter(|leader| !leader.is_empty())
}

/// To whom Patroni would hand the leadership over. A cluster whose commits wait for nobody has no
/// record of it, and none is asked for.
pub(crate) async fn switchover_candidates(
    objects: &Objects,
    cluster: &Cluster,
    config: Option<&DynamicConfig>,
) -> Result<SwitchoverCandidates, Error> {
    let Some(config) = config.filter(|config| config.is_synchronous()) else {
        return Ok(SwitchoverCandidates::Any);
    };
    let record: Option<ConfigMap> = objects
        .get(&cluster.names().patroni_config_maps().sync)
        .await?;
    Ok(SwitchoverCandidates::from_patroni(
        config,
        record.as_ref().map(ConfigMap::annotations),
    ))
}

/// Asks Patroni to make one the primary, because the one that leads is to go.
async fn switch_over(
    context: &Context,
    postgres: &Postgres,
    objects: &Objects,
    cluster: &Cluster,
    leader: &str,
    candidate: &str,
) -> ReconcileResult<()> {
    if request_switchover(objects, cluster, leader, candidate).await? == SwitchoverRequest::Already
    {
        return Ok(());
    }
    let note = format!("Switching over from {leader} to {candidate}, because {leader} is to go");
    context
        .publish_event(postgres, EventType::Normal, "SwitchOver", note)
        .await;
    Ok(())
}

/// Whether Patroni had been asked before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SwitchoverRequest {
    Already,
    Now,
}

/// Asks Patroni to hand the leadership over.
pub(crate) async fn request_switchover(
    objects: &Objects,
    cluster: &Cluster,
    leader: &str,
    candidate: &str,
) -> Result<SwitchoverRequest, Error> {
    let failover = cluster.names().patroni_config_maps().failover;
    let live: Option<ConfigMap> = objects.get(&failover).await?;
    let wish = json!({"leader": leader, "member": candidate});
    let asked = |key: &str| {
        live.as_ref().is_some_and(|live| {
            live.annotations()
                .get(key)
                .is_some_and(|v| wish[key] == **v)
        })
    };
    if asked("leader") && asked("member") {
        return Ok(SwitchoverRequest::Already);
    }
    // Patroni takes these annotations away again, so nobody owns them: a merge, not an application.
    let body = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": failover, "labels": cluster.selector(), "annotations": wish},
    });
    let api = objects.api::<ConfigMap>();
    let what = ObjectName::new::<ConfigMap>(&failover);
    let outcome = if live.is_some() {
        api.patch(&failover, &PatchParams::default(), &Patch::Merge(&body))
            .await
            .map(|_| ())
    } else {
        let map = serde_json::from_value(body).map_err(|e| Error::Bug {
            what: what.clone(),
            why: e.to_string(),
        })?;
        api.create(&kube::api::PostParams::default(), &map)
            .await
            .map(|_| ())
    };
    outcome.map_err(|error| Error::classify(what, error))?;
    Ok(SwitchoverRequest::Now)
}

/// A pod as a standby that streams, if it is one.
fn standby(
    cluster: &Cluster,
    pod: &Pod,
    successors: &SwitchoverCandidates,
) -> Option<ScaleDownStandby> {
    let status: Value = serde_json::from_str(pod.annotations().get("status")?).ok()?;
    let streams = status["replication_state"] == "streaming" && status["state"] == "running";
    let is_standby = pod
        .labels()
        .get(ROLE_LABEL)
        .is_some_and(|role| role == STANDBY);
    if !streams || !is_standby || pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let (name, position) = (
        pod.name_any(),
        status["xlog_location"].as_u64().unwrap_or_default(),
    );
    Some(ScaleDownStandby {
        ordinal: ordinal(cluster, &name)?,
        position,
        may_lead: successors.include(&name),
    })
}

/// Notes on the claim of a pod that goes that its data end here. They are kept as long as the pod
/// is away.
async fn note_left(context: &Context, objects: &Objects, name: &str) -> ReconcileResult<()> {
    let Some(claim) = objects.get::<PersistentVolumeClaim>(name).await? else {
        return Ok(());
    };
    if claim.annotations().contains_key(LEFT_AT) {
        return Ok(());
    }
    let since = context.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let patch = json!({"metadata": {"uid": claim.uid(), "annotations": {LEFT_AT: since}}});
    let patched = objects
        .api::<PersistentVolumeClaim>()
        .patch(name, &PatchParams::default(), &Patch::Merge(patch))
        .await;
    patched
        .map(|_| ())
        .map_err(|error| Error::classify(ObjectName::new::<PersistentVolumeClaim>(name), error))?;
    Ok(())
}

/// Deletes the data of a pod that was away: the others no longer have the log that would bring them
/// up to date, and a standby that cannot follow would look like one that does not start.
async fn forget_data(objects: &Objects, name: &str) -> ReconcileResult<()> {
    let claim = objects.get::<PersistentVolumeClaim>(name).await?;
    match claim.filter(|claim| claim.annotations().contains_key(LEFT_AT)) {
        None => Ok(()),
        Some(claim) => {
            objects.delete_seen(&claim).await?;
            Err(crate::controller::postgres::Interrupt::Wait(
                "the old claim of a pod that comes back",
            ))
        }
    }
}

/// Replication slots of members that have gone, as the last check of the primary saw them.
pub(crate) fn left_slots(context: &Context, postgres: &Postgres) -> Vec<String> {
    context
        .state(postgres)
        .last_check
        .map(|seen| seen.left_slots)
        .unwrap_or_default()
}

/// The slot that Patroni makes for a member.
pub(crate) fn slot(pod: &str) -> String {
    pod.chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                '_'
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::api::postgres_version::PostgresVersionSpec;
    use crate::build::BuildInputs;

    fn cluster() -> Cluster {
        let spec = "{version: '17', storageType: Ephemeral}";
        let mut postgres = Postgres::new("pg", serde_saphyr::from_str(spec).expect("a spec"));
        postgres.metadata.namespace = Some("demo".to_owned());
        let version = PostgresVersionSpec {
            version: "17.12".to_owned(),
            ..Default::default()
        };
        Cluster::build(
            &postgres,
            &BuildInputs {
                version: &version,
                superuser: "postgres",
                user_conf: None,
            },
        )
        .expect("a cluster")
    }

    fn pod(name: &str, role: &str, status: &Value) -> Pod {
        let mut pod = Pod::default();
        pod.metadata.name = Some(name.to_owned());
        pod.labels_mut()
            .insert(ROLE_LABEL.to_owned(), role.to_owned());
        pod.annotations_mut()
            .insert("status".to_owned(), status.to_string());
        pod
    }

    #[test]
    fn only_a_standby_that_streams_may_take_over_and_the_furthest_does() {
        let status = |at: u64, replication: &str| json!({"state": "running", "replication_state": replication, "xlog_location": at});
        let pods = [
            pod("pg-0", "standby", &status(5, "streaming")),
            pod("pg-1", "standby", &status(7, "streaming")),
            pod("pg-2", "standby", &status(9, "in archive recovery")),
            pod("pg-3", "primary", &status(9, "streaming")),
            pod("pg-4", "standby", &json!("?")),
        ];
        let cluster = cluster();
        let standbys = |successors: &SwitchoverCandidates| -> Vec<ScaleDownStandby> {
            pods.iter()
                .filter_map(|pod| standby(&cluster, pod, successors))
                .collect()
        };
        let of = |ordinal, position, may_lead| ScaleDownStandby {
            ordinal,
            position,
            may_lead,
        };
        assert_eq!(
            standbys(&SwitchoverCandidates::Any),
            [of(0, 5, true), of(1, 7, true)]
        );
        let only = SwitchoverCandidates::Only(BTreeSet::from(["pg-0".to_owned()]));
        assert_eq!(standbys(&only), [of(0, 5, true), of(1, 7, false)]);
        assert_eq!(
            next_primary_before_scale_down(3, 2, &standbys(&SwitchoverCandidates::Any)),
            Some(ScaleDown::Lead(1))
        );
        assert_eq!(
            next_primary_before_scale_down(3, 2, &standbys(&only)),
            Some(ScaleDown::Lead(0))
        );
    }

    #[test]
    fn the_way_down_leads_to_a_primary_that_stays_whoever_is_synchronous() {
        for (pods, wish) in (2..6).flat_map(|pods| (1..pods).map(move |wish| (pods, wish))) {
            // Patroni makes another synchronous whenever somebody else leads, or the synchronous
            // one goes: the worst for us.
            for (leads, synchronous) in
                (wish..pods).flat_map(|leads| (0..pods).map(move |other| (leads, other)))
            {
                let (mut pods, mut leads, mut synchronous) = (pods, leads, synchronous);
                let mut steps = 0;
                while leads >= wish {
                    if synchronous == leads || synchronous >= pods {
                        synchronous = (0..pods)
                            .rev()
                            .find(|ordinal| *ordinal != leads)
                            .expect("a standby");
                    }
                    let standby = |ordinal| ScaleDownStandby {
                        ordinal,
                        position: 1,
                        may_lead: ordinal == synchronous,
                    };
                    let standbys: Vec<ScaleDownStandby> = (0..pods)
                        .filter(|ordinal| *ordinal != leads)
                        .map(standby)
                        .collect();
                    match next_primary_before_scale_down(leads, wish, &standbys).expect("a way") {
                        ScaleDown::Lead(next) => {
                            assert_eq!(next, synchronous);
                            leads = next;
                        }
                        ScaleDown::Keep(fewer) => {
                            assert!(
                                fewer < pods && fewer > leads,
                                "{fewer} of {pods}, {leads} leads"
                            );
                            pods = fewer;
                        }
                    }
                    steps += 1;
                    assert!(steps < 20, "it does not end");
                }
            }
        }
    }

    #[test]
    fn nobody_goes_while_none_of_those_that_stay_could_ever_lead() {
        let of = |ordinal, may_lead| ScaleDownStandby {
            ordinal,
            position: 1,
            may_lead,
        };
        // Those that stay do not stream.
        assert_eq!(next_primary_before_scale_down(4, 2, &[of(3, true)]), None);
        assert_eq!(
            next_primary_before_scale_down(2, 2, &[of(3, true), of(4, true)]),
            None
        );
        // Nobody is synchronous yet.
        assert_eq!(
            next_primary_before_scale_down(4, 2, &[of(0, false), of(1, false), of(3, false)]),
            None
        );
    }

    #[test]
    fn nobody_leads_whose_name_is_empty() {
        let record = |leader: &str| {
            let mut map = ConfigMap::default();
            map.annotations_mut()
                .insert("leader".to_owned(), leader.to_owned());
            map
        };
        assert_eq!(leader_of(&record("pg-1")), Some("pg-1"));
        assert_eq!(leader_of(&record("")), None);
        assert_eq!(leader_of(&ConfigMap::default()), None);
    }

    #[test]
    fn a_slot_is_named_as_patroni_names_it() {
        assert_eq!(slot("ha-postgres-2"), "ha_postgres_2");
    }
}
