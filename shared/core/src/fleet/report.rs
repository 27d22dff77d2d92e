//! What came of all backups of a run together.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Tolerance;
use super::roll::{Member, Roll, Skipped};
use crate::error::{DrError, ErrorName};
use crate::failure::Failure;
use crate::ids::{DatabaseId, OperationId};

/// Failures, skipped databases and slow ones that a summary names; the report in the bucket has all of them.
const MOST_NAMED: usize = 20;
/// The slowest backups that a summary names.
const SLOWEST: usize = 5;

/// What one backup of a run came to, as its child of the Map says it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Told {
    /// The database.
    pub database: DatabaseId,
    /// The name of the backup's execution.
    #[serde(default)]
    pub execution: Option<String>,
    /// `succeeded`, anything else is a failure.
    pub status: String,
    /// Whether an earlier start of this run had made it.
    #[serde(default)]
    pub earlier: bool,
    /// The backup's operation.
    #[serde(default)]
    pub operation_id: Option<String>,
    /// The snapshot.
    #[serde(default)]
    pub snapshot_id: Option<String>,
    /// How deep it was proven.
    #[serde(default)]
    pub level: Option<String>,
    /// The `Error` of what failed.
    #[serde(default)]
    pub error: Option<String>,
    /// The `Cause` of what failed.
    #[serde(default)]
    pub cause: Option<String>,
    /// When the backup started.
    #[serde(default)]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[serde(default)]
    pub ended_at: Option<Timestamp>,
}

/// What a backup of a run came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// Everything as asked.
    Succeeded,
    /// Everything as asked, by an earlier start of this run.
    Earlier,
    /// Another operation was at the database: what that one came to is its own record's.
    Refused,
    /// Proven, with no copy in some Region.
    Partial,
    /// It failed, or nobody knows what became of it.
    Failed,
}

/// One database in the report of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// The database.
    pub database: DatabaseId,
    /// What its backup came to.
    pub outcome: Outcome,
    /// The backup's operation, where known.
    pub operation_id: Option<String>,
    /// The name of its execution.
    pub execution: Option<String>,
    /// The snapshot, where known.
    pub snapshot_id: Option<String>,
    /// How deep it was proven.
    pub level: Option<String>,
    /// From its start to its end, where known.
    pub seconds: Option<i64>,
    /// Why it failed.
    pub failure: Option<Failure>,
}

impl Entry {
    fn read(told: Told) -> Self {
        let failure = (told.status != "succeeded").then(|| {
            Failure::read(
                told.error.as_deref().unwrap_or_default(),
                told.cause.as_deref().unwrap_or_default(),
            )
        });
        let outcome = match failure.as_ref().map(|failure| failure.name) {
            None if told.earlier => Outcome::Earlier,
            None => Outcome::Succeeded,
            Some(ErrorName::OperationInProgress) => Outcome::Refused,
            Some(ErrorName::ReplicationIncomplete) => Outcome::Partial,
            Some(_) => Outcome::Failed,
        };
        let seconds = told.started_at.zip(told.ended_at);
        Self {
            database: told.database,
            outcome,
            operation_id: told.operation_id,
            execution: told.execution,
            snapshot_id: told.snapshot_id,
            level: told.level,
            seconds: seconds.map(|(from, to)| to.duration_since(from).as_secs().max(0)),
            failure,
        }
    }

    fn lost(member: Member) -> Self {
        let text =
            format!("looking for the outcome of the backup of `{}`: the run has none", member.database);
        let error = DrError::new(ErrorName::BackupOutcomeUnknown, text);
        Self {
            database: member.database,
            outcome: Outcome::Failed,
            operation_id: None,
            execution: Some(member.execution),
            snapshot_id: None,
            level: None,
            seconds: None,
            failure: Some(Failure::new(error.name(), &error.to_string(), error.leftovers().clone())),
        }
    }
}

/// How loud a run is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Everything as asked.
    Info,
    /// Some failed, were refused or could not be backed up; no more than is tolerated.
    Warning,
    /// More failed than is tolerated.
    Critical,
}

/// A failure, as a summary names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Named {
    /// The database.
    pub database: DatabaseId,
    /// The error's name.
    pub error: ErrorName,
    /// The first 300 characters of its message.
    pub message: String,
}

/// A slow backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Slow {
    /// The database.
    pub database: DatabaseId,
    /// From its start to its end.
    pub seconds: i64,
}

