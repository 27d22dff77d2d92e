//! The function against a small AWS with state: what it calls, what it tells whom, and what it remembers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;

use dr_aws::testing::{Reply, Resource, Wire, World};
use dr_core::config::Vars;
use dr_core::{ErrorName, Result};
use health_check::{Check, Config, Handler, MOST_FINDINGS, MOST_RECOVERABLE};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

const HOME: &str = "us-east-1";
const WEST: &str = "us-west-2";
const WEST_KEY: &str = "arn:aws:kms:us-west-2:000000000000:key/1";
const GIB: f64 = 1_073_741_824.0;

fn now() -> Timestamp {
    "2026-01-10T12:00:00Z".parse().unwrap()
}

fn minutes(minutes: i64) -> SignedDuration {
    SignedDuration::from_mins(minutes)
}

fn config() -> Config {
    Config::read(Vars::new(|name| {
        let value = match name {
            "DR_STATE_TABLE_NAME" => "DisasterRecoveryState",
            "DR_METADATA_BUCKET" => "records",
            "DR_KMS_KEY_ID" => "arn:aws:kms:us-east-1:000000000000:key/1",
            "DR_TARGET_REGIONS" => WEST,
            "DR_TARGET_KMS_KEY_IDS" => "us-west-2=alias/dr",
            "DR_CRITICAL_TOPIC_ARN" => "critical",
            "DR_WARNING_TOPIC_ARN" => "warning",
            "DR_INFO_TOPIC_ARN" => "info",
            _ => return None,
        };
        Some(value.to_owned())
    }))
    .unwrap()
}

fn at(region: &str, id: &str) -> (String, String) {
    (region.to_owned(), id.to_owned())
}

fn database(id: &str) -> Resource {
    let arn = format!("arn:aws:rds:{HOME}:000000000000:db:{id}");
    Resource::new(&[
        ("DBInstanceIdentifier", id),
        ("DBInstanceArn", &arn),
        ("DBInstanceStatus", "available"),
        ("Engine", "postgres"),
        ("AllocatedStorage", "100"),
        ("StorageEncrypted", "true"),
        ("CACertificateIdentifier", "rds-ca-rsa2048-g1"),
        ("InstanceCreateTime", "2025-01-01T00:00:00Z"),
        ("BackupRetentionPeriod", "7"),
        ("DeletionProtection", "true"),
        ("PubliclyAccessible", "false"),
    ])
}

fn snapshot(database: &str, role: &str, taken_at: &str) -> Resource {
    let id = format!("{database}-{role}");
    let arn = format!("arn:aws:rds:{HOME}:000000000000:snapshot:{id}");
    let mut snapshot = Resource::new(&[
        ("DBSnapshotIdentifier", &id),
        ("DBSnapshotArn", &arn),
        ("DBInstanceIdentifier", database),
        ("Status", "available"),
        ("SnapshotType", "manual"),
        ("SnapshotCreateTime", "2026-01-10T11:59:00Z"),
        ("OriginalSnapshotCreateTime", taken_at),
        ("SourceDBSnapshotIdentifier", if role == "copy" { "arn:of:the:source" } else { "" }),
        ("KmsKeyId", if role == "copy" { WEST_KEY } else { "" }),
    ]);
    snapshot.tags = BTreeMap::from(
        [
            ("lifeboat:role", role),
            ("lifeboat:database", database),
            ("lifeboat:operation-id", "backup-0123456789abcdef"),
            ("lifeboat:proof", "proven"),
            ("lifeboat:proof-level", "content"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned())),
    );
    snapshot
}

fn add_database(world: &World, id: &str) {
    let mut state = world.state();
    state.databases.insert(at(HOME, id), database(id));
    state.snapshots.insert(at(HOME, &format!("{id}-backup")), snapshot(id, "backup", "2026-01-10T11:00:00Z"));
    state.snapshots.insert(at(WEST, &format!("{id}-copy")), snapshot(id, "copy", "2026-01-10T11:00:00Z"));
    state.metrics.insert([HOME, id, "FreeStorageSpace"].map(str::to_owned), 50.0 * GIB);
}

