//! Facts for tests: a plain database, a plain snapshot, a plain key.
#![allow(clippy::unwrap_used, reason = "tests")]

use jiff::Timestamp;

use crate::ids::{DatabaseId, OperationId, Region, SnapshotId};
use crate::labels::{self, Role};
use crate::observed::{DatabaseFacts, DatabaseKind, Endpoint, KeyFacts, Member, SnapshotFacts, Tags};

pub(crate) fn operation() -> OperationId {
    OperationId::parse("backup-0123456789abcdef").unwrap()
}

pub(crate) fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub(crate) fn region(text: &str) -> Region {
    Region::parse(text).unwrap()
}

pub(crate) fn database(id: &str, status: &str) -> DatabaseFacts {
    DatabaseFacts {
        kind: DatabaseKind::Instance,
        id: DatabaseId::parse(id).unwrap(),
        arn: format!("arn:aws:rds:us-east-1:000000000000:db:{id}"),
        region: region("us-east-1"),
        resource_id: None,
        engine: "postgres".into(),
        engine_version: "16.4".into(),
        status: status.into(),
        encrypted: true,
        kms_key_id: None,
        allocated_storage_gb: 20,
        instance_class: "db.m7g.large".into(),
        storage_type: Some("gp3".into()),
        subnet_group: Some("private".into()),
        parameter_group: Some("orders-16".into()),
        option_group: Some("default:postgres-16".into()),
        security_group_ids: vec!["sg-1".into()],
        multi_az: true,
        iam_authentication: false,
        master_username: Some("master".into()),
        master_user_secret_arn: None,
        database_name: Some("orders".into()),
        endpoint: Some(Endpoint { address: "127.0.0.1".into(), port: 5432 }),
        cluster: None,
        members: Vec::new(),
        scaling: None,
        replica_of: None,
        ca_certificate: None,
        password_pending: false,
        created_at: None,
        latest_restorable_time: None,
        tags: Tags::new(),
    }
}

pub(crate) fn cluster(id: &str, status: &str) -> DatabaseFacts {
    let member =
        |number: u8| Member { id: DatabaseId::parse(format!("{id}-{number}")).unwrap(), writer: number == 1 };
    DatabaseFacts {
        kind: DatabaseKind::Cluster,
        arn: format!("arn:aws:rds:us-east-1:000000000000:cluster:{id}"),
        engine: "aurora-postgresql".into(),
        instance_class: String::new(),
        members: vec![member(1), member(2)],
        ..database(id, status)
    }
}

pub(crate) fn cluster_snapshot(status: &str) -> SnapshotFacts {
    SnapshotFacts {
        database_kind: DatabaseKind::Cluster,
        arn: "arn:aws:rds:us-east-1:000000000000:cluster-snapshot:orders-1".into(),
        engine: "aurora-postgresql".into(),
        encrypted: true,
        kms_key_id: Some("arn:aws:kms:us-east-1:000000000000:key/1".into()),
        size_gb: 0,
        original_created_at: None,
        option_group: None,
        port: None,
        ..snapshot(status)
    }
}

pub(crate) fn snapshot(status: &str) -> SnapshotFacts {
    let mut tags = labels::mark(Role::Backup, &operation(), Some("orders"));
    tags.insert(labels::PROOF.into(), "proven".into());
    SnapshotFacts {
        id: SnapshotId::parse("orders-1").unwrap(),
        arn: "arn:aws:rds:us-east-1:000000000000:snapshot:orders-1".into(),
        region: region("us-east-1"),
        database: "orders".into(),
        database_kind: DatabaseKind::Instance,
        status: status.into(),
        percent: 40,
        kind: "manual".into(),
        engine: "postgres".into(),
        engine_version: "16.4".into(),
        encrypted: false,
        kms_key_id: None,
        size_gb: 20,
        created_at: Some(at("2026-01-02T03:00:00Z")),
        original_created_at: Some(at("2026-01-02T03:00:00Z")),
        database_time: None,
        option_group: Some("default:postgres-16".into()),
        master_username: Some("master".into()),
        port: Some(5432),
        source_arn: None,
        tags,
    }
}

pub(crate) fn key(region: &str) -> KeyFacts {
    KeyFacts {
        arn: format!("arn:aws:kms:{region}:000000000000:key/1"),
        state: "Enabled".into(),
        usage: Some("ENCRYPT_DECRYPT".into()),
        spec: Some("SYMMETRIC_DEFAULT".into()),
        manager: Some("CUSTOMER".into()),
        deletion_date: None,
    }
}
