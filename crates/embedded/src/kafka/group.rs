//! One consumer group: the classic group protocol as a state machine without IO or clock. A request
//! that must wait for other members brings a channel, and its reply goes through this channel.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use tokio::sync::oneshot;

const MEMBERS_MAX: usize = 1_000;

/// What the leader must know about each member.
#[derive(Clone, Debug)]
pub(super) struct Described {
    pub(super) member_id: String,
    pub(super) instance_id: Option<String>,
    pub(super) metadata: Bytes,
}

/// The outcome of a join.
#[derive(Clone, Debug)]
pub(super) struct Joined {
    pub(super) generation: i32,
    pub(super) protocol_type: String,
    pub(super) protocol: String,
    pub(super) leader: String,
    pub(super) member_id: String,
    /// Only filled for the leader.
    pub(super) members: Vec<Described>,
}

/// The outcome of a sync.
#[derive(Clone, Debug)]
pub(super) struct Assigned {
    pub(super) protocol_type: String,
    pub(super) protocol: String,
    pub(super) assignment: Bytes,
}

pub(super) type JoinReply = oneshot::Sender<Result<Joined, ResponseError>>;
pub(super) type SyncReply = oneshot::Sender<Result<Assigned, ResponseError>>;

/// A request to join.
#[derive(Debug)]
pub(super) struct Join {
    /// Empty for a new member.
    pub(super) member_id: String,
    /// The prefix of a new member's id.
    pub(super) client_id: String,
    pub(super) instance_id: Option<String>,
    pub(super) protocol_type: String,
    /// Names and metadata, in order of preference.
    pub(super) protocols: Vec<(String, Bytes)>,
    pub(super) session_timeout: Duration,
    pub(super) rebalance_timeout: Duration,
}

#[derive(Debug)]
struct Member {
    instance_id: Option<String>,
    protocols: Vec<(String, Bytes)>,
    session_timeout: Duration,
    rebalance_timeout: Duration,
    assignment: Bytes,
    seen: Instant,
    joining: Option<JoinReply>,
    syncing: Option<SyncReply>,
}

impl Member {
    /// Whether the member waits in a join on a connection that is still open.
    fn is_joining(&self) -> bool {
        self.joining.as_ref().is_some_and(|reply| !reply.is_closed())
    }

    fn is_expired(&self, now: Instant) -> bool {
        let waits = self.is_joining() || self.syncing.as_ref().is_some_and(|reply| !reply.is_closed());
        !waits && now.saturating_duration_since(self.seen) > self.session_timeout
    }

    fn metadata(&self, protocol: &str) -> Bytes {
        self.protocols
            .iter()
            .find(|(name, _)| name == protocol)
            .map(|(_, metadata)| metadata.clone())
            .unwrap_or_default()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Empty,
    /// Members are called to join again until this time.
    Joining(Instant),
    /// The leader must send the assignment before this time.
    Syncing(Instant),
    Stable,
}

/// The state of one group.
#[derive(Debug)]
pub(super) struct Group {
    phase: Phase,
    generation: i32,
    protocol_type: String,
    protocol: String,
    leader: String,
    members: BTreeMap<String, Member>,
}

impl Default for Group {
    fn default() -> Self {
        Self {
            phase: Phase::Empty,
            generation: 0,
            protocol_type: String::new(),
            protocol: String::new(),
            leader: String::new(),
            members: BTreeMap::new(),
        }
    }
}

impl Group {
    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Accepts a new or a returning member. `reply` is answered once all members have joined.
    pub(super) fn join(&mut self, now: Instant, join: Join, reply: JoinReply) {
        match self.try_join(now, join, reply) {
            Ok(()) => self.settle(now),
            Err((error, reply)) => drop(reply.send(Err(error))),
        }
    }

