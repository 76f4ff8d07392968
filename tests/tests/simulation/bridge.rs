//! The bridge: real admission, real acknowledgement rings, and the real table of unconfirmed
//! messages. The rest imitates, without sockets, what its connections and its producer do with
//! them.

use std::collections::VecDeque;

use bridge::{
    admit::{Receipt, admit},
    ring::Slot,
    unconfirmed::Unconfirmed,
};
use tokio::time::Instant;

use crate::{
    broker::{Broker, Message, take_due},
    bug::{Acknowledger, Bug},
    chance::Chance,
    kafka::{Answer, Kafka, Produced, Sent},
};

/// Largest number of unconfirmed messages. Beyond it the bridge does not read from MQTT.
const IN_FLIGHT_MAX: usize = 12;

/// A message that waits for Kafka, and what must be sent after its confirmation.
struct Owed {
    produced: Produced,
    /// Its connection, and its slot in that connection's ring.
    slot: Option<(usize, Slot)>,
    receipt: Option<Receipt>,
}

struct Connection {
    acknowledger: Acknowledger,
    network: Option<u64>,
    /// Messages that were read from the network but not processed.
    buffered: VecDeque<(u16, Message)>,
    /// Confirmations that were not processed. They survive the network connection.
    settled: VecDeque<Slot>,
    /// PUBACKs that are not sent yet.
    acknowledgements: VecDeque<u16>,
    connects: Instant,
}

pub struct Bridge {
    id: u64,
    bug: Option<Bug>,
    generation: u64,
    unconfirmed: Unconfirmed<Owed>,
    connections: Vec<Connection>,
    receipts: VecDeque<(u64, Receipt)>,
    retries: Vec<(Instant, usize)>,
}

impl Bridge {
    pub fn new(id: u64, connections: usize, now: Instant, bug: Option<Bug>) -> Self {
        let connection = |_| Connection {
            acknowledger: Acknowledger::new(bug),
            network: None,
            buffered: VecDeque::new(),
            settled: VecDeque::new(),
            acknowledgements: VecDeque::new(),
            connects: now,
        };
        Self {
            id,
            bug,
            generation: 0,
            unconfirmed: Unconfirmed::default(),
            connections: (0..connections).map(connection).collect(),
            receipts: VecDeque::new(),
            retries: Vec::new(),
        }
    }

    pub fn is_idle(&self) -> bool {
        self.unconfirmed.is_empty() && self.receipts.is_empty()
    }

    /// Handles an answer of the producer.
    pub fn answer(&mut self, now: Instant, chance: &mut Chance, kafka: &mut Kafka, sent: Sent, answer: Answer) {
        if sent.bridge != self.id {
            return;
        }
        chance.note(("answer", sent, answer));
        match answer {
            Answer::Confirmed => {
                if let Some(Owed { produced, slot, receipt }) = self.unconfirmed.confirm(sent.number) {
                    if let Some((connection, slot)) = slot {
                        self.connections[connection].settled.push_back(slot);
                    }
                    self.receipts.extend(receipt.map(|receipt| (produced.serial, receipt)));
                }
            }
            // An answer of an earlier producer. Its records have already been produced again.
            _ if sent.generation != self.generation => {}
            Answer::Failed => {
                if self.unconfirmed.fail(sent.number, "simulated").is_some() {
                    self.retries.push((now + chance.within(200), sent.number));
                }
            }
            Answer::Fatal => {
                self.generation += 1;
                self.retries.clear();
                for number in self.unconfirmed.numbers().collect::<Vec<_>>() {
                    self.produce(now, chance, kafka, number);
                }
            }
        }
    }

    fn produce(&self, now: Instant, chance: &mut Chance, kafka: &mut Kafka, number: usize) {
        if let Some(owed) = self.unconfirmed.get(number) {
            let sent = Sent { bridge: self.id, generation: self.generation, number };
            kafka.send(now, chance, sent, &owed.produced);
        }
    }

