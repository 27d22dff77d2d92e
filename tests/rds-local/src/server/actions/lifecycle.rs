//! `DeleteDBInstance`, `RebootDBInstance`, `StopDBInstance`, `StartDBInstance`.
//!
//! There is no standby behind a Multi-AZ instance. A failover to it is what it is to clients and to the data: the
//! server ends as in a failure, all connections are lost, and it recovers from its log, now in the other zone.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::Mutex as AsyncMutex;
use tokio::time::Instant;

use super::cluster_life::Member;
use super::machine::End;
use super::snapshots::{self, Shot};
use super::{Call, machine};
use crate::server::cloud::{Cloud, Config};
use crate::server::fault::{Answer, Fault};
use crate::server::faults::Outcome;
use crate::server::ids;
use crate::server::model::{Cluster, Instance, Kind, Machine, Settings};
use crate::server::render;
use crate::server::shelf::Shelf;

const MANUAL: (Shelf, Kind) = (Shelf::Instances, Kind::Manual);

/// Stops an instance and removes its files, after a last snapshot where one is asked for.
pub(super) fn delete(call: &Call) -> Answer {
    let params = &call.params;
    let id = params.required("DBInstanceIdentifier")?.to_ascii_lowercase();
    let keep = !params.flag("DeleteAutomatedBackups")?.unwrap_or(true);
    let skip = params.flag("SkipFinalSnapshot")?.unwrap_or(false);
    let last = params.get("FinalDBSnapshotIdentifier").filter(|text| !text.is_empty());
    let last = last.map(|text| ids::snapshot("FinalDBSnapshotIdentifier", text)).transpose()?;
    call.cloud.region(&call.region, |region| {
        let instance = region.instances.get(&id).ok_or_else(|| Fault::instance_not_found(&id))?;
        if instance.status == "deleting" {
            let message = format!("Instance {id} is already being deleted.");
            return Err(Fault::new("InvalidDBInstanceState", 400, message));
        }
        if instance.settings.deletion_protection {
            return Err(Fault::combination(
                "Cannot delete protected DB Instance, please disable deletion protection and try again.",
            ));
        }
        if let Some(cluster) = &instance.cluster {
            let aurora = region.clusters.get(cluster).is_none_or(Cluster::is_aurora);
            let status = region.clusters.get(cluster).map_or("", |cluster| &cluster.core.status);
            if matches!(status, "stopping" | "stopped") {
                return Err(Fault::cluster_state(cluster, status, "delete a member"));
            }
            return match &last {
                _ if !aurora => Err(Fault::combination(
                    "The members of a Multi-AZ DB cluster are deleted with their cluster.",
                )),
                Some(_) => Err(Fault::combination(
                    "FinalDBSnapshotIdentifier cannot be specified for a member of a DB cluster.",
                )),
                None => Ok(()),
            };
        }
        match (&last, skip) {
            (None, false) => Err(Fault::combination(
                "FinalDBSnapshotIdentifier is required unless SkipFinalSnapshot is specified.",
            )),
            (Some(_), true) => Err(Fault::combination(
                "FinalDBSnapshotIdentifier cannot be specified when SkipFinalSnapshot is enabled.",
            )),
            // There is nothing behind it to take a snapshot of.
            (Some(_), false) if !matches!(instance.status.as_str(), "available" | "stopped") => {
                Err(Fault::instance_state(&id, &instance.status, "take a final snapshot"))
            }
            _ => Ok(()),
        }
    })?;
    let shot = match &last {
        Some(last) => Some(snapshots::reserve(call, MANUAL, last, &id, None, |_| Ok(()))?.0),
        None => None,
    };
    let (answer, task) = begin(call, &id, "deleting", |_| Ok(()))?;
    let secret = call.cloud.region(&call.region, |region| {
        region
            .instances
            .get(&id)
            .and_then(|instance| instance.secret.as_ref().map(|secret| secret.arn.clone()))
    });
    tokio::spawn(task.delete(shot, secret, keep));
    Ok(answer)
}

/// Restarts the server; forced, by way of a failover to the other zone.
pub(super) fn reboot(call: &Call) -> Answer {
    let id = call.params.required("DBInstanceIdentifier")?.to_ascii_lowercase();
    let forced = call.params.flag("ForceFailover")?.unwrap_or(false);
    let (answer, task) = begin(call, &id, "rebooting", |instance| {
        if instance.status != "available" {
            return Err(Fault::instance_state(&instance.id, &instance.status, "reboot it"));
        }
        if forced && instance.standby_zone.is_none() {
            return Err(Fault::combination(
                "ForceFailover cannot be specified since the instance is not configured for either MultiAZ or High \
                 Availability",
            ));
        }
        Ok(())
    })?;
    if let Some(member) = Member::of(call, &id) {
        tokio::spawn(member.reboot(task));
        return Ok(answer);
    }
    tokio::spawn(async move {
        if forced {
            task.note("failover", "Multi-AZ instance failover started.");
        }
        let down = task.take_down(if forced { End::Crash } else { End::Clean }).await;
        if down.is_ok() && task.goes_wrong().await {
            return;
        }
        let worked = match down {
            Ok(()) => task.come_up().await,
            Err(error) => Err(error),
        };
        if forced && worked.is_ok() {
            task.swap_zones();
            task.end(worked, "available", "failover", "Multi-AZ instance failover completed").await;
        } else {
            task.end(worked, "available", "availability", "DB instance restarted").await;
        }
    });
    Ok(answer)
}

