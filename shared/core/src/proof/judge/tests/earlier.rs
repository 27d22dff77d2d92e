//! A restore beside an earlier restore of the same snapshot: what is equal keeps its verdict, what is not is damage.

use proptest::prelude::*;

use super::*;
use crate::proof::judgement::{BesideEarlier, TableVerdict};
use crate::proof::keyed::{KeyedFacts, SourceState, TableState};

type Change<T> = fn(&mut T);

/// A table that was written to between frame and snapshot: two slices, of which the first lost two rows of the frame's
/// and has newer ones.
fn busy() -> World {
    let mut world = World::new(&[rows(0..10), rows(10..20)]);
    world.here(0).outcome = digested(rows(0..8));
    world.here(0).newer_rows = Some(4);
    world.after().updated += 500;
    world.after().deleted += 500;
    world.after().inserted += 500;
    world
}

/// Adds a table that was created after the frame was planned.
fn add_unframed(world: &mut World, digests: &[Digest]) {
    let mut table = facts("created", 2000);
    table.name = name("created");
    world.examination.plan.tables.push(table);
    world.examination.plan.framed.push(None);
    let mut read = result(2, 1, digests);
    read.visibility = Visibility { snapshot: "777:777:".to_owned(), below_xmin_only: false };
    let slices = read.slices.iter().map(|slice| slice.slice).collect();
    world.examination.plan.units.push(Unit { id: 2, database: "shop".to_owned(), slices });
    world.examination.plan.frame_units.push(None);
    world.examination.units.push(read);
}

/// What the first proof of this world leaves behind. It could ask the source.
fn first(world: &World) -> EarlierRestore {
    let mut world = world.clone();
    if world.frame.plan.state.is_none() {
        world.narrow(0, followed());
    }
    let report = world.judge().unwrap();
    assert_eq!(report.judgement.verdict, Verdict::Proven, "{:?}", report.findings);
    assert_eq!(report.judgement.earlier, None);
    kept(&world, &report)
}

fn kept(world: &World, report: &Report) -> EarlierRestore {
    EarlierRestore {
        verdict: report.judgement.verdict,
        tables: report.tables.clone(),
        plan: world.examination.plan.clone(),
        units: world.examination.units.clone(),
        catalogue: world.examination.catalogue.clone(),
    }
}

/// The same snapshot, restored again.
fn later(world: &World) -> World {
    let mut world = world.clone();
    world.examination.plan.operation_id = "proof-2".to_owned();
    world
}

fn judged(world: &World, then: &EarlierRestore) -> Report {
    world.judge_beside(&[], Earlier::Restored(then)).unwrap()
}

fn of<'r>(report: &'r Report, table: &str) -> &'r TableJudgement {
    report.tables.iter().find(|judged| judged.name == name(table)).unwrap()
}

fn warns(report: &Report) -> Vec<&str> {
    let all = report.findings.iter();
    all.filter(|found| found.kind == FindingKind::EarlierNotComparable).map(|found| &*found.message).collect()
}

#[test]
fn an_equal_restore_has_the_verdict_and_the_coverage_that_the_first_proof_reached() {
    let world = busy();
    let then = first(&world);
    let alone = later(&world).judge().unwrap();
    assert_eq!(of(&alone, "orders").reason, Reason::WithinCounters);
    assert_eq!(alone.judgement.coverage.proven_rows, 10);
    let report = judged(&later(&world), &then);
    assert_eq!(report.judgement.verdict, Verdict::Proven, "{:?}", report.findings);
    let table = of(&report, "orders");
    assert_eq!((table.reason, table.proven_rows), (Reason::RowsFollowed, 18));
    assert_eq!(table.earlier, Some(BesideEarlier::Equal));
    assert_eq!(report.judgement.coverage.proven_rows, 18);
    let earlier = report.judgement.earlier.as_ref().unwrap();
    assert_eq!((earlier.operation_id.as_deref(), &earlier.not_comparable), (Some("proof-1"), &None));
    assert_eq!((earlier.equal.tables, earlier.equal.rows), (1, 22));
    assert_eq!((earlier.different.tables, earlier.unknown.tables), (0, 0));
    assert!(report.judgement.headline.ends_with("1 of 1 tables are equal to the restore of proof-1"));
}

