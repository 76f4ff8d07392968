//! Does what people order through the dashboard, as the sub-commands do: gives commands to the
//! loader, and replays rows of quarantine.

use std::{sync::Arc, time::Duration};

use dashboard::write::{NotWritten, Order, Replayed, Writer};
use load::commands::Commands;
use telemetry::command::Command;
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;
use warehouse::{Warehouse, audit::Outcome};

use crate::{config::Config, group::Group, options, quarantine};

/// How long ClickHouse may take to hold what was ordered. A page waits for it.
const APPLIED_WITHIN: Duration = Duration::from_secs(10);
/// Orders that are done at once. Each has a connection to Kafka of its own, because people write
/// seldom.
const AT_ONCE: usize = 8;

/// Starts the task, and returns who orders from it.
pub fn start(group: &mut Group, config: &Config, warehouse: &Warehouse) -> Writer {
    let (writer, orders) = dashboard::write::orders();
    group.spawn("writer", run(config.clone(), warehouse.clone(), orders, group.shutdown()));
    writer
}

async fn run(
    config: Config,
    warehouse: Warehouse,
    mut orders: mpsc::Receiver<Order>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let config = Arc::new(config);
    let mut running = JoinSet::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            Some(_) = running.join_next() => {}
            Some(order) = orders.recv(), if running.len() < AT_ONCE => {
                running.spawn(obey(Arc::clone(&config), warehouse.clone(), order));
            }
        }
    }
}

async fn obey(config: Arc<Config>, warehouse: Warehouse, order: Order) {
    // Whoever ordered it may have gone.
    match order {
        Order::Give { command, answer } => {
            let _ = answer.send(give(&config, warehouse, &command).await);
        }
        Order::Replay { tenant, id, by, answer } => {
            let replayed = quarantine::replay_row(&config, &warehouse, &tenant, id, &by, APPLIED_WITHIN).await;
            let _ = answer.send(replayed.unwrap_or_else(|error| {
                tracing::warn!(error = format!("{error:#}"), %id, "a row of quarantine could not be replayed");
                Err(NotWritten::Unconfirmed)
            }));
        }
    }
}

async fn give(config: &Config, warehouse: Warehouse, command: &Command) -> Result<Outcome, NotWritten> {
    let failed = |error: &dyn std::fmt::Display, known| {
        tracing::warn!(%error, action = command.action(), subject = command.subject(), "a command was not applied");
        known
    };
    let kafka = options::load_kafka(config).map_err(|error| failed(&format!("{error:#}"), NotWritten::Failed))?;
    let commands = Commands::new(&kafka, warehouse).map_err(|error| failed(&error, NotWritten::Failed))?;
    match commands.give(std::slice::from_ref(command), APPLIED_WITHIN).await {
        Ok(outcomes) => outcomes.into_iter().next().ok_or(NotWritten::Late),
        Err(error @ load::Error::Late { .. }) => Err(failed(&error, NotWritten::Late)),
        Err(error @ load::Error::Topic { .. }) => Err(failed(&error, NotWritten::Failed)),
        Err(error) => Err(failed(&error, NotWritten::Unconfirmed)),
    }
}

/// What became of one replayed row, from what the loader has written about it.
pub fn replayed(result: &warehouse::quarantine::ReplayResult) -> Replayed {
    let stays = if result.outcome == "REFUSED" { result.detail.clone() } else { String::new() };
    Replayed { stored: result.stored, duplicates: result.duplicates, refused: result.refused, stays }
}
