//! Instants of the SDK as instants of ours. No clock is read here.

use aws_smithy_types::DateTime;
use jiff::Timestamp;

/// The same instant; `None` outside of the years that `jiff` knows (-9999 to 9999).
pub fn timestamp(time: &DateTime) -> Option<Timestamp> {
    Timestamp::new(time.secs(), i32::try_from(time.subsec_nanos()).ok()?).ok()
}

/// The same instant.
pub fn date_time(time: Timestamp) -> DateTime {
    // `jiff` gives a negative fraction before 1970, the SDK wants it counted upwards.
    let nanos = time.as_nanosecond();
    let whole = nanos.div_euclid(1_000_000_000);
    let fraction = nanos.rem_euclid(1_000_000_000);
    DateTime::from_secs_and_nanos(
        i64::try_from(whole).unwrap_or_default(),
        u32::try_from(fraction).unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn instants_survive_the_way_there_and_back() {
        for text in ["2026-01-02T03:04:05.678Z", "1969-12-31T23:59:59.5Z", "1970-01-01T00:00:00Z"] {
            let time: Timestamp = text.parse().unwrap();
            assert_eq!(timestamp(&date_time(time)), Some(time), "{text}");
        }
    }
}
