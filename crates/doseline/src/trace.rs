//! `doseline trace`: the links of sterility, both ways.

use std::{
    io::{ErrorKind, Write as _},
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use clap::Args;
use monitor::trace::{Subject, trace};
use warehouse::Warehouse;

use crate::{config::Config, options};

/// What something is about.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub struct About {
    /// A visit, 32 hex digits
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// An item, as devices call it
    #[arg(long, value_name = "ID")]
    item: Option<String>,
    /// A lot: DI/LOT, or the lot alone
    #[arg(long, value_name = "LOT")]
    lot: Option<String>,
    /// A sterilization cycle
    #[arg(long, value_name = "UID")]
    cycle: Option<String>,
    /// What an incident is about
    #[arg(long, value_name = "ID")]
    incident: Option<String>,
}

/// Flags of `doseline trace`.
#[derive(Args)]
#[command(after_help = "\
<- leads to what something came from, -> to whom or what it reached. What is not known on the way is listed.

Examples:
  doseline trace --session 0f8fad5bd9cb469fa16570867728950e
  doseline trace --item hp-0017
  doseline trace --cycle cyc-ster-0004-12 --json
  doseline trace --lot 04012345000055/ND-2607")]
pub struct Arguments {
    #[command(flatten)]
    about: About,
    /// Tenant, where several know the id
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// As JSON, for programs
    #[arg(long)]
    json: bool,
}

/// `doseline trace`
pub async fn run(arguments: Arguments, config: Config) -> anyhow::Result<ExitCode> {
    let warehouse = options::warehouse(&config)?;
    let (tenant, subject) = resolve(&warehouse, &arguments.about, arguments.tenant.as_deref()).await?;
    let found = trace(&warehouse, &tenant, &subject).await.context("follow the links")?;
    let text = if arguments.json { serde_json::to_string_pretty(&found)? + "\n" } else { found.text() };
    show(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Writes to standard output; a reader that has seen enough and left is no fault.
pub fn show(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("write to standard output"),
        _ => Ok(()),
    }
}

/// The subject, and the one tenant that knows it.
pub async fn resolve(warehouse: &Warehouse, about: &About, tenant: Option<&str>) -> anyhow::Result<(String, Subject)> {
    let subject = match about {
        About { session: Some(id), .. } => Subject::Session(id.to_lowercase()),
        About { item: Some(id), .. } => Subject::Item(id.clone()),
        About { lot: Some(id), .. } => Subject::Lot(id.clone()),
        About { cycle: Some(id), .. } => Subject::Cycle(id.clone()),
        About { incident, .. } => return of_incident(warehouse, incident.as_deref().unwrap_or_default()).await,
    };
    let (kind, id) = (subject.kind().to_lowercase(), subject.id());
    let mut tenants = warehouse.tenants_of(subject.kind(), id).await.context("look for it")?;
    if let Some(tenant) = tenant {
        tenants.retain(|known| known == tenant);
    }
    match tenants.as_slice() {
        [tenant] => Ok((tenant.clone(), subject)),
        [] => bail!("nothing is known of {kind} {id:?}; give the id as the tables have it, e.g. of item_history"),
        several => bail!("{kind} {id:?} is known to {}; choose one with --tenant", several.join(", ")),
    }
}

async fn of_incident(warehouse: &Warehouse, id: &str) -> anyhow::Result<(String, Subject)> {
    let incidents = warehouse.incidents("").await.context("look for the incident")?;
    let Some(incident) = incidents.into_iter().find(|incident| incident.incident_id == id) else {
        bail!("there is no incident {id:?}; see `doseline incident list`");
    };
    let subject = Subject::new(&incident.subject_kind, &incident.subject);
    let subject = subject.with_context(|| format!("incident {id} is about a {:?}", incident.subject_kind))?;
    Ok((incident.tenant, subject))
}
