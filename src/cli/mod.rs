//! The command line: parses, wires, and turns outcomes into exit codes.

mod certs;
mod check;
mod crds;
mod make;
mod progress;
mod rules;
mod run;
mod scope;
mod screen;
mod status;
mod webhook_config;
mod yaml;

use std::io;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use kube::Client;

/// A Kubernetes operator that changes the TLS of running Postgres clusters without failed connections.
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
    AddTls(Box<make::AddTls>),
    Rotate(Box<make::Rotate>),
    ChangeIssuer(Box<make::ChangeIssuer>),
    RemoveTls(Box<make::RemoveTls>),
    Run(Box<run::Args>),
    Check(check::Args),
    Crds(crds::Args),
    WebhookConfig(webhook_config::Args),
    #[command(hide = true)]
    Rules(rules::Args),
}

/// Runs the command line of this process.
///
/// The exit code is 0 when the command did what it says, 1 when it could not or when `check` found what would be refused, 2
/// when the command line was wrong.
#[must_use]
pub fn main() -> ExitCode {
    let Cli { command } = Cli::parse();
    let outcome = match command {
        Command::Status(args) => status::run(args),
        Command::Certs(args) => certs::run(args),
        Command::AddTls(args) => make::add_tls(*args),
        Command::Rotate(args) => make::rotate(*args),
        Command::ChangeIssuer(args) => make::change_issuer(*args),
        Command::RemoveTls(args) => make::remove_tls(*args),
        Command::Run(args) => run::run(*args).map(done),
        Command::Check(args) => check::run(args),
        Command::Crds(args) => crds::run(&args).map(done),
        Command::WebhookConfig(args) => webhook_config::run(args).map(done),
        Command::Rules(args) => rules::run(&args).map(done),
    };
    match outcome {
        Ok(code) => code,
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
    let mut config = kube::Config::infer().await.context("cannot find out where the API server is")?;
    // Watches and loops try again by themselves; kube's own retries would go on for a quarter of an hour behind their back.
    config.default_retry = false;
    Client::try_from(config).context("cannot set up the client of the API server")
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}
