//! What a client without the owner's password may ask. Such a client is a *reader*. Two locks guard
//! the engine against readers:
//!
//! - The engine's own lock: the connection has the role `reader`, which only grants `SELECT` on one
//!   database.
//! - This allow-list, for what no grant of the engine covers. It guards functions that reach
//!   outside (`file` reads any file of this machine), the tables of `system`, settings, the other
//!   role, and results that are written to files.
//!
//! The list is applied to the engine's own syntax tree of the statement (`EXPLAIN AST`). A node,
//! function or table that is not listed is refused, however it is written.

use super::exception::{Exception, SYNTAX_ERROR};
use super::library::{Class, Connection, Parameters};
use std::collections::HashSet;
use std::sync::LazyLock;
use std::time::Duration;

/// Functions and table functions, in lower case, that neither reach outside the engine nor reveal
/// anything about this machine. Functions of a newer engine are refused until they are added here.
static FUNCTIONS: LazyLock<HashSet<&str>> =
    LazyLock::new(|| include_str!("functions.txt").split_whitespace().collect());

/// Suffixes that may follow the name of an aggregate function, in lower case.
const COMBINATORS: [&str; 15] = [
    "array",
    "argmax",
    "argmin",
    "distinct",
    "foreach",
    "if",
    "map",
    "merge",
    "null",
    "ordefault",
    "ornull",
    "resample",
    "simplestate",
    "state",
    "tuple",
];

/// Nodes whose children the tree shows.
const NODES: [&str; 33] = [
    "ArrayJoin",
    "Asterisk",
    "ColumnsExceptTransformer",
    "ColumnsListMatcher",
    "ColumnsRegexpMatcher",
    "ColumnsReplaceTransformer",
    "ColumnsReplaceTransformer::Replacement",
    "ColumnsTransformerList",
    "DescribeQuery",
    "ExistsDatabaseQuery",
    "ExistsTableQuery",
    "ExistsViewQuery",
    "ExpressionList",
    "InterpolateElement",
    "Literal",
    "OrderByElement",
    "QualifiedAsterisk",
    "QualifiedColumnsListMatcher",
    "QualifiedColumnsRegexpMatcher",
    "SampleRatio",
    "SelectIntersectExceptQuery",
    "SelectQuery",
    "SelectWithUnionQuery",
    "ShowCreateDatabaseQuery",
    "ShowCreateTableQuery",
    "ShowCreateViewQuery",
    "Subquery",
    "TableExpression",
    "TableJoin",
    "TablesInSelectQuery",
    "TablesInSelectQueryElement",
    "WindowDefinition",
    "WithElement",
];

/// Nodes whose children the tree hides. Without a bracket they cannot contain a function call.
const CLOSED_NODES: [&str; 4] = ["ShowColumns", "ShowFunctions", "ShowGrantsQuery", "ShowTables"];

/// Tables of `system` that describe the engine and the tables, but neither this machine nor
/// statements of other clients.
const SYSTEM_TABLES: [&str; 24] = [
    "aggregate_function_combinators",
    "collations",
    "columns",
    "constraints",
    "data_skipping_indices",
    "data_type_families",
    "databases",
    "formats",
    "functions",
    "keywords",
    "merges",
    "numbers",
    "numbers_mt",
    "one",
    "parts",
    "parts_columns",
    "primes",
    "settings",
    "table_engines",
    "table_functions",
    "tables",
    "time_zones",
    "zeros",
    "zeros_mt",
];

/// Those of these tables that name paths of this machine, and the columns with these paths.
const TABLES_WITH_PATHS: [&str; 5] = ["databases", "merges", "parts", "parts_columns", "tables"];
const PATHS: [&str; 6] = ["data_path", "data_paths", "metadata_path", "path", "result_part_path", "source_part_paths"];

/// Settings that limit a statement or change how its result is written.
const SETTINGS: [&str; 47] = [
    "cast_keep_nullable",
    "cast_string_to_dynamic_use_inference",
    "date_time_input_format",
    "date_time_output_format",
    "decimal_check_overflow",
    "extremes",
    "group_by_overflow_mode",
    "join_algorithm",
    "join_use_nulls",
    "max_block_size",
    "max_bytes_before_external_group_by",
    "max_bytes_before_external_sort",
    "max_bytes_to_read",
    "max_execution_time",
    "max_memory_usage",
    "max_result_bytes",
    "max_result_rows",
    "max_rows_to_group_by",
    "max_rows_to_read",
    "max_threads",
    "network_compression_method",
    "network_zstd_compression_level",
    "output_format_arrow_compression_method",
    "output_format_arrow_string_as_string",
    "output_format_csv_crlf_end_of_line",
    "output_format_decimal_trailing_zeros",
    "output_format_json_array_of_rows",
    "output_format_json_escape_forward_slashes",
    "output_format_json_named_tuples_as_objects",
    "output_format_json_quote_64bit_floats",
    "output_format_json_quote_64bit_integers",
    "output_format_json_quote_decimals",
    "output_format_json_quote_denormals",
    "output_format_native_encode_types_in_binary_format",
    "output_format_native_use_flattened_dynamic_and_json_serialization",
    "output_format_parquet_compression_method",
    "output_format_parquet_string_as_string",
    "output_format_pretty_color",
    "output_format_pretty_max_rows",
    "output_format_tsv_crlf_end_of_line",
    "output_format_write_statistics",
    "prefer_column_name_to_alias",
    "read_overflow_mode",
    "result_overflow_mode",
    "session_timezone",
    "timeout_overflow_mode",
    "transform_null_in",
];

