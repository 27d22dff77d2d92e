//! Logs as JSON lines on standard output, where Lambda picks them up.
//!
//! `LOG_LEVEL` (error, warn, info, debug, trace; `info` when absent or unknown) rules our own lines. Libraries
//! never log below `info`: the SDK and the Lambda runtime write whole requests at their lower levels, and those
//! hold passwords.

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::layer;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

const LIBRARIES: &[&str] = &["aws_", "hyper", "h2", "lambda_runtime", "rustls", "tokio_postgres", "tower"];

/// Starts logging. A second call changes nothing.
pub fn init(log_level: Option<&str>) {
    let lines = layer()
        .json()
        .flatten_event(true)
        .with_current_span(true)
        .with_span_list(false)
        .with_target(true)
        .with_writer(std::io::stdout);
    // Fails only when logging was started already: then it stays as it was.
    let _ = tracing_subscriber::registry().with(targets(log_level)).with(lines).try_init();
}

/// A filter by the beginnings of targets. `EnvFilter` would bring regular expressions, a tenth of a small function.
fn targets(log_level: Option<&str>) -> Targets {
    let ours: LevelFilter = log_level.and_then(|text| text.trim().parse().ok()).unwrap_or(LevelFilter::INFO);
    let theirs = ours.min(LevelFilter::INFO);
    Targets::new()
        .with_default(ours)
        .with_targets(LIBRARIES.iter().map(|library| (*library, theirs)))
        // The runtime logs every error that a handler returns, once more and always as an error. `run` has done that
        // already; a panic is written to standard error by Rust itself.
        .with_target("lambda_runtime::layers::panic", LevelFilter::OFF)
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn libraries_never_log_below_info() {
        for (level, ours, theirs) in [
            (Some("trace"), Level::TRACE, Level::INFO),
            (Some("DEBUG"), Level::DEBUG, Level::INFO),
            (Some("error"), Level::ERROR, Level::ERROR),
            (Some("loud"), Level::INFO, Level::INFO),
            (None, Level::INFO, Level::INFO),
        ] {
            let filter = targets(level);
            for (target, most) in [
                ("validate_backup::judge", ours),
                ("dr_aws", ours),
                ("aws_smithy_runtime::client::orchestrator", theirs),
                ("h2::codec", theirs),
                ("lambda_runtime", theirs),
            ] {
                for asked in [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE] {
                    assert_eq!(
                        filter.would_enable(target, &asked),
                        asked <= most,
                        "{level:?} {target} {asked}"
                    );
                }
            }
            assert!(!filter.would_enable("lambda_runtime::layers::panic", &Level::ERROR));
        }
    }
}
