#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::fixtures::{at, database, region};
use crate::ids::KmsKeyId;
use crate::labels;
use crate::observed::{DatabaseFacts, DatabaseKind};
use crate::request::Tag;

fn run_id() -> OperationId {
    OperationId::parse("fleet-0123456789abcdef").unwrap()
}

fn installation() -> Installation {
    Installation {
        region: region("us-east-1"),
        account: "123456789012".into(),
        target_regions: vec![region("us-west-2")],
        target_keys: BTreeMap::from([(region("us-west-2"), KmsKeyId::parse("alias/backup").unwrap())]),
    }
}

fn plan(request: Value) -> Result<FleetPlan> {
    let request: FleetRequest = crate::input::parse("the request", request)?;
    plan_run(&run_id(), &request, &installation(), at("2026-01-02T03:04:05Z"))
}

#[test]
fn a_run_is_planned_with_a_request_that_every_backup_gets() {
    let request = json!({
        "fleet": "production", "selector": {"tag": {"key": "tier", "value": "production"}},
        "tolerated": {"percent": 5}, "backup": {"lifecycle": {"deleteAfterDays": 7}}
    });
    let plan = plan(request).unwrap();
    assert_eq!((plan.run, plan.max_concurrency), (run_id(), 10));
    assert_eq!(plan.backup.lifecycle.delete_after_days, Some(7));
    assert!(plan.backup.cross_region_backup, "as in a backup request that does not say");
}

#[test]
fn bad_requests_are_refused_by_name_before_any_backup_is() {
    use ErrorName as E;
    let named = |name: &str| json!({"fleet": name, "databases": ["a"]});
    for (request, name) in [
        (json!({}), E::InvalidInput),
        (json!({"fleet": "f"}), E::InvalidInput),
        (json!({"fleet": "f", "databases": []}), E::InvalidInput),
        (json!({"fleet": "f", "databases": ["a", "a"]}), E::InvalidInput),
        (
            json!({"fleet": "f", "databases": ["a"], "selector": {"tag": {"key": "k", "value": "v"}}}),
            E::InvalidInput,
        ),
        (json!({"fleet": "f", "databases": ["a"], "maxConcurrency": 0}), E::InvalidInput),
        (json!({"fleet": "f", "databases": ["a"], "maxConcurrency": 201}), E::InvalidInput),
        (json!({"fleet": "f", "databases": ["a"], "tolerated": {"percent": 101}}), E::InvalidInput),
        (json!({"fleet": "f", "databases": ["a"], "tolerated": {"per cent": 1}}), E::InvalidInput),
        (json!({"fleet": "f", "databases": ["a"], "backup": {"database": "b"}}), E::InvalidInput),
        (
            json!({"fleet": "f", "databases": ["a"], "backup": {"targetRegions": ["sa-east-1"]}}),
            E::RegionUnknown,
        ),
        (json!({"fleet": "f", "databases": ["a"], "resume": "backup-0123456789abcdef"}), E::InvalidInput),
        (
            json!({"fleet": "f", "databases": (0..1001).map(|n| format!("a{n}")).collect::<Vec<_>>()}),
            E::InvalidInput,
        ),
        (named(""), E::InvalidInput),
        (named("Production"), E::InvalidInput),
        (named("1st"), E::InvalidInput),
        (named(&"a".repeat(41)), E::InvalidInput),
    ] {
        assert_eq!(plan(request.clone()).unwrap_err().name(), name, "{request}");
    }
    assert!(plan(named(&"a".repeat(40))).is_ok());
}

#[test]
fn the_larger_of_count_and_percent_is_tolerated() {
    for (percent, count, total, tolerated) in [
        (0, 0, 200, 0),
        (5, 0, 200, 10),
        (5, 0, 19, 0),
        (5, 0, 20, 1),
        (5, 3, 20, 3),
        (100, 0, 7, 7),
        (0, 9, 7, 9),
        (50, 0, 0, 0),
    ] {
        assert_eq!(Tolerance { percent, count }.of(total), tolerated, "{percent} %, {count}, of {total}");
    }
}

fn tagged(id: &str, change: fn(&mut DatabaseFacts)) -> DatabaseFacts {
    let mut facts = database(id, "available");
    facts.tags.insert("tier".into(), "production".into());
    change(&mut facts);
    facts
}

fn by_tag() -> Coverage {
    let tag = Tag { key: "tier".into(), value: "production".into() };
    Coverage { databases: None, selector: Some(Selector { tag }) }
}

fn by_name(names: &[&str]) -> Coverage {
    let databases = names.iter().map(|name| DatabaseId::parse(*name).unwrap()).collect();
    Coverage { databases: Some(databases), selector: None }
}

