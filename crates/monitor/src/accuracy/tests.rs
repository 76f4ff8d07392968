//! One device at a time: what its sums make of verdicts, charts and alerts.

use std::{
    collections::{BTreeSet, HashSet},
    sync::LazyLock,
};

use proptest::prelude::*;
use warehouse::{
    accuracy::{AccuracyVerdict, DriftState, Due, Incomplete, Model, SessionSum},
    states::{Channel, ChartState, Forecast, Side, ToleranceState},
};

use super::{
    conditions,
    pass::{Judged, changed, judge},
    rules::Rules,
    tolerance::Models,
};
use crate::limits::Limits;

fn models() -> Models {
    let model = Model {
        model: "pen".to_owned(),
        dose_resolution_nl: 100,
        dose_tolerance_ppm: 100_000,
        dose_bands_nl: vec![15_000, 50_000],
        ..Model::default()
    };
    [("pen".to_owned(), model)].into()
}

/// One session a day of 20 injections at 10,000 nl. Their errors scatter by 200 nl around
/// `error_nl`.
fn session(number: i64, error_nl: i64) -> SessionSum {
    SessionSum {
        tenant: "acme".to_owned(),
        device: "pen-1".to_owned(),
        channel: Channel::Dose,
        calibration_id: "c1".to_owned(),
        target: 10_000,
        session_id: format!("s{number:03}"),
        model: "pen".to_owned(),
        n: 20,
        error: 20 * error_nl,
        error_sq: 20 * (error_nl * error_nl + 200 * 200),
        targets: 200_000,
        first_at: number * 86_400_000_000,
        last_at: number * 86_400_000_000 + 1_200_000_000,
        ..SessionSum::default()
    }
}

/// Deviation of a session's mean, nl; deterministic.
fn scatter(number: i64) -> i64 {
    (number * 7_919 + number * number * 31).rem_euclid(101) - 50
}

fn rules() -> Rules {
    static RULES: LazyLock<Rules> = LazyLock::new(|| Rules::new(Limits::default()).unwrap());
    RULES.clone()
}

fn judged_with(sums: &[SessionSum], incomplete: &[Incomplete]) -> Judged {
    judge(&sums.iter().collect::<Vec<_>>(), &incomplete.iter().collect::<Vec<_>>(), &models(), &mut rules())
}

fn judged(sums: &[SessionSum]) -> Judged {
    judged_with(sums, &[])
}

fn alerts(sums: &[SessionSum], dues: &[Due]) -> Vec<String> {
    let (verdicts, charts) = judged(sums);
    let sums: Vec<_> = sums.iter().collect();
    let found = conditions::of_device(&verdicts, &charts, &sums, &dues.iter().collect::<Vec<_>>(), &Limits::default());
    found.into_iter().map(|condition| format!("{} {}", condition.severity, condition.alert_key)).collect()
}

fn series(sessions: i64, error_nl: impl Fn(i64) -> i64) -> Vec<SessionSum> {
    (1..=sessions).map(|number| session(number, scatter(number) + error_nl(number))).collect()
}

/// A pass clears open alerts of the listed kinds only. An alert of a kind that is in neither list
/// would stay open for ever.
#[test]
fn every_kind_that_is_raised_is_in_a_list_that_clears_it() {
    let source: String = include_str!("conditions.rs").split_whitespace().collect();
    let named = |call: &str| -> BTreeSet<String> {
        source.split(call).skip(1).filter_map(|rest| rest.split('"').next()).map(str::to_owned).collect()
    };
    let listed = |kinds: &[&str]| -> BTreeSet<String> { kinds.iter().map(|kind| (*kind).to_owned()).collect() };
    let of_devices: BTreeSet<String> = named("base(\"").union(&named("charted(\"")).cloned().collect();
    assert_eq!(of_devices, listed(&conditions::OF_DEVICES));
    assert_eq!(named("condition(\""), listed(&conditions::OF_SESSIONS));
}

