//! One partition: its segments as readers see them (`Log`), and its only owner, which appends to
//! them (`Writer`).

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use parking_lot::RwLock;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Error,
    batch::Admitted,
    config::LogLimits,
    producers::{Producers, Verdict},
    segment::Segment,
    sync_directory,
};

/// Commands that may wait for the owner of a partition.
const COMMANDS_MAX: usize = 256;

/// The answer to an append: durable from here on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Appended {
    pub(super) base_offset: i64,
    pub(super) start_offset: i64,
}

type Reply = oneshot::Sender<Result<Appended, ResponseError>>;

/// A request to the owner of a partition.
#[derive(Debug)]
pub(super) enum Command {
    Append(Admitted, Reply),
    /// Close the active segment if it is old, and delete what is past its retention.
    Retain,
}

/// What readers see of a partition.
#[derive(Debug)]
pub(super) struct Log {
    directory: PathBuf,
    /// Never empty. The last segment is the one that is written.
    segments: RwLock<Vec<Arc<Segment>>>,
    end: AtomicI64,
}

/// Why a read returns no records.
#[derive(Debug)]
pub(super) enum ReadError {
    OutOfRange,
    Io(io::Error),
}

impl Log {
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The first offset that still exists.
    pub(super) fn start_offset(&self) -> i64 {
        self.segments.read().first().map_or(0, |segment| segment.base_offset)
    }

    /// The offset that the next durable record gets.
    pub(super) fn end_offset(&self) -> i64 {
        self.end.load(Ordering::Acquire)
    }

    /// Whether a read at `offset` would wait, because it has nothing to read and no error.
    pub(super) fn is_at_end(&self, offset: i64) -> bool {
        offset == self.end_offset()
    }

    /// Whole batches, starting with the one that holds `offset`.
    pub(super) fn read(&self, offset: i64, bytes_max: usize) -> Result<Bytes, ReadError> {
        if offset == self.end_offset() {
            return Ok(Bytes::new());
        }
        let (segment, next) = {
            let segments = self.segments.read();
            let after = segments.partition_point(|segment| segment.base_offset <= offset);
            let segment = after.checked_sub(1).and_then(|at| segments.get(at)).cloned();
            (segment, segments.get(after).cloned())
        };
        let Some(segment) = segment.filter(|_| offset < self.end_offset()) else { return Err(ReadError::OutOfRange) };
        let read = segment.read(offset, bytes_max).map_err(ReadError::Io)?;
        match next {
            // The records at the end of the segment are missing.
            Some(next) if read.is_empty() => self.read(next.base_offset, bytes_max),
            _ => Ok(read),
        }
    }

    /// Base offset and latest timestamp of the first batch with a record created at `timestamp_ms`
    /// or later.
    pub(super) fn find_timestamp(&self, timestamp_ms: i64) -> io::Result<Option<(i64, i64)>> {
        let segments = self.segments.read().clone();
        for segment in segments {
            if let Some(header) = segment.find_timestamp(timestamp_ms)? {
                return Ok(Some((header.base_offset, header.max_timestamp_ms)));
            }
        }
        Ok(None)
    }
}

/// The only code that writes a partition.
#[derive(Debug)]
struct Writer {
    log: Arc<Log>,
    active: Arc<Segment>,
    /// Bytes in the active segment, including those that are not synced yet.
    written: u64,
    next_offset: i64,
    producers: Producers,
    limits: LogLimits,
}

impl Writer {
    /// Opens the partition and cuts off a half-written batch that a crash has left at the end. If a
    /// whole batch follows it, the file is damaged, and this fails.
    fn open(directory: &Path, limits: LogLimits) -> Result<Self, Error> {
        let failed = |source| Error::Storage { path: directory.to_owned(), source };
        for entry in std::fs::read_dir(directory).map_err(failed)? {
            Segment::salvage(&entry.map_err(failed)?.path()).map_err(failed)?;
        }
        let mut segments = Vec::new();
        for entry in std::fs::read_dir(directory).map_err(failed)? {
            segments.extend(Segment::open(&entry.map_err(failed)?.path()).map_err(failed)?.map(Arc::new));
        }
        segments.sort_by_key(|segment| segment.base_offset);
        if segments.is_empty() {
            segments.push(Arc::new(Segment::create(directory, 0).map_err(failed)?));
            sync_directory(directory).map_err(failed)?;
        }
        let (next_offset, producers) = recover(&segments)?;
        let active = segments.last().cloned().ok_or_else(|| Error::Corrupt(directory.to_owned()))?;
        let written = active.bytes();
        let end = AtomicI64::new(next_offset);
        let log = Arc::new(Log { directory: directory.to_owned(), segments: RwLock::new(segments), end });
        Ok(Self { log, active, written, next_offset, producers, limits })
    }

