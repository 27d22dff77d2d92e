//! The tables with their columns and keys, and where they are cut.

use std::collections::BTreeMap;

use dr_core::Result;
use dr_core::proof::frame::{Persistence, TableFacts, TableName};
use dr_core::proof::keyed::{KeyedColumn, KeyedFacts};
use dr_database::Pace;
use sha2::{Digest as _, Sha256};

use super::{FOREIGN_TABLE, NOT_USERS};
use crate::digest::source;
use crate::session::Session;
use crate::text::{TextRow, identifier, literal, unexpected};

/// Rows in a slice at most: so many hashes fit into the memory that a server gives to a temporary table by default.
const MOST_ROWS: u64 = 50_000;
/// Rows in a slice at least, however long they are.
const LEAST_ROWS: u64 = 100;
/// A row is taken to have so many bytes where the server has no statistics.
const USUAL_ROW: u64 = 200;
/// Values longer than this are hashed by themselves.
const LONG: u64 = 65_535;

struct Columns {
    stored: Vec<KeyedColumn>,
    structure: String,
}

/// Columns of all tables, and a digest of their definitions.
async fn columns(session: &Session) -> Result<BTreeMap<(String, String), Columns>> {
    let sql = format!(
        "SELECT table_schema, table_name, column_name, data_type, column_type, is_nullable, character_set_name, \
           collation_name, character_octet_length, extra, generation_expression, ordinal_position \
         FROM information_schema.columns WHERE table_schema NOT IN {NOT_USERS} \
         ORDER BY table_schema, table_name, ordinal_position"
    );
    let mut all: BTreeMap<(String, String), (Columns, Sha256)> = BTreeMap::new();
    for row in session.rows("reading the columns", &sql).await? {
        let key = (row.text(0)?.to_owned(), row.text(1)?.to_owned());
        let (columns, hash) = all
            .entry(key)
            .or_insert_with(|| (Columns { stored: Vec::new(), structure: String::new() }, Sha256::new()));
        for part in [2, 4, 5, 6, 7, 9, 10] {
            let text = row.optional(part).unwrap_or("\0");
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text.as_bytes());
        }
        // Computed when read: there is nothing of it in the files.
        if !row.optional(9).unwrap_or_default().to_ascii_uppercase().contains("VIRTUAL") {
            columns.stored.push(column(&row)?);
        }
    }
    Ok(all
        .into_iter()
        .map(|(key, (mut columns, hash))| {
            columns.structure = dr_core::ids::hex(&hash.finalize());
            (key, columns)
        })
        .collect())
}

fn column(row: &TextRow) -> Result<KeyedColumn> {
    let text = match (row.optional(6), row.optional(7)) {
        (Some(set), Some(collation)) => Some((plain(set)?, plain(collation)?)),
        _ => None,
    };
    let data_type = row.text(3)?.to_ascii_lowercase();
    let long = row.parse_optional::<u64>(8)?.is_some_and(|bytes| bytes > LONG) || data_type == "json";
    Ok(KeyedColumn { name: row.text(2)?.to_owned(), data_type, text, nullable: row.text(5)? == "YES", long })
}

/// The name of a character set or a collation, which goes into SQL unquoted.
fn plain(name: &str) -> Result<String> {
    if name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return Ok(name.to_owned());
    }
    Err(unexpected("a character set has an unexpected name"))
}

/// The structure of every table, as [`TableFacts::structure`].
pub(super) async fn structures(session: &Session) -> Result<BTreeMap<(String, String), String>> {
    Ok(columns(session).await?.into_iter().map(|(key, columns)| (key, columns.structure)).collect())
}

