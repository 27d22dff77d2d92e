//! The function against a small AWS with state: each action, and each action twice.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use create_snapshot::{Request, handle};
use dr_aws::testing::{Reply, Resource, Wire, World};
use dr_core::{ErrorName, Leftovers};
use serde_json::{Value, json};

const OPERATION: &str = "backup-0123456789abcdef";

fn world(status: &str) -> World {
    let world = World::default();
    let mut orders = Resource::new(&[
        ("DBInstanceIdentifier", "orders"),
        ("DBInstanceArn", "arn:aws:rds:us-east-1:000000000000:db:orders"),
        ("DBInstanceStatus", status),
        ("DBInstanceClass", "db.m7g.large"),
        ("Engine", "postgres"),
        ("EngineVersion", "16.4"),
        ("AllocatedStorage", "20"),
        ("StorageEncrypted", "true"),
        ("MasterUsername", "master"),
    ]);
    orders.tags.insert("dr".to_owned(), "yes".to_owned());
    orders.raw.push_str(
        "<DBSubnetGroup><DBSubnetGroupName>private</DBSubnetGroupName></DBSubnetGroup>\
        <DBParameterGroups><DBParameterGroup><DBParameterGroupName>orders-16</DBParameterGroupName>\
        </DBParameterGroup></DBParameterGroups>\
        <VpcSecurityGroups><VpcSecurityGroupMembership><VpcSecurityGroupId>sg-1</VpcSecurityGroupId>\
        </VpcSecurityGroupMembership></VpcSecurityGroups>",
    );
    world.state().databases.insert(home("orders"), orders);
    world
}

fn home(id: &str) -> (String, String) {
    ("us-east-1".to_owned(), id.to_owned())
}

async fn call(wire: &Wire, payload: Value) -> Result<Value, (ErrorName, Leftovers)> {
    let clients = wire.clients().unwrap();
    let request: Request = serde_json::from_value(payload).expect("the payload is one of the contract");
    let now = "2026-01-02T03:10:00Z".parse().unwrap();
    match Box::pin(handle(&clients, request, now)).await {
        Ok(answer) => Ok(serde_json::to_value(answer).unwrap()),
        Err(error) => Err((error.name(), error.leftovers().clone())),
    }
}

fn create() -> Value {
    json!({"create": {"operationId": OPERATION, "database": "orders", "snapshotId": "orders-1",
        "tags": {"team": "data"}, "expiresAt": null}})
}

fn check() -> Value {
    json!({"check": {"operationId": OPERATION, "database": "orders", "snapshotId": "orders-1",
        "startedAt": "2026-01-02T03:00:00Z"}})
}

#[tokio::test]
async fn describe_says_what_a_later_restore_needs() {
    let wire = world("available").wire();
    for payload in [
        json!({"describe": {"operationId": OPERATION, "database": "orders", "selector": null}}),
        json!({"describe": {"operationId": OPERATION, "database": null,
            "selector": {"tag": {"key": "dr", "value": "yes"}}}}),
    ] {
        let answer = call(&wire, payload).await.unwrap();
        assert_eq!(answer["database"], "orders");
        assert_eq!(answer["arn"], "arn:aws:rds:us-east-1:000000000000:db:orders");
        assert_eq!((&answer["engine"], &answer["engineVersion"]), (&json!("postgres"), &json!("16.4")));
        assert_eq!((&answer["encrypted"], &answer["allocatedStorageGb"]), (&json!(true), &json!(20)));
        let settings = &answer["settings"];
        assert_eq!(settings["subnetGroup"], "private");
        assert_eq!(settings["parameterGroup"], "orders-16");
        assert_eq!(settings["securityGroupIds"], json!(["sg-1"]));
        assert_eq!(settings["instanceClass"], "db.m7g.large");
        assert_eq!(settings["masterUsername"], "master");
    }
}

