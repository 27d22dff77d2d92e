//! Faults of AWS services as errors of ours: matched by code, once, here.
//!
//! A code says the same thing whatever the call was for; what follows from it in a situation (a missing snapshot
//! that may be missing, a name that is taken) is decided in `dr-core` by what the adapters return.

use std::error::Error as StdError;

use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::{ConnectorError, SdkError};
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use dr_core::{DrError, ErrorName, Leftovers};

/// A call, for the error that it may end in.
#[derive(Debug, Clone)]
pub struct Call {
    action: &'static str,
    what: String,
    mutates: bool,
}

impl Call {
    /// A call that changes nothing. `action` as IAM names it (`rds:DescribeDBInstances`); `what` is being done, to
    /// what, where.
    pub fn read(action: &'static str, what: impl Into<String>) -> Self {
        Self { action, what: what.into(), mutates: false }
    }

    /// A call that changes something: when it is cut off, it is not known whether it took effect.
    pub fn write(action: &'static str, what: impl Into<String>) -> Self {
        Self { action, what: what.into(), mutates: true }
    }

    /// The error of ours for a fault of the service or of the way to it.
    pub fn failure<E>(&self, fault: SdkError<E, HttpResponse>) -> DrError
    where
        E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
    {
        let error = match &fault {
            SdkError::ServiceError(context) => {
                let status = context.raw().status().as_u16();
                self.refused(code_of(&fault), fault.message(), status)
            }
            SdkError::TimeoutError(_) => self.cut_off("no answer in time"),
            SdkError::DispatchFailure(failure) => {
                let error = failure.as_connector_error();
                if below::<CredentialsError>(error).is_some() {
                    let text = format!("{}: the function has no credentials for {}", self.what, self.action);
                    DrError::new(ErrorName::AccessDenied, text)
                } else if let Some(ours) = below::<DrError>(error) {
                    // Refused before it was sent, by something of ours below the SDK.
                    DrError::new(ours.name(), format!("{}: {}", self.what, ours.what()))
                        .with_remedy(ours.remedy())
                } else {
                    self.cut_off("no connection")
                }
            }
            SdkError::ResponseError(context) => {
                let status = context.raw().status().as_u16();
                self.uncertain(DrError::new(
                    ErrorName::AwsFault,
                    format!("{}: the answer could not be read (HTTP {status})", self.what),
                ))
            }
            SdkError::ConstructionFailure(_) => DrError::new(
                ErrorName::Internal,
                format!("{}: the request for {} could not be built", self.what, self.action),
            ),
            _ => self.cut_off("the call failed before an answer"),
        };
        error.with_source(fault)
    }

    /// The error of ours for an answer that came, but does not say what it must say.
    pub fn unreadable(&self, why: &str) -> DrError {
        let what = format!("{}: the answer to {} could not be read: {why}", self.what, self.action);
        self.uncertain(DrError::new(ErrorName::AwsFault, what))
    }

    fn cut_off(&self, how: &str) -> DrError {
        self.uncertain(DrError::new(
            ErrorName::AwsUnreachable,
            format!("{}: {} had {how}", self.what, self.action),
        ))
    }

    fn uncertain(&self, error: DrError) -> DrError {
        if self.mutates { error.with_leftovers(Leftovers::Unknown) } else { error }
    }

    fn refused(&self, code: Option<&str>, message: Option<&str>, status: u16) -> DrError {
        let name = name_of(self.action, code, status);
        let shown = code.unwrap_or("no code");
        let (what, action) = (&self.what, self.action);
        let text = match name {
            ErrorName::AccessDenied => format!("{what}: {action} was refused ({shown})"),
            // Without the service's own words nobody could mend these.
            ErrorName::AwsRejected
            | ErrorName::FaultImpossible
            | ErrorName::InvalidConfiguration
            | ErrorName::RestoreIncompatible => {
                format!("{what}: {action} answered {shown}: {}", shortened(message.unwrap_or("no message")))
            }
            _ => format!("{what}: {action} answered {shown}"),
        };
        let error = DrError::new(name, text);
        if name == ErrorName::AwsFault { self.uncertain(error) } else { error }
    }
}

/// The code of a fault, when the service gave one.
pub fn code_of<E: ProvideErrorMetadata, R>(fault: &SdkError<E, R>) -> Option<&str> {
    match fault {
        SdkError::ServiceError(context) => context.err().code(),
        _ => None,
    }
}