/// One database, a backup and a copy of an hour ago, all well.
fn world() -> World {
    let world = World::default();
    add_database(&world, "orders");
    let mut state = world.state();
    for region in [HOME, WEST] {
        state.certificates.insert(at(region, "rds-ca-rsa2048-g1"), "2061-05-21T00:00:00Z".into());
        state.quotas.insert(at(region, "ManualSnapshots"), (10, 100));
        state.keys.insert(format!("arn:aws:kms:{region}:000000000000:key/1"), "Enabled".into());
    }
    drop(state);
    world
}

async fn run(wire: &Wire, payload: Value, time: Timestamp) -> Result<Value> {
    let handler = Handler { clients: wire.clients().unwrap(), config: config() };
    let answer = Box::pin(handler.handle(Check::read(payload)?, time, "request-1")).await?;
    Ok(serde_json::to_value(answer).unwrap())
}

async fn check(world: &World, time: Timestamp) -> Value {
    run(&world.wire(), json!({"check": {}}), time).await.unwrap()
}

fn codes(answer: &Value) -> Vec<String> {
    let findings = answer["findings"].as_array().unwrap().iter();
    findings.map(|f| format!("{} {}", f["subject"].as_str().unwrap(), f["code"].as_str().unwrap())).collect()
}

/// Topics of what was published since the last look.
fn told(world: &World) -> Vec<String> {
    world.state().published.drain(..).map(|[topic, ..]| topic).collect()
}

#[tokio::test]
async fn a_healthy_system_is_told_to_nobody_and_reported() {
    let world = world();
    let answer = check(&world, now()).await;
    assert_eq!((&answer["status"], codes(&answer)), (&json!("healthy"), Vec::new()));
    assert_eq!(answer["components"].as_object().unwrap().len(), 13);
    assert_eq!(
        answer["ifHomeDied"],
        json!([{"database": "orders", "rpoSeconds": 3600, "from": {
            "kind": "copy", "region": WEST, "id": "orders-copy", "takenAt": "2026-01-10T11:00:00Z",
            "proofLevel": "content"}}])
    );
    assert_eq!(
        answer["alert"],
        json!({"raised": 0, "eased": 0, "recovered": 0, "messages": 0, "superseded": false})
    );
    assert_eq!(told(&world), Vec::<String>::new());
    let key = answer["report"].as_str().unwrap();
    assert_eq!(key, "health/2026-01-10/12-00-00Z-request-1.json");
    let report: Value = serde_json::from_str(&world.state().objects[key]).unwrap();
    assert_eq!((&report["status"], &report["ifHomeDied"]), (&answer["status"], &answer["ifHomeDied"]));
}

#[tokio::test]
async fn a_cluster_is_a_database_of_its_own() {
    let world = world();
    let mut cluster = Resource::new(&[
        ("DBClusterIdentifier", "ledger"),
        ("DBClusterArn", "arn:aws:rds:us-east-1:000000000000:cluster:ledger"),
        ("Status", "failing-over"),
        ("Engine", "aurora-postgresql"),
        ("StorageEncrypted", "true"),
        ("BackupRetentionPeriod", "7"),
        ("DeletionProtection", "true"),
        ("ClusterCreateTime", "2025-01-01T00:00:00Z"),
    ]);
    cluster.tags.insert("lifeboat:backup-age-hours".into(), "24".into());
    world.state().clusters.insert(at(HOME, "ledger"), cluster);
    let mut member = database("ledger-1");
    member.set("DBClusterIdentifier", "ledger");
    world.state().databases.insert(at(HOME, "ledger-1"), member);
    let answer = check(&world, now()).await;
    assert_eq!(
        codes(&answer),
        ["ledger backup-missing", "ledger nothing-elsewhere", "ledger copy-missing", "ledger database-busy"]
    );
    let taken = |role: &str| {
        let mut snapshot = snapshot("ledger", role, "2026-01-10T10:00:00Z");
        snapshot.set("DBClusterSnapshotIdentifier", &format!("ledger-{role}"));
        snapshot
            .set("DBClusterSnapshotArn", &format!("arn:aws:rds:{HOME}:000000000000:cluster-snapshot:{role}"));
        snapshot.set("DBClusterIdentifier", "ledger");
        snapshot
    };
    for (region, role) in [(HOME, "backup"), (WEST, "copy")] {
        let mut snapshot = taken(role);
        snapshot.set("SnapshotCreateTime", "2026-01-10T10:00:00Z");
        if role == "copy" {
            // Of a copy RDS tells only when it was made: the age of its data is in our tag.
            snapshot.set("SourceDBClusterSnapshotArn", "arn:of:the:source");
            snapshot.tags.insert("lifeboat:taken-at".into(), "2026-01-10T10:00:00Z".into());
        }
        world.state().cluster_snapshots.insert(at(region, &format!("ledger-{role}")), snapshot);
    }
    let answer = check(&world, now()).await;
    assert_eq!(codes(&answer), ["ledger database-busy"], "{answer:#}");
}

