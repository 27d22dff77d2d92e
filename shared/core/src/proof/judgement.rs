//! What follows from an examination: the verdict, why, and how much of the database it covers.
//!
//! A [`Judgement`] is small enough for a state machine's payload and holds no content of rows. A [`Report`] holds
//! everything, among it the primary keys of rows that differ, and is stored in the metadata bucket only.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::examination::{CheckResult, RowDifference};
use super::frame::{Heartbeat, SchemaFingerprint, ServerFacts, TableName};
use crate::ids::OperationId;

/// Whether the backup may be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Nothing speaks against it.
    Proven,
    /// At least one finding is an error.
    Unproven,
}

/// What a verdict speaks of, from the shallowest to the deepest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// The snapshot was looked at from outside.
    Quick,
    /// The restore was read and checked, with nothing to compare it with.
    Structure,
    /// The restore was compared with a frame of the source.
    Content,
}

impl Level {
    /// Every level.
    pub const ALL: [Self; 3] = [Self::Quick, Self::Structure, Self::Content];

    /// The word used in tags and reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Structure => "structure",
            Self::Content => "content",
        }
    }

    /// The level that a word means.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.as_str() == text)
    }
}

/// The verdict on one table, from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TableVerdict {
    /// Every row of the frame is there, byte for byte.
    Exact,
    /// What is no longer there was changed on the source in the meantime.
    Explained,
    /// There is nothing to compare it with, and nothing speaks against it.
    Plausible,
    /// It is not what the source was.
    Different,
    /// It cannot be read.
    Unreadable,
}

/// Why a table has its verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Reason {
    /// Exact: all digests are equal.
    DigestsEqual,
    /// Explained: each row that is gone was followed to a change on the source.
    RowsFollowed,
    /// Explained: no more rows are gone than the source's counters show to have been updated or deleted.
    WithinCounters,
    /// Explained: the source dropped it in the meantime.
    DroppedSince,
    /// Explained: each part of it is as it was before the snapshot, or as it was after it.
    BeforeOrAfter,
    /// Plausible: there is no frame at all.
    NoFrame,
    /// Plausible: it was created after the frame was planned.
    CreatedSince,
    /// Plausible: it was rewritten or truncated in the meantime.
    Rewritten,
    /// Plausible: its columns, or a type of the database, were changed in the meantime.
    Redefined,
    /// Plausible: rows are gone, the source could not be asked about them, and its counters cannot be used.
    CountersUnusable,
    /// Plausible: it is unlogged, and empty after a restore by design.
    Unlogged,
    /// Plausible: parts of it are neither as before the snapshot nor as after it, and were changed in between; what
    /// was written to the source in between allows their numbers of rows.
    BetweenFrames,
    /// Plausible: there are rows that were neither there before the snapshot nor after it; as many were inserted and
    /// deleted in between.
    CameAndWent,
    /// Plausible: its engine does not keep it consistent in a snapshot, and it was written to.
    NotTransactional,
    /// Different: as many rows, with other content.
    ContentDiffers,
    /// Different: more rows of the frame's transactions than the frame had.
    MoreRows,
    /// Different: more rows are gone than the source changed, or rows are gone that it did not touch.
    RowsMissing,
    /// Different: more or fewer rows than insertions and deletions allow.
    OutOfBounds,
    /// Different: its columns are not those of the source, before or after.
    StructureDiffers,
    /// Different: the source has it and the restore does not.
    TableMissing,
    /// Different: the source had dropped it before the snapshot, and it is there.
    TableBack,
    /// Unreadable on the restore.
    UnreadableHere,
    /// Unreadable on the source already: the source is damaged.
    UnreadableOnSource,
}

/// A range of blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BlockRange {
    /// First block.
    pub first: u32,
    /// First block that is no longer in it; `None`: to the end of the table.
    pub end: Option<u32>,
}

