//! The function against a small AWS with state: a temporary restore's whole life, and every crash in it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use dr_aws::testing::{Reply, Resource, Wire, World};
use dr_core::config::Vars;
use dr_core::{ErrorName, Leftovers};
use restore_database::{Config, Request, Restorer};
use serde_json::{Value, json};

const OPERATION: &str = "proof-0123456789abcdef";
const INSTANCE: &str = "lifeboat-tmp-0123456789abcdef";
const SECRET: &str = "lifeboat/tmp/0123456789abcdef";

fn home(id: &str) -> (String, String) {
    ("us-east-1".to_owned(), id.to_owned())
}

fn world() -> World {
    let world = World::default();
    let snapshot = Resource::new(&[
        ("DBSnapshotIdentifier", "orders-1"),
        ("DBSnapshotArn", "arn:aws:rds:us-east-1:000000000000:snapshot:orders-1"),
        ("DBInstanceIdentifier", "orders"),
        ("Status", "available"),
        ("Engine", "postgres"),
        ("EngineVersion", "16.4"),
        ("MasterUsername", "master"),
        ("Port", "5432"),
    ]);
    let mut orders = Resource::new(&[
        ("DBInstanceIdentifier", "orders"),
        ("DBInstanceArn", "arn:aws:rds:us-east-1:000000000000:db:orders"),
        ("DBInstanceStatus", "available"),
        ("DBInstanceClass", "db.m7g.large"),
        ("Engine", "postgres"),
        ("EngineVersion", "16.4"),
    ]);
    orders.raw.push_str(
        "<DBParameterGroups><DBParameterGroup><DBParameterGroupName>orders-16</DBParameterGroupName>\
        </DBParameterGroup></DBParameterGroups>",
    );
    let mut state = world.state();
    state.snapshots.insert(home("orders-1"), snapshot);
    state.databases.insert(home("orders"), orders);
    drop(state);
    world
}

fn start() -> Value {
    json!({"start": {"operationId": OPERATION, "snapshotId": "orders-1", "database": null,
        "target": {"instanceId": INSTANCE, "secretId": SECRET}}})
}

fn check() -> Value {
    json!({"check": {"operationId": OPERATION, "snapshotId": "orders-1", "startedAt": "2026-01-02T04:00:00Z",
        "target": {"instanceId": INSTANCE, "secretId": SECRET}}})
}

fn dispose() -> Value {
    json!({"dispose": {"operationId": OPERATION, "target": {"instanceId": INSTANCE, "secretId": SECRET}}})
}

fn config(name: &str) -> Option<String> {
    let value = match name {
        "DR_RESTORE_SUBNET_GROUP" => "restore",
        "DR_RESTORE_SECURITY_GROUP_IDS" => "sg-restore",
        "DR_RESTORE_TIMEOUT_MINUTES" => "60",
        _ => return None,
    };
    Some(value.to_owned())
}

async fn call_at(wire: &Wire, payload: Value, now: &str) -> Result<Value, (ErrorName, Leftovers)> {
    let config = Config::read(Vars::new(config)).unwrap();
    let restorer = Restorer { clients: wire.clients().unwrap(), config };
    let request: Request = serde_json::from_value(payload).expect("the payload is one of the contract");
    match Box::pin(restorer.handle(request, now.parse().unwrap())).await {
        Ok(answer) => Ok(serde_json::to_value(answer).unwrap()),
        Err(error) => Err((error.name(), error.leftovers().clone())),
    }
}

async fn call(wire: &Wire, payload: Value) -> Result<Value, (ErrorName, Leftovers)> {
    call_at(wire, payload, "2026-01-02T04:10:00Z").await
}

fn set(world: &World, member: &str, value: &str) {
    world.state().databases.get_mut(&home(INSTANCE)).unwrap().set(member, value);
}

