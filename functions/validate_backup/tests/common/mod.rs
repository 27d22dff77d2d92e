//! A proof on real servers, without AWS: frame, copy, observe, examine, judge.
#![allow(dead_code, reason = "each test binary uses a part of it")]
#![expect(clippy::disallowed_methods, reason = "tests ask real servers, at real times")]
#![allow(unreachable_pub, reason = "shared by the test binaries")]

pub mod workload;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dr_core::Result;
use dr_core::proof::frame::Observation;
use dr_core::proof::judgement::{Report, RestoreFacts, TableJudgement};
use dr_core::request::ValidationOptions;
use dr_postgres::{ConnectionSettings, Limits, Security, Source};
use jiff::Timestamp;
use rds_local::postgres::{Cluster, ClusterOptions, Running, SUPERUSER, StartOptions, Toolchain};
use validate_backup::request::Stage;
use validate_backup::store::{Records, Store};
use validate_backup::{examine, frame, judge, observe};

/// Small units, so that small tables have several slices: 16 blocks.
pub const UNIT_BYTES: u64 = 16 * 8192;
/// The operation that frames.
pub const BACKUP: &str = "backup-0000000000000001";

/// Objects in memory, with a fault to order.
#[derive(Debug, Default)]
pub struct Memory {
    pub objects: Mutex<BTreeMap<String, Vec<u8>>>,
    /// How often each key was written.
    pub writes: Mutex<BTreeMap<String, usize>>,
    /// After so many writes, writing never ends: as if the invocation were killed in it. 0: no fault.
    pub hang_after: AtomicUsize,
}

impl Store for Memory {
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.objects.lock().unwrap().get(key).cloned())
    }

    async fn put(&self, key: &str, body: Vec<u8>) -> Result<()> {
        let total: usize = self.writes.lock().unwrap().values().sum();
        let limit = self.hang_after.load(Ordering::SeqCst);
        if limit > 0 && total >= limit {
            std::future::pending::<()>().await;
        }
        *self.writes.lock().unwrap().entry(key.to_owned()).or_default() += 1;
        self.objects.lock().unwrap().insert(key.to_owned(), body);
        Ok(())
    }

    async fn put_new(&self, key: &str, body: Vec<u8>) -> Result<()> {
        if self.objects.lock().unwrap().contains_key(key) { Ok(()) } else { self.put(key, body).await }
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>> {
        Ok(self.objects.lock().unwrap().keys().filter(|key| key.starts_with(prefix)).cloned().collect())
    }
}

/// A directory for clusters.
pub fn directory() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("lifeboat-proof-").tempdir().unwrap()
}

/// A running source of this major version with the database `shop`.
pub fn source(dir: &Path, major: u32, options: &ClusterOptions) -> Running {
    let toolchain = Toolchain::find(major).unwrap();
    let cluster = Cluster::create(&toolchain, &dir.join("source"), options).unwrap();
    let server = start(&cluster);
    server.sql("postgres", "CREATE DATABASE shop").unwrap();
    server
}

pub fn start(cluster: &Cluster) -> Running {
    cluster.start(&start_options()).unwrap()
}

/// What every server of these tests is started with.
pub fn start_options() -> StartOptions {
    let settings = [
        ("max_prepared_transactions", "20"),
        ("max_connections", "60"),
        ("autovacuum_naptime", "1s"),
        ("shared_buffers", "32MB"),
    ];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    StartOptions { settings, ..StartOptions::default() }
}

/// How to reach a server as its superuser.
pub fn settings(server: &Running) -> ConnectionSettings {
    let security = Security::LocalSocket(server.socket_dir().to_owned());
    ConnectionSettings::new("local", server.port(), SUPERUSER, None, "shop", security)
}

pub fn options() -> ValidationOptions {
    ValidationOptions { connections: 2, ..ValidationOptions::default() }
}

pub fn limits() -> Limits {
    Limits::lasting(2, Duration::from_mins(2), Duration::from_secs(10))
}

