//! Watches, from the first load to the end, the memory of processes and the offsets that must never
//! go back.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::committed::positions_at;
use crate::usage::rss_kib;
use crate::{Observer, Offsets};

/// Interval of the checks.
const EVERY: Duration = Duration::from_secs(2);
/// Memory taken at the beginning does not count as growth.
const WARM_UP: Duration = Duration::from_secs(120);
const MIB: f64 = 1024.0;

/// Samples of one process: time since the start, and resident memory in KiB.
#[derive(Default)]
struct Samples {
    process: u32,
    samples: Vec<(f64, f64)>,
}

#[derive(Default)]
struct State {
    memory: BTreeMap<String, Samples>,
    committed: Offsets,
    positions: Offsets,
    rewinds: Vec<String>,
    looks: u64,
    /// Whether commits may go back now.
    ignores_commits: bool,
    /// How often that has changed. An answer to a question from before the last change does not
    /// count.
    changes: u64,
}

impl State {
    /// Whether commits count that were read after this number of changes.
    fn counts(&self, changes: u64) -> bool {
        self.changes == changes && !self.ignores_commits
    }
}

/// The watch. Its thread ends when it is dropped.
pub struct Watch {
    state: Arc<Mutex<State>>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Memory of a process over time.
#[derive(Clone, Debug)]
pub struct Memory {
    /// Name of the process.
    pub name: String,
    /// Time covered by the samples that count, min.
    pub minutes: f64,
    /// Resident memory at the first sample, MiB.
    pub first_mib: f64,
    /// Greatest resident memory, MiB.
    pub most_mib: f64,
    /// Resident memory at the last sample, MiB.
    pub last_mib: f64,
    /// Slope of a straight line through all samples, MiB an hour.
    pub slope_mib_h: f64,
}

impl Watch {
    /// Begins to watch; `clickhouse` is the engine's address.
    pub fn start(observer: Observer, clickhouse: String) -> Self {
        let (state, ended): (Arc<Mutex<State>>, Arc<AtomicBool>) = (Arc::default(), Arc::default());
        let (shared, over) = (Arc::clone(&state), Arc::clone(&ended));
        let thread = thread::spawn(move || {
            let began = Instant::now();
            let agent = ureq::Agent::config_builder()
                .http_status_as_error(false)
                .timeout_global(Some(Duration::from_secs(10)))
                .build()
                .new_agent();
            while !over.load(Ordering::Relaxed) {
                let changes = service::lock(&shared).changes;
                // An engine that is away gives no answer.
                let (committed, positions) = (observer.committed(), positions_at(&agent, &clickhouse));
                let mut state = service::lock(&shared);
                let counts = state.counts(changes);
                look(&mut state, began.elapsed(), committed.ok().filter(|_| counts), positions.ok());
                drop(state);
                thread::sleep(EVERY);
            }
        });
        Self { state, ended, thread: Some(thread) }
    }

    /// Watches the memory of this process from now on. Forgets an earlier process of the same name.
    pub fn process(&self, name: &str, id: u32) {
        service::lock(&self.state).memory.insert(name.to_owned(), Samples { process: id, samples: Vec::new() });
    }

    /// From now on commits may go back, until they are watched again; positions may not.
    pub fn ignore_commits(&self) {
        self.set_ignores_commits(true);
    }

    /// Watches commits again, from their next values on.
    pub fn watch_commits(&self) {
        self.set_ignores_commits(false);
    }

    fn set_ignores_commits(&self, ignores: bool) {
        let mut state = service::lock(&self.state);
        state.ignores_commits = ignores;
        state.changes += 1;
        state.committed.clear();
    }

    /// Every offset that went back, and the number of checks.
    pub fn rewinds(&self) -> (Vec<String>, u64) {
        let state = service::lock(&self.state);
        (state.rewinds.clone(), state.looks)
    }

    /// The memory of each process.
    pub fn memory(&self) -> Vec<Memory> {
        let state = service::lock(&self.state);
        state.memory.iter().filter_map(|(name, samples)| memory(name, &samples.samples)).collect()
    }

