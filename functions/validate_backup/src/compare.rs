//! Comparing a source with its own frame: the same slices below the same horizon, later, on the same database; one call
//! does as much as its time allows.
//!
//! The counters are read after the last slice, and late enough that they tell every change that a slice may show. What
//! was compared once is not compared again: a second comparison needs a frame of its own.

use std::collections::{BTreeMap, BTreeSet};

use dr_core::ids::DatabaseId;
use dr_core::proof::examination::{CatalogueFindings, Examination, ExaminationPlan};
use dr_core::proof::frame::{Observation, UnitResult};
use dr_core::proof::judge::live::{self, Comparison, Input};
use dr_core::request::ValidationOptions;
use dr_core::{DrError, ErrorName, Result};
use dr_database::{ConnectionSettings, Limits};
use jiff::Timestamp;

use crate::engine::{self, Observed};
use crate::examine::{FrameHead, frame_head, whole_frame};
use crate::frame;
use crate::request::{Compared, Comparing};
use crate::store::{Records, Store, numbered};

/// The record of the plan.
pub const PLAN: &str = "compare/plan.json";
/// The folder of the units' records.
pub const UNITS: &str = "compare/units";
/// The record of what the catalogue says.
pub const CATALOGUE: &str = "compare/catalogue.json";
/// The record of the counters.
pub const OBSERVATION: &str = "compare/observation.json";
/// The record of what came of it.
pub const REPORT: &str = "compare/report.json";

/// A source that was framed.
#[derive(Debug)]
pub struct Source<'a, S> {
    /// The records of the operation that framed it.
    pub records: &'a Records<'a, S>,
    /// Its name.
    pub database: &'a DatabaseId,
    /// Its writer.
    pub writer: &'a ConnectionSettings,
    /// How it is read.
    pub validation: &'a ValidationOptions,
}

impl<S: Store> Source<'_, S> {
    /// Goes on comparing.
    ///
    /// # Errors
    /// `FrameMissing` when the operation has no finished frame, or one of another database; `EngineUnsupported` for MySQL;
    /// `DatabaseUnavailable` when a standby answers; of the connection, the queries or the storage. What was finished is
    /// stored.
    pub async fn advance(&self, limits: Limits, now: Timestamp) -> Result<Comparing> {
        if let Some(known) = self.records.read::<Comparison>(REPORT).await? {
            return Ok(self.done(&known));
        }
        let head = frame_head(self.records).await?;
        self.check_is_of_this(&head)?;
        let plan = self.plan(&head).await?;
        let done = self.read_rest(&plan, limits).await?;
        let progress = frame::progress(&plan.units, &plan.tables, &done);
        let pending = |check_again_in_seconds| Ok(Comparing::Pending { check_again_in_seconds, progress });
        if done.len() < plan.units.len() {
            return pending(1);
        }
        let units: Vec<UnitResult> = self.records.all(UNITS).await?;
        let last = units.iter().map(|unit| unit.finished_at).max().unwrap_or(plan.server.clock);
        let observation = match self.observe(&head, last).await? {
            Observed::Done(observation) => observation,
            Observed::TooEarly(seconds) => return pending(u32::try_from(seconds).unwrap_or(u32::MAX)),
        };
        let examination = Examination {
            catalogue: self.records.expect(CATALOGUE, ErrorName::MetadataDamaged).await?,
            plan,
            units,
            checks: Vec::new(),
            narrowings: Vec::new(),
        };
        let frame = whole_frame(self.records).await?;
        let comparison = live::compare(Input { frame: &frame, examination, observation: &observation, now })?;
        self.records.write(REPORT, &comparison).await?;
        Ok(self.done(&comparison))
    }

    fn done(&self, comparison: &Comparison) -> Comparing {
        Comparing::Done(Box::new(Compared::of(comparison, self.records.key(REPORT))))
    }

    fn check_is_of_this(&self, head: &FrameHead) -> Result<()> {
        if head.plan.instance == self.database.as_str() {
            return Ok(());
        }
        let (operation, instance) = (self.records.operation(), &head.plan.instance);
        let what = format!("comparing `{}`: the frame of {operation} is one of `{instance}`", self.database);
        Err(DrError::new(ErrorName::FrameMissing, what)
            .with_remedy("Frame the database itself, under an operation of its own, before it is compared."))
    }

    async fn plan(&self, head: &FrameHead) -> Result<ExaminationPlan> {
        let plan = if let Some(plan) = self.records.read(PLAN).await? {
            plan
        } else {
            let plan = engine::plan_again(self.writer, self.records.operation(), &head.plan).await?;
            self.records.write(PLAN, &plan).await?;
            plan
        };
        if self.records.read::<CatalogueFindings>(CATALOGUE).await?.is_none() {
            let found = engine::catalogue(self.writer, Some(&head.heartbeat)).await?;
            self.records.write(CATALOGUE, &found).await?;
        }
        Ok(plan)
    }

    async fn read_rest(&self, plan: &ExaminationPlan, limits: Limits) -> Result<BTreeSet<u32>> {
        let done: BTreeSet<u32> = self.records.numbers(UNITS).await?.into_iter().collect();
        if done.len() == plan.units.len() {
            return Ok(done);
        }
        let framed: Vec<UnitResult> = self.records.all(frame::UNITS).await?;
        let visibilities: BTreeMap<_, _> =
            framed.into_iter().map(|unit| (unit.unit, unit.visibility)).collect();
        let pace = frame::pace(self.validation);
        let store = |result: UnitResult| async move {
            self.records.write(&numbered(UNITS, result.unit), &result).await
        };
        engine::read_restore(self.writer, plan, &visibilities, &done, limits, pace.as_ref(), store).await?;
        Ok(self.records.numbers(UNITS).await?.into_iter().collect())
    }

    /// The counters, once they tell everything that was done before the last slice was read.
    async fn observe(&self, head: &FrameHead, last: Timestamp) -> Result<Observed> {
        if let Some(known) = self.records.read::<Observation>(OBSERVATION).await? {
            return Ok(Observed::Done(Box::new(known)));
        }
        let plan = &head.plan;
        let framed_at =
            plan.activity.iter().map(|activity| activity.taken_at).min().unwrap_or(plan.server.clock);
        let observed = engine::observe(self.writer, self.records.operation(), framed_at, last).await?;
        if let Observed::Done(observation) = &observed {
            self.records.write(OBSERVATION, &**observation).await?;
        }
        Ok(observed)
    }
}
