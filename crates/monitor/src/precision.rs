//! The half of the monitor that judges accuracy, drift and devices: one pass, which devices and
//! visits a change concerns, what is known of them, what becomes of verdicts and alerts.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde::{Deserialize, Serialize};
use warehouse::{
    Error, Warehouse,
    accuracy::{AccuracyVerdict, DEVICE, DriftState, Due, Incomplete, SessionSum},
    changes::News,
    devices::FLEET,
    sterility::{Horizon, Scope},
};

use crate::{
    accuracy::{self, Models, RULE_VERSION},
    alert::Condition,
    conditions::{self, OF_DEVICES, OF_VISITS},
    drift,
    limits::Rules,
    reader::{CHANGED_MAX, Reader, SLICE_ROWS, Units, chunks},
    settlement,
    sterility::pass::Summary,
};

/// What is known of one device.
#[derive(Default)]
struct Facts<'a> {
    sums: Vec<&'a SessionSum>,
    gaps: Vec<&'a Incomplete>,
    dues: Vec<&'a Due>,
}

/// Name of this half in `monitor_positions`.
const READER: &str = "accuracy";
/// Facts that are looked at for changes.
const FACTS: [&str; 4] = ["accuracy_session", "injections", "sessions", "calibrations"];
/// SQL of the device whose visit has ended: how many injections there were is known then.
const ENDED: &str = "if(event = 'ENDED', concat(tenant, '/', device), '')";
/// SQL of the device that was calibrated.
const CALIBRATED: &str = "concat(tenant, '/', subject_device)";
/// Between two looks at the whole fleet, us.
const FLEET_US: i64 = 8_000_000;

/// `TENANT/DEVICE` and `TENANT/DEVICE/VISIT` to evaluate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Dirty {
    devices: BTreeSet<String>,
    visits: BTreeSet<String>,
}

impl Units for Dirty {
    fn count(&self) -> usize {
        self.devices.len() + self.visits.len()
    }

    fn add(&mut self, other: Self) {
        self.devices.extend(other.devices);
        self.visits.extend(other.visits);
    }

    async fn concerned(warehouse: &Warehouse, news: &News<'_>) -> Result<Self, Error> {
        let (limit, mut dirty) = (CHANGED_MAX + 1, Self::default());
        for (table, device) in [("accuracy_session", DEVICE), ("sessions", ENDED), ("calibrations", CALIBRATED)] {
            dirty.devices.extend(warehouse.texts(news, table, device, limit).await?);
        }
        dirty.visits.extend(warehouse.visits_in(news, limit).await?);
        Ok(dirty)
    }

    async fn beyond(warehouse: &Warehouse, horizon: &Horizon) -> Result<Self, Error> {
        let mut dirty = Self::default();
        for (table, device) in [("accuracy_session", DEVICE), ("sessions", ENDED)] {
            dirty.devices.extend(warehouse.texts_beyond(table, device, horizon, CHANGED_MAX + 1).await?);
        }
        dirty.visits.extend(warehouse.visits_beyond(horizon, CHANGED_MAX + 1).await?);
        Ok(dirty)
    }
}

/// The accuracy half of the monitor.
pub struct Precision {
    warehouse: Warehouse,
    reader: Reader<Dirty>,
    rules: Rules,
    looked_at_fleet: i64,
}

type Rows = (Vec<AccuracyVerdict>, Vec<DriftState>);

impl Precision {
    /// Nothing is read yet.
    pub fn new(warehouse: Warehouse, rules: Rules) -> Self {
        let reader = Reader::new(warehouse.clone(), READER, &FACTS, &["models"], rules.limits.to_string());
        Self { warehouse, reader, rules, looked_at_fleet: 0 }
    }

    /// Forgets what has been seen: the next pass evaluates everything.
    pub fn start_over(&mut self) {
        self.reader.start_over();
    }

