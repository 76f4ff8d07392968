//! Splits SQL text into statements.

/// The statements of a text, in order, without the final `;`. A `;` ends a statement only if it is
/// outside strings, quoted identifiers and comments. Text with nothing but comments and blanks is
/// no statement.
pub(crate) fn split(sql: &str) -> Vec<&str> {
    let bytes = sql.as_bytes();
    let (mut statements, mut start, mut at, mut empty) = (Vec::new(), 0, 0, true);
    while at < bytes.len() {
        let next = match bytes[at] {
            quote @ (b'\'' | b'"' | b'`') => {
                empty = false;
                after_quoted(bytes, at, quote)
            }
            b'-' if bytes[at..].starts_with(b"--") => after(sql, at, "\n"),
            b'/' if bytes[at..].starts_with(b"/*") => after(sql, at + 2, "*/"),
            b';' => {
                if !empty {
                    statements.push(sql[start..at].trim());
                }
                (start, empty) = (at + 1, true);
                at + 1
            }
            byte => {
                empty &= byte.is_ascii_whitespace();
                at + 1
            }
        };
        at = next;
    }
    if !empty {
        statements.push(sql[start..].trim());
    }
    statements
}

fn after(sql: &str, from: usize, end: &str) -> usize {
    sql[from..].find(end).map_or(sql.len(), |length| from + length + end.len())
}

/// The position after a quoted text. A backslash escapes the next byte. A doubled quote is read as
/// an end and a new start, which gives the same result.
fn after_quoted(bytes: &[u8], start: usize, quote: u8) -> usize {
    let mut at = start + 1;
    while at < bytes.len() && bytes[at] != quote {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::split;

    #[test]
    fn a_semicolon_ends_a_statement_only_outside_of_text() {
        let check = |sql: &str, expected: &[&str]| assert_eq!(split(sql), expected, "{sql}");
        check("", &[]);
        check("-- only; a comment\n/* and; another */ ;;\n", &[]);
        check("SELECT 1;\nSELECT 2", &["SELECT 1", "SELECT 2"]);
        check("SELECT ';'; SELECT 'it''s;', '\\';'", &["SELECT ';'", "SELECT 'it''s;', '\\';'"]);
        check(
            "SELECT `a;b`, \"c;d\"; -- e;f\nSELECT 1 /* g;'h */;",
            &["SELECT `a;b`, \"c;d\"", "-- e;f\nSELECT 1 /* g;'h */"],
        );
        check("SELECT 1 - -1 / 2; SELECT 'ü;'", &["SELECT 1 - -1 / 2", "SELECT 'ü;'"]);
        check("SELECT 'open", &["SELECT 'open"]);
        check("SELECT '\\", &["SELECT '\\"]);
    }

    proptest! {
        /// For any text, no byte outside of separators and comments is lost, and nothing panics.
        #[test]
        fn any_text_is_split(sql in "[a;'\"`\\\\\\-/* \nü]{0,40}") {
            for statement in split(&sql) {
                prop_assert!(sql.contains(statement));
                prop_assert!(!statement.is_empty());
            }
        }
    }
}
