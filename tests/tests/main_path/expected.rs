//! The rows that an event of the truth file must become. They are derived from its canonical JSON,
//! without any of doseline's own code.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::truth::string;

/// Every table of events.
pub const TABLES: [&str; 12] = [
    "injections",
    "sessions",
    "preparations",
    "mounts",
    "sterilization_cycles",
    "sterilization_samples",
    "sterilization_items",
    "cycle_indicators",
    "cycle_releases",
    "calibrations",
    "faults",
    "device_status",
];

/// A row by column. `at` is NULL if the time of receipt is used.
#[derive(Clone)]
pub struct Row(BTreeMap<&'static str, Value>);

pub struct Placed {
    pub table: &'static str,
    /// Number of the row among the rows of its event.
    pub index: u64,
    pub row: Row,
}

/// The rows of one line of the truth file; none for an event of a kind that no server knows.
pub fn rows(line: &Value) -> Vec<Placed> {
    let Some((kind, of)) = line["event"].as_object().and_then(|event| event.iter().next()) else { return Vec::new() };
    let mut row = facts(line);
    let context = &line["context"];
    let table = match kind.as_str() {
        "injection" => {
            injection(&mut row, line, of);
            "injections"
        }
        "sessionStarted" | "sessionEnded" => {
            session(&mut row, context, kind, of);
            "sessions"
        }
        "consumableMounted" | "primed" | "consumableRemoved" | "reprocessed" => {
            mount(&mut row, context, kind, of);
            "mounts"
        }
        "preparation" => return preparation(row, context, of),
        "sterilizationCycle" => return cycle(row, of),
        "calibration" => return calibration(row, context, of),
        "cycleIndicator" => {
            row.texts(of, &["cycle_uid", "lot"]);
            row.codes(of, &[("kind", "INDICATOR_KIND_"), ("result", "INDICATOR_RESULT_")]);
            row.number(of, "read_at", "readUnixUs");
            row.texts(context, &["operator_id"]);
            "cycle_indicators"
        }
        "cycleRelease" => {
            row.texts(of, &["cycle_uid", "actor"]);
            row.codes(of, &[("decision", "RELEASE_DECISION_")]);
            row.number(of, "decided_at", "atUnixUs");
            "cycle_releases"
        }
        "fault" => {
            row.texts(of, &["code", "detail"]);
            row.codes(of, &[("state", "FAULT_STATE_")]);
            "faults"
        }
        "heartbeat" => {
            row.set("source", "HEARTBEAT".into());
            row.set("state", "".into());
            row.set("since", Value::Null);
            row.numbers(of, &["battery_pct", "temperature_mc", "injection_no", "last_seq"]);
            row.number(of, "last_boot_id", "bootId");
            "device_status"
        }
        other => panic!("no table for {other}"),
    };
    vec![Placed { table, index: 0, row }]
}

/// The columns that every event has.
fn facts(line: &Value) -> Row {
    let mut row = Row(BTreeMap::new());
    for name in ["tenant", "site", "device"] {
        row.set(name, line[name].clone());
    }
    row.set("boot_id", number(&line["boot_id"]));
    row.set("seq", if line["seq"].is_null() { 0.into() } else { line["seq"].clone() });
    row.set("at", line["at_unix_us"].clone());
    let source = if line["at_unix_us"].is_null() { "RECEIVED" } else { "DEVICE" };
    row.set("time_source", source.into());
    let context = &line["context"];
    row.texts(context, &["model", "firmware"]);
    row.hex(context, "session_id", "sessionId");
    row.set("flags", implausible(line).into());
    row
}

/// Bit 2 of `flags`: the clock says that it is synced, but its time is not used.
fn implausible(line: &Value) -> u64 {
    4 * u64::from(line["clock"] == "SYNCED" && line["at_unix_us"].is_null())
}

fn injection(row: &mut Row, line: &Value, of: &Value) {
    let context = &line["context"];
    row.set("clock", line["clock"].clone());
    let numbers = [
        "injection_no",
        "shot",
        "target_nl",
        "delivered_nl",
        "target_um",
        "measured_um",
        "angle_mdeg",
        "duration_us",
        "punctures",
        "needle_count",
        "peak_force_mn",
        "pressure_pa",
        "vacuum_pa",
        "motor_ma",
    ];
    row.numbers(of, &numbers);
    row.codes(of, &[("mode", "MODE_"), ("outcome", "OUTCOME_"), ("area", "AREA_")]);
    row.codes(of, &[("dose_source", "DOSE_SOURCE_"), ("depth_source", "DEPTH_SOURCE_")]);
    let slots = [
        ("SLOT_NEEDLE", "needle_mount_id", "needle_item_id"),
        ("SLOT_SYRINGE", "syringe_mount_id", "syringe_item_id"),
        ("SLOT_HANDPIECE", "handpiece_mount_id", "handpiece_item_id"),
    ];
    for (slot, mount_id, item_id) in slots {
        let mount = context["mounts"].as_array().into_iter().flatten().find(|mount| mount["slot"] == slot);
        let mount = mount.unwrap_or(&Value::Null);
        row.set(mount_id, text(&mount["mountId"]));
        row.set(item_id, text(&mount["itemId"]));
    }
    row.texts(context, &["dose_calibration_id", "depth_calibration_id", "preparation_id", "operator_id"]);
    // Bit 0: an enum has a value that this version does not know. JSON writes it as a number.
    let is_unknown =
        ["mode", "outcome", "area", "doseSource", "depthSource"].iter().any(|field| of[*field].is_number());
    row.0.insert("flags", (u64::from(is_unknown) + implausible(line)).into());
}

fn session(row: &mut Row, context: &Value, kind: &str, of: &Value) {
    row.set("event", if kind == "sessionStarted" { "STARTED" } else { "ENDED" }.into());
    row.texts(context, &["operator_id"]);
    row.hex(of, "course_id", "courseId");
    row.numbers(of, &["course_index", "course_planned", "interval_days", "shots", "delivered_nl"]);
    row.texts(of, &["client_ref", "allergy_formula_id", "reason"]);
    row.codes(of, &[("allergy_result", "ALLERGY_RESULT_"), ("licence", "LICENCE_")]);
    row.number(of, "allergy_at", "allergyUnixUs");
}

fn mount(row: &mut Row, context: &Value, kind: &str, of: &Value) {
    let event = match kind {
        "consumableMounted" => "MOUNTED",
        "primed" => "PRIMED",
        "consumableRemoved" => "REMOVED",
        _ => "REPROCESSED",
    };
    row.set("event", event.into());
    row.texts(of, &["mount_id", "item_id", "udi_di", "lot", "expiry", "type", "pack_id"]);
    row.codes(of, &[("slot", "SLOT_"), ("id_kind", "ID_KIND_")]);
    row.codes(of, &[("residual_source", "RESIDUAL_SOURCE_"), ("rinse_water", "RINSE_WATER_")]);
    row.numbers(of, &["gauge", "fill_nl", "volume_nl", "residual_nl"]);
    for name in ["reusable", "pack_intact"] {
        row.set(name, of[camel(name)].clone());
    }
    row.texts(context, &["operator_id"]);
}

fn preparation(mut row: Row, context: &Value, of: &Value) -> Vec<Placed> {
    row.texts(of, &["preparation_id", "formula_id"]);
    row.number(of, "prepared_at", "preparedUnixUs");
    row.number(of, "use_by", "useByUnixUs");
    row.texts(context, &["operator_id"]);
    each("preparations", row, &of["components"], Some("components"), |row, component| {
        row.texts(component, &["udi_di", "lot", "expiry", "container_id"]);
        row.number(component, "opened_at", "openedUnixUs");
        row.numbers(component, &["volume_nl"]);
    })
}

fn calibration(mut row: Row, context: &Value, of: &Value) -> Vec<Placed> {
    row.texts(of, &["subject_device", "calibration_id", "certificate"]);
    row.codes(of, &[("channel", "CHANNEL_")]);
    row.number(of, "performed_at", "performedUnixUs");
    row.number(of, "due_at", "dueUnixUs");
    row.texts(context, &["operator_id"]);
    each("calibrations", row, &of["points"], Some("points"), |row, point| {
        row.numbers(point, &["target", "reference", "indicated", "expanded_uncertainty", "k"]);
        row.codes(point, &[("phase", "PHASE_")]);
    })
}

fn cycle(row: Row, of: &Value) -> Vec<Placed> {
    let mut cycle = row.clone();
    cycle.texts(of, &["cycle_uid", "recipe"]);
    cycle.numbers(of, &["cycle_no"]);
    cycle.codes(of, &[("purpose", "PURPOSE_")]);
    cycle.set("load_dry", of["loadDry"].clone());
    cycle.set("items", length(&of["items"]).into());
    cycle.set("samples", length(&of["samples"]).into());
    let mut part = row;
    part.texts(of, &["cycle_uid"]);
    let samples = each("sterilization_samples", part.clone(), &of["samples"], None, |row, sample| {
        row.numbers(sample, &["temperature_mc", "pressure_pa"]);
        // Plain numbers of proto3, which JSON leaves out if they are 0.
        for (name, field) in [("offset_ms", "offsetMs"), ("sensor", "sensor")] {
            row.set(name, if sample[field].is_null() { 0.into() } else { number(&sample[field]) });
        }
    });
    let items =
        each("sterilization_items", part, &of["items"], None, |row, item| row.texts(item, &["item_id", "pack_id"]));
    let cycle = Placed { table: "sterilization_cycles", index: 0, row: cycle };
    [vec![cycle], samples, items].into_iter().flatten().collect()
}

/// One row for each element of a list. If `count` names a column, it holds the length of the list,
/// and an empty list gives one row.
fn each(
    table: &'static str,
    row: Row,
    list: &Value,
    count: Option<&'static str>,
    fill: impl Fn(&mut Row, &Value),
) -> Vec<Placed> {
    let mut elements: Vec<&Value> = list.as_array().into_iter().flatten().collect();
    let mut row = row;
    if let Some(count) = count {
        row.set(count, elements.len().into());
        if elements.is_empty() {
            elements.push(&Value::Null);
        }
    }
    let place = |(index, element): (usize, &Value)| {
        let mut row = row.clone();
        row.set("index", index.into());
        fill(&mut row, element);
        Placed { table, index: index as u64, row }
    };
    elements.into_iter().enumerate().map(place).collect()
}

impl Row {
    pub fn get(&self, column: &str) -> Option<&Value> {
        self.0.get(column)
    }

    pub fn columns(&self) -> impl Iterator<Item = &'static str> {
        self.0.keys().copied()
    }

    fn set(&mut self, column: &'static str, value: Value) {
        assert!(self.0.insert(column, value).is_none(), "column {column} has two values");
    }

    /// Sets texts; an absent text is empty.
    fn texts(&mut self, of: &Value, columns: &[&'static str]) {
        for column in columns {
            self.set(column, text(&of[camel(column)]));
        }
    }

    /// Sets numbers; an absent number is NULL.
    fn numbers(&mut self, of: &Value, columns: &[&'static str]) {
        for column in columns {
            self.number(of, column, &camel(column));
        }
    }

    fn number(&mut self, of: &Value, column: &'static str, field: &str) {
        self.set(column, number(&of[field]));
    }

    /// Sets names of enum values without their prefix.
    fn codes(&mut self, of: &Value, columns: &[(&'static str, &str)]) {
        for (column, prefix) in columns {
            self.set(column, code(&of[camel(column)], prefix));
        }
    }

    /// Sets bytes as hexadecimal. JSON has them as base64.
    fn hex(&mut self, of: &Value, column: &'static str, field: &str) {
        self.set(column, hex(&of[field]).into());
    }
}

/// The name of an enum value without its prefix.
pub fn code(value: &Value, prefix: &str) -> Value {
    match value {
        Value::Null => "".into(),
        Value::String(name) => name.strip_prefix(prefix).unwrap_or_else(|| panic!("{name} has no {prefix}")).into(),
        number => number.to_string().into(),
    }
}

pub fn text(value: &Value) -> Value {
    if value.is_null() { "".into() } else { value.clone() }
}

/// 64-bit numbers are texts in canonical JSON.
pub fn number(value: &Value) -> Value {
    value.as_str().map_or_else(|| value.clone(), |digits| serde_json::from_str(digits).expect("a number"))
}

/// Hexadecimal of bytes that are base64 in JSON.
pub fn hex(value: &Value) -> String {
    let (mut hex, mut bits, mut count) = (String::new(), 0u32, 0);
    for letter in value.as_str().unwrap_or_default().bytes().filter(|letter| *letter != b'=') {
        let digit = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => panic!("{value} is not base64"),
        };
        (bits, count) = (bits << 6 | u32::from(digit), count + 6);
        while count >= 8 {
            count -= 8;
            hex.push_str(&format!("{:02x}", bits >> count & 0xff));
        }
    }
    hex
}

fn length(list: &Value) -> usize {
    list.as_array().map_or(0, Vec::len)
}

/// The JSON name of a field.
fn camel(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |camel, word| camel + &word[..1].to_uppercase() + &word[1..])
}

/// Tenant, site, device, model and firmware, which the keys of the sums begin with.
pub fn device(line: &Value) -> Vec<Value> {
    let context = &line["context"];
    let mut key: Vec<Value> = ["tenant", "site", "device"].map(|name| string(line, name).into()).into();
    key.extend([text(&context["model"]), text(&context["firmware"])]);
    key
}
