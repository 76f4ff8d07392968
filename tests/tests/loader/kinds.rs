//! Every kind of event reaches its table, and everything that cannot be used reaches the
//! quarantine.

use prost::Message as _;
use telemetry::{
    kafka::{QUARANTINE_TOPIC, REPORTS_TOPIC, STATUS_TOPIC},
    v1::{self, event::Kind},
};

use crate::rig::{RECEIVED_US, Rig};

const BASE_US: i64 = 1_749_999_960_000_000;

fn event(kind: Kind) -> v1::Event {
    v1::Event { offset_us: 1_000, kind: Some(kind) }
}

fn report(boot_id: u64, first_seq: u64, events: Vec<v1::Event>) -> v1::Report {
    v1::Report {
        boot_id,
        first_seq,
        base_unix_us: BASE_US,
        clock: v1::Clock::Synced as i32,
        context: Some(v1::Context {
            model: "pen".to_owned(),
            operator_id: "op-1".to_owned(),
            session_id: vec![0xab; 16],
            ..Default::default()
        }),
        events,
        ..Default::default()
    }
}

fn every_kind() -> Vec<v1::Event> {
    let text = str::to_owned;
    vec![
        event(Kind::Injection(v1::Injection { measured_um: None, target_um: Some(1_500), ..Default::default() })),
        event(Kind::SessionStarted(v1::SessionStarted {
            course_id: vec![1, 255],
            course_index: Some(2),
            allergy_result: v1::AllergyResult::NotDone as i32,
            allergy_unix_us: Some(BASE_US),
            ..Default::default()
        })),
        event(Kind::SessionEnded(v1::SessionEnded { shots: Some(9), reason: text("completed"), ..Default::default() })),
        event(Kind::ConsumableMounted(v1::ConsumableMounted {
            slot: v1::Slot::Syringe as i32,
            mount_id: text("m1"),
            item_id: text("s1"),
            id_kind: v1::IdKind::LotOnly as i32,
            r#type: text("1 ml"),
            reusable: Some(false),
            fill_nl: Some(1_000_000),
            ..Default::default()
        })),
        event(Kind::Primed(v1::Primed { mount_id: text("m1"), volume_nl: Some(5_000) })),
        event(Kind::ConsumableRemoved(v1::ConsumableRemoved {
            mount_id: text("m1"),
            residual_nl: Some(70_000),
            residual_source: v1::ResidualSource::Scale as i32,
        })),
        event(Kind::Reprocessed(v1::Reprocessed { item_id: text("h1"), rinse_water: v1::RinseWater::Tap as i32 })),
        event(Kind::Preparation(v1::Preparation {
            preparation_id: text("mix-1"),
            components: vec![
                v1::Component { lot: text("L1"), expiry: text("2027-02-00"), ..Default::default() },
                v1::Component { lot: text("L2"), volume_nl: Some(3), ..Default::default() },
            ],
            ..Default::default()
        })),
        event(Kind::SterilizationCycle(v1::SterilizationCycle {
            cycle_uid: text("cy-1"),
            purpose: v1::Purpose::BowieDick as i32,
            items: vec![v1::CycleItem { item_id: text("h1"), pack_id: text("p1") }],
            samples: vec![
                v1::CycleSample { offset_ms: 0, sensor: 1, temperature_mc: Some(-20), pressure_pa: None },
                v1::CycleSample { offset_ms: 500, sensor: 1, temperature_mc: None, pressure_pa: Some(310_000) },
            ],
            load_dry: Some(true),
            ..Default::default()
        })),
        event(Kind::CycleIndicator(v1::CycleIndicator {
            cycle_uid: text("cy-1"),
            kind: v1::IndicatorKind::Biological as i32,
            result: v1::IndicatorResult::Negative as i32,
            ..Default::default()
        })),
        event(Kind::CycleRelease(v1::CycleRelease {
            cycle_uid: text("cy-1"),
            decision: v1::ReleaseDecision::Released as i32,
            actor: text("op-2"),
            at_unix_us: Some(BASE_US),
        })),
        event(Kind::Calibration(v1::Calibration {
            subject_device: text("pen-9"),
            channel: v1::Channel::Dose as i32,
            points: vec![v1::CalibrationPoint {
                target: Some(-5),
                phase: v1::Phase::AsFound as i32,
                k: Some(2_000),
                ..Default::default()
            }],
            ..Default::default()
        })),
        event(Kind::Calibration(v1::Calibration { calibration_id: text("empty"), ..Default::default() })),
        event(Kind::Fault(v1::Fault { code: text("E1"), state: 77, detail: text("what") })),
        event(Kind::Heartbeat(v1::Heartbeat {
            battery_pct: Some(80),
            boot_id: Some(11),
            last_seq: Some(40),
            ..Default::default()
        })),
    ]
}

