//! `FailoverDBCluster`, `StopDBCluster`, `StartDBCluster`, `RebootDBCluster`, and what the reboot of a member does.
//!
//! All members of a cluster lead to one server. What restarts the writer restarts it for the readers too, as in an
//! Aurora cluster without read availability, and a reader that is rebooted only loses its connections.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::Mutex as AsyncMutex;

use super::Call;
use super::lifecycle::Task;
use super::machine::{self, End};
use crate::server::cloud::Cloud;
use crate::server::fault::{Answer, Fault};
use crate::server::faults::Outcome;
use crate::server::model::{Cluster, Instance, Machine, Region, Settings};
use crate::server::render;

/// Makes another member the writer: the one named, or the first reader that is available. The server ends as in a
/// failure and recovers; the endpoints stay what they are.
pub(super) fn failover(call: &Call) -> Answer {
    let target = call.params.get("TargetDBInstanceIdentifier").filter(|text| !text.is_empty());
    let target = target.map(str::to_ascii_lowercase);
    let mut next = (String::new(), String::new());
    let (answer, task) = begin(call, "failing-over", "rebooting", |region, cluster| {
        must_be(cluster, "available", "fail it over")?;
        let chosen = successor(region, cluster, target.as_deref())?;
        next = (chosen.id.clone(), chosen.resource_id.clone());
        let writer = cluster.members.first().filter(|name| is_available(region, name));
        Ok(writer.into_iter().cloned().collect())
    })?;
    let (next, resource_id) = next;
    tokio::spawn(async move {
        task.task.note("failover", &format!("Started cross AZ failover to DB instance: {next}"));
        let Some(worked) = task.restart(End::Crash).await else { return };
        if worked.is_ok() {
            task.promote(&resource_id);
        }
        let message = format!("Completed failover to DB instance: {next}");
        task.end(worked, "available", "failover", &message).await;
    });
    Ok(answer)
}

/// The member that writes next.
fn successor<'a>(region: &'a Region, cluster: &Cluster, target: Option<&str>) -> Result<&'a Instance, Fault> {
    let id = &cluster.core.id;
    let (writer, readers) = match cluster.members.split_first() {
        Some((writer, readers)) => (Some(writer), readers),
        None => (None, &[][..]),
    };
    let Some(target) = target else {
        let available = readers.iter().find(|name| is_available(region, name));
        return available.and_then(|name| region.instances.get(name)).ok_or_else(|| {
            let message = format!("Cluster {id} has no available reader to fail over to.");
            Fault::new("InvalidDBClusterStateFault", 400, message)
        });
    };
    let instance = region.instances.get(target).ok_or_else(|| Fault::instance_not_found(target))?;
    let why = if writer.is_some_and(|writer| writer == target) {
        format!("Instance {target} is the writer of cluster {id} already.")
    } else if !readers.iter().any(|name| name == target) {
        format!("Instance {target} is no member of cluster {id}.")
    } else if instance.status != "available" {
        return Err(Fault::instance_state(target, &instance.status, "fail over to it"));
    } else {
        return Ok(instance);
    };
    Err(Fault::new("InvalidDBInstanceState", 400, why))
}

/// Stops an Aurora cluster: its server, and with it all members.
pub(super) fn stop(call: &Call) -> Answer {
    let (answer, task) = begin(call, "stopping", "stopping", |region, cluster| {
        must_be_aurora(cluster)?;
        must_be(cluster, "available", "stop it")?;
        all_available(region, cluster, "stop its cluster")
    })?;
    tokio::spawn(async move {
        let worked = task.shared.take_down(End::Clean).await;
        task.end(worked, "stopped", "notification", "DB cluster stopped").await;
    });
    Ok(answer)
}

/// Starts a stopped Aurora cluster with its members.
pub(super) fn start(call: &Call) -> Answer {
    let (answer, task) = begin(call, "starting", "starting", |region, cluster| {
        must_be_aurora(cluster)?;
        must_be(cluster, "stopped", "start it")?;
        let stopped = |name: &&String| region.instances.get(*name).is_some_and(|one| one.status == "stopped");
        Ok(cluster.members.iter().filter(stopped).cloned().collect())
    })?;
    tokio::spawn(async move {
        if task.goes_wrong().await {
            return;
        }
        let worked = task.shared.come_up().await;
        task.end(worked, "available", "notification", "DB cluster started").await;
    });
    Ok(answer)
}

