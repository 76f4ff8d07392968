//! A difference, as it is printed.

use std::fmt;

use serde::Serialize;
use telemetry::interval::Interval;
use warehouse::loader::BootKey;

/// What kind of difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The device says it made it, and it never arrived.
    MissingEvent,
    /// It arrived, and its row is not there.
    MissingRow,
    /// It has more rows than one.
    DoubledRow,
    /// It has a row that nothing accounts for.
    UnexpectedRow,
    /// It arrived, and the ledger does not know it.
    NotLoaded,
    /// The ledger knows it, and Kafka, which holds the whole period, does not.
    NotInKafka,
    /// It arrived with two contents; the first one stands.
    Conflict,
    /// It has another number of parts than it says.
    Parts,
    /// Injections of a session, by the device's count.
    Session,
    /// Lifetime numbers of injections.
    InjectionNumbers,
    /// A sum is not what it is made of.
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

/// One difference. What does not apply is empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// What kind.
    pub kind: Kind,
    /// Tenant.
    pub tenant: String,
    /// Device.
    pub device: String,
    /// Boot, decimal: JSON readers round numbers of this size.
    pub boot_id: String,
    /// First sequence number concerned, 0 = none.
    pub first_seq: u64,
    /// Last sequence number concerned.
    pub last_seq: u64,
    /// Table.
    pub table: String,
    /// Key in the table.
    pub key: String,
    /// Column.
    pub column: String,
    /// What should be.
    pub expected: String,
    /// What is.
    pub found: String,
    /// More, for a person.
    pub detail: String,
}

impl Finding {
    /// A difference of a stretch of sequence numbers.
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

    /// A difference without anything else.
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

    /// What should be, and what is.
    pub fn saying(mut self, expected: impl fmt::Display, found: impl fmt::Display, detail: impl fmt::Display) -> Self {
        (self.expected, self.found, self.detail) = (expected.to_string(), found.to_string(), detail.to_string());
        self
    }

    /// Where.
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
