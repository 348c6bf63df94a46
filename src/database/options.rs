//! The settings of a session at its start, whatever is set for its role, its database or the whole
//! cluster.
//!
//! Settings in the start-up packet override `ALTER ROLE`, `ALTER DATABASE`, `ALTER SYSTEM` and the
//! configuration files (PostgreSQL's sources, `GucSource`: `PGC_S_CLIENT` comes after all of
//! those), and hold before the first statement.

use crate::build::session::SAFE;

/// Every version since PostgreSQL 13.
const ALWAYS: u32 = 0;

/// Major version, name and value of each setting beyond [`SAFE`].
///
/// `log_*` and the settings of libraries keep our statements out of logs and statistics, since they
/// contain hashes of passwords. A server accepts a setting with a point in its name even without
/// the library.
const SETTINGS: &[(u32, &str, &str)] = &[
    (ALWAYS, "search_path", "pg_catalog,pg_temp"),
    // Ends a statement after [`CALL_TIMEOUT`](crate::database::CALL_TIMEOUT) even if our cancel
    // request does not arrive.
    (ALWAYS, "statement_timeout", "3s"),
    (ALWAYS, "lock_timeout", "2s"),
    (ALWAYS, "idle_in_transaction_session_timeout", "5s"),
    (14, "idle_session_timeout", "5min"),
    (17, "transaction_timeout", "5s"),
    // A hanging standby does not delay a commit of ours on the primary.
    (ALWAYS, "synchronous_commit", "local"),
    (ALWAYS, "log_statement", "none"),
    (ALWAYS, "log_duration", "off"),
    (ALWAYS, "log_min_duration_statement", "-1"),
    (ALWAYS, "log_min_duration_sample", "-1"),
    (ALWAYS, "log_transaction_sample_rate", "0"),
    (ALWAYS, "log_min_error_statement", "panic"),
    (ALWAYS, "log_parameter_max_length", "0"),
    (ALWAYS, "log_parameter_max_length_on_error", "0"),
    (ALWAYS, "debug_print_parse", "off"),
    (ALWAYS, "debug_print_rewritten", "off"),
    (ALWAYS, "debug_print_plan", "off"),
    (ALWAYS, "pg_stat_statements.track", "none"),
    (ALWAYS, "pg_stat_statements.track_utility", "off"),
    (ALWAYS, "pg_stat_monitor.pgsm_track_utility", "off"),
    (ALWAYS, "pgaudit.log", "none"),
    (ALWAYS, "auto_explain.log_min_duration", "-1"),
    // Messages in English, and errors only.
    (ALWAYS, "lc_messages", "C"),
    (ALWAYS, "client_min_messages", "error"),
    (ALWAYS, "standard_conforming_strings", "on"),
    // A standby accepts only this level and `repeatable read`.
    (ALWAYS, "default_transaction_isolation", "read committed"),
    (ALWAYS, "default_transaction_deferrable", "off"),
];

/// The command line of a session's server process, for the parameter `options` of a start-up
/// packet.
///
/// `role` is the role that logs in. Without a major version, only settings that every version knows
/// are set: a server refuses a session with an unknown setting.
pub(super) fn options(role: &str, major: Option<u32>) -> String {
    let major = major.unwrap_or(ALWAYS);
    let shared = SAFE
        .iter()
        .map(|(since, name, value)| (*since, *name, *value));
    let fixed = shared
        .chain(SETTINGS.iter().copied())
        .filter(|(since, ..)| *since <= major);
    let mut options: String = fixed.map(|(_, name, value)| option(name, value)).collect();
    options.push_str(&option("session_authorization", role));
    options
}

/// One option. White space ends a word, unless a backslash comes before it (PostgreSQL
/// documentation, "Message Formats").
fn option(name: &str, value: &str) -> String {
    let mut option = format!(" -c {name}=");
    for c in value.chars() {
        if c.is_ascii_whitespace() || matches!(c, '\\' | '\u{b}') {
            option.push('\\');
        }
        option.push(c);
    }
    option
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_starts_with_the_options_that_its_server_knows() {
        let [unknown, thirteen, seventeen] =
            [None, Some(13), Some(17)].map(|major| options("postgres", major));
        assert_eq!(unknown, thirteen);
        assert!(
            thirteen.contains(" -c search_path=pg_catalog,pg_temp ")
                && thirteen.contains(" -c role=none ")
        );
        assert!(!thirteen.contains("idle_session_timeout") && !thirteen.contains("event_triggers"));
        assert!(
            seventeen.contains(" -c idle_session_timeout=5min ")
                && seventeen.contains(" -c event_triggers=off ")
        );
    }

    #[test]
    fn a_name_with_white_space_stays_one_word() {
        let options = options("we ird\\\t\u{b}é", None);
        assert!(
            options.ends_with(" -c session_authorization=we\\ ird\\\\\\\t\\\u{b}é"),
            "{options:?}"
        );
    }
}
