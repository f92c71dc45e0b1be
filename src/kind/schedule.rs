//! When something is due: Kubernetes' cron dialect (BEHAVIOURS 14.1, 14.2).
//!
//! The dialect is robfig/cron's `ParseStandard`: five fields, names in any case, Sunday is 0 and never
//! 7, and if neither day field is `*` a day may match either. The `cron` crate takes six or seven
//! fields, counts Sunday as 1, wants both days to match and says nothing of a repeated hour, so nothing
//! of it would be left.
//!
//! A time is due when the clock on the wall shows it. Where daylight saving skips a wall time, it is not
//! due on that day; where it repeats one, it is due twice.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::{Offset, TimeZone};

/// How far ahead a next time is looked for, in calendar years (robfig/cron's limit).
const YEARS_MAX: i16 = 5;
const DAY_SECONDS: i64 = 86_400;
const HOUR_MINUTES: u32 = 60;

/// What is wrong with a schedule, and where in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ScheduleError(String);

/// Points in time, always of whole seconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    when: When,
    zone: TimeZone,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum When {
    Fields(Fields),
    /// Seconds from one time to the next; at least 1.
    Every(i64),
    /// Seconds since 1970.
    Once(i64),
}

/// Bit `n` of a field is set if the value `n` is due.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Fields {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// One day field says nothing (`*` or `?`), so the other alone decides; else either may.
    any_day: bool,
}

/// One of the five fields, as errors name it.
struct Field {
    name: &'static str,
    min: u32,
    max: u32,
    /// Names of values, from `min` on.
    names: &'static [&'static str],
}

const FIELDS: [Field; 5] = [
    Field { name: "minute", min: 0, max: 59, names: &[] },
    Field { name: "hour", min: 0, max: 23, names: &[] },
    Field { name: "day of month", min: 1, max: 31, names: &[] },
    Field {
        name: "month",
        min: 1,
        max: 12,
        names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
    },
    Field { name: "day of week", min: 0, max: 6, names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] },
];

const WORDS: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

/// The zone of an IANA name, which is written as the database writes it.
pub fn time_zone(name: &str) -> Result<TimeZone, String> {
    let unknown = || format!("unknown time zone {name}");
    let zone = TimeZone::get(name).map_err(|_| unknown())?;
    // Names are file names to Kubernetes, so letters have one case.
    if zone.iana_name() == Some(name) || name == "UTC" { Ok(zone) } else { Err(unknown()) }
}

impl Schedule {
    /// Reads a schedule, whose wall times are of `zone` unless it begins with `TZ=` or `CRON_TZ=`.
    pub fn parse(text: &str, zone: &TimeZone) -> Result<Self, ScheduleError> {
        let mut zone = zone.clone();
        let mut rest = text;
        if let Some(named) = text.strip_prefix("CRON_TZ=").or_else(|| text.strip_prefix("TZ=")) {
            let (name, schedule) = named
                .split_once(' ')
                .ok_or_else(|| ScheduleError(format!("nothing follows the time zone in {text:?}")))?;
            zone = time_zone(name)
                .map_err(|wrong| ScheduleError(format!("provided bad location {name}: {wrong}")))?;
            rest = schedule.trim();
        }
        if rest.trim().is_empty() {
            return Err(ScheduleError("empty spec string".to_owned()));
        }
        let when = if rest.starts_with('@') { word(rest)? } else { When::Fields(Fields::parse(rest)?) };
        Ok(Self { when, zone })
    }

    /// Due at one point in time only.
    #[must_use]
    pub fn once(at: Timestamp) -> Self {
        Self { when: When::Once(whole(at)), zone: TimeZone::UTC }
    }

    /// Whether times may come sooner after each other than a minute.
    #[must_use]
    pub fn is_finer_than_minutes(&self) -> bool {
        matches!(self.when, When::Every(seconds) if seconds < 60)
    }

