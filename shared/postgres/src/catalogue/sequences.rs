//! Sequences and the columns that they feed.

use dr_core::Result;
use dr_core::proof::frame::{SequenceFacts, TableName};

use super::USER_SCHEMA;
use crate::error::is_passing;
use crate::session::Session;
use crate::text::{identifier, qualified};

/// A column without an index on it is asked for its farthest value only when its table is smaller than this.
const SMALL_TABLE_BYTES: u64 = 8 << 20;

/// The sequences of the session's database: one entry for each column that a sequence feeds (identity, serial,
/// `DEFAULT nextval`), one with `feeds` absent for a sequence that feeds none.
///
/// The farthest value is asked for where it is cheap: integer columns that lead an index, or of small tables.
///
/// # Errors
/// Of the connection or the query.
pub async fn sequences(session: &Session) -> Result<Vec<SequenceFacts>> {
    let sql = format!(
        "WITH fed(sequence, relation, attnum) AS ( \
           SELECT d.objid, d.refobjid, d.refobjsubid FROM pg_depend d \
             WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.deptype = 'i' \
               AND d.refobjsubid > 0 \
           UNION \
           SELECT d.refobjid, f.adrelid, f.adnum FROM pg_depend d JOIN pg_attrdef f ON f.oid = d.objid \
             WHERE d.classid = 'pg_attrdef'::regclass AND d.refclassid = 'pg_class'::regclass) \
         SELECT n.nspname, c.relname, \
           CASE WHEN NOT (c.relpersistence = 'u' AND pg_is_in_recovery()) \
             AND has_sequence_privilege(c.oid, 'select, usage') THEN pg_sequence_last_value(c.oid) END, \
           s.seqincrement, tn.nspname, t.relname, a.attname, \
           coalesce(a.atttypid IN (20, 21, 23) AND NOT (t.relpersistence = 'u' AND pg_is_in_recovery()) AND ( \
             EXISTS (SELECT FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_am m ON m.oid = x.relam \
               WHERE i.indrelid = t.oid AND i.indkey[0] = a.attnum AND i.indisvalid AND i.indpred IS NULL \
                 AND m.amname = 'btree') \
             OR t.relkind = 'r' AND pg_relation_size(t.oid) <= {SMALL_TABLE_BYTES}), false) \
         FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
           LEFT JOIN (fed f JOIN pg_class t ON t.oid = f.relation JOIN pg_namespace tn ON tn.oid = t.relnamespace \
             JOIN pg_attribute a ON a.attrelid = f.relation AND a.attnum = f.attnum) ON f.sequence = s.seqrelid \
         WHERE {USER_SCHEMA} AND c.relpersistence IN ('p', 'u') \
         ORDER BY n.nspname COLLATE \"C\", c.relname COLLATE \"C\", t.oid, a.attnum"
    );
    let database = &session.settings().database;
    let mut found = Vec::new();
    for row in session.catalogue_rows("reading the sequences", &sql).await? {
        let increment: i64 = row.parse(3)?;
        let fed = match (row.optional(4), row.optional(5), row.optional(6)) {
            (Some(schema), Some(table), Some(column)) => Some((schema, table, column)),
            _ => None,
        };
        let farthest_fed = match fed {
            Some((schema, table, column)) if row.flag(7)? => {
                farthest(session, schema, table, column, increment).await?
            }
            _ => None,
        };
        found.push(SequenceFacts {
            name: TableName {
                database: database.clone(),
                schema: row.text(0)?.to_owned(),
                table: row.text(1)?.to_owned(),
            },
            last_value: row.parse_optional(2)?,
            increment,
            feeds: fed.map(|(schema, table, column)| format!("{schema}.{table}.{column}")),
            farthest_fed,
        });
    }
    Ok(found)
}

/// The farthest value of a column; `None` also when it cannot be read, which digests and checks report by themselves.
async fn farthest(
    session: &Session,
    schema: &str,
    table: &str,
    column: &str,
    increment: i64,
) -> Result<Option<i64>> {
    let aggregate = if increment < 0 { "min" } else { "max" };
    let sql = format!("SELECT {aggregate}(t.{}) FROM {} t", identifier(column), qualified(schema, table));
    match session.row("reading the farthest value of a column", &sql).await {
        Ok(row) => row.parse_optional(0),
        Err(error) if is_passing(&error) => Err(error),
        Err(_) => Ok(None),
    }
}
