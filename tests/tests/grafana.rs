//! The dashboards and alert rules of `deploy/grafana`, without a Grafana: their JSON is looked
//! through, and every query is executed on the data of a simulated fleet, with variables and macros
//! replaced as Grafana and the plugin grafana-clickhouse-datasource replace them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use harness::{Doseline, Ready, Scratch, poll};
use serde_json::Value;
use warehouse::{
    rights::{DECISIONS, Right, Service},
    schema::RELATIONS,
};

const READY_WITHIN: Duration = Duration::from_secs(60);
const PAST_WITHIN: Duration = Duration::from_secs(180);
const EQUAL_WITHIN: Duration = Duration::from_secs(60);
/// The log line that ends the past of the simulated fleet.
const ARRIVED: &str = "four weeks of the past have arrived";
const DAYS: u64 = 29;
/// The schema of dashboards since Grafana 10.
const SCHEMA_VERSION: u64 = 39;
/// Panels that the simulated fleet leaves empty.
const EMPTY: [&str; 3] = ["Calibrations that are due", "Put into quarantine", "Records that Kafka no longer had"];
/// Paths of the page, by their first part.
const PAGES: [&str; 8] = ["alerts", "cycles", "devices", "fleet", "manufacturer", "pipeline", "sessions", "sterility"];

/// The chosen values of a variable; `None` = "All".
type Chosen<'v> = BTreeMap<&'v str, Option<Vec<&'v str>>>;

/// What a dashboard gives to a query: the time range, the interval of a point, and variables.
struct Board<'v> {
    from_s: u64,
    to_s: u64,
    interval_s: u64,
    chosen: Chosen<'v>,
}

impl Board<'_> {
    /// The query as ClickHouse gets it.
    ///
    /// The front end of the plugin decides `$__conditionalAll` first, then Grafana replaces the
    /// variables, then the back end of the plugin expands its macros.
    fn expand(&self, sql: &str) -> String {
        self.macros(&self.variables(&self.conditional(sql)))
    }

    fn values(&self, name: &str) -> Option<&[&str]> {
        let found = self.chosen.get(name).unwrap_or_else(|| panic!("no value for the variable {name}"));
        found.as_deref()
    }

    fn conditional(&self, sql: &str) -> String {
        const MACRO: &str = "$__conditionalAll(";
        let mut sql = sql.to_owned();
        while let Some(at) = sql.rfind(MACRO) {
            let (arguments, end) = arguments(&sql, at + MACRO.len() - 1);
            let [condition, variable] = arguments.as_slice() else { panic!("two arguments: {sql}") };
            let name = variable.strip_prefix('$').unwrap_or_else(|| panic!("a variable is written $name: {variable}"));
            let with = if self.values(name).is_none() { "1=1" } else { condition.as_str() }.to_owned();
            sql.replace_range(at..end, &with);
        }
        sql
    }

    fn variables(&self, sql: &str) -> String {
        let mut out = String::new();
        let mut rest = sql;
        while let Some(at) = rest.find("${") {
            let (before, from) = rest.split_at(at);
            let (inner, after) = from[2..].split_once('}').expect("an end of the variable");
            let (name, format) = inner.split_once(':').unwrap_or((inner, ""));
            assert_eq!(format, "sqlstring", "another format does not quote: {sql}");
            let values = self.values(name).unwrap_or_else(|| panic!("{name} is `All` outside of $__conditionalAll"));
            let quoted: Vec<_> = values.iter().map(|value| format!("'{}'", value.replace('\'', "''"))).collect();
            out.push_str(before);
            out.push_str(&quoted.join(","));
            rest = after;
        }
        out + rest
    }

    fn macros(&self, sql: &str) -> String {
        let Self { from_s, to_s, interval_s, .. } = self;
        let mut sql = sql.to_owned();
        while let Some(at) = sql.rfind("$__") {
            let name: String =
                sql[at + 3..].chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect();
            let after = at + 3 + name.len();
            let (arguments, end) =
                if sql[after..].starts_with('(') { arguments(&sql, after) } else { (Vec::new(), after) };
            let one = || arguments.first().unwrap_or_else(|| panic!("{name} needs a column: {sql}"));
            let with = match name.as_str() {
                "fromTime" => format!("toDateTime({from_s})"),
                "toTime" => format!("toDateTime({to_s})"),
                "timeFilter" => {
                    format!("{column} >= toDateTime({from_s}) AND {column} <= toDateTime({to_s})", column = one())
                }
                "timeFilter_ms" => format!(
                    "{column} >= fromUnixTimestamp64Milli({from_s}000) AND {column} <= fromUnixTimestamp64Milli({to_s}000)",
                    column = one()
                ),
                "dateFilter" => format!(
                    "{column} >= toDate('{}') AND {column} <= toDate('{}')",
                    day(*from_s),
                    day(*to_s),
                    column = one()
                ),
                "timeInterval" => format!("toStartOfInterval(toDateTime({}), INTERVAL {interval_s} second)", one()),
                "interval_s" => interval_s.to_string(),
                _ => panic!("$__{name} is no macro of the plugin: {sql}"),
            };
            sql.replace_range(at..end, &with);
        }
        sql
    }
}

