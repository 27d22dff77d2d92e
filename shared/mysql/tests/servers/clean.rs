//! No false alarm: proofs of a source that is at work all the while.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use dr_core::proof::judgement::{TableVerdict, Verdict};
use rds_local::mariadb::{Running, StartOptions};

use super::lab::*;

const SCHEMA: &str = "CREATE DATABASE shop; USE shop; \
    CREATE TABLE calm (id INT PRIMARY KEY, v VARCHAR(200)); \
    CREATE TABLE orders (id INT PRIMARY KEY AUTO_INCREMENT, n BIGINT, v VARCHAR(200), KEY by_n (n)); \
    CREATE TABLE queue (id INT PRIMARY KEY AUTO_INCREMENT, v INT); \
    CREATE TABLE loaded (id INT PRIMARY KEY AUTO_INCREMENT, n BIGINT); \
    CREATE TABLE keyless (n BIGINT); \
    CREATE TABLE altered (id INT PRIMARY KEY AUTO_INCREMENT, v INT); \
    INSERT INTO calm SELECT seq, REPEAT('c', 150) FROM mysql.seq_1_to_3000; \
    INSERT INTO orders (n, v) SELECT seq, REPEAT('o', 150) FROM mysql.seq_1_to_3000; \
    INSERT INTO altered (v) SELECT seq FROM mysql.seq_1_to_500; \
    ANALYZE TABLE calm, orders";

/// What a busy application does, each turn unlike every other so that nothing comes back to what it was.
fn work(server: &Running, over: &AtomicBool, turns: &AtomicU64) {
    while !over.load(Ordering::Relaxed) {
        let turn = turns.fetch_add(1, Ordering::Relaxed);
        let id = 1 + turn * 37 % 3000;
        let mut sql = format!(
            "UPDATE orders SET n = {turn} + 1000000 WHERE id = {id}; \
             INSERT INTO orders (n, v) VALUES ({turn}, 'new'); DELETE FROM orders WHERE id = {id} + 1; \
             INSERT INTO queue (v) VALUES ({turn}); DELETE FROM queue; \
             INSERT INTO keyless VALUES ({turn}); DELETE FROM keyless WHERE n < {turn} - 50; \
             START TRANSACTION; UPDATE orders SET n = -{turn} WHERE id = 5; ROLLBACK"
        );
        let now_and_then = match turn % 40 {
            7 => {
                "; TRUNCATE TABLE loaded; \
                 INSERT INTO loaded (n) SELECT seq + 77 * UNIX_TIMESTAMP() FROM mysql.seq_1_to_300"
            }
            17 => "; OPTIMIZE TABLE orders",
            27 => {
                "; CREATE TABLE passing (id INT PRIMARY KEY); INSERT INTO passing VALUES (1); DROP TABLE passing"
            }
            37 => "; ALTER TABLE altered ADD COLUMN w INT; ALTER TABLE altered DROP COLUMN w",
            _ => "",
        };
        sql += now_and_then;
        server.sql("shop", &sql).unwrap();
    }
}

fn proofs_of_a_busy_source(settings: &[(&str, &str)], runs: u64) {
    let dir = tempfile::tempdir().unwrap();
    let server = source(dir.path(), settings);
    server.sql("mysql", SCHEMA).unwrap();
    let (over, turns) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut verdicts = std::collections::BTreeMap::<TableVerdict, u64>::new();
    let scope = async {
        for run in 0..runs {
            let mut framed = frame_of(&server).await;
            let begun = turns.load(Ordering::Relaxed);
            let mut glances = tokio::time::interval(std::time::Duration::from_millis(10));
            while turns.load(Ordering::Relaxed) < begun + 3 + run % 5 {
                glances.tick().await;
            }
            let copy = server.freeze_and_copy(&dir.path().join(format!("copy-{run}"))).unwrap();
            framed.observe(&server).await;
            let restore = copy.start(&StartOptions::default()).unwrap();
            let report = framed.examine(&restore).await.unwrap();
            assert_eq!(errors(&report), [""; 0], "run {run}");
            assert_eq!(report.judgement.verdict, Verdict::Proven);
            assert_eq!(table(&report, "calm").verdict, TableVerdict::Exact);
            for table in &report.tables {
                *verdicts.entry(table.verdict).or_default() += 1;
            }
            drop(restore);
            std::fs::remove_dir_all(copy.dir()).unwrap();
        }
    };
    thread::scope(|threads| {
        threads.spawn(|| work(&server, &over, &turns));
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(scope));
        }));
        over.store(true, Ordering::Relaxed);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
    assert!(turns.load(Ordering::Relaxed) > runs * 3);
    assert!(verdicts.get(&TableVerdict::Exact).copied().unwrap_or(0) >= runs, "{verdicts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proofs_of_a_busy_source_raise_no_alarm() {
    proofs_of_a_busy_source(&[], 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proofs_of_a_busy_source_that_counts_by_table_raise_no_alarm() {
    proofs_of_a_busy_source(&[("performance-schema", "ON")], 4);
}
