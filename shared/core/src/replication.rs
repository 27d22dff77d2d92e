//! Decisions about one snapshot's copy in one Region: look, decide, act once, say when to look again.
//!
//! A copy that failed is tried once more: RDS reports a failed copy without a reason, and most of them are passing
//! troubles of the service. That it was tried again is remembered by a tag on the *source* snapshot, written before
//! the failed copy is deleted, so that a crash in between neither loses the count nor tries for ever.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::error::{DrError, ErrorName, Leftovers, Result};
use crate::ids::{DatabaseId, KmsKeyId, OperationId, Region, SnapshotId};
use crate::labels::{self, Role};
use crate::observed::{DatabaseKind, KeyFacts, Observed, SnapshotArn, SnapshotFacts, Tags};
use crate::origin;
use crate::plan;
use crate::polling::{Earlier, Pause, Schedule, Step, StepKind, Took, next_look};
use crate::snapshot::{check_again_in, without_aws};

/// How long a copy may take. Copies of many TiB to far Regions take more than a day.
pub const TIMEOUT: SignedDuration = SignedDuration::from_hours(48);

/// Seconds between two looks at a copy, at most.
const LONGEST_PAUSE: i64 = 300;

/// How long a refusal that we do not understand is waited out, before it counts as permanent.
pub const UNKNOWN_LIMIT_PATIENCE: SignedDuration = SignedDuration::from_mins(15);

/// What a copy is asked for with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyOrder {
    /// The operation that it is for.
    pub operation: OperationId,
    /// The database that the snapshot was taken of.
    pub database: Option<DatabaseId>,
    /// The snapshot to copy.
    pub source: SnapshotArn,
    /// Where to.
    pub region: Region,
    /// The key of that Region, as it was named.
    pub key: KmsKeyId,
    /// The user's tags.
    pub tags: Tags,
    /// From when retention may delete the copy.
    pub expires_at: Option<Timestamp>,
    /// When the copying was begun.
    pub started_at: Timestamp,
    /// What such copies took before.
    pub earlier: Option<Earlier>,
}

impl CopyOrder {
    fn what(&self) -> String {
        format!("copying snapshot `{}` from {} to {}", self.source.id(), self.source.region(), self.region)
    }

    /// The copy's name.
    pub fn copy_id(&self) -> SnapshotId {
        match self.source.kind() {
            DatabaseKind::Instance => self.source.id().copy_name(),
            DatabaseKind::Cluster => self.source.id().cluster_copy_name(),
        }
    }
}

/// The request to RDS, complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyRequest {
    /// The snapshot to copy.
    pub source: SnapshotArn,
    /// The copy's name.
    pub id: SnapshotId,
    /// ARN of the destination's key.
    pub kms_key_arn: String,
    /// For an instance's snapshot, the name of the option group in the destination; absent when the source has a default one.
    pub option_group: Option<String>,
    /// All tags of the copy.
    pub tags: Tags,
}

/// A copy that arrived and was verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Arrived {
    /// The Region that it is in.
    pub region: Region,
    /// Its ARN.
    pub snapshot_arn: String,
    /// ARN of the key that it is encrypted under.
    pub kms_key_arn: String,
    /// Always true: everything else is a mismatch.
    pub encrypted: bool,
    /// GiB.
    pub size_gb: i32,
    /// When the data was taken.
    pub original_snapshot_create_time: Timestamp,
    /// How long it took, to be remembered.
    pub took: Took,
}

/// What to do about a copy.
#[derive(Debug, PartialEq, Eq)]
pub enum CopyStep {
    /// Ask RDS for it.
    Copy(Box<CopyRequest>),
    /// Come back later.
    Wait {
        /// 0 to 100.
        percent: i32,
        /// When.
        pause: Pause,
        /// What is waited for, as its duration is remembered; absent while it is not being copied yet.
        step: Option<Step>,
    },
    /// It failed for the first time: remember that on the source, delete what is there, come back.
    StartOver {
        /// The source snapshot's ARN.
        source_arn: String,
        /// The tag that remembers it; empty when it is written already.
        mark: Tags,
        /// The failed copy; of the same kind as the source.
        delete: SnapshotId,
        /// When to come back.
        check_again_in_seconds: u32,
    },
    /// It is there and is what was asked for.
    Done(Box<Arrived>),
}