/// The arguments between the bracket at `open` and its partner, and the place behind that.
fn arguments(sql: &str, open: usize) -> (Vec<String>, usize) {
    let (mut depth, mut found, mut argument) = (0, Vec::new(), String::new());
    for (at, letter) in sql[open..].char_indices() {
        match letter {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        match letter {
            '(' if depth == 1 => {}
            ')' if depth == 0 => {
                found.push(argument.trim().to_owned());
                return (found, open + at + 1);
            }
            ',' if depth == 1 => found.push(std::mem::take(&mut argument).trim().to_owned()),
            _ => argument.push(letter),
        }
    }
    panic!("no closing bracket: {sql}")
}

/// The UTC day of a time, as `2026-01-31` (days to civil date, Howard Hinnant's algorithm).
fn day(unix_s: u64) -> String {
    let days = unix_s / 86_400 + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/grafana")
}

/// The dashboards, by the names of their files.
fn dashboards() -> BTreeMap<String, Value> {
    let files = fs::read_dir(folder().join("dashboards")).expect("dashboards").map(|file| file.expect("a file").path());
    let read = |path: PathBuf| {
        let name = path.file_stem().expect("a name").to_str().expect("UTF-8").to_owned();
        (name, serde_json::from_slice(&fs::read(&path).expect("read it")).expect("JSON"))
    };
    files.map(read).collect()
}

fn alert_rules() -> Vec<Value> {
    let file = folder().join("provisioning/alerting/doseline.json");
    let whole: Value = serde_json::from_slice(&fs::read(file).expect("read it")).expect("JSON");
    list(&whole["groups"][0]["rules"]).to_vec()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

/// Title and query of each panel.
fn panels(dashboard: &Value) -> Vec<(&str, &str)> {
    let all = list(&dashboard["panels"]);
    assert!(all.iter().all(|panel| list(&panel["targets"]).len() == 1), "each panel has one query");
    all.iter().map(|panel| (text(&panel["title"]), text(&panel["targets"][0]["rawSql"]))).collect()
}

/// Names and queries of the variables that a query fills.
fn variables(dashboard: &Value) -> Vec<(&str, &str)> {
    let all = list(&dashboard["templating"]["list"]).iter().filter(|variable| variable["type"] == "query");
    all.map(|variable| (text(&variable["name"]), text(&variable["query"]))).collect()
}

/// Calls `see` with every text of a document, and with the key that it stands under.
fn each_text<'v>(key: &'v str, value: &'v Value, see: &mut impl FnMut(&'v str, &'v str)) {
    match value {
        Value::String(text) => see(key, text),
        Value::Array(values) => values.iter().for_each(|value| each_text(key, value, see)),
        Value::Object(fields) => fields.iter().for_each(|(key, value)| each_text(key, value, see)),
        _ => {}
    }
}

/// Names of the dashboard's variables that a text uses.
fn used(text: &str) -> BTreeSet<&str> {
    let names = text.split('$').skip(1).map(|rest| {
        let rest = rest.strip_prefix('{').unwrap_or(rest);
        rest.split(|letter: char| !letter.is_alphanumeric() && letter != '_').next().unwrap_or_default()
    });
    names.filter(|name| !name.is_empty() && !name.starts_with("__")).collect()
}

#[test]
fn macros_expand_as_the_plugin_expands_them() {
    let chosen = Chosen::from([("tenant", Some(vec!["a", "it's"])), ("site", None), ("device", Some(vec!["d"]))]);
    let board = Board { from_s: 1_415_792_726, to_s: 1_447_328_726, interval_s: 20, chosen };
    for (sql, expanded) in [
        ("$__timeFilter(t)", "t >= toDateTime(1415792726) AND t <= toDateTime(1447328726)"),
        (
            "$__timeFilter_ms(t)",
            "t >= fromUnixTimestamp64Milli(1415792726000) AND t <= fromUnixTimestamp64Milli(1447328726000)",
        ),
        ("$__dateFilter(d)", "d >= toDate('2014-11-12') AND d <= toDate('2015-11-12')"),
        ("$__fromTime, $__toTime", "toDateTime(1415792726), toDateTime(1447328726)"),
        ("$__timeInterval(t)", "toStartOfInterval(toDateTime(t), INTERVAL 20 second)"),
        ("$__conditionalAll(tenant IN (${tenant:sqlstring}), $tenant)", "tenant IN ('a','it''s')"),
        ("$__conditionalAll(site IN (${site:sqlstring}), $site) AND x", "1=1 AND x"),
        ("device = ${device:sqlstring} AND $__interval_s > 1", "device = 'd' AND 20 > 1"),
    ] {
        assert_eq!(board.expand(sql), expanded);
    }
    assert_eq!([day(0), day(951_782_400), day(1_798_761_599)], ["1970-01-01", "2000-02-29", "2026-12-31"]);
}

#[test]
fn dashboards_are_as_their_script_writes_them() {
    let scratch = Scratch::new("grafana");
    for inner in ["dashboards", "provisioning/alerting"] {
        fs::create_dir_all(scratch.join(inner)).expect("make a folder");
    }
    fs::copy(folder().join("dashboards.py"), scratch.join("dashboards.py")).expect("copy the script");
    let status = Command::new("python3").arg(scratch.join("dashboards.py")).status().expect("python3");
    assert!(status.success());
    let names = dashboards().into_keys().map(|name| format!("dashboards/{name}.json"));
    for file in names.chain(["provisioning/alerting/doseline.json".to_owned()]) {
        let read = |path: PathBuf| fs::read_to_string(path).unwrap_or_else(|error| panic!("{file}: {error}"));
        let same = read(scratch.join(&file)) == read(folder().join(&file));
        assert!(same, "deploy/grafana/{file} is not what dashboards.py writes: run it");
    }
}

/// Grafana takes a dollar sign in provisioned rules for a variable of its environment.
#[test]
fn rules_ask_the_provisioned_source_and_have_no_variables() {
    let read = |file: &str| fs::read_to_string(folder().join("provisioning").join(file)).expect("read it");
    assert!(!read("alerting/doseline.json").contains('$'));
    let source = read("datasources/doseline.yaml");
    for rule in alert_rules() {
        assert!(source.contains(&format!("uid: {}\n", text(&rule["data"][0]["datasourceUid"]))), "{}", rule["title"]);
    }
    let compose = fs::read_to_string(folder().join("../compose.yaml")).expect("read it");
    for variable in used(&source) {
        assert!(compose.contains(variable), "compose gives Grafana no {variable}");
    }
}

#[test]
fn dashboards_are_well_formed() {
    let dashboards = dashboards();
    let names: Vec<_> = dashboards.keys().map(String::as_str).collect();
    assert_eq!(names, ["device", "fleet", "manufacturer", "pipeline", "sterility"]);
    for (name, dashboard) in &dashboards {
        assert_eq!(dashboard["uid"], format!("doseline-{name}"));
        assert_eq!(dashboard["schemaVersion"], SCHEMA_VERSION, "{name}");
        assert_eq!(dashboard["timezone"], "utc", "{name}");
        let panels = list(&dashboard["panels"]);
        let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().expect("a number")).collect();
        assert_eq!(ids.len(), panels.len(), "{name}: every panel has an id of its own");
        let place = |panel: &Value, side: &str| panel["gridPos"][side].as_u64().expect("a number");
        let mut taken = BTreeSet::new();
        for panel in panels {
            let (x, y) = (place(panel, "x"), place(panel, "y"));
            for cell in (x..x + place(panel, "w")).flat_map(|x| (y..y + place(panel, "h")).map(move |y| (x, y))) {
                assert!(cell.0 < 24 && taken.insert(cell), "{name}: {} lies over another panel", panel["title"]);
            }
        }
        let variables: BTreeSet<_> =
            list(&dashboard["templating"]["list"]).iter().map(|variable| text(&variable["name"])).collect();
        let mut unused = variables.clone();
        each_text("", dashboard, &mut |key, text| {
            for variable in used(text) {
                assert!(variables.contains(variable), "{name}: the variable {variable} is not defined: {text}");
                unused.remove(variable);
            }
            if key == "url" && !text.is_empty() {
                let path = text.strip_prefix("${page}/").unwrap_or_else(|| panic!("{name}: not of the page: {text}"));
                assert!(PAGES.contains(&path.split('/').next().unwrap_or_default()), "{name}: {text}");
            }
        });
        assert_eq!(unused, BTreeSet::new(), "{name} defines them and uses them nowhere");
        sources(name, dashboard);
    }
}

