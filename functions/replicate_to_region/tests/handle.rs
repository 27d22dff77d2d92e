//! The function against a small AWS with state: from nothing to a verified copy, and every trouble on the way.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use dr_aws::testing::{Reply, Resource, Wire, World};
use dr_core::ErrorName;
use dr_core::config::Vars;
use replicate_to_region::{Config, Replicator, Request};
use serde_json::{Value, json};

const OPERATION: &str = "backup-0123456789abcdef";
const KEY: &str = "arn:aws:kms:us-west-2:000000000000:key/1";
const SOURCE: &str = "arn:aws:rds:us-east-1:000000000000:snapshot:orders-1";

fn place(region: &str) -> (String, String) {
    (region.to_owned(), "orders-1".to_owned())
}

fn world() -> World {
    let world = World::default();
    let mut source = Resource::new(&[
        ("DBSnapshotIdentifier", "orders-1"),
        ("DBSnapshotArn", SOURCE),
        ("DBInstanceIdentifier", "orders"),
        ("Status", "available"),
        ("Engine", "postgres"),
        ("EngineVersion", "16.4"),
        ("AllocatedStorage", "20"),
        ("Encrypted", "false"),
        ("OptionGroupName", "default:postgres-16"),
        ("SnapshotCreateTime", "2026-01-02T03:00:00Z"),
        ("OriginalSnapshotCreateTime", "2026-01-02T03:00:00Z"),
    ]);
    source.tags.insert("lifeboat:proof".to_owned(), "proven".to_owned());
    let mut state = world.state();
    state.snapshots.insert(place("us-east-1"), source);
    state.keys.insert(KEY.to_owned(), "Enabled".to_owned());
    drop(state);
    world
}

fn payload() -> Value {
    json!({"copy": {"operationId": OPERATION, "database": "orders", "snapshotId": "orders-1", "snapshotArn": SOURCE,
        "region": "us-west-2", "kmsKeyId": "alias/dr", "tags": {"team": "data"}, "expiresAt": null,
        "startedAt": "2026-01-02T04:00:00Z"}})
}

fn with(field: &str, value: Value) -> Value {
    let mut payload = payload();
    payload["copy"][field] = value;
    payload
}

async fn call(wire: &Wire, payload: Value) -> Result<Value, ErrorName> {
    let config = Config::read(Vars::new(|name| match name {
        "DR_TARGET_REGIONS" => Some("us-west-2,eu-west-1".to_owned()),
        "DR_TARGET_KMS_KEY_IDS" => Some(format!("us-west-2={KEY}")),
        _ => None,
    }));
    let replicator = Replicator { clients: wire.clients().unwrap(), config: config.unwrap() };
    let request: Request = serde_json::from_value(payload).expect("the payload is one of the contract");
    let now = "2026-01-02T04:10:00Z".parse().unwrap();
    let answer = Box::pin(replicator.handle(request, now)).await.map_err(|error| error.name())?;
    Ok(serde_json::to_value(answer).unwrap())
}

fn arrive(world: &World) {
    let mut state = world.state();
    let copy = state.snapshots.get_mut(&place("us-west-2")).unwrap();
    copy.set("Status", "available");
    copy.set("SnapshotCreateTime", "2026-01-02T04:00:10Z");
}

#[tokio::test]
async fn a_copy_is_started_once_waited_for_and_verified() {
    let world = world();
    let wire = world.wire();
    for _ in 0..3 {
        let answer = call(&wire, payload()).await.unwrap();
        assert_eq!((&answer["status"], &answer["percent"]), (&json!("pending"), &json!(0)));
        assert!(answer["checkAgainInSeconds"].as_u64().unwrap() >= 1);
    }
    let sent = wire.sent_of("CopyDBSnapshot");
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].region(), "us-west-2");
    assert_eq!(sent[0].parameter("KmsKeyId"), KEY, "the alias was resolved");
    assert_eq!(sent[0].tags()["lifeboat:source-arn"], SOURCE);
    arrive(&world);
    for _ in 0..2 {
        assert_eq!(
            call(&wire, payload()).await.unwrap(),
            json!({"status": "done", "region": "us-west-2",
                "snapshotArn": "arn:aws:rds:us-west-2:000000000000:snapshot:orders-1", "kmsKeyArn": KEY,
                "encrypted": true, "sizeGb": 20, "originalSnapshotCreateTime": "2026-01-02T03:00:00Z",
                "took": {"durationSeconds": 600, "step": {"kind": "copy", "region": "us-west-2",
                    "database": "orders", "engine": "postgres", "sizeGb": 20}}})
        );
    }
}

