//! Snapshots, of instances and of clusters: look, create, copy, delete.

use aws_sdk_rds::types::{DbClusterSnapshot, DbSnapshot};
use dr_core::ids::{DatabaseId, SnapshotId};
use dr_core::observed::{DatabaseKind, Observed, SnapshotFacts, Tags};
use dr_core::replication::CopyRequest;
use dr_core::sought::{self, Sight};
use dr_core::{DrError, ErrorName, Result};

use super::{Deletion, Rds, facts};
use crate::errors::{Call, code_of};

/// What came of asking for a snapshot.
#[derive(Debug)]
pub enum SnapshotStart {
    /// RDS is making it.
    Started(Box<SnapshotFacts>),
    /// The name is taken, by us or by somebody else.
    NameTaken,
}

/// What came of asking for a copy.
#[derive(Debug)]
pub enum CopyStart {
    /// RDS is copying.
    Started(Box<SnapshotFacts>),
    /// The name is taken, by us or by somebody else.
    NameTaken,
    /// `SnapshotQuotaExceeded`, which means two things; only its message tells.
    Limited {
        /// The service's message.
        message: String,
    },
}

/// A page of snapshots.
#[derive(Debug)]
pub struct SnapshotPage {
    /// At most 100.
    pub snapshots: Vec<SnapshotFacts>,
    /// Where the next page begins; `None` on the last one.
    pub next: Option<String>,
}

impl Rds {
    /// One page of the manual snapshots of this Region, those of one database only where it is named.
    ///
    /// # Errors
    /// The named error of the call `rds:DescribeDBSnapshots`.
    pub async fn snapshot_page(
        &self,
        database: Option<&DatabaseId>,
        marker: Option<String>,
    ) -> Result<SnapshotPage> {
        let call = Call::read("rds:DescribeDBSnapshots", format!("listing the snapshots in {}", self.region));
        let answer = self
            .client
            .describe_db_snapshots()
            .set_db_instance_identifier(database.map(ToString::to_string))
            .snapshot_type("manual")
            .max_records(100)
            .set_marker(marker)
            .send()
            .await
            .map_err(|fault| call.failure(fault))?;
        let snapshots = answer.db_snapshots().iter().map(|snapshot| facts::snapshot(snapshot, &self.region));
        Ok(SnapshotPage {
            snapshots: snapshots.collect::<Result<_>>()?,
            next: answer.marker().filter(|marker| !marker.is_empty()).map(str::to_owned),
        })
    }

    /// One page of the manual snapshots of clusters of this Region, those of one cluster only where it is named.
    ///
    /// # Errors
    /// The named error of the call `rds:DescribeDBClusterSnapshots`.
    pub async fn cluster_snapshot_page(
        &self,
        cluster: Option<&DatabaseId>,
        marker: Option<String>,
    ) -> Result<SnapshotPage> {
        let what = format!("listing the snapshots of clusters in {}", self.region);
        let call = Call::read("rds:DescribeDBClusterSnapshots", what);
        let answer = self
            .client
            .describe_db_cluster_snapshots()
            .set_db_cluster_identifier(cluster.map(ToString::to_string))
            .snapshot_type("manual")
            .max_records(100)
            .set_marker(marker)
            .send()
            .await
            .map_err(|fault| call.failure(fault))?;
        let snapshots = answer
            .db_cluster_snapshots()
            .iter()
            .map(|snapshot| facts::cluster_snapshot(snapshot, &self.region));
        Ok(SnapshotPage {
            snapshots: snapshots.collect::<Result<_>>()?,
            next: answer.marker().filter(|marker| !marker.is_empty()).map(str::to_owned),
        })
    }

    /// Looks for a snapshot of an instance in this Region by its identifier.
    pub async fn describe_snapshot(&self, id: &SnapshotId) -> Observed<SnapshotFacts> {
        let call =
            Call::read("rds:DescribeDBSnapshots", format!("reading snapshot `{id}` in {}", self.region));
        let asked = self
            .client
            .describe_db_snapshots()
            .db_snapshot_identifier(id.as_str())
            .set_snapshot_type(id.type_to_ask_for().map(str::to_owned));
        match asked.send().await {
            Ok(answer) => match answer.db_snapshots().first() {
                Some(snapshot) => observed(facts::snapshot(snapshot, &self.region)),
                None => Observed::Missing,
            },
            Err(fault) if code_of(&fault) == Some("DBSnapshotNotFound") => Observed::Missing,
            Err(fault) => Observed::Unreachable(call.failure(fault)),
        }
    }

