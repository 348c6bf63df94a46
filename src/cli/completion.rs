//! `pgrekey completion`: prints the completions of a shell.

use std::io::Write;

use clap::Command;
use clap_complete::{Shell, generate};

/// Print the completions of a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  pgrekey completion bash > /etc/bash_completion.d/pgrekey
  pgrekey completion zsh > \"${fpath[1]}/_pgrekey\"
  pgrekey completion fish > ~/.config/fish/completions/pgrekey.fish")]
pub(crate) struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(crate) fn run(Args { shell }: &Args, mut command: Command) -> anyhow::Result<()> {
    // Into memory first: the generator panics when its reader goes away.
    let mut script = vec![];
    generate(*shell, &mut command, "pgrekey", &mut script);
    let mut out = std::io::stdout().lock();
    out.write_all(&script)?;
    Ok(out.flush()?)
}
