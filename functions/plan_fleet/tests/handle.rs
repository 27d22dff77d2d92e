//! The function against an AWS in memory: rolls, summaries and choices, each twice and over many pages.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use dr_aws::Invocation;
use dr_aws::testing::{Reply, Sent, Wire, rds_answer, xml_members, xml_tags};
use dr_core::ErrorName;
use dr_core::ids::Region;
use plan_fleet::{Config, Planner, Request};
use serde_json::{Value, json};

const RUN: &str = "fleet-0123456789abcdef";
const PROOF: &str = "proof-fedcba9876543210";

/// Objects by bucket and key; and how RDS answers.
#[derive(Clone)]
struct Aws {
    objects: Arc<Mutex<BTreeMap<String, String>>>,
    rds: Arc<dyn Fn(&Sent) -> Reply + Send + Sync>,
}

impl Aws {
    fn new(rds: impl Fn(&Sent) -> Reply + Send + Sync + 'static) -> Self {
        Self { objects: Arc::default(), rds: Arc::new(rds) }
    }

    fn put(&self, path: &str, value: &Value) {
        self.objects.lock().unwrap().insert(path.to_owned(), value.to_string());
    }

    fn object(&self, path: &str) -> Value {
        serde_json::from_str(&self.objects.lock().unwrap()[path]).unwrap()
    }

    fn wire(&self) -> Wire {
        let aws = self.clone();
        Wire::new(move |sent| if sent.scope.ends_with("/rds") { (aws.rds)(sent) } else { aws.s3(sent) })
    }

    fn s3(&self, sent: &Sent) -> Reply {
        let mut objects = self.objects.lock().unwrap();
        let uri = sent.uri.split_once("://").map_or(sent.uri.as_str(), |(_, rest)| rest);
        let (host, path) = uri.split_once('/').unwrap();
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let bucket = host.split('.').next().unwrap();
        let key = format!("{bucket}/{path}");
        if query.contains("list-type=2") {
            let prefix = query.split('&').find_map(|pair| pair.strip_prefix("prefix=")).unwrap();
            let prefix = format!("{bucket}/{}", prefix.replace("%2F", "/"));
            let found =
                objects.keys().filter(|key| key.starts_with(&prefix)).fold(String::new(), |mut all, key| {
                    let key = key.split_once('/').unwrap().1;
                    let _ = write!(all, "<Contents><Key>{key}</Key></Contents>");
                    all
                });
            return Reply::ok(format!("<ListBucketResult>{found}</ListBucketResult>"));
        }
        if sent.method == "PUT" {
            objects.insert(key, sent.body.clone());
            return Reply::ok("");
        }
        objects.get(&key).map_or_else(|| Reply::s3_error(404, "NoSuchKey"), |body| Reply::ok(body.clone()))
    }

    /// Calls the function with so much time left.
    async fn call(&self, payload: Value, seconds_left: i64) -> Result<Value, ErrorName> {
        let planner = Planner {
            clients: self.wire().clients().unwrap(),
            config: Config {
                metadata_bucket: "frames".to_owned(),
                home: Some((Region::parse("eu-west-1").unwrap(), "home".to_owned())),
            },
        };
        let request: Request = dr_core::input::parse("the request", payload).map_err(|error| error.name())?;
        #[expect(clippy::disallowed_methods, reason = "the deadline is told by the real clock")]
        let now = jiff::Timestamp::now();
        let invocation = Invocation {
            request_id: "r".to_owned(),
            received_at: "2026-01-02T04:00:00Z".parse().unwrap(),
            deadline: now + jiff::SignedDuration::from_secs(seconds_left),
            function_arn: "arn:aws:lambda:us-east-1:000000000000:function:f".to_owned(),
        };
        let answer = Box::pin(planner.handle(request, &invocation)).await.map_err(|error| error.name())?;
        Ok(serde_json::to_value(answer).unwrap())
    }
}

