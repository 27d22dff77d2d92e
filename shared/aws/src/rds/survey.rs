//! Whole Regions, for a look at their health: each method lists once, over all pages, and keeps what matters.

use std::collections::BTreeMap;

use aws_sdk_rds::types::{DbCluster, DbInstance};
use dr_core::health::{InstanceSeen, Point, Quota, ReplicationStatus};
use dr_core::{DrError, ErrorName, Result};
use jiff::Timestamp;

use super::{Rds, facts};
use crate::errors::Call;
use crate::time::timestamp;

/// Records of a page: the most that RDS gives.
const PAGE: i32 = 100;

impl Rds {
    /// Every instance of this Region.
    ///
    /// # Errors
    /// The named error of the call `rds:DescribeDBInstances`.
    pub async fn survey_instances(&self) -> Result<Vec<InstanceSeen>> {
        let call = Call::read("rds:DescribeDBInstances", format!("listing the databases in {}", self.region));
        let mut pages = self.client.describe_db_instances().max_records(PAGE).into_paginator().send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|fault| call.failure(fault))?;
            for instance in page.db_instances() {
                found.push(instance_seen(instance)?);
            }
        }
        Ok(found)
    }

    /// Every cluster of this Region, as a database of its own: its members' storage and certificates are not its.
    ///
    /// # Errors
    /// The named error of the call `rds:DescribeDBClusters`.
    pub async fn survey_clusters(&self) -> Result<Vec<InstanceSeen>> {
        let call = Call::read("rds:DescribeDBClusters", format!("listing the clusters in {}", self.region));
        let mut pages = self.client.describe_db_clusters().max_records(PAGE).into_paginator().send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|fault| call.failure(fault))?;
            for cluster in page.db_clusters() {
                found.push(cluster_seen(cluster)?);
            }
        }
        Ok(found)
    }

    /// Every manual cluster snapshot of this Region that is ours.
    ///
    /// # Errors
    /// The named error of the call `rds:DescribeDBClusterSnapshots`.
    pub async fn survey_cluster_points(&self) -> Result<Vec<Point>> {
        let what = format!("listing the cluster snapshots in {}", self.region);
        let call = Call::read("rds:DescribeDBClusterSnapshots", what);
        let request = self.client.describe_db_cluster_snapshots().snapshot_type("manual").max_records(PAGE);
        let mut pages = request.into_paginator().send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|fault| call.failure(fault))?;
            for snapshot in page.db_cluster_snapshots() {
                let facts = facts::cluster_snapshot(snapshot, &self.region)?;
                let (id, key) = (facts.id.as_str(), facts.kms_key_id.as_deref());
                found.extend(Point::read(id, &facts.status, facts.taken_at(), key, &facts.tags));
            }
        }
        Ok(found)
    }

    /// Every manual snapshot of this Region that is ours; of the others nothing is kept, so that a Region may have
    /// any number of them.
    ///
    /// # Errors
    /// The named error of the call `rds:DescribeDBSnapshots`.
    pub async fn survey_points(&self) -> Result<Vec<Point>> {
        let call = Call::read("rds:DescribeDBSnapshots", format!("listing the snapshots in {}", self.region));
        let request = self.client.describe_db_snapshots().snapshot_type("manual").max_records(PAGE);
        let mut pages = request.into_paginator().send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|fault| call.failure(fault))?;
            for snapshot in page.db_snapshots() {
                let facts = facts::snapshot(snapshot, &self.region)?;
                let (id, key) = (facts.id.as_str(), facts.kms_key_id.as_deref());
                found.extend(Point::read(id, &facts.status, facts.taken_at(), key, &facts.tags));
            }
        }
        Ok(found)
    }

    /// The account's quotas in this Region and how much of each is used.
    ///
    /// # Errors
    /// The named error of the call `rds:DescribeAccountAttributes`.
    pub async fn quotas(&self) -> Result<Vec<Quota>> {
        let call =
            Call::read("rds:DescribeAccountAttributes", format!("reading the quotas in {}", self.region));
        let answer =
            self.client.describe_account_attributes().send().await.map_err(|fault| call.failure(fault))?;
        let quotas = answer.account_quotas().iter().filter_map(|quota| {
            let name = quota.account_quota_name()?.to_owned();
            Some(Quota { name, used: quota.used()?, max: quota.max()? })
        });
        Ok(quotas.collect())
    }

    /// The certificate authorities of this Region, with the end of their validity.
    ///
    /// # Errors
    /// The named error of the call `rds:DescribeCertificates`.
    pub async fn certificate_authorities(&self) -> Result<BTreeMap<String, Timestamp>> {
        let call =
            Call::read("rds:DescribeCertificates", format!("listing the authorities in {}", self.region));
        let mut pages = self.client.describe_certificates().max_records(PAGE).into_paginator().send();
        let mut found = BTreeMap::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|fault| call.failure(fault))?;
            found.extend(page.certificates().iter().filter_map(|one| {
                Some((one.certificate_identifier()?.to_owned(), one.valid_till().and_then(timestamp)?))
            }));
        }
        Ok(found)
    }
}

