//! What a digest says of rows, and how tables are cut.

use dr_core::proof::Digest;
use dr_core::proof::frame::{SliceOutcome, TableFacts, UnitResult};
use dr_mysql::catalogue::tables::{find_bounds, tables};
use sha2::{Digest as _, Sha256};

use super::lab::*;

fn digest(results: &[UnitResult], table: usize) -> Digest {
    results
        .iter()
        .flat_map(|unit| &unit.slices)
        .filter(|slice| slice.slice.table == table)
        .map(|slice| match &slice.outcome {
            SliceOutcome::Digested(digest) => *digest,
            other => panic!("{other:?}"),
        })
        .sum()
}

/// The same as the query computes, from the text that the query hashes.
fn of_texts<'t>(texts: impl IntoIterator<Item = &'t [u8]>) -> Digest {
    texts
        .into_iter()
        .map(|text| {
            let hash = Sha256::digest(text);
            let half = |at: usize| u64::from_be_bytes(hash[at..at + 8].try_into().unwrap());
            Digest { rows: 1, s0: half(0), s1: half(8) }
        })
        .sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn sums_of_many_rows_are_exact_and_do_not_depend_on_the_cut() {
    let dir = tempfile::tempdir().unwrap();
    let server = source(dir.path(), &[]);
    server
        .sql(
            "mysql",
            "CREATE DATABASE shop; CREATE TABLE shop.t (id INT PRIMARY KEY, v VARBINARY(20)); \
             INSERT INTO shop.t SELECT CAST(seq AS SIGNED) * 3 - 9000, IF(seq % 5 = 0, NULL, CONCAT('v|', seq)) \
             FROM mysql.seq_1_to_6000",
        )
        .unwrap();
    let texts: Vec<Vec<u8>> = (1..=6000i64)
        .map(|seq| {
            let id = seq * 3 - 9000;
            if seq % 5 == 0 {
                format!("1|{id}|").into_bytes()
            } else {
                let value = format!("v|{seq}");
                format!("0|{id}|{}:{value}", value.len()).into_bytes()
            }
        })
        .collect();
    let expected = of_texts(texts.iter().map(Vec::as_slice));
    let session = session(&server).await;
    for unit_bytes in [16 << 10, 64 << 10, 1 << 30] {
        let mut found = tables(&session).await.unwrap();
        found[0].bytes = found[0].bytes.max(1 << 21);
        find_bounds(&session, &mut found[0], unit_bytes, None).await.unwrap();
        let units = dr_core::proof::cut::cut(&found, unit_bytes, 0);
        let results = read(&server, &found, units).await;
        assert_eq!(digest(&results, 0), expected, "{} slices", found[0].blocks);
        assert!(found[0].blocks > 3 || unit_bytes > 1 << 20, "{}", found[0].blocks);
    }
}

/// Keys of every kind that is cut by, with what is awkward about each.
const KEYS: &[(&str, &str)] = &[
    ("BIGINT", "seq * 1000000007 - 3000000000000"),
    ("BIGINT UNSIGNED", "18446744073709551615 - seq"),
    ("DECIMAL(20, 5)", "seq * 1.00001 - 700"),
    (
        "VARCHAR(40) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci",
        "CONCAT(CHAR(97 + seq % 20), 'é''\\\\`', seq)",
    ),
    ("VARCHAR(40) CHARACTER SET latin1", "CONCAT(IF(seq % 2, 'É', 'z'), seq)"),
    ("CHAR(30) CHARACTER SET ucs2", "CONCAT('ø', seq)"),
    ("VARBINARY(20)", "UNHEX(MD5(seq))"),
    ("DATETIME(6)", "'2020-02-29 00:00:00' + INTERVAL seq * 1000003 MICROSECOND"),
    ("TIMESTAMP(3) DEFAULT 0", "FROM_UNIXTIME(1700000000 + seq)"),
    ("DATE", "'1000-01-01' + INTERVAL seq DAY"),
    ("TIME", "SEC_TO_TIME(seq - 1500)"),
    ("ENUM('z', 'a') , n INT", "IF(seq % 2, 'z', 'a')"),
    ("DOUBLE", "seq / 7"),
    ("SMALLINT", "seq % 4 - 2"),
    ("BINARY(8)", "LPAD(HEX(seq), 8, '0')"),
];

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_every_kind_cut_a_table_into_disjoint_slices_that_are_all_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let server = source(dir.path(), &[]);
    server.sql("mysql", "CREATE DATABASE shop").unwrap();
    for (number, (kind, value)) in KEYS.iter().enumerate() {
        let sql = format!(
            "CREATE TABLE shop.k{number} (a {kind}, s INT, pad CHAR(200) DEFAULT 'p', PRIMARY KEY (a, s)); \
             INSERT INTO shop.k{number} (a, s) SELECT {value}, seq \
               FROM (SELECT CAST(seq AS SIGNED) AS seq FROM mysql.seq_1_to_2000) AS s; \
             ANALYZE TABLE shop.k{number}"
        );
        server.sql("shop", &sql).unwrap_or_else(|error| panic!("{kind}: {error}"));
    }
    let session = session(&server).await;
    let mut cut = tables(&session).await.unwrap();
    let whole = cut.clone();
    for table in &mut cut {
        find_bounds(&session, table, 32 << 10, None).await.unwrap();
    }
    let units = |tables: &[TableFacts]| dr_core::proof::cut::cut(tables, 32 << 10, 0);
    let in_slices = read(&server, &cut, units(&cut)).await;
    let in_one = read(&server, &whole, units(&whole)).await;
    for (index, table) in cut.iter().enumerate() {
        assert_eq!(digest(&in_slices, index), digest(&in_one, index), "{}", table.name);
        assert_eq!(digest(&in_one, index).rows, 2000, "{}", table.name);
        let usable = !["k11", "k12"].contains(&table.name.table.as_str());
        assert_eq!(table.blocks > 5, usable, "{} has {} slices", table.name, table.blocks);
    }
}

