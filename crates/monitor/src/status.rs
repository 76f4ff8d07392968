//! What the monitor reports of itself: readiness and metrics. Metric names are public.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

use service::{
    health::{Obstacle, Readiness, Role},
    lock,
};

/// What one pass did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Units that were evaluated.
    pub units: u64,
    /// Verdicts that are new or differ from before.
    pub verdicts: u64,
    /// Alerts that were raised or changed.
    pub alerts: u64,
    /// Whether everything was evaluated.
    pub whole: bool,
}

/// Passes that finished.
pub const PASSES: &str = "doseline_monitor_passes_total";
/// Passes that failed.
pub const FAILURES: &str = "doseline_monitor_failures_total";
/// Items, mounts, sessions and sterilizers evaluated.
pub const UNITS: &str = "doseline_monitor_units_total";
/// Verdicts written.
pub const VERDICTS: &str = "doseline_monitor_verdicts_total";
/// Alerts raised, changed or ended.
pub const ALERTS: &str = "doseline_monitor_alerts_total";
/// Time since a target last had every open alert, seconds, by `target`.
pub const SINCE_TOLD_SECONDS: &str = "doseline_monitor_since_told_seconds";
/// Time since the last pass that finished, seconds.
pub const SINCE_PASS_SECONDS: &str = "doseline_monitor_since_pass_seconds";
/// Time that a pass takes, seconds.
pub const PASS_SECONDS: &str = "doseline_monitor_pass_seconds";

/// Every name.
pub const ALL: [&str; 8] =
    [PASSES, FAILURES, UNITS, VERDICTS, ALERTS, SINCE_TOLD_SECONDS, SINCE_PASS_SECONDS, PASS_SECONDS];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TargetLabel {
    target: &'static str,
}

/// What a monitor says about itself. Clones share it.
#[derive(Clone)]
pub struct Handle(Arc<Inner>);

struct Inner {
    stalled_after: Duration,
    state: Mutex<State>,
    registry: Registry,
    passes: Counter,
    failures: Counter,
    units: Counter,
    verdicts: Counter,
    alerts: Counter,
    since_pass: Gauge<f64, std::sync::atomic::AtomicU64>,
    since_told: Family<TargetLabel, Gauge<f64, std::sync::atomic::AtomicU64>>,
    seconds: Histogram,
}

struct State {
    began: Instant,
    finished: Option<Instant>,
    trouble: Option<String>,
    /// When each target last had every open alert, and the error since.
    notified: BTreeMap<&'static str, (Instant, Option<String>)>,
}

impl Handle {
    /// A handle for one monitor; it is ready once a pass has finished, until none has for
    /// `stalled_after`.
    pub fn new(stalled_after: Duration) -> Self {
        let mut registry = Registry::default();
        // The encoder adds `_total` to counters itself.
        let counter = |name: &'static str| name.strip_suffix("_total").unwrap_or(name);
        let (passes, failures, units) = (Counter::default(), Counter::default(), Counter::default());
        let (verdicts, alerts, since_pass) = (Counter::default(), Counter::default(), Gauge::default());
        let since_told = Family::<TargetLabel, Gauge<f64, std::sync::atomic::AtomicU64>>::default();
        registry.register(SINCE_TOLD_SECONDS, "Time since a target last had every open alert", since_told.clone());
        let seconds = Histogram::new(exponential_buckets(0.01, 2.0, 14));
        registry.register(counter(PASSES), "Passes that finished", passes.clone());
        registry.register(counter(FAILURES), "Passes that failed", failures.clone());
        registry.register(counter(UNITS), "Items, mounts, sessions and sterilizers evaluated", units.clone());
        registry.register(counter(VERDICTS), "Verdicts written", verdicts.clone());
        registry.register(counter(ALERTS), "Alerts raised, changed or ended", alerts.clone());
        registry.register(SINCE_PASS_SECONDS, "Time since the last pass that finished", since_pass.clone());
        registry.register(PASS_SECONDS, "Time that a pass takes", seconds.clone());
        let state =
            Mutex::new(State { began: Instant::now(), finished: None, trouble: None, notified: BTreeMap::new() });
        Self(Arc::new(Inner {
            stalled_after,
            state,
            registry,
            passes,
            failures,
            units,
            verdicts,
            alerts,
            since_pass,
            since_told,
            seconds,
        }))
    }

    pub(crate) fn finished(&self, summary: &Summary, took: Duration) {
        let Inner { passes, units, verdicts, alerts, seconds, .. } = &*self.0;
        passes.inc();
        units.inc_by(summary.units);
        verdicts.inc_by(summary.verdicts);
        alerts.inc_by(summary.alerts);
        seconds.observe(took.as_secs_f64());
        self.with(|state| (state.finished, state.trouble) = (Some(Instant::now()), None));
    }

