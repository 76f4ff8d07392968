//! What every rule needs: limits by policy, time, and the form of a verdict.

use std::collections::HashMap;

use analysis::gs1;
use serde_json::{Value, json};
use warehouse::{
    sterility::{Component, Mount, Recall, Recipe, Registry, quoted},
    verdicts::Verdict,
};

/// Version of the rules; a change makes the monitor evaluate everything again.
pub const RULE_VERSION: u32 = 2;

/// Version since which curves are judged as today: such a judgement stands without its samples,
/// which may be deleted.
pub(super) const CURVES_SINCE: u32 = 1;

/// Hours after a use within which the decision on its cycle is awaited, where no policy says
/// otherwise.
const RELEASE_HOURS: u64 = 48;
/// Days between two biological tests, where no policy says otherwise.
const BIOLOGICAL_DAYS: u64 = 7;

/// One hour, us.
pub(crate) const HOUR_US: i64 = 3_600_000_000;

/// Time as the rules see it.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Now, us since 1970.
    pub now: i64,
    /// How long after a use, and after it has arrived, its sterilizer's data are awaited before
    /// their absence means anything, us.
    pub late: i64,
    /// How much later than the truth a device's time may be, us.
    pub ahead: i64,
    /// How much later than the truth a time of receipt may be, us.
    pub age: i64,
}

impl Clock {
    /// Whether something that was last used at `last_at`, us since 1970, was used after its last
    /// good moment, `until`; none = it was not. `is_dated`: the time is the device's, and not that
    /// of receipt. No use is later than its time, but it may be earlier by as much as that time is
    /// uncertain.
    pub(crate) fn used_after(&self, until: i64, last_at: i64, is_dated: bool) -> Option<State> {
        let uncertain = if is_dated { self.ahead } else { self.age };
        (last_at > until).then(|| State::sure(last_at.saturating_sub(uncertain) > until))
    }
}

/// The registry, looked up.
pub struct Book {
    recipes: HashMap<(String, String), Recipe>,
    recalls: HashMap<String, Vec<Recall>>,
    expiries: HashMap<(String, String), i64>,
    policies: HashMap<(String, String), String>,
}

/// Recipes that are known by their usual names without being registered: hold band 0/+3 K, hold
/// time, prevacuum.
const USUAL: [(&str, i32, u32, bool); 5] = [
    ("134C-3min", 134_000, 180_000, true),
    ("134C-3.5min-BD", 134_000, 210_000, true),
    ("132C-4min", 132_000, 240_000, true),
    ("121C-15min", 121_000, 900_000, false),
    ("121C-30min", 121_000, 1_800_000, false),
];

/// What a label says of product and lot, as they are compared: the same for every way of writing a
/// GTIN. What stands in the tables stays as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// See [`gs1::product`]; empty = not said.
    pub product: String,
    /// See [`gs1::lot`]; empty = not said.
    pub lot: String,
}

impl Label {
    /// Of a mount; a full element string that was scanned as the item's id says product and lot as
    /// well.
    pub fn of(mount: &Mount) -> Self {
        Self::among([&mount.udi_di, &mount.item_id], &mount.lot)
    }

    /// Of a component of a mixture.
    pub fn of_component(component: &Component) -> Self {
        Self::among([&component.udi_di, &component.container_id], &component.lot)
    }

    fn among([udi_di, id]: [&str; 2], lot: &str) -> Self {
        let in_strings = |ai: &str| [udi_di, id].iter().find_map(|text| gs1::part(text, ai));
        let said = |text: String, ai: &str| if text.is_empty() { in_strings(ai).unwrap_or_default() } else { text };
        Self { product: said(gs1::product(udi_di), "01"), lot: said(gs1::lot(lot), "10") }
    }
}

/// The name of a policy, with its type as it is compared.
fn by_type(name: &str) -> String {
    match name.split_once(':') {
        Some((name, of_type)) => format!("{name}:{}", gs1::product(of_type)),
        None => name.to_owned(),
    }
}

impl Book {
    /// Sorts a registry.
    pub fn new(registry: &Registry) -> Self {
        let usual = USUAL.iter().map(|(name, least, hold_ms, prevacuum)| Recipe {
            tenant: String::new(),
            recipe: (*name).to_owned(),
            temperature_min_mc: *least,
            temperature_max_mc: least + 3_000,
            hold_ms: *hold_ms,
            gap_max_ms: 15_000,
            reference_mc: 121_100,
            z_mk: 10_000,
            saturated_steam: true,
            prevacuum: *prevacuum,
        });
        let recipes = usual.chain(registry.recipes.iter().cloned());
        let mut recalls: HashMap<String, Vec<Recall>> = HashMap::new();
        for recall in &registry.recalls {
            recalls.entry(gs1::product(&recall.udi_di)).or_default().push(recall.clone());
        }
        Self {
            recipes: recipes.map(|recipe| ((recipe.tenant.clone(), recipe.recipe.clone()), recipe)).collect(),
            recalls,
            expiries: registry
                .lots
                .iter()
                .map(|lot| ((gs1::product(&lot.udi_di), gs1::lot(&lot.lot)), i64::from(lot.expiry)))
                .collect(),
            policies: registry
                .policies
                .iter()
                .map(|policy| ((policy.tenant.clone(), by_type(&policy.name)), policy.value.clone()))
                .collect(),
        }
    }

