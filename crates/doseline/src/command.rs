//! What a person writes with a sub-command becomes commands: records in Kafka that the loader
//! applies. The sub-command ends when ClickHouse holds them.

use std::time::Duration;

use anyhow::Context as _;
use load::commands::Commands;
use telemetry::{
    command::Command,
    commands::{self, Role, command::Kind},
};
use warehouse::Warehouse;

use crate::{
    config::Config,
    hint::{Hint as _, fault},
    options,
};

/// How long ClickHouse may take to hold the commands.
const APPLIED_WITHIN: Duration = Duration::from_secs(15);
/// How many commands wait for ClickHouse at once.
const GIVEN_AT_ONCE: usize = 100;

/// A command of a person who runs this program. Whoever may read the configuration with the
/// passwords of the engines is an administrator.
///
/// # Errors
/// A value that no command may have, with its field.
pub fn command(tenant: &str, by: &str, given_us: i64, kind: Kind) -> anyhow::Result<Command> {
    let message = commands::Command {
        tenant: tenant.to_owned(),
        author: by.to_owned(),
        role: Role::Admin.into(),
        given_us,
        idempotency_key: format!("{:032x}", rand::random::<u128>()),
        kind: Some(kind),
    };
    Command::new(message).map_err(|reject| fault(reject.to_string(), "nothing was written; correct the value"))
}

/// Gives commands, and returns when every table holds what they mean.
///
/// # Errors
/// Kafka or ClickHouse cannot be reached, no loader runs, or the loader refuses a command.
pub async fn give(config: &Config, warehouse: &Warehouse, commands: &[Command]) -> anyhow::Result<()> {
    if commands.is_empty() {
        return Ok(());
    }
    let giver = Commands::new(&options::load_kafka(config)?, warehouse.clone())?;
    for commands in commands.chunks(GIVEN_AT_ONCE) {
        let outcomes = match giver.give(commands, APPLIED_WITHIN).await {
            Err(error @ load::Error::Kafka(_)) => {
                let remedy = "it may still arrive: see `doseline audit list` before you repeat it";
                return Err(error).context("Kafka has not confirmed the command").hint(remedy);
            }
            outcomes => outcomes?,
        };
        if let Some(refused) = outcomes.iter().find(|outcome| outcome.outcome == "REFUSED") {
            return Err(fault(
                format!("the loader refused the command: {}", refused.reason),
                "see `doseline audit list`",
            ));
        }
    }
    Ok(())
}
