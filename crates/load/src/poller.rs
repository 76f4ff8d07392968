//! The polling thread: hands each record to the owner of its partition, follows the consumer group
//! (`assignment`), keeps queues bounded, and notices partitions that are not read (`stall`).
//!
//! It waits for nothing but Kafka: tasks look up positions and write batches, and report back.

mod assignment;
mod stall;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use foldhash::quality::RandomState;
use rdkafka::{
    Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer as _},
    error::{KafkaError, RDKafkaErrorCode},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use warehouse::loader::TopicIncarnation;

use crate::{
    consumer::{Consumer, Context, Rebalance, configuration},
    copies::Copies,
    error::Error,
    inbox::Outlet,
    lease::Pulse,
    options::Options,
    owner::{Shared, Stop},
    partition::Key,
    poller::assignment::{Holding, Leaving},
    record::detach,
    start::Start,
    status::Handle,
    store::Store,
    unread::{Answer, Ends, GivenUp},
};

/// The longest wait for a record: a report of a task, or the shutdown, is noticed after it.
const POLL: Duration = Duration::from_millis(20);
/// Records that are polled before anything else is done: about 0.1 ms.
const POLLED_AT_ONCE: usize = 64;
/// How long memory may stay full before partitions are paused. Far below Kafka's
/// `max.poll.interval.ms`, after which the group drops this loader.
const ROOM_WITHIN: Duration = Duration::from_secs(5);
/// How often positions are committed to Kafka, for people who watch the lag there.
const COMMIT_EVERY: Duration = Duration::from_secs(2);
/// The shortest time between two questions for Kafka's offsets after an error about offsets.
const BOUNDS_EVERY: Duration = Duration::from_secs(1);
/// How often Kafka is asked for its offsets without an error.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long the previous owner may take to end when its partition comes back.
const PREDECESSOR: Duration = Duration::from_secs(5);

/// A report of a task. `serial` says which owner or look-up of the partition it is about.
enum Report {
    Found {
        key: Key,
        serial: u64,
        start: Start,
    },
    Written {
        key: Key,
        serial: u64,
        position: u64,
    },
    Ended {
        key: Key,
        serial: u64,
        stop: Stop,
    },
    /// First and next offset that Kafka has of a partition without the next record.
    Bounds {
        key: Key,
        serial: u64,
        low: u64,
        high: u64,
    },
    /// Kafka's offsets of each partition, with the serial of its owner.
    Ends(Vec<(Key, u64, Ends)>),
    /// The answer to the question for the record at `next`.
    Probed {
        key: Key,
        serial: u64,
        next: u64,
        answer: Answer,
        /// Whether a person has given up what stands there.
        asked: bool,
    },
    /// The offsets of a batch that cannot be read; `None` if its end is not certain now.
    Behind {
        key: Key,
        serial: u64,
        given_up: Option<GivenUp>,
    },
}

/// The polling thread's state.
pub(crate) struct Poller<S, C> {
    consumer: Consumer,
    client: Arc<BaseConsumer>,
    options: Options,
    incarnations: BTreeMap<String, TopicIncarnation>,
    names: HashMap<String, Arc<str>, RandomState>,
    shared: Arc<Shared<S, C>>,
    handle: Handle,
    pulse: Arc<Pulse>,
    runtime: tokio::runtime::Handle,
    sender: mpsc::UnboundedSender<Report>,
    reports: mpsc::UnboundedReceiver<Report>,
    holdings: HashMap<Key, Holding, RandomState>,
    /// Owners that were told to end, until they have ended.
    leaving: HashMap<Key, Leaving>,
    commits: HashMap<Key, u64>,
    committed_at: Instant,
    /// When Kafka was last asked for its offsets after an error.
    asked_at: Option<Instant>,
    /// When Kafka was last asked for its offsets without an error.
    looked_at: Instant,
    /// Whether that answer is awaited.
    looking: bool,
    /// Batches that are given up when their owner starts again.
    given_up: HashMap<Key, GivenUp>,
    /// When memory became full.
    full_since: Option<Instant>,
    draining: CancellationToken,
    serials: u64,
    nonce: u64,
}

impl<S: Store, C: Copies> Poller<S, C> {
    /// A consumer that has subscribed. Call it inside the runtime that is to run the owners.
    pub fn new(
        options: Options,
        incarnations: BTreeMap<String, TopicIncarnation>,
        shared: Arc<Shared<S, C>>,
        handle: Handle,
    ) -> Result<Self, Error> {
        let consumer: Consumer =
            configuration(&options.kafka, &options.instance).create_with_context(Context::new(handle.clone()))?;
        consumer.subscribe(&options.kafka.topics.all())?;
        let (sender, reports) = mpsc::unbounded_channel();
        let names = incarnations.keys().map(|name| (name.clone(), Arc::from(name.as_str()))).collect();
        let pulse = Arc::new(Pulse::new(shared.clock.clone(), options.kafka.session_timeout));
        let nonce = shared.clock.unix_us().unsigned_abs();
        Ok(Self {
            consumer,
            client: Arc::new(options.kafka.client().create()?),
            options,
            incarnations,
            names,
            shared,
            handle,
            pulse,
            runtime: tokio::runtime::Handle::current(),
            sender,
            reports,
            holdings: HashMap::default(),
            leaving: HashMap::new(),
            commits: HashMap::new(),
            committed_at: Instant::now(),
            asked_at: None,
            looked_at: Instant::now(),
            looking: false,
            given_up: HashMap::new(),
            full_since: None,
            draining: CancellationToken::new(),
            serials: 0,
            nonce,
        })
    }