/// No dashboard names a data source of one installation.
fn sources(name: &str, value: &Value) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| sources(name, value)),
        Value::Object(fields) => {
            if let Some(source) = fields.get("datasource") {
                assert_eq!(source["uid"], "${datasource}", "{name}");
                assert_eq!(source["type"], "grafana-clickhouse-datasource", "{name}");
            }
            fields.values().for_each(|value| sources(name, value));
        }
        _ => {}
    }
}

#[test]
fn the_user_of_grafana_may_read_what_the_queries_read() {
    let dashboards = dashboards();
    let rules = alert_rules();
    let queries = dashboards.values().flat_map(|dashboard| panels(dashboard).into_iter().chain(variables(dashboard)));
    let of_rules = rules.iter().map(|rule| (text(&rule["title"]), text(&rule["data"][0]["model"]["rawSql"])));
    for (title, sql) in queries.chain(of_rules) {
        let words: Vec<_> = sql.split(|letter: char| !letter.is_alphanumeric() && letter != '_').collect();
        for (relation, _) in RELATIONS {
            let reads = words.windows(2).any(|pair| ["FROM", "JOIN"].contains(&pair[0]) && pair[1] == *relation);
            let decision = DECISIONS.iter().find(|decision| decision.relation == *relation).expect("a decision");
            let may = decision.of(Service::Dashboards).contains(&Right::Select);
            assert!(!reads || may, "{title}: doseline_dashboards must not read {relation}");
        }
    }
}

