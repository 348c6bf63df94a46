//! What Patroni is told: its shared configuration, and the local one of each pod.

pub mod dynamic;
pub mod local;
