//! Compares a source with its own frame, purely: whether the rows that nobody changed are still what they were.
//!
//! The same reasoning as for a restore: below the frame's horizon a legitimate change can only make a row leave. What
//! left is bounded by the server's counters, where they still count from before the frame. A restart or a crash ends
//! that; then a table's rows may have left by updates as long as it has as many newer ones, and what left without such
//! a successor was deleted or lost, and nobody can tell which.
//!
//! What it cannot see: a lost row of a table in which at least as many were changed; what was written after the frame;
//! the order of events.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::evidence::{After, Evidence, Look, Window};
use super::table::{self, digest};
use super::{percent, ratio};
use crate::error::Result;
use crate::proof::examination::Examination;
use crate::proof::frame::{Frame, Observation, TableFacts};
use crate::proof::judgement::{BlockRange, Reason, TableJudgement, TableVerdict};

/// What is compared.
#[derive(Debug, Clone)]
pub struct Input<'a> {
    /// The source as it was.
    pub frame: &'a Frame,
    /// The frame's slices of the same source, later. Tables that the frame does not know are not in it.
    pub examination: Examination,
    /// The source's counters and definitions, read after the last slice.
    pub observation: &'a Observation,
    /// Now.
    pub now: Timestamp,
}

/// What came of it; the numbers are of tables.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Comparison {
    /// Every row of the frame is there, byte for byte.
    pub same: u64,
    /// Rows have left, and changes explain all of them: as many are known to have been made, or, where the counters do
    /// not tell, there are at least as many newer rows that may have taken their places.
    pub changed: u64,
    /// What nothing tells: rows have left without a successor, or the table was rewritten, redefined or dropped, or is
    /// not logged.
    pub untold: Vec<Unlike>,
    /// What no change explains: rows are lost, or not what they were.
    pub different: Vec<Unlike>,
    /// What is wrong with the server as a whole.
    pub faults: Vec<String>,
    /// Whether the counters count from before the frame, for every table.
    pub counted: bool,
    /// Rows shown to be byte for byte what they were.
    pub proven_rows: u64,
    /// The part of the tables' bytes that is shown to be what it was, in percent with two decimals.
    pub covered: f64,
    /// When.
    pub compared_at: Timestamp,
}

/// A table that is not as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Unlike {
    /// Its name.
    pub table: String,
    /// Why it is told.
    pub why: Reason,
    /// Rows of the frame.
    pub framed_rows: u64,
    /// Rows of them that are there.
    pub rows: u64,
    /// Where: neighbouring slices joined, at most 100.
    pub slices: Vec<BlockRange>,
}

/// Compares.
///
/// # Errors
/// [`ErrorName::MetadataDamaged`](crate::error::ErrorName::MetadataDamaged) where something that was planned has no
/// result, or records contradict each other.
pub fn compare(mut input: Input<'_>) -> Result<Comparison> {
    definitions_in_motion(input.frame, input.observation, &mut input.examination);
    let input = &input;
    let evidence = Evidence::gather(Some(input.frame), Some(input.observation), &[], &input.examination)?;
    let mut judged: Vec<Judged> = Vec::new();
    for found in &evidence.tables {
        let Look::Paired { planned, pairs, window } = &found.look else { continue };
        let differing =
            pairs.iter().filter(|pair| digest(pair.frame) != digest(pair.restore)).map(|pair| pair.slice);
        judged.push(Judged {
            table: as_of_a_living_source(table::judge(found, true), planned, &window.after),
            counted: counted(window),
            differing: table::ranges(differing.collect()),
            bytes: planned.bytes,
        });
    }
    judged.extend(evidence.absent.iter().map(|absent| Judged {
        table: as_of_a_living_source(table::judge_absent(absent), absent.planned, &absent.window.after),
        counted: counted(&absent.window),
        differing: Vec::new(),
        bytes: absent.planned.bytes,
    }));
    judged.sort_by(|a, b| a.table.name.cmp(&b.table.name));
    let mut comparison = Comparison {
        same: 0,
        changed: 0,
        untold: Vec::new(),
        different: Vec::new(),
        faults: faults(input),
        counted: judged.iter().all(|judged| judged.counted),
        proven_rows: judged.iter().map(|judged| judged.table.proven_rows).sum(),
        covered: covered(&judged),
        compared_at: input.now,
    };
    for judged in judged {
        let table = &judged.table;
        match (table.verdict, table.reason) {
            (TableVerdict::Exact, _) => comparison.same += 1,
            (_, Reason::WithinCounters) => comparison.changed += 1,
            (_, Reason::CountersUnusable) if table.residue <= table.newer_rows => comparison.changed += 1,
            (TableVerdict::Explained | TableVerdict::Plausible, _) => comparison.untold.push(judged.unlike()),
            (TableVerdict::Different | TableVerdict::Unreadable, _) => {
                comparison.different.push(judged.unlike());
            }
        }
    }
    Ok(comparison)
}

