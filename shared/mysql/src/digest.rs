//! The digest of rows, as SQL.
//!
//! Each row becomes the first 128 bits of a SHA-256 over an unambiguous text of its stored columns: a bitmap of NULLs,
//! then every value, those of variable length with their length before them. Numbers are exact in it (a `FLOAT` is
//! shown as the double that it is, not in its six digits), strings are their bytes in their own character set. The two
//! halves are added up as exact decimals and reduced here.

use std::fmt::Write as _;

use dr_core::Result;
use dr_core::proof::Digest;
use dr_core::proof::frame::{Slice, TableFacts};
use dr_core::proof::keyed::{KeyedColumn, KeyedFacts};

use crate::text::{TextRow, identifier, qualified, unexpected};

/// Rows of a table without a usable key up to which hashes are kept in a temporary table of the server for the
/// statement's time. Beyond, each is computed three times instead.
const MOST_KEPT_ROWS: u64 = 1_000_000;

/// One value as a string that says everything of it.
fn value(column: &KeyedColumn) -> String {
    let name = format!("t.{}", identifier(&column.name));
    let bytes = |text: String| {
        if column.long {
            format!("SHA2({text}, 256)")
        } else {
            format!("CONCAT(LENGTH({text}), ':', {text})")
        }
    };
    let value = match column.data_type.as_str() {
        // Shown as doubles, in as many digits as it takes.
        "float" | "double" | "real" => format!("({name} * 1e0)"),
        "bit" => format!("({name} + 0)"),
        "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" | "enum" | "set" => {
            bytes(format!("CAST({name} AS BINARY)"))
        }
        "json" => bytes(format!("CAST(CAST({name} AS CHAR CHARACTER SET utf8mb4) AS BINARY)")),
        "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => bytes(name),
        "geometry" | "point" | "linestring" | "polygon" | "multipoint" | "multilinestring"
        | "multipolygon" | "geometrycollection" | "geomcollection" | "vector" => {
            bytes(format!("HEX({name})"))
        }
        "uuid" | "inet4" | "inet6" => format!("CAST({name} AS CHAR)"),
        _ => name,
    };
    if column.nullable { format!("IFNULL({value}, '')") } else { value }
}

/// The hash of a row.
fn row_hash(columns: &[KeyedColumn]) -> String {
    let mut sql = String::from("UNHEX(LEFT(SHA2(CONCAT_WS('|', CONCAT(''");
    for column in columns.iter().filter(|column| column.nullable) {
        let _ = write!(sql, ", t.{} IS NULL", identifier(&column.name));
    }
    sql.push(')');
    for column in columns {
        let _ = write!(sql, ", {}", value(column));
    }
    sql.push_str("), 256), 32))");
    sql
}

/// A key at or above a bound, or below it, in the order of the key. The first line lets the server find its place in
/// the index; the rest is the order of tuples, spelled out, because a comparison of row values is not looked up.
pub(crate) fn compared(key: &[KeyedColumn], bound: &[String], at_or_above: bool) -> String {
    let (strict, last) = if at_or_above { (">", ">=") } else { ("<", "<") };
    let mut tuple = String::new();
    for (index, (column, literal)) in key.iter().zip(bound).enumerate().rev() {
        let name = format!("t.{}", identifier(&column.name));
        tuple = if index + 1 == key.len() {
            format!("{name} {last} {literal}")
        } else {
            format!("{name} {strict} {literal} OR ({name} = {literal} AND ({tuple}))")
        };
    }
    match (key.first(), bound.first()) {
        (Some(column), Some(literal)) if key.len() > 1 => {
            format!("t.{} {strict}= {literal} AND ({tuple})", identifier(&column.name))
        }
        _ => tuple,
    }
}

/// The rows of a slice. A slice of a table whose bounds could not be taken over reads all in its first, and nothing
/// in the others.
fn condition(facts: &KeyedFacts, slice: Slice) -> String {
    let bound = |number: u32| facts.bounds.get((number as usize).checked_sub(1)?);
    let mut conditions = Vec::new();
    if slice.first_block > 0 {
        match bound(slice.first_block) {
            Some(lower) => conditions.push(compared(&facts.key, lower, true)),
            None => return "FALSE".to_owned(),
        }
    }
    if let Some(upper) = slice.end_block.and_then(bound) {
        conditions.push(compared(&facts.key, upper, false));
    }
    if conditions.is_empty() { "TRUE".to_owned() } else { format!("({})", conditions.join(") AND (")) }
}

