//! The AWS side of chaos experiments: what the resources of an experiment are now, and single changes to them.
//!
//! Nothing is decided here and nothing is waited for: a look says what AWS says, a change is one request (two hundred
//! targets at a time). EC2, Auto Scaling, Elastic Load Balancing, Lambda and CloudWatch are called without a generated
//! client, see [`dr_aws::raw`]; RDS by `dr_aws`.

mod alarms;
mod functions;
mod groups;
mod machines;
mod query;
mod targets;
#[cfg(test)]
mod wire_tests;
mod xml;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dr_aws::clients::Clients;
use dr_core::chaos::world::{Change, Facts, Resource, ResourceKind, State, TargetGroup};
use dr_core::ids::{DatabaseId, Region};
use dr_core::observed::Observed;
use dr_core::{DrError, ErrorName, Result};
use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt as _};
use serde_json::Value;

use crate::functions::Functions;
use crate::groups::Groups;
use crate::machines::Machines;
use crate::query::{AUTO_SCALING, EC2, ELB, Query};
use crate::targets::Targets;

/// Calls of one look that are on their way at the same time.
const AT_ONCE: usize = 8;

/// The resources that experiments look at and change, in all Regions.
#[derive(Debug, Clone)]
pub struct World {
    clients: Clients,
}

/// What came of looking at some resources.
type Looks = Vec<(Resource, Observed<Facts>)>;

impl World {
    /// The world as these clients reach it.
    pub fn new(clients: &Clients) -> Self {
        Self { clients: clients.clone() }
    }

    /// Looks at each resource. What could not be looked at is `Unreachable`, with the named error of the call that
    /// failed; Regions, which are no resources of AWS, are left out. Calls for one kind and Region are batched where the
    /// API can, and eight are on their way at the same time.
    pub async fn look(&self, resources: &BTreeSet<Resource>) -> BTreeMap<Resource, Observed<Facts>> {
        let mut places: BTreeMap<(ResourceKind, &Region), Vec<&Resource>> = BTreeMap::new();
        for resource in resources {
            places.entry((resource.kind, &resource.region)).or_default().push(resource);
        }
        let mut jobs: Vec<BoxFuture<'_, Looks>> = Vec::new();
        for ((kind, region), of) in &places {
            match kind {
                ResourceKind::Ec2Instance => {
                    for batch in of.chunks(machines::BATCH) {
                        jobs.push(Box::pin(self.look_at_machines(region, batch)));
                    }
                }
                ResourceKind::ScalingGroup => {
                    for batch in of.chunks(groups::BATCH) {
                        jobs.push(Box::pin(self.look_at_groups(region, batch)));
                    }
                }
                ResourceKind::TargetGroup => jobs.push(Box::pin(self.look_at_target_groups(region, of))),
                ResourceKind::DbInstance | ResourceKind::DbCluster | ResourceKind::Function => {
                    for resource in of {
                        jobs.push(Box::pin(self.look_at_one(resource)));
                    }
                }
                ResourceKind::Region => {}
            }
        }
        let looks: Vec<Looks> = stream::iter(jobs).buffer_unordered(AT_ONCE).collect().await;
        looks.into_iter().flatten().collect()
    }

    async fn look_at_machines(&self, region: &Region, resources: &[&Resource]) -> Looks {
        placed(resources, self.machines(region).look(&ids(resources)).await)
    }

    async fn look_at_groups(&self, region: &Region, resources: &[&Resource]) -> Looks {
        placed(resources, self.groups(region).look(&ids(resources)).await)
    }

    async fn look_at_one(&self, resource: &Resource) -> Looks {
        let Resource { kind, region, id } = resource;
        let seen = match (kind, DatabaseId::parse(id.as_str())) {
            (ResourceKind::Function, _) => Functions::new(&self.clients, region).look(id).await,
            (_, Err(error)) => Observed::Unreachable(error),
            (ResourceKind::DbCluster, Ok(id)) => self.clients.rds(region).look_at_cluster(&id).await,
            (_, Ok(id)) => self.clients.rds(region).look_at_instance(&id).await,
        };
        vec![(resource.clone(), seen)]
    }

