//! The SQL of a digest, and what it needs to know of a table when it runs.
//!
//! **A value** becomes 64 bits by the functions that PostgreSQL keeps for hashing, with a seed of its column; NULL
//! becomes a constant of its column. Only those are used directly that read every bit of the value and fold nothing:
//! `hashint8extended` and what rests on it (timestamps, money) folds 64 bits to 32, `hash_numeric_extended` passes
//! over sign and scale, `interval_hash_extended` and `jsonb_hash_extended` go by equality. So a `bigint` is the seed
//! itself, and types without such a function are hashed in their binary form (`numeric_send` …), those of users and
//! extensions within `record_send`, and what has no binary form as text under pinned settings. Nothing depends on how
//! values are printed or on a collation; some types carry object ids, which a physical copy keeps and a logical dump
//! would not.
//!
//! **A row** is the exclusive or of its values, mixed once more with two seeds: without that, sums would not notice
//! two rows that swap a value. **A slice** is the number of its rows and two sums.
//!
//! What it is good for: a damaged, lost, doubled or exchanged value or row goes unnoticed with a probability of about
//! 2^-64, however much of the table is damaged. That is against accidents. The functions have no secret and are easily
//! inverted: whoever can choose rows can choose their digest.
//!
//! Why not the binary form of the whole record, as in the first version of the format: it asks every column's type
//! for an allocation of its own and is then hashed twice, for twice to three times the processor time.
//!
//! A row whose values without a direct function have more than about 1 GB in binary form cannot be hashed; the slice
//! is then unreadable on both sides.

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
    major: u32,
    columns: Vec<LiveColumn>,
}

#[derive(Debug, Clone)]
struct LiveColumn {
    facts: ColumnFacts,
    name: String,
    kind: Kind,
}

