//! Seeded simulation of owners against an engine that fails in every way that was seen.
//!
//! `SIMULATION_SEEDS` sets how many seeds run, `SIMULATION_SEED` runs one.

mod engine;
mod log;
mod truth;
mod world;

use std::{collections::BTreeMap, env};

use engine::Engine;

fn seeds() -> Vec<u64> {
    let number = |name| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("SIMULATION_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("SIMULATION_SEEDS").unwrap_or(2_000)).collect(),
    }
}

/// One runtime for each seed: virtual time, one thread, nothing random but the seed.
fn run<T>(seed: u64, future: impl Future<Output = T>) -> T {
    println!("SIMULATION_SEED={seed}");
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(future)
}

#[test]
fn the_fake_keeps_the_contract() {
    run(0, async { crate::contract::check(&Engine::new(0).calm(), 1).await });
}

#[test]
fn every_event_stands_once_whatever_fails() {
    let (seeds, mut struck) = (seeds(), BTreeMap::<String, u64>::new());
    for seed in &seeds {
        for (failure, times) in run(*seed, world::world(*seed)) {
            *struck.entry(failure).or_default() += times;
        }
    }
    // A simulation in which nothing fails proves nothing.
    assert!(seeds.len() < 100 || struck.len() == 5, "{struck:?}");
}
