//! Blocks of Regions, over a wire that sees what leaves the function.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use aws_types::sdk_config::TimeSource;
use dr_core::changes::{Expect, Item, Write};
use dr_core::chaos::blocks::{self, RegionBlock};
use dr_core::ids::{KmsKeyId, OperationId, Region, SnapshotId};
use dr_core::observed::{Observed, SnapshotArn};
use dr_core::replication::CopyRequest;
use dr_core::{DrError, ErrorName, Leftovers};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::clients::Clients;
use crate::errors::Call;
use crate::raw::{Raw, Request, read_json};
use crate::testing::{Reply, Sent, Wire, rds_answer};

const OWNER: &str = "chaos-0123456789abcdef";

fn start() -> Timestamp {
    "2026-11-25T12:00:00Z".parse().unwrap()
}

fn region(name: &str) -> Region {
    Region::parse(name).unwrap()
}

/// A clock that the test sets.
#[derive(Debug, Clone)]
struct Clock(Arc<Mutex<SystemTime>>);

impl Clock {
    fn pass(&self, seconds: u64) {
        *self.0.lock().unwrap() += Duration::from_secs(seconds);
    }
}

impl TimeSource for Clock {
    fn now(&self) -> SystemTime {
        *self.0.lock().unwrap()
    }
}

/// An AWS in which everything is answered, and a function whose calls are gated.
struct Stage {
    wire: Wire,
    clock: Clock,
    clients: Clients,
    /// What `GetItem` is answered with, by key; nothing else has an item.
    table: Arc<Mutex<BTreeMap<String, Reply>>>,
}

impl Stage {
    fn new() -> Self {
        let table: Arc<Mutex<BTreeMap<String, Reply>>> = Arc::default();
        let answers = Arc::clone(&table);
        let wire = Wire::new(move |sent: &Sent| match sent.action.as_str() {
            "GetItem" => {
                assert_eq!(sent.scope, "us-east-1/dynamodb");
                assert_eq!(sent.json()["TableName"], "State");
                assert_eq!(sent.json()["ConsistentRead"], true);
                let key = sent.json()["Key"]["operationId"]["S"].as_str().unwrap().to_owned();
                answers.lock().unwrap().get(&key).cloned().unwrap_or_else(|| Reply::ok("{}"))
            }
            "CopyDBSnapshot" => rds_answer("CopyDBSnapshot", SNAPSHOT),
            "GetSecretValue" => Reply::json_error("ResourceNotFoundException", "no such secret"),
            "DescribeKey" => Reply::json_error("NotFoundException", "no such key"),
            _ => Reply::ok("{}"),
        });
        let clock = Clock(Arc::new(Mutex::new(SystemTime::from(start()))));
        let config = wire.config().to_builder().time_source(clock.clone()).build();
        let clients = Clients::new(config).unwrap().behind_blocks("State".to_owned());
        Self { wire, clock, clients, table }
    }

    fn answer(&self, region: &Region, reply: Reply) {
        self.table.lock().unwrap().insert(RegionBlock::key(region), reply);
    }

    fn block(&self, region: &Region, seconds: i64) {
        let until = start() + SignedDuration::from_secs(seconds);
        let owner = OperationId::parse(OWNER).unwrap();
        let change = blocks::block(region, &owner, start(), until, None);
        let [Write::Put(Item::RegionBlock(block), Expect::Absent)] = &change.writes[..] else { panic!() };
        self.answer(region, Reply::ok(item(&serde_json::to_value(block).unwrap())));
    }

    fn lift(&self, region: &Region) {
        self.table.lock().unwrap().remove(&RegionBlock::key(region));
    }

    /// A call that changes something.
    async fn copy(&self, to: &str) -> Result<(), DrError> {
        let request = CopyRequest {
            source: SnapshotArn::parse("arn:aws:rds:us-east-1:000000000000:snapshot:rds:orders-1").unwrap(),
            id: SnapshotId::parse("rds-orders-1").unwrap(),
            kms_key_arn: format!("arn:aws:kms:{to}:000000000000:key/1"),
            option_group: None,
            tags: BTreeMap::new(),
        };
        self.clients.rds(&region(to)).copy_snapshot(&request).await.map(drop)
    }

    /// The requests of an action that left the function, by Region.
    fn left(&self, action: &str) -> Vec<String> {
        self.wire.sent_of(action).iter().map(|sent| sent.region().to_owned()).collect()
    }
}

const SNAPSHOT: &str = "<DBSnapshot><DBSnapshotIdentifier>rds-orders-1</DBSnapshotIdentifier>\
    <DBSnapshotArn>arn:aws:rds:us-west-2:000000000000:snapshot:rds-orders-1</DBSnapshotArn>\
    <DBInstanceIdentifier>orders</DBInstanceIdentifier><Status>creating</Status></DBSnapshot>";

/// An item as DynamoDB writes it.
fn item(plain: &Value) -> String {
    let members = plain.as_object().unwrap().iter().map(|(name, value)| {
        let typed = match value {
            Value::Number(number) => json!({"N": number.to_string()}),
            text => json!({"S": text}),
        };
        (name.clone(), typed)
    });
    json!({"Item": members.collect::<serde_json::Map<_, _>>()}).to_string()
}

