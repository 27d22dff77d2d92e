//! Observing the source after the snapshot: bounds for what may have changed since the frame.

use dr_core::proof::frame::{FramePlan, Observation};
use dr_core::{ErrorName, Result};
use dr_postgres::ConnectionSettings;
use dr_postgres::frame::{self, Observed};
use jiff::Timestamp;

use crate::frame::PLAN;
use crate::request::{Progress, Stage};
use crate::store::{Records, Store};

/// The record of the observation.
pub const OBSERVATION: &str = "observation.json";

/// Observes the writer, unless it is done already or its counters are not ripe.
///
/// # Errors
/// `FrameMissing` when the source was not framed; of the connection, the queries or the storage.
pub async fn advance<S: Store>(
    records: &Records<'_, S>,
    writer: &ConnectionSettings,
    snapshot_taken: Timestamp,
) -> Result<Stage> {
    let done = Stage::Done { frame: None, progress: Progress::of([(true, 0)]) };
    if records.read::<Observation>(OBSERVATION).await?.is_some() {
        return Ok(done);
    }
    let plan: FramePlan = records.expect(PLAN, ErrorName::FrameMissing).await?;
    let framed_at = plan.activity.iter().map(|activity| activity.taken_at).min().unwrap_or(plan.server.clock);
    match frame::observe(writer, records.operation(), framed_at, snapshot_taken).await? {
        Observed::TooEarly { seconds } => Ok(Stage::Pending {
            check_again_in_seconds: u32::try_from(seconds).unwrap_or(u32::MAX),
            progress: Progress::of([(false, 0)]),
        }),
        Observed::Done(observation) => {
            records.write(OBSERVATION, &*observation).await?;
            Ok(done)
        }
    }
}
