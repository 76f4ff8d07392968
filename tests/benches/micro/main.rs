//! `cargo bench --bench micro [NAME..]` prints the time of each case whose name contains one of the
//! names. A case is a line of JSON on standard output,
//! `{"case":"decode/10","unit":"report","ns":812.4,"ns_least":801.0}`: ns of one unit, as median
//! and least of the samples.

mod cases;
mod inputs;

use std::time::{Duration, Instant};

const SAMPLES: usize = 31;
const SAMPLE: Duration = Duration::from_millis(10);

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    for name in cases::NAMES {
        if !wanted.is_empty() && !wanted.iter().any(|wanted| name.contains(wanted)) {
            continue;
        }
        let mut case = cases::case(name);
        let samples = samples(&mut case);
        println!(
            r#"{{"case":"{name}","unit":"{}","ns":{:.1},"ns_least":{:.1}}}"#,
            case.unit,
            samples[SAMPLES / 2],
            samples[0]
        );
    }
}

/// Samples of one case, ns of one unit, ascending.
fn samples(case: &mut cases::Case) -> [f64; SAMPLES] {
    let mut samples = [0.0; SAMPLES];
    // The first sample is a warm-up.
    for index in 0..=SAMPLES {
        let (began, mut runs) = (Instant::now(), 0);
        while began.elapsed() < SAMPLE {
            (case.run)();
            runs += 1;
        }
        samples[index.saturating_sub(1)] = began.elapsed().as_nanos() as f64 / (runs * case.events) as f64;
    }
    samples.sort_by(f64::total_cmp);
    samples
}
