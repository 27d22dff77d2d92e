//! What can go wrong around a raw server. Each error says what was being done and to which file or server;
//! the cause is its source.

use std::io;
use std::path::{Path, PathBuf};

/// A failure of a raw server, its tools or its files.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or process operation failed.
    #[error("{doing} {path}")]
    Io {
        /// What was being done, as a verb: "copying".
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A tool of the toolchain ended with a failure.
    #[error("{tool} failed: {output}")]
    Tool {
        /// The program's name.
        tool: String,
        /// What it wrote.
        output: String,
    },
    /// No installed toolchain answers to what was asked.
    #[error("no database server {wanted} among {searched}; `make setup` installs them")]
    NoToolchain {
        /// Such as `PostgreSQL 17`.
        wanted: String,
        /// The places looked at.
        searched: String,
    },
    /// The server ended, or did not get ready in time, while it was being started.
    #[error("server in {dir} did not start ({reason}); end of its log:\n{log}")]
    Start {
        /// The cluster's directory.
        dir: PathBuf,
        /// Ended or took too long.
        reason: String,
        /// The last lines that the server wrote.
        log: String,
    },
    /// The server did not react to a signal in time.
    #[error("server {pid}: {what} within {seconds} s")]
    Stuck {
        /// The postmaster's process id.
        pid: i32,
        /// What did not happen: "not all processes stopped".
        what: &'static str,
        /// How long it had.
        seconds: u64,
    },
    /// A statement or a connection failed.
    #[error("SQL in database {database}: {}", .source.as_db_error().map_or_else(|| .source.to_string(), ToString::to_string))]
    Sql {
        /// The database.
        database: String,
        /// The server's or driver's answer.
        #[source]
        source: tokio_postgres::Error,
    },
    /// A statement or a connection to MariaDB failed.
    #[error("SQL in database {database}: {source}")]
    MariaDb {
        /// The database.
        database: String,
        /// The server's or driver's answer.
        #[source]
        source: Box<mysql_async::Error>,
    },
    /// Damage that cannot be done as asked (no such block, nothing to tear, ...).
    #[error("cannot damage {target}: {reason}")]
    Damage {
        /// Relation or file.
        target: String,
        /// Why not.
        reason: String,
    },
    /// A directory that holds what cannot be copied or used (a tablespace, a foreign file).
    #[error("{path}: {reason}")]
    Unsupported {
        /// Where.
        path: PathBuf,
        /// Why.
        reason: &'static str,
    },
}

/// Adds what was being done, and to which file, to an I/O error.
pub(crate) trait IoContext<T> {
    /// `doing` is a verb in its -ing form.
    fn doing(self, doing: &'static str, path: &Path) -> Result<T, Error>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn doing(self, doing: &'static str, path: &Path) -> Result<T, Error> {
        self.map_err(|source| Error::Io { doing, path: path.to_owned(), source })
    }
}