    /// All samples for a plot: seconds and KiB, by process.
    pub fn samples(&self) -> Value {
        let state = service::lock(&self.state);
        let thin = |samples: &Samples| {
            let every = (samples.samples.len() / 200).max(1);
            samples.samples.iter().step_by(every).map(|(s, kib)| json!([s.round(), kib])).collect::<Vec<_>>()
        };
        state.memory.iter().map(|(name, samples)| (name.clone(), json!(thin(samples)))).collect()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn look(state: &mut State, at: Duration, committed: Option<Offsets>, positions: Option<Offsets>) {
    state.looks += 1;
    for samples in state.memory.values_mut() {
        if let Some(kib) = rss_kib(samples.process) {
            samples.samples.push((at.as_secs_f64(), kib));
        }
    }
    let State { rewinds, committed: last_committed, positions: last_positions, .. } = state;
    for (what, last, now) in [("commit", last_committed, committed), ("position", last_positions, positions)] {
        let Some(now) = now else { continue };
        for (partition, offset) in last.iter() {
            if let Some(next) = now.get(partition).filter(|next| *next < offset) {
                rewinds.push(format!("{what} of {partition:?} went from {offset} to {next}"));
            }
        }
        *last = now;
    }
}

fn memory(name: &str, samples: &[(f64, f64)]) -> Option<Memory> {
    let began = samples.first()?.0;
    let warm: Vec<_> = samples.iter().filter(|(at, _)| at - began >= WARM_UP.as_secs_f64()).collect();
    let (first, last) = (warm.first()?, warm.last()?);
    let count = warm.len() as f64;
    let mean = |of: &dyn Fn(&(f64, f64)) -> f64| warm.iter().map(|sample| of(sample)).sum::<f64>() / count;
    let (time, kib) = (mean(&|sample| sample.0), mean(&|sample| sample.1));
    let covariance = mean(&|sample| (sample.0 - time) * (sample.1 - kib));
    let variance = mean(&|sample| (sample.0 - time).powi(2));
    let slope = if variance > 0.0 { covariance / variance } else { 0.0 };
    Some(Memory {
        name: name.to_owned(),
        minutes: (last.0 - first.0) / 60.0,
        first_mib: first.1 / MIB,
        most_mib: warm.iter().map(|sample| sample.1).fold(0.0, f64::max) / MIB,
        last_mib: last.1 / MIB,
        slope_mib_h: slope * 3600.0 / MIB,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slope_of_a_line_is_found_and_the_beginning_does_not_count() {
        let samples: Vec<_> =
            (0..600).map(|s| (f64::from(s), if s < 120 { 9e9 } else { 1024.0 * f64::from(s) })).collect();
        let memory = memory("x", &samples).expect("enough samples");
        assert!((memory.slope_mib_h - 3600.0).abs() < 1e-6, "{memory:?}");
        assert!((memory.most_mib - 599.0).abs() < 1e-9);
    }

    #[test]
    fn what_was_asked_before_commits_were_set_back_on_purpose_says_nothing() {
        let watch = Watch { state: Arc::default(), ended: Arc::default(), thread: None };
        let offsets = |offset: i64| Some(Offsets::from([(("t".to_owned(), 0), offset)]));
        let look_after = |changes: u64, offset: i64| {
            let mut state = service::lock(&watch.state);
            let counts = state.counts(changes);
            look(&mut state, Duration::ZERO, offsets(offset).filter(|_| counts), None);
        };
        look_after(0, 9);
        watch.ignore_commits();
        look_after(0, 9);
        look_after(1, 0);
        watch.watch_commits();
        look_after(1, 9);
        look_after(2, 3);
        assert_eq!(watch.rewinds().0, [""; 0]);
        look_after(2, 2);
        assert_eq!(watch.rewinds().0.len(), 1);
    }

    #[test]
    fn an_offset_that_goes_back_is_seen() {
        let (mut state, key) = (State::default(), ("t".to_owned(), 0));
        let offsets = |offset: i64| Some(Offsets::from([(key.clone(), offset)]));
        for offset in [5, 7, 7, 9] {
            look(&mut state, Duration::ZERO, offsets(offset), None);
        }
        assert!(state.rewinds.is_empty());
        look(&mut state, Duration::ZERO, offsets(8), None);
        assert_eq!(state.rewinds.len(), 1);
    }
}
