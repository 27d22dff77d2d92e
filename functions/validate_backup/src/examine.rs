//! Examining a restore: plan, units, checks, catalogue, and differences followed down; one call does as much as its
//! time allows.

use std::collections::{BTreeMap, BTreeSet};

use dr_core::proof::Digest;
use dr_core::proof::examination::{
    CatalogueFindings, CheckResult, ExaminationPlan, Narrowing, NarrowingOutcome,
};
use dr_core::proof::frame::{Frame, FramePlan, Heartbeat, Slice, SliceOutcome, SliceResult, UnitResult};
use dr_core::request::ValidationOptions;
use dr_core::{DrError, ErrorName, Result};
use dr_database::{ConnectionSettings, Limits, Wishes};
use dr_postgres::narrow::{Difference, narrow};
use tokio::time::Instant;

use crate::engine;
use crate::frame;
use crate::request::{Progress, Stage};
use crate::store::{Records, Store, numbered};

/// The record of the plan.
pub const PLAN: &str = "examination/plan.json";
/// The folder of the units' records.
pub const UNITS: &str = "examination/units";
/// The folder of the checks' records.
pub const CHECKS: &str = "examination/checks";
/// The record of what the catalogue says.
pub const CATALOGUE: &str = "examination/catalogue.json";
/// The folder of the differences that were followed down.
pub const NARROWING: &str = "examination/narrowing";
/// Differences that are followed down; the others stay numbers.
const MOST_NARROWINGS: usize = 200;
/// Sub-ranges (of 64 KiB) of all differences together that may be fetched row by row: 400 MiB.
const NARROWING_BUDGET: u32 = 6_400;

/// The frame's records, without what is large.
#[derive(Debug, Clone)]
pub struct FrameHead {
    /// The plan.
    pub plan: FramePlan,
    /// The beat.
    pub heartbeat: Heartbeat,
}

/// Reads the frame's plan and its beat.
///
/// # Errors
/// `FrameMissing` when the frame is absent or was never finished.
pub async fn frame_head<S: Store>(records: &Records<'_, S>) -> Result<FrameHead> {
    Ok(FrameHead {
        plan: records.expect(frame::PLAN, ErrorName::FrameMissing).await?,
        heartbeat: records.expect(frame::HEARTBEAT, ErrorName::FrameMissing).await?,
    })
}

/// Reads a whole frame.
///
/// # Errors
/// `FrameMissing` when it is absent or was never finished.
pub async fn whole_frame<S: Store>(records: &Records<'_, S>) -> Result<Frame> {
    let FrameHead { plan, heartbeat } = frame_head(records).await?;
    Ok(Frame { plan, heartbeat, units: records.all(frame::UNITS).await? })
}

/// What an examination works with.
#[derive(Debug)]
pub struct Subject<'a, S> {
    /// The proof's records.
    pub records: &'a Records<'a, S>,
    /// The frame's records, where there is a frame.
    pub frame: Option<&'a Records<'a, S>>,
    /// The restore.
    pub restore: &'a ConnectionSettings,
    /// How.
    pub validation: &'a ValidationOptions,
    /// Size of a unit, about.
    pub unit_bytes: u64,
}

