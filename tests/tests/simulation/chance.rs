//! Randomness and the trace. The seed decides everything random, and one hash covers everything
//! that happens.

use std::{
    hash::{DefaultHasher, Hash, Hasher as _},
    time::Duration,
};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

/// All randomness of a seed, except the engine's, which has its own.
pub struct Chance {
    random: StdRng,
    trace: DefaultHasher,
    /// No more mishaps: everything that is open must settle.
    pub calm: bool,
}

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self { random: StdRng::seed_from_u64(seed), trace: DefaultHasher::new(), calm: false }
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.random.random_range(0..bound)
    }

    /// Whether something happens that has a chance of one in `times`.
    pub fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// Whether a mishap happens that has a chance of one in `times`. During calm none happens.
    pub fn mishap(&mut self, times: u64) -> bool {
        let strikes = self.once_in(times);
        strikes && !self.calm
    }

    /// A random duration below this one.
    pub fn within(&mut self, ms: u64) -> Duration {
        Duration::from_millis(self.below(ms))
    }

    /// A random number from 0 to below 1.
    pub fn fraction(&mut self) -> f64 {
        self.random.random()
    }

    /// Adds something that happened to the trace.
    pub fn note(&mut self, what: impl Hash) {
        what.hash(&mut self.trace);
    }

    pub fn trace(&self) -> u64 {
        self.trace.finish()
    }
}
