//! The polling thread: hands each record to the owner of its partition, follows the group, keeps
//! queues bounded.
//!
//! It never waits for anything but Kafka: positions are looked up, and batches written, by tasks
//! that report back.

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
    message::{BorrowedMessage, Headers as _},
};
use telemetry::kafka::{
    DETAIL_HEADER, REASON_HEADER, RECEIVED_AT_HEADER, REPLAY_HEADER, REPLAYED_AT_HEADER, REPLAYED_BY_HEADER,
    SOURCE_HEADER, TOPIC_HEADER,
};
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use warehouse::{
    columns::Lost,
    loader::{Shard, TopicLife},
};

use crate::{
    consumer::{Consumer, Context, Rebalance, configuration},
    copies::Copies,
    decode::{Content, Place},
    error::Error,
    give_up,
    inbox::{Headers, Outlet, Record, decimal, inbox_within},
    lease::{Lease, Pulse},
    options::Options,
    owner::{Owner, Shared, Stop},
    start::{Key, Start, find, watermarks},
    status::Handle,
    store::Store,
    topics::client_config,
    unread::{self, Answer, Ends, GivenUp, Standing},
};

/// Longest wait for a record: how late a report of a task, or the end, may be noticed.
const POLL: Duration = Duration::from_millis(20);
/// Records taken one after the other before anything else is looked at: some 0.1 ms.
const POLLED_AT_ONCE: usize = 64;
/// How long memory may stay full before partitions are paused; far below Kafka's
/// `max.poll.interval.ms`, after which the group would do without this loader.
const ROOM_WITHIN: Duration = Duration::from_secs(5);
/// How often positions are committed to Kafka, for people who watch the lag there.
const COMMIT_EVERY: Duration = Duration::from_secs(2);
/// How often Kafka is asked what it has, at most, once it has said that the next record is gone.
const BOUNDS_EVERY: Duration = Duration::from_secs(1);
/// How often Kafka is asked what it has anyway.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long the owner before gets to end by itself when its partition comes back.
const PREDECESSOR: Duration = Duration::from_secs(5);

/// What tasks tell the polling thread. `serial` says which owner or look-up of the partition it is
/// about.
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
    /// First and next offset that Kafka has of a partition in which it did not have the next
    /// record.
    Bounds {
        key: Key,
        serial: u64,
        low: u64,
        high: u64,
    },
    /// What Kafka has of each partition, with the serial of its owner.
    Ends(Vec<(Key, u64, Ends)>),
    /// What came when the record at `next` was asked for.
    Probed {
        key: Key,
        serial: u64,
        next: u64,
        answer: Answer,
        /// Whether a person has given up what stands there.
        asked: bool,
    },
    /// Where reading can go on behind a batch that cannot be read; none where that is not certain
    /// now.
    Behind {
        key: Key,
        serial: u64,
        given_up: Option<GivenUp>,
    },
}

/// A partition that this loader has, or is about to have.
struct Holding {
    serial: u64,
    revoked: CancellationToken,
    /// Ends the owner between two batches.
    draining: CancellationToken,
    /// None while its start is looked up.
    outlet: Option<Outlet>,
    /// Offset of the record that is polled next.
    next: u64,
    /// Offset up to which everything is written.
    written: u64,
    /// Where it stands still, if it does.
    standing: Option<Standing>,
    /// Records came that do not follow on the last: nothing is read before it is known what is
    /// between.
    halted: bool,
    /// It is being asked why it stands still.
    probing: bool,
    paused: bool,
    task: JoinHandle<()>,
}

/// An owner that is about to end.
struct Leaving {
    serial: u64,
    revoked: CancellationToken,
    task: JoinHandle<()>,
}

