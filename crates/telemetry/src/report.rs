//! Reports that only exist validated.

use std::{collections::HashMap, sync::Arc};

use foldhash::quality::RandomState;
use prost::Message as _;

use crate::{
    interval::Interval,
    limits::{
        COMPONENTS_MAX, CYCLE_ITEMS_MAX, CYCLE_SAMPLES_MAX, DETAIL_LEN_MAX, EARLIER_BOOTS_MAX, EVENTS_MAX, LOST_MAX,
        MOUNTS_MAX, POINTS_MAX, SEQ_MAX, TEXT_LEN_MAX, scan,
    },
    reject::{Reason, Reject},
    topic::is_id,
    usual::{self, Take},
    v1::{self, event::Kind},
};

/// A report that keeps every limit of the contract.
///
/// What is checked: well-formed, counts, lengths, ids, boot and sequence numbers. What is not: whether values are
/// plausible ([`crate::plausibility`]), because that is decided event by event.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Without its context.
    message: v1::Report,
    context: Option<Arc<v1::Context>>,
    unknown: usize,
}

impl Report {
    /// Decodes and validates protobuf bytes.
    ///
    /// # Errors
    /// The first limit that does not hold; see [`Reason`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Reject> {
        Self::decode_among(bytes, &mut Contexts::default())
    }

    /// [`Self::decode`], among other reports that mostly have the same contexts.
    ///
    /// # Errors
    /// The same.
    pub fn decode_among<'b>(bytes: &'b [u8], contexts: &mut Contexts<'b>) -> Result<Self, Reject> {
        let mut reading = Reading::new(contexts);
        match usual::read(bytes, &mut reading) {
            Some(head) => Ok(Self { message: reading.message, context: reading.context, unknown: head.unknown }),
            None => Self::decode_fully(bytes),
        }
    }

    /// Decodes whatever a report may hold, and says what is wrong with one.
    pub(crate) fn decode_fully(bytes: &[u8]) -> Result<Self, Reject> {
        let scan = scan(bytes)?;
        let mut message = v1::Report { events: Vec::with_capacity(scan.events), ..v1::Report::default() };
        message.merge(bytes).map_err(|error| Reject::new(Reason::BadProtobuf, error.to_string()))?;
        let unknown = scan.unknown_fields + usize::from(v1::Clock::try_from(message.clock).is_err());
        validate(&message)?;
        let context = message.context.take().map(Arc::new);
        Ok(Self { message, context, unknown })
    }

    /// The boot.
    pub fn boot_id(&self) -> u64 {
        self.message.boot_id
    }

    /// The sequence numbers of the events; none for heartbeats outside the sequence and for reports without events.
    pub fn sequence(&self) -> Option<Interval> {
        let (first, count) = (self.message.first_seq, self.message.events.len() as u64);
        (first > 0 && count > 0).then(|| Interval::new(first, first + count - 1))
    }

    /// Fields and enum values this version does not know.
    pub fn unknown(&self) -> usize {
        self.unknown
    }

    /// The message without its context.
    pub fn message(&self) -> &v1::Report {
        &self.message
    }

    /// The context, if it has one; shared with other reports of the same [`Contexts`] that have the same.
    pub fn context(&self) -> Option<&Arc<v1::Context>> {
        self.context.as_ref()
    }
}

/// Contexts by their bytes, each read once: a device says the same in every report of a visit.
#[derive(Default)]
pub struct Contexts<'b> {
    known: HashMap<&'b [u8], KnownContext, RandomState>,
    /// The one that is being read.
    texts: v1::Context,
}

struct KnownContext {
    context: Arc<v1::Context>,
    unknown: usize,
}

/// Most contexts that are kept, about 1 KiB each.
const CONTEXTS_MAX: usize = 4_096;

/// A usual report that is being read.
pub(crate) struct Reading<'b, 'c> {
    message: v1::Report,
    context: Option<Arc<v1::Context>>,
    contexts: &'c mut Contexts<'b>,
}

impl<'b, 'c> Reading<'b, 'c> {
    pub fn new(contexts: &'c mut Contexts<'b>) -> Self {
        Self { message: v1::Report::default(), context: None, contexts }
    }
}

impl<'b> Take<'b> for Reading<'b, '_> {
    type Injection = v1::Injection;

    fn number(&mut self, field: u32, value: u64) {
        match field {
            1 => self.message.boot_id = value,
            2 => self.message.first_seq = value,
            3 => self.message.base_unix_us = value.cast_signed(),
            4 => self.message.base_uptime_us = value,
            _ => self.message.clock = value as i32,
        }
    }

