use jiff::civil::DateTime;

use super::*;

#[track_caller]
fn zone(name: &str) -> TimeZone {
    time_zone(name).unwrap()
}

#[track_caller]
fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// The next times of a schedule, as the clocks of its zone show them, with their offsets.
#[track_caller]
fn next(schedule: &str, named: &str, after: &str, expected: &[&str]) {
    let zone = zone(named);
    let parsed = Schedule::parse(schedule, &zone).unwrap();
    let mut time = at(after);
    for (i, expected) in expected.iter().enumerate() {
        match parsed.next(time) {
            Some(next) => {
                let shown = format!("{}", next.to_zoned(zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%:z"));
                assert_eq!(shown, *expected, "{schedule} after {time}, the {i}th");
                time = next;
            }
            None => assert_eq!("never", *expected, "{schedule} after {time}, the {i}th"),
        }
    }
}

fn utc(schedule: &str, after: &str, expected: &[&str]) {
    let expected: Vec<String> = expected
        .iter()
        .map(|time| if *time == "never" { (*time).to_owned() } else { format!("{time}:00+00:00") })
        .collect();
    next(schedule, "UTC", after, &expected.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn fields_take_lists_ranges_steps_and_names() {
    // BEHAVIOURS 14.1. 2026-01-01 is a Thursday.
    let new_year = "2026-01-01T00:00:00Z";
    utc("* * * * *", new_year, &["2026-01-01T00:01", "2026-01-01T00:02"]);
    utc("* * * * *", "2026-01-01T00:00:59.9Z", &["2026-01-01T00:01"]);
    utc("0 0 * * *", new_year, &["2026-01-02T00:00"]);
    utc("5,10-12 3 * * *", new_year, &["2026-01-01T03:05", "2026-01-01T03:10", "2026-01-01T03:11"]);
    utc("*/20 * * * *", new_year, &["2026-01-01T00:20", "2026-01-01T00:40", "2026-01-01T01:00"]);
    utc(
        "5/25 * * * *",
        new_year,
        &["2026-01-01T00:05", "2026-01-01T00:30", "2026-01-01T00:55", "2026-01-01T01:05"],
    );
    utc("10-30/15 * * * *", new_year, &["2026-01-01T00:10", "2026-01-01T00:25", "2026-01-01T01:10"]);
    utc("0 12 * FeB,oct *", new_year, &["2026-02-01T12:00", "2026-02-02T12:00"]);
    utc("0 12 ? * MON-wed", new_year, &["2026-01-05T12:00", "2026-01-06T12:00", "2026-01-07T12:00"]);
    utc("0 12 * * 0", new_year, &["2026-01-04T12:00"]);
    utc("0 12 * * sun", new_year, &["2026-01-04T12:00", "2026-01-11T12:00"]);
    utc(" 0  12\t* * * ", new_year, &["2026-01-01T12:00"]);
    utc("1,,2 * * * *", new_year, &["2026-01-01T00:01", "2026-01-01T00:02", "2026-01-01T01:01"]);
    utc("59 23 31 12 *", new_year, &["2026-12-31T23:59", "2027-12-31T23:59"]);
}

#[test]
fn words_stand_for_fields() {
    let now = "2026-05-13T10:20:30Z";
    utc("@yearly", now, &["2027-01-01T00:00"]);
    utc("@annually", now, &["2027-01-01T00:00"]);
    utc("@monthly", now, &["2026-06-01T00:00"]);
    utc("@weekly", now, &["2026-05-17T00:00"]);
    utc("@daily", now, &["2026-05-14T00:00"]);
    utc("@midnight", now, &["2026-05-14T00:00"]);
    utc("@hourly", now, &["2026-05-13T11:00", "2026-05-13T12:00"]);
}

#[test]
fn every_counts_from_the_time_before() {
    next(
        "@every 1h30m",
        "UTC",
        "2026-05-13T10:20:30.9Z",
        &["2026-05-13T11:50:30+00:00", "2026-05-13T13:20:30+00:00"],
    );
    next("@every 1s", "UTC", "2026-05-13T10:20:30Z", &["2026-05-13T10:20:31+00:00"]);
    next("@every 1500ms", "UTC", "2026-05-13T10:20:30Z", &["2026-05-13T10:20:31+00:00"]);
    next("@every 10us", "UTC", "2026-05-13T10:20:30Z", &["2026-05-13T10:20:31+00:00"]);
    next("@every 0.5h", "UTC", "2026-05-13T10:20:30Z", &["2026-05-13T10:50:30+00:00"]);
    assert!(Schedule::parse("@every 59s", &TimeZone::UTC).unwrap().is_finer_than_minutes());
    assert!(!Schedule::parse("@every 60s", &TimeZone::UTC).unwrap().is_finer_than_minutes());
}

#[test]
fn restricted_days_are_ored_and_a_star_leaves_the_other_alone() {
    let now = "2026-01-01T00:00:00Z";
    // The 13th or a Friday.
    utc(
        "0 0 13 * fri",
        now,
        &["2026-01-02T00:00", "2026-01-09T00:00", "2026-01-13T00:00", "2026-01-16T00:00"],
    );
    utc("0 0 13 * *", now, &["2026-01-13T00:00", "2026-02-13T00:00"]);
    utc("0 0 * * fri", now, &["2026-01-02T00:00", "2026-01-09T00:00"]);
    // A step restricts, so either matches: odd days, or Fridays.
    utc(
        "0 0 */2 * fri",
        now,
        &["2026-01-02T00:00", "2026-01-03T00:00", "2026-01-05T00:00", "2026-01-07T00:00", "2026-01-09T00:00"],
    );
    // A step of one does not; nor does a list with a star in it.
    utc("0 0 */1 * fri", now, &["2026-01-02T00:00", "2026-01-09T00:00"]);
    utc("0 0 *,5 * fri", now, &["2026-01-02T00:00", "2026-01-09T00:00"]);
    utc("0 0 ? * fri", now, &["2026-01-02T00:00", "2026-01-09T00:00"]);
}

#[test]
fn leap_days_and_dates_that_never_come() {
    utc("0 0 29 2 *", "2026-01-01T00:00:00Z", &["2028-02-29T00:00", "2032-02-29T00:00"]);
    utc("0 0 31 4,6 *", "2026-01-01T00:00:00Z", &["never"]);
    utc("59 23 30 2 *", "2026-01-01T00:00:00Z", &["never"]);
    // 2100 is no leap year, and 2104 is more than five years off.
    utc("0 0 29 2 *", "2096-03-01T00:00:00Z", &["never"]);
    utc("0 0 29 2 *", "2099-03-01T00:00:00Z", &["2104-02-29T00:00"]);
    utc("0 0 31 * *", "2026-01-31T00:00:00Z", &["2026-03-31T00:00", "2026-05-31T00:00"]);
    // Or a weekday: then it does come.
    utc("0 0 30 2 mon", "2026-01-01T00:00:00Z", &["2026-02-02T00:00"]);
}

#[test]
fn years_end() {
    utc("* * * * *", "2026-12-31T23:59:00Z", &["2027-01-01T00:00"]);
    utc("30 0 1 1 *", "2026-12-31T23:59:59Z", &["2027-01-01T00:30"]);
    // The year is that of the wall.
    next("0 0 1 1 *", "Pacific/Auckland", "2026-12-31T10:59:00Z", &["2027-01-01T00:00:00+13:00"]);
    let far = Schedule::parse("@yearly", &TimeZone::UTC).unwrap();
    assert_eq!(far.next(Timestamp::MAX), None);
}

#[test]
fn skipped_wall_times_are_not_due() {
    // BEHAVIOURS 14.2. New York: 02:00 to 03:00 on 8 March 2026.
    next("30 2 * * *", "America/New_York", "2026-03-07T12:00:00Z", &["2026-03-09T02:30:00-04:00"]);
    next(
        "30 1 * * *",
        "America/New_York",
        "2026-03-08T00:00:00Z",
        &["2026-03-08T01:30:00-05:00", "2026-03-09T01:30:00-04:00"],
    );
    next(
        "0 * * * *",
        "America/New_York",
        "2026-03-08T05:30:00Z",
        &["2026-03-08T01:00:00-05:00", "2026-03-08T03:00:00-04:00"],
    );
    next(
        "59 1,3 * * *",
        "America/New_York",
        "2026-03-08T05:30:00Z",
        &["2026-03-08T01:59:00-05:00", "2026-03-08T03:59:00-04:00"],
    );
    // Sydney, in the southern spring: 02:00 to 03:00 on 4 October 2026.
    next("15 2 * * *", "Australia/Sydney", "2026-10-03T00:00:00Z", &["2026-10-05T02:15:00+11:00"]);
    next("0 3 * * *", "Australia/Sydney", "2026-10-03T00:00:00Z", &["2026-10-04T03:00:00+11:00"]);
    // Lord Howe moves by half an hour: 02:00 to 02:30.
    next("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T00:00:00Z", &["2026-10-05T02:15:00+11:00"]);
    next("30 2 * * *", "Australia/Lord_Howe", "2026-10-03T00:00:00Z", &["2026-10-04T02:30:00+11:00"]);
    // Where midnight is skipped, as in Santiago on 6 September 2026, the day is still there.
    next("0 0 * * *", "America/Santiago", "2026-09-05T12:00:00Z", &["2026-09-07T00:00:00-03:00"]);
    next("30 1 6 9 *", "America/Santiago", "2026-09-05T12:00:00Z", &["2026-09-06T01:30:00-03:00"]);
}

#[test]
fn repeated_wall_times_are_due_twice() {
    // BEHAVIOURS 14.2. New York: 02:00 back to 01:00 on 1 November 2026.
    next(
        "30 1 * * *",
        "America/New_York",
        "2026-11-01T04:00:00Z",
        &["2026-11-01T01:30:00-04:00", "2026-11-01T01:30:00-05:00", "2026-11-02T01:30:00-05:00"],
    );
    next(
        "*/30 * * * *",
        "America/New_York",
        "2026-11-01T05:00:00Z",
        &[
            "2026-11-01T01:30:00-04:00",
            "2026-11-01T01:00:00-05:00",
            "2026-11-01T01:30:00-05:00",
            "2026-11-01T02:00:00-05:00",
        ],
    );
    next(
        "0 2 * * *",
        "America/New_York",
        "2026-11-01T04:00:00Z",
        &["2026-11-01T02:00:00-05:00", "2026-11-02T02:00:00-05:00"],
    );
    // Sydney: 03:00 back to 02:00 on 5 April 2026.
    next(
        "0 2 * * *",
        "Australia/Sydney",
        "2026-04-04T00:00:00Z",
        &["2026-04-05T02:00:00+11:00", "2026-04-05T02:00:00+10:00", "2026-04-06T02:00:00+10:00"],
    );
    // Lord Howe: 02:00 back to 01:30, so that only the second half of the hour is repeated.
    next(
        "15,45 1 * * *",
        "Australia/Lord_Howe",
        "2026-04-04T00:00:00Z",
        &[
            "2026-04-05T01:15:00+11:00",
            "2026-04-05T01:45:00+11:00",
            "2026-04-05T01:45:00+10:30",
            "2026-04-06T01:15:00+10:30",
        ],
    );
    // Santiago repeats the last hour of a day: 24:00 back to 23:00 on 4 April 2026.
    next(
        "30 23 4 4 *",
        "America/Santiago",
        "2026-04-01T00:00:00Z",
        &["2026-04-04T23:30:00-03:00", "2026-04-04T23:30:00-04:00", "2027-04-04T23:30:00-04:00"],
    );
}

#[test]
fn a_schedule_may_name_its_zone() {
    next("TZ=Europe/Berlin 0 6 * * *", "UTC", "2026-07-01T00:00:00Z", &["2026-07-01T04:00:00+00:00"]);
    next("CRON_TZ=Asia/Tokyo @daily", "UTC", "2026-07-01T00:00:00Z", &["2026-07-01T15:00:00+00:00"]);
}

/// Steps through minutes, which cannot go wrong.
fn naive(schedule: &Schedule, after: Timestamp, until: Timestamp) -> Vec<Timestamp> {
    let When::Fields(fields) = &schedule.when else { panic!("fields") };
    let mut found = Vec::new();
    let mut second = (whole(after) / 60 + 1) * 60;
    while second <= whole(until) {
        let time = Timestamp::from_second(second).unwrap();
        let wall: DateTime = schedule.zone.to_datetime(time);
        if fields.minutes >> wall.minute() & 1 == 1
            && fields.hours >> wall.hour() & 1 == 1
            && fields.months >> wall.month() & 1 == 1
            && fields.is_day(wall.date())
        {
            found.push(time);
        }
        second += 60;
    }
    found
}

#[test]
fn next_and_latest_are_what_stepping_through_minutes_finds() {
    let schedules =
        ["7,38 * * * *", "*/17 1-3 * * *", "30 1,2,3 * * sun", "0 0 1,15 * mon", "45 23 * 3,4,10,11 *"];
    let zones = [
        "UTC",
        "America/New_York",
        "Australia/Lord_Howe",
        "America/Santiago",
        "Asia/Kathmandu",
        "Africa/Casablanca",
    ];
    for (schedule, named) in
        schedules.iter().flat_map(|schedule| zones.iter().map(move |zone| (schedule, zone)))
    {
        let schedule = Schedule::parse(schedule, &zone(named)).unwrap();
        // Both transitions of most zones.
        for (after, until) in [
            ("2026-03-01T00:00:00Z", "2026-04-20T00:00:00Z"),
            ("2026-08-30T00:00:00Z", "2026-11-20T00:00:00Z"),
        ] {
            let (after, until) = (at(after), at(until));
            let expected = naive(&schedule, after, until);
            let found: Vec<Timestamp> =
                std::iter::successors(schedule.next(after), |time| schedule.next(*time))
                    .take_while(|time| *time <= until)
                    .collect();
            assert_eq!(found, expected, "{schedule:?}");
            assert_eq!(schedule.latest(after, until), expected.last().copied(), "{schedule:?}");
            let middle = expected[expected.len() / 2];
            assert_eq!(schedule.latest(after, middle), Some(middle), "a due time counts itself");
            assert_eq!(schedule.latest(middle, middle), None);
        }
    }
}

#[test]
fn the_latest_time_is_found_without_counting() {
    let latest = |schedule: &str, after: &str, until: &str| {
        Schedule::parse(schedule, &TimeZone::UTC)
            .unwrap()
            .latest(at(after), at(until))
            .map(|time| time.to_string())
    };
    assert_eq!(
        latest("* * * * *", "2001-01-01T00:00:00Z", "2026-01-01T00:00:59Z").unwrap(),
        "2026-01-01T00:00:00Z"
    );
    assert_eq!(
        latest("@every 7s", "2001-01-01T00:00:00Z", "2001-01-01T00:01:00Z").unwrap(),
        "2001-01-01T00:00:56Z"
    );
    assert_eq!(
        latest("* * * 1 *", "2026-01-01T00:00:00Z", "2026-12-01T00:00:00Z").unwrap(),
        "2026-01-31T23:59:00Z"
    );
    assert_eq!(latest("0 0 30 2 *", "2001-01-01T00:00:00Z", "2026-01-01T00:00:00Z"), None);
    assert_eq!(latest("@hourly", "2026-01-01T00:00:00Z", "2026-01-01T00:59:59Z"), None);
}

#[test]
fn once_is_due_once() {
    let time = at("2026-07-09T08:30:00Z");
    let once = Schedule::once(time);
    assert_eq!(once.next(at("2026-07-09T08:29:59Z")), Some(time));
    assert_eq!(once.next(time), None);
    assert_eq!(once.latest(at("2026-01-01T00:00:00Z"), at("2027-01-01T00:00:00Z")), Some(time));
}

#[test]
fn errors_say_what_is_wrong_and_where() {
    for (schedule, expected) in [
        ("", "empty spec string"),
        (
            "* * * *",
            "expected exactly 5 fields (minute, hour, day of month, month, day of week), found 4: [* * * *]",
        ),
        (
            "0 0 * * * *",
            "expected exactly 5 fields (minute, hour, day of month, month, day of week), found 6: [0 0 * * * *]",
        ),
        ("60 * * * *", r#"minute "60": end of range (60) above maximum (59): 60"#),
        ("1,61-70 * * * *", r#"minute "1,61-70": end of range (70) above maximum (59): 61-70"#),
        ("* 24 * * *", r#"hour "24": end of range (24) above maximum (23): 24"#),
        ("* * 0 * *", r#"day of month "0": beginning of range (0) below minimum (1): 0"#),
        ("* * 32 * *", r#"day of month "32": end of range (32) above maximum (31): 32"#),
        ("* * * 13 *", r#"month "13": end of range (13) above maximum (12): 13"#),
        ("* * * * 7", r#"day of week "7": end of range (7) above maximum (6), Sunday is 0: 7"#),
        ("* * * * mon-", r#"day of week "mon-": failed to parse number "": mon-"#),
        ("* * * janury *", r#"month "janury": failed to parse number "janury": janury"#),
        ("5-1 * * * *", r#"minute "5-1": beginning of range (5) beyond end of range (1): 5-1"#),
        ("*/0 * * * *", r#"minute "*/0": step of range should be a positive number: */0"#),
        ("*/2/3 * * * *", r#"minute "*/2/3": too many slashes: */2/3"#),
        ("1-2-3 * * * *", r#"minute "1-2-3": too many hyphens: 1-2-3"#),
        (", * * * *", r#"minute ",": no value"#),
        ("-1 * * * *", r#"minute "-1": failed to parse number "": -1"#),
        (
            "@reboot",
            "unrecognized descriptor: @reboot: it must be one of @yearly, @annually, @monthly, @weekly, @daily, @midnight, @hourly, or @every and a duration such as 5m",
        ),
        (
            "@every",
            "unrecognized descriptor: @every: it must be one of @yearly, @annually, @monthly, @weekly, @daily, @midnight, @hourly, or @every and a duration such as 5m",
        ),
        ("@every 5", r#"failed to parse duration @every 5: time: missing unit in duration "5""#),
        ("@every 5x", r#"failed to parse duration @every 5x: time: unknown unit "x" in duration "5x""#),
        ("@every h", r#"failed to parse duration @every h: time: invalid duration "h""#),
        ("@every 0s", r#"failed to parse duration @every 0s: the duration "0s" must be longer than nothing"#),
        ("@every 9999999h", r#"failed to parse duration @every 9999999h: time: invalid duration "9999999h""#),
        ("TZ=Mars/Phobos * * * * *", "provided bad location Mars/Phobos: unknown time zone Mars/Phobos"),
        ("TZ=UTC", r#"nothing follows the time zone in "TZ=UTC""#),
    ] {
        let error = Schedule::parse(schedule, &TimeZone::UTC).unwrap_err();
        assert_eq!(error.to_string(), expected, "{schedule:?}");
    }
}

#[test]
fn zones_have_one_spelling() {
    for good in ["UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "Etc/GMT+5"] {
        assert!(time_zone(good).is_ok(), "{good}");
    }
    for bad in ["europe/berlin", "Berlin", "Local", "", "../etc/passwd", "EST5EDT4"] {
        assert_eq!(time_zone(bad).unwrap_err(), format!("unknown time zone {bad}"));
    }
}

#[test]
fn zones_do_not_need_the_machine() {
    let bundled = jiff::tz::TimeZoneDatabase::bundled();
    for name in ["Europe/Berlin", "Australia/Lord_Howe"] {
        let zone = bundled.get(name).unwrap();
        assert_eq!(zone.iana_name(), Some(name));
    }
}
