//! What a look at health asks, on the wire: every list over all its pages, and what an answer means.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use dr_core::ErrorName;
use dr_core::ids::Region;
use dr_core::labels::{Proof, Role};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::measures::{Lag, Subject};
use crate::state::{Index, StateTable};
use crate::testing::{Reply, Sent, Wire, rds_answer};

fn west() -> Region {
    Region::parse("us-west-2").unwrap()
}

fn now() -> Timestamp {
    "2026-01-10T12:00:00Z".parse().unwrap()
}

/// Two pages: the first with a marker.
fn paged(list: &'static str, first: &'static str, second: &'static str) -> Wire {
    Wire::new(move |sent| {
        let (body, marker) = match sent.parameter("Marker").as_str() {
            "" => (first, "<Marker>m1</Marker>"),
            "m1" => (second, ""),
            other => panic!("marker {other}"),
        };
        rds_answer(&sent.action, &format!("{marker}<{list}>{body}</{list}>"))
    })
}

#[tokio::test]
async fn instances_are_read_over_all_pages_with_what_health_depends_on() {
    let wire = paged(
        "DBInstances",
        "<DBInstance><DBInstanceIdentifier>a</DBInstanceIdentifier></DBInstance>",
        "<DBInstance><DBInstanceIdentifier>b</DBInstanceIdentifier><DBInstanceStatus>available</DBInstanceStatus>\
         <AllocatedStorage>20</AllocatedStorage><MaxAllocatedStorage>40</MaxAllocatedStorage>\
         <ReadReplicaSourceDBInstanceIdentifier>arn:aws:rds:us-east-1:000000000000:db:a\
         </ReadReplicaSourceDBInstanceIdentifier><StatusInfos>\
         <DBInstanceStatusInfo><StatusType>other</StatusType><Normal>false</Normal></DBInstanceStatusInfo>\
         <DBInstanceStatusInfo><StatusType>read replication</StatusType><Normal>false</Normal>\
         <Status>error</Status><Message>broken</Message></DBInstanceStatusInfo></StatusInfos>\
         <CACertificateIdentifier>rds-ca</CACertificateIdentifier><BackupRetentionPeriod>7</BackupRetentionPeriod>\
         <LatestRestorableTime>2026-01-10T11:55:00Z</LatestRestorableTime><PubliclyAccessible>true\
         </PubliclyAccessible><DeletionProtection>true</DeletionProtection></DBInstance>",
    );
    let seen = wire.clients().unwrap().rds(&west()).survey_instances().await.unwrap();
    assert_eq!(seen.iter().map(|one| one.id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!((seen[0].replica_of.as_deref(), seen[0].replication.len()), (None, 0));
    let b = &seen[1];
    assert_eq!(b.replica_of.as_deref(), Some("arn:aws:rds:us-east-1:000000000000:db:a"));
    assert_eq!((b.allocated_storage_gb, b.max_allocated_storage_gb), (20, Some(40)));
    let [status] = &b.replication[..] else { panic!("{:?}", b.replication) };
    assert_eq!((status.normal, status.status.as_str(), status.message.as_str()), (false, "error", "broken"));
    assert!(b.publicly_accessible && b.deletion_protection && b.backup_retention_days == 7);
    assert!(
        wire.sent().iter().all(|sent| sent.parameter("MaxRecords") == "100" && sent.region() == "us-west-2")
    );
}

#[tokio::test]
async fn of_a_regions_snapshots_only_ours_are_kept() {
    let wire = paged(
        "DBSnapshots",
        "<DBSnapshot><DBSnapshotIdentifier>theirs</DBSnapshotIdentifier><DBSnapshotArn>a</DBSnapshotArn>\
         </DBSnapshot>",
        "<DBSnapshot><DBSnapshotIdentifier>ours</DBSnapshotIdentifier><DBSnapshotArn>b</DBSnapshotArn>\
         <Status>available</Status><SnapshotCreateTime>2026-01-10T11:00:00Z</SnapshotCreateTime>\
         <OriginalSnapshotCreateTime>2026-01-09T00:00:00Z</OriginalSnapshotCreateTime><KmsKeyId>k</KmsKeyId>\
         <TagList><Tag><Key>lifeboat:role</Key><Value>copy</Value></Tag>\
         <Tag><Key>lifeboat:database</Key><Value>orders</Value></Tag>\
         <Tag><Key>lifeboat:proof</Key><Value>proven</Value></Tag></TagList></DBSnapshot>",
    );
    let points = wire.clients().unwrap().rds(&west()).survey_points().await.unwrap();
    let [point] = &points[..] else { panic!("{points:?}") };
    assert_eq!((point.id.as_str(), point.database.as_str(), point.role), ("ours", "orders", Role::Copy));
    assert_eq!((point.proof, point.kms_key_id.as_deref()), (Some(Proof::Proven), Some("k")));
    // The age of a copy is that of its data.
    assert_eq!(point.taken_at, Some("2026-01-09T00:00:00Z".parse().unwrap()));
    assert!(wire.sent().iter().all(|sent| sent.parameter("SnapshotType") == "manual"));
}

#[tokio::test]
async fn authorities_are_read_over_all_pages_and_quotas_in_one() {
    let wire = paged(
        "Certificates",
        "<Certificate><CertificateIdentifier>one</CertificateIdentifier><ValidTill>2061-05-25T22:34:57Z</ValidTill>\
         </Certificate>",
        "<Certificate><CertificateIdentifier>two</CertificateIdentifier><ValidTill>2027-01-01T00:00:00Z</ValidTill>\
         </Certificate>",
    );
    let found = wire.clients().unwrap().rds(&west()).certificate_authorities().await.unwrap();
    assert_eq!(found.keys().collect::<Vec<_>>(), ["one", "two"]);
    let wire = Wire::new(|sent| {
        rds_answer(
            &sent.action,
            "<AccountQuotas><AccountQuota><AccountQuotaName>ManualSnapshots</AccountQuotaName><Used>7</Used>\
             <Max>100</Max></AccountQuota></AccountQuotas>",
        )
    });
    let quotas = wire.clients().unwrap().rds(&west()).quotas().await.unwrap();
    assert_eq!((quotas[0].name.as_str(), quotas[0].used, quotas[0].max), ("ManualSnapshots", 7, 100));
}

fn subjects(count: usize) -> Vec<Subject> {
    let lag = |n| if n == 0 { Lag::Replica } else { Lag::Nothing };
    (0..count).map(|n| Subject { id: format!("db-{n}"), has_storage: true, lag: lag(n) }).collect()
}

/// Answers every query with its number, one result a page.
fn cloudwatch(sent: &Sent) -> Reply {
    let request = sent.json();
    let queries = request["MetricDataQueries"].as_array().unwrap();
    assert!(queries.len() <= 500);
    let results: Vec<Value> = queries
        .iter()
        .map(|query| match query["MetricStat"]["Metric"]["MetricName"].as_str().unwrap() {
            "ReplicaLag" => json!({"Id": query["Id"], "Timestamps": [1_768_046_340, 1_768_046_280],
                "Values": [-1.0, 3.0], "StatusCode": "Complete"}),
            // In the wrong order, and as text.
            _ => json!({"Id": query["Id"], "Timestamps": ["2026-01-10T11:57:00Z", "2026-01-10T11:58:00Z"],
                "Values": [5.0, 1024.0], "StatusCode": "Complete"}),
        })
        .collect();
    let at = request["NextToken"].as_str().map_or(0, |token| token.parse::<usize>().unwrap());
    let half = results.len().div_ceil(2);
    let page = if at == 0 { &results[..half] } else { &results[half..] };
    let next = (at == 0).then(|| half.to_string());
    Reply::ok(json!({"MetricDataResults": page, "NextToken": next}).to_string())
}

#[tokio::test]
async fn metrics_are_asked_for_five_hundred_at_a_time_and_the_newest_value_counts() {
    let wire = Wire::new(cloudwatch);
    let measures = wire.clients().unwrap().measures(&west());
    let found = measures.newest(&subjects(600), now()).await.unwrap();
    assert_eq!(found.len(), 600);
    assert_eq!((found["db-0"].lag_seconds, found["db-0"].free_bytes), (Some(-1.0), Some(1024.0)));
    assert_eq!((found["db-599"].lag_seconds, found["db-599"].free_bytes), (None, Some(1024.0)));
    let sent = wire.sent();
    assert_eq!(sent.len(), 4, "two lots, two pages each");
    assert!(sent.iter().all(|sent| sent.action == "GetMetricData" && sent.scope == "us-west-2/monitoring"));
    assert_eq!(sent[0].uri, "https://monitoring.us-west-2.amazonaws.com/");
    let request = sent[0].json();
    assert_eq!(
        (&request["ScanBy"], &request["StartTime"]),
        (&json!("TimestampDescending"), &json!(1_768_045_500))
    );
    assert_eq!(
        request["MetricDataQueries"][1]["MetricStat"],
        json!({"Metric": {"Namespace": "AWS/RDS", "MetricName": "ReplicaLag",
            "Dimensions": [{"Name": "DBInstanceIdentifier", "Value": "db-0"}]}, "Period": 60, "Stat": "Average"})
    );
}

#[tokio::test]
async fn a_readers_lag_is_asked_for_by_its_own_name_and_told_in_seconds() {
    for (milliseconds, seconds) in [(250.0, 0.25), (301_000.0, 301.0), (0.0, 0.0), (-1.0, -1.0)] {
        let wire = Wire::new(move |sent| {
            let queries = sent.json()["MetricDataQueries"].clone();
            let [query] = &queries.as_array().unwrap()[..] else {
                panic!("a reader has no storage: {queries}")
            };
            assert_eq!(query["MetricStat"]["Metric"]["MetricName"], "AuroraReplicaLag");
            let result = json!({"Id": query["Id"], "Timestamps": [1_768_046_340], "Values": [milliseconds],
                "StatusCode": "Complete"});
            Reply::ok(json!({ "MetricDataResults": [result] }).to_string())
        });
        let reader = Subject { id: "shop-2".into(), has_storage: false, lag: Lag::AuroraReader };
        let found = wire.clients().unwrap().measures(&west()).newest(&[reader], now()).await.unwrap();
        assert_eq!((found["shop-2"].lag_seconds, found["shop-2"].free_bytes), (Some(seconds), None));
    }
}

#[tokio::test]
async fn trouble_with_metrics_has_a_name_and_an_absent_value_is_none() {
    let forbidden = json!({"MetricDataResults": [{"Id": "m0", "Values": [], "StatusCode": "Forbidden"}]});
    for (reply, name) in [
        (Reply::json_error("com.amazonaws.cloudwatch#ThrottlingException", "slow"), ErrorName::Throttled),
        (Reply::json_error("AccessDenied", "no"), ErrorName::AccessDenied),
        (Reply::Answer { status: 500, body: "{}".into() }, ErrorName::AwsFault),
        (Reply::Broken, ErrorName::AwsUnreachable),
        (Reply::Late, ErrorName::AwsUnreachable),
        (Reply::ok("<html>"), ErrorName::AwsFault),
        (Reply::ok(forbidden.to_string()), ErrorName::AccessDenied),
    ] {
        let wire = Wire::new({
            let reply = reply.clone();
            move |_| reply.clone()
        });
        let measures = wire.clients().unwrap().measures(&west());
        let error = measures.newest(&subjects(1), now()).await.unwrap_err();
        assert_eq!(error.name(), name, "{reply:?}: {error}");
        assert!(error.what().contains("us-west-2"), "{error}");
    }
    let empty = json!({"MetricDataResults": [{"Id": "m0", "Values": [], "StatusCode": "Complete"}]});
    let wire = Wire::new(move |_| Reply::ok(empty.to_string()));
    assert!(wire.clients().unwrap().measures(&west()).newest(&subjects(1), now()).await.unwrap().is_empty());
}

#[tokio::test]
async fn items_of_a_type_are_listed_over_all_pages_of_the_right_index() {
    let wire = Wire::new(|sent| {
        let request = sent.json();
        assert_eq!(request["ExpressionAttributeValues"], json!({":t": {"S": "lock"}}));
        let item = |n: &str| json!({"operationId": {"S": n}});
        let answer = if request["ExclusiveStartKey"].is_null() {
            json!({"Items": [item("a")], "LastEvaluatedKey": {"operationId": {"S": "a"}}})
        } else {
            json!({"Items": [item("b")]})
        };
        Reply::ok(answer.to_string())
    });
    let table = StateTable::new(wire.clients().unwrap().dynamodb(), "table");
    let found: Vec<Value> = table.list("lock", Index::Time).await.unwrap();
    assert_eq!(found, [json!({"operationId": "a"}), json!({"operationId": "b"})]);
    assert_eq!(wire.sent()[0].json()["IndexName"], "TypeTimeIndex");
}

#[tokio::test]
async fn secrets_are_listed_by_prefix_without_those_that_are_being_deleted() {
    let wire = Wire::new(|sent| {
        let tags = json!([{"Key": "lifeboat:role", "Value": "temporary"}]);
        let answer = if sent.json()["NextToken"].is_null() {
            json!({"SecretList": [{"Name": "lifeboat/tmp/1", "Tags": tags},
                {"Name": "lifeboat/tmp/2", "DeletedDate": 1.0}], "NextToken": "2"})
        } else {
            // The filter looks for the words anywhere.
            json!({"SecretList": [{"Name": "other/lifeboat/tmp/3"}, {"Name": "lifeboat/tmp/4"}]})
        };
        Reply::ok(answer.to_string())
    });
    let found = wire.clients().unwrap().secrets().list("lifeboat/tmp/").await.unwrap();
    let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["lifeboat/tmp/1", "lifeboat/tmp/4"]);
    assert_eq!(found[0].1["lifeboat:role"], "temporary");
}

#[tokio::test]
async fn a_message_is_published_with_its_subject_and_a_refusal_has_a_name() {
    let wire = Wire::new(|_| Reply::ok("<PublishResponse><PublishResult/></PublishResponse>"));
    wire.clients()
        .unwrap()
        .topics()
        .publish("arn:aws:sns:us-east-1:1:t", "subject", "text & more")
        .await
        .unwrap();
    let sent = &wire.sent()[0];
    let parameters = ["Action", "TopicArn", "Subject", "Message"].map(|name| sent.parameter(name));
    assert_eq!(parameters, ["Publish", "arn:aws:sns:us-east-1:1:t", "subject", "text & more"]);
    let wire = Wire::new(|_| Reply::query_error(404, "NotFound", "no topic"));
    let error = wire.clients().unwrap().topics().publish("t", "s", "m").await.unwrap_err();
    assert_eq!(error.name(), ErrorName::InvalidConfiguration);
}
