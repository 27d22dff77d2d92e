#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::fixtures::{at, region};

const SNAPSHOT: Schedule = Schedule { least: 5, most: 120, timeout: SignedDuration::from_hours(24) };
const RESTORE: Schedule = Schedule { least: 5, most: 60, timeout: SignedDuration::from_hours(4) };
/// Of 200 GiB.
const COPY: Schedule = Schedule { least: 10, most: 300, timeout: SignedDuration::from_hours(24) };

/// Wait, report, look, choose.
const TRANSITIONS_A_LOOK: i64 = 4;

fn step(kind: StepKind, size_gb: i32) -> Step {
    Step {
        kind,
        region: region("us-east-1"),
        database: Some(DatabaseId::parse("orders").unwrap()),
        engine: "postgres".into(),
        size_gb,
    }
}

/// An item with these durations, oldest first.
fn item(seconds: &[u32]) -> Durations {
    let mut members = serde_json::Map::new();
    for (index, seconds) in seconds.iter().enumerate() {
        let operation = format!("backup-000000000000000{index}");
        let day = index + 1;
        members.insert(
            slot(&OperationId::parse(operation.clone()).unwrap()).to_owned(),
            json!({"operation": operation, "at": format!("2026-01-0{day}T00:00:00Z"), "seconds": seconds}),
        );
    }
    serde_json::from_value(members.into()).unwrap()
}

fn of(seconds: &[u32]) -> Option<Earlier> {
    let step = step(StepKind::Snapshot, 200);
    earlier(&step, Some(&item(seconds)), None, at("2026-01-10T00:00:00Z"))
}

fn pause(age: i64, percent: i32, seconds: &[u32]) -> u32 {
    next_look(SNAPSHOT, SignedDuration::from_secs(age), percent, of(seconds).as_ref()).seconds
}

#[test]
fn without_a_history_the_pause_is_an_eighth_of_the_age_within_bounds() {
    for (age, expected) in [(0, 5), (40, 5), (80, 10), (960, 120), (5_000, 120)] {
        assert_eq!(pause(age, 0, &[]), expected, "{age}");
        assert_eq!(pause(age, 50, &[]), expected, "{age}");
    }
    assert_eq!(next_look(SNAPSHOT, SignedDuration::ZERO, 0, None).why, None);
}

#[test]
fn looks_are_few_before_the_expected_end_close_around_it_and_apart_again_when_it_is_overdue() {
    let history = [330, 340, 350];
    for (age, expected) in [
        // The shortest took 330 s, and the looking begins 21 s before: 309 s in three parts.
        (0, 103),
        (103, 103),
        (206, 103),
        (309, 21),
        (330, 21),
        (350, 21),
        // Overdue.
        (434, 21),
        (550, 50),
        (750, 93),
        (2_000, 120),
    ] {
        assert_eq!(pause(age, 0, &history), expected, "{age}");
    }
}

#[test]
fn what_rds_says_of_its_progress_moves_the_expectation() {
    // Half done after 60 s: two minutes in all, and not the 400 of before.
    assert_eq!(pause(60, 50, &[400]), 35);
    // Not before the others took, because the percentage stands still as a rule.
    assert_eq!(pause(60, 2, &[400]), 105);
    // A tenth after 800 s: it will be long.
    assert_eq!(pause(800, 0, &[400]), 100);
    assert_eq!(pause(440, 0, &[400]), 25);
    assert_eq!(pause(440, 10, &[400]), 55);
}

#[test]
fn a_pause_does_not_put_off_giving_up() {
    let schedule = Schedule { timeout: SignedDuration::from_secs(600), ..SNAPSHOT };
    let pause = |age| next_look(schedule, SignedDuration::from_secs(age), 0, of(&[5_000]).as_ref()).seconds;
    assert_eq!((pause(480), pause(550), pause(599)), (117, 51, 5));
}

