//! A time that a device sends is a claim. It is compared with the time at which the bridge received
//! the message.
//!
//! A clock that was never set shows 1970. A time in seconds or milliseconds, read as microseconds,
//! shows January 1970. A GPS receiver whose 10-bit week number has rolled over shows a time 1,024
//! weeks (19.6 years) ago. A mistyped date can show anything. `CLOCK_SYNCED` rules out none of
//! these.
//!
//! A judgement uses the message, its time of receipt and the configured [`Limits`], and no earlier
//! message. So a record means the same whenever and however often it is read. The order of boots
//! needs no memory either. An event of an earlier boot is at most [`Limits::ahead_max_s`] later
//! than its receipt. If a later boot claims a time more than [`Limits::age_max_days`] before that
//! event, the claim is also too old for its own receipt.

use std::{borrow::Cow, ops::RangeInclusive};

use serde::{Deserialize, Serialize};

use crate::{
    limits::UNIX_US_MAX,
    plausibility::hash_of,
    v1::{self, event::Kind},
};

const SECOND_US: i64 = 1_000_000;
const DAY_US: i64 = 86_400 * SECOND_US;

/// Keys of section `[device_time]` in the order of [`Limits`]: name, bounds and meaning.
pub const KEYS: [(&str, RangeInclusive<u32>, &str); 4] = [
    (
        "earliest_year",
        2_000..=2_099,
        "Year before which no device of the fleet existed: an earlier time is implausible",
    ),
    (
        "ahead_max_s",
        1..=86_400,
        "How much later than its receipt a time may be, s. A smaller value finds wrong clocks sooner; if the bridge's own \
         clock is behind, more events then get the time of receipt",
    ),
    (
        "age_max_days",
        42..=3_650,
        "How long an event may have waited for its receipt, days: at least as long as the outboxes of the fleet hold events",
    ),
    ("due_max_days", 1..=36_500, "How far after its receipt a use-by or calibration date may lie, days"),
];

/// What a device may claim, section `[device_time]` of the configuration. [`KEYS`] says what each
/// limit means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    pub earliest_year: u16,
    /// How much later than its receipt a time may be, seconds: the largest difference between the
    /// clocks of a device and of the bridge.
    pub ahead_max_s: u32,
    pub age_max_days: u32,
    /// How far after its receipt a date in the future (use by, calibration due) may be, days.
    pub due_max_days: u32,
}

impl Default for Limits {
    /// Clocks under NTP differ by far less than 300 s, which is also the difference that MIT
    /// Kerberos allows by default (`clockskew`). 400 days are longer than a device is out of use
    /// between two yearly calibrations. Ten years are longer than any shelf life or calibration
    /// interval.
    fn default() -> Self {
        Self { earliest_year: 2020, ahead_max_s: 300, age_max_days: 400, due_max_days: 3_650 }
    }
}

/// Why a time cannot be true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// It is 0, which the contract gives the meaning "unknown".
    Absent,
    /// It is before [`Limits::earliest_year`].
    BeforeFleet,
    /// It is more than [`Limits::age_max_days`] before its receipt.
    TooOld,
    /// It is after its receipt by more than [`Limits::ahead_max_s`], or by more than
    /// [`Limits::due_max_days`].
    Ahead,
}

impl Doubt {
    /// The value of `implausible_times.doubt`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Absent => "ABSENT",
            Self::BeforeFleet => "BEFORE_FLEET",
            Self::TooOld => "TOO_OLD",
            Self::Ahead => "AHEAD",
        }
    }
}

/// What a time is about. This decides which times are possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// An event: it happened before its receipt, and an outbox has kept it since.
    Event,
    /// Something in the past, perhaps long ago.
    Past,
    /// Something that may be in the future.
    Due,
}

/// A time that a device sent and that cannot be true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Implausible {
    /// The field, as in the contract: `base_unix_us` for the time of an event.
    pub field: &'static str,
    /// The claimed time, us since 1970.
    pub claim_us: i64,
    /// Why it cannot be true.
    pub doubt: Doubt,
}

/// The times of a report's events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judged {
    /// The value in the report.
    base_unix_us: i64,
    is_device: bool,
    received_at: i64,
    /// Why the device's clock is not believed although the device reports it as synced.
    pub doubt: Option<Doubt>,
}

impl Judged {
    /// Whether events have the device's time, rather than the time of receipt.
    pub fn is_device(&self) -> bool {
        self.is_device
    }

