//! Raw servers: crash-consistent copies, damage that is really there, nothing left running.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rds_local::postgres::{
    ChecksumFix, Cluster, ClusterOptions, Error, Lsn, MasterUser, Running, StartOptions, StopMode, TearWal,
    Toolchain,
};
use tempfile::TempDir;

const MAJORS: [u32; 5] = [14, 15, 16, 17, 18];

fn scratch() -> TempDir {
    tempfile::Builder::new().prefix("rds-local-test-").tempdir().unwrap()
}

fn create(dir: &Path, major: u32, checksums: bool) -> Running {
    let toolchain = Toolchain::find(major).unwrap();
    let cluster = Cluster::create(&toolchain, dir, &ClusterOptions { checksums, master: None }).unwrap();
    cluster.start(&StartOptions::default()).unwrap()
}

fn one(server: &Running, query: &str) -> String {
    server.sql("postgres", query).unwrap()[0][0].clone().unwrap()
}

/// Processes that work in `dir` or below.
fn processes_in(dir: &Path) -> Vec<String> {
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter(|entry| fs::read_link(entry.path().join("cwd")).is_ok_and(|place| place.starts_with(dir)))
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, body text);
    INSERT INTO t SELECT n, repeat(md5(n::text), 10) FROM generate_series(1, 2000) n";

/// A settled copy of a server with table `t`, and its relations `t`, `t_pkey`.
fn damaged_by(dir: &Path, major: u32, checksums: bool, damage: impl Fn(&Cluster)) -> Running {
    let server = create(&dir.join("source"), major, checksums);
    server.sql("postgres", TABLE).unwrap();
    let copy = server.freeze_and_copy(&dir.join("copy")).unwrap();
    drop(server);
    copy.settle("postgres", &["public.t"]).unwrap();
    damage(&copy);
    copy.start(&StartOptions::default()).unwrap()
}

fn table(cluster: &Cluster, name: &str) -> rds_local::postgres::Relation {
    cluster.settle("postgres", &[name]).unwrap().remove(0)
}

#[test]
fn every_version_starts_copies_and_recovers() {
    for major in MAJORS {
        let dir = scratch();
        let server = create(&dir.path().join("a"), major, true);
        server.sql("postgres", TABLE).unwrap();
        let copy = server.freeze_and_copy(&dir.path().join("b")).unwrap();
        // The source goes on, and what it does then is not in the copy.
        server.sql("postgres", "DELETE FROM t").unwrap();
        let restored = copy.start(&StartOptions::default()).unwrap();
        assert_eq!(one(&restored, "SELECT count(*) FROM t"), "2000", "version {major}");
        assert_eq!(one(&server, "SELECT count(*) FROM t"), "0", "version {major}");
        assert_eq!(one(&server, "SHOW data_checksums"), "on", "version {major}");
        let log = fs::read_to_string(restored.cluster().log_file()).unwrap();
        assert!(log.contains("redo done"), "version {major} recovered nothing:\n{log}");
        server.stop(StopMode::Fast).unwrap();
        restored.stop(StopMode::Immediate).unwrap();
        assert_eq!(processes_in(dir.path()), Vec::<String>::new());
    }
}

#[test]
fn checksums_can_be_left_out_in_every_version() {
    for major in MAJORS {
        let dir = scratch();
        let server = create(&dir.path().join("a"), major, false);
        assert_eq!(one(&server, "SHOW data_checksums"), "off", "version {major}");
    }
}

#[test]
fn a_copy_under_writes_holds_whole_transactions_up_to_one_instant() {
    let dir = scratch();
    let server = create(&dir.path().join("a"), 17, true);
    // Each transaction moves an amount between two rows; the sum never changes and the log only grows.
    server
        .sql(
            "postgres",
            "CREATE TABLE account (id int PRIMARY KEY, amount int); INSERT INTO account VALUES (1, 1000), (2, 1000);
             CREATE TABLE log (id bigserial PRIMARY KEY)",
        )
        .unwrap();
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..40 {
                    server
                        .sql(
                            "postgres",
                            "UPDATE account SET amount = amount - 1 WHERE id = 1;
                             UPDATE account SET amount = amount + 1 WHERE id = 2; INSERT INTO log DEFAULT VALUES",
                        )
                        .unwrap();
                }
            });
        }
        for round in 0..3 {
            let before: i64 = one(&server, "SELECT count(*) FROM log").parse().unwrap();
            let copy = server.freeze_and_copy(&dir.path().join(format!("copy{round}"))).unwrap();
            let after: i64 = one(&server, "SELECT count(*) FROM log").parse().unwrap();
            let restored = copy.start(&StartOptions::default()).unwrap();
            let logged: i64 = one(&restored, "SELECT count(*) FROM log").parse().unwrap();
            assert!((before..=after).contains(&logged), "{before} <= {logged} <= {after}");
            assert_eq!(one(&restored, "SELECT sum(amount) FROM account"), "2000");
            assert_eq!(one(&restored, "SELECT 1000 - amount FROM account WHERE id = 1"), logged.to_string());
        }
    });
    assert_eq!(one(&server, "SELECT count(*) FROM log"), "120");
}