#[tokio::test]
async fn describe_names_what_is_wrong() {
    let describe = |database: Value, selector: Value| json!({"describe": {"operationId": OPERATION, "database": database, "selector": selector}});
    let nobody = json!({"tag": {"key": "dr", "value": "no"}});
    for (world, payload, name) in [
        (world("available"), describe(json!("nothing"), Value::Null), ErrorName::DatabaseMissing),
        (world("available"), describe(Value::Null, nobody.clone()), ErrorName::DatabaseMissing),
        (world("available"), describe(Value::Null, Value::Null), ErrorName::InvalidInput),
        (world("available"), describe(json!("orders"), nobody), ErrorName::InvalidInput),
        (world("stopped"), describe(json!("orders"), Value::Null), ErrorName::DatabaseUnavailable),
    ] {
        assert_eq!(call(&world.wire(), payload).await.unwrap_err().0, name);
    }
}

#[tokio::test]
async fn a_snapshot_is_created_once_however_often_it_is_asked_for() {
    let world = world("available");
    let wire = world.wire();
    for _ in 0..2 {
        let answer = call(&wire, create()).await.unwrap();
        assert_eq!(answer["status"], "pending");
        assert_eq!(answer["snapshotArn"], "arn:aws:rds:us-east-1:000000000000:snapshot:orders-1");
        assert!(answer["checkAgainInSeconds"].as_u64().unwrap() >= 1);
        // While it is being made the database is backing up, which must not be in the second call's way.
        world.state().databases.get_mut(&home("orders")).unwrap().set("DBInstanceStatus", "backing-up");
    }
    let sent = wire.sent_of("CreateDBSnapshot");
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].tags()["lifeboat:proof"], "pending");
    assert_eq!(sent[0].tags()["team"], "data");
}

#[tokio::test]
async fn an_answer_that_was_lost_is_found_again() {
    let world = world("available");
    world.state().lose("CreateDBSnapshot", Reply::Broken);
    let wire = world.wire();
    let lost = call(&wire, create()).await.unwrap_err();
    assert_eq!(lost, (ErrorName::AwsUnreachable, Leftovers::Unknown));
    assert_eq!(call(&wire, create()).await.unwrap()["status"], "pending");
    assert_eq!(wire.sent_of("CreateDBSnapshot").len(), 1, "it was there already");
}

#[tokio::test]
async fn a_name_that_is_taken_between_look_and_call_is_looked_at_again() {
    let world = world("available");
    world.state().lose("CreateDBSnapshot", Reply::query_error(400, "DBSnapshotAlreadyExists", "x"));
    assert_eq!(call(&world.wire(), create()).await.unwrap()["status"], "pending");
}

#[tokio::test]
async fn somebody_elses_snapshot_is_neither_adopted_nor_labelled() {
    let world = world("available");
    let foreign = Resource::new(&[
        ("DBSnapshotIdentifier", "orders-1"),
        ("DBSnapshotArn", "arn:aws:rds:us-east-1:000000000000:snapshot:orders-1"),
        ("Status", "available"),
    ]);
    world.state().snapshots.insert(home("orders-1"), foreign.clone());
    let wire = world.wire();
    let label = json!({"label": {"operationId": OPERATION, "snapshotId": "orders-1", "proof": "proven",
        "level": "content", "judgedAt": "2026-01-02T03:09:00Z", "report": "k"}});
    for payload in [create(), check(), label] {
        assert_eq!(call(&wire, payload).await.unwrap_err().0, ErrorName::SnapshotNotOurs);
    }
    assert_eq!(world.state().snapshots[&home("orders-1")], foreign);
}

#[tokio::test]
async fn troubles_of_rds_keep_their_names() {
    for (code, name) in [
        ("SnapshotQuotaExceeded", ErrorName::SnapshotQuotaExceeded),
        ("InvalidDBInstanceState", ErrorName::DatabaseUnavailable),
        ("Throttling", ErrorName::Throttled),
        ("AccessDenied", ErrorName::AccessDenied),
        ("InternalFailure", ErrorName::AwsFault),
        ("InvalidParameterValue", ErrorName::AwsRejected),
    ] {
        let world = world("available");
        world.state().fail(
            "CreateDBSnapshot",
            Reply::query_error(400, code, "Cannot create more than 100 manual snapshots"),
        );
        assert_eq!(call(&world.wire(), create()).await.unwrap_err().0, name, "{code}");
    }
}