    fn try_join(&mut self, now: Instant, mut join: Join, reply: JoinReply) -> Result<(), (ResponseError, JoinReply)> {
        if !self.is_empty() && !self.agrees(&join) {
            return Err((ResponseError::InconsistentGroupProtocol, reply));
        }
        if join.member_id.is_empty() {
            if self.members.len() >= MEMBERS_MAX {
                return Err((ResponseError::GroupMaxSizeReached, reply));
            }
            self.replace_instance(join.instance_id.as_deref());
            join.member_id = format!("{}-{}", join.client_id, uuid::Uuid::new_v4());
        } else if !self.members.contains_key(&join.member_id) {
            return Err((ResponseError::UnknownMemberId, reply));
        }
        let member_id = join.member_id.clone();
        let known = self.members.get(&member_id).is_some_and(|member| member.protocols == join.protocols);
        let settled = match self.phase {
            Phase::Stable => known && self.leader != member_id,
            Phase::Syncing(_) => known,
            Phase::Empty | Phase::Joining(_) => false,
        };
        if settled {
            // The member did not get the answer to its earlier join. Nothing has changed, so no
            // rebalance is needed.
            let _ = reply.send(Ok(self.joined(&member_id)));
            return Ok(());
        }
        let assignment = self.members.remove(&member_id).map(|member| member.assignment).unwrap_or_default();
        self.protocol_type = join.protocol_type;
        self.members.insert(
            member_id,
            Member {
                instance_id: join.instance_id,
                protocols: join.protocols,
                session_timeout: join.session_timeout,
                rebalance_timeout: join.rebalance_timeout,
                assignment,
                seen: now,
                joining: Some(reply),
                syncing: None,
            },
        );
        self.call_to_join(now);
        Ok(())
    }

    /// Accepts the assignment from the leader, or lets a follower wait for it.
    pub(super) fn sync(
        &mut self,
        now: Instant,
        member_id: &str,
        generation: i32,
        assignments: Vec<(String, Bytes)>,
        reply: SyncReply,
    ) {
        if let Err(error) = self.check(now, member_id, generation) {
            let _ = reply.send(Err(error));
            return;
        }
        match self.phase {
            Phase::Syncing(_) => {
                if let Some(member) = self.members.get_mut(member_id) {
                    member.syncing = Some(reply);
                }
                if member_id == self.leader {
                    self.assign(assignments);
                }
            }
            Phase::Stable => drop(reply.send(Ok(self.assigned(member_id)))),
            Phase::Empty | Phase::Joining(_) => drop(reply.send(Err(ResponseError::RebalanceInProgress))),
        }
    }

    /// Keeps a member alive and tells it whether to join again.
    pub(super) fn heartbeat(&mut self, now: Instant, member_id: &str, generation: i32) -> Result<(), ResponseError> {
        self.check(now, member_id, generation)?;
        match self.phase {
            Phase::Joining(_) => Err(ResponseError::RebalanceInProgress),
            _ => Ok(()),
        }
    }

    /// Whether a commit may be stored. A commit without a member id comes from a consumer that
    /// assigns its partitions itself.
    pub(super) fn may_commit(&mut self, now: Instant, member_id: &str, generation: i32) -> Result<(), ResponseError> {
        if generation < 0 && member_id.is_empty() {
            return if self.is_empty() { Ok(()) } else { Err(ResponseError::UnknownMemberId) };
        }
        self.check(now, member_id, generation)?;
        match self.phase {
            Phase::Syncing(_) => Err(ResponseError::RebalanceInProgress),
            _ => Ok(()),
        }
    }

    /// Removes a member, by its id or its instance id.
    pub(super) fn leave(
        &mut self,
        now: Instant,
        member_id: &str,
        instance_id: Option<&str>,
    ) -> Result<(), ResponseError> {
        let by_instance = |(id, member): (&String, &Member)| {
            (instance_id.is_some() && member.instance_id.as_deref() == instance_id).then(|| id.clone())
        };
        let id = match self.members.contains_key(member_id) {
            true => Some(member_id.to_owned()),
            false => self.members.iter().find_map(by_instance),
        };
        let id = id.ok_or(ResponseError::UnknownMemberId)?;
        self.remove(&id);
        self.call_to_join(now);
        self.settle(now);
        Ok(())
    }

    /// Removes members that have fallen silent, and ends a rebalance whose time is over.
    pub(super) fn tick(&mut self, now: Instant) {
        let expired = |(id, member): (&String, &Member)| member.is_expired(now).then(|| id.clone());
        let mut gone: Vec<String> = self.members.iter().filter_map(expired).collect();
        match self.phase {
            Phase::Joining(until) if now >= until => {
                gone.extend(self.members.iter().filter(|(_, member)| !member.is_joining()).map(|(id, _)| id.clone()));
            }
            Phase::Syncing(until) if now >= until => {
                gone.extend(
                    self.members.iter().filter(|(_, member)| member.syncing.is_none()).map(|(id, _)| id.clone()),
                );
            }
            _ => {}
        }
        if gone.is_empty() {
            return;
        }
        for id in gone {
            self.remove(&id);
        }
        self.call_to_join(now);
        self.settle(now);
    }

