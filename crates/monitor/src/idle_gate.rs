//! Whether a pass can find anything that the last one did not find.

/// Longest time without a pass, us. Some conditions become true by time alone, such as an overdue
/// calibration or a silent device; their alerts come at most this much later.
const IDLE_US: u64 = 60_000_000;

/// What the monitor knows of the content of the warehouse.
#[derive(Default)]
pub(crate) struct IdleGate {
    /// Digest of the content, and when it was first seen, us since 1970.
    digest: Option<(u64, i64)>,
    /// Start of the last pass that finished, us since 1970.
    passed_at: i64,
}

impl IdleGate {
    /// Notes the content at `now`, before a pass. Returns whether the pass can be left out: the
    /// content is unchanged, and the last pass began more than `late` after the last change and
    /// less than [`IDLE_US`] ago.
    pub fn may_idle(&mut self, digest: u64, now: i64, late: i64) -> bool {
        match self.digest {
            Some((known, since)) if known == digest => {
                self.passed_at.saturating_sub(since) > late && now.abs_diff(self.passed_at) < IDLE_US
            }
            _ => {
                self.digest = Some((digest, now));
                false
            }
        }
    }

    /// A pass that began at `now` has finished.
    pub fn passed(&mut self, now: i64) {
        self.passed_at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i64 = 1_000_000;
    const LATE: i64 = 5 * S;

    /// The times, s, at which a monitor that looks every 2 s makes a pass. `digest` is the content
    /// at a time.
    fn passes(until: i64, digest: impl Fn(i64) -> u64) -> Vec<i64> {
        let mut gate = IdleGate::default();
        (1..)
            .step_by(2)
            .take_while(|at| *at < until)
            .filter(|at| {
                let pass = !gate.may_idle(digest(*at), at * S, LATE);
                if pass {
                    gate.passed(at * S);
                }
                pass
            })
            .collect()
    }

    #[test]
    fn unchanged_content_is_judged_until_nothing_can_be_late_and_then_once_a_minute() {
        assert_eq!(passes(140, |_| 7), [1, 3, 5, 7, 67, 127]);
    }

    #[test]
    fn changed_content_is_judged_at_once() {
        assert_eq!(passes(60, |at| u64::from(at > 30)), [1, 3, 5, 7, 31, 33, 35, 37]);
        assert_eq!(passes(20, |at| at as u64), [1, 3, 5, 7, 9, 11, 13, 15, 17, 19]);
    }

    #[test]
    fn a_pass_that_failed_is_repeated() {
        let mut gate = IdleGate::default();
        assert!(!gate.may_idle(7, S, LATE));
        gate.passed(S);
        assert!(!gate.may_idle(7, 9 * S, LATE));
        assert!(!gate.may_idle(7, 11 * S, LATE), "the pass at 9 s has not finished");
    }

    #[test]
    fn a_clock_that_is_set_back_opens_the_gate() {
        let mut gate = IdleGate::default();
        gate.may_idle(7, 1_000 * S, LATE);
        gate.passed(1_010 * S);
        assert!(gate.may_idle(7, 1_011 * S, LATE));
        assert!(!gate.may_idle(7, 900 * S, LATE));
    }
}
