//! Receipts: what the bridge tells a device about a report.

use prost::Message as _;
use sha2::{Digest as _, Sha256};

use crate::{
    interval::Interval,
    json,
    reject::Reason,
    topic::Channel,
    v1::{Receipt, ReceiptCode, SeqRange},
};

/// A receipt for a report that Kafka has confirmed.
pub fn stored(boot_id: u64, range: Option<Interval>) -> Receipt {
    Receipt {
        boot_id,
        ranges: range.into_iter().map(|range| SeqRange { first: range.first, last: range.last }).collect(),
        code: ReceiptCode::Stored.into(),
        ..Receipt::default()
    }
}

/// A receipt for bytes whose quarantine copy Kafka has confirmed.
pub fn rejected(payload: &[u8], reason: Reason) -> Receipt {
    Receipt {
        code: ReceiptCode::Rejected.into(),
        reason: reason.as_str().to_owned(),
        payload_sha256: Sha256::digest(payload).to_vec(),
        ..Receipt::default()
    }
}

/// The receipt in the form the device sent its report in.
pub fn encode(receipt: &Receipt, channel: Channel) -> Vec<u8> {
    match channel {
        Channel::Report | Channel::Status => receipt.encode_to_vec(),
        Channel::ReportJson => json::to_json(receipt, "Receipt").into_bytes(),
    }
}
