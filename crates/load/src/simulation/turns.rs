//! Batches that are due wait for a turn, grow meanwhile, and do not wait for ever.

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

/// One record is written first, because an owner's first batch takes no turn. Then all turns are
/// taken for a time; three records arrive, and two more 1 s later. Returns the positions that were
/// written with their times, and the smallest number of free turns afterwards.
fn written(taken: Duration) -> (Vec<(u64, Duration)>, usize) {
    run(async move {
        let (engine, clock) = (Engine::new(7), Arc::new(VirtualClock(Instant::now())));
        let mut log = generate(&mut ChaCha8Rng::seed_from_u64(7), 40);
        log.records.iter_mut().for_each(|record| record.headers.others = None);
        let ((shared, owner), (outlet, inbox)) = (owner(engine.connect(None), clock, 0, 0), inbox());
        let (began, written, mut free) = (Instant::now(), Mutex::new(Vec::new()), usize::MAX);
        let push = |from: usize, to: usize| {
            assert!(log.records[from..to].iter().all(|record| outlet.push(record.clone())));
        };
        push(0, 1);
        tokio::select! {
            _ = owner.run(inbox, |position| written.lock().unwrap().push((position, began.elapsed()))) => {}
            () = async {
                sleep(Duration::from_millis(500)).await;
                let all = shared.turns.acquire_many(shared.limits.batches_max as u32).await.unwrap();
                push(1, 4);
                sleep(Duration::from_secs(1)).await;
                push(4, 6);
                sleep(taken.saturating_sub(Duration::from_secs(1))).await;
                drop(all);
                while began.elapsed() < Duration::from_secs(20) {
                    free = free.min(shared.turns.available_permits());
                    sleep(Duration::from_micros(100)).await;
                }
            } => {}
        }
        (written.into_inner().unwrap(), free)
    })
}

#[test]
fn a_batch_that_waits_for_its_turn_takes_what_comes_and_keeps_the_turn_while_it_is_written() {
    let (written, free) = written(Duration::from_millis(1_500));
    let [(1, _), (6, after)] = written[..] else { panic!("one batch of one record, one of five: {written:?}") };
    assert!((Duration::from_millis(2_000)..Duration::from_millis(2_500)).contains(&after), "{after:?}");
    assert_eq!(free, 1, "turns that were free while it was written");
}

#[test]
fn a_batch_does_not_wait_without_end() {
    let (written, _) = written(Duration::from_secs(10));
    let [(1, _), (6, after)] = written[..] else { panic!("one batch of one record, one of five: {written:?}") };
    assert!((Duration::from_millis(2_500)..Duration::from_millis(3_500)).contains(&after), "{after:?}");
}
