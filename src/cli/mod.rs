//! The command line: parses arguments, runs a command, and turns its outcome into an exit code.

mod certs;
mod check;
mod cluster_domain;
mod completion;
mod crds;
mod crypto;
mod doctor;
mod facts;
mod flags;
mod kubeconfig;
mod manifest;
mod output;
mod plan;
mod program_name;
mod requests;
mod rules;
mod run;
mod status;
mod tasks;
mod webhook_config;

use std::io;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::cli::program_name::{as_called, is_plugin, program_name};

/// A Kubernetes operator that changes the TLS of running Postgres clusters without failed
/// connections.
#[derive(Debug, Parser)]
#[command(name = "pgrekey", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Status(status::Args),
    Certs(certs::Args),
    Plan(plan::Args),
    AddTls(Box<requests::AddTls>),
    Rotate(Box<requests::Rotate>),
    ChangeIssuer(Box<requests::ChangeIssuer>),
    RemoveTls(Box<requests::RemoveTls>),
    Doctor(doctor::Args),
    Run(Box<run::Args>),
    Check(check::Args),
    Crds(crds::Args),
    WebhookConfig(webhook_config::Args),
    Completion(completion::Args),
    #[command(hide = true)]
    Rules(rules::Args),
}

/// Runs the command line of this process.
///
/// The exit code is 0 if the command succeeded, 1 if it failed or found a problem (the help of each
/// command says which), 2 if the command line was wrong.
#[must_use]
pub fn main() -> ExitCode {
    let matches = command(is_plugin()).get_matches();
    let Cli { command } = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let outcome = match command {
        Command::Status(args) => status::run(args),
        Command::Certs(args) => certs::run(args),
        Command::Plan(args) => plan::run(args),
        Command::AddTls(args) => requests::add_tls(*args),
        Command::Rotate(args) => requests::rotate(*args),
        Command::ChangeIssuer(args) => requests::change_issuer(*args),
        Command::RemoveTls(args) => requests::remove_tls(*args),
        Command::Doctor(args) => doctor::run(args),
        Command::Run(args) => run::run(*args).map(success),
        Command::Check(args) => check::run(args),
        Command::Crds(args) => crds::run(&args).map(success),
        Command::WebhookConfig(args) => webhook_config::run(args).map(success),
        Command::Completion(args) => completion::run(&args, Cli::command()).map(success),
        Command::Rules(args) => rules::run(&args).map(success),
    };
    match outcome {
        Ok(code) => code,
        // The reader of the output has ended, as in `pgrekey crds | head`.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            #[expect(
                clippy::print_stderr,
                reason = "the one place that prints why a command failed"
            )]
            {
                eprintln!("{}: {}", program_name(), as_called(&format!("{error:#}")));
            }
            ExitCode::FAILURE
        }
    }
}

/// The command line, with the program's name as the user called it.
fn command(is_plugin: bool) -> clap::Command {
    let command = Cli::command();
    if !is_plugin {
        return command;
    }
    command
        .bin_name("kubectl pgrekey")
        .mut_subcommands(|command| match command.get_after_help() {
            Some(help) => {
                let help = help.to_string().replace("pgrekey ", "kubectl pgrekey ");
                command.after_help(help)
            }
            None => command,
        })
}

fn success((): ()) -> ExitCode {
    ExitCode::SUCCESS
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}
