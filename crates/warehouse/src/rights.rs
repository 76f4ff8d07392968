//! Who needs what: one decision for each table and view of [`RELATIONS`].
//!
//! [`crate::grants`] turns the decisions into rights and row policies. A relation without a
//! decision fails a test here, so that nobody adds one and forgets who may read it.
//!
//! [`RELATIONS`]: crate::schema::RELATIONS

/// A service, or people who run the installation. Each has a user and a role of its own in
/// ClickHouse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    /// `migrate` and `rebuild`: the only ones that make tables and views. Its user is the definer
    /// of the views for manufacturers, which read the key of the pseudonyms.
    Migrate,
    /// `load`
    Load,
    /// `monitor`
    Monitor,
    /// `serve`
    Serve,
    /// `bridge`, under `bridge.unknown_devices = "policy"`: it reads the registry.
    Bridge,
    /// The commands of people: registry, alerts, incidents, quarantine, traces, `reconcile`.
    Operate,
    /// Grafana and people who read all tenants.
    Dashboards,
}

impl Service {
    pub const ALL: [Self; 7] =
        [Self::Migrate, Self::Load, Self::Monitor, Self::Serve, Self::Bridge, Self::Operate, Self::Dashboards];

    /// The name of its user; the role has the same name with `_role` behind it.
    pub fn user(self) -> &'static str {
        match self {
            Self::Migrate => "doseline_migrate",
            Self::Load => "doseline_load",
            Self::Monitor => "doseline_monitor",
            Self::Serve => "doseline_serve",
            Self::Bridge => "doseline_bridge",
            Self::Operate => "doseline_operate",
            Self::Dashboards => "doseline_dashboards",
        }
    }
}

/// Whose the rows of a relation are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Column `tenant`.
    Tenant,
    /// Column `tenant`; rows in which it is empty hold for every tenant.
    TenantOrGeneral,
    /// Column `manufacturer`, by the registry.
    Manufacturer,
    /// No tenant and no manufacturer.
    Nobody,
}

/// A right to a relation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    Select,
    Insert,
    /// `ALTER TABLE ... DELETE` and `DROP PARTITION`.
    Delete,
}

impl Right {
    /// As in `GRANT`.
    pub fn sql(self) -> &'static str {
        match self {
            Self::Select => "SELECT",
            Self::Insert => "INSERT",
            Self::Delete => "ALTER DELETE",
        }
    }
}

const NONE: &[Right] = &[];
const READ: &[Right] = &[Right::Select];
/// A view needs the right to what it reads as well: it runs with the rights of whoever asks.
const ADD: &[Right] = &[Right::Select, Right::Insert];
const WRITE: &[Right] = &[Right::Select, Right::Insert, Right::Delete];
const PURGE: &[Right] = &[Right::Select, Right::Delete];

/// The decision about one relation.
#[derive(Clone, Copy, Debug)]
pub struct Decision {
    pub relation: &'static str,
    pub owner: Owner,
    load: &'static [Right],
    monitor: &'static [Right],
    operate: &'static [Right],
    /// Whether `serve` and dashboards read it.
    shown: bool,
    /// Whether a tenant's analyst reads its rows.
    pub for_tenants: bool,
}

impl Decision {
    /// What a service may do with the relation. [`Service::Migrate`] has rights to the database
    /// instead.
    pub fn of(&self, service: Service) -> &'static [Right] {
        match service {
            Service::Migrate => NONE,
            Service::Load => self.load,
            Service::Monitor => self.monitor,
            Service::Operate => self.operate,
            Service::Serve | Service::Dashboards if self.shown => READ,
            Service::Bridge if REGISTRY_OF_BRIDGE.contains(&self.relation) => READ,
            _ => NONE,
        }
    }
}

/// What the bridge reads to decide about unknown devices.
const REGISTRY_OF_BRIDGE: [&str; 4] = ["devices", "devices_latest", "policies", "policies_latest"];

