//! Reports become rows and aggregates, once each, however often the loader stops.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use telemetry::v1::{self, event::Kind};

use crate::rig::Rig;

const DEVICES: usize = 40;
const BASE_US: i64 = 1_749_000_000_000_000;

pub fn injection(random: &mut StdRng, number: u64) -> v1::Event {
    let target = 10_000 * random.random_range(1..4u64);
    let injection = v1::Injection {
        injection_no: Some(number),
        shot: Some(1 + (number % 60) as u32),
        mode: 1,
        outcome: random.random_range(1..6),
        target_nl: Some(target),
        delivered_nl: random.random_bool(0.9).then(|| target - 500 + random.random_range(0..1_000)),
        dose_source: random.random_range(1..5),
        target_um: Some(1_500),
        measured_um: random.random_bool(0.9).then(|| random.random_range(1_300..1_700)),
        depth_source: random.random_range(0..5),
        duration_us: Some(random.random_range(50_000..200_000)),
        punctures: random.random_bool(0.2).then_some(5),
        ..Default::default()
    };
    v1::Event { offset_us: number * 400_000, kind: Some(Kind::Injection(injection)) }
}

/// The events that a device made in one boot.
pub struct Boot {
    pub device: String,
    boot_id: u64,
    events: Vec<v1::Event>,
}

impl Boot {
    pub fn report(&self, first: usize, last: usize) -> v1::Report {
        // Each 500 events have one context: a session.
        let visit = (first / 500) as u8;
        let mount = v1::MountInUse {
            slot: v1::Slot::Needle as i32,
            mount_id: format!("m{visit}"),
            item_id: format!("needle-{visit}"),
        };
        v1::Report {
            boot_id: self.boot_id,
            first_seq: first as u64 + 1,
            base_unix_us: BASE_US,
            clock: v1::Clock::Synced as i32,
            context: Some(v1::Context {
                model: "pen".to_owned(),
                firmware: "1.2".to_owned(),
                session_id: vec![visit; 16],
                mounts: vec![mount],
                dose_calibration_id: "cal-1".to_owned(),
                ..Default::default()
            }),
            events: self.events[first..=last].to_vec(),
            ..Default::default()
        }
    }
}

pub fn boots(random: &mut StdRng, events: usize) -> Vec<Boot> {
    let boot = |number: usize, random: &mut StdRng| Boot {
        device: format!("pen-{number}"),
        boot_id: (number as u64 + 1) << 32 | 7,
        events: (0..events).map(|index| injection(random, index as u64 + 1)).collect(),
    };
    (0..DEVICES).map(|number| boot(number, random)).collect()
}

