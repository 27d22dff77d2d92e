//! Decisions about a fleet run: which databases it covers, under which names their backups run, and what came of all
//! of them together.
//!
//! A run lists its databases once, starts a backup for each as an execution of its own, and is summed up once. The
//! backups themselves are decided elsewhere. That one of them fails never stops another: tolerance decides what the
//! run as a whole is called, not what is still backed up.

mod report;
mod roll;

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use report::{Entry, Named, Outcome, Report, Run, RunOutcome, Severity, Slow, Summary, Told, sum_up};
pub use roll::{Coverage, Member, Roll, SkipReason, Skipped, call_roll, skip_reason};

use crate::error::{DrError, ErrorName, Result};
use crate::ids::{DatabaseId, OperationId, Region};
use crate::plan::{Installation, plan_backup};
use crate::request::{BackupRequest, Selector};

/// Most databases that a request may list by name: the list is part of the operation's record.
pub const MOST_LISTED: usize = 1_000;
/// Most backups side by side. RDS itself copies 20 instance snapshots into a Region at a time, and 5 of clusters.
pub const MOST_CONCURRENT: u32 = 200;

/// The input of `fleet_backup`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FleetRequest {
    /// The fleet's name, such as `production`: one run of a fleet goes on at a time. 1 to 40 lower-case letters, digits
    /// and hyphens.
    pub fleet: String,
    /// The databases, by name; this or `selector`.
    #[serde(default)]
    pub databases: Option<Vec<DatabaseId>>,
    /// The databases that carry a tag; this or `databases`.
    #[serde(default)]
    pub selector: Option<Selector>,
    /// Backups side by side: 1 to [`MOST_CONCURRENT`].
    #[serde(default = "ten")]
    pub max_concurrency: u32,
    /// How many may fail before the run itself counts as failed.
    #[serde(default)]
    pub tolerated: Tolerance,
    /// What each backup is asked for with: a backup request without `database` and `selector`.
    #[serde(default)]
    pub backup: BackupRequest,
    /// The operation of an earlier run that this one goes on with: what it backed up is not backed up again.
    #[serde(default)]
    pub resume: Option<OperationId>,
}

fn ten() -> u32 {
    10
}

/// How many backups of a run may fail: the larger of both is tolerated. Neither: none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Tolerance {
    /// Of the databases, 0 to 100; a part of a database is none.
    pub percent: u32,
    /// In number.
    pub count: u32,
}

impl Tolerance {
    /// How many of `total` may fail.
    pub fn of(self, total: usize) -> usize {
        let percent = usize::try_from(self.percent.min(100)).unwrap_or(100);
        let count = usize::try_from(self.count).unwrap_or(usize::MAX);
        (total.saturating_mul(percent) / 100).max(count)
    }
}

/// What a fleet run will do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FleetPlan {
    /// The operation.
    pub operation_id: OperationId,
    /// Always `fleet`.
    pub kind: String,
    /// When the execution started.
    pub started_at: Timestamp,
    /// The home Region.
    pub region: Region,
    /// The fleet's name.
    pub fleet: String,
    /// The operation whose backups are gone on with: this one, or the one that is resumed.
    pub run: OperationId,
    /// The databases, where they are listed.
    pub databases: Option<Vec<DatabaseId>>,
    /// The databases, where a tag tells.
    pub selector: Option<Selector>,
    /// Backups side by side.
    pub max_concurrency: u32,
    /// How many may fail.
    pub tolerated: Tolerance,
    /// What each backup is asked for with.
    pub backup: BackupRequest,
}

/// Whether a text is a fleet's name.
fn is_name(text: &str) -> bool {
    (1..=40).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

/// What is locked while a fleet's run goes on. A database's identifier has no colon, so that the two never meet.
pub fn resource(fleet: &str) -> String {
    format!("fleet:{fleet}")
}

/// Plans a run. The request for the backups is planned too, for an invented database: what every backup would be
/// refused for is refused once, here.
///
/// # Errors
/// [`ErrorName::InvalidInput`] naming the field, and those of [`plan_backup`].
pub fn plan_run(
    operation: &OperationId,
    request: &FleetRequest,
    installation: &Installation,
    started_at: Timestamp,
) -> Result<FleetPlan> {
    let invalid =
        |text: &str| Err(DrError::new(ErrorName::InvalidInput, format!("reading the fleet request: {text}")));
    if !is_name(&request.fleet) {
        return invalid("`fleet` needs 1 to 40 lower-case letters, digits or hyphens, a letter first");
    }
    match (&request.databases, &request.selector) {
        (Some(_), Some(_)) => return invalid("give `databases` or `selector`, not both"),
        (None, None) => return invalid("`databases` or `selector` is missing"),
        (Some(list), None) if list.is_empty() || list.len() > MOST_LISTED => {
            return invalid("`databases` needs 1 to 1000 names");
        }
        (Some(list), None) if list.iter().collect::<BTreeSet<_>>().len() < list.len() => {
            return invalid("`databases` names one of them twice");
        }
        _ => {}
    }
    if !(1..=MOST_CONCURRENT).contains(&request.max_concurrency) {
        return invalid("`maxConcurrency` must be 1 to 200");
    }
    if request.tolerated.percent > 100 {
        return invalid("`tolerated.percent` must be 0 to 100");
    }
    if request.backup.database.is_some() || request.backup.selector.is_some() {
        return invalid("`backup` names a database; the fleet does that");
    }
    if request.resume.as_ref().is_some_and(|run| !run.as_str().starts_with("fleet-")) {
        return invalid("`resume` is the id of a fleet's operation, `fleet-…`");
    }
    let invented = BackupRequest { database: Some(DatabaseId::parse("any")?), ..request.backup.clone() };
    plan_backup(operation, &invented, installation, started_at)?;
    Ok(FleetPlan {
        operation_id: operation.clone(),
        kind: "fleet".to_owned(),
        started_at,
        region: installation.region.clone(),
        fleet: request.fleet.clone(),
        run: request.resume.clone().unwrap_or_else(|| operation.clone()),
        databases: request.databases.clone(),
        selector: request.selector.clone(),
        max_concurrency: request.max_concurrency,
        tolerated: request.tolerated,
        backup: request.backup.clone(),
    })
}

#[cfg(test)]
#[path = "fleet_tests.rs"]
mod tests;
