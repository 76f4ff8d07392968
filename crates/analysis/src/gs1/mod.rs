//! GS1 element strings: the content of the bar code of a device or an item (UDI).
//!
//! Two forms are read. One has brackets: `(01)51022222233336(17)150707(10)A213B1`. The other is as
//! scanned: FNC1 (the character GS, 0x1D) ends each value of variable length, and a symbology
//! identifier such as `]d2` may come first. Source: GS1 General Specifications, section 3
//! (application identifiers), 7.9 (check digits), 7.12 (century of a date). DI is the element (01);
//! PI is all others, in their order.
//!
//! A value may itself contain `(21)`. In the form with brackets, this cannot be distinguished from
//! the next element.

mod identifiers;

use std::{borrow::Cow, fmt};

use identifiers::{Form, Identifier};

/// Ends a value of variable length.
const FNC1: char = '\u{1d}';

/// What people print around the parts of a string with brackets.
const BLANKS: [char; 2] = [' ', '\u{a0}'];

/// Longest element string that is read, in characters. No GS1 symbol holds more.
pub const LENGTH_MAX: usize = 4096;

/// Why an element string cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The string has no characters.
    #[error("the element string is empty")]
    Empty,
    /// More than [`LENGTH_MAX`] characters.
    #[error("the element string has {0} characters; at most {LENGTH_MAX} are read")]
    TooLong(usize),
    /// No such application identifier exists, or this module does not support it.
    #[error("unknown application identifier at {0:?}")]
    UnknownIdentifier(String),
    /// A value has the wrong form.
    #[error("({ai}) {value:?}: must be {right}")]
    Value {
        /// Digits of the application identifier.
        ai: String,
        /// The value in the string.
        value: String,
        /// The allowed form, in words.
        right: String,
    },
    /// The check digit does not match the digits before it.
    #[error("({ai}) {value}: wrong check digit {found}, the digits before it need {expected}")]
    CheckDigit {
        /// Digits of the application identifier.
        ai: String,
        /// The digits, check digit included.
        value: String,
        /// The check digit in the string.
        found: u8,
        /// The computed check digit.
        expected: u8,
    },
    /// The same identifier occurs twice with different values.
    #[error("({ai}) occurs twice: {first:?} and {second:?}")]
    Twice {
        /// Digits of the application identifier.
        ai: String,
        /// Its value at its first place.
        first: String,
        /// Its value at its second place.
        second: String,
    },
}

/// A calendar date.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Date {
    /// Year with its century.
    pub year: i32,
    /// Month, 1 to 12.
    pub month: u8,
    /// Day of the month, 1 to 31. Day 00 of the code is the last day of the month.
    pub day: u8,
}

impl fmt::Display for Date {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

/// An application identifier and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    /// The digits of the identifier.
    pub ai: String,
    /// Its data title in the GS1 specification.
    pub title: &'static str,
    /// Its value as in the code.
    pub value: String,
    /// Its value as a date, if the identifier holds one.
    pub date: Option<Date>,
}

/// A valid element string: each value has the form of its identifier, and each check digit is
/// right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ElementString {
    /// The elements in their order, each identifier once.
    pub elements: Vec<Element>,
}

impl ElementString {
    /// Reads an element string. A date has two digits for its year; the current `year` decides the
    /// century.
    ///
    /// # Errors
    /// The string is not valid. The error names the element and the allowed form.
    pub fn parse(text: &str, year: i32) -> Result<Self, Error> {
        Self::read(text, year, true)
    }

    /// As [`Self::parse`]. If it is not `strict`, it does not look at check digits, and a GTIN in
    /// brackets may have 8, 12 or 13 digits.
    fn read(text: &str, year: i32, strict: bool) -> Result<Self, Error> {
        let text = text.trim_matches([' ', '\t', '\r', '\n']);
        let text = ["]C1", "]e0", "]d2", "]Q3", "]J1"].iter().find_map(|id| text.strip_prefix(id)).unwrap_or(text);
        let text = text.trim_start_matches(FNC1);
        match text.len() {
            0 => return Err(Error::Empty),
            length if length > LENGTH_MAX => return Err(Error::TooLong(length)),
            _ => {}
        }
        let mut read = Self { elements: Vec::new() };
        let mut rest = text;
        while !rest.is_empty() {
            let (ai, identifier, value, after) = if text.starts_with('(') { bracketed(rest)? } else { scanned(rest)? };
            let is_short = !strict && text.starts_with('(') && ai == "01" && is_gtin(value);
            let value = if is_short { Cow::Owned(filled(value)) } else { Cow::Borrowed(value) };
            read.add(check(ai, identifier, &value, year, strict)?)?;
            rest = after;
        }
        Ok(read)
    }