#[tokio::test]
async fn a_restore_is_begun_once_with_its_secret_written_down_first() {
    let world = world();
    let wire = world.wire();
    for _ in 0..2 {
        let answer = call(&wire, start()).await.unwrap();
        assert_eq!(answer["status"], "pending");
        assert_eq!(answer["progress"]["instanceStatus"], "creating");
    }
    let actions = wire.actions();
    let at = |action: &str| actions.iter().position(|seen| seen == action).unwrap();
    assert!(at("CreateSecret") < at("RestoreDBInstanceFromDBSnapshot"));
    let sent = wire.sent_of("RestoreDBInstanceFromDBSnapshot");
    assert_eq!((sent.len(), wire.sent_of("CreateSecret").len()), (1, 1));
    assert_eq!(sent[0].parameter("DBParameterGroupName"), "orders-16");
    assert_eq!(sent[0].parameter("DBInstanceClass"), "db.m7g.large");
    assert_eq!(sent[0].parameter("PubliclyAccessible"), "false");
    let tags = sent[0].tags();
    assert_eq!(
        (tags["lifeboat:role"].as_str(), tags["lifeboat:operation-id"].as_str()),
        ("temporary", OPERATION)
    );
    assert_eq!(tags["lifeboat:expires-at"], "2026-01-03T05:10:00Z");
    let secret: Value = serde_json::from_str(&world.state().secrets[SECRET]).unwrap();
    assert_eq!((&secret["username"], &secret["operationId"]), (&json!("master"), &json!(OPERATION)));
    assert_eq!(secret["password"].as_str().unwrap().len(), 40);
}

#[tokio::test]
async fn a_crash_after_the_secret_keeps_its_password() {
    let world = world();
    world.state().fail(
        "RestoreDBInstanceFromDBSnapshot",
        Reply::query_error(400, "InsufficientDBInstanceCapacity", "x"),
    );
    let wire = world.wire();
    let (name, leftovers) = call(&wire, start()).await.unwrap_err();
    assert_eq!(name, ErrorName::InsufficientCapacity);
    assert_eq!(leftovers, Leftovers::Remaining(vec![SECRET.to_owned()]));
    let written = world.state().secrets[SECRET].clone();
    call(&wire, start()).await.unwrap();
    assert_eq!(world.state().secrets[SECRET], written);
}

#[tokio::test]
async fn an_answer_that_was_lost_is_found_again() {
    let world = world();
    world.state().lose("RestoreDBInstanceFromDBSnapshot", Reply::Broken);
    let wire = world.wire();
    assert_eq!(call(&wire, start()).await.unwrap_err(), (ErrorName::AwsUnreachable, Leftovers::Unknown));
    assert_eq!(call(&wire, start()).await.unwrap()["status"], "pending");
    assert_eq!(wire.sent_of("RestoreDBInstanceFromDBSnapshot").len(), 1);
}

#[tokio::test]
async fn the_whole_life_of_a_restore() {
    let world = world();
    let wire = world.wire();
    call(&wire, start()).await.unwrap();
    assert_eq!(call(&wire, check()).await.unwrap()["status"], "pending");

    set(&world, "DBInstanceStatus", "available");
    let asked = call_at(&wire, check(), "2026-01-02T04:20:00Z").await.unwrap();
    assert_eq!(asked["progress"]["instanceStatus"], "resetting-master-credentials");
    let secret: Value = serde_json::from_str(&world.state().secrets[SECRET]).unwrap();
    let modified = wire.sent_of("ModifyDBInstance");
    assert_eq!(modified[0].parameter("MasterUserPassword"), secret["password"].as_str().unwrap());

    // RDS has not applied it yet, although the status still says `available`.
    assert_eq!(call_at(&wire, check(), "2026-01-02T04:20:05Z").await.unwrap()["status"], "pending");
    set(&world, "DBInstanceStatus", "resetting-master-credentials");
    assert_eq!(call_at(&wire, check(), "2026-01-02T04:20:10Z").await.unwrap()["status"], "pending");
    set(&world, "DBInstanceStatus", "available");
    world.state().databases.get_mut(&home(INSTANCE)).unwrap().raw =
        "<Endpoint><Address>127.0.0.1</Address><Port>5433</Port></Endpoint>".to_owned();
    for _ in 0..2 {
        assert_eq!(
            call_at(&wire, check(), "2026-01-02T04:30:00Z").await.unwrap(),
            json!({"status": "done", "instanceId": INSTANCE, "timeToAvailableSeconds": 1200,
                "endpoint": {"address": "127.0.0.1", "port": 5433},
                "took": {"durationSeconds": 1200, "step": {"kind": "restore", "region": "us-east-1",
                    "database": "orders", "engine": "postgres", "sizeGb": 0}}})
        );
    }
    assert_eq!(wire.sent_of("ModifyDBInstance").len(), 1, "the password is set once");

    assert_eq!(call(&wire, dispose()).await.unwrap()["status"], "pending");
    assert_eq!(call(&wire, dispose()).await.unwrap()["progress"]["instanceStatus"], "deleting");
    assert!(world.state().secrets.contains_key(SECRET), "the secret goes last");
    world.state().databases.remove(&home(INSTANCE));
    for _ in 0..2 {
        assert_eq!(call(&wire, dispose()).await.unwrap(), json!({"status": "done", "disposed": true}));
    }
    assert!(world.state().secrets.is_empty());
    assert_eq!(wire.sent_of("DeleteDBInstance").len(), 1);
    assert!(world.state().databases.contains_key(&home("orders")));
}

