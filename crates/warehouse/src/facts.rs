//! Rows of the facts that sterility is judged from.

use serde::Deserialize;

use crate::states::{Decision, IdKind, IndicatorKind, IndicatorResult, Purpose, RinseWater, Slot};

/// A consumable as it was mounted. Several rows of one mount are told apart by the caller.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Mount {
    pub tenant: String,
    pub device: String,
    pub mount_id: String,
    /// When, us since 1970.
    pub at: i64,
    pub site: String,
    /// Session it was mounted in; empty = outside a session.
    pub session_id: String,
    pub slot: Slot,
    /// The item; empty = not said.
    pub item_id: String,
    pub id_kind: IdKind,
    /// UDI device identifier; empty = not said.
    pub udi_di: String,
    /// Lot; empty = not said.
    pub lot: String,
    /// Expiry as on the label; empty = not said.
    pub expiry: String,
    /// Type designation; empty = not said.
    pub designation: String,
    /// Whether it may be reprocessed; none = not said.
    pub reusable: Option<bool>,
    /// Sterile pack; empty = not said.
    pub pack_id: String,
    /// Whether the pack was intact; none = not said.
    pub pack_intact: Option<bool>,
    /// Whether the time is the device's and its clock was never seen to be wrong in that boot.
    pub synced: bool,
}

/// Use of one mounted item in one session.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Use {
    pub tenant: String,
    pub device: String,
    /// Session; empty = outside a session.
    pub session_id: String,
    pub slot: Slot,
    /// The mount; empty = not said.
    pub mount_id: String,
    /// The item as the device knew it; empty = not said.
    pub item_id: String,
    pub site: String,
    pub injections: u64,
    pub punctures: u64,
    /// First injection, us since 1970.
    pub first_at: i64,
    /// Last injection, us since 1970.
    pub last_at: i64,
    /// Injections whose time is that of their receipt.
    pub undated: u64,
    /// Whether some of it was committed lately, see
    /// [`Warehouse::horizon`](crate::Warehouse::horizon).
    pub lately: bool,
}

/// Injections of one session and device with the same needle mount and mixture.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Shots {
    pub tenant: String,
    pub session_id: String,
    pub device: String,
    /// Mount in the needle slot; empty = none was said.
    pub needle_mount_id: String,
    /// Mixture; empty = none was said.
    pub preparation_id: String,
    pub site: String,
    /// Injections that touched the skin.
    pub injections: u64,
    /// First, us since 1970.
    pub first_at: i64,
    /// Last, us since 1970.
    pub last_at: i64,
    /// Injections whose time is that of their receipt, or of a clock that was seen to be wrong in
    /// their boot.
    pub undated: u64,
}

/// One component of a mixture.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Component {
    pub tenant: String,
    pub preparation_id: String,
    /// Use by, us since 1970; none = not said.
    pub use_by: Option<i64>,
    /// UDI device identifier; empty = not said.
    pub udi_di: String,
    /// Lot; empty = not said.
    pub lot: String,
    /// Expiry as on the label; empty = not said.
    pub expiry: String,
    /// Container; empty = not said.
    pub container_id: String,
}

/// A sterilizer's cycle, without its curve.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Cycle {
    pub tenant: String,
    pub device: String,
    pub boot_id: u64,
    /// Sequence number in the boot.
    pub seq: u64,
    pub cycle_uid: String,
    pub site: String,
    /// Start, us since 1970.
    pub at: i64,
    /// Day of the start at the site, days since 1970.
    pub day: u16,
    /// Whether the time is the sterilizer's and its clock was never seen to be wrong in that boot.
    pub synced: bool,
    /// Recipe; empty = not said.
    pub recipe: String,
    pub purpose: Purpose,
    /// Whether the load came out dry; none = not said.
    pub load_dry: Option<bool>,
    pub items: u32,
    pub samples: u32,
}

/// The curve of a cycle, in the order of its samples.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Curve {
    pub tenant: String,
    pub cycle_uid: String,
    /// Time from the start, ms; sensor; temperature, millidegrees Celsius; absolute pressure, Pa.
    pub samples: Vec<(u32, u32, Option<i32>, Option<u32>)>,
}

/// An item in the chamber.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Load {
    pub tenant: String,
    pub item_id: String,
    pub device: String,
    pub cycle_uid: String,
    /// Pack it was in; empty = not said.
    pub pack_id: String,
}

/// A reading of an indicator.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Indicator {
    pub tenant: String,
    pub cycle_uid: String,
    pub kind: IndicatorKind,
    pub result: IndicatorResult,
    /// Lot; empty = not said.
    pub lot: String,
    /// When it was read, us since 1970.
    pub at: i64,
}

/// A decision on a load.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Release {
    pub tenant: String,
    pub cycle_uid: String,
    /// When, us since 1970.
    pub at: i64,
    pub decision: Decision,
    pub actor: String,
}

/// A syringe or cartridge of which more or less left than was delivered.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Imbalance {
    pub tenant: String,
    pub site: String,
    pub device: String,
    pub mount_id: String,
    /// The item; empty = not said.
    pub item_id: String,
    pub fill_nl: i64,
    /// Used for priming, nl.
    pub primed_nl: i64,
    /// Left in it, nl.
    pub residual_nl: i64,
    pub delivered_nl: i64,
    /// fill - primed - residual - delivered, nl.
    pub balance_nl: i64,
    /// The same in percent of what left it.
    pub balance_pct: f64,
    /// When it was removed, us since 1970.
    pub removed_at: i64,
}

/// An item was cleaned.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Reprocessing {
    pub tenant: String,
    pub item_id: String,
    /// When, us since 1970.
    pub at: i64,
    /// Device that told.
    pub device: String,
    pub site: String,
    pub rinse_water: RinseWater,
}

/// A recipe in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Recipe {
    /// Tenant; empty = every tenant.
    pub tenant: String,
    pub recipe: String,
    /// Lower edge of the band, millidegrees Celsius, inclusive.
    pub temperature_min_mc: i32,
    /// Upper edge, inclusive.
    pub temperature_max_mc: i32,
    /// Least continuous time in the band, ms.
    pub hold_ms: u32,
    /// Greatest gap between samples, ms.
    pub gap_max_ms: u32,
    /// Reference temperature of F0, millidegrees Celsius.
    pub reference_mc: i32,
    /// z, thousandths of a kelvin.
    pub z_mk: u32,
    /// Whether temperature and pressure must agree.
    pub saturated_steam: bool,
    /// Whether a Bowie-Dick test of the day is required.
    pub prevacuum: bool,
}

/// A lot with its last day.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct LotExpiry {
    /// UDI device identifier.
    pub udi_di: String,
    pub lot: String,
    /// Last day of use, days since 1970.
    pub expiry: i32,
}

/// A recall that is open.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Recall {
    pub recall_id: String,
    /// UDI device identifier.
    pub udi_di: String,
    /// Lot; empty = all.
    pub lot: String,
    pub reason: String,
}

/// A policy in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Policy {
    /// Tenant; empty = every tenant without one of its own.
    pub tenant: String,
    pub name: String,
    pub value: String,
}

/// A site with a time zone that the engine knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Zone {
    pub tenant: String,
    pub site: String,
    /// IANA time zone.
    pub time_zone: String,
}
