//! The command line: parses, wires, and turns outcomes into exit codes.

mod crds;
mod run;
mod webhook_config;

use std::io;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A Kubernetes operator that changes the TLS of running Postgres clusters without failed connections.
#[derive(Debug, Parser)]
#[command(name = "pgrekey", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(Box<run::Args>),
    Crds(crds::Args),
    WebhookConfig(webhook_config::Args),
}

/// Runs the command line of this process.
///
/// The exit code is 0 when the command did what it says, 1 when it could not, 2 when the command line was wrong.
#[must_use]
pub fn main() -> ExitCode {
    let Cli { command } = Cli::parse();
    let outcome = match command {
        Command::Run(args) => run::run(*args),
        Command::Crds(args) => crds::run(&args),
        Command::WebhookConfig(args) => webhook_config::run(args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of our output has seen enough, as in `pgrekey crds | head`.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "the one place that tells the user why the command failed")]
            {
                eprintln!("pgrekey: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}
