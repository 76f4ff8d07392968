//! `doseline incident`: what people report. A trace may start there.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use monitor::trace::trace;
use telemetry::commands::{AddIncident, command::Kind};
use warehouse::incidents::Incident;

use crate::{
    command,
    config::Config,
    hint::fault,
    options,
    running::Beside,
    table::{self, text},
    trace as subject,
};

#[derive(Args)]
#[command(arg_required_else_help = true)]
pub struct Arguments {
    #[command(flatten)]
    pub beside: Beside,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Record an incident, and print its trace
    #[command(after_help = "\
Incidents are never changed: a correction is another one. An incident goes through Kafka, so a loader must run; the
command ends when ClickHouse holds it.

Example:
  doseline incident add --item hp-0017 --note \"abscess, client 4711\" --by \"Dr. Ada\"
  doseline trace --incident INC-…")]
    Add {
        #[command(flatten)]
        about: subject::About,
        /// Tenant, if several tenants know the id
        #[arg(long, value_name = "TENANT")]
        tenant: Option<String>,
        /// What happened
        #[arg(long, value_name = "TEXT")]
        note: String,
        /// Person who reports it
        #[arg(long, value_name = "NAME")]
        by: String,
    },
    /// List all incidents, the latest first
    #[command(after_help = "\
Examples:
  doseline incident list --tenant acme
  doseline incident list --json | jq -r .incident_id")]
    List {
        /// Only this tenant
        #[arg(long, value_name = "TENANT", default_value = "")]
        tenant: String,
        /// One JSON object for each line; times are us since 1970
        #[arg(long)]
        json: bool,
    },
}

pub async fn run(arguments: Arguments, config: Config) -> anyhow::Result<ExitCode> {
    let warehouse = options::warehouse(&config)?;
    match arguments.action {
        Action::Add { about, tenant, note, by } => {
            for (flag, text) in [("--note", &note), ("--by", &by)] {
                if text.trim().is_empty() {
                    return Err(fault(format!("{flag} {text:?} is empty"), "say it in words"));
                }
            }
            let (tenant, subject) = subject::resolve(&warehouse, &about, tenant.as_deref()).await?;
            let recorded_at = monitor::now_us();
            let incident_id = format!("INC-{recorded_at}");
            let kind = Kind::AddIncident(AddIncident {
                incident_id: incident_id.clone(),
                subject_kind: subject.kind().to_owned(),
                subject: subject.id().to_owned(),
                note,
            });
            let add = command::command(&tenant, &by, recorded_at, kind)?;
            command::give(&config, &warehouse, &[add]).await?;
            let found = trace(&warehouse, &tenant, &subject).await.context("follow the links")?;
            table::show(&format!("{incident_id}\n{}", subject::text(&found)))?;
        }
        Action::List { tenant, json } => {
            let incidents = warehouse.incidents(&tenant).await.context("read the incidents")?;
            let columns =
                [text("INCIDENT"), text("TENANT"), text("RECORDED"), text("ABOUT"), text("REPORTED BY"), text("NOTE")];
            table::list(&incidents, json, "no incident is recorded", columns, |incident| {
                let Incident { incident_id, tenant, subject_kind, subject, note, reported_by, recorded_at } =
                    incident.clone();
                let about = format!("{subject_kind} {subject}");
                [incident_id, tenant, monitor::stamp(recorded_at), about, reported_by, note]
            })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
