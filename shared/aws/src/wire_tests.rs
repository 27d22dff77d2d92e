//! The adapters against a wire: what is sent, and what is made of the answers.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;

use dr_core::ids::{DatabaseId, KmsKeyId, Region, SnapshotId};
use dr_core::observed::{DatabaseKind, Observed, SnapshotArn};
use dr_core::replication::CopyRequest;
use dr_core::request::Tag;
use dr_core::restore::RestoreRequest;
use dr_core::{ErrorName, Leftovers};

use crate::objects::{Overwrite, Put};
use crate::rds::{CopyStart, Deletion, Rds, RestoreStart, SnapshotStart};
use crate::secrets::{Credentials, SecretStart, fresh_password};
use crate::testing::{Reply, Sent, Wire, rds_answer};

fn region(text: &str) -> Region {
    Region::parse(text).unwrap()
}

fn snapshot_id() -> SnapshotId {
    SnapshotId::parse("orders-1").unwrap()
}

fn database_id() -> DatabaseId {
    DatabaseId::parse("orders").unwrap()
}

fn answering(reply: Reply) -> (Wire, Rds) {
    let wire = Wire::new(move |_| reply.clone());
    let rds = wire.clients().unwrap().rds(&region("us-west-2"));
    (wire, rds)
}

fn tags() -> BTreeMap<String, String> {
    BTreeMap::from([("lifeboat:role".to_owned(), "copy".to_owned()), ("team".to_owned(), "a b+c".to_owned())])
}

fn without_tags(sent: &Sent) -> BTreeMap<String, String> {
    sent.parameters().into_iter().filter(|(key, _)| !key.starts_with("Tags.") && key != "Version").collect()
}

