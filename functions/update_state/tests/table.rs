//! `update_state` against a state table in memory, spoken to over the wire: conditions are evaluated as DynamoDB
//! does, a transaction happens whole or not at all.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use dr_aws::Invocation;
use dr_aws::executions::Executions;
use dr_aws::state::StateTable;
use dr_aws::testing::{Reply, Sent, Wire};
use dr_core::config::Vars;
use dr_core::{ErrorName, Result};
use jiff::Timestamp;
use serde_json::{Value, json};
use update_state::{Config, Handler, Request};

/// Somebody else's write to the items.
type Interference = Box<dyn FnOnce(&mut BTreeMap<String, Value>) + Send>;

/// The table, and what Step Functions says of executions.
#[derive(Default)]
struct Cloud {
    items: BTreeMap<String, Value>,
    executions: BTreeMap<String, &'static str>,
    /// Answers the next transactions with this instead.
    instead: Vec<Reply>,
    /// Done to the table right before the next transaction: somebody else's write.
    in_between: Option<Interference>,
    /// Whether updates without a condition are refused.
    no_updates: bool,
}

impl Cloud {
    fn answer(&mut self, sent: &Sent) -> Reply {
        let request = sent.json();
        match sent.action.as_str() {
            "GetItem" => {
                assert_eq!(request["ConsistentRead"], true, "decisions need consistent reads");
                let key = request["Key"]["operationId"]["S"].as_str().unwrap();
                Reply::ok(self.items.get(key).map_or(json!({}), |item| json!({"Item": item})).to_string())
            }
            "TransactWriteItems" => self.transact(&request),
            "UpdateItem" if self.no_updates => Reply::json_error("AccessDeniedException", "no"),
            "UpdateItem" => {
                assert_eq!(request["UpdateExpression"], "SET #a = :a, #t = :t, #e = :e");
                let key = &request["Key"]["operationId"];
                let item = self.items.entry(key["S"].as_str().unwrap().to_owned()).or_insert(json!({}));
                item["operationId"] = key.clone();
                for (name, value) in [("#a", ":a"), ("#t", ":t"), ("#e", ":e")] {
                    let name = request["ExpressionAttributeNames"][name].as_str().unwrap();
                    item[name] = request["ExpressionAttributeValues"][value].clone();
                }
                Reply::ok("{}")
            }
            "DescribeExecution" => {
                let arn = request["executionArn"].as_str().unwrap();
                match self.executions.get(arn) {
                    Some(status) => Reply::ok(
                        json!({"executionArn": arn, "stateMachineArn": arn, "status": status, "startDate": 1.0})
                            .to_string(),
                    ),
                    None => Reply::json_error("ExecutionDoesNotExist", "no"),
                }
            }
            other => panic!("{other} is not used by update_state"),
        }
    }

    fn transact(&mut self, request: &Value) -> Reply {
        if !self.instead.is_empty() {
            return self.instead.remove(0);
        }
        if let Some(write) = self.in_between.take() {
            write(&mut self.items);
        }
        let writes = request["TransactItems"].as_array().unwrap();
        let reasons: Vec<Value> = writes
            .iter()
            .map(|write| {
                let (_, write) = write.as_object().unwrap().iter().next().unwrap();
                json!({"Code": if self.holds(write) { "None" } else { "ConditionalCheckFailed" }})
            })
            .collect();
        if reasons.iter().any(|reason| reason["Code"] != "None") {
            let body = json!({"__type": "com.amazonaws.dynamodb.v20120810#TransactionCanceledException",
                "Message": "cancelled", "CancellationReasons": reasons});
            return Reply::Answer { status: 400, body: body.to_string() };
        }
        for write in writes {
            if let Some(item) = write.pointer("/Put/Item") {
                self.items.insert(item["operationId"]["S"].as_str().unwrap().to_owned(), item.clone());
            } else if let Some(key) = write.pointer("/Delete/Key/operationId/S") {
                self.items.remove(key.as_str().unwrap());
            }
        }
        Reply::ok("{}")
    }

    fn holds(&self, write: &Value) -> bool {
        let key = write.pointer("/Item/operationId/S").or_else(|| write.pointer("/Key/operationId/S"));
        let item = self.items.get(key.unwrap().as_str().unwrap());
        match write["ConditionExpression"].as_str().unwrap() {
            "attribute_not_exists(#c)" => item.is_none(),
            "#c = :version" => {
                assert_eq!(write["ExpressionAttributeNames"]["#c"], "version");
                item.is_some_and(|item| item["version"] == write["ExpressionAttributeValues"][":version"])
            }
            other => panic!("an unknown condition: {other}"),
        }
    }
}

