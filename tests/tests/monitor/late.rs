//! Facts that come long after they could have been judged.

use super::Rig;

/// The day on which a batch began that stays open for more than a week.
const INGEST_DAY: &str = "today() - 9";

impl Rig {
    /// A needle that was used in a session; its row belongs to an old batch of partition 0.
    fn used_in(&self, session: &str, batch: u32) {
        self.clickhouse.query(&format!(
            "INSERT INTO doseline.item_uses (tenant, site, device, session_id, slot, mount_id, item_id, injections, \
             punctures, first_at, last_at, ingest_day, incarnation, kafka_partition, batch) \
             SELECT 'acme', 'paris', 'pen-1', '{session}', 'NEEDLE', 'm-{session}', 'N1', 20, 20, at, at, {INGEST_DAY}, \
             1, 0, {batch} FROM (SELECT toDateTime64('2026-01-05 08:00:00', 6, 'UTC') + {batch} * 3600 AS at)"
        ));
        self.clickhouse.query(&format!(
            "INSERT INTO doseline.loader_intents (incarnation, kafka_partition, batch, batch_end, ingest_day) \
             SELECT 1, 0, {batch}, {batch} + 10, {INGEST_DAY}"
        ));
    }

    fn committed(&self, batch: u32) {
        self.clickhouse.query(&format!(
            "INSERT INTO doseline.loader_commits (kind, incarnation, kafka_partition, batch, batch_end) \
             VALUES ('commit', 1, 0, {batch}, {batch} + 10)"
        ));
    }
}

/// A loader writes a batch, is gone for more than a week, and commits it when it is back. The
/// commit adds no rows to the tables of facts.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_stays_open_for_days_is_judged_once_it_is_committed() {
    let mut rig = Rig::start().await;
    rig.used_in("a", 0);
    rig.committed(0);
    rig.pass().await;
    rig.used_in("b", 10);
    for _ in 0..2 {
        rig.pass().await;
        assert_eq!(rig.open(), [""; 0], "the second use is not committed");
    }
    rig.committed(10);
    assert!(!rig.pass().await.whole, "a pass over everything shows nothing");
    assert_eq!(rig.open(), ["high sterility-2/acme/item/N1"]);
}

/// A device without a clock makes a mixture and reports it five days later, when a pen has long
/// reported the session in which the mixture was used.
#[tokio::test(flavor = "multi_thread")]
async fn a_mixture_that_is_reported_days_later_is_judged_in_its_session() {
    let mut rig = Rig::start().await;
    rig.clickhouse.query(
        "INSERT INTO doseline.injections (tenant, site, device, boot_id, seq, at, time_source, session_id, preparation_id, \
         outcome) SELECT 'acme', 'paris', 'pen-1', 1, 1, now64(6) - toIntervalDay(5), 'DEVICE', 'a', 'p1', 'OK'",
    );
    rig.pass().await;
    assert_eq!(rig.open(), ["high sterility-1/acme/a/pen-1"], "the injection names no needle");
    rig.clickhouse.query(
        "INSERT INTO doseline.preparations (tenant, site, device, boot_id, seq, at, time_source, preparation_id, components, \
         expiry) SELECT 'acme', 'paris', 'bench-1', 1, 1, now64(6), 'RECEIVED', 'p1', 1, '2020-01-31'",
    );
    assert!(!rig.pass().await.whole, "a pass over everything shows nothing");
    assert!(rig.open().iter().any(|alert| alert.contains("sterility-6/")), "{:?}", rig.open());
}

/// A doubt about a boot's clock arrives in a batch that is not committed. The loader takes it back,
/// writes the batch again without it, and commits that.
#[tokio::test(flavor = "multi_thread")]
async fn a_doubt_that_is_not_committed_is_looked_at_again() {
    let mut rig = Rig::start().await;
    rig.clickhouse.query(
        "INSERT INTO doseline.mounts (tenant, site, device, boot_id, seq, at, time_source, event, slot, mount_id, item_id, \
         id_kind, expiry, session_id) VALUES ('acme', 'paris', 'pen-1', 1, 1, toDateTime64('2026-01-05 08:00:00', 6, 'UTC'), \
         'DEVICE', 'MOUNTED', 'NEEDLE', 'm-a', 'N1', 'SERIAL', '2025-12-31', 'a')",
    );
    rig.used_in("a", 0);
    rig.committed(0);
    let found = "SELECT state FROM doseline.sterility_breaches WHERE rule = 6";
    rig.pass().await;
    assert_eq!(rig.clickhouse.query(found), "CONFIRMED");
    rig.clickhouse.query(
        "INSERT INTO doseline.implausible_times (tenant, site, device, boot_id, seq, field, ingest_day, incarnation, \
         kafka_partition, batch) VALUES ('acme', 'paris', 'pen-1', 1, 2, 'base_unix_us', today(), 1, 0, 10)",
    );
    for _ in 0..2 {
        rig.pass().await;
        assert_eq!(rig.clickhouse.query(found), "INDETERMINATE", "the clock of the boot is in doubt");
    }
    rig.clickhouse.query("TRUNCATE TABLE doseline.implausible_times");
    rig.committed(10);
    assert!(!rig.pass().await.whole, "a pass over everything shows nothing");
    assert_eq!(rig.clickhouse.query(found), "CONFIRMED");
}
