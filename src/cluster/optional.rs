//! Watches a kind that a cluster may not have: cert-manager may be installed later, or again.
//!
//! # Guarantees
//! A kind that the cluster does not have counts as one without objects. The watch asks for it again
//! after [`PAUSE`], and lists all objects once the kind exists. The missing kind is no error of the
//! stream, because an error of one watch delays all others in `Controller::run` by up to half a
//! minute.

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

/// Time between two requests for a kind that the cluster does not have.
pub const PAUSE: Duration = Duration::from_secs(10);

/// Whether the cluster lacks a kind, by the last answer of the API server.
#[derive(Clone, Debug, Default)]
pub struct AbsentKind(Arc<AtomicBool>);

impl AbsentKind {
    /// Whether the cluster lacks the kind.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    fn set(&self, kind: &str, is_absent: bool) {
        if self.0.swap(is_absent, Ordering::AcqRel) != is_absent {
            let pause = PAUSE.as_secs();
            if is_absent {
                info!(
                    kind,
                    "this cluster does not have this kind; asking for it every {pause} s"
                );
            } else {
                info!(kind, "this cluster has this kind now");
            }
        }
    }
}

/// Watches a kind for ever, as [`fn@watcher`] does, with back-off. `absence` tells whether the
/// cluster lacks the kind.
pub fn watch<K>(
    api: Api<K>,
    config: Config,
    absence: AbsentKind,
) -> impl Stream<Item = Result<Event<K>, Error>> + Send
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    stream::repeat_with(move || watch_once(api.clone(), config.clone(), absence.clone())).flatten()
}

/// Watches a kind until the cluster does not have it, then reports an empty list and pauses.
fn watch_once<K>(
    api: Api<K>,
    config: Config,
    absence: AbsentKind,
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
                    absence.set(&kind, true);
                    return future::ready(false);
                }
                // A watcher sends `Init` before its first request.
                Ok(Event::Init) | Err(_) => {}
                Ok(_) => absence.set(&kind, false),
            }
            future::ready(true)
        });
    let none = stream::iter([Ok(Event::Init), Ok(Event::InitDone)]);
    let pause = stream::once(tokio::time::sleep(PAUSE)).filter_map(|()| future::ready(None));
    there.chain(none).chain(pause)
}

/// Whether an error means that the cluster lacks the kind. A list or a watch has no other 404.
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

    /// An API server that may lack one kind, and has no objects of other kinds.
    #[derive(Clone, Default)]
    pub(in crate::cluster) struct Fake(Arc<Mutex<WatchState>>);

    #[derive(Default)]
    struct WatchState {
        /// Part of the paths of the kind.
        path: &'static str,
        /// Names of its objects. `None` if the cluster does not have the kind.
        names: Option<Vec<&'static str>>,
        /// The number of requests for it.
        requests: usize,
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

        pub(in crate::cluster) fn set_objects(&self, names: Option<Vec<&'static str>>) {
            self.with_state(|state| state.names = names);
        }

        fn with_state<T>(&self, run: impl FnOnce(&mut WatchState) -> T) -> T {
            run(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
        }

        async fn answer(&self, uri: &http::Uri) -> Response<Body> {
            let is_watch = uri
                .query()
                .is_some_and(|query| query.contains("watch=true"));
            let names = self.with_state(|state| {
                let is_it = uri.path().contains(state.path);
                state.requests += usize::from(is_it);
                if is_it {
                    state.names.clone()
                } else {
                    Some(vec![])
                }
            });
            let Some(names) = names else {
                let nothing = Response::builder()
                    .status(StatusCode::NOT_FOUND)
                    .body(b"404 page not found\n".to_vec().into());
                return nothing.expect("an answer");
            };
            if is_watch {
                // The watch ends without an event.
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
    async fn a_missing_kind_delays_no_watch_and_is_seldom_asked_for() {
        let fake = Fake::without("/issuers");
        let absence = AbsentKind::default();
        let events = watch(
            Api::<Issuer>::all(fake.client()),
            Config::default(),
            absence.clone(),
        );
        let end = Instant::now() + Duration::from_mins(1);
        let events: Vec<_> = events
            .take_until(tokio::time::sleep_until(end))
            .collect()
            .await;
        assert!(events.iter().all(Result::is_ok), "{events:?}");
        assert!(
            events
                .iter()
                .any(|event| matches!(event, Ok(Event::InitDone)))
                && absence.holds()
        );
        assert_eq!(fake.with_state(|state| state.requests), 6);
    }
}
