//! Answers of RDS as facts of ours. A member that a fact cannot do without and that is absent is an answer that
//! cannot be read.

use aws_sdk_rds::types::{DbCluster, DbClusterSnapshot, DbInstance, DbSnapshot, Tag};
use dr_core::ids::{DatabaseId, Region, SnapshotId};
use dr_core::observed::{DatabaseFacts, DatabaseKind, Endpoint, Member, Scaling, SnapshotFacts, Tags};
use dr_core::{DrError, ErrorName, Result};

use crate::time::timestamp;

pub(super) fn database(instance: &DbInstance, region: &Region) -> Result<DatabaseFacts> {
    let id = instance.db_instance_identifier().ok_or_else(|| unreadable("DBInstanceIdentifier"))?;
    Ok(DatabaseFacts {
        kind: DatabaseKind::Instance,
        id: DatabaseId::parse(id)?,
        arn: instance.db_instance_arn().ok_or_else(|| unreadable("DBInstanceArn"))?.to_owned(),
        region: region.clone(),
        resource_id: instance.dbi_resource_id().map(str::to_owned),
        engine: instance.engine().unwrap_or_default().to_owned(),
        engine_version: instance.engine_version().unwrap_or_default().to_owned(),
        status: instance.db_instance_status().unwrap_or_default().to_owned(),
        encrypted: instance.storage_encrypted().unwrap_or_default(),
        kms_key_id: instance.kms_key_id().map(str::to_owned),
        allocated_storage_gb: instance.allocated_storage().unwrap_or_default(),
        instance_class: instance.db_instance_class().unwrap_or_default().to_owned(),
        storage_type: instance.storage_type().map(str::to_owned),
        subnet_group: instance
            .db_subnet_group()
            .and_then(|group| group.db_subnet_group_name())
            .map(str::to_owned),
        parameter_group: instance
            .db_parameter_groups()
            .first()
            .and_then(|group| group.db_parameter_group_name())
            .map(str::to_owned),
        option_group: instance
            .option_group_memberships()
            .first()
            .and_then(|group| group.option_group_name())
            .map(str::to_owned),
        security_group_ids: instance
            .vpc_security_groups()
            .iter()
            .filter_map(|group| group.vpc_security_group_id())
            .map(str::to_owned)
            .collect(),
        multi_az: instance.multi_az().unwrap_or_default(),
        iam_authentication: instance.iam_database_authentication_enabled().unwrap_or_default(),
        master_username: instance.master_username().map(str::to_owned),
        master_user_secret_arn: instance
            .master_user_secret()
            .and_then(|secret| secret.secret_arn())
            .map(str::to_owned),
        database_name: instance.db_name().map(str::to_owned),
        endpoint: instance.endpoint().and_then(|endpoint| {
            Some(Endpoint {
                address: endpoint.address()?.to_owned(),
                port: u16::try_from(endpoint.port()?).ok()?,
            })
        }),
        cluster: instance.db_cluster_identifier().map(str::to_owned),
        members: Vec::new(),
        scaling: None,
        replica_of: instance
            .read_replica_source_db_instance_identifier()
            .or(instance.read_replica_source_db_cluster_identifier())
            .map(str::to_owned),
        ca_certificate: instance.ca_certificate_identifier().map(str::to_owned),
        password_pending: instance
            .pending_modified_values()
            .is_some_and(|pending| pending.master_user_password().is_some()),
        created_at: instance.instance_create_time().and_then(timestamp),
        latest_restorable_time: instance.latest_restorable_time().and_then(timestamp),
        tags: tags(instance.tag_list()),
    })
}

pub(super) fn cluster(cluster: &DbCluster, region: &Region) -> Result<DatabaseFacts> {
    let id = cluster.db_cluster_identifier().ok_or_else(|| unreadable("DBClusterIdentifier"))?;
    let members = cluster
        .db_cluster_members()
        .iter()
        .filter_map(|member| Some((member.db_instance_identifier()?, member.is_cluster_writer())))
        .map(|(id, writer)| Ok(Member { id: DatabaseId::parse(id)?, writer: writer.unwrap_or_default() }))
        .collect::<Result<Vec<_>>>()?;
    Ok(DatabaseFacts {
        kind: DatabaseKind::Cluster,
        id: DatabaseId::parse(id)?,
        arn: cluster.db_cluster_arn().ok_or_else(|| unreadable("DBClusterArn"))?.to_owned(),
        region: region.clone(),
        resource_id: cluster.db_cluster_resource_id().map(str::to_owned),
        engine: cluster.engine().unwrap_or_default().to_owned(),
        engine_version: cluster.engine_version().unwrap_or_default().to_owned(),
        status: cluster.status().unwrap_or_default().to_owned(),
        encrypted: cluster.storage_encrypted().unwrap_or_default(),
        kms_key_id: cluster.kms_key_id().map(str::to_owned),
        allocated_storage_gb: cluster.allocated_storage().unwrap_or_default(),
        instance_class: cluster.db_cluster_instance_class().unwrap_or_default().to_owned(),
        storage_type: cluster.storage_type().map(str::to_owned),
        subnet_group: cluster.db_subnet_group().map(str::to_owned),
        parameter_group: cluster.db_cluster_parameter_group().map(str::to_owned),
        option_group: cluster
            .db_cluster_option_group_memberships()
            .first()
            .and_then(|group| group.db_cluster_option_group_name())
            .map(str::to_owned),
        security_group_ids: cluster
            .vpc_security_groups()
            .iter()
            .filter_map(|group| group.vpc_security_group_id())
            .map(str::to_owned)
            .collect(),
        multi_az: cluster.multi_az().unwrap_or_default(),
        iam_authentication: cluster.iam_database_authentication_enabled().unwrap_or_default(),
        master_username: cluster.master_username().map(str::to_owned),
        master_user_secret_arn: cluster
            .master_user_secret()
            .and_then(|secret| secret.secret_arn())
            .map(str::to_owned),
        database_name: cluster.database_name().map(str::to_owned),
        endpoint: cluster.endpoint().zip(cluster.port()).and_then(|(address, port)| {
            Some(Endpoint { address: address.to_owned(), port: u16::try_from(port).ok()? })
        }),
        cluster: None,
        replica_of: cluster.replication_source_identifier().map(str::to_owned),
        members,
        scaling: cluster.serverless_v2_scaling_configuration().and_then(|scaling| {
            Some(Scaling {
                min_half_units: halves(scaling.min_capacity()?)?,
                max_half_units: halves(scaling.max_capacity()?)?,
            })
        }),
        ca_certificate: cluster
            .certificate_details()
            .and_then(|certificate| certificate.ca_identifier())
            .map(str::to_owned),
        password_pending: cluster
            .pending_modified_values()
            .is_some_and(|pending| pending.master_user_password().is_some()),
        created_at: cluster.cluster_create_time().and_then(timestamp),
        latest_restorable_time: cluster.latest_restorable_time().and_then(timestamp),
        tags: tags(cluster.tag_list()),
    })
}

