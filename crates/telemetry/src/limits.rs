//! Limits of the contract, and a scan of the wire format that checks the counts among them before
//! anything is allocated: 64 KiB of empty sub-messages would otherwise become megabytes.

use crate::{
    reject::{Reason, Reject},
    wire::varint,
};

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

/// The messages whose lists are limited; everything else is a leaf for the scan.
#[derive(Clone, Copy)]
enum Shape {
    Report,
    Context,
    Event,
    Injection,
    Preparation,
    Cycle,
    Calibration,
    Leaf,
}

impl Shape {
    /// What a length-delimited field holds, and the most of them in one parent.
    const fn child(self, field: u32) -> Option<(Self, usize)> {
        Some(match (self, field) {
            (Self::Report, 6) => (Self::Context, 1),
            (Self::Report, 7) => (Self::Event, EVENTS_MAX),
            (Self::Report, 8) => (Self::Leaf, LOST_MAX),
            (Self::Report, 9) => (Self::Leaf, EARLIER_BOOTS_MAX),
            (Self::Context, 4) => (Self::Leaf, MOUNTS_MAX),
            (Self::Event, 2) => (Self::Injection, 1),
            (Self::Event, 8) => (Self::Preparation, 1),
            (Self::Event, 9) => (Self::Cycle, 1),
            (Self::Event, 13) => (Self::Calibration, 1),
            (Self::Preparation, 5) => (Self::Leaf, COMPONENTS_MAX),
            (Self::Cycle, 5) => (Self::Leaf, CYCLE_ITEMS_MAX),
            (Self::Cycle, 6) => (Self::Leaf, CYCLE_SAMPLES_MAX),
            (Self::Calibration, 7) => (Self::Leaf, POINTS_MAX),
            _ => return None,
        })
    }

    /// Largest field number this version knows; `None` where unknown fields are not counted.
    const fn fields(self) -> Option<u32> {
        match self {
            Self::Report => Some(9),
            Self::Context => Some(8),
            Self::Event => Some(15),
            Self::Injection => Some(19),
            _ => None,
        }
    }
}

/// What the scan saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// Fields of report, context, event and injection that this version does not know: tolerated,
    /// counted.
    pub unknown_fields: usize,
    /// Events of the report.
    pub events: usize,
    /// Events that cannot be decoded, by index, and why. The framing of the report holds, so the
    /// other events can.
    pub faults: Vec<(usize, Reject)>,
    elements: usize,
}

/// Scans a serialized report: well-formed, and no list longer than its limit. Allocates nothing
/// unless there is a fault. A fault inside one event is that event's alone.
///
/// # Errors
/// [`Reason::Empty`], [`Reason::TooLarge`], [`Reason::BadProtobuf`] or [`Reason::TooManyElements`],
/// for what is wrong outside of the events.
pub fn scan(bytes: &[u8]) -> Result<Scan, Reject> {
    if bytes.is_empty() {
        return Err(Reject::new(Reason::Empty, "the payload is empty"));
    }
    if bytes.len() > REPORT_BYTES_MAX {
        return Err(Reject::new(Reason::TooLarge, format!("{} bytes, at most {REPORT_BYTES_MAX}", bytes.len())));
    }
    let mut scan = Scan::default();
    message(Shape::Report, bytes, &mut scan)?;
    Ok(scan)
}

fn message(shape: Shape, mut bytes: &[u8], scan: &mut Scan) -> Result<(), Reject> {
    // No message has limited lists in fields above 15.
    let mut counts = [0usize; 16];
    while !bytes.is_empty() {
        let key = varint(&mut bytes).ok_or_else(overlong)?;
        let field = u32::try_from(key >> 3).ok().filter(|field| *field > 0).ok_or_else(|| malformed("field number"))?;
        if shape.fields().is_some_and(|known| field > known) {
            scan.unknown_fields += 1;
        }
        match key & 7 {
            0 => drop(varint(&mut bytes).ok_or_else(overlong)?),
            1 => drop(take(&mut bytes, 8)?),
            5 => drop(take(&mut bytes, 4)?),
            2 => {
                let length =
                    usize::try_from(varint(&mut bytes).ok_or_else(overlong)?).map_err(|_| malformed("length"))?;
                let value = take(&mut bytes, length)?;
                if let Some((child, most)) = shape.child(field) {
                    let count = &mut counts[field as usize];
                    *count += 1;
                    scan.elements += 1;
                    scan.events += usize::from(matches!(child, Shape::Event));
                    if *count > most || scan.elements > ELEMENTS_MAX {
                        let detail = format!("more than {most} elements in field {field}, or {ELEMENTS_MAX} in all");
                        return Err(Reject::new(Reason::TooManyElements, detail));
                    }
                    match child {
                        Shape::Leaf => {}
                        Shape::Event => {
                            let (unknown_fields, elements) = (scan.unknown_fields, scan.elements);
                            if let Err(reject) = message(child, value, scan) {
                                (scan.unknown_fields, scan.elements) = (unknown_fields, elements);
                                scan.faults.push((scan.events - 1, reject));
                            }
                        }
                        _ => message(child, value, scan)?,
                    }
                }
            }
            wire_type => return Err(malformed(&format!("wire type {wire_type}"))),
        }
    }
    Ok(())
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8], Reject> {
    let (value, rest) = bytes.split_at_checked(length).ok_or_else(|| malformed("truncated field"))?;
    *bytes = rest;
    Ok(value)
}

fn overlong() -> Reject {
    malformed("truncated or overlong varint")
}

fn malformed(what: &str) -> Reject {
    Reject::new(Reason::BadProtobuf, format!("malformed protobuf: {what}"))
}
