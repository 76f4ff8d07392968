//! Commands: what people write, as records of the topic [`COMMANDS_TOPIC`].
//!
//! A [`Command`] has been checked against every limit of `commands.proto`. It says what its row in
//! the audit holds, and which numbers its ledger keeps, so that it is applied once.
//!
//! [`COMMANDS_TOPIC`]: crate::kafka::COMMANDS_TOPIC

use prost::Message as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{
    commands::{self, AcknowledgeAlert, AddIncident, RegisterDevices, Role, SetPolicy, command::Kind},
    limits::{SEQ_MAX, UNIX_US_MAX},
    reading::wire,
    reject::{Reason, Reject},
    topic::is_id,
};

/// Largest command, bytes.
pub const COMMAND_BYTES_MAX: usize = 2 << 20;
/// Most devices in one command.
pub const DEVICES_MAX: usize = 1_000;
/// Most sessions of an acknowledgement.
pub const SESSIONS_MAX: usize = 65_536;
/// Longest text unless its field says otherwise, bytes.
const TEXT_LEN_MAX: usize = 128;
/// Longest note, bytes.
pub const NOTE_LEN_MAX: usize = 4_096;
/// Longest key of an alert, bytes.
const ALERT_KEY_LEN_MAX: usize = 1_024;
/// Longest subject of an incident, bytes.
const SUBJECT_LEN_MAX: usize = 256;
/// Longest value of a policy, bytes.
const VALUE_LEN_MAX: usize = 1_024;
/// Longest evidence of an acknowledgement, bytes.
const EVIDENCE_LEN_MAX: usize = 1 << 20;

/// Kinds of devices that the registry knows.
pub const DEVICE_KINDS: [&str; 4] = ["INJECTOR", "STERILIZER", "BENCH", "GATEWAY"];
/// What an incident can be about.
const SUBJECT_KINDS: [&str; 4] = ["SESSION", "ITEM", "LOT", "CYCLE"];
const SEVERITIES: [&str; 4] = ["critical", "high", "medium", "low"];
/// The policy about devices that no person has registered.
pub const UNKNOWN_DEVICES: &str = "unknown_devices";

/// Field numbers of the lists in `commands.proto`, and of the messages that hold them.
const ACKNOWLEDGE_ALERT: u32 = 16;
const SESSIONS: u32 = 7;
const REGISTER_DEVICES: u32 = 18;
const DEVICES: u32 = 1;

/// Key of the Kafka records of commands for every tenant. No id is `*`.
const EVERY_TENANT: &str = "*";

/// A command within every limit.
#[derive(Clone, Debug, PartialEq)]
pub struct Command {
    message: commands::Command,
    kind: Kind,
    role: Role,
}

/// Key of the Kafka records of a tenant's commands.
pub fn record_key(tenant: &str) -> &str {
    if tenant.is_empty() { EVERY_TENANT } else { tenant }
}

/// The tenant of a record with this key; empty = every tenant. Not every text is a tenant.
pub fn tenant_of(key: &str) -> &str {
    if key == EVERY_TENANT { "" } else { key }
}

impl Command {
    /// Reads the value of a record.
    ///
    /// # Errors
    /// The reason for which it cannot be used.
    pub fn decode(bytes: &[u8]) -> Result<Self, Reject> {
        if bytes.is_empty() {
            return Err(Reject::new(Reason::Empty, "a command without content"));
        }
        if bytes.len() > COMMAND_BYTES_MAX {
            return Err(too_large(bytes.len()));
        }
        check_elements(bytes)?;
        let message =
            commands::Command::decode(bytes).map_err(|error| Reject::new(Reason::BadProtobuf, error.to_string()))?;
        Self::new(message)
    }

