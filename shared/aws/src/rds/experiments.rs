//! What chaos experiments look at and change: reboot, fail over, stop, start.

use std::collections::BTreeSet;

use aws_sdk_rds::types::{DbCluster, DbInstance};
use dr_core::Result;
use dr_core::chaos::world::{Database, Facts, State};
use dr_core::ids::DatabaseId;
use dr_core::observed::Observed;

use super::snapshots::observed;
use super::{Rds, facts};
use crate::errors::{Call, code_of};

impl Rds {
    /// What an experiment must know of an instance.
    /// <https://docs.aws.amazon.com/AmazonRDS/latest/APIReference/API_DescribeDBInstances.html>
    pub async fn look_at_instance(&self, id: &DatabaseId) -> Observed<Facts> {
        let call =
            Call::read("rds:DescribeDBInstances", format!("looking at instance `{id}` in {}", self.region));
        match self.client.describe_db_instances().db_instance_identifier(id.as_str()).send().await {
            Ok(answer) => match answer.db_instances().first() {
                Some(found) => observed(instance(found, &call)),
                None => Observed::Missing,
            },
            Err(fault) if code_of(&fault) == Some("DBInstanceNotFound") => Observed::Missing,
            Err(fault) => Observed::Unreachable(call.failure(fault)),
        }
    }

    /// What an experiment must know of a cluster.
    /// <https://docs.aws.amazon.com/AmazonRDS/latest/APIReference/API_DescribeDBClusters.html>
    pub async fn look_at_cluster(&self, id: &DatabaseId) -> Observed<Facts> {
        let call =
            Call::read("rds:DescribeDBClusters", format!("looking at cluster `{id}` in {}", self.region));
        match self.client.describe_db_clusters().db_cluster_identifier(id.as_str()).send().await {
            Ok(answer) => match answer.db_clusters().first() {
                Some(found) => observed(cluster(found, &call)),
                None => Observed::Missing,
            },
            Err(fault) if code_of(&fault) == Some("DBClusterNotFoundFault") => Observed::Missing,
            Err(fault) => Observed::Unreachable(call.failure(fault)),
        }
    }

    /// Reboots an instance, with a failover to its standby when forced. RDS refuses unless it is `available`, and the
    /// force without a standby.
    /// <https://docs.aws.amazon.com/AmazonRDS/latest/APIReference/API_RebootDBInstance.html>
    ///
    /// # Errors
    /// The named error of the call `rds:RebootDBInstance`.
    pub async fn reboot_instance(&self, id: &DatabaseId, force_failover: bool) -> Result<()> {
        let call = Call::write("rds:RebootDBInstance", format!("rebooting `{id}` in {}", self.region));
        let request = self.client.reboot_db_instance().db_instance_identifier(id.as_str());
        let sent = request.force_failover(force_failover).send().await;
        sent.map(|_| ()).map_err(|fault| call.failure(fault))
    }

    /// Stops an instance; no snapshot is taken. RDS starts it again by itself after seven days.
    /// <https://docs.aws.amazon.com/AmazonRDS/latest/APIReference/API_StopDBInstance.html>
    ///
    /// # Errors
    /// The named error of the call `rds:StopDBInstance`.
    pub async fn stop_instance(&self, id: &DatabaseId) -> Result<()> {
        let call = Call::write("rds:StopDBInstance", format!("stopping `{id}` in {}", self.region));
        let sent = self.client.stop_db_instance().db_instance_identifier(id.as_str()).send().await;
        sent.map(|_| ()).map_err(|fault| call.failure(fault))
    }

    /// Starts an instance that is stopped.
    /// <https://docs.aws.amazon.com/AmazonRDS/latest/APIReference/API_StartDBInstance.html>
    ///
    /// # Errors
    /// The named error of the call `rds:StartDBInstance`; also when it is starting already.
    pub async fn start_instance(&self, id: &DatabaseId) -> Result<()> {
        let call = Call::write("rds:StartDBInstance", format!("starting `{id}` in {}", self.region));
        let sent = self.client.start_db_instance().db_instance_identifier(id.as_str()).send().await;
        sent.map(|_| ()).map_err(|fault| call.failure(fault))
    }

