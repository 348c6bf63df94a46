//! What several suites need of the machine.

use std::path::Path;
use std::process::Command;

/// Prints why a test is skipped.
///
/// # Panics
/// When `PGREKEY_REQUIRE_CLUSTER=1` says that none may be.
pub(crate) fn skip(why: &str) {
    assert!(
        std::env::var("PGREKEY_REQUIRE_CLUSTER").as_deref() != Ok("1"),
        "no test may be skipped: {why}"
    );
    println!("skipped: {why}");
}

/// A Helm that works.
pub(crate) struct Helm(String);

impl Helm {
    /// That of the path, or of the dev cluster. Nothing where there is none and none is required.
    pub(crate) fn find() -> Option<Self> {
        let cluster = Path::new(env!("CARGO_MANIFEST_DIR")).join("dev/cluster/cluster");
        let environment = Command::new(cluster)
            .arg("env")
            .output()
            .map(|output| output.stdout)
            .unwrap_or_default();
        let environment = String::from_utf8_lossy(&environment);
        let ours = environment
            .lines()
            .find_map(|line| line.strip_prefix("BIN="))
            .map(|bin| format!("{bin}/helm"));
        let mut all = [Some("helm".to_owned()), ours]
            .into_iter()
            .flatten()
            .map(Self);
        let found = all.find(|helm| helm.run(&["version"]).is_ok());
        if found.is_none() {
            skip("there is no helm: `make cluster` builds one");
        }
        found
    }

    /// What it prints, or why it fails. It runs at the top of the project.
    pub(crate) fn run(&self, arguments: &[&str]) -> Result<String, String> {
        let output = Command::new(&self.0)
            .args(arguments)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output();
        let output = output.map_err(|error| error.to_string())?;
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        let stderr = String::from_utf8_lossy(&output.stderr);
        // What `helm lint` finds fault with stands on its standard output.
        if output.status.success() {
            Ok(stdout)
        } else {
            Err(format!("helm {arguments:?}: {stdout}{stderr}"))
        }
    }
}
