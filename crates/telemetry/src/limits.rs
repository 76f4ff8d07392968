//! The limits of the contract: the most bytes, elements and characters of anything that a device
//! sends.

/// Largest report as protobuf, bytes.
pub const REPORT_BYTES_MAX: usize = 256 * 1024;
/// Largest report as JSON before transcoding, bytes.
pub const JSON_BYTES_MAX: usize = 1024 * 1024;
/// Largest status, bytes.
pub const STATUS_BYTES_MAX: usize = 16 * 1024;
/// Most events in a report.
pub const EVENTS_MAX: usize = 4_096;
/// Most lost ranges in a report.
pub const LOST_MAX: usize = 4_096;
/// Most earlier boots in a report.
pub const EARLIER_BOOTS_MAX: usize = 64;
/// Most mounts in a context.
pub const MOUNTS_MAX: usize = 16;
/// Most items in a sterilization cycle.
pub const CYCLE_ITEMS_MAX: usize = 1_024;
/// Most samples in a sterilization cycle.
pub const CYCLE_SAMPLES_MAX: usize = 16_384;
/// Most components of a preparation.
pub const COMPONENTS_MAX: usize = 64;
/// Most points of a calibration.
pub const POINTS_MAX: usize = 256;
/// Most elements of all kinds in one report, so that a mixture of lists is bounded too.
pub const ELEMENTS_MAX: usize = 32_768;
/// Longest text field unless its comment says otherwise, bytes.
pub const TEXT_LEN_MAX: usize = 64;
/// Longest text of a context, bytes. A context belongs to every event of its report, so a text
/// beyond [`TEXT_LEN_MAX`] is kept and flagged; one beyond this limit refuses the report.
pub const CONTEXT_TEXT_LEN_MAX: usize = 256;
/// Longest fault detail, bytes.
pub const DETAIL_LEN_MAX: usize = 256;
/// Largest sequence number.
pub const SEQ_MAX: u64 = i64::MAX as u64;
/// Times are below 2100-01-01, us since 1970: a later one is a fault of the sender.
pub const UNIX_US_MAX: i64 = 4_102_444_800_000_000;