fn expected(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

const SNAPSHOT: &str = "<DBSnapshot><DBSnapshotIdentifier>orders-1</DBSnapshotIdentifier>\
    <DBSnapshotArn>arn:aws:rds:us-west-2:000000000000:snapshot:orders-1</DBSnapshotArn>\
    <DBInstanceIdentifier>orders</DBInstanceIdentifier><Status>creating</Status><PercentProgress>7</PercentProgress>\
    <AllocatedStorage>20</AllocatedStorage><Encrypted>true</Encrypted><KmsKeyId>k</KmsKeyId><Port>5432</Port>\
    <SnapshotCreateTime>2026-01-02T03:04:05.678Z</SnapshotCreateTime>\
    <OriginalSnapshotCreateTime>2026-01-02T01:00:00Z</OriginalSnapshotCreateTime>\
    <TagList><Tag><Key>a</Key><Value>b</Value></Tag></TagList></DBSnapshot>";

#[tokio::test]
async fn a_copy_is_asked_for_in_the_destination_exactly_so() {
    let (wire, rds) = answering(rds_answer("CopyDBSnapshot", SNAPSHOT));
    let request = CopyRequest {
        source: SnapshotArn::parse("arn:aws:rds:us-east-1:000000000000:snapshot:rds:orders-1").unwrap(),
        id: SnapshotId::parse("rds-orders-1").unwrap(),
        kms_key_arn: "arn:aws:kms:us-west-2:000000000000:key/1".to_owned(),
        option_group: None,
        tags: tags(),
    };
    assert!(matches!(rds.copy_snapshot(&request).await.unwrap(), CopyStart::Started(_)));
    let sent = wire.sent().remove(0);
    assert_eq!(sent.scope, "us-west-2/rds");
    assert!(sent.uri.contains("rds.us-west-2.amazonaws.com"), "{}", sent.uri);
    assert_eq!(sent.tags(), tags());
    assert_eq!(
        without_tags(&sent),
        expected(&[
            ("Action", "CopyDBSnapshot"),
            ("CopyTags", "false"),
            ("KmsKeyId", "arn:aws:kms:us-west-2:000000000000:key/1"),
            ("SourceDBSnapshotIdentifier", "arn:aws:rds:us-east-1:000000000000:snapshot:rds:orders-1"),
            ("TargetDBSnapshotIdentifier", "rds-orders-1"),
        ])
    );
}

#[tokio::test]
async fn a_restore_is_private_and_small_and_without_backups() {
    let (wire, rds) = answering(rds_answer("RestoreDBInstanceFromDBSnapshot", ""));
    let request = RestoreRequest {
        snapshot: snapshot_id(),
        snapshot_kind: DatabaseKind::Instance,
        id: DatabaseId::parse("lifeboat-tmp-0123456789abcdef").unwrap(),
        instance_class: Some("db.m7g.large".to_owned()),
        subnet_group: "restore".to_owned(),
        security_group_ids: vec!["sg-1".to_owned(), "sg-2".to_owned()],
        parameter_group: Some("orders-16".to_owned()),
        option_group: Some("default:postgres-16".to_owned()),
        port: Some(5433),
        tags: tags(),
    };
    assert_eq!(rds.restore(&request).await.unwrap(), RestoreStart::Started);
    let sent = wire.sent().remove(0);
    assert_eq!(sent.tags(), tags());
    assert_eq!(
        without_tags(&sent),
        expected(&[
            ("Action", "RestoreDBInstanceFromDBSnapshot"),
            ("AutoMinorVersionUpgrade", "false"),
            ("BackupRetentionPeriod", "0"),
            ("CopyTagsToSnapshot", "false"),
            ("DBInstanceClass", "db.m7g.large"),
            ("DBInstanceIdentifier", "lifeboat-tmp-0123456789abcdef"),
            ("DBParameterGroupName", "orders-16"),
            ("DBSnapshotIdentifier", "orders-1"),
            ("DBSubnetGroupName", "restore"),
            ("DeletionProtection", "false"),
            ("EnableIAMDatabaseAuthentication", "false"),
            ("MultiAZ", "false"),
            ("OptionGroupName", "default:postgres-16"),
            ("Port", "5433"),
            ("PubliclyAccessible", "false"),
            ("VpcSecurityGroupIds.VpcSecurityGroupId.1", "sg-1"),
            ("VpcSecurityGroupIds.VpcSecurityGroupId.2", "sg-2"),
        ])
    );
}

#[tokio::test]
async fn a_deletion_leaves_no_snapshot_and_no_backups() {
    let (wire, rds) = answering(rds_answer("DeleteDBInstance", ""));
    assert_eq!(rds.delete_database(&database_id()).await.unwrap(), Deletion::Started);
    assert_eq!(
        without_tags(&wire.sent()[0]),
        expected(&[
            ("Action", "DeleteDBInstance"),
            ("DBInstanceIdentifier", "orders"),
            ("DeleteAutomatedBackups", "true"),
            ("SkipFinalSnapshot", "true"),
        ])
    );
}

#[tokio::test]
async fn a_password_is_set_at_once() {
    let (wire, rds) = answering(rds_answer("ModifyDBInstance", ""));
    rds.set_master_password(&database_id(), "hunter2").await.unwrap();
    assert_eq!(
        without_tags(&wire.sent()[0]),
        expected(&[
            ("Action", "ModifyDBInstance"),
            ("ApplyImmediately", "true"),
            ("DBInstanceIdentifier", "orders"),
            ("MasterUserPassword", "hunter2"),
        ])
    );
}

#[tokio::test]
async fn what_the_service_says_hangs_on_is_a_value() {
    let error = |code: &'static str| answering(Reply::query_error(400, code, "Cannot copy more than 20")).1;
    let copy = CopyRequest {
        source: SnapshotArn::parse("arn:aws:rds:us-east-1:000000000000:snapshot:orders-1").unwrap(),
        id: snapshot_id(),
        kms_key_arn: "k".to_owned(),
        option_group: None,
        tags: tags(),
    };
    let taken = error("DBSnapshotAlreadyExists");
    assert!(matches!(
        taken.create_snapshot(&database_id(), &snapshot_id(), &tags()).await.unwrap(),
        SnapshotStart::NameTaken
    ));
    assert!(matches!(taken.copy_snapshot(&copy).await.unwrap(), CopyStart::NameTaken));
    let limited = error("SnapshotQuotaExceeded").copy_snapshot(&copy).await.unwrap();
    assert!(matches!(limited, CopyStart::Limited { message } if message == "Cannot copy more than 20"));
    let quota = error("SnapshotQuotaExceeded").create_snapshot(&database_id(), &snapshot_id(), &tags()).await;
    assert_eq!(quota.unwrap_err().name(), ErrorName::SnapshotQuotaExceeded);
    for (code, outcome) in [
        ("DBInstanceNotFound", Deletion::Gone),
        ("InvalidDBInstanceState", Deletion::NotNow),
        ("DBSnapshotNotFound", Deletion::Gone),
        ("InvalidDBSnapshotState", Deletion::NotNow),
    ] {
        let rds = error(code);
        let seen = if code.contains("Snapshot") {
            rds.delete_snapshot(&snapshot_id()).await
        } else {
            rds.delete_database(&database_id()).await
        };
        assert_eq!(seen.unwrap(), outcome, "{code}");
    }
}

#[tokio::test]
async fn missing_stays_apart_from_could_not_look() {
    for (reply, found) in [
        (Reply::query_error(404, "DBSnapshotNotFound", "x"), Ok(())),
        (rds_answer("DescribeDBSnapshots", "<DBSnapshots/>"), Ok(())),
        (Reply::query_error(403, "AccessDenied", "x"), Err(ErrorName::AccessDenied)),
        (Reply::query_error(400, "Throttling", "x"), Err(ErrorName::Throttled)),
        (Reply::query_error(500, "InternalFailure", "x"), Err(ErrorName::AwsFault)),
        (Reply::Answer { status: 200, body: "<html>".to_owned() }, Err(ErrorName::AwsFault)),
        (Reply::Answer { status: 502, body: String::new() }, Err(ErrorName::AwsFault)),
        (Reply::Broken, Err(ErrorName::AwsUnreachable)),
        (Reply::Late, Err(ErrorName::AwsUnreachable)),
    ] {
        let shown = format!("{reply:?}");
        let (_, rds) = answering(reply);
        let seen = match rds.describe_snapshot(&snapshot_id()).await {
            Observed::Missing => Ok(()),
            Observed::Unreachable(error) => Err(error.name()),
            Observed::Found(facts) => panic!("{facts:?}"),
        };
        assert_eq!(seen, found, "{shown}");
    }
}

#[tokio::test]
async fn a_cut_off_creation_leaves_an_unknown_state() {
    for reply in [Reply::Broken, Reply::Late, Reply::query_error(500, "InternalFailure", "x")] {
        let (_, rds) = answering(reply);
        let error = rds.create_snapshot(&database_id(), &snapshot_id(), &tags()).await.unwrap_err();
        assert_eq!(error.leftovers(), &Leftovers::Unknown, "{error}");
        assert!(error.what().contains("orders-1") && error.what().contains("us-west-2"), "{error}");
    }
}

#[tokio::test]
async fn a_snapshots_facts_are_read_from_its_members() {
    let (_, rds) =
        answering(rds_answer("DescribeDBSnapshots", &format!("<DBSnapshots>{SNAPSHOT}</DBSnapshots>")));
    let Observed::Found(facts) = rds.describe_snapshot(&snapshot_id()).await else { panic!() };
    assert_eq!(
        (facts.status.as_str(), facts.percent, facts.size_gb, facts.port),
        ("creating", 7, 20, Some(5432))
    );
    assert_eq!(facts.created_at, Some("2026-01-02T03:04:05.678Z".parse().unwrap()));
    assert_eq!(facts.taken_at(), Some("2026-01-02T01:00:00Z".parse().unwrap()));
    assert_eq!(facts.tags["a"], "b");
}

#[tokio::test]
async fn a_tag_is_looked_for_on_every_page() {
    let instance = |id: &str, value: &str| {
        format!(
            "<DBInstance><DBInstanceIdentifier>{id}</DBInstanceIdentifier><DBInstanceArn>arn:{id}</DBInstanceArn>\
             <PendingModifiedValues><MasterUserPassword>****</MasterUserPassword></PendingModifiedValues>\
             <Endpoint><Address>127.0.0.1</Address><Port>5432</Port></Endpoint>\
             <TagList><Tag><Key>dr</Key><Value>{value}</Value></Tag></TagList></DBInstance>"
        )
    };
    let cluster = |id: &str, value: &str| {
        format!(
            "<DBCluster><DBClusterIdentifier>{id}</DBClusterIdentifier><DBClusterArn>arn:{id}</DBClusterArn>\
             <TagList><Tag><Key>dr</Key><Value>{value}</Value></Tag></TagList></DBCluster>"
        )
    };
    let wire = Wire::new(move |sent| {
        if sent.action == "DescribeDBClusters" {
            let (marker, list) = match sent.parameter("Marker").as_str() {
                "" => ("<Marker>second</Marker>", cluster("shop", "no")),
                _ => ("", cluster("till", "yes")),
            };
            return rds_answer("DescribeDBClusters", &format!("<DBClusters>{list}</DBClusters>{marker}"));
        }
        let (marker, list) = match sent.parameter("Marker").as_str() {
            "" => ("<Marker>second</Marker>", [instance("a", "yes"), instance("b", "no")]),
            "second" => ("", [instance("c", "yes"), instance("d", "")]),
            other => return Reply::query_error(400, "InvalidMarker", other),
        };
        rds_answer("DescribeDBInstances", &format!("<DBInstances>{}</DBInstances>{marker}", list.concat()))
    });
    let rds = wire.clients().unwrap().rds(&region("us-east-1"));
    let tag = Tag { key: "dr".to_owned(), value: "yes".to_owned() };
    let found = rds.databases_with_tag(&tag).await.unwrap();
    let ids: Vec<&str> = found.iter().map(|facts| facts.id.as_str()).collect();
    assert_eq!(ids, ["a", "c", "till"]);
    assert!(found[0].password_pending);
    assert_eq!(found[0].endpoint.as_ref().unwrap().port, 5432);
}

#[tokio::test]
async fn a_key_is_asked_for_in_its_region() {
    let arn = "arn:aws:kms:us-west-2:000000000000:key/1";
    let body = serde_json::json!({"KeyMetadata": {"KeyId": "1", "Arn": arn, "KeyState": "PendingDeletion"}});
    let wire = Wire::new(move |_| Reply::ok(body.to_string()));
    let kms = wire.clients().unwrap().kms(&region("us-west-2"));
    let alias = KmsKeyId::parse("alias/dr").unwrap();
    let Observed::Found(facts) = kms.describe_key(&alias).await else { panic!() };
    assert_eq!((facts.arn.as_str(), facts.state.as_str()), (arn, "PendingDeletion"));
    assert_eq!(wire.sent()[0].scope, "us-west-2/kms");
    assert_eq!(wire.sent()[0].json()["KeyId"], "alias/dr");
    for (code, missing) in [("NotFoundException", true), ("AccessDeniedException", false)] {
        let wire = Wire::new(move |_| Reply::json_error(code, "x"));
        let seen = wire.clients().unwrap().kms(&region("us-west-2")).describe_key(&alias).await;
        assert_eq!(matches!(seen, Observed::Missing), missing, "{code}");
    }
}

#[tokio::test]
async fn a_code_is_verified_by_kms_and_a_wrong_one_is_no_error() {
    let key = KmsKeyId::parse("arn:aws:kms:us-west-2:000000000000:key/1").unwrap();
    for (reply, expected) in [
        (Reply::ok(serde_json::json!({"KeyId": "1", "MacValid": true}).to_string()), Ok(true)),
        (Reply::ok("{}"), Ok(false)),
        (Reply::json_error("KMSInvalidMacException", "x"), Ok(false)),
        (Reply::json_error("AccessDeniedException", "x"), Err(ErrorName::AccessDenied)),
        (Reply::json_error("DisabledException", "x"), Err(ErrorName::KeyDisabled)),
    ] {
        let wire = Wire::new(move |_| reply.clone());
        let kms = wire.clients().unwrap().kms(&region("us-west-2"));
        let verified = kms.verify_mac(&key, b"yes", &[1, 2, 3]).await;
        assert_eq!(verified.map_err(|error| error.name()), expected);
        let sent = wire.sent().remove(0);
        assert_eq!((sent.scope.as_str(), sent.action.as_str()), ("us-west-2/kms", "VerifyMac"));
        let expected = serde_json::json!({
            "KeyId": key.as_str(), "MacAlgorithm": "HMAC_SHA_256", "Message": "eWVz", "Mac": "AQID"});
        assert_eq!(sent.json(), expected);
    }
}

#[tokio::test]
async fn secrets_are_read_made_and_deleted_at_once() {
    let content = Credentials {
        username: "u".to_owned(),
        password: "hunter2".to_owned(),
        operation_id: Some("proof-0123456789abcdef".to_owned()),
    };
    assert!(!format!("{content:?}").contains("hunter2"));
    let wire = Wire::new(|sent| match sent.action.as_str() {
        "GetSecretValue" => {
            let text = r#"{"username":"u","password":"p","host":"h","port":5432}"#;
            Reply::ok(serde_json::json!({"SecretString": text}).to_string())
        }
        _ => Reply::ok("{}"),
    });
    let secrets = wire.clients().unwrap().secrets();
    let read = secrets.read("orders").await.unwrap().unwrap();
    assert_eq!((read.username.as_str(), read.password.as_str(), read.operation_id), ("u", "p", None));
    assert_eq!(secrets.create("lifeboat/tmp/1", &content, &tags()).await.unwrap(), SecretStart::Created);
    secrets.delete("lifeboat/tmp/1").await.unwrap();
    let deleted = wire.sent_of("DeleteSecret").remove(0).json();
    assert_eq!(deleted["ForceDeleteWithoutRecovery"], true);
    let made = wire.sent_of("CreateSecret").remove(0).json();
    assert_eq!(made["Name"], "lifeboat/tmp/1");
    assert!(made["SecretString"].as_str().unwrap().contains("\"operationId\":\"proof-0123456789abcdef\""));
    assert_eq!(made["Tags"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn troubles_with_secrets_have_their_names() {
    let secrets = |reply: Reply| Wire::new(move |_| reply.clone()).clients().unwrap().secrets();
    for code in ["ResourceNotFoundException", "InvalidRequestException"] {
        assert_eq!(secrets(Reply::json_error(code, "x")).read("a").await.unwrap(), None, "{code}");
    }
    let text = serde_json::json!({"SecretString": "{\"password\":hunter2"}).to_string();
    let error = secrets(Reply::ok(text)).read("a").await.unwrap_err();
    assert_eq!(error.name(), ErrorName::CredentialsMissing);
    assert!(std::error::Error::source(&error).is_none() && !error.to_string().contains("hunter2"));
    let denied = secrets(Reply::json_error("AccessDeniedException", "x")).read("a").await.unwrap_err();
    assert_eq!(denied.name(), ErrorName::AccessDenied);
    assert!(denied.what().contains("secretsmanager:GetSecretValue"));
    secrets(Reply::json_error("ResourceNotFoundException", "x")).delete("a").await.unwrap();
}

#[tokio::test]
async fn objects_are_written_once_when_asked_and_listed_over_all_pages() {
    let wire = Wire::new(|sent| {
        if sent.method == "PUT" {
            return match sent.headers.get("if-none-match") {
                Some(_) => Reply::s3_error(412, "PreconditionFailed"),
                None => Reply::ok(""),
            };
        }
        if !sent.uri.contains("list-type=2") {
            return if sent.uri.contains("missing") {
                Reply::s3_error(404, "NoSuchKey")
            } else {
                Reply::ok("body")
            };
        }
        let page = if sent.uri.contains("continuation-token=next") {
            "<IsTruncated>false</IsTruncated><Contents><Key>a/2</Key></Contents>"
        } else {
            "<IsTruncated>true</IsTruncated><NextContinuationToken>next</NextContinuationToken>\
             <Contents><Key>a/1</Key></Contents>"
        };
        Reply::ok(format!("<ListBucketResult>{page}</ListBucketResult>"))
    });
    let bucket = wire.clients().unwrap().bucket("meta");
    let json = "application/json";
    assert_eq!(bucket.put("a/1", b"{}".to_vec(), json, Overwrite::Allowed).await.unwrap(), Put::Written);
    assert_eq!(bucket.put("a/1", b"{}".to_vec(), json, Overwrite::Refused).await.unwrap(), Put::Existed);
    assert_eq!(bucket.get("a/1").await.unwrap().unwrap(), b"body");
    assert_eq!(bucket.get("missing").await.unwrap(), None);
    assert_eq!(bucket.list("a/").await.unwrap(), ["a/1", "a/2"]);
    assert!(bucket.exists("a/1").await.unwrap());
    assert!(!bucket.exists("a/").await.unwrap());
}

#[tokio::test]
async fn a_missing_bucket_is_not_a_missing_object() {
    let bucket = Wire::new(|_| Reply::s3_error(404, "NoSuchBucket")).clients().unwrap().bucket("meta");
    let names = [
        bucket.get("a").await.map(|_| ()).unwrap_err().name(),
        bucket.exists("a").await.map(|_| ()).unwrap_err().name(),
        bucket.list("a").await.map(|_| ()).unwrap_err().name(),
        bucket.put("a", vec![], "text/plain", Overwrite::Allowed).await.map(|_| ()).unwrap_err().name(),
    ];
    assert_eq!(names, [ErrorName::MetadataBucketMissing; 4]);
}

#[test]
fn passwords_are_long_legal_and_different() {
    let (one, two) = (fresh_password().unwrap(), fresh_password().unwrap());
    assert_ne!(one, two);
    for password in [one, two] {
        assert_eq!(password.len(), 40);
        assert!(password.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c)), "{password}");
    }
}

#[tokio::test]
async fn an_automated_snapshot_is_asked_for_with_its_type() {
    let wire = Wire::new(|sent| match sent.action.as_str() {
        "DescribeDBSnapshots" => Reply::query_error(404, "DBSnapshotNotFound", "x"),
        _ => Reply::query_error(404, "DBClusterSnapshotNotFoundFault", "x"),
    });
    let rds = wire.clients().unwrap().rds(&region("us-east-1"));
    for (id, expected) in [("rds:shop-1", "automated"), ("awsbackup:job-1", "awsbackup"), ("shop-1", "")] {
        let seen = rds.find_snapshot(&SnapshotId::parse(id).unwrap(), None).await;
        assert!(matches!(seen, Observed::Missing), "{id}");
        for action in ["DescribeDBSnapshots", "DescribeDBClusterSnapshots"] {
            let sent = wire.sent_of(action).pop().unwrap();
            assert_eq!(sent.parameter("SnapshotType"), expected, "{action} {id}");
        }
    }
}

#[tokio::test]
async fn could_not_look_among_clusters_is_not_missing() {
    let wire = Wire::new(|sent| match sent.action.as_str() {
        "DescribeDBInstances" => Reply::query_error(404, "DBInstanceNotFound", "x"),
        _ => Reply::query_error(403, "AccessDenied", "x"),
    });
    let rds = wire.clients().unwrap().rds(&region("us-east-1"));
    let id = DatabaseId::parse("shop").unwrap();
    let Observed::Unreachable(error) = rds.find_database(&id, None).await else { panic!() };
    assert_eq!(error.name(), ErrorName::AccessDenied);
    let Observed::Missing = rds.find_database(&id, Some(DatabaseKind::Instance)).await else { panic!() };
}