    /// Runs the waiting commands with one sync for all appends, and only then answers them.
    fn run(&mut self, commands: &mut Vec<Command>) -> io::Result<()> {
        let mut answers = Vec::with_capacity(commands.len());
        let outcome = self.append_all(commands, &mut answers);
        for (reply, answer) in answers {
            // A producer whose connection is gone resends its batch and then finds it stored.
            let _ = reply.send(if outcome.is_ok() { answer } else { Err(ResponseError::KafkaStorageError) });
        }
        outcome
    }

    fn append_all(
        &mut self,
        commands: &mut Vec<Command>,
        answers: &mut Vec<(Reply, Result<Appended, ResponseError>)>,
    ) -> io::Result<()> {
        let mut failure = None;
        for command in commands.drain(..) {
            match command {
                Command::Append(mut admitted, reply) if failure.is_none() => {
                    let answer = self.append(&mut admitted);
                    failure = answer.as_ref().err().map(|error| io::Error::new(error.kind(), error.to_string()));
                    answers.push((reply, answer.unwrap_or(Err(ResponseError::KafkaStorageError))));
                }
                Command::Append(_, reply) => answers.push((reply, Err(ResponseError::KafkaStorageError))),
                Command::Retain if failure.is_none() => failure = self.retain().err(),
                Command::Retain => {}
            }
        }
        match failure {
            Some(error) => Err(error),
            None => self.sync(),
        }
    }

    fn append(&mut self, admitted: &mut Admitted) -> io::Result<Result<Appended, ResponseError>> {
        let start_offset = self.log.start_offset();
        match self.producers.judge(&admitted.header) {
            Verdict::Append => {}
            Verdict::Duplicate(base_offset) => return Ok(Ok(Appended { base_offset, start_offset })),
            Verdict::Reject(error) => return Ok(Err(error)),
        }
        let base_offset = self.next_offset;
        let bytes = admitted.place(base_offset);
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if self.written > 0 && self.written.saturating_add(length) > self.limits.segment_bytes {
            self.roll()?;
        }
        self.active.write_at(bytes, self.written)?;
        self.written = self.written.saturating_add(length);
        self.next_offset = admitted.header.next_offset();
        self.producers.note(&admitted.header);
        Ok(Ok(Appended { base_offset, start_offset }))
    }

    /// Makes all appended records durable, then visible.
    fn sync(&mut self) -> io::Result<()> {
        if self.written > self.active.bytes() {
            self.active.sync()?;
            self.active.publish(self.written);
        }
        self.log.end.store(self.next_offset, Ordering::Release);
        Ok(())
    }

    fn roll(&mut self) -> io::Result<()> {
        self.sync()?;
        self.active = Arc::new(Segment::create(&self.log.directory, self.next_offset)?);
        sync_directory(&self.log.directory)?;
        self.written = 0;
        self.log.segments.write().push(Arc::clone(&self.active));
        Ok(())
    }

    /// Deletes whole segments, the oldest first. An active segment that is past its time is closed
    /// before that, so that a quiet partition empties too.
    fn retain(&mut self) -> io::Result<()> {
        let expired = |segment: &Segment| -> io::Result<bool> {
            self.limits.retention.map_or(Ok(false), |retention| Ok(segment.age()? > retention))
        };
        if self.written > 0 && expired(&self.active)? {
            self.roll()?;
        }
        loop {
            let oldest = {
                let segments = self.log.segments.read();
                let bytes: u64 = segments.iter().skip(1).map(|segment| segment.bytes()).sum();
                let [oldest, _, ..] = segments.as_slice() else { return Ok(()) };
                let too_large = self.limits.retention_bytes.is_some_and(|limit| bytes >= limit);
                let too_old = self
                    .limits
                    .retention
                    .map_or(Ok(false), |retention| Ok::<_, io::Error>(oldest.age()? > retention))?;
                if !too_large && !too_old {
                    return Ok(());
                }
                Arc::clone(oldest)
            };
            oldest.remove()?;
            self.log.segments.write().remove(0);
            tracing::info!(segment = %oldest.path().display(), "deleted segment past its retention");
        }
    }
}