/// How a column's values are hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// By a function of its type that reads every bit.
    Direct(Direct),
    /// In the binary form that this function gives.
    Sent(&'static str),
    /// Within a record: a type of a user or an extension, or one that is rare. As text where something inside it has
    /// no binary form.
    Recorded { binary: bool },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direct {
    Bool,
    Int2,
    Int4,
    Int8,
    Oid,
    Float4,
    Float8,
    Text,
    Bpchar,
    Date,
    Uuid,
    Inet,
    Enum,
}

impl Kind {
    /// By the type's object id in `pg_type.dat`, which never changes.
    fn of(type_oid: u32, is_enum: bool, binary: bool) -> Self {
        match type_oid {
            _ if is_enum => Self::Direct(Direct::Enum),
            16 => Self::Direct(Direct::Bool),
            21 => Self::Direct(Direct::Int2),
            23 => Self::Direct(Direct::Int4),
            20 => Self::Direct(Direct::Int8),
            26 => Self::Direct(Direct::Oid),
            700 => Self::Direct(Direct::Float4),
            701 => Self::Direct(Direct::Float8),
            25 | 1043 => Self::Direct(Direct::Text),
            1042 => Self::Direct(Direct::Bpchar),
            1082 => Self::Direct(Direct::Date),
            2950 => Self::Direct(Direct::Uuid),
            869 | 650 => Self::Direct(Direct::Inet),
            17 => Self::Sent(""),
            114 => Self::Sent("json_send"),
            790 => Self::Sent("cash_send"),
            1083 => Self::Sent("time_send"),
            1114 => Self::Sent("timestamp_send"),
            1184 => Self::Sent("timestamptz_send"),
            1186 => Self::Sent("interval_send"),
            1266 => Self::Sent("timetz_send"),
            1700 => Self::Sent("numeric_send"),
            3802 => Self::Sent("jsonb_send"),
            _ => Self::Recorded { binary },
        }
    }
}

/// What a constant of a column is for.
#[derive(Debug, Clone, Copy)]
enum Purpose {
    Value = 0,
    Null = 1,
    True = 2,
    False = 3,
}

/// A constant of a column: 63 bits that have nothing to do with those of others (the finaliser of SplitMix64, Steele,
/// Lea and Flood 2014). Small numbers would cancel out in the exclusive or.
fn constant(column: u16, purpose: Purpose) -> u64 {
    let mut bits =
        (u64::from(column) << 2 | purpose as u64).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (bits ^ (bits >> 31)) >> 1
}

/// The column number of the constants for columns that are hashed together. No column of a table has it.
const TOGETHER: u16 = 0;
/// From here on `bytea` can be hashed by itself.
const HASHES_BYTES: u32 = 18;

impl LiveColumn {
    fn constant(&self, purpose: Purpose) -> u64 {
        constant(self.facts.number.unsigned_abs(), purpose)
    }

    /// SQL: 64 bits of a value of `t`, never NULL.
    fn direct(&self, how: Direct, major: u32) -> String {
        let value = format!("t.{}", identifier(&self.name));
        let seed = self.constant(Purpose::Value);
        let hash = match how {
            Direct::Bool => {
                let (yes, no) = (self.constant(Purpose::True), self.constant(Purpose::False));
                format!("CASE WHEN {value} THEN {yes} WHEN NOT {value} THEN {no} END")
            }
            Direct::Int2 => format!("hashint2extended({value}, {seed})"),
            Direct::Int4 => format!("hashint4extended({value}, {seed})"),
            // The value is the seed, and the column's constant what is hashed: a seed counts in full.
            Direct::Int8 => format!("hashint4extended({}, {value})", seed >> 32),
            Direct::Oid => format!("hashoidextended({value}, {seed})"),
            // Both zeros, and all that is no number, have the same hash.
            Direct::Float4 => split_float(&value, "hashfloat4extended", "float4send", seed, major),
            Direct::Float8 => split_float(&value, "hashfloat8extended", "float8send", seed, major),
            Direct::Text => format!("hashtextextended({value} COLLATE \"C\", {seed})"),
            // Blanks at the end have no part in the hash.
            Direct::Bpchar => {
                format!("hashbpcharextended({value} COLLATE \"C\", {seed} + octet_length({value}))")
            }
            Direct::Date => format!(
                "CASE WHEN isfinite({value}) THEN hashint4extended({value} - '2000-01-01'::date, {seed}) \
                 ELSE hashtextextended({value}::text COLLATE \"C\", {seed}) END"
            ),
            Direct::Uuid => format!("uuid_hash_extended({value}, {seed})"),
            Direct::Inet => format!("hashinetextended({value}, {seed})"),
            // The object id of the value: its name may change.
            Direct::Enum => format!("hashenumextended({value}, {seed})"),
        };
        format!("coalesce({hash}, {})", self.constant(Purpose::Null))
    }
}

/// SQL: the hash of a floating-point value, and of its binary form where the hash would not tell all.
fn split_float(value: &str, hash: &str, to_bytes: &str, seed: u64, major: u32) -> String {
    let exact = hash_of_bytes(&[format!("{to_bytes}({value})")], seed, major);
    format!("CASE WHEN {value} < 'NaN' AND {value} <> 0 THEN {hash}({value}, {seed}) ELSE {exact} END")
}

/// SQL: 64 bits of some `bytea` together, in their order; NULL at most if all are.
fn hash_of_bytes(parts: &[String], seed: u64, major: u32) -> String {
    match parts {
        [one] if major >= HASHES_BYTES => format!("hashbyteaextended({one}, {seed})"),
        parts => format!("hash_array_extended(array[{}], {seed})", parts.join(", ")),
    }
}

/// SQL: the exclusive or of all, as a balanced tree: a thousand columns in a row would be a thousand calls deep.
fn exclusive_or(terms: &[String]) -> String {
    match terms {
        [] => "0::bigint".to_owned(),
        [one] => one.clone(),
        more => {
            let (left, right) = more.split_at(more.len() / 2);
            format!("({} # {})", exclusive_or(left), exclusive_or(right))
        }
    }
}

impl LiveTable {
    pub(crate) fn qualified(&self) -> String {
        qualified(&self.schema, &self.name)
    }

    /// SQL: 64 bits of a row, of `wanted` columns where all of them are still there, else of all columns. Never NULL.
    /// Table alias `t`. They are to be mixed by [`MIXED`] before they are added up.
    pub(crate) fn row(&self, wanted: &[ColumnFacts]) -> String {
        let chosen: Option<Vec<&LiveColumn>> =
            wanted.iter().map(|facts| self.columns.iter().find(|column| column.facts == *facts)).collect();
        let chosen = chosen.unwrap_or_else(|| self.columns.iter().collect());
        let (mut terms, mut sent, mut recorded) = (Vec::new(), Vec::new(), String::new());
        for column in chosen {
            let name = identifier(&column.name);
            match column.kind {
                Kind::Direct(how) => terms.push(column.direct(how, self.major)),
                Kind::Sent(function) => {
                    let bytes = if function.is_empty() {
                        format!("t.{name}")
                    } else {
                        format!("{function}(t.{name})")
                    };
                    if self.major >= HASHES_BYTES {
                        let hash = hash_of_bytes(&[bytes], column.constant(Purpose::Value), self.major);
                        terms.push(format!("coalesce({hash}, {})", column.constant(Purpose::Null)));
                    } else {
                        sent.push(bytes);
                    }
                }
                Kind::Recorded { binary } => {
                    let separator = if recorded.is_empty() { "" } else { ", " };
                    let cast = if binary { "" } else { "::text" };
                    let _ = write!(recorded, "{separator}t.{name}{cast}");
                }
            }
        }
        if !recorded.is_empty() {
            sent.push(format!("record_send(ROW({recorded}))"));
        }
        if !sent.is_empty() {
            terms.push(hash_of_bytes(&sent, constant(TOGETHER, Purpose::Value), self.major));
        }
        exclusive_or(&terms)
    }
}

/// SQL: the two hashes of a row whose 64 bits are `r`. They are the seed, which counts in full.
pub(crate) const MIXED: [&str; 2] = ["hashint4extended(0, r)", "hashint4extended(1, r)"];

/// SQL: whether a row of `t` is below the horizon; the same as [`Horizon::covers`] on a server that the horizon
/// reaches. `age` counts transactions back from the present, and rows that were frozen by an old PostgreSQL have the
/// greatest age that there is. Most rows are older than the horizon, which the first comparison tells.
pub(crate) fn covered(horizon: Option<Horizon>) -> String {
    match horizon {
        None => "true".to_owned(),
        Some(horizon) => {
            let low = horizon.low();
            format!(
                "NOT (age(t.xmin) <= (SELECT age('{low}'::xid)) \
                 AND age(t.xmin) > (SELECT age('{low}'::xid)::bigint - {BAND}))"
            )
        }
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

/// SQL: the digest of a range of blocks: number and sums of the rows below the horizon, and the number of the others.
/// OFFSET 0 keeps the row from being hashed twice, and has those above the horizon read, too.
pub(crate) fn query(
    table: &LiveTable,
    wanted: &[ColumnFacts],
    horizon: Option<Horizon>,
    first: u32,
    end: Option<u32>,
) -> String {
    format!(
        "SELECT count(*) FILTER (WHERE f), coalesce(sum({}) FILTER (WHERE f), 0), \
           coalesce(sum({}) FILTER (WHERE f), 0), count(*) FILTER (WHERE NOT f) \
         FROM (SELECT {} AS f, {} AS r FROM ONLY {} t WHERE {} OFFSET 0) s",
        MIXED[0],
        MIXED[1],
        covered(horizon),
        table.row(wanted),
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
             WHERE p.root = a.atttypid AND t.typsend = 0), \
           EXISTS (SELECT FROM pg_type t WHERE t.oid = a.atttypid AND t.typtype = 'e') \
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
                major: session.major(),
                columns: Vec::new(),
            }),
        };
        if let Some(number) = row.parse_optional(5)? {
            let facts = ColumnFacts { number, type_oid: row.parse(7)? };
            let kind = Kind::of(facts.type_oid, row.flag(9)?, row.flag(8)?);
            table.columns.push(LiveColumn { facts, name: row.text(6)?.to_owned(), kind });
        }
    }
    Ok(tables)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn table(columns: usize, major: u32) -> LiveTable {
        let column = |number: usize| LiveColumn {
            facts: ColumnFacts { number: i16::try_from(number).unwrap(), type_oid: 20 },
            name: format!("c{number}"),
            kind: Kind::of(20, false, true),
        };
        let columns = (1..=columns).map(column).collect();
        LiveTable { schema: "s".into(), name: "t".into(), filenode: 1, blocks: 1, major, columns }
    }

    fn everything(table: &LiveTable) -> String {
        let facts: Vec<ColumnFacts> = table.columns.iter().map(|column| column.facts).collect();
        table.row(&facts)
    }

    #[test]
    fn the_constants_of_all_columns_are_different_numbers_that_sql_takes_for_bigint() {
        let purposes = [Purpose::Value, Purpose::Null, Purpose::True, Purpose::False];
        let all: std::collections::BTreeSet<u64> =
            (0..=1600).flat_map(|column| purposes.map(|purpose| constant(column, purpose))).collect();
        assert_eq!(all.len(), 4 * 1601);
        assert!(all.iter().all(|bits| i64::try_from(*bits).is_ok()));
        // What is hashed for a bigint is an int4, and another one for each column.
        let keys: std::collections::BTreeSet<u64> =
            (1..=1600).map(|column| constant(column, Purpose::Value) >> 32).collect();
        assert_eq!(keys.len(), 1600);
        assert!(keys.iter().all(|key| i32::try_from(*key).is_ok()));
        // Frames that were stored depend on them: another number is another format.
        assert_eq!(constant(1, Purpose::Value), 980_875_101_213_047_373);
    }

    #[test]
    fn a_row_of_the_widest_table_is_an_expression_of_little_depth() {
        let depth = |sql: &str| {
            let (mut now, mut most) = (0, 0);
            for letter in sql.chars() {
                now += i32::from(letter == '(') - i32::from(letter == ')');
                most = most.max(now);
            }
            most
        };
        let sql = everything(&table(1600, 17));
        assert_eq!(sql.matches("hashint4extended").count(), 1600);
        assert!(depth(&sql) < 16, "{}", depth(&sql));
        assert_eq!(everything(&table(0, 17)), "0::bigint");
    }

    #[test]
    fn what_cannot_be_hashed_directly_is_hashed_together_before_18() {
        let of = |major| {
            let mut table = table(3, major);
            for (column, kind) in table.columns.iter_mut().zip([
                Kind::of(1700, false, true),
                Kind::of(17, false, true),
                Kind::of(99_999, false, false),
            ]) {
                column.kind = kind;
            }
            everything(&table)
        };
        let (old, new) = (of(17), of(18));
        assert!(
            old.starts_with("hash_array_extended(array[numeric_send(t.\"c1\"), t.\"c2\", record_send(ROW(t.\"c3\"::text))], "),
            "{old}"
        );
        assert_eq!(new.matches("hashbyteaextended").count(), 3, "{new}");
    }

    #[test]
    fn sums_wrap_at_two_to_the_64() {
        assert_eq!(reduce("0").unwrap(), 0);
        assert_eq!(reduce("-1").unwrap(), u64::MAX);
        assert_eq!(reduce("18446744073709551617").unwrap(), 1);
        assert_eq!(reduce("-18446744073709551617").unwrap(), u64::MAX);
        assert!(reduce("1.5").is_err());
    }
}
