//! The dev cluster as the tests see it.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use super::report::Stopwatch;
use super::rights::OPERATOR;
use super::turns::Turn;
use crate::support::skip;

/// A cluster with pgrekey's definitions installed.
pub(crate) struct Cluster {
    kubeconfig: PathBuf,
    pub(crate) client: Client,
    stopwatch: Stopwatch,
    _turn: Turn,
}

/// The kubeconfig that `make test-cluster` hands over, or nothing, with the reason printed.
///
/// # Panics
/// When there is none although `PGREKEY_REQUIRE_CLUSTER=1` says that there must be.
fn kubeconfig() -> Option<PathBuf> {
    let given = std::env::var_os("PGREKEY_KUBECONFIG").map(PathBuf::from);
    if given.is_none() {
        skip(
            "PGREKEY_KUBECONFIG is not set: run `make test-cluster`, which brings up a cluster and sets it",
        );
    }
    given
}

/// The definitions are installed once for all tests of a run.
static INSTALLED: OnceLock<()> = OnceLock::new();

pub(crate) async fn config_of(kubeconfig: &Path) -> Config {
    let read = Kubeconfig::read_from(kubeconfig).expect("a kubeconfig");
    Config::from_custom_kubeconfig(read, &KubeConfigOptions::default())
        .await
        .expect("a kubeconfig")
}

impl Cluster {
    /// The cluster, or nothing when there is none and none is required.
    pub(crate) async fn connect() -> Option<Self> {
        let (kubeconfig, stopwatch) = (kubeconfig()?, Stopwatch::start());
        Some(Self::with(kubeconfig, stopwatch, Turn::beside().await).await)
    }

    /// The same, while no other test runs.
    pub(crate) async fn connect_alone() -> Option<Self> {
        let (kubeconfig, stopwatch) = (kubeconfig()?, Stopwatch::start());
        Some(Self::with(kubeconfig, stopwatch, Turn::alone().await).await)
    }

    async fn with(kubeconfig: PathBuf, stopwatch: Stopwatch, turn: Turn) -> Self {
        let config = config_of(&kubeconfig).await;
        // One provider of cryptography for the whole process; a second installation is refused, and
        // need not matter.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let client = Client::try_from(config).expect("a client");
        let cluster = Self {
            kubeconfig,
            client,
            stopwatch,
            _turn: turn,
        };
        INSTALLED.get_or_init(|| cluster.install());
        cluster.begins_now();
        cluster
    }

    /// What a test has waited for its turn is no time of its own.
    pub(crate) fn begins_now(&self) {
        self.stopwatch.begins_now();
    }

    fn install(&self) {
        self.apply(&definitions());
        self.kubectl(
            &[
                "wait",
                "--for=condition=Established",
                "--timeout=30s",
                "crd",
                "--all",
            ],
            "",
        )
        .must_succeed();
        self.apply(r#"{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "demo"}}"#);
        let deployed = [
            "get",
            "deployment",
            OPERATOR,
            "-n",
            OPERATOR,
            "--ignore-not-found",
            "-o",
            "name",
        ];
        let deployed = self.kubectl(&deployed, "").must_succeed();
        assert_eq!(
            deployed, "",
            "pgrekey is installed here: `helm -n {OPERATOR} uninstall {OPERATOR}`"
        );
    }

    pub(crate) fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Runs kubectl with this input.
    pub(crate) fn kubectl(&self, arguments: &[&str], input: &str) -> Answer {
        kubectl(&self.kubeconfig, arguments, input)
    }

    /// Runs a program that asks this cluster, with this input.
    pub(crate) fn run(&self, command: &mut Command, input: &str) -> Answer {
        run(&self.kubeconfig, command, input)
    }

    /// Applies manifests; what others have set in them is taken over.
    pub(crate) fn apply(&self, manifests: &str) {
        self.kubectl(&APPLY, manifests).must_succeed();
    }

    /// The same, in this namespace.
    pub(crate) fn apply_in(&self, namespace: &str, manifests: &str) {
        self.kubectl(&[&["-n", namespace], &APPLY[..]].concat(), manifests)
            .must_succeed();
    }
}

/// Runs kubectl against the cluster of this kubeconfig, with this input.
pub(crate) fn kubectl(kubeconfig: &Path, arguments: &[&str], input: &str) -> Answer {
    let program = std::env::var_os("KUBECTL").unwrap_or_else(|| "kubectl".into());
    run(kubeconfig, Command::new(program).args(arguments), input)
}

fn run(kubeconfig: &Path, command: &mut Command, input: &str) -> Answer {
    let said: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .collect();
    let said = said.join(OsStr::new(" ")).to_string_lossy().into_owned();
    let pipes = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = pipes
        .env("KUBECONFIG", kubeconfig)
        .spawn()
        .expect("the program runs");
    // It may refuse before it has read everything.
    let _ = child
        .stdin
        .take()
        .expect("a pipe")
        .write_all(input.as_bytes());
    Answer {
        command: said,
        output: child.wait_with_output().expect("the program ends"),
    }
}

const APPLY: [&str; 5] = ["apply", "--server-side", "--force-conflicts", "-f", "-"];

/// Our program, as it was built for the tests.
pub(crate) fn pgrekey(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgrekey"));
    command.args(arguments);
    command
}

/// What our program prints that needs no cluster.
pub(crate) fn printed(arguments: &[&str]) -> String {
    let output = pgrekey(arguments).output().expect("pgrekey runs");
    assert!(
        output.status.success(),
        "pgrekey {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The definitions as `pgrekey crds` prints them.
pub(crate) fn definitions() -> String {
    printed(&["crds"])
}

/// What a command answered.
pub(crate) struct Answer {
    command: String,
    output: Output,
}

impl Answer {
    pub(crate) fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }

    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    pub(crate) fn succeeded(&self) -> bool {
        self.output.status.success()
    }

    /// The exit code; none after a signal.
    pub(crate) fn code(&self) -> Option<i32> {
        self.output.status.code()
    }

    /// The output, after an exit code of 0.
    pub(crate) fn must_succeed(&self) -> String {
        assert!(
            self.succeeded(),
            "`{}` failed: {}{}",
            self.command,
            self.stdout(),
            self.stderr()
        );
        self.stdout()
    }

    /// The error output, after any other exit code.
    pub(crate) fn must_fail(&self) -> String {
        assert!(
            !self.succeeded(),
            "`{}` succeeded: {}",
            self.command,
            self.stdout()
        );
        self.stderr()
    }
}

/// Waits, at most 30 s, until something holds.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, holds: impl Fn() -> F) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds().await {
        assert!(Instant::now() < deadline, "not within 30 s: {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
