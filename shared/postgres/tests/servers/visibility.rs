//! Which rows a digest speaks of, with transactions of every kind around the frame and the snapshot.

use dr_core::proof::Digest;
use dr_core::proof::examination::NarrowingOutcome;
use dr_core::proof::frame::{SliceOutcome, UnitResult};
use dr_core::proof::visibility::SnapshotText;
use dr_postgres::{Session, Source, frame, heartbeat};
use rds_local::postgres::{Running, StartOptions, StopMode};
use tokio_postgres::{Client, NoTls};

use crate::lab::{
    Framed, Lab, UNIT_BYTES, deviations, digest_of, examine, framed_rows, narrow_all, read_frame, settings,
    sql, take_frame,
};

async fn client(server: &Running) -> Client {
    let (client, connection) = tokio_postgres::connect(&server.url("postgres"), NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

fn newer(units: &[UnitResult]) -> u64 {
    units.iter().flat_map(|unit| &unit.slices).filter_map(|slice| slice.newer_rows).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_in_flight_and_later_ones_never_make_a_difference() {
    let lab = Lab::new(17);
    let source = lab.source();
    sql(
        &source,
        "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT k, 'x' FROM generate_series(1, 3000) k",
    );
    // Open at the frame: subtransactions, one of them aborted; a prepared one; one that will abort.
    let (open, aborting) = (client(&source).await, client(&source).await);
    open.batch_execute(
        "BEGIN; INSERT INTO t VALUES (10001, 'top'); SAVEPOINT a; INSERT INTO t VALUES (10002, 'sub'); \
         SAVEPOINT b; INSERT INTO t VALUES (10003, 'gone'); ROLLBACK TO b; SAVEPOINT c; UPDATE t SET v = 'y' WHERE id = 7",
    )
    .await
    .unwrap();
    aborting
        .batch_execute("BEGIN; INSERT INTO t VALUES (10004, 'abort'); DELETE FROM t WHERE id = 8")
        .await
        .unwrap();
    sql(
        &source,
        "BEGIN; INSERT INTO t VALUES (10005, 'prepared'); DELETE FROM t WHERE id = 9; PREPARE TRANSACTION 'one'",
    );
    sql(&source, "BEGIN; INSERT INTO t VALUES (10006, 'prepared too'); PREPARE TRANSACTION 'two'");
    // Committed, above the oldest transaction in progress: not spoken of, and not an error.
    sql(&source, "INSERT INTO t VALUES (10007, 'in the gap')");
    let framed = take_frame(&source).await;
    let snapshot = SnapshotText::parse(&framed.units[&0].visibility.snapshot).unwrap();
    assert!(snapshot.in_progress.len() >= 4 && snapshot.xmin < snapshot.xmax, "{snapshot:?}");
    assert_eq!(framed_rows(&framed, "t"), 3000);

    aborting.batch_execute("ROLLBACK").await.unwrap();
    sql(&source, "COMMIT PREPARED 'one'");
    sql(&source, "INSERT INTO t SELECT k, 'later' FROM generate_series(20001, 25000) k");
    open.batch_execute("COMMIT").await.unwrap();
    let restore = lab.restore(&source);
    let examined = examine(&restore, &framed).await;
    // Row 7 was updated and row 9 deleted by what was open at the frame; nothing else may be missing.
    let found = deviations(&framed, &examined);
    let (before, after) = found.iter().fold((0, 0), |(before, after), deviation| {
        (before + deviation.rows.0, after + deviation.rows.1.unwrap())
    });
    assert_eq!(before - after, 2, "{found:?}");
    for narrowing in narrow_all(&source, &restore, &framed, &examined).await {
        assert!(matches!(narrowing.outcome, NarrowingOutcome::Accounted { .. }), "{narrowing:?}");
    }
    // 10001, 10002, 10005, 10007, the new version of 7, and 5000 later ones; the heartbeat is not among them.
    assert_eq!(newer(&examined.units), 5005);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_is_open_at_the_snapshot_has_not_touched_anything() {
    let lab = Lab::new(15);
    let source = lab.source();
    sql(
        &source,
        "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT k, 'x' FROM generate_series(1, 3000) k",
    );
    let framed = take_frame(&source).await;
    let open = client(&source).await;
    open.batch_execute(
        "BEGIN; DELETE FROM t WHERE id < 100; UPDATE t SET v = 'y' WHERE id > 2900; SAVEPOINT a; \
         INSERT INTO t VALUES (5000, 'z')",
    )
    .await
    .unwrap();
    sql(&source, "BEGIN; DELETE FROM t WHERE id BETWEEN 200 AND 300; PREPARE TRANSACTION 'one'");
    sql(&source, "CHECKPOINT");
    let restore = lab.restore(&source);
    let examined = examine(&restore, &framed).await;
    assert_eq!(deviations(&framed, &examined), []);
    assert_eq!(newer(&examined.units), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn vacuum_and_freezing_change_nothing_and_a_rewrite_keeps_the_sums() {
    let lab = Lab::new(16);
    let source = lab.source();
    sql(
        &source,
        "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT k, repeat('x', 100) FROM generate_series(1, 9000) k",
    );
    sql(&source, "CREATE TABLE rewritten AS TABLE t");
    sql(&source, "DELETE FROM t WHERE id % 7 = 0");
    sql(&source, "DELETE FROM rewritten WHERE id % 7 = 0");
    let framed = take_frame(&source).await;
    sql(&source, "VACUUM (FREEZE) t");
    sql(&source, "SELECT * FROM t WHERE id < 100 FOR UPDATE");
    sql(&source, "VACUUM FULL rewritten");
    let restore = lab.restore(&source);
    let examined = examine(&restore, &framed).await;
    let found = deviations(&framed, &examined);
    assert!(!found.is_empty() && found.iter().all(|deviation| deviation.table == "rewritten"), "{found:?}");
    let sum = |wanted: &str| -> Digest {
        examined
            .units
            .iter()
            .flat_map(|unit| &unit.slices)
            .filter(|result| examined.plan.tables[result.slice.table].name.table == wanted)
            .map(|result| match result.outcome {
                SliceOutcome::Digested(digest) => digest,
                ref other => panic!("{other:?}"),
            })
            .sum()
    };
    assert_eq!(sum("rewritten"), digest_of(&framed, "rewritten"));
    assert_eq!(sum("t"), digest_of(&framed, "t"));
    let narrowings = narrow_all(&source, &restore, &framed, &examined).await;
    assert!(narrowings.iter().all(|one| matches!(&one.outcome, NarrowingOutcome::SourceUnavailable { reason } if reason.contains("rewritten"))));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_transactions_in_progress_it_is_what_the_server_calls_visible() {
    let lab = Lab::new(18);
    let source = lab.source();
    sql(&source, "CREATE TABLE t (id int)");
    for id in 0..50 {
        sql(&source, &format!("INSERT INTO t VALUES ({id})"));
    }
    let framed = take_frame(&source).await;
    let snapshot = framed.units[&0].visibility.snapshot.clone();
    for id in 50..100 {
        sql(&source, &format!("INSERT INTO t VALUES ({id})"));
    }
    let says = sql(
        &source,
        &format!("SELECT count(*) FROM t WHERE pg_visible_in_snapshot(xmin::text::xid8, '{snapshot}')"),
    );
    assert_eq!(says[0][0].as_deref(), Some("50"));
    let restore = lab.restore(&source);
    let examined = examine(&restore, &framed).await;
    assert_eq!(deviations(&framed, &examined), []);
    assert_eq!((framed_rows(&framed, "t"), newer(&examined.units)), (50, 50));
}

/// Restarts a server with another next transaction id.
fn move_to(lab: &Lab, server: Running, epoch: u32, xid: u32) -> Running {
    let cluster = server.stop(StopMode::Fast).unwrap();
    let segment = xid / (8192 * 4 * 32);
    let file = format!("pg_xact/{segment:04X}");
    if !cluster.data_dir().join(&file).exists() {
        cluster.write_file(&file, &vec![0; 8192 * 32]).unwrap();
    }
    cluster.run_tool("pg_resetwal", &["-f", "-e", &epoch.to_string(), "-x", &xid.to_string()]).unwrap();
    lab.start(&cluster)
}

fn number(server: &Running, query: &str) -> u64 {
    sql(server, query)[0][0].clone().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn epochs_come_and_go_without_a_difference() {
    const NEXT: &str = "SELECT pg_snapshot_xmax(pg_current_snapshot())";
    let lab = Lab::new(17);
    let source = lab.source();
    sql(&source, "CREATE TABLE t (id serial PRIMARY KEY, v text)");
    // One row for each of many transaction ids.
    for _ in 0..60 {
        sql(&source, "INSERT INTO t (v) VALUES ('old')");
    }
    let low = u32::try_from(number(&source, NEXT)).unwrap();
    // Round the circle in steps that freezing can follow, as a server's own life would do it.
    sql(&source, "VACUUM FREEZE");
    let source = move_to(&lab, source, 0, 1_500_000_000);
    sql(&source, "VACUUM FREEZE");
    let source = move_to(&lab, source, 0, 3_000_000_000);
    sql(&source, "VACUUM FREEZE");
    let source = move_to(&lab, source, 0, u32::MAX - 40);
    sql(&source, "INSERT INTO t (v) VALUES ('shortly before the wrap')");
    let framed = take_frame(&source).await;
    let horizon = SnapshotText::parse(&framed.units[&0].visibility.snapshot).unwrap().xmin;
    assert_eq!((horizon >> 32, horizon > u64::from(u32::MAX - 41)), (0, true));
    // The old rows' ids lie in the band above a horizon so close to the wrap: left out, also of the frame.
    assert_eq!(framed_rows(&framed, "t"), 1);
    for _ in 0..80 {
        sql(&source, "INSERT INTO t (v) VALUES ('later')");
    }
    assert_eq!(number(&source, NEXT) >> 32, 1, "it has to wrap meanwhile");
    let restore = lab.restore(&source);
    let examined = examine(&restore, &framed).await;
    assert_eq!(deviations(&framed, &examined), []);
    drop(restore);

    // In the new epoch, in the middle of the old rows' ids: those above the horizon are left out on both sides.
    sql(&source, "VACUUM FREEZE");
    let source = move_to(&lab, source, 1, low - 30);
    let framed = take_frame(&source).await;
    let horizon = SnapshotText::parse(&framed.units[&0].visibility.snapshot).unwrap().xmin;
    assert_eq!(horizon >> 32, 1);
    let above =
        format!("SELECT count(*) FROM t WHERE xmin::text::bigint >= {} AND v = 'old'", horizon & 0xFFFF_FFFF);
    let above = number(&source, &above);
    assert!((20..40).contains(&above), "{above}");
    assert_eq!(framed_rows(&framed, "t"), 141 - above);
    for _ in 0..60 {
        sql(&source, "INSERT INTO t (v) VALUES ('latest')");
    }
    let restore = lab.start(&lab.copy(&source, "again"));
    let examined = examine(&restore, &framed).await;
    assert_eq!(deviations(&framed, &examined), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_can_be_framed_instead_of_the_writer() {
    let lab = Lab::new(17);
    let writer = lab.source();
    sql(
        &writer,
        "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT k, 'x' FROM generate_series(1, 3000) k",
    );
    sql(&writer, "CREATE UNLOGGED TABLE u (id serial)");
    let standby = lab.copy(&writer, "standby");
    standby.write_file("standby.signal", b"").unwrap();
    let access = lab.dir.path().join("replication.conf");
    std::fs::write(&access, "local all all trust\nlocal replication all trust\n").unwrap();
    // Replication has its own line in the access file; the writer gets it by a restart.
    let cluster = writer.stop(StopMode::Fast).unwrap();
    let options = |more: &[(&str, String)]| {
        let mut settings = vec![
            ("hba_file".to_owned(), access.display().to_string()),
            ("max_prepared_transactions".to_owned(), "5".to_owned()),
        ];
        settings.extend(more.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        StartOptions { settings, ..StartOptions::default() }
    };
    let writer = cluster.start(&options(&[])).unwrap();
    let from = format!("host={} port={} user=rdsadmin", writer.socket_dir().display(), writer.port());
    let standby =
        standby.start(&options(&[("primary_conninfo", from), ("hot_standby", "on".to_owned())])).unwrap();

    let open = client(&writer).await;
    open.batch_execute(
        "BEGIN; INSERT INTO t VALUES (10001, 'top'); SAVEPOINT a; INSERT INTO t VALUES (10002, 'sub')",
    )
    .await
    .unwrap();
    sql(&writer, "INSERT INTO t VALUES (10003, 'seen by the standby when it has caught up')");
    let (reader, main) = (settings(&standby, "postgres"), settings(&writer, "postgres"));
    let source = Source { reader: &reader, writer: Some(&main), instance: "replica" };
    let plan = frame::plan(&source, "backup-1", UNIT_BYTES).await.unwrap();
    assert!(plan.server.in_recovery);
    let units = read_frame(&reader, &plan).await;
    let beat = heartbeat::beat(&main, "backup-1").await.unwrap();
    open.batch_execute("COMMIT").await.unwrap();
    let framed = Framed { plan, units, beat };
    assert_eq!(framed_rows(&framed, "t"), 3000);
    let restore = lab.restore(&writer);
    let examined = examine(&restore, &framed).await;
    assert_eq!(deviations(&framed, &examined), []);

    // Without the writer it is not a frame, and a writer is no replica.
    let error = heartbeat::beat(&reader, "backup-1").await.unwrap_err();
    assert_eq!(error.name(), dr_core::ErrorName::QueryFailed);
    let source = Source { reader: &main, writer: Some(&main), instance: "writer" };
    let error = frame::plan(&source, "backup-1", UNIT_BYTES).await.unwrap_err();
    assert_eq!(error.name(), dr_core::ErrorName::InvalidInput);
    let _ = Session::open(&main, dr_postgres::Access::ReadOnly).await.unwrap();
}
