//! The `pgrekey` program: see `pgrekey --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    pgrekey::cli::main()
}