#[test]
fn the_same_database_counts_first_and_then_those_alike() {
    let step = step(StepKind::Copy, 200);
    let now = at("2026-01-10T00:00:00Z");
    let (own, alike) = (item(&[100]), item(&[20, 30, 40]));
    let say = |own: Option<&Durations>, alike: Option<&Durations>, now| {
        earlier(&step, own, alike, now).map(|earlier| (earlier.expected_seconds, earlier.of))
    };
    assert_eq!(say(Some(&own), Some(&alike), now), Some((100, "1 earlier copy of orders".into())));
    let of_alike = "3 earlier copies of postgres databases of 128 to 255 GiB".to_owned();
    assert_eq!(say(None, Some(&alike), now), Some((30, of_alike.clone())));
    assert_eq!(say(Some(&Durations::default()), Some(&alike), now), Some((30, of_alike)));
    assert_eq!(say(None, None, now), None);
    // What is older than four months says nothing, and neither does what lies in the future.
    assert_eq!(say(Some(&own), None, now + STALE), None);
    assert_eq!(say(Some(&own), None, at("2025-12-31T00:00:00Z")), None);
}

#[test]
fn only_the_newest_five_count() {
    let earlier = of(&[9_000, 9_000, 9_000, 10, 20, 30, 40, 50]).unwrap();
    assert_eq!((earlier.least_seconds, earlier.expected_seconds, earlier.most_seconds), (10, 30, 50));
    assert_eq!(earlier.of, "5 earlier snapshots of orders");
}

#[test]
fn an_operators_reason_names_the_expectation_and_where_it_comes_from() {
    let told = next_look(SNAPSHOT, SignedDuration::ZERO, 0, of(&[330, 340]).as_ref()).why;
    assert_eq!(told.unwrap(), "expected 340 s from 2 earlier snapshots of orders");
}

#[test]
fn keys_keep_steps_regions_engines_and_sizes_apart() {
    let step = step(StepKind::Copy, 200);
    assert_eq!(step.own_key().unwrap(), "durations#copy@us-east-1#postgres#orders");
    assert_eq!(step.alike_key().unwrap(), "durations#copy@us-east-1#postgres#128GiB");
    for (size, class) in [(0, 1), (1, 1), (127, 64), (128, 128), (255, 128), (256, 256), (65_536, 65_536)] {
        let key = Step { size_gb: size, ..step.clone() }.alike_key().unwrap();
        assert!(key.ends_with(&format!("#{class}GiB")), "{size}: {key}");
    }
    assert_eq!(Step { database: None, ..step.clone() }.own_key(), None);
    let odd = Step { engine: "postgres#1".into(), ..step };
    assert_eq!((odd.own_key(), odd.alike_key()), (None, None));
}

#[test]
fn an_operations_sample_has_one_slot_of_its_own() {
    let slot_of = |id: &str| slot(&OperationId::parse(id).unwrap());
    assert_eq!(slot_of("backup-0123456789abcdef"), slot_of("backup-0123456789abcdef"));
    let all: std::collections::BTreeSet<_> =
        (0..16).map(|digit| slot_of(&format!("backup-000000000000000{digit:x}"))).collect();
    assert_eq!(all.len(), SLOTS);
}

/// How a step of so many seconds is seen to end: looks, and seconds from its end until a look.
fn watch(schedule: Schedule, takes: i64, earlier: Option<&Earlier>) -> (i64, i64) {
    // The first look does not know the history yet.
    let (mut age, mut looks) = (schedule.least.min(5), 1);
    while age < takes {
        age += i64::from(next_look(schedule, SignedDuration::from_secs(age), 0, earlier).seconds);
        looks += 1;
    }
    (looks, age - takes)
}

