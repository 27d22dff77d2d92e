//! Names that nobody should give, catalogues that nobody should have, and DDL at the worst moment.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dr_core::proof::cut;
use dr_core::proof::examination::{CatalogueFindings, CheckResult, Examination, Narrowing, NarrowingOutcome};
use dr_core::proof::frame::{Frame, Observation, SliceOutcome};
use dr_core::proof::judge::{self, Input};
use dr_core::proof::judgement::{Report, RestoreFacts, TableVerdict, Verdict};
use dr_postgres::catalogue::findings::catalogue;
use dr_postgres::frame::{Observed, SETTLING, observe};
use rds_local::postgres::Running;

use crate::lab::{
    Examined, Framed, Lab, check, deviations, examine, examine_in, faults, narrow_all, settings, sql,
    take_frame, take_frame_in,
};

/// One name each: what breaks quoting, formats, parameters, scripts, terminals, and lengths.
fn names() -> Vec<String> {
    let mut names: Vec<String> = [
        "quo\"te",
        "\"",
        "'",
        "apo'strophe",
        "back\\slash",
        "\\",
        "new\nline",
        "tab\t\r\u{b}",
        "$1",
        "$$",
        "$tag$",
        "%s",
        "%I.%L",
        ":variable",
        "?",
        "select",
        "Mixed Case",
        " lead and trail ",
        ".",
        "a.b.c",
        "; DROP TABLE x; --",
        "/*",
        "*/",
        "{\"json\": [1]}",
        "NULL",
        "E'\\n'",
        "U&\"\\0041\"",
        "\u{202e}backwards",
        "a\u{301}ccent",
        "\u{feff}bom",
        "<script>",
        "../../etc/passwd",
        "localhost:5432",
        "0",
        "-1",
    ]
    .map(str::to_owned)
    .into();
    // PostgreSQL keeps 63 bytes, here without a cut in the middle of a character.
    names.push("x".repeat(63));
    names.push("表".repeat(21));
    names.push("🦀".repeat(15));
    names
}

/// The test's own quoting, not that of what is tested.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn text(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

/// What was observed after a snapshot that is taken to be long ago.
async fn observed(source: &Running, framed: &Framed) -> Observation {
    let at = framed.plan.activity[0].taken_at - SETTLING - SETTLING;
    match observe(&settings(source, "postgres"), "backup-1", at, at).await.unwrap() {
        Observed::Done(observation) => *observation,
        other @ Observed::TooEarly { .. } => panic!("{other:?}"),
    }
}

async fn found(restore: &Running, framed: &Framed) -> CatalogueFindings {
    catalogue(&settings(restore, "postgres"), Some(&framed.beat)).await.unwrap()
}

