//! Text of SQL that several modules build: literals, lists of ids, slices of all ids.

/// Quotes a text as an SQL string literal.
pub fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('\'');
    for letter in text.chars() {
        if matches!(letter, '\'' | '\\') {
            quoted.push('\\');
        }
        quoted.push(letter);
    }
    quoted.push('\'');
    quoted
}

/// A parenthesised list of quoted texts, for `IN`.
pub(crate) fn list<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let texts: Vec<_> = texts.into_iter().map(quoted).collect();
    format!("({})", texts.join(", "))
}

/// A parenthesised list of quoted pairs, for `IN`.
pub(crate) fn pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let pairs: Vec<_> =
        pairs.into_iter().map(|(left, right)| format!("({}, {})", quoted(left), quoted(right))).collect();
    format!("({})", pairs.join(", "))
}

/// The ids that a query reads.
#[derive(Clone, Copy, Debug)]
pub enum Scope<'a> {
    /// These ids, at most [`IDS_MAX`], because ClickHouse limits the length of a query.
    Ids(&'a [String]),
    /// One of several slices of all ids, chosen by hash.
    Slice {
        /// Number of the slice, from 0.
        index: u64,
        /// Number of slices, at least 1.
        of: u64,
    },
}

/// The largest number of ids in one [`Scope::Ids`].
pub const IDS_MAX: usize = 500;

impl Scope<'_> {
    pub(crate) fn filter(&self, column: &str) -> String {
        match self {
            Self::Ids(ids) => format!("{column} IN {}", list(ids.iter().map(String::as_str))),
            Self::Slice { of: 0 | 1, .. } => format!("{column} != ''"),
            Self::Slice { index, of } => format!("{column} != '' AND cityHash64({column}) % {of} = {index}"),
        }
    }
}

/// SQL expression for a mount's name. It contains the device because each device numbers its own
/// mounts.
pub(crate) const MOUNT_NAME: &str = "concat(device, '/', mount_id)";

impl Scope<'_> {
    /// Filter for mounts, whose ids here are `DEVICE/MOUNT`. The filter also names the column
    /// `mount_id`, because the table's index does not cover the composed name.
    pub(crate) fn mounts(&self) -> String {
        let named = self.filter(MOUNT_NAME);
        match self {
            Self::Ids(ids) => {
                let mounts = ids.iter().map(|id| id.split_once('/').map_or(id.as_str(), |(_, mount)| mount));
                format!("mount_id IN {} AND {named}", list(mounts))
            }
            Self::Slice { .. } => format!("mount_id != '' AND {named}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_quoted_for_sql() {
        assert_eq!(quoted("it's \\"), r"'it\'s \\'");
        assert_eq!(list(["a", "b"]), "('a', 'b')");
    }
}
