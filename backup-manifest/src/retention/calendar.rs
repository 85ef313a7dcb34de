/// A stretch of the calendar, in UTC.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Bucket {
    Hour,
    Day,
    /// From Monday on (ISO 8601).
    Week,
    Month,
    Year,
}

const HOUR_NS: i64 = 3_600_000_000_000;
const DAY_NS: i64 = 24 * HOUR_NS;

impl Bucket {
    /// Which one holds `unix_ns` (nanoseconds since 1970, any value): numbers ascend with time, without gaps.
    pub(crate) fn number(self, unix_ns: i64) -> i64 {
        let days = unix_ns.div_euclid(DAY_NS);
        match self {
            Self::Hour => unix_ns.div_euclid(HOUR_NS),
            Self::Day => days,
            // 1970 began on a Thursday, three days after a Monday.
            Self::Week => (days + 3).div_euclid(7),
            Self::Month => {
                let (year, month) = civil(days);
                year * 12 + month
            }
            Self::Year => civil(days).0,
        }
    }
}

/// Year and month (0 to 11) of a day, counted from 1970-01-01, in the Gregorian calendar.
///
/// Years begin with March here, so that the leap day is the last one of a year; 400 years have always 146,097 days.
/// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
fn civil(days: i64) -> (i64, i64) {
    // 0000-03-01 is 719,468 days before 1970.
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let year_from_march = era * 400 + year_of_era;
    if month_from_march < 10 {
        (year_from_march, month_from_march + 2)
    } else {
        (year_from_march + 1, month_from_march - 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_are_as_long_as_the_calendar_says() {
        // Day by day, over all that i64 nanoseconds can say: 1677 to 2262.
        let leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let len = |year, month| match month {
            1 => 28 + i64::from(leap(year)),
            3 | 5 | 8 | 10 => 30,
            _ => 31,
        };
        let (mut days, mut year, mut month) = (0, 1970, 0);
        while year < 2263 {
            for _ in 0..len(year, month) {
                assert_eq!(civil(days), (year, month), "day {days}");
                days += 1;
            }
            (year, month) = (year + month / 11, (month + 1) % 12);
        }
        let (mut days, mut year, mut month) = (0, 1970, 0);
        while year > 1676 {
            (year, month) = (
                year - i64::from(month == 0),
                if month == 0 { 11 } else { month - 1 },
            );
            for _ in 0..len(year, month) {
                days -= 1;
                assert_eq!(civil(days), (year, month), "day {days}");
            }
        }
    }

    #[test]
    fn weeks_begin_on_monday() {
        let day = |days: i64| Bucket::Week.number(days * DAY_NS);
        // 1969-12-29 and 1970-01-05 were Mondays.
        assert_eq!((day(-4), day(-3), day(3), day(4)), (-1, 0, 0, 1));
        assert_eq!(
            Bucket::Week.number(4 * DAY_NS - 1),
            0,
            "Sunday's last nanosecond"
        );
    }

    #[test]
    fn the_first_and_the_last_times_have_buckets() {
        // 1677-09-21 and 2262-04-11.
        assert_eq!(Bucket::Year.number(i64::MIN), 1677);
        assert_eq!(Bucket::Month.number(i64::MIN), 1677 * 12 + 8);
        assert_eq!(Bucket::Year.number(i64::MAX), 2262);
        assert_eq!(Bucket::Month.number(i64::MAX), 2262 * 12 + 3);
        assert_eq!(Bucket::Hour.number(-1), -1);
        assert_eq!(Bucket::Day.number(0), 0);
    }
}