/// Rights to single columns, as in `GRANT`.
pub const COLUMN_RIGHTS: &[(Service, &str, &str)] = &[
    (Service::Load, "kafka_topics", "ALTER UPDATE(topic_id)"),
    (Service::Load, "quarantine", "ALTER UPDATE(replayed)"),
];

/// Columns that a service does not read although it reads their table.
pub const WITHHELD: &[(Service, &str, &str)] = &[
    // The only way back to a patient.
    (Service::Monitor, "sessions", "client_ref"),
    // Raw bytes of a message.
    (Service::Monitor, "quarantine", "payload"),
];

/// Tables of `system` that a service reads, beside those that everybody may read.
pub const SYSTEM: &[(Service, &[&str])] = &[
    (Service::Migrate, &["columns", "mutations", "parts", "tables"]),
    (Service::Load, &["mutations", "parts", "tables"]),
    (Service::Monitor, &["parts", "tables", "time_zones"]),
    (Service::Serve, &["parts", "tables"]),
    (Service::Operate, &["columns", "parts", "tables", "time_zones"]),
];

type Rights = &'static [Right];

const fn row(
    relation: &'static str,
    owner: Owner,
    [load, monitor, operate]: [Rights; 3],
    shown: bool,
    for_tenants: bool,
) -> Decision {
    Decision { relation, owner, load, monitor, operate, shown, for_tenants }
}

use Owner::{Manufacturer, Nobody, Tenant, TenantOrGeneral};