#[test]
fn what_the_counters_would_explain_is_damage_beside_an_equal_restore() {
    let cases: [(&str, Change<World>); 7] = [
        ("one row fewer", |world| world.here(0).outcome = digested(rows(0..7))),
        ("a zeroed page", |world| world.here(0).outcome = digested(rows(0..2))),
        ("an empty slice", |world| world.here(1).outcome = digested(Digest::EMPTY)),
        ("one newer row fewer", |world| world.here(0).newer_rows = Some(3)),
        ("one newer row more", |world| world.here(1).newer_rows = Some(1)),
        ("a row that had gone is back", |world| world.here(0).outcome = digested(rows(0..9))),
        ("another row is gone", |world| world.here(0).outcome = digested(rows(1..9))),
    ];
    let world = busy();
    let then = first(&world);
    for (case, damage) in cases {
        let mut world = later(&world);
        damage(&mut world);
        let alone = world.judge().unwrap();
        if case != "another row is gone" {
            assert_eq!(
                alone.judgement.verdict,
                Verdict::Proven,
                "{case} was not seen without the first proof"
            );
        }
        let report = judged(&world, &then);
        assert_eq!(report.judgement.verdict, Verdict::Unproven, "{case}");
        let table = of(&report, "orders");
        assert_eq!(
            (table.verdict, table.reason),
            (TableVerdict::Different, Reason::ContentDiffers),
            "{case}"
        );
        assert_eq!(table.blocks.len(), 1, "{case}: {:?}", table.blocks);
        let found = &report.findings[0];
        assert_eq!(
            (found.kind, &*found.subject),
            (FindingKind::TableDifferent, "shop.public.orders"),
            "{case}"
        );
        assert!(found.message.contains("proof-1"), "{case}: {}", found.message);
        assert_eq!(report.judgement.earlier.as_ref().unwrap().different.tables, 1, "{case}");
    }
}

#[test]
fn a_table_that_is_unreadable_now_says_so() {
    let world = busy();
    let then = first(&world);
    let mut world = later(&world);
    world.here(1).outcome = broken();
    let report = judged(&world, &then);
    assert_eq!(of(&report, "orders").reason, Reason::UnreadableHere);
    assert_eq!(report.judgement.verdict, Verdict::Unproven);
}

#[test]
fn tables_that_only_one_of_two_restores_has_are_damage() {
    let mut with = busy();
    add_unframed(&mut with, &[rows(50..60), rows(60..70)]);
    let without = busy();
    for (then, now, reason) in
        [(&with, &without, Reason::TableMissing), (&without, &with, Reason::ContentDiffers)]
    {
        let report = judged(&later(now), &first(then));
        assert_eq!(report.judgement.verdict, Verdict::Unproven, "{reason:?}");
        assert_eq!(of(&report, "created").reason, reason);
        assert_eq!(report.findings[0].subject, "shop.public.created");
    }
    // One of the frame's, which the first restore had: that the source dropped it later explains nothing.
    let mut dropped = busy();
    absent(&mut dropped, false);
    assert_eq!(dropped.judge().unwrap().judgement.verdict, Verdict::Proven);
    let mut then = busy();
    absent(&mut then, false);
    then.examination.plan.tables.push(facts("items", 1001));
    then.examination.plan.framed.push(Some(1));
    then.examination.plan.units.push(then.frame.plan.units[1].clone());
    then.examination.plan.frame_units.push(Some(2));
    then.examination.units.push(then.frame.units[1].clone());
    let report = judged(&later(&dropped), &first(&then));
    let table = of(&report, "items");
    assert_eq!((table.reason, table.framed_rows), (Reason::TableMissing, Some(5)));
    assert_eq!(table.earlier, Some(BesideEarlier::Missing { rows: 5 }));
    // Neither restore has it: it had been dropped before the snapshot.
    let report = judged(&later(&dropped), &first(&dropped));
    assert_eq!(
        (report.judgement.verdict, of(&report, "items").reason),
        (Verdict::Proven, Reason::DroppedSince)
    );
}

