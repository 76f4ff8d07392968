//! Roles, users, rights, row policies and limits of the warehouse, as SQL.
//!
//! Each service has a role with the rights of [`crate::rights`]. A tenant's analyst sees the rows
//! of one tenant in each table and view; a manufacturer sees its own rows in the three views for
//! manufacturers. Rows are withheld by *restrictive* policies: they hold beside whatever else lets
//! a role read. A view runs with the rights and the policies of whoever asks, so it shows no more
//! than its tables do. The views for manufacturers run with the rights of their definer; there the
//! policy is on the view.
//!
//! Every statement can be run again, and none takes a right away for a moment that it gives again:
//! services go on meanwhile.

use async_recursion::async_recursion as boxed;
use sha2::{Digest as _, Sha256};
use telemetry::topic::is_id;

use crate::{
    Error, Warehouse,
    rights::{COLUMN_RIGHTS, DECISIONS, Decision, Owner, Right, SYSTEM, Service, WITHHELD},
    sight::NOTHING,
    sql::quoted,
};

/// Longest name of a manufacturer, bytes, as in the registry.
const MANUFACTURER_LEN_MAX: usize = crate::registry::TEXT_LEN_MAX;
/// How much of a wrong name an error shows, characters.
const SHOWN_MAX: usize = 64;

/// Who gets rights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    Service(Service),
    /// A tenant's analyst.
    Tenant(String),
    /// A manufacturer, by its name in the registry.
    Manufacturer(String),
}

impl Subject {
    /// # Errors
    /// [`Error::Option`] if `name` cannot be a tenant.
    pub fn tenant(name: &str) -> Result<Self, Error> {
        match is_id(name) {
            true => Ok(Self::Tenant(name.to_owned())),
            false => Err(wrong("tenant", name, "a tenant matches [A-Za-z0-9][A-Za-z0-9_-]{0,63}")),
        }
    }

    /// # Errors
    /// [`Error::Option`] if the registry can hold no such name.
    pub fn manufacturer(name: &str) -> Result<Self, Error> {
        let fits = (1..=MANUFACTURER_LEN_MAX).contains(&name.len()) && !name.chars().any(char::is_control);
        match fits {
            true => Ok(Self::Manufacturer(name.to_owned())),
            false => Err(wrong("manufacturer", name, "a manufacturer has 1 to 128 bytes and no control characters")),
        }
    }

    /// Name of its user. A manufacturer's name may hold any letter; those that could need quotes
    /// somewhere are replaced, and a hash keeps such names apart.
    pub fn user(&self) -> String {
        match self {
            Self::Service(service) => service.user().to_owned(),
            Self::Tenant(name) => format!("doseline_tenant_{name}"),
            Self::Manufacturer(name) => {
                let plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-');
                let mut user = "doseline_manufacturer_".to_owned();
                user.extend(name.chars().map(|letter| if plain(letter) { letter } else { '_' }));
                if !name.chars().all(plain) {
                    user = format!("{user}_{:.8x}", Sha256::digest(name));
                }
                user
            }
        }
    }

    /// Name of its role. It differs from the user's: where both fit, ClickHouse takes the user.
    fn role(&self) -> String {
        format!("{}_role", self.user())
    }

    /// Its rights, as in `GRANT`.
    pub fn rights(&self, database: &str) -> Vec<String> {
        let mut rights = Vec::new();
        match self {
            Self::Service(Service::Migrate) => {
                let makes = "SELECT, INSERT, CREATE DATABASE, CREATE TABLE, CREATE VIEW, DROP TABLE, DROP VIEW, ALTER TABLE, \
                             ALTER VIEW";
                rights.push(format!("{makes} ON {database}.*"));
                rights.extend(ENGINES.iter().map(|engine| format!("TABLE ENGINE ON {engine}")));
            }
            Self::Service(service) => {
                for decision in DECISIONS {
                    let of = decision.of(*service);
                    if !of.is_empty() {
                        let names: Vec<_> = of.iter().map(|right| right.sql()).collect();
                        rights.push(format!("{} ON {database}.{}", names.join(", "), decision.relation));
                    }
                }
                let columns = COLUMN_RIGHTS.iter().filter(|(of, ..)| of == service);
                rights.extend(columns.map(|(_, relation, right)| format!("{right} ON {database}.{relation}")));
            }
            Self::Tenant(_) => {
                let read = DECISIONS.iter().filter(|decision| decision.for_tenants);
                rights.extend(read.map(|decision| select(database, decision)));
            }
            Self::Manufacturer(_) => {
                let read = DECISIONS.iter().filter(|decision| decision.owner == Owner::Manufacturer);
                rights.extend(read.map(|decision| select(database, decision)));
            }
        }
        if let Self::Service(service) = self {
            let tables = SYSTEM.iter().filter(|(of, _)| of == service).flat_map(|(_, tables)| *tables);
            rights.extend(tables.map(|table| format!("SELECT ON system.{table}")));
        }
        rights
    }

