//! Patroni's two configurations.

pub mod dynamic;
mod field;
pub mod local;

pub use crate::build::patroni::dynamic::DynamicConfig;
pub use crate::build::patroni::local::LocalConfig;
