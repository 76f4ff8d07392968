//! A ClickHouse exception: its code, its text, and the HTTP status that clients expect with it.

use std::fmt;

pub const SYNTAX_ERROR: u32 = 62;
pub const UNKNOWN_SETTING: u32 = 115;
pub const TOO_MANY_SIMULTANEOUS_QUERIES: u32 = 202;

/// The code for a text in which the engine names no code.
const UNKNOWN_EXCEPTION: u32 = 1002;

/// An error with ClickHouse's wording: `Code: 60. DB::Exception: ... (UNKNOWN_TABLE)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exception {
    code: u32,
    /// The whole text, without the version at its end.
    text: String,
}

impl Exception {
    /// An exception of this server itself, with the engine's wording.
    pub fn new(code: u32, name: &str, message: impl fmt::Display) -> Self {
        Self { code, text: format!("Code: {code}. DB::Exception: {message}. ({name})") }
    }

    /// Reads the code from a text of the engine and removes the version at its end, which
    /// [`Exception::body`] adds again.
    pub fn from_engine(text: &str) -> Self {
        let text = text.trim_end();
        let text = match text.rfind(" (version ") {
            Some(at) if text.ends_with(')') => &text[..at],
            _ => text,
        };
        let code = text
            .find("Code: ")
            .map(|at| text[at + 6..].chars().take_while(char::is_ascii_digit).collect::<String>())
            .and_then(|digits| digits.parse().ok());
        match code {
            Some(code) => Self { code, text: text.to_owned() },
            None => Self::new(UNKNOWN_EXCEPTION, "UNKNOWN_EXCEPTION", text.trim_end_matches('.')),
        }
    }

    /// The exception for a body that broke off or cannot be decompressed.
    pub fn body_broken(error: &std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::InvalidData => Self::new(271, "CANNOT_DECOMPRESS", error),
            _ => Self::new(210, "NETWORK_ERROR", format_args!("request body ended early: {error}")),
        }
    }

    /// ClickHouse's number of the error, as in `system.errors`.
    pub const fn code(&self) -> u32 {
        self.code
    }

    /// The text, as a response body holds it.
    pub fn body(&self, version: &str) -> String {
        format!("{} (version {version} (embedded build))\n", self.text)
    }

    /// The HTTP status with which a ClickHouse server answers.
    pub const fn http_status(&self) -> u16 {
        match self.code {
            // What the client wrote cannot be read.
            6 | 25 | 26 | 27 | 36 | 38 | 41 | 43 | 44 | 53 | 62 | 69 | 72 | 117 | 167 | 168 | 223 | 271 | 321 | 376
            | 427 | 441 | 456 | 457 | 467 => 400,
            194 => 401,
            192 | 193 | 497 | 516 => 403,
            // What the client named does not exist.
            46 | 47 | 50 | 56 | 60 | 63 | 73 | 78 | 81 | 115 | 511 => 404,
            159 => 408,
            48 => 501,
            TOO_MANY_SIMULTANEOUS_QUERIES => 503,
            _ => 500,
        }
    }
}

impl fmt::Display for Exception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_code_and_drops_version() {
        let read = Exception::from_engine(
            "Code: 33. DB::Exception: Cannot read all data. (CANNOT_READ_ALL_DATA) (version 26.7.2.1)",
        );
        assert_eq!(read.code(), 33);
        assert_eq!(read.to_string(), "Code: 33. DB::Exception: Cannot read all data. (CANNOT_READ_ALL_DATA)");
        assert_eq!(Exception::from_engine("std::exception. Code: 1001, type: x").code(), 1001);
        assert_eq!(Exception::from_engine("Invalid or closed connection").code(), UNKNOWN_EXCEPTION);
    }
}
