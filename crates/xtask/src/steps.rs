//! The steps of a command: number and total of the running step, and the time of each.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::progress::{Amount, LOOK_INTERVAL, Line, describe, duration};

/// A shorter step gets no line about its end.
const WORTH_MENTIONING: Duration = Duration::from_secs(1);

/// Runs steps in order and measures them.
pub struct Steps {
    total: usize,
    line: Line,
    /// Time since the command was started.
    clock: Box<dyn Fn() -> Duration + Send + Sync>,
    taken: Vec<(&'static str, Duration)>,
}

impl Steps {
    /// The steps of a command that has `total` steps.
    pub fn new(total: usize) -> Self {
        let started = Instant::now();
        Self::with(total, Line::stderr(), Box::new(move || started.elapsed()))
    }

    fn with(total: usize, line: Line, clock: Box<dyn Fn() -> Duration + Send + Sync>) -> Self {
        Self { total, line, clock, taken: Vec::new() }
    }

    /// Runs the next step, and keeps its time even if it fails.
    pub fn run<T>(&mut self, name: &'static str, work: impl FnOnce(&mut Step) -> Result<T>) -> Result<T> {
        let prefix = format!("xtask: [{}/{}] ", self.taken.len() + 1, self.total);
        let started = (self.clock)();
        self.line.announce(started, &format!("{prefix}{name}"));
        let mut step = Step { line: &mut self.line, clock: self.clock.as_ref(), prefix, name };
        let result = work(&mut step);
        let prefix = step.prefix;
        let now = (self.clock)();
        let taken = now - started;
        self.taken.push((name, taken));
        if result.is_ok() && taken >= WORTH_MENTIONING {
            self.line.announce(now, &format!("{prefix}{name}: done after {}", duration(taken)));
        }
        self.line.leave();
        result.with_context(|| format!("step `{name}` failed"))
    }

    /// The time of each finished step, and the total.
    pub fn table(&self) -> String {
        let mut table = "time of each step:\n".to_owned();
        for (name, taken) in &self.taken {
            table += &format!("{:>9.1} s  {name}\n", taken.as_secs_f64());
        }
        table + &format!("{:>9.1} s  all steps\n", (self.clock)().as_secs_f64())
    }
}

/// A running step and its progress line.
pub struct Step<'a> {
    line: &'a mut Line,
    clock: &'a (dyn Fn() -> Duration + Send + Sync),
    prefix: String,
    name: &'static str,
}

impl Step<'_> {
    /// Name of the step, as the table shows it.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Whether the output is a terminal.
    pub fn on_terminal(&self) -> bool {
        self.line.is_terminal()
    }

    /// Time since the command was started.
    pub fn now(&self) -> Duration {
        (self.clock)()
    }

    /// Shows the progress of an action that began at `since`.
    pub fn show(&mut self, since: Duration, what: &str, amount: &Amount) {
        let now = self.now();
        self.line.show(now, &describe(&format!("{}{what}", self.prefix), amount, now.saturating_sub(since)));
    }

    /// Writes a permanent line.
    pub fn say(&mut self, text: &str) {
        self.line.say(text);
    }

    /// Ends the progress line, because another program will write to the terminal.
    pub fn give_way(&mut self) {
        self.line.leave();
    }

    /// Does some work, and shows its progress meanwhile.
    pub fn watch<T>(&mut self, what: &str, amount: impl Fn() -> Amount + Send, work: impl FnOnce() -> T) -> T {
        let since = self.now();
        self.line.announce(since, &format!("{}{what}", self.prefix));
        let (done, ended) = mpsc::channel::<()>();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                while let Err(mpsc::RecvTimeoutError::Timeout) = ended.recv_timeout(LOOK_INTERVAL) {
                    self.show(since, what, &amount());
                }
            });
            let result = work();
            drop(done);
            result
        })
    }
}

#[cfg(test)]
pub mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use anyhow::bail;

    use super::*;
    use crate::progress::Captured;

    /// Steps in a log, with a clock that the test moves.
    pub fn steps(total: usize) -> (Steps, Captured, Arc<AtomicU64>) {
        let (written, seconds) = (Captured::default(), Arc::new(AtomicU64::new(0)));
        let clock = Arc::clone(&seconds);
        let clock = Box::new(move || Duration::from_secs(clock.load(Ordering::Relaxed)));
        (Steps::with(total, Line::new(Box::new(written.clone()), false), clock), written, seconds)
    }

    #[test]
    fn each_step_has_its_number_and_its_time() {
        let (mut steps, written, seconds) = steps(3);
        steps.run("formatting", |_| Ok(())).unwrap();
        steps
            .run("build", |step| {
                for second in 0..25 {
                    seconds.store(second, Ordering::Relaxed);
                    step.show(Duration::ZERO, "build doseline", &Amount::default());
                }
                step.say("warning: unused");
                Ok(())
            })
            .unwrap();
        let error = steps.run::<()>("tests", |_| bail!("no")).unwrap_err();
        assert_eq!(format!("{error:#}"), "step `tests` failed: no");
        assert_eq!(
            written.text(),
            "xtask: [1/3] formatting\n\
             xtask: [2/3] build\n\
             xtask: [2/3] build doseline: 10 s\n\
             xtask: [2/3] build doseline: 20 s\n\
             warning: unused\n\
             xtask: [2/3] build: done after 24 s\n\
             xtask: [3/3] tests\n"
        );
        seconds.store(60, Ordering::Relaxed);
        assert_eq!(
            steps.table(),
            "time of each step:\n      0.0 s  formatting\n     24.0 s  build\n      0.0 s  tests\n     60.0 s  all steps\n"
        );
    }

    #[test]
    fn work_is_watched_while_it_runs() {
        let (mut steps, written, seconds) = steps(1);
        let looks = AtomicU64::new(0);
        steps
            .run("engines", |step| {
                let amount = || {
                    looks.fetch_add(1, Ordering::Relaxed);
                    Amount::megabytes(45 << 20, 180)
                };
                step.watch("fetch it", amount, || {
                    seconds.store(12, Ordering::Relaxed);
                    let deadline = Instant::now() + Duration::from_secs(30);
                    while looks.load(Ordering::Relaxed) < 2 && Instant::now() < deadline {
                        std::thread::yield_now();
                    }
                });
                Ok(())
            })
            .unwrap();
        assert_eq!(
            written.text(),
            "xtask: [1/1] engines\n\
             xtask: [1/1] fetch it\n\
             xtask: [1/1] fetch it: 45 of 180 MB, 12 s, about 40 s left\n\
             xtask: [1/1] engines: done after 12 s\n"
        );
    }
}