    async fn look_at_target_groups(&self, region: &Region, resources: &[&Resource]) -> Looks {
        let targets = self.targets(region);
        let mut jobs: Vec<BoxFuture<'_, (Resource, Observed<TargetGroup>)>> = Vec::new();
        for resource in resources {
            jobs.push(Box::pin(async { ((*resource).clone(), targets.health(&resource.id).await) }));
        }
        let seen: Vec<_> = stream::iter(jobs).buffer_unordered(AT_ONCE).collect().await;

        let (mut looks, mut found) = (Looks::new(), Vec::new());
        for (resource, group) in seen {
            match group {
                Observed::Found(group) => found.push((resource, group)),
                Observed::Missing => looks.push((resource, Observed::Missing)),
                Observed::Unreachable(error) => looks.push((resource, Observed::Unreachable(error))),
            }
        }
        let arns: Vec<&str> = found.iter().map(|(resource, _)| resource.id.as_str()).collect();
        let registered = found.iter().flat_map(|(_, group)| &group.registered);
        let instances: BTreeSet<&str> = registered
            .filter(|target| targets::is_instance(target))
            .map(|target| target.id.as_str())
            .collect();
        let (tags, zones) = tokio::join!(targets.tags(&arns), self.zones(region, &instances));

        let facts = tags.map(|tags| {
            let facts = |(resource, group): &(Resource, TargetGroup)| {
                // It was deleted between the two calls when it has no list of tags, not even an empty one.
                let tags = tags.get(&resource.id)?.clone();
                let state = State::TargetGroup(targets::placed(group, &zones));
                Some((resource.id.clone(), Facts { arn: resource.id.clone(), tags, state }))
            };
            found.iter().filter_map(facts).collect()
        });
        let resources: Vec<&Resource> = found.iter().map(|(resource, _)| resource).collect();
        looks.extend(placed(&resources, facts));
        looks
    }

    /// The zones of instances, which Elastic Load Balancing does not say. Without them targets can still be registered
    /// again: trouble with EC2 must not be in the way of that.
    async fn zones(&self, region: &Region, instances: &BTreeSet<&str>) -> BTreeMap<String, String> {
        let machines = self.machines(region);
        let ids: Vec<&str> = instances.iter().copied().collect();
        let mut zones = BTreeMap::new();
        for batch in ids.chunks(machines::BATCH) {
            match machines.zones(batch).await {
                Ok(found) => zones.extend(found),
                Err(error) => {
                    tracing::warn!(%region, error = %error.name(), "the zones of targets are not known: {error}");
                }
            }
        }
        zones
    }

    /// Makes one change. `Ok` says that AWS took it, not that it shows yet; nothing is waited for. Safe to repeat, but
    /// for reboots and failovers, which happen again.
    ///
    /// # Errors
    /// The named error of the call, with unknown leftovers when it was cut off;
    /// [`dr_core::ErrorName::Internal`] for a change that is none of the resource's kind, for one that names nothing, and for those of
    /// Regions, which are the caller's.
    pub async fn make(&self, change: &Change, resource: &Resource) -> Result<()> {
        let Resource { kind, region, id } = resource;
        match kind {
            ResourceKind::DbInstance | ResourceKind::DbCluster => {
                self.change_database(change, resource).await
            }
            ResourceKind::Ec2Instance => {
                let machines = self.machines(region);
                match change {
                    Change::StopEc2Instance => machines.stop(id).await,
                    Change::StartEc2Instance => machines.start(id).await,
                    Change::RebootEc2Instance => machines.reboot(id).await,
                    Change::SetSecurityGroups { groups } => machines.set_groups(id, groups).await,
                    Change::TerminateEc2Instance { instance } if instance == id => {
                        self.groups(region).terminate(id).await
                    }
                    _ => Err(foreign(change, resource)),
                }
            }
            ResourceKind::ScalingGroup => {
                let groups = self.groups(region);
                match change {
                    Change::SuspendProcesses { processes } => groups.suspend(id, processes).await,
                    Change::ResumeProcesses { processes } => groups.resume(id, processes).await,
                    Change::SetCapacity { min, desired, max } => {
                        groups.set_capacity(id, *min, *desired, *max).await
                    }
                    _ => Err(foreign(change, resource)),
                }
            }
            ResourceKind::TargetGroup => match change {
                Change::DeregisterTargets { targets } => self.targets(region).deregister(id, targets).await,
                Change::RegisterTargets { targets } => self.targets(region).register(id, targets).await,
                _ => Err(foreign(change, resource)),
            },
            ResourceKind::Function => {
                let functions = Functions::new(&self.clients, region);
                match change {
                    Change::ReserveConcurrency { executions } => functions.reserve(id, *executions).await,
                    Change::ReleaseConcurrency => functions.release(id).await,
                    _ => Err(foreign(change, resource)),
                }
            }
            ResourceKind::Region => Err(foreign(change, resource)),
        }
    }