/// What came of a run: the operation's result, and what people are told. At most some 20 kB.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// The run's operation.
    pub operation_id: OperationId,
    /// The fleet.
    pub fleet: String,
    /// `complete`, `incomplete` (some failed) or `exceeded` (more than is tolerated).
    pub outcome: RunOutcome,
    /// How loud it is told.
    pub severity: Severity,
    /// One sentence.
    pub headline: String,
    /// Databases that were to be backed up.
    pub total: usize,
    /// Backed up now.
    pub succeeded: usize,
    /// Backed up by an earlier start of this run.
    pub earlier: usize,
    /// Refused, because another operation was at the database.
    pub refused: usize,
    /// Proven, with no copy in some Region; counts as failed.
    pub partial: usize,
    /// Failed.
    pub failed: usize,
    /// How many may fail.
    pub tolerated: usize,
    /// Left out.
    pub skipped: usize,
    /// How many failed with which error.
    pub by_error: BTreeMap<ErrorName, usize>,
    /// The first failures and refusals, by name of the database: at most 20.
    pub failures: Vec<Named>,
    /// The first that were left out and should not have to be: at most 20.
    pub attention: Vec<Skipped>,
    /// The slowest backups: at most 5.
    pub slowest: Vec<Slow>,
    /// From the run's start to this summary.
    pub seconds: i64,
    /// Key of the report, which has an entry for each database.
    pub report_key: String,
}

/// What a run as a whole is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunOutcome {
    /// Nothing failed.
    Complete,
    /// Some failed, and no more than is tolerated.
    Incomplete,
    /// More failed than is tolerated.
    Exceeded,
}

/// The report of a run, for the bucket.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Everything together.
    pub summary: Summary,
    /// Every database, by name.
    pub databases: Vec<Entry>,
    /// Every one that was left out, by name.
    pub skipped: Vec<Skipped>,
}

/// What a run is summed up with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The run's operation.
    pub operation_id: OperationId,
    /// The fleet.
    pub fleet: String,
    /// How many may fail.
    pub tolerated: Tolerance,
    /// When it started.
    pub started_at: Timestamp,
    /// Now.
    pub now: Timestamp,
    /// Key of the report.
    pub report_key: String,
}

/// Sums a run up. A member of whom nothing is told has failed; of a database that is told of twice, the better counts.
pub fn sum_up(run: &Run, roll: Roll, told: impl IntoIterator<Item = Told>) -> Report {
    let mut entries: BTreeMap<DatabaseId, Entry> = BTreeMap::new();
    for entry in told.into_iter().map(Entry::read) {
        let better = entries.get(&entry.database).is_none_or(|known| entry.outcome < known.outcome);
        if better {
            entries.insert(entry.database.clone(), entry);
        }
    }
    let databases: Vec<Entry> = roll
        .members
        .into_iter()
        .map(|member| entries.remove(&member.database).unwrap_or_else(|| Entry::lost(member)))
        .collect();
    let summary = summary(run, &databases, &roll.skipped);
    Report { summary, databases, skipped: roll.skipped }
}

fn summary(run: &Run, databases: &[Entry], skipped: &[Skipped]) -> Summary {
    let of = |outcome| databases.iter().filter(|entry| entry.outcome == outcome).count();
    let total = databases.len();
    let (succeeded, earlier) = (of(Outcome::Succeeded), of(Outcome::Earlier));
    let (refused, partial, failed) = (of(Outcome::Refused), of(Outcome::Partial), of(Outcome::Failed));
    let tolerated = run.tolerated.of(total);
    let attention: Vec<Skipped> =
        skipped.iter().filter(|skipped| skipped.reason.needs_attention()).cloned().collect();
    let outcome = match failed + partial {
        0 => RunOutcome::Complete,
        bad if bad <= tolerated => RunOutcome::Incomplete,
        _ => RunOutcome::Exceeded,
    };
    let severity = match outcome {
        RunOutcome::Exceeded => Severity::Critical,
        RunOutcome::Complete if refused == 0 && attention.is_empty() => Severity::Info,
        RunOutcome::Complete | RunOutcome::Incomplete => Severity::Warning,
    };
    let mut by_error = BTreeMap::new();
    let mut failures = Vec::new();
    for (entry, failure) in databases.iter().filter_map(|entry| Some((entry, entry.failure.as_ref()?))) {
        *by_error.entry(failure.name).or_insert(0) += 1;
        if failures.len() < MOST_NAMED {
            failures.push(Named {
                database: entry.database.clone(),
                error: failure.name,
                message: failure.message.chars().take(300).collect(),
            });
        }
    }
    let mut slowest: Vec<Slow> = databases
        .iter()
        .filter(|entry| entry.outcome != Outcome::Earlier)
        .filter_map(|entry| Some(Slow { database: entry.database.clone(), seconds: entry.seconds? }))
        .collect();
    slowest.sort_by(|a, b| (b.seconds, &a.database).cmp(&(a.seconds, &b.database)));
    slowest.truncate(SLOWEST);
    let headline = format!(
        "{} of {total} databases of the fleet {} are backed up; {} failed ({tolerated} tolerated), {refused} were \
         refused, {} left out",
        succeeded + earlier,
        run.fleet,
        failed + partial,
        skipped.len(),
    );
    Summary {
        operation_id: run.operation_id.clone(),
        fleet: run.fleet.clone(),
        outcome,
        severity,
        headline,
        total,
        succeeded,
        earlier,
        refused,
        partial,
        failed,
        tolerated,
        skipped: skipped.len(),
        by_error,
        failures,
        attention: attention.into_iter().take(MOST_NAMED).collect(),
        slowest,
        seconds: run.now.duration_since(run.started_at).as_secs().max(0),
        report_key: run.report_key.clone(),
    }
}