    /// Checks a command.
    ///
    /// # Errors
    /// The reason for which it cannot be used.
    pub fn new(message: commands::Command) -> Result<Self, Reject> {
        let bytes = message.encoded_len();
        if bytes > COMMAND_BYTES_MAX {
            return Err(too_large(bytes));
        }
        let unnamed = message.tenant.is_empty() && matches!(message.kind, Some(Kind::SetPolicy(_)));
        if !unnamed {
            id("tenant", &message.tenant)?;
        }
        text("author", &message.author, 1, TEXT_LEN_MAX)?;
        text("idempotency_key", &message.idempotency_key, 1, TEXT_LEN_MAX)?;
        time("given_us", message.given_us, 1)?;
        let role = match Role::try_from(message.role) {
            Ok(role) if role != Role::Unspecified => role,
            _ => return Err(bad("role", &message.role.to_string(), "VIEWER, OPERATOR, MANUFACTURER or ADMIN")),
        };
        let Some(kind) = message.kind.clone() else {
            return Err(Reject::new(Reason::NoContent, "no kind of command that this version knows"));
        };
        match &kind {
            Kind::AcknowledgeAlert(acknowledge) => check_acknowledgement(acknowledge)?,
            Kind::AddIncident(incident) => check_incident(incident)?,
            Kind::RegisterDevices(register) => check_devices(register)?,
            Kind::SetPolicy(policy) => check_policy(policy)?,
        }
        Ok(Self { message, kind, role })
    }

    /// The tenant that it concerns; empty = every tenant.
    pub fn tenant(&self) -> &str {
        &self.message.tenant
    }

    /// The person who gave it.
    pub fn author(&self) -> &str {
        &self.message.author
    }

    /// What the author may do, as the audit writes it.
    pub fn role(&self) -> &'static str {
        match self.role {
            Role::Unspecified => "",
            Role::Viewer => "VIEWER",
            Role::Operator => "OPERATOR",
            Role::Manufacturer => "MANUFACTURER",
            Role::Admin => "ADMIN",
        }
    }

    /// When it was given, us since 1970.
    pub fn given_us(&self) -> i64 {
        self.message.given_us
    }

    pub fn idempotency_key(&self) -> &str {
        &self.message.idempotency_key
    }

    /// What is to be done.
    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// The kind of what is to be done, as the audit writes it.
    pub fn action(&self) -> &'static str {
        match &self.kind {
            Kind::AcknowledgeAlert(_) => "acknowledge_alert",
            Kind::AddIncident(_) => "add_incident",
            Kind::RegisterDevices(_) => "register_devices",
            Kind::SetPolicy(_) => "set_policy",
        }
    }

    /// What it is about, for a person.
    pub fn subject(&self) -> String {
        match &self.kind {
            Kind::AcknowledgeAlert(acknowledge) => acknowledge.alert_key.clone(),
            Kind::AddIncident(incident) => incident.incident_id.clone(),
            Kind::RegisterDevices(register) => match register.devices.as_slice() {
                [device] => device.device.clone(),
                devices => format!("{} devices", devices.len()),
            },
            Kind::SetPolicy(policy) => policy.name.clone(),
        }
    }

    /// What exactly is to be done, as JSON. Left out is what only repeats the alert.
    pub fn content(&self) -> String {
        let content = match &self.kind {
            Kind::AcknowledgeAlert(AcknowledgeAlert { alert_key, attention, note, .. }) => {
                json!({ "alert_key": alert_key, "attention": attention, "note": note })
            }
            Kind::AddIncident(AddIncident { incident_id, subject_kind, subject, note }) => {
                json!({ "incident_id": incident_id, "subject_kind": subject_kind, "subject": subject, "note": note })
            }
            Kind::RegisterDevices(register) => register.devices.iter().map(device).collect(),
            Kind::SetPolicy(SetPolicy { name, value }) => json!({ "name": name, "value": value }),
        };
        content.to_string()
    }

    /// Why the author's role does not allow it; `None` if it does.
    pub fn forbidden(&self) -> Option<String> {
        let everyday = matches!(self.kind, Kind::AcknowledgeAlert(_) | Kind::AddIncident(_));
        let allowed = match self.role {
            Role::Admin => true,
            Role::Operator => everyday,
            Role::Viewer | Role::Manufacturer | Role::Unspecified => false,
        };
        (!allowed).then(|| format!("the role {} may not {}", self.role(), self.action().replace('_', " ")))
    }

    /// The number under which the ledger of its tenant keeps its idempotency key: 63 bits of
    /// SHA-256, from 1.
    pub fn key_number(&self) -> u64 {
        number(self.message.idempotency_key.as_bytes())
    }

    /// A number for what is to be done: equal for a repetition, another for other content under the
    /// same idempotency key. Author, role and time do not count.
    pub fn content_number(&self) -> u64 {
        let content = commands::Command { kind: Some(self.kind.clone()), ..commands::Command::default() };
        number(&content.encode_to_vec())
    }

    /// The value of its Kafka record.
    pub fn encode(&self) -> Vec<u8> {
        self.message.encode_to_vec()
    }
}