    /// Looks for a snapshot of a cluster in this Region by its identifier.
    pub async fn describe_cluster_snapshot(&self, id: &SnapshotId) -> Observed<SnapshotFacts> {
        let call = Call::read(
            "rds:DescribeDBClusterSnapshots",
            format!("reading cluster snapshot `{id}` in {}", self.region),
        );
        let asked = self
            .client
            .describe_db_cluster_snapshots()
            .db_cluster_snapshot_identifier(id.as_str())
            .set_snapshot_type(id.type_to_ask_for().map(str::to_owned));
        match asked.send().await {
            Ok(answer) => match answer.db_cluster_snapshots().first() {
                Some(snapshot) => observed(facts::cluster_snapshot(snapshot, &self.region)),
                None => Observed::Missing,
            },
            Err(fault) if code_of(&fault) == Some("DBClusterSnapshotNotFoundFault") => Observed::Missing,
            Err(fault) => Observed::Unreachable(call.failure(fault)),
        }
    }

    /// Looks for what a snapshot's name means: one of an instance, of a cluster, or, without `kind`, whichever there
    /// is. That both are there is an error, and so "could not look".
    pub async fn find_snapshot(
        &self,
        id: &SnapshotId,
        kind: Option<DatabaseKind>,
    ) -> Observed<SnapshotFacts> {
        let sight = match kind {
            Some(DatabaseKind::Instance) => return self.describe_snapshot(id).await,
            Some(DatabaseKind::Cluster) => return self.describe_cluster_snapshot(id).await,
            None => {
                let (instance, cluster) =
                    tokio::join!(self.describe_snapshot(id), self.describe_cluster_snapshot(id));
                Sight { instance: Some(instance), cluster: Some(cluster) }
            }
        };
        match sought::snapshot(id.as_str(), sight) {
            Ok(Some(found)) => Observed::Found(found),
            Ok(None) => Observed::Missing,
            Err(error) => Observed::Unreachable(error),
        }
    }