fn judged(
    framed: Framed,
    observation: &Observation,
    examined: Examined,
    checks: Vec<CheckResult>,
    catalogue: CatalogueFindings,
    narrowings: Vec<Narrowing>,
) -> Report {
    let taken_at = framed.beat.written_at;
    let frame =
        Frame { plan: framed.plan, units: framed.units.into_values().collect(), heartbeat: framed.beat };
    let examination =
        Examination { plan: examined.plan, units: examined.units, checks, catalogue, narrowings };
    judge::judge(&Input {
        operation_id: "proof-1",
        snapshot_id: "snapshot",
        database: Some("db"),
        frame: Some(&frame),
        observation: Some(observation),
        again: &[],
        earlier: judge::Earlier::None,
        examination: &examination,
        snapshot_taken_at: Some(taken_at),
        max_rpo_seconds: None,
        restore: &RestoreFacts { instance_id: None, time_to_available_seconds: None },
        now: taken_at,
        report_key: "report.json",
    })
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_every_kind_of_object_may_be_anything_and_differences_are_still_found_and_named() {
    let lab = Lab::new(18);
    let source = lab.source();
    let names = names();
    let mut ddl = String::new();
    for name in &names {
        let n = quoted(name);
        // Everything that can have a name has this one.
        let _ = write!(
            ddl,
            "CREATE SCHEMA {n}; CREATE TYPE {n}.{e} AS ENUM ({label}); CREATE DOMAIN {n}.{d} AS text; \
             CREATE SEQUENCE {n}.{s}; \
             CREATE TABLE {n}.{t} ({n} text CONSTRAINT {p} PRIMARY KEY, {up} int DEFAULT nextval({sequence}::regclass), \
               {other} text CONSTRAINT {c} UNIQUE, e {n}.{e}, dom {n}.{d}, CONSTRAINT {f} FOREIGN KEY ({other}) \
               REFERENCES {n}.{t} ({n}), CONSTRAINT {k} CHECK ({n} <> {other}), generated text \
               GENERATED ALWAYS AS ({n} || {other}) VIRTUAL); \
             CREATE INDEX {i} ON {n}.{t} (({n} || {value})) WHERE {n} <> {value}; \
             CREATE FUNCTION {n}.{n}() RETURNS text LANGUAGE sql AS $body$SELECT {value}$body$; \
             CREATE VIEW {n}.{v} AS SELECT {n} FROM {n}.{t}; \
             COMMENT ON TABLE {n}.{t} IS {value}; \
             INSERT INTO {n}.{t} VALUES ({value}, 1, NULL, {label}, {value}), ({value} || '2', 2, {value}, NULL, NULL);",
            label = text(name),
            value = text(name),
            t = n,
            e = quoted(&cut(&format!("e{name}"))),
            p = quoted(&cut(&format!("p{name}"))),
            d = quoted(&cut(&format!("d{name}"))),
            s = quoted(&cut(&format!("s{name}"))),
            sequence = text(&format!("{n}.{}", quoted(&cut(&format!("s{name}"))))),
            up = quoted(&cut(&format!("U{name}"))),
            other = quoted(&cut(&format!("o{name}"))),
            c = quoted(&cut(&format!("c{name}"))),
            f = quoted(&cut(&format!("f{name}"))),
            k = quoted(&cut(&format!("k{name}"))),
            i = quoted(&cut(&format!("i{name}"))),
            v = quoted(&cut(&format!("v{name}"))),
        );
    }
    sql(&source, &ddl);
    let databases = ["quo\"te; --", "new\nline '%s' $1", "表 host=127.0.0.1 port=1"];
    for name in databases {
        sql(&source, &format!("CREATE DATABASE {}", quoted(name)));
        source.sql(name, "CREATE TABLE inside AS SELECT generate_series(1, 10) n").unwrap();
    }

    let framed = take_frame(&source).await;
    let restore = lab.restore(&source);
    for name in &names {
        let n = quoted(name);
        let deletion = format!("DELETE FROM {n}.{n} WHERE {n} = {} || '2'", text(name));
        sql(&restore, &deletion);
    }
    let observation = observed(&source, &framed).await;
    let examined = examine(&restore, &framed).await;
    let checks = check(&restore, &examined).await;
    assert_eq!(faults(&checks), []);
    let differing: BTreeSet<String> =
        deviations(&framed, &examined).into_iter().map(|deviation| deviation.table).collect();
    assert_eq!(differing, names.iter().cloned().collect::<BTreeSet<_>>());
    let narrowings = narrow_all(&source, &restore, &framed, &examined).await;
    for narrowing in &narrowings {
        let name = &examined.plan.tables[narrowing.table].name.table;
        let NarrowingOutcome::Rows { count: 1, keys, .. } = &narrowing.outcome else {
            panic!("{name:?}: {:?}", narrowing.outcome)
        };
        assert_eq!(keys[0].key, format!("{name}={name}2 at (0,2)"));
    }
    assert_eq!(narrowings.len(), names.len());

    let catalogue = found(&restore, &framed).await;
    assert_eq!(catalogue.schema, framed.plan.schema, "the schema is the same");
    let report = judged(framed, &observation, examined, checks, catalogue, narrowings);
    assert_eq!(report.judgement.verdict, Verdict::Unproven);
    let verdicts = |wanted: TableVerdict| {
        report
            .tables
            .iter()
            .filter(move |table| table.verdict == wanted)
            .map(|table| table.name.table.as_str())
    };
    assert_eq!(verdicts(TableVerdict::Different).count(), names.len());
    assert_eq!(verdicts(TableVerdict::Exact).collect::<Vec<_>>(), vec!["inside"; databases.len()]);
    // And it survives being written down.
    let stored = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<Report>(&stored).unwrap(), report);
}

