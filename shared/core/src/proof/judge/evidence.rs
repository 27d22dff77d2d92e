//! Brings frame, observation and examination together, and refuses evidence with holes: a slice that nobody
//! looked at must never count as proven.

use std::collections::HashMap;

use crate::error::{DrError, ErrorName, Result};
use crate::proof::examination::{Examination, NarrowingOutcome};
use crate::proof::frame::{
    DatabaseActivity, Frame, FramePlan, Observation, Persistence, Slice, SliceResult, TableActivity,
    TableFacts, Unit, UnitResult, Visibility,
};
use crate::proof::keyed::{REWRITING, TableState, Written, is_quiet, units_to_repeat};

/// A slice of a table that the frame knows, on both sides.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pair<'a> {
    pub(super) slice: Slice,
    pub(super) frame: &'a SliceResult,
    pub(super) restore: &'a SliceResult,
    /// The same on the source after the snapshot, where it was read again.
    pub(super) again: Option<&'a SliceResult>,
    pub(super) visibility: &'a Visibility,
    pub(super) narrowing: Option<&'a NarrowingOutcome>,
}

/// A table of the restore with what is known of it.
#[derive(Debug)]
pub(super) struct Table<'a> {
    pub(super) restored: &'a TableFacts,
    pub(super) look: Look<'a>,
}

/// How a table was looked at.
#[derive(Debug)]
pub(super) enum Look<'a> {
    /// Beside the frame.
    Paired { planned: &'a TableFacts, pairs: Vec<Pair<'a>>, window: Window },
    /// By itself.
    Alone(Vec<&'a SliceResult>),
}

/// A table of the frame that is not on the restore.
#[derive(Debug)]
pub(super) struct Absent<'a> {
    pub(super) planned: &'a TableFacts,
    pub(super) framed_rows: u64,
    pub(super) window: Window,
}

/// What the source says about one table between the frame's plan and the observation.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "observations, each true or not by itself")]
pub(super) struct Window {
    pub(super) after: After,
    /// `None` where the counters cannot be used.
    pub(super) touched: Option<Touched>,
    /// Whether counters may be missing changes.
    pub(super) pending: bool,
    /// Whether a definition on the restore that is neither the one before nor the one after can be a state in
    /// between: catalogues of columns were changed in the window.
    pub(super) columns_in_motion: bool,
    /// Whether the restore's types are not those of the frame, and may not be.
    pub(super) types_moved: bool,
    /// Whether the source's types were not those of the restore any more after the snapshot.
    pub(super) types_moved_later: bool,
    /// Of a table that is cut by keys.
    pub(super) keyed: Option<KeyedWindow>,
}

/// What the source says of a table that is cut by keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct KeyedWindow {
    /// It was certainly not written to.
    pub(super) quiet: bool,
    /// It is another table of the same name.
    pub(super) made_anew: bool,
    /// It may have been emptied, altered or made anew, which no counter tells.
    pub(super) rebuilt: bool,
    /// What was written to it, by its own counters.
    pub(super) own: Option<Written>,
    /// What was written to all tables together.
    pub(super) server: Option<Written>,
}

/// The table on the source after the snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum After {
    /// There is no observation.
    Unknown,
    /// It was there.
    Present { filenode: u32, structure: String },
    /// It was gone.
    Dropped,
}

/// Deltas of the counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Touched {
    pub(super) inserted: u64,
    pub(super) updated: u64,
    pub(super) deleted: u64,
}

/// All tables, in the order of the examination's plan, then those that are absent.
#[derive(Debug)]
pub(super) struct Evidence<'a> {
    pub(super) tables: Vec<Table<'a>>,
    pub(super) absent: Vec<Absent<'a>>,
}

fn damaged(what: String) -> DrError {
    DrError::new(ErrorName::MetadataDamaged, what)
}

/// The results of the units in the plan's order.
pub(super) fn in_order<'a>(
    what: &str,
    operation: &str,
    units: &[Unit],
    results: &'a [UnitResult],
) -> Result<HashMap<u32, &'a UnitResult>> {
    let mut by_unit = HashMap::with_capacity(results.len());
    for result in results {
        if by_unit.insert(result.unit, result).is_some() {
            return Err(damaged(format!(
                "judging: the {what} of {operation} has unit {} twice",
                result.unit
            )));
        }
    }
    for unit in units {
        let Some(result) = by_unit.get(&unit.id) else {
            return Err(damaged(format!(
                "judging: the {what} of {operation} has no result of unit {}",
                unit.id
            )));
        };
        if !result.slices.iter().map(|slice| slice.slice).eq(unit.slices.iter().copied()) {
            return Err(damaged(format!(
                "judging: the {what} of {operation} has other slices in unit {} than were planned",
                unit.id
            )));
        }
    }
    Ok(by_unit)
}