    /// Receives messages, acknowledges them, and sends receipts.
    pub fn step(
        &mut self,
        now: Instant,
        chance: &mut Chance,
        broker: &mut Broker,
        kafka: &mut Kafka,
    ) -> Result<(), String> {
        for (_, number) in take_due(&mut self.retries, now, |(at, _)| *at) {
            self.produce(now, chance, kafka, number);
        }
        for index in 0..self.connections.len() {
            self.connection(index, now, chance, broker, kafka)?;
        }
        while let Some((serial, receipt)) = self.receipts.pop_front() {
            if !kafka.has_confirmed(serial) {
                return Err(format!("a receipt for message {serial}, which kafka has not confirmed"));
            }
            chance.note(("receipt", serial));
            broker.receipt(now, chance, &receipt.topic, &receipt.payload());
        }
        Ok(())
    }

    fn connection(
        &mut self,
        index: usize,
        now: Instant,
        chance: &mut Chance,
        broker: &mut Broker,
        kafka: &mut Kafka,
    ) -> Result<(), String> {
        let connection = &mut self.connections[index];
        let Some(network) = connection.network else {
            if connection.connects <= now {
                connection.network = Some(broker.connect(index, chance));
                chance.note(("connect", index));
            }
            return Ok(());
        };
        if !broker.is_connected(index, network) || chance.mishap(60) {
            broker.disconnect(index);
            self.disconnected(index, now, chance, kafka);
            return Ok(());
        }
        for _ in 0..chance.below(4) {
            connection.buffered.extend(broker.deliver(index));
        }
        while self.unconfirmed.len() < IN_FLIGHT_MAX && !chance.mishap(4) {
            let Some((packet_id, message)) = self.connections[index].buffered.pop_front() else { break };
            self.ingest(now, chance, kafka, message, Some((index, packet_id)));
        }
        let connection = &mut self.connections[index];
        if !chance.mishap(3) {
            for slot in connection.settled.drain(..) {
                connection.acknowledgements.extend(connection.acknowledger.settle(slot));
            }
        }
        if !chance.mishap(3) {
            for packet_id in connection.acknowledgements.drain(..) {
                let message = broker.acknowledge(index, packet_id)?;
                if !kafka.has_confirmed(message.serial) {
                    return Err(format!("PUBACK for message {}, which kafka has not confirmed", message.serial));
                }
                chance.note(("puback", index, packet_id, message.serial));
            }
        }
        Ok(())
    }

    /// Messages that were read already go to Kafka unacknowledged. No message of this connection is
    /// acknowledged on the next one.
    fn disconnected(&mut self, index: usize, now: Instant, chance: &mut Chance, kafka: &mut Kafka) {
        let buffered = std::mem::take(&mut self.connections[index].buffered);
        for (_, message) in buffered {
            self.ingest(now, chance, kafka, message, None);
        }
        let connection = &mut self.connections[index];
        connection.acknowledger.reconnect();
        connection.acknowledgements.clear();
        connection.network = None;
        connection.connects = now + chance.within(200);
    }

    /// Starts the way of one message to Kafka.
    fn ingest(
        &mut self,
        now: Instant,
        chance: &mut Chance,
        kafka: &mut Kafka,
        message: Message,
        acknowledge: Option<(usize, u16)>,
    ) {
        let Message { serial, topic, payload } = message;
        let admitted = admit(topic.as_bytes(), &payload);
        // Sometimes there is no room for a receipt.
        let mut receipt = admitted.receipt.filter(|_| !chance.mishap(25));
        if self.bug == Some(Bug::ReceiptAtOnce) {
            self.receipts.extend(receipt.take().map(|receipt| (serial, receipt)));
        }
        let received_at = kafka.unix_us(now);
        let key = admitted.key.map(|key| key.to_string());
        let (destination, value) = (admitted.destination, admitted.value.into_owned());
        let produced = Produced { serial, destination, key, value, topic, received_at };
        let slot = acknowledge.map(|(index, packet)| (index, self.connections[index].acknowledger.push(packet)));
        let number = self.unconfirmed.insert(Owed { produced, slot, receipt });
        chance.note(("ingest", serial, number, slot.is_some()));
        self.produce(now, chance, kafka, number);
    }

    /// The process dies, and its network connections end.
    pub fn die(&mut self, broker: &mut Broker) {
        (0..self.connections.len()).for_each(|index| broker.disconnect(index));
    }
}
