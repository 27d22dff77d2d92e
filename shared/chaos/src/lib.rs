//! The AWS side of chaos experiments: what the resources of an experiment are now, and single changes to them.
//!
//! Nothing is decided here and nothing is waited for: a look says what AWS says, a change is one request (two hundred
//! targets at a time). EC2, Auto Scaling, Elastic Load Balancing, Lambda and CloudWatch are called without a generated
//! client, see [`dr_aws::raw`]; RDS by `dr_aws`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dr_aws::clients::Clients;
use dr_core::chaos::world::{Change, Facts, Resource};
use dr_core::ids::Region;
use dr_core::observed::Observed;
use dr_core::{DrError, ErrorName, Result};
use serde_json::Value;

/// The resources that experiments look at and change, in all Regions.
#[derive(Debug, Clone)]
pub struct World {
    clients: Clients,
}

impl World {
    /// The world as these clients reach it.
    pub fn new(clients: &Clients) -> Self {
        Self { clients: clients.clone() }
    }

    /// Looks at each resource. What could not be looked at is `Unreachable` with the named error of the call that
    /// failed; a Region, which is no resource of AWS, always is. Calls for one kind and Region are batched where the API
    /// can, and different ones are made at the same time.
    pub async fn look(&self, resources: &BTreeSet<Resource>) -> BTreeMap<Resource, Observed<Facts>> {
        let _ = (&self.clients, resources);
        BTreeMap::new()
    }

    /// Makes one change. `Ok` says that AWS took it, not that it shows yet; nothing is waited for. Safe to repeat, but
    /// for reboots and failovers, which happen again.
    ///
    /// # Errors
    /// The named error of the call. What is left behind is unknown when the call was cut off.
    pub async fn make(&self, change: &Change, resource: &Resource) -> Result<()> {
        Err(DrError::new(ErrorName::Internal, format!("making {change:?} to {resource}: not written yet")))
    }

    /// The state of an alarm: `OK`, `ALARM` or `INSUFFICIENT_DATA`. Metric alarms and composite ones are looked for.
    pub async fn alarm_state(&self, region: &Region, name: &str) -> Observed<String> {
        let what = format!("reading alarm `{name}` in {region}: not written yet");
        Observed::Unreachable(DrError::new(ErrorName::Internal, what))
    }

    /// Invokes a function of the home Region and waits for its answer, `within` that time with all attempts.
    ///
    /// # Errors
    /// The named error of the call. An error that the function ended in keeps its name when it is one of ours; its
    /// source is a [`FunctionError`].
    pub async fn invoke(&self, function: &str, payload: &Value, within: Duration) -> Result<Value> {
        let what = format!("invoking `{function}` with {payload} within {within:?}: not written yet");
        Err(DrError::new(ErrorName::Internal, what))
    }
}

/// The error that an invoked function ended in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionError {
    /// `errorType`: a name of ours, or one of the runtime's.
    pub error_type: String,
    /// `errorMessage`.
    pub message: String,
}

impl std::fmt::Display for FunctionError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.error_type, self.message)
    }
}

impl std::error::Error for FunctionError {}
