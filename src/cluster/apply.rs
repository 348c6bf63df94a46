//! Writes the objects of one owner: only the objects that differ, and none that others own.
//!
//! # Guarantees
//! An object that is as wished is not written. An object with another owner is neither written nor
//! deleted: the error names the owner. A change or deletion applies to the object that was read, by
//! its uid. A creation fails if the object exists meanwhile.
//!
//! # Assumptions
//! Only one controller writes the objects of an owner.

use std::collections::BTreeMap;
use std::fmt::Debug;

use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use kube::api::{
    Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, Preconditions,
    PropagationPolicy,
};
use kube::core::ApiResource;
use kube::{Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tracing::debug;

use crate::cluster::FIELD_MANAGER;
use crate::cluster::drift::needs_apply;
use crate::cluster::error::{Error, NameConflict, ObjectName};

/// The effect of an apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApplyOutcome {
    /// No effect: the object was as wished.
    Nothing,
    /// The object was created.
    Created,
    /// The object was changed.
    Changed,
}

/// A kind whose objects are in a namespace.
pub trait ObjectKind:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + Serialize
    + DeserializeOwned
    + Send
    + Sync
{
}

impl<K> ObjectKind for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + Serialize
        + DeserializeOwned
        + Send
        + Sync
{
}

/// When pgrekey last changed this object by an apply, by the API server's clock.
pub fn applied_at<K: Resource>(live: &K) -> Option<Timestamp> {
    let entries = live.meta().managed_fields.iter().flatten();
    let ours = entries.filter(|entry| {
        entry.manager.as_deref() == Some(FIELD_MANAGER)
            && entry.operation.as_deref() == Some("Apply")
            && entry.subresource.is_none()
    });
    ours.filter_map(|entry| entry.time.as_ref())
        .map(|Time(time)| *time)
        .max()
}

/// The objects that one owner controls.
#[derive(Clone)]
pub struct Objects {
    client: Client,
    namespace: String,
    owner: OwnerReference,
    labels: BTreeMap<String, String>,
}

impl Debug for Objects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Objects")
            .field("owner", &self.owner.name)
            .finish_non_exhaustive()
    }
}

impl Objects {
    /// The objects that this owner controls and that have these labels. `None` for an owner that
    /// was never stored.
    pub fn owned_by<O: ObjectKind>(
        client: &Client,
        owner: &O,
        labels: BTreeMap<String, String>,
    ) -> Option<Self> {
        Some(Self {
            client: client.clone(),
            namespace: owner.namespace()?,
            owner: owner.controller_owner_ref(&())?,
            labels,
        })
    }

    /// The API of a kind in the owner's namespace.
    #[must_use]
    pub fn api<K: ObjectKind>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The owner's namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The object of this name, whatever its owner. `None` for a kind of cert-manager's if
    /// cert-manager is not installed.
    pub async fn get<K: ObjectKind>(&self, name: &str) -> Result<Option<K>, Error> {
        match self
            .api()
            .get_opt(name)
            .await
            .map_err(|error| Error::classify(ObjectName::new::<K>(name), error))
        {
            Err(Error::UnknownKind(what)) if what.is_of_cert_manager() => Ok(None),
            found => found,
        }
    }

    /// Whether an object is ours: see `owner_of`.
    pub fn is_owned(&self, object: &impl ObjectKind) -> bool {
        self.owner_of(object.meta()).is_ok()
    }

    /// The object of this name, if it is ours.
    pub async fn owned<K: ObjectKind>(&self, name: &str) -> Result<Option<K>, Error> {
        Ok(self
            .get::<K>(name)
            .await?
            .filter(|object| self.is_owned(object)))
    }

    /// The objects of a kind with our labels, whatever their owner: pods and claims belong to a
    /// StatefulSet.
    pub async fn labelled<K: ObjectKind>(&self) -> Result<Vec<K>, Error> {
        let selector: Vec<String> = self
            .labels
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        let listed = self
            .api::<K>()
            .list(&ListParams::default().labels(&selector.join(",")))
            .await;
        listed
            .map(|list| list.items)
            .map_err(|error| Error::classify(ObjectName::new::<K>(&self.owner.name), error))
    }

