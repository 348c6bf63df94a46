//! Watching a kind that a cluster may not have: cert-manager brings its own, may come later, and
//! may be installed anew.
//!
//! # Guarantees
//! A kind that is not there is one that has no objects. It is looked for again after [`PAUSE`], and
//! listed from the start when it is there: what is known of it is what there is, whatever was there
//! before. No error is passed on for it, because `Controller::run` lets an error of one watch hold
//! up the others, for up to half a minute.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::{Stream, StreamExt, future, stream};
use kube::runtime::watcher::{Config, Error, Event};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tracing::info;

/// How long until a kind is looked for again that the cluster does not have.
pub const PAUSE: Duration = Duration::from_secs(10);

/// Whether the cluster lacks a kind, as far as is known.
#[derive(Clone, Debug, Default)]
pub struct AbsentKind(Arc<AtomicBool>);

impl AbsentKind {
    /// Whether the cluster has no such kind.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    fn note(&self, kind: &str, lacks: bool) {
        if self.0.swap(lacks, Ordering::AcqRel) != lacks {
            let pause = PAUSE.as_secs();
            if lacks {
                info!(
                    kind,
                    "this cluster does not know this kind; looking for it every {pause} s"
                );
            } else {
                info!(kind, "this cluster knows this kind now");
            }
        }
    }
}

/// Watches a kind for ever, as [`fn@watcher`] does, with back-off; in `lack` it notes whether there
/// is such a kind.
pub fn watch<K>(
    api: Api<K>,
    config: Config,
    lack: AbsentKind,
) -> impl Stream<Item = Result<Event<K>, Error>> + Send
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    stream::repeat_with(move || watch_once(api.clone(), config.clone(), lack.clone())).flatten()
}

/// Watches a kind until the cluster does not have it, says that there are none of it, and pauses.
fn watch_once<K>(
    api: Api<K>,
    config: Config,
    lack: AbsentKind,
) -> impl Stream<Item = Result<Event<K>, Error>> + Send
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let kind = K::kind(&());
    let there = watcher(api, config)
        .default_backoff()
        .take_while(move |event| {
            match event {
                Err(error) if lacks_kind(error) => {
                    lack.note(&kind, true);
                    return future::ready(false);
                }
                // A watcher says that it begins before it has asked.
                Ok(Event::Init) | Err(_) => {}
                Ok(_) => lack.note(&kind, false),
            }
            future::ready(true)
        });
    let none = stream::iter([Ok(Event::Init), Ok(Event::InitDone)]);
    let pause = stream::once(tokio::time::sleep(PAUSE)).filter_map(|()| future::ready(None));
    there.chain(none).chain(pause)
}

/// Neither a list nor a watch is ever answered so for want of an object.
fn lacks_kind(error: &Error) -> bool {
    match error {
        Error::InitialListFailed(error)
        | Error::WatchStartFailed(error)
        | Error::WatchFailed(error) => {
            matches!(error, kube::Error::Api(status) if status.code == 404)
        }
        Error::WatchError(status) => status.code == 404,
        Error::NoResourceVersion => false,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::convert::Infallible;
    use std::sync::{Mutex, PoisonError};

    use http::{Request, Response, StatusCode};
    use kube::Client;
    use kube::client::Body;
    use serde_json::json;
    use tokio::time::Instant;

    use super::*;
    use crate::api::cert_manager::Issuer;

    /// An API server that has one kind of objects, or has not, and no other object.
    #[derive(Clone, Default)]
    pub(in crate::cluster) struct Fake(Arc<Mutex<WatchState>>);

    #[derive(Default)]
    struct WatchState {
        /// Part of the paths of the kind.
        path: &'static str,
        /// Names of its objects; nothing where the cluster does not have it.
        there: Option<Vec<&'static str>>,
        /// How often it was asked for.
        asked: usize,
    }

    impl Fake {
        pub(in crate::cluster) fn without(path: &'static str) -> Self {
            Self(Arc::new(Mutex::new(WatchState {
                path,
                ..WatchState::default()
            })))
        }

        pub(in crate::cluster) fn client(&self) -> Client {
            let fake = self.clone();
            let answer = move |request: Request<Body>| {
                let fake = fake.clone();
                async move { Ok::<_, Infallible>(fake.answer(request.uri()).await) }
            };
            Client::new(tower::service_fn(answer), "default")
        }

        pub(in crate::cluster) fn become_(&self, there: Option<Vec<&'static str>>) {
            self.state(|state| state.there = there);
        }

        fn state<T>(&self, look: impl FnOnce(&mut WatchState) -> T) -> T {
            look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
        }

        async fn answer(&self, uri: &http::Uri) -> Response<Body> {
            let is_watch = uri
                .query()
                .is_some_and(|query| query.contains("watch=true"));
            let there = self.state(|state| {
                let is_it = uri.path().contains(state.path);
                state.asked += usize::from(is_it);
                if is_it {
                    state.there.clone()
                } else {
                    Some(vec![])
                }
            });
            let Some(names) = there else {
                let nothing = Response::builder()
                    .status(StatusCode::NOT_FOUND)
                    .body(b"404 page not found\n".to_vec().into());
                return nothing.expect("an answer");
            };
            if is_watch {
                // Nothing happens, and the watch ends.
                tokio::time::sleep(Duration::from_secs(5)).await;
                return Response::new(Body::empty());
            }
            let item = |name| json!({"metadata": {"name": name, "namespace": "demo", "resourceVersion": "1"}, "spec": {}});
            let items: Vec<_> = names.into_iter().map(item).collect();
            let list = json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": "1"}, "items": items});
            Response::new(list.to_string().into_bytes().into())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_kind_that_is_not_there_holds_nobody_up_and_is_seldom_asked_for() {
        let fake = Fake::without("/issuers");
        let lack = AbsentKind::default();
        let events = watch(
            Api::<Issuer>::all(fake.client()),
            Config::default(),
            lack.clone(),
        );
        let end = Instant::now() + Duration::from_mins(1);
        let heard: Vec<_> = events
            .take_until(tokio::time::sleep_until(end))
            .collect()
            .await;
        assert!(heard.iter().all(Result::is_ok), "{heard:?}");
        assert!(
            heard
                .iter()
                .any(|event| matches!(event, Ok(Event::InitDone)))
                && lack.holds()
        );
        assert_eq!(fake.state(|state| state.asked), 6);
    }
}
