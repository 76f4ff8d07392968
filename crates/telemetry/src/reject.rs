//! Why something cannot be used. The text of a reason is public: it stands in receipts, in Kafka
//! headers and in the `quarantine` table.

use std::{fmt, str::FromStr};

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Why a report or an event was refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason { $($(#[$doc])* $name,)* }

        impl Reason {
            /// Every reason.
            pub const ALL: &[Reason] = &[$(Reason::$name,)*];

            /// The public text, lower-case with underscores.
            pub const fn as_str(self) -> &'static str {
                match self { $(Reason::$name => $text,)* }
            }
        }
    };
}

reasons! {
    /// The topic is not one of the contract's, or an id in it has forbidden characters or a wrong
    /// length.
    BadTopic = "bad_topic",
    /// The payload is empty.
    Empty = "empty",
    /// The payload is larger than the contract allows.
    TooLarge = "too_large",
    /// Truncated or malformed protobuf.
    BadProtobuf = "bad_protobuf",
    /// Malformed JSON, or JSON that is not the canonical mapping (floats, NaN, wrong types).
    BadJson = "bad_json",
    /// More elements than the contract allows.
    TooManyElements = "too_many_elements",
    /// A string or byte field is longer than the contract allows.
    FieldTooLong = "field_too_long",
    /// An id has forbidden characters.
    BadId = "bad_id",
    /// `boot_id` is absent or 0.
    BadBoot = "bad_boot",
    /// `first_seq` is 0 (and not all events are heartbeats), or a sequence number does not fit 63
    /// bits.
    BadSequence = "bad_sequence",
    /// `session_id` is neither empty nor 16 bytes.
    BadSession = "bad_session",
    /// No event, nothing lost and no earlier boot.
    NoContent = "no_content",
    /// The event's kind is unknown to this version; it can be replayed after an upgrade.
    UnknownEvent = "unknown_event",
    /// A value outside the model's plausible range.
    Implausible = "implausible",
    /// A time outside 1970..2100.
    BadTime = "bad_time",
    /// The ledger of this boot has too many holes.
    Fragmented = "fragmented",
    /// Another content is stored under the event's boot and sequence number.
    Conflict = "conflict",
    /// The record is not in the partition of its key.
    WrongPartition = "wrong_partition",
    /// The Kafka record lacks a header it must have.
    BadRecord = "bad_record",
    /// The device is not in the registry, and the tenant's policy refuses unknown devices.
    UnknownDevice = "unknown_device",
    /// A command without author, role or idempotency key, or with a value that its field does not
    /// allow.
    BadCommand = "bad_command",
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Reason {
    type Err = UnknownReason;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.iter().copied().find(|reason| reason.as_str() == text).ok_or(UnknownReason)
    }
}

/// The text is no [`Reason`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown reason")]
pub struct UnknownReason;

/// A refusal: the reason, and what exactly was wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct Reject {
    /// The public reason.
    pub reason: Reason,
    /// What exactly was wrong: names the field and the value, for a person.
    pub detail: String,
}

impl Reject {
    /// A refusal with its detail.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_reads_back() {
        for reason in Reason::ALL {
            assert_eq!(reason.as_str().parse(), Ok(*reason));
        }
        assert_eq!("nonsense".parse::<Reason>(), Err(UnknownReason));
    }
}
