//! Errors as RDS puts them on the wire: a code, an HTTP status and a message.
//!
//! Codes and statuses are those of the public service model; a wrong "Fault" at the end of a code is what a client
//! stumbles over.

/// An answer that is an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) code: String,
    pub(super) status: u16,
    pub(super) message: String,
}

/// What an action answers: the content of its result element, or an error.
pub(super) type Answer = Result<String, Fault>;

impl Fault {
    pub(super) fn new(code: &str, status: u16, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), status, message: message.into() }
    }

    pub(super) fn missing(parameter: &str) -> Self {
        Self::new("MissingParameter", 400, format!("The request must contain the parameter {parameter}"))
    }

    pub(super) fn value(message: impl Into<String>) -> Self {
        Self::new("InvalidParameterValue", 400, message)
    }

    pub(super) fn combination(message: impl Into<String>) -> Self {
        Self::new("InvalidParameterCombination", 400, message)
    }

    pub(super) fn instance_not_found(id: &str) -> Self {
        Self::new("DBInstanceNotFound", 404, format!("DBInstance {id} not found."))
    }

    pub(super) fn instance_exists() -> Self {
        Self::new("DBInstanceAlreadyExists", 400, "DB instance already exists")
    }

    pub(super) fn instance_state(id: &str, status: &str, wanted: &str) -> Self {
        Self::new(
            "InvalidDBInstanceState",
            400,
            format!("Instance {id} is {status}, which does not allow to {wanted}."),
        )
    }

    pub(super) fn instance_quota() -> Self {
        Self::new("InstanceQuotaExceeded", 400, "DB Instance quota exceeded")
    }

    pub(super) fn snapshot_not_found(id: &str) -> Self {
        Self::new("DBSnapshotNotFound", 404, format!("DBSnapshot {id} not found."))
    }

    /// One of the two meanings of this code; the wording is AWS's and is all that tells them apart.
    pub(super) fn snapshot_quota(limit: usize) -> Self {
        Self::new("SnapshotQuotaExceeded", 400, format!("Cannot create more than {limit} manual snapshots"))
    }

    /// The other meaning: too many copies under way.
    pub(super) fn copy_slots(limit: usize) -> Self {
        Self::new(
            "SnapshotQuotaExceeded",
            400,
            format!("Cannot copy more than {limit} snapshots across regions"),
        )
    }

    pub(super) fn cluster_not_found(id: &str) -> Self {
        Self::new("DBClusterNotFoundFault", 404, format!("DBCluster {id} not found."))
    }

    pub(super) fn cluster_exists() -> Self {
        Self::new("DBClusterAlreadyExistsFault", 400, "DB Cluster already exists")
    }

    pub(super) fn cluster_state(id: &str, status: &str, wanted: &str) -> Self {
        let message = format!("Cluster {id} is {status}, which does not allow to {wanted}.");
        Self::new("InvalidDBClusterStateFault", 400, message)
    }

    /// A quota that is answered with HTTP 403, which is no matter of permissions.
    pub(super) fn cluster_quota() -> Self {
        Self::new("DBClusterQuotaExceededFault", 403, "DB Cluster quota exceeded")
    }

    pub(super) fn key(key: &str, why: &str) -> Self {
        let message = format!(
            "The specified KMS key [{key}] does not exist, is not enabled or you do not have permissions to access it. ({why})"
        );
        Self::new("KMSKeyNotAccessibleFault", 400, message)
    }

    pub(super) fn internal(error: impl std::fmt::Display) -> Self {
        Self::new("InternalFailure", 500, format!("rds-local: {error}"))
    }
}
