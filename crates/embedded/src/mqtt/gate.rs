//! Back-pressure: publishers wait while too much is queued for shared subscriptions.
//!
//! rmqtt drops what does not fit a subscriber's queue. Here every message for a shared subscription is counted when it is
//! published and discounted when it goes out, and a publisher whose message would not fit waits before its
//! acknowledgement. The count may stray by what rmqtt lets go without a word (at a takeover), so it is compared with the
//! real queues every second.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use rmqtt::{
    codec::v5::PublishAckReason,
    context::ServerContext,
    hook::{Handler, HookResult, Parameter, ReturnType},
    types::{Id, Publish, PublishAclResult, PublishResult},
};
use tokio::sync::Notify;

use super::{Dropped, Options, topic, unsent::Unsent};

/// A session with shared subscriptions.
#[derive(Debug)]
struct Member {
    id: Id,
    /// Group and filter.
    shares: Vec<(String, String)>,
}

#[derive(Debug, Default)]
struct State {
    members: Vec<Member>,
    messages: usize,
    bytes: usize,
    /// Once the limit is reached, nobody passes until half of it has drained.
    full: bool,
}

impl State {
    /// How many shared subscriptions take a topic.
    fn copies(&self, topic: &str) -> usize {
        let shares = self.members.iter().flat_map(|member| &member.shares);
        let mut taking: Vec<_> = shares.filter(|(_, filter)| topic::matches(filter, topic)).collect();
        taking.sort_unstable();
        taking.dedup();
        taking.len()
    }

    fn takes(&self, id: &Id, topic: &str) -> bool {
        let of_client = self.members.iter().filter(|member| member.id.client_id == id.client_id);
        of_client.flat_map(|member| &member.shares).any(|(_, filter)| topic::matches(filter, topic))
    }
}

/// The count of what waits for shared subscriptions, and those who wait because of it.
#[derive(Debug)]
pub(super) struct Gate {
    state: Mutex<State>,
    opened: Notify,
    messages_max: usize,
    bytes_max: usize,
    patience: Duration,
}

impl Gate {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            state: Mutex::default(),
            opened: Notify::new(),
            messages_max: options.queue_messages_max,
            bytes_max: options.queue_bytes_max,
            patience: options.publish_patience,
        }
    }

    /// Waits until the message fits; false when it did not in time.
    async fn admit(&self, publish: &Publish) -> bool {
        let deadline = tokio::time::Instant::now() + self.patience;
        loop {
            let opened = self.opened.notified();
            tokio::pin!(opened);
            opened.as_mut().enable();
            if self.try_admit(&publish.topic, publish.payload.len()) {
                return true;
            }
            if tokio::time::timeout_at(deadline, opened).await.is_err() {
                return false;
            }
        }
    }

    fn try_admit(&self, topic: &str, bytes: usize) -> bool {
        let mut state = self.state.lock();
        let copies = state.copies(topic);
        if copies == 0 {
            return true;
        }
        if state.full {
            return false;
        }
        state.messages = state.messages.saturating_add(copies);
        state.bytes = state.bytes.saturating_add(bytes.saturating_mul(copies));
        if state.messages >= self.messages_max || state.bytes >= self.bytes_max {
            state.full = true;
            tracing::warn!(
                messages = state.messages,
                bytes = state.bytes,
                "mqtt subscribers are behind, publishers wait"
            );
        }
        true
    }

    /// A message went out to this session, or was dropped from its queue.
    fn settle(&self, id: &Id, publish: &Publish) {
        let mut state = self.state.lock();
        if state.members.is_empty() || publish.dup || !state.takes(id, &publish.topic) {
            return;
        }
        state.messages = state.messages.saturating_sub(1);
        state.bytes = state.bytes.saturating_sub(publish.payload.len());
        self.open(&mut state);
    }

    fn open(&self, state: &mut State) {
        if state.full && state.messages <= self.messages_max / 2 && state.bytes <= self.bytes_max / 2 {
            state.full = false;
            self.opened.notify_waiters();
            tracing::info!("mqtt subscribers have caught up, publishers go on");
        }
    }

    fn join(&self, id: &Id, group: &str, filter: &str) {
        let mut state = self.state.lock();
        state.members.retain(|member| member.id.client_id != id.client_id || member.id == *id);
        let share = (group.to_owned(), filter.to_owned());
        match state.members.iter_mut().find(|member| member.id == *id) {
            Some(member) if member.shares.contains(&share) => {}
            Some(member) => member.shares.push(share),
            None => state.members.push(Member { id: id.clone(), shares: vec![share] }),
        }
    }

    fn leave(&self, id: &Id, share: Option<(&str, &str)>) {
        let mut state = self.state.lock();
        for member in state.members.iter_mut().filter(|member| member.id == *id) {
            match share {
                Some(share) => member.shares.retain(|(group, filter)| (group.as_str(), filter.as_str()) != share),
                None => member.shares.clear(),
            }
        }
        state.members.retain(|member| !member.shares.is_empty());
        if state.members.is_empty() {
            (state.messages, state.bytes) = (0, 0);
            self.open(&mut state);
        }
    }

    /// Sets the count back where it strayed: with every queue empty, nothing waits.
    pub(super) async fn check(&self, context: &ServerContext) {
        let ids: Vec<Id> = self.state.lock().members.iter().map(|member| member.id.clone()).collect();
        if ids.is_empty() {
            return;
        }
        let shared = context.extends.shared().await;
        let queued = |id| shared.entry(id).session().is_some_and(|session| !session.deliver_queue().is_empty());
        if !ids.into_iter().any(queued) {
            let mut state = self.state.lock();
            (state.messages, state.bytes) = (0, 0);
            self.open(&mut state);
        }
    }
}

