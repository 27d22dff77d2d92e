//! Regions that an experiment makes unreachable: no request that is signed for one of them leaves the function.
//!
//! It lies below the clients, between the SDK and the network, so that it holds for every client, and for those that
//! are made later. What is blocked is read from the state table of the function's own Region, at most every five
//! seconds for each Region that is called, whatever that Region's own block says. When it cannot be read, what was known
//! goes on to count until its own end, and nothing else is blocked: an experiment stops nothing by its own trouble.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_config::SdkConfig;
use aws_config::retry::RetryConfig;
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::connector_metadata::ConnectorMetadata;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::{RuntimeComponents, RuntimeComponentsBuilder};
use aws_smithy_types::config_bag::ConfigBag;
use dr_core::chaos::blocks::RegionBlock;
use dr_core::ids::Region;
use dr_core::{DrError, ErrorName, Result};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};
use tokio::sync::Mutex;

use crate::errors::Call;
use crate::raw::{Answer, Raw, Request, Unread, read_json};

/// The variable that names the table.
pub const TABLE: &str = "CHAOS_REGION_BLOCKS_TABLE";
/// How long what was read is believed.
const FRESH: SignedDuration = SignedDuration::from_secs(5);
/// How long reading may take: calls wait for it.
const PATIENCE: Duration = Duration::from_secs(2);

/// The configuration with a gate in front of its network. Without an HTTP client there is nothing to stand in front of.
pub fn gated(config: &SdkConfig, home: &Region, table: String) -> SdkConfig {
    let Some(inner) = config.http_client() else { return config.clone() };
    let once = config.to_builder().retry_config(RetryConfig::disabled()).build();
    let state = Raw::within(&once, "dynamodb", home, read_item, PATIENCE);
    let gate = Gate { inner, blocks: Arc::new(Blocks { state, table, known: Mutex::default() }) };
    config.to_builder().http_client(gate).build()
}

/// What is known of blocks, by Region.
#[derive(Debug)]
struct Blocks {
    state: Raw<Option<RegionBlock>>,
    table: String,
    known: Mutex<BTreeMap<Region, Known>>,
}

#[derive(Debug)]
struct Known {
    read_at: Timestamp,
    block: Option<RegionBlock>,
}

impl Blocks {
    /// The block of a Region, if there is one now.
    async fn of(&self, region: &Region, now: Timestamp) -> Option<RegionBlock> {
        let mut known = self.known.lock().await;
        let fresh = |known: &Known| now.duration_since(known.read_at).abs() < FRESH;
        if !known.get(region).is_some_and(fresh) {
            let block = match self.read(region).await {
                Ok(block) => block,
                Err(error) => {
                    tracing::warn!(error = %error.name(), region = %region, "{error}");
                    known.remove(region).and_then(|known| known.block)
                }
            };
            known.insert(region.clone(), Known { read_at: now, block });
        }
        known.get(region)?.block.clone().filter(|block| block.in_force(now))
    }

    async fn read(&self, region: &Region) -> Result<Option<RegionBlock>> {
        let call = Call::read("dynamodb:GetItem", format!("reading whether an experiment blocks {region}"));
        let body = json!({
            "TableName": self.table,
            "Key": {"operationId": {"S": RegionBlock::key(region)}},
            "ConsistentRead": true,
        });
        let request = Request::json("DynamoDB_20120810.GetItem", &body);
        Ok(self.state.ask(&call, request).await?)
    }
}

/// `GetItemOutput`; an item's members are texts and numbers.
fn read_item(answer: Answer<'_>) -> std::result::Result<Option<RegionBlock>, Unread> {
    let answer: Value = read_json(answer)?;
    let Some(item) = answer.get("Item").and_then(Value::as_object) else { return Ok(None) };
    let mut plain = Map::new();
    for (name, value) in item {
        let value = match (value.get("S"), value.get("N").and_then(Value::as_str)) {
            (Some(text), _) => text.clone(),
            (None, Some(number)) => serde_json::from_str(number).map_err(Unread::unreadable)?,
            _ => continue,
        };
        plain.insert(name.clone(), value);
    }
    serde_json::from_value(Value::Object(plain)).map(Some).map_err(Unread::unreadable)
}

/// An HTTP client that lets no request to a blocked Region through.
#[derive(Debug, Clone)]
struct Gate {
    inner: SharedHttpClient,
    blocks: Arc<Blocks>,
}

impl HttpClient for Gate {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        let now = components.time_source().unwrap_or_default().now();
        SharedHttpConnector::new(Door {
            inner: self.inner.http_connector(settings, components),
            blocks: Arc::clone(&self.blocks),
            now: instant(now),
        })
    }

    fn validate_base_client_config(
        &self,
        components: &RuntimeComponentsBuilder,
        config: &ConfigBag,
    ) -> std::result::Result<(), BoxError> {
        self.inner.validate_base_client_config(components, config)
    }

    fn validate_final_config(
        &self,
        components: &RuntimeComponents,
        config: &ConfigBag,
    ) -> std::result::Result<(), BoxError> {
        self.inner.validate_final_config(components, config)
    }

    fn connector_metadata(&self) -> Option<ConnectorMetadata> {
        self.inner.connector_metadata()
    }
}

/// Outside of what `jiff` knows no block is in force.
fn instant(time: SystemTime) -> Timestamp {
    Timestamp::try_from(time).unwrap_or(Timestamp::MAX)
}

/// The gate for one attempt of a call.
#[derive(Debug, Clone)]
struct Door {
    inner: SharedHttpConnector,
    blocks: Arc<Blocks>,
    now: Timestamp,
}

impl HttpConnector for Door {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        // Only what is signed for no Region goes through unseen.
        let Some(region) = signed_for(&request) else { return self.inner.call(request) };
        let Self { inner, blocks, now } = self.clone();
        HttpConnectorFuture::new(async move {
            match blocks.of(&region, now).await {
                None => inner.call(request).await,
                // Not one that is tried again: it would be refused again.
                Some(block) => Err(ConnectorError::other(Box::new(refusal(&block)), None)),
            }
        })
    }
}

fn refusal(block: &RegionBlock) -> DrError {
    DrError::new(
        ErrorName::AwsUnreachable,
        format!(
            "{} cannot be reached until {}: the experiment {} wants it so",
            block.region, block.blocked_until, block.owner
        ),
    )
    .with_remedy(
        "Wait until the experiment ends, or cancel it; {\"unblock\": …} of chaos_runner takes its block away.",
    )
}

/// The Region in the signature: `Credential=<id>/<day>/<region>/<service>/aws4_request`.
fn signed_for(request: &HttpRequest) -> Option<Region> {
    let header = request.headers().get("authorization")?;
    let scope = header.split("Credential=").nth(1)?;
    Region::parse(scope.split('/').nth(2)?).ok()
}