#[tokio::test]
async fn a_finished_snapshot_is_described_and_labelled() {
    let world = world("available");
    let wire = world.wire();
    call(&wire, create()).await.unwrap();
    let pending = call(&wire, check()).await.unwrap();
    assert_eq!((&pending["status"], &pending["progress"]["percent"]), (&json!("pending"), &json!(0)));
    {
        let mut state = world.state();
        let snapshot = state.snapshots.get_mut(&home("orders-1")).unwrap();
        for (member, value) in [
            ("Status", "available"),
            ("Engine", "postgres"),
            ("AllocatedStorage", "20"),
            ("Encrypted", "false"),
            ("EngineVersion", "16.4"),
            ("SnapshotCreateTime", "2026-01-02T03:01:00Z"),
            ("OriginalSnapshotCreateTime", "2026-01-02T03:01:00Z"),
        ] {
            snapshot.set(member, value);
        }
    }
    let done = call(&wire, check()).await.unwrap();
    assert_eq!(
        done,
        json!({"status": "done", "snapshotId": "orders-1",
            "snapshotArn": "arn:aws:rds:us-east-1:000000000000:snapshot:orders-1",
            "snapshotCreateTime": "2026-01-02T03:01:00Z", "originalSnapshotCreateTime": "2026-01-02T03:01:00Z",
            "sizeGb": 20, "encrypted": false, "kmsKeyId": null, "engineVersion": "16.4",
            "took": {"durationSeconds": 600, "step": {"kind": "snapshot", "region": "us-east-1",
                "database": "orders", "engine": "postgres", "sizeGb": 20}}})
    );
    let label = json!({"label": {"operationId": OPERATION, "snapshotId": "orders-1", "proof": "unproven",
        "level": "content", "judgedAt": "2026-01-02T03:09:00Z", "report": "operations/x/report.json"}});
    for _ in 0..2 {
        let labelled = call(&wire, label.clone()).await.unwrap();
        assert_eq!(labelled, json!({"snapshotId": "orders-1", "proof": "unproven"}));
    }
    let state = world.state();
    let tags = &state.snapshots[&home("orders-1")].tags;
    assert_eq!(tags["lifeboat:proof"], "unproven");
    assert_eq!(tags["lifeboat:operation-id"], OPERATION, "other tags stay");
}

#[test]
fn payloads_are_strict() {
    for payload in [
        json!({"create": {"operationId": OPERATION, "database": "orders", "snapshotId": "orders-1", "retain": 1}}),
        json!({"create": {"operationId": "nonsense", "database": "orders", "snapshotId": "orders-1"}}),
        json!({"create": {"operationId": OPERATION, "database": "a--b", "snapshotId": "orders-1"}}),
        json!({"label": {"operationId": OPERATION, "snapshotId": "orders-1", "proof": "maybe", "level": "quick",
            "judgedAt": "2026-01-02T03:09:00Z"}}),
        json!({"delete": {}}),
        json!({"describe": {"operationId": OPERATION}, "create": {}}),
    ] {
        assert!(serde_json::from_value::<Request>(payload.clone()).is_err(), "{payload}");
    }
}

/// A cluster `shop` with two members.
fn cluster_world() -> World {
    let world = world("available");
    let mut shop = Resource::new(&[
        ("DBClusterIdentifier", "shop"),
        ("DBClusterArn", "arn:aws:rds:us-east-1:000000000000:cluster:shop"),
        ("Status", "available"),
        ("Engine", "aurora-postgresql"),
        ("EngineVersion", "16.4"),
        ("AllocatedStorage", "1"),
        ("MasterUsername", "master"),
        ("Endpoint", "shop.cluster-x.rds.amazonaws.com"),
        ("Port", "5432"),
    ]);
    shop.tags.insert("dr".to_owned(), "aurora".to_owned());
    shop.raw.push_str(
        "<DBClusterMembers><DBClusterMember><DBInstanceIdentifier>shop-2</DBInstanceIdentifier>\
        <IsClusterWriter>false</IsClusterWriter></DBClusterMember><DBClusterMember>\
        <DBInstanceIdentifier>shop-1</DBInstanceIdentifier><IsClusterWriter>true</IsClusterWriter>\
        </DBClusterMember></DBClusterMembers>",
    );
    let mut state = world.state();
    state.clusters.insert(home("shop"), shop);
    for (name, class) in [("shop-1", "db.r7g.large"), ("shop-2", "db.r7g.medium")] {
        let mut member = Resource::new(&[
            ("DBInstanceIdentifier", name),
            ("DBInstanceArn", "arn:aws:rds:us-east-1:000000000000:db:member"),
            ("DBInstanceStatus", "available"),
            ("DBInstanceClass", class),
            ("DBClusterIdentifier", "shop"),
            ("Engine", "aurora-postgresql"),
        ]);
        member.tags.insert("dr".to_owned(), "aurora".to_owned());
        state.databases.insert(home(name), member);
    }
    drop(state);
    world
}

