//! Every kind of damage is found, and named.

use dr_core::proof::judgement::{FindingKind, Reason, TableVerdict, Verdict};
use rds_local::mariadb::{ChecksumFix, Files, StartOptions, StopMode, TableFile};

use super::lab::*;

const SCHEMA: &str = "CREATE DATABASE shop; USE shop; \
    CREATE TABLE customers (id INT PRIMARY KEY AUTO_INCREMENT, mail VARCHAR(100) NOT NULL, UNIQUE mails (mail)); \
    CREATE TABLE orders (id INT PRIMARY KEY AUTO_INCREMENT, customer INT NOT NULL, n INT, v VARCHAR(200), KEY by_n (n), \
      CONSTRAINT of_customer FOREIGN KEY (customer) REFERENCES customers (id)); \
    CREATE TABLE keyless (n INT, v VARCHAR(100)); \
    CREATE TABLE aria (id INT PRIMARY KEY, v VARCHAR(100)) ENGINE=Aria; \
    CREATE TABLE isam (id INT PRIMARY KEY, v VARCHAR(100)) ENGINE=MyISAM; \
    CREATE TABLE memory (id INT PRIMARY KEY) ENGINE=MEMORY; \
    CREATE VIEW newest AS SELECT MAX(id) AS id FROM orders; \
    INSERT INTO customers (mail) SELECT CONCAT('c', seq, '@example.com') FROM mysql.seq_1_to_1000; \
    INSERT INTO orders (customer, n, v) SELECT 1 + seq % 1000, seq * 7 % 1000, REPEAT('x', 150) FROM mysql.seq_1_to_5000; \
    INSERT INTO keyless SELECT seq % 100, REPEAT('k', 50) FROM mysql.seq_1_to_2000; \
    INSERT INTO aria SELECT seq, REPEAT('a', 80) FROM mysql.seq_1_to_1000; \
    INSERT INTO isam SELECT seq, REPEAT('i', 80) FROM mysql.seq_1_to_1000; \
    CREATE DATABASE lifeboat; CREATE TABLE lifeboat.Heartbeat (id INT PRIMARY KEY, v VARCHAR(100)); \
    INSERT INTO lifeboat.Heartbeat SELECT seq, 'not ours' FROM mysql.seq_1_to_100; \
    INSERT INTO memory VALUES (1); ANALYZE TABLE orders, customers";

