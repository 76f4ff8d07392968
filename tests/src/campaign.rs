//! The fault campaign: faults strike every part, again and again, while a simulated fleet keeps
//! sending. Engines stay up between the faults. The oracle is the fleet's own record of its events.
//!
//! After each turn of one kind of fault, the events made meanwhile must be in ClickHouse, once and
//! with their values. The aggregates of the batches committed meanwhile must equal their base rows.
//! At the end the same holds for everything. The seed decides which fault comes when and where it
//! strikes; the machine decides the rest.

mod faults;
mod finale;
mod fleet;
mod gateway;
mod kafka;
mod oracle;
mod recent;
mod relay;
mod report;
mod stage;
mod sums;
mod watch;

use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::seq::SliceRandom;

use faults::{FAULTS, Fault, Random};
use fleet::Load;
pub use oracle::Findings;
pub use report::{Report, Row};
use stage::{Setting, Stage};

/// Age at which an event should have arrived; devices without a network then have it back.
const ARRIVED_AFTER: Duration = Duration::from_secs(60);
/// Additional time that it may take.
const ARRIVED_WITHIN: Duration = Duration::from_secs(420);
/// Attempts that may miss, for each wanted strike: the awaited statement did not come, or something
/// else was hit.
const MISSES: u32 = 4;

/// Options of a campaign.
#[derive(Clone, Debug)]
pub struct Options {
    /// Decides which fault comes when and where it strikes.
    pub seed: u64,
    /// How long faults strike, in turns; `None` means each as often as in continuous integration,
    /// then the end.
    pub minutes: Option<u64>,
    /// Names of faults; empty means all.
    pub faults: Vec<String>,
    /// Events a second over the whole fleet.
    pub rate: u32,
    /// Number of devices in each fleet.
    pub devices: u32,
    /// Number of partitions of each topic.
    pub partitions: i32,
}

impl Options {
    /// The command that repeats the campaign: the same faults in the same order at the same points,
    /// as far as the machine permits.
    pub fn command(&self) -> String {
        let Self { seed, minutes, faults, rate, devices, partitions } = self;
        let minutes = minutes.map(|minutes| format!(" --minutes {minutes}")).unwrap_or_default();
        let faults = if faults.is_empty() { String::new() } else { format!(" --faults {}", faults.join(",")) };
        format!(
            "cargo xtask soak --seed {seed} --rate {rate} --devices {devices} --partitions {partitions}{minutes}{faults}"
        )
    }
}

/// Names of all faults, with their description and their number in continuous integration.
pub fn names() -> Vec<(&'static str, &'static str, u32)> {
    let last = finale::LAST.iter().map(|last| (last.name, last.what, 1));
    FAULTS.iter().map(|fault| (fault.name, fault.what, fault.ci)).chain(last).collect()
}

/// Refuses unknown names of faults.
///
/// # Errors
/// The unknown name, and the known ones.
pub fn check_names(faults: &[String]) -> Result<(), String> {
    let known: Vec<_> = names().into_iter().map(|(name, ..)| name).collect();
    match faults.iter().find(|name| !known.contains(&name.as_str())) {
        None => Ok(()),
        Some(unknown) => Err(format!("there is no fault {unknown:?}; known are {}", known.join(", "))),
    }
}

/// Runs a campaign to its end and returns its report.
///
/// # Panics
/// If something does not work again in time, or a process ends unexpectedly.
pub fn run(options: &Options) -> Report {
    let mut campaign = Campaign::start(options);
    match options.minutes {
        None => campaign.once_each(),
        Some(minutes) => campaign.turns(Duration::from_secs(minutes * 60)),
    }
    campaign.finish()
}

struct Campaign {
    options: Options,
    stage: Stage,
    random: Random,
    report: Report,
    began: Instant,
}

impl Campaign {
    fn start(options: &Options) -> Self {
        check_names(&options.faults).unwrap_or_else(|error| panic!("{error}"));
        let began = Instant::now();
        let is_long = options.minutes.is_some();
        let load = Load {
            devices: options.devices,
            rate: options.rate,
            chapter: Duration::from_secs(if is_long { 240 } else { 30 }),
            seed: options.seed.wrapping_mul(1_000),
        };
        let setting = Setting {
            partitions: options.partitions,
            loaders: if is_long { 3 } else { 2 },
            kept: is_long,
            session_timeout_s: if is_long { 6 } else { 3 },
            batch_age_ms: if is_long { 2_000 } else { 1_000 },
            disk_mib: if is_long { 8_192 } else { 2_048 },
            load,
        };
        let Options { seed, rate, devices, .. } = options;
        eprintln!("campaign: seed {seed}, {rate} events/s by {devices} devices; again: {}", options.command());
        let stage = Stage::start(setting);
        let rows = FAULTS.iter().filter(|fault| chosen(options, fault)).map(|fault| Row::new(fault.name, fault.what));
        let report = Report::new(options, rows.collect());
        let campaign =
            Self { options: options.clone(), stage, random: Random::seed_from_u64(options.seed), report, began };
        campaign.say("data moves");
        campaign
    }

    fn say(&self, what: &str) {
        eprintln!("campaign: {:7.1} s: {what}", self.began.elapsed().as_secs_f64());
    }

    /// Each fault as often as in continuous integration, in a random order.
    fn once_each(&mut self) {
        let mut order: Vec<_> = self.chosen().filter(|fault| fault.ci > 0).collect();
        order.shuffle(&mut self.random);
        for fault in order {
            self.turn(fault, fault.ci);
        }
    }

