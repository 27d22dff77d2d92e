//! Calls that are made without a generated client.
//!
//! A generated client of a large service costs minutes of compilation, and some ask for features that every function's
//! dependencies would be compiled with again. These calls go through the same runtime (signature, retries, timeouts);
//! what a request and an answer look like is the caller's.

use std::fmt;
use std::time::Duration;

use aws_config::SdkConfig;
use aws_runtime::auth::{SigV4OperationSigningConfig, sigv4};
use aws_runtime::recursion_detection::RecursionDetectionInterceptor;
use aws_runtime::retries::classifiers::AwsErrorCodeClassifier;
use aws_smithy_runtime::client::identity::IdentityCache;
use aws_smithy_runtime::client::orchestrator::operation::Operation;
use aws_smithy_runtime::client::retries::classifiers::{HttpStatusCodeClassifier, TransientErrorClassifier};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::auth::static_resolver::StaticAuthSchemeOptionResolver;
use aws_smithy_runtime_api::client::auth::{
    AuthSchemeOptionResolverParams, SharedAuthScheme, SharedAuthSchemeOptionResolver,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse, OrchestratorError};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponentsBuilder;
use aws_smithy_runtime_api::client::runtime_plugin::StaticRuntimePlugin;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::config_bag::Layer;
use aws_smithy_types::error::metadata::{ErrorMetadata, ProvideErrorMetadata};
use aws_types::SigningName;
use aws_types::region::SigningRegion;
use dr_core::DrError;
use dr_core::ids::Region;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::clients::behavior;
use crate::errors::{Call, code_of};

/// The longest answer that is read, bytes: more than any call here is answered with (Lambda: 6 MiB).
const MOST_BYTES: usize = 8 << 20;

/// A service in one Region, and how its answers are read.
#[derive(Debug, Clone)]
pub struct Raw<O> {
    operation: Operation<Request, O, Fault>,
}

/// A request, but for its endpoint and its signature.
#[derive(Clone)]
pub struct Request {
    method: &'static str,
    path: String,
    headers: Vec<(&'static str, &'static str)>,
    body: String,
}

/// Without the body: it may hold what belongs in no log.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("method", &self.method)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Request {
    /// A request without a body. `path` is encoded, see [`encoded`].
    pub fn new(method: &'static str, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), headers: Vec::new(), body: String::new() }
    }

    /// The same with a header; names are in lower case.
    #[must_use]
    pub fn with_header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The same with a body.
    #[must_use]
    pub fn with_body(self, content_type: &'static str, body: impl Into<String>) -> Self {
        Self { body: body.into(), ..self }.with_header("content-type", content_type)
    }

    /// A call in the JSON 1.0 protocol. `target` is the service's own name for it, such as
    /// `GraniteServiceVersion20100801.GetMetricData`.
    pub fn json(target: &'static str, body: &Value) -> Self {
        Self::new("POST", "/")
            .with_header("x-amz-target", target)
            .with_body("application/x-amz-json-1.0", body.to_string())
    }

    fn to_http(&self) -> Result<HttpRequest, BoxError> {
        let mut http = HttpRequest::new(SdkBody::from(self.body.as_str()));
        http.set_method(self.method)?;
        http.set_uri(self.path.as_str())?;
        for (name, value) in &self.headers {
            http.headers_mut().insert(*name, *value);
        }
        Ok(http)
    }
}

/// Text as a part of a path, or as a key or a value of a form: all but `A-Z a-z 0-9 - . _ ~` in per cent notation.
pub fn encoded(text: &str) -> String {
    aws_smithy_http::query::fmt_string(text)
}

/// An answer, of 8 MiB at most.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a>(&'a HttpResponse);

impl<'a> Answer<'a> {
    /// Whether the HTTP status says that it went well.
    pub fn is_success(self) -> bool {
        self.0.status().is_success()
    }