/// Counts the elements of lists before anything is decoded: an empty device takes two bytes on the
/// wire and a hundred times as much in memory.
fn check_elements(bytes: &[u8]) -> Result<(), Reject> {
    let (mut rest, mut sessions, mut devices) = (bytes, 0, 0);
    while let Some((number, value)) = wire::field(&mut rest) {
        let (list, count, inner) = match (number, value) {
            (ACKNOWLEDGE_ALERT, wire::Value::Bytes(inner)) => (SESSIONS, &mut sessions, inner),
            (REGISTER_DEVICES, wire::Value::Bytes(inner)) => (DEVICES, &mut devices, inner),
            _ => continue,
        };
        let mut inner = inner;
        while let Some((number, _)) = wire::field(&mut inner) {
            *count += usize::from(number == list);
        }
        if !inner.is_empty() {
            return Err(malformed());
        }
    }
    if !rest.is_empty() {
        return Err(malformed());
    }
    most("sessions", sessions, SESSIONS_MAX)?;
    most("devices", devices, DEVICES_MAX)
}

fn malformed() -> Reject {
    Reject::new(Reason::BadProtobuf, "a field is cut off, or of a wire type that proto3 does not have")
}

fn device(device: &commands::Device) -> Value {
    let commands::Device { device, site, kind, model, manufacturer, serial, udi, gateway, valid_from_us } = device;
    json!({
        "device": device, "site": site, "kind": kind, "model": model, "manufacturer": manufacturer, "serial": serial,
        "udi": udi, "gateway": gateway, "valid_from_us": valid_from_us,
    })
}

fn check_acknowledgement(acknowledge: &AcknowledgeAlert) -> Result<(), Reject> {
    let AcknowledgeAlert { alert_key, note, alert_kind, severity, sessions, evidence_rows, .. } = acknowledge;
    text("alert_key", alert_key, 1, ALERT_KEY_LEN_MAX)?;
    lines("note", note, 0, NOTE_LEN_MAX)?;
    text("alert_kind", alert_kind, 0, TEXT_LEN_MAX)?;
    one_of("severity", severity, &SEVERITIES)?;
    most("sessions", sessions.len(), SESSIONS_MAX)?;
    sessions.iter().try_for_each(|session| text("sessions", session, 1, TEXT_LEN_MAX))?;
    lines("evidence_rows", evidence_rows, 0, EVIDENCE_LEN_MAX)
}

fn check_incident(incident: &AddIncident) -> Result<(), Reject> {
    let AddIncident { incident_id, subject_kind, subject, note } = incident;
    text("incident_id", incident_id, 1, TEXT_LEN_MAX)?;
    one_of("subject_kind", subject_kind, &SUBJECT_KINDS)?;
    text("subject", subject, 1, SUBJECT_LEN_MAX)?;
    lines("note", note, 1, NOTE_LEN_MAX)
}

