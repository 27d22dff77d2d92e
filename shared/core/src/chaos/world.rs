//! What an experiment sees of the resources that it names, and the single changes that it makes to them.
//!
//! States are open strings where AWS adds to them: an unknown one means "on its way", never "as it was".

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::ids::Region;
use crate::observed::Tags;

/// The tag without which nothing is touched; its value must be [`ALLOWED`].
pub const TAG: &str = "dr:chaos";
/// The value of [`TAG`] that allows experiments.
pub const ALLOWED: &str = "allowed";

/// What a resource is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResourceKind {
    /// A DB instance.
    DbInstance,
    /// A DB cluster.
    DbCluster,
    /// An EC2 instance.
    Ec2Instance,
    /// An Auto Scaling group.
    ScalingGroup,
    /// A target group of a load balancer.
    TargetGroup,
    /// A Lambda function.
    Function,
    /// A Region, as our own functions reach it.
    Region,
}

impl fmt::Display for ResourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DbInstance => "DB instance",
            Self::DbCluster => "DB cluster",
            Self::Ec2Instance => "EC2 instance",
            Self::ScalingGroup => "Auto Scaling group",
            Self::TargetGroup => "target group",
            Self::Function => "function",
            Self::Region => "Region",
        })
    }
}

/// One resource, by the name that its service's calls take.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Resource {
    /// What it is.
    pub kind: ResourceKind,
    /// Where it is.
    pub region: Region,
    /// Its identifier; of a target group its ARN.
    pub id: String,
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} in {}", self.kind, self.id, self.region)
    }
}

/// What a resource is now. Serialised into plans and journals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Of a DB instance or a DB cluster.
    Database(Database),
    /// Of an EC2 instance.
    Machine(Machine),
    /// Of an Auto Scaling group.
    ScalingGroup(ScalingGroup),
    /// Of a target group.
    TargetGroup(TargetGroup),
    /// Of a function.
    Function(Function),
    /// Of a Region.
    Region(RegionState),
}

/// A DB instance or a DB cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Database {
    /// `DBInstanceStatus` or `Status`.
    pub status: String,
    /// Whether there is something to fail over to: a standby in another zone, or another member.
    pub standby: bool,
    /// Where it serves from: the instance's zone, or the cluster's writer.
    pub serves_from: Option<String>,
    /// The cluster that the instance is a member of.
    pub cluster: Option<String>,
    /// What it replicates from.
    pub replica_of: Option<String>,
    /// What replicates from it.
    pub replicas: BTreeSet<String>,
}

/// An EC2 instance.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Machine {
    /// `State.Name`.
    pub state: String,
    /// The Auto Scaling group that it belongs to (tag `aws:autoscaling:groupName`, which only AWS can write).
    pub group: Option<String>,
    /// Its security groups.
    pub security_groups: BTreeSet<String>,
    /// How many network interfaces it has: the groups of one with several are set for each interface.
    pub interfaces: u32,
}

/// An Auto Scaling group.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ScalingGroup {
    /// `MinSize`.
    pub min: u32,
    /// `DesiredCapacity`.
    pub desired: u32,
    /// `MaxSize`.
    pub max: u32,
    /// Names of the processes that are suspended.
    pub suspended: BTreeSet<String>,
    /// Instances that are `InService` and `Healthy`.
    pub in_service: BTreeSet<String>,
}

/// A target of a target group.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Target {
    /// Instance id, address, or function ARN.
    pub id: String,
    /// Port, where the target has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The zone that it is in, where AWS reports it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
}

impl Target {
    /// The zone that is named when it is registered. A zone goes with an address only, as it was reported: of one outside of
    /// the VPC AWS requires it, of one within it takes its own alone. With instances and load balancers it takes none, and
    /// functions are in all of them.
    /// <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_TargetDescription.html>
    pub fn named_zone(&self) -> Option<&str> {
        self.zone.as_deref().filter(|_| self.id.parse::<IpAddr>().is_ok())
    }
}

/// A target group.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TargetGroup {
    /// Targets that are registered, those that are being drained left out.
    pub registered: BTreeSet<Target>,
    /// Those among them that take traffic. A group that no load balancer uses has none.
    pub healthy: BTreeSet<Target>,
}

/// A function.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Function {
    /// Its reserved concurrency; `None` when it shares the account's. 0 throttles it.
    pub reserved_concurrency: Option<u32>,
}

/// A Region, as our own functions reach it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RegionState {
    /// Whether our functions are kept from calling it.
    pub blocked: bool,
}

/// A resource as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Its ARN.
    pub arn: String,
    /// Its tags.
    pub tags: Tags,
    /// Its state.
    pub state: State,
}