/// Capacity units in steps of 0.5, counted in halves; `None` for what is no capacity (RDS has at most 256 units).
fn halves(units: f64) -> Option<u32> {
    (0..=512_u32).find(|halves| (f64::from(*halves) / 2.0 - units).abs() < 0.25)
}

pub(super) fn cluster_snapshot(snapshot: &DbClusterSnapshot, region: &Region) -> Result<SnapshotFacts> {
    let id =
        snapshot.db_cluster_snapshot_identifier().ok_or_else(|| unreadable("DBClusterSnapshotIdentifier"))?;
    let arn = snapshot.db_cluster_snapshot_arn().ok_or_else(|| unreadable("DBClusterSnapshotArn"))?;
    Ok(SnapshotFacts {
        id: SnapshotId::parse(id)?,
        arn: arn.to_owned(),
        region: region.clone(),
        database: snapshot.db_cluster_identifier().unwrap_or_default().to_owned(),
        database_kind: DatabaseKind::Cluster,
        status: snapshot.status().unwrap_or_default().to_owned(),
        percent: snapshot.percent_progress().unwrap_or_default(),
        kind: snapshot.snapshot_type().unwrap_or_default().to_owned(),
        engine: snapshot.engine().unwrap_or_default().to_owned(),
        engine_version: snapshot.engine_version().unwrap_or_default().to_owned(),
        encrypted: snapshot.storage_encrypted().unwrap_or_default(),
        kms_key_id: snapshot.kms_key_id().map(str::to_owned),
        size_gb: snapshot.allocated_storage().unwrap_or_default(),
        created_at: snapshot.snapshot_create_time().and_then(timestamp),
        // The service has neither of these, nor an option group, for cluster snapshots.
        original_created_at: None,
        database_time: None,
        option_group: None,
        master_username: snapshot.master_username().map(str::to_owned),
        // Aurora's snapshots say port 0.
        port: snapshot.port().and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0),
        source_arn: snapshot
            .source_db_cluster_snapshot_arn()
            .filter(|source| !source.is_empty())
            .map(str::to_owned),
        tags: tags(snapshot.tag_list()),
    })
}

pub(super) fn snapshot(snapshot: &DbSnapshot, region: &Region) -> Result<SnapshotFacts> {
    let id = snapshot.db_snapshot_identifier().ok_or_else(|| unreadable("DBSnapshotIdentifier"))?;
    Ok(SnapshotFacts {
        id: SnapshotId::parse(id)?,
        arn: snapshot.db_snapshot_arn().ok_or_else(|| unreadable("DBSnapshotArn"))?.to_owned(),
        region: region.clone(),
        database: snapshot.db_instance_identifier().unwrap_or_default().to_owned(),
        database_kind: DatabaseKind::Instance,
        status: snapshot.status().unwrap_or_default().to_owned(),
        percent: snapshot.percent_progress().unwrap_or_default(),
        kind: snapshot.snapshot_type().unwrap_or_default().to_owned(),
        engine: snapshot.engine().unwrap_or_default().to_owned(),
        engine_version: snapshot.engine_version().unwrap_or_default().to_owned(),
        encrypted: snapshot.encrypted().unwrap_or_default(),
        kms_key_id: snapshot.kms_key_id().map(str::to_owned),
        size_gb: snapshot.allocated_storage().unwrap_or_default(),
        created_at: snapshot.snapshot_create_time().and_then(timestamp),
        original_created_at: snapshot.original_snapshot_create_time().and_then(timestamp),
        database_time: snapshot.snapshot_database_time().and_then(timestamp),
        option_group: snapshot.option_group_name().map(str::to_owned),
        master_username: snapshot.master_username().map(str::to_owned),
        port: snapshot.port().and_then(|port| u16::try_from(port).ok()),
        source_arn: snapshot
            .source_db_snapshot_identifier()
            .filter(|source| !source.is_empty())
            .map(str::to_owned),
        tags: tags(snapshot.tag_list()),
    })
}

pub(super) fn tags_to_sdk(tags: &Tags) -> Vec<Tag> {
    tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build()).collect()
}

pub(super) fn tags(list: &[Tag]) -> Tags {
    list.iter()
        .filter_map(|tag| Some((tag.key()?.to_owned(), tag.value().unwrap_or_default().to_owned())))
        .collect()
}

fn unreadable(member: &str) -> DrError {
    DrError::new(ErrorName::AwsFault, format!("reading an answer of RDS: {member} is absent"))
}
