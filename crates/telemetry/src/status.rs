//! Status messages: JSON, retained, also a device's last will.

use crate::{
    json,
    limits::{SEQ_MAX, STATUS_BYTES_MAX, TEXT_LEN_MAX},
    reject::{Reason, Reject},
    text, v1,
};

/// Parses and validates a status; the second value has the flags of its texts, see
/// [`text::TRIMMED`].
///
/// # Errors
/// [`Reason::Empty`], [`Reason::TooLarge`], [`Reason::BadJson`], [`Reason::FieldTooLong`] or
/// [`Reason::BadSequence`].
pub fn parse(bytes: &[u8]) -> Result<(v1::Status, u32), Reject> {
    if bytes.is_empty() {
        return Err(Reject::new(Reason::Empty, "the payload is empty"));
    }
    if bytes.len() > STATUS_BYTES_MAX {
        return Err(Reject::new(Reason::TooLarge, format!("{} bytes, at most {STATUS_BYTES_MAX}", bytes.len())));
    }
    let mut status: v1::Status = json::from_json(bytes, "Status")?.message;
    let mut flags = 0;
    for (name, value) in [("firmware", &mut status.firmware), ("model", &mut status.model)] {
        flags |= text::trim(name, value, TEXT_LEN_MAX, text::is_plain_text)?;
    }
    if status.last_seq.is_some_and(|seq| seq > SEQ_MAX) {
        return Err(Reject::new(Reason::BadSequence, "last_seq does not fit 63 bits"));
    }
    Ok((status, flags))
}