enum Expected {
    Table(&'static str, &'static [Reason]),
    Finding(FindingKind, &'static str),
}
use Expected::{Finding, Table};

type Deed = Box<dyn Fn(&Files)>;

fn sql(statements: &'static str) -> Deed {
    Box::new(move |files| {
        let server = files.start(&StartOptions::default()).unwrap();
        server.sql("shop", statements).unwrap();
        server.stop(StopMode::Fast).unwrap();
    })
}

fn leaf(files: &Files, number: usize) -> u32 {
    files.leaves(&TableFile::innodb("shop", "orders"), "PRIMARY").unwrap()[number]
}

fn flip(fix: ChecksumFix) -> Deed {
    Box::new(move |files| {
        files.settle().unwrap();
        let page = leaf(files, 7);
        files.flip_bytes(&TableFile::innodb("shop", "orders"), page, 5000, 3, fix).unwrap();
    })
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
async fn every_kind_of_damage_is_found_and_named_and_an_undamaged_copy_is_proven() {
    let dir = tempfile::tempdir().unwrap();
    let server = source(dir.path(), &[]);
    server.sql("mysql", SCHEMA).unwrap();
    let mut framed = frame_of(&server).await;
    let copy = server.freeze_and_copy(&dir.path().join("copy")).unwrap();
    framed.observe(&server).await;

    let restore = copy.copy(&dir.path().join("sound")).unwrap().start(&StartOptions::default()).unwrap();
    let report = framed.examine(&restore).await.unwrap();
    assert_eq!(errors(&report), [""; 0]);
    assert_eq!(report.judgement.verdict, Verdict::Proven);
    for name in ["customers", "orders", "keyless", "aria", "isam", "Heartbeat"] {
        assert_eq!(table(&report, name).verdict, TableVerdict::Exact, "{name}");
    }
    assert_eq!(table(&report, "memory").reason, Reason::Unlogged);
    for name in ["aria", "isam"] {
        let flagged =
            |kind| report.findings.iter().any(|f| f.kind == kind && f.subject == format!("shop.{name}"));
        assert!(flagged(FindingKind::TableNotTransactional), "{name}");
    }
    drop(restore);

    let unreadable = &[Reason::UnreadableHere];
    let cases: Vec<(&str, Deed, Vec<Expected>)> = vec![
        ("bytes flipped, checksum wrong", flip(ChecksumFix::Leave), vec![Table("orders", unreadable)]),
        (
            "bytes flipped, checksum right",
            flip(ChecksumFix::Fix),
            vec![Table("orders", &[Reason::ContentDiffers])],
        ),
        (
            "a page zeroed",
            Box::new(|files| {
                files.settle().unwrap();
                let page = leaf(files, 7);
                files.zero_page(&TableFile::innodb("shop", "orders"), page).unwrap();
            }),
            vec![Table("orders", &[Reason::UnreadableHere, Reason::RowsMissing])],
        ),
        (
            "an index that leads nowhere",
            Box::new(|files| {
                files.settle().unwrap();
                files.corrupt_index(&TableFile::innodb("shop", "orders"), "by_n").unwrap();
            }),
            vec![Finding(FindingKind::CheckFaulty, "shop.orders")],
        ),
        (
            "a value edited",
            sql("UPDATE orders SET n = n + 1 WHERE id = 2500"),
            vec![Table("orders", &[Reason::ContentDiffers])],
        ),
        (
            "two values swapped",
            sql("UPDATE orders SET n = 7 + 14 - n WHERE id IN (1, 2)"),
            vec![Table("orders", &[Reason::ContentDiffers])],
        ),
        (
            "a row deleted",
            sql("DELETE FROM orders WHERE id = 4999"),
            vec![Table("orders", &[Reason::RowsMissing])],
        ),
        (
            "a row added",
            sql("INSERT INTO orders (customer, n) VALUES (1, 1)"),
            vec![Table("orders", &[Reason::MoreRows])],
        ),
        (
            "a row of a table without a key edited",
            sql("UPDATE keyless SET n = 1000 LIMIT 1"),
            vec![Table("keyless", &[Reason::ContentDiffers])],
        ),
        (
            "a row of a table beside our own",
            sql("DELETE FROM lifeboat.Heartbeat WHERE id = 50"),
            vec![Table("Heartbeat", &[Reason::RowsMissing])],
        ),
        ("a table dropped", sql("DROP TABLE keyless"), vec![Table("keyless", &[Reason::TableMissing])]),
        (
            "a column added",
            sql("ALTER TABLE keyless ADD w INT"),
            vec![
                Table("keyless", &[Reason::StructureDiffers]),
                Finding(FindingKind::SchemaDifferent, "shop (columns)"),
            ],
        ),
        (
            "an index dropped",
            sql("ALTER TABLE orders DROP INDEX by_n"),
            vec![Finding(FindingKind::SchemaDifferent, "shop (indexes)")],
        ),
        (
            "a view changed",
            sql("CREATE OR REPLACE VIEW newest AS SELECT MIN(id) AS id FROM orders"),
            vec![Finding(FindingKind::SchemaDifferent, "shop (views)")],
        ),
        (
            "a reference to nothing",
            sql("SET foreign_key_checks = 0; DELETE FROM customers WHERE id = 5"),
            vec![
                Finding(FindingKind::CheckFaulty, "shop.of_customer"),
                Table("customers", &[Reason::RowsMissing]),
            ],
        ),
        (
            "the heartbeat is gone",
            sql("DELETE FROM lifeboat.heartbeat"),
            vec![Finding(FindingKind::HeartbeatMissing, "lifeboat.heartbeat")],
        ),
        (
            "a database dropped",
            sql("DROP DATABASE shop"),
            vec![Finding(FindingKind::DatabaseMissing, "shop")],
        ),
        (
            "an Aria table truncated",
            Box::new(|files| {
                files.settle().unwrap();
                files.truncate_table(&TableFile::aria("shop", "aria"), 20_000).unwrap();
            }),
            vec![Finding(FindingKind::CheckFaulty, "shop.aria")],
        ),
        (
            "a MyISAM table truncated",
            Box::new(|files| {
                files.settle().unwrap();
                files.truncate_table(&TableFile::myisam("shop", "isam"), 20_000).unwrap();
            }),
            vec![
                Table("isam", &[Reason::UnreadableHere, Reason::RowsMissing]),
                Finding(FindingKind::CheckFaulty, "shop.isam"),
            ],
        ),
    ];
    for (number, (what, deed, expected)) in cases.into_iter().enumerate() {
        let damaged = copy.copy(&dir.path().join(format!("damaged-{number}"))).unwrap();
        deed(&damaged);
        let restore = damaged.start(&StartOptions::default()).unwrap();
        let report = framed.examine(&restore).await.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(report.judgement.verdict, Verdict::Unproven, "{what}");
        for one in expected {
            match one {
                Table(name, reasons) => {
                    let found = table(&report, name).reason;
                    assert!(reasons.contains(&found), "{what}: {found:?}; {:?}", errors(&report));
                }
                Finding(kind, subject) => {
                    let there = report.findings.iter().any(|f| f.kind == kind && f.subject == subject);
                    assert!(there, "{what}: {:?}", errors(&report));
                }
            }
        }
        drop(restore);
        std::fs::remove_dir_all(damaged.dir()).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_redo_log_is_found_by_the_heartbeat() {
    let dir = tempfile::tempdir().unwrap();
    let server = source(dir.path(), &[]);
    server.sql("mysql", SCHEMA).unwrap();
    let before = server.log_sequence_number().unwrap();
    let mut framed = frame_of(&server).await;
    let copy = server.freeze_and_copy(&dir.path().join("copy")).unwrap();
    framed.observe(&server).await;
    copy.tear_log(Some(before)).unwrap();
    let restore = copy.start(&StartOptions::default()).unwrap();
    let report = framed.examine(&restore).await.unwrap();
    let lost = report.findings.iter().any(|finding| finding.kind == FindingKind::HeartbeatMissing);
    assert!(lost, "{:?}", errors(&report));
}
