//! Damage of every kind is found, and named.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use common::workload::SCHEMA;
use common::{BACKUP, Memory, Proof};
use dr_core::proof::judgement::{FindingKind, Reason, Report, Severity, Verdict};
use rds_local::postgres::{ChecksumFix, Cluster, ClusterOptions, Lsn, Relation, Running, TearWal};

/// A source that was framed, worked on, and copied.
struct World {
    dir: tempfile::TempDir,
    store: Memory,
    source: Running,
    /// As the storage was at the snapshot.
    raw: Cluster,
    /// The same after recovery and a clean stop.
    settled: Cluster,
    relations: Vec<Relation>,
    /// As it was before the last changes that the frame saw.
    older: Cluster,
    older_relations: Vec<Relation>,
    /// Right before the frame.
    before_frame: Lsn,
}

const RELATIONS: [&str; 3] = ["public.calm", "public.orders", "public.orders_customer"];
const CALM: usize = 0;
const ORDERS: usize = 1;
const ORDERS_CUSTOMER: usize = 2;

impl World {
    async fn new(major: u32, checksums: bool) -> Self {
        let dir = common::directory();
        let source =
            common::source(dir.path(), major, &ClusterOptions { checksums, ..ClusterOptions::default() });
        source.sql("shop", SCHEMA).unwrap();
        // The schema of our heartbeat may hold what is not ours.
        source.sql("shop", "CREATE SCHEMA lifeboat").unwrap();
        let notes =
            "CREATE TABLE lifeboat.notes AS SELECT g AS id, md5(g::text) FROM generate_series(1, 100) g";
        source.sql("shop", notes).unwrap();
        let older = source.freeze_and_copy(&common::at(&dir, "older")).unwrap();
        let older_relations = older.settle("shop", &RELATIONS).unwrap();
        source.sql("shop", "UPDATE calm SET payload = 'fresh' WHERE id BETWEEN 2400 AND 2410").unwrap();
        source.sql("shop", "VACUUM calm").unwrap();
        source.sql("shop", "CHECKPOINT").unwrap();
        let store = Memory::default();
        // Not the first backup of this source: there is a heartbeat table already.
        common::frame(&store, "backup-0000000000000000", &source).await;
        common::quiet(&source).await;
        let lsn = source.sql("shop", "SELECT pg_current_wal_insert_lsn()").unwrap();
        let before_frame = lsn[0][0].as_deref().unwrap().parse().unwrap();
        common::frame(&store, BACKUP, &source).await;
        for change in [
            "UPDATE orders SET total = total + 1 WHERE id % 97 = 3",
            "DELETE FROM orders WHERE id % 1000 = 5",
            "INSERT INTO orders (customer, total) SELECT g, 1 FROM generate_series(1, 50) g",
        ] {
            source.sql("shop", change).unwrap();
        }
        let raw = source.freeze_and_copy(&common::at(&dir, "raw")).unwrap();
        source.sql("shop", "DELETE FROM orders WHERE id % 1000 = 7").unwrap();
        common::observe_quiet(&store, BACKUP, &source).await;
        let settled = raw.copy(&common::at(&dir, "settled")).unwrap();
        let relations = settled.settle("shop", &RELATIONS).unwrap();
        Self { dir, store, source, raw, settled, relations, older, older_relations, before_frame }
    }

    /// Damages a copy, starts it, changes it by SQL, and proves it.
    async fn prove(&self, case: &Case) -> Report {
        let name = case.name.replace(' ', "-");
        let base = if case.torn { &self.raw } else { &self.settled };
        let copy = base.copy(&common::at(&self.dir, &name)).unwrap();
        (case.damage)(self, &copy);
        let restore = common::start(&copy);
        for statement in case.sql {
            restore.sql("shop", statement).unwrap();
        }
        let operation = format!("proof-{name}");
        let report = Proof {
            store: &self.store,
            operation: &operation,
            frame: Some(BACKUP),
            earlier: case.earlier,
            restore: &restore,
            source: case.source.then_some(&self.source),
            validation: common::options(),
        }
        .conclude()
        .await;
        drop(restore);
        std::fs::remove_dir_all(copy.dir()).unwrap();
        report
    }
}

/// One kind of damage, and how it must be found.
struct Case {
    name: &'static str,
    torn: bool,
    damage: fn(&World, &Cluster),
    sql: &'static [&'static str],
    /// Whether the source can still be asked.
    source: bool,
    /// The first proof, which this one is compared with.
    earlier: Option<&'static str>,
    expected: Expected,
}

