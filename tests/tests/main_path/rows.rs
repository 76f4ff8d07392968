//! Compares the base tables with the truth file: the same rows, and every value in each row.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::RangeInclusive,
};

use harness::ClickHouse;
use serde_json::Value;

use crate::{
    expected::{self, Row},
    sums::Sums,
    truth::{Fate, Key, Truth, boot, parse},
};

/// Columns that describe how a row was loaded. The truth file does not know them.
const PROVENANCE: [&str; 8] =
    ["received_at", "kafka_offset", "ingest_day", "incarnation", "kafka_partition", "batch", "gen", "batch_hash"];
/// Fields that the outbox adds to a heartbeat when it is sent.
const OUTBOX: [&str; 2] = ["outbox_events", "oldest_unreceipted_s"];

/// Differences: how many there are, and the first few.
#[derive(Default)]
pub struct Differences {
    count: usize,
    first: Vec<String>,
}

impl Differences {
    pub fn add(&mut self, difference: impl FnOnce() -> String) {
        self.count += 1;
        if self.first.len() < 10 {
            self.first.push(difference());
        }
    }

    #[track_caller]
    pub fn assert_none(&self, what: &str) {
        assert!(self.count == 0, "{} differences in {what}, such as\n{}", self.count, self.first.join("\n"));
    }
}

/// The rows of a table by event and index, as text.
struct Table {
    columns: Vec<String>,
    rows: HashMap<(Key, u64), String>,
}

fn fetch(clickhouse: &ClickHouse, table: &str, condition: &str) -> (Vec<String>, Vec<String>) {
    let times = clickhouse.query(&format!(
        "SELECT name FROM system.columns WHERE database = 'doseline' AND table = '{table}' AND type LIKE '%DateTime64%'"
    ));
    let times: Vec<_> = times.lines().map(|time| format!("toUnixTimestamp64Micro({time}) AS {time}")).collect();
    let sql = format!(
        "SELECT * REPLACE ({}) FROM doseline.{table} WHERE {condition} FORMAT JSONCompactEachRowWithNames \
         SETTINGS output_format_json_quote_64bit_integers = 0",
        times.join(", ")
    );
    let text = clickhouse.query(&sql);
    let mut lines = text.lines().map(str::to_owned);
    let columns = lines.next().expect("a line of names");
    (serde_json::from_str(&columns).expect("names"), lines.collect())
}

fn cells(row: &str) -> Vec<Value> {
    serde_json::from_str(row).expect("a row")
}

impl Table {
    fn fetch(clickhouse: &ClickHouse, table: &str, differences: &mut Differences) -> Self {
        let (columns, lines) = fetch(clickhouse, table, "true");
        let place = |name: &str| columns.iter().position(|column| column == name);
        let keys = ["tenant", "device", "boot_id", "seq"].map(|name| place(name).expect("a key column"));
        let index = place("index");
        let mut rows = HashMap::with_capacity(lines.len());
        for line in lines {
            let cells = cells(&line);
            let text = |place: usize| cells[place].as_str().expect("a text").to_owned();
            let number = |place: usize| cells[place].as_u64().expect("a number");
            let key = (text(keys[0]), text(keys[1]), number(keys[2]), number(keys[3]));
            if let Some(earlier) = rows.insert((key, index.map_or(0, number)), line) {
                differences.add(|| format!("{table}: twice: {earlier}"));
            }
        }
        Self { columns, rows }
    }
}

/// Compares every table of events, and adds every stored injection to the sums.
pub fn check(clickhouse: &ClickHouse, truth: &Truth, received: &RangeInclusive<i64>, sums: &mut Sums) {
    let mut differences = Differences::default();
    let tables = expected::TABLES.into_iter().filter(|table| *table != "device_status");
    let mut tables: BTreeMap<_, _> =
        tables.map(|table| (table, Table::fetch(clickhouse, table, &mut differences))).collect();
    let mut counts = BTreeMap::new();
    for (key, event) in truth.events.iter().filter(|(_, event)| event.fate == Fate::Stored) {
        let line = event.line();
        for placed in expected::rows(&line) {
            let table = tables.get_mut(placed.table).expect("a table of events");
            *counts.entry(placed.table).or_insert(0) += 1;
            let Some(row) = table.rows.remove(&(key.clone(), placed.index)) else {
                differences.add(|| format!("{}: missing: {line}", placed.table));
                continue;
            };
            let at = compare(placed.table, &table.columns, &cells(&row), &placed.row, &[], received, &mut differences);
            if placed.table == "injections" {
                sums.add(&line, at);
            }
        }
    }
    for (name, table) in &tables {
        for row in table.rows.values() {
            differences.add(|| format!("{name}: not in the truth as stored: {row}"));
        }
        assert!(counts.get(name).is_some_and(|count| *count > 0), "the truth has nothing for {name}");
    }
    println!("rows as in the truth: {counts:?}");
    differences.assert_none("base rows");
}

