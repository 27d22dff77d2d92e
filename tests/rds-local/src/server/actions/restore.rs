//! `RestoreDBInstanceFromDBSnapshot`, from an instance's snapshot or a Multi-AZ DB cluster's: a real server from a copy of the snapshot's files. It recovers from WAL, and
//! keeps the roles and passwords that the files hold.

use super::create::{NewInstance, admit, check_retention, group_name, insert};
use super::{Call, snapshots};
use crate::server::cloud::blocking;
use crate::server::engine::is_aurora;
use crate::server::fault::{Answer, Fault};
use crate::server::ids;
use crate::server::model::Settings;
use crate::server::shelf::Shelf;

pub(super) async fn restore(call: &Call) -> Answer {
    let params = &call.params;
    let id = ids::instance("DBInstanceIdentifier", params.required("DBInstanceIdentifier")?)?;
    let shelf = match (params.get("DBSnapshotIdentifier"), params.get("DBClusterSnapshotIdentifier")) {
        (Some(_), Some(_)) => {
            return Err(Fault::combination("DBClusterSnapshotIdentifier excludes DBSnapshotIdentifier."));
        }
        (None, Some(_)) => Shelf::Clusters,
        _ => Shelf::Instances,
    };
    let named = params.required(shelf.id_parameter())?;
    let snapshot_id = snapshots::id_or_arn(call, shelf, named)?;
    let tags = params.tags()?.unwrap_or_default();
    if params.flag("ManageMasterUserPassword")?.unwrap_or(false) {
        // AWS offers it on a restore for Oracle with tenants only.
        return Err(Fault::combination(
            "ManageMasterUserPassword cannot be used when restoring this engine.",
        ));
    }
    let (source, dir, files) = call.cloud.region(&call.region, |region| {
        let snapshot = shelf.of(region).get(&snapshot_id).ok_or_else(|| shelf.not_found(named))?;
        if snapshot.status != "available" {
            return Err(shelf.state(&snapshot.id, &snapshot.status, "restore from it"));
        }
        if is_aurora(&snapshot.settings.engine) {
            return Err(Fault::combination(
                "DBClusterSnapshotIdentifier can't be the identifier of an Aurora DB cluster snapshot.",
            ));
        }
        let mut settings = snapshot.settings.clone();
        settings.kms_key.clone_from(&snapshot.kms_key);
        Ok((settings, snapshot.dir.clone(), std::sync::Arc::clone(&snapshot.files)))
    })?;
    let settings = overridden(call, source)?;
    admit(call, &id, &settings)?;
    // The files are held from here on: a snapshot that is deleted now goes away after the copy.
    let held = files.read_owned().await;
    insert(call, NewInstance { id, settings, tags, secret: None }, async move |engine, version, to| {
        let copied = blocking(move || engine.copy(&version, &dir, &to)).await;
        drop(held);
        copied
    })
}

/// The snapshot's settings with those of the request over them. Groups, security groups and flags of the source do
/// not come along: as on AWS a restore that names none gets the defaults.
fn overridden(call: &Call, source: Settings) -> Result<Settings, Fault> {
    let params = &call.params;
    if let Some(engine) = params.get("Engine").filter(|engine| *engine != source.engine) {
        return Err(Fault::combination(format!(
            "A snapshot of {} cannot be restored to {engine}.",
            source.engine
        )));
    }
    let class = params.text("DBInstanceClass").unwrap_or_else(|| source.class.clone());
    if !ids::is_class(&class) {
        return Err(Fault::value(format!("Invalid DB Instance class: {class}")));
    }
    let storage = params.number("AllocatedStorage")?.unwrap_or(source.allocated_storage);
    if storage < source.allocated_storage {
        let message =
            format!("AllocatedStorage {storage} is less than the snapshot's {}.", source.allocated_storage);
        return Err(Fault::combination(message));
    }
    let retention = params.number("BackupRetentionPeriod")?.unwrap_or(source.backup_retention);
    check_retention(retention)?;
    let (zone, security_group) =
        call.cloud.region(&call.region, |region| (region.default_zone(), region.default_security_group()));
    let family = crate::server::engine::family(&source.engine, &source.version);
    Ok(Settings {
        class,
        allocated_storage: storage,
        max_allocated_storage: None,
        storage_type: params.text("StorageType").unwrap_or_else(|| source.storage_type.clone()),
        iops: params.number("Iops")?.or(source.iops),
        option_group: params.text("OptionGroupName").unwrap_or_else(|| source.option_group.clone()),
        parameter_group: group_name(params.get("DBParameterGroupName"))
            .unwrap_or(format!("default.{family}")),
        subnet_group: group_name(params.get("DBSubnetGroupName")).unwrap_or_else(|| "default".to_owned()),
        security_groups: params.list("VpcSecurityGroupIds").unwrap_or_else(|| vec![security_group]),
        zone: params.text("AvailabilityZone").unwrap_or(zone),
        multi_az: params.flag("MultiAZ")?.unwrap_or(false),
        public: params.flag("PubliclyAccessible")?.unwrap_or(false),
        iam_authentication: params.flag("EnableIAMDatabaseAuthentication")?.unwrap_or(false),
        deletion_protection: params.flag("DeletionProtection")?.unwrap_or(false),
        copy_tags_to_snapshot: params.flag("CopyTagsToSnapshot")?.unwrap_or(false),
        auto_minor_upgrade: params.flag("AutoMinorVersionUpgrade")?.unwrap_or(true),
        backup_retention: retention,
        backup_window: params.text("PreferredBackupWindow").unwrap_or_else(|| source.backup_window.clone()),
        ca: params.text("CACertificateIdentifier").unwrap_or_else(|| source.ca.clone()),
        monitoring_interval: 0,
        ..source
    })
}