    /// Polls until `shutdown`, or until an owner ends with an error that a person must act on.
    /// Calls `ended` with the result before it closes the consumer, which may take long without
    /// Kafka.
    pub fn run(mut self, shutdown: &CancellationToken, ended: impl FnOnce(Result<(), Error>)) {
        let result = loop {
            if shutdown.is_cancelled() {
                break Ok(());
            }
            if let Err(error) = self.step() {
                break Err(error);
            }
        };
        self.drain();
        self.handle.polling(None);
        ended(result);
        self.consumer.context().close();
        // The consumer cannot close while an assignment is unanswered.
        if let Err(error) = self.consumer.incremental_assign(&TopicPartitionList::new()) {
            tracing::debug!(%error, "nothing to assign");
        }
    }

    fn step(&mut self) -> Result<(), Error> {
        if !self.pulse.beat() {
            self.start_all_again();
        }
        self.handle.polling(Some(self.shared.clock.since_host_boot()));
        for rebalance in self.consumer.context().take() {
            match rebalance {
                Rebalance::Assigned(partitions) => self.assigned(&partitions)?,
                Rebalance::Revoked(partitions) => self.revoked(&partitions),
            }
        }
        while let Ok(report) = self.reports.try_recv() {
            self.report(report)?;
        }
        self.resume()?;
        if self.committed_at.elapsed() >= COMMIT_EVERY {
            self.commit();
        }
        if self.looked_at.elapsed() >= LOOK_EVERY && !self.looking {
            self.look();
        }
        if self.waits_for_bytes() {
            self.handle.budget().exhaust();
            std::thread::sleep(POLL);
            return Ok(());
        }
        self.poll()
    }

    /// Whether memory is full and owners are about to make room. Meanwhile nothing is polled.
    /// Pausing each partition instead would drop the records that librdkafka has fetched already.
    fn waits_for_bytes(&mut self) -> bool {
        let (used, most) = (self.handle.budget().used(), self.options.limits.memory_max);
        if used <= most / 2 || (used <= most && self.full_since.is_none()) {
            self.full_since = None;
            return false;
        }
        let since = *self.full_since.get_or_insert_with(Instant::now);
        let mut outlets = self.holdings.values().filter_map(|holding| holding.outlet.as_ref());
        since.elapsed() < ROOM_WITHIN && !outlets.any(Outlet::starving)
    }

    /// Polls up to [`POLLED_AT_ONCE`] records, within the limit of memory. Waits for the first
    /// only.
    fn poll(&mut self) -> Result<(), Error> {
        let (polled, mut wait) = (self.shared.clock.since_host_boot(), POLL);
        for _ in 0..POLLED_AT_ONCE {
            if !self.poll_one(polled, wait)? || self.handle.budget().used() > self.options.limits.memory_max {
                break;
            }
            wait = Duration::ZERO;
        }
        Ok(())
    }

    /// Hands the next record to its owner. Returns false if none comes within `wait`.
    fn poll_one(&mut self, polled: Duration, wait: Duration) -> Result<bool, Error> {
        let (key, record) = match self.consumer.poll(wait) {
            None => return Ok(false),
            Some(Ok(message)) => {
                let Some(topic) = self.names.get(message.topic()) else { return Ok(true) };
                ((topic.clone(), message.partition()), detach(&message, polled))
            }
            Some(Err(error)) => return self.kafka_error(error).map(|()| false),
        };
        let Some(holding) = self.holdings.get_mut(&key) else { return Ok(true) };
        let Some(outlet) = &holding.outlet else { return Ok(true) };
        // Records from before a jump, or of a partition that is halted.
        if record.offset < holding.next || holding.halted {
            return Ok(true);
        }
        if record.offset > holding.next {
            return self.halt(key).map(|()| true);
        }
        holding.next = record.offset + 1;
        outlet.push(record);
        let limits = &self.options.limits;
        let full = self.handle.budget().used() > limits.memory_max && !outlet.starving();
        if !holding.paused && (full || outlet.bytes() > limits.bytes_max) {
            self.consumer.pause(&single(&key, None)?)?;
            holding.paused = true;
        }
        Ok(true)
    }

