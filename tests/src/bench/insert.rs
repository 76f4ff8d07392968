//! The insert alone: the blocks of `injections` as the loader sends them, and the same rows as
//! RowBinary.

use std::{collections::HashMap, time::Duration};

use nix::time::{ClockId, clock_gettime};
use telemetry::v1::{self, event::Kind};
use tokio::runtime::Runtime;
use warehouse::Warehouse;
use warehouse::columns::{Block, Common, Commons, Injections, Origin, Provenance};

use super::data::Fleet;
use super::loader::{self, Loaded};
use super::report::{Row, Table};
use super::stage::{Stage, warehouse};
use super::{Options, say, topic};
use crate::usage::wire;

const DEVICES: u64 = 2_000;
const PER_REPORT: u64 = 10;
/// Number of partitions. A block has the devices of one partition.
const PARTITIONS: u64 = 12;

/// Measures the loader first, then blocks of the same size alone, in both forms.
pub fn measure(options: &Options) -> Vec<Table> {
    let injections = if options.quick { loader::QUICK_INJECTIONS } else { loader::INJECTIONS };
    let fleet = Fleet { first: 0, devices: DEVICES, per_report: PER_REPORT };
    let mut stage = Stage::start();
    topic::fill(&stage.kafka, fleet, injections / PER_REPORT);
    let loaded = loader::load(&mut stage, fleet, injections);
    let block_rows = injections / loaded.batches.max(1);
    let arrow = insert(&mut stage, fleet, injections, block_rows, Form::Arrow);
    let row_binary = insert(&mut stage, fleet, injections, block_rows, Form::RowBinary);
    let bare = arrow.clickhouse_cpu_s;
    let row = |what: &str, client: f64, clickhouse: f64, wire: Option<f64>| -> Row {
        let each = |seconds: f64| seconds * 1e6 / injections as f64;
        vec![
            ("insert", what.into()),
            ("client_cpu_s_per_million", each(client).into()),
            ("clickhouse_cpu_s_per_million", each(clickhouse).into()),
            ("both_cpu_s_per_million", each(client + clickhouse).into()),
            ("clickhouse_against_bare", (clickhouse / bare).into()),
            ("wire_bytes_per_injection", wire.map(|bytes| bytes / injections as f64).into()),
        ]
    };
    let Loaded { loader_cpu_s, clickhouse_cpu_s, merge_cpu_s, .. } = loaded;
    let conditions = format!(
        "{injections} injections of {DEVICES} devices in blocks of {block_rows} rows, into the table `injections` as migrated; CPU-s \
         for a million injections, merges counted until none has run for 3 s; the client builds its columns or rows from \
         decoded reports, the loader also reads Kafka, decodes, keeps its ledger and writes the aggregates; RowBinary goes \
         through the `clickhouse` crate's typed insert with its defaults"
    );
    let rows = vec![
        row("loader, all tables", loader_cpu_s, clickhouse_cpu_s + merge_cpu_s, None),
        row("base blocks alone", arrow.client_cpu_s, arrow.clickhouse_cpu_s, arrow.wire_bytes),
        row("base rows as RowBinary", row_binary.client_cpu_s, row_binary.clickhouse_cpu_s, row_binary.wire_bytes),
    ];
    vec![Table { title: "Insert", conditions, rows }]
}

#[derive(Clone, Copy, Debug)]
enum Form {
    Arrow,
    RowBinary,
}

struct Inserted {
    client_cpu_s: f64,
    clickhouse_cpu_s: f64,
    wire_bytes: Option<f64>,
}