/// Stops the server; its files stay.
pub(super) fn stop(call: &Call) -> Answer {
    let id = call.params.required("DBInstanceIdentifier")?.to_ascii_lowercase();
    let shot_id = call.params.get("DBSnapshotIdentifier");
    let shot_id = shot_id.map(|text| ids::snapshot("DBSnapshotIdentifier", text)).transpose()?;
    let check = |instance: &Instance| {
        stops_alone(instance)?;
        match instance.status.as_str() {
            "available" => Ok(()),
            status => Err(Fault::instance_state(&instance.id, status, "stop it")),
        }
    };
    replicates_not(call, &id)?;
    let shot = match shot_id {
        Some(shot_id) => {
            Some(snapshots::reserve(call, MANUAL, &shot_id, &id, None, |instance| check(instance))?.0)
        }
        None => None,
    };
    let (answer, task) = begin(call, &id, "stopping", check)?;
    tokio::spawn(async move {
        if let Some(shot) = shot {
            let fine = shot.take(&task.cloud).await.is_ok();
            shot.finish(&task.cloud, fine, task.begun).await;
        }
        let worked = task.take_down(End::Clean).await;
        task.end(worked, "stopped", "notification", "DB instance stopped").await;
    });
    Ok(answer)
}

/// Starts a stopped instance.
pub(super) fn start(call: &Call) -> Answer {
    let id = call.params.required("DBInstanceIdentifier")?.to_ascii_lowercase();
    let (answer, task) = begin(call, &id, "starting", |instance| {
        stops_alone(instance)?;
        match instance.status.as_str() {
            "stopped" => Ok(()),
            status => Err(Fault::instance_state(&instance.id, status, "start it")),
        }
    })?;
    tokio::spawn(async move {
        if task.goes_wrong().await {
            return;
        }
        let worked = task.come_up().await;
        task.end(worked, "available", "notification", "DB instance started").await;
    });
    Ok(answer)
}

/// Members of clusters do not stop by themselves; the code and the words are AWS's.
fn stops_alone(instance: &Instance) -> Result<(), Fault> {
    if instance.cluster.is_none() {
        return Ok(());
    }
    let message =
        format!("{} DB instances are not eligible for stopping and starting.", instance.settings.engine);
    Err(Fault::combination(message))
}

/// RDS stops neither a read replica nor an instance that has some.
fn replicates_not(call: &Call, id: &str) -> Result<(), Fault> {
    call.cloud.region(&call.region, |region| {
        let message = if !region.instances.contains_key(id) {
            return Err(Fault::instance_not_found(id));
        } else if region.replication.contains_key(id) {
            format!("Instance {id} is a read replica, which cannot be stopped.")
        } else if region.replicas.get(id).is_some_and(|replicas| !replicas.is_empty()) {
            format!("Instance {id} has read replicas and cannot be stopped.")
        } else {
            return Ok(());
        };
        Err(Fault::new("InvalidDBInstanceState", 400, message))
    })
}

/// Stops every server, all at once. For the end of the program.
pub(in crate::server) async fn stop_everything(cloud: &Arc<Cloud>) {
    let machines: Vec<_> = cloud
        .state()
        .regions
        .values()
        .flat_map(|region| {
            let clusters = region.clusters.values().map(|cluster| &cluster.core);
            region.instances.values().chain(clusters).map(|instance| Arc::clone(&instance.machine))
        })
        .collect();
    let stops = machines.into_iter().map(|machine| {
        tokio::spawn(async move {
            let mut machine = machine.lock().await;
            machine.condemned = true;
            machine::bring_down(&mut machine, End::Clean).await
        })
    });
    for stop in stops.collect::<Vec<_>>() {
        if let Ok(Err(error)) = stop.await {
            tracing::error!(error, "a server did not stop cleanly");
        }
    }
}

/// An operation under way on an instance.
pub(super) struct Task {
    pub(super) cloud: Arc<Cloud>,
    pub(super) region: String,
    pub(super) resource_id: String,
    pub(super) epoch: u64,
    pub(super) machine: Arc<AsyncMutex<Machine>>,
    pub(super) settings: Settings,
    pub(super) dir: PathBuf,
    pub(super) begun: Instant,
    /// How it is ordered to end.
    pub(super) outcome: Option<Outcome>,
}

/// Sets an instance's status after a check, overtaking what was under way. Returns the instance as an answer and the
/// task to go on with.
pub(super) fn begin(
    call: &Call,
    id: &str,
    status: &str,
    check: impl FnOnce(&Instance) -> Result<(), Fault>,
) -> Result<(String, Task), Fault> {
    call.cloud.region(&call.region, |region| {
        let instance = region.instances.get_mut(id).ok_or_else(|| Fault::instance_not_found(id))?;
        check(instance)?;
        instance.epoch += 1;
        instance.set_status(status);
        let task = Task::on(call, instance);
        let instance = region.instances.get(id).ok_or_else(|| Fault::instance_not_found(id))?;
        Ok((render::instance_result(region, instance), task))
    })
}

