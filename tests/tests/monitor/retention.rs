//! What is judged when facts are gone, and after a pass that failed.

use super::{Rig, sterility::Facts};

/// Tables that the monitor computes from facts.
const COMPUTED: [&str; 4] = ["sterility_verdicts", "alerts", "alert_history", "monitor_positions"];

/// Verdicts, alerts and assessments, without the times at which they were computed.
fn rows(rig: &Rig) -> [String; 3] {
    let assessments =
        "SELECT * EXCEPT (computed_at) FROM doseline.cycle_assessments FINAL ORDER BY tenant, device, cycle_uid";
    [rig.verdicts(), rig.alerts(), rig.clickhouse.query(assessments)]
}

/// Evaluates everything in two ways, and expects the same rows: by a monitor that starts over, and
/// by one that finds no earlier verdicts.
async fn evaluated_from_scratch(rig: &mut Rig) {
    let expected = rows(rig);
    rig.monitor.start_over();
    let summary = rig.pass().await;
    assert!(summary.whole && summary.verdicts == 0 && summary.alerts == 0, "{summary:?}");
    assert_eq!(rows(rig), expected);
    for table in COMPUTED {
        rig.clickhouse.query(&format!("TRUNCATE TABLE doseline.{table}"));
    }
    rig.monitor = Rig::monitor(&rig.warehouse).await;
    assert!(rig.pass().await.whole);
    assert_eq!(rows(rig), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn incremental_passes_and_one_from_scratch_give_the_same_rows_when_samples_are_gone() {
    let mut rig = Rig::start().await;
    let facts = Facts(&rig);
    facts.policies();
    facts.cycle("good", 1, 200, &["H1"]);
    facts.cycle("short", 2, 100, &["H2"]);
    facts.release("short", 3, "RELEASED");
    facts.handpiece("H1", "a", 4);
    facts.handpiece("H2", "b", 4);
    rig.pass().await;
    let verdicts = "SELECT cycle_uid, verdict, hold_ms, release FROM doseline.cycle_verdicts ORDER BY cycle_uid";
    assert_eq!(rig.clickhouse.query(verdicts), "good\tPASSED\t200000\t\nshort\tFAILED\t100000\tRELEASED");
    evaluated_from_scratch(&mut rig).await;

    // Samples are retained for a shorter time. The decision on a load arrives afterwards.
    rig.clickhouse.query("TRUNCATE TABLE doseline.sterilization_samples");
    Facts(&rig).release("good", 5, "RELEASED");
    assert!(!rig.pass().await.whole);
    let judged = "good\tPASSED\t200000\tRELEASED\nshort\tFAILED\t100000\tRELEASED";
    assert_eq!(rig.clickhouse.query(verdicts), judged);
    evaluated_from_scratch(&mut rig).await;

    // By another recipe a curve cannot be judged without its samples. The verdict states the limits
    // that it was judged by.
    Facts(&rig).insert(
        "recipes",
        "recipe, temperature_min_mc, temperature_max_mc, hold_ms, gap_max_ms, reference_mc, z_mk, valid_from",
        "('134C-3min', 134000, 137000, 240000, 15000, 121100, 10000, 0)",
    );
    assert!(rig.pass().await.whole);
    assert_eq!(rig.clickhouse.query(verdicts), judged);
    let limits = "SELECT DISTINCT JSONExtractInt(recipe, 'hold_ms') FROM doseline.cycle_verdicts";
    assert_eq!(rig.clickhouse.query(limits), "180000");
    evaluated_from_scratch(&mut rig).await;
}

/// A pass judges the sterilizers first, then the items of the cycles whose assessment changed.
#[tokio::test(flavor = "multi_thread")]
async fn a_pass_evaluates_the_items_that_a_failed_pass_did_not_reach() {
    let mut rig = Rig::start().await;
    let facts = Facts(&rig);
    facts.policies();
    facts.cycle("c1", 1, 200, &["H1"]);
    facts.release("c1", 2, "RELEASED");
    facts.handpiece("H1", "a", 3);
    rig.pass().await;
    assert_eq!(rig.open(), [""; 0]);
    Facts(&rig).biological("c1", 50, "POSITIVE");
    rig.clickhouse.query("RENAME TABLE doseline.mounts TO doseline.mounts_away");
    rig.monitor.pass(monitor::now_us()).await.expect_err("the mounts of the items cannot be read");
    rig.clickhouse.query("RENAME TABLE doseline.mounts_away TO doseline.mounts");
    rig.pass().await;
    let recalled = "SELECT sessions FROM doseline.open_alerts WHERE alert_key = 'sterility-9/acme/c1'";
    assert_eq!(rig.clickhouse.query(recalled), "['a']");
}
