//! What the bridge has to know of a report: its boot, its sequence numbers, and whether it is
//! valid.
//!
//! A report of injections, which is nearly every report, is checked in place: nothing is allocated.
//! Everything else is decoded.

pub use crate::reading::fast::Head;
use crate::{reading::fast, reject::Reject, report::Report};

impl Head {
    /// Validates protobuf bytes as [`Report::decode`] does.
    ///
    /// # Errors
    /// The same.
    pub fn read(bytes: &[u8]) -> Result<Self, Reject> {
        match fast::read(bytes, &mut ()) {
            Some(head) => Ok(head),
            None => Report::decode(bytes).map(|report| Self {
                boot_id: report.boot_id(),
                sequence: report.sequence(),
                unknown: report.unknown(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;
    use crate::{
        interval::Interval,
        limits::{EVENTS_MAX, MOUNTS_MAX, REPORT_BYTES_MAX, SEQ_MAX},
        report::{Contexts, Reading},
        v1::{self, event::Kind},
    };

    /// Every reader on the same bytes; whether the fast reader took it.
    fn check(bytes: &[u8]) -> bool {
        let decoded = Report::decode_fully(bytes);
        assert_eq!(Report::decode(bytes), decoded, "{bytes:02x?}");
        let head = decoded.map(|report| Head {
            boot_id: report.boot_id(),
            sequence: report.sequence(),
            unknown: report.unknown(),
        });
        assert_eq!(Head::read(bytes), head, "{bytes:02x?}");
        let fast = fast::read(bytes, &mut ());
        if let Some(fast) = fast {
            assert_eq!(Ok(fast), head, "{bytes:02x?}");
        }
        let mut contexts = Contexts::default();
        assert_eq!(fast::read(bytes, &mut Reading::new(&mut contexts)), fast, "{bytes:02x?}");
        // Once more, with its context known.
        assert_eq!(Report::decode_among(bytes, &mut contexts), Report::decode_fully(bytes), "{bytes:02x?}");
        fast.is_some()
    }

    /// Every field of an injection, each with the same number or none.
    fn whole(value: u64, left_out: u32) -> v1::Event {
        let mut injection = v1::Injection::default();
        for number in (1..20).filter(|number| *number != left_out) {
            fast::Numbers::set(&mut injection, number, value);
        }
        v1::Event { offset_us: value, kind: Some(Kind::Injection(injection)) }
    }

    fn injection(target_nl: Option<u64>, pressure_pa: Option<i32>, mode: i32) -> v1::Event {
        let injection = v1::Injection { target_nl, pressure_pa, mode, ..v1::Injection::default() };
        v1::Event { offset_us: 5, kind: Some(Kind::Injection(injection)) }
    }

    fn event() -> impl Strategy<Value = v1::Event> {
        let beat = v1::Event { offset_us: 1, kind: Some(Kind::Heartbeat(v1::Heartbeat::default())) };
        prop_oneof![
            16 => (any::<Option<u64>>(), any::<Option<i32>>(), any::<i32>()).prop_map(|(a, b, c)| injection(a, b, c)),
            16 => (any::<u64>(), 1..=20u32).prop_map(|(value, left_out)| whole(value, left_out)),
            1 => Just(beat),
            1 => Just(v1::Event::default()),
        ]
    }

    fn context() -> impl Strategy<Value = v1::Context> {
        let text = || prop_oneof![8 => "[a-z0-9-]{0,8}", 1 => "[a-z]{60,70}", 1 => "[\u{0}-\u{ff}]{1,4}"];
        let mount =
            (0..6i32, text(), text()).prop_map(|(slot, mount_id, item_id)| v1::MountInUse { slot, mount_id, item_id });
        let session = prop_oneof![8 => Just(vec![7; 16]), 2 => Just(vec![]), 1 => Just(vec![7; 15])];
        (text(), session, prop::collection::vec(mount, 0..4), text()).prop_map(
            |(model, session_id, mounts, operator_id)| v1::Context {
                model,
                session_id,
                mounts,
                operator_id,
                ..v1::Context::default()
            },
        )
    }

    fn report() -> impl Strategy<Value = v1::Report> {
        let first = prop_oneof![16 => 1u64..1_000, 1 => Just(0), 1 => SEQ_MAX - 4..=SEQ_MAX, 1 => Just(u64::MAX)];
        let events = prop::collection::vec(event(), 0..5);
        (0u64..20, first, -1i32..6, prop::option::of(context()), events, prop::bool::weighted(0.1)).prop_map(
            |(boot_id, first_seq, clock, context, events, lost)| {
                let lost = lost.then(|| v1::LostRange { first_seq: 1, last_seq: 2, ..v1::LostRange::default() });
                let lost = lost.into_iter().collect();
                v1::Report { boot_id, first_seq, clock, context, events, lost, ..v1::Report::default() }
            },
        )
    }

    proptest! {
        #[test]
        fn the_fast_reader_agrees_with_the_full_one(report in report(), tail in prop::collection::vec(any::<u8>(), 0..6)) {
            let mut bytes = report.encode_to_vec();
            check(&bytes);
            bytes.extend(tail);
            check(&bytes);
        }

        #[test]
        fn what_was_read_before_changes_nothing(reports in prop::collection::vec(report(), 1..6), order in prop::collection::vec(any::<prop::sample::Index>(), 1..12)) {
            let reports: Vec<_> = reports.iter().map(prost::Message::encode_to_vec).collect();
            let mut contexts = Contexts::default();
            for at in order {
                let bytes = at.get(&reports);
                prop_assert_eq!(Report::decode_among(bytes, &mut contexts), Report::decode_fully(bytes));
            }
        }

        #[test]
        fn agrees_about_damaged_bytes(
            report in report(),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
            length in any::<prop::sample::Index>(),
        ) {
            let mut bytes = report.encode_to_vec();
            check(&bytes[..length.index(bytes.len() + 1)]);
            for (at, byte) in damage {
                if !bytes.is_empty() {
                    let at = at.index(bytes.len());
                    bytes[at] = byte;
                }
                check(&bytes);
            }
        }

        #[test]
        fn agrees_about_any_bytes(bytes in prop::collection::vec(prop_oneof![0u8..0x50, any::<u8>()], 0..40)) {
            check(&bytes);
        }
    }

    #[test]
    fn what_devices_usually_send_is_read_by_the_fast_reader() {
        let mount = v1::MountInUse { slot: 1, mount_id: "M-1".to_owned(), item_id: "01(21)é/x\u{1d}".to_owned() };
        let context = v1::Context {
            model: "pen 3".to_owned(),
            session_id: vec![1; 16],
            mounts: vec![mount],
            operator_id: "op-1".to_owned(),
            ..v1::Context::default()
        };
        let events = vec![injection(Some(20_000), Some(-5), 1); EVENTS_MAX];
        let report = v1::Report {
            boot_id: 7,
            first_seq: 3,
            base_unix_us: -1,
            base_uptime_us: 1,
            clock: 77,
            context: Some(context),
            events,
            ..v1::Report::default()
        };
        let mut bytes = report.encode_to_vec();
        bytes.extend([0xf8, 0x07, 1]);
        assert!(check(&bytes));
        let head = Head { boot_id: 7, sequence: Some(Interval::new(3, 2 + EVENTS_MAX as u64)), unknown: 2 };
        assert_eq!(Head::read(&bytes), Ok(head));
    }

    #[test]
    fn limits_are_left_to_the_full_reader() {
        let event = |count| vec![injection(None, None, 0); count];
        let report = v1::Report { boot_id: 7, first_seq: 3, events: event(1), ..v1::Report::default() };
        let many = v1::Report { events: event(EVENTS_MAX + 1), ..report.clone() };
        let mounts = vec![v1::MountInUse::default(); MOUNTS_MAX + 1];
        let context = Some(v1::Context { mounts, ..v1::Context::default() });
        let mounted = v1::Report { context, ..report.clone() };
        let in_context = v1::Report { context: Some(v1::Context::default()), ..report.clone() };
        let twice = in_context.encode_to_vec().repeat(2);
        let mut large = report.encode_to_vec();
        large.resize(REPORT_BYTES_MAX + 1, 0);
        for bytes in [many.encode_to_vec(), mounted.encode_to_vec(), twice, large, vec![]] {
            assert!(!check(&bytes));
        }
    }
}