/// As PostgreSQL cuts names: 63 bytes, whole characters.
fn cut(name: &str) -> String {
    let mut end = name.len().min(63);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name[..end].to_owned()
}

/// DDL of every kind, over and over, until told to stop.
fn storm(server: &Running, stop: &AtomicBool) -> u32 {
    let rounds = [
        "DROP TABLE IF EXISTS dropped; CREATE TABLE dropped AS SELECT generate_series(1, 500) n",
        "TRUNCATE truncated; INSERT INTO truncated SELECT generate_series(1, 500)",
        "ALTER TABLE renamed RENAME TO renamed_2; ALTER TABLE renamed_2 RENAME TO renamed",
        "ALTER TABLE renamed RENAME COLUMN n TO m; ALTER TABLE renamed RENAME COLUMN m TO n",
        "ALTER TABLE widened ADD COLUMN more int DEFAULT 7; ALTER TABLE widened DROP COLUMN more",
        "ALTER TABLE retyped ALTER COLUMN n TYPE bigint; ALTER TABLE retyped ALTER COLUMN n TYPE int",
        "VACUUM FULL rewritten",
        "ALTER TABLE moved SET SCHEMA elsewhere; ALTER TABLE elsewhere.moved SET SCHEMA public",
        "REFRESH MATERIALIZED VIEW emptied; REFRESH MATERIALIZED VIEW emptied WITH NO DATA",
        "DROP INDEX IF EXISTS passing; CREATE INDEX passing ON rewritten (n)",
        "CREATE SCHEMA passing; CREATE TABLE passing.t (id int PRIMARY KEY); DROP SCHEMA passing CASCADE",
    ];
    let mut made = 0;
    while !stop.load(Ordering::Relaxed) {
        for statements in rounds {
            for statement in statements.split("; ") {
                // It may lose against a reader's lock or its own last round.
                made += u32::from(server.sql("postgres", statement).is_ok());
            }
        }
    }
    made
}

/// Ends the storm also when what it was for panics: its thread would otherwise be waited for without end.
struct Calm<'a>(&'a AtomicBool);

