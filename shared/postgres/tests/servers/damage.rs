//! Every kind of damage shows, and is followed down to the rows.

use std::collections::BTreeSet;

use dr_core::proof::examination::{Narrowing, NarrowingOutcome, RowDifferenceKind};
use dr_postgres::heartbeat;
use dr_postgres::{Access, Session};
use rds_local::postgres::{ChecksumFix, Cluster, Relation, Running, TearWal};

use crate::lab::{
    Deviation, Examined, Framed, Lab, check, deviations, examine, faults, narrow_all, settings, sql,
    take_frame,
};

/// A framed source that moves on, and a settled restore of it to damage.
struct Bench {
    lab: Lab,
    source: Running,
    framed: Framed,
    older: Cluster,
    settled: Cluster,
    table: Relation,
    older_table: Relation,
    index: Relation,
}

impl Bench {
    async fn new(checksums: bool) -> Self {
        let lab = Lab::new(17);
        let source = lab.start(&lab.cluster(checksums));
        sql(
            &source,
            "CREATE TABLE t (id int PRIMARY KEY, v text) WITH (fillfactor = 70); \
            INSERT INTO t SELECT k, repeat(chr(97 + k % 26), 100) FROM generate_series(1, 6000) k",
        );
        let older = lab.copy(&source, "older");
        // What a stale page brings back must be from before the frame.
        sql(&source, "UPDATE t SET v = 'updated before the frame' WHERE id % 10 = 0");
        sql(&source, "CHECKPOINT");
        let framed = take_frame(&source).await;
        // Changes in the window, far from the damage.
        sql(&source, "UPDATE t SET v = 'updated after the frame' WHERE id BETWEEN 5001 AND 5040");
        sql(&source, "DELETE FROM t WHERE id BETWEEN 5101 AND 5120");
        sql(&source, "INSERT INTO t SELECT k, 'new' FROM generate_series(7001, 7200) k");
        let settled = lab.copy(&source, "settled");
        let mut places = settled.settle("postgres", &["public.t", "public.t_pkey"]).unwrap();
        let (index, table) = (places.pop().unwrap(), places.pop().unwrap());
        let older_table = older.settle("postgres", &["public.t"]).unwrap().pop().unwrap();
        Self { lab, source, framed, older, settled, table, older_table, index }
    }

    /// Damages a copy and examines it.
    async fn after(&self, name: &str, damage: impl FnOnce(&Cluster)) -> Outcome {
        let copy = self.settled.copy(&self.lab.dir.path().join(name)).unwrap();
        damage(&copy);
        let restore = self.lab.start(&copy);
        self.look_at(&restore).await
    }

    async fn after_sql(&self, name: &str, statements: &str) -> Outcome {
        let restore = self.lab.start(&self.settled.copy(&self.lab.dir.path().join(name)).unwrap());
        sql(&restore, statements);
        self.look_at(&restore).await
    }

    async fn look_at(&self, restore: &Running) -> Outcome {
        let examined = examine(restore, &self.framed).await;
        let faults = faults(&check(restore, &examined).await);
        let narrowings = narrow_all(&self.source, restore, &self.framed, &examined).await;
        Outcome { deviations: deviations(&self.framed, &examined), faults, narrowings, examined }
    }
}

struct Outcome {
    deviations: Vec<Deviation>,
    faults: Vec<(String, String)>,
    narrowings: Vec<Narrowing>,
    examined: Examined,
}

impl Outcome {
    /// Keys and kinds of the rows that were named, and how many there are.
    fn rows(&self) -> (u64, Vec<(String, RowDifferenceKind)>) {
        let mut all = (0, Vec::new());
        for narrowing in &self.narrowings {
            if let NarrowingOutcome::Rows { count, keys, .. } = &narrowing.outcome {
                all.0 += count;
                all.1.extend(keys.iter().map(|row| (row.key.clone(), row.kind)));
            }
        }
        all
    }

    fn kinds(&self) -> BTreeSet<String> {
        self.rows().1.into_iter().map(|(_, kind)| format!("{kind:?}")).collect()
    }