    /// Evaluates what has changed since the last pass, and the alerts that people have let go
    /// (`released`, by key). Doing it again changes nothing.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`]; the next pass takes up everything that this one did not finish.
    pub async fn pass(&mut self, horizon: &Horizon, released: &[String], now: i64) -> Result<Summary, Error> {
        let warehouse = self.warehouse.clone();
        let is_current = warehouse.accuracy_is_current(RULE_VERSION);
        let mut changes = self.reader.changes(is_current).await?;
        let mut summary = Summary { whole: changes.units.is_none(), ..Summary::default() };
        let models: Models = warehouse.models().await?.into_iter().map(|model| (model.model.clone(), model)).collect();
        if let Some(dirty) = &mut changes.units {
            dirty.visits.extend(released.iter().filter_map(|key| key.strip_prefix("depth-unsafe/")).map(str::to_owned));
            for ids in chunks(&dirty.devices) {
                let gaps = warehouse.incomplete_visits(Scope::Ids(&ids), horizon).await?;
                self.devices(Scope::Ids(&ids), horizon, &models, &gaps, now, &mut summary).await?;
            }
            for ids in chunks(&dirty.visits) {
                self.visits(Scope::Ids(&ids), horizon, now, &mut summary).await?;
            }
        } else {
            let all = Scope::Slice { index: 0, of: 1 };
            let gaps = warehouse.incomplete_visits(all, horizon).await?;
            let of = 1 + warehouse.session_rows().await? / SLICE_ROWS;
            for index in 0..of {
                self.devices(Scope::Slice { index, of }, horizon, &models, &gaps, now, &mut summary).await?;
            }
            self.visits(all, horizon, now, &mut summary).await?;
        }
        if now - self.looked_at_fleet >= FLEET_US || summary.whole {
            self.fleet(now, &mut summary).await?;
            self.looked_at_fleet = now;
        }
        self.reader.finish(changes, horizon, now).await?;
        Ok(summary)
    }

    async fn devices(
        &mut self,
        scope: Scope<'_>,
        horizon: &Horizon,
        models: &Models,
        gaps: &[Incomplete],
        now: i64,
        summary: &mut Summary,
    ) -> Result<(), Error> {
        let sums = self.warehouse.session_sums(scope, horizon).await?;
        let dues = self.warehouse.due_dates(scope).await?;
        let known = (self.warehouse.accuracy_verdicts(scope).await?, self.warehouse.drift_states(scope).await?);
        let mut of_device: BTreeMap<(&str, &str), Facts<'_>> = BTreeMap::new();
        for sum in &sums {
            of_device.entry((&sum.tenant, &sum.device)).or_default().sums.push(sum);
        }
        for gap in gaps {
            if let Some(facts) = of_device.get_mut(&(gap.tenant.as_str(), gap.device.as_str())) {
                facts.gaps.push(gap);
            }
        }
        for due in &dues {
            if let Some(facts) = of_device.get_mut(&(due.tenant.as_str(), due.device.as_str())) {
                facts.dues.push(due);
            }
        }
        let (mut rows, mut holding) = (Rows::default(), Vec::new());
        for Facts { sums, gaps, dues } in of_device.values() {
            let (verdicts, charts) = judge(sums, gaps, models, &mut self.rules);
            holding.extend(conditions::of_device(&verdicts, &charts, sums, dues, &self.rules.limits));
            rows.0.extend(verdicts);
            rows.1.extend(charts);
        }
        let evaluated: HashSet<(String, String)> =
            of_device.keys().map(|(tenant, device)| ((*tenant).to_owned(), (*device).to_owned())).collect();
        let (verdicts, charts) = changed(rows, known, &evaluated, now);
        summary.units += evaluated.len() as u64;
        summary.verdicts += (verdicts.len() + charts.len()) as u64;
        self.warehouse.add_accuracy(&verdicts, &charts).await?;
        let open = self.warehouse.open_keys(&OF_DEVICES, Some(scope)).await?;
        summary.alerts += self.settle(open, holding, now).await?;
        Ok(())
    }

    async fn visits(&self, scope: Scope<'_>, horizon: &Horizon, now: i64, summary: &mut Summary) -> Result<(), Error> {
        let shots = self.warehouse.alarming_shots(scope, horizon).await?;
        let holding: Vec<_> = shots.iter().flat_map(conditions::of_visit).collect();
        let keys = match scope {
            Scope::Ids(ids) => ids.iter().flat_map(|visit| conditions::visit_keys(visit)).collect(),
            Scope::Slice { .. } => self.warehouse.open_keys(&OF_VISITS, None).await?,
        };
        summary.alerts += self.settle(keys, holding, now).await?;
        Ok(())
    }