/// The table, read by its rows and not by an index that happens to hold all that is asked for.
pub(crate) fn source(table: &TableFacts, facts: &KeyedFacts) -> String {
    let history = if facts.versioned { " FOR SYSTEM_TIME ALL" } else { "" };
    let index = if table.primary_key.is_empty() { "USE INDEX ()" } else { "FORCE INDEX (PRIMARY)" };
    format!("{}{history} AS t {index}", qualified(&table.name.database, &table.name.table))
}

/// The query of a slice's digest: rows, two sums, and rows whose hash is NULL.
pub(crate) fn query(table: &TableFacts, facts: &KeyedFacts, slice: Slice, rows: u64) -> String {
    let half = |hash: &str, from: u32| {
        format!("COALESCE(SUM(CAST(CONV(HEX(SUBSTR({hash}, {from}, 8)), 16, 10) AS UNSIGNED)), 0)")
    };
    let (hash, from, condition) = (row_hash(&facts.columns), source(table, facts), condition(facts, slice));
    if facts.key.is_empty() && rows > MOST_KEPT_ROWS {
        return format!(
            "SELECT COUNT(*), {}, {}, COALESCE(SUM({hash} IS NULL), 0) FROM {from} WHERE {condition}",
            half(&hash, 1),
            half(&hash, 9)
        );
    }
    // The limit keeps the server from merging the inner query into the outer, which would hash every row three times.
    format!(
        "SELECT COUNT(*), {}, {}, COALESCE(SUM(h IS NULL), 0) FROM (SELECT {hash} AS h FROM {from} \
         WHERE {condition} LIMIT 18446744073709551615) AS d",
        half("h", 1),
        half("h", 9)
    )
}

/// A decimal number, modulo 2^64.
fn reduced(decimal: &str) -> Result<u64> {
    let digits = decimal.split('.').next().unwrap_or_default();
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(unexpected("a sum is no number"));
    }
    Ok(digits.bytes().fold(0u64, |sum, digit| sum.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'))))
}

/// The digest in an answer, and how many rows could not be hashed.
pub(crate) fn digest_of(row: &TextRow) -> Result<(Digest, u64)> {
    let digest = Digest { rows: row.parse(0)?, s0: reduced(row.text(1)?)?, s1: reduced(row.text(2)?)? };
    Ok((digest, row.parse(3)?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn column(name: &str) -> KeyedColumn {
        KeyedColumn { name: name.into(), data_type: "int".into(), text: None, nullable: false, long: false }
    }

    #[test]
    fn sums_beyond_64_bits_are_reduced_exactly() {
        for (text, expected) in [
            ("0", 0),
            ("18446744073709551615", u64::MAX),
            ("18446744073709551616", 0),
            ("18446744073709551625", 9),
            ("340282366920938463463374607431768211455", u64::MAX),
            ("12.000", 12),
        ] {
            assert_eq!(reduced(text).unwrap(), expected, "{text}");
        }
        assert!(reduced("-1").is_err() && reduced("").is_err() && reduced("1e3").is_err());
    }

    #[test]
    fn bounds_follow_the_order_of_the_key() {
        let bound = ["1".to_owned(), "'x'".to_owned(), "-3".to_owned()];
        let key = [column("a"), column("b"), column("c")];
        assert_eq!(compared(&key[..1], &bound[..1], true), "t.`a` >= 1");
        assert_eq!(
            compared(&key[..2], &bound[..2], true),
            "t.`a` >= 1 AND (t.`a` > 1 OR (t.`a` = 1 AND (t.`b` >= 'x')))"
        );
        assert_eq!(
            compared(&key, &bound, false),
            "t.`a` <= 1 AND (t.`a` < 1 OR (t.`a` = 1 AND (t.`b` < 'x' OR (t.`b` = 'x' AND (t.`c` < -3)))))"
        );
    }
}