/// One table, judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TableJudgement {
    /// Its names, on the restore where it is there.
    pub name: TableName,
    /// The verdict.
    pub verdict: TableVerdict,
    /// Why.
    pub reason: Reason,
    /// Bytes on the restore, without indexes; 0 where it is not there.
    pub bytes: u64,
    /// Rows in the frame; `None` where there is no frame of it.
    pub framed_rows: Option<u64>,
    /// Rows of the frame's transactions on the restore, or all rows where there is no frame.
    pub rows: u64,
    /// Rows on the restore that are newer than the frame, where they were counted.
    pub newer_rows: u64,
    /// Rows shown to be byte for byte what they were.
    pub proven_rows: u64,
    /// Rows of the frame that are no longer there.
    pub residue: u64,
    /// Rows that the source's counters show to have been updated or deleted in the window; `None` where the
    /// counters cannot be used.
    pub changed_on_source: Option<u64>,
    /// Where it differs or cannot be read: neighbouring slices joined, at most 100.
    pub blocks: Vec<BlockRange>,
    /// Rows that differ, where they could be followed down: their number.
    pub different_rows: Option<u64>,
    /// At most 100 of them, by primary key or place.
    pub different_keys: Vec<RowDifference>,
    /// What it is beside an earlier, proven restore of the same snapshot; `None` where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub earlier: Option<BesideEarlier>,
}

/// A table beside the same table of an earlier, proven restore of the same snapshot. Between the two nobody wrote, so
/// nothing explains a difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum BesideEarlier {
    /// Every slice has the same rows, also those that are newer than the frame as far as their number goes.
    Equal,
    /// It has other rows.
    Different {
        /// The rows that it had, newer ones than the frame included.
        rows: u64,
    },
    /// It was not there then.
    New,
    /// It was there then, and is not now.
    Missing {
        /// The rows that it had.
        rows: u64,
    },
    /// They cannot be compared.
    NotComparable {
        /// Why.
        reason: String,
    },
}

/// The earlier proof that this one was compared with, and how far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EarlierProof {
    /// Its operation; `None` where the snapshot is known to be proven, and nothing says by which operation.
    pub operation_id: Option<String>,
    /// Why nothing could be compared; `None` where something was.
    pub not_comparable: Option<String>,
    /// Tables that are what they were then.
    pub equal: Amount,
    /// Tables that are not.
    pub different: Amount,
    /// Tables of which it cannot be told.
    pub unknown: Amount,
}

/// Which proof of a backup's snapshot was the first to find it proven: later proofs of it, and of its copies, are
/// compared with that one's restore. Written once, beside the backup's other records, and never for an unproven one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FirstProof {
    /// Version of this format.
    pub format: u32,
    /// The proof's operation, whose records hold the restore's digests.
    pub operation_id: OperationId,
    /// The snapshot that it restored.
    pub snapshot_arn: String,
    /// When it was judged.
    pub judged_at: Timestamp,
}

impl FirstProof {
    /// Version of the format that this code writes.
    pub const FORMAT: u32 = 1;
    /// The record's name among the backup's.
    pub const RECORD: &'static str = "first-proof.json";
}

/// How much a finding weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The backup is not proven.
    Error,
    /// Somebody should know, though the backup is what the source was.
    Warning,
    /// For the record.
    Info,
}

/// What a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FindingKind {
    /// The restored server is not a physical copy of the framed one.
    OtherServer,
    /// The beat written before the snapshot is not there: recovery ended early.
    HeartbeatMissing,
    /// The newest moment found on the restore is older than was asked for, or none was found.
    RpoExceeded,
    /// A database of the source is not there.
    DatabaseMissing,
    /// A table is unreadable, on the restore or on the source.
    TableUnreadable,
    /// A table is not what it was.
    TableDifferent,
    /// A structural check found faults.
    CheckFaulty,
    /// The catalogue is in a state that the source was not in.
    SchemaDifferent,
    /// The catalogue, a sequence or the heartbeat is not what an earlier restore of the same snapshot had.
    RestoreDiffers,
    /// A sequence would hand out values that are in use.
    SequenceBehind,
    /// A structural check could not be made.
    CheckNotPossible,
    /// A difference is only plausible.
    TablePlausible,
    /// The schema was changed between frame and observation.
    SchemaChanged,
    /// A sequence is behind what it feeds on the source too, or went back.
    SequenceNote,
    /// A collation's library differs from the one that text indexes were built with.
    CollationDrift,
    /// An index is not valid.
    IndexInvalid,
    /// A constraint was never validated.
    ConstraintUnvalidated,
    /// A table's engine does not keep it consistent in a snapshot.
    TableNotTransactional,
    /// An unlogged table is empty.
    TableUnlogged,
    /// Large objects are not compared.
    LargeObjects,
    /// Rows that differ in a table without a primary key cannot be named.
    NoPrimaryKey,
    /// The observation of the source after the snapshot is missing.
    ObservationMissing,
    /// It could not be compared with an earlier restore of the same snapshot, or not all of it.
    EarlierNotComparable,
    /// Quick: the snapshot's status, size, engine, age, encryption, owner or tags.
    Snapshot,
}

