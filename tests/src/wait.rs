//! Waiting until a condition holds.

use std::fmt::Display;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const DAY: Duration = Duration::from_secs(86_400);

/// Repeats until it succeeds, every 10 ms at first and every 200 ms later. `Err` holds the state
/// that was seen instead.
///
/// # Panics
/// After `within`, with the awaited state and the last one seen.
#[track_caller]
pub fn poll<T, E: Display>(within: Duration, what: &str, mut attempt: impl FnMut() -> Result<T, E>) -> T {
    let deadline = Instant::now() + within;
    let mut pause = Duration::from_millis(10);
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(state) if Instant::now() >= deadline => {
                panic!("waited {:.1} s for {what}; last seen: {state}", within.as_secs_f64())
            }
            Err(_) => std::thread::sleep(pause),
        }
        pause = (pause * 3 / 2).min(Duration::from_millis(200));
    }
}

/// Waits for the next day (UTC) if it begins within `span`, for tests whose day must not change.
pub fn stay_within_a_day(span: Duration) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    let left = left_of_day(now);
    if left < span {
        eprintln!("a day ends in {:.0} s: waiting for the next", left.as_secs_f64());
        std::thread::sleep(left);
    }
}

/// The rest of the day, and a second.
fn left_of_day(since_1970: Duration) -> Duration {
    DAY + Duration::from_secs(1) - Duration::from_secs(since_1970.as_secs() % DAY.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_left_until_midnight() {
        let left =
            |hours: u64, seconds: u64| left_of_day(Duration::from_secs(20_000 * 86_400 + hours * 3_600 + seconds));
        assert_eq!((left(0, 0), left(23, 3_590)), (DAY + Duration::from_secs(1), Duration::from_secs(11)));
    }

    #[test]
    fn the_value_is_returned_as_soon_as_it_is_there() {
        let mut count = 0;
        let value = poll(Duration::from_secs(5), "the third attempt", || {
            count += 1;
            if count == 3 { Ok(count) } else { Err(format!("attempt {count}")) }
        });
        assert_eq!(value, 3);
    }

    #[test]
    #[should_panic(expected = "waited 0.1 s for rain; last seen: sun")]
    fn the_last_state_is_told_at_the_deadline() {
        poll(Duration::from_millis(100), "rain", || Err::<(), _>("sun"));
    }
}
