//! Decisions about a source database and the snapshot of it.
//!
//! Every function takes what was observed and says what to do. Nothing is called, and no clock is read.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::error::{DrError, ErrorName, Leftovers, Result};
use crate::ids::{DatabaseId, OperationId, SnapshotId};
use crate::labels::{self, Proof, Role};
use crate::observed::{DatabaseFacts, DatabaseKind, Observed, SnapshotFacts, Tags};
use crate::plan;
use crate::polling::{Earlier, Pause, Schedule, Step, StepKind, next_look};
use crate::proof::judgement::Level;
use crate::request::Selector;

/// How long a snapshot may take.
pub const TIMEOUT: SignedDuration = SignedDuration::from_hours(24);

/// How often a snapshot is looked at.
const SCHEDULE: Schedule = Schedule { least: 5, most: 120, timeout: TIMEOUT };

/// Statuses in which RDS takes a snapshot (API reference, `CreateDBSnapshot`).
const READY: &[&str] = &["available", "storage-optimization"];

/// Seconds until the next look at something that has been going on since `started_at`: an eighth of its age, so that
/// a long wait costs few looks, within bounds.
pub fn check_again_in(started_at: Timestamp, now: Timestamp, least: i64, most: i64) -> u32 {
    let age = now.duration_since(started_at).as_secs();
    u32::try_from((age / 8).clamp(least, most)).unwrap_or(u32::MAX)
}

/// The one database that a selector means.
///
/// # Errors
/// [`ErrorName::DatabaseMissing`] for none, [`ErrorName::DatabaseAmbiguous`] for several.
pub fn pick(selector: &Selector, mut found: Vec<DatabaseFacts>) -> Result<DatabaseFacts> {
    let what =
        format!("looking for a database with the tag `{}` = `{}`", selector.tag.key, selector.tag.value);
    match found.len() {
        1 => Ok(found.remove(0)),
        0 => Err(DrError::new(ErrorName::DatabaseMissing, format!("{what}: none has it"))
            .with_remedy("Check the tag's key and value and the Region.")),
        count => {
            let names: Vec<&str> = found.iter().take(5).map(|facts| facts.id.as_str()).collect();
            let more = if count > names.len() { ", …" } else { "" };
            let text = format!("{what}: {count} have it ({}{more})", names.join(", "));
            Err(DrError::new(ErrorName::DatabaseAmbiguous, text))
        }
    }
}

/// Whether a snapshot of this database can be taken now.
///
/// # Errors
/// [`ErrorName::InvalidInput`] for a member of a cluster, which RDS takes no snapshot of;
/// [`ErrorName::DatabaseUnavailable`] for a status in which RDS takes none.
pub fn check_source(source: &DatabaseFacts) -> Result<()> {
    let what = format!("looking at database `{}` in {}", source.id, source.region);
    if let Some(cluster) = &source.cluster {
        let text = format!("{what}: it is a member of cluster `{cluster}` ({})", source.engine);
        return Err(DrError::new(ErrorName::InvalidInput, text)
            .with_remedy(format!("Name the cluster instead: members are backed up with it (`{cluster}`).")));
    }
    if READY.contains(&source.status.as_str()) {
        Ok(())
    } else {
        let text = format!("{what}: its status is `{}`", source.status);
        Err(DrError::new(ErrorName::DatabaseUnavailable, text))
    }
}

/// What a snapshot is asked for with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotOrder {
    /// The operation that it is for.
    pub operation: OperationId,
    /// The database; its kind is learnt by looking.
    pub database: DatabaseId,
    /// The snapshot's name.
    pub id: SnapshotId,
    /// The user's tags.
    pub tags: Tags,
    /// From when retention may delete it.
    pub expires_at: Option<Timestamp>,
}

/// What to do about a snapshot that is asked for.
#[derive(Debug, PartialEq, Eq)]
pub enum Creation {
    /// Create it.
    Create {
        /// Of an instance or of a cluster.
        kind: DatabaseKind,
        /// All its tags.
        tags: Tags,
    },
    /// It was created by an earlier call of the same operation.
    Adopt(Box<SnapshotFacts>),
}

