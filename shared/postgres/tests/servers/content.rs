//! Digests on a crash-consistent copy: every type, hostile names, every major version, parallel connections.

use std::fmt::Write as _;
use std::time::Duration;

use dr_core::proof::frame::SliceOutcome;
use dr_postgres::{Limits, Pace, UnitWork, frame, read_units};

use crate::lab::{
    Lab, MAJORS, check, collect, deviations, digest_of, examine, faults, framed_rows, plan_frame, settings,
    sql, take_frame,
};

/// A table with a column of every kind of type, and rows at their edges.
const TYPES: &str = r#"
CREATE TYPE mood AS ENUM ('sad', 'ok', 'it''s fine');
CREATE TYPE pair AS (n int, t text);
CREATE TYPE deep AS (p pair, m mood[]);
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TYPE span AS RANGE (subtype = float8);
CREATE TABLE types (
  id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, b bool, i2 int2, i4 int4, i8 int8, f4 float4, f8 float8,
  n numeric, n2 numeric(20, 5), money money, c "char", bp char(5), vc varchar(9), t text, nm name, ba bytea,
  d date, ti time, ttz timetz, ts timestamp, tstz timestamptz, iv interval,
  j json, jb jsonb, jp jsonpath, x xml, u uuid, bi bit(3), vb varbit, ip inet, ci cidr, ma macaddr8, tsv tsvector,
  tsq tsquery, pt point, ln line, ls lseg, bx box, pa path, po polygon, ck circle,
  e mood, co pair, de deep, dom positive, ir int4range, mr nummultirange, sp span, ia int[], ta text[][],
  ea mood[], ca pair[], ao oid, rc regclass, lsn pg_lsn, snap pg_snapshot, acl aclitem, acls aclitem[],
  doubled int GENERATED ALWAYS AS (i4 * 2) STORED, gone int);
ALTER TABLE types DROP COLUMN gone;
INSERT INTO types (t) VALUES (NULL);
INSERT INTO types (b, i2, i4, i8, f4, f8, n, n2, money, c, bp, vc, t, nm, ba, d, ti, ttz, ts, tstz, iv, j, jb, jp, x,
  u, bi, vb, ip, ci, ma, tsv, tsq, pt, ln, ls, bx, pa, po, ck, e, co, de, dom, ir, mr, sp, ia, ta, ea, ca, ao, rc,
  lsn, snap, acl, acls)
SELECT k % 2 = 0, -k, k, k::int8 << 40, 'NaN', CASE k % 3 WHEN 0 THEN '-Infinity' WHEN 1 THEN '-0' ELSE 1e-300 END,
  CASE k % 4 WHEN 0 THEN 'NaN'::numeric WHEN 1 THEN 'Infinity' WHEN 2 THEN 5 ELSE -5 END, k / 7.0, 12.34, 'x', 'ab',
  'vc', E'line\nbreak "quotes" \\ \u20ac', 'n', '\x00ff', CASE WHEN k = 1 THEN 'infinity'::date ELSE '0044-03-15 BC' END,
  '24:00', '12:00+05:30', '-infinity', '2024-02-29 23:59:59.999999+00', '-1 year 2 mons -3 days 04:05:06.7',
  '{"a": 1, "a": 2}', '{"b": [1.50, null]}', '$.a[*] ? (@ > 1)', '<a b="c">&amp;</a>',
  'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', B'101', B'1', '::1', '10.0.0.0/8', '08:00:2b:01:02:03:04:05',
  'fat:1A cat:2', 'fat & !cat', '(1,-0)', '{1,2,3}', '((0,0),(1,1))', '((0,0),(1,1))', '[(0,0),(1,1)]',
  '((0,0),(1,1),(2,0))', '<(0,0),1>', 'it''s fine', ROW(k, 'x')::pair, ROW(ROW(k, NULL)::pair, '{sad,NULL}')::deep, k, '[1,)', '{[1,2),(5,6]}',
  '(,1.5]', '[2:3]={1,NULL}', '{{a,b},{c,NULL}}', '{ok}', ARRAY[ROW(1, 'a')::pair], 1, 'pg_class', '16/B374D848', '10:20:10',
  makeaclitem(10, 10, 'SELECT', false), ARRAY[makeaclitem(10, 10, 'SELECT', true)]
FROM generate_series(1, 50) k;
INSERT INTO types (t, jb) SELECT repeat(md5(k::text), 5000), jsonb_build_object('k', repeat(md5(k::text), 4000))
FROM generate_series(1, 20) k;
"#;

