//! `doseline token`: the tokens that open the dashboard and its interface.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};
use dashboard::access::{
    now_s,
    tokens::{self, Role, Token},
};
use serde::Serialize;

use crate::{
    config::Config,
    hint::fault,
    table::{self, text},
};

const DAY_S: u64 = 86_400;

#[derive(Args)]
#[command(arg_required_else_help = true)]
pub struct Arguments {
    /// File of the tokens; without it the one that serve.tokens_file names
    #[arg(long, value_name = "FILE", global = true)]
    file: Option<PathBuf>,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Create a token, and print it: it is shown this once
    #[command(after_help = "\
A viewer reads everything of its tenants but raw payloads. An operator reads those too, acknowledges alerts, records
incidents and replays quarantine. A manufacturer reads the views for manufacturers, of its own units. An admin may do
all of it for all tenants, and reads the audit.

Examples:
  doseline token create --role viewer --tenant acme --config services.toml
  doseline token create --role operator --tenant acme --tenant beta --days 30 --note \"Grafana\" --file tokens.json
  doseline token create --role manufacturer --manufacturer \"Meso Corp\" --file tokens.json
  curl -H \"Authorization: Bearer $TOKEN\" https://fleet.example/api/v1/devices")]
    Create {
        /// What the holder may do
        #[arg(long, value_name = "ROLE")]
        role: RoleName,
        /// Tenant that a viewer or an operator reads; may be given several times
        #[arg(long = "tenant", value_name = "TENANT")]
        tenants: Vec<String>,
        /// Manufacturer of the units, as the registry spells it
        #[arg(long, value_name = "NAME", default_value = "")]
        manufacturer: String,
        /// Days until the token ends
        #[arg(long, value_name = "DAYS", default_value_t = 90, value_parser = clap::value_parser!(u64).range(1..=3_650))]
        days: u64,
        /// What the token is for
        #[arg(long, value_name = "TEXT", default_value = "")]
        note: String,
    },
    /// List the tokens, without their secrets
    #[command(after_help = "\
Examples:
  doseline token list --config services.toml
  doseline token list --file tokens.json --json | jq -r .id")]
    List {
        /// One JSON object for each line; times are s since 1970
        #[arg(long)]
        json: bool,
    },
    /// Revoke a token: it opens nothing from its next request on, and its log-ins end
    #[command(after_help = "Example:\n  doseline token revoke 1f0a93c2 --config services.toml")]
    Revoke {
        /// Id of the token, as `list` prints it
        id: String,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum RoleName {
    Viewer,
    Operator,
    Manufacturer,
    Admin,
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Viewer => Self::Viewer,
            RoleName::Operator => Self::Operator,
            RoleName::Manufacturer => Self::Manufacturer,
            RoleName::Admin => Self::Admin,
        }
    }
}

/// A token in the list, without its hash.
#[derive(Serialize)]
struct Listed<'a> {
    id: &'a str,
    role: Role,
    tenants: &'a [String],
    manufacturer: &'a str,
    created_s: u64,
    expires_s: u64,
    is_valid: bool,
    note: &'a str,
}

impl<'a> Listed<'a> {
    fn of(token: &'a Token, now_s: u64) -> Self {
        let Token { id, role, tenants, manufacturer, note, created_s, expires_s, .. } = token;
        let (role, created_s, expires_s) = (*role, *created_s, *expires_s);
        Self { id, role, tenants, manufacturer, created_s, expires_s, is_valid: expires_s > now_s, note }
    }
}

/// Runs the command.
pub fn run(arguments: Arguments, config: &Config) -> anyhow::Result<ExitCode> {
    let file = arguments.file.or_else(|| config.serve.tokens_file.clone());
    let Some(file) = file else {
        let remedy = "name it with --file FILE, or with serve.tokens_file in the configuration";
        return Err(fault("no file of tokens is named", remedy));
    };
    match arguments.action {
        Action::Create { role, tenants, manufacturer, days, note } => {
            let now = now_s();
            let made = Token::create(role.into(), tenants, manufacturer, note, now, now + days * DAY_S);
            let (token, text) = made.map_err(|unfit| fault(unfit.to_string(), "see `doseline token create --help`"))?;
            let expires = day(token.expires_s);
            let id = token.id.clone();
            tokens::update(&file, |tokens| tokens.push(token)).context("keep the token")?;
            println!("{text}");
            eprintln!("token {id} ends on {expires}; keep its text, it is not shown again");
        }
        Action::List { json } => list(&file, json)?,
        Action::Revoke { id } => {
            let revoked = tokens::update(&file, |tokens| {
                let before = tokens.len();
                tokens.retain(|token| token.id != id);
                before != tokens.len()
            });
            if !revoked.context("revoke the token")? {
                return Err(fault(format!("there is no token {id:?}"), "see `doseline token list`"));
            }
            println!("revoked {id}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn list(file: &Path, json: bool) -> anyhow::Result<()> {
    let (tokens, now) = (tokens::read(file).context("read the tokens")?, now_s());
    let listed: Vec<_> = tokens.iter().map(|token| Listed::of(token, now)).collect();
    let columns =
        [text("TOKEN"), text("ROLE"), text("SEES"), text("CREATED"), text("ENDS"), text("STATE"), text("NOTE")];
    table::list(&listed, json, "there is no token", columns, |token| {
        let sees = match token.role {
            Role::Viewer | Role::Operator => token.tenants.join(", "),
            Role::Manufacturer => token.manufacturer.to_owned(),
            Role::Admin => "everything".to_owned(),
        };
        let state = if token.is_valid { "valid" } else { "expired" };
        let (id, role) = (token.id.to_owned(), token.role.to_string());
        [id, role, sees, day(token.created_s), day(token.expires_s), state.to_owned(), token.note.to_owned()]
    })
}

/// A time as its day, UTC.
fn day(at_s: u64) -> String {
    let at_us = i64::try_from(at_s.saturating_mul(1_000_000)).unwrap_or(i64::MAX);
    monitor::stamp(at_us).chars().take(10).collect()
}