/// Slices by table, beside the frame's.
type Pairs<'a> = HashMap<usize, Vec<Pair<'a>>>;
/// Slices by table that the frame does not know.
type Alone<'a> = HashMap<usize, Vec<&'a SliceResult>>;

/// Finds the frame's slice for each slice here, and takes it out of `framed`.
fn pair_up<'a>(
    examination: &'a Examination,
    here: &HashMap<u32, &'a UnitResult>,
    framed: &mut HashMap<Slice, (&'a SliceResult, &'a Visibility)>,
    again: &HashMap<Slice, &'a SliceResult>,
) -> Result<(Pairs<'a>, Alone<'a>)> {
    let plan = &examination.plan;
    let narrowings: HashMap<Slice, &NarrowingOutcome> =
        examination.narrowings.iter().map(|narrowing| (narrowing.slice, &narrowing.outcome)).collect();
    let mut pairs: Pairs<'a> = HashMap::new();
    let mut alone: Alone<'a> = HashMap::new();
    for unit in &plan.units {
        let Some(result) = here.get(&unit.id) else { continue };
        for slice in &result.slices {
            let table = slice.slice.table;
            let Some(in_frame) = plan.framed.get(table).copied().flatten() else {
                alone.entry(table).or_default().push(slice);
                continue;
            };
            let there = Slice { table: in_frame, ..slice.slice };
            let Some((baseline, visibility)) = framed.remove(&there) else {
                return Err(damaged(format!(
                    "judging: the examination of {} looked at a slice that the frame does not have (unit {})",
                    plan.operation_id, unit.id
                )));
            };
            if *visibility != result.visibility {
                return Err(damaged(format!(
                    "judging: unit {} of the examination of {} does not speak of the frame's rows",
                    unit.id, plan.operation_id
                )));
            }
            pairs.entry(table).or_default().push(Pair {
                slice: slice.slice,
                frame: baseline,
                restore: slice,
                again: again.get(&there).copied(),
                visibility,
                narrowing: narrowings.get(&slice.slice).copied(),
            });
        }
    }
    Ok((pairs, alone))
}