/// A column of a kind, a value, and another that differs as little as it can.
const NEIGHBOURS: &[(&str, &str, &str)] = &[
    ("TINYINT", "-1", "1"),
    ("BIGINT UNSIGNED", "18446744073709551615", "18446744073709551614"),
    ("FLOAT", "0.1", "0.10000001"),
    ("DOUBLE", "0.1", "0.10000000000000002"),
    ("DOUBLE(10,3)", "1.001", "1.002"),
    ("DECIMAL(30, 10)", "1.0000000001", "1.0000000002"),
    ("DECIMAL(10, 2)", "5", "-5"),
    ("BIT(64)", "b'1'", "b'0'"),
    ("CHAR(10)", "'a'", "'A'"),
    ("CHAR(10)", "'a'", "'á'"),
    ("VARCHAR(10)", "'a'", "'a '"),
    ("VARCHAR(10)", "''", "NULL"),
    ("TEXT", "'1|2'", "'1|3'"),
    ("LONGTEXT", "REPEAT('x', 70000)", "CONCAT(REPEAT('x', 69999), 'y')"),
    ("LONGBLOB", "REPEAT('x', 70000)", "CONCAT(REPEAT('x', 69999), 'X')"),
    ("VARBINARY(10)", "X'00'", "X'0000'"),
    ("BLOB", "X'FF'", "X'FE'"),
    ("VARCHAR(10) CHARACTER SET utf8mb4", "'😀'", "'😁'"),
    ("ENUM('a', 'A2', '')", "'a'", "'A2'"),
    ("SET('a', 'b')", "'a,b'", "'b'"),
    ("DATE", "'0000-00-00'", "'0000-01-00'"),
    ("DATETIME(6)", "'2020-01-01 00:00:00.000001'", "'2020-01-01 00:00:00.000002'"),
    ("TIMESTAMP(6) NULL", "'2020-01-01 00:00:00.000001'", "'2020-01-01 00:00:00.000002'"),
    ("TIME(3)", "'-01:00:00.001'", "'01:00:00.001'"),
    ("YEAR", "2020", "2021"),
    ("JSON", "'{\"a\": 1}'", "'{\"a\": 2}'"),
    ("POINT", "POINT(1, 2)", "POINT(1, 3)"),
    ("GEOMETRY", "ST_GeomFromText('POINT(1 2)', 0)", "ST_GeomFromText('POINT(1 2)', 4326)"),
    ("UUID", "'123e4567-e89b-12d3-a456-426655440000'", "'123e4567-e89b-12d3-a456-426655440001'"),
    ("INET6", "'::1'", "'::2'"),
];

#[tokio::test(flavor = "multi_thread")]
async fn the_least_difference_in_a_value_of_any_kind_is_another_digest() {
    let dir = tempfile::tempdir().unwrap();
    let server = source(dir.path(), &[]);
    server.sql("mysql", "CREATE DATABASE shop").unwrap();
    for (number, (kind, one, other)) in NEIGHBOURS.iter().enumerate() {
        for (side, value) in [("a", one), ("b", other)] {
            let sql = format!(
                "SET sql_mode = ''; CREATE TABLE shop.{side}{number:02} (id INT PRIMARY KEY, v {kind}); \
                 INSERT INTO shop.{side}{number:02} VALUES (1, {value})"
            );
            server.sql("shop", &sql).unwrap_or_else(|error| panic!("{kind}: {error}"));
        }
    }
    let session = session(&server).await;
    let found = tables(&session).await.unwrap();
    let results = read(&server, &found, dr_core::proof::cut::cut(&found, UNIT_BYTES, 0)).await;
    let count = NEIGHBOURS.len();
    for (number, (kind, one, other)) in NEIGHBOURS.iter().enumerate() {
        let (a, b) = (digest(&results, number), digest(&results, number + count));
        assert_eq!((a.rows, b.rows), (1, 1));
        assert!(a.s0 != b.s0 && a.s1 != b.s1, "{kind}: {one} and {other}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_names_are_only_names() {
    let dir = tempfile::tempdir().unwrap();
    let server = source(dir.path(), &[]);
    let long = "ü".repeat(64);
    let names = [
        "a`b",
        "it's",
        "\"q\"",
        "x; DROP DATABASE shop; --",
        "select",
        "späß 😐".trim_end_matches('😐').trim(),
        "back\\slash",
        &long,
    ];
    server.sql("mysql", "CREATE DATABASE `d``b 'x'`").unwrap();
    for name in names {
        let quoted = format!("`{}`", name.replace('`', "``"));
        let sql = format!(
            "CREATE TABLE {quoted} ({quoted} INT AUTO_INCREMENT, v INT, PRIMARY KEY ({quoted}), UNIQUE {quoted} (v)); \
             INSERT INTO {quoted} (v) SELECT seq FROM mysql.seq_1_to_500"
        );
        server.sql("d`b 'x'", &sql).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    let mut framed = frame_of(&server).await;
    let copy = server.freeze_and_copy(&dir.path().join("copy")).unwrap();
    framed.observe(&server).await;
    let restore = copy.start(&rds_local::mariadb::StartOptions::default()).unwrap();
    let report = framed.examine(&restore).await.unwrap();
    assert_eq!(errors(&report), [""; 0]);
    assert_eq!(report.judgement.coverage.proven_rows, 500 * names.len() as u64);
    assert_eq!(report.judgement.checks.not_possible, 0);
}
