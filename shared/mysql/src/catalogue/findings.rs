//! What the catalogue of a restore says about its state.

use dr_core::Result;
use dr_core::proof::examination::CatalogueFindings;
use dr_core::proof::frame::{Heartbeat, Persistence};
use dr_database::{Access, ConnectionSettings};

use super::fingerprint::fingerprints;
use super::sequences::sequences;
use super::server::databases;
use super::tables::tables;
use crate::heartbeat;
use crate::session::Session;

/// Reads the catalogue of a restore. With `beat`, the frame's heartbeat, its row is looked for; without, `heartbeat`
/// stays empty. MySQL has no invalid indexes, no unvalidated constraints and no versions of collations.
///
/// # Errors
/// Of the connection or the queries.
pub async fn catalogue(settings: &ConnectionSettings, beat: Option<&Heartbeat>) -> Result<CatalogueFindings> {
    let session = Session::open(settings, Access::ReadOnly).await?;
    let databases = databases(&session).await?;
    let found = heartbeat::find(&session, beat.map(|beat| beat.operation_id.as_str())).await?;
    let in_memory =
        tables(&session).await?.into_iter().filter(|table| table.persistence == Persistence::Unlogged);
    Ok(CatalogueFindings {
        schema: fingerprints(&session, &databases).await?,
        sequences: sequences(&session).await?,
        collation_drift: Vec::new(),
        invalid_indexes: Vec::new(),
        unvalidated_constraints: Vec::new(),
        unlogged_tables: in_memory.map(|table| table.name).collect(),
        heartbeat: found.of_operation,
        newest_known_moment: found.newest,
    })
}
