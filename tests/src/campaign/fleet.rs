//! The load: one simulated fleet after another, each with its own truth file.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::{Doseline, Scratch, poll};

/// Faults of the devices themselves, beside those of the campaign.
const SCENARIOS: &str = "retransmit,offline,clock-skew,reboot,poison";
/// Wait for a receipt before a device sends again, s.
const RESEND_S: u64 = 5;
/// Longest time from a fleet's last event to its last receipt.
const DRAINED_WITHIN: Duration = Duration::from_secs(900);

/// Size of the load, and the duration of each fleet.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Number of devices in each fleet.
    pub devices: u32,
    /// Events a second over the whole fleet.
    pub rate: u32,
    /// Time for which each fleet makes events.
    pub chapter: Duration,
    /// Seed of the first fleet; each further fleet has the next.
    pub seed: u64,
}

/// The fleets, one after another. The next begins when the last has made its events, while that
/// still waits for receipts.
pub struct Fleet {
    load: Load,
    configuration: String,
    chapters: Vec<Chapter>,
    begun: u64,
    made: u64,
    resent: u64,
    scratch: Scratch,
}

struct Chapter {
    simulator: Doseline,
    began: Instant,
    truth: PathBuf,
    /// Bytes of the truth file that were read.
    offset: u64,
    ended: bool,
    _outboxes: Scratch,
}

impl Fleet {
    /// No fleet yet; `configuration` names the broker.
    pub fn new(load: Load, configuration: &str) -> Self {
        let (configuration, scratch) = (configuration.to_owned(), Scratch::new("truth"));
        Self { load, configuration, chapters: Vec::new(), begun: 0, made: 0, resent: 0, scratch }
    }

    /// Begins the next fleet if none makes events now, and drops those that have ended.
    pub fn keep_going(&mut self) {
        let making = |chapter: &Chapter| chapter.began.elapsed() < self.load.chapter;
        if !self.chapters.iter().any(making) {
            self.begin();
        }
        self.notice_ends();
    }

    fn begin(&mut self) {
        let (truth, outboxes) = (self.scratch.join(&format!("{}.jsonl", self.begun)), Scratch::new("devices"));
        let path = |path: &std::path::Path| path.to_str().expect("a plain path").to_owned();
        let arguments = [
            "simulate".to_owned(),
            format!("--config={}", self.configuration),
            format!("--devices={}", self.load.devices),
            format!("--rate={}", self.load.rate),
            format!("--duration={}", self.load.chapter.as_secs()),
            format!("--seed={}", self.load.seed + self.begun),
            format!("--scenario={SCENARIOS}"),
            format!("--resend={RESEND_S}"),
            format!("--drain={}", DRAINED_WITHIN.as_secs()),
            format!("--truth={}", path(&truth)),
            format!("--data-dir={}", path(outboxes.path())),
        ];
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let simulator = Doseline::start(&arguments);
        self.begun += 1;
        let (began, offset, ended) = (Instant::now(), 0, false);
        self.chapters.push(Chapter { simulator, began, truth, offset, ended, _outboxes: outboxes });
    }

    fn notice_ends(&mut self) {
        for chapter in self.chapters.iter_mut().filter(|chapter| !chapter.ended) {
            let Some(status) = chapter.simulator.process().exit_status() else { continue };
            let (said, log) = (chapter.simulator.stdout(), chapter.simulator.stderr());
            assert!(status.success(), "a fleet ended with {status}:\n{log}");
            assert_eq!(told(&said, "without receipt"), 0, "a fleet could not deliver: {said}\n{log}");
            self.made += told(&said, "made");
            self.resent += told(&said, "re-sent");
            chapter.ended = true;
        }
    }

    /// Waits until every fleet has made its events and has its receipts.
    pub fn finish(&mut self) {
        poll(self.load.chapter + DRAINED_WITHIN, "the fleets to have all receipts", || {
            self.notice_ends();
            match self.chapters.iter().filter(|chapter| !chapter.ended).count() {
                0 => Ok(()),
                open => Err(format!("{open} have not")),
            }
        });
    }

    /// Events that the ended fleets made, and reports that they sent again.
    pub fn totals(&self) -> (u64, u64) {
        (self.made, self.resent)
    }

    /// Passes every whole line of truth written since the last call to `take`. Deletes a truth file
    /// that is read completely and whose fleet has ended.
    pub fn read(&mut self, mut take: impl FnMut(&str)) {
        self.notice_ends();
        let mut left = VecDeque::new();
        for mut chapter in self.chapters.drain(..) {
            let ended = chapter.ended;
            if let Ok(mut file) = File::open(&chapter.truth) {
                file.seek(SeekFrom::Start(chapter.offset)).expect("seek in a truth");
                let (mut reader, mut line) = (BufReader::with_capacity(1 << 20, file), String::new());
                while reader.read_line(&mut line).expect("read a truth") > 0 && line.ends_with('\n') {
                    chapter.offset += line.len() as u64;
                    take(line.trim_end());
                    line.clear();
                }
            }
            if ended {
                std::fs::remove_file(&chapter.truth).expect("delete a truth");
            } else {
                left.push_back(chapter);
            }
        }
        self.chapters.extend(left);
    }
}

/// The number after a word in the simulator's last line.
fn told(summary: &str, word: &str) -> u64 {
    let rest = summary.split_once(&format!("{word} ")).unwrap_or_else(|| panic!("no {word} in {summary:?}")).1;
    rest.split_whitespace().next().expect("a number").parse().expect("a number")
}
