//! Batches that are due wait for each other, grow meanwhile, and do not wait without end.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng as _};
use tokio::time::{Instant, sleep};

use super::{
    engine::Engine,
    log::generate,
    lost::{owner, run},
    world::VirtualClock,
};
use crate::inbox::inbox;

/// Three records come at once and two after 1 s, while all turns are taken for so long; the positions that were written, and
/// after how long each.
fn written(taken: Duration) -> Vec<(u64, Duration)> {
    run(async move {
        let (engine, clock) = (Engine::new(7), Arc::new(VirtualClock(Instant::now())));
        let mut log = generate(&mut ChaCha8Rng::seed_from_u64(7), 40);
        log.records.iter_mut().for_each(|record| record.headers.replay = None);
        let ((shared, owner), (outlet, inbox)) = (owner(engine.connect(None), clock, 0, 0), inbox());
        let all = shared.turns.acquire_many(shared.limits.turns() as u32).await.unwrap();
        let (began, written) = (Instant::now(), Mutex::new(Vec::new()));
        let push = |from: usize, to: usize| {
            assert!(log.records[from..to].iter().all(|record| outlet.push(record.clone())));
        };
        push(0, 3);
        tokio::select! {
            _ = owner.run(inbox, |position| written.lock().unwrap().push((position, began.elapsed()))) => {}
            () = async {
                sleep(Duration::from_secs(1)).await;
                push(3, 5);
                sleep(taken.saturating_sub(Duration::from_secs(1))).await;
                drop(all);
                sleep(Duration::from_secs(20)).await;
            } => {}
        }
        written.into_inner().unwrap()
    })
}

#[test]
fn a_batch_that_waits_for_its_turn_takes_what_comes() {
    let written = written(Duration::from_secs(2));
    let [(5, after)] = written[..] else { panic!("one batch of five records: {written:?}") };
    assert!((Duration::from_secs(2)..Duration::from_secs(4)).contains(&after), "{after:?}");
}

#[test]
fn a_batch_does_not_wait_without_end() {
    let written = written(Duration::from_secs(60));
    let [(5, after)] = written[..] else { panic!("one batch of five records: {written:?}") };
    assert!((Duration::from_secs(5)..Duration::from_secs(7)).contains(&after), "{after:?}");
}