/// One thing that was found. No content of rows, and no keys, in any field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Finding {
    /// How much it weighs.
    pub severity: Severity,
    /// What it is about.
    pub kind: FindingKind,
    /// The table, index, sequence, database … concerned.
    pub subject: String,
    /// One or two sentences, at most 600 characters.
    pub message: String,
    /// The blocks concerned, at most 10 ranges.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blocks: Vec<BlockRange>,
}

/// Tables, rows and bytes under one verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Amount {
    /// Tables.
    pub tables: u64,
    /// Rows on the restore.
    pub rows: u64,
    /// Bytes on the restore, without indexes.
    pub bytes: u64,
}

/// How much of the restore each verdict covers.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Coverage {
    /// By verdict; verdicts without tables are absent.
    pub by_verdict: BTreeMap<TableVerdict, Amount>,
    /// Everything.
    pub total: Amount,
    /// Rows shown to be byte for byte what they were on the source.
    pub proven_rows: u64,
    /// The part of all rows that is proven, in percent with two decimals; 100 for a database without rows.
    pub proven_rows_percent: f64,
    /// The part of all bytes that is proven, a table's bytes counted by the part of its rows that is.
    pub proven_bytes_percent: f64,
}

/// What came of the structural checks, in subjects (tables, indexes, constraints).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CheckCounts {
    /// Nothing was found.
    pub sound: u64,
    /// Faults were found.
    pub faulty: u64,
    /// The check could not be made.
    pub not_possible: u64,
}

/// What is known of the restore itself; reported, not judged.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RestoreFacts {
    /// The restored instance.
    pub instance_id: Option<String>,
    /// From asking for the restore until the instance was available.
    pub time_to_available_seconds: Option<u64>,
}

/// The judgement, for the state machine, the operation's record and the alert. At most about 30 kB.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Judgement {
    /// The proof's operation.
    pub operation_id: String,
    /// The snapshot.
    pub snapshot_id: String,
    /// The database that it is of, where known.
    pub database: Option<String>,
    /// The verdict.
    pub verdict: Verdict,
    /// What it speaks of.
    pub level: Level,
    /// One sentence for people.
    pub headline: String,
    /// The gravest findings: at most 20.
    pub findings: Vec<Finding>,
    /// All findings.
    pub finding_count: u64,
    /// Findings that are errors.
    pub error_count: u64,
    /// Findings that are warnings.
    pub warning_count: u64,
    /// How much each verdict covers.
    pub coverage: Coverage,
    /// Rows on the restore.
    pub row_count: u64,
    /// The earlier proof of the same snapshot that it was compared with; `None` where none is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub earlier: Option<EarlierProof>,
    /// What came of the structural checks.
    pub checks: CheckCounts,
    /// Measured recovery point objective: from the newest moment that is found on the restore to the moment of
    /// the snapshot, in seconds. `None` where no moment can be told.
    pub rpo_seconds: Option<u64>,
    /// SHA-256 over the schema fingerprints of all classes of all databases of the restore.
    pub schema_fingerprint: Option<String>,
    /// From asking for the restore until the instance was available.
    pub time_to_available_seconds: Option<u64>,
    /// When it was judged.
    pub judged_at: Timestamp,
    /// The report's key in the metadata bucket.
    pub report_key: String,
}

/// Everything that was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Report {
    /// Version of this format.
    pub format: u32,
    /// The judgement.
    pub judgement: Judgement,
    /// All findings, the gravest first.
    pub findings: Vec<Finding>,
    /// All tables, the worst first.
    pub tables: Vec<TableJudgement>,
    /// The structural checks.
    pub checks: Vec<CheckResult>,
    /// The source's server, where it was framed.
    pub source: Option<ServerFacts>,
    /// The restored server.
    pub restored: Option<ServerFacts>,
    /// The beat that was written before the snapshot.
    pub heartbeat_written: Option<Heartbeat>,
    /// The newest beat on the restore.
    pub heartbeat_found: Option<Heartbeat>,
    /// The moment of the snapshot, as far as RDS tells it.
    pub snapshot_taken_at: Option<Timestamp>,
    /// The schema fingerprints of the restore.
    pub schema: BTreeMap<String, SchemaFingerprint>,
    /// The restore itself.
    pub restore: RestoreFacts,
}

impl Report {
    /// Version of the format that this code writes.
    pub const FORMAT: u32 = 1;
}
