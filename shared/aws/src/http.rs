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
        let (base, path) = parts(url);
        let timeouts = TimeoutConfig::builder().connect_timeout(within).operation_timeout(within).build();
        let operation: Operation<String, u16, std::convert::Infallible> = Operation::builder()
            .service_name("probe")
            .operation_name("get")
            .behavior_version(crate::clients::behavior())
            .http_client(self.client.clone())
            // A path in it would be put before the request's own.
            .endpoint_url(base)
            .no_auth()
            .no_retry()
            .timeout_config(timeouts)
            .serializer(|path: String| {
                let mut request = HttpRequest::new(SdkBody::empty());
                request.set_method("GET")?;
                request.set_uri(path)?;
                Ok(request)
            })
            .deserializer(|answer: &HttpResponse| Ok(answer.status().as_u16()))
            .build();
        let answer = Box::pin(operation.invoke(path)).await;
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

/// Scheme and host of a URL; and its path with its query, without a fragment.
fn parts(url: &str) -> (&str, String) {
    let url = url.split('#').next().unwrap_or(url);
    let authority = url.find("://").map_or(0, |at| at + 3);
    let end =
        url.get(authority..).and_then(|rest| rest.find(['/', '?'])).map_or(url.len(), |at| authority + at);
    let (base, path) = url.split_at(end);
    (base, if path.starts_with('/') { path.to_owned() } else { format!("/{path}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_asked_for_its_own_path() {
        for (url, base, path) in [
            ("https://orders.example.com", "https://orders.example.com", "/"),
            ("https://orders.example.com/", "https://orders.example.com", "/"),
            ("https://orders.example.com:8443/a/b?c=/d#e", "https://orders.example.com:8443", "/a/b?c=/d"),
            ("https://orders.example.com?deep=1", "https://orders.example.com", "/?deep=1"),
        ] {
            assert_eq!(parts(url), (base, path.to_owned()), "{url}");
        }
    }
}
