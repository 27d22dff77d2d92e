//! What is recorded of the source: before the snapshot (the frame) and after it (the observation).

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::keyed::{KeyedFacts, SourceState};

/// The names of a table in its server.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TableName {
    /// The database (of `pg_database`, or the schema in MySQL's words).
    pub database: String,
    /// The schema; empty in MySQL.
    pub schema: String,
    /// The table itself.
    pub table: String,
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.schema.is_empty() {
            return write!(f, "{}.{}", self.database, self.table);
        }
        write!(f, "{}.{}.{}", self.database, self.schema, self.table)
    }
}

/// How a table survives a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Persistence {
    /// Written ahead to the log: a snapshot keeps it.
    Permanent,
    /// Not logged: empty after a restore, by design.
    Unlogged,
}

/// What was known of one table when the plan was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TableFacts {
    /// Its names.
    pub name: TableName,
    /// Its object id: survives a rename, and a physical restore keeps it.
    pub oid: u32,
    /// Its file number: changes when the table is rewritten or truncated.
    pub filenode: u32,
    /// Whether a restore keeps its rows.
    pub persistence: Persistence,
    /// Size of the heap in blocks of 8 KiB.
    pub blocks: u32,
    /// Size of heap, TOAST and maps in bytes, without indexes.
    pub bytes: u64,
    /// Columns of the primary key, in order; empty where there is none.
    pub primary_key: Vec<String>,
    /// SHA-256 over the table's own columns (names, types, NOT NULL, collation), to notice DDL.
    pub structure: String,
    /// The columns that a digest of it speaks of, in order. A restore digests the frame's columns, so that a column
    /// added since does not make every row look different.
    #[serde(default)]
    pub columns: Vec<ColumnFacts>,
    /// What is known of a table that is cut by keys (MySQL): then `blocks` counts its slices, a slice's blocks are
    /// their numbers, and object id, file number and `columns` mean nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keyed: Option<KeyedFacts>,
}

/// A column of a table, as far as a digest depends on it. Columns that are not stored (generated on reading) are
/// left out everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ColumnFacts {
    /// Its number in the table (`attnum`): survives a rename, and a physical restore keeps it.
    pub number: i16,
    /// The object id of its type.
    pub type_oid: u32,
}

/// A range of blocks of one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Slice {
    /// Index into the plan's tables.
    pub table: usize,
    /// First block.
    pub first_block: u32,
    /// First block that is no longer in it; `None` for the last slice of a table, which is open-ended.
    pub end_block: Option<u32>,
}

/// The smallest piece of work that is stored by itself: about 64 MB of one database, one slice of a large table
/// or many small tables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Unit {
    /// Its number within the plan.
    pub id: u32,
    /// The database to connect to.
    pub database: String,
    /// What to digest, in order.
    pub slices: Vec<Slice>,
}

/// The server that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServerFacts {
    /// `server_version_num`, such as 170011.
    pub version: u32,
    /// `pg_control_system().system_identifier` as text: a physical restore keeps it.
    pub system_identifier: Option<String>,
    /// Whether pages carry checksums.
    pub data_checksums: bool,
    /// Whether it is a standby.
    pub in_recovery: bool,
    /// Its clock.
    pub clock: Timestamp,
}

/// The row that is written to the source right before the snapshot, to learn how far a restore reaches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Heartbeat {
    /// The database that holds `lifeboat.heartbeat`.
    pub database: String,
    /// The operation that wrote it.
    pub operation_id: String,
    /// A counter that grows with each beat of this operation.
    pub beat: i64,
    /// When it was written, by the server's clock.
    pub written_at: Timestamp,
}

/// SHA-256 of the catalogue's text, per class (tables, columns, constraints …).
pub type SchemaFingerprint = BTreeMap<String, String>;

/// A sequence and what it feeds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SequenceFacts {
    /// Its names.
    pub name: TableName,
    /// Its last value; `None` when it was never used.
    pub last_value: Option<i64>,
    /// Its step: negative ones count down.
    pub increment: i64,
    /// The column that it feeds (identity, serial or `DEFAULT nextval`), as `schema.table.column`.
    pub feeds: Option<String>,
    /// The farthest value in that column in the direction of counting; `None` for an empty or unreadable column.
    pub farthest_fed: Option<i64>,
}

/// Counters of one table since the statistics were reset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TableActivity {
    /// The table.
    pub name: TableName,
    /// Its object id.
    pub oid: u32,
    /// Its file number at that moment.
    pub filenode: u32,
    /// SHA-256 over its columns at that moment.
    pub structure: String,
    /// Rows inserted (`n_tup_ins`).
    pub inserted: u64,
    /// Rows updated (`n_tup_upd`).
    pub updated: u64,
    /// Rows deleted (`n_tup_del`).
    pub deleted: u64,
}

