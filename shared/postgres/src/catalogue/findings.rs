//! What the catalogue of a restore says about its state.

use dr_core::Result;
use dr_core::proof::examination::CatalogueFindings;
use dr_core::proof::frame::{Heartbeat, TableName};

use super::USER_SCHEMA;
use super::fingerprint::fingerprint;
use super::sequences::sequences;
use super::server::databases;
use crate::heartbeat;
use crate::session::Session;
use dr_database::Access;
use dr_database::ConnectionSettings;

/// Reads the catalogues of all databases of a restore. With `beat`, the frame's heartbeat, its row is looked for;
/// without, `heartbeat` stays empty.
///
/// `newest_known_moment` is the newest beat of any operation. Commit timestamps would be finer where
/// `track_commit_timestamp` is on, but RDS itself commits on a restored instance, and so does an examination.
///
/// # Errors
/// Of the connections or the queries.
pub async fn catalogue(settings: &ConnectionSettings, beat: Option<&Heartbeat>) -> Result<CatalogueFindings> {
    let mut findings = CatalogueFindings {
        schema: std::collections::BTreeMap::new(),
        sequences: Vec::new(),
        collation_drift: Vec::new(),
        invalid_indexes: Vec::new(),
        unvalidated_constraints: Vec::new(),
        unlogged_tables: Vec::new(),
        heartbeat: None,
        newest_known_moment: None,
    };
    let names = databases(&Session::open(settings, Access::ReadOnly).await?).await?;
    for name in names {
        let session = Session::open(&settings.for_database(&name), Access::ReadOnly).await?;
        findings.schema.insert(name.clone(), fingerprint(&session).await?);
        findings.sequences.extend(sequences(&session).await?);
        findings.collation_drift.extend(collation_drift(&session).await?);
        findings.invalid_indexes.extend(named(&session, "listing invalid indexes", INVALID_INDEXES).await?);
        let unvalidated = named(&session, "listing unvalidated constraints", UNVALIDATED_CONSTRAINTS).await?;
        findings.unvalidated_constraints.extend(unvalidated);
        findings.unlogged_tables.extend(unlogged(&session).await?);
        let found = heartbeat::find(&session, beat.map(|beat| beat.operation_id.as_str())).await?;
        if beat.is_some_and(|beat| beat.database == name) {
            findings.heartbeat = found.of_operation;
        }
        findings.newest_known_moment = findings.newest_known_moment.max(found.newest);
    }
    Ok(findings)
}

const INVALID_INDEXES: &str = "SELECT n.nspname, c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid \
    JOIN pg_namespace n ON n.oid = c.relnamespace WHERE NOT (i.indisvalid AND i.indisready AND i.indislive)";

const UNVALIDATED_CONSTRAINTS: &str = "SELECT n.nspname, concat_ws('.', c.relname, k.conname) FROM pg_constraint k \
    JOIN pg_namespace n ON n.oid = k.connamespace LEFT JOIN pg_class c ON c.oid = k.conrelid WHERE NOT k.convalidated";

/// Objects as `database.schema.name`, sorted, for a query that gives schema and name.
async fn named(session: &Session, doing: &str, sql: &str) -> Result<Vec<String>> {
    let database = &session.settings().database;
    let rows = session.catalogue_rows(doing, sql).await?;
    let mut names = rows
        .iter()
        .map(|row| Ok(format!("{database}.{}.{}", row.text(0)?, row.text(1)?)))
        .collect::<Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

async fn unlogged(session: &Session) -> Result<Vec<TableName>> {
    let sql = format!(
        "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE {USER_SCHEMA} AND c.relkind = 'r' AND c.relpersistence = 'u' ORDER BY 1, 2"
    );
    let rows = session.catalogue_rows("listing unlogged tables", &sql).await?;
    rows.iter()
        .map(|row| {
            Ok(TableName {
                database: session.settings().database.clone(),
                schema: row.text(0)?.to_owned(),
                table: row.text(1)?.to_owned(),
            })
        })
        .collect()
}

/// Collations that an index of this database uses, and the database's own, whose version is no longer what the
/// server's library says.
async fn collation_drift(session: &Session) -> Result<Vec<String>> {
    let database = &session.settings().database;
    let mut sql = String::from(
        "SELECT DISTINCT format('%s (recorded %s, now %s)', l.oid::regcollation, l.collversion, \
           pg_collation_actual_version(l.oid)) FROM pg_collation l \
         WHERE l.collversion IS DISTINCT FROM pg_collation_actual_version(l.oid) AND l.collversion IS NOT NULL \
           AND EXISTS (SELECT FROM pg_index i WHERE l.oid = ANY (i.indcollation::oid[]))",
    );
    if session.major() >= 15 {
        sql.push_str(
            " UNION ALL SELECT format('default collation (recorded %s, now %s)', d.datcollversion, \
                pg_database_collation_actual_version(d.oid)) FROM pg_database d \
              WHERE d.datname = current_database() AND d.datcollversion IS NOT NULL \
                AND d.datcollversion IS DISTINCT FROM pg_database_collation_actual_version(d.oid)",
        );
    }
    let rows = session.catalogue_rows("comparing collation versions", &sql).await?;
    rows.iter().map(|row| Ok(format!("{database}: {}", row.text(0)?))).collect()
}
