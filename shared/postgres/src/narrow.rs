//! Following a difference down to rows, with the help of the source.
//!
//! A row that the source has below the horizon *now* has not been touched since the frame, so it must be on the
//! restore at the same place (a physical copy keeps `ctid`) with the same bytes. Rows that only the restore has
//! below the horizon were touched on the source since; they cannot be compared, with one exception: one whose primary
//! key the source still has in an untouched row elsewhere must not be there at all.
//!
//! Bounded: sub-ranges of blocks are compared by digest first, and rows are fetched only of those that differ, no
//! more of them than the caller allows.

use dr_database::pool::Connection as _;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use dr_core::proof::Digest;
use dr_core::proof::examination::{Narrowing, NarrowingOutcome, RowDifference, RowDifferenceKind};
use dr_core::proof::frame::{Slice, TableFacts, Visibility};
use dr_core::proof::visibility::Horizon;
use dr_core::{DrError, ErrorName, Result};

use crate::digest::{LiveTable, MIXED, covered, digest_at, live_tables, within};
use crate::error::{ServerSaid, is_passing};
use crate::session::Session;
use crate::text::{identifier, literal, unexpected};
use dr_database::Access;
use dr_database::ConnectionSettings;

/// Blocks in one sub-range, 64 KiB: few enough that a busy table's scattered changes do not have all of its rows
/// fetched (with 128 blocks, narrowing 160 MB under load took ten times as long as digesting it).
const STEP: u32 = 8;
/// Rows that are named.
const NAMED: usize = 20;
/// Blocks that are told.
const PLACED: usize = 1_000;
/// Rows of the restore alone whose keys are looked up on the source.
const LOOKED_UP: usize = 200;

/// A slice that differs.
#[derive(Debug, Clone)]
pub struct Difference<'d> {
    /// Index of the table in the examination's plan.
    pub table: usize,
    /// The frame's facts of the table.
    pub framed: &'d TableFacts,
    /// The examination's.
    pub restored: &'d TableFacts,
    /// The slice; its `table` is not used.
    pub slice: Slice,
    /// What both digests speak of.
    pub visibility: &'d Visibility,
    /// The frame's digest.
    pub frame_digest: Digest,
    /// How many sub-ranges of 64 KiB may be fetched row by row.
    pub budget: u32,
}

/// One side: a session and the table on it.
struct Side<'s> {
    session: Session,
    table: LiveTable,
    facts: &'s TableFacts,
    horizon: Horizon,
}

/// A row's hashes and its key as text, column by column (NULL where a value is NULL).
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    hash: (String, String),
    key: Vec<Option<String>>,
}

/// Rows by block and line.
type Rows = BTreeMap<(u32, u32), Row>;

/// Follows one difference. The settings may name any database of the servers.
///
/// # Errors
/// Of the connections; an unreadable place is no error but rows that are missing.
pub async fn narrow(
    source: &ConnectionSettings,
    restore: &ConnectionSettings,
    difference: &Difference<'_>,
) -> Result<Narrowing> {
    let slice = Slice { table: difference.table, ..difference.slice };
    let mut incarnation = None;
    let outcome = match follow(source, restore, difference, &mut incarnation).await {
        Ok(outcome) => outcome,
        Err(Stop::Unavailable(reason)) => NarrowingOutcome::SourceUnavailable { reason },
        // Columns that were renamed or dropped between looking and reading.
        Err(Stop::Failed(error)) if error.name() == ErrorName::QueryFailed => {
            NarrowingOutcome::SourceUnavailable {
                reason: format!("the table was changed meanwhile: {}", error.what()),
            }
        }
        Err(Stop::Failed(error)) if error.name() == ErrorName::ConnectionLost => {
            // Damage can take a server down, and would again at the next attempt.
            if !has_crashed(restore, incarnation.as_deref()).await {
                return Err(error);
            }
            NarrowingOutcome::SourceUnavailable { reason: "the restore crashed while it was read".to_owned() }
        }
        Err(Stop::Failed(error)) => return Err(error),
    };
    Ok(Narrowing { table: difference.table, slice, outcome })
}