    /// The rows it sees of a relation; `None` = all.
    fn condition(&self, owner: Owner, for_tenants: bool) -> Option<String> {
        match (self, owner) {
            (Self::Service(_), _) => None,
            (Self::Tenant(name), Owner::Tenant) => Some(format!("tenant = {}", quoted(name))),
            (Self::Tenant(name), Owner::TenantOrGeneral) => Some(format!("tenant IN ('', {})", quoted(name))),
            (Self::Tenant(_), Owner::Nobody) if for_tenants => None,
            (Self::Manufacturer(name), Owner::Manufacturer) => Some(format!("manufacturer = {}", quoted(name))),
            _ => Some(NOTHING.to_owned()),
        }
    }

    /// The relations whose rows are withheld, by condition.
    pub fn policies(&self) -> Vec<(String, Vec<&'static str>)> {
        let mut policies: Vec<(String, Vec<&'static str>)> = Vec::new();
        for Decision { relation, owner, for_tenants, .. } in DECISIONS {
            let Some(condition) = self.condition(*owner, *for_tenants) else { continue };
            match policies.iter_mut().find(|(known, _)| *known == condition) {
                Some((_, relations)) => relations.push(relation),
                None => policies.push((condition, vec![relation])),
            }
        }
        policies
    }

    fn profile(&self) -> &'static Profile {
        match self {
            Self::Service(Service::Migrate | Service::Load) => &PATH,
            Self::Service(Service::Monitor) => &MONITOR,
            Self::Service(Service::Operate) => &OPERATE,
            Self::Service(Service::Bridge | Service::Serve | Service::Dashboards) | Self::Tenant(_) => &READERS,
            Self::Manufacturer(_) => &READERS,
        }
    }

    /// Limits for each hour and user; none for what must never stand still.
    fn quota(&self) -> Option<&'static str> {
        match self {
            Self::Tenant(_) | Self::Manufacturer(_) => Some("queries = 20000, errors = 2000, execution_time = 7200"),
            Self::Service(Service::Dashboards) => Some("queries = 100000, errors = 10000, execution_time = 36000"),
            Self::Service(_) => None,
        }
    }
}

fn select(database: &str, decision: &Decision) -> String {
    format!("{} ON {database}.{}", Right::Select.sql(), decision.relation)
}

fn wrong(key: &'static str, value: &str, remedy: &'static str) -> Error {
    let shown: String = value.chars().take(SHOWN_MAX).collect();
    let more = if shown.len() < value.len() { "..." } else { "" };
    Error::Option { key, value: format!("{shown}{more}"), remedy }
}

/// Engines of the tables of the schema.
const ENGINES: [&str; 2] = ["MergeTree", "ReplacingMergeTree"];

/// A settings profile.
struct Profile {
    name: &'static str,
    settings: &'static [&'static str],
}

