//! The parts of a program that run side by side, and the signals that end them.

use std::future::Future;

use anyhow::anyhow;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

/// SIGTERM from Kubernetes, SIGINT from a keyboard.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// The parts of the program that run until its end, with their names.
pub(crate) struct Tasks {
    running: JoinSet<&'static str>,
    end: CancellationToken,
}

impl Tasks {
    pub(crate) fn new(end: CancellationToken) -> Self {
        Self {
            running: JoinSet::new(),
            end,
        }
    }

    pub(crate) fn add<T>(
        &mut self,
        name: &'static str,
        task: impl Future<Output = T> + Send + 'static,
    ) {
        self.running.spawn(async move {
            task.await;
            name
        });
    }

    /// Waits until all tasks have ended. A signal ends them in good order, a second signal at once.
    /// A task that ends by itself ends the others: a restarted program is better than half a
    /// program.
    pub(crate) async fn run(mut self, signals: &mut Signals) -> anyhow::Result<()> {
        let mut outcome = Ok(());
        loop {
            tokio::select! {
                name = signals.next() => {
                    if self.end.is_cancelled() {
                        return Err(anyhow!("a second signal came before everything had ended"));
                    }
                    info!("{name}: stopping");
                    self.end.cancel();
                }
                ended = self.running.join_next() => {
                    let problem = match ended {
                        None => return outcome,
                        Some(Ok(_)) if self.end.is_cancelled() => continue,
                        Some(Ok(name)) => anyhow!("{name} ended by itself"),
                        Some(Err(panic)) => anyhow!("a task failed: {panic}"),
                    };
                    error!("{problem}: stopping");
                    self.end.cancel();
                    outcome = Err(problem);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_ends_by_itself_ends_the_program() {
        let end = CancellationToken::new();
        let mut tasks = Tasks::new(end.clone());
        tasks.add("patient", end.clone().cancelled_owned());
        tasks.add("short", async {});
        let problem = tasks.run(&mut Signals::new().unwrap()).await.unwrap_err();
        assert_eq!(problem.to_string(), "short ended by itself");
    }
}
