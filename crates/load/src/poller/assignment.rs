//! How a partition gets its owner, and how it loses it.
//!
//! ~~~text
//!  group assigns        start found                    group revokes
//! ──────────────▶ looked up ──────────▶ owned ───────────────────────▶ leaving ──▶ gone
//!                   ▲  │                 │  ▲                             ▲
//!                   │  │ revoked         │  │ memory has room,            │
//!                   │  └─────────────────┼──┼─────────────────────────────┘
//!                   │                    ▼  │ or the reason is known
//!                   │             paused or halted
//!                   │                    │
//!                   └────────────────────┘
//!      from owned, paused or halted: overtaken, session missed, batch given up
//! ~~~
//!
//! - *looked up*: a task asks ClickHouse for the position and Kafka for its offsets. A predecessor
//!   of the same loader gets [`PREDECESSOR`] to end first.
//! - *owned*: the partition is assigned at its start, and an owner writes its batches.
//! - *paused*: its inbox or the memory is full. *halted*: the next record did not come, see
//!   `stall`.
//! - *leaving*: the owner finishes the batch that it is writing, unless it has to wait for records
//!   or for another attempt: then it leaves the batch to the next owner. It ends at once if its
//!   lease was revoked. It is no longer counted as a partition of this loader.
//!
//! `serial` numbers the states `looked up` to `leaving` of one partition. A report of a task whose
//! serial is no longer current is ignored.

use rdkafka::{TopicPartitionList, consumer::Consumer as _, error::KafkaError};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use warehouse::{columns::LossCause, loader::Shard};

use super::{PREDECESSOR, Poller, Report, single};
use crate::{
    copies::Copies,
    decode::Place,
    error::Error,
    history,
    inbox::{Outlet, inbox_within},
    lease::Lease,
    owner::{Owner, Stop},
    partition::Key,
    start::{Start, find},
    store::Store,
    unread::{GivenUp, UnreadPartition},
};

/// A partition of this loader.
pub(super) struct Holding {
    pub serial: u64,
    pub revoked: CancellationToken,
    /// Ends the owner where it waits, see [`Lease`].
    pub draining: CancellationToken,
    /// `None` while the start is looked up.
    pub outlet: Option<Outlet>,
    /// Offset of the record that is polled next.
    pub next: u64,
    /// Offset up to which everything is written.
    pub written: u64,
    /// Set while nothing is read although Kafka has more.
    pub standing: Option<UnreadPartition>,
    /// The next record did not follow the last: nothing is read until the reason is known.
    pub halted: bool,
    /// A task is asking Kafka for the next record.
    pub probing: bool,
    pub paused: bool,
    pub task: JoinHandle<()>,
}

/// An owner that was told to end.
pub(super) struct Leaving {
    pub serial: u64,
    pub revoked: CancellationToken,
    pub task: JoinHandle<()>,
}

impl<S: Store, C: Copies> Poller<S, C> {
    pub(super) fn assigned(&mut self, partitions: &[(String, i32)]) -> Result<(), Error> {
        tracing::info!(?partitions, "assigned");
        if partitions.is_empty() {
            self.consumer.incremental_assign(&TopicPartitionList::new())?;
        }
        for (topic, partition) in partitions {
            let Some(name) = self.names.get(topic).cloned() else { continue };
            let key = (name, *partition);
            self.end_owner(&key);
            self.look_up(key);
        }
        Ok(())
    }

