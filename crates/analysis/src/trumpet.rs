//! Trumpet curve in the pattern of IEC 60601-2-24, with windows of shots instead of minutes: the
//! extremes of the mean error over any P consecutive shots.

use crate::error::{Error, Result, all_finite};

/// The extremes of the mean error over all windows of one length.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    /// Length of the windows, shots.
    pub shots: usize,
    /// Smallest and largest mean error, in the unit of the values; `None` if no stretch has enough
    /// shots.
    pub extremes: Option<(f64, f64)>,
}

/// The part of a shot that windows need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shot<K> {
    /// What must stay the same within a window: session, syringe, calibration, boot.
    pub context: K,
    /// Number of the shot. A jump in it is a gap, which no window crosses.
    pub seq: u64,
    /// Target, nl or um.
    pub target: u32,
    /// Measured value, in the same unit.
    pub measured: u32,
}

/// Splits shots, in their order, into stretches of errors in percent. A stretch ends where context,
/// target or numbering breaks, so windows may slide over it. A shot with a target of 0 has no
/// relative error and also ends a stretch.
pub fn stretches<K: PartialEq>(shots: &[Shot<K>]) -> Vec<Vec<f64>> {
    shots
        .chunk_by(|one, next| {
            one.context == next.context && one.target == next.target && one.seq.checked_add(1) == Some(next.seq)
        })
        .filter(|stretch| stretch[0].target > 0)
        .map(|stretch| {
            let percent =
                |shot: &Shot<K>| 100.0 * (f64::from(shot.measured) - f64::from(shot.target)) / f64::from(shot.target);
            stretch.iter().map(percent).collect()
        })
        .collect()
}

/// The curve: for each window length, the smallest and largest mean over all windows within one
/// stretch.
///
/// # Errors
/// A window of 0 shots, a value that is not finite.
pub fn curve<S: AsRef<[f64]>>(stretches: &[S], windows: &[usize]) -> Result<Vec<Window>> {
    let mut sums = Vec::with_capacity(stretches.len());
    for stretch in stretches {
        all_finite("error_pct", stretch.as_ref())?;
        sums.push(prefix_sums(stretch.as_ref()));
    }
    windows
        .iter()
        .map(|&shots| {
            if shots == 0 {
                return Err(Error::Parameter { name: "window", value: 0.0, right: "at least 1 shot" });
            }
            let mut extremes: Option<(f64, f64)> = None;
            for sums in &sums {
                for (from, to) in sums.iter().zip(sums.iter().skip(shots)) {
                    let mean = ((to.0 - from.0) + (to.1 - from.1)) / shots as f64;
                    let (least, most) = extremes.unwrap_or((mean, mean));
                    extremes = Some((least.min(mean), most.max(mean)));
                }
            }
            Ok(Window { shots, extremes })
        })
        .collect()
}

/// Sums of the first 0, 1, 2, ... values, each with its rounding error (Neumaier 1974). The
/// difference of two late sums is then as precise as the sum of the values between.
fn prefix_sums(values: &[f64]) -> Vec<(f64, f64)> {
    let (mut sum, mut rest) = (0.0f64, 0.0f64);
    let mut sums = Vec::with_capacity(values.len() + 1);
    sums.push((sum, rest));
    for &value in values {
        let next = sum + value;
        rest += if sum.abs() >= value.abs() { (sum - next) + value } else { (value - next) + sum };
        sum = next;
        sums.push((sum, rest));
    }
    sums
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shot(context: u8, seq: u64, target: u32, measured: u32) -> Shot<u8> {
        Shot { context, seq, target, measured }
    }

    #[test]
    fn no_window_crosses_a_break() {
        let shots = [
            shot(1, 1, 100, 101),
            shot(1, 2, 100, 99),
            shot(1, 4, 100, 102), // after a gap
            shot(2, 5, 100, 103), // another session
            shot(2, 6, 200, 206), // another set point
            shot(2, 7, 0, 5),     // no relative error
            shot(2, 8, 200, 210),
        ];
        assert_eq!(stretches(&shots), [vec![1.0, -1.0], vec![2.0], vec![3.0], vec![3.0], vec![5.0]]);
    }

    #[test]
    fn extremes_by_window() {
        let curve = curve(&[vec![1.0, -1.0, 4.0], vec![2.0]], &[1, 2, 3, 4]).unwrap();
        let extremes: Vec<_> = curve.iter().map(|window| window.extremes).collect();
        assert_eq!(extremes, [Some((-1.0, 4.0)), Some((0.0, 1.5)), Some((4.0 / 3.0, 4.0 / 3.0)), None]);
        assert!(super::curve(&[vec![1.0]], &[0]).is_err());
        assert!(super::curve(&[vec![f64::NAN]], &[1]).is_err());
    }

    proptest! {
        #[test]
        fn sliding_equals_summing(values in prop::collection::vec(-1e6f64..1e6, 1..60), shots in 1usize..20) {
            let window = curve(&[&values], &[shots]).unwrap()[0];
            let means = values.windows(shots).map(|window| window.iter().sum::<f64>() / shots as f64);
            let expected = means.fold(None, |extremes: Option<(f64, f64)>, mean| {
                let (least, most) = extremes.unwrap_or((mean, mean));
                Some((least.min(mean), most.max(mean)))
            });
            match (window.extremes, expected) {
                (Some(ours), Some(theirs)) => {
                    prop_assert!((ours.0 - theirs.0).abs() < 1e-8 && (ours.1 - theirs.1).abs() < 1e-8);
                }
                (ours, theirs) => prop_assert_eq!(ours, theirs),
            }
        }
    }
}
