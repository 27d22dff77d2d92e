//! Tables that are cut by keys: the source before, the source after, the restore.

use proptest::prelude::*;

use super::*;
use crate::proof::judgement::TableVerdict;
use crate::proof::keyed::{KeyedFacts, SourceState, TableState, Written};

/// What there is to know about one slice and the writes around it.
#[derive(Debug, Clone)]
struct Case {
    before: Digest,
    after: Option<Digest>,
    here: Digest,
    own: Option<Written>,
    server: Option<Written>,
    truncated: bool,
    transactional: bool,
}

fn case(before: Digest, after: Option<Digest>, here: Digest) -> Case {
    Case { before, after, here, own: None, server: None, truncated: false, transactional: true }
}

#[expect(clippy::unnecessary_wraps, reason = "what a case holds")]
fn written(inserted: u64, updated: u64, deleted: u64) -> Option<Written> {
    Some(Written { inserted, updated, deleted })
}

/// A table of one slice.
fn world(case: &Case) -> (World, Vec<UnitResult>) {
    let mut world = World::new(&[case.before]);
    let mut table = facts("orders", 0);
    table.blocks = 1;
    table.keyed = Some(KeyedFacts {
        engine: "InnoDB".to_owned(),
        transactional: case.transactional,
        versioned: false,
        columns: Vec::new(),
        key: Vec::new(),
        bounds: Vec::new(),
    });
    let state = |counted: Written, all: Written, truncations: u64, second: i64| SourceState {
        taken_at: at(second),
        started: 7,
        written: case.server.map(|_| all),
        statements: BTreeMap::from([("Com_truncate".to_owned(), truncations)]),
        tables: vec![TableState {
            name: table.name.clone(),
            structure: table.structure.clone(),
            created: None,
            updated: None,
            written: case.own.map(|_| counted),
        }],
    };
    let nothing = Written::default();
    let one = result(1, 0, &[case.before]);
    world.frame.plan.activity.clear();
    world.frame.plan.state = Some(state(nothing, nothing, 0, 0));
    world.frame.plan.tables = vec![table.clone()];
    world.frame.plan.units = vec![unit(&one)];
    world.frame.units = vec![one.clone()];
    world.examination.plan.tables = vec![table.clone()];
    world.examination.plan.units = vec![unit(&one)];
    world.examination.units = vec![result(1, 0, &[case.here])];
    let observation = world.observation.as_mut().unwrap();
    observation.activity.clear();
    observation.state = Some(state(
        case.own.unwrap_or_default(),
        case.server.unwrap_or_default(),
        u64::from(case.truncated),
        70,
    ));
    let again = case.after.map(|after| result(1, 0, &[after])).into_iter().collect();
    (world, again)
}

fn unit(result: &UnitResult) -> Unit {
    Unit {
        id: result.unit,
        database: "shop".to_owned(),
        slices: result.slices.iter().map(|slice| slice.slice).collect(),
    }
}

fn judged(case: &Case) -> (Report, Reason) {
    let (world, again) = world(case);
    let report = world.judge_with(&again).unwrap();
    let reason = report.tables[0].reason;
    (report, reason)
}

