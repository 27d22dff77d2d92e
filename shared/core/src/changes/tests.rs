#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;

use super::*;
use crate::ids::Region;

/// The table in memory: applies a change whole or not at all, as `TransactWriteItems` does.
#[derive(Default)]
struct Table(BTreeMap<String, Item>);

fn key(item: &Item) -> String {
    match item {
        Item::Operation(operation) => operation.operation_id.to_string(),
        Item::Lock(lock) => lock.operation_id.clone(),
        Item::Breaker(breaker) => breaker.operation_id.clone(),
        Item::Stop(stop) => stop.operation_id.clone(),
        Item::Health(health) => health.operation_id.clone(),
        Item::Journal(journal) => journal.operation_id.clone(),
        Item::Approval(pending) => pending.operation_id.clone(),
        Item::RegionBlock(block) => block.operation_id.clone(),
    }
}

fn version(item: &Item) -> u64 {
    match item {
        Item::Operation(operation) => operation.version,
        Item::Lock(lock) => lock.version,
        Item::Breaker(breaker) => breaker.version,
        Item::Stop(stop) => stop.version,
        Item::Health(health) => health.version,
        Item::Journal(journal) => journal.version,
        Item::Approval(pending) => pending.version,
        Item::RegionBlock(block) => block.version,
    }
}

impl Table {
    fn apply(&mut self, change: &Change) -> bool {
        let holds = |key: &str, expected: Expect| match (self.0.get(key), expected) {
            (None, Expect::Absent) => true,
            (Some(item), Expect::Version(expected)) => version(item) == expected,
            _ => false,
        };
        let all = change.writes.iter().all(|write| match write {
            Write::Put(item, expected) => holds(&key(item), *expected),
            Write::Delete(key, expected) | Write::Check(key, expected) => holds(key, *expected),
        });
        if all {
            for write in &change.writes {
                match write {
                    Write::Put(item, _) => drop(self.0.insert(key(item), item.clone())),
                    Write::Delete(key, _) => drop(self.0.remove(key)),
                    Write::Check(..) => {}
                }
            }
        }
        all
    }

    fn look(&self, id: &OperationId, kind: Kind, resource: &str, holder: HolderState) -> Observed {
        Observed {
            operation: self.0.get(id.as_str()).map(|item| match item {
                Item::Operation(operation) => (**operation).clone(),
                other => panic!("{other:?}"),
            }),
            lock: self.0.get(&Lock::key(resource)).map(|item| match item {
                Item::Lock(lock) => lock.clone(),
                other => panic!("{other:?}"),
            }),
            holder,
            breaker: self.0.get(&Breaker::key(kind)).map(|item| match item {
                Item::Breaker(breaker) => breaker.clone(),
                other => panic!("{other:?}"),
            }),
            stop: self.0.get(EmergencyStop::KEY).map(|item| match item {
                Item::Stop(stop) => stop.clone(),
                other => panic!("{other:?}"),
            }),
        }
    }

    fn backup(&self, beginning: &Beginning) -> Observed {
        self.look(&beginning.operation_id(), Kind::Backup, "orders", HolderState::Running)
    }
}

const SETTINGS: Settings = Settings {
    lease: SignedDuration::from_hours(12),
    breaker: BreakerSettings {
        failures: 2,
        window: SignedDuration::from_hours(1),
        reset: SignedDuration::from_mins(30),
    },
    retention: SignedDuration::from_hours(24),
};

fn installation() -> Installation {
    Installation {
        region: Region::parse("us-east-1").unwrap(),
        account: "123456789012".into(),
        target_regions: vec![],
        target_keys: BTreeMap::new(),
    }
}

fn at(minutes: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + minutes * 60).unwrap()
}

fn beginning(name: &str) -> Beginning {
    Beginning {
        kind: Kind::Backup,
        execution: ExecutionArn::parse(format!("arn:aws:states:us-east-1:1:execution:backup:{name}"))
            .unwrap(),
        started_at: at(0),
        request: json!({"database": "orders"}),
    }
}