impl Task {
    /// A task on an instance or a cluster as it is now.
    pub(super) fn on(call: &Call, instance: &Instance) -> Self {
        Self {
            cloud: Arc::clone(&call.cloud),
            region: call.region.clone(),
            resource_id: instance.resource_id.clone(),
            epoch: instance.epoch,
            machine: Arc::clone(&instance.machine),
            settings: instance.settings.clone(),
            dir: instance.dir.clone(),
            begun: Instant::now(),
            outcome: call.outcome,
        }
    }

    /// Closes the way to the server.
    pub(super) async fn shut(&self) {
        machine::close(&mut *self.machine.lock().await);
    }

    /// Ends the server and closes the way to it.
    async fn take_down(&self, end: End) -> Result<(), String> {
        machine::bring_down(&mut *self.machine.lock().await, end).await
    }

    /// Starts the server behind the same endpoint.
    async fn come_up(&self) -> Result<(), String> {
        let mut machine = self.machine.lock().await;
        if machine.condemned {
            return Ok(());
        }
        machine::bring_up(&self.cloud, &mut machine, &self.settings, self.dir.clone()).await.map(drop)
    }

    /// Whether it is ordered to end without a server; if so it has ended when this returns.
    pub(super) async fn goes_wrong(&self) -> bool {
        match self.outcome {
            Some(Outcome::NeverAvailable) => {}
            Some(Outcome::IncompatibleNetwork) => {
                let why = "The database is in a state that cannot be used: incompatible-network";
                self.end(Ok(()), "incompatible-network", "failure", why).await;
            }
            Some(Outcome::CopyFails) | None => return false,
        }
        true
    }

    /// The standby's zone becomes the instance's, and the other way round.
    fn swap_zones(&self) {
        self.cloud.update_instance(&self.region, &self.resource_id, self.epoch, |instance| {
            if let Some(standby) = instance.standby_zone.as_mut() {
                std::mem::swap(standby, &mut instance.settings.zone);
            }
        });
    }

    /// Waits until the status has lasted its time.
    pub(super) async fn rest(&self) {
        self.cloud.wait_for(self.begun, 100, Config::status_time).await;
    }

    /// Ends in `status`, or in `failed` with the reason in an event and the log.
    pub(super) async fn end(
        &self,
        worked: Result<(), String>,
        status: &str,
        category: &'static str,
        message: &str,
    ) {
        self.rest().await;
        let (status, category, message) = match worked {
            Ok(()) => (status, category, message.to_owned()),
            Err(error) => {
                tracing::error!(
                    region = self.region,
                    resource = self.resource_id,
                    error,
                    "an operation failed"
                );
                ("failed", "failure", format!("The operation failed: {error}"))
            }
        };
        self.cloud.update_instance(&self.region, &self.resource_id, self.epoch, |instance| {
            instance.set_status(status);
        });
        self.note(category, &message);
    }

    pub(super) fn note(&self, category: &'static str, message: &str) {
        self.cloud.region(&self.region, |region| region.resource_event(&self.resource_id, category, message));
    }

    pub(super) async fn delete(self, shot: Option<Shot>, secret: Option<String>, keep_automated: bool) {
        if let Some(shot) = shot {
            let fine = shot.take(&self.cloud).await.is_ok();
            shot.finish(&self.cloud, fine, self.begun).await;
        }
        {
            let mut machine = self.machine.lock().await;
            machine.condemned = true;
            if let Err(error) = machine::bring_down(&mut machine, End::Clean).await {
                tracing::error!(
                    region = self.region,
                    resource = self.resource_id,
                    error,
                    "a deleted server resisted"
                );
            }
            machine.endpoint = None;
            machine::remove(self.dir.clone()).await;
        }
        if let (Some(aws), Some(arn)) = (&self.cloud.aws, secret)
            && let Err(fault) = aws.delete_secret(&self.region, &arn).await
        {
            tracing::error!(secret = arn, error = fault.message, "a managed secret stays behind");
        }
        if !keep_automated {
            snapshots::discard_automated(&self.cloud, &self.region, &self.resource_id).await;
        }
        self.rest().await;
        if ids::is_cluster(&self.resource_id) {
            self.note("deletion", "DB cluster deleted");
            self.cloud.region(&self.region, |region| {
                region.clusters.retain(|_, cluster| cluster.core.resource_id != self.resource_id);
            });
            return;
        }
        self.note("deletion", "DB instance deleted");
        let gone = self.cloud.region(&self.region, |region| {
            let of_it = |instance: &Instance| instance.resource_id == self.resource_id;
            region.instances.extract_if(.., |_, instance| of_it(instance)).next()
        });
        self.cloud.state().link_replicas();
        if let Some((id, _)) = gone.filter(|(_, instance)| instance.cluster.is_some()) {
            super::clusters::leave(&self.cloud, &self.region, &id).await;
        }
    }
}
