//! Times: durations with units, and points in time.
//!
//! Both are whole milliseconds. The calendar is the proleptic Gregorian one, by the day counts
//! of Howard Hinnant, "chrono-compatible low-level date algorithms" (2013).

use super::json::Json;
use super::problem::Issue;
use super::walk::Scalar;
use crate::ErrorCode;
use crate::limits::DURATION_MS_MAX;
use std::fmt;

/// A duration in milliseconds, at most 400 days. Displays as `1d12h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DurationMs(u64);

const SECOND_MS: u64 = 1_000;
const MINUTE_MS: u64 = 60 * SECOND_MS;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const DAY_MS: u64 = 24 * HOUR_MS;

/// Units in falling order, as they are displayed.
const UNITS: [(&str, u64); 5] =
    [("d", DAY_MS), ("h", HOUR_MS), ("m", MINUTE_MS), ("s", SECOND_MS), ("ms", 1)];

/// Longer names of units that are understood.
const UNIT_NAMES: [(&str, u64); 11] = [
    ("day", DAY_MS),
    ("days", DAY_MS),
    ("hour", HOUR_MS),
    ("hours", HOUR_MS),
    ("hr", HOUR_MS),
    ("min", MINUTE_MS),
    ("minutes", MINUTE_MS),
    ("sec", SECOND_MS),
    ("seconds", SECOND_MS),
    ("w", 7 * DAY_MS),
    ("weeks", 7 * DAY_MS),
];

impl DurationMs {
    /// So many milliseconds, if that is not too long.
    #[must_use]
    pub const fn new(ms: u64) -> Option<DurationMs> {
        if ms <= DURATION_MS_MAX { Some(DurationMs(ms)) } else { None }
    }

    /// Milliseconds.
    #[must_use]
    pub const fn ms(self) -> u64 {
        self.0
    }

    pub(crate) const fn seconds(count: u64) -> DurationMs {
        DurationMs(count * SECOND_MS)
    }

    pub(crate) const fn minutes(count: u64) -> DurationMs {
        DurationMs(count * MINUTE_MS)
    }

    pub(crate) const fn days(count: u64) -> DurationMs {
        DurationMs(count * DAY_MS)
    }
}

impl fmt::Display for DurationMs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        let mut rest = self.0;
        for (unit, size) in UNITS {
            if rest / size > 0 {
                write!(f, "{}{unit}", rest / size)?;
            }
            rest %= size;
        }
        Ok(())
    }
}

impl std::str::FromStr for DurationMs {
    /// What is wrong, and the fix.
    type Err = String;

    /// Reads all that a job file may say: `90m`, `1h30m`, `1-12:00:00`, `P7D`.
    fn from_str(text: &str) -> Result<DurationMs, String> {
        Scalar::parse(text).map_err(|issue: Issue| format!("{}; {}", issue.message, issue.fix))
    }
}

impl Scalar for DurationMs {
    const WHAT: &'static str = "a duration such as 90m";

    /// Reads `90m`, `1h30m`, `1.5h`, `2d`, `500ms`; `1-12:00:00` and `12:00:00` (days, hours,
    /// minutes, seconds); `P7D`, `PT1H30M` (ISO 8601 without years and months).
    fn parse(text: &str) -> Result<DurationMs, Issue> {
        let ms = if text.starts_with(['P', 'p']) {
            parse_iso(text)
        } else if text.contains(':') {
            parse_clock(text)
        } else {
            parse_units(text)
        }?;
        DurationMs::new(ms).ok_or_else(too_long)
    }

    fn print(&self) -> Json {
        Json::Text(self.to_string())
    }
}

fn not_a_duration() -> Issue {
    let fix = "write for instance 90m, 2d, 1h30m, 1-12:00:00 or P7D";
    Issue::new(ErrorCode::WrongType, "this is not a duration", fix)
}

fn too_long() -> Issue {
    Issue::new(ErrorCode::OutOfRange, "longer than 400 days", "write at most 400d")
        .nearest(Some("400d".into()))
}

/// `count` times `size` with up to three decimal places, exactly.
fn scaled(count: &str, size: u64) -> Result<u64, Issue> {
    let (whole, fraction) = count.split_once('.').unwrap_or((count, ""));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || count.ends_with('.') {
        return Err(not_a_duration());
    }
    let too_fine =
        || Issue::new(ErrorCode::OutOfRange, "finer than a millisecond", "use a smaller unit");
    if fraction.len() > 9 {
        return Err(too_fine());
    }
    let whole: u64 = whole.parse().map_err(|_| too_long())?;
    let scale = 10u64.pow(fraction.len() as u32);
    // At most 9 digits times a week in milliseconds: below 2^60.
    let part = fraction.parse::<u64>().unwrap_or(0) * size;
    if !part.is_multiple_of(scale) {
        return Err(too_fine());
    }
    whole
        .checked_mul(size)
        .and_then(|ms| ms.checked_add(part / scale))
        .filter(|ms| *ms <= DURATION_MS_MAX)
        .ok_or_else(too_long)
}

