//! The verdicts on tables.

use super::*;
use crate::error::ErrorName;

/// What one table of two slices (rows 0..10 and 10..20) is judged to be after a change to the world.
#[test]
#[expect(clippy::too_many_lines, reason = "one table of cases")]
fn a_table_gets_the_verdict_that_the_evidence_allows() {
    type Change = fn(&mut World);
    let cases: &[(&str, Change, Reason, Verdict)] = &[
        ("untouched", |_| {}, Reason::DigestsEqual, Verdict::Proven),
        ("untouched, with activity", |w| w.after().updated += 5, Reason::DigestsEqual, Verdict::Proven),
        (
            "rows gone, followed",
            |w| {
                w.here(0).outcome = digested(rows(0..8));
                w.narrow(0, followed());
            },
            Reason::RowsFollowed,
            Verdict::Proven,
        ),
        (
            "rows gone, within the counters",
            |w| {
                w.here(0).outcome = digested(rows(0..8));
                w.after().updated += 2;
            },
            Reason::WithinCounters,
            Verdict::Proven,
        ),
        (
            "one row more gone than the counters allow",
            |w| {
                w.here(0).outcome = digested(rows(0..7));
                w.after().updated += 2;
            },
            Reason::RowsMissing,
            Verdict::Unproven,
        ),
        (
            "rows gone, source not available, within",
            |w| {
                w.here(0).outcome = digested(rows(0..9));
                w.narrow(0, unavailable());
                w.after().deleted += 1;
            },
            Reason::WithinCounters,
            Verdict::Proven,
        ),
        (
            "rows gone, none touched",
            |w| w.here(0).outcome = digested(rows(0..9)),
            Reason::RowsMissing,
            Verdict::Unproven,
        ),
        (
            "rows gone, counters pending",
            |w| {
                w.here(0).outcome = digested(rows(0..9));
                w.observation.as_mut().unwrap().pending_counters = true;
            },
            Reason::CountersUnusable,
            Verdict::Proven,
        ),
        (
            "rows gone, statistics reset",
            |w| {
                w.here(0).outcome = digested(rows(0..9));
                w.observation.as_mut().unwrap().activity[0].stats_reset = Some("now".to_owned());
            },
            Reason::CountersUnusable,
            Verdict::Proven,
        ),
        (
            "rows gone, counters went back",
            |w| {
                w.here(0).outcome = digested(rows(0..9));
                w.after().updated = 0;
            },
            Reason::CountersUnusable,
            Verdict::Proven,
        ),
        (
            "rows gone, found changed by a type that was changed after the snapshot",
            |w| {
                w.here(0).outcome = digested(rows(0..9));
                w.narrow(0, found(&["9"]));
                w.after().deleted += 50;
                class(&mut w.observation.as_mut().unwrap().schema, "types", "types-2");
            },
            Reason::WithinCounters,
            Verdict::Proven,
        ),
        (
            "rows gone, found missing",
            |w| {
                w.here(0).outcome = digested(rows(0..9));
                w.narrow(0, found(&["9"]));
                w.after().deleted += 50;
            },
            Reason::RowsMissing,
            Verdict::Unproven,
        ),
        (
            "a value changed",
            |w| {
                w.here(1).outcome = digested(rows((10..19).chain([99])));
                w.after().updated += 50;
            },
            Reason::ContentDiffers,
            Verdict::Unproven,
        ),
        (
            "a value changed, accounted for by mistake",
            |w| {
                w.here(1).outcome = digested(rows((10..19).chain([99])));
                w.narrow(1, followed());
                w.after().updated += 50;
            },
            Reason::ContentDiffers,
            Verdict::Unproven,
        ),
        (
            "a row too many",
            |w| {
                w.here(1).outcome = digested(rows(10..21));
                w.after().inserted += 50;
            },
            Reason::MoreRows,
            Verdict::Unproven,
        ),
        (
            "rows moved between slices without a rewrite",
            |w| {
                w.here(0).outcome = digested(rows(10..20));
                w.here(1).outcome = digested(rows(0..10));
            },
            Reason::ContentDiffers,
            Verdict::Unproven,
        ),
        (
            "rows moved by VACUUM FULL",
            |w| {
                w.here(0).outcome = digested(rows(10..20));
                w.here(1).outcome = digested(rows(0..10));
                w.examination.plan.tables[0].filenode = 2;
                w.after().filenode = 2;
            },
            Reason::DigestsEqual,
            Verdict::Proven,
        ),
        (
            "VACUUM FULL after the snapshot hides nothing",
            |w| {
                w.here(0).outcome = digested(rows(0..9));
                w.after().filenode = 2;
            },
            Reason::RowsMissing,
            Verdict::Unproven,
        ),
        (
            "VACUUM FULL and a changed value",
            |w| {
                w.here(0).outcome = digested(rows((0..9).chain([99])));
                w.examination.plan.tables[0].filenode = 2;
                w.after().filenode = 2;
            },
            Reason::Rewritten,
            Verdict::Proven,
        ),
        (
            "truncated",
            |w| {
                w.here(0).outcome = digested(Digest::EMPTY);
                w.here(1).outcome = digested(Digest::EMPTY);
                w.examination.plan.tables[0].filenode = 2;
                w.after().filenode = 3;
            },
            Reason::Rewritten,
            Verdict::Proven,
        ),
        (
            "rewritten, then dropped",
            |w| {
                w.here(0).outcome = digested(Digest::EMPTY);
                w.examination.plan.tables[0].filenode = 2;
                w.observation.as_mut().unwrap().activity[0].tables.clear();
            },
            Reason::Rewritten,
            Verdict::Proven,
        ),
        (
            "empty, and the source was not rewritten",
            |w| {
                w.here(0).outcome = digested(Digest::EMPTY);
                w.examination.plan.tables[0].filenode = 2;
            },
            Reason::RowsMissing,
            Verdict::Unproven,
        ),
        (
            "a column added before the snapshot",
            |w| {
                w.here(0).outcome = digested(rows(100..110));
                w.examination.plan.tables[0].structure = "s2".to_owned();
                w.after().structure = "s2".to_owned();
            },
            Reason::Redefined,
            Verdict::Proven,
        ),
        (
            "a column added after the snapshot hides nothing",
            |w| {
                w.here(0).outcome = digested(rows(100..110));
                w.after().structure = "s2".to_owned();
            },
            Reason::ContentDiffers,
            Verdict::Unproven,
        ),
        (
            "a column added, followed row by row",
            |w| {
                w.here(0).outcome = digested(rows(100..110));
                w.narrow(0, followed());
                w.examination.plan.tables[0].structure = "s2".to_owned();
                w.after().structure = "s2".to_owned();
            },
            Reason::RowsFollowed,
            Verdict::Proven,
        ),
        (
            "a column added and too many rows",
            |w| {
                w.here(0).outcome = digested(rows(100..111));
                w.examination.plan.tables[0].structure = "s2".to_owned();
                w.after().structure = "s2".to_owned();
            },
            Reason::MoreRows,
            Verdict::Unproven,
        ),
        (
            "a column added and too few rows",
            |w| {
                w.here(0).outcome = digested(rows(100..109));
                w.examination.plan.tables[0].structure = "s2".to_owned();
                w.after().structure = "s2".to_owned();
            },
            Reason::OutOfBounds,
            Verdict::Unproven,
        ),
        (
            "other columns than ever",
            |w| w.examination.plan.tables[0].structure = "s9".to_owned(),
            Reason::StructureDiffers,
            Verdict::Unproven,
        ),
        (
            "a column added and dropped again",
            |w| {
                w.examination.plan.tables[0].structure = "s9".to_owned();
                w.here(0).outcome = digested(rows(100..110));
                w.observation.as_mut().unwrap().activity[0]
                    .catalogue_changes
                    .insert("pg_attribute".to_owned(), 7);
            },
            Reason::Redefined,
            Verdict::Proven,
        ),
        (
            "an enum's label renamed",
            |w| {
                w.here(0).outcome = digested(rows(100..110));
                for schema in
                    [&mut w.examination.catalogue.schema, &mut w.observation.as_mut().unwrap().schema]
                {
                    schema.get_mut("shop").unwrap().insert("types".to_owned(), "types-2".to_owned());
                }
            },
            Reason::Redefined,
            Verdict::Proven,
        ),
        ("unreadable here", |w| w.here(1).outcome = broken(), Reason::UnreadableHere, Verdict::Unproven),
        (
            "unreadable on the source too",
            |w| {
                w.here(1).outcome = broken();
                w.there(1).outcome = broken();
            },
            Reason::UnreadableOnSource,
            Verdict::Unproven,
        ),
        (
            "unlogged",
            |w| {
                w.examination.plan.tables[0].persistence = Persistence::Unlogged;
                w.here(0).outcome = digested(Digest::EMPTY);
            },
            Reason::Unlogged,
            Verdict::Proven,
        ),
        (
            "dropped while framing, back on the restore",
            |w| w.there(0).outcome = SliceOutcome::Gone,
            Reason::TableBack,
            Verdict::Unproven,
        ),
        (
            "no frame",
            |w| {
                w.without_frame = true;
                w.examination.plan.framed[0] = None;
                w.examination.plan.frame_units[0] = None;
            },
            Reason::NoFrame,
            Verdict::Proven,
        ),
        (
            "no frame, unreadable",
            |w| {
                w.without_frame = true;
                w.examination.plan.framed[0] = None;
                w.here(0).outcome = broken();
            },
            Reason::UnreadableHere,
            Verdict::Unproven,
        ),
        ("no observation, untouched", |w| w.observation = None, Reason::DigestsEqual, Verdict::Proven),
        (
            "no observation, a column more",
            |w| {
                w.observation = None;
                w.examination.plan.tables[0].structure = "s2".to_owned();
            },
            Reason::StructureDiffers,
            Verdict::Unproven,
        ),
    ];
    for (what, change, reason, verdict) in cases {
        let mut world = World::new(&[rows(0..10), rows(10..20)]);
        change(&mut world);
        let report = world.judge().unwrap();
        assert_eq!(report.tables.len(), 1, "{what}");
        assert_eq!(report.tables[0].reason, *reason, "{what}: {:?}", report.findings);
        assert_eq!(report.judgement.verdict, *verdict, "{what}: {:?}", report.findings);
        assert_eq!(report.tables[0].verdict, reason.verdict(), "{what}");
    }
}

