//! `ModifyDBInstance`: the master password is really changed; settings take effect now or wait.

use std::sync::Arc;

use super::Call;
use super::create::{check_groups, check_retention, group_name, new_password, secret_content};
use super::lifecycle::{Task, begin};
use crate::server::cloud::{Cloud, Config, blocking};
use crate::server::fault::{Answer, Fault};
use crate::server::ids;
use crate::server::model::{Instance, Pending, Settings};
use crate::server::render;

pub(super) async fn modify(call: &Call) -> Answer {
    let params = &call.params;
    let id = params.required("DBInstanceIdentifier")?.to_ascii_lowercase();
    let at_once = params.flag("ApplyImmediately")?.unwrap_or(false);
    let mut password = params.text("MasterUserPassword");
    if let Some(password) = &password {
        ids::password(password)?;
    }
    let rotate = params.flag("RotateMasterUserPassword")?.unwrap_or(false);
    if params.flag("ManageMasterUserPassword")?.is_some() {
        return Err(Fault::combination(
            "ManageMasterUserPassword cannot be changed here: give it when creating.",
        ));
    }
    let secret = call.cloud.region(&call.region, |region| {
        let instance = region.instances.get(&id).ok_or_else(|| Fault::instance_not_found(&id))?;
        allowed(instance)?;
        if instance.cluster.is_some() && (password.is_some() || rotate) {
            return Err(Fault::combination(
                "The master password is set for the cluster: use ModifyDBCluster.",
            ));
        }
        match (&instance.secret, rotate) {
            (Some(secret), true) if at_once => {
                Ok(Some((secret.arn.clone(), instance.settings.master_username.clone())))
            }
            (Some(_), true) => Err(Fault::combination("RotateMasterUserPassword needs ApplyImmediately.")),
            (None, true) => Err(Fault::combination("The master password of this instance is not managed.")),
            (Some(_), false) if password.is_some() => Err(Fault::combination(
                "You can't specify MasterUserPassword for an instance with ManageMasterUserPassword enabled.",
            )),
            _ => Ok(None),
        }
    })?;
    if let (Some((arn, username)), Some(aws)) = (secret, &call.cloud.aws) {
        let new = new_password();
        aws.put_secret(&call.region, &arn, &secret_content(&username, &new)).await?;
        password = Some(new);
    }
    let wanted = Wanted::read(call)?;
    let (settings, pending) = call.cloud.region(&call.region, |region| {
        let instance = region.instances.get(&id).ok_or_else(|| Fault::instance_not_found(&id))?;
        allowed(instance)?;
        let mut settings = instance.settings.clone();
        let mut pending = instance.pending.clone();
        wanted.apply(&mut settings, &mut pending)?;
        check_groups(region, &settings, false)?;
        if let Some(new) = pending.identifier.as_ref().filter(|new| region.instances.contains_key(*new)) {
            tracing::debug!(new, "the new name is taken");
            return Err(Fault::instance_exists());
        }
        Ok((settings, pending))
    })?;
    let waiting = Pending { password: false, ..pending.clone() } != Pending::default();
    let change = at_once && waiting;
    call.cloud.region(&call.region, |region| {
        if let Some(instance) = region.instances.get_mut(&id) {
            instance.settings = settings;
            instance.pending = pending;
            instance.pending.password |= password.is_some();
        }
    });
    if password.is_none() && !change {
        return call.cloud.region(&call.region, |region| {
            let instance = region.instances.get(&id).ok_or_else(|| Fault::instance_not_found(&id))?;
            Ok(render::instance_result(region, instance))
        });
    }
    // As on AWS the instance still says `available` for a moment, with the change shown as pending.
    let (answer, task) = begin(call, &id, "available", |_| Ok(()))?;
    tokio::spawn(carry_out(task, password, change));
    Ok(answer)
}

fn allowed(instance: &Instance) -> Result<(), Fault> {
    match instance.status.as_str() {
        "available" | "backing-up" | "storage-optimization" => Ok(()),
        status => Err(Fault::instance_state(&instance.id, status, "modify it")),
    }
}

/// Waits a moment, then shows each change's status while it is made.
pub(super) async fn carry_out(mut task: Task, password: Option<String>, change: bool) {
    task.cloud.wait_for(task.begun, 25, Config::status_time).await;
    if let Some(password) = password {
        // A snapshot or another change may have overtaken this one: then only the status is theirs.
        show(&task, "resetting-master-credentials");
        let worked = set_password(&task, password).await;
        task.rest().await;
        task.cloud.region(&task.region, |region| {
            if let Some(instance) = region.instance_by_resource(&task.resource_id) {
                instance.pending.password = false;
            }
        });
        let failed = worked.is_err();
        task.end(worked, "available", "configuration change", "Reset master credentials").await;
        if failed {
            return;
        }
    }
    if change {
        task.begun = tokio::time::Instant::now();
        if !show(&task, "modifying") {
            return;
        }
        task.rest().await;
        rename_and_settle(&task);
        task.end(
            Ok(()),
            "available",
            "configuration change",
            "Finished applying modification to the DB instance",
        )
        .await;
    }
}

fn show(task: &Task, status: &str) -> bool {
    task.cloud.update_instance(&task.region, &task.resource_id, task.epoch, |instance| {
        status.clone_into(&mut instance.status);
    })
}

async fn set_password(task: &Task, password: String) -> Result<(), String> {
    let mut machine = Arc::clone(&task.machine).lock_owned().await;
    let role = task.settings.master_username.clone();
    blocking(move || match machine.server.as_mut() {
        Some(server) => server.set_password(&role, &password),
        // Deleted meanwhile.
        None => Ok(()),
    })
    .await
}