enum Expected {
    Sound,
    /// The table `calm` or `orders`, the reason, a block that must be named, and keys that must be.
    Table(&'static str, Reason, Option<u32>, &'static [&'static str]),
    /// A finding of this kind, with this in its subject.
    Finding(FindingKind, &'static str),
}

const NONE: fn(&World, &Cluster) = |_, _| {};

fn case(name: &'static str, damage: fn(&World, &Cluster), expected: Expected) -> Case {
    Case { name, torn: false, damage, sql: &[], source: true, earlier: None, expected }
}

fn by_sql(name: &'static str, sql: &'static [&'static str], expected: Expected) -> Case {
    Case { name, torn: false, damage: NONE, sql, source: true, earlier: None, expected }
}

fn check(case: &Case, report: &Report) {
    let name = case.name;
    let found = &report.findings;
    match &case.expected {
        Expected::Sound => {
            assert_eq!(report.judgement.verdict, Verdict::Proven, "{name}: {found:#?}");
            return;
        }
        Expected::Table(table, reason, block, keys) => {
            let judged = common::table(report, table);
            assert_eq!(judged.reason, *reason, "{name}: {judged:#?} {found:#?}");
            if let Some(block) = block {
                let named = judged
                    .blocks
                    .iter()
                    .any(|range| range.first <= *block && range.end.is_none_or(|end| end > *block));
                assert!(named, "{name}: block {block} is not in {:?}", judged.blocks);
                // Not simply the whole table.
                assert!(
                    judged.blocks != [dr_core::proof::judgement::BlockRange { first: 0, end: None }],
                    "{name}"
                );
            }
            for key in *keys {
                let named = judged.different_keys.iter().any(|row| row.key.starts_with(key));
                assert!(named, "{name}: {key} is not in {:?}", judged.different_keys);
            }
            let told = found.iter().any(|finding| {
                finding.severity == Severity::Error && finding.subject == judged.name.to_string()
            });
            assert!(told, "{name}: no finding about {table}: {found:#?}");
            let summary = serde_json::to_string(&report.judgement).unwrap();
            for key in *keys {
                assert!(!summary.contains(key), "{name}: the summary holds the key {key}");
            }
        }
        Expected::Finding(kind, subject) => {
            let told = found.iter().any(|finding| {
                finding.severity == Severity::Error
                    && finding.kind == *kind
                    && finding.subject.contains(subject)
            });
            assert!(told, "{name}: no {kind:?} about {subject}: {found:#?}");
        }
    }
    assert_eq!(report.judgement.verdict, Verdict::Unproven, "{name}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
async fn damage_to_a_server_with_checksums_is_found_and_named() {
    let world = World::new(18, true).await;
    let mut gone = by_sql(
        "one row deleted and nobody to ask",
        &["DELETE FROM calm WHERE id = 4711"],
        Expected::Table("calm", Reason::RowsMissing, Some(39), &[]),
    );
    gone.source = false;
    let mut torn = case(
        "torn log",
        |world, copy| drop(copy.tear_wal(TearWal::Before(world.before_frame)).unwrap()),
        Expected::Finding(FindingKind::HeartbeatMissing, "lifeboat.heartbeat"),
    );
    torn.torn = true;
    let cases = [
        case("nothing", NONE, Expected::Sound),
        case(
            "zeroed page",
            |world, copy| drop(copy.zero_page(&world.relations[CALM], 20).unwrap()),
            Expected::Table("calm", Reason::RowsMissing, Some(20), &["id=2411 "]),
        ),
        case(
            "truncated file",
            |world, copy| drop(copy.truncate_file(&world.relations[CALM], 2).unwrap()),
            Expected::Table("calm", Reason::RowsMissing, None, &[]),
        ),
        case(
            "flipped bytes",
            |world, copy| {
                drop(copy.flip_bytes(&world.relations[CALM], 20, 8165, 1, ChecksumFix::Leave).unwrap());
            },
            Expected::Table("calm", Reason::UnreadableHere, Some(20), &[]),
        ),
        case(
            "flipped bytes under a right checksum",
            |world, copy| {
                drop(copy.flip_bytes(&world.relations[CALM], 30, 8165, 1, ChecksumFix::Fix).unwrap());
            },
            Expected::Table("calm", Reason::ContentDiffers, Some(30), &["id="]),
        ),
        case(
            "stale page",
            |world, copy| {
                let (now, then) = (&world.relations[CALM], &world.older_relations[CALM]);
                drop(copy.stale_page(now, 20, &world.older, then).unwrap());
            },
            Expected::Table("calm", Reason::MoreRows, Some(20), &[]),
        ),
        case(
            "corrupt index",
            |world, copy| drop(copy.corrupt_index(&world.relations[ORDERS_CUSTOMER]).unwrap()),
            Expected::Finding(FindingKind::CheckFaulty, "shop.public.orders_customer"),
        ),
        by_sql(
            "one row deleted",
            &["DELETE FROM calm WHERE id = 4711"],
            Expected::Table("calm", Reason::RowsMissing, Some(39), &["id=4711 "]),
        ),
        by_sql(
            "one row deleted in a table at work",
            &["DELETE FROM orders WHERE id = 4712"],
            Expected::Table("orders", Reason::RowsMissing, None, &["id=4712 "]),
        ),
        by_sql(
            "one value changed",
            &["UPDATE calm SET payload = 'forged' WHERE id = 4711"],
            Expected::Table("calm", Reason::RowsMissing, Some(39), &["id=4711 "]),
        ),
        by_sql(
            "two values swapped",
            &[
                "UPDATE calm c SET payload = o.payload FROM calm o WHERE (c.id, o.id) IN ((100, 4711), (4711, 100))",
            ],
            Expected::Table("calm", Reason::RowsMissing, Some(39), &["id=100 ", "id=4711 "]),
        ),
        by_sql(
            "one row deleted beside our heartbeat",
            &["DELETE FROM lifeboat.notes WHERE id = 5"],
            Expected::Table("notes", Reason::RowsMissing, None, &[]),
        ),
        by_sql(
            "a table dropped",
            &["DROP TABLE keyless"],
            Expected::Table("keyless", Reason::TableMissing, None, &[]),
        ),
        by_sql(
            "a constraint dropped",
            &["ALTER TABLE calm DROP CONSTRAINT calm_pkey"],
            Expected::Finding(FindingKind::SchemaDifferent, "shop (constraints)"),
        ),
        by_sql(
            "a sequence set back",
            &["SELECT setval('orders_id_seq', 5)"],
            Expected::Finding(FindingKind::SequenceBehind, "orders_id_seq"),
        ),
        gone,
        torn,
    ];
    for case in &cases {
        let report = world.prove(case).await;
        check(case, &report);
    }
}

/// A later case: the source cannot be asked, and there was a proof of the same snapshot.
fn later(case: Case) -> Case {
    Case { source: false, earlier: Some("proof-the-first"), ..case }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_that_the_sources_activity_would_explain_is_found_beside_the_first_proof() {
    let world = World::new(18, true).await;
    check(
        &case("the first", NONE, Expected::Sound),
        &world.prove(&case("the first", NONE, Expected::Sound)).await,
    );
    let at = |block| Expected::Table("orders", Reason::ContentDiffers, block, &[]);
    let one_row = &["DELETE FROM orders WHERE id = 4712"];
    let unseen =
        Case { source: false, ..by_sql("a row and nothing to compare with", one_row, Expected::Sound) };
    let cases = [
        unseen,
        later(case("nothing since", NONE, Expected::Sound)),
        later(by_sql("one row", one_row, at(None))),
        later(by_sql("one value", &["UPDATE orders SET note = 'forged' WHERE id = 4712"], at(None))),
        later(by_sql("a new row", &["DELETE FROM orders WHERE id = 12001"], at(None))),
        later(by_sql("a row more", &["INSERT INTO orders (customer, total) VALUES (1, 1)"], at(None))),
        later(case(
            "a page",
            |world, copy| drop(copy.zero_page(&world.relations[ORDERS], 20).unwrap()),
            at(Some(20)),
        )),
        later(by_sql(
            "a table created",
            &["CREATE TABLE forged (id int)"],
            Expected::Table("forged", Reason::ContentDiffers, None, &[]),
        )),
        later(by_sql(
            "a constraint",
            &["ALTER TABLE orders ALTER COLUMN total SET NOT NULL"],
            Expected::Table("orders", Reason::ContentDiffers, None, &[]),
        )),
        later(by_sql(
            "a sequence",
            &["SELECT setval('orders_id_seq', 20000)"],
            Expected::Finding(FindingKind::RestoreDiffers, "orders_id_seq"),
        )),
    ];
    for case in &cases {
        let report = world.prove(case).await;
        check(case, &report);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_to_a_server_without_checksums_is_found_and_named() {
    let world = World::new(14, false).await;
    let cases = [
        case("nothing", NONE, Expected::Sound),
        case(
            "flipped bytes",
            |world, copy| {
                drop(copy.flip_bytes(&world.relations[CALM], 20, 8165, 1, ChecksumFix::Leave).unwrap());
            },
            Expected::Table("calm", Reason::ContentDiffers, Some(20), &["id="]),
        ),
        case(
            "zeroed page",
            |world, copy| drop(copy.zero_page(&world.relations[CALM], 20).unwrap()),
            Expected::Table("calm", Reason::RowsMissing, Some(20), &["id=2411 "]),
        ),
    ];
    for case in &cases {
        let report = world.prove(case).await;
        check(case, &report);
    }
}
