//! The verdict on one table.
//!
//! What it rests on: with the frame's visibility, the rows of a sound restore are a part of the frame's rows. A
//! row leaves that part when it is updated or deleted, and never comes back with other content. So as many rows
//! with another digest, or more rows, are never the work of the source; fewer rows may be.

use super::evidence::{Absent, After, Look, Pair, Table, Window};
use crate::proof::digest::Digest;
use crate::proof::examination::{NarrowingOutcome, RowDifference};
use crate::proof::frame::{Persistence, Slice, SliceOutcome, SliceResult, TableFacts};
use crate::proof::judgement::{BlockRange, Reason, TableJudgement, TableVerdict};

/// Most block ranges that are kept for a table.
const MAX_RANGES: usize = 100;
/// Most rows that are named for a table.
const MAX_KEYS: usize = 100;
/// Bytes of a table that every reader reads by one statement, however slowly it was told to read.
const READ_AT_ONCE: u64 = 256 << 10;

impl Reason {
    /// The verdict that goes with it.
    pub fn verdict(self) -> TableVerdict {
        match self {
            Self::DigestsEqual => TableVerdict::Exact,
            Self::RowsFollowed | Self::WithinCounters | Self::DroppedSince | Self::BeforeOrAfter => {
                TableVerdict::Explained
            }
            Self::NoFrame
            | Self::CreatedSince
            | Self::Rewritten
            | Self::Redefined
            | Self::CountersUnusable
            | Self::BetweenFrames
            | Self::CameAndWent
            | Self::NotTransactional
            | Self::Unlogged => TableVerdict::Plausible,
            Self::ContentDiffers
            | Self::MoreRows
            | Self::RowsMissing
            | Self::OutOfBounds
            | Self::StructureDiffers
            | Self::TableMissing
            | Self::TableBack => TableVerdict::Different,
            Self::UnreadableHere | Self::UnreadableOnSource => TableVerdict::Unreadable,
        }
    }
}

/// Judges a table of the restore.
pub(super) fn judge(table: &Table<'_>, has_frame: bool) -> TableJudgement {
    match &table.look {
        Look::Alone(slices) => alone(table.restored, slices, has_frame),
        Look::Paired { planned, pairs, window } if planned.keyed.is_some() => {
            super::keyed::judge(planned, table.restored, pairs, window)
        }
        Look::Paired { planned, pairs, window } => paired(planned, table.restored, pairs, window),
    }
}

/// Judges a table of the frame that the restore does not have.
pub(super) fn judge_absent(absent: &Absent<'_>) -> TableJudgement {
    let reason = match absent.window.after {
        After::Dropped => Reason::DroppedSince,
        // Another one of its name has been made since.
        After::Present { .. } if absent.window.keyed.is_some_and(|keyed| keyed.made_anew) => {
            Reason::DroppedSince
        }
        After::Unknown | After::Present { .. } => Reason::TableMissing,
    };
    TableJudgement {
        framed_rows: Some(absent.framed_rows),
        residue: absent.framed_rows,
        bytes: 0,
        ..blank(absent.planned, reason)
    }
}

pub(super) fn blank(facts: &TableFacts, reason: Reason) -> TableJudgement {
    TableJudgement {
        name: facts.name.clone(),
        verdict: reason.verdict(),
        reason,
        bytes: facts.bytes,
        framed_rows: None,
        rows: 0,
        newer_rows: 0,
        proven_rows: 0,
        residue: 0,
        changed_on_source: None,
        blocks: Vec::new(),
        different_rows: None,
        different_keys: Vec::new(),
        earlier: None,
    }
}

pub(super) fn digest(result: &SliceResult) -> Digest {
    match &result.outcome {
        SliceOutcome::Digested(digest) => *digest,
        SliceOutcome::Unreadable { .. } | SliceOutcome::Gone => Digest::EMPTY,
    }
}

pub(super) fn unreadable(result: &SliceResult) -> bool {
    matches!(result.outcome, SliceOutcome::Unreadable { .. })
}

