//! What running any database server on this machine needs: the account it runs under, copies of its files, its
//! processes, and that none outlives us. Knows no engine.

pub(crate) mod account;
pub(crate) mod error;
pub(crate) mod files;
pub(crate) mod keeper;
pub(crate) mod process;

use std::path::PathBuf;

pub use error::Error;

/// Rows as text, NULL as `None`.
pub type Rows = Vec<Vec<Option<String>>>;

/// The master user of a new server: no superuser, but with the rights that RDS gives it.
#[derive(Debug, Clone)]
pub struct MasterUser {
    /// Its name.
    pub name: String,
    /// Its password.
    pub password: String,
    /// A database to create for it.
    pub database: Option<String>,
}

/// Whether a changed page gets a new, right checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChecksumFix {
    /// The old checksum stays, as when a disk flips bits.
    Leave,
    /// The checksum is made right, as when memory was bad before the page was written.
    Fix,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file that changed.
    pub file: PathBuf,
    /// In words, with blocks and offsets.
    pub what: String,
}
