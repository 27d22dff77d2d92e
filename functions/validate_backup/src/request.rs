//! What the function is asked for, and what it answers.

use dr_core::ids::{DatabaseId, OperationId, SnapshotId};
use dr_core::observed::DatabaseKind;
use dr_core::plan::TemporaryTarget;
use dr_core::proof::judge::live::{Comparison, Unlike};
use dr_core::proof::judgement::Judgement;
use dr_core::request::{Credentials, ValidationOptions};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What the function is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Request {
    /// Records the source before the snapshot, as far as time allows.
    Frame(FrameRequest),
    /// Records the source's counters after the snapshot.
    Observe(ObserveRequest),
    /// Reads and checks a restore, as far as time allows.
    Examine(ExamineRequest),
    /// Judges a restore that was examined.
    Judge(JudgeRequest),
    /// Looks at a snapshot from outside and judges that.
    Quick(QuickRequest),
    /// Asks a database whether it still has all that it acknowledged, and has it acknowledge one beat more.
    Ledger(LedgerRequest),
    /// Compares a source with its own frame, as far as time allows.
    Compare(CompareRequest),
}

/// See [`Request::Frame`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FrameRequest {
    /// The backup's operation.
    pub operation_id: OperationId,
    /// The source.
    pub database: DatabaseId,
    /// Whether that is an instance or a cluster; looked for as both when absent.
    #[serde(default)]
    pub database_kind: Option<DatabaseKind>,
    /// How.
    #[serde(default)]
    pub validation: ValidationOptions,
}

/// See [`Request::Observe`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ObserveRequest {
    /// The backup's operation.
    pub operation_id: OperationId,
    /// The source.
    pub database: DatabaseId,
    /// Whether that is an instance or a cluster; looked for as both when absent.
    #[serde(default)]
    pub database_kind: Option<DatabaseKind>,
    /// The snapshot that was taken of it.
    pub snapshot_id: SnapshotId,
    /// How.
    #[serde(default)]
    pub validation: ValidationOptions,
}

/// See [`Request::Examine`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExamineRequest {
    /// The proof's operation.
    pub operation_id: OperationId,
    /// The operation that framed the source; without it there is nothing to compare with.
    #[serde(default)]
    pub frame_operation_id: Option<OperationId>,
    /// The source, which is asked about differences.
    #[serde(default)]
    pub database: Option<DatabaseId>,
    /// Whether that is an instance or a cluster; looked for as both when absent.
    #[serde(default)]
    pub database_kind: Option<DatabaseKind>,
    /// The snapshot that was restored.
    pub snapshot_id: SnapshotId,
    /// The restore.
    pub target: TemporaryTarget,
    /// How.
    #[serde(default)]
    pub validation: ValidationOptions,
}

/// See [`Request::Judge`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JudgeRequest {
    /// The proof's operation.
    pub operation_id: OperationId,
    /// The operation that framed the source.
    #[serde(default)]
    pub frame_operation_id: Option<OperationId>,
    /// The first proof that found the snapshot, or the one that it is a copy of, proven: both restores must hold the
    /// same.
    #[serde(default)]
    pub earlier_operation_id: Option<OperationId>,
    /// The source.
    #[serde(default)]
    pub database: Option<DatabaseId>,
    /// Whether the snapshot is of an instance or of a cluster; looked for as both when absent.
    #[serde(default)]
    pub database_kind: Option<DatabaseKind>,
    /// The snapshot that was restored.
    pub snapshot_id: SnapshotId,
    /// The restore.
    pub target: TemporaryTarget,
    /// How.
    #[serde(default)]
    pub validation: ValidationOptions,
    /// What `restore_database` answered when the restore was ready. Its other members are not needed here.
    pub restore: RestoreAnswer,
}

/// The part of `restore_database`'s answer that is reported. Other members are ignored: it is another function's
/// answer passed on, not somebody's input.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RestoreAnswer {
    /// From asking for the restore until the instance was available.
    pub time_to_available_seconds: u64,
}

