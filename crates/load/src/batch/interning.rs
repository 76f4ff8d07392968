//! Interns what the rows of many reports have in common: device, context, clock.
//!
//! A device sends the same context in every report of a session. Its texts are looked up once for
//! each common part and then named by a number, see [`Origin::common`].

use std::{collections::HashMap, sync::Arc};

use foldhash::quality::RandomState;
use telemetry::{device_time::Judged, hex::short_hex, report::Report, topic::Topic, v1};
use warehouse::columns::{Common, IMPLAUSIBLE_TIME, Origin, UNKNOWN_FIELDS};

use crate::{decode::Decoded, tables::Tables};

/// The numbers of common parts that were interned.
#[derive(Default)]
pub(super) struct Interned<'r> {
    /// The context is kept with its number: as long as it is, its address belongs to no other.
    known: HashMap<CommonPart<'r>, (u32, Option<Arc<v1::Context>>), RandomState>,
}

/// Reports that are equal in this have the same common part.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct CommonPart<'r> {
    /// Address of the context, 0 without one. Equal contexts are shared, see
    /// [`telemetry::report::Contexts`].
    context: usize,
    topic: &'r [u8],
    clock: i32,
    /// Whether the rows take the device's time.
    is_device_time: bool,
}

/// The most common parts that are kept, about 1 KiB each.
const KNOWN_MAX: usize = 4_096;

impl<'r> Interned<'r> {
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// The number of a report's common part; `new` makes one for a part that is not known.
    fn number(
        &mut self,
        decoded: &Decoded<'r>,
        report: &Report,
        is_device_time: bool,
        new: impl FnOnce() -> u32,
    ) -> u32 {
        let context = report.context();
        let topic = decoded.record.headers.topic.as_deref().unwrap_or_default();
        let key = CommonPart {
            context: context.map_or(0, |context| Arc::as_ptr(context).addr()),
            topic,
            clock: report.message().clock,
            is_device_time,
        };
        if let Some((number, _)) = self.known.get(&key) {
            return *number;
        }
        if self.known.len() >= KNOWN_MAX {
            self.known.clear();
        }
        let number = new();
        self.known.insert(key, (number, context.cloned()));
        number
    }
}

/// What the rows of a report's events have in common.
pub(super) fn origin<'r, 'a>(
    tables: &mut Tables,
    interned: &mut Interned<'r>,
    decoded: &Decoded<'r>,
    topic: &Topic<'_>,
    report: &Report,
    context: &'a v1::Context,
    time: &Judged,
) -> Origin<'a> {
    let new = || {
        let mut digits = [0; 32];
        tables.common(&Common {
            tenant: topic.tenant,
            site: topic.site,
            device: topic.device,
            time_source: if time.is_device() { "DEVICE" } else { "RECEIVED" },
            model: &context.model,
            firmware: &context.firmware,
            session_id: short_hex(&context.session_id, &mut digits),
            clock: match report.message().clock() {
                v1::Clock::Synced => "SYNCED",
                v1::Clock::Unsynced => "UNSYNCED",
                v1::Clock::Unknown | v1::Clock::Unspecified => "UNKNOWN",
            },
            dose_calibration_id: &context.dose_calibration_id,
            depth_calibration_id: &context.depth_calibration_id,
            preparation_id: &context.preparation_id,
            operator_id: &context.operator_id,
            mounts: &context.mounts,
        })
    };
    Origin {
        common: interned.number(decoded, report, time.is_device(), new),
        boot_id: report.boot_id(),
        received_at: decoded.received_at,
        kafka_offset: decoded.record.offset,
        operator_id: &context.operator_id,
        flags: if report.unknown() > 0 { UNKNOWN_FIELDS } else { 0 }
            | if time.doubt.is_some() { IMPLAUSIBLE_TIME } else { 0 },
    }
}