    /// Turns in a random order, all kinds before any is repeated. Faults that last long have their
    /// own times.
    fn turns(&mut self, length: Duration) {
        let mut lasting: Vec<_> = self.chosen().filter(|fault| fault.turn == 0).collect();
        lasting.shuffle(&mut self.random);
        let count = lasting.len();
        let mut deck: Vec<&'static Fault> = Vec::new();
        while self.began.elapsed() < length {
            let passed = self.began.elapsed().as_secs_f64() / length.as_secs_f64();
            let due = (count - lasting.len() + 1) as f64 / (count + 1) as f64;
            if passed >= due
                && let Some(fault) = lasting.pop()
            {
                self.turn(fault, 1);
                continue;
            }
            if deck.is_empty() {
                deck = self.chosen().filter(|fault| fault.turn > 0).collect();
                deck.shuffle(&mut self.random);
            }
            match deck.pop() {
                Some(fault) => self.turn(fault, fault.turn),
                None => std::thread::sleep(Duration::from_secs(1)),
            }
        }
    }

    fn chosen(&self) -> impl Iterator<Item = &'static Fault> + use<> {
        let options = self.options.clone();
        FAULTS.iter().filter(move |fault| chosen(&options, fault))
    }

    /// Injects a fault until it has struck `times` times, then compares.
    fn turn(&mut self, fault: &Fault, times: u32) {
        let (mut struck, mut missed) = (0, 0);
        let mut recoveries = Vec::new();
        while struck < times && missed < MISSES * times {
            let outcome = (fault.inject)(&mut self.stage, &mut self.random);
            struck += outcome.times;
            missed += u32::from(outcome.times == 0);
            recoveries.push(outcome.recovery_s);
        }
        self.stage.read_truth();
        let findings = self.stage.oracle.check(&self.stage.clickhouse, fault.name);
        let slowest = recoveries.iter().copied().fold(0.0, f64::max);
        self.say(&format!("{} x{struck}, slowest recovery {slowest:.1} s: {}", fault.name, findings.summary()));
        self.report.add(fault.name, struck, &recoveries);
        self.found(fault.name, &findings);
        self.look_for_earlier(ARRIVED_AFTER);
    }

    /// Compares the events of earlier turns.
    fn look_for_earlier(&mut self, age: Duration) {
        for (turn, findings) in self.stage.oracle.arrived(&self.stage.clickhouse, age, ARRIVED_WITHIN) {
            if !findings.none() {
                self.say(&format!("{turn}: {}", findings.summary()));
            }
            self.found(turn, &findings);
        }
    }

    fn found(&mut self, turn: &str, findings: &Findings) {
        for example in &findings.examples {
            eprintln!("campaign:            {example}");
        }
        self.report.found(turn, findings);
    }

    /// Waits for all receipts and until everything is written, then compares everything.
    fn finish(mut self) -> Report {
        self.say("no more faults");
        self.stage.end_load();
        self.say("the fleets have all receipts");
        self.stage.wait_until_drained();
        self.say("everything is written");
        self.look_for_earlier(Duration::ZERO);
        self.stage.read_truth();
        let findings = self.stage.oracle.check_all(&self.stage.clickhouse);
        self.say(&format!("all of it: {}", findings.summary()));
        for example in &findings.examples {
            eprintln!("campaign:            {example}");
        }
        let (made, resent) = self.stage.fleet().totals();
        assert_eq!(made, self.stage.oracle.events(), "the truth holds what the fleets say they made");
        let stored = self.stage.clickhouse.number("SELECT count() FROM doseline.injections");
        let (rewinds, looks) = self.stage.watch.rewinds();
        for rewind in &rewinds {
            eprintln!("campaign: went back: {rewind}");
        }
        self.report.minutes = self.began.elapsed().as_secs_f64() / 60.0;
        (self.report.made, self.report.resent, self.report.injections) = (made, resent, stored);
        (self.report.rewinds, self.report.looks) = (rewinds.len(), looks);
        self.report.memory = self.stage.watch.memory();
        self.report.samples = self.stage.watch.samples();
        self.report.total = findings;
        let is_ci = self.options.minutes.is_none();
        for last in finale::LAST.iter().filter(|last| is_ci && is_wanted(&self.options, last.name)) {
            self.report.rows.push(last.strike(&mut self.stage));
            self.say(last.name);
        }
        if is_ci {
            finale::prove_oracle(&mut self.stage);
            self.say("the oracle finds what is wrong");
        }
        self.report
    }
}

fn chosen(options: &Options, fault: &Fault) -> bool {
    is_wanted(options, fault.name)
}

fn is_wanted(options: &Options, name: &str) -> bool {
    options.faults.is_empty() || options.faults.iter().any(|wanted| wanted == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_fault_is_named_with_those_that_exist() {
        let error = check_names(&["bridge-kill".to_owned(), "flood".to_owned()]).expect_err("no flood");
        assert!(error.contains("\"flood\"") && error.contains("disk-full"), "{error}");
    }

    #[test]
    fn a_campaign_names_the_command_that_replays_it() {
        let mut options = Options { seed: 7, minutes: None, faults: Vec::new(), rate: 300, devices: 60, partitions: 4 };
        assert_eq!(options.command(), "cargo xtask soak --seed 7 --rate 300 --devices 60 --partitions 4");
        (options.minutes, options.faults) = (Some(5), ["scale", "backlog"].map(str::to_owned).to_vec());
        assert!(options.command().ends_with(" --partitions 4 --minutes 5 --faults scale,backlog"));
    }

    #[test]
    fn faults_have_names_of_their_own() {
        let distinct: std::collections::BTreeSet<_> = names().into_iter().map(|(name, ..)| name).collect();
        assert_eq!(distinct.len(), names().len());
    }
}
