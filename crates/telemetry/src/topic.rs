//! Topic grammar: `doseline/v1/{tenant}/{site}/{device}/{channel}`.
//!
//! Identity is the topic. Parsing is strict: a topic that is accepted formats back to the same
//! text.

use std::fmt;

use crate::reject::{Reason, Reject};

/// The filters that a bridge subscribes to: exactly what devices send. A wider filter would return
/// the bridge's own receipts.
pub const SUBSCRIPTIONS: [&str; 3] =
    ["doseline/v1/+/+/+/report", "doseline/v1/+/+/+/report/json", "doseline/v1/+/+/+/status"];

const PREFIX: &str = "doseline/v1/";

/// Longest id, bytes.
pub const ID_LEN_MAX: usize = 64;

/// Longest topic of a receipt, bytes.
pub const RECEIPT_TOPIC_LEN_MAX: usize = PREFIX.len() + 3 * (ID_LEN_MAX + 1) + "receipt/json".len();

/// Whether a byte may stand in an id.
const IN_ID: [bool; 256] = {
    let (mut table, mut byte) = ([false; 256], 0);
    while byte < 256 {
        let value = byte as u8;
        table[byte] = value.is_ascii_alphanumeric() || matches!(value, b'_' | b'-');
        byte += 1;
    }
    table
};

/// Whether `text` is an id: `[A-Za-z0-9][A-Za-z0-9_-]{0,63}`.
pub fn is_id(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() <= ID_LEN_MAX
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|byte| IN_ID[usize::from(*byte)])
}

/// What a device publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Channel {
    /// A report as protobuf.
    Report,
    /// A report as JSON.
    ReportJson,
    /// The device's status as JSON, retained.
    Status,
}

impl Channel {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Report => "report",
            Self::ReportJson => "report/json",
            Self::Status => "status",
        }
    }
}

/// The publisher of a message, parsed from the topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Topic<'a> {
    /// The clinic chain.
    pub tenant: &'a str,
    pub site: &'a str,
    pub device: &'a str,
    /// What was published.
    pub channel: Channel,
}

impl<'a> Topic<'a> {
    /// Parses a topic that a device published to.
    ///
    /// # Errors
    /// [`Reason::BadTopic`] if it is not one of the contract's.
    pub fn parse(topic: &'a str) -> Result<Self, Reject> {
        let bad = |detail: &str| Reject::new(Reason::BadTopic, format!("{topic:?}: {detail}"));
        let mut rest = topic.strip_prefix(PREFIX).ok_or_else(|| bad("does not begin with doseline/v1/"))?;
        let mut id = |name: &str| {
            let bytes = rest.as_bytes();
            let end = bytes.iter().position(|byte| !IN_ID[usize::from(*byte)]).unwrap_or(rest.len());
            let whole = matches!(bytes.get(end), None | Some(b'/')) && (1..=ID_LEN_MAX).contains(&end);
            let (id, after) = rest.split_at(end);
            rest = after.get(1..).unwrap_or_default();
            (whole && bytes[0].is_ascii_alphanumeric())
                .then_some(id)
                .ok_or_else(|| bad(&format!("{name} must match [A-Za-z0-9][A-Za-z0-9_-]{{0,63}}")))
        };
        let (tenant, site, device) = (id("tenant")?, id("site")?, id("device")?);
        let channel = match rest {
            "report" => Channel::Report,
            "report/json" => Channel::ReportJson,
            "status" => Channel::Status,
            _ => return Err(bad("must end with /report, /report/json or /status")),
        };
        Ok(Self { tenant, site, device, channel })
    }

    /// The topic of the receipt for a report on this topic, in the form that the device sent;
    /// `None` for a status.
    pub fn receipt(self) -> Option<impl fmt::Display + 'a> {
        let suffix = match self.channel {
            Channel::Report => "receipt",
            Channel::ReportJson => "receipt/json",
            Channel::Status => return None,
        };
        Some(fmt::from_fn(move |f| write!(f, "{PREFIX}{}/{}/{}/{suffix}", self.tenant, self.site, self.device)))
    }
}

impl fmt::Display for Topic<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}/{}/{}/{}", self.tenant, self.site, self.device, self.channel.as_str())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn accepted() {
        let topic = Topic::parse("doseline/v1/acme/berlin-1/D_07/report/json").unwrap();
        assert_eq!((topic.tenant, topic.site, topic.device), ("acme", "berlin-1", "D_07"));
        assert_eq!(topic.channel, Channel::ReportJson);
        assert_eq!(topic.receipt().unwrap().to_string(), "doseline/v1/acme/berlin-1/D_07/receipt/json");
        assert!(Topic::parse(&format!("doseline/v1/a/b/{}/status", "c".repeat(64))).is_ok());
        let id = "c".repeat(64);
        let longest = format!("doseline/v1/{id}/{id}/{id}/report/json");
        assert_eq!(Topic::parse(&longest).unwrap().receipt().unwrap().to_string().len(), RECEIPT_TOPIC_LEN_MAX);
    }

    #[test]
    fn refused() {
        for topic in [
            "",
            "doseline/v1",
            "doseline/v1/a/b/report",
            "doseline/v1/a/b/c",
            "doseline/v1/a/b/c/receipt",
            "doseline/v1/a/b/c/report/",
            "doseline/v1/a/b/c/report/json/x",
            "doseline/v2/a/b/c/report",
            "/doseline/v1/a/b/c/report",
            "doseline/v1/a//c/report",
            "doseline/v1/-a/b/c/report",
            "doseline/v1/a/b c/d/report",
            "doseline/v1/a/b/ü/report",
            "doseline/v1/a/b/c.d/report",
            "doseline/v1/a/+/c/report",
        ] {
            assert_eq!(Topic::parse(topic).unwrap_err().reason, Reason::BadTopic, "{topic}");
        }
        assert!(Topic::parse(&format!("doseline/v1/a/b/{}/report", "c".repeat(65))).is_err());
    }

    proptest! {
        #[test]
        fn accepted_topics_format_back(topic in "doseline/v1/[a-zA-Z_/-]{1,12}/[a-z]{1,3}/[a-z0-9_]{1,3}/(report|report/json|status)") {
            if let Ok(parsed) = Topic::parse(&topic) {
                prop_assert_eq!(parsed.to_string(), topic);
            }
        }
    }
}
