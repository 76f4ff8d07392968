//! The acknowledgement ring of one MQTT connection. It does no IO.
//!
//! MQTT requires PUBACKs in the order in which messages were received (MQTT-4.6.0-2), but Kafka
//! confirms records in any order. Each message therefore takes a slot in the order of receipt.
//! Kafka's confirmation *settles* the slot. Only the settled slots at the head of the ring, up to
//! the first that is not settled, may be acknowledged.
//!
//! A packet id is valid only on the network connection on which it was received. Each network
//! connection is an *epoch*. The ring ignores a confirmation for a slot of an earlier epoch: the
//! broker delivers that message again on the new connection, and it is acknowledged there.

use std::collections::VecDeque;

/// A place in the ring of one epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot {
    epoch: u64,
    number: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry<P> {
    packet: P,
    settled: bool,
}

/// Messages of one connection that are not acknowledged yet, in arrival order.
///
/// Invariant: [`Ring::head`] returns every packet at most once and in the order of [`Ring::push`].
/// It returns a packet only after that packet and all earlier ones of its epoch were settled, and
/// only within that epoch.
#[derive(Clone, Debug)]
pub struct Ring<P> {
    epoch: u64,
    /// Number of the slot at the front.
    head: u64,
    entries: VecDeque<Entry<P>>,
}

impl<P> Default for Ring<P> {
    fn default() -> Self {
        Self { epoch: 0, head: 0, entries: VecDeque::new() }
    }
}

impl<P> Ring<P> {
    /// Takes the next slot for a packet that has just arrived.
    pub fn push(&mut self, packet: P) -> Slot {
        let number = self.head + self.entries.len() as u64;
        self.entries.push_back(Entry { packet, settled: false });
        Slot { epoch: self.epoch, number }
    }

    /// Notes that Kafka has confirmed the message of `slot`. A slot of an earlier epoch and a
    /// repeated confirmation are ignored.
    pub fn settle(&mut self, slot: Slot) {
        if slot.epoch != self.epoch {
            return;
        }
        let index = slot.number.checked_sub(self.head).and_then(|index| usize::try_from(index).ok());
        if let Some(entry) = index.and_then(|index| self.entries.get_mut(index)) {
            entry.settled = true;
        }
    }

