//! Writing the objects of one owner: only what differs, and never over somebody else's.
//!
//! # Guarantees
//! An object that is as it should be is not written. An object that is not ours is neither written
//! nor deleted: the error names it. What is deleted or changed is the very object that was looked
//! at; what is created was not there.
//!
//! # Assumptions
//! One loop writes the objects of one owner.

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

/// What an application did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApplyOutcome {
    /// Nothing: it was as it should be.
    Nothing,
    /// It was not there.
    Created,
    /// It was different.
    Changed,
}

/// A kind of object that a namespace holds.
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

/// When we last made this object something else, by the API server's clock.
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

/// The objects of one owner.
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
    /// The objects that this owner controls and that carry these labels. `None` for an owner that
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

    /// All objects of a kind in the owner's namespace.
    #[must_use]
    pub fn api<K: ObjectKind>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The object of this name, whoever owns it. Where cert-manager is not installed there is none
    /// of its kinds.
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

    /// Whether an object is ours.
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

    /// The objects of a kind that carry our labels, whoever owns them: what a StatefulSet makes has
    /// no owner that we know.
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

    /// Makes the object what the wish says, if it is not; the owner reference is added to the wish.
    pub async fn apply<K: ObjectKind>(&self, wish: K) -> Result<ApplyOutcome, Error> {
        let live = self.get::<K>(&wish.name_any()).await?;
        self.apply_over(live.as_ref(), wish).await
    }

    /// The same, for who has looked already.
    pub async fn apply_over<K: ObjectKind>(
        &self,
        live: Option<&K>,
        mut wish: K,
    ) -> Result<ApplyOutcome, Error> {
        let what = ObjectName::new::<K>(&wish.name_any());
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
            // Fields that somebody else has taken are taken back.
            parameters = parameters.force();
        }
        bind(&mut body, live.map(Resource::meta));
        let before = live.and_then(ResourceExt::resource_version);
        let api = self.api::<K>();
        let after = match api
            .patch(&what.name, &parameters, &Patch::Apply(&body))
            .await
        {
            // An application keeps what others have put into a list beside what is ours, and the
            // two may not fit together: a second port of the same name. A merge takes whole lists.
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
        let done = match before {
            None => ApplyOutcome::Created,
            before if before == after.resource_version() => ApplyOutcome::Nothing,
            Some(_) => ApplyOutcome::Changed,
        };
        // `Nothing` here is a difference that was none: a default that `differs` does not know of.
        debug!(%what, ?done, "applied");
        Ok(done)
    }

    /// Makes the object what the wish says; where nothing is wished for, deletes the one of this
    /// name, if it is ours. `None`: there is to be none.
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

    /// Deletes the object of this name if it is ours, and says whether there was one. What it owns
    /// is collected afterwards.
    pub async fn delete<K: ObjectKind>(&self, name: &str) -> Result<bool, Error> {
        let Some(object) = self.owned::<K>(name).await? else {
            return Ok(false);
        };
        self.delete_seen(&object).await?;
        Ok(true)
    }

    /// Deletes this very object, whoever owns it. One that is gone or going is fine.
    pub async fn delete_seen<K: ObjectKind>(&self, object: &K) -> Result<(), Error> {
        if object.meta().deletion_timestamp.is_some() {
            return Ok(());
        }
        let what = ObjectName::new::<K>(&object.name_any());
        let parameters = DeleteParams {
            preconditions: Some(Preconditions {
                uid: object.uid(),
                resource_version: None,
            }),
            propagation_policy: Some(PropagationPolicy::Background),
            ..DeleteParams::default()
        };
        match self.api::<K>().delete(&what.name, &parameters).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(Error::classify(what, error)),
        }
    }

    /// Lets go of this object: it stays when its owner goes.
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

    /// As [`Objects::apply`], for a kind that not every cluster has; `None` where it has not.
    pub async fn apply_if_known(
        &self,
        kind: &ApiResource,
        mut wish: DynamicObject,
    ) -> Result<Option<ApplyOutcome>, Error> {
        let what = ObjectName {
            kind: kind.kind.clone(),
            name: wish.name_any(),
        };
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), &self.namespace, kind);
        wish.metadata.owner_references = Some(vec![self.owner.clone()]);
        let mut body = dynamic_json(&what, &wish)?;
        let mut parameters = PatchParams::apply(FIELD_MANAGER);
        let live = present(api.get(&what.name).await)
            .map_err(|error| Error::classify(what.clone(), error))?;
        if let Some(live) = &live {
            self.owner_of(&live.metadata).map_err(|owner| {
                Error::InTheWay(NameConflict {
                    what: what.clone(),
                    owner,
                })
            })?;
            if !needs_apply(&dynamic_json(&what, live)?, &body) {
                return Ok(Some(ApplyOutcome::Nothing));
            }
            parameters = parameters.force();
        }
        bind(&mut body, live.as_ref().map(|live| &live.metadata));
        let after = present(
            api.patch(&what.name, &parameters, &Patch::Apply(&body))
                .await,
        );
        let after = after.map_err(|error| Error::classify(what, error))?;
        Ok(after.map(|_| {
            if live.is_some() {
                ApplyOutcome::Changed
            } else {
                ApplyOutcome::Created
            }
        }))
    }

    /// As [`Objects::delete`], for a kind that not every cluster has.
    pub async fn delete_if_known(&self, kind: &ApiResource, name: &str) -> Result<(), Error> {
        let what = ObjectName {
            kind: kind.kind.clone(),
            name: name.to_owned(),
        };
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), &self.namespace, kind);
        let live =
            present(api.get(name).await).map_err(|error| Error::classify(what.clone(), error))?;
        let Some(live) = live.filter(|live| self.owner_of(&live.metadata).is_ok()) else {
            return Ok(());
        };
        let preconditions = Some(Preconditions {
            uid: live.uid(),
            resource_version: None,
        });
        let parameters = DeleteParams {
            preconditions,
            ..DeleteParams::default()
        };
        match api.delete(name, &parameters).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            Err(error) => Err(Error::classify(what, error)),
        }
    }

    /// Whether an object is ours; if not, whose it is.
    ///
    /// Ours is what we control, and what nobody controls but carries our labels: the Secret of an
    /// earlier life of the same database, which was let go, and an object whose owner somebody has
    /// removed.
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