    /// Looks up where to start, after the previous owner has ended.
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
                tracing::info!(topic = %own.0, partition = own.1, "the previous owner is still writing, starting beside it");
            }
            let report = match find(&shared.store, &client, &handle, &own, shard, &cancelled).await {
                Ok(Some(start)) => Report::Found { key: own, serial, start },
                Ok(None) => Report::Ended { key: own, serial, stop: Stop::Lapsed },
                Err(error) => Report::Ended { key: own, serial, stop: Stop::Fatal(error) },
            };
            // Sending fails only after the polling thread has ended.
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

    /// Assigns a partition at its start and begins to own it.
    pub(super) fn own(&mut self, key: Key, serial: u64, mut start: Start) -> Result<(), Error> {
        let (Some(shard), Some(place)) = (self.shard(&key), self.place(&key)) else { return Ok(()) };
        let given_up = self.given_up.remove(&key).filter(|given_up| given_up.from == start.position);
        let lost = match given_up {
            // Unless retention has passed the batch meanwhile.
            Some(GivenUp { to, .. }) if start.read_from < to => {
                start.read_from = to;
                LossCause::Unreadable
            }
            _ => LossCause::Deleted,
        };
        if start.read_from > start.position {
            self.handle.lost(&key.0, key.1, start.position, start.read_from, lost);
        }
        if let Err(error) = self.assign(&key, start.read_from) {
            tracing::info!(topic = %key.0, partition = key.1, %error, "kafka has revoked the partition before it was assigned");
            self.end_owner(&key);
            return Ok(());
        }
        let Some(holding) = self.holdings.get_mut(&key) else { return Ok(()) };
        let (outlet, inbox) = inbox_within(self.handle.budget());
        let lease = Lease::new(self.pulse.clone(), holding.revoked.clone(), holding.draining.clone());
        let meter = self.handle.meter(&key.0, key.1, start.position);
        let nonce = self.nonce ^ (serial << 48);
        let owner = Owner::new(self.shared.clone(), shard, place, lease, start.position, nonce, meter)
            .reading_from(start.read_from, lost);
        let (sender, own) = (self.sender.clone(), key.clone());
        let written = move |position| drop(sender.send(Report::Written { key: own.clone(), serial, position }));
        let task = self.runtime.spawn(owner.run(inbox, written));
        let sender = self.sender.clone();
        tracing::info!(topic = %key.0, partition = key.1, ?start, "owned");
        holding.outlet = Some(outlet);
        (holding.next, holding.written) = (start.read_from, start.position);
        // A panic of the task must not leave its partition without an owner unnoticed.
        holding.task = self.runtime.spawn(async move {
            let stop = task.await.unwrap_or_else(|error| Stop::Fatal(Error::Ended(format!("owner: {error}"))));
            let _ = sender.send(Report::Ended { key, serial, stop });
        });
        Ok(())
    }

    /// Begins to read a partition. librdkafka keeps a pause over assignments, so it is resumed
    /// here.
    pub(super) fn assign(&self, key: &Key, from: u64) -> Result<(), KafkaError> {
        self.consumer.incremental_assign(&single(key, Some(from))?)?;
        self.consumer.resume(&single(key, None)?)
    }

    pub(super) fn revoked(&mut self, partitions: &[(String, i32)]) {
        tracing::info!(?partitions, "revoked");
        for (topic, partition) in partitions {
            if let Some(name) = self.names.get(topic) {
                let key = (name.clone(), *partition);
                self.drain_owner(&key);
            }
        }
    }

    /// Lets the owner of a partition finish the batch that it is writing. Two owners do no harm.
    /// The next owner, perhaps of another version, then need not wait for an unfinished batch.
    fn drain_owner(&mut self, key: &Key) {
        match self.holdings.get(key) {
            Some(holding) if holding.outlet.is_some() => {
                holding.draining.cancel();
                self.forget(key);
            }
            _ => self.end_owner(key),
        }
    }

    /// Tells the owner of a partition, if there is one, to end at once.
    pub(super) fn end_owner(&mut self, key: &Key) {
        if let Some(holding) = self.holdings.get(key) {
            holding.revoked.cancel();
            self.forget(key);
        }
    }

    /// The partition is no longer this loader's, and its owner was told to end.
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

    /// The process was stopped for longer than the session, so every partition may have another
    /// owner by now. Drops what was read and starts again from the positions.
    pub(super) fn start_all_again(&mut self) {
        let timeout = self.options.kafka.session_timeout;
        tracing::warn!(
            ?timeout,
            "the process did not run for longer than the session time-out, starting again from the positions"
        );
        // Owners that are finishing a batch end too: the restart of the pulse would revive their
        // leases.
        self.leaving.values().for_each(|leaving| leaving.revoked.cancel());
        let keys: Vec<Key> = self.holdings.keys().cloned().collect();
        for key in keys {
            self.start_again(key);
        }
        self.pulse.restart();
    }

    /// Drops what was read of a partition and looks up its start again.
    pub(super) fn start_again(&mut self, key: Key) {
        let assigned = self.holdings.get(&key).is_some_and(|holding| holding.outlet.is_some() && !holding.halted);
        self.end_owner(&key);
        if assigned && let Err(error) = single(&key, None).and_then(|list| self.consumer.incremental_unassign(&list)) {
            // The group has revoked it already.
            tracing::debug!(%error, "unassign");
        }
        self.look_up(key);
    }

    pub(super) fn is_current(&self, key: &Key, serial: u64) -> bool {
        self.holdings.get(key).is_some_and(|holding| holding.serial == serial)
    }

    fn shard(&self, key: &Key) -> Option<Shard> {
        let known = self.incarnations.get(&*key.0)?;
        Some(Shard { incarnation: known.incarnation, partition: key.1 })
    }

    fn place(&self, key: &Key) -> Option<Place> {
        let kind = history::topic_kind(&self.options.kafka.topics, &key.0)?;
        Some(Place { kind, partition: key.1, partitions: self.incarnations.get(&*key.0)?.partitions })
    }
}