    fn agrees(&self, join: &Join) -> bool {
        let others = || self.members.iter().filter(|(id, _)| **id != join.member_id).map(|(_, member)| member);
        self.protocol_type == join.protocol_type
            && join
                .protocols
                .iter()
                .any(|(name, _)| others().all(|member| member.protocols.iter().any(|(own, _)| own == name)))
    }

    /// Removes the earlier member with the same instance id: a restarted static member replaces it.
    fn replace_instance(&mut self, instance_id: Option<&str>) {
        let Some(instance_id) = instance_id else { return };
        let same = |member: &Member| member.instance_id.as_deref() == Some(instance_id);
        let old = self.members.iter().find(|(_, member)| same(member)).map(|(id, _)| id.clone());
        if let Some(member) = old.and_then(|old| self.members.remove(&old)) {
            refuse(member, ResponseError::FencedInstanceId);
        }
    }

    fn remove(&mut self, member_id: &str) {
        if let Some(member) = self.members.remove(member_id) {
            refuse(member, ResponseError::UnknownMemberId);
        }
    }

    fn check(&mut self, now: Instant, member_id: &str, generation: i32) -> Result<(), ResponseError> {
        let member = self.members.get_mut(member_id).ok_or(ResponseError::UnknownMemberId)?;
        if generation != self.generation {
            return Err(ResponseError::IllegalGeneration);
        }
        member.seen = now;
        Ok(())
    }

    /// Starts a rebalance unless one is running.
    fn call_to_join(&mut self, now: Instant) {
        if self.members.is_empty() {
            self.phase = Phase::Empty;
        } else if !matches!(self.phase, Phase::Joining(_)) {
            let patience = self.members.values().map(|member| member.rebalance_timeout).max().unwrap_or_default();
            self.phase = Phase::Joining(now.checked_add(patience).unwrap_or(now));
            for member in self.members.values_mut() {
                if let Some(reply) = member.syncing.take() {
                    let _ = reply.send(Err(ResponseError::RebalanceInProgress));
                }
            }
        }
    }

    /// Ends the rebalance once every member has joined.
    fn settle(&mut self, now: Instant) {
        if !matches!(self.phase, Phase::Joining(_)) || !self.members.values().all(Member::is_joining) {
            return;
        }
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        if !self.members.contains_key(&self.leader) {
            self.leader = self.members.keys().next().cloned().unwrap_or_default();
        }
        let common =
            |name: &String| self.members.values().all(|member| member.protocols.iter().any(|(own, _)| own == name));
        let wishes = self.members.get(&self.leader).map(|member| member.protocols.as_slice()).unwrap_or_default();
        self.protocol = wishes.iter().map(|(name, _)| name).find(|name| common(name)).cloned().unwrap_or_default();
        let patience = self.members.values().map(|member| member.rebalance_timeout).max().unwrap_or_default();
        self.phase = Phase::Syncing(now.checked_add(patience).unwrap_or(now));
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in ids {
            let joined = self.joined(&id);
            if let Some(member) = self.members.get_mut(&id) {
                member.seen = now;
                member.assignment = Bytes::new();
                if let Some(reply) = member.joining.take() {
                    let _ = reply.send(Ok(joined));
                }
            }
        }
    }

    fn assign(&mut self, assignments: Vec<(String, Bytes)>) {
        for (id, assignment) in assignments {
            if let Some(member) = self.members.get_mut(&id) {
                member.assignment = assignment;
            }
        }
        self.phase = Phase::Stable;
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in ids {
            let assigned = self.assigned(&id);
            if let Some(reply) = self.members.get_mut(&id).and_then(|member| member.syncing.take()) {
                let _ = reply.send(Ok(assigned));
            }
        }
    }

    fn joined(&self, member_id: &str) -> Joined {
        let describe = |(id, member): (&String, &Member)| Described {
            member_id: id.clone(),
            instance_id: member.instance_id.clone(),
            metadata: member.metadata(&self.protocol),
        };
        let is_leader = member_id == self.leader;
        Joined {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            member_id: member_id.to_owned(),
            members: if is_leader { self.members.iter().map(describe).collect() } else { Vec::new() },
        }
    }

    fn assigned(&self, member_id: &str) -> Assigned {
        Assigned {
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            assignment: self.members.get(member_id).map(|member| member.assignment.clone()).unwrap_or_default(),
        }
    }
}

fn refuse(member: Member, error: ResponseError) {
    if let Some(reply) = member.joining {
        let _ = reply.send(Err(error));
    }
    if let Some(reply) = member.syncing {
        let _ = reply.send(Err(error));
    }
}
