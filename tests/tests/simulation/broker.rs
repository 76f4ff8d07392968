//! An MQTT broker: one shared subscription over a few sessions, which it keeps or loses, and the
//! way to the devices.
//!
//! It checks that the bridge follows MQTT's rules: a PUBACK must be for the oldest message that was
//! sent on its connection.

use std::collections::VecDeque;

use tokio::time::Instant;

use crate::chance::Chance;

/// Largest number of sent messages that are not acknowledged. There are only a few more packet ids,
/// so an id soon means another message.
const IN_FLIGHT_MAX: usize = 6;
const PACKET_IDS: u16 = 9;

/// A message of a device.
#[derive(Clone, Debug)]
pub struct Message {
    /// A number of the simulation's own that identifies the message.
    pub serial: u64,
    pub topic: String,
    pub payload: Vec<u8>,
}

#[derive(Default)]
struct Session {
    exists: bool,
    pending: VecDeque<Message>,
    sent: VecDeque<(u16, Message)>,
    connection: Option<u64>,
    packet_id: u16,
}

pub struct Broker {
    sessions: Vec<Session>,
    serials: u64,
    connections: u64,
    /// Messages from devices that are in flight.
    publishes: Vec<(Instant, Message)>,
    /// Messages to devices that are in flight.
    receipts: Vec<(Instant, String, Vec<u8>)>,
}

impl Broker {
    pub fn new(sessions: usize) -> Self {
        let sessions = (0..sessions).map(|_| Session::default()).collect();
        Self { sessions, serials: 0, connections: 0, publishes: Vec::new(), receipts: Vec::new() }
    }

    /// A device publishes a message, which arrives, arrives late, arrives twice, or is lost.
    pub fn publish(&mut self, now: Instant, chance: &mut Chance, topic: &str, payload: &[u8]) {
        if chance.mishap(12) {
            return;
        }
        let copies = if chance.mishap(15) { 2 } else { 1 };
        for _ in 0..copies {
            self.serials += 1;
            let message = Message { serial: self.serials, topic: topic.to_owned(), payload: payload.to_vec() };
            let longest = if chance.mishap(8) { 2_000 } else { 60 };
            self.publishes.push((now + chance.within(longest), message));
        }
    }

    /// The bridge publishes a receipt, which arrives, arrives late, arrives twice, or is lost.
    pub fn receipt(&mut self, now: Instant, chance: &mut Chance, topic: &str, payload: &[u8]) {
        if chance.mishap(10) {
            return;
        }
        let copies = if chance.mishap(15) { 2 } else { 1 };
        for _ in 0..copies {
            let longest = if chance.mishap(8) { 3_000 } else { 60 };
            self.receipts.push((now + chance.within(longest), topic.to_owned(), payload.to_vec()));
        }
    }

    /// Passes on what has arrived, and returns what devices get.
    pub fn step(&mut self, now: Instant, chance: &mut Chance) -> Vec<(String, Vec<u8>)> {
        for (_, message) in take_due(&mut self.publishes, now, |(at, _)| *at) {
            self.route(message, chance);
        }
        let due = take_due(&mut self.receipts, now, |(at, ..)| *at);
        due.into_iter().map(|(_, topic, payload)| (topic, payload)).collect()
    }

    /// Sends a message to a session that is connected, or else to one that waits for its client.
    /// Without a session the message is lost.
    fn route(&mut self, message: Message, chance: &mut Chance) {
        let choose = |wanted: &dyn Fn(&Session) -> bool| -> Vec<usize> {
            self.sessions.iter().enumerate().filter(|(_, session)| wanted(session)).map(|(index, _)| index).collect()
        };
        let mut fit = choose(&|session| session.connection.is_some());
        if fit.is_empty() {
            fit = choose(&|session| session.exists);
        }
        if !fit.is_empty() {
            let index = fit[chance.below(fit.len() as u64) as usize];
            self.sessions[index].pending.push_back(message);
        }
    }

    /// A client connects. The messages that it had not acknowledged are sent again, under any
    /// packet ids, or to another client.
    pub fn connect(&mut self, index: usize, chance: &mut Chance) -> u64 {
        self.connections += 1;
        let session = &mut self.sessions[index];
        let unacknowledged: Vec<Message> = session.sent.drain(..).map(|(_, message)| message).collect();
        session.connection = Some(self.connections);
        if session.exists && chance.mishap(4) {
            // The session is lost. The messages of a shared subscription go to the other sessions,
            // or are lost too.
            let left: Vec<Message> = unacknowledged.into_iter().chain(session.pending.drain(..)).collect();
            session.packet_id = 0;
            if chance.once_in(2) {
                left.into_iter().for_each(|message| self.route(message, chance));
            }
        } else {
            session.exists = true;
            if chance.once_in(2) {
                session.packet_id = 0;
            }
            unacknowledged.into_iter().rev().for_each(|message| session.pending.push_front(message));
        }
        self.connections
    }

    pub fn disconnect(&mut self, index: usize) {
        self.sessions[index].connection = None;
    }

    pub fn is_connected(&self, index: usize, connection: u64) -> bool {
        self.sessions[index].connection == Some(connection)
    }

    pub fn deliver(&mut self, index: usize) -> Option<(u16, Message)> {
        let session = &mut self.sessions[index];
        if session.sent.len() >= IN_FLIGHT_MAX {
            return None;
        }
        let message = session.pending.pop_front()?;
        session.packet_id = session.packet_id % PACKET_IDS + 1;
        session.sent.push_back((session.packet_id, message.clone()));
        Some((session.packet_id, message))
    }

    /// Handles a PUBACK, and returns its message.
    pub fn acknowledge(&mut self, index: usize, packet_id: u16) -> Result<Message, String> {
        let sent = &mut self.sessions[index].sent;
        match sent.pop_front() {
            Some((expected, message)) if expected == packet_id => Ok(message),
            Some((expected, _)) => Err(format!("PUBACK for packet {packet_id} before the one for {expected}")),
            None => Err(format!("PUBACK for packet {packet_id}, which was not sent on this connection")),
        }
    }

    /// The broker forgets everything.
    pub fn restart(&mut self) {
        self.sessions.iter_mut().for_each(|session| *session = Session::default());
        self.publishes.clear();
        self.receipts.clear();
    }

    /// Whether nothing is in flight.
    pub fn is_idle(&self) -> bool {
        let idle = |session: &Session| session.pending.is_empty() && session.sent.is_empty();
        self.publishes.is_empty() && self.receipts.is_empty() && self.sessions.iter().all(idle)
    }
}

/// Takes out what is due, the oldest first.
pub fn take_due<T>(waiting: &mut Vec<T>, now: Instant, at: impl Fn(&T) -> Instant) -> Vec<T> {
    let (mut due, later): (Vec<T>, Vec<T>) = std::mem::take(waiting).into_iter().partition(|item| at(item) <= now);
    *waiting = later;
    due.sort_by_key(|item| at(item));
    due
}