    /// A header; its name is in lower case.
    pub fn header(self, name: &str) -> Option<&'a str> {
        self.0.headers().get(name)
    }

    /// The body.
    pub fn body(self) -> &'a [u8] {
        self.0.body().bytes().unwrap_or_default()
    }
}

/// Why an answer gave no result.
#[derive(Debug)]
pub enum Unread {
    /// The service refused, for a reason that it may have given.
    Refused {
        /// Its code.
        code: Option<String>,
        /// Its words.
        message: Option<String>,
    },
    /// The answer is not what the protocol says.
    Unreadable(BoxError),
}

impl Unread {
    /// An answer that is not what the protocol says.
    pub fn unreadable(why: impl Into<BoxError>) -> Self {
        Self::Unreadable(why.into())
    }

    /// What a service with a JSON protocol says when it refuses. The code is in a header, or in the body.
    pub fn json(answer: Answer<'_>) -> Self {
        let json: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
        // `com.amazonaws.cloudwatch#InvalidNextToken`, `ServiceException:http://…`, or the name alone.
        let code = answer.header("x-amzn-errortype").or(json["__type"].as_str()).or(json["code"].as_str());
        let code = code.and_then(|text| text.split(':').next()).and_then(|text| text.rsplit('#').next());
        let message = json["message"].as_str().or(json["Message"].as_str());
        Self::Refused { code: code.map(str::to_owned), message: message.map(str::to_owned) }
    }
}

/// Reads an answer in a JSON protocol; no body is `null`.
///
/// # Errors
/// What the service refused with, or that it is no such JSON.
pub fn read_json<O: DeserializeOwned>(answer: Answer<'_>) -> Result<O, Unread> {
    if !answer.is_success() {
        return Err(Unread::json(answer));
    }
    let body = if answer.body().is_empty() { b"null" } else { answer.body() };
    serde_json::from_slice(body).map_err(Unread::unreadable)
}

/// A call that failed: the error of ours, and the code that the service gave, for what hangs on it.
#[derive(Debug)]
pub struct Refusal {
    /// The service's code.
    pub code: Option<String>,
    /// The error.
    pub error: DrError,
}

impl Refusal {
    /// Whether the service gave this code.
    pub fn is(&self, code: &str) -> bool {
        self.code.as_deref() == Some(code)
    }
}

impl From<DrError> for Refusal {
    fn from(error: DrError) -> Self {
        Self { code: None, error }
    }
}

impl From<Refusal> for DrError {
    fn from(refusal: Refusal) -> Self {
        refusal.error
    }
}

/// An error of the service.
#[derive(Debug)]
struct Fault(ErrorMetadata);

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Fault {}

impl ProvideErrorMetadata for Fault {
    fn meta(&self) -> &ErrorMetadata {
        &self.0
    }
}