#[test]
fn what_must_not_or_cannot_be_backed_up_is_left_out_with_its_reason() {
    type Change = fn(&mut DatabaseFacts);
    let not_available = |status: &str| Some(SkipReason::NotAvailable { status: status.into() });
    let cases: [(Change, Option<SkipReason>); 12] = [
        (|_| {}, None),
        (|facts| facts.status = "backing-up".into(), None),
        (|facts| facts.status = "something-new".into(), None),
        (|facts| facts.status = "stopped".into(), not_available("stopped")),
        (|facts| facts.status = "creating".into(), not_available("creating")),
        (|facts| facts.status = "incompatible-network".into(), not_available("incompatible-network")),
        (|facts| facts.cluster = Some("c".into()), Some(SkipReason::ClusterMember { cluster: "c".into() })),
        (|facts| facts.replica_of = Some("other".into()), Some(SkipReason::ReadReplica)),
        (
            |facts| facts.engine = "oracle-ee".into(),
            Some(SkipReason::EngineUnsupported { engine: "oracle-ee".into() }),
        ),
        (
            |facts| {
                facts.tags.insert(labels::ROLE.into(), "temporary".into());
            },
            Some(SkipReason::Temporary),
        ),
        // A name says nothing: only the tag does.
        (|facts| facts.id = DatabaseId::parse("lifeboat-tmp-1").unwrap(), None),
        // A temporary restore that is being deleted is a temporary restore.
        (
            |facts| {
                facts.tags.insert(labels::ROLE.into(), "temporary".into());
                facts.status = "deleting".into();
            },
            Some(SkipReason::Temporary),
        ),
    ];
    for (change, expected) in cases {
        let facts = tagged("orders", change);
        assert_eq!(skip_reason(&facts), expected, "{facts:?}");
    }
}

fn names(roll: &Roll) -> (Vec<&str>, Vec<&str>) {
    (
        roll.members.iter().map(|member| member.database.as_str()).collect(),
        roll.skipped.iter().map(|skipped| skipped.database.as_str()).collect(),
    )
}

#[test]
fn the_roll_is_in_the_order_of_names_whatever_order_rds_tells_them_in() {
    let found = || {
        [
            tagged("b", |_| {}),
            database("not-ours", "available"),
            tagged("a", |_| {}),
            tagged("c", |f| {
                f.replica_of = Some("a".into());
            }),
        ]
    };
    let roll = call_roll(&by_tag(), &run_id(), found()).unwrap();
    assert_eq!(names(&roll), (vec!["a", "b"], vec!["c"]));
    let mut turned = found();
    turned.reverse();
    assert_eq!(call_roll(&by_tag(), &run_id(), turned).unwrap(), roll);
}

#[test]
fn clusters_stand_beside_instances_and_their_members_are_never_backed_up_by_themselves() {
    let shop = |change: fn(&mut DatabaseFacts)| {
        let mut facts = crate::fixtures::cluster("shop", "available");
        facts.tags.insert("tier".into(), "production".into());
        change(&mut facts);
        facts
    };
    let member = || tagged("shop-1", |facts| facts.cluster = Some("shop".into()));
    let roll = call_roll(&by_tag(), &run_id(), [tagged("a", |_| {}), member(), shop(|_| {})]).unwrap();
    assert_eq!(names(&roll), (vec!["a", "shop"], vec!["shop-1"]));
    let kinds: Vec<_> = roll.members.iter().map(|member| member.database_kind).collect();
    assert_eq!(kinds, [DatabaseKind::Instance, DatabaseKind::Cluster]);
    assert!(!roll.skipped[0].reason.needs_attention());
    // The tag is on the member alone: nothing backs that database up, and a person is told which name to use.
    let untagged = || shop(|facts| facts.tags.clear());
    for coverage in [by_tag(), by_name(&["a", "shop-1"])] {
        let roll = call_roll(&coverage, &run_id(), [untagged(), tagged("a", |_| {}), member()]).unwrap();
        assert_eq!(names(&roll), (vec!["a"], vec!["shop-1"]));
        assert_eq!(roll.skipped[0].reason, SkipReason::ClusterNotCovered { cluster: "shop".into() });
        assert!(roll.skipped[0].reason.needs_attention());
    }
    let by_name = call_roll(&by_name(&["shop", "shop-1"]), &run_id(), [untagged(), member()]).unwrap();
    assert_eq!(names(&by_name), (vec!["shop"], vec!["shop-1"]));
    // A member may have its cluster's name; a database of its own that has it is another matter.
    let of_one_name = tagged("shop", |facts| facts.cluster = Some("shop".into()));
    let roll = call_roll(&by_tag(), &run_id(), [of_one_name, shop(|_| {})]).unwrap();
    assert_eq!(names(&roll), (vec!["shop"], vec![]));
    let twins = [tagged("a", |_| {}), tagged("shop", |_| {}), shop(|_| {})];
    let roll = call_roll(&by_tag(), &run_id(), twins).unwrap();
    assert_eq!((names(&roll), &roll.skipped[0].reason), ((vec!["a"], vec!["shop"]), &SkipReason::Ambiguous));
    // What is no engine of ours (DescribeDBClusters lists DocumentDB's and Neptune's too), and what is stopped.
    for (facts, attention) in [
        (shop(|facts| facts.engine = "docdb".into()), true),
        (shop(|facts| facts.status = "stopped".into()), true),
        (shop(|facts| facts.replica_of = Some("arn:other".into())), false),
    ] {
        let roll = call_roll(&by_tag(), &run_id(), [tagged("a", |_| {}), facts]).unwrap();
        assert_eq!(names(&roll), (vec!["a"], vec!["shop"]));
        assert_eq!(roll.skipped[0].reason.needs_attention(), attention);
    }
}