/// A running fleet, and what a person chooses on the dashboards.
struct Fleet {
    doseline: Doseline,
    ready: Ready,
}

impl Fleet {
    fn start() -> Self {
        let any_port = ["--mqtt-port", "0", "--kafka-port", "0", "--clickhouse-port", "0", "--http-port", "0"];
        let arguments: Vec<_> = ["up", "--simulate", "25"].into_iter().chain(any_port).collect();
        let mut doseline = Doseline::start(&arguments);
        let ready = doseline.wait_until_ready(READY_WITHIN);
        doseline.wait_for_line(ARRIVED, PAST_WITHIN);
        // The simulated fleet has no manufacturer.
        ready.change(
            &doseline.folder().join("doseline-data"),
            "INSERT INTO doseline.devices (tenant, device, site, kind, model, manufacturer, serial, origin, valid_from, recorded_at)
             SELECT tenant, device, any(site), 'INJECTOR', any(model), 'maker', device, 'IMPORTED',
               toDateTime64('2020-01-01', 6, 'UTC'), now64(6) FROM doseline.injections GROUP BY tenant, device",
        );
        poll(PAST_WITHIN, "the verdicts on the past", || {
            match ready.query("SELECT countIf(kind LIKE 'sterility%') >= 3 AND countIf(kind LIKE 'accuracy%') >= 1 FROM doseline.open_alerts").as_str() {
                "1" => Ok(()),
                other => Err(other.to_owned()),
            }
        });
        Self { doseline, ready }
    }

