//! The faults that an experiment can inject, and the change that each one is.
//!
//! What AWS would refuse, or what cannot be put back, is refused here first, by name, before anything is touched.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::world::{
    Change, Database, Function, Machine, RegionState, Resource, ResourceKind, ScalingGroup, State, Target,
};
use crate::error::{DrError, ErrorName, Result};

/// A fault, with its parameters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "kebab-case", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Fault {
    /// A reboot with failover to the standby of a Multi-AZ instance.
    RdsFailover {
        /// Whether the undo fails over once more when the instance serves from another zone than before.
        #[serde(default)]
        fail_back: bool,
    },
    /// A reboot of an instance.
    RdsReboot {},
    /// A stop of an instance. RDS starts it again by itself after seven days.
    RdsStop {},
    /// A failover of an Aurora or Multi-AZ DB cluster.
    ClusterFailover {
        /// Whether the undo makes the recorded writer the writer again.
        #[serde(default)]
        fail_back: bool,
    },
    /// A stop of an Aurora cluster. Aurora starts it again by itself after seven days.
    ClusterStop {},
    /// A stop of an EC2 instance that belongs to no Auto Scaling group.
    Ec2Stop {},
    /// A reboot of an EC2 instance.
    Ec2Reboot {},
    /// The end of an EC2 instance that belongs to an Auto Scaling group, which replaces it.
    Ec2Terminate {},
    /// Processes of an Auto Scaling group suspended.
    AsgSuspend {
        /// Their names, such as `Launch` and `ReplaceUnhealthy`.
        processes: BTreeSet<String>,
    },
    /// Another capacity of an Auto Scaling group.
    AsgCapacity {
        /// The desired capacity; the limits follow it where they must.
        desired: u32,
    },
    /// Targets taken out of a target group.
    TargetsDeregister {},
    /// All targets of one zone taken out of a target group.
    ZoneDrain {
        /// The zone, such as `us-east-1a`.
        zone: String,
    },
    /// One security group taken off an EC2 instance.
    SecurityGroupDetach {
        /// The group.
        security_group: String,
    },
    /// All security groups of an EC2 instance replaced by one that lets nothing through.
    SecurityGroupIsolate {
        /// That group.
        security_group: String,
    },
    /// A function's reserved concurrency set to 0.
    FunctionThrottle {},
    /// Our own functions kept from calling a Region.
    RegionUnreachable {},
}

/// The processes of an Auto Scaling group that can be suspended.
/// <https://docs.aws.amazon.com/autoscaling/ec2/userguide/as-suspend-resume-processes.html>
const PROCESSES: [&str; 9] = [
    "AZRebalance",
    "AddToLoadBalancer",
    "AlarmNotification",
    "HealthCheck",
    "InstanceRefresh",
    "Launch",
    "ReplaceUnhealthy",
    "ScheduledActions",
    "Terminate",
];

/// What makes a fault of one resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Injection {
    /// The change.
    pub change: Change,
    /// What puts it back if the world stays as it is; what is really done is decided by looking, see
    /// [`super::put_back`]. Empty where waiting is enough.
    pub undo: Option<Change>,
    /// What must be looked at to know whether it is put back: the resource, or the group that replaces it.
    pub watched: Resource,
    /// How long the undo takes at worst, seconds.
    pub undo_seconds: u32,
    /// What people should know.
    pub note: Option<&'static str>,
}