/// The polling thread's state.
pub(crate) struct Poller<S, C> {
    consumer: Consumer,
    client: Arc<BaseConsumer>,
    options: Options,
    lives: BTreeMap<String, TopicLife>,
    names: HashMap<String, Arc<str>, RandomState>,
    shared: Arc<Shared<S, C>>,
    handle: Handle,
    pulse: Arc<Pulse>,
    runtime: tokio::runtime::Handle,
    sender: mpsc::UnboundedSender<Report>,
    reports: mpsc::UnboundedReceiver<Report>,
    holdings: HashMap<Key, Holding, RandomState>,
    /// Owners of partitions that were let go or handed over, until they have ended.
    leaving: HashMap<Key, Leaving>,
    commits: HashMap<Key, u64>,
    committed_at: Instant,
    /// When it was last asked what Kafka has; none before.
    asked_at: Option<Instant>,
    /// When it was last looked whether each partition moves, ...
    looked_at: Instant,
    /// ... and whether the answer is awaited.
    looking: bool,
    /// Batches that are given up when their owner starts again.
    given_up: HashMap<Key, GivenUp>,
    /// Since when memory is full.
    full_since: Option<Instant>,
    draining: CancellationToken,
    serials: u64,
    nonce: u64,
}

impl<S: Store, C: Copies> Poller<S, C> {
    /// A consumer that has subscribed. Must be made inside the runtime that is to run the owners.
    pub fn new(
        options: Options,
        lives: BTreeMap<String, TopicLife>,
        shared: Arc<Shared<S, C>>,
        handle: Handle,
    ) -> Result<Self, Error> {
        let consumer: Consumer =
            configuration(&options.kafka, &options.instance).create_with_context(Context::new(handle.clone()))?;
        consumer.subscribe(&options.kafka.topics.all())?;
        let (sender, reports) = mpsc::unbounded_channel();
        let names = lives.keys().map(|name| (name.clone(), Arc::from(name.as_str()))).collect();
        let pulse = Arc::new(Pulse::new(shared.clock.clone(), options.kafka.session_timeout));
        let nonce = shared.clock.unix_us().unsigned_abs();
        Ok(Self {
            consumer,
            client: Arc::new(client_config(&options.kafka).create()?),
            options,
            lives,
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

    /// Polls until `shutdown`, or until an owner ends for a reason that a person must see. `ended`
    /// gets the result before the consumer is closed, which may take a while where Kafka is away.
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
        // An assignment that was not answered would keep the consumer from closing.
        if let Err(error) = self.consumer.incremental_assign(&TopicPartitionList::new()) {
            tracing::debug!(%error, "nothing to assign");
        }
    }

    fn step(&mut self) -> Result<(), Error> {
        if !self.pulse.beat() {
            self.missed_the_session();
        }
        self.handle.polling(Some(self.shared.clock.boot()));
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
        if self.waits_for_room() {
            self.handle.budget().exhaust();
            std::thread::sleep(POLL);
            return Ok(());
        }
        self.poll()
    }

    /// Whether memory is full and owners are about to make room. Until then nothing is polled,
    /// rather than each partition paused: a pause throws away what librdkafka has fetched, which
    /// would then be fetched again.
    fn waits_for_room(&mut self) -> bool {
        let (used, most) = (self.handle.budget().used(), self.options.limits.memory_max);
        if used <= most / 2 || (used <= most && self.full_since.is_none()) {
            self.full_since = None;
            return false;
        }
        let since = *self.full_since.get_or_insert_with(Instant::now);
        let mut outlets = self.holdings.values().filter_map(|holding| holding.outlet.as_ref());
        since.elapsed() < ROOM_WITHIN && !outlets.any(Outlet::starving)
    }

    /// What is there, up to [`POLLED_AT_ONCE`] records and the limit of memory; waits for the
    /// first.
    fn poll(&mut self) -> Result<(), Error> {
        let (polled, mut wait) = (self.shared.clock.boot(), POLL);
        for _ in 0..POLLED_AT_ONCE {
            if !self.poll_one(polled, wait)? || self.handle.budget().used() > self.options.limits.memory_max {
                break;
            }
            wait = Duration::ZERO;
        }
        Ok(())
    }

    /// Hands the next record to its owner; false where there is none within `wait`.
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
        // What was still on its way from before a jump.
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

    /// Errors that pass are librdkafka's to repeat; the others mean that offsets are not what
    /// ClickHouse says.
    fn kafka_error(&mut self, error: KafkaError) -> Result<(), Error> {
        let fatal = matches!(error, KafkaError::MessageConsumptionFatal(_));
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                self.ask_for_bounds();
                Ok(())
            }
            _ if fatal => Err(error.into()),
            // Counted and logged where its text is known, see `Context::error`; what it stops is
            // seen by `look`.
            _ => Ok(()),
        }
    }

