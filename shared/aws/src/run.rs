//! From the Lambda runtime to a handler and back: parsing, deadline, error names, logs and metrics.
//!
//! The payload is taken as text and read here: whatever the runtime could not hold (JSON that is nested too deeply, a
//! number out of range) would otherwise end in an error of its own, under a name that no state machine catches.
//!
//! Until the first event nothing is made but logging and metrics: certificates are read and clients are made when there
//! is something to do with them, so that a cold start is a matter of milliseconds.
//!
//! A function whose configuration is bad does not crash while it starts: it answers every invocation with
//! `Dr.InvalidConfiguration`, so that the state machine records a named error instead of a dead runtime.

use std::cell::Cell;
use std::error::Error as StdError;
use std::rc::Rc;
use std::time::Duration;

use dr_core::ids::Region;
use dr_core::{DrError, ErrorClass, ErrorName, Result, input};
use jiff::Timestamp;
use lambda_runtime::{Diagnostic, LambdaEvent, service_fn};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::sync::OnceCell;

use crate::{metrics, telemetry};

/// What is known about one invocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    /// The request's id, as in the log.
    pub request_id: String,
    /// When the function received it: the `now` of short handlers.
    pub received_at: Timestamp,
    /// When Lambda kills the invocation.
    pub deadline: Timestamp,
    /// The function's ARN.
    pub function_arn: String,
}

impl Invocation {
    /// Time left until the deadline; zero when it has passed.
    #[expect(clippy::disallowed_methods, reason = "the one reading of the clock that long handlers live by")]
    pub fn remaining(&self) -> Duration {
        Duration::try_from(self.deadline.duration_since(Timestamp::now())).unwrap_or_default()
    }

    /// The instant, for handlers that go on for a while: the one that they are invoked at plus what passed since.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one reading of the clock that long handlers decide by"
    )]
    pub fn now(&self) -> Timestamp {
        Timestamp::now().max(self.received_at)
    }

    /// The account that the function runs in.
    pub fn account(&self) -> Option<&str> {
        self.function_arn.split(':').nth(4).filter(|account| !account.is_empty())
    }

    /// The Region that the function runs in.
    pub fn region(&self) -> Option<Region> {
        Region::parse(self.function_arn.split(':').nth(3)?).ok()
    }

    fn new(context: &lambda_runtime::Context, received_at: Timestamp) -> Self {
        let deadline =
            i64::try_from(context.deadline).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
        Self {
            request_id: context.request_id.clone(),
            received_at,
            deadline: deadline.unwrap_or(received_at),
            function_arn: context.invoked_function_arn.clone(),
        }
    }
}

/// Runs a function: `start` makes what all invocations share, when the first one arrives; `handle` answers one.
///
/// `operation` names the function in metrics and messages. A payload that does not fit becomes `Dr.InvalidInput`
/// with its JSON path; an error becomes a Lambda error whose type is the error's name. Each failure is logged once,
/// here, with the chain of its causes; payloads are never logged.
///
/// # Errors
/// Only what keeps the Lambda runtime itself from working.
pub async fn run<C, Q, A, H>(
    operation: &'static str,
    start: impl Future<Output = Result<C>> + 'static,
    handle: H,
) -> std::result::Result<(), lambda_runtime::Error>
where
    C: 'static,
    Q: DeserializeOwned,
    A: Serialize,
    H: AsyncFn(&C, Q, &Invocation) -> Result<A> + 'static,
{
    let mut vars = crate::environment();
    telemetry::init(vars.optional("LOG_LEVEL", dr_core::config::text).as_deref());
    let settings = metrics::Settings::read(&mut vars);
    metrics::init(&settings);
    let settings = vars.finish();
    let start = Cell::new(Some(async {
        // Both the settings' faults and the function's own count; the function's come first.
        let shared = start.await?;
        settings.map(|()| shared)
    }));
    let shared = Rc::new((start, OnceCell::new(), handle));
    lambda_runtime::run(service_fn(move |event: LambdaEvent<Box<RawValue>>| {
        let shared = Rc::clone(&shared);
        async move {
            let (payload, context) = event.into_parts();
            #[expect(clippy::disallowed_methods, reason = "this is where an invocation's instant comes from")]
            let invocation = Invocation::new(&context, Timestamp::now());
            let (start, started, handle) = &*shared;
            let started = started
                .get_or_init(async || match start.take() {
                    Some(start) => start.await,
                    None => Err(DrError::new(ErrorName::Internal, "starting: it was cut off")),
                })
                .await;
            let outcome = answer(operation, started, handle, payload.get(), &invocation).await;
            if let Err(error) = &outcome {
                metrics::error(operation, error.name());
                log(operation, error);
            }
            metrics::flush();
            outcome.map_err(|error| diagnostic(&error))
        }
    }))
    .await
}

