//! The system's clock, and times as text.

use std::time::{SystemTime, UNIX_EPOCH};

/// The system's clock, us since 1970.
pub fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// A time, us since 1970, as `YYYY-MM-DDThh:mm:ssZ` in UTC; fractions of a second are cut off.
/// Source: H. Hinnant, "chrono-compatible low-level date algorithms".
pub fn stamp(at_us: i64) -> String {
    let (day, second) = (at_us.div_euclid(86_400_000_000), at_us.div_euclid(1_000_000).rem_euclid(86_400));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_for_people() {
        assert_eq!(stamp(0), "1970-01-01T00:00:00Z");
        assert_eq!(stamp(1_709_210_096_999_999), "2024-02-29T12:34:56Z");
        assert_eq!(stamp(-1), "1969-12-31T23:59:59Z");
    }
}