    /// librdkafka goes on behind a batch whose checksum is wrong, so that what follows may not be
    /// taken for all there is.
    fn halt(&mut self, key: Key) -> Result<(), Error> {
        self.consumer.incremental_unassign(&single(&key, None)?)?;
        let Some(holding) = self.holdings.get_mut(&key) else { return Ok(()) };
        let (next, since) = (holding.next, self.shared.clock.boot());
        tracing::warn!(topic = %key.0, partition = key.1, next, "the next record did not come, asking for it");
        holding.halted = true;
        holding.standing = Some(Standing { next, since, high: None, why: None });
        self.probe(key);
        Ok(())
    }

    /// Asks what Kafka has of each partition, to see whether what it has is read.
    fn look(&mut self) {
        self.looked_at = Instant::now();
        let held = self.holdings.iter().filter(|(_, holding)| holding.outlet.is_some());
        let (keys, serials): (Vec<Key>, Vec<u64>) = held.map(|(key, holding)| (key.clone(), holding.serial)).unzip();
        self.looking = !keys.is_empty();
        let (client, sender) = (self.client.clone(), self.sender.clone());
        self.runtime.spawn_blocking(move || {
            let ends = unread::ends(&client, &keys);
            let ends = keys.into_iter().zip(serials).zip(ends).map(|((key, serial), end)| (key, serial, end));
            let _ = sender.send(Report::Ends(ends.collect()));
        });
    }

    /// Holds what Kafka has of a partition against what was read of it.
    fn seen(&mut self, key: Key, end: Ends) -> Result<(), Error> {
        let waits = self.full_since.is_some();
        let Some(holding) = self.holdings.get_mut(&key) else { return Ok(()) };
        let next = holding.next;
        let behind = end.as_ref().map_or(true, |(_, high)| *high > next);
        // A partition that may not be read now has records in memory whose age is watched.
        if !holding.halted && (!behind || holding.paused || waits) {
            holding.standing = None;
            self.handle.standing(&key, None);
            return Ok(());
        }
        let again = holding.standing.as_ref().is_some_and(|standing| standing.next == next);
        if !again {
            holding.standing = Some(Standing { next, since: self.shared.clock.boot(), high: None, why: None });
        }
        match end {
            Ok((low, high)) if again && low > next => return self.bounds(&key, low, high),
            Ok((_, high)) => {
                if let Some(standing) = &mut holding.standing {
                    standing.high = Some(high);
                }
                self.handle.standing(&key, holding.standing.clone());
                if again && !holding.probing {
                    self.probe(key);
                }
            }
            Err(error) => {
                if let Some(standing) = &mut holding.standing {
                    let why = format!("kafka does not say what it has: {error}");
                    if standing.why.as_ref() != Some(&why) {
                        tracing::warn!(topic = %key.0, partition = key.1, next, why, "its end is not known");
                    }
                    standing.why = Some(why);
                }
                self.handle.standing(&key, holding.standing.clone());
            }
        }
        Ok(())
    }