fn start(table: &mut Table, name: &str, now: Timestamp) -> Result<Change> {
    let beginning = beginning(name);
    let change = begin(&beginning, &table.backup(&beginning), &installation(), &SETTINGS, now)?;
    assert!(table.apply(&change), "{change:?}");
    Ok(change)
}

#[test]
fn a_repeated_beginning_finds_its_own_operation() {
    let mut table = Table::default();
    let first = start(&mut table, "a", at(0)).unwrap();
    let second = start(&mut table, "a", at(1)).unwrap();
    assert_eq!(first.answer, second.answer);
    assert!(second.writes.is_empty());
    assert_eq!(first.answer["locked"], true);
}

#[test]
fn a_second_backup_of_the_same_database_is_refused_until_the_first_ends() {
    let mut table = Table::default();
    start(&mut table, "a", at(0)).unwrap();
    assert_eq!(start(&mut table, "b", at(1)).unwrap_err().name(), ErrorName::OperationInProgress);

    let a = beginning("a");
    let change = succeed(&a.operation_id(), &json!({}), &table.backup(&a), &SETTINGS, at(2)).unwrap();
    assert!(table.apply(&change));
    assert!(!table.0.contains_key(&Lock::key("orders")));
    start(&mut table, "b", at(3)).unwrap();
}

#[test]
fn two_beginnings_that_saw_the_same_table_cannot_both_win() {
    let mut table = Table::default();
    let (a, b) = (beginning("a"), beginning("b"));
    let first = begin(&a, &table.backup(&a), &installation(), &SETTINGS, at(0)).unwrap();
    let second = begin(&b, &table.backup(&b), &installation(), &SETTINGS, at(0)).unwrap();
    assert!(table.apply(&first));
    assert!(!table.apply(&second));
}

#[test]
fn a_stop_that_is_set_while_an_operation_begins_wins() {
    let mut table = Table::default();
    let a = beginning("a");
    let change = begin(&a, &table.backup(&a), &installation(), &SETTINGS, at(0)).unwrap();
    assert!(table.apply(&emergency_stop(true, "ada", "drill", None, at(0)).unwrap()));
    assert!(!table.apply(&change));
    assert_eq!(start(&mut table, "a", at(0)).unwrap_err().name(), ErrorName::EmergencyStopActive);

    let stop = table.backup(&a).stop.unwrap();
    assert!(table.apply(&emergency_stop(false, "ada", "drill over", Some(&stop), at(1)).unwrap()));
    start(&mut table, "a", at(2)).unwrap();
}

#[test]
fn a_failure_is_recorded_once_frees_the_database_and_counts_for_the_breaker() {
    let mut table = Table::default();
    let failure = Failure::new(ErrorName::AwsFault, "asking RDS", crate::Leftovers::Clear);
    for name in ["a", "b"] {
        start(&mut table, name, at(0)).unwrap();
        let this = beginning(name);
        let change = fail(&this, &failure, &table.backup(&this), &SETTINGS, at(5)).unwrap();
        assert!(table.apply(&change));
        assert_eq!(change.ended.as_ref().unwrap().duration, SignedDuration::from_mins(5));
        assert_eq!(change.ended.unwrap().breaker_open, name == "b");

        let other = Failure::new(ErrorName::Internal, "again", crate::Leftovers::Clear);
        let again = fail(&this, &other, &table.backup(&this), &SETTINGS, at(6)).unwrap();
        assert!(again.writes.is_empty());
        assert_eq!(again.answer["error"]["name"], "Dr.AwsFault");
    }
    assert_eq!(start(&mut table, "c", at(7)).unwrap_err().name(), ErrorName::CircuitBreakerOpen);
    start(&mut table, "d", at(35)).unwrap();
}