fn check(rig: &Rig, sql: &str, expected: &str) {
    let sql = sql.replace("FROM ", "FROM doseline.");
    assert_eq!(rig.clickhouse.query(&sql), expected, "{sql}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_has_its_table_and_every_reject_its_reason() {
    let mut rig = Rig::start(2).await;
    let kinds = every_kind();
    let count = kinds.len() as u64;
    rig.report("pen-1", &report(10, 1, kinds));
    produce_rejects(&mut rig);
    rig.flush();
    let loader = rig.load(rig.options()).await;
    rig.written().await;
    loader.stop().await;
    kinds_are_in_their_tables(&rig);
    ledgers_are_kept(&rig, count);
    rejects_are_in_quarantine(&rig);
}

/// Retransmissions of every kind of event: in another grouping and from another base time, and by a
/// device with the same identity that says something else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_content_under_a_stored_sequence_number_is_a_conflict_and_the_same_one_is_silent() {
    let mut rig = Rig::start(2).await;
    let kinds = every_kind();
    let count = kinds.len() as u64;
    let loader = rig.load(rig.options()).await;
    rig.report("pen-1", &report(10, 1, kinds.clone()));
    rig.report("pen-2", &report(11, 1, vec![kinds[0].clone()]));
    rig.flush();
    rig.written().await;

    // The same events with the last one in a report of its own, from a base time one second
    // earlier.
    let mut again = report(10, 1, kinds.clone());
    again.base_unix_us -= 1_000_000;
    again.events.iter_mut().for_each(|event| event.offset_us += 1_000_000);
    let last = v1::Report { first_seq: count, events: again.events.split_off(kinds.len() - 1), ..again.clone() };
    rig.report("pen-1", &again);
    rig.report("pen-1", &last);
    rig.flush();
    rig.written().await;
    let metrics = loader.handle.metrics();
    assert!(metrics.contains("doseline_load_conflicts_total 0"), "{metrics}");
    assert!(metrics.contains("doseline_load_unverified_duplicates_total 0"), "{metrics}");
    assert!(metrics.contains(&format!("doseline_load_duplicates_total {count}")), "{metrics}");

    // One field of each kind is changed, one event has another kind, and one batch holds both
    // contents.
    let mut other = report(10, 1, kinds.clone());
    for event in &mut other.events {
        match event.kind.as_mut() {
            Some(Kind::Injection(injection)) => injection.target_um = Some(1_501),
            Some(Kind::SterilizationCycle(cycle)) => cycle.samples[1].pressure_pa = Some(310_001),
            Some(Kind::Preparation(preparation)) => preparation.components[1].volume_nl = Some(4),
            Some(Kind::Heartbeat(heartbeat)) => heartbeat.battery_pct = Some(81),
            Some(Kind::Calibration(calibration)) => calibration.certificate = "C-2".to_owned(),
            _ => *event = v1::Event { kind: Some(Kind::Injection(v1::Injection::default())), ..event.clone() },
        }
    }
    rig.report("pen-1", &other);
    rig.report("pen-2", &report(11, 1, vec![kinds[13].clone()]));
    for certificate in ["C-1", "C-2", "C-1"] {
        let calibration = v1::Calibration { certificate: certificate.to_owned(), ..v1::Calibration::default() };
        rig.report("pen-3", &report(12, 1, vec![event(Kind::Calibration(calibration))]));
    }
    rig.flush();
    rig.written().await;
    rig.written().await;
    loader.stop().await;
    let sql = "SELECT device, count(), uniqExact(seq), groupUniqArray(source) FROM quarantine \
               WHERE reason = 'conflict' GROUP BY device ORDER BY device";
    let expected = format!("pen-1\t{count}\t{count}\t['check']\npen-2\t1\t1\t['check']\npen-3\t1\t1\t['check']");
    check(&rig, sql, &expected);
    let details = "SELECT seq, detail FROM quarantine WHERE device = 'pen-1' AND seq IN (1, 9) ORDER BY seq";
    check(
        &rig,
        details,
        "1\tboot 10, sequence 1: target_um is \"1501\", stored is \"1500\"\n\
         9\tboot 10, sequence 9: pressure_pa is \"310001\", stored is \"310000\"",
    );
    check(
        &rig,
        "SELECT detail FROM quarantine WHERE device = 'pen-2'",
        "boot 11, sequence 1: an event of another kind is stored",
    );
    check(&rig, "SELECT count(), any(target_um) FROM injections WHERE device = 'pen-1'", "1\t1500");
    check(&rig, "SELECT count(), any(certificate) FROM calibrations WHERE device = 'pen-3'", "1\tC-1");
}

