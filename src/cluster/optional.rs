//! Watching a kind that a cluster may not have: cert-manager brings its own, may come later, and may be installed anew.
//!
//! # Guarantees
//! A kind that is not there is one that has no objects. It is looked for again after [`PAUSE`], and listed from the start when it
//! is there: what is known of it is what there is, whatever was there before. No error is passed on for it, because
//! `Controller::run` lets an error of one watch hold up the others, for up to half a minute.

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
pub struct Lack(Arc<AtomicBool>);

impl Lack {
    /// Whether the cluster has no such kind.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    fn note(&self, kind: &str, lacks: bool) {
        if self.0.swap(lacks, Ordering::AcqRel) != lacks {
            let pause = PAUSE.as_secs();
            if lacks {
                info!(kind, "this cluster does not know this kind; looking for it every {pause} s");
            } else {
                info!(kind, "this cluster knows this kind now");
            }
        }
    }
}

/// Watches a kind for ever, as [`watcher`] does, with back-off; in `lack` it notes whether there is such a kind.
pub fn watch<K>(api: Api<K>, config: Config, lack: Lack) -> impl Stream<Item = Result<Event<K>, Error>> + Send
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    stream::repeat_with(move || watch_once(api.clone(), config.clone(), lack.clone())).flatten()
}

/// Watches a kind until the cluster does not have it, says that there are none of it, and pauses.
fn watch_once<K>(api: Api<K>, config: Config, lack: Lack) -> impl Stream<Item = Result<Event<K>, Error>> + Send
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let kind = K::kind(&());
    let there = watcher(api, config).default_backoff().take_while(move |event| {
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
        Error::InitialListFailed(error) | Error::WatchStartFailed(error) | Error::WatchFailed(error) => {
            matches!(error, kube::Error::Api(status) if status.code == 404)
        }
        Error::WatchError(status) => status.code == 404,
        Error::NoResourceVersion => false,
    }
}
