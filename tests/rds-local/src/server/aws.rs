//! Asks the rest of the local cloud: KMS whether a key may be used, Secrets Manager to keep a master password.
//!
//! A minimal JSON-over-HTTP client for 127.0.0.1 and no SDK: MiniStack checks no signatures, the Region travels in
//! the credential scope. Not meant for AWS itself.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::fault::Fault;

const LIMIT: Duration = Duration::from_secs(20);

/// The way to the local cloud.
#[derive(Debug, Clone)]
pub(super) struct Aws {
    /// `host:port`.
    authority: String,
    access_key: String,
}

impl Aws {
    /// From an endpoint such as `http://127.0.0.1:4566`.
    pub(super) fn new(endpoint: &str, access_key: &str) -> Result<Self, String> {
        let authority = endpoint.strip_prefix("http://").map(|rest| rest.trim_end_matches('/'));
        match authority {
            Some(authority) if authority.contains(':') && !authority.contains('/') => {
                Ok(Self { authority: authority.to_owned(), access_key: access_key.to_owned() })
            }
            _ => Err(format!("--aws-endpoint must look like http://127.0.0.1:4566, not {endpoint}")),
        }
    }

    /// The ARN of a key, by ARN, id or alias, where it is usable: present in this Region and enabled.
    pub(super) async fn usable_key(&self, region: &str, key: &str) -> Result<String, Fault> {
        let (status, answer) =
            self.call(region, "kms", "TrentService.DescribeKey", &json!({"KeyId": key})).await?;
        if status != 200 {
            let code = answer["__type"].as_str().unwrap_or("no such key");
            return Err(Fault::key(key, code.rsplit('#').next().unwrap_or(code)));
        }
        let data = &answer["KeyMetadata"];
        match (data["KeyState"].as_str(), data["Arn"].as_str()) {
            (Some("Enabled"), Some(arn)) => Ok(arn.to_owned()),
            (state, _) => Err(Fault::key(key, &format!("its state is {}", state.unwrap_or("unknown")))),
        }
    }

    /// Keeps a master password and returns the secret's ARN.
    pub(super) async fn create_secret(
        &self,
        region: &str,
        name: &str,
        kms_key: Option<&str>,
        content: &Value,
    ) -> Result<String, Fault> {
        let mut request = json!({
            "Name": name, "SecretString": content.to_string(), "ClientRequestToken": uuid::Uuid::new_v4().to_string()
        });
        if let Some(key) = kms_key {
            request["KmsKeyId"] = json!(key);
        }
        let (status, answer) =
            self.call(region, "secretsmanager", "secretsmanager.CreateSecret", &request).await?;
        match answer["ARN"].as_str() {
            Some(arn) if status == 200 => Ok(arn.to_owned()),
            _ => Err(Fault::internal(format!("Secrets Manager answered {status}: {answer}"))),
        }
    }

    /// Replaces a kept master password.
    pub(super) async fn put_secret(&self, region: &str, arn: &str, content: &Value) -> Result<(), Fault> {
        let request = json!({
            "SecretId": arn, "SecretString": content.to_string(), "ClientRequestToken": uuid::Uuid::new_v4().to_string()
        });
        let (status, answer) =
            self.call(region, "secretsmanager", "secretsmanager.PutSecretValue", &request).await?;
        if status == 200 {
            Ok(())
        } else {
            Err(Fault::internal(format!("Secrets Manager answered {status}: {answer}")))
        }
    }

    /// Removes a kept master password with its instance.
    pub(super) async fn delete_secret(&self, region: &str, arn: &str) -> Result<(), Fault> {
        let request = json!({"SecretId": arn, "ForceDeleteWithoutRecovery": true});
        let (status, answer) =
            self.call(region, "secretsmanager", "secretsmanager.DeleteSecret", &request).await?;
        if status == 200 {
            Ok(())
        } else {
            Err(Fault::internal(format!("Secrets Manager answered {status}: {answer}")))
        }
    }

    async fn call(
        &self,
        region: &str,
        service: &str,
        target: &str,
        body: &Value,
    ) -> Result<(u16, Value), Fault> {
        let body = body.to_string();
        let exchange = self.exchange(region, service, target, &body);
        match tokio::time::timeout(LIMIT, exchange).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(Fault::internal(format!("{service} at {}: {error}", self.authority))),
            Err(_) => Err(Fault::internal(format!("{service} at {}: no answer in time", self.authority))),
        }
    }

    async fn exchange(
        &self,
        region: &str,
        service: &str,
        target: &str,
        body: &str,
    ) -> std::io::Result<(u16, Value)> {
        let mut stream = TcpStream::connect(&self.authority).await?;
        // HTTP/1.0 keeps chunked answers away: the body ends with the connection.
        let request = format!(
            "POST / HTTP/1.0\r\nHost: {}\r\nConnection: close\r\nContent-Type: application/x-amz-json-1.1\r\n\
             X-Amz-Target: {target}\r\nContent-Length: {}\r\nX-Amz-Date: 20260101T000000Z\r\n\
             Authorization: AWS4-HMAC-SHA256 Credential={}/20260101/{region}/{service}/aws4_request, \
             SignedHeaders=host;x-amz-date, Signature={}\r\n\r\n{body}",
            self.authority,
            body.len(),
            self.access_key,
            "0".repeat(64),
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        parse(&answer).ok_or_else(|| std::io::Error::other("the answer is no JSON over HTTP"))
    }
}

fn parse(answer: &[u8]) -> Option<(u16, Value)> {
    let split = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..split]).ok()?;
    let status = head.split_whitespace().nth(1)?.parse().ok()?;
    let body = &answer[split + 4..];
    let body = if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        unchunk(body)?
    } else {
        body.to_vec()
    };
    let value = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).ok()? };
    Some((status, value))
}

/// Some servers send chunks even to an HTTP/1.0 client.
fn unchunk(mut body: &[u8]) -> Option<Vec<u8>> {
    let mut whole = Vec::new();
    loop {
        let line = body.windows(2).position(|window| window == b"\r\n")?;
        let size =
            usize::from_str_radix(std::str::from_utf8(&body[..line]).ok()?.split(';').next()?.trim(), 16)
                .ok()?;
        body = &body[line + 2..];
        if size == 0 {
            return Some(whole);
        }
        whole.extend_from_slice(body.get(..size)?);
        body = body.get(size + 2..)?;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn answers_are_read_whole_and_in_chunks() {
        let plain = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n{\"a\":1}";
        let chunked =
            b"HTTP/1.1 400 Bad\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{\"a\r\n4\r\n\":1}\r\n0\r\n\r\n";
        assert_eq!(parse(plain), Some((200, json!({"a": 1}))));
        assert_eq!(parse(chunked), Some((400, json!({"a": 1}))));
        assert_eq!(parse(b"HTTP/1.1 200 OK\r\n\r\n"), Some((200, Value::Null)));
        assert_eq!(parse(b"garbage"), None);
    }

    #[test]
    fn only_plain_http_endpoints_are_taken() {
        assert!(Aws::new("http://127.0.0.1:4566/", "test").is_ok());
        for wrong in ["127.0.0.1:4566", "https://127.0.0.1:4566", "http://host", "http://127.0.0.1:1/path"] {
            assert!(Aws::new(wrong, "test").is_err(), "{wrong}");
        }
    }
}