#[test]
fn dropping_a_server_leaves_no_process() {
    let dir = scratch();
    let server = create(&dir.path().join("a"), 18, true);
    assert!(processes_in(dir.path()).len() > 3);
    drop(server);
    assert_eq!(processes_in(dir.path()), Vec::<String>::new());
}

#[test]
fn a_long_path_still_gets_a_socket() {
    let dir = scratch();
    let server = create(&dir.path().join("x".repeat(120)), 17, true);
    assert_eq!(one(&server, "SELECT 1"), "1");
}

#[test]
fn a_zeroed_page_loses_its_rows_silently() {
    let dir = scratch();
    let server = damaged_by(dir.path(), 17, true, |copy| {
        let table = table(copy, "public.t");
        copy.zero_page(&table, 3).unwrap();
        assert!(copy.read_page(&table, 3).unwrap().iter().all(|&byte| byte == 0));
        assert!(matches!(copy.zero_page(&table, 3), Err(Error::Damage { .. })), "nothing left to zero");
        assert!(matches!(copy.zero_page(&table, 100_000), Err(Error::Damage { .. })), "no such block");
    });
    let rows: i32 = one(&server, "SELECT count(body) FROM t").parse().unwrap();
    assert!((1900..2000).contains(&rows), "{rows}");
}

#[test]
fn flipped_bytes_are_noticed_with_checksums_only_unless_the_checksum_is_made_right() {
    for (checksums, fix, readable) in [
        (true, ChecksumFix::Leave, false),
        (true, ChecksumFix::Fix, true),
        (false, ChecksumFix::Leave, true),
        (false, ChecksumFix::Fix, true),
    ] {
        let dir = scratch();
        let server = damaged_by(dir.path(), 17, checksums, |copy| {
            let table = table(copy, "public.t");
            let before = copy.read_page(&table, 1).unwrap();
            copy.flip_bytes(&table, 1, 8000, 2, fix).unwrap();
            let after = copy.read_page(&table, 1).unwrap();
            let changed: Vec<usize> =
                (0..before.len()).filter(|&at| before[at] != after[at] && at > 10).collect();
            assert_eq!(changed, [8000, 8001]);
            if checksums {
                assert_eq!(copy.page_is_sealed(&table, 1).unwrap(), fix == ChecksumFix::Fix);
            }
        });
        let read = server.sql("postgres", "SELECT sum(length(body)) FROM t");
        assert_eq!(read.is_ok(), readable, "checksums {checksums}, {fix:?}: {read:?}");
        if readable {
            let good = "SELECT count(*) FROM t WHERE body = repeat(md5(id::text), 10)";
            assert_eq!(one(&server, good), "1999", "exactly one row has another value now");
        }
    }
}

#[test]
fn the_checksum_is_the_one_that_postgresql_computes() {
    for major in MAJORS {
        let dir = scratch();
        damaged_by(dir.path(), major, true, |copy| {
            let table = table(copy, "public.t");
            for block in 0..20 {
                assert!(copy.page_is_sealed(&table, block).unwrap(), "version {major}, block {block}");
            }
        });
    }
}

#[test]
fn a_truncated_file_loses_its_last_rows() {
    let dir = scratch();
    let server = damaged_by(dir.path(), 16, true, |copy| {
        let table = table(copy, "public.t");
        let file = copy.data_dir().join(table.path());
        let before = fs::metadata(&file).unwrap().len();
        copy.truncate_file(&table, 2).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().len(), before - 2 * 8192);
        assert!(matches!(copy.truncate_file(&table, 1_000_000), Err(Error::Damage { .. })));
    });
    let rows: i32 = one(&server, "SELECT count(body) FROM t").parse().unwrap();
    assert!((1900..2000).contains(&rows), "{rows}");
}

#[test]
fn a_stale_page_brings_old_values_back() {
    let dir = scratch();
    let server = create(&dir.path().join("source"), 17, true);
    server.sql("postgres", TABLE).unwrap();
    server.sql("postgres", "VACUUM FREEZE t").unwrap();
    let older = server.freeze_and_copy(&dir.path().join("older")).unwrap();
    server.sql("postgres", "UPDATE t SET body = 'new' WHERE ctid >= '(5,1)' AND ctid < '(6,1)'").unwrap();
    let newer = server.freeze_and_copy(&dir.path().join("newer")).unwrap();
    drop(server);
    let (old_table, new_table) = (table(&older, "public.t"), table(&newer, "public.t"));
    newer.stale_page(&new_table, 5, &older, &old_table).unwrap();
    let restored = newer.start(&StartOptions::default()).unwrap();
    let query = "SET enable_indexscan = off; SET enable_bitmapscan = off; SELECT count(*) FROM t";
    let rows: i32 =
        restored.sql("postgres", query).unwrap().last().unwrap()[0].clone().unwrap().parse().unwrap();
    assert!(rows > 2000, "the old rows are back beside the new: {rows}");
}

