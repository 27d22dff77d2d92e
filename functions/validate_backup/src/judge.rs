//! Judging: all records of a proof together, the report written, the judgement answered.

use dr_core::proof::examination::Examination;
use dr_core::proof::frame::{Frame, Observation, UnitResult};
use dr_core::proof::judge::{self, Input};
use dr_core::proof::judgement::{Report, RestoreFacts};
use dr_core::{ErrorName, Result};
use jiff::Timestamp;

use crate::examine::{self, CATALOGUE, CHECKS, NARROWING, PLAN, UNITS};
use crate::observe::{AGAIN, OBSERVATION};
use crate::store::{Records, Store};

/// The record of the report.
pub const REPORT: &str = "report.json";

/// What is judged beside the records.
#[derive(Debug, Clone)]
pub struct Circumstances {
    /// The snapshot.
    pub snapshot_id: String,
    /// The database that it is of.
    pub database: Option<String>,
    /// When it was taken.
    pub snapshot_taken_at: Option<Timestamp>,
    /// The greatest RPO that is good enough.
    pub max_rpo_seconds: Option<u32>,
    /// The restore itself.
    pub restore: RestoreFacts,
    /// Now.
    pub now: Timestamp,
}

/// Judges once; a second call answers the stored report. The flag tells whether it is new.
///
/// # Errors
/// `FrameMissing`, `MetadataDamaged` where records are absent or contradict each other; of the storage.
pub async fn conclude<S: Store>(
    records: &Records<'_, S>,
    frame: Option<&Records<'_, S>>,
    circumstances: &Circumstances,
) -> Result<(Report, bool)> {
    if let Some(report) = records.read::<Report>(REPORT).await? {
        return Ok((report, false));
    }
    let (mut again, mut observation): (Vec<UnitResult>, Option<Observation>) = (Vec::new(), None);
    let frame: Option<Frame> = match frame {
        Some(records) => {
            observation = records.read(OBSERVATION).await?;
            again = records.all(AGAIN).await?;
            Some(examine::whole_frame(records).await?)
        }
        None => None,
    };
    let examination = Examination {
        plan: records.expect(PLAN, ErrorName::MetadataDamaged).await?,
        units: records.all(UNITS).await?,
        checks: records.all(CHECKS).await?,
        catalogue: records.expect(CATALOGUE, ErrorName::MetadataDamaged).await?,
        narrowings: records.all(NARROWING).await?,
    };
    let report_key = records.key(REPORT);
    let report = judge::judge(&Input {
        operation_id: records.operation(),
        snapshot_id: &circumstances.snapshot_id,
        database: circumstances.database.as_deref(),
        frame: frame.as_ref(),
        observation: observation.as_ref(),
        again: &again,
        examination: &examination,
        snapshot_taken_at: circumstances.snapshot_taken_at,
        max_rpo_seconds: circumstances.max_rpo_seconds,
        restore: &circumstances.restore,
        now: circumstances.now,
        report_key: &report_key,
    })?;
    records.write(REPORT, &report).await?;
    Ok((report, true))
}
