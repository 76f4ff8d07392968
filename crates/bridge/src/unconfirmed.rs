//! What was handed to Kafka and is not confirmed: pure, no IO.
//!
//! This is where the bridge's promise is kept: what is owed for a message (its acknowledgement, its receipt) is in here with
//! its record, and comes out by [`Unconfirmed::confirm`] only, once.

use std::collections::BTreeMap;

struct Entry<T> {
    value: T,
    failures: u32,
    reason: Option<String>,
}

/// Values that wait for Kafka's confirmation, by number, which is the order of arrival.
///
/// Invariant: a value leaves only by its confirmation, and no number is given twice.
pub struct Unconfirmed<T> {
    next: usize,
    entries: BTreeMap<usize, Entry<T>>,
}

impl<T> Default for Unconfirmed<T> {
    fn default() -> Self {
        Self { next: 0, entries: BTreeMap::new() }
    }
}

impl<T> Unconfirmed<T> {
    /// Takes a value; its number goes to Kafka with the record and comes back with the delivery report.
    pub fn insert(&mut self, value: T) -> usize {
        let number = self.next;
        self.next += 1;
        self.entries.insert(number, Entry { value, failures: 0, reason: None });
        number
    }

    /// Kafka has confirmed a record, whichever producer sent it: what is owed for it now. Nothing where it was confirmed
    /// before, which happens to a record that was produced twice.
    pub fn confirm(&mut self, number: usize) -> Option<T> {
        self.entries.remove(&number).map(|entry| entry.value)
    }

    /// Notes that a record has failed; how often by now. Nothing where it is confirmed already; otherwise it has to be
    /// produced again.
    pub fn fail(&mut self, number: usize, reason: &str) -> Option<u32> {
        let entry = self.entries.get_mut(&number)?;
        entry.failures = entry.failures.saturating_add(1);
        entry.reason = Some(reason.to_owned());
        Some(entry.failures)
    }

    /// A value that is still waiting.
    pub fn get(&self, number: usize) -> Option<&T> {
        self.entries.get(&number).map(|entry| &entry.value)
    }

    /// All numbers, in order of arrival: what a new producer has to send again.
    pub fn numbers(&self) -> impl Iterator<Item = usize> + '_ {
        self.entries.keys().copied()
    }

    /// The oldest value, and why it failed the last time, if it did.
    pub fn oldest(&self) -> Option<(&T, Option<&str>)> {
        let (_, oldest) = self.entries.first_key_value()?;
        Some((&oldest.value, oldest.reason.as_deref()))
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether everything is confirmed.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_leaves_once_by_its_confirmation() {
        let mut unconfirmed = Unconfirmed::default();
        let numbers: Vec<usize> = ["a", "b", "c"].into_iter().map(|value| unconfirmed.insert(value)).collect();
        assert_eq!(unconfirmed.fail(numbers[0], "time-out"), Some(1));
        assert_eq!(unconfirmed.fail(numbers[0], "leader gone"), Some(2));
        assert_eq!(unconfirmed.oldest(), Some((&"a", Some("leader gone"))));
        assert_eq!(unconfirmed.confirm(numbers[1]), Some("b"));
        assert_eq!((unconfirmed.confirm(numbers[1]), unconfirmed.fail(numbers[1], "late")), (None, None));
        assert_eq!(unconfirmed.numbers().collect::<Vec<_>>(), [numbers[0], numbers[2]]);
        assert_eq!(unconfirmed.confirm(numbers[0]), Some("a"));
        assert_eq!(unconfirmed.confirm(numbers[2]), Some("c"));
        assert!(unconfirmed.is_empty());
        assert!(!numbers.contains(&unconfirmed.insert("d")), "a late report must not confirm another record");
    }
}
