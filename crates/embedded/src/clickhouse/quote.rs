//! Texts in statements of SQL.

/// A literal (`'`) or an identifier (`` ` ``) of SQL.
pub fn quote(text: &str, quote: char) -> String {
    let escaped = text.replace('\\', "\\\\").replace(quote, &format!("\\{quote}"));
    format!("{quote}{escaped}{quote}")
}
