//! `CreateDBInstance`, and what it shares with restores: the way from `creating` to `available`.

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::json;
use tokio::time::Instant;
use uuid::Uuid;

use super::{Call, keys, machine};
use crate::host::MasterUser;
use crate::server::cloud::{Cloud, Config, blocking};
use crate::server::engine::{self, Engine};
use crate::server::fault::{Answer, Fault};
use crate::server::faults::Outcome;
use crate::server::ids;
use crate::server::model::{Instance, Machine, MasterSecret, Pending, Region, Settings};
use crate::server::params::Tag;
use crate::server::render;

/// Smallest storage of a PostgreSQL instance, in GiB.
const SMALLEST_STORAGE: u32 = 20;

/// Creates an instance: a cluster by initdb with RDS's roles, started behind an endpoint.
pub(super) async fn create(call: &Call) -> Answer {
    let params = &call.params;
    if let Some(cluster) = params.get("DBClusterIdentifier").filter(|text| !text.is_empty()) {
        return super::clusters::create_member(call, cluster);
    }
    let id = ids::instance("DBInstanceIdentifier", params.required("DBInstanceIdentifier")?)?;
    let settings = settings(call).await?;
    let tags = params.tags()?.unwrap_or_default();
    let managed = params.flag("ManageMasterUserPassword")?.unwrap_or(false);
    let password = match (managed, params.text("MasterUserPassword")) {
        (true, Some(_)) => {
            let message = "You can't specify MasterUserPassword when ManageMasterUserPassword is enabled.";
            return Err(Fault::combination(message));
        }
        (true, None) => new_password(),
        (false, Some(password)) => password,
        (false, None) => return Err(Fault::missing("MasterUserPassword")),
    };
    ids::password(&password)?;
    admit(call, &id, &settings)?;
    let secret = if managed { Some(keep_password(call, &settings, &password).await?) } else { None };
    let master =
        MasterUser { name: settings.master_username.clone(), password, database: settings.database.clone() };
    let checksums = call.cloud.config().initdb_checksums;
    let fill =
        move |engine: &dyn Engine, version: &str, dir: &Path| engine.create(version, dir, checksums, master);
    insert(call, NewInstance { id, settings, tags, secret }, async move |engine, version, dir| {
        blocking(move || fill(&*engine, &version, &dir)).await
    })
}

/// An instance that is about to come into being.
pub(super) struct NewInstance {
    pub(super) id: String,
    pub(super) settings: Settings,
    pub(super) tags: Vec<Tag>,
    pub(super) secret: Option<MasterSecret>,
}

/// Refuses a name that is taken, groups that are not there, and an instance too many.
pub(super) fn admit(call: &Call, id: &str, settings: &Settings) -> Result<(), Fault> {
    let quota = call.cloud.config().instance_quota;
    call.cloud.region(&call.region, |region| {
        if region.instances.contains_key(id) {
            return Err(Fault::instance_exists());
        }
        check_groups(region, settings, false)?;
        if region.instances.len() >= quota {
            return Err(Fault::instance_quota());
        }
        Ok(())
    })
}

/// Every group named in the settings, of an instance or of a cluster, exists and fits.
pub(super) fn check_groups(region: &Region, settings: &Settings, cluster: bool) -> Result<(), Fault> {
    if !region.subnet_groups.contains_key(&settings.subnet_group) {
        let message = format!("DB subnet group '{}' does not exist.", settings.subnet_group);
        return Err(Fault::new("DBSubnetGroupNotFoundFault", 404, message));
    }
    let (groups, kind, code) = if cluster {
        (&region.cluster_parameter_groups, "DBClusterParameterGroup", "DBClusterParameterGroupNotFound")
    } else {
        (&region.parameter_groups, "DBParameterGroup", "DBParameterGroupNotFound")
    };
    let Some(group) = groups.get(&settings.parameter_group) else {
        return Err(Fault::new(code, 404, format!("{kind} not found: {}", settings.parameter_group)));
    };
    let family = engine::family(&settings.engine, &settings.version);
    if group.family != family {
        return Err(Fault::combination(format!(
            "The parameter group {} is of family {} and cannot be used for this instance, which needs {family}.",
            group.name, group.family
        )));
    }
    if !region.option_groups.contains_key(&settings.option_group) {
        let message = format!("Specified OptionGroupName: {} not found.", settings.option_group);
        return Err(Fault::new("OptionGroupNotFoundFault", 404, message));
    }
    Ok(())
}