/// Compares one row, and returns the time under which it is stored.
fn compare(
    table: &str,
    columns: &[String],
    cells: &[Value],
    expected: &Row,
    ignored: &[&str],
    received: &RangeInclusive<i64>,
    differences: &mut Differences,
) -> i64 {
    let cell = |name: &str| columns.iter().position(|column| column == name).map(|place| &cells[place]);
    let received_at = cell("received_at").and_then(Value::as_i64).expect("a time of receipt");
    if !received.contains(&received_at) {
        differences.add(|| format!("{table}: received at {received_at}, not within {received:?}: {cells:?}"));
    }
    for (column, actual) in columns.iter().zip(cells) {
        if PROVENANCE.contains(&column.as_str()) || ignored.contains(&column.as_str()) {
            continue;
        }
        let is_equal = match expected.get(column) {
            Some(Value::Null) if column == "at" => actual.as_i64() == Some(received_at),
            Some(expected) => expected == actual,
            None => false,
        };
        if !is_equal {
            differences.add(|| format!("{table}.{column}: {actual}, not {:?}, in {cells:?}", expected.get(column)));
        }
    }
    for column in expected.columns().filter(|column| cell(column).is_none()) {
        differences.add(|| format!("{table} has no column {column}"));
    }
    cell("at").and_then(Value::as_i64).expect("a time")
}

/// Heartbeats are outside the sequence and sent once. One may be lost, but none may be invented.
pub fn check_heartbeats(clickhouse: &ClickHouse, truth: &Truth, received: &RangeInclusive<i64>) {
    let (columns, lines) = fetch(clickhouse, "device_status", "source = 'HEARTBEAT'");
    let mut made: BTreeMap<_, Vec<Row>> = BTreeMap::new();
    for line in &truth.heartbeats {
        let row = expected::rows(line).remove(0).row;
        made.entry(boot(line)).or_default().push(row);
    }
    let mut differences = Differences::default();
    let place = |name: &str| columns.iter().position(|column| column == name).expect("a column");
    let keys = ["tenant", "device", "boot_id", "last_seq", "temperature_mc"].map(place);
    for line in &lines {
        let cells = cells(line);
        let [tenant, device, boot_id, ..] = keys.map(|place| cells[place].clone());
        let boot = (tenant, device, boot_id);
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let rows = made.get_mut(&(text(&boot.0), text(&boot.1), boot.2.as_u64().expect("a boot")));
        let rows = rows.map_or(&mut [] as &mut [Row], Vec::as_mut_slice);
        // The columns that distinguish the heartbeats of a boot.
        let is_it =
            |row: &&mut Row| [keys[3], keys[4]].iter().all(|place| row.get(&columns[*place]) == Some(&cells[*place]));
        match rows.iter_mut().find(is_it) {
            Some(row) => {
                compare("device_status", &columns, &cells, row, &OUTBOX, received, &mut differences);
            }
            None => differences.add(|| format!("device_status: never made: {line}")),
        }
    }
    differences.assert_none("heartbeats");
    let distinct: BTreeSet<_> = lines.iter().map(|line| keys.map(|place| cells(line)[place].to_string())).collect();
    println!("{} of {} heartbeats have arrived", distinct.len(), truth.heartbeats.len());
    assert!(distinct.len() * 2 > truth.heartbeats.len(), "most heartbeats are missing");
}

/// The rows of a query, as arrays.
pub fn select(clickhouse: &ClickHouse, sql: &str) -> Vec<Vec<Value>> {
    let text = clickhouse
        .query(&format!("{sql} FORMAT JSONCompactEachRow SETTINGS output_format_json_quote_64bit_integers = 0"));
    text.lines().map(|line| serde_json::from_value(parse(line)).expect("a row")).collect()
}