/// See [`Request::Quick`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct QuickRequest {
    /// The proof's operation.
    pub operation_id: OperationId,
    /// The snapshot.
    pub snapshot_id: SnapshotId,
    /// The database that it should be of.
    #[serde(default)]
    pub database: Option<DatabaseId>,
    /// Whether the snapshot is of an instance or of a cluster; looked for as both when absent.
    #[serde(default)]
    pub database_kind: Option<DatabaseKind>,
    /// How: `maxRpoSeconds` bounds the snapshot's age.
    #[serde(default)]
    pub validation: ValidationOptions,
}

/// See [`Request::Ledger`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LedgerRequest {
    /// The experiment's operation.
    pub operation_id: OperationId,
    /// The database.
    pub database: DatabaseId,
    /// Whether that is an instance or a cluster; looked for as both when absent.
    #[serde(default)]
    pub database_kind: Option<DatabaseKind>,
    /// Credentials; by default the instance's managed secret or its tag `lifeboat:secret-id`.
    #[serde(default)]
    pub credentials: Option<Credentials>,
    /// Whether no beat is written: the database is connected to and read.
    #[serde(default)]
    pub look_only: bool,
}

/// See [`Request::Compare`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CompareRequest {
    /// The operation that framed the source.
    pub operation_id: OperationId,
    /// The source.
    pub database: DatabaseId,
    /// Whether that is an instance or a cluster; looked for as both when absent.
    #[serde(default)]
    pub database_kind: Option<DatabaseKind>,
    /// How: credentials, connections and the limit for reading count.
    #[serde(default)]
    pub validation: ValidationOptions,
}

/// What the function answers.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Answer {
    /// Of `frame`, `observe` and `examine`.
    Stage(Stage),
    /// Of `judge` and `quick`.
    Judgement(Box<Judgement>),
    /// Of `ledger`.
    Ledger(Ledger),
    /// Of `compare`.
    Comparing(Comparing),
}

/// Where a comparison is.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "status", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Comparing {
    /// Call again.
    Pending {
        /// When.
        check_again_in_seconds: u32,
        /// How far it is.
        progress: Progress,
    },
    /// There is nothing left to do.
    Done(Box<Compared>),
}

/// What came of a comparison, as far as it fits in a payload: 20 tables of each list, with 10 places each. Numbers are
/// of tables.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Compared {
    /// Every row of the frame is there, byte for byte.
    pub same: u64,
    /// Rows have left, and changes explain all of them.
    pub changed: u64,
    /// What nothing tells.
    pub untold: Vec<Unlike>,
    /// How many those are.
    pub untold_count: u64,
    /// What no change explains.
    pub different: Vec<Unlike>,
    /// How many those are.
    pub different_count: u64,
    /// What is wrong with the server as a whole.
    pub faults: Vec<String>,
    /// Whether the counters of changes count from before the frame: a restart ends that.
    pub counted: bool,
    /// Rows shown to be byte for byte what they were.
    pub proven_rows: u64,
    /// The part of the tables' bytes that is shown to be what it was, in percent.
    pub covered: f64,
    /// When.
    pub compared_at: Timestamp,
    /// Where all of it is.
    pub report_key: String,
}

/// Tables of one list that travel in a payload.
const MOST_TABLES: usize = 20;
/// Places of one table that do.
const MOST_PLACES: usize = 10;

impl Compared {
    /// What fits.
    pub fn of(whole: &Comparison, report_key: String) -> Self {
        let some = |all: &[Unlike]| -> Vec<Unlike> {
            let shortened = |unlike: &Unlike| {
                let mut unlike = unlike.clone();
                unlike.slices.truncate(MOST_PLACES);
                unlike
            };
            all.iter().take(MOST_TABLES).map(shortened).collect()
        };
        Self {
            same: whole.same,
            changed: whole.changed,
            untold: some(&whole.untold),
            untold_count: whole.untold.len() as u64,
            different: some(&whole.different),
            different_count: whole.different.len() as u64,
            faults: whole.faults.clone(),
            counted: whole.counted,
            proven_rows: whole.proven_rows,
            covered: whole.covered,
            compared_at: whole.compared_at,
            report_key,
        }
    }
}

/// What a database has of what it acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Ledger {
    /// Whether no beat that was acknowledged is missing, now and at every asking of this operation before.
    pub intact: bool,
    /// The last beat that was known to be acknowledged: 0 before the first. After a loss, what it was then.
    pub acknowledged: i64,
    /// The last beat that was found: above `acknowledged` when an acknowledgement was lost, absent without a row.
    /// After a loss, what it was then.
    pub found: Option<i64>,
    /// The beat that was written and acknowledged just now; the last one before where nothing was to be written.
    pub beat: i64,
    /// The database.
    pub database: DatabaseId,
}

