//! The full reader: decodes whatever a report may hold, and says what is wrong with one.
//!
//! It walks the bytes twice. The first pass checks the framing and the lengths of all lists before
//! anything is allocated: 64 KiB of empty sub-messages would otherwise become megabytes. The second
//! decodes with prost, event by event, so that one that cannot be decoded costs no other.

use prost::Message as _;

use crate::{
    limits::{
        COMPONENTS_MAX, CYCLE_ITEMS_MAX, CYCLE_SAMPLES_MAX, EARLIER_BOOTS_MAX, ELEMENTS_MAX, EVENTS_MAX, LOST_MAX,
        MOUNTS_MAX, POINTS_MAX, REPORT_BYTES_MAX,
    },
    reading::{
        number::{calibration, context, event, injection, preparation, report, sterilization_cycle},
        wire::{Value, field, varint},
    },
    reject::{Reason, Reject},
    v1,
};

/// A report as its bytes have it. Nothing in it is validated beyond its framing and the lengths of
/// its lists.
pub(crate) struct Decoded {
    pub message: v1::Report,
    /// Fields of report, context, event and injection that this version does not know: tolerated,
    /// counted.
    pub unknown_fields: usize,
    /// Events that cannot be decoded, by index, and why. An event without a kind keeps the place of
    /// each.
    pub faults: Vec<(usize, Reject)>,
}

/// Decodes a serialized report. A fault inside one event is that event's alone.
///
/// # Errors
/// [`Reason::Empty`], [`Reason::TooLarge`], [`Reason::BadProtobuf`] or [`Reason::TooManyElements`],
/// for what is wrong outside of the events.
pub(crate) fn decode(bytes: &[u8]) -> Result<Decoded, Reject> {
    let scan = scan(bytes)?;
    let unknown_fields = scan.unknown_fields;
    let (message, faults) = merge(bytes, scan)?;
    Ok(Decoded { message, unknown_fields, faults })
}

/// The bytes of each event of a serialized report, in order. Malformed bytes end the iteration.
pub fn events(report: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = report;
    std::iter::from_fn(move || field(&mut rest)).filter_map(|read| match read {
        (report::EVENTS, Value::Bytes(event)) => Some(event),
        _ => None,
    })
}

/// The messages that hold lists with a limit. Everything else is a leaf of the scan.
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
    /// What a field of sub-messages holds, and the most of them in one parent. A list that stands
    /// here neither by itself nor below a field that does has no limit: the tests fail.
    const fn child(self, field: u32) -> Option<(Self, usize)> {
        Some(match (self, field) {
            (Self::Report, report::CONTEXT) => (Self::Context, 1),
            (Self::Report, report::EVENTS) => (Self::Event, EVENTS_MAX),
            (Self::Report, report::LOST) => (Self::Leaf, LOST_MAX),
            (Self::Report, report::EARLIER_BOOTS) => (Self::Leaf, EARLIER_BOOTS_MAX),
            (Self::Context, context::MOUNTS) => (Self::Leaf, MOUNTS_MAX),
            (Self::Event, event::INJECTION) => (Self::Injection, 1),
            (Self::Event, event::PREPARATION) => (Self::Preparation, 1),
            (Self::Event, event::STERILIZATION_CYCLE) => (Self::Cycle, 1),
            (Self::Event, event::CALIBRATION) => (Self::Calibration, 1),
            (Self::Preparation, preparation::COMPONENTS) => (Self::Leaf, COMPONENTS_MAX),
            (Self::Cycle, sterilization_cycle::ITEMS) => (Self::Leaf, CYCLE_ITEMS_MAX),
            (Self::Cycle, sterilization_cycle::SAMPLES) => (Self::Leaf, CYCLE_SAMPLES_MAX),
            (Self::Calibration, calibration::POINTS) => (Self::Leaf, POINTS_MAX),
            _ => return None,
        })
    }

    /// Whether a field counts as unknown to this version. Only the messages that nearly every
    /// report holds are counted.
    const fn is_unknown(self, field: u32) -> bool {
        match self {
            Self::Report => !report::is_known(field),
            Self::Context => !context::is_known(field),
            Self::Event => !event::is_known(field),
            Self::Injection => !injection::is_known(field),
            Self::Preparation | Self::Cycle | Self::Calibration | Self::Leaf => false,
        }
    }
}

/// What the first pass saw.
#[derive(Default)]
struct Scan {
    unknown_fields: usize,
    events: usize,
    faults: Vec<(usize, Reject)>,
    elements: usize,
}

/// Well-formed, and no list longer than its limit. Allocates nothing unless there is a fault.
fn scan(bytes: &[u8]) -> Result<Scan, Reject> {
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
    // By field number: no message has a list with a limit above 15, which the tests show.
    let mut counts = [0usize; 16];
    while !bytes.is_empty() {
        let key = varint(&mut bytes).ok_or_else(overlong)?;
        let field = u32::try_from(key >> 3).ok().filter(|field| *field > 0).ok_or_else(|| malformed("field number"))?;
        scan.unknown_fields += usize::from(shape.is_unknown(field));
        match key & 7 {
            0 => drop(varint(&mut bytes).ok_or_else(overlong)?),
            1 => drop(take(&mut bytes, 8)?),
            5 => drop(take(&mut bytes, 4)?),
            2 => {
                let length =
                    usize::try_from(varint(&mut bytes).ok_or_else(overlong)?).map_err(|_| malformed("length"))?;
                let value = take(&mut bytes, length)?;
                if let Some((child, most)) = shape.child(field) {
                    let count = counts.get_mut(field as usize).ok_or_else(|| malformed("number of a list"))?;
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

/// Decodes event by event. The second value says which could not be decoded, and why.
fn merge(bytes: &[u8], scan: Scan) -> Result<(v1::Report, Vec<(usize, Reject)>), Reject> {
    let malformed = |error: &dyn std::fmt::Display| Reject::new(Reason::BadProtobuf, error.to_string());
    let mut message = v1::Report { events: Vec::with_capacity(scan.events), ..v1::Report::default() };
    let (mut faults, mut scanned) = (Vec::new(), scan.faults.into_iter().peekable());
    let mut rest = bytes;
    while !rest.is_empty() {
        let before = rest;
        let read = field(&mut rest).ok_or_else(|| malformed(&"malformed protobuf: field number"))?;
        if let (report::EVENTS, Value::Bytes(event)) = read {
            let index = message.events.len();
            let event = match scanned.next_if(|(fault, _)| *fault == index) {
                Some((_, reject)) => Err(reject),
                None => v1::Event::decode(event).map_err(|error| malformed(&error)),
            };
            message.events.push(event.unwrap_or_else(|reject| {
                faults.push((index, reject));
                v1::Event::default()
            }));
        } else {
            let field = &before[..before.len() - rest.len()];
            message.merge(field).map_err(|error| malformed(&error))?;
        }
    }
    Ok((message, faults))
}