/// Decides how a snapshot comes into being. The snapshot is looked at first: while it is being made the database is
/// `backing-up`, and a repeated call must find its own snapshot instead of complaining about that.
///
/// # Errors
/// [`ErrorName::InvalidInput`] for illegal tags, [`ErrorName::SnapshotNotOurs`] when the name is taken,
/// [`ErrorName::DatabaseMissing`], and those of [`check_source`].
pub fn decide_creation(
    order: &SnapshotOrder,
    existing: Observed<SnapshotFacts>,
    source: Observed<DatabaseFacts>,
) -> Result<Creation> {
    if let Some(snapshot) = existing.into_option()? {
        return ours(snapshot, &order.operation).map(|snapshot| Creation::Adopt(Box::new(snapshot)));
    }
    let source = source.found_or_else(|| {
        DrError::new(ErrorName::DatabaseMissing, format!("creating a snapshot of `{}`", order.database))
    })?;
    check_source(&source)?;
    let mut tags = labels::mark(Role::Backup, &order.operation, Some(order.database.as_str()));
    tags.insert(labels::PROOF.to_owned(), Proof::Pending.as_str().to_owned());
    labels::expire(&mut tags, order.expires_at);
    plan::check_tags(&without_aws(&order.tags))?;
    labels::add_user_tags(&mut tags, &order.tags);
    Ok(Creation::Create { kind: source.kind, tags })
}

/// A user's tags without those that only AWS may set.
pub(crate) fn without_aws(tags: &Tags) -> Tags {
    let mut kept = Tags::new();
    labels::add_user_tags(&mut kept, tags);
    kept
}

/// How far a snapshot is.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    /// RDS is making it.
    Pending {
        /// 0 to 100.
        percent: i32,
        /// When to look again.
        pause: Pause,
        /// What is waited for, as its duration is remembered.
        step: Step,
    },
    /// It is there.
    Done(Box<SnapshotFacts>),
}

/// The taking of a snapshot, as its duration is remembered.
pub fn step(snapshot: &SnapshotFacts) -> Step {
    Step {
        kind: StepKind::Snapshot,
        region: snapshot.region.clone(),
        database: DatabaseId::parse(snapshot.database.clone()).ok(),
        engine: snapshot.engine.clone(),
        size_gb: snapshot.size_gb,
    }
}

/// Decides what a look at the snapshot means. `earlier` is what snapshots took before.
///
/// # Errors
/// [`ErrorName::SnapshotMissing`], [`ErrorName::SnapshotNotOurs`], [`ErrorName::SnapshotFailed`], and
/// [`ErrorName::SnapshotTimeout`] after [`TIMEOUT`].
pub fn decide_progress(
    operation: &OperationId,
    id: &SnapshotId,
    seen: Observed<SnapshotFacts>,
    started_at: Timestamp,
    earlier: Option<&Earlier>,
    now: Timestamp,
) -> Result<Progress> {
    let missing = || DrError::new(ErrorName::SnapshotMissing, format!("waiting for snapshot `{id}`"));
    let snapshot = ours(seen.found_or_else(missing)?, operation)?;
    match snapshot.status.as_str() {
        "available" => Ok(Progress::Done(Box::new(snapshot))),
        "failed" | "deleting" | "deleted" => Err(DrError::new(
            ErrorName::SnapshotFailed,
            format!("waiting for snapshot `{id}`: its status is `{}`", snapshot.status),
        )
        .with_leftovers(Leftovers::Remaining(vec![snapshot.arn]))),
        _ if now.duration_since(started_at) > TIMEOUT => Err(DrError::new(
            ErrorName::SnapshotTimeout,
            format!(
                "waiting for snapshot `{id}`: after {} hours it is `{}`, {} %",
                TIMEOUT.as_hours(),
                snapshot.status,
                snapshot.percent
            ),
        )
        .with_leftovers(Leftovers::Remaining(vec![snapshot.arn]))),
        _ => Ok(Progress::Pending {
            percent: snapshot.percent,
            pause: next_look(SCHEDULE, now.duration_since(started_at), snapshot.percent, earlier),
            step: step(&snapshot),
        }),
    }
}