fn tags(pairs: &[(&str, &str)]) -> String {
    xml_tags(&pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
}

fn instance(n: usize) -> String {
    let replica = if n.is_multiple_of(10) { "primary" } else { "" };
    let members = xml_members(&[
        ("DBInstanceIdentifier", &format!("db-{n:04}")),
        ("DBInstanceArn", &format!("arn:aws:rds:us-east-1:000000000000:db:db-{n:04}")),
        ("DBInstanceStatus", "available"),
        ("Engine", "postgres"),
        ("ReadReplicaSourceDBInstanceIdentifier", replica),
    ]);
    let tier = if n.is_multiple_of(2) { "production" } else { "staging" };
    format!("<DBInstance>{members}{}</DBInstance>", tags(&[("tier", tier)]))
}

fn cluster(n: usize) -> String {
    let members = xml_members(&[
        ("DBClusterIdentifier", &format!("shop-{n:04}")),
        ("DBClusterArn", &format!("arn:aws:rds:us-east-1:000000000000:cluster:shop-{n:04}")),
        ("Status", "available"),
        ("Engine", "aurora-postgresql"),
    ]);
    let tier = if n.is_multiple_of(2) { "aurora" } else { "staging" };
    format!("<DBCluster>{members}{}</DBCluster>", tags(&[("tier", tier)]))
}

/// Answers a listing of `total` things, 100 a page.
fn page(sent: &Sent, element: &str, total: usize, thing: impl Fn(usize) -> String) -> Reply {
    let from: usize = sent.parameter("Marker").parse().unwrap_or(0);
    let size: usize = sent.parameter("MaxRecords").parse().unwrap_or(100);
    let to = (from + size).min(total);
    let marker = if to < total { format!("<Marker>{to}</Marker>") } else { String::new() };
    let things = (from..to).fold(String::new(), |mut all, n| {
        all.push_str(&thing(n));
        all
    });
    rds_answer(&sent.action, &format!("{marker}<{element}s>{things}</{element}s>"))
}

fn databases(total: usize) -> Aws {
    Aws::new(move |sent| match sent.action.as_str() {
        "DescribeDBClusters" => page(sent, "DBCluster", total / 10, cluster),
        _ => page(sent, "DBInstance", total, instance),
    })
}

fn roll(coverage: &Value) -> Value {
    json!({"databases": {"operationId": RUN, "run": RUN, "coverage": coverage}})
}

fn production() -> Value {
    json!({"databases": null, "selector": {"tag": {"key": "tier", "value": "production"}}})
}

#[tokio::test]
async fn thousands_of_databases_are_listed_over_all_pages_into_the_bucket() {
    let aws = databases(3_000);
    let answer = aws.call(roll(&production()), 250).await.unwrap();
    assert_eq!(
        answer,
        json!({"listKey": format!("operations/{RUN}/members.json"), "total": 1_200, "skipped": 300})
    );
    let members = aws.object(&format!("frames/operations/{RUN}/members.json"));
    let names: Vec<&str> =
        members.as_array().unwrap().iter().map(|m| m["database"].as_str().unwrap()).collect();
    assert_eq!((names.len(), names[0], names[1_199]), (1_200, "db-0002", "db-2998"));
    assert!(names.is_sorted());
    assert!(members[0]["execution"].as_str().unwrap().starts_with("0123456789abcdef-db-0002-"));
    let roll = aws.object(&format!("frames/operations/{RUN}/roll.json"));
    assert_eq!(roll["skipped"][0], json!({"database": "db-0000", "reason": "readReplica"}));
}

#[tokio::test]
async fn clusters_are_listed_over_all_pages_too_by_tag_and_by_name() {
    let aws = databases(3_000);
    let aurora = json!({"databases": null, "selector": {"tag": {"key": "tier", "value": "aurora"}}});
    let answer = aws.call(roll(&aurora), 250).await.unwrap();
    assert_eq!((&answer["total"], &answer["skipped"]), (&json!(150), &json!(0)));
    let members = aws.object(&format!("frames/operations/{RUN}/members.json"));
    assert_eq!(
        (&members[149]["database"], &members[149]["databaseKind"]),
        (&json!("shop-0298"), &json!("cluster"))
    );
    let both = json!({"databases": ["shop-0001", "db-0001"], "selector": null});
    let aws = databases(3_000);
    aws.call(roll(&both), 250).await.unwrap();
    let members = aws.object(&format!("frames/operations/{RUN}/members.json"));
    let kinds: Vec<_> = members.as_array().unwrap().iter().map(|member| &member["databaseKind"]).collect();
    assert_eq!(kinds, ["instance", "cluster"]);
    // Half a list is no list, whichever half it is.
    let broken = Aws::new(|sent| match sent.action.as_str() {
        "DescribeDBClusters" => Reply::Broken,
        _ => page(sent, "DBInstance", 10, instance),
    });
    assert_eq!(broken.call(roll(&production()), 250).await.unwrap_err(), ErrorName::AwsUnreachable);
    assert!(broken.objects.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_second_call_has_the_same_members_whatever_rds_says_by_then() {
    let aws = databases(40);
    let first = aws.call(roll(&production()), 250).await.unwrap();
    let later = Aws { rds: Arc::new(|_| Reply::Broken), ..aws.clone() };
    assert_eq!(later.call(roll(&production()), 250).await.unwrap(), first);
}

#[tokio::test]
async fn a_fleet_without_databases_and_a_listing_that_breaks_off_are_named() {
    let nobody = json!({"databases": ["nobody"], "selector": null});
    assert_eq!(databases(40).call(roll(&nobody), 250).await.unwrap_err(), ErrorName::FleetEmpty);
    let broken = Aws::new(|sent| match sent.parameter("Marker").as_str() {
        "" => page(sent, "DBInstance", 200, instance),
        _ => Reply::Broken,
    });
    assert_eq!(broken.call(roll(&production()), 250).await.unwrap_err(), ErrorName::AwsUnreachable);
    assert!(broken.objects.lock().unwrap().is_empty(), "half a list is no list");
}

fn summarise() -> Value {
    json!({"summarise": {
        "operationId": RUN, "fleet": "production", "tolerated": {"percent": 0, "count": 1},
        "startedAt": "2026-01-02T03:00:00Z", "manifestKey": "operations/results/manifest.json"}})
}

#[tokio::test]
async fn a_run_is_summed_up_from_what_the_map_wrote_once_however_often_it_is_asked_for() {
    let aws = databases(5);
    let coverage = json!({"databases": ["db-0001", "db-0002", "db-0003"], "selector": null});
    aws.call(roll(&coverage), 250).await.unwrap();
    // As Step Functions writes it: files by status, and outputs of children only (`COMPACT`).
    aws.put(
        "frames/operations/results/manifest.json",
        &json!({
        "DestinationBucket": "frames", "MapRunArn": "arn",
        "ResultFiles": {"FAILED": [{"Key": "operations/results/FAILED_0.json", "Size": 1}], "PENDING": [],
            "SUCCEEDED": [{"Key": "operations/results/SUCCEEDED_0.json", "Size": 1},
                {"Key": "operations/results/SUCCEEDED_1.json", "Size": 1}]}}),
    );
    aws.put("frames/operations/results/SUCCEEDED_0.json", &json!([{
        "database": "db-0001", "status": "succeeded", "execution": "e-1", "operationId": "backup-0123456789abcdef",
        "snapshotId": "s", "level": "quick", "startedAt": "2026-01-02T03:00:00.000Z",
        "endedAt": "2026-01-02T03:00:07.500Z"}]));
    let cause =
        json!({"Error": "Dr.SnapshotFailed", "Cause": json!({"errorMessage": "x"}).to_string()}).to_string();
    aws.put("frames/operations/results/SUCCEEDED_1.json", &json!([{
        "database": "db-0002", "status": "failed", "execution": "e-2", "error": "States.TaskFailed", "cause": cause}]));
    for _ in 0..2 {
        let summary = aws.call(summarise(), 250).await.unwrap();
        assert_eq!(summary["outcome"], "exceeded", "one failed and one is lost, one is tolerated");
        assert_eq!(summary["byError"], json!({"Dr.SnapshotFailed": 1, "Dr.BackupOutcomeUnknown": 1}));
        assert_eq!(summary["slowest"], json!([{"database": "db-0001", "seconds": 7}]));
        assert_eq!(summary["reportKey"], format!("operations/{RUN}/summary.json"));
    }
    let report = aws.object(&format!("frames/operations/{RUN}/summary.json"));
    assert_eq!(report["databases"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn a_summary_without_its_results_is_named() {
    let aws = databases(5);
    let coverage = json!({"databases": ["db-0001"], "selector": null});
    aws.call(roll(&coverage), 250).await.unwrap();
    assert_eq!(aws.call(summarise(), 250).await.unwrap_err(), ErrorName::MetadataDamaged);
}

fn snapshot(n: usize) -> String {
    let id = format!("lifeboat-orders-{n}");
    let members = xml_members(&[
        ("DBSnapshotIdentifier", &id),
        ("DBSnapshotArn", &format!("arn:aws:rds:us-east-1:000000000000:snapshot:{id}")),
        ("DBInstanceIdentifier", "orders"),
        ("Status", "available"),
        ("SnapshotType", "manual"),
        ("Engine", "postgres"),
        ("OriginalSnapshotCreateTime", "2025-12-01T00:00:00Z"),
    ]);
    let operation = format!("backup-{n:016x}");
    let tags = tags(&[
        ("lifeboat:operation-id", operation.as_str()),
        ("lifeboat:role", "backup"),
        ("lifeboat:proof", "proven"),
    ]);
    format!("<DBSnapshot>{members}{tags}</DBSnapshot>")
}

fn cluster_snapshot(n: usize) -> String {
    let id = format!("lifeboat-shop-{n}");
    let members = xml_members(&[
        ("DBClusterSnapshotIdentifier", &id),
        ("DBClusterSnapshotArn", &format!("arn:aws:rds:us-east-1:000000000000:cluster-snapshot:{id}")),
        ("DBClusterIdentifier", "shop"),
        ("Status", "available"),
        ("SnapshotType", "manual"),
        ("Engine", "aurora-postgresql"),
        ("SnapshotCreateTime", "2025-12-01T00:00:00Z"),
    ]);
    let operation = format!("backup-{n:016x}");
    let tags = tags(&[
        ("lifeboat:operation-id", operation.as_str()),
        ("lifeboat:role", "backup"),
        ("lifeboat:proof", "proven"),
    ]);
    format!("<DBClusterSnapshot>{members}{tags}</DBClusterSnapshot>")
}

/// So many snapshots of instances, and so many of clusters.
fn snapshots(of_instances: usize, of_clusters: usize) -> Aws {
    Aws::new(move |sent| match sent.action.as_str() {
        "DescribeDBClusterSnapshots" => page(sent, "DBClusterSnapshot", of_clusters, cluster_snapshot),
        _ => page(sent, "DBSnapshot", of_instances, snapshot),
    })
}

fn choose(more: &Value) -> Value {
    let mut payload = json!({
        "operationId": PROOF, "startedAt": "2026-01-02T03:00:00Z", "snapshotId": null,
        "selector": {"random": {"seed": "s"}}, "continue": null});
    payload.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({ "recoveryPoint": payload })
}

#[tokio::test]
async fn a_choice_over_several_calls_is_the_one_that_one_call_makes() {
    let aws = snapshots(1_000, 234);
    let at_once = aws.call(choose(&json!({})), 250).await.unwrap();
    assert_eq!((&at_once["status"], &at_once["seen"]), (&json!("done"), &json!(1_234)));
    let (mut calls, mut position) = (0, Value::Null);
    let piecemeal = loop {
        // No time beyond what is kept in reserve: one page a call.
        let answer = aws.call(choose(&json!({ "continue": position })), 30).await.unwrap();
        calls += 1;
        if answer["status"] == "done" {
            break answer;
        }
        assert!(answer["checkAgainInSeconds"].as_u64().unwrap() >= 1);
        position = answer["continue"].clone();
        assert!(position.to_string().len() < 2_000);
    };
    assert_eq!((calls, piecemeal), (13, at_once));
}

#[tokio::test]
async fn snapshots_of_clusters_are_recovery_points_too() {
    let answer = snapshots(0, 3).call(choose(&json!({})), 250).await.unwrap();
    assert_eq!((&answer["eligible"], &answer["chosen"]["databaseKind"]), (&json!(3), &json!("cluster")));
    assert_eq!(answer["chosen"]["database"], "shop");
    // Each may be the one: it depends on the seed alone.
    let aws = snapshots(3, 3);
    let mut kinds = std::collections::BTreeSet::new();
    for seed in 0..20 {
        let more = json!({"selector": {"random": {"seed": seed.to_string()}}});
        let answer = aws.call(choose(&more), 250).await.unwrap();
        kinds.insert(answer["chosen"]["databaseKind"].as_str().unwrap().to_owned());
    }
    assert_eq!(kinds.len(), 2);
    let broken = Aws::new(|sent| match sent.action.as_str() {
        "DescribeDBClusterSnapshots" => Reply::Broken,
        _ => page(sent, "DBSnapshot", 3, snapshot),
    });
    assert_eq!(broken.call(choose(&json!({})), 250).await.unwrap_err(), ErrorName::AwsUnreachable);
}

#[tokio::test]
async fn a_snapshot_is_compared_with_the_frame_and_the_first_proof_of_its_backup_here_or_at_home() {
    let one = |sent: &Sent| match sent.parameter("DBSnapshotIdentifier").as_str() {
        _ if sent.action == "DescribeDBClusterSnapshots" => {
            Reply::query_error(404, "DBClusterSnapshotNotFoundFault", "missing")
        }
        "missing" => Reply::query_error(404, "DBSnapshotNotFound", "missing"),
        _ => page(sent, "DBSnapshot", 1, |_| snapshot(7)),
    };
    let named = |id: &str| choose(&json!({"selector": null, "snapshotId": id}));
    let frame = "operations/backup-0000000000000007/frame/heartbeat.json";
    for (bucket, expected) in [
        (None, Value::Null),
        (Some("frames"), json!("backup-0000000000000007")),
        (Some("home"), json!("backup-0000000000000007")),
    ] {
        let aws = Aws::new(one);
        if let Some(bucket) = bucket {
            aws.put(&format!("{bucket}/{frame}"), &json!({}));
        }
        let answer = aws.call(named("lifeboat-orders-7"), 250).await.unwrap();
        assert_eq!(answer["frameOperationId"], expected, "{bucket:?}");
        assert_eq!(answer["chosen"]["owner"], "backup-0000000000000007");
        assert_eq!(answer["earlierOperationId"], Value::Null, "nothing says that it was proven");
    }
    let first = "operations/backup-0000000000000007/first-proof.json";
    let proof = json!({
        "format": 1, "operationId": "proof-0000000000000009", "snapshotArn": "arn:x", "judgedAt": "2026-01-02T03:04:05Z",
    });
    for bucket in ["frames", "home"] {
        let aws = Aws::new(one);
        aws.put(&format!("{bucket}/{first}"), &proof);
        let answer = aws.call(named("lifeboat-orders-7"), 250).await.unwrap();
        assert_eq!(answer["earlierOperationId"], "proof-0000000000000009", "{bucket}");
    }
    let aws = Aws::new(one);
    aws.put(&format!("frames/{first}"), &json!({"operationId": 7}));
    assert_eq!(aws.call(named("lifeboat-orders-7"), 250).await.unwrap_err(), ErrorName::MetadataDamaged);
    assert_eq!(Aws::new(one).call(named("missing"), 250).await.unwrap_err(), ErrorName::SnapshotMissing);
    let both = choose(&json!({"snapshotId": "lifeboat-orders-7"}));
    assert_eq!(Aws::new(one).call(both, 250).await.unwrap_err(), ErrorName::InvalidInput);
}

/// The most memory that this process had so far, KiB (`VmHWM`). nextest runs each test in a process of its own.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test]
async fn one_of_a_hundred_thousand_snapshots_is_chosen_within_64_mb() {
    let aws = snapshots(99_900, 100);
    let (mut seen, mut position) = (0, Value::Null);
    let chosen = loop {
        let answer = aws.call(choose(&json!({ "continue": position })), 75).await.unwrap();
        if answer["status"] == "done" {
            seen = answer["seen"].as_u64().unwrap().max(seen);
            break answer["chosen"]["snapshotId"].as_str().unwrap().to_owned();
        }
        position = answer["continue"].clone();
    };
    assert_eq!(seen, 100_000);
    assert!(chosen.starts_with("lifeboat-orders-"), "{chosen}");
    let peak = peak_kib();
    assert!(peak < 64 * 1_024, "{peak} KiB at its peak");
}
