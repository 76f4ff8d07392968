//! The records that were sent to Kafka and are not confirmed. It does no IO.
//!
//! The bridge keeps its guarantee here: the acknowledgement and the receipt of a message stay
//! beside its record, and only [`Unconfirmed::confirm`] releases them, once.

use std::collections::VecDeque;

struct Entry<T> {
    number: usize,
    /// None once it is confirmed. The entry is removed when no older one waits, or when half of all
    /// entries are confirmed.
    value: Option<T>,
    failures: u32,
    reason: Option<String>,
}

/// Values that wait for Kafka's confirmation, by number, which is the order of arrival.
///
/// Kafka confirms nearly in this order, so the queue is hardly longer than the number of records in
/// flight. Once it has reached its greatest length, it allocates nothing.
///
/// Invariant: only its confirmation removes a value, and no number is given twice.
pub struct Unconfirmed<T> {
    next: usize,
    /// By number, ascending; the first is not confirmed.
    entries: VecDeque<Entry<T>>,
    waiting: usize,
}

impl<T> Default for Unconfirmed<T> {
    fn default() -> Self {
        Self { next: 0, entries: VecDeque::new(), waiting: 0 }
    }
}

impl<T> Unconfirmed<T> {
    /// Takes a value; its number goes to Kafka with the record and comes back with the delivery
    /// report.
    pub fn insert(&mut self, value: T) -> usize {
        let number = self.next;
        self.next += 1;
        self.waiting += 1;
        self.entries.push_back(Entry { number, value: Some(value), failures: 0, reason: None });
        number
    }

    /// Kafka has confirmed a record, whichever producer sent it. Returns its value, or nothing if
    /// the record was confirmed before: a record that was produced twice is confirmed twice.
    pub fn confirm(&mut self, number: usize) -> Option<T> {
        let index = self.index(number)?;
        let value = self.entries[index].value.take()?;
        self.waiting -= 1;
        while self.entries.front().is_some_and(|entry| entry.value.is_none()) {
            self.entries.pop_front();
        }
        // One record that waits for long must not keep the entries of all later ones.
        if self.entries.len() > 2 * self.waiting {
            self.entries.retain(|entry| entry.value.is_some());
        }
        Some(value)
    }

    /// Notes that a record has failed and must be produced again. Returns how often it has failed,
    /// or nothing if it is confirmed already.
    pub fn fail(&mut self, number: usize, reason: &str) -> Option<u32> {
        let index = self.index(number)?;
        let entry = &mut self.entries[index];
        entry.value.as_ref()?;
        entry.failures = entry.failures.saturating_add(1);
        entry.reason = Some(reason.to_owned());
        Some(entry.failures)
    }

    /// A value that is still waiting.
    pub fn get(&self, number: usize) -> Option<&T> {
        self.index(number).and_then(|index| self.entries[index].value.as_ref())
    }

    /// All numbers, in order of arrival: what a new producer has to send again.
    pub fn numbers(&self) -> impl Iterator<Item = usize> + '_ {
        self.entries.iter().filter(|entry| entry.value.is_some()).map(|entry| entry.number)
    }

    /// The oldest value, and why it failed the last time, if it did.
    pub fn oldest(&self) -> Option<(&T, Option<&str>)> {
        let oldest = self.entries.front()?;
        Some((oldest.value.as_ref()?, oldest.reason.as_deref()))
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting
    }

    /// Whether everything is confirmed.
    pub fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    fn index(&self, number: usize) -> Option<usize> {
        self.entries.binary_search_by_key(&number, |entry| entry.number).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

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

    proptest! {
        /// Against a map, whatever is confirmed when; and never longer than twice what waits.
        #[test]
        fn behaves_like_a_map(steps in prop::collection::vec(prop::option::of(any::<prop::sample::Index>()), 0..200)) {
            let (mut unconfirmed, mut model) = (Unconfirmed::default(), BTreeMap::new());
            let mut given = Vec::new();
            for step in steps {
                match step {
                    Some(index) if !given.is_empty() => {
                        let number = *index.get(&given);
                        prop_assert_eq!(unconfirmed.get(number), model.get(&number));
                        prop_assert_eq!(unconfirmed.confirm(number), model.remove(&number));
                        prop_assert_eq!(unconfirmed.get(number), None);
                        prop_assert_eq!(unconfirmed.fail(number, "late"), None);
                    }
                    _ => {
                        let number = unconfirmed.insert(given.len());
                        model.insert(number, given.len());
                        given.push(number);
                    }
                }
                prop_assert_eq!(unconfirmed.numbers().collect::<Vec<_>>(), model.keys().copied().collect::<Vec<_>>());
                prop_assert_eq!(unconfirmed.oldest().map(|(oldest, _)| oldest), model.values().next());
                prop_assert_eq!((unconfirmed.len(), unconfirmed.is_empty()), (model.len(), model.is_empty()));
                prop_assert!(unconfirmed.entries.len() <= 2 * unconfirmed.len());
            }
        }
    }
}
