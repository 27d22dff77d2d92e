//! The function's configuration.

use std::collections::BTreeMap;

use dr_core::Result;
use dr_core::config::{self, Vars};
use dr_core::health::{Severity, Thresholds};
use dr_core::ids::{DatabaseId, KmsKeyId, Region};
use jiff::SignedDuration;

/// The function's configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The state table.
    pub table: String,
    /// The bucket for reports.
    pub bucket: String,
    /// The key of Lifeboat's records.
    pub key: Option<KmsKeyId>,
    /// The Regions for copies.
    pub target_regions: Vec<Region>,
    /// Their keys.
    pub target_keys: BTreeMap<Region, KmsKeyId>,
    /// Databases that must be there and must have backups, also before their first one.
    pub databases: Vec<DatabaseId>,
    /// From when on something is a finding.
    pub thresholds: Thresholds,
    /// Where people hear of it.
    pub topics: Topics,
}

/// ARNs of the topics.
#[derive(Debug, Clone)]
pub struct Topics {
    /// A person must act now.
    pub critical: String,
    /// A person should look.
    pub warning: String,
    /// What is over.
    pub info: String,
}

impl Topics {
    /// The topic for a severity.
    pub fn of(&self, severity: Severity) -> &str {
        match severity {
            Severity::Critical => &self.critical,
            Severity::Warning => &self.warning,
            Severity::Info => &self.info,
        }
    }
}

impl Config {
    /// Reads the configuration from the environment.
    ///
    /// # Errors
    /// [`dr_core::ErrorName::InvalidConfiguration`] with every fault.
    pub fn read(mut vars: Vars<'_>) -> Result<Self> {
        let table = vars.required("DR_STATE_TABLE_NAME", config::text);
        let bucket = vars.required("DR_METADATA_BUCKET", config::text);
        let key = vars.optional("DR_KMS_KEY_ID", config::id);
        let target_regions = vars.list("DR_TARGET_REGIONS", config::id);
        let target_keys = vars.region_keys("DR_TARGET_KMS_KEY_IDS");
        let databases = vars.list("DR_HEALTH_DATABASES", config::id);
        let critical = vars.required("DR_CRITICAL_TOPIC_ARN", config::text);
        let warning = vars.required("DR_WARNING_TOPIC_ARN", config::text);
        let info = vars.required("DR_INFO_TOPIC_ARN", config::text);
        let hours = |hours: i64| SignedDuration::from_hours(hours);
        let thresholds = Thresholds {
            backup_age: SignedDuration::from_secs_f64(
                vars.or_else("DR_BACKUP_AGE_HOURS", config::number(0.001..=8_760.0), 12.0) * 3_600.0,
            ),
            storage_percent: vars.or_else("DR_STORAGE_PERCENT", config::number(1..=99), 85),
            replica_lag: SignedDuration::from_secs(vars.or_else(
                "DR_REPLICA_LAG_SECONDS",
                config::number(1..=86_400),
                300,
            )),
            quota_percent: vars.or_else("DR_QUOTA_PERCENT", config::number(1..=99), 80),
            certificate: hours(24 * vars.or_else("DR_CERTIFICATE_DAYS", config::number(1..=3_650), 90)),
            recovery_lag: SignedDuration::from_mins(vars.or_else(
                "DR_RECOVERY_LAG_MINUTES",
                config::number(6..=10_080),
                15,
            )),
        };
        vars.build(|| {
            let topics = Topics { critical: critical?, warning: warning?, info: info? };
            let (table, bucket) = (table?, bucket?);
            Some(Self { table, bucket, key, target_regions, target_keys, databases, thresholds, topics })
        })
    }
}
