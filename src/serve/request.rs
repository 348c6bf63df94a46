//! The limits around every request: memory for its body, requests in flight, time, and a caught
//! panic.

use std::any::Any;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::DefaultBodyLimit;
use http::header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Request, Response, StatusCode, request};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tower::Service;
use tower_http::catch_panic::CatchPanicLayer;

use crate::api::duration;
use crate::metrics::{ServerMetrics, Shed};
use crate::serve::budget::{BodyBudget, Full, Hold};
use crate::serve::connections::Activity;
use crate::serve::limits::Limits;
use crate::serve::weight;

/// The first share of a body of unknown length; it doubles each time that the body needs more.
const FIRST_BYTES: usize = 16 * 1024;

/// For how long the rest of a refused body is read and thrown away: a caller that is still sending
/// when the connection closes never sees the response.
const SWALLOW: Duration = Duration::from_secs(1);

/// Up to this length the kernel takes a response at once: its buffer for a connection is larger.
const SHORT_ANSWER: usize = 16 * 1024;

/// Marks a request that needs much memory. Handlers process such requests one at a time, and drop
/// this when done.
#[derive(Clone, Debug)]
pub(super) struct Heavy {
    _kept: Arc<(Hold, Arc<Option<Hold>>)>,
}

/// Why a request did not get a response of its handler.
#[derive(Clone, Copy, Debug)]
enum RequestRefusal {
    TooLarge(usize),
    Broken,
    SlowBody(Duration),
    Memory(Full),
    Queue(Full),
    InFlight(usize),
    Timeout(Duration),
}