    /// The time under which an event is stored, us since 1970. An offset beyond the calendar gives
    /// a time that [`crate::plausibility::check`] refuses.
    pub fn at(&self, event: &v1::Event) -> i64 {
        if !self.is_device {
            return self.received_at;
        }
        time_of(self.base_unix_us, event.offset_us).unwrap_or(i64::MAX)
    }

    /// The time that the device's clock showed at an event, if it is not believed.
    pub fn implausible(&self, event: &v1::Event) -> Option<Implausible> {
        let doubt = self.doubt?;
        // Without the clock's time, the offset from it is no time either.
        let claim_us = match self.base_unix_us {
            0 => 0,
            base => base.saturating_add(i64::try_from(event.offset_us).unwrap_or(i64::MAX)),
        };
        Some(Implausible { field: "base_unix_us", claim_us, doubt })
    }
}

fn time_of(base_unix_us: i64, offset_us: u64) -> Option<i64> {
    i64::try_from(offset_us).ok().and_then(|offset| base_unix_us.checked_add(offset))
}

impl Limits {
    /// Faults of a configuration, each as (key, what is wrong).
    pub fn faults(&self) -> Vec<(&'static str, String)> {
        let values = [self.earliest_year.into(), self.ahead_max_s, self.age_max_days, self.due_max_days];
        let outside = KEYS.iter().zip(values).filter(|((_, range, _), value)| !range.contains(value));
        outside
            .map(|((key, range, _), value)| (*key, format!("{value} must be {}..{}", range.start(), range.end())))
            .collect()
    }

    /// Hash of the limits: part of every batch's intent, because they decide which rows a batch
    /// holds.
    pub fn hash(&self) -> u64 {
        hash_of(self)
    }

    /// The start of [`Self::earliest_year`], us since 1970.
    fn earliest_us(&self) -> i64 {
        let years = i64::from(self.earliest_year) - 1_970;
        // Every fourth year from 1972 to 2096 is a leap year.
        (365 * years + (years + 1) / 4) * DAY_US
    }

    /// [`Self::ahead_max_s`], us.
    pub fn ahead_max_us(&self) -> i64 {
        i64::from(self.ahead_max_s) * SECOND_US
    }

    /// [`Self::age_max_days`], us.
    pub fn age_max_us(&self) -> i64 {
        i64::from(self.age_max_days) * DAY_US
    }

    /// Why a time that was received at `received_at` (us since 1970) cannot be true; `None` if it
    /// can.
    pub fn doubt(&self, claim_us: i64, meaning: Meaning, received_at: i64) -> Option<Doubt> {
        let later = match meaning {
            Meaning::Event | Meaning::Past => self.ahead_max_us(),
            Meaning::Due => i64::from(self.due_max_days) * DAY_US,
        };
        if claim_us == 0 {
            Some(Doubt::Absent)
        } else if claim_us < self.earliest_us() {
            Some(Doubt::BeforeFleet)
        } else if meaning == Meaning::Event && claim_us < received_at.saturating_sub(self.age_max_us()) {
            Some(Doubt::TooOld)
        } else if claim_us > received_at.saturating_add(later) {
            Some(Doubt::Ahead)
        } else {
            None
        }
    }

    /// Judges the clock of a report by its base and by its newest event. All events of a report
    /// share its clock: if one of them shows that it is wrong, none has the device's time.
    pub fn judge(&self, report: &v1::Report, received_at: i64) -> Judged {
        let base = report.base_unix_us;
        if report.clock() != v1::Clock::Synced {
            return Judged { base_unix_us: base, is_device: false, received_at, doubt: None };
        }
        let doubt = self.doubt(base, Meaning::Event, received_at).or_else(|| {
            // An offset beyond the calendar says nothing about the clock; its event is refused.
            let in_calendar = u64::try_from(UNIX_US_MAX - base).unwrap_or_default();
            let offsets = report.events.iter().map(|event| event.offset_us).filter(|offset| *offset < in_calendar);
            let newest = time_of(base, offsets.max().unwrap_or_default()).unwrap_or(base);
            self.doubt(newest, Meaning::Event, received_at)
        });
        Judged { base_unix_us: base, is_device: doubt.is_none(), received_at, doubt }
    }

