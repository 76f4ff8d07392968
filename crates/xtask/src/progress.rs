//! One line that shows the current action, how much of it is done, and the time past and left.
//!
//! A terminal redraws the line. A log gets a new line every ten seconds.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

/// Least time between two lines of a log.
const LOG_INTERVAL: Duration = Duration::from_secs(10);
/// Time between two looks at a running action.
pub const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// No estimate before this time: the first seconds say little about the rest.
const GUESS_AFTER: Duration = Duration::from_secs(5);
/// No estimate below this part of the work.
const GUESS_FROM: f64 = 0.05;

/// Goes to the start of the line, and stops a long text from continuing on the next line, which
/// could not be redrawn.
const BEGIN: &str = "\r\x1b[?7l";
/// Deletes the rest of a longer text, and allows continuation lines again.
const END: &str = "\x1b[K\x1b[?7h";
const CLEAR: &str = "\r\x1b[K";

/// How much of an action is done.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Amount {
    /// Text such as `45 of 180 MB`; empty if nothing can be counted.
    pub text: String,
    /// The part of the work that is done, 0 to 1. Counts only what this run must do itself.
    pub part: Option<f64>,
}

impl Amount {
    /// The amount of a download with a known size. A surplus is shown as the whole size.
    pub fn megabytes(bytes: u64, total_mb: u64) -> Self {
        let done = (bytes >> 20).min(total_mb);
        Self { text: format!("{done} of {total_mb} MB"), part: Some(done as f64 / total_mb.max(1) as f64) }
    }
}

/// `what: 45 of 180 MB, 12 s, about 40 s left`
pub fn describe(what: &str, amount: &Amount, elapsed: Duration) -> String {
    let mut facts = Vec::new();
    if !amount.text.is_empty() {
        facts.push(amount.text.clone());
    }
    if elapsed >= Duration::from_secs(1) {
        facts.push(duration(elapsed));
    }
    facts.extend(amount.part.and_then(|part| remaining(part, elapsed)).map(|rest| format!("about {rest} left")));
    if facts.is_empty() { what.to_owned() } else { format!("{what}: {}", facts.join(", ")) }
}

/// An estimate, rounded up to its precision.
fn remaining(part: f64, elapsed: Duration) -> Option<String> {
    if elapsed < GUESS_AFTER || !(GUESS_FROM..1.0).contains(&part) {
        return None;
    }
    let rest = elapsed.mul_f64((1.0 - part) / part).as_secs();
    let step = if rest < 90 { 5 } else { 60 };
    Some(duration(Duration::from_secs(rest.div_ceil(step).max(1) * step)))
}

/// `12 s`, `3 min 12 s`, `1 h 2 min`
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, min, 0) => format!("{min} min"),
        (0, min, s) => format!("{min} min {s} s"),
        (h, 0, _) => format!("{h} h"),
        (h, min, _) => format!("{h} h {min} min"),
    }
}

/// The progress line and its output.
///
/// Write errors are ignored: the work must not end because nobody watches.
pub struct Line {
    out: Box<dyn Write + Send>,
    terminal: bool,
    /// The text on the terminal's last line; empty in a log.
    shown: String,
    /// Time of the last line of a log.
    written: Option<Duration>,
}

impl Line {
    /// A line on standard error.
    pub fn stderr() -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|name| name == "dumb");
        Self::new(Box::new(io::stderr()), io::stderr().is_terminal() && !dumb)
    }

    pub fn new(out: Box<dyn Write + Send>, terminal: bool) -> Self {
        Self { out, terminal, shown: String::new(), written: None }
    }

    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Shows the first or the last text of an action. A log always gets it.
    pub fn announce(&mut self, now: Duration, text: &str) {
        self.written = None;
        self.show(now, text);
    }

    /// Shows the progress. A log gets it unless its last line is too recent.
    pub fn show(&mut self, now: Duration, text: &str) {
        if self.terminal {
            if self.shown != text {
                text.clone_into(&mut self.shown);
                self.write(&format!("{BEGIN}{text}{END}"));
            }
        } else if self.written.is_none_or(|written| now >= written + LOG_INTERVAL) {
            self.written = Some(now);
            self.write(&format!("{text}\n"));
        }
    }

    /// Writes permanent lines above the progress line.
    pub fn say(&mut self, text: &str) {
        let redrawn = if self.shown.is_empty() { String::new() } else { format!("{BEGIN}{}{END}", self.shown) };
        let cleared = if self.shown.is_empty() { "" } else { CLEAR };
        self.write(&format!("{cleared}{text}\n{redrawn}"));
    }

    /// Keeps the shown text; the next text begins on a new line.
    pub fn leave(&mut self) {
        if !self.shown.is_empty() {
            self.shown.clear();
            self.write("\n");
        }
    }

    fn write(&mut self, text: &str) {
        let _ = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
    }
}