struct Bench {
    cloud: Arc<Mutex<Cloud>>,
    handler: Handler,
    now: Timestamp,
}

impl Bench {
    fn new() -> Self {
        let cloud = Arc::new(Mutex::new(Cloud::default()));
        let answering = Arc::clone(&cloud);
        let wire = Wire::new(move |sent| answering.lock().unwrap().answer(sent));
        let clients = wire.clients().unwrap();
        let config = Config::read(Vars::new(|name| match name {
            "DR_STATE_TABLE_NAME" => Some("DisasterRecoveryState".to_owned()),
            "DR_TARGET_REGIONS" => Some("us-west-2".to_owned()),
            "DR_TARGET_KMS_KEY_IDS" => Some("us-west-2=alias/copies".to_owned()),
            "DR_BREAKER_FAILURES" => Some("2".to_owned()),
            _ => None,
        }))
        .unwrap();
        let handler = Handler {
            table: StateTable::new(clients.dynamodb(), &config.table),
            executions: Executions::new(clients.config()),
            config,
        };
        Self { cloud, handler, now: "2026-01-02T03:04:05Z".parse().unwrap() }
    }

    async fn ask(&self, request: Value) -> Result<Value> {
        let request: Request = dr_core::input::parse("a request", request)?;
        let invocation = Invocation {
            request_id: "r".to_owned(),
            received_at: self.now,
            deadline: self.now,
            function_arn: "arn:aws:lambda:us-east-1:123456789012:function:update-state".to_owned(),
        };
        self.handler.handle(request, &invocation).await
    }

    async fn refused(&self, request: Value) -> ErrorName {
        self.ask(request).await.unwrap_err().name()
    }

    fn with<T>(&self, look: impl FnOnce(&mut Cloud) -> T) -> T {
        look(&mut self.cloud.lock().unwrap())
    }
}

fn execution(name: &str) -> String {
    format!("arn:aws:states:us-east-1:123456789012:execution:backup:{name}")
}

fn begin(name: &str) -> Value {
    json!({"begin": {"execution": execution(name), "startedAt": "2026-01-02T03:00:00.123Z", "kind": "backup",
        "request": {"database": "orders"}}})
}

fn fail(name: &str, error: &str, cause: &str) -> Value {
    json!({"fail": {"execution": execution(name), "startedAt": "2026-01-02T03:00:00.123Z", "kind": "backup",
        "request": {"database": "orders"}, "error": error, "cause": cause}})
}

#[tokio::test]
async fn a_backup_begins_is_recorded_and_ends() {
    let bench = Bench::new();
    let plan = bench.ask(begin("a")).await.unwrap();
    assert_eq!(
        plan["snapshotId"],
        format!("lifeboat-orders-20260102-030000-{}", &plan["operationId"].as_str().unwrap()[7..15])
    );
    assert_eq!(plan["targets"], json!([{"region": "us-west-2", "kmsKeyId": "alias/copies"}]));
    assert_eq!((&plan["account"], &plan["region"]), (&json!("123456789012"), &json!("us-east-1")));
    let id = plan["operationId"].as_str().unwrap().to_owned();

    bench
        .ask(json!({"checkpoint": {"operationId": id, "name": "snapshot", "data": {"sizeGb": 20}}}))
        .await
        .unwrap();
    bench.ask(json!({"progress": {"operationId": id, "state": "CopyToRegion"}})).await.unwrap();
    let ended = bench.ask(json!({"succeed": {"operationId": id, "result": {"copies": []}}})).await.unwrap();
    assert_eq!(ended["status"], "succeeded");

    let record = bench.ask(json!({"status": {"operationId": id}})).await.unwrap();
    assert_eq!(record["status"], "succeeded");
    assert_eq!(record["checkpoints"]["snapshot"]["sizeGb"], 20);
    assert_eq!(record["resourceId"], "orders");
    bench.with(|cloud| {
        assert_eq!(cloud.items[&id]["type"]["S"], "backup");
        assert_eq!(cloud.items[&id]["startedAt"]["S"], "2026-01-02T03:00:00.123Z");
        assert!(cloud.items[&id]["expiresAt"]["N"].is_string(), "the TTL is a number");
        assert!(!cloud.items.keys().any(|key| key.starts_with("lock#")));
    });
}

#[tokio::test]
async fn a_repeated_beginning_answers_the_same_and_writes_nothing() {
    let bench = Bench::new();
    let first = bench.ask(begin("a")).await.unwrap();
    let items = bench.with(|cloud| cloud.items.clone());
    assert_eq!(bench.ask(begin("a")).await.unwrap(), first);
    assert_eq!(bench.with(|cloud| cloud.items.clone()), items);
}