    fn add(&mut self, element: Element) -> Result<(), Error> {
        match self.elements.iter().find(|other| other.ai == element.ai) {
            None => self.elements.push(element),
            Some(other) if other.value == element.value => {}
            Some(other) => {
                let (first, second) = (other.value.clone(), element.value);
                return Err(Error::Twice { ai: element.ai, first, second });
            }
        }
        Ok(())
    }

    /// The value of an identifier.
    pub fn get(&self, ai: &str) -> Option<&str> {
        self.elements.iter().find(|element| element.ai == ai).map(|element| element.value.as_str())
    }

    /// Last day of use: (17), else the day of (7003).
    pub fn expiry(&self) -> Option<Date> {
        self.date("17").or_else(|| self.date("7003"))
    }

    /// The date of an identifier.
    pub fn date(&self, ai: &str) -> Option<Date> {
        self.elements.iter().find(|element| element.ai == ai).and_then(|element| element.date)
    }

    /// Device identifier of a UDI: the GTIN.
    pub fn di(&self) -> Option<&str> {
        self.get("01")
    }

    /// Production identifier of a UDI: all but the GTIN, with brackets.
    pub fn pi(&self) -> String {
        let others = self.elements.iter().filter(|element| element.ai != "01");
        others.map(|element| format!("({}){}", element.ai, element.value)).collect()
    }
}

/// A product's device identifier as it is compared: GTINs of 8, 12, 13 and 14 digits are filled up
/// to 14 (GS1 General Specifications, 3.3.2), and of an element string the GTIN is taken. Any other
/// text is only trimmed. A wrong check digit changes nothing: a label that carries it is compared
/// with the labels that carry it, too.
pub fn product(text: &str) -> String {
    let text = text.trim();
    if is_gtin(text) {
        return filled(text);
    }
    part(text, "01").unwrap_or_else(|| text.to_owned())
}

fn is_gtin(text: &str) -> bool {
    matches!(text.len(), 8 | 12 | 13 | 14) && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn filled(gtin: &str) -> String {
    format!("{gtin:0>14}")
}

/// An item's id as it is compared: `(01)GTIN(21)SERIAL` for an element string with both, so that
/// one item has one identity in every spelling. Any other text stays exactly as it is: a serial
/// number alone, or a string that is not valid. A serial number with a bracket also stays, because
/// it would not be distinguished from the next element. The column `item_key` of the tables holds
/// the same.
pub fn item(text: &str) -> String {
    match (part(text, "01"), part(text, "21")) {
        (Some(gtin), Some(serial)) if !serial.contains('(') => format!("(01){gtin}(21){serial}"),
        _ => text.to_owned(),
    }
}

/// A lot as it is compared: of an element string (10), any other text is only trimmed. Capital and
/// small letters differ: AI (10) takes characters of GS1's set 82 (GS1 General Specifications,
/// 3.4.1 and 7.11), which has both.
pub fn lot(text: &str) -> String {
    part(text, "10").unwrap_or_else(|| text.trim().to_owned())
}

/// The value of an identifier in an element string with a GTIN; none where the text is no such
/// string.
pub fn part(text: &str, ai: &str) -> Option<String> {
    let text = text.trim();
    let begins = text.starts_with(['(', ']', FNC1]) || text.starts_with("01") && text.len() >= 16;
    // No year matters: dates are not looked at.
    let read = begins.then(|| ElementString::read(text, 2000, false).ok()).flatten()?;
    read.di()?;
    read.get(ai).map(str::to_owned)
}

type Split<'a> = (&'a str, &'static Identifier, &'a str, &'a str);

/// Splits off `(ai)value`.
fn bracketed(text: &str) -> Result<Split<'_>, Error> {
    let unknown = || Error::UnknownIdentifier(text.chars().take(8).collect());
    let (ai, rest) = text.strip_prefix('(').and_then(|text| text.split_once(')')).ok_or_else(unknown)?;
    // Printed strings have blanks around identifiers and values; no value has one itself.
    let ai = ai.trim_matches(BLANKS);
    let identifier = Identifier::exactly(ai).ok_or_else(unknown)?;
    let end = rest.match_indices('(').map(|(at, _)| at).find(|at| opens(&rest[*at..])).unwrap_or(rest.len());
    let (value, after) = rest.split_at(end);
    Ok((ai, identifier, value.trim_matches(BLANKS).trim_end_matches(FNC1), after))
}