/// Whether the server came back as another than it was; `false` also when it does not come back soon.
async fn has_crashed(restore: &ConnectionSettings, before: Option<&str>) -> bool {
    for _ in 0..40 {
        match Session::open(restore, Access::ReadOnly).await {
            Ok(session) => return before.is_some_and(|before| before != session.incarnation()),
            Err(error) if is_passing(&error) => tokio::time::sleep(Duration::from_millis(500)).await,
            Err(_) => return false,
        }
    }
    false
}

enum Stop {
    Unavailable(String),
    Failed(DrError),
}

impl From<DrError> for Stop {
    fn from(error: DrError) -> Self {
        Self::Failed(error)
    }
}

async fn follow(
    source: &ConnectionSettings,
    restore: &ConnectionSettings,
    difference: &Difference<'_>,
    incarnation: &mut Option<String>,
) -> std::result::Result<NarrowingOutcome, Stop> {
    let horizon = difference.visibility.horizon().ok_or_else(|| {
        DrError::new(
            ErrorName::MetadataDamaged,
            format!("narrowing {}: malformed visibility", difference.framed.name),
        )
    })?;
    let database = &difference.framed.name.database;
    let open = async |settings: &ConnectionSettings| {
        Session::open(&settings.for_database(database), Access::ReadOnly).await
    };
    // Both servers are asked at once, here and below: they are two machines, each with its own disks.
    let (here, there) = tokio::join!(open(restore), open(source));
    let here = here?;
    *incarnation = Some(here.incarnation().to_owned());
    let (here, there) = tokio::try_join!(
        Side::new(here, difference.restored, horizon),
        Side::new(there?, difference.framed, horizon)
    )?;
    let there = there.ok_or_else(|| Stop::Unavailable("the table was dropped on the source".to_owned()))?;
    check_unchanged(&there, difference.framed)?;
    let here = here.ok_or_else(|| Stop::Unavailable("the table is gone from the restore".to_owned()))?;
    if here.table.row(&difference.framed.columns) != there.table.row(&difference.framed.columns) {
        return Err(Stop::Unavailable("the table's columns were changed".to_owned()));
    }
    let found = compare(&there, &here, difference).await?;
    // A rewrite while we looked would have moved rows about.
    let again = live_tables(&there.session, &[difference.framed.oid]).await?.remove(&difference.framed.oid);
    match again {
        Some(table) if table.filenode == there.table.filenode => Ok(found),
        _ => Err(Stop::Unavailable("the table was rewritten on the source".to_owned())),
    }
}

fn check_unchanged(there: &Side<'_>, framed: &TableFacts) -> std::result::Result<(), Stop> {
    if there.table.filenode == framed.filenode {
        Ok(())
    } else {
        Err(Stop::Unavailable("the table was rewritten on the source".to_owned()))
    }
}

async fn compare(
    there: &Side<'_>,
    here: &Side<'_>,
    difference: &Difference<'_>,
) -> std::result::Result<NarrowingOutcome, Stop> {
    let slice = difference.slice;
    let (source_parts, restore_parts) = tokio::try_join!(
        there.parts(slice.first_block, slice.end_block),
        here.parts(slice.first_block, slice.end_block)
    )?;
    let Read::All(source_parts) = source_parts else {
        return Err(Stop::Unavailable("the source cannot be read there".to_owned()));
    };
    let restore_parts = match restore_parts {
        Read::All(parts) => parts,
        // Something is unreadable: every part has to be looked at by itself.
        Read::Damaged => here.parts_one_by_one(&slice).await?,
    };
    let numbers: BTreeSet<u32> = source_parts.keys().chain(restore_parts.keys()).copied().collect();
    let mut findings = Findings::default();
    let mut left = difference.budget;
    let mut beyond = 0u32;
    let mut restored = Digest::EMPTY;
    for number in numbers {
        let (expected, found) = (source_parts.get(&number), restore_parts.get(&number));
        restored += found.copied().flatten().unwrap_or(Digest::EMPTY);
        let expected = expected.copied().flatten().unwrap_or(Digest::EMPTY);
        if found.copied().unwrap_or(Some(Digest::EMPTY)) == Some(expected) {
            findings.compared += expected.rows;
            continue;
        }
        if left == 0 {
            beyond += 1;
            continue;
        }
        left -= 1;
        let first = number * STEP;
        let first_here = first.max(slice.first_block);
        let end = slice.end_block.map_or(first + STEP, |end| end.min(first + STEP));
        let (untouched, found) = tokio::try_join!(there.rows(first_here, end), here.rows(first_here, end))?;
        let Read::All(untouched) = untouched else {
            return Err(Stop::Unavailable("the source cannot be read there".to_owned()));
        };
        let found = match found {
            Read::All(rows) => rows,
            Read::Damaged => here.rows_block_by_block(first_here, end).await?,
        };
        findings.add(untouched, found, &there.facts.primary_key);
    }
    findings.look_up(there).await?;
    // More rows below the horizon than the frame saw: such rows cannot come to be.
    let surplus = if beyond == 0 { restored.rows.saturating_sub(difference.frame_digest.rows) } else { 0 };
    Ok(findings.outcome(surplus, beyond, &there.facts.primary_key))
}

