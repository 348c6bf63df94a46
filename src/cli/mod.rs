//! The command line: parses, wires, and turns outcomes into exit codes.

mod certs;
mod check;
mod completion;
mod crds;
mod doctor;
mod kubeconfig;
mod manifest;
mod output;
mod plan;
mod requests;
mod rules;
mod run;
mod status;
mod webhook_config;

use std::io;
use std::process::ExitCode;

use anyhow::Context;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use kube::Client;

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
/// The exit code is 0 when the command did what it says, 1 when it could not or when `check` found
/// what would be refused, 2 when the command line was wrong.
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
        Command::Run(args) => run::run(*args).map(done),
        Command::Check(args) => check::run(args),
        Command::Crds(args) => crds::run(&args).map(done),
        Command::WebhookConfig(args) => webhook_config::run(args).map(done),
        Command::Completion(args) => completion::run(&args, Cli::command()).map(done),
        Command::Rules(args) => rules::run(&args).map(done),
    };
    match outcome {
        Ok(code) => code,
        // The reader of our output has seen enough, as in `pgrekey crds | head`.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            #[expect(
                clippy::print_stderr,
                reason = "the one place that tells the user why the command failed"
            )]
            {
                eprintln!("{}: {}", me(), as_called(&format!("{error:#}")));
            }
            ExitCode::FAILURE
        }
    }
}

/// Whether kubectl runs us: its plugins are programs called `kubectl-NAME`.
fn is_plugin() -> bool {
    let program = std::env::args_os().next().map(std::path::PathBuf::from);
    program
        .as_deref()
        .and_then(std::path::Path::file_name)
        .is_some_and(|name| name == "kubectl-pgrekey")
}

/// What the user calls us.
fn me() -> &'static str {
    if is_plugin() {
        "kubectl pgrekey"
    } else {
        "pgrekey"
    }
}

/// A text whose commands of ours, which stand in backticks, are what the user would type.
fn as_called(text: &str) -> String {
    text.replace("`pgrekey ", &format!("`{} ", me()))
}

/// The command line, in the words by which the user called us.
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

fn done((): ()) -> ExitCode {
    ExitCode::SUCCESS
}

/// Sets the one provider of cryptography, which kube, tokio-postgres and our own server find there.
fn install_cryptography() {
    // It can only be there already, and the same, in a test.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// A client of the API server that the kubeconfig, or the pod's service account, names.
async fn client() -> anyhow::Result<Client> {
    let mut config = kube::Config::infer()
        .await
        .context("cannot find out where the API server is")?;
    // Watches and loops try again by themselves; kube's own retries would go on for a quarter of an
    // hour behind their back.
    config.default_retry = false;
    Client::try_from(config).context("cannot set up the client of the API server")
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}
