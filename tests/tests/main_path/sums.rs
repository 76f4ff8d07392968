//! The aggregates, computed again in integers from the truth file.

use std::collections::BTreeMap;

use harness::ClickHouse;
use serde_json::{Value, json};

use crate::{
    expected::{code, device, hex, number, text},
    rows::{Differences, select},
    truth::string,
};

/// How the values of a column are combined over rows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fold {
    Sum,
    Min,
    Max,
}
use Fold::{Max, Min, Sum};

const ACCURACY: [(&str, Fold); 21] = [
    ("injections", Sum),
    ("dose_n", Sum),
    ("dose_target_nl", Sum),
    ("dose_delivered_nl", Sum),
    ("dose_error_nl", Sum),
    ("dose_error_sq", Sum),
    ("dose_error_min", Min),
    ("dose_error_max", Max),
    ("depth_n", Sum),
    ("depth_target_um", Sum),
    ("depth_measured_um", Sum),
    ("depth_error_um", Sum),
    ("depth_error_sq", Sum),
    ("depth_error_min", Min),
    ("depth_error_max", Max),
    ("ok", Sum),
    ("partial", Sum),
    ("aborted", Sum),
    ("occluded", Sum),
    ("no_contact", Sum),
    ("first_at", Min),
];
const LAST_AT: (&str, Fold) = ("last_at", Max);
const USES: [(&str, Fold); 6] = [
    ("injections", Sum),
    ("punctures", Sum),
    ("delivered_nl", Sum),
    ("delivered_n", Sum),
    ("undated", Sum),
    ("first_at", Min),
];

/// Values by key, both in the order of their columns. A value is absent if nothing was measured.
type Folded = BTreeMap<String, Vec<Option<i128>>>;

/// What the aggregate tables must hold.
#[derive(Default)]
pub struct Sums {
    minutes: Folded,
    sessions: Folded,
    /// For each percent of dose error, the number of injections.
    histograms: BTreeMap<String, BTreeMap<i128, i128>>,
    uses: Folded,
}

impl Sums {
    /// Adds an injection that is stored with this time.
    pub fn add(&mut self, line: &Value, at: i64) {
        let (of, context) = (&line["event"]["injection"], &line["context"]);
        let integer = |field: &str| number(&of[field]).as_i64().map(i128::from);
        let at = i128::from(at);
        let dose = pair(integer("targetNl"), integer("deliveredNl"), &of["doseSource"], "DOSE_SOURCE_SETTING");
        let depth = pair(integer("targetUm"), integer("measuredUm"), &of["depthSource"], "DEPTH_SOURCE_SETTING");
        let mut values = vec![Some(1)];
        values.extend(channel(dose));
        values.extend(channel(depth));
        let outcome = code(&of["outcome"], "OUTCOME_");
        let outcomes = ["OK", "PARTIAL", "ABORTED", "OCCLUDED", "NO_CONTACT"];
        values.extend(outcomes.map(|name| Some(i128::from(outcome == name))));
        values.extend([Some(at), Some(at)]);

        let mut key = device(line);
        key.push(json!(i64::try_from(at.div_euclid(60_000_000) * 60).expect("a time")));
        fold(&mut self.minutes, &key, &values, &accuracy());

        key.pop();
        let session = hex(&context["sessionId"]);
        key.push(session.clone().into());
        key.extend([text(&context["doseCalibrationId"]), text(&context["depthCalibrationId"])]);
        key.extend([number(&of["targetNl"]), number(&of["targetUm"]), outcome]);
        fold(&mut self.sessions, &key, &values, &accuracy());
        let histogram = self.histograms.entry(name(&key)).or_default();
        if let Some((target, delivered)) = dose.filter(|(target, _)| *target > 0) {
            *histogram.entry((100 * (delivered - target)).div_euclid(target)).or_default() += 1;
        }

        let values = [
            Some(1),
            Some(integer("punctures").unwrap_or(1)),
            Some(integer("deliveredNl").unwrap_or(0)),
            Some(i128::from(integer("deliveredNl").is_some())),
            Some(i128::from(line["at_unix_us"].is_null())),
            Some(at),
            Some(at),
        ];
        let mounts = context["mounts"].as_array().into_iter().flatten();
        for mount in mounts {
            let mut key: Vec<Value> = ["tenant", "site", "device"].map(|name| string(line, name).into()).into();
            key.extend([session.clone().into(), code(&mount["slot"], "SLOT_")]);
            key.extend([text(&mount["mountId"]), text(&mount["itemId"])]);
            fold(&mut self.uses, &key, &values, &uses());
        }
    }

