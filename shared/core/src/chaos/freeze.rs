//! Times in which no experiment begins.

use jiff::Timestamp;
use jiff::civil::{Time, Weekday};
use jiff::tz::TimeZone;

use crate::error::{DrError, ErrorName, Result};

/// A time in which no experiment begins. All times are UTC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Window {
    /// Every week, `fri 16:00/mon 08:00`; the end is not in it. It may go over the end of the week.
    Weekly {
        /// Minutes since Monday, 00:00.
        from: u32,
        /// Minutes since Monday, 00:00.
        until: u32,
    },
    /// Once, `2026-12-20T00:00:00Z/2027-01-03T00:00:00Z`; the end is not in it.
    Once {
        /// From.
        from: Timestamp,
        /// Until.
        until: Timestamp,
    },
}

/// Reads windows, separated by commas. An empty text is none.
///
/// # Errors
/// [`ErrorName::InvalidConfiguration`] with the number of the window that cannot be read.
pub fn parse(text: &str) -> Result<Vec<Window>> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts
        .enumerate()
        .map(|(index, part)| {
            let window = part.split_once('/').and_then(|(from, until)| once(from, until).or_else(|| weekly(from, until)));
            window.ok_or_else(|| {
                DrError::new(
                    ErrorName::InvalidConfiguration,
                    format!(
                        "reading CHAOS_FREEZE_WINDOWS: window {}: it is written like `fri 16:00/mon 08:00` or like two \
                         timestamps, 2026-12-20T00:00:00Z/2027-01-03T00:00:00Z, the second one later",
                        index + 1
                    ),
                )
            })
        })
        .collect()
}

fn once(from: &str, until: &str) -> Option<Window> {
    let (from, until) = (from.trim().parse().ok()?, until.trim().parse().ok()?);
    (from < until).then_some(Window::Once { from, until })
}

fn weekly(from: &str, until: &str) -> Option<Window> {
    let (from, until) = (minute(from)?, minute(until)?);
    (from != until).then_some(Window::Weekly { from, until })
}

/// Minutes since Monday, 00:00, of `fri 16:00`.
fn minute(text: &str) -> Option<u32> {
    let (day, time) = text.trim().split_once(' ')?;
    let days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
    let day = days.iter().position(|name| day.eq_ignore_ascii_case(name))?;
    let time: Time = time.trim().parse().ok()?;
    Some(
        u32::try_from(day).ok()? * 1_440
            + u32::try_from(time.hour()).ok()? * 60
            + u32::try_from(time.minute()).ok()?,
    )
}

impl Window {
    /// Whether `now` is in it.
    pub fn holds(&self, now: Timestamp) -> bool {
        match self {
            Self::Once { from, until } => (*from..*until).contains(&now),
            Self::Weekly { from, until } => {
                let here = now.to_zoned(TimeZone::UTC);
                let day = u32::try_from(here.weekday().since(Weekday::Monday)).unwrap_or(0);
                let time = here.time();
                let part = |number: i8| u32::try_from(number).unwrap_or(0);
                let minute = day * 1_440 + part(time.hour()) * 60 + part(time.minute());
                if from < until {
                    (*from..*until).contains(&minute)
                } else {
                    minute >= *from || minute < *until
                }
            }
        }
    }
}

/// Refuses to begin in a window.
///
/// # Errors
/// [`ErrorName::FreezeWindow`].
pub fn check(windows: &[Window], now: Timestamp) -> Result<()> {
    match windows.iter().position(|window| window.holds(now)) {
        None => Ok(()),
        Some(index) => Err(DrError::new(
            ErrorName::FreezeWindow,
            format!("beginning an experiment at {now}: window {} of CHAOS_FREEZE_WINDOWS", index + 1),
        )),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_window_holds_its_beginning_and_not_its_end() {
        // 2026-11-27 is a Friday.
        let cases = [
            ("fri 16:00/mon 08:00", "2026-11-27T15:59:59Z", false),
            ("fri 16:00/mon 08:00", "2026-11-27T16:00:00Z", true),
            ("fri 16:00/mon 08:00", "2026-11-29T12:00:00Z", true),
            ("fri 16:00/mon 08:00", "2026-11-30T07:59:59Z", true),
            ("fri 16:00/mon 08:00", "2026-11-30T08:00:00Z", false),
            ("Tue 09:00/Tue 17:00", "2026-11-24T12:00:00Z", true),
            ("Tue 09:00/Tue 17:00", "2026-11-25T12:00:00Z", false),
            ("2026-12-20T00:00:00Z/2027-01-03T00:00:00Z", "2026-12-20T00:00:00Z", true),
            ("2026-12-20T00:00:00Z/2027-01-03T00:00:00Z", "2027-01-03T00:00:00Z", false),
            ("", "2026-12-20T00:00:00Z", false),
        ];
        for (text, now, inside) in cases {
            let windows = parse(text).unwrap();
            let answer = check(&windows, now.parse().unwrap());
            assert_eq!(answer.is_err(), inside, "{text} at {now}");
            assert!(answer.is_ok() || answer.unwrap_err().name() == ErrorName::FreezeWindow);
        }
    }

    #[test]
    fn what_is_no_window_is_refused_with_its_number() {
        for text in [
            "fri 16:00",
            "x/y",
            "fri 25:00/mon 08:00",
            "fri 16:00/fri 16:00",
            "mon 1/tue 2",
            "2027-01-03T00:00:00Z/2026-12-20T00:00:00Z",
        ] {
            let error = parse(&format!("tue 09:00/tue 17:00,{text}")).unwrap_err();
            assert_eq!(error.name(), ErrorName::InvalidConfiguration, "{text}");
            assert!(error.to_string().contains("window 2"), "{error}");
        }
    }
}