#[test]
fn a_refused_operation_leaves_a_record_but_not_a_lock() {
    let mut table = Table::default();
    for request in [json!({"database": ""}), json!({"database": "orders", "x": 1}), json!([]), json!(null)] {
        let bad = Beginning { request: request.clone(), ..beginning(&format!("bad{}", table.0.len())) };
        let refused = begin(&bad, &table.backup(&bad), &installation(), &SETTINGS, at(0)).unwrap_err();
        assert_eq!(refused.name(), ErrorName::InvalidInput);
        let failure = Failure::new(refused.name(), &refused.to_string(), crate::Leftovers::Clear);
        let change = fail(&bad, &failure, &table.backup(&bad), &SETTINGS, at(0)).unwrap();
        assert!(table.apply(&change));
        let recorded = table.backup(&bad).operation.unwrap();
        assert_eq!(recorded.status, Status::Failed);
        assert_eq!(recorded.request, request);
        assert_ne!(recorded.resource_id.as_deref(), Some(""));
    }
    assert!(!table.0.keys().any(|key| key.starts_with("lock#")));
}

#[test]
fn a_failed_operation_does_not_take_away_anothers_lock() {
    let mut table = Table::default();
    start(&mut table, "a", at(0)).unwrap();
    let b = beginning("b");
    let failure = Failure::new(ErrorName::OperationInProgress, "", crate::Leftovers::Clear);
    let change = fail(&b, &failure, &table.backup(&b), &SETTINGS, at(1)).unwrap();
    assert!(table.apply(&change));
    assert_eq!(table.backup(&b).lock.unwrap().owner, beginning("a").operation_id());
}

#[test]
fn an_operation_by_selector_is_locked_once_its_database_is_known() {
    let mut table = Table::default();
    let this = Beginning {
        request: json!({"selector": {"tag": {"key": "tier", "value": "gold"}}}),
        ..beginning("selector")
    };
    let change = begin(&this, &table.backup(&this), &installation(), &SETTINGS, at(0)).unwrap();
    assert!(table.apply(&change));
    assert_eq!((&change.answer["database"], &change.answer["locked"]), (&Value::Null, &json!(false)));

    let orders = DatabaseId::parse("orders").unwrap();
    for minute in [1, 2] {
        let change =
            lock(&this.operation_id(), &orders, &table.backup(&this), &SETTINGS, at(minute)).unwrap();
        assert!(table.apply(&change));
        assert_eq!((&change.answer["database"], &change.answer["locked"]), (&json!("orders"), &json!(true)));
    }
    let other = DatabaseId::parse("other").unwrap();
    let refused = lock(&this.operation_id(), &other, &table.backup(&this), &SETTINGS, at(3)).unwrap_err();
    assert_eq!(refused.name(), ErrorName::InvalidInput);
}

#[test]
fn progress_renews_the_lease_and_notices_a_lost_lock() {
    let mut table = Table::default();
    start(&mut table, "a", at(0)).unwrap();
    let a = beginning("a");
    let id = a.operation_id();
    let change =
        progress(&id, "FrameSource", &json!({"percent": 5}), &table.backup(&a), &SETTINGS, at(60)).unwrap();
    assert!(table.apply(&change));
    let lock = table.backup(&a).lock.unwrap();
    assert_eq!((lock.lease_until, lock.started_at), (at(60 + 12 * 60), at(0)));

    // Its lease ran out, and another backup took the lock over.
    start(&mut table, "b", at(60 + 12 * 60)).unwrap();
    let lost = progress(&id, "FrameSource", &Value::Null, &table.backup(&a), &SETTINGS, at(800)).unwrap_err();
    assert_eq!(lost.name(), ErrorName::OperationInProgress);
}

