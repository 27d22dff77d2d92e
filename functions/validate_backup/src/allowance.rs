//! How much of an invocation's time may be worked in.

use std::time::Duration;

use dr_core::request::ValidationOptions;
use dr_database::Limits;

/// Least time that is kept back for storing what is done and for answering.
const LEAST_MARGIN: Duration = Duration::from_secs(2);

/// Limits for work in an invocation that has so much time left: nothing new is begun in the last tenth (at least 2
/// seconds), and what still runs is cut off in the middle of that.
pub fn limits(remaining: Duration, validation: &ValidationOptions) -> Limits {
    let margin = LEAST_MARGIN.max(remaining / 10).min(remaining / 2);
    Limits::lasting(usize::from(validation.connections), remaining.saturating_sub(margin), margin / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn keeps_time_back_in_proportion() {
        for (seconds, stop, cut) in [(900, 810, 855), (60, 54, 57), (10, 8, 9), (2, 1, 1), (0, 0, 0)] {
            let begun = tokio::time::Instant::now();
            let limits = limits(Duration::from_secs(seconds), &ValidationOptions::default());
            assert_eq!((limits.stop_at - begun).as_secs(), stop, "{seconds} s left");
            assert_eq!((limits.cut_at - begun).as_secs(), cut, "{seconds} s left");
        }
    }
}