impl<S: Store> Subject<'_, S> {
    /// Goes on with the examination. `source` finds the source when a difference has to be followed down, and only
    /// then.
    ///
    /// # Errors
    /// Of the connection to the restore, the queries or the storage. What was finished is stored. A source that
    /// cannot be asked is no error.
    pub async fn advance(
        &self,
        source: impl AsyncFn() -> Result<ConnectionSettings>,
        limits: Limits,
    ) -> Result<Stage> {
        let head = match self.frame {
            Some(frame) => Some(frame_head(frame).await?),
            None => None,
        };
        let plan = self.plan(head.as_ref()).await?;
        if self.records.read::<CatalogueFindings>(CATALOGUE).await?.is_none() {
            let beat = head.as_ref().map(|head| &head.heartbeat);
            let found = engine::catalogue(self.restore, beat).await?;
            self.records.write(CATALOGUE, &found).await?;
        }
        let units_done = self.read_rest(&plan, limits).await?;
        let checks_done = self.check_rest(&plan, limits).await?;
        let mut progress = progress(&plan, &units_done, &checks_done);
        let pending = |progress| Stage::Pending { check_again_in_seconds: 1, progress };
        if units_done.len() < plan.units.len() || checks_done.len() < plan.checks.len() {
            return Ok(pending(progress));
        }
        if let Some(head) = &head
            && engine::follows_rows(self.restore)
            && !self.follow_differences(head, &plan, source, limits).await?
        {
            progress.percent = 99;
            return Ok(pending(progress));
        }
        Ok(Stage::Done { frame: None, progress })
    }

    async fn plan(&self, head: Option<&FrameHead>) -> Result<ExaminationPlan> {
        if let Some(plan) = self.records.read(PLAN).await? {
            return Ok(plan);
        }
        let wishes = Wishes {
            foreign_keys: self.validation.foreign_keys,
            unique_constraints: self.validation.unique_constraints,
            unit_bytes: self.unit_bytes,
        };
        let frame = head.map(|head| &head.plan);
        let plan = engine::plan_examination(self.restore, self.records.operation(), frame, wishes).await?;
        self.records.write(PLAN, &plan).await?;
        Ok(plan)
    }

    async fn read_rest(&self, plan: &ExaminationPlan, limits: Limits) -> Result<BTreeSet<u32>> {
        let done: BTreeSet<u32> = self.records.numbers(UNITS).await?.into_iter().collect();
        if done.len() == plan.units.len() {
            return Ok(done);
        }
        let mut visibilities = BTreeMap::new();
        if let Some(frame) = self.frame {
            let units: Vec<UnitResult> = frame.all(frame::UNITS).await?;
            visibilities.extend(units.into_iter().map(|unit| (unit.unit, unit.visibility)));
        }
        let store = |result: UnitResult| async move {
            self.records.write(&numbered(UNITS, result.unit), &result).await
        };
        engine::read_restore(self.restore, plan, &visibilities, &done, limits, None, store).await?;
        Ok(self.records.numbers(UNITS).await?.into_iter().collect())
    }

    async fn check_rest(&self, plan: &ExaminationPlan, limits: Limits) -> Result<BTreeSet<u32>> {
        let done: BTreeSet<u32> = self.records.numbers(CHECKS).await?.into_iter().collect();
        let rest: Vec<_> = plan.checks.iter().filter(|check| !done.contains(&check.id)).cloned().collect();
        if rest.is_empty() || Instant::now() >= limits.stop_at {
            return Ok(done);
        }
        engine::run_checks(self.restore, rest, limits, |result: CheckResult| async move {
            self.records.write(&numbered(CHECKS, result.check), &result).await
        })
        .await?;
        Ok(self.records.numbers(CHECKS).await?.into_iter().collect())
    }

    /// Follows slices that differ down to rows, in order; `false` when time was up before the last one.
    async fn follow_differences(
        &self,
        head: &FrameHead,
        plan: &ExaminationPlan,
        source: impl AsyncFn() -> Result<ConnectionSettings>,
        limits: Limits,
    ) -> Result<bool> {
        let Some(frame) = self.frame else { return Ok(true) };
        let (before, here): (Vec<UnitResult>, Vec<UnitResult>) =
            (frame.all(frame::UNITS).await?, self.records.all(UNITS).await?);
        let found = differences(plan, &before, &here);
        let done: BTreeSet<u32> = self.records.numbers(NARROWING).await?.into_iter().collect();
        let share = NARROWING_BUDGET / u32::try_from(found.len().clamp(1, MOST_NARROWINGS)).unwrap_or(1);
        let mut settings: Option<std::result::Result<ConnectionSettings, String>> = None;
        for (number, (unit, slice, result)) in found.into_iter().enumerate().take(MOST_NARROWINGS) {
            let number = u32::try_from(number).unwrap_or(u32::MAX);
            if done.contains(&number) {
                continue;
            }
            if Instant::now() >= limits.stop_at {
                return Ok(false);
            }
            if settings.is_none() {
                settings = Some(source().await.map_err(|error| unavailable(&error)));
            }
            let facts = plan
                .tables
                .get(slice.table)
                .zip(plan.framed.get(slice.table).copied().flatten())
                .and_then(|(restored, at)| Some((restored, head.plan.tables.get(at)?)));
            let (Some((restored, framed)), SliceOutcome::Digested(frame_digest)) = (facts, &result.outcome)
            else {
                continue;
            };
            let difference = Difference {
                table: slice.table,
                framed,
                restored,
                slice,
                visibility: &unit.visibility,
                frame_digest: *frame_digest,
                budget: share.max(1),
            };
            let settings = match settings.as_ref() {
                Some(Ok(settings)) => Ok(settings),
                Some(Err(reason)) => Err(reason.clone()),
                None => Err(String::new()),
            };
            let narrowing = self.follow(settings, &difference, limits).await?;
            let Some(narrowing) = narrowing else { return Ok(false) };
            self.records.write(&numbered(NARROWING, number), &narrowing).await?;
        }
        Ok(true)
    }

    /// Follows one difference; `None` when it was cut off with too little time to have been given a chance.
    async fn follow(
        &self,
        source: std::result::Result<&ConnectionSettings, String>,
        difference: &Difference<'_>,
        limits: Limits,
    ) -> Result<Option<Narrowing>> {
        let begun = Instant::now();
        let stopped = |reason: String| {
            let slice = Slice { table: difference.table, ..difference.slice };
            let outcome = NarrowingOutcome::SourceUnavailable { reason };
            Some(Narrowing { table: difference.table, slice, outcome })
        };
        let settings = match source {
            Ok(settings) => settings,
            Err(reason) => return Ok(stopped(reason)),
        };
        match tokio::time::timeout_at(limits.cut_at, narrow(settings, self.restore, difference)).await {
            Ok(Ok(narrowing)) => Ok(Some(narrowing)),
            Ok(Err(error)) if about_the_source(&error, settings) => Ok(stopped(unavailable(&error))),
            Ok(Err(error)) => Err(error),
            Err(_)
                if begun.elapsed() > limits.cut_at.saturating_duration_since(begun) / 2
                    && begun.elapsed() > MOST_PATIENCE =>
            {
                Ok(stopped("following it down took too long".to_owned()))
            }
            Err(_) => Ok(None),
        }
    }
}

