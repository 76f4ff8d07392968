//! A difference, in the form in which it is printed.

use std::fmt;

use serde::Serialize;
use telemetry::interval::Interval;
use warehouse::loader::BootKey;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The device says that it made the event, but the event never arrived.
    MissingEvent,
    /// The event arrived, but its row does not exist.
    MissingRow,
    /// The event has more than one row.
    DoubledRow,
    /// The event has a row without a cause.
    UnexpectedRow,
    /// The event arrived, but the ledger does not know it.
    NotLoaded,
    /// The ledger knows the event, but Kafka does not, although it holds the whole period.
    NotInKafka,
    /// The event arrived with two different contents. The first one stays stored.
    Conflict,
    /// The event does not have as many parts as it says.
    Parts,
    /// The device counted another number of injections in a session than the table holds.
    Session,
    /// Lifetime numbers of injections are missing in the table.
    InjectionNumbers,
    /// A sum differs from the rows that it is made of.
    Aggregate,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::MissingEvent => "missing event",
            Self::MissingRow => "missing row",
            Self::DoubledRow => "doubled row",
            Self::UnexpectedRow => "unexpected row",
            Self::NotLoaded => "not loaded",
            Self::NotInKafka => "not in kafka",
            Self::Conflict => "conflict",
            Self::Parts => "parts",
            Self::Session => "session",
            Self::InjectionNumbers => "injection numbers",
            Self::Aggregate => "aggregate",
        }
    }
}

/// One difference. A field that does not apply is empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    pub kind: Kind,
    pub tenant: String,
    pub device: String,
    /// Boot, decimal, as text because many JSON readers round numbers of this size.
    pub boot_id: String,
    /// First sequence number concerned; 0 = none.
    pub first_seq: u64,
    /// Last sequence number concerned.
    pub last_seq: u64,
    pub table: String,
    /// Key in the table.
    pub key: String,
    pub column: String,
    pub expected: String,
    /// The value that was found.
    pub found: String,
    /// An explanation for a person.
    pub detail: String,
}

impl Finding {
    /// A difference about a range of sequence numbers.
    pub fn of(kind: Kind, boot: &BootKey, run: Interval) -> Self {
        Self {
            tenant: boot.tenant.clone(),
            device: boot.device.clone(),
            boot_id: boot.boot_id.to_string(),
            first_seq: run.first,
            last_seq: run.last,
            ..Self::new(kind)
        }
    }

    /// A difference with all other fields empty.
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            tenant: String::new(),
            device: String::new(),
            boot_id: String::new(),
            first_seq: 0,
            last_seq: 0,
            table: String::new(),
            key: String::new(),
            column: String::new(),
            expected: String::new(),
            found: String::new(),
            detail: String::new(),
        }
    }

    /// Sets what was expected and what was found.
    pub fn saying(mut self, expected: impl fmt::Display, found: impl fmt::Display, detail: impl fmt::Display) -> Self {
        (self.expected, self.found, self.detail) = (expected.to_string(), found.to_string(), detail.to_string());
        self
    }

    pub fn table(mut self, table: &str) -> Self {
        table.clone_into(&mut self.table);
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.kind.name())?;
        for (name, value) in [
            ("", &self.table),
            ("tenant ", &self.tenant),
            ("device ", &self.device),
            ("boot ", &self.boot_id),
            ("", &self.key),
            ("column ", &self.column),
        ] {
            if !value.is_empty() {
                write!(f, " {name}{value}")?;
            }
        }
        match (self.first_seq, self.last_seq) {
            (0, _) => {}
            (first, last) if first == last => write!(f, " seq {first}")?,
            (first, last) => write!(f, " seq {first}..{last}")?,
        }
        write!(f, ": expected {}, found {}", self.expected, self.found)?;
        if !self.detail.is_empty() {
            write!(f, " ({})", self.detail)?;
        }
        Ok(())
    }
}