#[tokio::test]
async fn a_region_is_listed_once_however_many_databases_it_has() {
    let world = world();
    let calls_of = async |world: &World| {
        let wire = world.wire();
        run(&wire, json!({"check": {}}), now()).await.unwrap();
        let mut calls: BTreeMap<String, usize> = BTreeMap::new();
        for sent in wire.sent() {
            *calls.entry(format!("{} {}", sent.scope, sent.action)).or_default() += 1;
        }
        calls
    };
    let with_one = calls_of(&world).await;
    for n in 0..50 {
        add_database(&world, &format!("database-{n}"));
    }
    let with_many = calls_of(&world).await;
    assert_eq!(with_one, with_many);
    for region in [HOME, WEST] {
        for action in [
            "DescribeDBInstances",
            "DescribeDBSnapshots",
            "DescribeAccountAttributes",
            "DescribeCertificates",
        ] {
            assert_eq!(with_many[&format!("{region}/rds {action}")], 1, "{region} {action}");
        }
    }
    assert_eq!(with_many[&format!("{HOME}/monitoring GetMetricData")], 1);
    assert_eq!(
        with_many.get(&format!("{WEST}/monitoring GetMetricData")),
        None,
        "nothing is there to measure"
    );
    assert_eq!(with_many[&format!("{WEST}/kms DescribeKey")], 2, "the key of new copies, and of old ones");
}

#[tokio::test]
async fn a_change_is_told_once_to_the_topic_of_its_severity_and_its_end_to_the_other() {
    let world = world();
    world.state().databases.get_mut(&at(HOME, "orders")).unwrap().set("DBInstanceStatus", "stopped");
    for minute in [0, 15, 30] {
        let answer = check(&world, now() + minutes(minute)).await;
        assert_eq!(
            (&answer["status"], codes(&answer)),
            (&json!("failed"), vec!["orders database-down".into()])
        );
        let expected = if minute == 0 { vec!["critical"] } else { vec![] };
        assert_eq!(told(&world), expected, "minute {minute}");
    }
    world.state().databases.get_mut(&at(HOME, "orders")).unwrap().set("DBInstanceStatus", "available");
    assert_eq!(check(&world, now() + minutes(45)).await["alert"]["recovered"], 1);
    assert_eq!(told(&world), ["info"]);
    world.state().keys.insert(WEST_KEY.into(), "PendingDeletion".into());
    world.state().quotas.insert(at(WEST, "ManualSnapshots"), (80, 100));
    let answer = check(&world, now() + minutes(60)).await;
    // The key by its ARN, and by the alias that the configuration names; what is under it, and a quota.
    assert_eq!(answer["counts"], json!({"critical": 2, "warning": 1, "info": 1, "unreachable": 0}));
    let published = world.state().published.clone();
    let [[topic, subject, text]] = &published[..] else { panic!("one message: {published:?}") };
    assert_eq!(
        (topic.as_str(), subject.as_str()),
        ("critical", "Lifeboat health critical: 3 new or worse; now failed")
    );
    assert!(text.contains("2027-01-15T08:00:00Z") && text.contains("80 of 100"), "{text}");
}

#[tokio::test]
async fn what_fails_to_be_looked_at_is_a_finding_and_no_error() {
    let world = world();
    for action in ["DescribeAccountAttributes", "GetMetricData", "Query", "ListSecrets"] {
        world.state().fail(action, Reply::Late);
    }
    let answer = check(&world, now()).await;
    assert_eq!(answer["status"], "degraded");
    assert_eq!(answer["counts"]["unreachable"], 5, "{answer:#}");
    assert!(codes(&answer).iter().all(|code| code.ends_with(" unreachable")), "{answer:#}");
    assert_eq!(told(&world), ["warning"]);
}