/// The first content is implausible: neither it nor another one is stored, and both can be found.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_content_under_a_quarantined_sequence_number_is_a_conflict_and_the_same_one_is_silent() {
    let mut rig = Rig::start(1).await;
    let loader = rig.load(rig.options()).await;
    let injection = |measured_um| {
        let injection = v1::Injection { measured_um: Some(measured_um), ..v1::Injection::default() };
        event(Kind::Injection(injection))
    };
    let implausible = || report(20, 1, vec![injection(1_500), injection(13_001)]);
    rig.report("pen-1", &implausible());
    rig.flush();
    rig.written().await;
    // Again, also alone and from another base: a retransmission.
    let mut again = implausible();
    again.base_unix_us -= 1_000_000;
    again.events.iter_mut().for_each(|event| event.offset_us += 1_000_000);
    let alone = v1::Report { first_seq: 2, events: vec![again.events[1].clone()], ..again.clone() };
    rig.report("pen-1", &again);
    rig.report("pen-1", &alone);
    rig.flush();
    rig.written().await;
    let metrics = loader.handle.metrics();
    for silent in ["conflicts", "unverified_duplicates"] {
        assert!(metrics.contains(&format!("doseline_load_{silent}_total 0")), "{metrics}");
    }
    check(&rig, "SELECT count() FROM quarantine", "1");

    // A good injection under the number, and both contents of another device in one batch.
    rig.report("pen-1", &report(20, 2, vec![injection(1_501)]));
    rig.report("pen-2", &report(21, 1, vec![injection(13_001)]));
    rig.report("pen-2", &report(21, 1, vec![injection(1_502)]));
    rig.flush();
    rig.written().await;
    rig.written().await;
    let metrics = loader.handle.metrics();
    assert!(metrics.contains("doseline_load_conflicts_total 2"), "{metrics}");
    loader.stop().await;
    check(
        &rig,
        "SELECT device, boot_id, seq, reason, source, detail FROM quarantine ORDER BY ALL",
        "pen-1\t20\t2\tconflict\tcheck\tboot 20, sequence 2: the first content is in quarantine as implausible, and differs\n\
         pen-1\t20\t2\timplausible\tloader\tmeasured_um 13001 is outside 0..13000\n\
         pen-2\t21\t1\tconflict\tcheck\tboot 21, sequence 1: the first content is in quarantine as implausible, and differs\n\
         pen-2\t21\t1\timplausible\tloader\tmeasured_um 13001 is outside 0..13000",
    );
    check(&rig, "SELECT count(), any(measured_um) FROM injections", "1\t1500");
}

