//! `pgrekey doctor`: checks whether an installation is healthy.

mod checks;
mod collect;
mod installation;
mod report;

use std::process::ExitCode;

use jiff::Timestamp;

use crate::cli::doctor::report::{CheckReport, CheckVerdict};
use crate::cli::kubeconfig::{Scope, block_on};
use crate::cli::output::{Output, Screen, Tone, json, print_lines, yaml};
use crate::cli::program_name::as_called;

/// Check whether this installation is healthy
///
/// Nothing is changed. To see whether the webhooks are called, an invalid request is created as a
/// dry run. With -n only the databases of that namespace are checked. The exit code is 1 when a
/// check fails or cannot be made.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  pgrekey doctor
  pgrekey doctor -n demo                       # only the databases of this namespace
  pgrekey doctor -o json | jq '.[] | select(.verdict != \"ok\")'")]
pub(crate) struct Args {
    /// Format of the output
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    scope: Scope,
}

pub(crate) fn run(Args { output, scope }: Args) -> anyhow::Result<ExitCode> {
    block_on(async {
        let cluster = scope.connect().await?;
        let installation = collect::collect(&cluster, scope.namespace.as_deref()).await;
        let mut reports = checks::examine(&installation, Timestamp::now());
        for report in &mut reports {
            report.found = as_called(&report.found);
            report.remedy = as_called(&report.remedy);
        }
        let lines = match output {
            Output::Json => json(&reports)?,
            Output::Yaml => yaml(&reports)?,
            Output::Table | Output::Wide => report_lines(&reports, output.screen()),
        };
        print_lines(&lines)?;
        // A check that cannot be made does not show health.
        let is_bad = |report: &CheckReport| {
            matches!(report.verdict, CheckVerdict::Fail | CheckVerdict::Unknown)
        };
        Ok(if reports.iter().any(is_bad) {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        })
    })
}

fn report_lines(reports: &[CheckReport], screen: Screen) -> Vec<String> {
    let width = reports
        .iter()
        .map(|report| report.check.len())
        .max()
        .unwrap_or_default();
    let mut lines = vec![];
    for CheckReport {
        check,
        verdict,
        found,
        remedy,
    } in reports
    {
        let (word, tone) = match verdict {
            CheckVerdict::Ok => ("ok  ", Tone::Good),
            CheckVerdict::Warn => ("warn", Tone::Busy),
            CheckVerdict::Fail => ("FAIL", Tone::Bad),
            CheckVerdict::Unknown => ("?   ", Tone::Busy),
        };
        let mut texts = found.lines();
        let first = texts.next().unwrap_or_default();
        lines.push(format!(
            "{}  {check:width$}  {first}",
            screen.paint(tone, word)
        ));
        let indent = " ".repeat(width + 8);
        lines.extend(texts.map(|text| format!("{indent}{text}")));
        if !remedy.is_empty() {
            lines.push(format!("{indent}-> {remedy}"));
        }
    }
    let count = |verdict| {
        reports
            .iter()
            .filter(|report| report.verdict == verdict)
            .count()
    };
    let [ok, warn, fail, unknown] = [
        CheckVerdict::Ok,
        CheckVerdict::Warn,
        CheckVerdict::Fail,
        CheckVerdict::Unknown,
    ]
    .map(count);
    lines.push(String::new());
    lines.push(format!(
        "{} checks: {ok} ok, {warn} to look at, {fail} failed, {unknown} not known",
        reports.len()
    ));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_names_each_fault_and_its_remedy() {
        let found = |check, verdict, found: &str, remedy: &str| CheckReport {
            check,
            verdict,
            found: found.to_owned(),
            remedy: remedy.to_owned(),
        };
        let all = [
            found("API server", CheckVerdict::Ok, "v1.34.4", ""),
            found(
                "issuers ready",
                CheckVerdict::Warn,
                "Issuer demo/a is not Ready\nIssuer demo/b is not Ready",
                "describe it",
            ),
            found(
                "leader",
                CheckVerdict::Fail,
                "no lease named pgrekey is held",
                "start pgrekey",
            ),
        ];
        insta::assert_snapshot!(report_lines(&all, Screen::default()).join("\n"));
    }
}
