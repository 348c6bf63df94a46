//! Settings of every superuser session that pgrekey or the exporter opens.

/// Settings that override the defaults of a role, a database or the cluster: the first major
/// version that knows the setting, its name and its value.
///
/// The owner of a database may set defaults for it. With them a superuser's session would find the
/// owner's functions first, act as another role, or load a library. An event trigger on `login`
/// (PostgreSQL 17) runs in the session as superuser, and can lock it out.
pub const SAFE: &[(u32, &str, &str)] = &[
    (0, "role", "none"),
    (0, "session_preload_libraries", ""),
    (0, "local_preload_libraries", ""),
    (0, "jit", "off"),
    (17, "event_triggers", "off"),
];
