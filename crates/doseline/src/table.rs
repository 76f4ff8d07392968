//! Prints lists for a person or for a program: an aligned table with a header, or one JSON object
//! for each line.
//!
//! For an empty list, standard output stays empty and a sentence goes to standard error. Values are
//! never cut. If a terminal is too narrow for a table, each row becomes a block of lines.
//! Characters that control a terminal are printed as escapes, because ids, topics and texts come
//! from devices.

use std::{
    borrow::Cow,
    io::{ErrorKind, IsTerminal as _, Write as _},
};

use anyhow::Context as _;
use serde::Serialize;

/// Spaces between two columns.
const GAP: usize = 2;
/// The last column is broken into lines if at least this much of the terminal's width is left for
/// it.
const ROOM_MIN: usize = 24;

/// A column and its alignment.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    name: &'static str,
    is_number: bool,
}

/// A column of texts, aligned to the left.
pub const fn text(name: &'static str) -> Column {
    Column { name, is_number: false }
}

/// A column of numbers, aligned to the right.
pub const fn number(name: &'static str) -> Column {
    Column { name, is_number: true }
}

/// A table. Its last column may hold long texts.
pub struct Table<const N: usize> {
    columns: [Column; N],
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    pub fn new(columns: [Column; N]) -> Self {
        Self { columns, rows: Vec::new() }
    }

    /// Adds a row. An empty value is printed as `-`.
    pub fn add(&mut self, row: [String; N]) {
        self.rows.push(row.map(|value| match value.as_str() {
            "" => "-".to_owned(),
            value => printable(value).into_owned(),
        }));
    }

    /// The header and the rows. For a terminal of `terminal_width` the last column is broken into
    /// lines that fit. If there is no room for that, each row becomes a block with one line for
    /// each value.
    pub fn text(&self, terminal_width: Option<usize>) -> String {
        let header = self.columns.map(|column| column.name.to_owned());
        let lines = || std::iter::once(&header).chain(&self.rows);
        let widths: [usize; N] =
            std::array::from_fn(|index| lines().map(|row| row[index].chars().count()).max().unwrap_or(0));
        let start: usize = widths.iter().rev().skip(1).map(|width| width + GAP).sum();
        let last = widths.last().copied().unwrap_or(0);
        let room = match terminal_width {
            Some(width) if start + last > width => {
                let room = width.saturating_sub(start);
                if room < ROOM_MIN || self.columns.last().is_some_and(|column| column.is_number) {
                    return self.blocks(width);
                }
                room
            }
            _ => last,
        };
        let mut text = String::new();
        for row in lines() {
            let mut line = String::new();
            for (index, value) in row.iter().enumerate() {
                let padding = " ".repeat(widths[index] - value.chars().count());
                match self.columns[index].is_number {
                    true => line.extend([padding.as_str(), value.as_str()]),
                    false if index + 1 == N => line.push_str(&broken(value, room, start)),
                    false => line.extend([value.as_str(), padding.as_str()]),
                }
                line.push_str(&" ".repeat(GAP));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    /// The rows as blocks, for a terminal that is too narrow for a table.
    fn blocks(&self, terminal_width: usize) -> String {
        let start = self.columns.iter().map(|column| column.name.len() + GAP).max().unwrap_or(0);
        let room = terminal_width.saturating_sub(start).max(ROOM_MIN);
        let block = |row: &[String; N]| -> String {
            let line = |(column, value): (&Column, &String)| {
                format!("{:<start$}{}\n", column.name, broken(value, room, start))
            };
            self.columns.iter().zip(row).map(line).collect()
        };
        self.rows.iter().map(block).collect::<Vec<_>>().join("\n")
    }
}

/// Breaks a text into lines of at most `room` characters, at spaces if possible. The second and
/// later lines are indented by `start`.
fn broken(value: &str, room: usize, start: usize) -> String {
    if value.chars().count() <= room {
        return value.to_owned();
    }
    let words = value.trim_start_matches(' ');
    let indent = (value.len() - words.len()).min(room / 4);
    let mut lines: Vec<String> = vec![" ".repeat(indent)];
    let mut has_word = false;
    for word in words.split(' ') {
        let mut word: Vec<char> = word.chars().collect();
        let line = lines.last().map_or(0, |line| line.chars().count());
        if has_word && line + 1 + word.len() <= room {
            lines.last_mut().into_iter().for_each(|line| line.push(' '));
        } else if has_word {
            lines.push(String::new());
        }
        let mut free = if has_word { room } else { room - indent };
        while word.len() > free {
            let rest = word.split_off(free);
            lines.last_mut().into_iter().for_each(|line| line.extend(&word));
            lines.push(String::new());
            (word, free) = (rest, room);
        }
        lines.last_mut().into_iter().for_each(|line| line.extend(&word));
        has_word = true;
    }
    lines.join(&format!("\n{}", " ".repeat(start)))
}

/// Prints a list. `cells` turns an entry into a row of the table. `nothing` is the sentence for an
/// empty list.
///
/// # Errors
/// Standard output cannot be written.
pub fn list<T: Serialize, const N: usize>(
    entries: &[T],
    json: bool,
    nothing: &str,
    columns: [Column; N],
    cells: impl Fn(&T) -> [String; N],
) -> anyhow::Result<()> {
    if entries.is_empty() {
        eprintln!("{nothing}");
        return Ok(());
    }
    if json {
        return lines(entries);
    }
    let mut table = Table::new(columns);
    entries.iter().for_each(|entry| table.add(cells(entry)));
    show(&table.text(terminal_width()))
}

/// Prints entries as JSON, one object for each line.
///
/// # Errors
/// Standard output cannot be written.
pub fn lines<T: Serialize>(entries: &[T]) -> anyhow::Result<()> {
    let mut text = String::new();
    for entry in entries {
        text.push_str(&json_line(entry)?);
        text.push('\n');
    }
    show(&text)
}

/// A value as JSON on one line. JSON leaves some characters unchanged that control a terminal;
/// these are escaped here too.
///
/// # Errors
/// The value has a shape that JSON cannot express.
pub fn json_line(value: &impl Serialize) -> anyhow::Result<String> {
    let json = serde_json::to_string(value)?;
    if !json.chars().any(drives) {
        return Ok(json);
    }
    let mut line = String::with_capacity(json.len());
    for character in json.chars() {
        match drives(character) {
            // All of them are below U+10000, and they only occur inside strings.
            true => line.push_str(&format!("\\u{:04x}", u32::from(character))),
            false => line.push(character),
        }
    }
    Ok(line)
}

/// Writes to standard output. It is no error if the reader of a pipe has ended.
///
/// # Errors
/// Standard output cannot be written.
pub fn show(text: &str) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("write to standard output"),
        _ => Ok(()),
    }
}

/// Width of the terminal that standard output leads to, in characters.
pub fn terminal_width() -> Option<usize> {
    let stdout = std::io::stdout();
    let size = stdout.is_terminal().then(|| rustix::termios::tcgetwinsize(&stdout).ok()).flatten()?;
    (size.ws_col > 0).then_some(size.ws_col.into())
}

/// The text with escapes for every character that controls a terminal.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.chars().any(drives) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match drives(character) {
            true => safe.extend(character.escape_default()),
            false => safe.push(character),
        }
    }
    Cow::Owned(safe)
}