/// The reports to send, as the first and last event of each. They contain all events, some several
/// times and in other groupings, out of order.
pub fn groupings(random: &mut StdRng, events: usize) -> Vec<(usize, usize)> {
    let mut reports = Vec::new();
    let mut next = 0;
    while next < events {
        let visit_end = (next / 500 + 1) * 500;
        let last = (next + random.random_range(0..60)).min(events - 1).min(visit_end - 1);
        reports.push((next, last));
        if random.random_bool(0.3) {
            let first = (next.saturating_sub(random.random_range(0..50))).max(next / 500 * 500);
            reports.push((first, (first + random.random_range(0..40)).min(last)));
        }
        next = last + 1;
    }
    for index in 1..reports.len() {
        if random.random_bool(0.2) {
            reports.swap(index - 1, index);
        }
    }
    reports
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_stands_once_though_the_loader_stops_and_starts() {
    let seed = std::env::var("LOADER_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7);
    println!("LOADER_SEED={seed}");
    let random = &mut StdRng::seed_from_u64(seed);
    let mut rig = Rig::start(4).await;
    let events = 1_000;
    let boots = boots(random, events);
    let mut queues: Vec<_> = boots.iter().map(|_| groupings(random, events).into_iter()).collect();
    let mut open = true;
    let mut round = 0;
    while open {
        let loader = rig.load(rig.options()).await;
        let second = if round % 3 == 2 { Some(rig.load(rig.options()).await) } else { None };
        open = false;
        for _ in 0..12 {
            for (boot, queue) in boots.iter().zip(&mut queues) {
                if let Some((first, last)) = queue.next() {
                    rig.report(&boot.device, &boot.report(first, last));
                    open = true;
                }
            }
            tokio::time::sleep(Duration::from_millis(random.random_range(0..150))).await;
        }
        if round % 2 == 0 {
            loader.stop().await
        } else {
            loader.abandon().await
        }
        if let Some(second) = second {
            second.abandon().await;
        }
        round += 1;
    }
    rig.flush();
    let loader = rig.load(rig.options()).await;
    rig.written().await;
    assert!(loader.handle.metrics().contains("doseline_load_duplicates_total"));
    loader.stop().await;
    compare(&rig, &boots);
}

/// Partitions are revoked while their start is still being looked up, and are assigned again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_change_hands_while_the_engine_is_away() {
    let random = &mut StdRng::seed_from_u64(11);
    let mut rig = Rig::start(4).await;
    let boots = boots(random, 300);
    let mut queues: Vec<_> = boots.iter().map(|_| groupings(random, 300).into_iter()).collect();
    let first = rig.load(rig.options()).await;
    for _ in 0..3 {
        for (boot, queue) in boots.iter().zip(&mut queues) {
            for (from, to) in queue.by_ref().take(4) {
                rig.report(&boot.device, &boot.report(from, to));
            }
        }
        rig.flush();
        rig.clickhouse.pause();
        let second = rig.load(rig.options()).await;
        tokio::time::sleep(Duration::from_millis(random.random_range(500..4_000))).await;
        second.abandon().await;
        tokio::time::sleep(Duration::from_millis(random.random_range(0..4_000))).await;
        rig.clickhouse.resume();
    }
    for (boot, queue) in boots.iter().zip(&mut queues) {
        for (from, to) in queue {
            rig.report(&boot.device, &boot.report(from, to));
        }
    }
    rig.flush();
    rig.written().await;
    first.stop().await;
    compare(&rig, &boots);
}

pub fn compare(rig: &Rig, boots: &[Boot]) {
    let sql = "SELECT device, boot_id, seq, injection_no, target_nl, delivered_nl, measured_um, toString(outcome) AS outcome, \
               toUnixTimestamp64Micro(at) AS at FROM doseline.injections";
    let (mut rows, mut twice) = (BTreeMap::new(), BTreeSet::new());
    for row in rig.clickhouse.rows(sql) {
        let key = (row["device"].as_str().expect("text").to_owned(), row["seq"].as_u64().expect("a number"));
        if rows.insert(key.clone(), row).is_some() {
            twice.insert(key);
        }
    }
    assert!(twice.is_empty(), "twice: {twice:?}");
    let sent: usize = boots.iter().map(|boot| boot.events.len()).sum();
    assert_eq!(rows.len(), sent, "rows");
    for boot in boots {
        for (index, event) in boot.events.iter().enumerate() {
            let row = &rows[&(boot.device.clone(), index as u64 + 1)];
            let Some(Kind::Injection(injection)) = &event.kind else { panic!("an injection") };
            assert_eq!(row["boot_id"].as_u64(), Some(boot.boot_id));
            assert_eq!(row["injection_no"].as_u64(), injection.injection_no);
            assert_eq!(row["target_nl"].as_u64(), injection.target_nl);
            assert_eq!(row["delivered_nl"].as_u64(), injection.delivered_nl);
            assert_eq!(row["measured_um"].as_u64(), injection.measured_um.map(u64::from));
            assert_eq!(row["outcome"].as_str(), Some(&injection.outcome().as_str_name()["OUTCOME_".len()..]));
            assert_eq!(row["at"].as_i64(), Some(BASE_US + event.offset_us as i64));
        }
    }
    for (name, aggregate, base) in AGGREGATES {
        let (found, expected) = (rig.clickhouse.query(aggregate), rig.clickhouse.query(base));
        assert!(!expected.is_empty() && found == expected, "{name}\n{found}\nis not\n{expected}");
    }
    let ledgers = "SELECT device, boot_id, argMax((stored_first, stored_last), (incarnation, batch_end)) FROM doseline.loader_commits \
                   WHERE kind = 'ledger' GROUP BY ALL ORDER BY boot_id FORMAT TSV";
    let whole: Vec<String> =
        boots.iter().map(|boot| format!("{}\t{}\t([1],[{}])", boot.device, boot.boot_id, boot.events.len())).collect();
    assert_eq!(rig.clickhouse.query(ledgers), whole.join("\n"));
}

/// Name, the aggregate's sums, and the same sums over the base rows.
const AGGREGATES: [(&str, &str, &str); 3] = [
    (
        "accuracy_minute",
        "SELECT tenant, site, device, model, firmware, minute, sum(injections), sum(dose_n), sum(dose_target_nl), \
         sum(dose_delivered_nl), sum(dose_error_nl), sum(dose_error_sq), min(dose_error_min), max(dose_error_max), \
         sum(depth_n), sum(depth_error_um), sum(depth_error_sq), sum(ok), sum(partial), sum(aborted), sum(occluded), \
         sum(no_contact), min(first_at), max(last_at) FROM doseline.accuracy_minute \
         GROUP BY tenant, site, device, model, firmware, minute ORDER BY device, minute",
        "WITH delivered_nl IS NOT NULL AND target_nl IS NOT NULL AND dose_source != 'SETTING' AS dose, \
         measured_um IS NOT NULL AND target_um IS NOT NULL AND depth_source != 'SETTING' AS depth, \
         toInt64(delivered_nl) - toInt64(target_nl) AS de, toInt64(measured_um) - toInt64(target_um) AS pe \
         SELECT tenant, site, device, model, firmware, toStartOfMinute(at) AS minute, count(), countIf(dose), \
         ifNull(sumIf(target_nl, dose), 0), ifNull(sumIf(delivered_nl, dose), 0), ifNull(sumIf(de, dose), 0), ifNull(sumIf(de * de, dose), 0), minIf(de, dose), \
         maxIf(de, dose), countIf(depth), ifNull(sumIf(pe, depth), 0), ifNull(sumIf(pe * pe, depth), 0), countIf(outcome = 'OK'), \
         countIf(outcome = 'PARTIAL'), countIf(outcome = 'ABORTED'), countIf(outcome = 'OCCLUDED'), \
         countIf(outcome = 'NO_CONTACT'), min(at), max(at) FROM doseline.injections \
         GROUP BY tenant, site, device, model, firmware, minute ORDER BY device, minute",
    ),
    (
        "accuracy_session",
        "SELECT device, session_id, dose_calibration_id, depth_calibration_id, target_nl, target_um, outcome, sum(injections), \
         sum(dose_n), sum(dose_error_nl), sum(depth_n), sum(depth_error_um), sumMap(dose_error_bins, dose_error_counts) \
         FROM doseline.accuracy_session GROUP BY 1, 2, 3, 4, 5, 6, 7 ORDER BY 1, 2, 3, 4, 5, 6, 7",
        "WITH delivered_nl IS NOT NULL AND target_nl IS NOT NULL AND dose_source != 'SETTING' AS dose, \
         measured_um IS NOT NULL AND target_um IS NOT NULL AND depth_source != 'SETTING' AS depth, \
         toInt64(delivered_nl) - toInt64(target_nl) AS de, toInt64(measured_um) - toInt64(target_um) AS pe \
         SELECT device, session_id, dose_calibration_id, depth_calibration_id, target_nl, target_um, outcome, count(), \
         countIf(dose), ifNull(sumIf(de, dose), 0), countIf(depth), ifNull(sumIf(pe, depth), 0), \
         sumMapIf([toInt32(floor(100 * de / target_nl))], [toUInt64(1)], dose) \
         FROM doseline.injections GROUP BY 1, 2, 3, 4, 5, 6, 7 ORDER BY 1, 2, 3, 4, 5, 6, 7",
    ),
    (
        "item_uses",
        "SELECT device, session_id, slot, mount_id, item_id, sum(injections), sum(punctures), sum(delivered_nl), \
         sum(delivered_n), min(first_at), max(last_at) FROM doseline.item_uses GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5",
        "SELECT device, session_id, 'NEEDLE', needle_mount_id, needle_item_id, count(), sum(ifNull(punctures, 1)), \
         sum(ifNull(delivered_nl, 0)), count(delivered_nl), min(at), max(at) FROM doseline.injections \
         GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5",
    ),
];