impl CopyStep {
    /// It is not being copied yet: no history says how long that takes.
    fn not_yet(order: &CopyOrder, least: i64, now: Timestamp) -> Self {
        let schedule = Schedule { least, most: LONGEST_PAUSE, timeout: TIMEOUT };
        let pause = next_look(schedule, now.duration_since(order.started_at), 0, None);
        Self::Wait { percent: 0, pause, step: None }
    }
}

/// Checks what can be checked without asking AWS.
///
/// # Errors
/// [`ErrorName::RegionUnknown`], [`ErrorName::KeyWrongRegion`], and [`ErrorName::InvalidInput`] for a copy within
/// one Region, an ARN of another snapshot, or illegal tags.
pub fn check_order(order: &CopyOrder, id: &SnapshotId, known: &[Region]) -> Result<()> {
    let invalid =
        |rule: &str| Err(DrError::new(ErrorName::InvalidInput, format!("{}: {rule}", order.what())));
    if order.source.id() != id {
        return invalid("`snapshotArn` is the ARN of another snapshot than `snapshotId`");
    }
    if *order.source.region() == order.region {
        return invalid("the snapshot is in that Region already, and a copy beside it protects from nothing");
    }
    check_region(&order.region, known)?;
    if let Some(region) = order.key.region().filter(|region| *region != order.region) {
        let text = format!("{}: the key is of {region}", order.what());
        return Err(DrError::new(ErrorName::KeyWrongRegion, text));
    }
    plan::check_tags(&without_aws(&order.tags))
}

/// Whether copies may go to a Region.
///
/// # Errors
/// [`ErrorName::RegionUnknown`].
pub fn check_region(region: &Region, known: &[Region]) -> Result<()> {
    if known.contains(region) {
        Ok(())
    } else {
        Err(DrError::new(ErrorName::RegionUnknown, format!("copying a snapshot to {region}")))
    }
}

/// The ARN of the destination's key, when RDS can use it.
///
/// # Errors
/// [`ErrorName::KeyMissing`], [`ErrorName::KeyWrongRegion`], [`ErrorName::KeyDisabled`],
/// [`ErrorName::KeyPendingDeletion`], and [`ErrorName::KeyNotAccessible`] for a key that is for something else or
/// not ready.
pub fn check_key(order: &CopyOrder, seen: Observed<KeyFacts>) -> Result<String> {
    let error =
        |name, rule: String| DrError::new(name, format!("{}: key `{}` {rule}", order.what(), order.key));
    let key = seen.found_or_else(|| error(ErrorName::KeyMissing, format!("is not in {}", order.region)))?;
    let region = KmsKeyId::parse(key.arn.clone()).ok().and_then(|id| id.region());
    if region.as_ref() != Some(&order.region) {
        return Err(error(ErrorName::KeyWrongRegion, format!("turns out to be {}", key.arn)));
    }
    match key.state.as_str() {
        "Enabled" => {}
        "Disabled" => return Err(error(ErrorName::KeyDisabled, "is disabled".to_owned())),
        "PendingDeletion" | "PendingReplicaDeletion" => {
            return Err(error(ErrorName::KeyPendingDeletion, "is going to be deleted".to_owned()));
        }
        state => return Err(error(ErrorName::KeyNotAccessible, format!("is in state `{state}`"))),
    }
    let unfit = key.usage.as_deref().is_some_and(|usage| usage != "ENCRYPT_DECRYPT")
        || key.spec.as_deref().is_some_and(|spec| spec != "SYMMETRIC_DEFAULT");
    if unfit {
        return Err(error(ErrorName::KeyNotAccessible, "is not a symmetric encryption key".to_owned())
            .with_remedy("Name a symmetric key for encryption; RDS uses no others."));
    }
    if key.manager.as_deref() == Some("AWS") {
        let text = "is managed by AWS: a copy under it can never be shared with another account".to_owned();
        return Err(error(ErrorName::KeyNotAccessible, text)
            .with_remedy("Name a customer managed key of the destination Region."));
    }
    Ok(key.arn)
}