    /// All snapshots of a cluster in this Region, manual and automated, over all pages.
    ///
    /// # Errors
    /// The named error of the call `rds:DescribeDBClusterSnapshots`.
    pub async fn snapshots_of_cluster(&self, cluster: &DatabaseId) -> Result<Vec<SnapshotFacts>> {
        let call = Call::read(
            "rds:DescribeDBClusterSnapshots",
            format!("listing the snapshots of cluster `{cluster}` in {}", self.region),
        );
        let mut pages = self
            .client
            .describe_db_cluster_snapshots()
            .db_cluster_identifier(cluster.as_str())
            .max_records(100)
            .into_paginator()
            .send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|fault| call.failure(fault))?;
            for snapshot in page.db_cluster_snapshots() {
                found.push(facts::cluster_snapshot(snapshot, &self.region)?);
            }
        }
        Ok(found)
    }

    /// All snapshots of a database in this Region, of every kind, over all pages.
    ///
    /// # Errors
    /// The named error of the call `rds:DescribeDBSnapshots`.
    pub async fn snapshots_of(&self, database: &DatabaseId) -> Result<Vec<SnapshotFacts>> {
        let call = Call::read(
            "rds:DescribeDBSnapshots",
            format!("listing the snapshots of `{database}` in {}", self.region),
        );
        let mut pages = self
            .client
            .describe_db_snapshots()
            .db_instance_identifier(database.as_str())
            .max_records(100)
            .into_paginator()
            .send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|fault| call.failure(fault))?;
            for snapshot in page.db_snapshots() {
                found.push(facts::snapshot(snapshot, &self.region)?);
            }
        }
        Ok(found)
    }

    /// Asks for a manual snapshot of a cluster.
    ///
    /// # Errors
    /// The named error of the call `rds:CreateDBClusterSnapshot`.
    pub async fn create_cluster_snapshot(
        &self,
        cluster: &DatabaseId,
        id: &SnapshotId,
        tags: &Tags,
    ) -> Result<SnapshotStart> {
        let call = Call::write(
            "rds:CreateDBClusterSnapshot",
            format!("creating snapshot `{id}` of cluster `{cluster}` in {}", self.region),
        );
        let sent = self
            .client
            .create_db_cluster_snapshot()
            .db_cluster_identifier(cluster.as_str())
            .db_cluster_snapshot_identifier(id.as_str())
            .set_tags(Some(facts::tags_to_sdk(tags)))
            .send()
            .await;
        match sent {
            Ok(answer) => self
                .cluster_started(answer.db_cluster_snapshot())
                .map(|facts| SnapshotStart::Started(Box::new(facts))),
            Err(fault) if code_of(&fault) == Some("DBClusterSnapshotAlreadyExistsFault") => {
                Ok(SnapshotStart::NameTaken)
            }
            Err(fault) => Err(call.failure(fault)),
        }
    }

    /// Asks for a manual snapshot.
    ///
    /// # Errors
    /// The named error of the call `rds:CreateDBSnapshot`.
    pub async fn create_snapshot(
        &self,
        database: &DatabaseId,
        id: &SnapshotId,
        tags: &Tags,
    ) -> Result<SnapshotStart> {
        let call = Call::write(
            "rds:CreateDBSnapshot",
            format!("creating snapshot `{id}` of `{database}` in {}", self.region),
        );
        let sent = self
            .client
            .create_db_snapshot()
            .db_instance_identifier(database.as_str())
            .db_snapshot_identifier(id.as_str())
            .set_tags(Some(facts::tags_to_sdk(tags)))
            .send()
            .await;
        match sent {
            Ok(answer) => {
                self.started(answer.db_snapshot()).map(|facts| SnapshotStart::Started(Box::new(facts)))
            }
            Err(fault) if code_of(&fault) == Some("DBSnapshotAlreadyExists") => Ok(SnapshotStart::NameTaken),
            Err(fault) => Err(call.failure(fault)),
        }
    }

    /// Asks for a copy into this Region. Tags of the source are not copied (`CopyTags` is false): the request holds
    /// all that the copy shall carry.
    ///
    /// # Errors
    /// The named error of the call `rds:CopyDBSnapshot` or `rds:CopyDBClusterSnapshot`.
    pub async fn copy_snapshot(&self, request: &CopyRequest) -> Result<CopyStart> {
        match request.source.kind() {
            DatabaseKind::Instance => self.copy_instance_snapshot(request).await,
            DatabaseKind::Cluster => self.copy_cluster_snapshot(request).await,
        }
    }

    async fn copy_cluster_snapshot(&self, request: &CopyRequest) -> Result<CopyStart> {
        let call = Call::write(
            "rds:CopyDBClusterSnapshot",
            format!("copying cluster snapshot `{}` to {} as `{}`", request.source, self.region, request.id),
        );
        let sent = self
            .client
            .copy_db_cluster_snapshot()
            .source_db_cluster_snapshot_identifier(request.source.as_str())
            .target_db_cluster_snapshot_identifier(request.id.as_str())
            .kms_key_id(&request.kms_key_arn)
            .copy_tags(false)
            .set_tags(Some(facts::tags_to_sdk(&request.tags)))
            .send()
            .await;
        match sent {
            Ok(answer) => self
                .cluster_started(answer.db_cluster_snapshot())
                .map(|facts| CopyStart::Started(Box::new(facts))),
            Err(fault) => match code_of(&fault) {
                Some("DBClusterSnapshotAlreadyExistsFault") => Ok(CopyStart::NameTaken),
                Some("SnapshotQuotaExceeded") => {
                    let message = aws_smithy_types::error::metadata::ProvideErrorMetadata::message(&fault);
                    Ok(CopyStart::Limited { message: message.unwrap_or_default().to_owned() })
                }
                _ => Err(call.failure(fault)),
            },
        }
    }

    async fn copy_instance_snapshot(&self, request: &CopyRequest) -> Result<CopyStart> {
        let call = Call::write(
            "rds:CopyDBSnapshot",
            format!("copying snapshot `{}` to {} as `{}`", request.source, self.region, request.id),
        );
        let sent = self
            .client
            .copy_db_snapshot()
            .source_db_snapshot_identifier(request.source.as_str())
            .target_db_snapshot_identifier(request.id.as_str())
            .kms_key_id(&request.kms_key_arn)
            .copy_tags(false)
            .set_option_group_name(request.option_group.clone())
            .set_tags(Some(facts::tags_to_sdk(&request.tags)))
            .send()
            .await;
        match sent {
            Ok(answer) => self.started(answer.db_snapshot()).map(|facts| CopyStart::Started(Box::new(facts))),
            Err(fault) => match code_of(&fault) {
                Some("DBSnapshotAlreadyExists") => Ok(CopyStart::NameTaken),
                Some("SnapshotQuotaExceeded") => {
                    let message = aws_smithy_types::error::metadata::ProvideErrorMetadata::message(&fault);
                    Ok(CopyStart::Limited { message: message.unwrap_or_default().to_owned() })
                }
                _ => Err(call.failure(fault)),
            },
        }
    }

    /// Deletes a snapshot.
    ///
    /// # Errors
    /// The named error of the call `rds:DeleteDBSnapshot`.
    pub async fn delete_snapshot(&self, id: &SnapshotId) -> Result<Deletion> {
        let call =
            Call::write("rds:DeleteDBSnapshot", format!("deleting snapshot `{id}` in {}", self.region));
        match self.client.delete_db_snapshot().db_snapshot_identifier(id.as_str()).send().await {
            Ok(_) => Ok(Deletion::Started),
            Err(fault) => match code_of(&fault) {
                Some("DBSnapshotNotFound") => Ok(Deletion::Gone),
                Some("InvalidDBSnapshotState") => Ok(Deletion::NotNow),
                _ => Err(call.failure(fault)),
            },
        }
    }

    /// Deletes a snapshot of a cluster.
    ///
    /// # Errors
    /// The named error of the call `rds:DeleteDBClusterSnapshot`.
    pub async fn delete_cluster_snapshot(&self, id: &SnapshotId) -> Result<Deletion> {
        let call = Call::write(
            "rds:DeleteDBClusterSnapshot",
            format!("deleting cluster snapshot `{id}` in {}", self.region),
        );
        let request = self.client.delete_db_cluster_snapshot().db_cluster_snapshot_identifier(id.as_str());
        match request.send().await {
            Ok(_) => Ok(Deletion::Started),
            Err(fault) => match code_of(&fault) {
                Some("DBClusterSnapshotNotFoundFault") => Ok(Deletion::Gone),
                Some("InvalidDBClusterSnapshotStateFault") => Ok(Deletion::NotNow),
                _ => Err(call.failure(fault)),
            },
        }
    }

    fn cluster_started(&self, snapshot: Option<&DbClusterSnapshot>) -> Result<SnapshotFacts> {
        let snapshot = snapshot.ok_or_else(|| {
            DrError::new(ErrorName::AwsFault, "reading an answer of RDS: DBClusterSnapshot is absent")
                .with_leftovers(dr_core::Leftovers::Unknown)
        })?;
        facts::cluster_snapshot(snapshot, &self.region)
    }

    fn started(&self, snapshot: Option<&DbSnapshot>) -> Result<SnapshotFacts> {
        let snapshot = snapshot.ok_or_else(|| {
            DrError::new(ErrorName::AwsFault, "reading an answer of RDS: DBSnapshot is absent")
                .with_leftovers(dr_core::Leftovers::Unknown)
        })?;
        facts::snapshot(snapshot, &self.region)
    }
}

pub(super) fn observed<T>(facts: Result<T>) -> Observed<T> {
    match facts {
        Ok(facts) => Observed::Found(facts),
        Err(error) => Observed::Unreachable(error),
    }
}