    /// Asks for the next record of a partition that stands still.
    fn probe(&mut self, key: Key) {
        let Some(holding) = self.holdings.get_mut(&key) else { return };
        holding.probing = true;
        let (next, serial) = (holding.next, holding.serial);
        let (kafka, sender) = (self.options.kafka.clone(), self.sender.clone());
        let incarnation = self.lives.get(&*key.0).map(|life| life.incarnation);
        self.runtime.spawn_blocking(move || {
            let answer = unread::probe(&kafka, &key, next);
            let asked = answer.lasts()
                && incarnation.is_some_and(|incarnation| give_up::is_asked(&kafka, &key, incarnation, next));
            let _ = sender.send(Report::Probed { key, serial, next, answer, asked });
        });
    }

    fn probed(&mut self, key: Key, next: u64, answer: Answer, asked: bool) -> Result<(), Error> {
        let Some(holding) = self.holdings.get_mut(&key) else { return Ok(()) };
        holding.probing = false;
        let Some(standing) = holding.standing.as_mut().filter(|standing| standing.next == next) else { return Ok(()) };
        if holding.next != next {
            return Ok(());
        }
        if let Answer::Record(offset) = answer {
            // Offsets between have no record, and no error: the owner records them as lost.
            holding.next = offset;
            (holding.halted, holding.paused) = (false, false);
            tracing::warn!(topic = %key.0, partition = key.1, offset, "stood still, is read again");
            let _ = self.consumer.incremental_unassign(&single(&key, None)?);
            if let Err(error) = self.assign(&key, offset) {
                tracing::info!(topic = %key.0, partition = key.1, %error, "assignment came too late");
                self.let_go(&key);
            }
            return Ok(());
        }
        let why = answer.to_string();
        if standing.why.as_ref() != Some(&why) {
            tracing::error!(topic = %key.0, partition = key.1, next, why, "a partition stands still");
            standing.why = Some(why);
        }
        self.handle.standing(&key, Some(standing.clone()));
        let stood = self.shared.clock.boot().saturating_sub(standing.since);
        let due = asked || stood >= self.options.limits.unreadable_after;
        if answer.lasts() && due && holding.written == next {
            holding.probing = true;
            let (serial, kafka, client) = (holding.serial, self.options.kafka.clone(), self.client.clone());
            let sender = self.sender.clone();
            tracing::warn!(topic = %key.0, partition = key.1, next, asked, "looking for what can be read behind it");
            self.runtime.spawn_blocking(move || {
                let to = unread::behind(&kafka, &client, &key, next);
                let given_up = to.map(|to| GivenUp { from: next, to });
                let _ = sender.send(Report::Behind { key, serial, given_up });
            });
        }
        Ok(())
    }

    /// Gives a batch up: the owner starts again, and records it as lost before anything else.
    fn behind(&mut self, key: Key, given_up: Option<GivenUp>) {
        let Some(holding) = self.holdings.get_mut(&key) else { return };
        holding.probing = false;
        if let Some(given_up) = given_up.filter(|given_up| given_up.from == holding.next) {
            self.given_up.insert(key.clone(), given_up);
            self.start_again(key);
        }
    }

    /// The error does not say of which partition the next record is gone, so all are asked for, at
    /// most once a second.
    fn ask_for_bounds(&mut self) {
        if self.asked_at.is_some_and(|asked| asked.elapsed() < BOUNDS_EVERY) {
            return;
        }
        self.asked_at = Some(Instant::now());
        for (key, holding) in self.holdings.iter().filter(|(_, holding)| holding.outlet.is_some()) {
            let (key, serial) = (key.clone(), holding.serial);
            let (client, sender) = (self.client.clone(), self.sender.clone());
            self.runtime.spawn_blocking(move || {
                match watermarks(&client, &key) {
                    Ok((low, high)) => {
                        let (low, high) = (low.max(0).unsigned_abs(), high.max(0).unsigned_abs());
                        let _ = sender.send(Report::Bounds { key, serial, low, high });
                    }
                    // librdkafka repeats its error, and so this is asked again.
                    Err(error) => tracing::debug!(%error, "bounds of a partition"),
                }
            });
        }
    }

