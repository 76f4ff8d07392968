//! Random numbers of a device, from its own ChaCha stream.

use rand::{Rng as _, RngCore as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

pub(super) struct Noise(ChaCha8Rng);

impl Noise {
    /// The stream of a device in one of its runs.
    pub(super) fn new(seed: u64, index: u32, life: u32) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(u64::from(life) << 32 | u64::from(index));
        Self(random)
    }

    /// A whole number in `from..to`.
    pub(super) fn between(&mut self, from: u64, to: u64) -> u64 {
        self.0.random_range(from..to.max(from + 1))
    }

    /// A number in 0..1.
    pub(super) fn unit(&mut self) -> f64 {
        self.0.random()
    }

    /// The stream for permanent properties of a device, the same in all runs.
    pub(super) fn lasting(seed: u64, index: u32) -> Self {
        Self::new(seed, index, u32::MAX)
    }

    pub(super) fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// A standard normal number (Box & Muller 1958).
    pub(super) fn normal(&mut self) -> f64 {
        let (radius, angle) = (1.0 - self.unit(), self.unit() * std::f64::consts::TAU);
        (-2.0 * radius.ln()).sqrt() * angle.cos()
    }

    /// A number in -1..1.
    pub(super) fn signed(&mut self) -> f64 {
        2.0 * self.unit() - 1.0
    }

    /// A normal number within two standard deviations; a larger one would eventually raise an
    /// alert.
    pub(super) fn clipped(&mut self) -> f64 {
        self.normal().clamp(-2.0, 2.0)
    }

    pub(super) fn pick<T: Copy>(&mut self, from: &[T], default: T) -> T {
        let index = self.between(0, from.len() as u64) as usize;
        from.get(index).copied().unwrap_or(default)
    }

    pub(super) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.fill_bytes(&mut bytes);
        bytes
    }
}
