//! The same data through other programs over the same engines: ClickHouse's own Kafka engine, a
//! bridge in Python, and any command that a person gives.

use std::process::Command;
use std::time::{Duration, Instant};

use super::data::Fleet;
use super::loader;
use super::mqtt::{Publication, Publisher};
use super::queries::sums;
use super::report::{Row, Table};
use super::stage::Stage;
use super::{Options, say, topic};
use crate::usage::{group_cpu_s, rss_peak_mib};
use crate::{ClickHouse, Process, Python, Scratch, cpu_s, free_port, locate, poll};

const DEVICES: u64 = 2_000;
const PER_REPORT: u64 = 10;
const WITHIN: Duration = Duration::from_secs(600);
const REPORTS_TOPIC: &str = telemetry::kafka::REPORTS_TOPIC;
const PROTO: &str = "proto/doseline/telemetry/v1/telemetry.proto";

/// Measures loaders on one topic, then bridges at one rate.
pub fn measure(options: &Options) -> Vec<Table> {
    vec![loaders(options), bridges(options)]
}

fn loaders(options: &Options) -> Table {
    let injections = if options.quick { loader::QUICK_INJECTIONS } else { loader::INJECTIONS };
    let fleet = Fleet { first: 0, devices: DEVICES, per_report: PER_REPORT };
    let mut stage = Stage::start();
    topic::fill(&stage.kafka, fleet, injections / PER_REPORT);
    let loaded = loader::load(&mut stage, fleet, injections);
    let truth = aggregates(&stage.clickhouse);
    let row = |name: &str, own: Option<f64>, clickhouse: f64, wall_s: f64| -> Row {
        let each = |seconds: f64| seconds * 1e6 / injections as f64;
        vec![
            ("loader", name.into()),
            ("loader_cpu_s_per_million", own.map(each).into()),
            ("clickhouse_cpu_s_per_million", each(clickhouse).into()),
            ("both_cpu_s_per_million", each(own.unwrap_or(0.0) + clickhouse).into()),
            ("wall_s", wall_s.into()),
        ]
    };
    let mut rows = vec![row(
        "doseline load",
        Some(loaded.loader_cpu_s),
        loaded.clickhouse_cpu_s + loaded.merge_cpu_s,
        loaded.wall_s,
    )];
    let (before, began) = renewed(&mut stage);
    create_kafka_engine(&stage);
    let (wall_s, clickhouse) = written(&mut stage, injections, began, before, || {});
    loader::check(&stage.clickhouse, fleet, injections);
    assert_eq!(aggregates(&stage.clickhouse), truth, "sums of the Kafka engine's views");
    rows.push(row("ClickHouse's Kafka engine, ProtobufSingle, materialized views", None, clickhouse, wall_s));
    for (name, command) in &options.peers {
        let (before, began) = renewed(&mut stage);
        let scratch = Scratch::new("peer");
        let mut shell = Command::new("sh");
        shell.args(["-c", command]).env("BENCH_KAFKA", stage.kafka.bootstrap()).env("BENCH_TOPIC", REPORTS_TOPIC);
        shell.env("BENCH_CLICKHOUSE", stage.clickhouse.url()).env("BENCH_PROTO", locate::checkout(PROTO));
        shell
            .env("BENCH_RECORDS", (injections / PER_REPORT).to_string())
            .env("BENCH_INJECTIONS", injections.to_string());
        let mut process = Process::start(name, shell, &scratch.join("log"), None);
        let (mut own, group) = (0.0, process.id());
        let (wall_s, clickhouse) = written(&mut stage, injections, began, before, || {
            // Before the parent has waited for a process, its end removes it from the sum.
            own = group_cpu_s(group).max(own);
            let ended = process.exit_status().filter(|status| !status.success());
            assert_eq!(ended, None, "{name} failed:\n{}", process.log());
        });
        loader::check_base(&stage.clickhouse, fleet, injections, name);
        process.kill();
        rows.push(row(name, Some(own), clickhouse, wall_s));
    }
    let conditions = format!(
        "{injections} injections of {DEVICES} devices in reports of {PER_REPORT}, one topic of 12 partitions, a new ClickHouse with \
         the same tables for each; CPU-s for a million injections, merges counted until none has run for 3 s. The Kafka \
         engine: one consumer, blocks of 10,000 reports, flushed every second; a materialized view into `injections`, three on \
         it into the aggregates, whose sums were compared with doseline's; it keeps no ledger and counts twice what it reads \
         twice"
    );
    Table { title: "Loaders", conditions, rows }
}