fn alone(restored: &TableFacts, slices: &[&SliceResult], has_frame: bool) -> TableJudgement {
    let bad: Vec<Slice> = slices.iter().filter(|slice| unreadable(slice)).map(|slice| slice.slice).collect();
    let reason = if !bad.is_empty() {
        Reason::UnreadableHere
    } else if restored.persistence == Persistence::Unlogged {
        Reason::Unlogged
    } else if has_frame {
        Reason::CreatedSince
    } else {
        Reason::NoFrame
    };
    TableJudgement {
        rows: slices.iter().map(|slice| digest(slice).rows).sum(),
        newer_rows: slices.iter().filter_map(|slice| slice.newer_rows).sum(),
        blocks: ranges(bad),
        ..blank(restored, reason)
    }
}

fn paired(
    planned: &TableFacts,
    restored: &TableFacts,
    pairs: &[Pair<'_>],
    window: &Window,
) -> TableJudgement {
    let comparison = Comparison::new(planned, restored, pairs, window);
    let (reason, bad) = comparison.decide();
    let verdict = reason.verdict();
    let mut keys: Vec<RowDifference> = Vec::new();
    let mut different_rows = None;
    if verdict == TableVerdict::Different {
        for pair in pairs.iter().filter(|pair| bad.contains(&pair.slice)) {
            if let Some(NarrowingOutcome::Rows { count, keys: some, .. }) = pair.narrowing {
                *different_rows.get_or_insert(0) += count;
                keys.extend(some.iter().take(MAX_KEYS.saturating_sub(keys.len())).cloned());
            }
        }
    }
    TableJudgement {
        framed_rows: Some(comparison.framed.rows),
        rows: comparison.restored.rows,
        newer_rows: pairs.iter().filter_map(|pair| pair.restore.newer_rows).sum(),
        proven_rows: comparison.proven_rows(reason),
        residue: comparison.framed.rows.saturating_sub(comparison.restored.rows),
        changed_on_source: window.touched.map(|touched| touched.updated + touched.deleted),
        blocks: ranges(narrowed(bad, pairs)),
        different_rows,
        different_keys: keys,
        ..blank(restored, reason)
    }
}

/// One table on both sides.
struct Comparison<'a> {
    planned: &'a TableFacts,
    here: &'a TableFacts,
    pairs: &'a [Pair<'a>],
    window: &'a Window,
    framed: Digest,
    restored: Digest,
    /// All units of the table speak of the same rows, so that sums over slices may be compared.
    shared: bool,
    /// The table was framed by one statement, so its numbers are those of one moment. Large slices may be read in
    /// pieces, small ones are not.
    at_once: bool,
}