#[tokio::test]
async fn a_region_that_cannot_be_reached_is_not_without_copies() {
    let world = world();
    let inner = world.clone();
    let broken =
        Wire::new(move |sent| if sent.region() == WEST { Reply::Broken } else { inner.answer(sent) });
    let answer = run(&broken, json!({"check": {}}), now()).await.unwrap();
    assert!(codes(&answer).iter().all(|code| code.ends_with(" unreachable")), "{answer:#}");
    assert_eq!(answer["ifHomeDied"], json!([{"database": "orders", "notLookedAt": [WEST]}]));
}

#[tokio::test]
async fn a_check_without_alerts_remembers_nothing_and_tells_nobody() {
    let world = world();
    world.state().databases.get_mut(&at(HOME, "orders")).unwrap().set("DBInstanceStatus", "failed");
    let answer = run(&world.wire(), json!({"check": {"alert": false}}), now()).await.unwrap();
    assert_eq!((&answer["status"], &answer["alert"]), (&json!("failed"), &Value::Null));
    assert_eq!((told(&world), world.state().items.len()), (Vec::new(), 0));
    check(&world, now() + minutes(1)).await;
    assert_eq!(told(&world), ["critical"], "a later check tells it");
}

#[tokio::test]
async fn when_somebody_else_writes_first_it_decides_again_and_does_not_tell_twice() {
    let world = world();
    world.state().databases.get_mut(&at(HOME, "orders")).unwrap().set("DBInstanceStatus", "stopped");
    // The other one looked a second later and saw the same.
    let other = self::world();
    other.state().databases.get_mut(&at(HOME, "orders")).unwrap().set("DBInstanceStatus", "stopped");
    check(&other, now() + SignedDuration::from_secs(1)).await;
    let theirs = other.state().items.clone();
    world.state().in_between = Some(Box::new(move |items| items.extend(theirs)));
    let answer = check(&world, now()).await;
    assert_eq!(answer["alert"]["superseded"], true);
    assert_eq!(told(&world), Vec::<String>::new());
}

#[tokio::test]
async fn a_message_that_could_not_be_published_is_an_error_and_is_sent_by_the_next_check() {
    let world = world();
    world.state().databases.get_mut(&at(HOME, "orders")).unwrap().set("DBInstanceStatus", "stopped");
    world.state().fail("Publish", Reply::query_error(403, "AuthorizationError", "no"));
    let refused = run(&world.wire(), json!({"check": {}}), now()).await.unwrap_err();
    assert_eq!(refused.name(), ErrorName::AccessDenied);
    assert_eq!(told(&world), Vec::<String>::new());
    check(&world, now() + minutes(1)).await;
    assert_eq!(told(&world), ["critical"]);
    check(&world, now() + minutes(2)).await;
    assert_eq!(told(&world), Vec::<String>::new());
}

#[tokio::test]
async fn a_message_of_a_check_that_died_while_it_published_is_sent_after_its_lease() {
    let world = world();
    world.state().databases.get_mut(&at(HOME, "orders")).unwrap().set("DBInstanceStatus", "stopped");
    check(&world, now()).await;
    told(&world);
    // As it was between the two writes: the message is still in the item.
    let died = {
        let mut state = world.state();
        let item = state.items.get_mut("health#alerts").unwrap();
        let until = (now() + minutes(6)).to_string();
        item["waiting"] = json!({"L": [{"M": {
            "id": {"S": "v1"}, "severity": {"S": "critical"}, "subject": {"S": "s"}, "text": {"S": "t"},
            "leaseUntil": {"S": until}}}]});
        item.clone()
    };
    check(&world, now() + minutes(5)).await;
    assert_eq!(told(&world), Vec::<String>::new(), "it may still be alive");
    world.state().items.insert("health#alerts".into(), died);
    check(&world, now() + minutes(6)).await;
    assert_eq!(told(&world), ["critical"]);
    check(&world, now() + minutes(20)).await;
    assert_eq!(told(&world), Vec::<String>::new());
}

