//! The stages on a real MariaDB, killed again and again: frame, observe, examine, judge.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "tests"
)]

mod common;

use std::sync::atomic::Ordering;
use std::time::Duration;

use common::{BACKUP, Memory, UNIT_BYTES, limits, options};
use dr_core::EngineFamily;
use dr_core::proof::judgement::{Report, RestoreFacts, Verdict};
use dr_database::{ConnectionSettings, Security};
use dr_postgres::Source;
use jiff::Timestamp;
use rds_local::mariadb::{Files, FilesOptions, Installation, Running, SUPERUSER, StartOptions, StopMode};
use validate_backup::request::Stage;
use validate_backup::store::Records;
use validate_backup::{examine, frame, judge, observe};

const SCHEMA: &str = "CREATE DATABASE shop; \
    CREATE TABLE shop.orders (id INT PRIMARY KEY AUTO_INCREMENT, n INT, v VARCHAR(200), KEY by_n (n)); \
    INSERT INTO shop.orders (n, v) SELECT seq % 100, REPEAT('x', 150) FROM mysql.seq_1_to_4000; \
    ANALYZE TABLE shop.orders";

fn settings(server: &Running) -> ConnectionSettings {
    let security = Security::LocalSocket(server.socket().to_owned());
    ConnectionSettings::new("local", server.port(), SUPERUSER, None, "", security)
        .speaking(EngineFamily::MySql)
}

/// Calls a stage until it is done. The store hangs after `patience` more writes, each time: as if the invocation were
/// killed in the middle of one.
async fn persist(store: &Memory, patience: usize, step: impl AsyncFn() -> dr_core::Result<Stage>) -> usize {
    for calls in 1..200 {
        let written: usize = store.writes.lock().unwrap().values().sum();
        store.hang_after.store(written + patience, Ordering::SeqCst);
        match tokio::time::timeout(Duration::from_secs(3), step()).await {
            Ok(stage) => {
                if let Stage::Done { .. } = stage.unwrap() {
                    store.hang_after.store(0, Ordering::SeqCst);
                    return calls;
                }
            }
            Err(_killed) => {}
        }
    }
    panic!("the stage does not end");
}

async fn judged(store: &Memory, operation: &str, earlier: Option<&str>, restore: &Running) -> Report {
    let (records, backup) = (Records::of(store, operation), Records::of(store, BACKUP));
    let (restore, validation) = (settings(restore), options());
    let subject = examine::Subject {
        records: &records,
        frame: Some(&backup),
        restore: &restore,
        validation: &validation,
        unit_bytes: UNIT_BYTES,
    };
    let source = async || panic!("the source of a MySQL proof is not asked about rows");
    persist(store, 12, async || subject.advance(source, limits()).await).await;
    let circumstances = judge::Circumstances {
        snapshot_id: "snapshot".to_owned(),
        database: Some("orders".to_owned()),
        snapshot_taken_at: Some(Timestamp::now()),
        max_rpo_seconds: None,
        restore: RestoreFacts::default(),
        now: Timestamp::now(),
    };
    let earlier = earlier.map(|operation| Records::of(store, operation));
    let earlier = earlier.as_ref().map_or(judge::Known::Nothing, judge::Known::Proof);
    judge::conclude(&records, Some(&backup), earlier, &circumstances).await.unwrap().0
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_that_is_killed_again_and_again_comes_to_its_verdict_and_damage_to_another() {
    let dir = common::directory();
    let files =
        Files::create(&Installation::find().unwrap(), &dir.path().join("source"), &FilesOptions::default());
    let server = files.unwrap().start(&StartOptions::default()).unwrap();
    server.sql("mysql", SCHEMA).unwrap();
    let store = Memory::default();
    let (writer, validation, records) = (settings(&server), options(), Records::of(&store, BACKUP));
    let source = Source { reader: &writer, writer: None, instance: "orders" };
    let calls = persist(&store, 6, async || {
        frame::advance(&records, &source, &validation, UNIT_BYTES, limits()).await
    })
    .await;
    assert!(calls > 1, "it was killed");
    let copy = server.freeze_and_copy(&dir.path().join("copy")).unwrap();
    server.sql("shop", "UPDATE orders SET n = n + 1000 WHERE id > 3000").unwrap();
    let taken = Timestamp::now() - Duration::from_mins(1);
    let calls =
        persist(&store, 2, async || observe::advance(&records, &writer, taken, &validation, limits()).await)
            .await;
    assert!(calls > 1, "it was killed");
    let twice = store.writes.lock().unwrap().iter().filter(|(_, writes)| **writes > 1).count();
    assert_eq!(twice, 0, "a record that is stored is not made again");

    let [damaged, again, spoilt] =
        ["damaged", "again", "spoilt"].map(|name| copy.copy(&dir.path().join(name)).unwrap());
    let restore = copy.start(&StartOptions::default()).unwrap();
    let report = judged(&store, "proof-1", None, &restore).await;
    assert_eq!(report.judgement.verdict, Verdict::Proven, "{:?}", report.findings);
    assert_eq!(report.judgement.coverage.proven_rows, 4000);

    let restore = damaged.start(&StartOptions::default()).unwrap();
    restore.sql("shop", "UPDATE orders SET n = n + 1 WHERE id = 77").unwrap();
    let report = judged(&store, "proof-2", None, &restore).await;
    assert_eq!(report.judgement.verdict, Verdict::Unproven);
    assert!(report.findings[0].subject.contains("shop.orders"), "{:?}", report.findings);
    restore.stop(StopMode::Fast).unwrap();
    // A later proof, of which the first one's records hold what the restore has to be: also where the source was
    // written to after the snapshot.
    let restore = again.start(&StartOptions::default()).unwrap();
    let report = judged(&store, "proof-3", Some("proof-1"), &restore).await;
    assert_eq!(report.judgement.verdict, Verdict::Proven, "{:?}", report.findings);
    let beside = report.judgement.earlier.as_ref().unwrap();
    assert_eq!((beside.equal.tables, beside.different.tables, beside.unknown.tables), (1, 0, 0));
    restore.stop(StopMode::Fast).unwrap();
    let restore = spoilt.start(&StartOptions::default()).unwrap();
    // As the source did, and after the snapshot: without the first proof it is one of the two moments.
    restore.sql("shop", "UPDATE orders SET n = n + 1000 WHERE id > 3000").unwrap();
    let report = judged(&store, "proof-4", None, &restore).await;
    assert_eq!(report.judgement.verdict, Verdict::Proven, "{:?}", report.findings);
    let report = judged(&store, "proof-5", Some("proof-1"), &restore).await;
    assert_eq!(report.judgement.verdict, Verdict::Unproven);
    assert_eq!(report.tables[0].reason, dr_core::proof::judgement::Reason::ContentDiffers);
    assert!(report.findings[0].subject.contains("shop.orders"), "{:?}", report.findings);
    restore.stop(StopMode::Fast).unwrap();
}
