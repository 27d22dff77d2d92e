//! Instances: look, find by tag, restore from a snapshot, set a password, delete.

use dr_core::Result;
use dr_core::ids::DatabaseId;
use dr_core::observed::{DatabaseFacts, DatabaseKind, Observed};
use dr_core::request::Tag;
use dr_core::restore::RestoreRequest;
use dr_core::sought;

use super::snapshots::observed;
use super::{Rds, facts};
use crate::errors::{Call, code_of};

fn carries(tags: &[aws_sdk_rds::types::Tag], wanted: &Tag) -> bool {
    tags.iter()
        .any(|seen| seen.key() == Some(&wanted.key) && seen.value().unwrap_or_default() == wanted.value)
}

/// What came of asking for a restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestoreStart {
    /// RDS is making the instance.
    Started,
    /// The name is taken, by us or by somebody else.
    NameTaken,
}

/// What came of asking for a deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// RDS is deleting it.
    Started,
    /// Its status does not allow it now.
    NotNow,
    /// It does not exist.
    Gone,
}

impl Rds {
    /// Looks for an instance in this Region.
    pub async fn describe_database(&self, id: &DatabaseId) -> Observed<DatabaseFacts> {
        let call =
            Call::read("rds:DescribeDBInstances", format!("reading database `{id}` in {}", self.region));
        match self.client.describe_db_instances().db_instance_identifier(id.as_str()).send().await {
            Ok(answer) => match answer.db_instances().first() {
                Some(instance) => observed(facts::database(instance, &self.region)),
                None => Observed::Missing,
            },
            Err(fault) if code_of(&fault) == Some("DBInstanceNotFound") => Observed::Missing,
            Err(fault) => Observed::Unreachable(call.failure(fault)),
        }
    }