#[tokio::test]
async fn an_event_of_rds_wakes_a_look_at_its_database_and_a_schedule_one_at_everything() {
    let world = world();
    add_database(&world, "invoices");
    world.state().databases.get_mut(&at(HOME, "invoices")).unwrap().set("DBInstanceStatus", "failed");
    let event = |source: &str, detail: Value| {
        json!({"version": "0", "id": "1", "detail-type": "RDS DB Instance Event", "source": source,
            "account": "000000000000", "time": "2026-01-10T11:59:00Z", "region": HOME, "resources": [],
            "detail": detail})
    };
    let about =
        |id: &str| json!({"SourceType": "DB_INSTANCE", "SourceIdentifier": id, "EventID": "RDS-EVENT-0045"});
    let wire = world.wire();
    let answer = run(&wire, event("aws.rds", about("orders")), now()).await.unwrap();
    assert_eq!((&answer["scope"], codes(&answer)), (&json!("databases orders"), Vec::new()));
    assert!(wire.sent_of("DescribeAccountAttributes").is_empty() && wire.sent_of("ListSecrets").is_empty());
    let answer = run(&world.wire(), event("aws.rds", about("invoices")), now()).await.unwrap();
    assert_eq!(codes(&answer), ["invoices database-down"]);
    for payload in [
        event("aws.events", json!({})),
        event("aws.rds", json!({"SourceType": "SNAPSHOT", "SourceIdentifier": "rds:orders-1"})),
    ] {
        let answer = run(&world.wire(), payload, now()).await.unwrap();
        assert_eq!(
            (&answer["scope"], codes(&answer)),
            (&json!("all"), vec!["invoices database-down".to_owned()])
        );
    }
    let refused = run(&world.wire(), event("aws.ec2", json!({})), now()).await.unwrap_err();
    assert_eq!(refused.name(), ErrorName::InvalidInput);
}

#[tokio::test]
async fn a_region_that_is_not_configured_is_refused_and_a_configured_one_is_looked_at_alone() {
    let wire = world().wire();
    let refused = run(&wire, json!({"check": {"region": "eu-west-1"}}), now()).await.unwrap_err();
    assert_eq!(refused.name(), ErrorName::RegionUnknown);
    assert!(wire.sent().is_empty());
    run(&wire, json!({"check": {"region": WEST}}), now()).await.unwrap();
    let looked_at: Vec<String> =
        wire.sent().into_iter().filter(|sent| sent.scope.ends_with("/rds")).map(|sent| sent.scope).collect();
    assert!(!looked_at.is_empty() && looked_at.iter().all(|scope| scope == "us-west-2/rds"), "{looked_at:?}");
}

#[tokio::test]
async fn an_answer_about_thousands_of_broken_databases_fits_into_a_state_machine() {
    let world = world();
    for n in 0..2_000 {
        let id = format!("a-database-with-quite-a-long-name-of-sixty-characters-{n:09}");
        add_database(&world, &id);
        world.state().databases.get_mut(&at(HOME, &id)).unwrap().set("DBInstanceStatus", "failed");
    }
    let answer = check(&world, now()).await;
    assert_eq!(answer["counts"]["critical"], 2_000);
    assert_eq!(answer["omittedFindings"], 2_000 - MOST_FINDINGS);
    assert_eq!(answer["omittedDatabases"], 2_001 - MOST_RECOVERABLE);
    assert!(answer.to_string().len() < 65_536, "{}", answer.to_string().len());
    assert_eq!(told(&world).len(), 1);
    let report: Value =
        serde_json::from_str(&world.state().objects[answer["report"].as_str().unwrap()]).unwrap();
    assert_eq!(report["findings"].as_array().unwrap().len(), 2_000);
}

#[test]
fn all_faults_of_the_configuration_are_told_at_once() {
    let error =
        Config::read(Vars::new(|name| (name == "DR_STORAGE_PERCENT").then(|| "100".to_owned()))).unwrap_err();
    for name in ["DR_STATE_TABLE_NAME", "DR_METADATA_BUCKET", "DR_CRITICAL_TOPIC_ARN", "DR_STORAGE_PERCENT"] {
        assert!(error.what().contains(name), "{name} in {error}");
    }
}