/// How long a reader's statement may run.
pub const EXECUTION_TIME_MAX: Duration = Duration::from_secs(60);

/// What a reader's statement may use. A request may lower each of these limits but not raise it.
#[derive(Clone, Copy, Debug)]
pub struct ReaderLimits([(&'static str, u64); 3]);

impl ReaderLimits {
    /// All readers together get half of the engine's memory; the other half belongs to the owner.
    /// Each reader gets the number of threads that ClickHouse uses by default.
    pub fn new(engine_bytes: u64, readers_max: usize) -> Self {
        let readers = u64::try_from(readers_max.max(1)).unwrap_or(u64::MAX);
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self([
            ("max_execution_time", EXECUTION_TIME_MAX.as_secs()),
            ("max_memory_usage", (engine_bytes / 2 / readers).max(1)),
            ("max_threads", u64::try_from(threads).unwrap_or(1)),
        ])
    }

    /// The SQL statement that sets these limits.
    pub fn statement(&self) -> String {
        let assignments: Vec<String> = self.0.iter().map(|(name, most)| format!("{name} = {most}")).collect();
        format!("SET {}", assignments.join(", "))
    }

    /// Lowers settings that ask for more than the limit, or for no limit (0).
    pub fn lower(&self, settings: &mut [(String, String)]) {
        for (name, value) in settings {
            if let Some((_, most)) = self.0.iter().find(|(limited, _)| limited == name)
                && !value.parse::<u64>().is_ok_and(|asked| (1..=*most).contains(&asked))
            {
                *value = most.to_string();
            }
        }
    }
}

/// Whether a reader may change these settings.
///
/// # Errors
/// `SETTING_CONSTRAINT_VIOLATION`.
pub fn permit_settings(settings: &[(String, String)]) -> Result<(), Exception> {
    match settings.iter().find(|(name, value)| !(SETTINGS.contains(&&**name) || name == "readonly" && value != "0")) {
        None => Ok(()),
        Some((name, _)) => {
            let message = format_args!("Setting {name} should not be changed by a reader");
            Err(Exception::new(452, "SETTING_CONSTRAINT_VIOLATION", message))
        }
    }
}

/// Whether a reader may run this statement. The check runs no part of it.
///
/// # Errors
/// The missing right (`ACCESS_DENIED`), or the message of the engine's parser.
pub fn permit(connection: &mut Connection, sql: &[u8], parameters: &Parameters) -> Result<(), Exception> {
    // `EXPLAIN AST a; b` would run `b`.
    if connection.classify(sql) == Class::Unknown {
        let literal = super::quote::quote(&String::from_utf8_lossy(sql), '\'');
        connection.query(format!("SELECT formatQuery({literal})").as_bytes(), "Null", &[])?;
        return Err(Exception::new(SYNTAX_ERROR, "SYNTAX_ERROR", "Not one statement that this engine can read"));
    }
    // The tree does not show OUTFILE everywhere, and `EXPLAIN AST` would itself write the file.
    if sql.windows(7).any(|word| word.eq_ignore_ascii_case(b"OUTFILE")) {
        return Err(denied("to use the word OUTFILE"));
    }
    let explain = [b"EXPLAIN AST ", sql].concat();
    let tree = connection.query(&explain, "TSVRaw", parameters)?;
    let tree = String::from_utf8_lossy(tree.bytes());
    let lines: Vec<&str> = tree.lines().map(str::trim_start).filter(|line| !line.is_empty()).collect();
    lines.iter().try_for_each(|line| permit_node(line, sql))?;
    permit_paths(&lines)
}

/// If a statement reads a table that names paths of this machine, it must name its columns, and
/// none of them may hold paths.
fn permit_paths(lines: &[&str]) -> Result<(), Exception> {
    let node = |line: &str| -> (String, String) {
        let mut words = line.split(' ');
        let mut word = || words.next().unwrap_or_default().to_owned();
        (word(), word())
    };
    let reads_paths = lines.iter().map(|line| node(line)).any(|(kind, name)| {
        let table = name.strip_prefix("system.").filter(|_| kind.ends_with("Identifier"));
        table.is_some_and(|table| TABLES_WITH_PATHS.iter().any(|listed| is_within(table, listed)))
    });
    if !reads_paths {
        return Ok(());
    }
    for (at, line) in lines.iter().enumerate() {
        let (kind, name) = node(line);
        let counted = || {
            let (kind, name) = at.checked_sub(2).map(|at| node(lines[at])).unwrap_or_default();
            kind == "Function" && name.eq_ignore_ascii_case("count")
        };
        match kind.as_str() {
            "Asterisk" if counted() => {}
            "Asterisk" | "QualifiedAsterisk" => {
                return Err(denied("to read all columns of this table of system; name those without paths"));
            }
            kind if kind.ends_with("Matcher") => {
                return Err(denied("to choose columns of this table of system by a pattern; name those without paths"));
            }
            "Identifier" if name.rsplit('.').next().is_some_and(|last| PATHS.contains(&last)) => {
                return Err(denied(&format!("SELECT({name}) ON a table of system")));
            }
            _ => {}
        }
    }
    Ok(())
}

/// `line` is `KIND`, `KIND NAME` or `KIND NAME (alias ALIAS) (children COUNT)`.
fn permit_node(line: &str, sql: &[u8]) -> Result<(), Exception> {
    let (kind, rest) = line.split_once(' ').unwrap_or((line, ""));
    let name = rest.split(' ').next().unwrap_or_default();
    match kind {
        "Function" if is_harmless(name) => Ok(()),
        "Function" => Err(denied(&format!("EXECUTE ON function {name}"))),
        "Identifier" | "TableIdentifier" => match name.strip_prefix("system.") {
            Some(table) if !SYSTEM_TABLES.iter().any(|listed| is_within(table, listed)) => {
                Err(denied(&format!("SELECT ON {name}")))
            }
            _ => Ok(()),
        },
        // Names of tables in the database `system` are listed one by one.
        "UseQuery" if name != "system" => Ok(()),
        "Explain" if !rest.contains("OVERRIDE") => Ok(()),
        kind if NODES.contains(&kind) || kind.starts_with("WindowListElement") => Ok(()),
        kind if CLOSED_NODES.contains(&kind) && !sql.contains(&b'(') => Ok(()),
        "Set" => Err(denied("to change settings within a statement; send them as parameters of the URL")),
        kind => Err(denied(&format!("to run a statement with {kind}"))),
    }
}

/// Whether a dotted name is this table or a column of it.
fn is_within(path: &str, table: &str) -> bool {
    path.strip_prefix(table).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn is_harmless(function: &str) -> bool {
    let lower = function.to_ascii_lowercase();
    let mut name = lower.as_str();
    while !FUNCTIONS.contains(name) {
        match COMBINATORS.iter().find_map(|combinator| name.strip_suffix(combinator)) {
            Some(base) => name = base,
            None => return false,
        }
    }
    true
}

/// An exception with the engine's text for a missing grant.
pub fn denied(missing: &str) -> Exception {
    let message = format_args!(
        "default: Not enough privileges. To execute this query, it's necessary to have the grant {missing}. \
         Without the owner's password this port only answers readers"
    );
    Exception::new(497, "ACCESS_DENIED", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_names_are_refused() {
        let permit = |line: &str| permit_node(line, b"SHOW TABLES").is_ok();
        for line in [
            "Function sumIf (children 1)",
            "Function COUNT (alias n) (children 1)",
            "Function quantilesTDigestArrayIf (children 2)",
            "TableIdentifier system.one",
            "Identifier system.tables.name",
            "TableIdentifier doseline.devices (alias d)",
            "ShowTables",
            "UseQuery doseline (children 1)",
        ] {
            assert!(permit(line), "{line}");
        }
        for line in [
            "Function file (children 1)",
            "Function FILE (children 1)",
            "Function fileIf (children 1)",
            "Function x.columns (children 1)",
            "TableIdentifier system.users",
            "TableIdentifier system.one_more",
            "Set",
            "SetRoleQuery",
            "ColumnsApplyTransformer",
            "UseQuery system (children 1)",
            "InsertQuery   (children 1)",
            "Explain EXPLAIN TABLE OVERRIDE (children 1)",
            "",
        ] {
            assert!(!permit(line), "{line}");
        }
        assert!(permit_node("ShowTables", b"SHOW TABLES WHERE file('/x') != ''").is_err());
    }

    #[test]
    fn limits_are_lowered_and_never_raised() {
        let lowered = |name: &str, value: &str| {
            let mut settings = [(name.to_owned(), value.to_owned())];
            ReaderLimits::new(8_000, 4).lower(&mut settings);
            settings[0].1.clone()
        };
        assert_eq!(lowered("max_execution_time", "5"), "5");
        for most in ["0", "61", "-1", "1e9", "nan", "", "18446744073709551616"] {
            assert_eq!(lowered("max_execution_time", most), "60", "{most}");
        }
        assert_eq!(
            (lowered("max_memory_usage", "1000"), lowered("max_memory_usage", "1001")),
            ("1000".into(), "1000".into())
        );
        assert_eq!(lowered("max_rows_to_read", "0"), "0");
    }

    #[test]
    fn unknown_settings_are_refused() {
        let permit = |name: &str, value: &str| permit_settings(&[(name.to_owned(), value.to_owned())]).is_ok();
        assert!(permit("max_threads", "1") && permit("readonly", "1"));
        assert!(!permit("readonly", "0") && !permit("format_schema", "/etc/passwd") && !permit("log_comment", "x"));
    }
}