/// All tables of all users' databases, in order, not cut yet.
///
/// # Errors
/// Of the connection or the queries.
pub async fn tables(session: &Session) -> Result<Vec<TableFacts>> {
    let mut columns = columns(session).await?;
    let mut keys: BTreeMap<(String, String), (Vec<String>, bool)> = BTreeMap::new();
    let sql = format!(
        "SELECT table_schema, table_name, column_name, sub_part IS NOT NULL FROM information_schema.statistics \
         WHERE index_name = 'PRIMARY' AND table_schema NOT IN {NOT_USERS} \
         ORDER BY table_schema, table_name, seq_in_index"
    );
    for row in session.rows("reading the primary keys", &sql).await? {
        let key = keys.entry((row.text(0)?.to_owned(), row.text(1)?.to_owned())).or_default();
        key.0.push(row.text(2)?.to_owned());
        key.1 |= row.flag(3)?;
    }
    let sql = format!(
        "SELECT table_schema, table_name, engine, table_type, data_length FROM information_schema.tables \
         WHERE table_type IN ('BASE TABLE', 'SYSTEM VERSIONED') AND table_schema NOT IN {NOT_USERS} \
           AND {FOREIGN_TABLE}"
    );
    let mut found = Vec::new();
    for row in session.rows("listing the tables", &sql).await? {
        let (database, table) = (row.text(0)?.to_owned(), row.text(1)?.to_owned());
        let at = (database.clone(), table.clone());
        let Some(columns) = columns.remove(&at) else { continue };
        let (primary_key, shortened) = keys.remove(&at).unwrap_or_default();
        // A table that cannot be opened has no engine here; reading it will tell.
        let engine = row.optional(2).unwrap_or("unknown").to_owned();
        let key = if shortened { Vec::new() } else { usable(&primary_key, &columns.stored) };
        let in_memory = engine.eq_ignore_ascii_case("MEMORY");
        found.push(TableFacts {
            name: TableName { database, schema: String::new(), table },
            oid: 0,
            filenode: 0,
            persistence: if in_memory { Persistence::Unlogged } else { Persistence::Permanent },
            blocks: 1,
            bytes: row.parse_optional(4)?.unwrap_or(0),
            primary_key,
            structure: columns.structure,
            columns: Vec::new(),
            keyed: Some(KeyedFacts {
                transactional: engine.eq_ignore_ascii_case("InnoDB"),
                engine,
                versioned: row.text(3)? == "SYSTEM VERSIONED",
                columns: columns.stored,
                key,
                bounds: Vec::new(),
            }),
        });
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// The columns of a key whose values can be written down exactly and compare as the index orders them; none where one
/// cannot.
fn usable(primary_key: &[String], columns: &[KeyedColumn]) -> Vec<KeyedColumn> {
    let found: Option<Vec<KeyedColumn>> = primary_key
        .iter()
        .map(|name| columns.iter().find(|column| column.name == *name && written(column).is_some()).cloned())
        .collect();
    found.unwrap_or_default()
}

/// A value of a key column as text that [`key_literal`] understands; `None` for types that are not cut by: an ENUM
/// is ordered by its number and compared by its label, a FLOAT is not what its digits say.
fn written(column: &KeyedColumn) -> Option<String> {
    let name = format!("t.{}", identifier(&column.name));
    match column.data_type.as_str() {
        "tinyint" | "smallint" | "mediumint" | "int" | "bigint" | "decimal" | "year" | "date"
        | "datetime" | "timestamp" | "time" => Some(format!("CAST({name} AS CHAR)")),
        "char" | "varchar" if column.text.is_some() => Some(format!("HEX({name})")),
        "binary" | "varbinary" => Some(format!("HEX({name})")),
        _ => None,
    }
}

/// A value of a key column as a literal that compares with the column as its own values do.
fn key_literal(column: &KeyedColumn, text: &str) -> Result<String> {
    let number = |byte: u8| byte.is_ascii_digit() || byte == b'-' || byte == b'.';
    match column.data_type.as_str() {
        "date" | "datetime" | "timestamp" | "time" => Ok(literal(text)),
        "char" | "varchar" | "binary" | "varbinary" if text.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            Ok(match &column.text {
                Some((set, collation)) => format!("_{set} X'{text}' COLLATE {collation}"),
                None => format!("X'{text}'"),
            })
        }
        "tinyint" | "smallint" | "mediumint" | "int" | "bigint" | "decimal" | "year"
            if !text.is_empty() && text.bytes().all(number) =>
        {
            Ok(text.to_owned())
        }
        _ => Err(unexpected("a key has an unexpected form")),
    }
}

/// Finds where a table is cut, by walking along its key in steps of about `unit_bytes`: every bound is a key that is
/// there, so slices are of a size whatever the keys are.
///
/// A table that the server takes for small is not walked along.
///
/// # Errors
/// Of the connection or the query. A table that cannot be read is left in one piece: reading it will tell.
pub async fn find_bounds(
    session: &Session,
    table: &mut TableFacts,
    unit_bytes: u64,
    pace: Option<&Pace>,
) -> Result<()> {
    let Some(facts) = table.keyed.clone() else { return Ok(()) };
    if facts.key.is_empty() {
        return Ok(());
    }
    let doing = format!("cutting {}", table.name);
    let sql = format!(
        "SELECT table_rows FROM information_schema.tables WHERE table_schema = {} AND table_name = {}",
        literal(&table.name.database),
        literal(&table.name.table)
    );
    let rows = session.rows(&doing, &sql).await?;
    let estimate: u64 = rows.first().map(|row| row.parse_optional(0)).transpose()?.flatten().unwrap_or(0);
    let row_bytes = table.bytes.checked_div(estimate).map_or(USUAL_ROW, |bytes| bytes.max(1));
    let step = (unit_bytes / row_bytes).clamp(LEAST_ROWS, MOST_ROWS);
    if estimate < step / 4 && table.bytes < unit_bytes.min(1 << 20) {
        return Ok(());
    }
    let values: Vec<String> = facts.key.iter().filter_map(written).collect();
    let order: Vec<String> =
        facts.key.iter().map(|column| format!("t.{}", identifier(&column.name))).collect();
    let mut bounds: Vec<Vec<String>> = Vec::new();
    loop {
        if let Some(pace) = pace {
            pace.wait_for(step * row_bytes).await;
        }
        let from = bounds
            .last()
            .map_or_else(|| "TRUE".to_owned(), |bound| crate::digest::compared(&facts.key, bound, true));
        let sql = format!(
            "SELECT {} FROM {} WHERE {from} ORDER BY {} LIMIT 1 OFFSET {step}",
            values.join(", "),
            source(table, &facts),
            order.join(", ")
        );
        let row = match session.try_rows(&sql).await {
            Ok(mut rows) => rows.pop(),
            Err(error) => {
                let fault = session.fault(&doing, &error);
                if crate::error::server_error(&error).is_none() || dr_database::pool::is_passing(&fault) {
                    return Err(fault);
                }
                None
            }
        };
        let Some(row) = row else { break };
        let literals = facts.key.iter().enumerate().map(|(at, column)| key_literal(column, row.text(at)?));
        bounds.push(literals.collect::<Result<_>>()?);
    }
    table.blocks = u32::try_from(bounds.len() + 1).unwrap_or(u32::MAX);
    // Statistics lag behind; a table that was walked along is at least so large.
    table.bytes = table.bytes.max(bounds.len() as u64 * step * row_bytes.min(64));
    if let Some(keyed) = &mut table.keyed {
        keyed.bounds = bounds;
    }
    Ok(())
}
