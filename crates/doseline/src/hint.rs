//! Tells a person about a failed command: `error:` with the fault, and `hint:` with a remedy if
//! there is one. Both are one line, without time stamp or log target.

use std::{error::Error, fmt};

use crate::table::printable;

/// An error with its remedy.
#[derive(Debug)]
struct Hinted {
    error: anyhow::Error,
    remedy: String,
}

impl fmt::Display for Hinted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl Error for Hinted {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error.chain().nth(1)
    }
}

/// An error with a remedy.
pub fn fault(text: impl Into<String>, remedy: impl Into<String>) -> anyhow::Error {
    anyhow::Error::new(Hinted { error: anyhow::Error::msg(text.into()), remedy: remedy.into() })
}

/// Adds a remedy to the error of a result.
pub trait Hint<T> {
    /// Attaches the remedy to the error.
    fn hint(self, remedy: impl Into<String>) -> anyhow::Result<T>;
}

impl<T, E: Into<anyhow::Error>> Hint<T> for Result<T, E> {
    fn hint(self, remedy: impl Into<String>) -> anyhow::Result<T> {
        self.map_err(|error| anyhow::Error::new(Hinted { error: error.into(), remedy: remedy.into() }))
    }
}

/// The text about a failure.
#[derive(Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The error and its causes.
    pub error: String,
    pub hint: Option<String>,
}

impl Explanation {
    /// The text about `error`. If there are several remedies, the outermost counts, because it
    /// knows most about what was tried.
    pub fn of(error: &anyhow::Error) -> Self {
        let mut text = String::new();
        for cause in error.chain().map(ToString::to_string) {
            // Some errors already contain the text of their cause.
            match text.is_empty() {
                true => text = cause,
                false if text.contains(&cause) => {}
                false => text = format!("{text}: {cause}"),
            }
        }
        let hint = error.chain().find_map(remedy);
        // Errors of the libraries end with their remedy, because a log line has no separate place
        // for it.
        if let Some(without) = hint.as_ref().and_then(|hint| text.strip_suffix(&format!("; {hint}"))) {
            text.truncate(without.len());
        }
        Self { error: text, hint }
    }

    /// Prints the text to standard error.
    pub fn print(&self) {
        eprintln!("error: {}", one_line(&self.error));
        if let Some(hint) = &self.hint {
            eprintln!("hint: {}", one_line(hint));
        }
    }
}

/// One line without characters that control a terminal. An engine's message may quote what a device
/// has sent.
pub fn one_line(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    printable(&lines.join(" ")).into_owned()
}

