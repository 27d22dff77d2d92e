//! Reading what a state machine knows of a failure: the `Error` and the `Cause` that a Catch hands on.
//!
//! Three forms arrive: a function's error, whose cause is JSON with `errorType` and `errorMessage`; the service's
//! own errors (`States.Timeout`, `Sandbox.Timedout`, `Lambda.Unknown`); and the failure of a child execution
//! (`States.TaskFailed`), whose cause is the child's description as JSON.
//! Source: Step Functions Developer Guide, "Handling errors in Step Functions workflows".

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{ErrorClass, ErrorName, Leftovers};

/// The longest message that is kept, in characters: an item of the table has 400 KB at most.
const LONGEST_MESSAGE: usize = 4_000;

/// A failure as it is recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// One of our names.
    pub name: ErrorName,
    /// The name's code.
    pub code: String,
    /// The name's class.
    pub class: ErrorClass,
    /// What happened, where, and what to do.
    pub message: String,
    /// What was left behind.
    pub leftovers: Leftovers,
}

impl Failure {
    /// A failure by its name.
    pub fn new(name: ErrorName, message: &str, leftovers: Leftovers) -> Self {
        let message = if message.is_empty() { name.cause() } else { message };
        Self {
            name,
            code: name.code().to_owned(),
            class: name.class(),
            message: message.chars().take(LONGEST_MESSAGE).collect(),
            leftovers,
        }
    }

    /// Reads `Error` and `Cause` as a Catch hands them on.
    pub fn read(error: &str, cause: &str) -> Self {
        Self::read_nested(error, cause, 0)
    }

    fn read_nested(error: &str, cause: &str, depth: u8) -> Self {
        let json = serde_json::from_str::<Value>(cause).ok();
        let field = |name: &str| json.as_ref().and_then(|json| json.get(name)).and_then(Value::as_str);

        // A child execution's description: what failed there is what failed here.
        if let (Some(inner), true) = (field("Error"), depth < 4) {
            return Self::read_nested(inner, field("Cause").unwrap_or_default(), depth + 1);
        }

        let message = field("errorMessage").unwrap_or(cause);
        if let Some(name) = ErrorName::parse(error) {
            return Self::new(name, message, leftovers_in(message));
        }
        let of_step_functions = error.starts_with("StepFunctions.") || error.starts_with("Sfn.");
        let (name, text) = match error {
            "States.Timeout" | "States.HeartbeatTimeout" | "Sandbox.Timedout" => {
                (ErrorName::FunctionTimedOut, "a state or a function ran out of time")
            }
            "Lambda.Unknown" if message.contains("Task timed out") => {
                (ErrorName::FunctionTimedOut, "a function ran out of time")
            }
            "Lambda.Unknown"
            | "Runtime.ExitError"
            | "Runtime.Unknown"
            | "Lambda.ResourceNotReadyException" => (ErrorName::FunctionKilled, "a function died"),
            "Lambda.TooManyRequestsException" => (ErrorName::Throttled, "Lambda throttled the invocation"),
            "StepFunctions.ExecutionLimitExceeded" | "StepFunctions.ExecutionLimitExceededException" => {
                (ErrorName::Throttled, "Step Functions would start no further execution")
            }
            // Throttling is no error of the API's model and may arrive as the SDK's base class, with the code in the text.
            _ if of_step_functions
                && (error.ends_with(".ThrottlingException") || message.contains("ThrottlingException")) =>
            {
                (ErrorName::Throttled, "Step Functions throttled a call")
            }
            "StepFunctions.SdkClientException" | "Sfn.SdkClientException" => {
                (ErrorName::AwsUnreachable, "Step Functions was not reached")
            }
            _ if error.ends_with("AccessDeniedException")
                || message.contains("not authorized to perform") =>
            {
                (ErrorName::AccessDenied, "a state's own AWS call was refused")
            }
            _ if error.starts_with("Lambda.") => (ErrorName::AwsFault, "Lambda could not run a function"),
            _ if of_step_functions => (ErrorName::AwsRejected, "Step Functions refused a call"),
            _ => (ErrorName::Internal, "a state failed with an error that no step raises"),
        };
        Self::new(name, &format!("{text} ({error}): {message}. {}", name.remedy()), Leftovers::Unknown)
    }
}