#[test]
fn evidence_with_holes_is_refused() {
    type Change = fn(&mut World);
    let cases: &[(&str, Change)] = &[
        ("a unit without result", |w| w.examination.units.clear()),
        ("a unit twice", |w| {
            let again = w.examination.units[0].clone();
            w.examination.units.push(again);
        }),
        ("a slice without result", |w| {
            w.examination.units[0].slices.pop();
        }),
        ("a frame's unit without result", |w| w.frame.units.clear()),
        ("other rows than the frame's", |w| w.examination.units[0].visibility.below_xmin_only = true),
        ("a slice that was not planned", |w| {
            w.examination.units[0].slices.pop();
            w.examination.plan.units[0].slices.pop();
        }),
        ("a table without slices", |w| {
            w.examination.plan.tables.push(facts("items", 1001));
            w.examination.plan.framed.push(None);
        }),
        ("a check without result", |w| {
            check(w, CheckOutcome::Sound);
            w.examination.checks.clear();
        }),
        ("a check without its subject", |w| {
            check(w, CheckOutcome::Sound);
            w.examination.checks[0].outcomes.clear();
        }),
    ];
    for (what, change) in cases {
        let mut world = World::new(&[rows(0..10), rows(10..20)]);
        change(&mut world);
        assert_eq!(world.judge().map_err(|error| error.name()), Err(ErrorName::MetadataDamaged), "{what}");
    }
}