fn remedy(cause: &(dyn Error + 'static)) -> Option<String> {
    if let Some(Hinted { remedy, .. }) = cause.downcast_ref() {
        return Some(remedy.clone());
    }
    if let Some(error) = cause.downcast_ref() {
        return of_warehouse(error);
    }
    match cause.downcast_ref() {
        Some(load::Error::Warehouse(error)) => return of_warehouse(error),
        Some(load::Error::Listen { .. }) => return Some("choose another address with load.http".to_owned()),
        Some(error @ (load::Error::Topic { .. } | load::Error::Offsets { .. } | load::Error::Late { .. })) => {
            return last_clause(&error.to_string());
        }
        _ => {}
    }
    match cause.downcast_ref() {
        Some(monitor::Error::Warehouse(error)) => return of_warehouse(error),
        Some(error @ monitor::Error::Listen { .. }) => return last_clause(&error.to_string()),
        _ => {}
    }
    if let Some(embedded::mosquitto::Error::Program(_)) = cause.downcast_ref() {
        return Some(embedded::mosquitto::REMEDY.to_owned());
    }
    if let Some(
        error @ (dashboard::Error::Listen { .. }
        | dashboard::Error::Open { .. }
        | dashboard::Error::Plain { .. }
        | dashboard::Error::Certificate(_)
        | dashboard::Error::Tokens(_)),
    ) = cause.downcast_ref()
    {
        return last_clause(&error.to_string());
    }
    if let Some(error) = cause.downcast_ref::<dashboard::access::tokens::Error>() {
        return last_clause(&error.to_string());
    }
    match cause.downcast_ref() {
        Some(bridge::Error::Listen { .. }) => Some("choose another address with bridge.http".to_owned()),
        _ => None,
    }
}

fn of_warehouse(error: &warehouse::Error) -> Option<String> {
    use warehouse::Error;
    match error {
        Error::Unreachable { .. } => {
            Some("see whether ClickHouse runs there; clickhouse.url in the configuration names its address".to_owned())
        }
        Error::Schema(_) | Error::Incompatible(_) | Error::DayOpen { .. } => last_clause(&error.to_string()),
        Error::Engine { message, .. } => {
            let text = error.to_string();
            let (_, remedy) = text.split_once(message.as_str())?;
            remedy.strip_prefix("; ").map(str::to_owned)
        }
        _ => None,
    }
}

/// The remedy at the end of a library's error.
fn last_clause(text: &str) -> Option<String> {
    text.rsplit_once("; ").map(|(_, remedy)| remedy.to_owned())
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    fn check(error: anyhow::Error, expected: &str, hint: Option<&str>) {
        assert_eq!(Explanation::of(&error), Explanation { error: expected.to_owned(), hint: hint.map(str::to_owned) });
    }

    #[test]
    fn causes_are_said_once_and_the_remedy_apart() {
        let io = || std::io::Error::other("the disk is gone");
        check(io().into(), "the disk is gone", None);
        let read = || Err::<(), _>(io()).context("read a.csv");
        check(read().unwrap_err(), "read a.csv: the disk is gone", None);
        let told = read().hint("mend it").context("import").unwrap_err();
        check(told, "import: read a.csv: the disk is gone", Some("mend it"));
        check(
            fault("no such alert", "see `doseline alerts list`"),
            "no such alert",
            Some("see `doseline alerts list`"),
        );
        let both = read().hint("the inner one").hint("the outer one").unwrap_err();
        check(both, "read a.csv: the disk is gone", Some("the outer one"));
    }

    #[test]
    fn remedies_of_the_libraries_become_hints() {
        use warehouse::Error;
        let schema = || Error::Schema("database doseline has no doseline schema".to_owned());
        check(schema().into(), "database doseline has no doseline schema", Some("run `doseline migrate`"));
        let error = Err::<(), _>(schema()).context("read the alerts").unwrap_err();
        check(error, "read the alerts: database doseline has no doseline schema", Some("run `doseline migrate`"));
        let refused = Error::Engine { code: 516, message: "bad; very bad".to_owned() };
        check(refused.into(), "clickhouse: bad; very bad", Some("check clickhouse.username and clickhouse.password"));
        let plain = Error::Engine { code: 47, message: "a; b".to_owned() };
        check(plain.into(), "clickhouse: a; b", None);
        let fault = "is not known to the warehouse; run `doseline migrate`".to_owned();
        let topic = load::Error::Topic { topic: "t".to_owned(), fault };
        check(topic.into(), "kafka topic t: is not known to the warehouse", Some("run `doseline migrate`"));
        check(
            load::Error::Warehouse(schema()).into(),
            "database doseline has no doseline schema",
            Some("run `doseline migrate`"),
        );
        let away = Error::Unreachable { url: "http://x".to_owned(), detail: "refused".to_owned() };
        let told = Explanation::of(&away.into());
        assert!(told.error.ends_with("refused") && told.hint.is_some_and(|hint| hint.contains("clickhouse.url")));
        let source = std::io::Error::from(std::io::ErrorKind::AddrInUse);
        let address = ([127, 0, 0, 1], 9602).into();
        let listen = load::Error::Listen { address, source };
        let expected = "listen on http://127.0.0.1:9602: address in use";
        check(listen.into(), expected, Some("choose another address with load.http"));
    }

    #[test]
    fn a_message_is_one_line_that_drives_no_terminal() {
        assert_eq!(one_line("first\n  second\u{1b}[2J\n"), "first second\\u{1b}[2J");
    }
}