    /// An event without the times that cannot be true, and those times.
    pub fn withdraw<'e>(&self, event: &'e v1::Event, received_at: i64) -> (Cow<'e, v1::Event>, Vec<Implausible>) {
        let tells_times = matches!(
            event.kind,
            Some(
                Kind::SessionStarted(_)
                    | Kind::Preparation(_)
                    | Kind::CycleIndicator(_)
                    | Kind::CycleRelease(_)
                    | Kind::Calibration(_)
            )
        );
        if !tells_times {
            return (Cow::Borrowed(event), Vec::new());
        }
        let (mut event, mut implausible) = (event.clone(), Vec::new());
        times(&mut event, |field, meaning, time| implausible.extend(self.take(field, meaning, time, received_at)));
        (Cow::Owned(event), implausible)
    }

    /// [`Self::withdraw`] of a status.
    pub fn withdraw_of_status<'s>(
        &self,
        status: &'s v1::Status,
        received_at: i64,
    ) -> (Cow<'s, v1::Status>, Option<Implausible>) {
        let mut since = status.since_unix_us;
        match self.take("since_unix_us", Meaning::Past, &mut since, received_at) {
            None => (Cow::Borrowed(status), None),
            implausible => (Cow::Owned(v1::Status { since_unix_us: since, ..status.clone() }), implausible),
        }
    }

    fn take(
        &self,
        field: &'static str,
        meaning: Meaning,
        time: &mut Option<i64>,
        received_at: i64,
    ) -> Option<Implausible> {
        let claim_us = (*time)?;
        let doubt = self.doubt(claim_us, meaning, received_at)?;
        *time = None;
        Some(Implausible { field, claim_us, doubt })
    }
}