#[tokio::test]
async fn an_answer_that_is_lost_after_success_does_no_harm() {
    let bench = Bench::new();
    let wire_breaks = |cloud: &mut Cloud| cloud.instead = vec![Reply::Broken];
    bench.with(wire_breaks);
    let error = bench.ask(begin("a")).await.unwrap_err();
    assert_eq!(error.name(), ErrorName::AwsUnreachable);
    assert_eq!(error.leftovers(), &dr_core::Leftovers::Unknown);
    bench.ask(begin("a")).await.unwrap();
}

#[tokio::test]
async fn the_lock_of_an_execution_that_ended_is_taken_over() {
    let bench = Bench::new();
    bench.ask(begin("a")).await.unwrap();
    for (status, free) in [("RUNNING", false), ("PENDING_REDRIVE", false), ("ABORTED", true)] {
        bench.with(|cloud| cloud.executions.insert(execution("a"), status));
        if free {
            bench.ask(begin("b")).await.unwrap();
        } else {
            assert_eq!(bench.refused(begin("b")).await, ErrorName::OperationInProgress, "{status}");
        }
    }
}

#[tokio::test]
async fn a_lost_race_is_decided_again_on_what_is_there_then() {
    let bench = Bench::new();
    bench.with(|cloud| {
        cloud.in_between = Some(Box::new(|items| {
            items.insert(
                "emergency-stop".into(),
                json!({"operationId": {"S": "emergency-stop"},
                "inForce": {"BOOL": true}, "by": {"S": "ada"}, "reason": {"S": "drill"},
                "at": {"S": "2026-01-02T03:04:05Z"}, "version": {"N": "1"}}),
            );
        }));
    });
    assert_eq!(bench.refused(begin("a")).await, ErrorName::EmergencyStopActive);
    assert_eq!(bench.with(|cloud| cloud.items.len()), 1);
}

#[tokio::test]
async fn a_race_that_is_lost_again_and_again_can_be_retried_by_the_state_machine() {
    let bench = Bench::new();
    let lost = json!({"__type": "TransactionCanceledException", "CancellationReasons": [{"Code": "TransactionConflict"}]});
    bench.with(|cloud| cloud.instead = vec![Reply::Answer { status: 400, body: lost.to_string() }; 5]);
    assert_eq!(bench.refused(begin("a")).await, ErrorName::StateConflict);
}

#[tokio::test]
async fn failures_open_the_breaker_and_are_recorded_with_their_names() {
    let bench = Bench::new();
    for name in ["a", "b"] {
        bench.ask(begin(name)).await.unwrap();
        let cause = json!({"errorType": "Dr.AwsFault", "errorMessage": "asking RDS. Wait."}).to_string();
        let answer = bench.ask(fail(name, "Dr.AwsFault", &cause)).await.unwrap();
        assert_eq!(answer["error"]["code"], "AWS_FAULT");
        assert_eq!(answer["error"]["message"], "asking RDS. Wait.");
    }
    assert_eq!(bench.refused(begin("c")).await, ErrorName::CircuitBreakerOpen);
    // What was refused is recorded, too.
    bench.ask(fail("c", "Dr.CircuitBreakerOpen", "{}")).await.unwrap();
}

#[tokio::test]
async fn the_emergency_stop_refuses_until_it_is_lifted() {
    let bench = Bench::new();
    let stop = json!({"emergencyStop": {"by": "ada", "reason": "drill"}});
    bench.ask(stop.clone()).await.unwrap();
    bench.ask(stop).await.unwrap();
    assert_eq!(bench.refused(begin("a")).await, ErrorName::EmergencyStopActive);
    bench.ask(json!({"liftEmergencyStop": {"by": "ada", "reason": "drill over"}})).await.unwrap();
    bench.ask(begin("a")).await.unwrap();
    assert_eq!(
        bench.refused(json!({"emergencyStop": {"by": " ", "reason": "x"}})).await,
        ErrorName::InvalidInput
    );
}

#[tokio::test]
async fn trouble_with_the_table_has_names() {
    for (reply, name) in [
        (Reply::json_error("ResourceNotFoundException", "no table"), ErrorName::StateTableMissing),
        (Reply::json_error("AccessDeniedException", "no"), ErrorName::AccessDenied),
        (Reply::json_error("ThrottlingException", "slow"), ErrorName::Throttled),
        (Reply::json_error("ProvisionedThroughputExceededException", "slow"), ErrorName::Throttled),
        (Reply::Answer { status: 500, body: "{}".into() }, ErrorName::AwsFault),
        (Reply::Late, ErrorName::AwsUnreachable),
    ] {
        let bench = Bench::new();
        bench.with(|cloud| cloud.instead = vec![reply.clone()]);
        assert_eq!(bench.refused(begin("a")).await, name, "{reply:?}");
    }
}