    /// The recipe of a name: the tenant's own, one for every tenant, or a usual one.
    pub fn recipe(&self, tenant: &str, name: &str) -> Option<&Recipe> {
        let of = |tenant: &str| self.recipes.get(&(tenant.to_owned(), name.to_owned()));
        of(tenant).or_else(|| of(""))
    }

    /// Open recalls of a product's lot, and whether each is certain: a lot without its product may
    /// be another's.
    pub fn recalls(&self, label: &Label) -> Vec<(&Recall, bool)> {
        let Label { product, lot } = label;
        let is_lot = |recall: &&Recall| !lot.is_empty() && gs1::lot(&recall.lot) == *lot;
        let concerns = |recall: &&Recall| recall.lot.is_empty() || is_lot(recall);
        if product.is_empty() {
            let all = self.recalls.values().flatten().filter(is_lot);
            let mut found: Vec<_> = all.map(|recall| (recall, false)).collect();
            found.sort_by(|left, right| left.0.recall_id.cmp(&right.0.recall_id));
            return found;
        }
        let of_product = self.recalls.get(product).into_iter().flatten();
        of_product.filter(concerns).map(|recall| (recall, true)).collect()
    }

    /// Last day of use of a registered lot, days since 1970.
    pub fn expiry(&self, label: &Label) -> Option<i64> {
        self.expiries.get(&(label.product.clone(), label.lot.clone())).copied()
    }

    fn policy(&self, tenant: &str, name: &str) -> Option<&str> {
        let of = |tenant: &str| self.policies.get(&(tenant.to_owned(), name.to_owned()));
        of(tenant).or_else(|| of("")).map(String::as_str)
    }

    fn number(&self, tenant: &str, name: &str) -> Option<u64> {
        self.policy(tenant, name).and_then(|value| value.trim().parse().ok())
    }

    /// A limit for a type of item, else for all.
    fn limit(&self, tenant: &str, name: &str, mount: Option<&Mount>) -> Option<u64> {
        let special = mount.and_then(|mount| {
            let by =
                |what: String| (!what.is_empty()).then(|| self.number(tenant, &format!("{name}:{what}"))).flatten();
            by(Label::of(mount).product).or_else(|| by(gs1::product(&mount.designation)))
        });
        special.or_else(|| self.number(tenant, name))
    }

    /// `sterility.release_hours`: how long a decision on a load may take after its use before that
    /// use is a breach.
    pub fn release_hours(&self, tenant: &str) -> u64 {
        self.number(tenant, "sterility.release_hours").unwrap_or(RELEASE_HOURS)
    }

    /// `sterility.biological_days`: days between two biological tests; 0 = not required.
    pub fn biological_days(&self, tenant: &str) -> u64 {
        self.number(tenant, "sterility.biological_days").unwrap_or(BIOLOGICAL_DAYS)
    }

    /// `sterility.bowie_dick`: whether a Bowie-Dick test is required each day before the first
    /// prevacuum load.
    pub fn bowie_dick(&self, tenant: &str) -> bool {
        self.policy(tenant, "sterility.bowie_dick").is_none_or(|value| value != "off")
    }

    /// `sterility.reprocessings_max[:TYPE]`: how often an item may be reprocessed; none = no limit
    /// is known.
    pub fn reprocessings_max(&self, tenant: &str, mount: Option<&Mount>) -> Option<u64> {
        self.limit(tenant, "sterility.reprocessings_max", mount)
    }

    /// `sterility.punctures_max[:TYPE]`: punctures a needle is good for; none = no limit is known.
    pub fn punctures_max(&self, tenant: &str, mount: Option<&Mount>) -> Option<u64> {
        self.limit(tenant, "sterility.punctures_max", mount)
    }
}

/// One severity less.
pub(crate) fn lesser(severity: &str) -> &'static str {
    match severity {
        "critical" => "high",
        "high" => "medium",
        _ => "low",
    }
}