    /// Counts a failed pass. Returns whether its error differs from the last one.
    pub(crate) fn failed(&self, trouble: &str) -> bool {
        self.0.failures.inc();
        self.with(|state| state.trouble.replace(trouble.to_owned()).as_deref() != Some(trouble))
    }

    /// A target has every open alert (`trouble` is none), or did not accept them.
    pub(crate) fn notified(&self, target: &'static str, trouble: Option<String>) {
        self.with(|state| match trouble {
            None => drop(state.notified.insert(target, (Instant::now(), None))),
            Some(trouble) => state.notified.entry(target).or_insert((Instant::now(), None)).1 = Some(trouble),
        });
    }

    /// Whether passes finish and alerts reach their targets.
    pub fn readiness(&self) -> Readiness {
        let limit = self.0.stalled_after;
        let obstacles = self.with(|state| {
            let age = state.finished.unwrap_or(state.began).elapsed();
            let cause = |trouble: &Option<String>| trouble.as_ref().map(|text| format!(": {text}")).unwrap_or_default();
            let overdue = state.notified.iter().filter(|(_, (at, _))| at.elapsed() > limit);
            let mut obstacles: Vec<_> = overdue
                .map(|(target, (at, trouble))| {
                    let (age, cause) = (at.elapsed().as_secs(), cause(trouble));
                    let reason = format!("alerts have not reached {target} for {age} s{cause}");
                    Obstacle { part: target, reason }
                })
                .collect();
            let cause = cause(&state.trouble);
            let stalled = match state.finished {
                None => Some(format!("no pass has finished yet{cause}")),
                Some(_) if age > limit => {
                    let (age, limit) = (age.as_secs(), limit.as_secs());
                    Some(format!("no pass has finished for {age} s, limit {limit} s{cause}"))
                }
                Some(_) => None,
            };
            obstacles.extend(stalled.map(|reason| Obstacle { part: "clickhouse", reason }));
            obstacles
        });
        Readiness::of(obstacles)
    }

    /// All metrics in the OpenMetrics text format.
    pub fn metrics(&self) -> String {
        self.0.since_pass.set(self.with(|state| state.finished.unwrap_or(state.began).elapsed().as_secs_f64()));
        self.with(|state| {
            for (target, (at, _)) in &state.notified {
                self.0.since_told.get_or_create(&TargetLabel { target }).set(at.elapsed().as_secs_f64());
            }
        });
        let mut text = String::new();
        // Writing to a `String` cannot fail.
        let _ = encode(&mut text, &self.0.registry);
        text
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        // Nothing is left half-changed by a panic under this lock.
        work(&mut lock(&self.0.state))
    }
}

impl Role for Handle {
    fn readiness(&self) -> Readiness {
        Self::readiness(self)
    }

    fn metrics(&self) -> String {
        Self::metrics(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_ready_after_a_pass_and_until_it_stalls() {
        let handle = Handle::new(Duration::from_secs(60));
        assert!(!handle.readiness().ready);
        assert!(handle.failed("engine away") && !handle.failed("engine away"));
        let reason = "no pass has finished yet: engine away".to_owned();
        assert_eq!(handle.readiness().obstacles, [Obstacle { part: "clickhouse", reason }]);
        handle.finished(&Summary::default(), Duration::from_millis(5));
        assert!(handle.readiness().ready);
        let hasty = Handle::new(Duration::ZERO);
        hasty.finished(&Summary::default(), Duration::ZERO);
        std::thread::yield_now();
        assert!(!hasty.readiness().ready);
    }

    /// This also covers a notifier task that has ended without an error.
    #[test]
    fn alerts_that_reach_nobody_are_an_obstacle() {
        let handle = Handle::new(Duration::ZERO);
        handle.notified("webhook", None);
        std::thread::sleep(Duration::from_millis(2));
        assert!(handle.readiness().obstacles[0].reason.starts_with("alerts have not reached webhook for 0 s"));
        handle.notified("webhook", Some("refused".to_owned()));
        assert!(handle.readiness().obstacles[0].reason.ends_with("for 0 s: refused"), "{:?}", handle.readiness());
        let patient = Handle::new(Duration::from_secs(60));
        patient.finished(&Summary::default(), Duration::ZERO);
        patient.notified("webhook", Some("refused".to_owned()));
        assert!(patient.readiness().ready);
    }

    #[test]
    fn every_name_is_exposed() {
        let handle = Handle::new(Duration::from_secs(60));
        handle.notified("kafka", None);
        handle.finished(&Summary::default(), Duration::from_millis(5));
        let text = handle.metrics();
        for name in ALL {
            let exposed = text.lines().any(|line| {
                let sample = line.split([' ', '{']).next().unwrap_or_default();
                sample == name || sample.strip_suffix("_count") == Some(name)
            });
            assert!(exposed, "{name} is not in\n{text}");
        }
    }
}
