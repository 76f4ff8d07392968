//! Alerts about devices and sessions that one query can find. Each has a scenario that raises it,
//! and near misses that do not.

use super::Rig;

fn insert(rig: &Rig, table: &str, columns: &str, values: &str) {
    rig.clickhouse.query(&format!("INSERT INTO doseline.{table} ({columns}) VALUES {values}"));
}

/// Inserts status messages, as (device, state, age in minutes).
fn told(rig: &Rig, statuses: &[(&str, &str, u32)]) {
    let row = |(device, state, ago): &(&str, &str, u32)| {
        format!(
            "('acme', 'paris', '{device}', 1, now64(6) - toIntervalMinute({ago}), 'STATUS', '{state}', \
             now64(6) - toIntervalMinute({ago}), today())"
        )
    };
    let rows: Vec<_> = statuses.iter().map(row).collect();
    let columns = "tenant, site, device, boot_id, received_at, source, state, since, ingest_day";
    insert(rig, "device_status", columns, &rows.join(","));
}

/// Inserts starts and ends of sessions, as (device, event, age in minutes).
fn visited(rig: &Rig, events: &[(&str, &str, u32)]) {
    let row = |(device, event, ago): &(&str, &str, u32)| {
        format!(
            "('acme', 'paris', '{device}', 1, {ago}, now64(6) - toIntervalMinute({ago}), 'v-{device}', '{event}', today())"
        )
    };
    let rows: Vec<_> = events.iter().map(row).collect();
    let columns = "tenant, site, device, boot_id, seq, at, session_id, event, ingest_day";
    insert(rig, "sessions", columns, &rows.join(","));
}