/// What was read, unless the place is damaged.
enum Read<T> {
    All(T),
    Damaged,
}

impl<'s> Side<'s> {
    /// `None` when the table is not there.
    async fn new(session: Session, facts: &'s TableFacts, horizon: Horizon) -> Result<Option<Self>> {
        let table = live_tables(&session, &[facts.oid]).await?.remove(&facts.oid);
        Ok(table.map(|table| Self { session, table, facts, horizon }))
    }

    /// The digests of sub-ranges of [`STEP`] blocks, by number; empty ones are absent.
    async fn parts(&self, first: u32, end: Option<u32>) -> Result<Read<BTreeMap<u32, Option<Digest>>>> {
        let sql = format!(
            "SELECT p, count(*), sum({}), sum({}) \
             FROM (SELECT ((t.ctid::text::point)[0])::bigint / {STEP} AS p, {} AS r FROM ONLY {} t \
               WHERE {} AND {} OFFSET 0) s GROUP BY p",
            MIXED[0],
            MIXED[1],
            self.table.row(&self.facts.columns),
            self.table.qualified(),
            within(first, end),
            covered(Some(self.horizon))
        );
        let Read::All(rows) = self.query(&sql).await? else { return Ok(Read::Damaged) };
        let parts =
            rows.iter().map(|row| Ok((row.parse(0)?, Some(digest_at(row, 1)?)))).collect::<Result<_>>()?;
        Ok(Read::All(parts))
    }

    /// The same, where damage is somewhere: `None` for a sub-range that cannot be read.
    async fn parts_one_by_one(&self, slice: &Slice) -> Result<BTreeMap<u32, Option<Digest>>> {
        let stop = slice.end_block.unwrap_or_else(|| self.table.blocks.max(slice.first_block + 1));
        let mut parts = BTreeMap::new();
        let mut first = slice.first_block;
        while first < stop {
            let end = ((first / STEP + 1) * STEP).min(stop);
            match self.parts(first, Some(end)).await? {
                Read::All(part) => parts.extend(part),
                Read::Damaged => drop(parts.insert(first / STEP, None)),
            }
            first = end;
        }
        Ok(parts)
    }

    /// Rows below the horizon in a range of blocks; only their hashes and keys come over.
    async fn rows(&self, first: u32, end: u32) -> Result<Read<Rows>> {
        let (mut keys, mut outer) = (String::new(), String::new());
        for (at, column) in self.facts.primary_key.iter().enumerate() {
            let _ = write!(keys, ", t.{}::text AS k{at}", identifier(column));
            let _ = write!(outer, ", s.k{at}");
        }
        let sql = format!(
            "SELECT s.c, {}, {}{outer} \
             FROM (SELECT t.ctid AS c, {} AS r{keys} FROM ONLY {} t WHERE {} AND {} OFFSET 0) s",
            MIXED[0],
            MIXED[1],
            self.table.row(&self.facts.columns),
            self.table.qualified(),
            within(first, Some(end)),
            covered(Some(self.horizon))
        );
        let Read::All(rows) = self.query(&sql).await? else { return Ok(Read::Damaged) };
        let mut found = Rows::new();
        for row in rows {
            let hash = (row.text(1)?.to_owned(), row.text(2)?.to_owned());
            let keys = self.facts.primary_key.len();
            let key = (0..keys).map(|at| row.optional(3 + at).map(str::to_owned)).collect();
            found.insert(place(row.text(0)?)?, Row { hash, key });
        }
        Ok(Read::All(found))
    }