/// A difference that was followed for so long and did not end is given up.
const MOST_PATIENCE: std::time::Duration = std::time::Duration::from_mins(2);

/// Whether an error comes from the source and not from the restore. Errors name the place they come from.
fn about_the_source(error: &DrError, source: &ConnectionSettings) -> bool {
    error.what().contains(&format!("{}:{}", source.host, source.port))
}

fn unavailable(error: &DrError) -> String {
    format!("{}: {}", error.name(), error.what())
}

type Differing<'a> = (&'a UnitResult, Slice, &'a SliceResult);

/// The slices whose digests are not the frame's: the examination's slice, and the frame's unit and result.
fn differences<'a>(
    plan: &ExaminationPlan,
    framed: &'a [UnitResult],
    found: &[UnitResult],
) -> Vec<Differing<'a>> {
    let baseline: BTreeMap<Slice, (&UnitResult, &SliceResult)> = framed
        .iter()
        .flat_map(|unit| unit.slices.iter().map(move |slice| (slice.slice, (unit, slice))))
        .collect();
    let mut differing = Vec::new();
    for result in found.iter().flat_map(|unit| &unit.slices) {
        let Some(at) = plan.framed.get(result.slice.table).copied().flatten() else { continue };
        let Some((unit, before)) = baseline.get(&Slice { table: at, ..result.slice }) else { continue };
        let same = match (&before.outcome, &result.outcome) {
            (SliceOutcome::Digested(there), SliceOutcome::Digested(here)) => there == here,
            (SliceOutcome::Digested(there), _) => *there == Digest::EMPTY,
            // What was not readable on the source has nothing to be compared with.
            _ => true,
        };
        if !same {
            differing.push((*unit, result.slice, *before));
        }
    }
    differing
}

fn progress(plan: &ExaminationPlan, units: &BTreeSet<u32>, checks: &BTreeSet<u32>) -> Progress {
    let read = frame::progress(&plan.units, &plan.tables, units);
    let checked =
        Progress::of(plan.checks.iter().map(|check| {
            (checks.contains(&check.id), check.subjects.iter().map(|subject| subject.bytes).sum())
        }));
    read.and(checked)
}
