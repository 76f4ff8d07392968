//! What somebody may see, enforced inside ClickHouse.
//!
//! A *sight* becomes settings of each query. The most important is `additional_table_filters`:
//! ClickHouse applies a condition to every read of a table, also where a view reads it. A query
//! that forgets its condition on the tenant, or a view that joins past it, still gets no row of
//! another tenant. `tests/tests/api` compares every table and view.
//!
//! Every table must stand in one of the lists below; a test compares them with the schema. A new
//! table that stands in none fails that test.

use crate::{
    client::Warehouse,
    schema::RELATIONS,
    sql::{list, quoted},
};

/// What somebody may see.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Sight {
    /// Everything.
    All,
    /// The rows of these tenants, and the shared part of the registry.
    Tenants(Vec<String>),
    /// The views for manufacturers, for the units of this manufacturer.
    Manufacturer(String),
}

/// Tables with a tenant in every row.
pub const OF_TENANTS: &[&str] = &[
    "accuracy_day",
    "accuracy_hour",
    "accuracy_minute",
    "accuracy_session",
    "accuracy_verdicts",
    "alert_deliveries",
    "alert_history",
    "alerts",
    "audit",
    "calibrations",
    "cycle_assessments",
    "cycle_indicators",
    "cycle_releases",
    "device_status",
    "devices",
    "drift",
    "faults",
    "implausible_times",
    "incidents",
    "injections",
    "item_uses",
    "loader_commits",
    "loader_pruning",
    "mounts",
    "preparations",
    "quarantine",
    "quarantine_purges",
    "quarantine_replays",
    "sessions",
    "sites",
    "sterility_verdicts",
    "sterilization_cycles",
    "sterilization_items",
    "sterilization_samples",
];

/// Tables with a tenant, in which an empty tenant means every tenant.
pub const OF_TENANTS_OR_ALL: &[&str] = &["policies", "recipes"];

/// Tables without a tenant that every tenant may read: the shared part of the registry.
pub const SHARED: &[&str] = &["lots", "models", "recalls"];

/// Tables without a tenant that only somebody who may see everything reads.
pub const CLOSED: &[&str] =
    &["kafka_topics", "loader_intents", "monitor_positions", "schema_migrations", "unit_secret"];

/// What the views for manufacturers read. The views show no row of it. The registry is not narrowed
/// to the manufacturer here: the latest row of a device decides whose it is, and must be seen for
/// that.
const READ_FOR_MANUFACTURERS: &[&str] = &["accuracy_session", "devices", "devices_latest", "unit_secret"];

/// The views for manufacturers.
const OF_MANUFACTURERS: &[&str] = &["calibration_by_model", "calibration_by_unit"];

/// The condition that no row meets.
const NOTHING: &str = "0";

/// Longest answer, bytes. ClickHouse begins to answer before it knows the length, so it does not
/// hold this limit itself.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Limits of a query, which bound what one asker takes of ClickHouse.
const LIMITS: &[(&str, &str)] = &[
    ("max_execution_time", "20"),
    ("max_memory_usage", "2000000000"),
    ("max_result_rows", "10001"),
    ("max_threads", "2"),
];

impl Sight {
    /// The part of this that concerns one tenant; none if the tenant is not in it.
    pub fn of_tenant(&self, tenant: &str) -> Option<Self> {
        match self {
            Self::All => Some(Self::Tenants(vec![tenant.to_owned()])),
            Self::Tenants(tenants) if tenants.iter().any(|own| own == tenant) => {
                Some(Self::Tenants(vec![tenant.to_owned()]))
            }
            Self::Tenants(_) | Self::Manufacturer(_) => None,
        }
    }

    /// The condition on each table or view; none if there is no condition.
    fn filters(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::All => Vec::new(),
            Self::Tenants(tenants) => {
                let own = tenants.iter().map(String::as_str);
                let (of_own, of_own_or_all) = (list(own.clone()), list(own.chain([""])));
                let condition = |table: &'static str| {
                    let condition = match table {
                        _ if OF_TENANTS.contains(&table) => format!("tenant IN {of_own}"),
                        _ if OF_TENANTS_OR_ALL.contains(&table) => format!("tenant IN {of_own_or_all}"),
                        _ if SHARED.contains(&table) => return None,
                        _ => NOTHING.to_owned(),
                    };
                    Some((table, condition))
                };
                let tables = [OF_TENANTS, OF_TENANTS_OR_ALL, SHARED, CLOSED].into_iter().flatten();
                tables.filter_map(|table| condition(table)).collect()
            }
            Self::Manufacturer(manufacturer) => {
                let own = format!("manufacturer = {}", quoted(manufacturer));
                let relations = RELATIONS.iter().map(|(name, _)| *name);
                let condition = |relation: &'static str| match relation {
                    _ if OF_MANUFACTURERS.contains(&relation) => Some((relation, own.clone())),
                    _ if READ_FOR_MANUFACTURERS.contains(&relation) => None,
                    _ => Some((relation, NOTHING.to_owned())),
                };
                relations.filter_map(condition).collect()
            }
        }
    }
}

impl Warehouse {
    /// This warehouse for queries of somebody with this sight. The settings go with every query.
    #[must_use]
    pub fn seen_by(&self, sight: &Sight) -> Self {
        let database = self.database();
        let filter = |(relation, condition): (&str, String)| {
            format!("{}: {}", quoted(&format!("{database}.{relation}")), quoted(&condition))
        };
        let filters: Vec<_> = sight.filters().into_iter().map(filter).collect();
        let mut settings: Vec<_> = LIMITS.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        if !filters.is_empty() {
            settings.push(("additional_table_filters", format!("{{{}}}", filters.join(", "))));
        }
        self.bounded(&settings, ANSWER_BYTES_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Kind;

    #[test]
    fn every_table_stands_in_one_list() {
        let mut listed: Vec<&str> =
            [OF_TENANTS, OF_TENANTS_OR_ALL, SHARED, CLOSED].into_iter().flatten().copied().collect();
        listed.sort_unstable();
        let tables: Vec<&str> =
            RELATIONS.iter().filter(|(_, kind)| *kind != Kind::View).map(|(name, _)| *name).collect();
        assert_eq!(listed, tables);
    }

    #[test]
    fn a_tenant_is_seen_only_by_whom_it_belongs_to() {
        let own = Sight::Tenants(vec!["a".to_owned(), "b".to_owned()]);
        let one = |tenant: &str| Some(Sight::Tenants(vec![tenant.to_owned()]));
        assert_eq!(own.of_tenant("b"), one("b"));
        assert_eq!(own.of_tenant("c"), None);
        assert_eq!(own.of_tenant(""), None);
        assert_eq!(Sight::All.of_tenant("c"), one("c"));
        assert_eq!(Sight::Manufacturer("a".to_owned()).of_tenant("a"), None);
    }

    #[test]
    fn a_manufacturer_has_two_views_and_what_they_read() {
        let filters = Sight::Manufacturer("it's".to_owned()).filters();
        let closed = |relation: &str| filters.iter().any(|(name, condition)| *name == relation && condition == NOTHING);
        let open: Vec<_> = RELATIONS.iter().map(|(name, _)| *name).filter(|name| !closed(name)).collect();
        let (views, read): (Vec<_>, Vec<_>) = open.into_iter().partition(|name| OF_MANUFACTURERS.contains(name));
        assert_eq!((&views[..], &read[..]), (OF_MANUFACTURERS, READ_FOR_MANUFACTURERS));
        for view in views {
            assert!(filters.contains(&(view, r"manufacturer = 'it\'s'".to_owned())));
        }
    }
}