    async fn fleet(&self, now: i64, summary: &mut Summary) -> Result<(), Error> {
        for (kind, severity, _) in FLEET {
            let found = self.warehouse.findings(kind, self.rules.limits.fleet).await?;
            // Of several findings under one key the earliest stands.
            let mut holding: BTreeMap<(String, String), Condition> = BTreeMap::new();
            for finding in &found {
                let condition = conditions::of_fleet(kind, severity, finding);
                let name = (condition.tenant.clone(), condition.alert_key.clone());
                let earlier = holding.get(&name).is_none_or(|known| condition.since < known.since);
                if earlier {
                    holding.insert(name, condition);
                }
            }
            let open = self.warehouse.open_keys(&[kind], None).await?;
            summary.alerts += self.settle(open, holding.into_values().collect(), now).await?;
        }
        Ok(())
    }

    async fn settle(&self, open: Vec<String>, holding: Vec<Condition>, now: i64) -> Result<u64, Error> {
        let keys: BTreeSet<String> =
            open.into_iter().chain(holding.iter().map(|condition| condition.alert_key.clone())).collect();
        let mut by_key: HashMap<&str, Vec<&Condition>> = HashMap::new();
        for condition in &holding {
            by_key.entry(&condition.alert_key).or_default().push(condition);
        }
        let mut changed = 0;
        for keys in chunks(&keys) {
            let of_keys = keys.iter().filter_map(|key| by_key.get(key.as_str())).flatten().copied().cloned();
            changed += settlement::settle(&self.warehouse, &keys, of_keys.collect(), now).await?;
        }
        Ok(changed)
    }
}

/// Judges and charts one device, channel by channel.
pub fn judge(sums: &[&SessionSum], gaps: &[&Incomplete], models: &Models, rules: &mut Rules) -> Rows {
    let mut rows = Rows::default();
    for channel in ["DOSE", "DEPTH"] {
        let sums: Vec<_> = sums.iter().copied().filter(|sum| sum.channel == channel).collect();
        rows.0.extend(accuracy::evaluate(&sums, gaps, models, rules));
        match drift::evaluate(&sums, gaps, models, rules) {
            Ok(charts) => rows.1.extend(charts),
            Err(error) => tracing::error!(%error, channel, "a device cannot be charted"),
        }
    }
    rows
}

