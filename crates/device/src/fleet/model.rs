//! The device models of a fleet.

use telemetry::v1::{DepthSource, DoseSource, Mode};

/// Model of the sterilizers.
pub const STERILIZER_MODEL: &str = "autoclave-b23";
/// Model of the calibration benches.
pub const BENCH_MODEL: &str = "gravibench-1";

/// A model of injection device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Model {
    /// Name of the model, as reports carry it.
    pub name: &'static str,
    /// Dose set points, nl; empty if it does not dose.
    pub doses_nl: &'static [u64],
    /// Depth set points, um; empty if it does not know the depth.
    pub depths_um: &'static [u32],
    /// Source of the measured dose.
    pub dose_source: DoseSource,
    /// Source of the measured depth.
    pub depth_source: DepthSource,
    pub mode: Mode,
    /// Number of needles of the head.
    pub needles: u32,
    /// Gauge of the needles, G.
    pub gauge: u32,
    /// Standard deviation of the dose within a session, as a fraction.
    pub dose_sd: f64,
    /// Standard deviation of the depth, um.
    pub depth_sd_um: f64,
    /// Volume of a full syringe, nl.
    pub fill_nl: u64,
    /// Whether it uses vacuum.
    pub has_vacuum: bool,
}

const MESOGUN: Model = Model {
    name: "mesogun-2",
    doses_nl: &[10_000, 20_000, 50_000],
    depths_um: &[2_000, 4_000],
    dose_source: DoseSource::Encoder,
    depth_source: DepthSource::Encoder,
    mode: Mode::Single,
    needles: 1,
    gauge: 30,
    dose_sd: 0.02,
    depth_sd_um: 60.0,
    fill_nl: 5_000_000,
    has_vacuum: false,
};

const VACUJECT: Model = Model {
    name: "vacuject-5",
    doses_nl: &[25_000, 50_000],
    depths_um: &[1_500],
    dose_source: DoseSource::Flow,
    depth_source: DepthSource::Force,
    mode: Mode::Burst,
    needles: 5,
    gauge: 32,
    dose_sd: 0.025,
    depth_sd_um: 50.0,
    fill_nl: 5_000_000,
    has_vacuum: true,
};

const DERMAPEN: Model = Model {
    name: "dermapen-x",
    doses_nl: &[],
    depths_um: &[500, 1_000, 1_500],
    dose_source: DoseSource::Unspecified,
    depth_source: DepthSource::Optical,
    mode: Mode::Continuous,
    needles: 12,
    gauge: 32,
    dose_sd: 0.0,
    depth_sd_um: 35.0,
    fill_nl: 0,
    has_vacuum: false,
};

const PAPULA: Model = Model {
    name: "papula-1",
    doses_nl: &[1_000, 2_000],
    depths_um: &[],
    dose_source: DoseSource::Force,
    depth_source: DepthSource::Unspecified,
    mode: Mode::Single,
    needles: 1,
    gauge: 32,
    dose_sd: 0.03,
    depth_sd_um: 0.0,
    fill_nl: 1_000_000,
    has_vacuum: false,
};

/// It repeats its setting instead of measuring, so verdicts leave it out.
const SETTER: Model = Model {
    name: "mesogun-0",
    dose_source: DoseSource::Setting,
    depth_source: DepthSource::Setting,
    dose_sd: 0.0,
    depth_sd_um: 0.0,
    ..MESOGUN
};

impl Model {
    /// The model of the injection device with this number.
    pub fn of(ordinal: u32) -> &'static Self {
        const FLEET: [&Model; 10] =
            [&MESOGUN, &MESOGUN, &VACUJECT, &PAPULA, &MESOGUN, &VACUJECT, &DERMAPEN, &MESOGUN, &PAPULA, &SETTER];
        FLEET[ordinal as usize % FLEET.len()]
    }
}
