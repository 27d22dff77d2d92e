//! What the catalogue says: facts of the server, its databases, tables, sequences, activity, schema.
//!
//! Every module here is a few queries and their reading; nothing is judged.

pub mod activity;
pub mod findings;
pub mod fingerprint;
pub mod sequences;
pub mod server;
pub mod tables;

/// SQL: namespace `n` may hold users' objects. The schema `lifeboat` may, too.
pub(crate) const USER_SCHEMA: &str = "n.nspname NOT IN ('pg_catalog', 'information_schema') \
     AND n.nspname !~ '^pg_(toast|temp)'";

/// SQL: namespace `n` is not the one that Lifeboat makes for its heartbeat and, on a restore, for `amcheck`.
pub(crate) const FOREIGN_SCHEMA: &str = "n.nspname <> 'lifeboat'";

/// SQL: relation `c` in namespace `n` is not the table that Lifeboat writes itself, by its exact name.
pub(crate) const FOREIGN_RELATION: &str =
    "NOT (n.nspname = 'lifeboat' AND c.relname IN ('heartbeat', 'heartbeat_pkey'))";

/// SQL: the SHA-256 of what columns `a` of class `c` are, without columns that were dropped.
pub(crate) const STRUCTURE: &str = "(SELECT encode(sha256(convert_to(coalesce(string_agg(concat_ws(' ', a.attnum, \
     quote_ident(a.attname), format_type(a.atttypid, a.atttypmod), CASE WHEN a.attnotnull THEN 'not null' END, \
     CASE WHEN a.attcollation <> 0 THEN a.attcollation::regcollation::text END), E'\\n' ORDER BY a.attnum), ''), \
     'UTF8')), 'hex') FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)";

/// SQL: class `c` in namespace `n` is a table whose rows are the users' and are kept here.
pub(crate) fn user_tables() -> String {
    format!(
        "{USER_SCHEMA} AND {FOREIGN_RELATION} AND c.relpersistence IN ('p', 'u') \
         AND (c.relkind = 'r' OR c.relkind = 'm' AND c.relispopulated)"
    )
}