#[test]
fn a_table_that_the_frame_does_not_know_is_compared_however_it_was_cut() {
    let mut world = busy();
    add_unframed(&mut world, &[rows(50..60), rows(60..70)]);
    let then = first(&world);
    let equal = later(&world);
    let mut cut_otherwise = busy();
    add_unframed(&mut cut_otherwise, &[rows(50..55), rows(55..60), rows(60..70)]);
    let mut read_at_another_moment = equal.clone();
    read_at_another_moment.examination.units[1].visibility = Visibility::below_xmin_of("900:900:");
    for world in [&equal, &later(&cut_otherwise), &read_at_another_moment] {
        let report = judged(world, &then);
        assert_eq!(report.judgement.verdict, Verdict::Proven, "{:?}", report.findings);
        assert_eq!(of(&report, "created").earlier, Some(BesideEarlier::Equal));
        assert_eq!(of(&report, "created").reason, Reason::CreatedSince);
    }
    cut_otherwise.examination.units[1].slices[2].outcome = digested(rows(60..69));
    for mut damaged in [equal, later(&cut_otherwise)] {
        damaged.examination.units[1].slices[0].outcome = digested(rows(50..54));
        assert_eq!(damaged.judge().unwrap().judgement.verdict, Verdict::Proven);
        let report = judged(&damaged, &then);
        assert_eq!(
            (report.judgement.verdict, of(&report, "created").reason),
            (Verdict::Unproven, Reason::ContentDiffers)
        );
    }
}

#[test]
fn a_catalogue_sequence_or_beat_that_is_another_is_damage() {
    let cases: [(&str, Change<World>); 7] = [
        ("shop (constraints)", |world| {
            class(&mut world.examination.catalogue.schema, "constraints", "other");
            // The source's DDL would explain it.
            class(&mut world.observation.as_mut().unwrap().schema, "constraints", "third");
        }),
        ("archive", |world| {
            world.examination.catalogue.schema.insert("archive".to_owned(), SchemaFingerprint::new());
        }),
        ("shop.public.orders_id_seq", |world| {
            world.examination.catalogue.sequences[0].last_value = Some(40);
        }),
        ("shop.public.orders_id_seq", |world| world.examination.catalogue.sequences.clear()),
        ("lifeboat.heartbeat", |world| {
            world.examination.catalogue.heartbeat.as_mut().unwrap().beat += 1;
        }),
        ("invalid indexes", |world| world.examination.catalogue.invalid_indexes.push("a".to_owned())),
        ("the server", |world| {
            world.examination.plan.server.system_identifier = Some("8".to_owned());
            world.frame.plan.server.system_identifier = None;
        }),
    ];
    let mut world = busy();
    sequences(&mut world, (Some(20), Some(19)), (Some(30), Some(29)), (Some(50), Some(49)));
    let then = first(&world);
    assert_eq!(judged(&later(&world), &then).judgement.verdict, Verdict::Proven);
    for (subject, damage) in cases {
        let mut world = later(&world);
        damage(&mut world);
        assert_eq!(world.judge().unwrap().judgement.verdict, Verdict::Proven, "{subject}");
        let report = judged(&world, &then);
        assert_eq!(report.judgement.verdict, Verdict::Unproven, "{subject}");
        let found = &report.findings[0];
        assert_eq!((found.kind, &*found.subject), (FindingKind::RestoreDiffers, subject));
    }
}

#[test]
fn what_differs_between_restores_by_itself_is_no_damage() {
    let cases: [(&str, Change<World>); 5] = [
        ("a vacuum that cut off empty blocks", |world| {
            world.examination.plan.tables[0].blocks = 11;
            world.examination.plan.tables[0].bytes = 90_112;
        }),
        ("another library of collations", |world| {
            world.examination.catalogue.collation_drift.push("de_DE".to_owned());
        }),
        ("a commit of the server's own", |world| {
            world.examination.catalogue.newest_known_moment = Some(at(64));
        }),
        ("another clock", |world| world.examination.plan.server.clock = at(9_999)),
        ("a small update", |world| {
            world.examination.plan.server.version = 170_012;
            class(&mut world.examination.catalogue.schema, "extensions", "1.2");
            class(&mut world.observation.as_mut().unwrap().schema, "extensions", "1.2");
        }),
    ];
    let world = busy();
    let then = first(&world);
    for (case, change) in cases {
        let mut world = later(&world);
        change(&mut world);
        let report = judged(&world, &then);
        assert_eq!(report.judgement.verdict, Verdict::Proven, "{case}: {:?}", report.findings);
        assert_eq!(of(&report, "orders").earlier, Some(BesideEarlier::Equal), "{case}");
        assert_eq!(warns(&report).len(), usize::from(case == "a small update"), "{case}: never in silence");
    }
}

