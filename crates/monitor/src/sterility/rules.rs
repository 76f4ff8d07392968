//! What every rule needs: the registry with its limits, the time, and the form of a verdict.

use std::collections::HashMap;

use analysis::gs1;
use serde_json::{Value, json};
use warehouse::{
    sql::quoted,
    states::{Severity, VerdictState},
    sterility::{Component, Mount, Recall, Recipe, Registry},
    verdicts::Verdict,
};

/// Version of the rules. A new version makes the monitor evaluate everything.
pub const STERILITY_RULE_VERSION: u32 = 4;

/// Hours after a use in which the decision on its cycle is awaited, unless a policy sets them.
const RELEASE_HOURS: u64 = 48;
/// Days between two biological tests, unless a policy sets them.
const BIOLOGICAL_DAYS: u64 = 7;

/// One hour, us.
pub(crate) const HOUR_US: i64 = 3_600_000_000;

/// The time, and how uncertain times are.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Now, us since 1970.
    pub now: i64,
    /// How long a sterilizer's data are awaited after a use has happened and arrived, us. Before,
    /// their absence is no finding.
    pub late: i64,
    /// How much a device's time may be later than the event, us.
    pub ahead: i64,
    /// How much a time of receipt may be later than the event, us.
    pub age: i64,
}

impl Clock {
    /// Whether something that was last used at `last_at` was used after `until`, the last moment at
    /// which it was usable (both us since 1970). Returns `None` if it was not. `is_dated`: the time
    /// comes from the device, not from the receipt. A use is never later than its recorded time,
    /// but it may be earlier by the uncertainty of that time.
    pub(crate) fn used_after(&self, until: i64, last_at: i64, is_dated: bool) -> Option<State> {
        let uncertain = if is_dated { self.ahead } else { self.age };
        (last_at > until).then(|| State::certain(last_at.saturating_sub(uncertain) > until))
    }
}

/// The registry, indexed for lookup.
pub struct RegistryIndex {
    recipes: HashMap<(String, String), Recipe>,
    recalls: HashMap<String, Vec<Recall>>,
    expiries: HashMap<(String, String), i64>,
    policies: HashMap<(String, String), String>,
}

/// Recipes that need no registration: name, lower edge of the band in millidegrees (the upper edge
/// is 3 K above), hold time in ms, and whether the cycle has a prevacuum.
const BUILT_IN: [(&str, i32, u32, bool); 5] = [
    ("134C-3min", 134_000, 180_000, true),
    ("134C-3.5min-BD", 134_000, 210_000, true),
    ("132C-4min", 132_000, 240_000, true),
    ("121C-15min", 121_000, 900_000, false),
    ("121C-30min", 121_000, 1_800_000, false),
];

/// Product and lot of a label in the form in which they are compared: the same for every notation
/// of a GTIN. The tables keep the text as received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// See [`gs1::product`]; empty = not known.
    pub product: String,
    /// See [`gs1::lot`]; empty = not known.
    pub lot: String,
}

impl Label {
    /// The label of a mount. An item id that is a full GS1 element string contains product and lot
    /// too.
    pub fn of(mount: &Mount) -> Self {
        Self::among([&mount.udi_di, &mount.item_id], &mount.lot)
    }

    /// The label of a component of a mixture.
    pub fn of_component(component: &Component) -> Self {
        Self::among([&component.udi_di, &component.container_id], &component.lot)
    }

    fn among([udi_di, id]: [&str; 2], lot: &str) -> Self {
        let in_strings = |ai: &str| [udi_di, id].iter().find_map(|text| gs1::part(text, ai));
        let else_in_strings =
            |text: String, ai: &str| if text.is_empty() { in_strings(ai).unwrap_or_default() } else { text };
        Self { product: else_in_strings(gs1::product(udi_di), "01"), lot: else_in_strings(gs1::lot(lot), "10") }
    }
}

/// The name of a policy, with its item type in the form in which it is compared.
fn by_type(name: &str) -> String {
    match name.split_once(':') {
        Some((name, of_type)) => format!("{name}:{}", gs1::product(of_type)),
        None => name.to_owned(),
    }
}

