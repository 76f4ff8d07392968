//! Times that devices report, from Kafka to the verdict and the alert. An impossible time is used
//! nowhere, and a day with such a time is rebuilt to the same rows.

use monitor::{Monitor, Options};
use telemetry::v1::{self, event::Kind};

use crate::{
    rig::{RECEIVED_US, Rig},
    world::World,
};

const DAY_US: i64 = 86_400_000_000;

/// A boot that starts a session, mounts a needle and injects once. Its clock says that it is
/// synced.
fn visit(rig: &mut Rig, device: &str, base_unix_us: i64, expiry: &str) {
    let mount_id = format!("m-{device}");
    let mounted = v1::ConsumableMounted {
        slot: v1::Slot::Needle.into(),
        mount_id: mount_id.clone(),
        item_id: format!("needle-{device}"),
        id_kind: v1::IdKind::Serial.into(),
        expiry: expiry.to_owned(),
        ..v1::ConsumableMounted::default()
    };
    let kinds = [Kind::ConsumableMounted(mounted), Kind::Injection(v1::Injection::default())];
    let mut session_id = vec![0; 16];
    session_id[..device.len()].copy_from_slice(device.as_bytes());
    let mount = v1::MountInUse { slot: v1::Slot::Needle.into(), mount_id, item_id: String::new() };
    let report = v1::Report {
        boot_id: 1 << 32 | 7,
        first_seq: 1,
        base_unix_us,
        clock: v1::Clock::Synced.into(),
        context: Some(v1::Context { session_id, mounts: vec![mount], ..v1::Context::default() }),
        events: kinds.map(|kind| v1::Event { offset_us: 0, kind: Some(kind) }).into(),
        ..v1::Report::default()
    };
    rig.report(device, &report);
}

/// A heartbeat of the same boot, outside the sequence, so no outbox has kept it.
fn heartbeat(rig: &mut Rig, device: &str, base_unix_us: i64) {
    let report = v1::Report {
        boot_id: 1 << 32 | 7,
        base_unix_us,
        clock: v1::Clock::Synced.into(),
        events: vec![v1::Event { offset_us: 0, kind: Some(Kind::Heartbeat(v1::Heartbeat::default())) }],
        ..v1::Report::default()
    };
    rig.report(device, &report);
}

/// The time of receipt is 2025-06-15 15:06:40 and some microseconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_wrong_is_seen_and_decides_nothing() {
    harness::stay_within_a_day(std::time::Duration::from_secs(300));
    let mut world = World::start(2).await;
    let loader = world.load_days_ago(2).await;
    let rig = &mut world.rig;
    visit(rig, "unset", 0, "2020-06-30");
    visit(rig, "seconds", RECEIVED_US / 1_000_000, "2025-03-31");
    visit(rig, "decade", RECEIVED_US + 3_652 * DAY_US, "2027-06-30");
    visit(rig, "day", RECEIVED_US + DAY_US, "2025-06-15");
    visit(rig, "six-weeks", RECEIVED_US - 42 * DAY_US, "2025-05-04");
    // Also a day ahead, but the report has waited for a day, so its time is plausible by itself.
    visit(rig, "late", RECEIVED_US, "2025-06-14");
    rig.flush();
    rig.written().await;

    let told = "SELECT device, time_source, flags, intDiv(dateDiff('second', at, received_at), 86400) \
                FROM doseline.injections ORDER BY device";
    assert_eq!(
        rig.clickhouse.query(told),
        "day\tRECEIVED\t4\t0\ndecade\tRECEIVED\t4\t0\nlate\tDEVICE\t0\t0\nseconds\tRECEIVED\t4\t0\n\
         six-weeks\tDEVICE\t0\t42\nunset\tRECEIVED\t4\t0"
    );
    let mut monitor = Monitor::bind(Options::default(), rig.warehouse.clone()).await.expect("valid options");
    monitor.pass(monitor::now_us()).await.expect("a pass");
    let verdicts = "SELECT device, argMax(state, computed_at) FROM doseline.sterility_verdicts WHERE rule = 6 \
                    GROUP BY device ORDER BY device";
    assert_eq!(rig.clickhouse.query(verdicts), "late\tCONFIRMED\nseconds\tINDETERMINATE\nunset\tCONFIRMED");

    // The message that shows that the clock of this boot is ahead arrives later.
    heartbeat(rig, "late", RECEIVED_US + DAY_US);
    rig.flush();
    rig.written().await;
    // The monitor only queries the fleet every few seconds.
    monitor.pass(monitor::now_us() + 61_000_000).await.expect("a pass");
    assert_eq!(rig.clickhouse.query(verdicts), "late\tINDETERMINATE\nseconds\tINDETERMINATE\nunset\tCONFIRMED");
    let alerts = "SELECT device, severity FROM doseline.open_alerts WHERE kind = 'clock-implausible' ORDER BY device";
    assert_eq!(
        rig.clickhouse.query(alerts),
        "day\tmedium\ndecade\tmedium\nlate\tmedium\nseconds\tmedium\nunset\tmedium"
    );
    let title = |device: &str| {
        let of = "FROM doseline.open_alerts WHERE kind = 'clock-implausible' AND device =";
        rig.clickhouse.query(&format!("SELECT title {of} '{device}'"))
    };
    let receipt = "received at 2025-06-15 15:06:40.00000";
    let (unset, decade) = (title("unset"), title("decade"));
    assert!(
        unset.starts_with(&format!("unset told the time of an event as 1970-01-01 00:00:00.000000 UTC, {receipt}"))
    );
    assert!(unset.ends_with(" UTC: ABSENT"), "{unset}");
    assert!(decade.contains("as 2035-06-15 15:06:40.000000 UTC") && decade.ends_with("AHEAD"), "{decade}");

    loader.stop().await;
    world.is_clean();
    let day = world.day(2);
    let again = world.run(&["rebuild", "--day", &day]);
    assert_eq!(again.code, Some(0), "{}\n{}", again.stdout, again.stderr);
}