/// Puts the instance into its Region as `creating` and leaves the work to a task: `fill` makes the files, then the
/// server starts. Answers with the instance as it is now.
pub(super) fn insert<F, W>(call: &Call, new: NewInstance, fill: F) -> Answer
where
    F: FnOnce(Arc<dyn Engine>, String, std::path::PathBuf) -> W + Send + 'static,
    W: Future<Output = Result<(), String>> + Send,
{
    let engine = call.cloud.engine(&new.settings.engine)?;
    let resource_id = ids::resource_id();
    let dir = call.cloud.place(&call.region, "instances", &resource_id);
    let quota = call.cloud.config().instance_quota;
    let machine = Arc::default();
    let mut instance = Instance {
        id: new.id.clone(),
        resource_id: resource_id.clone(),
        status: "creating".to_owned(),
        epoch: 0,
        settings: new.settings.clone(),
        pending: Pending::default(),
        standby_zone: None,
        restarts: None,
        cluster: None,
        secret: new.secret,
        tags: new.tags,
        created: None,
        port: None,
        dir: dir.clone(),
        machine: Arc::clone(&machine),
    };
    // Looked at again: other requests may have come between the first look and now.
    let answer = call.cloud.region(&call.region, |region| {
        if region.instances.contains_key(&new.id) {
            return Err(Fault::instance_exists());
        }
        if region.instances.len() >= quota {
            return Err(Fault::instance_quota());
        }
        instance.standby_zone = region.standby_zone(&instance.settings);
        let answer = render::instance_result(region, &instance);
        region.instances.insert(new.id.clone(), instance);
        Ok(answer)
    })?;
    if call.outcome == Some(Outcome::NeverAvailable) {
        return Ok(answer);
    }
    let birth = Birth {
        cloud: Arc::clone(&call.cloud),
        region: call.region.clone(),
        resource_id,
        machine,
        settings: new.settings.clone(),
        dir: dir.clone(),
        opens: true,
        begun: Instant::now(),
    };
    if call.outcome == Some(Outcome::IncompatibleNetwork) {
        tokio::spawn(birth.end_in("incompatible-network"));
        return Ok(answer);
    }
    tokio::spawn(async move {
        let filled = async move |dir| fill(engine, new.settings.version, dir).await;
        birth.run(filled).await;
    });
    Ok(answer)
}

/// The task that brings an instance or a cluster to life.
pub(super) struct Birth {
    pub(super) cloud: Arc<Cloud>,
    pub(super) region: String,
    pub(super) resource_id: String,
    pub(super) machine: Arc<tokio::sync::Mutex<Machine>>,
    pub(super) settings: Settings,
    pub(super) dir: std::path::PathBuf,
    /// Whether connections are let in; not to an Aurora cluster, before it has a member.
    pub(super) opens: bool,
    pub(super) begun: Instant,
}

impl Birth {
    pub(super) async fn run(self, fill: impl AsyncFnOnce(std::path::PathBuf) -> Result<(), String>) {
        let mut machine = self.machine.lock().await;
        let work = async {
            if machine.condemned {
                return Err("it is being deleted".to_owned());
            }
            fill(self.dir.clone()).await?;
            if self.opens {
                machine::bring_up(&self.cloud, &mut machine, &self.settings, self.dir.clone()).await
            } else {
                machine::bring_up_closed(&self.cloud, &mut machine, &self.settings, self.dir.clone()).await
            }
        };
        let result = work.await;
        drop(machine);
        match result {
            Ok(port) => {
                self.rest().await;
                self.cloud.update_instance(&self.region, &self.resource_id, 0, |instance| {
                    "available".clone_into(&mut instance.status);
                    instance.port = Some(port);
                    instance.created = Some(Timestamp::now());
                });
                let what = if ids::is_cluster(&self.resource_id) { "cluster" } else { "instance" };
                self.note("creation", &format!("DB {what} created"));
            }
            Err(error) => {
                tracing::error!(
                    region = self.region,
                    resource = self.resource_id,
                    error,
                    "an instance failed to start"
                );
                let why = format!("DB instance could not be created: {error}");
                self.cloud.update_instance(&self.region, &self.resource_id, 0, |instance| {
                    "failed".clone_into(&mut instance.status);
                });
                self.note("failure", &why);
            }
        }
    }

    pub(super) async fn end_in(self, status: &'static str) {
        self.rest().await;
        self.cloud.update_instance(&self.region, &self.resource_id, 0, |instance| {
            status.clone_into(&mut instance.status);
        });
        self.note("failure", &format!("The DB instance is in a state that cannot be used: {status}"));
    }

    /// What is left of the time that a status lasts.
    async fn rest(&self) {
        self.cloud.wait_for(self.begun, 100, Config::status_time).await;
    }

    fn note(&self, category: &'static str, message: &str) {
        self.cloud.region(&self.region, |region| region.resource_event(&self.resource_id, category, message));
    }
}

