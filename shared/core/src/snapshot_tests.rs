#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
use super::*;
use crate::fixtures::{at, database, operation, snapshot};
use crate::request::Tag;

fn selector() -> Selector {
    Selector { tag: Tag { key: "dr".into(), value: "yes".into() } }
}

fn order() -> SnapshotOrder {
    SnapshotOrder {
        operation: operation(),
        database: DatabaseId::parse("orders").unwrap(),
        id: SnapshotId::parse("orders-1").unwrap(),
        tags: Tags::from([("team".into(), "data".into()), ("aws:x".into(), "1".into())]),
        expires_at: Some(at("2026-02-02T00:00:00Z")),
    }
}

fn somebody_elses() -> SnapshotFacts {
    let mut facts = snapshot("available");
    facts.tags.insert(labels::OPERATION_ID.into(), "backup-ffffffffffffffff".into());
    facts
}

#[test]
fn a_selector_must_mean_exactly_one_database() {
    assert_eq!(pick(&selector(), vec![database("a", "available")]).unwrap().id.as_str(), "a");
    assert_eq!(pick(&selector(), vec![]).unwrap_err().name(), ErrorName::DatabaseMissing);
    let many = (0..7).map(|n| database(&format!("db{n}"), "available")).collect();
    let error = pick(&selector(), many).unwrap_err();
    assert_eq!(error.name(), ErrorName::DatabaseAmbiguous);
    assert!(error.what().contains("7 have it (db0, db1, db2, db3, db4, …)"), "{error}");
}

#[test]
fn only_some_statuses_allow_a_snapshot() {
    for (status, ready) in [
        ("available", true),
        ("storage-optimization", true),
        ("backing-up", false),
        ("modifying", false),
        ("stopped", false),
        ("something-new", false),
    ] {
        let checked = check_source(&database("orders", status));
        match checked {
            Ok(()) => assert!(ready, "{status}"),
            Err(error) => {
                assert!(!ready, "{status}");
                assert_eq!(error.name(), ErrorName::DatabaseUnavailable);
                assert!(error.what().contains(status));
            }
        }
    }
    let mut member = database("orders", "available");
    member.cluster = Some("orders-cluster".into());
    let error = check_source(&member).unwrap_err();
    assert_eq!(error.name(), ErrorName::InvalidInput);
    let cluster = member.cluster.unwrap();
    assert!(error.remedy().contains(&cluster), "it says what to name instead: {error}");
    check_source(&crate::fixtures::cluster("shop", "available")).unwrap();
}