/// A loader or a migration that is cut off would hold up everything behind it.
const PATH: Profile = Profile { name: "doseline_path", settings: &["readonly = 0"] };
const MONITOR: Profile = Profile {
    name: "doseline_monitor",
    settings: &["max_execution_time = 300 MIN 1 MAX 300", "max_memory_usage = 8000000000 MIN 1 MAX 8000000000"],
};
/// `reconcile` reads whole days.
const OPERATE: Profile = Profile {
    name: "doseline_operate",
    settings: &["max_execution_time = 14400 MIN 1 MAX 14400", "max_memory_usage = 8000000000 MIN 1 MAX 8000000000"],
};
/// `readonly = 2`: nothing is written, and a client may set formats and lower limits.
const READERS: Profile = Profile {
    name: "doseline_readers",
    settings: &[
        "readonly = 2 READONLY",
        "allow_ddl = 0 READONLY",
        "allow_introspection_functions = 0 READONLY",
        "max_execution_time = 30 MIN 1 MAX 30",
        "max_result_rows = 1000000 MIN 1 MAX 1000000",
        "result_overflow_mode = 'throw' READONLY",
        "max_memory_usage = 4000000000 MIN 1 MAX 4000000000",
    ],
};

/// A password as ClickHouse stores it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PasswordHash {
    /// SHA-256 of password and salt, hex.
    hash: String,
    salt: String,
}

impl PasswordHash {
    /// The salt is a text that no other password has.
    pub fn new(password: &str, salt: String) -> Self {
        Self { hash: format!("{:x}", Sha256::digest(format!("{password}{salt}"))), salt }
    }
}

/// One subject, and the password of its user. Without a password no user is created: the role can
/// be given to a user that the installation has already.
#[derive(Clone, Debug)]
pub struct Grant {
    pub subject: Subject,
    pub password: Option<PasswordHash>,
}

impl Grant {
    /// The statements, in their order.
    pub fn statements(&self, database: &str) -> Vec<String> {
        let (user, role) = (self.subject.user(), self.subject.role());
        let (user, role) = (format!("`{user}`"), format!("`{role}`"));
        let Profile { name: profile, settings } = self.subject.profile();
        let mut statements = vec![
            format!("CREATE ROLE IF NOT EXISTS {role}"),
            format!("GRANT {} TO {role} WITH REPLACE OPTION", self.subject.rights(database).join(", ")),
        ];
        let withheld = WITHHELD.iter().filter(|(service, ..)| self.subject == Subject::Service(*service));
        statements.extend(
            withheld
                .map(|(_, relation, column)| format!("REVOKE SELECT({column}) ON {database}.{relation} FROM {role}")),
        );
        // Without it a server that hides rows from users without a policy would hide them from
        // this role too.
        statements.push(format!(
            "CREATE ROW POLICY OR REPLACE `{}_all` ON {database}.* AS PERMISSIVE FOR SELECT USING 1 TO {role}",
            self.subject.user()
        ));
        for (condition, relations) in self.subject.policies() {
            let places: Vec<_> = relations.iter().map(|relation| format!("{database}.{relation}")).collect();
            statements.push(format!(
                "CREATE ROW POLICY OR REPLACE {user} ON {} AS RESTRICTIVE FOR SELECT USING {condition} TO {role}",
                places.join(", ")
            ));
        }
        statements.push(format!("CREATE SETTINGS PROFILE IF NOT EXISTS {profile}"));
        statements.push(format!("ALTER SETTINGS PROFILE {profile} SETTINGS {}", settings.join(", ")));
        statements.push(format!("ALTER ROLE {role} SETTINGS PROFILE '{profile}'"));
        if let Some(most) = self.subject.quota() {
            statements.push(format!(
                "CREATE QUOTA OR REPLACE {user} KEYED BY user_name FOR INTERVAL 1 hour MAX {most} TO {role}"
            ));
        }
        if let Some(PasswordHash { hash, salt }) = &self.password {
            let identified = format!("IDENTIFIED WITH sha256_hash BY '{hash}' SALT '{salt}'");
            statements.push(format!("CREATE USER IF NOT EXISTS {user} {identified}"));
            statements.push(format!("GRANT {role} TO {user}"));
            statements.push(format!("ALTER USER {user} {identified} DEFAULT ROLE {role}"));
        }
        statements
    }
}

/// The first version of each release in which `mergeTreeIndex` and `mergeTreeProjection` keep to
/// row policies (ClickHouse's pull requests 115304 and 112329). In a version before it, whoever may
/// read a table reads the key columns of all its rows.
const KEEPS_TO_POLICIES: [[u32; 4]; 4] = [[26, 3, 22, 6], [26, 5, 8, 18], [26, 6, 4, 10], [26, 7, 6, 5]];