impl<'a> Comparison<'a> {
    fn new(planned: &'a TableFacts, here: &'a TableFacts, pairs: &'a [Pair<'a>], window: &'a Window) -> Self {
        Self {
            planned,
            here,
            pairs,
            window,
            framed: pairs.iter().map(|pair| digest(pair.frame)).sum(),
            restored: pairs.iter().map(|pair| digest(pair.restore)).sum(),
            shared: pairs.windows(2).all(|two| two[0].visibility == two[1].visibility),
            at_once: pairs.len() == 1 && planned.bytes <= READ_AT_ONCE,
        }
    }

    fn slices(&self, which: impl Fn(&Pair<'_>) -> bool) -> Vec<Slice> {
        self.pairs.iter().filter(|pair| which(pair)).map(|pair| pair.slice).collect()
    }

    /// Rewritten between plan and snapshot: then rows are in other blocks. File numbers never come back, so a
    /// table with the planned one on the restore was not rewritten before the snapshot, whatever came after.
    fn rewritten(&self) -> bool {
        self.here.filenode != self.planned.filenode
            && !matches!(self.window.after, After::Present { filenode, .. } if filenode == self.planned.filenode)
    }

    /// Whether the restore's columns are not the planned ones: `Some(true)` when the source's DDL explains it.
    fn redefined(&self) -> Option<bool> {
        (self.here.structure != self.planned.structure).then(|| match &self.window.after {
            After::Present { structure, .. } => {
                *structure != self.planned.structure || self.window.columns_in_motion
            }
            After::Dropped => true,
            After::Unknown => false,
        })
    }

    /// The reason, and the slices to blame.
    fn decide(&self) -> (Reason, Vec<Slice>) {
        let bad = self.slices(|pair| unreadable(pair.frame));
        if !bad.is_empty() {
            return (Reason::UnreadableOnSource, bad);
        }
        let bad = self.slices(|pair| unreadable(pair.restore));
        if !bad.is_empty() {
            return (Reason::UnreadableHere, bad);
        }
        if self.planned.persistence == Persistence::Unlogged || self.here.persistence == Persistence::Unlogged
        {
            return (Reason::Unlogged, Vec::new());
        }
        if self.pairs.iter().any(|pair| pair.restore.outcome == SliceOutcome::Gone) {
            return (Reason::TableMissing, Vec::new());
        }
        if self.pairs.iter().any(|pair| pair.frame.outcome == SliceOutcome::Gone) {
            return (Reason::TableBack, Vec::new());
        }
        if self.redefined() == Some(false) {
            return (Reason::StructureDiffers, Vec::new());
        }
        let differing: Vec<&Pair<'_>> =
            self.pairs.iter().filter(|pair| digest(pair.frame) != digest(pair.restore)).collect();
        if differing.is_empty() || (self.rewritten() && self.shared && self.framed == self.restored) {
            return (Reason::DigestsEqual, Vec::new());
        }
        let (reason, bad) = if self.rewritten() {
            (self.compare_rewritten(), differing.iter().map(|pair| pair.slice).collect())
        } else if self.redefined().is_some() || self.window.types_moved {
            compare_redefined(&differing)
        } else {
            self.compare_slices(&differing)
        };
        if reason.verdict() == TableVerdict::Plausible && self.out_of_bounds() {
            return (Reason::OutOfBounds, Vec::new());
        }
        if reason.verdict() == TableVerdict::Different { (reason, bad) } else { (reason, Vec::new()) }
    }

    /// Blocks mean nothing here; VACUUM FULL and CLUSTER keep rows' transactions, other rewrites and TRUNCATE take
    /// rows out of the filter. A rewrite between two slices of the frame makes their sum count rows twice or not at
    /// all, so numbers of several slices say nothing unless they are equal.
    fn compare_rewritten(&self) -> Reason {
        let redefined = self.redefined().is_some() || self.window.types_moved;
        if !self.at_once {
            Reason::Rewritten
        } else if self.restored.rows > self.framed.rows {
            Reason::MoreRows
        } else if self.restored.rows == self.framed.rows && !redefined {
            Reason::ContentDiffers
        } else if !redefined && self.within_counters() == Some(true) {
            Reason::WithinCounters
        } else {
            Reason::Rewritten
        }
    }

    /// The same blocks, the same columns: slice by slice.
    fn compare_slices(&self, differing: &[&Pair<'_>]) -> (Reason, Vec<Slice>) {
        let blame = |which: fn(&Pair<'_>) -> bool| -> Vec<Slice> {
            differing.iter().filter(|pair| which(pair)).map(|pair| pair.slice).collect()
        };
        let more = blame(|pair| digest(pair.restore).rows > digest(pair.frame).rows);
        let other = blame(|pair| digest(pair.restore).rows == digest(pair.frame).rows);
        let missing = blame(|pair| {
            digest(pair.restore).rows < digest(pair.frame).rows
                && matches!(pair.narrowing, Some(NarrowingOutcome::Rows { .. }))
        });
        // A type that was changed since (an enum's label, say) makes the source's rows look different today.
        let missing = if self.window.types_moved_later { Vec::new() } else { missing };
        let reason = if !other.is_empty() {
            Reason::ContentDiffers
        } else if !more.is_empty() {
            Reason::MoreRows
        } else {
            Reason::RowsMissing
        };
        let mut bad = other;
        bad.extend(more);
        bad.extend(missing);
        if !bad.is_empty() {
            bad.sort_unstable();
            return (reason, bad);
        }
        if differing.iter().all(|pair| followed(pair)) {
            return (Reason::RowsFollowed, Vec::new());
        }
        match self.within_counters() {
            Some(true) => (Reason::WithinCounters, Vec::new()),
            Some(false) => (Reason::RowsMissing, differing.iter().map(|pair| pair.slice).collect()),
            None => (Reason::CountersUnusable, Vec::new()),
        }
    }

    /// Whether no more rows are gone than were updated or deleted; `None` where that cannot be told. Counters that
    /// may be incomplete can excuse, and cannot accuse.
    fn within_counters(&self) -> Option<bool> {
        let touched = self.window.touched?;
        let gone: u64 = if self.rewritten() {
            self.framed.rows.saturating_sub(self.restored.rows)
        } else {
            self.pairs
                .iter()
                .map(|pair| digest(pair.frame).rows.saturating_sub(digest(pair.restore).rows))
                .sum()
        };
        let within = gone <= touched.updated + touched.deleted;
        (within || !self.window.pending).then_some(within)
    }

    /// More or fewer rows altogether than the counters allow. TRUNCATE is not counted as deletion, so a rewritten
    /// table has no lower bound. Slices are framed at different moments: an update in between can move a row so that
    /// it is counted twice or not at all, and a rewrite can do that to all rows.
    fn out_of_bounds(&self) -> bool {
        if self.rewritten() && !self.at_once {
            return false;
        }
        let (Some(touched), false) = (self.window.touched, self.window.pending) else { return false };
        let total = |side: fn(&Pair<'a>) -> &'a SliceResult| -> Option<u64> {
            self.pairs.iter().map(|pair| Some(digest(side(pair)).rows + side(pair).newer_rows?)).sum()
        };
        let (Some(before), Some(here)) = (total(|pair| pair.frame), total(|pair| pair.restore)) else {
            return false;
        };
        let moved = if self.at_once { 0 } else { touched.updated };
        let most = before.saturating_add(touched.inserted).saturating_add(moved);
        let least =
            if self.rewritten() { 0 } else { before.saturating_sub(touched.deleted).saturating_sub(moved) };
        here > most || here < least
    }

    fn proven_rows(&self, reason: Reason) -> u64 {
        match reason {
            Reason::DigestsEqual => self.restored.rows,
            Reason::Unlogged => 0,
            _ if self.rewritten() || reason == Reason::StructureDiffers => 0,
            _ => self
                .pairs
                .iter()
                .filter(|pair| !unreadable(pair.restore) && !unreadable(pair.frame))
                .filter(|pair| {
                    let (frame, here) = (digest(pair.frame), digest(pair.restore));
                    frame == here || (followed(pair) && here.rows < frame.rows)
                })
                .map(|pair| digest(pair.restore).rows)
                .sum(),
        }
    }
}

fn followed(pair: &Pair<'_>) -> bool {
    matches!(pair.narrowing, Some(NarrowingOutcome::Accounted { .. }))
}

/// The columns or a type changed: digests mean nothing, unless the source was asked row by row; numbers do.
fn compare_redefined(differing: &[&Pair<'_>]) -> (Reason, Vec<Slice>) {
    let more: Vec<Slice> = differing
        .iter()
        .filter(|pair| digest(pair.restore).rows > digest(pair.frame).rows)
        .map(|pair| pair.slice)
        .collect();
    if !more.is_empty() {
        (Reason::MoreRows, more)
    } else if differing.iter().all(|pair| followed(pair)) {
        (Reason::RowsFollowed, Vec::new())
    } else {
        (Reason::Redefined, Vec::new())
    }
}

/// Slices as ranges, neighbours joined.
/// The slices, or the blocks of their differing rows where these were followed down.
fn narrowed(bad: Vec<Slice>, pairs: &[Pair<'_>]) -> Vec<Slice> {
    let followed = |slice: &Slice| {
        pairs.iter().find(|pair| pair.slice == *slice).and_then(|pair| match pair.narrowing {
            Some(NarrowingOutcome::Rows { blocks, .. }) if !blocks.is_empty() => Some(blocks),
            _ => None,
        })
    };
    bad.into_iter()
        .flat_map(|slice| match followed(&slice) {
            Some(blocks) => blocks
                .iter()
                .map(|block| Slice { first_block: *block, end_block: Some(block.saturating_add(1)), ..slice })
                .collect(),
            None => vec![slice],
        })
        .collect()
}

pub(super) fn ranges(mut slices: Vec<Slice>) -> Vec<BlockRange> {
    slices.sort_unstable();
    let mut ranges: Vec<BlockRange> = Vec::new();
    for slice in slices {
        match ranges.last_mut() {
            Some(last) if last.end == Some(slice.first_block) => last.end = slice.end_block,
            _ => ranges.push(BlockRange { first: slice.first_block, end: slice.end_block }),
        }
    }
    ranges.truncate(MAX_RANGES);
    ranges
}