impl<O: fmt::Debug + Send + Sync + 'static> Raw<O> {
    /// `service` in `region`, over a function's configuration. `service` is the name that requests are signed for, and
    /// the first label of its host name. `read` makes a result of an answer.
    pub fn new(
        config: &SdkConfig,
        service: &'static str,
        region: &Region,
        read: fn(Answer<'_>) -> Result<O, Unread>,
    ) -> Self {
        let endpoint = config.endpoint_url().map_or_else(|| endpoint(service, region), str::to_owned);
        let mut builder = Operation::builder()
            // Retries have one budget a service and Region: trouble in one place must not take them from another.
            .service_name(format!("{service}-{region}"))
            .operation_name("raw")
            .behavior_version(behavior())
            .endpoint_url(&endpoint)
            // As the generated clients do: X-Ray and Lambda's detection of loops follow the invocation's trace.
            .interceptor(RecursionDetectionInterceptor::new())
            .retry_classifier(HttpStatusCodeClassifier::default())
            .retry_classifier(TransientErrorClassifier::<Fault>::new())
            .retry_classifier(AwsErrorCodeClassifier::<Fault>::new())
            .runtime_plugin(signed(config, service, region));
        if let Some(http) = config.http_client() {
            builder = builder.http_client(http);
        }
        if let Some(retries) = config.retry_config() {
            builder = builder.standard_retry(retries);
        }
        if let Some(timeouts) = config.timeout_config() {
            builder = builder.timeout_config(timeouts.clone());
        }
        if let Some(sleep) = config.sleep_impl() {
            builder = builder.sleep_impl(sleep);
        }
        let operation = builder
            .serializer(|request: Request| request.to_http())
            .deserializer(move |response: &HttpResponse| {
                let answer = Answer(response);
                if answer.body().len() > MOST_BYTES {
                    return Err(OrchestratorError::other(format!("more than {MOST_BYTES} bytes")));
                }
                read(answer).map_err(|unread| match unread {
                    Unread::Refused { code, message } => {
                        let mut meta = ErrorMetadata::builder();
                        if let Some(code) = code {
                            meta = meta.code(code);
                        }
                        if let Some(message) = message {
                            meta = meta.message(message);
                        }
                        OrchestratorError::operation(Fault(meta.build()))
                    }
                    Unread::Unreadable(why) => OrchestratorError::other(why),
                })
            })
            .build();
        Self { operation }
    }

    /// The same, for calls that may take so long, with all attempts, instead of the configuration's time.
    pub fn within(
        config: &SdkConfig,
        service: &'static str,
        region: &Region,
        read: fn(Answer<'_>) -> Result<O, Unread>,
        limit: Duration,
    ) -> Self {
        let timeouts = config
            .timeout_config()
            .map_or_else(Default::default, aws_config::timeout::TimeoutConfig::to_builder);
        let timeouts = timeouts.operation_attempt_timeout(limit).operation_timeout(limit).build();
        Self::new(&config.to_builder().timeout_config(timeouts).build(), service, region, read)
    }

    /// Makes one call.
    ///
    /// # Errors
    /// The named error of `call`, with the service's code.
    pub async fn ask(&self, call: &Call, request: Request) -> Result<O, Refusal> {
        Box::pin(self.operation.invoke(request)).await.map_err(|fault| {
            let code = code_of(&fault).map(str::to_owned);
            Refusal { code, error: call.failure(fault) }
        })
    }
}

/// Source: AWS General Reference, "Service endpoints".
fn endpoint(service: &str, region: &Region) -> String {
    let suffix = if region.as_str().starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    format!("https://{service}.{region}.{suffix}")
}

/// Credentials of the configuration, and a signature for the service in the Region.
fn signed(config: &SdkConfig, service: &'static str, region: &Region) -> StaticRuntimePlugin {
    let mut layer = Layer::new("signature");
    layer.store_put(AuthSchemeOptionResolverParams::new(()));
    layer.store_put(SigV4OperationSigningConfig {
        region: Some(SigningRegion::from(aws_config::Region::new(region.as_str().to_owned()))),
        name: Some(SigningName::from_static(service)),
        ..SigV4OperationSigningConfig::default()
    });
    let mut components = RuntimeComponentsBuilder::new("signature");
    components.set_auth_scheme_option_resolver(Some(SharedAuthSchemeOptionResolver::new(
        StaticAuthSchemeOptionResolver::new(vec![sigv4::SCHEME_ID]),
    )));
    components.push_auth_scheme(SharedAuthScheme::new(sigv4::SigV4AuthScheme::new()));
    components.set_identity_cache(Some(IdentityCache::no_cache()));
    if let Some(credentials) = config.credentials_provider() {
        components.set_identity_resolver(sigv4::SCHEME_ID, credentials);
    }
    StaticRuntimePlugin::new().with_config(layer.freeze()).with_runtime_components(components)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use aws_config::retry::RetryConfig;
    use dr_core::{ErrorName, Leftovers};
    use serde_json::json;

    use super::*;
    use crate::testing::{Reply, Wire};

    fn raw(wire: &Wire, limit: Duration) -> Raw<Value> {
        let config =
            wire.config().to_builder().retry_config(RetryConfig::standard().with_max_attempts(3)).build();
        Raw::within(&config, "lambda", &Region::parse("cn-north-1").unwrap(), read_json, limit)
    }

    fn call() -> Call {
        Call::write("lambda:InvokeFunction", "invoking `f`")
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_goes_to_its_service_signed_and_encoded() {
        let wire = Wire::new(|_| Reply::ok(r#"{"a": 1}"#));
        let request = Request::new("PUT", format!("/x/{}", encoded("arn:a/b c")))
            .with_header("x-amz-invocation-type", "Event")
            .with_body("application/json", "{}");
        assert!(!format!("{:?}", request.clone().with_body("text/plain", "hunter2")).contains("hunter2"));
        let answer = raw(&wire, Duration::from_secs(9)).ask(&call(), request).await.unwrap();
        assert_eq!(answer, json!({"a": 1}));
        let sent = wire.sent().remove(0);
        assert_eq!((sent.method.as_str(), sent.scope.as_str()), ("PUT", "cn-north-1/lambda"));
        assert_eq!(sent.uri, "https://lambda.cn-north-1.amazonaws.com.cn/x/arn%3Aa%2Fb%20c");
        assert_eq!((sent.headers["content-type"].as_str(), sent.body.as_str()), ("application/json", "{}"));
        assert_eq!(sent.headers["x-amz-invocation-type"], "Event");
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_pass_is_tried_again_and_what_does_not_is_not() {
        for (trouble, times, name) in [
            (Reply::Answer { status: 500, body: String::new() }, 3, ErrorName::AwsFault),
            (Reply::lambda_error(429, "TooManyRequestsException", "slowly"), 3, ErrorName::Throttled),
            (
                Reply::json_error("com.amazonaws.lambda#ThrottlingException", "slowly"),
                3,
                ErrorName::Throttled,
            ),
            (Reply::Broken, 3, ErrorName::AwsUnreachable),
            (
                Reply::lambda_error(400, "InvalidParameterValueException:http://x/", "no"),
                1,
                ErrorName::AwsRejected,
            ),
            (Reply::lambda_error(403, "AccessDeniedException", "no"), 1, ErrorName::AccessDenied),
            (Reply::ok("<html>"), 1, ErrorName::AwsFault),
            (Reply::ok("9".repeat(MOST_BYTES + 1)), 1, ErrorName::AwsFault),
        ] {
            let shown = format!("{trouble:?}").chars().take(80).collect::<String>();
            let wire = Wire::new(move |_| trouble.clone());
            let refusal =
                raw(&wire, Duration::from_mins(10)).ask(&call(), Request::new("GET", "/")).await.unwrap_err();
            assert_eq!((wire.sent().len(), refusal.error.name()), (times, name), "{shown}");
        }
        let mut first = true;
        let wire = Wire::new(move |_| if std::mem::take(&mut first) { Reply::Broken } else { Reply::ok("") });
        let answer = raw(&wire, Duration::from_mins(10)).ask(&call(), Request::new("GET", "/")).await;
        assert_eq!(answer.unwrap(), Value::Null);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_ends_when_its_time_is_over() {
        let wire = Wire::new(|_| Reply::Never);
        let begun = tokio::time::Instant::now();
        let sent = raw(&wire, Duration::from_secs(75)).ask(&call(), Request::new("GET", "/")).await;
        let error = sent.unwrap_err().error;
        assert_eq!((error.name(), error.leftovers()), (ErrorName::AwsUnreachable, &Leftovers::Unknown));
        assert!((75..76).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn a_refusal_has_the_services_code() {
        let wire = Wire::new(|_| Reply::lambda_error(404, "ResourceNotFoundException:http://x/", "no `f`"));
        let sent = raw(&wire, Duration::from_secs(9)).ask(&call(), Request::new("GET", "/")).await;
        let refusal = sent.unwrap_err();
        assert!(refusal.is("ResourceNotFoundException") && !refusal.is("ResourceNotFound"));
        assert_eq!(DrError::from(refusal).name(), ErrorName::TargetMissing);
    }
}