/// The open alerts of a kind, as severity and key. It also checks that the query of each one's
/// evidence works.
async fn open(rig: &mut Rig, kind: &str) -> Vec<String> {
    // The fleet is only checked every few seconds, but a pass over everything checks it at once.
    rig.monitor.start_over();
    rig.pass().await;
    let sql = format!("SELECT evidence_query FROM doseline.open_alerts WHERE kind = '{kind}'");
    for row in rig.clickhouse.rows(&sql) {
        let query = row["evidence_query"].as_str().expect("SQL");
        rig.warehouse.command(query).await.unwrap_or_else(|error| panic!("{error}\nin {query}"));
    }
    let sql = format!("SELECT severity, alert_key FROM doseline.open_alerts WHERE kind = '{kind}' ORDER BY alert_key");
    rig.clickhouse.query(&sql).lines().map(|line| line.replace('\t', " ")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_is_lost_only_while_a_visit_is_open() {
    let mut rig = Rig::start().await;
    visited(&rig, &[("lost", "STARTED", 30), ("ended", "STARTED", 30), ("ended", "ENDED", 20)]);
    visited(&rig, &[("online", "STARTED", 30), ("before", "STARTED", 5), ("back", "STARTED", 30)]);
    told(&rig, &[("lost", "ONLINE", 40), ("lost", "LOST", 10), ("ended", "LOST", 10), ("online", "ONLINE", 10)]);
    told(&rig, &[("before", "LOST", 10), ("back", "LOST", 10), ("back", "ONLINE", 2), ("idle", "LOST", 10)]);
    assert_eq!(open(&mut rig, "device-lost").await, ["medium device-lost/acme/lost"]);
    let visit = "SELECT sessions FROM doseline.open_alerts WHERE kind = 'device-lost'";
    assert_eq!(rig.clickhouse.query(visit), "['v-lost']");
    told(&rig, &[("lost", "ONLINE", 0)]);
    assert_eq!(open(&mut rig, "device-lost").await, [""; 0], "it is back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_is_silent_after_more_than_seven_open_days() {
    let mut rig = Rig::start().await;
    let day = 1_440;
    // Twelve days contain at least eight days from Monday to Friday, and eight days at most six.
    told(&rig, &[("silent", "ONLINE", 12 * day), ("quiet", "ONLINE", 8 * day), ("off", "OFF", 40 * day)]);
    // The broker sends a last will, so it does not count as a message of the device.
    told(&rig, &[("silent", "LOST", day), ("bench", "ONLINE", 40 * day)]);
    insert(&rig, "devices", "tenant, device, site, kind", "('acme', 'bench', 'paris', 'BENCH')");
    assert_eq!(open(&mut rig, "device-silent").await, ["medium device-silent/acme/silent"]);

    // A site that is open every day makes eight days too many, unless it was closed on two of them.
    let columns = "tenant, site, open_days, closed_dates";
    insert(&rig, "sites", columns, "('acme', 'paris', [1, 2, 3, 4, 5, 6, 7], [])");
    let both = ["medium device-silent/acme/quiet", "medium device-silent/acme/silent"];
    assert_eq!(open(&mut rig, "device-silent").await, both);
    insert(
        &rig,
        "sites",
        &format!("{columns}, recorded_at"),
        "('acme', 'paris', [1, 2, 3, 4, 5, 6, 7], [today() - 2, today() - 3], now64(6))",
    );
    assert_eq!(open(&mut rig, "device-silent").await, both[1..]);
    told(&rig, &[("silent", "ONLINE", 0)]);
    assert_eq!(open(&mut rig, "device-silent").await, [""; 0], "it is heard");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_allergy_test_is_asked_for_where_the_tenant_s_policy_says_so() {
    let mut rig = Rig::start().await;
    let began = "toDateTime64('2026-01-05 08:00:00', 6, 'UTC')";
    let start = |tenant: &str, session: &str, result: &str, hours_before: u32, formula: &str| {
        format!(
            "('{tenant}', 'paris', 'pen-1', 1, {began}, '{session}', 'STARTED', '{result}', \
             {began} - toIntervalHour({hours_before}), '{formula}')"
        )
    };
    let visits = [
        start("acme", "fine", "NEGATIVE", 24, "f1"),
        start("acme", "early", "NEGATIVE", 23, "f1"),
        start("acme", "none", "NOT_DONE", 48, ""),
        start("acme", "unsaid", "", 48, ""),
        start("acme", "positive", "POSITIVE", 48, "f1"),
        start("acme", "other-formula", "NEGATIVE", 48, "f2"),
        start("acme", "no-mixture", "NEGATIVE", 48, "f2"),
        start("free", "none", "NOT_DONE", 48, ""),
    ];
    let columns =
        "tenant, site, device, boot_id, at, session_id, event, allergy_result, allergy_at, allergy_formula_id";
    insert(&rig, "sessions", columns, &visits.join(","));
    let mixtures: Vec<_> = ["fine", "early", "positive", "other-formula"]
        .iter()
        .map(|session| format!("('acme', 'paris', 'pen-1', 1, {began}, '{session}', 'p-{session}', 'f1')"))
        .collect();
    let columns = "tenant, site, device, boot_id, at, session_id, preparation_id, formula_id";
    insert(&rig, "preparations", columns, &mixtures.join(","));
    assert_eq!(open(&mut rig, "session-allergy").await, [""; 0], "no policy asks for it");
    insert(&rig, "policies", "tenant, name, value", "('acme', 'session.allergy', 'required')");
    let keys = ["early", "none", "other-formula", "positive", "unsaid"]
        .map(|session| format!("medium session-allergy/acme/pen-1/{session}"));
    assert_eq!(open(&mut rig, "session-allergy").await, keys);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_is_told_of_by_the_last_injection() {
    let mut rig = Rig::start().await;
    let shot = |device: &str, clock: &str, ago: u32| {
        format!("('acme', 'paris', '{device}', 1, {ago}, now64(6) - toIntervalMinute({ago}), '{clock}', today())")
    };
    let shots = [
        shot("wrong", "SYNCED", 9),
        shot("wrong", "UNSYNCED", 5),
        shot("right", "UNSYNCED", 9),
        shot("right", "SYNCED", 5),
        shot("unknown", "UNKNOWN", 5),
    ];
    let columns = "tenant, site, device, boot_id, seq, received_at, clock, ingest_day";
    insert(&rig, "injections", columns, &shots.join(","));
    assert_eq!(open(&mut rig, "clock").await, ["low clock/acme/wrong"]);
    insert(&rig, "injections", columns, &shot("wrong", "SYNCED", 1));
    assert_eq!(open(&mut rig, "clock").await, [""; 0], "it is synchronised");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_is_told_of_when_it_is_older_than_five_minutes_and_not_declared_lost() {
    let mut rig = Rig::start().await;
    // Events 1 to 4 and 6 to 9 have arrived.
    let ledger = |device: &str, batch: u32, lost: &str, last: &str, ago: u32| {
        format!(
            "('ledger', 1, 0, {batch}, {batch} + 1, 'acme', 'paris', '{device}', 1, [1, {last}], [4, 9], {lost}, {lost}, \
             now64(6) - toIntervalMinute({ago}))"
        )
    };
    let columns = "kind, incarnation, kafka_partition, batch, batch_end, tenant, site, device, boot_id, stored_first, \
                   stored_last, lost_first, lost_last, last_arrival";
    let ledgers = [
        ledger("gap", 1, "[]", "6", 7),
        ledger("young", 2, "[]", "6", 3),
        ledger("declared", 3, "[5]", "6", 7),
        ledger("whole", 4, "[]", "5", 7),
    ];
    insert(&rig, "loader_commits", columns, &ledgers.join(","));
    assert_eq!(open(&mut rig, "sequence-gap").await, ["low sequence-gap/acme/gap"]);
    insert(&rig, "loader_commits", columns, &ledger("gap", 5, "[]", "5", 0));
    assert_eq!(open(&mut rig, "sequence-gap").await, [""; 0], "it has arrived");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_contents_under_one_sequence_number_are_told_of_by_device() {
    let mut rig = Rig::start().await;
    let row = |device: &str, reason: &str, seq: u32| {
        format!("('acme', 'paris', '{device}', '{reason}', 'check', 1, {seq}, now64(6), today())")
    };
    let rows = [row("cloned", "conflict", 1), row("cloned", "conflict", 2), row("other", "implausible", 1)];
    let columns = "tenant, site, device, reason, source, boot_id, seq, received_at, ingest_day";
    insert(&rig, "quarantine", columns, &rows.join(","));
    assert_eq!(open(&mut rig, "sequence-conflict").await, ["high sequence-conflict/acme/cloned"]);
}
