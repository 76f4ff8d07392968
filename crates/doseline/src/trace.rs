//! `doseline trace`: the links of sterility, both ways.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use monitor::trace::{Breach, Subject, Trace, trace};
use warehouse::Warehouse;

use crate::{
    config::Config,
    hint::fault,
    options,
    running::Beside,
    table::{self, Table, json_line, number, printable_lines, show, terminal_width},
};

/// The subject of a trace or an incident.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub struct About {
    /// A session, 32 hex digits
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// An item, by the id that devices report
    #[arg(long, value_name = "ID")]
    item: Option<String>,
    /// A lot: DI/LOT, or the lot alone
    #[arg(long, value_name = "LOT")]
    lot: Option<String>,
    /// A sterilization cycle
    #[arg(long, value_name = "UID")]
    cycle: Option<String>,
    /// The subject of an incident
    #[arg(long, value_name = "ID")]
    incident: Option<String>,
}

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
    /// Tenant, if several tenants know the id
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// One JSON object instead of the tree
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub beside: Beside,
}

pub async fn run(arguments: Arguments, config: Config) -> anyhow::Result<ExitCode> {
    let warehouse = options::warehouse(&config)?;
    let (tenant, subject) = resolve(&warehouse, &arguments.about, arguments.tenant.as_deref()).await?;
    let found = trace(&warehouse, &tenant, &subject).await.context("follow the links")?;
    let text = if arguments.json { json_line(&found)? + "\n" } else { text(&found) };
    show(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// A trace for a person: the tree, then the breaches and what could not be followed.
pub fn text(found: &Trace) -> String {
    let mut text = printable_lines(&found.tree());
    text.push_str("\nbreaches\n");
    if found.breaches.is_empty() {
        text.push_str("none\n");
    } else {
        let mut breaches =
            Table::new([number("RULE"), table::text("STATE"), table::text("SEVERITY"), table::text("REASON")]);
        for Breach { rule, state, severity, reason } in &found.breaches {
            breaches.add([rule.to_string(), state.to_string(), severity.to_string(), reason.clone()]);
        }
        text.push_str(&breaches.text(terminal_width()));
    }
    text.push_str("\nunknown\n");
    match found.unknown.is_empty() {
        true => text.push_str("nothing\n"),
        false => text.push_str(&printable_lines(&(found.unknown.join("\n") + "\n"))),
    }
    text
}

/// The subject, and the only tenant that knows it.
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
        [] => Err(fault(
            format!("nothing is known of {kind} {id:?}"),
            "give the id as the tables have it, e.g. in item_history",
        )),
        several => Err(fault(format!("{kind} {id:?} is known to {}", several.join(", ")), "choose one with --tenant")),
    }
}

async fn of_incident(warehouse: &Warehouse, id: &str) -> anyhow::Result<(String, Subject)> {
    let incidents = warehouse.incidents("").await.context("look for the incident")?;
    let Some(incident) = incidents.into_iter().find(|incident| incident.incident_id == id) else {
        return Err(fault(format!("there is no incident {id:?}"), "see `doseline incident list`"));
    };
    let subject = Subject::new(&incident.subject_kind, &incident.subject);
    let subject = subject.with_context(|| format!("incident {id} is about a {:?}", incident.subject_kind))?;
    Ok((incident.tenant, subject))
}

#[cfg(test)]
mod tests {
    use monitor::trace::Node;
    use warehouse::states::{Severity, VerdictState};

    use super::*;

    #[test]
    fn a_trace_shows_its_tree_its_breaches_and_what_is_not_known() {
        let root = Node {
            kind: "item",
            id: "N\u{1b}1".to_owned(),
            facts: Vec::new(),
            backwards: Vec::new(),
            forwards: Vec::new(),
        };
        let mut found = Trace { tenant: "acme".to_owned(), root, breaches: Vec::new(), unknown: Vec::new() };
        let nothing = "tenant acme\nitem N\\u{1b}1\n\nbreaches\nnone\n\nunknown\nnothing\n";
        assert_eq!(text(&found), nothing);
        let breach = |rule, reason: &str| Breach {
            rule,
            state: VerdictState::Confirmed,
            severity: Severity::Critical,
            reason: reason.to_owned(),
        };
        found.breaches = vec![breach(2, "used twice"), breach(11, "late")];
        found.unknown = vec!["cycle c1".to_owned()];
        let told = text(&found);
        let rows = "breaches\nRULE  STATE      SEVERITY  REASON\n   2  CONFIRMED  critical  used twice\n  11  CONFIRMED  \
                    critical  late\n";
        assert!(told.contains(rows) && told.ends_with("\nunknown\ncycle c1\n"), "{told}");
    }
}
