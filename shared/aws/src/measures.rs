//! CloudWatch in one Region: the newest values of what RDS measures about its databases.
//!
//! `aws-sdk-cloudwatch` speaks CBOR and compresses its requests, for which every function's dependencies would be compiled
//! with other features: this is a raw call, in the service's JSON protocol.

use std::collections::BTreeMap;

use aws_config::SdkConfig;
use dr_core::health::Measure;
use dr_core::ids::Region;
use dr_core::{DrError, ErrorName, Result};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::errors::Call;
use crate::raw::{Raw, Request, read_json};

/// Queries of one call: the most that CloudWatch takes.
/// Source: Amazon CloudWatch API Reference, `GetMetricData`.
const MOST_QUERIES: usize = 500;
/// How old the newest value may be: RDS measures every minute and CloudWatch is a few minutes behind.
const WINDOW: SignedDuration = SignedDuration::from_mins(15);
/// The period of RDS's metrics, seconds.
const PERIOD: i32 = 60;

/// CloudWatch in one Region.
#[derive(Debug)]
pub struct Measures {
    raw: Raw<Answer>,
    region: Region,
}

/// Whose values are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The instance.
    pub id: String,
    /// Whether it has storage of its own: a member of an Aurora cluster has none.
    pub has_storage: bool,
    /// What its lag is called.
    pub lag: Lag,
}

/// Which lag an instance has.
/// Source: RDS User Guide, "Amazon CloudWatch metrics for Amazon RDS"; Aurora User Guide, "Amazon CloudWatch metrics for
/// Amazon Aurora".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lag {
    /// It follows nobody.
    Nothing,
    /// `ReplicaLag`, seconds; -1 when it does not replicate. Of read replicas, and of a Multi-AZ DB cluster's readers.
    Replica,
    /// `AuroraReplicaLag`, milliseconds. Of an Aurora cluster's readers.
    AuroraReader,
}

impl Lag {
    const fn metric(self) -> Option<&'static str> {
        match self {
            Self::Nothing => None,
            Self::Replica => Some(REPLICA_LAG),
            Self::AuroraReader => Some(AURORA_REPLICA_LAG),
        }
    }
}

const REPLICA_LAG: &str = "ReplicaLag";
const AURORA_REPLICA_LAG: &str = "AuroraReplicaLag";

/// `GetMetricDataOutput`, as far as it is used.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(default)]
    metric_data_results: Vec<MetricDataResult>,
    #[serde(default)]
    next_token: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct MetricDataResult {
    id: String,
    #[serde(default)]
    timestamps: Vec<Value>,
    #[serde(default)]
    values: Vec<f64>,
    /// `Complete`, `PartialData`, `InternalError` or `Forbidden`.
    #[serde(default)]
    status_code: Option<String>,
}

impl MetricDataResult {
    /// The newest value with its time in seconds. The order is asked for, but not relied on.
    fn newest(&self) -> Option<(f64, f64)> {
        // JSON 1.0 has instants as seconds; texts are taken, too.
        let seconds = |time: &Value| {
            let text =
                || time.as_str()?.parse::<Timestamp>().ok().map(|time| time.as_duration().as_secs_f64());
            time.as_f64().or_else(text)
        };
        let pairs = self.timestamps.iter().zip(&self.values);
        let known = pairs.filter_map(|(time, value)| Some((seconds(time)?, *value)));
        known.max_by(|a, b| a.0.total_cmp(&b.0))
    }
}

impl Measures {
    /// CloudWatch in `region`, over a function's configuration.
    pub fn new(config: &SdkConfig, region: Region) -> Self {
        Self { raw: Raw::new(config, "monitoring", &region, read_json), region }
    }

    /// The newest free storage of each instance and the newest lag of each replica and reader, of the last 15 minutes. An
    /// instance without any value is not in the answer. One call for 250 to 500 instances.
    ///
    /// # Errors
    /// The named error of the call `cloudwatch:GetMetricData`.
    pub async fn newest(&self, of: &[Subject], now: Timestamp) -> Result<BTreeMap<String, Measure>> {
        let wanted: Vec<(&str, &'static str)> = of
            .iter()
            .flat_map(|subject| {
                let storage = subject.has_storage.then_some("FreeStorageSpace");
                storage.into_iter().chain(subject.lag.metric()).map(|metric| (subject.id.as_str(), metric))
            })
            .collect();
        let mut found: BTreeMap<String, Measure> = BTreeMap::new();
        for batch in wanted.chunks(MOST_QUERIES) {
            for (at, value) in self.ask(batch, now).await? {
                let Some((id, metric)) = batch.get(at) else { continue };
                let measure = found.entry((*id).to_owned()).or_default();
                match *metric {
                    REPLICA_LAG => measure.lag_seconds = Some(value),
                    // Below 0 it is no duration, and stays what it is.
                    AURORA_REPLICA_LAG if value < 0.0 => measure.lag_seconds = Some(value),
                    AURORA_REPLICA_LAG => measure.lag_seconds = Some(value / 1_000.0),
                    _ => measure.free_bytes = Some(value),
                }
            }
        }
        Ok(found)
    }

    /// The newest value of each metric that has one, by its place in the list.
    async fn ask(&self, metrics: &[(&str, &str)], now: Timestamp) -> Result<BTreeMap<usize, f64>> {
        let what = format!("reading the metrics of databases in {}", self.region);
        let call = Call::read("cloudwatch:GetMetricData", what.clone());
        let queries: Vec<Value> =
            metrics.iter().enumerate().map(|(at, (id, metric))| query(at, id, metric)).collect();
        let mut request = json!({
            "MetricDataQueries": queries,
            "StartTime": (now - WINDOW).as_second(),
            "EndTime": (now + SignedDuration::from_mins(1)).as_second(),
            "ScanBy": "TimestampDescending",
        });
        let mut found: BTreeMap<usize, (f64, f64)> = BTreeMap::new();
        loop {
            let sent = Request::json("GraniteServiceVersion20100801.GetMetricData", &request);
            let answer = self.raw.ask(&call, sent).await?;
            for result in answer.metric_data_results {
                let unread = |name, why: &str| Err(DrError::new(name, format!("{what}: {why}")));
                match result.status_code.as_deref() {
                    Some("InternalError") => {
                        return unread(ErrorName::AwsFault, "a metric could not be read");
                    }
                    Some("Forbidden") => return unread(ErrorName::AccessDenied, "a metric may not be read"),
                    _ => {}
                }
                let Some(at) = result.id.strip_prefix('m').and_then(|at| at.parse::<usize>().ok()) else {
                    return unread(ErrorName::AwsFault, "a result has an id that was not asked for");
                };
                if let Some((time, value)) = result.newest() {
                    let known = found.entry(at).or_insert((time, value));
                    if known.0 < time {
                        *known = (time, value);
                    }
                }
            }
            match answer.next_token.filter(|token| !token.is_empty()) {
                Some(token) => request["NextToken"] = json!(token),
                None => return Ok(found.into_iter().map(|(at, (_, value))| (at, value)).collect()),
            }
        }
    }
}

fn query(at: usize, id: &str, metric: &str) -> Value {
    json!({
        "Id": format!("m{at}"),
        "MetricStat": {
            "Metric": {
                "Namespace": "AWS/RDS",
                "MetricName": metric,
                "Dimensions": [{"Name": "DBInstanceIdentifier", "Value": id}],
            },
            "Period": PERIOD,
            "Stat": "Average",
        },
        "ReturnData": true,
    })
}
