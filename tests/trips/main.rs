//! Operations in a simulated cluster.
//!
//! The machinery:
//!
//! | module | content |
//! |---|---|
//! | [`world`] | the simulated cluster, the operations that are simulated in it, and its troubles |
//! | [`trip`] | an operation under way, and the faults that hit one of its effects |
//!
//! The tests:
//!
//! | module | subject |
//! |---|---|
//! | [`operations`] | golden trips: every operation, in clusters of every size, with both strategies |
//! | [`faults`] | a crash, a fault or a failover at any point of an operation |
//! | [`requests`] | the life of a request: its turn, its finalizer, its record, its deletion |
//! | [`databases`] | the database of a request: deleted, not ready, or with roles that would be refused |
//! | [`certificates`] | certificates that cannot be issued, that are not loaded, that have expired |
//! | [`evictions`] | when a pod may be replaced: disruption budgets, lag, the only copy of the data |
//! | [`switchovers`] | switchovers in a cluster whose commits wait for standbys |
//! | [`renewals`] | renewals by cert-manager, alone and amid an operation |
//! | [`grace_period`] | how long clients get before the cluster goes on |

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod certificates;
mod databases;
mod evictions;
mod faults;
mod grace_period;
mod operations;
mod renewals;
mod requests;
mod switchovers;
mod trip;
mod world;