#[test]
fn a_new_snapshot_carries_our_tags_and_the_users() {
    let step = decide_creation(&order(), Observed::Missing, Observed::Found(database("orders", "available")));
    let Creation::Create { kind, tags } = step.unwrap() else { panic!("nothing is there to adopt") };
    assert_eq!(kind, DatabaseKind::Instance);
    let expected = [
        (labels::DATABASE, "orders"),
        (labels::EXPIRES_AT, "2026-02-02T00:00:00Z"),
        (labels::OPERATION_ID, "backup-0123456789abcdef"),
        (labels::PROOF, "pending"),
        (labels::ROLE, "backup"),
        ("team", "data"),
    ];
    assert_eq!(tags, expected.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
}

#[test]
fn a_repeated_call_adopts_its_own_snapshot_even_while_the_database_is_backing_up() {
    let source = || Observed::Found(database("orders", "backing-up"));
    let again = decide_creation(&order(), Observed::Found(snapshot("creating")), source()).unwrap();
    assert_eq!(again, Creation::Adopt(Box::new(snapshot("creating"))));
    let taken = decide_creation(&order(), Observed::Found(somebody_elses()), source()).unwrap_err();
    assert_eq!(taken.name(), ErrorName::SnapshotNotOurs);
}

#[test]
fn creation_names_what_is_in_its_way() {
    let unreachable = || DrError::new(ErrorName::AwsUnreachable, "looking");
    let found = || Observed::Found(database("orders", "available"));
    let mut illegal = order();
    illegal.tags.insert("lifeboat:proof".into(), "proven".into());
    let outcomes = [
        (decide_creation(&order(), Observed::Missing, Observed::Missing), ErrorName::DatabaseMissing),
        (
            decide_creation(&order(), Observed::Missing, Observed::Found(database("orders", "stopped"))),
            ErrorName::DatabaseUnavailable,
        ),
        (decide_creation(&order(), Observed::Unreachable(unreachable()), found()), ErrorName::AwsUnreachable),
        (
            decide_creation(&order(), Observed::Missing, Observed::Unreachable(unreachable())),
            ErrorName::AwsUnreachable,
        ),
        (decide_creation(&illegal, Observed::Missing, found()), ErrorName::InvalidInput),
    ];
    for (outcome, name) in outcomes {
        assert_eq!(outcome.unwrap_err().name(), name);
    }
}

#[test]
fn a_look_at_the_snapshot_means_one_thing_in_every_status() {
    let started = at("2026-01-02T03:00:00Z");
    let soon = at("2026-01-02T03:01:00Z");
    let last = started + TIMEOUT;
    let late = last + SignedDuration::from_secs(1);
    let id = order().id;
    for (status, now, expected) in [
        ("creating", soon, Ok(false)),
        ("pending", soon, Ok(false)),
        ("something-new", soon, Ok(false)),
        ("creating", last, Ok(false)),
        ("creating", late, Err(ErrorName::SnapshotTimeout)),
        ("available", late, Ok(true)),
        ("available", soon, Ok(true)),
        ("failed", soon, Err(ErrorName::SnapshotFailed)),
        ("deleting", soon, Err(ErrorName::SnapshotFailed)),
    ] {
        let seen = Observed::Found(snapshot(status));
        let outcome = decide_progress(&operation(), &id, seen, started, None, now);
        let outcome =
            outcome.map(|progress| matches!(progress, Progress::Done(_))).map_err(|error| error.name());
        assert_eq!(outcome, expected, "{status} at {now}");
    }
    for (seen, name) in [
        (Observed::Missing, ErrorName::SnapshotMissing),
        (Observed::Found(somebody_elses()), ErrorName::SnapshotNotOurs),
    ] {
        let error = decide_progress(&operation(), &id, seen, started, None, soon).unwrap_err();
        assert_eq!(error.name(), name);
    }
}

#[test]
fn pauses_grow_with_age_within_bounds() {
    let started = at("2026-01-02T03:00:00Z");
    for (age, pause) in [(-10, 5), (0, 5), (40, 5), (80, 10), (800, 100), (100_000, 120)] {
        assert_eq!(check_again_in(started, started + SignedDuration::from_secs(age), 5, 120), pause, "{age}");
    }
}

#[test]
fn the_verdict_is_written_on_our_snapshot_only() {
    let id = order().id;
    let label = |seen, report: Option<&str>| {
        let label = Label { report: report.map(str::to_owned), ..a_label(Verdict::Unproven, Level::Content) };
        decide_label(&operation(), &id, seen, &label)
    };
    let labelling = label(Observed::Found(snapshot("available")), Some("operations/x/report.json")).unwrap();
    assert_eq!(labelling.arn, snapshot("available").arn);
    assert_eq!(labelling.tags[labels::PROOF], "unproven");
    assert_eq!(labelling.tags[labels::REPORT], "operations/x/report.json");
    let tags = label(Observed::Found(snapshot("available")), None).unwrap().tags;
    assert_eq!(tags.keys().collect::<Vec<_>>(), [labels::PROOF, labels::PROOF_LEVEL, labels::PROVEN_IN]);
    for (seen, report, name) in [
        (Observed::Missing, None, ErrorName::SnapshotMissing),
        (Observed::Found(somebody_elses()), None, ErrorName::SnapshotNotOurs),
        (Observed::Found(snapshot("available")), Some("a*b"), ErrorName::InvalidInput),
    ] {
        assert_eq!(label(seen, report).unwrap_err().name(), name);
    }
}

fn a_label(verdict: Verdict, level: Level) -> Label {
    Label { verdict, level, judged_at: at("2026-01-02T05:00:00Z"), report: None }
}

#[test]
fn a_proof_is_written_unless_a_deeper_one_of_the_same_snapshot_is_known() {
    use Verdict::{Proven, Unproven};
    let (here, there) = ("us-east-1", "us-west-2");
    for (known, proven_in, verdict, level, written) in [
        (None, here, Proven, Level::Quick, true),
        (Some("quick"), here, Proven, Level::Quick, true),
        (Some("quick"), here, Proven, Level::Content, true),
        (Some("content"), here, Proven, Level::Content, true),
        (Some("content"), here, Proven, Level::Structure, false),
        (Some("structure"), here, Proven, Level::Quick, false),
        // What a copy carries from its original does not speak of the copy.
        (Some("content"), there, Proven, Level::Structure, true),
        // Damage is always written.
        (Some("content"), here, Unproven, Level::Quick, true),
        (Some("something new"), here, Proven, Level::Quick, true),
    ] {
        let mut seen = snapshot("available");
        seen.tags.insert(labels::PROVEN_IN.to_owned(), proven_in.to_owned());
        if let Some(known) = known {
            seen.tags.insert(labels::PROOF_LEVEL.to_owned(), known.to_owned());
        }
        let id = seen.id.clone();
        let labelling =
            decide_label(&operation(), &id, Observed::Found(seen), &a_label(verdict, level)).unwrap();
        let case = format!("{known:?} in {proven_in}, then {verdict:?} at {level:?}");
        assert_eq!(!labelling.tags.is_empty(), written, "{case}");
        if written {
            assert_eq!(labelling.tags[labels::PROOF_LEVEL], level.as_str(), "{case}");
            assert_eq!(labelling.tags[labels::PROVEN_IN], here, "{case}");
            let proven_at = labelling.tags.get(labels::PROVEN_AT).map(String::as_str);
            assert_eq!(proven_at, (verdict == Proven).then_some("2026-01-02T05:00:00Z"), "{case}");
        }
    }
}

#[test]
fn a_copy_is_labelled_by_the_operation_that_it_came_from_and_by_no_other() {
    let mut copy = snapshot("available");
    copy.tags = labels::mark(Role::Copy, &operation(), Some("orders"));
    let id = copy.id.clone();
    let label = a_label(Verdict::Proven, Level::Content);
    let other = OperationId::parse("backup-ffffffffffffffff").unwrap();
    let refused = decide_label(&other, &id, Observed::Found(copy.clone()), &label).unwrap_err();
    assert_eq!(refused.name(), ErrorName::SnapshotNotOurs);
    assert_eq!(decide_label(&operation(), &id, Observed::Found(copy), &label).unwrap().tags.len(), 4);
}
