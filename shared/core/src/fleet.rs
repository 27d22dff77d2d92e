//! Decisions about a fleet run: which databases it covers, under which names their backups run, and what came of all
//! of them together.
//!
//! A run lists its databases once, starts a backup for each as an execution of its own, and is summed up once. The
//! backups themselves are decided elsewhere. That one of them fails never stops another: tolerance decides what the
//! run as a whole is called, not what is still backed up.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::engine::Engine;
use crate::error::{DrError, ErrorName, Result};
use crate::failure::Failure;
use crate::ids::{DatabaseId, OperationId, Region, hex};
use crate::labels::{self, Role};
use crate::observed::{DatabaseFacts, DatabaseKind};
use crate::plan::{Installation, plan_backup};
use crate::request::{BackupRequest, Selector};

/// Most databases that a request may list by name: the list is part of the operation's record.
pub const MOST_LISTED: usize = 1_000;
/// Most backups side by side. RDS itself copies 20 instance snapshots into a Region at a time, and 5 of clusters.
pub const MOST_CONCURRENT: u32 = 200;
/// Failures, skipped databases and slow ones that a summary names; the report in the bucket has all of them.
const MOST_NAMED: usize = 20;
/// The slowest backups that a summary names.
const SLOWEST: usize = 5;

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

/// What a fleet is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Coverage {
    /// The databases, by name.
    #[serde(default)]
    pub databases: Option<Vec<DatabaseId>>,
    /// The databases that carry a tag.
    #[serde(default)]
    pub selector: Option<Selector>,
}

impl Coverage {
    /// Whether the fleet means this database.
    pub fn covers(&self, facts: &DatabaseFacts) -> bool {
        let listed = self.databases.as_ref().is_some_and(|list| list.contains(&facts.id));
        let tagged = self
            .selector
            .as_ref()
            .is_some_and(|selector| labels::has(&facts.tags, &selector.tag.key, &selector.tag.value));
        listed || tagged
    }
}

/// A database that the run backs up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// The database.
    pub database: DatabaseId,
    /// An instance or a cluster.
    #[serde(default)]
    pub database_kind: DatabaseKind,
    /// What the names of its backup's executions begin with; a hyphen and the number of the attempt follow.
    pub execution: String,
}

/// Why a database that the fleet means is not backed up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "reason")]
pub enum SkipReason {
    /// It is a temporary restore of ours.
    Temporary,
    /// It is a read replica: its source is backed up.
    ReadReplica,
    /// It is a member of a cluster that the fleet means too: members are backed up with their cluster.
    ClusterMember {
        /// The cluster.
        #[serde(default)]
        cluster: String,
    },
    /// It is a member of a cluster that the fleet does not mean, so that nothing backs it up.
    ClusterNotCovered {
        /// The cluster: what to list, or to tag, instead.
        cluster: String,
    },
    /// There are an instance and a cluster of this name, and one lock for both.
    Ambiguous,
    /// No snapshot is taken in this status, and it does not end by itself.
    NotAvailable {
        /// The status.
        status: String,
    },
    /// An engine that Lifeboat does not prove.
    EngineUnsupported {
        /// The engine.
        engine: String,
    },
    /// It is listed, and there is no such database.
    Missing,
}

impl SkipReason {
    /// Whether the database would be lost for want of a backup, so that a person should look.
    pub fn needs_attention(&self) -> bool {
        match self {
            Self::Temporary | Self::ReadReplica | Self::ClusterMember { .. } => false,
            Self::NotAvailable { .. }
            | Self::EngineUnsupported { .. }
            | Self::ClusterNotCovered { .. }
            | Self::Ambiguous
            | Self::Missing => true,
        }
    }
}

/// A database that the fleet means and the run leaves out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Skipped {
    /// The database.
    pub database: DatabaseId,
    /// Why.
    #[serde(flatten)]
    pub reason: SkipReason,
}

/// Whom a run backs up and whom it leaves out, each in the order of the names.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Roll {
    /// Backed up.
    pub members: Vec<Member>,
    /// Left out.
    pub skipped: Vec<Skipped>,
}

