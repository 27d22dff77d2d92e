//! Every error that Lifeboat can end in, by name, with what it means and what to do.
//!
//! The name (`Dr.SnapshotMissing`) is the contract with the state machines: they catch and retry by it.
//! This module does not talk to AWS; mapping service errors to names is the adapters' task.

use std::error::Error as StdError;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Shorthand for results that fail with a [`DrError`].
pub type Result<T, E = DrError> = std::result::Result<T, E>;

/// Who can do something about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ErrorClass {
    /// The same call can succeed later without anybody doing anything: state machines retry it.
    Retry,
    /// The same call will fail again: the operation ends.
    Terminal,
    /// The same call will fail until a person changes something: the operation ends and a person is told.
    Operator,
}

impl fmt::Display for ErrorClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Retry => "retry",
            Self::Terminal => "terminal",
            Self::Operator => "operator",
        })
    }
}

macro_rules! error_names {
    ($($(#[$meta:meta])* $variant:ident, $code:literal, $class:ident, $cause:literal, $remedy:literal;)+) => {
        /// The name of an error. `Display` and serde give the string that state machines catch, such as
        /// `Dr.SnapshotMissing`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum ErrorName {
            $(#[doc = $cause] $(#[$meta])* $variant,)+
        }

        impl ErrorName {
            /// Every name there is, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The string that state machines catch.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => concat!("Dr.", stringify!($variant)),)+ }
            }

            /// The short code used in responses, in metrics (`error_code`) and in the table.
            pub const fn code(self) -> &'static str {
                match self { $(Self::$variant => $code,)+ }
            }

            /// Who can do something about it.
            pub const fn class(self) -> ErrorClass {
                match self { $(Self::$variant => ErrorClass::$class,)+ }
            }

            /// What happened, in one sentence.
            pub const fn cause(self) -> &'static str {
                match self { $(Self::$variant => $cause,)+ }
            }

            /// What to do about it, in one sentence.
            pub const fn remedy(self) -> &'static str {
                match self { $(Self::$variant => $remedy,)+ }
            }
        }
    };
}

