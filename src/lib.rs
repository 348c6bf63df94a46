//! pgrekey changes the TLS of running Postgres clusters on Kubernetes without failed connections,
//! and proves it on the wire.
//!
//! The modules are floors; each uses only floors below it (enforced by `tests/floors.rs`):
//!
//! | floor | modules | may |
//! |---|---|---|
//! | program | `main`, [`cli`] | parse, wire, exit |
//! | controllers | [`controller`] | observe, derive a transition, record, execute |
//! | edges | [`cluster`], [`database`], [`serve`] | talk to the API server, to Postgres, to HTTPS callers |
//! | judgment | [`rules`], [`build`], [`pki`], [`tls`], [`plan`] | decide, purely |
//! | words | [`api`] | be the CRD types, with their names, defaults and bounds |
//! | beside | [`telemetry`], [`metrics`] | be used by edges and what is above |

pub mod api;
pub mod build;
pub mod cli;
pub mod cluster;
pub mod controller;
pub mod database;
pub mod metrics;
pub mod pki;
pub mod plan;
pub mod rules;
pub mod serve;
pub mod telemetry;
pub mod tls;
