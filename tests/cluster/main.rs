//! What must hold on a real Kubernetes. `make test-cluster` brings one up and runs this suite against it.

#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test fails by panicking")]

mod crds;
mod database;
mod harness;
mod provisioner;