impl<'a> Evidence<'a> {
    /// Gathers it.
    ///
    /// # Errors
    /// [`ErrorName::MetadataDamaged`] where a unit, a slice or a check that was planned has no result, or where
    /// two results do not speak of the same rows.
    pub(super) fn gather(
        frame: Option<&'a Frame>,
        observation: Option<&'a Observation>,
        again: &'a [UnitResult],
        examination: &'a Examination,
    ) -> Result<Self> {
        read_again(frame, observation, again)?;
        let again: HashMap<Slice, &SliceResult> =
            again.iter().flat_map(|unit| unit.slices.iter().map(|slice| (slice.slice, slice))).collect();
        let plan = &examination.plan;
        let here = in_order("examination", &plan.operation_id, &plan.units, &examination.units)?;
        if plan.frame_units.len() != plan.units.len() || plan.framed.len() != plan.tables.len() {
            return Err(damaged(format!(
                "judging: the examination plan of {} is inconsistent",
                plan.operation_id
            )));
        }
        if let Some(check) =
            plan.checks.iter().find(|check| !examination.checks.iter().any(|done| covers(done, check)))
        {
            return Err(damaged(format!(
                "judging: the examination of {} has no full result of check {}",
                plan.operation_id, check.id
            )));
        }

        let mut framed: HashMap<Slice, (&'a SliceResult, &'a Visibility)> = HashMap::new();
        let mut framed_rows: HashMap<usize, u64> = HashMap::new();
        if let Some(frame) = frame {
            let there = in_order("frame", &frame.plan.operation_id, &frame.plan.units, &frame.units)?;
            for unit in there.values() {
                for slice in &unit.slices {
                    *framed_rows.entry(slice.slice.table).or_default() += rows(slice);
                    framed.insert(slice.slice, (slice, &unit.visibility));
                }
            }
        }

        let (mut pairs, mut alone) = pair_up(examination, &here, &mut framed, &again)?;

        let mut tables = Vec::with_capacity(plan.tables.len());
        for (index, restored) in plan.tables.iter().enumerate() {
            let look = match (plan.framed[index], frame) {
                (Some(in_frame), Some(frame)) => {
                    let planned = frame.plan.tables.get(in_frame).ok_or_else(|| {
                        damaged(format!(
                            "judging: {} refers to a table that the frame lacks",
                            plan.operation_id
                        ))
                    })?;
                    let mut pairs = pairs.remove(&index).unwrap_or_default();
                    pairs.sort_by_key(|pair| pair.slice);
                    without_holes(restored, pairs.iter().map(|pair| pair.slice), &plan.operation_id)?;
                    let window = Window::of(&frame.plan, observation, examination, planned);
                    Look::Paired { planned, pairs, window }
                }
                (Some(_), None) => {
                    return Err(damaged(format!(
                        "judging: the examination of {} refers to a frame, and there is none",
                        plan.operation_id
                    )));
                }
                (None, _) => {
                    let mut slices = alone.remove(&index).unwrap_or_default();
                    slices.sort_by_key(|slice| slice.slice);
                    without_holes(restored, slices.iter().map(|slice| slice.slice), &plan.operation_id)?;
                    Look::Alone(slices)
                }
            };
            tables.push(Table { restored, look });
        }

        let present: std::collections::HashSet<usize> = plan.framed.iter().copied().flatten().collect();
        // What is left of the frame must belong to tables that are not on the restore.
        if let Some(slice) = framed.keys().find(|slice| present.contains(&slice.table)) {
            return Err(damaged(format!(
                "judging: the examination of {} did not look at block {} of a framed table",
                plan.operation_id, slice.first_block
            )));
        }
        let absent = frame.map_or_else(Vec::new, |frame| {
            frame
                .plan
                .tables
                .iter()
                .enumerate()
                .filter(|(index, _)| !present.contains(index))
                .map(|(index, planned)| Absent {
                    planned,
                    framed_rows: framed_rows.get(&index).copied().unwrap_or(0),
                    window: Window::of(&frame.plan, observation, examination, planned),
                })
                .collect()
        });
        Ok(Self { tables, absent })
    }
}

/// What may have been written to must have been read again, slice by slice.
fn read_again(frame: Option<&Frame>, observation: Option<&Observation>, again: &[UnitResult]) -> Result<()> {
    let state = observation.and_then(|observation| observation.state.as_ref());
    let (Some(frame), Some(state)) = (frame, state) else { return Ok(()) };
    for unit in units_to_repeat(&frame.plan, state) {
        let whole = again.iter().any(|result| {
            result.unit == unit.id
                && result.slices.iter().map(|slice| slice.slice).eq(unit.slices.iter().copied())
        });
        if !whole {
            return Err(damaged(format!(
                "judging: unit {} of the frame of {} was not read again after the snapshot",
                unit.id, frame.plan.operation_id
            )));
        }
    }
    Ok(())
}

/// A table must have been read from its first block to its open end. Unlogged ones need not be read at all.
fn without_holes(table: &TableFacts, slices: impl Iterator<Item = Slice>, operation: &str) -> Result<()> {
    let mut next = Some(0);
    let mut any = false;
    for slice in slices {
        any = true;
        if next != Some(slice.first_block) {
            next = Some(u32::MAX);
            break;
        }
        next = slice.end_block;
    }
    if next.is_none() || (!any && table.persistence == Persistence::Unlogged) {
        Ok(())
    } else {
        Err(damaged(format!("judging: the examination of {operation} did not look at all of {}", table.name)))
    }
}

fn covers(done: &crate::proof::examination::CheckResult, planned: &crate::proof::examination::Check) -> bool {
    done.check == planned.id && done.outcomes.iter().map(|(subject, _)| subject).eq(planned.subjects.iter())
}

fn rows(slice: &SliceResult) -> u64 {
    match &slice.outcome {
        crate::proof::frame::SliceOutcome::Digested(digest) => digest.rows,
        _ => 0,
    }
}

/// The catalogues that hold the definition of a table's columns.
const COLUMN_CATALOGUES: &[&str] = &["pg_attribute"];
/// The class of the schema fingerprint whose change alters what rows are written as.
pub(super) const TYPE_CLASS: &str = "types";
/// The catalogues behind that class.
pub(super) const TYPE_CATALOGUES: &[&str] = &["pg_type", "pg_enum", "pg_attribute", "pg_range"];

