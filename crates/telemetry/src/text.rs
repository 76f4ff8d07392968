//! Texts that people scan or type from labels, and generated ids: which are trimmed, kept or
//! refused.
//!
//! Scanners append carriage returns, line feeds, tabs and spaces: these are trimmed from the end.
//! Other unusual characters are kept. Both are flagged in the row, so that a reader knows that the
//! text is not exactly the label's.

use crate::{
    limits::{CONTEXT_TEXT_LEN_MAX, TEXT_LEN_MAX},
    reject::{Reason, Reject},
    topic::is_id,
};

/// Bit of a row's `flags`: carriage returns, line feeds, tabs or spaces were trimmed from the end
/// of a text.
pub const TRIMMED: u32 = 256;
/// Bit of a row's `flags`: a text has control characters, a generated id has characters beyond
/// `[A-Za-z0-9_-]`, or a text of the context is longer than [`TEXT_LEN_MAX`]. It is kept
/// unchanged.
pub const STRANGE: u32 = 512;

/// Characters that scanners append.
const APPENDED: [char; 4] = ['\r', '\n', '\t', ' '];

/// Whether a label's text needs neither trimming nor a flag.
pub(crate) fn is_plain_text(value: &str) -> bool {
    // FNC1, the group separator of GS1 element strings, is the one control character labels carry.
    let is_clean = |value: &str| value.chars().all(|char| !char.is_control() || char == '\u{1d}');
    value.len() <= TEXT_LEN_MAX
        && !value.ends_with(' ')
        && (value.bytes().all(|byte| matches!(byte, b' '..=b'~')) || is_clean(value))
}

/// Whether a generated id needs neither trimming nor a flag: absent, or as in a topic.
pub(crate) fn is_plain_id(value: &str) -> bool {
    value.is_empty() || is_id(value)
}

/// Trims a text of at most `most` bytes; returns its flags.
///
/// # Errors
/// [`Reason::FieldTooLong`]; a text is never cut.
pub(crate) fn trim(name: &str, value: &mut String, most: usize, is_plain: fn(&str) -> bool) -> Result<u32, Reject> {
    if is_plain(value) {
        return Ok(0);
    }
    let trimmed = value.trim_end_matches(APPENDED).len();
    let mut flags = if trimmed < value.len() { TRIMMED } else { 0 };
    value.truncate(trimmed);
    if value.len() > most {
        return Err(too_long(name, value.len(), most));
    }
    if !is_plain(value) {
        flags |= STRANGE;
    }
    Ok(flags)
}

/// Trims a text that belongs to all events of a report: beyond [`TEXT_LEN_MAX`] it is kept and
/// flagged.
///
/// # Errors
/// [`Reason::FieldTooLong`] beyond [`CONTEXT_TEXT_LEN_MAX`].
pub(crate) fn of_context(name: &str, value: &mut String, is_plain: fn(&str) -> bool) -> Result<u32, Reject> {
    trim(name, value, CONTEXT_TEXT_LEN_MAX, is_plain)
}

pub(crate) fn too_long(name: &str, length: usize, most: usize) -> Reject {
    Reject::new(Reason::FieldTooLong, format!("{name} has {length} bytes, at most {most}"))
}