impl Drop for Calm<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Does something while it storms on a server, as often as makes sure that it met the storm.
fn during_storm<T>(server: &Running, mut work: impl AsyncFnMut() -> T) -> T {
    let stop = AtomicBool::new(false);
    let (last, made) = std::thread::scope(|scope| {
        let storming = scope.spawn(|| storm(server, &stop));
        let calm = Calm(&stop);
        let last = tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async {
                for _ in 0..4 {
                    work().await;
                }
                work().await
            })
        });
        drop(calm);
        (last, storming.join().unwrap())
    });
    assert!(made > 20, "only {made} statements");
    last
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_are_dropped_renamed_truncated_and_altered_meanwhile_raise_neither_errors_nor_false_alarms()
 {
    let lab = Lab::new(17);
    let source = lab.source();
    let tables = ["dropped", "truncated", "renamed", "widened", "retyped", "rewritten", "moved", "bystander"];
    for table in tables {
        sql(
            &source,
            &format!("CREATE TABLE {table} AS SELECT generate_series(1, 30000) n, repeat('x', 50) pad"),
        );
    }
    sql(&source, "ALTER TABLE truncated DROP COLUMN pad; CREATE SCHEMA elsewhere");
    sql(&source, "CREATE MATERIALIZED VIEW emptied AS SELECT generate_series(1, 1000) n");
    let readable = |units: &mut dyn Iterator<Item = &dr_core::proof::frame::UnitResult>| {
        for result in units.flat_map(|unit| &unit.slices) {
            let SliceOutcome::Unreadable { sqlstate, message } = &result.outcome else { continue };
            panic!("unreadable: {sqlstate} {message}");
        }
    };
    let framed = during_storm(&source, async || {
        let framed = take_frame(&source).await;
        readable(&mut framed.units.values());
        framed
    });
    let restore = lab.restore(&source);
    let observation = observed(&source, &framed).await;
    let examined = examine(&restore, &framed).await;
    let checks = check(&restore, &examined).await;
    assert_eq!(faults(&checks), []);
    let narrowings = narrow_all(&source, &restore, &framed, &examined).await;
    let catalogue = found(&restore, &framed).await;
    let report = judged(framed, &observation, examined, checks, catalogue, narrowings);
    assert_eq!(report.judgement.verdict, Verdict::Proven, "{:#?}", report.findings);
    let bystander = report.tables.iter().find(|table| table.name.table == "bystander").unwrap();
    assert_eq!((bystander.verdict, bystander.proven_rows), (TableVerdict::Exact, 30_000));

    // Nobody should do this to a restore; an examination survives it all the same.
    let framed = take_frame(&source).await;
    during_storm(&restore, async || {
        let examined = examine(&restore, &framed).await;
        readable(&mut examined.units.iter());
        for (subject, said) in faults(&check(&restore, &examined).await) {
            let gone = said.starts_with("not possible") || said.contains("could not open relation with OID");
            assert!(gone, "{subject}: {said}");
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_whose_empty_end_was_cut_off_on_the_restore_is_sound() {
    let lab = Lab::new(17);
    let source = lab.source();
    sql(
        &source,
        "CREATE TABLE t AS SELECT generate_series(1, 30000) n, repeat('x', 50) pad; DELETE FROM t WHERE n > 9000",
    );
    let framed = take_frame(&source).await;
    let restore = lab.restore(&source);
    let examined = examine(&restore, &framed).await;
    // What autovacuum does by itself some time after a restore.
    sql(&restore, "VACUUM (TRUNCATE) t");
    assert_eq!(faults(&check(&restore, &examined).await), []);
    let again = examine(&restore, &framed).await;
    assert_eq!(deviations(&framed, &again), []);
}

/// The most memory that this process has had, in MiB. A test is a process of its own.
fn peak_mebibytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() / 1024
}

/// Frames, observes, examines, checks and judges a server as it is; every table must be exact.
async fn prove_itself(server: &Running, tables: usize) -> Duration {
    let begun = std::time::Instant::now();
    let framed = take_frame_in(server, cut::UNIT_BYTES).await;
    assert_eq!(framed.plan.tables.len(), tables);
    let observation = observed(server, &framed).await;
    let examined = examine_in(server, &framed, cut::UNIT_BYTES).await;
    let checks = check(server, &examined).await;
    let catalogue = found(server, &framed).await;
    let report = judged(framed, &observation, examined, checks, catalogue, Vec::new());
    assert_eq!(report.judgement.verdict, Verdict::Proven, "{:#?}", report.findings);
    assert!(report.tables.iter().all(|table| table.verdict == TableVerdict::Exact));
    begun.elapsed()
}

/// A quarter of what `validate_backup` is given (`MemorySize` in the template): there the SDK is beside it, and records
/// on their way to the bucket.
const MOST_MEBIBYTES: u64 = 256;

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_tables_are_proven_within_a_quarter_of_the_functions_memory() {
    let lab = Lab::new(17);
    let source = lab.source();
    // A commit now and then: a transaction's locks are counted.
    sql(
        &source,
        "DO $$ BEGIN FOR k IN 1..10000 LOOP \
           EXECUTE format('CREATE TABLE t%s (id int %s)', k, CASE WHEN k % 4 = 0 THEN 'PRIMARY KEY' END); \
           IF k % 3 = 0 THEN EXECUTE format('INSERT INTO t%s VALUES (1), (2)', k); END IF; \
           IF k % 50 = 0 THEN COMMIT; END IF; END LOOP; END $$",
    );
    let took = prove_itself(&source, 10_000).await;
    let peak = peak_mebibytes();
    assert!(peak < MOST_MEBIBYTES, "{peak} MiB, {took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_catalogue_of_the_widest_tables_is_proven_within_a_quarter_of_the_functions_memory() {
    let lab = Lab::new(17);
    let source = lab.source();
    // 1,600 columns are PostgreSQL's limit; 102,400 of them in all, and all in one unit.
    let columns: Vec<String> = (1..=1600).map(|k| format!("column_with_a_long_name_{k} int")).collect();
    sql(&source, &format!("CREATE TABLE w1 ({})", columns.join(", ")));
    sql(
        &source,
        "DO $$ BEGIN FOR k IN 2..64 LOOP EXECUTE format('CREATE TABLE w%s (LIKE w1)', k); COMMIT; END LOOP; END $$",
    );
    sql(&source, "INSERT INTO w7 (column_with_a_long_name_1600) VALUES (1), (2)");
    let took = prove_itself(&source, 64).await;
    let peak = peak_mebibytes();
    assert!(peak < MOST_MEBIBYTES, "{peak} MiB, {took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_users_functions_say_about_rows_is_never_repeated() {
    const CANARY: &str = "canary-4711";
    let lab = Lab::new(17);
    let source = lab.source();
    sql(
        &source,
        &format!(
            "CREATE FUNCTION normal(v text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $f$BEGIN RETURN lower(v); END$f$; \
             CREATE FUNCTION number(v text) RETURNS int IMMUTABLE LANGUAGE sql AS $f$SELECT length(v)$f$; \
             CREATE TABLE t (id int PRIMARY KEY, v text DEFAULT '{CANARY}', CHECK (v <> '{CANARY}x')); \
             INSERT INTO t SELECT k, '{CANARY}' || k FROM generate_series(1, 50) k; \
             CREATE UNIQUE INDEX by_normal ON t (normal(v)); CREATE UNIQUE INDEX by_number ON t (id, number(v))"
        ),
    );
    let framed = take_frame(&source).await;
    let restore = lab.restore(&source);
    // Any SQLSTATE is open to a user's function: also those whose messages are the server's own otherwise.
    for state in ["P0001", "XX001", "XX000", "42883", "55000", "40001"] {
        sql(
            &restore,
            &format!(
                "CREATE OR REPLACE FUNCTION normal(v text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $f$BEGIN \
                   RAISE NOTICE 'at %', v; RAISE EXCEPTION 'cannot do %', v USING ERRCODE = '{state}', DETAIL = v, HINT = v; END$f$; \
                 CREATE OR REPLACE FUNCTION number(v text) RETURNS int IMMUTABLE LANGUAGE sql AS $f$SELECT v::int$f$"
            ),
        );
        let examined = examine(&restore, &framed).await;
        let checks = match state {
            // It says that the moment is at fault: tried again, then an error.
            "40001" => {
                let error = crate::lab::check_error(&restore, &examined).await;
                assert!(!whole(&error).contains(CANARY), "{state}: {}", whole(&error));
                continue;
            }
            _ => check(&restore, &examined).await,
        };
        let said = faults(&checks);
        assert!(
            said.iter().any(|(subject, said)| subject == "public.by_normal" && said.contains(state)),
            "{said:?}"
        );
        assert!(
            said.iter().any(|(subject, said)| subject == "public.by_number" && said.contains("22P02")),
            "{said:?}"
        );
        assert!(!format!("{checks:?} {:?}", examined.units).contains(CANARY), "{state}: {said:?}");
    }
    let plan = format!("{:?} {:?}", framed.plan, framed.units);
    assert!(!plan.contains(CANARY), "defaults and constraints are hashed");
}

/// An error with all of its causes.
fn whole(error: &dr_core::DrError) -> String {
    let mut text = format!("{error} {error:?}");
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        let _ = write!(text, ": {inner} {inner:?}");
        cause = inner.source();
    }
    text
}