#[test]
fn what_cannot_be_compared_is_said_and_judged_as_if_there_were_no_first_proof() {
    let world = busy();
    let then = first(&world);
    let alone = later(&world).judge().unwrap();
    let cases: [(&str, Change<EarlierRestore>); 6] = [
        ("another version of Lifeboat", |then| then.plan.format = 0),
        ("version was 160004", |then| then.plan.server.version = 160_004),
        ("another frame", |then| then.plan.frame_operation_id = None),
        ("did not find the snapshot proven", |then| then.verdict = Verdict::Unproven),
        ("have holes", |then| then.units.clear()),
        ("have holes", |then| drop(then.units[0].slices.pop())),
    ];
    let check = |report: &Report, reason: &str| {
        let earlier = report.judgement.earlier.as_ref().unwrap();
        assert!(earlier.not_comparable.as_ref().is_some_and(|said| said.contains(reason)), "{earlier:?}");
        assert_eq!((earlier.equal.tables, earlier.unknown.tables), (0, 1), "{reason}");
        let [warning] = warns(report)[..] else { panic!("{reason}: {:?}", report.findings) };
        assert!(warning.contains(reason), "{warning}");
        assert!(report.judgement.headline.contains("not compared"), "{}", report.judgement.headline);
        assert_eq!(report.tables, alone.tables, "{reason}");
        assert_eq!(report.judgement.coverage, alone.judgement.coverage, "{reason}");
    };
    for (reason, change) in cases {
        let mut then = then.clone();
        change(&mut then);
        check(&judged(&later(&world), &then), reason);
    }
    for operation_id in [None, Some("proof-1")] {
        let report = later(&world).judge_beside(&[], Earlier::Missing { operation_id }).unwrap();
        assert_eq!(report.judgement.earlier.as_ref().unwrap().operation_id.as_deref(), operation_id);
        check(&report, "not there any more");
    }
}

#[test]
fn a_table_that_cannot_be_compared_is_counted_and_said() {
    let world = busy();
    let then = first(&world);
    let mut other_columns = later(&world);
    other_columns.examination.plan.tables[0].columns = vec![ColumnFacts { number: 1, type_oid: 20 }];
    let mut unlogged = world.clone();
    unlogged.examination.plan.tables[0].persistence = Persistence::Unlogged;
    let then_unlogged = kept(&unlogged, &unlogged.judge().unwrap());
    for (world, then) in [(&other_columns, &then), (&later(&unlogged), &then_unlogged)] {
        let report = judged(world, then);
        let table = of(&report, "orders");
        assert!(matches!(table.earlier, Some(BesideEarlier::NotComparable { .. })), "{table:?}");
        assert_eq!(report.judgement.earlier.as_ref().unwrap().unknown.tables, 1);
        assert_eq!(warns(&report).len(), 1, "{:?}", report.findings);
    }
    // Structure is compared with the structure that it had.
    let mut redefined = later(&world);
    redefined.examination.plan.tables[0].structure = "s2".to_owned();
    redefined.after().structure = "s2".to_owned();
    let report = judged(&redefined, &then);
    assert_eq!(of(&report, "orders").reason, Reason::ContentDiffers);
}

