//! Planning the examination of a restore.
//!
//! A table is the frame's table when its name is the same. It is cut exactly as the frame was, and its digests speak
//! of the frame's columns, so that slices can be compared one by one.

use std::collections::BTreeMap;

use dr_core::Result;
use dr_core::proof::cut::as_framed;
use dr_core::proof::examination::ExaminationPlan;
use dr_core::proof::frame::{FramePlan, Persistence, TableFacts, TableName};
use dr_core::proof::keyed::KeyedColumn;
use dr_database::{Access, ConnectionSettings, Wishes};

use crate::catalogue::server::{check_readable, server_facts};
use crate::catalogue::tables::{find_bounds, tables};
use crate::checks;
use crate::frame::FORMAT;
use crate::session::Session;

/// Looks at a restore and plans what to do with it. `frame` is the frame's plan, where there is a frame.
///
/// # Errors
/// `PermissionMissing` where not everything may be read; of the connection and the queries.
pub async fn plan(
    settings: &ConnectionSettings,
    operation_id: &str,
    frame: Option<&FramePlan>,
    wishes: Wishes,
) -> Result<ExaminationPlan> {
    let session = Session::open(settings, Access::ReadOnly).await?;
    check_readable(&session).await?;
    let server = server_facts(&session).await?;
    let mut found = tables(&session).await?;
    let framed = match frame {
        Some(frame) => adopt(&mut found, &frame.tables),
        None => vec![None; found.len()],
    };
    for (table, at) in found.iter_mut().zip(&framed) {
        if at.is_none() && table.persistence == Persistence::Permanent {
            find_bounds(&session, table, wishes.unit_bytes, None).await?;
        }
    }
    let (units, frame_units) = as_framed(&found, &framed, frame, wishes.unit_bytes);
    let checks = checks::plan(&session, &found, wishes).await?;
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

/// Finds each table's index in the frame, and takes over how the frame read it where the columns for that are there.
fn adopt(found: &mut [TableFacts], framed: &[TableFacts]) -> Vec<Option<usize>> {
    let index: BTreeMap<&TableName, usize> =
        framed.iter().enumerate().map(|(index, table)| (&table.name, index)).collect();
    found
        .iter_mut()
        .map(|table| {
            let at = *index.get(&table.name)?;
            let there = framed.get(at)?;
            let (keyed, theirs) = (table.keyed.as_mut()?, there.keyed.as_ref()?);
            let has = |columns: &[KeyedColumn]| columns.iter().all(|column| keyed.columns.contains(column));
            let (columns, key) = (has(&theirs.columns), has(&theirs.key));
            if columns {
                keyed.columns.clone_from(&theirs.columns);
            }
            if key {
                keyed.key.clone_from(&theirs.key);
                keyed.bounds.clone_from(&theirs.bounds);
            } else {
                keyed.key.clear();
            }
            table.blocks = there.blocks;
            Some(at)
        })
        .collect()
}