/// Whether row policies hold for every way to read a table. A version that cannot be read counts
/// as one in which they do not.
fn keeps_to_policies(version: &str) -> bool {
    let numbers: Vec<u32> = version.split('.').take(4).filter_map(|number| number.parse().ok()).collect();
    let Ok(version) = <[u32; 4]>::try_from(numbers) else { return false };
    let last = KEEPS_TO_POLICIES[KEEPS_TO_POLICIES.len() - 1];
    version >= last || KEEPS_TO_POLICIES.iter().any(|fixed| version[..2] == fixed[..2] && version >= *fixed)
}

/// Refuses to let a tenant into a ClickHouse that shows it the keys of others.
async fn require_policies_that_hold(warehouse: &Warehouse) -> Result<(), Error> {
    let query = warehouse.client().with_database("system").query_raw("SELECT version()");
    let version: Vec<String> = warehouse.fetch(query).await?;
    let version = version.first().map_or("", String::as_str);
    if keeps_to_policies(version) {
        return Ok(());
    }
    Err(Error::Incompatible(format!(
        "ClickHouse {version} does not keep to row policies in mergeTreeIndex and mergeTreeProjection, so that a tenant could \
         read names of others; use 26.8 or later, or at least 26.7.6.5, 26.6.4.10, 26.5.8.18 or 26.3.22.6"
    )))
}

/// Applies the statements of all grants. The user of the warehouse needs the right to manage
/// access.
///
/// # Errors
/// [`Error::Option`] for a manufacturer that the registry does not know, [`Error::Incompatible`]
/// for a tenant in a ClickHouse that does not keep to row policies. As [`Warehouse::execute`]
/// otherwise; running it again continues.
#[boxed]
pub async fn apply(warehouse: &Warehouse, grants: &[Grant]) -> Result<(), Error> {
    for Grant { subject, .. } in grants {
        match subject {
            Subject::Manufacturer(name) => require_known(warehouse, name).await?,
            Subject::Tenant(_) => require_policies_that_hold(warehouse).await?,
            Subject::Service(_) => {}
        }
    }
    let database = warehouse.database();
    for grant in grants {
        for statement in grant.statements(database) {
            run(warehouse, &statement).await?;
        }
    }
    let migrates = |grant: &Grant| grant.subject == Subject::Service(Service::Migrate) && grant.password.is_some();
    if grants.iter().any(migrates) {
        for statement in definers(warehouse).await? {
            run(warehouse, &statement).await?;
        }
    }
    Ok(())
}

/// Runs outside of the database, which need not exist yet.
async fn run(warehouse: &Warehouse, sql: &str) -> Result<(), Error> {
    warehouse.execute(warehouse.client().with_database("system").query_raw(sql)).await
}

async fn require_known(warehouse: &Warehouse, name: &str) -> Result<(), Error> {
    let sql = "SELECT count() > 0 FROM devices_latest AS d WHERE d.manufacturer = ?";
    let known: Vec<bool> = warehouse.fetch(warehouse.query(sql).bind(name)).await?;
    if known == [true] {
        return Ok(());
    }
    Err(wrong("manufacturer", name, "no device in the registry has it; `doseline devices import` registers devices"))
}

