//! `doseline certs`: authorities and certificates. It needs no configuration and no engine.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use certs::{Entry, Issued, Kind, State, Store, Subject};
use clap::{Args, Subcommand};
use serde::Serialize;
use service::secret::Password;

use crate::{
    hint::{Hint as _, fault},
    table::{self, text},
};

/// Variable of the environment with the passphrase.
const PASSPHRASE: &str = "DOSELINE_CERTS_PASSPHRASE";

#[derive(Args)]
#[command(
    arg_required_else_help = true,
    after_help = "\
Three authorities sign: one for devices and gateways, one for the MQTT broker and the bridge, one for
the other roles. Each listener of the broker accepts one authority, so that no device can pass for the
bridge or the broker. Everything is in one folder (--dir). Its subfolder authority holds the encrypted
keys of the authorities; nothing that runs needs it, so it may be kept elsewhere until it is needed.

Examples:
  openssl rand -hex 24 > passphrase && chmod 600 passphrase
  doseline certs init --dir secrets --passphrase-file passphrase
  doseline certs broker --host mqtt.example.org --dir secrets --passphrase-file passphrase
  doseline certs bridge --dir secrets --passphrase-file passphrase
  doseline certs device acme/berlin-1/D-0001 --dir secrets --passphrase-file passphrase
  doseline certs device acme/berlin-1/D-0002 --csr D-0002.csr --dir secrets --passphrase-file passphrase
  doseline certs renew --within-days 30 --dir secrets --passphrase-file passphrase
  doseline certs revoke acme/berlin-1/D-0001 --dir secrets --passphrase-file passphrase
  doseline certs list --dir secrets

After broker, renew and revoke: send SIGHUP to the broker. It reads its files again and keeps all
connections except those of revoked names."
)]
pub struct Arguments {
    /// Folder of authorities and certificates
    #[arg(long, global = true, value_name = "DIR", default_value = "doseline-certs")]
    dir: PathBuf,
    /// File whose first line is the passphrase of the authorities' keys; without it the variable
    /// DOSELINE_CERTS_PASSPHRASE is taken
    #[arg(long, global = true, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Make the authorities, in a folder that has none, and the random share group of the bridge
    Init {
        /// Validity, days
        #[arg(long, default_value_t = 3_650, value_parser = clap::value_parser!(u32).range(1..=36_500))]
        days: u32,
    },
    /// Make the certificate of the MQTT broker
    Broker {
        /// Name or address by which devices and the bridge call the broker; may be repeated
        #[arg(long = "host", value_name = "HOST", required = true)]
        hosts: Vec<String>,
        #[command(flatten)]
        new: New,
    },
    /// Make the certificate of the bridge
    Bridge {
        #[command(flatten)]
        new: New,
    },
    /// Make the certificate of another service, with the common name doseline-NAME
    Role {
        /// Name of the service
        name: String,
        /// Name or address by which clients call it, if it is a server; may be repeated
        #[arg(long = "host", value_name = "HOST")]
        hosts: Vec<String>,
        #[command(flatten)]
        new: New,
    },
    /// Make the certificate of a device
    Device {
        /// TENANT/SITE/DEVICE, as in its topic
        name: String,
        #[command(flatten)]
        new: New,
    },
    /// Make the certificate of a gateway; `doseline devices acl` writes what it may publish
    Gateway {
        /// TENANT/SITE/GATEWAY
        name: String,
        #[command(flatten)]
        new: New,
    },
    /// Make a new certificate and key for a name that has one; the old certificate stays valid
    #[command(after_help = "\
The files of the name are replaced. To shut the old certificate out, revoke it by its serial number once
the new one is installed (list shows it).")]
    Renew {
        /// The name, as list shows it
        #[arg(required_unless_present = "within_days")]
        name: Option<String>,
        /// Renew every certificate that ends within this many days and whose key is in the folder
        #[arg(long, value_name = "DAYS", conflicts_with_all = ["name", "csr"])]
        within_days: Option<u32>,
        #[command(flatten)]
        new: New,
    },
    /// Revoke the certificates of a name
    Revoke {
        /// The name, as list shows it
        name: String,
        /// Only the certificate with this serial number
        #[arg(long)]
        serial: Option<String>,
    },
    /// List authorities and certificates
    List {
        /// One JSON object for each line; times are us since 1970
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args)]
struct New {
    /// Validity, days, at most that of the authority
    #[arg(long, default_value_t = 825, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    days: u32,
    /// Certificate signing request (PEM, key on the curve P-256): the private key stays where it
    /// was made. The names in the request are ignored
    #[arg(long, value_name = "FILE")]
    csr: Option<PathBuf>,
}