/// One change to one resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum Change {
    /// `RebootDBInstance`; with a failover to the standby when forced.
    RebootDbInstance {
        /// `ForceFailover`.
        force_failover: bool,
    },
    /// `StopDBInstance`.
    StopDbInstance,
    /// `StartDBInstance`.
    StartDbInstance,
    /// `FailoverDBCluster`, to this member, or to the one that Aurora chooses.
    FailoverDbCluster {
        /// `TargetDBInstanceIdentifier`.
        to: Option<String>,
    },
    /// `StopDBCluster`.
    StopDbCluster,
    /// `StartDBCluster`.
    StartDbCluster,
    /// `StopInstances`.
    StopEc2Instance,
    /// `StartInstances`.
    StartEc2Instance,
    /// `RebootInstances`.
    RebootEc2Instance,
    /// `TerminateInstanceInAutoScalingGroup`, which refuses an instance of no group; the capacity stays.
    TerminateEc2Instance {
        /// The instance.
        instance: String,
    },
    /// `ModifyInstanceAttribute`, groups.
    SetSecurityGroups {
        /// All groups of the instance from now on.
        groups: BTreeSet<String>,
    },
    /// `SuspendProcesses`.
    SuspendProcesses {
        /// Their names.
        processes: BTreeSet<String>,
    },
    /// `ResumeProcesses`.
    ResumeProcesses {
        /// Their names.
        processes: BTreeSet<String>,
    },
    /// `UpdateAutoScalingGroup`.
    SetCapacity {
        /// `MinSize`.
        min: u32,
        /// `DesiredCapacity`.
        desired: u32,
        /// `MaxSize`.
        max: u32,
    },
    /// `DeregisterTargets`.
    DeregisterTargets {
        /// The targets.
        targets: BTreeSet<Target>,
    },
    /// `RegisterTargets`.
    RegisterTargets {
        /// The targets.
        targets: BTreeSet<Target>,
    },
    /// `PutFunctionConcurrency`.
    ReserveConcurrency {
        /// `ReservedConcurrentExecutions`.
        executions: u32,
    },
    /// `DeleteFunctionConcurrency`.
    ReleaseConcurrency,
    /// Keeps our functions from calling the Region: an item in the state table, with an expiry.
    BlockRegion,
    /// Removes that item.
    UnblockRegion,
}

impl Change {
    /// The command that makes this change to `resource` by hand. It names everything in full; nothing has to be filled in.
    pub fn command(&self, resource: &Resource) -> String {
        let Resource { region, id, .. } = resource;
        let words = match self {
            Self::RebootDbInstance { force_failover } => {
                let failover = if *force_failover { "force-failover" } else { "no-force-failover" };
                format!("rds reboot-db-instance --db-instance-identifier {id} --{failover}")
            }
            Self::StopDbInstance => format!("rds stop-db-instance --db-instance-identifier {id}"),
            Self::StartDbInstance => format!("rds start-db-instance --db-instance-identifier {id}"),
            Self::FailoverDbCluster { to } => {
                let to = to.as_ref().map(|to| format!(" --target-db-instance-identifier {to}"));
                format!("rds failover-db-cluster --db-cluster-identifier {id}{}", to.unwrap_or_default())
            }
            Self::StopDbCluster => format!("rds stop-db-cluster --db-cluster-identifier {id}"),
            Self::StartDbCluster => format!("rds start-db-cluster --db-cluster-identifier {id}"),
            Self::StopEc2Instance => format!("ec2 stop-instances --instance-ids {id}"),
            Self::StartEc2Instance => format!("ec2 start-instances --instance-ids {id}"),
            Self::RebootEc2Instance => format!("ec2 reboot-instances --instance-ids {id}"),
            Self::TerminateEc2Instance { instance } => format!(
                "autoscaling terminate-instance-in-auto-scaling-group --instance-id {instance} \
                 --no-should-decrement-desired-capacity"
            ),
            Self::SetSecurityGroups { groups } => {
                format!("ec2 modify-instance-attribute --instance-id {id} --groups {}", join(groups))
            }
            Self::SuspendProcesses { processes } => format!(
                "autoscaling suspend-processes --auto-scaling-group-name {id} --scaling-processes {}",
                join(processes)
            ),
            Self::ResumeProcesses { processes } => format!(
                "autoscaling resume-processes --auto-scaling-group-name {id} --scaling-processes {}",
                join(processes)
            ),
            Self::SetCapacity { min, desired, max } => format!(
                "autoscaling update-auto-scaling-group --auto-scaling-group-name {id} --min-size {min} \
                 --desired-capacity {desired} --max-size {max}"
            ),
            Self::DeregisterTargets { targets } => {
                format!("elbv2 deregister-targets --target-group-arn {id} --targets {}", targets_of(targets))
            }
            Self::RegisterTargets { targets } => {
                format!("elbv2 register-targets --target-group-arn {id} --targets {}", targets_of(targets))
            }
            Self::ReserveConcurrency { executions } => format!(
                "lambda put-function-concurrency --function-name {id} \
                 --reserved-concurrent-executions {executions}"
            ),
            Self::ReleaseConcurrency => {
                format!("lambda delete-function-concurrency --function-name {id}")
            }
            Self::BlockRegion | Self::UnblockRegion => {
                // The function takes no block by hand, and an unblocking only by name.
                let (verb, by) = if *self == Self::BlockRegion {
                    ("block", "")
                } else {
                    ("unblock", ", \"by\": \"operator\"")
                };
                return format!("lifeboat chaos_runner: {{\"{verb}\": {{\"region\": \"{id}\"{by}}}}}");
            }
        };
        format!("aws --region {region} {words}")
    }
}

fn join(words: &BTreeSet<String>) -> String {
    words.iter().map(String::as_str).collect::<Vec<_>>().join(" ")
}

fn targets_of(targets: &BTreeSet<Target>) -> String {
    let one = |target: &Target| {
        let port = target.port.map(|port| format!(",Port={port}")).unwrap_or_default();
        let zone = target.named_zone().map(|zone| format!(",AvailabilityZone={zone}")).unwrap_or_default();
        format!("Id={}{port}{zone}", target.id)
    };
    targets.iter().map(one).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_names_the_zone_of_an_address_as_the_call_does() {
        let target =
            |id: &str, port, zone: &str| Target { id: id.to_owned(), port, zone: Some(zone.to_owned()) };
        let targets =
            BTreeSet::from([target("10.9.0.1", Some(80), "all"), target("i-1", Some(8080), "us-east-1a")]);
        assert_eq!(targets_of(&targets), "Id=10.9.0.1,Port=80,AvailabilityZone=all Id=i-1,Port=8080");
    }
}