/// Makes what is pending the present.
fn rename_and_settle(task: &Task) {
    let cloud: &Arc<Cloud> = &task.cloud;
    cloud.region(&task.region, |region| {
        let Some(instance) = region.instance_by_resource(&task.resource_id) else { return };
        if instance.epoch != task.epoch {
            return;
        }
        let pending = std::mem::take(&mut instance.pending);
        let settings = &mut instance.settings;
        settings.class = pending.class.unwrap_or_else(|| settings.class.clone());
        settings.allocated_storage = pending.allocated_storage.unwrap_or(settings.allocated_storage);
        settings.storage_type = pending.storage_type.unwrap_or_else(|| settings.storage_type.clone());
        settings.iops = pending.iops.or(settings.iops);
        settings.multi_az = pending.multi_az.unwrap_or(settings.multi_az);
        let converted = pending.multi_az.map(|_| settings.clone());
        if let Some(new) = pending.identifier {
            let old = instance.id.clone();
            if let Some(mut instance) = region.instances.remove(&old) {
                instance.id.clone_from(&new);
                let members = region.clusters.values_mut().flat_map(|cluster| &mut cluster.members);
                members.filter(|member| **member == old).for_each(|member| member.clone_from(&new));
                region.instances.insert(new, instance);
            }
        }
        if let Some(settings) = converted {
            let standby = region.standby_zone(&settings);
            if let Some(instance) = region.instance_by_resource(&task.resource_id) {
                instance.standby_zone = standby;
            }
        }
    });
}

/// The changes that a request asks for.
struct Wanted<'a> {
    call: &'a Call,
    retention: Option<u32>,
    storage: Option<u32>,
    class: Option<String>,
    identifier: Option<String>,
}

impl<'a> Wanted<'a> {
    fn read(call: &'a Call) -> Result<Self, Fault> {
        let params = &call.params;
        let retention = params.number("BackupRetentionPeriod")?;
        retention.map_or(Ok(()), check_retention)?;
        let class = params.text("DBInstanceClass");
        if let Some(class) = class.as_ref().filter(|class| !ids::is_class(class)) {
            return Err(Fault::value(format!("Invalid DB Instance class: {class}")));
        }
        let identifier = params.get("NewDBInstanceIdentifier");
        let identifier = identifier.map(|text| ids::instance("NewDBInstanceIdentifier", text)).transpose()?;
        Ok(Self { call, retention, storage: params.number("AllocatedStorage")?, class, identifier })
    }

    /// Changes that AWS makes at once in any case go to `settings`, the others to `pending`.
    fn apply(&self, settings: &mut Settings, pending: &mut Pending) -> Result<(), Fault> {
        let params = &self.call.params;
        if let Some(version) = params.get("EngineVersion").filter(|version| *version != settings.version) {
            let message =
                format!("Cannot upgrade {} from {} to {version}", settings.engine, settings.version);
            return Err(Fault::combination(message));
        }
        if let Some(storage) = self.storage.filter(|storage| *storage != settings.allocated_storage) {
            if storage < settings.allocated_storage {
                return Err(Fault::combination(
                    "Requested storage size is less than the present one; it can only grow.",
                ));
            }
            pending.allocated_storage = Some(storage);
        }
        let changed = |new: Option<String>, old: &str| new.filter(|new| new != old);
        pending.class = changed(self.class.clone(), &settings.class).or(pending.class.take());
        pending.storage_type =
            changed(params.text("StorageType"), &settings.storage_type).or(pending.storage_type.take());
        pending.iops = params.number("Iops")?.filter(|iops| Some(*iops) != settings.iops).or(pending.iops);
        pending.multi_az =
            params.flag("MultiAZ")?.filter(|flag| *flag != settings.multi_az).or(pending.multi_az);
        pending.identifier = self.identifier.clone().or(pending.identifier.take());

        let set_flag = |target: &mut bool, name: &str| -> Result<(), Fault> {
            *target = params.flag(name)?.unwrap_or(*target);
            Ok(())
        };
        set_flag(&mut settings.deletion_protection, "DeletionProtection")?;
        set_flag(&mut settings.copy_tags_to_snapshot, "CopyTagsToSnapshot")?;
        set_flag(&mut settings.iam_authentication, "EnableIAMDatabaseAuthentication")?;
        set_flag(&mut settings.public, "PubliclyAccessible")?;
        set_flag(&mut settings.auto_minor_upgrade, "AutoMinorVersionUpgrade")?;
        let set_text = |target: &mut String, new: Option<String>| {
            if let Some(new) = new.filter(|new| !new.is_empty()) {
                *target = new;
            }
        };
        set_text(&mut settings.backup_window, params.text("PreferredBackupWindow"));
        set_text(&mut settings.maintenance_window, params.text("PreferredMaintenanceWindow"));
        set_text(&mut settings.ca, params.text("CACertificateIdentifier"));
        set_text(&mut settings.option_group, params.text("OptionGroupName"));
        set_text(&mut settings.parameter_group, group_name(params.get("DBParameterGroupName")));
        set_text(&mut settings.subnet_group, group_name(params.get("DBSubnetGroupName")));
        settings.backup_retention = self.retention.unwrap_or(settings.backup_retention);
        settings.max_allocated_storage =
            params.number("MaxAllocatedStorage")?.or(settings.max_allocated_storage);
        settings.monitoring_interval =
            params.number("MonitoringInterval")?.unwrap_or(settings.monitoring_interval);
        settings.security_groups =
            params.list("VpcSecurityGroupIds").unwrap_or_else(|| settings.security_groups.clone());
        Ok(())
    }
}