/// What the broker reports goes to the gate, the count of drops and the messages being sent.
#[derive(Clone)]
pub(super) struct Hooks {
    pub(super) gate: Arc<Gate>,
    pub(super) dropped: Dropped,
    pub(super) unsent: Arc<Unsent>,
}

impl Hooks {
    fn count_drop(&self, to: Option<&Id>, publish: &Publish, reason: &str) {
        if let Some(id) = to {
            self.gate.settle(id, publish);
        }
        let count = self.dropped.0.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        // The first, and then each time the count has doubled: a storm of drops must not become one of lines.
        if count.is_power_of_two() {
            let to = to.map(|id| id.client_id.to_string());
            tracing::warn!(topic = %publish.topic, to, reason, count, "mqtt messages dropped");
        }
    }
}

/// Disconnects a publisher without an acknowledgement, so that it sends again.
fn refuse(publisher: &Id) -> HookResult {
    tracing::warn!(client = %publisher.client_id, "mqtt publisher disconnected, its message does not fit");
    let reason = Some("subscribers are behind".into());
    HookResult::PublishAclResult(PublishAclResult(PublishResult::reason_code(
        PublishAckReason::QuotaExceeded,
        reason,
        true,
    )))
}

#[async_trait]
impl Handler for Hooks {
    async fn hook(&self, event: &Parameter, acc: Option<HookResult>) -> ReturnType {
        match event {
            Parameter::MessagePublishCheckAcl(session, publish) => {
                return match self.gate.admit(publish).await {
                    true => (true, acc),
                    false => (false, Some(refuse(&session.id))),
                };
            }
            Parameter::MessageDelivered(session, from, publish) => {
                self.unsent.sending(&session.id, from, publish);
                self.gate.settle(&session.id, publish);
            }
            Parameter::MessageAcked(session, _, publish) => self.unsent.acknowledged(&session.id, publish),
            Parameter::ClientDisconnected(session, _) => {
                if let Err(publish) = self.unsent.disconnected(session).await {
                    self.count_drop(Some(&session.id), &publish, "queue is full");
                }
            }
            Parameter::MessageDropped(to, _, publish, reason) => {
                self.count_drop(to.as_ref(), publish, &reason.to_string());
            }
            Parameter::SessionSubscribed(session, subscribe) => {
                if let Some(group) = subscribe.opts.shared_group() {
                    self.gate.join(&session.id, group, &subscribe.topic_filter);
                }
            }
            Parameter::SessionUnsubscribed(session, unsubscribe) => {
                if let Some(group) = &unsubscribe.shared_group {
                    self.gate.leave(&session.id, Some((group, &unsubscribe.topic_filter)));
                }
            }
            Parameter::SessionTerminated(session, _) => self.gate.leave(&session.id, None),
            _ => {}
        }
        (true, acc)
    }
}