    /// Takes the settled slots at the head: the packets to acknowledge now, in this order.
    pub fn head(&mut self) -> impl Iterator<Item = P> + '_ {
        std::iter::from_fn(move || {
            let settled = self.entries.front().is_some_and(|entry| entry.settled);
            let entry = if settled { self.entries.pop_front() } else { None }?;
            self.head += 1;
            Some(entry.packet)
        })
    }

    /// Begins a new epoch: nothing that arrived before is ever acknowledged.
    pub fn reconnect(&mut self) {
        self.epoch += 1;
        self.head = 0;
        self.entries.clear();
    }

    /// Messages that are not acknowledged.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether everything is acknowledged.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;
    use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};

    use super::*;

    fn head(ring: &mut Ring<u16>) -> Vec<u16> {
        ring.head().collect()
    }

    #[test]
    fn only_the_contiguous_head_is_acknowledged() {
        let mut ring = Ring::default();
        let slots: Vec<Slot> = (1..=4).map(|packet| ring.push(packet)).collect();
        ring.settle(slots[1]);
        ring.settle(slots[2]);
        assert_eq!(head(&mut ring), [0u16; 0]);
        ring.settle(slots[0]);
        assert_eq!(head(&mut ring), [1, 2, 3]);
        assert_eq!(head(&mut ring), [0u16; 0]);
        ring.settle(slots[0]);
        ring.settle(slots[3]);
        assert_eq!(head(&mut ring), [4]);
        assert!(ring.is_empty());
    }

    #[test]
    fn an_earlier_epoch_is_never_acknowledged() {
        let mut ring = Ring::default();
        let old = ring.push(7u16);
        ring.reconnect();
        // The same packet id, now another message.
        let new = ring.push(7);
        ring.settle(old);
        assert_eq!(head(&mut ring), [0u16; 0], "the old delivery report must not acknowledge the new message");
        ring.settle(new);
        assert_eq!(head(&mut ring), [7]);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push,
        Settle(prop::sample::Index),
        Head,
        Reconnect,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => Just(Step::Push),
            6 => any::<prop::sample::Index>().prop_map(Step::Settle),
            3 => Just(Step::Head),
            1 => Just(Step::Reconnect),
        ]
    }

    proptest! {
        /// Against a model that keeps every message ever pushed, settles any of them at any time,
        /// old epochs included.
        #[test]
        fn behaves_like_the_model(steps in prop::collection::vec(step(), 0..200)) {
            let mut ring = Ring::default();
            let mut epoch = 0u64;
            // (epoch, slot, settled, acknowledged)
            let mut model: Vec<(u64, Slot, bool, bool)> = Vec::new();
            for step in steps {
                match step {
                    Step::Push => {
                        let slot = ring.push(model.len());
                        model.push((epoch, slot, false, false));
                    }
                    Step::Settle(index) if !model.is_empty() => {
                        let at = index.index(model.len());
                        let entry = &mut model[at];
                        ring.settle(entry.1);
                        entry.2 = true;
                    }
                    Step::Settle(_) => {}
                    Step::Head => {
                        let acknowledged: Vec<usize> = ring.head().collect();
                        let mut expected = Vec::new();
                        for (index, entry) in model.iter_mut().enumerate().filter(|(_, entry)| entry.0 == epoch) {
                            if entry.3 {
                                continue;
                            }
                            if !entry.2 {
                                break;
                            }
                            entry.3 = true;
                            expected.push(index);
                        }
                        prop_assert_eq!(acknowledged, expected);
                    }
                    Step::Reconnect => {
                        ring.reconnect();
                        epoch += 1;
                    }
                }
                let open = model.iter().filter(|entry| entry.0 == epoch && !entry.3).count();
                prop_assert_eq!(ring.len(), open);
            }
        }
    }

    /// A broker with a persistent session, a Kafka that confirms late, out of order and across
    /// reconnects.
    ///
    /// What must hold: the broker never takes an acknowledgement for a message Kafka has not
    /// confirmed, sees acknowledgements in delivery order, and in the end every message is
    /// acknowledged.
    fn simulate(seed: u64) {
        let mut random = StdRng::seed_from_u64(seed);
        let mut ring: Ring<u16> = Ring::default();
        let mut queue: VecDeque<u32> = (0..200).collect();
        // What the broker has sent on this connection and not got acknowledged, in order: (packet
        // id, message).
        let mut sent: VecDeque<(u16, u32)> = VecDeque::new();
        let mut reports: Vec<(Slot, u32)> = Vec::new();
        let mut confirmed: HashMap<u32, u32> = HashMap::new();
        let mut packet_id = 0u16;
        for _ in 0..100_000 {
            if queue.is_empty() && sent.is_empty() {
                break;
            }
            match random.random_range(0..100) {
                0..45 if sent.len() < 20 => {
                    if let Some(message) = queue.pop_front() {
                        // Few ids, so that they come round quickly and mean other messages after a
                        // reconnect.
                        packet_id = packet_id % 24 + 1;
                        sent.push_back((packet_id, message));
                        reports.push((ring.push(packet_id), message));
                    }
                }
                45..93 if !reports.is_empty() => {
                    let index = *(0..reports.len()).collect::<Vec<_>>().choose(&mut random).unwrap_or(&0);
                    let (slot, message) = reports.swap_remove(index);
                    *confirmed.entry(message).or_default() += 1;
                    ring.settle(slot);
                    for acknowledged in ring.head() {
                        let (expected, message) = sent.pop_front().expect("acknowledged something not sent");
                        assert_eq!(acknowledged, expected, "seed {seed}: out of order");
                        assert!(confirmed.contains_key(&message), "seed {seed}: {message} is not in Kafka");
                    }
                }
                98.. => {
                    ring.reconnect();
                    packet_id = 0;
                    for (_, message) in sent.drain(..).rev() {
                        queue.push_front(message);
                    }
                }
                _ => {}
            }
        }
        assert!(queue.is_empty() && sent.is_empty(), "seed {seed}: not everything was acknowledged");
        assert_eq!(confirmed.len(), 200, "seed {seed}");
    }

    #[test]
    fn simulated_brokers_lose_nothing() {
        for seed in 0..500 {
            simulate(seed);
        }
    }
}
