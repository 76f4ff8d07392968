//! The stage of a campaign: three Kafka nodes, Mosquitto, ClickHouse on a small disk, bridges and
//! loaders, a fleet.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::fleet::{Fleet, Load};
use super::gateway::{Gateway, holds};
use super::oracle::Oracle;
use super::relay::Relay;
use super::watch::Watch;
use crate::committed::is_committed;
use crate::role::Role;
use crate::{ClickHouse, Disk, Doseline, Kafka, Mosquitto, Observer, Scratch, poll};

/// Topics that the loader reads.
pub const TOPICS: [&str; 3] = ["doseline.reports.v1", "doseline.status.v1", "doseline.quarantine.v1"];
pub const REPORTS: &str = TOPICS[0];
const GROUP: &str = "doseline-load";
/// Number of slots for loaders: the regular ones, and additional ones for a while.
pub const SLOTS: usize = 6;
pub const BRIDGES: usize = 2;
/// Longest wait for an answer of a role.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
const MIGRATED_WITHIN: Duration = Duration::from_secs(120);
/// Longest time in which a role must end.
pub const STOPPED_WITHIN: Duration = Duration::from_secs(60);
/// Longest time until everything must work again.
pub const RECOVERED_WITHIN: Duration = Duration::from_secs(420);

/// Size and settings of a stage.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Number of partitions of each topic.
    pub partitions: i32,
    /// Number of loaders that run all the time.
    pub loaders: usize,
    /// Whether the first loader and the first bridge are never killed, because their memory is
    /// watched.
    pub kept: bool,
    /// Kafka session time-out of the loaders, s.
    pub session_timeout_s: u32,
    /// Age at which a loader writes a batch, ms.
    pub batch_age_ms: u32,
    /// Size of ClickHouse's disk, MiB.
    pub disk_mib: u64,
    /// Load of the fleets.
    pub load: Load,
}

pub struct Stage {
    pub setting: Setting,
    pub mosquitto: Mosquitto,
    pub kafka: Kafka,
    pub clickhouse: ClickHouse,
    /// The relay between the devices and the broker.
    pub devices: Relay,
    /// The relay between the bridges and the broker.
    pub bridges_way: Relay,
    pub gateways: Vec<Gateway>,
    pub loaders: Vec<Option<Role>>,
    pub bridges: Vec<Option<Role>>,
    pub observer: Observer,
    pub oracle: Oracle,
    pub watch: Watch,
    fleet: Arc<Mutex<Fleet>>,
    going: Arc<AtomicBool>,
    keeper: Option<JoinHandle<()>>,
    pub configuration: String,
    _scratch: Scratch,
}

impl Stage {
    /// Starts everything, including the load.
    pub fn start(setting: Setting) -> Self {
        let scratch = Scratch::new("campaign");
        let (mosquitto, kafka, clickhouse) = thread::scope(|scope| {
            let kafka = scope.spawn(|| Kafka::cluster(3));
            let clickhouse = ClickHouse::start_on(Some(Disk::new(setting.disk_mib)));
            (Mosquitto::start(), kafka.join().expect("kafka starts"), clickhouse)
        });
        let (devices, bridges_way) = (Relay::start(mosquitto.port()), Relay::start(mosquitto.port()));
        let configuration = scratch.join("doseline.toml");
        let text = configuration_text(&setting, devices.port(), &kafka.bootstrap(), &clickhouse.url());
        std::fs::write(&configuration, text).expect("write the configuration");
        let configuration = configuration.into_os_string().into_string().expect("a plain path");
        let migrated = Doseline::run(&["migrate", "--config", &configuration], &[], MIGRATED_WITHIN);
        assert_eq!(migrated.code, Some(0), "{}", migrated.stderr);
        let fleet = Arc::new(Mutex::new(Fleet::new(setting.load, &configuration)));
        let watch = Watch::start(kafka.observer(GROUP, &TOPICS, setting.partitions), clickhouse.url());
        let mut stage = Self {
            gateways: (0..SLOTS).map(|_| Gateway::start(clickhouse.port())).collect(),
            loaders: (0..SLOTS).map(|_| None).collect(),
            bridges: (0..BRIDGES).map(|_| None).collect(),
            observer: kafka.observer(GROUP, &TOPICS, setting.partitions),
            oracle: Oracle::new(&clickhouse),
            watch,
            keeper: None,
            going: Arc::default(),
            setting,
            mosquitto,
            kafka,
            clickhouse,
            devices,
            bridges_way,
            fleet,
            configuration,
            _scratch: scratch,
        };
        (0..BRIDGES).for_each(|index| stage.start_bridge(index));
        stage.start_regular_loaders();
        stage.begin_load();
        stage.recovered();
        stage
    }

