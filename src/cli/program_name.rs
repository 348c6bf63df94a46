//! The name by which the user called this program, for texts that name its commands.

use std::path::PathBuf;

/// Whether kubectl started this program: its plugins are programs called `kubectl-NAME`.
pub(crate) fn is_plugin() -> bool {
    std::env::args_os()
        .next()
        .map(PathBuf::from)
        .as_deref()
        .and_then(std::path::Path::file_name)
        .is_some_and(|name| name == "kubectl-pgrekey")
}

/// `kubectl pgrekey` for the plugin, else `pgrekey`.
pub(crate) fn program_name() -> &'static str {
    if is_plugin() {
        "kubectl pgrekey"
    } else {
        "pgrekey"
    }
}

/// The text with its commands of pgrekey, which stand in backticks, as the user would type them.
pub(crate) fn as_called(text: &str) -> String {
    text.replace("`pgrekey ", &format!("`{} ", program_name()))
}
