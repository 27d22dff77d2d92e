//! Raw PostgreSQL servers for tests: create, start, stop, copy crash-consistently, damage. No RDS API is involved.
//!
//! ```no_run
//! use rds_local::postgres::{Cluster, ClusterOptions, StartOptions, StopMode, Toolchain};
//! # fn main() -> Result<(), rds_local::postgres::Error> {
//! let directory = tempfile::tempdir().unwrap();
//! let toolchain = Toolchain::find(17)?;
//! let cluster = Cluster::create(&toolchain, &directory.path().join("one"), &ClusterOptions::default())?;
//! let server = cluster.start(&StartOptions::default())?;
//! server.sql("postgres", "CREATE TABLE t AS SELECT generate_series(1, 1000) AS n")?;
//! let copy = server.freeze_and_copy(&directory.path().join("two"))?; // as a storage snapshot sees it
//! server.stop(StopMode::Fast)?;
//! let table = copy.settle("postgres", &["public.t"])?.remove(0); // replays WAL, stops cleanly
//! copy.zero_page(&table, 2)?;
//! # Ok(())
//! # }
//! ```
//!
//! Everything here blocks. Dropping a [`Running`] stops its server; if this process dies in any way, its servers are
//! killed. As root, servers run as `nobody`. Files are the caller's: nothing here deletes a cluster's directory.
//! It does not manage major upgrades, tablespaces outside the data directory, or replication (yet).

mod cluster;
mod damage;
mod page;
mod roles;
mod running;
mod sql;
mod toolchain;
mod wal;

pub use crate::host::{ChecksumFix, Damage, Error, MasterUser, Rows};
pub use cluster::{Cluster, ClusterOptions, SUPERUSER};
pub use damage::Relation;
pub use page::{BLOCK_SIZE, page_checksum};
pub use running::{Running, StartOptions, StopMode, TcpOptions};
pub use toolchain::{ROOTS_VARIABLE, Toolchain};
pub use wal::{Lsn, TearWal};