fn cluster_seen(cluster: &DbCluster) -> Result<InstanceSeen> {
    let id = cluster.db_cluster_identifier().ok_or_else(|| {
        DrError::new(ErrorName::AwsFault, "reading an answer of RDS: DBClusterIdentifier is absent")
    })?;
    Ok(InstanceSeen {
        id: id.to_owned(),
        arn: cluster.db_cluster_arn().unwrap_or_default().to_owned(),
        status: cluster.status().unwrap_or_default().to_owned(),
        engine: cluster.engine().unwrap_or_default().to_owned(),
        allocated_storage_gb: 0,
        max_allocated_storage_gb: None,
        encrypted: cluster.storage_encrypted().unwrap_or_default(),
        kms_key_id: cluster.kms_key_id().map(str::to_owned),
        cluster: None,
        readers: cluster
            .db_cluster_members()
            .iter()
            .filter(|member| member.is_cluster_writer() == Some(false))
            .filter_map(|member| member.db_instance_identifier())
            .map(str::to_owned)
            .collect(),
        replica_of: cluster
            .replication_source_identifier()
            .filter(|text| !text.is_empty())
            .map(str::to_owned),
        replication: Vec::new(),
        ca_certificate: None,
        backup_retention_days: cluster.backup_retention_period().unwrap_or_default(),
        latest_restorable_time: cluster.latest_restorable_time().and_then(timestamp),
        publicly_accessible: cluster.publicly_accessible().unwrap_or_default(),
        deletion_protection: cluster.deletion_protection().unwrap_or_default(),
        created_at: cluster.cluster_create_time().and_then(timestamp),
        tags: facts::tags(cluster.tag_list()),
    })
}

fn instance_seen(instance: &DbInstance) -> Result<InstanceSeen> {
    let absent =
        |member| DrError::new(ErrorName::AwsFault, format!("reading an answer of RDS: {member} is absent"));
    let replication =
        instance.status_infos().iter().filter(|info| info.status_type() == Some("read replication"));
    Ok(InstanceSeen {
        id: instance.db_instance_identifier().ok_or_else(|| absent("DBInstanceIdentifier"))?.to_owned(),
        arn: instance.db_instance_arn().unwrap_or_default().to_owned(),
        status: instance.db_instance_status().unwrap_or_default().to_owned(),
        engine: instance.engine().unwrap_or_default().to_owned(),
        allocated_storage_gb: instance.allocated_storage().unwrap_or_default(),
        max_allocated_storage_gb: instance.max_allocated_storage(),
        encrypted: instance.storage_encrypted().unwrap_or_default(),
        kms_key_id: instance.kms_key_id().map(str::to_owned),
        cluster: instance.db_cluster_identifier().map(str::to_owned),
        readers: Vec::new(),
        replica_of: instance
            .read_replica_source_db_instance_identifier()
            .filter(|source| !source.is_empty())
            .map(str::to_owned),
        replication: replication
            .map(|info| ReplicationStatus {
                normal: info.normal().unwrap_or_default(),
                status: info.status().unwrap_or_default().to_owned(),
                message: info.message().unwrap_or_default().to_owned(),
            })
            .collect(),
        ca_certificate: instance.ca_certificate_identifier().map(str::to_owned),
        backup_retention_days: instance.backup_retention_period().unwrap_or_default(),
        latest_restorable_time: instance.latest_restorable_time().and_then(timestamp),
        publicly_accessible: instance.publicly_accessible().unwrap_or_default(),
        deletion_protection: instance.deletion_protection().unwrap_or_default(),
        created_at: instance.instance_create_time().and_then(timestamp),
        tags: facts::tags(instance.tag_list()),
    })
}