    /// Rows of those blocks that can be read.
    async fn rows_block_by_block(&self, first: u32, end: u32) -> Result<Rows> {
        let mut found = Rows::new();
        for block in first..end {
            if let Read::All(rows) = self.rows(block, block + 1).await? {
                found.extend(rows);
            }
        }
        Ok(found)
    }

    async fn query(&self, sql: &str) -> Result<Read<Vec<crate::text::TextRow>>> {
        match self.session.try_rows(sql).await {
            Ok(rows) => Ok(Read::All(rows)),
            Err(error) => {
                let said = error.as_db_error().map(ServerSaid::of);
                let fault = self.session.fault(&format!("narrowing {}", self.facts.name), error);
                match said {
                    Some(said) if !is_passing(&fault) && !said.sqlstate.starts_with("42") => {
                        Ok(Read::Damaged)
                    }
                    _ => Err(fault),
                }
            }
        }
    }
}

/// Block and line from a `ctid`'s text.
fn place(text: &str) -> Result<(u32, u32)> {
    let (block, line) = text.trim_matches(['(', ')']).split_once(',').unwrap_or_default();
    match (block.parse(), line.parse()) {
        (Ok(block), Ok(line)) => Ok((block, line)),
        _ => Err(unexpected("a ctid")),
    }
}

/// What was found so far.
#[derive(Default)]
struct Findings {
    compared: u64,
    count: u64,
    named: Vec<RowDifference>,
    /// Where the differing rows are.
    blocks: BTreeSet<u32>,
    /// Rows that only the restore has below the horizon: the first [`LOOKED_UP`], and how many in all.
    alone: Vec<((u32, u32), Row)>,
    alone_count: u64,
}

impl Findings {
    /// Compares the untouched rows of the source with the restore's, in one range.
    fn add(&mut self, untouched: Rows, mut found: Rows, columns: &[String]) {
        for (place, row) in untouched {
            match found.remove(&place) {
                Some(same) if same.hash == row.hash => self.compared += 1,
                Some(_) => self.name(place, &row, columns, RowDifferenceKind::Changed),
                None => self.name(place, &row, columns, RowDifferenceKind::Missing),
            }
        }
        self.alone_count += u64::try_from(found.len()).unwrap_or(u64::MAX);
        let room = LOOKED_UP.saturating_sub(self.alone.len());
        self.alone.extend(found.into_iter().take(room));
    }

    fn name(&mut self, place: (u32, u32), row: &Row, columns: &[String], kind: RowDifferenceKind) {
        self.count += 1;
        if self.blocks.len() < PLACED {
            self.blocks.insert(place.0);
        }
        if self.named.len() < NAMED {
            self.named.push(RowDifference { key: key_text(place, row, columns), kind });
        }
    }

    /// Rows of the restore alone whose key the source has in an untouched row must not be there.
    async fn look_up(&mut self, there: &Side<'_>) -> Result<()> {
        let columns = &there.facts.primary_key;
        let conditions: Vec<String> =
            self.alone.iter().filter_map(|(_, row)| key_condition(columns, &row.key)).collect();
        if conditions.is_empty() {
            return Ok(());
        }
        let list: Vec<String> =
            columns.iter().map(|column| format!("t.{}::text", identifier(column))).collect();
        let sql = format!(
            "SELECT {} FROM ONLY {} t WHERE ({}) AND {}",
            list.join(", "),
            there.table.qualified(),
            conditions.join(" OR "),
            covered(Some(there.horizon))
        );
        let Read::All(rows) = there.query(&sql).await? else { return Ok(()) };
        let untouched: BTreeSet<Vec<Option<String>>> = rows
            .iter()
            .map(|row| (0..columns.len()).map(|at| row.optional(at).map(str::to_owned)).collect())
            .collect();
        let (twice, alone): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.alone).into_iter().partition(|(_, row)| untouched.contains(&row.key));
        self.alone = alone;
        self.alone_count -= u64::try_from(twice.len()).unwrap_or(0);
        for (place, row) in twice {
            self.name(place, &row, columns, RowDifferenceKind::Unexpected);
        }
        Ok(())
    }

    /// `surplus`: rows more than the frame saw. `beyond`: sub-ranges that the budget did not reach.
    fn outcome(mut self, surplus: u64, beyond: u32, columns: &[String]) -> NarrowingOutcome {
        let known = self.named.iter().filter(|row| row.kind == RowDifferenceKind::Unexpected).count();
        let unnamed = surplus.saturating_sub(u64::try_from(known).unwrap_or(u64::MAX));
        if unnamed > 0 && unnamed == self.alone_count {
            for (place, row) in std::mem::take(&mut self.alone) {
                self.name(place, &row, columns, RowDifferenceKind::Unexpected);
            }
        } else {
            self.count += unnamed;
        }
        if self.count > 0 {
            NarrowingOutcome::Rows {
                count: self.count,
                keys: self.named,
                blocks: self.blocks.into_iter().collect(),
            }
        } else if beyond > 0 {
            let reason = format!("{beyond} ranges of {STEP} blocks were left out to bound the effort");
            NarrowingOutcome::SourceUnavailable { reason }
        } else {
            NarrowingOutcome::Accounted { compared: self.compared }
        }
    }
}

