//! A rig with a configuration file for the binary, and loaders whose clock shows another day.

use std::{sync::Arc, time::Duration};

use harness::{Doseline, Finished, Scratch};
use load::{
    Loader,
    clock::{Clock, SystemClock},
};

use crate::rig::{Rig, Running};

const WITHIN: Duration = Duration::from_secs(400);
const DAY_US: i64 = 86_400_000_000;

/// A clock that is this many days behind.
struct DaysAgo(i64);

impl Clock for DaysAgo {
    fn unix_us(&self) -> i64 {
        SystemClock.unix_us() - self.0 * DAY_US
    }

    fn since_host_boot(&self) -> Duration {
        SystemClock.since_host_boot()
    }
}

pub struct World {
    pub rig: Rig,
    scratch: Scratch,
}

impl World {
    pub async fn start(partitions: u32) -> Self {
        let world = Self { rig: Rig::start(partitions).await, scratch: Scratch::new("again") };
        world.configuration("doseline.toml", "");
        world
    }

    /// Writes another configuration file with `more` at its end, and returns its path.
    pub fn configuration(&self, name: &str, more: &str) -> String {
        let (kafka, clickhouse) = (self.rig.kafka.bootstrap(), self.rig.clickhouse.url());
        let partitions = self.rig.kafka.end_offsets(telemetry::kafka::REPORTS_TOPIC).len();
        let text = format!(
            "[kafka]\nbrokers = [\"{kafka}\"]\npartitions = {partitions}\nreplication = 1\nmin_insync_replicas = 1\n\n\
             [clickhouse]\nurl = \"{clickhouse}\"\nusername = \"doseline\"\npassword = \"owner\"\nfsync = false\n\n{more}\n"
        );
        let path = self.scratch.join(name);
        std::fs::write(&path, text).expect("write a configuration");
        path.into_os_string().into_string().expect("a plain path")
    }

    fn arguments<'a>(&self, arguments: &[&'a str], config: &'a str) -> Vec<&'a str> {
        arguments.iter().copied().chain(["--config", config]).collect()
    }

    fn default_configuration(&self) -> String {
        self.scratch.join("doseline.toml").into_os_string().into_string().expect("a plain path")
    }

    /// Runs a sub-command to its end.
    pub fn run(&self, arguments: &[&str]) -> Finished {
        self.run_with(arguments, &self.default_configuration())
    }

    /// As [`World::run`], with another configuration.
    pub fn run_with(&self, arguments: &[&str], config: &str) -> Finished {
        Doseline::run(&self.arguments(arguments, config), &[], WITHIN)
    }

    pub fn spawn(&self, arguments: &[&str]) -> Doseline {
        Doseline::start(&self.arguments(arguments, &self.default_configuration()))
    }

    /// A loader whose clock is this many days behind.
    pub async fn load_days_ago(&self, days: i64) -> Running {
        let loader = Loader::bind(self.rig.options(), self.rig.warehouse.clone()).await.expect("valid options");
        Rig::run(loader.with_clock(Arc::new(DaysAgo(days))))
    }

    /// The ingest day this many days ago, as `YYYY-MM-DD`.
    pub fn day(&self, back: i64) -> String {
        self.rig.clickhouse.query(&format!("SELECT toDate(now('UTC')) - {back}"))
    }

    /// Asserts that `reconcile` finds nothing.
    #[track_caller]
    pub fn is_clean(&self) {
        let ended = self.run(&["reconcile"]);
        assert_eq!(ended.code, Some(0), "{}\n{}", ended.stdout, ended.stderr);
        assert!(ended.stdout.ends_with("no difference\n"), "{}", ended.stdout);
    }
}
