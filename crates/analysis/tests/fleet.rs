//! A simulated fleet over a year. It tests the alarm budget with parameters estimated as in
//! practice, detection delays against the predicted run lengths, and forecasts against the true
//! crossing. `docs/analysis.md` has the tables that these tests print.

#![allow(clippy::unwrap_used, reason = "a failed expectation is how a test fails")]

use analysis::{
    Side, arl,
    budget::{Budget, Shares, Thresholds},
    chart::{Chart, Point},
    cusum,
    forecast::{Forecast, Rule, forecast},
    standard::{self, Centre, Session, Source, Spread},
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Standard deviations in percent: between sessions, between shots, of the error that a calibration
/// leaves.
const BETWEEN: f64 = 0.8;
const WITHIN: f64 = 2.5;
const AS_LEFT: f64 = 0.5;

const POINTS_PER_DAY: usize = 5;
const DAYS: usize = 365;
const DEVICES: usize = 300;
const PHASE_I: usize = 20;

fn normal(random: &mut ChaCha8Rng) -> f64 {
    let (one, other): (f64, f64) = (random.random(), random.random());
    (-2.0 * (1.0 - one).ln()).sqrt() * (std::f64::consts::TAU * other).cos()
}

/// A change of a device from a day on.
#[derive(Clone, Copy)]
struct Fate {
    from_day: f64,
    percent_a_day: f64,
    step_percent: f64,
}

const HEALTHY: Fate = Fate { from_day: 0.0, percent_a_day: 0.0, step_percent: 0.0 };

/// The sessions of a device, and the error that its calibration left.
struct Device {
    as_left: f64,
    sessions: Vec<Session>,
}

fn day_of(session: usize) -> f64 {
    (session + 1) as f64 / POINTS_PER_DAY as f64
}

fn device(random: &mut ChaCha8Rng, fate: Fate, days: usize) -> Device {
    let as_left = AS_LEFT * normal(random);
    let sessions = (0..days * POINTS_PER_DAY)
        .map(|index| {
            let shots = random.random_range(10..=50);
            let since = day_of(index) - fate.from_day;
            let moved = if since > 0.0 { fate.step_percent + fate.percent_a_day * since } else { 0.0 };
            let spread = (BETWEEN * BETWEEN + WITHIN * WITHIN / shots as f64).sqrt();
            // The variance within a session: a chi-square distribution, approximated as normal.
            let df = (shots - 1) as f64;
            let variance = WITHIN * WITHIN * (1.0 + (2.0 / df).sqrt() * normal(random)).max(0.05);
            Session { mean: as_left + moved + spread * normal(random), variance: Some(variance), shots }
        })
        .collect();
    Device { as_left, sessions }
}

fn fleet(seed: u64, fate: Fate, devices: usize, days: usize) -> Vec<Device> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    (0..devices).map(|_| device(&mut random, fate, days)).collect()
}

/// The spread of the model, from phase I of a fleet.
fn pooled(fleet: &[Device]) -> Spread {
    standard::pool(fleet.iter().map(|device| &device.sessions[..PHASE_I])).unwrap()
}

fn thresholds(false_alarms: f64) -> Thresholds {
    let shares = Shares::default();
    let budget = Budget { false_alarms, points_per_day: POINTS_PER_DAY as f64, channels: 1, bands: 1, shares };
    budget.thresholds(0.5, false, 0.1).unwrap()
}

#[derive(Default, Debug)]
struct Alarms {
    cusum: u32,
    ewma: u32,
    spike: u32,
    forecast: u32,
}

impl Alarms {
    fn count(&mut self, point: &Point) {
        self.cusum += u32::from(point.cusum.is_some_and(|point| point.signal.is_some()));
        self.ewma += u32::from(point.ewma.is_some_and(|point| point.signal.is_some()));
        self.spike += u32::from(point.spike.is_some());
    }

    fn all(&self) -> u32 {
        self.cusum + self.ewma + self.spike + self.forecast
    }
}

