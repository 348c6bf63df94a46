//! The webhooks: one table, from which the router and the registration follow.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Router};
use tokio::sync::Semaphore;

use crate::api::{Postgres, PostgresOpsRequest};
use crate::rules::ClusterFacts;
use crate::rules::defaults::InstallationDefaults;

use crate::serve::admission::AdmissionRequest;
use crate::serve::request::Heavy;
use crate::serve::review;
use crate::serve::review::{AdmissionVerdict, ReviewFn, mutate, validate};

/// Whether a webhook judges or fills in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Judges; without an answer the API server refuses the object.
    Validate,
    /// Fills in; without an answer the API server goes on, and the rules are still to come.
    Mutate,
}

/// One webhook.
pub struct Webhook {
    /// Whether it judges or fills in.
    pub purpose: Purpose,
    /// Name of the configuration object that it is registered in.
    pub configuration: &'static str,
    /// Its own name.
    pub name: &'static str,
    /// Where it is served.
    pub path: &'static str,
    /// API group of what it reviews.
    pub group: &'static str,
    /// Version of what it reviews.
    pub version: &'static str,
    /// Kind of what it reviews.
    pub kind: &'static str,
    /// Plural of what it reviews.
    pub resource: &'static str,
    /// What is reviewed, in the API server's words.
    pub operations: &'static [&'static str],
    /// How it reviews.
    pub judge: ReviewFn,
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhook")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Every webhook. Names and paths are KubeDB's; it has none that fills in requests, so those are
/// formed alike.
pub static WEBHOOKS: [Webhook; 4] = [
    Webhook {
        purpose: Purpose::Mutate,
        configuration: "mutators.ops.kubedb.com",
        name: "postgresopsrequestwebhook.mutators.ops.kubedb.com",
        path: "/mutate-ops-kubedb-com-v1alpha1-postgresopsrequest",
        operations: &["CREATE", "UPDATE"],
        judge: mutate::<PostgresOpsRequest>,
        ..REQUESTS
    },
    Webhook {
        purpose: Purpose::Validate,
        configuration: "validators.ops.kubedb.com",
        name: "postgresopsrequestwebhook.validators.ops.kubedb.com",
        path: "/validate-ops-kubedb-com-v1alpha1-postgresopsrequest",
        ..REQUESTS
    },
    Webhook {
        purpose: Purpose::Mutate,
        configuration: "mutators.kubedb.com",
        name: "postgreswebhook.mutators.kubedb.com",
        path: "/mutate-kubedb-com-v1-postgres",
        operations: &["CREATE", "UPDATE"],
        judge: mutate::<Postgres>,
        ..DATABASES
    },
    Webhook {
        purpose: Purpose::Validate,
        configuration: "validators.kubedb.com",
        name: "postgreswebhook.validators.kubedb.com",
        path: "/validate-kubedb-com-v1-postgres",
        ..DATABASES
    },
];

const REQUESTS: Webhook = Webhook {
    purpose: Purpose::Validate,
    configuration: "",
    name: "",
    path: "",
    group: "ops.kubedb.com",
    version: "v1alpha1",
    kind: "PostgresOpsRequest",
    resource: "postgresopsrequests",
    operations: &["CREATE", "UPDATE"],
    judge: validate::<PostgresOpsRequest>,
};

const DATABASES: Webhook = Webhook {
    purpose: Purpose::Validate,
    configuration: "",
    name: "",
    path: "",
    group: "kubedb.com",
    version: "v1",
    kind: "Postgres",
    resource: "postgreses",
    operations: &["CREATE", "UPDATE", "DELETE"],
    judge: validate::<Postgres>,
};

/// What is told of each review, for metrics.
pub type Observe = dyn Fn(&Webhook, &AdmissionVerdict) + Send + Sync;

/// What the webhooks need to answer.
pub struct Admission {
    /// What is known about the cluster.
    pub facts: Arc<dyn ClusterFacts + Send + Sync>,
    /// What is left to the installation.
    pub installation: InstallationDefaults,
    /// Is told of each review.
    pub observe: Box<Observe>,
}

impl std::fmt::Debug for Admission {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admission")
            .field("installation", &self.installation)
            .finish_non_exhaustive()
    }
}

/// The routes of all webhooks. The server bounds bodies and time.
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
        // The server has a limit of its own, which fits reviews; axum's default does not.
        .layer(DefaultBodyLimit::disable())
}

/// Answers on a thread where it holds nobody up, after all that came before: what two of these need
/// at once is not there.
async fn in_turn(
    turn: Arc<Semaphore>,
    heavy: Heavy,
    reply: impl FnOnce() -> Response + Send + 'static,
) -> Response {
    let answered = async {
        let turn = turn.acquire_owned().await.ok()?;
        // The caller may give up. What has begun goes on, and keeps its turn and its memory
        // meanwhile.
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

/// Whether the body may be read: plain JSON.
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
    let question = match AdmissionRequest::parse(body) {
        Ok(question) => question,
        Err(problem) => return (StatusCode::BAD_REQUEST, problem.to_string()).into_response(),
    };
    let unknown = admission.facts.unknown();
    if !unknown.is_empty() {
        // No verdict without facts: the API server goes by the webhook's failurePolicy.
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("not known yet: {}", unknown.join(", ")),
        )
            .into_response();
    }
    let verdict = review::review(
        webhook,
        &question,
        admission.facts.as_ref(),
        &admission.installation,
    );
    (admission.observe)(webhook, &verdict);
    match review::answer(webhook, &question, verdict).and_then(|answer| question.answer(answer)) {
        Ok(json) => ([(header::CONTENT_TYPE, "application/json")], json).into_response(),
        Err(_) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "the answer could not be written",
        )
            .into_response(),
    }
}
