//! Clients that share no code with doseline: a device in Python that was written from `/proto`
//! alone, and a reader of ClickHouse.

use std::{path::Path, time::Duration};

use harness::{ClickHouse, Python, Scratch, Stack, clients, poll};
use prost::Message as _;
use serde_json::{Value, json};
use telemetry::{json::transcode_report, v1};

const WITHIN: Duration = Duration::from_secs(180);
/// Tables for which the report has rows, with their number.
const TABLES: [(&str, u64); 4] = [("injections", 2), ("sessions", 2), ("mounts", 1), ("faults", 1)];
/// Columns that differ between two devices that sent the same report.
const OWN: &str = "device, received_at, kafka_offset, ingest_day, incarnation, kafka_partition, batch, gen, batch_hash";

#[test]
fn a_device_in_python_sends_json_and_protobuf_and_both_become_the_same_rows() {
    let (stack, scratch) = (Stack::start("[load]\nbatch_age_ms = 200"), Scratch::new("independent"));
    let (_bridge, _load) = (stack.role("bridge"), stack.role("load"));
    let proto = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto");
    let proto = proto.canonicalize().expect("the contract");
    let port = stack.mosquitto.port().to_string();
    let folder = |path: &Path| path.to_str().expect("a plain path").to_owned();
    // One minute ago, so that the device's clock is right.
    let base_us = monitor::now_us() - 60_000_000;
    let arguments = ["127.0.0.1", &port, &folder(&proto), &folder(scratch.path()), &base_us.to_string()];
    print!("{}", Python::run("independent_client.py", &arguments));

    let clickhouse = &stack.clickhouse;
    for (table, rows) in TABLES {
        let count = format!("SELECT count() FROM doseline.{table} WHERE tenant = 'independent'");
        poll(WITHIN, &format!("the rows of {table}"), || match clickhouse.number(&count) {
            count if count == 2 * rows => Ok(()),
            count => Err(count),
        });
        let of = |device: &str| {
            let condition = format!("tenant = 'independent' AND device = '{device}'");
            clickhouse.query(&format!(
                "SELECT * EXCEPT ({OWN}) FROM doseline.{table} WHERE {condition} ORDER BY seq FORMAT JSONEachRow"
            ))
        };
        let (json, protobuf) = (of("by-json"), of("by-protobuf"));
        assert_eq!(json.lines().count() as u64, rows, "{table}");
        assert_eq!(json, protobuf, "{table}");
    }
    check_values(clickhouse, base_us);
    let quarantined = "SELECT device, reason, payload FROM doseline.quarantine ORDER BY device";
    let expected = "by-json\tbad_json\t{this is no report}\nby-protobuf\tbad_protobuf\t\\bthis is no report";
    poll(WITHIN, "the quarantine", || match clickhouse.query(quarantined) {
        rows if rows == expected => Ok(()),
        rows => Err(rows),
    });
}

/// Equal rows could still be wrong, so this checks their values.
fn check_values(clickhouse: &ClickHouse, base_us: i64) {
    let select = |table: &str| {
        let times = "toUnixTimestamp64Micro(at) AS at";
        let allergy = if table == "sessions" { ", toUnixTimestamp64Micro(allergy_at) AS allergy_at" } else { "" };
        clickhouse.rows(&format!(
            "SELECT * EXCEPT ({OWN}) REPLACE ({times}{allergy}) FROM doseline.{table} WHERE device = 'by-json' ORDER BY seq"
        ))
    };
    let row = |seq: u64, at: i64, more: Value| {
        let mut row = json!({
            "tenant": "independent", "site": "clinic", "boot_id": 12_897_550_318_u64, "seq": seq,
            "at": base_us + at, "time_source": "DEVICE", "model": "mesogun-2", "firmware": "2.5.0",
            "session_id": "000102030405060708090a0b0c0d0e0f", "flags": 0,
        });
        let (row_fields, more) = (row.as_object_mut().expect("an object"), more.as_object().expect("an object"));
        row_fields.extend(more.clone());
        row
    };
    let injection = |more: Value| {
        let mut injection = json!({
            "clock": "SYNCED", "area": "", "target_um": null, "measured_um": null, "depth_source": "",
            "angle_mdeg": null, "duration_us": null, "punctures": null, "needle_count": null, "peak_force_mn": null,
            "pressure_pa": null, "vacuum_pa": null, "motor_ma": null, "needle_mount_id": "mount-1",
            "needle_item_id": "needle 30G \u{e9}", "syringe_mount_id": "mount-2", "syringe_item_id": "",
            "handpiece_mount_id": "", "handpiece_item_id": "", "dose_calibration_id": "cal-1",
            "depth_calibration_id": "", "preparation_id": "", "operator_id": "op-7",
        });
        injection.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        injection
    };
    let first = json!({
        "injection_no": 18_000_000_001_u64, "shot": 1, "mode": "SINGLE", "outcome": "OK", "area": "FACE",
        "target_nl": 20_000, "delivered_nl": 19_985, "dose_source": "ENCODER", "target_um": 1_500,
        "measured_um": 1_483, "depth_source": "OPTICAL", "angle_mdeg": 90_000, "duration_us": 81_000,
        "needle_count": 1, "peak_force_mn": 2_400, "pressure_pa": -350, "vacuum_pa": 0, "motor_ma": 310,
    });
    let second = json!({
        "injection_no": 18_000_000_002_u64, "shot": 2, "mode": "", "outcome": "PARTIAL", "target_nl": 20_000,
        "delivered_nl": 0, "dose_source": "",
    });
    let injections = [row(3, 2_500_000, injection(first)), row(4, 3_500_000, injection(second))];
    assert_eq!(select("injections"), injections);

    let started = json!({
        "event": "STARTED", "operator_id": "op-7", "course_id": "ff0001", "course_index": 2, "course_planned": null,
        "interval_days": null, "client_ref": "client 9", "allergy_result": "NEGATIVE",
        "allergy_at": base_us - 864_000_000_000 + 1, "allergy_formula_id": "", "licence": "", "shots": null,
        "delivered_nl": null, "reason": "",
    });
    let ended = json!({
        "event": "ENDED", "operator_id": "op-7", "course_id": "", "course_index": null, "course_planned": null,
        "interval_days": null, "client_ref": "", "allergy_result": "", "allergy_at": null, "allergy_formula_id": "",
        "licence": "", "shots": 2, "delivered_nl": 19_985, "reason": "done",
    });
    assert_eq!(select("sessions"), [row(1, 0, started), row(6, 9_000_000, ended)]);

    let mounted = json!({
        "event": "MOUNTED", "slot": "NEEDLE", "mount_id": "mount-1", "item_id": "needle 30G \u{e9}", "id_kind": "",
        "udi_di": "", "lot": "", "expiry": "2028-02-29", "type": "", "gauge": 30, "reusable": false, "pack_id": "",
        "pack_intact": true, "fill_nl": null, "volume_nl": null, "residual_nl": null, "residual_source": "",
        "rinse_water": "", "operator_id": "op-7",
    });
    assert_eq!(select("mounts"), [row(2, 1_000, mounted)]);

    let fault = json!({"code": "E-17", "state": "RAISED", "detail": "occlusion \u{2265} 3 bar"});
    assert_eq!(select("faults"), [row(5, 3_600_000, fault)]);
}

