//! Tasks that start and stop together. A task that ends by itself is an error. Stopping has a
//! deadline.

use std::{future::Future, time::Duration};

use anyhow::anyhow;
use tokio::{signal::unix, signal::unix::SignalKind, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

/// Tasks that share a shutdown token.
pub struct Group {
    shutdown: CancellationToken,
    tasks: JoinSet<(&'static str, anyhow::Result<()>)>,
}

impl Group {
    pub fn new() -> Self {
        Self { shutdown: CancellationToken::new(), tasks: JoinSet::new() }
    }

    /// The token that asks the group's tasks to end.
    pub fn shutdown(&self) -> CancellationToken {
        self.shutdown.clone()
    }

    /// Adds a task that must run until the group's shutdown.
    pub fn spawn<E: Into<anyhow::Error>>(
        &mut self,
        name: &'static str,
        task: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        self.tasks.spawn(async move { (name, task.await.map_err(Into::into)) });
    }

    /// Waits until a task ends without being asked to; forever if there is no task.
    pub async fn failure(&mut self) -> anyhow::Error {
        match self.tasks.join_next().await {
            Some(Ok((name, Ok(())))) => anyhow!("{name} ended by itself"),
            Some(Ok((name, Err(error)))) => error.context(format!("{name} failed")),
            Some(Err(error)) => anyhow!("a task crashed: {error}"),
            None => std::future::pending().await,
        }
    }

    /// Asks every task to end and waits until the deadline. Then it abandons the remaining tasks:
    /// every role survives a crash.
    pub async fn stop(mut self, deadline: Instant) -> anyhow::Result<()> {
        self.shutdown.cancel();
        let mut outcome = Ok(());
        loop {
            match tokio::time::timeout_at(deadline, self.tasks.join_next()).await {
                Ok(None) => return outcome,
                Ok(Some(Ok((_, Ok(()))))) => {}
                Ok(Some(Ok((name, Err(error))))) => {
                    outcome = outcome.and(Err(error.context(format!("{name} failed while ending"))))
                }
                Ok(Some(Err(error))) => outcome = outcome.and(Err(anyhow!("a task crashed while ending: {error}"))),
                Err(_) => {
                    tracing::warn!(tasks = self.tasks.len(), "tasks did not end in time and are abandoned");
                    return outcome;
                }
            }
        }
    }
}

/// A token that SIGINT or SIGTERM cancels.
///
/// # Errors
/// The system refuses the signal handlers.
pub fn stopped_by_signal() -> anyhow::Result<CancellationToken> {
    let token = CancellationToken::new();
    let mut interrupt = unix::signal(SignalKind::interrupt())?;
    let mut terminate = unix::signal(SignalKind::terminate())?;
    let stop = token.clone();
    tokio::spawn(async move {
        let name = tokio::select! {
            _ = interrupt.recv() => "SIGINT",
            _ = terminate.recv() => "SIGTERM",
        };
        tracing::info!(signal = name, "stopping");
        stop.cancel();
    });
    Ok(token)
}

/// How long a service may take to end.
pub const STOP_WITHIN: Duration = Duration::from_millis(4_800);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hint::Explanation;

    #[tokio::test]
    async fn a_task_that_fails_is_named_and_its_remedy_is_kept() {
        let mut group = Group::new();
        group.spawn("load", async { Err(warehouse::Error::Schema("there is no schema".to_owned())) });
        let told = Explanation::of(&group.failure().await);
        assert_eq!(told.error, "load failed: there is no schema");
        assert_eq!(told.hint.as_deref(), Some("run `doseline migrate`"));
    }
}
