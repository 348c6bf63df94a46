//! The API server.

pub mod facts;