/// Whether an identifier in brackets starts here.
fn opens(text: &str) -> bool {
    let ai = text.strip_prefix('(').and_then(|text| text.split_once(')')).map(|(ai, _)| ai.trim_matches(BLANKS));
    ai.is_some_and(|ai| (2..=4).contains(&ai.len()) && ai.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Splits off an identifier and its value in the scanned form.
fn scanned(text: &str) -> Result<Split<'_>, Error> {
    let unknown = || Error::UnknownIdentifier(text.chars().take(4).collect());
    let (ai, identifier) = (2..=4)
        .filter_map(|length| text.get(..length))
        .find_map(|ai| Some((ai, Identifier::exactly(ai)?)))
        .ok_or_else(unknown)?;
    let rest = &text[ai.len()..];
    let end = match identifier.form.fixed_length() {
        Some(length) if identifier.predefined(ai) => {
            rest.char_indices().nth(length).map_or(rest.len(), |(at, _)| at).min(rest.find(FNC1).unwrap_or(rest.len()))
        }
        _ => rest.find(FNC1).unwrap_or(rest.len()),
    };
    let (value, after) = rest.split_at(end);
    // Some scanners send a separator twice.
    Ok((ai, identifier, value, after.trim_start_matches(FNC1)))
}

fn check(ai: &str, identifier: &'static Identifier, value: &str, year: i32, strict: bool) -> Result<Element, Error> {
    let wrong = |right: String| Error::Value { ai: ai.into(), value: value.into(), right };
    if let Err(right) = identifier.form.check(value) {
        return Err(wrong(right));
    }
    let mut date = None;
    match identifier.form {
        Form::Keyed { key, .. } => {
            let key = &value[..key];
            let (digits, last) = key.split_at(key.len() - 1);
            let (expected, found) = (check_digit(digits), last.as_bytes()[0] - b'0');
            if strict && expected != found {
                return Err(Error::CheckDigit { ai: ai.into(), value: key.into(), found, expected });
            }
        }
        Form::Date => {
            date = Some(read_date(value, year).ok_or_else(|| wrong(identifier.form.right()))?);
        }
        Form::Time(..) | Form::Dates => {
            let exists = |text: &str| read_date(text, year).filter(|_| text.get(4..6) != Some("00"));
            let (first, rest) = value.split_at(6);
            date = Some(exists(first).ok_or_else(|| wrong(identifier.form.right()))?);
            let is_right = match identifier.form {
                Form::Dates => rest.is_empty() || exists(rest).is_some_and(|last| Some(last) >= date),
                _ => [24, 60, 60].iter().zip(rest.as_bytes().chunks(2)).all(|(end, digits)| {
                    digits.iter().fold(0, |number, digit| 10 * number + u32::from(digit - b'0')) < *end
                }),
            };
            if !is_right {
                return Err(wrong(identifier.form.right()));
            }
        }
        Form::Digits(..) | Form::Text(..) => {}
    }
    Ok(Element { ai: ai.into(), title: identifier.title, value: value.into(), date })
}

/// The check digit for these digits: weights 3 and 1 from the right, then the difference to the
/// next ten.
fn check_digit(digits: &str) -> u8 {
    let weighted = digits
        .bytes()
        .rev()
        .enumerate()
        .map(|(place, byte)| u32::from(byte - b'0') * if place % 2 == 0 { 3 } else { 1 });
    ((10 - weighted.sum::<u32>() % 10) % 10) as u8
}

/// YYMMDD in the nearest century by GS1's rule. 51 or more years ahead means the last century, 50
/// or more behind the next.
fn read_date(value: &str, year: i32) -> Option<Date> {
    let part = |from: usize| value.get(from..from + 2)?.parse::<u8>().ok();
    let (two_digits, month, day) = (i32::from(part(0)?), part(2)?, part(4)?);
    let ahead = two_digits - year.rem_euclid(100);
    let century = year - year.rem_euclid(100)
        + if ahead >= 51 {
            -100
        } else if ahead <= -50 {
            100
        } else {
            0
        };
    let year = century + two_digits;
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    (day <= last).then_some(Date { year, month, day: if day == 0 { last } else { day } })
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = "(01)51022222233336(11)141231(17)150707(10)A213B1(21)1234";

    fn parse(text: &str) -> Result<ElementString, Error> {
        ElementString::parse(text, 2026)
    }

    #[test]
    fn both_ways_of_writing_are_the_same() {
        let read = parse(EXAMPLE).unwrap();
        assert_eq!(read.di(), Some("51022222233336"));
        assert_eq!(read.pi(), "(11)141231(17)150707(10)A213B1(21)1234");
        assert_eq!(read.date("17").map(|date| date.to_string()), Some("2015-07-07".into()));
        let scanned = "0151022222233336111412311715070710A213B1\u{1d}211234";
        assert_eq!(parse(scanned), Ok(read.clone()));
        assert_eq!(parse(&format!("]d2{scanned}")), Ok(read.clone()));
        assert_eq!(parse(&format!("]C1\u{1d}{scanned}\u{1d}")), Ok(read));
    }

    #[test]
    fn brackets_may_stand_in_a_value() {
        let read = parse("(10)A(1)B(x)(21)7").unwrap();
        assert_eq!((read.get("10"), read.get("21")), (Some("A(1)B(x)"), Some("7")));
    }

    #[test]
    fn wrong_strings_say_what_is_wrong() {
        let cases = [
            ("", "the element string is empty"),
            ("(01)51022222233337", "(01) 51022222233337: wrong check digit 7, the digits before it need 6"),
            ("(01)5102222223333", "(01) \"5102222223333\": must be 14 digits"),
            ("(05)1", "unknown application identifier at \"(05)1\""),
            ("0551022222233336", "unknown application identifier at \"0551\""),
            ("hello", "unknown application identifier at \"hell\""),
            ("(17)151301", "(17) \"151301\": must be a date, YYMMDD"),
            ("(17)150229", "(17) \"150229\": must be a date, YYMMDD"),
            ("(10)", "(10) \"\": must be 1 to 20 characters"),
            ("(10)A\u{e9}", "(10) \"A\u{e9}\": must be without 'é', which GS1 does not allow in a value"),
            ("(21)1(21)2", "(21) occurs twice: \"1\" and \"2\""),
            ("(01", "unknown application identifier at \"(01\""),
            ("(10)A B", "(10) \"A B\": must be without ' ', which GS1 does not allow in a value"),
            ("(7003)2602301200", "(7003) \"2602301200\": must be a date and a time that exist, YYMMDDHHMM"),
            ("(7003)2602002400", "(7003) \"2602002400\": must be a date and a time that exist, YYMMDDHHMM"),
            ("(7003)2602012400", "(7003) \"2602012400\": must be a date and a time that exist, YYMMDDHHMM"),
            ("(7003)2602011260", "(7003) \"2602011260\": must be a date and a time that exist, YYMMDDHHMM"),
            ("(7006)260200", "(7006) \"260200\": must be a date and a time that exist, YYMMDD"),
            (
                "(7007)260201260131",
                "(7007) \"260201260131\": must be a date that exists, YYMMDD, or a range of two, the earlier one first",
            ),
            (
                "(7007)26023",
                "(7007) \"26023\": must be a date that exists, YYMMDD, or a range of two, the earlier one first",
            ),
            ("(7011)26020112", "(7011) \"26020112\": must be a date and a time that exist, YYMMDD or YYMMDDHHMM"),
            (
                "(8008)26133112",
                "(8008) \"26133112\": must be a date and a time that exist, YYMMDDHH or YYMMDDHHMM or YYMMDDHHMMSS",
            ),
            (
                "(8008)260131125960",
                "(8008) \"260131125960\": must be a date and a time that exist, YYMMDDHH or YYMMDDHHMM or YYMMDDHHMMSS",
            ),
            ("(01)51022222233336x", "(01) \"51022222233336x\": must be 14 digits"),
        ];
        for (text, message) in cases {
            assert_eq!(parse(text).unwrap_err().to_string(), message, "{text:?}");
        }
        assert!(matches!(parse(&"9".repeat(5000)), Err(Error::TooLong(5000))));
    }

    #[test]
    fn printed_blanks_and_doubled_separators_are_read() {
        let printed = " (01) 51022222233336 (11) 141231 ( 17 ) 150707\u{a0}(10) A213B1 (21) 1234 ";
        assert_eq!(parse(printed), parse(EXAMPLE));
        let doubled = "\u{1d}\u{1d}0151022222233336\u{1d}111412311715070710A213B1\u{1d}\u{1d}211234\u{1d}\u{1d}";
        assert_eq!(parse(doubled), parse(EXAMPLE));
    }

    #[test]
    fn times_give_their_day() {
        let expiry = |text: &str| parse(text).unwrap().expiry().map(|date| date.to_string());
        assert_eq!(expiry("(7003)2602281230"), Some("2026-02-28".into()));
        assert_eq!(expiry("(7003)2602281230(17)260300"), Some("2026-03-31".into()));
        assert_eq!(expiry("(10)A"), None);
        for good in ["(7007)260228", "(7007)260228260301", "(7011)2602282359", "(8008)26022823", "(8008)260228235959"] {
            assert!(parse(good).unwrap().elements[0].date.is_some(), "{good}");
        }
    }

    #[test]
    fn a_product_is_the_same_in_every_spelling() {
        let same = [
            "04012345000017",
            "4012345000017",
            " 4012345000017\r",
            "(01)04012345000017",
            "(01)4012345000017(10)L1",
            "(01)04012345000017(10)L1(21)S1",
            "010401234500001710L1\u{1d}21S1",
            "]d2010401234500001710L1",
        ];
        for text in same {
            assert_eq!(product(text), "04012345000017", "{text:?}");
        }
        // GTIN-8 and GTIN-12.
        assert_eq!((product("96385074"), product("036000291452")), ("00000096385074".into(), "00036000291452".into()));
        // Other lengths and other texts stay what they are.
        for text in ["4012345", "012345678901234", "REF-7", "di-1", "", "(01)40123450000", "(01)4012345000017x"] {
            assert_eq!(product(text), text);
        }
        assert_eq!((lot(" L1 "), lot("(01)04012345000017(10)l1")), ("L1".into(), "l1".into()));
        assert_eq!(part("(01)04012345000017(21)S1", "21"), Some("S1".into()));
        assert_eq!(part("(21)S1", "21"), None);
    }

    #[test]
    fn an_item_is_the_same_in_every_spelling() {
        let same = [
            "(01)04012345000017(21)S1",
            "(01)4012345000017(21)S1",
            " (01) 04012345000017 (10) L1 (21)\u{a0}S1\r",
            "(01)04012345000017(17)261231(21)S1(10)L1",
            "010401234500001721S1",
            "01040123450000171726123110L1\u{1d}21S1",
            "]d2010401234500001721S1\u{1d}10L1",
        ];
        for text in same {
            assert_eq!(item(text), "(01)04012345000017(21)S1", "{text:?}");
        }
        let others = [
            "S1",
            " S1 ",
            "",
            "(01)04012345000017(10)L1",
            "(01)04012345000017(21)",
            "(01)04012345000017(21)S 1",
            "(01)04012345000017(21)S1(21)S2",
            "(01)0401234500001x(21)S1",
            "(01)04012345000017(21)A(1)B",
        ];
        for text in others {
            assert_eq!(item(text), text);
        }
    }

    #[test]
    fn dates_take_the_nearest_century_and_the_last_day() {
        let date = |text: &str, year| read_date(text, year).map(|date| date.to_string());
        assert_eq!(date("240200", 2026), Some("2024-02-29".into()));
        assert_eq!(date("760101", 2026), Some("2076-01-01".into()));
        assert_eq!(date("770101", 2026), Some("1977-01-01".into()));
        assert_eq!(date("100101", 2070), Some("2110-01-01".into()));
    }

    #[test]
    fn decimals_and_keys_with_a_tail() {
        let read = parse("(3103)001250(8003)09501101530003ABC(30)7").unwrap();
        assert_eq!(read.elements[0].title, "NET WEIGHT (kg)");
        assert_eq!(read.get("8003"), Some("09501101530003ABC"));
        assert_eq!(parse("3103001250307").unwrap().get("30"), Some("7"));
    }
}
