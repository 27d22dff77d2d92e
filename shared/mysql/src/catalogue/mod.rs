//! What a server's catalogue says, as facts and fingerprints. Compares nothing.

pub mod findings;
pub mod fingerprint;
pub mod sequences;
pub mod server;
pub mod state;
pub mod tables;

/// Databases that are not users': the server's, RDS's and our own.
pub(crate) const NOT_USERS: &str =
    "('mysql', 'information_schema', 'performance_schema', 'sys', 'rdsadmin', 'lifeboat')";
