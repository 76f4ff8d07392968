//! A look at a serialized report without decoding it: how many events, and the bytes of one.

use telemetry::report::Report;

/// Number of events in a serialized report; what comes after malformed bytes does not count.
pub fn events(report: &[u8]) -> usize {
    telemetry::reading::events(report).count()
}

/// A report that holds one event of `report`, with the event's bytes from `payload`, from which it
/// was decoded.
pub fn single(report: &Report, payload: &[u8], index: usize) -> Vec<u8> {
    report.excerpt(payload, index)
}