/// A run of backups whose step takes around `typical` seconds, give or take `spread` per cent: looks and seconds lost
/// in the fixed schedule, and in the one that learns from what was seen before. The first backup is left out, because
/// both are the same for it.
fn run(schedule: Schedule, typical: i64, spread: i64) -> [(i64, i64); 2] {
    const BACKUPS: i64 = 60;
    let (mut fixed, mut learning) = ((0, 0), (0, 0));
    let mut seen: Vec<u32> = Vec::new();
    let mut random: i64 = 12_345;
    for backup in 0..=BACKUPS {
        random = (random * 1_103_515_245 + 12_345) % (1 << 31);
        let takes = (typical * (100 - spread + random / 65_536 % (2 * spread + 1)) / 100).max(1);
        let newest = &seen[seen.len().saturating_sub(NEWEST)..];
        let known = of(newest);
        let (looks, lost) = watch(schedule, takes, known.as_ref());
        seen.push(u32::try_from(takes + lost).unwrap());
        if backup > 0 {
            let (fixed_looks, fixed_lost) = watch(schedule, takes, None);
            fixed = (fixed.0 + fixed_looks, fixed.1 + fixed_lost);
            learning = (learning.0 + looks, learning.1 + lost);
        }
    }
    [fixed, learning].map(|(looks, lost)| (looks * TRANSITIONS_A_LOOK / BACKUPS, lost / BACKUPS))
}

#[test]
fn a_history_saves_most_transitions_and_is_no_slower_to_see_the_end() {
    // Typical seconds, per cent of variation; transitions and seconds lost in the fixed schedule, and with a history. The
    // figures are those of docs/adr/0006.
    let cases = [
        ("snapshot of 20 GiB, little changed", SNAPSHOT, (90, 15), [(62, 5), (18, 2)]),
        ("snapshot of 200 GiB", SNAPSHOT, (340, 15), [(108, 18), (25, 11)]),
        ("snapshot of 2 TiB", SNAPSHOT, (3_600, 15), [(231, 65), (125, 68)]),
        ("restore of 20 GiB", RESTORE, (420, 10), [(115, 22), (38, 11)]),
        ("restore of 2 TiB", RESTORE, (1_500, 20), [(190, 35), (108, 26)]),
        ("copy of 200 GiB", COPY, (1_800, 15), [(143, 120), (36, 62)]),
        ("copy of 200 GiB, of unsteady speed", COPY, (1_800, 60), [(145, 110), (40, 97)]),
        ("a full copy of a cluster", COPY, (14_400, 15), [(310, 166), (197, 152)]),
    ];
    let mut sums = [0, 0];
    for (what, schedule, (typical, spread), expected) in cases {
        let seen = run(schedule, typical, spread);
        assert_eq!(seen, expected, "{what}");
        let [(fixed, fixed_lost), (learning, lost)] = seen;
        assert!(learning * 3 <= fixed * 2, "{what}: {learning} of {fixed} transitions");
        assert!(lost <= fixed_lost + 3, "{what}: {lost} s lost instead of {fixed_lost}");
        sums = [sums[0] + fixed, sums[1] + learning];
    }
    assert!(sums[1] * 2 <= sums[0], "{sums:?}");
}

#[test]
fn a_step_that_ends_much_earlier_than_all_before_is_seen_within_the_longest_pause() {
    for takes in [1, 30, 90, 200, 1_000] {
        let (_, lost) = watch(SNAPSHOT, takes, of(&[3_600, 3_700]).as_ref());
        assert!(lost <= SNAPSHOT.most, "{takes}: {lost}");
    }
}

proptest! {
    #[test]
    fn no_pause_leaves_the_bounds_whatever_the_history(
        age in -10_i64..200_000, percent in -5..110_i32, mut seconds in proptest::collection::vec(0_u32.., 0..8)
    ) {
        seconds.truncate(8);
        let history = of(&seconds);
        let pause = i64::from(next_look(SNAPSHOT, SignedDuration::from_secs(age), percent, history.as_ref()).seconds);
        prop_assert!((SNAPSHOT.least..=SNAPSHOT.most).contains(&pause), "{pause}");
    }
}
