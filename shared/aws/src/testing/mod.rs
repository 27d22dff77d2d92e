//! A wire that answers from memory, for tests: below the SDK, so that what is asserted is the request as AWS would
//! get it, and what is parsed is an answer as AWS would give it.
//!
//! `aws-smithy-mocks` does this above the wire; it is not used, because its features would have every SDK crate
//! compiled a second time for tests.

mod records;
mod world;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use aws_credential_types::Credentials;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;

pub use world::{Interference, Resource, World};

/// A request as it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// The method.
    pub method: String,
    /// The URI.
    pub uri: String,
    /// Region and service of the signature: `us-west-2/rds`.
    pub scope: String,
    /// For query services the `Action`, for JSON services the operation of `X-Amz-Target`, else the method.
    pub action: String,
    /// The body.
    pub body: String,
    /// The headers, in lower case.
    pub headers: BTreeMap<String, String>,
}

impl Sent {
    fn of(request: &HttpRequest) -> Self {
        let headers: BTreeMap<String, String> =
            request.headers().iter().map(|(key, value)| (key.to_lowercase(), value.to_owned())).collect();
        let body = request.body().bytes().map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        let body = body.unwrap_or_default();
        let scope = headers.get("authorization").and_then(|text| {
            let mut parts = text.split("Credential=").nth(1)?.split('/').skip(2);
            Some(format!("{}/{}", parts.next()?, parts.next()?))
        });
        let target = headers.get("x-amz-target").and_then(|text| text.split('.').nth(1)).map(str::to_owned);
        let mut sent = Self {
            method: request.method().to_owned(),
            uri: request.uri().to_owned(),
            scope: scope.unwrap_or_default(),
            action: String::new(),
            body,
            headers,
        };
        sent.action =
            sent.parameters().get("Action").cloned().or(target).unwrap_or_else(|| sent.method.clone());
        sent
    }

    /// The parameters of a query request, decoded.
    pub fn parameters(&self) -> BTreeMap<String, String> {
        self.body
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| (decoded(key), decoded(value)))
            .collect()
    }

    /// One parameter of a query request; empty when it is absent.
    pub fn parameter(&self, name: &str) -> String {
        self.parameters().remove(name).unwrap_or_default()
    }

    /// The tags of a query request.
    pub fn tags(&self) -> BTreeMap<String, String> {
        let parameters = self.parameters();
        (1..)
            .map_while(|n| {
                let key = parameters.get(&format!("Tags.Tag.{n}.Key"))?;
                let value = parameters.get(&format!("Tags.Tag.{n}.Value")).cloned().unwrap_or_default();
                Some((key.clone(), value))
            })
            .collect()
    }

    /// The Region of the signature.
    pub fn region(&self) -> &str {
        self.scope.split('/').next().unwrap_or_default()
    }

    /// The body as JSON; null when it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let hex = (first == b'%' && tail.len() >= 2)
            .then(|| std::str::from_utf8(&tail[..2]).ok().and_then(|hex| u8::from_str_radix(hex, 16).ok()))
            .flatten();
        if let Some(byte) = hex {
            bytes.push(byte);
            rest = &tail[2..];
        } else {
            bytes.push(if first == b'+' { b' ' } else { first });
            rest = tail;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What the wire does with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// An answer.
    Answer {
        /// HTTP status.
        status: u16,
        /// Body.
        body: String,
    },
    /// An answer with headers.
    Headed {
        /// HTTP status.
        status: u16,
        /// Names, in lower case, and values.
        headers: Vec<(&'static str, &'static str)>,
        /// Body.
        body: String,
    },
    /// The connection breaks.
    Broken,
    /// No answer before the time is out.
    Late,
    /// No answer, ever: for tests of what is given how much time, with a paused clock.
    Never,
}

impl Reply {
    /// A good answer.
    pub fn ok(body: impl Into<String>) -> Self {
        Self::Answer { status: 200, body: body.into() }
    }

    /// An error of a query service (RDS).
    pub fn query_error(status: u16, code: &str, message: &str) -> Self {
        let body = format!(
            "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>\
             <RequestId>r</RequestId></ErrorResponse>"
        );
        Self::Answer { status, body }
    }

    /// An error of EC2, whose form is its own.
    pub fn ec2_error(status: u16, code: &str, message: &str) -> Self {
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Response><Errors><Error><Code>{code}</Code>\
             <Message>{message}</Message></Error></Errors><RequestID>r</RequestID></Response>"
        );
        Self::Answer { status, body }
    }

    /// An error of Lambda, whose code is in a header.
    pub fn lambda_error(status: u16, code: &'static str, message: &str) -> Self {
        let body = serde_json::json!({"Type": "User", "Message": message}).to_string();
        Self::Headed { status, headers: vec![("x-amzn-errortype", code)], body }
    }

    /// An error of a JSON service (KMS, Secrets Manager, DynamoDB).
    pub fn json_error(code: &str, message: &str) -> Self {
        let body = serde_json::json!({"__type": code, "message": message}).to_string();
        Self::Answer { status: 400, body }
    }

    /// An error of S3.
    pub fn s3_error(status: u16, code: &str) -> Self {
        Self::Answer { status, body: format!("<Error><Code>{code}</Code><Message>m</Message></Error>") }
    }
}

