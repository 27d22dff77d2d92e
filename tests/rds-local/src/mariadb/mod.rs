//! Raw MariaDB servers for tests: create, start, stop, copy crash-consistently, damage. No RDS API is involved.
//!
//! The same life as [`crate::postgres`]'s servers have: everything here blocks, dropping a [`Running`] kills its
//! server, as root servers run as `nobody`, and nothing here deletes a directory. InnoDB recovers what a copy of a
//! running server's files holds when it is started, as a restore on RDS does.
//!
//! Debian's MariaDB is used as it is installed (`mariadb-server-core`); no service of the system is involved.

mod damage;
mod files;
mod installation;
mod running;
mod sql;

pub use crate::host::{ChecksumFix, Damage, Error, MasterUser, Rows};
pub use damage::{PAGE_SIZE, TableFile, page_checksum};
pub use files::{Files, FilesOptions, SUPERUSER};
pub use installation::{Installation, ROOT_VARIABLE};
pub use running::{Running, StartOptions, StopMode, TcpOptions};
