#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;

use super::*;
use crate::fixtures::{at, operation, region, snapshot};

fn numbered(n: u32) -> SnapshotFacts {
    let mut facts = snapshot("available");
    facts.id = SnapshotId::parse(format!("orders-{n}")).unwrap();
    facts.arn = format!("arn:aws:rds:us-east-1:000000000000:snapshot:orders-{n}");
    facts
}

fn copy(n: u32, proven_in: &str) -> SnapshotFacts {
    let mut facts = numbered(n);
    facts.region = region("us-west-2");
    facts.source_arn = Some(facts.arn.clone());
    facts.original_created_at = Some(at("2026-01-02T03:00:00Z") + SignedDuration::from_mins(i64::from(n)));
    facts.tags = labels::mark(Role::Copy, &operation(), Some("orders"));
    facts.tags.insert(labels::PROOF.into(), "proven".into());
    facts.tags.insert(labels::PROVEN_IN.into(), proven_in.into());
    facts
}

fn choose(selector: &RecoverySelector, seed: &str, all: &[SnapshotFacts]) -> Result<Option<Chosen>> {
    let aim = Aim { selector, seed, now: at("2026-02-01T00:00:00Z") };
    let mut search = Search::default();
    for facts in all {
        search.look(&aim, facts);
    }
    assert_eq!(search.seen, all.len() as u64);
    search.finish(&aim)
}

fn random() -> RecoverySelector {
    RecoverySelector::Random(Random::default())
}

fn id(chosen: Result<Option<Chosen>>) -> Option<String> {
    chosen.unwrap().map(|chosen| chosen.snapshot_id.to_string())
}

#[test]
fn the_same_seed_chooses_the_same_snapshot_in_whatever_order_they_come() {
    let mut all: Vec<_> = (0..50).map(numbered).collect();
    let first = choose(&random(), "seed", &all).unwrap().unwrap();
    all.reverse();
    assert_eq!(choose(&random(), "seed", &all).unwrap().unwrap(), first);
    assert_eq!(first.owner, Some(operation()));
    // Taking another one away changes nothing, and taking this one away chooses another.
    all.retain(|facts| facts.id != first.snapshot_id);
    let second = choose(&random(), "seed", &all).unwrap().unwrap();
    assert_ne!(second.snapshot_id, first.snapshot_id);
}

#[test]
fn every_snapshot_is_chosen_about_as_often() {
    let all: Vec<_> = (0..10).map(numbered).collect();
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for seed in 0..2_000 {
        *counts.entry(id(choose(&random(), &seed.to_string(), &all)).unwrap()).or_default() += 1;
    }
    // 200 each; the standard deviation is 13.4.
    assert_eq!(counts.len(), 10);
    assert!(counts.values().all(|count| (140..=260).contains(count)), "{counts:?}");
}

#[test]
fn only_a_proven_snapshot_of_ours_that_is_old_enough_can_be_chosen_at_random() {
    type Change = fn(&mut SnapshotFacts);
    let old = RecoverySelector::Random(Random { older_than_days: 7, ..Random::default() });
    let other = RecoverySelector::Random(Random {
        database: Some(DatabaseId::parse("invoices").unwrap()),
        ..Random::default()
    });
    let any = random();
    let taken = |days: i64| at("2026-02-01T00:00:00Z") - SignedDuration::from_hours(24 * days);
    let cases: [(&RecoverySelector, Change, bool); 11] = [
        (&any, |_| {}, true),
        (&any, |facts| facts.status = "creating".into(), false),
        (&any, |facts| facts.tags.clear(), false),
        (&any, |facts| drop(facts.tags.insert(labels::PROOF.into(), "pending".into())), false),
        (&any, |facts| drop(facts.tags.insert(labels::PROOF.into(), "unproven".into())), false),
        (&any, |facts| drop(facts.tags.insert(labels::ROLE.into(), "temporary".into())), false),
        (&any, |facts| drop(facts.tags.insert(labels::ROLE.into(), "copy".into())), true),
        (&other, |_| {}, false),
        (&other, |facts| facts.database = "invoices".into(), true),
        (&old, |_| {}, true),
        (&old, |facts| facts.original_created_at = None, true),
    ];
    for (selector, change, eligible) in cases {
        let mut facts = numbered(1);
        change(&mut facts);
        let chosen = choose(selector, "s", &[facts.clone()]);
        assert_eq!(chosen.is_ok_and(|chosen| chosen.is_some()), eligible, "{selector:?} {facts:?}");
    }
    for (days, eligible) in [(6, false), (7, true), (8, true)] {
        let mut facts = numbered(1);
        facts.original_created_at = Some(taken(days));
        assert_eq!(choose(&old, "s", &[facts]).unwrap().is_some(), eligible, "{days}");
    }
    // Nobody knows how old a copy is that does not say so: its own creation time is not its data's.
    let mut unknown = copy(1, "us-west-2");
    unknown.original_created_at = None;
    assert_eq!(choose(&old, "s", &[unknown]).unwrap(), None);
}

