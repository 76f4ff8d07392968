//! The monitor with the real engine.

mod accuracy;
mod commands;
mod crowd;
mod delivery;
mod devices;
mod fleet;
mod late;
mod retention;
mod sterility;

use harness::ClickHouse;
use monitor::{Monitor, Options, limits::Limits};
use warehouse::{Warehouse, migrate};

/// An engine with the schema, and a monitor on it.
struct Rig {
    clickhouse: ClickHouse,
    warehouse: Warehouse,
    monitor: Monitor,
}

impl Rig {
    async fn start() -> Self {
        let clickhouse = ClickHouse::start();
        let options = clickhouse.warehouse_options();
        let warehouse = Warehouse::new(options).expect("a valid address");
        migrate::migrate(&warehouse, migrate::Options::default()).await.expect("migrate");
        let monitor = Self::monitor(&warehouse).await;
        Self { clickhouse, warehouse, monitor }
    }

    /// A second monitor, as after a restart.
    async fn monitor(warehouse: &Warehouse) -> Monitor {
        Self::monitor_by(warehouse, Limits::default()).await
    }

    /// A monitor with other limits.
    async fn monitor_by(warehouse: &Warehouse, limits: Limits) -> Monitor {
        let options = Options { limits, ..Options::default() };
        Monitor::bind(options, warehouse.clone()).await.expect("no address to bind")
    }

    /// Acknowledges an alert in its present state, as the loader does for a command.
    fn acknowledge(&self, key: &str, note: &str) {
        self.clickhouse.query(&format!(
            "INSERT INTO doseline.alert_history (tenant, alert_key, at, event, actor, kind, severity, holds, attention, \
             sessions, note, evidence_rows, incarnation, kafka_offset) \
             SELECT tenant, alert_key, now64(6), 'ACKNOWLEDGED', 'Ada', kind, severity, holds, attention, sessions, '{note}', \
             evidence_rows, 1, 0 FROM doseline.alerts FINAL WHERE alert_key = '{key}'"
        ));
    }

    async fn pass(&mut self) -> monitor::Summary {
        self.monitor.pass(monitor::now_us()).await.expect("a pass")
    }

    /// Every verdict that holds, without the time of its computation.
    fn verdicts(&self) -> String {
        self.clickhouse.query(
            "SELECT * EXCEPT (computed_at, completeness) FROM doseline.sterility_verdicts FINAL WHERE state != 'CLEARED' \
             ORDER BY tenant, unit, verdict_key",
        )
    }

    /// Every alert, without the times at which it was raised and computed.
    fn alerts(&self) -> String {
        self.clickhouse.query(
            "SELECT * EXCEPT (computed_at, raised_at, completeness, attention) FROM doseline.alerts FINAL \
             WHERE state = 'OPEN' AND holds ORDER BY tenant, alert_key",
        )
    }

    /// The open alerts, as severity and key.
    fn open(&self) -> Vec<String> {
        let sql = "SELECT severity, alert_key FROM doseline.open_alerts ORDER BY alert_key";
        self.clickhouse.query(sql).lines().map(|line| line.replace('\t', " ")).collect()
    }
}