/// A source goes on while it is read: what was defined anew by the time of the observation may have been when a slice was
/// read, although it was not when that was planned.
fn definitions_in_motion(frame: &Frame, observation: &Observation, examination: &mut Examination) {
    let plan = &mut examination.plan;
    for (here, at) in plan.tables.iter_mut().zip(&plan.framed) {
        let Some(planned) = at.and_then(|at| frame.plan.tables.get(at)) else { continue };
        let after = observation
            .activity
            .iter()
            .filter(|activity| activity.database == planned.name.database)
            .flat_map(|activity| &activity.tables)
            .find(|table| table.oid == planned.oid);
        let Some(after) = after else { continue };
        if after.filenode != planned.filenode {
            here.filenode = after.filenode;
        }
        if after.structure != planned.structure {
            here.structure.clone_from(&after.structure);
        }
    }
    for (database, after) in &observation.schema {
        if frame.plan.schema.get(database) != Some(after) {
            examination.catalogue.schema.insert(database.clone(), after.clone());
        }
    }
}

/// What is damage to a restore, and everyday life of a source: a table that is dropped, emptied, filled or altered while
/// it is looked at.
fn as_of_a_living_source(table: TableJudgement, planned: &TableFacts, after: &After) -> TableJudgement {
    let reason = match (table.reason, after) {
        (Reason::StructureDiffers, _) => Reason::Redefined,
        (Reason::TableMissing | Reason::TableBack, After::Dropped) => Reason::DroppedSince,
        (Reason::TableMissing | Reason::TableBack, After::Present { filenode, .. })
            if *filenode != planned.filenode =>
        {
            Reason::Rewritten
        }
        (reason, _) => reason,
    };
    TableJudgement { reason, verdict: reason.verdict(), ..table }
}

/// A table, and what its judgement does not keep.
struct Judged {
    table: TableJudgement,
    counted: bool,
    differing: Vec<BlockRange>,
    /// What it had when it was framed.
    bytes: u64,
}

impl Judged {
    fn unlike(self) -> Unlike {
        let table = self.table;
        Unlike {
            table: table.name.to_string(),
            why: table.reason,
            framed_rows: table.framed_rows.unwrap_or(0),
            rows: table.rows,
            slices: if table.blocks.is_empty() { self.differing } else { table.blocks },
        }
    }
}

/// The part of the frame that is shown to be what it was, a table's bytes counted by the part of its rows that is.
fn covered(judged: &[Judged]) -> f64 {
    let (mut proven, mut total) = (0.0, 0.0);
    for Judged { table, bytes, .. } in judged {
        let part = match table.framed_rows.unwrap_or(0) {
            0 if table.verdict == TableVerdict::Exact => 1.0,
            0 => 0.0,
            framed => ratio(table.proven_rows, framed),
        };
        #[expect(clippy::cast_precision_loss, reason = "a percentage needs no more than 53 bits")]
        let bytes = *bytes as f64;
        proven += part * bytes;
        total += bytes;
    }
    percent(if total > 0.0 { proven / total } else { 1.0 })
}

/// Whether a table's counters tell what was done to it since the frame.
fn counted(window: &Window) -> bool {
    window.touched.is_some() && !window.pending || window.after == After::Dropped
}

/// Faults of the whole: another server under the name, or a log whose end is lost.
fn faults(input: &Input<'_>) -> Vec<String> {
    let mut faults = Vec::new();
    let (then, now) = (&input.frame.plan.server, &input.examination.plan.server);
    if let (Some(then), Some(now)) = (&then.system_identifier, &now.system_identifier)
        && then != now
    {
        faults.push(format!("another server answers: its identifier is {now}, and was {then}"));
    }
    let written = &input.frame.heartbeat;
    let found = input.examination.catalogue.heartbeat.as_ref().map_or(0, |beat| beat.beat);
    if found < written.beat {
        faults.push(format!(
            "beat {} was acknowledged at {}, and the last one that is there is {found}",
            written.beat, written.written_at
        ));
    }
    faults
}