#[tokio::test]
async fn a_crash_between_password_and_tag_sets_the_same_password_again() {
    let world = world();
    let wire = world.wire();
    call(&wire, start()).await.unwrap();
    set(&world, "DBInstanceStatus", "available");
    world.state().fail("AddTagsToResource", Reply::Late);
    assert_eq!(call(&wire, check()).await.unwrap_err().0, ErrorName::AwsUnreachable);
    assert_eq!(call(&wire, check()).await.unwrap()["status"], "pending");
    let sent = wire.sent_of("ModifyDBInstance");
    assert_eq!(sent.len(), 2);
    assert_eq!(sent[0].parameter("MasterUserPassword"), sent[1].parameter("MasterUserPassword"));
}

#[tokio::test]
async fn an_instance_that_cannot_be_deleted_yet_is_tried_again() {
    let world = world();
    let wire = world.wire();
    call(&wire, start()).await.unwrap();
    assert_eq!(call(&wire, dispose()).await.unwrap()["progress"]["instanceStatus"], "not deletable yet");
    set(&world, "DBInstanceStatus", "incompatible-network");
    assert_eq!(call(&wire, dispose()).await.unwrap()["progress"]["instanceStatus"], "deleting");
    assert_eq!(wire.sent_of("DeleteDBInstance").len(), 2);
}

#[tokio::test]
async fn disposing_of_nothing_is_done() {
    let wire = world().wire();
    assert_eq!(call(&wire, dispose()).await.unwrap()["status"], "done");
    assert!(wire.sent_of("DeleteDBInstance").is_empty() && wire.sent_of("DeleteSecret").is_empty());
}

#[tokio::test]
async fn what_is_not_ours_is_neither_used_nor_deleted() {
    let world = world();
    let foreign = Resource::new(&[
        ("DBInstanceIdentifier", INSTANCE),
        ("DBInstanceArn", "arn:aws:rds:us-east-1:000000000000:db:x"),
        ("DBInstanceStatus", "available"),
    ]);
    world.state().databases.insert(home(INSTANCE), foreign);
    let wire = world.wire();
    for payload in [start(), check(), dispose()] {
        assert_eq!(call(&wire, payload).await.unwrap_err().0, ErrorName::TargetNotOurs);
    }
    world.state().databases.remove(&home(INSTANCE));
    let content = r#"{"username":"u","password":"p"}"#.to_owned();
    world.state().secrets.insert(SECRET.to_owned(), content.clone());
    for payload in [start(), dispose()] {
        assert_eq!(call(&wire, payload).await.unwrap_err().0, ErrorName::TargetNotOurs);
    }
    assert_eq!(world.state().secrets[SECRET], content);
    for action in ["ModifyDBInstance", "DeleteDBInstance", "RestoreDBInstanceFromDBSnapshot", "DeleteSecret"]
    {
        assert!(wire.sent_of(action).is_empty(), "{action}");
    }
}

#[tokio::test]
async fn other_names_than_the_operations_own_ask_nothing_of_aws() {
    let wire = world().wire();
    for (field, value) in [("instanceId", "orders"), ("secretId", "prod/orders")] {
        for (mut payload, action) in [(start(), "start"), (check(), "check"), (dispose(), "dispose")] {
            payload[action]["target"][field] = json!(value);
            assert_eq!(
                call(&wire, payload).await.unwrap_err().0,
                ErrorName::InvalidInput,
                "{action} {field}"
            );
        }
    }
    assert!(wire.sent().is_empty());
}