#[tokio::test]
async fn without_a_key_in_the_request_the_configured_one_is_used() {
    let world = world();
    let wire = world.wire();
    call(&wire, with("kmsKeyId", Value::Null)).await.unwrap();
    assert_eq!(wire.sent_of("CopyDBSnapshot")[0].parameter("KmsKeyId"), KEY);
}

#[tokio::test]
async fn bad_orders_ask_nothing_of_aws() {
    let wire = world().wire();
    for (payload, name) in [
        (with("region", json!("ap-south-1")), ErrorName::RegionUnknown),
        (with("region", json!("us-east-1")), ErrorName::InvalidInput),
        (with("snapshotId", json!("orders-2")), ErrorName::InvalidInput),
        (with("tags", json!({"lifeboat:role": "x"})), ErrorName::InvalidInput),
        (with("kmsKeyId", json!("arn:aws:kms:eu-west-1:000000000000:key/1")), ErrorName::KeyWrongRegion),
    ] {
        assert_eq!(call(&wire, payload).await.unwrap_err(), name);
    }
    let mut unknown = with("region", json!("ap-south-1"));
    unknown["copy"]["kmsKeyId"] = Value::Null;
    assert_eq!(call(&wire, unknown).await.unwrap_err(), ErrorName::RegionUnknown);
    let mut without_key = with("region", json!("eu-west-1"));
    without_key["copy"]["kmsKeyId"] = Value::Null;
    assert_eq!(call(&wire, without_key).await.unwrap_err(), ErrorName::KeyMissing);
    assert!(wire.sent().is_empty());
}

#[tokio::test]
async fn an_unusable_key_stops_the_copy_before_it_begins() {
    for (key_state, name) in [
        (Some("Disabled"), ErrorName::KeyDisabled),
        (Some("PendingDeletion"), ErrorName::KeyPendingDeletion),
        (Some("PendingImport"), ErrorName::KeyNotAccessible),
        (None, ErrorName::KeyMissing),
    ] {
        let world = world();
        match key_state {
            Some(key_state) => world.state().keys.insert(KEY.to_owned(), key_state.to_owned()),
            None => world.state().keys.remove(KEY),
        };
        let wire = world.wire();
        assert_eq!(call(&wire, payload()).await.unwrap_err(), name);
        assert!(wire.sent_of("CopyDBSnapshot").is_empty());
    }
}

#[tokio::test]
async fn room_for_copies_is_waited_for_and_the_quota_is_not() {
    for (message, outcome) in [
        ("Cannot copy more than 20 snapshots across regions", Ok(())),
        ("Cannot create more than 100 manual snapshots", Err(ErrorName::SnapshotQuotaExceeded)),
    ] {
        let world = world();
        world.state().fail("CopyDBSnapshot", Reply::query_error(400, "SnapshotQuotaExceeded", message));
        let answer = call(&world.wire(), payload()).await;
        assert_eq!(answer.map(|answer| assert_eq!(answer["status"], "pending")), outcome, "{message}");
    }
}