    /// Goes on behind what Kafka has deleted. What was read before the hole stays with the owner,
    /// which records the hole as lost with the batch it falls into.
    fn bounds(&mut self, key: &Key, low: u64, high: u64) -> Result<(), Error> {
        let Some(holding) = self.holdings.get_mut(key) else { return Ok(()) };
        let next = holding.next;
        if next > high {
            let (topic, partition) = (key.0.to_string(), key.1);
            let fault = format!(
                "the next record to read has offset {next}, but Kafka's next offset is {high}: the topic was made again, or \
                 lost records that were confirmed"
            );
            return Err(Error::Offsets { topic, partition, fault });
        }
        let from = next.max(low);
        if next < low {
            holding.next = low;
            self.handle.lost(&key.0, key.1, next, low, Lost::Deleted);
        }
        let halted = std::mem::take(&mut holding.halted);
        // librdkafka has stopped reading the partition where the error was, which may be any.
        let moved = single(key, None)
            .and_then(|list| if halted { Ok(()) } else { self.consumer.incremental_unassign(&list) })
            .and_then(|()| self.assign(key, from));
        if let Some(holding) = self.holdings.get_mut(key) {
            holding.paused = false;
        }
        if let Err(error) = moved {
            tracing::info!(topic = %key.0, partition = key.1, %error, "assignment came too late");
            self.let_go(key);
        }
        Ok(())
    }

    fn assigned(&mut self, partitions: &[(String, i32)]) -> Result<(), Error> {
        tracing::info!(?partitions, "assigned");
        if partitions.is_empty() {
            self.consumer.incremental_assign(&TopicPartitionList::new())?;
        }
        for (topic, partition) in partitions {
            let Some(name) = self.names.get(topic).cloned() else { continue };
            let key = (name, *partition);
            self.let_go(&key);
            self.look_up(key);
        }
        Ok(())
    }

    /// Looks up where to start, after the owner before has ended.
    fn look_up(&mut self, key: Key) {
        let Some(shard) = self.shard(&key) else { return };
        let predecessor = self.leaving.remove(&key).map(|leaving| {
            leaving.revoked.cancel();
            leaving.task
        });
        self.serials += 1;
        let (serial, revoked, draining) = (self.serials, CancellationToken::new(), self.draining.child_token());
        let (shared, client, handle) = (self.shared.clone(), self.client.clone(), self.handle.clone());
        let (sender, cancelled, own) = (self.sender.clone(), revoked.clone(), key.clone());
        let task = self.runtime.spawn(async move {
            if let Some(predecessor) = predecessor
                && tokio::time::timeout(PREDECESSOR, predecessor).await.is_err()
            {
                tracing::info!(topic = %own.0, partition = own.1, "the owner before is still writing, starting beside it");
            }
            let report = match find(&shared.store, &client, &handle, &own, shard, &cancelled).await {
                Ok(Some(start)) => Report::Found { key: own, serial, start },
                Ok(None) => Report::Ended { key: own, serial, stop: Stop::Lapsed },
                Err(error) => Report::Ended { key: own, serial, stop: Stop::Fatal(error) },
            };
            // The polling thread has gone when nobody listens.
            let _ = sender.send(report);
        });
        let holding = Holding {
            serial,
            revoked,
            draining,
            outlet: None,
            next: 0,
            written: 0,
            standing: None,
            halted: false,
            probing: false,
            paused: false,
            task,
        };
        self.holdings.insert(key, holding);
    }

    fn shard(&self, key: &Key) -> Option<Shard> {
        let life = self.lives.get(&*key.0)?;
        Some(Shard { incarnation: life.incarnation, partition: key.1 })
    }