fn shortened(message: &str) -> String {
    const LONGEST: usize = 400;
    message.chars().take(LONGEST).collect()
}

/// The first error of a kind in a chain of causes.
fn below<E: StdError + 'static>(error: Option<&ConnectorError>) -> Option<&E> {
    let mut cause: Option<&(dyn StdError + 'static)> = error.map(|error| error as _);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}

/// The name for a service's code. The service is told by the action, because `ResourceNotFoundException` is a table
/// here and a secret there.
fn name_of(action: &str, code: Option<&str>, status: u16) -> ErrorName {
    let code = code.unwrap_or_default();
    if let Some(name) = common(code) {
        return name;
    }
    let service = action.split(':').next().unwrap_or_default();
    let known = match service {
        "rds" => rds(code),
        "kms" => kms(code),
        "s3" => s3(code),
        "dynamodb" => dynamodb(code),
        "secretsmanager" => secrets(code),
        "sns" => sns(code),
        "ec2" => ec2(code),
        "autoscaling" => autoscaling(code),
        "elasticloadbalancing" => elasticloadbalancing(code),
        "lambda" => lambda(code),
        _ => None,
    };
    known.unwrap_or(match status {
        429 | 503 => ErrorName::Throttled,
        // A "success" that could not be read arrives as an error without a code.
        ..=399 | 500.. => ErrorName::AwsFault,
        // A 403 with a code that we do not know is not always a permission (InsufficientDBClusterCapacityFault).
        401 | 403 if code.is_empty() => ErrorName::AccessDenied,
        _ => ErrorName::AwsRejected,
    })
}

fn common(code: &str) -> Option<ErrorName> {
    Some(match code {
        "Throttling"
        | "ThrottlingException"
        | "ThrottledException"
        | "RequestThrottled"
        | "RequestThrottledException"
        | "RequestLimitExceeded"
        | "TooManyRequestsException"
        | "ProvisionedThroughputExceededException"
        | "BandwidthLimitExceeded"
        | "EC2ThrottledException"
        | "PriorRequestNotComplete"
        | "SlowDown" => ErrorName::Throttled,
        "AccessDenied"
        | "AccessDeniedException"
        | "UnauthorizedOperation"
        | "UnauthorizedException"
        | "NotAuthorized"
        | "AuthFailure"
        | "OptInRequired"
        | "ExpiredToken"
        | "ExpiredTokenException"
        | "InvalidClientTokenId"
        | "UnrecognizedClientException"
        | "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "MissingAuthenticationToken"
        | "IncompleteSignature" => ErrorName::AccessDenied,
        "InternalFailure"
        | "InternalError"
        | "InternalServerError"
        | "InternalServiceError"
        | "InternalServiceFault"
        | "ServiceUnavailable"
        | "ServiceUnavailableException" => ErrorName::AwsFault,
        "RequestTimeout" | "RequestTimeoutException" => ErrorName::AwsUnreachable,
        _ => return None,
    })
}

fn rds(code: &str) -> Option<ErrorName> {
    Some(match code {
        "DBInstanceNotFound" | "DBInstanceNotFoundFault" | "DBClusterNotFoundFault" => {
            ErrorName::DatabaseMissing
        }
        "DBSnapshotNotFound" | "DBSnapshotNotFoundFault" | "DBClusterSnapshotNotFoundFault" => {
            ErrorName::SnapshotMissing
        }
        "InvalidDBInstanceState" | "InvalidDBInstanceStateFault" | "InvalidDBClusterStateFault" => {
            ErrorName::DatabaseUnavailable
        }
        "DBSnapshotAlreadyExists"
        | "DBSnapshotAlreadyExistsFault"
        | "DBClusterSnapshotAlreadyExistsFault" => ErrorName::SnapshotNotOurs,
        "DBInstanceAlreadyExists" | "DBInstanceAlreadyExistsFault" | "DBClusterAlreadyExistsFault" => {
            ErrorName::TargetNotOurs
        }
        "SnapshotQuotaExceeded" | "SnapshotQuotaExceededFault" => ErrorName::SnapshotQuotaExceeded,
        "InstanceQuotaExceeded"
        | "InstanceQuotaExceededFault"
        | "StorageQuotaExceeded"
        | "StorageQuotaExceededFault"
        | "DBClusterQuotaExceededFault" => ErrorName::InstanceQuotaExceeded,
        "InsufficientDBInstanceCapacity"
        | "InsufficientDBInstanceCapacityFault"
        | "InsufficientDBClusterCapacityFault"
        | "InsufficientStorageClusterCapacity"
        | "ProvisionedIopsNotAvailableInAZFault" => ErrorName::InsufficientCapacity,
        "KMSKeyNotAccessibleFault" | "KMSKeyNotAccessible" => ErrorName::KeyNotAccessible,
        "InvalidRestoreFault" => ErrorName::RestoreFailed,
        // What the stack's parameters name (subnet group, security groups).
        "DBSubnetGroupNotFoundFault"
        | "DBSubnetGroupDoesNotCoverEnoughAZs"
        | "InvalidSubnet"
        | "InvalidVPCNetworkStateFault"
        | "DBSecurityGroupNotFound" => ErrorName::InvalidConfiguration,
        // What the source names.
        "DBParameterGroupNotFound"
        | "DBClusterParameterGroupNotFound"
        | "OptionGroupNotFoundFault"
        | "StorageTypeNotSupported"
        | "NetworkTypeNotSupported"
        | "CertificateNotFound" => ErrorName::RestoreIncompatible,
        _ => return None,
    })
}

fn kms(code: &str) -> Option<ErrorName> {
    Some(match code {
        "NotFoundException" | "InvalidArnException" => ErrorName::KeyMissing,
        "DisabledException" => ErrorName::KeyDisabled,
        "KMSInvalidStateException" => ErrorName::KeyNotAccessible,
        "KMSInternalException" | "DependencyTimeoutException" => ErrorName::AwsFault,
        _ => return None,
    })
}

fn s3(code: &str) -> Option<ErrorName> {
    Some(match code {
        "NoSuchBucket" => ErrorName::MetadataBucketMissing,
        "ConditionalRequestConflict" | "OperationAborted" => ErrorName::StateConflict,
        "KMS.DisabledException" | "KMS.KMSInvalidStateException" | "KMS.NotFoundException" => {
            ErrorName::KeyNotAccessible
        }
        _ => return None,
    })
}

fn dynamodb(code: &str) -> Option<ErrorName> {
    Some(match code {
        "ResourceNotFoundException" | "TableNotFoundException" => ErrorName::StateTableMissing,
        "ConditionalCheckFailedException"
        | "TransactionConflictException"
        | "TransactionInProgressException"
        | "TransactionCanceledException"
        | "IdempotentParameterMismatchException" => ErrorName::StateConflict,
        _ => return None,
    })
}

fn secrets(code: &str) -> Option<ErrorName> {
    Some(match code {
        "ResourceNotFoundException" => ErrorName::CredentialsMissing,
        "DecryptionFailure" | "EncryptionFailure" => ErrorName::KeyNotAccessible,
        "InternalServiceErrorException" => ErrorName::AwsFault,
        _ => return None,
    })
}

fn sns(code: &str) -> Option<ErrorName> {
    Some(match code {
        // What the stack's variables name.
        "NotFound" => ErrorName::InvalidConfiguration,
        "AuthorizationError" => ErrorName::AccessDenied,
        "InternalError" => ErrorName::AwsFault,
        "KMSDisabled" | "KMSInvalidState" | "KMSNotFound" | "KMSAccessDenied" | "KMSOptInRequired" => {
            ErrorName::KeyNotAccessible
        }
        "KMSThrottling" => ErrorName::Throttled,
        _ => return None,
    })
}

/// Source: Amazon EC2 API Reference, "Error codes for the Amazon EC2 API".
fn ec2(code: &str) -> Option<ErrorName> {
    Some(match code {
        "InvalidInstanceID.NotFound"
        | "InvalidInstanceID.Malformed"
        | "InvalidGroup.NotFound"
        | "InvalidGroupId.Malformed"
        | "InvalidSecurityGroupID.NotFound"
        | "InvalidSecurityGroupId.Malformed" => ErrorName::TargetMissing,
        "IncorrectInstanceState"
        | "IncorrectState"
        | "InvalidState"
        | "OperationNotPermitted"
        | "UnsupportedOperation" => ErrorName::FaultImpossible,
        "InsufficientCapacity" | "InsufficientHostCapacity" | "InsufficientInstanceCapacity" => {
            ErrorName::InsufficientCapacity
        }
        "Unavailable" => ErrorName::AwsFault,
        _ => return None,
    })
}

/// A group that does not exist has no code of its own: it is a `ValidationError`.
/// Source: Amazon EC2 Auto Scaling API Reference, "Common Errors" and each action.
fn autoscaling(code: &str) -> Option<ErrorName> {
    Some(match code {
        "ResourceContention" | "ScalingActivityInProgress" => ErrorName::StateConflict,
        "ServiceLinkedRoleFailure" => ErrorName::AwsFault,
        _ => return None,
    })
}

/// Source: Elastic Load Balancing API Reference (2015-12-01), each action.
fn elasticloadbalancing(code: &str) -> Option<ErrorName> {
    Some(match code {
        "TargetGroupNotFound" | "TargetGroupNotFoundException" => ErrorName::TargetMissing,
        // It is terminated, in another VPC, or of a type that cannot be a target.
        "InvalidTarget" | "InvalidTargetException" => ErrorName::FaultImpossible,
        "HealthUnavailable" | "HealthUnavailableException" => ErrorName::AwsFault,
        _ => return None,
    })
}

/// Source: AWS Lambda API Reference, each action.
fn lambda(code: &str) -> Option<ErrorName> {
    Some(match code {
        "ResourceNotFoundException" => ErrorName::TargetMissing,
        "ResourceConflictException" | "ResourceNotReadyException" => ErrorName::StateConflict,
        "KMSAccessDeniedException"
        | "KMSDisabledException"
        | "KMSInvalidStateException"
        | "KMSNotFoundException" => ErrorName::KeyNotAccessible,
        "ServiceException" => ErrorName::AwsFault,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(table: &[(&str, &str, u16, ErrorName)]) {
        for &(action, code, status, name) in table {
            let code_seen = (!code.is_empty()).then_some(code);
            assert_eq!(name_of(action, code_seen, status), name, "{action} {code} {status}");
        }
    }

    #[test]
    fn every_code_has_its_name() {
        use ErrorName as N;
        check(&[
            ("rds:CopyDBSnapshot", "Throttling", 400, N::Throttled),
            ("rds:CopyDBSnapshot", "ThrottlingException", 400, N::Throttled),
            ("rds:CopyDBSnapshot", "RequestLimitExceeded", 503, N::Throttled),
            ("s3:PutObject", "SlowDown", 503, N::Throttled),
            ("dynamodb:PutItem", "ProvisionedThroughputExceededException", 400, N::Throttled),
            ("rds:CopyDBSnapshot", "AccessDenied", 403, N::AccessDenied),
            ("kms:DescribeKey", "AccessDeniedException", 400, N::AccessDenied),
            ("rds:CopyDBSnapshot", "OptInRequired", 403, N::AccessDenied),
            ("rds:CopyDBSnapshot", "ExpiredToken", 403, N::AccessDenied),
            ("s3:GetObject", "", 403, N::AccessDenied),
            ("rds:CopyDBSnapshot", "InternalFailure", 500, N::AwsFault),
            ("rds:CopyDBSnapshot", "", 502, N::AwsFault),
            ("rds:CopyDBSnapshot", "", 200, N::AwsFault),
            ("rds:CopyDBSnapshot", "", 503, N::Throttled),
            ("rds:CopyDBSnapshot", "ServiceUnavailable", 503, N::AwsFault),
            ("rds:DescribeDBInstances", "DBInstanceNotFound", 404, N::DatabaseMissing),
            ("rds:DescribeDBSnapshots", "DBSnapshotNotFound", 404, N::SnapshotMissing),
            ("rds:CreateDBSnapshot", "InvalidDBInstanceState", 400, N::DatabaseUnavailable),
            ("rds:CreateDBSnapshot", "DBSnapshotAlreadyExists", 400, N::SnapshotNotOurs),
            ("rds:CreateDBSnapshot", "SnapshotQuotaExceeded", 400, N::SnapshotQuotaExceeded),
            ("rds:RestoreDBInstanceFromDBSnapshot", "DBInstanceAlreadyExists", 400, N::TargetNotOurs),
            ("rds:RestoreDBInstanceFromDBSnapshot", "InstanceQuotaExceeded", 400, N::InstanceQuotaExceeded),
            ("rds:RestoreDBInstanceFromDBSnapshot", "StorageQuotaExceeded", 400, N::InstanceQuotaExceeded),
            (
                "rds:RestoreDBInstanceFromDBSnapshot",
                "InsufficientDBInstanceCapacity",
                400,
                N::InsufficientCapacity,
            ),
            ("rds:RestoreDBInstanceFromDBSnapshot", "KMSKeyNotAccessibleFault", 400, N::KeyNotAccessible),
            (
                "rds:RestoreDBInstanceFromDBSnapshot",
                "DBSubnetGroupNotFoundFault",
                404,
                N::InvalidConfiguration,
            ),
            ("rds:RestoreDBInstanceFromDBSnapshot", "DBParameterGroupNotFound", 404, N::RestoreIncompatible),
            ("rds:RestoreDBInstanceFromDBSnapshot", "OptionGroupNotFoundFault", 404, N::RestoreIncompatible),
            ("rds:CopyDBSnapshot", "InvalidParameterValue", 400, N::AwsRejected),
            ("rds:CopyDBSnapshot", "InvalidParameterCombination", 400, N::AwsRejected),
            ("rds:CreateDBInstance", "InsufficientDBClusterCapacityFault", 403, N::InsufficientCapacity),
            (
                "rds:RestoreDBClusterFromSnapshot",
                "DBClusterQuotaExceededFault",
                403,
                N::InstanceQuotaExceeded,
            ),
            ("rds:RestoreDBClusterFromSnapshot", "SomethingNewFault", 403, N::AwsRejected),
            ("rds:RestoreDBClusterFromSnapshot", "DBClusterAlreadyExistsFault", 400, N::TargetNotOurs),
            ("rds:RestoreDBClusterFromSnapshot", "DBClusterSnapshotNotFoundFault", 404, N::SnapshotMissing),
            ("rds:CreateDBClusterSnapshot", "DBClusterNotFoundFault", 404, N::DatabaseMissing),
            ("rds:CreateDBClusterSnapshot", "InvalidDBClusterStateFault", 400, N::DatabaseUnavailable),
            ("rds:CreateDBClusterSnapshot", "DBClusterSnapshotAlreadyExistsFault", 400, N::SnapshotNotOurs),
            ("rds:CopyDBClusterSnapshot", "KMSKeyNotAccessibleFault", 400, N::KeyNotAccessible),
            ("kms:DescribeKey", "NotFoundException", 400, N::KeyMissing),
            ("kms:DescribeKey", "InvalidArnException", 400, N::KeyMissing),
            ("kms:DescribeKey", "DisabledException", 400, N::KeyDisabled),
            ("kms:DescribeKey", "KMSInternalException", 500, N::AwsFault),
            ("s3:GetObject", "NoSuchBucket", 404, N::MetadataBucketMissing),
            ("s3:PutObject", "ConditionalRequestConflict", 409, N::StateConflict),
            ("s3:PutObject", "KMS.DisabledException", 400, N::KeyNotAccessible),
            ("dynamodb:GetItem", "ResourceNotFoundException", 400, N::StateTableMissing),
            ("dynamodb:PutItem", "ConditionalCheckFailedException", 400, N::StateConflict),
            ("secretsmanager:GetSecretValue", "ResourceNotFoundException", 400, N::CredentialsMissing),
            ("secretsmanager:GetSecretValue", "DecryptionFailure", 400, N::KeyNotAccessible),
            ("secretsmanager:CreateSecret", "ResourceExistsException", 400, N::AwsRejected),
            ("sns:Publish", "NotFound", 404, N::InvalidConfiguration),
            ("sns:Publish", "AuthorizationError", 403, N::AccessDenied),
            ("sns:Publish", "KMSAccessDenied", 400, N::KeyNotAccessible),
            ("sns:Publish", "KMSThrottling", 400, N::Throttled),
            ("cloudwatch:GetMetricData", "InternalServiceFault", 500, N::AwsFault),
        ]);
    }

    #[test]
    fn every_code_of_what_experiments_change_has_its_name() {
        use ErrorName as N;
        check(&[
            ("cloudwatch:DescribeAlarms", "InvalidNextToken", 400, N::AwsRejected),
            ("rds:StopDBInstance", "InvalidDBInstanceState", 400, N::DatabaseUnavailable),
            ("rds:FailoverDBCluster", "InvalidDBClusterStateFault", 400, N::DatabaseUnavailable),
            ("ec2:DescribeInstances", "RequestLimitExceeded", 503, N::Throttled),
            ("ec2:DescribeInstances", "UnauthorizedOperation", 403, N::AccessDenied),
            ("ec2:DescribeInstances", "AuthFailure", 401, N::AccessDenied),
            ("ec2:DescribeInstances", "Unavailable", 503, N::AwsFault),
            ("ec2:DescribeInstances", "InternalError", 500, N::AwsFault),
            ("ec2:StopInstances", "InvalidInstanceID.NotFound", 400, N::TargetMissing),
            ("ec2:StopInstances", "OperationNotPermitted", 400, N::FaultImpossible),
            ("ec2:StopInstances", "UnsupportedOperation", 400, N::FaultImpossible),
            ("ec2:StartInstances", "IncorrectInstanceState", 400, N::FaultImpossible),
            ("ec2:StartInstances", "InsufficientInstanceCapacity", 500, N::InsufficientCapacity),
            ("ec2:StartInstances", "VcpuLimitExceeded", 400, N::AwsRejected),
            ("ec2:ModifyInstanceAttribute", "InvalidGroup.NotFound", 400, N::TargetMissing),
            ("autoscaling:UpdateAutoScalingGroup", "ValidationError", 400, N::AwsRejected),
            ("autoscaling:UpdateAutoScalingGroup", "ScalingActivityInProgress", 400, N::StateConflict),
            ("autoscaling:UpdateAutoScalingGroup", "ResourceContention", 500, N::StateConflict),
            ("autoscaling:DescribeAutoScalingGroups", "Throttling", 400, N::Throttled),
            ("elasticloadbalancing:DescribeTargetHealth", "TargetGroupNotFound", 400, N::TargetMissing),
            ("elasticloadbalancing:DescribeTargetHealth", "HealthUnavailable", 500, N::AwsFault),
            ("elasticloadbalancing:RegisterTargets", "InvalidTarget", 400, N::FaultImpossible),
            ("elasticloadbalancing:RegisterTargets", "TooManyTargets", 400, N::AwsRejected),
            ("lambda:GetFunctionConcurrency", "ResourceNotFoundException", 404, N::TargetMissing),
            ("lambda:PutFunctionConcurrency", "TooManyRequestsException", 429, N::Throttled),
            ("lambda:PutFunctionConcurrency", "ResourceConflictException", 409, N::StateConflict),
            ("lambda:PutFunctionConcurrency", "InvalidParameterValueException", 400, N::AwsRejected),
            ("lambda:PutFunctionConcurrency", "ServiceException", 500, N::AwsFault),
            ("lambda:InvokeFunction", "EC2ThrottledException", 502, N::Throttled),
            ("lambda:InvokeFunction", "KMSDisabledException", 502, N::KeyNotAccessible),
        ]);
    }

    #[test]
    fn a_refusal_says_what_was_done_and_what_the_service_said() {
        let call = Call::write("rds:CopyDBSnapshot", "copying snapshot `a` to us-west-2");
        let denied = call.refused(Some("AccessDenied"), Some("User x is not authorized"), 403);
        assert_eq!(denied.name(), ErrorName::AccessDenied);
        assert!(denied.what().contains("rds:CopyDBSnapshot") && denied.what().contains("us-west-2"));
        let rejected = call.refused(Some("InvalidParameterValue"), Some(&"x".repeat(1000)), 400);
        assert!(rejected.what().contains("InvalidParameterValue"));
        assert!(rejected.what().len() < 600);
        assert_eq!(rejected.leftovers(), &Leftovers::Clear);
    }

    #[test]
    fn a_mutating_call_that_was_cut_off_leaves_an_unknown_state() {
        assert_eq!(Call::write("rds:X", "x").cut_off("no answer").leftovers(), &Leftovers::Unknown);
        assert_eq!(Call::read("rds:X", "x").cut_off("no answer").leftovers(), &Leftovers::Clear);
        assert_eq!(Call::write("rds:X", "x").refused(None, None, 500).leftovers(), &Leftovers::Unknown);
        assert_eq!(Call::write("rds:X", "x").unreadable("why").leftovers(), &Leftovers::Unknown);
        assert_eq!(Call::write("rds:X", "x").refused(None, None, 400).leftovers(), &Leftovers::Clear);
    }
}