/// A line of `list`.
#[derive(Serialize)]
struct Line {
    name: String,
    kind: Kind,
    serial: String,
    until: i64,
    state: State,
    revoked: Option<i64>,
    key_elsewhere: bool,
}

/// Runs the command.
pub fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let Arguments { dir, passphrase_file, action } = arguments;
    let store = Store::new(&dir);
    let passphrase = || passphrase(passphrase_file.as_deref());
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?;
    let issue = |subject: Result<Subject, String>, new: New| {
        let subject = subject.map_err(anyhow::Error::msg)?;
        let name = subject.name.clone();
        let issued = store.issue(&subject, new.csr.as_deref(), &passphrase()?, now, new.days);
        told(&issued.with_context(|| format!("make the certificate of {name}"))?);
        anyhow::Ok(())
    };
    match action {
        Action::Init { days } => {
            for authority in store.init(&passphrase()?, now, days).context("make the authorities")? {
                println!("authority {} until {}", authority.name, stamp(authority.not_after));
            }
            println!("{}: keep its subfolder authority and the passphrase apart from what runs", dir.display());
        }
        Action::Broker { hosts, new } => issue(Subject::broker(hosts), new)?,
        Action::Bridge { new } => issue(Ok(Subject::bridge()), new)?,
        Action::Role { name, hosts, new } => issue(Subject::role(&name, hosts), new)?,
        Action::Device { name, new } => issue(Subject::device(Kind::Device, &name), new)?,
        Action::Gateway { name, new } => issue(Subject::device(Kind::Gateway, &name), new)?,
        Action::Renew { name, within_days, new } => {
            let names = match (name, within_days) {
                (Some(name), _) => vec![name],
                (None, days) => store.ending(now, days.unwrap_or_default())?,
            };
            if names.is_empty() {
                eprintln!("no certificate ends within that time");
            }
            for name in names {
                let issued = store.renew(&name, new.csr.as_deref(), &passphrase()?, now, new.days);
                told(&issued.with_context(|| format!("renew the certificate of {name}"))?);
            }
        }
        Action::Revoke { name, serial } => {
            let revoked = store.revoke(&name, serial.as_deref(), &passphrase()?, now);
            for Entry { name, serial, .. } in revoked.with_context(|| format!("revoke {name}"))?.entries {
                println!("revoked {name}, serial {serial}");
            }
            println!("send SIGHUP to the broker: it then refuses these certificates and ends their connections");
        }
        Action::List { json } => list(&store, json, now)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn passphrase(file: Option<&Path>) -> anyhow::Result<String> {
    if let Some(path) = file {
        let passphrase = Password::File(path.to_owned()).read().context("read the passphrase")?;
        return Ok(passphrase.reveal().to_owned());
    }
    let missing =
        || fault("the passphrase of the authorities is missing", format!("--passphrase-file FILE, or {PASSPHRASE}"));
    std::env::var(PASSPHRASE).ok().filter(|passphrase| !passphrase.is_empty()).ok_or_else(missing)
}

fn told(issued: &Issued) {
    let Issued { entry, certificate, key } = issued;
    let key = key.as_ref().map_or_else(|| "its key is elsewhere".to_owned(), |key| format!("key {}", key.display()));
    println!(
        "{} until {}, serial {}: {}, {key}",
        entry.name,
        stamp(entry.not_after),
        entry.serial,
        certificate.display()
    );
}

fn stamp(seconds: i64) -> String {
    monitor::stamp(seconds.saturating_mul(1_000_000))
}

fn list(store: &Store, json: bool, now: i64) -> anyhow::Result<()> {
    let us = |seconds: i64| seconds.saturating_mul(1_000_000);
    let lines: Vec<Line> = store
        .list()
        .hint("name the folder with --dir")?
        .into_iter()
        .map(|entry| Line {
            state: entry.state(now),
            name: entry.name,
            kind: entry.kind,
            serial: entry.serial,
            until: us(entry.not_after),
            revoked: entry.revoked.map(us),
            key_elsewhere: entry.key_elsewhere,
        })
        .collect();
    let columns = [text("NAME"), text("KIND"), text("STATE"), text("UNTIL"), text("SERIAL")];
    table::list(&lines, json, "no certificate", columns, |line| {
        let kind = format!("{:?}", line.kind).to_uppercase();
        let state = format!("{:?}", line.state).to_uppercase();
        [line.name.clone(), kind, state, monitor::stamp(line.until), line.serial.clone()]
    })
}
