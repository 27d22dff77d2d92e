//! Damages the files of a snapshot to order, so that what is restored from it is damaged.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;

use super::cloud::{Cloud, chain};
use crate::host::{ChecksumFix, Damage, Error};
use crate::mariadb::{self, Files as MariaDbFiles, TableFile};
use crate::postgres::{Cluster, Lsn, Relation, StartOptions, StopMode, TearWal};

/// Which snapshot, which database in it, what kind.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Order {
    region: String,
    snapshot: String,
    #[serde(default = "postgres")]
    database: String,
    kind: Kind,
}

fn postgres() -> String {
    "postgres".to_owned()
}

fn one() -> usize {
    1
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
enum Kind {
    /// A heap or index page becomes zeros.
    ZeroPage { table: String, block: u32 },
    /// The last blocks of a relation's file are gone.
    TruncateFile { table: String, blocks: u32 },
    /// Bytes of a page are inverted.
    FlipBytes {
        table: String,
        block: u32,
        offset: usize,
        #[serde(default = "one")]
        bytes: usize,
        #[serde(default)]
        fix_checksum: bool,
    },
    /// A page is as an older snapshot has it.
    StalePage { table: String, block: u32, from_snapshot: String },
    /// Statements run as rdsadmin.
    Sql { statements: Vec<String> },
    /// Two entries of a B-tree change places.
    CorruptIndex {
        /// Of MariaDB only: there an index has no name of its own.
        #[serde(default)]
        table: Option<String>,
        index: String,
    },
    /// The write-ahead log ends early: before a position, or after a share of its records (one half by default).
    TearWal {
        #[serde(default)]
        before_lsn: Option<String>,
        #[serde(default)]
        keep: Option<f64>,
    },
}

/// What an order came to.
pub(super) enum Failure {
    /// Nothing of that name, or nothing like that can be done.
    Refused(String),
    /// It went wrong.
    Broken(String),
}

/// Files of a snapshot that is available, with its lock.
struct Files {
    dir: PathBuf,
    engine: String,
    version: String,
    lock: Arc<tokio::sync::RwLock<()>>,
}

fn find(cloud: &Cloud, name: &str, snapshot: &str) -> Result<Files, Failure> {
    let wanted = snapshot.to_ascii_lowercase();
    cloud.region(name, |region| match region.all_snapshots().find(|one| one.id == wanted) {
        Some(found) if found.status == "available" => Ok(Files {
            dir: found.dir.clone(),
            engine: found.settings.engine.clone(),
            version: found.settings.version.clone(),
            lock: Arc::clone(&found.files),
        }),
        Some(found) => Err(Failure::Refused(format!("snapshot {snapshot} is {}", found.status))),
        None => Err(Failure::Refused(format!("there is no snapshot {snapshot} in {name}"))),
    })
}

/// Damages a snapshot. Every kind but `tearWal` first lets the copy recover, as its restore would do: otherwise the
/// full-page images in WAL would mend it.
pub(super) async fn damage(cloud: &Arc<Cloud>, order: Order) -> Result<Damage, Failure> {
    let target = find(cloud, &order.region, &order.snapshot)?;
    let base = match &order.kind {
        Kind::StalePage { from_snapshot, .. } => Some(find(cloud, &order.region, from_snapshot)?),
        _ => None,
    };
    let _held = Arc::clone(&target.lock).write_owned().await;
    let _older_held = match &base {
        Some(base) if !Arc::ptr_eq(&base.lock, &target.lock) => {
            Some(Arc::clone(&base.lock).read_owned().await)
        }
        _ => None,
    };
    let cloud = Arc::clone(cloud);
    let work = tokio::task::spawn_blocking(move || {
        if let Some(mariadb) =
            cloud.mariadb.as_ref().filter(|_| matches!(target.engine.as_str(), "mariadb" | "aurora-mysql"))
        {
            return inflict_on_mariadb(&mariadb.files(&target.dir)?, &order);
        }
        let toolchain = cloud.postgres.toolchain(&target.version)?;
        let cluster = Cluster::open(toolchain, &target.dir)?;
        let base = base.map(|base| Cluster::open(toolchain, &base.dir)).transpose()?;
        inflict(&cluster, base.as_ref(), &order)
    });
    match work.await {
        Ok(Ok(damage)) => Ok(damage),
        Ok(Err(error @ Error::Damage { .. })) => Err(Failure::Refused(error.to_string())),
        Ok(Err(error @ (Error::Sql { .. } | Error::MariaDb { .. }))) => Err(Failure::Refused(chain(&error))),
        Ok(Err(error)) => Err(Failure::Broken(chain(&error))),
        Err(error) => Err(Failure::Broken(error.to_string())),
    }
}

fn inflict(cluster: &Cluster, base: Option<&Cluster>, order: &Order) -> Result<Damage, Error> {
    let settled =
        |name: &str| -> Result<Relation, Error> { Ok(cluster.settle(&order.database, &[name])?.remove(0)) };
    match order.kind.clone() {
        Kind::ZeroPage { table, block } => cluster.zero_page(&settled(&table)?, block),
        Kind::TruncateFile { table, blocks } => cluster.truncate_file(&settled(&table)?, blocks),
        Kind::FlipBytes { table, block, offset, bytes, fix_checksum } => {
            let fix = if fix_checksum { ChecksumFix::Fix } else { ChecksumFix::Leave };
            cluster.flip_bytes(&settled(&table)?, block, offset, bytes, fix)
        }
        Kind::StalePage { table, block, .. } => {
            let base = base.unwrap_or(cluster);
            // The older snapshot itself stays as it is.
            let place = cluster.dir().with_extension("older");
            let copy = base.copy(&place)?;
            let result = copy.settle(&order.database, &[&table]).and_then(|mut found| {
                let old_table = found.remove(0);
                cluster.stale_page(&settled(&table)?, block, &copy, &old_table)
            });
            let _ = fs::remove_dir_all(&place);
            result
        }
        Kind::Sql { statements } => {
            let server = cluster.start(&StartOptions::default())?;
            for statement in &statements {
                server.sql(&order.database, statement)?;
            }
            server.sql(&order.database, "CHECKPOINT")?;
            server.stop(StopMode::Fast)?;
            Ok(Damage { file: cluster.data_dir(), what: format!("{} statement(s) run", statements.len()) })
        }
        Kind::CorruptIndex { index, .. } => cluster.corrupt_index(&settled(&index)?),
        Kind::TearWal { before_lsn, keep } => {
            let tear =
                match (before_lsn, keep) {
                    (Some(lsn), _) => TearWal::Before(lsn.parse::<Lsn>().map_err(|reason| {
                        Error::Damage { target: "the write-ahead log".to_owned(), reason }
                    })?),
                    (None, Some(share)) => TearWal::Keep(share),
                    (None, None) => TearWal::default(),
                };
            cluster.tear_wal(tear)
        }
    }
}

/// The same orders for MariaDB: blocks are InnoDB's pages of 16 KiB, counted among the leaves that hold the rows;
/// `beforeLsn` is a number.
fn inflict_on_mariadb(files: &MariaDbFiles, order: &Order) -> Result<Damage, Error> {
    let refuse = |target: &str, reason: &str| {
        Err(Error::Damage { target: target.to_owned(), reason: reason.to_owned() })
    };
    let leaf = |table: &TableFile, block: u32| -> Result<u32, Error> {
        let leaves = files.leaves(table, "PRIMARY")?;
        leaves.get(block as usize).copied().ok_or_else(|| Error::Damage {
            target: order.database.clone(),
            reason: format!("it has {} leaves", leaves.len()),
        })
    };
    let innodb = |table: &str| -> Result<TableFile, Error> {
        files.settle()?;
        Ok(TableFile::innodb(&order.database, table))
    };
    match order.kind.clone() {
        Kind::ZeroPage { table, block } => {
            let table = innodb(&table)?;
            files.zero_page(&table, leaf(&table, block)?)
        }
        Kind::FlipBytes { table, block, offset, bytes, fix_checksum } => {
            let fix = if fix_checksum { ChecksumFix::Fix } else { ChecksumFix::Leave };
            let table = innodb(&table)?;
            files.flip_bytes(&table, leaf(&table, block)?, offset, bytes, fix)
        }
        Kind::CorruptIndex { table: Some(table), index } => files.corrupt_index(&innodb(&table)?, &index),
        Kind::CorruptIndex { table: None, index } => refuse(&index, "name its table, too"),
        Kind::TruncateFile { table, blocks } => {
            files.settle()?;
            let bytes = u64::from(blocks) * 8192;
            let of = [TableFile::myisam, TableFile::aria].map(|kind| kind(&order.database, &table));
            files.truncate_table(&of[0], bytes).or_else(|_| files.truncate_table(&of[1], bytes))
        }
        Kind::Sql { statements } => {
            let server = files.start(&mariadb::StartOptions::default())?;
            for statement in &statements {
                server.sql(&order.database, statement)?;
            }
            server.stop(mariadb::StopMode::Fast)?;
            Ok(Damage { file: files.data_dir(), what: format!("{} statement(s) run", statements.len()) })
        }
        Kind::TearWal { before_lsn, .. } => {
            let at = match before_lsn.map(|text| text.parse()) {
                Some(Ok(at)) => Some(at),
                Some(Err(_)) => return refuse("the redo log", "its positions are numbers"),
                None => None,
            };
            files.tear_log(at)
        }
        Kind::StalePage { table, .. } => refuse(&table, "a stale page cannot be made for this engine"),
    }
}
