//! Named, typed questions about the world: before, during and after an experiment. No code in a payload.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::{DrError, ErrorName, Result};
use crate::ids::{DatabaseId, Region};

/// A question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "probe", rename_all = "kebab-case", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Probe {
    /// The database has a proven backup that is not older than that.
    BackupsExist {
        /// The database.
        database: DatabaseId,
        /// Its age at most, hours: 1 to 8,760.
        within_hours: u32,
    },
    /// Every replica of the database replicates, and none lags by that much. A lag of -1 is not replicating.
    ReplicationLagBelow {
        /// The database.
        database: DatabaseId,
        /// Seconds: 1 to 86,400.
        seconds: u32,
    },
    /// `health_check` has nothing worse than that to say about the database.
    HealthIs {
        /// The database.
        database: DatabaseId,
        /// The worst finding that is tolerated.
        at_worst: Health,
    },
    /// The newest snapshot of the database is proven.
    LatestSnapshotProven {
        /// The database.
        database: DatabaseId,
    },
    /// The database takes connections, and its heartbeat has lost nothing that was acknowledged.
    DataIntact {
        /// The database.
        database: DatabaseId,
    },
    /// A URL answers with that status in that time.
    Http {
        /// `https://`; the host must be one that the installation allows (`CHAOS_PROBE_HOSTS`).
        url: String,
        /// The status: 100 to 599.
        #[serde(default = "ok")]
        status: u16,
        /// Milliseconds: 1 to 10,000.
        #[serde(default = "a_second")]
        within_milliseconds: u32,
    },
    /// A CloudWatch alarm is in the state `OK`.
    AlarmIsOk {
        /// Its name.
        alarm: String,
        /// Its Region; the experiment's when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        region: Option<Region>,
    },
}

const fn ok() -> u16 {
    200
}

const fn a_second() -> u32 {
    1_000
}

/// How bad a finding of `health_check` may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Nothing is found.
    Healthy,
    /// Warnings at worst.
    Warning,
}

impl Probe {
    /// The word for it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::BackupsExist { .. } => "backups-exist",
            Self::ReplicationLagBelow { .. } => "replication-lag-below",
            Self::HealthIs { .. } => "health-is",
            Self::LatestSnapshotProven { .. } => "latest-snapshot-proven",
            Self::DataIntact { .. } => "data-intact",
            Self::Http { .. } => "http",
            Self::AlarmIsOk { .. } => "alarm-is-ok",
        }
    }

    /// Checks the bounds. `hosts` are those that the installation allows.
    ///
    /// # Errors
    /// [`ErrorName::InvalidInput`] with the probe, the field and the rule.
    pub fn check(&self, hosts: &[String]) -> Result<()> {
        let within = |field: &str, value: u32, most: u32| {
            if (1..=most).contains(&value) {
                return Ok(());
            }
            Err(self.fault(&format!("`{field}` must be 1 to {most}")))
        };
        match self {
            Self::BackupsExist { within_hours, .. } => within("withinHours", *within_hours, 8_760),
            Self::ReplicationLagBelow { seconds, .. } => within("seconds", *seconds, 86_400),
            Self::HealthIs { .. } | Self::LatestSnapshotProven { .. } | Self::DataIntact { .. } => Ok(()),
            Self::Http { url, status, within_milliseconds } => {
                within("withinMilliseconds", *within_milliseconds, 10_000)?;
                if !(100..=599).contains(status) {
                    return Err(self.fault("`status` must be 100 to 599"));
                }
                let Some(host) = host(url) else {
                    return Err(self.fault("`url` must be https://<host>/… without a user in it"));
                };
                if hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(host)) {
                    return Ok(());
                }
                Err(self.fault("the host of `url` is not one of CHAOS_PROBE_HOSTS"))
            }
            Self::AlarmIsOk { alarm, .. } if (1..=255).contains(&alarm.chars().count()) => Ok(()),
            Self::AlarmIsOk { .. } => Err(self.fault("`alarm` needs 1 to 255 characters")),
        }
    }

    fn fault(&self, rule: &str) -> DrError {
        DrError::new(
            ErrorName::InvalidInput,
            format!("reading the experiment: probe {}: {rule}", self.name()),
        )
    }
}

/// Host, with its port where it has one, of an `https` URL.
fn host(url: &str) -> Option<&str> {
    let rest = url.strip_prefix("https://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | ':');
    (!authority.is_empty() && authority.chars().all(plain)).then_some(authority)
}

/// An answer. "I could not look" is not "it failed", and neither lets an experiment begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It is as asked.
    Passed,
    /// It is not.
    Failed,
    /// It could not be looked at.
    Unknown,
}

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// The question.
    pub probe: Probe,
    /// The answer.
    pub verdict: Verdict,
    /// What was seen, without content of the database or of the answer.
    pub detail: String,
    /// Of `data-intact`: whether nothing that was acknowledged is missing; absent when the database did not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intact: Option<bool>,
    /// When.
    pub at: Timestamp,
}

/// The first finding that did not pass, as a sentence.
pub fn first_fault(findings: &[Finding]) -> Option<String> {
    findings.iter().find(|finding| finding.verdict != Verdict::Passed).map(|finding| {
        let word = if finding.verdict == Verdict::Failed { "failed" } else { "could not be looked at" };
        format!("probe {} {word}: {}", finding.probe.name(), finding.detail)
    })
}