#[test]
fn a_listed_database_that_is_not_there_is_told() {
    let roll =
        call_roll(&by_name(&["a", "gone"]), &run_id(), [tagged("a", |_| {}), tagged("b", |_| {})]).unwrap();
    assert_eq!(names(&roll), (vec!["a"], vec!["gone"]));
    assert_eq!(roll.skipped[0].reason, SkipReason::Missing);
    assert!(roll.skipped[0].reason.needs_attention());
}

#[test]
fn a_fleet_that_covers_nothing_is_an_error() {
    for found in
        [vec![], vec![database("a", "available")], vec![tagged("a", |f| f.status = "stopped".into())]]
    {
        assert_eq!(call_roll(&by_tag(), &run_id(), found).unwrap_err().name(), ErrorName::FleetEmpty);
    }
}

#[test]
fn executions_are_named_by_run_and_database_within_the_limit_of_step_functions() {
    let long = format!("{}{}", "a-".repeat(31), "a");
    let found =
        || [tagged("orders", |_| {}), tagged(&long, |_| {}), tagged(&format!("{}b", &long[..62]), |_| {})];
    let roll = call_roll(&by_tag(), &run_id(), found()).unwrap();
    let names: BTreeSet<&str> = roll.members.iter().map(|member| member.execution.as_str()).collect();
    assert_eq!(names.len(), 3);
    for name in &names {
        assert!(name.len() <= 67 && name.starts_with("0123456789abcdef-"), "{name}");
        assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'), "{name}");
    }
    assert!(names.iter().any(|name| name.starts_with("0123456789abcdef-orders-")));
    let other = OperationId::parse("fleet-ffffffffffffffff").unwrap();
    let others = call_roll(&by_tag(), &other, found()).unwrap();
    assert!(others.members.iter().all(|member| !names.contains(member.execution.as_str())));
}

fn a_run(tolerated: Tolerance) -> Run {
    Run {
        operation_id: run_id(),
        fleet: "production".into(),
        tolerated,
        started_at: at("2026-01-02T03:00:00Z"),
        now: at("2026-01-02T04:00:00Z"),
        report_key: "operations/fleet-0123456789abcdef/summary.json".into(),
    }
}

fn roll(names: &[&str], skipped: &[(&str, SkipReason)]) -> Roll {
    Roll {
        members: names
            .iter()
            .map(|name| Member {
                database: DatabaseId::parse(*name).unwrap(),
                database_kind: DatabaseKind::Instance,
                execution: (*name).to_owned(),
            })
            .collect(),
        skipped: skipped
            .iter()
            .map(|(name, reason)| Skipped {
                database: DatabaseId::parse(*name).unwrap(),
                reason: reason.clone(),
            })
            .collect(),
    }
}

fn told(told: Value) -> Told {
    serde_json::from_value(told).unwrap()
}

fn well(database: &str, seconds: i64) -> Told {
    let ended = at("2026-01-02T03:00:00Z") + jiff::SignedDuration::from_secs(seconds);
    told(
        json!({"database": database, "status": "succeeded", "startedAt": "2026-01-02T03:00:00Z", "endedAt": ended,
        "operationId": "backup-0123456789abcdef", "snapshotId": "s", "level": "content"}),
    )
}

fn badly(database: &str, error: &str, cause: &Value) -> Told {
    told(json!({"database": database, "status": "failed", "error": error, "cause": cause.to_string()}))
}

/// As a child execution's failure arrives.
fn child(error: &str) -> Value {
    json!({"Error": error, "Cause": "looking at it. Do something.", "Status": "FAILED"})
}