#[tokio::test]
async fn a_copy_that_fails_is_tried_again_once() {
    let world = world();
    let wire = world.wire();
    call(&wire, payload()).await.unwrap();
    let fail = |created_at: &str| {
        let mut state = world.state();
        let copy = state.snapshots.get_mut(&place("us-west-2")).unwrap();
        copy.set("Status", "failed");
        copy.set("SnapshotCreateTime", created_at);
    };
    fail("2026-01-02T04:01:00Z");
    assert_eq!(call(&wire, payload()).await.unwrap()["status"], "pending");
    assert_eq!(wire.sent_of("DeleteDBSnapshot").len(), 1);
    let actions = wire.actions();
    let at = |action: &str| actions.iter().position(|seen| seen == action).unwrap();
    assert!(at("AddTagsToResource") < at("DeleteDBSnapshot"), "the second try is written down first");
    assert_eq!(wire.sent_of("AddTagsToResource")[0].region(), "us-east-1");

    call(&wire, payload()).await.unwrap();
    assert_eq!(wire.sent_of("CopyDBSnapshot").len(), 2);
    fail("2026-01-02T04:11:00Z");
    assert_eq!(call(&wire, payload()).await.unwrap_err(), ErrorName::ReplicationFailed);
    assert_eq!(wire.sent_of("DeleteDBSnapshot").len(), 1, "the second failure is kept for a look at it");
}

#[tokio::test]
async fn a_copy_under_another_key_is_a_mismatch() {
    let world = world();
    let wire = world.wire();
    call(&wire, payload()).await.unwrap();
    arrive(&world);
    world
        .state()
        .snapshots
        .get_mut(&place("us-west-2"))
        .unwrap()
        .set("KmsKeyId", "arn:aws:kms:us-west-2:000000000000:key/2");
    assert_eq!(call(&wire, payload()).await.unwrap_err(), ErrorName::ReplicationMismatch);
    assert!(wire.sent_of("DeleteDBSnapshot").is_empty());
}

#[tokio::test]
async fn somebody_elses_snapshot_of_that_name_is_left_alone() {
    let world = world();
    let wire = world.wire();
    call(&wire, payload()).await.unwrap();
    let other = with("operationId", json!("backup-ffffffffffffffff"));
    for status in ["available", "failed", "creating"] {
        world.state().snapshots.get_mut(&place("us-west-2")).unwrap().set("Status", status);
        assert_eq!(call(&wire, other.clone()).await.unwrap_err(), ErrorName::SnapshotNotOurs, "{status}");
    }
    assert!(wire.sent_of("DeleteDBSnapshot").is_empty());
}

#[tokio::test]
async fn an_answer_that_was_lost_is_found_again() {
    let world = world();
    world.state().lose("CopyDBSnapshot", Reply::Late);
    let wire = world.wire();
    assert_eq!(call(&wire, payload()).await.unwrap_err(), ErrorName::AwsUnreachable);
    assert_eq!(call(&wire, payload()).await.unwrap()["status"], "pending");
    assert_eq!(wire.sent_of("CopyDBSnapshot").len(), 1);
}

#[tokio::test]
async fn a_missing_source_and_an_unreachable_region_are_told_apart() {
    let gone = world();
    gone.state().snapshots.clear();
    assert_eq!(call(&gone.wire(), payload()).await.unwrap_err(), ErrorName::SnapshotMissing);
    let unreachable = world();
    unreachable.state().fail("DescribeDBSnapshots", Reply::Late);
    assert_eq!(call(&unreachable.wire(), payload()).await.unwrap_err(), ErrorName::AwsUnreachable);
}

const CLUSTER: &str = "arn:aws:rds:us-east-1:000000000000:cluster-snapshot:shop-1";

fn cluster_world(encrypted: &str) -> World {
    let world = world();
    let mut source = Resource::new(&[
        ("DBClusterSnapshotIdentifier", "shop-1"),
        ("DBClusterSnapshotArn", CLUSTER),
        ("DBClusterIdentifier", "shop"),
        ("Status", "available"),
        ("SnapshotType", "manual"),
        ("Engine", "aurora-postgresql"),
        ("EngineVersion", "16.4"),
        ("AllocatedStorage", "0"),
        ("StorageEncrypted", encrypted),
        ("SnapshotCreateTime", "2026-01-02T03:00:00Z"),
    ]);
    source.tags.insert("lifeboat:proof".to_owned(), "proven".to_owned());
    world.state().cluster_snapshots.insert(("us-east-1".to_owned(), "shop-1".to_owned()), source);
    world
}