    fn board<'v>(&self, tenant: Option<&'v str>) -> Board<'v> {
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        let chosen = Chosen::from([
            ("tenant", tenant.map(|tenant| vec![tenant])),
            ("site", None),
            ("device", Some(vec!["inj-0001"])),
            ("manufacturer", Some(vec!["maker"])),
            ("model", None),
            ("channel", Some(vec!["DOSE"])),
        ]);
        Board { from_s: now_s - DAYS * 86_400, to_s: now_s, interval_s: 3600, chosen }
    }

    /// The rows of an answer.
    fn rows(&self, sql: &str) -> Vec<BTreeMap<String, Value>> {
        let answer = query(&self.ready, None, &format!("{sql} FORMAT JSONEachRow"));
        answer.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// The plan of a statement, as the owner: readers may not ask for it.
    fn plan(&self, sql: &str) -> String {
        let running = fs::read(self.doseline.folder().join("doseline-data/running.json")).expect("it runs there");
        let running: Value = serde_json::from_slice(&running).expect("JSON");
        query(&self.ready, running["config"]["clickhouse"]["password"].as_str(), &format!("EXPLAIN indexes = 1 {sql}"))
    }
}

/// Executes a statement in the database that the data source names.
fn query(ready: &Ready, password: Option<&str>, sql: &str) -> String {
    let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
    let mut request = agent.post(format!("{}/?database=doseline", ready.clickhouse));
    if let Some(password) = password {
        request = request.header("X-ClickHouse-User", "doseline").header("X-ClickHouse-Key", password);
    }
    let mut answer = request.send(sql).unwrap_or_else(|error| panic!("{error}\nin {sql}"));
    let text = answer.body_mut().with_config().limit(1 << 30).read_to_vec().expect("an answer");
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(answer.status().is_success(), "{text}\nin {sql}");
    text
}

/// The columns of each index that a plan uses, by table.
fn indexes(plan: &str) -> Vec<(String, BTreeMap<&str, BTreeSet<&str>>)> {
    let mut tables: Vec<(String, BTreeMap<&str, BTreeSet<&str>>)> = Vec::new();
    let (mut index, mut in_keys) = ("", false);
    for line in plan.lines() {
        let word = line.trim_matches(|letter: char| letter.is_whitespace() || "│└├─".contains(letter));
        if let Some(table) = word.strip_prefix("ReadFromMergeTree (") {
            tables.push((table.trim_end_matches(')').trim_start_matches("doseline.").to_owned(), BTreeMap::new()));
            (index, in_keys) = ("", false);
        } else if ["Min-Max", "Partition", "PrimaryKey", "Skip"].contains(&word) {
            (index, in_keys) = (word, false);
        } else if word.contains(':') {
            in_keys = word == "Keys:" && !index.is_empty();
        } else if in_keys && let Some((_, used)) = tables.last_mut() {
            used.entry(index).or_default().insert(word);
        }
    }
    tables
}

#[test]
fn every_query_finds_what_the_fleet_did_and_by_the_index() {
    let fleet = Fleet::start();
    let dashboards = dashboards();
    for (name, dashboard) in &dashboards {
        for (title, sql) in variables(dashboard) {
            let rows = fleet.rows(&fleet.board(Some("tenant-1")).expand(sql));
            assert!(!rows.is_empty(), "{name}: no value for the variable {title}");
        }
        for (title, sql) in panels(dashboard) {
            // The dashboard of a device has one tenant.
            let alternatives = if name == "device" { vec![Some("tenant-1")] } else { vec![None, Some("tenant-1")] };
            for tenant in alternatives {
                let rows = fleet.rows(&fleet.board(tenant).expand(sql));
                assert!(!rows.is_empty() || EMPTY.contains(&title), "{name}: {title} is empty for {tenant:?}");
            }
            check_plan(&fleet, name, title, sql);
        }
    }
    for rule in alert_rules() {
        let rows = fleet.rows(text(&rule["data"][0]["model"]["rawSql"]));
        let number = rows.first().and_then(|row| row.values().next()).expect("a row with a number");
        assert!(rows.len() == 1 && rows[0].len() == 1 && number.to_string().trim_matches('"').parse::<f64>().is_ok());
    }
    figures(&fleet, &dashboards);
}