/// The settings of a new instance, checked.
async fn settings(call: &Call) -> Result<Settings, Fault> {
    let params = &call.params;
    let engine = call.cloud.engine(params.required("Engine")?)?;
    if engine::is_aurora(engine.name()) {
        return Err(Fault::combination("An Aurora instance is made in a cluster: give DBClusterIdentifier."));
    }
    let class = params.required("DBInstanceClass")?.to_owned();
    if !ids::is_class(&class) {
        return Err(Fault::value(format!("Invalid DB Instance class: {class}")));
    }
    let version = choose_version(&*engine, params.get("EngineVersion"))?;
    let master_username = params.required("MasterUsername")?.to_owned();
    check_master(&master_username)?;
    let storage = params.number("AllocatedStorage")?.ok_or_else(|| Fault::missing("AllocatedStorage"))?;
    if storage < SMALLEST_STORAGE {
        let message =
            format!("Invalid storage size for engine name {} and storage type gp2: {storage}", engine.name());
        return Err(Fault::combination(message));
    }
    let retention = params.number("BackupRetentionPeriod")?.unwrap_or(1);
    check_retention(retention)?;
    let encrypted = params.flag("StorageEncrypted")?.unwrap_or(false);
    let kms_key = match (encrypted, params.get("KmsKeyId")) {
        (true, Some(key)) => Some(keys::resolve(call, key).await?),
        (true, None) => Some(keys::managed(call)),
        (false, Some(_)) => {
            return Err(Fault::combination("KmsKeyId is given, but StorageEncrypted is not enabled."));
        }
        (false, None) => None,
    };
    let family = engine::family(engine.name(), &version);
    let option_group = engine::option_group(engine.name(), &version);
    let (zone, security_group) =
        call.cloud.region(&call.region, |region| (region.default_zone(), region.default_security_group()));
    Ok(Settings {
        engine: engine.name().to_owned(),
        version,
        class,
        master_username,
        database: params.text("DBName").filter(|name| !name.is_empty()),
        allocated_storage: storage,
        max_allocated_storage: params.number("MaxAllocatedStorage")?,
        storage_type: params.text("StorageType").unwrap_or_else(|| "gp2".to_owned()),
        iops: params.number("Iops")?,
        kms_key,
        option_group: params.text("OptionGroupName").unwrap_or(option_group),
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
        backup_window: params.text("PreferredBackupWindow").unwrap_or_else(|| "03:00-03:30".to_owned()),
        maintenance_window: params
            .text("PreferredMaintenanceWindow")
            .unwrap_or_else(|| "sun:04:00-sun:04:30".to_owned()),
        ca: params.text("CACertificateIdentifier").unwrap_or_else(|| "rds-ca-rsa2048-g1".to_owned()),
        monitoring_interval: params.number("MonitoringInterval")?.unwrap_or(0),
    })
}

/// Group names are kept in lower case.
pub(super) fn group_name(name: Option<&str>) -> Option<String> {
    name.filter(|name| !name.is_empty()).map(str::to_ascii_lowercase)
}

/// 0 to 35 days.
pub(super) fn check_retention(days: u32) -> Result<(), Fault> {
    if days > 35 {
        return Err(Fault::value(format!(
            "Invalid backup retention period: {days}. Must be between 0 and 35."
        )));
    }
    Ok(())
}

/// The version asked for, in full or by its major number; the newest one by default.
pub(super) fn choose_version(engine: &dyn Engine, wanted: Option<&str>) -> Result<String, Fault> {
    let versions = engine.versions();
    let chosen = match wanted.filter(|text| !text.is_empty()) {
        None => versions.last(),
        Some(text) => {
            versions.iter().find(|version| *version == text || engine::major(engine.name(), version) == text)
        }
    };
    chosen.cloned().ok_or_else(|| {
        let message = format!("Cannot find version {} for {}", wanted.unwrap_or("(any)"), engine.name());
        Fault::combination(message)
    })
}

pub(super) fn check_master(name: &str) -> Result<(), Fault> {
    const RESERVED: [&str; 6] = ["rdsadmin", "rds_superuser", "admin", "postgres_exporter", "public", "none"];
    let shaped = name.len() <= 63
        && name.chars().next().is_some_and(|first| first.is_ascii_alphabetic())
        && name.chars().all(|char| char.is_ascii_alphanumeric() || char == '_');
    if !shaped {
        return Err(Fault::value(format!(
            "MasterUsername {name} is not valid: letters, digits and _ after a letter"
        )));
    }
    if RESERVED.contains(&name.to_ascii_lowercase().as_str()) || name.to_ascii_lowercase().starts_with("pg_")
    {
        let message =
            format!("MasterUsername {name} cannot be used as it is a reserved word used by the engine");
        return Err(Fault::value(message));
    }
    Ok(())
}

/// A random password of 32 letters and digits.
pub(super) fn new_password() -> String {
    Uuid::new_v4().simple().to_string()
}

/// Puts a new master password into Secrets Manager.
pub(super) async fn keep_password(
    call: &Call,
    settings: &Settings,
    password: &str,
) -> Result<MasterSecret, Fault> {
    let Some(aws) = &call.cloud.aws else {
        return Err(Fault::internal(
            "ManageMasterUserPassword needs Secrets Manager: start with --aws-endpoint",
        ));
    };
    let kms_key = match call.params.get("MasterUserSecretKmsKeyId") {
        Some(key) => Some(keys::resolve(call, key).await?),
        None => None,
    };
    let name = format!("rds!db-{}", Uuid::new_v4());
    let content = secret_content(&settings.master_username, password);
    let arn = aws.create_secret(&call.region, &name, kms_key.as_deref(), &content).await?;
    Ok(MasterSecret { arn, kms_key })
}

/// What RDS writes into such a secret.
pub(super) fn secret_content(username: &str, password: &str) -> serde_json::Value {
    json!({"username": username, "password": password})
}
