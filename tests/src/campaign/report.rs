//! The result of a campaign, as a table and as JSON.

use std::fmt::{Display, Formatter};

use serde_json::{Value, json};

use super::watch::Memory;
use super::{Findings, Options};

/// The result of one kind of fault.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its name for `--faults`.
    pub name: &'static str,
    /// Its description.
    pub what: &'static str,
    /// How often it struck.
    pub times: u32,
    /// Number of events lost in its turns.
    pub lost: u64,
    /// Number of events doubled in its turns.
    pub doubled: u64,
    /// Number of keys of aggregates and batches that differed.
    pub unequal: u64,
    /// Recovery times, s.
    pub recoveries: Vec<f64>,
}

impl Row {
    /// A row before the first turn.
    pub fn new(name: &'static str, what: &'static str) -> Self {
        Self { name, what, times: 0, lost: 0, doubled: 0, unequal: 0, recoveries: Vec::new() }
    }

    /// Median and greatest recovery time, s; `None` without an injection.
    fn recovery(&self) -> Option<(f64, f64)> {
        let mut sorted = self.recoveries.clone();
        sorted.sort_by(f64::total_cmp);
        Some((*sorted.get(sorted.len() / 2)?, *sorted.last()?))
    }
}

/// The result of a whole campaign.
#[derive(Clone, Debug)]
pub struct Report {
    /// Seed of the campaign.
    pub seed: u64,
    /// Requested events a second.
    pub rate: u32,
    /// Duration of the campaign, min.
    pub minutes: f64,
    /// Number of events that the fleets made.
    pub made: u64,
    /// Number of reports that devices sent again.
    pub resent: u64,
    /// Rows of `injections` at the end.
    pub injections: u64,
    /// Results, one row for each fault.
    pub rows: Vec<Row>,
    /// The comparison of everything at the end.
    pub total: Findings,
    /// How often an offset committed to Kafka, or a position in ClickHouse, went back.
    pub rewinds: usize,
    /// Number of checks of the offsets and positions.
    pub looks: u64,
    /// Memory of bridges and loaders over the campaign.
    pub memory: Vec<Memory>,
    /// All samples of their memory.
    pub samples: Value,
}

impl Report {
    pub(super) fn new(options: &Options, rows: Vec<Row>) -> Self {
        Self {
            seed: options.seed,
            rate: options.rate,
            minutes: 0.0,
            made: 0,
            resent: 0,
            injections: 0,
            rows,
            total: Findings::default(),
            rewinds: 0,
            looks: 0,
            memory: Vec::new(),
            samples: Value::Null,
        }
    }

    /// Adds the strikes of a fault.
    pub(super) fn add(&mut self, name: &str, times: u32, recoveries: &[f64]) {
        let row = self.row(name);
        row.times += times;
        row.recoveries.extend(recoveries);
    }

    fn row(&mut self, name: &str) -> &mut Row {
        self.rows.iter_mut().find(|row| row.name == name).expect("a row for each fault")
    }

    /// Adds the findings in the turns of a fault.
    pub(super) fn found(&mut self, name: &str, findings: &Findings) {
        let row = self.row(name);
        row.lost += findings.lost;
        row.doubled += findings.doubled;
        row.unequal += findings.unequal;
    }

    /// Whether nothing was lost, doubled or unequal, and no offset went back.
    pub fn is_clean(&self) -> bool {
        let clean = |row: &Row| row.lost + row.doubled + row.unequal == 0;
        self.rows.iter().all(clean) && self.total.none() && self.rewinds == 0
    }

    /// The whole result as JSON.
    pub fn json(&self) -> Value {
        let row = |row: &Row| {
            let (median, most) = row.recovery().unzip();
            json!({
                "fault": row.name, "what": row.what, "times": row.times, "lost": row.lost, "doubled": row.doubled,
                "unequal": row.unequal, "recovery_median_s": median, "recovery_max_s": most,
            })
        };
        let memory = |memory: &Memory| {
            json!({
                "process": memory.name, "minutes": memory.minutes, "first_mib": memory.first_mib,
                "max_mib": memory.most_mib, "last_mib": memory.last_mib, "slope_mib_per_hour": memory.slope_mib_h,
            })
        };
        json!({
            "seed": self.seed, "rate": self.rate, "minutes": self.minutes, "made": self.made, "resent": self.resent,
            "injections": self.injections, "rewinds": self.rewinds, "looks": self.looks, "clean": self.is_clean(),
            "lost": self.total.lost, "doubled": self.total.doubled, "unequal": self.total.unequal,
            "examples": self.total.examples,
            "faults": self.rows.iter().map(row).collect::<Vec<_>>(),
            "memory": self.memory.iter().map(memory).collect::<Vec<_>>(),
            "memory_samples": self.samples,
        })
    }
}

impl Findings {
    /// The result on one line.
    pub fn summary(&self) -> String {
        let equal = if self.unequal == 0 { "aggregates equal".to_owned() } else { format!("{} UNEQUAL", self.unequal) };
        format!("{} lost, {} doubled, {equal}", self.lost, self.doubled)
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let width = self.rows.iter().map(|row| row.what.len()).max().unwrap_or(0).max(9);
        writeln!(f, "| {:width$} | times | lost | doubled | aggregates equal | recovery, s: median | most |", "fault")?;
        writeln!(f, "|{:-<1$}|---|---|---|---|---|---|", "", width + 2)?;
        for row in &self.rows {
            let Some((median, most)) = row.recovery() else { continue };
            let equal = if row.unequal == 0 { "yes" } else { "NO" };
            let Row { what, times, lost, doubled, .. } = row;
            writeln!(f, "| {what:width$} | {times} | {lost} | {doubled} | {equal} | {median:.1} | {most:.1} |")?;
        }
        let Self { seed, minutes, made, resent, injections, rewinds, looks, total, .. } = self;
        writeln!(f, "\nseed {seed}, {minutes:.1} min, {made} events made, {injections} injections stored")?;
        writeln!(f, "{resent} reports sent again; everything compared at the end: {}", total.summary())?;
        writeln!(f, "offsets and positions went back {rewinds} times in {looks} looks\n")?;
        if !self.memory.is_empty() {
            writeln!(f, "| process | minutes | first, MiB | most | last | slope, MiB/h |")?;
            writeln!(f, "|---|---|---|---|---|---|")?;
        }
        for Memory { name, minutes, first_mib, most_mib, last_mib, slope_mib_h } in &self.memory {
            let figures = format!("{minutes:.1} | {first_mib:.1} | {most_mib:.1} | {last_mib:.1} | {slope_mib_h:.1}");
            writeln!(f, "| {name} | {figures} |")?;
        }
        Ok(())
    }
}