/// SQL: the row of `t` with this key; `None` for a table without one.
fn key_condition(columns: &[String], key: &[Option<String>]) -> Option<String> {
    let parts = columns
        .iter()
        .zip(key)
        .map(|(column, value)| Some(format!("t.{} = {}", identifier(column), literal(value.as_deref()?))))
        .collect::<Option<Vec<_>>>()?;
    (!parts.is_empty()).then(|| format!("({})", parts.join(" AND ")))
}

/// The key as people read it, and the place.
fn key_text((block, line): (u32, u32), row: &Row, columns: &[String]) -> String {
    let parts: Vec<String> = columns
        .iter()
        .zip(&row.key)
        .map(|(column, value)| format!("{column}={}", value.as_deref().unwrap_or("NULL")))
        .collect();
    if parts.is_empty() {
        format!("({block},{line})")
    } else {
        format!("{} at ({block},{line})", parts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
    use super::*;

    fn row(hash: &str, key: &str) -> Row {
        Row { hash: (hash.into(), hash.into()), key: vec![Some(key.into())] }
    }

    fn columns() -> Vec<String> {
        vec!["id".to_owned()]
    }

    #[test]
    fn names_missing_and_changed_rows_and_counts_the_same_ones() {
        let untouched =
            Rows::from([((0, 1), row("a", "1")), ((0, 2), row("b", "2")), ((0, 3), row("c", "3"))]);
        let found = Rows::from([((0, 1), row("a", "1")), ((0, 2), row("x", "2")), ((0, 9), row("y", "9"))]);
        let mut findings = Findings::default();
        findings.add(untouched, found, &columns());
        assert_eq!((findings.compared, findings.count, findings.alone_count), (1, 2, 1));
        let NarrowingOutcome::Rows { count, keys, blocks } = findings.outcome(0, 0, &columns()) else {
            panic!()
        };
        assert_eq!((count, blocks), (2, vec![0]));
        assert_eq!(keys[0], RowDifference { key: "id=2 at (0,2)".into(), kind: RowDifferenceKind::Changed });
        assert_eq!(keys[1], RowDifference { key: "id=3 at (0,3)".into(), kind: RowDifferenceKind::Missing });
    }

    #[test]
    fn rows_beyond_what_the_frame_saw_are_unexpected_even_where_none_can_be_named() {
        let outcome = |alone: usize, surplus| {
            let mut findings = Findings::default();
            let found = (1..=alone).map(|line| ((0, u32::try_from(line).unwrap()), row("x", "1"))).collect();
            findings.add(Rows::new(), found, &columns());
            findings.outcome(surplus, 0, &columns())
        };
        assert_eq!(outcome(3, 0), NarrowingOutcome::Accounted { compared: 0 });
        assert!(matches!(outcome(2, 2), NarrowingOutcome::Rows { count: 2, keys, .. } if keys.len() == 2));
        assert!(matches!(outcome(3, 2), NarrowingOutcome::Rows { count: 2, keys, .. } if keys.is_empty()));
    }

    #[test]
    fn what_the_budget_left_out_is_not_accounted_for() {
        assert!(matches!(
            Findings::default().outcome(0, 1, &columns()),
            NarrowingOutcome::SourceUnavailable { .. }
        ));
    }
}
