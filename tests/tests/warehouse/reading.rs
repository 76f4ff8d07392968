//! The views that people read, over rows that the tests insert.

use harness::ClickHouse;

use super::migrated;

fn check(clickhouse: &ClickHouse, sql: &str, expected: &str) {
    assert_eq!(clickhouse.query(sql), expected, "{sql}");
}

#[tokio::test(flavor = "multi_thread")]
async fn accuracy_is_computed_from_exact_sums() {
    let clickhouse = ClickHouse::start();
    migrated(&clickhouse).await;
    // Errors 10, -10 and 40 of a target of 1000, in two sessions and three batches; one injection
    // without a measured dose; and sums so large that n * sum of squares exceeds 64 bits.
    clickhouse.query(
        "INSERT INTO doseline.accuracy_session (tenant, device, session_id, dose_calibration_id, target_nl, injections, \
         dose_n, dose_target_nl, dose_delivered_nl, dose_error_nl, dose_error_sq, dose_error_min, dose_error_max) VALUES \
         ('acme', 'pen-1', 'a', 'c1', 1000, 1, 1, 1000, 1010, 10, 100, 10, 10), \
         ('acme', 'pen-1', 'a', 'c1', 1000, 2, 1, 1000, 990, -10, 100, -10, -10), \
         ('acme', 'pen-1', 'b', 'c1', 1000, 1, 1, 1000, 1040, 40, 1600, 40, 40), \
         ('acme', 'pen-1', 'b', 'c1', NULL, 1, 0, 0, 0, 0, 0, NULL, NULL), \
         ('acme', 'pen-1', 'b', 'c1', 0, 1, 1, 0, 5, 5, 25, 5, 5), \
         ('acme', 'pen-2', 'a', '', 2000000, 4000000, 4000000, 8000000000000, 0, -8000000000000, 16000000000000000000, \
         -2000000, -2000000)",
    );
    let sql = "SELECT device, target_nl, sessions, n, round(mean_error, 6), round(sd_error, 6), round(error_pct, 6), \
               least_error, greatest_error, sum_error, sum_error_sq FROM doseline.dose_accuracy ORDER BY device, target_nl";
    let expected = "pen-1\t0\t1\t1\t5\t\\N\t\\N\t5\t5\t5\t25\n\
                    pen-1\t1000\t2\t3\t13.333333\t25.166115\t1.333333\t-10\t40\t40\t1800\n\
                    pen-2\t2000000\t1\t4000000\t-2000000\t0\t-100\t-2000000\t-2000000\t-8000000000000\t16000000000000000000";
    check(&clickhouse, sql, expected);
    check(&clickhouse, "SELECT count() FROM doseline.depth_accuracy", "0");

    // Injections that the device reports as failed do not count for accuracy.
    clickhouse.query(
        "INSERT INTO doseline.accuracy_session (tenant, device, session_id, target_nl, target_um, outcome, injections, ok, aborted, \
         dose_n, dose_error_nl, depth_n, depth_error_um) VALUES \
         ('acme', 'pen-3', 'a', 1000, 3000, 'OK', 2, 2, 0, 2, 20, 2, 200), \
         ('acme', 'pen-3', 'a', 1000, 3000, '', 1, 0, 0, 1, 10, 1, 100), \
         ('acme', 'pen-3', 'a', 1000, 3000, 'ABORTED', 1, 0, 1, 1, -900, 1, -2900)",
    );
    for (view, mean) in [("dose_accuracy", "10"), ("depth_accuracy", "100")] {
        let sql = format!("SELECT n, sessions, mean_error FROM doseline.{view} WHERE device = 'pen-3'");
        check(&clickhouse, &sql, &format!("3\t1\t{mean}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn visits_courses_and_syringes_are_reported() {
    let clickhouse = ClickHouse::start();
    migrated(&clickhouse).await;
    clickhouse.query(
        "INSERT INTO doseline.sessions (tenant, site, device, seq, at, session_id, event, course_id, course_index, \
         course_planned, interval_days, client_ref, shots, delivered_nl) VALUES \
         ('acme', 'paris', 'pen-1', 1, '2026-01-01 10:00:00', 'v1', 'STARTED', 'k', 1, 4, 14, 'ref', NULL, NULL), \
         ('acme', 'paris', 'pen-1', 9, '2026-01-01 10:30:00', 'v1', 'ENDED', '', NULL, NULL, NULL, '', 3, 3000), \
         ('acme', 'paris', 'pen-1', 1, '2026-01-15 10:00:00', 'v2', 'STARTED', 'k', 2, 4, 14, 'ref', NULL, NULL)",
    );
    clickhouse.query(
        "INSERT INTO doseline.accuracy_session (tenant, site, device, session_id, injections, ok, aborted, dose_n, \
         dose_target_nl, dose_delivered_nl, dose_error_nl, first_at, last_at) VALUES \
         ('acme', 'paris', 'pen-1', 'v1', 2, 2, 0, 2, 2000, 1900, -100, '2026-01-01 10:01:00', '2026-01-01 10:02:00'), \
         ('acme', 'paris', 'pen-2', 'v1', 1, 0, 1, 0, 0, 0, 0, '2026-01-01 10:03:00', '2026-01-01 10:03:00')",
    );
    let report = "SELECT session_id, arraySort(devices), started_at, ended_at, first_injection_at, course_index, injections, \
                  injections_declared, complete, ok, aborted, dose_error_pct, delivered_declared_nl, depth_mean_error_um \
                  FROM doseline.session_report ORDER BY session_id";
    let expected = "v1\t['pen-1','pen-2']\t2026-01-01 10:00:00.000000\t2026-01-01 10:30:00.000000\t\
                    2026-01-01 10:01:00.000000\t1\t3\t3\t1\t2\t1\t-5\t3000\t\\N\n\
                    v2\t['pen-1']\t2026-01-15 10:00:00.000000\t\\N\t\\N\t2\t0\t\\N\t\\N\t0\t0\t\\N\t\\N\t\\N";
    check(&clickhouse, report, expected);
    let course = "SELECT course_id, sessions, last_index, planned, next_due FROM doseline.course_progress";
    check(&clickhouse, course, "k\t2\t2\t4\t2026-01-29 10:00:00.000000");

    clickhouse.query(
        "INSERT INTO doseline.mounts (tenant, device, at, event, slot, mount_id, item_id, fill_nl, volume_nl, residual_nl, \
         residual_source) VALUES \
         ('acme', 'pen-1', '2026-01-01 10:00:00', 'MOUNTED', 'SYRINGE', 'm1', 's1', 10000, NULL, NULL, ''), \
         ('acme', 'pen-1', '2026-01-01 10:00:10', 'PRIMED', '', 'm1', '', NULL, 500, NULL, ''), \
         ('acme', 'pen-1', '2026-01-01 10:30:00', 'REMOVED', '', 'm1', '', NULL, NULL, 2500, 'SCALE'), \
         ('acme', 'pen-1', '2026-01-02 10:00:00', 'MOUNTED', 'SYRINGE', 'm2', 's2', 10000, NULL, NULL, ''), \
         ('acme', 'pen-1', '2026-01-01 10:00:00', 'MOUNTED', 'NEEDLE', 'm3', 'n1', NULL, NULL, NULL, '')",
    );
    clickhouse.query(
        "INSERT INTO doseline.item_uses (tenant, device, session_id, slot, mount_id, item_id, injections, delivered_nl, \
         delivered_n, punctures, first_at) VALUES \
         ('acme', 'pen-1', 'v1', 'SYRINGE', 'm1', '', 3, 4000, 3, 3, '2026-01-01 10:01:00'), \
         ('acme', 'pen-1', 'v1', 'SYRINGE', 'm1', '', 2, 2650, 2, 2, '2026-01-01 10:05:00'), \
         ('acme', 'pen-1', 'v1', 'NEEDLE', 'm3', 'n1', 5, 0, 0, 25, '2026-01-01 10:01:00')",
    );
    let balance = "SELECT mount_id, item_id, fill_nl, primed_nl, residual_nl, residual_source, injections, delivered_nl, \
                   balance_nl, round(balance_pct, 6) FROM doseline.mass_balance ORDER BY mount_id";
    check(
        &clickhouse,
        balance,
        "m1\ts1\t10000\t500\t2500\tSCALE\t5\t6650\t350\t5\nm2\ts2\t10000\t0\t\\N\t\t0\t0\t\\N\t\\N",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn items_cycles_and_calibrations_are_followed() {
    let clickhouse = ClickHouse::start();
    migrated(&clickhouse).await;
    clickhouse.query(
        "INSERT INTO doseline.mounts (tenant, device, at, event, slot, mount_id, item_id, pack_id, rinse_water) VALUES \
         ('acme', 'pen-1', '2026-01-01 10:00:00', 'MOUNTED', 'NEEDLE', 'm1', 'n1', 'p1', ''), \
         ('acme', 'pen-1', '2026-01-01 11:00:00', 'REMOVED', '', 'm1', '', '', ''), \
         ('acme', 'washer', '2026-01-01 12:00:00', 'REPROCESSED', '', '', 'n1', '', 'TAP'), \
         ('acme', 'pen-2', '2026-01-01 10:00:00', 'MOUNTED', 'NEEDLE', 'm1', 'n2', '', '')",
    );
    clickhouse.query(
        "INSERT INTO doseline.item_uses (tenant, device, session_id, slot, mount_id, item_id, injections, punctures, \
         first_at) VALUES ('acme', 'pen-1', 'v1', 'NEEDLE', 'm1', '', 5, 25, '2026-01-01 10:30:00'), \
         ('acme', 'pen-1', 'v1', 'NEEDLE', 'm1', '', 1, 5, '2026-01-01 10:20:00')",
    );
    clickhouse.query(
        "INSERT INTO doseline.sterilization_items (tenant, device, boot_id, seq, at, cycle_uid, item_id, pack_id) VALUES \
         ('acme', 'steri-1', 1, 1, '2026-01-01 13:00:00', 'c1', 'n1', 'p2')",
    );
    let history = "SELECT event, device, session_id, cycle_uid, injections, punctures, pack_id, rinse_water \
                   FROM doseline.item_history WHERE tenant = 'acme' AND item_id = 'n1' ORDER BY at";
    let expected = "MOUNTED\tpen-1\t\t\t0\t0\tp1\t\nUSED\tpen-1\tv1\t\t6\t30\t\t\nREMOVED\tpen-1\t\t\t0\t0\t\t\n\
                    REPROCESSED\twasher\t\t\t0\t0\t\tTAP\nSTERILIZED\tsteri-1\t\tc1\t0\t0\tp2\t";
    check(&clickhouse, history, expected);

    clickhouse.query(
        "INSERT INTO doseline.sterilization_cycles (tenant, device, boot_id, seq, at, cycle_uid, cycle_no, recipe, purpose, \
         load_dry, items, samples) VALUES \
         ('acme', 'steri-1', 1, 1, '2026-01-01 13:00:00', 'c1', 7, '134C', 'LOAD', true, 1, 2), \
         ('acme', 'steri-1', 1, 2, '2026-01-01 15:00:00', 'c2', 8, '', 'LEAK', NULL, 0, 0)",
    );
    clickhouse.query(
        "INSERT INTO doseline.sterilization_samples (tenant, device, boot_id, seq, index, cycle_uid, offset_ms, \
         temperature_mc, pressure_pa) VALUES ('acme', 'steri-1', 1, 1, 0, 'c1', 0, 20000, NULL), \
         ('acme', 'steri-1', 1, 1, 1, 'c1', 60000, 134500, 310000)",
    );
    clickhouse.query(
        "INSERT INTO doseline.cycle_indicators (tenant, device, seq, cycle_uid, kind, result) VALUES \
         ('acme', 'steri-1', 3, 'c1', 'CHEMICAL', 'NEGATIVE'), ('acme', 'steri-1', 4, 'c1', 'BIOLOGICAL', 'POSITIVE')",
    );
    clickhouse.query(
        "INSERT INTO doseline.cycle_releases (tenant, device, seq, cycle_uid, decision, actor, decided_at) VALUES \
         ('acme', 'steri-1', 5, 'c1', 'RELEASED', 'anna', '2026-01-02 08:00:00'), \
         ('acme', 'steri-1', 6, 'c1', 'REJECTED', 'bert', '2026-01-03 08:00:00')",
    );
    let cycles = "SELECT cycle_uid, cycle_no, recipe, load_dry, duration_ms, temperature_max_mc, pressure_max_pa, \
                  indicators_negative, indicators_positive, decision, decided_by FROM doseline.sterilizer_cycles \
                  ORDER BY cycle_uid";
    let expected = "c1\t7\t134C\ttrue\t60000\t134500\t310000\t1\t1\tREJECTED\tbert\n\
                    c2\t8\t\t\\N\t\\N\t\\N\t\\N\t0\t0\t\t";
    check(&clickhouse, cycles, expected);

    clickhouse.query(
        "INSERT INTO doseline.calibrations (tenant, device, seq, at, subject_device, channel, calibration_id, performed_at, \
         due_at) VALUES \
         ('acme', 'bench', 1, now64(6), 'pen-1', 'DOSE', 'old', now() - toIntervalDay(400), now() - toIntervalDay(35)), \
         ('acme', 'bench', 2, now64(6), 'pen-1', 'DOSE', 'new', now() - toIntervalDay(100), now() + toIntervalDay(200)), \
         ('acme', 'bench', 3, now64(6), 'pen-2', 'DOSE', 'c3', now() - toIntervalDay(400), now() - toIntervalDay(35)), \
         ('acme', 'bench', 4, now64(6), 'pen-2', 'DEPTH', 'c4', now() - toIntervalDay(300), now() + toIntervalDay(20))",
    );
    clickhouse.query(
        "INSERT INTO doseline.devices (tenant, site, device, kind, origin) VALUES \
         ('acme', 'paris', 'pen-1', 'INJECTOR', 'IMPORTED'), ('acme', 'paris', 'bench', 'BENCH', 'IMPORTED')",
    );
    let due = "SELECT device, channel, calibration_id, state FROM doseline.calibrations_due ORDER BY device, channel";
    let expected = "pen-1\tDEPTH\t\tNEVER\npen-1\tDOSE\tnew\tOK\npen-2\tDEPTH\tc4\tDUE\npen-2\tDOSE\tc3\tOVERDUE";
    check(&clickhouse, due, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_latest_word_is_read_without_reading_every_heartbeat() {
    let clickhouse = ClickHouse::start();
    migrated(&clickhouse).await;
    for day in [1, 2] {
        clickhouse.query(&format!(
            "INSERT INTO doseline.device_status (tenant, site, device, boot_id, received_at, source, state, battery_pct, \
             injection_no, last_boot_id, last_seq, ingest_day) \
             SELECT 'acme', 'paris', concat('pen-', toString(number % 10)), 7, \
             toDateTime64('2026-01-0{day} 10:00:00', 6, 'UTC') + number, 'HEARTBEAT', if(number < 10, 'ONLINE', ''), \
             90 - number % 50, 100 * {day} + intDiv(number, 10), 7, 10 * {day} + intDiv(number, 500), '2026-01-0{day}' \
             FROM numbers(1000)"
        ));
    }
    for (view, expected) in [
        ("fleet", [true, true, false]),
        ("delivery_state", [false, true, false]),
        ("delivery_gaps", [false, true, true]),
        ("injection_completeness", [true, false, false]),
    ] {
        for sql in
            [format!("SELECT * FROM doseline.{view}"), format!("SELECT * FROM doseline.{view} WHERE tenant = 'acme'")]
        {
            let plan = clickhouse.query(&format!("EXPLAIN {sql}"));
            let reads = |from: &str| plan.contains(&format!("ReadFromMergeTree ({from})"));
            assert_eq!(["latest", "boots", "said"].map(reads), expected, "{sql}");
            assert!(!reads("doseline.device_status"), "{sql}");
        }
    }
    let fleet = "SELECT device, state, battery_pct, injection_no, last_seen, missing_events FROM doseline.fleet WHERE device = 'pen-3'";
    check(&clickhouse, fleet, "pen-3\tONLINE\t47\t299\t2026-01-02 10:16:33.000000\t21");
    let gaps = "SELECT first_missing, last_missing, since FROM doseline.delivery_gaps WHERE device = 'pen-3'";
    check(&clickhouse, gaps, "1\t21\t2026-01-01 10:00:03.000000");

    // Deleted messages have no effect any more.
    clickhouse
        .query("ALTER TABLE doseline.device_status DELETE WHERE ingest_day = '2026-01-02' SETTINGS mutations_sync = 2");
    check(&clickhouse, fleet, "pen-3\tONLINE\t47\t199\t2026-01-01 10:16:33.000000\t11");
}