#[test]
fn a_missing_region_makes_the_operation_partial() {
    for (result, status, failed) in [
        (json!({}), "succeeded", json!([])),
        (json!({"copies": [{"region": "us-west-2", "status": "done"}]}), "succeeded", json!([])),
        (
            json!({"copies": [{"region": "us-west-2", "status": "done"}, {"region": "eu-west-1", "status": "failed"}]}),
            "partial",
            json!(["eu-west-1"]),
        ),
        (json!({"copies": [{}]}), "partial", json!(["unknown"])),
    ] {
        let mut table = Table::default();
        start(&mut table, "a", at(0)).unwrap();
        let a = beginning("a");
        for _ in 0..2 {
            let change = succeed(&a.operation_id(), &result, &table.backup(&a), &SETTINGS, at(1)).unwrap();
            assert!(table.apply(&change));
            assert_eq!(
                (&change.answer["status"], &change.answer["failedRegions"]),
                (&json!(status), &failed)
            );
        }
        let late = fail(
            &a,
            &Failure::new(ErrorName::Internal, "", crate::Leftovers::Clear),
            &table.backup(&a),
            &SETTINGS,
            at(2),
        );
        assert_eq!(late.unwrap_err().name(), ErrorName::IllegalTransition);
        assert_eq!(
            table.backup(&a).operation.unwrap().expires_at,
            Some((at(1) + SETTINGS.retention).as_second())
        );
    }
}

#[test]
fn records_that_would_not_fit_an_item_are_refused() {
    let mut table = Table::default();
    start(&mut table, "a", at(0)).unwrap();
    let a = beginning("a");
    let large = json!("x".repeat(LARGEST_RECORD + 1));
    let id = a.operation_id();
    let observed = table.backup(&a);
    assert_eq!(
        checkpoint(&id, "c", large.clone(), &observed, at(1)).unwrap_err().name(),
        ErrorName::InvalidInput
    );
    assert_eq!(
        succeed(&id, &large, &observed, &SETTINGS, at(1)).unwrap_err().name(),
        ErrorName::InvalidInput
    );
    assert!(checkpoint(&id, "c", json!({"ok": true}), &observed, at(1)).is_ok());
}

fn of_kind(kind: Kind, name: &str, request: Value) -> Beginning {
    Beginning { kind, request, ..beginning(name) }
}

#[test]
fn a_proof_by_selector_records_what_was_found_and_stays_with_it() {
    let mut table = Table::default();
    let beginning = of_kind(Kind::Proof, "one", json!({"selector": {"random": {"seed": "s"}}}));
    let id = beginning.operation_id();
    let look = |table: &Table| table.look(&id, Kind::Proof, "none", HolderState::Running);
    let begun = begin(&beginning, &look(&table), &installation(), &SETTINGS, at(0)).unwrap();
    assert_eq!(
        (&begun.answer["snapshotId"], &begun.answer["labelOperationId"]),
        (&Value::Null, &Value::Null)
    );
    assert!(table.apply(&begun));

    let owner = OperationId::parse("backup-0123456789abcdef").unwrap();
    let choice = |snapshot: &str| crate::recovery::Choice {
        chosen: crate::recovery::Chosen {
            snapshot_id: crate::ids::SnapshotId::parse(snapshot).unwrap(),
            snapshot_arn: format!("arn:aws:rds:us-east-1:1:snapshot:{snapshot}"),
            owner: Some(owner.clone()),
            copy: false,
            database_kind: crate::observed::DatabaseKind::Instance,
            database: "orders".into(),
            taken_at: None,
        },
        frame_operation_id: Some(owner.clone()),
        earlier_operation_id: Some(OperationId::parse("proof-fedcba9876543210").unwrap()),
        seed: "s".into(),
        seen: 9,
        eligible: 3,
    };
    for _ in 0..2 {
        let change = choose(&id, &choice("first"), &look(&table), at(1)).unwrap();
        assert_eq!(change.answer["snapshotId"], "first");
        assert_eq!(change.answer["frameOperationId"], owner.as_str());
        assert_eq!(change.answer["labelOperationId"], owner.as_str());
        assert_eq!(change.answer["earlierOperationId"], "proof-fedcba9876543210");
        assert_eq!(change.answer["database"], Value::Null, "its source is not asked");
        assert!(table.apply(&change));
    }
    let operation = look(&table).operation.unwrap();
    assert_eq!(operation.resource_id.as_deref(), Some("first"));
    assert_eq!(operation.checkpoints["chosen"]["seed"], "s");
    assert_eq!(operation.checkpoints["chosen"]["chosen"]["snapshotId"], "first");
    let other = choose(&id, &choice("second"), &look(&table), at(2)).unwrap_err();
    assert_eq!(other.name(), ErrorName::InvalidInput);
}

