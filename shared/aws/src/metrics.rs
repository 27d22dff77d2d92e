//! Metrics in CloudWatch's embedded metric format: lines on standard output, flushed once per invocation.
//!
//! Dimensions are `operation`, `status`, `region`, `source`, `target` (Regions), `component` and `error_code` only. Ids are never dimensions: each value
//! would become a metric of its own and cost as one.

use std::sync::OnceLock;

use dr_core::ErrorName;
use dr_core::config::{self, Vars};
use dr_core::ids::Region;
use metrics::Unit;
use metrics_cloudwatch_embedded::{Builder, Collector};

/// Operations that ended, by `operation` and `status` (`success`, `failure`, `partial`, `unproven`).
pub const OPERATION_TOTAL: &str = "dr_operation_total";
/// How long an operation took, seconds.
pub const OPERATION_DURATION_SECONDS: &str = "dr_operation_duration_seconds";
/// Errors by `operation` and `error_code`.
pub const ERRORS_TOTAL: &str = "dr_errors_total";
/// Allocated size of a snapshot, by `region`.
pub const BACKUP_SIZE_GB: &str = "dr_backup_size_gb";
/// Age of the newest data that arrived in a Region, by `region`; lag of the worst read replica, by the Regions `source`
/// and `target`.
pub const REPLICATION_LAG_SECONDS: &str = "dr_replication_lag_seconds";

/// 1 while the circuit breaker of an `operation` is open or half-open, otherwise 0.
pub const CIRCUIT_BREAKER_OPEN: &str = "dr_circuit_breaker_open";
/// 1 healthy, 0.5 degraded, 0 failed, by `component`; `system` is the worst of them.
pub const SYSTEM_HEALTH: &str = "dr_system_health";
/// Age of the newest recovery point, or copy, of the database that is worst off, by `region`.
pub const BACKUP_AGE_SECONDS: &str = "dr_backup_age_seconds";
/// Used storage of the fullest database, per cent of what it may grow to, by `region`.
pub const STORAGE_USED_PERCENT: &str = "dr_storage_used_percent";
/// What the database that is worst off would lose if the home Region died now.
pub const RPO_IF_REGION_DIED_SECONDS: &str = "dr_rpo_if_region_died_seconds";
/// How long a system needed to recover, as measured, by `operation`.
pub const RECOVERY_TIME_SECONDS: &str = "dr_recovery_time_seconds";
/// Experiments that left something that could not be put back, by `operation`.
pub const EXPERIMENTS_STUCK: &str = "dr_experiments_stuck";

static COLLECTOR: OnceLock<Option<&'static Collector>> = OnceLock::new();

/// Where metrics go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `METRICS_NAMESPACE`, by default `DisasterRecovery`.
    pub namespace: String,
    /// `ENABLE_CLOUDWATCH_METRICS`, by default true.
    pub enabled: bool,
}

impl Settings {
    /// Reads the settings. A malformed switch is a fault like any other.
    pub fn read(vars: &mut Vars<'_>) -> Self {
        Self {
            namespace: vars.or_else("METRICS_NAMESPACE", config::text, "DisasterRecovery".to_owned()),
            enabled: vars.or_else("ENABLE_CLOUDWATCH_METRICS", config::boolean, true),
        }
    }
}

/// Starts collecting. A second call changes nothing; switched off, every helper here does nothing.
pub fn init(settings: &Settings) {
    COLLECTOR.get_or_init(|| {
        if !settings.enabled {
            return None;
        }
        let started = Builder::new().cloudwatch_namespace(settings.namespace.clone()).init();
        match started {
            Ok(collector) => {
                metrics::describe_counter!(OPERATION_TOTAL, Unit::Count, "Operations that ended");
                metrics::describe_histogram!(
                    OPERATION_DURATION_SECONDS,
                    Unit::Seconds,
                    "Duration of operations"
                );
                metrics::describe_counter!(ERRORS_TOTAL, Unit::Count, "Errors");
                metrics::describe_gauge!(BACKUP_SIZE_GB, Unit::Gibibytes, "Allocated size of a snapshot");
                metrics::describe_gauge!(
                    REPLICATION_LAG_SECONDS,
                    Unit::Seconds,
                    "Age of the newest copied data"
                );
                metrics::describe_gauge!(SYSTEM_HEALTH, Unit::Count, "1 healthy, 0.5 degraded, 0 failed");
                metrics::describe_gauge!(
                    BACKUP_AGE_SECONDS,
                    Unit::Seconds,
                    "Age of the newest recovery point"
                );
                metrics::describe_gauge!(
                    STORAGE_USED_PERCENT,
                    Unit::Percent,
                    "Storage of the fullest database"
                );
                metrics::describe_gauge!(
                    RPO_IF_REGION_DIED_SECONDS,
                    Unit::Seconds,
                    "What would be lost if the home Region died now"
                );
                metrics::describe_gauge!(
                    RECOVERY_TIME_SECONDS,
                    Unit::Seconds,
                    "How long a system needed to recover"
                );
                metrics::describe_gauge!(
                    EXPERIMENTS_STUCK,
                    Unit::Count,
                    "Experiments that a person must put back"
                );
                Some(collector)
            }
            Err(error) => {
                tracing::error!(%error, "metrics could not be started; the function works without them");
                None
            }
        }
    });
}

/// Writes out what was collected since the last flush.
pub fn flush() {
    if let Some(Some(collector)) = COLLECTOR.get()
        && let Err(error) = collector.flush(std::io::stdout())
    {
        tracing::warn!(%error, "metrics could not be written");
    }
}

/// Counts an operation that ended, with its duration when that is known.
pub fn operation_ended(operation: &'static str, status: &'static str, seconds: Option<f64>) {
    metrics::counter!(OPERATION_TOTAL, "operation" => operation, "status" => status).increment(1);
    if let Some(seconds) = seconds {
        metrics::histogram!(OPERATION_DURATION_SECONDS, "operation" => operation).record(seconds);
    }
}

/// Counts an error.
pub fn error(operation: &'static str, name: ErrorName) {
    metrics::counter!(ERRORS_TOTAL, "operation" => operation, "error_code" => name.code()).increment(1);
}

/// Sets a value of an operation, such as a measured RPO.
pub fn value(name: &'static str, operation: &'static str, value: f64) {
    metrics::gauge!(name, "operation" => operation).set(value);
}

/// Sets a value of a Region, such as a copy's lag.
pub fn regional_value(name: &'static str, region: &Region, value: f64) {
    metrics::gauge!(name, "region" => region.as_str().to_owned()).set(value);
}

/// Sets the health of a component: 1, 0.5 or 0.
pub fn health(component: &'static str, value: f64) {
    metrics::gauge!(SYSTEM_HEALTH, "component" => component).set(value);
}

/// Sets the lag of the worst replica between two Regions.
pub fn lag(source: &Region, target: &Region, seconds: f64) {
    let (source, target) = (source.as_str().to_owned(), target.as_str().to_owned());
    metrics::gauge!(REPLICATION_LAG_SECONDS, "source" => source, "target" => target).set(seconds);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn metrics_are_on_unless_switched_off() {
        for (value, enabled) in [(None, true), (Some("true"), true), (Some("false"), false)] {
            let mut vars = Vars::new(|name| {
                (name == "ENABLE_CLOUDWATCH_METRICS").then_some(value).flatten().map(str::to_owned)
            });
            assert_eq!(
                Settings::read(&mut vars),
                Settings { namespace: "DisasterRecovery".to_owned(), enabled }
            );
            vars.finish().unwrap();
        }
    }
}