#[tokio::test]
async fn troubles_have_their_names() {
    for (code, name) in [
        ("InstanceQuotaExceeded", ErrorName::InstanceQuotaExceeded),
        ("KMSKeyNotAccessibleFault", ErrorName::KeyNotAccessible),
        ("DBSubnetGroupNotFoundFault", ErrorName::InvalidConfiguration),
        ("DBParameterGroupNotFound", ErrorName::RestoreIncompatible),
        ("InvalidRestoreFault", ErrorName::RestoreFailed),
    ] {
        let world = world();
        world.state().fail("RestoreDBInstanceFromDBSnapshot", Reply::query_error(400, code, "x"));
        assert_eq!(call(&world.wire(), start()).await.unwrap_err().0, name, "{code}");
    }
    for (status, name) in [
        ("incompatible-network", ErrorName::RestoreIncompatible),
        ("failed", ErrorName::RestoreFailed),
        ("inaccessible-encryption-credentials", ErrorName::KeyNotAccessible),
    ] {
        let world = world();
        let wire = world.wire();
        call(&wire, start()).await.unwrap();
        set(&world, "DBInstanceStatus", status);
        assert_eq!(call(&wire, check()).await.unwrap_err().0, name, "{status}");
    }
    let slow = world();
    let wire = slow.wire();
    call(&wire, start()).await.unwrap();
    let late = call_at(&wire, check(), "2026-01-02T05:00:01Z").await.unwrap_err();
    assert_eq!(late.0, ErrorName::RestoreTimeout);
    let gone = world();
    gone.state().snapshots.clear();
    assert_eq!(call(&gone.wire(), start()).await.unwrap_err().0, ErrorName::SnapshotMissing);
}

/// A snapshot `shop-1` of the Aurora cluster `shop`, whose writer is `writer`.
fn aurora_world() -> World {
    let world = world();
    let snapshot = Resource::new(&[
        ("DBClusterSnapshotIdentifier", "shop-1"),
        ("DBClusterSnapshotArn", "arn:aws:rds:us-east-1:000000000000:cluster-snapshot:shop-1"),
        ("DBClusterIdentifier", "shop"),
        ("Status", "available"),
        ("SnapshotType", "manual"),
        ("Engine", "aurora-postgresql"),
        ("EngineVersion", "16.4"),
        ("MasterUsername", "master"),
        ("Port", "0"),
    ]);
    let mut shop = Resource::new(&[
        ("DBClusterIdentifier", "shop"),
        ("DBClusterArn", "arn:aws:rds:us-east-1:000000000000:cluster:shop"),
        ("Status", "available"),
        ("Engine", "aurora-postgresql"),
        ("EngineVersion", "16.4"),
        ("DBClusterParameterGroup", "shop-16"),
    ]);
    shop.raw.push_str(
        "<DBClusterMembers><DBClusterMember><DBInstanceIdentifier>writer</DBInstanceIdentifier>\
        <IsClusterWriter>true</IsClusterWriter></DBClusterMember></DBClusterMembers>\
        <ServerlessV2ScalingConfiguration><MinCapacity>1.5</MinCapacity><MaxCapacity>8</MaxCapacity>\
        </ServerlessV2ScalingConfiguration>",
    );
    let writer = Resource::new(&[
        ("DBInstanceIdentifier", "writer"),
        ("DBInstanceArn", "arn:aws:rds:us-east-1:000000000000:db:writer"),
        ("DBInstanceStatus", "available"),
        ("DBInstanceClass", "db.serverless"),
        ("DBClusterIdentifier", "shop"),
    ]);
    let mut state = world.state();
    state.cluster_snapshots.insert(home("shop-1"), snapshot);
    state.clusters.insert(home("shop"), shop);
    state.databases.insert(home("writer"), writer);
    drop(state);
    world
}

fn start_aurora(kind: Option<&str>) -> Value {
    json!({"start": {"operationId": OPERATION, "snapshotId": "shop-1", "database": null, "databaseKind": kind,
        "target": {"instanceId": INSTANCE, "secretId": SECRET}}})
}

fn set_cluster(world: &World, member: &str, value: &str) {
    world.state().clusters.get_mut(&home(INSTANCE)).unwrap().set(member, value);
}

fn settle_cluster(world: &World) {
    world.state().clusters.get_mut(&home(INSTANCE)).unwrap().raw.clear();
}