/// CPU time of an empty ClickHouse, and the current time.
fn renewed(stage: &mut Stage) -> (f64, Instant) {
    stage.renew_clickhouse();
    (stage.engines_cpu_s()[2], Instant::now())
}

/// Waits until the injections are written and no merge runs. Returns the time until they were
/// written, and the whole CPU time of ClickHouse.
fn written(stage: &mut Stage, injections: u64, began: Instant, before: f64, mut look: impl FnMut()) -> (f64, f64) {
    poll(WITHIN, "all injections to be written", || {
        look();
        match stage.clickhouse.number("SELECT sum(injections) FROM doseline.accuracy_minute") {
            count if count == injections => Ok(()),
            _ => match stage.clickhouse.number("SELECT count() FROM doseline.injections") {
                count if count >= injections => Ok(()),
                count => Err(format!("{count} of {injections}")),
            },
        }
    });
    let wall_s = began.elapsed().as_secs_f64();
    stage.clickhouse.rest();
    let clickhouse = stage.engines_cpu_s()[2] - before;
    say(&format!("   a peer in {wall_s:.1} s, ClickHouse {clickhouse:.2} CPU-s"));
    (wall_s, clickhouse)
}

/// Sums that must be the same for every writer.
fn aggregates(clickhouse: &ClickHouse) -> String {
    let sums = "sum(dose_n), sum(dose_error_nl), sum(dose_error_sq), sum(depth_n), sum(depth_error_um), sum(depth_error_sq), \
                min(dose_error_min), max(depth_error_max), sum(ok), sum(partial)";
    let of = |table: &str| clickhouse.query(&format!("SELECT {sums} FROM doseline.{table}"));
    let uses = "SELECT sum(injections), sum(punctures), sum(delivered_nl), sum(delivered_n) FROM doseline.item_uses";
    let bins = "SELECT sumMap(dose_error_bins, dose_error_counts) FROM doseline.accuracy_session";
    [of("accuracy_minute"), of("accuracy_session"), clickhouse.query(uses), clickhouse.query(bins)].join("\n")
}

/// The equivalent of the loader for reports of injections, without its ledger.
fn create_kafka_engine(stage: &Stage) {
    let schema = locate::checkout(PROTO);
    stage.clickhouse.query(&format!(
        "CREATE TABLE doseline.queue (boot_id UInt64, first_seq UInt64, base_unix_us Int64, clock Int32, \
         context Tuple(model String, firmware String, session_id String, \
         mounts Array(Tuple(slot Int32, mount_id String, item_id String)), dose_calibration_id String, \
         depth_calibration_id String, preparation_id String, operator_id String), \
         events Array(Tuple(offset_us UInt64, injection Tuple(shot Nullable(UInt32), injection_no Nullable(UInt64), mode Int32, \
         outcome Int32, area Int32, target_nl Nullable(UInt64), delivered_nl Nullable(UInt64), target_um Nullable(UInt32), \
         measured_um Nullable(UInt32), dose_source Int32, depth_source Int32, angle_mdeg Nullable(UInt32), \
         duration_us Nullable(UInt64), punctures Nullable(UInt32), needle_count Nullable(UInt32), \
         peak_force_mn Nullable(UInt32), pressure_pa Nullable(Int32), vacuum_pa Nullable(UInt32), motor_ma Nullable(UInt32))))) \
         ENGINE = Kafka SETTINGS kafka_broker_list = '{}', kafka_topic_list = '{REPORTS_TOPIC}', kafka_group_name = 'peer-{}', \
         kafka_format = 'ProtobufSingle', kafka_schema = '{}:Report', kafka_num_consumers = 1, \
         kafka_max_block_size = 10000, kafka_poll_max_batch_size = 10000, kafka_flush_interval_ms = 1000",
        stage.kafka.bootstrap(),
        free_port(),
        schema.display()
    ));
    // In reverse order: reading begins with the view that is created last.
    for view in [minutes(), sessions(), uses(), rows()] {
        stage.clickhouse.query(&view);
    }
}