error_names! {
    // Input and configuration
    InvalidInput, "INVALID_INPUT", Terminal,
        "The input has an unknown field, a wrong type, or a value out of bounds.",
        "Correct the field that the message names; samples are under events/.";
    InvalidConfiguration, "INVALID_CONFIGURATION", Operator,
        "The function's environment variables are missing or malformed.",
        "Correct the stack's parameters that the message names and deploy again.";
    RegionUnknown, "REGION_UNKNOWN", Terminal,
        "The Region is not one that this installation is configured for.",
        "Name a Region of DR_TARGET_REGIONS, or add the Region and its key to the stack's parameters.";

    // Control of operations
    OperationInProgress, "OPERATION_IN_PROGRESS", Terminal,
        "Another operation holds the lock of this database, fleet, experiment or resource.",
        "Wait until it ends; the lock of an execution that was stopped is taken over by the next one, that of an experiment only when everything is put back.";
    OperationMissing, "OPERATION_MISSING", Terminal,
        "No operation has this id.",
        "Check the id; finished operations expire after DR_OPERATION_RETENTION_DAYS.";
    IllegalTransition, "ILLEGAL_TRANSITION", Terminal,
        "The operation is in a status in which this event is not allowed.",
        "Look at the operation's record; a finished operation is never changed.";
    CircuitBreakerOpen, "CIRCUIT_BREAKER_OPEN", Operator,
        "Operations of this kind failed too often, so new ones are refused for a while.",
        "Look at the recent failures; the breaker lets one trial through after its reset time.";
    EmergencyStopActive, "EMERGENCY_STOP_ACTIVE", Operator,
        "The emergency stop is in force, so nothing new may start.",
        "Lift it by name when it is safe: chaos_runner liftEmergencyStop does so in all Regions.";
    StateConflict, "STATE_CONFLICT", Retry,
        "Somebody else changed the same item between reading and writing it.",
        "Nothing: it is tried again.";
    StateTableMissing, "STATE_TABLE_MISSING", Operator,
        "The state table does not exist or is not active.",
        "Check DR_STATE_TABLE_NAME and the stack; restore the table from its point-in-time recovery if it was deleted.";
    MetadataBucketMissing, "METADATA_BUCKET_MISSING", Operator,
        "The metadata bucket does not exist.",
        "Check DR_METADATA_BUCKET and the stack.";
    MetadataDamaged, "METADATA_DAMAGED", Terminal,
        "A stored frame, unit or report cannot be read back.",
        "Start the backup again; the older versions of the object are in the versioned bucket.";

    // The source database
    DatabaseMissing, "DATABASE_MISSING", Terminal,
        "The database does not exist in this Region.",
        "Check the identifier and the Region.";
    DatabaseAmbiguous, "DATABASE_AMBIGUOUS", Terminal,
        "The selector matches more than one database, or a name means both an instance and a cluster.",
        "Make the selector narrower, name the database, or add `databaseKind`; fleets are not backed up by one operation.";
    DatabaseUnavailable, "DATABASE_UNAVAILABLE", Retry,
        "The database is not in the status `available`.",
        "Wait until it is, or look at its events if it stays that way.";
    EngineUnsupported, "ENGINE_UNSUPPORTED", Terminal,
        "The database's engine or its major version is not supported.",
        "Use validation depth `quick`, which needs no connection, where the engine allows snapshots.";

    // Snapshots
    SnapshotMissing, "SNAPSHOT_MISSING", Terminal,
        "The snapshot does not exist in this Region.",
        "Check the identifier and the Region; it may have been deleted by retention.";
    SnapshotNotOurs, "SNAPSHOT_NOT_OURS", Terminal,
        "A snapshot of this name exists, but it does not carry this operation's tags.",
        "Rename or delete that snapshot, or start a new operation, which takes a new name.";
    SnapshotFailed, "SNAPSHOT_FAILED", Terminal,
        "RDS reports that the snapshot failed.",
        "Look at the database's events and start the backup again.";
    SnapshotTimeout, "SNAPSHOT_TIMEOUT", Operator,
        "The snapshot did not become available in time.",
        "Look at its status; if it becomes available later it can be proven by itself with prove_backup.";
    SnapshotQuotaExceeded, "SNAPSHOT_QUOTA_EXCEEDED", Operator,
        "The Region's quota of manual snapshots is used up.",
        "Delete snapshots that retention no longer needs, or ask AWS for a higher quota.";

    SnapshotForeign, "SNAPSHOT_FOREIGN", Terminal,
        "The snapshot belongs to another account or to AWS Backup.",
        "Copy a shared snapshot into this account first and name the copy; copy one of AWS Backup with its copy jobs.";
    SnapshotUnencrypted, "SNAPSHOT_UNENCRYPTED", Operator,
        "A cluster snapshot is not encrypted, and RDS does not encrypt it by copying it.",
        "Restore it into an encrypted cluster and back that up, or leave copies out (crossRegionBackup: false).";

    // Keys
    KeyMissing, "KEY_MISSING", Operator,
        "The KMS key does not exist in the Region.",
        "Check DR_TARGET_KMS_KEY_IDS; the key must be in the destination Region.";
    KeyDisabled, "KEY_DISABLED", Operator,
        "The KMS key is not enabled.",
        "Enable the key, or name another one.";
    KeyPendingDeletion, "KEY_PENDING_DELETION", Operator,
        "The KMS key is going to be deleted; every copy under it would become unreadable.",
        "Cancel the deletion now if any backup uses the key, or name another one.";
    KeyWrongRegion, "KEY_WRONG_REGION", Operator,
        "The KMS key belongs to another Region than the copy.",
        "Name a key of the destination Region; a key cannot be used across Regions.";
    KeyNotAccessible, "KEY_NOT_ACCESSIBLE", Operator,
        "RDS or this function may not use the KMS key (KMSKeyNotAccessibleFault).",
        "Allow kms:DescribeKey and kms:CreateGrant to the function's role in the key's policy.";

    // Replication
    ReplicationFailed, "REPLICATION_FAILED", Terminal,
        "RDS reports that the copy failed.",
        "Look at the snapshot's events in the destination Region and start the backup again.";
    ReplicationMismatch, "REPLICATION_MISMATCH", Operator,
        "The copy that arrived is not what was asked for.",
        "Do not rely on that copy; compare it with the source, delete it, and start the backup again.";
    ReplicationTimeout, "REPLICATION_TIMEOUT", Operator,
        "The copy did not become available in time.",
        "Look at its progress in the destination Region; the copy goes on by itself.";
    ReplicationIncomplete, "REPLICATION_INCOMPLETE", Operator,
        "The backup is proven, but at least one Region has no copy of it.",
        "Look at the Regions that the operation names, mend the cause, and start the backup again.";

    // Fleets and recovery points
    FleetEmpty, "FLEET_EMPTY", Operator,
        "The fleet covers no database that can be backed up.",
        "Check the tag or the list that the message names, and the databases that were left out.";
    FleetIncomplete, "FLEET_INCOMPLETE", Operator,
        "More backups of a fleet's run failed than are tolerated.",
        "Look at the errors that the summary counts, mend them, and start the run again with `resume`.";
    BackupOutcomeUnknown, "BACKUP_OUTCOME_UNKNOWN", Operator,
        "A fleet's run does not know what became of the backup of one of its databases.",
        "Look at the execution that the report names, and start the run again with `resume`.";
    RecoveryPointMissing, "RECOVERY_POINT_MISSING", Operator,
        "There is no recovery point to choose from: no snapshot of this Region is proven, or there is no copy in it.",
        "Check that backups are made and proven, that they are copied to this Region, and which database the selector names.";

    // Temporary restores
    RestoreFailed, "RESTORE_FAILED", Terminal,
        "RDS reports that the restore failed.",
        "Look at the events of the temporary instance that the message names.";
    RestoreIncompatible, "RESTORE_INCOMPATIBLE", Operator,
        "The restore ended in an `incompatible-*` status.",
        "Correct the network, parameter group or option group that the status names.";
    RestoreTimeout, "RESTORE_TIMEOUT", Operator,
        "The temporary instance did not become available in time.",
        "Raise DR_RESTORE_TIMEOUT_MINUTES or choose a larger DR_RESTORE_INSTANCE_CLASS.";
    InstanceQuotaExceeded, "INSTANCE_QUOTA_EXCEEDED", Operator,
        "The Region's quota of DB instances or of their storage is used up.",
        "Delete instances, or ask AWS for a higher quota.";
    InsufficientCapacity, "INSUFFICIENT_CAPACITY", Retry,
        "AWS has no capacity for this instance class in the zone at the moment.",
        "Choose another class (DR_RESTORE_INSTANCE_CLASS) or more zones in the subnet group; more storage does not help.";
    TargetNotOurs, "TARGET_NOT_OURS", Operator,
        "An instance or a cluster of the temporary target's name exists, but it does not carry our lease.",
        "Find out who made it; Lifeboat neither uses nor deletes it.";
    DisposalFailed, "DISPOSAL_FAILED", Operator,
        "The temporary instance or its cluster could not be deleted.",
        "Delete the instance, its cluster and the secret that the message names by hand; they cost money and hold data.";

    // Chaos experiments
    ApprovalRequired, "APPROVAL_REQUIRED", Operator,
        "The experiment needs approvals that it does not have.",
        "Have somebody who is not the requester approve the plan's hash, in time (runbook \"Approve an experiment\").";
    RollbackMissing, "ROLLBACK_MISSING", Terminal,
        "The experiment does not say that it is put back.",
        "Leave automaticRollback on and give a rollbackPlan, {\"action\": \"undo-faults\"} at least.";
    TargetMissing, "TARGET_MISSING", Terminal,
        "A resource that the experiment names does not exist in its Region.",
        "Check the identifier and the Region.";
    TargetNotAllowed, "TARGET_NOT_ALLOWED", Operator,
        "A resource that the experiment names is not open to experiments.",
        "Tag it dr:chaos = allowed, or list it in the stack's parameters, if it may be broken.";
    FaultImpossible, "FAULT_IMPOSSIBLE", Terminal,
        "The fault cannot be injected into this resource, or could not be put back.",
        "Choose another fault or another target; the message says what is in the way.";
    BlastRadiusExceeded, "BLAST_RADIUS_EXCEEDED", Terminal,
        "The experiment would leave fewer healthy resources than must stay.",
        "Lower the intensity, name more resources, or lower minimumHealthy if you mean it.";
    PreCheckFailed, "PRE_CHECK_FAILED", Operator,
        "A check before the experiment did not pass, or could not be made; nothing was touched.",
        "Mend what the message names, or choose another time.";
    RollbackFailed, "ROLLBACK_FAILED", Operator,
        "An experiment left something that could not be put back.",
        "Run the commands of its report, in their order (runbook \"A rollback failed\").";
    FreezeWindow, "FREEZE_WINDOW", Operator,
        "Experiments do not begin at this time.",
        "Start it outside the windows of CHAOS_FREEZE_WINDOWS.";

    // Connections to databases
    CredentialsMissing, "CREDENTIALS_MISSING", Operator,
        "No credentials are known for the database.",
        "Name a secret in the input, use a managed master password, or tag the instance with lifeboat:secret-id.";
    CredentialsRejected, "CREDENTIALS_REJECTED", Operator,
        "The database refused the user or the password.",
        "Check that the secret is the current one.";
    CertificateRejected, "CERTIFICATE_REJECTED", Operator,
        "The server's TLS certificate is not signed by the RDS certificate authority.",
        "Check the instance's CA; never turn verification off.";
    ConnectionFailed, "CONNECTION_FAILED", Retry,
        "The database could not be reached.",
        "Check the function's subnets and security groups if it stays that way.";
    ConnectionLost, "CONNECTION_LOST", Retry,
        "The connection to the database broke while it was used.",
        "Nothing: what was finished is kept, and the rest is tried again.";
    PermissionMissing, "PERMISSION_MISSING", Operator,
        "The database user may not read what has to be proven.",
        "Grant pg_read_all_data to the user that the message names.";
    QueryFailed, "QUERY_FAILED", Terminal,
        "The database answered a query with an error.",
        "Look at the SQLSTATE in the message.";

    // Proof
    FrameMissing, "FRAME_MISSING", Terminal,
        "The frame of the source that this proof needs is not in the metadata bucket.",
        "Start the backup again, or prove the snapshot without a frame.";
    BackupUnproven, "BACKUP_UNPROVEN", Operator,
        "The restored backup was examined and is not what the source was.",
        "Read the findings; follow the runbook \"A validation failed\". Do not use this snapshot for recovery.";
    ProofTimeout, "PROOF_TIMEOUT", Operator,
        "The examination made no progress for too long.",
        "Give the temporary instance a larger class, or examine with more connections.";

    // AWS
    AccessDenied, "ACCESS_DENIED", Operator,
        "AWS refused the call for lack of permission.",
        "Grant the action that the message names to the function's role.";
    Throttled, "THROTTLED", Retry,
        "AWS is throttling the call, also after the SDK's own retries.",
        "Nothing: it is tried again later.";
    AwsUnreachable, "AWS_UNREACHABLE", Retry,
        "The AWS service could not be reached, or did not answer in time.",
        "Check the function's network path (VPC endpoints, NAT) if it stays that way.";
    AwsFault, "AWS_FAULT", Retry,
        "The AWS service answered with an internal error.",
        "Nothing: it is tried again later.";
    AwsRejected, "AWS_REJECTED", Terminal,
        "The AWS service refused the request as it was made.",
        "Look at the service's code in the message.";

    // The functions themselves
    FunctionTimedOut, "TIMEOUT", Retry,
        "A function or a state ran out of time.",
        "Nothing: finished units are kept and the rest is tried again.";
    FunctionKilled, "FUNCTION_KILLED", Retry,
        "A function died (out of memory, or killed by the service).",
        "Raise the function's memory if it happens again.";
    Internal, "INTERNAL", Terminal,
        "Lifeboat met a state that it holds to be impossible: a fault of ours.",
        "Report it with the operation's record and the function's log.";
}

