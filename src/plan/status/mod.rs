//! What people are told, and when it is written.

pub mod database;
pub mod request;
pub mod write_policy;
