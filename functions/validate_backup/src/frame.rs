//! Framing the source: plan, units, heartbeat; one call does as much as its time allows.
//!
//! The heartbeat is written after the last unit: whatever a digest speaks of is then in the write-ahead log before
//! it, so a restore that shows the beat has reached all of it.

use std::collections::BTreeSet;

use dr_core::Result;
use dr_core::proof::cut;
use dr_core::proof::frame::{FramePlan, Heartbeat, Slice, SliceOutcome, TableFacts, Unit, UnitResult};
use dr_core::request::ValidationOptions;
use dr_database::{Limits, Pace};
use dr_postgres::Source;

use crate::engine;
use crate::request::{FrameSummary, Progress, Stage};
use crate::store::{Records, Store, numbered};

/// The record of the plan.
pub const PLAN: &str = "frame/plan.json";
/// The folder of the units' records.
pub const UNITS: &str = "frame/units";
/// The record of the heartbeat; the last one to be written.
pub const HEARTBEAT: &str = "frame/heartbeat.json";

/// Goes on with the frame of this operation.
///
/// # Errors
/// Of the connection, the queries or the storage. What was finished is stored.
pub async fn advance<S: Store>(
    records: &Records<'_, S>,
    source: &Source<'_>,
    validation: &ValidationOptions,
    unit_bytes: u64,
    limits: Limits,
) -> Result<Stage> {
    let plan: FramePlan = if let Some(plan) = records.read(PLAN).await? {
        plan
    } else {
        // The first beat shows that beats can be written before hours are spent, and creates the table, if need
        // be, before the counters are read: our own DDL must not look like the source's.
        engine::beat(source.writer.unwrap_or(source.reader), records.operation()).await?;
        let pace = pace(validation);
        let plan = engine::plan_frame(source, records.operation(), unit_bytes, pace.as_ref()).await?;
        records.write(PLAN, &plan).await?;
        plan
    };
    let done = read_rest(records, source, &plan, validation, limits).await?;
    let progress = progress(&plan.units, &plan.tables, &done);
    if done.len() < plan.units.len() {
        return Ok(Stage::Pending { check_again_in_seconds: 1, progress });
    }
    if records.read::<Heartbeat>(HEARTBEAT).await?.is_none() {
        let writer = source.writer.unwrap_or(source.reader);
        let beat = engine::beat(writer, records.operation()).await?;
        records.write(HEARTBEAT, &beat).await?;
    }
    let frame = Some(summary(records, &plan).await?);
    Ok(Stage::Done { frame, progress })
}

/// Reads the units that are not stored yet, and answers which are.
async fn read_rest<S: Store>(
    records: &Records<'_, S>,
    source: &Source<'_>,
    plan: &FramePlan,
    validation: &ValidationOptions,
    limits: Limits,
) -> Result<BTreeSet<u32>> {
    let done: BTreeSet<u32> = records.numbers(UNITS).await?.into_iter().collect();
    if plan.units.iter().all(|unit| done.contains(&unit.id)) {
        return Ok(done);
    }
    let rest = plan.units.iter().filter(|unit| !done.contains(&unit.id)).cloned().collect();
    let pace = pace(validation);
    engine::read_source(
        source.reader,
        &plan.tables,
        rest,
        limits,
        pace.as_ref(),
        |result: UnitResult| async move { records.write(&numbered(UNITS, result.unit), &result).await },
    )
    .await?;
    Ok(records.numbers(UNITS).await?.into_iter().collect())
}

/// How fast the source may be read.
pub(crate) fn pace(validation: &ValidationOptions) -> Option<Pace> {
    validation.max_read_mebibytes_per_second.map(Pace::mebibytes_per_second)
}

async fn summary<S: Store>(records: &Records<'_, S>, plan: &FramePlan) -> Result<FrameSummary> {
    let units: Vec<UnitResult> = records.all(UNITS).await?;
    let rows = units
        .iter()
        .flat_map(|unit| &unit.slices)
        .map(|slice| match &slice.outcome {
            SliceOutcome::Digested(digest) => digest.rows,
            SliceOutcome::Unreadable { .. } | SliceOutcome::Gone => 0,
        })
        .sum();
    Ok(FrameSummary {
        tables: plan.tables.len() as u64,
        rows,
        bytes: plan.tables.iter().map(|table| table.bytes).sum(),
        units: units.len() as u64,
        snapshot_xid: units.first().map_or_else(String::new, |unit| unit.visibility.snapshot.clone()),
    })
}

/// How many units are done, and about how many bytes they stand for.
pub fn progress(units: &[Unit], tables: &[TableFacts], done: &BTreeSet<u32>) -> Progress {
    let cost = |slice: &Slice| {
        tables.get(slice.table).map_or(0, |table| {
            let end = slice.end_block.unwrap_or(table.blocks);
            cut::cost(table, end.saturating_sub(slice.first_block))
        })
    };
    Progress::of(units.iter().map(|unit| (done.contains(&unit.id), unit.slices.iter().map(cost).sum())))
}