/// An error message must not continue the line that was redrawn last.
impl Drop for Line {
    fn drop(&mut self) {
        self.leave();
    }
}

/// A writer for tests that keeps the written text.
#[cfg(test)]
#[derive(Clone, Default)]
pub struct Captured(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

#[cfg(test)]
impl Captured {
    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

#[cfg(test)]
impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_log_gets_a_line_at_once_and_then_one_every_ten_seconds() {
        let written = Captured::default();
        let mut line = Line::new(Box::new(written.clone()), false);
        line.announce(seconds(0), "build");
        for second in 1..=25 {
            line.show(seconds(second), &format!("build: {second} s"));
        }
        line.say("warning: unused");
        line.announce(seconds(26), "build: done");
        line.leave();
        assert_eq!(written.text(), "build\nbuild: 10 s\nbuild: 20 s\nwarning: unused\nbuild: done\n");
    }

    #[test]
    fn a_terminal_has_one_line_that_is_redrawn_when_its_text_changes() {
        let written = Captured::default();
        let mut line = Line::new(Box::new(written.clone()), true);
        line.announce(seconds(0), "build");
        line.show(seconds(0), "build");
        line.show(seconds(1), "build: 1 s");
        let draw = |text: &str| format!("\r\x1b[?7l{text}\x1b[K\x1b[?7h");
        assert_eq!(written.text(), draw("build") + &draw("build: 1 s"));
    }

    #[test]
    fn what_is_said_on_a_terminal_stays_above_the_line() {
        let written = Captured::default();
        let mut line = Line::new(Box::new(written.clone()), true);
        line.say("before");
        line.show(seconds(0), "build");
        line.say("warning: unused");
        line.leave();
        line.say("after");
        drop(line);
        let draw = "\r\x1b[?7lbuild\x1b[K\x1b[?7h";
        assert_eq!(written.text(), format!("before\n{draw}\r\x1b[Kwarning: unused\n{draw}\nafter\n"));
    }

    #[test]
    fn an_error_begins_on_a_line_of_its_own() {
        let written = Captured::default();
        let mut line = Line::new(Box::new(written.clone()), true);
        line.show(seconds(0), "build");
        drop(line);
        assert!(written.text().ends_with("build\x1b[K\x1b[?7h\n"));
    }

    #[test]
    fn what_remains_is_guessed_from_what_is_done_once_that_says_something() {
        let check = |part: Option<f64>, elapsed, expected| {
            let amount = Amount { text: "1 of 4 MB".to_owned(), part };
            assert_eq!(describe("fetch", &amount, Duration::from_millis(elapsed)), expected);
        };
        check(Some(0.25), 0, "fetch: 1 of 4 MB");
        check(Some(0.25), 4_000, "fetch: 1 of 4 MB, 4 s");
        check(Some(0.25), 12_000, "fetch: 1 of 4 MB, 12 s, about 40 s left");
        check(Some(0.25), 192_000, "fetch: 1 of 4 MB, 3 min 12 s, about 10 min left");
        check(Some(0.01), 12_000, "fetch: 1 of 4 MB, 12 s");
        check(Some(0.999), 12_000, "fetch: 1 of 4 MB, 12 s, about 5 s left");
        check(Some(1.0), 12_000, "fetch: 1 of 4 MB, 12 s");
        check(Some(f64::NAN), 12_000, "fetch: 1 of 4 MB, 12 s");
        check(None, 3_720_000, "fetch: 1 of 4 MB, 1 h 2 min");
        assert_eq!(describe("fetch", &Amount::default(), seconds(0)), "fetch");
    }

    #[test]
    fn megabytes_never_exceed_their_total() {
        assert_eq!(Amount::megabytes(45 << 20, 180), Amount { text: "45 of 180 MB".to_owned(), part: Some(0.25) });
        assert_eq!(Amount::megabytes(360 << 20, 180).text, "180 of 180 MB");
        assert_eq!(Amount::megabytes(0, 0).part, Some(0.0));
    }
}
