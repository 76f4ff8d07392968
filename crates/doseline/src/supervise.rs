//! Roles that no other role depends on. After a failure they begin again; their failure ends no
//! other role.

use std::{future::Future, time::Duration};

use service::{backoff::Backoff, role_faults::RoleFaults};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Pauses after failures.
const PAUSES: Backoff = Backoff::exact(Duration::from_secs(1), PAUSE_MAX);
/// A role that has run for this long since its failure has recovered.
const STEADY: Duration = Duration::from_secs(10);

/// Runs a role until `shutdown`, and begins it again whenever it ends by itself. `faults` holds
/// its fault from the failure until the recovery.
pub async fn supervise<F, E>(
    role: &'static str,
    faults: RoleFaults,
    shutdown: CancellationToken,
    mut begin: impl FnMut() -> F,
) -> anyhow::Result<()>
where
    F: Future<Output = Result<(), E>> + Send + 'static,
    E: Into<anyhow::Error> + Send + 'static,
{
    let mut pauses = PAUSES;
    loop {
        let began = Instant::now();
        // In a task of its own, so that a panic ends only this role.
        let mut running = tokio::spawn(begin());
        let ended = tokio::select! {
            ended = &mut running => ended,
            () = sleep(STEADY) => {
                faults.note(role, None);
                running.await
            }
        };
        if shutdown.is_cancelled() {
            return ended?.map_err(Into::into);
        }
        let fault = match ended {
            Ok(Ok(())) => "ended by itself".to_owned(),
            Ok(Err(error)) => format!("{:#}", error.into()),
            Err(crashed) => format!("crashed: {crashed}"),
        };
        if began.elapsed() > PAUSE_MAX {
            pauses.reset();
        }
        let pause = pauses.pause();
        tracing::error!(
            role,
            error = fault,
            again_in_s = pause.as_secs(),
            "role failed and will be restarted; ingest continues"
        );
        faults.note(role, Some(fault));
        if shutdown.run_until_cancelled(sleep(pause)).await.is_none() {
            return Ok(());
        }
    }
}

/// As [`supervise`], for a role that is bound already: it begins with `first`, and after a failure
/// with what `bind` binds.
pub async fn supervise_from<R, B, F, E>(
    role: &'static str,
    faults: RoleFaults,
    shutdown: CancellationToken,
    first: R,
    mut bind: impl FnMut() -> B,
    run: impl Fn(R) -> F + Clone + Send + 'static,
) -> anyhow::Result<()>
where
    R: Send + 'static,
    B: Future<Output = Result<R, E>> + Send + 'static,
    F: Future<Output = Result<(), E>> + Send + 'static,
    E: Into<anyhow::Error> + Send + 'static,
{
    let mut first = Some(first);
    let begin = move || {
        // Nothing is bound before this future is awaited.
        let (first, bound, run) = (first.take(), bind(), run.clone());
        async move {
            let role = match first {
                Some(role) => role,
                None => bound.await?,
            };
            run(role).await
        }
    };
    supervise(role, faults, shutdown, begin).await
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_role_begins_again_after_an_error_and_a_crash_and_is_told_of_until_it_is_steady() {
        static BEGUN: AtomicU32 = AtomicU32::new(0);
        let (faults, shutdown) = (RoleFaults::default(), CancellationToken::new());
        let stop = shutdown.clone();
        let begin = move || {
            let (number, stop) = (BEGUN.fetch_add(1, Ordering::Relaxed), stop.clone());
            async move {
                match number {
                    0 => Err(anyhow::anyhow!("too long")),
                    1 => panic!("a fault"),
                    _ => {
                        stop.cancelled().await;
                        Ok(())
                    }
                }
            }
        };
        let running = tokio::spawn(supervise("monitor", faults.clone(), shutdown.clone(), begin));
        sleep(Duration::from_millis(500)).await;
        assert_eq!(faults.lines(), ["monitor: too long"]);
        sleep(Duration::from_secs(1)).await;
        assert!(faults.lines()[0].starts_with("monitor: crashed: "), "{faults:?}");
        // The second pause is twice as long as the first.
        assert_eq!(BEGUN.load(Ordering::Relaxed), 2);
        sleep(Duration::from_secs(2)).await;
        assert_eq!((BEGUN.load(Ordering::Relaxed), faults.lines().len()), (3, 1));
        sleep(STEADY).await;
        assert!(faults.lines().is_empty());
        shutdown.cancel();
        running.await.unwrap().unwrap();
    }
}
