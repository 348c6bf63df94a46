//! HTTPS callers: the admission webhooks, and the server that bounds what a caller may cost.

mod budget;
pub mod certificate;
mod connections;
pub mod envelope;
pub mod files;
pub mod health;
pub mod https;
pub mod limits;
pub mod registration;
mod request;
pub mod review;
pub mod webhooks;
mod weight;
