//! Logs as JSON lines on standard output, where Lambda picks them up.
//!
//! `LOG_LEVEL` (error, warn, info, debug, trace; `info` when absent or unknown) rules our own lines. Libraries
//! never log below `info`: the SDK and the Lambda runtime write whole requests at their lower levels, and those
//! hold passwords.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

const LIBRARIES: &[&str] = &["aws_", "hyper", "h2", "lambda_runtime", "rustls", "tokio_postgres", "tower"];

/// Starts logging. A second call changes nothing.
pub fn init(log_level: Option<&str>) {
    let filter = EnvFilter::builder().parse_lossy(directives(log_level));
    // Fails only when logging was started already: then it stays as it was.
    let _ = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(true)
        .with_span_list(false)
        .with_target(true)
        .with_env_filter(filter)
        .with_writer(std::io::stdout)
        .try_init();
}

fn directives(log_level: Option<&str>) -> String {
    let ours: LevelFilter = log_level.and_then(|text| text.trim().parse().ok()).unwrap_or(LevelFilter::INFO);
    let theirs = ours.min(LevelFilter::INFO);
    let list = LIBRARIES.iter().fold(ours.to_string(), |list, library| format!("{list},{library}={theirs}"));
    // The runtime logs every error that a handler returns, once more and always as an error. `run` has done that
    // already; a panic is written to standard error by Rust itself.
    list + ",lambda_runtime::layers::panic=off"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_never_log_below_info() {
        for (level, ours, theirs) in [
            (Some("trace"), "trace", "info"),
            (Some("DEBUG"), "debug", "info"),
            (Some("error"), "error", "error"),
            (Some("loud"), "info", "info"),
            (None, "info", "info"),
        ] {
            let text = directives(level);
            assert!(text.starts_with(&format!("{ours},")), "{text}");
            assert!(text.contains(&format!("aws_={theirs}")), "{text}");
            assert!(text.ends_with("lambda_runtime::layers::panic=off"), "{text}");
        }
    }
}