/// The verdict of a proof, as it is written on the snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// A recovery point.
    Proven,
    /// Never a recovery point.
    Unproven,
}

impl From<Verdict> for Proof {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Proven => Self::Proven,
            Verdict::Unproven => Self::Unproven,
        }
    }
}

/// Tags to set on a resource; none when nothing is to be written.
#[derive(Debug, PartialEq, Eq)]
pub struct Labelling {
    /// The resource.
    pub arn: String,
    /// The tags.
    pub tags: Tags,
}

/// What a proof found, as it is written on the snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// The verdict.
    pub verdict: Verdict,
    /// How deep the proof went.
    pub level: Level,
    /// When it was judged.
    pub judged_at: Timestamp,
    /// Key of the report.
    pub report: Option<String>,
}

/// Decides which tags carry the verdict: of the operation's own snapshot, or of a copy of it, which is proven by
/// itself in its own Region. A verdict of damage is always written. A proof that finds nothing wrong and went less
/// deep than the one that is known adds nothing, and no tag is set.
///
/// # Errors
/// [`ErrorName::SnapshotMissing`], [`ErrorName::SnapshotNotOurs`], and [`ErrorName::InvalidInput`] for a report's
/// key that does not fit a tag.
pub fn decide_label(
    operation: &OperationId,
    id: &SnapshotId,
    seen: Observed<SnapshotFacts>,
    label: &Label,
) -> Result<Labelling> {
    let missing = || DrError::new(ErrorName::SnapshotMissing, format!("labelling snapshot `{id}`"));
    let snapshot = seen.found_or_else(missing)?;
    let is_copy = labels::is_of(&snapshot.tags, Role::Copy, operation);
    let snapshot = if is_copy { snapshot } else { ours(snapshot, operation)? };
    if let Some(report) = &label.report {
        plan::check_tags(&Tags::from([("report".to_owned(), report.clone())]))?;
    }
    if label.verdict == Verdict::Proven && known_level(&snapshot) > Some(label.level) {
        return Ok(Labelling { arn: snapshot.arn, tags: Tags::new() });
    }
    let mut tags = Tags::from([
        (labels::PROOF.to_owned(), Proof::from(label.verdict).as_str().to_owned()),
        (labels::PROOF_LEVEL.to_owned(), label.level.as_str().to_owned()),
        (labels::PROVEN_IN.to_owned(), snapshot.region.to_string()),
    ]);
    if label.verdict == Verdict::Proven {
        tags.insert(labels::PROVEN_AT.to_owned(), label.judged_at.to_string());
    }
    if let Some(report) = &label.report {
        tags.insert(labels::REPORT.to_owned(), report.clone());
    }
    Ok(Labelling { arn: snapshot.arn, tags })
}

/// The level at which this very snapshot, not the one that it is a copy of, was found proven.
fn known_level(snapshot: &SnapshotFacts) -> Option<Level> {
    let proven = labels::has(&snapshot.tags, labels::PROOF, Proof::Proven.as_str())
        && labels::has(&snapshot.tags, labels::PROVEN_IN, snapshot.region.as_str());
    proven.then(|| snapshot.tags.get(labels::PROOF_LEVEL)).flatten().and_then(|level| Level::parse(level))
}

fn ours(snapshot: SnapshotFacts, operation: &OperationId) -> Result<SnapshotFacts> {
    if labels::is_of(&snapshot.tags, Role::Backup, operation) {
        Ok(snapshot)
    } else {
        let text = format!("looking at snapshot `{}` in {}", snapshot.id, snapshot.region);
        Err(DrError::new(ErrorName::SnapshotNotOurs, text))
    }
}

#[cfg(test)]
#[path = "snapshot_tests.rs"]
mod tests;