    /// Starts one fleet after another until `end_load`.
    pub fn begin_load(&mut self) {
        self.going.store(true, Ordering::Relaxed);
        let (fleet, going) = (Arc::clone(&self.fleet), Arc::clone(&self.going));
        self.keeper = Some(thread::spawn(move || {
            while going.load(Ordering::Relaxed) {
                fleet.lock().expect("the fleets are well").keep_going();
                thread::sleep(Duration::from_millis(200));
            }
        }));
    }

    /// Lets the last fleet end, and waits for all receipts.
    pub fn end_load(&mut self) {
        self.going.store(false, Ordering::Relaxed);
        if let Some(keeper) = self.keeper.take() {
            keeper.join().expect("the fleets are well");
        }
        self.fleet().finish();
    }

    /// Runs a last fleet with another load, from its first event to its last receipt.
    pub fn last_load(&mut self, load: Load) {
        let mut fleet = Fleet::new(Load { seed: load.seed + 999, ..load }, &self.configuration);
        fleet.keep_going();
        fleet.finish();
    }

    pub fn fleet(&self) -> MutexGuard<'_, Fleet> {
        self.fleet.lock().expect("the fleets are well")
    }

    /// Passes the truth written meanwhile to the oracle.
    pub fn read_truth(&mut self) {
        let fleet = Arc::clone(&self.fleet);
        self.oracle.take(&self.clickhouse, |take| fleet.lock().expect("the fleets are well").read(take));
    }

    pub fn start_bridge(&mut self, index: usize) {
        let (id, port) = (bridge_id(index), self.bridges_way.port().to_string());
        let more = [("DOSELINE__BRIDGE__CLIENT_ID", id.as_str()), ("DOSELINE__MQTT__PORT", port.as_str())];
        let mut role = self.role("bridge", &more);
        self.watch.process(&format!("bridge {index}"), role.id());
        self.bridges[index] = Some(role);
    }

    /// Starts a loader in a slot, in the regular group or another.
    pub fn start_loader(&mut self, slot: usize, group: &str) {
        let url = self.gateways[slot].url();
        let more = [("DOSELINE__CLICKHOUSE__URL", url.as_str()), ("DOSELINE__LOAD__GROUP", group)];
        let mut role = self.role("load", &more);
        self.watch.process(&format!("load {slot}"), role.id());
        self.loaders[slot] = Some(role);
    }

    /// Starts the regular loaders that do not run.
    pub fn start_regular_loaders(&mut self) {
        for slot in 0..self.setting.loaders {
            if self.loaders[slot].is_none() {
                self.start_loader(slot, GROUP);
            }
        }
    }

    /// Starts an additional loader of the regular group.
    pub fn start_further_loader(&mut self, slot: usize) {
        self.start_loader(slot, GROUP);
    }

    fn role(&self, name: &str, more: &[(&str, &str)]) -> Role {
        Role::start(name, &self.configuration, more, ANSWER_WITHIN)
    }

    /// Slots of the regular loaders that may be killed.
    pub fn victims(&self) -> Vec<usize> {
        (usize::from(self.setting.kept)..self.setting.loaders).collect()
    }

    pub fn bridge_victims(&self) -> Vec<usize> {
        (usize::from(self.setting.kept)..BRIDGES).collect()
    }

    /// Kills a loader with SIGKILL.
    pub fn kill_loader(&mut self, slot: usize) {
        self.loaders[slot].take().expect("it runs").doseline.kill();
    }

    /// Kills a bridge with SIGKILL, and starts the next.
    pub fn replace_bridge(&mut self, index: usize) {
        self.bridges[index].take().expect("it runs").doseline.kill();
        self.start_bridge(index);
    }

    /// Asserts that no role has ended by itself.
    pub fn assert_all_run(&mut self) {
        for role in self.loaders.iter_mut().chain(&mut self.bridges).flatten() {
            role.doseline.process().alive().unwrap_or_else(|ended| panic!("{ended}"));
        }
    }

    /// Waits until new data comes through the bridges and everything in Kafka now is written.
    /// Returns how long that took, s.
    pub fn recovered(&mut self) -> f64 {
        let began = Instant::now();
        let mut base = None;
        poll(RECOVERED_WITHIN, "data to move again", || {
            self.assert_all_run();
            let ends = self.observer.ends()?;
            let first = base.get_or_insert_with(|| ends.clone());
            let sum = |offsets: &BTreeMap<(String, i32), i64>| -> i64 {
                offsets.iter().filter(|((topic, _), _)| topic == REPORTS).map(|(_, end)| end).sum()
            };
            if sum(&ends) <= sum(first) {
                return Err("no new reports in kafka".to_owned());
            }
            self.written(first)
        });
        began.elapsed().as_secs_f64()
    }

    /// Whether everything below these offsets is written.
    pub fn written(&self, ends: &BTreeMap<(String, i32), i64>) -> Result<(), String> {
        is_committed(&self.clickhouse, ends)
    }

    /// Waits until everything in Kafka is written, after the last record has come.
    pub fn wait_until_drained(&mut self) {
        poll(RECOVERED_WITHIN, "everything to be written", || {
            self.assert_all_run();
            self.written(&self.observer.ends()?)
        });
    }

    /// Waits until ClickHouse has ended, killed by a prepared fault.
    pub fn engine_gone(&mut self, within: Duration) -> bool {
        let process = self.clickhouse.process();
        holds(within, || process.exit_status().is_some())
    }

    /// Session time-out of the loaders.
    pub fn session_timeout(&self) -> Duration {
        Duration::from_secs(self.setting.session_timeout_s.into())
    }
}

