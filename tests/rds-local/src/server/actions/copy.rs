//! `CopyDBSnapshot` and `CopyDBClusterSnapshot`: called in the destination Region with the source as an ARN, or within
//! one Region. Copies of cluster snapshots have other limits and another rule for keys.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::time::Instant;
use uuid::Uuid;

use super::{Call, keys, machine};
use crate::server::cloud::{Cloud, Config, blocking};
use crate::server::fault::{Answer, Fault};
use crate::server::faults::Outcome;
use crate::server::ids::{self, Arn};
use crate::server::model::{Kind, Snapshot, Source};
use crate::server::params::Tag;
use crate::server::shelf::Shelf;

/// Whether a status is one of a copy that is not finished.
pub(super) fn is_under_way(status: &str) -> bool {
    matches!(status, "pending" | "copying")
}

pub(super) async fn copy(call: &Call, shelf: Shelf) -> Answer {
    let params = &call.params;
    let named = params.required(shelf.source_parameter())?;
    let parameter = shelf.target_parameter();
    let target = ids::identifier(parameter, params.required(parameter)?, shelf.longest_id())?;
    let tags = params.tags()?;
    let (source_region, source_id) = match Arn::parse(named) {
        Some(arn) if arn.kind == shelf.arn_kind() => (arn.region, arn.name),
        Some(_) => return Err(Fault::value(format!("Invalid snapshot ARN: {named}"))),
        None => (call.region.clone(), named.to_ascii_lowercase()),
    };
    let crossing = source_region != call.region;
    let original = look_at(call, shelf, &source_region, &source_id, named)?;
    let kms_key = match (params.get("KmsKeyId").filter(|key| !key.is_empty()), &original.kms_key) {
        (Some(_), None) if shelf == Shelf::Clusters => {
            return Err(Fault::combination(
                "KmsKeyId cannot be specified when copying an unencrypted DB cluster snapshot.",
            ));
        }
        (Some(key), _) => Some(keys::resolve(call, key).await?),
        (None, Some(_)) if crossing => {
            let message = "KmsKeyId is required to copy an encrypted snapshot to another Region: a key of the \
                           source Region cannot be used there.";
            return Err(Fault::value(message));
        }
        (None, key) => key.clone(),
    };
    let option_group = match params.text("OptionGroupName") {
        Some(name) => {
            let there = call.cloud.region(&call.region, |region| region.option_groups.contains_key(&name));
            if !there {
                let message = format!("Specified OptionGroupName: {name} not found.");
                return Err(Fault::new("OptionGroupNotFoundFault", 404, message));
            }
            name
        }
        None => original.settings.option_group.clone(),
    };
    let tags = merged_tags(&original, params.flag("CopyTags")?.unwrap_or(false), tags);
    let (quota, slots) = {
        let config = call.cloud.config();
        (shelf.quota(&config), shelf.copy_slots(&config))
    };
    let dir = call.cloud.place(&call.region, "snapshots", &Uuid::new_v4().to_string());
    let source_arn = ids::arn(&source_region, &call.cloud.account, shelf.arn_kind(), &source_id);
    let mut settings = original.settings.clone();
    settings.option_group = option_group;
    settings.kms_key.clone_from(&kms_key);
    settings.zone = call.cloud.region(&call.region, |region| region.default_zone());
    let snapshot = Snapshot {
        id: target.clone(),
        kind: Kind::Manual,
        instance_id: original.instance_id,
        resource_id: original.resource_id,
        status: if crossing { "pending" } else { "creating" }.to_owned(),
        progress: 0,
        settings,
        port: original.port,
        instance_created: original.instance_created,
        created: None,
        original: original.frozen,
        kms_key,
        source: Some(Source { region: source_region, arn: source_arn }),
        tags,
        dir: dir.clone(),
        files: Arc::default(),
    };
    let answer = call.cloud.region(&call.region, |region| {
        if shelf.of(region).contains_key(&target) {
            return Err(shelf.exists(&target));
        }
        if super::snapshots::number_of(region, shelf) >= quota {
            return Err(Fault::snapshot_quota(quota));
        }
        let under_way = shelf.of(region).values().filter(|snapshot| is_under_way(&snapshot.status)).count();
        if crossing && under_way >= slots {
            return Err(Fault::copy_slots(slots));
        }
        let answer = shelf.result(region, &snapshot);
        shelf.of_mut(region).insert(target.clone(), snapshot);
        shelf.event(region, &target, "creation", "Started copy of the snapshot");
        Ok(answer)
    })?;
    let task = Copying {
        shelf,
        cloud: Arc::clone(&call.cloud),
        region: call.region.clone(),
        id: target,
        dir,
        from: original.dir,
        files: original.files,
        engine: (original.engine, original.version),
        fails: call.outcome == Some(Outcome::CopyFails),
    };
    tokio::spawn(task.run(crossing));
    Ok(answer)
}