#[test]
fn clickhouse_connect_uses_the_engine_unchanged() {
    let clickhouse = ClickHouse::start();
    print!(
        "{}",
        Python::run("clickhouse_connect_check.py", &["127.0.0.1", &clickhouse.port().to_string(), harness::PASSWORD])
    );
}

#[test]
fn clickhouse_go_uses_the_engine_over_http() {
    let clickhouse = ClickHouse::start();
    let address = format!("127.0.0.1:{}", clickhouse.port());
    for password in [harness::PASSWORD, ""] {
        let Some(mut go) = clients::go() else { return };
        let output = go.args(["clickhouse", &address, password]).output().expect("run the client in Go");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// What `cancel()` and `setQueryTimeout` are to a driver is a query that the server ends.
#[test]
fn jdbc_ends_a_query_by_time_out_and_by_cancel() {
    let clickhouse = ClickHouse::start();
    let address = format!("127.0.0.1:{}", clickhouse.port());
    let output = clients::jdbc().args([&address, harness::PASSWORD]).output().expect("run the client in Java");
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}{errors}");
    print!("{said}");
}

/// Reports as JSON, each as Google's own implementation reads it. Where it is laxer than RFC 8259
/// or rounds, doseline refuses.
#[test]
fn json_is_read_as_googles_implementation_reads_it() {
    /// What Python's implementation accepts beyond the canonical mapping: numbers that JSON does
    /// not have, a number that it rounds to 0, letters that are not base64, both spellings of a
    /// name, and lists for messages.
    const PYTHONS: [&str; 7] =
        ["\"01\"", "\"1.\"", "1e-400", "\"***\"", "{\"bootId\":1,\"boot_id\":2}", "{\"context\":[]}", "[]"];
    /// For an enum it truncates fractions, accepts truth values as numbers, and ignores numbers
    /// beyond 32 bits.
    const PYTHONS_ENUM: &str = "{\"clock\":";
    let scratch = Scratch::new("json-format");
    let proto = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto").canonicalize().expect("the contract");
    let folder = |path: &Path| path.to_str().expect("a plain path").to_owned();
    let table = Python::run("json_format_table.py", &[&folder(&proto), &folder(scratch.path())]);
    let (mut read, mut refused, mut differences) = (0, 0, Vec::new());
    for line in table.lines() {
        let case: Value = serde_json::from_str(line).expect("a case");
        let text = case["json"].as_str().expect("a text");
        let theirs = case["wire"].as_str().map(|hex| {
            let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex");
            let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
            v1::Report::decode(bytes.as_slice()).expect("a report")
        });
        let ours = transcode_report(text.as_bytes()).ok();
        let ours = ours.map(|read| v1::Report::decode(read.message.as_slice()).expect("a report"));
        *if theirs.is_some() { &mut read } else { &mut refused } += 1;
        let is_lax = text.starts_with(PYTHONS_ENUM)
            || PYTHONS
                .iter()
                .any(|lax| if lax.starts_with('"') || *lax == "1e-400" { text.contains(lax) } else { text == *lax });
        let is_stricter = ours.is_none() && is_lax;
        if ours != theirs && !is_stricter {
            differences.push(format!("{text}\n  doseline {ours:?}\n  Google   {theirs:?}"));
        }
    }
    assert!(read > 400 && refused > 400, "{read} read, {refused} refused");
    assert!(differences.is_empty(), "{} differences\n{}", differences.len(), differences.join("\n"));
}
