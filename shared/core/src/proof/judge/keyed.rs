//! The verdict on a table that is cut by keys (MySQL and MariaDB).
//!
//! Nothing tells which rows were there before the frame, so a slice is compared as a whole with the source before the
//! snapshot and, where it may have been written to, with the source after it. A slice that is as it was at one of
//! these moments is proven byte for byte. One that was changed in between and is at neither is bounded in number
//! only. One that was the same before and after, and is not on the restore, is damage, but for rows that came and
//! went.
//!
//! What it cannot see: damage in a slice whose rows were changed in between, as long as the number of rows stays
//! possible; and it takes a value that was changed and changed back around the snapshot for damage, because the same
//! cannot be told from a wrong page.

use super::evidence::{After, KeyedWindow, Pair, Window};
use super::table::{blank, digest, ranges, unreadable};
use crate::proof::digest::Digest;
use crate::proof::frame::{Persistence, Slice, SliceOutcome, TableFacts};
use crate::proof::judgement::{Reason, TableJudgement, TableVerdict};
use crate::proof::keyed::Written;

/// Judges a keyed table that frame and restore have.
pub(super) fn judge(
    planned: &TableFacts,
    here: &TableFacts,
    pairs: &[Pair<'_>],
    window: &Window,
) -> TableJudgement {
    let keyed = window.keyed.unwrap_or_default();
    let (reason, bad) = decide(planned, here, pairs, window, keyed);
    let framed: Digest = pairs.iter().map(|pair| digest(pair.frame)).sum();
    let restored: Digest = pairs.iter().map(|pair| digest(pair.restore)).sum();
    let comparable = !matches!(reason, Reason::Unlogged | Reason::StructureDiffers);
    let proven = pairs.iter().filter(|pair| comparable && compare(pair).is_proven());
    TableJudgement {
        framed_rows: Some(framed.rows),
        rows: restored.rows,
        proven_rows: proven.map(|pair| digest(pair.restore).rows).sum(),
        residue: pairs
            .iter()
            .map(|pair| digest(pair.frame).rows.saturating_sub(digest(pair.restore).rows))
            .sum(),
        changed_on_source: keyed.own.or(keyed.server).map(|written| written.updated + written.deleted),
        blocks: ranges(bad),
        ..blank(here, reason)
    }
}

/// A slice of the restore beside the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compared {
    /// As before, and not seen otherwise after.
    Same,
    /// As before or as after, which differ.
    AsBeforeOrAfter,
    /// Not as before, and nobody looked after.
    NotAsBefore,
    /// The same before and after, and other here.
    OtherThanBoth,
    /// Other before, after and here.
    Between,
}

impl Compared {
    fn is_proven(self) -> bool {
        matches!(self, Self::Same | Self::AsBeforeOrAfter)
    }
}

fn read(outcome: &SliceOutcome) -> Option<Digest> {
    match outcome {
        SliceOutcome::Digested(digest) => Some(*digest),
        SliceOutcome::Unreadable { .. } | SliceOutcome::Gone => None,
    }
}

fn compare(pair: &Pair<'_>) -> Compared {
    let (before, here) = (read(&pair.frame.outcome), read(&pair.restore.outcome));
    let after = pair.again.and_then(|again| read(&again.outcome));
    match after {
        None if before.is_some() && here == before => Compared::Same,
        None => Compared::NotAsBefore,
        Some(_) if here.is_none() => Compared::NotAsBefore,
        Some(after) if before == Some(after) && here == before => Compared::Same,
        Some(after) if here == before || here == Some(after) => Compared::AsBeforeOrAfter,
        Some(after) if before == Some(after) => Compared::OtherThanBoth,
        Some(_) => Compared::Between,
    }
}