/// Frames a server to the end.
pub async fn frame(store: &Memory, operation: &str, server: &Running) {
    let settings = settings(server);
    let source = Source { reader: &settings, writer: None, instance: "orders" };
    let records = Records::of(store, operation);
    let stage = frame::advance(&records, &source, &options(), UNIT_BYTES, limits()).await.unwrap();
    assert!(matches!(stage, Stage::Done { frame: Some(_), .. }), "{stage:?}");
}

/// Waits until a server's sessions have ended, and have handed in their counts.
pub async fn quiet(server: &Running) {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
    for _ in 0..3000 {
        if server.sql("postgres", sql).unwrap()[0][0].as_deref() == Some("0") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("sessions do not end");
}

/// Observes a server whose sessions have ended, so that its counters are complete at once.
pub async fn observe_quiet(store: &Memory, operation: &str, server: &Running) {
    quiet(server).await;
    let records = Records::of(store, operation);
    let long_ago = Timestamp::now() - jiff::SignedDuration::from_mins(1);
    let stage =
        observe::advance(&records, &settings(server), long_ago, &ValidationOptions::default(), limits())
            .await
            .unwrap();
    assert!(matches!(stage, Stage::Done { .. }), "{stage:?}");
    let observation: Observation = records.read(observe::OBSERVATION).await.unwrap().unwrap();
    assert!(!observation.pending_counters, "no session is at work");
}

/// What to do with a restore.
pub struct Proof<'a> {
    pub store: &'a Memory,
    pub operation: &'a str,
    pub frame: Option<&'a str>,
    /// The proof to compare with.
    pub earlier: Option<&'a str>,
    pub restore: &'a Running,
    /// The source, where it can still be asked.
    pub source: Option<&'a Running>,
    pub validation: ValidationOptions,
}

impl Proof<'_> {
    /// Examines and judges.
    pub async fn conclude(&self) -> Report {
        self.examine(limits()).await;
        let (records, frame) = self.records();
        let circumstances = judge::Circumstances {
            snapshot_id: "snapshot".to_owned(),
            database: Some("orders".to_owned()),
            snapshot_taken_at: Some(Timestamp::now()),
            max_rpo_seconds: self.validation.max_rpo_seconds,
            restore: RestoreFacts::default(),
            now: Timestamp::now(),
        };
        let earlier = self.earlier.map(|operation| Records::of(self.store, operation));
        let earlier = earlier.as_ref().map_or(judge::Known::Nothing, judge::Known::Proof);
        judge::conclude(&records, frame.as_ref(), earlier, &circumstances).await.unwrap().0
    }

    /// Examines to the end, however many calls that takes.
    pub async fn examine(&self, limits: Limits) {
        for _ in 0..100 {
            if let Stage::Done { .. } = self.step(limits).await.unwrap() {
                return;
            }
        }
        panic!("the examination does not end");
    }

    /// One call.
    pub async fn step(&self, limits: Limits) -> Result<Stage> {
        let (records, frame) = self.records();
        let restore = settings(self.restore);
        let subject = examine::Subject {
            records: &records,
            frame: frame.as_ref(),
            restore: &restore,
            validation: &self.validation,
            unit_bytes: UNIT_BYTES,
        };
        let source = async || {
            self.source.map(settings).ok_or_else(|| {
                dr_core::DrError::new(dr_core::ErrorName::DatabaseMissing, "asking the source: it is gone")
            })
        };
        subject.advance(source, limits).await
    }

    fn records(&self) -> (Records<'_, Memory>, Option<Records<'_, Memory>>) {
        (
            Records::of(self.store, self.operation),
            self.frame.map(|operation| Records::of(self.store, operation)),
        )
    }
}

/// The judgement of a table of `shop.public`.
pub fn table<'r>(report: &'r Report, name: &str) -> &'r TableJudgement {
    report
        .tables
        .iter()
        .find(|table| table.name.database == "shop" && table.name.table == name)
        .unwrap_or_else(|| panic!("{name} is not in the report"))
}

/// A path below a directory for a cluster of this name.
pub fn at(dir: &tempfile::TempDir, name: &str) -> PathBuf {
    dir.path().join(name)
}
