//! Errors of the warehouse, with advice for the caller.

/// What the caller should do after an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// Try again after a pause. The cause lies outside: it can pass, or a person can remove it
    /// (engine away, overloaded or full, wrong password, schema not created yet). Whether a write
    /// took effect is unknown.
    Retry,
    /// Put the data aside and continue: it will never be accepted.
    Reject,
    /// Stop: this program and this warehouse do not fit together.
    Fatal,
}

/// An error of the warehouse.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An option is not valid.
    #[error("{key} = {value:?}: {remedy}")]
    Option {
        key: &'static str,
        value: String,
        /// What would be valid.
        remedy: &'static str,
    },
    /// The engine cannot be reached, or the connection broke.
    #[error("clickhouse at {url} cannot be reached: {detail}")]
    Unreachable { url: String, detail: String },
    /// The engine did not answer in time.
    #[error("clickhouse at {url} did not answer within {seconds} s")]
    TimedOut {
        url: String,
        /// The limit that was exceeded, s.
        seconds: u64,
    },
    /// The engine refused the request or failed.
    #[error("clickhouse: {message}{}", remedy(*code, message))]
    Engine {
        /// ClickHouse's error code; 0 where the answer has none.
        code: u32,
        /// ClickHouse's message, without its version.
        message: String,
    },
    /// The answer does not have the shape this program expects.
    #[error("answer of clickhouse: {0}")]
    Answer(#[source] clickhouse::error::Error),
    /// Columns could not be combined. This is a fault of this program.
    #[error("arrow: {0}")]
    Arrow(#[from] arrow_schema::ArrowError),
    /// The warehouse does not have the schema that this program needs.
    #[error("{0}; run `doseline migrate`")]
    Schema(String),
    /// This program cannot use the schema, and `migrate` cannot repair it.
    #[error("{0}")]
    Incompatible(String),
    /// A row that a person gave is not valid.
    #[error("line {line}, column {column}: {fault}")]
    Row {
        /// Line of the file, from 1.
        line: u64,
        /// Name of the column.
        column: String,
        /// What is wrong, and what would be right.
        fault: String,
    },
    /// A file that a person gave is not CSV, or cannot be read.
    #[error("csv: {0}")]
    Csv(#[from] csv::Error),
    /// The ingest day is not over, or some of its batches are not committed.
    #[error("ingest day {day} is not closed: {fault}")]
    DayOpen { day: String, fault: String },
}

/// ClickHouse's codes of errors that pass, or that a person can remove.
mod code {
    pub const UNKNOWN_TABLE: u32 = 60;
    pub const UNKNOWN_DATABASE: u32 = 81;
    pub const UNKNOWN_USER: u32 = 192;
    pub const WRONG_PASSWORD: u32 = 193;
    pub const ACCESS_DENIED: u32 = 497;
    pub const AUTHENTICATION_FAILED: u32 = 516;
    pub const NOT_ENOUGH_SPACE: u32 = 243;
    /// A part cannot be read. This can happen after a merge on a full disk. The merged parts still
    /// exist for `old_parts_lifetime`.
    pub const CORRUPTED_DATA: u32 = 246;
    /// Timeouts, cancelled queries, limits of memory, parts and queries, read-only tables, IO and
    /// network errors.
    pub const PASSING: &[u32] = &[
        74, 75, 76, 77, 95, 159, 160, 198, 202, 203, 209, 210, 218, 236, 241, 242, 252, 279, 294, 319, 373, 394, 399,
        410, 425, 439, 473, 517, 518, 571, 574, 722, 745, 999,
    ];
}

fn remedy(code: u32, message: &str) -> &'static str {
    match code {
        _ if is_of_view(message) => "; mend or drop that view",
        code::UNKNOWN_TABLE | code::UNKNOWN_DATABASE => "; run `doseline migrate`",
        code::UNKNOWN_USER | code::WRONG_PASSWORD | code::AUTHENTICATION_FAILED => {
            "; check clickhouse.username and clickhouse.password"
        }
        code::ACCESS_DENIED => "; grant it to the user of clickhouse.username",
        code::NOT_ENOUGH_SPACE => "; free space on ClickHouse's disk",
        code::CORRUPTED_DATA => {
            "; if its disk was full, restart ClickHouse within 8 minutes: it goes back to the parts before the merge"
        }
        _ => "",
    }
}

impl Error {
    /// The advice for this error.
    pub fn advice(&self) -> Advice {
        match self {
            Self::Unreachable { .. } | Self::TimedOut { .. } | Self::Schema(_) | Self::DayOpen { .. } => Advice::Retry,
            Self::Engine { code, message } if passes(*code) || is_of_view(message) => Advice::Retry,
            Self::Row { .. } | Self::Csv(_) => Advice::Reject,
            Self::Option { .. } | Self::Engine { .. } | Self::Answer(_) | Self::Arrow(_) | Self::Incompatible(_) => {
                Advice::Fatal
            }
        }
    }

    /// Translates an error of the client. `url` is the address of the engine, `seconds` the limit
    /// that may have been exceeded.
    pub fn from_client(error: clickhouse::error::Error, url: &str, seconds: u64) -> Self {
        use clickhouse::error::Error as Client;
        match error {
            Client::Network(source) => Self::Unreachable { url: url.to_owned(), detail: causes(source.as_ref()) },
            Client::TimedOut => Self::TimedOut { url: url.to_owned(), seconds },
            Client::BadResponse(answer) => Self::from_answer(&answer),
            other => Self::Answer(other),
        }
    }

    fn from_answer(answer: &str) -> Self {
        let (code, message) = answer
            .strip_prefix("Code: ")
            .and_then(|rest| rest.split_once('.'))
            .and_then(|(code, message)| Some((code.trim().parse().ok()?, message)))
            .unwrap_or((0, answer));
        let message = message.trim().trim_start_matches("DB::Exception:").trim();
        let message = message.split(" (version ").next().unwrap_or(message).trim_end_matches('.');
        Self::Engine { code, message: message.to_owned() }
    }
}

/// Whether a materialized view that a person added has failed, with any code. The insert itself is
/// valid, and a person can repair the view. The rows may already be in the table.
fn is_of_view(message: &str) -> bool {
    message.contains("while pushing to view")
}

fn passes(code: u32) -> bool {
    let mended = [
        code::UNKNOWN_TABLE,
        code::UNKNOWN_DATABASE,
        code::UNKNOWN_USER,
        code::WRONG_PASSWORD,
        code::ACCESS_DENIED,
        code::AUTHENTICATION_FAILED,
        code::NOT_ENOUGH_SPACE,
        code::CORRUPTED_DATA,
    ];
    // An answer without a code comes from a proxy, or from an engine that is starting or stopping.
    code == 0 || mended.contains(&code) || code::PASSING.contains(&code)
}

/// An error and its causes on one line. The text of hyper's own error is only "client error
/// (Connect)".
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let next_text = next.to_string();
        if !text.contains(&next_text) {
            text = format!("{text}: {next_text}");
        }
        cause = next.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_classified_and_carry_a_remedy() {
        let missing = Error::from_answer(
            "Code: 60. DB::Exception: Table doseline.injections does not exist. (UNKNOWN_TABLE) (version 26.7.3.1)",
        );
        assert_eq!(missing.advice(), Advice::Retry);
        let text = missing.to_string();
        assert!(text.ends_with("(UNKNOWN_TABLE); run `doseline migrate`"), "{text}");
        let view = Error::from_answer(
            "Code: 395. DB::Exception: broken: while executing 'FUNCTION throwIf(1)': while pushing to view d.v. \
             (FUNCTION_THROW_IF_VALUE_IS_NON_ZERO) (version 26.7.2.1)",
        );
        assert_eq!(view.advice(), Advice::Retry);
        assert!(view.to_string().ends_with("; mend or drop that view"), "{view}");
        let corrupted = Error::from_answer("Code: 246. DB::Exception: Empty marks file 'data.cmrk4'. (CORRUPTED_DATA)");
        assert_eq!(corrupted.advice(), Advice::Retry);
        assert!(corrupted.to_string().contains("restart ClickHouse"), "{corrupted}");
        assert_eq!(Error::from_answer("502 Bad Gateway").advice(), Advice::Retry);
        assert_eq!(Error::from_answer("Code: 47. DB::Exception: Unknown identifier").advice(), Advice::Fatal);
        assert_eq!(Error::from_answer("Code: 252. DB::Exception: Too many parts").advice(), Advice::Retry);
    }
}