/// The decisions, by name. Columns: `load`, `monitor`, `operate`; shown to `serve` and dashboards;
/// shown to a tenant.
pub const DECISIONS: &[Decision] = &[
    row("accuracy_day", Tenant, [ADD, NONE, READ], true, true),
    row("accuracy_hour", Tenant, [ADD, NONE, READ], true, true),
    row("accuracy_minute", Tenant, [WRITE, READ, READ], true, true),
    row("accuracy_session", Tenant, [WRITE, READ, READ], true, true),
    row("accuracy_verdicts", Tenant, [NONE, ADD, READ], true, true),
    row("alert_deliveries", Tenant, [NONE, ADD, NONE], false, false),
    row("alert_history", Tenant, [WRITE, ADD, READ], true, true),
    row("alerts", Tenant, [NONE, ADD, ADD], true, true),
    row("audit", Tenant, [WRITE, NONE, READ], true, false),
    row("audit_trail", Tenant, [NONE, NONE, READ], true, false),
    row("calibration_by_age", Manufacturer, [NONE, NONE, READ], true, false),
    row("calibration_by_model", Manufacturer, [NONE, NONE, READ], true, false),
    row("calibration_by_unit", Manufacturer, [NONE, NONE, READ], true, false),
    row("calibration_drift", Tenant, [NONE, NONE, READ], true, true),
    row("calibration_impact", Tenant, [NONE, READ, READ], true, true),
    row("calibrations", Tenant, [WRITE, READ, READ], true, true),
    row("calibrations_due", Tenant, [NONE, READ, READ], true, true),
    row("course_progress", Tenant, [NONE, NONE, READ], true, true),
    row("cycle_assessments", Tenant, [NONE, ADD, READ], true, true),
    row("cycle_indicators", Tenant, [WRITE, READ, READ], true, true),
    row("cycle_releases", Tenant, [WRITE, READ, READ], true, true),
    row("cycle_verdicts", Tenant, [NONE, NONE, READ], true, true),
    row("delivery_completeness", Tenant, [NONE, READ, READ], true, true),
    row("delivery_gaps", Tenant, [NONE, READ, READ], true, true),
    row("delivery_state", Tenant, [READ, READ, READ], true, true),
    row("depth_accuracy", Tenant, [NONE, NONE, READ], true, true),
    row("device_status", Tenant, [WRITE, READ, READ], true, true),
    row("devices", Tenant, [WRITE, READ, READ], true, true),
    row("devices_latest", Tenant, [NONE, READ, READ], true, true),
    row("dose_accuracy", Tenant, [NONE, NONE, READ], true, true),
    row("drift", Tenant, [NONE, ADD, READ], true, true),
    row("faults", Tenant, [WRITE, READ, READ], true, true),
    row("fleet", Tenant, [NONE, READ, READ], true, true),
    row("implausible_times", Tenant, [WRITE, READ, READ], true, true),
    row("incidents", Tenant, [WRITE, NONE, READ], true, true),
    row("injection_completeness", Tenant, [NONE, READ, READ], true, true),
    row("injections", Tenant, [WRITE, READ, READ], true, true),
    row("item_history", Tenant, [NONE, READ, READ], true, true),
    row("item_uses", Tenant, [WRITE, READ, READ], true, true),
    row("kafka_losses", Nobody, [READ, NONE, READ], true, false),
    row("kafka_topics", Nobody, [ADD, NONE, READ], true, false),
    // A tenant reads the ledgers of its own devices, of which the views of delivery are made.
    row("loader_commits", Tenant, [WRITE, READ, READ], true, true),
    row("loader_intents", Nobody, [WRITE, READ, READ], false, false),
    row("loader_pruning", Tenant, [WRITE, NONE, NONE], false, false),
    row("lots", Nobody, [NONE, READ, ADD], true, true),
    row("lots_latest", Nobody, [NONE, READ, READ], true, true),
    row("mass_balance", Tenant, [NONE, READ, READ], true, true),
    row("models", Nobody, [NONE, READ, ADD], true, true),
    row("models_latest", Nobody, [NONE, READ, READ], true, true),
    row("monitor_positions", Nobody, [NONE, ADD, NONE], false, false),
    row("mounts", Tenant, [WRITE, READ, READ], true, true),
    row("open_alerts", Tenant, [NONE, READ, READ], true, true),
    row("policies", TenantOrGeneral, [WRITE, READ, ADD], true, true),
    row("policies_latest", TenantOrGeneral, [NONE, READ, READ], true, true),
    row("preparations", Tenant, [WRITE, READ, READ], true, true),
    row("quarantine", Tenant, [WRITE, READ, PURGE], true, true),
    row("quarantine_purges", Tenant, [NONE, NONE, ADD], true, true),
    row("quarantine_replays", Tenant, [WRITE, NONE, READ], true, true),
    row("quarantine_state", Tenant, [NONE, NONE, READ], true, true),
    row("recalls", Nobody, [NONE, READ, ADD], true, true),
    row("recalls_latest", Nobody, [NONE, READ, READ], true, true),
    row("recipes", TenantOrGeneral, [NONE, READ, ADD], true, true),
    row("recipes_latest", TenantOrGeneral, [NONE, READ, READ], true, true),
    row("schema_migrations", Nobody, [READ, READ, READ], true, false),
    row("session_completeness", Tenant, [NONE, READ, READ], true, true),
    row("session_report", Tenant, [NONE, NONE, READ], true, true),
    row("sessions", Tenant, [WRITE, READ, READ], true, true),
    row("sites", Tenant, [NONE, READ, ADD], true, true),
    row("sites_latest", Tenant, [NONE, READ, READ], true, true),
    row("sterility_breaches", Tenant, [NONE, NONE, READ], true, true),
    row("sterility_verdicts", Tenant, [NONE, ADD, READ], true, true),
    row("sterilization_cycles", Tenant, [WRITE, READ, READ], true, true),
    row("sterilization_items", Tenant, [WRITE, READ, READ], true, true),
    row("sterilization_samples", Tenant, [WRITE, READ, READ], true, true),
    row("sterilizer_cycles", Tenant, [NONE, READ, READ], true, true),
    // Only the definer of the views for manufacturers reads it.
    row("unit_secret", Nobody, [NONE, NONE, NONE], false, false),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        migrations::MIGRATIONS,
        schema::{Kind, RELATIONS},
    };

    /// Whoever adds a table or a view decides here who may do what with it.
    #[test]
    fn every_relation_has_a_decision() {
        let decided: Vec<_> = DECISIONS.iter().map(|decision| decision.relation).collect();
        let relations: Vec<_> = RELATIONS.iter().map(|(name, _)| *name).collect();
        assert_eq!(decided, relations, "crates/warehouse/src/rights.rs and schema.rs name the same relations");
    }

    /// The text between the brackets of a relation's columns, of its last definition.
    fn columns(relation: &str) -> Vec<&'static str> {
        let heads =
            [format!("CREATE TABLE IF NOT EXISTS {relation}\n(\n"), format!("CREATE OR REPLACE VIEW {relation}\n(\n")];
        let found = MIGRATIONS.iter().rev().find_map(|migration| {
            let head = heads.iter().find(|head| migration.sql.contains(head.as_str()))?;
            migration.sql.split(head.as_str()).last()?.split("\n)").next()
        });
        found.unwrap_or_default().lines().filter_map(|line| line.split_whitespace().next()).collect()
    }

    #[test]
    fn whatever_carries_a_tenant_or_a_manufacturer_of_the_registry_has_an_owner() {
        for Decision { relation, owner, .. } in DECISIONS {
            let columns = columns(relation);
            let carries = |column: &str| columns.contains(&column);
            match owner {
                Tenant | TenantOrGeneral => assert!(carries("tenant"), "{relation}"),
                Manufacturer => assert!(carries("manufacturer") && !carries("tenant"), "{relation}"),
                Nobody => assert!(!carries("tenant"), "{relation}"),
            }
            for forbidden in ["tenant", "site", "device", "session_id", "at", "performed_at"] {
                assert!(*owner != Manufacturer || !carries(forbidden), "{relation}.{forbidden}");
            }
        }
    }

    #[test]
    fn only_the_loader_writes_facts_and_nobody_writes_through_a_view() {
        for (decision, (relation, kind)) in DECISIONS.iter().zip(RELATIONS) {
            for service in Service::ALL {
                let writes = decision.of(service).iter().any(|right| *right != Right::Select);
                let allowed = match kind {
                    Kind::Loader | Kind::Rollup => {
                        service == Service::Load || (service, *relation) == (Service::Operate, "quarantine")
                    }
                    Kind::Monitor | Kind::Shared => {
                        [Service::Load, Service::Monitor, Service::Operate].contains(&service)
                    }
                    Kind::Registry => service == Service::Operate,
                    Kind::Migrations | Kind::View => false,
                };
                assert!(!writes || allowed, "{service:?} must not write {relation}");
            }
        }
    }

    #[test]
    fn the_secret_of_the_pseudonyms_is_for_nobody() {
        let secret = DECISIONS.iter().find(|decision| decision.relation == "unit_secret").unwrap();
        assert!(Service::ALL.iter().all(|service| secret.of(*service).is_empty()) && !secret.for_tenants);
        assert!(!secret.shown);
    }

    #[test]
    fn whoever_reads_a_view_reads_what_it_is_made_of() {
        let names: Vec<_> = RELATIONS.iter().map(|(name, _)| *name).collect();
        let decision = |name: &str| DECISIONS.iter().find(|decision| decision.relation == name).unwrap();
        for (view, _) in RELATIONS.iter().filter(|(_, kind)| *kind == Kind::View) {
            let head = format!("CREATE OR REPLACE VIEW {view}\n");
            let migration = MIGRATIONS.iter().rev().find(|migration| migration.sql.contains(&head)).unwrap();
            let text = migration.sql.split(&head).last().unwrap();
            let text = crate::statement::split(text)[0];
            if text.contains("SQL SECURITY DEFINER") {
                continue;
            }
            let words: Vec<_> = text.split_whitespace().collect();
            let read = words.windows(2).filter(|pair| ["FROM", "JOIN"].contains(&pair[0]));
            for source in
                read.filter_map(|pair| names.iter().find(|name| **name == pair[1].trim_end_matches([',', ')'])))
            {
                for service in Service::ALL {
                    let (of_view, of_source) = (decision(view).of(service), decision(source).of(service));
                    let lacks = of_view.contains(&Right::Select) && !of_source.contains(&Right::Select);
                    assert!(!lacks, "{service:?} reads {view} and not {source}");
                }
                assert!(!decision(view).for_tenants || decision(source).for_tenants, "{view} and {source}");
            }
        }
    }
}
