//! Asks Step Functions whether an execution still runs, and lets one go on that waits.

use aws_sdk_sfn::Client;
use aws_sdk_sfn::error::ProvideErrorMetadata;
use aws_sdk_sfn::types::ExecutionStatus;
use dr_core::control::HolderState;
use dr_core::ids::ExecutionArn;
use dr_core::{DrError, ErrorName, Result};
use serde_json::Value;

use crate::errors::{Call, code_of};

/// Step Functions, as far as we ask it.
#[derive(Debug, Clone)]
pub struct Executions {
    client: Client,
}

impl Executions {
    /// Step Functions in the configuration's Region.
    pub fn new(config: &aws_config::SdkConfig) -> Self {
        Self { client: Client::new(config) }
    }

    /// Lets a state go on that waits with a task token. One that no longer waits is told so.
    ///
    /// # Errors
    /// [`ErrorName::OperationMissing`] when nobody waits with that token any more; the named error of the call
    /// `states:SendTaskSuccess`.
    pub async fn task_succeeded(&self, token: &str, output: &Value) -> Result<()> {
        let what = "letting the execution go on that waits";
        let call = Call::write("states:SendTaskSuccess", what);
        let request = self.client.send_task_success().task_token(token).output(output.to_string());
        match Box::pin(request.send()).await {
            Ok(_) => Ok(()),
            Err(fault)
                if matches!(code_of(&fault), Some("TaskTimedOut" | "TaskDoesNotExist" | "InvalidToken")) =>
            {
                Err(DrError::new(ErrorName::OperationMissing, format!("{what}: it waits no more")))
            }
            Err(fault) => Err(call.failure(fault)),
        }
    }

    /// Whether the execution runs. "I could not look" is [`HolderState::Unknown`], never "it ended"; an execution that
    /// Step Functions no longer knows (90 days after its end) has ended.
    pub async fn holder_state(&self, execution: &ExecutionArn) -> HolderState {
        let request = self.client.describe_execution().execution_arn(execution.as_str());
        match Box::pin(request.send()).await {
            Ok(answer) => match answer.status() {
                ExecutionStatus::Running | ExecutionStatus::PendingRedrive => HolderState::Running,
                ExecutionStatus::Succeeded
                | ExecutionStatus::Failed
                | ExecutionStatus::TimedOut
                | ExecutionStatus::Aborted => HolderState::Ended,
                _ => HolderState::Unknown,
            },
            Err(error) if error.code() == Some("ExecutionDoesNotExist") => HolderState::Ended,
            Err(error) => {
                tracing::warn!(
                    execution = execution.as_str(),
                    code = error.code().unwrap_or("none"),
                    "cannot ask whether execution {execution} still runs"
                );
                HolderState::Unknown
            }
        }
    }
}
