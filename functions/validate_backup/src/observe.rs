//! Observing the source after the snapshot: bounds for what may have changed since the frame, and, where tables are cut
//! by keys, digests anew of what may have been written to.

use std::collections::BTreeSet;

use dr_core::proof::frame::{FramePlan, Observation, Unit, UnitResult};
use dr_core::proof::keyed::units_to_repeat;
use dr_core::request::ValidationOptions;
use dr_core::{ErrorName, Result};
use dr_database::{ConnectionSettings, Limits};
use jiff::Timestamp;

use crate::engine::{self, Observed};
use crate::frame::{PLAN, pace, progress};
use crate::request::{Progress, Stage};
use crate::store::{Records, Store, numbered};

/// The record of the observation.
pub const OBSERVATION: &str = "observation.json";
/// The folder of the units that were read again.
pub const AGAIN: &str = "observation/units";

/// Observes the writer, unless it is done already or its counters are not ripe, and goes on reading again.
///
/// # Errors
/// `FrameMissing` when the source was not framed; of the connection, the queries or the storage. What was finished is
/// stored.
pub async fn advance<S: Store>(
    records: &Records<'_, S>,
    writer: &ConnectionSettings,
    snapshot_taken: Timestamp,
    validation: &ValidationOptions,
    limits: Limits,
) -> Result<Stage> {
    let observation = match records.read::<Observation>(OBSERVATION).await? {
        // Nothing of it is left to do: it need not even be asked what was framed.
        Some(observation) if observation.state.is_none() => return Ok(done()),
        Some(observation) => observation,
        None => {
            let plan: FramePlan = records.expect(PLAN, ErrorName::FrameMissing).await?;
            let framed_at =
                plan.activity.iter().map(|activity| activity.taken_at).min().unwrap_or(plan.server.clock);
            match engine::observe(writer, records.operation(), framed_at, snapshot_taken).await? {
                Observed::TooEarly(seconds) => {
                    return Ok(Stage::Pending {
                        check_again_in_seconds: u32::try_from(seconds).unwrap_or(u32::MAX),
                        progress: Progress::of([(false, 0)]),
                    });
                }
                Observed::Done(observation) => {
                    records.write(OBSERVATION, &*observation).await?;
                    *observation
                }
            }
        }
    };
    let Some(state) = &observation.state else { return Ok(done()) };
    let plan: FramePlan = records.expect(PLAN, ErrorName::FrameMissing).await?;
    let again: Vec<Unit> = units_to_repeat(&plan, state).into_iter().cloned().collect();
    let there: BTreeSet<u32> = records.numbers(AGAIN).await?.into_iter().collect();
    let rest: Vec<Unit> = again.iter().filter(|unit| !there.contains(&unit.id)).cloned().collect();
    if rest.is_empty() {
        return Ok(done());
    }
    let pace = pace(validation);
    engine::read_source(writer, &plan.tables, rest, limits, pace.as_ref(), |result: UnitResult| async move {
        records.write(&numbered(AGAIN, result.unit), &result).await
    })
    .await?;
    let there: BTreeSet<u32> = records.numbers(AGAIN).await?.into_iter().collect();
    if again.iter().all(|unit| there.contains(&unit.id)) {
        return Ok(done());
    }
    Ok(Stage::Pending { check_again_in_seconds: 1, progress: progress(&again, &plan.tables, &there) })
}

fn done() -> Stage {
    Stage::Done { frame: None, progress: Progress::of([(true, 0)]) }
}