/// Binds an application to the object that was looked at; where there was none, to there being
/// none.
///
/// An application has no word for the latter. The API server answers with a conflict where the
/// object that is there has another version than the one that is given, and does not look at it
/// where it creates. etcd gives no object the first version: that is the empty store's.
fn bind(body: &mut Value, live: Option<&ObjectMeta>) {
    match live {
        Some(live) => body["metadata"]["uid"] = json!(live.uid),
        None => body["metadata"]["resourceVersion"] = json!("1"),
    }
}

/// Neither the object nor its kind need be there. What is said about a kind that is not there is no
/// answer in Kubernetes' form.
fn present<T>(answer: kube::Result<T>) -> kube::Result<Option<T>> {
    match answer {
        Ok(object) => Ok(Some(object)),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(error) => Err(error),
    }
}

fn dynamic_json(what: &ObjectName, object: &DynamicObject) -> Result<Value, Error> {
    serde_json::to_value(object).map_err(|error| Error::Bug {
        what: what.clone(),
        why: error.to_string(),
    })
}

fn json_of<K: ObjectKind>(what: &ObjectName, object: &K) -> Result<Value, Error> {
    serde_json::to_value(object).map_err(|error| Error::Bug {
        what: what.clone(),
        why: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;
    use crate::api::cert_manager::{Certificate, CertificateSpec};
    use crate::cluster::optional::tests::Fake;

    fn objects(cluster: &Fake) -> Objects {
        let mut owner = ConfigMap::default();
        let metadata = json!({"name": "pg", "namespace": "demo", "uid": "1"});
        owner.metadata = serde_json::from_value(metadata).expect("metadata");
        Objects::owned_by(&cluster.client(), &owner, BTreeMap::new()).expect("an owner")
    }

    #[tokio::test]
    async fn without_cert_manager_there_is_nothing_of_its_to_see_or_to_delete_and_nothing_can_be_made()
     {
        let objects = objects(&Fake::without("/apis/cert-manager.io/"));
        assert_eq!(
            objects.get::<Certificate>("pg").await.expect("an answer"),
            None
        );
        let certificate = Certificate::new("pg", CertificateSpec::default());
        assert!(
            !objects
                .delete::<Certificate>("pg")
                .await
                .expect("an answer")
        );
        assert!(objects.delete_seen(&certificate).await.is_ok());
        assert!(matches!(
            objects.apply(certificate).await,
            Err(Error::UnknownKind(_))
        ));
        // What pgrekey cannot do without is another matter.
        let without = self::objects(&Fake::without("/configmaps"));
        assert!(matches!(
            without.get::<ConfigMap>("pg").await,
            Err(Error::UnknownKind(_))
        ));
    }

    #[test]
    fn what_is_applied_is_bound_to_what_was_seen() {
        let bound = |live: Option<&ObjectMeta>| {
            let mut body = json!({"metadata": {"name": "pg"}});
            bind(&mut body, live);
            body
        };
        let live = ObjectMeta {
            uid: Some("1".to_owned()),
            ..ObjectMeta::default()
        };
        assert_eq!(
            bound(Some(&live)),
            json!({"metadata": {"name": "pg", "uid": "1"}})
        );
        assert_eq!(
            bound(None),
            json!({"metadata": {"name": "pg", "resourceVersion": "1"}})
        );
    }
}