/// All alarms of a device over its sessions. A forecast is made daily and alarms once.
fn alarms(device: &Device, centre: Centre, spread: Spread, thresholds: &Thresholds, alarms: &mut Alarms) {
    let mut chart = Chart::new(&thresholds.settings(centre, spread).unwrap()).unwrap();
    let days: Vec<f64> = (0..device.sessions.len()).map(day_of).collect();
    let errors: Vec<f64> = device.sessions.iter().map(|session| session.mean).collect();
    let mut forecast_alarmed = false;
    for (index, session) in device.sessions.iter().enumerate() {
        alarms.count(&chart.add(session.mean, session.shots).unwrap());
        let end = index + 1;
        if chart.drift().is_some() && !forecast_alarmed && end % POINTS_PER_DAY == 0 {
            let forecast = forecast(&days[..end], &errors[..end], 5.0, true, &Rule::default()).unwrap();
            if let Forecast::Crossing { alarm: true, .. } = forecast {
                forecast_alarmed = true;
                alarms.forecast += 1;
            }
        }
    }
}

/// The interval of a Poisson count with this mean, at 95 %.
fn poisson_interval(mean: f64) -> (u32, u32) {
    let (mut probability, mut below, mut count) = ((-mean).exp(), 0.0, 0);
    let mut low = None;
    loop {
        below += probability;
        if below > 0.025 && low.is_none() {
            low = Some(count);
        }
        if below >= 0.975 {
            return (low.unwrap_or(0), count);
        }
        count += 1;
        probability *= mean / f64::from(count);
    }
}

#[test]
fn the_budget_is_kept_with_estimated_parameters() {
    // Five fleets of 300 devices for a year, with 0.2 false alarms per device: 300 are allowed.
    let budget = 0.2;
    let allowed = poisson_interval(budget * (5 * DEVICES) as f64);
    let thresholds = thresholds(budget);
    for source in [Source::Pooled, Source::SelfStarting] {
        for known_centre in [false, true] {
            let mut counted = Alarms::default();
            for seed in 0..5 {
                let fleet = fleet(100 + seed, HEALTHY, DEVICES, DAYS);
                let spread = Spread { source, ..pooled(&fleet) };
                for device in &fleet {
                    let centre = if known_centre { Centre::AsLeft(device.as_left) } else { Centre::PhaseI };
                    alarms(device, centre, spread, &thresholds, &mut counted);
                }
            }
            println!("{source:?}, centre known {known_centre}: {counted:?} = {}, allowed {allowed:?}", counted.all());
            assert!(counted.all() <= allowed.1, "{counted:?} exceed the budget of {allowed:?}");
            assert!(counted.all() >= allowed.0, "{counted:?} waste the budget of {allowed:?}");
        }
    }
}

/// The mistake that the charts avoid: centre and sigma estimated once from 20 sessions and then
/// used for ever.
#[test]
fn frozen_estimates_break_the_budget() {
    let thresholds = thresholds(0.2);
    let mut counted = Alarms::default();
    for device in &fleet(100, HEALTHY, DEVICES, DAYS) {
        let (first, rest) = device.sessions.split_at(PHASE_I);
        let mean = first.iter().map(|session| session.mean).sum::<f64>() / PHASE_I as f64;
        let squares: f64 = first.iter().map(|session| (session.mean - mean).powi(2)).sum();
        let sd = (squares / (PHASE_I - 1) as f64).sqrt();
        let frozen = Spread { between: sd, within: 0.0, source: Source::Pooled };
        let rest = Device { as_left: device.as_left, sessions: rest.to_vec() };
        alarms(&rest, Centre::AsLeft(mean), frozen, &thresholds, &mut counted);
    }
    println!("frozen estimates: {counted:?} = {} of 60", counted.all());
    assert!(counted.all() > 300, "{counted:?}");
}

