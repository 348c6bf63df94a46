//! Finalizers: ours comes and goes, those of others stay.

use kube::api::{Api, Patch, PatchParams};
use kube::{Client, ResourceExt};
use serde_json::json;

use crate::cluster::apply::ObjectKind;
use crate::cluster::error::{Error, ObjectName};

/// What becomes of a finalizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finalizer {
    /// The object has it.
    Hold,
    /// The object does not have it, and may go.
    Release,
}

/// Gives this very object the finalizer, or takes it away. One that is gone is fine.
///
/// Finalizers are written as a whole list, over the one that was just read and no other: what
/// somebody adds in between would be lost.
///
/// # Errors
/// [`Error::Conflict`] where somebody was faster: look again.
pub async fn put<K: ObjectKind>(
    client: &Client,
    seen: &K,
    finalizer: &str,
    to: Finalizer,
) -> Result<(), Error> {
    let name = seen.name_any();
    let of = |error| Error::classify(ObjectName::new::<K>(&name), error);
    let api: Api<K> = Api::namespaced(client.clone(), &seen.namespace().unwrap_or_default());
    let live = api.get_opt(&name).await.map_err(of)?;
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
        Err(error) => Err(of(error)),
    }
}

/// The list as it should be, if it is another.
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
    fn those_of_others_stay_and_what_is_so_already_is_not_written() {
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