/// Decides the next step.
///
/// # Errors
/// Those of [`origin::check_copying`], [`ErrorName::SnapshotForeign`] when it is another account's,
/// [`ErrorName::SnapshotMissing`] when the source is gone,
/// [`ErrorName::SnapshotFailed`] when it is no snapshot to
/// copy, [`ErrorName::SnapshotNotOurs`] when the copy's name is taken, [`ErrorName::ReplicationFailed`] after the
/// second failure, [`ErrorName::ReplicationMismatch`] naming every difference, [`ErrorName::ReplicationTimeout`]
/// after [`TIMEOUT`].
pub fn decide(
    order: &CopyOrder,
    key_arn: &str,
    source: Observed<SnapshotFacts>,
    copy: Observed<SnapshotFacts>,
    now: Timestamp,
) -> Result<CopyStep> {
    let foreign = || {
        let text = format!("{}: it belongs to account {}", order.what(), order.source.account());
        DrError::new(ErrorName::SnapshotForeign, text)
    };
    // What an account sees under a snapshot's name is its own. The account itself is known from the key, which is
    // ours as a rule; a snapshot that is there is told by its ARN.
    let source = source.found_or_else(|| {
        if key_arn.split(':').nth(4).is_some_and(|account| account != order.source.account()) {
            return foreign();
        }
        DrError::new(ErrorName::SnapshotMissing, format!("{}: the source is gone", order.what()))
    })?;
    if source.arn != order.source.as_str() {
        return Err(foreign());
    }
    origin::check_copying(&source)?;
    let Some(copy) = copy.into_option()? else {
        return begin(order, key_arn, &source, now);
    };
    if !is_ours(&copy, order) {
        let text = format!("{}: `{}` exists there and is not this operation's", order.what(), copy.id);
        return Err(DrError::new(ErrorName::SnapshotNotOurs, text));
    }
    match copy.status.as_str() {
        "available" => {
            verify(order, key_arn, &source, &copy, now).map(|arrived| CopyStep::Done(Box::new(arrived)))
        }
        "failed" => after_failure(order, &source, &copy, now),
        _ if is_late(order, now) => Err(late(order, &copy)),
        _ => Ok(wait(order, &source, &copy, now)),
    }
}

fn begin(order: &CopyOrder, key_arn: &str, source: &SnapshotFacts, now: Timestamp) -> Result<CopyStep> {
    match source.status.as_str() {
        "available" => {}
        "failed" | "deleting" | "deleted" => {
            let text = format!("{}: the source's status is `{}`", order.what(), source.status);
            return Err(DrError::new(ErrorName::SnapshotFailed, text));
        }
        _ if is_late(order, now) => return Err(late(order, source)),
        _ => return Ok(CopyStep::not_yet(order, least_pause(source), now)),
    }
    let database = order.database.as_ref().map_or(source.database.as_str(), DatabaseId::as_str);
    let mut tags = labels::mark(Role::Copy, &order.operation, Some(database));
    tags.insert(labels::SOURCE_ARN.to_owned(), order.source.to_string());
    if let (DatabaseKind::Cluster, Some(taken_at)) = (source.database_kind, source.taken_at()) {
        tags.insert(labels::TAKEN_AT.to_owned(), taken_at.to_string());
    }
    let known = |key: &str| source.tags.get(key).map(|value| (key.to_owned(), value.clone()));
    tags.extend(labels::CARRIED.into_iter().filter_map(known));
    labels::expire(&mut tags, order.expires_at);
    labels::add_user_tags(&mut tags, &order.tags);
    Ok(CopyStep::Copy(Box::new(CopyRequest {
        source: order.source.clone(),
        id: order.copy_id(),
        kms_key_arn: key_arn.to_owned(),
        // A default group belongs to its Region and is chosen there by itself.
        option_group: source.option_group.clone().filter(|group| !group.starts_with("default:")),
        tags,
    })))
}