    /// Applies the wished object unless it already is as wished. The owner reference is added to
    /// the wish.
    pub async fn apply<K: ObjectKind>(&self, wish: K) -> Result<ApplyOutcome, Error> {
        let live = self.get::<K>(&wish.name_any()).await?;
        self.apply_over(live.as_ref(), wish).await
    }

    /// As [`Objects::apply`], over an object that the caller has read.
    pub async fn apply_over<K: ObjectKind>(
        &self,
        live: Option<&K>,
        wish: K,
    ) -> Result<ApplyOutcome, Error> {
        let what = ObjectName::new::<K>(&wish.name_any());
        self.apply_in(&self.api::<K>(), what, live, wish).await
    }

    /// As [`Objects::apply`], for a kind that the cluster may not have. `None` if it does not.
    pub async fn apply_if_known(
        &self,
        kind: &ApiResource,
        wish: DynamicObject,
    ) -> Result<Option<ApplyOutcome>, Error> {
        let api = self.dynamic_api(kind);
        let what = ObjectName::dynamic(kind, &wish.name_any());
        let applied = async {
            let live = api.get_opt(&what.name).await;
            let live = live.map_err(|error| Error::classify(what.clone(), error))?;
            self.apply_in(&api, what, live.as_ref(), wish).await
        };
        match applied.await {
            Ok(outcome) => Ok(Some(outcome)),
            Err(Error::UnknownKind(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn apply_in<K>(
        &self,
        api: &Api<K>,
        what: ObjectName,
        live: Option<&K>,
        mut wish: K,
    ) -> Result<ApplyOutcome, Error>
    where
        K: Resource + Clone + Debug + Serialize + DeserializeOwned,
    {
        wish.meta_mut().owner_references = Some(vec![self.owner.clone()]);
        let mut body = json_of(&what, &wish)?;
        let mut parameters = PatchParams::apply(FIELD_MANAGER);
        if let Some(live) = live {
            self.owner_of(live.meta()).map_err(|owner| {
                Error::InTheWay(NameConflict {
                    what: what.clone(),
                    owner,
                })
            })?;
            if !needs_apply(&json_of(&what, live)?, &body) {
                return Ok(ApplyOutcome::Nothing);
            }
            // Takes back fields that another field manager has taken.
            parameters = parameters.force();
        }
        bind(&mut body, live.map(Resource::meta));
        let before = live.and_then(ResourceExt::resource_version);
        let after = match api
            .patch(&what.name, &parameters, &Patch::Apply(&body))
            .await
        {
            // An apply keeps the elements that others have added to a list. They may not go with
            // ours, such as a second port of the same name. A merge patch replaces whole lists.
            Err(kube::Error::Api(status)) if status.code == 422 && live.is_some() => {
                let parameters = PatchParams {
                    field_manager: parameters.field_manager,
                    ..PatchParams::default()
                };
                api.patch(&what.name, &parameters, &Patch::Merge(&body))
                    .await
            }
            after => after,
        };
        let after = after.map_err(|error| Error::classify(what.clone(), error))?;
        let outcome = match before {
            None => ApplyOutcome::Created,
            before if before == after.resource_version() => ApplyOutcome::Nothing,
            Some(_) => ApplyOutcome::Changed,
        };
        // `Nothing` means that `needs_apply` does not know one of the API server's defaults.
        debug!(%what, ?outcome, "applied");
        Ok(outcome)
    }

    /// Applies the wish. Without a wish it deletes the object of this name, if that is ours, and
    /// returns `None`.
    pub async fn apply_or_delete<K: ObjectKind>(
        &self,
        wish: Option<K>,
        name: &str,
    ) -> Result<Option<ApplyOutcome>, Error> {
        match wish {
            Some(wish) => self.apply(wish).await.map(Some),
            None => self.delete::<K>(name).await.map(|_| None),
        }
    }

    /// Deletes the object of this name if it is ours, and returns whether it did. Kubernetes
    /// deletes the objects that it owns afterwards.
    pub async fn delete<K: ObjectKind>(&self, name: &str) -> Result<bool, Error> {
        let Some(object) = self.owned::<K>(name).await? else {
            return Ok(false);
        };
        self.delete_seen(&object).await?;
        Ok(true)
    }

    /// Deletes the object with this uid, whatever its owner. It is no error if the object is
    /// deleted already.
    pub async fn delete_seen<K: ObjectKind>(&self, object: &K) -> Result<(), Error> {
        let what = ObjectName::new::<K>(&object.name_any());
        delete_in(&self.api::<K>(), what, object).await
    }

    /// Removes the owner reference from this object, so that it stays when its owner is deleted.
    pub async fn orphan<K: ObjectKind>(&self, name: &str) -> Result<(), Error> {
        let Some(object) = self.owned::<K>(name).await? else {
            return Ok(());
        };
        let what = ObjectName::new::<K>(name);
        let others: Vec<_> = object
            .owner_references()
            .iter()
            .filter(|owner| owner.uid != self.owner.uid)
            .collect();
        if others.len() == object.owner_references().len() {
            return Ok(());
        }
        let patch = json!({"metadata": {
            "uid": object.uid(),
            "resourceVersion": object.resource_version(),
            "ownerReferences": others,
        }});
        let parameters = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let patched = self
            .api::<K>()
            .patch(name, &parameters, &Patch::Merge(&patch))
            .await;
        patched
            .map(|_| ())
            .map_err(|error| Error::classify(what, error))
    }

    /// As [`Objects::delete`], for a kind that the cluster may not have.
    pub async fn delete_if_known(&self, kind: &ApiResource, name: &str) -> Result<(), Error> {
        let api = self.dynamic_api(kind);
        let what = ObjectName::dynamic(kind, name);
        match api.get(name).await {
            Ok(live) if self.owner_of(live.meta()).is_ok() => delete_in(&api, what, &live).await,
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(Error::classify(what, error)),
        }
    }

    fn dynamic_api(&self, kind: &ApiResource) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.namespace, kind)
    }

    /// `Ok` if an object is ours, else its owner.
    ///
    /// An object is ours if we are its controller, or if it has no controller and has our labels.
    /// The second covers Secrets that were kept when a database of this name was deleted, and
    /// objects whose owner reference was removed.
    fn owner_of(&self, object: &ObjectMeta) -> Result<(), Option<ObjectName>> {
        let controller = object
            .owner_references
            .iter()
            .flatten()
            .find(|owner| owner.controller == Some(true));
        match controller {
            Some(owner) if owner.uid == self.owner.uid => Ok(()),
            Some(owner) => Err(Some(ObjectName {
                kind: owner.kind.clone(),
                name: owner.name.clone(),
            })),
            None if self.labels.iter().all(|(key, value)| {
                object.labels.as_ref().and_then(|l| l.get(key)) == Some(value)
            }) =>
            {
                Ok(())
            }
            None => Err(None),
        }
    }
}

async fn delete_in<K>(api: &Api<K>, what: ObjectName, object: &K) -> Result<(), Error>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    if object.meta().deletion_timestamp.is_some() {
        return Ok(());
    }
    let parameters = DeleteParams {
        preconditions: Some(Preconditions {
            uid: object.uid(),
            resource_version: None,
        }),
        propagation_policy: Some(PropagationPolicy::Background),
        ..DeleteParams::default()
    };
    match api.delete(&what.name, &parameters).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(Error::classify(what, error)),
    }
}

/// Binds an apply to the object that was read: it fails if that object was replaced, or if none was
/// read and there is one now.
///
/// An apply cannot say "create only". With a resourceVersion the API server answers with a conflict
/// if the object exists in another version, and ignores the field if it creates the object. No
/// object has version 1: etcd gives that to the empty store.
fn bind(body: &mut Value, live: Option<&ObjectMeta>) {
    match live {
        Some(live) => body["metadata"]["uid"] = json!(live.uid),
        None => body["metadata"]["resourceVersion"] = json!("1"),
    }
}

fn json_of(what: &ObjectName, object: &impl Serialize) -> Result<Value, Error> {
    serde_json::to_value(object).map_err(|error| Error::Bug {
        what: what.clone(),
        why: error.to_string(),
    })
}

#[cfg(test)]
mod tests;