    /// The first due time strictly after `after`; `None` if there is none within five years.
    ///
    /// `@every` counts from `after` itself, as robfig/cron does.
    #[must_use]
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let after = whole(after);
        let next = match &self.when {
            When::Fields(fields) => fields.next(after, &self.zone)?,
            When::Every(seconds) => after.checked_add(*seconds)?,
            When::Once(at) => Some(*at).filter(|at| *at > after)?,
        };
        Timestamp::from_second(next).ok()
    }

    /// The last due time after `after` and not after `until`.
    #[must_use]
    pub fn latest(&self, after: Timestamp, until: Timestamp) -> Option<Timestamp> {
        let first = self.next(after).filter(|first| *first <= until)?;
        if let When::Every(seconds) = self.when {
            let times = (whole(until) - whole(first)) / seconds;
            return Timestamp::from_second(whole(first) + times * seconds).ok();
        }
        // Halves what may hold a later one; there are no due times between `high` and `until`.
        let (mut low, mut high) = (whole(first), whole(until));
        while low < high {
            let middle = low + (high - low) / 2;
            match Timestamp::from_second(middle).ok().and_then(|middle| self.next(middle)) {
                Some(later) if later <= until => low = whole(later),
                Some(_) | None => high = middle,
            }
        }
        Timestamp::from_second(low).ok()
    }
}

/// Whole seconds since 1970, rounded down.
fn whole(time: Timestamp) -> i64 {
    if time.subsec_nanosecond() < 0 { time.as_second() - 1 } else { time.as_second() }
}

fn word(text: &str) -> Result<When, ScheduleError> {
    if let Some((_, fields)) = WORDS.iter().find(|(word, _)| *word == text) {
        return Fields::parse(fields).map(When::Fields);
    }
    if let Some(duration) = text.strip_prefix("@every ") {
        let wrong = |why| ScheduleError(format!("failed to parse duration {text}: {why}"));
        return go_duration(duration).map(When::Every).map_err(wrong);
    }
    let known: Vec<&str> = WORDS.iter().map(|(word, _)| *word).collect();
    Err(ScheduleError(format!(
        "unrecognized descriptor: {text}: it must be one of {}, or @every and a duration such as 5m",
        known.join(", ")
    )))
}

/// Whole seconds of a duration as Go writes it (`1h30m`, `1.5h`), at least 1.
fn go_duration(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let mut seconds = 0.0;
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(invalid());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let number: f64 = number.parse().map_err(|_| invalid())?;
        let unit = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        let scale = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" | "μs" => 1e-6,
            "ns" => 1e-9,
            "" => return Err(format!("time: missing unit in duration {text:?}")),
            _ => return Err(format!("time: unknown unit {unit:?} in duration {text:?}")),
        };
        seconds += number * scale;
        rest = tail;
    }
    // Go's durations end at 292 years.
    if seconds > 9.2e9 {
        return Err(invalid());
    }
    if seconds <= 0.0 {
        return Err(format!("the duration {text:?} must be longer than nothing"));
    }
    #[expect(clippy::cast_possible_truncation, reason = "bounded above")]
    let whole = seconds as i64;
    Ok(whole.max(1))
}

impl Fields {
    fn parse(text: &str) -> Result<Self, ScheduleError> {
        let fields: Vec<&str> = text.split_whitespace().collect();
        if fields.len() != FIELDS.len() {
            return Err(ScheduleError(format!(
                "expected exactly 5 fields (minute, hour, day of month, month, day of week), found {}: [{}]",
                fields.len(),
                fields.join(" ")
            )));
        }
        let mut bits = [0; 5];
        let mut star = [false; 5];
        for (i, field) in FIELDS.iter().enumerate() {
            (bits[i], star[i]) = field.parse(fields[i])?;
        }
        let [minutes, hours, days, months, weekdays] = bits;
        Ok(Self { minutes, hours, days, months, weekdays, any_day: star[2] || star[4] })
    }

    /// The first second after `after` that is due on the clocks of `zone`.
    fn next(&self, after: i64, zone: &TimeZone) -> Option<i64> {
        let mut from = after + 1;
        let mut year_max = None;
        // Between two transitions the wall clock runs evenly; each such stretch is searched as if its
        // offset held for ever.
        loop {
            let start = Timestamp::from_second(from).ok()?;
            let offset = zone.to_offset(start);
            let shift = i64::from(offset.seconds());
            let year_max = *year_max.get_or_insert_with(|| offset.to_datetime(start).year() + YEARS_MAX);
            let found = self.next_local(from + shift, year_max)? - shift;
            match zone.following(start).next() {
                Some(transition) if whole(transition.timestamp()) <= found => {
                    from = whole(transition.timestamp());
                }
                Some(_) | None => return Some(found),
            }
        }
    }

