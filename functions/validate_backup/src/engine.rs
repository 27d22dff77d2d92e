//! The one place where the engines' families part: everything else in here speaks of settings, units and records.

use std::collections::{BTreeMap, BTreeSet};

use dr_core::proof::examination::{CatalogueFindings, Check, CheckResult, ExaminationPlan};
use dr_core::proof::frame::{FramePlan, Heartbeat, Observation, TableFacts, Unit, UnitResult, Visibility};
use dr_core::{DrError, EngineFamily, ErrorName, Result};
use dr_database::{ConnectionSettings, Limits, Pace, Progress, Wishes};
use dr_postgres::{Source, UnitWork};
use jiff::Timestamp;

/// Writes a beat.
pub(crate) async fn beat(writer: &ConnectionSettings, operation: &str) -> Result<Heartbeat> {
    match writer.family {
        EngineFamily::PostgreSql => dr_postgres::heartbeat::beat(writer, operation).await,
        EngineFamily::MySql => dr_mysql::heartbeat::beat(writer, operation).await,
    }
}

/// The last beat of an operation as the writer has it.
pub(crate) async fn last_beat(writer: &ConnectionSettings, operation: &str) -> Result<Option<i64>> {
    match writer.family {
        EngineFamily::PostgreSql => dr_postgres::heartbeat::last(writer, operation).await,
        EngineFamily::MySql => dr_mysql::heartbeat::last(writer, operation).await,
    }
}

/// Plans a frame.
pub(crate) async fn plan_frame(
    source: &Source<'_>,
    operation: &str,
    unit_bytes: u64,
    pace: Option<&Pace>,
) -> Result<FramePlan> {
    match source.reader.family {
        EngineFamily::PostgreSql => dr_postgres::frame::plan(source, operation, unit_bytes).await,
        EngineFamily::MySql if source.writer.is_some() => {
            let what = format!("framing from {}: MySQL is framed on its writer only", source.reader.place());
            Err(DrError::new(ErrorName::InvalidInput, what).with_remedy("Leave `frameFrom` out."))
        }
        EngineFamily::MySql => {
            dr_mysql::frame::plan(source.reader, source.instance, operation, unit_bytes, pace).await
        }
    }
}

/// Reads units of a source.
pub(crate) async fn read_source<S, F>(
    source: &ConnectionSettings,
    tables: &[TableFacts],
    units: Vec<Unit>,
    limits: Limits,
    pace: Option<&Pace>,
    store: S,
) -> Result<Progress>
where
    S: Fn(UnitResult) -> F,
    F: Future<Output = Result<()>>,
{
    match source.family {
        EngineFamily::PostgreSql => {
            // Each invocation has a horizon of its own, taken before its first row is read.
            let visibility = dr_postgres::frame::horizon(source).await?;
            let work = units
                .into_iter()
                .map(|unit| UnitWork { unit, visibility: Some(visibility.clone()) })
                .collect();
            dr_postgres::read_units(source, tables, work, limits, pace, store).await
        }
        EngineFamily::MySql => dr_mysql::read_units(source, tables, units, limits, pace, store).await,
    }
}

/// What came of looking at the source after the snapshot.
pub(crate) enum Observed {
    /// Ask again after so many seconds.
    TooEarly(u64),
    /// It is made.
    Done(Box<Observation>),
}

/// Looks at the source after the snapshot.
pub(crate) async fn observe(
    writer: &ConnectionSettings,
    operation: &str,
    framed_at: Timestamp,
    snapshot_taken: Timestamp,
) -> Result<Observed> {
    match writer.family {
        EngineFamily::PostgreSql => {
            use dr_postgres::frame::Observed as Found;
            match dr_postgres::frame::observe(writer, operation, framed_at, snapshot_taken).await? {
                Found::TooEarly { seconds } => Ok(Observed::TooEarly(seconds)),
                Found::Done(observation) => Ok(Observed::Done(observation)),
            }
        }
        EngineFamily::MySql => {
            use dr_mysql::frame::Observed as Found;
            match dr_mysql::frame::observe(writer, operation, snapshot_taken).await? {
                Found::TooEarly { seconds } => Ok(Observed::TooEarly(seconds)),
                Found::Done(observation) => Ok(Observed::Done(observation)),
            }
        }
    }
}

/// Plans an examination.
pub(crate) async fn plan_examination(
    restore: &ConnectionSettings,
    operation: &str,
    frame: Option<&FramePlan>,
    wishes: Wishes,
) -> Result<ExaminationPlan> {
    match restore.family {
        EngineFamily::PostgreSql => dr_postgres::examine::plan(restore, operation, frame, wishes).await,
        EngineFamily::MySql => dr_mysql::examine::plan(restore, operation, frame, wishes).await,
    }
}

/// Plans reading a framed source again. In MySQL nothing tells which of its rows are older than the frame.
pub(crate) async fn plan_again(
    source: &ConnectionSettings,
    operation: &str,
    frame: &FramePlan,
) -> Result<ExaminationPlan> {
    match source.family {
        EngineFamily::PostgreSql => dr_postgres::examine::again(source, operation, frame).await,
        EngineFamily::MySql => {
            let what = format!("comparing {} with its frame: it is no PostgreSQL", source.place());
            Err(DrError::new(ErrorName::EngineUnsupported, what).with_remedy(
                "Ask its ledger; rows of MySQL do not tell whether they are older than a frame.",
            ))
        }
    }
}

/// Reads the units of a restore, or of the source itself, that are not done, each under the visibility of the frame's
/// unit.
pub(crate) async fn read_restore<S, F>(
    restore: &ConnectionSettings,
    plan: &ExaminationPlan,
    visibilities: &BTreeMap<u32, Visibility>,
    done: &BTreeSet<u32>,
    limits: Limits,
    pace: Option<&Pace>,
    store: S,
) -> Result<Progress>
where
    S: Fn(UnitResult) -> F,
    F: Future<Output = Result<()>>,
{
    match restore.family {
        EngineFamily::PostgreSql => {
            let work = dr_postgres::examine::unit_work(plan, visibilities, done)?;
            dr_postgres::read_units(restore, &plan.tables, work, limits, pace, store).await
        }
        EngineFamily::MySql => {
            let units = plan.units.iter().filter(|unit| !done.contains(&unit.id)).cloned().collect();
            dr_mysql::read_units(restore, &plan.tables, units, limits, pace, store).await
        }
    }
}

/// Reads the catalogue of a restore.
pub(crate) async fn catalogue(
    restore: &ConnectionSettings,
    beat: Option<&Heartbeat>,
) -> Result<CatalogueFindings> {
    match restore.family {
        EngineFamily::PostgreSql => dr_postgres::catalogue::findings::catalogue(restore, beat).await,
        EngineFamily::MySql => dr_mysql::catalogue::findings::catalogue(restore, beat).await,
    }
}

/// Makes structural checks.
pub(crate) async fn run_checks<S, F>(
    restore: &ConnectionSettings,
    checks: Vec<Check>,
    limits: Limits,
    store: S,
) -> Result<Progress>
where
    S: Fn(CheckResult) -> F,
    F: Future<Output = Result<()>>,
{
    match restore.family {
        EngineFamily::PostgreSql => dr_postgres::checks::run_checks(restore, checks, limits, store).await,
        EngineFamily::MySql => dr_mysql::checks::run_checks(restore, checks, limits, store).await,
    }
}

/// Whether a difference can be followed down to rows by asking the source: in MySQL nothing tells which of its rows
/// are older than the frame.
pub(crate) fn follows_rows(restore: &ConnectionSettings) -> bool {
    restore.family == EngineFamily::PostgreSql
}
