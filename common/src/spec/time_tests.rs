use super::*;
use proptest::prelude::*;

#[test]
fn durations_are_read_in_every_form() {
    for (text, ms, shown) in [
        ("10s", 10_000, "10s"),
        ("90m", 5_400_000, "1h30m"),
        ("1h30m", 5_400_000, "1h30m"),
        ("1.5h", 5_400_000, "1h30m"),
        ("2d", 172_800_000, "2d"),
        ("2 days", 172_800_000, "2d"),
        ("500ms", 500, "500ms"),
        ("1-12:00:00", 129_600_000, "1d12h"),
        ("0-00:30", 1_800_000, "30m"),
        ("12:00:00", 43_200_000, "12h"),
        ("P7D", 604_800_000, "7d"),
        ("P1W", 604_800_000, "7d"),
        ("PT1H30M", 5_400_000, "1h30m"),
        ("P1DT0.5S", 86_400_500, "1d500ms"),
        ("0s", 0, "0s"),
        ("400d", DURATION_MS_MAX, "400d"),
    ] {
        let duration = DurationMs::parse(text).unwrap_or_else(|e| panic!("{text}: {e:?}"));
        assert_eq!((duration.ms(), duration.to_string().as_str()), (ms, shown), "{text}");
    }
}

#[test]
fn bad_durations_say_why() {
    for (text, code) in [
        ("90", ErrorCode::BadUnit),
        ("1h30", ErrorCode::BadUnit),
        ("90 fortnights", ErrorCode::BadUnit),
        ("12:00", ErrorCode::BadUnit),
        ("P1Y", ErrorCode::BadUnit),
        ("P1M", ErrorCode::BadUnit),
        ("401d", ErrorCode::OutOfRange),
        ("99999999999999999999d", ErrorCode::OutOfRange),
        ("1-25:00:00", ErrorCode::OutOfRange),
        ("0:61:00", ErrorCode::OutOfRange),
        ("0.1ms", ErrorCode::OutOfRange),
        ("", ErrorCode::WrongType),
        ("-5m", ErrorCode::WrongType),
        ("soon", ErrorCode::WrongType),
        ("P", ErrorCode::WrongType),
        ("PT", ErrorCode::WrongType),
        ("30m1h", ErrorCode::WrongType),
        ("1m1m", ErrorCode::WrongType),
        ("1.h", ErrorCode::WrongType),
        ("1:2:3:4", ErrorCode::WrongType),
        ("Pé", ErrorCode::WrongType),
    ] {
        assert_eq!(DurationMs::parse(text).map_err(|e| e.code), Err(code), "{text}");
    }
}

#[test]
fn points_in_time_are_exact() {
    for (text, ms) in [
        ("1970-01-01T00:00:00Z", 0),
        ("2000-02-29T12:00:00Z", 951_825_600_000),
        ("2027-01-31T08:00:00Z", 1_801_382_400_000),
        ("2027-01-31T09:00:00+01:00", 1_801_382_400_000),
        ("2027-01-31 08:00:00.250z", 1_801_382_400_250),
        ("2027-01-31T08:00:00.0001Z", 1_801_382_400_001),
        ("9999-12-31T23:59:59Z", 253_402_300_799_000),
    ] {
        assert_eq!(parse_rfc3339(text), Ok(ms), "{text}");
    }
    for (text, code) in [
        ("2027-01-31T08:00:00", ErrorCode::BadUnit),
        ("2027-01-31T08:00:00+25:00", ErrorCode::BadUnit),
        ("2027-02-29T08:00:00Z", ErrorCode::OutOfRange),
        ("2100-02-29T08:00:00Z", ErrorCode::OutOfRange),
        ("2027-13-01T08:00:00Z", ErrorCode::OutOfRange),
        ("2027-01-31T24:00:00Z", ErrorCode::OutOfRange),
        ("1969-12-31T23:59:59Z", ErrorCode::OutOfRange),
        ("2027-01-31", ErrorCode::WrongType),
        ("tomorrow", ErrorCode::WrongType),
        ("2027-01-31T08:00:0é", ErrorCode::WrongType),
    ] {
        assert_eq!(parse_rfc3339(text).map_err(|e| e.code), Err(code), "{text}");
    }
    let delay = DurationMs::new(7_200_000).unwrap();
    assert_eq!(NotBefore::parse("+2h"), Ok(NotBefore::After(delay)));
}

proptest! {
    #[test]
    fn durations_read_back(ms in 0..=DURATION_MS_MAX) {
        let duration = DurationMs::new(ms).unwrap();
        prop_assert_eq!(DurationMs::parse(&duration.to_string()), Ok(duration));
    }

    #[test]
    fn points_in_time_read_back(ms in 0u64..253_402_300_800_000) {
        prop_assert_eq!(parse_rfc3339(&format_rfc3339(ms)), Ok(ms));
    }

    #[test]
    fn days_follow_each_other(days in -719_468i64..2_932_896) {
        let (year, month, day) = civil_from_days(days);
        prop_assert_eq!(days_from_civil(year, month, day), days);
        prop_assert!(civil_from_days(days + 1) > (year, month, day));
    }

    #[test]
    fn any_text_is_refused_or_read(text in "[-+:.0-9PTDHMSWdhmsZé ]{0,24}", any in "\\PC{0,30}") {
        for text in [text, any] {
            let _ = DurationMs::parse(&text);
            let _ = NotBefore::parse(&text);
        }
    }
}