fn kinds_are_in_their_tables(rig: &Rig) {
    check(
        rig,
        "SELECT seq, measured_um, target_um, at FROM injections WHERE boot_id = 10",
        "1\t\\N\t1500\t2025-06-15 15:06:00.001000",
    );
    check(
        rig,
        "SELECT sum(depth_n), sum(dose_n), sum(injections) FROM accuracy_minute WHERE device = 'pen-1'",
        "0\t0\t2",
    );
    check(
        rig,
        "SELECT seq, event, course_id, course_index, allergy_result, allergy_at, shots, reason, session_id FROM sessions ORDER BY seq",
        "2\tSTARTED\t01ff\t2\tNOT_DONE\t2025-06-15 15:06:00.000000\t\\N\t\tabababababababababababababababab\n\
         3\tENDED\t\t\\N\t\t\\N\t9\tcompleted\tabababababababababababababababab",
    );
    check(
        rig,
        "SELECT seq, event, slot, mount_id, item_id, id_kind, type, reusable, fill_nl, volume_nl, residual_nl, residual_source, rinse_water FROM mounts WHERE boot_id = 10 ORDER BY seq",
        "4\tMOUNTED\tSYRINGE\tm1\ts1\tLOT_ONLY\t1 ml\tfalse\t1000000\t\\N\t\\N\t\t\n\
         5\tPRIMED\t\tm1\t\t\t\t\\N\t\\N\t5000\t\\N\t\t\n\
         6\tREMOVED\t\tm1\t\t\t\t\\N\t\\N\t\\N\t70000\tSCALE\t\n\
         7\tREPROCESSED\t\t\th1\t\t\t\\N\t\\N\t\\N\t\\N\t\tTAP",
    );
    check(
        rig,
        "SELECT seq, `index`, components, lot, expiry, volume_nl FROM preparations ORDER BY `index`",
        "8\t0\t2\tL1\t2027-02-00\t\\N\n8\t1\t2\tL2\t\t3",
    );
    check(
        rig,
        "SELECT seq, cycle_uid, purpose, load_dry, items, samples FROM sterilization_cycles",
        "9\tcy-1\tBOWIE_DICK\ttrue\t1\t2",
    );
    check(
        rig,
        "SELECT `index`, offset_ms, sensor, temperature_mc, pressure_pa FROM sterilization_samples ORDER BY `index`",
        "0\t0\t1\t-20\t\\N\n1\t500\t1\t\\N\t310000",
    );
    check(rig, "SELECT item_id, pack_id FROM sterilization_items", "h1\tp1");
    check(rig, "SELECT kind, result, operator_id FROM cycle_indicators", "BIOLOGICAL\tNEGATIVE\top-1");
    check(rig, "SELECT decision, actor, decided_at FROM cycle_releases", "RELEASED\top-2\t2025-06-15 15:06:00.000000");
    check(
        rig,
        "SELECT seq, `index`, points, subject_device, channel, target, phase, k, calibration_id FROM calibrations ORDER BY seq",
        "12\t0\t1\tpen-9\tDOSE\t-5\tAS_FOUND\t2000\t\n13\t0\t0\t\t\t\\N\t\t\\N\tempty",
    );
    check(rig, "SELECT seq, code, state, detail FROM faults ORDER BY boot_id", "14\tE1\t77\twhat\n1\tE5\t\t");
    check(
        rig,
        "SELECT source, seq, state, battery_pct, last_boot_id, last_seq FROM device_status ORDER BY source, seq",
        "HEARTBEAT\t0\t\t50\t\\N\t\\N\nHEARTBEAT\t15\t\t80\t11\t40\nSTATUS\t0\tLOST\t\\N\t12\t6",
    );
}

fn ledgers_are_kept(rig: &Rig, count: u64) {
    let sql = "SELECT boot_id, argMax((stored_first, stored_last, quarantined_first, quarantined_last, lost_first, lost_last, \
               toString(lost_reason), declared_last), batch_end) FROM loader_commits \
               WHERE kind = 'ledger' AND device = 'pen-1' GROUP BY incarnation, boot_id ORDER BY boot_id";
    // Boot 10 has all kinds. Boot 11 is known from a heartbeat, boot 12 from the status topic, and
    // boot 30 as an earlier boot. For boot 20 see `produce_rejects`.
    let expected = format!(
        "10\t([1],[{count}],[],[],[],[],'',0)\n11\t([],[],[],[],[],[],'',40)\n12\t([],[],[],[],[],[],'',6)\n\
         20\t([1,3],[1,3],[2,4],[2,4],[6],[7],'outbox full',7)\n30\t([],[],[],[],[],[],'',99)\n50\t([1],[1],[],[],[],[],'',0)"
    );
    check(rig, sql, &expected);
}