#[tokio::test]
async fn the_whole_life_of_a_restored_aurora_cluster() {
    let world = aurora_world();
    let wire = world.wire();
    for kind in [None, Some("cluster")] {
        assert_eq!(call(&wire, start_aurora(kind)).await.unwrap()["status"], "pending");
    }
    let restored = wire.sent_of("RestoreDBClusterFromSnapshot");
    assert_eq!((restored.len(), wire.sent_of("CreateSecret").len()), (1, 1));
    assert_eq!(restored[0].parameter("DBClusterParameterGroupName"), "shop-16");
    assert_eq!(restored[0].parameter("ServerlessV2ScalingConfiguration.MinCapacity"), "1.5");
    assert_eq!(restored[0].parameter("BackupRetentionPeriod"), "1");
    assert_eq!(restored[0].parameter("DeletionProtection"), "false");
    assert_eq!(restored[0].parameter("Port"), "");

    let waiting = call(&wire, check()).await.unwrap();
    assert_eq!(waiting["progress"]["instanceStatus"], "cluster creating");
    assert!(wire.sent_of("CreateDBInstance").is_empty(), "a member only once the cluster is available");
    set_cluster(&world, "Status", "available");
    call(&wire, check()).await.unwrap();
    let member = &wire.sent_of("CreateDBInstance")[0];
    assert_eq!(member.parameter("DBInstanceClass"), "db.serverless");
    assert_eq!(member.parameter("DBClusterIdentifier"), INSTANCE);
    assert_eq!(member.parameter("PubliclyAccessible"), "false");
    assert_eq!(member.tags()["lifeboat:operation-id"], OPERATION);
    assert_eq!(call(&wire, check()).await.unwrap()["progress"]["instanceStatus"], "creating");
    assert_eq!(wire.sent_of("CreateDBInstance").len(), 1);

    set(&world, "DBInstanceStatus", "available");
    call_at(&wire, check(), "2026-01-02T04:20:00Z").await.unwrap();
    assert_eq!((wire.sent_of("ModifyDBCluster").len(), wire.sent_of("ModifyDBInstance").len()), (1, 0));
    assert_eq!(call(&wire, check()).await.unwrap()["status"], "pending", "the password is not applied yet");
    settle_cluster(&world);
    world.state().databases.get_mut(&home(INSTANCE)).unwrap().raw =
        "<Endpoint><Address>127.0.0.1</Address><Port>5433</Port></Endpoint>".to_owned();
    let ready = call_at(&wire, check(), "2026-01-02T04:30:00Z").await.unwrap();
    assert_eq!((&ready["status"], &ready["timeToAvailableSeconds"]), (&json!("done"), &json!(1200)));
    assert_eq!(wire.sent_of("ModifyDBCluster").len(), 1, "the password is set once");

    assert_eq!(call(&wire, dispose()).await.unwrap()["progress"]["instanceStatus"], "deleting");
    let deleted = &wire.sent_of("DeleteDBInstance")[0];
    assert_eq!(
        (deleted.parameter("SkipFinalSnapshot"), deleted.parameter("DeleteAutomatedBackups")),
        ("true".into(), String::new())
    );
    assert_eq!(call(&wire, dispose()).await.unwrap()["progress"]["instanceStatus"], "deleting");
    assert!(wire.sent_of("DeleteDBCluster").is_empty(), "instances go first");
    world.state().databases.remove(&home(INSTANCE));
    assert_eq!(call(&wire, dispose()).await.unwrap()["progress"]["instanceStatus"], "cluster deleting");
    let deleted = &wire.sent_of("DeleteDBCluster")[0];
    assert_eq!(deleted.parameter("DeleteAutomatedBackups"), "true");
    assert_eq!(call(&wire, dispose()).await.unwrap()["progress"]["instanceStatus"], "deleting");
    assert!(world.state().secrets.contains_key(SECRET), "the secret goes last");
    world.state().clusters.remove(&home(INSTANCE));
    for _ in 0..2 {
        assert_eq!(call(&wire, dispose()).await.unwrap(), json!({"status": "done", "disposed": true}));
    }
    assert!(world.state().secrets.is_empty());
    assert!(world.state().clusters.contains_key(&home("shop")));
}