/// What says something else than before, and what is to be cleared as its facts are gone.
fn changed(rows: Rows, known: Rows, evaluated: &HashSet<(String, String)>, now: i64) -> Rows {
    let name = |row: &AccuracyVerdict| {
        (row.tenant.clone(), row.device.clone(), row.channel.clone(), row.calibration_id.clone(), row.target)
    };
    let mut before: HashMap<_, _> = known.0.into_iter().map(|row| (name(&row), row)).collect();
    let mut verdicts = Vec::new();
    for row in rows.0 {
        let said = before.remove(&name(&row)).map(|said| AccuracyVerdict { computed_at: 0, ..said });
        if said.as_ref() != Some(&row) {
            verdicts.push(AccuracyVerdict { computed_at: now, ..row });
        }
    }
    let is_gone = |state: &str, tenant: &str, device: &str| {
        state != "CLEARED" && evaluated.contains(&(tenant.to_owned(), device.to_owned()))
    };
    let gone = before.into_values().filter(|row| is_gone(&row.state, &row.tenant, &row.device));
    let cleared = |row| AccuracyVerdict { state: "CLEARED".to_owned(), current: false, computed_at: now, ..row };
    verdicts.extend(gone.map(cleared));

    let name = |row: &DriftState| {
        let DriftState { tenant, device, channel, calibration_id, firmware, .. } = row.clone();
        (tenant, device, channel, row.band, calibration_id, firmware)
    };
    let mut before: HashMap<_, _> = known.1.into_iter().map(|row| (name(&row), row)).collect();
    let mut charts = Vec::new();
    for row in rows.1 {
        let said = before.remove(&name(&row)).map(|said| DriftState { computed_at: 0, ..said });
        if said.as_ref() != Some(&row) {
            charts.push(DriftState { computed_at: now, ..row });
        }
    }
    let gone = before.into_values().filter(|row| is_gone(&row.state, &row.tenant, &row.device));
    let cleared =
        |row| DriftState { state: "CLEARED".to_owned(), current: false, alarm: false, computed_at: now, ..row };
    charts.extend(gone.map(cleared));
    (verdicts, charts)
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;
    use warehouse::accuracy::Model;

    use super::*;
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

    /// A visit a day of 20 injections at 10,000 nl, each off by the same, but for 200 nl either
    /// way.
    fn visit(number: i64, error_nl: i64) -> SessionSum {
        SessionSum {
            tenant: "acme".to_owned(),
            device: "pen-1".to_owned(),
            channel: "DOSE".to_owned(),
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

    /// Deviation of a visit's mean, nl: the same every time.
    fn scatter(number: i64) -> i64 {
        (number * 7_919 + number * number * 31).rem_euclid(101) - 50
    }

    fn rules() -> Rules {
        static RULES: LazyLock<Rules> = LazyLock::new(|| Rules::new(Limits::default()).unwrap());
        RULES.clone()
    }

    fn judged_with(sums: &[SessionSum], gaps: &[Incomplete]) -> Rows {
        judge(&sums.iter().collect::<Vec<_>>(), &gaps.iter().collect::<Vec<_>>(), &models(), &mut rules())
    }

    fn judged(sums: &[SessionSum]) -> Rows {
        judged_with(sums, &[])
    }

    fn alerts(sums: &[SessionSum], dues: &[Due]) -> Vec<String> {
        let (verdicts, charts) = judged(sums);
        let sums: Vec<_> = sums.iter().collect();
        let found =
            conditions::of_device(&verdicts, &charts, &sums, &dues.iter().collect::<Vec<_>>(), &Limits::default());
        found.into_iter().map(|condition| format!("{} {}", condition.severity, condition.alert_key)).collect()
    }

    fn series(visits: i64, error_nl: impl Fn(i64) -> i64) -> Vec<SessionSum> {
        (1..=visits).map(|number| visit(number, scatter(number) + error_nl(number))).collect()
    }

    #[test]
    fn a_healthy_device_raises_nothing() {
        let (verdicts, charts) = judged(&series(80, |_| 60));
        assert_eq!((verdicts.len(), verdicts[0].state.as_str(), verdicts[0].sessions), (1, "PASS", 80));
        assert_eq!((charts.len(), charts[0].state.as_str(), charts[0].band), (1, "IN_CONTROL", 15_000));
        assert_eq!(alerts(&series(80, |_| 60), &[]), [""; 0]);
    }

    #[test]
    fn a_drifting_device_is_forecast_and_then_fails() {
        let ramp = |number: i64| 8 * (number - 30).max(0);
        let (_, charts) = judged(&series(70, ramp));
        assert_eq!((charts[0].state.as_str(), charts[0].side.as_str()), ("DRIFT", "UPPER"));
        assert!(charts[0].signal_session.as_str() > "s030", "{}", charts[0].signal_session);
        assert_eq!(charts[0].forecast, "CROSSING");
        let early = alerts(&series(70, ramp), &[]);
        assert!(early.contains(&"medium drift/acme/pen-1/dose/15000".to_owned()), "{early:?}");
        let late = alerts(&series(160, ramp), &[]);
        assert!(late.contains(&"high accuracy-verdict/acme/pen-1/dose/10000".to_owned()), "{late:?}");
        // The next calibration starts anew; what the old one was found to be stays readable.
        let mut calibrated = series(160, ramp);
        calibrated.push(SessionSum { calibration_id: "c2".to_owned(), ..visit(161, 0) });
        assert_eq!(alerts(&calibrated, &[]), [""; 0]);
        assert!(judged(&calibrated).0.iter().any(|verdict| verdict.state == "FAIL" && !verdict.current));
    }

    #[test]
    fn one_visit_far_off_is_a_spike() {
        let found = alerts(&series(60, |number| if number == 50 { 1_500 } else { 0 }), &[]);
        assert!(found.contains(&"high spike/acme/pen-1/dose/15000/c1".to_owned()), "{found:?}");
    }

    #[test]
    fn what_a_visit_lacks_stands_with_the_verdicts_and_charts_of_its_time() {
        let gap = |number: i64, known: u64, at_least: bool| Incomplete {
            received: 20,
            known,
            at_least,
            first_at: number * 86_400_000_000,
            last_at: number * 86_400_000_000 + 1,
            ..Incomplete::default()
        };
        let mut sums = series(30, |_| 0);
        sums.extend((31..=40).map(|number| SessionSum { calibration_id: "c2".to_owned(), ..visit(number, 0) }));
        let said = |gaps: &[Incomplete]| {
            let (verdicts, charts) = judged_with(&sums, gaps);
            let of_charts: Vec<_> = charts.into_iter().map(|chart| chart.completeness).collect();
            let of_verdicts: Vec<_> = verdicts.into_iter().map(|verdict| verdict.completeness).collect();
            assert_eq!(of_charts, of_verdicts);
            of_verdicts
        };
        assert_eq!(said(&[]), ["", ""]);
        let missing = "3 of 23 injections of 1 visits are missing";
        assert_eq!(said(&[gap(5, 23, false)]), [missing, ""]);
        // A visit of which only the end has arrived is after the last one that is known.
        assert_eq!(said(&[gap(41, 23, false)]), ["", missing]);
        assert_eq!(
            said(&[gap(0, 99, true), gap(1, 21, true), gap(9, 30, false)]),
            ["at least 11 of 51 injections of 2 visits are missing", ""]
        );
    }

    #[test]
    fn rules_that_people_look_for_on_a_chart_are_shown_and_raise_nothing() {
        let (_, charts) = judged(&series(60, |number| if number > 52 { 30 - scatter(number) } else { 0 }));
        assert_eq!((charts[0].state.as_str(), &charts[0].western_electric[..]), ("IN_CONTROL", &[4][..]));
        assert_eq!(judged(&series(60, |_| 0)).1[0].western_electric, [0; 0]);
    }

    #[test]
    fn limits_decide_what_fails_and_when_drift_alarms() {
        let mut strict = Rules::new(Limits { sessions_min: 60, forecast_days: 1, ..Limits::default() }).unwrap();
        let (series, models) = (series(50, |number| 150 + 14 * number), models());
        let sums: Vec<_> = series.iter().collect();
        let states = |rows: Rows| (rows.0[0].state.clone(), rows.1[0].alarm);
        assert_eq!(states(judge(&sums, &[], &models, &mut rules())), ("FAIL".to_owned(), true));
        assert_eq!(states(judge(&sums, &[], &models, &mut strict)), ("UNDECIDED".to_owned(), false));
    }

    #[test]
    fn few_visits_and_unregistered_models_decide_nothing() {
        assert_eq!(judged(&series(3, |_| 900)).0[0].state, "UNDECIDED");
        let unknown: Vec<_> =
            series(30, |_| 5_000).into_iter().map(|sum| SessionSum { model: "x".to_owned(), ..sum }).collect();
        let (verdicts, charts) = judged(&unknown);
        assert_eq!((verdicts[0].state.as_str(), verdicts[0].limit_low), ("UNDECIDED", None));
        assert!(verdicts[0].reason.contains("no tolerance is registered"), "{}", verdicts[0].reason);
        assert_eq!((charts[0].band, charts[0].forecast.as_str()), (0, "NO_TOLERANCE"));
        assert!(judged(&[visit(1, 0)]).1[0].state == "LEARNING");
    }

    #[test]
    fn use_beyond_the_due_date_names_the_visits() {
        let due = Due {
            tenant: "acme".to_owned(),
            device: "pen-1".to_owned(),
            channel: "DOSE".to_owned(),
            calibration_id: "c1".to_owned(),
            due_at: 11 * 86_400_000_000,
        };
        assert_eq!(
            alerts(&series(12, |_| 0), std::slice::from_ref(&due)),
            ["high calibration-overdue/acme/pen-1/dose/c1"]
        );
        assert_eq!(alerts(&series(10, |_| 0), &[due]), [""; 0]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn no_order_and_no_grouping_of_the_sums_matters(
            errors in prop::collection::vec(-400i64..400, 2..50),
            seed in any::<u64>(),
        ) {
            let sums: Vec<_> = errors.iter().enumerate().map(|(number, error)| visit(number as i64, *error)).collect();
            let expected = judged(&sums);
            let mut parts = Vec::new();
            for (number, sum) in sums.iter().enumerate() {
                // A visit in two parts of which the second comes from another site.
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
    fn what_says_the_same_is_not_written_again() {
        let rows = judged(&series(12, |_| 0));
        let known = (
            rows.0.iter().map(|row| AccuracyVerdict { computed_at: 5, ..row.clone() }).collect(),
            rows.1.iter().map(|row| DriftState { computed_at: 5, ..row.clone() }).collect(),
        );
        let all = HashSet::from([("acme".to_owned(), "pen-1".to_owned())]);
        assert_eq!(changed(rows.clone(), known, &all, 9), Rows::default());
        let gone = changed(Rows::default(), rows, &all, 9);
        assert!(gone.0.iter().all(|row| row.state == "CLEARED" && row.computed_at == 9) && gone.1.len() == 1);
    }
}
