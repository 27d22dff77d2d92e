//! The query protocol over HTTP: which Region, which action, which injected fault, and the answer as XML.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::{io, time::Duration};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, Response, StatusCode, Uri, header};
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;

use super::actions::{self, Call};
use super::cloud::Cloud;
use super::control;
use super::fault::Fault;
use super::faults::{Effect, Outcome};
use super::params::Params;
use super::xml;

/// Query API on every path but the control API's.
pub(super) fn router(cloud: Arc<Cloud>) -> Router {
    control::routes().fallback(answer).with_state(cloud)
}

/// Accepts connections that can be cut before anything is answered.
pub(super) struct CuttableListener(pub(super) TcpListener);

/// A connection; once `cut` is set, nothing more is written to it.
pub(super) struct Cuttable {
    stream: TcpStream,
    cut: Arc<AtomicBool>,
}

/// What a handler needs to cut its connection.
#[derive(Clone)]
pub(super) struct Cutter(Arc<AtomicBool>);

impl Listener for CuttableListener {
    type Io = Cuttable;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Cuttable, SocketAddr) {
        loop {
            match self.0.accept().await {
                Ok((stream, address)) => return (Cuttable { stream, cut: Arc::default() }, address),
                Err(error) => {
                    // Out of file descriptors, most likely: it passes.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

impl Connected<IncomingStream<'_, CuttableListener>> for Cutter {
    fn connect_info(stream: IncomingStream<'_, CuttableListener>) -> Self {
        Self(Arc::clone(&stream.io().cut))
    }
}

impl AsyncRead for Cuttable {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Cuttable {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.cut.load(Ordering::SeqCst) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

async fn answer(
    State(cloud): State<Arc<Cloud>>,
    ConnectInfo(cutter): ConnectInfo<Cutter>,
    headers: HeaderMap,
    uri: Uri,
    body: Bytes,
) -> Response<Body> {
    let request_id = Uuid::new_v4().to_string();
    let mut pairs = decode(uri.query().unwrap_or_default().as_bytes());
    pairs.extend(decode(&body));
    let action = pairs.iter().find(|(name, _)| name == "Action").map(|(_, value)| value.clone());
    // The work goes on even when the client hangs up: as on AWS, what was accepted happens.
    let work = tokio::spawn(handle(cloud, action.clone(), region(&headers), Params::new(pairs), cutter));
    let result = work.await.unwrap_or_else(|error| Err(Fault::internal(error)));
    let action = action.unwrap_or_default();
    let (status, text) = match result {
        Ok(content) => (200, xml::response(&action, &request_id, &content)),
        Err(fault) => {
            tracing::info!(action, code = fault.code, message = fault.message, "refused");
            (fault.status, xml::error(&fault, &request_id))
        }
    };
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/xml"));
    if let Ok(id) = request_id.parse() {
        headers.insert("x-amzn-requestid", id);
    }
    response
}

async fn handle(
    cloud: Arc<Cloud>,
    action: Option<String>,
    region: Option<String>,
    params: Params,
    cutter: Cutter,
) -> Result<String, Fault> {
    let Some(region) = region else {
        let message = "Request is missing Authentication Token";
        return Err(Fault::new("MissingAuthenticationToken", 403, message));
    };
    let action =
        action.ok_or_else(|| Fault::new("MissingAction", 400, "The request must contain an Action"))?;
    let mut outcome: Option<Outcome> = None;
    let mut lose = false;
    let effects = cloud.state().faults.meet(&action, &region);
    for effect in effects {
        tracing::info!(action, region, ?effect, "a fault to order");
        match effect {
            Effect::Error { code, message, status } => return Err(Fault::new(&code, status, message)),
            Effect::LoseAnswer(yes) => lose |= yes,
            Effect::Outcome(end) => outcome = Some(end),
            Effect::DelayMs(time) => tokio::time::sleep(Duration::from_millis(time)).await,
        }
    }
    let call = Call { cloud, region, params, outcome };
    let result = actions::perform(&action, &call).await;
    tracing::debug!(action, region = call.region, fine = result.is_ok(), "performed");
    if lose {
        cutter.0.store(true, Ordering::SeqCst);
    }
    result
}

/// The Region from the credential scope of a SigV4 header: `Credential=KEY/DATE/REGION/rds/aws4_request`.
fn region(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let scope = value.split("Credential=").nth(1)?.split([',', ' ']).next()?;
    let parts: Vec<&str> = scope.split('/').collect();
    // An access key may hold no slash, so the Region is the third part.
    let region = parts.get(2).filter(|_| parts.len() == 5)?;
    let shaped = !region.is_empty() && region.chars().all(|char| char.is_ascii_alphanumeric() || char == '-');
    shaped.then(|| (*region).to_owned())
}

/// Decodes `application/x-www-form-urlencoded`.
fn decode(text: &[u8]) -> Vec<(String, String)> {
    let part = |bytes: &[u8]| {
        let mut plain = Vec::with_capacity(bytes.len());
        let mut at = 0;
        while at < bytes.len() {
            let hex = || {
                let digits = std::str::from_utf8(bytes.get(at + 1..at + 3)?).ok()?;
                u8::from_str_radix(digits, 16).ok()
            };
            match bytes[at] {
                b'+' => plain.push(b' '),
                b'%' => match hex() {
                    Some(byte) => {
                        plain.push(byte);
                        at += 2;
                    }
                    None => plain.push(b'%'),
                },
                byte => plain.push(byte),
            }
            at += 1;
        }
        String::from_utf8_lossy(&plain).into_owned()
    };
    text.split(|&byte| byte == b'&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let at = pair.iter().position(|&byte| byte == b'=').unwrap_or(pair.len());
            (part(&pair[..at]), part(pair.get(at + 1..).unwrap_or_default()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn forms_are_decoded() {
        let pairs = decode(b"Action=A+B&x=%C3%A4%2F%25&empty=&bare&odd=100%");
        let pairs: Vec<(&str, &str)> =
            pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(pairs, [("Action", "A B"), ("x", "ä/%"), ("empty", ""), ("bare", ""), ("odd", "100%")]);
    }

    #[test]
    fn the_region_is_the_one_signed_for() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, text.parse().unwrap());
            region(&headers)
        };
        let good = "AWS4-HMAC-SHA256 Credential=AKIA/20260101/eu-west-1/rds/aws4_request, SignedHeaders=host, Signature=0";
        assert_eq!(of(good).as_deref(), Some("eu-west-1"));
        for wrong in [
            "Bearer x",
            "AWS4-HMAC-SHA256 Credential=AKIA/20260101/rds",
            "Credential=a/b/../rds/aws4_request",
        ] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
        assert_eq!(region(&HeaderMap::new()), None);
    }
}