/// Points from the change to the first signal on the right side, for CUSUM, EWMA and either.
fn delays(fate: Fate, source: Source, known_centre: bool, seed: u64) -> [Vec<f64>; 3] {
    let thresholds = thresholds(0.2);
    let spread = Spread { source, ..pooled(&fleet(seed, HEALTHY, DEVICES, 5)) };
    let mut delays = [vec![], vec![], vec![]];
    for device in &fleet(seed + 1, fate, 300, 2 * DAYS) {
        let centre = if known_centre { Centre::AsLeft(device.as_left) } else { Centre::PhaseI };
        let mut chart = Chart::new(&thresholds.settings(centre, spread).unwrap()).unwrap();
        let changed = (fate.from_day * POINTS_PER_DAY as f64) as usize;
        let mut first = [None; 2];
        for (index, session) in device.sessions.iter().enumerate() {
            let point = chart.add(session.mean, session.shots).unwrap();
            let signals = [point.cusum.and_then(|point| point.signal), point.ewma.and_then(|point| point.signal)];
            for (first, signal) in first.iter_mut().zip(signals) {
                if index >= changed && first.is_none() && signal == Some(Side::Upper) {
                    *first = Some((index + 1 - changed) as f64);
                }
            }
            if first.iter().all(Option::is_some) {
                break;
            }
        }
        let [cusum, ewma] = first.map(|first| first.unwrap_or((device.sessions.len() - changed) as f64));
        for (delays, delay) in delays.iter_mut().zip([cusum, ewma, cusum.min(ewma)]) {
            delays.push(delay);
        }
    }
    delays
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[test]
fn detection_delays_are_those_that_the_run_lengths_predict() {
    let sigma = (BETWEEN * BETWEEN + WITHIN * WITHIN * mean_inverse_shots()).sqrt();
    let thresholds = thresholds(0.2);
    let (cusum, ewma) = (thresholds.cusum.unwrap(), thresholds.ewma.unwrap());
    println!("sigma {sigma:.3} %, h {:.3}, limit {:.3}", cusum.h, ewma.limit);
    for (name, percent_a_day, step_percent) in
        [("0.02 %/day", 0.02, 0.0), ("0.1 %/day", 0.1, 0.0), ("2 % step", 0.0, 2.0)]
    {
        let fate = Fate { from_day: 60.0, percent_a_day, step_percent };
        let drift = percent_a_day / POINTS_PER_DAY as f64 / sigma;
        let limits = arl::EwmaLimits::Fixed;
        let predicted = if drift > 0.0 {
            [arl::cusum_drift(&cusum, drift).unwrap(), arl::ewma_drift(&ewma, limits, drift).unwrap()]
        } else {
            [arl::cusum(&cusum, step_percent / sigma).unwrap(), arl::ewma(&ewma, limits, step_percent / sigma).unwrap()]
        };
        println!("{name}: predicted CUSUM {:.1}, EWMA {:.1} points", predicted[0], predicted[1]);
        for (source, known_centre) in [(Source::Pooled, true), (Source::Pooled, false), (Source::SelfStarting, false)] {
            let [by_cusum, by_ewma, either] = delays(fate, source, known_centre, 900).map(|delays| mean(&delays));
            println!(
                "  {source:?}, centre known {known_centre}: CUSUM {by_cusum:.1}, EWMA {by_ewma:.1}, either {either:.1} points = {:.1} days",
                either / POINTS_PER_DAY as f64
            );
            if known_centre {
                for (simulated, predicted) in [by_cusum, by_ewma].into_iter().zip(predicted) {
                    // The charts have run for 60 days, so they are a few points ahead of a chart
                    // that starts with the change.
                    assert!((simulated - predicted).abs() < 0.08 * predicted + 0.7, "{simulated} and {predicted}");
                }
            } else {
                assert!(either < 3.0 * predicted[0] + 10.0, "{either}");
            }
        }
    }
}

fn mean_inverse_shots() -> f64 {
    (10..=50).map(|shots| 1.0 / f64::from(shots)).sum::<f64>() / 41.0
}

/// 30 of 300 devices change. The test counts the changes that are found and the false alarms
/// besides.
#[test]
fn thirty_of_three_hundred_devices() {
    let thresholds = thresholds(0.2);
    let healthy = fleet(7, HEALTHY, DEVICES - 30, DAYS);
    let spread = pooled(&healthy);
    let mut false_alarms = Alarms::default();
    healthy.iter().for_each(|device| alarms(device, Centre::PhaseI, spread, &thresholds, &mut false_alarms));
    println!("270 healthy devices: {false_alarms:?} of 54 allowed");
    assert!(false_alarms.all() <= poisson_interval(54.0).1, "{false_alarms:?}");
    for (name, percent_a_day, step_percent) in
        [("0.02 %/day", 0.02, 0.0), ("0.1 %/day", 0.1, 0.0), ("2 % step", 0.0, 2.0)]
    {
        let changed = fleet(8, Fate { from_day: 60.0, percent_a_day, step_percent }, 30, DAYS);
        let mut found = 0;
        for device in &changed {
            let mut alarmed = Alarms::default();
            alarms(device, Centre::PhaseI, spread, &thresholds, &mut alarmed);
            found += u32::from(alarmed.cusum + alarmed.ewma > 0);
        }
        println!("{name}: {found} of 30 found within the year");
        assert!(found >= 29, "{name}: {found}");
    }
}

/// The interval of the first allowed forecast, and of one two weeks later, against the true
/// crossing.
#[test]
fn forecasts_cover_the_true_crossing() {
    let thresholds = thresholds(0.2);
    let (mut first_covered, mut later_covered, mut given, mut late) = (0, 0, 0, 0);
    let mut random = ChaCha8Rng::seed_from_u64(5);
    let spread = pooled(&fleet(6, HEALTHY, DEVICES, 5));
    for _ in 0..200 {
        let slope = random.random_range(0.03..0.1);
        let device = device(&mut random, Fate { from_day: 0.0, percent_a_day: slope, step_percent: 0.0 }, 160);
        let truth = (5.0 - device.as_left) / slope;
        let mut chart = Chart::new(&thresholds.settings(Centre::AsLeft(0.0), spread).unwrap()).unwrap();
        let days: Vec<f64> = (0..device.sessions.len()).map(day_of).collect();
        let errors: Vec<f64> = device.sessions.iter().map(|session| session.mean).collect();
        let mut first = None;
        for (index, session) in device.sessions.iter().enumerate() {
            chart.add(session.mean, session.shots).unwrap();
            let end = index + 1;
            if end % POINTS_PER_DAY != 0 {
                continue;
            }
            let signalled = chart.drift().is_some();
            let asked = forecast(&days[..end], &errors[..end], 5.0, signalled, &Rule::default()).unwrap();
            let Forecast::Crossing { at, .. } = asked else { continue };
            let covered = i32::from(at.low <= truth && truth <= at.high);
            match first {
                None => {
                    first = Some(end);
                    given += 1;
                    first_covered += covered;
                }
                Some(then) if end == then + 14 * POINTS_PER_DAY => {
                    late += 1;
                    later_covered += covered;
                    break;
                }
                Some(_) => {}
            }
        }
    }
    println!("first forecast: {first_covered} of {given} cover; two weeks later: {later_covered} of {late}");
    assert!(given >= 195 && late >= 190, "{given} {late}");
    assert!(f64::from(first_covered) >= 0.88 * f64::from(given), "{first_covered} of {given}");
    assert!(f64::from(later_covered) >= 0.90 * f64::from(late), "{later_covered} of {late}");
}

/// Without the rule, a third of all healthy devices would get a forecast within half a year.
#[test]
fn forecasts_without_the_chart_would_cry_wolf() {
    let rule = Rule { horizon_days: 365.0, ..Rule::default() };
    let mut cried = 0;
    for device in &fleet(12, HEALTHY, 60, 180) {
        let days: Vec<f64> = (0..device.sessions.len()).map(day_of).collect();
        let errors: Vec<f64> = device.sessions.iter().map(|session| session.mean).collect();
        cried += u32::from((14..180).any(|day| {
            let end = day * POINTS_PER_DAY;
            let asked = forecast(&days[..end], &errors[..end], 5.0, true, &rule).unwrap();
            matches!(asked, Forecast::Crossing { alarm: true, .. })
        }));
    }
    println!("{cried} of 60 healthy devices, asked daily without a signal");
    assert!(cried >= 15, "{cried}");
}

/// A chart is solved for 10,000 points, and its centre and sigma come from m sessions only. Its
/// mean rate of alarms is that of a chart with about 340, 1,230 and 4,900.
#[test]
fn what_estimation_costs() {
    let design = cusum::Design { k: 0.5, h: 8.053, fast_start: false };
    let mut random = ChaCha8Rng::seed_from_u64(3);
    for (sessions, expected) in [(20u32, 340.0), (50, 1_230.0), (200, 4_900.0)] {
        let m = f64::from(sessions);
        let mut rates = 0.0;
        let rounds = 2_000;
        for _ in 0..rounds {
            let shift = normal(&mut random) / m.sqrt();
            let chi: f64 = (0..sessions - 1).map(|_| normal(&mut random).powi(2)).sum();
            // In units of the true sigma, the chart's k and h scale with the estimate.
            let scale = (chi / (m - 1.0)).sqrt();
            let real = cusum::Design { k: design.k * scale, h: design.h * scale, fast_start: false };
            let arl = arl::cusum(&real, shift).unwrap_or(f64::INFINITY);
            rates += 1.0 / arl;
        }
        let real = f64::from(rounds) / rates;
        println!("{sessions} sessions: {real:.0}");
        assert!((real / expected - 1.0).abs() < 0.15, "{sessions} sessions: {real} instead of {expected}");
    }
}
