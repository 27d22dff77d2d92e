//! No false alarm: proofs of a source that is at work all the while.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "tests"
)]

mod common;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use common::workload::{SCHEMA, Workload};
use common::{Memory, Proof};
use dr_core::proof::judgement::{Report, TableVerdict, Verdict};
use jiff::Timestamp;
use rds_local::postgres::ClusterOptions;
use validate_backup::observe;
use validate_backup::request::Stage;
use validate_backup::store::Records;

/// Runs of the road from frame to judgement.
const RUNS: usize = 20;
/// Every so many runs the snapshot is restored a second time, later, and compared with the first restore.
const AGAIN: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_proofs_of_a_busy_source_raise_no_alarm() {
    let dir = common::directory();
    let server = common::source(dir.path(), 17, &ClusterOptions::default());
    server.sql("shop", SCHEMA).unwrap();
    let workload = Workload::start(&server, 1);
    let store = Memory::default();
    let begun = Instant::now();
    let mut verdicts = std::collections::BTreeMap::<TableVerdict, u64>::new();
    let mut taken = Vec::new();
    let (mut judged, mut compared) = (0, 0);
    for run in 0..RUNS {
        let backup = format!("backup-{run:016x}");
        common::frame(&store, &backup, &server).await;
        // Work goes on between frame and snapshot, and ends are caught in the middle of it.
        let writes = workload.counts.writes.load(Ordering::Relaxed);
        until("the source has written", || workload.counts.writes.load(Ordering::Relaxed) > writes + 20)
            .await;
        let copy = server.freeze_and_copy(&common::at(&dir, &format!("copy-{run}"))).unwrap();
        taken.push((run, backup, copy, Timestamp::now()));
        // Observations need their time; meanwhile the next ones are framed.
        while taken.len() > if run + 1 == RUNS { 0 } else { 8 } {
            let (run, backup, copy, at) = taken.remove(0);
            observe_when_ripe(&store, &backup, &server, at).await;
            let again = match run % AGAIN {
                0 => Some(copy.copy(&common::at(&dir, &format!("again-{run}"))).unwrap()),
                _ => None,
            };
            let restore = common::start(&copy);
            let operation = format!("proof-{run:016x}");
            let report = Proof {
                store: &store,
                operation: &operation,
                frame: Some(&backup),
                earlier: None,
                restore: &restore,
                source: Some(&server),
                validation: dr_core::request::ValidationOptions {
                    unique_constraints: true,
                    ..common::options()
                },
            }
            .conclude()
            .await;
            assert_eq!(report.judgement.verdict, Verdict::Proven, "run {run}: {:#?}", report.findings);
            assert_eq!(common::table(&report, "calm").verdict, TableVerdict::Exact, "run {run}");
            for table in &report.tables {
                *verdicts.entry(table.verdict).or_default() += 1;
            }
            drop(restore);
            std::fs::remove_dir_all(copy.dir()).unwrap();
            if let Some(again) = again {
                let restore = common::start(&again);
                // What a restore does to itself, and a later look may find done.
                restore.sql("shop", "VACUUM (FREEZE, ANALYZE)").unwrap();
                let later = Proof {
                    store: &store,
                    operation: &format!("proof-later-{run}"),
                    frame: Some(&backup),
                    earlier: Some(&operation),
                    restore: &restore,
                    source: None,
                    validation: common::options(),
                }
                .conclude()
                .await;
                assert_eq!(later.judgement.verdict, Verdict::Proven, "run {run}: {:#?}", later.findings);
                let beside = later.judgement.earlier.as_ref().unwrap();
                // All but the unlogged one.
                assert_eq!((beside.unknown.tables, beside.different.tables), (1, 0), "run {run}: {beside:?}");
                let rows = |report: &Report| report.judgement.coverage.proven_rows;
                assert_eq!(rows(&later), rows(&report), "run {run}");
                drop(restore);
                std::fs::remove_dir_all(again.dir()).unwrap();
                compared += 1;
            }
            judged += 1;
        }
    }
    assert_eq!((judged, compared), (RUNS, RUNS / AGAIN));
    println!("{RUNS} runs in {:?}: {verdicts:?}, workload {:?}", begun.elapsed(), workload.counts);
    // Runs in which nothing happened would prove nothing.
    for (what, count) in [
        ("writes", &workload.counts.writes),
        ("aborted transactions", &workload.counts.aborts),
        ("long transactions", &workload.counts.long),
        ("prepared transactions", &workload.counts.prepared),
        ("DDL statements", &workload.counts.ddl),
        ("vacuums", &workload.counts.vacuum),
    ] {
        assert!(count.load(Ordering::Relaxed) >= RUNS as u64 / 2, "too few {what}: {:?}", workload.counts);
    }
    for verdict in [TableVerdict::Exact, TableVerdict::Explained, TableVerdict::Plausible] {
        assert!(verdicts.contains_key(&verdict), "no table was {verdict:?}: {verdicts:?}");
    }
    workload.stop();
}

async fn observe_when_ripe(
    store: &Memory,
    operation: &str,
    server: &rds_local::postgres::Running,
    snapshot_taken: Timestamp,
) {
    let records = Records::of(store, operation);
    let begun = Instant::now();
    loop {
        match observe::advance(
            &records,
            &common::settings(server),
            snapshot_taken,
            &dr_core::request::ValidationOptions::default(),
            common::limits(),
        )
        .await
        .unwrap()
        {
            Stage::Done { .. } => return,
            stage if begun.elapsed() > Duration::from_mins(1) => panic!("never ripe: {stage:?}"),
            Stage::Pending { .. } => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_mins(1), "not within a minute: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
