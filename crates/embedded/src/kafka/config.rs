//! Topic configuration: the known names, and the meaning of those that are enforced.

use std::{collections::BTreeMap, time::Duration};

use kafka_protocol::error::ResponseError;

/// How a value is to be read, by Kafka's numbers for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    String = 2,
    Int = 3,
    Long = 5,
    List = 7,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) default: &'static str,
    /// Only these values are accepted, because others would have no effect; empty = any number.
    allowed: &'static [&'static str],
}

const fn known(name: &'static str, kind: Kind, default: &'static str, allowed: &'static [&'static str]) -> Known {
    Known { name, kind, default, allowed }
}

/// Every name that a topic may set. The first five are enforced. The others are accepted if they
/// ask for what a log with one copy does anyway.
pub(super) const KNOWN: &[Known] = &[
    known(RETENTION_MS, Kind::Long, "604800000", &[]),
    known(RETENTION_BYTES, Kind::Long, "-1", &[]),
    known(SEGMENT_BYTES, Kind::Int, "33554432", &[]),
    known(MESSAGE_BYTES_MAX, Kind::Int, "4194304", &[]),
    known("cleanup.policy", Kind::List, "delete", &["delete"]),
    known("compression.type", Kind::String, "producer", &["producer"]),
    known("message.timestamp.type", Kind::String, "CreateTime", &["CreateTime"]),
    known("min.insync.replicas", Kind::Int, "1", &[]),
    known("unclean.leader.election.enable", Kind::String, "false", &["false"]),
];

const RETENTION_MS: &str = "retention.ms";
const RETENTION_BYTES: &str = "retention.bytes";
const SEGMENT_BYTES: &str = "segment.bytes";
const MESSAGE_BYTES_MAX: &str = "max.message.bytes";
/// Largest batch, bytes, whatever its topic allows.
pub(super) const BATCH_BYTES_MAX: usize = 8 << 20;

/// The values with which a topic was created.
pub(super) type Values = BTreeMap<String, String>;

pub(super) fn check(name: &str, value: &str) -> Result<(), ResponseError> {
    let known = KNOWN.iter().find(|known| known.name == name).ok_or(ResponseError::InvalidConfig)?;
    let fits = match known.allowed {
        [] => value.parse::<i64>().is_ok_and(|number| number >= -1),
        allowed => allowed.contains(&value),
    };
    if fits { Ok(()) } else { Err(ResponseError::InvalidConfig) }
}

/// The value that applies, and whether the topic itself set it.
pub(super) fn value<'v>(values: &'v Values, known: &Known) -> (&'v str, bool) {
    values.get(known.name).map_or((known.default, false), |value| (value.as_str(), true))
}

/// How long and how large a partition may become.
#[derive(Clone, Copy, Debug)]
pub(super) struct LogLimits {
    /// A segment is closed once it holds this much.
    pub(super) segment_bytes: u64,
    /// A segment last written to longer ago is deleted; `None` keeps it.
    pub(super) retention: Option<Duration>,
    /// The oldest segments are deleted while the rest still holds this much; `None` keeps them.
    pub(super) retention_bytes: Option<u64>,
}

/// The limits that follow from a topic's configuration.
pub(super) fn limits(values: &Values) -> LogLimits {
    LogLimits {
        segment_bytes: number(values, SEGMENT_BYTES).unwrap_or(u64::MAX).max(1),
        retention: number(values, RETENTION_MS).map(Duration::from_millis),
        retention_bytes: number(values, RETENTION_BYTES),
    }
}

/// The largest batch that a topic accepts, bytes.
pub(super) fn batch_bytes_max(values: &Values) -> usize {
    number(values, MESSAGE_BYTES_MAX)
        .and_then(|bytes| usize::try_from(bytes).ok())
        .unwrap_or(usize::MAX)
        .min(BATCH_BYTES_MAX)
}

/// Returns `None` for -1, which means no limit.
fn number(values: &Values, name: &str) -> Option<u64> {
    let known = KNOWN.iter().find(|known| known.name == name)?;
    value(values, known).0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_honoured_is_refused() {
        assert_eq!(check("retention.ms", "-1"), Ok(()));
        assert_eq!(check("retention.ms", "soon"), Err(ResponseError::InvalidConfig));
        assert_eq!(check("cleanup.policy", "compact"), Err(ResponseError::InvalidConfig));
        assert_eq!(check("flush.msgs", "1"), Err(ResponseError::InvalidConfig));
    }

    #[test]
    fn minus_one_is_no_limit() {
        let values =
            Values::from([("retention.ms".into(), "-1".into()), ("max.message.bytes".into(), "2000000".into())]);
        assert_eq!(limits(&values).retention, None);
        assert_eq!(limits(&Values::new()).retention, Some(Duration::from_secs(7 * 24 * 3600)));
        assert_eq!(batch_bytes_max(&values), 2_000_000);
    }
}