#[test]
fn a_corrupt_index_misleads_and_amcheck_sees_it() {
    for major in MAJORS {
        let dir = scratch();
        let server = damaged_by(dir.path(), major, true, |copy| {
            copy.corrupt_index(&table(copy, "public.t_pkey")).unwrap();
            assert!(matches!(copy.corrupt_index(&table(copy, "public.t")), Err(Error::Damage { .. })));
        });
        server.sql("postgres", "CREATE EXTENSION amcheck").unwrap();
        let check = server.sql("postgres", "SELECT bt_index_check('t_pkey', true)").unwrap_err().to_string();
        assert!(check.contains("item order invariant violated"), "version {major}: {check}");
        assert_eq!(one(&server, "SELECT count(body) FROM t"), "2000");
    }
}

#[test]
fn a_torn_log_ends_recovery_before_the_last_commit() {
    for major in MAJORS {
        let dir = scratch();
        let server = create(&dir.path().join("source"), major, true);
        server.sql("postgres", TABLE).unwrap();
        server.sql("postgres", "CHECKPOINT").unwrap();
        server.sql("postgres", "INSERT INTO t VALUES (100001, 'kept')").unwrap();
        let limit: Lsn = one(&server, "SELECT pg_current_wal_insert_lsn()").parse().unwrap();
        server.sql("postgres", "INSERT INTO t VALUES (100002, 'lost')").unwrap();
        let copy = server.freeze_and_copy(&dir.path().join("copy")).unwrap();
        let clean = server.stop(StopMode::Fast).unwrap();
        assert!(matches!(clean.tear_wal(TearWal::default()), Err(Error::Damage { .. })), "nothing to replay");
        let whole = copy.copy(&dir.path().join("whole")).unwrap();
        copy.tear_wal(TearWal::Before(Lsn(limit.0 + 1))).unwrap();
        let ids = "SELECT string_agg(id::text, ' ' ORDER BY id) FROM t WHERE id > 100000";
        let torn = copy.start(&StartOptions::default()).unwrap();
        assert_eq!(one(&torn, ids), "100001", "version {major}");
        let whole = whole.start(&StartOptions::default()).unwrap();
        assert_eq!(one(&whole, ids), "100001 100002", "version {major}");
    }
}

#[test]
fn the_master_user_has_the_rights_that_rds_gives() {
    for major in MAJORS {
        let dir = scratch();
        let toolchain = Toolchain::find(major).unwrap();
        let master = MasterUser {
            name: "Boss".into(),
            password: "it's \\ 'odd'".into(),
            database: Some("App".into()),
        };
        let options = ClusterOptions { checksums: true, master: Some(master) };
        let cluster = Cluster::create(&toolchain, &dir.path().join("a"), &options).unwrap();
        let server = cluster.start(&StartOptions::default()).unwrap();
        let as_master = |statement: &str| server.sql_as("Boss", "App", statement);
        assert_eq!(one(&server, "SELECT rolsuper FROM pg_roles WHERE rolname = 'Boss'"), "f");
        for allowed in [
            "CREATE TABLE t (n int PRIMARY KEY)",
            "CREATE ROLE reader LOGIN; GRANT pg_read_all_data TO reader",
            "CREATE DATABASE another",
            "CREATE EXTENSION IF NOT EXISTS amcheck",
            "SELECT bt_index_parent_check(c.oid, true) FROM pg_class c WHERE relname = 't_pkey'",
            "SELECT * FROM verify_heapam('t')",
            "SELECT count(*) FROM pg_stat_activity",
        ] {
            for statement in allowed.split(';') {
                let done = as_master(statement);
                assert!(done.is_ok(), "version {major}, {statement}: {}", done.unwrap_err());
            }
        }
        for refused in
            ["ALTER SYSTEM SET fsync = on", "SELECT pg_read_file('PG_VERSION')", "COPY t TO PROGRAM 'cat'"]
        {
            assert!(as_master(refused).is_err(), "version {major}, {refused}");
        }
    }
}

#[test]
fn a_server_that_cannot_start_says_why() {
    let dir = scratch();
    let toolchain = Toolchain::find(17).unwrap();
    let cluster = Cluster::create(&toolchain, &dir.path().join("a"), &ClusterOptions::default()).unwrap();
    let options =
        StartOptions { settings: vec![("shared_buffers".into(), "lots".into())], ..StartOptions::default() };
    let begun = Instant::now();
    match cluster.start(&options) {
        Err(Error::Start { log, .. }) => assert!(log.contains("shared_buffers"), "{log}"),
        other => panic!("{other:?}"),
    }
    assert!(begun.elapsed() < Duration::from_secs(30));
}