    fn revoked(&mut self, partitions: &[(String, i32)]) {
        tracing::info!(?partitions, "revoked");
        for (topic, partition) in partitions {
            if let Some(name) = self.names.get(topic) {
                let key = (name.clone(), *partition);
                self.hand_over(&key);
            }
        }
    }

    /// Lets the owner of a partition finish the batch it is writing: two owners do no harm, and
    /// whoever comes next, perhaps of another version, does not have to outwait one that was left
    /// open.
    fn hand_over(&mut self, key: &Key) {
        match self.holdings.get(key) {
            Some(holding) if holding.outlet.is_some() => {
                holding.draining.cancel();
                self.forget(key);
            }
            _ => self.let_go(key),
        }
    }

    /// Ends the owner of a partition, if there is one; it ends by itself.
    fn let_go(&mut self, key: &Key) {
        if let Some(holding) = self.holdings.get(key) {
            holding.revoked.cancel();
            self.forget(key);
        }
    }

    /// The partition is no longer this loader's; its owner has been told.
    fn forget(&mut self, key: &Key) {
        if let Some(holding) = self.holdings.remove(key) {
            let Holding { serial, revoked, task, .. } = holding;
            if let Some(before) = self.leaving.insert(key.clone(), Leaving { serial, revoked, task }) {
                before.revoked.cancel();
            }
            self.commits.remove(key);
            self.handle.remove(&key.0, key.1);
        }
    }

    /// The process was stopped for longer than the session: every partition may have another owner
    /// by now. What was read is dropped, and reading starts again from the positions.
    fn missed_the_session(&mut self) {
        let timeout = self.options.kafka.session_timeout;
        tracing::warn!(?timeout, "not run for longer than the session time-out, starting again from the positions");
        // Those that were still finishing a batch too: their leases would count again after the
        // pulse's restart.
        self.leaving.values().for_each(|leaving| leaving.revoked.cancel());
        let keys: Vec<Key> = self.holdings.keys().cloned().collect();
        for key in keys {
            self.start_again(key);
        }
        self.pulse.restart();
    }

