//! Rows in every table for two tenants. Each text of a tenant begins with its name, so that a
//! foreign row shows wherever it comes out.

use std::collections::BTreeMap;

use harness::ClickHouse;

/// The two tenants. Numbers in their rows are 1 and 2.
pub const TENANTS: [&str; 2] = ["alpha", "beta"];
/// Manufacturer of the units of both tenants.
pub const MAKER: &str = "maker";
/// Model of the units of another manufacturer.
pub const RIVAL_MODEL: &str = "rival-model";

/// Words that views compare with. `{tenant}` stands for the tenant.
const WORDS: &[(&str, &str, &str)] = &[
    ("accuracy_session", "firmware", "'1.0'"),
    ("accuracy_session", "model", "'pen'"),
    ("accuracy_session", "outcome", "'OK'"),
    ("accuracy_verdicts", "state", "'FAIL'"),
    ("alert_history", "event", "'RAISED'"),
    ("alerts", "evidence_rows", "'[{\"detail\":\"{tenant}-detail\"}]'"),
    ("alerts", "severity", "'critical'"),
    ("alerts", "state", "'OPEN'"),
    ("calibrations", "channel", "'DOSE'"),
    ("calibrations", "phase", "'AS_FOUND'"),
    ("device_status", "state", "'ONLINE'"),
    ("devices", "kind", "'INJECTOR'"),
    ("devices", "manufacturer", "'maker'"),
    ("devices", "origin", "'IMPORTED'"),
    ("drift", "band", "0"),
    ("drift", "calibration_id", "'{tenant}-dose_calibration_id'"),
    ("drift", "channel", "'DOSE'"),
    ("drift", "firmware", "'1.0'"),
    ("drift", "parameters", "'{\"cusum_k\":0.5,\"cusum_h\":5,\"ewma_lambda\":0.1,\"ewma_limit\":3,\"spike\":4}'"),
    ("incidents", "subject_kind", "'ITEM'"),
    ("injections", "at", "now64(6) - 3600"),
    ("injections", "outcome", "'OK'"),
    ("item_uses", "slot", "'SYRINGE'"),
    ("loader_commits", "declared_last", "9"),
    ("loader_commits", "kind", "'ledger'"),
    ("mounts", "event", "'MOUNTED'"),
    ("mounts", "slot", "'SYRINGE'"),
    ("sessions", "event", "'STARTED'"),
    ("sterility_verdicts", "state", "'CONFIRMED'"),
];

/// Fills every table.
pub fn fill(clickhouse: &ClickHouse) {
    let columns = clickhouse.rows(
        "SELECT table, name, type FROM system.columns WHERE database = 'doseline' \
         AND default_kind NOT IN ('MATERIALIZED', 'ALIAS') \
         AND table IN (SELECT name FROM system.tables WHERE database = 'doseline' AND engine != 'View') \
         ORDER BY table, position",
    );
    let mut tables: BTreeMap<&str, Vec<(&str, &str)>> = BTreeMap::new();
    for column in &columns {
        let text = |key: &str| column[key].as_str().expect("a text");
        tables.entry(text("table")).or_default().push((text("name"), text("type")));
    }
    for (table, columns) in tables {
        if !columns.iter().any(|(name, _)| *name == "tenant") {
            continue;
        }
        let names: Vec<_> = columns.iter().map(|(name, _)| format!("`{name}`")).collect();
        for (number, tenant) in TENANTS.iter().enumerate() {
            let values: Vec<_> =
                columns.iter().map(|(name, kind)| value(table, name, kind, tenant, number + 1)).collect();
            let (names, values) = (names.join(", "), values.join(", "));
            clickhouse.query(&format!("INSERT INTO doseline.{table} ({names}) SELECT {values}"));
        }
    }
    for sql in [
        "lots (udi_di, lot, product) VALUES ('04012345000016', 'L1', 'Needle')",
        "recalls (recall_id, udi_di, lot, state) VALUES ('R1', '04012345000016', 'L1', 'OPEN')",
        "models (model, dose_tolerance_ppm) VALUES ('pen', 50000)",
        "recipes (tenant, recipe) VALUES ('', 'of everybody')",
        "policies (tenant, name, value) VALUES ('', 'of_everybody', 'keep')",
        "kafka_topics (topic, incarnation, partitions) VALUES ('topic', 1, 1)",
        "loader_commits (kind, incarnation, batch_end, rows) VALUES ('commit', 1, 7, 7)",
        "monitor_positions (reader, seen) VALUES ('accuracy', '{}')",
        // A unit of another manufacturer, and one that has gone from the maker to the other.
        "devices (tenant, device, manufacturer, serial, origin, valid_from) VALUES \
         ('beta', 'rival', 'rival', 'R-1', 'IMPORTED', now64(6) - 60), \
         ('beta', 'sold', 'maker', 'S-1', 'IMPORTED', now64(6) - 60), \
         ('beta', 'sold', 'rival', 'S-1', 'IMPORTED', now64(6) - 30)",
        "accuracy_session (tenant, device, model, target_nl, outcome, injections, dose_n, first_at) VALUES \
         ('beta', 'rival', 'rival-model', 1000, 'OK', 1, 1, now64(6)), \
         ('beta', 'sold', 'rival-model', 1000, 'OK', 1, 1, now64(6))",
        // Many rows at one time, for pages.
        "incidents (tenant, incident_id, subject_kind, recorded_at) SELECT 'alpha', 'alpha-' || toString(number), 'LOT', \
         toDateTime64('2026-01-31 08:00:00.5', 6, 'UTC') FROM numbers(25)",
    ] {
        clickhouse.query(&format!("INSERT INTO doseline.{sql}"));
    }
}

fn value(table: &str, name: &str, kind: &str, tenant: &str, number: usize) -> String {
    if let Some((_, _, word)) = WORDS.iter().find(|(of, column, _)| (*of, *column) == (table, name)) {
        return word.replace("{tenant}", tenant);
    }
    let mut kind = kind;
    for wrapper in ["LowCardinality(", "Nullable("] {
        kind = kind.strip_prefix(wrapper).and_then(|inner| inner.strip_suffix(')')).unwrap_or(kind);
    }
    match (name, kind) {
        ("tenant", _) => format!("'{tenant}'"),
        ("subject_device", _) => format!("'{tenant}-device'"),
        (_, "String") => format!("'{tenant}-{name}'"),
        (_, "Array(String)") => format!("['{tenant}-{name}']"),
        (_, "Bool") => "true".to_owned(),
        (_, kind) if kind.starts_with("Array(") => format!("[{number}]"),
        (_, kind) if kind.starts_with("DateTime") => "now64(6) - 60".to_owned(),
        (_, kind) if kind.starts_with("Date") => "today()".to_owned(),
        _ => number.to_string(),
    }
}
