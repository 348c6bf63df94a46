//! The HTTPS server of the admission webhooks: bounded memory, time and connections for each
//! caller.

pub mod admission;
mod budget;
pub mod certificate;
mod connections;
mod decode;
pub mod files;
pub mod limits;
pub mod probes;
pub mod registration;
mod request;
pub mod response;
pub mod review;
pub mod server;
pub mod table;
pub mod webhooks;
mod weight;