fn insert(stage: &mut Stage, fleet: Fleet, injections: u64, block_rows: u64, form: Form) -> Inserted {
    stage.renew_clickhouse();
    let warehouse = warehouse(&stage.clickhouse);
    // With one thread, its CPU time is that of the client.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("start a runtime");
    let client = clickhouse::Client::default()
        .with_url(stage.clickhouse.url())
        .with_user("doseline")
        .with_password(crate::clickhouse::PASSWORD)
        .with_database("doseline");
    let [_, _, before] = stage.engines_cpu_s();
    let (mut client_cpu_s, mut wire_bytes, mut of_connection) = (0.0, None, 0.0);
    let reports = injections / fleet.per_report;
    for (number, block) in blocks(fleet, reports, (block_rows / fleet.per_report).max(1)).enumerate() {
        let reports: Vec<_> = block.iter().map(|number| Decoded::new(fleet, *number)).collect();
        let began = thread_cpu_s();
        match form {
            Form::Arrow => insert_arrow(&runtime, &warehouse, &reports, number),
            Form::RowBinary => insert_row_binary(&runtime, &client, &reports, number),
        }
        client_cpu_s += thread_cpu_s() - began;
        if let Some((sent, _)) = wire(std::process::id(), stage.clickhouse.port()) {
            // A smaller value than before means a new connection.
            let more = if sent < of_connection { sent } else { sent - of_connection };
            (wire_bytes, of_connection) = (Some(wire_bytes.unwrap_or(0.0) + more), sent);
        }
    }
    stage.clickhouse.rest();
    let [_, _, after] = stage.engines_cpu_s();
    loader::check_base(&stage.clickhouse, fleet, injections, &format!("{form:?}"));
    say(&format!("   {form:?}: client {client_cpu_s:.2} CPU-s, ClickHouse {:.2}", after - before));
    Inserted { client_cpu_s, clickhouse_cpu_s: after - before, wire_bytes }
}

/// Numbers of the reports in each block; a block has the devices of one partition.
fn blocks(fleet: Fleet, reports: u64, of: u64) -> impl Iterator<Item = Vec<u64>> {
    (0..PARTITIONS).flat_map(move |partition| {
        let numbers: Vec<_> = (0..reports).filter(|number| number % fleet.devices % PARTITIONS == partition).collect();
        numbers.chunks(of as usize).map(<[u64]>::to_vec).collect::<Vec<_>>()
    })
}

/// A report with the values that the loader takes from its topic.
struct Decoded {
    identity: [String; 3],
    session_id: String,
    received_at: i64,
    report: v1::Report,
    offset: u64,
}

impl Decoded {
    fn new(fleet: Fleet, number: u64) -> Self {
        let report = fleet.report(number);
        let context = report.context.as_ref().expect("a context");
        Self {
            identity: Fleet::identity(fleet.first + number % fleet.devices),
            session_id: context.session_id.iter().map(|byte| format!("{byte:02x}")).collect(),
            received_at: fleet.received_at(&report),
            report,
            offset: number,
        }
    }

    /// Sequence number, time and content of each injection.
    fn injections(&self) -> impl Iterator<Item = (u64, i64, &v1::Injection)> {
        self.report.events.iter().zip(self.report.first_seq..).filter_map(|(event, seq)| match &event.kind {
            Some(Kind::Injection(injection)) => {
                Some((seq, self.report.base_unix_us + event.offset_us as i64, injection))
            }
            _ => None,
        })
    }

    fn context(&self) -> &v1::Context {
        self.report.context.as_ref().expect("a context")
    }
}

fn insert_arrow(runtime: &Runtime, warehouse: &Warehouse, reports: &[Decoded], number: usize) {
    let (mut commons, mut rows) = (Commons::default(), Injections::default());
    let mut numbers = HashMap::new();
    for decoded in reports {
        let context = decoded.context();
        let [tenant, site, device] = decoded.identity.each_ref().map(String::as_str);
        // Numbered as the loader does; a session has one context.
        let common = *numbers.entry((&decoded.identity, &decoded.session_id)).or_insert_with(|| {
            commons.add(&Common {
                tenant,
                site,
                device,
                time_source: "DEVICE",
                model: &context.model,
                firmware: &context.firmware,
                session_id: &decoded.session_id,
                clock: "SYNCED",
                dose_calibration_id: &context.dose_calibration_id,
                depth_calibration_id: &context.depth_calibration_id,
                preparation_id: &context.preparation_id,
                operator_id: &context.operator_id,
                mounts: &context.mounts,
            })
        });
        let origin = Origin {
            common,
            boot_id: decoded.report.boot_id,
            received_at: decoded.received_at,
            kafka_offset: decoded.offset,
            operator_id: &context.operator_id,
            flags: 0,
        };
        for (seq, at, injection) in decoded.injections() {
            rows.push(&origin, seq, at, injection);
        }
    }
    let provenance = Provenance { ingest_day: DAY, incarnation: 1, partition: 0, batch: number as u64 };
    let block: Block = rows.finish(provenance, &commons).expect("rows");
    runtime.block_on(warehouse.insert_block(&block, 1)).expect("insert a block");
}

/// Ingest day of the rows, days since 1970.
const DAY: i32 = 20_458;