/// The counters of all tables of one database at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DatabaseActivity {
    /// The database.
    pub database: String,
    /// When its statistics were reset last, as text: a change between two looks makes differences meaningless.
    pub stats_reset: Option<String>,
    /// When it was looked at, by the server's clock.
    pub taken_at: Timestamp,
    /// One entry a table.
    pub tables: Vec<TableActivity>,
    /// Rows changed (inserted, updated and deleted together) in each system catalogue, by its name such as
    /// `pg_attribute` (`pg_stat_sys_tables`): a growing one shows DDL that both looks at the schema missed, such
    /// as a table that was created and dropped again in between. Empty when it was not looked at.
    #[serde(default)]
    pub catalogue_changes: BTreeMap<String, u64>,
}

/// What is written down first: everything but the digests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FramePlan {
    /// Version of this format.
    pub format: u32,
    /// The operation.
    pub operation_id: String,
    /// The DB instance that was framed (the writer, or the named replica).
    pub instance: String,
    /// The server behind it.
    pub server: ServerFacts,
    /// Each database's schema fingerprint.
    pub schema: BTreeMap<String, SchemaFingerprint>,
    /// The sequences.
    pub sequences: Vec<SequenceFacts>,
    /// The counters before any digest was taken.
    pub activity: Vec<DatabaseActivity>,
    /// The tables; slices refer to them by index.
    pub tables: Vec<TableFacts>,
    /// The work.
    pub units: Vec<Unit>,
    /// Large objects in each database that has any: they are counted, not digested (`pg_largeobject` is readable
    /// by superusers only).
    pub large_objects: BTreeMap<String, u64>,
    /// The state of a server whose tables are cut by keys (MySQL), before any digest was taken; `activity` is empty
    /// then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<SourceState>,
}

/// Which rows a digest speaks of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Visibility {
    /// `pg_current_snapshot()` as text, `xmin:xmax:xip_list`, 64-bit transaction ids.
    pub snapshot: String,
    /// Only rows of transactions below the snapshot's `xmin`: needed where it was taken on a standby, whose
    /// snapshots do not list the transactions in progress.
    pub below_xmin_only: bool,
}

/// What came of one slice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SliceOutcome {
    /// It was read.
    Digested(Digest),
    /// The server could not read it. No row content is in the message.
    Unreadable {
        /// SQLSTATE, such as `XX001`.
        sqlstate: String,
        /// The server's message.
        message: String,
    },
    /// The table was dropped between planning and reading.
    Gone,
}

/// A slice and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SliceResult {
    /// The slice.
    pub slice: Slice,
    /// What came of it.
    pub outcome: SliceOutcome,
    /// Rows in it that the reader saw and that are outside the unit's visibility (newer than what the digest
    /// speaks of); `None` when they were not counted.
    #[serde(default)]
    pub newer_rows: Option<u64>,
}

/// A finished unit, as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UnitResult {
    /// The unit's number.
    pub unit: u32,
    /// The rows that its digests speak of. A frame that takes several invocations has several snapshots.
    pub visibility: Visibility,
    /// One result a slice, in order.
    pub slices: Vec<SliceResult>,
    /// When it was finished.
    pub finished_at: Timestamp,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

/// The frame as a whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    /// What was planned.
    pub plan: FramePlan,
    /// The heartbeat, written after the last digest, right before the snapshot.
    pub heartbeat: Heartbeat,
    /// One result for each unit of the plan.
    pub units: Vec<UnitResult>,
}

/// The source after the snapshot was taken: bounds for what may have changed in between.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Observation {
    /// Version of this format.
    pub format: u32,
    /// The operation.
    pub operation_id: String,
    /// The counters, read late enough that what was committed before the snapshot is in them.
    pub activity: Vec<DatabaseActivity>,
    /// Whether changes committed before the snapshot may be missing in the counters all the same: sessions hand
    /// in their counts between transactions only, so one that is in a long transaction may hold some back.
    #[serde(default)]
    pub pending_counters: bool,
    /// Each database's schema fingerprint.
    pub schema: BTreeMap<String, SchemaFingerprint>,
    /// The sequences.
    pub sequences: Vec<SequenceFacts>,
    /// The state of a server whose tables are cut by keys (MySQL). The frame's units whose tables may have been
    /// written to are read again after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<SourceState>,
}
