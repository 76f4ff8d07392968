//! Figures as tables for people, and as JSON.

use std::fmt::{Display, Formatter};
use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use super::Options;

/// Figures of one scenario that belong together. The names of columns contain the unit.
#[derive(Clone, Debug)]
pub struct Table {
    /// Title of the table.
    pub title: &'static str,
    /// Conditions of all its figures.
    pub conditions: String,
    /// Rows, all with the same columns.
    pub rows: Vec<Row>,
}

/// Column names with their values.
pub type Row = Vec<(&'static str, Value)>;

/// The figures of a whole run.
#[derive(Clone, Debug)]
pub struct Report {
    /// Machine and versions, by name.
    pub conditions: Row,
    /// Tables in the order of measurement.
    pub tables: Vec<Table>,
    /// Scenarios without figures, because an event was missing or doubled.
    pub failed: Vec<&'static str>,
}

impl Report {
    pub(super) fn new(options: &Options) -> Self {
        Self { conditions: conditions(options), tables: Vec::new(), failed: Vec::new() }
    }

    /// The whole report as JSON.
    pub fn json(&self) -> Value {
        let object = |row: &Row| row.iter().cloned().map(|(name, value)| (name.to_owned(), value)).collect::<Value>();
        let table = |table: &Table| {
            let rows: Vec<_> = table.rows.iter().map(object).collect();
            json!({ "title": table.title, "conditions": table.conditions, "rows": rows })
        };
        json!({
            "conditions": object(&self.conditions),
            "tables": self.tables.iter().map(table).collect::<Vec<_>>(),
            "failed": self.failed,
        })
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        for (name, value) in &self.conditions {
            writeln!(f, "- {}: {}", name.replace('_', " "), cell(value))?;
        }
        for table in &self.tables {
            writeln!(f, "\n### {}\n\n{}\n", table.title, table.conditions)?;
            let Some(first) = table.rows.first() else { continue };
            let names: Vec<_> = first.iter().map(|(name, _)| name.replace('_', " ")).collect();
            writeln!(f, "| {} |\n|{}", names.join(" | "), "---|".repeat(names.len()))?;
            for row in &table.rows {
                let cells: Vec<_> = row.iter().map(|(_, value)| cell(value)).collect();
                writeln!(f, "| {} |", cells.join(" | "))?;
            }
        }
        for name in &self.failed {
            writeln!(f, "\n**{name} failed**: its figures are left out")?;
        }
        Ok(())
    }
}

/// Formats numbers with three significant digits.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(number) => match number.as_f64() {
            Some(figure) if number.is_f64() => {
                let decimals = match figure.abs() {
                    100.0.. => 0,
                    10.0.. => 1,
                    1.0.. => 2,
                    _ => 3,
                };
                format!("{figure:.decimals$}")
            }
            _ => number.to_string(),
        },
        other => other.to_string(),
    }
}

fn conditions(options: &Options) -> Row {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let after = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map_or_else(String::new, |(_, value)| value.trim().to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory_kib: f64 = after(&read("/proc/meminfo"), "MemTotal").trim_end_matches(" kB").parse().unwrap_or(0.0);
    let load: f64 = read("/proc/loadavg").split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0);
    vec![
        ("processor", after(&read("/proc/cpuinfo"), "model name").into()),
        ("cores_for_everything", cores.into()),
        ("memory_gib", (memory_kib / f64::from(1 << 20)).into()),
        ("kernel", read("/proc/sys/kernel/osrelease").trim().into()),
        ("mosquitto", mosquitto_version().into()),
        ("kafka", "Apache Kafka 4.1.0, one node, 512 MiB heap".into()),
        ("clickhouse", "26.7, embedded engine in a process of its own".into()),
        ("doseline", "release profile, default configuration unless said otherwise".into()),
        ("load_average_before", load.into()),
        ("quick", options.quick.into()),
    ]
}

fn mosquitto_version() -> String {
    let output = Command::new("mosquitto_sub").arg("--version").output();
    let said = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    said.split_whitespace().nth(2).unwrap_or("unknown").trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_markdown_with_units_in_its_head() {
        let row = |rate: u64, cpu: f64| vec![("reports_per_s", rate.into()), ("cpu_us_per_report", cpu.into())];
        let table = Table { title: "Bridge", conditions: "none".to_owned(), rows: vec![row(2_000, 9.87654)] };
        let report = Report { conditions: Row::new(), tables: vec![table], failed: vec!["loader"] };
        let text = report.to_string();
        assert!(text.contains("| reports per s | cpu us per report |\n|---|---|\n| 2000 | 9.88 |"), "{text}");
        assert!(text.contains("**loader failed**"), "{text}");
        assert_eq!(report.json()["tables"][0]["rows"][0]["reports_per_s"], 2_000);
    }
}
