//! The bridge between an MQTT broker and Kafka: its CPU time for a report at a fixed rate, and its
//! highest rate.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::data::Fleet;
use super::mqtt::{Peer, Publication, Publisher};
use super::report::{Row, Table};
use super::stage::{Stage, count};
use super::{Options, say, topic};
use crate::poll;
use crate::role::Role;
use crate::usage::{rss_peak_mib, switches, wire};

const DEVICES: u64 = 2_000;
const ACKNOWLEDGED: &str = "doseline_bridge_acknowledged_total";
const RECEIPTS: &str = "doseline_bridge_receipts_total";
const DONE_WITHIN: Duration = Duration::from_secs(120);

/// One configuration of the bridge.
#[derive(Clone, Copy)]
pub struct Case {
    pub per_report: u64,
    pub connections: u64,
    pub receipts: bool,
}

impl Case {
    fn publications(self, reports: u64) -> Vec<Publication> {
        let fleet = Fleet { first: 0, devices: DEVICES, per_report: self.per_report };
        (0..reports).map(|number| Publication::new(&fleet.sent(number))).collect()
    }

    fn start(self, stage: &Stage, mqtt_port: u16) -> Role {
        let (connections, receipts) = (self.connections.to_string(), self.receipts.to_string());
        let port = mqtt_port.to_string();
        let environment = [
            ("DOSELINE__MQTT__PORT", port.as_str()),
            ("DOSELINE__BRIDGE__CONNECTIONS", &connections),
            ("DOSELINE__BRIDGE__SHARE_GROUP", "bench"),
            ("DOSELINE__BRIDGE__RECEIPTS", &receipts),
        ];
        stage.role("bridge", &environment)
    }

    /// The columns that every row has.
    fn row(self) -> Row {
        vec![
            ("injections_per_report", self.per_report.into()),
            ("connections", self.connections.into()),
            ("receipts", if self.receipts { "on" } else { "off" }.into()),
        ]
    }
}

/// Measures fixed rates behind Mosquitto, then the highest rate behind a peer that only sends.
pub fn measure(options: &Options) -> Vec<Table> {
    let quick = options.quick;
    let sizes: &[u64] = if quick { &[10] } else { &[1, 10, 50] };
    let connections: &[u64] = if quick { &[1] } else { &[1, 4] };
    let rates: &[u64] = if quick { &[2_000] } else { &[2_000, 5_000] };
    let reports = if quick { 3_000 } else { 40_000 };
    let mut stage = Stage::start();
    let (mut fixed, mut most) = (Vec::new(), Vec::new());
    for per_report in sizes {
        for connections in connections {
            for receipts in [true, false] {
                let case = Case { per_report: *per_report, connections: *connections, receipts };
                for rate in rates {
                    fixed.push(behind_mosquitto(&mut stage, case, *rate, reports));
                }
                most.push(behind_peer(&mut stage, case, if quick { 10_000 } else { 300_000 }));
            }
        }
    }
    let conditions = format!(
        "Mosquitto -> bridge -> Kafka (acks=all, idempotent, 12 partitions), QoS 1, {DEVICES} devices, {reports} reports each; \
         CPU from the first report to the last acknowledgement and receipt; wire = TCP payload between bridge and engine \
         in both directions"
    );
    let peer = "As above without Mosquitto: a synthetic MQTT peer in the harness sends encoded reports as fast as the bridge \
                acknowledges them, up to its receive maximum (4,000 for each connection); peer, bridge and Kafka share the \
                cores, so the rate is a lower bound, and CPU for a report says what a core of the bridge is worth";
    vec![
        Table { title: "Bridge at a fixed rate", conditions, rows: fixed },
        Table { title: "Bridge headroom against a synthetic MQTT peer", conditions: peer.to_owned(), rows: most },
    ]
}

