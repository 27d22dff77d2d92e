//! Clusters: look, restore from a snapshot, make a member, set a password, delete.

use dr_core::Result;
use dr_core::ids::DatabaseId;
use dr_core::observed::{DatabaseFacts, DatabaseKind, Observed, Scaling};
use dr_core::restore::{ClusterRequest, MemberRequest};
use dr_core::sought::{self, Sight};

use aws_sdk_rds::types::ServerlessV2ScalingConfiguration;

use super::instances::{Deletion, RestoreStart};
use super::snapshots::observed;
use super::{Rds, facts};
use crate::errors::{Call, code_of};

impl Rds {
    /// Looks for a cluster in this Region.
    pub async fn describe_cluster(&self, id: &DatabaseId) -> Observed<DatabaseFacts> {
        let call = Call::read("rds:DescribeDBClusters", format!("reading cluster `{id}` in {}", self.region));
        match self.client.describe_db_clusters().db_cluster_identifier(id.as_str()).send().await {
            Ok(answer) => match answer.db_clusters().first() {
                Some(cluster) => observed(facts::cluster(cluster, &self.region)),
                None => Observed::Missing,
            },
            Err(fault) if code_of(&fault) == Some("DBClusterNotFoundFault") => Observed::Missing,
            Err(fault) => Observed::Unreachable(call.failure(fault)),
        }
    }

    /// Looks for what a name means: an instance, a cluster, or, without `kind`, whichever there is. That both are
    /// there is an error, and so "could not look".
    pub async fn find_database(
        &self,
        id: &DatabaseId,
        kind: Option<DatabaseKind>,
    ) -> Observed<DatabaseFacts> {
        let sight = match kind {
            Some(DatabaseKind::Instance) => return self.describe_database(id).await,
            Some(DatabaseKind::Cluster) => return self.describe_cluster(id).await,
            None => {
                let (instance, cluster) = tokio::join!(self.describe_database(id), self.describe_cluster(id));
                Sight { instance: Some(instance), cluster: Some(cluster) }
            }
        };
        match sought::database(id.as_str(), sight) {
            Ok(Some(found)) => Observed::Found(found),
            Ok(None) => Observed::Missing,
            Err(error) => Observed::Unreachable(error),
        }
    }

    /// Asks for a new Aurora cluster from a snapshot; it comes without members.
    ///
    /// # Errors
    /// The named error of the call `rds:RestoreDBClusterFromSnapshot`.
    pub async fn restore_cluster(&self, request: &ClusterRequest) -> Result<RestoreStart> {
        let call = Call::write(
            "rds:RestoreDBClusterFromSnapshot",
            format!(
                "restoring cluster snapshot `{}` in {} as `{}`",
                request.snapshot, self.region, request.id
            ),
        );
        let sent = self
            .client
            .restore_db_cluster_from_snapshot()
            .db_cluster_identifier(request.id.as_str())
            .snapshot_identifier(request.snapshot.as_str())
            .engine(&request.engine)
            .engine_version(&request.engine_version)
            .db_subnet_group_name(&request.subnet_group)
            .set_vpc_security_group_ids(Some(request.security_group_ids.clone()))
            .set_db_cluster_parameter_group_name(request.parameter_group.clone())
            .set_serverless_v2_scaling_configuration(request.scaling.map(scaling_to_sdk))
            .deletion_protection(false)
            .enable_iam_database_authentication(false)
            .copy_tags_to_snapshot(false)
            // Aurora always has automated backups; one day is the least.
            .backup_retention_period(1)
            .set_tags(Some(facts::tags_to_sdk(&request.tags)))
            .send()
            .await;
        match sent {
            Ok(_) => Ok(RestoreStart::Started),
            Err(fault) if code_of(&fault) == Some("DBClusterAlreadyExistsFault") => {
                Ok(RestoreStart::NameTaken)
            }
            Err(fault) => Err(call.failure(fault)),
        }
    }

