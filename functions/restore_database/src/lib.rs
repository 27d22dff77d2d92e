//! Restores a snapshot into a temporary instance, or for Aurora a cluster with one instance in it, gives it a fresh
//! password, and disposes of it.
//!
//! The secret with the password is written down before the instance is asked for, and deleted after it is gone: a
//! crash at any point leaves something that `dispose` finds by the operation's id. Instances and clusters that carry no
//! lease of the operation are never used and never deleted.

use dr_aws::clients::Clients;
use dr_aws::metrics;
use dr_aws::rds::{Deletion, Rds, RestoreStart};
use dr_aws::secrets::{Credentials, SecretStart, Secrets, fresh_password};
use dr_core::config::{self, Vars};
use dr_core::ids::{DatabaseId, OperationId, SnapshotId};
use dr_core::observed::{DatabaseFacts, DatabaseKind, Endpoint, Observed, Tags};
use dr_core::plan::TemporaryTarget;
use dr_core::polling::{Earlier, Step, Took};
use dr_core::restore::{self, CheckStep, DisposeStep, RestoreSettings, Seen, Source, StartStep};
use dr_core::{DrError, ErrorClass, ErrorName, Leftovers, Result};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// The function's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where and as what temporary instances are made.
    pub settings: RestoreSettings,
}

impl Config {
    /// Reads `DR_RESTORE_SUBNET_GROUP`, `DR_RESTORE_SECURITY_GROUP_IDS`, `DR_RESTORE_INSTANCE_CLASS` (the source's
    /// when absent) and `DR_RESTORE_TIMEOUT_MINUTES` (1 to 1,440; 240 when absent).
    ///
    /// # Errors
    /// [`ErrorName::InvalidConfiguration`] naming every fault.
    pub fn read(mut vars: Vars<'_>) -> Result<Self> {
        let subnet_group = vars.required("DR_RESTORE_SUBNET_GROUP", config::text);
        let security_group_ids = vars.list("DR_RESTORE_SECURITY_GROUP_IDS", config::text);
        if security_group_ids.is_empty() {
            vars.fault(
                "DR_RESTORE_SECURITY_GROUP_IDS: without one the instance would get the VPC's default group",
            );
        }
        let instance_class = vars.optional("DR_RESTORE_INSTANCE_CLASS", config::text);
        let minutes = vars.or_else("DR_RESTORE_TIMEOUT_MINUTES", config::number(1..=1_440), 240);
        vars.build(|| {
            let timeout = SignedDuration::from_mins(minutes);
            let subnet_group = subnet_group?;
            Some(Self {
                settings: RestoreSettings { subnet_group, security_group_ids, instance_class, timeout },
            })
        })
    }
}

/// The payload.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Request {
    /// Begin the restore.
    Start(Start),
    /// Look how far it is; sets the password when the time has come.
    Check(Check),
    /// Delete the instance, then its secret.
    Dispose(Dispose),
}

/// Begin the restore.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Start {
    /// The operation.
    pub operation_id: OperationId,
    /// The snapshot, in the function's Region.
    pub snapshot_id: SnapshotId,
    /// The database whose settings are taken; the one that the snapshot names when absent.
    #[serde(default)]
    pub database: Option<DatabaseId>,
    /// Whether the snapshot is of an instance or of a cluster; looked for as both when absent.
    #[serde(default)]
    pub database_kind: Option<DatabaseKind>,
    /// The names to use.
    pub target: TemporaryTarget,
}

/// Look how far it is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Check {
    /// The operation.
    pub operation_id: OperationId,
    /// The snapshot.
    pub snapshot_id: SnapshotId,
    /// The names in use.
    pub target: TemporaryTarget,
    /// When the restore was begun.
    pub started_at: Timestamp,
    /// What such restores took before, as `update_state` answered it.
    #[serde(default)]
    pub earlier: Option<Earlier>,
}