impl Fault {
    /// The word for it in inputs, journals and metrics.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::RdsFailover { .. } => "rds-failover",
            Self::RdsReboot {} => "rds-reboot",
            Self::RdsStop {} => "rds-stop",
            Self::ClusterFailover { .. } => "cluster-failover",
            Self::ClusterStop {} => "cluster-stop",
            Self::Ec2Stop {} => "ec2-stop",
            Self::Ec2Reboot {} => "ec2-reboot",
            Self::Ec2Terminate {} => "ec2-terminate",
            Self::AsgSuspend { .. } => "asg-suspend",
            Self::AsgCapacity { .. } => "asg-capacity",
            Self::TargetsDeregister {} => "targets-deregister",
            Self::ZoneDrain { .. } => "zone-drain",
            Self::SecurityGroupDetach { .. } => "security-group-detach",
            Self::SecurityGroupIsolate { .. } => "security-group-isolate",
            Self::FunctionThrottle {} => "function-throttle",
            Self::RegionUnreachable {} => "region-unreachable",
        }
    }

    /// What it happens to.
    pub const fn kind(&self) -> ResourceKind {
        match self {
            Self::RdsFailover { .. } | Self::RdsReboot {} | Self::RdsStop {} => ResourceKind::DbInstance,
            Self::ClusterFailover { .. } | Self::ClusterStop {} => ResourceKind::DbCluster,
            Self::Ec2Stop {}
            | Self::Ec2Reboot {}
            | Self::Ec2Terminate {}
            | Self::SecurityGroupDetach { .. }
            | Self::SecurityGroupIsolate { .. } => ResourceKind::Ec2Instance,
            Self::AsgSuspend { .. } | Self::AsgCapacity { .. } => ResourceKind::ScalingGroup,
            Self::TargetsDeregister {} | Self::ZoneDrain { .. } => ResourceKind::TargetGroup,
            Self::FunctionThrottle {} => ResourceKind::Function,
            Self::RegionUnreachable {} => ResourceKind::Region,
        }
    }

    /// The change that this fault is for one resource.
    ///
    /// `chosen` are the targets that were chosen of a target group; nothing else looks at them.
    ///
    /// # Errors
    /// [`ErrorName::FaultImpossible`] for what AWS would refuse in this state, what would not be put back, and what
    /// would change nothing.
    pub fn inject(&self, resource: &Resource, state: &State, chosen: &BTreeSet<Target>) -> Result<Injection> {
        let made = match state {
            State::Database(database) => self.database(database),
            State::Machine(machine) => self.machine(resource, machine),
            State::ScalingGroup(group) => self.scaling_group(group),
            State::TargetGroup(_) => self.targets(chosen),
            State::Function(function) => self.function(function),
            State::Region(region) => self.region(region),
        };
        let outline = made.map_err(|why| {
            let what = format!("planning {} on {resource}: {why}", self.name());
            DrError::new(ErrorName::FaultImpossible, what)
        })?;
        Ok(Injection {
            change: outline.change,
            undo: outline.undo,
            watched: outline.watched.unwrap_or_else(|| resource.clone()),
            undo_seconds: outline.undo_seconds,
            note: outline.note,
        })
    }

    fn database(&self, database: &Database) -> Outlined {
        if database.status != "available" {
            return refuse("it is not available");
        }
        let member = database.cluster.is_some();
        match self {
            Self::RdsFailover { .. } if member => refuse("a member fails over with its cluster"),
            Self::RdsFailover { .. } if !database.standby => refuse("it has no standby (Multi-AZ)"),
            Self::RdsFailover { fail_back } => {
                let reboot = Change::RebootDbInstance { force_failover: true };
                outline(reboot.clone(), fail_back.then_some(reboot), 900)
            }
            Self::RdsReboot {} => outline(Change::RebootDbInstance { force_failover: false }, None, 900),
            Self::RdsStop {} if member => refuse("a member is stopped with its cluster"),
            Self::RdsStop {} if database.replica_of.is_some() => refuse("RDS does not stop a read replica"),
            Self::RdsStop {} if !database.replicas.is_empty() => {
                refuse("RDS does not stop an instance that has read replicas")
            }
            Self::RdsStop {} => {
                let stop = outline(Change::StopDbInstance, Some(Change::StartDbInstance), 1_800);
                noted(stop, "RDS starts it by itself seven days after it was stopped")
            }
            Self::ClusterFailover { .. } if !database.standby => refuse("it has no other member"),
            Self::ClusterFailover { fail_back } => {
                let back = Change::FailoverDbCluster { to: database.serves_from.clone() };
                outline(Change::FailoverDbCluster { to: None }, fail_back.then_some(back), 900)
            }
            Self::ClusterStop {} if database.replica_of.is_some() => {
                refuse("Aurora does not stop a cluster that replicates another")
            }
            Self::ClusterStop {} if !database.replicas.is_empty() => {
                refuse("Aurora does not stop a cluster that has replicas")
            }
            Self::ClusterStop {} => {
                let stop = outline(Change::StopDbCluster, Some(Change::StartDbCluster), 1_800);
                noted(stop, "Aurora starts it by itself seven days after it was stopped")
            }
            _ => refuse(FOREIGN),
        }
    }

    fn machine(&self, resource: &Resource, machine: &Machine) -> Outlined {
        if machine.state != "running" {
            return refuse("it is not running");
        }
        match (self, &machine.group) {
            (Self::Ec2Stop {}, Some(_)) => {
                refuse("its Auto Scaling group would terminate a stopped instance; use ec2-terminate")
            }
            (Self::Ec2Stop {}, None) => {
                let stop = outline(Change::StopEc2Instance, Some(Change::StartEc2Instance), 600);
                noted(
                    stop,
                    "a public address that is no Elastic IP and what is on instance stores do not come back",
                )
            }
            (Self::Ec2Reboot {}, _) => outline(Change::RebootEc2Instance, None, 600),
            (Self::Ec2Terminate {}, None) => {
                refuse("it belongs to no Auto Scaling group, so nothing would replace it")
            }
            (Self::Ec2Terminate {}, Some(group)) => {
                let change = Change::TerminateEc2Instance { instance: resource.id.clone() };
                let group = Resource {
                    kind: ResourceKind::ScalingGroup,
                    region: resource.region.clone(),
                    id: group.clone(),
                };
                outline(change, None, 1_200).map(|outline| Outline { watched: Some(group), ..outline })
            }
            (Self::SecurityGroupDetach { .. } | Self::SecurityGroupIsolate { .. }, _)
                if machine.interfaces != 1 =>
            {
                refuse("it has more than one network interface")
            }
            (Self::SecurityGroupDetach { security_group }, _) => {
                let mut rest = machine.security_groups.clone();
                if !rest.remove(security_group) {
                    return refuse("it does not have that security group");
                }
                if rest.is_empty() {
                    return refuse("it would be left without a security group");
                }
                swap(machine, rest)
            }
            (Self::SecurityGroupIsolate { security_group }, _) => {
                let only = BTreeSet::from([security_group.clone()]);
                if machine.security_groups == only {
                    return refuse("it is isolated already");
                }
                swap(machine, only)
            }
            _ => refuse(FOREIGN),
        }
    }

    fn scaling_group(&self, group: &ScalingGroup) -> Outlined {
        match self {
            Self::AsgSuspend { processes } => {
                if let Some(unknown) = processes.iter().find(|name| !PROCESSES.contains(&name.as_str())) {
                    let (unknown, known) = (unknown.escape_debug(), PROCESSES.join(", "));
                    return refuse(&format!("{unknown} is no process of a group; there are {known}"));
                }
                let fresh: BTreeSet<String> = processes.difference(&group.suspended).cloned().collect();
                if fresh.is_empty() {
                    return refuse("those processes are suspended already");
                }
                let resume = Change::ResumeProcesses { processes: fresh.clone() };
                outline(Change::SuspendProcesses { processes: fresh }, Some(resume), 60)
            }
            Self::AsgCapacity { desired } => {
                if *desired == group.desired {
                    return refuse("that is its desired capacity already");
                }
                let (min, max) = (group.min.min(*desired), group.max.max(*desired));
                let back = Change::SetCapacity { min: group.min, desired: group.desired, max: group.max };
                outline(Change::SetCapacity { min, desired: *desired, max }, Some(back), 1_200)
            }
            _ => refuse(FOREIGN),
        }
    }

    fn targets(&self, chosen: &BTreeSet<Target>) -> Outlined {
        match self {
            Self::TargetsDeregister {} | Self::ZoneDrain { .. } if chosen.is_empty() => {
                refuse("it has no such targets")
            }
            Self::TargetsDeregister {} | Self::ZoneDrain { .. } => {
                let back = Change::RegisterTargets { targets: chosen.clone() };
                outline(Change::DeregisterTargets { targets: chosen.clone() }, Some(back), 300)
            }
            _ => refuse(FOREIGN),
        }
    }

    fn function(&self, function: &Function) -> Outlined {
        match self {
            Self::FunctionThrottle {} if function.reserved_concurrency == Some(0) => {
                refuse("it is throttled already")
            }
            Self::FunctionThrottle {} => {
                let back = concurrency(function.reserved_concurrency);
                outline(Change::ReserveConcurrency { executions: 0 }, Some(back), 60)
            }
            _ => refuse(FOREIGN),
        }
    }

    fn region(&self, region: &RegionState) -> Outlined {
        match self {
            Self::RegionUnreachable {} if region.blocked => refuse("it is blocked already"),
            Self::RegionUnreachable {} => outline(Change::BlockRegion, Some(Change::UnblockRegion), 60),
            _ => refuse(FOREIGN),
        }
    }
}

