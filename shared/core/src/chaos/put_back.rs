//! How one change is put back: by looking at the resource and bringing it to what was recorded, whatever happened since.
//!
//! Deciding by what is there, not by what was done, makes the undo safe to repeat and right when nobody knows whether
//! the change took effect.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::fault::{Fault, concurrency};
use super::world::{Change, Database, Machine, Resource, ScalingGroup, State, Target};

/// One change of an experiment, with all that is needed to put it back. Written to the journal before it is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// The fault that it is a part of.
    pub fault: Fault,
    /// What it happens to.
    pub resource: Resource,
    /// Its ARN.
    pub arn: String,
    /// What is looked at to know whether it is put back.
    pub watched: Resource,
    /// What `watched` was before.
    pub recorded: State,
    /// The change.
    pub change: Change,
    /// What puts it back if nothing else happens; `None` where waiting is enough.
    pub undo: Option<Change>,
    /// How long the undo takes at worst, seconds.
    pub undo_seconds: u32,
    /// What people should know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// What has to happen until a step is put back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PutBack {
    /// Nothing: the world is as recorded.
    AsRecorded,
    /// This change.
    Do(Change),
    /// Time; and what for.
    Wait(String),
    /// Nothing that a program can do.
    Impossible(String),
}

impl Step {
    /// What has to happen, given what `watched` is now; `None` when it does not exist.
    pub fn put_back(&self, now: Option<&State>) -> PutBack {
        if self.was_replaced(now) {
            return PutBack::AsRecorded;
        }
        let Some(now) = now else {
            return PutBack::Impossible(format!("{} does not exist any more", self.watched));
        };
        match (&self.recorded, now) {
            (State::Database(then), State::Database(now)) => self.database(then, now),
            (State::Machine(then), State::Machine(now)) => self.machine(then, now),
            (State::ScalingGroup(then), State::ScalingGroup(now)) => self.scaling_group(then, now),
            (State::TargetGroup(_), State::TargetGroup(now)) => {
                let Change::DeregisterTargets { targets } = &self.change else {
                    return PutBack::AsRecorded;
                };
                // AWS may report another zone for the same target, and none while it registers.
                let is_there = |target: &&Target| {
                    now.registered.iter().any(|other| (&other.id, other.port) == (&target.id, target.port))
                };
                let gone: BTreeSet<Target> =
                    targets.iter().filter(|target| !is_there(target)).cloned().collect();
                if gone.is_empty() {
                    PutBack::AsRecorded
                } else {
                    PutBack::Do(Change::RegisterTargets { targets: gone })
                }
            }
            (State::Function(then), State::Function(now)) => {
                if then == now {
                    PutBack::AsRecorded
                } else {
                    PutBack::Do(concurrency(then.reserved_concurrency))
                }
            }
            (State::Region(_), State::Region(now)) => {
                if now.blocked {
                    PutBack::Do(Change::UnblockRegion)
                } else {
                    PutBack::AsRecorded
                }
            }
            _ => PutBack::Impossible(format!("{} is not what was recorded of it", self.watched)),
        }
    }

    /// Whether a member of an Auto Scaling group is gone: the group replaces it, and what was changed went with it. A group
    /// that checks the health of its load balancer does that to a machine that is isolated or takes long to boot.
    fn was_replaced(&self, now: Option<&State>) -> bool {
        let is_gone = match now {
            None => true,
            Some(State::Machine(now)) => matches!(now.state.as_str(), "terminated" | "shutting-down"),
            Some(_) => false,
        };
        is_gone && matches!(&self.recorded, State::Machine(Machine { group: Some(_), .. }))
    }

    fn database(&self, then: &Database, now: &Database) -> PutBack {
        let cluster = matches!(self.fault, Fault::ClusterFailover { .. } | Fault::ClusterStop {});
        match now.status.as_str() {
            "available" => {
                let fail_back = matches!(
                    self.fault,
                    Fault::RdsFailover { fail_back: true } | Fault::ClusterFailover { fail_back: true }
                );
                match &self.undo {
                    Some(undo) if fail_back && now.serves_from != then.serves_from => {
                        PutBack::Do(undo.clone())
                    }
                    _ => PutBack::AsRecorded,
                }
            }
            "stopped" => PutBack::Do(if cluster { Change::StartDbCluster } else { Change::StartDbInstance }),
            status => PutBack::Wait(format!("{} is {status}", self.watched)),
        }
    }

    fn machine(&self, then: &Machine, now: &Machine) -> PutBack {
        match now.state.as_str() {
            "terminated" | "shutting-down" => PutBack::Impossible(format!("{} was terminated", self.watched)),
            _ if now.security_groups != then.security_groups
                && matches!(self.change, Change::SetSecurityGroups { .. }) =>
            {
                PutBack::Do(Change::SetSecurityGroups { groups: then.security_groups.clone() })
            }
            _ if matches!(self.change, Change::SetSecurityGroups { .. }) => PutBack::AsRecorded,
            "running" => PutBack::AsRecorded,
            "stopped" => PutBack::Do(Change::StartEc2Instance),
            state => PutBack::Wait(format!("{} is {state}", self.watched)),
        }
    }

    fn scaling_group(&self, then: &ScalingGroup, now: &ScalingGroup) -> PutBack {
        let refilled = || {
            // A policy or a person may have made the group smaller meanwhile, and some may have been on their way out.
            let wanted = then.in_service.len().min(now.desired as usize);
            if now.in_service.len() >= wanted {
                PutBack::AsRecorded
            } else {
                let there = now.in_service.len();
                PutBack::Wait(format!("{} has {there} of {wanted} instances in service", self.watched))
            }
        };
        match &self.change {
            Change::SuspendProcesses { processes } => {
                let still: BTreeSet<String> = processes.intersection(&now.suspended).cloned().collect();
                if still.is_empty() {
                    PutBack::AsRecorded
                } else {
                    PutBack::Do(Change::ResumeProcesses { processes: still })
                }
            }
            Change::SetCapacity { .. }
                if (now.min, now.desired, now.max) != (then.min, then.desired, then.max) =>
            {
                PutBack::Do(Change::SetCapacity { min: then.min, desired: then.desired, max: then.max })
            }
            Change::TerminateEc2Instance { instance } if now.in_service.contains(instance) => {
                // It was not terminated, or is not yet: the group is as it was.
                PutBack::AsRecorded
            }
            _ => refilled(),
        }
    }
}
