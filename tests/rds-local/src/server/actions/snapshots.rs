//! `CreateDBSnapshot` and `DeleteDBSnapshot`, and the automated snapshots that a backup window would take.

use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::Instant;
use uuid::Uuid;

use super::{Call, machine};
use crate::server::cloud::{Cloud, Config, blocking};
use crate::server::fault::{Answer, Fault};
use crate::server::ids::{self, Arn};
use crate::server::model::{Instance, Kind, Machine, Region, Settings, Snapshot};
use crate::server::params::Tag;
use crate::server::render;

/// Takes a snapshot. The data is frozen and copied before this answers; the status follows in its own time.
pub(super) async fn create(call: &Call) -> Answer {
    let params = &call.params;
    let id = ids::snapshot("DBSnapshotIdentifier", params.required("DBSnapshotIdentifier")?)?;
    let instance_id = params.required("DBInstanceIdentifier")?.to_ascii_lowercase();
    let tags = params.tags()?;
    take_one(call, Kind::Manual, id, &instance_id, tags).await
}

/// Takes an automated snapshot now, named as RDS names them. Only the control API asks for it: nothing here has a
/// backup window.
pub(in crate::server) async fn automated(call: &Call, instance_id: &str) -> Answer {
    let time = Timestamp::now().strftime("%Y-%m-%d-%H-%M");
    let id = format!("rds:{instance_id}-{time}");
    take_one(call, Kind::Automated, id, instance_id, None).await
}

async fn take_one(call: &Call, kind: Kind, id: String, instance_id: &str, tags: Option<Vec<Tag>>) -> Answer {
    let (shot, epoch) = reserve(call, kind, &id, instance_id, tags, |instance| {
        // A stopped instance can be snapshotted too, and stays stopped.
        match instance.status.as_str() {
            "available" => {
                instance.epoch += 1;
                "backing-up".clone_into(&mut instance.status);
                Ok(())
            }
            "stopped" => Ok(()),
            status => Err(Fault::instance_state(&instance.id, status, "take a snapshot of it")),
        }
    })?;
    let begun = Instant::now();
    let taken = shot.take(&call.cloud).await;
    let answer = call.cloud.region(&call.region, |region| {
        region.snapshots.get(&id).map(|snapshot| render::snapshot_result(region, snapshot))
    });
    let (cloud, region) = (Arc::clone(&call.cloud), call.region.clone());
    tokio::spawn(async move {
        shot.finish(&cloud, taken.is_ok(), begun).await;
        cloud.update_instance(&region, &shot.resource_id, epoch, |instance| {
            if instance.status == "backing-up" {
                "available".clone_into(&mut instance.status);
            }
        });
        if let Err(error) = taken {
            tracing::error!(region, snapshot = shot.id, error, "a snapshot failed");
        }
    });
    answer.ok_or_else(|| Fault::snapshot_not_found(&id))
}

/// A snapshot that has its place in the Region and not yet its data.
pub(super) struct Shot {
    kind: Kind,
    pub(super) region: String,
    pub(super) id: String,
    pub(super) resource_id: String,
    pub(super) dir: PathBuf,
    instance_dir: PathBuf,
    machine: Arc<AsyncMutex<Machine>>,
    settings: Settings,
}

/// Checks quota, names and the instance's state, and puts a `creating` snapshot into the Region. `claim` sees the
/// instance and may refuse. Also returns the instance's epoch afterwards.
pub(super) fn reserve(
    call: &Call,
    kind: Kind,
    id: &str,
    instance_id: &str,
    tags: Option<Vec<Tag>>,
    claim: impl FnOnce(&mut Instance) -> Result<(), Fault>,
) -> Result<(Shot, u64), Fault> {
    let quota = call.cloud.config().snapshot_quota;
    let dir = call.cloud.place(&call.region, "snapshots", &Uuid::new_v4().to_string());
    call.cloud.region(&call.region, |region| {
        let taken = region.snapshots.contains_key(id);
        let number = number_of(region);
        let instance =
            region.instances.get_mut(instance_id).ok_or_else(|| Fault::instance_not_found(instance_id))?;
        if taken {
            return Err(Fault::snapshot_exists(id));
        }
        if kind == Kind::Manual && number >= quota {
            return Err(Fault::snapshot_quota(quota));
        }
        claim(instance)?;
        let tags = tags.unwrap_or_else(|| {
            if instance.settings.copy_tags_to_snapshot {
                instance.tags.iter().filter(|tag| !tag.key.starts_with("aws:")).cloned().collect()
            } else {
                Vec::new()
            }
        });
        let shot = Shot {
            kind,
            region: call.region.clone(),
            id: id.to_owned(),
            resource_id: instance.resource_id.clone(),
            dir: dir.clone(),
            instance_dir: instance.dir.clone(),
            machine: Arc::clone(&instance.machine),
            settings: instance.settings.clone(),
        };
        let snapshot = Snapshot {
            id: id.to_owned(),
            kind,
            instance_id: instance.id.clone(),
            resource_id: instance.resource_id.clone(),
            status: "creating".to_owned(),
            progress: 0,
            settings: instance.settings.clone(),
            port: instance.port.unwrap_or_default(),
            instance_created: instance.created,
            created: None,
            original: None,
            kms_key: instance.settings.kms_key.clone(),
            source: None,
            tags,
            dir,
            files: Arc::default(),
        };
        let epoch = instance.epoch;
        region.snapshots.insert(id.to_owned(), snapshot);
        region.snapshot_event(id, "creation", format!("Creating {} snapshot", kind.name()));
        Ok((shot, epoch))
    })
}