#[tokio::test]
async fn a_cluster_is_found_by_its_name_and_by_a_tag_that_its_members_carry_too() {
    let wire = cluster_world().wire();
    for (database, kind, selector) in [
        (json!("shop"), Value::Null, Value::Null),
        (json!("shop"), json!("cluster"), Value::Null),
        (Value::Null, Value::Null, json!({"tag": {"key": "dr", "value": "aurora"}})),
    ] {
        let answer = call(
            &wire,
            json!({"describe": {"operationId": OPERATION, "database": database, "databaseKind": kind,
                "selector": selector}}),
        );
        let answer = answer.await.unwrap();
        assert_eq!((&answer["database"], &answer["databaseKind"]), (&json!("shop"), &json!("cluster")));
        assert_eq!(answer["settings"]["instanceClass"], "db.r7g.large", "the writer's");
        assert_eq!(answer["settings"]["port"], 5432);
    }
}

#[tokio::test]
async fn members_and_names_of_two_things_are_refused_with_what_to_do() {
    let describe = |database: &str, kind: Value| {
        json!({"describe": {"operationId": OPERATION,
        "database": database, "databaseKind": kind, "selector": null}})
    };
    let world = cluster_world();
    let twin = world.state().clusters[&home("shop")].clone();
    world.state().clusters.insert(home("orders"), {
        let mut twin = twin;
        twin.set("DBClusterIdentifier", "orders");
        twin
    });
    let wire = world.wire();
    let refused = call(&wire, describe("shop-1", Value::Null)).await.unwrap_err().0;
    assert_eq!(refused, ErrorName::InvalidInput);
    let both = call(&wire, describe("orders", Value::Null)).await.unwrap_err().0;
    assert_eq!(both, ErrorName::DatabaseAmbiguous);
    for kind in ["instance", "cluster"] {
        assert_eq!(call(&wire, describe("orders", json!(kind))).await.unwrap()["databaseKind"], kind);
    }
}

#[tokio::test]
async fn a_cluster_snapshot_is_created_once_watched_and_labelled() {
    let world = cluster_world();
    let wire = world.wire();
    let create = json!({"create": {"operationId": OPERATION, "database": "shop", "databaseKind": "cluster",
        "snapshotId": "shop-1", "tags": {}, "expiresAt": null}});
    for _ in 0..2 {
        let answer = call(&wire, create.clone()).await.unwrap();
        assert_eq!(answer["snapshotArn"], "arn:aws:rds:us-east-1:000000000000:cluster-snapshot:shop-1");
        world.state().clusters.get_mut(&home("shop")).unwrap().set("Status", "backing-up");
    }
    assert_eq!(wire.sent_of("CreateDBClusterSnapshot").len(), 1);
    let finished = |member: &str, value: &str| {
        world.state().cluster_snapshots.get_mut(&home("shop-1")).unwrap().set(member, value);
    };
    finished("Status", "available");
    finished("SnapshotCreateTime", "2026-01-02T03:05:00Z");
    let check = json!({"check": {"operationId": OPERATION, "database": "shop", "databaseKind": "cluster",
        "snapshotId": "shop-1", "startedAt": "2026-01-02T03:00:00Z"}});
    let done = call(&wire, check).await.unwrap();
    assert_eq!(done["originalSnapshotCreateTime"], "2026-01-02T03:05:00Z");
    let label = json!({"label": {"operationId": OPERATION, "databaseKind": "cluster", "snapshotId": "shop-1",
        "proof": "proven", "level": "content", "judgedAt": "2026-01-02T03:09:00Z", "report": "operations/x/report.json"}});
    call(&wire, label).await.unwrap();
    assert_eq!(world.state().cluster_snapshots[&home("shop-1")].tags["lifeboat:proof"], "proven");
    assert!(wire.sent_of("CreateDBSnapshot").is_empty());
}