fn is_ours(copy: &SnapshotFacts, order: &CopyOrder) -> bool {
    labels::is_of(&copy.tags, Role::Copy, &order.operation)
        && labels::has(&copy.tags, labels::SOURCE_ARN, order.source.as_str())
}

fn is_late(order: &CopyOrder, now: Timestamp) -> bool {
    now.duration_since(order.started_at) > TIMEOUT
}

fn late(order: &CopyOrder, seen: &SnapshotFacts) -> DrError {
    let text = format!(
        "{}: after {} hours `{}` in {} is `{}`, {} %",
        order.what(),
        TIMEOUT.as_hours(),
        seen.id,
        seen.region,
        seen.status,
        seen.percent
    );
    DrError::new(ErrorName::ReplicationTimeout, text)
        .with_leftovers(Leftovers::Remaining(vec![seen.arn.clone()]))
}

/// The copying of a snapshot, as its duration is remembered.
pub fn step(order: &CopyOrder, source: &SnapshotFacts) -> Step {
    let database = order.database.clone();
    Step {
        kind: StepKind::Copy,
        region: order.region.clone(),
        database: database.or_else(|| DatabaseId::parse(source.database.clone()).ok()),
        engine: source.engine.clone(),
        size_gb: source.size_gb,
    }
}

/// Seconds. The pause grows with the copy's age and its size: nobody needs to look every few seconds at 10 TiB.
fn least_pause(snapshot: &SnapshotFacts) -> i64 {
    i64::from(snapshot.size_gb / 20).clamp(5, 120)
}

fn wait(order: &CopyOrder, source: &SnapshotFacts, copy: &SnapshotFacts, now: Timestamp) -> CopyStep {
    let schedule = Schedule { least: least_pause(copy), most: LONGEST_PAUSE, timeout: TIMEOUT };
    let age = now.duration_since(order.started_at);
    CopyStep::Wait {
        percent: copy.percent,
        pause: next_look(schedule, age, copy.percent, order.earlier.as_ref()),
        step: Some(step(order, source)),
    }
}

fn after_failure(
    order: &CopyOrder,
    source: &SnapshotFacts,
    copy: &SnapshotFacts,
    now: Timestamp,
) -> Result<CopyStep> {
    let key = labels::copy_retried(&order.region);
    let retried_at = source.tags.get(&key).and_then(|text| text.parse::<Timestamp>().ok());
    // The copy that failed first is older than the mark; it is still there when a crash kept us from deleting it.
    let is_the_first = match (retried_at, copy.created_at) {
        (None, _) => true,
        (Some(retried_at), Some(created_at)) => created_at < retried_at,
        (Some(_), None) => false,
    };
    if !is_the_first {
        let text = format!("{}: it failed twice; `{}` is kept for a look at it", order.what(), copy.id);
        return Err(DrError::new(ErrorName::ReplicationFailed, text)
            .with_leftovers(Leftovers::Remaining(vec![copy.arn.clone()])));
    }
    let mark = match retried_at {
        None => Tags::from([(key, now.to_string())]),
        Some(_) => Tags::new(),
    };
    Ok(CopyStep::StartOver {
        source_arn: source.arn.clone(),
        mark,
        delete: copy.id.clone(),
        check_again_in_seconds: check_again_in(order.started_at, now, 10, 60),
    })
}