    fn known(&mut self, context: &'b [u8]) -> Option<usize> {
        let Some(KnownContext { context, unknown }) = self.contexts.known.get(context) else {
            // What another report has left behind that could not be read to its end.
            self.contexts.texts = v1::Context::default();
            return None;
        };
        self.context = Some(context.clone());
        Some(*unknown)
    }

    fn context_text(&mut self, field: u32, text: &str) {
        let texts = &mut self.contexts.texts;
        let place = match field {
            1 => &mut texts.model,
            2 => &mut texts.firmware,
            5 => &mut texts.dose_calibration_id,
            6 => &mut texts.depth_calibration_id,
            7 => &mut texts.preparation_id,
            _ => &mut texts.operator_id,
        };
        text.clone_into(place);
    }

    fn session(&mut self, id: &[u8]) {
        id.clone_into(&mut self.contexts.texts.session_id);
    }

    fn mount(&mut self, slot: i32, mount_id: &str, item_id: &str) {
        let (mount_id, item_id) = (mount_id.to_owned(), item_id.to_owned());
        self.contexts.texts.mounts.push(v1::MountInUse { slot, mount_id, item_id });
    }

    fn context(&mut self, bytes: &'b [u8], unknown: usize) {
        let context = Arc::new(std::mem::take(&mut self.contexts.texts));
        if self.contexts.known.len() >= CONTEXTS_MAX {
            self.contexts.known.clear();
        }
        self.contexts.known.insert(bytes, KnownContext { context: context.clone(), unknown });
        self.context = Some(context);
    }

    fn expect(&mut self, events: usize) {
        self.message.events.reserve(events);
    }

    fn event(&mut self, offset_us: u64, injection: Option<v1::Injection>) {
        self.message.events.push(v1::Event { offset_us, kind: injection.map(Kind::Injection) });
    }
}

fn validate(report: &v1::Report) -> Result<(), Reject> {
    count("events", report.events.len(), EVENTS_MAX)?;
    count("lost", report.lost.len(), LOST_MAX)?;
    count("earlier_boots", report.earlier_boots.len(), EARLIER_BOOTS_MAX)?;
    if report.boot_id == 0 {
        return Err(Reject::new(Reason::BadBoot, "boot_id is absent or 0"));
    }
    if report.events.is_empty() && report.lost.is_empty() && report.earlier_boots.is_empty() {
        return Err(Reject::new(Reason::NoContent, "no event, nothing lost and no earlier boot"));
    }
    sequence(report)?;
    if let Some(context) = &report.context {
        validate_context(context)?;
    }
    report.events.iter().try_for_each(validate_event)
}

fn sequence(report: &v1::Report) -> Result<(), Reject> {
    let bad = |detail: String| Err(Reject::new(Reason::BadSequence, detail));
    let unsequenced = |event: &v1::Event| matches!(event.kind, Some(Kind::Heartbeat(_)));
    if report.first_seq == 0 && !report.events.iter().all(unsequenced) {
        return bad("first_seq is 0; sequence numbers begin at 1".to_owned());
    }
    if report.first_seq.checked_add(report.events.len() as u64).is_none_or(|end| end > SEQ_MAX) {
        return bad(format!("first_seq {} + {} events does not fit 63 bits", report.first_seq, report.events.len()));
    }
    for lost in &report.lost {
        if lost.first_seq == 0 || lost.first_seq > lost.last_seq || lost.last_seq > SEQ_MAX {
            return bad(format!("lost range {}..{} is not a range from 1", lost.first_seq, lost.last_seq));
        }
        text("lost.reason", &lost.reason)?;
    }
    for boot in &report.earlier_boots {
        if boot.boot_id == 0 {
            return Err(Reject::new(Reason::BadBoot, "earlier_boots.boot_id is 0"));
        }
        if boot.last_seq > SEQ_MAX {
            return bad(format!("earlier_boots.last_seq {} does not fit 63 bits", boot.last_seq));
        }
    }
    Ok(())
}

fn validate_context(context: &v1::Context) -> Result<(), Reject> {
    text("context.model", &context.model)?;
    text("context.firmware", &context.firmware)?;
    if !matches!(context.session_id.len(), 0 | 16) {
        let detail = format!("session_id has {} bytes; it must be empty or 16 bytes", context.session_id.len());
        return Err(Reject::new(Reason::BadSession, detail));
    }
    count("context.mounts", context.mounts.len(), MOUNTS_MAX)?;
    for mount in &context.mounts {
        id("context.mounts.mount_id", &mount.mount_id)?;
        text("context.mounts.item_id", &mount.item_id)?;
    }
    id("context.dose_calibration_id", &context.dose_calibration_id)?;
    id("context.depth_calibration_id", &context.depth_calibration_id)?;
    id("context.preparation_id", &context.preparation_id)?;
    id("context.operator_id", &context.operator_id)
}

