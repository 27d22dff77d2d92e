//! How much was changed: PostgreSQL's own counters per table.
//!
//! Counters are flushed late: a busy session reports within a second of a transaction's end, an idle one within ten
//! (PostgreSQL 15 and later; before, a collector process writes a file that may be half a second old). Whoever reads
//! them *after* a moment to bound what happened before it has to wait: see [`crate::frame::SETTLING`].

use dr_core::Result;
use dr_core::proof::frame::{DatabaseActivity, TableActivity, TableName};

use super::server::moment;
use super::{STRUCTURE, user_tables};
use crate::session::Session;

/// The counters of all tables of the session's database. A standby's counters know nothing of what it replays: ask
/// the writer.
///
/// # Errors
/// Of the connection or the query.
pub async fn activity(session: &Session) -> Result<DatabaseActivity> {
    let database = session.settings().database.clone();
    let doing = "reading the activity counters";
    let sql = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, \
               (SELECT concat_ws(' / ', stats_reset, pg_postmaster_start_time()) FROM pg_stat_database \
                WHERE datname = current_database())";
    let head = session.row(doing, sql).await?;
    let sql = format!(
        "SELECT c.oid, n.nspname, c.relname, coalesce(pg_relation_filenode(c.oid), 0), {STRUCTURE}, \
           pg_stat_get_tuples_inserted(c.oid), pg_stat_get_tuples_updated(c.oid), pg_stat_get_tuples_deleted(c.oid) \
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {} ORDER BY c.oid",
        user_tables()
    );
    let mut tables = Vec::new();
    for row in session.catalogue_rows(doing, &sql).await? {
        tables.push(TableActivity {
            name: TableName {
                database: database.clone(),
                schema: row.text(1)?.to_owned(),
                table: row.text(2)?.to_owned(),
            },
            oid: row.parse(0)?,
            filenode: row.parse(3)?,
            structure: row.text(4)?.to_owned(),
            inserted: row.parse(5)?,
            updated: row.parse(6)?,
            deleted: row.parse(7)?,
        });
    }
    let sql = "SELECT relname, n_tup_ins + n_tup_upd + n_tup_del FROM pg_stat_sys_tables WHERE schemaname = 'pg_catalog'";
    let rows = session.catalogue_rows(doing, sql).await?;
    let catalogue_changes =
        rows.iter().map(|row| Ok((row.text(0)?.to_owned(), row.parse(1)?))).collect::<Result<_>>()?;
    Ok(DatabaseActivity {
        database,
        stats_reset: head.optional(1).map(str::to_owned),
        taken_at: moment(head.parse(0)?)?,
        tables,
        catalogue_changes,
    })
}
