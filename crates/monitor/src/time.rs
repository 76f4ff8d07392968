//! Time: the system's clock, times as text, and days as product labels print them.

use std::time::{SystemTime, UNIX_EPOCH};

/// The system's clock, us since 1970.
pub fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// A time, us since 1970, as `YYYY-MM-DDThh:mm:ssZ` in UTC; fractions of a second are cut off.
pub fn stamp(at_us: i64) -> String {
    let (day, second) = (at_us.div_euclid(86_400_000_000), at_us.div_euclid(1_000_000).rem_euclid(86_400));
    // The inverse of `days`, from the same source.
    let days = day + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let (date, month) = (of_year - (153 * shifted + 2) / 5 + 1, if shifted < 10 { shifted + 3 } else { shifted - 9 });
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Days from 1970-01-01 to a date of the proleptic Gregorian calendar. Source: H. Hinnant,
/// "chrono-compatible low-level date algorithms".
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Last day of use that a label prints as `YYYY-MM-DD`, in days since 1970. Day 00 means the last
/// day of the month. Returns `None` if the label is not a date.
pub fn last_day(label: &str) -> Option<i64> {
    let mut parts = label.split('-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    if parts.next().is_some() || !(1..=12).contains(&month) || !(0..=31).contains(&day) {
        return None;
    }
    match day {
        0 if month == 12 => Some(days(year + 1, 1, 1) - 1),
        0 => Some(days(year, month + 1, 1) - 1),
        _ => Some(days(year, month, day)),
    }
}

/// The last microsecond of a day in UTC, us since 1970. `day` counts days since 1970.
pub fn end_of(day: i64) -> i64 {
    (day + 1).saturating_mul(86_400_000_000) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_for_people() {
        assert_eq!(stamp(0), "1970-01-01T00:00:00Z");
        assert_eq!(stamp(1_709_210_096_999_999), "2024-02-29T12:34:56Z");
        assert_eq!(stamp(-1), "1969-12-31T23:59:59Z");
    }

    #[test]
    fn labels_are_read() {
        assert_eq!(last_day("1970-01-01"), Some(0));
        assert_eq!(last_day("2026-06-30"), last_day("2026-06-00"));
        assert_eq!(last_day("2024-02-00"), last_day("2024-02-29"));
        assert_eq!(last_day("2025-12-00"), Some(20_453));
        assert_eq!((end_of(-1), end_of(0)), (-1, 86_399_999_999));
        for wrong in ["", "2026", "2026-13-01", "2026-06-32", "2026-06-30-1", "soon"] {
            assert_eq!(last_day(wrong), None, "{wrong}");
        }
    }
}
