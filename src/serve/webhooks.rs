//! The router of the admission webhooks.

use std::sync::Arc;

use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Router};
use tokio::sync::Semaphore;

use crate::rules::defaults::InstallationDefaults;
use crate::rules::{AdmissionOperation, ClusterFacts};

use crate::serve::admission::AdmissionRequest;
use crate::serve::request::Heavy;
use crate::serve::response::respond;
use crate::serve::review::AdmissionVerdict;
use crate::serve::table::{WEBHOOKS, Webhook};

/// Called after each review, for metrics.
pub type Observe = dyn Fn(&Webhook, &AdmissionVerdict) + Send + Sync;

/// The dependencies of the webhooks.
pub struct Admission {
    /// The facts about the cluster.
    pub facts: Arc<dyn ClusterFacts + Send + Sync>,
    /// The defaults and limits of the installation.
    pub installation: InstallationDefaults,
    /// Called after each review.
    pub observe: Box<Observe>,
}

impl std::fmt::Debug for Admission {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admission")
            .field("installation", &self.installation)
            .finish_non_exhaustive()
    }
}

/// The routes of all webhooks. The server limits body size and time.
pub fn router(admission: &Arc<Admission>) -> Router {
    let one_at_a_time = Arc::new(Semaphore::new(1));
    WEBHOOKS
        .iter()
        .fold(Router::new(), |router, webhook| {
            let (admission, turn) = (Arc::clone(admission), Arc::clone(&one_at_a_time));
            let handler = move |heavy: Option<Extension<Heavy>>,
                                headers: HeaderMap,
                                body: Bytes| async move {
                if let Err(remedy) = takes(&headers) {
                    return (StatusCode::UNSUPPORTED_MEDIA_TYPE, remedy).into_response();
                }
                match heavy {
                    None => reply(webhook, &admission, &body),
                    Some(Extension(heavy)) => {
                        in_turn(turn, heavy, move || reply(webhook, &admission, &body)).await
                    }
                }
            };
            router.route(webhook.path, post(handler))
        })
}

/// Answers heavy requests one after another, on a thread for blocking work: there is no memory for
/// two at a time.
async fn in_turn(
    turn: Arc<Semaphore>,
    heavy: Heavy,
    reply: impl FnOnce() -> Response + Send + 'static,
) -> Response {
    let answered = async {
        let turn = turn.acquire_owned().await.ok()?;
        // The caller may give up. The work goes on, and keeps its turn and its memory until it
        // ends.
        let work = move || {
            let _until_done = (turn, heavy);
            reply()
        };
        tokio::task::spawn_blocking(work).await.ok()
    };
    let unfinished = || {
        (
            StatusCode::INTERNAL_SERVER_ERROR,
            "the review was not finished",
        )
            .into_response()
    };
    answered.await.unwrap_or_else(unfinished)
}

/// Reviews a request to this webhook.
#[must_use]
pub fn review(
    webhook: &Webhook,
    request: &AdmissionRequest<'_>,
    facts: &dyn ClusterFacts,
    installation: &InstallationDefaults,
) -> AdmissionVerdict {
    let AdmissionRequest {
        kind, operation, ..
    } = request;
    if (
        kind.group.as_ref(),
        kind.version.as_ref(),
        kind.kind.as_ref(),
    ) != (webhook.group, webhook.version, webhook.kind)
    {
        return AdmissionVerdict::wrong_webhook(format!(
            "{} reviews {}/{} {}, and was asked about {}/{} {}: correct the registration",
            webhook.path,
            webhook.group,
            webhook.version,
            webhook.kind,
            kind.group,
            kind.version,
            kind.kind
        ));
    }
    let operation = match operation.as_ref() {
        "CREATE" => AdmissionOperation::Create,
        "UPDATE" => AdmissionOperation::Update,
        "DELETE" => AdmissionOperation::Delete,
        other => {
            return AdmissionVerdict::wrong_webhook(format!(
                "{} does not review {other}: correct the registration",
                webhook.path
            ));
        }
    };
    // Programs write status and scale, which never change the spec.
    if request
        .sub_resource
        .as_deref()
        .is_some_and(|part| !part.is_empty())
    {
        return AdmissionVerdict::PASS;
    }
    (webhook.review)(request, operation, facts, installation)
}

/// Accepts plain JSON only; the error says what to send.
fn takes(headers: &HeaderMap) -> Result<(), &'static str> {
    let value = |name| {
        headers
            .get(name)
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default()
    };
    let media_type = value(header::CONTENT_TYPE)
        .split(';')
        .next()
        .unwrap_or_default()
        .trim();
    if !media_type.eq_ignore_ascii_case("application/json") {
        return Err("send application/json");
    }
    if !matches!(value(header::CONTENT_ENCODING), "" | "identity") {
        return Err("send the body without Content-Encoding");
    }
    Ok(())
}

fn reply(webhook: &Webhook, admission: &Admission, body: &[u8]) -> Response {
    let request = match AdmissionRequest::parse(body) {
        Ok(request) => request,
        Err(problem) => return (StatusCode::BAD_REQUEST, problem.to_string()).into_response(),
    };
    let unknown = admission.facts.unknown();
    if !unknown.is_empty() {
        // No verdict without facts: the API server applies the webhook's failurePolicy.
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("not known yet: {}", unknown.join(", ")),
        )
            .into_response();
    }
    let verdict = review(
        webhook,
        &request,
        admission.facts.as_ref(),
        &admission.installation,
    );
    (admission.observe)(webhook, &verdict);
    match respond(webhook, &request, verdict).and_then(|response| request.encode(response)) {
        Ok(json) => ([(header::CONTENT_TYPE, "application/json")], json).into_response(),
        Err(_) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "the answer could not be written",
        )
            .into_response(),
    }
}
