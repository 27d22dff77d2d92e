//! The actions of the API, one module a topic.

mod account;
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

pub(super) use lifecycle::stop_everything;
pub(super) use snapshots::automated;

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
        "CreateDBSnapshot" => snapshots::create(call).await,
        "DescribeDBSnapshots" => describe::snapshots(call),
        "CopyDBSnapshot" => copy::copy(call).await,
        "DeleteDBSnapshot" => snapshots::delete(call),
        "RestoreDBInstanceFromDBSnapshot" => restore::restore(call).await,
        "AddTagsToResource" => tags::add(call),
        "RemoveTagsFromResource" => tags::remove(call),
        "ListTagsForResource" => tags::list(call),
        "DescribeAccountAttributes" => account::attributes(call),
        "DescribeEvents" => account::events(call),
        "DescribeDBEngineVersions" => account::engine_versions(call),
        "CreateDBSubnetGroup" => groups::create_subnet_group(call),
        "DescribeDBSubnetGroups" => groups::describe_subnet_groups(call),
        "DeleteDBSubnetGroup" => groups::delete_subnet_group(call),
        "CreateDBParameterGroup" => groups::create_parameter_group(call),
        "DescribeDBParameterGroups" => groups::describe_parameter_groups(call),
        "DescribeOptionGroups" => groups::describe_option_groups(call),
        _ => Err(Fault::new(
            "InvalidAction",
            400,
            format!("Could not find operation {action} for version 2014-10-31"),
        )),
    }
}
