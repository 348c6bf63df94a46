//! HTTPS callers: the admission webhooks, and the server that bounds what a caller may cost.

pub mod admission;
mod budget;
pub mod certificate;
mod connections;
pub mod files;
pub mod limits;
pub mod probes;
pub mod registration;
mod request;
pub mod review;
pub mod server;
pub mod webhooks;
mod weight;