    /// Asks for the one member of a temporary Aurora cluster of the same name.
    ///
    /// # Errors
    /// The named error of the call `rds:CreateDBInstance`.
    pub async fn create_member(&self, request: &MemberRequest) -> Result<RestoreStart> {
        let call = Call::write(
            "rds:CreateDBInstance",
            format!("creating an instance in cluster `{}` in {}", request.id, self.region),
        );
        let sent = self
            .client
            .create_db_instance()
            .db_instance_identifier(request.id.as_str())
            .db_cluster_identifier(request.id.as_str())
            .engine(&request.engine)
            .db_instance_class(&request.instance_class)
            .publicly_accessible(false)
            .auto_minor_version_upgrade(false)
            .set_tags(Some(facts::tags_to_sdk(&request.tags)))
            .send()
            .await;
        match sent {
            Ok(_) => Ok(RestoreStart::Started),
            Err(fault) if code_of(&fault) == Some("DBInstanceAlreadyExists") => Ok(RestoreStart::NameTaken),
            Err(fault) => Err(call.failure(fault)),
        }
    }

    /// Sets the master user's password of a cluster. RDS applies it a little later: until then the cluster shows a
    /// pending password (`PendingModifiedValues`).
    ///
    /// # Errors
    /// The named error of the call `rds:ModifyDBCluster`.
    pub async fn set_cluster_password(&self, id: &DatabaseId, password: &str) -> Result<()> {
        let call = Call::write(
            "rds:ModifyDBCluster",
            format!("setting the master password of cluster `{id}` in {}", self.region),
        );
        self.client
            .modify_db_cluster()
            .db_cluster_identifier(id.as_str())
            .master_user_password(password)
            .apply_immediately(true)
            .send()
            .await
            .map(|_| ())
            .map_err(|fault| call.failure(fault))
    }

    /// Deletes a member of a cluster; what there is to keep or to delete is its cluster's.
    ///
    /// # Errors
    /// The named error of the call `rds:DeleteDBInstance`.
    pub async fn delete_member(&self, id: &DatabaseId) -> Result<Deletion> {
        let call = Call::write("rds:DeleteDBInstance", format!("deleting `{id}` in {}", self.region));
        let request = self.client.delete_db_instance().db_instance_identifier(id.as_str());
        match request.skip_final_snapshot(true).send().await {
            Ok(_) => Ok(Deletion::Started),
            Err(fault) => match code_of(&fault) {
                Some("DBInstanceNotFound") => Ok(Deletion::Gone),
                Some("InvalidDBInstanceState" | "InvalidDBClusterStateFault") => Ok(Deletion::NotNow),
                _ => Err(call.failure(fault)),
            },
        }
    }

    /// Deletes a cluster for good: no final snapshot, and its automated backups with it. RDS refuses as long as it
    /// has a member that is not being deleted.
    ///
    /// # Errors
    /// The named error of the call `rds:DeleteDBCluster`.
    pub async fn delete_cluster(&self, id: &DatabaseId) -> Result<Deletion> {
        let call = Call::write("rds:DeleteDBCluster", format!("deleting cluster `{id}` in {}", self.region));
        let sent = self
            .client
            .delete_db_cluster()
            .db_cluster_identifier(id.as_str())
            .skip_final_snapshot(true)
            .delete_automated_backups(true)
            .send()
            .await;
        match sent {
            Ok(_) => Ok(Deletion::Started),
            Err(fault) => match code_of(&fault) {
                Some("DBClusterNotFoundFault") => Ok(Deletion::Gone),
                Some("InvalidDBClusterStateFault") => Ok(Deletion::NotNow),
                _ => Err(call.failure(fault)),
            },
        }
    }
}

fn scaling_to_sdk(scaling: Scaling) -> ServerlessV2ScalingConfiguration {
    let units = |halves: u32| f64::from(halves) / 2.0;
    ServerlessV2ScalingConfiguration::builder()
        .min_capacity(units(scaling.min_half_units))
        .max_capacity(units(scaling.max_half_units))
        .build()
}
