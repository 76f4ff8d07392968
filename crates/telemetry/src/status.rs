//! Status messages: JSON, retained, also a device's last will.

use crate::{
    json,
    limits::{SEQ_MAX, STATUS_BYTES_MAX, TEXT_LEN_MAX},
    reject::{Reason, Reject},
    v1,
};

/// Parses and validates a status.
///
/// # Errors
/// [`Reason::Empty`], [`Reason::TooLarge`], [`Reason::BadJson`], [`Reason::FieldTooLong`] or [`Reason::BadSequence`].
pub fn parse(bytes: &[u8]) -> Result<v1::Status, Reject> {
    if bytes.is_empty() {
        return Err(Reject::new(Reason::Empty, "the payload is empty"));
    }
    if bytes.len() > STATUS_BYTES_MAX {
        return Err(Reject::new(Reason::TooLarge, format!("{} bytes, at most {STATUS_BYTES_MAX}", bytes.len())));
    }
    let status: v1::Status = json::from_json(bytes, "Status")?.message;
    for (name, text) in [("firmware", &status.firmware), ("model", &status.model)] {
        if text.len() > TEXT_LEN_MAX {
            let detail = format!("{name} has {} bytes, at most {TEXT_LEN_MAX}", text.len());
            return Err(Reject::new(Reason::FieldTooLong, detail));
        }
    }
    if status.last_seq.is_some_and(|seq| seq > SEQ_MAX) {
        return Err(Reject::new(Reason::BadSequence, "last_seq does not fit 63 bits"));
    }
    Ok(status)
}
