//! One pass over accuracy and drift: reads the facts of every device and session that a
//! change concerns, has them judged, and writes the verdicts, charts and alerts that differ from
//! before.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use warehouse::{
    Error, Warehouse,
    accuracy::{AccuracyVerdict, DriftState, Due, Incomplete, SessionSum},
    horizon::Horizon,
    sql::Scope,
    states::{Channel, ChartState, ToleranceState},
};

use super::{
    conditions::{self, OF_DEVICES, OF_SESSIONS},
    drift,
    rules::{ACCURACY_RULE_VERSION, Rules},
    tolerance::{self, Models},
    units::{ChangedUnits, FACTS},
};
use crate::{
    alerts::{lifecycle::Condition, store},
    diff::{Diff, diff},
    reader::{Reader, SLICE_ROWS, chunks},
    status::Summary,
};

/// Name of this reader in `monitor_positions`.
const READER: &str = "accuracy";

/// What is known of one device.
#[derive(Default)]
struct Facts<'a> {
    sums: Vec<&'a SessionSum>,
    incomplete: Vec<&'a Incomplete>,
    dues: Vec<&'a Due>,
}

/// Verdicts and charts.
pub(super) type Judged = (Vec<AccuracyVerdict>, Vec<DriftState>);

/// The accuracy half of the monitor.
pub struct AccuracyPass {
    warehouse: Warehouse,
    reader: Reader<ChangedUnits>,
    rules: Rules,
}

impl AccuracyPass {
    /// Reads nothing yet.
    pub fn new(warehouse: Warehouse, rules: Rules) -> Self {
        let reader = Reader::new(warehouse.clone(), READER, &FACTS, &["models"], rules.limits.to_string());
        Self { warehouse, reader, rules }
    }

    /// Forgets what has been seen: the next pass evaluates everything.
    pub fn start_over(&mut self) {
        self.reader.start_over();
    }

    /// Evaluates what has changed since the last pass. Also evaluates the alerts that a person has
    /// acknowledged and that no longer hold (`to_clear`, by key). A repeated pass changes nothing.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`]; the next pass evaluates everything that this one did not finish.
    pub async fn pass(&mut self, horizon: &Horizon, to_clear: &[String], now: i64) -> Result<Summary, Error> {
        let warehouse = self.warehouse.clone();
        let is_current = warehouse.accuracy_is_current(ACCURACY_RULE_VERSION);
        let mut changes = self.reader.changes(is_current).await?;
        let mut summary = Summary { whole: changes.units.is_none(), ..Summary::default() };
        let models: Models = warehouse.models().await?.into_iter().map(|model| (model.model.clone(), model)).collect();
        if let Some(changed) = &mut changes.units {
            let sessions = to_clear.iter().filter_map(|key| key.strip_prefix("depth-unsafe/"));
            changed.sessions.extend(sessions.map(str::to_owned));
            for ids in chunks(&changed.devices) {
                let incomplete = warehouse.incomplete_sessions(Scope::Ids(&ids), horizon).await?;
                self.devices(Scope::Ids(&ids), horizon, &models, &incomplete, now, &mut summary).await?;
            }
            for ids in chunks(&changed.sessions) {
                self.sessions(Scope::Ids(&ids), horizon, now, &mut summary).await?;
            }
        } else {
            let all = Scope::Slice { index: 0, of: 1 };
            let incomplete = warehouse.incomplete_sessions(all, horizon).await?;
            let of = 1 + warehouse.session_rows().await? / SLICE_ROWS;
            for index in 0..of {
                self.devices(Scope::Slice { index, of }, horizon, &models, &incomplete, now, &mut summary).await?;
            }
            self.sessions(all, horizon, now, &mut summary).await?;
        }
        self.reader.finish(changes, horizon, now).await?;
        Ok(summary)
    }