impl ErrorName {
    /// The name that a state machine's error string stands for, `None` for strings that are not ours.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|candidate| candidate.as_str() == name)
    }
}

impl fmt::Display for ErrorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for ErrorName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for ErrorName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text)
            .ok_or_else(|| serde::de::Error::custom(format!("`{text}` is not an error of Lifeboat")))
    }
}

/// What a failed step left behind.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind", content = "resources")]
pub enum Leftovers {
    /// Nothing: the step changed nothing, or undid what it had changed.
    #[default]
    Clear,
    /// Resources that are ours, recorded, and wanted or cleaned up later by their lease.
    Remaining(Vec<String>),
    /// Resources that nobody will clean up: a person must.
    Orphaned(Vec<String>),
    /// A call was cut off, so it is not known whether it took effect.
    Unknown,
}

impl fmt::Display for Leftovers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clear => f.write_str("nothing"),
            Self::Remaining(resources) => write!(f, "remaining: {}", resources.join(", ")),
            Self::Orphaned(resources) => write!(f, "orphaned: {}", resources.join(", ")),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

/// An error with its name, what was being done to what and where, and what to do about it.
///
/// `Display` is the message for people. The cause is reached through [`std::error::Error::source`], never
/// repeated in the text.
#[derive(Debug)]
pub struct DrError {
    name: ErrorName,
    what: String,
    remedy: Option<String>,
    leftovers: Leftovers,
    source: Option<Box<dyn StdError + Send + Sync + 'static>>,
}