#[tokio::test]
async fn requests_that_do_not_fit_are_refused_with_their_path() {
    let bench = Bench::new();
    let long_ago = json!({"status": {"operationId": "backup-0123456789abcdef"}});
    assert_eq!(bench.refused(long_ago).await, ErrorName::OperationMissing);
    for (request, path) in [
        (json!({"begin": {"execution": "x"}}), "begin.execution"),
        (json!({"status": {"operationId": "../../etc"}}), "status.operationId"),
        (json!({"finish": {}}), "finish"),
        (json!({"status": {"operationId": "backup-0123456789abcdef", "extra": 1}}), "extra"),
        (json!(null), ""),
    ] {
        let error = bench.ask(request.clone()).await.unwrap_err();
        assert_eq!(error.name(), ErrorName::InvalidInput, "{request}");
        assert!(error.to_string().contains(path), "{request}: {error}");
    }
}

fn snapshot_step(database: &str) -> Value {
    json!({"kind": "snapshot", "region": "us-east-1", "database": database, "engine": "postgres", "sizeGb": 200})
}

/// A backup in which the snapshot of `orders` took so long.
async fn backup_with_a_snapshot_of(bench: &Bench, name: &str, seconds: u32) -> String {
    let id = bench.ask(begin(name)).await.unwrap()["operationId"].as_str().unwrap().to_owned();
    let took = json!([{"step": snapshot_step("orders"), "durationSeconds": seconds}]);
    let checkpoint = json!({"checkpoint": {"operationId": id, "name": "snapshot", "data": {}, "took": took}});
    bench.ask(checkpoint.clone()).await.unwrap();
    let once = bench.with(|cloud| cloud.items.clone());
    bench.ask(checkpoint).await.unwrap();
    let durations = |items: &BTreeMap<String, Value>| -> Vec<Value> {
        items.iter().filter(|(key, _)| key.starts_with("durations#")).map(|(_, item)| item.clone()).collect()
    };
    assert_eq!(bench.with(|cloud| durations(&cloud.items)), durations(&once), "twice is the same as once");
    bench.ask(json!({"succeed": {"operationId": id, "result": {"copies": []}}})).await.unwrap();
    id
}

#[tokio::test]
async fn how_long_a_step_took_is_told_to_the_next_backup_of_that_database_and_of_those_alike() {
    let bench = Bench::new();
    let earlier = async |database| {
        let id = bench.ask(begin("asking")).await.unwrap()["operationId"].clone();
        let progress =
            json!({"operationId": id, "state": "WaitForSnapshot", "step": snapshot_step(database)});
        bench.ask(json!({"progress": progress})).await.unwrap()["earlier"].clone()
    };
    backup_with_a_snapshot_of(&bench, "a", 330).await;
    backup_with_a_snapshot_of(&bench, "b", 350).await;
    let own = earlier("orders").await;
    assert_eq!(own["of"], "2 earlier snapshots of orders");
    assert_eq!((&own["leastSeconds"], &own["mostSeconds"]), (&json!(330), &json!(350)));
    assert_eq!(
        earlier("customers").await["of"],
        "2 earlier snapshots of postgres databases of 128 to 255 GiB"
    );
    bench.with(|cloud| {
        let item = &cloud.items["durations#snapshot@us-east-1#postgres#orders"];
        assert_eq!(item["type"]["S"], "durations");
        assert!(item["expiresAt"]["N"].is_string(), "the TTL is a number");
        assert!(item.get("status").or(item.get("startedAt")).is_none(), "no index holds it");
    });
}

#[tokio::test]
async fn a_history_that_is_not_there_or_cannot_be_kept_changes_nothing() {
    let bench = Bench::new();
    let id = bench.ask(begin("a")).await.unwrap()["operationId"].clone();
    let progress = json!({"progress": {"operationId": id, "state": "S", "step": snapshot_step("orders")}});
    assert_eq!(bench.ask(progress.clone()).await.unwrap()["earlier"], Value::Null);
    bench.with(|cloud| cloud.no_updates = true);
    let took = json!([{"step": snapshot_step("orders"), "durationSeconds": 5}]);
    let checkpoint = json!({"operationId": id, "name": "snapshot", "data": {}, "took": took});
    bench.ask(json!({"checkpoint": checkpoint})).await.unwrap();
    // Damaged by hand.
    let key = "durations#snapshot@us-east-1#postgres#orders";
    let damaged = json!({"operationId": {"S": key}, "slot0": {"S": "?"}});
    bench.with(|cloud| cloud.items.insert(key.to_owned(), damaged));
    assert_eq!(bench.ask(progress).await.unwrap()["earlier"], Value::Null);
}
