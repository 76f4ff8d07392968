//! Rows of the facts that sterility is judged from.

use serde::Deserialize;

use crate::states::{Decision, IdKind, IndicatorKind, IndicatorResult, Purpose, RinseWater, Slot};

/// A consumable as it was mounted. Several rows of one mount are told apart by the caller.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Mount {
    pub tenant: String,
    pub device: String,
    pub mount_id: String,
    /// Time of the event, us since 1970.
    pub at: i64,
    pub site: String,
    /// Session it was mounted in; empty = outside a session.
    pub session_id: String,
    pub slot: Slot,
    /// The item, as it was sent; empty = not said.
    pub item_id: String,
    /// Identity of the item, the same for every spelling of its id; empty = not said.
    pub item_key: String,
    pub id_kind: IdKind,
    /// UDI device identifier; empty = not said.
    pub udi_di: String,
    /// Lot; empty = not reported.
    pub lot: String,
    /// Expiry as on the label; empty = not reported.
    pub expiry: String,
    /// Type designation; empty = not reported.
    pub designation: String,
    /// Whether it may be reprocessed; `None` = not reported.
    pub reusable: Option<bool>,
    /// Sterile pack; empty = not reported.
    pub pack_id: String,
    /// Whether the pack was intact; `None` = not reported.
    pub pack_intact: Option<bool>,
    /// Whether the time comes from the device and the device's clock was never found to be wrong in
    /// that boot.
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
    /// The item according to the device, as it was sent; empty = not reported.
    pub item_id: String,
    /// Identity of the item, the same for every spelling of its id; empty = not reported.
    pub item_key: String,
    pub site: String,
    pub injections: u64,
    pub punctures: u64,
    /// Time of the first injection, us since 1970.
    pub first_at: i64,
    /// Time of the last injection, us since 1970.
    pub last_at: i64,
    /// Injections whose time is the time of their receipt.
    pub undated: u64,
    /// Whether some of these injections were committed recently, see
    /// [`Warehouse::horizon`](crate::Warehouse::horizon).
    pub lately: bool,
}

/// Injections of one session and device with the same needle mount and mixture.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Shots {
    pub tenant: String,
    pub session_id: String,
    pub device: String,
    /// Mount in the needle slot; empty = not reported.
    pub needle_mount_id: String,
    /// Mixture; empty = not reported.
    pub preparation_id: String,
    pub site: String,
    /// Injections that touched the skin.
    pub injections: u64,
    /// Time of the first injection, us since 1970.
    pub first_at: i64,
    /// Time of the last injection, us since 1970.
    pub last_at: i64,
    /// Injections whose time is the time of their receipt, or comes from a clock that was found to
    /// be wrong in their boot.
    pub undated: u64,
}

/// One component of a mixture.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Component {
    pub tenant: String,
    pub preparation_id: String,
    /// Last time of use, us since 1970; `None` = not reported.
    pub use_by: Option<i64>,
    /// UDI device identifier; empty = not reported.
    pub udi_di: String,
    /// Lot; empty = not reported.
    pub lot: String,
    /// Expiry as on the label; empty = not reported.
    pub expiry: String,
    /// Container; empty = not reported.
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
    /// Day of the start at the sterilizer's site, days since 1970.
    pub day: u16,
    /// Whether the time comes from the sterilizer and its clock was never found to be wrong in that
    /// boot.
    pub synced: bool,
    /// Recipe; empty = not reported.
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
    /// Time from the start, ms; number of the sensor; temperature, millidegrees Celsius; absolute
    /// pressure, Pa.
    pub samples: Vec<(u32, u32, Option<i32>, Option<u32>)>,
}

/// An item in the chamber of a sterilizer.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Load {
    pub tenant: String,
    /// The item, as it was sent.
    pub item_id: String,
    /// Identity of the item, the same for every spelling of its id.
    pub item_key: String,
    pub device: String,
    pub cycle_uid: String,
    /// Pack that contained the item; empty = not reported.
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
    /// Time of the reading, us since 1970.
    pub at: i64,
}

/// A person's decision about a load.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Release {
    pub tenant: String,
    pub cycle_uid: String,
    /// Time of the decision, us since 1970.
    pub at: i64,
    pub decision: Decision,
    pub actor: String,
}

/// A syringe or cartridge that lost more or less volume than was delivered from it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Imbalance {
    pub tenant: String,
    pub site: String,
    pub device: String,
    pub mount_id: String,
    /// The item; empty = not reported.
    pub item_id: String,
    pub fill_nl: i64,
    /// Volume used for priming, nl.
    pub primed_nl: i64,
    /// Volume left at removal, nl.
    pub residual_nl: i64,
    pub delivered_nl: i64,
    /// fill - primed - residual - delivered, nl.
    pub balance_nl: i64,
    /// The same as a percentage of the volume that left the container.
    pub balance_pct: f64,
    /// Time of removal, us since 1970.
    pub removed_at: i64,
}

/// One reprocessing (cleaning) of an item.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Reprocessing {
    pub tenant: String,
    /// The item, as it was sent.
    pub item_id: String,
    /// Identity of the item, the same for every spelling of its id.
    pub item_key: String,
    /// Time of the reprocessing, us since 1970.
    pub at: i64,
    /// Device that reported it.
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
    /// Lower edge of the temperature band, millidegrees Celsius, inclusive.
    pub temperature_min_mc: i32,
    /// Upper edge of the temperature band, millidegrees Celsius, inclusive.
    pub temperature_max_mc: i32,
    /// Shortest continuous time in the band, ms.
    pub hold_ms: u32,
    /// Longest gap between two samples, ms.
    pub gap_max_ms: u32,
    /// Reference temperature of F0, millidegrees Celsius.
    pub reference_mc: i32,
    /// z, thousandths of a kelvin.
    pub z_mk: u32,
    /// Whether temperature and pressure must agree.
    pub saturated_steam: bool,
    /// Whether the day's Bowie-Dick test is required.
    pub prevacuum: bool,
}

/// A lot with its last day of use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct LotExpiry {
    /// UDI device identifier.
    pub udi_di: String,
    pub lot: String,
    /// Last day of use, days since 1970.
    pub expiry: i32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Recall {
    pub recall_id: String,
    /// UDI device identifier.
    pub udi_di: String,
    /// Lot; empty = all lots of the product.
    pub lot: String,
    pub reason: String,
}

/// A policy in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Policy {
    /// Tenant; empty = every tenant without a policy of its own.
    pub tenant: String,
    pub name: String,
    pub value: String,
}

/// A site with a time zone that ClickHouse knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Zone {
    pub tenant: String,
    pub site: String,
    /// IANA time zone.
    pub time_zone: String,
}