/// What a rule found, before it is a row.
pub(crate) struct Finding<'a> {
    pub tenant: &'a str,
    pub unit: &'a str,
    pub rule: u8,
    /// What tells it apart from others of the rule in the unit.
    pub key: String,
    /// What its alert is about, behind rule and tenant.
    pub subject: String,
    pub state: State,
    /// Severity if it is confirmed.
    pub severity: &'a str,
    pub reason: String,
    pub evidence: Value,
    pub query: String,
    pub parameters: Value,
    pub at: i64,
}

/// How sure a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Confirmed,
    Indeterminate,
    /// Until when time alone decides it, us since 1970; 0 = only further data does.
    Pending(i64),
}

impl State {
    /// Confirmed if it is sure, else indeterminate.
    pub fn sure(is_sure: bool) -> Self {
        if is_sure { Self::Confirmed } else { Self::Indeterminate }
    }
}

impl Finding<'_> {
    /// The row; the caller adds what it concerns.
    pub fn verdict(self) -> Verdict {
        let (state, severity, decide_at) = match self.state {
            State::Confirmed => ("CONFIRMED", self.severity, 0),
            State::Indeterminate => ("INDETERMINATE", lesser(self.severity), 0),
            State::Pending(decide_at) => ("PENDING", self.severity, decide_at),
        };
        Verdict {
            tenant: self.tenant.to_owned(),
            unit: self.unit.to_owned(),
            verdict_key: format!("{}/{}", self.rule, self.key),
            alert_key: format!("sterility-{}/{}/{}", self.rule, self.tenant, self.subject),
            rule: self.rule,
            state: state.to_owned(),
            severity: severity.to_owned(),
            at: self.at,
            decide_at,
            reason: self.reason,
            evidence: self.evidence.to_string(),
            evidence_query: self.query,
            rule_version: RULE_VERSION,
            parameters: match self.parameters {
                Value::Null => json!({}).to_string(),
                parameters => parameters.to_string(),
            },
            ..Verdict::default()
        }
    }
}

/// SQL that shows everything about an item.
pub(crate) fn item_query(tenant: &str, item_id: &str) -> String {
    let (tenant, item_id) = (quoted(tenant), quoted(item_id));
    format!("SELECT * FROM item_history WHERE tenant = {tenant} AND item_id = {item_id} ORDER BY at")
}

/// SQL that shows a mount and its use.
pub(crate) fn mount_query(tenant: &str, device: &str, mount_id: &str) -> String {
    let (tenant, device, mount) = (quoted(tenant), quoted(device), quoted(mount_id));
    format!(
        "SELECT * FROM item_history WHERE tenant = {tenant} AND device = {device} AND mount_id = {mount} ORDER BY at"
    )
}

/// SQL that shows a cycle.
pub(crate) fn cycle_query(tenant: &str, cycle_uid: &str) -> String {
    let (tenant, cycle_uid) = (quoted(tenant), quoted(cycle_uid));
    format!("SELECT * FROM sterilizer_cycles WHERE tenant = {tenant} AND cycle_uid = {cycle_uid}")
}

/// A time for people and JSON, UTC to the second.
pub(crate) fn stamp(at_us: i64) -> String {
    let (day, second) = (at_us.div_euclid(86_400_000_000), at_us.div_euclid(1_000_000).rem_euclid(86_400));
    // Inverse of `calendar::days`, same source.
    let days = day + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let (date, month) = (of_year - (153 * shifted + 2) / 5 + 1, if shifted < 10 { shifted + 3 } else { shifted - 9 });
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_for_people() {
        assert_eq!(stamp(0), "1970-01-01T00:00:00Z");
        assert_eq!(stamp(1_709_210_096_999_999), "2024-02-29T12:34:56Z");
        assert_eq!(stamp(-1), "1969-12-31T23:59:59Z");
    }

    #[test]
    fn a_tenant_s_own_policy_wins_and_a_type_s_limit_over_the_general_one() {
        let policy = |tenant: &str, name: &str, value: &str| warehouse::sterility::Policy {
            tenant: tenant.to_owned(),
            name: name.to_owned(),
            value: value.to_owned(),
        };
        let book = Book::new(&Registry {
            policies: vec![
                policy("", "sterility.release_hours", "24"),
                policy("acme", "sterility.release_hours", "72"),
                policy("", "sterility.punctures_max", "500"),
                policy("", "sterility.punctures_max:needle-30G", "25"),
            ],
            ..Registry::default()
        });
        assert_eq!((book.release_hours("acme"), book.release_hours("other")), (72, 24));
        let mount = Mount { designation: "needle-30G".to_owned(), ..Mount::default() };
        assert_eq!((book.punctures_max("acme", Some(&mount)), book.punctures_max("acme", None)), (Some(25), Some(500)));
        assert_eq!(book.reprocessings_max("acme", None), None);
    }
}
