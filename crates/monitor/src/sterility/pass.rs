//! One pass over sterility: evaluates every unit that a change concerns, then updates the alerts
//! that its verdicts belong to.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use warehouse::{Error, Warehouse, horizon::Horizon, verdicts::Verdict};

use super::{
    assessment::Assessments,
    conditions::condition,
    evaluation::Evaluation,
    rules::{Clock, HOUR_US, RegistryIndex, STERILITY_RULE_VERSION},
    units::{ChangedUnits, FACTS},
};
use crate::{
    alerts::store,
    limits::Limits,
    reader::{Reader, Units as _, chunks},
    status::Summary,
};

/// Name of this half in `monitor_positions`.
const READER: &str = "sterility";
/// Registries. A change of one concerns every unit.
const REGISTRIES: [&str; 5] = ["recipes", "lots", "recalls", "policies", "sites"];
/// Time between two evaluations of units that wait for further data, us.
const WAITING_US: i64 = 60_000_000;

/// The sterility half of the monitor.
pub struct SterilityPass {
    warehouse: Warehouse,
    reader: Reader<ChangedUnits>,
    pub(crate) late: i64,
    mass_balance_pct: u32,
    ahead: i64,
    age: i64,
    /// Units that are pending, and when time alone decides them, us since 1970; 0 = only further
    /// data does.
    pending: HashMap<String, i64>,
    /// Whether the units that an earlier monitor left pending have been read.
    knows_pending: bool,
    evaluated_waiting_at: i64,
    /// The next pass judges every curve again whose samples are stored.
    from_scratch: bool,
}

impl SterilityPass {
    /// Reads nothing yet. `late` is how long a sterilizer's data are awaited after a use, us.
    pub fn new(warehouse: Warehouse, late: i64, limits: &Limits) -> Self {
        let reader = Reader::new(warehouse.clone(), READER, &FACTS, &REGISTRIES, limits.to_string());
        Self {
            warehouse,
            reader,
            late,
            mass_balance_pct: limits.mass_balance_pct,
            ahead: i64::from(limits.ahead_max_s) * 1_000_000,
            age: i64::from(limits.age_max_days) * 24 * HOUR_US,
            pending: HashMap::new(),
            knows_pending: false,
            evaluated_waiting_at: 0,
            from_scratch: false,
        }
    }

    /// Whether a unit waits for a time that has come.
    pub(crate) fn is_due(&self, now: i64) -> bool {
        self.pending.values().any(|until| *until > 0 && *until <= now)
    }

    /// Forgets what has been seen: the next pass evaluates everything. It judges a curve again if
    /// its samples are stored, and keeps the judgement of a curve whose samples are gone.
    pub fn start_over(&mut self) {
        self.from_scratch = true;
        self.reader.start_over();
    }

    /// Evaluates the units that have changed since the last pass, the units that time decides now,
    /// and the alerts that a person has acknowledged and that no longer hold (`to_clear`, by key).
    /// A repeated pass changes nothing.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`]; the next pass evaluates everything that this one did not finish.
    pub async fn pass(&mut self, horizon: &Horizon, to_clear: &[String], now: i64) -> Result<Summary, Error> {
        let warehouse = self.warehouse.clone();
        if !self.knows_pending {
            self.pending = warehouse.pending_units().await?.into_iter().collect();
            self.knows_pending = true;
        }
        let is_current = warehouse.verdicts_are_current(STERILITY_RULE_VERSION);
        let mut changes = self.reader.changes(is_current).await?;
        if let Some(changed) = &mut changes.units {
            self.add_due(changed, now);
        }
        let mut summary = Summary { whole: changes.units.is_none(), ..Summary::default() };
        let mut assessments = Vec::new();
        let mut keys: BTreeSet<String> = to_clear.iter().cloned().collect();
        if changes.units.as_ref().is_none_or(|changed| changed.count() > 0) {
            let registered = warehouse.sterility_registry().await?;
            let mut evaluation = Evaluation {
                warehouse: &warehouse,
                registry: RegistryIndex::new(&registered),
                registered,
                horizon,
                clock: Clock { now, late: self.late, ahead: self.ahead, age: self.age },
                mass_balance_pct: self.mass_balance_pct,
                from_scratch: self.from_scratch,
                assessments: Assessments::new(),
                keys: BTreeSet::new(),
                pending: HashMap::new(),
                evaluated: HashSet::new(),
                assessment_rows: Vec::new(),
                changed_items: BTreeSet::new(),
                alerts: 0,
                verdicts: 0,
            };
            evaluation.run(changes.units.clone()).await?;
            let Evaluation { keys: concerned, pending, evaluated, alerts, verdicts, assessment_rows, .. } = evaluation;
            assessments = assessment_rows;
            keys.extend(concerned);
            summary = Summary { units: evaluated.len() as u64, verdicts, alerts, ..summary };
            self.pending.retain(|unit, _| !summary.whole && !evaluated.contains(unit));
            self.pending.extend(pending);
        }
        summary.alerts += self.update_alerts(keys, now).await?;
        warehouse.add_assessments(&assessments).await?;
        self.reader.finish(changes, horizon, now).await?;
        self.from_scratch = false;
        Ok(summary)
    }

    /// Adds the pending units that may be decided now.
    fn add_due(&mut self, changed: &mut ChangedUnits, now: i64) {
        let look = now - self.evaluated_waiting_at >= WAITING_US;
        if look {
            self.evaluated_waiting_at = now;
        }
        for (unit, until) in &self.pending {
            if (*until > 0 && *until <= now) || (*until == 0 && look) {
                changed.add_unit(unit);
            }
        }
    }

    async fn update_alerts(&self, keys: BTreeSet<String>, now: i64) -> Result<u64, Error> {
        let mut changed = 0;
        let keys: BTreeSet<_> = keys.into_iter().filter(|key| key.starts_with("sterility-")).collect();
        for keys in chunks(&keys) {
            let verdicts = self.warehouse.verdicts_of_alerts(&keys).await?;
            let mut by_key: BTreeMap<(&str, &str), Vec<&Verdict>> = BTreeMap::new();
            for verdict in &verdicts {
                by_key.entry((&verdict.tenant, &verdict.alert_key)).or_default().push(verdict);
            }
            let conditions: Vec<_> = by_key.values().filter_map(|verdicts| condition(verdicts)).collect();
            changed += store::update(&self.warehouse, &keys.into_iter().collect(), &conditions, now).await?;
        }
        Ok(changed)
    }
}
