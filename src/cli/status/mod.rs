//! `pgrekey status`: shows the progress of a request.

pub(crate) mod progress;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::anyhow;
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::events::v1::Event;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, watch_object, watcher};

use crate::api::ops_request::OpsPhase;
use crate::api::{Postgres, PostgresOpsRequest};
use crate::cli::kubeconfig::{ApiConnection, Scope, block_on, explain_api_error, is_missing};
use crate::cli::output::{Detail, Output, Screen, json, print_lines, yaml};
use crate::cli::status::progress::StepEvent;

/// Show the progress of a request
///
/// NAME is a PostgresOpsRequest or a Postgres. For a Postgres the running request is shown, else
/// the next one, else the latest. The exit code is 0 unless the request has failed.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  pgrekey status ha-postgres -n demo           # the running request of a database, or its latest
  pgrekey status demo/rotate-tls --watch       # until its end; exit code 0 if it succeeded, 1 if not
  pgrekey status rotate-tls -o wide            # whole serial numbers
  pgrekey status rotate-tls -o json | jq .status.phase")]
pub(crate) struct Args {
    /// A request or a database: NAME or NAMESPACE/NAME
    name: String,
    /// Follow the request to its end
    #[arg(long, short)]
    watch: bool,
    /// Format of the output
    #[arg(long, short, value_enum, default_value_t, conflicts_with = "watch")]
    output: Output,
    #[command(flatten)]
    scope: Scope,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Args {
        name,
        watch,
        output,
        scope,
    } = args;
    block_on(async {
        let cluster = scope.connect().await?;
        let mut request = find_request(&cluster, &name).await?;
        request.metadata.managed_fields = None;
        if watch {
            return follow(&cluster, &request).await;
        }
        let lines = match output {
            Output::Json => json(&request)?,
            Output::Yaml => yaml(&request)?,
            Output::Table | Output::Wide => {
                let replicas = replicas(&cluster, &request).await;
                let events = step_events(&cluster, &request).await;
                let request = progress::with_events(&request, &events);
                let now = Timestamp::now();
                progress::lines(&request, replicas, now, output.detail(), output.screen())
            }
        };
        print_lines(&lines)?;
        Ok(exit_code(&request))
    })
}