    /// Drops what was read of a partition and looks up where it is now.
    fn start_again(&mut self, key: Key) {
        let assigned = self.holdings.get(&key).is_some_and(|holding| holding.outlet.is_some() && !holding.halted);
        self.let_go(&key);
        if assigned && let Err(error) = single(&key, None).and_then(|list| self.consumer.incremental_unassign(&list)) {
            // The group has taken it away already; its revocation is on the way.
            tracing::debug!(%error, "unassign");
        }
        self.look_up(key);
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

    fn is_current(&self, key: &Key, serial: u64) -> bool {
        self.holdings.get(key).is_some_and(|holding| holding.serial == serial)
    }

    /// Assigns a partition at its start and begins to own it.
    fn own(&mut self, key: Key, serial: u64, mut start: Start) -> Result<(), Error> {
        let (Some(shard), Some(place)) = (self.shard(&key), self.place(&key)) else { return Ok(()) };
        let given_up = self.given_up.remove(&key).filter(|given_up| given_up.from == start.position);
        let lost = match given_up {
            // Retention may have passed it meanwhile.
            Some(GivenUp { to, .. }) if start.fetch < to => {
                start.fetch = to;
                Lost::Unreadable
            }
            _ => Lost::Deleted,
        };
        if start.fetch > start.position {
            self.handle.lost(&key.0, key.1, start.position, start.fetch, lost);
        }
        if let Err(error) = self.assign(&key, start.fetch) {
            tracing::info!(topic = %key.0, partition = key.1, %error, "assignment came too late");
            self.let_go(&key);
            return Ok(());
        }
        let Some(holding) = self.holdings.get_mut(&key) else { return Ok(()) };
        let (outlet, inbox) = inbox_within(self.handle.budget());
        let lease = Lease::new(self.pulse.clone(), holding.revoked.clone(), holding.draining.clone());
        let meter = self.handle.meter(&key.0, key.1, start.position);
        let nonce = self.nonce ^ (serial << 48);
        let owner = Owner::new(self.shared.clone(), shard, place, lease, start.position, nonce, meter)
            .fetching_from(start.fetch, lost);
        let (sender, own) = (self.sender.clone(), key.clone());
        let written = move |position| drop(sender.send(Report::Written { key: own.clone(), serial, position }));
        let task = self.runtime.spawn(owner.run(inbox, written));
        let sender = self.sender.clone();
        tracing::info!(topic = %key.0, partition = key.1, ?start, "owned");
        holding.outlet = Some(outlet);
        (holding.next, holding.written) = (start.fetch, start.position);
        // A task that panicked must not leave its partition without an owner in silence.
        holding.task = self.runtime.spawn(async move {
            let stop = task.await.unwrap_or_else(|error| Stop::Fatal(Error::Ended(format!("owner: {error}"))));
            let _ = sender.send(Report::Ended { key, serial, stop });
        });
        Ok(())
    }

    /// Begins to read a partition. librdkafka keeps a pause over assignments, so it is ended:
    /// nobody else would.
    fn assign(&self, key: &Key, from: u64) -> Result<(), KafkaError> {
        self.consumer.incremental_assign(&single(key, Some(from))?)?;
        self.consumer.resume(&single(key, None)?)
    }

    fn place(&self, key: &Key) -> Option<Place> {
        let topics = &self.options.kafka.topics;
        let content = if *key.0 == *topics.reports {
            Content::Reports
        } else if *key.0 == *topics.status {
            Content::Status
        } else {
            Content::Quarantine
        };
        Some(Place { content, partition: key.1, partitions: self.lives.get(&*key.0)?.partitions })
    }

    /// Lets paused partitions go on whose owners have caught up.
    fn resume(&mut self) -> Result<(), Error> {
        let half = self.options.limits.bytes_max / 2;
        // Some way below the limit: each pause makes librdkafka fetch again what it had fetched.
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

    /// Tells Kafka the positions, for lag monitoring and nothing else; only of partitions owned
    /// now, and only forward.
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

    /// Lets owners finish the batches they are writing.
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
            tracing::warn!(
                owners = running.len(),
                "batches were not finished in time, they are written at the next start"
            );
        }
    }
}

fn single(key: &Key, offset: Option<u64>) -> Result<TopicPartitionList, KafkaError> {
    let offset = offset.map_or(Offset::Invalid, |offset| Offset::Offset(offset as i64));
    let mut list = TopicPartitionList::with_capacity(1);
    list.add_partition_offset(&key.0, key.1, offset)?;
    Ok(list)
}

/// A record of its own, with the headers the loader knows.
pub(crate) fn detach(message: &BorrowedMessage<'_>, polled: Duration) -> Record {
    let mut headers = Headers::default();
    for header in message.headers().into_iter().flat_map(|headers| headers.iter()) {
        let value = || header.value.map(<[u8]>::to_vec);
        match header.key {
            TOPIC_HEADER => headers.topic = value(),
            RECEIVED_AT_HEADER => headers.received_at = header.value.and_then(decimal),
            REASON_HEADER => headers.others_mut().reason = value(),
            SOURCE_HEADER => headers.others_mut().source = value(),
            DETAIL_HEADER => headers.others_mut().detail = value(),
            REPLAY_HEADER => headers.others_mut().replay = value(),
            REPLAYED_BY_HEADER => headers.others_mut().replayed_by = value(),
            REPLAYED_AT_HEADER => headers.others_mut().replayed_at = value(),
            _ => {}
        }
    }
    Record {
        // Kafka's offsets are not negative.
        offset: message.offset().unsigned_abs(),
        key: message.key().map(<[u8]>::to_vec),
        payload: message.payload().unwrap_or_default().to_vec(),
        headers,
        timestamp: message.timestamp().to_millis().unwrap_or(0).saturating_mul(1_000),
        polled,
    }
}
