//! Randomness and the trace: everything random comes from the seed, and everything that happens
//! goes into one hash.

use std::{
    hash::{DefaultHasher, Hash, Hasher as _},
    time::Duration,
};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

/// All randomness of a seed but the engine's, which has its own.
pub struct Chance {
    random: StdRng,
    trace: DefaultHasher,
    /// No mishaps any more: what is left has to settle.
    pub calm: bool,
}

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self { random: StdRng::seed_from_u64(seed), trace: DefaultHasher::new(), calm: false }
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.random.random_range(0..bound)
    }

    /// Whether something happens that happens once in `times`.
    pub fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// A mishap that happens once in `times`, unless all is to be calm.
    pub fn mishap(&mut self, times: u64) -> bool {
        let strikes = self.once_in(times);
        strikes && !self.calm
    }

    /// Less than this long.
    pub fn within(&mut self, ms: u64) -> Duration {
        Duration::from_millis(self.below(ms))
    }

    /// From 0 to below 1.
    pub fn fraction(&mut self) -> f64 {
        self.random.random()
    }

    /// Notes that something happened.
    pub fn note(&mut self, what: impl Hash) {
        what.hash(&mut self.trace);
    }

    /// Hash of everything noted.
    pub fn trace(&self) -> u64 {
        self.trace.finish()
    }
}