impl RequestRefusal {
    fn shed(self) -> Shed {
        match self {
            Self::TooLarge(_) => Shed::TooLarge,
            Self::Broken => Shed::BrokenBody,
            Self::SlowBody(_) => Shed::SlowBody,
            Self::Memory(Full::MadeWay) => Shed::MadeWay,
            Self::Memory(_) => Shed::Memory,
            Self::Queue(_) => Shed::Heavy,
            Self::InFlight(_) => Shed::InFlight,
            Self::Timeout(_) => Shed::Timeout,
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Broken => StatusCode::BAD_REQUEST,
            Self::SlowBody(_) => StatusCode::REQUEST_TIMEOUT,
            Self::Memory(Full::Peer) | Self::Queue(Full::Peer) => StatusCode::TOO_MANY_REQUESTS,
            Self::Memory(_) | Self::Queue(_) | Self::InFlight(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Timeout(_) => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    fn text(self) -> String {
        match self {
            Self::TooLarge(most) => format!("pgrekey: a body may have at most {most} bytes"),
            Self::Broken => "pgrekey: the body ended before it was whole".to_owned(),
            Self::SlowBody(most) => format!("pgrekey: the body was not here within {most:?}"),
            Self::Memory(Full::Peer) => {
                "pgrekey: the bodies of this address hold its quarter of the memory for bodies"
                    .into()
            }
            Self::Memory(Full::All) => {
                "pgrekey: bodies hold all the memory that there is for them".into()
            }
            Self::Memory(Full::MadeWay) => {
                "pgrekey: the body was slow, and made way for another one".into()
            }
            Self::Queue(_) => {
                "pgrekey: too many reviews of many values wait to be answered one at a time".into()
            }
            Self::InFlight(most) => format!("pgrekey: {most} requests are in flight already"),
            Self::Timeout(most) => {
                format!("pgrekey: this request was not read and answered within {most:?}")
            }
        }
    }

    fn response(self) -> Response<Body> {
        let mut response = said(self.status(), &self.text());
        let headers = response.headers_mut();
        if matches!(
            self.status(),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
        ) {
            // The API server's client retries after so many seconds, within its own timeout.
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if matches!(self, Self::SlowBody(_) | Self::Broken) {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// The router and the state that all requests share. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Application {
    router: Router,
    /// Bytes of bodies.
    memory: Arc<BodyBudget>,
    /// Slots in the queue of heavy requests.
    queue: Arc<BodyBudget>,
    in_flight: Arc<Semaphore>,
    limits: Limits,
    metrics: ServerMetrics,
    /// Cancelled by the shutdown signal.
    ending: CancellationToken,
}

impl Application {
    pub(super) fn new(
        router: Router,
        limits: Limits,
        metrics: ServerMetrics,
        ending: CancellationToken,
    ) -> Self {
        let panics = metrics.clone();
        let router = router
            // axum's own limit for handlers that take a whole body is 2 MB, less than a review may
            // have. `read_body` limits bodies before a handler sees them.
            .layer(DefaultBodyLimit::disable())
            .layer(CatchPanicLayer::custom(move |_: Box<dyn Any + Send>| {
                // The panic hook has logged place and message. The payload may hold a secret and is
                // dropped.
                panics.shed(Shed::Panic);
                said(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "pgrekey: a bug: this request made its handler panic; see the log",
                )
            }));
        let (memory, queue) = (
            BodyBudget::new(limits.memory),
            BodyBudget::new(limits.queue),
        );
        Self {
            router,
            memory,
            queue,
            in_flight: Arc::new(Semaphore::new(limits.in_flight)),
            limits,
            metrics,
            ending,
        }
    }

    /// Answers one request of a connection from this address.
    pub(super) async fn answer(
        mut self,
        peer: IpAddr,
        activity: Arc<Activity>,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Infallible> {
        let (head, mut body) = request.into_parts();
        let answered = self.response(peer, &activity, head, &mut body).await;
        let mut response = answered.unwrap_or_else(|refusal| {
            self.metrics.shed(refusal.shed());
            if !matches!(refusal, RequestRefusal::SlowBody(_)) && !body.is_end_stream() {
                tokio::spawn(swallow(body, self.limits.body));
            }
            refusal.response()
        });
        // A caller that reads `Connection: close` closes between two requests. Cut off by us, it
        // could be in the middle of the next one.
        if self.ending.is_cancelled() {
            response
                .headers_mut()
                .insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(response)
    }

    async fn response(
        &mut self,
        peer: IpAddr,
        activity: &Arc<Activity>,
        mut head: request::Parts,
        body: &mut Incoming,
    ) -> Result<Response<Body>, RequestRefusal> {
        let in_use = activity.request();
        let (began, patience) = (Instant::now(), patience(head.uri.query(), &self.limits));
        let (body, hold) = self.read_body(peer, began, patience, body).await?;
        in_use.work();
        let _place = self
            .in_flight
            .try_acquire()
            .map_err(|_| RequestRefusal::InFlight(self.limits.in_flight))?;
        let hold = Arc::new(hold);
        // The slot is held until the response, or for as long as the handler keeps it.
        let place = weight::is_heavy(&body)
            .then(|| self.queue.keep(peer, 1))
            .transpose()
            .map_err(RequestRefusal::Queue)?;
        let heavy = place.map(|place| Heavy {
            _kept: Arc::new((place, Arc::clone(&hold))),
        });
        if let Some(heavy) = &heavy {
            head.extensions.insert(heavy.clone());
        }
        let answered = timeout_at(
            began + patience,
            self.router
                .call(Request::from_parts(head, Body::from(body))),
        )
        .await;
        let response = answered
            .map_err(|_| RequestRefusal::Timeout(patience))?
            .unwrap_or_else(|never| match never {});
        Ok(settle(response, hold, activity))
    }

    /// Reads the whole body into its share of the budget.
    async fn read_body(
        &self,
        peer: IpAddr,
        began: Instant,
        patience: Duration,
        body: &mut Incoming,
    ) -> Result<(Bytes, Option<Hold>), RequestRefusal> {
        if body.is_end_stream() {
            return Ok((Bytes::new(), None));
        }
        let (most, said) = (self.limits.body, body.size_hint().exact());
        let length = said.map_or(FIRST_BYTES.min(most), |length| {
            usize::try_from(length).unwrap_or(usize::MAX)
        });
        if length > most {
            return Err(RequestRefusal::TooLarge(most));
        }
        let made_way = CancellationToken::new();
        let hold = self
            .memory
            .take(peer, length, made_way.clone())
            .map_err(RequestRefusal::Memory)?;
        let reading = async {
            let mut length = 0;
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|_| RequestRefusal::Broken)?;
                let Some(piece) = frame.data_ref() else {
                    continue;
                };
                length += piece.len();
                if length > most {
                    return Err(RequestRefusal::TooLarge(most));
                }
                hold.append(piece).map_err(RequestRefusal::Memory)?;
            }
            hold.finish().map_err(RequestRefusal::Memory)
        };
        let patience = patience.min(self.limits.body_time);
        let body = tokio::select! {
            biased;
            read = timeout_at(began + patience, reading) => read.unwrap_or(Err(RequestRefusal::SlowBody(patience)))?,
            () = made_way.cancelled() => return Err(RequestRefusal::Memory(Full::MadeWay)),
        };
        Ok((body.into(), Some(hold)))
    }
}

/// Settles the bytes that the request took from the budget: a short response returns them at once; a
/// long one takes as many as it has itself, until it is sent.
fn settle(
    response: Response<Body>,
    hold: Arc<Option<Hold>>,
    activity: &Activity,
) -> Response<Body> {
    let length = response
        .body()
        .size_hint()
        .upper()
        .map_or(usize::MAX, |length| {
            usize::try_from(length).unwrap_or(usize::MAX)
        });
    let Some(held) = hold.as_ref().as_ref().filter(|_| length > SHORT_ANSWER) else {
        return response;
    };
    held.answer(length, activity.evicted.clone());
    response.map(|body| {
        Body::new(body.map_frame(move |frame| {
            frame.map_data(|bytes| Bytes::from_owner(BudgetedBody(bytes, Arc::clone(&hold))))
        }))
    })
}

/// Bytes that keep their share of the budget until they are dropped.
struct BudgetedBody(
    Bytes,
    #[expect(dead_code, reason = "it is there to be dropped")] Arc<Option<Hold>>,
);

impl AsRef<[u8]> for BudgetedBody {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Reads and drops the rest of a body.
async fn swallow(mut body: Incoming, most: usize) {
    let _ = timeout(SWALLOW, async {
        let mut swallowed = 0;
        while let Some(Ok(frame)) = body.frame().await {
            swallowed += frame.data_ref().map_or(0, Bytes::len);
            if swallowed > most {
                break;
            }
        }
    })
    .await;
}

fn said(status: StatusCode, text: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(format!("{text}\n")));
    *response.status_mut() = status;
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}

/// How long the caller waits, by its `?timeout=`, a Go duration.
fn patience(query: Option<&str>, limits: &Limits) -> Duration {
    let said = query
        .unwrap_or_default()
        .split('&')
        .find_map(|pair| pair.strip_prefix("timeout="));
    said.and_then(|text| duration::parse(text).ok())
        .filter(|d| !d.is_zero())
        .unwrap_or(limits.request)
        .min(limits.request_at_most)
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
            (Some("timeout=99999999999h"), 10.0),
            (Some("timeout=99999999999999999999999999h"), 10.0),
            (Some("timeout=%2B3s"), 10.0),
            (Some("mytimeout=3s"), 10.0),
        ] {
            assert_eq!(
                patience(query, &limits),
                Duration::from_secs_f64(seconds),
                "{query:?}"
            );
        }
    }
}