/// Visits every time in an event except its own.
fn times(event: &mut v1::Event, mut visit: impl FnMut(&'static str, Meaning, &mut Option<i64>)) {
    match &mut event.kind {
        Some(Kind::SessionStarted(started)) => visit("allergy_unix_us", Meaning::Past, &mut started.allergy_unix_us),
        Some(Kind::Preparation(preparation)) => {
            visit("prepared_unix_us", Meaning::Past, &mut preparation.prepared_unix_us);
            visit("use_by_unix_us", Meaning::Due, &mut preparation.use_by_unix_us);
            for component in &mut preparation.components {
                visit("opened_unix_us", Meaning::Past, &mut component.opened_unix_us);
            }
        }
        Some(Kind::CycleIndicator(indicator)) => visit("read_unix_us", Meaning::Past, &mut indicator.read_unix_us),
        Some(Kind::CycleRelease(release)) => visit("at_unix_us", Meaning::Past, &mut release.at_unix_us),
        Some(Kind::Calibration(calibration)) => {
            visit("performed_unix_us", Meaning::Past, &mut calibration.performed_unix_us);
            visit("due_unix_us", Meaning::Due, &mut calibration.due_unix_us);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use prost::Message as _;
    use prost_reflect::{DynamicMessage, Kind as FieldKind, MessageDescriptor, Value};

    use super::*;
    use crate::json::descriptor;

    /// 2026-11-30T12:00:00Z.
    const NOW: i64 = 1_796_040_000_000_000;
    const LIMITS: Limits = Limits { earliest_year: 2020, ahead_max_s: 300, age_max_days: 400, due_max_days: 3_650 };

    /// What a clock may show, and what that is to an event, to something past and to something due.
    const STORIES: [(&str, i64, [Option<Doubt>; 3]); 13] = {
        use Doubt::{Absent, Ahead, BeforeFleet, TooOld};
        [
            ("unknown", 0, [Some(Absent); 3]),
            ("seconds", NOW / 1_000_000, [Some(BeforeFleet); 3]),
            ("milliseconds", NOW / 1_000, [Some(BeforeFleet); 3]),
            ("1,024 weeks back", NOW - 7_168 * DAY_US, [Some(BeforeFleet); 3]),
            ("before 1970", -1, [Some(BeforeFleet); 3]),
            ("five years back", NOW - 5 * 365 * DAY_US, [Some(TooOld), None, None]),
            ("six weeks ago", NOW - 42 * DAY_US, [None; 3]),
            ("now", NOW, [None; 3]),
            ("at the tolerance", NOW + 300 * SECOND_US, [None; 3]),
            ("beyond the tolerance", NOW + 300 * SECOND_US + 1, [Some(Ahead), Some(Ahead), None]),
            ("a day ahead", NOW + DAY_US, [Some(Ahead), Some(Ahead), None]),
            ("30 years ahead", NOW + 30 * 365 * DAY_US, [Some(Ahead); 3]),
            ("the end of all numbers", i64::MAX, [Some(Ahead); 3]),
        ]
    };

    /// Every field of a time that a device may send, by its message, with its meaning.
    const FIELDS: [(&str, &str, Meaning); 10] = [
        ("Report", "base_unix_us", Meaning::Event),
        ("SessionStarted", "allergy_unix_us", Meaning::Past),
        ("Preparation", "prepared_unix_us", Meaning::Past),
        ("Preparation", "use_by_unix_us", Meaning::Due),
        ("Component", "opened_unix_us", Meaning::Past),
        ("CycleIndicator", "read_unix_us", Meaning::Past),
        ("CycleRelease", "at_unix_us", Meaning::Past),
        ("Calibration", "performed_unix_us", Meaning::Past),
        ("Calibration", "due_unix_us", Meaning::Due),
        ("Status", "since_unix_us", Meaning::Past),
    ];

    /// Times by message and field, of everything that a message can hold.
    fn fields(message: &MessageDescriptor, found: &mut BTreeSet<(String, String)>, seen: &mut BTreeSet<String>) {
        if !seen.insert(message.name().to_owned()) {
            return;
        }
        for field in message.fields() {
            if field.name().contains("unix") {
                found.insert((message.name().to_owned(), field.name().to_owned()));
            }
            if let FieldKind::Message(message) = field.kind() {
                fields(&message, found, seen);
            }
        }
    }

    /// An event that tells a time in a field of a message, built without knowing the message.
    fn event_with(message: &str, field: &str, claim: i64) -> v1::Event {
        let mut event = DynamicMessage::new(descriptor("Event"));
        let holder = if message == "Component" { "Preparation" } else { message };
        let kinds: Vec<_> = descriptor("Event").fields().collect();
        let place = kinds.into_iter().find(|place| match place.kind() {
            FieldKind::Message(kind) => kind.name() == holder,
            _ => false,
        });
        let mut told = DynamicMessage::new(descriptor(message));
        told.set_field_by_name(field, Value::I64(claim));
        if message == "Component" {
            let mut preparation = DynamicMessage::new(descriptor("Preparation"));
            preparation.set_field_by_name("components", Value::List(vec![Value::Message(told)]));
            told = preparation;
        }
        event.set_field(&place.unwrap(), Value::Message(told));
        v1::Event::decode(&*event.encode_to_vec()).unwrap()
    }

    #[test]
    fn every_time_that_a_device_may_send_is_held_against_its_receipt() {
        let (mut found, mut seen) = (BTreeSet::new(), BTreeSet::new());
        for message in ["Report", "Status"] {
            fields(&descriptor(message), &mut found, &mut seen);
        }
        let known = FIELDS.map(|(message, field, _)| (message.to_owned(), field.to_owned()));
        assert_eq!(found, known.into(), "a time that the contract has is judged nowhere");
        for (message, field, meaning) in FIELDS {
            for (story, claim, doubts) in STORIES {
                let doubt = doubts[meaning as usize];
                let expected = doubt.map(|doubt| Implausible { field, claim_us: claim, doubt });
                let case = format!("{message}.{field}: {story}");
                match message {
                    "Report" => {
                        let event = v1::Event::default();
                        let clock = v1::Clock::Synced.into();
                        let report = v1::Report {
                            base_unix_us: claim,
                            clock,
                            events: vec![event.clone()],
                            ..v1::Report::default()
                        };
                        let judged = LIMITS.judge(&report, NOW);
                        assert_eq!((judged.doubt, judged.is_device()), (doubt, doubt.is_none()), "{case}");
                        assert_eq!(judged.at(&event), if doubt.is_none() { claim } else { NOW }, "{case}");
                    }
                    "Status" => {
                        let status = v1::Status { since_unix_us: Some(claim), ..v1::Status::default() };
                        let (kept, implausible) = LIMITS.withdraw_of_status(&status, NOW);
                        assert_eq!(implausible, expected, "{case}");
                        assert_eq!(kept.since_unix_us, Some(claim).filter(|_| doubt.is_none()), "{case}");
                    }
                    _ => {
                        let event = event_with(message, field, claim);
                        let (kept, implausible) = LIMITS.withdraw(&event, NOW);
                        assert_eq!(implausible, Vec::from_iter(expected), "{case}");
                        let mut times_left = Vec::new();
                        times(&mut kept.into_owned(), |_, _, time| times_left.extend(*time));
                        let kept = Some(claim).filter(|_| doubt.is_none());
                        assert_eq!(times_left, Vec::from_iter(kept), "{case}");
                    }
                }
            }
        }
    }

    #[test]
    fn one_event_ahead_of_the_receipt_shows_the_clock_to_be_wrong_and_one_out_of_the_calendar_does_not() {
        let event = |offset_us: u64| v1::Event { offset_us, kind: None };
        let judged = |offsets: &[u64]| {
            let events = offsets.iter().copied().map(event).collect();
            let clock = v1::Clock::Synced.into();
            let report = v1::Report { base_unix_us: NOW - DAY_US, clock, events, ..v1::Report::default() };
            LIMITS.judge(&report, NOW)
        };
        let two_days = 2 * DAY_US as u64;
        assert_eq!(judged(&[0, 5]).at(&event(5)), NOW - DAY_US + 5);
        assert_eq!(judged(&[0, two_days, 5]).doubt, Some(Doubt::Ahead));
        assert_eq!(judged(&[0, two_days, 5]).at(&event(5)), NOW);
        assert_eq!(judged(&[0, u64::MAX, i64::MAX as u64]).doubt, None);
        assert_eq!(judged(&[0, u64::MAX]).at(&event(u64::MAX)), i64::MAX);
    }

    #[test]
    fn a_clock_that_is_not_synced_is_not_asked() {
        for clock in [v1::Clock::Unsynced, v1::Clock::Unknown, v1::Clock::Unspecified] {
            let report = v1::Report { base_unix_us: NOW - DAY_US, clock: clock.into(), ..v1::Report::default() };
            let judged = LIMITS.judge(&report, NOW);
            assert_eq!((judged.doubt, judged.is_device(), judged.at(&v1::Event::default())), (None, false, NOW));
        }
    }

    #[test]
    fn the_floor_is_the_first_of_january() {
        for (year, days) in [(2_000, 10_957), (2_001, 11_323), (2_020, 18_262), (2_026, 20_454), (2_099, 47_117)] {
            assert_eq!(Limits { earliest_year: year, ..LIMITS }.earliest_us(), days * DAY_US, "{year}");
        }
    }

    #[test]
    fn limits_outside_their_ranges_are_named() {
        assert!(Limits::default().faults().is_empty());
        let wrong = Limits { earliest_year: 1_999, ahead_max_s: 0, age_max_days: 41, due_max_days: 36_501 };
        let faults: Vec<_> = wrong.faults().into_iter().map(|(key, text)| format!("{key}: {text}")).collect();
        assert_eq!(
            faults,
            [
                "earliest_year: 1999 must be 2000..2099",
                "ahead_max_s: 0 must be 1..86400",
                "age_max_days: 41 must be 42..3650",
                "due_max_days: 36501 must be 1..36500"
            ]
        );
    }

    proptest! {
        #[test]
        fn no_event_is_stored_after_its_receipt_or_before_what_an_outbox_holds(
            base in any::<i64>(),
            near in -1_000_000_000_000_000i64..1_000_000_000_000_000,
            is_near in any::<bool>(),
            offsets in prop::collection::vec(prop_oneof![any::<u64>(), 0u64..100_000_000_000_000], 1..6),
            clock in 0i32..5,
            received_at in prop_oneof![0i64..UNIX_US_MAX, Just(NOW)],
        ) {
            let base_unix_us = if is_near { received_at + near } else { base };
            let events: Vec<_> = offsets.into_iter().map(|offset_us| v1::Event { offset_us, kind: None }).collect();
            let report = v1::Report { base_unix_us, clock, events: events.clone(), ..v1::Report::default() };
            let judged = LIMITS.judge(&report, received_at);
            for event in &events {
                let at = judged.at(event);
                if judged.is_device() && at < UNIX_US_MAX {
                    prop_assert!(at <= received_at + LIMITS.ahead_max_us() && at >= received_at - LIMITS.age_max_us());
                    prop_assert!(at >= LIMITS.earliest_us());
                } else if !judged.is_device() {
                    prop_assert_eq!(at, received_at);
                }
            }
            prop_assert!(judged.doubt.is_none() || report.clock() == v1::Clock::Synced);
        }
    }
}
