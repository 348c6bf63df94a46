//! What must hold on a real Kubernetes. `make test-cluster` brings one up and runs this suite
//! against it.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]

mod admission;
#[allow(
    dead_code,
    reason = "shared with the suite of the rules, which asks more of it"
)]
#[path = "../rules/cases.rs"]
mod cases;
mod clients;
mod command_line;
mod crds;
mod database;
mod harness;
mod hostile;
mod installed;
mod issuers;
mod names;
mod operations;
mod provisioner;
mod refusals;
mod signers;
#[path = "../support/mod.rs"]
mod support;
mod tutorial;
mod user_conf;
mod wall;