/// Restarts a Multi-AZ DB cluster; members of Aurora clusters are rebooted one by one.
pub(super) fn reboot(call: &Call) -> Answer {
    let (answer, task) = begin(call, "rebooting", "rebooting", |region, cluster| {
        if cluster.is_aurora() {
            let message =
                "RebootDBCluster is only for Multi-AZ DB clusters; reboot the instances of this one.";
            return Err(Fault::combination(message));
        }
        must_be(cluster, "available", "reboot it")?;
        all_available(region, cluster, "reboot its cluster")
    })?;
    tokio::spawn(async move {
        let Some(worked) = task.restart(End::Clean).await else { return };
        task.end(worked, "available", "availability", "DB cluster restarted").await;
    });
    Ok(answer)
}

/// By the user guide, Multi-AZ DB clusters are neither stopped nor started.
fn must_be_aurora(cluster: &Cluster) -> Result<(), Fault> {
    if cluster.is_aurora() {
        return Ok(());
    }
    Err(Fault::combination("Multi-AZ DB clusters are not eligible for stopping and starting."))
}

fn must_be(cluster: &Cluster, status: &str, to: &str) -> Result<(), Fault> {
    if cluster.core.status == status {
        return Ok(());
    }
    Err(Fault::cluster_state(&cluster.core.id, &cluster.core.status, to))
}

fn is_available(region: &Region, name: &str) -> bool {
    region.instances.get(name).is_some_and(|member| member.status == "available")
}

/// All members' names, if each is available.
fn all_available(region: &Region, cluster: &Cluster, to: &str) -> Result<Vec<String>, Fault> {
    match cluster.members.iter().find(|name| !is_available(region, name)) {
        None => Ok(cluster.members.clone()),
        Some(name) => {
            let status = region.instances.get(name).map_or("gone", |member| &member.status);
            Err(Fault::instance_state(name, status, to))
        }
    }
}

/// Sets the statuses of a cluster and of the members that `choose` names, overtaking what was under way on them.
/// Returns the cluster as an answer and the task to go on with.
fn begin(
    call: &Call,
    status: &str,
    status_of_members: &str,
    choose: impl FnOnce(&Region, &Cluster) -> Result<Vec<String>, Fault>,
) -> Result<(String, ClusterTask), Fault> {
    let id = call.params.required("DBClusterIdentifier")?.to_ascii_lowercase();
    let absent = || Fault::cluster_not_found(&id);
    call.cloud.region(&call.region, |region| {
        let chosen = choose(region, region.clusters.get(&id).ok_or_else(absent)?)?;
        let mut members = Vec::new();
        for name in &chosen {
            if let Some(member) = region.instances.get_mut(name) {
                member.epoch += 1;
                member.set_status(status_of_members);
                members.push((member.resource_id.clone(), member.epoch));
            }
        }
        let cluster = region.clusters.get_mut(&id).ok_or_else(absent)?;
        cluster.core.epoch += 1;
        cluster.core.set_status(status);
        let task = Task::on(call, &cluster.core);
        let shared = Shared::of(call, &cluster.core);
        let cluster = region.clusters.get(&id).ok_or_else(absent)?;
        Ok((render::cluster_result(region, cluster), ClusterTask { task, shared, members }))
    })
}

/// An operation under way on a cluster and some of its members.
struct ClusterTask {
    task: Task,
    shared: Shared,
    /// Resource id and epoch of each member whose status it has set.
    members: Vec<(String, u64)>,
}

impl ClusterTask {
    /// Takes the server down and up again. `None` when it is ordered to stay away and has ended so.
    async fn restart(&self, end: End) -> Option<Result<(), String>> {
        if let Err(error) = self.shared.take_down(end).await {
            return Some(Err(error));
        }
        if self.goes_wrong().await {
            return None;
        }
        Some(self.shared.come_up().await)
    }

    /// Whether it is ordered to end without a server; if so it has ended when this returns.
    async fn goes_wrong(&self) -> bool {
        let wrong = self.task.goes_wrong().await;
        if self.task.outcome == Some(Outcome::IncompatibleNetwork) {
            self.set_members("incompatible-network");
        }
        wrong
    }

    /// Ends in `status`, the members too, or in `failed` with the reason in an event and the log.
    async fn end(&self, worked: Result<(), String>, status: &str, category: &'static str, message: &str) {
        self.task.rest().await;
        // First the members: whoever sees the cluster available finds them so.
        self.set_members(if worked.is_ok() { status } else { "failed" });
        self.task.end(worked, status, category, message).await;
    }

    fn set_members(&self, status: &str) {
        let Task { cloud, region, .. } = &self.task;
        for (resource_id, epoch) in &self.members {
            cloud.update_instance(region, resource_id, *epoch, |member| member.set_status(status));
        }
    }

