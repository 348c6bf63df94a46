//! What happens around every request: a place among those in flight, a limit for its body and its time, and a panic caught.

use std::any::Any;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::DefaultBodyLimit;
use http::header::{CONNECTION, CONTENT_TYPE};
use http::{HeaderValue, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower::Service;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::limit::RequestBodyLimitLayer;

use super::connections::Activity;
use super::limits::Limits;
use crate::metrics::{ServerMetrics, Shed};

/// Longer texts are no duration that an API server sends. It also keeps the parser from numbers that overflow.
const TIMEOUT_TEXT: usize = 12;

/// The router, with what all its requests share. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Application {
    router: Router,
    in_flight: Arc<Semaphore>,
    limits: Limits,
    metrics: ServerMetrics,
    /// Set from the shutdown signal on.
    ending: CancellationToken,
}

impl Application {
    pub(super) fn new(router: Router, limits: Limits, metrics: ServerMetrics, ending: CancellationToken) -> Self {
        let panics = metrics.clone();
        let router = router
            // axum has a limit of its own, 2 MB, for handlers that take the whole body.
            .layer(DefaultBodyLimit::disable())
            .layer(RequestBodyLimitLayer::new(limits.body))
            .layer(CatchPanicLayer::custom(move |_: Box<dyn Any + Send>| {
                // The panic hook has said where and why; the payload may hold anything and goes no further.
                panics.shed(Shed::Panic);
                said(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "pgrekey: a bug: this request made its handler panic; see the log",
                )
            }));
        Self { router, in_flight: Arc::new(Semaphore::new(limits.in_flight)), limits, metrics, ending }
    }

    /// Answers one request of a connection.
    pub(super) async fn answer(
        mut self,
        activity: Arc<Activity>,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Infallible> {
        let _in_use = activity.request();
        let version = request.version();
        let mut response = self.response(request).await;
        // A caller that has been told leaves between two requests. One that is cut off may be in the middle of writing.
        // HTTP/2 has GOAWAY for this, and forbids the header.
        if self.ending.is_cancelled() && version <= Version::HTTP_11 {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(response)
    }

    async fn response(&mut self, request: Request<Incoming>) -> Response<Body> {
        let Ok(_place) = self.in_flight.try_acquire() else {
            self.metrics.shed(Shed::InFlight);
            let text = format!("pgrekey: {} requests are in flight already; try again", self.limits.in_flight);
            return said(StatusCode::SERVICE_UNAVAILABLE, &text);
        };
        let limit = patience(request.uri().query(), &self.limits);
        match tokio::time::timeout(limit, self.router.call(request.map(Body::new))).await {
            Ok(Ok(response)) => response,
            Ok(Err(never)) => match never {},
            Err(_) => {
                self.metrics.shed(Shed::Timeout);
                let text = format!("pgrekey: this request was not read and answered within {limit:?}");
                said(StatusCode::GATEWAY_TIMEOUT, &text)
            }
        }
    }
}

fn said(status: StatusCode, text: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(format!("{text}\n")));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// How long the caller waits, by its `?timeout=` in Go's text for durations.
fn patience(query: Option<&str>, limits: &Limits) -> Duration {
    let said = query.unwrap_or_default().split('&').find_map(|pair| pair.strip_prefix("timeout="));
    said.and_then(duration).filter(|d| !d.is_zero()).unwrap_or(limits.request).min(limits.request_at_most)
}

fn duration(text: &str) -> Option<Duration> {
    // kube's parser panics on signs in the middle and on numbers that overflow.
    let plain = text.len() <= TIMEOUT_TEXT && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.');
    plain.then(|| text.parse::<kube::core::Duration>().ok()).flatten().map(Duration::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_gets_the_time_that_its_caller_waits() {
        let limits = Limits::default();
        for (query, seconds) in [
            (None, 10.0),
            (Some(""), 10.0),
            (Some("timeout=3s"), 3.0),
            (Some("dryRun=All&timeout=3s"), 3.0),
            (Some("timeout=1m0s"), 30.0),
            (Some("timeout=1500ms"), 1.5),
            (Some("timeout=0s"), 10.0),
            (Some("timeout="), 10.0),
            (Some("timeout=3"), 10.0),
            (Some("timeout=-3s"), 10.0),
            (Some("timeout=1s-9s"), 10.0),
            (Some("timeout=NaNs"), 10.0),
            (Some("timeout=99999999999h"), 30.0),
            (Some("timeout=99999999999999999999999999h"), 10.0),
            (Some("mytimeout=3s"), 10.0),
        ] {
            assert_eq!(patience(query, &limits), Duration::from_secs_f64(seconds), "{query:?}");
        }
    }
}