    /// The first due wall time that is not before `from`, both in seconds as if the clock showed UTC.
    fn next_local(&self, from: i64, year_max: i16) -> Option<i64> {
        let from = from + (60 - from.rem_euclid(60)) % 60;
        let mut date = Offset::UTC.to_datetime(Timestamp::from_second(from).ok()?).date();
        let mut minute = u32::try_from(from.rem_euclid(DAY_SECONDS) / 60).ok()?;
        while date.year() <= year_max {
            if self.months >> date.month() & 1 == 0 {
                let (year, month) =
                    if date.month() == 12 { (date.year() + 1, 1) } else { (date.year(), date.month() + 1) };
                date = Date::new(year, month, 1).ok()?;
                minute = 0;
                continue;
            }
            if self.is_day(date)
                && let Some(minute) = self.minute_from(minute)
            {
                let midnight = Offset::UTC.to_timestamp(date.at(0, 0, 0, 0)).ok()?;
                return Some(midnight.as_second() + i64::from(minute) * 60);
            }
            date = date.tomorrow().ok()?;
            minute = 0;
        }
        None
    }

    fn is_day(&self, date: Date) -> bool {
        let day = self.days >> date.day() & 1 == 1;
        let weekday = self.weekdays >> date.weekday().to_sunday_zero_offset() & 1 == 1;
        if self.any_day { day && weekday } else { day || weekday }
    }

    /// The first due minute of a day that is not before `from`.
    fn minute_from(&self, from: u32) -> Option<u32> {
        let first = from / HOUR_MINUTES;
        for hour in first..24 {
            if self.hours >> hour & 1 == 0 {
                continue;
            }
            let skipped = if hour == first { from % HOUR_MINUTES } else { 0 };
            let left = self.minutes >> skipped;
            if left != 0 {
                return Some(hour * HOUR_MINUTES + skipped + left.trailing_zeros());
            }
        }
        None
    }
}

impl Field {
    /// The values of a comma-separated list, and whether it holds a `*` or `?`.
    fn parse(&self, text: &str) -> Result<(u64, bool), ScheduleError> {
        let (mut bits, mut star) = (0, false);
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let wrong = |why| ScheduleError(format!("{} {text:?}: {why}: {part}", self.name));
            let (more, starred) = self.range(part).map_err(wrong)?;
            bits |= more;
            star |= starred;
        }
        if bits == 0 {
            return Err(ScheduleError(format!("{} {text:?}: no value", self.name)));
        }
        Ok((bits, star))
    }

    /// `*`, `5`, `1-5`, each perhaps with a step.
    fn range(&self, text: &str) -> Result<(u64, bool), String> {
        let mut parts = text.split('/');
        let range = parts.next().unwrap_or_default();
        let step = parts.next();
        if parts.next().is_some() {
            return Err("too many slashes".to_owned());
        }
        let mut ends = range.split('-');
        let low = ends.next().unwrap_or_default();
        let high = ends.next();
        let mut star = matches!(low, "*" | "?");
        let (start, mut end) = if star {
            (self.min, self.max)
        } else {
            let start = self.value(low)?;
            let end = high.map_or(Ok(start), |high| self.value(high))?;
            if ends.next().is_some() {
                return Err("too many hyphens".to_owned());
            }
            (start, end)
        };
        let step = match step {
            None => 1,
            Some(step) => {
                let step = number(step)?;
                if high.is_none() {
                    end = self.max;
                }
                // `*/2` restricts, `*/1` does not.
                star &= step <= 1;
                step
            }
        };
        if start < self.min {
            return Err(format!("beginning of range ({start}) below minimum ({})", self.min));
        }
        if end > self.max {
            let sunday = if self.max == 6 && end == 7 { ", Sunday is 0" } else { "" };
            return Err(format!("end of range ({end}) above maximum ({}){sunday}", self.max));
        }
        if start > end {
            return Err(format!("beginning of range ({start}) beyond end of range ({end})"));
        }
        if step == 0 {
            return Err("step of range should be a positive number".to_owned());
        }
        let bits = (start..=end).step_by(step as usize).fold(0, |bits, value| bits | 1_u64 << value);
        Ok((bits, star))
    }

    fn value(&self, text: &str) -> Result<u32, String> {
        let named = self.names.iter().zip(self.min..).find(|(name, _)| name.eq_ignore_ascii_case(text));
        named.map_or_else(|| number(text), |(_, value)| Ok(value))
    }
}

fn number(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("failed to parse number {text:?}"))
}

#[cfg(test)]
mod tests;