impl Window {
    fn of(
        plan: &FramePlan,
        observation: Option<&Observation>,
        examination: &Examination,
        planned: &TableFacts,
    ) -> Self {
        if planned.keyed.is_some() {
            return Self::of_keyed(plan, observation, planned);
        }
        let database = &planned.name.database;
        let before = plan.activity.iter().find(|activity| activity.database == *database);
        let after = observation
            .map(|observation| observation.activity.iter().find(|activity| activity.database == *database));
        let find = |activity: &'_ DatabaseActivity| -> Option<TableActivity> {
            activity.tables.iter().find(|table| table.oid == planned.oid).cloned()
        };
        let now = after.flatten().and_then(find);
        let touched = match (before, after.flatten()) {
            (Some(before), Some(after)) if before.stats_reset == after.stats_reset => {
                // A table that statistics did not know yet had not been touched.
                let zero = TableActivity {
                    name: planned.name.clone(),
                    oid: planned.oid,
                    filenode: planned.filenode,
                    structure: String::new(),
                    inserted: 0,
                    updated: 0,
                    deleted: 0,
                };
                let then = find(before).unwrap_or(zero);
                now.as_ref().and_then(|now| {
                    Some(Touched {
                        inserted: now.inserted.checked_sub(then.inserted)?,
                        updated: now.updated.checked_sub(then.updated)?,
                        deleted: now.deleted.checked_sub(then.deleted)?,
                    })
                })
            }
            _ => None,
        };
        let class = |schema: &std::collections::BTreeMap<String, crate::proof::frame::SchemaFingerprint>| {
            schema.get(database).and_then(|classes| classes.get(TYPE_CLASS)).cloned()
        };
        let types = class(&plan.schema);
        let types_here = class(&examination.catalogue.schema);
        let types_moved_later =
            observation.is_some_and(|observation| class(&observation.schema) != types_here);
        let types_moved = types_here != types
            && (observation.is_none_or(|observation| class(&observation.schema) != types)
                || in_motion(before, after.flatten(), TYPE_CATALOGUES));
        Self {
            columns_in_motion: in_motion(before, after.flatten(), COLUMN_CATALOGUES),
            after: match (after, now) {
                (None, _) => After::Unknown,
                (Some(_), Some(now)) => After::Present { filenode: now.filenode, structure: now.structure },
                (Some(_), None) => After::Dropped,
            },
            touched,
            pending: observation.is_none_or(|observation| observation.pending_counters),
            types_moved,
            types_moved_later,
            keyed: None,
        }
    }

    fn of_keyed(plan: &FramePlan, observation: Option<&Observation>, planned: &TableFacts) -> Self {
        let (before, after) =
            (plan.state.as_ref(), observation.and_then(|observation| observation.state.as_ref()));
        let name = &planned.name;
        let now = after.map(|after| after.table(name));
        let keyed = match (before, after) {
            (Some(before), Some(after)) => {
                let created = |state: Option<&TableState>| state.and_then(|table| table.created.clone());
                let made_anew = created(before.table(name)) != created(after.table(name));
                KeyedWindow {
                    quiet: is_quiet(before, after, name),
                    made_anew,
                    rebuilt: made_anew || after.ran_since(before, REWRITING),
                    own: after.written_to(before, name),
                    server: after.written_since(before),
                }
            }
            _ => KeyedWindow::default(),
        };
        Self {
            after: match now {
                None => After::Unknown,
                Some(None) => After::Dropped,
                Some(Some(now)) => After::Present { filenode: 0, structure: now.structure.clone() },
            },
            touched: keyed.own.map(|own| Touched {
                inserted: own.inserted,
                updated: own.updated,
                deleted: own.deleted,
            }),
            pending: false,
            columns_in_motion: before
                .zip(after)
                .is_some_and(|(before, after)| after.ran_since(before, REWRITING)),
            types_moved: false,
            types_moved_later: false,
            keyed: Some(keyed),
        }
    }
}

/// Whether any of the catalogues was changed between two looks. Unknown counters count as unchanged: what cannot
/// be excused is reported.
pub(super) fn in_motion(
    before: Option<&DatabaseActivity>,
    after: Option<&DatabaseActivity>,
    catalogues: &[&str],
) -> bool {
    let (Some(before), Some(after)) = (before, after) else { return false };
    catalogues.iter().any(|name| {
        let then = before.catalogue_changes.get(*name).copied().unwrap_or(0);
        after.catalogue_changes.get(*name).copied().unwrap_or(0) > then
    })
}