/// Makes [`Service::Migrate`]'s user the definer of the views for manufacturers, where they exist
/// and another user made them.
async fn definers(warehouse: &Warehouse) -> Result<Vec<String>, Error> {
    let definer = Service::Migrate.user();
    let sql = "SELECT name FROM system.tables WHERE database = ? AND engine = 'View' AND definer NOT IN ('', ?)";
    let views: Vec<String> = warehouse
        .fetch(warehouse.client().with_database("system").query(sql).bind(warehouse.database()).bind(definer))
        .await?;
    let of_manufacturers = |view: &&String| {
        DECISIONS.iter().any(|decision| decision.owner == Owner::Manufacturer && decision.relation == view.as_str())
    };
    let database = warehouse.database();
    let change =
        |view: &String| format!("ALTER TABLE {database}.{view} MODIFY SQL SECURITY DEFINER DEFINER = `{definer}`");
    Ok(views.iter().filter(of_manufacturers).map(change).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_cannot_be_are_refused_and_shown_in_part() {
        for bad in ["", "a b", "acme'", "acme`; DROP TABLE x", "-acme", "a/b", "a\n", &"a".repeat(65)] {
            assert!(Subject::tenant(bad).is_err(), "{bad:?}");
        }
        for bad in ["", "a\nb", "\u{1d}", &"a".repeat(129)] {
            assert!(Subject::manufacturer(bad).is_err(), "{bad:?}");
        }
        let error = Subject::tenant(&"a".repeat(10_000)).unwrap_err().to_string();
        assert!(error.len() < 200 && error.starts_with("tenant = \"aaaa") && error.contains("a..."), "{error}");
        assert!(Subject::manufacturer(&"ü".repeat(10_000)).unwrap_err().to_string().len() < 300);
    }

    #[test]
    fn a_name_with_quotes_is_only_ever_a_literal() {
        let name = r"O'Neil \ `Söhne`";
        let subject = Subject::manufacturer(name).unwrap();
        assert_eq!(subject.user(), "doseline_manufacturer_O_Neil____S_hne__5496689c");
        let statements = Grant { subject, password: None }.statements("doseline");
        let literal = r"'O\'Neil \\ `Söhne`'";
        assert!(
            statements.iter().any(|sql| sql.contains(&format!("USING manufacturer = {literal} TO"))),
            "{statements:#?}"
        );
        assert!(statements.iter().all(|sql| !sql.replace(literal, "").contains("Neil \\")), "{statements:#?}");
        assert_ne!(
            Subject::manufacturer("O Neil    S hne ").unwrap().user(),
            "doseline_manufacturer_O_Neil____S_hne__5496689c"
        );
    }

    #[test]
    fn no_statement_shows_a_password() {
        let password = Some(PasswordHash::new("hunter2", "ab".to_owned()));
        let grants = [
            Grant { subject: Subject::Service(Service::Load), password: password.clone() },
            Grant { subject: Subject::tenant("acme").unwrap(), password },
        ];
        for grant in grants {
            let sql = grant.statements("doseline").join("\n");
            assert!(!sql.contains("hunter2"), "{sql}");
            // printf hunter2ab | sha256sum
            let hash = "beb79305b3afaf62d926c381011d4fb6a33cdb387b78a5fff4c023052d26aea8";
            assert_eq!(sql.matches(&format!("sha256_hash BY '{hash}' SALT 'ab'")).count(), 2, "{sql}");
        }
    }

    #[test]
    fn a_tenant_has_a_policy_on_every_relation_that_carries_one() {
        let subject = Subject::tenant("acme").unwrap();
        for Decision { relation, owner, for_tenants, .. } in DECISIONS {
            let condition = subject.condition(*owner, *for_tenants);
            let expected = match owner {
                Owner::Tenant => Some("tenant = 'acme'"),
                Owner::TenantOrGeneral => Some("tenant IN ('', 'acme')"),
                Owner::Nobody if *for_tenants => None,
                _ => Some("0"),
            };
            assert_eq!(condition.as_deref(), expected, "{relation}");
        }
    }

    #[test]
    fn versions_that_show_keys_past_policies_are_known() {
        for good in ["26.7.6.5", "26.7.10.1", "26.3.22.6", "26.8.1.1", "27.1.2.3", "26.5.9.1"] {
            assert!(keeps_to_policies(good), "{good}");
        }
        for bad in ["26.7.6.4", "26.7.2.1", "26.4.99.1", "25.8.99.1", "26.3.22.5", "", "x", "27", "26.8.x.1"] {
            assert!(!keeps_to_policies(bad), "{bad}");
        }
    }

    #[test]
    fn a_manufacturer_reads_three_views() {
        let subject = Subject::manufacturer("maker").unwrap();
        let views = vec!["calibration_by_age", "calibration_by_model", "calibration_by_unit"];
        let rights: Vec<_> = views.iter().map(|view| format!("SELECT ON doseline.{view}")).collect();
        assert_eq!(subject.rights("doseline"), rights);
        let shown: Vec<_> = subject.policies().into_iter().filter(|(condition, _)| condition != NOTHING).collect();
        assert_eq!(shown, [("manufacturer = 'maker'".to_owned(), views)]);
    }
}