const FOREIGN: &str = "the fault is not one for such a resource";

/// An injection without what follows from the resource's name; or why there is none.
type Outlined = std::result::Result<Outline, String>;

struct Outline {
    change: Change,
    undo: Option<Change>,
    /// What is watched, where that is not the resource itself.
    watched: Option<Resource>,
    undo_seconds: u32,
    note: Option<&'static str>,
}

fn refuse(why: &str) -> Outlined {
    Err(why.to_owned())
}

#[expect(clippy::unnecessary_wraps, reason = "beside `refuse`, in the arms of one match")]
fn outline(change: Change, undo: Option<Change>, undo_seconds: u32) -> Outlined {
    Ok(Outline { change, undo, watched: None, undo_seconds, note: None })
}

fn noted(outlined: Outlined, note: &'static str) -> Outlined {
    outlined.map(|outline| Outline { note: Some(note), ..outline })
}

/// What gives a function the reserved concurrency that it had.
pub(super) fn concurrency(reserved: Option<u32>) -> Change {
    reserved.map_or(Change::ReleaseConcurrency, |executions| Change::ReserveConcurrency { executions })
}

fn swap(machine: &Machine, groups: BTreeSet<String>) -> Outlined {
    let back = Change::SetSecurityGroups { groups: machine.security_groups.clone() };
    let swap = outline(Change::SetSecurityGroups { groups }, Some(back), 60);
    noted(swap, "connections that are open and tracked may live on for a while")
}
