//! A source beside its own frame, on real servers: what is lost is named, what was changed is not.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "tests"
)]

mod common;

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::workload::{SCHEMA, Workload};
use common::{BACKUP, Memory};
use dr_core::ids::DatabaseId;
use dr_core::proof::judge::live::Unlike;
use dr_core::proof::judgement::Reason;
use dr_core::{EngineFamily, ErrorName, Result};
use dr_database::Limits;
use dr_postgres::ConnectionSettings;
use jiff::Timestamp;
use rds_local::postgres::{ChecksumFix, Cluster, ClusterOptions, Running, StopMode};
use validate_backup::compare::Source;
use validate_backup::request::{Compared, Comparing};
use validate_backup::store::Records;

fn world(major: u32) -> (tempfile::TempDir, Running) {
    let dir = common::directory();
    let server = common::source(dir.path(), major, &ClusterOptions::default());
    server.sql("shop", SCHEMA).unwrap();
    // Loses rows without anybody having deleted them.
    server.sql("shop", "CREATE EXTENSION pg_surgery").unwrap();
    (dir, server)
}

async fn step(
    store: &Memory,
    operation: &str,
    database: &str,
    writer: &ConnectionSettings,
    limits: Limits,
) -> Result<Comparing> {
    let source = Source {
        records: &Records::of(store, operation),
        database: &DatabaseId::parse(database).unwrap(),
        writer,
        validation: &common::options(),
    };
    source.advance(limits, Timestamp::now()).await
}

