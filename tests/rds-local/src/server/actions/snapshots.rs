//! `CreateDBSnapshot`, `DeleteDBSnapshot`, the same for clusters, and the snapshots that a backup window or AWS Backup
//! would take.

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
use crate::server::shelf::Shelf;

/// Takes a snapshot. The data is frozen and copied before this answers; the status follows in its own time.
pub(super) async fn create(call: &Call, shelf: Shelf) -> Answer {
    let params = &call.params;
    let parameter = shelf.id_parameter();
    let id = ids::identifier(parameter, params.required(parameter)?, shelf.longest_id())?;
    let owner = params.required(shelf.owner_parameter())?.to_ascii_lowercase();
    let tags = params.tags()?;
    take_one(call, shelf, Kind::Manual, id, &owner, tags).await
}

/// Takes a snapshot now as RDS itself or AWS Backup would, under such a name. Only the control API asks for it:
/// nothing here has a backup window.
pub(in crate::server) async fn unasked(call: &Call, shelf: Shelf, kind: Kind, owner: &str) -> Answer {
    let id = match kind {
        Kind::AwsBackup => format!("awsbackup:job-{}", Uuid::new_v4()),
        Kind::Manual | Kind::Automated => {
            format!("rds:{owner}-{}", Timestamp::now().strftime("%Y-%m-%d-%H-%M"))
        }
    };
    take_one(call, shelf, kind, id, owner, None).await
}

async fn take_one(
    call: &Call,
    shelf: Shelf,
    kind: Kind,
    id: String,
    owner: &str,
    tags: Option<Vec<Tag>>,
) -> Answer {
    let (shot, epoch) = reserve(call, (shelf, kind), &id, owner, tags, |instance| {
        // A stopped instance can be snapshotted too, and stays stopped.
        match instance.status.as_str() {
            "available" => {
                instance.epoch += 1;
                "backing-up".clone_into(&mut instance.status);
                Ok(())
            }
            "stopped" => Ok(()),
            status => Err(shelf.owner_state(&instance.id, status, "take a snapshot of it")),
        }
    })?;
    let begun = Instant::now();
    let taken = shot.take(&call.cloud).await;
    let answer = call.cloud.region(&call.region, |region| {
        shelf.of(region).get(&id).map(|snapshot| shelf.result(region, snapshot))
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
    answer.ok_or_else(|| shelf.not_found(&id))
}

/// A snapshot that has its place in the Region and not yet its data.
pub(super) struct Shot {
    shelf: Shelf,
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
    (shelf, kind): (Shelf, Kind),
    id: &str,
    owner: &str,
    tags: Option<Vec<Tag>>,
    claim: impl FnOnce(&mut Instance) -> Result<(), Fault>,
) -> Result<(Shot, u64), Fault> {
    let quota = shelf.quota(&call.cloud.config());
    let dir = call.cloud.place(&call.region, "snapshots", &Uuid::new_v4().to_string());
    call.cloud.region(&call.region, |region| {
        let taken = shelf.of(region).contains_key(id);
        let number = number_of(region, shelf);
        let instance = shelf.owner(region, owner)?;
        if taken {
            return Err(shelf.exists(id));
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
            shelf,
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
        shelf.of_mut(region).insert(id.to_owned(), snapshot);
        shelf.event(region, id, "creation", format!("Creating {} snapshot", kind.name()));
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
            self.shelf.event(region, &self.id, category, format!("{} snapshot {end}", self.kind.title()));
        });
    }
}

/// Deletes a snapshot and its files. Copies of it that are under way fail; a copy under way can be deleted itself.
pub(super) fn delete(call: &Call, shelf: Shelf) -> Answer {
    let named = call.params.required(shelf.id_parameter())?;
    let id = id_or_arn(call, shelf, named)?;
    let answer;
    let (dir, files, arn) = {
        let mut state = call.cloud.state();
        let region = state.regions.get_mut(&call.region).ok_or_else(|| shelf.not_found(named))?;
        let snapshot = shelf.of(region).get(&id).ok_or_else(|| shelf.not_found(named))?;
        if snapshot.kind != Kind::Manual {
            let kind = snapshot.kind.name();
            return Err(shelf.state(&id, kind, "delete it: only manual snapshots may be deleted"));
        }
        if !matches!(snapshot.status.as_str(), "available" | "failed" | "copying" | "pending") {
            return Err(shelf.state(&id, &snapshot.status, "delete it"));
        }
        let mut snapshot = shelf.of_mut(region).remove(&id).ok_or_else(|| shelf.not_found(named))?;
        "deleted".clone_into(&mut snapshot.status);
        answer = shelf.result(region, &snapshot);
        shelf.event(region, &id, "deletion", "Deleted manual snapshot");
        (snapshot.dir, snapshot.files, region.arn(shelf.arn_kind(), &id))
    };
    fail_copies_of(&call.cloud, &arn);
    tokio::spawn(async move {
        // Whoever copies the files finishes first.
        let _files = files.write().await;
        machine::remove(dir).await;
    });
    Ok(answer)
}

/// Removes the automated snapshots of an instance or a cluster that is gone.
pub(super) async fn discard_automated(cloud: &Cloud, region: &str, resource_id: &str) {
    let shelf = if ids::is_cluster(resource_id) { Shelf::Clusters } else { Shelf::Instances };
    let gone: Vec<Snapshot> = cloud.region(region, |region| {
        let of_it =
            |snapshot: &Snapshot| snapshot.kind == Kind::Automated && snapshot.resource_id == resource_id;
        let all = shelf.of_mut(region);
        all.extract_if(.., |_, snapshot| of_it(snapshot)).map(|(_, snapshot)| snapshot).collect()
    });
    for snapshot in gone {
        fail_copies_of(cloud, &ids::arn(region, &cloud.account, shelf.arn_kind(), &snapshot.id));
        let _files = snapshot.files.write().await;
        machine::remove(snapshot.dir).await;
    }
}

/// A copy loses its source: it fails, in whichever Region.
fn fail_copies_of(cloud: &Cloud, arn: &str) {
    for region in cloud.state().regions.values_mut() {
        for shelf in [Shelf::Instances, Shelf::Clusters] {
            let mut failed = Vec::new();
            for snapshot in shelf.of_mut(region).values_mut() {
                let from_it = snapshot.source.as_ref().is_some_and(|source| source.arn == arn);
                if from_it && (super::copy::is_under_way(&snapshot.status) || snapshot.status == "creating") {
                    "failed".clone_into(&mut snapshot.status);
                    failed.push(snapshot.id.clone());
                }
            }
            for id in failed {
                shelf.event(region, &id, "failure", "The copy failed: its source was deleted");
            }
        }
    }
}

/// The identifier of a snapshot given by identifier or ARN. An ARN of another Region names nothing here.
pub(super) fn id_or_arn(call: &Call, shelf: Shelf, text: &str) -> Result<String, Fault> {
    match Arn::parse(text) {
        None => Ok(text.to_ascii_lowercase()),
        Some(arn) if arn.kind != shelf.arn_kind() => {
            Err(Fault::value(format!("Invalid snapshot identifier: {text}")))
        }
        Some(arn) if arn.region == call.region && arn.account == call.cloud.account => Ok(arn.name),
        Some(_) => Err(shelf.not_found(text)),
    }
}

/// How many manual snapshots count against the quota.
pub(super) fn number_of(region: &Region, shelf: Shelf) -> usize {
    shelf.of(region).values().filter(|snapshot| snapshot.kind == Kind::Manual).count()
}
