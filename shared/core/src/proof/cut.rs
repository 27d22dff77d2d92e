//! Cutting tables into units of work of about the same size.
//!
//! Pure arithmetic on what the catalogue says of sizes: a wrong size makes a unit longer or shorter, never the
//! proof wrong, because the last slice of every table is open-ended.

use std::collections::{BTreeMap, BTreeSet};

use super::frame::{FramePlan, Persistence, Slice, TableFacts, Unit};

/// Bytes of heap and TOAST in one unit, about.
pub const UNIT_BYTES: u64 = 64 << 20;
/// Slices in one unit at most: many empty tables are work, too.
pub const UNIT_SLICES: usize = 256;
/// What reading a table costs at least, in bytes that could be read meanwhile.
const TABLE_COST: u64 = 64 << 10;

/// Cuts `tables` into units of about `unit_bytes`, in their order, databases apart. Every block of every table is in
/// exactly one slice. `first_id` is the number of the first unit.
pub fn cut(tables: &[TableFacts], unit_bytes: u64, first_id: u32) -> Vec<Unit> {
    cut_some(tables, |_| true, unit_bytes, first_id)
}

/// The same for those tables whose index `wanted` names.
pub fn cut_some(
    tables: &[TableFacts],
    wanted: impl Fn(usize) -> bool,
    unit_bytes: u64,
    first_id: u32,
) -> Vec<Unit> {
    let mut units: Vec<Unit> = Vec::new();
    let mut room = 0;
    for (index, table) in tables.iter().enumerate().filter(|(index, _)| wanted(*index)) {
        for (slice, cost) in slices(index, table, unit_bytes) {
            let fits = units.last().is_some_and(|unit| {
                unit.database == table.name.database && unit.slices.len() < UNIT_SLICES && cost <= room
            });
            if !fits {
                let id = first_id.saturating_add(u32::try_from(units.len()).unwrap_or(u32::MAX));
                units.push(Unit { id, database: table.name.database.clone(), slices: Vec::new() });
                room = unit_bytes;
            }
            if let Some(unit) = units.last_mut() {
                unit.slices.push(slice);
            }
            room = room.saturating_sub(cost);
        }
    }
    units
}

/// The units of an examination: the frame's, with the indexes of the tables that were found, then units for what the
/// frame does not cover; and for each the number of the frame's unit. `framed` has each table's index in the frame.
pub fn as_framed(
    found: &[TableFacts],
    framed: &[Option<usize>],
    frame: Option<&FramePlan>,
    unit_bytes: u64,
) -> (Vec<Unit>, Vec<Option<u32>>) {
    let here: BTreeMap<usize, usize> =
        framed.iter().enumerate().filter_map(|(index, at)| at.map(|at| (at, index))).collect();
    let permanent =
        |index: usize| found.get(index).is_some_and(|table| table.persistence == Persistence::Permanent);
    let (mut units, mut frame_units) = (Vec::new(), Vec::new());
    let mut covered = BTreeSet::new();
    for unit in frame.map(|frame| frame.units.as_slice()).unwrap_or_default() {
        let slices: Vec<Slice> = unit
            .slices
            .iter()
            .filter_map(|slice| Some(Slice { table: *here.get(&slice.table)?, ..*slice }))
            .filter(|slice| permanent(slice.table))
            .collect();
        if slices.is_empty() {
            continue;
        }
        covered.extend(slices.iter().map(|slice| slice.table));
        let id = u32::try_from(units.len()).unwrap_or(u32::MAX);
        units.push(Unit { id, database: unit.database.clone(), slices });
        frame_units.push(Some(unit.id));
    }
    let next = u32::try_from(units.len()).unwrap_or(u32::MAX);
    let rest = cut_some(found, |index| permanent(index) && !covered.contains(&index), unit_bytes, next);
    frame_units.resize(units.len() + rest.len(), None);
    units.extend(rest);
    (units, frame_units)
}