/// One invocation, without the runtime around it.
async fn answer<C, Q, A, H>(
    operation: &'static str,
    started: &Result<C>,
    handle: &H,
    payload: &str,
    invocation: &Invocation,
) -> Result<A>
where
    Q: DeserializeOwned,
    H: AsyncFn(&C, Q, &Invocation) -> Result<A>,
{
    let shared = started.as_ref().map_err(again)?;
    let request = input::parse_text(&format!("the request to {operation}"), payload)?;
    // Boxed, because the layouts of the SDK's futures nest deeper than the compiler follows them in one go.
    Box::pin(handle(shared, request, invocation)).await
}

/// The same error once more: what failed at the start fails every invocation.
fn again(error: &DrError) -> DrError {
    let remedy = error.remedy().to_owned();
    DrError::new(error.name(), error.what()).with_remedy(remedy)
}

/// The error as Lambda passes it on: state machines catch by the type and show the message to people.
pub(crate) fn diagnostic(error: &DrError) -> Diagnostic {
    Diagnostic { error_type: error.name().as_str().to_owned(), error_message: error.to_string() }
}

fn log(operation: &'static str, error: &DrError) {
    let (name, class, causes) = (error.name(), error.name().class(), causes(error));
    // What is tried again by itself needs nobody's attention.
    if class == ErrorClass::Retry {
        tracing::warn!(operation, error = %name, code = name.code(), %class, causes, "{error}");
    } else {
        tracing::error!(operation, error = %name, code = name.code(), %class, causes, "{error}");
    }
}

/// The chain of causes, outermost first. `Display` of the SDK's errors holds no request.
fn causes(error: &DrError) -> String {
    let mut text = String::new();
    let mut cause = error.source();
    while let Some(error) = cause {
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Request {
        number: u32,
    }

    fn invocation() -> Invocation {
        let context: lambda_runtime::Context = lambda_runtime::Context::default();
        let mut invocation = Invocation::new(&context, "2026-01-02T03:04:05Z".parse().unwrap());
        invocation.function_arn = "arn:aws:lambda:us-east-1:000000000000:function:f".to_owned();
        invocation
    }

    async fn handle(add: &u32, request: Request, _: &Invocation) -> Result<u32> {
        Ok(add + request.number)
    }

    #[tokio::test]
    async fn a_payload_that_does_not_fit_becomes_invalid_input_with_its_path() {
        let good = answer("test", &Ok(1), &handle, r#"{"number": 2}"#, &invocation()).await;
        assert_eq!(good.unwrap(), 3);
        let bad =
            answer("test", &Ok(1), &handle, r#"{"number": "hunter2"}"#, &invocation()).await.unwrap_err();
        assert_eq!(bad.name(), ErrorName::InvalidInput);
        let diagnostic = diagnostic(&bad);
        assert_eq!(diagnostic.error_type, "Dr.InvalidInput");
        assert!(diagnostic.error_message.contains("`number`"), "{}", diagnostic.error_message);
        assert!(!diagnostic.error_message.contains("hunter2"));
    }

    #[tokio::test]
    async fn bad_configuration_answers_every_invocation() {
        let started: Result<u32> =
            Err(DrError::new(ErrorName::InvalidConfiguration, "reading the environment: X: it is not set"));
        for _ in 0..2 {
            let error =
                answer("test", &started, &handle, r#"{"number": 2}"#, &invocation()).await.unwrap_err();
            assert_eq!(error.name(), ErrorName::InvalidConfiguration);
            assert!(error.to_string().contains("X: it is not set"));
        }
    }

    #[test]
    fn the_invocation_knows_where_it_is() {
        let invocation = invocation();
        assert_eq!(invocation.account(), Some("000000000000"));
        assert_eq!(invocation.region().unwrap().as_str(), "us-east-1");
        assert_eq!(invocation.remaining(), Duration::ZERO);
    }

    #[test]
    fn causes_are_for_the_log_only() {
        let inner =
            DrError::new(ErrorName::Internal, "inner").with_source(std::io::Error::other("innermost"));
        let error = DrError::new(ErrorName::AwsFault, "outer").with_source(inner);
        assert!(!diagnostic(&error).error_message.contains("inner"));
        assert!(causes(&error).contains("inner") && causes(&error).ends_with("innermost"));
    }
}