fn produce_rejects(rig: &mut Rig) {
    let good = event(Kind::Fault(v1::Fault { code: "E2".to_owned(), ..Default::default() }));
    let deep = event(Kind::Injection(v1::Injection { measured_um: Some(13_001), ..Default::default() }));
    let mut mixed = report(20, 1, vec![good.clone(), deep, good, v1::Event::default()]);
    mixed.lost = vec![v1::LostRange { first_seq: 6, last_seq: 7, reason: "outbox full".to_owned() }];
    mixed.earlier_boots = vec![v1::EarlierBoot { boot_id: 30, last_seq: 99 }];
    if let Some(Kind::Fault(fault)) = &mut mixed.events[0].kind {
        fault.code = "E3".to_owned();
    }
    mixed.events[2] = event(Kind::Primed(v1::Primed::default()));
    mixed.events[0] = event(Kind::Injection(v1::Injection { outcome: 99, ..Default::default() }));
    // Everything is sent twice and stored once.
    rig.report("pen-1", &mixed);
    rig.report("pen-1", &mixed);
    let beat = event(Kind::Heartbeat(v1::Heartbeat { battery_pct: Some(50), ..Default::default() }));
    rig.report("pen-1", &report(10, 0, vec![beat]));

    let topic = "doseline/v1/acme/berlin/pen-1/report";
    let whole = report(40, 1, Vec::new()).encode_to_vec();
    rig.produce(REPORTS_TOPIC, "acme/pen-1", topic, b"\xff\xff", &[]);
    rig.produce(REPORTS_TOPIC, "acme/pen-1", "doseline/v2/nonsense", &whole, &[]);
    rig.produce(REPORTS_TOPIC, "acme/pen-2", topic, &whole, &[]);
    // If a header occurs twice, the last one counts.
    let times = [("received_at", "1700000000000000"), ("received_at", "yesterday")];
    rig.produce(REPORTS_TOPIC, "acme/pen-1", topic, &whole, &times);
    // The report goes into both partitions, and one of them is wrong.
    let faulty = report(50, 1, vec![event(Kind::Fault(v1::Fault { code: "E5".to_owned(), ..Default::default() }))]);
    for partition in 0..2 {
        rig.produce_into(Some(partition), REPORTS_TOPIC, "acme/pen-1", topic, &faulty.encode_to_vec(), &[]);
    }
    let status = br#"{"state":"STATE_LOST","bootId":"12","lastSeq":"6"}"#;
    rig.produce(STATUS_TOPIC, "acme/pen-1", "doseline/v1/acme/berlin/pen-1/status", status, &[]);
    rig.produce(STATUS_TOPIC, "acme/pen-1", "doseline/v1/acme/berlin/pen-1/status", b"{", &[]);
    let refused = [("reason", "too_large"), ("source", "bridge")];
    rig.produce(QUARANTINE_TOPIC, "acme/pen-1", topic, b"\x00\xff raw", &refused);
    rig.produce(QUARANTINE_TOPIC, "acme/pen-1", topic, b"copy", &[("reason", "bad_boot"), ("source", "loader")]);
}

fn rejects_are_in_quarantine(rig: &Rig) {
    check(
        rig,
        "SELECT reason, source, device, boot_id, seq, topic LIKE 'doseline/v1/%' FROM quarantine ORDER BY reason, seq, device",
        "bad_json\tloader\tpen-1\t0\t0\t1\n\
         bad_protobuf\tloader\tpen-1\t0\t0\t1\n\
         bad_record\tloader\tpen-1\t0\t0\t1\n\
         bad_record\tloader\tpen-1\t0\t0\t1\n\
         bad_topic\tloader\t\t0\t0\t0\n\
         implausible\tloader\tpen-1\t20\t2\t1\n\
         too_large\tbridge\tpen-1\t0\t0\t1\n\
         unknown_event\tloader\tpen-1\t20\t4\t1\n\
         wrong_partition\tloader\tpen-1\t0\t0\t1",
    );
    check(rig, "SELECT hex(payload), detail FROM quarantine WHERE reason = 'too_large'", "00FF20726177\t");
    check(
        rig,
        "SELECT detail, toUnixTimestamp64Micro(received_at) >= RECEIVED FROM quarantine WHERE reason = 'implausible'"
            .replace("RECEIVED", &RECEIVED_US.to_string())
            .as_str(),
        "measured_um 13001 is outside 0..13000\t1",
    );
    check(
        rig,
        "SELECT received_at BETWEEN now64(6) - INTERVAL 1 HOUR AND now64(6) FROM quarantine WHERE detail LIKE '%`received_at`%'",
        "1",
    );
    check(rig, "SELECT outcome, flags FROM injections WHERE boot_id = 20", "99\t1");
    // The quarantined event can be replayed, because it is a report of its own.
    let payload = rig.clickhouse.query("SELECT hex(payload) FROM doseline.quarantine WHERE reason = 'implausible'");
    let bytes: Vec<u8> = (0..payload.len() / 2)
        .map(|index| u8::from_str_radix(&payload[2 * index..2 * index + 2], 16).expect("hex"))
        .collect();
    let alone = v1::Report::decode(bytes.as_slice()).expect("a report");
    assert_eq!((alone.boot_id, alone.first_seq, alone.events.len()), (20, 2, 1));
    // What the loader refused also has a copy in the topic.
    let mut copies: Vec<_> = rig
        .kafka
        .records(QUARANTINE_TOPIC)
        .iter()
        .filter(|record| record.header("source").as_deref() == Some("loader"))
        .filter_map(|record| record.header("reason"))
        .collect();
    copies.sort();
    let expected = [
        "bad_boot",
        "bad_json",
        "bad_protobuf",
        "bad_record",
        "bad_record",
        "bad_topic",
        "implausible",
        "unknown_event",
        "wrong_partition",
    ];
    assert_eq!(copies, expected);
}
