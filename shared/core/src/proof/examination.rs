//! What is found on a restore.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::frame::{
    Heartbeat, SchemaFingerprint, SequenceFacts, ServerFacts, Slice, TableFacts, TableName, Unit, UnitResult,
};

/// What an examination will do; written down first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExaminationPlan {
    /// Version of this format.
    pub format: u32,
    /// The proof's operation.
    pub operation_id: String,
    /// The frame's operation; `None` for a snapshot without a frame.
    pub frame_operation_id: Option<String>,
    /// The restored server.
    pub server: ServerFacts,
    /// The tables of the restore.
    pub tables: Vec<TableFacts>,
    /// For each table here, its index in the frame's plan (found by database and object id); `None` for tables
    /// that the frame does not know.
    pub framed: Vec<Option<usize>>,
    /// The digests to take. A framed table is cut exactly as in the frame, so that slices can be compared; the
    /// slices' `table` is an index into `tables` here.
    pub units: Vec<Unit>,
    /// For each unit, the rows to look at: the frame's unit's visibility, or `None` for every row.
    pub frame_units: Vec<Option<u32>>,
    /// The structural checks to make, in order.
    pub checks: Vec<Check>,
}

/// A structural check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Check {
    /// Its number within the plan.
    pub id: u32,
    /// The database to connect to.
    pub database: String,
    /// What is checked.
    pub kind: CheckKind,
    /// The relations or constraints, about 64 MB together.
    pub subjects: Vec<CheckSubject>,
}

/// The kinds of structural checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CheckKind {
    /// `verify_heapam`: heap pages, and the TOAST values they refer to.
    Heap,
    /// `bt_index_parent_check` with `heapallindexed`: B-tree structure, and that every heap row is in it.
    BTree,
    /// `CHECK TABLE … EXTENDED`: rows and all indexes of a table (MySQL).
    Table,
    /// A foreign key, proved again over all rows.
    ForeignKey,
    /// A unique constraint or index, proved again over all rows.
    Unique,
}

/// What a check looks at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CheckSubject {
    /// Its object id (relation or constraint).
    pub oid: u32,
    /// Its name, as `schema.name`.
    pub name: String,
    /// The table that it belongs to, as `schema.table`.
    pub table: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// The blocks to look at, first and first beyond (`None`: to the end); the whole of it when absent.
    #[serde(default)]
    pub blocks: Option<(u32, Option<u32>)>,
}

/// What came of one subject of a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CheckOutcome {
    /// Nothing was found.
    Sound,
    /// Faults were found; no row content is in the messages.
    Faulty {
        /// What the server said, at most 10 messages.
        messages: Vec<String>,
    },
    /// The check cannot be made here: amcheck is not installed, or may not be used.
    NotPossible {
        /// Why.
        reason: String,
    },
}

/// A finished check, as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CheckResult {
    /// The check's number.
    pub check: u32,
    /// Its kind.
    pub kind: CheckKind,
    /// One outcome a subject, in order.
    pub outcomes: Vec<(CheckSubject, CheckOutcome)>,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

/// What the catalogue of the restore says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CatalogueFindings {
    /// Each database's schema fingerprint.
    pub schema: BTreeMap<String, SchemaFingerprint>,
    /// The sequences, with what they feed.
    pub sequences: Vec<SequenceFacts>,
    /// Collations whose recorded version is not the one of the server's library: text indexes need rebuilding.
    pub collation_drift: Vec<String>,
    /// Indexes that are not valid or not ready.
    pub invalid_indexes: Vec<String>,
    /// Constraints that were never validated.
    pub unvalidated_constraints: Vec<String>,
    /// Unlogged tables: empty after a restore.
    pub unlogged_tables: Vec<TableName>,
    /// The newest beat of the frame's operation that is there; `None` when the row is missing.
    pub heartbeat: Option<Heartbeat>,
    /// The time of the newest commit or beat that can be told on the restore.
    pub newest_known_moment: Option<Timestamp>,
}

/// A difference, followed down to rows with the help of the source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Narrowing {
    /// The table, by its index in the examination's plan.
    pub table: usize,
    /// The slice that differed.
    pub slice: Slice,
    /// What came of asking the source.
    pub outcome: NarrowingOutcome,
}

/// What came of following a difference down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum NarrowingOutcome {
    /// Every row of the frame that the source has not touched since is on the restore, byte for byte; the others
    /// are accounted for by the source's own changes.
    Accounted {
        /// Rows that were compared.
        compared: u64,
    },
    /// Rows that the source has not touched since the frame and that are not the same on the restore.
    Rows {
        /// How many.
        count: u64,
        /// Primary keys (or block and line of rows without one) of at most 20 of them, as text.
        keys: Vec<RowDifference>,
        /// The blocks that the differing rows are in, in order, at most 1,000 of them.
        #[serde(default)]
        blocks: Vec<u32>,
    },
    /// The source could not be asked, and why.
    SourceUnavailable {
        /// Why.
        reason: String,
    },
}

/// One row that is not what it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RowDifference {
    /// The primary key as text, or the row's place (`ctid`).
    pub key: String,
    /// Missing on the restore, changed, or there without having been on the source.
    pub kind: RowDifferenceKind,
}

/// The ways in which a row can differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RowDifferenceKind {
    /// On the source, not on the restore.
    Missing,
    /// On both, with other bytes.
    Changed,
    /// On the restore only.
    Unexpected,
}

/// An examination as a whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Examination {
    /// What was planned.
    pub plan: ExaminationPlan,
    /// One result a unit.
    pub units: Vec<UnitResult>,
    /// One result a check.
    pub checks: Vec<CheckResult>,
    /// What the catalogue says.
    pub catalogue: CatalogueFindings,
    /// Differences followed down.
    pub narrowings: Vec<Narrowing>,
}