fn decide(
    planned: &TableFacts,
    here: &TableFacts,
    pairs: &[Pair<'_>],
    window: &Window,
    keyed: KeyedWindow,
) -> (Reason, Vec<Slice>) {
    let slices = |which: &dyn Fn(&Pair<'_>) -> bool| -> Vec<Slice> {
        pairs.iter().filter(|pair| which(pair)).map(|pair| pair.slice).collect()
    };
    let bad = slices(&|pair| unreadable(pair.frame));
    if !bad.is_empty() {
        return (Reason::UnreadableOnSource, bad);
    }
    let bad = slices(&|pair| unreadable(pair.restore));
    if !bad.is_empty() {
        return (Reason::UnreadableHere, bad);
    }
    if [planned, here].iter().any(|table| table.persistence == Persistence::Unlogged) {
        return (Reason::Unlogged, Vec::new());
    }
    if pairs.iter().any(|pair| pair.restore.outcome == SliceOutcome::Gone) {
        return (Reason::TableMissing, Vec::new());
    }
    let redefined = here.structure != planned.structure;
    if redefined && !is_explained(planned, window) {
        return (Reason::StructureDiffers, Vec::new());
    }
    let compared: Vec<(Compared, &Pair<'_>)> = pairs.iter().map(|pair| (compare(pair), pair)).collect();
    if compared.iter().all(|(compared, _)| *compared == Compared::Same) {
        return (Reason::DigestsEqual, Vec::new());
    }
    if compared.iter().all(|(compared, _)| compared.is_proven()) {
        return (Reason::BeforeOrAfter, Vec::new());
    }
    // The columns are other ones, or the table was dropped and made anew before the frame came to read it.
    if redefined || pairs.iter().any(|pair| pair.frame.outcome == SliceOutcome::Gone) {
        return (Reason::Redefined, Vec::new());
    }
    let transactional = planned.keyed.as_ref().is_some_and(|facts| facts.transactional);
    if !transactional && !keyed.quiet && window.after != After::Unknown {
        return (Reason::NotTransactional, Vec::new());
    }
    let verdicts: Vec<(Reason, Slice)> = compared
        .iter()
        .filter(|(compared, _)| !compared.is_proven())
        .map(|(compared, pair)| (judge_slice(*compared, pair, window, keyed), pair.slice))
        .collect();
    let bad: Vec<(Reason, Slice)> =
        verdicts.iter().copied().filter(|(reason, _)| reason.verdict() == TableVerdict::Different).collect();
    match (bad.first(), verdicts.first()) {
        (Some((reason, _)), _) => (*reason, bad.iter().map(|(_, slice)| *slice).collect()),
        (None, Some((reason, _))) => (*reason, Vec::new()),
        (None, None) => (Reason::DigestsEqual, Vec::new()),
    }
}

/// Whether the source's DDL explains that the restore's columns are not the planned ones.
fn is_explained(planned: &TableFacts, window: &Window) -> bool {
    match &window.after {
        After::Present { structure, .. } => *structure != planned.structure || window.columns_in_motion,
        After::Dropped => true,
        After::Unknown => false,
    }
}

/// A slice that is not as it was before or after.
fn judge_slice(compared: Compared, pair: &Pair<'_>, window: &Window, keyed: KeyedWindow) -> Reason {
    let (before, here) = (digest(pair.frame), digest(pair.restore));
    let damage = match here.rows.cmp(&before.rows) {
        std::cmp::Ordering::Greater => Reason::MoreRows,
        std::cmp::Ordering::Equal => Reason::ContentDiffers,
        std::cmp::Ordering::Less => Reason::RowsMissing,
    };
    match compared {
        Compared::Same | Compared::AsBeforeOrAfter => Reason::DigestsEqual,
        // Nobody wrote, and it is another.
        _ if keyed.quiet => damage,
        Compared::NotAsBefore => match window.after {
            After::Unknown => Reason::CountersUnusable,
            // Dropped since: what it was when it was dropped cannot be asked.
            After::Dropped | After::Present { .. } => Reason::BetweenFrames,
        },
        Compared::OtherThanBoth => {
            // More rows than before and after are no sign of damage where rows come and go, as in a queue; as many
            // or fewer are, because damage does just that.
            let extra = here.rows.saturating_sub(before.rows);
            let turned_over = keyed
                .own
                .or(keyed.server)
                .is_some_and(|written| extra <= written.inserted && extra <= written.deleted);
            if extra > 0 && turned_over { Reason::CameAndWent } else { damage }
        }
        Compared::Between => {
            let after = pair.again.map_or(before, digest);
            match keyed.own.or(keyed.server) {
                Some(written) if !keyed.rebuilt && !possible(before, here, after, written) => {
                    Reason::OutOfBounds
                }
                _ => Reason::BetweenFrames,
            }
        }
    }
}

/// Whether insertions and deletions lead from the number of rows before to that here, and on to that after.
fn possible(before: Digest, here: Digest, after: Digest, written: Written) -> bool {
    let step = |from: Digest, to: Digest| {
        to.rows.saturating_sub(from.rows) <= written.inserted + written.updated
            && from.rows.saturating_sub(to.rows) <= written.deleted + written.updated
    };
    step(before, here) && step(here, after)
}