type Script = dyn FnMut(&Sent) -> Reply + Send;

/// The wire: a script answers, and all that was sent is kept.
#[derive(Clone)]
pub struct Wire {
    sent: Arc<Mutex<Vec<Sent>>>,
    script: Arc<Mutex<Script>>,
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wire").finish_non_exhaustive()
    }
}

impl Wire {
    /// A wire that answers by `script`.
    pub fn new(script: impl FnMut(&Sent) -> Reply + Send + 'static) -> Self {
        Self { sent: Arc::default(), script: Arc::new(Mutex::new(script)) }
    }

    /// What was sent so far.
    pub fn sent(&self) -> Vec<Sent> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The actions that were sent so far.
    pub fn actions(&self) -> Vec<String> {
        self.sent().into_iter().map(|sent| sent.action).collect()
    }

    /// What was sent of one action.
    pub fn sent_of(&self, action: &str) -> Vec<Sent> {
        self.sent().into_iter().filter(|sent| sent.action == action).collect()
    }

    /// A configuration over this wire, in us-east-1, without retries.
    pub fn config(&self) -> aws_config::SdkConfig {
        aws_config::SdkConfig::builder()
            .behavior_version(behavior())
            .region(aws_config::Region::new("us-east-1"))
            .credentials_provider(aws_credential_types::provider::SharedCredentialsProvider::new(
                Credentials::new("AKIDEXAMPLE", "example", None, None, "test"),
            ))
            .retry_config(aws_config::retry::RetryConfig::disabled())
            .http_client(self.clone())
            .build()
    }

    /// Clients over this wire.
    ///
    /// # Errors
    /// None: the configuration names a Region.
    #[cfg(any(
        feature = "rds",
        feature = "kms",
        feature = "s3",
        feature = "secrets",
        feature = "dynamodb",
        feature = "raw"
    ))]
    pub fn clients(&self) -> dr_core::Result<crate::clients::Clients> {
        crate::clients::Clients::new(self.config())
    }
}

fn behavior() -> aws_config::BehaviorVersion {
    aws_config::BehaviorVersion::v2026_01_12()
}

impl HttpClient for Wire {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for Wire {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let sent = Sent::of(&request);
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).push(sent.clone());
        let reply = (self.script.lock().unwrap_or_else(PoisonError::into_inner))(&sent);
        let answer = |status: u16, headers: Vec<(&'static str, &'static str)>, body: String| {
            let status = status.try_into().map_err(|error| ConnectorError::other(Box::new(error), None))?;
            let mut response = HttpResponse::new(status, SdkBody::from(body));
            for (name, value) in headers {
                response.headers_mut().insert(name, value);
            }
            Ok(response)
        };
        if reply == Reply::Never {
            return HttpConnectorFuture::new(std::future::pending());
        }
        HttpConnectorFuture::ready(match reply {
            Reply::Answer { status, body } => answer(status, Vec::new(), body),
            Reply::Headed { status, headers, body } => answer(status, headers, body),
            Reply::Broken => Err(ConnectorError::io("connection reset".into())),
            Reply::Late | Reply::Never => Err(ConnectorError::timeout("timed out".into())),
        })
    }
}

/// XML of one snapshot or instance from pairs of member and value; an empty value leaves the member out.
pub fn xml_members(members: &[(&str, &str)]) -> String {
    members.iter().filter(|(_, value)| !value.is_empty()).fold(String::new(), |mut text, (member, value)| {
        // Writing to a String cannot fail.
        let _ = write!(text, "<{member}>{value}</{member}>");
        text
    })
}

/// A `TagList`.
pub fn xml_tags(tags: &BTreeMap<String, String>) -> String {
    let items = tags.iter().fold(String::new(), |mut text, (key, value)| {
        // Writing to a String cannot fail.
        let _ = write!(text, "<Tag><Key>{key}</Key><Value>{value}</Value></Tag>");
        text
    });
    format!("<TagList>{items}</TagList>")
}

/// An answer of RDS around `result`.
pub fn rds_answer(action: &str, result: &str) -> Reply {
    Reply::ok(format!(
        "<{action}Response xmlns=\"http://rds.amazonaws.com/doc/2014-10-31/\"><{action}Result>{result}\
         </{action}Result></{action}Response>"
    ))
}
