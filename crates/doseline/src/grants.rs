//! `doseline grants`: users, rights and row policies for ClickHouse as SQL, and rules for Kafka as
//! a script. The first can also be applied.

mod kafka;

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::Args;
use service::secret::Password;
use warehouse::{
    grants::{Grant, PasswordHash, Subject, apply},
    rights::Service,
};

use crate::{config::Config, hint::fault, options, table};

#[derive(Args)]
#[command(after_help = "\
Without --tenant and --manufacturer it writes the users of the services: doseline_migrate,
doseline_load, doseline_monitor, doseline_serve, doseline_bridge, doseline_operate (commands of
people) and doseline_dashboards (reads all tenants). Each has a role of the same name with _role
behind it, and the role has the rights. The statements can be run again at any time. They name
tables that need not exist yet.

A user is written only where --passwords has a file of its name; the first line is its password. SQL
holds a salted hash of it. Without a file there is the role alone, to grant to a user of your own.

Examples:
  doseline grants --passwords secrets                          SQL to look at
  doseline grants --passwords secrets --apply --config admin.toml
  doseline grants --tenant acme --passwords secrets --apply --config admin.toml
  doseline grants --manufacturer \"Maker GmbH\" --apply --config admin.toml
  doseline grants --kafka --config services.toml > acls.sh

--apply needs a user of ClickHouse that may manage users and roles (access_management).")]
pub struct Arguments {
    /// The analyst of this tenant, who sees the tenant's rows and no others; may be repeated
    #[arg(long, value_name = "TENANT")]
    tenant: Vec<String>,
    /// This manufacturer, by its name in the registry of devices. It sees sums of its own units by
    /// day; may be repeated
    #[arg(long, value_name = "NAME")]
    manufacturer: Vec<String>,
    /// Directory with a password file for each user
    #[arg(long, value_name = "DIR")]
    passwords: Option<PathBuf>,
    /// Apply the statements to the ClickHouse of the configuration, instead of writing them
    #[arg(long)]
    apply: bool,
    /// Write the rules (ACLs) for Kafka as a shell script, instead of SQL
    #[arg(long, conflicts_with_all = ["tenant", "manufacturer", "passwords", "apply"])]
    kafka: bool,
}

pub async fn run(arguments: Arguments, config: Config) -> anyhow::Result<ExitCode> {
    if arguments.kafka {
        table::show(&kafka::script(&config.load.group))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut grants = Vec::new();
    for subject in subjects(&arguments)? {
        let password = match &arguments.passwords {
            Some(folder) => password(&folder.join(subject.user()))?,
            None => None,
        };
        grants.push(Grant { subject, password });
    }
    if let Some(folder) = arguments.passwords.as_ref().filter(|_| grants.iter().all(|grant| grant.password.is_none())) {
        let names: Vec<_> = grants.iter().map(|grant| grant.subject.user()).collect();
        let text = format!("--passwords {} has no file for any user", folder.display());
        return Err(fault(text, format!("name the files like the users: {}", names.join(", "))));
    }
    let warehouse = options::warehouse(&config)?;
    if arguments.apply {
        apply(&warehouse, &grants).await.context("apply the grants")?;
        let names: Vec<_> = grants.iter().map(|grant| grant.subject.user()).collect();
        table::show(&format!("applied to {}: {}\n", config.clickhouse.url, names.join(", ")))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut sql = String::new();
    for grant in &grants {
        for statement in grant.statements(warehouse.database()) {
            sql.push_str(&statement);
            sql.push_str(";\n");
        }
    }
    table::show(&sql)?;
    Ok(ExitCode::SUCCESS)
}

/// The services, or those who are named.
fn subjects(arguments: &Arguments) -> anyhow::Result<Vec<Subject>> {
    let tenants = arguments.tenant.iter().map(|name| Subject::tenant(name));
    let manufacturers = arguments.manufacturer.iter().map(|name| Subject::manufacturer(name));
    let named = tenants.chain(manufacturers).collect::<Result<Vec<_>, _>>()?;
    Ok(if named.is_empty() { Service::ALL.map(Subject::Service).to_vec() } else { named })
}

/// The password in a file, hashed; none if there is no such file.
fn password(path: &Path) -> anyhow::Result<Option<PasswordHash>> {
    let text = match Password::File(path.to_owned()).read() {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).context("read a password"),
    };
    if text.reveal().is_empty() {
        return Err(fault(
            format!("{} holds no password", path.display()),
            "write it into the first line, or remove the file",
        ));
    }
    Ok(Some(PasswordHash::new(text.reveal(), format!("{:032x}", rand::random::<u128>()))))
}