    /// All instances and clusters of this Region that carry a tag, over all pages; members of a cluster that carries
    /// it too are left out. RDS has no filter for tags, so every one is read.
    ///
    /// # Errors
    /// The named error of the calls `rds:DescribeDBInstances` and `rds:DescribeDBClusters`.
    pub async fn databases_with_tag(&self, tag: &Tag) -> Result<Vec<DatabaseFacts>> {
        let call = Call::read(
            "rds:DescribeDBInstances",
            format!("looking for a database with the tag `{}` in {}", tag.key, self.region),
        );
        let mut pages = self.client.describe_db_instances().max_records(100).into_paginator().send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|fault| call.failure(fault))?;
            for instance in page.db_instances().iter().filter(|seen| carries(seen.tag_list(), tag)) {
                found.push(facts::database(instance, &self.region)?);
            }
        }
        let call = Call::read(
            "rds:DescribeDBClusters",
            format!("looking for a cluster with the tag `{}` in {}", tag.key, self.region),
        );
        let mut pages = self.client.describe_db_clusters().max_records(100).into_paginator().send();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|fault| call.failure(fault))?;
            for cluster in page.db_clusters().iter().filter(|seen| carries(seen.tag_list(), tag)) {
                found.push(facts::cluster(cluster, &self.region)?);
            }
        }
        Ok(sought::without_members(found))
    }

    /// The instances and then the clusters of this Region that `keep` says yes to, over all pages, in RDS's order. What
    /// is not kept is let go of page by page.
    ///
    /// # Errors
    /// The named error of the calls `rds:DescribeDBInstances` and `rds:DescribeDBClusters`.
    pub async fn databases_where(&self, keep: impl Fn(&DatabaseFacts) -> bool) -> Result<Vec<DatabaseFacts>> {
        let call = Call::read("rds:DescribeDBInstances", format!("listing the databases in {}", self.region));
        let mut pages = self.client.describe_db_instances().max_records(100).into_paginator().send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|fault| call.failure(fault))?;
            for instance in page.db_instances() {
                let facts = facts::database(instance, &self.region)?;
                if keep(&facts) {
                    found.push(facts);
                }
            }
        }
        let call = Call::read("rds:DescribeDBClusters", format!("listing the clusters in {}", self.region));
        let mut pages = self.client.describe_db_clusters().max_records(100).into_paginator().send();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|fault| call.failure(fault))?;
            for cluster in page.db_clusters() {
                let facts = facts::cluster(cluster, &self.region)?;
                if keep(&facts) {
                    found.push(facts);
                }
            }
        }
        Ok(found)
    }

    /// Asks for a new instance from a snapshot.
    ///
    /// # Errors
    /// The named error of the call `rds:RestoreDBInstanceFromDBSnapshot`.
    pub async fn restore(&self, request: &RestoreRequest) -> Result<RestoreStart> {
        let call = Call::write(
            "rds:RestoreDBInstanceFromDBSnapshot",
            format!("restoring snapshot `{}` in {} as `{}`", request.snapshot, self.region, request.id),
        );
        let snapshot = Some(request.snapshot.to_string());
        let (of_instance, of_cluster) = match request.snapshot_kind {
            DatabaseKind::Instance => (snapshot, None),
            DatabaseKind::Cluster => (None, snapshot),
        };
        let sent = self
            .client
            .restore_db_instance_from_db_snapshot()
            .db_instance_identifier(request.id.as_str())
            .set_db_snapshot_identifier(of_instance)
            .set_db_cluster_snapshot_identifier(of_cluster)
            .set_db_instance_class(request.instance_class.clone())
            .db_subnet_group_name(&request.subnet_group)
            .set_vpc_security_group_ids(Some(request.security_group_ids.clone()))
            .set_db_parameter_group_name(request.parameter_group.clone())
            .set_option_group_name(request.option_group.clone())
            .set_port(request.port.map(i32::from))
            .publicly_accessible(false)
            .multi_az(false)
            .deletion_protection(false)
            .enable_iam_database_authentication(false)
            .auto_minor_version_upgrade(false)
            .copy_tags_to_snapshot(false)
            .backup_retention_period(0)
            .set_tags(Some(facts::tags_to_sdk(&request.tags)))
            .send()
            .await;
        match sent {
            Ok(_) => Ok(RestoreStart::Started),
            Err(fault) if code_of(&fault) == Some("DBInstanceAlreadyExists") => Ok(RestoreStart::NameTaken),
            Err(fault) => Err(call.failure(fault)),
        }
    }

    /// Sets the master user's password, at once. RDS applies it a little later: until then the instance shows a
    /// pending password (`PendingModifiedValues`).
    ///
    /// # Errors
    /// The named error of the call `rds:ModifyDBInstance`.
    pub async fn set_master_password(&self, id: &DatabaseId, password: &str) -> Result<()> {
        let call = Call::write(
            "rds:ModifyDBInstance",
            format!("setting the master password of `{id}` in {}", self.region),
        );
        self.client
            .modify_db_instance()
            .db_instance_identifier(id.as_str())
            .master_user_password(password)
            .apply_immediately(true)
            .send()
            .await
            .map(|_| ())
            .map_err(|fault| call.failure(fault))
    }

    /// Deletes an instance for good: no final snapshot, and its automated backups with it.
    ///
    /// # Errors
    /// The named error of the call `rds:DeleteDBInstance`.
    pub async fn delete_database(&self, id: &DatabaseId) -> Result<Deletion> {
        let call = Call::write("rds:DeleteDBInstance", format!("deleting `{id}` in {}", self.region));
        let sent = self
            .client
            .delete_db_instance()
            .db_instance_identifier(id.as_str())
            .skip_final_snapshot(true)
            .delete_automated_backups(true)
            .send()
            .await;
        match sent {
            Ok(_) => Ok(Deletion::Started),
            Err(fault) => match code_of(&fault) {
                Some("DBInstanceNotFound") => Ok(Deletion::Gone),
                // Being created, or being deleted already: RDS says the same for both.
                Some("InvalidDBInstanceState") => Ok(Deletion::NotNow),
                _ => Err(call.failure(fault)),
            },
        }
    }
}