/// Checks the end of the log and returns the next offset and the producers. It only reads the last
/// two segments. A producer that stored nothing during a whole segment has no request in flight
/// that it could resend.
fn recover(segments: &[Arc<Segment>]) -> Result<(i64, Producers), Error> {
    let mut producers = Producers::default();
    let mut next_offset = None;
    for (at, segment) in segments.iter().enumerate().skip(segments.len().saturating_sub(2)) {
        let failed = |source| Error::Storage { path: segment.path().to_owned(), source };
        let has_holes = segment.has_holes() || at.checked_sub(1).is_some_and(|before| segments[before].has_holes());
        let known = |before: i64| before == segment.base_offset || before < segment.base_offset && has_holes;
        if next_offset.is_some_and(|before| !known(before)) {
            return Err(Error::Corrupt(segment.path().to_owned()));
        }
        let mut end = segment.base_offset;
        let intact = segment
            .scan(|header| {
                producers.note(header);
                end = header.next_offset();
            })
            .map_err(failed)?;
        let surplus = segment.bytes().saturating_sub(intact);
        let is_last = at + 1 == segments.len();
        if surplus > 0 && (!is_last || segment.goes_on_after(intact, end).map_err(failed)?) {
            return Err(Error::Damaged { path: segment.path().to_owned(), position: intact, offset: end });
        }
        if surplus > 0 {
            tracing::warn!(segment = %segment.path().display(), bytes = surplus, "cut off an unfinished write");
            segment.truncate(intact).map_err(failed)?;
        }
        next_offset = Some(end);
    }
    Ok((next_offset.unwrap_or(0), producers))
}

/// A partition in use.
#[derive(Clone, Debug)]
pub(super) struct Partition {
    pub(super) log: Arc<Log>,
    commands: mpsc::Sender<Command>,
}

/// Channels to tell about new records and failures, and to learn of the shutdown.
#[derive(Clone, Debug)]
pub(super) struct Signals {
    /// Changes whenever a record of any partition becomes readable.
    pub(super) appended: watch::Sender<u64>,
    pub(super) failures: mpsc::Sender<Error>,
    pub(super) shutdown: CancellationToken,
    /// The owners that still work.
    pub(super) tracker: TaskTracker,
}

impl Partition {
    /// Opens the partition in `directory`, which reads the end of its log, and starts its owner.
    /// This blocks.
    pub(super) fn open(directory: &Path, limits: LogLimits, signals: Signals) -> Result<Self, Error> {
        let writer = Writer::open(directory, limits)?;
        let log = Arc::clone(&writer.log);
        let (commands, waiting) = mpsc::channel(COMMANDS_MAX);
        signals.tracker.clone().spawn(own(writer, waiting, signals));
        Ok(Self { log, commands })
    }

    /// Hands a batch to the owner. Batches of one caller are stored in the order of these calls.
    pub(super) async fn append(&self, admitted: Admitted) -> oneshot::Receiver<Result<Appended, ResponseError>> {
        let (reply, answer) = oneshot::channel();
        // A closed channel drops the reply. The receiver reports that.
        let _ = self.commands.send(Command::Append(admitted, reply)).await;
        answer
    }

    /// Asks the owner to delete what is past its retention. A busy owner skips this.
    pub(super) fn retain(&self) {
        let _ = self.commands.try_send(Command::Retain);
    }
}

/// Runs a partition's writer until no sender is left, the broker stops, or writing fails. After a
/// failed write or sync the state of the file is unknown. The partition is then closed, and the
/// next start opens it again.
async fn own(mut writer: Writer, mut waiting: mpsc::Receiver<Command>, signals: Signals) {
    let mut commands = Vec::with_capacity(COMMANDS_MAX);
    loop {
        let received = tokio::select! {
            received = waiting.recv_many(&mut commands, COMMANDS_MAX) => received,
            () = signals.shutdown.cancelled() => 0,
        };
        if received == 0 {
            return;
        }
        let path = writer.log.directory.clone();
        let run = tokio::task::spawn_blocking(move || {
            let outcome = writer.run(&mut commands);
            (writer, commands, outcome)
        });
        let outcome = match run.await {
            Ok((back, emptied, outcome)) => {
                (writer, commands) = (back, emptied);
                outcome
            }
            Err(error) => {
                let _ = signals.failures.try_send(Error::Storage { path, source: io::Error::other(error) });
                return;
            }
        };
        signals.appended.send_modify(|count| *count = count.wrapping_add(1));
        if let Err(source) = outcome {
            if signals.shutdown.is_cancelled() {
                // The topic was deleted during the write.
                return;
            }
            let _ = signals.failures.try_send(Error::Storage { path, source });
            return;
        }
    }
}
