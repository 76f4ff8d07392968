//! Seeded simulation of owners against an engine that fails in every way that was seen in the real
//! one.
//!
//! The simulation of the whole path (`tests`) also uses the engine and the checks of its tables,
//! under the feature `contract`. `DOSELINE_SIMULATION_SEEDS` sets how many seeds run,
//! `DOSELINE_SIMULATION_SEED` runs one.

pub mod engine;
#[cfg(test)]
mod log;
#[cfg(test)]
mod lost;
pub mod truth;
#[cfg(test)]
mod turns;
#[cfg(test)]
mod world;

use std::sync::Arc;

use crate::{
    clock::Clock,
    options::Limits,
    partition,
    status::{Handle, Meter},
};

/// A meter without a reader.
pub fn meter(limits: Limits, clock: Arc<dyn Clock>, topic: &str, partition: i32, position: u64) -> Arc<Meter> {
    Handle::new(limits, clock).meter(topic, partition, position)
}

/// The partition into which the bridge's producer puts a key.
pub fn partition_of(key: &[u8], partitions: u32) -> i32 {
    partition::of(key, partitions)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, env};

    use super::{
        engine::{Engine, FAULTS},
        world,
    };

    fn seeds() -> Vec<u64> {
        let number = |name| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        match number("DOSELINE_SIMULATION_SEED") {
            Some(seed) => vec![seed],
            None => (0..number("DOSELINE_SIMULATION_SEEDS").unwrap_or(1_000)).collect(),
        }
    }

    /// One runtime for each seed: virtual time, one thread, no randomness except the seed.
    fn run<T>(seed: u64, future: impl Future<Output = T>) -> T {
        println!("DOSELINE_SIMULATION_SEED={seed} cargo test --release -p load --lib simulation");
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(future)
    }

    #[test]
    fn the_fake_keeps_the_contract() {
        run(0, async { crate::contract::check(&Engine::new(0), 1).await });
    }

    #[test]
    fn every_event_stands_once_whatever_fails() {
        let (seeds, mut struck, mut replayed) = (seeds(), BTreeMap::new(), 0);
        for seed in &seeds {
            let (failures, released) = run(*seed, world::world(*seed));
            for (failure, times) in failures {
                *struck.entry(failure).or_insert(0) += times;
            }
            replayed += released;
        }
        // A simulation in which nothing fails, or no replay finds anything, proves nothing.
        assert!(seeds.len() < 100 || (struck.len() == FAULTS.len() && replayed > 0), "{struck:?}, {replayed}");
    }
}