/// What a copy takes over from its source.
struct Original {
    instance_id: String,
    resource_id: String,
    settings: crate::server::model::Settings,
    engine: String,
    version: String,
    port: u16,
    instance_created: Option<Timestamp>,
    frozen: Option<Timestamp>,
    kms_key: Option<String>,
    tags: Vec<Tag>,
    dir: std::path::PathBuf,
    files: Arc<tokio::sync::RwLock<()>>,
}

fn look_at(call: &Call, shelf: Shelf, region: &str, id: &str, named: &str) -> Result<Original, Fault> {
    call.cloud.region(region, |region| {
        let snapshot = shelf.of(region).get(id).ok_or_else(|| shelf.not_found(named))?;
        if snapshot.status != "available" {
            return Err(shelf.state(id, &snapshot.status, "copy it"));
        }
        Ok(Original {
            instance_id: snapshot.instance_id.clone(),
            resource_id: snapshot.resource_id.clone(),
            settings: snapshot.settings.clone(),
            engine: snapshot.settings.engine.clone(),
            version: snapshot.settings.version.clone(),
            port: snapshot.port,
            instance_created: snapshot.instance_created,
            frozen: snapshot.original,
            kms_key: snapshot.kms_key.clone(),
            tags: snapshot.tags.clone(),
            dir: snapshot.dir.clone(),
            files: Arc::clone(&snapshot.files),
        })
    })
}

/// The source's tags where they are wanted, with those of the request over them.
fn merged_tags(original: &Original, copy_tags: bool, own: Option<Vec<Tag>>) -> Vec<Tag> {
    let own = own.unwrap_or_default();
    let mut tags: Vec<Tag> = Vec::new();
    if copy_tags {
        let kept = |tag: &&Tag| !tag.key.starts_with("aws:") && own.iter().all(|mine| mine.key != tag.key);
        tags.extend(original.tags.iter().filter(kept).cloned());
    }
    tags.extend(own);
    tags
}

/// The task that copies.
struct Copying {
    shelf: Shelf,
    cloud: Arc<Cloud>,
    region: String,
    id: String,
    dir: std::path::PathBuf,
    from: std::path::PathBuf,
    files: Arc<tokio::sync::RwLock<()>>,
    engine: (String, String),
    fails: bool,
}

impl Copying {
    async fn run(self, crossing: bool) {
        let begun = Instant::now();
        let work = tokio::spawn(copy_files(
            Arc::clone(&self.cloud),
            Arc::clone(&self.files),
            self.engine.clone(),
            self.from.clone(),
            self.dir.clone(),
        ));
        if !self.progress(begun, crossing).await {
            // Deleted, or its source was: what has been written goes away when the writing has ended.
            let _ = work.await;
            machine::remove(self.dir).await;
            return;
        }
        let result = match work.await {
            Ok(result) => result,
            Err(error) => Err(error.to_string()),
        };
        let result = if self.fails { Err("ordered to fail".to_owned()) } else { result };
        let fine = result.is_ok();
        let there = self.cloud.update_snapshot(&self.region, &self.dir, |snapshot| {
            if fine && (is_under_way(&snapshot.status) || snapshot.status == "creating") {
                "available".clone_into(&mut snapshot.status);
                snapshot.progress = 100;
                snapshot.created = Some(Timestamp::now());
            } else {
                "failed".clone_into(&mut snapshot.status);
            }
        });
        let (category, message) = match &result {
            Ok(()) => ("creation", "Finished copy of the snapshot".to_owned()),
            Err(error) => ("failure", format!("The copy of the snapshot failed: {error}")),
        };
        self.cloud.region(&self.region, |region| self.shelf.event(region, &self.id, category, message));
        if !there || !fine {
            machine::remove(self.dir).await;
        }
    }

    /// Shows `pending`, then `copying` with growing progress. False when the copy is no longer wanted. One ordered
    /// to fail stops half way.
    async fn progress(&self, begun: Instant, crossing: bool) -> bool {
        for percent in (1..100).step_by(3) {
            self.cloud.wait_for(begun, percent, Config::copy_time).await;
            let mut wanted = false;
            self.cloud.update_snapshot(&self.region, &self.dir, |snapshot| {
                wanted = snapshot.status != "failed";
                if wanted {
                    if crossing && percent >= 10 {
                        "copying".clone_into(&mut snapshot.status);
                    }
                    snapshot.progress = percent;
                }
            });
            if !wanted {
                return false;
            }
            if self.fails && percent >= 50 {
                break;
            }
        }
        true
    }
}

async fn copy_files(
    cloud: Arc<Cloud>,
    files: Arc<tokio::sync::RwLock<()>>,
    (engine, version): (String, String),
    from: std::path::PathBuf,
    to: std::path::PathBuf,
) -> Result<(), String> {
    let engine = cloud.engine(&engine).map_err(|fault| fault.message)?;
    let held = files.read_owned().await;
    let copied = blocking(move || engine.copy(&version, &from, &to)).await;
    drop(held);
    copied
}
