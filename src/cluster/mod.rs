//! The API server.

pub mod facts;
pub mod own_ca;