fn verify(
    order: &CopyOrder,
    key_arn: &str,
    source: &SnapshotFacts,
    copy: &SnapshotFacts,
    now: Timestamp,
) -> Result<Arrived> {
    let mut differences = Vec::new();
    let mut expect = |what: &str, right: bool, seen: String| {
        if !right {
            differences.push(format!("{what} is {seen}"));
        }
    };
    let key_seen = copy.kms_key_id.clone().unwrap_or_default();
    expect("its encryption", copy.encrypted, copy.encrypted.to_string());
    expect("its key", key_seen == key_arn, format!("`{key_seen}`, not `{key_arn}`"));
    expect(
        "its size",
        copy.is_aurora() || copy.size_gb == source.size_gb,
        format!("{} GiB, not {} GiB", copy.size_gb, source.size_gb),
    );
    expect(
        "its engine",
        (&copy.engine, &copy.engine_version) == (&source.engine, &source.engine_version),
        format!("{} {}, not {} {}", copy.engine, copy.engine_version, source.engine, source.engine_version),
    );
    let taken_at = source.taken_at();
    let moment = |time: Option<Timestamp>| time.map_or_else(|| "unknown".to_owned(), |time| time.to_string());
    expect(
        "its original creation time",
        taken_at.is_some() && copy.taken_at() == taken_at,
        format!("{}, not {}", moment(copy.taken_at()), moment(taken_at)),
    );
    match taken_at {
        Some(original_snapshot_create_time) if differences.is_empty() => Ok(Arrived {
            region: order.region.clone(),
            snapshot_arn: copy.arn.clone(),
            kms_key_arn: key_seen,
            encrypted: true,
            size_gb: copy.size_gb,
            original_snapshot_create_time,
            took: Took::new(step(order, source), order.started_at, now),
        }),
        _ => Err(DrError::new(
            ErrorName::ReplicationMismatch,
            format!("{}: {}", order.what(), differences.join("; ")),
        )
        .with_leftovers(Leftovers::Remaining(vec![copy.arn.clone()]))),
    }
}

/// What a `SnapshotQuotaExceeded` means. Only its message tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// As many copies as may run are running: one more fits in when one of them ends.
    CopySlots,
    /// As many snapshots as may exist do: nothing fits until one is deleted.
    Snapshots,
    /// A message that we do not know.
    Unknown,
}

/// Reads the message of a `SnapshotQuotaExceeded`.
pub fn limit_meant(message: &str) -> Limit {
    let message = message.to_lowercase();
    if message.contains("cannot copy more than") || message.contains("across regions") {
        Limit::CopySlots
    } else if message.contains("cannot create more than") || message.contains("manual snapshots") {
        Limit::Snapshots
    } else {
        Limit::Unknown
    }
}

/// Decides what follows from a refusal for lack of room.
///
/// # Errors
/// [`ErrorName::SnapshotQuotaExceeded`] for the quota at once, and for an unknown message after
/// [`UNKNOWN_LIMIT_PATIENCE`]; [`ErrorName::ReplicationTimeout`] after [`TIMEOUT`] without a free slot.
pub fn decide_limit(order: &CopyOrder, message: &str, now: Timestamp) -> Result<CopyStep> {
    let waited = now.duration_since(order.started_at);
    let shown: String = message.chars().take(200).collect();
    match limit_meant(message) {
        Limit::CopySlots if waited > TIMEOUT => Err(DrError::new(
            ErrorName::ReplicationTimeout,
            format!("{}: no copy slot became free in {} hours", order.what(), TIMEOUT.as_hours()),
        )),
        Limit::CopySlots => Ok(CopyStep::not_yet(order, 30, now)),
        Limit::Unknown if waited <= UNKNOWN_LIMIT_PATIENCE => Ok(CopyStep::not_yet(order, 30, now)),
        Limit::Snapshots | Limit::Unknown => Err(DrError::new(
            ErrorName::SnapshotQuotaExceeded,
            format!("{}: RDS said \"{shown}\"", order.what()),
        )),
    }
}

/// The key for a Region: the one asked for, else the configured one.
///
/// # Errors
/// [`ErrorName::KeyMissing`] when there is neither.
pub fn key_for(
    region: &Region,
    asked: Option<KmsKeyId>,
    configured: &BTreeMap<Region, KmsKeyId>,
) -> Result<KmsKeyId> {
    asked.or_else(|| configured.get(region).cloned()).ok_or_else(|| {
        DrError::new(ErrorName::KeyMissing, format!("copying to {region}: no key is named for it"))
            .with_remedy("Name a key of that Region in DR_TARGET_KMS_KEY_IDS or in the request.")
    })
}

#[cfg(test)]
#[path = "replication_tests.rs"]
mod tests;