impl Shot {
    /// Freezes the server and copies its files, or copies those of a stopped one.
    pub(super) async fn take(&self, cloud: &Arc<Cloud>) -> Result<(), String> {
        let mut machine = Arc::clone(&self.machine).lock_owned().await;
        let (dir, from) = (self.dir.clone(), self.instance_dir.clone());
        let engine = cloud.engine(&self.settings.engine).map_err(|fault| fault.message)?;
        let version = self.settings.version.clone();
        let time = blocking(move || match machine.server.as_mut() {
            Some(server) => server.snapshot(&dir),
            None => engine.copy(&version, &from, &dir).map(|()| Timestamp::now()),
        })
        .await?;
        cloud.update_snapshot(&self.region, &self.dir, |snapshot| {
            snapshot.original = Some(time);
            snapshot.created = Some(time);
        });
        Ok(())
    }

    /// Lets the progress grow over the time that a status lasts, then ends in `available` or `failed`.
    pub(super) async fn finish(&self, cloud: &Arc<Cloud>, fine: bool, begun: Instant) {
        for percent in [25, 50, 75, 100] {
            cloud.wait_for(begun, percent, Config::status_time).await;
            cloud.update_snapshot(&self.region, &self.dir, |snapshot| {
                snapshot.progress = if fine { percent } else { snapshot.progress };
            });
        }
        let status = if fine { "available" } else { "failed" };
        cloud.update_snapshot(&self.region, &self.dir, |snapshot| status.clone_into(&mut snapshot.status));
        cloud.region(&self.region, |region| {
            let (category, end) = if fine { ("creation", "created") } else { ("failure", "failed") };
            region.snapshot_event(&self.id, category, format!("{} snapshot {end}", self.kind.title()));
        });
    }
}

/// Deletes a snapshot and its files. Copies of it that are under way fail; a copy under way can be deleted itself.
pub(super) fn delete(call: &Call) -> Answer {
    let named = call.params.required("DBSnapshotIdentifier")?;
    let id = id_or_arn(call, named)?;
    let answer;
    let (dir, files, arn) = {
        let mut state = call.cloud.state();
        let region = state.regions.get_mut(&call.region).ok_or_else(|| Fault::snapshot_not_found(named))?;
        let snapshot = region.snapshots.get(&id).ok_or_else(|| Fault::snapshot_not_found(named))?;
        if snapshot.kind == Kind::Automated {
            let message = format!("Only manual snapshots may be deleted; {id} is an automated one.");
            return Err(Fault::new("InvalidDBSnapshotState", 400, message));
        }
        if !matches!(snapshot.status.as_str(), "available" | "failed" | "copying" | "pending") {
            return Err(Fault::snapshot_state(&id, &snapshot.status, "delete it"));
        }
        let mut snapshot = region.snapshots.remove(&id).ok_or_else(|| Fault::snapshot_not_found(named))?;
        "deleted".clone_into(&mut snapshot.status);
        answer = render::snapshot_result(region, &snapshot);
        region.snapshot_event(&id, "deletion", "Deleted manual snapshot");
        (snapshot.dir, snapshot.files, region.arn("snapshot", &id))
    };
    fail_copies_of(&call.cloud, &arn);
    tokio::spawn(async move {
        // Whoever copies the files finishes first.
        let _files = files.write().await;
        machine::remove(dir).await;
    });
    Ok(answer)
}

/// Removes the automated snapshots of an instance that is gone.
pub(super) async fn discard_automated(cloud: &Cloud, region: &str, resource_id: &str) {
    let gone: Vec<Snapshot> = cloud.region(region, |region| {
        let of_it =
            |snapshot: &Snapshot| snapshot.kind == Kind::Automated && snapshot.resource_id == resource_id;
        region.snapshots.extract_if(.., |_, snapshot| of_it(snapshot)).map(|(_, snapshot)| snapshot).collect()
    });
    for snapshot in gone {
        fail_copies_of(cloud, &ids::arn(region, &cloud.account, "snapshot", &snapshot.id));
        let _files = snapshot.files.write().await;
        machine::remove(snapshot.dir).await;
    }
}

/// A copy loses its source: it fails, in whichever Region.
fn fail_copies_of(cloud: &Cloud, arn: &str) {
    for region in cloud.state().regions.values_mut() {
        let mut failed = Vec::new();
        for snapshot in region.snapshots.values_mut() {
            let from_it = snapshot.source.as_ref().is_some_and(|source| source.arn == arn);
            if from_it && (super::copy::is_under_way(&snapshot.status) || snapshot.status == "creating") {
                "failed".clone_into(&mut snapshot.status);
                failed.push(snapshot.id.clone());
            }
        }
        for id in failed {
            region.snapshot_event(&id, "failure", "The copy failed: its source was deleted");
        }
    }
}

/// The identifier of a snapshot given by identifier or ARN. An ARN of another Region names nothing here.
pub(super) fn id_or_arn(call: &Call, text: &str) -> Result<String, Fault> {
    match Arn::parse(text) {
        None => Ok(text.to_ascii_lowercase()),
        Some(arn)
            if arn.kind == "snapshot" && arn.region == call.region && arn.account == call.cloud.account =>
        {
            Ok(arn.name)
        }
        Some(arn) if arn.kind == "snapshot" => Err(Fault::snapshot_not_found(text)),
        Some(_) => Err(Fault::value(format!("Invalid snapshot identifier: {text}"))),
    }
}

/// How many manual snapshots count against the quota.
pub(super) fn number_of(region: &Region) -> usize {
    region.snapshots.values().filter(|snapshot| snapshot.kind == Kind::Manual).count()
}