#[test]
fn one_run_of_a_fleet_goes_on_at_a_time_and_a_stopped_one_frees_it() {
    let mut table = Table::default();
    let run = |name| of_kind(Kind::Fleet, name, json!({"fleet": "production", "databases": ["a"]}));
    let look = |table: &Table, run: &Beginning, holder| {
        table.look(&run.operation_id(), Kind::Fleet, "fleet:production", holder)
    };
    assert_eq!(run("one").resource().as_deref(), Some("fleet:production"));
    let start = |table: &mut Table, name, holder, now| {
        let run = run(name);
        let change = begin(&run, &look(table, &run, holder), &installation(), &SETTINGS, now)?;
        assert!(table.apply(&change));
        Ok::<_, DrError>(change)
    };
    start(&mut table, "one", HolderState::Unknown, at(0)).unwrap();
    // The lease outlasts the longest run, so that a run which still goes on is never taken over from.
    let last = at(7 * 24 * 60);
    for holder in [HolderState::Running, HolderState::Unknown] {
        let refused = start(&mut table, "two", holder, last).unwrap_err();
        assert_eq!(refused.name(), ErrorName::OperationInProgress, "{holder:?}");
    }
    start(&mut table, "three", HolderState::Ended, at(1)).unwrap();
    let three = run("three");
    for (outcome, status) in [("incomplete", Status::Partial), ("complete", Status::Succeeded)] {
        let seen = look(&table, &three, HolderState::Running);
        let change =
            succeed(&three.operation_id(), &json!({"outcome": outcome}), &seen, &SETTINGS, at(2)).unwrap();
        assert_eq!(change.answer["status"], json!(status));
        assert_eq!(change.ended.unwrap().status, status);
    }
    let seen = look(&table, &three, HolderState::Running);
    let change =
        succeed(&three.operation_id(), &json!({"outcome": "complete"}), &seen, &SETTINGS, at(2)).unwrap();
    assert!(table.apply(&change));
    start(&mut table, "four", HolderState::Unknown, at(3)).unwrap();
}

#[test]
fn an_experiment_runs_once_at_a_time_and_its_ending_says_how_it_went() {
    let mut table = Table::default();
    let request = json!({
        "id": "failover", "name": "Failover", "type": "database", "severity": "low",
        "targetResources": {"rdsInstances": ["orders"]}, "parameters": {"duration": 60_000, "intensity": 100},
        "rollbackPlan": [{"action": "undo-faults"}]
    });
    let run = |name| of_kind(Kind::Chaos, name, request.clone());
    let look = |table: &Table, run: &Beginning, holder| {
        table.look(&run.operation_id(), Kind::Chaos, "experiment:failover", holder)
    };
    let one = run("one");
    assert_eq!(one.resource().as_deref(), Some("experiment:failover"));
    let begun =
        begin(&one, &look(&table, &one, HolderState::Unknown), &installation(), &SETTINGS, at(0)).unwrap();
    assert_eq!(begun.answer["experimentId"], "failover");
    assert!(table.apply(&begun));
    // Its approval may take a day, and its execution two: the lease outlasts both.
    let two = run("two");
    let seen = look(&table, &two, HolderState::Running);
    let refused = begin(&two, &seen, &installation(), &SETTINGS, at(3 * 24 * 60)).unwrap_err();
    assert_eq!(refused.name(), ErrorName::OperationInProgress);
    for (status, ended) in [
        ("completed", Status::Succeeded),
        ("deviated", Status::Partial),
        ("aborted", Status::Partial),
        ("rolled-back", Status::Partial),
    ] {
        let seen = look(&table, &one, HolderState::Running);
        let change =
            succeed(&one.operation_id(), &json!({"status": status}), &seen, &SETTINGS, at(2)).unwrap();
        assert_eq!(change.ended.unwrap().status, ended, "{status}");
    }
}