fn rows() -> String {
    let slot = |number: u32, field: &str| format!("arrayFirst(mount -> mount.slot = {number}, context.mounts).{field}");
    let named = |names: &str, field: &str| format!("[{names}][injection.{field} + 1]");
    format!(
        "CREATE MATERIALIZED VIEW doseline.queue_rows TO doseline.injections AS \
         WITH splitByChar('/', _headers.value[indexOf(_headers.name, 'topic')]) AS path, event.injection AS injection, \
         fromUnixTimestamp64Micro(toInt64(_headers.value[indexOf(_headers.name, 'received_at')]), 'UTC') AS received \
         SELECT path[3] AS tenant, path[4] AS site, path[5] AS device, boot_id, first_seq + position - 1 AS seq, \
         if(queue.clock = 1, fromUnixTimestamp64Micro(base_unix_us + toInt64(event.offset_us), 'UTC'), received) AS at, \
         if(queue.clock = 1, 'DEVICE', 'RECEIVED') AS time_source, received AS received_at, context.model AS model, \
         context.firmware AS firmware, lower(hex(context.session_id)) AS session_id, injection.injection_no AS injection_no, \
         injection.shot AS shot, if(queue.clock = 1, 'SYNCED', if(queue.clock = 2, 'UNSYNCED', 'UNKNOWN')) AS clock, \
         {} AS mode, {} AS outcome, {} AS area, \
         injection.target_nl AS target_nl, injection.delivered_nl AS delivered_nl, {} AS dose_source, \
         injection.target_um AS target_um, injection.measured_um AS measured_um, {} AS depth_source, \
         injection.angle_mdeg AS angle_mdeg, injection.duration_us AS duration_us, injection.punctures AS punctures, \
         injection.needle_count AS needle_count, injection.peak_force_mn AS peak_force_mn, \
         injection.pressure_pa AS pressure_pa, injection.vacuum_pa AS vacuum_pa, injection.motor_ma AS motor_ma, \
         {} AS needle_mount_id, {} AS needle_item_id, {} AS syringe_mount_id, {} AS syringe_item_id, \
         {} AS handpiece_mount_id, {} AS handpiece_item_id, context.dose_calibration_id AS dose_calibration_id, \
         context.depth_calibration_id AS depth_calibration_id, context.preparation_id AS preparation_id, \
         context.operator_id AS operator_id, _offset AS kafka_offset, today() AS ingest_day, 1 AS incarnation, \
         toInt32(_partition) AS kafka_partition \
         FROM doseline.queue AS queue ARRAY JOIN events AS event, arrayEnumerate(events) AS position",
        named("'', 'SINGLE', 'CONTINUOUS', 'BURST'", "mode"),
        named("'', 'OK', 'PARTIAL', 'ABORTED', 'OCCLUDED', 'NO_CONTACT'", "outcome"),
        named(
            "'', 'FACE', 'NECK', 'SCALP', 'DECOLLETE', 'ABDOMEN', 'BACK', 'ARM', 'HAND', 'THIGH', 'GLUTEAL', 'LEG', 'FOOT', 'OTHER'",
            "area"
        ),
        named("'', 'ENCODER', 'FLOW', 'FORCE', 'SETTING'", "dose_source"),
        named("'', 'ENCODER', 'FORCE', 'OPTICAL', 'SETTING'", "depth_source"),
        slot(1, "mount_id"),
        slot(1, "item_id"),
        slot(2, "mount_id"),
        slot(2, "item_id"),
        slot(3, "mount_id"),
        slot(3, "item_id"),
    )
}

const DOSED: &str = "isNotNull(target_nl) AND isNotNull(delivered_nl) AND dose_source != 'SETTING'";
const DEEP: &str = "isNotNull(target_um) AND isNotNull(measured_um) AND depth_source != 'SETTING'";

fn minutes() -> String {
    view_of_sums("accuracy_minute", &["toStartOfMinute(at) AS minute"], "")
}

fn sessions() -> String {
    let bin = "[toInt32(floor(100 * (toInt64(delivered_nl) - toInt64(target_nl)) / target_nl))]";
    let map = format!("sumMapIf(assumeNotNull({bin}), [toUInt64(1)], {DOSED} AND target_nl > 0)");
    view_of_sums(
        "accuracy_session",
        &["session_id", "dose_calibration_id", "depth_calibration_id", "target_nl", "target_um"],
        &format!(
            ", CAST(({map}).1, 'Array(Int32)') AS dose_error_bins, CAST(({map}).2, 'Array(UInt32)') AS dose_error_counts"
        ),
    )
}

