//! Names of the rows in quarantine, as people type them and as replayed records carry them.

use std::{fmt, str::FromStr};

use sha2::{Digest as _, Sha256};

use crate::limits::SEQ_MAX;

/// One row of the quarantine: the Kafka record it came from, and the event in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id {
    /// Incarnation of the Kafka topic.
    pub incarnation: u32,
    /// Kafka partition, not negative.
    pub partition: i32,
    pub offset: u64,
    /// Sequence number of the event. 0 = a heartbeat outside the sequence, `None` = the whole
    /// record.
    pub seq: Option<u64>,
}

impl fmt::Display for Id {
    /// `INCARNATION-PARTITION-OFFSET`, and `-SEQ` for an event.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.incarnation, self.partition, self.offset)?;
        self.seq.map_or(Ok(()), |seq| write!(f, "-{seq}"))
    }
}

/// The text is no [`Id`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no id; `quarantine list --all` shows them, e.g. 1-0-345 (a message) or 1-0-345-12 (an event)")]
pub struct BadId(String);

impl FromStr for Id {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        let bad = || BadId(text.to_owned());
        let number = |part: &str| {
            // `parse` alone would take a sign.
            let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            part.parse::<u64>().ok().filter(|_| digits).ok_or_else(bad)
        };
        let numbers = text.split('-').map(number).collect::<Result<Vec<_>, _>>()?;
        let (incarnation, partition, offset, seq) = match numbers[..] {
            [incarnation, partition, offset] => (incarnation, partition, offset, None),
            [incarnation, partition, offset, seq] => (incarnation, partition, offset, Some(seq)),
            _ => return Err(bad()),
        };
        Ok(Self {
            incarnation: u32::try_from(incarnation).map_err(|_| bad())?,
            partition: i32::try_from(partition).map_err(|_| bad())?,
            offset,
            seq,
        })
    }
}

/// A number for a message without sequence numbers: a status, or a heartbeat outside the sequence.
/// Each replay of the message gives the same number. 63 bits of SHA-256, from 1.
pub fn number(topic: &str, received_at_us: i64, payload: &[u8]) -> u64 {
    let digest = Sha256::new().chain_update(topic).chain_update(received_at_us.to_be_bytes()).chain_update(payload);
    let bits = digest.finalize().iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte));
    (bits & SEQ_MAX).max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_id_reads_back(incarnation: u32, partition in 0..i32::MAX, offset: u64, seq: Option<u64>) {
            let id = Id { incarnation, partition, offset, seq };
            prop_assert_eq!(id.to_string().parse::<Id>(), Ok(id));
        }
    }

    #[test]
    fn what_is_no_id_is_refused_with_an_example() {
        for text in ["", "1", "1-2", "1-2-", "-1-2-3", "1--2-3", "1-2-3-4-5", "1-2-+3", "a-b-c", "1-4294967296-3"] {
            let error = text.parse::<Id>().unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?} is no id")) && error.contains("1-0-345"), "{error}");
        }
    }

    #[test]
    fn numbers_tell_messages_apart() {
        let number = |topic, at, payload: &[u8]| number(topic, at, payload);
        let first = number("a", 1, b"x");
        assert_eq!(first, number("a", 1, b"x"));
        for other in [number("b", 1, b"x"), number("a", 2, b"x"), number("a", 1, b"y")] {
            assert_ne!(first, other);
            assert!((1..=SEQ_MAX).contains(&other));
        }
    }
}
