//! Somebody in another namespace, who wants nothing but to be served.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::harness::{Cluster, example, kubectl};

/// Between two of its questions.
const PAUSE: Duration = Duration::from_millis(500);

/// Creates a database again and again, as a server-side dry run: each one is reviewed by all
/// webhooks.
pub(super) struct Bystander {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Seen>,
}

/// How it was served.
#[derive(Debug, Default)]
struct Seen {
    tries: usize,
    /// What kubectl said where a create was not let through.
    refused: Vec<String>,
    longest: Duration,
}

impl Bystander {
    pub(super) fn start(cluster: &Cluster, version: &str) -> Self {
        let asks = asking(cluster, version);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let task = tokio::task::spawn_blocking(move || {
            let mut seen = Seen::default();
            while !stopped.load(Ordering::Relaxed) {
                let start = Instant::now();
                if let Err(why) = asks() {
                    seen.refused.push(why);
                }
                seen.tries += 1;
                seen.longest = seen.longest.max(start.elapsed());
                std::thread::sleep(PAUSE);
            }
            seen
        });
        Self { stop, task }
    }

    /// Every one of its creates was let through.
    pub(super) async fn stop(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let seen = (&mut self.task).await.expect("the bystander ends");
        println!(
            "a bystander: {} creates, the slowest took {:.2} s",
            seen.tries,
            seen.longest.as_secs_f32()
        );
        assert_eq!(seen.refused, Vec::<String>::new());
        assert!(seen.tries > 0);
    }
}

/// A test that fails ends too.
impl Drop for Bystander {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// One `kubectl create --dry-run=server` of a database that nothing is wrong with.
pub(super) fn asking(
    cluster: &Cluster,
    version: &str,
) -> impl Fn() -> Result<(), String> + Send + use<> {
    let object = example("ha-postgres.yaml", "bystander", 1, version).to_string();
    let kubeconfig = cluster.kubeconfig().to_owned();
    move || {
        let create = ["-n", "default", "create", "--dry-run=server", "-f", "-"];
        let answer = kubectl(&kubeconfig, &create, &object);
        if answer.succeeded() {
            Ok(())
        } else {
            Err(answer.stderr())
        }
    }
}
