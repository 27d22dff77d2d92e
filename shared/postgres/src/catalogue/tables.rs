//! The tables of a database.

use dr_core::proof::frame::{ColumnFacts, Persistence, TableFacts, TableName};
use dr_core::{DrError, ErrorName, Result};

use super::{STRUCTURE, USER_SCHEMA, user_tables};
use crate::session::Session;
use crate::text::{TextRow, unexpected};

/// Tables, partitions and populated materialised views of the session's database with their columns, in the order of
/// their object ids. Temporary and foreign tables, system catalogues and Lifeboat's own table are left out.
///
/// # Errors
/// `PermissionMissing` naming the tables and sequences that the user may not read in full.
pub async fn tables(session: &Session) -> Result<Vec<TableFacts>> {
    let sql = format!(
        "SELECT c.oid, n.nspname, c.relname, coalesce(pg_relation_filenode(c.oid), 0), c.relpersistence, \
           coalesce(pg_relation_size(c.oid), 0) / current_setting('block_size')::bigint, \
           coalesce(pg_table_size(c.oid), 0), {STRUCTURE}, \
           (SELECT json_agg(a.attname ORDER BY k.place) FROM pg_index i \
              CROSS JOIN unnest(i.indkey) WITH ORDINALITY AS k(attnum, place) \
              JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum \
              WHERE i.indrelid = c.oid AND i.indisprimary AND k.place <= i.indnkeyatts), \
           (SELECT string_agg(concat(a.attnum, ':', a.atttypid), ',' ORDER BY a.attnum) FROM pg_attribute a \
              WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated <> 'v') \
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {} ORDER BY c.oid",
        user_tables()
    );
    let database = &session.settings().database;
    let rows = session.catalogue_rows("listing the tables", &sql).await?;
    rows.iter().map(|row| facts(database, row)).collect()
}

fn facts(database: &str, row: &TextRow) -> Result<TableFacts> {
    let primary_key = match row.optional(8) {
        Some(json) => {
            serde_json::from_str(json).map_err(|error| unexpected("a primary key").with_source(error))?
        }
        None => Vec::new(),
    };
    Ok(TableFacts {
        name: TableName {
            database: database.to_owned(),
            schema: row.text(1)?.to_owned(),
            table: row.text(2)?.to_owned(),
        },
        oid: row.parse(0)?,
        filenode: row.parse(3)?,
        persistence: if row.text(4)? == "u" { Persistence::Unlogged } else { Persistence::Permanent },
        blocks: row.parse(5)?,
        bytes: row.parse(6)?,
        primary_key,
        structure: row.text(7)?.to_owned(),
        columns: columns(row.optional(9).unwrap_or_default())?,
        keyed: None,
    })
}

fn columns(list: &str) -> Result<Vec<ColumnFacts>> {
    list.split(',')
        .filter(|part| !part.is_empty())
        .map(|part| {
            let (number, type_oid) = part.split_once(':')?;
            Some(ColumnFacts { number: number.parse().ok()?, type_oid: type_oid.parse().ok()? })
        })
        .collect::<Option<_>>()
        .ok_or_else(|| unexpected("a list of columns"))
}

/// Fails when the user could not read every row of every table and every sequence of the session's database, the
/// heartbeat's among them: rights that are missing, and policies that would hide rows. The heartbeat belongs to whom the
/// source is read as, which the user of a restore need not be.
///
/// # Errors
/// `PermissionMissing` naming up to five of them.
pub async fn check_readable(session: &Session) -> Result<()> {
    let hidden = unreadable(session).await?;
    let Some(first) = hidden.first() else { return Ok(()) };
    let some: Vec<String> = hidden.iter().take(5).map(|(name, _)| format!("`{name}`")).collect();
    let rest = hidden.len().saturating_sub(some.len());
    let and_more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
    let what = format!(
        "checking rights in {}: {}{and_more} cannot be read in full",
        session.settings().place(),
        some.join(", ")
    );
    let user = &session.settings().user;
    let remedy = if first.1 {
        format!("Row security applies: give the user `{user}` BYPASSRLS, or connect as the tables' owner.")
    } else {
        format!("Grant pg_read_all_data to the user `{user}`.")
    };
    Err(DrError::new(ErrorName::PermissionMissing, what).with_remedy(remedy))
}

/// What cannot be read in full, with whether row security is the reason; rights that are missing come first.
async fn unreadable(session: &Session) -> Result<Vec<(String, bool)>> {
    let sql = format!(
        "SELECT format('%s.%s', n.nspname, c.relname), s.rights FROM pg_class c \
           JOIN pg_namespace n ON n.oid = c.relnamespace \
           CROSS JOIN LATERAL (SELECT has_schema_privilege(n.oid, 'usage') AND CASE c.relkind \
             WHEN 'S' THEN has_sequence_privilege(c.oid, 'select') ELSE has_table_privilege(c.oid, 'select') END) \
             AS s(rights) \
         WHERE ({} OR {USER_SCHEMA} AND c.relkind = 'S' AND c.relpersistence IN ('p', 'u') \
             OR n.nspname = 'lifeboat' AND c.relname = 'heartbeat' AND c.relkind = 'r') \
           AND NOT (s.rights AND (c.relkind = 'S' OR NOT row_security_active(c.oid))) \
         ORDER BY s.rights, 1",
        user_tables()
    );
    let rows = session.catalogue_rows("checking rights", &sql).await?;
    rows.iter().map(|row| Ok((row.text(0)?.to_owned(), row.flag(1)?))).collect()
}
