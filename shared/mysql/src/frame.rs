//! The steps of framing a source: plan, units ([`crate::units`]), heartbeat ([`crate::heartbeat`]), and the look at the
//! source after the snapshot, which is followed by reading again what may have been written to.

use std::collections::BTreeMap;

use dr_core::Result;
use dr_core::proof::cut::cut_some;
use dr_core::proof::frame::{FramePlan, Observation, Persistence};
use dr_database::{Access, ConnectionSettings, Pace};
use jiff::{SignedDuration, Timestamp};

use crate::catalogue::fingerprint::fingerprints;
use crate::catalogue::sequences::sequences;
use crate::catalogue::server::{check_readable, databases, server_facts};
use crate::catalogue::state::state;
use crate::catalogue::tables::{find_bounds, tables};
use crate::session::Session;

/// Version of the stored format.
pub const FORMAT: u32 = 1;
/// How far the clocks of RDS and of the server may be apart.
const SETTLING: SignedDuration = SignedDuration::from_secs(2);

/// Looks at everything, finds where tables are cut, and cuts the work into units of about `unit_bytes`. Tables in
/// memory are listed and get no unit: a restore empties them.
///
/// Counters are read before anything else, so that every later change is above them.
///
/// # Errors
/// `PermissionMissing` where not everything may be read; of the connection and the queries.
pub async fn plan(
    source: &ConnectionSettings,
    instance: &str,
    operation_id: &str,
    unit_bytes: u64,
    pace: Option<&Pace>,
) -> Result<FramePlan> {
    let session = Session::open(source, Access::ReadOnly).await?;
    check_readable(&session).await?;
    let server = server_facts(&session).await?;
    let state = state(&session).await?;
    let mut tables = tables(&session).await?;
    for table in tables.iter_mut().filter(|table| table.persistence == Persistence::Permanent) {
        find_bounds(&session, table, unit_bytes, pace).await?;
    }
    let kept =
        |index: usize| tables.get(index).is_some_and(|table| table.persistence == Persistence::Permanent);
    let units = cut_some(&tables, kept, unit_bytes, 0);
    let databases = databases(&session).await?;
    Ok(FramePlan {
        format: FORMAT,
        operation_id: operation_id.to_owned(),
        instance: instance.to_owned(),
        server,
        schema: fingerprints(&session, &databases).await?,
        sequences: sequences(&session).await?,
        activity: Vec::new(),
        tables,
        units,
        large_objects: BTreeMap::new(),
        state: Some(state),
    })
}

/// What came of asking for an observation.
#[derive(Debug, Clone, PartialEq)]
pub enum Observed {
    /// The snapshot may still be to come by the server's clock: ask again after so many seconds.
    TooEarly {
        /// Seconds, at least 1.
        seconds: u64,
    },
    /// It is made.
    Done(Box<Observation>),
}

/// Looks at the source again. What is read again after this is of a moment after the snapshot.
///
/// # Errors
/// Of the connection and the queries.
pub async fn observe(
    source: &ConnectionSettings,
    operation_id: &str,
    snapshot_taken: Timestamp,
) -> Result<Observed> {
    let session = Session::open(source, Access::ReadOnly).await?;
    let clock = server_facts(&session).await?.clock;
    let left = SETTLING - clock.duration_since(snapshot_taken);
    if left > SignedDuration::ZERO {
        let seconds = u64::try_from(left.as_secs()).unwrap_or(0) + 1;
        return Ok(Observed::TooEarly { seconds });
    }
    let databases = databases(&session).await?;
    Ok(Observed::Done(Box::new(Observation {
        format: FORMAT,
        operation_id: operation_id.to_owned(),
        activity: Vec::new(),
        pending_counters: false,
        schema: fingerprints(&session, &databases).await?,
        sequences: sequences(&session).await?,
        state: Some(state(&session).await?),
    })))
}