/// Sum of a metric over its labels; 0 if the role does not answer.
pub fn metric(role: &Role, name: &str) -> f64 {
    role.metric(name).unwrap_or(0.0)
}

/// MQTT client id of a bridge; its connections add `-0`, `-1`.
pub fn bridge_id(index: usize) -> String {
    format!("campaign-bridge-{index}")
}

fn configuration_text(setting: &Setting, mqtt: u16, kafka: &str, clickhouse: &str) -> String {
    let Setting { partitions, session_timeout_s, batch_age_ms, .. } = setting;
    let brokers: Vec<_> = kafka.split(',').map(|broker| format!("\"{broker}\"")).collect();
    format!(
        "[mqtt]\nhost = \"127.0.0.1\"\nport = {mqtt}\n\n\
         [kafka]\nbrokers = [{}]\npartitions = {partitions}\nreplication = 3\nmin_insync_replicas = 2\n\n\
         [clickhouse]\nurl = \"{clickhouse}\"\nusername = \"doseline\"\npassword = \"owner\"\nfsync = false\n\n\
         [bridge]\nconnections = 2\nshare_group = \"campaign\"\nin_flight_mib = 16\nunconfirmed_age_max_s = 5\n\n\
         [load]\nbatch_age_ms = {batch_age_ms}\nsession_timeout_s = {session_timeout_s}\nunwritten_age_max_s = 20\n",
        brokers.join(", ")
    )
}
