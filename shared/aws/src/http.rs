//! Asking a URL, through the SDK's own runtime. Redirections are not followed: an allowed host must not lead elsewhere.

use std::time::Duration;

use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_runtime::client::orchestrator::operation::Operation;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::timeout::TimeoutConfig;
use dr_core::{DrError, ErrorName, Result};

/// Asks URLs: `GET`, without credentials.
#[derive(Debug)]
pub struct Http {
    client: SharedHttpClient,
}

impl Http {
    /// Trusts the system's authorities and, where named, those of a PEM file.
    ///
    /// # Errors
    /// [`ErrorName::InvalidConfiguration`] when the file cannot be read, or holds no certificates.
    pub fn new(ca_file: Option<&str>) -> Result<Self> {
        let fault =
            || DrError::new(ErrorName::InvalidConfiguration, "reading the file of CHAOS_PROBE_CA_FILE");
        let mut trusted = TrustStore::default();
        if let Some(path) = ca_file {
            let pem = std::fs::read(path).map_err(|error| fault().with_source(error))?;
            trusted = trusted.with_pem_certificate(pem);
        }
        let context = TlsContext::builder().with_trust_store(trusted).build();
        let context = context.map_err(|error| fault().with_source(error))?;
        let builder = Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).tls_context(context);
        Ok(Self { client: builder.build_https() })
    }

    /// Whether the URL answers with that status within that time, and what it did.
    pub async fn ask(&self, url: &str, status: u16, within: Duration) -> (bool, String) {
        match self.status(url, within).await {
            Ok(seen) => (seen == status, format!("it answered {seen}")),
            Err(why) => (false, why),
        }
    }

    async fn status(&self, url: &str, within: Duration) -> std::result::Result<u16, String> {
        let timeouts = TimeoutConfig::builder().connect_timeout(within).operation_timeout(within).build();
        let operation: Operation<String, u16, std::convert::Infallible> = Operation::builder()
            .service_name("probe")
            .operation_name("get")
            .behavior_version(crate::clients::behavior())
            .http_client(self.client.clone())
            .endpoint_url(url)
            .no_auth()
            .no_retry()
            .timeout_config(timeouts)
            .serializer(|url: String| {
                let mut request = HttpRequest::new(SdkBody::empty());
                request.set_method("GET")?;
                request.set_uri(url)?;
                Ok(request)
            })
            .deserializer(|answer: &HttpResponse| Ok(answer.status().as_u16()))
            .build();
        let answer = Box::pin(operation.invoke(url.to_owned())).await;
        answer.map_err(|fault| match fault {
            SdkError::TimeoutError(_) => format!("it did not answer within {within:?}"),
            SdkError::DispatchFailure(failure) if failure.is_timeout() => {
                format!("it did not answer within {within:?}")
            }
            SdkError::DispatchFailure(_) => {
                "it could not be connected to, or its certificate is not trusted".to_owned()
            }
            _ => "it did not answer in HTTP".to_owned(),
        })
    }
}