#[test]
fn nothing_to_recover_from_is_an_error_and_nothing_that_is_due_is_none() {
    let old = RecoverySelector::Random(Random { older_than_days: 3_650, ..Random::default() });
    let mut unproven = numbered(1);
    unproven.tags.insert(labels::PROOF.into(), "unproven".into());
    assert_eq!(choose(&old, "s", &[numbered(1), unproven.clone()]).unwrap(), None);
    for all in [vec![], vec![unproven]] {
        assert_eq!(choose(&old, "s", &all).unwrap_err().name(), ErrorName::RecoveryPointMissing);
    }
}

#[test]
fn the_newest_copy_that_was_not_proven_in_its_own_region_is_next() {
    let selector = RecoverySelector::UnprovenCopy(UnprovenCopy::default());
    let proven = copy(9, "us-west-2");
    let mut damaged = copy(8, "us-west-2");
    damaged.tags.insert(labels::PROOF.into(), "unproven".into());
    // An older version of Lifeboat did not say where.
    let mut unsaid = copy(3, "");
    unsaid.tags.remove(labels::PROVEN_IN);
    let all = [copy(1, "us-east-1"), unsaid, proven.clone(), copy(2, "us-east-1"), damaged, numbered(20)];
    assert_eq!(id(choose(&selector, "s", &all)), Some("orders-3".into()));
    assert_eq!(id(choose(&selector, "s", &[proven])), None, "all are proven: nothing to do");
    let none = choose(&selector, "s", &[numbered(1)]).unwrap_err();
    assert_eq!(none.name(), ErrorName::RecoveryPointMissing, "there is no copy at all");
}

#[test]
fn a_search_that_is_taken_up_again_ends_as_if_it_had_not_been_interrupted() {
    let all: Vec<_> = (0..40).map(numbered).collect();
    let selector = random();
    let aim = Aim { selector: &selector, seed: "seed", now: at("2026-02-01T00:00:00Z") };
    let (mut whole, mut first) = (Search::default(), Search::default());
    let look = |search: &mut Search, some: &[SnapshotFacts]| {
        for facts in some {
            search.look(&aim, facts);
        }
    };
    look(&mut whole, &all);
    look(&mut first, &all[..17]);
    let text = serde_json::to_string(&first).unwrap();
    assert!(text.len() < 1_000);
    let mut second: Search = serde_json::from_str(&text).unwrap();
    look(&mut second, &all[17..]);
    assert_eq!(second, whole);
}

#[test]
fn bounds_are_checked() {
    for (random, good) in [
        (Random { older_than_days: 3_650, ..Random::default() }, true),
        (Random { older_than_days: 3_651, ..Random::default() }, false),
        (Random { seed: Some("x".repeat(64)), ..Random::default() }, true),
        (Random { seed: Some("x".repeat(65)), ..Random::default() }, false),
        (Random { seed: Some(String::new()), ..Random::default() }, false),
    ] {
        assert_eq!(RecoverySelector::Random(random.clone()).check().is_ok(), good, "{random:?}");
    }
}