    /// The blocks of the rows that were named.
    fn blocks(&self) -> BTreeSet<u32> {
        let block = |key: &str| key.rsplit_once('(').unwrap().1.split_once(',').unwrap().0.parse().unwrap();
        self.rows().1.iter().map(|(key, _)| block(key)).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_restore_of_a_source_that_moved_on_is_accounted_for() {
    let bench = Bench::new(true).await;
    let outcome = bench.after("sound", |_| ()).await;
    assert_eq!(outcome.faults, []);
    let lost: u64 = outcome.deviations.iter().map(|one| one.rows.0 - one.rows.1.unwrap()).sum();
    assert_eq!(lost, 60);
    assert!(
        outcome
            .narrowings
            .iter()
            .all(|one| matches!(one.outcome, NarrowingOutcome::Accounted { compared } if compared > 0))
    );
    assert_eq!(outcome.examined.plan.server.system_identifier, bench.framed.plan.server.system_identifier);
    assert!(outcome.examined.plan.server.data_checksums);
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_files_show_with_checksums() {
    let bench = Bench::new(true).await;
    let table = &bench.table;

    let outcome = bench.after("zeroed", |copy| drop(copy.zero_page(table, 3).unwrap())).await;
    assert_eq!((outcome.blocks(), outcome.kinds()), ([3].into(), ["Missing".to_owned()].into()));
    assert!(outcome.rows().1[0].0.starts_with("id="), "{:?}", outcome.rows());
    assert!(outcome.rows().0 > 20 && outcome.rows().1.len() == 20);

    let outcome = bench.after("truncated", |copy| drop(copy.truncate_file(table, 4).unwrap())).await;
    assert!(
        !outcome.deviations.is_empty() && !outcome.faults.is_empty(),
        "{:?} {:?}",
        outcome.deviations,
        outcome.faults
    );

    let outcome = bench
        .after("flipped", |copy| drop(copy.flip_bytes(table, 3, 8150, 1, ChecksumFix::Leave).unwrap()))
        .await;
    assert_eq!(
        outcome.deviations.iter().filter(|one| one.sqlstate.as_deref() == Some("XX001")).count(),
        1,
        "{:?}",
        outcome.deviations
    );
    assert_eq!((outcome.blocks(), outcome.kinds()), ([3].into(), ["Missing".to_owned()].into()));
    assert!(outcome.faults.iter().any(|(name, _)| name == "public.t"), "{:?}", outcome.faults);

    let outcome = bench
        .after("forged", |copy| drop(copy.flip_bytes(table, 3, 8150, 1, ChecksumFix::Fix).unwrap()))
        .await;
    assert_eq!(
        (outcome.rows().0, outcome.blocks(), outcome.kinds()),
        (1, [3].into(), ["Changed".to_owned()].into())
    );
    assert_eq!(outcome.faults, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_files_show_without_checksums() {
    let bench = Bench::new(false).await;
    let table = &bench.table;
    let outcome = bench
        .after("flipped", |copy| drop(copy.flip_bytes(table, 3, 8150, 1, ChecksumFix::Leave).unwrap()))
        .await;
    assert!(!outcome.examined.plan.server.data_checksums);
    assert_eq!(
        (outcome.rows().0, outcome.blocks(), outcome.kinds()),
        (1, [3].into(), ["Changed".to_owned()].into())
    );

    let outcome = bench
        .after("stale", |copy| drop(copy.stale_page(table, 3, &bench.older, &bench.older_table).unwrap()))
        .await;
    // The old versions are back, and the new ones, which had been put into the same page, are gone.
    assert_eq!(outcome.blocks(), [3].into());
    assert!(outcome.kinds().contains("Missing"), "{:?}", outcome.rows());
    assert!(!outcome.faults.is_empty() || outcome.rows().0 > 0);

    let outcome = bench.after("index", |copy| drop(copy.corrupt_index(&bench.index).unwrap())).await;
    assert_eq!(outcome.rows().0, 0);
    assert_eq!(
        outcome.faults.iter().map(|(name, _)| name.as_str()).collect::<BTreeSet<_>>(),
        ["public.t_pkey"].into()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_by_sql_show_and_are_named() {
    let bench = Bench::new(true).await;
    let outcome = bench.after_sql("deleted", "DELETE FROM t WHERE id = 4321").await;
    let (count, rows) = outcome.rows();
    assert_eq!((count, rows[0].1), (1, RowDifferenceKind::Missing));
    assert!(rows[0].0.starts_with("id=4321 at ("), "{rows:?}");

    // An honest edit leaves the frame: the row is missing below the horizon and there above it.
    let outcome = bench.after_sql("changed", "UPDATE t SET v = 'forged' WHERE id = 4321").await;
    let (count, rows) = outcome.rows();
    assert_eq!((count, rows[0].1), (1, RowDifferenceKind::Missing));
    assert!(rows[0].0.starts_with("id=4321 at ("), "{rows:?}");

    let outcome = bench
        .after_sql(
            "swapped",
            "UPDATE t SET v = (SELECT o.v FROM t o WHERE o.id = 4321 + 4322 - t.id) WHERE id IN (4321, 4322)",
        )
        .await;
    let (count, rows) = outcome.rows();
    assert_eq!(count, 2);
    let keys: BTreeSet<&str> = rows.iter().map(|(key, _)| key.split_once(' ').unwrap().0).collect();
    assert_eq!(keys, ["id=4321", "id=4322"].into());
    assert_eq!(outcome.faults, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_crashes_while_it_is_narrowed_does_not_go_on_crashing() {
    let lab = Lab::new(17);
    let source = lab.source();
    sql(&source, "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 100)");
    let framed = take_frame(&source).await;
    let restore = lab.restore(&source);
    sql(&restore, "DELETE FROM t WHERE id = 5");
    let examined = examine(&restore, &framed).await;
    let (locker, connection) =
        tokio_postgres::connect(&restore.url("postgres"), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    locker.batch_execute("BEGIN; LOCK TABLE t").await.unwrap();
    let killing = async {
        let waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = 'lifeboat'";
        loop {
            if let Some(row) = sql(&restore, waiting).first() {
                let pid = row[0].clone().unwrap();
                assert!(std::process::Command::new("kill").args(["-KILL", &pid]).status().unwrap().success());
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    let (narrowings, ()) = tokio::join!(narrow_all(&source, &restore, &framed, &examined), killing);
    let [narrowing] = &narrowings[..] else { panic!("{narrowings:?}") };
    assert!(
        matches!(&narrowing.outcome, NarrowingOutcome::SourceUnavailable { reason } if reason.contains("crashed")),
        "{narrowing:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_log_loses_the_heartbeat_and_an_untorn_one_keeps_it() {
    let lab = Lab::new(17);
    let source = lab.source();
    sql(
        &source,
        "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT k, 'x' FROM generate_series(1, 3000) k",
    );
    sql(&source, "CREATE TABLE big AS SELECT k FROM generate_series(1, 5000) k");
    sql(&source, "CHECKPOINT");
    // Beaten once before, so that the table is there.
    heartbeat::beat(&settings(&source, "postgres"), "backup-0").await.unwrap();
    // The log is torn at the last record before a position; this one is no loss.
    sql(&source, "SELECT pg_create_restore_point('here')");
    let before = sql(&source, "SELECT pg_current_wal_insert_lsn()")[0][0].clone().unwrap();
    let framed = take_frame(&source).await;
    assert_eq!(framed.beat.beat, 1);
    let found = async |restore: &Running| {
        let session = Session::open(&settings(restore, "postgres"), Access::ReadOnly).await.unwrap();
        heartbeat::find(&session, Some("backup-1")).await.unwrap()
    };
    let whole = lab.copy(&source, "whole");
    let torn = whole.copy(&lab.dir.path().join("torn")).unwrap();
    torn.tear_wal(TearWal::Before(before.parse().unwrap())).unwrap();
    let restore = lab.start(&whole);
    assert_eq!(found(&restore).await.of_operation.as_ref(), Some(&framed.beat));
    drop(restore);
    let restore = lab.start(&torn);
    let found = found(&restore).await;
    assert_eq!(found.of_operation, None);
    assert!(found.newest.unwrap() < framed.beat.written_at);
    // Nothing else can tell.
    let examined = examine(&restore, &framed).await;
    assert_eq!(deviations(&framed, &examined), []);
    assert_eq!(faults(&check(&restore, &examined).await), []);
}