    /// Compares the sums with the tables.
    pub fn check(&self, clickhouse: &ClickHouse) {
        let device = "tenant, site, device, model, firmware";
        check(clickhouse, "accuracy_minute", &format!("{device}, toUnixTimestamp(minute)"), &accuracy(), &self.minutes);
        let session =
            format!("{device}, session_id, dose_calibration_id, depth_calibration_id, target_nl, target_um, outcome");
        check(clickhouse, "accuracy_session", &session, &accuracy(), &self.sessions);
        self.check_histograms(clickhouse, &session);
        let item = "tenant, site, device, session_id, slot, mount_id, item_id";
        check(clickhouse, "item_uses", item, &uses(), &self.uses);
    }

    fn check_histograms(&self, clickhouse: &ClickHouse, key: &str) {
        let sql = format!(
            "SELECT {key}, sumMap(dose_error_bins, dose_error_counts).1, sumMap(dose_error_bins, dose_error_counts).2 \
             FROM doseline.accuracy_session GROUP BY {key}"
        );
        let mut differences = Differences::default();
        for mut row in select(clickhouse, &sql) {
            let (counts, bins) = (row.pop().expect("counts"), row.pop().expect("bins"));
            let numbers = |list: &Value| {
                list.as_array().into_iter().flatten().map(|n| i128::from(n.as_i64().expect("a number"))).collect()
            };
            let (bins, counts): (Vec<i128>, Vec<i128>) = (numbers(&bins), numbers(&counts));
            let actual: BTreeMap<_, _> = bins.into_iter().zip(counts).collect();
            let expected = self.histograms.get(&name(&row));
            if expected != Some(&actual) {
                differences.add(|| format!("{}: {actual:?}, not {expected:?}", name(&row)));
            }
        }
        differences.assert_none("the histograms of accuracy_session");
    }
}

fn accuracy() -> Vec<(&'static str, Fold)> {
    ACCURACY.into_iter().chain([LAST_AT]).collect()
}

fn uses() -> Vec<(&'static str, Fold)> {
    USES.into_iter().chain([LAST_AT]).collect()
}

/// Target and measured value, if both are known and the value was really measured.
fn pair(target: Option<i128>, measured: Option<i128>, source: &Value, setting: &str) -> Option<(i128, i128)> {
    target.zip(measured).filter(|_| source != setting)
}

/// Count, target, measured value, error, its square, least and greatest error.
fn channel(pair: Option<(i128, i128)>) -> [Option<i128>; 7] {
    let Some((target, measured)) = pair else { return [Some(0), Some(0), Some(0), Some(0), Some(0), None, None] };
    let error = measured - target;
    [Some(1), Some(target), Some(measured), Some(error), Some(error * error), Some(error), Some(error)]
}

fn name(key: &[Value]) -> String {
    serde_json::to_string(key).expect("JSON")
}

fn fold(folded: &mut Folded, key: &[Value], values: &[Option<i128>], columns: &[(&str, Fold)]) {
    assert_eq!(values.len(), columns.len());
    let Some(sums) = folded.get_mut(&name(key)) else {
        folded.insert(name(key), values.to_vec());
        return;
    };
    for ((sum, value), (_, fold)) in sums.iter_mut().zip(values).zip(columns) {
        let Some(value) = *value else { continue };
        *sum = Some(match (*sum, fold) {
            (None, _) => value,
            (Some(sum), Sum) => sum + value,
            (Some(sum), Min) => sum.min(value),
            (Some(sum), Max) => sum.max(value),
        });
    }
}

fn check(clickhouse: &ClickHouse, table: &str, key: &str, columns: &[(&str, Fold)], expected: &Folded) {
    let term = |(column, fold): &(&str, Fold)| match (fold, column.ends_with("_at")) {
        (Sum, _) => format!("sum({column})"),
        (Min, false) => format!("min({column})"),
        (Max, false) => format!("max({column})"),
        (Min, true) => format!("toUnixTimestamp64Micro(min({column}))"),
        (Max, true) => format!("toUnixTimestamp64Micro(max({column}))"),
    };
    let terms: Vec<_> = columns.iter().map(term).collect();
    let rows = select(clickhouse, &format!("SELECT {key}, {} FROM doseline.{table} GROUP BY {key}", terms.join(", ")));
    let mut differences = Differences::default();
    let mut left = expected.clone();
    for mut row in rows {
        let values = row.split_off(row.len() - columns.len());
        let integer = |value: &Value| value.as_i64().map(i128::from).or_else(|| value.as_u64().map(i128::from));
        let actual: Vec<_> = values.iter().map(integer).collect();
        let wanted = left.remove(&name(&row));
        if wanted.as_ref() != Some(&actual) {
            differences.add(|| format!("{table} {}: {actual:?}, not {wanted:?}", name(&row)));
        }
    }
    for key in left.keys() {
        differences.add(|| format!("{table} {key}: missing"));
    }
    println!("{table}: {} keys as computed from the truth", expected.len());
    assert!(!expected.is_empty(), "the truth has nothing for {table}");
    differences.assert_none(table);
}
