//! Histories at random.

use proptest::prelude::*;

use super::*;

/// What the source does to its rows between frame and snapshot.
#[derive(Debug, Clone)]
enum Act {
    Update(usize),
    Delete(usize),
    Insert,
    VacuumFull,
    Truncate,
    AddColumn,
    Abort,
}

fn acts() -> impl Strategy<Value = Vec<(Act, bool)>> {
    let act = prop_oneof![
        6 => (0usize..40).prop_map(Act::Update),
        6 => (0usize..40).prop_map(Act::Delete),
        3 => Just(Act::Insert),
        1 => Just(Act::VacuumFull),
        1 => Just(Act::Truncate),
        1 => Just(Act::AddColumn),
        2 => Just(Act::Abort),
    ];
    // The flag: after the snapshot, so only the observation sees it.
    prop::collection::vec((act, prop::bool::weighted(0.3)), 0..25)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_history_of_the_source_is_ever_held_to_be_damage(
        acts in acts(),
        slices in 1usize..5,
        narrowing in 0u8..3,
        reset in prop::bool::weighted(0.1),
        observed_early in any::<bool>(),
    ) {
        // Rows: (value, slice, in the frame's filter).
        let mut live: Vec<(u64, usize, bool)> = (0..40usize).map(|value| (value as u64, value % slices, true)).collect();
        let digests = |live: &[(u64, usize, bool)], salt: u64| -> Vec<(Digest, u64)> {
            (0..slices).map(|slice| (
                rows(live.iter().filter(|row| row.1 == slice && row.2).map(|row| row.0 ^ (salt << 32))),
                live.iter().filter(|row| row.1 == slice && !row.2).count() as u64,
            )).collect()
        };
        let before: Vec<Digest> = digests(&live, 0).into_iter().map(|(digest, _)| digest).collect();
        let mut world = World::new(&before);
        let mut restore = None;
        let (mut salt, mut filenode, mut next) = (0u64, 1000u32, 1_000u64);
        let mut ordered = acts.clone();
        ordered.sort_by_key(|(_, late)| *late);
        for (act, late) in ordered {
            if late && restore.is_none() {
                restore = Some((digests(&live, salt), salt, filenode));
            }
            match act {
                Act::Update(row) if row < live.len() => {
                    live.remove(row);
                    next += 1;
                    live.push((next, row % slices, false));
                    world.after().updated += 1;
                }
                Act::Delete(row) if row < live.len() => {
                    live.remove(row);
                    world.after().deleted += 1;
                }
                Act::Insert => {
                    next += 1;
                    live.push((next, 0, false));
                    world.after().inserted += 1;
                }
                Act::VacuumFull => {
                    filenode += 1;
                    for (index, row) in live.iter_mut().enumerate() {
                        row.1 = (index / 3) % slices;
                    }
                }
                Act::Truncate => {
                    filenode += 1;
                    live.clear();
                }
                Act::AddColumn => salt += 1,
                Act::Abort => world.after().updated += 3,
                Act::Update(_) | Act::Delete(_) => {}
            }
        }
        let (here, salt_here, filenode_here) = restore.unwrap_or_else(|| (digests(&live, salt), salt, filenode));
        world.after().filenode = filenode;
        world.after().structure = format!("s{}", salt + 1);
        world.examination.plan.tables[0].filenode = filenode_here;
        world.examination.plan.tables[0].structure = format!("s{}", salt_here + 1);
        for (index, (digest, newer)) in here.iter().enumerate() {
            world.here(index).outcome = digested(*digest);
            world.here(index).newer_rows = Some(*newer);
            if *digest != before[index] {
                match narrowing {
                    0 => world.narrow(index, followed()),
                    1 => world.narrow(index, unavailable()),
                    _ => {}
                }
            }
        }
        if reset {
            world.observation.as_mut().unwrap().activity[0].stats_reset = Some("now".to_owned());
        }
        if observed_early {
            // Counters that were not handed in yet can be anything below.
            world.observation.as_mut().unwrap().pending_counters = true;
            world.after().updated = 10;
        }
        let report = world.judge().unwrap();
        prop_assert_eq!(report.judgement.verdict, Verdict::Proven, "{:?} {:?}", report.tables, report.findings);
        // Nor is it when the source is compared with itself.
        let compared = world.compare().unwrap();
        prop_assert!(compared.different.is_empty() && compared.faults.is_empty(), "{:?}", compared);
    }

    #[test]
    fn a_digest_that_changed_without_activity_is_always_damage(
        slices in 1usize..6,
        which in any::<prop::sample::Index>(),
        row_delta in -3i64..=3,
        flip in 1u64..,
        narrowed in any::<bool>(),
        inserted in 0u64..100,
    ) {
        let before: Vec<Digest> = (0..slices as u64).map(|slice| rows(slice * 10..slice * 10 + 10)).collect();
        let mut world = World::new(&before);
        let index = which.index(slices);
        let mut changed = before[index];
        changed.rows = changed.rows.checked_add_signed(row_delta).unwrap();
        changed.s1 ^= flip;
        world.here(index).outcome = digested(changed);
        if narrowed {
            world.narrow(index, found(&["1"]));
        }
        world.after().inserted += inserted;
        let report = world.judge().unwrap();
        prop_assert_eq!(report.judgement.verdict, Verdict::Unproven);
        let table = &report.tables[0];
        prop_assert_eq!(table.verdict, TableVerdict::Different);
        let slice = world.examination.units[0].slices[index].slice;
        prop_assert_eq!(&table.blocks, &vec![BlockRange { first: slice.first_block, end: slice.end_block }]);
    }

    #[test]
    fn a_change_of_content_is_damage_whatever_else_went_on(
        touched in 0u64..1000,
        flip in 1u64..,
        pending in any::<bool>(),
    ) {
        let mut world = World::new(&[rows(0..10), rows(10..20)]);
        let mut changed = rows(0..10);
        changed.s0 ^= flip;
        world.here(0).outcome = digested(changed);
        world.after().updated += touched;
        world.observation.as_mut().unwrap().pending_counters = pending;
        world.narrow(0, followed());
        prop_assert_eq!(world.judge().unwrap().judgement.verdict, Verdict::Unproven);
    }
}