#[tokio::test]
async fn answers_about_a_cluster_that_were_lost_are_found_again() {
    let world = aurora_world();
    let wire = world.wire();
    let lost = (ErrorName::AwsUnreachable, Leftovers::Unknown);
    world.state().lose("RestoreDBClusterFromSnapshot", Reply::Broken);
    assert_eq!(call(&wire, start_aurora(None)).await.unwrap_err(), lost);
    call(&wire, start_aurora(None)).await.unwrap();
    set_cluster(&world, "Status", "available");
    world.state().lose("CreateDBInstance", Reply::Broken);
    assert_eq!(call(&wire, check()).await.unwrap_err(), lost);
    call(&wire, check()).await.unwrap();
    set(&world, "DBInstanceStatus", "available");
    world.state().lose("DeleteDBInstance", Reply::Broken);
    assert_eq!(call(&wire, dispose()).await.unwrap_err(), lost);
    call(&wire, dispose()).await.unwrap();
    world.state().databases.remove(&home(INSTANCE));
    world.state().lose("DeleteDBCluster", Reply::Broken);
    assert_eq!(call(&wire, dispose()).await.unwrap_err(), lost);
    assert_eq!(call(&wire, dispose()).await.unwrap()["progress"]["instanceStatus"], "deleting");
    for action in ["RestoreDBClusterFromSnapshot", "CreateDBInstance", "DeleteDBInstance", "DeleteDBCluster"]
    {
        assert_eq!(wire.sent_of(action).len(), 1, "{action}");
    }
}

#[tokio::test]
async fn a_multi_az_clusters_snapshot_becomes_an_instance() {
    let world = aurora_world();
    world.state().cluster_snapshots.get_mut(&home("shop-1")).unwrap().set("Engine", "postgres");
    world.state().clusters.get_mut(&home("shop")).unwrap().set("DBClusterInstanceClass", "db.m6gd.large");
    let wire = world.wire();
    call(&wire, start_aurora(None)).await.unwrap();
    let sent = &wire.sent_of("RestoreDBInstanceFromDBSnapshot")[0];
    assert_eq!(sent.parameter("DBClusterSnapshotIdentifier"), "shop-1");
    assert_eq!(
        (sent.parameter("DBSnapshotIdentifier"), sent.parameter("DBParameterGroupName")),
        Default::default()
    );
    assert_eq!(sent.parameter("DBInstanceClass"), "db.m6gd.large");
    assert!(wire.sent_of("RestoreDBClusterFromSnapshot").is_empty());
}

#[tokio::test]
async fn a_cluster_that_is_not_ours_is_neither_used_nor_deleted() {
    let world = aurora_world();
    let foreign = Resource::new(&[
        ("DBClusterIdentifier", INSTANCE),
        ("DBClusterArn", "arn:aws:rds:us-east-1:000000000000:cluster:x"),
        ("Status", "available"),
    ]);
    world.state().clusters.insert(home(INSTANCE), foreign);
    let wire = world.wire();
    for payload in [start_aurora(None), check(), dispose()] {
        assert_eq!(call(&wire, payload).await.unwrap_err().0, ErrorName::TargetNotOurs);
    }
    for action in ["ModifyDBCluster", "DeleteDBCluster", "CreateDBInstance", "RestoreDBClusterFromSnapshot"] {
        assert!(wire.sent_of(action).is_empty(), "{action}");
    }
}

#[tokio::test]
async fn a_name_of_two_snapshots_is_asked_about() {
    let world = aurora_world();
    let twin = world.state().snapshots[&home("orders-1")].clone();
    world.state().snapshots.insert(home("shop-1"), twin);
    let wire = world.wire();
    let error = call(&wire, start_aurora(None)).await.unwrap_err().0;
    assert_eq!(error, ErrorName::DatabaseAmbiguous);
    call(&wire, start_aurora(Some("cluster"))).await.unwrap();
    assert_eq!(wire.sent_of("RestoreDBClusterFromSnapshot").len(), 1);
}

#[test]
fn configuration_faults_are_named_together() {
    let error =
        Config::read(Vars::new(|name| (name == "DR_RESTORE_TIMEOUT_MINUTES").then(|| "soon".to_owned())));
    let error = error.unwrap_err();
    assert_eq!(error.name(), ErrorName::InvalidConfiguration);
    for name in ["DR_RESTORE_SUBNET_GROUP", "DR_RESTORE_SECURITY_GROUP_IDS", "DR_RESTORE_TIMEOUT_MINUTES"] {
        assert!(error.what().contains(name), "{error}");
    }
}