#[test]
fn a_slice_is_judged_by_the_source_before_and_after() {
    let (a, b, c) = (rows(0..10), rows(0..12), rows(0..11));
    let other = rows((0..9).chain([99]));
    let few = rows(0..8);
    let cases = [
        ("nobody wrote", case(a, Some(a), a), Reason::DigestsEqual),
        (
            "not read again, since it was quiet",
            Case { own: written(0, 0, 0), ..case(a, None, a) },
            Reason::DigestsEqual,
        ),
        (
            "quiet, and another",
            Case { own: written(0, 0, 0), ..case(a, None, other) },
            Reason::ContentDiffers,
        ),
        ("quiet, and fewer", Case { own: written(0, 0, 0), ..case(a, None, few) }, Reason::RowsMissing),
        ("quiet, and more", Case { own: written(0, 0, 0), ..case(a, None, b) }, Reason::MoreRows),
        ("written to after the snapshot", case(a, Some(b), a), Reason::BeforeOrAfter),
        ("written to before the snapshot", case(a, Some(b), b), Reason::BeforeOrAfter),
        (
            "in the middle of being written to",
            Case { own: written(2, 0, 0), ..case(a, Some(b), c) },
            Reason::BetweenFrames,
        ),
        (
            "the same, counted by the server",
            Case { server: written(2, 0, 0), ..case(a, Some(b), c) },
            Reason::BetweenFrames,
        ),
        ("the same, counted by nobody", case(a, Some(b), c), Reason::BetweenFrames),
        (
            "more than were inserted",
            Case { own: written(2, 0, 0), ..case(a, Some(b), rows(0..13)) },
            Reason::OutOfBounds,
        ),
        (
            "fewer than were deleted",
            Case { own: written(2, 0, 1), ..case(a, Some(b), few) },
            Reason::OutOfBounds,
        ),
        (
            "emptied in between",
            Case { own: written(12, 0, 0), truncated: true, ..case(a, Some(b), rows(0..0)) },
            Reason::BetweenFrames,
        ),
        ("same before and after, other here", case(a, Some(a), other), Reason::ContentDiffers),
        (
            "the same on a busy server",
            Case { server: written(99, 99, 99), ..case(a, Some(a), other) },
            Reason::ContentDiffers,
        ),
        (
            "rows are missing on a busy server",
            Case { server: written(99, 99, 99), ..case(a, Some(a), few) },
            Reason::RowsMissing,
        ),
        (
            "a queue that was not empty",
            Case { own: written(2, 0, 2), ..case(a, Some(a), b) },
            Reason::CameAndWent,
        ),
        (
            "a queue, counted by the server",
            Case { server: written(2, 0, 2), ..case(a, Some(a), b) },
            Reason::CameAndWent,
        ),
        ("more rows than came", Case { own: written(1, 9, 2), ..case(a, Some(a), b) }, Reason::MoreRows),
        ("more rows than went", Case { own: written(2, 9, 1), ..case(a, Some(a), b) }, Reason::MoreRows),
        ("more rows, and nobody counts", case(a, Some(a), b), Reason::MoreRows),
        (
            "an engine without transactions that was written to",
            Case { transactional: false, own: written(1, 0, 0), ..case(a, Some(a), other) },
            Reason::NotTransactional,
        ),
        (
            "an engine without transactions that was not",
            Case { transactional: false, own: written(0, 0, 0), ..case(a, None, other) },
            Reason::ContentDiffers,
        ),
    ];
    for (what, case, expected) in cases {
        let (report, reason) = judged(&case);
        assert_eq!(reason, expected, "{what}");
        let proven = matches!(reason.verdict(), TableVerdict::Exact | TableVerdict::Explained);
        let rows = if proven { case.here.rows } else { 0 };
        assert_eq!(report.tables[0].proven_rows, rows, "{what}");
    }
}

#[test]
fn without_an_observation_a_difference_is_only_plausible_and_equality_is_exact() {
    let (a, b) = (rows(0..10), rows(0..12));
    for (here, expected) in [(a, Reason::DigestsEqual), (b, Reason::CountersUnusable)] {
        let (mut world, _) = world(&case(a, None, here));
        world.observation = None;
        assert_eq!(world.judge_with(&[]).unwrap().tables[0].reason, expected);
    }
}

#[test]
fn a_source_that_was_not_read_again_where_it_may_have_been_written_to_is_refused() {
    let a = rows(0..10);
    for (own, refused) in [(None, true), (written(1, 0, 0), true), (written(0, 0, 0), false)] {
        let (world, _) = world(&Case { own, ..case(a, None, a) });
        let judged = world.judge_with(&[]).map(drop).map_err(|error| error.name());
        let expected = if refused { Err(crate::error::ErrorName::MetadataDamaged) } else { Ok(()) };
        assert_eq!(judged, expected, "{own:?}");
    }
}

