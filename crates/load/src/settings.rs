//! Section `[load]` of the configuration.

use std::net::SocketAddr;

use service::{settings, settings::Text};
use telemetry::topic::is_id;

settings! {
    /// Section `[load]`.
    pub struct Load {
        /// Address of `/livez`, `/readyz` and `/metrics`
        http: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 9_602));
        /// Consumer group; the loaders of one group share the partitions
        group: String = "doseline-load".to_owned(), in ID;
        /// A batch is written when it has this many rows
        batch_rows_max: u32 = 150_000, in 1_000..=1_000_000;
        /// A batch is written when it has this many MiB of records. As much again may wait in
        /// memory for each partition
        batch_mib_max: u32 = 32, in 1..=1_024;
        /// Memory for records over all partitions, MiB, at least `load.batch_mib_max`. At this
        /// limit the loader stops polling. Less saves memory; more lets more partitions make large
        /// batches at once. The rows made of the records come on top: at most those of two full
        /// batches
        memory_mib_max: u32 = 64, in 1..=65_536;
        /// Time between two batches of a partition, ms; a third of it for a batch of 150 rows or
        /// more. A record that comes after a pause is written within 50 ms. A longer time gives
        /// fewer and cheaper inserts, and later data
        batch_age_ms: u32 = 1_500, in 10..=60_000;
        /// Batches of all partitions that are written at once. A batch that is due in the meantime
        /// goes on growing, for 2 s at most. About as many as ClickHouse has processors: more get
        /// in each other's way, fewer leave ClickHouse idle
        batches_max: u32 = 2, in 1..;
        /// Boots whose ledgers stay in memory, over all partitions; the loader reads the others
        /// from ClickHouse when it needs them
        ledgers_max: u32 = 200_000, in 1_000..;
        /// Age of the oldest unwritten record at which `/readyz` fails, s. `/readyz` reports a
        /// partition that stands still for a known cause at once, and any other after half of this
        /// time
        unwritten_age_max_s: u32 = 60, in 1..;
        /// How long a batch of Kafka that cannot be read holds up its partition, s. Then the loader
        /// gives the batch up and records it in `kafka_losses`. A longer time leaves more time to
        /// repair the broker; the later records of the partition wait in the meantime. `doseline
        /// give-up` gives the batch up at once
        unreadable_after_s: u32 = 3_600, in 60..;
        /// Silence after which Kafka gives a loader's partitions to another loader, and a paused
        /// loader stops writing, s. With a shorter time, another loader takes over sooner. Kafka
        /// accepts no less than its own `group.min.session.timeout.ms` (6 s by default)
        session_timeout_s: u32 = 45, in 1..=3_600;
        /// How long `/readyz` fails after Kafka has deleted records that were not written, s. The
        /// loss stays in `kafka_losses`
        loss_shown_s: u32 = 3_600;
    }
}

const ID: Text = Text { must: "match [A-Za-z0-9][A-Za-z0-9_-]{0,63}", holds: is_id };

impl Load {
    /// What contradicts another key of the section, as (key, what is wrong).
    pub fn conflicts(&self) -> Vec<(String, String)> {
        let (memory, batch) = (self.memory_mib_max, self.batch_mib_max);
        if memory >= batch {
            return Vec::new();
        }
        vec![("memory_mib_max".to_owned(), format!("{memory} must be at least load.batch_mib_max ({batch})"))]
    }
}