impl RegistryIndex {
    /// Indexes the registered rows.
    pub fn new(registered: &Registry) -> Self {
        let built_in = BUILT_IN.iter().map(|(name, least, hold_ms, prevacuum)| Recipe {
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
        let recipes = built_in.chain(registered.recipes.iter().cloned());
        let mut recalls: HashMap<String, Vec<Recall>> = HashMap::new();
        for recall in &registered.recalls {
            recalls.entry(gs1::product(&recall.udi_di)).or_default().push(recall.clone());
        }
        Self {
            recipes: recipes.map(|recipe| ((recipe.tenant.clone(), recipe.recipe.clone()), recipe)).collect(),
            recalls,
            expiries: registered
                .lots
                .iter()
                .map(|lot| ((gs1::product(&lot.udi_di), gs1::lot(&lot.lot)), i64::from(lot.expiry)))
                .collect(),
            policies: registered
                .policies
                .iter()
                .map(|policy| ((policy.tenant.clone(), by_type(&policy.name)), policy.value.clone()))
                .collect(),
        }
    }

    /// The recipe of a name: of the tenant, else of every tenant, else one that needs no
    /// registration.
    pub fn recipe(&self, tenant: &str, name: &str) -> Option<&Recipe> {
        let of = |tenant: &str| self.recipes.get(&(tenant.to_owned(), name.to_owned()));
        of(tenant).or_else(|| of(""))
    }

    /// Open recalls of a label, each with whether it certainly applies. A lot number without a
    /// product may belong to another product.
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

    /// The limit for the type of an item, else the limit for all items.
    fn limit(&self, tenant: &str, name: &str, mount: Option<&Mount>) -> Option<u64> {
        let special = mount.and_then(|mount| {
            let by =
                |what: String| (!what.is_empty()).then(|| self.number(tenant, &format!("{name}:{what}"))).flatten();
            by(Label::of(mount).product).or_else(|| by(gs1::product(&mount.designation)))
        });
        special.or_else(|| self.number(tenant, name))
    }

    /// `sterility.release_hours`: how many hours after a use the decision on its load may come
    /// before the use is a breach.
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
    /// is registered.
    pub fn reprocessings_max(&self, tenant: &str, mount: Option<&Mount>) -> Option<u64> {
        self.limit(tenant, "sterility.reprocessings_max", mount)
    }

    /// `sterility.punctures_max[:TYPE]`: how many punctures a needle may make; none = no limit is
    /// registered.
    pub fn punctures_max(&self, tenant: &str, mount: Option<&Mount>) -> Option<u64> {
        self.limit(tenant, "sterility.punctures_max", mount)
    }
}

/// What a rule found, before it is a row.
pub(crate) struct RuleFinding<'a> {
    pub tenant: &'a str,
    pub unit: &'a str,
    pub rule: u8,
    /// What distinguishes it from other findings of the rule in the unit.
    pub key: String,
    /// The part of the alert key after rule and tenant.
    pub subject: String,
    pub state: State,
    /// Severity if it is confirmed.
    pub severity: Severity,
    pub reason: String,
    pub evidence: Value,
    pub query: String,
    pub parameters: Value,
    pub at: i64,
}

/// How certain a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Confirmed,
    Indeterminate,
    /// When time alone decides it, us since 1970; 0 = only further data does.
    Pending(i64),
}

impl State {
    /// Confirmed if it is certain, else indeterminate.
    pub fn certain(is_certain: bool) -> Self {
        if is_certain { Self::Confirmed } else { Self::Indeterminate }
    }
}

impl RuleFinding<'_> {
    /// The row. The caller adds site, device, item and sessions.
    pub fn verdict(self) -> Verdict {
        let (state, severity, decide_at) = match self.state {
            State::Confirmed => (VerdictState::Confirmed, self.severity, 0),
            State::Indeterminate => (VerdictState::Indeterminate, self.severity.lower(), 0),
            State::Pending(decide_at) => (VerdictState::Pending, self.severity, decide_at),
        };
        Verdict {
            tenant: self.tenant.to_owned(),
            unit: self.unit.to_owned(),
            verdict_key: format!("{}/{}", self.rule, self.key),
            alert_key: format!("sterility-{}/{}/{}", self.rule, self.tenant, self.subject),
            rule: self.rule,
            state,
            severity,
            at: self.at,
            decide_at,
            reason: self.reason,
            evidence: self.evidence.to_string(),
            evidence_query: self.query,
            rule_version: STERILITY_RULE_VERSION,
            parameters: match self.parameters {
                Value::Null => json!({}).to_string(),
                parameters => parameters.to_string(),
            },
            ..Verdict::default()
        }
    }
}

/// SQL that shows the history of an item.
pub(crate) fn item_query(tenant: &str, item_key: &str) -> String {
    let (tenant, item_key) = (quoted(tenant), quoted(item_key));
    format!("SELECT * FROM item_history WHERE tenant = {tenant} AND item_key = {item_key} ORDER BY at")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_s_own_policy_wins_and_a_type_s_limit_over_the_general_one() {
        let policy = |tenant: &str, name: &str, value: &str| warehouse::sterility::Policy {
            tenant: tenant.to_owned(),
            name: name.to_owned(),
            value: value.to_owned(),
        };
        let registry = RegistryIndex::new(&Registry {
            policies: vec![
                policy("", "sterility.release_hours", "24"),
                policy("acme", "sterility.release_hours", "72"),
                policy("", "sterility.punctures_max", "500"),
                policy("", "sterility.punctures_max:needle-30G", "25"),
            ],
            ..Registry::default()
        });
        assert_eq!((registry.release_hours("acme"), registry.release_hours("other")), (72, 24));
        let mount = Mount { designation: "needle-30G".to_owned(), ..Mount::default() };
        assert_eq!(
            (registry.punctures_max("acme", Some(&mount)), registry.punctures_max("acme", None)),
            (Some(25), Some(500))
        );
        assert_eq!(registry.reprocessings_max("acme", None), None);
    }
}