const NAMES: &str = r#"
CREATE SCHEMA "Sch""ema; DROP";
CREATE TABLE "Sch""ema; DROP"."ta'ble %s $1 \ é 表" ("co""l " int PRIMARY KEY, "select" text, "t" int, "s" int, "r" int);
INSERT INTO "Sch""ema; DROP"."ta'ble %s $1 \ é 表" SELECT k, 'x', k, k, k FROM generate_series(1, 100) k;
CREATE TABLE "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" ("bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb" int);
INSERT INTO "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" VALUES (1);
CREATE TABLE nothing (); INSERT INTO nothing DEFAULT VALUES; INSERT INTO nothing DEFAULT VALUES;
CREATE TABLE parent (id int); CREATE TABLE child (more text) INHERITS (parent);
INSERT INTO parent VALUES (1); INSERT INTO child VALUES (2, 'x'), (3, 'y');
CREATE TABLE parts (id int, at date) PARTITION BY RANGE (at);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
CREATE TABLE parts_2 PARTITION OF parts DEFAULT;
INSERT INTO parts SELECT k, '2024-01-01'::date + k FROM generate_series(1, 1000) k;
CREATE MATERIALIZED VIEW mat AS SELECT count(*) FROM parts; CREATE MATERIALIZED VIEW empty_mat AS SELECT 1 WITH NO DATA;
CREATE UNLOGGED TABLE unlogged (id int); INSERT INTO unlogged VALUES (1);
CREATE TABLE big (id bigserial PRIMARY KEY, pad text);
INSERT INTO big (pad) SELECT repeat('x', 500) FROM generate_series(1, 4000);
"#;

async fn digests_agree(major: u32) {
    let lab = Lab::new(major);
    let source = lab.source();
    sql(&source, TYPES);
    sql(&source, NAMES);
    sql(&source, "CREATE DATABASE \"Other; base\"");
    source.sql("Other; base", "CREATE TABLE t AS SELECT generate_series(1, 10) n").unwrap();
    let framed = take_frame(&source).await;
    let restore = lab.restore(&source);
    let examined = examine(&restore, &framed).await;
    assert_eq!(deviations(&framed, &examined), []);

    assert_eq!(framed_rows(&framed, "types"), 71);
    assert_eq!(framed_rows(&framed, "nothing"), 2);
    assert_eq!((framed_rows(&framed, "parent"), framed_rows(&framed, "child")), (1, 2));
    assert_eq!(framed_rows(&framed, "parts_1") + framed_rows(&framed, "parts_2"), 1000);
    assert_eq!(framed_rows(&framed, "mat"), 1);
    assert_eq!(framed_rows(&framed, "ta'ble %s $1 \\ é 表"), 100);
    assert_eq!(framed_rows(&framed, "t"), 10);
    assert!(framed.plan.units.len() > 8, "the large table must be cut: {}", framed.plan.units.len());
    let names: Vec<&str> = framed.plan.tables.iter().map(|table| table.name.table.as_str()).collect();
    assert!(names.contains(&"unlogged") && !names.contains(&"empty_mat") && !names.contains(&"parts"));

    assert_eq!(faults(&check(&restore, &examined).await), []);

    // One value of one type changed by the smallest amount, each in turn: every one must show.
    let columns = "b = NOT b, i2 = i2 - 1, f4 = 0, f8 = 0, n = -n, n2 = n2 + 0.00001, money = money + '0.01', c = 'y', \
        bp = 'ac', vc = 'vd', t = t || ' ', ba = '\\x00fe', d = d + 1, ti = '23:59:59', ttz = '12:00+05:31', \
        ts = 'infinity', tstz = tstz + interval '1 us', iv = iv + '1 us', j = '{\"a\": 2}', jb = '{\"b\": [1.5, null]}', \
        x = '<a/>', u = gen_random_uuid(), bi = B'100', vb = B'10', ip = '::2', tsv = 'fat:2A cat:2', tsq = 'fat', \
        pt = '(1,1)', e = 'ok', co = ROW(1, 'y')::pair, de = NULL, ir = '[2,)', mr = '{}', sp = '(,1.5)', ia = '{1,NULL}', \
        ta = '{}', ea = '{sad}', ca = NULL, snap = '10:20:11', acl = makeaclitem(10, 10, 'INSERT', false), \
        acls = ARRAY[makeaclitem(10, 10, 'SELECT', false)], i4 = i4 + 1";
    let facts = examined.plan.tables.clone();
    let index = facts.iter().position(|table| table.name.table == "types").unwrap();
    let everything = |unit: &dr_core::proof::frame::Unit| UnitWork { unit: unit.clone(), visibility: None };
    let work: Vec<UnitWork> = examined
        .plan
        .units
        .iter()
        .filter(|unit| unit.slices.iter().any(|slice| slice.table == index))
        .map(everything)
        .collect();
    let total = async || {
        let results = collect(&settings(&restore, "postgres"), &facts, work.clone()).await;
        let slices =
            results.iter().flat_map(|unit| &unit.slices).filter(|result| result.slice.table == index);
        slices
            .map(|result| match result.outcome {
                SliceOutcome::Digested(digest) => digest,
                ref other => panic!("{other:?}"),
            })
            .sum::<dr_core::proof::Digest>()
    };
    assert_eq!(total().await, digest_of(&framed, "types"), "without a horizon it is the same");
    if major == 17 {
        let mut before = total().await;
        for change in split_top_level(columns) {
            sql(&restore, &format!("UPDATE types SET {change} WHERE id = 4"));
            let after = total().await;
            assert_eq!(after.rows, before.rows, "{change}");
            assert_ne!(after, before, "{change} went unnoticed");
            before = after;
        }
    }
}