fn parse_units(text: &str) -> Result<u64, Issue> {
    if !text.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(not_a_duration());
    }
    let (mut rest, mut total, mut last_size) = (text, 0u64, u64::MAX);
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.');
        let Some(number_end) = number_end else {
            let nearest = if rest == text { Some(format!("{text}m")) } else { None };
            let fix = "add the unit: ms, s, m, h or d";
            let issue = Issue::new(ErrorCode::BadUnit, "the unit is missing", fix);
            return Err(issue.nearest(nearest));
        };
        let (number, tail) = rest.split_at(number_end);
        let tail = tail.trim_start_matches(' ');
        let unit_end = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let known = UNITS.iter().chain(&UNIT_NAMES).find(|(name, _)| *name == unit);
        let Some((_, size)) = known else {
            if unit.is_empty() {
                return Err(not_a_duration());
            }
            let message = "the unit is not known";
            let fix = "use ms, s, m (minutes), h or d";
            return Err(Issue::new(ErrorCode::BadUnit, message, fix));
        };
        if *size >= last_size {
            return Err(not_a_duration());
        }
        last_size = *size;
        total = total.checked_add(scaled(number, *size)?).ok_or_else(too_long)?;
        rest = tail.trim_start_matches(' ');
    }
    Ok(total)
}

/// `D-HH:MM:SS`, `D-HH:MM` and `HH:MM:SS`. Two numbers alone are refused: they are minutes and
/// seconds to some, hours and minutes to others.
fn parse_clock(text: &str) -> Result<u64, Issue> {
    let (days, clock) = match text.split_once('-') {
        Some((days, clock)) => (Some(days), clock),
        None => (None, text),
    };
    let parts: Vec<&str> = clock.split(':').collect();
    let digits = |s: &&str| (1..=4).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_digit());
    if !days.iter().chain(&parts).all(digits) || parts.len() > 3 {
        return Err(not_a_duration());
    }
    if days.is_none() && parts.len() == 2 {
        let message = "this may be minutes and seconds, or hours and minutes";
        let fix = format!("write {}h{}m or {}m{}s", parts[0], parts[1], parts[0], parts[1]);
        return Err(Issue::new(ErrorCode::BadUnit, message, fix));
    }
    // Four digits at most each: nothing can overflow.
    let number = |text: Option<&&str>| text.and_then(|t| t.parse().ok()).unwrap_or(0u64);
    let (hours, minutes, seconds) =
        (number(parts.first()), number(parts.get(1)), number(parts.get(2)));
    if minutes > 59 || seconds > 59 || (days.is_some() && hours > 23) {
        let fix = "hours go up to 23 after days, minutes and seconds up to 59";
        return Err(Issue::new(ErrorCode::OutOfRange, "a part is too large", fix));
    }
    let days = number(days.as_ref());
    Ok(days * DAY_MS + hours * HOUR_MS + minutes * MINUTE_MS + seconds * SECOND_MS)
}

/// ISO 8601 durations, without years and months, whose length is not fixed.
fn parse_iso(text: &str) -> Result<u64, Issue> {
    let body = &text[1..];
    let (date, time) = match body.split_once(['T', 't']) {
        Some((_, "")) => return Err(not_a_duration()),
        Some((date, time)) => (date, time),
        None => (body, ""),
    };
    if body.is_empty() {
        return Err(not_a_duration());
    }
    let mut total = 0u64;
    for (part, units) in [(date, "WD"), (time, "HMS")] {
        let (mut rest, mut units) = (part, units);
        while !rest.is_empty() {
            let end = rest.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(not_a_duration)?;
            let unit = rest[end..].chars().next().map_or(' ', |c| c.to_ascii_uppercase());
            let Some(position) = units.find(unit) else {
                let message = "only weeks, days, hours, minutes and seconds have a fixed length";
                let fix = "write for instance P7D or PT90M";
                return Err(Issue::new(ErrorCode::BadUnit, message, fix));
            };
            let size = match unit {
                'W' => 7 * DAY_MS,
                'D' => DAY_MS,
                'H' => HOUR_MS,
                'M' => MINUTE_MS,
                _ => SECOND_MS,
            };
            total = total.checked_add(scaled(&rest[..end], size)?).ok_or_else(too_long)?;
            units = &units[position + 1..];
            rest = &rest[end + 1..];
        }
    }
    Ok(total)
}

/// When a job may start at the earliest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NotBefore {
    /// At this point in time: milliseconds since 1970-01-01T00:00:00Z.
    At(u64),
    /// So long after the submission.
    After(DurationMs),
}

impl Scalar for NotBefore {
    const WHAT: &'static str = "a time such as 2027-01-31T08:00:00Z or +2h";

