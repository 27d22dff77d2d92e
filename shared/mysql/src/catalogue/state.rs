//! The state of a source at one moment: what its counters and times say of writes.
//!
//! What a server shows is not the same everywhere. `UPDATE_TIME` is there on all, in memory only. Counters of rows by
//! table need `performance_schema`, which RDS turns on together with Performance Insights and leaves off otherwise;
//! MariaDB's `userstat` is off by default and does not tell kinds of writes apart, so it is not used. Counters of the
//! whole server are always there: `Innodb_rows_*`, or else `Handler_*`, which do not count what foreign keys do.

use std::collections::{BTreeMap, BTreeSet};

use dr_core::Result;
use dr_core::proof::frame::TableName;
use dr_core::proof::keyed::{SourceState, TableState, Written};

use super::server::moment;
use super::tables::structures;
use super::{FOREIGN_TABLE, NOT_USERS};
use crate::session::Session;

type Names = (String, String);

/// Looks at everything that tells of writes.
///
/// # Errors
/// Of the connection or the queries.
pub async fn state(session: &Session) -> Result<SourceState> {
    let doing = "reading the activity counters";
    let clock = "SELECT CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED)";
    let taken_at = moment(session.row(doing, clock).await?.parse(0)?)?;
    let mut status: BTreeMap<String, u64> = BTreeMap::new();
    for row in session.rows(doing, "SHOW GLOBAL STATUS").await? {
        if let (Some(name), Some(Ok(value))) = (row.optional(0), row.optional(1).map(str::parse)) {
            status.insert(name.to_owned(), value);
        }
    }
    let written = |names: [&str; 3]| {
        let value = |name| status.get(name).copied();
        Some(Written { inserted: value(names[0])?, updated: value(names[1])?, deleted: value(names[2])? })
    };
    let all = written(["Innodb_rows_inserted", "Innodb_rows_updated", "Innodb_rows_deleted"])
        .or_else(|| written(["Handler_write", "Handler_update", "Handler_delete"]));
    let counted = counted(session).await?;
    let structures = structures(session).await?;
    let sql = format!(
        "SELECT table_schema, table_name, create_time, update_time FROM information_schema.tables \
         WHERE table_type IN ('BASE TABLE', 'SYSTEM VERSIONED') AND table_schema NOT IN {NOT_USERS} \
           AND {FOREIGN_TABLE}"
    );
    let mut tables = Vec::new();
    for row in session.rows(doing, &sql).await? {
        let names: Names = (row.text(0)?.to_owned(), row.text(1)?.to_owned());
        // Created since the columns were read: it is none of those that were planned.
        let Some(structure) = structures.get(&names) else { continue };
        tables.push(TableState {
            structure: structure.clone(),
            created: row.optional(2).map(str::to_owned),
            updated: row.optional(3).map(str::to_owned),
            written: counted.get(&names).copied(),
            name: TableName { database: names.0, schema: String::new(), table: names.1 },
        });
    }
    tables.sort_by(|a, b| a.name.cmp(&b.name));
    let statements = status.iter().filter(|(name, _)| name.starts_with("Com_"));
    Ok(SourceState {
        taken_at,
        started: session.started().parse().unwrap_or(0),
        written: all,
        statements: statements.map(|(name, count)| (name.clone(), *count)).collect(),
        tables,
    })
}

/// The counters of the tables, where the server keeps them: none of tables that foreign keys write to.
async fn counted(session: &Session) -> Result<BTreeMap<Names, Written>> {
    let doing = "reading the activity counters";
    let mut counted = BTreeMap::new();
    if !session.row(doing, "SELECT @@performance_schema").await?.flag(0)? {
        return Ok(counted);
    }
    let sql = "SELECT COUNT(*) FROM performance_schema.setup_instruments \
               WHERE name = 'wait/io/table/sql/handler' AND enabled = 'YES'";
    if !session.row(doing, sql).await?.flag(0)? {
        return Ok(counted);
    }
    let sql = "SELECT constraint_schema, table_name FROM information_schema.referential_constraints \
               WHERE update_rule IN ('CASCADE', 'SET NULL') OR delete_rule IN ('CASCADE', 'SET NULL')";
    let mut written_by_keys: BTreeSet<Names> = BTreeSet::new();
    for row in session.rows(doing, sql).await? {
        written_by_keys.insert((row.text(0)?.to_owned(), row.text(1)?.to_owned()));
    }
    let sql = "SELECT object_schema, object_name, count_insert, count_update, count_delete \
               FROM performance_schema.table_io_waits_summary_by_table WHERE object_type = 'TABLE'";
    for row in session.rows(doing, sql).await? {
        let names = (row.text(0)?.to_owned(), row.text(1)?.to_owned());
        if !written_by_keys.contains(&names) {
            let written = Written { inserted: row.parse(2)?, updated: row.parse(3)?, deleted: row.parse(4)? };
            counted.insert(names, written);
        }
    }
    Ok(counted)
}