/// Columns, and two sets of rows that a careless hash takes for the same: by folding, by equality of another spelling,
/// by cancelling out within a row or between rows.
const ALIKE: [(&str, &str, &str); 60] = [
    ("bool", "(true)", "(NULL)"),
    ("bool", "(false)", "(NULL)"),
    ("bool", "(false)", "(true)"),
    ("int2", "(1)", "(-1)"),
    ("int4", "(0)", "(NULL)"),
    ("int8", "(1)", "(4294967296)"),
    ("int8", "(-1)", "(4294967295)"),
    ("int8", "(0)", "(NULL)"),
    ("oid", "(1)", "(2)"),
    ("float4", "('0')", "('-0')"),
    ("float4", "('NaN')", "('Infinity')"),
    ("float8", "('0')", "('-0')"),
    ("float8", "('NaN')", "('-Infinity')"),
    ("float8", "(0.1)", "(0.10000000000000002)"),
    ("numeric", "(5)", "(-5)"),
    ("numeric", "(5.0)", "(5.00)"),
    ("numeric", "(0)", "(0.0)"),
    ("numeric", "('NaN')", "('Infinity')"),
    ("numeric", "(1)", "(10000)"),
    ("money", "('0.01')", "('42949672.96')"),
    ("text", "('')", "(NULL)"),
    ("text", "('a')", "('A')"),
    ("text", "('a')", "('a ')"),
    ("varchar(9)", "('')", "(' ')"),
    ("char(5)", "('a')", "('b')"),
    ("char(5)", "('')", "(NULL)"),
    ("name", "('a')", "('b')"),
    ("\"char\"", "('a')", "('b')"),
    ("bytea", "('')", "(NULL)"),
    ("bytea", "('\\x00')", "('\\x0000')"),
    ("date", "('infinity')", "('-infinity')"),
    ("date", "('infinity')", "('5874897-12-31')"),
    ("time", "('00:00:00.000001')", "('01:11:34.967296')"),
    ("time", "('00:00')", "('24:00')"),
    ("timetz", "('12:00+01')", "('11:00+00')"),
    ("timestamp", "('2000-01-01 00:00:00.000001')", "('2000-01-01 01:11:34.967296')"),
    ("timestamptz", "('2000-01-01 00:00:00.000001Z')", "('2000-01-01 01:11:34.967296Z')"),
    ("timestamptz", "('2026-01-01Z')", "(NULL)"),
    ("interval", "('1 day')", "('24 hours')"),
    ("interval", "('1 mon')", "('30 days')"),
    ("json", "('{}')", "('{ }')"),
    ("jsonb", "('1.5')", "('1.50')"),
    ("uuid", "('00000000-0000-0000-0000-000000000001')", "('00000000-0000-0001-0000-000000000000')"),
    ("inet", "('10.0.0.0/8')", "('10.0.0.0/9')"),
    ("cidr", "('10.0.0.0/8')", "('::/8')"),
    ("int[]", "('{1,NULL}')", "('{1}')"),
    ("int[]", "('[2:2]={1}')", "('{1}')"),
    ("point", "('(0,0)')", "('(0,-0)')"),
    ("mood", "('sad')", "('ok')"),
    ("positive", "(1)", "(2)"),
    ("pair", "(ROW(1, NULL))", "(NULL)"),
    // Columns that exchange what they hold, columns that change alike, rows that exchange, rows that are doubled.
    ("int4, b int4", "(1, 2)", "(2, 1)"),
    ("int8, b int8", "(7, 7)", "(9, 9)"),
    ("bool, b bool", "(true, true)", "(false, false)"),
    ("text, b text", "(NULL, 'x')", "('x', NULL)"),
    ("numeric, b numeric", "(2, 3)", "(20000, 30000)"),
    ("timestamptz, b timestamptz", "('2026-01-01Z', NULL)", "(NULL, '2026-01-01Z')"),
    ("int4, b text", "(1, 'x'), (2, 'y')", "(1, 'y'), (2, 'x')"),
    ("numeric, b timestamp", "(1, '2026-01-01'), (2, '2026-01-02')", "(1, '2026-01-02'), (2, '2026-01-01')"),
    ("int4, b text", "(1, 'x'), (1, 'x'), (2, 'y')", "(1, 'x'), (2, 'y'), (2, 'y')"),
];