#[tokio::test]
async fn nothing_leaves_for_a_blocked_region_and_the_error_says_which_experiment_wants_it_so() {
    let stage = Stage::new();
    let west = region("us-west-2");
    stage.block(&west, 300);
    let error = stage.copy("us-west-2").await.unwrap_err();
    assert_eq!(error.name(), ErrorName::AwsUnreachable);
    for part in ["copying", "us-west-2", OWNER, "2026-11-25T12:05:00Z", "unblock"] {
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
    assert_eq!(*error.leftovers(), Leftovers::Clear, "it was never sent");
    // Another client, and one without a generated client.
    let key = KmsKeyId::parse("arn:aws:kms:us-west-2:000000000000:key/1").unwrap();
    let observed = stage.clients.kms(&west).describe_key(&key).await;
    assert!(matches!(observed, Observed::Unreachable(error) if error.name() == ErrorName::AwsUnreachable));
    stage.copy("us-east-1").await.unwrap();
    stage.copy("eu-west-1").await.unwrap();
    assert_eq!(stage.left("CopyDBSnapshot"), ["us-east-1", "eu-west-1"]);
    assert_eq!(stage.left("DescribeKey"), [""; 0]);
    assert_eq!(stage.left("GetItem").len(), 3, "once for each Region");
}

#[tokio::test]
async fn a_call_without_a_generated_client_is_gated_as_well() {
    let stage = Stage::new();
    let west = region("us-west-2");
    // It has a clock of its own.
    stage.block(&west, 100 * 365 * 86_400);
    let ask = async |region: &Region| {
        let raw: Raw<Value> = Raw::new(stage.clients.config(), "monitoring", region, read_json);
        let call = Call::read("cloudwatch:ListMetrics", format!("listing metrics in {region}"));
        raw.ask(&call, Request::json("GraniteServiceVersion20100801.ListMetrics", &json!({}))).await
    };
    let refused = ask(&west).await.unwrap_err().error;
    assert_eq!(refused.name(), ErrorName::AwsUnreachable);
    assert!(refused.to_string().contains(OWNER), "{refused}");
    ask(&region("eu-west-1")).await.unwrap();
    assert_eq!(stage.left("ListMetrics"), ["eu-west-1"]);
}

#[tokio::test]
async fn the_home_region_can_be_blocked_and_its_table_is_read_all_the_same() {
    let stage = Stage::new();
    stage.block(&region("us-east-1"), 300);
    for _ in 0..2 {
        let error = stage.clients.secrets().read("orders-user").await.unwrap_err();
        assert_eq!(error.name(), ErrorName::AwsUnreachable, "{error}");
        stage.clock.pass(6);
    }
    stage.lift(&region("us-east-1"));
    assert!(stage.clients.secrets().read("orders-user").await.unwrap().is_none());
    assert_eq!(stage.left("GetItem").len(), 3);
    assert_eq!(stage.left("GetSecretValue").len(), 1);
}

#[tokio::test]
async fn a_block_is_believed_for_five_seconds_and_ends_by_itself() {
    let stage = Stage::new();
    let west = region("us-west-2");
    stage.copy("us-west-2").await.unwrap();
    stage.block(&west, 60);
    // Known to be open a moment ago.
    stage.clock.pass(4);
    stage.copy("us-west-2").await.unwrap();
    assert_eq!(stage.left("GetItem").len(), 1);
    stage.clock.pass(1);
    stage.copy("us-west-2").await.unwrap_err();
    assert_eq!(stage.left("GetItem").len(), 2);
    // 59 seconds, and 60: it is still there, and counts no more.
    stage.clock.pass(54);
    stage.copy("us-west-2").await.unwrap_err();
    stage.clock.pass(1);
    stage.copy("us-west-2").await.unwrap();
    // Longer ones are lifted.
    stage.block(&west, 600);
    stage.clock.pass(5);
    stage.copy("us-west-2").await.unwrap_err();
    stage.lift(&west);
    stage.clock.pass(5);
    stage.copy("us-west-2").await.unwrap();
}

#[tokio::test]
async fn blocks_that_cannot_be_read_stop_nothing_and_lift_nothing() {
    let malformed = item(&json!({"operationId": "region-block#us-west-2", "blockedUntil": "soon"}));
    for trouble in [
        Reply::Broken,
        Reply::Late,
        Reply::json_error("ResourceNotFoundException", "no such table"),
        Reply::json_error("AccessDeniedException", "no"),
        Reply::ok("<html>"),
        Reply::ok(malformed),
    ] {
        let stage = Stage::new();
        let west = region("us-west-2");
        stage.answer(&west, trouble.clone());
        stage.copy("us-west-2").await.unwrap();
        stage.copy("us-west-2").await.unwrap();
        assert_eq!(stage.left("GetItem").len(), 1, "{trouble:?}: one look, and no second at once");
        stage.block(&west, 60);
        stage.clock.pass(5);
        stage.copy("us-west-2").await.unwrap_err();
        stage.answer(&west, trouble.clone());
        stage.clock.pass(10);
        stage.copy("us-west-2").await.unwrap_err();
        stage.clock.pass(45);
        stage.copy("us-west-2").await.unwrap();
    }
}

#[tokio::test]
async fn without_a_table_nothing_is_read() {
    let stage = Stage::new();
    let clients = Clients::new(stage.wire.config()).unwrap();
    clients.secrets().read("orders-user").await.unwrap();
    assert_eq!(stage.wire.actions(), ["GetSecretValue"]);
}