    /// Makes another member of a cluster its writer: `to`, or the one that RDS chooses.
    /// <https://docs.aws.amazon.com/AmazonRDS/latest/APIReference/API_FailoverDBCluster.html>
    ///
    /// # Errors
    /// The named error of the call `rds:FailoverDBCluster`.
    pub async fn fail_over_cluster(&self, id: &DatabaseId, to: Option<&str>) -> Result<()> {
        let call =
            Call::write("rds:FailoverDBCluster", format!("failing over cluster `{id}` in {}", self.region));
        let request = self.client.failover_db_cluster().db_cluster_identifier(id.as_str());
        let sent = request.set_target_db_instance_identifier(to.map(str::to_owned)).send().await;
        sent.map(|_| ()).map_err(|fault| call.failure(fault))
    }

    /// Stops an Aurora cluster with all its members. Aurora starts it again by itself after seven days.
    /// <https://docs.aws.amazon.com/AmazonRDS/latest/APIReference/API_StopDBCluster.html>
    ///
    /// # Errors
    /// The named error of the call `rds:StopDBCluster`.
    pub async fn stop_cluster(&self, id: &DatabaseId) -> Result<()> {
        let call = Call::write("rds:StopDBCluster", format!("stopping cluster `{id}` in {}", self.region));
        let sent = self.client.stop_db_cluster().db_cluster_identifier(id.as_str()).send().await;
        sent.map(|_| ()).map_err(|fault| call.failure(fault))
    }

    /// Starts an Aurora cluster that is stopped.
    /// <https://docs.aws.amazon.com/AmazonRDS/latest/APIReference/API_StartDBCluster.html>
    ///
    /// # Errors
    /// The named error of the call `rds:StartDBCluster`; also when it is starting already.
    pub async fn start_cluster(&self, id: &DatabaseId) -> Result<()> {
        let call = Call::write("rds:StartDBCluster", format!("starting cluster `{id}` in {}", self.region));
        let sent = self.client.start_db_cluster().db_cluster_identifier(id.as_str()).send().await;
        sent.map(|_| ()).map_err(|fault| call.failure(fault))
    }
}

fn instance(instance: &DbInstance, call: &Call) -> Result<Facts> {
    let state = Database {
        status: instance.db_instance_status().unwrap_or_default().to_owned(),
        standby: instance.multi_az().unwrap_or_default(),
        serves_from: text(instance.availability_zone()),
        cluster: text(instance.db_cluster_identifier()),
        replica_of: text(instance.read_replica_source_db_instance_identifier())
            .or_else(|| text(instance.read_replica_source_db_cluster_identifier())),
        replicas: texts(instance.read_replica_db_instance_identifiers())
            .chain(texts(instance.read_replica_db_cluster_identifiers()))
            .collect(),
    };
    Ok(Facts {
        arn: text(instance.db_instance_arn()).ok_or_else(|| call.unreadable("DBInstanceArn is absent"))?,
        tags: facts::tags(instance.tag_list()),
        state: State::Database(state),
    })
}

fn cluster(cluster: &DbCluster, call: &Call) -> Result<Facts> {
    let members = cluster.db_cluster_members();
    let writer = members.iter().find(|member| member.is_cluster_writer() == Some(true));
    let state = Database {
        status: cluster.status().unwrap_or_default().to_owned(),
        standby: members.len() > 1,
        serves_from: text(writer.and_then(|member| member.db_instance_identifier())),
        cluster: None,
        replica_of: text(cluster.replication_source_identifier()),
        replicas: texts(cluster.read_replica_identifiers()).collect::<BTreeSet<_>>(),
    };
    Ok(Facts {
        arn: text(cluster.db_cluster_arn()).ok_or_else(|| call.unreadable("DBClusterArn is absent"))?,
        tags: facts::tags(cluster.tag_list()),
        state: State::Database(state),
    })
}

/// RDS leaves some members empty that others leave out.
fn text(member: Option<&str>) -> Option<String> {
    member.filter(|text| !text.is_empty()).map(str::to_owned)
}

fn texts(members: &[String]) -> impl Iterator<Item = String> {
    members.iter().filter(|text| !text.is_empty()).cloned()
}
