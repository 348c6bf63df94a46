//! What to do next, and what to say about it: pure.

pub mod database_status;