fn cluster_payload() -> Value {
    let mut payload = with("snapshotArn", json!(CLUSTER));
    payload["copy"]["snapshotId"] = json!("shop-1");
    payload
}

#[tokio::test]
async fn a_cluster_snapshot_is_copied_by_its_own_calls_and_keeps_its_age() {
    let world = cluster_world("true");
    let wire = world.wire();
    for _ in 0..2 {
        assert_eq!(call(&wire, cluster_payload()).await.unwrap()["status"], "pending");
    }
    let sent = wire.sent_of("CopyDBClusterSnapshot");
    assert_eq!((sent.len(), sent[0].region()), (1, "us-west-2"));
    assert_eq!(sent[0].parameter("KmsKeyId"), KEY);
    assert_eq!(sent[0].tags()["lifeboat:taken-at"], "2026-01-02T03:00:00Z");
    let place = ("us-west-2".to_owned(), "shop-1".to_owned());
    world.state().cluster_snapshots.get_mut(&place).unwrap().set("Status", "available");
    let done = call(&wire, cluster_payload()).await.unwrap();
    assert_eq!((&done["status"], &done["encrypted"]), (&json!("done"), &json!(true)));
    assert_eq!(done["originalSnapshotCreateTime"], "2026-01-02T03:00:00Z");
    assert!(wire.sent_of("DescribeDBSnapshots").is_empty(), "the ARN says what it is of");
}

#[tokio::test]
async fn five_copies_under_way_are_waited_for() {
    let world = cluster_world("true");
    let full = "Cannot copy more than 5 snapshots across regions";
    world.state().fail("CopyDBClusterSnapshot", Reply::query_error(400, "SnapshotQuotaExceeded", full));
    let wire = world.wire();
    let answer = call(&wire, cluster_payload()).await.unwrap();
    assert_eq!(answer["status"], "pending");
    call(&wire, cluster_payload()).await.unwrap();
    assert_eq!(wire.sent_of("CopyDBClusterSnapshot").len(), 2);
}

#[tokio::test]
async fn a_cluster_copy_that_failed_is_deleted_and_tried_once_more() {
    let world = cluster_world("true");
    let wire = world.wire();
    call(&wire, cluster_payload()).await.unwrap();
    let place = ("us-west-2".to_owned(), "shop-1".to_owned());
    world.state().cluster_snapshots.get_mut(&place).unwrap().set("Status", "failed");
    assert_eq!(call(&wire, cluster_payload()).await.unwrap()["status"], "pending");
    assert_eq!(wire.sent_of("AddTagsToResource")[0].parameter("ResourceName"), CLUSTER);
    assert_eq!(
        (wire.sent_of("DeleteDBClusterSnapshot").len(), wire.sent_of("DeleteDBSnapshot").len()),
        (1, 0)
    );
}

#[tokio::test]
async fn what_cannot_be_copied_is_refused_before_it_is_asked_for() {
    let wire = cluster_world("false").wire();
    assert_eq!(call(&wire, cluster_payload()).await.unwrap_err(), ErrorName::SnapshotUnencrypted);
    let mut foreign = payload();
    foreign["copy"]["snapshotArn"] = json!(SOURCE.replace("000000000000", "111111111111"));
    assert_eq!(call(&wire, foreign).await.unwrap_err(), ErrorName::SnapshotForeign);
    let managed = world();
    managed.state().snapshots.get_mut(&place("us-east-1")).unwrap().set("SnapshotType", "awsbackup");
    let wire = managed.wire();
    assert_eq!(call(&wire, payload()).await.unwrap_err(), ErrorName::SnapshotForeign);
    assert!(wire.sent_of("CopyDBSnapshot").is_empty() && wire.sent_of("CopyDBClusterSnapshot").is_empty());
}