/// The same for a text of several lines. Its line ends stay.
pub fn printable_lines(text: &str) -> String {
    text.split('\n').map(printable).collect::<Vec<_>>().join("\n")
}

/// Whether a terminal does anything with a character except print it. Such characters are control
/// characters, marks that change the direction of writing, and characters without width.
fn drives(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table<3> {
        let mut table = Table::new([text("DEVICE"), number("ROWS"), text("DETAIL")]);
        table.add(["pen-1".to_owned(), "9".to_owned(), "a value that is out of its range by far".to_owned()]);
        table.add(["sterilizer-1".to_owned(), "12345".to_owned(), String::new()]);
        table
    }

    #[test]
    fn texts_are_aligned_left_and_numbers_right() {
        assert_eq!(
            table().text(None),
            "DEVICE         ROWS  DETAIL\n\
             pen-1             9  a value that is out of its range by far\n\
             sterilizer-1  12345  -\n"
        );
    }

    #[test]
    fn a_terminal_gets_the_last_column_in_lines_that_fit() {
        assert_eq!(
            table().text(Some(46)),
            "DEVICE         ROWS  DETAIL\n\
             pen-1             9  a value that is out of\n\
             \u{20}                    its range by far\n\
             sterilizer-1  12345  -\n"
        );
        assert_eq!(table().text(Some(64)), table().text(None), "it fits");
        assert_eq!(
            table().text(Some(36)),
            "DEVICE  pen-1\n\
             ROWS    9\n\
             DETAIL  a value that is out of its\n\
             \u{20}       range by far\n\n\
             DEVICE  sterilizer-1\n\
             ROWS    12345\n\
             DETAIL  -\n"
        );
        assert_eq!(broken("0123456789abc de", 5, 1), "01234\n 56789\n abc\n de");
        assert_eq!(broken("  as  it is", 11, 1), "  as  it is");
        assert_eq!(broken("  as it was", 8, 1), "  as it\n was");
        assert_eq!(broken("  0123456789", 8, 1), "  012345\n 6789");
    }

    #[test]
    fn a_value_cannot_drive_the_terminal() {
        let mut table = Table::new([text("ID"), text("TOPIC")]);
        table.add(["a\u{1b}[2J\nb".to_owned(), "\u{202e}x\u{9b}y é".to_owned()]);
        assert_eq!(table.text(None), "ID             TOPIC\na\\u{1b}[2J\\nb  \\u{202e}x\\u{9b}y é\n");
        assert_eq!(printable_lines("a\tb\nc"), "a\\tb\nc");
        let line = json_line(&["\u{1b}\u{9b}\u{7f}é"]).unwrap();
        assert_eq!(line, "[\"\\u001b\\u009b\\u007fé\"]");
        assert_eq!(serde_json::from_str::<[String; 1]>(&line).unwrap(), ["\u{1b}\u{9b}\u{7f}é"]);
    }
}