/// The slices of one table, each with its cost in bytes.
fn slices(index: usize, table: &TableFacts, unit_bytes: u64) -> Vec<(Slice, u64)> {
    // A table that is cut by keys has one slice for each range of them.
    let step = if table.keyed.is_some() { 1 } else { blocks_within(table, unit_bytes) };
    let mut slices = Vec::new();
    let mut first_block = 0;
    loop {
        let left = table.blocks.saturating_sub(first_block);
        let last = left <= step;
        let blocks = if last { left } else { step };
        let end_block = (!last).then(|| first_block + step);
        slices.push((Slice { table: index, first_block, end_block }, TABLE_COST + cost(table, blocks)));
        match end_block {
            Some(end) => first_block = end,
            None => return slices,
        }
    }
}

/// How many blocks of a table hold about `bytes` of heap and TOAST; at least one.
pub fn blocks_within(table: &TableFacts, bytes: u64) -> u32 {
    let blocks = u128::from(table.blocks.max(1));
    let step =
        u128::from(bytes) * blocks / u128::from(table.bytes.max(u64::from(table.blocks) * 8192).max(8192));
    u32::try_from(step).unwrap_or(u32::MAX).max(1)
}

/// About how many bytes of heap and TOAST so many blocks stand for.
pub fn cost(table: &TableFacts, blocks: u32) -> u64 {
    let bytes = u128::from(table.bytes.max(u64::from(table.blocks) * 8192));
    u64::try_from(bytes * u128::from(blocks) / u128::from(table.blocks.max(1))).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::super::frame::TableName;
    use super::*;
    use proptest::prelude::*;

    fn table(database: &str, oid: u32, blocks: u32, bytes: u64) -> TableFacts {
        TableFacts {
            name: TableName { database: database.into(), schema: "public".into(), table: format!("t{oid}") },
            oid,
            filenode: oid,
            persistence: Persistence::Permanent,
            blocks,
            bytes,
            primary_key: vec![],
            structure: String::new(),
            columns: vec![],
            keyed: None,
        }
    }

    #[test]
    fn a_large_table_is_cut_and_small_ones_share_a_unit() {
        let tables = [
            table("a", 1, 0, 0),
            table("a", 2, 10, 81_920),
            table("a", 3, 300, 300 * 8192),
            table("b", 4, 1, 8192),
        ];
        let units = cut(&tables, 1 << 20, 0);
        let slices: Vec<_> =
            units.iter().map(|unit| (unit.id, unit.database.as_str(), unit.slices.len())).collect();
        assert_eq!(slices, [(0, "a", 2), (1, "a", 1), (2, "a", 1), (3, "a", 1), (4, "b", 1)]);
        assert_eq!(units[1].slices[0], Slice { table: 2, first_block: 0, end_block: Some(128) });
        assert_eq!(units[3].slices[0], Slice { table: 2, first_block: 256, end_block: None });
    }

    #[test]
    fn toast_makes_slices_smaller() {
        // 10 blocks that lead to 10 MiB of TOAST.
        let units = cut(&[table("a", 1, 10, 10 << 20)], 1 << 20, 7);
        assert_eq!(units.len(), 10);
        assert_eq!(units[0].id, 7);
    }

    proptest! {
        #[test]
        fn every_block_is_in_exactly_one_slice(
            sizes in prop::collection::vec((0u32..5000, 0u64..(1 << 26), any::<bool>()), 0..30),
            unit_kib in 8u64..100_000,
        ) {
            let tables: Vec<_> = (1..)
                .zip(&sizes)
                .map(|(oid, &(blocks, toast, second))| {
                    table(if second { "b" } else { "a" }, oid, blocks, u64::from(blocks) * 8192 + toast)
                })
                .collect();
            let units = cut(&tables, unit_kib << 10, 0);
            for (index, facts) in tables.iter().enumerate() {
                let mut next = Some(0);
                for unit in &units {
                    for slice in unit.slices.iter().filter(|slice| slice.table == index) {
                        prop_assert_eq!(&unit.database, &facts.name.database);
                        prop_assert_eq!(Some(slice.first_block), next);
                        prop_assert!(slice.end_block.is_none_or(|end| end > slice.first_block));
                        next = slice.end_block;
                    }
                }
                prop_assert_eq!(next, None, "the last slice is open-ended");
            }
            for (number, unit) in (0u32..).zip(&units) {
                prop_assert_eq!(unit.id, number);
                prop_assert!(!unit.slices.is_empty() && unit.slices.len() <= UNIT_SLICES);
            }
        }
    }
}