/// A row of `injections` in the order of its columns.
#[derive(clickhouse::Row, serde::Serialize)]
struct InjectionRow<'a> {
    tenant: &'a str,
    site: &'a str,
    device: &'a str,
    boot_id: u64,
    seq: u64,
    at: i64,
    time_source: &'a str,
    received_at: i64,
    model: &'a str,
    firmware: &'a str,
    session_id: &'a str,
    injection_no: Option<u64>,
    shot: Option<u32>,
    clock: &'a str,
    mode: &'a str,
    outcome: &'a str,
    area: &'a str,
    target_nl: Option<u32>,
    delivered_nl: Option<u32>,
    dose_source: &'a str,
    target_um: Option<u16>,
    measured_um: Option<u16>,
    depth_source: &'a str,
    angle_mdeg: Option<u32>,
    duration_us: Option<u32>,
    punctures: Option<u16>,
    needle_count: Option<u8>,
    peak_force_mn: Option<u32>,
    pressure_pa: Option<i32>,
    vacuum_pa: Option<u32>,
    motor_ma: Option<u32>,
    needle_mount_id: &'a str,
    needle_item_id: &'a str,
    syringe_mount_id: &'a str,
    syringe_item_id: &'a str,
    handpiece_mount_id: &'a str,
    handpiece_item_id: &'a str,
    dose_calibration_id: &'a str,
    depth_calibration_id: &'a str,
    preparation_id: &'a str,
    operator_id: &'a str,
    flags: u32,
    kafka_offset: u64,
    ingest_day: u16,
    incarnation: u32,
    kafka_partition: i32,
    batch: u64,
    r#gen: u32,
    batch_hash: u64,
}

fn insert_row_binary(runtime: &Runtime, client: &clickhouse::Client, reports: &[Decoded], number: usize) {
    runtime.block_on(async {
        let mut insert = client.insert::<InjectionRow<'_>>("injections").await.expect("begin an insert");
        for decoded in reports {
            for (seq, at, injection) in decoded.injections() {
                insert.write(&row(decoded, seq, at, injection, number as u64)).await.expect("write a row");
            }
        }
        insert.end().await.expect("end an insert");
    });
}

fn row<'a>(decoded: &'a Decoded, seq: u64, at: i64, injection: &v1::Injection, batch: u64) -> InjectionRow<'a> {
    let context = decoded.context();
    let [needle, syringe, handpiece] = [0, 1, 2].map(|at| &context.mounts[at]);
    InjectionRow {
        tenant: &decoded.identity[0],
        site: &decoded.identity[1],
        device: &decoded.identity[2],
        boot_id: decoded.report.boot_id,
        seq,
        at,
        time_source: "DEVICE",
        received_at: decoded.received_at,
        model: &context.model,
        firmware: &context.firmware,
        session_id: &decoded.session_id,
        injection_no: injection.injection_no,
        shot: injection.shot,
        clock: "SYNCED",
        mode: "SINGLE",
        outcome: if injection.outcome() == v1::Outcome::Ok { "OK" } else { "PARTIAL" },
        area: "FACE",
        target_nl: injection.target_nl.map(|nl| nl as u32),
        delivered_nl: injection.delivered_nl.map(|nl| nl as u32),
        dose_source: "ENCODER",
        target_um: injection.target_um.map(|um| um as u16),
        measured_um: injection.measured_um.map(|um| um as u16),
        depth_source: "ENCODER",
        angle_mdeg: injection.angle_mdeg,
        duration_us: injection.duration_us.map(|us| us as u32),
        punctures: injection.punctures.map(|count| count as u16),
        needle_count: injection.needle_count.map(|count| count as u8),
        peak_force_mn: injection.peak_force_mn,
        pressure_pa: injection.pressure_pa,
        vacuum_pa: injection.vacuum_pa,
        motor_ma: injection.motor_ma,
        needle_mount_id: &needle.mount_id,
        needle_item_id: &needle.item_id,
        syringe_mount_id: &syringe.mount_id,
        syringe_item_id: &syringe.item_id,
        handpiece_mount_id: &handpiece.mount_id,
        handpiece_item_id: &handpiece.item_id,
        dose_calibration_id: &context.dose_calibration_id,
        depth_calibration_id: &context.depth_calibration_id,
        preparation_id: &context.preparation_id,
        operator_id: &context.operator_id,
        flags: 0,
        kafka_offset: decoded.offset,
        ingest_day: DAY as u16,
        incarnation: 1,
        kafka_partition: 0,
        batch,
        r#gen: 1,
        batch_hash: 0,
    }
}

/// CPU time of this thread, s.
fn thread_cpu_s() -> f64 {
    Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("a clock")).as_secs_f64()
}
