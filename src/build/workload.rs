//! Which pods belong to a database: those that its workload controls. Labels are no proof, because
//! everyone who may create a pod may put them on it.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::ResourceExt;

use crate::api::{PetSet, Postgres};

/// The controller that creates the pods of a PetSet.
#[derive(Clone, Copy, Debug)]
pub enum Realised<'a> {
    /// A PetSet controller: the PetSet itself owns the pods.
    Directly,
    /// The StatefulSet with the PetSet's name. `None` if it does not exist.
    By(Option<&'a ObjectMeta>),
}

/// The object that controls the pods of a database: a PetSet or a StatefulSet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    name: String,
    uid: String,
    /// Desired number of pods.
    replicas: i32,
}

/// The relation of a pod to a workload. The pod has the labels of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodOwnership {
    /// The workload controls the pod.
    Member,
    /// The workload controls the pod, and will remove it: its ordinal is too high.
    Surplus,
    /// The pod has the name of a member and no controller. The workload adopts it, for example
    /// after it was deleted and created again.
    Orphan,
    /// The pod does not belong to the workload.
    Stranger,
}

impl PodOwnership {
    /// Whether the workload controls the pod.
    #[must_use]
    pub const fn is_own(self) -> bool {
        matches!(self, Self::Member | Self::Surplus)
    }
}

impl Workload {
    /// The workload of a database, by its PetSet and the object that realises it. The error says
    /// why there is none.
    pub fn find(
        postgres: &Postgres,
        set: Option<&PetSet>,
        realised: Realised<'_>,
    ) -> Result<Self, String> {
        let name = postgres.name_any();
        let set = set.ok_or_else(|| format!("there is no PetSet {name}"))?;
        let uid = controlled(&set.metadata, postgres.metadata.uid.as_ref())
            .ok_or_else(|| format!("PetSet {name} is not the one of this database"))?;
        let uid = match realised {
            Realised::Directly => uid,
            Realised::By(None) => {
                return Err(format!(
                    "there is no StatefulSet {name} that realises the PetSet"
                ));
            }
            Realised::By(Some(stateful_set)) => {
                controlled(stateful_set, Some(uid)).ok_or_else(|| {
                    format!("StatefulSet {name} is not the one that realises the PetSet")
                })?
            }
        };
        Ok(Self {
            name,
            uid: uid.clone(),
            replicas: set.spec.replicas.unwrap_or(1),
        })
    }

    /// The relation of this pod to the workload.
    #[must_use]
    pub fn ownership(&self, pod: &Pod) -> PodOwnership {
        let Some(ordinal) = ordinal(&self.name, &pod.name_any()) else {
            return PodOwnership::Stranger;
        };
        match controller(&pod.metadata) {
            Some(owner) if owner.uid == self.uid && ordinal < self.replicas => PodOwnership::Member,
            Some(owner) if owner.uid == self.uid => PodOwnership::Surplus,
            // A controller adopts no object that is being deleted.
            None if pod.metadata.deletion_timestamp.is_none() => PodOwnership::Orphan,
            _ => PodOwnership::Stranger,
        }
    }
}

/// Whether a workload of this name created the pod. The workload itself may be gone: it is deleted
/// before its pods.
#[must_use]
pub fn is_made_by(name: &str, pod: &Pod) -> bool {
    let by = |owner: &OwnerReference| {
        ["StatefulSet", "PetSet"].contains(&owner.kind.as_str()) && owner.name == name
    };
    ordinal(name, &pod.name_any()).is_some() && controller(&pod.metadata).is_some_and(by)
}

/// The ordinal of a pod of the workload with this name. `None` if the pod has another name.
#[must_use]
pub fn ordinal(name: &str, pod: &str) -> Option<i32> {
    let text = pod.strip_prefix(name)?.strip_prefix('-')?;
    // Only the exact text: `+1` and `01` are numbers too.
    text.parse()
        .ok()
        .filter(|ordinal: &i32| ordinal.to_string() == text)
}

/// The uid of an object, if its controller has the uid `by`.
fn controlled<'a>(object: &'a ObjectMeta, by: Option<&String>) -> Option<&'a String> {
    let owner = controller(object)?;
    object.uid.as_ref().filter(|_| Some(&owner.uid) == by)
}

