//! Reports and statuses as JSON.

use telemetry::{json, limits::REPORT_BYTES_MAX, reading::forensic, status};

/// A report that is transcoded keeps the limit of its size, and all readers agree on it.
pub fn check(bytes: &[u8]) {
    forensic::json(bytes, "Report");
    // Either result is right; it must not panic.
    let _ = status::parse(bytes);
    if let Ok(read) = json::transcode_report(bytes) {
        assert!(read.message.len() <= REPORT_BYTES_MAX);
        super::report::check(&read.message);
    }
}
