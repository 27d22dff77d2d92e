//! The actions of the API, one module a topic.

mod account;
mod certificates;
mod cluster_life;
mod clusters;
mod copy;
mod create;
mod describe;
mod groups;
mod keys;
mod lifecycle;
mod machine;
mod modify;
mod restore;
mod snapshots;
mod tags;

use std::sync::Arc;

use super::cloud::Cloud;
use super::fault::{Answer, Fault};
use super::faults::Outcome;
use super::params::Params;
use super::shelf::Shelf;

pub(super) use lifecycle::stop_everything;
pub(super) use snapshots::unasked;
pub(super) use tags::of as tags_of;

/// One request.
pub(super) struct Call {
    pub(super) cloud: Arc<Cloud>,
    pub(super) region: String,
    pub(super) params: Params,
    /// How the accepted operation is ordered to end.
    pub(super) outcome: Option<Outcome>,
}

/// Performs an action and returns the content of its result element.
pub(super) async fn perform(action: &str, call: &Call) -> Answer {
    match action {
        "CreateDBInstance" => create::create(call).await,
        "DescribeDBInstances" => describe::instances(call),
        "ModifyDBInstance" => modify::modify(call).await,
        "DeleteDBInstance" => lifecycle::delete(call),
        "RebootDBInstance" => lifecycle::reboot(call),
        "StopDBInstance" => lifecycle::stop(call),
        "StartDBInstance" => lifecycle::start(call),
        "CreateDBSnapshot" => snapshots::create(call, Shelf::Instances).await,
        "DescribeDBSnapshots" => describe::snapshots(call, Shelf::Instances),
        "CopyDBSnapshot" => copy::copy(call, Shelf::Instances).await,
        "DeleteDBSnapshot" => snapshots::delete(call, Shelf::Instances),
        "RestoreDBInstanceFromDBSnapshot" => restore::restore(call).await,
        "CreateDBCluster" => clusters::create(call).await,
        "DescribeDBClusters" => describe::clusters(call),
        "ModifyDBCluster" => clusters::modify(call).await,
        "DeleteDBCluster" => clusters::delete(call),
        "FailoverDBCluster" => cluster_life::failover(call),
        "RebootDBCluster" => cluster_life::reboot(call),
        "StopDBCluster" => cluster_life::stop(call),
        "StartDBCluster" => cluster_life::start(call),
        "CreateDBClusterSnapshot" => snapshots::create(call, Shelf::Clusters).await,
        "DescribeDBClusterSnapshots" => describe::snapshots(call, Shelf::Clusters),
        "CopyDBClusterSnapshot" => copy::copy(call, Shelf::Clusters).await,
        "DeleteDBClusterSnapshot" => snapshots::delete(call, Shelf::Clusters),
        "RestoreDBClusterFromSnapshot" => clusters::restore(call).await,
        "AddTagsToResource" => tags::add(call),
        "RemoveTagsFromResource" => tags::remove(call),
        "ListTagsForResource" => tags::list(call),
        "DescribeAccountAttributes" => account::attributes(call),
        "DescribeCertificates" => certificates::describe(call),
        "DescribeEvents" => account::events(call),
        "DescribeDBEngineVersions" => account::engine_versions(call),
        "CreateDBSubnetGroup" => groups::create_subnet_group(call),
        "DescribeDBSubnetGroups" => groups::describe_subnet_groups(call),
        "DeleteDBSubnetGroup" => groups::delete_subnet_group(call),
        "CreateDBParameterGroup" => groups::create_parameter_group(call, false),
        "DescribeDBParameterGroups" => groups::describe_parameter_groups(call, false),
        "CreateDBClusterParameterGroup" => groups::create_parameter_group(call, true),
        "DescribeDBClusterParameterGroups" => groups::describe_parameter_groups(call, true),
        "DescribeOptionGroups" => groups::describe_option_groups(call),
        _ => Err(Fault::new(
            "InvalidAction",
            400,
            format!("Could not find operation {action} for version 2014-10-31"),
        )),
    }
}
