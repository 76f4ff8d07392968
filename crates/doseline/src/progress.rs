//! Prints the progress of long work to standard error. A terminal gets a line that is redrawn, any
//! other output a line at intervals.

use std::{
    io::{IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

const REDRAW: Duration = Duration::from_millis(200);
const LINE_EVERY: Duration = Duration::from_secs(10);
const BAR: usize = 20;

pub struct Progress {
    what: String,
    unit: &'static str,
    total: u64,
    done: u64,
    started: Instant,
    shown: Instant,
    terminal: bool,
}

impl Progress {
    /// Progress of work with `total` units, of which none is done yet.
    pub fn new(what: impl Into<String>, unit: &'static str, total: u64) -> Self {
        let now = Instant::now();
        let terminal = std::io::stderr().is_terminal();
        Self { what: what.into(), unit, total, done: 0, started: now, shown: now, terminal }
    }

    /// Adds finished units.
    pub fn add(&mut self, done: u64) {
        self.done += done;
        if self.shown.elapsed() >= if self.terminal { REDRAW } else { LINE_EVERY } {
            self.show();
        }
    }

    fn show(&mut self) {
        self.shown = Instant::now();
        let text = line(&self.what, self.unit, self.done, self.total, self.started.elapsed());
        let mut stderr = std::io::stderr().lock();
        // If standard error is closed, the output is not wanted.
        let _ = if self.terminal { write!(stderr, "\r\x1b[K{text}") } else { writeln!(stderr, "{text}") };
        let _ = stderr.flush();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.show();
        if self.terminal {
            eprintln!();
        }
    }
}

fn line(what: &str, unit: &str, done: u64, total: u64, elapsed: Duration) -> String {
    let percent = if total == 0 { 100 } else { (u128::from(done.min(total)) * 100 / u128::from(total)) as u64 };
    let filled = percent as usize * BAR / 100;
    let bar = "#".repeat(filled) + &"-".repeat(BAR - filled);
    let rate = (done as f64 / elapsed.as_secs_f64().max(0.001)) as u64;
    let left = match (total.saturating_sub(done), rate) {
        (0, _) => format!("done in {} s", elapsed.as_secs()),
        (_, 0) => "time left unknown".to_owned(),
        (rest, rate) => format!("{} s left", rest / rate + 1),
    };
    format!("{what}: [{bar}] {percent} %, {done} of {total} {unit}, {rate}/s, {left}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_how_far_how_fast_and_how_long() {
        let check = |done, total, s, expected: &str| {
            assert_eq!(line("read", "records", done, total, Duration::from_secs(s)), expected);
        };
        check(50, 200, 10, "read: [#####---------------] 25 %, 50 of 200 records, 5/s, 31 s left");
        check(0, 200, 10, "read: [--------------------] 0 %, 0 of 200 records, 0/s, time left unknown");
        check(200, 200, 10, "read: [####################] 100 %, 200 of 200 records, 20/s, done in 10 s");
        check(0, 0, 0, "read: [####################] 100 %, 0 of 0 records, 0/s, done in 0 s");
    }
}