fn controller(object: &ObjectMeta) -> Option<&OwnerReference> {
    object
        .owner_references
        .iter()
        .flatten()
        .find(|owner| owner.controller == Some(true))
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::{Value, json};

    fn owner(kind: &str, uid: &str) -> Value {
        json!({"apiVersion": "any/v1", "kind": kind, "name": "pg", "uid": uid, "controller": true})
    }

    fn object(name: &str, uid: &str, owners: &[&Value]) -> ObjectMeta {
        serde_json::from_value(json!({"name": name, "uid": uid, "ownerReferences": owners}))
            .expect("metadata")
    }

    fn pet_set(owner_uid: &str) -> PetSet {
        let spec = json!({"replicas": 2, "selector": {}, "template": {}, "serviceName": "pg-pods"});
        let mut set = PetSet::new("pg", serde_json::from_value(spec).expect("a spec"));
        set.metadata = object("pg", "pet-set", &[&owner("Postgres", owner_uid)]);
        set
    }

    #[test]
    fn a_workload_is_found_only_along_a_chain_of_controllers_from_the_database() {
        let mut postgres = Postgres::new(
            "pg",
            serde_saphyr::from_str("version: '17'").expect("a spec"),
        );
        postgres.metadata.uid = Some("database".to_owned());
        let realises = |uid: &str| object("pg", "stateful-set", &[&owner("PetSet", uid)]);
        let (ours, old, nobodys) = (
            realises("pet-set"),
            realises("old"),
            object("pg", "stateful-set", &[]),
        );
        let (set, old_set) = (pet_set("database"), pet_set("old"));
        for (set, realised, expected) in [
            (Some(&set), Realised::By(Some(&ours)), Ok("stateful-set")),
            (Some(&set), Realised::Directly, Ok("pet-set")),
            (
                None,
                Realised::By(Some(&ours)),
                Err("there is no PetSet pg"),
            ),
            (
                Some(&old_set),
                Realised::By(Some(&ours)),
                Err("PetSet pg is not the one of this database"),
            ),
            (
                Some(&old_set),
                Realised::Directly,
                Err("PetSet pg is not the one of this database"),
            ),
            (
                Some(&set),
                Realised::By(None),
                Err("there is no StatefulSet pg that realises the PetSet"),
            ),
            (
                Some(&set),
                Realised::By(Some(&old)),
                Err("StatefulSet pg is not the one that realises the PetSet"),
            ),
            (
                Some(&set),
                Realised::By(Some(&nobodys)),
                Err("StatefulSet pg is not the one that realises the PetSet"),
            ),
        ] {
            let found = Workload::find(&postgres, set, realised);
            assert_eq!(
                found
                    .as_ref()
                    .map(|workload| workload.uid.as_str())
                    .map_err(String::as_str),
                expected
            );
        }
    }

    #[test]
    fn a_pod_is_the_databases_by_its_controller_and_its_name_and_not_by_its_labels() {
        let workload = Workload {
            name: "pg".to_owned(),
            uid: "ours".to_owned(),
            replicas: 2,
        };
        let (ours, before, theirs) = (
            owner("StatefulSet", "ours"),
            owner("StatefulSet", "before"),
            owner("ReplicaSet", "theirs"),
        );
        let mut mentioned = ours.clone();
        mentioned["controller"] = json!(false);
        let (mentions, ours): (&[_], &[_]) = (&[&mentioned], &[&ours]);
        for (name, owners, leaving, expected) in [
            ("pg-0", ours, false, PodOwnership::Member),
            ("pg-1", &[&mentioned, ours[0]], false, PodOwnership::Member),
            ("pg-1", ours, true, PodOwnership::Member),
            ("pg-2", ours, false, PodOwnership::Surplus),
            ("pg-1", &[], false, PodOwnership::Orphan),
            ("pg-1", mentions, false, PodOwnership::Orphan),
            ("pg-1", &[], true, PodOwnership::Stranger),
            ("pg-1", &[&before], false, PodOwnership::Stranger),
            ("pg-1", &[&theirs], false, PodOwnership::Stranger),
            ("impostor", &[], false, PodOwnership::Stranger),
            ("impostor", ours, false, PodOwnership::Stranger),
            ("pg-x", ours, false, PodOwnership::Stranger),
            ("pg-01", ours, false, PodOwnership::Stranger),
            ("pg-+1", ours, false, PodOwnership::Stranger),
            ("pg-x-0", ours, false, PodOwnership::Stranger),
        ] {
            let mut pod = Pod {
                metadata: object(name, name, owners),
                ..Pod::default()
            };
            pod.metadata.deletion_timestamp = leaving.then_some(Time(Timestamp::UNIX_EPOCH));
            assert_eq!(workload.ownership(&pod), expected, "{:?}", pod.metadata);
        }
    }

    #[test]
    fn at_the_end_of_a_database_the_pods_of_its_workload_are_waited_for_and_no_others() {
        let (stateful_set, set, job) = (
            owner("StatefulSet", "any"),
            owner("PetSet", "any"),
            owner("Job", "any"),
        );
        for (name, owners, expected) in [
            ("pg-0", &[&stateful_set][..], true),
            ("pg-0", &[&set], true),
            ("pg-0", &[&job], false),
            ("pg-0", &[], false),
            ("other-0", &[&stateful_set], false),
            ("impostor", &[&stateful_set], false),
        ] {
            let pod = Pod {
                metadata: object(name, name, owners),
                ..Pod::default()
            };
            assert_eq!(is_made_by("pg", &pod), expected, "{:?}", pod.metadata);
        }
        let other = Pod {
            metadata: object("other-0", "", &[&stateful_set]),
            ..Pod::default()
        };
        assert!(!is_made_by("other", &other), "it is of the set pg");
    }
}