    /// librdkafka retries after temporary errors. The others mean that Kafka does not have the
    /// offsets that ClickHouse expects.
    fn kafka_error(&mut self, error: KafkaError) -> Result<(), Error> {
        let fatal = matches!(error, KafkaError::MessageConsumptionFatal(_));
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                self.ask_for_bounds();
                Ok(())
            }
            _ if fatal => Err(error.into()),
            // `Context::error` counts and logs it with its text; `look` notices what it stops.
            _ => Ok(()),
        }
    }

    fn report(&mut self, report: Report) -> Result<(), Error> {
        match report {
            Report::Found { key, serial, start } if self.is_current(&key, serial) => self.own(key, serial, start),
            Report::Written { key, serial, position } if self.is_current(&key, serial) => {
                if let Some(holding) = self.holdings.get_mut(&key) {
                    holding.written = position;
                }
                self.commits.insert(key, position);
                Ok(())
            }
            Report::Ended { key, serial, stop } => {
                if self.leaving.get(&key).is_some_and(|leaving| leaving.serial == serial) {
                    self.leaving.remove(&key);
                }
                match stop {
                    Stop::Fatal(error) => Err(error),
                    Stop::Overtaken if self.is_current(&key, serial) => {
                        tracing::info!(topic = %key.0, partition = key.1, "another loader has written further");
                        self.handle.overtaken();
                        self.start_again(key);
                        Ok(())
                    }
                    Stop::Overtaken | Stop::Lapsed => Ok(()),
                }
            }
            Report::Bounds { key, serial, low, high } if self.is_current(&key, serial) => self.bounds(&key, low, high),
            Report::Ends(ends) => {
                self.looking = false;
                for (key, serial, end) in ends {
                    if self.is_current(&key, serial) {
                        self.seen(key, end)?;
                    }
                }
                Ok(())
            }
            Report::Probed { key, serial, next, answer, asked } if self.is_current(&key, serial) => {
                self.probed(key, next, answer, asked)
            }
            Report::Behind { key, serial, given_up } if self.is_current(&key, serial) => {
                self.behind(key, given_up);
                Ok(())
            }
            Report::Found { .. }
            | Report::Written { .. }
            | Report::Bounds { .. }
            | Report::Probed { .. }
            | Report::Behind { .. } => Ok(()),
        }
    }

    /// Resumes paused partitions whose owners have caught up.
    fn resume(&mut self) -> Result<(), Error> {
        let half = self.options.limits.bytes_max / 2;
        // Well below the limit: after each pause librdkafka fetches the same records again.
        let room = self.handle.budget().used() <= self.options.limits.memory_max / 4 * 3;
        let goes_on = |outlet: &Outlet| outlet.bytes() <= half && (room || outlet.starving());
        for (key, holding) in &mut self.holdings {
            if holding.paused && holding.outlet.as_ref().is_some_and(goes_on) {
                self.consumer.resume(&single(key, None)?)?;
                holding.paused = false;
            }
        }
        Ok(())
    }

    /// Commits the positions to Kafka, for people who watch the lag there: only of partitions that
    /// are owned now, and only forward.
    fn commit(&mut self) {
        self.committed_at = Instant::now();
        let mut list = TopicPartitionList::new();
        for ((topic, partition), position) in self.commits.drain() {
            if let Ok(position) = i64::try_from(position) {
                let _ = list.add_partition_offset(&topic, partition, Offset::Offset(position));
            }
        }
        if list.count() > 0
            && let Err(error) = self.consumer.commit(&list, CommitMode::Async)
        {
            tracing::debug!(%error, "commit for lag monitoring");
        }
    }

    /// Lets owners finish the batches that they are writing.
    fn drain(&mut self) {
        self.draining.cancel();
        let deadline = Instant::now() + self.options.limits.drain_max;
        let mut running: HashSet<u64> = self.holdings.values().map(|holding| holding.serial).collect();
        running.extend(self.leaving.values().map(|leaving| leaving.serial));
        for holding in self.holdings.values().filter(|holding| holding.outlet.is_none()) {
            holding.revoked.cancel();
        }
        while !running.is_empty() && Instant::now() < deadline {
            match self.reports.try_recv() {
                Ok(Report::Ended { serial, .. } | Report::Found { serial, .. }) => drop(running.remove(&serial)),
                Ok(Report::Written { key, position, .. }) => drop(self.commits.insert(key, position)),
                Ok(Report::Bounds { .. } | Report::Ends(_) | Report::Probed { .. } | Report::Behind { .. }) => {}
                Err(_) => std::thread::sleep(Duration::from_millis(2)),
            }
        }
        let revoked = self.holdings.values().map(|holding| &holding.revoked);
        for revoked in revoked.chain(self.leaving.values().map(|leaving| &leaving.revoked)) {
            revoked.cancel();
        }
        self.commit();
        if !running.is_empty() {
            tracing::warn!(owners = running.len(), "batches were not finished in time; the next start completes them");
        }
    }
}

fn single(key: &Key, offset: Option<u64>) -> Result<TopicPartitionList, KafkaError> {
    let offset = offset.map_or(Offset::Invalid, |offset| Offset::Offset(offset as i64));
    let mut list = TopicPartitionList::with_capacity(1);
    list.add_partition_offset(&key.0, key.1, offset)?;
    Ok(list)
}
