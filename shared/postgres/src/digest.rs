//! The SQL of a digest, and what it needs to know of a table when it runs.
//!
//! A row is hashed as PostgreSQL's binary form of a record of its stored columns, so nothing depends on how values
//! are printed. That form holds the object ids of the columns' types, which a physical copy keeps; it would differ
//! after a logical dump and restore. A column whose type has no binary form is hashed as text under pinned settings.
//!
//! A row of more than about 1 GB in binary form cannot be hashed; the slice is then unreadable on both sides.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt::Write as _;

use dr_core::Result;
use dr_core::proof::Digest;
use dr_core::proof::frame::ColumnFacts;
use dr_core::proof::visibility::{BAND, Horizon};

use crate::session::Session;
use crate::text::{TextRow, identifier, qualified, unexpected};

/// A table as it is now, found by its object id: names may have changed since the plan.
#[derive(Debug, Clone)]
pub(crate) struct LiveTable {
    pub(crate) schema: String,
    pub(crate) name: String,
    pub(crate) filenode: u32,
    pub(crate) blocks: u32,
    columns: Vec<LiveColumn>,
}

#[derive(Debug, Clone)]
struct LiveColumn {
    facts: ColumnFacts,
    name: String,
    /// Whether its type, with everything inside it, has a binary form.
    binary: bool,
}

impl LiveTable {
    pub(crate) fn qualified(&self) -> String {
        qualified(&self.schema, &self.name)
    }

    /// SQL: the rows' binary form, of `wanted` columns where all of them are still there, else of all columns.
    /// Table alias `t`.
    pub(crate) fn record(&self, wanted: &[ColumnFacts]) -> String {
        let chosen: Option<Vec<&LiveColumn>> =
            wanted.iter().map(|facts| self.columns.iter().find(|column| column.facts == *facts)).collect();
        let chosen = chosen.unwrap_or_else(|| self.columns.iter().collect());
        let mut list = String::new();
        for column in chosen {
            let separator = if list.is_empty() { "" } else { ", " };
            let cast = if column.binary { "" } else { "::text" };
            let _ = write!(list, "{separator}t.{}{cast}", identifier(&column.name));
        }
        format!("record_send(ROW({list}))")
    }
}

/// SQL: whether a row of `t` is below the horizon; the same as [`Horizon::covers`].
pub(crate) fn covered(horizon: Option<Horizon>) -> String {
    match horizon {
        None => "true".to_owned(),
        Some(horizon) => format!(
            "((t.xmin::text::bigint - {} + 4294967296) % 4294967296 >= {BAND} OR t.xmin = '1'::xid \
             OR t.xmin = '2'::xid)",
            horizon.low()
        ),
    }
}

/// SQL: rows of `t` in a range of blocks.
pub(crate) fn within(first: u32, end: Option<u32>) -> String {
    let mut condition = format!("t.ctid >= '({first},0)'::tid");
    if let Some(end) = end {
        let _ = write!(condition, " AND t.ctid < '({end},0)'::tid");
    }
    condition
}

/// SQL: the digest of a range of blocks, at most one row for what is below the horizon (`t`) and one for the rest
/// (`f`). The array makes one 64-bit hash with a seed of the record; OFFSET 0 keeps it from being computed twice.
pub(crate) fn query(
    table: &LiveTable,
    wanted: &[ColumnFacts],
    horizon: Option<Horizon>,
    first: u32,
    end: Option<u32>,
) -> String {
    format!(
        "SELECT f, count(*), sum(hash_array_extended(r, 0)), sum(hash_array_extended(r, 1)) \
         FROM (SELECT {} AS f, array[{}] AS r FROM ONLY {} t WHERE {} OFFSET 0) s GROUP BY f",
        covered(horizon),
        table.record(wanted),
        table.qualified(),
        within(first, end)
    )
}

/// A digest from three columns of a row: count and two exact sums.
pub(crate) fn digest_at(row: &TextRow, column: usize) -> Result<Digest> {
    Ok(Digest {
        rows: row.parse(column)?,
        s0: reduce(row.text(column + 1)?)?,
        s1: reduce(row.text(column + 2)?)?,
    })
}

/// An exact sum of signed 64-bit numbers, modulo 2^64.
fn reduce(sum: &str) -> Result<u64> {
    let sum: i128 = sum.parse().map_err(|_| unexpected("a sum that is no number"))?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "modulo 2^64 is what is wanted"
    )]
    let low = sum as u64;
    Ok(low)
}

/// The tables with these object ids as they are now; those that are gone are absent.
pub(crate) async fn live_tables(session: &Session, oids: &[u32]) -> Result<BTreeMap<u32, LiveTable>> {
    let list = oids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let sql = format!(
        "WITH RECURSIVE wanted AS ( \
           SELECT c.oid, n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
             WHERE c.oid = ANY ('{{{list}}}'::oid[])), \
         parts(root, oid) AS ( \
           SELECT a.atttypid, a.atttypid FROM pg_attribute a JOIN wanted w ON w.oid = a.attrelid \
             WHERE a.attnum > 0 AND NOT a.attisdropped \
           UNION \
           SELECT p.root, inner_type.oid FROM parts p JOIN pg_type t ON t.oid = p.oid CROSS JOIN LATERAL ( \
             SELECT t.typelem WHERE t.typelem <> 0 AND t.typsend = 'array_send'::regproc \
             UNION ALL SELECT t.typbasetype WHERE t.typtype = 'd' \
             UNION ALL SELECT r.rngsubtype FROM pg_range r WHERE r.rngtypid = t.oid OR r.rngmultitypid = t.oid \
             UNION ALL SELECT b.atttypid FROM pg_attribute b WHERE t.typrelid <> 0 AND b.attrelid = t.typrelid \
               AND b.attnum > 0 AND NOT b.attisdropped) AS inner_type(oid)) \
         SELECT w.oid, w.nspname, w.relname, coalesce(pg_relation_filenode(w.oid), 0), \
           coalesce(pg_relation_size(w.oid), 0) / current_setting('block_size')::bigint, a.attnum, a.attname, \
           a.atttypid, NOT EXISTS (SELECT FROM parts p JOIN pg_type t ON t.oid = p.oid \
             WHERE p.root = a.atttypid AND t.typsend = 0) \
         FROM wanted w LEFT JOIN pg_attribute a ON a.attrelid = w.oid AND a.attnum > 0 AND NOT a.attisdropped \
           AND a.attgenerated <> 'v' ORDER BY w.oid, a.attnum"
    );
    let mut tables: BTreeMap<u32, LiveTable> = BTreeMap::new();
    for row in session.catalogue_rows("looking up tables", &sql).await? {
        let oid = row.parse(0)?;
        let table = match tables.entry(oid) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(LiveTable {
                schema: row.text(1)?.to_owned(),
                name: row.text(2)?.to_owned(),
                filenode: row.parse(3)?,
                blocks: row.parse(4)?,
                columns: Vec::new(),
            }),
        };
        if let Some(number) = row.parse_optional(5)? {
            table.columns.push(LiveColumn {
                facts: ColumnFacts { number, type_oid: row.parse(7)? },
                name: row.text(6)?.to_owned(),
                binary: row.flag(8)?,
            });
        }
    }
    Ok(tables)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn sums_wrap_at_two_to_the_64() {
        assert_eq!(reduce("0").unwrap(), 0);
        assert_eq!(reduce("-1").unwrap(), u64::MAX);
        assert_eq!(reduce("18446744073709551617").unwrap(), 1);
        assert_eq!(reduce("-18446744073709551617").unwrap(), u64::MAX);
        assert!(reduce("1.5").is_err());
    }
}