pub fn behind_mosquitto(stage: &mut Stage, case: Case, rate: u64, reports: u64) -> Row {
    stage.renew_mosquitto();
    let port = stage.mosquitto.port();
    let publications = case.publications(reports);
    let mut bridge = case.start(stage, port);
    let mut publisher = Publisher::connect(port);
    let in_kafka = topic::count(&stage.kafka);
    let process = bridge.id();
    let (before, cpu, switched, began) = (stage.engines_cpu_s(), bridge.cpu_s(), switches(process), Instant::now());
    publisher.publish(&publications, rate, |_| {});
    let published_s = began.elapsed().as_secs_f64();
    poll(DONE_WITHIN, "acknowledgements and receipts", || {
        let receipts = if case.receipts { count(&bridge, RECEIPTS).min(publisher.receipts()) } else { reports };
        match (count(&bridge, ACKNOWLEDGED), publisher.acknowledged(), receipts) {
            done if done == (reports, reports, reports) => Ok(()),
            done => Err(format!("{done:?} of {reports}")),
        }
    });
    let (after, cpu, switched) = (stage.engines_cpu_s(), bridge.cpu_s() - cpu, switches(process) - switched);
    assert_eq!(topic::count(&stage.kafka) - in_kafka, reports, "records in Kafka");
    let us = |seconds: f64| seconds * 1e6 / reports as f64;
    let each = |bytes: Option<(f64, f64)>| bytes.map(|(sent, received)| (sent + received) / reports as f64);
    let [mosquitto, kafka] = [0, 1].map(|engine| us(after[engine] - before[engine]));
    let mut row = case.row();
    row.extend([
        ("reports_per_s", (reports as f64 / published_s).round().into()),
        ("bridge_cpu_us_per_report", us(cpu).into()),
        ("bridge_switches_per_report", (switched as f64 / reports as f64).into()),
        ("mosquitto_cpu_us_per_report", mosquitto.into()),
        ("kafka_cpu_us_per_report", kafka.into()),
        ("bridge_rss_peak_mib", rss_peak_mib(process).into()),
        ("mqtt_wire_bytes_per_report", each(wire(process, port)).into()),
        ("kafka_wire_bytes_per_report", each(wire(process, stage.kafka_port())).into()),
    ]);
    bridge.stop();
    say(&format!("   {rate} reports/s, {}: {:.1} us CPU a report", said(case), us(cpu)));
    row
}

fn behind_peer(stage: &mut Stage, case: Case, reports: u64) -> Row {
    let peer = Peer::start(Arc::new(case.publications(reports)));
    let in_kafka = topic::count(&stage.kafka);
    let kafka = stage.engines_cpu_s()[1];
    // Messages arrive before the bridge reports ready, so the figure includes its start.
    let began = Instant::now();
    let mut bridge = case.start(stage, peer.port());
    poll(DONE_WITHIN, "all acknowledgements", || match peer.acknowledged() {
        acknowledged if acknowledged == reports => Ok(()),
        acknowledged => Err(format!("{acknowledged} of {reports}")),
    });
    let took_s = began.elapsed().as_secs_f64();
    let (cpu, kafka) = (bridge.cpu_s(), stage.engines_cpu_s()[1] - kafka);
    assert_eq!(topic::count(&stage.kafka) - in_kafka, reports, "records in Kafka");
    let us = |seconds: f64| seconds * 1e6 / reports as f64;
    let mut row = case.row();
    row.extend([
        ("reports_per_s", (reports as f64 / took_s).round().into()),
        ("reports_per_core_second", (reports as f64 / cpu).round().into()),
        ("bridge_cpu_us_per_report", us(cpu).into()),
        ("kafka_cpu_us_per_report", us(kafka).into()),
        ("bridge_rss_peak_mib", bridge.rss_peak_mib().into()),
    ]);
    bridge.stop();
    say(&format!("   headroom, {}: {:.0} reports/s", said(case), reports as f64 / took_s));
    row
}

fn said(case: Case) -> String {
    let Case { per_report, connections, receipts } = case;
    format!(
        "{per_report} injections a report, {connections} connections, receipts {}",
        if receipts { "on" } else { "off" }
    )
}