impl DrError {
    /// An error that says `what` was being done, to what, where: one sentence without a final stop.
    pub fn new(name: ErrorName, what: impl Into<String>) -> Self {
        Self { name, what: what.into(), remedy: None, leftovers: Leftovers::Clear, source: None }
    }

    /// The same error with its cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync + 'static>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The same error with a better advice than its name's.
    #[must_use]
    pub fn with_remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// The same error with what it left behind.
    #[must_use]
    pub fn with_leftovers(mut self, leftovers: Leftovers) -> Self {
        self.leftovers = leftovers;
        self
    }

    /// The error's name.
    pub fn name(&self) -> ErrorName {
        self.name
    }

    /// What was being done, to what, where.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// What to do about it.
    pub fn remedy(&self) -> &str {
        self.remedy.as_deref().unwrap_or_else(|| self.name.remedy())
    }

    /// What it left behind.
    pub fn leftovers(&self) -> &Leftovers {
        &self.leftovers
    }
}

impl fmt::Display for DrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}. {}", self.what.trim_end_matches('.'), self.remedy())?;
        if self.leftovers == Leftovers::Clear {
            Ok(())
        } else {
            write!(f, " Left behind: {}.", self.leftovers)
        }
    }
}

impl StdError for DrError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_name_reads_back_and_is_unique() {
        let mut names = BTreeSet::new();
        let mut codes = BTreeSet::new();
        for name in ErrorName::ALL {
            assert_eq!(ErrorName::parse(name.as_str()), Some(*name));
            assert!(names.insert(name.as_str()), "{name} twice");
            assert!(codes.insert(name.code()), "{} twice", name.code());
        }
    }

    #[test]
    fn the_message_says_what_and_what_to_do_and_keeps_the_cause_out() {
        let error = DrError::new(ErrorName::SnapshotMissing, "reading snapshot `a` in us-east-1")
            .with_source(std::io::Error::other("secret detail"));
        let text = error.to_string();
        assert!(text.starts_with("reading snapshot `a` in us-east-1. "));
        assert!(!text.contains("secret detail"));
        assert!(std::error::Error::source(&error).is_some());
    }

    #[test]
    fn leftovers_are_named_in_the_message() {
        let error = DrError::new(ErrorName::DisposalFailed, "deleting x")
            .with_leftovers(Leftovers::Orphaned(vec!["x".to_owned()]));
        assert!(error.to_string().ends_with("Left behind: orphaned: x."));
    }
}