    async fn change_database(&self, change: &Change, resource: &Resource) -> Result<()> {
        let rds = self.clients.rds(&resource.region);
        let id = DatabaseId::parse(resource.id.as_str())?;
        match (resource.kind, change) {
            (ResourceKind::DbInstance, Change::RebootDbInstance { force_failover }) => {
                rds.reboot_instance(&id, *force_failover).await
            }
            (ResourceKind::DbInstance, Change::StopDbInstance) => rds.stop_instance(&id).await,
            (ResourceKind::DbInstance, Change::StartDbInstance) => rds.start_instance(&id).await,
            (ResourceKind::DbCluster, Change::FailoverDbCluster { to }) => {
                rds.fail_over_cluster(&id, to.as_deref()).await
            }
            (ResourceKind::DbCluster, Change::StopDbCluster) => rds.stop_cluster(&id).await,
            (ResourceKind::DbCluster, Change::StartDbCluster) => rds.start_cluster(&id).await,
            _ => Err(foreign(change, resource)),
        }
    }

    /// The state of an alarm: `OK`, `ALARM` or `INSUFFICIENT_DATA`. Metric alarms and composite ones are looked for.
    pub async fn alarm_state(&self, region: &Region, name: &str) -> Observed<String> {
        alarms::state(&self.clients, region, name).await
    }

    /// How many rules a security group has, of both directions: without one it lets nothing through.
    pub async fn rules_of(&self, region: &Region, security_group: &str) -> Observed<usize> {
        match Box::pin(self.machines(region).rules(security_group)).await {
            Ok(Some(rules)) => Observed::Found(rules),
            Ok(None) => Observed::Missing,
            Err(error) => Observed::Unreachable(error),
        }
    }

    /// Invokes a function of the home Region and waits for its answer, `within` that time with all attempts.
    ///
    /// # Errors
    /// The named error of the call; [`ErrorName::InvalidConfiguration`] when there is no such function. An error that the
    /// function ended in keeps its name when it is one of ours, and is named as by [`dr_core::failure`] otherwise; its
    /// source is a [`FunctionError`].
    pub async fn invoke(&self, function: &str, payload: &Value, within: Duration) -> Result<Value> {
        functions::invoke(&self.clients, self.clients.home(), function, payload, within).await
    }

    fn machines<'a>(&self, region: &'a Region) -> Machines<'a> {
        Machines { ec2: Query::new(&self.clients, EC2, region), region }
    }

    fn groups<'a>(&self, region: &'a Region) -> Groups<'a> {
        Groups { auto_scaling: Query::new(&self.clients, AUTO_SCALING, region), region }
    }

    fn targets<'a>(&self, region: &'a Region) -> Targets<'a> {
        Targets { elb: Query::new(&self.clients, ELB, region), region }
    }
}

fn ids<'a>(resources: &[&'a Resource]) -> Vec<&'a str> {
    resources.iter().map(|resource| resource.id.as_str()).collect()
}

/// What one answer says of each resource that was asked for. Errors cannot be cloned: the first resource keeps the one
/// with its causes.
fn placed(resources: &[&Resource], answer: Result<BTreeMap<String, Facts>>) -> Looks {
    let mut answer = answer;
    let seen = |resource: &&Resource| {
        let seen = match &mut answer {
            Ok(found) => found.remove(&resource.id).map_or(Observed::Missing, Observed::Found),
            Err(error) => {
                let copy = DrError::new(error.name(), error.what()).with_leftovers(error.leftovers().clone());
                Observed::Unreachable(std::mem::replace(error, copy))
            }
        };
        ((*resource).clone(), seen)
    };
    resources.iter().map(seen).collect()
}

fn foreign(change: &Change, resource: &Resource) -> DrError {
    DrError::new(ErrorName::Internal, format!("changing {resource}: it takes no such change as {change:?}"))
}

/// The error that an invoked function ended in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionError {
    /// `errorType`: a name of ours, or one of the runtime's.
    pub error_type: String,
    /// `errorMessage`.
    pub message: String,
}

impl std::fmt::Display for FunctionError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.error_type, self.message)
    }
}

impl std::error::Error for FunctionError {}