#[test]
fn a_difference_names_its_blocks_and_keeps_keys_out_of_the_summary() {
    let mut world = World::new(&[rows(0..10), rows(10..20), rows(20..30), rows(30..40)]);
    world.here(1).outcome = digested(rows((10..19).chain([99])));
    world.here(2).outcome = digested(rows((20..29).chain([98])));
    world.narrow(1, found(&["id=hunter2"]));
    let report = world.judge().unwrap();
    let table = &report.tables[0];
    assert_eq!(table.blocks, [BlockRange { first: 10, end: Some(30) }]);
    assert_eq!(table.different_rows, Some(1));
    assert_eq!(table.different_keys[0].key, "id=hunter2");
    assert_eq!(table.proven_rows, 20);
    let summary = serde_json::to_string(&report.judgement).unwrap();
    assert!(!summary.contains("hunter2"), "{summary}");
    assert!(summary.contains("shop.public.orders") && summary.contains("10–29"), "{summary}");
    assert!((report.judgement.coverage.proven_rows_percent - 50.0).abs() < 0.01);
}

#[test]
fn a_difference_that_was_followed_down_names_the_blocks_of_its_rows_only() {
    let mut world = World::new(&[rows(0..10), rows(10..20), rows(20..30)]);
    world.here(0).outcome = digested(rows((0..9).chain([99])));
    world.here(2).outcome = digested(rows((20..29).chain([98])));
    world.narrow(0, NarrowingOutcome::Rows { count: 3, keys: Vec::new(), blocks: vec![3, 4, 7] });
    let ranges: Vec<_> =
        world.judge().unwrap().tables[0].blocks.iter().map(|range| (range.first, range.end)).collect();
    assert_eq!(ranges[..2], [(3, Some(5)), (7, Some(8))]);
    assert_eq!(ranges[2].0, 20, "a slice that was not followed down is named whole");
}