/// 1 if the request has ended without success.
fn exit_code(request: &PostgresOpsRequest) -> ExitCode {
    let phase = request.phase();
    if request.is_finished() && phase != Some(OpsPhase::Successful) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

/// Finds the request of this name. If `name` is a database: its running request, else its next one,
/// else its latest.
async fn find_request(cluster: &ApiConnection, name: &str) -> anyhow::Result<PostgresOpsRequest> {
    let (namespace, name) = cluster.locate(name);
    let requests: Api<PostgresOpsRequest> = Api::namespaced(cluster.client.clone(), &namespace);
    match requests.get_opt(&name).await {
        Ok(Some(request)) => return Ok(request),
        Ok(None) => {}
        Err(error) => return Err(explain_api_error("read requests", error)),
    }
    let all = requests
        .list(&ListParams::default())
        .await
        .map_err(|error| explain_api_error("list requests", error))?
        .items;
    let of_database = all
        .into_iter()
        .filter(|request| request.spec.database_ref.name == name)
        .collect();
    if let Some(request) = pick_request(of_database) {
        return Ok(request);
    }
    let databases: Api<Postgres> = Api::namespaced(cluster.client.clone(), &namespace);
    let is_database = databases
        .get_opt(&name)
        .await
        .map_err(|error| explain_api_error("read databases", error))?
        .is_some();
    Err(if is_database {
        anyhow!(
            "there has been no request about {namespace}/{name}; make one, such as `pgrekey rotate {name} -n {namespace}`"
        )
    } else {
        anyhow!(
            "there is no request and no database {namespace}/{name}; `kubectl get pgops,pg -n {namespace}` lists them, \
             and -n names another namespace"
        )
    })
}

fn pick_request(mut requests: Vec<PostgresOpsRequest>) -> Option<PostgresOpsRequest> {
    requests.sort_by_key(|request| request.creation_timestamp().map(|time| time.0));
    let is_running = |request: &PostgresOpsRequest| request.phase() == Some(OpsPhase::Progressing);
    let at = requests
        .iter()
        .position(is_running)
        .or_else(|| requests.iter().position(PostgresOpsRequest::is_to_run));
    match at {
        Some(at) => Some(requests.swap_remove(at)),
        None => requests.pop(),
    }
}

/// The steps that the events of a request report. Empty for a user who may not read events.
async fn step_events(cluster: &ApiConnection, request: &PostgresOpsRequest) -> Vec<StepEvent> {
    let events: Api<Event> = Api::namespaced(
        cluster.client.clone(),
        &request.namespace().unwrap_or_default(),
    );
    let found = events
        .list(&ListParams::default().fields(&events_selector(request)))
        .await;
    found
        .map(|events| events.iter().filter_map(StepEvent::parse).collect())
        .unwrap_or_default()
}

/// The field selector of the events about a request.
fn events_selector(request: &PostgresOpsRequest) -> String {
    format!("regarding.uid={}", request.uid().unwrap_or_default())
}

/// The number of pods of the request's database. Only the progress bar needs it, so 3 will do if
/// the database cannot be read.
async fn replicas(cluster: &ApiConnection, request: &PostgresOpsRequest) -> i32 {
    let databases: Api<Postgres> = Api::namespaced(
        cluster.client.clone(),
        &request.namespace().unwrap_or_default(),
    );
    let database = databases
        .get_opt(&request.spec.database_ref.name)
        .await
        .ok()
        .flatten();
    database.map_or(3, |database| database.spec.desired_replicas())
}

/// Watch errors in a row after which the view gives up; there is a pause of one second after each.
const MAX_WATCH_FAILURES: u32 = 30;

/// Shows a request until its end. A terminal is redrawn; a pipe gets one line for each change.
pub(crate) async fn follow(
    cluster: &ApiConnection,
    request: &PostgresOpsRequest,
) -> anyhow::Result<ExitCode> {
    let namespace = request.namespace().unwrap_or_default();
    let requests: Api<PostgresOpsRequest> = Api::namespaced(cluster.client.clone(), &namespace);
    let replicas = replicas(cluster, request).await;
    let mut view = StatusView {
        replicas,
        drawn: 0,
        request: None,
        events: vec![],
        shown: None,
    };
    let mut changes = std::pin::pin!(watch_object(requests, &request.name_any()));
    let events: Api<Event> = Api::namespaced(cluster.client.clone(), &namespace);
    let selector = watcher::Config::default().fields(&events_selector(request));
    let mut events = std::pin::pin!(
        watcher(events, selector)
            .default_backoff()
            .applied_objects()
    );
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    let mut failures = 0;
    loop {
        tokio::select! {
            change = changes.next() => match change {
                Some(Ok(Some(request))) => {
                    failures = 0;
                    let end = request.is_finished().then(|| exit_code(&request));
                    view.request = Some(request);
                    view.show()?;
                    if let Some(code) = end {
                        return Ok(code);
                    }
                }
                Some(Ok(None)) => return Err(anyhow!("the request {namespace}/{} was deleted", request.name_any())),
                Some(Err(error)) if is_missing_kind(&error) => return Err(anyhow!("cannot watch requests: {error}")),
                Some(Err(error)) => {
                    failures += 1;
                    if failures > MAX_WATCH_FAILURES {
                        return Err(anyhow!("the API server does not answer any more ({error}); the operation goes on"));
                    }
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                None => return Err(anyhow!("the API server has ended the watch; the operation goes on")),
            },
            // A user who may not read events sees the steps when the status is written.
            Some(Ok(event)) = events.next() => {
                view.events.extend(StepEvent::parse(&event));
                view.show()?;
            }
            _ = ticks.tick() => view.draw()?,
        }
    }
}

fn is_missing_kind(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::InitialListFailed(error) if is_missing(error))
}

/// The view of a request on the terminal or in a pipe.
struct StatusView {
    replicas: i32,
    /// The number of lines that were drawn last.
    drawn: usize,
    /// The request as it was last received.
    request: Option<PostgresOpsRequest>,
    /// The steps that its events have reported.
    events: Vec<StepEvent>,
    /// The request as it was last shown, with the steps from events.
    shown: Option<PostgresOpsRequest>,
}

impl StatusView {
    /// Shows the request after a change.
    fn show(&mut self) -> std::io::Result<()> {
        let Some(request) = self
            .request
            .as_ref()
            .map(|request| progress::with_events(request, &self.events))
        else {
            return Ok(());
        };
        if Screen::stdout().size.is_none() {
            let before = self.shown.replace(request.clone());
            return print_lines(&progress::news(before.as_ref(), &request, Timestamp::now()));
        }
        self.shown = Some(request);
        self.draw()
    }

    /// Redraws the view. If the terminal has too few lines, the oldest steps are left out.
    fn draw(&mut self) -> std::io::Result<()> {
        let screen = Screen::stdout();
        let (Some(request), Some(size)) = (&self.shown, screen.size) else {
            return Ok(());
        };
        let lines = fit(
            progress::lines(
                request,
                self.replicas,
                Timestamp::now(),
                Detail::Short,
                screen,
            ),
            size.lines,
        );
        // Moves the cursor to the first line that was drawn, and clears from there on.
        let over = if self.drawn > 0 {
            format!("\x1b[{}A\x1b[J", self.drawn)
        } else {
            String::new()
        };
        self.drawn = lines.len();
        print_lines([&(over + &lines.join("\n"))])
    }
}

/// Leaves out the oldest steps if there are more lines than the terminal has.
fn fit(mut lines: Vec<String>, height: usize) -> Vec<String> {
    let room = height.saturating_sub(1).max(6);
    let too_many = lines.len().saturating_sub(room);
    if too_many > 0 {
        // The first five lines are the head, an empty line and the titles of the columns.
        lines.drain(5..=5 + too_many);
        lines.insert(5, "   ..".to_owned());
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn request(name: &str, created: &str, phase: &str) -> PostgresOpsRequest {
        let object = json!({
            "apiVersion": "ops.kubedb.com/v1alpha1", "kind": "PostgresOpsRequest",
            "metadata": {"name": name, "creationTimestamp": format!("2026-11-24T{created}Z")},
            "spec": {"type": "Restart", "databaseRef": {"name": "pg"}}, "status": {"phase": phase},
        });
        serde_json::from_value(object).expect("a request")
    }

    #[test]
    fn the_running_request_is_shown_before_the_next_one_and_the_next_one_before_the_latest() {
        let shown = |all: &[PostgresOpsRequest]| {
            pick_request(all.to_vec()).map(|request| request.name_any())
        };
        let mut all = vec![
            request("old", "10:00:00", "Successful"),
            request("new", "11:00:00", "Failed"),
        ];
        assert_eq!(shown(&all).as_deref(), Some("new"));
        all.push(request("second", "09:30:00", "Pending"));
        all.push(request("first", "09:00:00", "Pending"));
        assert_eq!(shown(&all).as_deref(), Some("first"));
        all.push(request("running", "12:00:00", "Progressing"));
        assert_eq!(shown(&all).as_deref(), Some("running"));
        assert_eq!(shown(&[]), None);
    }

    #[test]
    fn a_small_terminal_keeps_the_head_and_the_end() {
        let lines: Vec<String> = (0..20).map(|at| at.to_string()).collect();
        let fitted = fit(lines.clone(), 11);
        assert_eq!(
            fitted,
            ["0", "1", "2", "3", "4", "   ..", "16", "17", "18", "19"]
        );
        assert_eq!(fit(lines.clone(), 40), lines);
    }
}