#[test]
fn a_run_is_as_loud_as_what_came_of_it() {
    use RunOutcome::{Complete, Exceeded, Incomplete};
    use Severity::{Critical, Info, Warning};
    let failed = || badly("b", "States.TaskFailed", &child("Dr.SnapshotFailed"));
    let partial = || badly("b", "States.TaskFailed", &child("Dr.ReplicationIncomplete"));
    let refused = || badly("b", "States.TaskFailed", &child("Dr.OperationInProgress"));
    let one = Tolerance { percent: 0, count: 1 };
    let none = Tolerance::default();
    let replica = [("r", SkipReason::ReadReplica)];
    let gone = [("r", SkipReason::Missing)];
    for (second, skipped, tolerated, outcome, severity) in [
        (Some(well("b", 1)), &[][..], none, Complete, Info),
        (Some(well("b", 1)), &replica[..], none, Complete, Info),
        (Some(well("b", 1)), &gone[..], none, Complete, Warning),
        (Some(refused()), &[][..], none, Complete, Warning),
        (Some(failed()), &[][..], none, Exceeded, Critical),
        (Some(failed()), &[][..], one, Incomplete, Warning),
        (Some(partial()), &[][..], none, Exceeded, Critical),
        (Some(partial()), &[][..], one, Incomplete, Warning),
        // Nothing is known of it.
        (None, &[][..], none, Exceeded, Critical),
        (None, &[][..], one, Incomplete, Warning),
    ] {
        let case = format!("{second:?} {skipped:?} {tolerated:?}");
        let all = [Some(well("a", 1)), second].into_iter().flatten();
        let report = sum_up(&a_run(tolerated), roll(&["a", "b"], skipped), all);
        assert_eq!((report.summary.outcome, report.summary.severity), (outcome, severity), "{case}");
        assert_eq!(report.databases.len(), 2, "{case}");
    }
}

#[test]
fn a_summary_counts_names_and_ranks() {
    let roll =
        roll(&["a", "b", "c", "d", "e", "f"], &[("r", SkipReason::ReadReplica), ("s", SkipReason::Missing)]);
    let mut earlier = well("d", 9_999);
    earlier.earlier = true;
    let all = [
        well("a", 10),
        well("b", 30),
        well("c", 20),
        earlier,
        badly("e", "States.TaskFailed", &child("Dr.SnapshotFailed")),
        well("stranger", 5),
    ];
    let summary = sum_up(&a_run(Tolerance::default()), roll, all).summary;
    assert_eq!(
        (summary.total, summary.succeeded, summary.earlier, summary.failed, summary.skipped, summary.seconds),
        (6, 3, 1, 2, 2, 3_600)
    );
    let by_error: Vec<_> = summary.by_error.iter().map(|(name, count)| (*name, *count)).collect();
    assert_eq!(by_error.len(), 2);
    assert!(by_error.contains(&(ErrorName::SnapshotFailed, 1)));
    assert!(by_error.contains(&(ErrorName::BackupOutcomeUnknown, 1)));
    let slowest: Vec<_> = summary.slowest.iter().map(|slow| (slow.database.as_str(), slow.seconds)).collect();
    assert_eq!(slowest, [("b", 30), ("c", 20), ("a", 10)]);
    assert_eq!(summary.failures.iter().map(|f| f.database.as_str()).collect::<Vec<_>>(), ["e", "f"]);
    assert_eq!(summary.attention.len(), 1);
    assert_eq!(
        summary.headline,
        "4 of 6 databases of the fleet production are backed up; 2 failed (0 tolerated), 0 were refused, 2 left out"
    );
}

#[test]
fn of_a_database_that_is_told_of_twice_the_better_counts() {
    let twice = || [badly("a", "States.Timeout", &json!("")), well("a", 1)];
    let mut turned = twice();
    turned.reverse();
    for told in [twice(), turned] {
        let report = sum_up(&a_run(Tolerance::default()), roll(&["a"], &[]), told);
        assert_eq!(report.databases[0].outcome, Outcome::Succeeded);
    }
}

#[test]
fn a_summary_of_thousands_stays_small_enough_for_a_state() {
    let names: Vec<String> =
        (0..5_000).map(|n| format!("database-{n:04}-with-a-name-as-long-as-they-come")).collect();
    let references: Vec<&str> = names.iter().map(String::as_str).collect();
    let cause = json!({"Error": "Dr.SnapshotFailed", "Cause": "x".repeat(30_000)});
    let all = names.iter().map(|name| badly(name, "States.TaskFailed", &cause));
    let skipped: Vec<(&str, SkipReason)> = Vec::new();
    let report = sum_up(&a_run(Tolerance::default()), roll(&references, &skipped), all);
    let size = serde_json::to_string(&report.summary).unwrap().len();
    assert!(size < 20_000, "{size} bytes");
    assert_eq!(report.summary.failed, 5_000);
}
