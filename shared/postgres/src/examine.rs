//! Planning the examination of a restore.
//!
//! A table is the frame's table when database and object id are the same: both survive a physical restore, and a
//! rename. It is cut exactly as the frame was, so that slices can be compared one by one.

use std::collections::{BTreeMap, BTreeSet};

use dr_core::proof::cut::{UNIT_BYTES, as_framed};
use dr_core::proof::examination::ExaminationPlan;
use dr_core::proof::frame::{FramePlan, TableFacts, Visibility};
use dr_core::{DrError, ErrorName, Result};

use crate::catalogue::server::{databases, server_facts};
use crate::catalogue::tables::{check_readable, tables};
use crate::checks;
use crate::frame::FORMAT;
use crate::session::Session;
use crate::units::UnitWork;
use dr_database::Access;
use dr_database::ConnectionSettings;

pub use dr_database::Wishes;

/// Looks at a restore and plans what to do with it. `frame` is the frame's plan, where there is a frame.
///
/// Where the user may not read everything, it is given `pg_read_all_data` on the restore, if it may give that.
///
/// # Errors
/// `FrameMissing` when the frame has digests of another version; `PermissionMissing` naming what cannot be read in full;
/// of the connections and queries.
pub async fn plan(
    settings: &ConnectionSettings,
    operation_id: &str,
    frame: Option<&FramePlan>,
    wishes: Wishes,
) -> Result<ExaminationPlan> {
    if let Some(frame) = frame {
        comparable(frame)?;
    }
    let session = Session::open(settings, Access::ReadOnly).await?;
    let server = server_facts(&session).await?;
    let names = databases(&session).await?;
    let mut found = Vec::new();
    let mut checks = Vec::new();
    for name in &names {
        let session = readable(&settings.for_database(name)).await?;
        found.extend(tables(&session).await?);
        checks::plan(&session, wishes, &mut checks).await?;
    }
    let framed = match frame {
        Some(frame) => adopt(&mut found, &frame.tables),
        None => vec![None; found.len()],
    };
    let (units, frame_units) = as_framed(&found, &framed, frame, wishes.unit_bytes);
    Ok(ExaminationPlan {
        format: FORMAT,
        operation_id: operation_id.to_owned(),
        frame_operation_id: frame.map(|frame| frame.operation_id.clone()),
        server,
        tables: found,
        framed,
        units,
        frame_units,
        checks,
    })
}

/// Plans reading a framed source again: the frame's tables as they are now, cut as they were then, without any check.
/// Nothing is written, and no right is given.
///
/// # Errors
/// `FrameMissing` when the frame has digests of another version; `DatabaseUnavailable` when a standby answers, which may
/// not have replayed everything; `PermissionMissing` naming what cannot be read in full; of the connections and queries.
pub async fn again(
    settings: &ConnectionSettings,
    operation_id: &str,
    frame: &FramePlan,
) -> Result<ExaminationPlan> {
    comparable(frame)?;
    let session = Session::open(settings, Access::ReadOnly).await?;
    let server = server_facts(&session).await?;
    if server.in_recovery {
        let what = format!("reading {} again: it is a standby", settings.place());
        return Err(DrError::new(ErrorName::DatabaseUnavailable, what)
            .with_remedy("Wait until the name leads to the new writer."));
    }
    let mut found = Vec::new();
    for name in databases(&session).await? {
        let session = Session::open(&settings.for_database(&name), Access::ReadOnly).await?;
        check_readable(&session).await?;
        found.extend(tables(&session).await?);
    }
    let framed = adopt(&mut found, &frame.tables);
    let (mut here, mut indexes) = (Vec::new(), Vec::new());
    for (mut table, at) in found.into_iter().zip(framed) {
        let Some(then) = at.and_then(|at| frame.tables.get(at)) else { continue };
        // What was logged then has been read, and is read again, whatever it is now.
        table.persistence = then.persistence;
        here.push(table);
        indexes.push(at);
    }
    let (units, frame_units) = as_framed(&here, &indexes, Some(frame), UNIT_BYTES);
    Ok(ExaminationPlan {
        format: FORMAT,
        operation_id: operation_id.to_owned(),
        frame_operation_id: Some(frame.operation_id.clone()),
        server,
        tables: here,
        framed: indexes,
        units,
        frame_units,
        checks: Vec::new(),
    })
}

/// Refuses a frame whose digests were made in another way.
fn comparable(frame: &FramePlan) -> Result<()> {
    if frame.format == FORMAT {
        return Ok(());
    }
    let what = format!(
        "examining by the frame of {}: its digests are of version {}, those of this release of version {FORMAT}",
        frame.operation_id, frame.format
    );
    Err(DrError::new(ErrorName::FrameMissing, what)
        .with_remedy("Take a new backup, or prove this one by the release that framed it."))
}

/// A session of a user who may read everything, after giving the right to it where that is possible.
async fn readable(settings: &ConnectionSettings) -> Result<Session> {
    let session = Session::open(settings, Access::ReadOnly).await?;
    let Err(missing) = check_readable(&session).await else { return Ok(session) };
    if missing.name() != ErrorName::PermissionMissing {
        return Err(missing);
    }
    let granting = Session::open(settings, Access::ReadWrite).await?;
    if let Err(error) =
        granting.rows("granting pg_read_all_data", "GRANT pg_read_all_data TO CURRENT_USER").await
    {
        tracing::info!(error = %error.name(), "the restore's user cannot give itself pg_read_all_data");
        return Err(missing);
    }
    check_readable(&session).await.map(|()| session)
}

/// Finds each table's index in the frame, and lets digests speak of the frame's columns where all of them are there.
fn adopt(found: &mut [TableFacts], framed: &[TableFacts]) -> Vec<Option<usize>> {
    let index: BTreeMap<(&str, u32), usize> = framed
        .iter()
        .enumerate()
        .map(|(index, table)| ((table.name.database.as_str(), table.oid), index))
        .collect();
    found
        .iter_mut()
        .map(|table| {
            let at = *index.get(&(table.name.database.as_str(), table.oid))?;
            let columns = &framed.get(at)?.columns;
            if columns.iter().all(|column| table.columns.contains(column)) {
                table.columns.clone_from(columns);
            }
            Some(at)
        })
        .collect()
}

/// The plan's units that are not in `done`, each with the visibility that the frame's unit was read under.
///
/// # Errors
/// `FrameMissing` when the frame has no result for a unit.
pub fn unit_work(
    plan: &ExaminationPlan,
    visibilities: &BTreeMap<u32, Visibility>,
    done: &BTreeSet<u32>,
) -> Result<Vec<UnitWork>> {
    let mut work = Vec::new();
    for (unit, of_frame) in plan.units.iter().zip(&plan.frame_units) {
        if done.contains(&unit.id) {
            continue;
        }
        let visibility = match of_frame {
            None => None,
            Some(id) => Some(visibilities.get(id).cloned().ok_or_else(|| {
                DrError::new(
                    ErrorName::FrameMissing,
                    format!("examining unit {}: unit {id} of the frame is absent", unit.id),
                )
            })?),
        };
        work.push(UnitWork { unit: unit.clone(), visibility });
    }
    Ok(work)
}