fn check_devices(register: &RegisterDevices) -> Result<(), Reject> {
    if register.devices.is_empty() {
        return Err(Reject::new(Reason::NoContent, "devices: none is named"));
    }
    most("devices", register.devices.len(), DEVICES_MAX)?;
    for device in &register.devices {
        id("device", &device.device)?;
        id("site", &device.site)?;
        one_of("kind", &device.kind, &DEVICE_KINDS)?;
        text("model", &device.model, 0, TEXT_LEN_MAX)?;
        text("manufacturer", &device.manufacturer, 0, TEXT_LEN_MAX)?;
        text("serial", &device.serial, 0, TEXT_LEN_MAX)?;
        // A scanned UDI has the separator FNC1.
        bounded("udi", &device.udi, 0, TEXT_LEN_MAX, |letter| letter == '\u{1d}')?;
        if !device.gateway.is_empty() {
            id("gateway", &device.gateway)?;
        }
        time("valid_from_us", device.valid_from_us, 0)?;
    }
    Ok(())
}

fn check_policy(policy: &SetPolicy) -> Result<(), Reject> {
    text("name", &policy.name, 1, TEXT_LEN_MAX)?;
    text("value", &policy.value, 0, VALUE_LEN_MAX)?;
    if policy.name == UNKNOWN_DEVICES { one_of("value", &policy.value, &["keep", "quarantine"]) } else { Ok(()) }
}

fn id(field: &str, value: &str) -> Result<(), Reject> {
    if is_id(value) {
        return Ok(());
    }
    Err(Reject::new(Reason::BadId, format!("{field}: {} must match [A-Za-z0-9][A-Za-z0-9_-]{{0,63}}", shown(value))))
}

/// A text of one line.
fn text(field: &str, value: &str, least: usize, most: usize) -> Result<(), Reject> {
    bounded(field, value, least, most, |_| false)
}

/// A text that may have several lines.
fn lines(field: &str, value: &str, least: usize, most: usize) -> Result<(), Reject> {
    bounded(field, value, least, most, |letter| matches!(letter, '\n' | '\r' | '\t'))
}

fn bounded(
    field: &str,
    value: &str,
    least: usize,
    most: usize,
    is_allowed: impl Fn(char) -> bool,
) -> Result<(), Reject> {
    if value.len() > most {
        let detail = format!("{field}: {} bytes, at most {most} are allowed", value.len());
        return Err(Reject::new(Reason::FieldTooLong, detail));
    }
    if value.trim().len() < least {
        return Err(bad(field, value, "a text that is not empty"));
    }
    if value.chars().any(|letter| letter.is_control() && !is_allowed(letter)) {
        return Err(bad(field, value, "a text without control characters"));
    }
    Ok(())
}

fn one_of(field: &str, value: &str, known: &[&str]) -> Result<(), Reject> {
    if known.contains(&value) { Ok(()) } else { Err(bad(field, value, &format!("one of {}", known.join(", ")))) }
}

fn most(field: &str, count: usize, most: usize) -> Result<(), Reject> {
    if count <= most {
        return Ok(());
    }
    Err(Reject::new(Reason::TooManyElements, format!("{field}: {count}, at most {most} are allowed")))
}

fn time(field: &str, us: i64, least: i64) -> Result<(), Reject> {
    if (least..UNIX_US_MAX).contains(&us) {
        return Ok(());
    }
    Err(Reject::new(Reason::BadTime, format!("{field}: {us} must be us since 1970, before 2100")))
}

fn bad(field: &str, value: &str, expected: &str) -> Reject {
    Reject::new(Reason::BadCommand, format!("{field}: {} must be {expected}", shown(value)))
}

fn too_large(bytes: usize) -> Reject {
    Reject::new(Reason::TooLarge, format!("{bytes} bytes, at most {COMMAND_BYTES_MAX} are allowed"))
}

/// The start of a value, quoted.
fn shown(value: &str) -> String {
    const SHOWN_CHARS: usize = 80;
    let start: String = value.chars().take(SHOWN_CHARS).collect();
    if start.len() < value.len() { format!("{start:?}…") } else { format!("{start:?}") }
}

fn number(bytes: &[u8]) -> u64 {
    let bits = Sha256::digest(bytes).iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte));
    (bits & SEQ_MAX).max(1)
}

#[cfg(test)]
mod tests;