    /// Makes a member the writer, if it is still one.
    fn promote(&self, resource_id: &str) {
        let Task { cloud, region, resource_id: of_cluster, .. } = &self.task;
        cloud.region(region, |region| {
            let name =
                region.instances.values().find(|one| one.resource_id == resource_id).map(|one| &one.id);
            let Some(cluster) = region.clusters.values_mut().find(|one| one.core.resource_id == *of_cluster)
            else {
                return;
            };
            if let Some(at) = cluster.members.iter().position(|member| Some(member) == name) {
                let writer = cluster.members.remove(at);
                cluster.members.insert(0, writer);
            }
        });
    }
}

/// The server of a cluster with all endpoints that lead to it.
struct Shared {
    cloud: Arc<Cloud>,
    region: String,
    /// The cluster's.
    resource_id: String,
    machine: Arc<AsyncMutex<Machine>>,
    settings: Settings,
    dir: PathBuf,
}

impl Shared {
    fn of(call: &Call, cluster: &Instance) -> Self {
        Self {
            cloud: Arc::clone(&call.cloud),
            region: call.region.clone(),
            resource_id: cluster.resource_id.clone(),
            machine: Arc::clone(&cluster.machine),
            settings: cluster.settings.clone(),
            dir: cluster.dir.clone(),
        }
    }

    /// The members as they are now.
    fn members(&self) -> Vec<Arc<AsyncMutex<Machine>>> {
        self.cloud.region(&self.region, |region| {
            let ours = region.clusters.values().find(|one| one.core.resource_id == self.resource_id);
            let names = ours.map(|cluster| cluster.members.as_slice()).unwrap_or_default();
            let members = names.iter().filter_map(|name| region.instances.get(name));
            members.map(|member| Arc::clone(&member.machine)).collect()
        })
    }

    /// Ends the server and closes every way to it.
    async fn take_down(&self, end: End) -> Result<(), String> {
        // Whoever needs both holds the cluster's machine first.
        let mut machine = self.machine.lock().await;
        for member in self.members() {
            machine::close(&mut *member.lock().await);
        }
        machine::bring_down(&mut machine, end).await
    }

    /// Starts the server behind the same endpoints: those of the members that have joined, and the cluster's where
    /// there is such a member.
    async fn come_up(&self) -> Result<(), String> {
        let mut machine = self.machine.lock().await;
        if machine.condemned {
            return Ok(());
        }
        machine::bring_up_closed(&self.cloud, &mut machine, &self.settings, self.dir.clone()).await?;
        let backend = machine.backend.ok_or("the cluster has no server")?;
        let mut joined = false;
        for member in self.members() {
            joined |= open(&mut *member.lock().await, backend).await?;
        }
        if joined {
            machine::open(&mut machine, backend).await?;
        }
        Ok(())
    }

    /// Opens one member's endpoint again.
    async fn readmit(&self, member: &AsyncMutex<Machine>) -> Result<(), String> {
        let machine = self.machine.lock().await;
        let backend = machine.backend.ok_or("its cluster has no server")?;
        open(&mut *member.lock().await, backend).await.map(drop)
    }
}

/// A member of a cluster, as its reboot sees it.
pub(super) struct Member {
    shared: Shared,
    writes: bool,
}

impl Member {
    /// `None` where the instance is no member.
    pub(super) fn of(call: &Call, id: &str) -> Option<Self> {
        call.cloud.region(&call.region, |region| {
            let cluster = region.clusters.get(region.instances.get(id)?.cluster.as_ref()?)?;
            let writes = cluster.members.first().is_some_and(|writer| writer == id);
            Some(Self { shared: Shared::of(call, &cluster.core), writes })
        })
    }

    /// Restarts the server, or of a reader the endpoint only.
    pub(super) async fn reboot(self, task: Task) {
        let down = if self.writes {
            self.shared.take_down(End::Clean).await
        } else {
            task.shut().await;
            Ok(())
        };
        if down.is_ok() && task.goes_wrong().await {
            return;
        }
        let worked = match down {
            Ok(()) if self.writes => self.shared.come_up().await,
            Ok(()) => self.shared.readmit(&task.machine).await,
            Err(error) => Err(error),
        };
        task.end(worked, "available", "availability", "DB instance restarted").await;
    }
}

/// Opens a member's endpoint, if it has joined and is not being deleted. Says whether it did.
async fn open(member: &mut Machine, backend: u16) -> Result<bool, String> {
    if member.condemned || member.endpoint.is_none() {
        return Ok(false);
    }
    machine::open(member, backend).await.map(|_| true)
}
