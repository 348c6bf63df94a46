//! What every session of a superuser starts with that is not a user's own: pgrekey's, and the
//! exporter's.

/// Settings with which no default that somebody gave a role, a database or the cluster leads a
/// session elsewhere: the first major version that knows each of them, its name and its value.
///
/// The owner of a database may give it defaults, and so have a superuser's session there find his
/// functions first, act as another role, or load a library. An event trigger on `login` (PostgreSQL
/// 17) runs in it as superuser, and can lock it out.
pub const SAFE: &[(u32, &str, &str)] = &[
    (0, "role", "none"),
    (0, "session_preload_libraries", ""),
    (0, "local_preload_libraries", ""),
    (0, "jit", "off"),
    (17, "event_triggers", "off"),
];