/// Delete the instance, then its secret.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Dispose {
    /// The operation.
    pub operation_id: OperationId,
    /// The names in use.
    pub target: TemporaryTarget,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "status")]
pub enum Answer {
    /// Not there yet.
    Pending {
        /// When to call again.
        check_again_in_seconds: u32,
        /// For people.
        progress: Progress,
        /// What is waited for: `update_state` knows by it what such restores took before.
        #[serde(skip_serializing_if = "Option::is_none")]
        step: Option<Step>,
    },
    /// Done.
    Done(Done),
}

/// Progress for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// Status of the instance, or of its cluster.
    pub instance_status: String,
    /// Why the next look is when it is, where that follows from earlier restores.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<String>,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged, rename_all_fields = "camelCase")]
pub enum Done {
    /// The instance is ready under the secret's password.
    Ready {
        /// The instance.
        instance_id: DatabaseId,
        /// Where it listens.
        endpoint: Endpoint,
        /// From the beginning until it was first seen available.
        time_to_available_seconds: i64,
        /// The same for `update_state` to remember.
        #[serde(skip_serializing_if = "Option::is_none")]
        took: Option<Took>,
    },
    /// Instance and secret are gone.
    Disposed {
        /// Always true.
        disposed: bool,
    },
}

/// The function with what it shares between invocations.
#[derive(Debug)]
pub struct Restorer {
    /// Clients.
    pub clients: Clients,
    /// Configuration.
    pub config: Config,
}

impl Restorer {
    /// Answers one request.
    ///
    /// # Errors
    /// Those of [`dr_core::restore`], and those of the calls to RDS and Secrets Manager.
    pub async fn handle(&self, request: Request, now: Timestamp) -> Result<Answer> {
        let rds = self.clients.rds(self.clients.home());
        let secrets = self.clients.secrets();
        match request {
            Request::Start(ask) => {
                restore::check_target(&ask.operation_id, &ask.target)?;
                self.start(&rds, &secrets, ask, now).await
            }
            Request::Check(ask) => {
                restore::check_target(&ask.operation_id, &ask.target)?;
                let seconds = now.duration_since(ask.started_at).as_secs_f64();
                let outcome = self.check(&rds, &secrets, ask, now).await;
                count(&outcome, seconds);
                outcome
            }
            Request::Dispose(ask) => {
                restore::check_target(&ask.operation_id, &ask.target)?;
                dispose(&rds, &secrets, ask, now).await
            }
        }
    }

    async fn start(&self, rds: &Rds, secrets: &Secrets, ask: Start, now: Timestamp) -> Result<Answer> {
        let (snapshot, existing) = tokio::join!(
            rds.find_snapshot(&ask.snapshot_id, ask.database_kind),
            look(rds, &ask.target.instance_id)
        );
        let waited_for = match &snapshot {
            Observed::Found(facts) => restore::first_step(facts, ask.database.as_ref()),
            _ => None,
        };
        let database = match &snapshot {
            Observed::Found(facts) => {
                match ask.database.clone().or(DatabaseId::parse(facts.database.clone()).ok()) {
                    Some(id) => rds.find_database(&id, Some(facts.database_kind)).await.into_option()?,
                    None => None,
                }
            }
            _ => None,
        };
        let writer = match database.as_ref().and_then(DatabaseFacts::writer) {
            Some(id) => rds.describe_database(id).await.into_option()?,
            None => None,
        };
        let step = restore::decide_start(
            &ask.operation_id,
            &ask.target,
            &self.config.settings,
            (&ask.snapshot_id, snapshot),
            Source { database: database.as_ref(), writer: writer.as_ref() },
            existing,
            now,
        )?;
        match step {
            StartStep::Started => Ok(creating(waited_for)),
            StartStep::Wait { check_again_in_seconds } => {
                Ok(pending("snapshot not available", check_again_in_seconds))
            }
            StartStep::Restore { username, lease, request } => {
                write_down(secrets, &ask.operation_id, &ask.target, username, &lease).await?;
                let started = rds.restore(&request).await;
                begun(rds, &ask, DatabaseKind::Instance, started).await.map(|()| creating(waited_for))
            }
            StartStep::RestoreCluster { username, lease, request } => {
                write_down(secrets, &ask.operation_id, &ask.target, username, &lease).await?;
                let started = rds.restore_cluster(&request).await;
                begun(rds, &ask, DatabaseKind::Cluster, started).await.map(|()| creating(None))
            }
        }
    }