/// Each table is read by its order: by tenant, or by the kind of a row in the loader's own table.
/// The views for manufacturers have no tenant and read all sessions.
fn check_plan(fleet: &Fleet, name: &str, title: &str, sql: &str) {
    if name == "manufacturer" {
        return;
    }
    let plan = fleet.plan(&fleet.board(Some("tenant-1")).expand(sql));
    for (table, used) in indexes(&plan) {
        let uses = |index: &str, column: &str| used.get(index).is_some_and(|columns| columns.contains(column));
        let by_order = match (name, table.as_str()) {
            // One row for each topic; and in the pipeline all tenants are read.
            (_, "kafka_topics") => true,
            ("pipeline", "loader_commits") => uses("PrimaryKey", "kind"),
            ("pipeline", _) => true,
            _ => uses("PrimaryKey", "tenant"),
        };
        assert!(by_order, "{name}: {title} reads all of {table}\n{plan}");
        if sql.contains("ingest_day") {
            assert!(uses("Partition", "ingest_day"), "{name}: {title} reads every day of {table}\n{plan}");
        }
        if sql.contains("$__timeFilter(minute)") {
            assert!(uses("PrimaryKey", "minute"), "{name}: {title} reads every minute of {table}\n{plan}");
        }
    }
}

/// A figure of each dashboard against the facts. The fleet goes on, so both are asked again until
/// they agree.
fn figures(fleet: &Fleet, dashboards: &BTreeMap<String, Value>) {
    let sql = |name: &str, title: &str| {
        let found = panels(&dashboards[name]).into_iter().find(|(found, _)| *found == title);
        found.unwrap_or_else(|| panic!("{name} has no panel {title}")).1.to_owned()
    };
    let agree = |name: &str, title: &str, figure: &str, truth: &str| {
        poll(EQUAL_WITHIN, &format!("{name}: {title}"), || {
            let panel = fleet.board(None).expand_for(name, &sql(name, title));
            let (found, known) = (
                query(&fleet.ready, None, &format!("SELECT {figure} FROM ({panel})")),
                query(&fleet.ready, None, truth),
            );
            if found == known && found.trim() != "0" { Ok(()) } else { Err(format!("{found} and not {known}")) }
        });
    };
    agree(
        "fleet",
        "Injections by outcome",
        "sum(OK + PARTIAL + ABORTED + OCCLUDED + NO_CONTACT)",
        "SELECT count() FROM injections WHERE outcome != ''",
    );
    agree(
        "device",
        "Dose error of each injection",
        "count(), round(sum(error_pct), 3)",
        "SELECT count(), round(sum(100 * (delivered_nl / target_nl - 1)), 3) FROM injections
         WHERE tenant = 'tenant-1' AND device = 'inj-0001' AND target_nl > 0 AND delivered_nl IS NOT NULL",
    );
    // The failed cycle is one of the stories of the simulated fleet.
    agree(
        "sterility",
        "Cycles that did not pass",
        "count(), any(device), any(verdict)",
        "SELECT 1, 'ster-0004', 'FAILED'",
    );
    agree(
        "manufacturer",
        "Units",
        "sum(injections)",
        "SELECT count() FROM injections WHERE outcome IN ('OK', '') AND target_nl > 0 AND delivered_nl IS NOT NULL
         AND dose_source NOT IN ('SETTING', '')",
    );
    // Seven events of inj-0003 never arrive: another of the stories.
    agree("pipeline", "Gaps", "any(device), sum(last_missing - first_missing + 1)", "SELECT 'inj-0003', 7");
    agree("pipeline", "Delivery", "sum(missing)", "SELECT 7");
}

impl Board<'_> {
    /// As [`Self::expand`]; the dashboard of a device has one tenant.
    fn expand_for(mut self, dashboard: &str, sql: &str) -> String {
        if dashboard == "device" {
            self.chosen.insert("tenant", Some(vec!["tenant-1"]));
        }
        self.expand(sql)
    }
}