fn validate_event(event: &v1::Event) -> Result<(), Reject> {
    match &event.kind {
        None | Some(Kind::Injection(_) | Kind::Heartbeat(_)) => Ok(()),
        Some(Kind::SessionStarted(session)) => {
            if session.course_id.len() > 16 {
                return Err(too_long("course_id", session.course_id.len(), 16));
            }
            text("client_ref", &session.client_ref)?;
            id("allergy_formula_id", &session.allergy_formula_id)
        }
        Some(Kind::SessionEnded(session)) => text("reason", &session.reason),
        Some(Kind::ConsumableMounted(mounted)) => {
            id("mount_id", &mounted.mount_id)?;
            text("item_id", &mounted.item_id)?;
            text("udi_di", &mounted.udi_di)?;
            text("lot", &mounted.lot)?;
            text("expiry", &mounted.expiry)?;
            text("type", &mounted.r#type)?;
            text("pack_id", &mounted.pack_id)
        }
        Some(Kind::Primed(primed)) => id("mount_id", &primed.mount_id),
        Some(Kind::ConsumableRemoved(removed)) => id("mount_id", &removed.mount_id),
        Some(Kind::Preparation(preparation)) => validate_preparation(preparation),
        Some(Kind::SterilizationCycle(cycle)) => validate_cycle(cycle),
        Some(Kind::CycleIndicator(indicator)) => {
            id("cycle_uid", &indicator.cycle_uid)?;
            text("lot", &indicator.lot)
        }
        Some(Kind::CycleRelease(release)) => {
            id("cycle_uid", &release.cycle_uid)?;
            id("actor", &release.actor)
        }
        Some(Kind::Reprocessed(reprocessed)) => text("item_id", &reprocessed.item_id),
        Some(Kind::Calibration(calibration)) => {
            id("subject_device", &calibration.subject_device)?;
            id("calibration_id", &calibration.calibration_id)?;
            text("certificate", &calibration.certificate)?;
            count("points", calibration.points.len(), POINTS_MAX)
        }
        Some(Kind::Fault(fault)) => {
            text("code", &fault.code)?;
            match fault.detail.len() {
                length if length > DETAIL_LEN_MAX => Err(too_long("detail", length, DETAIL_LEN_MAX)),
                _ => Ok(()),
            }
        }
    }
}

fn validate_preparation(preparation: &v1::Preparation) -> Result<(), Reject> {
    id("preparation_id", &preparation.preparation_id)?;
    id("formula_id", &preparation.formula_id)?;
    count("components", preparation.components.len(), COMPONENTS_MAX)?;
    for component in &preparation.components {
        text("components.udi_di", &component.udi_di)?;
        text("components.lot", &component.lot)?;
        text("components.expiry", &component.expiry)?;
        text("components.container_id", &component.container_id)?;
    }
    Ok(())
}

fn validate_cycle(cycle: &v1::SterilizationCycle) -> Result<(), Reject> {
    id("cycle_uid", &cycle.cycle_uid)?;
    text("recipe", &cycle.recipe)?;
    count("items", cycle.items.len(), CYCLE_ITEMS_MAX)?;
    count("samples", cycle.samples.len(), CYCLE_SAMPLES_MAX)?;
    for item in &cycle.items {
        text("items.item_id", &item.item_id)?;
        text("items.pack_id", &item.pack_id)?;
    }
    Ok(())
}

fn count(name: &str, elements: usize, most: usize) -> Result<(), Reject> {
    if elements > most {
        return Err(Reject::new(Reason::TooManyElements, format!("{name} has {elements} elements, at most {most}")));
    }
    Ok(())
}

/// A generated id: absent, or as in a topic.
pub(crate) fn id(name: &str, value: &str) -> Result<(), Reject> {
    if value.is_empty() || is_id(value) {
        return Ok(());
    }
    text(name, value)?;
    Err(Reject::new(Reason::BadId, format!("{name} {value:?} must match [A-Za-z0-9][A-Za-z0-9_-]{{0,63}}")))
}

/// A text read from a label or typed by somebody: short, and without control characters.
pub(crate) fn text(name: &str, value: &str) -> Result<(), Reject> {
    if value.len() > TEXT_LEN_MAX {
        return Err(too_long(name, value.len(), TEXT_LEN_MAX));
    }
    if value.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return Ok(());
    }
    // FNC1, the group separator of GS1 element strings, is the one control character labels carry.
    if value.chars().any(|char| char.is_control() && char != '\u{1d}') {
        return Err(Reject::new(Reason::BadId, format!("{name} {value:?} has control characters")));
    }
    Ok(())
}

fn too_long(name: &str, length: usize, most: usize) -> Reject {
    Reject::new(Reason::FieldTooLong, format!("{name} has {length} bytes, at most {most}"))
}