#[test]
fn a_table_that_the_restore_lacks_was_dropped_or_is_missing() {
    for (dropped, expected) in [(true, Reason::DroppedSince), (false, Reason::TableMissing)] {
        let (mut world, again) = world(&case(rows(0..3), Some(rows(0..3)), rows(0..3)));
        let plan = &mut world.examination.plan;
        (plan.tables, plan.framed, plan.units, plan.frame_units) = (vec![], vec![], vec![], vec![]);
        world.examination.units.clear();
        if dropped {
            world.observation.as_mut().unwrap().state.as_mut().unwrap().tables.clear();
        }
        assert_eq!(world.judge_with(&again).unwrap().tables[0].reason, expected);
    }
}

#[test]
fn other_columns_are_explained_by_the_sources_own_only() {
    let a = rows(0..10);
    for (altered, expected) in [(true, Reason::Redefined), (false, Reason::StructureDiffers)] {
        let (mut world, again) = world(&case(a, Some(rows(0..11)), rows(20..30)));
        world.examination.plan.tables[0].structure = "s2".to_owned();
        if altered {
            world.observation.as_mut().unwrap().state.as_mut().unwrap().tables[0].structure = "s2".to_owned();
        }
        assert_eq!(world.judge_with(&again).unwrap().tables[0].reason, expected);
    }
}

proptest! {
    /// A source that inserts, updates and deletes rows before and after the moment of the snapshot never makes a
    /// sound restore look damaged, unless it undid an update or brought deleted rows back.
    #[test]
    fn a_sound_restore_of_a_busy_source_is_never_called_damaged(
        begin in prop::collection::btree_map(0u64..40, 0u64..3, 0..30),
        first in prop::collection::vec((0u64..40, 0u64..4), 0..12),
        second in prop::collection::vec((0u64..40, 0u64..4), 0..12),
        counted in 0u8..3,
    ) {
        let mut written = Written::default();
        let mut version = 100;
        let mut table = begin;
        let digest_of = |table: &BTreeMap<u64, u64>| rows(table.iter().map(|(key, value)| key * 1_000_003 + value));
        let mut play = |table: &mut BTreeMap<u64, u64>, deeds: &[(u64, u64)]| {
            for (key, deed) in deeds {
                version += 1;
                match (deed, table.contains_key(key)) {
                    (0, true) => {
                        table.remove(key);
                        written.deleted += 1;
                    }
                    (_, true) => {
                        table.insert(*key, version);
                        written.updated += 1;
                    }
                    (_, false) => {
                        table.insert(*key, version);
                        written.inserted += 1;
                    }
                }
            }
        };
        let before = digest_of(&table);
        play(&mut table, &first);
        let here = digest_of(&table);
        play(&mut table, &second);
        let after = digest_of(&table);
        let mut case = case(before, Some(after), here);
        match counted {
            0 => case.own = Some(written),
            1 => case.server = Some(written),
            _ => prop_assume!(!(before == after && here.rows > before.rows)),
        }
        let (_, reason) = judged(&case);
        prop_assert!(reason.verdict() <= TableVerdict::Plausible, "{:?} {:?}", reason, case);
    }

    /// A restore that equals neither moment of a table that was the same at both is never proven.
    #[test]
    fn damage_of_what_did_not_change_is_never_proven(
        size in 1u64..50, lost in 0u64..50, changed in 0u64..50, server in any::<bool>(),
    ) {
        let before = rows(0..size);
        let here = rows((0..size).filter(|row| *row != lost).map(|row| if row == changed { row + 1000 } else { row }));
        prop_assume!(before != here);
        let mut case = case(before, Some(before), here);
        if server {
            case.server = written(1000, 1000, 1000);
        }
        let (report, reason) = judged(&case);
        prop_assert_eq!(reason.verdict(), TableVerdict::Different);
        prop_assert_eq!(report.judgement.verdict, crate::proof::judgement::Verdict::Unproven);
    }
}
