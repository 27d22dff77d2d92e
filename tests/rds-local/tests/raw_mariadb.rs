//! Real MariaDB servers: what a copy of a running one holds, and what each kind of damage does.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use rds_local::mariadb::{
    ChecksumFix, Files, FilesOptions, Installation, MasterUser, StartOptions, StopMode, TableFile,
};

fn new(directory: &std::path::Path) -> Files {
    Files::create(&Installation::find().unwrap(), directory, &FilesOptions::default()).unwrap()
}

fn count(server: &rds_local::mariadb::Running, table: &str) -> Result<String, String> {
    let rows = server.sql("mysql", &format!("SELECT COUNT(*), SUM(LENGTH(v)) FROM {table}"));
    rows.map(|rows| rows[0][0].clone().unwrap_or_default()).map_err(|error| error.to_string())
}

const FILL: &str = "CREATE DATABASE shop; \
    CREATE TABLE shop.t (id INT PRIMARY KEY AUTO_INCREMENT, n INT NOT NULL, v VARCHAR(200), KEY by_n (n)); \
    INSERT INTO shop.t (n, v) SELECT seq * 7 % 1000, REPEAT('x', 150) FROM mysql.seq_1_to_5000";

#[test]
fn a_copy_of_a_running_server_recovers_what_was_committed() {
    let directory = tempfile::tempdir().unwrap();
    let server = new(&directory.path().join("one")).start(&StartOptions::default()).unwrap();
    server.sql("mysql", FILL).unwrap();
    server.sql("shop", "START TRANSACTION; INSERT INTO t (n, v) VALUES (1, 'open')").unwrap();
    let copy = server.freeze_and_copy(&directory.path().join("two")).unwrap();
    server.sql("shop", "INSERT INTO t (n, v) VALUES (1, 'later')").unwrap();
    let restored = copy.start(&StartOptions::default()).unwrap();
    assert_eq!(count(&restored, "shop.t").unwrap(), "5000");
    assert_eq!(count(&server, "shop.t").unwrap(), "5001");
    server.stop(StopMode::Fast).unwrap();
}

#[test]
fn damage_is_really_done_to_the_files() {
    let directory = tempfile::tempdir().unwrap();
    let server = new(&directory.path().join("one")).start(&StartOptions::default()).unwrap();
    server.sql("mysql", FILL).unwrap();
    let sql = "CREATE TABLE shop.m (id INT PRIMARY KEY, v VARCHAR(200)) ENGINE=MyISAM; \
               INSERT INTO shop.m SELECT seq, REPEAT('y', 100) FROM mysql.seq_1_to_1000";
    server.sql("mysql", sql).unwrap();
    let copy = server.freeze_and_copy(&directory.path().join("two")).unwrap();
    drop(server);
    copy.settle().unwrap();
    let table = TableFile::innodb("shop", "t");
    let leaves = copy.leaves(&table, "PRIMARY").unwrap();
    assert!(leaves.len() > 10, "{leaves:?}");
    copy.flip_bytes(&table, leaves[5], 5000, 4, ChecksumFix::Fix).unwrap();
    let fixed = copy.copy(&directory.path().join("fixed")).unwrap();
    let restored = fixed.start(&StartOptions::default()).unwrap();
    assert_eq!(count(&restored, "shop.t").unwrap(), "5000", "the page's checksum is right");
    drop(restored);
    copy.corrupt_index(&table, "by_n").unwrap();
    copy.truncate_table(&TableFile::myisam("shop", "m"), 4000).unwrap();
    let restored = copy.start(&StartOptions::default()).unwrap();
    let checked = restored.sql("shop", "CHECK TABLE t; CHECK TABLE m").unwrap();
    let text = format!("{checked:?}");
    assert!(text.contains("by_n") && text.matches("error").count() >= 2, "{text}");
    drop(restored);
    copy.flip_bytes(&table, leaves[7], 5000, 4, ChecksumFix::Leave).unwrap();
    let restored = copy.start(&StartOptions::default()).unwrap();
    assert!(count(&restored, "shop.t").is_err(), "the page's checksum is wrong");
}

#[test]
fn a_torn_redo_log_loses_committed_rows_without_a_word() {
    let directory = tempfile::tempdir().unwrap();
    let server = new(&directory.path().join("one")).start(&StartOptions::default()).unwrap();
    server.sql("mysql", FILL).unwrap();
    let before = server.log_sequence_number().unwrap();
    server.sql("shop", "INSERT INTO t (n, v) SELECT n, v FROM t LIMIT 100").unwrap();
    let copy = server.freeze_and_copy(&directory.path().join("two")).unwrap();
    drop(server);
    let whole = copy.copy(&directory.path().join("whole")).unwrap();
    assert_eq!(count(&whole.start(&StartOptions::default()).unwrap(), "shop.t").unwrap(), "5100");
    copy.tear_log(Some(before)).unwrap();
    assert_eq!(count(&copy.start(&StartOptions::default()).unwrap(), "shop.t").unwrap(), "5000");
}

#[test]
fn the_master_user_is_no_superuser_and_its_password_really_changes() {
    let directory = tempfile::tempdir().unwrap();
    let master = MasterUser {
        name: "d'ba".to_owned(),
        password: "first\\".to_owned(),
        database: Some("a`pp".to_owned()),
    };
    let options = FilesOptions { master: Some(master) };
    let files =
        Files::create(&Installation::find().unwrap(), &directory.path().join("one"), &options).unwrap();
    let server = files.start(&StartOptions::default()).unwrap();
    let hash = || server.sql("mysql", "SELECT authentication_string FROM user WHERE user = 'd''ba'").unwrap();
    let first = hash();
    server.set_password("d'ba", "second").unwrap();
    assert_ne!(first, hash());
    let grants = format!("{:?}", server.sql("mysql", "SHOW GRANTS FOR `d'ba`@`%`").unwrap());
    assert!(grants.contains("PROCESS") && !grants.contains("SUPER") && !grants.contains("FILE"), "{grants}");
    assert!(server.sql("a`pp", "SELECT 1").is_ok());
}