/// Compares to the end.
async fn compare(store: &Memory, operation: &str, server: &Running) -> Compared {
    let begun = Instant::now();
    loop {
        match step(store, operation, "orders", &common::settings(server), common::limits()).await.unwrap() {
            Comparing::Done(compared) => return *compared,
            pending if begun.elapsed() > Duration::from_mins(1) => panic!("it does not end: {pending:?}"),
            Comparing::Pending { check_again_in_seconds, .. } => {
                assert!((1..=13).contains(&check_again_in_seconds));
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

/// The tables of a list, each with its reason and the rows that it lacks. The one that is not logged is left out.
fn named(list: &[Unlike]) -> Vec<(&str, Reason, u64)> {
    let logged = list.iter().filter(|unlike| unlike.why != Reason::Unlogged);
    logged
        .map(|unlike| {
            let table = unlike.table.rsplit('.').next().unwrap();
            (table, unlike.why, unlike.framed_rows - unlike.rows)
        })
        .collect()
}

fn lose(server: &Running, table: &str, place: &str) {
    let sql = format!("SELECT heap_force_kill('{table}'::regclass, ARRAY['{place}']::tid[])");
    server.sql("shop", &sql).unwrap();
}

/// Kills the postmaster alone, and starts the server again: recovery.
async fn crash(mut server: Running) -> Running {
    let killed = Command::new("kill").args(["-KILL", &server.pid().to_string()]).status().unwrap();
    assert!(killed.success());
    while !server.has_ended() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let cluster = server.cluster().clone();
    drop(server);
    restart(&cluster).await
}

/// Starts, once the processes that a killed postmaster left have gone.
async fn restart(cluster: &Cluster) -> Running {
    let begun = Instant::now();
    loop {
        match cluster.start(&common::start_options()) {
            Ok(server) => return server,
            Err(error) if begun.elapsed() > Duration::from_mins(1) => panic!("it does not start: {error}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// Updates rows of `orders` one after the other until it is stopped, through outages.
struct Updates {
    stop: Arc<AtomicBool>,
    made: Arc<AtomicU64>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Updates {
    fn start(server: &Running) -> Self {
        let (stop, made) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (ended, counter) = (Arc::clone(&stop), Arc::clone(&made));
        let url = server.url("shop");
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut id = 0;
                while !ended.load(Ordering::SeqCst) {
                    let Ok((client, connection)) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await
                    else {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                        continue;
                    };
                    let driver = tokio::spawn(connection);
                    while !ended.load(Ordering::SeqCst) {
                        id = id % 11_000 + 7;
                        let sql = format!("UPDATE orders SET total = total + 1 WHERE id = {id}");
                        if client.batch_execute(&sql).await.is_err() {
                            break;
                        }
                        counter.fetch_add(1, Ordering::SeqCst);
                    }
                    drop(client);
                    let _ = driver.await;
                }
            });
        });
        Self { stop, made, thread: Some(thread) }
    }

    /// Waits for so many more.
    async fn more(&self, updates: u64) {
        let (until, begun) = (self.made.load(Ordering::SeqCst) + updates, Instant::now());
        while self.made.load(Ordering::SeqCst) < until {
            assert!(begun.elapsed() < Duration::from_mins(1), "the source is not updated");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Updates {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            assert!(thread.join().is_ok() || std::thread::panicking());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_counters_count_a_lost_row_is_told_from_a_deleted_one() {
    let (_dir, server) = world(17);
    let store = Memory::default();
    common::frame(&store, BACKUP, &server).await;
    let updates = Updates::start(&server);
    updates.more(200).await;
    server.sql("shop", "DELETE FROM items WHERE order_id % 100 = 3").unwrap();
    server.sql("shop", "INSERT INTO keyless SELECT 1, 'new' FROM generate_series(1, 500)").unwrap();
    server.sql("shop", "VACUUM (FREEZE)").unwrap();
    lose(&server, "calm", "(20,3)");
    let compared = compare(&store, BACKUP, &server).await;
    assert_eq!(named(&compared.different), [("calm", Reason::RowsMissing, 1)]);
    let places = &compared.different[0].slices;
    assert!(places.len() == 1 && places[0].first <= 20 && places[0].end > Some(20), "{places:?}");
    assert_eq!(named(&compared.untold), []);
    assert!(compared.counted, "{compared:?}");
    assert_eq!((compared.changed, compared.faults.len()), (2, 0), "{compared:?}");
    assert!(compared.same >= 5, "{compared:?}");
    assert!((30.0..100.0).contains(&compared.covered), "{compared:?}");
    // Compared once: what happens later plays no part.
    lose(&server, "rewritten", "(3,3)");
    assert_eq!(compare(&store, BACKUP, &server).await, compared);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_crash_what_was_changed_is_not_named_and_what_is_damaged_is() {
    let (_dir, server) = world(16);
    let store = Memory::default();
    common::frame(&store, BACKUP, &server).await;
    let updates = Updates::start(&server);
    updates.more(200).await;
    let server = crash(server).await;
    updates.more(200).await;
    lose(&server, "calm", "(20,3)");
    let parts = server.relation("shop", "public.parts_1").unwrap();
    let damaged = server.stop(StopMode::Fast).unwrap();
    damaged.flip_bytes(&parts, 2, 8_000, 4, ChecksumFix::Fix).unwrap();
    let server = restart(&damaged).await;
    updates.more(200).await;
    let compared = compare(&store, BACKUP, &server).await;
    assert_eq!(named(&compared.different), [("parts_1", Reason::ContentDiffers, 0)], "{compared:?}");
    // Deleted or lost: a crash takes the counters with it, and nothing else tells.
    assert_eq!(named(&compared.untold), [("calm", Reason::CountersUnusable, 1)], "{compared:?}");
    assert_eq!((compared.changed, compared.counted), (1, false), "{compared:?}");
    assert!(compared.same >= 6 && compared.faults.is_empty(), "{compared:?}");
    drop(updates);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_of_a_quiet_source_leaves_everything_the_same_and_a_lost_end_of_the_log_does_not() {
    let (dir, server) = world(18);
    let store = Memory::default();
    let older = server.freeze_and_copy(&common::at(&dir, "older")).unwrap();
    // Rows that the older copy does not have.
    server.sql("shop", "UPDATE calm SET payload = 'fresh' WHERE id < 50").unwrap();
    common::frame(&store, BACKUP, &server).await;
    let server = crash(server).await;
    // Killed again and again, and out of time.
    let (mut kills, begun) = (0, Instant::now());
    let written = || store.writes.lock().unwrap().values().sum::<usize>();
    let compared = loop {
        assert!(begun.elapsed() < Duration::from_mins(2), "it does not end after {kills} kills");
        let most = written() + 5;
        store.hang_after.store(most, Ordering::SeqCst);
        let killed = async {
            while written() < most {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        let limits = Limits::lasting(1, Duration::from_secs(1), Duration::from_secs(1));
        let settings = common::settings(&server);
        tokio::select! {
            answer = step(&store, BACKUP, "orders", &settings, limits) => match answer.unwrap() {
                Comparing::Done(compared) => break *compared,
                Comparing::Pending { .. } => tokio::time::sleep(Duration::from_millis(100)).await,
            },
            () = killed => kills += 1,
        }
    };
    assert!(kills > 3, "{kills} kills");
    store.hang_after.store(0, Ordering::SeqCst);
    let twice: Vec<String> = store
        .writes
        .lock()
        .unwrap()
        .iter()
        .filter(|(_, times)| **times > 1)
        .map(|(key, _)| key.clone())
        .collect();
    assert_eq!(twice, [""; 0], "what was stored is not done again");
    assert_eq!((named(&compared.different), named(&compared.untold)), (vec![], vec![]), "{compared:?}");
    assert_eq!((compared.changed, compared.counted), (0, false), "{compared:?}");
    assert!(compared.covered >= 99.0, "{compared:?}");

    // The same frame, and a server that came back without what had been acknowledged before it.
    let fresh = Memory::default();
    for (key, body) in store.objects.lock().unwrap().iter().filter(|(key, _)| key.contains("/frame/")) {
        fresh.objects.lock().unwrap().insert(key.clone(), body.clone());
    }
    let server = common::start(&older);
    let compared = compare(&fresh, BACKUP, &server).await;
    assert!(compared.faults.len() == 1 && compared.faults[0].contains("beat"), "{compared:?}");
    assert_eq!(named(&compared.different), [("calm", Reason::MoreRows, 0)], "{compared:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_are_named_and_leave_nothing() {
    let (dir, server) = world(15);
    let (store, settings) = (Memory::default(), common::settings(&server));
    let refused = async |database: &str, writer: &ConnectionSettings| {
        let before = store.objects.lock().unwrap().len();
        let error = step(&store, BACKUP, database, writer, common::limits()).await.unwrap_err();
        assert_eq!(store.objects.lock().unwrap().len(), before, "{error}");
        error.name()
    };
    assert_eq!(refused("orders", &settings).await, ErrorName::FrameMissing);
    common::frame(&store, BACKUP, &server).await;
    let copy = server.freeze_and_copy(&common::at(&dir, "standby")).unwrap();
    assert_eq!(refused("stores", &settings).await, ErrorName::FrameMissing);
    let mysql = settings.clone().speaking(EngineFamily::MySql);
    assert_eq!(refused("orders", &mysql).await, ErrorName::EngineUnsupported);
    copy.write_file("standby.signal", b"").unwrap();
    let standby = common::start(&copy);
    assert_eq!(refused("orders", &common::settings(&standby)).await, ErrorName::DatabaseUnavailable);
    server.stop(StopMode::Immediate).unwrap();
    assert_eq!(refused("orders", &settings).await, ErrorName::ConnectionFailed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_busy_source_does_to_itself_is_not_held_to_be_damage() {
    let (_dir, server) = world(17);
    let store = Memory::default();
    let workload = Workload::start(&server, 7);
    let busy = async || {
        let (until, begun) = (workload.counts.writes.load(Ordering::Relaxed) + 100, Instant::now());
        while workload.counts.writes.load(Ordering::Relaxed) < until {
            assert!(begun.elapsed() < Duration::from_mins(1), "the source does not write");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    for operation in ["chaos-0000000000000001", "chaos-0000000000000002"] {
        common::frame(&store, operation, &server).await;
        busy().await;
        let compared = compare(&store, operation, &server).await;
        assert_eq!(named(&compared.different), [], "{compared:?}");
        assert!(compared.faults.is_empty() && compared.same > 0 && compared.changed > 0, "{compared:?}");
    }
    common::frame(&store, BACKUP, &server).await;
    busy().await;
    // Its sessions do not outlive the server; those of the test above do.
    workload.stop();
    let server = crash(server).await;
    let compared = compare(&store, BACKUP, &server).await;
    assert_eq!(named(&compared.different), [], "{compared:?}");
    assert!(compared.faults.is_empty() && compared.same > 0 && !compared.counted, "{compared:?}");
}