    async fn check(&self, rds: &Rds, secrets: &Secrets, ask: Check, now: Timestamp) -> Result<Answer> {
        let id = &ask.target.instance_id;
        let seen = look(rds, id).await;
        let timeout = self.config.settings.timeout;
        let (operation, earlier) = (&ask.operation_id, ask.earlier.as_ref());
        match restore::decide_check(operation, &ask.target, seen, ask.started_at, timeout, earlier, now)? {
            CheckStep::Wait { status, pause, step } => Ok(Answer::Pending {
                check_again_in_seconds: pause.seconds,
                progress: Progress { instance_status: status, waiting: pause.why },
                step,
            }),
            CheckStep::Ready { endpoint, time_to_available_seconds, took } => Ok(Answer::Done(Done::Ready {
                instance_id: ask.target.instance_id,
                endpoint,
                time_to_available_seconds,
                took,
            })),
            CheckStep::CreateMember(request) => match rds.create_member(&request).await {
                Ok(started) => {
                    settled(rds, &ask.operation_id, id, DatabaseKind::Instance, started).await?;
                    Ok(pending("creating", 5))
                }
                // The cluster left `available` between the look and the call.
                Err(error) if error.name() == ErrorName::DatabaseUnavailable => {
                    Ok(pending("cluster not available", 10))
                }
                Err(error) => Err(error),
            },
            CheckStep::SetPassword { kind, arn, remember } => {
                let content =
                    own_secret(secrets, &ask.operation_id, &ask.target).await?.ok_or_else(|| {
                        DrError::new(
                            ErrorName::CredentialsMissing,
                            format!(
                                "setting the password of `{}`: its secret is gone",
                                ask.target.instance_id
                            ),
                        )
                        .with_leftovers(Leftovers::Remaining(vec![arn.clone()]))
                    })?;
                let set = match kind {
                    DatabaseKind::Instance => rds.set_master_password(id, &content.password).await,
                    DatabaseKind::Cluster => rds.set_cluster_password(id, &content.password).await,
                };
                match set {
                    Ok(()) => {
                        rds.tag(&arn, &remember).await?;
                        Ok(pending("resetting-master-credentials", 5))
                    }
                    // It left `available` between the look and the call.
                    Err(error) if error.name() == ErrorName::DatabaseUnavailable => {
                        Ok(pending("not available", 10))
                    }
                    Err(error) => Err(error),
                }
            }
        }
    }
}

/// What came of asking for the restore. The secret is there already in any case; `dispose` deletes it.
async fn begun(rds: &Rds, ask: &Start, kind: DatabaseKind, started: Result<RestoreStart>) -> Result<()> {
    let outcome = match started {
        Ok(started) => settled(rds, &ask.operation_id, &ask.target.instance_id, kind, started).await,
        Err(error) => Err(error),
    };
    outcome.map_err(|error| match error.leftovers() {
        Leftovers::Clear => error.with_leftovers(Leftovers::Remaining(vec![ask.target.secret_id.clone()])),
        _ => error,
    })
}

/// Writes the secret down, before the instance exists.
async fn write_down(
    secrets: &Secrets,
    operation: &OperationId,
    target: &TemporaryTarget,
    username: String,
    lease: &Tags,
) -> Result<()> {
    let content =
        Credentials { username, password: fresh_password()?, operation_id: Some(operation.to_string()) };
    match secrets.create(&target.secret_id, &content, lease).await? {
        SecretStart::Created => Ok(()),
        // From an earlier call of this operation: its password stays.
        SecretStart::NameTaken => match own_secret(secrets, operation, target).await? {
            Some(_) => Ok(()),
            None => Err(DrError::new(
                ErrorName::StateConflict,
                format!("creating secret `{}`: one of that name is being deleted", target.secret_id),
            )),
        },
    }
}