/// Where a stage is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "status", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Stage {
    /// Call again.
    Pending {
        /// When; 1 where work was cut off by the deadline.
        check_again_in_seconds: u32,
        /// How far it is.
        progress: Progress,
    },
    /// There is nothing left to do.
    Done {
        /// What the frame holds; only of `frame`.
        #[serde(skip_serializing_if = "Option::is_none")]
        frame: Option<FrameSummary>,
        /// How far it is: all of it.
        progress: Progress,
    },
}

/// How far a stage is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// Units of work that are stored.
    pub units_done: u64,
    /// Units of work that were planned, as far as known.
    pub units_total: u64,
    /// Bytes of tables and indexes behind the stored units, about.
    pub bytes_done: u64,
    /// Bytes behind all units, about.
    pub bytes_total: u64,
    /// By bytes, 0 to 100.
    pub percent: u8,
}

impl Progress {
    /// Progress of `(done, bytes)` units.
    pub fn of(units: impl IntoIterator<Item = (bool, u64)>) -> Self {
        let mut progress = Self::default();
        for (done, bytes) in units {
            progress.units_total += 1;
            progress.bytes_total += bytes;
            if done {
                progress.units_done += 1;
                progress.bytes_done += bytes;
            }
        }
        progress.percent = progress.part();
        progress
    }

    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let mut both = Self {
            units_done: self.units_done + other.units_done,
            units_total: self.units_total + other.units_total,
            bytes_done: self.bytes_done + other.bytes_done,
            bytes_total: self.bytes_total + other.bytes_total,
            percent: 0,
        };
        both.percent = both.part();
        both
    }

    /// Below 100 while anything is left; units without bytes count by their number.
    fn part(&self) -> u8 {
        if self.units_done == self.units_total {
            return 100;
        }
        let (done, total) = if self.bytes_total > 0 {
            (self.bytes_done, self.bytes_total)
        } else {
            (self.units_done, self.units_total)
        };
        u8::try_from(u128::from(done) * 100 / u128::from(total.max(1))).unwrap_or(99).min(99)
    }
}

/// What a frame holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FrameSummary {
    /// Tables.
    pub tables: u64,
    /// Rows that the digests speak of.
    pub rows: u64,
    /// Bytes of the tables, without indexes.
    pub bytes: u64,
    /// Stored units.
    pub units: u64,
    /// The transaction id that the first unit's rows are below.
    pub snapshot_xid: String,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn percent_is_100_only_at_the_end() {
        let cases: [(&[(bool, u64)], u8); 6] = [
            (&[], 100),
            (&[(true, 5)], 100),
            (&[(false, 5)], 0),
            (&[(true, 1_000_000), (false, 1)], 99),
            (&[(true, 0), (false, 0)], 50),
            (&[(true, 10), (false, 0)], 99),
        ];
        for (units, percent) in cases {
            assert_eq!(Progress::of(units.iter().copied()).percent, percent, "{units:?}");
        }
    }

    #[test]
    fn answers_have_the_shape_that_the_state_machines_read() {
        let progress = Progress::of([(true, 1), (false, 1)]);
        let pending = Answer::Stage(Stage::Pending { check_again_in_seconds: 1, progress });
        let value = serde_json::to_value(pending).unwrap();
        assert_eq!(value["status"], "pending");
        assert_eq!(value["checkAgainInSeconds"], 1);
        assert_eq!(value["progress"]["unitsDone"], 1);
        let done = Answer::Stage(Stage::Done { frame: None, progress });
        let value = serde_json::to_value(done).unwrap();
        assert_eq!(value["status"], "done");
        assert_eq!(value.get("frame"), None);
        let database = DatabaseId::parse("orders").unwrap();
        let ledger = Answer::Ledger(Ledger { intact: true, acknowledged: 0, found: None, beat: 1, database });
        let shape = r#"{"intact":true,"acknowledged":0,"found":null,"beat":1,"database":"orders"}"#;
        assert_eq!(serde_json::to_string(&ledger).unwrap(), shape);
    }
}