/// Statuses that last until somebody does something (RDS User Guide, "Viewing Amazon RDS DB instance status"; Aurora
/// User Guide, "Viewing DB cluster status"). In all
/// others, those that we do not know among them, the backup itself waits for the database or names what is wrong.
const LASTING: &[&str] = &[
    "stopped",
    "stopping",
    "failed",
    "deleting",
    "creating",
    "cloning-failed",
    "migration-failed",
    "restore-error",
    "insufficient-capacity",
    "inaccessible-encryption-credentials",
    "inaccessible-encryption-credentials-recoverable",
];

/// Why a database is left out; `None` for one that is backed up.
pub fn skip_reason(facts: &DatabaseFacts) -> Option<SkipReason> {
    if labels::has(&facts.tags, labels::ROLE, Role::Temporary.as_str()) {
        return Some(SkipReason::Temporary);
    }
    if let Some(cluster) = &facts.cluster {
        return Some(SkipReason::ClusterMember { cluster: cluster.clone() });
    }
    if facts.replica_of.is_some() {
        return Some(SkipReason::ReadReplica);
    }
    if Engine::of_name(&facts.engine).is_none() {
        return Some(SkipReason::EngineUnsupported { engine: facts.engine.clone() });
    }
    let lasts = LASTING.contains(&facts.status.as_str()) || facts.status.starts_with("incompatible-");
    lasts.then(|| SkipReason::NotAvailable { status: facts.status.clone() })
}

/// Calls the roll of a run. The names of the backups' executions follow from the run and the database's ARN, so that
/// the same database has the same names in a run that is gone on with. Instances and clusters stand side by side; a
/// member of a cluster is never backed up by itself.
///
/// # Errors
/// [`ErrorName::FleetEmpty`] when nothing is left to back up: a schedule that covers nothing protects nothing.
pub fn call_roll(
    coverage: &Coverage,
    run: &OperationId,
    found: impl IntoIterator<Item = DatabaseFacts>,
) -> Result<Roll> {
    let mut members: BTreeMap<DatabaseId, Member> = BTreeMap::new();
    let mut skipped = BTreeMap::new();
    let mut clusters = BTreeSet::new();
    for facts in found.into_iter().filter(|facts| coverage.covers(facts)) {
        if facts.kind == DatabaseKind::Cluster {
            clusters.insert(facts.id.to_string());
        }
        match skip_reason(&facts) {
            // A member that has its cluster's name hides nothing.
            Some(SkipReason::ClusterMember { cluster }) if cluster == facts.id.as_str() => {}
            Some(reason) => {
                skipped.insert(facts.id.clone(), reason);
            }
            None if members.contains_key(&facts.id) => {
                skipped.insert(facts.id.clone(), SkipReason::Ambiguous);
            }
            None => {
                let execution = execution_name(run, &facts);
                let member = Member { database: facts.id.clone(), database_kind: facts.kind, execution };
                members.insert(facts.id.clone(), member);
            }
        }
    }
    for (database, reason) in &mut skipped {
        match reason {
            SkipReason::ClusterMember { cluster } if !clusters.contains(cluster) => {
                *reason = SkipReason::ClusterNotCovered { cluster: cluster.clone() };
            }
            SkipReason::Ambiguous => drop(members.remove(database)),
            _ => {}
        }
    }
    for listed in coverage.databases.iter().flatten() {
        if !members.contains_key(listed) && !skipped.contains_key(listed) {
            skipped.insert(listed.clone(), SkipReason::Missing);
        }
    }
    if members.is_empty() {
        let text =
            format!("listing the databases of a fleet: none is to be backed up, {} left out", skipped.len());
        return Err(DrError::new(ErrorName::FleetEmpty, text));
    }
    Ok(Roll {
        members: members.into_values().collect(),
        skipped: skipped.into_iter().map(|(database, reason)| Skipped { database, reason }).collect(),
    })
}

/// At most 67 of the 80 characters that an execution's name may have.
fn execution_name(run: &OperationId, facts: &DatabaseFacts) -> String {
    let short: String = facts.id.as_str().chars().take(40).collect();
    let digest = hex(&Sha256::digest(facts.arn.as_bytes()));
    format!("{}-{}-{}", run.digits(), short.trim_end_matches('-'), &digest[..8])
}

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

#[cfg(test)]
#[path = "fleet_tests.rs"]
mod tests;