async fn alike_is_not_the_same(major: u32) {
    let lab = Lab::new(major);
    let source = lab.source();
    let mut script = String::from(
        "CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE DOMAIN positive AS int; CREATE TYPE pair AS (n int, t text); ",
    );
    for (at, (columns, one, other)) in ALIKE.iter().enumerate() {
        for (side, rows) in [("one", one), ("other", other)] {
            let rows = rows.replace("(ROW(1, NULL))", "(ROW(1, NULL)::pair)");
            write!(script, "CREATE TABLE {side}_{at} (a {columns}); INSERT INTO {side}_{at} VALUES {rows}; ")
                .unwrap();
        }
    }
    sql(&source, &script);
    let framed = take_frame(&source).await;
    for (at, (columns, one, other)) in ALIKE.iter().enumerate() {
        let of = |side: &str| digest_of(&framed, &format!("{side}_{at}"));
        assert_eq!(of("one").rows, of("other").rows, "{columns}");
        assert_ne!(of("one"), of("other"), "{columns}: {one} and {other}");
        assert_ne!(of("one").s0, of("other").s0, "{columns}: {one} and {other}");
        assert_ne!(of("one").s1, of("other").s1, "{columns}: {one} and {other}");
        assert_ne!((of("one").s0, of("one").s1), (0, 0), "{columns}: {one}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn values_and_rows_that_are_almost_alike_have_other_digests_on_14() {
    alike_is_not_the_same(14).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn values_and_rows_that_are_almost_alike_have_other_digests_on_18() {
    alike_is_not_the_same(18).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_settings_nor_order_nor_storage_matter() {
    let lab = Lab::new(17);
    let source = lab.source();
    sql(&source, TYPES);
    sql(
        &source,
        "CREATE TABLE back (LIKE types INCLUDING ALL EXCLUDING STORAGE EXCLUDING IDENTITY); \
         ALTER TABLE back ALTER t SET STORAGE EXTERNAL, ALTER jb SET STORAGE MAIN, ALTER ba SET STORAGE PLAIN",
    );
    let columns: Vec<String> = sql(
        &source,
        "SELECT quote_ident(attname) FROM pg_attribute WHERE attrelid = 'types'::regclass AND attnum > 0 \
         AND NOT attisdropped AND attgenerated = '' ORDER BY attnum",
    )
    .into_iter()
    .filter_map(|row| row.into_iter().next().flatten())
    .collect();
    let columns = columns.join(", ");
    sql(&source, &format!("INSERT INTO back ({columns}) SELECT {columns} FROM types ORDER BY id DESC"));
    let before = take_frame(&source).await;
    let here = digest_of(&before, "types");
    assert_eq!(here.rows, 71);
    for setting in [
        "timezone = 'Asia/Kolkata'",
        "datestyle = 'German'",
        "intervalstyle = 'sql_standard'",
        "extra_float_digits = -5",
        "bytea_output = 'escape'",
        "lc_monetary = 'C.UTF-8'",
        "client_encoding = 'LATIN1'",
        "xmlbinary = 'hex'",
    ] {
        sql(&source, &format!("ALTER DATABASE postgres SET {setting}"));
    }
    let after = take_frame(&source).await;
    assert_eq!(digest_of(&after, "types"), here);
    // Dropped columns of the original have shifted the copy's numbers, which digests depend on: so a copy of the copy.
    sql(&source, "CREATE TABLE again (LIKE back); INSERT INTO again SELECT * FROM back ORDER BY id");
    let copies = take_frame(&source).await;
    assert_eq!(digest_of(&copies, "again"), digest_of(&copies, "back"));
}

/// Splits at commas outside of brackets and quotes.
fn split_top_level(list: &str) -> Vec<String> {
    let (mut parts, mut depth, mut quoted) = (vec![String::new()], 0, false);
    for letter in list.chars() {
        match letter {
            '\'' => quoted = !quoted,
            '(' | '[' | '{' if !quoted => depth += 1,
            ')' | ']' | '}' if !quoted => depth -= 1,
            ',' if !quoted && depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        parts.last_mut().unwrap().push(letter);
    }
    parts
}

#[tokio::test(flavor = "multi_thread")]
async fn digests_agree_on_a_crash_consistent_copy_on_14() {
    digests_agree(MAJORS[0]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn digests_agree_on_a_crash_consistent_copy_on_15() {
    digests_agree(MAJORS[1]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn digests_agree_on_a_crash_consistent_copy_on_16() {
    digests_agree(MAJORS[2]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn digests_agree_on_a_crash_consistent_copy_on_17() {
    digests_agree(MAJORS[3]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn digests_agree_on_a_crash_consistent_copy_on_18() {
    digests_agree(MAJORS[4]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn virtual_columns_and_columns_added_since_do_not_make_rows_differ() {
    let lab = Lab::new(18);
    let source = lab.source();
    sql(
        &source,
        "CREATE TABLE t (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) VIRTUAL, old text)",
    );
    sql(&source, "INSERT INTO t SELECT k FROM generate_series(1, 1000) k");
    let framed = take_frame(&source).await;
    sql(&source, "ALTER TABLE t ADD COLUMN fresh int DEFAULT 7; ALTER TABLE t RENAME COLUMN old TO renamed");
    sql(&source, "ALTER TABLE t RENAME TO \"T 2\"");
    let restore = lab.restore(&source);
    let examined = examine(&restore, &framed).await;
    assert_eq!(deviations(&framed, &examined), []);
    assert_eq!(examined.plan.tables.iter().filter(|table| table.name.table == "T 2").count(), 1);
    assert_ne!(examined.plan.tables[0].structure, framed.plan.tables[0].structure);
    drop(restore);

    // A column that is gone cannot be compared: the digest then speaks of what there is.
    sql(&source, "ALTER TABLE \"T 2\" DROP COLUMN renamed");
    let restore = lab.start(&lab.copy(&source, "later"));
    let examined = examine(&restore, &framed).await;
    assert_eq!(deviations(&framed, &examined).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn time_that_is_up_leaves_work_and_a_later_call_goes_on_and_pace_is_kept() {
    let lab = Lab::new(17);
    let source = lab.source();
    sql(&source, "CREATE TABLE big AS SELECT k, repeat('x', 1000) FROM generate_series(1, 8000) k"); // 9 MB
    let reader = settings(&source, "postgres");
    let plan = plan_frame(&reader).await;
    let visibility = frame::horizon(&reader).await.unwrap();
    let work: Vec<UnitWork> = plan
        .units
        .iter()
        .map(|unit| UnitWork { unit: unit.clone(), visibility: Some(visibility.clone()) })
        .collect();
    let stored = std::sync::Mutex::new(Vec::new());
    let pace = Pace::mebibytes_per_second(8);
    let limits = Limits::lasting(2, Duration::from_millis(300), Duration::from_secs(5));
    let begun = std::time::Instant::now();
    let progress = read_units(&reader, &plan.tables, work.clone(), limits, Some(&pace), async |result| {
        stored.lock().unwrap().push(result);
        Ok(())
    })
    .await
    .unwrap();
    assert!(progress.done > 0 && progress.left > 0, "{progress:?}");
    assert_eq!(progress.done + progress.left, work.len());
    let mut results = stored.into_inner().unwrap();
    assert_eq!(results.len(), progress.done);
    let done: Vec<u32> = results.iter().map(|result| result.unit).collect();

    let rest: Vec<UnitWork> = work.into_iter().filter(|work| !done.contains(&work.unit.id)).collect();
    let stored = std::sync::Mutex::new(Vec::new());
    read_units(&reader, &plan.tables, rest, crate::lab::limits(), Some(&pace), async |result| {
        stored.lock().unwrap().push(result);
        Ok(())
    })
    .await
    .unwrap();
    assert!(begun.elapsed() > Duration::from_millis(900), "9 MB at 8 MiB/s took {:?}", begun.elapsed());
    results.extend(stored.into_inner().unwrap());
    let rows: u64 = results
        .iter()
        .flat_map(|unit| &unit.slices)
        .map(|result| match result.outcome {
            SliceOutcome::Digested(digest) => digest.rows,
            ref other => panic!("{other:?}"),
        })
        .sum();
    assert_eq!(rows, 8000);
}