    fn parse(text: &str) -> Result<NotBefore, Issue> {
        match text.strip_prefix('+') {
            Some(delay) => DurationMs::parse(delay).map(NotBefore::After),
            None => parse_rfc3339(text).map(NotBefore::At),
        }
    }

    fn print(&self) -> Json {
        Json::Text(match self {
            NotBefore::At(ms) => format_rfc3339(*ms),
            NotBefore::After(delay) => format!("+{delay}"),
        })
    }
}

/// Days from 1970-01-01 to a date of the years 0 to 9999.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// Year, month and day of so many days after 1970-01-01.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// Milliseconds since 1970 of an RFC 3339 text; none: it is none.
#[must_use]
pub fn read_rfc3339(text: &str) -> Option<u64> {
    parse_rfc3339(text).ok()
}

/// Milliseconds since 1970 of an RFC 3339 text. Finer fractions are rounded up: nothing starts
/// too early.
fn parse_rfc3339(text: &str) -> Result<u64, Issue> {
    let wrong = |message: &str| {
        let fix = "write for instance 2027-01-31T08:00:00Z, 2027-01-31T09:00:00+01:00 or +2h";
        Issue::new(ErrorCode::WrongType, message, fix)
    };
    let bytes = text.as_bytes();
    let number = |from: usize, len: usize| -> Option<i64> {
        let digits = text.get(from..from + len)?;
        digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
    };
    let separator = |at: usize, allowed: &[u8]| bytes.get(at).is_some_and(|b| allowed.contains(b));
    let shape = separator(4, b"-") && separator(7, b"-") && separator(10, b"Tt ");
    let clock = separator(13, b":") && separator(16, b":");
    let fields = [(0, 4), (5, 2), (8, 2), (11, 2), (14, 2), (17, 2)].map(|(at, n)| number(at, n));
    let ([Some(year), Some(month), Some(day), Some(hour), Some(minute), Some(second)], true) =
        (fields, shape && clock)
    else {
        return Err(wrong("this is not a time of RFC 3339"));
    };
    let mut rest = &text[19..];
    let mut ms = 0;
    if let Some(fraction) = rest.strip_prefix('.') {
        let end = fraction.find(|c: char| !c.is_ascii_digit()).unwrap_or(fraction.len());
        let digits = &fraction[..end];
        if digits.is_empty() || digits.len() > 9 {
            return Err(wrong("the fraction of a second is not legal"));
        }
        let nanos: i64 = format!("{digits:0<9}").parse().unwrap_or(0);
        ms = (nanos + 999_999) / 1_000_000;
        rest = &fraction[end..];
    }
    let offset_minutes = parse_offset(rest).ok_or_else(|| {
        let message = "the offset from UTC is missing or not legal";
        Issue::new(ErrorCode::BadUnit, message, "end the time with Z, or an offset like +02:00")
    })?;
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let month_days = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    let in_range = (1..=12).contains(&month) && (1..=month_days).contains(&day);
    if !in_range || hour > 23 || minute > 59 || second > 59 {
        return Err(Issue::new(
            ErrorCode::OutOfRange,
            "there is no such date or time of day",
            "check month, day, hours, minutes and seconds",
        ));
    }
    let minutes = days_from_civil(year, month, day) * 1_440 + hour * 60 + minute - offset_minutes;
    u64::try_from((minutes * 60 + second) * 1_000 + ms)
        .map_err(|_| Issue::new(ErrorCode::OutOfRange, "before 1970", "write a time to come"))
}

/// Minutes east of UTC.
fn parse_offset(text: &str) -> Option<i64> {
    if matches!(text, "Z" | "z") {
        return Some(0);
    }
    let sign = match text.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, minutes) = text.get(1..)?.split_once(':')?;
    let two = |s: &str| s.len() == 2 && s.bytes().all(|b| b.is_ascii_digit());
    if !two(hours) || !two(minutes) {
        return None;
    }
    let (hours, minutes): (i64, i64) = (hours.parse().ok()?, minutes.parse().ok()?);
    (hours <= 23 && minutes <= 59).then_some(sign * (hours * 60 + minutes))
}

/// A point in time as RFC 3339 in UTC, with milliseconds only when there are some.
#[must_use]
pub fn format_rfc3339(ms: u64) -> String {
    let (days, of_day) = (ms / DAY_MS, ms % DAY_MS);
    // A u64 of milliseconds is at most 213 billion days: it fits an i64.
    let (year, month, day) = civil_from_days(days as i64);
    let (hour, minute) = (of_day / HOUR_MS, of_day / MINUTE_MS % 60);
    let second = of_day / SECOND_MS % 60;
    let date = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    match ms % SECOND_MS {
        0 => format!("{date}Z"),
        fraction => format!("{date}.{fraction:03}Z"),
    }
}

#[cfg(test)]
#[path = "time_tests.rs"]
mod tests;