#[test]
fn the_summary_stays_small_and_reads_back() {
    let mut world = World::new(&[rows(0..10)]);
    for index in 0..2000 {
        world.examination.catalogue.collation_drift.push(format!("{index:0>300}"));
        world.examination.plan.tables[0].primary_key.push("x".repeat(60));
    }
    check(&mut world, CheckOutcome::Faulty { messages: vec!["x".repeat(5000); 10] });
    let report = world.judge().unwrap();
    let summary = serde_json::to_string(&report.judgement).unwrap();
    assert!(summary.len() < 30_000, "{}", summary.len());
    assert_eq!(report.judgement.finding_count, 2001);
    assert_eq!(report.judgement.findings[0].severity, Severity::Error);
    let text = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
}

#[test]
fn the_measured_rpo_is_the_age_of_the_newest_moment_at_the_snapshot() {
    for (beat, other, expected) in [
        (Some(60), None, Some(5)),
        (Some(60), Some(64), Some(1)),
        (Some(70), None, Some(0)),
        (None, Some(5), Some(60)),
        (None, None, None),
    ] {
        let mut world = World::new(&[rows(0..10)]);
        world.examination.catalogue.heartbeat =
            beat.map(|seconds| Heartbeat { written_at: at(seconds), ..world.frame.heartbeat.clone() });
        world.examination.catalogue.newest_known_moment = other.map(at);
        assert_eq!(world.judge().unwrap().judgement.rpo_seconds, expected, "{beat:?} {other:?}");
    }
}

#[test]
fn a_rewritten_table_of_one_slice_is_compared_by_its_numbers() {
    type Change = fn(&mut World);
    let cases: &[(&str, Change, Reason)] = &[
        ("moved", |_| {}, Reason::DigestsEqual),
        (
            "a changed value",
            |w| w.here(0).outcome = digested(rows((0..9).chain([99]))),
            Reason::ContentDiffers,
        ),
        ("a row too many", |w| w.here(0).outcome = digested(rows(0..11)), Reason::MoreRows),
        ("truncated", |w| w.here(0).outcome = digested(Digest::EMPTY), Reason::Rewritten),
        (
            "more rows than were inserted",
            |w| {
                w.here(0).outcome = digested(Digest::EMPTY);
                w.here(0).newer_rows = Some(16);
                w.after().inserted += 5;
            },
            Reason::OutOfBounds,
        ),
        (
            "as many rows as were inserted",
            |w| {
                w.here(0).outcome = digested(Digest::EMPTY);
                w.here(0).newer_rows = Some(15);
                w.after().inserted += 5;
            },
            Reason::Rewritten,
        ),
        (
            "rows gone, within the counters",
            |w| {
                w.here(0).outcome = digested(rows(0..9));
                w.after().deleted += 1;
            },
            Reason::WithinCounters,
        ),
    ];
    for (what, change, reason) in cases {
        let mut world = World::new(&[rows(0..10)]);
        world.examination.plan.tables[0].filenode = 2;
        world.after().filenode = 2;
        change(&mut world);
        let report = world.judge().unwrap();
        assert_eq!(report.tables[0].reason, *reason, "{what}: {:?}", report.findings);
    }
}