#[test]
fn a_healthy_device_raises_nothing() {
    let (verdicts, charts) = judged(&series(80, |_| 60));
    assert_eq!((verdicts.len(), verdicts[0].state, verdicts[0].sessions), (1, ToleranceState::Pass, 80));
    assert_eq!((charts.len(), charts[0].state, charts[0].band), (1, ChartState::InControl, 15_000));
    assert_eq!(alerts(&series(80, |_| 60), &[]), [""; 0]);
}

#[test]
fn a_drifting_device_is_forecast_and_then_fails() {
    let ramp = |number: i64| 8 * (number - 30).max(0);
    let (_, charts) = judged(&series(70, ramp));
    assert_eq!((charts[0].state, charts[0].side), (ChartState::Drift, Side::Upper));
    assert!(charts[0].signal_session.as_str() > "s030", "{}", charts[0].signal_session);
    assert_eq!(charts[0].forecast, Forecast::Crossing);
    let early = alerts(&series(70, ramp), &[]);
    assert!(early.contains(&"medium drift/acme/pen-1/dose/15000".to_owned()), "{early:?}");
    let late = alerts(&series(160, ramp), &[]);
    assert!(late.contains(&"high accuracy-verdict/acme/pen-1/dose/10000".to_owned()), "{late:?}");
    // A new calibration starts a new chart. The verdict on the old one stays readable.
    let mut calibrated = series(160, ramp);
    calibrated.push(SessionSum { calibration_id: "c2".to_owned(), ..session(161, 0) });
    assert_eq!(alerts(&calibrated, &[]), [""; 0]);
    assert!(judged(&calibrated).0.iter().any(|verdict| verdict.state == ToleranceState::Fail && !verdict.current));
}

#[test]
fn one_session_far_from_its_target_is_a_spike() {
    let found = alerts(&series(60, |number| if number == 50 { 1_500 } else { 0 }), &[]);
    assert!(found.contains(&"high spike/acme/pen-1/dose/15000/c1".to_owned()), "{found:?}");
}

#[test]
fn missing_injections_are_named_by_the_verdicts_and_charts_of_their_time() {
    let lacking = |number: i64, known: u64, at_least: bool| Incomplete {
        received: 20,
        known,
        at_least,
        first_at: number * 86_400_000_000,
        last_at: number * 86_400_000_000 + 1,
        ..Incomplete::default()
    };
    let mut sums = series(30, |_| 0);
    sums.extend((31..=40).map(|number| SessionSum { calibration_id: "c2".to_owned(), ..session(number, 0) }));
    let said = |incomplete: &[Incomplete]| {
        let (verdicts, charts) = judged_with(&sums, incomplete);
        let of_charts: Vec<_> = charts.into_iter().map(|chart| chart.completeness).collect();
        let of_verdicts: Vec<_> = verdicts.into_iter().map(|verdict| verdict.completeness).collect();
        assert_eq!(of_charts, of_verdicts);
        of_verdicts
    };
    assert_eq!(said(&[]), ["", ""]);
    let missing = "3 of 23 injections are missing, in 1 session";
    assert_eq!(said(&[lacking(5, 23, false)]), [missing, ""]);
    // The end of a session can arrive alone; that session is later than the last known one.
    assert_eq!(said(&[lacking(41, 23, false)]), ["", missing]);
    assert_eq!(
        said(&[lacking(0, 99, true), lacking(1, 21, true), lacking(9, 30, false)]),
        ["at least 11 of 51 injections are missing, in 2 sessions", ""]
    );
}

#[test]
fn western_electric_rules_are_recorded_and_raise_nothing() {
    let (_, charts) = judged(&series(60, |number| if number > 52 { 30 - scatter(number) } else { 0 }));
    assert_eq!((charts[0].state, &charts[0].western_electric[..]), (ChartState::InControl, &[4][..]));
    assert_eq!(judged(&series(60, |_| 0)).1[0].western_electric, [0; 0]);
}

