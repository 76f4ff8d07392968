//! Time: days as product labels print them, and from [`service::time`] the clock and times as text.

pub use service::time::{now_us, stamp};

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
