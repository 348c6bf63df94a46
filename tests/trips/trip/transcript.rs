//! A trip as people read it: its log, and the announcements to its users.

use std::fmt::Write;

use pgrekey::plan::{Action, ClusterAction, Decision};

use pgrekey::plan::status::request::{RequestEvent, Severity};

use super::Trip;

impl Trip {
    pub(super) fn note_decision(&mut self, decision: &Decision) {
        self.has_turned |= matches!(decision, Decision::RollBack { .. });
        let line = match decision {
            Decision::Act {
                step,
                purpose,
                actions,
                ..
            } => {
                let actions: Vec<String> = actions.iter().map(transcribed).collect();
                format!("{step}: {purpose} [{}]", actions.join(", "))
            }
            Decision::Wait {
                step: Some(step),
                on,
                ..
            } => format!("{step}: wait for {on}"),
            Decision::Wait { step: None, on, .. } => format!("-: wait for {on}"),
            Decision::RollBack { cause } => format!("roll back: {cause}"),
            Decision::Finish(actions) => format!("after the end: {actions:?}"),
            Decision::Complete(outcome) => format!("end: {outcome:?}"),
            Decision::Rest(_) => return,
        };
        if line == self.last {
            self.repeated += 1;
            return;
        }
        let _ = writeln!(self.log, "{:>4} s  {line}", self.world.second());
        (self.last, self.repeated) = (line, 0);
    }

    pub(super) fn note_events(&mut self, events: &[RequestEvent]) {
        self.events.extend(events.iter().map(|event| {
            let kind = match event.severity {
                Severity::Normal => "Normal",
                Severity::Warning => "Warning",
            };
            format!("{kind} {}: {}", event.reason, event.message)
        }));
    }

    /// The announcements to users: the conditions and the pods at the end, and every event.
    pub(crate) fn announcements(&self) -> String {
        let status = self.world.request.status.clone().unwrap_or_default();
        let conditions = status.conditions.iter().map(|condition| {
            let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
            format!(
                "{} {} {}: {}",
                condition.type_,
                condition.status,
                text(&condition.reason),
                text(&condition.message)
            )
        });
        let pods = status.pods.iter().map(|pod| {
            let role = pod.role.as_deref().unwrap_or("away");
            format!(
                "{} {role}, behind: {:?}, restarted: {}",
                pod.name, pod.lag, pod.restarted
            )
        });
        let lines =
            |title: &str, lines: Vec<String>| format!("{title}\n  {}\n", lines.join("\n  "));
        lines("conditions", conditions.collect())
            + &lines("pods", pods.collect())
            + &lines("events", self.events.clone())
    }
}

/// An action as transcripts have it: a leaf of the simulated world is known by its serial.
fn transcribed(action: &Action) -> String {
    match action {
        Action::Cluster(ClusterAction::WriteFiles(files)) => {
            format!(
                "WriteFiles {} of {} CAs",
                files.material.server.fingerprint.0[0],
                files.trust.len()
            )
        }
        action => action.to_string(),
    }
}
