//! What a server's catalogue says, as facts and fingerprints. Compares nothing.

pub mod findings;
pub mod fingerprint;
pub mod sequences;
pub mod server;
pub mod state;
pub mod tables;

/// Databases that are not users': the server's and RDS's. The database `lifeboat` may hold users' tables, too.
pub(crate) const NOT_USERS: &str = "('mysql', 'information_schema', 'performance_schema', 'sys', 'rdsadmin')";

/// SQL: the table of `information_schema.tables` is not the one that Lifeboat writes itself, by its exact name: names
/// there compare without regard to case.
pub(crate) const FOREIGN_TABLE: &str =
    "NOT (HEX(table_schema) = HEX('lifeboat') AND HEX(table_name) = HEX('heartbeat'))";
