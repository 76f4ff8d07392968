//! Runs roles that no other role depends on. Such a role starts again after a failure, and its
//! failure ends no other role.

use std::{future::Future, time::Duration};

use service::troubles::Troubles;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// Pause after a first failure. It doubles with each further failure, up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// A role that has run for this long since its failure is healthy again.
const STEADY: Duration = Duration::from_secs(10);

/// Runs a role until `shutdown`, and starts it again whenever it ends by itself. `troubles` shows
/// the failure until the role is healthy again.
pub async fn kept<F, E>(
    role: &'static str,
    troubles: Troubles,
    shutdown: CancellationToken,
    mut begin: impl FnMut() -> F,
) -> anyhow::Result<()>
where
    F: Future<Output = Result<(), E>> + Send + 'static,
    E: Into<anyhow::Error> + Send + 'static,
{
    let mut pause = PAUSE_MIN;
    loop {
        let began = Instant::now();
        // A task of its own, so that a panic only ends this role.
        let mut running = tokio::spawn(begin());
        let ended = tokio::select! {
            ended = &mut running => ended,
            () = sleep(STEADY) => {
                troubles.note(role, None);
                running.await
            }
        };
        if shutdown.is_cancelled() {
            return ended?.map_err(Into::into);
        }
        let trouble = match ended {
            Ok(Ok(())) => "ended by itself".to_owned(),
            Ok(Err(error)) => format!("{:#}", error.into()),
            Err(crashed) => format!("crashed: {crashed}"),
        };
        if began.elapsed() > PAUSE_MAX {
            pause = PAUSE_MIN;
        }
        tracing::error!(
            role,
            error = trouble,
            again_in_s = pause.as_secs(),
            "role failed and begins again; ingest goes on"
        );
        troubles.note(role, Some(trouble));
        if shutdown.run_until_cancelled(sleep(pause)).await.is_none() {
            return Ok(());
        }
        pause = (2 * pause).min(PAUSE_MAX);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_role_begins_again_after_an_error_and_a_crash_and_is_told_of_until_it_is_steady() {
        static BEGUN: AtomicU32 = AtomicU32::new(0);
        let (troubles, shutdown) = (Troubles::default(), CancellationToken::new());
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
        let running = tokio::spawn(kept("monitor", troubles.clone(), shutdown.clone(), begin));
        sleep(Duration::from_millis(500)).await;
        assert_eq!(troubles.lines(), ["monitor: too long"]);
        sleep(Duration::from_secs(1)).await;
        assert!(troubles.lines()[0].starts_with("monitor: crashed: "), "{troubles:?}");
        // The second pause is twice as long as the first.
        assert_eq!(BEGUN.load(Ordering::Relaxed), 2);
        sleep(Duration::from_secs(2)).await;
        assert_eq!((BEGUN.load(Ordering::Relaxed), troubles.lines().len()), (3, 1));
        sleep(STEADY).await;
        assert!(troubles.lines().is_empty());
        shutdown.cancel();
        running.await.unwrap().unwrap();
    }
}