#[test]
fn limits_decide_what_fails_and_when_drift_alarms() {
    let mut strict = Rules::new(Limits { sessions_min: 60, forecast_days: 1, ..Limits::default() }).unwrap();
    let (series, models) = (series(50, |number| 150 + 14 * number), models());
    let sums: Vec<_> = series.iter().collect();
    let states = |rows: Judged| (rows.0[0].state, rows.1[0].alarm);
    assert_eq!(states(judge(&sums, &[], &models, &mut rules())), (ToleranceState::Fail, true));
    assert_eq!(states(judge(&sums, &[], &models, &mut strict)), (ToleranceState::Undecided, false));
}

#[test]
fn few_sessions_or_an_unregistered_model_give_no_decision() {
    assert_eq!(judged(&series(3, |_| 900)).0[0].state, ToleranceState::Undecided);
    let unknown: Vec<_> =
        series(30, |_| 5_000).into_iter().map(|sum| SessionSum { model: "x".to_owned(), ..sum }).collect();
    let (verdicts, charts) = judged(&unknown);
    assert_eq!((verdicts[0].state, verdicts[0].limit_low), (ToleranceState::Undecided, None));
    assert!(verdicts[0].reason.contains("no tolerance is registered"), "{}", verdicts[0].reason);
    assert_eq!((charts[0].band, charts[0].forecast), (0, Forecast::NoTolerance));
    assert!(judged(&[session(1, 0)]).1[0].state == ChartState::Learning);
}

#[test]
fn use_after_the_due_date_names_the_sessions() {
    let due = Due {
        tenant: "acme".to_owned(),
        device: "pen-1".to_owned(),
        channel: Channel::Dose,
        calibration_id: "c1".to_owned(),
        due_at: 11 * 86_400_000_000,
    };
    assert_eq!(alerts(&series(12, |_| 0), std::slice::from_ref(&due)), ["high calibration-overdue/acme/pen-1/dose/c1"]);
    assert_eq!(alerts(&series(10, |_| 0), &[due]), [""; 0]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn the_order_and_the_grouping_of_the_sums_do_not_matter(
        errors in prop::collection::vec(-400i64..400, 2..50),
        seed in any::<u64>(),
    ) {
        let sums: Vec<_> = errors.iter().enumerate().map(|(number, error)| session(number as i64, *error)).collect();
        let expected = judged(&sums);
        let mut parts = Vec::new();
        for (number, sum) in sums.iter().enumerate() {
            // A session in two parts of which the second comes from another site.
            let share = 1 + ((seed >> (number % 60)) % 18) as i64;
            let part = |n: i64| SessionSum { n, targets: n * 10_000, error: n * errors[number],
                error_sq: n * (errors[number].pow(2) + 40_000), ..sum.clone() };
            parts.push(part(share));
            parts.insert(parts.len() / 2, part(20 - share));
        }
        parts.sort_by_key(|sum| (sum.n.wrapping_mul(seed as i64 | 1), sum.first_at));
        prop_assert_eq!(judged(&parts), expected);
    }
}

#[test]
fn an_unchanged_row_is_not_written_again() {
    let rows = judged(&series(12, |_| 0));
    let known = (
        rows.0.iter().map(|row| AccuracyVerdict { computed_at: 5, ..row.clone() }).collect(),
        rows.1.iter().map(|row| DriftState { computed_at: 5, ..row.clone() }).collect(),
    );
    let all = HashSet::from([("acme".to_owned(), "pen-1".to_owned())]);
    assert_eq!(changed(rows.clone(), known, &all, 9), Judged::default());
    let gone = changed(Judged::default(), rows, &all, 9);
    assert!(gone.0.iter().all(|row| row.state == ToleranceState::Cleared && row.computed_at == 9) && gone.1.len() == 1);
}