fn view_of_sums(table: &str, keys: &[&str], more: &str) -> String {
    let sums: Vec<_> = sums([DOSED, DEEP]).into_iter().map(|(name, sum)| format!("{sum} AS {name}")).collect();
    let keys = ["tenant", "site", "device", "model", "firmware", "ingest_day", "incarnation", "kafka_partition"]
        .iter()
        .chain(keys)
        .copied()
        .collect::<Vec<_>>();
    let names: Vec<_> = keys.iter().map(|key| key.rsplit(' ').next().unwrap_or(key)).collect();
    format!(
        "CREATE MATERIALIZED VIEW doseline.queue_{table} TO doseline.{table} AS SELECT {}, {}{more} FROM doseline.injections AS row \
         GROUP BY {}",
        keys.join(", "),
        sums.join(", "),
        names.join(", ")
    )
}

fn uses() -> String {
    "CREATE MATERIALIZED VIEW doseline.queue_uses TO doseline.item_uses AS \
     SELECT tenant, site, device, session_id, item.1 AS slot, item.2 AS mount_id, item.3 AS item_id, count() AS injections, \
     sum(ifNull(row.punctures, 1)) AS punctures, sum(ifNull(row.delivered_nl, 0)) AS delivered_nl, count(row.delivered_nl) AS delivered_n, \
     min(row.at) AS first_at, max(row.at) AS last_at, ingest_day, incarnation, kafka_partition FROM doseline.injections AS row \
     ARRAY JOIN [('NEEDLE', needle_mount_id, needle_item_id), ('SYRINGE', syringe_mount_id, syringe_item_id), \
     ('HANDPIECE', handpiece_mount_id, handpiece_item_id)] AS item WHERE mount_id != '' \
     GROUP BY tenant, site, device, session_id, slot, mount_id, item_id, ingest_day, incarnation, kafka_partition"
        .to_owned()
}

fn bridges(options: &Options) -> Table {
    let (rate, reports) = if options.quick { (500, 1_000) } else { (1_000, 20_000) };
    let fleet = Fleet { first: 0, devices: DEVICES, per_report: PER_REPORT };
    let publications: Vec<_> = (0..reports).map(|number| Publication::new(&fleet.sent(number))).collect();
    let mut stage = Stage::start();
    let mut rows = Vec::new();
    for (name, python) in [("doseline bridge, receipts off", false), ("Python: paho-mqtt, confluent-kafka", true)] {
        stage.renew_mosquitto();
        let scratch = Scratch::new("peer");
        let (mut role, mut script) = (None, None);
        let process = if python {
            let arguments = [stage.mosquitto.port().to_string(), stage.kafka.bootstrap(), REPORTS_TOPIC.to_owned()];
            let process =
                script.insert(Python::start("bridge.py", &arguments.each_ref().map(String::as_str), &scratch));
            poll(WITHIN, "the bridge in Python", || {
                if process.log().contains("ready") { Ok(()) } else { Err(process.log()) }
            });
            process.id()
        } else {
            role.insert(stage.role("bridge", &[("DOSELINE__BRIDGE__RECEIPTS", "false")])).process().id()
        };
        let mut publisher = Publisher::connect(stage.mosquitto.port());
        let (in_kafka, before, began) = (topic::count(&stage.kafka), cpu_s(process), Instant::now());
        publisher.publish(&publications, rate, |_| {});
        poll(WITHIN, "all records in Kafka", || match topic::count(&stage.kafka) - in_kafka {
            records if records == reports => Ok(()),
            records => Err(format!("{records} of {reports}")),
        });
        let (took_s, cpu) = (began.elapsed().as_secs_f64(), cpu_s(process) - before);
        rows.push(vec![
            ("bridge", name.into()),
            ("reports_per_s", (reports as f64 / took_s).round().into()),
            ("bridge_cpu_us_per_report", (cpu * 1e6 / reports as f64).into()),
            ("bridge_rss_peak_mib", rss_peak_mib(process).into()),
        ]);
        say(&format!("   {name}: {:.0} us CPU a report", cpu * 1e6 / reports as f64));
    }
    let conditions = format!(
        "Mosquitto -> bridge -> Kafka (acks=all, idempotent), QoS 1, {reports} reports of {PER_REPORT} injections at {rate}/s; the \
         Python bridge acknowledges after Kafka's confirmation and passes bytes on: it checks nothing and has no quarantine"
    );
    Table { title: "Bridges", conditions, rows }
}
