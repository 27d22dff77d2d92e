//! Lambda functions: their reserved concurrency, and invocations.

use std::time::Duration;

use dr_aws::clients::Clients;
use dr_aws::errors::Call;
use dr_aws::raw::{Answer, Raw, Refusal, Request, Unread, encoded, read_json};
use dr_core::chaos::world::{Facts, Function, State};
use dr_core::failure::Failure;
use dr_core::ids::Region;
use dr_core::observed::{Observed, Tags};
use dr_core::{DrError, ErrorName, Result};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::FunctionError;

const SERVICE: &str = "lambda";
const JSON: &str = "application/json";

/// Lambda in one Region.
#[derive(Debug)]
pub(crate) struct Functions<'a> {
    raw: Raw<Value>,
    region: &'a Region,
}

impl<'a> Functions<'a> {
    pub(crate) fn new(clients: &Clients, region: &'a Region) -> Self {
        Self { raw: Raw::new(clients.config(), SERVICE, region, read_json), region }
    }

    /// One function: its ARN, then its tags and its concurrency.
    pub(crate) async fn look(&self, name: &str) -> Observed<Facts> {
        match self.facts(name).await {
            Ok(facts) => Observed::Found(facts),
            Err(refusal) if refusal.is("ResourceNotFoundException") => Observed::Missing,
            Err(refusal) => Observed::Unreachable(refusal.error),
        }
    }

    async fn facts(&self, name: &str) -> Result<Facts, Refusal> {
        let arn = self.arn(name).await?;
        let (tags, reserved_concurrency) = tokio::try_join!(self.tags(&arn, name), self.concurrency(name))?;
        Ok(Facts { arn, tags, state: State::Function(Function { reserved_concurrency }) })
    }

    /// <https://docs.aws.amazon.com/lambda/latest/api/API_GetFunctionConfiguration.html>; `GetFunction` would say all of
    /// it at once, and where the code is.
    async fn arn(&self, name: &str) -> Result<String, Refusal> {
        let what = format!("looking at function `{name}` in {}", self.region);
        let call = Call::read("lambda:GetFunctionConfiguration", what);
        let path = format!("/2015-03-31/functions/{}/configuration", encoded(name));
        let answer = self.raw.ask(&call, Request::new("GET", path)).await?;
        let arn = answer["FunctionArn"].as_str().map(str::to_owned);
        arn.ok_or_else(|| call.unreadable("FunctionArn is absent").into())
    }

    /// <https://docs.aws.amazon.com/lambda/latest/api/API_ListTags.html>
    async fn tags(&self, arn: &str, name: &str) -> Result<Tags, Refusal> {
        let what = format!("reading the tags of function `{name}` in {}", self.region);
        let call = Call::read("lambda:ListTags", what);
        let path = format!("/2017-03-31/tags/{}", encoded(arn));
        let mut answer = self.raw.ask(&call, Request::new("GET", path)).await?;
        match answer["Tags"].take() {
            Value::Null => Ok(Tags::new()),
            tags => serde_json::from_value(tags).map_err(|_| call.unreadable("Tags are no texts").into()),
        }
    }

    /// <https://docs.aws.amazon.com/lambda/latest/api/API_GetFunctionConcurrency.html>
    async fn concurrency(&self, name: &str) -> Result<Option<u32>, Refusal> {
        let what = format!("reading the concurrency of function `{name}` in {}", self.region);
        let call = Call::read("lambda:GetFunctionConcurrency", what);
        let path = format!("/2019-09-30/functions/{}/concurrency", encoded(name));
        let answer = self.raw.ask(&call, Request::new("GET", path)).await?;
        let wrong = || call.unreadable("ReservedConcurrentExecutions is no number");
        match &answer["ReservedConcurrentExecutions"] {
            Value::Null => Ok(None),
            number => {
                let number = number.as_u64().and_then(|number| u32::try_from(number).ok());
                Ok(Some(number.ok_or_else(wrong)?))
            }
        }
    }

    /// <https://docs.aws.amazon.com/lambda/latest/api/API_PutFunctionConcurrency.html>
    pub(crate) async fn reserve(&self, name: &str, executions: u32) -> Result<()> {
        let what = format!("reserving {executions} executions of function `{name}` in {}", self.region);
        let call = Call::write("lambda:PutFunctionConcurrency", what);
        let body = json!({"ReservedConcurrentExecutions": executions}).to_string();
        let request = Request::new("PUT", reservation(name)).with_body(JSON, body);
        self.raw.ask(&call, request).await?;
        Ok(())
    }

    /// One without a reservation stays so.
    /// <https://docs.aws.amazon.com/lambda/latest/api/API_DeleteFunctionConcurrency.html>
    pub(crate) async fn release(&self, name: &str) -> Result<()> {
        let what = format!("releasing the concurrency of function `{name}` in {}", self.region);
        let call = Call::write("lambda:DeleteFunctionConcurrency", what);
        self.raw.ask(&call, Request::new("DELETE", reservation(name))).await?;
        Ok(())
    }
}

fn reservation(name: &str) -> String {
    format!("/2017-10-31/functions/{}/concurrency", encoded(name))
}

/// What an invocation answered.
#[derive(Debug)]
struct Invoked {
    /// Whether it is an error of the function.
    failed: bool,
    payload: Value,
}

/// An error of the function is an answer like any other, but for a header.
fn read(answer: Answer<'_>) -> std::result::Result<Invoked, Unread> {
    let failed = answer.header("x-amz-function-error").is_some();
    Ok(Invoked { failed, payload: read_json(answer)? })
}

/// How a runtime describes what a function ended in.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Described {
    error_type: String,
    error_message: String,
}

/// Invokes a function and waits for its answer.
/// <https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html>
pub(crate) async fn invoke(
    clients: &Clients,
    region: &Region,
    function: &str,
    payload: &Value,
    within: Duration,
) -> Result<Value> {
    let what = format!("invoking `{function}` in {region}");
    let call = Call::write("lambda:InvokeFunction", what.clone());
    let raw = Raw::within(clients.config(), SERVICE, region, read, within);
    let request = Request::new("POST", format!("/2015-03-31/functions/{}/invocations", encoded(function)))
        .with_header("x-amz-invocation-type", "RequestResponse")
        .with_body(JSON, payload.to_string());
    let invoked = raw.ask(&call, request).await.map_err(|refusal| {
        if refusal.is("ResourceNotFoundException") {
            // The stack's variables name it.
            let text = format!("{what}: there is no such function");
            return DrError::new(ErrorName::InvalidConfiguration, text).with_source(refusal.error);
        }
        refusal.error
    })?;
    if !invoked.failed {
        return Ok(invoked.payload);
    }
    let described = Described::deserialize(&invoked.payload).unwrap_or_default();
    // What a state machine would be told: without a type, the service's own word for an error that nobody knows.
    let kind = if described.error_type.is_empty() { "Lambda.Unknown" } else { &described.error_type };
    let failure = Failure::read(kind, &invoked.payload.to_string());
    let error = DrError::new(failure.name, format!("{what}: {}", said(&failure)));
    let source = FunctionError { error_type: described.error_type, message: described.error_message };
    Err(error.with_leftovers(failure.leftovers).with_source(source))
}

/// What happened, without what every error says besides: what to do, and what was left behind.
fn said(failure: &Failure) -> &str {
    let text =
        failure.message.rsplit_once(" Left behind: ").map_or(failure.message.as_str(), |(text, _)| text);
    text.strip_suffix(failure.name.remedy()).unwrap_or(text).trim_end_matches(['.', ' '])
}
