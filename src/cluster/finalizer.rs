//! Adds and removes pgrekey's finalizer, and keeps those of others.

use kube::api::{Api, Patch, PatchParams};
use kube::{Client, ResourceExt};
use serde_json::json;

use crate::cluster::apply::ObjectKind;
use crate::cluster::error::{Error, ObjectName};

/// The wish for a finalizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finalizer {
    /// The object shall have it.
    Hold,
    /// The object shall not have it, so that Kubernetes can delete it.
    Release,
}

/// Adds the finalizer to the object with this uid, or removes it. It is no error if that object is
/// deleted already.
///
/// Finalizers are written as a whole list. The resourceVersion makes sure that no other client has
/// changed the list since it was read.
///
/// # Errors
/// [`Error::Conflict`] if another client has changed the object: read it again.
pub async fn put<K: ObjectKind>(
    client: &Client,
    seen: &K,
    finalizer: &str,
    to: Finalizer,
) -> Result<(), Error> {
    let name = seen.name_any();
    let classify = |error| Error::classify(ObjectName::new::<K>(&name), error);
    let api: Api<K> = Api::namespaced(client.clone(), &seen.namespace().unwrap_or_default());
    let live = api.get_opt(&name).await.map_err(classify)?;
    let Some(live) = live.filter(|live| live.uid() == seen.uid()) else {
        return Ok(());
    };
    let Some(finalizers) = changed(live.finalizers(), finalizer, to) else {
        return Ok(());
    };
    let patch =
        json!({"metadata": {"resourceVersion": live.resource_version(), "finalizers": finalizers}});
    match api
        .patch(&name, &PatchParams::default(), &Patch::Merge(patch))
        .await
    {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(error) => Err(classify(error)),
    }
}

/// The wished list. `None` if the list is as wished.
fn changed<'a>(all: &'a [String], finalizer: &'a str, to: Finalizer) -> Option<Vec<&'a str>> {
    let all = all.iter().map(String::as_str);
    let is_there = all.clone().any(|one| one == finalizer);
    match to {
        Finalizer::Hold => (!is_there).then(|| all.chain([finalizer]).collect()),
        Finalizer::Release => is_there.then(|| all.filter(|one| *one != finalizer).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_finalizers_of_others_stay_and_an_unchanged_list_is_not_written() {
        let all = |text: &[&str]| text.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            changed(&all(&["a"]), "ours", Finalizer::Hold),
            Some(vec!["a", "ours"])
        );
        assert_eq!(
            changed(&all(&["ours", "a"]), "ours", Finalizer::Release),
            Some(vec!["a"])
        );
        assert_eq!(changed(&all(&["ours"]), "ours", Finalizer::Hold), None);
        assert_eq!(changed(&all(&["a"]), "ours", Finalizer::Release), None);
    }
}
