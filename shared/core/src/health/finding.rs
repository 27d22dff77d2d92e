//! What is found: how bad it is, where, and what to do.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::Region;

/// How bad a finding is. The order is from harmless to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing; nobody is told.
    Info,
    /// A person should look at it.
    Warning,
    /// A person must act now.
    Critical,
}

impl Severity {
    /// The word in answers, in the table and in alerts.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a component, or the whole, is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Nothing but information.
    Healthy,
    /// Warnings, or parts that could not be looked at.
    Degraded,
    /// Something critical.
    Failed,
}

impl State {
    /// The value of `dr_system_health`: 1, 0.5 or 0.
    pub const fn value(self) -> f64 {
        match self {
            Self::Healthy => 1.0,
            Self::Degraded => 0.5,
            Self::Failed => 0.0,
        }
    }

    /// The word in answers, in the table and in alerts.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Failed => "failed",
        }
    }

    pub(super) const fn with(severity: Severity) -> Self {
        match severity {
            Severity::Info => Self::Healthy,
            Severity::Warning => Self::Degraded,
            Severity::Critical => Self::Failed,
        }
    }
}

macro_rules! components {
    ($($(#[$meta:meta])* $variant:ident, $word:literal;)+) => {
        /// A part of the system that is healthy or not by itself; a dimension of `dr_system_health`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "lowercase")]
        pub enum Component { $($(#[$meta])* $variant,)+ }

        impl Component {
            /// Every component.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The word in answers, metrics and the table.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }
    };
}

components! {
    /// Instances and their status.
    Database, "database";
    /// Read replicas and their lag.
    Replication, "replication";
    /// Room on the databases' volumes.
    Storage, "storage";
    /// Recovery points in the home Region and their age.
    Backup, "backup";
    /// Verdicts on recovery points.
    Proof, "proof";
    /// Copies in other Regions.
    Copies, "copies";
    /// KMS keys.
    Keys, "keys";
    /// Quotas of RDS against their use.
    Quotas, "quotas";
    /// Locks and temporary resources past their time.
    Leases, "leases";
    /// Certificates of the databases' servers.
    Certificates, "certificates";
    /// Point-in-time recovery.
    Recovery, "recovery";
    /// Circuit breakers and the emergency stop.
    Control, "control";
    /// Settings of databases that make a disaster likelier or worse.
    Settings, "settings";
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

macro_rules! codes {
    ($($variant:ident, $word:literal, $action:literal;)+) => {
        /// What is wrong, as a word that never changes: alerts, runbooks and other machines go by it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum Code { $(#[doc = $action] $variant,)+ }

        impl Code {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The word.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }

            /// What to do, in one sentence or two.
            pub const fn action(self) -> &'static str {
                match self { $(Self::$variant => $action,)+ }
            }
        }
    };
}

codes! {
    Unreachable, "unreachable",
        "Nothing is known about it until it can be looked at: read the error, and check the function's role and network.";
    DatabaseDown, "database-down",
        "Look at the instance's events and start or repair it; its recovery points stay usable.";
    DatabaseMissing, "database-missing",
        "Find out who deleted or renamed it; restore it from its newest recovery point if that was not meant.";
    DatabaseBusy, "database-busy",
        "Nothing, if the change is meant; look again if it stays that way.";
    DatabaseStatusUnknown, "database-status-unknown",
        "Look the status up in the RDS User Guide, and tell Lifeboat's maintainers.";
    ReplicationStopped, "replication-stopped",
        "Do not fail over to this replica. Look at its replication status and events; rebuild it if it cannot go on.";
    ReplicationLag, "replication-lag",
        "Look for long transactions and a replica that is too small; a failover to it loses what lags.";
    ReplicationLagUnknown, "replication-lag-unknown",
        "CloudWatch has no recent lag of it: look at the replica itself before relying on it.";
    StorageNearlyFull, "storage-nearly-full",
        "Give the instance more storage, or raise the limit of its storage autoscaling.";
    StorageUnknown, "storage-unknown",
        "CloudWatch has no recent FreeStorageSpace of it: look at the instance's monitoring.";
    BackupMissing, "backup-missing",
        "Start a backup now, and look at why none succeeded.";
    BackupOld, "backup-old",
        "Start a backup now; look at the schedule and the last operations of this database.";
    BackupNotExpected, "backup-not-expected",
        "Put it under a schedule if it matters; otherwise nothing.";
    ProofFailed, "proof-failed",
        "Follow the runbook \"A validation failed\". Do not recover from that snapshot.";
    ProofOutstanding, "proof-outstanding",
        "Look at the operation that made the snapshot; prove it by itself with ProveBackup.";
    ProofShallow, "proof-shallow",
        "Do not take it for fully proven: look why there was nothing to compare with (the backup's frame), and back up with depth `full`.";
    CopyMissing, "copy-missing",
        "Look at the last operations' copies to this Region, mend the cause, and start a backup.";
    CopyOld, "copy-old",
        "Look at the last operations' copies to this Region, mend the cause, and start a backup.";
    NothingElsewhere, "nothing-elsewhere",
        "If this Region died now, this database would be lost: start a backup with copies now.";
    KeyMissing, "key-missing",
        "What is encrypted under it cannot be read. Name an existing key for new copies.";
    KeyDisabled, "key-disabled",
        "Enable the key: until then nothing under it can be restored.";
    KeyPendingDeletion, "key-pending-deletion",
        "Cancel the deletion now (kms cancel-key-deletion, then enable-key): everything under the key would be lost.";
    KeyUnusable, "key-unusable",
        "Look at the key's state; until it is enabled nothing under it can be restored.";
    QuotaNearlyUsed, "quota-nearly-used",
        "Delete what is no longer needed, or ask AWS for a higher quota (Service Quotas).";
    LockExpired, "lock-expired",
        "Look whether the holder's execution still runs; the next backup takes the lock over.";
    LeaseExpired, "lease-expired",
        "It costs money and holds data: look at the operation that it carries, then delete it by hand.";
    CertificateExpires, "certificate-expires",
        "Choose a newer certificate authority for the instance (rds modify-db-instance --ca-certificate-identifier).";
    CertificateUnknown, "certificate-unknown",
        "RDS does not list the instance's certificate authority: look at it by hand.";
    RecoveryOff, "recovery-off",
        "Set a backup retention period if minutes of loss matter; otherwise nothing.";
    RecoveryLag, "recovery-lag",
        "Look at the instance's load and events: its logs are not archived as they should be.";
    BreakerOpen, "breaker-open",
        "Look at the recent failures of this kind; one trial is let through after the reset time.";
    EmergencyStop, "emergency-stop",
        "No operation begins. Lift it (update_state liftEmergencyStop) when it is safe.";
    PubliclyAccessible, "publicly-accessible",
        "Make it private (rds modify-db-instance --no-publicly-accessible) unless it is meant.";
    DeletionProtectionOff, "deletion-protection-off",
        "Turn it on (rds modify-db-instance --deletion-protection).";
    Unencrypted, "unencrypted",
        "Its snapshots at home are not encrypted either; only a restore of an encrypted copy changes that.";
    TagMalformed, "tag-malformed",
        "Correct the tag; until then the installation's own setting applies.";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Something that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What part of the system.
    pub component: Component,
    /// Where.
    pub region: Region,
    /// What thing: a database's identifier, a key's ARN, a quota's name.
    pub subject: String,
    /// What is wrong, as a word.
    pub code: Code,
    /// What is wrong, and where, for people.
    pub message: String,
    /// What to do.
    pub action: &'static str,
}

impl Finding {
    /// What tells this finding from every other one, whatever its severity.
    pub fn key(&self) -> String {
        format!("{}/{}/{}/{}", self.component, self.region, self.subject, self.code)
    }
}