/// Finds what `DrError` appends to its message.
fn leftovers_in(message: &str) -> Leftovers {
    let Some((_, rest)) = message.rsplit_once(" Left behind: ") else { return Leftovers::Clear };
    let rest = rest.trim_end_matches('.');
    let list = |text: &str| text.split(", ").map(str::to_owned).collect();
    if let Some(resources) = rest.strip_prefix("remaining: ") {
        Leftovers::Remaining(list(resources))
    } else if let Some(resources) = rest.strip_prefix("orphaned: ") {
        Leftovers::Orphaned(list(resources))
    } else {
        Leftovers::Unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::DrError;
    use serde_json::json;

    fn lambda(error: &DrError) -> String {
        json!({"errorType": error.name().as_str(), "errorMessage": error.to_string()}).to_string()
    }

    #[test]
    fn a_functions_error_keeps_its_name_message_and_leftovers() {
        let error = DrError::new(ErrorName::DisposalFailed, "deleting lifeboat-tmp-1 in us-east-1")
            .with_leftovers(Leftovers::Orphaned(vec!["lifeboat-tmp-1".into(), "lifeboat/tmp/1".into()]));
        let failure = Failure::read("Dr.DisposalFailed", &lambda(&error));
        assert_eq!(failure.name, ErrorName::DisposalFailed);
        assert_eq!(failure.code, "DISPOSAL_FAILED");
        assert!(failure.message.starts_with("deleting lifeboat-tmp-1 in us-east-1. "));
        assert_eq!(&failure.leftovers, error.leftovers());
    }

    #[test]
    fn a_childs_failure_is_the_childs_own_error() {
        let error = DrError::new(ErrorName::RestoreTimeout, "restoring x");
        let child = json!({
            "ExecutionArn": "arn:aws:states:us-east-1:1:execution:prove:1", "Status": "FAILED",
            "Error": "Dr.RestoreTimeout", "Cause": lambda(&error),
        });
        let failure = Failure::read("States.TaskFailed", &child.to_string());
        assert_eq!(failure.name, ErrorName::RestoreTimeout);
        assert!(failure.message.starts_with("restoring x"));
    }

    #[test]
    fn the_services_own_errors_get_names_of_ours() {
        for (error, cause, name) in [
            ("States.Timeout", "", ErrorName::FunctionTimedOut),
            (
                "Sandbox.Timedout",
                r#"{"errorMessage":"2026 Task timed out after 3.00 seconds"}"#,
                ErrorName::FunctionTimedOut,
            ),
            (
                "Lambda.Unknown",
                r#"{"errorMessage":"Task timed out after 3.00 seconds"}"#,
                ErrorName::FunctionTimedOut,
            ),
            ("Lambda.Unknown", "The cause could not be determined", ErrorName::FunctionKilled),
            ("Runtime.ExitError", r#"{"errorMessage":"exit status 137"}"#, ErrorName::FunctionKilled),
            ("Lambda.TooManyRequestsException", "", ErrorName::Throttled),
            ("Lambda.ServiceException", "", ErrorName::AwsFault),
            ("StepFunctions.ExecutionLimitExceededException", "", ErrorName::Throttled),
            ("StepFunctions.ExecutionLimitExceeded", "", ErrorName::Throttled),
            ("StepFunctions.ThrottlingException", "", ErrorName::Throttled),
            (
                "StepFunctions.AWSStepFunctionsException",
                "Rate exceeded (Error Code: ThrottlingException)",
                ErrorName::Throttled,
            ),
            ("StepFunctions.SdkClientException", "", ErrorName::AwsUnreachable),
            ("Sfn.ThrottlingException", "", ErrorName::Throttled),
            ("Sfn.ExecutionDoesNotExistException", "", ErrorName::AwsRejected),
            ("StepFunctions.StateMachineDoesNotExistException", "", ErrorName::AwsRejected),
            ("StepFunctions.AWSStepFunctionsException", "not authorized to perform", ErrorName::AccessDenied),
            ("Sns.AccessDeniedException", "", ErrorName::AccessDenied),
            ("States.Runtime", "expression failed", ErrorName::Internal),
            ("", "", ErrorName::Internal),
        ] {
            let failure = Failure::read(error, cause);
            assert_eq!(failure.name, name, "{error}: {cause}");
            assert!(failure.message.contains(error));
        }
    }

    #[test]
    fn endless_nesting_and_long_texts_are_cut() {
        let mut cause = String::from("deep");
        for _ in 0..10 {
            cause = json!({"Error": "States.TaskFailed", "Cause": cause}).to_string();
        }
        assert_eq!(Failure::read("States.TaskFailed", &cause).name, ErrorName::Internal);
        assert_eq!(
            Failure::read("Dr.Internal", &"x".repeat(100_000)).message.chars().count(),
            LONGEST_MESSAGE
        );
    }
}
