//! What somebody may see, enforced inside ClickHouse.
//!
//! A *sight* becomes settings of each query. The most important is `additional_table_filters`:
//! ClickHouse applies a condition to every read of a table, also where a view reads it. A query
//! that forgets its condition on the tenant, or a view that joins past it, still gets no row of
//! another tenant. `tests/tests/api` compares every table and view.
//!
//! Whose the rows of a table are is decided in [`crate::rights`], where a new table without a
//! decision fails a test.

use crate::{
    client::Warehouse,
    rights::{DECISIONS, Decision, Owner},
    schema::{Kind, RELATIONS},
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

/// What the views for manufacturers read. The views show no row of it. The registry is not narrowed
/// to the manufacturer here: the latest row of a device decides whose it is, and must be seen for
/// that.
const READ_FOR_MANUFACTURERS: &[&str] =
    &["accuracy_session", "devices", "devices_latest", "models", "models_latest", "unit_secret"];

/// The condition that no row meets.
pub(crate) const NOTHING: &str = "0";

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
                let condition = |decision: &Decision| match decision.owner {
                    Owner::Tenant => Some(format!("tenant IN {of_own}")),
                    Owner::TenantOrGeneral => Some(format!("tenant IN {of_own_or_all}")),
                    Owner::Nobody if decision.for_tenants => None,
                    Owner::Nobody | Owner::Manufacturer => Some(NOTHING.to_owned()),
                };
                // A view shows what its tables show. Both lists name the same relations in order.
                let tables = DECISIONS.iter().zip(RELATIONS).filter(|(_, (_, kind))| *kind != Kind::View);
                tables.filter_map(|(table, _)| Some((table.relation, condition(table)?))).collect()
            }
            Self::Manufacturer(manufacturer) => {
                let own = format!("manufacturer = {}", quoted(manufacturer));
                let condition = |decision: &Decision| match decision.owner {
                    Owner::Manufacturer => Some(own.clone()),
                    _ if READ_FOR_MANUFACTURERS.contains(&decision.relation) => None,
                    _ => Some(NOTHING.to_owned()),
                };
                DECISIONS.iter().filter_map(|decision| Some((decision.relation, condition(decision)?))).collect()
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
    /// What the decisions come to, written down once more: a change of a decision changes what a
    /// tenant sees.
    #[test]
    fn tables_without_a_tenant_are_shared_or_closed() {
        let filters = Sight::Tenants(vec!["a".to_owned()]).filters();
        let with = |wanted: &str| {
            let found = filters.iter().filter(|(_, condition)| condition == wanted);
            found.map(|(name, _)| *name).collect::<Vec<_>>()
        };
        assert_eq!(
            with(NOTHING),
            ["kafka_topics", "loader_intents", "monitor_positions", "schema_migrations", "unit_secret"]
        );
        assert_eq!(with("tenant IN ('a', '')"), ["policies", "recipes"]);
        let tables = RELATIONS.iter().filter(|(_, kind)| *kind != Kind::View).map(|(name, _)| *name);
        let open: Vec<_> = tables.filter(|name| !filters.iter().any(|(filtered, _)| filtered == name)).collect();
        assert_eq!(open, ["lots", "models", "recalls"]);
        assert_eq!(with("tenant IN ('a')").len() + 10, filters.len() + open.len());
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
    fn a_manufacturer_has_three_views_and_what_they_read() {
        let filters = Sight::Manufacturer("it's".to_owned()).filters();
        let closed = |relation: &str| filters.iter().any(|(name, condition)| *name == relation && condition == NOTHING);
        let owner = |name: &str| DECISIONS.iter().find(|decision| decision.relation == name).unwrap().owner;
        let open: Vec<_> = RELATIONS.iter().map(|(name, _)| *name).filter(|name| !closed(name)).collect();
        let (views, read): (Vec<_>, Vec<_>) = open.into_iter().partition(|name| owner(name) == Owner::Manufacturer);
        assert_eq!(views, ["calibration_by_age", "calibration_by_model", "calibration_by_unit"]);
        assert_eq!(read, READ_FOR_MANUFACTURERS);
        for view in views {
            assert!(filters.contains(&(view, r"manufacturer = 'it\'s'".to_owned())));
        }
    }
}