    async fn devices(
        &mut self,
        scope: Scope<'_>,
        horizon: &Horizon,
        models: &Models,
        incomplete: &[Incomplete],
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
        for session in incomplete {
            if let Some(facts) = of_device.get_mut(&(session.tenant.as_str(), session.device.as_str())) {
                facts.incomplete.push(session);
            }
        }
        for due in &dues {
            if let Some(facts) = of_device.get_mut(&(due.tenant.as_str(), due.device.as_str())) {
                facts.dues.push(due);
            }
        }
        let (mut rows, mut holding) = (Judged::default(), Vec::new());
        for Facts { sums, incomplete, dues } in of_device.values() {
            let (verdicts, charts) = judge(sums, incomplete, models, &mut self.rules);
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
        summary.alerts += self.update_alerts(open, &holding, now).await?;
        Ok(())
    }

    async fn sessions(
        &self,
        scope: Scope<'_>,
        horizon: &Horizon,
        now: i64,
        summary: &mut Summary,
    ) -> Result<(), Error> {
        let shots = self.warehouse.alarming_shots(scope, horizon).await?;
        let holding: Vec<_> = shots.iter().flat_map(conditions::of_session).collect();
        let keys = match scope {
            Scope::Ids(ids) => ids.iter().flat_map(|session| conditions::session_keys(session)).collect(),
            Scope::Slice { .. } => self.warehouse.open_keys(&OF_SESSIONS, None).await?,
        };
        summary.alerts += self.update_alerts(keys, &holding, now).await?;
        Ok(())
    }

    async fn update_alerts(&self, open: Vec<String>, holding: &[Condition], now: i64) -> Result<u64, Error> {
        let holds = holding.iter().map(|condition| condition.alert_key.clone());
        let keys: BTreeSet<String> = open.into_iter().chain(holds).collect();
        store::update(&self.warehouse, &keys, holding, now).await
    }
}

/// Judges and charts one device, channel by channel.
pub fn judge(sums: &[&SessionSum], incomplete: &[&Incomplete], models: &Models, rules: &mut Rules) -> Judged {
    let mut rows = Judged::default();
    for channel in Channel::ALL {
        let sums: Vec<_> = sums.iter().copied().filter(|sum| sum.channel == channel).collect();
        rows.0.extend(tolerance::evaluate(&sums, incomplete, models, rules));
        match drift::evaluate(&sums, incomplete, models, rules) {
            Ok(charts) => rows.1.extend(charts),
            Err(error) => tracing::error!(%error, %channel, "a device cannot be charted"),
        }
    }
    rows
}

/// The rows that differ from the known ones, and the rows to clear because their facts are gone.
pub(super) fn changed(rows: Judged, known: Judged, evaluated: &HashSet<(String, String)>, now: i64) -> Judged {
    let is_evaluated = |tenant: &str, device: &str| evaluated.contains(&(tenant.to_owned(), device.to_owned()));

    let key = |row: &AccuracyVerdict| {
        (row.tenant.clone(), row.device.clone(), row.channel, row.calibration_id.clone(), row.target)
    };
    let undated = |row: &AccuracyVerdict| AccuracyVerdict { computed_at: 0, ..row.clone() };
    let Diff { changed, gone } = diff(known.0, rows.0, key, |left, right| undated(left) == undated(right));
    let gone = gone
        .into_iter()
        .filter(|row| row.state != ToleranceState::Cleared && is_evaluated(&row.tenant, &row.device))
        .map(|row| AccuracyVerdict { state: ToleranceState::Cleared, current: false, ..row });
    let dated = |row| AccuracyVerdict { computed_at: now, ..row };
    let verdicts = changed.into_iter().chain(gone).map(dated).collect();

    let key = |row: &DriftState| {
        let DriftState { tenant, device, channel, calibration_id, firmware, .. } = row.clone();
        (tenant, device, channel, row.band, calibration_id, firmware)
    };
    let undated = |row: &DriftState| DriftState { computed_at: 0, ..row.clone() };
    let Diff { changed, gone } = diff(known.1, rows.1, key, |left, right| undated(left) == undated(right));
    let gone = gone
        .into_iter()
        .filter(|row| row.state != ChartState::Cleared && is_evaluated(&row.tenant, &row.device))
        .map(|row| DriftState { state: ChartState::Cleared, current: false, alarm: false, ..row });
    let dated = |row| DriftState { computed_at: now, ..row };
    let charts = changed.into_iter().chain(gone).map(dated).collect();
    (verdicts, charts)
}