/// A table that is cut by keys and was written to before and after the snapshot: `betweenFrames`.
fn keyed_world(here: &[Digest]) -> (World, Vec<UnitResult>) {
    let before: Vec<Digest> = here.iter().enumerate().map(|(at, _)| rows([at as u64 + 900])).collect();
    let mut world = World::new(&before);
    let mut table = facts("orders", 0);
    table.blocks = u32::try_from(here.len()).unwrap();
    table.keyed = Some(KeyedFacts {
        engine: "InnoDB".to_owned(),
        transactional: true,
        versioned: false,
        columns: Vec::new(),
        key: Vec::new(),
        bounds: (1..here.len()).map(|bound| vec![bound.to_string()]).collect(),
    });
    let state = |second: i64| SourceState {
        taken_at: at(second),
        started: 7,
        written: None,
        statements: BTreeMap::new(),
        tables: vec![TableState {
            name: table.name.clone(),
            structure: table.structure.clone(),
            created: None,
            updated: None,
            written: None,
        }],
    };
    world.frame.plan.activity.clear();
    world.frame.plan.state = Some(state(0));
    world.frame.plan.tables = vec![table.clone()];
    world.examination.plan.tables = vec![table.clone()];
    world.examination.units = vec![result(1, 0, here)];
    for slice in &mut world.examination.units[0].slices {
        slice.newer_rows = None;
    }
    let observation = world.observation.as_mut().unwrap();
    observation.activity.clear();
    observation.state = Some(state(70));
    let after: Vec<Digest> = here.iter().enumerate().map(|(at, _)| rows([at as u64 + 800])).collect();
    (world, vec![result(1, 0, &after)])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_difference_between_two_restores_is_damage_and_none_is_none(
        slices in prop::collection::vec((0u64..12, 0u64..5), 1..6),
        unframed in prop::collection::vec(0u64..12, 1..4),
        which in any::<prop::sample::Index>(),
        lost in prop::option::of(any::<prop::sample::Index>()),
        newer in prop::option::of(-2i64..=2),
        flip in prop::option::of(1u64..),
        late in any::<bool>(),
        pending in any::<bool>(),
    ) {
        let framed: Vec<Digest> = (0..slices.len() as u64).map(|at| rows(at * 100..at * 100 + 20)).collect();
        let mut world = World::new(&framed);
        for (at, (kept, young)) in slices.iter().enumerate() {
            world.here(at).outcome = digested(rows(at as u64 * 100..at as u64 * 100 + kept));
            world.here(at).newer_rows = Some(*young);
        }
        let activity = world.after();
        (activity.inserted, activity.updated, activity.deleted) = (9_000, 9_000, 9_000);
        world.observation.as_mut().unwrap().pending_counters = pending;
        let created: Vec<Digest> = unframed.iter().enumerate().map(|(at, rows_there)| {
            let first = 5_000 + at as u64 * 100;
            rows(first..first + rows_there)
        }).collect();
        add_unframed(&mut world, &created);
        let then = first(&world);
        let again = judged(&later(&world), &then);
        prop_assert_eq!(again.judgement.verdict, Verdict::Proven, "{:?}", again.findings);
        prop_assert_eq!(&again.judgement.coverage.by_verdict, &kept_coverage(&then));
        prop_assert_eq!(again.judgement.earlier.as_ref().unwrap().equal.tables, 2);

        let mut damaged = later(&world);
        let (unit, table) = if late { (1, "created") } else { (0, "orders") };
        let slices = &mut damaged.examination.units[unit].slices;
        let slice = which.index(slices.len());
        let was = slices[slice].clone();
        let SliceOutcome::Digested(mut digest) = was.outcome.clone() else { unreachable!() };
        if let Some(lost) = lost && digest.rows > 0 {
            digest.rows -= 1 + lost.index(usize::try_from(digest.rows).unwrap()) as u64;
        }
        digest.s0 ^= flip.unwrap_or(0);
        slices[slice].outcome = digested(digest);
        slices[slice].newer_rows = was.newer_rows.map(|n| n.saturating_add_signed(newer.unwrap_or(0)));
        let changed = slices[slice] != was;
        let report = judged(&damaged, &then);
        let expected = if changed { Verdict::Unproven } else { Verdict::Proven };
        prop_assert_eq!(report.judgement.verdict, expected, "{:?}", report.findings);
        if changed {
            prop_assert_eq!(of(&report, table).reason, Reason::ContentDiffers);
            prop_assert_eq!(report.judgement.error_count, 1);
        }
    }

    #[test]
    fn a_keyed_restore_has_to_be_equal_where_the_source_says_nothing(
        rows_there in prop::collection::vec(1u64..12, 1..5),
        which in any::<prop::sample::Index>(),
        flip in 0u64..3,
        fewer in 0u64..2,
    ) {
        let here: Vec<Digest> = rows_there.iter().enumerate().map(|(at, n)| {
            rows(at as u64 * 100..at as u64 * 100 + n)
        }).collect();
        let (world, again) = keyed_world(&here);
        let report = world.judge_with(&again).unwrap();
        prop_assert_eq!(of(&report, "orders").reason, Reason::BetweenFrames);
        let then = kept(&world, &report);
        let mut damaged = later(&world);
        let slice = damaged.here(which.index(here.len()));
        let SliceOutcome::Digested(mut digest) = slice.outcome.clone() else { unreachable!() };
        digest.s1 ^= flip;
        digest.rows -= fewer;
        slice.outcome = digested(digest);
        prop_assert_eq!(damaged.judge_with(&again).unwrap().judgement.verdict, Verdict::Proven);
        let report = damaged.judge_beside(&again, Earlier::Restored(&then)).unwrap();
        let expected = if flip == 0 && fewer == 0 { Verdict::Proven } else { Verdict::Unproven };
        prop_assert_eq!(report.judgement.verdict, expected, "{:?}", report.findings);
    }
}

fn kept_coverage(then: &EarlierRestore) -> BTreeMap<TableVerdict, Amount> {
    coverage(&then.tables).by_verdict
}