async fn own_secret(
    secrets: &Secrets,
    operation: &OperationId,
    target: &TemporaryTarget,
) -> Result<Option<Credentials>> {
    let Some(content) = secrets.read(&target.secret_id).await? else { return Ok(None) };
    if content.operation_id.as_deref() == Some(operation.as_str()) {
        return Ok(Some(content));
    }
    let text = format!("looking at secret `{}`", target.secret_id);
    Err(DrError::new(ErrorName::TargetNotOurs, text)
        .with_remedy("Find out who made that secret; Lifeboat neither uses nor deletes it."))
}

/// What there is under a temporary restore's name.
async fn look(rds: &Rds, id: &DatabaseId) -> Seen {
    let (instance, cluster) = tokio::join!(rds.describe_database(id), rds.describe_cluster(id));
    Seen { instance, cluster }
}

/// After asking for something: it was begun, or its name is taken, by an answer that was lost, a twin of this call, or
/// somebody else: look whose it is.
async fn settled(
    rds: &Rds,
    operation: &OperationId,
    id: &DatabaseId,
    kind: DatabaseKind,
    started: RestoreStart,
) -> Result<()> {
    match started {
        RestoreStart::Started => Ok(()),
        RestoreStart::NameTaken => restore::adopt(operation, id, rds.find_database(id, Some(kind)).await),
    }
}

async fn dispose(rds: &Rds, secrets: &Secrets, ask: Dispose, now: Timestamp) -> Result<Answer> {
    let id = &ask.target.instance_id;
    let seen = look(rds, id).await;
    let cluster_follows = match restore::decide_disposal(&ask.operation_id, &ask.target, seen, now)? {
        DisposeStep::Wait => return Ok(pending("deleting", 10)),
        DisposeStep::DeleteInstance { member } => {
            let deletion =
                if member { rds.delete_member(id).await? } else { rds.delete_database(id).await? };
            match deletion {
                Deletion::Started => return Ok(pending("deleting", 10)),
                Deletion::NotNow => return Ok(pending("not deletable yet", 15)),
                Deletion::Gone => member,
            }
        }
        DisposeStep::DeleteCluster => match rds.delete_cluster(id).await? {
            Deletion::Started => return Ok(pending("cluster deleting", 10)),
            Deletion::NotNow => return Ok(pending("cluster not deletable yet", 15)),
            Deletion::Gone => false,
        },
        DisposeStep::DeleteSecret => false,
    };
    if cluster_follows {
        return Ok(pending("deleting", 5));
    }
    if own_secret(secrets, &ask.operation_id, &ask.target).await?.is_some() {
        secrets.delete(&ask.target.secret_id).await?;
    }
    Ok(Answer::Done(Done::Disposed { disposed: true }))
}

fn creating(step: Option<Step>) -> Answer {
    let progress = Progress { instance_status: "creating".to_owned(), waiting: None };
    Answer::Pending { check_again_in_seconds: 5, progress, step }
}

fn pending(instance_status: &str, check_again_in_seconds: u32) -> Answer {
    Answer::Pending {
        check_again_in_seconds,
        progress: Progress { instance_status: instance_status.to_owned(), waiting: None },
        step: None,
    }
}

fn count(outcome: &Result<Answer>, seconds: f64) {
    match outcome {
        Ok(Answer::Done(_)) => metrics::operation_ended("restore", "success", Some(seconds)),
        Ok(Answer::Pending { .. }) => {}
        // What is tried again has not ended.
        Err(error) if error.name().class() == ErrorClass::Retry => {}
        Err(_) => metrics::operation_ended("restore", "failure", Some(seconds)),
    }
}
